"""Volumes as networks take them: turned, and cut to the channels that the first layer reads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from merlin.model.i3d import ImageConfig

# (level, width) in HU: an alternative that the authors' code holds, commented out.
THREE_WINDOWS = ((50.0, 400.0), (80.0, 150.0), (400.0, 1800.0))


def as_channels(volume: Tensor, config: "ImageConfig") -> Tensor:
    """Turn volumes slices-first and make their channels.

    Parameters
    ----------
    volume : (B, 1, R, A, S) float in [0, 1]
    config : ImageConfig
        `windows` and `in_channels`.

    Returns
    -------
    (B, in_channels, S, R, A)
        In the layout that convolutions are fast on.
    """
    if volume.ndim != 5 or volume.shape[1] != 1:
        raise ValueError(f"volume must be (B, 1, R, A, S); got {tuple(volume.shape)}")
    x = volume.permute(0, 1, 4, 2, 3)
    if config.windows:
        x = windowed(x, config.windows)
    elif config.in_channels == 3:
        x = x.repeat(1, 3, 1, 1, 1)
    return x.contiguous(memory_format=torch.channels_last_3d)


def windowed(x: Tensor, windows: Sequence[tuple[float, float]]) -> Tensor:
    """(B, 1, …) in [0, 1] → (B, n_windows, …): HU cut to each (level, width) and scaled to 0..1."""
    level, width = torch.tensor(windows, dtype=x.dtype, device=x.device).T
    # One 1³ convolution writes all windows in the layout that the stem wants.
    weight = (2000.0 / width).reshape(-1, 1, 1, 1, 1)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    return F.conv3d(x, weight, 0.5 - (1000.0 + level) / width).clamp_(0, 1)
