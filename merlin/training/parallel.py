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

import os
from contextlib import contextmanager

import torch
from torch import distributed
from torch.utils.checkpoint import checkpoint

from merlin.model.i3d import recomputing


def start():
    """Join the group that torchrun describes, if it started this process; returns the device."""
    n = int(os.environ.get("WORLD_SIZE", "1"))
    has_gpu = torch.cuda.is_available()
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if n > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if has_gpu else "gloo")
    if has_gpu:
        torch.cuda.set_device(place)
    return f"cuda:{place}" if has_gpu and n > 1 else "cuda" if has_gpu else "cpu"


def world():
    """(rank, number of processes); (0, 1) without torchrun."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def share(index):
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


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part):
        parts = [torch.empty_like(part) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        rank, n = world()
        size = len(gradient) // n
        return gradient[rank * size : (rank + 1) * size]


def gather(part):
    """All processes' rows in order of rank; gradients find their way back to each."""
    return part if world()[1] == 1 else _Gather.apply(part)


def average_gradients(parameters):
    """Mean of each gradient over processes; with `gather` that is the whole batch's gradient."""
    n = world()[1]
    if n == 1:
        return
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        distributed.all_reduce(p.grad)
        p.grad /= n


def same_weights(model):
    """Give every process the first one's weights and buffers."""
    if world()[1] > 1:
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)


def embed_volumes(model, volume, chunk=0):
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


def embed_texts(model, input_ids, attention_mask, chunk=0):
    """(n, D) unit embeddings of tokenised texts; in chunks, each is encoded again on the way back.

    Parameters
    ----------
    model : TwoTowers
    input_ids, attention_mask : (n, length) int tensors
    chunk : int
        Texts whose activations are held at a time; 0: all, with one forward pass.
    """
    if not chunk or chunk >= len(input_ids):
        return model.embed_tokens(input_ids, attention_mask)
    parts = zip(input_ids.split(chunk), attention_mask.split(chunk), strict=True)
    return torch.cat([checkpoint(model.embed_tokens, *p, use_reentrant=False) for p in parts])


@contextmanager
def memory_advice(config, grid_shape, *, checkpointing=False):
    """Turn an out-of-memory error of the device into one that says which setting to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        said = explain_memory(error, config, grid_shape, checkpointing=checkpointing)
        raise MemoryError(said) from error


def explain_memory(error, config, grid_shape, *, checkpointing=False, n_processes=None):
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
    if config.precision == "fp32":
        ways.append("precision='bf16'")
    ways.append("a smaller batch_size, or volumes of fewer voxels (spacing_mm, grid_shape)")
    return (
        f"Out of memory with {now} volumes of {tuple(grid_shape)} encoded at once, batch_size="
        f"{config.batch_size}. Set {'; or '.join(ways)}. ({str(error).splitlines()[0][:120]})"
    )


def estimate_step(model, config, grid_shape, *, n_share=None):
    """Bytes of one training step of the image tower, before it is made, counted without storage.

    The step is gone through on the `meta` device, with recomputation and chunks as set, and what is
    alive is counted: within 15 % of the peak of a process whose allocator gives freed memory back.
    One that keeps it (glibc, as `prepare_cpu` sets it up for speed; a GPU's, in a small way) holds
    more, up to twice as much with small chunks.

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
        most that volumes, activations and gradients of the image tower take at once; in half
        precision half of it), `total`.
    """
    import copy

    from merlin.training.cost import PeakBytes

    def size(parameters):
        return sum(p.numel() * p.element_size() for p in parameters)

    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    elsewhere = size(p for n, p in named if not n.startswith("encode_image."))
    weights = size(model.parameters()) + 2 * size(p for _, p in named) + elsewhere
    twin = copy.copy(model)
    twin._modules = dict(model._modules, encode_image=copy.deepcopy(model.encode_image).to("meta"))
    twin.encode_image.train()
    with PeakBytes() as count:
        volume = torch.zeros(n_share or config.batch_size, 1, *grid_shape, device="meta")
        image, logits, finish = embed_volumes(twin, volume, config.chunk)
        (image.float().sum() + logits.float().sum()).backward()
        finish()
    step = count.peak if config.precision == "fp32" else count.peak // 2
    return dict(weights=weights, step=step, total=weights + step)


def estimate_seconds(model, config, grid_shape, *, n_share=None, n_timed=2):
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
    import copy
    import time

    twin = copy.deepcopy(model.encode_image).train()
    device = next(twin.parameters()).device
    n = n_share or config.batch_size
    n_timed = min(n_timed, config.chunk or n)
    volume = torch.zeros(n_timed, 1, *grid_shape, device=device)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float16

    def once():
        began = time.perf_counter()
        with torch.autocast(device.type, dtype, enabled=config.precision != "fp32"):
            found = twin(volume)
        sum(x.float().sum() for x in found).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()  # the first pass pays for memory and for choosing algorithms
    again = 4 / 3 if config.chunk and config.chunk < n else 1.0  # chunks are encoded twice
    return once() * n / n_timed * again
