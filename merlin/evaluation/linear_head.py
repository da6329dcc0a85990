"""One linear head for any encoder: penalised logistic regressions by the hundred, solved together.

The head is the same for all. Features are standardised on the training studies, for which no label is
needed, and divided by the root of their number, so that a study's squared length is 1 on average however
wide its encoder is. Then comes one L2-penalised logistic regression a finding, with a free intercept,
under each of the same `STRENGTHS`. Thirty regressions of 3,000 studies or three hundred of 128 go through
one solver: steps by Böhning and Lindsay's bound of the Hessian (Ann. Inst. Stat. Math. 40:641, 1988),
which cannot overshoot and ask for no learning rate, with Nesterov's momentum, restarted where it leads
uphill (O'Donoghue and Candès, Found. Comput. Math. 15:715, 2015).
"""

from collections.abc import Iterator, Sequence

import numpy as np

# scikit-learn's `C`, for these features: smaller is stricter. The strictest is nearly the difference of the
# two classes' means, the mildest nearly no penalty where positives are few.
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
MOST_STEPS = 400
CLOSE = 5e-4  # of a column's range of log odds: a step that moves every study by less is the last
FLAT = 1e-6  # of the largest variance: what has less is rounding


class NothingVaries(ValueError):
    """Features that are the same for every training study: nothing can be learnt from them."""


def standardised(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features as the head takes them.

    Parameters
    ----------
    features : (n, d) float
        NaN becomes the training studies' mean; what is the same for all of these is left out.
    train : (n_train,) int
        Rows whose mean and spread are taken.

    Returns
    -------
    (n, k) float32
        The k features that vary, of mean 0 and variance 1 / k on the training rows.

    Raises
    ------
    NothingVaries
    """
    x = np.asarray(features, np.float64)
    taught = np.isfinite(x[train])
    n = np.maximum(taught.sum(0), 1)
    mean = np.where(taught, x[train], 0.0).sum(0) / n
    x = np.where(np.isfinite(x), x - mean, 0.0)
    spread = np.sqrt((x[train] ** 2).mean(0))
    varies = spread > 1e-6 * np.abs(mean) + 1e-30  # less is rounding
    if not varies.any():
        raise NothingVaries(f"all {x.shape[1]} features are the same for every training study")
    return (x[:, varies] / spread[varies] / np.sqrt(varies.sum())).astype(np.float32)


def probe(
    x: np.ndarray, labels: np.ndarray, new: np.ndarray, strengths: Sequence[float] = STRENGTHS
) -> Iterator[np.ndarray]:
    """Log odds by a regression on all training studies, for each label.

    Parameters
    ----------
    x, new : (n, k), (m, k) float32
        From `standardised`.
    labels : (n, n_labels) float
        1, 0, or NaN, which takes no part.
    strengths : sequence of float
        From strict to mild: each begins where the one before ended.

    Yields
    ------
    (m, n_labels) float32
        Under each strength; NaN for a label of which only one class is known.
    """
    x, new = x - x.mean(0), new - x.mean(0)
    directions, along = _turned(x)
    able = (labels == 1).any(0) & (labels == 0).any(0)
    labels, n = labels[:, able], int(able.sum())
    share = (labels == 1).sum(0, dtype=np.float32) / np.isfinite(labels).sum(0)
    start = np.zeros((along.shape[1], n), np.float32), np.log(share / (1 - share))[None]
    for c in strengths:
        start = solve(along, labels, np.full(n, 1 / c), start)
        found = np.full((len(new), len(able)), np.nan, np.float32)
        found[:, able] = new @ (directions @ start[0]) + start[1]
        yield found


def few_shot(
    x: np.ndarray, positive: np.ndarray, negative: np.ndarray, new: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Log odds by regressions on a few drawn studies, finding by finding.

    Parameters
    ----------
    x, new : (n, k), (m, k) float32
        From `standardised`.
    positive, negative : (n_findings, n_draws, p), (n_findings, n_draws, q) int
        Rows of `x` that each draw of a finding holds.

    Yields
    ------
    (n_strengths, m, n_draws) float32
        For each finding.
    """
    rows = np.concatenate([positive, negative], 2)  # (n_findings, n_draws, p + q)
    n = rows.shape[2]
    gram = np.stack([drawn @ np.swapaxes(drawn, 1, 2) for drawn in (x[r] for r in rows)])
    gram -= gram.mean(-1, keepdims=True)  # the intercept is free: about the drawn studies' own mean
    gram -= gram.mean(-2, keepdims=True)
    variance, axes = np.linalg.eigh(gram)
    is_flat = variance <= FLAT * variance[..., -1:]
    root = np.where(is_flat, 0.0, np.sqrt(np.maximum(variance, 0.0)))
    along = (axes * root[..., None, :]).astype(np.float32)
    y = np.repeat([1.0, 0.0], [positive.shape[2], negative.shape[2]])
    y = np.broadcast_to(y[:, None], (n, len(strengths)))
    zeros = [np.zeros((*rows.shape[:2], k, len(strengths)), np.float32) for k in (n, 1)]
    weights, _ = solve(along, y, 1 / np.asarray(strengths), (zeros[0], zeros[1]))
    with np.errstate(divide="ignore"):
        back = np.where(is_flat, 0.0, 1 / root)
    share = axes @ (back[..., None] * weights)  # of each drawn study in the direction
    share = (share - share.mean(-2, keepdims=True)).astype(np.float32)
    for r, part in zip(rows, share, strict=True):
        direction = np.swapaxes(x[r], 1, 2) @ part  # (n_draws, k, n_strengths)
        found = new @ np.concatenate(list(direction), axis=1)
        yield found.reshape(len(new), rows.shape[1], -1).transpose(2, 0, 1)


def _turned(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions in which centred rows vary, (k, r), and the rows along them, (n, r): no penalty tells."""
    n, k = x.shape
    variance, axes = np.linalg.eigh(x.T @ x if k <= n else x @ x.T)
    keep = variance > FLAT * variance[-1]
    axes = axes[:, keep]
    if k > n:
        axes = x.T @ axes / np.sqrt(variance[keep])
    return axes, x @ axes


def solve(
    along: np.ndarray, labels: np.ndarray, penalty: np.ndarray,
    start: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Minimise the sum of logistic losses plus half the penalty times the squared weights.

    Parameters
    ----------
    along : (..., n, r) float32
        Inputs whose columns are of mean 0 and orthogonal.
    labels : (n, c) float
        1, 0, or NaN, which takes no part.
    penalty : (c,) float
        One over the strength, for each column of labels.
    start : (weights, intercept)
        Where to begin, in the shapes of the result.

    Returns
    -------
    weights : (..., r, c) float32
    intercept : (..., 1, c) float32
    """
    n, turned = along.shape[-2], np.swapaxes(along, -1, -2)
    known, y = np.isfinite(labels).astype(np.float32), np.nan_to_num(labels).astype(np.float32)
    penalty = np.asarray(penalty, np.float32)
    slack = np.float32(0.2525)  # the bound, a quarter, and what rounding leaves of orthogonality
    steep = (along**2).sum(-2)[..., None] * slack + penalty
    weights, intercept = (v.copy() for v in start)
    left = np.arange(labels.shape[1])  # columns that still move
    w, b = start
    ahead_w, ahead_b, t, before = w, b, np.ones_like(b), np.zeros((1, 1), np.float32)
    for i in range(MOST_STEPS):
        odds = along @ ahead_w + ahead_b
        if i and i % 5 == 0:
            weights[..., left], intercept[..., left] = w, b
            moved = np.abs(odds - before).max(-2) > CLOSE * np.ptp(odds, axis=-2)
            moves = moved.any(tuple(range(moved.ndim - 1)))
            if not moves.any():
                break
            if not moves.all():
                of_columns = left, odds, w, b, ahead_w, ahead_b, t, steep, known, y, penalty
                left, odds, w, b, ahead_w, ahead_b, t, steep, known, y, penalty = (
                    v[..., moves] for v in of_columns
                )
        off = known * (1 / (1 + np.exp(-odds)) - y)
        new_w = ahead_w - (turned @ off + penalty * ahead_w) / steep
        new_b = ahead_b - off.sum(-2, keepdims=True) * np.float32(4 / n)
        uphill = (steep * (ahead_w - new_w) * (new_w - w)).sum(-2, keepdims=True)
        uphill += (ahead_b - new_b) * np.float32(n / 4) * (new_b - b)
        t = np.where(uphill > 0, np.float32(1), t)
        later = (1 + np.sqrt(1 + 4 * t**2)) / 2
        pull = (t - 1) / later
        ahead_w, ahead_b = new_w + pull * (new_w - w), new_b + pull * (new_b - b)
        w, b, t, before = new_w, new_b, later, odds
    weights[..., left], intercept[..., left] = w, b
    return weights, intercept
