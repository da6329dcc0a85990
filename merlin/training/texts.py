"""Every text goes one way: `embed_texts`, for prompt, sentence, section, impression and whole report.

And the losses between a batch's images and its texts: reports, their sections, their sentences.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from merlin.data.extract import report_sentences
from merlin.model.sentences import SIZE, SentenceEncoder
from merlin.model.text import TextEncoder, clean_report
from merlin.model.two_towers import TwoTowers
from merlin.training import parallel
from merlin.training.data import Studies
from merlin.training.losses import contrastive_loss, membership_loss
from merlin.training.sentence_file import read_sentences


class TextCache:
    """What a text tower reads of each text, made once: tokens, or vectors of its sentences.

    Parameters
    ----------
    encoder : SentenceEncoder or TextEncoder
    folder : path, optional
        Where vectors of sentences are kept from one process to the next.
    show : bool
        Progress bar while new sentences are read.
    """

    def __init__(
        self, encoder: SentenceEncoder | TextEncoder, folder: str | Path | None = None, *,
        show: bool = False,
    ):  # fmt: skip
        self._encoder: Any = encoder
        self._by_sentence = isinstance(encoder, SentenceEncoder)
        self.folder, self._show = folder, show
        self._number: dict[str, int] = {}
        self._rows: list[torch.Tensor] = []  # of each text: its tokens, or which sentences
        self._sentence: dict[str, int] = {}
        self._vectors = torch.empty(0, SIZE)
        self.n_truncated = self.n_lost_tokens = 0

    def numbers(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) int: equal texts get equal numbers."""
        new = list(dict.fromkeys(t for t in texts if t not in self._number))
        rows = self._split(new) if self._by_sentence else self._tokenise(new)
        for text, row in zip(new, rows, strict=True):
            self._number[text] = len(self._rows)
            self._rows.append(row)
        return np.array([self._number[t] for t in texts], dtype=int)

    def _count(self, lost):
        self.n_truncated += int((lost > 0).sum())
        self.n_lost_tokens += int(lost.sum())

    def _tokenise(self, texts):
        rows = []
        for start in range(0, len(texts), 512):
            ids, mask, lost = self._encoder.tokenize(texts[start : start + 512])
            rows += [row[: int(kept)].clone() for row, kept in zip(ids, mask.sum(1), strict=True)]
            self._count(lost)
        return rows

    def _split(self, texts):
        cleaning = self._encoder.config.cleaning
        # A text without a sentence, as a number alone, is one.
        split = [[clean_report(s, cleaning) for s in report_sentences(t) or (t,)] for t in texts]
        new = list(dict.fromkeys(s for row in split for s in row if s not in self._sentence))
        if new:
            vectors, lost = read_sentences(new, self.folder, show=self._show)
            self._sentence |= {s: len(self._vectors) + i for i, s in enumerate(new)}
            self._vectors = torch.cat([self._vectors, torch.from_numpy(vectors)])
            self._count(lost)
        # A set: a sentence that cleaning made equal to another counts once.
        return [torch.tensor(sorted({self._sentence[s] for s in row})) for row in split]

    def batch(self, numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """What `TwoTowers.embed_read` takes of the given texts."""
        rows = [self._rows[n] for n in numbers]
        if self._by_sentence:
            used, column = torch.cat(rows).unique(return_inverse=True)
            member = torch.zeros(len(rows), len(used))
            lengths = torch.tensor([len(r) for r in rows])
            member[torch.arange(len(rows)).repeat_interleave(lengths), column] = 1
            return self._vectors[used], member
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(r) for r in rows])
        return ids, (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()

    def centre(self) -> torch.Tensor:
        """(384,) mean vector of all sentences read so far."""
        return self._vectors.mean(0)


def centre_texts(model: TwoTowers, texts: TextCache) -> None:
    """Set the centre of a tower over sentences to the mean of those read so far."""
    if not model.reads_tokens:
        model.encode_text.centre.copy_(texts.centre())


def on(tensor: torch.Tensor, numbers: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Numbers as a tensor on another one's device."""
    return torch.as_tensor(numbers, device=tensor.device)


def embed_texts(
    model: TwoTowers, texts: Sequence[str], read: TextCache | None = None, *, chunk: int = 0
) -> torch.Tensor:
    """Texts of any kind as unit vectors; the one way in training and in judging.

    Parameters
    ----------
    model : TwoTowers
    texts : sequence of str
        None empty.
    read : TextCache, optional
        Of this model's text tower, where texts come again.
    chunk : int
        Tokenised texts whose activations are held at a time; 0: all.

    Returns
    -------
    (n, D) float tensor
        On the model's device; each distinct text was encoded once.
    """
    read = read or TextCache(model.encode_text)
    unique, where = np.unique(read.numbers(texts), return_inverse=True)
    first, second = (t.to(model.logit_scale.device) for t in read.batch(unique))
    found = parallel.embed_texts(model, first, second, chunk)
    # index_select, not []: the backward of indexing adds up in whatever order threads finish.
    return found.index_select(0, on(found, where))


def paired_texts(studies: Studies, index: np.ndarray, sections: np.ndarray | None) -> list:
    """Texts of a batch, in groups that are contrasted apart: whole findings, or some sections."""
    if sections is None:
        return [studies.findings[index]]
    return [studies.sections[index, s] for s in sections]


def report_losses(
    model: TwoTowers, image: torch.Tensor, groups: list[np.ndarray], texts: TextCache, *,
    findings: Sequence[str] | np.ndarray = (), chunk: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Losses of images against their texts, and against the sentences of their reports.

    Every distinct text is encoded once for both. Empty texts sit out, and studies without a sentence.

    Parameters
    ----------
    image : (B, D) float tensor, unit length
    groups : list of (B,) str arrays
        From `paired_texts`; each is contrasted within itself, so that a section never competes with
        another organ's text.
    texts : TextCache
    findings : (B,) str
        Findings texts that are split into sentences; empty: none is.
    chunk : int
        Texts encoded at a time; 0: all.

    Returns
    -------
    by_text : scalar tensor
        Mean of the groups' InfoNCE.
    by_sentence : scalar tensor
        The membership loss: a sentence belongs to every study of the batch whose report holds it.
    """
    has_text = [np.array([bool(t) for t in group]) for group in groups]
    said = [g[h].tolist() for g, h in zip(groups, has_text, strict=True)]
    names, member = sentence_membership(findings)
    flat = [*names, *(t for group in said for t in group)]
    by_sentence, losses = image.sum() * 0, [image.sum() * 0]
    if not flat:
        return losses[0], by_sentence
    embedded = embed_texts(model, flat, texts, chunk=chunk)
    of_names, *parts = embedded.split([len(names), *map(len, said)])
    rows = member.sum(1).nonzero().flatten()
    if len(rows) > 1:
        own, member = image.index_select(0, on(image, rows)), member[rows].to(image.device)
        by_sentence = membership_loss(own, of_names, model.logit_scale, member)
    losses = []
    for group, keep, part in zip(said, has_text, parts, strict=True):
        own = image.index_select(0, on(image, np.flatnonzero(keep)))
        equal = on(image, texts.numbers(group))
        enough = len(group) > 1
        loss = contrastive_loss(own, part, model.text_scale, equal) if enough else own.sum() * 0
        losses.append(loss)
    return torch.stack(losses).mean(), by_sentence


def sentence_membership(findings: Sequence[str] | np.ndarray) -> tuple[list[str], torch.Tensor]:
    """Distinct sentences of some reports, in order, and which report holds which: (B, s), 1 or 0."""
    rows = [report_sentences(t) for t in findings]
    names = sorted({s for row in rows for s in row})
    column = {s: i for i, s in enumerate(names)}
    member = torch.zeros(len(rows), len(names))
    for to, row in zip(member, rows, strict=True):
        to[[column[s] for s in row]] = 1
    return names, member
