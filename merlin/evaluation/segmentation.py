"""Segmentation scores in millimetres on the scan's own grid.

An organ that the model misses altogether scores Dice 0 and the worst distance (the scan's diagonal);
one that the scan does not hold is not evaluated there. Neither is dropped in silence.
"""

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from merlin.data.scan import Volume
from merlin.evaluation import results
from merlin.statistics import bootstrap


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two masks; NaN where the truth is empty.

    Parameters
    ----------
    predicted, truth : bool arrays of one shape
    """
    size = truth.sum()
    if size == 0:
        return np.nan
    return float(2 * (predicted & truth).sum() / (predicted.sum() + size))


def surface_distance(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> float:
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


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def score_scan(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], structures: Sequence[str], *,
    annotated: Sequence[str] | None = None,
) -> list[dict]:  # fmt: skip
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


def evaluate(
    scores: pd.DataFrame, structures: Sequence[str], *, model: str, split: str, n_resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, dict]:  # fmt: skip
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
    rows: list[dict] = []
    resampled: dict[tuple[str, str], np.ndarray] = {}
    missed = scores[scores["is_missed"]].groupby("structure").size()
    for metric in ("dice", "distance_mm"):
        wide = scores.pivot(index="study_id", columns="structure", values=metric)
        wide = wide.reindex(index=ids["study_id"], columns=list(structures)).to_numpy(float)
        known = ~np.isnan(wide)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = (np.nan_to_num(wide).T @ weights) / (known.astype(float).T @ weights)
        held, lost = known.sum(0), f"{int((~known.any(0)).sum())} structures not evaluated"
        rows += [
            results.row(
                name, metric, found[j], known=known[:, j], patient_ids=patients, n_positive=held[j],
                is_ok=bool(held[j]), reason="" if held[j] else f"in none of {len(ids)} scans",
                n_missed=int(missed.get(name, 0)),
            )
            for j, name in enumerate(structures)
        ]  # fmt: skip
        resampled |= {(name, metric): found[j] for j, name in enumerate(structures)}
        resampled["mean", metric] = bootstrap.macro(found)
        rows.append(
            results.row(
                "mean", metric, resampled["mean", metric], known=known.any(1), patient_ids=patients,
                n_positive=(held > 0).sum(), is_ok=bool(held.any()), reason="" if held.all() else lost,
                n_missed=int(missed.sum()),
            )
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table.insert(0, "task", "segmentation")
    return table.assign(model=model, split=split), resampled


def by_network(
    scores: dict[tuple[str, float], pd.DataFrame], structures: Sequence[str], *, n_resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """`evaluate` for every network, share of the labels and split; and how far ours is ahead on test scans.

    Parameters
    ----------
    scores : dict of (network, fraction) to DataFrame
        Rows of `score_scan` with `study_id, patient_id, split`.

    Returns
    -------
    table : DataFrame
        With a column `fraction`.
    paired : DataFrame
        `merlin minus, fraction, metric, value, low, high`, on the same resamples.
    """
    tables, drawn = [], {}
    for (kind, fraction), table in scores.items():
        for split, part in table.groupby("split"):
            options = dict(split=split, n_resamples=n_resamples, seed=seed)
            made, drawn[kind, fraction, split] = evaluate(part, structures, model=kind, **options)
            tables.append(made.assign(fraction=fraction))
    gaps = [
        (
            other, f, m,
            *results.difference(drawn["merlin", f, "test"]["mean", m], drawn[other, f, "test"]["mean", m]),
        )
        for f in dict.fromkeys(f for _, f in scores)
        for other in dict.fromkeys(kind for kind, _ in scores if kind != "merlin")
        for m in ("dice", "distance_mm")
    ]  # fmt: skip
    columns = ["merlin minus", "fraction", "metric", "value", "low", "high"]
    return pd.concat(tables, ignore_index=True), pd.DataFrame(gaps, columns=columns)


def middle_slices(
    volume: Volume, label_maps: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], float]:
    """The middle coronal slice of a scan and of label maps on its grid, head up, patient's right at the left.

    Returns
    -------
    slices : dict of str to (S, R) array
        The scan's as `ct`.
    aspect : float
        Height of a pixel over its width.
    """
    turn = nib.orientations.io_orientation(volume.affine)
    as_ras = {
        k: nib.orientations.apply_orientation(v, turn)
        for k, v in ({"ct": volume.hu} | label_maps).items()
    }
    middle = as_ras["ct"].shape[1] // 2
    step = dict(zip(volume.orientation, volume.spacing_mm, strict=True))
    across = next(v for k, v in step.items() if k in "RL")
    along = next(v for k, v in step.items() if k in "SI")
    return {k: v[::-1, middle, ::-1].T for k, v in as_ras.items()}, along / across


def reading(table: pd.DataFrame, paired: pd.DataFrame) -> str:
    """What `by_network` found on test scans, in words."""
    dice = table.query("label == 'mean' and metric == 'dice' and split == 'test'")
    dice, few = dice.set_index(["model", "fraction"]), min(table["fraction"])
    full = dice.xs(max(table["fraction"]), level=1)
    ours = full.loc["merlin"]
    gap = paired.set_index(["merlin minus", "fraction", "metric"]).loc[("scratch", few, "dice")]
    verdict = "excludes zero" if gap["low"] > 0 or gap["high"] < 0 else "includes zero"
    return (
        f"Mean Dice over structures with all labels: {ours['value']:.3f} [{ours['low']:.3f}, "
        f"{ours['high']:.3f}] from our pretraining, {full.loc['scratch', 'value']:.3f} from random weights, "
        f"{full.loc['dynunet', 'value']:.3f} for DynUNet. With {few:.0%} of them, pretraining minus random "
        f"weights: {gap['value']:+.3f} [{gap['low']:.3f}, {gap['high']:.3f}], which {verdict}. "
        f"{int(ours['n_missed'])} structures of the {ours['n_studies']} scans were missed altogether and "
        "count as worst."
    )


def reading_of_real(table: pd.DataFrame, tier: str) -> str:
    """What our network with all labels does on real scans, where any were given."""
    seen = table.query(
        "split == 'real' and model == 'merlin' and label == 'mean' and metric == 'dice'"
    )
    seen = seen[seen["fraction"] == max(table["fraction"])]
    if seen.empty:
        return "No real scan was given (`real_scans` or `totalsegmentator` of the profile)."
    mean = seen.iloc[0]
    said = f"**On {mean['n_studies']} real scans:** mean Dice {mean['value']:.3f} over {mean['n_positive']} structures."
    if tier == "phantom":
        said += (
            " The model has only seen phantoms: this is no result about segmentation of patients; it says "
            "how far a phantom is from one."
        )
    return said
