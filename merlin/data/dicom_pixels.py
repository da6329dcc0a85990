"""The stored pixels of DICOM files decoded to HU.

Nothing is decoded for what a header or a compressed image claims before the claim is held to the file's
size, and to each other.
"""

import re
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from merlin.data.dicom_header import Slice, quietly, read_file, short
from merlin.data.scan import (
    FILL_HU,
    UnreadableScan,
    connected_to_corners,
    refuse_too_large,
    smallest_lossless,
    turned,
)

# What pydicom decodes here without loss of bits, and by which of its decoders; SimpleITK (GDCM) takes the
# rest. GDCM's own Python, which pydicom would prefer, ends the process where an image is damaged.
_PYDICOM_DECODERS = {
    **{f"1.2.840.10008.1.2{code}": "" for code in ("", ".1", ".1.99", ".2")},
    "1.2.840.10008.1.2.5": "pydicom",
    **{f"1.2.840.10008.1.2.4.{code}": "pillow" for code in (90, 91)},
    **{f"1.2.840.10008.1.2.4.{code}": "" for code in (201, 202, 203)},
}


class Pixels:
    """Decodes slices to HU; a multi-frame file is decoded once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_monochrome1 = False
        self.n_padding = 0
        self._last: tuple[Path, Dataset, np.ndarray, bool] | None = None

    def hu(self, s: Slice) -> np.ndarray:
        """HU of one slice, (rows, columns) int16 or float32, by its own slope and intercept."""
        if self._last is None or self._last[0] != s.path:
            self._last = (s.path, *self._decode(s))
        _, header, stored, is_rescaled = self._last
        values = stored if s.frame is None or stored.ndim == 2 else stored[s.frame]
        if values.shape != s.shape:
            raise UnreadableScan.about(
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

    @quietly()
    def _decode(self, s: Slice) -> tuple[Dataset, np.ndarray, bool]:
        """Header, pixels, and whether the pixels are HU already."""
        ds = read_file(self.path, s.path)
        where = short(self.path, s.path)
        if "PixelData" not in ds:
            raise UnreadableScan.about(
                self.path, f"{where} without pixel data", "images", "Export it again"
            )
        syntax = _syntax(ds)

        def damaged(error: Exception) -> UnreadableScan:
            return UnreadableScan.about(
                self.path,
                f"{where} with truncated or damaged pixel data ({syntax_name(syntax)})",
                "complete images",
                "Copy or export the file again",
            )

        with turned(damaged):
            n_frames = int(ds.get("NumberOfFrames") or 1)
            n = n_frames * int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel") or 1)
            claim = f"{where} with {n_frames} × {ds.Rows}×{ds.Columns} pixels"
            refuse_too_large(self.path, claim, n, s.path.stat().st_size)
            if "JPEG" in syntax.name:
                self._refuse_other_sizes(where, ds.PixelData, n_frames, (*s.shape, 1))
            if syntax in _PYDICOM_DECODERS:
                ds.pixel_array_options(decoding_plugin=_PYDICOM_DECODERS[syntax])
                return ds, ds.pixel_array, False
        # ITK takes one rescale for a file; frames may have their own.
        values = _decoded_by_itk(s.path) if s.frame is None else np.zeros(0)
        if values.size != s.shape[0] * s.shape[1]:
            raise UnreadableScan.about(
                self.path,
                f"{where} in transfer syntax {syntax_name(syntax)}, which can't be decoded",
                "raw, RLE, JPEG, JPEG-LS or JPEG 2000",
                "Transcode it to Explicit VR Little Endian (for example with gdcmconv --raw)",
            )
        return ds, values.reshape(s.shape), True

    def _refuse_other_sizes(
        self, where: str, packed: bytes, n_frames: int, expected: tuple[int, int, int]
    ) -> None:
        for frame in generate_frames(packed, number_of_frames=n_frames):
            if (found := coded_size(frame)) != expected:
                raise UnreadableScan.about(
                    self.path,
                    f"{where} with a compressed image of {found or 'no size'} "
                    "(rows, columns, colours)",
                    f"{expected} as its header says",
                    "Export the series again",
                )


def _decoded_by_itk(file: Path) -> np.ndarray:
    """Rescaled values of a file in any syntax that GDCM knows; none where it cannot."""
    import SimpleITK as sitk  # 0.5 s, for the rarer syntaxes only

    talks = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        return sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError:
        return np.zeros(0)
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(talks)


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
