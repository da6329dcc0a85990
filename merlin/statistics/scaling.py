"""Power laws of a metric against the size of its training set.

Two laws: `power`, a·Dᵇ, the paper's; and `offset`, c − a·D⁻ᵇ, which levels off at c. Both may rise or
fall (a loss has b < 0, or a < 0 in `offset`). Residuals are of logarithms, so that a quantity which spans
decades is not fitted by its largest points alone; of the values themselves where one is not positive.
Points are weighted by a variance where one is given. Laws are chosen by how well they foretell the
largest size from the smaller ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from merlin.streams import Stream, stream_of

LAWS = ("power", "offset")
B_BOUNDS = {"power": (-3.0, 3.0), "offset": (1e-3, 3.0)}  # of iterative fits


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes
    ----------
    law : str
    a, b, c : float
        `c` is NaN for `power`.
    cost : float
        Weighted sum of squares.
    at_bound : str
        Which bound of the fit an exponent or the factor lies on; it is then no estimate. Empty where
        it is one.
    """

    law: str
    a: float
    b: float
    c: float
    cost: float
    at_bound: str = ""

    def __call__(self, size: float | np.ndarray) -> np.ndarray:
        """Metric at a size."""
        return _value(self.law, (self.a, self.b, self.c), np.asarray(size, float))

    @property
    def rises(self) -> bool:
        """Whether more data raise the metric."""
        return self.a * self.b > 0

    def size_for(self, target: float) -> float:
        """Size at which the law takes a value, rising or falling; inf where it never does."""
        ratio = target / self.a if self.law == "power" else self.a / (self.c - target or np.nan)
        if not ratio > 0 or self.b == 0:
            return float("inf")
        with np.errstate(over="ignore"):  # a law that is nearly flat
            return float(np.power(ratio, 1 / self.b))


def _value(law, p, size):
    if law == "power":
        return p[0] * size ** p[1]
    return p[2] - p[0] * size ** -p[1]


def fit(
    sizes: np.ndarray, values: np.ndarray | Sequence[float], law: str = "power", *,
    variance: np.ndarray | None = None, n_starts: int = 12,
) -> Fit:  # fmt: skip
    """Fit a law.

    Parameters
    ----------
    sizes : (n,) float
        Positive.
    values : (n,) float
    law : {"power", "offset"}
    variance : (n,) float, optional
        Of each value; without it, each has the same share of itself as error. Values below a tenth
        of the mean variance count as that: two seeds may agree by luck.
    n_starts : int

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        With fewer points than the law has parameters, sizes that are not positive, or anything that is
        not finite.
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
    given = dict(sizes=sizes, values=values)
    given |= {} if variance is None else dict(variance=np.asarray(variance, float))
    for what, numbers in given.items():
        if numbers.shape != sizes.shape:
            raise ValueError(f"{what} {numbers.shape}, sizes {sizes.shape}: expected one for each")
        if (bad := ~np.isfinite(numbers)).any():
            where = ", ".join(map(str, np.flatnonzero(bad)))
            raise ValueError(f"{what} must be finite; not so at position {where}")
    in_logs = bool((values > 0).all())
    weight = np.ones(len(sizes))
    if variance is not None:
        variance = np.asarray(variance, float)
        weight = 1 / np.sqrt(np.maximum(variance, max(0.1 * variance.mean(), 1e-12)))
        weight = weight * values if in_logs else weight  # the error of a logarithm
    middle = np.exp(np.log(sizes).mean())
    x = sizes / middle  # near one, where the parameters do not trade against each other
    if law == "power" and in_logs:
        columns = np.stack([np.ones(len(x)), np.log(x)], axis=1)
        p, *_ = np.linalg.lstsq(weight[:, None] * columns, weight * np.log(values))
        cost = ((weight * (columns @ p - np.log(values))) ** 2).sum()
        a = np.exp(p[0] - p[1] * np.log(middle))
        return Fit(law, float(a), float(p[1]), np.nan, float(cost))
    best = _best(law, x, values, weight, in_logs, n_starts)
    p = list(best.x) + [np.nan] * (3 - n_parameters)
    a = p[0] * middle ** (-p[1] if law == "power" else p[1])
    low, high = B_BOUNDS[law]
    near = 1e-3 * (high - low)
    bound = low if p[1] < low + near else high if p[1] > high - near else None
    said = "" if bound is None else f"exponent {bound:g}"
    if law == "power" and p[0] < 1e-8:
        said = "; ".join(t for t in (said, "factor 0") if t)
    return Fit(law, float(a), float(p[1]), float(p[2]), float(2 * best.cost), said)


def _best(law, x, values, weight, in_logs, n_starts):
    """The least squares of several starts."""

    def residual(p):
        model = _value(law, p, x)
        if not in_logs:
            return weight * (model - values)
        return weight * (np.log(np.maximum(model, 1e-12)) - np.log(values))

    def jacobian(p):
        sign = 1 if law == "power" else -1
        grown = sign * x ** (sign * p[1])
        slopes = [grown, sign * p[0] * grown * np.log(x), np.ones(len(x))][: len(p)]
        scale = np.maximum(_value(law, p, x), 1e-12) if in_logs else 1.0
        return (weight / scale * np.array(slopes)).T

    top = max(values.max(), 1e-9)
    rises = np.polyfit(np.log(x), values, 1)[0] >= 0
    (low, high), best = B_BOUNDS[law], None
    for b in np.geomspace(0.01, 2.0, n_starts):
        if law == "power":
            start = [top, b if rises else -b]
            bounds = [1e-9, low], [np.inf, high]
        else:
            start = [0.3 * top, b, 1.3 * top] if rises else [-0.3 * top, b, 0.7 * values.min()]
            bounds = [-np.inf, low, -np.inf], [np.inf, high, np.inf]
        found = least_squares(residual, start, jacobian, bounds=bounds, x_scale="jac", max_nfev=200)
        if best is None or found.cost < best.cost:
            best = found
    return best


def choose(
    sizes: np.ndarray, values: np.ndarray, *, variance: np.ndarray | None = None
) -> tuple[str, dict[str, float]]:
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
    return min(errors, key=lambda law: errors[law]), errors


def bootstrap_fits(
    sizes: np.ndarray, runs: list[np.ndarray], law: str = "power", *, n_fits: int = 300, seed: int
) -> list[Fit]:
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
    rng = stream_of(seed, Stream.FITS)
    spread = np.array([r[:, 0].var(ddof=1) if len(r) > 1 else np.nan for r in runs])
    variance = np.full(len(runs), np.nanmean(spread)) if np.isfinite(spread).any() else None
    n_resamples = runs[0].shape[1]
    fits = []
    for r in range(min(n_fits, n_resamples)):
        # One fewer than there are: few values drawn with replacement vary too little (s²/n wants it).
        drawn = [x[rng.integers(0, len(x), max(len(x) - 1, 1)), r].mean() for x in runs]
        fits.append(fit(sizes, drawn, law, variance=variance, n_starts=3))
    return fits
