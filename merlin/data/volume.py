"""NIfTI files and DICOM folders become HU volumes with geometry; what is not CT in HU is refused.

Files are read by `merlin.data.nifti` and `merlin.data.dicom`, and held to what a CT can be by
`merlin.data.plausible`. Axes and refusals: `merlin.data.scan`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from merlin.data import dicom
from merlin.data.dicom_stack import read_series
from merlin.data.nifti import read_nifti
from merlin.data.plausible import MIN_SLICES, checked
from merlin.data.scan import Volume, refuse_other_formats, refusing
from merlin.data.tree import walk
from merlin.words import shown


@dataclass(frozen=True)
class Source:
    """What a path turned out to be: a NIfTI file, or the DICOM series chosen from it."""

    path: Path
    files: tuple[Path, ...]
    series: dicom.Series | None = None


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
        inside, said = [path], list[str]()
        with suppress(OSError):  # what cannot be looked at is refused when it is read
            if path.is_dir():
                inside, said = _expand(path)
        scans.update(dict.fromkeys(inside))
        notes += [f"{shown(path)}: {note}" for note in said]
    return list(scans), notes


def _expand(folder: Path) -> tuple[list[Path], list[str]]:
    found = walk(folder)
    nifti = [p for p in found.files if _is_nifti_name(p)]
    if not nifti:
        studies = dicom.study_folders(filter(_is_dicom, found.files))
        said = [f"{len(studies)} studies in folders of their own, a scan each."] if studies else []
        return studies or [folder], said  # the reader of a folder says what it left out
    holding = {parent for p in nifti for parent in p.parents}
    scans, n_other, beside = set(nifti), 0, Counter[Path]()
    for path in set(found.files) - scans:
        home = path.parent
        if not _is_dicom(path):
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


def _is_dicom(path: Path) -> bool:
    with suppress(OSError):  # what cannot be looked at is none
        return dicom.looks_like_dicom(path)
    return False


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
    if path.is_file() and not dicom.looks_like_dicom(path):
        return Source(path, (path,))
    series = dicom.find_series(path)
    return Source(path, series.files, series)


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
        volume = read_nifti(source.path, assume_hu=assume_hu)
    else:
        volume = read_series(source.path, source.series, assume_hu=assume_hu)
    return checked(source.path, volume, assume_hu=assume_hu, min_slices=min_slices)
