"""Training a segmentation network on crops, and applying it to whole scans by sliding windows."""

import numpy as np
import torch
from torch.nn import functional as F

from merlin.training.adapt import batches, minimise

UNKNOWN = 255  # label of voxels that nobody annotated; they take no part in the loss


def segmentation_loss(logits, label, class_weights):
    """Cross-entropy plus soft Dice over the classes present, nnU-Net's sum (paper_facts §3.6).

    Parameters
    ----------
    logits : (B, n_classes, R, A, S)
    label : (B, R, A, S) int64
        `UNKNOWN` is ignored.
    class_weights : (n_classes,) tensor
        Of the cross-entropy.

    Returns
    -------
    scalar tensor
    """
    n_classes = logits.shape[1]
    # Rows of voxels: softmax and sums run over contiguous memory.
    log_p = F.log_softmax(logits.permute(0, 2, 3, 4, 1).reshape(-1, n_classes), 1)
    flat = label.reshape(-1)
    keep = (flat != UNKNOWN).to(log_p.dtype)
    flat = flat.clamp(max=n_classes - 1) if (keep == 0).any() else flat
    picked = log_p.gather(1, flat[:, None])[:, 0]
    weight = class_weights[flat] * keep
    entropy = -(picked * weight).sum() / weight.sum().clamp(min=1e-6)
    nothing = torch.zeros(n_classes, dtype=log_p.dtype, device=log_p.device)
    target = nothing.scatter_add(0, flat, keep)
    overlap = nothing.scatter_add(0, flat, picked.exp() * keep)
    size = keep @ log_p.exp() + target
    present = target > 0
    present[0] = False  # background is what remains
    dice = (2 * overlap + 1e-3) / (size + 1e-3)
    missed = 1 - dice[present].mean() if present.any() else entropy * 0
    return entropy + missed


def inverse_root_weights(labels, n_classes):
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


def random_crop(image, label, window, rng, *, margin=0):
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
    image, label = (np.pad(a, [(n // 2, n - n // 2) for n in short]) for a in (image, label))
    start = [rng.integers(0, n - w + 1) for n, w in zip(image.shape, window, strict=True)]
    part = tuple(slice(s, s + w) for s, w in zip(start, window, strict=True))
    return image[part], label[part]


def train(
    model,
    pairs,
    n,
    class_weights,
    *,
    window,
    n_steps,
    batch_size,
    learning_rate,
    encoder_learning_rate=None,
    margin=0,
    seed,
    device="cpu",
    desc="segmenting",
    show=True,
):
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
        For `model.backbone`, if it starts from pretrained weights.
    margin : int
        As in `random_crop`.

    Returns
    -------
    list of dict
    """
    model.train()
    draw = batches(n, batch_size, seed=seed)
    weights = class_weights.to(device)

    def loss_at(step, rng):
        crops = [random_crop(*pairs(int(i)), window, rng, margin=margin) for i in draw(step)]
        image = torch.from_numpy(np.stack([c[0] for c in crops]))[:, None].to(device)
        label = torch.from_numpy(np.stack([c[1] for c in crops]).astype(np.int64)).to(device)
        outputs = model(image)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        loss, total = 0.0, 0.0
        for level, logits in enumerate(outputs):
            share = 0.5**level
            small = label
            if logits.shape[2:] != label.shape[1:]:
                small = F.interpolate(label[:, None].float(), logits.shape[2:], mode="nearest")
                small = small[:, 0].long()
            loss = loss + share * segmentation_loss(logits, small, weights)
            total += share
        return loss / total

    backbone = list(model.backbone.parameters()) if encoder_learning_rate else []
    ours = {id(p) for p in backbone}
    rest = [p for p in model.parameters() if id(p) not in ours]
    groups = [(rest, learning_rate)] + ([(backbone, encoder_learning_rate)] if backbone else [])
    # A short memory of squared gradients: crops of one scan each differ much, runs are short.
    betas = (0.9, 0.95)
    return minimise(groups, loss_at, n_steps, betas=betas, seed=seed, desc=desc, show=show)


@torch.inference_mode()
def predict_native(
    model, image, affine, native_affine, native_shape, *, window, overlap, device="cpu"
):
    """Segment a whole scan and bring the answer to the scan's own grid.

    Windows are blended by MONAI's sliding-window inference; logits, not labels, are interpolated.

    Parameters
    ----------
    image : (R, A, S) float32 in [0, 1]
        The whole scan on the model's spacing.
    affine, native_affine : (4, 4)
        From index to RAS+ mm.
    native_shape : (3,) int
    window : (3,) int
    overlap : float
        Share of a window that the next one covers again.

    Returns
    -------
    (native_shape) uint8
    """
    from monai.inferers import sliding_window_inference

    model.eval()

    def full(x):
        y = model(x)
        return y[0] if isinstance(y, list) else y

    volume = torch.from_numpy(image)[None, None].to(device)
    logits = sliding_window_inference(
        volume, window, sw_batch_size=4, predictor=full, overlap=overlap, mode="gaussian"
    )
    to_index = np.linalg.solve(affine, native_affine)
    size = np.array(image.shape, float)
    grid = [torch.arange(n, dtype=torch.float32, device=device) for n in native_shape]
    at = []
    for axis in range(3):  # index in `image`, then scaled to [-1, 1] as grid_sample wants
        row = torch.tensor(to_index[axis], dtype=torch.float32, device=device)
        x = row[0] * grid[0][:, None, None] + row[1] * grid[1][None, :, None]
        x = x + row[2] * grid[2] + row[3]
        at.append(2 * x / max(size[axis] - 1, 1) - 1)
    where = torch.stack(at[::-1], -1)[None]
    sampled = F.grid_sample(logits.float(), where, align_corners=True, padding_mode="border")
    return sampled[0].argmax(0).to(torch.uint8).cpu().numpy()
