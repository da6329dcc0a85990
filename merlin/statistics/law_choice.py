"""Which law points follow, and how often that choice errs."""

from dataclasses import replace

import numpy as np
from scipy import stats

from merlin.statistics.scaling import LAWS, N_PARAMETERS, Measured, fit
from merlin.streams import Stream, stream_of


def choose(points: Measured, *, level: float = 0.05) -> tuple[str, float]:
    """The power law, unless the points contradict it in favour of one that levels off.

    Returns
    -------
    str, float
        The law, and the p of the test: how often three parameters beat two by as much, where two are
        true. An offset law whose exponent is at a bound is not chosen.
    """
    given = points.sizes, points.values
    if len(np.unique(points.sizes)) < N_PARAMETERS["offset"] + 1:
        return "power", np.nan
    power, offset = (fit(*given, law, variance=points.covariance) for law in LAWS)
    p = float(stats.f.sf(max(power.cost - offset.cost, 0.0), 1, points.df))
    return ("offset" if p < level and not offset.at_bound else "power"), p


def choice_errors(points: Measured, *, n: int = 200, seed: int) -> dict[str, float]:
    """How often `choose` takes the other law where one is true with the parameters that were fitted.

    Points are simulated at the sizes and with the noise of those at hand.

    Returns
    -------
    dict of str to float
        Share of wrong choices, by the true law.
    """
    rng, wrong = stream_of(seed, Stream.FITS, 1), {}
    for law in LAWS:
        truth = fit(points.sizes, points.values, law, variance=points.covariance)(points.sizes)
        taken = []
        for values in points.drawn(rng, n, truth):
            seeds = points.seeds * rng.chisquare(points.df) / points.df
            taken.append(choose(replace(points, values=values, seeds=seeds))[0])
        wrong[law] = float(np.mean([t != law for t in taken]))
    return wrong


def held_out_errors(points: Measured) -> dict[str, float]:
    """By how much each law, fitted to the other sizes, misses the largest."""
    inside, found = points.sizes < points.sizes.max(), {}
    for law in LAWS:
        if len(np.unique(points.sizes[inside])) < N_PARAMETERS[law]:
            continue
        part = points.covariance[np.ix_(inside, inside)]
        guess = fit(points.sizes[inside], points.values[inside], law, variance=part)
        miss = guess(points.sizes.max()) - points.values[~inside].mean()
        found[law] = float(abs(miss))
    return found
