"""Organs measured: volume, attenuation and extent of each structure of a label map.

What a reader with a ruler could tell of a scan. Penalised regression on such numbers rivals networks on
real CT, so they stand beside ours (`merlin.evaluation.rivals`).
"""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from merlin.data.labels import label_on_grid
from merlin.data.volume import load_volume
from merlin.vocabulary import LABEL

MEASURES = ("volume_ml", "mean_hu", "sd_hu", "right_mm", "front_mm", "up_mm")


def measure(
    hu: np.ndarray, label: np.ndarray, affine: np.ndarray, structures: Mapping[str, int] = LABEL
) -> dict[str, float]:
    """Volume, mean and spread of attenuation, and extent of each structure.

    Parameters
    ----------
    hu : (i, j, k) int or float
        Hounsfield units.
    label : (i, j, k) uint8
    affine : (4, 4) float
        From voxel index to RAS+ mm; each extent is along the array's axis nearest to the body's.
    structures : dict of str to int
        Name → its value in `label`.

    Returns
    -------
    dict of str to float
        `<structure> <measure>` for each of `MEASURES`. A structure that is not there has volume 0, and NaN
        for the rest.

    Raises
    ------
    ValueError
        If scan and label map are not of one shape.
    """
    if hu.shape != label.shape:
        raise ValueError(f"scan {hu.shape} and label map {label.shape} must be of one shape")
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    axes = np.argsort(nib.orientations.io_orientation(affine)[:, 0])  # array axis along R, A, S
    inside = label > 0
    flat, value = label[inside], hu[inside].astype(np.float64)
    n_labels = max(structures.values()) + 1
    count, total, squares = (
        np.bincount(flat, weights, minlength=n_labels) for weights in (None, value, value**2)
    )
    boxes = ndimage.find_objects(label, max_label=n_labels - 1)
    found: dict[str, float] = {}
    for name, number in structures.items():
        n, box = count[number], boxes[number - 1]
        measured = [0.0, *[np.nan] * (len(MEASURES) - 1)]
        if n and box is not None:
            mean = total[number] / n
            extent = [(box[a].stop - box[a].start) * spacing_mm[a] for a in axes]
            spread = np.sqrt(max(squares[number] / n - mean**2, 0.0))
            measured = [n * np.prod(spacing_mm) / 1000, mean, spread, *extent]
        found |= {f"{name} {m}": float(x) for m, x in zip(MEASURES, measured, strict=True)}
    return found


def measure_study(volume: str | Path, label_map: str | Path) -> dict[str, float]:
    """`measure` of a scan's file, with its label map's, brought to the scan's own grid."""
    scan = load_volume(volume)
    label = label_on_grid(label_map, scan.affine, scan.hu.shape)
    return measure(scan.hu, label, scan.affine)
