"""Tests and intervals beside the bootstrap: DeLong and Wilson.

Small and without the rest of the package, so that they can be lifted. Shapes are those of `metrics`.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class DeLong:
    """AUROCs of one or several models on the same studies, and how they vary together.

    Attributes
    ----------
    auroc : (n_models,) float
    covariance : (n_models, n_models) float
    """

    auroc: np.ndarray
    covariance: np.ndarray

    def interval(self, model: int = 0, *, confidence: float = 0.95) -> tuple[float, float]:
        """Normal interval of one AUROC, cut to [0, 1]; NaN where `reason` says why there is none."""
        if self.reason(model):
            return np.nan, np.nan
        half = stats.norm.ppf((1 + confidence) / 2) * np.sqrt(self.covariance[model, model])
        return float(max(self.auroc[model] - half, 0)), float(min(self.auroc[model] + half, 1))

    def difference(
        self, one: int = 0, other: int = 1, *, confidence: float = 0.95
    ) -> tuple[float, float, float, float]:
        """`one` minus `other`: value, low, high, two-sided p.

        All but the value are NaN where `reason` says why.
        """
        gap = float(self.auroc[one] - self.auroc[other])
        if self.reason(one, other):
            return gap, np.nan, np.nan, np.nan
        error = np.sqrt(self._variance(one, other))
        half = stats.norm.ppf((1 + confidence) / 2) * error
        return gap, gap - half, gap + half, float(2 * stats.norm.sf(abs(gap) / error))

    def reason(self, one: int = 0, other: int | None = None) -> str:
        """Why an AUROC, or a difference of two, has no interval and no p; empty where it has.

        At 0 and 1 every pair is ranked alike, so the data show no variance; that is not certainty.
        """
        at_end = [m for m in (one, other) if m is not None and self.auroc[m] in (0.0, 1.0)]
        if at_end:
            values = " and ".join(f"{self.auroc[m]:g}" for m in at_end)
            return f"AUROC {values}: all pairs ranked alike, DeLong's variance is zero"
        if self._variance(one, other) > 1e-12:
            return ""
        what = "the AUROC" if other is None else "the difference: both models rank all pairs alike"
        return f"DeLong's variance is zero for {what}"

    def _variance(self, one, other):
        c = self.covariance
        if other is None:
            return c[one, one]
        return c[one, one] + c[other, other] - 2 * c[one, other]


def delong(scores: np.ndarray, labels: np.ndarray, patient_ids: np.ndarray | None = None) -> DeLong:
    """AUROC with DeLong's covariance, exact with ties.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44:837 (1988), by the midranks of Sun and Xu, IEEE
    Signal Process. Lett. 21:1389 (2014). With `patient_ids`, the covariance for clustered data of
    Obuchowski, Biometrics 53:567 (1997): studies of one patient are not independent.

    Parameters
    ----------
    scores : (n_studies,) or (n_studies, n_models) float
    labels : (n_studies,) float
        1, 0 or NaN (left out).
    patient_ids : (n_studies,) optional

    Returns
    -------
    DeLong

    Raises
    ------
    ValueError
        If a class has fewer than two studies (or patients, where they are given), a score is not finite, a
        label is not 1, 0 or NaN, or lengths differ.
    """
    scores = np.asarray(scores, float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    labels = np.asarray(labels, float)
    if labels.shape != scores.shape[:1] or len(scores) != len(
        labels if patient_ids is None else patient_ids
    ):
        n = "none" if patient_ids is None else len(patient_ids)
        raise ValueError(
            f"scores of {len(scores)} studies, labels {labels.shape}, patient_ids {n}: one each"
        )
    known = ~np.isnan(labels)
    odd = set(np.unique(labels[known])) - {0.0, 1.0}
    if odd:
        raise ValueError(f"labels must be 1, 0 or NaN; found {sorted(odd)[:5]}")
    scores, positive = scores[known], labels[known] == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        raise ValueError(f"DeLong needs two studies of each class; got {m} positive, {n} negative")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    x, y = scores[positive], scores[~positive]
    together = stats.rankdata(np.concatenate([x, y]), axis=0)
    # Of each positive the share of negatives below it, of each negative that of positives above.
    below = (together[:m] - stats.rankdata(x, axis=0)) / n
    above = 1 - (together[m:] - stats.rankdata(y, axis=0)) / m
    auroc = below.mean(0)
    if patient_ids is None:
        covariance = np.cov(below.T, ddof=1) / m + np.cov(above.T, ddof=1) / n
        return DeLong(auroc, np.atleast_2d(covariance))
    patients = np.asarray(patient_ids)[known]
    _, who = np.unique(patients, return_inverse=True)
    n_patients = who.max() + 1
    by_patient = []
    for part, rows in ((below, who[positive]), (above, who[~positive])):
        total = np.zeros((n_patients, scores.shape[1]))
        np.add.at(total, rows, part - auroc)
        by_patient.append(total)
    pos, neg = by_patient
    with_pos, with_neg = (len(np.unique(w)) for w in (who[positive], who[~positive]))
    if min(with_pos, with_neg) < 2:
        raise ValueError(
            f"DeLong needs two patients of each class; got {with_pos} positive, {with_neg} negative"
        )
    covariance = (
        pos.T @ pos * with_pos / (with_pos - 1) / m**2
        + neg.T @ neg * with_neg / (with_neg - 1) / n**2
        + (pos.T @ neg + neg.T @ pos) * n_patients / (n_patients - 1) / (m * n)
    )
    return DeLong(auroc, covariance)


def wilson(n_hits: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a proportion, for counts of independent things.

    Returns
    -------
    low, high : float
        NaN where `n` is 0.
    """
    if n == 0:
        return np.nan, np.nan
    low, high = proportion_confint(n_hits, n, alpha=1 - confidence, method="wilson")
    return float(low), float(high)
