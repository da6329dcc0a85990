"""Losses between a batch's images and its texts: whole findings, sections, or sentences."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from merlin.data.extract import report_sentences
from merlin.model.text import TextEncoder
from merlin.model.two_towers import TwoTowers
from merlin.training import parallel
from merlin.training.data import Studies
from merlin.training.losses import contrastive_loss, membership_loss


class TokenCache:
    """Tokenised texts, each made once; equal texts share a number."""

    def __init__(self, encoder: TextEncoder):
        self._encoder = encoder
        self._number: dict[str, int] = {}
        self._tokens: list[torch.Tensor] = []
        self.n_truncated = self.n_lost_tokens = 0

    def numbers(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) int: equal texts get equal numbers."""
        new = list(dict.fromkeys(t for t in texts if t not in self._number))
        for start in range(0, len(new), 512):
            part = new[start : start + 512]
            ids, mask, lost = self._encoder.tokenize(part)
            for text, row, kept in zip(part, ids, mask.sum(1), strict=True):
                self._number[text] = len(self._tokens)
                self._tokens.append(row[: int(kept)].clone())
            self.n_truncated += int((lost > 0).sum())
            self.n_lost_tokens += int(lost.sum())
        return np.array([self._number[t] for t in texts], dtype=int)

    def batch(self, numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded (n, length) input ids and attention mask of the given texts."""
        rows = [self._tokens[n] for n in numbers]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(r) for r in rows])
        return ids, (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()


def on(tensor: torch.Tensor, numbers: np.ndarray | list[int]) -> torch.Tensor:
    """Numbers as a tensor on another one's device."""
    return torch.as_tensor(numbers, device=tensor.device)


def report_loss(
    model: TwoTowers, image: torch.Tensor, studies: Studies, index: np.ndarray, texts: TokenCache,
    sections: np.ndarray | None, *, chunk: int = 0,
) -> torch.Tensor:  # fmt: skip
    """InfoNCE of a batch against its texts: whole findings, or some anatomical sections.

    Each section is contrasted within itself, so that it never competes with another organ's text.
    Studies whose report lacks a section sit out.
    """
    if sections is None:
        groups = [studies.findings[index]]
    else:
        groups = [studies.sections[index, s] for s in sections]
    return text_loss(model, image, groups, texts, chunk=chunk)


def text_loss(
    model: TwoTowers, image: torch.Tensor, groups: list[np.ndarray], texts: TokenCache, *,
    chunk: int = 0,
) -> torch.Tensor:  # fmt: skip
    """Mean InfoNCE of image embeddings against each group of texts; empty texts sit out.

    Parameters
    ----------
    image : (B, D) float tensor, unit length
    groups : list of (B,) str arrays
        Contrasted apart from one another; every distinct text is encoded once.
    texts : TokenCache
    chunk : int
        Texts encoded at a time; 0: all.
    """
    has_text = [np.array([bool(t) for t in group]) for group in groups]
    numbers = [texts.numbers(g[h].tolist()) for g, h in zip(groups, has_text, strict=True)]
    unique, where = np.unique(np.concatenate(numbers), return_inverse=True)
    if len(unique) == 0:
        return image.sum() * 0
    ids, mask = (t.to(image.device) for t in texts.batch(unique))
    # index_select, not []: the backward of indexing adds up in whatever order threads finish.
    embedded = parallel.embed_texts(model, ids, mask, chunk).index_select(0, on(image, where))
    losses = []
    parts = embedded.split([len(n) for n in numbers])
    for equal, keep, part in zip(numbers, has_text, parts, strict=True):
        if len(equal) < 2:
            losses.append(image.sum() * 0)
            continue
        rows = image.index_select(0, on(image, np.flatnonzero(keep)))
        losses.append(contrastive_loss(rows, part, model.logit_scale, on(image, equal)))
    return torch.stack(losses).mean()


def sentence_losses(
    model: TwoTowers, image: torch.Tensor, findings: np.ndarray, texts: TokenCache,
    report_scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """InfoNCE of images against the sentences of their reports, one by one and summed.

    Parameters
    ----------
    image : (B, D) float tensor, unit length
    findings : (B,) str array
        Findings texts; studies without one sit out.
    texts : TokenCache
    report_scale : scalar tensor
        Logarithm of the inverse temperature of whole reports.

    Returns
    -------
    by_sentence : scalar tensor
        The membership loss: a sentence belongs to every study whose report holds it.
    by_report : scalar tensor
        Symmetric InfoNCE of images and reports; a report is the sum of its sentences' vectors.
    """
    rows = [report_sentences(t) for t in findings]
    keep = [i for i, row in enumerate(rows) if row]
    if len(keep) < 2:
        return image.sum() * 0, image.sum() * 0
    names = sorted({s for row in rows for s in row})
    column = {s: i for i, s in enumerate(names)}
    member = torch.zeros(len(keep), len(names))
    for row, i in enumerate(keep):
        member[row, [column[s] for s in rows[i]]] = 1
    member = member.to(image.device)
    ids, mask = (t.to(image.device) for t in texts.batch(texts.numbers(names)))
    vectors = model.embed_tokens(ids, mask)
    image = image.index_select(0, on(image, keep))
    equal = np.unique(findings[keep].astype(str), return_inverse=True)[1]
    reports = F.normalize(member @ vectors, dim=1)
    by_report = contrastive_loss(image, reports, report_scale, on(image, equal))
    return membership_loss(image, vectors, model.logit_scale, member), by_report
