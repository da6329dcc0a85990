"""Looks at phantoms, and at a real scan beside them: slices and organs' HU as tables for a figure."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage

from merlin.data.preprocess import Grid, preprocess
from merlin.data.slices import images_to_table, three_planes
from merlin.data.volume import load_volume
from merlin.phantom import describe, synthesis
from merlin.run import read_yaml
from merlin.vocabulary import NAMES

HEIGHTS = {"upper abdomen": 0.66, "kidneys": 0.5, "pelvis": 0.16, "lung bases": 0.82}
IN_WORDS = Path(describe.__file__).parent / "in_words.yaml"


@dataclass(frozen=True)
class Look:
    """A scan on the viewing grid.

    Attributes
    ----------
    key, title : str
        Of its row in the figure.
    spacing_mm : (3,) float
    hu : (R, A, S) float or int
    organs : DataFrame
        From `describe.organ_hu`; empty where no label map is at hand.
    """

    key: str
    title: str
    spacing_mm: tuple[float, ...]
    hu: np.ndarray
    organs: pd.DataFrame


def phantoms(seed: int, n: int) -> list[Look]:
    """The first patients of the internal site, viewed more closely than by the cohort's scanners."""
    grid, site, found = describe.viewing_grid(), synthesis.SITES["internal"], []
    for number in range(n):
        patient = synthesis.draw_patient(seed, f"P{number:05d}", site)
        scan = synthesis.draw_study(seed, f"P{number:05d}-1", patient, site)
        hu, label, _ = synthesis.acquire(seed, scan, matrix=0, grid=grid)
        organs = describe.organ_hu(hu, label, describe.LABEL_NAMES, source="phantom")
        title = f"phantom, {patient.sex}, {scan.age} y"
        found.append(Look(f"p{number}", title, grid.spacing_mm, hu, organs))
    return found


def real(scan: str, labels: str = "") -> list[Look]:
    """A scan of the reader's own on the same grid; none where no scan is given.

    Parameters
    ----------
    scan : path
        NIfTI file or DICOM folder, or empty.
    labels : path
        Its TotalSegmentator label map, or empty.
    """
    if not scan:
        return []
    grid, volume = describe.viewing_grid(), load_volume(scan)
    seen = preprocess(volume, Grid(grid.spacing_mm, grid.shape, (-1000, 1000)))
    organs = pd.DataFrame()
    if labels:
        label = describe.relabel(
            np.asarray(cast(SpatialImage, nib.load(labels)).dataobj).astype(int)
        )
        organs = describe.organ_hu(volume.hu, label, describe.LABEL_NAMES, source="real")
    return [Look("real", "real CT", grid.spacing_mm, seen.image * 2000 - 1000, organs)]


def tables(looks: Iterable[Look]) -> dict[str, pd.DataFrame]:
    """`slices` and `rows` of the figure `phantom_ct`."""
    views, rows = {}, []
    for look in looks:
        hu = look.hu
        for name, height in HEIGHTS.items():
            at = (95, 75, int(height * hu.shape[2]))
            views[f"{look.key}|{name}"] = three_planes(hu, at)[0]
        views[f"{look.key}|coronal"] = three_planes(hu, (95, int(0.52 * hu.shape[1]), 60))[1]
        views[f"{look.key}|sagittal"] = three_planes(hu, (hu.shape[0] // 2, 70, 60))[2]
        rows.append((look.key, look.title, *look.spacing_mm[::2]))
    about = pd.DataFrame(rows, columns=["key", "title", "pixel_mm", "slice_mm"])
    return {"slices": images_to_table(views), "rows": about}


def organs(looks: Iterable[Look]) -> pd.DataFrame:
    """HU by organ, averaged over phantoms, beside the real scan's or two that are kept as numbers."""
    parts = [look.organs for look in looks if len(look.organs)]
    if not any((p["source"] == "real").any() for p in parts):
        parts.append(describe.real_organ_hu())
    whole = pd.concat(parts).groupby(["source", "organ"], sort=False, as_index=False)
    return whole.mean(numeric_only=True)


def gallery(seed: int, *, severity: float = 0.6) -> dict[str, pd.DataFrame]:
    """One study without and with each finding, on the slice that changes most.

    Returns
    -------
    dict
        "": `finding, changed_ml` (by more than 25 HU); `slices`: the pairs of pictures.
    """
    plain = describe.plain_study(seed)
    near = describe.viewing_grid(pixel_mm=3.0, slice_mm=4.0)
    without, _, _ = synthesis.acquire(seed, plain, matrix=0, grid=near)
    pairs, changes = {}, []
    for name in NAMES:
        ill = describe.add_finding(seed, plain, name, severity)
        with_, _, _ = synthesis.acquire(seed, ill, matrix=0, grid=near)
        changed = np.abs(with_.astype(int) - without) > 25
        k = int(changed.sum((0, 1)).argmax())
        pairs[f"{name}|without"] = three_planes(without, (0, 0, k))[0]
        pairs[f"{name}|with"] = three_planes(with_, (0, 0, k))[0]
        changes.append((name, changed.sum() * np.prod(near.spacing_mm) / 1000))
    table = pd.DataFrame(changes, columns=["finding", "changed_ml"])
    return {"": table, "slices": images_to_table(pairs)}


def in_words() -> pd.DataFrame:
    """What each finding is, in a line, for a reader who is no radiologist; by finding."""
    said = pd.Series(read_yaml(IN_WORDS), name="what it is").loc[list(NAMES)]
    return said.to_frame().rename_axis("finding")
