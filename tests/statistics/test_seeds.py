"""Intervals over patients and seeds hold the truth, and say where a rerun lands."""

import numpy as np
import pytest
from scipy import stats

from merlin.statistics import bootstrap, seeds


def runs(rng, *, n_patients=120, n_seeds=3, sd_seeds=0.0, sd_patients=1.0, sd_both=0.3):
    """Values of n runs on patients with one study or two: (n_seeds, n_studies), and who they are."""
    patient = np.repeat(np.arange(n_patients), 1 + (np.arange(n_patients) % 4 == 0))
    own = rng.normal(0, sd_patients, n_patients)[patient]
    luck = rng.normal(0, sd_seeds, (n_seeds, 1))
    return own + luck + rng.normal(0, sd_both, (n_seeds, len(patient))), patient


def covered(sd_seeds, *, n_sets=600, **options):
    """Share of intervals that hold the truth."""
    rng, held = np.random.default_rng(3), 0
    _, patient = runs(rng)
    weights = bootstrap.patient_weights(patient, 200, seed=1).astype(float)
    weights = np.concatenate([np.ones((len(patient), 1)), weights], 1)
    for _ in range(n_sets):
        found, _ = runs(rng, n_seeds=3, sd_seeds=sd_seeds)
        drawn = found @ weights / weights.sum(0)
        e = seeds.over_seeds(drawn, **options)
        held += e.low <= 0.0 <= e.high
    return held / n_sets


@pytest.mark.parametrize("sd_seeds", [0.0, 0.1, 0.3])
def test_three_seeds_hold_the_truth_whichever_source_is_the_larger(sd_seeds):
    """The patients' standard error is about 0.09, the seeds' 0, 0.06 or 0.17."""
    assert 0.93 <= covered(sd_seeds) <= 0.99


def test_a_pooled_spread_covers_too_and_is_narrower():
    assert 0.93 <= covered(0.3, spread=(0.3, 30.0)) <= 0.98
    drawn = np.tile(np.random.default_rng(1).normal(0.8, 0.01, 400), (3, 1))
    drawn += np.array([[-0.02], [0.0], [0.02]])
    own, pooled = seeds.over_seeds(drawn), seeds.over_seeds(drawn, spread=(0.02, 30.0))
    assert pooled.high - pooled.low < 0.6 * (own.high - own.low)
    assert own.se_seeds == pytest.approx(0.02 / np.sqrt(3))
    assert own.value == pytest.approx(drawn[:, 0].mean())


def test_one_run_has_the_patients_interval_alone():
    drawn = np.random.default_rng(1).normal(0.8, 0.01, (1, 400))
    e = seeds.over_seeds(drawn)
    plain = bootstrap.interval(drawn[0, 0], drawn[0, 1:])
    assert (e.low, e.high) == (plain.low, plain.high)
    assert np.isnan(e.se_seeds)
    assert (e.n_seeds, e.df_seeds) == (1, 0)


def test_without_patients_it_is_the_t_interval_of_the_seeds():
    values = np.array([0.81, 0.84, 0.86])
    e = seeds.over_seeds(np.repeat(values[:, None], 50, 1))
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (e.low, e.high) == pytest.approx((low, high))


@pytest.mark.parametrize("shift", [0.0, 0.02, -0.05])
def test_p_is_where_the_interval_ends_at_zero(shift):
    noise = np.random.default_rng(1).normal(0, 0.01, (3, 4000))
    noise -= noise.mean(1, keepdims=True)
    noise[:, 0] = [-0.01, 0.0, 0.01]
    p = seeds.over_seeds(noise + shift).p_value()
    if shift == 0:
        assert p == pytest.approx(1)
        return
    e = seeds.over_seeds(noise + shift, confidence=1 - p)
    assert min(abs(e.low), abs(e.high)) < 0.1 * abs(shift)
    alone = seeds.over_seeds(noise[1:2] + shift)
    assert alone.p_value() == pytest.approx(2 * stats.norm.sf(abs(shift) / alone.se_patients))


def test_the_patients_lean_is_kept():
    drawn = np.random.default_rng(1).normal(0.9, 0.01, (3, 300))
    e = seeds.over_seeds(drawn, patients=(0.80, 0.92))
    assert e.value - e.low > 1.5 * (e.high - e.value)


def test_spread_is_pooled_within_arms_not_between_them():
    sd, df = seeds.pooled_spread([np.array([1.0, 3.0]), np.array([11.0, 13.0]), np.array([7.0])])
    assert (sd, df) == (pytest.approx(np.sqrt(2)), 2)
    assert np.isnan(seeds.pooled_spread([np.array([7.0])])[0])
