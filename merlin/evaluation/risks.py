"""Are probabilities risks, and would acting on them help? Recalibration by disease, and decision curves.

Shapes are those of `five_year`: probabilities (n_seeds, n, n_diseases), labels (n, n_diseases) of 1, 0 or
NaN, weights (n, 1 + n_resamples) whose first column is ones.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from merlin.evaluation import results
from merlin.statistics import bootstrap, seeds

FEW = 100  # events, or studies without: fewer do not tell (Collins et al., Stat. Med. 35:214, 2016)
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def recalibrated(
    probability: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of logit(observed) on logit(predicted), in each resample.

    The slope is 1 for risks of the right spread, below 1 where predictions are too extreme. The intercept
    is taken with the slope held at 1 (calibration in the large): 0 if the mean risk is right, above 0 where
    risks are too low (Van Calster et al., BMC Med. 17:230, 2019).

    Parameters
    ----------
    probability, labels : (n,) float
        Labels 1, 0 or NaN.
    weights : (n, n_resamples) int

    Returns
    -------
    slope, intercept : (n_resamples,) float
        NaN where a resample holds one class, or separates the classes.
    """
    known = ~np.isnan(labels)
    x = logit(np.clip(probability[known], 1e-6, 1 - 1e-6))[:, None]
    y, w = labels[known][:, None], weights[known].astype(float)
    n_positive, n = (w * y).sum(0), w.sum(0)
    both = (n_positive > 0) & (n_positive < n)
    w = np.where(both, w, 1.0)  # of one class: fitted to all, and left out below
    start = _newton(x, y, np.ones_like(y), np.array([[0.0], [1.0], [0.0]]), n_steps=30)
    _, slope, intercept = _newton(x, y, w, start, n_steps=8)
    least, most = (np.where(w * (y == v) > 0, x, far) for v, far in ((1, np.inf), (0, -np.inf)))
    above = least.min(0) >= most.max(0)  # events above all others: no slope is steep enough
    least, most = (np.where(w * (y == v) > 0, x, far) for v, far in ((0, np.inf), (1, -np.inf)))
    is_separated = above | (least.min(0) >= most.max(0))
    return np.where(both & ~is_separated, slope, np.nan), np.where(both, intercept, np.nan)


def _newton(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, start: np.ndarray, *, n_steps: int
) -> np.ndarray:
    """(3, n_resamples): intercept and slope together, then the intercept alone with slope 1."""
    a, b, alone = np.repeat(start, w.shape[1] // start.shape[1], 1)
    for _ in range(n_steps):
        p, q = expit(a + b * x), expit(alone + x)
        error, spread = w * (y - p), w * p * (1 - p)
        tilted = spread * x
        g0, g1, h0, h1, h2 = (
            part.sum(0) for part in (error, error * x, spread, tilted, tilted * x)
        )
        d = np.maximum(h0 * h2 - h1**2, 1e-12)
        a = a + np.clip((h2 * g0 - h1 * g1) / d, -2, 2)
        b = b + np.clip((h0 * g1 - h1 * g0) / d, -2, 2)
        rest = np.maximum((w * q * (1 - q)).sum(0), 1e-12)
        alone = alone + np.clip((w * (y - q)).sum(0) / rest, -2, 2)
    return np.stack([a, b, alone])


def recalibration(
    probabilities: Mapping[str, np.ndarray], labels: np.ndarray, patient_ids: np.ndarray,
    diseases: Collection[str], *,
    min_events: int, n_resamples: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """`recalibrated` by disease and over all pairs of study and disease (`all`).

    Parameters
    ----------
    probabilities : dict of str to (n_seeds, n, n_diseases) float
    labels : (n, n_diseases) float

    Returns
    -------
    DataFrame
        Rows as `results.row` makes them, and `start`, the model; metric `slope` or `intercept`; `reason`
        says where there are too few events, or studies without, to tell.
    """
    weights = results.resampling(patient_ids, n_resamples, seed=seed)
    each = [slice(j, j + 1) for j in range(labels.shape[1])]
    parts = [*zip(diseases, each, strict=True), ("all", slice(None))]
    rows = []
    for (start, runs), (name, part) in product(probabilities.items(), parts):
        p, y = runs[:, :, part], labels[:, part]
        n_each = [int((y == v).sum()) for v in (0, 1)]
        is_ok = min(n_each) >= min_events and bool(np.isfinite(p).all())
        flat, repeated = y.ravel(), np.repeat(weights, y.shape[1], 0)
        few = f"{min(n_each)} events or studies without, fewer than {FEW}: too few to tell"
        counted = dict(
            known=~np.isnan(flat), patient_ids=np.repeat(patient_ids, y.shape[1]), is_ok=is_ok,
            n_positive=n_each[1], reason="" if min(n_each) >= FEW else few, start=start,
        )  # fmt: skip
        nothing = np.full((2, weights.shape[1]), np.nan)
        found = [recalibrated(s.ravel(), flat, repeated) if is_ok else nothing for s in p]
        for metric, drawn in zip(("slope", "intercept"), np.stack(found, 1), strict=True):
            rows.append(results.row(name, metric, drawn, **counted))
    return pd.DataFrame(rows)


def net_benefit(
    probability: np.ndarray, labels: np.ndarray, weights: np.ndarray, threshold: float
) -> np.ndarray:
    """Hits less false alarms, the latter at the odds of the threshold, a study (Vickers and Elkin, 2006).

    Parameters
    ----------
    probability, labels : (n, n_diseases) float
    weights : (n, n_resamples) int
    threshold : float
        In (0, 1): the risk from which one would act.

    Returns
    -------
    (n_diseases, n_resamples) float
        NaN where a disease has no known label.
    """
    known = ~np.isnan(labels)
    called = (probability >= threshold) & known
    weights = weights.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        hits, alarms = ((called & (labels == v)).T @ weights for v in (1, 0))
        return (hits - alarms * threshold / (1 - threshold)) / (known.T @ weights)


def decision_curve(
    probabilities: Mapping[str, np.ndarray], labels: np.ndarray, patient_ids: np.ndarray, *,
    thresholds: Sequence[float] = THRESHOLDS, n_resamples: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Net benefit by threshold of each model, and of treating all; treating none has 0.

    Parameters
    ----------
    probabilities : dict of str to (n_seeds, n, n_diseases) or (n, n_diseases) float
    labels : (n, n_diseases) float

    Returns
    -------
    DataFrame
        `start, threshold, value, low, high`, the mean over diseases in the units of hits a study, and
        `gain, gain_low, gain_high`: what it is above the better of treating all and none, with the
        interval of a paired difference (`results.difference`); neither of the two was trained.
    """
    weights = results.resampling(patient_ids, n_resamples, seed=seed)
    models = {"treat all": np.ones_like(labels), **probabilities}
    usable = (labels == 1).any(0) & (labels == 0).any(0)
    for p in models.values():
        usable &= np.isfinite(p).all(tuple(range(p.ndim - 1)))
    rows, n_patients = [], len(set(patient_ids))
    for t in thresholds:
        everyone = bootstrap.macro(net_benefit(models["treat all"], labels, weights, t)[usable])
        better = np.maximum(everyone, 0)
        for name, p in models.items():
            runs = p[None] if p.ndim == 2 else p
            benefit = [net_benefit(run, labels, weights, t)[usable] for run in runs]
            drawn = np.stack([bootstrap.macro(b) for b in benefit])
            e = seeds.over_seeds(drawn)
            gain = results.difference(drawn, better, "net benefit", n=n_patients, is_trained=False)
            rows.append((name, t, e.value, e.low, e.high, *results.ends(gain)))
    names = ["start", "threshold", "value", "low", "high", "gain", "gain_low", "gain_high"]
    return pd.DataFrame(rows, columns=names)
