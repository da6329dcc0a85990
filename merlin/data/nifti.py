"""NIfTI files → values and an affine in mm. A header is held to the standard and to the file's bytes.

Headers go wrong in ways that readers forgive: an offset inside the header makes voxels of header
bytes, a missing intercept drops the slope, fewer slices than the file holds lose half a scan. Each
is refused here with what was found. What a header claims is bounded by the file's size before room is
made for it, and a packed file is unpacked as far as its header says.
"""

import gzip
import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np

from merlin.data.scan import (
    UnreadableScan,
    Volume,
    refuse_other_formats,
    refuse_too_large,
    smallest_lossless,
    triple,
)

FORMS_TOL_MM = 1.0  # how far sform and qform may place a corner apart unnoticed
MAX_OFFSET = (
    1 << 24
)  # bytes before the voxels, with all extensions; as many behind them are counted
_Stream = gzip.GzipFile | io.BufferedReader
CHUNK = 1 << 20  # bytes unpacked at a time
SMALL_LABELS = 1 << 27  # voxels that any label map may have: masks pack to almost nothing
LABELS_PER_BYTE = 128
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units: not stated, metre, mm, micrometre


def read_nifti(path: Path, *, assume_hu: bool = False, is_label: bool = False) -> Volume:
    """Read a 3D file of plain numbers, whatever they mean: `hu` holds the values as scaled.

    Parameters
    ----------
    path : Path
    assume_hu : bool
        Go on where the slope is negative.
    is_label : bool
        Of a label map bytes stay bytes, and a small file may hold many voxels.

    Raises
    ------
    UnreadableScan
    """
    notes: list[str] = []
    with _unpacked(path, notes) as stream:
        header, start = _header(path, stream)
        shape, dtype = _shape(path, header)
        slope, intercept = _scaling(path, header)
        if slope < 0:
            if not assume_hu:
                raise UnreadableScan.about(
                    path,
                    f"a slope of {slope:g} (scl_slope), which turns air into bone",
                    "a positive slope",
                    "Correct it, or pass assume_hu (--assume-hu) if it is right",
                )
            notes.append(f"Taken as HU on request, although the slope is {slope:g}.")
        affine = _affine(path, header, notes)
        is_scaled = (slope, intercept) != (1, 0)
        _refuse_too_large(path, shape, 8 if is_scaled else dtype.itemsize, is_label, stream)
        hu = _voxels(path, stream, header, start, (shape, dtype), notes).reshape(shape, order="F")
    if not dtype.isnative:
        hu = hu.astype(dtype.newbyteorder("="))
    if is_scaled:
        is_exact = dtype.kind in "iu" and all(
            v.is_integer() and abs(v) < 1 << 30 for v in (slope, intercept)
        )
        with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is refused as such
            hu = hu * np.array(slope, "i8" if is_exact else "f8")
            hu += np.array(intercept, hu.dtype)
    if not (is_label and hu.itemsize == 1):
        hu = smallest_lossless(hu)
    return Volume(hu, affine, tuple(notes))


def read_geometry(path: Path) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine in mm and shape, from the header alone; raises as `read_nifti` does of a label map."""
    with _unpacked(path, []) as stream:
        header, _ = _header(path, stream)
        shape, _ = _shape(path, header)
        _refuse_too_large(path, shape, 1, True, stream)
    return _affine(path, header, []), shape


@contextmanager
def _unpacked(path: Path, notes: list[str]) -> Iterator[_Stream]:
    """The file's bytes as a stream, unpacked on the way if it is gzip whatever the ending says."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP
        file.seek(0)
        try:
            yield gzip.GzipFile(fileobj=file) if is_gzip else file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UnreadableScan.about(
                path,
                f"gzip data that end early or are damaged ({type(error).__name__})",
                "a complete .nii.gz",
                "Copy or download it again",
            ) from error
    if is_gzip != path.name.lower().endswith(".gz"):
        notes.append(f"The file is {'' if is_gzip else 'not '}gzip-compressed, unlike its name.")


_GZIP = b"\x1f\x8b"


def _header(path: Path, stream: _Stream) -> tuple[nib.Nifti1Header, bytes]:
    """The header, and the bytes that it was read from with the mark of extensions behind it."""
    raw = stream.read(544)
    refuse_other_formats(path, raw)
    kinds = ((348, 344, b"n+1\0", nib.Nifti1Header), (540, 4, b"n+2\0", nib.Nifti2Header))
    for size, at, magic, kind in kinds:
        for sign in "<>":
            if raw[:4] != struct.pack(f"{sign}i", size):
                continue
            if raw[at : at + 3] in (b"ni1", b"ni2"):
                found, mend = "the header of a .hdr/.img pair", "Save it as one .nii.gz"
            elif raw[at : at + 4] != magic:
                found, mend = "an Analyze header without orientation", "Save it as NIfTI"
            elif len(raw) < size:
                found, mend = f"{len(raw)} bytes, a truncated header", "Download it again"
            else:
                return kind(raw[:size], endianness=sign, check=False), raw
            raise UnreadableScan.about(path, found, "NIfTI", mend)
    stream.read(CHUNK)  # what ends early is said to
    found = f"{path.stat().st_size} bytes that are neither NIfTI nor DICOM"
    raise UnreadableScan.about(
        path,
        "gzip inside gzip" if raw[:2] == _GZIP else found,
        "a NIfTI file (.nii, .nii.gz) or DICOM",
        "Check what the file is; it may be misnamed, packed twice or damaged",
    )


def _shape(path: Path, header: nib.Nifti1Header) -> tuple[tuple[int, ...], np.dtype]:
    """Shape without trailing single axes, and type; refuses colour, 2D and several time points."""
    expected, mend = "one 3D volume of plain numbers", "Export the CT volume itself as 3D NIfTI"
    n_dim, bits = int(header["dim"][0]), int(header["bitpix"])
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
    elif bits not in (0, 8 * dtype.itemsize):
        found = f"data type {dtype.name} but {bits} bits a voxel (bitpix)"
        mend = "Find out which is true and make them agree, or convert the scan again"
    elif not shape or min(shape) < 1:
        found = f"an impossible shape ({text or n_dim})"
    elif len(shape) < 3 or 1 in shape[:3]:
        found = f"a 2D image ({text})"
    elif len(shape) > 3:
        found = f"{math.prod(shape[3:])} volumes in one file ({text}), several time points"
        mend = "Split it and pass the volume (phase) you want"
    else:
        return shape, dtype
    raise UnreadableScan.about(path, found, expected, mend)


def _size(shape: tuple[int, ...], itemsize: int) -> str:
    return f"{'×'.join(map(str, shape))} voxels of {itemsize} bytes"


def _refuse_too_large(
    path: Path, shape: tuple[int, ...], itemsize: int, is_label: bool, stream: _Stream
) -> None:
    """Bound what a packed file may become; one that is not packed is as large as it says, or refused.

    Wide numbers count several times, for the memory that they take on their way to 16 bits.
    """
    n, packed = math.prod(shape), path.stat().st_size
    if n > packed and not isinstance(stream, gzip.GzipFile):
        return  # cut short, and refused as such
    times = max(1, itemsize - 1 if is_label else itemsize // 8)
    bounds = dict(small=SMALL_LABELS, each=LABELS_PER_BYTE) if is_label else {}
    refuse_too_large(path, _size(shape, itemsize), n * times, packed, **bounds)


def _voxels(
    path: Path,
    stream: _Stream,
    header: nib.Nifti1Header,
    start: bytes,
    form: tuple[tuple[int, ...], np.dtype],
    notes: list[str],
) -> np.ndarray:
    """The voxels in file order; refuses what disagrees with the number of bytes in the file.

    Memory is as much as the header asks for, and what lies behind is counted, not kept.
    """
    (shape, dtype), least = form, int(header["sizeof_hdr"]) + 4
    stated, size = float(header["vox_offset"]), _size(shape, dtype.itemsize)
    if not (stated.is_integer() and least <= stated <= MAX_OFFSET):
        raise UnreadableScan.about(
            path,
            f"voxels that begin at byte {stated:g} (vox_offset)",
            f"byte {least} or later, behind the header, and {MAX_OFFSET:,} at most",
            "Convert the scan again, or write the true vox_offset",
        )
    offset, n_bytes = int(stated), math.prod(shape) * dtype.itemsize
    n_held = n_bytes
    if not isinstance(stream, gzip.GzipFile):
        n_held = max(path.stat().st_size - offset, 0)
    if n_held >= n_bytes:
        values = np.empty(math.prod(shape), dtype)
        into, n_held = memoryview(values.view(np.uint8).data), 0
        stream.seek(offset)
        while got := stream.readinto(into[n_held : n_held + CHUNK]):
            n_held += got
    if n_held < n_bytes:
        raise UnreadableScan.about(
            path,
            f"{n_held} bytes of voxels",
            f"{n_bytes} for {size}",
            "The file is truncated, or its header wrong; copy or download it again",
        )
    n_left = 0
    while n_left < MAX_OFFSET and (more := stream.read(CHUNK)):
        n_left += len(more)
    has_extension = offset == least and any(start[least - 4 : least])
    if n_left >= shape[0] * shape[1] * dtype.itemsize or (n_left and has_extension):
        raise UnreadableScan.about(
            path,
            f"{'at least ' * (n_left >= MAX_OFFSET)}{n_left} bytes more than its header "
            f"describes ({size} from byte {offset})",
            "a header that describes all voxels",
            "Convert the scan again; shape, data type or vox_offset in the header are wrong",
        )
    if n_left:
        notes.append(f"{n_left} bytes behind the voxels were not read.")
    return values


def _scaling(path: Path, header: nib.Nifti1Header) -> tuple[float, float]:
    """Slope and intercept. A slope of 0 or NaN means none, by the standard and by nibabel."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    is_unset = slope == 0 or math.isnan(slope)
    if is_unset and (intercept == 0 or math.isnan(intercept)):
        return 1.0, 0.0
    if is_unset or not math.isfinite(slope + intercept):
        raise UnreadableScan.about(
            path,
            f"slope {slope:g} with intercept {intercept:g} (scl_slope, scl_inter)",
            "two finite numbers, or 0 for both",
            "Write the true slope and intercept, or convert the scan again",
        )
    return slope, intercept


def _affine(path: Path, header: nib.Nifti1Header, notes: list[str]) -> np.ndarray:
    """Affine in mm from sform, else qform; refuses what is absent or contradictory."""
    zooms, unit = np.asarray(header["pixdim"][1:4], float), int(header["xyzt_units"]) & 7

    def refuse(found: str, mend: str) -> UnreadableScan:
        return UnreadableScan.about(path, found, "one clear orientation and spacing in mm", mend)

    if not (np.isfinite(zooms).all() and (zooms > 0).all()):
        raise refuse(f"voxel size pixdim {triple(zooms)}", "Write the true spacing to the header")
    if unit not in UNITS_MM:
        raise refuse(f"{unit} as unit of length (xyzt_units)", "Write 2, millimetres, if it is so")
    forms = _forms(header, refuse)
    affine = next(iter(forms.values())).copy()
    norms = np.linalg.norm(affine[:3, :3], axis=0)
    if np.any(np.abs(norms / zooms - 1) > 0.05):
        raise refuse(
            f"spacing {triple(norms)} in the sform but {triple(zooms)} in pixdim",
            "Find out which is true and make them agree",
        )
    if len(forms) == 2:
        said = ["".join(nib.aff2axcodes(form)) for form in forms.values()]
        if said[0] != said[1]:
            raise refuse(
                f"a contradiction: sform says {said[0]}, qform says {said[1]}",
                "Find out which is true and set the other's code to 0",
            )
        apart = _corners_apart_mm(forms["sform"], forms["qform"], header["dim"][1:4])
        if apart > FORMS_TOL_MM:
            notes.append(f"sform and qform lie up to {apart:.1f} mm apart; the sform was used.")
    if UNITS_MM[unit] != 1:
        affine[:3] *= UNITS_MM[unit]
        words = "metres" if unit == 1 else "micrometres"
        notes.append(f"The header gives lengths in {words}; they were converted to mm.")
    return affine


def _forms(
    header: nib.Nifti1Header, refuse: Callable[[str, str], UnreadableScan]
) -> dict[str, np.ndarray]:
    """The affines that the header states, sform first; each finite and with a volume."""
    qfac, forms = float(header["pixdim"][0]), {}
    for name in ("sform", "qform"):
        code = int(header[f"{name}_code"])
        if not 0 <= code <= 5:
            raise refuse(f"{name}_code {code}", f"Write 1, or 0 if the {name} is not to be used")
        if code == 0:
            continue
        if name == "qform" and qfac not in (-1, 0, 1):
            raise refuse(f"qfac (pixdim[0]) {qfac:g}", "Write 1 or -1, or set qform_code to 0")
        if qfac == 0:
            header["pixdim"][0] = 1  # as the standard reads it
        try:
            form = header.get_sform() if name == "sform" else header.get_qform()
        except ValueError as error:
            raise refuse("a qform that is no rotation", "Repair it from the source") from error
        if not np.isfinite(form).all() or abs(np.linalg.det(form[:3, :3])) < 1e-12:
            raise refuse(
                f"an affine without volume (zero or non-finite columns of the {name})",
                "Repair the header",
            )
        forms[name] = np.array(form, float)
    if not forms:
        raise refuse(
            "no orientation (sform_code and qform_code are 0)",
            "Convert the DICOM again, or write the affine if you know it",
        )
    return forms


def _corners_apart_mm(one: np.ndarray, other: np.ndarray, shape: np.ndarray) -> float:
    """Largest distance between where two affines place the same corner."""
    corners = np.array(np.meshgrid(*[(0, int(n) - 1) for n in shape])).reshape(3, -1)
    difference = (one - other)[:3]
    return float(np.linalg.norm(difference[:, :3] @ corners + difference[:, 3:], axis=0).max())
