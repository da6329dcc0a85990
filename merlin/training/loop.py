"""The pretraining loop: one step is read a batch, two losses, backward, step.

One loop serves every strategy of the paper. A strategy is which texts a step pairs with its volumes,
and how reports and codes are weighted (`multi-task` from the start, or `staged`: codes first, then
reports with the codes' loss turned down). With `report_splitting` every other step contrasts some
anatomical sections, each within itself (`sections_per_step`; 0: none), the others the whole findings;
and every step contrasts the sentences of its reports besides (`sentence_weight`; the paper: 0).
Without, all steps contrast whole findings and nothing else. `normal_share` draws the batch of a
section anew. Both towers learn from the first step.
"""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from merlin.data.extract import abnormal_sections, report_sentences
from merlin.model.cpu import prepare_cpu
from merlin.model.two_towers import TwoTowers
from merlin.streams import Stream, stream_of
from merlin.training import parallel
from merlin.training.checkpoint import (
    announce,
    random_state,
    resume_checkpoint,
    save_checkpoint,
)
from merlin.training.config import (
    CHANGES_NO_STEP,
    TrainingConfig,
    drawn_sections,
    loss_weights,
    schedule,
)
from merlin.training.data import (
    Studies,
    augment,
    balanced_batch,
    batch_indices,
    load_volumes,
)
from merlin.training.losses import TrainingDiverged, phecode_loss
from merlin.training.optimizers import make_optimizer
from merlin.training.texts import TextCache, centre_texts, paired_texts, report_losses
from merlin.training.validation import fixed_part, is_best, judged


def fit(
    model: TwoTowers, train: Studies, val: Studies, config: TrainingConfig, *,
    checkpoint: str | Path, fingerprint: str, seed: int, cache: str | Path | None = None,
    device: str = "cpu", show: bool = True,
    keep_best: Callable[[TwoTowers, list[dict]], None] | None = None,
) -> tuple[list[dict], TextCache]:  # fmt: skip
    """Train a `TwoTowers` model, resuming from `checkpoint` if it belongs to the same run.

    Parameters
    ----------
    model : TwoTowers
        On `device`.
    train, val : Studies
    config : TrainingConfig
    checkpoint : path
        Written every `save_every` steps and after the last.
    fingerprint : str
        Of data and code; the configuration is added here.
    seed : int
    cache : path, optional
        Folder where frozen vectors of sentences are kept.
    device : str
    show : bool
        Progress bar.
    keep_best : callable, optional
        (model, log) after a validation that was the best so far.

    Returns
    -------
    log : list of dict
        One entry per step, with validation where it was made.
    texts : TextCache
        With its count of truncated texts.

    Raises
    ------
    TrainingDiverged
        On a loss that is not finite, naming the step and the study ids of its batch.
    """
    with _sound_bf16(config, device):
        texts = TextCache(model.encode_text, cache, show=show)
        return _fit(
            model, train, val, config, texts, Path(checkpoint), fingerprint, seed, device, show,
            keep_best,
        )  # fmt: skip


@contextmanager
def _sound_bf16(config, device):
    """oneDNN's bf16 convolutions gave wrong weight gradients, some not finite (torch 2.13, AVX-512)."""
    if torch.device(device).type != "cpu" or config.precision != "bf16":
        yield
        return
    before = torch.backends.mkldnn.set_flags(False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before[0])


def _fit(model, train, val, config, texts, path, fingerprint, seed, device, show, keep_best):
    torch.manual_seed(seed)
    prepare_cpu(n_voxels=int(np.prod(model.config.grid_shape)))
    parallel.same_weights(model)
    _read_all(model, train, texts)
    optimizer = make_optimizer(model, config)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=config.precision == "fp16")
    val_texts = None
    if config.n_validation:
        val, val_texts = (
            fixed_part(val, config.n_validation),
            TextCache(model.encode_text, texts.folder),
        )
    abnormal = None if config.normal_share is None else abnormal_sections(train.sections)
    made_by = {k: v for k, v in asdict(config).items() if k not in CHANGES_NO_STEP}
    state = dict(model=model, optimizer=optimizer, scaler=scaler)
    state |= dict(fingerprint=str([fingerprint, seed, made_by]))
    start, log = _resumed(path, state)
    bar = dict(total=config.n_steps, desc="pretraining", mininterval=5, disable=not show)
    progress = tqdm(initial=start, **bar)
    model.train()
    for step in range(start, config.n_steps):
        began = time.perf_counter()
        share = schedule(step, config)
        for group in optimizer.param_groups:
            group["lr"] = group["full_rate"] * share
        index, sections, volume = _batch(train, step, config, abnormal, seed)
        optimizer.zero_grad(set_to_none=True)
        loss, parts, finish = _losses(
            model, train, index, sections, texts, volume.to(device), step, config
        )
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"loss {loss.item()} at step {step} on studies {', '.join(train.study_ids[index])}. "
                f"The last good checkpoint is {path.name}; look at these volumes, or "
                "lower learning_rate."
            )
        scaler.scale(loss).backward()
        finish()
        parallel.average_gradients(trained)
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        model.clamp_logit_scale_(config.max_logit_scale)
        scale = float(model.logit_scale.detach().exp())
        log.append(dict(step=step, loss=loss.item(), **parts))
        log[-1] |= dict(learning_rate=config.learning_rate * share, logit_scale=scale)
        log[-1] |= dict(seconds=time.perf_counter() - began)
        progress.update()
        said = dict(reports=f"{parts['report_loss']:.2f}", codes=f"{parts['ehr_loss']:.3f}")
        progress.set_postfix(**said, refresh=False)
        is_last = step + 1 == config.n_steps
        if is_last or (step + 1) % config.evaluate_every == 0:
            log[-1] |= judged(model, val, val_texts, config, device=device)
            model.train()
            if keep_best and is_best(log):
                keep_best(model, log)
        if is_last or (step + 1) % config.save_every == 0:
            _save(path, step + 1, log, state)
    progress.close()
    return log, texts


def _resumed(path, state):
    """Step and log of the checkpoint there, the same in every process; told where there is one."""
    was_there, rank = path.exists(), parallel.world()[0]
    start, log, note = resume_checkpoint(path, rank=rank, **state)
    if len(starts := set(parallel.everyones(start))) > 1:
        raise RuntimeError(
            f"{path}: the processes of this run would go on from steps {sorted(starts)}. They must see "
            "one folder: put runs/ on a disk that all machines share."
        )
    if was_there and rank == 0:
        announce(path, note)
    return start, log


def _save(path, step, log, state):
    """The first process writes, with what every one would draw next."""
    random = parallel.everyones(random_state())
    if parallel.world()[0] == 0:
        save_checkpoint(path, step=step, log=log, random=random, **state)


def _read_all(model, train, texts):
    """Texts of training numbered in one order: a resumed run adds up its gradients in the same."""
    sentences = (s for t in train.findings for s in report_sentences(t))
    texts.numbers(sorted({t for t in (*train.findings, *train.sections.ravel(), *sentences) if t}))
    centre_texts(model, texts)


def _batch(train, step, config, abnormal, seed):
    """Studies of a step, the sections that it contrasts, and this process's volumes, augmented."""
    index = batch_indices(len(train), config.batch_size, step, seed=seed)
    rng = stream_of(seed, Stream.STEP, step)
    sections = drawn_sections(step, config, train.sections.shape[1], rng)
    if sections is not None and abnormal is not None:
        index = balanced_batch(abnormal[:, sections[0]], index, config.normal_share, rng)
    change = dict(shift_voxels=config.shift_voxels, noise=config.noise, gain=config.gain)
    return index, sections, augment(load_volumes(train, parallel.share(index)), rng, **change)


def _losses(model, train, index, sections, texts, volume, step, config):
    """Weighted loss of a batch, its parts as numbers, and what to call after its backward."""
    kind = volume.device.type
    w_report, w_ehr = loss_weights(step, config)
    with config.autocast(kind):
        image, logits, carry_back = parallel.embed_volumes(model, volume, config.chunk)
        image, logits = parallel.gather(image), parallel.gather(logits)
        report = sentence = image.sum() * 0
        if w_report > 0:
            groups = paired_texts(train, index, sections)
            split = train.findings[index] if config.splits_sentences else ()
            report, sentence = report_losses(
                model, image, groups, texts, findings=split, chunk=config.text_chunk
            )
    labels = torch.as_tensor(train.phecodes[index], dtype=torch.float32, device=volume.device)
    ehr = phecode_loss(logits, labels)

    def finish():
        with config.autocast(kind):
            carry_back()

    parts = dict(report_loss=report.item(), sentence_loss=sentence.item(), ehr_loss=ehr.item())
    text = report + config.sentence_weight * sentence
    return w_report * text + w_ehr * ehr, parts, finish
