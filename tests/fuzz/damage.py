"""Damage by the format: small good files of every kind in, inputs that somebody might send out.

Each strategy of `INPUTS` gives files as {name: bytes}: a good file, changed where its format has a
meaning (header fields by name, elements, cells, nodes, members), and then in plain bytes. What people's
names and header texts stand for is `MARK`: no reader may repeat it.
"""

import csv
import gzip
import io
import json
import re
import struct
import sys
import warnings
import zipfile
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import yaml
from hypothesis import strategies as st
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

from merlin import run
from merlin.embeddings import Embeddings, save_embeddings
from merlin.readers import release
from merlin.vocabulary import DISEASES, NAMES

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("ingest", "training")]
from test_volume import body, write_enhanced, write_series  # noqa: E402 - found there

MARK = "Qzxmark^Planta"
NUMBERS = (
    0, 1, -1, 2, 3, 4, 7, 8, 16, 64, 127, 128, 255, 256, 4096, 32767, -32768, 65535, 2**31 - 1, -(2**31),
    2**32 - 1, 2**63 - 1, 2**64, 0.5, 1e-45, 1e-30, 1e30, 1e39, 1e300, float("nan"), float("inf"),
    float("-inf"),
)  # fmt: skip
# Digits that are none to `int`, signs that steer a terminal, formulas, numbers in disguise.
TEXTS = (
    "", " ", "\t", "\x1b[31m", "\u202egpj", "\u200b", "=1+1", "-", "--", "nan", "inf", "-inf", "1e400", "1e5",
    "1,5", "1_0", "٣", "²", "½", "１２", "0x10", "1\\2", "\\", "../../x", "/etc/x", "a\nb", "a\rb", "\x85",
    '"', "'", "'1", "<b>", "#N/A", "NaT", "None", "TRUE", "2001-02-30", "1.2.03", "9" * 70, "x" * 3000, "é",
    "İ", "ß", "e\u0301", "\ufeff", "\ufffd", "한", "😀", "0", "-1", "1", "7", "label_", "prob_", "9.E-9",
)  # fmt: skip
numbers = st.sampled_from(NUMBERS) | st.integers(-70_000, 70_000) | st.floats(width=32)
texts = st.sampled_from(TEXTS) | st.text(max_size=9)
marked = st.sampled_from((*TEXTS, MARK, f"\x1b[1m{MARK}", MARK.upper()))
words = st.sampled_from(
    (b"\0", b"\xff", b"\0\0\0\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f", b"\xff" * 8, b"\n", b"\r",
     b'"', b",", b"\x1f\x8b", b"\x80\x04", b"\xff\xfe", b"\xef\xbb\xbf", b"\0" * 64, b"PK\x03\x04")
) | st.binary(min_size=1, max_size=6)  # fmt: skip


def times(most=3):
    """How often something is changed: mostly a little."""
    return st.sampled_from((0, *range(1, most + 1), 1, 1))


@st.composite
def in_bytes(draw, raw, most=3):
    """Bits, bytes and words changed, put in, taken out, moved or doubled, and the end gone."""
    raw = bytearray(raw)
    for _ in range(draw(times(most))):
        far = len(raw) if draw(st.booleans()) else min(len(raw), 600)
        at, n = draw(st.integers(0, far)), draw(st.integers(1, 40))
        how = draw(st.sampled_from(("bit", "word", "in", "out", "cut", "twice", "move")))
        if how == "bit" and at < len(raw):
            raw[at] ^= 1 << n % 8
        elif how in ("word", "in"):
            word = draw(words)
            raw[at : at + (len(word) if how == "word" else 0)] = word
        elif how == "out":
            del raw[at : at + n]
        elif how == "cut":
            del raw[at:]
        elif how == "twice":
            raw[at:at] = raw[at : at + 8 * n]
        else:
            part = raw[at : at + n]
            del raw[at : at + n]
            at = draw(st.integers(0, len(raw)))
            raw[at:at] = part
    return bytes(raw)


def paths_in(tree, path=()):
    """Where every node of lists and dicts stands."""
    yield path
    inside = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in inside:
        yield from paths_in(value, (*path, key))


def nodes(text=texts):
    """Whatever may stand where something else was meant."""
    plain = st.none() | st.booleans() | numbers | text
    return plain | st.lists(plain, max_size=3) | st.dictionaries(text, plain, max_size=2)


@st.composite
def in_tree(draw, tree, text=texts):
    """Nodes replaced, dropped, renamed or copied to where another stands."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(times())):
        path = draw(st.sampled_from([p for p in paths_in(tree) if p] or [()]))
        if not path:
            return draw(nodes(text))
        home = tree
        for key in path[:-1]:
            home = home[key]
        how = draw(st.sampled_from(("node", "node", "out", "name", "copy")))
        if how == "node":
            home[path[-1]] = draw(nodes(text))
        elif how == "copy":
            other = tree
            for key in draw(st.sampled_from(list(paths_in(tree)))):
                other = other[key]
            home[path[-1]] = json.loads(json.dumps(other))
        elif how == "name" and isinstance(home, dict):
            home[draw(text)] = home.pop(path[-1])
        else:
            del home[path[-1]]
    return tree


def made(make):
    """Bytes of what `make(path)` writes."""
    with TemporaryDirectory() as folder:
        make(Path(folder) / "a")
        return (Path(folder) / "a").read_bytes()


# Archives: .npz, .xlsx and .pt


def zipped(parts, method=zipfile.ZIP_DEFLATED):
    """An archive of (name, bytes); a name may stand twice."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, raw in parts:
            archive.writestr(zipfile.ZipInfo(name), raw, method)
    return stream.getvalue()


def parts_of(raw):
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return tuple((n, archive.read(n)) for n in archive.namelist())


@st.composite
def in_parts(draw, parts, change, often=0):
    """Members changed by `change(name, bytes)`, dropped, doubled or renamed; member `often` more often."""
    parts = list(parts)
    for _ in range(draw(times())):
        k = draw(st.integers(0, len(parts) - 1) | st.just(min(often, len(parts) - 1)))
        name, raw = parts[k]
        how = draw(st.sampled_from(("change", "change", "change", "out", "twice", "name")))
        if how == "change":
            parts[k] = name, draw(change(name, raw))
        elif how == "twice":
            parts.append((name, draw(change(name, raw))))
        elif how == "name":
            parts[k] = draw(texts | st.sampled_from([n for n, _ in parts])), raw
        elif len(parts) > 1:
            del parts[k]
    return parts


# NIfTI


@cache
def nifti_seeds():
    hu, affine = body((9, 8, 8)), np.diag([2.0, 2, 3, 1])

    def written(image):
        image.header["descrip"] = image.header["intent_name"] = MARK.encode()
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        return image.to_bytes()

    big = nib.Nifti1Header(endianness=">")
    as_float = (hu / np.float32(2)).astype(np.float32)
    return (
        (written(nib.Nifti1Image(hu, affine)), nib.Nifti1Header.template_dtype),
        (written(nib.Nifti2Image(hu, affine)), nib.Nifti2Header.template_dtype),
        (written(nib.Nifti1Image(hu, affine, big)), nib.Nifti1Header.template_dtype.newbyteorder()),
        (written(nib.Nifti1Image(as_float, affine)), nib.Nifti1Header.template_dtype),
    )


@st.composite
def nifti(draw):
    raw, dtype = draw(st.sampled_from(nifti_seeds()))
    header = np.frombuffer(bytearray(raw[: dtype.itemsize]), dtype)
    for _ in range(draw(times())):
        name = draw(st.sampled_from(dtype.names))
        place = header[name][0]
        with np.errstate(all="ignore"):
            if place.dtype.kind == "S":
                header[name] = draw(marked).encode()[:16]
            elif place.ndim:
                place[draw(st.integers(0, len(place) - 1))] = as_kind(draw(numbers), place.dtype)
            else:
                header[name] = as_kind(draw(numbers), place.dtype)
    raw = draw(in_bytes(header.tobytes() + raw[dtype.itemsize :], 2))
    name = "scan.nii"
    if draw(st.booleans()):
        raw, name = gzip.compress(raw, 1, mtime=0), "scan.nii.gz"
        raw = draw(in_bytes(raw, 1))
    return {name: raw}


def as_kind(number, dtype):
    """A number as a field can hold it, wrapped around."""
    if dtype.kind not in "iu":
        return float(number)
    whole = int(number) if np.isfinite(float(number)) else 0
    wrapped = np.array(whole % 2 ** (8 * dtype.itemsize), f"u{dtype.itemsize}")
    return wrapped.view(f"{dtype.kind}{dtype.itemsize}")


# DICOM

LONG = {b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UN", b"UT", b"UC", b"UR", b"SV", b"UV", b"OV"}
VRS = (b"SQ", b"UN", b"DS", b"IS", b"PN", b"UI", b"US", b"OW", b"LO", b"AT", b"FD", b"UT", b"U\xf6")
SYNTAXES = {
    "raw": ".1",
    "implicit": "",
    "rle": ".5",
    "deflated": ".1.99",
    "jpeg": ".4.70",
    "j2k": ".4.90",
}


@cache
def dicom_seeds():
    """Series of four slices in each syntax, and a multi-frame file: name → files."""
    hu, seeds = body((9, 8, 4)), {}
    with TemporaryDirectory() as home:
        for name in SYNTAXES:
            folder = Path(home) / name
            write_series(
                folder, hu, syntax=RLELossless if name == "rle" else ExplicitVRLittleEndian,
                PatientName=MARK, StudyDescription=MARK, ReferringPhysicianName=MARK,
            )  # fmt: skip
            seeds[name] = tuple(settled(f, name) for f in sorted(folder.iterdir()))
        seeds["enhanced"] = (settled(write_enhanced(Path(home) / "0001.dcm", hu), "raw"),)
    return seeds


def settled(file, name):
    """Bytes of a slice in its syntax, without what differs from run to run."""
    ds = pydicom.dcmread(file)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{int(file.stem)}"
    if name in ("jpeg", "j2k"):
        ds.PixelData = compressed(ds, name)
        ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = UID(f"1.2.840.10008.1.2{SYNTAXES[name]}")
    ds.save_as(file, enforce_file_format=True)
    return file.read_bytes()


def compressed(ds, name):
    """One frame's pixels as SimpleITK compresses them, in DICOM's capsule."""
    import SimpleITK as sitk
    from pydicom.encaps import encapsulate, generate_frames

    image = sitk.GetImageFromArray(ds.pixel_array[None].astype(np.int16))
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG2000" if name == "j2k" else "JPEG")
    with TemporaryDirectory() as home:
        writer.SetFileName(f"{home}/a.dcm")
        writer.Execute(image)
        made = pydicom.dcmread(f"{home}/a.dcm")
    return encapsulate([next(generate_frames(made.PixelData, number_of_frames=1))])


def elements(raw, at=132):
    """(place, head, length) of every element in explicit little endian, those in sequences too."""
    while at + 8 <= len(raw):
        if raw[at : at + 2] == b"\xfe\xff":  # an item: what it holds comes next
            at += 8
            continue
        head = 12 if raw[at + 4 : at + 6] in LONG else 8
        n = int.from_bytes(raw[at + head - (4 if head == 12 else 2) : at + head], "little")
        yield at, head, n
        if raw[at : at + 4] == b"\xe0\x7f\x10\x00":
            return
        at += head if raw[at + 4 : at + 6] == b"SQ" else head + n


def element(tag, vr, value, length=None):
    n = len(value) if length is None else length
    if vr in LONG:
        return tag + vr + b"\0\0" + struct.pack("<I", n & 0xFFFFFFFF) + value
    return tag + vr + struct.pack("<H", n & 0xFFFF) + value


TAGS = (0x00080005, 0x00080060, 0x00080008, 0x00080016, 0x0020000D, 0x0020000E, 0x00200011, 0x00280004,
        0x00280008, 0x00280120, 0x00281052, 0x00281053, 0x00281054, 0x00180050, 0x52009230, 0x00181210,
        0x00100020, 0x00280006, 0x00281101, 0x7FE00008, 0x00280301)  # fmt: skip


@st.composite
def element_edit(draw, n):
    """(which, how, tag, VR, value, length): one change of an element."""
    value = draw(
        st.one_of(
            marked.map(lambda t: t.encode("utf-8", "replace")),
            numbers.map(lambda v: f"{v:g}".encode()),
            st.lists(numbers, min_size=2, max_size=7).map(
                lambda v: "\\".join(f"{x:g}" for x in v).encode()
            ),
            words,
            st.sampled_from((*SYNTAXES.values(), ".2", ".4.51", ".4.80", ".4.100", ".9")).map(
                lambda code: f"1.2.840.10008.1.2{code}".encode()
            ),
        )
    )
    how = draw(st.sampled_from(("value", "value", "value", "vr", "length", "out", "twice", "new")))
    return (
        draw(st.integers(0, max(n - 1, 0))), how, draw(st.sampled_from(TAGS)),
        draw(st.sampled_from(VRS)), value, draw(st.integers(0, 2**32 - 1) | st.integers(0, 40)),
    )  # fmt: skip


def edited(raw, edits):
    """A file with its elements edited; those of the header before the data set, too."""
    for which, how, tag, vr, value, length in edits:
        found = list(elements(raw))
        if not found:
            break
        at, head, n = found[which % len(found)]
        whole = raw[at : at + head + n]
        own, old_vr, old = whole[:4], whole[4:6], whole[head:]
        new = whole
        if how == "value":
            new = element(own, old_vr, value)
        elif how == "vr":
            new = element(own, vr, old)
        elif how == "length":
            new = element(own, old_vr, old, length)
        elif how == "new":
            new = whole + element(struct.pack("<HH", tag >> 16, tag & 65535), vr, value)
        else:
            new = 2 * whole if how == "twice" else b""
        raw = raw[:at] + new + raw[at + len(whole) :]
    return raw


@st.composite
def dicom(draw):
    """A folder: the same change in every slice, or in one."""
    name = draw(st.sampled_from((*SYNTAXES, "raw", "raw", "enhanced", "enhanced")))
    files = list(dicom_seeds()[name])
    edits = draw(st.lists(element_edit(60), max_size=3))
    in_all, one = draw(st.booleans()), draw(st.integers(0, len(files) - 1))
    for i, raw in enumerate(files):
        if in_all or i == one:
            files[i] = edited_whole(raw, edits, name == "deflated")
    files[one] = draw(in_bytes(files[one], 2))
    return {f"ct/{i:04d}.dcm": raw for i, raw in enumerate(files)}


def edited_whole(raw, edits, is_deflated):
    """A file with its elements edited, inside the deflated part too."""
    if not is_deflated:
        return edited(raw, edits)
    start = 132 + 12 + int.from_bytes(raw[140:144], "little")
    inside = bytes(132) + zlib.decompress(raw[start:], -15)
    packer = zlib.compressobj(wbits=-15)
    return raw[:start] + packer.compress(edited(inside, edits)[132:]) + packer.flush()


# npz

SHAPES = ("()", "(0,)", "(1,)", "(3,)", "(4,)", "(3, 1)", "(1, 3)", "(0, 4)", "(3, 4, 1)", "(-1, 4)", "(3.0,)",
          "(99999999999,)", "(2147483647, 2147483647)", "None", "3", "(True,)", "((3,),)", "[3]")  # fmt: skip
DESCRS = ("<f4", ">f4", "<f8", "<f2", "<i8", "<u8", "|b1", "|S3", "<U5", ">U2", "|O", "<c8", "|V4", "<M8[D]",
          "<m8[s]", "<f16", "<U99999999", "<U0", "|S0", "x", "<i99")  # fmt: skip


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@cache
def embedding_seed():
    rng = np.random.default_rng(7)
    whole = Embeddings(
        study_id=np.array([f"s1 {MARK}", "s2", "s3"]), patient_id=np.array(["p1", "p1", f"p2 {MARK}"]),
        site=np.array(["home", "away", "home"]), split=np.array(["test", "test", "val"]),
        image=unit(rng, 3, 4), findings=unit(rng, 3, 4), impression=np.full((3, 4), np.nan, np.float32),
        sections=unit(rng, 3, 2, 4).astype(np.float16), section=np.array(["liver", "spleen"]),
        phecode_logits=rng.normal(size=(3, 2)).astype(np.float32), phecode=np.array(["008.5", "250.2"]),
        phecode_labels=np.array([[0, 1], [1, 0], [np.nan, 0]], np.float32),
        prompt=np.array(["renal cyst", "no renal cyst"]), prompt_finding=np.array(["renal_cyst"] * 2),
        prompt_kind=np.array(["present", "absent"]), prompt_wording=np.array(["reported"] * 2),
        prompt_embedding=unit(rng, 2, 4), finding=np.array(["renal_cyst"]),
        finding_labels=np.array([[0], [1], [np.nan]], np.float32), text_group=np.arange(3),
        meta=dict(model="tiny", checkpoint="abc", tier="phantom", note=MARK),
    )  # fmt: skip

    return parts_of(made(lambda path: save_embeddings(path, whole)))


@st.composite
def in_array(draw, name, raw):
    """One .npy: other values, another type, shape or header, or other bytes."""
    if (name, raw) not in embedding_seed():  # changed before
        return draw(in_bytes(raw))
    stream = io.BytesIO(raw)
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    value = np.frombuffer(stream.read(), dtype).reshape(shape).copy()
    how = draw(st.sampled_from(("value", "value", "type", "header", "bytes", "shape")))
    if how == "bytes":
        return draw(in_bytes(raw, 2))
    if how == "header":
        header = f"{{'descr': '{draw(st.sampled_from(DESCRS))}', 'fortran_order': False, "
        header += f"'shape': {draw(st.sampled_from((*SHAPES, '(' * 300)))}, }}"
        version = draw(st.sampled_from((1, 1, 2, 3, 9)))
        size = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
        return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + b"\n" + raw[128:]
    if name == "meta.npy":
        meta = {"schema": 1, "tier": "phantom", "n_left_out": 3, "notes": ["x"], "a": {}}
        text = st.sampled_from(("[" * 9000, "NaN", "{")) | in_tree(meta).map(json.dumps)
        value = np.array(draw(text))
    elif how == "value" and value.size:
        values = value.ravel().tolist()
        k, is_text = draw(st.integers(0, value.size - 1)), dtype.kind == "U"
        values[k] = draw(texts) if is_text else as_kind(draw(numbers), dtype)
        kind = draw(st.sampled_from((str, object))) if is_text else dtype
        with np.errstate(all="ignore"):
            value = np.array(values, kind).reshape(shape)
    elif how == "type":
        kind = draw(st.sampled_from(("O", "f8", "i8", "S", "f2", "U", "?", "c8", ">f4", "M8[D]")))
        with warnings.catch_warnings(), suppress(ValueError, TypeError):
            warnings.simplefilter("ignore")
            value = value.astype(kind)
    elif value.ndim:
        value = draw(
            st.sampled_from((value[None], value[..., None], value.T, value[:0], value[:1]))
        )
    return made_array(value)


def made_array(value):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, value, allow_pickle=True)
    return stream.getvalue()


@st.composite
def npz(draw):
    parts = draw(in_parts(embedding_seed(), in_array))
    methods = (zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,) * 9 + (zipfile.ZIP_LZMA,)
    return {"e.npz": draw(in_bytes(zipped(parts, draw(st.sampled_from(methods))), 1))}


# Tables

SCORES = [
    ["study_id", "patient_id", "site", "split", "Pleural Effusion", "Lung Opacity", "label_Pleural Effusion",
     "label_Lung Opacity"],
    *([f"{i:04d}", f"p{i // 2}", "home", "test", f"{0.05 + 0.04 * i:.3f}", f"{0.99 - 0.045 * i:.3f}", str(i % 2),
       ("0", "1", "", "-1")[i % 4]] for i in range(20)),
    [f"{MARK}9", MARK, "home", "test", "0.5", "0.25", "1", "0"],
]  # fmt: skip
LONG_SCORES = [
    ["study_id", "finding", "score", "label", "split"],
    *(
        [f"{i // 2}", ("Edema", "Ascites")[i % 2], f"{0.05 * i:.2f}", str(i % 3 % 2), "test"]
        for i in range(16)
    ),
]
CODES = [
    ["study_id", "patient_id", "date", "vocabulary", "code", "accession"],
    ["s1", "p1", "2015-01-02", "ICD10CM", "K63.1", "A1"],
    ["s1", "p1", "2015-01-13", "ICD9CM", "008.45", "A1"],
    ["s2", MARK, "2014-05-06", "ICD10", "I10", "A2"],
    [MARK, "p3", "2014-05-06", "SNOMED", "44054006", "A3"],
]
CODE_MAP = [
    ["vocabulary", "code", "phecode"],
    ["ICD10CM", "K63.1", "562.1"], ["ICD9CM", "008.45", "8.5"], ["ICD10", "I10", "401.1"],
]  # fmt: skip
MANIFEST = [
    ["study_id", "patient_id", "split", "volume", "sex", "age", "date", "slice_mm", "site", "findings",
     f"label_{NAMES[0]}", "five_year_ckd"],
    ["s1", "p1", "train", "volumes/s1.nii.gz", "F", "57", "2015-01-02", "5.0", "internal", MARK, "1", "0"],
    ["s2", "p2", "test", "volumes/s2.nii.gz", "M", "41.5", "2015-11-20", "1.25", "internal", "Liver: Normal.", "",
     "3"],
    [f"s3{MARK}", MARK, "val", "volumes/s3.nii.gz", "", "", "", "", "", "", "0", ""],
]  # fmt: skip
PEOPLE = [
    ["study_id", "date", "age", "sex", "slice"],
    ["1", "02.01.2015", "57", "F", "5"], ["2", "13.05.2016", "057Y", "w", "1,25 mm"],
    ["3", "7 Mai 2012", "18 months", "männlich", "0.5cm"], ["4", "", "", "unknown", ""],
]  # fmt: skip
TABLES = {"scores": (SCORES, LONG_SCORES), "codes": (CODES, CODE_MAP), "manifest": (MANIFEST,),
          "people": (PEOPLE,)}  # fmt: skip
CELLS = (*TEXTS, "0.5", "1.0", "2", "-9", "1;2", "1e-400", "5/6/7", "31.12.99", "12/31/2015", "2015-01-02T10:00:00Z",
         "1.23E+11", "57 years", "5y6m", "200", "test", "train", "ICD9", "8.45", "=\"007\"", "'007", "1900-01-01",
         "9999-12-31", "0001-01-01", "１", "1٫5", "+5", "0.1.2", "Ⅷ", "12:30", "1 Mai 2012")  # fmt: skip
PAGES = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "cp1251")
cells = st.sampled_from(CELLS) | st.text(max_size=6)


STUDIES = ("AC1", "AC2", "AC3")
RELEASE = {
    release.REPORTS: [["study id", "Findings", "Split"],
                      *([s, f"Liver: Normal. {MARK}", ("val", "test")[s == "AC3"]] for s in STUDIES)],
    release.FINDINGS: [["study_id", *NAMES], *([s, *(("1", "0", "-1") * len(NAMES))[: len(NAMES)]] for s in STUDIES)],
    release.FIVE_YEARS: [["study_id", *DISEASES], ["AC3", *("0123" * 2)[: len(DISEASES)]]],
    release.METADATA: [["study_id", "age", "gender", "phase", "manufacturer", "slicethickness"],
                       *([s, "57", "F", "portal venous", "Vendor A", "5.0"] for s in STUDIES)],
}  # fmt: skip


@st.composite
def in_rows(draw, rows):
    """Cells replaced, rows ragged, doubled or gone, columns doubled, renamed or moved."""
    rows = [list(r) for r in rows]
    for _ in range(draw(times(4))):
        i = draw(st.integers(0, len(rows) - 1))
        j = draw(st.integers(0, max(len(rows[i]) - 1, 0)))
        how = draw(
            st.sampled_from(
                ("cell", "cell", "cell", "column", "less", "more", "row", "out", "head", "twice")
            )
        )
        if how == "cell" and rows[i]:
            rows[i][j] = draw(cells)
        elif how == "column":
            cell = draw(cells)
            rows[1:] = [[*r[:j], cell, *r[j + 1 :]] for r in rows[1:]]
        elif how == "less":
            del rows[i][j:]
        elif how == "more":
            rows[i][j:j] = draw(st.lists(cells, max_size=2))
        elif how == "row":
            rows.insert(i, list(rows[i]))
        elif how == "out" and len(rows) > 1 and i:
            del rows[i]
        elif how == "head" and rows[0]:
            k = j % len(rows[0])
            rows[0][k] = draw(
                cells | st.sampled_from([c for t in TABLES.values() for r in t for c in r[0]])
            )
        elif how == "twice":
            rows = [[*r, *r[j : j + 1]] for r in rows]
    return rows


@st.composite
def as_csv(draw, rows):
    """Bytes of a CSV by any program, and damaged."""
    stream, quoting = io.StringIO(), st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    sep, end = draw(st.sampled_from(",,;\t|")), draw(st.sampled_from(("\n", "\r\n", "\r")))
    table = csv.writer(stream, delimiter=sep, lineterminator=end, quoting=draw(quoting))
    table.writerows(rows)
    text = draw(st.sampled_from(("", "", "", "sep=;\n", "A title\n", "\n\n"))) + stream.getvalue()
    return draw(in_bytes(text.encode(draw(st.sampled_from(PAGES)), "replace"), 2))


def as_workbook(rows):
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        cells = [re.sub(r"[\x00-\x08\x0b-\x1f]", " ", c)[:30_000] for c in row]
        book.active.append(
            [float(c) if re.fullmatch(r"[0-9]+\.?[0-9]*", c) and len(c) < 9 else c for c in cells]
        )
    stream = io.BytesIO()
    book.save(stream)
    parts = dict(parts_of(stream.getvalue()))
    return tuple(
        (n, raw) for n, raw in parts.items() if n != "docProps/core.xml"
    )  # it holds the time


_PLACE = re.compile(rb'="[^"]*"|>[^<]*<')
XML = (b'="1048577"', b'="XFE1"', b'="A0"', b'="XFD1048576"', b'="-1"', b'="s"', b'="b"', b'="d"', b'="e"',
       b'="inlineStr"', b'="n"', b'="99999999999999999999"', b'="http://x/y"', b'="../../x.xml"', b">99999999<",
       b">1e400<", b">nan<", b">-5<", b">#REF!<", b">&lol;<", b">_x000D_<", b"><v>1</v><", b"><f>1+1</f><",
       b">\xff<", b"><", b'=""', b'="hidden"', b">2958466<", b">1900-02-30T00:00:00<", b">x<")  # fmt: skip


@st.composite
def in_xml(draw, name, raw):
    """Values of attributes and texts replaced, whatever they mean."""
    for _ in range(draw(times())):
        places = [m.span() for m in _PLACE.finditer(raw)]
        a, b = draw(st.sampled_from(places or [(0, 0)]))
        raw = raw[:a] + draw(st.sampled_from(XML)) + raw[b:]
    return draw(in_bytes(raw, 1)) if draw(st.integers(0, 3)) == 0 else raw


def as_parquet(rows, kind):
    width = len(rows[0])
    cells = [[*r, *[""] * width][:width] for r in rows[1:]]
    table = pd.DataFrame(cells, columns=rows[0])
    if not table.columns.is_unique or not width:
        return b"PAR1"
    if kind == "number":
        table = table.apply(
            lambda c: pd.to_numeric(c, errors="coerce") if c.name not in rows[0][:2] else c
        )
    elif kind == "index":
        table = table.set_index(rows[0][0])
    try:
        return table.to_parquet()
    except (ValueError, UnicodeEncodeError):
        return b"PAR1"


@st.composite
def table(draw, kinds=tuple(TABLES), forms=("csv",) * 5 + ("gz", "parquet")):
    """One table, as a file of any form; its kind is its file's name."""
    kind = draw(st.sampled_from(kinds))
    rows = draw(in_rows(draw(st.sampled_from(TABLES[kind]))))
    form = draw(st.sampled_from(forms))
    if form == "xlsx":
        parts = as_workbook(rows)
        sheet = [n for n, _ in parts].index("xl/worksheets/sheet1.xml")
        return {f"{kind}.xlsx": draw(in_bytes(zipped(draw(in_parts(parts, in_xml, sheet))), 1))}
    if form == "parquet":
        raw = as_parquet(rows, draw(st.sampled_from(("text", "number", "index"))))
        return {f"{kind}.parquet": draw(in_bytes(raw, 1))}
    raw = draw(as_csv(rows))
    if form == "gz":
        return {f"{kind}.csv.gz": draw(in_bytes(gzip.compress(raw, 1, mtime=0), 1))}
    return {f"{kind}.csv": raw}


@st.composite
def data_set(draw):
    """A folder in the release's layout, one of its tables damaged; that one comes first."""
    which = draw(st.sampled_from(sorted(RELEASE)))
    files = {f"set/{which}": draw(as_csv(draw(in_rows(RELEASE[which]))))}
    for name in sorted(RELEASE.keys() - {which}):
        files[f"set/{name}"] = "\n".join(map(",".join, RELEASE[name])).encode()
    return files | {f"set/{release.VOLUMES}/{s}.nii.gz": b"" for s in STUDIES}


# Profiles

SNIPPETS = (
    "a: &x [*x]\n", "<<: *x\n", "<<: [1]\n", "? {a: 1}\n: 2\n", "? [1]\n: 2\n", "!!python/object/apply:os.getcwd []\n",
    "---\n", "%YAML 9.9\n", "\t", "seed: 2001-02-30\n", "seed: !!timestamp x\n", "seed: !!int x\n", "seed: !!float x\n",
    "seed: !!binary x\n", "seed: 0x_\n", "seed: 190:20:30\n", "seed: 1__0\n", "arms: !!set {a}\n", "arms: [a]\n",
    "arms:\n", "sweep:\n", "sweep: {arms: }\n", "sweep: {seeds: 3}\n", "sweep: {sizes: [x]}\n", "tier: [1]\n",
    "tier: full\n", "arms: {1: {}}\n", "arms: {a: 3}\n", "arms: {a: [n_steps]}\n", "sweep: {base: 3}\n",
    "1: 2\n", "null: 1\n", "{}: 1\n", "arms: {main: {n_steps: {}}}\n", "\x00", "\ud7ff", "[" * 2000, "{a: " * 900,
    "seed: 1e9999\n", "seed: " + "9" * 5000 + "\n", "sweep: {arms: {'x y': {}}}\n", "- a\n", "*y\n", "!x y\n", "'", '"',
    "arms: {a: {}, a: {}}\n", "sweep: {arms: [a, b]}\n", "sweep: {seeds: [[1]]}\n", "sweep: {seeds: [a]}\n",
)  # fmt: skip
PROFILES = sorted(run.PROFILES.glob("*.yaml"))


@cache
def profile_seeds():
    return tuple(p.read_text() for p in PROFILES)


@st.composite
def profile(draw):
    text = draw(st.sampled_from(profile_seeds()))
    if draw(st.booleans()):
        tree = draw(in_tree(yaml.safe_load(text)))
        text = yaml.safe_dump(tree, default_flow_style=draw(st.sampled_from((None, True, False))))
    for _ in range(draw(times(2))):
        lines = text.splitlines(keepends=True)
        at = draw(st.integers(0, len(lines)))
        text = "".join([*lines[:at], draw(st.sampled_from(SNIPPETS)), *lines[at:]])
    return {"own.yaml": draw(in_bytes(text.encode("utf-8", "replace"), 1))}


# Weights


@cache
def weight_seeds():
    """Bytes of a small five-year model, of towers in the package's small form, and of an official file's kind."""
    import tiny_run
    import torch

    from merlin.model.i3d import ImageEncoder
    from merlin.model.two_towers import feature_shape
    from merlin.training import checkpoint, diseases

    grid = (16, 16, 16)
    torch.manual_seed(0)
    facts = {"grid": {"shape": grid, "spacing_mm": [9, 9, 9]}, "phecodes": ["1"] * 3, "note": MARK}
    encoder = ImageEncoder(tiny_run.IMAGE, feature_shape=feature_shape(tiny_run.IMAGE, grid))
    five = diseases.DiseaseModel(encoder, 2)
    some = {"module.conv1.weight": torch.zeros(2, 3), "module.classifier.weight": torch.ones(2)}
    return {
        "towers": made(lambda path: checkpoint.save_weights(path, tiny_run.model(), facts)),
        "five": made(lambda path: diseases.save_model(path, five, ["ckd", "cvd"], facts)),
        "official": made(lambda path: checkpoint.save_tensors(path, some, {})),
        "pt": made(lambda path: torch.save({"state_dict": some}, path)),
    }


@st.composite
def safetensors(draw, kinds=("five", "five", "official", "towers")):
    kind = draw(st.sampled_from(kinds))
    raw = weight_seeds()[kind]
    n = int.from_bytes(raw[:8], "little")
    header, data = dict(sorted(json.loads(raw[8 : 8 + n]).items())), raw[8 + n :]
    about = {k: json.loads(v) for k, v in sorted(header.pop("__metadata__", {}).items())}
    which = draw(st.sampled_from(("about", "about", "tensors", "both", "neither")))
    if which in ("about", "both"):
        about = draw(in_tree(about, marked))
    if which in ("tensors", "both"):
        header = draw(in_tree(header, marked))
    if isinstance(header, dict) and isinstance(about, dict):
        header["__metadata__"] = {str(k): json.dumps(v) for k, v in about.items()}
        if draw(st.integers(0, 5)) == 0 and about:
            header["__metadata__"][draw(st.sampled_from(sorted(map(str, about))))] = draw(marked)
    said = json.dumps(header).encode()
    raw = len(said).to_bytes(8, "little") + said + data
    return {"w.safetensors": draw(in_bytes(raw, 1))}


@st.composite
def official_pt(draw):
    parts = draw(in_parts(parts_of(weight_seeds()["pt"]), lambda _, raw: in_bytes(raw)))
    return {"w.pt": draw(in_bytes(zipped(parts, zipfile.ZIP_STORED), 1))}


# Texts

PIECES = (
    "FINDINGS: ", "IMPRESSION: ", "Impression:\n", "Liver: ", "Lungs: Normal. ", "Comparison: none. ",
    "Technique: ", "No ascites, pleural effusion or free air. ",
    "There is a small renal cyst, not increased. ", "with ", "and ", "or ", ", ", ". ", "; ", ": ", "\n",
    "\n\n", "\\n", "no ", "not ", "denies ", "without evidence of ", "history of ", "mother had ",
    "is normal", "are unremarkable", "The heart is enlarged", "effusion", "1. ", "- ", "* ", "<b>", "</b>",
    "_x000D_", "[", "]", "(", ")", "a.", "a", "x-", "'", " ", "   ", "\t", "9", "12/03/2014 ", "2014-03-12",
    "03.12.14", "555-123-4567 ", "a.b@c.de ", "a.", "@", "http://a.b/c", "Dr. ", "Mr. Smith ", "Jane Doe",
    "DOE, JANE", "Doe^Jane", "O'Neil", "Müller", "M?ller", "M�ller", "M=FCller", "MÃ¼ller", "ﬁ", "İ", "ß",
    "é́", "山田太郎", "김철수", "\u202e", "\x1b[31m", "\x00", "\ud7ff", "Electronically signed by ", "Signed: ",
    "MRN 0012345", "AB-12-34", "&#65;", "&amp;", "Å", "א", "ا", "ไทย", "1950年4月7日", "7 Mai 1950",
    "Apr 7, 1950", "²", "٣", "１２", "¤", "unchanged ", "left ", "right ", "conclusion ", "OPINION",
    "findings", "Impression ", "such as ", "including ", "increased ", "remains ", "non-", "free ",
)  # fmt: skip


@st.composite
def report(draw):
    """A report out of pieces that the rules know, a few of them said very often."""
    often = st.sampled_from((1,) * 20 + (2, 40, 2000))
    pieces = st.lists(st.tuples(st.sampled_from(PIECES) | st.text(max_size=5), often), max_size=14)
    text = "".join(piece * n for piece, n in draw(pieces))
    return {"report.txt": text.encode("utf-8", "replace")}
