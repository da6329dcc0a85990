"""After pretraining: text tower and contrastive head fitted to the finished image features."""

import time

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from merlin.model.two_towers import TwoTowers
from merlin.streams import Stream, stream_of
from merlin.training.config import TrainingConfig, warm_cosine
from merlin.training.data import Studies, encoded
from merlin.training.losses import TrainingDiverged
from merlin.training.texts import TextCache, centre_texts, report_losses


def align(
    model: TwoTowers, studies: Studies, texts: TextCache, config: TrainingConfig, *, seed: int,
    device: str = "cpu", show: bool = True,
) -> list[dict]:  # fmt: skip
    """Fit the contrastive head and the text tower to the finished image features, in large batches.

    A volume costs a hundred times what a sentence costs, so with small batches the texts see few
    negatives. Here every volume is encoded once, the image features stay as they are (as in
    locked-image tuning, arXiv 2111.07991), and a step contrasts dozens of studies with their reports
    and, where reports are split, with every sentence of these. Not in the paper; an option of ours,
    which sharpens a text tower for words that reports use, at the cost of those that none uses.

    A killed alignment starts over from the end of pretraining, with the same result.

    Returns
    -------
    list of dict
        Log entries, `phase` is `align`.
    """
    model.eval()
    features = encoded(model.encode_image.embed, studies, batch_size=32, device=device)
    trained = _start(model, texts, config, seed, device)
    optimizer = torch.optim.AdamW(
        trained, lr=config.align_learning_rate, betas=(config.betas[0], config.betas[1]),
        weight_decay=config.align_weight_decay,
    )  # fmt: skip
    log = []
    for step in tqdm(range(config.align_steps), desc="aligning", mininterval=5, disable=not show):
        began = time.perf_counter()
        rng = stream_of(seed, Stream.ALIGNMENT, step)
        index = rng.choice(len(studies), min(len(studies), config.align_batch_size), replace=False)
        rate = config.align_learning_rate
        for group in optimizer.param_groups:
            group["lr"] = warm_cosine(rate, step, config.align_steps, config.align_warmup_steps)
        image = F.normalize(model.encode_image.contrastive(features[index]).float(), dim=1)
        findings = studies.findings[index]
        split = findings if config.report_splitting else ()
        by_report, by_sentence = report_losses(model, image, [findings], texts, findings=split)
        loss = by_report + by_sentence
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"loss {loss.item()} at alignment step {step}; lower align_learning_rate."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
        optimizer.step()
        model.clamp_logit_scale_()
        log.append(
            dict(
                step=config.n_steps + step, phase="align", loss=loss.item(),
                report_loss=by_report.item(), sentence_loss=by_sentence.item(),
                logit_scale=float(model.logit_scale.detach().exp()), seconds=time.perf_counter() - began,
            )
        )  # fmt: skip
    return log


def _start(model, texts, config, seed, device):
    """All that alignment trains, set to where it begins."""
    torch.manual_seed(seed + 1)
    if config.align_fresh:
        fresh = type(model)(model.config).to(device)
        start = {k: v for k, v in fresh.state_dict().items() if is_aligned(k)}
        model.load_state_dict(start, strict=False)
        centre_texts(model, texts)
    model.train()
    model.encode_image.eval()  # its batch statistics are those of pretraining
    with torch.no_grad():
        model.text_scale.fill_(np.log(20.0))
        model.logit_scale.fill_(np.log(30.0))
    return [p for n, p in model.named_parameters() if p.requires_grad and is_aligned(n)]


def is_aligned(name: str) -> bool:
    """Whether alignment trains a parameter of that name."""
    return name.startswith("encode_text.") or name.endswith("logit_scale") or "_head." in name
