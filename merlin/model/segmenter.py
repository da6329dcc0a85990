"""Segmentation network: the pretrained encoder's stages as skips of a decoder shaped as the paper's.

Going up: a transposed convolution brings the deeper map to the size of the next skip, both are
concatenated and pass two 3³ convolutions with batch norm and ReLU; every stage also has a 1³ output
of its own for deep supervision; the raw input joins last, after two convolutions of its own
(paper_facts §3.6). At the paper's sizes the widths are 1024, 512, 256, 64, 64; they are a parameter.

On two cores full-resolution convolutions cost more than all else. `light_top=True` (ours, the
phantom default) does without: raw voxels are folded two by two by two into channels, join the decoder
at half resolution, and one linear map unfolds its answer to full resolution.

With one crop a batch, batch norm learns on one scan's statistics and is then judged with the average
scan's: scans without contrast agent fail. `norm="instance"` (ours, the phantom default) takes each
crop's own statistics always, in the encoder too, pretrained or not.
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import convert_conv3d_weight_memory_format

from merlin.model.i3d import ImageEncoder
from merlin.model.volumes import THREE_WINDOWS, windowed


class Segmenter(nn.Module):
    """Encoder, decoder and one output per resolution.

    Parameters
    ----------
    encoder : ImageEncoder
        Only its `i3_resnet` is used.
    n_classes : int
        Background included.
    widths : sequence of int
        Channels after each step up, deepest first; one per skip.
    light_top : bool
    norm : {"batch", "instance"}
        Of encoder and decoder; scales and shifts of a pretrained encoder stay.
    """

    def __init__(
        self, encoder: ImageEncoder, n_classes: int, widths: Sequence[int], *, light_top: bool = False,
        norm: str = "batch",
    ) -> None:  # fmt: skip
        if norm not in ("batch", "instance"):
            raise ValueError(f"norm must be 'batch' or 'instance'; got {norm!r}")
        super().__init__()
        self.backbone = encoder.i3_resnet
        self.light_top = light_top
        self.norm = nn.BatchNorm3d if norm == "batch" else InstanceNorm
        if norm == "instance":
            _replace_norms(self.backbone)
        with torch.no_grad():
            was_training = self.backbone.training
            found = self.backbone.eval().stages(torch.zeros(1, 1, 32, 32, 32))
            self.backbone.train(was_training)
        sizes, channels = [f.shape[2:] for f in found], [f.shape[1] for f in found]
        # Stages of equal resolution are one skip, the deeper of them (a patch stem's, say).
        keep = [i for i in range(len(found)) if i + 1 == len(found) or sizes[i] != sizes[i + 1]]
        if light_top:
            keep = keep[1:]
        self.skips = tuple(keep)
        if len(widths) != len(keep) - 1:
            raise ValueError(
                f"widths has {len(widths)} entries; {len(keep) - 1} steps up need one each"
            )
        self.up, self.merge, self.outputs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        below = channels[keep[-1]]
        for i, width in zip(reversed(keep[:-1]), widths, strict=True):
            stride = _ratio(sizes[i], sizes[self._next(i)])
            self.up.append(nn.ConvTranspose3d(below, width, stride, stride))
            skip = channels[i] if i else width
            self.merge.append(self._twice(width + skip, width))
            self.outputs.append(nn.Conv3d(width, n_classes, 1))
            below = width
        if light_top:
            stride = _ratio(sizes[0], sizes[keep[0]])
            half = _ratio([max(1, s // 2) for s in stride], [1, 1, 1])
            rest = _ratio(stride, half)
            n_folded = channels[0] * half[0] * half[1] * half[2]
            self.fold = nn.Conv3d(channels[0], n_folded, half, half)
            self.middle_up = nn.ConvTranspose3d(below, 24, rest, rest)
            self.middle = self._twice(24 + n_folded, 32)
            self.middle_output = nn.Conv3d(32, n_classes, 1)
            self.coarse_voxel, self.n_classes = half, n_classes
            self.unfold = nn.Linear(32 + n_folded, n_classes * half[0] * half[1] * half[2])
        else:
            self.raw = self._twice(channels[0], widths[-1])

    def _twice(self, in_width: int, width: int) -> nn.Sequential:
        layers = []
        for w in (in_width, width):
            layers += [
                nn.Conv3d(w, width, 3, padding=1, bias=False),
                self.norm(width),
                nn.ReLU(inplace=True),
            ]
        return nn.Sequential(*layers)

    def _next(self, i: int) -> int:
        return self.skips[self.skips.index(i) + 1]

    def forward(self, volume: torch.Tensor) -> list[torch.Tensor]:
        """Segment volumes.

        Parameters
        ----------
        volume : (B, 1, R, A, S) float in [0, 1]

        Returns
        -------
        list of (B, n_classes, R', A', S') logits
            Full resolution first, then coarser ones. In training with `light_top`, the first is
            folded, (B · 8, n_classes, S/2, R/2, A/2), a coarse map for each of the eight voxels that a
            coarse one holds: moving millions of logits into place costs what a convolution does, and
            no loss over voxels needs it (`segmentation.folded`).
        """
        found = self.backbone.stages(volume)
        x, logits = found[self.skips[-1]], []
        for i, up, merge, output in zip(
            reversed(self.skips[:-1]), self.up, self.merge, self.outputs, strict=True
        ):
            skip = found[i] if i else self.raw(found[0])
            x = merge(torch.cat([_fit(up(x), skip), skip], 1))
            logits.append(output(x))
        if self.light_top:
            fine = F.relu(self.fold(found[0]))
            x = self.middle(torch.cat([_fit(self.middle_up(x), fine), fine], 1))
            logits.append(self.middle_output(x))
            logits.append(self._unfolded(torch.cat([x, fine], 1), found[0]))
        # The network works in (S, R, A), as the pretrained one does.
        turned = [y.permute(0, 1, 3, 4, 2) if len(y) == len(volume) else y for y in logits]
        return turned[::-1]

    def _unfolded(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """One linear map a coarse voxel gives its fine voxels' logits, a map for each class."""
        b, c, *size = x.shape
        rows = x.permute(0, 2, 3, 4, 1).reshape(b, -1, c)  # as it lies in memory
        weight, bias = self.unfold.weight.expand(b, -1, -1), self.unfold.bias[:, None]
        y = torch.baddbmm(bias, weight, rows.transpose(1, 2))
        whole = tuple(n * h for n, h in zip(size, self.coarse_voxel, strict=True))
        if self.training and whole == tuple(like.shape[2:]):
            return y.view(-1, self.n_classes, *size)
        y = y.view(b, *self.coarse_voxel, self.n_classes, *size)
        y = y.permute(0, 4, 6, 2, 7, 3, 5, 1)  # in the order of the scan, R, A, S
        y = y.reshape(b, self.n_classes, whole[1], whole[2], whole[0])
        return _fit(y.permute(0, 1, 4, 2, 3), like)


class InstanceNorm(nn.BatchNorm3d):
    """Normalise each volume by its own statistics, in training and afterwards.

    One volume is what batch norm does without running statistics, which keeps the channels-last layout
    that `nn.InstanceNorm3d` gives up; convolutions of few channels are a quarter faster in it.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, S, R, A) → the same shape."""
        return torch.cat([super(InstanceNorm, self).forward(part) for part in x.split(1)])


def _ratio(large: Sequence[int], small: Sequence[int]) -> tuple[int, int, int]:
    """How many of the small go into the large, by axis."""
    s, r, a = (round(n / m) for n, m in zip(large, small, strict=True))
    return s, r, a


def _replace_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d | nn.InstanceNorm3d):
            own = InstanceNorm(child.num_features)
            own.load_state_dict({k: child.state_dict()[k] for k in ("weight", "bias")})
            setattr(module, name, own)
        else:
            _replace_norms(child)


def _fit(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Crop or repeat the far edge of `x` to the size of `like`: odd sizes lose a voxel going down."""
    size = like.shape[2:]
    x = x[..., : size[0], : size[1], : size[2]]
    short = [n - m for n, m in zip(size, x.shape[2:], strict=True)]
    if any(short):
        x = F.pad(x, (0, short[2], 0, short[1], 0, short[0]), mode="replicate")
    return x


def import_monai() -> None:
    """Import MONAI without two packages that it takes where it finds them, and that are four fifths of its time.

    A job for each network pays for it: 1.1 s instead of 5.0, measured.
    """
    hidden = [name for name in ("transformers", "jsonschema") if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden, cast("ModuleType", None))  # as if they were not installed
    try:
        import monai  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]


class ThreeWindowDynUNet(nn.Module):
    """MONAI's DynUNet, nnU-Net's architecture, on the same three HU windows that our encoder sees.

    With deep supervision as in nnU-Net: all resolutions but the two coarsest answer.

    Parameters
    ----------
    n_classes : int
    filters : sequence of int
        Channels per resolution; each halves the grid.
    """

    def __init__(self, n_classes: int, filters: Sequence[int]) -> None:
        super().__init__()
        import_monai()
        from monai.networks.nets import DynUNet

        n = len(filters)
        self.network = DynUNet(
            spatial_dims=3,
            in_channels=len(THREE_WINDOWS),
            out_channels=n_classes,
            kernel_size=[3] * n,
            strides=[1] + [2] * (n - 1),
            upsample_kernel_size=[2] * (n - 1),
            filters=list(filters),
            norm_name=("instance", {"affine": True}),
            deep_supervision=True,
            deep_supr_num=max(1, n - 3),
        )
        _replace_norms(self.network)
        convert_conv3d_weight_memory_format(self, torch.channels_last_3d)

    def forward(self, volume: torch.Tensor) -> list[torch.Tensor]:
        """(B, 1, R, A, S) in [0, 1], sizes divisible by 2^(n−1) → logits, full resolution first.

        Coarser ones follow in training.
        """
        network = self.network
        fine = network.output_block(network.skip_layers(windowed(volume, THREE_WINDOWS)))
        # MONAI's own forward would bring them all to full resolution, which costs more than they do.
        return [fine, *(network.heads if self.training else [])]
