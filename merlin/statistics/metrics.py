"""AUROC, average precision and F1 for many labels and many resamples at once, exact with ties and missing labels.

All functions take weights, one column a resample: a study's weight is how often its patient was
drawn. A column of ones gives the plain metric. Labels are 1, 0 or NaN (unknown, left out).
"""

import numpy as np

from merlin.compiled import njit


@njit()
def _auroc(order, ties, labels, weights, out):
    n, n_labels = order.shape
    n_resamples = weights.shape[1]
    for f in range(n_labels):
        below = np.zeros(n_resamples)  # weight of negatives with a smaller score
        positives = np.zeros(n_resamples)
        area = np.zeros(n_resamples)
        here_pos = np.zeros(n_resamples)  # within the current group of equal scores
        here_neg = np.zeros(n_resamples)
        for i in range(n):
            study = order[i, f]
            label = labels[study, f]
            if label == 1:
                for r in range(n_resamples):
                    here_pos[r] += weights[study, r]
            elif label == 0:
                for r in range(n_resamples):
                    here_neg[r] += weights[study, r]
            if not ties[i, f]:
                for r in range(n_resamples):
                    area[r] += here_pos[r] * (below[r] + 0.5 * here_neg[r])
                    below[r] += here_neg[r]
                    positives[r] += here_pos[r]
                    here_pos[r] = 0.0
                    here_neg[r] = 0.0
        for r in range(n_resamples):
            pairs = positives[r] * below[r]
            out[f, r] = area[r] / pairs if pairs > 0 else np.nan


def auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve per label and resample.

    Parameters
    ----------
    scores : (n_studies, n_labels) float
        Higher means present; finite.
    labels : (n_studies, n_labels) float
        1, 0 or NaN.
    weights : (n_studies, n_resamples) int, optional
        Default: one column of ones.

    Returns
    -------
    (n_labels, n_resamples) float
        In [0, 1]; NaN where a resample holds only one class. Equal scores count one half.

    Raises
    ------
    ValueError
        If shapes disagree or a score is not finite.
    """
    scores, labels, weights = _checked(scores, labels, weights)
    return _by_rank(_auroc, scores, labels, weights)


def _by_rank(kernel, scores, labels, weights):
    """Run a kernel over studies in rising order of score."""
    order = np.argsort(scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    ties = np.zeros(order.shape, bool)  # equal to the next one
    ties[:-1] = ranked[1:] == ranked[:-1]
    codes = np.where(np.isnan(labels), -1, labels).astype(np.int8)
    out = np.empty((scores.shape[1], weights.shape[1]))
    kernel(order, ties, codes, weights, out)
    return out


@njit()
def _average_precision(order, ties, labels, weights, out):
    n, n_labels = order.shape
    n_resamples = weights.shape[1]
    for f in range(n_labels):
        hits = np.zeros(n_resamples)  # weight of positives called so far
        called = np.zeros(n_resamples)
        area = np.zeros(n_resamples)
        here = np.zeros(n_resamples)  # positives within the current group of equal scores
        for i in range(n - 1, -1, -1):
            study = order[i, f]
            label = labels[study, f]
            if label >= 0:
                for r in range(n_resamples):
                    w = weights[study, r]
                    called[r] += w
                    if label == 1:
                        here[r] += w
            if i == 0 or not ties[i - 1, f]:
                for r in range(n_resamples):
                    if here[r] > 0:
                        hits[r] += here[r]
                        area[r] += here[r] * hits[r] / called[r]
                        here[r] = 0.0
        for r in range(n_resamples):
            out[f, r] = area[r] / hits[r] if 0 < hits[r] < called[r] else np.nan


def average_precision(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Average precision (area under the precision-recall steps, AUPRC) per label and resample.

    Parameters and errors as `auroc`.

    Returns
    -------
    (n_labels, n_resamples) float
        NaN where a resample holds only one class. Chance is the prevalence, not one half.
    """
    scores, labels, weights = _checked(scores, labels, weights)
    return _by_rank(_average_precision, scores, labels, weights)


@njit()
def _auprc(order, ties, labels, weights, out):
    n, n_labels = order.shape
    n_resamples = weights.shape[1]
    for f in range(n_labels):
        positives = np.zeros(n_resamples)
        for study in np.flatnonzero(labels[:, f] == 1):
            positives += weights[study]
        hits, called, area = np.zeros(n_resamples), np.zeros(n_resamples), np.zeros(n_resamples)
        heaviest = np.zeros(n_resamples)  # of those called so far
        begun = np.zeros(n_resamples, np.int8)
        group = n  # end of the current group of equal scores
        for i in range(n - 1, -1, -1):
            study = order[i, f]
            if labels[study, f] >= 0:
                called += weights[study]
                heaviest = np.maximum(heaviest, weights[study])
            if labels[study, f] == 1:
                hits += weights[study]
            if i == 0 or not ties[i - 1, f]:
                for r in range(n_resamples):
                    if begun[r] or called[r] - heaviest[r] >= 1 or i == 0:
                        end = group if begun[r] else n
                        for k in range(i, end):
                            if labels[order[k, f], f] == 1:
                                own = weights[order[k, f], r]
                                area[r] += own * _precision(own, positives[r], hits[r], called[r])
                        begun[r] = 1
                group = i
        for r in range(n_resamples):
            out[f, r] = area[r] / hits[r] if 0 < hits[r] < called[r] else np.nan


@njit()
def _precision(own, positives, hits, called):
    """Precision by all but a positive itself, at the prevalence with it."""
    false, others = called - hits, positives - own
    if others <= 0 or hits - own + false <= 0:
        return 0.0
    above = (hits - own) * positives / others
    return above / (above + false)


def auprc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the precision-recall curve, free of what average precision owes to its small sample.

    Average precision counts each positive as a hit at its own threshold, so that chance lies above the
    prevalence: by 0.01 with 500 studies, by 0.04 with ten positives of 120. Here a positive's precision
    is that of the others, with the prevalence kept; the topmost, above which there is nobody, is judged
    with those next below. In simulation the mean lies within 0.007 of the population's.

    Parameters, errors and result as `average_precision`.
    """
    scores, labels, weights = _checked(scores, labels, weights)
    return _by_rank(_auprc, scores, labels, weights)


def f1(predicted: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """F1 of the positive class per label and resample.

    Parameters
    ----------
    predicted : (n_studies, n_labels) bool
    labels : (n_studies, n_labels) float
        1, 0 or NaN.
    weights : (n_studies, n_resamples) int, optional

    Returns
    -------
    (n_labels, n_resamples) float
        2 TP / (2 TP + FP + FN); NaN where a resample has no positive label.
    """
    predicted, labels, weights = _checked(np.asarray(predicted, float), labels, weights)
    weights = weights.astype(np.float64)
    positive, known = labels == 1, ~np.isnan(labels)
    hit = ((predicted == 1) & positive).T @ weights
    called = ((predicted == 1) & known).T @ weights
    present = positive.T @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        value = 2 * hit / (called + present)
    return np.where(present > 0, value, np.nan)


def _checked(scores, labels, weights):
    scores, labels = np.asarray(scores, float), np.asarray(labels, float)
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(
            f"scores {scores.shape} and labels {labels.shape} must both be (n_studies, n_labels)"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite")
    odd = set(np.unique(labels[~np.isnan(labels)])) - {0.0, 1.0}
    if odd:
        raise ValueError(f"labels must be 1, 0 or NaN; found {sorted(odd)[:5]}")
    if weights is None:
        weights = np.ones((len(scores), 1), np.int32)
    weights = np.ascontiguousarray(weights)
    if weights.ndim != 2 or len(weights) != len(scores):
        raise ValueError(f"weights {weights.shape} must be ({len(scores)}, n_resamples)")
    return scores, labels, weights


def best_f1_threshold(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Threshold per label that maximises F1; choose it on validation, use it on test.

    Parameters
    ----------
    scores, labels : (n_studies, n_labels) float

    Returns
    -------
    (n_labels,) float
        Midway between the two scores it separates; NaN where no label is positive.
    """
    scores, labels, _ = _checked(scores, labels, None)
    out = np.full(scores.shape[1], np.nan)
    for j in range(scores.shape[1]):
        known = ~np.isnan(labels[:, j])
        order = np.argsort(-scores[known, j], kind="stable")
        s, y = scores[known, j][order], labels[known, j][order]
        if y.sum() == 0:
            continue
        value = 2 * np.cumsum(y) / (np.arange(1, len(y) + 1) + y.sum())
        value[:-1][s[1:] == s[:-1]] = -1  # a threshold can't stand between equal scores
        k = int(value.argmax())
        # Scores above the threshold are positive: it must stay below s[k], whatever the rounding.
        middle = 0.5 * (s[k] + s[k + 1]) if k + 1 < len(s) else np.nextafter(s[k], -np.inf)
        out[j] = middle if middle < s[k] else s[k + 1]
    return out
