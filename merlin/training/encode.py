"""Volumes, reports and prompts → an embeddings file, with a trained model in evaluation mode."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from merlin.data.phecodes import phecode_labels
from merlin.data.prompts import PROMPTS, prompt_bank
from merlin.embeddings import Embeddings, save_embeddings
from merlin.model.sentences import sentence_tokens
from merlin.model.two_towers import TwoTowers
from merlin.training.texts import TextCache, embed_texts

__all__ = [
    "PROMPTS", "Embeddings", "batches", "encode_for_headlines", "encode_images", "encode_prompts",
    "encode_texts", "prompt_bank", "save_embeddings", "study_labels",
    "token_lengths",
]  # fmt: skip


def batches(
    volumes: Callable[[int], np.ndarray],
    n: int,
    *,
    batch_size: int,
    device: str = "cpu",
    desc: str = "volumes",
    show: bool = True,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """`n` volumes in order, read one batch at a time, with a progress bar.

    Parameters
    ----------
    volumes : callable
        Index → (R, A, S) float32.
    batch_size : int
        Volumes at once, at most; all batches are of about the same size.

    Yields
    ------
    index : (b,) int
    volume : (b, 1, R, A, S) float32 tensor on the device
    """
    parts = np.array_split(np.arange(n), -(-n // batch_size))
    for part in tqdm(parts, desc=desc, mininterval=5, disable=not show):
        batch = torch.from_numpy(np.stack([volumes(int(i)) for i in part]))[:, None]
        yield part, batch.to(device)


@torch.inference_mode()
def encode_images(
    model: TwoTowers,
    volumes: Callable[[int], np.ndarray],
    n: int,
    *,
    batch_size: int = 16,
    device: str = "cpu",
    desc: str = "volumes",
) -> tuple[np.ndarray, np.ndarray]:
    """Encode `n` volumes, read one batch at a time.

    Parameters
    ----------
    model : TwoTowers
        In evaluation mode.
    volumes : callable
        Index → (R, A, S) float32.

    Returns
    -------
    image : (n, D) float32
    phecode_logits : (n, n_phecodes) float32
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    images, logits = [], []
    for _, batch in batches(volumes, n, batch_size=batch_size, device=device, desc=desc):
        image, logit, _ = model.embed_volumes(batch)
        images.append(image.cpu().numpy())
        logits.append(logit.cpu().numpy())
    return np.concatenate(images), np.concatenate(logits)


@torch.inference_mode()
def encode_texts(
    model: TwoTowers,
    texts: Sequence[str | None] | np.ndarray | pd.Series,
    *,
    read: TextCache | None = None,
    batch_size: int = 128,
    desc: str = "texts",
    show: bool = True,
) -> tuple[np.ndarray, int]:
    """Encode texts; each distinct text once, empty ones to NaN.

    Parameters
    ----------
    model : TwoTowers
        In evaluation mode.
    texts : sequence of str
        Prompts, sentences, sections, impressions or whole reports.
    read : TextCache, optional
        Of the model's text tower, with the folder of what was read before.

    Returns
    -------
    embedding : (n, D) float32, unit length
    n_truncated : int
        Distinct texts longer than the encoder's maximum, or sentences of these.
    """
    distinct = sorted({t for t in texts if t}, key=lambda t: (len(t), t))
    read = read or TextCache(model.encode_text, show=show)
    before = read.n_truncated
    read.numbers(distinct)  # new sentences all at once
    found: dict[str, np.ndarray] = {}
    starts = range(0, len(distinct), batch_size)
    for start in tqdm(starts, desc=desc, mininterval=5, disable=not show):
        part = distinct[start : start + batch_size]
        found.update(zip(part, embed_texts(model, part, read).cpu().numpy(), strict=True))
    out = np.full((len(texts), model.config.text.embedding_size), np.nan, np.float32)
    for i, text in enumerate(texts):
        if text:
            out[i] = found[text]
    return out, read.n_truncated - before


def token_lengths(model: TwoTowers, texts: Sequence[str]) -> dict[str, object]:
    """Tokens of each text before any cut, and the encoder's limit, for JSON: `n` and `limit`.

    A tower that reads sentence by sentence has no limit of its own.
    """
    if not model.reads_tokens:
        tokens, lost = sentence_tokens(list(texts))
        return {"n": [len(t) + int(n) for t, n in zip(tokens, lost, strict=True)], "limit": None}
    _, mask, lost = model.encode_text.tokenize(list(texts))
    return {"n": (mask.sum(1) + lost).tolist(), "limit": model.config.text.max_length}


def study_labels(
    studies: pd.DataFrame,
    codes: pd.DataFrame,
    code_map: dict,
    phecodes: Sequence[str],
    *,
    uncoded: str = "absent",
    rollup: str = "map",
) -> dict[str, np.ndarray]:
    """What embeddings will be judged by: findings that reports state, phecodes, equal texts.

    Parameters
    ----------
    studies : DataFrame
        Of a manifest, with `label_<finding>` columns.
    codes : DataFrame
        `study_id, vocabulary, code`.
    code_map : dict
        From `read_code_map`.
    phecodes : sequence of str
    uncoded : {"absent", "unknown"}
    rollup : {"map", "paper"}
        As in `phecode_labels`.

    Returns
    -------
    dict
        `finding`, `finding_labels`, `phecode_labels` and `text_group` of an `Embeddings`.
    """
    stated = [c for c in studies if c.startswith("label_") and c != "label_map"]
    ids = studies["study_id"].to_numpy(str)
    _, text_group = np.unique(studies["findings"].fillna("").to_numpy(str), return_inverse=True)
    return dict(
        finding=np.array([c.removeprefix("label_") for c in stated]),
        finding_labels=studies[stated].to_numpy(np.float32),
        phecode_labels=phecode_labels(
            codes, ids, code_map, phecodes, uncoded=uncoded, rollup=rollup
        ),
        text_group=text_group,
    )


def encode_prompts(
    model: TwoTowers, read: TextCache | None = None, *, file: str | Path = ""
) -> tuple[dict[str, np.ndarray], str | int]:
    """Prompts, encoded: the `prompt…` arrays of an `Embeddings`, and the name of their bank.

    Parameters
    ----------
    model : TwoTowers
        In evaluation mode.
    read : TextCache, optional
    file : path, optional
        Of the user's, as `prompt_bank` takes it; empty: our own bank.
    """
    rows, version = prompt_bank(file)
    finding, kind, wording, prompt = (np.array(column) for column in zip(*rows, strict=True))
    found, _ = encode_texts(model, prompt, read=read, desc="prompts")
    names = dict(prompt=prompt, prompt_finding=finding, prompt_kind=kind, prompt_wording=wording)
    return names | {"prompt_embedding": found}, version


def encode_for_headlines(
    model: TwoTowers,
    studies: pd.DataFrame,
    volumes: Callable[[int], np.ndarray],
    labels: dict[str, np.ndarray],
    phecodes: Sequence[str],
    *,
    read: TextCache | None = None,
    device: str = "cpu",
    meta: dict | None = None,
) -> Embeddings:
    """Only what zero-shot findings, phenotypes and retrieval need: volumes, findings and prompts.

    For the small runs of a sweep; `03_embeddings` encodes all there is.

    Parameters
    ----------
    model : TwoTowers
        In evaluation mode.
    studies : DataFrame
        Of a manifest.
    volumes : callable
        Index → (R, A, S) float32.
    labels : dict
        From `study_labels`.
    phecodes : sequence of str
    read : TextCache, optional
    meta : dict

    Returns
    -------
    Embeddings
        Other texts count as missing.
    """
    image, logits = encode_images(model, volumes, len(studies), batch_size=32, device=device)
    texts = studies["findings"].fillna("")
    prompts, version = encode_prompts(model, read)
    return Embeddings(
        **{c: studies[c].to_numpy(str) for c in ("study_id", "patient_id", "site", "split")},
        image=image,
        findings=encode_texts(model, texts, read=read, desc="findings")[0],
        phecode_logits=logits,
        phecode=np.array(phecodes),
        **prompts,
        **labels,
        meta={"prompts": version, **(meta or {})},
    )
