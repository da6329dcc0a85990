"""5-year disease prediction: the still healthy, and who of them is diagnosed within five years.

Label codes are the data release's: 0 free of the disease with five years of follow-up, 1 first
diagnosed within five years, 2 diagnosed before the scan, 3 lost to follow-up (paper_facts §5.4).
2 and 3 are excluded disease by disease, not patient by patient.
"""

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from merlin.evaluation import results
from merlin.evaluation.readings import excludes_zero, with_interval
from merlin.statistics import bootstrap, metrics, seeds

Drawn = dict[tuple[str, str], np.ndarray]  # (label, metric) → (n_seeds, 1 + n_resamples)

CODES = {
    0: "free for 5 years",
    1: "diagnosed within 5 years",
    2: "diagnosed before",
    3: "lost to follow-up",
}


def labels_of(studies: pd.DataFrame, diseases: Collection[str]) -> np.ndarray:
    """(n, n_diseases) labels of a manifest's studies, as `labels_from_codes`."""
    return labels_from_codes(studies[[f"five_year_{d}" for d in diseases]])


def labels_from_codes(codes: np.ndarray | pd.DataFrame) -> np.ndarray:
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


def flow(table: pd.DataFrame, diseases: Collection[str]) -> pd.DataFrame:
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
    probability: np.ndarray, labels: np.ndarray, patient_ids: np.ndarray, diseases: Collection[str], *,
    model: str, split: str, min_events: int = 5, n_resamples: int, seed: int,
) -> tuple[pd.DataFrame, Drawn]:  # fmt: skip
    """AUROC, AUPRC and Brier score per disease and their means.

    Parameters
    ----------
    probability : (n, n_diseases) or (n_seeds, n, n_diseases) float
        Of one training, or of several that differ in their seed. A disease with a NaN probability is not
        evaluated.
    labels : (n, n_diseases) float
        1, 0 or NaN.
    min_events : int
        Positives (and negatives) below which a disease is not evaluated.

    Returns
    -------
    table : DataFrame
        With `n_seeds` and `by_seed`; values are means over seeds, intervals of patients and seeds.
    resampled : dict of (label, metric) to (n_seeds, 1 + n_resamples) float
    """
    probability = probability[None] if probability.ndim == 2 else probability
    weights = results.resampling(patient_ids, n_resamples, seed=seed)
    known = ~np.isnan(labels)
    n_positive, n_negative = (labels == 1).sum(0), (labels == 0).sum(0)
    is_predicted = ~np.isnan(probability).any((0, 1))
    enough = (np.minimum(n_positive, n_negative) >= min_events) & is_predicted
    few = [
        f"{n} events among {of} studies; {min_events} needed"
        for n, of in zip(n_positive, known.sum(0), strict=True)
    ]
    reasons = np.where(is_predicted, few, "no probability: the training labels are of one class")
    reasons = np.where(enough, "", reasons)
    lost = "" if enough.all() else f"{int((~enough).sum())} diseases not evaluated"
    rarer = bootstrap.fewest(labels, patient_ids)
    rows: list[dict] = []
    resampled: Drawn = {}
    measures: dict[str, Callable[..., np.ndarray]] = {
        "auroc": metrics.auroc, "auprc": results.auprc, "brier": brier,
    }  # fmt: skip
    for metric, measure in measures.items():
        found = np.full((len(probability), len(diseases), weights.shape[1]), np.nan)
        if enough.any():
            for s, p in enumerate(probability):
                found[s, enough] = measure(p[:, enough], labels[:, enough], weights)
        for j, name in enumerate(diseases):
            resampled[name, metric] = found[:, j]
            rows.append(
                results.row(
                    name, metric, found[:, j], known=known[:, j], patient_ids=patient_ids,
                    n_positive=n_positive[j], is_ok=bool(enough[j]), reason=str(reasons[j]),
                    n_few=None if metric == "brier" else int(rarer[j]),
                )
            )  # fmt: skip
        n_few = None if metric == "brier" else rarer
        means = [bootstrap.macro(f, n_few=n_few) for f in found]
        resampled["mean", metric] = np.stack(means)
        rows.append(
            results.row(
                "mean", metric, resampled["mean", metric], known=known.any(1),
                patient_ids=patient_ids, n_positive=n_positive[enough].sum(),
                is_ok=bool(enough.any()), reason=lost,
            )
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table.insert(0, "task", "5-year disease")
    return table.assign(model=model, split=split), resampled


def by_study(
    predicted: dict[tuple[str, float], np.ndarray], ids: pd.DataFrame, diseases: Collection[str]
) -> pd.DataFrame:
    """A row a study, disease, start, share and seed, with its `probability`; `ids` names the studies."""
    tables = []
    for (start, fraction), runs in predicted.items():
        for seed, p in enumerate(runs):
            wide = ids.join(pd.DataFrame(p, columns=list(diseases)))
            part = wide.melt([*ids], var_name="disease", value_name="probability")
            tables.append(part.assign(start=start, fraction=fraction, seed=seed))
    return pd.concat(tables, ignore_index=True)


def by_start(
    predicted: dict[tuple[str, float], np.ndarray],
    labels: np.ndarray,
    patient_ids: np.ndarray,
    diseases: Collection[str],
    **options: int,
) -> tuple[pd.DataFrame, dict]:
    """`evaluate` on the test split for every beginning, or rival, and share of the labels.

    Parameters
    ----------
    predicted : dict of (start, fraction) to (n, n_diseases) or (n_seeds, n, n_diseases) float
    labels : (n, n_diseases) float
    **options
        `min_events, n_resamples, seed` of `evaluate`.

    Returns
    -------
    table : DataFrame
        With columns `start` and `fraction`.
    drawn : dict of (start, fraction) to resamples
    """
    tables, drawn = [], {}
    for (start, fraction), p in predicted.items():
        made, drawn[start, fraction] = evaluate(
            p,
            labels,
            patient_ids,
            diseases,
            model=f"{start}, {fraction:.0%}",
            split="test",
            **options,
        )
        tables.append(made.assign(start=start, fraction=fraction))
    return pd.concat(tables, ignore_index=True), drawn


OTHERS = ("ehr", "inflated", "random")  # beginnings that ours is held against
AGAINST = (  # further pairs: what was done, and the rival that may be simpler
    ("merlin_frozen", "random"),
    ("merlin", "age_sex"),
    ("merlin_frozen", "age_sex"),
    ("random", "age_sex"),
    ("merlin_frozen_person", "age_sex"),
    ("merlin_frozen", "organs"),
    ("merlin", "organs"),
    ("merlin_frozen_person", "organs_person"),
    ("organs_person", "age_sex"),
)


def paired(drawn: dict[tuple[str, float], dict], diseases: Collection[str]) -> pd.DataFrame:
    """Differences of mean AUROC: our pretraining minus each other beginning, and networks minus rivals.

    Beginnings are held against each other both tuned or both frozen, then as in `AGAINST`.

    Parameters
    ----------
    drawn : dict of (start, fraction) to resamples
        From `by_start`; pairs of which one is not there are left out.

    Returns
    -------
    DataFrame
        `ours, other, fraction`, and what `results.difference` gives. The spread between seeds is pooled over all
        that were trained on the same share of the labels: three runs alone would say little of it.
    """
    pairs = [("merlin", other) for other in OTHERS]
    pairs += [("merlin_frozen", f"{other}_frozen") for other in OTHERS]
    rows = []
    for f in dict.fromkeys(f for _, f in drawn):
        trained = [d["mean", "auroc"][:, 0] for (_, g), d in drawn.items() if g == f]
        spread = seeds.pooled_spread(trained)
        for ours, other in (*pairs, *AGAINST):
            if (ours, f) in drawn and (other, f) in drawn:
                one, two = drawn[ours, f], drawn[other, f]
                found = mean_difference(one, two, diseases, spread=spread)
                rows.append(dict(ours=ours, other=other, fraction=f) | found)
    columns = ["ours", "other", "fraction", *results.GAP]
    return pd.DataFrame(rows, columns=columns)


def mean_difference(
    ours: Drawn, other: Drawn, diseases: Collection[str], metric: str = "auroc", *,
    spread: tuple[float, float] | None = None,
) -> dict:  # fmt: skip
    """Paired difference of two models' means over the diseases that both were evaluated on.

    Parameters
    ----------
    ours, other : dict of (label, metric) to (n_seeds, 1 + n_resamples) float
        The second result of `evaluate`, on the same resamples. One of a single seed is held against each
        of the other's.
    spread : (float, float), optional
        Standard deviation of one model between seeds, and its degrees of freedom; default: of these.

    Returns
    -------
    dict
        As of `results.difference`; a model of a single run is one that nobody trained.
    """
    found = [np.stack([m[d, metric] for d in diseases], 1) for m in (ours, other)]
    both = ~np.isnan(np.concatenate([f[:, :, 0] for f in found])).any(0)
    one, two = (np.stack([bootstrap.macro(run[both]) for run in f]) for f in found)
    return results.difference(one, two, metric, spread=spread, is_trained=False)


def brier(probability: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean squared error of probabilities over known labels, (n_diseases, n_resamples)."""
    known = ~np.isnan(labels)
    error = np.where(known, (probability - np.nan_to_num(labels)) ** 2, 0.0)
    weights = weights.astype(np.float64)
    total = known.astype(float).T @ weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, error.T @ weights / total, np.nan)


def reliability(probability: np.ndarray, labels: np.ndarray, *, n_bins: int = 5) -> pd.DataFrame:
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


def reliability_of(
    predicted: dict[tuple[str, float], np.ndarray], labels: np.ndarray, starts: Collection[str],
    fraction: float,
) -> pd.DataFrame:  # fmt: skip
    """`reliability` of each start's first seed, all diseases pooled, with a column `start`."""
    return pd.concat(
        reliability(predicted[s, fraction][0].ravel(), labels.ravel()).assign(start=s)
        for s in starts
    )


def reading(table: pd.DataFrame, gaps: pd.DataFrame) -> str:
    """What `by_start` and `paired` found, in words."""
    mean = table.query("label == 'mean' and metric == 'auroc'").set_index(["start", "fraction"])
    few, many = min(table["fraction"]), max(table["fraction"])
    auroc = {key: f"{value:.3f}" for key, value in mean["value"].items()}
    gap = gaps[gaps["fraction"] == few].set_index(["ours", "other"])

    def told(ours: str, other: str) -> str:
        found = gap.loc[(ours, other)]
        if np.isnan(found["value"]):
            return "not evaluated"
        return f"{with_interval(found, '+.3f')}, which {excludes_zero(found)}"

    judged = table.loc[(table["label"] != "mean") & (table["status"] == "ok"), "label"].nunique()
    return (
        f"Mean AUROC over {judged} diseases from our pretraining: fine-tuned "
        f"{auroc['merlin', many]} with all labels and {auroc['merlin', few]} with {few:.0%}; frozen, with "
        f"probes, {auroc['merlin_frozen', many]} and {auroc['merlin_frozen', few]}. With {few:.0%}, minus "
        f"random weights: both fine-tuned {told('merlin', 'random')}; both frozen "
        f"{told('merlin_frozen', 'random_frozen')}; ours frozen minus random weights fine-tuned "
        f"{told('merlin_frozen', 'random')}."
    )
