"""Design claims as paired differences: runs of a sweep against the reference of the same seed.

A run is an embeddings file; nothing here trains or encodes. Differences are taken run by run on the
same test patients and then averaged over seeds. Intervals hold the luck of the patients and of the
seeds, whose spread is pooled over all arms; single runs stand in the table one by one.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.evaluation import claims, off_shelf, ranges, results
from merlin.evaluation.common_studies import common_rows
from merlin.run import read_yaml
from merlin.statistics import seeds, verdict

REFERENCE = "reference"
# Arms that differ from another arm than the reference in one setting.
REFERENCES = read_yaml(Path(__file__).with_name("sweep.yaml"))["references"]

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
        `reference`, `n_seeds`, `by_seed` (values of the runs, separated by spaces), `se_patients`.
    """
    arms = list(dict.fromkeys(arm for arm, _ in judged))
    metrics = list(dict.fromkeys(m for found in judged.values() for m in found))
    every = list(dict.fromkeys(seed for _, seed in judged))
    rows = []
    for metric in metrics:
        spread = verdict.crossed_spread(
            [[judged.get((a, s), {}).get(metric, [np.nan])[0] for s in every] for a in arms]
        )
        for arm in arms:
            reference = references.get(arm, REFERENCE)
            reference = reference if reference in arms else REFERENCE
            sides = ("", reference) if reference != arm else ("",)
            rows += [_compared(judged, arm, metric, a, patient_ids, spread) for a in sides]
    return ranges.within(results.table("ablation", rows))


def _compared(judged, arm, metric, against, patient_ids, spread):
    """An arm's value, or its difference where `against` names another arm."""
    own = [s for a, s in judged if a == arm and metric in judged[a, s]]
    use = [s for s in own if not against or metric in judged.get((against, s), {})]
    about = dict(kind="difference" if against else "value", reference=against)
    n = len(patient_ids)
    if not use:
        reason = "no reference run" if own else "this side was not trained"
        about |= dict(n_seeds=0, by_seed="", se_patients=np.nan)
        return results.missing(arm, metric, reason, n_studies=n, **about)
    runs = np.array([judged[arm, s][metric] for s in use])
    if against:
        runs = runs - np.array([judged[against, s][metric] for s in use])
    is_ok = bool(np.isfinite(runs[:, 0]).all())
    named = f"difference of {metric}" if against else metric  # by which the interval is chosen
    found = results.row(
        arm, named, runs.mean(0), known=np.ones(n, bool), patient_ids=patient_ids, n_positive=n,
        is_ok=is_ok, reason="" if is_ok else "the metric does not exist", **about,
        n_seeds=len(use), by_seed=" ".join(f"{v:.6f}" for v in runs[:, 0]), se_patients=np.nan,
    )  # fmt: skip
    found["metric"] = metric
    if not is_ok:
        return found
    pooled = (
        verdict.of_gaps(runs[:, 0], spread) if against else verdict.of_values(runs[:, 0], spread)
    )
    both = seeds.over_seeds(runs, spread=pooled, patients=(found["low"], found["high"]))
    return found | dict(low=both.low, high=both.high, se_patients=both.se_patients)


def verdicts(
    table: pd.DataFrame, entries: Sequence[dict], *, profile: Mapping | None = None
) -> pd.DataFrame:
    """What came out of the claims that a comparison can answer.

    Parameters
    ----------
    table : DataFrame
        From `compare`.
    entries : list of dict
        From `claims.read_claims`; those of other tables are left out, so that Holm's correction is for
        these alone. The ledger of `16_claims` corrects for all.
    profile : dict, optional
        From `load_profile`: whether arms had equal steps.

    Returns
    -------
    DataFrame
        `claim, arm, metric, expected, value, low, high, n_seeds, p_adjusted, beside, verdict, reason`.
    """
    asked = [(e["claim"], d) for e in entries for d in e["direction"] if d["table"] == "ablations"]
    found = claims.judged([d for _, d in asked], {"ablations": table}, profile=profile)
    rows = [
        dict(
            claim=claim, arm=d["label"], metric=d["metric"], expected=d["sign"],
            **{k.removeprefix("phantom_"): f.get(k, np.nan) for k in ("phantom_low", "phantom_high")},
            value=f.get("phantom", np.nan), n_seeds=f.get("n_seeds", 0),
            p_adjusted=f.get("p_adjusted", np.nan), beside=f.get("beside", ""), verdict=f["status"],
            reason=f["reason"],
        )
        for (claim, d), f in zip(asked, found, strict=True)
    ]  # fmt: skip
    columns = ["claim", "arm", "metric", "expected", "value", "low", "high", "n_seeds"]
    columns += ["p_adjusted", "beside", "verdict", "reason"]
    return pd.DataFrame(rows, columns=columns)
