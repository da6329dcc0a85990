"""Large batches: encoded in chunks on one device, or shared among processes that torchrun starts.

Both leave loss and gradients what one process with the whole batch would have, batch norms apart:
these see a chunk, or a process's share.

A contrastive loss needs the whole batch's embeddings, but not all activations at once. In chunks
(gradient caching, arXiv 2101.06983), volumes are encoded without activations, the loss gives the
gradient of each embedding, and each chunk is encoded again to carry it into the weights: twice the
forward work, memory of one chunk. Texts go the same way.

Among processes, each encodes its share of the batch; embeddings are gathered with their gradients, and
every process computes the same loss over all of them. torchrun may start notebooks as well as scripts:

    torchrun --nproc-per-node 2 --no-python sh -c 'papermill notebooks/02_pretraining.ipynb \
        runs/paper/partial/02-$RANK.ipynb --cwd notebooks -p profile paper'
"""

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.distributed.nn import functional
from torch.utils.checkpoint import checkpoint

from merlin.model.i3d import recomputing
from merlin.model.two_towers import TwoTowers
from merlin.training.config import TrainingConfig
from merlin.training.cost import PeakBytes


def start() -> str:
    """Join the group that torchrun describes, if it started this process; returns the device."""
    n = int(os.environ.get("WORLD_SIZE", "1"))
    has_gpu = torch.cuda.is_available()
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if n > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if has_gpu else "gloo")
    if has_gpu:
        torch.cuda.set_device(place)
    return f"cuda:{place}" if has_gpu and n > 1 else "cuda" if has_gpu else "cpu"


def world() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) without torchrun."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def share(index: np.ndarray) -> np.ndarray:
    """The part of a batch that falls to this process, equal parts.

    Raises
    ------
    ValueError
        If the batch does not divide.
    """
    rank, n = world()
    if len(index) % n:
        raise ValueError(f"a batch of {len(index)} does not divide among {n} processes")
    size = len(index) // n
    return index[rank * size : (rank + 1) * size]


def gather(part: Tensor) -> Tensor:
    """All processes' rows in order of rank; gradients find their way back to each."""
    return part if world()[1] == 1 else torch.cat(functional.all_gather(part))


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Mean of each gradient over processes; with `gather` that is the whole batch's gradient."""
    n = world()[1]
    if n == 1:
        return
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        distributed.all_reduce(p.grad)
        p.grad /= n


def everyones(value: Any) -> list[Any]:
    """Every process's value, in order of rank; also a place where all wait for each other."""
    if world()[1] == 1:
        return [value]
    found: list[Any] = [None] * world()[1]
    distributed.all_gather_object(found, value)
    return found


def same_weights(model: torch.nn.Module) -> None:
    """Give every process the first one's weights and buffers."""
    if world()[1] > 1:
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)


def embed_volumes(
    model: TwoTowers, volume: Tensor, chunk: int = 0
) -> tuple[Tensor, Tensor, Callable[[], None]]:
    """Embeddings and phecode logits of a batch, and what to call after the loss's backward.

    Parameters
    ----------
    model : TwoTowers
    volume : (B, 1, R, A, S) tensor
    chunk : int
        Volumes encoded at a time; 0: all, with one forward pass.

    Returns
    -------
    image : (B, D) tensor
    logits : (B, n_phecodes) tensor
    finish : callable
        Carries the gradients into the image tower; nothing to do without chunks.
    """
    if not chunk or chunk >= len(volume):
        image, logits, _ = model.embed_volumes(volume)
        return image, logits, lambda: None
    parts = volume.split(chunk)
    with torch.no_grad():
        found = [model.embed_volumes(part)[:2] for part in parts]
    image, logits = (torch.cat(x).requires_grad_() for x in zip(*found, strict=True))

    def finish():
        found = [torch.zeros_like(x) if x.grad is None else x.grad for x in (image, logits)]
        for part, *gradients in zip(parts, *(g.split(chunk) for g in found), strict=True):
            with recomputing(model.encode_image):  # statistics of this chunk were counted above
                again = model.embed_volumes(part)[:2]
            torch.autograd.backward(again, gradients)

    return image, logits, finish


def embed_texts(model: TwoTowers, first: Tensor, second: Tensor, chunk: int = 0) -> Tensor:
    """(n, D) unit embeddings of texts; in chunks, each is encoded again on the way back.

    Parameters
    ----------
    model : TwoTowers
    first, second : tensor
        As `TwoTowers.embed_read` takes them.
    chunk : int
        Tokenised texts whose activations are held at a time; 0: all, with one forward pass.
        Vectors of sentences are always taken at once: they cost nothing.
    """
    if not chunk or chunk >= len(first) or not model.reads_tokens:
        return model.embed_read(first, second)
    parts = zip(first.split(chunk), second.split(chunk), strict=True)
    return torch.cat([checkpoint(model.embed_tokens, *p, use_reentrant=False) for p in parts])


@contextmanager
def memory_advice(
    config: TrainingConfig, grid_shape: Sequence[int], *, checkpointing: bool = False
) -> Iterator[None]:
    """Turn an out-of-memory error of the device into one that says which setting to change."""
    try:
        yield
    except RuntimeError as error:  # a GPU's has a class of its own, the CPU's only words
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        said = explain_memory(error, config, grid_shape, checkpointing=checkpointing)
        raise MemoryError(said) from error


def explain_memory(
    error: Exception, config: TrainingConfig, grid_shape: Sequence[int], *,
    checkpointing: bool = False, n_processes: int | None = None,
) -> str:  # fmt: skip
    """An out-of-memory error in words: what to change of what is not changed yet, most useful first.

    Parameters
    ----------
    error : Exception
    config : TrainingConfig
    grid_shape : (3,) int
    checkpointing : bool
        Whether activations are recomputed already.
    n_processes : int, optional
        That share the batch; default: those of torchrun.
    """
    share = config.batch_size // (n_processes or world()[1])
    now = min(config.chunk or share, share)  # volumes encoded at once here
    ways = []
    if not checkpointing:
        ways.append("checkpointing=True (activations are computed again)")
    if now > 1:
        ways.append(f"chunk={now // 2} (same batch, less at a time)")
    if not config.text_chunk and config.batch_size > 1 and config.supervision != "ehr":
        ways.append(f"text_chunk={max(config.batch_size // 4, 1)} (likewise of texts)")
    if config.precision == "fp32":
        ways.append("precision='bf16'")
    ways.append("a smaller batch_size, or volumes of fewer voxels (spacing_mm, grid_shape)")
    return (
        f"Out of memory with {now} volumes of {tuple(grid_shape)} encoded at once, batch_size="
        f"{config.batch_size}. Set {'; or '.join(ways)}. ({str(error).splitlines()[0][:120]})"
    )


def estimate_step(
    model: TwoTowers, config: TrainingConfig, grid_shape: Sequence[int], *,
    n_share: int | None = None,
) -> dict[str, int]:  # fmt: skip
    """Bytes of one training step, before it is made, counted without training.

    The image tower's part is gone through on the `meta` device, with recomputation and chunks as set,
    and what is alive is counted. Texts are taken as long as the tower allows, a report a study; one
    and two are gone through, and the rest follows. Within 15 % of what a process in fp32 takes for
    volumes of a million voxels and more; for smaller ones `prepare_cpu` keeps freed memory, up to
    twice the estimate.

    Parameters
    ----------
    model : TwoTowers
    config : TrainingConfig
    grid_shape : (3,) int
    n_share : int, optional
        Volumes of this process; default: the whole batch.

    Returns
    -------
    dict of str to int
        `weights` (with both moments of AdamW, and gradients outside the image tower), `step` (the
        most that volumes, activations and gradients of the image tower take at once), `texts` (the
        most that activations of the text tower take), in half precision half of either; `total`,
        in which texts stand beside images unless those are encoded in chunks.
    """

    def size(parameters):
        return sum(p.numel() * p.element_size() for p in parameters)

    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    elsewhere = size(p for n, p in named if not n.startswith("encode_image."))
    weights = size(model.parameters()) + 2 * size(p for _, p in named) + elsewhere
    twin = copy.copy(model)
    twin._modules = dict(model._modules, encode_image=copy.deepcopy(model.encode_image).to("meta"))
    twin.encode_image.train()
    n = n_share or config.batch_size
    is_chunked = 0 < config.chunk < n
    # Three chunks show the peak; further ones add their volumes alone.
    n_counted = min(n, 3 * config.chunk) if is_chunked else n
    with PeakBytes() as count:
        volume = torch.zeros(n_counted, 1, *grid_shape, device="meta")
        image, logits, finish = embed_volumes(twin, volume, config.chunk)
        (image.float().sum() + logits.float().sum()).backward()
        finish()
    # Every process encodes all texts of the batch.
    n_texts = 0 if config.supervision == "ehr" else config.batch_size
    n_texts = min(n_texts, config.text_chunk or n_texts) if model.reads_tokens else 0
    texts = _text_bytes(model.encode_text, n_texts)
    half = 1 if config.precision == "fp32" else 2
    step = count.peak // half + 4 * (n - n_counted) * math.prod(grid_shape)
    texts = texts // half
    both = max(step, texts) if is_chunked else step + texts
    return dict(weights=weights, step=step, texts=texts, total=weights + both)


def _text_bytes(tower, n):
    """Activations of `n` texts of the greatest length, on the way forward and back."""
    if not n:
        return 0
    tower = copy.deepcopy(tower).cpu().train()  # some towers look at their tokens: not on `meta`
    own = [p for p in tower.parameters() if p.requires_grad]
    peaks = []
    with torch.random.fork_rng(devices=[]):
        for k in (1, 2):
            tokens = torch.ones(k, tower.config.max_length, dtype=torch.int64)
            with PeakBytes() as count:
                # To the first weights, through all layers; gradients are among the weights already.
                torch.autograd.grad(tower(tokens, tokens).sum(), own[:1], allow_unused=True)
            peaks.append(count.peak)
    return n * (peaks[1] - peaks[0])


def estimate_seconds(
    model: TwoTowers, config: TrainingConfig, grid_shape: Sequence[int], *,
    n_share: int | None = None, n_timed: int = 2,
) -> float:  # fmt: skip
    """Seconds that the image tower takes in one training step, from timing a few volumes of zeros.

    Made on a copy: the model, its batch statistics and the random numbers stay as they are. Reading
    volumes, texts and the optimiser come on top.

    Parameters
    ----------
    model : TwoTowers
        On the device that will train it.
    n_timed : int
        Volumes timed at once; scaled to the batch.
    """
    twin = copy.deepcopy(model.encode_image).train()
    device = next(twin.parameters()).device
    n = n_share or config.batch_size
    n_timed = min(n_timed, config.chunk or n)
    volume = torch.zeros(n_timed, 1, *grid_shape, device=device)

    def once():
        began = time.perf_counter()
        with config.autocast(device.type):
            found = twin(volume)
        sum(x.float().sum() for x in found).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()  # the first pass pays for memory and for choosing algorithms
    again = 4 / 3 if config.chunk and config.chunk < n else 1.0  # chunks are encoded twice
    return once() * n / n_timed * again
