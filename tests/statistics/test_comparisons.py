"""DeLong, permutation, Wilson and adjusted p values against published examples and libraries."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from merlin.statistics import comparisons


def slow_delong(scores, labels):
    """Structural components written out, pair by pair (DeLong et al. 1988)."""
    x, y = scores[labels == 1], scores[labels == 0]
    kernel = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    below, above = kernel.mean(1), kernel.mean(0)
    return kernel.mean(), below.var(ddof=1) / len(x) + above.var(ddof=1) / len(y)


@pytest.mark.parametrize("decimals", [1, 6])  # with ties and without
def test_delong_equals_its_definition_and_scikit_learn(decimals):
    rng = np.random.default_rng(1)
    labels = (rng.random(80) < 0.3).astype(float)
    scores = np.round(rng.normal(size=(80, 2)) + labels[:, None], decimals)
    found = comparisons.delong(scores, labels)
    for model in (0, 1):
        auroc, variance = slow_delong(scores[:, model], labels)
        assert found.auroc[model] == pytest.approx(auroc)
        assert found.auroc[model] == pytest.approx(roc_auc_score(labels, scores[:, model]))
        assert found.covariance[model, model] == pytest.approx(variance)


def test_delong_on_hanley_and_mcneils_radiologist():
    """The 109 CT readings of Hanley and McNeil (Radiology 143:29, 1982): 0.893, error 0.032."""
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    scores = np.repeat([1, 2, 3, 4, 5, 1, 2, 3, 4, 5], normal + abnormal).astype(float)
    labels = np.repeat([0.0, 1.0], [58, 51])
    found = comparisons.delong(scores, labels)
    assert found.auroc[0] == pytest.approx(0.893, abs=5e-4)
    assert np.sqrt(found.covariance[0, 0]) == pytest.approx(0.032, abs=2e-3)


def test_paired_difference_is_narrower_than_two_apart_and_zero_for_equals():
    rng = np.random.default_rng(2)
    labels = (rng.random(300) < 0.4).astype(float)
    base = rng.normal(size=300) + labels
    scores = np.stack([base + 0.3 * rng.normal(size=300), base + 0.3 * rng.normal(size=300)], 1)
    found = comparisons.delong(scores, labels)
    _, low, high, p = found.difference()
    apart = 2 * 1.96 * np.sqrt(found.covariance[0, 0] + found.covariance[1, 1])
    assert high - low < 0.6 * apart
    assert 0 < p <= 1
    same = comparisons.delong(np.stack([base, 2 * base], 1), labels).difference()
    assert same[0] == 0
    assert np.isnan(same[3])


def test_one_study_a_patient_gives_delong_and_repeats_widen_it():
    rng = np.random.default_rng(3)
    labels = (rng.random(120) < 0.4).astype(float)
    scores = rng.normal(size=120) + labels
    plain = comparisons.delong(scores, labels).covariance[0, 0]
    alone = comparisons.delong(scores, labels, np.arange(120)).covariance[0, 0]
    assert alone == pytest.approx(plain, rel=0.03)
    # Each study four times is no more evidence than once.
    again = [np.repeat(a, 4) for a in (scores, labels, np.arange(120))]
    clustered = comparisons.delong(*again).covariance[0, 0]
    assert clustered == pytest.approx(alone, rel=0.03)
    assert comparisons.delong(*again[:2]).covariance[0, 0] < 0.3 * clustered


def test_delong_refuses_one_class():
    with pytest.raises(ValueError, match="1 positive, 4 negative"):
        comparisons.delong(np.arange(5.0), np.array([1.0, 0, 0, 0, 0]))


@pytest.mark.parametrize(
    ("scores", "value", "why"),
    [
        ([1, 2, 3, 4, 5, 6], 1.0, "AUROC 1: all pairs ranked alike"),
        ([6, 5, 4, 3, 2, 1], 0.0, "AUROC 0: all pairs ranked alike"),
        ([1, 1, 1, 1, 1, 1], 0.5, "variance is zero for the AUROC"),
        ([0, 1, 0, 1, 0, 1], None, ""),
    ],
)
def test_delong_at_the_edges_says_so(scores, value, why):
    """Not an interval of no width, which would claim certainty."""
    found = comparisons.delong(np.array(scores, float), np.array([0.0, 0, 0, 1, 1, 1]))
    assert why in found.reason()
    assert (found.reason() == "") == (value is None)
    if value is not None:
        assert found.auroc[0] == value
        assert np.isnan(found.interval()).all()
    else:
        low, high = found.interval()
        assert low < found.auroc[0] < high


def test_delongs_difference_says_why_there_is_none():
    labels = np.array([0.0, 0, 0, 1, 1, 1])
    perfect, fair = np.arange(6.0), np.array([0.0, 2, 4, 1, 5, 3])
    found = comparisons.delong(np.stack([perfect, fair, fair**3], 1), labels)
    assert found.difference(1, 2)[0] == 0
    assert np.isnan(found.difference(1, 2)[1:]).all()
    assert "rank all pairs alike" in found.reason(1, 2)
    assert "AUROC 1" in found.reason(0, 1)
    assert np.isnan(found.difference(0, 1)[3])  # never a p of 0
    assert found.difference(0, 1)[0] > 0


def test_one_class_or_one_patient_of_a_class_is_refused():
    labels = np.array([0.0, 0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="two patients of each class; got 1 positive, 3 negative"):
        comparisons.delong(np.arange(6.0), labels, np.array([1, 2, 3, 4, 4, 4]))


def test_wilson_is_scipys():
    for k, n in ((0, 10), (3, 10), (10, 10), (150, 1000)):
        expected = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert comparisons.wilson(k, n) == pytest.approx((expected.low, expected.high))
    assert np.isnan(comparisons.wilson(0, 0)).all()


@pytest.mark.parametrize("odd", [2, -1, 0.5])
def test_delong_refuses_labels_that_are_none(odd):
    with pytest.raises(ValueError, match=f"labels must be 1, 0 or NaN; found .*{odd:g}"):
        comparisons.delong(np.arange(6.0), [0, 0, 1, 1, odd, np.nan])


@pytest.mark.parametrize(
    ("scores", "labels", "patients"),
    [
        (range(5), [0, 0, 1, 1], None),
        (range(4), [0, 0, 1, 1], [1, 2, 3]),
        (range(4), [[0], [1]], None),
    ],
)
def test_delong_refuses_lengths_that_differ(scores, labels, patients):
    with pytest.raises(ValueError, match=f"scores of {len(scores)} studies, labels .*one each"):
        comparisons.delong(np.array(scores, float), labels, patients)
