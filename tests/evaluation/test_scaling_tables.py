"""Scaling laws as tables: what is at a bound, out of reach or reached by the runs alone says so."""

import numpy as np
import pandas as pd
import pytest

from merlin.evaluation import scaling

SIZES = [250, 500, 1000, 2000, 4000, 8000]
RNG = np.random.default_rng(8)


def runs(truth, noise=0.003):
    """Three seeds at each size, each with 40 resamples of patients."""
    patients = RNG.normal(0, 0.002, 41)
    return [t + RNG.normal(0, noise, (3, 1)) + patients for t in truth]


def told(truth, targets, **options):
    found = scaling.evaluate(
        SIZES, runs(truth, **options), metric="m", n_fits=40, seed=1, n_simulated=5
    )
    made = scaling.table({"m": found}, n_studies=9, n_patients=9, targets=targets)
    return found, made.set_index(["metric", "model"])


def test_sizes_are_told_for_rising_and_falling_metrics_and_blank_beyond_reach():
    x = np.array(SIZES, float)
    for truth, inside, far in (
        (0.9 - 2 * x**-0.35, 0.75, 0.895),
        (0.1 + 2 * x**-0.35, 0.25, 0.105),
    ):
        found, table = told(truth, (inside, far))
        assert found.law == "offset"
        row = table.loc[f"studies for {inside}", "offset"]
        assert row["status"] == "ok"
        assert row["low"] < (2 / 0.15) ** (1 / 0.35) < row["high"]
        assert row["value"] == pytest.approx((2 / 0.15) ** (1 / 0.35), rel=0.15)
        row = table.loc[f"studies for {far}", "offset"]
        assert np.isnan(row["value"])
        assert row["status"] == "not evaluated"
        assert row["reason"]
        assert not (table[["value", "low", "high"]] > 1e6).any(axis=None)


def test_what_the_runs_reach_is_never_called_out_of_reach():
    truth = np.array([0.60, 0.66, 0.70, 0.72, 0.73, 0.74])
    _, table = told(truth, (0.7, 0.735), noise=0.0005)
    for target in (0.7, 0.735):
        row = table.xs(f"studies for {target}").iloc[0]
        assert row["status"] == "ok"
        assert row["value"] <= 8000


def test_an_exponent_at_a_bound_is_no_estimate():
    x = np.array(SIZES, float)
    found, table = told(0.1 + 0.06 * np.log(x), (0.5,), noise=1e-4)
    row = table.loc["exponent of the offset law", "offset"]
    assert row["status"] == "at bound"
    assert np.isnan(row[["value", "low", "high"]].astype(float)).all()
    assert "0.001" in row["reason"]
    assert found.law == "power"


def test_too_few_sizes_or_seeds_give_a_row_with_its_reason():
    short = scaling.evaluate(SIZES[:2], runs([0.5, 0.6]), metric="m", n_fits=3, seed=1)
    single = scaling.evaluate(
        SIZES[:3], [r[:1] for r in runs([0.5, 0.6, 0.65])], metric="m", n_fits=3, seed=1
    )
    table = scaling.table({"a": short, "b": single}, n_studies=1, n_patients=1)
    assert table["status"].tolist() == ["not evaluated"] * 2
    assert "2 sizes" in table["reason"][0]
    assert "one seed" in table["reason"][1]
    assert scaling.curves({"a": short}).empty


def test_bands_stay_within_the_metric_and_are_blank_where_refits_say_nothing():
    """Three sizes with wild seeds: some refits of the law run to thousands; an AUROC does not."""
    wild = scaling.evaluate(
        SIZES[:3],
        runs([0.55, 0.62, 0.66], noise=0.25),
        metric="m",
        n_fits=60,
        seed=1,
        n_simulated=0,
    )
    calm = scaling.evaluate(SIZES, runs(0.9 - 2 * np.array(SIZES, float) ** -0.35),
                            metric="m", n_fits=40, seed=1, n_simulated=0)  # fmt: skip
    drawn = scaling.curves({"free": wild, "zero-shot AUROC": wild, "recall@1 of 64": calm})
    free, share, good = (part for _, part in drawn.groupby("series", sort=False))
    assert (free["high"] - free["low"]).max() > 1
    assert share["low"].isna().any()
    assert share["low"].isna().sum() == share["high"].isna().sum()
    known = share.dropna(subset="low")
    assert known["low"].min() >= 0
    assert known["high"].max() <= 1
    assert (known["low"] <= known["high"]).all()
    assert good["low"].notna().all()


def test_points_of_others_are_fitted_by_the_same_code():
    """Compute and best model size of Hoffmann et al. 2022 span decades: N grows with C to the 0.5."""
    compute = np.array([6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21])
    noisy = 0.6 * compute**0.5 * np.exp(np.random.default_rng(1).normal(0, 0.05, 9))
    points = pd.DataFrame({"size": compute, "value": noisy, "series": "N"})
    curve = pd.DataFrame({"size": [872, 1745, 4362], "value": [0.65, 0.69, 0.72], "series": "F1"})
    table = scaling.of_points(pd.concat([points, curve]), n_simulated=5).set_index(
        ["label", "metric"]
    )
    row = table.loc[("N", "exponent")]
    assert row["low"] < 0.5 < row["high"]
    assert row["value"] == pytest.approx(0.5, abs=0.03)
    assert table.loc[("F1", "exponent"), "value"] == pytest.approx(0.06, abs=0.03)
    with pytest.raises(ValueError, match="no column value; there are size"):
        scaling.of_points(pd.DataFrame({"size": [1, 2]}))


def test_regimes_share_a_run_where_it_is_the_same():
    judged = {
        (a, s): {"m": np.full(3, v + s)} for a, v in (("once_8", 1), ("steps_4", 2)) for s in (1, 2)
    }
    judged |= {("once_4", s): {"m": np.full(3, 5.0 + s)} for s in (1, 2)}
    regimes = {
        "every study once": {4: "once_4", 8: "once_8"},
        "equal steps": {4: "steps_4", 8: "once_8"},
    }
    found = scaling.by_size(judged, regimes)
    assert list(found) == ["m", "m, equal steps"]
    assert [r[0, 0] for r in found["m"][1]] == [6, 2]
    assert [r[0, 0] for r in found["m, equal steps"][1]] == [3, 2]
    assert len(scaling.by_run(judged, regimes)) == 8
