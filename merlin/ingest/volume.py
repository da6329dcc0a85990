"""NIfTI files and DICOM folders become HU volumes with geometry; what is not CT in HU is refused.

Axis order, for the whole package: oriented arrays are (R, A, S), that is the index grows from the
patient's left to right, posterior to anterior, inferior to superior; batches are (B, 1, R, A, S).
A `Volume` keeps its stored axes (i, j, k) and an affine from voxel index to RAS+ millimetres;
`merlin.ingest.preprocess` orients it. DICOM folders are read by `merlin.ingest.dicom`.

A file tag decides where there is one (DICOM). NIfTI has none, so values are judged by their
statistics: CT reaches about −1000 HU (air) and has soft tissue around 0..100 HU. These checks
catch exports that went wrong. They do not show that a scan is fit for a diagnosis.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from merlin.ingest.dicom import Series

MIN_SLICES = 8  # fewer planes than this on any axis are not a volume
SPACING_RANGE_MM = (0.1, 20.0)  # beyond these a header is wrong: clinical CT has 0.2..10 mm
MAX_EXTENT_MM = 2500.0  # a whole-body scan of a tall patient has 2000 mm
MAX_SHEAR_DEG = 35.0  # scanners tilt by at most 30 degrees
SMALL_EXTENT_MM = (200.0, 60.0)  # in plane, and along S: less is no whole abdomen
FORMS_TOL_MM = 1.0  # how far sform and qform may place a corner apart unnoticed
AIR_HU = -500.0  # some of any CT lies below: air, lung or padding
PADDING_HU = -1500.0  # at or below lies only padding: -2000, -2048, -3024
FILL_HU = -1024  # what padding becomes
IMPLAUSIBLE_HU = 32767.0  # extended CT scales stay below
SAMPLE_PER_AXIS = 80  # voxels an axis that the statistics look at
UNITS_MM = {1: 1000.0, 3: 0.001}  # NIfTI xyzt_units: metre, micrometre; all others are read as mm

_EXPORT = "Export it again in HU, without windowing"
_OTHER_FORMATS = (  # (first bytes, what it is, mend)
    (b"version https://git-lfs", "a git-LFS pointer, not the scan", "Run `git lfs pull`"),
    (b"<", "an HTML or XML page, not a scan", "Download the file again; the server sent a page"),
    (b"PK\x03\x04", "a ZIP archive", "Unpack it and pass the folder"),
    (b"NRRD", "an NRRD file", "Convert it to NIfTI"),
    (b"ObjectType", "a MetaImage file", "Convert it to NIfTI"),
    (b"\x89HDF", "an HDF5 file", "Convert it to NIfTI"),
    (b"\x93NUMPY", "a NumPy array without geometry", "Save it as NIfTI with its affine"),
    (b"\x89PNG", "a PNG picture", "Export the DICOM series"),
    (b"\xff\xd8\xff", "a JPEG picture", "Export the DICOM series"),
)


class UnreadableScan(ValueError):
    """A file or folder that can't become a CT volume; the message says why and what to do."""

    @classmethod
    def about(cls, name: str | Path, *, found: str, expected: str, mend: str) -> "UnreadableScan":
        """Word the message `NAME: found …. Expected …. Mend: ….`; NAME is a path, never a tag."""
        return cls(f"{name}: found {found}. Expected {expected}. Mend: {mend}.")


@dataclass(frozen=True, eq=False)
class Volume:
    """One CT volume as stored.

    Attributes
    ----------
    hu : (i, j, k) int16 or float32
        Hounsfield units; int16 where that loses nothing. May be read-only, in any memory order.
    affine : (4, 4) float64
        From voxel index to RAS+ millimetres. A tilted gantry leaves it sheared.
    notes : tuple of str
        Each choice and warning as a sentence, free of names, identifiers and dates.
    """

    hu: np.ndarray
    affine: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along i, j and k."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def orientation(self) -> str:
        """Where i, j and k point, for example "LPS"."""
        return "".join(nib.aff2axcodes(self.affine))


@dataclass(frozen=True)
class Source:
    """What a path turned out to be: a NIfTI file, or the DICOM series chosen from it."""

    path: Path
    files: tuple[Path, ...]
    series: "Series | None" = None


def load_volume(
    path: str | Path, *, assume_hu: bool = False, min_slices: int = MIN_SLICES
) -> Volume:
    """Read a NIfTI file, a DICOM folder (searched with its subfolders) or a multi-frame file.

    Of several series the one with most axial slices is taken, as the paper does.

    Parameters
    ----------
    path : path
        The content decides, not the ending: a misnamed file is read and noted.
    assume_hu : bool
        Go on with a note where values look windowed, rescaled or otherwise unlike HU. Constant
        or non-finite values, MR and wrong dimensions are refused all the same.
    min_slices : int
        Fewest voxels accepted on any axis.

    Returns
    -------
    Volume

    Raises
    ------
    UnreadableScan
        Message: path as given, what was found, what was expected, how to mend it.
    FileNotFoundError
    """
    return read(locate(path), assume_hu=assume_hu, min_slices=min_slices)


def find_scans(paths: Iterable[str | Path]) -> list[Path]:
    """Expand files and folders to scans, for a command line.

    A file is a scan. A folder holding NIfTI files, itself or further down, expands to them and
    to its DICOM subfolders; a folder with DICOM alone is one scan.

    Parameters
    ----------
    paths : iterable of path

    Returns
    -------
    list of Path
        In the order given; sorted within a folder; each once.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or a folder holds no scan.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        _require(path)
        scans = _expand(path) if path.is_dir() else [path]
        if not scans:
            raise FileNotFoundError(
                f"{path}: neither a NIfTI file (.nii, .nii.gz) nor DICOM in this folder"
            )
        found.update(dict.fromkeys(scans))
    return list(found)


def _expand(folder: Path) -> list[Path]:
    from merlin.ingest import dicom

    inside = sorted(p for p in folder.rglob("*") if not p.name.startswith("."))
    if not any(p.is_file() and _is_nifti_name(p) for p in inside):
        return [folder] if any(p.is_file() and dicom.looks_like_dicom(p) for p in inside) else []
    children = [p for p in inside if p.parent == folder]
    scans = [p for p in children if p.is_file() and _is_nifti_name(p)]
    return scans + [s for p in children if p.is_dir() for s in _expand(p)]


def _is_nifti_name(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _require(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")


def locate(path: str | Path) -> Source:
    """Find out what `path` is, reading headers only; raises as `load_volume` does."""
    path = Path(path)
    _require(path)
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(512)
        _refuse_other_formats(path, start)
    from merlin.ingest import dicom  # here, as that module builds on this one

    if path.is_file() and not dicom.looks_like_dicom(path):
        return Source(path, (path,))
    series = dicom.find_series(path)
    return Source(path, series.files, series)


def _refuse_other_formats(path: Path, start: bytes) -> None:
    expected = "a NIfTI file or DICOM"
    if not start:
        raise UnreadableScan.about(
            path, found="an empty file", expected=expected, mend="Copy or download it again"
        )
    for magic, what, mend in _OTHER_FORMATS:
        if start.lstrip().startswith(magic):
            raise UnreadableScan.about(path, found=what, expected=expected, mend=mend)


def content_digest(source: Source) -> str:
    """SHA-256 of the files' contents and of the choices made, whatever the files are called."""
    parts = []
    for path in source.files:
        now = path.stat()
        parts.append(_file_digest(path, now.st_size, now.st_mtime_ns))
    notes = source.series.notes if source.series else ()
    return hashlib.sha256("\n".join([*sorted(parts), *notes]).encode()).hexdigest()


@lru_cache(maxsize=100_000)
def _file_digest(path: Path, size: int, mtime_ns: int) -> str:
    """Read once in a process as long as size and time of change stay; training asks every epoch."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(source: Source, *, assume_hu: bool = False, min_slices: int = MIN_SLICES) -> Volume:
    """Read the voxels of a located source; see `load_volume`."""
    if source.series is None:
        volume = _read_nifti(source.path)
    else:
        from merlin.ingest import dicom

        volume = dicom.read_series(source.path, source.series, assume_hu=assume_hu)
    notes = [*volume.notes, *_check_geometry(source.path, volume, min_slices)]
    hu = _check_values(source.path, volume.hu, assume_hu, notes)
    return Volume(hu, volume.affine, tuple(notes))


def smallest_lossless(values: np.ndarray) -> np.ndarray:
    """As int16 if that changes no value, else as float32."""
    if values.dtype == np.int16:
        return values
    if values.dtype.kind == "f":
        sample = values.ravel(order="K")[:4096]
        if not np.array_equal(sample, np.rint(sample)):
            return values.astype(np.float32, copy=False)
    low, high = values.min(), values.max()
    if low >= -32768 and high <= 32767:  # False for NaN
        small = values.astype(np.int16)
        if values.dtype.kind in "iu" or np.array_equal(small, values):
            return small
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused as such
        return values.astype(np.float32, copy=False)


def _read_nifti(path: Path) -> Volume:
    raw, notes = _nifti_bytes(path)
    header = _nifti_header(path, raw)
    shape = _nifti_shape(path, header)
    dtype = header.get_data_dtype()
    offset, n = int(header["vox_offset"]), int(np.prod(shape))
    if len(raw) < offset + n * dtype.itemsize:
        raise UnreadableScan.about(
            path,
            found=f"{max(len(raw) - offset, 0)} bytes of voxels",
            expected=f"{n * dtype.itemsize} for {'×'.join(map(str, shape))} {dtype.name}",
            mend="The file is truncated; copy or download it again",
        )
    stored = np.frombuffer(raw, dtype, n, offset).reshape(shape, order="F")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    hu = stored if dtype.isnative else stored.astype(dtype.newbyteorder("="))
    if (
        np.isfinite(slope)
        and slope != 0
        and np.isfinite(intercept)
        and (slope, intercept) != (1, 0)
    ):
        is_integer = dtype.kind in "iu" and slope.is_integer() and intercept.is_integer()
        hu = hu * np.array(slope, "i8" if is_integer else "f8")
        hu += np.array(intercept, hu.dtype)
    affine, more = _nifti_affine(path, header)
    return Volume(smallest_lossless(hu), affine, (*notes, *more))


def _nifti_bytes(path: Path) -> tuple[bytes, list[str]]:
    """Read the file, unpacked if it is gzip whatever the ending says."""
    raw, notes = path.read_bytes(), []
    is_gzip = raw[:2] == b"\x1f\x8b"
    if is_gzip:
        try:
            raw = _unpack(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UnreadableScan.about(
                path,
                found=f"gzip data that end early or are damaged ({error})",
                expected="a complete .nii.gz",
                mend="Copy or download it again",
            ) from error
        _refuse_other_formats(path, raw[:512])
    if is_gzip != path.name.lower().endswith(".gz"):
        notes.append(f"The file is {'' if is_gzip else 'not '}gzip-compressed, unlike its name.")
    return raw, notes


def _unpack(packed: bytes) -> bytes:
    """Unpack gzip in one go: faster than a stream, because the size stands at the end."""
    size = int.from_bytes(packed[-4:], "little")
    inflate = zlib.decompressobj(wbits=31)
    raw = inflate.decompress(packed, min(size, 1000 * len(packed)) + 1)
    if inflate.eof and not inflate.unused_data:
        return raw
    return gzip.decompress(packed)  # several members, padding, or truncated: raises if so


def _nifti_header(path: Path, raw: bytes) -> nib.Nifti1Header:
    for size, magic, kind in ((348, b"n+1\0", nib.Nifti1Header), (540, b"n+2\0", nib.Nifti2Header)):
        at = 344 if size == 348 else 4
        if int(size) in (int.from_bytes(raw[:4], order) for order in ("little", "big")):
            if raw[at : at + 3] in (b"ni1", b"ni2"):
                found, mend = "the header of a .hdr/.img pair", "Save it as one .nii.gz"
            elif raw[at : at + 4] != magic:
                found, mend = "an Analyze header without orientation", "Save it as NIfTI"
            elif len(raw) < size:
                found, mend = f"{len(raw)} bytes, a truncated header", "Download it again"
            else:
                return kind(raw[:size], check=False)
            raise UnreadableScan.about(path, found=found, expected="NIfTI", mend=mend)
    raise UnreadableScan.about(
        path,
        found=f"{len(raw)} bytes that are neither NIfTI nor DICOM",
        expected="a NIfTI file (.nii, .nii.gz) or DICOM",
        mend="Check what the file is; it may be misnamed or damaged",
    )


def _nifti_shape(path: Path, header: nib.Nifti1Header) -> tuple[int, ...]:
    """Shape without trailing single axes; refuses colour, 2D and several time points."""
    expected, mend = "one 3D volume of plain numbers", "Export the CT volume itself as 3D NIfTI"
    n_dim = int(header["dim"][0])
    shape = tuple(int(n) for n in header["dim"][1 : n_dim + 1]) if 1 <= n_dim <= 7 else ()
    text = "×".join(map(str, shape))
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    try:
        dtype = header.get_data_dtype()
    except nib.spatialimages.HeaderDataError:
        dtype = np.dtype("V")
    if dtype.kind == "V" or dtype.kind == "c":
        what = {128: "RGB colour", 2304: "RGBA colour"}.get(int(header["datatype"]))
        found = what or f"data type {int(header['datatype'])}, which is no plain number"
    elif not shape or min(shape) < 1:
        found = f"an impossible shape ({text or n_dim})"
    elif len(shape) < 3 or 1 in shape:
        found = f"a 2D image ({text})"
    elif len(shape) > 3:
        found = f"{np.prod(shape[3:])} volumes in one file ({text}), several time points"
        mend = "Split it and pass the volume (phase) you want"
    else:
        return shape
    raise UnreadableScan.about(path, found=found, expected=expected, mend=mend)


def _nifti_affine(path: Path, header: nib.Nifti1Header) -> tuple[np.ndarray, list[str]]:
    """Affine in mm from sform, else qform; refuses what is absent or contradictory."""
    notes: list[str] = []
    zooms = np.asarray(header["pixdim"][1:4], float)

    def refuse(found: str, mend: str) -> UnreadableScan:
        return UnreadableScan.about(
            path, found=found, expected="one clear orientation and spacing in mm", mend=mend
        )

    if not (np.isfinite(zooms).all() and (zooms > 0).all()):
        raise refuse(f"voxel size pixdim {_triple(zooms)}", "Write the true spacing to the header")
    sform = header.get_sform() if int(header["sform_code"]) > 0 else None
    try:
        qform = header.get_qform() if int(header["qform_code"]) > 0 else None
    except ValueError as error:
        raise refuse("a qform that is no rotation", "Repair it from the source") from error
    if sform is None and qform is None:
        raise refuse(
            "no orientation (sform_code and qform_code are 0)",
            "Convert the DICOM again, or write the affine if you know it",
        )
    affine = np.array(qform if sform is None else sform, float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise refuse("an affine without volume (zero or non-finite columns)", "Repair the header")
    norms = np.linalg.norm(affine[:3, :3], axis=0)
    if np.any(np.abs(norms / zooms - 1) > 0.05):
        raise refuse(
            f"spacing {_triple(norms)} in the sform but {_triple(zooms)} in pixdim",
            "Find out which is true and make them agree",
        )
    if sform is not None and qform is not None:
        codes = "".join(nib.aff2axcodes(sform)), "".join(nib.aff2axcodes(qform))
        if codes[0] != codes[1]:
            raise refuse(
                f"a contradiction: sform says {codes[0]}, qform says {codes[1]}",
                "Find out which is true and set the other's code to 0",
            )
        apart = _corners_apart_mm(sform, qform, header["dim"][1:4])
        if apart > FORMS_TOL_MM:
            notes.append(f"sform and qform lie up to {apart:.1f} mm apart; the sform was used.")
    return affine, notes + _to_mm(affine, header)


def _corners_apart_mm(one: np.ndarray, other: np.ndarray, shape: np.ndarray) -> float:
    """Largest distance between where two affines place the same corner."""
    corners = np.array(np.meshgrid(*[(0, int(n) - 1) for n in shape])).reshape(3, -1)
    difference = (one - other)[:3]
    return float(np.linalg.norm(difference[:, :3] @ corners + difference[:, 3:], axis=0).max())


def _to_mm(affine: np.ndarray, header: nib.Nifti1Header) -> list[str]:
    """Scale `affine` in place if the header states another unit of length."""
    scale = UNITS_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    if scale == 1.0:
        return []
    affine[:3] *= scale
    unit = "metres" if scale > 1 else "micrometres"
    return [f"The header gives lengths in {unit}; they were converted to mm."]


def _triple(values: np.ndarray) -> str:
    return " × ".join(f"{v:.4g}" for v in values)


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
            found=f"voxels of {_triple(spacing)} mm, an extent of {_triple(extent)} mm",
            expected=f"voxels of {low}..{high} mm and an extent up to {MAX_EXTENT_MM:.0f} mm",
            mend="Correct the spacing or its unit (xyzt_units) in the header",
        )
    if shear > MAX_SHEAR_DEG:
        raise UnreadableScan.about(
            path,
            found=f"axes sheared by {shear:.1f} degrees",
            expected=f"at most {MAX_SHEAR_DEG:.0f}, a gantry tilt",
            mend="The orientation is contradictory; convert the scan again",
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
            found=f"{n} voxels that are NaN or infinite",
            expected="finite HU",
            mend="Fill them with -1024 if they lie outside the scan, else export it again",
        )
    if low == high:
        raise UnreadableScan.about(
            path,
            found=f"the same value, {low:g}, in every voxel",
            expected=expected,
            mend="Export the scan again; this one is empty",
        )
    stride = [max(1, n // SAMPLE_PER_AXIS) for n in hu.shape]
    sample = hu[:: stride[0], :: stride[1], :: stride[2]].ravel()
    if np.mean(sample == 0) > 0.05:
        hu = _air_for_padding(hu, sample, notes)
    oddity = _oddity(sample, low, high)
    if oddity is not None:
        found, mend, is_mr = oddity
        if is_mr or not assume_hu:
            way_out = "" if is_mr else ", or pass assume_hu (--assume-hu) if it is right"
            raise UnreadableScan.about(
                path,
                found=f"smallest value {low:g}, largest {high:g}: {found}",
                expected=expected,
                mend=mend + way_out,
            )
        notes.append(f"Taken as HU on request, although it is {found}.")
    if low < -1100:
        notes.append(f"Values down to {low:g} (padding below air) are read as air.")
    return hu


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


def connected_to_corners(mask: np.ndarray) -> np.ndarray:
    """Keep the parts of a mask, of any dimension, that reach one of its corners."""
    labels, _ = ndimage.label(mask)
    reached = np.unique(labels[np.ix_(*[(0, -1)] * mask.ndim)])
    return np.isin(labels, reached[reached > 0])


def _oddity(v: np.ndarray, low: float, high: float) -> tuple[str, str, bool] | None:
    """Say what a sample of values looks like instead of HU, the mend, and whether it is MR."""
    if high > IMPLAUSIBLE_HU:
        return "beyond any HU, like signed numbers saved as unsigned", _EXPORT, False
    v = v[v > PADDING_HU]
    if len(v) and v.min() > AIR_HU:
        return _oddity_without_air(v, float(v.min()), high)
    if np.count_nonzero((v > -250) & (v < 350)) < 0.005 * len(v) or not len(v):
        return "no soft tissue, like HU rescaled twice or a wrong intercept", _EXPORT, False
    if high < 350 and np.mean(v >= high) > 0.001 and len(np.unique(v)) > 64:
        return f"cut off at {high:g}, like a windowed image", _EXPORT, False
    return None


def _oddity_without_air(v: np.ndarray, low: float, high: float) -> tuple[str, str, bool]:
    is_whole = v.dtype.kind in "iu" or np.array_equal(v, np.rint(v))
    if high - low <= 30 and not is_whole:
        return "normalised to a small range", _EXPORT, False
    if low >= 0 and is_whole and high <= 150 and len(np.unique(v)) <= 150:
        return "few whole numbers, like a label map", "Pass the CT, not its segmentation", False
    if low >= 0 and high <= 255:
        return "rescaled to 8 bit", _EXPORT, False
    bright = v[v > 500]
    if low > -100 and len(bright) > 0.02 * len(v) and np.mean(abs(bright - 1024.0) < 200) > 0.6:
        return "like raw values, 1024 above HU", "Apply the rescale intercept (-1024)", False
    if np.mean(v <= low) > 0.01 and np.mean(v >= high) > 0.001:
        return f"cut off at {low:g} and {high:g}, like a windowed image", _EXPORT, False
    if np.percentile(v, 95) > 300:
        return "no air at -1000, and values spread as in MR", "Pass a CT scan", True
    return "no air at -1000, like MR or a piece cut from inside the body", _EXPORT, False
