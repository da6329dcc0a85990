"""Segmentation network, its loss and its way back to the scan's own grid."""

import numpy as np
import pytest
import torch

from merlin.data.labels import label_on_grid, whole_scan
from merlin.data.preprocess import Grid
from merlin.data.scan import UnreadableScan, Volume
from merlin.model.i3d import ImageConfig, ImageEncoder
from merlin.model.segmenter import InstanceNorm, Segmenter, import_monai
from merlin.training import segmentation

SMALL = dict(depth=14, width=4, n_phecodes=3, in_channels=1, embedding_size=8)


def encoder(**more):
    return ImageEncoder(ImageConfig(**SMALL | more))


@pytest.mark.parametrize(
    ("image", "widths", "light_top", "shape"),
    [
        (dict(stem="patch", n_stages=3), (8, 8), True, (24, 20, 16)),
        (dict(stem="patch", n_stages=3), (8, 8, 8), False, (24, 20, 16)),
        (dict(stem="inflated"), (16, 16, 8, 8, 8), False, (64, 64, 32)),  # the paper's layout
        (dict(stem="patch", n_stages=3), (8, 8), True, (21, 19, 17)),
    ],
)
def test_outputs_are_as_large_as_the_input_and_everything_learns(image, widths, light_top, shape):
    torch.manual_seed(0)
    net = Segmenter(encoder(**image), 5, widths, light_top=light_top)
    volume = torch.rand(2, 1, *shape)
    assert net.eval()(volume)[0].shape == (2, 5, *shape)
    outputs = net.train()(volume)
    r, a, s = shape
    is_folded = light_top and all(n % 4 == 0 for n in shape)
    folded = (16, 5, s // 2, r // 2, a // 2)
    assert outputs[0].shape == (folded if is_folded else (2, 5, *shape))
    assert all(o.shape[1] == 5 for o in outputs)
    sum(o.mean() for o in outputs).backward()
    unused = ("classifier", "contrastive_head")
    silent = [
        n for n, p in net.named_parameters() if p.grad is None and not any(u in n for u in unused)
    ]
    assert silent == []


def test_wrong_number_of_widths_is_refused():
    with pytest.raises(ValueError, match="steps up need one each"):
        Segmenter(encoder(stem="patch", n_stages=3), 5, (8,))


def test_loss_falls_with_the_right_answer_and_ignores_the_unknown():
    label = torch.tensor([[[[0, 1], [2, 255]]]])
    right = torch.nn.functional.one_hot(label.clamp(max=2), 3).permute(0, 4, 1, 2, 3).float() * 20
    weights = torch.ones(3)
    assert segmentation.segmentation_loss(right, label, weights) < 0.01
    assert segmentation.segmentation_loss(-right, label, weights) > 1
    other = right.clone()
    other[0, :, 0, 1, 1] = torch.tensor([9.0, -9.0, 3.0])  # at the unknown voxel
    same = segmentation.segmentation_loss(other, label, weights)
    assert same == pytest.approx(segmentation.segmentation_loss(right, label, weights).item())


def test_rare_classes_weigh_more_and_missing_ones_nothing():
    label = np.zeros((10, 10, 10), np.uint8)
    label[0, 0, :5] = 1
    weights = segmentation.inverse_root_weights([label], 3)
    assert weights[1] > 10 * weights[0]
    assert weights[2] == 0


def test_crop_pads_what_is_too_small():
    image, label = np.ones((5, 9, 9), np.float32), np.ones((5, 9, 9), np.uint8)
    one, other = segmentation.random_crop(image, label, (8, 4, 4), np.random.default_rng(0))
    assert one.shape == other.shape == (8, 4, 4)
    assert one.sum() == other.sum() == 5 * 4 * 4  # the rest is air and background


@pytest.mark.parametrize("codes", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_prediction_returns_to_the_scan_whatever_its_orientation(codes):
    """A model that answers by position is right on the native grid, flipped axes or not."""

    class ByHeight(torch.nn.Module):
        def forward(self, x):
            is_high = (torch.arange(x.shape[4]) >= 10).float() * 8 - 4
            high = is_high.expand(x.shape[0], 1, *x.shape[2:])
            return torch.cat([-high, high], 1)

    native_affine = np.diag([2.0 * codes[0], 2.0 * codes[1], 1.5 * codes[2], 1.0])
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    shape = (12, 12, 40)
    corners = native_affine @ np.array([[0, 0, 0, 1], [*(np.array(shape) - 1), 1]]).T
    affine[:3, 3] = corners[:3].min(1)
    empty = np.zeros((12, 12, 20), np.float32)
    logits = segmentation.predict(ByHeight(), empty, window=(12, 12, 20), overlap=0.0)
    found = segmentation.to_native(logits, affine, native_affine, shape)
    height = (native_affine @ np.array([0, 0, 1, 0]))[2] * np.arange(40) + native_affine[2, 3]
    expected = height - affine[2, 3] >= 3 * 9.5 + 1e-6
    clear = np.abs(height - affine[2, 3] - 28.5) > 1e-6
    np.testing.assert_array_equal(found[5, 5][clear], expected[clear])


def test_labels_go_to_the_grid_by_nearest_neighbour(tmp_path):
    import nibabel as nib

    label = np.zeros((8, 8, 8), np.uint8)
    label[4:] = 7
    nib.save(nib.Nifti1Image(label, np.diag([2.0, 2, 2, 1])), tmp_path / "l.nii.gz")
    found = label_on_grid(tmp_path / "l.nii.gz", np.diag([4.0, 4, 4, 1]), (4, 4, 4))
    assert found.dtype == np.uint8
    assert (found[:2] == 0).all()
    assert (found[2:] == 7).all()
    nib.save(nib.Nifti1Image(label + np.float32(0.5), np.eye(4)), tmp_path / "f.nii.gz")
    with pytest.raises(UnreadableScan, match="not whole numbers"):
        label_on_grid(tmp_path / "f.nii.gz", np.eye(4), (4, 4, 4))


def test_whole_scan_cuts_nothing_off():
    volume = Volume(np.full((50, 40, 30), 60, np.int16), np.diag([-2.0, -2.0, 4.0, 1.0]))
    seen = whole_scan(volume, Grid((3.0, 3.0, 6.0), (8, 8, 8)), (8, 8, 8))
    assert all(mm == 0 for mm in seen.cut_mm.values())
    assert all(
        n * s >= size for n, s, size in zip(seen.image.shape, (3, 3, 6), (98, 78, 116), strict=True)
    )


def test_flat_encoder_sees_each_slice_alone():
    torch.manual_seed(0)
    net = encoder(stem="patch", n_stages=3, flat=True, stem_depth_stride=1).eval()
    volume = torch.rand(1, 1, 16, 16, 6)
    turned = volume.flip(4)
    with torch.no_grad():
        torch.testing.assert_close(net.embed(volume), net.embed(turned))  # order means nothing
    with pytest.raises(ValueError, match="flat image encoder needs"):
        ImageConfig(**SMALL, flat=True)


def test_windows_may_reach_into_the_air_around_a_scan():
    image, label = np.ones((6, 5, 4), np.float32), np.ones((6, 5, 4), np.uint8)
    reached = False
    for seed in range(20):
        rng = np.random.default_rng(seed)
        one, other = segmentation.random_crop(image, label, (4, 4, 4), rng, margin=2)
        assert one.shape == other.shape == (4, 4, 4)
        assert ((one == 1) == (other == 1)).all()  # air is background
        reached |= bool((one == 0).any())
    assert reached


def test_loss_equals_cross_entropy_plus_soft_dice():
    """Against torch's weighted cross-entropy and Dice written out, with voxels nobody annotated."""
    torch.manual_seed(0)
    logits, label = torch.randn(2, 4, 3, 3, 3), torch.randint(0, 3, (2, 3, 3, 3))
    label[0, 0, 0, 0] = segmentation.UNKNOWN
    weights = torch.tensor([0.5, 1.0, 2.0, 1.0])
    entropy = torch.nn.functional.cross_entropy(
        logits, label, weights, ignore_index=segmentation.UNKNOWN
    )
    known = label != segmentation.UNKNOWN
    p = logits.softmax(1).permute(0, 2, 3, 4, 1)[known]
    y = torch.nn.functional.one_hot(label[known], 4).float()
    dice = (2 * (p * y).sum(0) + 1e-3) / (p.sum(0) + y.sum(0) + 1e-3)
    expected = entropy + 1 - dice[1:3].mean()  # class 3 is absent
    torch.testing.assert_close(segmentation.segmentation_loss(logits, label, weights), expected)


def test_instance_norm_answers_each_volume_alone_in_training_and_after():
    torch.manual_seed(0)
    kinds = dict(light_top=True, norm="instance")
    net = Segmenter(encoder(stem="patch", n_stages=3), 3, (8, 8), **kinds)
    volumes = torch.rand(2, 1, 32, 32, 32) * torch.tensor([1.0, 0.3])[:, None, None, None, None]
    both = net.train()(volumes)[0]
    torch.testing.assert_close(both[8:], net(volumes[1:])[0], rtol=1e-4, atol=1e-4)
    whole = net.eval()(volumes)[0]
    for number in range(3):
        as_trained = segmentation.folded(whole[:, number], net.coarse_voxel)
        torch.testing.assert_close(both[:, number], as_trained, rtol=1e-4, atol=1e-4)
    reference = torch.nn.InstanceNorm3d(4, affine=True)
    x = torch.randn(2, 4, 3, 3, 3)
    torch.testing.assert_close(InstanceNorm(4)(x), reference(x), rtol=1e-5, atol=1e-5)


def test_folded_logits_of_training_are_those_of_evaluation_in_another_order():
    torch.manual_seed(0)
    net = Segmenter(encoder(stem="patch", n_stages=2), 3, (4,), light_top=True, norm="instance")
    volume = torch.rand(2, 1, 16, 24, 32)
    folded = net.train()(volume)[0]
    whole = net.eval()(volume)[0]
    assert whole.shape == (2, 3, 16, 24, 32)
    for number in range(3):
        label = segmentation.folded(whole[:, number], net.coarse_voxel)
        torch.testing.assert_close(folded[:, number], label)


@pytest.mark.parametrize("unknown", [False, True])
def test_loss_and_its_gradient_by_hand_are_those_written_out(unknown):
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 6, 4, 3, dtype=torch.float64)
    label = torch.randint(0, 3, (2, 6, 4, 3))  # class 4 is never there
    if unknown:
        label[0, :2] = segmentation.UNKNOWN
    weights = torch.rand(5, dtype=torch.float64)

    def written_out(z):
        p, keep = z.softmax(1), label != segmentation.UNKNOWN
        one_hot = (
            torch.nn.functional.one_hot(label.where(keep, 0), 5).movedim(-1, 1) * keep[:, None]
        )
        entropy = torch.nn.functional.cross_entropy(
            z, label, weights, ignore_index=segmentation.UNKNOWN
        )
        inside, n = (p * one_hot).sum((0, 2, 3, 4)), one_hot.sum((0, 2, 3, 4))
        dice = (2 * inside + 1e-3) / ((p * keep[:, None]).sum((0, 2, 3, 4)) + n + 1e-3)
        return entropy + 1 - dice[1:][n[1:] > 0].mean()

    a, b = (logits.clone().requires_grad_() for _ in range(2))
    ours, theirs = segmentation.segmentation_loss(a, label, weights), written_out(b)
    (1.7 * ours).backward()
    (1.7 * theirs).backward()
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    torch.testing.assert_close(a.grad, b.grad, atol=1e-12, rtol=0)


def test_loss_refuses_labels_it_has_no_class_for_and_takes_half_precision():
    logits, label = torch.randn(1, 3, 4, 4, 4), torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    half = logits.bfloat16().requires_grad_()
    segmentation.segmentation_loss(half, label, torch.ones(3)).backward()
    assert half.grad.dtype == torch.bfloat16
    assert half.grad.isfinite().all()
    label[0, 0, 0, 0] = 7
    with pytest.raises((RuntimeError, IndexError)):
        segmentation.segmentation_loss(logits, label, torch.ones(3))


def test_monai_comes_without_hiding_anything_from_others():
    import sys

    import_monai()
    assert "monai" in sys.modules
    assert not [name for name in ("transformers", "jsonschema") if sys.modules.get(name, 1) is None]
    import_monai()
    import jsonschema  # noqa: F401
