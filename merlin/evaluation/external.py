"""Internal against external: the drop of each finding, and of their mean."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from merlin.evaluation import ranges, results
from merlin.statistics import bootstrap, metrics

Scored = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores, labels and patients of a site


def drops(
    internal: Scored, external: Scored, findings: Sequence[str], *, threshold: float = 0.0,
    n_resamples: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """External minus internal AUROC and F1, per finding and over findings judged at both sites.

    The sites share no patients: each is resampled on its own, and differences are taken resample by
    resample. The pairing is by finding.

    Parameters
    ----------
    internal, external : tuple of (scores (n_seeds, n, f), labels (n, f), patient_ids (n,))
        A single run may come as (n, f).
    findings : sequence of str
    threshold : float
        Above it a finding is called present.

    Returns
    -------
    DataFrame
        `label, metric, value, low, high, reason`; `label` is a finding or `macro`.
    """
    measured, few = [], []
    for i, (scores, labels, patient_ids) in enumerate((internal, external)):
        weights = results.resampling(patient_ids, n_resamples, seed=seed + i)
        both = np.array([results.has_both(column) for column in labels.T])[:, None]
        runs = scores[None] if scores.ndim == 2 else scores
        values = {
            "AUROC": np.stack([metrics.auroc(s, labels, weights) for s in runs]),
            "F1": np.stack([metrics.f1(s > threshold, labels, weights) for s in runs]),
        }
        few.append(bootstrap.fewest(labels, patient_ids))
        measured.append({m: np.where(both, v, np.nan) for m, v in values.items()})
    rows = []
    for metric in measured[0]:
        gap = measured[1][metric] - measured[0][metric]
        n_few = np.minimum(*few) if metric == "AUROC" else None
        mean = np.stack([bootstrap.macro(g, n_few=n_few) for g in gap])
        for name, found in [*zip(findings, gap.swapaxes(0, 1), strict=True), ("macro", mean)]:
            value, low, high = results.ends(results.difference(found, np.zeros_like(found), metric))
            reason = "" if np.isfinite(value) else "one class only at one of the sites"
            rows.append((name, metric, value, low, high, reason))
    columns = ["label", "metric", "value", "low", "high", "reason"]
    return ranges.within(pd.DataFrame(rows, columns=columns), differences=True)
