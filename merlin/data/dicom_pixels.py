"""One DICOM file read, and its stored pixels decoded to HU.

Nothing is unpacked or decoded for what a header claims before the claim is held to the file's size.
"""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from merlin.data.volume import (
    FILL_HU,
    UnreadableScan,
    connected_to_corners,
    is_machines,
    refuse_too_large,
    smallest_lossless,
    unheard,
)
from merlin.words import shown

if TYPE_CHECKING:
    from merlin.data.dicom import Slice

# What pydicom decodes here without loss of bits; SimpleITK (GDCM) takes the rest. pydicom's own
# attempts at 12-bit JPEG fail, and print to the terminal on the way.
_PYDICOM_SYNTAXES = {
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203",
}  # fmt: skip


SMALL_HEADER = 1 << 22  # bytes that a deflated file of any size may become
DEFLATED_PER_BYTE = 8  # elements cost a hundred times their bytes once they are read


def read_file(path: Path, file: Path, **options: Any) -> Dataset:
    """Read a file, with or without preamble; `path` is what the user gave, for the message."""
    try:
        with quietly(), _Held(io.FileIO(file)) as held:
            stream = _inflated(path, file, held)
            try:
                ds = pydicom.dcmread(stream, **options)
            except InvalidDicomError:
                stream.seek(0)
                ds = pydicom.dcmread(stream, force=True, **options)
            ds.buffer = None  # thousands of headers are kept at once
            return ds
    except UnreadableScan:
        raise
    except Exception as error:
        if is_machines(error):
            raise
        raise damaged(path, file, error) from error


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
        raise refusal(
            path,
            f"{short(path, file)} of {len(head) + len(packed):,} bytes that inflates to more than "
            f"{most:,} (deflated transfer syntax)",
            f"at most {most:,} from so many bytes",
            "Transcode it to Explicit VR Little Endian (for example with gdcmconv --raw)",
        )
    plain = ExplicitVRLittleEndian.encode().ljust(len(DeflatedExplicitVRLittleEndian), b"\0")
    return io.BytesIO(head.replace(DeflatedExplicitVRLittleEndian.encode(), plain) + raw)


def damaged(path: Path, file: Path, error: Exception) -> UnreadableScan:
    """The refusal of a path for one file's header; the error's own text may quote it, its kind not."""
    return refusal(
        path,
        f"{short(path, file)} with a damaged header ({type(error).__name__})",
        "complete DICOM files",
        "Copy the file again",
    )


def refusal(path: Path, found: str, expected: str, mend: str) -> UnreadableScan:
    """`UnreadableScan.about`, by position."""
    return UnreadableScan.about(path, found=found, expected=expected, mend=mend)


def short(path: Path, file: Path) -> str:
    """A file's name below the path as given."""
    return "a file" if file == path else shown(file.relative_to(path))


class Pixels:
    """Decodes slices to HU; a multi-frame file is decoded once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_monochrome1 = False
        self.n_padding = 0
        self._last: tuple[Path, Dataset, np.ndarray, bool] | None = None

    def hu(self, s: "Slice") -> np.ndarray:
        """HU of one slice, (rows, columns) int16 or float32, by its own slope and intercept."""
        if self._last is None or self._last[0] != s.path:
            self._last = (s.path, *self._decode(s))
        _, header, stored, is_rescaled = self._last
        values = stored if s.frame is None or stored.ndim == 2 else stored[s.frame]
        if values.shape != s.shape:
            raise refusal(
                self.path,
                f"{short(self.path, s.path)} with pixels {values.shape}",
                f"{s.shape} as its header says",
                "Export the series again",
            )
        hu = values if is_rescaled else _rescale(values, s.slope, s.intercept)
        self.is_monochrome1 |= header.get("PhotometricInterpretation") == "MONOCHROME1"
        padding = header.get("PixelPaddingValue")
        if isinstance(padding, int) and padding * s.slope + s.intercept > -900:
            is_padding = connected_to_corners(np.isclose(hu, padding * s.slope + s.intercept))
            if is_padding.any():
                self.n_padding += 1
                hu = np.where(is_padding, FILL_HU, hu)
        return smallest_lossless(hu)

    def _decode(self, s: "Slice") -> tuple[Dataset, np.ndarray, bool]:
        """Header, pixels, and whether the pixels are HU already."""
        ds = read_file(self.path, s.path)
        where = short(self.path, s.path)
        if "PixelData" not in ds:
            raise refusal(self.path, f"{where} without pixel data", "images", "Export it again")
        syntax = _syntax(ds)
        try:
            n_frames = int(ds.get("NumberOfFrames") or 1)
            n = n_frames * int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel") or 1)
            claim = f"{where} with {n_frames} × {ds.Rows}×{ds.Columns} pixels"
            refuse_too_large(self.path, claim, n, s.path.stat().st_size)
            if "JPEG" in syntax.name:
                self._refuse_other_sizes(where, ds.PixelData, n_frames, (*s.shape, 1))
            if syntax in _PYDICOM_SYNTAXES:
                return ds, ds.pixel_array, False
        except UnreadableScan:
            raise
        except Exception as error:
            if is_machines(error):
                raise
            raise refusal(
                self.path,
                f"{where} with truncated or damaged pixel data ({syntax_name(syntax)})",
                "complete images",
                "Copy or export the file again",
            ) from error
        return ds, self._decode_with_itk(s, where, syntax), True

    def _refuse_other_sizes(
        self, where: str, packed: bytes, n_frames: int, expected: tuple[int, int, int]
    ) -> None:
        for frame in generate_frames(packed, number_of_frames=n_frames):
            if (found := coded_size(frame)) != expected:
                raise refusal(
                    self.path,
                    f"{where} with a compressed image of {found or 'no size'} "
                    "(rows, columns, colours)",
                    f"{expected} as its header says",
                    "Export the series again",
                )

    def _decode_with_itk(self, s: "Slice", where: str, syntax: UID) -> np.ndarray:
        import SimpleITK as sitk  # 0.5 s, for the rarer syntaxes only

        mend = "Transcode it to Explicit VR Little Endian (for example with gdcmconv --raw)"
        if s.frame is None:  # ITK takes one rescale for a file; frames may have their own
            talks = sitk.ProcessObject.GetGlobalWarningDisplay()
            sitk.ProcessObject.SetGlobalWarningDisplay(False)
            reader = sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(str(s.path))
            try:
                values = sitk.GetArrayFromImage(reader.Execute())
            except RuntimeError:
                values = np.zeros(0)
            finally:
                sitk.ProcessObject.SetGlobalWarningDisplay(talks)
            if values.size == s.shape[0] * s.shape[1]:
                return values.reshape(s.shape)
        raise refusal(
            self.path,
            f"{where} in transfer syntax {syntax_name(syntax)}, which can't be decoded",
            "raw, RLE, JPEG, JPEG-LS or JPEG 2000",
            mend,
        )


def coded_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and colours that a compressed frame claims for itself.

    Decoders make room for these, not for what the DICOM header says. None where there is no such
    header, or where a JPEG 2000 image is cut into tiles, layers or precincts that no scanner makes:
    each of them takes room.
    """
    at = 0
    if frame[4:8] == b"jP  ":  # in a file's boxes, which DICOM leaves out and some writers don't
        while 8 <= (n := int.from_bytes(frame[at : at + 4])) and frame[at + 4 : at + 8] != b"jp2c":
            at += n
        at += 8
    if frame[at : at + 4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SIZ follows the start
        right, down, left, top = (
            int.from_bytes(frame[i : i + 4]) for i in range(at + 8, at + 24, 4)
        )
        if _is_in_crumbs(frame, at, min(down - top, right - left)):
            return None
        return down - top, right - left, int.from_bytes(frame[at + 40 : at + 42])
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:  # JPEG and JPEG-LS: segments up to SOF
        kind = frame[at + 1]
        if kind == 0xFF:
            at += 1
        elif kind == 0xF7 or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)):
            rows, columns = (int.from_bytes(frame[i : i + 2]) for i in (at + 5, at + 7))
            return rows, columns, frame[at + 9]
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    return None


def _is_in_crumbs(frame: bytes, at: int, side: int) -> bool:
    """Whether a JPEG 2000 image has tiles under 32 pixels, thousands of precincts or of layers."""
    tile = min(int.from_bytes(frame[i : i + 4]) for i in (at + 24, at + 28))
    style = frame.find(b"\xff\x52", at + 42)  # COD: how all tiles are coded
    if style < 0:
        return True
    n_layers, n_levels = int.from_bytes(frame[style + 6 : style + 8]), frame[style + 9]
    precincts = frame[style + 14 : style + 2 + int.from_bytes(frame[style + 2 : style + 4])]
    n = sum(
        max(1, (side >> max(0, n_levels - r)) >> (p & 15))
        * max(1, (side >> max(0, n_levels - r)) >> (p >> 4))
        for r, p in enumerate(precincts if frame[style + 4] & 1 else b"")
    )
    return tile < min(32, side) or n_layers > 256 or n > 4096


def syntax_name(uid: str) -> str:
    """A transfer syntax by its number, with the name if it has one; another text may be anything."""
    if not re.fullmatch(r"1\.2\.840\.10008\.1\.2(\.\d{1,3}){0,4}", uid):
        return "of no standard"
    return f"{UID(uid).name} ({uid})"


def _syntax(ds: Dataset) -> UID:
    """Transfer syntax; for a file without header, the one its bytes were read by."""
    if getattr(ds, "file_meta", None) is None:
        ds.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in ds.file_meta:
        is_implicit, is_little = ds.original_encoding
        ds.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian
            if is_implicit
            else ExplicitVRLittleEndian
            if is_little
            else ExplicitVRBigEndian
        )
    return ds.file_meta.TransferSyntaxUID


def _rescale(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if float(slope).is_integer() and float(intercept).is_integer():
        return stored.astype(np.int32) * int(slope) + int(intercept)
    return stored * slope + intercept
