"""Power laws of a metric against the size of its training set.

Two laws: `power`, a·Dᵇ, the paper's; and `offset`, c − a·D⁻ᵇ, which saturates at c. Both are fitted by
bounded non-linear least squares from several starts, points weighted by a variance where one is given,
and chosen by how well they foretell the largest size from the smaller ones.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

LAWS = ("power", "offset")


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes
    ----------
    law : str
    a, b, c : float
        `c` is NaN for `power`. A positive b means growth for both.
    cost : float
        Weighted sum of squares.
    """

    law: str
    a: float
    b: float
    c: float
    cost: float

    def __call__(self, size):
        """Metric at a size."""
        size = np.asarray(size, float)
        return _value(self.law, (self.a, self.b, self.c), size)

    def size_for(self, target):
        """Size at which the law reaches a target; inf where it never does, or beyond all numbers."""
        if self.b <= 0 or self.a <= 0:
            return float("inf")
        if self.law == "offset" and target >= self.c:
            return float("inf")
        ratio = target / self.a if self.law == "power" else self.a / (self.c - target)
        with np.errstate(over="ignore"):  # a law that is nearly flat
            return float(np.power(ratio, 1 / self.b))


def _value(law, p, size):
    if law == "power":
        return p[0] * size ** p[1]
    return p[2] - p[0] * size ** -p[1]


def fit(sizes, values, law="power", *, variance=None, n_starts=12):
    """Fit a law.

    Parameters
    ----------
    sizes : (n,) float
        Positive.
    values : (n,) float
    law : {"power", "offset"}
    variance : (n,) float, optional
        Of each value; equal where not given. Values below a tenth of the mean count as that: two
        seeds may agree by luck.
    n_starts : int

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        With fewer points than the law has parameters, or sizes that are not positive.
    """
    sizes, values = np.asarray(sizes, float), np.asarray(values, float)
    if law not in LAWS:
        raise ValueError(f"law must be one of {LAWS}; got {law!r}")
    n_parameters = 2 if law == "power" else 3
    if len(np.unique(sizes)) < n_parameters:
        raise ValueError(
            f"{law} has {n_parameters} parameters; got {len(np.unique(sizes))} different sizes"
        )
    if (sizes <= 0).any():
        raise ValueError("sizes must be positive")
    weight = np.ones(len(sizes))
    if variance is not None:
        variance = np.asarray(variance, float)
        weight = 1 / np.sqrt(np.maximum(variance, max(0.1 * variance.mean(), 1e-12)))
    middle = np.exp(np.log(sizes).mean())
    x = sizes / middle  # near one, where the parameters do not trade against each other
    top = max(values.max(), 1e-9)

    def residual(p):
        return weight * (_value(law, p, x) - values)

    best = None
    for b in np.geomspace(0.01, 2.0, n_starts):
        if law == "power":
            start, low, high = (top, b), (1e-9, -3.0), (np.inf, 3.0)
        else:
            start = (0.3 * top, b, 1.3 * top)
            low, high = (-np.inf, 1e-3, -np.inf), (np.inf, 3.0, np.inf)
        found = least_squares(residual, start, bounds=(low, high), x_scale="jac", max_nfev=200)
        if best is None or found.cost < best.cost:
            best = found
    p = list(best.x) + [np.nan] * (3 - n_parameters)
    a = p[0] * middle ** (-p[1] if law == "power" else p[1])
    return Fit(law, float(a), float(p[1]), float(p[2]), float(2 * best.cost))


def choose(sizes, values, *, variance=None):
    """The law that foretells the largest size best from the others.

    Returns
    -------
    str, dict of str to float
        The law, and each law's error at the held-out size.
    """
    sizes, values = np.asarray(sizes, float), np.asarray(values, float)
    inside = sizes < sizes.max()
    errors = {}
    for law in LAWS:
        if len(np.unique(sizes[inside])) < (2 if law == "power" else 3):
            continue
        part = None if variance is None else np.asarray(variance, float)[inside]
        found = fit(sizes[inside], values[inside], law, variance=part)
        errors[law] = float(abs(found(sizes.max()) - values[~inside].mean()))
    if not errors:
        raise ValueError("no law has few enough parameters for these sizes")
    return min(errors, key=errors.get), errors


def bootstrap_fits(sizes, runs, law="power", *, n_fits=300, seed):
    """Fits on resampled patients and seeds, for intervals of a law's parameters.

    Parameters
    ----------
    sizes : (n,) float
    runs : list of (n_seeds, n_resamples) float
        By size: each seed's metric in each resample of patients. Resample r is the same patients
        for all, so the test set's luck, which moves all sizes together, is kept together.
    law : str
    n_fits, seed : int

    Returns
    -------
    list of Fit
    """
    rng = np.random.default_rng([seed, 23])
    spread = np.array([r[:, 0].var(ddof=1) if len(r) > 1 else np.nan for r in runs])
    variance = np.full(len(runs), np.nanmean(spread)) if np.isfinite(spread).any() else None
    n_resamples = runs[0].shape[1]
    fits = []
    for r in range(min(n_fits, n_resamples)):
        # One fewer than there are: few values drawn with replacement vary too little (s²/n wants it).
        drawn = [x[rng.integers(0, len(x), max(len(x) - 1, 1)), r].mean() for x in runs]
        fits.append(fit(sizes, drawn, law, variance=variance, n_starts=3))
    return fits
