"""NIfTI files and DICOM folders become HU volumes with geometry; what is not CT in HU is refused.

Axis order, for the whole package: oriented arrays are (R, A, S), that is the index grows from the
patient's left to right, posterior to anterior, inferior to superior; batches are (B, 1, R, A, S).
A `Volume` keeps its stored axes (i, j, k) and an affine from voxel index to RAS+ millimetres;
`merlin.data.preprocess` orients it. Files are read by `merlin.data.nifti` and
`merlin.data.dicom`.

A file tag decides where there is one (DICOM). NIfTI has none, so values are judged by their
statistics: CT reaches about −1000 HU (air) and has soft tissue around 0..100 HU. These checks
catch exports that went wrong. They do not show that a scan is fit for a diagnosis.
"""

import errno
import hashlib
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from scipy import ndimage

from merlin.data.tree import walk
from merlin.words import shown

if TYPE_CHECKING:
    from merlin.data.dicom import Series

MIN_SLICES = 8  # fewer planes than this on any axis are not a volume
SPACING_RANGE_MM = (0.1, 20.0)  # beyond these a header is wrong: clinical CT has 0.2..10 mm
MAX_EXTENT_MM = 2500.0  # a whole-body scan of a tall patient has 2000 mm
MAX_SHEAR_DEG = 35.0  # scanners tilt by at most 30 degrees
SMALL_EXTENT_MM = (200.0, 60.0)  # in plane, and along S: less is no whole abdomen
MAX_ORIGIN_MM = 1e5  # a voxel lies within 100 m of the scanner
AIR_HU = -500.0  # some of any CT lies below: air, lung or padding
PADDING_HU = -1500.0  # at or below lies only padding: -2000, -2048, -3024
FILL_HU = -1024  # what padding becomes
IMPLAUSIBLE_HU = 32767.0  # extended CT scales stay below
SAMPLE_PER_AXIS = 80  # voxels an axis that the statistics look at
OFFSETS = tuple(s << k for k in range(10, 16) for s in (1, -1))  # what writers add to HU
SMALL_SCAN = 1 << 23  # voxels that a file of any size may claim: the paper's grid has 8 million
PER_BYTE = 16  # voxels a byte of file: CT packs to 3 voxels a byte, lossy JPEG 2000 to 10
LARGEST_SCAN = 1 << 30  # voxels, in a file of any size
SETTING = "MERLIN_MOST_VOXELS"  # environment: voxels to allow instead
MACHINES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # no scan's fault

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
        return cls(f"{shown(name)}: found {found}. Expected {expected}. Mend: {mend}.")


def is_machines(error: BaseException) -> bool:
    """Whether an error is the machine's: no memory, a full disk, too many open files."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in MACHINES


def refuse_too_large(
    path: str | Path,
    claim: str,
    n: int,
    n_bytes: int,
    *,
    small: int = SMALL_SCAN,
    each: int = PER_BYTE,
) -> None:
    """Refuse what a header claims before room is made for it.

    Parameters
    ----------
    path : path
    claim : str
        What is claimed, for the message.
    n : int
        Voxels that it asks for.
    n_bytes : int
        Size of the file or files.
    small, each : int
        What any file may claim, and what each of its bytes may.

    Raises
    ------
    UnreadableScan
    """
    own = os.environ.get(SETTING, "")
    most = int(own) if own.isdecimal() else min(LARGEST_SCAN, max(small, each * n_bytes))
    if n > most:
        raise UnreadableScan.about(
            path,
            found=f"{claim} claimed by {n_bytes:,} bytes, which count as {n:,} voxels",
            expected=f"at most {most:,} in so many bytes",
            mend=f"Export the scan again; if it is right, set {SETTING}={n} in the environment",
        )


@contextmanager
def unheard() -> Iterator[None]:
    """Keep what libraries say of a file inside: their warnings and log records quote its header."""
    names = [n for n in logging.root.manager.loggerDict if n.split(".")[0] in _TALKERS]
    talkers = [logging.getLogger(name) for name in names]

    def drop(record: logging.LogRecord) -> bool:
        return False

    for logger in talkers:
        logger.addFilter(drop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger in talkers:
            logger.removeFilter(drop)


_TALKERS = ("pydicom", "nibabel")


@contextmanager
def refusing(path: str | Path) -> Iterator[None]:
    """Turn whatever a library raises on one scan into its `UnreadableScan`, with the kind alone.

    What is the machine's fault (no memory, a full disk), and a path that does not exist, pass.
    Libraries' own text stays inside: it quotes headers. So do their warnings.
    """
    try:
        with unheard():
            yield
    except (UnreadableScan, FileNotFoundError):
        raise
    except Exception as error:
        if is_machines(error):
            raise
        number = getattr(error, "errno", None)
        said = type(error).__name__ + (f", {errno.errorcode.get(number, number)}" if number else "")
        raise UnreadableScan.about(
            path,
            found=f"a file that is damaged or may not be read ({said})",
            expected="a NIfTI file or DICOM",
            mend="Look at its rights, and copy or export it again",
        ) from error


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
        Go on with a note where values look windowed, rescaled, like MR or otherwise unlike HU.
        Constant or non-finite values, wrong dimensions, and DICOM that says it is no CT are refused
        all the same.
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
    with refusing(path):
        return read(locate(path), assume_hu=assume_hu, min_slices=min_slices)


def find_scans(paths: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """Expand files and folders to scans, for a command line.

    A file is a scan. A folder holding NIfTI files, itself or further down, expands to them and
    to its DICOM subfolders; any other folder is one scan, or one for each DICOM study that has a
    folder of its own. DICOM that lies beside NIfTI is not taken. Paths that hold no scan come back
    as they are: reading them says why.

    Parameters
    ----------
    paths : iterable of path

    Returns
    -------
    scans : list of Path
        In the order given; sorted within a folder; each once.
    notes : list of str
        What a folder holds and was not taken.
    """
    scans: dict[Path, None] = {}
    notes = []
    for path in map(Path, paths):
        inside, said = [path], []
        with suppress(OSError):  # what cannot be looked at is refused when it is read
            if path.is_dir():
                inside, said = _expand(path)
        scans.update(dict.fromkeys(inside))
        notes += [f"{shown(path)}: {note}" for note in said]
    return list(scans), notes


def _expand(folder: Path) -> tuple[list[Path], list[str]]:
    from merlin.data import dicom

    found = walk(folder)
    nifti = [p for p in found.files if _is_nifti_name(p)]
    if not nifti:
        is_dicom = []
        for path in found.files:
            with suppress(OSError):
                is_dicom += [path] if dicom.looks_like_dicom(path) else []
        studies = dicom.study_folders(is_dicom)
        said = [f"{len(studies)} studies in folders of their own, a scan each."] if studies else []
        return studies or [folder], said  # the reader of a folder says what it left out
    holding = {parent for p in nifti for parent in p.parents}
    scans, n_other, beside = set(nifti), 0, Counter()
    for path in set(found.files) - scans:
        home, is_dicom = path.parent, False
        with suppress(OSError):
            is_dicom = dicom.looks_like_dicom(path)
        if not is_dicom:
            n_other += 1
        elif home in holding:
            beside[home] += 1
        else:
            while home.parent not in holding:
                home = home.parent
            scans.add(home)
    for home in sorted(s for s in scans if s.is_dir()):
        scans = scans - {home} | set(_expand(home)[0])
    notes = [
        f"{n} DICOM files beside NIfTI in {shown(home.relative_to(folder.parent))}/ were not read: "
        "give them a folder of their own."
        for home, n in sorted(beside.items())
    ]
    if n_other:
        notes.append(f"{n_other} files that are neither NIfTI nor DICOM were ignored.")
    return sorted(scans), [*notes, *found.notes]


def _is_nifti_name(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def locate(path: str | Path) -> Source:
    """Find out what `path` is, reading headers only; raises as `load_volume` does."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{shown(path)}: no such file or folder")
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(512)
        refuse_other_formats(path, start)
    from merlin.data import dicom  # here, as that module builds on this one

    if path.is_file() and not dicom.looks_like_dicom(path):
        return Source(path, (path,))
    series = dicom.find_series(path)
    return Source(path, series.files, series)


def refuse_other_formats(path: Path, start: bytes) -> None:
    """Name what a file is instead, by its first bytes."""
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
        from merlin.data import nifti

        volume = nifti.read_nifti(source.path, assume_hu=assume_hu)
    else:
        from merlin.data import dicom_stack

        volume = dicom_stack.read_series(source.path, source.series, assume_hu=assume_hu)
    notes = [*volume.notes, *_check_geometry(source.path, volume, min_slices)]
    hu = _check_values(source.path, volume.hu, assume_hu, notes)
    _check_planes(source.path, Volume(hu, volume.affine), assume_hu, notes)
    return Volume(hu, volume.affine, tuple(notes))


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
            found=f"{n} of {len(planes)} slices between others hold one value alone",
            expected="an image in every slice",
            mend="Export or convert the scan again, or pass assume_hu (--assume-hu) if that is right",
        )
    if n:
        notes.append(f"{n} slices between others hold one value alone; taken so on request.")


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


def triple(values: np.ndarray) -> str:
    """Three lengths as messages write them."""
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
            found=f"voxels of {triple(spacing)} mm, an extent of {triple(extent)} mm",
            expected=f"voxels of {low}..{high} mm and an extent up to {MAX_EXTENT_MM:.0f} mm",
            mend="Correct the spacing or its unit (xyzt_units) in the header",
        )
    if not np.abs(volume.affine[:3, 3]).max() <= MAX_ORIGIN_MM:
        raise UnreadableScan.about(
            path,
            found=f"an origin {np.abs(volume.affine[:3, 3]).max():.3g} mm away",
            expected=f"one within {MAX_ORIGIN_MM:g} mm",
            mend="Correct the affine in the header, or convert the scan again",
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
        found, mend = _constant_offset(sample) or oddity
        if not assume_hu:
            raise UnreadableScan.about(
                path,
                found=f"smallest value {low:g}, largest {high:g}: {found}",
                expected=expected,
                mend=f"{mend}, or pass assume_hu (--assume-hu) if it is right",
            )
        notes.append(f"Taken as HU on request, although the values look odd: {found}.")
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
    labels, n = ndimage.label(mask)
    is_kept = np.zeros(n + 1, bool)
    is_kept[labels[np.ix_(*[(0, -1)] * mask.ndim)]] = True
    is_kept[0] = False
    return np.stack([is_kept[plane] for plane in labels])  # all at once would take 8 bytes a voxel


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
