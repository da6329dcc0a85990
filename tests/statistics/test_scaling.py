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
    assert scaling.Fit("offset", 0.5, 0.5, 0.9, 0.0).size_for(0.9) == float("inf")


@pytest.mark.parametrize(
    ("law", "values"),
    [
        ("power", 8.0 * SIZES**-0.3),  # an error that falls to nothing
        ("offset", 1.7 + 400 * SIZES**-0.35),  # a loss that levels off, as Chinchilla's
        ("power", 0.3 * SIZES**0.1),
        ("offset", 0.9 - 2.0 * SIZES**-0.5),
    ],
)
def test_sizes_are_found_on_rising_and_falling_laws(law, values):
    found = scaling.fit(SIZES, values, law)
    assert found.rises == (values[-1] > values[0])
    for size, value in zip(SIZES, values, strict=True):
        assert found.size_for(value) == pytest.approx(size, rel=0.05)
    if law == "offset":
        beyond = found.c + (0.1 if found.rises else -0.1)
        assert found.size_for(beyond) == float("inf")
    assert found.size_for(-1.0) == float("inf") or law == "offset"


def test_a_quantity_that_spans_decades_is_fitted_in_all_of_them():
    """Compute and best model size of Hoffmann et al. 2022, Table 3: N ∝ C^0.50, over six decades."""
    compute = [1.92e19, 1.21e20, 1.23e22, 5.76e23, 3.85e24, 9.90e24, 3.43e25, 1.27e26, 1.30e28]
    size = np.array([0.4e9, 1e9, 10e9, 67e9, 175e9, 280e9, 520e9, 1e12, 10e12])
    assert scaling.fit(compute, size).b == pytest.approx(0.50, abs=0.005)
    off = size.copy()
    off[-1] *= 3  # the largest alone does not decide
    assert scaling.fit(compute, off).b == pytest.approx(0.50, abs=0.03)


def test_values_that_are_not_positive_are_fitted_as_they_are():
    found = scaling.fit(SIZES, np.array([0.0, 0.1, 0.2, 0.3, 0.4]))
    assert np.isfinite([found.a, found.b]).all()
    assert found(1600) == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize(
    "values",
    [
        0.1 + 0.02 * np.log(SIZES),  # no ceiling in sight: b falls to its lower bound
        np.array([0.2, 0.6, 0.6, 0.6, 0.6]),  # a step: b rises to its upper one
        3.0 - 0.3 * np.log(SIZES),
    ],
)
def test_an_exponent_on_its_bound_says_so(values):
    found = scaling.fit(SIZES, values, "offset")
    assert found.at_bound in ("exponent 0.001", "exponent 3")
    assert scaling.fit(SIZES, 0.9 - 2.0 * SIZES**-0.5, "offset").at_bound == ""


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["sizes", "values", "variance"])
@pytest.mark.parametrize("law", scaling.LAWS)
def test_what_is_not_finite_is_refused_in_words(law, what, bad):
    given = {n: np.array([1.0, 2, 4, 8]) for n in ("sizes", "values", "variance")}
    given[what][2] = bad
    with pytest.raises(ValueError, match=f"{what} must be (finite|positive)"):
        scaling.fit(given["sizes"], given["values"], law, variance=given["variance"])


def test_a_factor_on_its_bound_says_so():
    found = scaling.fit([1, 2, 4, 8, 16], [-0.5, -0.4, -0.3, -0.2, -0.1])
    assert "factor 0" in found.at_bound
