"""Intervals that resample patients.

Studies of one patient are drawn together: four scans of one patient are not four patients. One
weight matrix serves every label and every model, so that differences are paired and a macro average
is recomputed inside each resample.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats

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


SHARES = (
    "auroc", "auprc", "f1", "recall", "dice", "brier", "bleu", "rouge2", "bertscore", "radgraph",
    "clinical_f1", "agreement",
)  # fmt: skip
METHODS = ("percentile", "bca", "t", "t of logarithm", "t of log odds")


def method_of(metric: str) -> str:
    """Which interval a metric of the results tables has: the one place where that is decided.

    Shares lie in [0, 1] and lean near its ends: Student's t on their log odds; distances on their
    logarithm; counts of labels above a limit have no smooth law and keep percentiles; all else,
    differences among them, on the scale as it is. `14_intervals` shows what each covers.
    """
    if metric.removeprefix("difference of ").startswith("n above"):
        return "percentile"
    if metric.startswith("distance"):
        return "t of logarithm"
    return "t of log odds" if metric.lower().startswith(SHARES) else "t"


def fewest(labels: np.ndarray, patient_ids: np.ndarray) -> np.ndarray:
    """Patients of the rarer class, for each label.

    Parameters
    ----------
    labels : (n_studies, n_labels) float
        1, 0 or NaN.
    patient_ids : (n_studies,) str

    Returns
    -------
    (n_labels,) int
    """
    ids = np.asarray(patient_ids).astype(str)
    counts = [[len(np.unique(ids[y == k])) for k in (0, 1)] for y in np.asarray(labels).T]
    return np.array(counts, int).reshape(-1, 2).min(1)


def limits(
    value: np.ndarray | list[float], resampled: np.ndarray, *, confidence: float = 0.95,
    method: str = "percentile", jackknife: np.ndarray | None = None,
    n: np.ndarray | float = np.inf,
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
    method : str
        `percentile`: quantiles of the resamples. `bca`: Efron's bias-corrected and accelerated ones (J.
        Am. Stat. Assoc. 82:171, 1987), which move them for bias and skew. `t`: Student's, from the
        standard deviation of the resamples; `t of logarithm` and `t of log odds`: on that scale, by the
        delta method.
    jackknife : (n, n_patients) float, optional
        The metrics with one patient left out (`jackknife_weights`); required for `bca`.
    n : float or (n,) float
        Patients behind each metric, for the t methods: degrees of freedom, and the resamples' spread,
        which is too small by the root of (n − 1) / n.

    Returns
    -------
    low, high : (n,) float
        NaN where the value is, or where half of the resamples were undefined. A share of 0 or 1 that no
        resample moves has Clopper and Pearson's interval of n patients, by `t of log odds`.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1); got {confidence}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}; got {method!r}")
    value, resampled = np.asarray(value, float), np.asarray(resampled, float)
    known = ~np.isnan(resampled)
    usable = ~np.isnan(value) & (2 * known.sum(1) > resampled.shape[1])
    out = np.full((2, len(value)), np.nan)
    if method.startswith("t"):
        n = np.maximum(np.broadcast_to(n, value.shape), 2).astype(float)[usable]
        out[:, usable] = _t_limits(value[usable], resampled[usable], method, confidence, n)
        return out[0], out[1]
    shares = np.tile([(1 - confidence) / 2, (1 + confidence) / 2], (len(value), 1))
    if method == "bca":
        if jackknife is None:
            raise ValueError("BCa intervals need the jackknife values")
        shares = _bca_shares(shares, value, resampled, np.asarray(jackknife, float))
    whole = usable & known.all(1) & (shares == shares[:1]).all(1)
    if whole.any():  # all at once where they ask for the same quantiles
        out[:, whole] = np.quantile(resampled[whole], shares[whole][0], axis=1)
    for i in np.flatnonzero(usable & ~whole):
        if np.isfinite(shares[i]).all():
            out[:, i] = np.quantile(resampled[i, known[i]], shares[i])
    return out[0], out[1]


def _t_limits(value, resampled, method, confidence, n):
    """(2, k) ends of t intervals; `n` patients each."""
    tail = (1 - confidence) / 2
    error = np.nanstd(resampled, axis=1, ddof=1) / np.sqrt(1 - 1 / n)
    half = stats.t.isf(tail, n - 1) * np.array([[-1.0], [1.0]]) * error
    if method == "t":
        return value + half
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if method == "t of logarithm":
            return np.where(value > 0, value * np.exp(half / value), value + half)
        ends = special.expit(special.logit(value) + half / (value * (1 - value)))
    inside = (value > 0) & (value < 1)
    ends = np.where(inside, ends, value + half)
    sure = ~inside & ((value == 0) | (value == 1)) & (error < 1e-12)
    bound = tail ** (1 / n)
    ends[0] = np.where(sure & (value == 1), bound, ends[0])
    ends[1] = np.where(sure & (value == 0), 1 - bound, ends[1])
    return ends


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
    jackknife: np.ndarray | None = None, n: float = np.inf,
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
        [value], resampled[None], confidence=confidence, method=method, n=n,
        jackknife=None if jackknife is None else np.asarray(jackknife, float)[None],
    )  # fmt: skip
    n_undefined = int(np.isnan(resampled).sum())
    return Estimate(float(value), float(low[0]), float(high[0]), len(resampled), n_undefined)


def of_metric(
    metric: str, found: np.ndarray, *, n: float, confidence: float = 0.95
) -> tuple[Estimate, str]:
    """Interval of a metric by the method that suits it, and that method.

    An AUPRC is scikit-learn's on the data and free of its lean on the resamples (`metrics.auprc`): the
    interval lies about their mean, and reaches to the value where that leans out of it.

    Parameters
    ----------
    metric : str
        As in a results table; what begins with `difference` is one.
    found : (1 + n_resamples,) float
        The value, then the resamples.
    n : float
        Patients behind it; of the rarer class, for a single label.
    """
    found, method = np.asarray(found, float), method_of(metric)
    if method != "percentile" and (found < 0).any():
        method = "t"  # a difference, whatever it is called
    if "auprc" not in metric or np.isnan(found).any():
        return interval(found[0], found[1:], method=method, n=n, confidence=confidence), method
    e = interval(found[1:].mean(), found[1:], method=method, n=n, confidence=confidence)
    return replace(e, value=found[0], low=min(e.low, found[0]), high=max(e.high, found[0])), method


def macro(values: np.ndarray, *, n_few: np.ndarray | None = None) -> np.ndarray:
    """Mean over labels inside each resample; a label that a resample lost is left out there.

    Parameters
    ----------
    values : (n_labels, 1 + n_resamples) float
    n_few : (n_labels,) int, optional
        From `fewest`, for AUROC and AUPRC: resamples of n positives spread too little by the root of
        (n − 1) / n, which is made good about the first column.

    Returns
    -------
    (1 + n_resamples,) float
    """
    if n_few is not None:
        short = np.sqrt(1 - 1 / np.maximum(n_few, 2))[:, None]
        values = values[:, :1] + (values - values[:, :1]) / short
    known = ~np.isnan(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
