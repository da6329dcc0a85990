"""Design claims as paired differences: runs of a sweep against the reference of the same seed.

A run is an embeddings file; nothing here trains or encodes. Differences are taken run by run on the
same test patients and then averaged over seeds, so that an interval holds the luck of the patients;
the luck of the seeds is shown by the runs themselves, which stand in the table one by one.
"""

from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

from merlin.evaluation import off_shelf, results
from merlin.evaluation.claims import SWEEP, verdict
from merlin.evaluation.common_studies import common_rows

REFERENCE = "reference"
# Arms that differ from another arm than the reference in one setting.
REFERENCES = SWEEP["references"]

Judged = dict[tuple[str, int], dict[str, np.ndarray]]  # (arm, seed) → metric → value and resamples


def headline(drawn: dict, name: str, pool: int) -> dict[str, np.ndarray]:
    """The four numbers by which a run is compared, each with its resamples.

    Parameters
    ----------
    drawn : dict
        From `off_shelf.judge`.
    name : str
    pool : int
        Of retrieval; both directions are averaged.

    Returns
    -------
    dict of str to (1 + n_resamples,) float
    """
    both = [f"image to findings, recall@1 of {pool}", f"findings to image, recall@1 of {pool}"]
    found = {
        "zero-shot F1": drawn.get((name, "zero-shot findings", "f1")),
        "zero-shot AUROC": drawn.get((name, "zero-shot findings", "auroc")),
        "phenotype AUROC": drawn.get((name, "phenotypes", "auroc")),
        f"recall@1 of {pool}": None,
    }
    if all((name, "retrieval", d) in drawn for d in both):
        found[f"recall@1 of {pool}"] = np.mean([drawn[name, "retrieval", d] for d in both], axis=0)
    return {k: v for k, v in found.items() if v is not None}


def evaluate(
    files: dict, *, split: str, pool: int, min_positive: int,
    n_resamples: int, seed: int, text_of: dict[str, str] | None = None,
    no_codes: Collection[str] = (),
) -> Judged:  # fmt: skip
    """Judge every run of a sweep on the studies that all have.

    Parameters
    ----------
    files : dict of (arm, seed) to Embeddings
    split : str
    pool, min_positive, n_resamples, seed : int
    text_of : dict of str to {"sentences", "whole", "none"}, optional
        What an arm's training paired with images, and so what stands for a report in retrieval. An
        arm that saw no report has no text side: only phenotypes count for it.
    no_codes : collection of str
        Arms whose phecode head was never trained: phenotypes do not count for them.

    Returns
    -------
    dict of (arm, seed) to dict of metric to (1 + n_resamples,) float
    """
    text_of = text_of or {}
    named = {}
    for (arm, run), e in files.items():
        named[f"{arm}-{run}"] = e
    rows = common_rows(named, site="internal", split=split)
    _, drawn = off_shelf.judge(
        named, rows, pools=(pool,), min_positive=min_positive, split=split,
        n_resamples=n_resamples, seed=seed,
    )  # fmt: skip
    out = {}
    for arm, run in files:
        found = headline(drawn, f"{arm}-{run}", pool)
        if text_of.get(arm) == "none":
            found = {k: v for k, v in found.items() if k == "phenotype AUROC"}
        if arm in no_codes:
            found.pop("phenotype AUROC", None)
        out[arm, run] = found
    return out


def compare(
    judged: Judged, patient_ids: np.ndarray, *, references: dict[str, str] = REFERENCES
) -> pd.DataFrame:
    """Values of each arm and its differences from its reference.

    Parameters
    ----------
    judged : dict of (arm, seed) to dict of metric to (1 + n_resamples,) float
    patient_ids : (n_studies,) str
        Of the studies that were judged.
    references : dict of str to str
        Arm → the arm that it is compared with, where that is not `reference`.

    Returns
    -------
    DataFrame
        Common schema (label: arm), `kind` (`value` or `difference`, arm minus reference),
        `reference`, `n_seeds`, `by_seed` (values of the runs, separated by spaces).
    """
    arms = list(dict.fromkeys(arm for arm, _ in judged))
    metrics = list(dict.fromkeys(m for found in judged.values() for m in found))
    rows = []
    for metric in metrics:
        for arm in arms:
            reference = references.get(arm, REFERENCE)
            reference = reference if reference in arms else REFERENCE
            sides = ("", reference) if reference != arm else ("",)
            rows += [_compared(judged, arm, metric, against, patient_ids) for against in sides]
    return results.table("ablation", rows)


def _compared(judged, arm, metric, against, patient_ids):
    """An arm's value, or its difference where `against` names another arm."""
    seeds = [s for a, s in judged if a == arm and metric in judged[a, s]]
    use = [s for s in seeds if not against or metric in judged.get((against, s), {})]
    about = dict(kind="difference" if against else "value", reference=against)
    n = len(patient_ids)
    if not use:
        reason = "no reference run" if seeds else "this side was not trained"
        about |= dict(n_seeds=0, by_seed="")
        return results.missing(arm, metric, reason, n_studies=n, **about)
    runs = np.array([judged[arm, s][metric] for s in use])
    if against:
        runs = runs - np.array([judged[against, s][metric] for s in use])
    is_ok = bool(np.isfinite(runs[:, 0]).all())
    return results.row(
        arm, metric, runs.mean(0), known=np.ones(n, bool), patient_ids=patient_ids, n_positive=n,
        is_ok=is_ok, reason="" if is_ok else "the metric does not exist", **about,
        n_seeds=len(use), by_seed=" ".join(f"{v:.6f}" for v in runs[:, 0]),
    )  # fmt: skip


def verdicts(table: pd.DataFrame, claims: Iterable[dict] = SWEEP["claims"]) -> pd.DataFrame:
    """Whether each claim holds in a comparison.

    Parameters
    ----------
    table : DataFrame
        From `compare`.
    claims : iterable of dict
        `arm, metric, sign` (of arm minus reference), `claim`; a metric by how its name begins.

    Returns
    -------
    DataFrame
        `claim, arm, metric, expected, value, low, high, verdict`; verdicts as `claims.verdict`.
    """
    gaps, rows = table[table["kind"] == "difference"], []
    for c in claims:
        part = gaps[(gaps["label"] == c["arm"]) & gaps["metric"].str.startswith(c["metric"])]
        value = low = high = np.nan
        said = "not run"
        if not part.empty and part.iloc[0]["status"] == "ok":
            value, low, high = part.iloc[0][["value", "low", "high"]]
            said = verdict(value, low, high, c["sign"], by_seed=part.iloc[0]["by_seed"])
        rows.append((c["claim"], c["arm"], c["metric"], c["sign"], value, low, high, said))
    columns = ["claim", "arm", "metric", "expected", "value", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)
