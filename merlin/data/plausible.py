"""Whether values and geometry can be those of a CT in HU; what can't is refused with its numbers.

A file tag decides where there is one (DICOM). NIfTI has none, so values are judged by their
statistics: CT reaches about −1000 HU (air) and has soft tissue around 0..100 HU. These checks
catch exports that went wrong. They do not show that a scan is fit for a diagnosis.
"""

from pathlib import Path

import numpy as np

from merlin.data.scan import FILL_HU, UnreadableScan, Volume, connected_to_corners, triple

MIN_SLICES = 8  # fewer planes than this on any axis are not a volume
SPACING_RANGE_MM = (0.1, 20.0)  # beyond these a header is wrong: clinical CT has 0.2..10 mm
MAX_EXTENT_MM = 2500.0  # a whole-body scan of a tall patient has 2000 mm
MAX_SHEAR_DEG = 35.0  # scanners tilt by at most 30 degrees
SMALL_EXTENT_MM = (200.0, 60.0)  # in plane, and along S: less is no whole abdomen
MAX_ORIGIN_MM = 1e5  # a voxel lies within 100 m of the scanner
AIR_HU = -500.0  # some of any CT lies below: air, lung or padding
PADDING_HU = -1500.0  # at or below lies only padding: -2000, -2048, -3024
IMPLAUSIBLE_HU = 32767.0  # extended CT scales stay below
SAMPLE_PER_AXIS = 80  # voxels an axis that the statistics look at
OFFSETS = tuple(s << k for k in range(10, 16) for s in (1, -1))  # what writers add to HU
_EXPORT = "Export it again in HU, without windowing"


def checked(
    path: Path, volume: Volume, *, assume_hu: bool = False, min_slices: int = MIN_SLICES
) -> Volume:
    """The volume with zero padding turned into air, and what is odd among its notes.

    Parameters
    ----------
    path : Path
        For messages.
    volume : Volume
    assume_hu, min_slices
        As in `merlin.data.volume.load_volume`.

    Raises
    ------
    UnreadableScan
    """
    notes = [*volume.notes, *_check_geometry(path, volume, min_slices)]
    hu = _check_values(path, volume.hu, assume_hu, notes)
    _check_planes(path, Volume(hu, volume.affine), assume_hu, notes)
    return Volume(hu, volume.affine, tuple(notes))


def _check_geometry(path: Path, volume: Volume, min_slices: int) -> list[str]:
    """Refuse implausible spacing, extent, shear and too few slices; note odd ones."""
    spacing, shape = np.array(volume.spacing_mm), volume.hu.shape
    extent = spacing * shape
    low, high = SPACING_RANGE_MM
    unit = volume.affine[:3, :3] / spacing
    shear = float(np.degrees(np.arcsin(np.abs(np.triu(unit.T @ unit, 1)).max().clip(0, 1))))
    if min(shape) < min_slices:
        axis = "RAS"["LRPAIS".index(volume.orientation[int(np.argmin(shape))]) // 2]
        raise UnreadableScan.about(
            path,
            found=f"{min(shape)} slices along {axis} ({'×'.join(map(str, shape))} voxels)",
            expected=f"at least {min_slices} on each axis",
            mend="Pass the whole series, not a part of it",
        )
    if spacing.min() < low or spacing.max() > high or extent.max() > MAX_EXTENT_MM:
        raise UnreadableScan.about(
            path,
            f"voxels of {triple(spacing)} mm, an extent of {triple(extent)} mm",
            f"voxels of {low}..{high} mm and an extent up to {MAX_EXTENT_MM:.0f} mm",
            "Correct the spacing or its unit (xyzt_units) in the header",
        )
    if not np.abs(volume.affine[:3, 3]).max() <= MAX_ORIGIN_MM:
        raise UnreadableScan.about(
            path,
            f"an origin {np.abs(volume.affine[:3, 3]).max():.3g} mm away",
            f"one within {MAX_ORIGIN_MM:g} mm",
            "Correct the affine in the header, or convert the scan again",
        )
    if shear > MAX_SHEAR_DEG:
        raise UnreadableScan.about(
            path,
            f"axes sheared by {shear:.1f} degrees",
            f"at most {MAX_SHEAR_DEG:.0f}, a gantry tilt",
            "The orientation is contradictory; convert the scan again",
        )
    notes = []
    if shear > 0.5:
        notes.append(
            f"The slices are sheared by {shear:.1f} degrees (gantry tilt); undone on resampling."
        )
    on_axis = dict(zip(("LRPAIS".index(c) // 2 for c in volume.orientation), extent, strict=True))
    if min(on_axis[0], on_axis[1]) < SMALL_EXTENT_MM[0] or on_axis[2] < SMALL_EXTENT_MM[1]:
        size = " × ".join(f"{on_axis[a]:.0f}" for a in range(3))
        notes.append(
            f"This covers {size} mm (R, A, S); the model was trained on whole abdomens, "
            "so check that it shows one."
        )
    return notes


def _check_values(path: Path, hu: np.ndarray, assume_hu: bool, notes: list[str]) -> np.ndarray:
    """Refuse what is not CT in HU; return the values with zero padding turned into air."""
    expected = "CT in Hounsfield units: about -1000 (air), soft tissue 0..100"
    low, high = float(hu.min()), float(hu.max())
    if not np.isfinite(low + high):  # min and max carry NaN and infinity through
        n = hu.size - np.count_nonzero(np.isfinite(hu))
        raise UnreadableScan.about(
            path,
            f"{n} voxels that are NaN or infinite",
            "finite HU",
            "Fill them with -1024 if they lie outside the scan, else export it again",
        )
    if low == high:
        raise UnreadableScan.about(
            path,
            f"the same value, {low:g}, in every voxel",
            expected,
            "Export the scan again; this one is empty",
        )
    stride = [max(1, n // SAMPLE_PER_AXIS) for n in hu.shape]
    sample = hu[:: stride[0], :: stride[1], :: stride[2]].ravel()
    if np.mean(sample == 0) > 0.05:
        hu = _air_for_padding(hu, sample, notes)
    oddity = _oddity(sample, low, high)
    if oddity is not None:
        found, mend = _constant_offset(sample) or oddity
        if not assume_hu:
            raise UnreadableScan.about(
                path,
                f"smallest value {low:g}, largest {high:g}: {found}",
                expected,
                f"{mend}, or pass assume_hu (--assume-hu) if it is right",
            )
        notes.append(f"Taken as HU on request, although the values look odd: {found}.")
    if low < -1100:
        notes.append(f"Values down to {low:g} (padding below air) are read as air.")
    return hu


def _check_planes(path: Path, volume: Volume, assume_hu: bool, notes: list[str]) -> None:
    """Refuse a stack with slices of one value between others: they were lost, and filled in."""
    (axis,) = (i for i, c in enumerate(volume.orientation) if c in "IS")
    planes = np.moveaxis(volume.hu, axis, 0)
    is_blank = np.array([plane.min() == plane.max() for plane in planes])
    held = np.flatnonzero(~is_blank)
    n = int(is_blank[held[0] : held[-1]].sum()) if len(held) else 0
    if n and not assume_hu:
        raise UnreadableScan.about(
            path,
            f"{n} of {len(planes)} slices between others hold one value alone",
            "an image in every slice",
            "Export or convert the scan again, or pass assume_hu (--assume-hu) if that is right",
        )
    if n:
        notes.append(f"{n} slices between others hold one value alone; taken so on request.")


def _air_for_padding(hu: np.ndarray, sample: np.ndarray, notes: list[str]) -> np.ndarray:
    """Turn zeros that fill the outside of a scan into air: 0 HU would be water.

    Only connected zeros that reach a corner of the volume and fill 1% of it count, and only where
    air exists elsewhere: a body reaches faces, but no corner.
    """
    if sample.min() > AIR_HU:
        return hu
    outside = connected_to_corners(hu == 0)
    share = outside.mean()
    if share < 0.01:
        return hu
    notes.append(f"{share:.0%} of the volume, exactly 0 at its corners, was padding; read as air.")
    return np.where(outside, hu.dtype.type(FILL_HU), hu)


def _constant_offset(v: np.ndarray) -> tuple[str, str] | None:
    """A number that turns a sample of values into HU: air near -1000, and most else near 0."""
    for offset in OFFSETS:
        hu = v - float(offset)
        hu = hu[hu > -1100]  # padding is lower; a wrong offset leaves little
        tissue = hu[hu > AIR_HU]
        if (
            len(hu) > 0.2 * len(v)
            and len(tissue) > 0.02 * len(v)
            and np.mean(abs(tissue) < 200) > 0.6
            and hu.min() < -900
        ):
            if offset < 0:
                return f"like HU rescaled twice, {-offset} below HU", f"Add {-offset}"
            known = ", as in CT-RATE's first release" if offset == 8192 else ""
            return f"like raw values, {offset} above HU{known}", f"Subtract {offset}"
    return None


def _oddity(v: np.ndarray, low: float, high: float) -> tuple[str, str] | None:
    """Say what a sample of values looks like instead of HU, and the mend."""
    if high > IMPLAUSIBLE_HU:
        return "beyond any HU, like signed numbers saved as unsigned", _EXPORT
    v = v[v > PADDING_HU]
    if len(v) and v.min() > AIR_HU:
        return _oddity_without_air(v, float(v.min()), high)
    if np.count_nonzero((v > -250) & (v < 350)) < 0.005 * len(v) or not len(v):
        return "no soft tissue, like HU rescaled twice or a wrong intercept", _EXPORT
    if high < 350 and np.mean(v >= high) > 0.001 and len(np.unique(v)) > 64:
        return f"cut off at {high:g}, like a windowed image", _EXPORT
    return None


def _oddity_without_air(v: np.ndarray, low: float, high: float) -> tuple[str, str]:
    is_whole = v.dtype.kind in "iu" or np.array_equal(v, np.rint(v))
    if high - low <= 30 and not is_whole:
        return "normalised to a small range", _EXPORT
    if low >= 0 and is_whole and high <= 150 and len(np.unique(v)) <= 150:
        return "few whole numbers, like a label map", "Pass the CT, not its segmentation"
    if low >= 0 and high <= 255:
        return "rescaled to 8 bit", _EXPORT
    if np.mean(v <= low) > 0.01 and np.mean(v >= high) > 0.001:
        return f"cut off at {low:g} and {high:g}, like a windowed image", _EXPORT
    if low > -150 and np.percentile(v, 95) > 300:
        return "no air at -1000, and values spread as in MR", "Pass a CT scan"
    return "no air at -1000, like a piece cut from inside the body, or MR", "Pass the whole scan"
