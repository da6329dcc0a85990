"""A chosen DICOM series: its slices sorted along their normal, its geometry checked, its HU read.

File names and instance numbers decide nothing. Anything that would put a slice in the wrong place
(gaps, uneven spacing, missing positions, several phases, mixed orientations) is refused with numbers.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from merlin.data.dicom import Series
from merlin.data.dicom_header import Slice, quietly
from merlin.data.dicom_pixels import Pixels
from merlin.data.scan import UnreadableScan, Volume, refuse_too_large

SPACING_TOL = 0.05  # of the spacing: how far a slice may lie from an evenly spaced grid
SPACING_TOL_MM = 0.11  # the least tolerance, because some scanners round positions to 0.1 mm
DRIFT_TOL_MM = 0.5  # a slice beside the straight line through first and last
MAX_PIXELS = 8192  # a side; what claims more is no CT slice, and is not decoded


# What may be said of a header's text in a message.
RESCALE_TYPES = {"OD", "HU", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"}
IMAGE_WORDS = set(
    "AXIAL LOCALIZER PERFUSION RCBF RCBV MTT TTP TMAX VOLUME DUAL_ENERGY MONO_ENERGY VMI MAP CALCIUM_SCORING "
    "REFORMATTED MPR NONE FILTERED AVERAGE".split()
)


@quietly()
def read_series(path: Path, series: Series, *, assume_hu: bool = False) -> Volume:
    """Sort, check and read a chosen series.

    Parameters
    ----------
    path : Path
        As the user gave it, for messages.
    series : Series
    assume_hu : bool
        Go on where a rescale is missing or its type is not HU.

    Returns
    -------
    Volume
        Axes: along a row, down a column, from slice to slice.

    Raises
    ------
    UnreadableScan
    """
    notes = list(series.notes)
    slices = list(series.slices)
    _check_headers(path, slices)
    slices = _check_rescale(path, slices, notes, assume_hu)
    n = sum(s.shape[0] * s.shape[1] for s in slices)
    n_bytes = sum(file.stat().st_size for file in series.files)
    refuse_too_large(path, f"{len(slices)} slices", n, n_bytes)
    pixels = Pixels(path)
    slices = _drop_duplicates(path, slices, pixels, notes)
    affine = _affine(path, slices)
    stack = np.stack([pixels.hu(s) for s in slices])  # (k, rows, columns)
    if pixels.is_monochrome1:
        notes.append("Stored for inverted display (MONOCHROME1); the HU are not inverted.")
    if pixels.n_padding:
        notes.append("Declared padding above air was read as air.")
    return Volume(stack.transpose(2, 1, 0), affine, tuple(notes))


def _check_headers(path: Path, slices: list[Slice]) -> None:
    """Refuse missing geometry, mixed orientation, and mixed size or pixel spacing."""
    n = len(slices)
    for name, attribute in (
        ("position (ImagePositionPatient)", "position"),
        ("orientation (ImageOrientationPatient)", "orientation"),
        ("pixel spacing (PixelSpacing)", "pixel_spacing_mm"),
    ):
        missing = sum(np.isnan(getattr(s, attribute)).any() for s in slices)
        if missing:
            raise UnreadableScan.about(
                path,
                f"{missing} of {n} slices without {name}",
                "it in every slice",
                "Export the original axial series",
            )
    if max(max(s.shape) for s in slices) > MAX_PIXELS or min(min(s.shape) for s in slices) < 1:
        raise UnreadableScan.about(
            path,
            "slices of " + " and ".join(sorted({f"{s.shape[1]}×{s.shape[0]}" for s in slices})[:3]),
            f"1 to {MAX_PIXELS} pixels a side",
            "Export the series again; its headers are damaged",
        )
    lengths = np.array([np.linalg.norm(s.orientation, axis=1) for s in slices])
    skew = np.array([abs(s.orientation[0] @ s.orientation[1]) for s in slices])
    if np.abs(lengths - 1).max() > 0.01 or skew.max() > 0.01:
        raise UnreadableScan.about(
            path,
            "row and column directions that are not perpendicular unit vectors",
            "a valid ImageOrientationPatient",
            "Export the series again",
        )
    first = slices[0].orientation
    same = [np.abs(s.orientation - first).max() < 1e-2 for s in slices]
    if not all(same):
        raise UnreadableScan.about(
            path,
            f"mixed orientations in one series ({sum(same)} slices one way, "
            f"{n - sum(same)} another)",
            "parallel slices",
            "Export one stack as its own series",
        )
    for what, values in (
        ("sizes", Counter(f"{s.shape[1]}×{s.shape[0]}" for s in slices)),
        (
            "pixel spacings",
            Counter("×".join(f"{v:.4g}" for v in s.pixel_spacing_mm) for s in slices),
        ),
    ):
        if len(values) > 1:
            counts = ", ".join(f"{v} in {k} slices" for v, k in values.items())
            raise UnreadableScan.about(
                path,
                f"mixed {what} in one series ({counts})",
                "one for all slices",
                "Export one stack as its own series",
            )


def _check_rescale(
    path: Path, slices: list[Slice], notes: list[str], assume_hu: bool
) -> list[Slice]:
    """Refuse values that are not HU by their header; each slice keeps its own rescale."""
    types = {s.rescale_type for s in slices} - {"HU", ""}
    # "US" means unspecified. Plain CT says it for HU too; enhanced CT must say HU if it is HU.
    if all(s.frame is None for s in slices):
        types -= {"US"}
    missing = sum(np.isnan(s.slope) or np.isnan(s.intercept) for s in slices)
    if types:
        kind = "/".join(word for word in slices[0].image_type[2:] if word in IMAGE_WORDS)
        known = ", ".join(sorted(types & RESCALE_TYPES)) or "of no standard"
        found = f"rescale type {known} instead of HU" + (kind and f" ({kind})")
    elif missing:
        found = f"{missing} of {len(slices)} slices without rescale slope and intercept"
    elif any(s.slope <= 0 for s in slices):
        found = f"a rescale slope of {min(s.slope for s in slices):g}"
    else:
        return slices
    if not assume_hu:
        raise UnreadableScan.about(
            path,
            found,
            "CT in Hounsfield units",
            "Pass the original CT series, or pass assume_hu (--assume-hu) if it is right",
        )
    notes.append(f"Taken as HU on request, although there is {found}.")
    return [
        replace(
            s,
            slope=1.0 if s.slope == 0 or np.isnan(s.slope) else s.slope,
            intercept=0.0 if np.isnan(s.intercept) else s.intercept,
        )
        for s in slices
    ]


def _drop_duplicates(
    path: Path, slices: list[Slice], pixels: Pixels, notes: list[str]
) -> list[Slice]:
    """Slices sorted by depth, one at each position; identical copies go, different ones refuse."""
    depth = {id(s): float(s.position @ slices[0].normal) for s in slices}
    slices = sorted(slices, key=lambda s: (depth[id(s)], str(s.path)))
    kept, n_copies, n_conflicts = slices[:1], 0, 0
    for s in slices[1:]:
        if depth[id(s)] - depth[id(kept[-1])] > 0.01:
            kept.append(s)
        elif np.array_equal(pixels.hu(s), pixels.hu(kept[-1])):
            n_copies += 1
        else:
            n_conflicts += 1
    if n_conflicts:
        n_acquisitions = len({s.acquisition for s in slices})
        raise UnreadableScan.about(
            path,
            f"{len(slices)} images at {len(kept)} positions, {n_conflicts} of them different "
            f"from another at the same place ({n_acquisitions} acquisition numbers)",
            "one image at each position",
            "Pass one phase or reconstruction at a time",
        )
    if n_copies:
        notes.append(f"{n_copies} identical copies of slices were dropped.")
    return kept


def _affine(path: Path, slices: list[Slice]) -> np.ndarray:
    """Affine in RAS+ mm of slices sorted by depth; refuses gaps, uneven and drifting stacks."""
    if len(slices) < 2:
        raise UnreadableScan.about(
            path, "1 slice", "a series", "Pass the folder that holds all slices of the series"
        )
    first = slices[0]
    positions = np.array([s.position for s in slices])  # (n, 3) LPS
    depth = positions @ first.normal
    gaps = np.diff(depth)
    _refuse_uneven(path, depth, gaps)
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    line = positions[0] + _fraction(depth)[:, None] * (positions[-1] - positions[0])
    drift = np.linalg.norm(positions - line, axis=1).max()
    if drift > DRIFT_TOL_MM:
        raise UnreadableScan.about(
            path,
            f"slices shifted by up to {drift:.1f} mm beside each other",
            "a stack along a straight line",
            "Export the original axial series",
        )
    row_mm, column_mm = first.pixel_spacing_mm
    along_row, along_column = (d / np.linalg.norm(d) for d in first.orientation)
    affine = np.eye(4)
    affine[:3] = np.column_stack([along_row * column_mm, along_column * row_mm, step, positions[0]])
    affine[:2] *= -1  # LPS to RAS
    return affine


def _fraction(depth: np.ndarray) -> np.ndarray:
    """Depths as 0 at the first slice and 1 at the last."""
    return (depth - depth[0]) / (depth[-1] - depth[0])


def _refuse_uneven(path: Path, depth: np.ndarray, gaps: np.ndarray) -> None:
    """Refuse missing slices, by position, and any other uneven spacing, by its numbers."""
    usual = float(np.median(gaps))
    tolerance = max(SPACING_TOL * usual, SPACING_TOL_MM)
    if np.abs(depth - np.linspace(depth[0], depth[-1], len(depth))).max() <= tolerance:
        return
    wrong = np.flatnonzero(np.abs(gaps - usual) > tolerance)
    multiples = gaps[wrong] / usual
    n_missing = np.rint(multiples).astype(int) - 1
    is_gap = (n_missing >= 1) & (np.abs(gaps[wrong] - (n_missing + 1) * usual) <= 2 * tolerance)
    if len(wrong) and is_gap.all() and n_missing.sum() <= len(depth):
        places = "; ".join(
            f"{k} between {depth[i]:.1f} and {depth[i + 1]:.1f} mm"
            for i, k in zip(wrong[:5], n_missing, strict=False)
        )
        raise UnreadableScan.about(
            path,
            f"{n_missing.sum()} missing slices: {places} (positions along the slice normal; "
            f"the others are {usual:.2f} mm apart)",
            "a stack without gaps",
            "Copy the missing files again",
        )
    sizes = Counter(f"{g:.2f}" for g in gaps)
    common = ", ".join(f"{k} × {g} mm" for g, k in sizes.most_common(5))
    raise UnreadableScan.about(
        path,
        f"uneven slice spacing (gaps: {common}; positions {depth[0]:.1f} to {depth[-1]:.1f} mm)",
        f"even spacing within {tolerance:.2f} mm",
        "Export each evenly spaced part by itself",
    )
