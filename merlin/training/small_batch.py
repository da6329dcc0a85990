"""A few studies as plain numbers: enough to show a contrastive loss at work in a loop of fifteen lines."""

import re

import numpy as np
import torch
from torch.nn import functional as F

from merlin.training.data import Studies, load_volumes


def volumes_and_words(studies: Studies, n: int, *, cells: int = 6) -> tuple[torch.Tensor, ...]:
    """The first studies, each volume as means over coarse cells, each report as the words it holds.

    Parameters
    ----------
    studies : Studies
    n : int
        Studies, or all where there are fewer.
    cells : int
        Along each axis.

    Returns
    -------
    volumes : (n, cells³) float32
    words : (n, n_words) float32
        Of words in at least two reports; both are standardised over the studies.
    """
    n = min(n, len(studies))
    pooled = [
        F.adaptive_avg_pool3d(load_volumes(studies, np.array([i])), cells).flatten()
        for i in range(n)
    ]
    held = [set(re.findall(r"[a-z]+", text.lower())) for text in studies.findings[:n]]
    counts: dict[str, int] = {}
    for words in held:
        for word in words:
            counts[word] = counts.get(word, 0) + 1
    known = sorted(w for w, c in counts.items() if c > 1)
    said = torch.tensor([[float(w in words) for w in known] for words in held])
    return _standardised(torch.stack(pooled)), _standardised(said)


def _standardised(rows: torch.Tensor) -> torch.Tensor:
    spread = rows.std(0)
    return (rows - rows.mean(0)) / torch.where(spread > 0, spread, torch.ones(()))


def share_found(volumes: torch.Tensor, texts: torch.Tensor) -> float:
    """Of volumes whose own text is the most similar one."""
    nearest = (volumes @ texts.T).argmax(1).numpy()
    return float(np.mean(nearest == np.arange(len(nearest))))
