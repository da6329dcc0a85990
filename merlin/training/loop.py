"""The pretraining loop: one step is read a batch, two losses, backward, step.

One loop serves every strategy of the paper. A strategy is which texts a step pairs with its volumes
(the whole findings, or anatomical sections on every other step) and how the two losses are weighted
(`multi-task` from the start, or `staged`: codes first, then reports with the codes' loss turned
down). Hyper-parameters of the paper and where they stand are in `PAPER`.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from merlin.data.extract import abnormal_sections, report_sentences
from merlin.model.cpu import prepare_cpu
from merlin.statistics import metrics
from merlin.training import parallel
from merlin.training.checkpoint import resume_checkpoint, save_checkpoint
from merlin.training.data import augment, balanced_batch, batch_indices, load_volumes
from merlin.training.losses import contrastive_loss, membership_loss, phecode_loss

# Values with a source (paper_facts §4); what the sources leave open is None.
PAPER = dict(
    learning_rate=1e-5,
    betas=(0.9, 0.999),
    n_epochs=300,
    batch_size=18,
    precision="fp16",
    weight_decay=None,
    warmup_steps=None,
    ehr_weight=None,
)


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. Defaults are ours where `PAPER` has none."""

    n_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 40
    clip_norm: float = 1.0
    strategy: str = "multi-task"
    supervision: str = "both"
    report_splitting: bool = True
    sections_per_step: int = 1  # the paper's steps see one section
    # Of studies in a section's batch whose text there is normal; None: as they come. Tried by an
    # independent reproduction (arXiv 2604.13561), which lost by it.
    normal_share: float | None = None
    ehr_weight: float = 1.0
    stage_one_share: float = 0.4  # of the steps, with strategy="staged"
    stage_two_ehr_weight: float = 0.1  # factor on ehr_weight
    shift_voxels: int = 0
    noise: float = 0.0
    gain: float = 0.0
    precision: str = "fp32"
    chunk: int = 0  # volumes encoded at a time (`parallel`); 0: the whole batch
    text_chunk: int = 0  # texts likewise; dropout is drawn in another order
    save_every: int = 200
    evaluate_every: int = 200
    align_steps: int = 0  # steps of `align` after the last; the paper has none
    align_batch_size: int = 64
    align_learning_rate: float = 2e-3
    align_warmup_steps: int = 40
    # Strong: the features know the training studies, and unrestrained heads grow too sure of them
    # and call findings too seldom elsewhere.
    align_weight_decay: float = 0.7
    align_fresh: bool = True  # text tower and contrastive head start again, from random weights

    def __post_init__(self):
        for name, allowed in (
            ("strategy", ("multi-task", "staged")),
            ("supervision", ("both", "ehr", "reports")),
            ("precision", ("fp32", "bf16", "fp16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}")
        if self.normal_share is not None and not 0 <= self.normal_share <= 1:
            raise ValueError(f"normal_share must be in [0, 1] or None; got {self.normal_share}")


class TrainingDiverged(RuntimeError):
    """The loss is not finite; the last checkpoint is untouched."""


class TokenCache:
    """Tokenised texts, each made once; equal texts share a number."""

    def __init__(self, encoder):
        self._encoder, self._number, self._tokens = encoder, {}, []
        self.n_truncated = self.n_lost_tokens = 0

    def numbers(self, texts):
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

    def batch(self, numbers):
        """Padded (n, length) input ids and attention mask of the given texts."""
        rows = [self._tokens[n] for n in numbers]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(r) for r in rows])
        return ids, (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()


def fit(model, train, val, config, *, checkpoint, fingerprint, seed, device="cpu", show=True):
    """Train a `TwoTowers` model, resuming from `checkpoint` if it belongs to the same run.

    Parameters
    ----------
    model : TwoTowers
        On `device`.
    train, val : Studies
    config : TrainingConfig
    checkpoint : path
        Written every `save_every` steps and after the last; alignment is not in it.
    fingerprint : str
        Of data and code; the configuration is added here.
    seed : int
    device : str
    show : bool
        Progress bar.

    Returns
    -------
    log : list of dict
        One entry per step, with validation where it was made.
    texts : TokenCache
        With its count of truncated texts.

    Raises
    ------
    TrainingDiverged
        On a loss that is not finite, naming the step and the study ids of its batch.
    """
    how = dict(checkpoint=checkpoint, fingerprint=fingerprint, seed=seed, device=device, show=show)
    if torch.device(device).type == "cpu" and config.precision == "bf16":
        # oneDNN's bf16 convolutions gave wrong weight gradients, some not finite (torch 2.13, AVX-512).
        before = torch.backends.mkldnn.set_flags(False)
        try:
            return _fit(model, train, val, config, **how)
        finally:
            torch.backends.mkldnn.set_flags(before[0])
    return _fit(model, train, val, config, **how)


def _fit(model, train, val, config, *, checkpoint, fingerprint, seed, device, show):
    torch.manual_seed(seed)
    prepare_cpu(n_voxels=int(np.prod(model.config.grid_shape)))
    kind = torch.device(device).type
    parallel.same_weights(model)
    texts = TokenCache(model.encode_text)
    decay = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [dict(params=decay, weight_decay=config.weight_decay), dict(params=rest, weight_decay=0.0)],
        lr=config.learning_rate,
        betas=tuple(config.betas),
    )
    scaler = torch.amp.GradScaler(kind, enabled=config.precision == "fp16")
    # Numbered in one order now, so that a resumed run adds up its gradients in the same order.
    texts.numbers(sorted({t for t in (*train.findings, *train.sections.ravel()) if t}))
    abnormal = None if config.normal_share is None else abnormal_sections(train.sections)
    # How often to save changes no step, and alignment comes after the last one: neither is part of
    # what makes a checkpoint, so that another alignment does not train again.
    made_by = {k: v for k, v in asdict(config).items() if not k.startswith(("save_", "align_"))}
    mark = str([fingerprint, seed, made_by])
    start, log, note = resume_checkpoint(
        checkpoint, model=model, optimizer=optimizer, scaler=scaler, fingerprint=mark
    )
    progress = tqdm(
        total=config.n_steps, initial=start, desc="pretraining", mininterval=5, disable=not show
    )
    progress.write(note)
    model.train()
    for step in range(start, config.n_steps):
        began = time.perf_counter()
        rate = learning_rate(step, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        index = batch_indices(len(train), config.batch_size, step, seed=seed)
        rng = np.random.default_rng([seed, 3, step])
        sections = drawn_sections(step, config, train.sections.shape[1], rng)
        if sections is not None and abnormal is not None:
            index = balanced_batch(abnormal[:, sections[0]], index, config.normal_share, rng)
        volume = augment(
            load_volumes(train, parallel.share(index)),
            rng,
            shift_voxels=config.shift_voxels,
            noise=config.noise,
            gain=config.gain,
        ).to(device)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, _dtype(config), enabled=config.precision != "fp32"):
            image, logits, finish = parallel.embed_volumes(model, volume, config.chunk)
            image, logits = parallel.gather(image), parallel.gather(logits)
            report = image.sum() * 0
            if loss_weights(step, config)[0] > 0:
                report = report_loss(
                    model, image, train, index, texts, sections, chunk=config.text_chunk
                )
        labels = torch.as_tensor(train.phecodes[index], dtype=torch.float32, device=device)
        ehr = phecode_loss(logits, labels)
        w_report, w_ehr = loss_weights(step, config)
        loss = w_report * report + w_ehr * ehr
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"loss {loss.item()} at step {step} on studies {', '.join(train.study_ids[index])}. "
                f"The last good checkpoint is {Path(checkpoint).name}; look at these volumes, or "
                "lower learning_rate."
            )
        scaler.scale(loss).backward()
        with torch.autocast(kind, _dtype(config), enabled=config.precision != "fp32"):
            finish()
        parallel.average_gradients(decay + rest)
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(decay + rest, config.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        model.clamp_logit_scale_()
        log.append(
            dict(
                step=step,
                phase="pretrain",
                loss=loss.item(),
                report_loss=report.item(),
                ehr_loss=ehr.item(),
                learning_rate=rate,
                logit_scale=float(model.logit_scale.detach().exp()),
                seconds=time.perf_counter() - began,
            )
        )
        progress.update()
        progress.set_postfix(
            reports=f"{report.item():.2f}", codes=f"{ehr.item():.3f}", refresh=False
        )
        is_last = step + 1 == config.n_steps
        if is_last or (step + 1) % config.evaluate_every == 0:
            at_once = config.chunk or min(32, config.batch_size)
            log[-1]["val_phecode_auroc"] = validate(model, val, device=device, batch_size=at_once)
            model.train()
        if parallel.world()[0] == 0 and (is_last or (step + 1) % config.save_every == 0):
            save_checkpoint(
                checkpoint,
                model=model,
                optimizer=optimizer,
                scaler=scaler,
                step=step + 1,
                log=log,
                fingerprint=mark,
            )
    progress.close()
    if config.align_steps:
        log += align(model, train, texts, config, seed=seed, device=device, show=show)
    return log, texts


def align(model, studies, texts, config, *, seed, device="cpu", show=True):
    """Fit the contrastive head and the text tower to the finished image features, in large batches.

    A volume costs a hundred times what a sentence costs, so with small batches the texts see few
    negatives. Here every volume is encoded once, the image features stay as they are (as in
    locked-image tuning, arXiv 2111.07991), and a step contrasts dozens of studies with every
    sentence of their reports, twice: sentence by sentence, which is what a prompt is, and report by
    report, a report being the sum of its sentences. Not in the paper; an option of ours.

    A killed alignment starts over from the end of pretraining, with the same result.

    Returns
    -------
    list of dict
        Log entries, `phase` is `align`.
    """
    model.eval()
    with torch.no_grad():
        parts = np.array_split(np.arange(len(studies)), -(-len(studies) // 32))
        volumes = (load_volumes(studies, part).to(device) for part in parts)
        features = torch.cat([model.encode_image.embed(v) for v in volumes])
    torch.manual_seed(seed + 1)
    if config.align_fresh:
        fresh = type(model)(model.config).to(device)
        start = {k: v for k, v in fresh.state_dict().items() if _is_aligned(k)}
        model.load_state_dict(start, strict=False)
    model.train()
    model.encode_image.eval()  # its batch statistics are those of pretraining
    report_scale = torch.nn.Parameter(torch.tensor(np.log(20.0), dtype=torch.float32).to(device))
    with torch.no_grad():
        model.logit_scale.fill_(np.log(30.0))
    trained = [p for n, p in model.named_parameters() if p.requires_grad and _is_aligned(n)]
    trained.append(report_scale)
    optimizer = torch.optim.AdamW(
        trained,
        lr=config.align_learning_rate,
        betas=tuple(config.betas),
        weight_decay=config.align_weight_decay,
    )
    log = []
    for step in tqdm(range(config.align_steps), desc="aligning", mininterval=5, disable=not show):
        began = time.perf_counter()
        rng = np.random.default_rng([seed, 4, step])
        index = rng.choice(len(studies), min(len(studies), config.align_batch_size), replace=False)
        warm = min((step + 1) / config.align_warmup_steps, 1.0)
        cosine = 0.5 * (1 + np.cos(np.pi * step / config.align_steps))
        for group in optimizer.param_groups:
            group["lr"] = config.align_learning_rate * warm * cosine
        image = F.normalize(model.encode_image.contrastive(features[index]).float(), dim=1)
        if config.report_splitting:
            by_sentence, by_report = sentence_losses(
                model, image, studies.findings[index], texts, report_scale
            )
            loss = by_sentence + by_report
        else:  # whole findings, as that strategy pairs them
            loss = by_report = text_loss(model, image, [studies.findings[index]], texts)
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
                step=config.n_steps + step,
                phase="align",
                loss=loss.item(),
                report_loss=by_report.item(),
                logit_scale=float(model.logit_scale.detach().exp()),
                seconds=time.perf_counter() - began,
            )
        )
    return log


def sentence_losses(model, image, findings, texts, report_scale):
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
    tokens = (t.to(image.device) for t in texts.batch(texts.numbers(names)))
    vectors = model.embed_tokens(*tokens)
    image = image.index_select(0, torch.tensor(keep, device=image.device))
    equal = torch.from_numpy(np.unique(findings[keep].astype(str), return_inverse=True)[1])
    by_report = contrastive_loss(
        image, F.normalize(member @ vectors, dim=1), report_scale, equal.to(image.device)
    )
    return membership_loss(image, vectors, model.logit_scale, member), by_report


def _is_aligned(name):
    return name.startswith("encode_text.") or name.endswith("logit_scale") or "_head." in name


def learning_rate(step, config):
    """Linear warm-up, then cosine to zero."""
    warm = min((step + 1) / max(config.warmup_steps, 1), 1.0)
    return float(config.learning_rate * warm * 0.5 * (1 + np.cos(np.pi * step / config.n_steps)))


def loss_weights(step, config):
    """Weights of the report and the code loss at a step."""
    if config.supervision == "ehr":
        return 0.0, config.ehr_weight
    if config.supervision == "reports":
        return 1.0, 0.0
    if config.strategy == "staged":
        if step < config.stage_one_share * config.n_steps:
            return 0.0, config.ehr_weight
        return 1.0, config.ehr_weight * config.stage_two_ehr_weight
    return 1.0, config.ehr_weight


def drawn_sections(step, config, n_sections, rng):
    """Sections that a step contrasts, on every other step with report splitting; else None."""
    if not config.report_splitting or step % 2 == 0:
        return None
    return rng.choice(n_sections, min(config.sections_per_step, n_sections), replace=False)


def report_loss(model, image, studies, index, texts, sections, *, chunk=0):
    """InfoNCE of a batch against its texts: whole findings, or some anatomical sections.

    Each section is contrasted within itself, so that it never competes with another organ's text.
    Studies whose report lacks a section sit out.
    """
    if sections is None:
        groups = [studies.findings[index]]
    else:
        groups = [studies.sections[index, s] for s in sections]
    return text_loss(model, image, groups, texts, chunk=chunk)


def text_loss(model, image, groups, texts, *, chunk=0):
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
    tokens = (t.to(image.device) for t in texts.batch(unique))
    # index_select, not []: the backward of indexing adds up in whatever order threads finish.
    embedded = parallel.embed_texts(model, *tokens, chunk).index_select(
        0, torch.as_tensor(where, device=image.device)
    )
    losses = []
    for ids, keep, part in zip(
        numbers, has_text, embedded.split([len(n) for n in numbers]), strict=True
    ):
        if len(ids) < 2:
            losses.append(image.sum() * 0)
            continue
        rows = image.index_select(0, torch.as_tensor(np.flatnonzero(keep), device=image.device))
        losses.append(
            contrastive_loss(
                rows, part, model.logit_scale, torch.as_tensor(ids, device=image.device)
            )
        )
    return torch.stack(losses).mean()


@torch.no_grad()
def validate(model, studies, *, device="cpu", batch_size=32):
    """Mean AUROC of the phecode head over phecodes with both classes, on unaugmented volumes."""
    model.eval()
    logits = [
        model.embed_volumes(load_volumes(studies, part).to(device))[1].cpu().numpy()
        for part in np.array_split(np.arange(len(studies)), -(-len(studies) // batch_size))
    ]
    values = metrics.auroc(np.concatenate(logits), studies.phecodes)
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _dtype(config):
    return torch.bfloat16 if config.precision == "bf16" else torch.float16
