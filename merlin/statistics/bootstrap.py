"""Intervals that resample patients.

Studies of one patient are drawn together: four scans of one patient are not four patients. One
weight matrix serves every label and every model, so that differences are paired and a macro average
is recomputed inside each resample.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from merlin.streams import Stream, stream_of


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    high: float
    n_resamples: int
    n_undefined: int  # resamples in which the metric did not exist


def patient_weights(patient_ids: np.ndarray, n_resamples: int, *, seed: int) -> np.ndarray:
    """How often each study is drawn in each resample of patients.

    Parameters
    ----------
    patient_ids : (n_studies,) str or int
    n_resamples : int
    seed : int

    Returns
    -------
    (n_studies, n_resamples) uint8
        Studies of one patient share their row.

    Raises
    ------
    ValueError
        If there are no studies, or a patient id is missing.
    """
    ids = np.asarray(patient_ids, dtype=object)
    if len(ids) == 0:
        raise ValueError("no studies to resample")
    if any(i is None or i != i for i in ids):
        raise ValueError("a patient id is missing; use the study id where patients are unknown")
    _, patient = np.unique(ids.astype(str), return_inverse=True)
    n = patient.max() + 1
    rng = stream_of(seed, Stream.RESAMPLES)
    weights = np.empty((n, n_resamples), np.uint8)
    for r in range(n_resamples):
        weights[:, r] = np.bincount(rng.integers(0, n, n), minlength=n)
    return weights[patient]


def jackknife_weights(patient_ids: np.ndarray) -> np.ndarray:
    """Weights that leave out one patient at a time, as BCa intervals need.

    Returns
    -------
    (n_studies, n_patients) uint8
    """
    _, patient = np.unique(np.asarray(patient_ids).astype(str), return_inverse=True)
    return (patient[:, None] != np.arange(patient.max() + 1)).astype(np.uint8)


def limits(
    value: np.ndarray | list[float], resampled: np.ndarray, *, confidence: float = 0.95,
    method: str = "percentile", jackknife: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Ends of bootstrap intervals, for many metrics at once.

    Parameters
    ----------
    value : (n,) float
        The metrics on the data as they are.
    resampled : (n, n_resamples) float
        NaN where a metric did not exist in a resample; those are not used.
    confidence : float
        In (0, 1).
    method : {"percentile", "bca"}
        Quantiles of the resamples, or Efron's bias-corrected and accelerated ones (J. Am. Stat.
        Assoc. 82:171, 1987), which move them for bias and skew.
    jackknife : (n, n_patients) float, optional
        The metrics with one patient left out (`jackknife_weights`); required for `bca`.

    Returns
    -------
    low, high : (n,) float
        NaN where the value is, or where half of the resamples were undefined.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1); got {confidence}")
    if method not in ("percentile", "bca"):
        raise ValueError(f"method must be 'percentile' or 'bca'; got {method!r}")
    value, resampled = np.asarray(value, float), np.asarray(resampled, float)
    known = ~np.isnan(resampled)
    usable = ~np.isnan(value) & (2 * known.sum(1) > resampled.shape[1])
    shares = np.tile([(1 - confidence) / 2, (1 + confidence) / 2], (len(value), 1))
    if method == "bca":
        if jackknife is None:
            raise ValueError("BCa intervals need the jackknife values")
        shares = _bca_shares(shares, value, resampled, np.asarray(jackknife, float))
    out = np.full((2, len(value)), np.nan)
    whole = usable & known.all(1) & (shares == shares[:1]).all(1)
    if whole.any():  # all at once where they ask for the same quantiles
        out[:, whole] = np.quantile(resampled[whole], shares[whole][0], axis=1)
    for i in np.flatnonzero(usable & ~whole):
        if np.isfinite(shares[i]).all():
            out[:, i] = np.quantile(resampled[i, known[i]], shares[i])
    return out[0], out[1]


def _bca_shares(shares, value, resampled, jackknife):
    """Which quantiles BCa takes in place of the plain ones; NaN where resamples show no spread."""
    n = (~np.isnan(resampled)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        below = (
            (resampled < value[:, None]).sum(1) + 0.5 * (resampled == value[:, None]).sum(1)
        ) / n
        bias = stats.norm.ppf(below)
        gap = np.nanmean(jackknife, axis=1, keepdims=True) - jackknife
        skew = np.nansum(gap**3, 1) / (6 * np.nansum(gap**2, 1) ** 1.5)
        z = bias[:, None] + stats.norm.ppf(shares)
        return stats.norm.cdf(bias[:, None] + z / (1 - skew[:, None] * z))


def interval(
    value: float, resampled: np.ndarray, *, confidence: float = 0.95, method: str = "percentile",
    jackknife: np.ndarray | None = None,
) -> Estimate:  # fmt: skip
    """Interval of one metric from its resamples; parameters as in `limits`, for a single metric.

    Returns
    -------
    Estimate
        `low` and `high` are NaN if the value is, or if half of the resamples were undefined;
        undefined resamples are counted, not used.
    """
    resampled = np.asarray(resampled, float)
    low, high = limits(
        [value], resampled[None], confidence=confidence, method=method,
        jackknife=None if jackknife is None else np.asarray(jackknife, float)[None],
    )  # fmt: skip
    n_undefined = int(np.isnan(resampled).sum())
    return Estimate(float(value), float(low[0]), float(high[0]), len(resampled), n_undefined)


def macro(values: np.ndarray) -> np.ndarray:
    """Mean over labels inside each resample; a label that a resample lost is left out there.

    Parameters
    ----------
    values : (n_labels, n_resamples) float

    Returns
    -------
    (n_resamples,) float
    """
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
