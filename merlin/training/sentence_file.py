"""Frozen vectors of sentences, in a file of a run: each is computed once, whoever asks for it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from merlin.model.sentences import SENTENCE_MODEL, SIZE, sentence_tokens, sentence_vectors
from merlin.training.checkpoint import load_tensors, save_tensors


def sentence_path(folder: str | Path) -> Path:
    """The file in a folder, named by the model's weights: another model's vectors are never read."""
    return Path(folder) / f"sentences-{SENTENCE_MODEL['sha256'][:12]}.safetensors"


def read_sentences(
    sentences: Sequence[str], folder: str | Path | None = None, *, show: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of sentences, from the file where it has them; the new ones are computed and added.

    Parameters
    ----------
    sentences : sequence of str
        As the model shall read them.
    folder : path, optional
        Where the file is or will be; without one nothing is kept.
    show : bool
        Progress bar.

    Returns
    -------
    vectors : (n, 384) float32, unit length
    n_lost : (n,) int
        Tokens of each beyond the model's limit.
    """
    tokens, lost = sentence_tokens(sentences)
    keys = [hashlib.sha256(s.encode()).digest() for s in sentences]
    found = _read(folder)
    new = [i for i, key in enumerate(keys) if key not in found]
    if new:
        made = sentence_vectors([tokens[i] for i in new], show=show)
        found = _read(folder)  # what another process has added meanwhile stays
        found |= {keys[i]: row for i, row in zip(new, made, strict=True)}
        if folder is not None:
            _write(folder, found)
    rows = [found[key] for key in keys]
    return (np.stack(rows) if rows else np.empty((0, SIZE), np.float32)), lost


def _read(folder):
    """sha256 of each sentence → its vector; a damaged file counts as none."""
    try:
        kept, _ = load_tensors(sentence_path(folder or ""), SENTENCE_MODEL["sha256"])
        keys, vectors = kept["key"].numpy(), kept["vector"].numpy()
    except (FileNotFoundError, SafetensorError, ValueError, KeyError):
        return {}
    if keys.shape[1:] != (32,) or vectors.shape != (len(keys), SIZE):
        return {}
    return {key.tobytes(): row for key, row in zip(keys, vectors, strict=True)}


def _write(folder, found):
    order = sorted(found)
    key = np.frombuffer(b"".join(order), np.uint8).reshape(-1, 32).copy()
    vector = np.stack([found[k] for k in order])
    tensors = {"key": torch.from_numpy(key), "vector": torch.from_numpy(vector)}
    save_tensors(sentence_path(folder), tensors, {"kind": SENTENCE_MODEL["sha256"]})
