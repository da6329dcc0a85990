"""Segmentation scores in millimetres on the scan's own grid.

An organ that the model misses altogether scores Dice 0 and the worst distance (the scan's diagonal);
one that the scan does not hold is not evaluated there. Neither is dropped in silence.
"""

import numpy as np
import pandas as pd
from scipy import ndimage

from merlin.evaluation import results
from merlin.statistics import bootstrap


def dice(predicted, truth):
    """Dice of two masks; NaN where the truth is empty.

    Parameters
    ----------
    predicted, truth : bool arrays of one shape
    """
    size = truth.sum()
    if size == 0:
        return np.nan
    return float(2 * (predicted & truth).sum() / (predicted.sum() + size))


def surface_distance(predicted, truth, spacing_mm):
    """Average symmetric surface distance in mm.

    The mean over all surface voxels of either mask of the distance to the other mask's surface, as
    MONAI's `compute_average_surface_distance(symmetric=True)`.

    Returns
    -------
    float
        NaN where the truth is empty, infinite where only the prediction is.
    """
    if not truth.any():
        return np.nan
    if not predicted.any():
        return np.inf
    either = predicted | truth
    box = tuple(slice(max(int(i.min()) - 1, 0), int(i.max()) + 2) for i in np.nonzero(either))
    predicted, truth = predicted[box], truth[box]
    one, other = _surface(predicted), _surface(truth)
    to_truth = ndimage.distance_transform_edt(~other, sampling=spacing_mm)[one]
    to_predicted = ndimage.distance_transform_edt(~one, sampling=spacing_mm)[other]
    return float((to_truth.sum() + to_predicted.sum()) / (to_truth.size + to_predicted.size))


def _surface(mask):
    return mask & ~ndimage.binary_erosion(mask)


def score_scan(predicted, truth, spacing_mm, structures, *, annotated=None):
    """Dice and surface distance of every structure of one scan.

    Parameters
    ----------
    predicted, truth : (i, j, k) uint8
        Label maps on the native grid; structure number i + 1 is `structures[i]`.
    spacing_mm : (3,) float
    structures : sequence of str
    annotated : sequence of str, optional
        Structures that the truth was drawn for; default all.

    Returns
    -------
    list of dict
        `structure, dice, distance_mm, is_missed, n_voxels`; absent structures have NaN scores.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction {predicted.shape} and truth {truth.shape} differ in shape")
    worst = float(np.linalg.norm(np.array(truth.shape) * spacing_mm))
    rows = []
    for number, name in enumerate(structures, 1):
        if annotated is not None and name not in annotated:
            continue
        p, t = predicted == number, truth == number
        distance = surface_distance(p, t, spacing_mm)
        rows.append(
            dict(
                structure=name,
                dice=dice(p, t),
                distance_mm=worst if np.isinf(distance) else distance,
                is_missed=bool(t.any() and not p.any()),
                n_voxels=int(t.sum()),
            )
        )
    return rows


def evaluate(scores, structures, *, model, split, n_resamples, seed):
    """Mean Dice and distance per structure and over all structures, with intervals.

    Parameters
    ----------
    scores : DataFrame
        `study_id, patient_id, structure, dice, distance_mm, is_missed` of one model.
    structures : sequence of str

    Returns
    -------
    table : DataFrame
        Common schema; `n_positive` counts the scans that hold the structure, `n_missed` those in
        which the model found nothing of it.
    resampled : dict of (label, metric) to (1 + n_resamples,) float
    """
    ids = scores[["study_id", "patient_id"]].drop_duplicates()
    patients = ids["patient_id"].to_numpy(str)
    weights = results.resampling(patients, n_resamples, seed=seed).astype(float)
    rows, resampled = [], {}
    for metric in ("dice", "distance_mm"):
        wide = scores.pivot(index="study_id", columns="structure", values=metric)
        wide = wide.reindex(index=ids["study_id"], columns=list(structures)).to_numpy(float)
        known = ~np.isnan(wide)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = (np.nan_to_num(wide).T @ weights) / (known.astype(float).T @ weights)
        missed = scores[scores["is_missed"]].groupby("structure").size()
        for j, name in enumerate(structures):
            resampled[name, metric] = found[j]
            rows.append(
                results.row(
                    name,
                    metric,
                    found[j],
                    known=known[:, j],
                    patient_ids=patients,
                    n_positive=known[:, j].sum(),
                    is_ok=bool(known[:, j].any()),
                    reason="" if known[:, j].any() else f"in none of {len(ids)} scans",
                    n_missed=int(missed.get(name, 0)),
                )
            )
        here = known.any(0)
        resampled["mean", metric] = bootstrap.macro(found)
        rows.append(
            results.row(
                "mean",
                metric,
                resampled["mean", metric],
                known=known.any(1),
                patient_ids=patients,
                n_positive=here.sum(),
                is_ok=bool(here.any()),
                reason="" if here.all() else f"{int((~here).sum())} structures not evaluated",
                n_missed=int(missed.sum()),
            )
        )
    table = pd.DataFrame(rows)
    table.insert(0, "task", "segmentation")
    return table.assign(model=model, split=split), resampled
