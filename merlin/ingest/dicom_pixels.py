"""One DICOM file read, and its stored pixels decoded to HU."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from merlin.ingest.volume import (
    FILL_HU,
    UnreadableScan,
    connected_to_corners,
    is_machines,
    smallest_lossless,
)
from merlin.words import shown

if TYPE_CHECKING:
    from merlin.ingest.dicom import Slice

# What pydicom decodes here without loss of bits; SimpleITK (GDCM) takes the rest. pydicom's own
# attempts at 12-bit JPEG fail, and print to the terminal on the way.
_PYDICOM_SYNTAXES = {
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203",
}  # fmt: skip


def read_file(path: Path, file: Path, **options: Any) -> Dataset:
    """Read a file, with or without preamble; `path` is what the user gave, for the message."""
    try:
        try:
            return pydicom.dcmread(file, **options)
        except InvalidDicomError:
            return pydicom.dcmread(file, force=True, **options)
    except Exception as error:
        if is_machines(error):
            raise
        raise damaged(path, file, error) from error


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
        if syntax in _PYDICOM_SYNTAXES:
            try:
                return ds, ds.pixel_array, False
            except Exception as error:
                if is_machines(error):
                    raise
                raise refusal(
                    self.path,
                    f"{where} with truncated or damaged pixel data ({syntax.name})",
                    "complete images",
                    "Copy or export the file again",
                ) from error
        return ds, self._decode_with_itk(s, where, syntax), True

    def _decode_with_itk(self, s: "Slice", where: str, syntax: UID) -> np.ndarray:
        import SimpleITK as sitk  # 0.5 s, for the rarer syntaxes only

        mend = "Transcode it to Explicit VR Little Endian (for example with gdcmconv --raw)"
        if s.frame is None:  # ITK takes one rescale for a file; frames may have their own
            reader = sitk.ImageFileReader()
            reader.SetImageIO("GDCMImageIO")
            reader.SetFileName(str(s.path))
            try:
                values = sitk.GetArrayFromImage(reader.Execute())
            except RuntimeError:
                values = np.zeros(0)
            if values.size == s.shape[0] * s.shape[1]:
                return values.reshape(s.shape)
        raise refusal(
            self.path,
            f"{where} in transfer syntax {syntax.name} ({syntax}), which can't be decoded",
            "raw, RLE, JPEG, JPEG-LS or JPEG 2000",
            mend,
        )


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
