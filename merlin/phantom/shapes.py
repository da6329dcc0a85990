"""The list of shapes that organs and findings are painted from, in order."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from merlin.phantom import render, torso

Coordinates = np.ndarray | Sequence[Any]  # of points, along their last axis, mm
UNTURNED = np.eye(3)
EVERYWHERE = (-1e9, 1e9)  # along y, mm


class ShapeList:
    """Shapes in painting order; later ones cover earlier ones.

    Options of all shapes are fields of `render.Shapes`: `label, regions, only, texture, y_range`.
    """

    def __init__(self) -> None:
        self._rows: list[tuple] = []  # in the order of the fields of render.Shapes

    def ellipsoid(
        self,
        centre: Coordinates,
        half_axes: Coordinates,
        hu: float,
        *,
        turn_deg: Coordinates = (0, 0, 0),
        **options: Any,
    ) -> None:
        """Add an ellipsoid: centre and half axes in mm, turned about x, y and z in degrees."""
        centre, half_axes = np.asarray(centre, float), np.maximum(half_axes, 0.5)
        turn = rotation(turn_deg) if any(turn_deg) else UNTURNED
        reach = np.sqrt(((turn.T * half_axes) ** 2).sum(1))
        ends = (centre, half_axes, (0, 0), turn)
        self._add(False, *ends, hu, centre - reach, centre + reach, **options)

    def tube(
        self, points: Coordinates, radii: float | Coordinates, hu: float, **options: Any
    ) -> None:
        """Add a chain of tapered tubes through `points` (n, 3) with `radii` (n,) or one radius, mm."""
        points = np.asarray(points, float)
        radii = np.broadcast_to(np.asarray(radii, float), len(points))
        pairs = np.stack([radii[:-1], radii[1:]], 1)
        reach = pairs.max(1, keepdims=True)
        low = np.minimum(points[:-1], points[1:]) - reach
        high = np.maximum(points[:-1], points[1:]) + reach
        for a, b, r, lo, up in zip(points[:-1], points[1:], pairs, low, high, strict=True):
            self._add(True, a, b, r, UNTURNED, hu, lo, up, **options)

    def sphere(self, centre: Coordinates, radius: float, hu: float, **options: Any) -> None:
        """Add a ball of `radius` mm."""
        self.ellipsoid(centre, (radius,) * 3, hu, **options)

    def _add(
        self,
        is_tube: bool,
        start: np.ndarray,
        end: np.ndarray,
        radii: Coordinates,
        turn: np.ndarray,
        hu: float,
        low: np.ndarray,
        high: np.ndarray,
        *,
        label: int | None = None,
        regions: int = torso.INSIDE_ABDOMEN,
        only: int = render.ANY_LABEL,
        texture: float = 0.0,
        y_range: tuple[float, float] = EVERYWHERE,
    ) -> None:
        # What has no name of its own is background, as fat over a spleen is no spleen; a change
        # within one structure (`only`) and whatever asks for it leaves the label that is there.
        if label is None:
            label = 0 if only == render.ANY_LABEL else render.KEEP_LABEL
        margin = render.MAX_WARP_MM + 6.0
        looks = (hu, texture, label, regions, only, y_range)
        self._rows.append((is_tube, start, end, radii, turn, *looks, low - margin, high + margin))

    def extend(self, other: "ShapeList") -> None:
        """Paint all of `other` after what is here."""
        self._rows.extend(other._rows)

    def packed(self) -> render.Shapes:
        """The rows as the arrays that `render` reads."""
        kinds = dict(is_tube=bool, label=np.int64, regions=np.int64, only=np.int64)
        columns = zip(render.Shapes._fields, zip(*self._rows, strict=True), strict=True)
        return render.Shapes(**{f: np.array(column, kinds.get(f, float)) for f, column in columns})


def rotation(turn_deg: Coordinates) -> np.ndarray:
    """(3, 3) into the frame of an ellipsoid that is turned about x, y and z in degrees."""
    cx, cy, cz = np.cos(np.deg2rad(turn_deg))
    sx, sy, sz = np.sin(np.deg2rad(turn_deg))
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def in_ball(rng: np.random.Generator, radius: float = 1.0) -> np.ndarray:
    """A point of a ball, evenly over its volume."""
    way = rng.normal(size=3)
    return way / np.linalg.norm(way) * radius * rng.random() ** (1 / 3)


def apart(draw: Callable[[], np.ndarray], count: int, *, gap_mm: float) -> list[np.ndarray]:
    """Up to `count` points at least `gap_mm` apart: what is counted can be told apart."""
    spots: list[np.ndarray] = []
    for _ in range(15 * count):
        spot = draw()
        if all(np.linalg.norm(spot - s) > gap_mm for s in spots):
            spots.append(spot)
        if len(spots) == count:
            break
    return spots
