"""5-year disease prediction: the still healthy, and who of them is diagnosed within five years.

Label codes are the data release's: 0 free of the disease with five years of follow-up, 1 first
diagnosed within five years, 2 diagnosed before the scan, 3 lost to follow-up (paper_facts §5.4).
2 and 3 are excluded disease by disease, not patient by patient.
"""

import numpy as np
import pandas as pd

from merlin.evaluation import results
from merlin.statistics import bootstrap, metrics

CODES = {
    0: "free for 5 years",
    1: "diagnosed within 5 years",
    2: "diagnosed before",
    3: "lost to follow-up",
}


def labels_from_codes(codes):
    """(n, n_diseases) codes → 1, 0, NaN (excluded).

    Raises
    ------
    ValueError
        On a code other than 0 to 3 or missing, with its count.
    """
    codes = np.asarray(codes, float)
    odd = ~np.isin(codes, list(CODES)) & ~np.isnan(codes)
    if odd.any():
        raise ValueError(
            f"{int(odd.sum())} five-year codes are not 0, 1, 2 or 3: {np.unique(codes[odd])[:5]}"
        )
    return np.where(codes == 0, 0.0, np.where(codes == 1, 1.0, np.nan))


def flow(table, diseases):
    """Studies by disease, split and code, for the cohort flow.

    Parameters
    ----------
    table : DataFrame
        `split` and `five_year_<disease>` columns.
    """
    rows = [
        dict(
            disease=d, split=s, code=code, meaning=CODES[code], n_studies=int((part == code).sum())
        )
        for d in diseases
        for s, part in table.groupby("split", sort=False)[f"five_year_{d}"]
        for code in CODES
    ]
    return pd.DataFrame(rows)


def evaluate(
    probability, labels, patient_ids, diseases, *, model, split, min_events=5, n_resamples, seed
):
    """AUROC, AUPRC and Brier score per disease and their means.

    Parameters
    ----------
    probability, labels : (n, n_diseases) float
        Labels 1, 0 or NaN. A disease with a NaN probability is not evaluated.
    min_events : int
        Positives (and negatives) below which a disease is not evaluated.

    Returns
    -------
    table : DataFrame
    resampled : dict of (label, metric) to (1 + n_resamples,) float
    """
    weights = results.resampling(patient_ids, n_resamples, seed=seed)
    known = ~np.isnan(labels)
    n_positive, n_negative = (labels == 1).sum(0), (labels == 0).sum(0)
    is_predicted = ~np.isnan(probability).any(0)
    enough = (np.minimum(n_positive, n_negative) >= min_events) & is_predicted
    rows, resampled = [], {}
    measures = {
        "auroc": metrics.auroc,
        "auprc": metrics.average_precision,
        "brier": brier,
    }
    for metric, measure in measures.items():
        found = np.full((len(diseases), weights.shape[1]), np.nan)
        if enough.any():
            found[enough] = measure(probability[:, enough], labels[:, enough], weights)
        for j, name in enumerate(diseases):
            few = f"{n_positive[j]} events among {known[:, j].sum()} studies; {min_events} needed"
            if not is_predicted[j]:
                few = "no probability: the training labels are of one class"
            resampled[name, metric] = found[j]
            rows.append(
                results.row(
                    name,
                    metric,
                    found[j],
                    known=known[:, j],
                    patient_ids=patient_ids,
                    n_positive=n_positive[j],
                    is_ok=bool(enough[j]),
                    reason="" if enough[j] else few,
                )
            )
        resampled["mean", metric] = bootstrap.macro(found)
        rows.append(
            results.row(
                "mean",
                metric,
                resampled["mean", metric],
                known=known.any(1),
                patient_ids=patient_ids,
                n_positive=n_positive[enough].sum(),
                is_ok=bool(enough.any()),
                reason="" if enough.all() else f"{int((~enough).sum())} diseases not evaluated",
            )
        )
    table = pd.DataFrame(rows)
    table.insert(0, "task", "5-year disease")
    return table.assign(model=model, split=split), resampled


def mean_difference(ours, other, diseases, metric="auroc"):
    """Paired difference of two models' means over the diseases that both were evaluated on.

    Parameters
    ----------
    ours, other : dict of (label, metric) to (1 + n_resamples,) float
        The second result of `evaluate`, on the same resamples.

    Returns
    -------
    value, low, high : float
    """
    found = np.array([[m[d, metric] for d in diseases] for m in (ours, other)])
    both = ~np.isnan(found[:, :, 0]).any(0)
    return results.difference(*(bootstrap.macro(part[both]) for part in found))


def brier(probability, labels, weights):
    """Mean squared error of probabilities over known labels, (n_diseases, n_resamples)."""
    known = ~np.isnan(labels)
    error = np.where(known, (probability - np.nan_to_num(labels)) ** 2, 0.0)
    weights = weights.astype(np.float64)
    total = known.astype(float).T @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, error.T @ weights / total, np.nan)


def reliability(probability, labels, *, n_bins=5):
    """Predicted against observed risk in equal-width bins over [0, 1]; the last bin holds 1.

    Parameters
    ----------
    probability, labels : (n,) float
        Of one disease, or pooled; NaN labels sit out.

    Returns
    -------
    DataFrame
        `low, high, predicted, observed, n, n_events, observed_low, observed_high` of bins that
        hold studies; Wilson intervals, which take studies as independent.
    """
    from statsmodels.stats.proportion import proportion_confint

    known = ~np.isnan(labels)
    p, y = probability[known], labels[known]
    if len(p) and (p.min() < 0 or p.max() > 1):
        raise ValueError(f"probabilities must lie in [0, 1]; found {p.min():.3g} to {p.max():.3g}")
    edges = np.linspace(0, 1, n_bins + 1)
    where = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, n_bins - 1)
    rows = []
    for b in range(n_bins):
        inside = where == b
        if inside.any():
            n, events = int(inside.sum()), int(y[inside].sum())
            low, high = proportion_confint(events, n, method="wilson")
            rows.append(
                (edges[b], edges[b + 1], p[inside].mean(), events / n, n, events, low, high)
            )
    names = "low high predicted observed n n_events observed_low observed_high".split()
    return pd.DataFrame(rows, columns=names)
