"""Verdicts: what the rule says of known gaps, and how often it errs and finds in simulation."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from merlin.statistics import verdict
from merlin.statistics.verdict import Question, Spread

# As measured between runs of the sweep: standard deviations of seeds, standard error of patients (AUROC).
SEEDS, PATIENTS = 0.0085, 0.0035


def words(*questions):
    return [v.verdict for v in verdict.judge(questions)]


def test_one_run_decides_nothing_whatever_it_says():
    (found,) = verdict.judge([Question([0.5], 1e-6, 1, Spread(1e-8, 30))])
    assert (found.verdict, found.reason) == ("not decided here", "one run decides nothing")
    assert np.isnan(found.p)


def test_sign_decides_between_holds_and_contradicted():
    spread = Spread(SEEDS**2, 30)
    up, down = [0.09, 0.1, 0.11], [-0.09, -0.1, -0.11]
    asked = [Question(up, PATIENTS, 1, spread), Question(up, PATIENTS, -1, spread)]
    asked += [Question(down, PATIENTS, -1, spread), Question([0.0, 0.01, 0.0], PATIENTS, 1, spread)]
    assert words(*asked) == ["holds here", "contradicted here", "holds here", "not decided here"]


def test_a_claim_that_cannot_be_asked_says_why_and_costs_the_others_nothing():
    spread = Spread(SEEDS**2, 30)
    clear = Question([0.028, 0.03, 0.032], PATIENTS, 1, spread)
    lame = Question([0.3, 0.3, 0.3], PATIENTS, 1, spread, reason="the reference is at chance")
    alone, *_ = verdict.judge([clear])
    beside, *rest = verdict.judge([clear, *[lame] * 30])
    assert beside.p_adjusted == alone.p_adjusted
    assert {(v.verdict, v.reason) for v in rest} == {
        ("not askable here", "the reference is at chance")
    }
    twice, _ = verdict.judge([clear, clear])
    assert twice.p_adjusted == pytest.approx(2 * alone.p)


def test_p_and_interval_are_students_with_both_errors():
    """Three gaps, spread of 20 degrees of freedom: both parts alone, and by hand together."""
    gaps = [0.01, 0.015, 0.02]
    (found,) = verdict.judge([Question(gaps, 0.004, 1, Spread(0.01**2, 20))])
    of_seeds = 0.01 * np.sqrt(2 / 3)
    half = np.hypot(stats.norm.ppf(0.975) * 0.004, stats.t.ppf(0.975, 20) * of_seeds)
    assert (found.low, found.high) == pytest.approx((0.015 - half, 0.015 + half))
    z, t = stats.norm.isf(found.p / 2), stats.t.isf(found.p / 2, 20)
    assert np.hypot(z * 0.004, t * of_seeds) == pytest.approx(0.015)
    (seeds,) = verdict.judge([Question(gaps, 0.0, 1, Spread(0.01**2, 20))])
    assert seeds.p == pytest.approx(2 * stats.t.sf(0.015 / of_seeds, 20))
    (patients,) = verdict.judge([Question(gaps, 0.004, 1, Spread(0.0, 20))])
    assert patients.p > 2 * stats.norm.sf(0.015 / 0.004)  # its own spread, where the pool has none


def test_an_unruly_arm_does_not_borrow_the_calm_of_others():
    calm = Spread(0.001**2, 40)
    wild = [0.2, 0.05, 0.11]
    assert words(Question(wild, 0.001, 1, calm)) == ["not decided here"]
    assert words(Question([0.12, 0.119, 0.121], 0.001, 1, calm)) == ["holds here"]


def test_spread_is_what_arms_and_seeds_leave_unsaid():
    rng = np.random.default_rng(1)
    arms, seeds = rng.normal(size=(6, 1)), rng.normal(size=5)
    assert verdict.crossed_spread(arms + seeds).variance == pytest.approx(0, abs=1e-12)
    noise = rng.normal(scale=0.1, size=(6, 5))
    left = noise - noise.mean(1, keepdims=True) - noise.mean(0) + noise.mean()
    found = verdict.crossed_spread(arms + seeds + noise)
    assert found.df == 5 * 4
    assert found.variance == pytest.approx((left**2).sum() / 20)
    # Arms with fewer seeds than others count for what they have.
    uneven = [[*row] for row in arms + seeds + noise]
    uneven[0] = uneven[0][:3]
    assert verdict.crossed_spread(uneven).df == 18
    assert verdict.crossed_spread([[1.0], [2.0]]) is None
    assert verdict.crossed_spread([]) is None


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.735, 0.748, "reproduced"),  # inside 0.741 ± 0.02
        (0.70, 0.719, "differs"),
        (0.762, 0.80, "differs"),
        (0.70, 0.75, "not decided"),  # its middle is near, its interval is wide
        (0.60, 0.90, "not decided"),
        (np.nan, np.nan, "not decided"),
    ],
)
def test_a_published_value_is_reproduced_by_the_interval(low, high, said):
    assert verdict.published(low, high, 0.741, 0.02) == said


def test_holm_is_statsmodels():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.6, 0.01, 0.9])
    known = ~np.isnan(p)
    np.testing.assert_allclose(verdict.holm(p)[known], multipletests(p[known], method="holm")[1])
    assert np.isnan(verdict.holm(p)[~known]).all()
    assert verdict.holm(np.full(2, np.nan)).shape == (2,)


def family(rng, *, effect, n_seeds=3, n_asked=19, n_arms=19, unruly=1.0):
    """Questions of a sweep: arms against one reference, seeds and patients shared as they are there."""
    runs = rng.normal(scale=SEEDS, size=(n_arms + 1, n_seeds))
    runs[1] *= unruly
    runs += rng.normal(scale=2 * SEEDS, size=n_seeds)  # what arms of one seed have in common
    of_patients = rng.normal(scale=PATIENTS / np.sqrt(2), size=n_arms + 1)
    runs += of_patients[:, None] + effect * (np.arange(n_arms + 1) > 0)[:, None]
    spread = verdict.crossed_spread(runs)
    gaps = runs[1:] - runs[0]
    return [Question(g, PATIENTS, 1, spread) for g in gaps[:n_asked]]


def share_with_a_verdict(n_sets, **how):
    """Share of families with any verdict, and of claims that hold."""
    rng = np.random.default_rng(20)
    found = [words(*family(rng, **how)) for _ in range(n_sets)]
    decided = [any(w in (verdict.HOLDS, verdict.CONTRADICTED) for w in f) for f in found]
    return np.mean(decided), np.mean([f.count(verdict.HOLDS) / len(f) for f in found])


@pytest.mark.parametrize("how", [{}, {"n_arms": 40}, {"n_seeds": 5}, {"unruly": 3.0}])
def test_under_a_true_null_at_most_five_percent_of_families_hold_a_verdict(how):
    """19 claims, seeds two and a half times as loud as patients: the case where patients alone err."""
    n_sets = 400
    any_verdict, _ = share_with_a_verdict(n_sets, effect=0.0, **how)
    assert any_verdict <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n_sets)


@pytest.mark.parametrize(("n_seeds", "effect"), [(3, 0.040), (5, 0.028)])
def test_effects_of_a_few_hundredths_are_found(n_seeds, effect):
    """Four of five claims of that size hold: with three seeds 0.040 AUROC, with five 0.028."""
    _, power = share_with_a_verdict(200, effect=effect, n_seeds=n_seeds)
    print(f"{n_seeds} seeds, effect {effect}: power {power:.2f}")
    assert power >= 0.8


def test_patients_alone_would_have_decided_too_often():
    """The rule of one source of error, on the same families: why seeds stand in the error."""
    rng = np.random.default_rng(3)
    wrong = []
    for _ in range(100):
        asked = family(rng, effect=0.0)
        p = [2 * stats.norm.sf(abs(np.mean(q.by_seed)) / q.se_patients) for q in asked]
        wrong.append(min(p) * len(p) < 0.05)
    assert np.mean(wrong) > 0.5
