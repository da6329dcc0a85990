"""Phenotypes off the shelf: how well the phecode head ranks coded studies above the others.

The head was trained on codes of other patients; here it is only read. A phecode is evaluated if it
has enough positive studies (`min_positive`; the paper's rule for its 692 of 1,692 was not found).
Codes are weak labels: what a hospital forgot to code counts as absent.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.evaluation import results
from merlin.statistics import bootstrap, metrics

# Chapters of the phecode map by its whole numbers: (below, name).
_CHAPTERS = pd.read_csv(Path(__file__).with_name("phecode_chapters.csv"))
CHAPTERS = tuple(_CHAPTERS.itertuples(index=False, name=None))
ABOVE = (0.8, 0.85, 0.9)  # the paper counts phenotypes above the last two

SAME = "the same score for every study"


def chapter(phecode: str) -> str:
    """Chapter of a phecode by number, as `571.5` → digestive; `other` for names that are no number."""
    try:
        number = float(phecode)
    except ValueError:
        return "other"
    return next((name for below, name in CHAPTERS if number < below), "other")


def evaluate(
    scores: np.ndarray, labels: np.ndarray, patient_ids: np.ndarray, phecodes: Sequence[str], *,
    model: str, split: str, min_positive: int = 20, n_resamples: int = 1000, seed: int,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:  # fmt: skip
    """AUROC and AUPRC per phecode, macro, by chapter, and counts above thresholds.

    Parameters
    ----------
    scores : (n_studies, n_phecodes) or (n_seeds, n_studies, n_phecodes) float
        Logits or probabilities, of one run or of several that differ in their seed. Where one is not
        finite, its label is left out and counted.
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
    resampled : dict of str to (1 + n_resamples,) or (n_seeds, 1 + n_resamples) float
        Macro `auroc` and `auprc`, for paired differences.
    """
    weights = results.resampling(patient_ids, n_resamples, seed=seed)
    runs = scores[None] if scores.ndim == 2 else scores
    bad = ~np.isfinite(runs).all(0)
    runs, labels = np.where(bad, 0.0, runs), np.where(bad, np.nan, labels)
    n_positive, n_negative = (labels == 1).sum(0), (labels == 0).sum(0)
    enough = np.minimum(n_positive, n_negative) >= min_positive
    ranked = list(zip(enough, runs[0].T, labels.T, strict=True))
    constant = [bool(ok) and np.ptp(s[~np.isnan(y)]) == 0 for ok, s, y in ranked]
    chapters = np.array([chapter(p) for p in phecodes])
    reasons = []
    for j, ok in enumerate(enough):
        few = f"{n_positive[j]} positive and {n_negative[j]} negative; {min_positive} needed"
        masked = f"{bad[:, j].sum()} scores not finite, left out" if bad[:, j].any() else ""
        reasons.append(results.joined("" if ok else few, masked, SAME if constant[j] else ""))
    left_out = "" if enough.all() else f"{(~enough).sum()} of {len(enough)} phecodes not evaluated"
    same = f"{sum(constant)} of {len(enough)} phecodes: {SAME}" if any(constant) else ""
    n_few = bootstrap.fewest(labels, patient_ids)
    rows, resampled = [], {}

    def add(label, metric, found, n, **more):
        rows.append(
            results.row(
                label, metric, found, n_positive=n, known=np.ones(len(labels), bool),
                patient_ids=patient_ids, is_ok=bool(enough.any()), **more,
            )
        )  # fmt: skip

    for metric, measure in (("auroc", metrics.auroc), ("auprc", results.auprc)):
        found = np.full((len(runs), len(phecodes), weights.shape[1]), np.nan)
        if enough.any():
            found[:, enough] = [measure(s[:, enough], labels[:, enough], weights) for s in runs]
        rows += results.label_rows(
            phecodes, metric, found, labels=labels, patient_ids=patient_ids, is_ok=enough,
            reasons=reasons, chapter=chapters.tolist(),
        )  # fmt: skip
        resampled[metric] = results.over_runs(bootstrap.macro(f, n_few=n_few) for f in found)
        said = results.joined(left_out, same)
        add("macro", metric, resampled[metric], enough.sum(), reason=said)
        for name in dict.fromkeys(chapters[enough]):
            inside = enough & (chapters == name)
            part = (bootstrap.macro(f[inside], n_few=n_few[inside]) for f in found)
            mean = results.over_runs(part)
            add(f"chapter: {name}", metric, mean, inside.sum(), chapter=name)
        if metric == "auroc":
            for limit in ABOVE:
                count = (found > limit).sum(1).astype(float)
                add("macro", f"n above {limit}", count, enough.sum())
    return results.table("phenotypes", rows, model=model, split=split), resampled
