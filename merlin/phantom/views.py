"""Looks at phantoms, and at a real scan beside them: slices and organs' HU as tables for a figure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
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
from merlin.vocabulary import LABEL, NAMES

HEIGHTS = {"upper abdomen": 0.66, "kidneys": 0.5, "pelvis": 0.16, "lung bases": 0.82}
PLANES = ("sagittal", "coronal", "axial")  # by the axis of an array (R, A, S) that they cut
PIXEL_MM = 2.5  # pixels of the gallery
# Where a radiologist looks for it: plane, window by name, and the width of the picture in mm.
SEEN = {
    "submucosal_edema": ("coronal", "soft tissue", 320),
    "renal_hypodensities": ("coronal", "soft tissue", 240),
    "aortic_valve_calcification": ("axial", "bone", 240),
    "coronary_calcification": ("axial", "bone", 240),
    "thrombosis": ("coronal", "soft tissue", 240),
    "metastatic_disease": ("axial", "liver", 320),
    "pancreatic_atrophy": ("axial", "soft tissue", 240),
    "renal_cyst": ("axial", "soft tissue", 240),
    "osteopenia": ("sagittal", "bone", 240),
    "surgically_absent_gallbladder": ("axial", "soft tissue", 240),
    "atelectasis": ("axial", "lung", 320),
    "abdominal_aortic_aneurysm": ("axial", "soft tissue", 240),
    "anasarca": ("axial", "soft tissue", 408),
    "hiatal_hernia": ("sagittal", "soft tissue", 240),
    "lymphadenopathy": ("axial", "soft tissue", 240),
    "prostatomegaly": ("sagittal", "soft tissue", 240),
    "biliary_ductal_dilation": ("axial", "liver", 240),
    "cardiomegaly": ("axial", "soft tissue", 408),
    "splenomegaly": ("coronal", "soft tissue", 408),
    "hepatomegaly": ("coronal", "soft tissue", 408),
    "atherosclerosis": ("sagittal", "bone", 240),
    "ascites": ("coronal", "soft tissue", 408),
    "pleural_effusion": ("axial", "soft tissue", 408),
    "hepatic_steatosis": ("axial", "liver", 408),
    "appendicitis": ("axial", "soft tissue", 240),
    "gallstones": ("axial", "soft tissue", 240),
    "hydronephrosis": ("coronal", "soft tissue", 320),
    "bowel_obstruction": ("coronal", "soft tissue", 408),
    "free_air": ("axial", "lung", 408),
    "fracture": ("sagittal", "bone", 240),
}
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
        From `describe.organ_hu`, of a real scan with a label map; else empty.
    """

    key: str
    title: str
    spacing_mm: tuple[float, ...]
    hu: np.ndarray
    organs: pd.DataFrame = field(default_factory=pd.DataFrame)


def phantoms(seed: int, n: int) -> list[Look]:
    """The first patients of the internal site, viewed more closely than by the cohort's scanners."""
    grid, site, found = describe.viewing_grid(), synthesis.SITES["internal"], []
    for number in range(n):
        patient = synthesis.draw_patient(seed, f"P{number:05d}", site)
        scan = synthesis.draw_study(seed, f"P{number:05d}-1", patient, site)
        hu, _, _ = synthesis.acquire(seed, scan, matrix=0, grid=grid)
        title = f"phantom, {patient.sex}, {scan.age} y"
        found.append(Look(f"p{number}", title, grid.spacing_mm, hu))
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


def organs(seed: int, looks: Iterable[Look], *, n: int = 3) -> pd.DataFrame:
    """HU by organ: the mean of `n` phantoms, beside real scans, each alone.

    Phantoms are without findings and in the portal venous phase. The real scans are the reader's
    own, or two that are kept as numbers, one with contrast agent and one without.
    """
    grid, parts = describe.viewing_grid(pixel_mm=3.0, slice_mm=4.0), []
    for i in range(n):
        plain = describe.plain_study(seed, f"P-organs{i}-", sex="M")
        hu, label, _ = synthesis.acquire(seed, plain, matrix=0, grid=grid)
        parts.append(describe.organ_hu(hu, label, describe.LABEL_NAMES, source="phantom"))
    own = [look.organs for look in looks if len(look.organs)]
    table = pd.concat(parts + (own or [describe.real_organ_hu()]))
    return table.groupby(["source", "organ"], sort=False, as_index=False).mean(numeric_only=True)


def gallery(seed: int, *, severity: float = 0.6) -> dict[str, pd.DataFrame]:
    """One study without and with each finding, and as the model's grid shows it.

    Each in the plane and window of `SEEN`, on the slice that changes most.

    Returns
    -------
    dict
        "": `finding, changed_ml` (by more than 25 HU), `plane, window`; `slices`: the pictures, in
        pixels of 2.5 mm.
    """
    plain = describe.plain_study(seed)
    grid = describe.viewing_grid(pixel_mm=5.0, slice_mm=8.0)  # the model's
    before, _, _ = synthesis.acquire(seed, plain, matrix=0, grid=grid)
    pictures, changes = {}, []
    for name in NAMES:
        ill = describe.add_finding(seed, plain, name, severity)
        model, label, _ = synthesis.acquire(seed, ill, matrix=0, grid=grid)
        changed = np.abs(model.astype(int) - before) > 25
        ml = changed.sum() * np.prod(grid.spacing_mm) / 1000
        plane, window, frame_mm = SEEN[name]
        if name == "hiatal_hernia":  # itself, not the heart that it moves
            changed &= label == LABEL["stomach"]
        axis = PLANES.index(plane)
        middle = np.array([np.median(at) for at in np.nonzero(changed)])
        middle[axis] = changed.sum(tuple(i for i in range(3) if i != axis)).argmax()
        at = grid.low + middle * grid.spacing_mm
        frame = describe.slice_grid(grid, at, axis, frame_mm=frame_mm, pixel_mm=PIXEL_MM)
        for which, study in (("without", plain), ("with", ill)):
            hu, _, _ = synthesis.acquire(seed, study, matrix=0, grid=frame)
            pictures[f"{name}|{which}"] = three_planes(hu, (0, 0, 0))[2 - axis]
        seen = describe.on_grid(model, grid, frame)
        pictures[f"{name}|model"] = three_planes(seen, (0, 0, 0))[2 - axis]
        changes.append((name, ml, plane, window))
    table = pd.DataFrame(changes, columns=["finding", "changed_ml", "plane", "window"])
    return {"": table, "slices": images_to_table(pictures)}


def in_words() -> pd.DataFrame:
    """What each finding is, in a line, for a reader who is no radiologist; by finding."""
    said = pd.Series(read_yaml(IN_WORDS), name="what it is").loc[list(NAMES)]
    return said.to_frame().rename_axis("finding")
