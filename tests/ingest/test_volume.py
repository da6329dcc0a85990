"""Reading CT: each claim about a good, odd or wrong file is one test on the smallest such file."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from merlin.data.scan import UnreadableScan
from merlin.data.volume import find_scans, load_volume

REAL_CT = Path(__file__).parents[2].parent / "shared" / "real_ct"
CT_IMAGE = UID("1.2.840.10008.5.1.4.1.1.2")
PLANTED = ("PLANTED^NAME", "PLANTEDID77", "19010203")
AXIAL = (1, 0, 0, 0, 1, 0)


def body(shape=(16, 14, 12)):
    """HU of a noisy body in air, with some bone: (i, j, k) int16."""
    rng = np.random.default_rng(7)
    hu = rng.normal(-1000, 10, shape)
    inner = tuple(slice(n // 4, -(n // 4)) for n in shape[:2])
    hu[inner] = rng.normal(40, 20, hu[inner].shape)
    hu[shape[0] // 2, shape[1] // 2] = 700
    return np.rint(hu).astype(np.int16)


def write_nifti(path, data=None, affine=None, *, codes=(2, 0), edit=None):
    image = nib.Nifti1Image(body() if data is None else data, affine)
    affine = np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    if edit:
        edit(image.header)
    nib.save(image, path)
    return path


def write_slice(folder, hu, position, **tags):
    """One DICOM file of `hu` (rows, columns); keyword arguments overwrite tags, None drops one."""
    syntax = tags.pop("syntax", ExplicitVRLittleEndian)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    meta.MediaStorageSOPClassUID = CT_IMAGE
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    ds.update(
        {
            "SOPClassUID": CT_IMAGE,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "PatientName": PLANTED[0],
            "PatientID": PLANTED[1],
            "PatientBirthDate": PLANTED[2],
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": "1.2.3.4",
            "SeriesNumber": 4,
            "SeriesDescription": PLANTED[0],
            "Modality": "CT",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "ConvolutionKernel": "STD",
            "ImagePositionPatient": list(map(float, position)),
            "ImageOrientationPatient": list(map(float, AXIAL)),
            "PixelSpacing": [2.0, 1.5],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": hu.shape[0],
            "Columns": hu.shape[1],
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
        }
    )
    slope, intercept = tags.get("RescaleSlope", 1), tags.get("RescaleIntercept", -1024)
    stored = np.rint((hu.astype(float) - (intercept or 0)) / (slope or 1)).astype("<i2")
    ds.PixelData = stored.tobytes()
    for tag, value in tags.items():
        if value is None:
            del ds[tag]
        else:
            setattr(ds, tag, value)
    if syntax == RLELossless:
        ds.compress(RLELossless)
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{len(list(folder.iterdir())):04d}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, hu=None, z=None, *, drop=(), **tags):
    """A stack at positions (−10, −20, z), written in shuffled order; hu is (columns, rows, n)."""
    hu = body() if hu is None else hu
    z = 3.0 * np.arange(hu.shape[2]) if z is None else z
    for k in np.random.default_rng(3).permutation(hu.shape[2]):
        if k not in drop:
            write_slice(folder, hu[:, :, k].T, (-10, -20, z[k]), **tags)
    return folder


def refusal(path, **options):
    with pytest.raises(UnreadableScan) as caught:
        load_volume(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: found ")
    assert "Expected" in message
    assert "Mend: " in message
    assert not any(planted in message for planted in PLANTED)
    return message


# NIfTI


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_keeps_values_and_affine(tmp_path, name):
    affine = np.array([[-2.0, 0, 0, 10], [0, 0, 3, 20], [0, 2.5, 0, -30], [0, 0, 0, 1]])
    volume = load_volume(write_nifti(tmp_path / name, affine=affine))
    assert volume.hu.dtype == np.int16
    np.testing.assert_array_equal(volume.hu, body())
    np.testing.assert_array_equal(volume.affine, affine)
    assert volume.orientation == "LSA"
    assert volume.spacing_mm == (2.0, 2.5, 3.0)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64, ">i2"])
def test_whole_numbers_of_any_type_become_int16(tmp_path, dtype):
    volume = load_volume(write_nifti(tmp_path / "a.nii", body().astype(dtype)))
    assert volume.hu.dtype == np.int16
    np.testing.assert_array_equal(volume.hu, body())


def test_slope_and_intercept_are_applied_once(tmp_path):
    def edit(header):
        header.set_slope_inter(2, -1024)

    # nibabel would rescale on saving, so the stored numbers are patched into the file.
    path = write_nifti(tmp_path / "a.nii", ((body() // 2 * 2 + 1024) // 2 + 100).astype(np.uint16))
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([2, -1224], "<f4").tobytes()
    path.write_bytes(raw)
    np.testing.assert_array_equal(load_volume(path).hu, body() // 2 * 2)


def test_fractions_stay_float32(tmp_path):
    volume = load_volume(write_nifti(tmp_path / "a.nii", body() + np.float32(0.25)))
    assert volume.hu.dtype == np.float32
    np.testing.assert_array_equal(volume.hu, body() + np.float32(0.25))


def test_trailing_single_axis_is_dropped(tmp_path):
    assert load_volume(write_nifti(tmp_path / "a.nii", body()[..., None])).hu.shape == (16, 14, 12)


def test_misnamed_gzip_is_read_and_noted(tmp_path):
    packed = write_nifti(tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
    plain = write_nifti(tmp_path / "b.nii").rename(tmp_path / "b.nii.gz")
    assert "is gzip-compressed, unlike its name" in load_volume(packed).notes[0]
    assert "is not gzip-compressed, unlike its name" in load_volume(plain).notes[0]


def test_gzip_of_several_members_is_read(tmp_path):
    raw = write_nifti(tmp_path / "a.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(raw[:500], mtime=0) + gzip.compress(raw[500:]))
    np.testing.assert_array_equal(load_volume(path).hu, body())


def test_metres_become_millimetres(tmp_path):
    path = write_nifti(
        tmp_path / "a.nii",
        affine=np.diag([0.002, 0.002, 0.003, 1]),
        edit=lambda h: h.set_xyzt_units("meter"),
    )
    volume = load_volume(path)
    np.testing.assert_allclose(volume.spacing_mm, (2, 2, 3), rtol=1e-6)
    assert any("metres" in note for note in volume.notes)


def test_padding_below_air_is_noted_and_kept(tmp_path):
    hu = body()
    hu[0] = -3024
    volume = load_volume(write_nifti(tmp_path / "a.nii", hu))
    assert volume.hu.min() == -3024
    assert any("-3024" in note for note in volume.notes)


def test_zeros_around_the_scan_become_air_and_water_stays(tmp_path):
    hu = body((20, 20, 12))
    hu[:4] = 0
    hu[8:11, 8:11] = 0
    volume = load_volume(write_nifti(tmp_path / "a.nii", hu))
    assert (volume.hu[:4] == -1024).all()
    assert (volume.hu[8:11, 8:11] == 0).all()
    assert any("padding" in note for note in volume.notes)


def test_metal_above_3071_is_accepted(tmp_path):
    hu = body()
    hu[8, 7] = 9000
    assert load_volume(write_nifti(tmp_path / "a.nii", hu)).hu.max() == 9000


def _raw_bytes(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-LFS pointer"),
        (b"<!DOCTYPE html><html>Sign in</html>", "an HTML or XML page"),
        (gzip.compress(b"<html>Sign in</html>", mtime=0), "an HTML or XML page"),
        (b"PK\x03\x04rest", "a ZIP archive"),
        (b"NRRD0004\n", "an NRRD file"),
        (b"something else", "14 bytes that are neither NIfTI nor DICOM"),
        (gzip.compress(bytes(5000), mtime=0)[:-9], "gzip data that end early"),
    ],
)
def test_files_that_are_no_scan_are_named(tmp_path, content, found):
    path = tmp_path / "scan_07.nii.gz"
    path.write_bytes(content)
    assert found in refusal(path)


def test_truncated_nifti_states_both_sizes(tmp_path):
    path = write_nifti(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-100])
    assert "found 5276 bytes of voxels. Expected 5376" in refusal(path)


def test_header_pair_and_analyze_are_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii")
    raw = path.read_bytes()
    path.write_bytes(raw[:344] + b"ni1\0" + raw[348:])
    assert ".hdr/.img pair" in refusal(path)
    path.write_bytes(raw[:344] + b"\0\0\0\0" + raw[348:])
    assert "Analyze" in refusal(path)


RGB = np.zeros((9, 9, 9), [("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (body()[:, :, 0], "a 2D image (16×14)"),
        (body()[:, :, :1], "a 2D image (16×14×1)"),
        (np.stack([body()] * 3, -1), "3 volumes in one file (16×14×12×3), several time points"),
        (RGB, "RGB colour"),
        (body().astype(np.complex64), "which is no plain number"),
        (body()[:, :, :5], "5 slices along S"),
    ],
)
def test_wrong_dimensions_are_refused_even_when_assuming_hu(tmp_path, data, found):
    assert found in refusal(write_nifti(tmp_path / "a.nii", data), assume_hu=True)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"codes": (0, 0)}, "no orientation (sform_code and qform_code are 0)"),
        ({"edit": lambda h: h["pixdim"].__setitem__(slice(1, 4), 0)}, "pixdim 0 × 0 × 0"),
        ({"edit": lambda h: h["pixdim"].__setitem__(2, -2)}, "pixdim 2 × -2 × 3"),
        ({"edit": lambda h: h["pixdim"].__setitem__(3, 5)}, "in the sform but 2 × 2 × 5 in pixdim"),
        ({"affine": np.diag([2, 2, 300.0, 1])}, "voxels of 2 × 2 × 300 mm"),
        ({"affine": np.diag([0.002, 0.002, 0.003, 1])}, "(xyzt_units)"),
        (
            {"affine": np.array([[2, 0, 3.0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])},
            "sheared by",
        ),
    ],
)
def test_absent_or_implausible_geometry_is_refused(tmp_path, options, found):
    assert found in refusal(write_nifti(tmp_path / "a.nii", **options), assume_hu=True)


def test_contradictory_forms_are_refused_and_close_ones_noted(tmp_path):
    def forms(shift, flip):
        def edit(header):
            other = np.diag([2.0 * flip, 2, 3, 1])
            other[0, 3] = shift
            header.set_qform(other, 1)

        return edit

    flipped = write_nifti(tmp_path / "a.nii", edit=forms(0, -1))
    shifted = write_nifti(tmp_path / "b.nii", edit=forms(4, 1))
    assert "sform says RAS, qform says LAS" in refusal(flipped)
    assert (
        "sform and qform lie up to 4.0 mm apart; the sform was used." in load_volume(shifted).notes
    )


def _with_nan():
    hu = body().astype(np.float32)
    hu[0, 0, :2] = np.nan, np.inf
    return hu


def _raw_with_padding():
    raw = body() + 1024
    raw[0] = -2000
    return raw


def _label_map():
    return (np.arange(16 * 14 * 12).reshape(16, 14, 12) // 50).astype(np.uint8)


def _like_mr():
    rng = np.random.default_rng(0)
    mr = rng.rayleigh(10, (20, 20, 12))
    mr[5:15, 5:15] = rng.gamma(3, 120, (10, 10, 12))
    return mr.astype(np.int16)


ODD_VALUES = {
    "8 bit": (np.clip((body() + 160.0) * 255 / 400, 0, 255).astype(np.uint8), "rescaled to 8 bit"),
    "unit": ((body() + 1024.0) / 2000, "normalised"),
    "z score": ((body() - body().mean()) / body().std(), "normalised"),
    "windowed": (np.clip(body(), -160, 60), "cut off at -160 and 60, like a windowed image"),
    "raw": (body() + 1024, "like raw values, 1024 above HU"),
    "raw padded": (_raw_with_padding(), "like raw values, 1024 above HU"),
    "twice": (body() - 1024, "like HU rescaled twice"),
    "unsigned": (body().view(np.uint16), "signed numbers saved as unsigned"),
    "labels": (_label_map(), "like a label map"),
    "mr": (_like_mr(), "values spread as in MR"),
}


@pytest.mark.parametrize("name", ODD_VALUES)
def test_values_unlike_hu_are_refused_or_noted_on_request(tmp_path, name):
    data, found = ODD_VALUES[name]
    path = write_nifti(tmp_path / "scan.nii", data)
    message = refusal(path)
    assert found in message
    assert "--assume-hu" in message
    assert any(found in note for note in load_volume(path, assume_hu=True).notes)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (np.full((9, 9, 9), 40, np.int16), "the same value, 40, in every voxel"),
        (_with_nan(), "2 voxels that are NaN or infinite"),
    ],
)
def test_constant_and_nan_are_refused_even_when_assuming_hu(tmp_path, data, found):
    assert found in refusal(write_nifti(tmp_path / "scan.nii", data), assume_hu=True)


# DICOM


def test_series_is_sorted_by_position_and_placed_in_ras(tmp_path):
    volume = load_volume(write_series(tmp_path / "ct"))
    np.testing.assert_array_equal(volume.hu, body())
    assert volume.hu.dtype == np.int16
    expected = [[-1.5, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-12)
    assert volume.orientation == "LPS"


@pytest.mark.parametrize(
    ("directions", "codes"),
    [((-1, 0, 0, 0, -1, 0), "RAS"), ((1, 0, 0, 0, -1, 0), "LAS"), ((-1, 0, 0, 0, 1, 0), "RPS")],
)
def test_flipped_rows_and_columns_follow_the_orientation_tag(tmp_path, directions, codes):
    tags = {"ImageOrientationPatient": list(directions)}
    volume = load_volume(write_series(tmp_path / "ct", PatientPosition="FFS", **tags))
    assert volume.orientation == codes
    np.testing.assert_array_equal(volume.hu, body())


def test_coronal_series_is_read_and_noted(tmp_path):
    for k in range(12):
        write_slice(
            tmp_path / "ct",
            body()[:, :, k].T,
            (0, 3.0 * k, 0),
            ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
        )
    volume = load_volume(tmp_path / "ct")
    assert volume.orientation == "LIP"
    assert any("No axial series" in note for note in volume.notes)


def test_rescale_of_each_slice_is_its_own(tmp_path):
    hu = body() // 2 * 2
    for k in range(12):
        rescale = {"RescaleSlope": 2, "RescaleIntercept": -1000} if k % 2 else {}
        write_slice(tmp_path / "ct", hu[:, :, k].T, (0, 0, 3 * k), **rescale)
    np.testing.assert_array_equal(load_volume(tmp_path / "ct").hu, hu)


def test_fractional_rescale_is_kept_in_float32(tmp_path):
    volume = load_volume(write_series(tmp_path / "ct", RescaleSlope=0.5, RescaleIntercept=-1000.25))
    assert volume.hu.dtype == np.float32
    np.testing.assert_allclose(volume.hu, body(), atol=0.25)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_other_syntaxes_give_the_same_hu(tmp_path, syntax):
    np.testing.assert_array_equal(
        load_volume(write_series(tmp_path / "ct", syntax=syntax)).hu, body()
    )


def test_files_without_preamble_are_read(tmp_path):
    for path in sorted(write_series(tmp_path / "ct").iterdir()):
        ds = pydicom.dcmread(path)
        ds.preamble, ds.file_meta = None, FileMetaDataset()
        ds.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    np.testing.assert_array_equal(load_volume(tmp_path / "ct").hu, body())


def test_dicom_named_nifti_is_told_from_its_content(tmp_path):
    path = next(write_series(tmp_path / "ct").iterdir()).rename(tmp_path / "scan.nii.gz")
    assert "1 slice" in refusal(path)


def test_gap_in_dicom_series_names_missing_slice(tmp_path):
    message = refusal(write_series(tmp_path / "ct", drop=(5, 6)))
    assert "2 missing slices: 2 between 12.0 and 21.0 mm" in message
    assert "3.00 mm apart" in message


def test_uneven_spacing_is_refused_with_its_numbers(tmp_path):
    z = [*range(0, 18, 3), *range(16, 46, 5)]
    message = refusal(write_series(tmp_path / "ct", z=z))
    assert "uneven slice spacing (gaps: " in message
    assert "5 × 3.00 mm" in message
    assert "5 × 5.00 mm" in message


def test_positions_rounded_to_a_tenth_are_even(tmp_path):
    z = np.round(0.625 * np.arange(12), 1)
    assert load_volume(write_series(tmp_path / "ct", z=z)).spacing_mm[2] == pytest.approx(
        0.625, 0.02
    )


def test_identical_copies_are_dropped_and_different_images_refused(tmp_path):
    folder = write_series(tmp_path / "ct")
    write_slice(folder, body()[:, :, 4].T, (-10, -20, 12))
    volume = load_volume(folder)
    np.testing.assert_array_equal(volume.hu, body())
    assert "1 identical copies of slices were dropped." in volume.notes
    write_slice(folder, body()[:, :, 5].T, (-10, -20, 12))
    assert "14 images at 12 positions, 1 of them different" in refusal(folder)


def test_gantry_tilt_keeps_every_voxel_at_its_place(tmp_path):
    tilt = np.radians(18.5)
    directions = [1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)]
    folder = write_series(tmp_path / "ct", ImageOrientationPatient=directions)
    volume = load_volume(folder)
    assert any("sheared by 18.5 degrees" in note for note in volume.notes)
    expected = [10 - 2 * 1.5, 20 - 3 * 2 * np.cos(tilt), 5 * 3 - 3 * 2 * np.sin(tilt)]
    np.testing.assert_allclose((volume.affine @ [2, 3, 5, 1])[:3], expected, atol=1e-9)


def test_drifting_stack_is_refused(tmp_path):
    for k in range(12):
        write_slice(tmp_path / "ct", body()[:, :, k].T, (3.0 * (k == 6), 0, 3 * k))
    assert "slices shifted by up to 3.0 mm" in refusal(tmp_path / "ct")


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"ImagePositionPatient": None}, "1 of 12 slices without position (ImagePositionPatient)"),
        ({"ImageOrientationPatient": None}, "1 of 12 slices without orientation"),
        ({"PixelSpacing": None}, "1 of 12 slices without pixel spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "mixed orientations in one series"),
        ({"PixelSpacing": [1.0, 1.0]}, "mixed pixel spacings in one series"),
        ({"RescaleSlope": None}, "1 of 12 slices without rescale slope and intercept"),
        ({"PixelData": None}, "0011.dcm without pixel data"),
        ({"PixelData": b"\0" * 100}, "0011.dcm with truncated or damaged pixel data"),
        ({"PatientID": "SOMEONE ELSE"}, "images of 2 patients"),
    ],
)
def test_one_wrong_slice_is_named(tmp_path, tags, found):
    write_series(tmp_path / "ct", drop=(11,))
    write_slice(tmp_path / "ct", body()[:, :, 11].T, (-10, -20, 33), **tags)
    assert found in refusal(tmp_path / "ct")


def test_undecodable_syntax_is_named(tmp_path):
    for path in write_series(tmp_path / "ct").iterdir():
        raw = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
        path.write_bytes(raw)
    assert "1.2.840.10008.1.2.9" in refusal(tmp_path / "ct")


@pytest.mark.parametrize("modality", ["MR", "PT", "US"])
def test_other_modalities_are_named(tmp_path, modality):
    folder = write_series(tmp_path / "ct", Modality=modality)
    assert f"12 {modality} objects" in refusal(folder, assume_hu=True)


def test_series_with_most_axial_slices_is_taken_and_said(tmp_path):
    write_series(tmp_path / "study/a", SeriesInstanceUID="1.1", SeriesNumber=2)
    hu = body((16, 14, 20))
    write_series(tmp_path / "study/b", hu, SeriesInstanceUID="1.2", SeriesNumber=3)
    coronal = [1, 0, 0, 0, 0, -1]
    for k in range(30):
        tags = {"SeriesInstanceUID": "1.3", "ImageOrientationPatient": coronal}
        write_slice(tmp_path / "study/c", hu[:, :, 0].T, (0, k, 0), **tags)
    write_slice(
        tmp_path / "study", hu[:, :, 0], (0, 0, 0), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    (tmp_path / "study/readme.txt").write_text("exported")
    volume = load_volume(tmp_path / "study")
    np.testing.assert_array_equal(volume.hu, hu)
    notes = " ".join(volume.notes)
    assert (
        "3 series found; took the one with most axial slices: number 3 (20 slices, kernel STD)"
        in notes
    )
    assert "Left out: 1 localizers." in notes
    assert "1 files that are not DICOM were ignored." in notes
    assert not any(planted in notes for planted in PLANTED)


def test_monochrome1_is_not_inverted(tmp_path):
    volume = load_volume(write_series(tmp_path / "ct", PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(volume.hu, body())
    assert any("MONOCHROME1" in note for note in volume.notes)


def test_declared_padding_above_air_becomes_air(tmp_path):
    hu = body()
    hu[0] = 0
    volume = load_volume(write_series(tmp_path / "ct", hu, PixelPaddingValue=1024))
    assert (volume.hu[0] == -1024).all()
    np.testing.assert_array_equal(volume.hu[1:], hu[1:])


def write_enhanced(path, hu, rescale_type="HU"):
    def group(**tags):
        inner = Dataset()
        inner.update(tags)
        return [inner]

    file = write_slice(path.parent / "scratch", hu[:, :, 0].T, (0, 0, 0))
    ds = pydicom.dcmread(file)
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
                "RescaleIntercept"):  # fmt: skip
        del ds[tag]
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    ds.NumberOfFrames = hu.shape[2]
    shared, frames = Dataset(), []
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=list(AXIAL))
    shared.PixelMeasuresSequence = group(PixelSpacing=[2.0, 1.5])
    for k in range(hu.shape[2]):
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[-10.0, -20.0, -3.0 * k])
        frame.PixelValueTransformationSequence = group(
            RescaleSlope=1, RescaleIntercept=-1024 + k, RescaleType=rescale_type
        )
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    stored = hu.transpose(2, 1, 0) + 1024 - np.arange(hu.shape[2])[:, None, None]
    ds.PixelData = stored.astype("<i2").tobytes()
    ds.save_as(path)
    return path


def test_enhanced_multiframe_is_read_by_its_functional_groups(tmp_path):
    volume = load_volume(write_enhanced(tmp_path / "ct.dcm", body()))
    np.testing.assert_array_equal(volume.hu, body()[:, :, ::-1])
    np.testing.assert_allclose(volume.affine[:3, 3], (10, 20, -33), atol=1e-9)
    other = write_enhanced(tmp_path / "map.dcm", body(), rescale_type="US")
    assert "rescale type US instead of HU" in refusal(other)


def test_folder_without_scan_says_so(tmp_path):
    write_nifti(tmp_path / "a.nii")
    assert "no DICOM file" in refusal(tmp_path)


def test_missing_path_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_volume(tmp_path / "absent.nii.gz")


def test_find_scans_expands_nifti_folders_and_keeps_dicom_folders_whole(tmp_path):
    a = write_nifti(tmp_path / "b.nii")
    b = write_nifti(tmp_path / "a.nii.gz")
    series = write_series(tmp_path / "ct/inner").parent
    (tmp_path / "empty").mkdir()
    assert find_scans([tmp_path, a]) == ([b, a, series], [])
    assert find_scans([series]) == ([series], [])
    nowhere = [tmp_path / "empty", tmp_path / "absent"]
    assert find_scans(nowhere) == (nowhere, [])  # each is refused when it is read
    assert "neither a NIfTI file nor DICOM" in refusal(nowhere[0])


# Real files

REFUSED = {
    "dicom_series_labels.nii.gz": "like a label map",
    "upper_abdomen_3mm_labels.nii.gz": "like a label map",
    "head_oblique_uint8.nii.gz": "rescaled to 8 bit",
    "mr_abdomen_3mm.nii.gz": "as in MR",
    "mr_brain_4d.nii.gz": "several time points",
    "label_names.json": "neither NIfTI nor DICOM",
    "head_gantry_tilt": "uneven slice spacing (gaps: 13 × 4.00 mm, 13 × 7.00 mm, 1 × 1.08 mm",
    "one_slice_many_syntaxes": "16 images at 1 positions",
    "enhanced_multiframe": "rescale type US instead of HU (PERFUSION/RCBF)",
    "mixed_studies_tiny": "images of 2 patients",
    "mixed_studies_tiny/77654033": "gaps: 2 × 1.25 mm, 1 × 202.50 mm",
    "mixed_studies_tiny/98892001": "5 slices along S",
    "mixed_studies_tiny/98892001/CT2N": "2 localizers",
    "mixed_studies_tiny/77654033/CR1": "1 CR objects",
    "liver_3slices_with_seg": "3 slices along S",
    "odd_dicom": "images of 3 patients",
    "odd_dicom/ct_128.dcm": "1 slice.",
    "odd_dicom/ct_no_file_meta.dcm": "neither NIfTI nor DICOM",
    "odd_dicom/ct_head_tilt_j2k_sign_mismatch.dcm": "1 slice.",
    "odd_dicom/mr_truncated.dcm": "1 MR objects",
}
READ = {
    "abdomen_pelvis_3mm.nii.gz": ("RAS", -1207, 3382),
    "upper_abdomen_3mm.nii.gz": ("RAS", -1100, 1207),
    "thorax_aorta_cta_1p5mm.nii.gz": ("LPS", -1078, 3343),
    "dicom_series": ("LPS", -1024, 1839),
}
needs_real_ct = pytest.mark.skipif(not REAL_CT.is_dir(), reason="shared/real_ct is not here")


@needs_real_ct
@pytest.mark.parametrize("name", REFUSED)
def test_real_item_is_refused_for_its_reason(name):
    assert REFUSED[name] in refusal(REAL_CT / name)


@needs_real_ct
@pytest.mark.parametrize("name", READ)
def test_real_item_is_read(name):
    volume = load_volume(REAL_CT / name)
    assert (volume.orientation, volume.hu.min(), volume.hu.max()) == READ[name]


@needs_real_ct
def test_real_dicom_lies_on_the_grid_of_its_labels():
    volume = load_volume(REAL_CT / "dicom_series")
    labels = nib.load(REAL_CT / "dicom_series_labels.nii.gz")
    to_labels = np.linalg.inv(labels.affine) @ volume.affine
    corners = np.array([[0, 0, 0, 1], [511, 511, 19, 1]]).T
    index = np.rint(to_labels @ corners)[:3]
    assert index.min() == 0
    np.testing.assert_allclose(to_labels @ corners, np.vstack([index, [1, 1]]), atol=0.01)
    assert sorted(index.max(axis=1)) == [19, 511, 511]


@needs_real_ct
def test_real_feet_first_series_reads_beside_its_segmentation():
    volume = load_volume(REAL_CT / "liver_3slices_with_seg", min_slices=3)
    assert volume.orientation == "LPS"
    assert volume.hu.min() == -3024
    assert any("1 SEG objects" in note for note in volume.notes)


@needs_real_ct
def test_real_lossless_syntaxes_decode_to_the_same_hu(tmp_path):
    """Each syntax in turn is made a two-slice series, by moving a copy 1 mm along."""
    lossless = [
        "2.4.57",
        "2.4.70",
        "2.4.80",
        "2.4.90",
        "1.2.5",
        "1.2.1.99",
        "1.2.2",
        "1.2.1",
        "1.2",
    ]
    files = [next((REAL_CT / "one_slice_many_syntaxes").glob(f"*.{s}.dcm")) for s in lossless]
    reference = pydicom.dcmread(REAL_CT / "one_slice_many_syntaxes/original.dcm").pixel_array - 1024
    assert (reference.min(), reference.max()) == (-3024, 1378)
    for file in files:
        folder = tmp_path / file.stem
        folder.mkdir()
        for z in (0, 1):
            ds = pydicom.dcmread(file)
            ds.ImagePositionPatient = [0, 0, z]
            ds.save_as(folder / f"{z}.dcm")
        volume = load_volume(folder, min_slices=2)
        np.testing.assert_array_equal(volume.hu, np.stack([reference.T] * 2, -1), err_msg=file.name)
