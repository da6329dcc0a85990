"""Preprocessing equals the official MONAI chain; the cache returns what was made, or rebuilds."""

import subprocess
import sys
import time
import warnings
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from test_volume import PLANTED, body, write_nifti, write_series

from merlin.data import preprocess as module
from merlin.data.preprocess import (
    OBLIQUE_TOLERANCE,
    TOLERANCE,
    Grid,
    load_input,
    preprocess,
)
from merlin.data.scan import UnreadableScan, Volume

with warnings.catch_warnings():  # MONAI's imports warn about their own dependencies
    warnings.simplefilter("ignore")
    from monai.data import MetaTensor
    from monai.transforms import (
        CenterSpatialCropd,
        Compose,
        Orientationd,
        ScaleIntensityRanged,
        Spacingd,
        SpatialPadd,
    )

SMALL = Grid((3.0, 3.0, 5.0), (24, 23, 17))
CODES = ["".join(c) for axes in permutations(("RL", "AP", "SI")) for c in product(*axes)]


def official(volume, grid):
    """Image and affine by the official chain, after loading."""
    chain = Compose(
        [
            Orientationd(keys="image", axcodes="RAS"),
            Spacingd(keys="image", pixdim=grid.spacing_mm, mode="bilinear"),
            ScaleIntensityRanged(
                keys="image", a_min=grid.hu_window[0], a_max=grid.hu_window[1],
                b_min=0.0, b_max=1.0, clip=True,
            ),
            SpatialPadd(keys="image", spatial_size=grid.shape),
            CenterSpatialCropd(keys="image", roi_size=grid.shape),
        ]
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = chain(
            {"image": MetaTensor(volume.hu.astype(np.float32)[None], affine=volume.affine)}
        )["image"]
    return image.numpy()[0], image.affine.numpy()


def assert_equals_official(volume, grid=SMALL, tolerance=TOLERANCE):
    image, affine = official(volume, grid)
    ours = preprocess(volume, grid)
    assert ours.image.shape == grid.shape
    assert ours.image.dtype == np.float32
    assert ours.image.flags.c_contiguous
    np.testing.assert_allclose(ours.image, image, rtol=0, atol=tolerance)
    np.testing.assert_allclose(ours.affine, affine, rtol=0, atol=1e-6)


def noise(shape=(31, 27, 22), dtype=np.int16):
    """The hardest volume to interpolate: neighbours have nothing in common."""
    return np.random.default_rng(7).integers(-1200, 1300, shape).astype(dtype)


def rotated(degrees, spacing_mm, *, in_float32=False):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing_mm
    affine[:3, 3] = -120.5, 33.25, 410
    return affine.astype(np.float32).astype(float) if in_float32 else affine


@pytest.mark.parametrize("codes", CODES)
def test_equals_official_chain_for_all_48_axis_codes(codes):
    ornt = nib.orientations.axcodes2ornt(codes)
    spacing = np.array([1.3, 0.75, 4.1])
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(ornt):
        affine[int(world), axis] = sign * spacing[axis]
    affine[:3, 3] = 12, -40, 300
    assert "".join(nib.aff2axcodes(affine)) == codes
    assert_equals_official(Volume(noise(), affine))


@pytest.mark.parametrize("in_float32", [False, True])
@pytest.mark.parametrize("degrees", [(16.5, 0, 0), (5, -7, 12), (0, 0, 30), (170, 10, -100)])
def test_equals_official_chain_for_oblique_affines(degrees, in_float32):
    affine = rotated(degrees, (1.3, 0.9, 4.1), in_float32=in_float32)
    assert_equals_official(Volume(noise(), affine), tolerance=OBLIQUE_TOLERANCE)


@pytest.mark.parametrize("sign", [1, -1])
def test_equals_official_chain_for_gantry_tilt(sign):
    affine = np.diag([-1.3 * sign, -1.1, 4.1, 1])
    affine[2, 1] = 0.4 * sign
    assert_equals_official(Volume(noise(), affine))


@pytest.mark.parametrize(
    "shape", [(8, 60, 61), (60, 9, 60), (61, 60, 8), (47, 46, 34), (48, 45, 33)]
)
@pytest.mark.parametrize("spacing", [(3.0, 3.0, 5.0), (1.5, 1.5, 2.5), (3.0004, 2.9, 7.5)])
def test_equals_official_chain_short_and_long_odd_and_even(shape, spacing):
    """Spacings at which sizes round from a tie or the scan's own spacing is kept are included."""
    assert_equals_official(Volume(noise(shape), np.diag([-spacing[0], *spacing[1:], 1])))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_equals_official_chain_in_any_memory_order(order, dtype):
    hu = np.asarray(noise(dtype=dtype), order=order)
    assert_equals_official(Volume(hu[::-1], np.diag([2.0, 2.0, 3.0, 1])))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(2, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 8)] * 3),
    degrees=st.tuples(*[st.floats(-40, 40)] * 3),
)
def test_equals_official_chain_for_any_orthogonal_volume(shape, spacing, degrees):
    volume = Volume(noise(shape), rotated(degrees, spacing))
    assert_equals_official(volume, tolerance=OBLIQUE_TOLERANCE)


def test_equals_official_chain_on_the_papers_grid():
    volume = Volume(noise((150, 140, 60)), np.diag([-2.7, -2.6, 5.0, 1]))
    assert_equals_official(volume, Grid())


def test_padding_is_air_and_order_is_scale_then_pad():
    result = preprocess(Volume(np.full((8, 8, 8), 40, np.int16), np.diag([3.0, 3, 5, 1])), SMALL)
    assert result.image[0, 0, 0] == 0.0
    assert result.image[12, 12, 8] == pytest.approx(1040 / 2000)


def test_crop_reports_millimetres_and_share_of_the_body():
    hu = np.full((40, 20, 20), -1000, np.int16)
    hu[4:36] = 0  # 32 voxels of body, of which the crop keeps 24: the first and last four go
    result = preprocess(Volume(hu, np.diag([3.0, 3, 5, 1])), Grid((3, 3, 5), (24, 20, 20)))
    assert result.body_fraction == 0.75
    assert result.cut_mm == {"L": 24.0, "R": 24.0, "P": 0.0, "A": 0.0, "I": 0.0, "S": 0.0}
    assert result.notes[-1] == "25.0% of the body lies outside the crop (L 24 mm, R 24 mm)."


@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_faces_are_named_by_the_patient_not_by_the_array(shear):
    hu = np.full((12, 12, 31), -1000, np.int16)
    hu[:, :, 27:] = 50  # stored last, but inferior
    affine = np.diag([-3.0, -3, -5, 1])
    affine[2, 1] = shear
    result = preprocess(Volume(hu, affine), Grid((3, 3, 5), (12, 12, 10)))
    assert result.body_fraction < 0.05
    assert result.cut_mm["I"] >= 50
    assert result.image.max() < 0.1


@pytest.mark.parametrize(
    "options",
    [{"spacing_mm": (0, 1, 1)}, {"shape": (0, 1, 1)}, {"hu_window": (5, 5)}, {"shape": (1, 2)}],
)
def test_impossible_grid_is_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        Grid(**options)


def test_one_call_equals_its_two_steps(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz")
    once = load_input(path, SMALL)
    np.testing.assert_array_equal(
        once.image,
        preprocess(Volume(np.asfortranarray(body()), np.diag([2.0, 2, 3, 1])), SMALL).image,
    )


# Cache


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def entries(cache):
    return sorted(cache.iterdir())


def same(one, other):
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.affine, other.affine)
    assert (one.body_fraction, one.cut_mm, one.notes) == (
        other.body_fraction,
        other.cut_mm,
        other.notes,
    )


def test_cached_input_is_what_was_first_returned(tmp_path, cache, monkeypatch):
    path = write_nifti(tmp_path / "a.nii")
    first = load_input(path, SMALL, cache_dir=cache)
    np.testing.assert_allclose(
        first.image, load_input(path, SMALL).image, rtol=0, atol=0.5 / 65535 + 1e-7
    )
    monkeypatch.setattr(module, "read", None)  # a second read would fail
    same(load_input(path, SMALL, cache_dir=cache), first)
    moved = path.rename(tmp_path / "elsewhere.nii")
    same(load_input(moved, SMALL, cache_dir=cache), first)
    assert len(entries(cache)) == 1


def test_changed_content_grid_version_or_option_is_another_entry(tmp_path, cache, monkeypatch):
    path = write_nifti(tmp_path / "a.nii")
    before = load_input(path, SMALL, cache_dir=cache)
    write_nifti(path, body() + 1)
    assert not np.array_equal(load_input(path, SMALL, cache_dir=cache).image, before.image)
    assert load_input(path, Grid((6, 6, 6), (8, 8, 8)), cache_dir=cache).image.shape == (8, 8, 8)
    load_input(path, SMALL, cache_dir=cache, assume_hu=True)
    monkeypatch.setattr(module, "PREPROCESS_VERSION", module.PREPROCESS_VERSION + 1)
    load_input(path, SMALL, cache_dir=cache)
    assert len(entries(cache)) == 5


def test_values_taken_on_request_are_refused_again_without_it(tmp_path, cache):
    path = write_nifti(tmp_path / "a.nii", body() + 1024)
    load_input(path, SMALL, cache_dir=cache, assume_hu=True)
    with pytest.raises(UnreadableScan, match="raw values"):
        load_input(path, SMALL, cache_dir=cache)


def _truncate(raw):
    return raw[: len(raw) // 2]


def _flip_image_bit(raw):
    return raw[:-1] + bytes([raw[-1] ^ 1])


def _change_notes(raw):
    return raw.replace(b"abdomens", b"abdomans")


@pytest.mark.parametrize("damage", [_truncate, _flip_image_bit, _change_notes, lambda raw: b""])
def test_damaged_entry_is_rebuilt_and_reported(tmp_path, cache, damage):
    path = write_nifti(tmp_path / "a.nii")
    first = load_input(path, SMALL, cache_dir=cache)
    (entry,) = entries(cache)
    raw = entry.read_bytes()
    assert damage(raw) != raw
    entry.write_bytes(damage(raw))
    again = load_input(path, SMALL, cache_dir=cache)
    np.testing.assert_array_equal(again.image, first.image)
    note = "The cache entry of this scan was damaged and has been rebuilt."
    assert again.notes == (*first.notes, note)
    same(load_input(path, SMALL, cache_dir=cache), first)


def test_a_large_entry_is_compressed_and_read_back_to_the_last_bit(tmp_path, cache, monkeypatch):
    path = write_nifti(tmp_path / "a.nii")
    plain = load_input(path, SMALL, cache_dir=tmp_path / "plain")
    monkeypatch.setattr(module, "PACKED_FROM", 0)
    same(load_input(path, SMALL, cache_dir=cache), plain)
    (entry,) = entries(cache)
    same(load_input(path, SMALL, cache_dir=cache), plain)
    content = bytearray(entry.read_bytes())
    content[-40] ^= 0xFF
    entry.write_bytes(bytes(content))
    again = load_input(path, SMALL, cache_dir=cache)
    assert "has been rebuilt" in " ".join(again.notes)
    np.testing.assert_array_equal(again.image, plain.image)


def test_what_changes_under_a_running_process_is_seen(tmp_path, cache):
    path = write_nifti(tmp_path / "a.nii")
    first = load_input(path, SMALL, cache_dir=cache)
    same(
        load_input(path, SMALL, cache_dir=cache), first
    )  # scan and entry are known to be whole now
    time.sleep(0.05)  # clocks of file systems are coarse
    (entry,) = entries(cache)
    raw = bytearray(entry.read_bytes())
    raw[-1] ^= 1
    entry.write_bytes(raw)
    again = load_input(path, SMALL, cache_dir=cache)
    np.testing.assert_array_equal(again.image, first.image)
    assert "damaged" in again.notes[-1]
    write_nifti(path, body()[::-1].copy())  # another scan of the same size under the same name
    other = load_input(path, SMALL, cache_dir=cache)
    np.testing.assert_array_equal(
        other.image, load_input(path, SMALL, cache_dir=tmp_path / "new").image
    )
    assert not np.array_equal(other.image, first.image)


def test_interrupted_write_leaves_nothing_behind(tmp_path, cache, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        load_input(write_nifti(tmp_path / "a.nii"), SMALL, cache_dir=cache)
    assert entries(cache) == []


def test_dicom_entry_ignores_file_names_and_holds_no_identifier(tmp_path, cache):
    folder = write_series(tmp_path / PLANTED[0])
    first = load_input(folder, SMALL, cache_dir=cache)
    for path in folder.iterdir():
        path.rename(path.with_name(f"{PLANTED[1]}_{path.name}"))
    same(load_input(folder, SMALL, cache_dir=cache), first)
    (entry,) = entries(cache)
    content = entry.read_bytes()
    for planted in (*PLANTED, "1.2.3"):
        assert planted.encode() not in content
        assert planted not in " ".join([entry.name, *first.notes])


def test_ingest_imports_neither_torch_nor_monai():
    code = "import sys, merlin.data.preprocess; print({'torch', 'monai'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
