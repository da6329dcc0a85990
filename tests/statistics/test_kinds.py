"""Every kind of interval in the tables holds its truth at the size where it is used."""

import numpy as np
import pytest
from scipy import stats

from merlin.statistics import bootstrap, kinds, metrics

FINDINGS = kinds.spaced(0.05, 0.4, 12)
JUDGED = [
    kinds.Case("one label", "auroc", 120, (0.2,), (1.2,)),
    kinds.Case("few positives", "auroc", 150, (0.1,), (1.2,)),
    kinds.Case("few positives", "auprc", 150, (0.1,), (1.2,)),
    kinds.Case("mean", "auprc", 150, kinds.spaced(0.08, 0.2, 4), (0.9,) * 4),
    kinds.Case("chance", "auprc", 400, FINDINGS, (0.0,) * 12),
    kinds.Case("macro", "f1", 120, FINDINGS, (1.0,) * 12),
    kinds.Case("difference", "auroc", 120, FINDINGS, (1.0,) * 12, 0.2),
    kinds.Case("reports", "clinical_f1", 120),
    kinds.Case("retrieval", "recall@1 of 64", 120),
    kinds.Case("scans", "dice", 100),
]


@pytest.mark.parametrize("case", JUDGED, ids=lambda c: f"{c.kind}, {c.metric}")
def test_intervals_in_use_cover_93_to_97_percent(case):
    n_sets = 150 if len(case.prevalence) > 4 else 400
    row = kinds.coverage(case, n_sets=n_sets, n_resamples=150, seed=3)[0]
    assert row["is_used"]
    assert row["high"] >= 0.93
    assert row["low"] <= 0.97, row


def test_percentiles_of_average_precision_miss_chance():
    """Why they are not used: the truth is the mean prevalence."""
    case = JUDGED[4]
    used, plain = kinds.coverage(case, n_sets=60, n_resamples=150, seed=3)
    assert used["truth"] == pytest.approx(np.mean(FINDINGS), rel=0.01)
    assert plain["covered"] < 0.6


def slow_auprc(scores, labels):
    """Precision at each positive by all others, at the prevalence with it; the topmost with the next."""
    at = np.minimum(scores, np.sort(scores)[-2])
    found = []
    for i in np.flatnonzero(labels == 1):
        above = (at >= at[i]) & (np.arange(len(at)) != i)
        hits = (above & (labels == 1)).sum() * labels.sum() / (labels.sum() - 1)
        found.append(hits / (hits + (above & (labels == 0)).sum()))
    return np.mean(found)


@pytest.mark.parametrize("decimals", [1, 6])
def test_auprc_equals_its_definition_with_ties_and_unknown_labels(decimals):
    rng = np.random.default_rng(2)
    labels = (rng.random(70) < 0.3).astype(float)
    scores = np.round(rng.normal(size=70) + labels, decimals)
    expected = slow_auprc(scores, labels)
    assert metrics.auprc(scores[:, None], labels[:, None])[0, 0] == pytest.approx(expected)
    more, unknown = np.append(scores, [9.0, 0.0]), np.append(labels, [np.nan, np.nan])
    assert metrics.auprc(more[:, None], unknown[:, None])[0, 0] == pytest.approx(expected)


def test_auprc_of_chance_is_the_prevalence_where_average_precision_lies_above():
    rng = np.random.default_rng(2)
    labels = np.zeros((100, 3000))
    labels[:10] = 1
    scores = rng.normal(size=labels.shape)
    assert metrics.auprc(scores, labels).mean() == pytest.approx(0.1, abs=0.004)
    assert metrics.average_precision(scores, labels).mean() > 0.13
    sure = labels[:, :1] + 0.1 * rng.random((100, 1))
    assert metrics.auprc(sure, labels[:, :1])[0, 0] == 1


def test_t_interval_of_a_mean_is_students():
    x = np.random.default_rng(4).normal(size=16)
    weights = bootstrap.patient_weights(np.arange(16), 20_000, seed=1).astype(float)
    e = bootstrap.interval(x.mean(), x @ weights / 16, method="t", n=16)
    expected = stats.t.interval(0.95, 15, x.mean(), stats.sem(x))
    assert (e.low, e.high) == pytest.approx(expected, abs=0.02)


def test_a_share_without_spread_has_the_exact_interval_of_its_patients():
    for value, ends in ((1.0, (0.025 ** (1 / 20), 1.0)), (0.0, (0.0, 1 - 0.025 ** (1 / 20)))):
        e, method = bootstrap.of_metric("agreement", np.full(100, value), n=20)
        assert (e.low, e.high) == pytest.approx(ends)
        assert method == "t of log odds"


def test_shares_stay_inside_zero_and_one_and_differences_do_not_lean():
    rng = np.random.default_rng(4)
    near = np.append(0.98, np.clip(rng.normal(0.98, 0.02, 500), 0, 1))
    e, _ = bootstrap.of_metric("auroc", near, n=60)
    assert 0 < e.low < 0.98 < e.high < 1
    assert 0.98 - e.low > 2 * (e.high - 0.98)
    gap = np.append(0.01, rng.normal(0.01, 0.02, 500))
    e, method = bootstrap.of_metric("recall@1 of 64", gap, n=60)
    assert method == "t"
    assert 0.01 - e.low == pytest.approx(e.high - 0.01)
