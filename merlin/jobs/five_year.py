"""Jobs of `08_five_year`: one beginning with one seed, fine-tuned on each share of the labels."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from merlin import jobs, run
from merlin.data.preprocess import load_input
from merlin.evaluation.five_year import labels_of
from merlin.evaluation.rivals import mean_auroc
from merlin.model.cpu import prepare_cpu
from merlin.model.i3d import ImageEncoder, inflate_state_dict
from merlin.model.two_towers import feature_shape
from merlin.training import diseases
from merlin.training.adapt import grid_of
from merlin.training.checkpoint import load_weights, read_facts
from merlin.vocabulary import DISEASES

TASK = "five_year"


def beginning(settings: SimpleNamespace, name: str) -> ImageEncoder:
    """The encoder that fine-tuning starts from.

    Parameters
    ----------
    settings : SimpleNamespace
        `weights_2d` is read for `inflated`.
    name : str
        `merlin`, `ehr`, `inflated` or `random`: pretrained on reports and codes, on codes alone, a 2D
        network's weights inflated, or none; with `-1` behind it, that of the first further seed. Codes
        alone were pretrained once.
    """
    start, seed = jobs.seed_of(name)
    _, main, *codes_alone = jobs.inputs(TASK, settings, name)
    pretrained = dict(zip(("merlin", "ehr"), (main, *codes_alone), strict=False))
    config = load_weights(main)[0].config
    torch.manual_seed(settings.seed + seed)
    if start in pretrained:
        return load_weights(pretrained[start])[0].encode_image
    shape = feature_shape(config.image, config.grid_shape)
    encoder = ImageEncoder(config.image, feature_shape=shape)
    if start == "inflated":
        from safetensors.torch import load_file

        flat = inflate_state_dict(load_file(settings.weights_2d), encoder.i3_resnet)
        encoder.i3_resnet.load_state_dict(flat)
    return encoder


@dataclass(frozen=True)
class Cohort:
    """What a job reads.

    Attributes
    ----------
    studies : DataFrame
        Of the training site.
    labels : (n, n_diseases) float
    shares : dict of float to (n,) int
        Rows of the training studies, by share.
    volumes : callable
        Rows → a callable from positions in them to a batch.
    device : str
    """

    studies: pd.DataFrame
    labels: np.ndarray
    shares: dict[float, np.ndarray]
    volumes: Callable
    device: str

    def rows(self, split: str) -> np.ndarray:
        """Rows of a split."""
        return np.flatnonzero(self.studies["split"] == split)


def job(settings: SimpleNamespace, name: str) -> None:
    """Probabilities on the test split for each share of the labels; of random weights, frozen features too.

    Every beginning gets the same steps and tries the same learning rates: the first seed takes, share by
    share, that of the best mean AUROC on validation, and the further seeds take it over. The network that
    begins from our pretraining and sees most labels is kept as `weights.safetensors`.
    """
    prepare_cpu(settings.n_threads)
    base, (source, main, *_) = run.folder(settings.profile), jobs.inputs(TASK, settings, name)
    studies = jobs.internal(source)

    def volumes(rows: np.ndarray) -> Callable:
        return reader(studies["volume"].iloc[rows].tolist(), main, base / "cache")

    cohort = Cohort(
        studies, labels_of(studies, DISEASES), jobs.training_rows(studies, settings), volumes,
        "cuda" if torch.cuda.is_available() else "cpu",
    )  # fmt: skip
    if name == "merlin" and not (base / TASK / "weights.safetensors").exists():
        best = f"{name}-{max(settings.fractions):g}.parquet"
        (base / TASK / best).unlink(missing_ok=True)
    for fraction in settings.fractions:
        make = partial(predicted, settings, name, cohort, fraction)
        jobs.keep(TASK, settings, f"{name}-{fraction:g}", make, name)
    if f"{name}-features" in jobs.tables(TASK, settings)[name]:
        make = partial(frozen, settings, name, cohort)
        jobs.keep(TASK, settings, f"{name}-features", make, name)


def predicted(
    settings: SimpleNamespace, name: str, cohort: Cohort, fraction: float
) -> pd.DataFrame:
    """`study_id, patient_id`, a probability a disease, `learning_rate`, and what others `tried` gave."""
    start, seed = jobs.seed_of(name)
    val, test, train = cohort.rows("val"), cohort.rows("test"), cohort.shares[fraction]
    rates = list(settings.learning_rates)
    if seed:
        first = jobs.read(TASK, settings, start)[f"{start}-{fraction:g}"]
        rates = [first["learning_rate"].iloc[0]]
    tried: dict[float, float] = {}
    networks: dict[float, diseases.DiseaseModel] = {}
    for rate in rates:
        model = diseases.DiseaseModel(beginning(settings, name), len(DISEASES))
        at_once = {k: getattr(settings, k) for k in ("precision", "chunk", "checkpointing")}
        if settings.tier == "full":
            sys.stdout.write(f"{name}, {fraction:.0%}: {_cost(settings, model, name)}\n")
        kept = run.folder(settings.profile) / TASK / f"{name}-{fraction:g}-{rate:g}.pt"
        diseases.fine_tune(
            model.to(cohort.device), cohort.volumes(train), cohort.labels[train],
            **at_once, desc=f"{name}, {fraction:.0%}",
            n_steps=settings.n_steps[settings.fractions.index(fraction)], shift_voxels=1,
            batch_size=settings.batch_size, learning_rate=rate, seed=settings.seed + seed,
            head_learning_rate=settings.head_learning_rate, device=cohort.device,
            checkpoint=kept, save_every=settings.save_every,
            fingerprint=run.fingerprint(jobs.mark(TASK, settings, name), fraction, rate),
        )  # fmt: skip
        kept.unlink(missing_ok=True)
        networks[rate] = model
        if len(rates) > 1:
            p = diseases.predict(model, cohort.volumes(val), len(val), device=cohort.device)
            tried[rate] = mean_auroc(p, cohort.labels[val])
    rate = max(tried, key=lambda r: np.nan_to_num(tried[r])) if tried else rates[0]
    if name == "merlin" and fraction == max(settings.fractions):
        _, main, *_ = jobs.inputs(TASK, settings)
        made = read_facts(main) | {"profile": settings.profile, "seed": settings.seed}
        whole = run.folder(settings.profile) / TASK / "weights.safetensors"
        diseases.save_model(whole, networks[rate], DISEASES, made)
    p = diseases.predict(networks[rate], cohort.volumes(test), len(test), device=cohort.device)
    ids = cohort.studies.iloc[test][["study_id", "patient_id"]].reset_index(drop=True)
    said = "; ".join(f"{r:g}: {v:.3f}" for r, v in tried.items())
    found = pd.DataFrame(p, columns=list(DISEASES))
    return pd.concat([ids, found], axis=1).assign(learning_rate=rate, tried=said)


def _cost(settings: SimpleNamespace, model: diseases.DiseaseModel, name: str) -> str:
    """Memory that fine-tuning will take, in words."""
    shape = grid_of(jobs.inputs(TASK, settings, name)[1]).shape
    n = min(settings.chunk or settings.batch_size, settings.batch_size)
    how = dict(precision=settings.precision, checkpointing=settings.checkpointing)
    need = diseases.estimate_bytes(model, shape, n_at_once=n, **how)["total"] / 1e9
    return f"about {need:.1f} GB of memory, {n} volumes of {tuple(shape)} at once"


def frozen(settings: SimpleNamespace, name: str, cohort: Cohort) -> pd.DataFrame:
    """`study_id`, and a column a feature of the encoder as it begins; of all studies."""
    encoder = beginning(settings, name).to(cohort.device)
    if jobs.seed_of(name)[0] == "random":
        first = cohort.shares[max(cohort.shares)][:256]
        diseases.settle_norms(encoder, cohort.volumes(first), len(first), device=cohort.device)
    n = len(cohort.studies)
    read = cohort.volumes(np.arange(n))
    found = diseases.features(encoder, read, n, device=cohort.device, desc=f"{name}, frozen")
    return pd.DataFrame(found).rename(columns=str).assign(study_id=cohort.studies["study_id"])


def reader(paths: list, weights: Path, cache: Path) -> Callable:
    """Positions in `paths` → a batch of volumes on the weights' grid."""
    grid = grid_of(weights)
    return lambda index: torch.from_numpy(
        np.stack([load_input(paths[int(i)], grid, cache_dir=cache).image for i in index])
    )[:, None]


if __name__ == "__main__":
    jobs.main(TASK, job)
