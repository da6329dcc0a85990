"""How much of an answer by voxel lies where a finding truly is, and how like the true change it is.

The truth is the difference between a phantom's scan with the finding and its scan without it: what no
annotator draws, and no hospital has.
"""

import numpy as np
from scipy import ndimage

AS_DRAWN, OLDER, OTHER_SEX = "as drawn", "older", "other sex"  # what was changed of a study
FAINTER, WITHOUT = "fainter", "without"  # of a finding; what else scans of doses are is AS_DRAWN
TRAINED, RANDOM, CHANCE = "main", "random weights", "chance"
SOFT = 0.25  # of the input's range [-1000, 1000] HU: what is denser than lung and air


def inside_body(image: np.ndarray) -> np.ndarray:
    """(R, A, S) float in [0, 1] → bool: the body with its lungs and gas, slice by slice."""
    return np.stack(
        [ndimage.binary_fill_holes(image[..., k] > SOFT) for k in range(image.shape[-1])], axis=-1
    )


def pointing(answer: np.ndarray, truth: np.ndarray, body: np.ndarray) -> dict[str, float]:
    """How much of an answer by voxel lies where it should.

    Parameters
    ----------
    answer : (R, A, S) float
        A gradient or a change; its size counts, not its sign.
    truth : (R, A, S) bool
        Voxels that differ between the scans with and without the finding.
    body : (R, A, S) bool
        Voxels that compete.

    Returns
    -------
    dict
        `inside`, share of the answer in the truth (Wang et al., Score-CAM, CVPR workshops 2020); `hit`, 1
        where the largest voxel is in it (Zhang et al., pointing game, IJCV 126:1084, 2018); `chance`, the
        share of the body that the truth takes: what both would be if the answer knew nothing. NaN where
        nothing answers.
    """
    size, where = np.abs(answer)[body], truth[body]
    total = size.sum()
    if not total > 0:
        return dict(inside=np.nan, hit=np.nan, chance=float(where.mean()))
    return dict(
        inside=float(size[where].sum() / total), hit=float(where[size.argmax()]),
        chance=float(where.mean()),
    )  # fmt: skip


def likeness(change: np.ndarray, wanted: np.ndarray, body: np.ndarray) -> float:
    """Cosine between two changes (R, A, S) over the body, in [-1, 1]: 1, the same but for its size."""
    a, b = change[body].astype(float), wanted[body].astype(float)
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if size else np.nan
