"""How a score answers to each voxel: its gradient in image space, and images moved along it.

A score is the similarity of an image's embedding to one direction of the shared space, as presence
minus absence prompts give it. Weights are left alone; only the image moves. There is no decoder here:
what is moved are voxels, so an image that is moved need not look like any scan.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from merlin.model.i3d import ImageEncoder


def score(encoder: ImageEncoder, volume: Tensor, direction: Tensor) -> Tensor:
    """(B, 1, R, A, S), (D,) → (B,): similarity of each volume's unit embedding to a direction."""
    return F.normalize(encoder.contrastive(encoder.embed(volume)).float(), dim=1) @ direction


def of_score(encoder: ImageEncoder, volume: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """A score and its gradient by voxel.

    Parameters
    ----------
    encoder : ImageEncoder
        In evaluation mode.
    volume : (B, 1, R, A, S) float in [0, 1]
    direction : (D,) float

    Returns
    -------
    score : (B,)
    gradient : (B, 1, R, A, S)
        Zero where no window of the model reaches: air, and most of the lung.
    """
    if encoder.training:
        raise ValueError("the encoder is in training mode; call eval() first")
    moved = volume.detach().requires_grad_(True)
    found = score(encoder, moved, direction)
    (gradient,) = torch.autograd.grad(found.sum(), moved)
    return found.detach(), gradient


def lowered(
    encoder: ImageEncoder, volume: Tensor, direction: Tensor, body: Tensor, *, step: float,
    n_steps: int,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """Volumes moved down a score's gradient, step by step; the first is the volume as it is.

    Parameters
    ----------
    body : (B, 1, R, A, S) bool
        Voxels that may move.
    step : float
        Root mean square of each step over the body, as a share of the input's range.

    Yields
    ------
    score : (B,)
    volume : (B, 1, R, A, S) in [0, 1]
    """
    inside = body.to(volume.dtype)
    n = inside.sum((1, 2, 3, 4), keepdim=True)
    for k in range(n_steps + 1):
        found, gradient = of_score(encoder, volume, direction)
        yield found, volume
        if k < n_steps:
            gradient = gradient * inside
            size = (gradient.square().sum((1, 2, 3, 4), keepdim=True) / n).sqrt()
            volume = (volume - step * gradient / size.clamp_min(1e-30)).clamp(0, 1)
