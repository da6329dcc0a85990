"""One DICOM file read: its header held to the file's size, and its slices as plain dataclasses.

Nothing is unpacked for what a header claims before the claim is held to the file's size. What a header
says as text stays inside: messages hold counts, positions and the standard's own words.
"""

import io
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from merlin.data.scan import UnreadableScan, turned, unheard
from merlin.words import shown

AXIAL_COSINE = 0.8  # slice normal against the body axis: gantries tilt by up to 30 degrees
MAX_FRAMES = 1 << 14  # of one file: perfusion over a minute has some thousands
FEW_FRAMES = 512  # that a file of any size may hold; a larger one holds one a kilobyte
SMALL_HEADER = 1 << 22  # bytes that a deflated file of any size may become
DEFLATED_PER_BYTE = 8  # elements cost a hundred times their bytes once they are read


@dataclass(frozen=True, eq=False)
class Slice:
    """Header of one image: a file, or one frame of a multi-frame file.

    Lengths in mm, LPS; what the header lacks is NaN.
    """

    path: Path
    frame: int | None
    position: np.ndarray  # (3,) centre of the first pixel
    orientation: np.ndarray  # (2, 3) directions along a row and down a column
    pixel_spacing_mm: np.ndarray  # (2,) between rows, between columns
    shape: tuple[int, int]  # rows, columns
    slope: float
    intercept: float
    rescale_type: str
    image_type: tuple[str, ...]
    acquisition: str

    @property
    def normal(self) -> np.ndarray:
        """Unit normal whose largest component is positive, so depth grows to L, P or S."""
        n = np.cross(self.orientation[0], self.orientation[1])
        return n * np.sign(n[np.argmax(np.abs(n))]) / np.linalg.norm(n)

    @property
    def is_axial(self) -> bool:
        """Whether the slice lies across the body; False where the header doesn't say."""
        return bool(abs(self.normal[2]) >= AXIAL_COSINE)


def read_file(path: Path, file: Path, **options: Any) -> Dataset:
    """Read a file, with or without preamble; `path` is what the user gave, for the message."""
    with reading(path, file), quietly(), _Held(io.FileIO(file)) as held:
        stream = _inflated(path, file, held)
        try:
            ds = pydicom.dcmread(stream, **options)
        except InvalidDicomError:
            stream.seek(0)
            ds = pydicom.dcmread(stream, force=True, **options)
        ds.buffer = None  # thousands of headers are kept at once
        return ds


def reading(path: Path, file: Path) -> AbstractContextManager[None]:
    """Turn errors into the refusal of a path for one file; their text may quote it, their kind not."""
    return turned(
        lambda error: UnreadableScan.about(
            path,
            f"{short(path, file)} with a damaged header ({type(error).__name__})",
            "complete DICOM files",
            "Copy the file again",
        )
    )


@contextmanager
def quietly() -> Iterator[None]:
    """While headers are read or asked for values: nothing of them is warned of or logged."""
    with unheard(), disable_value_validation():
        yield


class _Held(io.BufferedReader):
    """A file that makes no room for more than it holds, whatever length an element claims."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > 1 << 16:
            size = max(0, min(size, Path(self.name).stat().st_size - self.tell()))
        return super().read(size)


def _inflated(path: Path, file: Path, held: BinaryIO) -> BinaryIO:
    """A deflated file as one that is not, so far as its size may ask for; any other as it is."""
    if held.read(132)[128:] != b"DICM":
        held.seek(0)
    meta = read_dataset(held, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    at = held.tell()
    held.seek(0)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return held
    head, packed = held.read(at), held.read()
    most = max(SMALL_HEADER, DEFLATED_PER_BYTE * len(packed))
    raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most + 1)
    if len(raw) > most:
        raise UnreadableScan.about(
            path,
            f"{short(path, file)} of {len(head) + len(packed):,} bytes that inflates to more than "
            f"{most:,} (deflated transfer syntax)",
            f"at most {most:,} from so many bytes",
            "Transcode it to Explicit VR Little Endian (for example with gdcmconv --raw)",
        )
    plain = ExplicitVRLittleEndian.encode().ljust(len(DeflatedExplicitVRLittleEndian), b"\0")
    return io.BytesIO(head.replace(DeflatedExplicitVRLittleEndian.encode(), plain) + raw)


def short(path: Path, file: Path) -> str:
    """A file's name below the path as given."""
    return "a file" if file == path else shown(file.relative_to(path))


def value_of(header: Dataset, tag: str) -> Any:
    """Value of a tag, None where it is absent or its text is no number."""
    try:
        return header.get(tag)
    except (ValueError, TypeError):
        return None


def listed(value: Any) -> list:
    """The values of a tag that may hold none, one or several."""
    if value is None:
        return []
    return [value] if isinstance(value, (str, int, float)) else list(value)


def floats(value: Any, n: int) -> np.ndarray:
    """`n` finite numbers; NaN where the tag is absent, short or malformed."""
    values = [value] if isinstance(value, (str, int, float)) else value
    try:
        if len(values) == n:  # before any of them is read: there may be a hundred thousand
            numbers = np.array([float(v) for v in values])
            if np.isfinite(numbers).all():
                return numbers
    except (TypeError, ValueError, OverflowError):
        pass
    return np.full(n, np.nan)


def refuse_many_frames(path: Path, file: Path, header: Dataset) -> None:
    """Refuse more frames than a file of its size can hold, before any of them is looked at."""
    n_frames = int(value_of(header, "NumberOfFrames") or 1)
    most = min(MAX_FRAMES, max(FEW_FRAMES, file.stat().st_size >> 10))
    if n_frames > most:
        raise UnreadableScan.about(
            path,
            f"{n_frames} frames in {short(path, file)}",
            f"at most {most} in so many bytes",
            "Export one phase at a time, or as single CT images",
        )


def slices_in(path: Path, file: Path, header: Dataset) -> list[Slice]:
    """One slice of a plain file, or one for each frame of an enhanced multi-frame file."""
    n_frames = int(value_of(header, "NumberOfFrames") or 1)
    frames = value_of(header, "PerFrameFunctionalGroupsSequence")
    if n_frames < 1 or (n_frames > 1 and (not frames or len(frames) != n_frames)):
        raise UnreadableScan.about(
            path,
            f"{n_frames} frames without geometry for each",
            "per-frame functional groups",
            "Export the series as single CT images",
        )
    refuse_many_frames(path, file, header)
    if not frames:
        return [_slice(file, None, header, [])]
    shared = value_of(header, "SharedFunctionalGroupsSequence") or [Dataset()]
    return [_slice(file, i, header, [frames[i], shared[0]]) for i in range(n_frames)]


def _slice(file: Path, frame: int | None, header: Dataset, groups: list[Dataset]) -> Slice:
    """What a header says of one image; `groups`: its own functional groups and the shared ones."""

    def get(tag: str, group: str) -> Any:
        for g in groups:
            if group in g and g[group].value and tag in g[group].value[0]:
                return value_of(g[group].value[0], tag)
        return value_of(header, tag)

    orientation = floats(get("ImageOrientationPatient", "PlaneOrientationSequence"), 6)
    spacing = floats(get("PixelSpacing", "PixelMeasuresSequence"), 2)
    transform = "PixelValueTransformationSequence"
    return Slice(
        path=file,
        frame=frame,
        position=floats(get("ImagePositionPatient", "PlanePositionSequence"), 3),
        orientation=orientation.reshape(2, 3),
        pixel_spacing_mm=spacing if spacing.min() > 0 else np.full(2, np.nan),
        shape=(int(value_of(header, "Rows")), int(value_of(header, "Columns") or 0)),
        slope=float(floats(get("RescaleSlope", transform), 1)[0]),
        intercept=float(floats(get("RescaleIntercept", transform), 1)[0]),
        rescale_type=str(get("RescaleType", transform) or "").strip().upper(),
        image_type=tuple(str(v) for v in listed(value_of(header, "ImageType"))[:16]),
        acquisition=str(value_of(header, "AcquisitionNumber") or ""),
    )
