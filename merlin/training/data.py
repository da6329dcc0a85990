"""Studies for pretraining: what a batch holds, and which studies make it up.

Batches are a function of (seed, step): the order of an epoch is a seeded permutation, and what is
random about an item is drawn from (seed, step). So a resumed run sees what the killed one would
have, and nothing depends on worker processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from merlin.data.extract import section_table
from merlin.data.impression import split_impression
from merlin.data.phecodes import phecode_labels
from merlin.data.preprocess import Grid, load_input
from merlin.streams import Stream, stream_of


@dataclass(frozen=True)
class Studies:
    """Pretraining data of one split. Finding labels have no place here.

    Attributes
    ----------
    study_ids : (n,) str
    patient_ids : (n,) str
    volumes : callable
        Index → (R, A, S) float32 in [0, 1]; reads from the cache, so memory stays flat.
    findings : (n,) str
        Whole findings texts.
    sections : (n, n_sections) str
        The same by anatomical section; empty where a report has none.
    phecodes : (n, n_phecodes) float
        1, 0 or NaN.
    """

    study_ids: np.ndarray
    patient_ids: np.ndarray
    volumes: Callable[[int], np.ndarray]
    findings: np.ndarray
    sections: np.ndarray
    phecodes: np.ndarray

    def __len__(self) -> int:
        return len(self.study_ids)

    def subset(self, keep: np.ndarray) -> "Studies":
        """Studies at the given positions, or where a mask is true."""
        index = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep)
        return Studies(
            self.study_ids[index],
            self.patient_ids[index],
            lambda i: self.volumes(int(index[i])),
            self.findings[index],
            self.sections[index],
            self.phecodes[index],
        )


def batch_indices(n_studies: int, batch_size: int, step: int, *, seed: int) -> np.ndarray:
    """Which studies make up the batch of a step; every study once an epoch, the tail is dropped.

    Raises
    ------
    ValueError
        If there are fewer studies than a batch holds.
    """
    per_epoch = n_studies // batch_size
    if per_epoch == 0:
        raise ValueError(
            f"{n_studies} studies do not fill a batch of {batch_size}. Use more studies or a smaller batch."
        )
    epoch, position = divmod(step, per_epoch)
    order = stream_of(seed, Stream.EPOCH, epoch).permutation(n_studies)
    return order[position * batch_size : (position + 1) * batch_size]


def balanced_batch(
    abnormal: np.ndarray, index: np.ndarray, normal_share: float, rng: np.random.Generator
) -> np.ndarray:
    """A batch of the size of `index` with a given share of studies whose section is normal.

    Parameters
    ----------
    abnormal : (n,) float
        1, 0, or NaN where a report lacks the section; those are not drawn.
    index : (B,) int
        The batch that would come; kept where one of the two kinds does not exist.
    normal_share : float
        In [0, 1].
    rng : numpy.random.Generator

    Returns
    -------
    (B,) int
        Without repeats as long as there are enough of a kind.
    """
    kinds = np.flatnonzero(abnormal == 0), np.flatnonzero(abnormal == 1)
    if min(len(k) for k in kinds) == 0:
        return index
    n_normal = round(normal_share * len(index))
    wanted = n_normal, len(index) - n_normal
    return np.concatenate(
        [rng.choice(k, n, replace=n > len(k)) for k, n in zip(kinds, wanted, strict=True)]
    )


def load_volumes(studies: Studies, index: np.ndarray) -> torch.Tensor:
    """(B, 1, R, A, S) float32 tensor of the studies at `index`."""
    return torch.from_numpy(np.stack([studies.volumes(int(i)) for i in index]))[:, None]


@torch.no_grad()
def encoded(
    encode: Callable[[torch.Tensor], torch.Tensor], studies: Studies, *, batch_size: int,
    device: str = "cpu",
) -> torch.Tensor:  # fmt: skip
    """What `encode` makes of the volumes of all studies, in order, a batch at a time."""
    parts = np.array_split(np.arange(len(studies)), -(-len(studies) // batch_size))
    return torch.cat([encode(load_volumes(studies, part).to(device)) for part in parts])


def augment(
    volume: torch.Tensor, rng: np.random.Generator, *, shift_voxels: int, noise: float, gain: float
) -> torch.Tensor:
    """Shift a batch by whole voxels and disturb its intensities; never mirror.

    Livers lie on the right and reports say so: a mirrored volume would contradict its text.

    Parameters
    ----------
    volume : (B, 1, R, A, S) float tensor
        Changed in place where possible.
    rng : numpy.random.Generator
    shift_voxels : int
        Largest shift along each axis, the same for the whole batch; what moves in is air.
    noise : float
        Standard deviation of added Gaussian noise, in units of the 0..1 image.
    gain : float
        Standard deviation of a factor on each volume.
    """
    if shift_voxels:
        shift = rng.integers(-shift_voxels, shift_voxels + 1, 3)
        volume = torch.roll(volume, tuple(int(s) for s in shift), (2, 3, 4))
        for axis, s in zip((2, 3, 4), shift, strict=True):
            if s:  # what was rolled in from the other side becomes air
                start = 0 if s > 0 else volume.shape[axis] + int(s)
                volume.narrow(axis, start, abs(int(s))).zero_()
    if noise or gain:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        factor = 1 + gain * torch.randn(len(volume), 1, 1, 1, 1, generator=generator)
        volume = volume * factor + noise * torch.randn(volume.shape, generator=generator)
    return volume


def studies_from_manifest(
    manifest: pd.DataFrame, codes: pd.DataFrame, code_map: dict, phecodes: Sequence[str], grid: Grid,
    cache_dir: str | Path, *, uncoded: str = "absent", rollup: str = "map",
    section_headings: bool = False,
) -> Studies:  # fmt: skip
    """Pretraining studies from a checked manifest and its diagnosis codes.

    Labels of findings in the manifest are not looked at: reports and codes are all that training
    sees.

    Parameters
    ----------
    manifest : DataFrame
        From `load_manifest`, with absolute volume paths and report text.
    codes : DataFrame
        `study_id, vocabulary, code`.
    code_map : dict
        From `read_code_map`.
    phecodes : sequence of str
    grid : merlin.data.preprocess.Grid
    cache_dir : path
    uncoded : {"absent", "unknown"}
        As in `phecode_labels`: what is unknown takes no part in the loss.
    rollup : {"map", "paper"}
        Which parents a positive child makes positive.
    section_headings : bool
        Whether a section's text begins with its name.

    Returns
    -------
    Studies
    """
    study_ids = manifest["study_id"].to_numpy(str)
    labels = phecode_labels(codes, study_ids, code_map, phecodes, uncoded=uncoded, rollup=rollup)
    paths = manifest["volume"].tolist()
    texts = manifest["findings"].fillna("")
    findings = texts.map(lambda t: split_impression(t)[0]).to_numpy(object)
    return Studies(
        study_ids=study_ids,
        patient_ids=manifest["patient_id"].to_numpy(str),
        volumes=lambda i: load_input(paths[i], grid, cache_dir=cache_dir).image,
        findings=findings,
        sections=section_table(findings, headings=section_headings),
        phecodes=labels,
    )
