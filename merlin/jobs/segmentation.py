"""Jobs of `10_segmentation`: one network with one seed, trained on each share of the label maps and scored."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from merlin import jobs, run
from merlin.data.labels import label_on_grid, whole_scan
from merlin.data.measurements import measure
from merlin.data.preprocess import Grid, load_input
from merlin.data.volume import load_volume
from merlin.evaluation.segmentation import score_scan
from merlin.files import write_parquet
from merlin.model.cpu import prepare_cpu
from merlin.streams import Stream, stream_of
from merlin.training import segmentation
from merlin.training.adapt import grid_of
from merlin.vocabulary import STRUCTURES

TASK = "segmentation"


@dataclass(frozen=True)
class Scan:
    """A scan to segment whole, and how to read what was drawn on it.

    Attributes
    ----------
    study_id, patient_id, split : str
    volume : path
    truth : callable
        (Volume) → label map on the scan's grid, and the structures that were annotated (None: all).
    """

    study_id: str
    patient_id: str
    split: str
    volume: str | Path
    truth: Callable


def job(settings: SimpleNamespace, name: str) -> None:
    """For each share: how one network learnt, on validation, and scores of its label maps of the test scans."""
    prepare_cpu(settings.n_threads)
    source, weights = jobs.inputs(TASK, settings, name)
    studies, base = jobs.internal(source), run.folder(settings.profile)
    grid, cache_dir = grid_of(weights), base / "cache"
    subsets = jobs.training_rows(studies, settings)
    pair = _pairs(studies, grid, cache_dir)
    few = [pair(row)[1] for row in subsets[min(subsets)][:40]]
    class_weights = segmentation.inverse_root_weights(few, len(STRUCTURES) + 1)
    scans = [*_test_scans(studies, settings), *_real_scans(settings), *_public_scans(settings)]
    watched = [pair(row) for row in _watched(studies, settings)]
    (base / TASK).mkdir(exist_ok=True)

    @cache
    def trained(fraction: float) -> tuple:
        rows = subsets[fraction]
        return _trained(settings, name, weights, fraction, (pair, rows), class_weights, watched)

    def curve(fraction: float) -> pd.DataFrame:
        return trained(fraction)[1].assign(model=jobs.seed_of(name)[0], fraction=fraction)

    def scored(fraction: float) -> pd.DataFrame:
        found, organs, net = [], [], trained(fraction)[0]
        for number, scan in enumerate(scans):
            volume = load_volume(scan.volume)
            seen = whole_scan(volume, grid, settings.window)
            logits = segmentation.predict(net, seen.image, **_windows(settings))
            drawn = segmentation.to_native(logits, seen.affine, volume.affine, volume.hu.shape)
            if number == 0:
                np.save(base / TASK / f"example-{name}-{fraction:g}.npy", drawn)
            if scan.split == "test":
                organs.append(
                    {"study_id": scan.study_id} | measure(volume.hu, drawn, volume.affine)
                )
            truth, annotated = scan.truth(volume)
            who = {k: getattr(scan, k) for k in ("study_id", "patient_id", "split")}
            scores = score_scan(drawn, truth, volume.spacing_mm, STRUCTURES, annotated=annotated)
            found += [row | who for row in scores]
        write_parquet(base / TASK / f"measured-{name}-{fraction:g}.parquet", pd.DataFrame(organs))
        return pd.DataFrame(found)

    for fraction in settings.fractions:
        for made, what in (("curve-", curve), ("", scored)):
            table = f"{name}-{made}{fraction:g}"
            jobs.keep(TASK, settings, table, partial(what, fraction), name)


def _trained(
    settings: SimpleNamespace, name: str, weights: Path, fraction: float, examples: tuple,
    class_weights: torch.Tensor, watched: list,
) -> tuple:  # fmt: skip
    """A network, and a row of its curve for each look at the validation scans.

    `merlin` and `scratch` get the same rates, steps and crops; DynUNet nnU-Net's loss and optimiser.
    """
    kind, number = jobs.seed_of(name)
    seed, is_ours = settings.seed + number, kind != "dynunet"
    names = ("norm", "decoder_widths", "light_top", "dynunet_filters")
    how = {n: getattr(settings, n) for n in names}
    net = segmentation.network(kind, weights, len(class_weights), seed=seed, **how).to(_device())
    rates = dict(learning_rate=settings.dynunet_learning_rate, optimizer=settings.dynunet_optimizer)
    if is_ours:
        rates = {n: getattr(settings, n) for n in ("learning_rate", "encoder_learning_rate")}
    steps = settings.n_steps if is_ours else settings.dynunet_steps
    n_steps = steps[settings.fractions.index(fraction)]
    pair, rows = examples

    def watch() -> dict:
        return {
            "dice": segmentation.mean_dice(net, watched, len(class_weights), **_windows(settings))
        }

    log = segmentation.train(
        net, lambda i: pair(rows[i]), len(rows),
        class_weights if is_ours else torch.ones_like(class_weights), window=settings.window,
        n_steps=n_steps, batch_size=settings.batch_size, margin=settings.margin, seed=seed,
        device=_device(), watch=watch, watch_every=-(-n_steps // settings.curve_points),
        desc=f"{name}, {fraction:.0%}", **rates,
    )  # fmt: skip
    made = pd.DataFrame(log).assign(core_seconds=lambda t: t["core_seconds"].cumsum())
    made["seed"] = number
    return net, made[made["dice"].notna()][["seed", "step", "core_seconds", "dice"]]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _windows(settings: SimpleNamespace) -> dict:
    return dict(window=settings.window, overlap=settings.overlap, device=_device())


def _watched(studies: pd.DataFrame, settings: SimpleNamespace) -> np.ndarray:
    """Rows of some validation studies, drawn by the seed."""
    rows = np.flatnonzero(studies["split"] == "val")
    return stream_of(settings.seed, Stream.SEGMENTED, 1).permutation(rows)[: settings.curve_scans]


def _pairs(studies: pd.DataFrame, grid: Grid, cache_dir: Path) -> Callable:
    """Row of a study → its volume and label map on the grid; label maps stay in memory."""

    @cache
    def label(row: int) -> np.ndarray:
        seen = load_input(studies["volume"][row], grid, cache_dir=cache_dir)
        return label_on_grid(studies["label_map"][row], seen.affine, grid.shape)

    def pair(row: int) -> tuple[np.ndarray, np.ndarray]:
        row = int(row)
        return load_input(studies["volume"][row], grid, cache_dir=cache_dir).image, label(row)

    return pair


def _test_scans(studies: pd.DataFrame, settings: SimpleNamespace) -> list[Scan]:
    """The first scan of some test patients, drawn by the seed."""
    tested = studies[studies["split"] == "test"]
    people = tested["patient_id"].drop_duplicates().to_numpy(str)
    chosen = stream_of(settings.cohort_seed, Stream.SEGMENTED).permutation(people)[
        : settings.n_test
    ]

    def truth_of(path: str) -> Callable:  # by affine: the map's axes may differ from the scan's
        return lambda scan: (label_on_grid(path, scan.affine, scan.hu.shape), None)

    tested = tested[tested["patient_id"].isin(chosen)].drop_duplicates("patient_id")
    return [
        Scan(r.study_id, r.patient_id, "test", r.volume, truth_of(r.label_map))
        for r in tested.itertuples()
    ]


def _real_scans(settings: SimpleNamespace) -> list[Scan]:
    """Single scans with label maps in TotalSegmentator's numbering."""
    from merlin.phantom.describe import relabel

    def truth_of(path: str) -> Callable:
        drawn = lambda scan: label_on_grid(run.ROOT / path, scan.affine, scan.hu.shape)  # noqa: E731
        return lambda scan: (relabel(drawn(scan).astype(int)), None)

    names = [f"real {number}" for number in range(1, len(settings.real_scans) + 1)]
    return [
        Scan(name, name, "real", run.ROOT / ct, truth_of(labels))
        for name, (ct, labels) in zip(names, settings.real_scans, strict=True)
    ]


def _public_scans(settings: SimpleNamespace) -> list[Scan]:
    """The test split of TotalSegmentator's folder; structures that nobody annotated are left out."""
    from merlin.readers import totalsegmentator

    if not settings.totalsegmentator:
        return []
    listed, _ = totalsegmentator.read_folder(settings.totalsegmentator)
    found = []
    for row in listed.query("split == 'test'").itertuples():
        truth, _, annotated = totalsegmentator.read_labels(row.segmentations, row.volume)
        if totalsegmentator.has_enough(truth, settings.min_structures):
            known = (truth, annotated)
            found.append(Scan(row.study_id, row.study_id, "real", row.volume, lambda _, k=known: k))
    return found


if __name__ == "__main__":
    jobs.main(TASK, job)
