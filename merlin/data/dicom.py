"""DICOM folders and multi-frame files: headers read, one series chosen.

Headers are read without pixels. Whatever is damaged is kept as the refusal of its file, and refuses
the series only if it lies among its files. `merlin.data.dicom_stack` sorts and reads what was
chosen. Names, identifiers, dates and descriptions never leave these modules: notes and messages hold
counts, positions, series numbers and kernels.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from merlin.data.dicom_header import (
    MAX_FRAMES,
    Slice,
    floats,
    listed,
    quietly,
    read_file,
    reading,
    refuse_many_frames,
    short,
    slices_in,
    value_of,
)
from merlin.data.scan import UnreadableScan
from merlin.data.tree import Tree, walk

# What may be said of a header's text: the standard's own words, and what vendors call kernels.
_MODALITIES = set(
    "AR AU BDUS BI BMD CR CT DG DOC DX ECG EPS ES FID GM HC HD IO IVOCT IVUS KER KO LEN LS MG MR NM OAM "
    "OCT OP OPM OPT OPV OT PLAN PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT SC SEG "
    "SM SMR SR SRF TG US VA XA XC".split()
)
_KERNEL = re.compile(  # Siemens B30f and Br40d\\3, Canon FC08, Philips YA, GE's words
    r"[A-Z][a-z]?\d\d[a-z]?|F[CL]\d\d|\d|[A-F]|[SUXY][A-E]|"
    r"STD|STANDARD|SOFT|LUNG|BONE|BONEPLUS|DETAIL|EDGE|CHEST|ULTRA"
)


def known_kernel(values: Iterable[Any]) -> str:
    """A convolution kernel if it is one that vendors have; free text may hold a name."""
    words = [str(v).strip() for v in values]
    if not any(words):
        return "not stated"
    return (
        "/".join(words)
        if all(map(_KERNEL.fullmatch, words[:3])) and len(words) < 4
        else "not known"
    )


_CT_IMAGES = {"CT Image Storage", "Enhanced CT Image Storage"}
_CAPTURED = (
    "ConversionType", "SecondaryCaptureDeviceID", "SecondaryCaptureDeviceManufacturer",
    "SecondaryCaptureDeviceManufacturerModelName", "SecondaryCaptureDeviceSoftwareVersions",
    "DateOfSecondaryCapture",
)  # fmt: skip
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "PatientID", "PatientName",
    "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber",
    "ConvolutionKernel", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "BurnedInAnnotation", *_CAPTURED,
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Series:
    """The chosen series: its slices, unsorted, and what was chosen or left out."""

    slices: tuple[Slice, ...]
    notes: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files its slices lie in, sorted."""
        return tuple(sorted({s.path for s in self.slices}))


def looks_like_dicom(path: Path) -> bool:
    """Whether the file starts as DICOM does, with or without the 128-byte preamble."""
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or _is_bare(start)


def _is_bare(start: bytes) -> bool:
    """Group 0002 or 0008, little endian, then a small element and a VR or a short length."""
    return start[:2] in (b"\x02\x00", b"\x08\x00") and len(start) >= 132 and start[3] == 0


@quietly()
def study_folders(files: Iterable[Path]) -> list[Path]:
    """Folders of the studies among DICOM files: one a study where each has folders of its own.

    One file of each folder tells its study; a folder that mixes studies is one, for its reader to
    judge. Empty where no two studies are told.
    """
    homes: dict[Path, str] = {}
    for file in files:
        if file.parent not in homes:
            homes[file.parent] = ""
            with suppress(UnreadableScan):
                header = read_file(file, file, stop_before_pixels=True, specific_tags=_TAGS[:7])
                homes[file.parent] = str(value_of(header, "StudyInstanceUID") or "")
    if len(set(homes.values()) - {""}) < 2:
        return []
    by_study: dict[str, list[Path]] = {}
    for home, study in homes.items():
        by_study.setdefault(study or str(home), []).append(home)
    found = []
    for own in by_study.values():
        whole = Path(os.path.commonpath(own))
        others = [h for h in homes if h not in own]
        found += own if any(h.is_relative_to(whole) for h in others) else [whole]
    return sorted(found)


@quietly()
def find_series(path: Path) -> Series:
    """Choose the CT series with most axial slices in a file or folder.

    Ties go to the lower series number. Localizers, other modalities, secondary captures and
    objects that are no images are left out and counted in `notes`.

    Raises
    ------
    UnreadableScan
        If there is no CT series, or images of several patients.
    """
    found = _look(path)
    _refuse_several_patients(path, found.headers)
    if not found.slices:
        raise _nothing(path, found)
    notes = list(found.notes) + _prefer_the_scanners(found)
    if found.skipped:
        notes.append(f"Left out: {found.what_was_skipped}.")
    studies = {str(value_of(h, "StudyInstanceUID")) for h, _ in found.slices}
    if len(studies) > 1:
        notes.append(f"{len(studies)} studies found; one series of one of them was taken.")
    groups: dict[str, tuple[Dataset, list[Slice]]] = {}
    for header, slices in found.slices:
        name = value_of(header, "SeriesInstanceUID") or slices[0].path.parent  # blank: by folder
        key = f"{value_of(header, 'StudyInstanceUID')} {name}"
        groups.setdefault(key, (header, []))[1].extend(slices)
    series = list(groups.values())
    series.sort(
        key=lambda s: (
            -_n_axial(s[1]),
            -len(s[1]),
            _number(s[0]),
            str(value_of(s[0], "SeriesInstanceUID")),
        )
    )
    if len(series) > 1:
        notes.append(_choice(series))
    if not _n_axial(series[0][1]):
        notes.append("No axial series found; the slices lie along the body.")
    chosen = Series(tuple(series[0][1]), ())
    n_ignored = _refuse_half_copied(path, chosen.files, found)
    if n_ignored:
        notes.append(f"{n_ignored} files that are not DICOM were ignored.")
    return replace(chosen, notes=tuple(notes))


@dataclass
class _Look:
    """What lies at a path, file by file."""

    slices: list[tuple[Dataset, list[Slice]]] = field(default_factory=list)  # by file
    headers: list[Dataset] = field(default_factory=list)
    skipped: Counter = field(default_factory=Counter)  # DICOM that is no CT slice, by reason
    damaged: dict[Path, UnreadableScan] = field(default_factory=dict)
    cut_off: list[Path] = field(default_factory=list)  # of those skipped: the header ends early
    others: list[Path] = field(default_factory=list)  # not DICOM
    notes: tuple[str, ...] = ()

    @property
    def what_was_skipped(self) -> str:
        return ", ".join(f"{n} {reason}" for reason, n in sorted(self.skipped.items()))


def _look(path: Path) -> _Look:
    """Read the headers of all DICOM files at `path`; a bad one is kept as its refusal."""
    tree = Tree((path,), {}, ()) if path.is_file() else walk(path)
    found = _Look(notes=tree.notes)
    for file in tree.files:
        try:
            with reading(path, file):
                if not looks_like_dicom(file):
                    found.others.append(file)
                    continue
                header = read_file(path, file, stop_before_pixels=True, specific_tags=_TAGS)
                has_frames = "PerFrameFunctionalGroupsSequence" in header
                if has_frames and not _not_a_slice(header, _said([header])):
                    refuse_many_frames(path, file, header)
                for (
                    tag
                ) in _TAGS:  # values are read from their bytes when asked for: here, not later
                    value_of(header, tag)
                reason = _not_a_slice(header, _said(parts_of(header)))
                slices = [] if reason else slices_in(path, file, header)
        except UnreadableScan as refusal:
            found.damaged[file] = refusal
            continue
        found.headers.append(header)
        if not reason:
            found.slices.append((header, slices))
            continue
        found.skipped[reason] += 1
        if _is_cut_off(header):
            found.cut_off.append(file)
    return found


def _is_cut_off(header: Dataset) -> bool:
    """Whether a header ends before it says what the object is, or how large its image."""
    sop_class = UID(str(value_of(header, "SOPClassUID") or "")).name
    is_named = sop_class and value_of(header, "Modality")
    return not is_named or (sop_class in _CT_IMAGES and not value_of(header, "Rows"))


def _nothing(path: Path, found: _Look) -> UnreadableScan:
    """The refusal of a path without a CT slice."""
    if len(found.damaged) == 1 and not found.skipped:
        return next(iter(found.damaged.values()))
    n_empty = sum(f.stat().st_size == 0 for f in found.others)
    parts = [found.what_was_skipped] if found.skipped else []
    parts += [f"{len(found.damaged)} damaged DICOM files"] if found.damaged else []
    parts += [f"{n_empty} empty files"] if n_empty else []
    return UnreadableScan.about(
        path,
        ", ".join(parts) or "neither a NIfTI file nor DICOM: no DICOM file",
        "a series of axial CT images",
        "Pass the folder of the CT series"
        + ("" if parts else ", or the NIfTI file itself if there is one"),
    )


def _refuse_half_copied(path: Path, files: tuple[Path, ...], found: _Look) -> int:
    """Refuse files beside the chosen series that are called alike and hold nothing to read.

    A series that ends early has no gap: only such files tell. Returns how many others there are.
    """
    homes, alike = {f.parent for f in files}, {(f.parent, _pattern(f)) for f in files}
    bad = [f for f in found.damaged if f.parent in homes]
    if len(bad) == 1:
        raise found.damaged[bad[0]]
    bad += [f for f in (*found.cut_off, *found.others) if (f.parent, _pattern(f)) in alike]
    if bad:
        n_empty = sum(f.stat().st_size == 0 for f in bad)
        raise UnreadableScan.about(
            path,
            f"{len(bad)} of {len(files) + len(bad)} files of the series without a slice "
            f"({n_empty} empty, {len(bad) - n_empty} cut off, damaged or not DICOM; the first is "
            f"{short(path, min(bad))})",
            "whole files",
            "Copy or export the series again",
        )
    return len(found.others) + len(found.damaged)


def _pattern(file: Path) -> str:
    """A file's name without its numbers: the files of one series are called alike."""
    name = re.sub(r"(?i)\.(part|partial|filepart|crdownload|tmp)$", "", file.name)  # of a download
    return re.sub(r"[0-9a-fA-F.-]+", "#", name)


# ImageType of what a workstation projects from slices: no HU of a place. (Maps have no RescaleType HU.)
_PROJECTED = {
    "MIP", "MINIP", "MIN_IP", "MIN IP", "MAX_IP", "MAX IP", "MPVR", "PROJECTION IMAGE", "VRT", "VOLREN",
    "SSD",
}  # fmt: skip


def shows_more(header: Dataset) -> str:
    """Why an image may show a name, a date or a face besides a body, worded after a count; or empty.

    Its own word counts, in its sequences too (BurnedInAnnotation, RecognizableVisualFeatures), where it
    comes from (a secondary capture, a conversion, or SECONDARY: made on a workstation), and an overlay
    that lies inside the pixels. What a scanner computes itself (DERIVED and PRIMARY) is an image as any.
    Overlays beside the pixels never leave: only pixels are written.
    """
    said = _said(parts_of(header))
    if reason := _drawn_on(header, said):
        return reason
    if said["RecognizableVisualFeatures"] - _DENIED:
        return "images with recognizable features"
    if _is_workstations(said):
        return "images made on a workstation (SECONDARY)"
    # One bit a pixel, from the first on, lies beside them (0100 bits allocated, 0102 bit position).
    beside = {0x0100: ("", "None", "0", "1"), 0x0102: ("", "None", "0")}
    overlays = (t for t in header.keys() if t.element in beside and 0x6000 <= t.group < 0x6100)
    is_inside = any(str(header[t].value) not in beside[t.element] for t in overlays)
    return "images with an overlay in their pixels" if is_inside else ""


def parts_of(header: Dataset) -> Iterator[Dataset]:
    """A header and the items of its sequences, however deep; of each as many as a file may have frames."""
    yield header
    for tag in header.keys():
        vr = header.get_item(tag).VR
        if vr == "SQ" or (vr in (None, "UN") and header[tag].VR == "SQ"):
            for item in (header[tag].value or ())[:MAX_FRAMES]:
                yield from parts_of(item)


_DENIED = {"", "NO"}


def _said(parts: Iterable[Dataset]) -> dict[str, set[str]]:
    """What a header, or it and its frames, say of pictures, by element, in capitals."""
    said: dict[str, set[str]] = {
        tag: set()
        for tag in ("BurnedInAnnotation", "RecognizableVisualFeatures", "ImageType", "FrameType")
    }
    for part in parts:
        for tag, values in said.items():
            values.update(str(v).strip(" \0").upper() for v in listed(value_of(part, tag)))
    return said


def _is_workstations(said: dict[str, set[str]]) -> bool:
    return "SECONDARY" in " ".join(said["ImageType"] | said["FrameType"]).split()


def _drawn_on(header: Dataset, said: dict[str, set[str]]) -> str:
    """Why an object's pixels are a picture of a screen or a page."""
    sop_class = UID(str(value_of(header, "SOPClassUID") or "")).name
    is_captured = any(str(value_of(header, t) or "").strip() for t in _CAPTURED)
    is_screen = re.search("SCREEN|CAPTURE", " ".join(said["ImageType"] | said["FrameType"]))
    if "Secondary Capture" in sop_class or is_captured or is_screen:
        return "secondary captures"
    return "images with burned-in text" if said["BurnedInAnnotation"] - _DENIED else ""


def _prefer_the_scanners(found: _Look) -> list[str]:
    """Leave out what a workstation made of other images, where there are others; the notes on it."""
    made = [_is_workstations(_said(parts_of(h))) for h, _ in found.slices]
    if all(made):
        return ["The images were made on a workstation (SECONDARY): look for text in them."]
    found.skipped["images made on a workstation (SECONDARY)"] += sum(made)
    found.skipped += Counter()  # without zeros
    found.slices = [x for x, is_made in zip(found.slices, made, strict=True) if not is_made]
    return []


def _not_a_slice(header: Dataset, said: dict[str, set[str]]) -> str:
    """Why a DICOM object is no CT slice, worded after a count; empty if it is one."""
    modality = str(value_of(header, "Modality") or "").strip()
    image_type = {str(v).upper().strip() for v in listed(value_of(header, "ImageType"))}
    if reason := _drawn_on(header, said):
        return reason
    if modality != "CT":
        return f"{modality} objects" if modality in _MODALITIES else "objects of no known modality"
    if not value_of(header, "Rows"):
        return "CT objects without an image"
    if image_type & {"LOCALIZER", "SCOUT"}:
        return "localizers"
    if _PROJECTED & image_type:
        return "projections"
    if int(value_of(header, "SamplesPerPixel") or 1) != 1:
        return "RGB colour pictures"
    return ""


def _refuse_several_patients(path: Path, headers: list[Dataset]) -> None:
    patients = {
        str(value_of(h, "PatientID") or "").strip() or str(value_of(h, "PatientName") or "").strip()
        for h in headers
    }
    patients.discard("")
    if len(patients) > 1:
        raise UnreadableScan.about(
            path, f"images of {len(patients)} patients", "one patient", "Pass one patient's folder"
        )


def _number(header: Dataset) -> int:
    number = floats(value_of(header, "SeriesNumber"), 1)[0]
    return int(number) if abs(number) < 1 << 31 else 0


def _choice(series: list[tuple[Dataset, list[Slice]]]) -> str:
    def words(header: Dataset, slices: list[Slice]) -> str:
        kernel = known_kernel(listed(value_of(header, "ConvolutionKernel")))
        return f"number {_number(header)} ({_n_axial(slices)} slices, kernel {kernel})"

    first, others = series[0], "; ".join(words(*s) for s in series[1:])
    tie = " (a tie; the lower number)" if _n_axial(series[1][1]) == _n_axial(first[1]) else ""
    return (
        f"{len(series)} series found; took the one with most axial slices{tie}: {words(*first)}. "
        f"Not taken: {others}."
    )


def _n_axial(slices: list[Slice]) -> int:
    """Axial slices at different positions; several phases of one stack count once."""
    axial = [s for s in slices if s.is_axial]
    placed = [s for s in axial if np.isfinite(s.position).all()]
    return len({tuple(np.round(s.position, 2)) for s in placed}) + len(axial) - len(placed)
