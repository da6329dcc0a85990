"""Label maps and whole scans on the model's grid, for segmentation."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from merlin.data.nifti import read_nifti
from merlin.data.preprocess import Grid, ModelInput, preprocess
from merlin.data.scan import UnreadableScan, Volume, refusing


def label_on_grid(path: str | Path, affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A label map at the voxel centres of another grid, by nearest neighbour.

    Parameters
    ----------
    path : path
        NIfTI of integers.
    affine : (4, 4) float
        From index of the wanted grid to RAS+ mm.
    shape : (3,) int

    Returns
    -------
    (shape) uint8
        0 outside the label map.

    Raises
    ------
    UnreadableScan
        If the map cannot be read, or holds values that are not whole numbers from 0 to 255.
    """
    with refusing(path):
        image = read_nifti(Path(path), is_label=True)
    label = image.hu
    if label.dtype.kind == "f":  # whole numbers of 16 bits come as such
        raise UnreadableScan(f"{path}: values are not whole numbers; is this a label map?")
    if label.min() < 0 or label.max() > 255:
        raise UnreadableScan(f"{path}: labels {label.min()} to {label.max()}; expected 0 to 255.")
    to_index = np.linalg.solve(image.affine, affine)
    exact = np.rint(to_index)
    if np.allclose(to_index, exact, atol=1e-4) and abs(np.linalg.det(exact)) == 1:
        to_index = exact  # axes turned alone: rounding must not lose the outermost voxels
    return ndimage.affine_transform(
        label.astype(np.uint8, copy=False),
        to_index[:3, :3],
        to_index[:3, 3],
        tuple(shape),
        order=0,
        cval=0,
    )


def whole_scan(volume: Volume, grid: Grid, at_least: Sequence[int]) -> ModelInput:
    """A scan on the grid's spacing and HU window, none of it cut off.

    Parameters
    ----------
    volume : Volume
    grid : Grid
        Its shape is not used.
    at_least : (3,) int
        Smallest size; smaller scans are padded with air.

    Returns
    -------
    ModelInput
    """
    turned = nib.orientations.io_orientation(volume.affine)[:, 0].astype(int)
    size_mm = np.empty(3)
    size_mm[turned] = np.array(volume.hu.shape) * volume.spacing_mm
    n_voxels = np.ceil(size_mm / grid.spacing_mm).astype(int) + 1
    r, a, s = (int(n) for n in np.maximum(n_voxels, at_least))
    return preprocess(volume, replace(grid, shape=(r, a, s)))
