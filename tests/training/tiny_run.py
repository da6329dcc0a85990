"""A pretraining run of a few milliseconds a step. As a script, it starts runs that can be killed.

Each line of its input, `[CHECKPOINT, SAVE_EVERY, SECONDS_A_STEP]`, is a run in a process of its own,
forked where the libraries are loaded already; its number is what is printed.
"""

import json
import os
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from merlin.model.i3d import ImageConfig
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.statistics import metrics
from merlin.training import parallel
from merlin.training.config import TrainingConfig
from merlin.training.data import Studies
from merlin.training.loop import fit
from merlin.training.losses import contrastive_loss

IMAGE = ImageConfig(
    depth=14, width=4, block="basic", stem="patch", pool="grid", grid_cells=4, in_channels=1,
    n_phecodes=3, embedding_size=16,
)  # fmt: skip
TEXT = TextConfig(kind="small", hidden_size=32, n_layers=1, max_length=32, embedding_size=16)
N_STEPS = 12


def config(**changes):
    base = dict(
        n_steps=N_STEPS, batch_size=4, learning_rate=3e-3, warmup_steps=2, save_every=100,
        evaluate_every=5, shift_voxels=1, noise=0.02, gain=0.05, sections_per_step=2,
    )  # fmt: skip
    return TrainingConfig(**(base | changes))


def model(seed=7, *, kind="small"):
    torch.manual_seed(seed)
    text = replace(TEXT, kind=kind)
    return TwoTowers(TowersConfig(image=IMAGE, text=text, grid_shape=(16, 16, 16)))


def studies(n=12, *, seed=7, seconds=0.0, bad=()):
    """Studies of random volumes; those at `bad` hold NaN."""
    rng = np.random.default_rng(seed)
    images = rng.random((n, 16, 16, 16)).astype(np.float32)
    for i in bad:
        images[i, 3, 4, 5] = np.nan
    organs, words = (
        ("liver", "spleen", "kidney"),
        ("normal", "cyst", "mass", "enlarged", "atrophic"),
    )
    sections = np.array(
        [[f"{organ} {words[rng.integers(5)]}" for organ in organs] for _ in range(n)], dtype=object
    )

    def volume(i):
        time.sleep(seconds / 4)
        return images[i]

    return Studies(
        study_ids=np.array([f"study{i}" for i in range(n)]),
        patient_ids=np.array([f"patient{i // 2}" for i in range(n)]),
        volumes=volume,
        findings=np.array([" ; ".join(row) for row in sections], dtype=object),
        sections=sections,
        phecodes=rng.choice([0.0, 1.0, np.nan], (n, 3), p=[0.5, 0.4, 0.1]).astype(np.float32),
    )


def train(
    checkpoint, towers=None, *, data=None, fingerprint="tiny", seed=7, n_threads=1, keep_best=None,
    **changes,
):  # fmt: skip
    """Weights and log of a run, by default with one thread: faster at this size on a busy machine.

    Numba's first parallel call resets that number (test_loop shows it), so it is made before.
    """
    metrics.auroc(np.zeros((2, 1)), np.array([[0.0], [1.0]]))
    torch.set_num_threads(n_threads)
    towers = towers or model()
    log, _ = fit(
        towers,
        data or studies(),
        studies(6, seed=8),
        config(**changes),
        checkpoint=checkpoint,
        fingerprint=fingerprint,
        seed=seed,
        show=False,
        keep_best=keep_best,
    )
    return {k: v.clone() for k, v in towers.state_dict().items()}, log


def draw(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(chunk=0):
    """Loss and gradients of one batch, batch norms with fixed statistics; shared among processes."""
    towers = model()
    towers.encode_image.eval()
    text = torch.nn.functional.normalize(draw(6, 16, seed=4), dim=1)
    volume = parallel.share(draw(6, 1, 16, 16, 16, seed=3))
    image, logits, finish = parallel.embed_volumes(towers, volume, chunk)
    image, logits = parallel.gather(image), parallel.gather(logits)
    loss = contrastive_loss(image, text, towers.logit_scale, torch.arange(6))
    loss = loss + logits.square().mean()
    loss.backward()
    finish()
    used = {n: p for n, p in towers.named_parameters() if p.grad is not None}
    parallel.average_gradients(list(used.values()))
    return loss.item(), {n: p.grad for n, p in used.items()}


if __name__ == "__main__":
    from transformers import AutoTokenizer, BertConfig, BertModel  # noqa: F401  once for all runs

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a run
    for line in sys.stdin:
        path, save_every, seconds = json.loads(line)
        if number := os.fork():
            print(number, flush=True)
            continue
        sys.stdout = sys.stderr
        train(path, data=studies(seconds=seconds), save_every=save_every)
        os._exit(0)
