"""Power-law fits recover a known law, at the stated coverage."""

from dataclasses import replace

import numpy as np
import pytest

from merlin.statistics import law_choice, scaling

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


DESIGN = np.array([250, 500, 1000, 2000, 4000, 8000, 16000.0])


def simulated(rng, truth, *, n_seeds=3, n_resamples=60, spread=0.012):
    """Runs at the design of 13: seeds move each alone, the test patients all together."""
    patients = rng.normal(0, 0.006) + np.r_[0, rng.normal(0, 0.006, n_resamples)]
    seeds = rng.normal(0, 1, (len(DESIGN), n_seeds, 1)) * np.reshape(spread, (-1, 1, 1))
    return list(truth[:, None, None] * (1 + seeds + patients))


@pytest.mark.parametrize(
    ("law", "spread", "n"),
    [
        ("power", 0.012, 800),
        ("power", np.geomspace(0.025, 0.006, 7), 800),  # small trainings scatter more
        ("power", np.array([2, 1, 1, 1, 1, 1, 2]) / 100, 800),
        ("offset", 0.012, 50),
    ],
)
def test_exponents_are_covered_at_the_design_of_the_notebook(law, spread, n):
    """6,000 simulations without patients: 0.947 to 0.962; with the pooled variance alone 0.875."""
    rng, held = np.random.default_rng(6), 0
    b, truth = (
        (0.0524, 0.458 * DESIGN**0.0524) if law == "power" else (0.35, 0.9 - 2 * DESIGN**-0.35)
    )
    for _ in range(n):
        m = scaling.measured(DESIGN, simulated(rng, truth, spread=spread))
        low, high = scaling.exponent_interval(m, law)
        held += low <= b <= high
    assert abs(held / n - 0.95) <= 0.02 + 3 * np.sqrt(0.05 * 0.95 / n) * (n < 800)


def test_the_power_law_is_left_only_where_points_contradict_it():
    rng = np.random.default_rng(3)
    power, offset = 0.458 * DESIGN**0.0524, 0.9 - 2 * DESIGN**-0.35
    taken = [
        law_choice.choose(scaling.measured(DESIGN, simulated(rng, power)))[0] for _ in range(100)
    ]
    assert taken.count("offset") <= 11  # 5 % and three standard errors
    assert law_choice.choose(scaling.measured(DESIGN, simulated(rng, offset)))[0] == "offset"


def test_wrong_choices_are_few_where_laws_differ_and_many_where_they_do_not():
    rng = np.random.default_rng(4)
    clear = scaling.measured(DESIGN, simulated(rng, 0.9 - 2 * DESIGN**-0.35))
    alike = scaling.measured(DESIGN, simulated(rng, 0.6 * DESIGN**0.005))
    assert law_choice.choice_errors(clear, n=20, seed=1)["offset"] == 0
    assert law_choice.choice_errors(alike, n=20, seed=1)["offset"] >= 0.5
    assert law_choice.choice_errors(clear, n=20, seed=1)["power"] <= 0.25


def test_the_shift_of_all_sizes_by_one_test_set_does_not_widen_an_exponent():
    values = 0.458 * DESIGN**0.0524
    seeds = (0.01 * values) ** 2
    shared = 0.05**2 * np.outer(values, values)  # a share of the value: a shift of logarithms
    widths = [
        np.diff(
            scaling.exponent_interval(
                scaling.Measured(DESIGN, values, p, seeds, seeds, np.full(7, 3))
            )
        )
        for p in (0 * shared, shared)
    ]
    assert widths[0] == pytest.approx(widths[1], rel=0.02)


def test_a_profile_without_an_end_says_so():
    """Almost flat: no large exponent of the offset law is excluded."""
    rng = np.random.default_rng(2)
    values = 0.8 + rng.normal(0, 0.004, 7)
    points = scaling.scattered(DESIGN, values)
    low, high = scaling.exponent_interval(points, "offset")
    assert np.isnan(low)
    assert np.isnan(high)


def test_one_odd_point_moves_the_law_of_hubers_loss_less():
    values = 0.9 - 2 * DESIGN**-0.35
    values[3] *= 0.97
    for law in scaling.LAWS:
        truth = scaling.fit(DESIGN, 0.9 - 2 * DESIGN**-0.35, law).b
        squares, huber = (
            scaling.fit(DESIGN, values, law),
            scaling.fit(DESIGN, values, law, huber=True),
        )
        assert huber.b != squares.b
        if law == "offset":
            assert abs(huber.b - truth) < 0.1 * abs(squares.b - truth)


def test_refits_spread_as_the_interval_does():
    rng = np.random.default_rng(5)
    m = scaling.measured(DESIGN, simulated(rng, 0.458 * DESIGN**0.0524))
    ends = scaling.exponent_interval(replace(m, own=None))  # both by the pooled variance
    again = [f.b for f in scaling.refits(m, n_fits=2000, seed=1)]
    assert np.quantile(again, [0.025, 0.975]) == pytest.approx(ends, rel=0.05)


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
