"""A text as a weighed sum of its sentences: frozen MiniLM vectors, and a small head that learns.

A sentence of a report says one thing, as a prompt does, and few sentences make up all reports. So each
is read once by a network that nobody trains, and what is learnt is two layers that turn its 384
numbers into a vector of the common space. The longer that vector, the more its sentence weighs in the
sum, whose direction is the text's. MiniLM has read what no report says: its neighbours carry over.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from merlin.model.text import MINILM, TextConfig, load_model, minilm_folder

SIZE = 384  # of a sentence's frozen vector
LIMIT = 256  # tokens of one sentence; what sentence-transformers reads
AT_ONCE = 8  # sentences; on one core larger batches are no faster
SENTENCE_MODEL = {"name": "all-MiniLM-L6-v2", "sha256": MINILM["model.safetensors"]}


@functools.cache
def _minilm():
    model, tokenizer = load_model(minilm_folder())
    return model.eval().requires_grad_(False), tokenizer


def sentence_tokens(sentences: Sequence[str]) -> tuple[list[list[int]], np.ndarray]:
    """MiniLM's tokens of each sentence, and how many of each lie beyond its limit and are cut."""
    _, tokenizer = _minilm()
    full = tokenizer(list(sentences), verbose=False)["input_ids"] if len(sentences) else []
    kept = [ids if len(ids) <= LIMIT else [*ids[: LIMIT - 1], ids[-1]] for ids in full]
    lost = [len(ids) - len(k) for ids, k in zip(full, kept, strict=True)]
    return kept, np.array(lost, dtype=int)


@torch.inference_mode()
def sentence_vectors(tokens: Sequence[list[int]], *, show: bool = False) -> np.ndarray:
    """Frozen MiniLM vectors: the mean over a sentence's tokens, unit length.

    Sentences of equal length go together, always in the same number, and none is padded: so a vector
    does not depend on what else is encoded.

    Parameters
    ----------
    tokens : sequence of lists of int
        From `sentence_tokens`.
    show : bool
        Progress bar.

    Returns
    -------
    (n, 384) float32
    """
    model, _ = _minilm()
    out = np.empty((len(tokens), SIZE), np.float32)
    lengths = np.array([len(t) for t in tokens], dtype=int)
    bar = tqdm(total=len(tokens), desc="sentences read", mininterval=5, disable=not show)
    for n in np.unique(lengths):
        rows = np.flatnonzero(lengths == n)
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            full = np.resize(part, AT_ONCE)  # the last few stand in it more than once
            hidden = model(input_ids=torch.tensor([tokens[int(i)] for i in full])).last_hidden_state
            out[part] = F.normalize(hidden.mean(1), dim=1).numpy()[: len(part)]
            bar.update(len(part))
    bar.close()
    return out


class SentenceEncoder(nn.Module):
    """Text tower over sentence vectors; MiniLM itself is no part of it and of its weights.

    Parameters
    ----------
    config : TextConfig
        `hidden_size` is the width of the head's first layer.
    """

    centre: Tensor

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        # Sentences of radiology lie in one corner of MiniLM's space; set from those of training.
        self.register_buffer("centre", torch.zeros(SIZE))
        self.head = nn.Sequential(
            nn.Linear(SIZE, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.embedding_size),
        )
        # Log of the inverse temperature of texts of many sentences, for training alone.
        self.sum_scale = nn.Parameter(torch.tensor(10.0).log())

    def forward(self, vectors: Tensor, member: Tensor) -> Tensor:
        """Vectors of distinct sentences, (s, 384), and which text holds which, (n, s) → (n, 512)."""
        return member @ self.head(F.normalize(vectors - self.centre, dim=1))
