"""Power-law fits recover a known law, at the stated coverage."""

import numpy as np
import pytest

from merlin.statistics import scaling

SIZES = np.array([100, 200, 400, 800, 1600.0])


@pytest.mark.parametrize(("a", "b"), [(0.458, 0.0524), (0.2, 0.2), (0.9, -0.1)])
def test_power_law_is_recovered_exactly(a, b):
    found = scaling.fit(SIZES, a * SIZES**b)
    assert (found.a, found.b) == pytest.approx((a, b), rel=1e-4)
    assert found(3200) == pytest.approx(a * 3200**b, rel=1e-4)


def test_offset_law_is_recovered_and_saturates():
    values = 0.9 - 2.0 * SIZES**-0.5
    found = scaling.fit(SIZES, values, "offset")
    assert (found.c, found.b) == pytest.approx((0.9, 0.5), rel=1e-2)
    assert found.size_for(0.85) == pytest.approx((2.0 / 0.05) ** 2, rel=0.05)
    assert found.size_for(0.95) == float("inf")


def test_held_out_size_chooses_the_right_law():
    power, errors = scaling.choose(SIZES, 0.3 * SIZES**0.1)
    assert power == "power"
    assert set(errors) == {"power", "offset"}
    sizes = np.geomspace(50, 5000, 7)
    assert scaling.choose(sizes, 0.9 - 3.0 * sizes**-0.7)[0] == "offset"


def test_exponents_are_covered_as_stated():
    """Patients' luck moves all sizes together, seeds move each: intervals hold both."""
    rng = np.random.default_rng(6)
    truth, held, n = 0.08, 0, 40
    for s in range(n):
        runs = []
        test_set = rng.normal(scale=0.02)
        resamples = test_set + rng.normal(scale=0.02, size=201)
        resamples[0] = test_set
        for size in SIZES:
            level = 0.4 * size**truth + rng.normal(scale=0.01, size=4)
            runs.append(level[:, None] + resamples[None])
        b = [f.b for f in scaling.bootstrap_fits(SIZES, runs, n_fits=60, seed=s)]
        low, high = np.quantile(b, [0.025, 0.975])
        held += low <= truth <= high
    assert held / n >= 0.85  # 95 % less what four seeds and forty repeats allow


def test_too_few_sizes_are_refused():
    with pytest.raises(ValueError, match="offset has 3 parameters; got 2"):
        scaling.fit([1, 2], [0.1, 0.2], "offset")
    with pytest.raises(ValueError, match="positive"):
        scaling.fit([0, 2, 3], [0.1, 0.2, 0.3])


def test_a_flat_law_reaches_nothing_and_does_not_overflow():
    flat = scaling.Fit("offset", 0.5, 0.001, 0.9, 0.0)
    assert flat.size_for(0.899) == float("inf")
    assert scaling.Fit("power", 0.5, 1e-4, np.nan, 0.0).size_for(0.9) == float("inf")
