"""One short loop for adapting a pretrained network: any loss, AdamW, warm-up and cosine."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from merlin.model.cpu import prepare_cpu
from merlin.training.checkpoint import resume_checkpoint, save_checkpoint
from merlin.training.loop import TrainingDiverged


def minimise(
    groups,
    loss_at,
    n_steps,
    *,
    seed,
    weight_decay=0.02,
    betas=(0.9, 0.999),
    desc="training",
    show=True,
    checkpoint=None,
    fingerprint="",
    save_every=1000,
):
    """Take `n_steps` AdamW steps on `loss_at(step, rng)`.

    Parameters
    ----------
    groups : list of (parameters, float)
        Parameters with their peak learning rate; those that need no gradient are skipped.
    loss_at : callable
        (step, numpy Generator seeded by step) → scalar tensor.
    n_steps, seed : int
    weight_decay : float
    betas : (float, float)
    desc : str
        For the progress bar and the error message.
    show : bool
    checkpoint : path, optional
        Where parameters, optimiser and step are kept every `save_every` steps; a killed call goes on from
        there, to the same numbers, if `fingerprint` is the same. Networks with running statistics need
        more than that.

    Returns
    -------
    list of dict
        `step, loss, seconds` per step.

    Raises
    ------
    TrainingDiverged
        On a loss that is not finite.
    """
    prepare_cpu()
    torch.manual_seed(seed)
    groups = [
        dict(params=[p for p in params if p.requires_grad], lr=rate, peak=rate)
        for params, rate in groups
    ]
    everything = [p for g in groups for p in g["params"]]
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay, betas=betas)
    warmup, done, log = max(1, n_steps // 20), 0, []
    kept = dict(model=nn.ParameterList(everything), optimizer=optimizer, fingerprint=fingerprint)
    if checkpoint:
        was_there = Path(checkpoint).exists()
        done, log, note = resume_checkpoint(checkpoint, **kept)
        if was_there and show:
            tqdm.write(note)
    for step in tqdm(
        range(done, n_steps),
        desc=desc,
        mininterval=5,
        disable=not show,
        initial=done,
        total=n_steps,
    ):
        began = time.perf_counter()
        factor = min((step + 1) / warmup, 1.0) * 0.5 * (1 + np.cos(np.pi * step / n_steps))
        for group in optimizer.param_groups:
            group["lr"] = float(group["peak"] * factor)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_at(step, np.random.default_rng([seed, 7, step]))
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"{desc}: loss {loss.item()} at step {step}; lower its learning rate."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(everything, 1.0)
        optimizer.step()
        log.append(dict(step=step, loss=loss.item(), seconds=time.perf_counter() - began))
        if checkpoint and (step + 1) % save_every == 0 and step + 1 < n_steps:
            save_checkpoint(checkpoint, step=step + 1, log=log, **kept)
    return log


def batches(n, batch_size, *, seed):
    """step → positions of its batch; every item once an epoch, small sets drawn with all they have.

    Unlike in pretraining, a set smaller than a batch is allowed: a tenth of the labels may be few.
    """
    size = min(n, batch_size)
    per_epoch = n // size

    def at(step):
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng([seed, 8, epoch]).permutation(n)
        return order[position * size : (position + 1) * size]

    return at


def volumes_at_once(n_voxels):
    """How many volumes of that size are encoded together without gradients: 32 small ones, fewer large."""
    return int(max(1, min(32, 2**24 // n_voxels)))
