"""Adapting the image encoder to predict diseases of the next five years.

`fine_tune` trains every weight, as the paper does. `features` leaves the encoder as it is; what it says
of a study is read by `merlin.evaluation.rivals.logistic`: ours, for label sets of a few dozen events.
"""

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from merlin.model.i3d import I3ResNet, ImageConfig, ImageEncoder
from merlin.model.two_towers import feature_shape
from merlin.training.adapt import batches, minimise, volumes_at_once
from merlin.training.checkpoint import build_strictly, load_tensors, save_tensors
from merlin.training.cost import PeakBytes
from merlin.training.data import augment
from merlin.training.losses import phecode_loss

Volumes = Callable[[np.ndarray], torch.Tensor]  # indices → (B, 1, R, A, S)


class DiseaseModel(nn.Module):
    """An image encoder and one linear output per disease, trained together (paper_facts §3.4)."""

    def __init__(self, encoder: ImageEncoder, n_diseases: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.embedding_size, n_diseases)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """(B, 1, R, A, S) in [0, 1] → (B, n_diseases) logits."""
        return self.head(self.encoder.embed(volume))


def fine_tune(
    model: DiseaseModel, volumes: Volumes, labels: np.ndarray, *, n_steps: int, batch_size: int,
    learning_rate: float, head_learning_rate: float, shift_voxels: int = 0, seed: int,
    precision: str = "fp32", chunk: int = 0, checkpointing: bool = False, checkpoint: str | Path | None = None,
    fingerprint: str = "", save_every: int = 0, device: str = "cpu", desc: str = "fine-tuning",
    show: bool = True,
) -> list[dict]:  # fmt: skip
    """Train all weights on labelled studies.

    A batch that does not fit goes through in chunks, whose gradients add up to the whole batch's; batch
    norms see a chunk.

    Parameters
    ----------
    model : DiseaseModel
    volumes : callable
        (indices) → (B, 1, R, A, S) float tensor.
    labels : (n, n_diseases) float
        1, 0, or NaN, which takes no part. Studies without any label are skipped.
    learning_rate, head_learning_rate : float
        Peaks for the encoder and the new output.
    precision : {"fp32", "bf16"}
        Of the encoder's activations on a GPU; a CPU has fp32. In fp16 the loss would have to be scaled.
    chunk : int
        Volumes at a time; 0: the whole batch.
    checkpointing : bool
        Whether a ResNet's activations are computed again in the backward pass.
    checkpoint : path, optional
        Kept every `save_every` steps: a killed call goes on from there, if `fingerprint` is the same.

    Returns
    -------
    list of dict
        The log of `minimise`.

    Raises
    ------
    ValueError
        If no study has a label.
    MemoryError
        On a GPU that is too small, with the settings to change.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision: {precision!r}. Expected fp32 or bf16.")
    usable = np.flatnonzero(~np.isnan(labels).all(1))
    if len(usable) == 0:
        raise ValueError(
            "no study has a 5-year label among those to train on: fill the five_year_* columns of training "
            "studies (the release documents its own labels as of the test split)"
        )
    draw, kind = batches(len(usable), batch_size, seed=seed), torch.device(device).type
    is_half = precision == "bf16" and kind != "cpu"  # whose convolutions in bf16 go wrong
    _recompute(model, checkpointing)
    model.train()

    def loss_at(step: int, rng: np.random.Generator) -> torch.Tensor:
        index = usable[draw(step)]
        volume = augment(volumes(index), rng, shift_voxels=shift_voxels, noise=0.0, gain=0.0)
        target = torch.as_tensor(labels[index], dtype=torch.float32, device=device)
        total, parts = target.isfinite().sum(), list(range(0, len(index), chunk or len(index)))
        done = torch.zeros((), device=device)
        for start in parts:
            part = slice(start, start + (chunk or len(index)))
            with torch.autocast(kind, torch.bfloat16, enabled=is_half):
                logits = model(volume[part].to(device)).float()
            share = target[part].isfinite().sum() / total if len(parts) > 1 else 1.0
            loss = phecode_loss(logits, target[part]) * share
            if start != parts[-1]:
                loss.backward()
                done = done + loss.detach()
        return loss + done if len(parts) > 1 else loss

    groups = [
        (model.encoder.parameters(), learning_rate),
        (model.head.parameters(), head_learning_rate),
    ]
    kept: dict = {}
    if checkpoint and save_every:
        kept = dict(checkpoint=checkpoint, fingerprint=fingerprint, save_every=save_every)
    try:
        return minimise(
            groups, loss_at, n_steps, seed=seed, desc=desc, show=show, model=model, **kept
        )
    except torch.OutOfMemoryError as error:
        now = min(chunk or batch_size, batch_size)
        ways = [f"chunk: {now // 2}"] if now > 1 else []
        ways += ["precision: bf16"] if precision == "fp32" else []
        ways += [] if checkpointing else ["checkpointing: true"]
        raise MemoryError(
            f"Out of memory with {now} volumes at once. In 08_five_year set "
            f"{'; or '.join([*ways, 'a smaller batch_size'])}. ({str(error).splitlines()[0][:120]})"
        ) from error


def _recompute(model: DiseaseModel, checkpointing: bool) -> None:
    network = model.encoder.i3_resnet
    if isinstance(network, I3ResNet):
        network.checkpointing = checkpointing


def estimate_bytes(
    model: DiseaseModel, grid_shape: Sequence[int], *, n_at_once: int, precision: str = "fp32",
    checkpointing: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Bytes of one step of `fine_tune`, counted on the `meta` device, as `parallel.estimate_step` counts.

    Parameters
    ----------
    model : DiseaseModel
    grid_shape : (3,) int
    n_at_once : int
        Volumes of a chunk, or of the batch.

    Returns
    -------
    dict of str to int
        `weights` (with gradients, both moments of AdamW, and a half copy for bf16), `step` (volumes and
        activations at their most), `total`.
    """
    own = sum(p.numel() * p.element_size() for p in model.parameters())
    twin = copy.deepcopy(model).to("meta").train()
    _recompute(twin, checkpointing)
    with PeakBytes() as count:
        volume = torch.zeros(n_at_once, 1, *grid_shape, device="meta")
        twin(volume).sum().backward()
    half = 2 if precision == "bf16" else 1
    weights, step = 4 * own + (own // 2 if half == 2 else 0), max(count.peak - own, 0) // half
    return dict(weights=weights, step=step, total=weights + step)


KIND = "a five-year model"


def save_model(
    path: str | Path, model: DiseaseModel, diseases: Collection[str], facts: dict
) -> None:
    """Write a fine-tuned model as safetensors with what rebuilds it.

    Parameters
    ----------
    path : path
    model : DiseaseModel
    diseases : sequence of str
        Of its outputs, in order.
    facts : dict
        JSON-able; `grid` of `load_weights`' metadata is needed to load the model again.
    """
    header = {"kind": KIND, "config": asdict(model.encoder.config)}
    save_tensors(path, model.state_dict(), header | {"diseases": list(diseases), "metadata": facts})


def load_model(path: str | Path) -> tuple[DiseaseModel, list[str], dict]:
    """Rebuild what `save_model` wrote, in evaluation mode.

    Returns
    -------
    model : DiseaseModel
    diseases : list of str
    facts : dict
    """
    tensors, header = load_tensors(path, KIND)

    def make() -> DiseaseModel:
        image = ImageConfig.from_dict(header["config"])
        shape = feature_shape(image, header["metadata"]["grid"]["shape"])
        return DiseaseModel(ImageEncoder(image, feature_shape=shape), len(header["diseases"]))

    model = build_strictly(make, tensors, name=str(path))
    return model, list(map(str, header["diseases"])), header["metadata"]


def predict(
    model: DiseaseModel, volumes: Volumes, n: int, *, batch_size: int | None = None,
    device: str = "cpu", desc: str = "predicting", show: bool = True,
) -> np.ndarray:  # fmt: skip
    """(n, n_diseases) float32 probabilities; `batch_size` volumes at once, by default by their size."""
    model.eval()
    return _over(lambda v: torch.sigmoid(model(v)), volumes, n, batch_size, device, desc, show)


def features(
    encoder: ImageEncoder, volumes: Volumes, n: int, *, batch_size: int | None = None,
    device: str = "cpu", desc: str = "encoding", show: bool = True,
) -> np.ndarray:  # fmt: skip
    """(n, embedding_size) float32 of a frozen encoder: what both heads of pretraining read."""
    encoder.eval()
    return _over(encoder.embed, volumes, n, batch_size, device, desc, show)


@torch.inference_mode()
def _over(
    answer: Callable, volumes: Volumes, n: int, batch_size: int | None, device: str, desc: str,
    show: bool,
) -> np.ndarray:  # fmt: skip
    """Answers for volumes 0 to n − 1, some at a time."""
    size = batch_size or volumes_at_once(volumes(np.array([0])).numel())
    parts = np.array_split(np.arange(n), -(-n // size))
    seen = (volumes(p).to(device) for p in tqdm(parts, desc=desc, mininterval=5, disable=not show))
    return np.concatenate([answer(v).cpu().numpy() for v in seen])


@torch.inference_mode()
def settle_norms(
    encoder: ImageEncoder, volumes: Volumes, n: int, *, batch_size: int | None = None,
    device: str = "cpu",
) -> None:  # fmt: skip
    """Give the batch norms of random weights the statistics of `n` studies.

    They hold mean 0 and variance 1 until something was trained, and would pass that off as data's.
    """
    size = batch_size or volumes_at_once(volumes(np.array([0])).numel())
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm3d)]
    before = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    encoder.train()
    for part in np.array_split(np.arange(n), max(1, n // size)):
        encoder.embed(volumes(part).to(device))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
