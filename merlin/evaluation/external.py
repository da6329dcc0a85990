"""Internal against external: the drop of each finding, and of their mean."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from merlin.evaluation import results
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
    internal, external : tuple of (scores (n, f), labels (n, f), patient_ids (n,))
    findings : sequence of str
    threshold : float
        Above it a finding is called present.

    Returns
    -------
    DataFrame
        `label, metric, value, low, high, reason`; `label` is a finding or `macro`.
    """
    measured = []
    for i, (scores, labels, patient_ids) in enumerate((internal, external)):
        weights = results.resampling(patient_ids, n_resamples, seed=seed + i)
        both = np.array([results.has_both(column) for column in labels.T])[:, None]
        values = {
            "AUROC": metrics.auroc(scores, labels, weights),
            "F1": metrics.f1(scores > threshold, labels, weights),
        }
        measured.append({m: np.where(both, v, np.nan) for m, v in values.items()})
    rows = []
    for metric in measured[0]:
        gap = measured[1][metric] - measured[0][metric]
        for name, found in [*zip(findings, gap, strict=True), ("macro", bootstrap.macro(gap))]:
            value, low, high = results.difference(found, np.zeros(1), metric)
            reason = "" if np.isfinite(value) else "one class only at one of the sites"
            rows.append((name, metric, value, low, high, reason))
    return pd.DataFrame(rows, columns=["label", "metric", "value", "low", "high", "reason"])
