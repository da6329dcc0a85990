"""Encoders at one table: what a linear head reads from each, with how many labels.

Every encoder gets the same head (`linear_head`), the same training, validation and test studies, the same
list of strengths, the same drawn studies where labels are few, and is judged on the same resamples of
patients. A budget is a number of labels a finding: none (`zero-shot`, by an encoder's own prompts), some
positives with as many negatives (`8-shot`), or every labelled training study (`all`). Validation chooses
the strength, one for each run of an encoder under each budget.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from merlin.evaluation import linear_head, results
from merlin.streams import Stream, stream_of

ZERO, ALL = "zero-shot", "all"  # names of the two outermost budgets
SHOTS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Studies:
    """The studies that all encoders have in common.

    Attributes
    ----------
    study_id, patient_id, split : (n,) str
        `train`, `val` or `test`.
    finding : (f,) str
    labels : (n, f) float
        1, 0, or NaN where unknown.
    """

    study_id: np.ndarray
    patient_id: np.ndarray
    split: np.ndarray
    finding: Sequence[str]
    labels: np.ndarray

    def rows(self, split: str) -> np.ndarray:
        """Positions of a split's studies."""
        return np.flatnonzero(self.split == split)


@dataclass(frozen=True)
class Encoder:
    """What one encoder says of these studies.

    Attributes
    ----------
    features : sequence of (n, d) float
        One a training, where they differ in nothing but the seed; NaN counts as the mean.
    presence : sequence of (n, f) float
        Zero-shot scores, as many; NaN columns where an encoder has no prompts. Empty: it has none at all.
    is_trained : bool
        Whether a training's luck is in it: organ measurements have none.
    note : str
        What a reader should know of it, beside its macro values.
    """

    features: Sequence[np.ndarray]
    presence: Sequence[np.ndarray] = ()
    is_trained: bool = True
    note: str = ""


@dataclass(frozen=True)
class Judged:
    """AUROC of one encoder under one budget.

    Attributes
    ----------
    drawn : (f, 1 + n_resamples) float
        Mean over runs and draws, on the test studies, then on each resample of their patients.
    runs : (n_runs, n_draws, f) float
        Of each run and draw, on the test studies.
    strengths : tuple of float
        That validation chose, one a run.
    val_auroc : float
        Mean over findings, draws and runs there.
    """

    drawn: np.ndarray
    runs: np.ndarray
    strengths: tuple[float, ...] = ()
    val_auroc: float = np.nan


def shot(k: int) -> str:
    """The name of a budget of `k` positives a finding."""
    return f"{k}-shot"


def capacity(studies: Studies, *, negatives: int) -> np.ndarray:
    """(f,) int: positives that can be drawn of each finding, each of another training patient."""
    train = studies.rows("train")
    who, labels = studies.patient_id[train], studies.labels[train]
    return np.array([
        min(len(set(who[y == 1])), len(set(who[y == 0])) // negatives) for y in labels.T
    ], int)  # fmt: skip


def draw(
    studies: Studies, finding: int, k: int, *, negatives: int, n_draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training studies of one finding: nested, so that those of fewer labels are the first of more.

    They follow from the seed, the finding's name and the studies' ids, in whatever order these come, and
    from no encoder.

    Returns
    -------
    positive : (n_draws, k) int
    negative : (n_draws, k * negatives) int
        Positions among the training studies, each of another patient.
    """
    train = studies.rows("train")
    order = np.argsort(studies.study_id[train])
    name = zlib.crc32(studies.finding[finding].encode())
    found: tuple[list, list] = [], []
    for i in range(n_draws):
        shuffled = stream_of(seed, Stream.SHARE, name, i).permutation(order)
        y = studies.labels[train][shuffled, finding]
        for kind, n, out in ((1, k, found[0]), (0, k * negatives, found[1])):
            rows = shuffled[y == kind]
            _, first = np.unique(studies.patient_id[train][rows], return_index=True)
            out.append(rows[np.sort(first)][:n])
    return np.stack(found[0]), np.stack(found[1])


def judge(
    encoder: Encoder, studies: Studies, shots: Sequence[int],
    drawn: Sequence[tuple[np.ndarray, np.ndarray]], weights: np.ndarray,
) -> Iterator[tuple[str, Judged]]:  # fmt: skip
    """An encoder under each budget, from no label to all.

    Parameters
    ----------
    drawn : sequence of (positive, negative)
        Of `draw`, one a finding; those that hold fewer than a budget asks are not judged under it.
    weights : (n_test, 1 + n_resamples) int
        Of `results.resampling`.
    """
    test, n_findings = studies.rows("test"), studies.labels.shape[1]
    labels = studies.labels[test]
    if len(encoder.presence):
        scores = np.stack([p[test] for p in encoder.presence])[..., None]
        yield ZERO, Judged(*mean_auroc(scores, labels, weights))
    taught = [_taught(f, studies) for f in encoder.features]
    for k in shots:
        able = [j for j, (positive, _) in enumerate(drawn) if positive.shape[1] >= k]
        picked = [_few(t, [drawn[j] for j in able], able, k) for t in taught]
        scores = np.full((len(taught), len(test), n_findings, len(drawn[0][0])), np.nan, np.float32)
        scores[:, :, able] = np.stack([p.odds for p in picked])
        yield shot(k), _judged(picked, scores, labels, weights)
    picked = [_every(t) for t in taught]
    yield ALL, _judged(picked, np.stack([p.odds for p in picked]), labels, weights)


def _judged(picked, scores, labels, weights):
    val = float(np.mean([p.val_auroc for p in picked]))
    return Judged(*mean_auroc(scores, labels, weights), tuple(p.strength for p in picked), val)


@dataclass(frozen=True)
class _Taught:
    """Features of one run as the head takes them: of training studies, of validation and then test ones."""

    x: np.ndarray
    new: np.ndarray
    labels: np.ndarray
    val_labels: np.ndarray


@dataclass(frozen=True)
class _Picked:
    """Test log odds (n_test, f, n_draws) under the strength that validation chose."""

    odds: np.ndarray
    strength: float
    val_auroc: float


def _taught(features, studies):
    train, val, test = (studies.rows(s) for s in ("train", "val", "test"))
    x = linear_head.standardised(features, train)
    new = np.concatenate([x[val], x[test]])
    return _Taught(x[train], new, studies.labels[train], studies.labels[val])


def _few(taught, drawn, able, k):
    """What the head reads where `k` positives of each able finding are drawn."""
    ratio = drawn[0][1].shape[1] // drawn[0][0].shape[1]
    positive = np.stack([p[:, :k] for p, _ in drawn])
    negative = np.stack([n[:, : k * ratio] for _, n in drawn])
    n_val, on_test, on_val = len(taught.val_labels), [], []
    found = linear_head.few_shot(taught.x, positive, negative, taught.new)
    for y, odds in zip(taught.val_labels[:, able].T, found, strict=True):
        on_val.append([_auroc(o[:n_val], y).mean() for o in odds])
        on_test.append(odds[:, n_val:])
    return _pick(np.stack(on_test, axis=2), np.array(on_val))


def _every(taught):
    """What it reads with every labelled training study: one draw.

    Once a milder strength does worse on validation, none milder is tried.
    """
    n_val, on_test, on_val = len(taught.val_labels), [], []
    for odds in linear_head.probe(taught.x, taught.labels, taught.new):
        columns = zip(odds[:n_val].T, taught.val_labels.T, strict=True)
        on_val.append([_auroc(o[:, None], y)[0] for o, y in columns])
        on_test.append(odds[n_val:, :, None])
        mean = np.nanmean(on_val, axis=1)
        if mean[-1] < mean.max():
            break
    return _pick(np.stack(on_test), np.array(on_val).T)


def _pick(odds, on_val):
    """The strength of the best mean AUROC over findings, (f, n_strengths), that validation can judge."""
    mean = on_val[np.isfinite(on_val).all(1)].mean(0)
    best = int(mean.argmax())
    return _Picked(odds[best], linear_head.STRENGTHS[best], float(mean[best]))


def _auroc(scores, label):
    """(n_draws,) AUROC of columns of scores for one label; NaN where a class or a score is missing."""
    if np.isnan(scores).any() or not results.has_both(label):
        return np.full(scores.shape[1], np.nan)
    high, low = scores[label == 1].T.copy(), scores[label == 0].T.copy()
    return np.array([_won(*pair)[0] for pair in zip(high, low, strict=True)])


def _won(high, low):
    """AUROC of positives' and negatives' scores, and in which pairs the positive is above, or not below."""
    above, not_below = high[:, None] > low, high[:, None] >= low
    share = (np.count_nonzero(above) + np.count_nonzero(not_below)) / (2 * above.size)
    return share, above, not_below


def mean_auroc(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC of each run and draw, and their mean on each resample: pairs are compared once for all of these.

    Parameters
    ----------
    scores : (n_runs, n, f, n_draws) float
        NaN for a finding without scores.
    labels : (n, f) float
    weights : (n, 1 + n_resamples) int
        The first column is of ones.

    Returns
    -------
    drawn : (f, 1 + n_resamples) float
        NaN where a class is missing.
    runs : (n_runs, n_draws, f) float
    """
    n_runs, _, n_findings, n_draws = scores.shape
    drawn = np.full((n_findings, weights.shape[1]), np.nan)
    runs = np.full((n_runs, n_draws, n_findings), np.nan)
    kind = np.uint8 if 2 * n_runs * n_draws < 256 else np.int32
    for j in range(n_findings):
        positive, negative = (np.flatnonzero(labels[:, j] == k) for k in (1, 0))
        if not len(positive) or not len(negative) or np.isnan(scores[:, :, j]).any():
            continue
        n_won = np.zeros((len(positive), len(negative)), kind)  # of each pair, in halves
        for r, d in np.ndindex(n_runs, n_draws):
            at = scores[r, :, j, d]
            runs[r, d, j], above, not_below = _won(at[positive], at[negative])
            n_won += above.view(np.uint8)
            n_won += not_below.view(np.uint8)
        of_pos, of_neg = weights[positive].astype(np.float32), weights[negative].astype(np.float32)
        won = (of_pos * (n_won.astype(np.float32) @ of_neg)).sum(0, dtype=np.float64) / 2
        pairs = of_pos.sum(0, dtype=np.float64) * of_neg.sum(0, dtype=np.float64) * n_runs * n_draws
        drawn[j] = np.where(pairs > 0, won / np.maximum(pairs, 1), np.nan)
    return drawn, runs
