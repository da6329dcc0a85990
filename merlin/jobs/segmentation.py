"""Jobs of `10_segmentation`: one network, trained on each share of the label maps and scored on the test scans."""

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
from merlin.data.preprocess import Grid, load_input
from merlin.data.volume import load_volume
from merlin.evaluation.segmentation import score_scan
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


def job(settings: SimpleNamespace, kind: str) -> None:
    """Scores of one network's label maps, a row for each structure of each scan, for each share."""
    prepare_cpu(settings.n_threads)
    source, weights = jobs.inputs(TASK, settings)
    studies, base = jobs.internal(source), run.folder(settings.profile)
    grid, cache_dir = grid_of(weights), base / "cache"
    subsets = jobs.training_rows(studies, settings)
    pair = _pairs(studies, grid, cache_dir)
    few = [pair(row)[1] for row in subsets[min(subsets)][:40]]
    class_weights = segmentation.inverse_root_weights(few, len(STRUCTURES) + 1)
    scans = [*_test_scans(studies, settings), *_real_scans(settings), *_public_scans(settings)]
    (base / TASK).mkdir(exist_ok=True)

    def scored(fraction: float) -> pd.DataFrame:
        rows, rates = subsets[fraction], dict(learning_rate=settings.learning_rate)
        if kind == "merlin":
            rates["encoder_learning_rate"] = settings.encoder_learning_rate
        steps = settings.dynunet_steps if kind == "dynunet" else settings.n_steps
        names = ("seed", "norm", "decoder_widths", "light_top", "dynunet_filters")
        how = {n: getattr(settings, n) for n in names}
        net = segmentation.network(kind, weights, len(class_weights), **how)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        segmentation.train(
            net.to(device), lambda i: pair(rows[i]), len(rows), class_weights, window=settings.window,
            n_steps=steps[settings.fractions.index(fraction)], batch_size=settings.batch_size,
            margin=settings.margin, seed=settings.seed, device=device,
            desc=f"{kind}, {fraction:.0%}", **rates,
        )  # fmt: skip
        found = []
        for number, scan in enumerate(scans):
            volume = load_volume(scan.volume)
            seen = whole_scan(volume, grid, settings.window)
            drawn = segmentation.predict_native(
                net, seen.image, seen.affine, volume.affine, volume.hu.shape, window=settings.window,
                overlap=settings.overlap, device=device,
            )  # fmt: skip
            if number == 0:
                np.save(base / TASK / f"example-{kind}-{fraction:g}.npy", drawn)
            truth, annotated = scan.truth(volume)
            who = {k: getattr(scan, k) for k in ("study_id", "patient_id", "split")}
            scores = score_scan(drawn, truth, volume.spacing_mm, STRUCTURES, annotated=annotated)
            found += [row | who for row in scores]
        return pd.DataFrame(found)

    for fraction in settings.fractions:
        jobs.keep(TASK, settings, f"{kind}-{fraction:g}", partial(scored, fraction))


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
    """All scans of some test patients, drawn by the seed."""
    tested = studies[studies["split"] == "test"]
    people = tested["patient_id"].drop_duplicates().to_numpy(str)
    chosen = stream_of(settings.cohort_seed, Stream.SEGMENTED).permutation(people)[
        : settings.n_test
    ]

    def truth_of(path: str) -> Callable:  # by affine: the map's axes may differ from the scan's
        return lambda scan: (label_on_grid(path, scan.affine, scan.hu.shape), None)

    tested = tested[tested["patient_id"].isin(chosen)]
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
