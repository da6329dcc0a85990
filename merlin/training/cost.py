"""What a training step keeps in memory, counted instead of measured."""

import torch


def saved_for_backward(encoder, grid_shape, *, with_largest=False):
    """Bytes that one study's forward pass leaves behind for the backward pass.

    Every tensor that autograd saves is counted once, parameters apart. Unlike a process's peak memory
    this is the same on every machine.

    Parameters
    ----------
    encoder : ImageEncoder
        On the `meta` device nothing is computed, only counted.
    grid_shape : (3,) int
        (R, A, S) voxels of a volume.
    with_largest : bool
        Also return the bytes of the largest tensor.

    Returns
    -------
    float
        Mean over a batch of two, which batch norms need.
    """
    kept, count = _counter(encoder)
    device = next(encoder.parameters()).device
    was_training = encoder.training
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        outputs = encoder(torch.zeros(2, 1, *grid_shape, device=device))
    sizes = [n / 2 for n, _ in kept.values()]
    del outputs
    encoder.load_state_dict(before)  # the pass moved the batch norms' statistics
    encoder.train(was_training)
    return (sum(sizes), max(sizes)) if with_largest else sum(sizes)


def largest_block(encoder, grid_shape):
    """Bytes that one study leaves behind in the largest block of a residual network, or in its stem.

    With recomputation that is what is alive beside the blocks' inputs: one block at a time.
    """
    network = encoder.i3_resnet
    blocks = [b for i in range(network.config.n_stages) for b in getattr(network, f"layer{i + 1}")]
    (kept, count), marks = _counter(encoder), []

    def mark(*_):
        marks.append(sum(n for n, _ in kept.values()) / 2)

    hooks = [
        h
        for b in blocks
        for h in (b.register_forward_pre_hook(mark), b.register_forward_hook(mark))
    ]
    was_recomputed, network.checkpointing = network.checkpointing, False
    encoder.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        encoder(torch.zeros(2, 1, *grid_shape, device=next(encoder.parameters()).device))
    network.checkpointing = was_recomputed
    for hook in hooks:
        hook.remove()
    return max(
        [marks[0], *(end - begin for begin, end in zip(marks[::2], marks[1::2], strict=True))]
    )


def _counter(encoder):
    """Storages that autograd saves, and the hook that notes them: name → (bytes, tensor)."""
    # Addresses tell storages apart; tensors without storage have none, so they are told by object.
    is_meta = next(encoder.parameters()).device.type == "meta"
    name = (lambda s: s._cdata) if is_meta else (lambda s: s.data_ptr())
    own = {name(p.untyped_storage()) for p in encoder.parameters()}
    kept = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        if name(storage) not in own:
            # The tensor is held, so that its address can't be given to another one meanwhile.
            kept[name(storage)] = (storage.nbytes(), tensor)
        return tensor

    return kept, count
