"""Cross-modal retrieval: how often a volume's own report is the nearest among N.

Recall at k is the share of queries whose own partner is among the k nearest of a pool of N. The
paper draws pools at random; the mean over *all* pools of a size has a closed form, so nothing need
be drawn for it: if b of the n − 1 other candidates lie nearer than the right one, a random pool of N
holds at most k − 1 of them with the hypergeometric probability. What one draw of disjoint pools
would have given is kept beside it (`pool_low`, `pool_high`): that is how far a paper's single draw
can lie off, and it is another uncertainty than that of which patients were in the test set.

Candidates whose report is word for word the query's are never counted as wrong. Candidates that are
exactly as near as the partner come before it or after it at random, in expectation.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from threadpoolctl import threadpool_limits

from merlin.evaluation import results
from merlin.streams import Stream, stream_of

POOLS = (32, 64, 128)
RANKS = (1, 8)


def rank_counts(
    query: np.ndarray, candidate: np.ndarray, group: np.ndarray, *, chunk: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """How many candidates beat each query's own partner, and how many tie with it.

    Parameters
    ----------
    query, candidate : (n, D) float
        Row i of one belongs to row i of the other.
    group : (n,) int
        Equal numbers mean equal reports: those candidates are as right as the partner.
    chunk : int
        Queries at a time; memory is `chunk` × n.

    Returns
    -------
    better, ties : (n,) int
    """
    query, candidate = np.asarray(query, np.float32), np.asarray(candidate, np.float32)
    group = np.asarray(group)
    out = np.empty((2, len(query)), int)
    for start in range(0, len(query), chunk):
        part = slice(start, start + chunk)
        with threadpool_limits(1, "blas"):  # shared threads wait for a core that a neighbour keeps
            near = query[part] @ candidate.T
        # Read off the same product: a separate dot product may differ in the last bit.
        own = near[np.arange(len(near)), np.arange(start, start + len(near))][:, None]
        out[:, part] = _beats(near, own, group[part, None] != group[None])
    return out[0], out[1]


def better_counts(
    query: np.ndarray, candidate: np.ndarray, group: np.ndarray, *, chunk: int = 512
) -> np.ndarray:
    """As `rank_counts`, in one number: a candidate that ties counts half, rounded up."""
    better, ties = rank_counts(query, candidate, group, chunk=chunk)
    return better + -(-ties // 2)


def _beats(near, own, other):
    return ((near > own) & other).sum(-1), ((near == own) & other).sum(-1)


def expected_recall(
    better: np.ndarray, n: int, pool: int, k: int, *, ties: np.ndarray | int = 0
) -> np.ndarray:
    """Probability that a random pool of `pool` of `n` candidates has the partner among its top k.

    Parameters
    ----------
    better : (n_queries,) int
        Candidates, of the n − 1 others, that lie nearer.
    ties : (n_queries,) int, optional
        Candidates that lie equally near. Their order is drawn, so each number of them that come
        first, 0 to `ties`, is as likely: an encoder that tells nothing apart has chance.

    Returns
    -------
    (n_queries,) float
    """
    better, ties = np.broadcast_arrays(better, ties)
    if not ties.any():
        return stats.hypergeom.cdf(k - 1, n - 1, better, pool - 1)
    each = stats.hypergeom.cdf(k - 1, n - 1, np.arange(n), pool - 1)
    total = np.concatenate([[0.0], np.cumsum(each)])
    mean = (total[better + ties + 1] - total[better]) / (ties + 1)
    return np.where(ties == 0, each[better], mean)


def drawn_recall(
    query: np.ndarray, candidate: np.ndarray, group: np.ndarray, pool: int, ranks: Sequence[int], *,
    n_draws: int, seed: int,
) -> np.ndarray:  # fmt: skip
    """Recall of each of `n_draws` random partitions into full pools; the remainder is left out.

    Returns
    -------
    (len(ranks), n_draws) float
    """
    query, candidate = np.asarray(query, np.float32), np.asarray(candidate, np.float32)
    n, group = len(query), np.asarray(group)
    out = np.empty((len(ranks), n_draws))
    for d in range(n_draws):
        order = stream_of(seed, Stream.POOLS, d).permutation(n)[: n // pool * pool]
        parts = order.reshape(-1, pool)
        with threadpool_limits(1, "blas"):
            near = query[parts] @ candidate[parts].transpose(0, 2, 1)  # (pools, pool, pool)
        own = np.diagonal(near, axis1=1, axis2=2)[..., None]
        better, ties = _beats(near, own, group[parts][:, :, None] != group[parts][:, None])
        # Among `ties + 1` equals the partner is each as likely.
        out[:, d] = [np.clip((k - better) / (ties + 1), 0, 1).mean() for k in ranks]
    return out


def evaluate(
    image: np.ndarray, text: np.ndarray, texts_group: np.ndarray, patient_ids: np.ndarray, *,
    text_name: str, model: str, split: str, pools: Sequence[int] = POOLS,
    ranks: Sequence[int] = RANKS, n_draws: int = 20, n_resamples: int = 1000, seed: int,
) -> tuple[pd.DataFrame, dict[tuple[str, int | str, int], np.ndarray]]:  # fmt: skip
    """Recall in both directions for every pool size and the whole split.

    Pools of fewer than two are a ValueError.

    Parameters
    ----------
    image, text : (n, D) or (n_seeds, n, D) float
        Of one run, or of several that differ in their seed. Nearer means a larger dot product. Rows of
        `text` that are NaN have no text and sit out.
    texts_group : (n,) int
        Equal numbers mean equal texts.
    patient_ids : (n,) str
    text_name : str
        `findings` or `impression`, for the labels.
    pools, ranks : sequence of int
    n_draws : int
        Partitions for `pool_low` and `pool_high`.

    Returns
    -------
    table : DataFrame
        Common schema plus `pool, k, chance, pool_low, pool_high, duplicate_rate`. Intervals resample
        the patients that ask; the candidates stay.
    resampled : dict of (label, pool, k) to (1 + n_resamples,) or (n_seeds, 1 + n_resamples) float
    """
    if min(pools, default=2) < 2:
        raise ValueError(f"pools must hold two candidates or more; got {min(pools)}")
    image, text = (x[None] if x.ndim == 2 else x for x in (image, text))
    has_text = np.isfinite(text).all((0, 2))
    image, text = image[:, has_text], text[:, has_text]
    group = np.asarray(texts_group)[has_text]
    patients, n = np.asarray(patient_ids)[has_text], int(has_text.sum())
    rows, about = [], dict(model=model, split=split)
    resampled: dict[tuple[str, int | str, int], np.ndarray] = {}
    directions = {
        f"image to {text_name}": (image, text),
        f"{text_name} to image": (text, image),
    }
    if n < 2:
        reason = f"{n} of {len(has_text)} studies have a text"
        rows = [results.missing(d, "recall", reason, n_studies=n) for d in directions]
        return results.table("retrieval", rows, **about), resampled
    weights = results.resampling(patients, n_resamples, seed=seed).astype(np.float64)
    _, where, count = np.unique(group, return_inverse=True, return_counts=True)
    counted = dict(known=np.ones(n, bool), patient_ids=patients, n_positive=n)
    duplicate_rate = float((count[where] > 1).mean())
    for label, (query, candidate) in directions.items():
        runs = zip(query, candidate, strict=True)
        counts = [rank_counts(q, c, group) for q, c in runs]
        for pool, size in [*((p, str(p)) for p in pools), (n, "all")]:
            drawn = {}
            if pool < n:
                drawing = dict(n_draws=n_draws, seed=seed)
                recalls = drawn_recall(query[0], candidate[0], group, pool, ranks, **drawing)
                drawn = dict(zip(ranks, recalls, strict=True))
            for k in ranks:
                name = f"recall@{k} of {size}"
                more: dict = dict(pool=pool, k=k, chance=min(k / pool, 1.0))
                if pool > n:
                    reason = f"a pool of {pool} is larger than the {n} studies with a text"
                    rows.append(results.missing(label, name, reason, n_studies=n, **more))
                    continue
                each = (expected_recall(b, n, pool, k, ties=t) for b, t in counts)
                found = results.over_runs(e @ weights / weights.sum(0) for e in each)
                resampled[label, "all" if size == "all" else pool, k] = found
                low, high = (
                    float(np.quantile(drawn.get(k, found.flat[0]), q)) for q in (0.025, 0.975)
                )
                more = dict(pool_low=low, pool_high=high, duplicate_rate=duplicate_rate) | more
                rows.append(results.row(label, name, found, **counted, **more))
    return results.table("retrieval", rows, **about), resampled
