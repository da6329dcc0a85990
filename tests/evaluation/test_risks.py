"""Recalibration is statsmodels', decision curves are counted by hand."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit

from merlin.evaluation import results, risks


def test_slope_and_intercept_are_those_of_a_regression_with_the_resamples_weights():
    rng = np.random.default_rng(1)
    x = rng.normal(-1, 1, 150)
    y = (rng.random(150) < expit(0.3 + 0.6 * x)).astype(float)
    y[:5] = np.nan
    weights = rng.multinomial(150, np.full(150, 1 / 150), 4).T
    slope, intercept = risks.recalibrated(expit(x), y, weights)
    x, y, weights = x[5:], y[5:], weights[5:]
    for r in range(4):
        family = dict(family=sm.families.Binomial(), freq_weights=weights[:, r])
        both = sm.GLM(y, sm.add_constant(x), **family).fit().params
        alone = sm.GLM(y, np.ones(145), offset=x, **family).fit().params
        assert slope[r] == pytest.approx(both[1], abs=1e-8)
        assert intercept[r] == pytest.approx(alone[0], abs=1e-8)


def test_separated_classes_have_no_slope_and_one_class_nothing():
    p, w = np.array([0.1, 0.2, 0.8, 0.9]), np.ones((4, 1))
    assert np.isnan(risks.recalibrated(p, np.array([0, 0, 1.0, 1]), w)[0])
    assert np.isnan(risks.recalibrated(p, np.zeros(4), w)).all()


def test_right_risks_have_slope_one_and_few_events_are_said():
    rng = np.random.default_rng(2)
    p = rng.uniform(0.05, 0.6, (1, 900, 2))
    labels = (rng.random((900, 2)) < p[0]).astype(float)
    labels[150:, 1] = np.nan
    table = risks.recalibration(
        {"m": p},
        labels,
        np.arange(900).astype(str),
        ("dm", "ost"),
        min_events=5,
        n_resamples=200,
        seed=1,
    ).set_index(["label", "metric"])
    for metric, right in (("slope", 1.0), ("intercept", 0.0)):
        assert table.loc[("dm", metric), "low"] < right < table.loc[("dm", metric), "high"]
    assert table.loc[("dm", "slope"), "reason"] == ""
    assert "too few to tell" in table.loc[("ost", "slope"), "reason"]
    assert table.loc[("all", "slope"), "n_studies"] == 1050


def test_net_benefit_counts_hits_and_false_alarms_at_their_price():
    p = np.array([[0.9], [0.6], [0.4], [0.3], [0.8]])
    y = np.array([[1.0], [0], [1], [0], [np.nan]])
    found = risks.net_benefit(p, y, np.ones((5, 1)), 0.5)
    assert found.item() == pytest.approx((1 - 1 * 1) / 4)
    found = risks.net_benefit(p, y, np.ones((5, 1)), 0.2)
    assert found.item() == pytest.approx((2 - 2 * 0.25) / 4)


def test_a_curve_starts_at_treat_all_and_gains_where_risks_are_right():
    rng = np.random.default_rng(3)
    p = expit(rng.normal(logit(0.3), 1.5, (800, 1)))
    labels = (rng.random(p.shape) < p).astype(float)
    table = risks.decision_curve(
        {"m": p}, labels, np.arange(800).astype(str), thresholds=(1e-6, 0.3), n_resamples=50, seed=1
    ).set_index(["start", "threshold"])
    assert table.loc[("m", 1e-6), "value"] == pytest.approx(labels.mean(), abs=1e-4)
    assert table.loc[("m", 1e-6), "gain"] == pytest.approx(0, abs=1e-4)
    assert table.loc[("m", 0.3), "gain_low"] > 0
    assert (table.loc["treat all", "gain"] <= 1e-12).all()


def test_a_gain_has_the_interval_of_a_paired_difference_of_patients_and_seeds():
    rng = np.random.default_rng(4)
    p = expit(rng.normal(logit(0.3), 1.5, (3, 200, 1)))
    labels, who = (rng.random(p[0].shape) < p[0]).astype(float), np.arange(200).astype(str)
    row = risks.decision_curve({"m": p}, labels, who, thresholds=(0.3,), n_resamples=60, seed=1)
    row = row.set_index("start").loc["m"]
    weights = results.resampling(who, 60, seed=1)
    ours = np.concatenate([risks.net_benefit(run, labels, weights, 0.3) for run in p])
    everyone = risks.net_benefit(np.ones_like(labels), labels, weights, 0.3)[0]
    gap = results.difference(ours, np.maximum(everyone, 0), "net benefit", n=200, is_trained=False)
    found = row[["gain", "gain_low", "gain_high"]].tolist()
    assert found == pytest.approx(results.ends(gap))
    # Three runs far apart: their spread is in it, beyond what the patients' alone would give.
    assert row["gain_high"] - row["gain_low"] > 3.92 * gap["se_patients"]
