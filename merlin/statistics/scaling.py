"""Laws of a metric against the size of its training set.

Two laws: `power`, a·Dᵇ, the paper's; and `offset`, c − a·D⁻ᵇ, which levels off at c. Both may rise or
fall (a loss has b < 0, or a < 0 in `offset`). Residuals are of logarithms, so that a quantity which spans
decades is not fitted by its largest points alone; of the values themselves where one is not positive.
They are weighted by the covariance of the values where it is known: patients that all sizes share move
all points together and say little about a slope.

Least squares is the estimate, with an interval from its profile; `huber` says what an estimate that
outlying points move less would be.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import least_squares

from merlin.streams import Stream, stream_of

LAWS = ("power", "offset")
N_PARAMETERS = {"power": 2, "offset": 3}
B_BOUNDS = {"power": (-3.0, 3.0), "offset": (1e-3, 3.0)}  # where an exponent is looked for
# Of residuals of logarithms, in the fits of Hoffmann et al. (arXiv 2203.15556, appendix D.3).
HUBER_DELTA = 1e-3


@dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes
    ----------
    law : str
    a, b, c : float
        `c` is NaN for `power`.
    cost : float
        Weighted sum of squares: about χ² where the covariance was given.
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


@dataclass(frozen=True)
class _Points:
    """Points as the fits take them.

    `x` is the size over the geometric mean `middle`: near one, parameters do not trade against each other.
    `white` turns residuals into independent ones of unit variance.
    """

    x: np.ndarray
    middle: float
    values: np.ndarray
    in_logs: bool
    white: np.ndarray

    def residual(self, law: str, p: np.ndarray) -> np.ndarray:
        model = _value(law, p, self.x)
        if not self.in_logs:
            return self.white @ (model - self.values)
        return self.white @ (np.log(np.maximum(model, 1e-12)) - np.log(self.values))

    def jacobian(self, law: str, p: np.ndarray) -> np.ndarray:
        sign = 1 if law == "power" else -1
        grown = sign * self.x ** (sign * p[1])
        slopes = [grown, sign * p[0] * grown * np.log(self.x), np.ones(len(self.x))][: len(p)]
        scale = np.maximum(_value(law, p, self.x), 1e-12) if self.in_logs else 1.0
        return self.white @ (np.array(slopes) / scale).T


def _checked(sizes, values, law, variance) -> _Points:
    sizes, values = np.asarray(sizes, float), np.asarray(values, float)
    if law not in LAWS:
        raise ValueError(f"law must be one of {LAWS}; got {law!r}")
    if len(np.unique(sizes)) < N_PARAMETERS[law]:
        raise ValueError(
            f"{law} has {N_PARAMETERS[law]} parameters; got {len(np.unique(sizes))} different sizes"
        )
    if (sizes <= 0).any():
        raise ValueError("sizes must be positive")
    given = dict(sizes=sizes, values=values)
    given |= {} if variance is None else dict(variance=np.asarray(variance, float))
    for what, numbers in given.items():
        if numbers.shape != sizes.shape and numbers.shape != (len(sizes), len(sizes)):
            raise ValueError(f"{what} {numbers.shape}, sizes {sizes.shape}: expected one for each")
        if (bad := ~np.isfinite(numbers)).any():
            where = ", ".join(map(str, np.flatnonzero(bad.any(-1) if bad.ndim > 1 else bad)))
            raise ValueError(f"{what} must be finite; not so at position {where}")
    in_logs = bool((values > 0).all())
    white = np.eye(len(sizes))
    if variance is not None:
        covariance = (
            given["variance"] if given["variance"].ndim == 2 else np.diag(given["variance"])
        )
        if in_logs:  # the error of a logarithm
            covariance = covariance / np.outer(values, values)
        floor = max(1e-3 * np.trace(covariance) / len(sizes), 1e-24)  # where nothing varied
        white = np.linalg.inv(np.linalg.cholesky(covariance + floor * np.eye(len(sizes))))
    middle = float(np.exp(np.log(sizes).mean()))
    return _Points(sizes / middle, middle, values, in_logs, white)


def fit(
    sizes: np.ndarray, values: np.ndarray, law: str = "power", *,
    variance: np.ndarray | None = None, huber: bool = False,
) -> Fit:  # fmt: skip
    """Fit a law.

    Parameters
    ----------
    sizes : (n,) float
        Positive.
    values : (n,) float
    law : {"power", "offset"}
    variance : (n,) or (n, n) float, optional
        Of each value, or their covariance; without it, each has the same share of itself as error.
    huber : bool
        Huber's loss with `HUBER_DELTA` in place of squares, and no weights.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        With fewer points than the law has parameters, sizes that are not positive, or anything that is
        not finite.
    """
    points = _checked(sizes, values, law, None if huber else variance)
    if law == "power" and points.in_logs and not huber:
        line, cost, _ = _line(points)
        a = np.exp(line[0] - line[1] * np.log(points.middle))
        return Fit(law, float(a), float(line[1]), np.nan, cost)
    grid = _grid(law)
    costs, others = _at(law, points, grid, huber)
    k = costs.argmin()
    start = np.array([others[k][0], grid[k], others[k][1]][: N_PARAMETERS[law]])
    best = _polished(law, points, start, huber)
    p = [*best.x, np.nan][:3]
    a = p[0] * points.middle ** (-p[1] if law == "power" else p[1])
    low, high = B_BOUNDS[law]
    near = 1e-3 * (high - low)
    bound = low if p[1] < low + near else high if p[1] > high - near else None
    said = "" if bound is None else f"exponent {bound:g}"
    if law == "power" and p[0] < 1e-8:
        said = "; ".join(t for t in (said, "factor 0") if t)
    return Fit(law, float(a), float(p[1]), float(p[2]), float(2 * best.cost), said)


def _line(points):
    """The straight line of logarithms: its two numbers, cost, and their covariance."""
    columns = points.white @ np.stack([np.ones(len(points.x)), np.log(points.x)], axis=1)
    target = points.white @ np.log(points.values)
    p, *_ = np.linalg.lstsq(columns, target)
    return p, float(((columns @ p - target) ** 2).sum()), np.linalg.inv(columns.T @ columns)


def _grid(law):
    """Exponents that are tried."""
    low, high = B_BOUNDS[law]
    return np.geomspace(low, high, 90) if law == "offset" else np.linspace(low, high, 241)


def _at(law, points, b, huber=False):
    """Least cost of a law at each given exponent, and the factor and ceiling (or NaN) that give it.

    The rest of a law is linear; on logarithms it takes a few Gauss-Newton steps from the fit of relative
    residuals, shortened where they would make things worse. Huber's loss weighs residuals anew each step.
    """
    sign = 1 if law == "power" else -1
    parts = [sign * points.x[None] ** (sign * b[:, None])]
    parts += [np.ones((len(b), len(points.x)))] if law == "offset" else []
    columns = np.stack(parts, 2)  # (n_b, n, 1 or 2)
    scale = points.values if points.in_logs else np.ones_like(points.values)
    target = points.white @ (points.values / scale)
    p = _solved(points.white @ (columns / scale[:, None]), np.tile(target, (len(b), 1)))

    def looked_at(p):
        model = np.einsum("bnk,bk->bn", columns, p)
        gap = model - points.values
        if points.in_logs:
            gap = np.log(np.maximum(model, 1e-12)) - np.log(points.values)
        gap = gap @ points.white.T
        return model, gap, _losses(gap, huber).sum(1)

    model, gap, cost = looked_at(p)
    for _ in range(40 if huber else 8 if points.in_logs else 0):
        slope = points.white @ (columns / np.maximum(model, 1e-3 * scale)[:, :, None])
        slope = slope if points.in_logs else points.white @ columns
        weight = np.sqrt(_losses(gap, huber) / np.maximum(gap**2, 1e-24)) if huber else 1 + 0 * gap
        step = _solved(slope * weight[:, :, None], -gap * weight)
        for share in (1.0, 0.3, 0.05):
            tried = looked_at(p + share * step)
            better = tried[2] < cost
            p = np.where(better[:, None], p + share * step, p)
            model, gap = (
                np.where(better[:, None], new, old)
                for new, old in zip(tried, (model, gap), strict=False)
            )
            cost, step = np.where(better, tried[2], cost), np.where(better[:, None], 0, step)
    ceiling = p[:, 1] if law == "offset" else np.full(len(b), np.nan)
    return cost, np.stack([p[:, 0], ceiling], 1)


def _losses(gap, huber):
    """Squares, or Huber's losses."""
    size = np.abs(gap)
    return (
        np.where(size <= HUBER_DELTA, gap**2, HUBER_DELTA * (2 * size - HUBER_DELTA))
        if huber
        else gap**2
    )


def _solved(columns, target):
    """Least squares of each of many small systems."""
    square = np.einsum("bnk,bnl->bkl", columns, columns)
    square += 1e-12 * np.einsum("bkk->b", square)[:, None, None] * np.eye(square.shape[1])
    return np.linalg.solve(square, np.einsum("bnk,bn->bk", columns, target)[:, :, None])[:, :, 0]


def _polished(law, points, start, huber):
    """The minimum near a start, over all parameters at once."""
    low, high = B_BOUNDS[law]
    factor = 1e-9 if law == "power" else -np.inf
    ends = [[factor, low, -np.inf][: len(start)], [np.inf, high, np.inf][: len(start)]]
    inside = np.clip(start, np.array(ends[0]) + 1e-12, np.array(ends[1]) - 1e-12)
    loss = dict(loss="huber", f_scale=HUBER_DELTA) if huber else {}
    return least_squares(
        lambda p: points.residual(law, p), inside, lambda p: points.jacobian(law, p), bounds=ends,
        x_scale="jac", max_nfev=400 if huber else 100, **loss,
    )  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What the runs of each size say together.

    Attributes
    ----------
    sizes, values : (n,) float
        Means over seeds.
    patients : (n, n) float
        Covariance of `values` by the luck of the test patients, which move sizes together.
    seeds : (n,) float
        Variance of each mean by the luck of its seeds, one share of the value for all sizes.
    own : (n,) float or None
        The same from the seeds of that size alone, where it has several.
    n_seeds : (n,) int
    """

    sizes: np.ndarray
    values: np.ndarray
    patients: np.ndarray
    seeds: np.ndarray
    own: np.ndarray | None
    n_seeds: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """(n, n) float: of `values`, which weighs the points."""
        return self.patients + np.diag(self.seeds)

    @property
    def df(self) -> int:
        """Degrees of freedom of the seeds' pooled variance."""
        return max(round((self.n_seeds - 1).sum()), 1)

    def drawn(
        self, rng: np.random.Generator, n: int, around: np.ndarray | None = None
    ) -> np.ndarray:
        """(n, n_sizes) float: points as other patients and seeds might have given them, normal."""
        half = np.linalg.cholesky(self.covariance + 1e-18 * np.eye(len(self.values)))
        centre = self.values if around is None else around
        return centre + rng.standard_normal((n, len(centre))) @ half.T


def exponent_interval(
    points: Measured, law: str = "power", *, confidence: float = 0.95
) -> tuple[float, float]:
    """Exponents that the points do not contradict, by profile likelihood.

    Those b for which the best law with exponent b costs at most t² more than the best law of all. An
    offset law's exponent has no symmetrical error, and its profile shows where it has no end. t² is
    stretched by how much more each size's own seeds scatter than the pooled variance says, with
    Satterthwaite's degrees of freedom: seeds of small trainings may well scatter more.

    Returns
    -------
    low, high : float
        NaN for an end beyond `B_BOUNDS`.
    """
    inner = _checked(points.sizes, points.values, law, points.covariance)
    best = fit(points.sizes, points.values, law, variance=points.covariance)
    stretch, df = _stretch(points, inner, best)
    reach = stretch * stats.t.ppf((1 + confidence) / 2, df) ** 2
    if law == "power" and inner.in_logs:
        half = np.sqrt(reach * _line(inner)[2][1, 1])
        return float(best.b - half), float(best.b + half)
    low, high = B_BOUNDS[law]
    grid = np.geomspace(low, high, 600) if law == "offset" else np.linspace(low, high, 4801)
    grid = np.unique(np.concatenate([grid, best.b + np.linspace(-0.05, 0.05, 401)]))
    grid = grid[(grid >= low) & (grid <= high)]
    costs, _ = _at(law, inner, grid)
    inside = costs <= best.cost + reach
    if not inside.any():
        return np.nan, np.nan
    first, last = np.flatnonzero(inside)[[0, -1]]
    return (
        np.nan if first == 0 else _crossing(grid, costs, best.cost + reach, first - 1),
        np.nan if last == len(grid) - 1 else _crossing(grid, costs, best.cost + reach, last),
    )


def _stretch(points, inner, best):
    """Variance of an exponent by each size's own seeds, over that by the pooled one; its freedom."""
    if points.own is None:
        return 1.0, points.df
    power = best.b if best.law == "power" else -best.b
    p = np.array([best.a * inner.middle**power, best.b, best.c][: N_PARAMETERS[best.law]])
    weights = np.linalg.pinv(inner.jacobian(best.law, p))[1] @ inner.white
    weights = weights / points.values if inner.in_logs else weights
    own = weights**2 * points.own
    total = weights @ points.patients @ weights + own.sum()
    pooled = weights @ points.covariance @ weights
    freedom = total**2 / max((own**2 / np.maximum(points.n_seeds - 1, 1)).sum(), 1e-300)
    return total / max(pooled, 1e-300), freedom


def _crossing(grid, costs, limit, k):
    """Where costs pass a limit between positions k and k + 1."""
    share = (limit - costs[k]) / (costs[k + 1] - costs[k])
    return float(grid[k] + np.clip(share, 0, 1) * (grid[k + 1] - grid[k]))


def measured(sizes: np.ndarray, runs: list[np.ndarray]) -> Measured:
    """Means over seeds, and how far patients and seeds may have moved them.

    The seeds' variance is one share of the value for all sizes: few runs cannot give each its own.

    Parameters
    ----------
    sizes : (n,) float
    runs : list of (n_seeds, 1 + n_resamples) float
        By size: each seed's metric, then in each resample of patients. Resample r is the same patients
        for all.

    Raises
    ------
    ValueError
        If no size has two seeds.
    """
    values = np.array([r[:, 0].mean() for r in runs])
    n = np.array([len(r) for r in runs])
    if (df := int((n - 1).sum())) < 1:
        raise ValueError("no size has two seeds: their luck cannot be told from the data's")
    scale = np.abs(values) if (values > 0).all() else np.ones(len(values))
    squares = np.array([((r[:, 0] - r[:, 0].mean()) ** 2).sum() for r in runs])
    seeds = (squares / scale**2).sum() / df * scale**2 / n
    own = np.where(n > 1, squares / np.maximum(n - 1, 1) / n, seeds)
    resampled = np.array([r[:, 1:].mean(0) for r in runs])
    patients = np.cov(resampled) if resampled.shape[1] > 1 else np.zeros((len(n), len(n)))
    return Measured(np.asarray(sizes, float), values, patients, seeds, own, n)


def scattered(sizes: np.ndarray, values: np.ndarray) -> Measured:
    """Points of one run each: their noise is their scatter about the offset law, a share of the value.

    Of three sizes about the power law, which alone has fewer parameters.
    """
    sizes, values = np.asarray(sizes, float), np.asarray(values, float)
    law = "offset" if len(np.unique(sizes)) > N_PARAMETERS["offset"] else "power"
    df, n = len(sizes) - N_PARAMETERS[law], len(sizes)
    scale = values if (values > 0).all() else np.ones(n)
    noise = fit(sizes, values, law).cost / df * scale**2
    return Measured(sizes, values, np.zeros((n, n)), noise, None, np.full(n, 1 + df / n))


def refits(points: Measured, law: str = "power", *, n_fits: int = 300, seed: int) -> list[Fit]:
    """Fits of points as other patients and seeds might have given them, for bands and sizes.

    Drawn from a t distribution, since the seeds' variance is itself known from few runs.
    """
    rng = stream_of(seed, Stream.FITS)
    shift = points.drawn(rng, n_fits) - points.values
    shift *= np.sqrt(points.df / rng.chisquare(points.df, n_fits))[:, None]
    low = 0.02 * np.abs(points.values)  # a share of nothing has no logarithm
    values = (
        np.maximum(points.values + shift, low)
        if (points.values > 0).all()
        else points.values + shift
    )
    return [fit(points.sizes, v, law, variance=points.covariance) for v in values]
