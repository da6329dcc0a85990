"""Small files that ask for much are refused within bounded memory, and good ones beside them are done."""

import io
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from bombs import ALLOWED, BOMBS, MOST_MB
from PIL import Image
from test_volume import body, write_nifti, write_series

from merlin.data.dicom import known_kernel
from merlin.data.dicom_pixels import coded_size
from merlin.data.labels import label_on_grid
from merlin.data.scan import SETTING, UnreadableScan
from merlin.data.volume import find_scans, load_volume

pytestmark = pytest.mark.slow


def test_small_files_that_ask_for_much_are_refused():
    """Each bomb in a process of its own; one test, so that they are set off once."""
    command = [sys.executable, Path(__file__).with_name("bombs.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found) == set(BOMBS)
    assert not {name: one["escaped"] for name, one in found.items() if one["escaped"]}
    assert max(one["bytes"] for one in found.values()) <= 3 << 19
    assert max((one["peak_mb"], name) for name, one in found.items())[0] < MOST_MB
    for name, one in found.items():
        assert one["n_good"] == 1, name
        if name not in ALLOWED:
            assert len(one["refused"]) == 1, name
            assert "bomb" in one["refused"][0], name


def test_a_large_scan_passes_by_setting(tmp_path, monkeypatch):
    """A real one packs badly: only what packs like nothing needs the setting."""
    shape = (512, 512, 40)
    hu = np.full(shape, -1000, np.int16)
    hu[100:400, 100:400, :] = 40
    hu[256, 256] = np.arange(40)
    path = write_nifti(tmp_path / "a.nii.gz", hu, np.diag([0.8, 0.8, 1, 1]))
    with pytest.raises(UnreadableScan, match=f"set {SETTING}=10485760 in the environment"):
        load_volume(path)
    monkeypatch.setenv(SETTING, "10485760")
    assert load_volume(path).hu.shape == shape


def test_a_mask_packs_to_almost_nothing_and_is_read(tmp_path):
    mask = np.zeros((512, 512, 100), np.uint8)
    mask[200:300, 200:300, 40:60] = 5
    path = write_nifti(tmp_path / "a.nii.gz", mask)
    assert path.stat().st_size < 1 << 20
    found = label_on_grid(path, np.diag([32.0, 32, 48, 1]), (32, 32, 6))
    assert found.max() == 5


def test_frames_say_their_size():
    assert coded_size(b"\xff\xd8\xff\xe0\0\4ab\xff\xf7\0\x0b\x10\0\x20\0\x30\1") == (32, 48, 1)
    assert coded_size(b"\xff\xd8\xff\xe0\0\4ab") is None
    assert coded_size(b"no image") is None


def _codestream(side, tile, *, layers=1, precinct=None):
    image = io.BytesIO()
    options = {} if precinct is None else {"precinct_size": (precinct, precinct)}
    Image.fromarray(np.zeros((side, side), np.uint16)).save(
        image, "JPEG2000", no_jp2=True, tile_size=(tile, tile), **options
    )
    frame = bytearray(image.getvalue())
    at = frame.index(b"\xff\x52")
    frame[at + 6 : at + 8] = layers.to_bytes(2)
    return bytes(frame)


def test_jpeg_2000_in_crumbs_is_none_that_a_scanner_makes():
    """Each tile, layer and precinct takes room, however little a file holds of it."""
    assert coded_size(_codestream(96, 96)) == (96, 96, 1)
    assert coded_size(_codestream(96, 32)) == (96, 96, 1)
    assert coded_size(_codestream(96, 96, precinct=64)) == (96, 96, 1)
    assert coded_size(_codestream(96, 8)) is None
    assert coded_size(_codestream(96, 96, layers=60_000)) is None
    assert coded_size(_codestream(1024, 1024, precinct=4)) is None


def test_a_size_in_a_comment_is_not_the_images():
    decoy, image = b"\xff\x4f\xff\x51" + bytes(60), _codestream(96, 96)
    assert coded_size(b"\xff\xd8\xff\xe0\0\x42" + decoy + b"\xff\xf7\0\x0b\x10\0\x20\0\x30\1") == (
        32,
        48,
        1,
    )
    boxes = [(b"jP  ", b"\r\n\x87\n"), (b"free", decoy), (b"jp2c", image)]
    packed = b"".join((8 + len(d)).to_bytes(4) + kind + d for kind, d in boxes)
    assert coded_size(packed) == (96, 96, 1)


MARKS = ("DOE^JANE", "SMITHSON", "\x1b[31mRED")


@pytest.mark.parametrize(
    "keyword",
    [
        "Modality", "ConvolutionKernel", "RescaleType", "Manufacturer", "ImageType", "SeriesInstanceUID",
        "StudyInstanceUID", "SOPClassUID", "PhotometricInterpretation", "SeriesNumber", "PixelSpacing",
        "TransferSyntaxUID", "AcquisitionNumber", "SpecificCharacterSet", "PatientName", "RescaleSlope",
        "NumberOfFrames", "BodyPartExamined", "SeriesDescription",
    ],
)  # fmt: skip
def test_no_word_of_a_header_is_said(tmp_path, capfd, caplog, recwarn, keyword):
    """A name may stand in any field: neither messages nor notes, log, warnings or terminal repeat it."""
    mark = MARKS[len(keyword) % 3]
    small = body((12, 10, 8))
    write_series(tmp_path / "a" / "other", small, SeriesInstanceUID="1.2.3.5")
    for path in write_series(tmp_path / "a" / "marked", small).iterdir():
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        ds = pydicom.dcmread(path)
        pydicom.config.settings.reading_validation_mode = pydicom.config.WARN
        _plant(ds, keyword, mark, path)
    recwarn.clear()
    caplog.set_level(logging.DEBUG)
    said = [*find_scans([tmp_path / "a"])[1]]
    for folder in ("a", "a/marked"):
        for assume_hu in (False, True):
            try:
                said += load_volume(tmp_path / folder, assume_hu=assume_hu).notes
            except UnreadableScan as error:
                said.append(str(error))
    said += [r.getMessage() for r in caplog.records] + [str(w.message) for w in recwarn]
    said += capfd.readouterr()
    assert not any(
        part in text for text in said for part in (mark, mark[:6], "SMITH", "DOE", "\x1b")
    )
    assert pydicom.config.settings.reading_validation_mode == pydicom.config.WARN


def _plant(ds, keyword, mark, path):
    """Write a mark in place of a value, by its bytes: pydicom would not write most of them."""
    holder = ds.file_meta if keyword == "TransferSyntaxUID" else ds
    tag = pydicom.tag.Tag(keyword)
    holder[tag] = pydicom.dataelem.DataElement(
        tag, "UI" if keyword.endswith("UID") else "LO", "@" * 10
    )
    vr = pydicom.datadict.dictionary_VR(tag).encode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if keyword == "TransferSyntaxUID":
            ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
            ds.save_as(path)
            raw = path.read_bytes().replace(
                b"1.2.840.10008.1.2.1\0", mark.encode().ljust(20, b"\0")
            )
        else:
            ds.save_as(path)
            planted = mark.encode()[:10].ljust(10)
            raw = path.read_bytes().replace(b"@" * 10, planted).replace(b"@" * 9 + b"\0", planted)
            at = raw.index(planted)
            raw = raw[: at - 4] + vr + raw[at - 2 :] if vr not in (b"US", b"SQ") else raw
    path.write_bytes(raw)


def test_a_uid_that_breaks_the_rules_is_not_warned_of(tmp_path, capfd, caplog):
    """pydicom warns with the whole UID; warnings are errors here."""
    for folder in ("a", "b"):
        uid = f"1.2.0{1 + (folder == 'b')}.77"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_series(tmp_path / folder, StudyInstanceUID=uid, SeriesInstanceUID=uid)
    caplog.clear()
    capfd.readouterr()
    assert len(find_scans([tmp_path])[0]) == 2
    load_volume(tmp_path / "a")
    assert not caplog.records
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("field", ["descrip", "aux_file", "intent_name", "db_name"])
def test_no_text_of_a_nifti_header_is_said(tmp_path, capfd, caplog, field):
    def edit(header):
        header[field] = b"DOE^JANE"
        header["pixdim"][0] = 5

    path = write_nifti(tmp_path / "a.nii.gz", body(), codes=(1, 1), edit=edit)
    with pytest.raises(UnreadableScan) as caught:
        load_volume(path)
    said = [str(caught.value), *capfd.readouterr(), *(r.getMessage() for r in caplog.records)]
    assert not any("DOE" in text for text in said)


def test_kernels_that_vendors_have_are_named():
    known = ("B30f", "Br40d", "FC08", "STANDARD", "YA", "Hr38f", "B", "I31f")
    assert [known_kernel([k]) for k in known] == list(known)
    assert known_kernel(["Br40d", "3"]) == "Br40d/3"
    assert known_kernel([]) == "not stated"
    for name in ("DOE^JANE", "SMITH", "Jane", "B30f DOE", "\x1b[31m", "A1B2C3D4"):
        assert known_kernel([name]) == "not known"
