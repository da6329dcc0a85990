"""Verdicts on claims: is one network better than another, given patients, seeds and all that was asked.

A claim is asked of paired gaps, one a seed, on the same test patients. Its p is that of `seeds.OverSeeds`,
which holds the luck of the patients and of the seeds, after Holm's correction for all claims that were
asked together. With three seeds a gap's own spread says little, so it is pooled over the arms of one
sweep: 2 s² / n_seeds, where s² is what is left of single runs' values when each arm's and each seed's
mean is taken out. (Gaps from one reference share its luck, so their spreads must not be pooled as if
they did not; values may.) An arm that is clearly less steady than the others stands on its own spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from merlin.statistics.seeds import OverSeeds

HOLDS, CONTRADICTED = "holds here", "contradicted here"
UNDECIDED, NOT_ASKABLE = "not decided here", "not askable here"
STEADY = 0.8  # quantile of F below which a gap's own spread is taken for the pooled one
REPRODUCED, DIFFERS, OPEN = "reproduced", "differs", "not decided"


@dataclass(frozen=True)
class Spread:
    """Variance of one training between seeds, from `df` degrees of freedom."""

    variance: float
    df: int


@dataclass(frozen=True)
class Question:
    """A claim as it is asked.

    Attributes
    ----------
    by_seed : (n_seeds,) float
        Paired gaps.
    se_patients : float
        Of their mean, over resampled patients.
    sign : {1, -1}
        Of the gap, if the claim is true.
    spread : Spread or None
        Pooled over arms; None: the gaps' own alone.
    reason : str
        Why it can't be asked; empty where it can.
    """

    by_seed: Sequence[float]
    se_patients: float
    sign: int
    spread: Spread | None = None
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """What came out: `low` and `high` of one claim alone (95 %), `df` of the seeds' part, `p` two-sided."""

    value: float
    low: float
    high: float
    df: float
    p: float
    p_adjusted: float
    verdict: str
    reason: str


def crossed_spread(values: Sequence[Sequence[float]]) -> Spread | None:
    """Variance between seeds, over arms crossed with them: the residual of arm and seed means.

    What a seed does to all arms alike cancels in a paired gap and is taken out here;
    `seeds.pooled_spread`, for models that share no seed's luck, leaves it in.

    Parameters
    ----------
    values : (n_arms, n_seeds) float
        Scores of single trainings; NaN, or a shorter row, where an arm lacks a seed.

    Returns
    -------
    Spread or None
        None where nothing is left to estimate it by.
    """
    width = max((len(v) for v in values), default=0)
    table = np.full((len(values), width), np.nan)
    for i, v in enumerate(values):
        table[i, : len(v)] = v
    arm, seed = np.nonzero(np.isfinite(table))
    if not len(arm):
        return None
    design = np.concatenate(
        [arm[:, None] == np.arange(len(table)), seed[:, None] == np.arange(width)], axis=1
    ).astype(float)
    found = table[arm, seed]
    fitted, _, rank, _ = np.linalg.lstsq(design, found, rcond=None)
    df = len(found) - int(rank)
    left = found - design @ fitted
    return Spread(float(left @ left) / df, df) if df > 0 else None


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p values; NaN stays NaN and does not count."""
    out, known = np.full(p.shape, np.nan), np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    steps = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return out


def judge(questions: Sequence[Question], *, level: float = 0.05) -> list[Verdict]:
    """Verdicts on all claims that were asked together.

    Parameters
    ----------
    questions : sequence of Question
        All of them. Holm counts those that can be asked and have a p.
    level : float
        Chance of any false verdict among them.

    Returns
    -------
    list of Verdict
        In the order of the questions.
    """
    found = [_tested(q) for q in questions]
    p = np.array([np.nan if q.reason else f[4] for q, f in zip(questions, found, strict=True)])
    adjusted = holm(p)
    out = []
    for q, (value, low, high, df, p_value, reason), corrected in zip(
        questions, found, adjusted, strict=True
    ):
        if q.reason:
            verdict, reason = NOT_ASKABLE, q.reason
        elif not corrected <= level:
            verdict = UNDECIDED
            reason = reason or ("p after Holm above the level" if np.isfinite(corrected) else "")
        else:
            verdict = HOLDS if np.sign(value) == q.sign else CONTRADICTED
        out.append(Verdict(value, low, high, df, p_value, float(corrected), verdict, reason))
    return out


def _tested(q):
    """Value, low, high, df, p, reason of one question."""
    runs = np.asarray(q.by_seed, float)
    value = float(runs.mean()) if len(runs) else np.nan
    if len(runs) < 2 or not np.isfinite([*runs, q.se_patients]).all():
        why = {0: "no run", 1: "one run decides nothing"}.get(len(runs), "a value is missing")
        return value, np.nan, np.nan, np.nan, np.nan, why
    sd, df = of_gaps(runs, q.spread)
    variance = sd**2 / len(runs)
    if not variance + q.se_patients**2:
        return value, value, value, df, np.nan, "no spread at all"
    half = np.hypot(1.959964 * q.se_patients, special.stdtrit(df, 0.975) * np.sqrt(variance))
    low, high = value - half, value + half
    found = OverSeeds(value, low, high, tuple(runs), q.se_patients, float(np.sqrt(variance)), df)
    return value, low, high, df, found.p_value(), ""


def of_gaps(gaps: np.ndarray, spread: Spread | None) -> tuple[float, float]:
    """Standard deviation of paired gaps between seeds and its degrees of freedom, as `seeds.over_seeds` asks.

    Pooled, unless nothing is or the gaps' own spread is clearly larger.
    """
    return _steady(gaps, spread, 2.0)


def of_values(values: np.ndarray, spread: Spread | None) -> tuple[float, float]:
    """The same of one arm's values."""
    return _steady(values, spread, 1.0)


def _steady(runs, spread, n_runs):
    own, df = (float(np.var(runs, ddof=1)), len(runs) - 1) if len(runs) > 1 else (0.0, 0)
    if spread is None or spread.df < len(runs):
        return (np.sqrt(own), df) if df else (np.nan, 0)
    pooled = n_runs * spread.variance
    if df and own > pooled * special.fdtri(df, spread.df, STEADY):
        return np.sqrt(own), df
    return np.sqrt(pooled), spread.df


def published(low: float, high: float, value: float, tolerance: float) -> str:
    """Is a published value reproduced? By our interval, never by our point.

    Returns
    -------
    str
        `reproduced` if [low, high] lies inside value ± tolerance, `differs` if wholly outside, else
        `not decided`; so too where there is no interval.
    """
    if low >= value - tolerance and high <= value + tolerance:
        return REPRODUCED
    return DIFFERS if high < value - tolerance or low > value + tolerance else OPEN
