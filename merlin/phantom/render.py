"""Scene → CT: paint soft-edged shapes on a voxel grid, in Hounsfield units and organ labels.

A scene is continuous: millimetres in patient coordinates (x to the patient's right, y anterior,
z superior, as RAS+). Any grid can look at it, so the same patient exists at 1 mm and at 6 mm. Edges
are blended over one voxel, which is what partial volume does in a scanner.

The torso (skin, fat, muscle, ribs, lungs, spine) is one analytic function of position, in `torso`;
organs and findings are ellipsoids and tapered tubes painted over it in order. A smooth random displacement of
space makes every patient's organs irregular without any two of them coming apart.

Array axes here are (x, y, z) = (R, A, S). Nothing in this module knows about diseases or files.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from merlin.compiled import njit
from merlin.phantom.torso import Torso, paint_torso

KEEP_LABEL = -1
ANY_LABEL = -1
MAX_WARP_MM = 14.0
WARP_ORIGIN_MM, WARP_STEP_MM = np.array([-260.0, -195.0, -325.0]), 65.0


@njit(fastmath=True)
def _displace(out, axis_x, axis_y, axis_z, control, origin, step):
    """Trilinear displacement of every grid point; writes warped coordinates into `out`."""
    n0, n1, n2 = control.shape[1] - 1, control.shape[2] - 1, control.shape[3] - 1
    for i in range(axis_x.size):
        u = min(max((axis_x[i] - origin[0]) / step, 0.0), n0 - 1e-3)
        i0 = int(u)
        fu = u - i0
        for j in range(axis_y.size):
            v = min(max((axis_y[j] - origin[1]) / step, 0.0), n1 - 1e-3)
            j0 = int(v)
            fv = v - j0
            for k in range(axis_z.size):
                w = min(max((axis_z[k] - origin[2]) / step, 0.0), n2 - 1e-3)
                k0 = int(w)
                fw = w - k0
                for c in range(3):
                    a = control[c, i0, j0, k0] * (1 - fw) + control[c, i0, j0, k0 + 1] * fw
                    b = control[c, i0, j0 + 1, k0] * (1 - fw) + control[c, i0, j0 + 1, k0 + 1] * fw
                    d = control[c, i0 + 1, j0, k0] * (1 - fw) + control[c, i0 + 1, j0, k0 + 1] * fw
                    e = (
                        control[c, i0 + 1, j0 + 1, k0] * (1 - fw)
                        + control[c, i0 + 1, j0 + 1, k0 + 1] * fw
                    )
                    out[c, i, j, k] = (a * (1 - fv) + b * fv) * (1 - fu) + (
                        d * (1 - fv) + e * fv
                    ) * fu
                out[0, i, j, k] += axis_x[i]
                out[1, i, j, k] += axis_y[j]
                out[2, i, j, k] += axis_z[k]


class Shapes(NamedTuple):
    """Ellipsoids and tapered tubes in painting order, one row each."""

    is_tube: np.ndarray  # (n,) bool
    start: np.ndarray  # (n, 3) centre, or first end of the tube
    end: np.ndarray  # (n, 3) half axes, or second end of the tube
    radii: np.ndarray  # (n, 2) of a tube's ends
    turn: np.ndarray  # (n, 3, 3) rotation into the ellipsoid's frame
    hu: np.ndarray  # (n,)
    texture: np.ndarray  # (n,) HU of mottle
    label: np.ndarray  # (n,) int, KEEP_LABEL leaves it
    regions: np.ndarray  # (n,) int bit mask of allowed regions
    only: np.ndarray  # (n,) int label that may be painted over, or ANY_LABEL
    y_range: np.ndarray  # (n, 2) mm: gas floats, fluid sinks
    low: np.ndarray  # (n, 3) bounding box, mm
    high: np.ndarray


@njit(fastmath=True)
def _paint_shapes(hu, label, region, warped, mottle, axes_low, spacing, shapes, edge):
    for s in range(shapes.hu.size):
        lo = np.empty(3, np.int64)
        hi = np.empty(3, np.int64)
        for c in range(3):
            lo[c] = max(0, int((shapes.low[s, c] - axes_low[c]) / spacing[c]))
            hi[c] = min(hu.shape[c], int((shapes.high[s, c] - axes_low[c]) / spacing[c]) + 2)
        # Held in variables: the arrays painted on might overlap these, for all the compiler knows.
        is_tube, regions, only = shapes.is_tube[s], shapes.regions[s], shapes.only[s]
        y_low, y_high = shapes.y_range[s, 0], shapes.y_range[s, 1]
        shape_hu, texture, shape_label = shapes.hu[s], shapes.texture[s], shapes.label[s]
        radius_0, radius_1 = shapes.radii[s, 0], shapes.radii[s, 1]
        p0, p1, p2 = shapes.start[s, 0], shapes.start[s, 1], shapes.start[s, 2]
        q0, q1, q2 = shapes.end[s, 0], shapes.end[s, 1], shapes.end[s, 2]
        t = shapes.turn[s].copy()
        length2 = (q0 - p0) ** 2 + (q1 - p1) ** 2 + (q2 - p2) ** 2
        for i in range(lo[0], hi[0]):
            for j in range(lo[1], hi[1]):
                y = axes_low[1] + j * spacing[1]
                if y < y_low or y > y_high:
                    continue
                for k in range(lo[2], hi[2]):
                    if not (regions >> region[i, j, k]) & 1:
                        continue
                    if only >= 0 and label[i, j, k] != only:
                        continue
                    dx = warped[0, i, j, k] - p0
                    dy = warped[1, i, j, k] - p1
                    dz = warped[2, i, j, k] - p2
                    if is_tube:
                        along = 0.0
                        if length2 > 0:
                            along = (dx * (q0 - p0) + dy * (q1 - p1) + dz * (q2 - p2)) / length2
                            along = min(max(along, 0.0), 1.0)
                        ex = dx - along * (q0 - p0)
                        ey = dy - along * (q1 - p1)
                        ez = dz - along * (q2 - p2)
                        radius = radius_0 + along * (radius_1 - radius_0)
                        sd = np.sqrt(ex * ex + ey * ey + ez * ez) - radius
                    else:
                        ux = (t[0, 0] * dx + t[0, 1] * dy + t[0, 2] * dz) / q0
                        uy = (t[1, 0] * dx + t[1, 1] * dy + t[1, 2] * dz) / q1
                        uz = (t[2, 0] * dx + t[2, 1] * dy + t[2, 2] * dz) / q2
                        k0 = np.sqrt(ux * ux + uy * uy + uz * uz)
                        k1 = np.sqrt((ux / q0) ** 2 + (uy / q1) ** 2 + (uz / q2) ** 2)
                        sd = k0 * (k0 - 1.0) / k1 if k1 > 1e-6 else -min(q0, min(q1, q2))
                    w = 0.5 - sd / edge
                    if w <= 0.0:
                        continue
                    w = min(w, 1.0)
                    new = shape_hu + texture * mottle[i, j, k]
                    hu[i, j, k] += (new - hu[i, j, k]) * w
                    if w > 0.5 and shape_label >= 0:
                        label[i, j, k] = shape_label


class Grid(NamedTuple):
    """A scanner's voxel grid in patient coordinates; axes (x, y, z) = (R, A, S)."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    centre_mm: tuple[float, float, float]

    @property
    def low(self) -> np.ndarray:
        """Coordinates of the first voxel, mm."""
        size = np.array(self.shape)
        return np.array(self.centre_mm) - (size - 1) / 2 * np.array(self.spacing_mm)

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) voxel → RAS+ mm."""
        affine = np.diag([*self.spacing_mm, 1.0])
        affine[:3, 3] = self.low
        return affine


def mottle(
    shape: tuple[int, int, int],
    spacing_mm: Sequence[float],
    rng: np.random.Generator,
    *,
    scale_mm: float = 7.0,
) -> np.ndarray:
    """Smooth random field of unit variance with a correlation length of about `scale_mm`."""
    field = rng.standard_normal(shape, dtype=np.float32)
    width = [max(1, round(scale_mm / s)) for s in spacing_mm]
    for axis, size in enumerate(width):
        if size > 1:
            field = ndimage.uniform_filter1d(field, size, axis=axis, mode="nearest")
    return field / np.float32(field.std())


def draw_warp(rng: np.random.Generator, *, sd_mm: float = 3.5) -> np.ndarray:
    """(3, 9, 7, 11) mm: the displacement that makes organs irregular, on `WARP_STEP_MM`.

    It lives on its own grid, so that it does not depend on the scanner's.
    """
    return rng.normal(0, sd_mm, (3, 9, 7, 11)).clip(-MAX_WARP_MM, MAX_WARP_MM)


def where_seen(points: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """Where the picture shows points (n, 3) of the scene, mm: the inverse of the displacement."""
    seen = points
    for _ in range(4):  # the displacement changes by less than a tenth from mm to mm
        at = ((seen - WARP_ORIGIN_MM) / WARP_STEP_MM).T
        moved = [ndimage.map_coordinates(w, at, order=1, mode="nearest") for w in warp]
        seen = points - np.stack(moved, 1)
    return seen


def paint(
    torso: Torso,
    shapes: Shapes,
    height_loss: np.ndarray,
    grid: Grid,
    *,
    lung_right: int,
    lung_left: int,
    vertebrae: int,
    warp: np.ndarray,
    texture: np.ndarray,
    edge_mm: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free HU volume and label map of a scene on a grid.

    Parameters
    ----------
    torso : Torso
    shapes : Shapes
        Painted in order, later over earlier.
    height_loss : (n_vertebrae,) float
        Share of each vertebra's height that is lost, in [0, 1), from below upwards.
    grid : Grid
    lung_right, lung_left, vertebrae : int
        Labels of the structures that belong to the torso.
    warp : (3, 9, 7, 11) float
        From `draw_warp`.
    texture : (R, A, S) float32
        From `mottle`; labels do not depend on it.
    edge_mm : float, optional
        Width over which edges are blended; a voxel, where none is given.

    Returns
    -------
    hu : (R, A, S) float32
    label : (R, A, S) uint8
    """
    shape = grid.shape
    spacing = np.array(grid.spacing_mm)
    axis_x, axis_y, axis_z = (
        (grid.low[c] + spacing[c] * np.arange(shape[c])).astype(np.float32) for c in range(3)
    )
    warped = np.empty((3, *shape), np.float32)
    control = warp.astype(np.float32)
    _displace(warped, axis_x, axis_y, axis_z, control, WARP_ORIGIN_MM, WARP_STEP_MM)
    hu = np.empty(shape, np.float32)
    label = np.zeros(shape, np.uint8)
    region = np.zeros(shape, np.uint8)
    edge = float(np.mean(spacing)) if edge_mm is None else edge_mm
    ids = np.array([lung_right, lung_left, vertebrae])
    paint_torso(
        hu, label, region, warped, axis_y, texture, torso, np.asarray(height_loss), edge, ids
    )
    _paint_shapes(hu, label, region, warped, texture, grid.low, spacing, shapes, edge)
    return hu, label
