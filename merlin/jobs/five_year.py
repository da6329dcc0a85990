"""Jobs of `08_five_year`: one beginning, fine-tuned on each share of the labels, and left frozen."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from merlin import jobs, run
from merlin.data.preprocess import load_input
from merlin.evaluation.five_year import labels_of
from merlin.model.cpu import prepare_cpu
from merlin.model.i3d import ImageEncoder, inflate_state_dict
from merlin.model.two_towers import feature_shape
from merlin.training import diseases
from merlin.training.adapt import grid_of
from merlin.training.checkpoint import load_weights, read_facts
from merlin.vocabulary import DISEASES

TASK = "five_year"


def beginning(settings: SimpleNamespace, start: str) -> ImageEncoder:
    """The encoder that fine-tuning starts from.

    Parameters
    ----------
    settings : SimpleNamespace
        `weights_2d` is read for `inflated`.
    start : {"merlin", "ehr", "inflated", "random"}
        Pretrained on reports and codes, on codes alone, a 2D network's weights inflated, or none.
    """
    _, main, ehr = jobs.inputs(TASK, settings)
    pretrained, config = {"merlin": main, "ehr": ehr}, load_weights(main)[0].config
    torch.manual_seed(settings.seed)
    if start in pretrained:
        return load_weights(pretrained[start])[0].encode_image
    shape = feature_shape(config.image, config.grid_shape)
    encoder = ImageEncoder(config.image, feature_shape=shape)
    if start == "inflated":
        from safetensors.torch import load_file

        flat = inflate_state_dict(load_file(settings.weights_2d), encoder.i3_resnet)
        encoder.i3_resnet.load_state_dict(flat)
    return encoder


def job(settings: SimpleNamespace, start: str) -> None:
    """Probabilities on the test split for each share of the labels, then the frozen encoder's features.

    The network that begins from our pretraining and sees most labels is kept as `weights.safetensors`.
    """
    prepare_cpu(settings.n_threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base, (source, main, _) = run.folder(settings.profile), jobs.inputs(TASK, settings)
    studies = jobs.internal(source)
    labels = labels_of(studies, DISEASES)
    split = {s: np.flatnonzero(studies["split"] == s) for s in ("train", "test")}
    ids = studies.iloc[split["test"]][["study_id", "patient_id"]].reset_index(drop=True)
    subsets, whole = jobs.training_rows(studies, settings), base / TASK / "weights.safetensors"

    def volumes(rows: np.ndarray) -> Callable:
        return _reader(studies["volume"].iloc[rows].tolist(), main, base / "cache")

    def fine_tuned(fraction: float) -> pd.DataFrame:
        model = diseases.DiseaseModel(beginning(settings, start), len(DISEASES)).to(device)
        rows, test = subsets[fraction], split["test"]
        names = ("batch_size", "learning_rate", "head_learning_rate", "seed")
        diseases.fine_tune(
            model, volumes(rows), labels[rows], desc=f"{start}, {fraction:.0%}", device=device,
            n_steps=settings.n_steps[settings.fractions.index(fraction)], shift_voxels=1,
            **{n: getattr(settings, n) for n in names},
        )  # fmt: skip
        if start == "merlin" and fraction == max(settings.fractions):
            made = read_facts(main) | {"profile": settings.profile, "seed": settings.seed}
            diseases.save_model(whole, model, DISEASES, made)
        p = diseases.predict(model, volumes(test), len(test), device=device)
        return pd.concat([ids, pd.DataFrame(p, columns=list(DISEASES))], axis=1)

    def frozen() -> pd.DataFrame:
        encoder, both = beginning(settings, start).to(device), []
        for name, rows in split.items():
            if start == "random" and name == "train":
                n = min(256, len(rows))
                diseases.settle_norms(encoder, volumes(rows), n, device=device)
            desc = f"{start}, frozen: {name}"
            both.append(
                diseases.features(encoder, volumes(rows), len(rows), device=device, desc=desc)
            )
        return pd.DataFrame(np.concatenate(both)).rename(columns=str)

    if start == "merlin" and not whole.exists():
        best = f"{start}-{max(settings.fractions):g}.parquet"
        (base / TASK / best).unlink(missing_ok=True)
    for fraction in settings.fractions:
        jobs.keep(TASK, settings, f"{start}-{fraction:g}", partial(fine_tuned, fraction))
    jobs.keep(TASK, settings, f"{start}-features", frozen)


def _reader(paths: list, weights: Path, cache: Path) -> Callable:
    """Positions in `paths` → a batch of volumes on the weights' grid."""
    grid = grid_of(weights)
    return lambda index: torch.from_numpy(
        np.stack([load_input(paths[int(i)], grid, cache_dir=cache).image for i in index])
    )[:, None]


if __name__ == "__main__":
    jobs.main(TASK, job)
