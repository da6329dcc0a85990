"""What a training is worth on studies that it does not learn from; no step depends on it.

With codes, the mean AUROC of the phecode head. Where `n_validation` asks for it, also how well reports
and volumes find each other, which needs no code: the contrastive loss in batches as large as training's,
and the share of volumes whose own report is among the nearest.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from merlin.model.two_towers import TwoTowers
from merlin.statistics import metrics
from merlin.training.config import TrainingConfig
from merlin.training.data import Studies, encoded
from merlin.training.losses import contrastive_loss
from merlin.training.texts import TextCache, embed_texts

NEAREST = (1, 5)  # reports among which the own one counts as found


def fixed_part(studies: Studies, n: int) -> Studies:
    """At most `n` studies that have a report, evenly spread over their order: the same at every call."""
    told = np.flatnonzero([bool(t) for t in studies.findings])
    if len(told) > n:
        told = told[np.linspace(0, len(told) - 1, n).round().astype(int)]
    return studies.subset(told)


def judged(
    model: TwoTowers, studies: Studies, texts: TextCache | None, config: TrainingConfig, *,
    device: str = "cpu",
) -> dict[str, float]:  # fmt: skip
    """Columns that a validation adds to a step's row of the log; the model is left in evaluation mode.

    Parameters
    ----------
    model : TwoTowers
    studies : Studies
        Of the validation split, or their `fixed_part`.
    texts : TextCache, optional
        Of this model's text tower and of these studies alone; without, reports are not looked at.
    config : TrainingConfig
        Its precision, batch and chunks are those of training.

    Returns
    -------
    dict
        `val_phecode_auroc`, NaN without two classes of any code; with texts `val_contrastive_loss` (nats,
        ln B for a blind guess in batches of B), `val_recall_1` and `val_recall_5` (shares of volumes, among
        `val_studies` reports).
    """
    kind = torch.device(device).type
    model.eval()
    is_coded = bool(np.isfinite(studies.phecodes).any())
    if not is_coded and texts is None:
        return dict(val_phecode_auroc=math.nan)  # nothing to encode volumes for

    def both(volume: torch.Tensor) -> torch.Tensor:
        return torch.cat(model.embed_volumes(volume)[:2], dim=1)

    at_once = config.chunk or min(32, config.batch_size)
    with config.autocast(kind):
        found = encoded(both, studies, batch_size=at_once, device=device)
    image, logits = found.tensor_split([found.shape[1] - studies.phecodes.shape[1]], dim=1)
    score = _mean_auroc(logits.cpu().numpy(), studies.phecodes) if is_coded else math.nan
    row = dict(val_phecode_auroc=score)
    return row if texts is None else row | _matched(model, image, studies.findings, texts, config)


def _mean_auroc(logits, labels):
    values = metrics.auroc(logits, labels)
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


@torch.no_grad()
def _matched(model, image, findings, texts, config):
    """How volumes and reports find each other."""
    parts = np.array_split(np.arange(len(findings)), -(-len(findings) // config.batch_size))
    text, losses = [], []
    for part in parts:
        said = findings[part].tolist()
        with config.autocast(image.device.type):
            text.append(embed_texts(model, said, texts, chunk=config.text_chunk))
        equal = torch.as_tensor(texts.numbers(said), device=image.device)
        losses.append(contrastive_loss(image[part], text[-1], model.text_scale, equal).item())
    share = recall(image, torch.cat(text), texts.numbers(findings.tolist()))
    sizes = [len(part) for part in parts]
    return dict(
        val_contrastive_loss=float(np.average(losses, weights=sizes)),
        **{f"val_recall_{k}": value for k, value in zip(NEAREST, share, strict=True)},
        val_studies=len(findings),
    )


def recall(
    image: torch.Tensor, text: torch.Tensor, text_ids: np.ndarray, nearest: Sequence[int] = NEAREST
) -> list[float]:
    """Share of volumes whose own text is among the nearest, for each number of them.

    Parameters
    ----------
    image, text : (n, D) float tensor, unit length
    text_ids : (n,) int
        Equal texts are each other's own.

    Returns
    -------
    list of float
        A text as similar as the own one is placed before it: a collapsed model finds nothing.
    """
    similarity = (image.float() @ text.float().T).cpu().numpy()
    same = text_ids[:, None] == text_ids[None, :]
    own = np.where(same, similarity, -np.inf).max(1, keepdims=True)
    before = ((similarity >= own) & ~same).sum(1)
    return [float((before < k).mean()) for k in nearest]


def score(row: dict) -> float | None:
    """What makes one row of a log better than another; None where nothing was judged.

    The contrastive loss on validation where there is one, as the released checkpoint was chosen by its
    name (best_clip), else the AUROC.
    """
    value = (
        -row["val_contrastive_loss"]
        if "val_contrastive_loss" in row
        else row.get("val_phecode_auroc")
    )
    return None if value is None or math.isnan(value) else value


def is_best(log: list[dict]) -> bool:
    """Whether the last row was judged, and better than all before."""
    scores = [score(row) for row in log]
    before = [s for s in scores[:-1] if s is not None]
    return scores[-1] is not None and all(scores[-1] > s for s in before)
