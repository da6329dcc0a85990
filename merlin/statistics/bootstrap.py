"""Intervals that resample patients.

Studies of one patient are drawn together: four scans of one patient are not four patients. One
weight matrix serves every label and every model, so that differences are paired and a macro average
is recomputed inside each resample.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A value with its percentile interval."""

    value: float
    low: float
    high: float
    n_resamples: int
    n_undefined: int  # resamples in which the metric did not exist


def patient_weights(patient_ids, n_resamples, *, seed):
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
    rng = np.random.default_rng([seed, 1])
    weights = np.empty((n, n_resamples), np.uint8)
    for r in range(n_resamples):
        weights[:, r] = np.bincount(rng.integers(0, n, n), minlength=n)
    return weights[patient]


def interval(value, resampled, *, confidence=0.95):
    """Percentile interval of a metric from its resamples.

    Parameters
    ----------
    value : float
        The metric on the data as they are.
    resampled : (n_resamples,) float
        NaN where the metric did not exist in a resample; those are counted, not used.
    confidence : float
        In (0, 1).

    Returns
    -------
    Estimate
        `low` and `high` are NaN if the value is, or if half of the resamples were undefined.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1); got {confidence}")
    resampled = np.asarray(resampled, float)
    defined = resampled[~np.isnan(resampled)]
    low = high = np.nan
    if not np.isnan(value) and 2 * len(defined) > len(resampled):
        low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(
        float(value), float(low), float(high), len(resampled), len(resampled) - len(defined)
    )


def macro(values):
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
