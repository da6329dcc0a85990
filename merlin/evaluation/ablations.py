"""Design claims as paired differences: runs of a sweep against the reference of the same seed.

A run is an embeddings file; nothing here trains or encodes. Differences are taken run by run on the
same test patients and then averaged over seeds, so that an interval holds the luck of the patients;
the luck of the seeds is shown by the runs themselves, which stand in the table one by one.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from merlin.evaluation import off_shelf, results
from merlin.evaluation.claims import verdict

REFERENCE = "reference"


def headline(drawn, name, pool):
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


def evaluate(files, *, split, pool, min_positive, n_resamples, seed, text_of=None):
    """Judge every run of a sweep on the studies that all have.

    Parameters
    ----------
    files : dict of (arm, seed) to Embeddings
    split : str
    pool, min_positive, n_resamples, seed : int
    text_of : dict of str to {"sentences", "whole", "none"}, optional
        What an arm's training paired with images, and so what stands for a report in retrieval. An
        arm that saw no report has no text side: only phenotypes count for it.

    Returns
    -------
    dict of (arm, seed) to dict of metric to (1 + n_resamples,) float
    """
    text_of = text_of or {}
    named = {}
    for (arm, run), e in files.items():
        if text_of.get(arm) == "whole":
            e = replace(e, findings_sentences=np.full_like(e.findings, np.nan))
        named[f"{arm}-{run}"] = e
    rows = off_shelf.common_rows(named, site="internal", split=split)
    _, drawn = off_shelf.judge(
        named, rows, pools=(pool,), min_positive=min_positive, split=split,
        n_resamples=n_resamples, seed=seed,
    )  # fmt: skip
    out = {}
    for arm, run in files:
        found = headline(drawn, f"{arm}-{run}", pool)
        if text_of.get(arm) == "none":
            found = {k: v for k, v in found.items() if k == "phenotype AUROC"}
        out[arm, run] = found
    return out


def compare(judged, patient_ids, *, reference=REFERENCE):
    """Values of each arm and its differences from the reference.

    Parameters
    ----------
    judged : dict of (arm, seed) to dict of metric to (1 + n_resamples,) float
    patient_ids : (n_studies,) str
        Of the studies that were judged.
    reference : str

    Returns
    -------
    DataFrame
        Common schema (label: arm), `kind` (`value` or `difference`, arm minus reference),
        `n_seeds`, `by_seed` (values of the runs, separated by spaces).
    """
    arms = list(dict.fromkeys(arm for arm, _ in judged))
    metrics = list(dict.fromkeys(m for found in judged.values() for m in found))
    n_studies, known = len(patient_ids), np.ones(len(patient_ids), bool)
    rows = []
    for metric in metrics:
        for arm in arms:
            seeds = [s for a, s in judged if a == arm and metric in judged[a, s]]
            paired = [s for s in seeds if metric in judged.get((reference, s), {})]
            for kind in ("value", "difference"):
                use = seeds if kind == "value" else paired
                if kind == "difference" and arm == reference:
                    continue
                if not use:
                    reason = "no report was read in training" if not seeds else "no reference run"
                    rows.append(
                        results.missing(
                            arm,
                            metric,
                            reason,
                            n_studies=n_studies,
                            kind=kind,
                            n_seeds=0,
                            by_seed="",
                        )
                    )
                    continue
                runs = np.array([judged[arm, s][metric] for s in use])
                if kind == "difference":
                    runs = runs - np.array([judged[reference, s][metric] for s in use])
                rows.append(
                    results.row(
                        arm,
                        metric,
                        runs.mean(0),
                        known=known,
                        patient_ids=patient_ids,
                        n_positive=n_studies,
                        kind=kind,
                        n_seeds=len(use),
                        by_seed=" ".join(f"{v:.6f}" for v in runs[:, 0]),
                    )
                )
    table = pd.DataFrame(rows)
    table.insert(0, "task", "ablation")
    return table


# What the paper concluded, as the sign of arm minus reference (paper_facts §6).
CLAIMS = (
    ("inflated", "phenotype AUROC", +1, "inflated 2D kernels beat random ones"),
    ("inflated", "zero-shot F1", +1, "inflated 2D kernels beat random ones"),
    ("staged", "zero-shot F1", -1, "multi-task beats staged training"),
    ("whole_reports", "zero-shot F1", -1, "splitting reports by section helps prompts"),
    ("whole_reports", "recall@1", +1, "splitting costs a little retrieval"),
    ("codes_only", "phenotype AUROC", -1, "reports add to codes"),
    ("reports_only", "zero-shot F1", -1, "codes add to reports"),
    ("convnext", "phenotype AUROC", -1, "the residual network beats ConvNeXt"),
    ("swin", "phenotype AUROC", -1, "the residual network beats Swin"),
    ("normal_50", "zero-shot F1", -1, "balancing normal sections costs (arXiv 2604.13561)"),
)


def verdicts(table, claims=CLAIMS):
    """Whether each claim holds in a comparison.

    Returns
    -------
    DataFrame
        `claim, arm, metric, expected, value, low, high, verdict`; the verdict is `holds here`,
        `contradicted here` (the interval lies on the other side of zero) or `not decided here`.
    """
    gaps = table[table["kind"] == "difference"]
    rows = []
    for arm, metric, sign, text in claims:
        part = gaps[(gaps["label"] == arm) & gaps["metric"].str.startswith(metric)]
        if part.empty or part.iloc[0]["status"] != "ok":
            value = low = high = np.nan
            said = "not run"
        else:
            value, low, high = part.iloc[0][["value", "low", "high"]]
            said = verdict(value, low, high, sign)
        rows.append((text, arm, metric, sign, value, low, high, said))
    columns = ["claim", "arm", "metric", "expected", "value", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)
