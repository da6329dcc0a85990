"""What a CT scan is here, and how one is refused: what all readers of scans share.

Axis order, for the whole package: oriented arrays are (R, A, S), that is the index grows from the
patient's left to right, posterior to anterior, inferior to superior; batches are (B, 1, R, A, S).
A `Volume` keeps its stored axes (i, j, k) and an affine from voxel index to RAS+ millimetres;
`merlin.data.preprocess` orients it.
"""

import errno
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from merlin.words import shown

FILL_HU = -1024  # what padding becomes
SMALL_SCAN = 1 << 23  # voxels that a file of any size may claim: the paper's grid has 8 million
PER_BYTE = 16  # voxels a byte of file: CT packs to 3 voxels a byte, lossy JPEG 2000 to 10
LARGEST_SCAN = 1 << 30  # voxels, in a file of any size
SETTING = "MERLIN_MOST_VOXELS"  # environment: voxels to allow instead
MACHINES = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # no scan's fault
_TALKERS = ("pydicom", "nibabel")
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
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return i, j, k

    @property
    def orientation(self) -> str:
        """Where i, j and k point, for example "LPS"."""
        return "".join(nib.aff2axcodes(self.affine))


class UnreadableScan(ValueError):
    """A file or folder that can't become a CT volume; the message says why and what to do."""

    @classmethod
    def about(cls, name: str | Path, found: str, expected: str, mend: str) -> "UnreadableScan":
        """Word the message `NAME: found …. Expected …. Mend: ….`; NAME is a path, never a tag."""
        return cls(f"{shown(name)}: found {found}. Expected {expected}. Mend: {mend}.")


def is_machines(error: BaseException) -> bool:
    """Whether an error is the machine's: no memory, a full disk, too many open files."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in MACHINES


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


@contextmanager
def turned(refusal: Callable[[Exception], UnreadableScan]) -> Iterator[None]:
    """Turn whatever a library raises into a refusal.

    What is the machine's fault (no memory, a full disk), and a path that does not exist, pass.
    """
    try:
        yield
    except (UnreadableScan, FileNotFoundError):
        raise
    except Exception as error:
        if is_machines(error):
            raise
        raise refusal(error) from error


@contextmanager
def refusing(path: str | Path) -> Iterator[None]:
    """Turn whatever a library raises on one scan into its `UnreadableScan`, with the kind alone.

    Libraries' own text stays inside: it quotes headers. So do their warnings.
    """

    def unreadable(error: Exception) -> UnreadableScan:
        number = getattr(error, "errno", None)
        said = type(error).__name__ + (f", {errno.errorcode.get(number, number)}" if number else "")
        return UnreadableScan.about(
            path,
            f"a file that is damaged or may not be read ({said})",
            "a NIfTI file or DICOM",
            "Look at its rights, and copy or export it again",
        )

    with turned(unreadable), unheard():
        yield


def refuse_other_formats(path: Path, start: bytes) -> None:
    """Name what a file is instead, by its first bytes."""
    formats = _OTHER_FORMATS if start else ((b"", "an empty file", "Copy or download it again"),)
    for magic, what, mend in formats:
        if start.lstrip().startswith(magic):
            raise UnreadableScan.about(path, what, "a NIfTI file or DICOM", mend)


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
            f"{claim} claimed by {n_bytes:,} bytes, which count as {n:,} voxels",
            f"at most {most:,} in so many bytes",
            f"Export the scan again; if it is right, set {SETTING}={n} in the environment",
        )


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


def connected_to_corners(mask: np.ndarray) -> np.ndarray:
    """Keep the parts of a mask, of any dimension, that reach one of its corners."""
    labels, n = ndimage.label(mask)
    is_kept = np.zeros(n + 1, bool)
    is_kept[labels[np.ix_(*[(0, -1)] * mask.ndim)]] = True
    is_kept[0] = False
    return np.stack([is_kept[plane] for plane in labels])  # all at once would take 8 bytes a voxel


def triple(values: np.ndarray) -> str:
    """Three lengths as messages write them."""
    return " × ".join(f"{v:.4g}" for v in values)
