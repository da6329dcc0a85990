"""Intervals hold the truth as often as they say, if patients are resampled."""

import numpy as np
import pytest
from scipy import stats

from merlin.statistics import bootstrap, coverage

ALONE = coverage.Population(studies_per_patient=(1,), n_patients=400)
CLUSTERED = coverage.Population(n_patients=250)


@pytest.mark.parametrize("population", [ALONE, CLUSTERED], ids=["alone", "clustered"])
def test_intervals_over_patients_cover_what_they_promise(population):
    for row in coverage.coverage(population, n_sets=1500, n_resamples=600, seed=5):
        assert row["mean"] == pytest.approx(row["truth"], abs=0.01)
        assert 0.93 <= row["covered"] <= 0.97, row


def test_intervals_over_studies_are_too_narrow_in_clusters():
    rows = coverage.coverage(CLUSTERED, unit="study", n_sets=600, n_resamples=400, seed=5)
    assert all(row["covered"] < 0.88 for row in rows)


def test_bca_agrees_with_scipy():
    rng = np.random.default_rng(1)
    x = rng.exponential(size=60)  # skewed: BCa moves
    weights = bootstrap.patient_weights(np.arange(60), 20000, seed=1).astype(float)
    value, resampled = x.mean(), (x @ weights / weights.sum(0))
    left_out = (x.sum() - x) / 59
    found = bootstrap.interval(value, resampled, method="bca", jackknife=left_out)
    expected = stats.bootstrap(
        (x,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    plain = bootstrap.interval(value, resampled)
    assert found.high > plain.high + 0.005  # and not by chance


def test_many_limits_equal_single_intervals():
    rng = np.random.default_rng(3)
    resampled = rng.normal(size=(4, 500))
    resampled[2, :10] = np.nan
    resampled[3, :400] = np.nan
    value = np.array([0.1, np.nan, 0.0, 0.2])
    low, high = bootstrap.limits(value, resampled)
    for i in range(4):
        one = bootstrap.interval(value[i], resampled[i])
        np.testing.assert_array_equal([low[i], high[i]], [one.low, one.high])
    assert np.isnan(low[[1, 3]]).all()


def test_bca_without_a_jackknife_or_spread():
    with pytest.raises(ValueError, match="need the jackknife"):
        bootstrap.interval(0.5, np.full(10, 0.5), method="bca")
    flat = bootstrap.interval(1.0, np.ones(50), method="bca", jackknife=np.ones(9))
    assert np.isnan([flat.low, flat.high]).all()


def test_jackknife_leaves_out_all_studies_of_a_patient():
    weights = bootstrap.jackknife_weights(["b", "a", "b"])
    np.testing.assert_array_equal(weights, [[1, 0], [0, 1], [1, 0]])
