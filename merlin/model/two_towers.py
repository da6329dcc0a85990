"""Image and text towers with a learned temperature: the whole pretraining model.

Attribute names are those of the official checkpoint (`encode_image.i3_resnet.*`,
`encode_text.text_encoder.*`, `encode_text.linear_layer.*`, `logit_scale`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from merlin.model.i3d import ImageConfig, ImageEncoder
from merlin.model.sentences import SentenceEncoder
from merlin.model.text import TextConfig, TextEncoder

MAX_LOGIT_SCALE = 4.6052  # ln 100, the clamp of CLIP
TEXT_GROUPS = 3  # of like length, in `embed_tokens`


@dataclass(frozen=True)
class TowersConfig:
    """Everything needed to build the model again; stored beside its weights."""

    image: ImageConfig
    text: TextConfig
    grid_shape: tuple[int, int, int]  # (R, A, S) voxels of an input volume
    logit_scale: float = 2.6593  # ln(1 / 0.07), CLIP's start; the authors' copy starts at 1.0

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "TowersConfig":
        """Inverse of `to_dict`."""
        return cls(
            image=ImageConfig.from_dict(values["image"]),
            text=TextConfig(**values["text"]),
            grid_shape=tuple(values["grid_shape"]),
            logit_scale=values["logit_scale"],
        )


class TwoTowers(nn.Module):
    """Encodes volumes and texts into one space; also predicts phecodes from volumes.

    With `checkpointing` both towers compute their activations again in the backward pass, each once.
    """

    encode_text: Any  # SentenceEncoder or TextEncoder

    def __init__(self, config: TowersConfig, *, checkpointing: bool = False):
        super().__init__()
        self.config = config
        self.encode_image = ImageEncoder(
            config.image,
            feature_shape=feature_shape(config.image, config.grid_shape),
            checkpointing=checkpointing,
        )
        if config.text.kind == "sentences":
            self.encode_text = SentenceEncoder(config.text)
        else:
            self.encode_text = TextEncoder(config.text)
        if checkpointing and self.reads_tokens and not config.text.is_frozen:
            self.encode_text.text_encoder.gradient_checkpointing_enable({"use_reentrant": False})
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale))

    @property
    def reads_tokens(self) -> bool:
        """Whether the text tower reads tokens, and not sentences' vectors."""
        return self.config.text.kind != "sentences"

    @property
    def text_scale(self) -> Tensor:
        """Log of the inverse temperature of whole texts and sections."""
        return self.logit_scale if self.reads_tokens else self.encode_text.sum_scale

    def clamp_logit_scale_(self, most: float = MAX_LOGIT_SCALE) -> None:
        """Keep the temperatures' logarithms between 0 and `most`, by default where CLIP keeps its own."""
        with torch.no_grad():
            self.logit_scale.clamp_(0.0, most)
            self.text_scale.clamp_(0.0, most)

    def embed_volumes(self, volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1, R, A, S) → unit embeddings (B, 512), phecode logits (B, n), features (B, F)."""
        contrastive, logits, embedding = self.encode_image(volume)
        return F.normalize(contrastive.float(), dim=1), logits.float(), embedding.float()

    def embed_read(self, first: Tensor, second: Tensor) -> Tensor:
        """What the text tower reads of n texts → unit embeddings (n, 512).

        Parameters
        ----------
        first, second : tensor
            Tokens and their mask, both (n, length); of `sentences`: vectors (s, 384) of the distinct
            sentences, and (n, s), 1 where the text holds the sentence.
        """
        if self.reads_tokens:
            return self.embed_tokens(first, second)
        return F.normalize(self.encode_text(first, second).float(), dim=1)

    def embed_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(n, length) tokens → unit embeddings (n, 512).

        Texts of like length go through the tower together: half of a mixed batch is padding.
        """
        lengths = attention_mask.sum(1)
        order = lengths.argsort(stable=True)
        rows = []
        for part in order.tensor_split(TEXT_GROUPS if len(order) >= 16 else 1):
            longest = int(lengths[part].max())
            ids, mask = input_ids[part, :longest], attention_mask[part, :longest]
            rows.append(self.encode_text(ids, mask).float())
        return F.normalize(torch.cat(rows).index_select(0, order.argsort()), dim=1)


def feature_shape(image: ImageConfig, grid_shape: Sequence[int]) -> tuple[int, ...]:
    """(S, R, A) size of the last feature map for an (R, A, S) input."""
    r, a, s = grid_shape
    sizes = []
    for n, depth_stride in ((s, image.stem_depth_stride), (r, 2), (a, 2)):
        if image.stem == "patch":
            n = n // 4
        elif image.stem == "steps":
            n = ceil(n // 2 / 2)
        else:
            n = ceil(ceil(n / depth_stride) / 2)  # stem, and pooling
        for _ in range(image.n_stages - 1):
            n = ceil(n / 2)
        sizes.append(n)
    return tuple(sizes)
