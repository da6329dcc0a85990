"""One of the processes that torchrun starts: gradients of a batch and a tiny training, to OUT-RANK.pt.

`torchrun --nproc-per-node 2 two_processes.py OUT`
"""

import sys

import torch
from tiny_run import gradients, train
from torch import distributed

from merlin.training import parallel

if __name__ == "__main__":
    parallel.start()
    rank, _ = parallel.world()
    out = sys.argv[1]
    plain = dict(shift_voxels=0, noise=0.0, gain=0.0, n_steps=6)
    weights, log = train(f"{out}-checkpoint.pt", **plain)
    found = {"weights": weights, "loss": [x["loss"] for x in log], "fixed": gradients()}
    torch.save(found, f"{out}-{rank}.pt")
    distributed.destroy_process_group()
