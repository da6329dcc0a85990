"""What a training step keeps in memory, counted instead of measured."""

import weakref
from collections.abc import Sequence

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from merlin.model.i3d import ImageEncoder


class PeakBytes(TorchDispatchMode):
    """Bytes of the storages that are made inside it and alive, and the most there were at once.

    On the `meta` device nothing is computed: a step of any size is counted in seconds. What a library
    takes inside an operation, and what an allocator can't use again at once, is not seen.
    """

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [t.untyped_storage() for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)]
        before = {s._cdata for s in given}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if torch.is_tensor(tensor):
                self._note(tensor.untyped_storage(), before)
        return out

    def _note(self, storage, before):
        name = storage._cdata
        if name in before or name in self._known:
            return
        self._known[name] = weakref.ref(storage, lambda _: self._gone(name, n))
        n = storage.nbytes()
        self.alive += n
        self.peak = max(self.peak, self.alive)

    def _gone(self, name, n):
        del self._known[name]
        self.alive -= n


def saved_for_backward(encoder: ImageEncoder, grid_shape: Sequence[int]) -> float:
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
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # The tensor is held, so that its address can't be given to another one meanwhile.
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    device = next(encoder.parameters()).device
    was_training = encoder.training
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder.train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        outputs = encoder(torch.zeros(2, 1, *grid_shape, device=device))
    total = sum(n for n, _ in kept.values()) / 2
    del outputs
    encoder.load_state_dict(before)  # the pass moved the batch norms' statistics
    encoder.train(was_training)
    return total
