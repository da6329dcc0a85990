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
# Arms that differ from another arm than the reference in one setting.
REFERENCES = {
    "normal_25": "one_section",
    "normal_50": "one_section",
    "normal_75": "one_section",
    "whole_no_alignment": "no_alignment",
    "wide_stem_stride": "inflated_stem",
}


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


def evaluate(files, *, split, pool, min_positive, n_resamples, seed, text_of=None, no_codes=()):
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
        if arm in no_codes:
            found.pop("phenotype AUROC", None)
        out[arm, run] = found
    return out


def compare(judged, patient_ids, *, references=REFERENCES):
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
    n_studies, known = len(patient_ids), np.ones(len(patient_ids), bool)
    rows = []
    for metric in metrics:
        for arm in arms:
            seeds = [s for a, s in judged if a == arm and metric in judged[a, s]]
            reference = references.get(arm, REFERENCE)
            reference = reference if any(a == reference for a, _ in judged) else REFERENCE
            paired = [s for s in seeds if metric in judged.get((reference, s), {})]
            for kind in ("value", "difference"):
                use = seeds if kind == "value" else paired
                against = reference if kind == "difference" else ""
                if against == arm:
                    continue
                if not use:
                    reason = "this side was not trained" if not seeds else "no reference run"
                    rows.append(
                        results.missing(
                            arm,
                            metric,
                            reason,
                            n_studies=n_studies,
                            kind=kind,
                            reference=against,
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
                        reference=against,
                        is_ok=bool(np.isfinite(runs[:, 0]).all()),
                        reason="" if np.isfinite(runs[:, 0]).all() else "the metric does not exist",
                        n_seeds=len(use),
                        by_seed=" ".join(f"{v:.6f}" for v in runs[:, 0]),
                    )
                )
    table = pd.DataFrame(rows)
    table.insert(0, "task", "ablation")
    return table


# Design claims, of the paper where no other source is named, as the sign of arm minus reference
# (paper_facts §6; metrics where the source names none are our choice).
CLAIMS = (
    ("inflated", "zero-shot F1", +1, "inflated 2D kernels beat random ones"),
    ("staged", "zero-shot F1", -1, "multi-task beats staged training"),
    ("whole_reports", "zero-shot F1", -1, "splitting reports helps prompts, alignment too"),
    ("whole_no_alignment", "zero-shot F1", -1, "splitting reports helps prompts, no alignment"),
    ("whole_no_alignment", "recall@1", +1, "splitting costs a little retrieval, no alignment"),
    ("codes_only", "phenotype AUROC", -1, "reports add to codes"),
    ("reports_only", "zero-shot F1", -1, "codes add to reports"),
    ("convnext", "phenotype AUROC", -1, "the residual network beats ConvNeXt"),
    ("swin", "phenotype AUROC", -1, "the residual network beats Swin"),
    ("wide_stem_stride", "phenotype AUROC", -1, "a small stride through the slices is better"),
    ("normal_50", "zero-shot F1", -1, "balancing normal sections costs (arXiv 2604.13561)"),
)


def verdicts(table, claims=CLAIMS):
    """Whether each claim holds in a comparison.

    Returns
    -------
    DataFrame
        `claim, arm, metric, expected, value, low, high, verdict`; verdicts as `claims.verdict`.
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
            said = verdict(value, low, high, sign, by_seed=part.iloc[0]["by_seed"])
        rows.append((text, arm, metric, sign, value, low, high, said))
    columns = ["claim", "arm", "metric", "expected", "value", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)
