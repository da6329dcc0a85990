"""The two pretraining losses: symmetric InfoNCE over pairs, and masked BCE over phecodes."""

import torch
from torch import Tensor
from torch.nn import functional as F


class TrainingDiverged(RuntimeError):
    """The loss is not finite; the last checkpoint is untouched."""


def contrastive_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Tensor, text_ids: Tensor
) -> Tensor:
    """Symmetric InfoNCE in which equal texts are positives of each other.

    "Normal." belongs to every normal spleen of the batch: each row's target is spread evenly over the
    texts equal to its own. Where equal texts have equal embeddings, as here, that is CLIP's loss to the
    last digits: a target shared among equal logits costs what it costs on one of them, and either way no
    volume can be told from another by a text of both.

    Parameters
    ----------
    image_embeddings, text_embeddings : (B, D) float, unit length
    logit_scale : scalar tensor
        Logarithm of the inverse temperature.
    text_ids : (B,) int
        Equal numbers mean equal texts.

    Returns
    -------
    scalar tensor
        Mean of the image-to-text and text-to-image cross-entropies, in nats.
    """
    logits = _logits(image_embeddings, text_embeddings, logit_scale)
    same = (text_ids[:, None] == text_ids[None, :]).to(logits.dtype)
    targets = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets))


def _logits(image: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """(B, T) similarities over the temperature, in single precision at least, also under autocast.

    In half precision their rounding, times a scale of 100, is a third of a gradient.
    """
    with torch.autocast(image.device.type, enabled=False):
        return logit_scale.exp() * _whole(image) @ _whole(text).T


def _whole(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def membership_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Tensor, member: Tensor
) -> Tensor:
    """InfoNCE in which a text may belong to several images and an image to several texts.

    A sentence is true of every study whose report holds it; contrasting it with all but one of them
    teaches noise. Each row's target is spread over its members. Frequent texts would win by being
    frequent, so their number is added to the logits as a prior: what is learned is how much more
    likely a text is for an image than for any, and zero keeps its meaning for prompts.

    Parameters
    ----------
    image_embeddings : (B, D) float, unit length
    text_embeddings : (T, D) float, unit length
    logit_scale : scalar tensor
    member : (B, T) float
        1 where the text belongs to the image; every row and column holds at least one.

    Returns
    -------
    scalar tensor
        With exactly one text an image and all different, CLIP's loss.
    """
    logits = _logits(image_embeddings, text_embeddings, logit_scale)
    per_image, per_text = member.sum(1, keepdim=True), member.sum(0, keepdim=True)
    to_text = F.cross_entropy(logits + per_text.log(), member / per_image)
    to_image = F.cross_entropy(logits.T + per_image.T.log(), (member / per_text).T)
    return 0.5 * (to_text + to_image)


def phecode_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy over known phecode labels.

    Parameters
    ----------
    logits : (B, n_phecodes)
    labels : (B, n_phecodes)
        1, 0, or NaN where unknown; NaN takes no part.

    Returns
    -------
    scalar tensor
        Mean over known labels, in nats; zero where nothing is known.
    """
    known, logits = ~torch.isnan(labels), _whole(logits)
    loss = F.binary_cross_entropy_with_logits(
        logits, torch.where(known, labels, torch.zeros_like(labels)), reduction="none"
    )
    return (loss * known).sum() / known.sum().clamp(min=1)
