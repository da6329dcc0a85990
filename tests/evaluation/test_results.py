"""Rows and differences of one run and of several."""

import numpy as np
import pytest

from merlin.evaluation import results
from merlin.evaluation.zero_shot import Scores, evaluate
from merlin.statistics import seeds

RNG = np.random.default_rng(1)
PATIENTS = np.arange(90) // 2
LABELS = (RNG.random((90, 4)) < 0.4).astype(float)
RUNS = [
    Scores(tuple("abcd"), LABELS * d + RNG.normal(size=LABELS.shape) - 0.5) for d in (0.8, 1.1, 1.5)
]


def judged(scores):
    how = dict(model="main", split="test", n_resamples=200, n_draws=2, seed=1)
    table, drawn = evaluate(scores, LABELS, PATIENTS, **how)
    return table.set_index(["label", "metric"]), drawn


def test_rows_of_several_runs_are_means_with_patients_and_seeds_in_the_interval():
    alone = [judged(run)[0] for run in RUNS]
    table, drawn = judged(RUNS)
    for key in (("macro", "auroc"), ("b", "f1"), ("c", "f1_balanced")):
        values = [t.loc[key, "value"] for t in alone]
        row = table.loc[key]
        assert row["value"] == pytest.approx(np.mean(values))
        assert [float(v) for v in row["by_seed"].split()] == pytest.approx(values, abs=1e-5)
        assert row["n_seeds"] == 3
        widths = [t.loc[key, "high"] - t.loc[key, "low"] for t in alone]
        assert row["high"] - row["low"] > 0.9 * min(widths)
    assert drawn["auroc"].shape == (3, 201)
    macro = table.loc["macro", "auroc"]
    assert macro["high"] - macro["low"] > 1.5 * np.ptp(
        [t.loc["macro", "auroc"].value for t in alone]
    )


def test_one_run_in_a_list_is_that_run():
    for one, listed in zip(judged(RUNS[0]), judged(RUNS[:1]), strict=True):
        if isinstance(one, dict):
            np.testing.assert_array_equal(one["f1"], listed["f1"])
        else:
            assert one.equals(listed)
            assert (one["n_seeds"] == 1).all()


def test_a_rival_of_one_run_has_luck_too_unless_nobody_trained_it():
    noise = np.random.default_rng(2).normal(0, 0.01, (4, 300))
    ours, other = 0.8 + noise[:3], 0.7 + noise[3]
    ours[:, 0], other[0] = [0.78, 0.80, 0.82], 0.7
    value, low, high = results.ends(results.difference(ours, other, "auroc"))
    _, least, most = results.ends(results.difference(ours, other, "auroc", is_trained=False))
    assert value == pytest.approx(0.1)
    assert high - low == pytest.approx(
        2 * (most - least), rel=0.1
    )  # 1 + 1/3 against 1/3 of the variance
    whole = seeds.over_seeds(ours - other)
    assert (least, most) == pytest.approx((whole.low, whole.high), rel=0.1)
