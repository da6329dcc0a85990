"""The image encoder: a 2D residual network inflated to 3D, after I3D and the official Merlin code.

Every 2D kernel becomes 3D by standing in the middle of a kernel that is zero elsewhere, so that on
a stack of identical slices the inflated network computes what the 2D one did. Attribute names are
those of the official checkpoint, which therefore loads strictly.

Volumes come in as (B, 1, R, A, S) and are turned to (B, C, S, R, A) inside, as in the official
forward: the network's first spatial axis is the slice axis.

Departures from the paper's encoder are options of `ImageEncoder`, for phantoms on two cores: `stem="patch"`
(one 4³ convolution instead of 7×7 and pooling), `block="basic"`, `pool="grid"` (features keep their
position), `in_channels=1` (the official network repeats one channel three times). `flat=True` is the
comparison model: kernels one slice thick, so that with `pool="mean"` a volume is the mean of its
slices, each seen alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from merlin.model.backbones import ConvNeXt, Swin
from merlin.model.volumes import THREE_WINDOWS, as_channels, windowed

__all__ = [
    "THREE_WINDOWS", "I3ResNet", "ImageConfig", "ImageEncoder", "inflate_state_dict", "windowed",
]  # fmt: skip

DEPTHS = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


@dataclass(frozen=True)
class ImageConfig:
    """What an image encoder is built from; stored beside its weights.

    `depth` counts bottleneck layers (50, 101, 152; 14 and 26 are small ones); with `block="basic"`
    the same stage lengths are made of two 3³ convolutions each. Other networks than the residual one
    (`backbones`) read `width` and `n_stages` only.
    """

    network: str = "resnet"  # the paper also tried convnext and swin
    depth: int = 152
    width: int = 64
    block: str = "bottleneck"
    stem: str = "inflated"
    stem_depth_stride: int = 1
    stem_width: int = 0  # channels out of the stem; 0 is `width`, as in the paper
    n_stages: int = 4  # stages of blocks that are built; 4 in the paper
    pool: str = "mean"
    in_channels: int = 3
    n_phecodes: int = 1692
    embedding_size: int = 512
    grid_cells: int = 64  # channels kept per position with pool="grid"
    flat: bool = False  # 2D: every kernel is one slice thick, and no stage merges slices
    # (level, width) in HU of the channels that the model cuts from its input; none: the input itself,
    # repeated. THREE_WINDOWS is an alternative that the authors' code holds, commented out.
    windows: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        for name, allowed in (
            ("network", tuple(NETWORKS)),
            ("depth", tuple(DEPTHS)),
            ("block", ("bottleneck", "basic")),
            ("stem", ("inflated", "patch", "steps")),
            ("pool", ("mean", "grid")),
            ("in_channels", (1, 3)),
            ("n_stages", (1, 2, 3, 4)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"image {name} must be one of {allowed}; got {getattr(self, name)!r}"
                )
        plain = (self.stem, self.flat, self.pool) == ("patch", False, "grid")
        if self.network != "resnet" and not plain:
            raise ValueError(
                f"network={self.network!r} needs stem='patch', pool='grid', flat=False"
            )
        if self.flat and (self.stem, self.pool) != ("patch", "mean"):
            raise ValueError("a flat image encoder needs stem='patch' and pool='mean'")
        if self.windows and len(self.windows) != self.in_channels:
            raise ValueError(f"{len(self.windows)} windows need in_channels={len(self.windows)}")

    @classmethod
    def from_dict(cls, values: dict) -> "ImageConfig":
        """From plain values, as JSON gives them back."""
        return cls(**values | {"windows": tuple(tuple(w) for w in values["windows"])})


class Bottleneck(nn.Module):
    """1³, 3³, 1³ convolutions with a shortcut; the stride sits in the 3³ one."""

    expansion = 4

    def __init__(self, in_width: int, width: int, stride: int, flat: bool = False):
        super().__init__()
        self.conv1 = nn.Conv3d(in_width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = _conv3(width, width, stride, flat)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * width)
        self.downsample = _shortcut(in_width, 4 * width, stride, flat)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, R, A) → (B, 4·width, S/stride, R/stride, A/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Basic(nn.Module):
    """Two 3³ convolutions with a shortcut."""

    expansion = 1

    def __init__(self, in_width: int, width: int, stride: int, flat: bool = False):
        super().__init__()
        self.conv1 = _conv3(in_width, width, stride, flat)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = _conv3(width, width, 1, flat)
        self.bn2 = nn.BatchNorm3d(width)
        self.downsample = _shortcut(in_width, width, stride, flat)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, R, A) → (B, width, S/stride, R/stride, A/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


@contextmanager
def recomputing(block: nn.Module) -> Iterator[None]:
    """Second forward of a checkpointed block: its batch norms must not count the batch again."""
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm3d)]
    counts = [m.get_buffer("num_batches_tracked") for m in norms]
    before = [(m.momentum, count.clone()) for m, count in zip(norms, counts, strict=True)]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, count, (momentum, n) in zip(norms, counts, before, strict=True):
            norm.momentum = momentum
            count.copy_(n)


def _along(flat, slices, in_plane):
    """Kernel, stride or padding (S, R, A); a flat network has its own along the slices."""
    return (slices if flat else in_plane, in_plane, in_plane)


def _conv3(in_width, out_width, stride, flat):
    kernel, stride, padding = _along(flat, 1, 3), _along(flat, 1, stride), _along(flat, 0, 1)
    return nn.Conv3d(in_width, out_width, kernel, stride, padding, bias=False)


def _shortcut(in_width, out_width, stride, flat):
    if stride == 1 and in_width == out_width:
        return None
    return nn.Sequential(
        nn.Conv3d(in_width, out_width, 1, _along(flat, 1, stride), bias=False),
        nn.BatchNorm3d(out_width),
    )


class I3ResNet(nn.Module):
    """Inflated residual network with the official checkpoint's names and two heads.

    Parameters
    ----------
    config : ImageConfig
    checkpointing : bool
        Recompute each stage in the backward pass instead of keeping its activations. Each block is
        recomputed once, and only in training.
    """

    conv1: nn.Conv3d | nn.Sequential
    maxpool: nn.MaxPool3d | nn.Identity

    def __init__(self, config: ImageConfig, *, checkpointing: bool = False):
        super().__init__()
        self.config, self.checkpointing = config, checkpointing
        block = Bottleneck if config.block == "bottleneck" else Basic
        w = config.stem_width or config.width
        if config.stem == "inflated":
            stride = (config.stem_depth_stride, 2, 2)
            self.conv1 = nn.Conv3d(config.in_channels, w, (3, 7, 7), stride, (1, 3, 3), bias=False)
            self.maxpool = nn.MaxPool3d(3, 2, 1)
        elif config.stem == "patch":
            kernel = _along(config.flat, 1, 4)
            stride = _along(config.flat, config.stem_depth_stride, 4)
            self.conv1 = nn.Conv3d(config.in_channels, w, kernel, stride, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Sequential(
                nn.Conv3d(config.in_channels, w // 2, 2, 2, bias=False),
                nn.BatchNorm3d(w // 2),
                nn.ReLU(inplace=True),
                nn.Conv3d(w // 2, w, 3, 2, 1, bias=False),
            )
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm3d(w)
        size, w = w, config.width
        for stage, n_blocks in enumerate(DEPTHS[config.depth][: config.n_stages]):
            blocks = []
            for b in range(n_blocks):
                halves = 2 if b == 0 and stage > 0 else 1
                blocks.append(block(size, w * 2**stage, halves, config.flat))
                size = w * 2**stage * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.feature_size = size
        # A bare `classifier` and `contrastive_head` of 1³ convolutions: names and shapes as released.
        self.classifier = nn.Conv3d(size, config.n_phecodes, 1)
        self.contrastive_head = nn.Conv3d(size, config.embedding_size, 1)

    def _stem(self, x):
        """Stem output before and after its pooling."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return x, self.maxpool(x)

    def stages(self, volume: Tensor) -> list[Tensor]:
        """Input, stem and stage outputs, for decoders with skips.

        Parameters
        ----------
        volume : (B, 1, R, A, S) float in [0, 1]

        Returns
        -------
        list of six tensors, each (B, C, S', R', A')
        """
        x = as_channels(volume, self.config)
        found = [x]
        stem, x = self._through(self._stem, self.bn1, x)
        found.append(stem)
        for stage in range(1, self.config.n_stages + 1):
            for block in getattr(self, f"layer{stage}"):
                x = self._through(block, block, x)
            found.append(x)
        return found

    def _through(self, part, normed, x):
        """Through a part of the network, whose activations are recomputed where that is asked for."""
        if not (self.checkpointing and self.training):
            return part(x)
        return checkpoint(
            part, x, use_reentrant=False, context_fn=lambda: (nullcontext(), recomputing(normed))
        )

    def features(self, volume: Tensor) -> Tensor:
        """(B, 1, R, A, S) → last feature map (B, C, S', R', A')."""
        return self.stages(volume)[-1]


NETWORKS: dict[str, type] = {
    "resnet": I3ResNet,
    "convnext": ConvNeXt,
    "swin": Swin,
}


class ImageEncoder(nn.Module):
    """Image tower: features, the pooled embedding, and the two heads.

    The network itself is `i3_resnet`, as in the official checkpoint, whatever its kind. With
    `pool="grid"` a small linear map keeps `grid_cells` channels at each position of the last feature
    map and the heads read all positions: a phantom's organs stand where they stand.
    """

    i3_resnet: I3ResNet  # or another network, with the same `features`

    def __init__(
        self, config: ImageConfig, *, feature_shape: Sequence[int] | None = None,
        checkpointing: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.config = config
        make = NETWORKS[config.network]
        more = dict(checkpointing=checkpointing) if make is I3ResNet else {}
        self.i3_resnet = make(config, **more)
        self.embedding_size = self.i3_resnet.feature_size
        if config.pool == "grid":
            if feature_shape is None:
                raise ValueError(
                    "pool='grid' needs feature_shape, the (S, R, A) size of the last feature map"
                )
            cells = prod(feature_shape)
            self.squeeze = nn.Conv3d(self.i3_resnet.feature_size, config.grid_cells, 1)
            self.embedding_size = cells * config.grid_cells
            self.norm = nn.LayerNorm(self.embedding_size)
            self.grid_classifier = nn.Linear(self.embedding_size, config.n_phecodes)
            self.grid_head = nn.Linear(self.embedding_size, config.embedding_size)
            # The 1³ heads are the mean-pooling ones; unused here, so not part of this model.
            self.i3_resnet.register_module("classifier", None)
            self.i3_resnet.register_module("contrastive_head", None)

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode volumes.

        Parameters
        ----------
        volume : (B, 1, R, A, S) float in [0, 1]

        Returns
        -------
        contrastive : (B, 512) float, not normalised
        phecode_logits : (B, n_phecodes)
        embedding : (B, embedding_size); 2,048 for the paper's network
        """
        embedding = self.embed(volume)
        return self.contrastive(embedding), self.phecodes(embedding), embedding

    def embed(self, volume: Tensor) -> Tensor:
        """(B, 1, R, A, S) → (B, embedding_size), what both heads read."""
        return self.pooled(self.i3_resnet.features(volume))

    def pooled(self, x: Tensor) -> Tensor:
        """Last feature map (B, C, S', R', A') → (B, embedding_size)."""
        if self.config.pool == "mean":
            return x.mean((2, 3, 4))
        return self.norm(self.squeeze(x).flatten(1))

    def contrastive(self, embedding: Tensor) -> Tensor:
        """(B, embedding_size) → (B, 512), not normalised."""
        if self.config.pool == "mean":
            return self.i3_resnet.contrastive_head(embedding[:, :, None, None, None]).flatten(1)
        return self.grid_head(embedding)

    def phecodes(self, embedding: Tensor) -> Tensor:
        """(B, embedding_size) → (B, n_phecodes) logits."""
        if self.config.pool == "mean":
            return self.i3_resnet.classifier(embedding[:, :, None, None, None]).flatten(1)
        return self.grid_classifier(embedding)


def inflate_state_dict(state_2d: dict[str, Tensor], model: I3ResNet) -> dict[str, Tensor]:
    """Turn 2D ResNet weights into weights of `model`, each kernel in the middle slice.

    Parameters
    ----------
    state_2d : dict of str to tensor
        torchvision's names (`conv1.weight`, `layer1.0.bn1.weight`, …); `fc.*` is ignored. Kernels may
        have a first axis of one slice, as those of a `flat` network.
    model : I3ResNet

    Returns
    -------
    dict
        Weights for every backbone tensor of `model`; its heads keep what they have.

    Raises
    ------
    ValueError
        Naming the tensors that are missing or differ in shape.
    """
    own, new, wrong = model.state_dict(), {}, []
    for key, value in own.items():
        if key.startswith(("classifier.", "contrastive_head.")):
            new[key] = value
            continue
        flat = state_2d.get(key)
        if flat is not None and flat.ndim == 5 and flat.shape[2] == 1:  # of a `flat` network
            flat = flat[:, :, 0]
        if flat is None:
            if not key.endswith("num_batches_tracked"):
                wrong.append(f"{key}: missing")
            new[key] = value
        elif flat.ndim == 4:
            kernel = torch.zeros_like(value)
            if tuple(flat.shape) != (*value.shape[:2], *value.shape[3:]):
                wrong.append(f"{key}: {tuple(flat.shape)} does not inflate to {tuple(value.shape)}")
                continue
            kernel[:, :, value.shape[2] // 2] = flat
            new[key] = kernel
        elif flat.shape != value.shape:
            wrong.append(f"{key}: {tuple(flat.shape)}, expected {tuple(value.shape)}")
        else:
            new[key] = flat
    if wrong:
        raise ValueError("2D weights do not fit this network:\n  " + "\n  ".join(wrong))
    return new
