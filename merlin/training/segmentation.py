"""Training segmentation networks on crops, and applying them to whole scans by sliding windows."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from merlin.model.i3d import ImageEncoder
from merlin.model.segmenter import Segmenter, ThreeWindowDynUNet, import_monai
from merlin.model.two_towers import feature_shape
from merlin.training.adapt import batches, minimise
from merlin.training.checkpoint import load_weights

UNKNOWN = 255  # label of voxels that nobody annotated; they take no part in the loss


def segmentation_loss(
    logits: torch.Tensor, label: torch.Tensor, class_weights: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy plus soft Dice over the classes present, nnU-Net's sum (paper_facts §3.6).

    Parameters
    ----------
    logits : (B, n_classes, *size)
    label : (B, *size) int64
        `UNKNOWN` is ignored. The order of voxels does not matter, if it is that of the logits.
    class_weights : (n_classes,) tensor
        Of the cross-entropy.

    Returns
    -------
    scalar tensor
    """
    # A map for each class: softmax and sums run along voxels, which lie side by side in memory.
    maps = logits.flatten(2)
    with torch.autocast(maps.device.type, enabled=False):
        return _EntropyAndDice.apply(maps, label.flatten(1), class_weights)


class _EntropyAndDice(torch.autograd.Function):
    """The loss with its gradient by hand: one softmax serves both sums and the way back.

    Written out, each of a dozen steps reads and writes all classes of all voxels.
    """

    @staticmethod
    def forward(ctx, maps, label, class_weights):
        n_classes, dtype = maps.shape[1], maps.dtype
        # Half precision can't hold the sums.
        p = (maps if dtype == torch.float64 else maps.float()).softmax(1)  # (B, n_classes, voxels)
        keep = (label != UNKNOWN).to(p.dtype)
        label = label.where(keep > 0, 0)
        picked = p.gather(1, label[:, None])[:, 0]
        share = class_weights[label] * keep
        share = share / share.sum().clamp(min=1e-6)
        entropy = -(picked.clamp(min=1e-30).log() * share).sum()
        nothing, flat = torch.zeros(n_classes, dtype=p.dtype, device=p.device), label.flatten()
        target = nothing.scatter_add(0, flat, keep.flatten())
        overlap = 2 * nothing.scatter_add(0, flat, (picked * keep).flatten()) + 1e-3
        size = (keep[:, None] @ p.transpose(1, 2)).sum((0, 1)) + target + 1e-3
        present = target > 0
        present[0] = False  # background is what remains
        weight = present.to(p.dtype) / present.sum().clamp(min=1)
        ctx.dtype = dtype
        ctx.save_for_backward(p, label, keep, picked, share, overlap, size, weight)
        return entropy + weight.sum() - (overlap / size * weight).sum()

    @staticmethod
    def backward(ctx, upstream):
        p, label, keep, picked, share, overlap, size, weight = ctx.saved_tensors
        weight, share = weight * upstream, share * upstream
        by_overlap, by_size = -2 * weight / size, weight * overlap / size**2  # of the Dice part
        of_label = by_overlap[label] * picked * keep
        rest = share - of_label - keep * (by_size @ p)
        # Softmax's way back: p · (gradient by p − its mean under p).
        gradient = torch.addcmul(rest[:, None], keep[:, None], by_size[:, None])
        gradient.mul_(p).scatter_add_(1, label[:, None], (of_label - share)[:, None])
        return gradient.to(ctx.dtype), None, None


def folded(label: torch.Tensor, coarse_voxel: Sequence[int]) -> torch.Tensor:
    """Labels in the order of a `Segmenter`'s folded logits.

    Parameters
    ----------
    label : (B, R, A, S)
    coarse_voxel : (3,) int
        `Segmenter.coarse_voxel`: how many voxels a coarse one holds along S, R and A.

    Returns
    -------
    (B · voxels of a coarse one, S/half, R/half, A/half)
    """
    b, r, a, s = label.shape
    i, j, k = coarse_voxel
    label = label.permute(0, 3, 1, 2).reshape(b, s // i, i, r // j, j, a // k, k)
    return label.permute(0, 2, 4, 6, 1, 3, 5).flatten(0, 3)


def inverse_root_weights(labels: Iterable[np.ndarray], n_classes: int) -> torch.Tensor:
    """Class weights for the cross-entropy: one over the root of each class's share, mean 1.

    A gland of twenty voxels weighs nothing among two hundred thousand otherwise.
    """
    count = np.zeros(n_classes)
    for label in labels:
        found = np.bincount(np.asarray(label).ravel(), minlength=256)
        count += found[:n_classes]
    share = np.maximum(count, 1) / count.sum()
    weight = 1 / np.sqrt(share)
    weight[count == 0] = 0
    return torch.tensor(weight / weight[count > 0].mean(), dtype=torch.float32)


def random_crop(
    image: np.ndarray, label: np.ndarray, window: Sequence[int], rng: np.random.Generator, *,
    margin: int = 0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A random window of a volume, padded with air where it reaches beyond.

    Parameters
    ----------
    image : (R, A, S) float32
    label : (R, A, S) uint8
    window : (3,) int
    margin : int
        Voxels by which windows may reach beyond the volume. Whole scans are wider than the grid of
        pretraining, and a network that never saw the air around a body labels it as it likes.

    Returns
    -------
    image, label : arrays of shape `window`
    """
    short = [max(w - n, 0) + 2 * margin for w, n in zip(window, image.shape, strict=True)]
    around = [(n // 2, n - n // 2) for n in short]
    image, label = np.pad(image, around), np.pad(label, around)
    start = [rng.integers(0, n - w + 1) for n, w in zip(image.shape, window, strict=True)]
    part = tuple(slice(s, s + w) for s, w in zip(start, window, strict=True))
    return image[part], label[part]


def train(
    model: Segmenter | ThreeWindowDynUNet,
    pairs: Callable[[int], tuple[np.ndarray, np.ndarray]],
    n: int,
    class_weights: torch.Tensor,
    *,
    window: Sequence[int],
    n_steps: int,
    batch_size: int,
    learning_rate: float,
    encoder_learning_rate: float | None = None,
    margin: int = 0,
    optimizer: str = "adamw",
    watch: Callable[[], dict] | None = None,
    watch_every: int = 0,
    seed: int,
    device: str = "cpu",
    desc: str = "segmenting",
    show: bool = True,
) -> list[dict]:
    """Train on random crops with deep supervision (weights halve with each coarser output).

    Parameters
    ----------
    model : module
        (B, 1, R, A, S) → logits, or a list of them, full resolution first.
    pairs : callable
        Index → (image, label) of the whole scan on the model's spacing.
    n : int
        Scans.
    class_weights : (n_classes,) tensor
    encoder_learning_rate : float, optional
        For `model.backbone`, from pretrained weights or not; default: `learning_rate`.
    margin : int
        As in `random_crop`.
    optimizer, watch, watch_every
        As in `minimise`; `watch` finds the model in evaluation mode.

    Returns
    -------
    list of dict
    """
    draw = batches(n, batch_size, seed=seed)
    weights = class_weights.to(device)

    def loss_at(step: int, rng: np.random.Generator) -> torch.Tensor:
        crops = [random_crop(*pairs(int(i)), window, rng, margin=margin) for i in draw(step)]
        image = torch.from_numpy(np.stack([c[0] for c in crops]))[:, None].to(device)
        label = torch.from_numpy(np.stack([c[1] for c in crops]).astype(np.int64)).to(device)
        model.train()
        outputs = model(image)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        loss, total = torch.zeros((), device=device), 0.0
        for level, logits in enumerate(outputs):
            share = 0.5**level
            small = label
            if isinstance(model, Segmenter) and len(logits) != len(label):
                small = folded(label, model.coarse_voxel)
            elif logits.shape[2:] != label.shape[1:]:
                small = F.interpolate(label[:, None].float(), logits.shape[2:], mode="nearest")
                small = small[:, 0].long()
            loss = loss + share * segmentation_loss(logits, small, weights)
            total += share
        return loss / total

    groups = [(list(model.parameters()), learning_rate)]
    if encoder_learning_rate and isinstance(model, Segmenter):
        backbone = list(model.backbone.parameters())
        ours = {id(p) for p in backbone}
        rest = [p for p in model.parameters() if id(p) not in ours]
        groups = [(rest, learning_rate), (backbone, encoder_learning_rate)]
    # A short memory of squared gradients: crops of one scan each differ much, runs are short.
    betas = (0.9, 0.95)
    return minimise(
        groups, loss_at, n_steps, betas=betas, seed=seed, desc=desc, show=show, optimizer=optimizer,
        watch=watch, watch_every=watch_every,
    )  # fmt: skip


@torch.inference_mode()
def predict(
    model: nn.Module, image: np.ndarray, *, window: Sequence[int], overlap: float,
    device: str = "cpu",
) -> torch.Tensor:  # fmt: skip
    """Logits of a whole scan on the model's spacing, from windows blended by MONAI's inference.

    Parameters
    ----------
    model : module
        As in `train`; the first of its outputs is read.
    image : (R, A, S) float32 in [0, 1]
    window : (3,) int
    overlap : float
        Share of a window that the next one covers again.

    Returns
    -------
    (1, n_classes, R, A, S) tensor
    """
    import_monai()
    from monai.inferers import sliding_window_inference

    model.eval()

    def full(x: torch.Tensor) -> torch.Tensor:
        y = model(x)
        return y[0] if isinstance(y, list) else y

    volume = torch.from_numpy(image)[None, None].to(device)
    logits = sliding_window_inference(
        volume, window, sw_batch_size=4, predictor=full, overlap=overlap, mode="gaussian"
    )
    return torch.as_tensor(logits)


@torch.inference_mode()
def to_native(
    logits: torch.Tensor, affine: np.ndarray, native_affine: np.ndarray, native_shape: Sequence[int]
) -> np.ndarray:
    """Labels on the scan's own grid; logits, not labels, are interpolated.

    Parameters
    ----------
    logits : (1, n_classes, R, A, S) tensor
    affine, native_affine : (4, 4)
        From index to RAS+ mm, of the logits and of the scan.
    native_shape : (3,) int

    Returns
    -------
    (native_shape) uint8
    """
    to_index = np.linalg.solve(affine, native_affine)
    size = np.array(logits.shape[2:], float)
    grid = [torch.arange(n, dtype=torch.float32, device=logits.device) for n in native_shape]
    at = []
    for axis in range(3):  # index in the logits, then scaled to [-1, 1] as grid_sample wants
        row = torch.tensor(to_index[axis], dtype=torch.float32, device=logits.device)
        x = row[0] * grid[0][:, None, None] + row[1] * grid[1][None, :, None]
        x = x + row[2] * grid[2] + row[3]
        at.append(2 * x / max(size[axis] - 1, 1) - 1)
    where = torch.stack(at[::-1], -1)[None]
    sampled = F.grid_sample(logits.float(), where, align_corners=True, padding_mode="border")
    return sampled[0].argmax(0).to(torch.uint8).cpu().numpy()


def mean_dice(
    model: nn.Module, scans: Sequence[tuple[np.ndarray, np.ndarray]], n_classes: int, *,
    window: Sequence[int], overlap: float, device: str = "cpu",
) -> float:  # fmt: skip
    """Mean Dice over structures and whole scans on the model's spacing: what a curve of training shows.

    Parameters
    ----------
    scans : sequence of (image, label)
        (R, A, S) float32 and uint8, of validation.
    n_classes : int
        Background included.

    Returns
    -------
    float
        In [0, 1], over the structures that each scan holds.
    """
    found: list[float] = []
    for image, label in scans:
        logits = predict(model, image, window=window, overlap=overlap, device=device)
        drawn = logits[0].argmax(0).cpu().numpy()
        truth = np.where(label < n_classes, label, 0)
        both = np.bincount(truth[drawn == truth], minlength=n_classes)
        size = np.bincount(truth.ravel(), minlength=n_classes)
        total = size + np.bincount(drawn[label < n_classes], minlength=n_classes)
        found += (2 * both / np.maximum(total, 1))[1:][size[1:] > 0].tolist()
    return float(np.mean(found))


def network(
    kind: str, weights: str | Path, n_classes: int, *, seed: int, norm: str,
    decoder_widths: Sequence[int], light_top: bool, dynunet_filters: Sequence[int],
) -> Segmenter | ThreeWindowDynUNet:  # fmt: skip
    """A network, untrained but for a pretrained encoder.

    `merlin` and `scratch` of one seed differ in the encoder's weights and in nothing else: the decoder
    begins from the same numbers, and so does everything that `train` draws.

    Parameters
    ----------
    kind : {"merlin", "scratch", "dynunet"}
        Pretrained encoder, the same encoder from random weights, MONAI's DynUNet.
    weights : path
        Of pretraining.
    norm, decoder_widths, light_top
        As in `Segmenter`.
    dynunet_filters : sequence of int
    """
    model = load_weights(weights)[0]
    torch.manual_seed(seed)
    if kind == "dynunet":
        return ThreeWindowDynUNet(n_classes, dynunet_filters)
    encoder = model.encode_image
    if kind == "scratch":
        image = model.config.image
        encoder = ImageEncoder(image, feature_shape=feature_shape(image, model.config.grid_shape))
    torch.manual_seed(seed)
    return Segmenter(encoder, n_classes, decoder_widths, norm=norm, light_top=light_top)
