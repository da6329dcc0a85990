"""What a training step keeps in memory, counted instead of measured."""

import torch


def saved_for_backward(encoder, grid_shape):
    """Bytes that one study's forward pass leaves behind for the backward pass.

    Every tensor that autograd saves is counted once, parameters apart. Unlike a process's peak memory
    this is the same on every machine.

    Parameters
    ----------
    encoder : ImageEncoder
    grid_shape : (3,) int
        (R, A, S) voxels of a volume.

    Returns
    -------
    float
        Mean over a batch of two, which batch norms need.
    """
    own = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    kept = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # The tensor is held, so that its address can't be given to another one meanwhile.
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    was_training = encoder.training
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        outputs = encoder(torch.zeros(2, 1, *grid_shape))
    total = sum(n for n, _ in kept.values()) / 2
    del outputs
    encoder.load_state_dict(before)  # the pass moved the batch norms' statistics
    encoder.train(was_training)
    return total
