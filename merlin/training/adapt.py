"""One short loop for adapting a network: any loss, AdamW with warm-up and cosine, or nnU-Net's SGD."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from merlin.data.preprocess import Grid
from merlin.model.cpu import prepare_cpu
from merlin.streams import Stream, stream_of
from merlin.training.checkpoint import announce, read_facts, resume_checkpoint, save_checkpoint
from merlin.training.losses import TrainingDiverged


def minimise(
    groups: Sequence[tuple[Iterable[nn.Parameter], float]],
    loss_at: Callable[[int, np.random.Generator], torch.Tensor],
    n_steps: int,
    *,
    seed: int,
    weight_decay: float = 0.02,
    betas: tuple[float, float] = (0.9, 0.999),
    optimizer: str = "adamw",
    watch: Callable[[], dict] | None = None,
    watch_every: int = 0,
    desc: str = "training",
    show: bool = True,
    checkpoint: str | Path | None = None,
    fingerprint: str = "",
    save_every: int = 1000,
    model: nn.Module | None = None,
) -> list[dict]:
    """Take `n_steps` steps on `loss_at(step, rng)`.

    Parameters
    ----------
    groups : list of (parameters, float)
        Parameters with their peak learning rate; those that need no gradient are skipped.
    loss_at : callable
        (step, numpy Generator seeded by step) → scalar tensor.
    n_steps, seed : int
    weight_decay : float
    betas : (float, float)
        Of AdamW.
    optimizer : {"adamw", "sgd"}
        AdamW with warm-up and a cosine to zero, or nnU-Net's: Nesterov momentum 0.99, weight decay 3e-5,
        the rate falling as (1 − progress)^0.9 (Isensee et al., Nat. Methods 18:203, 2021).
    watch : callable, optional
        Called every `watch_every` steps and after the last one; what it returns joins that step's row. Its
        time is not training's.
    desc : str
        For the progress bar and the error message.
    show : bool
    checkpoint : path, optional
        Where parameters, optimiser and step are kept every `save_every` steps; a killed call goes on from
        there, to the same numbers, if `fingerprint` is the same.
    model : Module, optional
        Kept whole in the checkpoint in the place of `groups`: a network with running statistics needs it.

    Returns
    -------
    list of dict
        `step, loss, seconds, core_seconds` per step: of the clock, and of all cores at work for it, which
        other work on the machine hardly changes.

    Raises
    ------
    TrainingDiverged
        On a loss that is not finite.
    """
    prepare_cpu()
    torch.manual_seed(seed)
    trained = [([p for p in params if p.requires_grad], rate) for params, rate in groups]
    everything = [p for params, _ in trained for p in params]
    by_rate = [dict(params=params, lr=rate, peak=rate) for params, rate in trained]
    moves: torch.optim.Optimizer
    if optimizer == "sgd":
        moves = torch.optim.SGD(by_rate, lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    else:
        moves = torch.optim.AdamW(by_rate, weight_decay=weight_decay, betas=betas)
    warmup, done = max(1, n_steps // 20), 0
    log: list[dict] = []
    whole = model or nn.ParameterList(everything)
    kept: dict = dict(model=whole, optimizer=moves, fingerprint=fingerprint)
    if checkpoint:
        was_there = Path(checkpoint).exists()
        done, log, note = resume_checkpoint(checkpoint, **kept)
        if was_there:
            announce(checkpoint, note)
    bar = dict(desc=desc, mininterval=5, disable=not show, initial=done, total=n_steps)
    for step in tqdm(range(done, n_steps), **bar):
        began, busy = time.perf_counter(), time.process_time()
        factor = min((step + 1) / warmup, 1.0) * 0.5 * (1 + np.cos(np.pi * step / n_steps))
        if optimizer == "sgd":
            factor = (1 - step / n_steps) ** 0.9
        for group in moves.param_groups:
            group["lr"] = float(group["peak"] * factor)
        moves.zero_grad(set_to_none=True)
        loss = loss_at(step, stream_of(seed, Stream.ADAPTED_STEP, step))
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"{desc}: loss {loss.item()} at step {step}; lower its learning rate."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(everything, 12.0 if optimizer == "sgd" else 1.0)
        moves.step()
        took = dict(seconds=time.perf_counter() - began, core_seconds=time.process_time() - busy)
        log.append(dict(step=step, loss=loss.item(), **took))
        if watch and ((step + 1) % watch_every == 0 or step + 1 == n_steps):
            log[-1] |= watch()
        if checkpoint and (step + 1) % save_every == 0 and step + 1 < n_steps:
            save_checkpoint(checkpoint, step=step + 1, log=log, **kept)
    return log


def batches(n: int, batch_size: int, *, seed: int) -> Callable[[int], np.ndarray]:
    """step → positions of its batch; every item once an epoch, small sets drawn with all they have.

    Unlike in pretraining, a set smaller than a batch is allowed: a tenth of the labels may be few.
    """
    size = min(n, batch_size)
    per_epoch = n // size

    def at(step: int) -> np.ndarray:
        epoch, position = divmod(step, per_epoch)
        order = stream_of(seed, Stream.ADAPTED_EPOCH, epoch).permutation(n)
        return order[position * size : (position + 1) * size]

    return at


def volumes_at_once(n_voxels: int) -> int:
    """How many volumes of that size are encoded together without gradients: 32 small ones, fewer large."""
    return int(max(1, min(32, 2**24 // n_voxels)))


def grid_of(weights: str | Path) -> Grid:
    """The grid that the weights of pretraining were learnt on."""
    shape = read_facts(weights)["grid"]
    return Grid(tuple(shape["spacing_mm"]), tuple(shape["shape"]), tuple(shape["hu_window"]))
