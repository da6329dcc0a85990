"""Small files that ask for much, read each in a process of its own beside a good file of its kind.

    python tests/ingest/bombs.py [--json] [NAME …]

Prints what each claims, the memory and seconds that it took, and the refusal. `test_bombs` asserts the
memory and the refusal; seconds are for the reader.
"""

import argparse
import gzip
import io
import json
import multiprocessing
import os
import pickle
import resource
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pydicom
import torch
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLossless, RLELossless
from safetensors.torch import save_file
from test_volume import write_nifti, write_series, write_slice

from merlin.data.cells import TableError
from merlin.data.preprocess import load_input
from merlin.data.scan import UnreadableScan
from merlin.data.tables import read_table
from merlin.data.volume import find_scans
from merlin.embeddings import load_embeddings, save_embeddings
from merlin.training import checkpoint, official, reports

MOST_MB = 500
ZEROS = 1 << 24  # bytes of one packed part of a bomb


# NIfTI


def _nifti(shape, datatype=4, bits=16, slope=1.0, offset=352.0, mark=b"\0" * 4):
    head = bytearray(348)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, datatype, bits)
    struct.pack_into("<4f", head, 76, 1, 1, 1, 1)
    struct.pack_into("<3f", head, 108, offset, slope, 0)
    head[123] = 2
    struct.pack_into("<2h", head, 252, 0, 1)
    for i in range(3):
        struct.pack_into("<f", head, 280 + 20 * i, 1)
    head[344:348] = b"n+1\0"
    return bytes(head) + mark


def _zeros(n):
    """Gzip members of `n` zeros; the parts are packed once and repeated."""
    return gzip.compress(bytes(ZEROS), 9, mtime=0) * (n // ZEROS)


def _named(raw, n_name):
    """One gzip member whose file name is `n_name` letters long."""
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packed.compress(raw) + packed.flush()
    ends = struct.pack("<2I", zlib.crc32(raw), len(raw))
    return b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + b"x" * n_name + b"\0" + data + ends


def gz_claims_little(folder):
    good = gzip.compress(write_nifti(folder / "t.nii").read_bytes(), mtime=0)
    (folder / "t.nii").unlink()
    (folder / "bomb.nii.gz").write_bytes(good + _zeros(960 << 20))


def gz_claims_much(folder):
    head = gzip.compress(_nifti((512, 512, 1920)), mtime=0)
    (folder / "bomb.nii.gz").write_bytes(head + _zeros(960 << 20))


def gz_claims_terabytes(folder):
    (folder / "bomb.nii.gz").write_bytes(
        gzip.compress(_nifti((32767,) * 3, 64, 64)) + _zeros(ZEROS)
    )


def _padded(n_voxels, n_name):
    """A scan of float64 with a slope, as large as may be, most of it padding."""
    shape = (256, 256, n_voxels >> 16)
    hu = np.zeros(shape)
    hu[100:150, 100:150] = np.random.default_rng(7).choice([-1000.0, 40.25], (50, 50, 1))
    return _named(_nifti(shape, 64, 64, slope=1.0001) + hu.tobytes(order="F"), n_name)


def gz_of_the_size_that_any_file_may_claim(folder):
    (folder / "bomb.nii.gz").write_bytes(_padded(1 << 23, 100))


def gz_of_the_size_that_a_megabyte_may_claim(folder):
    packed = _padded(15 << 20, 0)
    (folder / "bomb.nii.gz").write_bytes(_padded(15 << 20, (1 << 20) - len(packed) - 200))


def gz_of_fifty_thousand_members(folder):
    head = gzip.compress(_nifti((64, 64, 64)), mtime=0)
    (folder / "bomb.nii.gz").write_bytes(head + gzip.compress(b"", mtime=0) * 50_000)


def gz_in_gz(folder):
    (folder / "bomb.nii.gz").write_bytes(gzip.compress(_zeros(960 << 20)))


def gz_with_garbage_behind(folder):
    good = write_nifti(folder / "bomb.nii.gz").read_bytes()
    (folder / "bomb.nii.gz").write_bytes(good + b"garbage" * 1000)


def gz_with_an_offset_of_2_gb(folder):
    raw = _nifti((64, 64, 64), offset=2.0**31)
    (folder / "bomb.nii.gz").write_bytes(gzip.compress(raw) + _zeros(960 << 20))


def gz_with_an_endless_extension(folder):
    mark = b"\1\0\0\0" + struct.pack("<2i", 0x7FFFFFF0, 6)
    raw = _nifti((16, 14, 12), mark=mark, offset=float(1 << 24))
    (folder / "bomb.nii.gz").write_bytes(gzip.compress(raw) + _zeros(960 << 20))


# DICOM


def _dicom(folder, edit, n=9, size=(14, 16), **tags):
    """A series of which every file is edited: the data set, or its bytes where a function returns some."""
    for k in range(n):
        path = write_slice(folder / "bomb", np.full(size, 40), (-10, -20, 3.0 * k), **tags)
        ds = pydicom.dcmread(path)
        raw = edit(ds)
        if raw is None:
            ds.save_as(path)
        else:
            path.write_bytes(raw(path.read_bytes()) if callable(raw) else raw)


def _with_rows(ds, rows, columns, syntax=RLELossless, frame=None):
    if frame is None:
        frame = struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\0\x81\0"
    ds.Rows, ds.Columns = rows, columns
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].is_undefined_length = True


def rle_of_65535(folder):
    _dicom(folder, lambda ds: _with_rows(ds, 65535, 65535))


def rle_of_8192(folder):
    _dicom(folder, lambda ds: _with_rows(ds, 8192, 8192))


def rle_of_many_slices(folder):
    _dicom(folder, lambda ds: _with_rows(ds, 2048, 2048))


def _siz(side):
    size = struct.pack(">HHIIIIIIIIH", 41, 0, side, side, 0, 0, side, side, 0, 0, 1) + b"\x0f\1\1"
    return b"\xff\x4f\xff\x51" + size + b"\xff\xd9"


def jpeg_2000_of_another_size(folder):
    _dicom(folder, lambda ds: _with_rows(ds, 14, 16, JPEG2000Lossless, _siz(60000)))


def jpeg_of_another_size(folder):
    sof = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, 16, 65500, 65500, 1) + b"\1\x11\0\xff\xd9"
    _dicom(folder, lambda ds: _with_rows(ds, 14, 16, JPEGLossless, sof))


def frames_of_two_billion(folder):
    _dicom(folder, lambda ds: setattr(ds, "NumberOfFrames", "2147483647"))


def frames_without_pixels(folder):
    def edit(ds):
        frame = pydicom.Dataset()
        frame.PlanePositionSequence = [pydicom.Dataset()]
        ds.PerFrameFunctionalGroupsSequence = [frame] * 16_000
        ds.NumberOfFrames = 16_000

    _dicom(folder, edit, n=1)


def _deflated(tail):
    def edit(ds):
        head = io.BytesIO()
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
        ds.save_as(head)
        plain = head.getvalue()
        at = plain.index(b"1.2.840.10008.1.2.1.99")
        at = 132 + 12 + struct.unpack("<I", plain[140:144])[0]
        data = zlib.decompress(plain[at:], -15)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return plain[:at] + packer.compress(data) + packer.compress(tail) + packer.flush()

    return edit


def deflated_to_473_mb(folder):
    tail = struct.pack("<HH2sHI", 0x7FE1, 0x1010, b"OB", 0, 473 << 20) + bytes(473 << 20)
    _dicom(folder, _deflated(tail), n=1)


def deflated_to_a_million_elements(folder):
    count = np.zeros(400_000, [("group", "<u2"), ("element", "<u2"), ("vr", "S2"), ("n", "<u2")])
    count["group"], count["vr"] = 0x7FE3 + 2 * (np.arange(400_000) >> 16), "LO"
    count["element"] = np.arange(400_000) & 0xFFFF
    _dicom(folder, _deflated(count.tobytes()), n=1)


def sequences_10_000_deep(folder):
    open_one = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    _dicom(folder, lambda ds: lambda raw: raw + open_one * 10_000)


def an_element_of_4_gb(folder):
    claim = struct.pack("<HH2sHI", 0x0008, 0x0060, b"OB", 0, 0xFFFFFFFE)
    _dicom(folder, lambda ds: lambda raw: raw[: raw.index(b"\x08\0\x60\0")] + claim + b"CT")


def a_hundred_thousand_frames(folder):
    n = 60_000
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * n
    sequence = struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, len(items)) + items

    def edit(ds):
        ds.NumberOfFrames = n
        ds.ImageType = ["ORIGINAL"] * 20_000
        raw = io.BytesIO()
        del ds.PixelData
        ds.save_as(raw)
        return raw.getvalue() + sequence

    _dicom(folder, edit, n=1)


def positions_of_many_numbers(folder):
    def edit(ds):
        ds.add_new("ImagePositionPatient", "UT", "1\\" * 200_000 + "1")

    _dicom(folder, edit, n=1)


# Embeddings


def _npz(folder, *more, without=(), packed=zipfile.ZIP_DEFLATED):
    good_embeddings(folder / "bomb.npz")
    parts = zipfile.ZipFile(folder / "bomb.npz")
    with zipfile.ZipFile(folder / "new.npz", "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in parts.infolist():
            if part.filename.removesuffix(".npy") not in without:
                new.writestr(part.filename, parts.read(part))
        for name, data in more:
            with new.open(zipfile.ZipInfo(f"{name}.npy"), "w") as stream:
                stream._compressor = None
                if packed is not None:
                    stream._zinfo.compress_type = packed
                    stream._compressor = zipfile._get_compressor(packed)
                for chunk in data if isinstance(data, list) else [data]:
                    stream.write(chunk)
    (folder / "new.npz").replace(folder / "bomb.npz")


def _npy(shape, dtype, n=None):
    head = io.BytesIO()
    form = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_1_0(head, form)
    n = int(np.prod(shape)) * np.dtype(dtype).itemsize if n is None else n
    return [head.getvalue(), *[bytes(ZEROS)] * (n // ZEROS), bytes(n % ZEROS)]


def npz_claims_7_tib(folder):
    _npz(folder, ("image", _npy((1 << 20, 1 << 20), "f8", 100)), without=["image"])


def npz_of_zeros(folder):
    _npz(folder, ("image", _npy((4, 20 << 20), "f4")), without=["image"])


def npz_of_two_of_a_name(folder):
    _npz(folder, ("image", _npy((4, 8), "f4")))


def npz_of_many_ids(folder):
    _npz(folder, ("study_id", _npy((300 << 20,), "S1")), without=["study_id"])


def npz_of_ids_of_no_length(folder):
    _npz(folder, ("study_id", _npy((1 << 40,), "S0", 0)), without=["study_id"])


def npz_with_a_header_of_a_gigabyte(folder):
    data = [b"\x93NUMPY\x02\0" + struct.pack("<I", 960 << 20), *[b" " * ZEROS] * 30]
    _npz(folder, ("image", data), without=["image"])


def npz_of_another_packer(folder):
    _npz(folder, ("image", _npy((4, 10 << 20), "f4")), without=["image"], packed=zipfile.ZIP_LZMA)


def npz_of_objects_as_wide_as_one(folder):
    ids = np.array(["x" * 100_000, *map(str, range(100_000))], object)
    head = io.BytesIO()
    np.lib.format.write_array(head, ids, allow_pickle=True)
    _npz(folder, ("study_id", head.getvalue()), without=["study_id"])


def npz_of_ten_million_opcodes(folder):
    head = io.BytesIO()
    form = {"descr": "|O", "fortran_order": False, "shape": (4,)}
    np.lib.format.write_array_header_1_0(head, form)
    _npz(folder, ("study_id", head.getvalue() + b"N" * (50 << 20)), without=["study_id"])


def npz_of_deep_notes(folder):
    notes = np.array("[" * 50_000)
    head = io.BytesIO()
    np.lib.format.write_array(head, notes)
    _npz(folder, ("meta", head.getvalue()), without=["meta"])


def npz_with_an_array_that_nobody_wants(folder):
    _npz(folder, ("extra", _npy((4, 25 << 20), "f4")))


def npz_that_is_none(folder):
    (folder / "bomb.npz").write_bytes(b"not a zip..")


def good_embeddings(path):
    from merlin.embeddings import Embeddings

    rng = np.random.default_rng(7)
    image = rng.normal(size=(4, 8)).astype("f4")
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    ids = np.array(["a", "b", "c", "d"])
    save_embeddings(
        path,
        Embeddings(
            ids,
            ids,
            np.array(["s"] * 4),
            np.array(["test"] * 4),
            image,
            meta={"model": "m", "tier": "t"},
        ),
    )


# Tables


def _book(folder, sheet=None, **parts):
    """A small workbook with parts replaced."""
    path = folder / "bomb.xlsx"
    book = openpyxl.Workbook()
    for row in (["study_id", "findings"], ["a", "b"]):
        book.active.append(row)
    book.save(path)
    old = zipfile.ZipFile(path)
    names = {
        "sheet": "xl/worksheets/sheet1.xml",
        "texts": "xl/sharedStrings.xml",
        "styles": "xl/styles.xml",
    }
    new_parts = {names[k]: v for k, v in (parts | ({"sheet": sheet} if sheet else {})).items()}
    with zipfile.ZipFile(folder / "new.xlsx", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for part in old.infolist():
            data = new_parts.pop(part.filename, old.read(part))
            if part.filename == "[Content_Types].xml" and "texts" in parts:
                data = data.replace(b"</Types>", TEXTS_TYPE + b"</Types>")
            new.writestr(part.filename, data)
        for name, data in new_parts.items():
            new.writestr(name, data)
    (folder / "new.xlsx").replace(path)


TEXTS_TYPE = (
    b'<Override PartName="/xl/sharedStrings.xml" ContentType="application/'
    b'vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"/>'
)
SHEET = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s</sheetData></worksheet>'
HEADER = (
    '<row r="1"><c r="A1" t="inlineStr"><is><t>study_id</t></is></c>'
    '<c r="B1" t="inlineStr"><is><t>findings</t></is></c></row>'
)


def xlsx_with_cells_in_the_last_column(folder):
    _book(
        folder,
        SHEET
        % (
            HEADER
            + "".join(f'<row r="{i}"><c r="XFD{i}"><v>1</v></c></row>' for i in range(2, 60_000))
        ),
    )


def xlsx_of_short_rows_below_a_wide_header(folder):
    wide = HEADER.replace("</row>", '<c r="XFD1"><v>1</v></c></row>')
    _book(
        folder,
        SHEET
        % (
            wide
            + "".join(f'<row r="{i}"><c r="A{i}"><v>1</v></c></row>' for i in range(2, 200_000))
        ),
    )


def xlsx_with_a_row_of_a_billion(folder):
    _book(folder, SHEET % (HEADER + '<row r="999999999"><c r="A999999999"><v>1</v></c></row>'))


def xlsx_of_a_million_empty_rows(folder):
    _book(folder, SHEET % ('<dimension ref="A1:XFD1048576"/>' + HEADER + "<row/>" * 1_500_000))


def xlsx_of_three_million_texts(folder):
    _book(
        folder,
        texts='<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        + "<si/>" * 3_000_000
        + "</sst>",
    )


def xlsx_of_one_text_in_all_cells(folder):
    texts = '<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>%s</t></si></sst>'
    cells = "".join(f'<row r="{i}"><c r="A{i}" t="s"><v>0</v></c></row>' for i in range(2, 30_000))
    _book(folder, SHEET % (HEADER + cells), texts=texts % ("x" * (8 << 20)))


def xlsx_of_many_styles(folder):
    old = zipfile.ZipFile(_good_book(folder / "t.xlsx")).read("xl/styles.xml").decode()
    (folder / "t.xlsx").unlink()
    _book(folder, styles=old.replace("</cellXfs>", "<xf/>" * 200_000 + "</cellXfs>"))


def xlsx_that_unzips_to_half_a_gigabyte(folder):
    _book(folder, sheet=SHEET % HEADER + " " * (480 << 20))


def xlsx_with_a_comment_of_cells(folder):
    _book(folder, SHEET.replace("%s", HEADER + "<!--" + '<c r="A1" ' * 1_200_000 + "-->"))


def xlsx_with_blanks_in_a_formula(folder):
    _book(
        folder, SHEET % (HEADER + '<row r="2"><c r="A2"><f>1</f>' + " " * 8_000_000 + "x</c></row>")
    )


def _good_book(path):
    book = openpyxl.Workbook()
    book.save(path)
    return path


def csv_gz_of_a_gigabyte(folder):
    packed = gzip.compress(b"a,b\n" * (ZEROS // 4), 9, mtime=0)
    (folder / "bomb.csv").write_bytes(gzip.compress(b"study_id,findings\n") + packed * 20)


def csv_gz_of_many_small_cells(folder):
    body = b"ab,cd\n" * 260_000
    (folder / "bomb.csv").write_bytes(gzip.compress(b"study_id,findings\n" + body))


def csv_of_short_rows_below_a_wide_header(folder):
    (folder / "bomb.csv").write_text("study_id,findings" + ",x" * 250_000 + "\n" + "a\n" * 50_000)


def csv_of_one_cell(folder):
    (folder / "bomb.csv").write_bytes(gzip.compress(b"study_id,findings\na," + b"x" * (50 << 20)))


def csv_of_a_quote_that_never_ends(folder):
    (folder / "bomb.csv").write_text('study_id,findings\n"' + '""a' * 300_000)


def parquet_of_a_billion_rows(folder):
    table = pd.DataFrame(
        {"study_id": np.zeros(20_000_000, "i1"), "findings": np.zeros(20_000_000, "i1")}
    )
    table.to_parquet(folder / "bomb.parquet", compression="zstd")


def parquet_of_one_long_text(folder):
    text = pd.Categorical.from_codes(np.zeros(100_000, "i4"), ["x" * 100_000])
    table = pd.DataFrame({"study_id": np.arange(100_000) % 2, "findings": text})
    table.to_parquet(folder / "bomb.parquet", compression="zstd")


# Weights

IMAGE = {
    "network": "resnet",
    "depth": 14,
    "width": 8,
    "stem": "patch",
    "in_channels": 1,
    "windows": [],
}
TOWERS = {"image": IMAGE, "text": {"kind": "small"}, "grid_shape": [32, 32, 32], "logit_scale": 1.0}


def _weights(folder, image=(), text=(), header=None, **more):
    config = TOWERS | {"image": IMAGE | dict(image), "text": {"kind": "small"} | dict(text)} | more
    said = header or {"config": json.dumps(config), "metadata": json.dumps({"grid": {}})}
    save_file({"a": torch.zeros(1)}, folder / "bomb.safetensors", said)


def weights_100_000_wide(folder):
    _weights(folder, image={"width": 100_000})


def weights_100_000_wide_swin(folder):
    _weights(folder, image={"network": "swin", "pool": "grid", "width": 96_000})


def weights_100_000_wide_convnext(folder):
    _weights(folder, image={"network": "convnext", "pool": "grid", "width": 100_000})


def weights_of_a_million_stages(folder):
    _weights(folder, image={"network": "convnext", "pool": "grid", "n_stages": 1_000_000})


def weights_of_a_million_layers_of_text(folder):
    _weights(folder, text={"n_layers": 1_000_000})


def weights_of_wide_text(folder):
    _weights(folder, text={"hidden_size": 320_000})


def weights_of_a_vast_grid(folder):
    _weights(folder, image={"pool": "grid"}, grid_shape=[10**6] * 3)


def weights_of_billions_of_outputs(folder):
    _weights(folder, image={"n_phecodes": 10**9})


def weights_of_a_deep_header(folder):
    _weights(folder, header={"config": "[" * 100_000, "metadata": "{}"})


def weights_with_a_header_of_an_exabyte(folder):
    (folder / "bomb.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")


def weights_that_overlap(folder):
    part = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    head = json.dumps({"a": part, "b": part}).encode()
    (folder / "bomb.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))


def weights_of_a_vast_writer(folder):
    tokenizer = json.dumps(
        {"version": "1.0", "model": {"type": "BPE", "vocab": {"<pad>": 0, "###": 1}, "merges": []}}
    )
    said = {
        "kind": reports.KIND,
        "config": IMAGE | {"n_phecodes": 2},
        "lm_folder": "",
        "tokenizer": tokenizer,
    }
    said["language_model"] = {
        "n_embd": 64_000,
        "n_layer": 100_000,
        "n_head": 1,
        "vocab_size": 10**7,
    }
    said |= {"metadata": {"grid": {"shape": [32] * 3}}, "writer": {"feature_size": 10**9}}
    from merlin.model.i3d import ImageConfig, ImageEncoder

    encoder = ImageEncoder(ImageConfig.from_dict(said["config"])).state_dict()
    tensors = {f"encoder.{k}": v for k, v in encoder.items()}
    checkpoint.save_tensors(folder / "bomb.report", tensors, said)


def _pt(folder, pickled, packed=zipfile.ZIP_STORED, **more):
    with zipfile.ZipFile(folder / "bomb.pt", "w", packed) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3\n")
        for name, data in more.items():
            archive.writestr(f"a/data/{name}", data)


def pt_packed_inside(folder):
    _pt(folder, pickle.dumps({}, 2) + bytes(300 << 20), zipfile.ZIP_DEFLATED)


def pt_whose_pickle_makes_4_gb(folder):
    _pt(folder, b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x01\x85R.")


def pt_of_repeated_numbers(folder):
    value = torch.zeros(1).expand(1 << 16, 1 << 16)
    torch.save({"decode_text.x": value, "encode_image.y": value}, folder / "bomb.pt")


def pt_of_a_missing_storage(folder):
    torch.save(
        {"conv1.weight": torch.zeros(4), "classifier.weight": torch.zeros(4)}, folder / "whole.pt"
    )
    raw = (folder / "whole.pt").read_bytes()
    (folder / "whole.pt").unlink()
    (folder / "bomb.pt").write_bytes(raw[: len(raw) // 2])


def pt_of_the_five_year_file_and_nothing_else(folder):
    state = {"conv1.weight": torch.zeros(1), "classifier.weight": torch.zeros(6, 1)}
    torch.save(state, folder / "bomb.pt")


def folder_whose_configuration_is_vast(folder):
    config = {
        "model_type": "gpt2",
        "n_embd": 16_384,
        "n_layer": 200,
        "n_head": 16,
        "vocab_size": 10**6,
    }
    (folder / "bomb").mkdir()
    (folder / "bomb" / "config.json").write_text(json.dumps(config))
    save_file({"a": torch.zeros(1)}, folder / "bomb" / "model.safetensors", {"format": "pt"})


# How each kind is read: its refusals, and how many good files of it were done all the same.


def _scans(folder):
    write_nifti(folder / "good.nii.gz")
    refused, n_good = [], 0
    for scan in find_scans([folder])[0]:
        try:
            load_input(scan, cache_dir=None)
            n_good += scan.name == "good.nii.gz"
        except UnreadableScan as error:
            refused.append(str(error))
    return refused, n_good


def _studies(folder):
    write_series(folder / "good", StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.4")
    refused, n_good = [], 0
    for scan in (folder / "bomb", folder / "good"):
        try:
            load_input(scan, cache_dir=None)
            n_good += scan.name == "good"
        except UnreadableScan as error:
            refused.append(str(error))
    return refused, n_good


def _each(read, errors, good):
    def run(folder):
        bomb = next(folder.glob("bomb*"))
        good_path = good(folder) if good else None
        refused = []
        try:
            read(bomb)
        except errors as error:
            refused.append(str(error))
        if good:
            read(good_path)
        return refused, 1

    return run


def _good_table(folder):
    (folder / "good.csv").write_text("study_id,findings\na,b\n")
    return folder / "good.csv"


def _good_npz(folder):
    good_embeddings(folder / "good.npz")
    return folder / "good.npz"


def _read_weights(path):
    if path.suffix == ".pt":
        official.convert(path, path.with_name("out.safetensors"))
    elif path.suffix == ".report":
        reports.load_model(path)
    elif path.is_dir():
        from transformers import AutoModelForCausalLM

        from merlin.model.text import network_from

        network_from(AutoModelForCausalLM, path)
    else:
        checkpoint.load_weights(path)


READERS = {
    "gz": _scans,
    "npz": _each(load_embeddings, ValueError, _good_npz),
    "xlsx": _each(lambda p: read_table(p, needed=["study_id"]), TableError, _good_table),
    "csv": _each(lambda p: read_table(p, needed=["study_id"]), TableError, _good_table),
    "parquet": _each(lambda p: read_table(p, needed=["study_id"]), TableError, _good_table),
    "weights": _each(_read_weights, ValueError, None),
    "pt": _each(_read_weights, ValueError, None),
    "folder": _each(_read_weights, ValueError, None),
}  # anything else is a folder of DICOM
# Large, but no more than a file may claim: read, or refused for what they hold.
ALLOWED = {
    "npz_with_an_array_that_nobody_wants",
    "gz_of_the_size_that_any_file_may_claim",
    "gz_of_the_size_that_a_megabyte_may_claim",
    "csv_gz_of_many_small_cells",
    "positions_of_many_numbers",
    "xlsx_with_blanks_in_a_formula",
    "xlsx_of_three_million_texts",
}
BOMBS = {
    name: make
    for name, make in list(globals().items())
    if callable(make) and getattr(make, "__module__", "") == __name__
    and not name.startswith(("_", "good_")) and make.__code__.co_varnames[:1] == ("folder",)
}  # fmt: skip


def kind_of(name):
    return name.split("_", 1)[0]


def set_off(name, folder):
    """Peak memory beyond the process before, seconds, refusals and good files of one bomb."""
    BOMBS[name](folder)
    files = [f for f in folder.rglob("*") if f.is_file()]
    size = max(f.stat().st_size for f in files)
    there, back = multiprocessing.Pipe(False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(name, folder, back))
    process.start()
    back.close()
    try:
        found = there.recv()
    except EOFError:
        found = {"refused": [], "n_good": 0, "peak_mb": None, "seconds": None, "escaped": "killed"}
    process.join()
    return found | {"bytes": size}


def _child(name, folder, back):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    room = _status("VmSize") * 1024 + (4 << 30)  # a net below, for what would take the machine
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    began = time.process_time()
    found = {"refused": [], "n_good": 0, "escaped": ""}
    try:
        found["refused"], found["n_good"] = READERS.get(kind_of(name), _studies)(folder)
    except BaseException as error:  # noqa: BLE001 - what escapes is what is looked for
        found["escaped"] = f"{type(error).__name__}: {error}"[:300]
    seconds = time.process_time() - began
    back.send(found | {"peak_mb": (_status("VmHWM") - before) / 1024, "seconds": seconds})
    os._exit(0)


def _status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("names", nargs="*", default=[])
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import monai.networks.nets  # noqa: F401
    import peft  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import SimpleITK  # noqa: F401
    import transformers  # noqa: F401 - a library's own memory is no bomb's

    found = {}
    for name in asked.names or BOMBS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = set_off(name, Path(folder))
            one = found[name]
            if not asked.json:
                said = one["escaped"] or " | ".join(
                    r.replace(f"{folder}/", "") for r in one["refused"]
                )
                peak, seconds = one["peak_mb"] or -1, one["seconds"] or -1
                print(
                    f"{name:48s} {one['bytes']:>9,} B {peak:6.0f} MB {seconds:5.1f} s  {said[:230]}",
                    flush=True,
                )
    if asked.json:
        json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
