"""Intervals of a trained model's number: over the patients it was judged on and the seeds it was trained with.

One training run is one draw of a network. The interval of its number over patients says what other
patients would have given this network; another run, or the same run on another processor, gives
another. Here both are in the interval: on each side the half width over patients and that over seeds, of
Student's t with the few degrees of freedom that few seeds have, are added in squares (MOVER: Zou and
Donner, Stat. Med. 27:1693, 2008). The patients' part keeps its lean. By simulation this holds the truth
in 95 to 97.5 % with three seeds, whichever source is the larger; one standard error with Satterthwaite's
degrees of freedom falls to 92 %.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from merlin.statistics import bootstrap


@dataclass(frozen=True)
class OverSeeds:
    """The mean over seeds, with its interval.

    Attributes
    ----------
    value, low, high : float
    by_seed : tuple of float
        Each run's own value.
    se_patients, se_seeds : float
        Standard errors of the mean from either source; `se_seeds` is NaN where nothing is known of it:
        one run, and no spread given. The interval is the patients' alone then.
    df_seeds : float
        Degrees of freedom of the spread between seeds; 0 where it is unknown.
    """

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    se_patients: float
    se_seeds: float
    df_seeds: float

    @property
    def n_seeds(self) -> int:
        """How many runs there are."""
        return len(self.by_seed)

    def p_value(self) -> float:
        """Two-sided p of zero: one minus the confidence at which the interval, without lean, ends there."""
        if not self.df_seeds or not self.se_seeds:
            return float(2 * stats.norm.sf(abs(self.value) / self.se_patients))

        def short_of_zero(log_p: float) -> float:
            p = np.exp(log_p)
            z, t = -special.ndtri(p / 2), -special.stdtrit(self.df_seeds, p / 2)
            return float(np.hypot(z * self.se_patients, t * self.se_seeds) - abs(self.value))

        if short_of_zero(-200.0) < 0:
            return 0.0
        return float(np.exp(optimize.brentq(short_of_zero, -200.0, 0.0)))


def over_seeds(
    drawn: np.ndarray, *, spread: tuple[float, float] | None = None,
    patients: tuple[float, float] | None = None, confidence: float = 0.95,
) -> OverSeeds:  # fmt: skip
    """Mean over seeds, with an interval of patients and seeds.

    The squared standard error is the patients' (of the mean over seeds, resample by resample) plus the
    seeds' variance over their number. What a seed does to single patients is in both, so the interval
    is a little too wide rather than too narrow.

    Parameters
    ----------
    drawn : (n_seeds, 1 + n_resamples) float
        A run a row: its value, then its value on each resample of patients, the same for all runs.
    spread : (float, float), optional
        Standard deviation between seeds and its degrees of freedom, from `pooled_spread`; default: of
        these runs alone.
    patients : (float, float), optional
        Ends of the patients' interval of the mean over seeds, by the method that suits the metric;
        default: percentiles.
    confidence : float
        In (0, 1); of `patients` too.

    Returns
    -------
    OverSeeds
        NaN where any run has no value.
    """
    drawn = np.atleast_2d(np.asarray(drawn, float))
    by_seed, mean = drawn[:, 0], drawn.mean(0)
    if patients is None:
        e = bootstrap.interval(mean[0], mean[1:], confidence=confidence)
        patients = (e.low, e.high)
    known = mean[1:][np.isfinite(mean[1:])]
    se_patients = float(known.std(ddof=1)) if len(known) > 1 else np.nan
    sd, df = spread or pooled_spread([by_seed])
    se_seeds = float(sd / np.sqrt(len(by_seed))) if df else np.nan
    luck = stats.t.ppf((1 + confidence) / 2, df) * se_seeds if df else 0.0
    value, (low, high) = float(mean[0]), patients
    low, high = (value + side * np.hypot(end - value, luck) for side, end in ((-1, low), (1, high)))
    own = tuple(by_seed.tolist())
    return OverSeeds(value, float(low), float(high), own, se_patients, se_seeds, df)


def pooled_spread(runs: Iterable[np.ndarray]) -> tuple[float, float]:
    """Standard deviation between seeds within groups of runs, and its degrees of freedom.

    Parameters
    ----------
    runs : iterable of (n_seeds,) float
        Values of runs that differ in nothing but the seed, a group an arm. Groups of one say nothing.

    Returns
    -------
    sd, df : float
        NaN and 0 where no group has two values.
    """
    groups = [v[np.isfinite(v)] for v in (np.asarray(r, float) for r in runs)]
    df = sum(len(v) - 1 for v in groups if len(v) > 1)
    if not df:
        return np.nan, 0.0
    return float(np.sqrt(sum(((v - v.mean()) ** 2).sum() for v in groups if len(v)) / df)), float(
        df
    )
