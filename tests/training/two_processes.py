"""One of the processes that torchrun starts: gradients of a batch and a tiny training, to OUT-RANK.pt.

`torchrun --nproc-per-node 2 two_processes.py OUT`
"""

import contextlib
import sys

import torch
from tiny_run import Studies, gradients, studies, train
from torch import distributed

from merlin.training import parallel


def drawing(rank, n_read=None):
    """Studies whose volumes draw numbers in the second process alone, and end after so many reads."""
    data, left = studies(), iter(range(n_read or 1000))

    def volume(i):
        next(left)
        torch.rand(rank)
        return data.volumes(i)

    return Studies(**(vars(data) | dict(volumes=volume)))


if __name__ == "__main__":
    parallel.start()
    rank, _ = parallel.world()
    out = sys.argv[1]
    plain = dict(shift_voxels=0, noise=0.0, gain=0.0, n_steps=6)
    weights, log = train(f"{out}-checkpoint.pt", **plain)
    found = {"weights": weights, "loss": [x["loss"] for x in log], "fixed": gradients()}
    unlike = dict(plain, save_every=2)
    whole, _ = train(f"{out}-whole.pt", data=drawing(rank), **unlike)
    for n_read in (2 * 2, 2 * 3):  # two volumes a step here; the second goes on from the first
        with contextlib.suppress(StopIteration):
            train(f"{out}-killed.pt", data=drawing(rank, n_read), **unlike)
    again, _ = train(f"{out}-killed.pt", data=drawing(rank), **unlike)
    found["resumed"] = {k: torch.equal(v, whole[k]) for k, v in again.items()}
    torch.save(found, f"{out}-{rank}.pt")
    distributed.destroy_process_group()
