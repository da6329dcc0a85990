"""Rows of the common result schema, and weights whose first column is the data as they are."""

import numpy as np

from merlin.statistics import bootstrap


def resampling(patient_ids, n_resamples, *, seed):
    """(n_studies, 1 + n_resamples) uint8: a column of ones, then resamples of patients.

    The same patients and seed give the same resamples for every model and metric, so differences
    between them are paired.
    """
    weights = bootstrap.patient_weights(patient_ids, n_resamples, seed=seed)
    return np.concatenate([np.ones((len(weights), 1), weights.dtype), weights], axis=1)


def row(label, metric, found, *, known, patient_ids, n_positive, reason="", is_ok=True, **more):
    """One row of the common schema.

    Parameters
    ----------
    label, metric : str
    found : (1 + n_resamples,) float
        The value on the data as they are, then on each resample.
    known : (n_studies,) bool
        Studies that count.
    patient_ids : (n_studies,) str
    n_positive : int
    reason : str
        Why there is no value, or what was left out of it.
    is_ok : bool
    **more
        Further columns.
    """
    estimate = bootstrap.interval(found[0], found[1:])
    if not is_ok:
        estimate = bootstrap.interval(np.nan, found[1:])
    return dict(
        label=label,
        metric=metric,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n_studies=int(np.sum(known)),
        n_patients=len(set(np.asarray(patient_ids)[known])),
        n_positive=int(n_positive),
        status="ok" if is_ok else "not evaluated",
        reason=reason,
        **more,
    )


def missing(label, metric, reason, *, n_studies=0, n_patients=0, n_positive=0, **more):
    """A row for what could not be evaluated, with its reason and counts."""
    return dict(
        label=label,
        metric=metric,
        value=np.nan,
        low=np.nan,
        high=np.nan,
        n_studies=n_studies,
        n_patients=n_patients,
        n_positive=n_positive,
        status="not evaluated",
        reason=reason,
        **more,
    )


def difference(one, other):
    """Paired difference of two metrics on the same resamples: value, low, high.

    Parameters
    ----------
    one, other : (1 + n_resamples,) float
    """
    gap = np.asarray(one) - np.asarray(other)
    estimate = bootstrap.interval(gap[0], gap[1:])
    return estimate.value, estimate.low, estimate.high


def has_both(labels):
    """Whether known labels hold both classes."""
    return bool((labels == 1).any() and (labels == 0).any())
