"""Inflation, feature maps, stems, windows and recomputation of the image encoder."""

import numpy as np
import pytest
import torch
from resnet2d import ResNet2D, randomise_

from merlin.model.i3d import DEPTHS, I3ResNet, ImageConfig, ImageEncoder, inflate_state_dict
from merlin.model.two_towers import feature_shape
from merlin.model.volumes import THREE_WINDOWS


def tiny(**changes):
    base = dict(depth=14, width=4, n_phecodes=3, embedding_size=5, grid_cells=2)
    return ImageConfig(**(base | changes))


def volumes(*shape, seed=7):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_paper_network_has_934_tensors_and_121_882_204_parameters():
    with torch.device("meta"):
        model = I3ResNet(ImageConfig())
    assert len(model.state_dict()) == 934
    assert sum(p.numel() for p in model.parameters()) == 121_882_204
    assert sum(b.numel() for b in model.buffers()) == 151_579


def test_paper_network_turns_224_224_160_into_10_7_7():
    assert feature_shape(ImageConfig(), (224, 224, 160)) == (10, 7, 7)
    with torch.device("meta"):
        found = I3ResNet(ImageConfig()).eval().features(torch.empty(1, 1, 224, 224, 160))
    assert found.shape == (1, 2048, 10, 7, 7)


@pytest.mark.parametrize("grid", [(64, 64, 32), (50, 43, 21), (72, 56, 56), (33, 34, 35)])
@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(stem_depth_stride=2),
        dict(stem="patch"),
        dict(stem="steps"),
        dict(stem="patch", n_stages=3, block="basic"),
        dict(n_stages=2),
    ],
    ids=str,
)
def test_feature_shape_is_the_size_of_the_last_map(changes, grid):
    config = tiny(**changes)
    found = I3ResNet(config).eval().features(volumes(1, 1, *grid))
    assert tuple(found.shape[2:]) == feature_shape(config, grid)


@pytest.mark.parametrize(
    ("stem", "block", "stem_width", "pool"),
    [
        ("inflated", "bottleneck", 0, "mean"),
        ("inflated", "basic", 6, "grid"),
        ("patch", "basic", 0, "grid"),
        ("patch", "bottleneck", 6, "mean"),
        ("steps", "basic", 6, "mean"),
        ("steps", "bottleneck", 0, "grid"),
    ],
)
def test_every_variant_encodes_and_learns(stem, block, stem_width, pool):
    """Outputs have the stated sizes and every parameter receives a gradient."""
    config = tiny(stem=stem, block=block, stem_width=stem_width, pool=pool, in_channels=1)
    shape = feature_shape(config, (32, 32, 32))
    model = ImageEncoder(config, feature_shape=shape)
    contrastive, logits, embedding = model(volumes(3, 1, 32, 32, 32))
    assert contrastive.shape == (3, 5)
    assert logits.shape == (3, 3)
    assert embedding.shape == (3, model.embedding_size)
    (contrastive.square().sum() + logits.square().sum()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_stages_gives_input_stem_and_each_stage():
    model = I3ResNet(tiny()).eval()
    found = model.stages(volumes(1, 1, 64, 48, 32))
    assert [tuple(x.shape[1:]) for x in found] == [
        (3, 32, 64, 48),
        (4, 32, 32, 24),
        (16, 16, 16, 12),
        (32, 8, 8, 6),
        (64, 4, 4, 3),
        (128, 2, 2, 2),
    ]


def test_first_spatial_axis_inside_is_the_slice_axis():
    model = I3ResNet(tiny(in_channels=1)).eval()
    volume = volumes(2, 1, 32, 24, 16)
    torch.testing.assert_close(model.stages(volume)[0], torch.einsum("bcras->bcsra", volume))


def test_grid_pooling_keeps_position_and_mean_pooling_does_not():
    """The same bright cube in two corners of an even grid."""
    first = torch.zeros(1, 1, 32, 32, 32)
    first[..., :8, :8, :8] = 1
    both = torch.cat([first, first.flip(2, 3, 4)])
    torch.manual_seed(7)
    options = dict(stem="patch", in_channels=1, n_stages=1)
    grid = ImageEncoder(tiny(pool="grid", **options), feature_shape=(8, 8, 8)).eval()
    mean = ImageEncoder(tiny(**options)).eval()
    for block in (*grid.modules(), *mean.modules()):  # 1³ convolutions only: no border effects
        if isinstance(block, torch.nn.Conv3d) and block.kernel_size == (3, 3, 3):
            block.weight.data[...] = block.weight.data.mean((2, 3, 4), keepdim=True)
        if isinstance(block, torch.nn.Conv3d) and block.kernel_size == (4, 4, 4):
            block.weight.data[...] = block.weight.data.mean((2, 3, 4), keepdim=True)
    with torch.no_grad():
        a, b = mean(both)[0]
        torch.testing.assert_close(a, b)
        a, b = grid(both)[0]
    assert (a - b).abs().max() > 1e-3


def test_inflated_network_on_identical_slices_is_the_2d_network_in_every_slice():
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    flat = randomise_(ResNet2D(DEPTHS[14], width=8), generator).eval()
    config = tiny(width=8)
    model = I3ResNet(config).eval()
    model.load_state_dict(inflate_state_dict(flat.state_dict(), model), strict=True)
    image = torch.rand(2, 1, 64, 48, generator=generator)
    with torch.no_grad():
        expected = flat.features(image.repeat(1, 3, 1, 1))
        found = model.features(image[..., None].repeat(1, 1, 1, 1, 32))
    assert expected.std() > 0.01
    for s in range(found.shape[2]):
        torch.testing.assert_close(found[:, :, s], expected, rtol=1e-5, atol=1e-5)


def test_inflation_puts_the_kernel_into_the_middle_slice_and_keeps_the_heads():
    flat, model = ResNet2D(DEPTHS[14], width=4).state_dict(), I3ResNet(tiny())
    heads = model.classifier.weight.clone()
    found = inflate_state_dict(flat, model)
    for key in ("conv1.weight", "layer1.0.conv2.weight"):
        assert found[key].shape[2] == 3
        assert torch.equal(found[key][:, :, 1], flat[key])
        assert not found[key][:, :, ::2].any()
    assert torch.equal(found["layer1.0.conv1.weight"][:, :, 0], flat["layer1.0.conv1.weight"])
    assert torch.equal(found["layer4.0.bn3.running_var"], flat["layer4.0.bn3.running_var"])
    assert torch.equal(found["classifier.weight"], heads)
    assert found.keys() == model.state_dict().keys()


def test_inflation_names_every_tensor_that_does_not_fit():
    flat, model = ResNet2D(DEPTHS[14], width=4).state_dict(), I3ResNet(tiny())
    del flat["layer1.0.conv2.weight"], flat["bn1.running_mean"]
    flat["layer2.0.conv1.weight"] = torch.zeros(9, 16, 1, 1)
    with pytest.raises(ValueError, match="do not fit") as caught:
        inflate_state_dict(flat, model)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "bn1.running_mean: missing",
        "layer1.0.conv2.weight: missing",
        "layer2.0.conv1.weight: (9, 16, 1, 1) does not inflate to (8, 16, 1, 1, 1)",
    ]


def test_inflation_names_a_batch_norm_of_another_width():
    flat, model = ResNet2D(DEPTHS[14], width=4).state_dict(), I3ResNet(tiny())
    flat["bn1.weight"] = torch.ones(7)
    with pytest.raises(ValueError, match=r"bn1\.weight.*\(7,\).*\(4,\)"):
        inflate_state_dict(flat, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(depth=34), r"image depth must be one of \(14, 26, 50, 101, 152\); got 34"),
        (dict(block="wide"), "image block must be one of .*bottleneck.*; got 'wide'"),
        (dict(stem="none"), "image stem must be one of .*patch.*; got 'none'"),
        (dict(pool="max"), "image pool must be one of .*grid.*; got 'max'"),
        (dict(in_channels=2), r"image in_channels must be one of \(1, 3\); got 2"),
        (dict(windows=((40.0, 400.0),)), "1 windows need in_channels=1"),
    ],
)
def test_unknown_choice_is_refused_with_the_choices(change, message):
    with pytest.raises(ValueError, match=message):
        ImageConfig(**change)


def test_grid_pooling_without_a_feature_shape_says_what_it_needs():
    with pytest.raises(ValueError, match=r"needs feature_shape, the \(S, R, A\) size"):
        ImageEncoder(tiny(pool="grid"))


@pytest.mark.parametrize("shape", [(1, 3, 16, 16, 16), (16, 16, 16), (1, 16, 16, 16)])
def test_volume_of_another_shape_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError, match=r"must be \(B, 1, R, A, S\); got \(" + str(shape)[1:-1]):
        I3ResNet(tiny()).features(torch.zeros(shape))


def test_windows_equal_the_written_formula():
    """HU = 2000 x − 1000; each window maps level ± width / 2 to 0 and 1."""
    hu = np.linspace(-1000, 1000, 4 * 5 * 6).reshape(1, 1, 4, 5, 6)
    model = I3ResNet(tiny(windows=THREE_WINDOWS)).eval()
    found = model.stages(torch.from_numpy(((hu + 1000) / 2000).astype(np.float32)))[0].numpy()
    for channel, (level, width) in enumerate(THREE_WINDOWS):
        expected = np.clip((hu - (level - width / 2)) / width, 0, 1)[0, 0].transpose(2, 0, 1)
        np.testing.assert_allclose(found[0, channel], expected, atol=2e-5)
    # At the edges of the soft-tissue window, HU −150 and 250.
    assert found[0, 0].min() == 0
    assert found[0, 0].max() == 1


def test_one_channel_is_repeated_three_times_without_windows():
    found = I3ResNet(tiny()).eval().stages(volumes(1, 1, 16, 16, 16))[0]
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])


def step(*, checkpointing, block):
    """Loss, gradients and buffers after one training step of the same network."""
    torch.manual_seed(7)
    model = ImageEncoder(
        tiny(block=block, depth=26, stem="patch"), checkpointing=checkpointing
    ).train()
    contrastive, logits, _ = model(volumes(4, 1, 32, 32, 32))
    loss = contrastive.square().mean() + logits.square().mean()
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    return loss, gradients, dict(model.named_buffers())


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_recomputation_changes_neither_loss_nor_gradients(block):
    loss, gradients, _ = step(checkpointing=False, block=block)
    again, recomputed, _ = step(checkpointing=True, block=block)
    assert torch.equal(loss, again)
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_recomputation_updates_running_statistics_once(block):
    """A block that runs twice a step must not count its batch twice."""
    _, _, plain = step(checkpointing=False, block=block)
    _, _, recomputed = step(checkpointing=True, block=block)
    different = [k for k in plain if not torch.equal(plain[k], recomputed[k])]
    assert different == []


@pytest.mark.parametrize("network", ["convnext", "swin"])
def test_other_backbones_stand_where_the_residual_network_stands(network):
    torch.manual_seed(0)
    config = ImageConfig(
        network=network, width=12, stem="patch", n_stages=2, pool="grid", grid_cells=4,
        in_channels=1, n_phecodes=3, embedding_size=8,
    )  # fmt: skip
    shape = (24, 20, 28)
    net = ImageEncoder(config, feature_shape=feature_shape(config, shape))
    contrastive, logits, embedding = net(torch.rand(2, 1, *shape))
    assert contrastive.shape == (2, 8)
    assert logits.shape == (2, 3)
    assert embedding.shape == (2, net.embedding_size)
    (contrastive.sum() + logits.sum()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_other_backbones_refuse_what_they_do_not_have():
    with pytest.raises(ValueError, match="needs stem='patch'"):
        ImageConfig(network="swin")
    with pytest.raises(ValueError, match="network must be one of"):
        ImageConfig(network="resnext")


def test_flat_network_inflates_into_one_that_sees_depth():
    """On identical slices the inflated network answers as the flat one does."""
    torch.manual_seed(0)
    small = dict(depth=14, width=4, stem="patch", n_stages=2, in_channels=1, n_phecodes=3)
    flat = I3ResNet(ImageConfig(**small, flat=True, pool="mean")).eval()
    deep = I3ResNet(ImageConfig(**small)).eval()
    deep.load_state_dict(inflate_state_dict(flat.state_dict(), deep))
    kernel, source = deep.conv1.weight, flat.conv1.weight
    torch.testing.assert_close(kernel[:, :, kernel.shape[2] // 2], source[:, :, 0])
    assert kernel.sum().item() == pytest.approx(source.sum().item(), abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        dict(depth=14, width=8),
        dict(depth=14, width=8, stem="patch", n_stages=3, pool="grid", windows=THREE_WINDOWS),
        dict(depth=26, width=4, block="basic", stem="patch"),
    ],
    ids=["paper's form", "phantom's form", "basic blocks"],
)
def test_folding_changes_no_output(changes):
    from merlin.model.inference import folded

    torch.manual_seed(0)
    config = ImageConfig(n_phecodes=5, **changes)
    shape = feature_shape(config, (48, 40, 32))
    model = ImageEncoder(config, feature_shape=shape)
    with pytest.raises(ValueError, match=r"model\.eval"):
        folded(model)
    volume = torch.rand(2, 1, 48, 40, 32)
    for _ in range(3):  # batch norms with statistics of their own
        model.train()(volume)
    with torch.inference_mode():
        expected, found = model.eval()(volume), folded(model)(volume)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
