"""The CPU as training wants it: a stated number of threads, repeatable sums, memory that stays."""

import ctypes

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of mallopt(3)
_FILL = "fill_uninitialized_memory"  # a property that type checkers don't see
# Voxels from which freed memory is given back; the paper's have eight times as many.
LARGE_VOLUME = 1_000_000


def prepare_cpu(n_threads: int | None = None, *, n_voxels: int = 0) -> None:
    """Set this process up for training on the CPU; safe to call again.

    Algorithms are the deterministic ones, without the fill of fresh memory that PyTorch adds to them
    (it shows reads of uninitialised memory, changes no result, and took a quarter of a step).

    glibc is told to keep freed memory instead of returning each activation to the system, whose page
    faults took another quarter. Held back in pieces, memory adds up to twice what is alive, so large
    volumes get the contrary: what is freed goes back. Elsewhere than on glibc this part does nothing,
    and where there is a GPU only the threads are set.

    Parameters
    ----------
    n_threads : int, optional
        Of PyTorch. Results are the same for the same number.
    n_voxels : int
        Of a volume to train on.
    """
    if n_threads:
        torch.set_num_threads(n_threads)
    if torch.cuda.is_available():  # there determinism costs speed and needs a variable set
        return
    torch.use_deterministic_algorithms(True)
    setattr(torch.utils.deterministic, _FILL, False)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        keeps = n_voxels < LARGE_VOLUME
        mallopt(_M_MMAP_MAX, 0 if keeps else 65536)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1 if keeps else 2**17)
        if not keeps:
            mallopt(_M_MMAP_THRESHOLD, 2**16)
