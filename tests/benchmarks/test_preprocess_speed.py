"""Speed of preprocessing against the official MONAI chain, as a ratio inside one run."""

import time
import warnings

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from merlin.ingest.preprocess import OBLIQUE_TOLERANCE, TOLERANCE, Grid, load_input, preprocess
from merlin.ingest.volume import Volume

with warnings.catch_warnings():  # MONAI's imports warn about their own dependencies
    warnings.simplefilter("ignore")
    from monai.transforms import (
        CenterSpatialCropd,
        Compose,
        EnsureChannelFirstd,
        LoadImaged,
        Orientationd,
        ScaleIntensityRanged,
        Spacingd,
        SpatialPadd,
    )

pytestmark = pytest.mark.slow
AXIS_ALIGNED = np.diag([-0.8, -0.8, 2.5, 1.0])
TURN = np.radians(8.0)
OBLIQUE = AXIS_ALIGNED.copy()
OBLIQUE[1:3, 1:3] = [
    [-0.8 * np.cos(TURN), -2.5 * np.sin(TURN)],
    [-0.8 * np.sin(TURN), 2.5 * np.cos(TURN)],
]
SHEARED = AXIS_ALIGNED.copy()  # a tilted gantry: each slice lies a little further forward
SHEARED[1, 2] = 2.5 * np.tan(np.radians(12.0))


@pytest.fixture(scope="module")
def hu():
    """512 × 512 × 100 int16: smooth tissue with the noise of a scan, in air."""
    rng = np.random.default_rng(7)
    texture = rng.normal(0, 1, (128, 128, 25)).astype(np.float32)
    tissue = 60 + 300 * np.kron(gaussian_filter(texture, 1), np.ones((4, 4, 4), np.float32))
    tissue += rng.normal(0, 15, tissue.shape).astype(np.float32)
    tissue[:64] = tissue[-64:] = -1000
    return tissue.astype(np.int16)


def official_chain():
    grid = Grid()
    return Compose(
        [
            LoadImaged(keys="image"),
            EnsureChannelFirstd(keys="image"),
            Orientationd(keys="image", axcodes="RAS"),
            Spacingd(keys="image", pixdim=grid.spacing_mm, mode="bilinear"),
            ScaleIntensityRanged(
                keys="image", a_min=-1000, a_max=1000, b_min=0.0, b_max=1.0, clip=True
            ),
            SpatialPadd(keys="image", spatial_size=grid.shape),
            CenterSpatialCropd(keys="image", roi_size=grid.shape),
        ]
    )


def seconds(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


@pytest.mark.parametrize(
    ("affine", "tolerance"),
    [(AXIS_ALIGNED, TOLERANCE), (OBLIQUE, OBLIQUE_TOLERANCE), (SHEARED, OBLIQUE_TOLERANCE)],
    ids=["axis-aligned", "oblique", "sheared"],
)
def test_one_call_is_four_times_as_fast_as_the_official_chain(tmp_path, hu, affine, tolerance):
    """On an uncompressed file: unpacking gzip takes both sides the same zlib time."""
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(hu, affine), path)
    official, ours = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chain = official_chain()
        for _ in range(4):  # interleaved, so that a busy machine slows both
            official.append(seconds(lambda: chain({"image": path})["image"]))
            ours.append(seconds(lambda: load_input(path)))
    ratio = min(t for t, _ in official) / min(t for t, _ in ours)
    difference = np.abs(official[0][1].numpy()[0] - ours[0][1].image).max()
    print(f"ratio {ratio:.1f}, difference {difference:.1e}")
    assert difference <= tolerance
    assert ratio >= 4


def test_small_volume_takes_milliseconds(hu):
    """80 × 80 × 70 to 72 × 56 × 56: no fixed cost beside the sampling."""
    small = Volume(np.ascontiguousarray(hu[::6, ::6, :70][:80, :80]), np.diag([4.5, 4.5, 7.0, 1]))
    grid = Grid((5.0, 5.0, 8.0), (72, 56, 56))
    preprocess(small, grid)
    elapsed = min(seconds(lambda: preprocess(small, grid))[0] for _ in range(10))
    whole = min(seconds(lambda: preprocess(Volume(hu, AXIS_ALIGNED)))[0] for _ in range(2))
    print(f"{elapsed * 1e3:.1f} ms, the large volume {whole * 1e3:.0f} ms")
    assert whole >= 8 * elapsed
