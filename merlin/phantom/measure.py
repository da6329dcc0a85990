"""Organs measured from their labels, and from where on each counts as enlarged.

A phantom has an enlarged organ where its label map says so, and a report states what was measured.
The limits are definitions of ours, one number an organ, after the literature:

spleen
    Longest diameter above 130 mm, as the Lugano classification has it (Cheson et al., J Clin Oncol
    2014).
liver
    Craniocaudal span above 160 mm (in the midclavicular line: Kratzer et al., J Clin Ultrasound
    2003; here of the whole organ).
heart
    Wider than half of the chest, both in mm across (Danzer, Am J Med Sci 1919, of radiographs).
prostate
    Volume above 30 ml, a usual limit of guidelines on lower urinary tract symptoms.
aorta
    Wider than 30 mm below the kidneys (Chaikof et al., J Vasc Surg 2018).

Measured on a grid of 2 to 10 mm around the organ, the same for every scanner.
"""

from typing import NamedTuple

import numpy as np

from merlin.phantom import render
from merlin.phantom.body import Body
from merlin.phantom.torso import Torso
from merlin.vocabulary import LABEL

LIMITS = {
    "splenomegaly": 130.0,  # mm
    "hepatomegaly": 160.0,  # mm
    "cardiomegaly": 0.5,  # of the chest's width
    "prostatomegaly": 30.0,  # ml
    "abdominal_aortic_aneurysm": 30.0,  # mm
}
ORGANS = {
    "splenomegaly": "spleen",
    "hepatomegaly": "liver",
    "cardiomegaly": "heart",
    "prostatomegaly": "prostate",
    "abdominal_aortic_aneurysm": "aorta",
}
_SPACING_MM = {
    "spleen": (5.0, 5.0, 5.0),
    "liver": (10.0, 10.0, 3.0),
    "heart": (3.0, 9.0, 9.0),
    "prostate": (2.0, 4.0, 4.0),
    "aorta": (2.5, 2.5, 8.0),
}


class Measured(NamedTuple):
    """An organ's size: what its limit is about, and the length that a report states."""

    value: float
    size_mm: float


def measure(
    name: str,
    body: Body,
    scene: tuple[Torso, render.Shapes, np.ndarray],
) -> Measured:
    """The organ of an enlargement as it is labelled.

    Parameters
    ----------
    name : str
        One of `LIMITS`.
    body : Body
    scene : tuple
        From `anatomy.scene`.
    """
    organ = ORGANS[name]
    grid = _around(organ, body, scene[1])
    label = labels(scene, grid, body.warp)
    inside, step = label == LABEL[organ], np.array(grid.spacing_mm)
    if not inside.any():
        return Measured(0.0, 0.0)
    points = np.argwhere(inside) * step
    across, _, span = points.max(0) - points.min(0) + step
    if organ == "spleen":
        # Centres of voxels stop short of the surface, at both ends by 0.4 of a voxel in the mean.
        length = float(np.ptp(points @ _RAYS.T, axis=0).max() + 0.8 * step[0])
        return Measured(length, length)
    if organ == "liver":
        return Measured(float(span), float(span))
    if organ == "heart":
        lungs = np.isin(label, (LABEL["lung_left"], LABEL["lung_right"]))
        chest = np.ptp(np.flatnonzero((lungs | inside).any((1, 2)))) * step[0] + step[0]
        return Measured(float(across / chest), float(across))
    if organ == "prostate":
        return Measured(float(inside.sum() * step.prod() / 1000), float(across))
    # Front to back and across of each slice; the course of the vessel over slices does not count.
    widths = [inside.any(1).sum(0) * step[0], inside.any(0).sum(0) * step[1]]
    widest = float(np.max(np.minimum(*widths)))
    return Measured(widest, widest)


def labels(
    scene: tuple[Torso, render.Shapes, np.ndarray], grid: render.Grid, warp: np.ndarray
) -> np.ndarray:
    """(R, A, S) uint8: the label map of a scene on a grid."""
    _, label = render.paint(
        *scene,
        grid,
        lung_right=LABEL["lung_right"],
        lung_left=LABEL["lung_left"],
        vertebrae=LABEL["vertebrae"],
        warp=warp,
        texture=np.zeros(grid.shape, np.float32),
    )
    return label


def _around(organ: str, body: Body, shapes: render.Shapes) -> render.Grid:
    """A grid around all shapes with the organ's label; of the aorta, what is below the kidneys."""
    rows = shapes.label == LABEL[organ]
    if not rows.any():
        return render.Grid((1, 1, 1), _SPACING_MM[organ], (0.0, 0.0, 0.0))
    low, high = shapes.low[rows].min(0) + 8, shapes.high[rows].max(0) - 8
    if organ == "heart":  # and the chest's walls
        low[0], high[0] = -body.width, body.width
    if organ == "aorta":
        low[2], high[2] = -78 * body.height, -8 * body.height
    step = np.array(_SPACING_MM[organ])
    shape = np.maximum(np.ceil((high - low) / step).astype(int), 1)
    return render.Grid(tuple(shape.tolist()), _SPACING_MM[organ], tuple((low + high) / 2))


def _rays(n: int = 200) -> np.ndarray:
    """(n, 3) unit vectors over half a sphere, on a spiral."""
    z = (np.arange(n) + 0.5) / n
    turn = np.arange(n) * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], 1)


_RAYS = _rays()
