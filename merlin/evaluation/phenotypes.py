"""Phenotypes off the shelf: how well the phecode head ranks coded studies above the others.

The head was trained on codes of other patients; here it is only read. A phecode is evaluated if it
has enough positive studies (`min_positive`; the paper's rule for its 692 of 1,692 was not found).
Codes are weak labels: what a hospital forgot to code counts as absent.
"""

import numpy as np
import pandas as pd

from merlin.evaluation import results
from merlin.statistics import bootstrap, metrics

# Chapters of the phecode map by its whole numbers: (below, name).
CHAPTERS = (
    (140, "infectious diseases"),
    (240, "neoplasms"),
    (280, "endocrine and metabolic"),
    (290, "hematopoietic"),
    (320, "mental disorders"),
    (360, "neurological"),
    (390, "sense organs"),
    (460, "circulatory system"),
    (520, "respiratory"),
    (580, "digestive"),
    (630, "genitourinary"),
    (680, "pregnancy complications"),
    (710, "dermatologic"),
    (747, "musculoskeletal"),
    (760, "congenital anomalies"),
    (800, "symptoms"),
    (1000, "injuries and poisonings"),
    (float("inf"), "other"),
)
ABOVE = (0.8, 0.85, 0.9)  # the paper counts phenotypes above the last two


SAME = "the same score for every study"


def _joined(*reasons):
    return "; ".join(r for r in reasons if r)


def chapter(phecode):
    """Chapter of a phecode by number, as `571.5` → digestive; `other` for names that are no number."""
    try:
        number = float(phecode)
    except ValueError:
        return "other"
    return next(name for below, name in CHAPTERS if number < below)


def evaluate(
    scores, labels, patient_ids, phecodes, *, model, split, min_positive=20, n_resamples=1000, seed
):
    """AUROC and AUPRC per phecode, macro, by chapter, and counts above thresholds.

    Parameters
    ----------
    scores : (n_studies, n_phecodes) float
        Logits or probabilities. Where one is not finite, its label is left out and counted.
    labels : (n_studies, n_phecodes) float
        1, 0 or NaN.
    patient_ids : (n_studies,) str
    phecodes : sequence of str
    model, split : str
    min_positive : int
        Positive (and negative) studies below which a phecode is not evaluated.
    n_resamples, seed : int

    Returns
    -------
    table : DataFrame
        Common schema plus `chapter`; labels are phecodes, `macro`, `chapter: NAME`.
    resampled : dict of str to (1 + n_resamples,) float
        Macro `auroc` and `auprc`, for paired differences.
    """
    weights = results.resampling(patient_ids, n_resamples, seed=seed)
    bad = ~np.isfinite(scores)
    scores, labels = np.where(bad, 0.0, scores), np.where(bad, np.nan, labels)
    n_positive, n_negative = (labels == 1).sum(0), (labels == 0).sum(0)
    enough = np.minimum(n_positive, n_negative) >= min_positive
    chapters = np.array([chapter(p) for p in phecodes])
    rows, resampled = [], {}
    for metric, measure in (("auroc", metrics.auroc), ("auprc", metrics.average_precision)):
        found = np.full((len(phecodes), weights.shape[1]), np.nan)
        if enough.any():
            found[enough] = measure(scores[:, enough], labels[:, enough], weights)
        constant = [
            bool(ok) and np.ptp(s[~np.isnan(y)]) == 0
            for ok, s, y in zip(enough, scores.T, labels.T, strict=True)
        ]
        for j, phecode in enumerate(phecodes):
            masked = f"{bad[:, j].sum()} scores not finite, left out" if bad[:, j].any() else ""
            few = f"{n_positive[j]} positive and {n_negative[j]} negative; {min_positive} needed"
            rows.append(
                results.row(
                    phecode,
                    metric,
                    found[j],
                    known=~np.isnan(labels[:, j]),
                    patient_ids=patient_ids,
                    n_positive=n_positive[j],
                    is_ok=bool(enough[j]),
                    reason=_joined("" if enough[j] else few, masked, SAME if constant[j] else ""),
                    chapter=chapters[j],
                )
            )
        overall = dict(
            known=np.ones(len(labels), bool), patient_ids=patient_ids, is_ok=bool(enough.any())
        )
        left_out = f"{int((~enough).sum())} of {len(enough)} phecodes not evaluated"
        same = f"{sum(constant)} of {len(enough)} phecodes: {SAME}" if any(constant) else ""
        resampled[metric] = bootstrap.macro(found)
        rows.append(
            results.row(
                "macro",
                metric,
                resampled[metric],
                n_positive=enough.sum(),
                reason=_joined("" if enough.all() else left_out, same),
                **overall,
            )
        )
        for name in dict.fromkeys(chapters[enough]):
            inside = enough & (chapters == name)
            rows.append(
                results.row(
                    f"chapter: {name}",
                    metric,
                    bootstrap.macro(found[inside]),
                    n_positive=inside.sum(),
                    chapter=name,
                    **overall,
                )
            )
        if metric == "auroc":
            rows += [
                results.row(
                    "macro",
                    f"n above {limit}",
                    (found > limit).sum(0).astype(float),
                    n_positive=enough.sum(),
                    **overall,
                )
                for limit in ABOVE
            ]
    table = pd.DataFrame(rows)
    table.insert(0, "task", "phenotypes")
    return table.assign(model=model, split=split), resampled
