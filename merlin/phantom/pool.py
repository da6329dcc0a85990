"""Phantoms for a network alone: scans on its own grid in one file, with reports and codes.

A scaling law needs thousands of new patients at some hundred voxels' cost each, and nobody ever opens
their scans. So they are looked at on the network's coarse grid straight away, as a scan of the cohort
looks after preprocessing: where its scanner would have put the lattice, with edges and noise as wide
as its finer voxels and the interpolation between them leave them. Studies follow from (seed, study
id), for any number of workers; memory does not grow with their number.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from merlin.data import preprocess
from merlin.data.codes import read_codes
from merlin.data.scan import Volume
from merlin.files import read_csv, write_csv
from merlin.phantom import build, render, synthesis

STEPS = preprocess.CACHE_STEPS  # volumes are stored as round(image * STEPS), as the cache's are
LETTER = "N"  # of patients' ids: nobody of the cohort
# Linear interpolation at any place between voxels h apart adds h²/6 to the h²/12 of their own width,
# and leaves (2/3)³ of the variance of noise that is independent from voxel to voxel.
EDGE_SHARE = 3**0.5
NOISE_SHARE = (2 / 3) ** 1.5
PER_BLOCK = 50  # studies that a worker makes at a time


@dataclass(frozen=True)
class Pool:
    """New patients, one study each.

    Attributes
    ----------
    volumes : (n, R, A, S) uint16
        Mapped from the file; the image is `volumes / STEPS`.
    studies : DataFrame
        As a cohort's manifest.
    codes : DataFrame
        As a cohort's codes.
    """

    volumes: np.ndarray
    studies: pd.DataFrame
    codes: pd.DataFrame

    def image(self, index: int) -> np.ndarray:
        """(R, A, S) float32 in [0, 1]."""
        return np.divide(self.volumes[index], np.float32(STEPS), dtype=np.float32)


def scan(seed: int, study: synthesis.Study, *, matrix: int, grid: preprocess.Grid) -> np.ndarray:
    """A study as the network would see a scan of it.

    Parameters
    ----------
    seed : int
    study : Study
    matrix : int
        Pixels along x and y of the scanner that is stood for.
    grid : merlin.data.preprocess.Grid
        Of the network's input.

    Returns
    -------
    (R, A, S) float32
        In [0, 1]; 0 beyond what the scanner covered.
    """
    own = synthesis.scanner_grid(seed, study, matrix)
    # Where the scanner's voxels lie on the network's lattice: ones where there is a scan.
    covered = preprocess.preprocess(
        Volume(hu=np.broadcast_to(np.int16(3000), own.shape), affine=own.affine), grid
    )
    inside = np.argwhere(covered.image > 0)
    low, high = inside.min(0), inside.max(0) + 1
    spacing = np.array(grid.spacing_mm)
    centre = covered.affine[:3, 3] + spacing * (low + high - 1) / 2
    box = render.Grid(tuple((high - low).tolist()), grid.spacing_mm, tuple(centre.tolist()))
    edge = EDGE_SHARE * float(np.mean(own.spacing_mm))
    hu, _, _ = synthesis.acquire(
        seed, study, matrix=matrix, grid=box, edge_mm=edge, noise_share=NOISE_SHARE
    )
    bottom, top = grid.hu_window
    image = np.zeros(grid.shape, np.float32)
    image[tuple(map(slice, low, high))] = np.clip((hu - bottom) / (top - bottom), 0, 1)
    return image


def make(
    folder: str | Path, n: int, *, like: build.Job, grid: preprocess.Grid, n_workers: int
) -> None:
    """Make a pool of `n` studies in a folder: `volumes.npy`, `studies.csv`, `codes.csv`.

    Parameters
    ----------
    folder : path
    n : int
        Studies, each of a patient of its own; those of a smaller pool are the first of a larger one.
    like : merlin.phantom.build.Job
        The cohort's: the same population, scanners and reports, but for the patient.
    grid : merlin.data.preprocess.Grid
    n_workers : int
        Processes; 0 works in this one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "volumes.partial"
    np.lib.format.open_memmap(file, "w+", np.uint16, (n, *grid.shape)).flush()
    blocks = [range(a, min(a + PER_BLOCK, n)) for a in range(0, n, PER_BLOCK)]
    work = partial(_block, file=file, like=like, grid=grid)
    rows: list[dict] = []
    codes: list[pd.DataFrame] = []
    # spawn: the parent may hold threads, which a fork would break.
    with get_context("spawn").Pool(n_workers) if n_workers else nullcontext() as workers:
        progress = tqdm(total=n, desc="phantoms", mininterval=5)
        for made, coded in (workers.imap if workers else map)(work, blocks):
            rows += made
            codes.append(coded)
            progress.update(len(made))
        progress.close()
    write_csv(folder / "studies.csv", pd.DataFrame(rows))
    write_csv(folder / "codes.csv", pd.concat(codes, ignore_index=True))
    file.replace(folder / "volumes.npy")


def _block(
    block: range, file: Path, like: build.Job, grid: preprocess.Grid
) -> tuple[list[dict], pd.DataFrame]:
    """Make some studies: volumes into the file, rows of the manifest and codes back."""
    volumes = np.load(file, mmap_mode="r+")
    rows, codes = [], []
    for number in block:

        def picture(
            job: build.Job, study: synthesis.Study, number: int = number
        ) -> tuple[str, str]:
            image = scan(job.seed, study, matrix=job.matrix, grid=grid)
            volumes[number] = np.rint(image * STEPS)
            return "", ""

        made = build.make_patient(
            replace(like, patient_id=f"{LETTER}{number:06d}", n_visits=1), picture
        )
        rows += made["manifest"]
        codes.append(made["codes"])
    volumes.flush()
    return rows, pd.concat(codes, ignore_index=True)


def read(folder: str | Path) -> Pool:
    """A pool that was made; its volumes stay in the file."""
    folder = Path(folder)
    studies = read_csv(folder / "studies.csv", dtype=str)
    volumes = np.load(folder / "volumes.npy", mmap_mode="r")
    return Pool(volumes, studies, read_codes(folder / "codes.csv"))
