"""Detection against dose: the fit is logistic regression's, its half the truth's, its ends stay finite."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from merlin.statistics import psychometric


def trials(n, half=12.0, steep=0.5, seed=3):
    rng = np.random.default_rng(seed)
    dose = rng.uniform(2, 30, n)
    return dose, rng.random(n) < expit(steep * (dose - half))


def test_the_fit_is_scikit_learns_for_any_weights():
    dose, found = trials(300)
    weights = np.random.default_rng(1).poisson(1, (300, 3)).astype(float)
    curve = psychometric.fit(dose, found, weights)
    for column, w in enumerate(weights.T):
        plain = LogisticRegression(C=1e6, max_iter=1000).fit(dose[:, None], found, sample_weight=w)
        assert curve.half()[column] == pytest.approx(
            -plain.intercept_[0] / plain.coef_[0, 0], abs=0.05
        )
        assert curve.at([20.0])[0, column] == pytest.approx(
            plain.predict_proba([[20.0]])[0, 1], abs=0.01
        )


def test_percentiles_of_the_half_cover_the_truth_at_about_their_rate():
    hits = 0
    for seed in range(60):
        dose, found = trials(80, seed=seed)
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(80, np.full(80, 1 / 80), 150).T.astype(float)
        low, high = np.nanquantile(psychometric.fit(dose, found, weights).half(), [0.025, 0.975])
        hits += low <= 12.0 <= high
    assert hits >= 51  # 0.85; a binomial of 0.95 falls below once in a thousand


def test_a_curve_stays_finite_where_a_dose_parts_all_found_from_none():
    dose = np.arange(20.0)
    curve = psychometric.fit(dose, dose > 9, np.ones((20, 1)))
    assert curve.half()[0] == pytest.approx(9.5, abs=0.2)
    assert np.isfinite(curve.b).all()
    falling = psychometric.fit(dose, dose < 9, np.ones((20, 1)))
    assert np.isnan(falling.half()[0])
    with pytest.raises(ValueError, match="two doses or more that differ"):
        psychometric.fit(np.ones(5), np.ones(5, bool), np.ones((5, 1)))
