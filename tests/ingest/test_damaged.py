"""Damaged and odd files: each is refused for its reason, and none does more than be refused."""

import gzip
import os
import random
import warnings

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from test_volume import body, refusal, write_enhanced, write_nifti, write_series, write_slice

from merlin.data.labels import label_on_grid
from merlin.data.preprocess import Grid, load_input
from merlin.data.scan import UnreadableScan, refusing
from merlin.data.volume import find_scans, load_volume

NAN = float("nan")


def patched(path, *edits, codes=(1, 1), append=b"", nifti2=False):
    """A good file with bytes of its header replaced: (offset, dtype, value)."""
    if nifti2:
        nib.save(nib.Nifti2Image(body(), np.diag([2.0, 2, 3, 1])), path)
    else:
        write_nifti(path, codes=codes)
    raw = bytearray(path.read_bytes())
    for at, dtype, value in edits:
        new = np.array(value, dtype).tobytes()
        raw[at : at + len(new)] = new
    path.write_bytes(raw + append)
    return path


@pytest.mark.parametrize(
    ("edits", "found"),
    [
        ([(108, "<f4", 0)], "voxels that begin at byte 0 (vox_offset)"),
        ([(108, "<f4", 348)], "voxels that begin at byte 348"),
        ([(108, "<f4", 352.5)], "voxels that begin at byte 352.5"),
        ([(108, "<f4", NAN)], "voxels that begin at byte nan"),
        ([(108, "<f4", np.inf)], "voxels that begin at byte inf"),
        ([(108, "<f4", -352)], "voxels that begin at byte -352"),
        ([(108, "<f4", 9000)], "0 bytes of voxels"),
        ([(108, "<f4", 368)], "5360 bytes of voxels"),
        ([(112, "<f4", (2, NAN))], "slope 2 with intercept nan"),
        ([(112, "<f4", (1, np.inf))], "slope 1 with intercept inf"),
        ([(112, "<f4", (np.inf, 0))], "slope inf with intercept 0"),
        ([(112, "<f4", (0, -1024))], "slope 0 with intercept -1024"),
        ([(112, "<f4", (NAN, -1024))], "slope nan with intercept -1024"),
        ([(112, "<f4", (-1, 0))], "a slope of -1"),
        ([(76, "<f4", 3)], "qfac (pixdim[0]) 3"),
        ([(76, "<f4", NAN)], "qfac (pixdim[0]) nan"),
        ([(76, "<f4", -7)], "qfac (pixdim[0]) -7"),
        ([(256, "<f4", (0.9, 0.9, 0.9))], "a qform that is no rotation"),
        ([(256, "<f4", NAN)], "non-finite columns of the qform"),
        ([(280, "<f4", NAN)], "non-finite columns of the sform"),
        ([(280, "<f4", (0, 0, 0))], "an affine without volume"),
        ([(292, "<f4", 1e30), (252, "<i2", 0)], "an origin 1e+30 mm away"),
        ([(254, "<i2", 77)], "sform_code 77"),
        ([(252, "<i2", -2)], "qform_code -2"),
        ([(123, "u1", 5)], "5 as unit of length (xyzt_units)"),
        ([(123, "u1", 1)], "voxels of 2000 × 2000 × 3000 mm"),
        ([(72, "<i2", 8)], "data type int16 but 8 bits a voxel (bitpix)"),
        ([(70, "<i2", 2)], "data type uint8 but 16 bits a voxel"),
        ([(70, "<i2", (16, 32))], "5376 bytes of voxels. Expected 10752"),
        ([(70, "<i2", (2, 8))], "2688 bytes more than its header describes"),
        ([(46, "<i2", 9)], "1344 bytes more than its header describes (16×14×9"),
        ([(40, "<i2", 0)], "an impossible shape"),
        ([(40, "<i2", 300)], "an impossible shape"),
        ([(42, "<i2", -16)], "an impossible shape"),
        ([(42, "<i2", (32767, 32767, 32767))], "5376 bytes of voxels. Expected 70362"),
        ([(0, "<i4", 347)], "neither NIfTI nor DICOM"),
    ],
)
def test_a_header_that_disagrees_with_standard_or_bytes_is_refused(tmp_path, edits, found):
    assert found in refusal(patched(tmp_path / "a.nii", *edits))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (dict(edits=[(168, "<i8", 348)], nifti2=True), "Expected byte 544 or later"),
        (dict(edits=[(4, "S4", b"n+1")], nifti2=True), "without orientation"),
        (dict(edits=[(348, "u1", 1)], append=bytes(32)), "32 bytes more than its header describes"),
    ],
)
def test_so_are_nifti_2_and_an_extension_that_would_become_voxels(tmp_path, options, found):
    edits = options.pop("edits")
    assert found in refusal(patched(tmp_path / "a.nii", *edits, **options))


@pytest.mark.parametrize(
    ("edits", "options"),
    [
        ([(112, "<f4", (NAN, NAN))], {}),  # nibabel's way to say none
        ([(112, "<f4", (0, 0))], {}),
        ([(76, "<f4", 0)], {}),  # the standard reads 0 as 1
        ([(76, "<f4", 3)], {"codes": (1, 0)}),  # of a qform that is not used
        ([(123, "u1", 0)], {}),
        ([(123, "u1", 10)], {}),  # mm and seconds
        ([(72, "<i2", 0)], {}),
        ([(68, "<i2", 1002)], {}),  # says it is a label map; the values say what it is
        ([], {"append": b"trailing"}),
        ([], {"nifti2": True}),
    ],
)
def test_a_header_that_is_merely_careless_is_read(tmp_path, edits, options):
    volume = load_volume(patched(tmp_path / "a.nii", *edits, **options))
    np.testing.assert_array_equal(volume.hu, body())
    np.testing.assert_array_equal(volume.affine, np.diag([2.0, 2, 3, 1]))
    assert any("behind the voxels" in n for n in volume.notes) == ("append" in options)


@pytest.mark.parametrize("offset", [1024, 2048, 8192, 16384, 32768, -1024, -8192])
@pytest.mark.parametrize("padding", [False, True])
def test_a_constant_offset_is_named_and_assume_hu_goes_on(tmp_path, offset, padding):
    hu = body().astype(np.int32) + offset
    if padding:
        hu[:2] = min(0, offset - 3024)
    path = write_nifti(tmp_path / "a.nii", hu)
    message = refusal(path)
    assert f"{abs(offset)} {'above' if offset > 0 else 'below'} HU" in message
    assert f"{'Subtract' if offset > 0 else 'Add'} {abs(offset)}" in message
    assert ("CT-RATE" in message) == (offset == 8192)
    assert "Taken as HU on request" in " ".join(load_volume(path, assume_hu=True).notes)


def _spine():
    """Bone, muscle and fat without air, as a crop around vertebrae."""
    rng = np.random.default_rng(1)
    hu = rng.normal(40, 60, (20, 20, 20)) - 100 * (rng.random((20, 20, 20)) < 0.2)
    hu[5:15, 5:15] = rng.normal(350, 150, (10, 10, 20))
    return np.rint(hu).astype(np.int16)


def test_a_piece_without_air_is_not_called_mr_and_assume_hu_goes_on(tmp_path):
    path = write_nifti(tmp_path / "a.nii", _spine())
    message = refusal(path)
    assert "like a piece cut from inside the body" in message
    assert "--assume-hu" in message
    np.testing.assert_array_equal(load_volume(path, assume_hu=True).hu, _spine())


# Half-copied series


def names(folder):
    return sorted(p for p in folder.iterdir())


def _emptied(path):
    path.write_bytes(b"")


def _zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def _cut_in_the_header(path):
    path.write_bytes(path.read_bytes()[:420])


def _page(path):
    path.write_text("<html>Sign in</html>" * 20)


@pytest.mark.parametrize("damage", [_emptied, _zeros, _cut_in_the_header, _page])
@pytest.mark.parametrize("n", [1, 5])
def test_a_series_whose_last_slices_are_no_slices_is_refused(tmp_path, damage, n):
    for k in range(12):
        write_slice(tmp_path / "ct", body()[:, :, k].T, (0, 0, 3 * k))
    for path in names(tmp_path / "ct")[-n:]:
        damage(path)
    message = refusal(tmp_path / "ct", min_slices=4)
    assert f"{n} of 12 files of the series without a slice" in message
    assert f"({n if damage is _emptied else 0} empty" in message
    assert f"{12 - n:04d}.dcm" in message


def test_a_download_that_was_not_finished_is_a_slice_that_is_missing(tmp_path):
    for k in range(12):
        write_slice(tmp_path / "ct", body()[:, :, k].T, (0, 0, 3 * k))
    last = names(tmp_path / "ct")[-1]
    _zeros(last)
    last.rename(last.with_name(f"{last.name}.part"))
    assert "1 of 12 files of the series without a slice" in refusal(tmp_path / "ct")


def test_other_empty_and_damaged_files_do_not_lose_a_series(tmp_path):
    write_series(tmp_path / "study/ct")
    scouts = write_series(tmp_path / "study/scout", SeriesInstanceUID="1.9", SeriesNumber=9)
    for path in names(scouts)[:3]:
        path.write_bytes(path.read_bytes()[:900].replace(b"CS", b"\x55\xf6"))
    (tmp_path / "study/ct/_SUCCESS").touch()
    (tmp_path / "study/ct/notes.txt").touch()
    (tmp_path / "study/ct/._0001.dcm").write_bytes(b"double")
    (tmp_path / "study/ct/DICOMDIR").write_bytes(bytes(128) + b"DICM")
    volume = load_volume(tmp_path / "study")
    np.testing.assert_array_equal(volume.hu, body())
    said = " ".join(volume.notes)
    assert "1 macOS doubles left out." in said
    assert "1 files of a CD or system left out." in said


def test_one_damaged_header_in_a_series_is_named_with_its_kind(tmp_path):
    folder = write_series(tmp_path / "ct")
    path = names(folder)[3]
    path.write_bytes(path.read_bytes().replace(b"\x20\x00\x0d\x00UI", b"\x20\x00\x0d\x00\x55\xf6"))
    assert "0003.dcm with a damaged header (NotImplementedError)" in refusal(folder)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"PixelSpacing": [-2.0, 1.5]}, "without pixel spacing"),  # would mirror the image
        ({"PixelSpacing": [0.0, 0.0]}, "without pixel spacing"),
        ({"RescaleSlope": -1}, "a rescale slope of -1"),
        ({"RescaleSlope": 0}, "a rescale slope of 0"),
        ({"Rows": 60000, "Columns": 60000}, "slices of 16×14 and 60000×60000"),
        ({"ImagePositionPatient": [1e30, 0, 33]}, "slices shifted by up to"),
    ],
)
def test_header_values_of_dicom_are_not_trusted(tmp_path, tags, found):
    write_series(tmp_path / "ct", drop=(11,))
    write_slice(tmp_path / "ct", body()[:, :, 11].T, (-10, -20, 33), **tags)
    assert found in refusal(tmp_path / "ct")


# What a folder holds


def test_links_are_followed_and_dicom_beside_nifti_is_said(tmp_path):
    store, data = tmp_path / "store", tmp_path / "data"
    series = write_series(store / "series")
    write_nifti(store / "a.nii.gz")
    data.mkdir()
    (data / "linked").symlink_to(store)
    (data / "loop").symlink_to(data)
    write_nifti(data / "._b.nii.gz")
    write_nifti(data / "b.nii.gz")
    write_slice(data, body()[:, :, 0].T, (0, 0, 0))
    (data / "readme.txt").write_text("x" * 200)
    scans, notes = find_scans([data])
    linked = data / "linked"
    assert scans == [data / "b.nii.gz", linked / "a.nii.gz", linked / series.name]
    said = " ".join(notes)
    assert "1 DICOM files beside NIfTI in data/ were not read" in said
    assert "1 files that are neither NIfTI nor DICOM were ignored." in said
    assert "1 macOS doubles left out." in said
    assert "1 links lead outside the folder; they were followed." in said
    np.testing.assert_array_equal(load_volume(linked / series.name).hu, body())


def test_a_linked_series_of_linked_files_is_read(tmp_path):
    series = write_series(tmp_path / "store/series")
    (tmp_path / "links").mkdir()
    for path in series.iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    np.testing.assert_array_equal(load_volume(tmp_path / "links").hu, body())


# One border


@pytest.mark.parametrize(
    "error",
    [KeyError("PLANTED^NAME"), OverflowError(), RecursionError(), EOFError(), PermissionError(13, ""),
     UnicodeDecodeError("utf-8", b"", 0, 1, ""), AssertionError(), ValueError("PLANTED^NAME")],
)  # fmt: skip
def test_any_error_becomes_the_scans_own_with_its_kind_and_none_of_its_text(error):
    with pytest.raises(UnreadableScan, match=type(error).__name__) as caught, refusing("a.nii"):
        raise error
    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left"), OSError(24, "")])
def test_what_is_the_machines_stays_the_machines(error):
    with pytest.raises(type(error)) as caught, refusing("a.nii"):
        raise error
    assert caught.value is error


def test_a_label_map_that_cannot_be_read_is_refused_too(tmp_path):
    path = patched(tmp_path / "a.nii", (76, "<f4", 3))
    with pytest.raises(UnreadableScan, match="qfac"):
        label_on_grid(path, np.eye(4), (4, 4, 4))
    (tmp_path / "b.nii").write_bytes(b"no label map")
    with pytest.raises(UnreadableScan, match="neither NIfTI nor DICOM"):
        label_on_grid(tmp_path / "b.nii", np.eye(4), (4, 4, 4))


def test_a_label_map_comes_to_its_own_scans_grid_whole_and_unmirrored(tmp_path):
    label = np.random.default_rng(3).integers(0, 5, (9, 8, 7)).astype(np.uint8)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0] * (2, 2.5, 3)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 8
    for name, values, own in (("a", label, affine), ("b", label[::-1], affine @ flip)):
        nib.save(nib.Nifti1Image(values, own), tmp_path / f"{name}.nii")
        stored = nib.load(tmp_path / "a.nii").affine  # rounded, as a scan's is
        found = label_on_grid(tmp_path / f"{name}.nii", stored, (9, 8, 7))
        np.testing.assert_array_equal(found, label)


def test_a_name_of_any_bytes_can_be_read_and_refused(tmp_path):
    good = write_nifti(tmp_path / "a.nii")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.nii")
    good.rename(odd)
    np.testing.assert_array_equal(load_volume(odd).hu, body())
    with open(odd, "wb") as file:  # noqa: PTH123 - no text
        file.write(b"nothing")
    with pytest.raises(UnreadableScan) as caught:
        load_volume(odd)
    assert r"caf\xe9.nii" in str(caught.value).encode().decode()


# Fuzz


def mutated(raw, rng):
    """A copy with a few bits, bytes or words changed, bytes put in or taken out, or the end gone."""
    raw = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(raw)) if raw else 0
        word = rng.choice(
            (b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f", b"\xff" * 4, bytes(4), rng.randbytes(4))
        )
        how = rng.randrange(6)
        if how == 0 and raw:
            raw[at] ^= 1 << rng.randrange(8)
        elif how == 1 and raw:
            raw[at] = rng.choice((0, 255, 127, 128))
        elif how == 2:
            raw[at : at + 4] = word[: len(raw) - at]
        elif how == 3:
            del raw[at:]
        elif how == 4:
            del raw[at : at + rng.randrange(1, 9)]
        else:
            raw[at:at] = word
    return bytes(raw)


def fuzzed(tmp_path, rng):
    """Endless damaged scans, each written to the same place: NIfTI-1 and -2, gzip, DICOM."""
    hu = body((9, 8, 8))
    one = write_nifti(tmp_path / "1.nii", hu, codes=(1, 1)).read_bytes()
    nib.save(nib.Nifti2Image(hu, np.diag([2.0, 2, 3, 1])), tmp_path / "2.nii")
    big = nib.Nifti1Image(hu, np.diag([2.0, 2, 3, 1]), nib.Nifti1Header(endianness=">"))
    nib.save(big, tmp_path / "3.nii")
    plain = [one, (tmp_path / "2.nii").read_bytes(), (tmp_path / "3.nii").read_bytes()]
    enhanced = write_enhanced(tmp_path / "e.dcm", hu).read_bytes()
    for name, syntax in (("raw", ExplicitVRLittleEndian), ("rle", RLELossless)):
        write_series(tmp_path / name, hu[:, :, 2:6], syntax=syntax)
    file = tmp_path / "scan"
    while True:
        kind = rng.choice((0, 1, 1, 2, 2, 3))
        if kind < 3:
            raw = rng.choice(plain)
            raw = mutated(raw[:352], rng) + raw[352:] if kind else mutated(enhanced, rng)
            file.write_bytes(mutated(gzip.compress(raw, 1), rng) if kind == 2 else raw)
            yield file
        else:
            one = rng.choice(sorted(tmp_path.glob("r*/*")))
            raw = one.read_bytes()
            one.write_bytes(mutated(raw, rng))
            yield one.parent
            one.write_bytes(raw)


def test_a_thousand_damaged_files_are_read_or_refused_and_nothing_else(tmp_path):
    rng = random.Random(20261129)
    damaged, grid = fuzzed(tmp_path, rng), Grid((4.0, 4.0, 4.0), (6, 6, 6))
    n_read = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(1000):
            try:
                if rng.random() < 0.5:
                    load_volume(next(damaged), assume_hu=True, min_slices=2)
                else:
                    load_input(next(damaged), grid)
                n_read += 1
            except UnreadableScan:
                pass
    assert 50 < n_read < 500  # neither all nor nothing was hit


def test_each_study_with_a_folder_of_its_own_is_a_scan(tmp_path):
    """Also where a study's series lie in folders below it, and beside a NIfTI file."""
    for n, (study, home) in enumerate((("1.2.1", "a"), ("1.2.2", "b/one"), ("1.2.2", "b/two"))):
        (tmp_path / "in" / home).mkdir(parents=True)
        write_series(tmp_path / "in" / home, StudyInstanceUID=study, PatientID=f"P{n > 0}",
                     SeriesInstanceUID=f"{study}.{n}")  # fmt: skip
    scans, notes = find_scans([tmp_path / "in"])
    assert scans == [tmp_path / "in" / "a", tmp_path / "in" / "b"]
    assert "2 studies in folders of their own" in notes[0]
    assert [load_volume(s).hu.shape for s in scans]
    write_nifti(tmp_path / "in" / "c.nii.gz")
    assert find_scans([tmp_path / "in"])[0] == [*scans, tmp_path / "in" / "c.nii.gz"]
    one, _ = find_scans([tmp_path / "in" / "b"])
    assert one == [tmp_path / "in" / "b"]


def test_projections_are_no_slices(tmp_path):
    write_series(tmp_path, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], SeriesInstanceUID="1.2.3")
    mine = load_volume(tmp_path).hu
    more = tmp_path / "mip"
    more.mkdir()
    hu = np.concatenate([body()] * 3, axis=2)
    z = np.arange(hu.shape[2]) * 2.0
    write_series(more, hu, z, ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"],
                 SeriesInstanceUID="1.2.4")  # fmt: skip
    volume = load_volume(tmp_path)
    assert np.array_equal(volume.hu, mine)
    assert "36 projections" in " ".join(volume.notes)
    with pytest.raises(UnreadableScan, match="36 projections"):
        load_volume(more)


def test_series_without_a_name_are_told_by_study_and_folder(tmp_path):
    for k in range(2):
        (tmp_path / str(k)).mkdir()
        z = np.arange(12) * 3.0 + 36 * k  # one table behind the other
        write_series(tmp_path / str(k), z=z, SeriesInstanceUID="", StudyInstanceUID=f"1.2.{k}")
    assert load_volume(tmp_path).hu.shape[2] == 12


def test_slices_of_one_value_between_others_are_refused_but_not_at_the_ends(tmp_path):
    data = body()
    data[..., :2] = -1000
    write_nifti(tmp_path / "ends.nii", data)
    assert load_volume(tmp_path / "ends.nii").hu.shape == data.shape
    data[..., 6:8] = 0
    write_nifti(tmp_path / "hole.nii", data)
    with pytest.raises(UnreadableScan, match="2 of 12 slices between others hold one value"):
        load_volume(tmp_path / "hole.nii")
    assert "on request" in " ".join(load_volume(tmp_path / "hole.nii", assume_hu=True).notes)
