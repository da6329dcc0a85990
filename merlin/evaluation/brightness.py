"""How well a volume's mean HU alone tells findings apart: what a score has to beat to be anatomy."""

from pathlib import Path

import numpy as np
import pandas as pd

from merlin.data.manifest import load_manifest
from merlin.data.preprocess import Grid, load_input
from merlin.evaluation.results import has_both
from merlin.statistics import metrics


def mean_values(
    manifest: Path, study_ids: np.ndarray, grid: dict[str, list], cache_dir: Path
) -> np.ndarray:
    """Mean of each model input (0 to 1 over the HU window), of the whole and of the body alone.

    Parameters
    ----------
    manifest : path
        Where it is not there (embeddings from a file come without volumes), no study is measured.
    study_ids : (n,) str
    grid : dict
        `spacing_mm`, `shape`, `hu_window` of the model's input.
    cache_dir : path

    Returns
    -------
    (n, 2) float, or (0, 2)
    """
    if not manifest.exists():
        return np.empty((0, 2))
    volume = load_manifest(manifest).set_index("study_id")["volume"]
    how = Grid(tuple(grid["spacing_mm"]), tuple(grid["shape"]), tuple(grid["hu_window"]))
    found = []
    for path in volume.loc[study_ids]:
        image = load_input(path, how, cache_dir=cache_dir).image
        found.append((image.mean(), image[image > 0.4].mean()))
    return np.array(found).reshape(-1, 2)


def best_auroc(means: np.ndarray, labels: np.ndarray, findings: tuple[str, ...]) -> pd.Series:
    """The best AUROC that a threshold on one of the means reaches, in either direction, by finding.

    Chosen on the labels that judge it, in its favour.

    Parameters
    ----------
    means : (n_studies, n_means) float
    labels : (n_studies, n_findings) float
    findings : sequence of str

    Returns
    -------
    Series
        Findings with both classes; NaN where nothing was measured.
    """
    both = [j for j in range(labels.shape[1]) if has_both(labels[:, j])]
    found = [
        metrics.auroc(np.repeat(m[:, None], len(both), 1), labels[:, both])[:, 0]
        for m in (means.T if len(means) else ())
    ]
    sides = [np.maximum(a, 1 - a) for a in found] or [np.full(len(both), np.nan)]
    best = np.max(sides, axis=0)
    return pd.Series(best, index=[findings[j] for j in both], name="best AUROC of mean HU")
