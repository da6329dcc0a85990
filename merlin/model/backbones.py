"""Backbones that the paper compares with its residual network: ConvNeXt and Swin, in 3D.

Both stand where `I3ResNet` stands in an `ImageEncoder` and answer `features(volume)`. Sizes follow
from `ImageConfig.width`, so that a small residual network meets small rivals.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from merlin.model.volumes import as_channels

if TYPE_CHECKING:
    from merlin.model.i3d import ImageConfig


class ConvNeXt(nn.Module):
    """ConvNeXt in 3D: 4³ patches, then blocks of a 7³ depthwise convolution and a two-layer map.

    Liu et al., A ConvNet for the 2020s (arXiv 2201.03545), its kernels inflated to 3D.

    Parameters
    ----------
    config : ImageConfig
        `width` is that of the first stage, `n_stages` their number.
    """

    def __init__(self, config: "ImageConfig"):
        super().__init__()
        self.config = config
        w = config.width
        layers: list[nn.Module] = [nn.Conv3d(config.in_channels, w, 4, 4), _ChannelNorm(w)]
        for stage in range(config.n_stages):
            if stage:
                layers += [_ChannelNorm(w), nn.Conv3d(w, 2 * w, 3, 2, 1)]
                w *= 2
            layers += [_ConvNeXtBlock(w), _ConvNeXtBlock(w)]
        self.layers = nn.Sequential(*layers)
        self.feature_size = w

    def features(self, volume: Tensor) -> Tensor:
        """(B, 1, R, A, S) → (B, C, S', R', A')."""
        return self.layers(as_channels(volume, self.config))


class _ConvNeXtBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.near = nn.Conv3d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x):
        y = self.norm(self.near(x).movedim(1, -1))
        return x + (self.scale * self.mix(y)).movedim(-1, 1)


class _ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Swin(nn.Module):
    """MONAI's 3D Swin transformer (Liu et al., arXiv 2103.14030) with 4³ patches; as `ConvNeXt`."""

    def __init__(self, config: "ImageConfig"):
        super().__init__()
        from monai.networks.nets.swin_unetr import SwinTransformer

        self.config = config
        n = config.n_stages
        self.network = SwinTransformer(
            in_chans=config.in_channels,
            embed_dim=config.width,
            window_size=(5, 5, 5),  # divides the grid of the sweep; Swin itself has 7
            patch_size=(4, 4, 4),
            # MONAI's always has four stages.
            depths=(2, 2, 2, 2),
            num_heads=tuple(max(1, config.width * 2**i // 16) for i in range(4)),
            spatial_dims=3,
        )
        getattr(self.network, f"layers{n}")[0].downsample = None  # MONAI merges after every stage
        for stage in range(n + 1, 5):  # what lies behind the last wanted stage takes no part
            setattr(self.network, f"layers{stage}", nn.ModuleList())
        self.feature_size = config.width * 2 ** (n - 1)

    def features(self, volume: Tensor) -> Tensor:
        """(B, 1, R, A, S) → (B, C, S', R', A')."""
        net = self.network
        x = net.pos_drop(net.patch_embed(as_channels(volume, self.config)))
        for stage in range(1, self.config.n_stages + 1):
            x = getattr(net, f"layers{stage}")[0](x.contiguous())
        return net.proj_out(x, True)
