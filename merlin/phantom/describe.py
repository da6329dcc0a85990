"""Numbers about a cohort: flow, prevalence, HU by organ, what a finding changes in the image."""

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import ndimage

from merlin.data.phecodes import TABLES
from merlin.phantom import render, synthesis
from merlin.phantom.findings import FINDINGS, Found
from merlin.phantom.synthesis import Study
from merlin.vocabulary import LABEL, NAMES, STRUCTURES


def flow(manifest: pd.DataFrame) -> pd.DataFrame:
    """Patients and studies from the whole cohort down to splits and sites.

    Returns
    -------
    DataFrame
        `step, n_patients, n_studies`.
    """
    parts = [("all sites", manifest)]
    internal = manifest[manifest["site"] == "internal"]
    parts.append(("internal", internal))
    parts += [
        (f"internal, {s}", internal[internal["split"] == s]) for s in ("train", "val", "test")
    ]
    parts += [
        (f"external, {s}", part)
        for s, part in manifest[manifest["site"] != "internal"].groupby("site", sort=False)
    ]
    return pd.DataFrame(
        [dict(step=n, n_patients=p["patient_id"].nunique(), n_studies=len(p)) for n, p in parts]
    )


def prevalence(manifest: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Share of studies of each site that have each finding, mentioned or not.

    Returns
    -------
    DataFrame
        `site, finding, prevalence, n_studies, n_positive, n_mentioned`.
    """
    site = manifest.set_index("study_id")["site"]
    count = truth.groupby([truth["study_id"].map(site), "finding"]).size()
    rows = []
    for name, part in manifest.groupby("site", sort=False):
        for finding in NAMES:
            only = FINDINGS[finding].only_sex
            n = int((part["sex"] == only).sum()) if only else len(part)
            positive = int(count.get((name, finding), 0))
            rows.append(
                dict(
                    site=name,
                    finding=finding,
                    prevalence=positive / n if n else np.nan,
                    n_studies=n,
                    n_positive=positive,
                    n_mentioned=int(part[f"label_{finding}"].notna().sum()),
                )
            )
    return pd.DataFrame(rows)


def organ_hu(
    hu: np.ndarray, label: np.ndarray, names: dict[int, str], *, source: str
) -> pd.DataFrame:
    """Percentiles of HU inside each labelled organ; its outermost voxels are left out.

    Parameters
    ----------
    hu, label : (R, A, S) arrays
    names : dict of int to str
    source : str
        For the table.
    """
    rows = []
    for number, name in names.items():
        inside = label == number
        core = ndimage.binary_erosion(inside)
        values = hu[core if core.sum() >= 20 else inside]
        if len(values) < 10:
            continue
        p05, median, p95 = np.percentile(values, [5, 50, 95])
        rows.append(
            dict(source=source, organ=name, p05=p05, median=median, p95=p95, n_voxels=len(values))
        )
    return pd.DataFrame(rows)


def real_organ_hu() -> pd.DataFrame:
    """The same percentiles in two labelled real scans, one with contrast agent, kept as numbers.

    Measured with `organ_hu` on the test data of the TotalSegmentator repository (Apache-2.0;
    Wasserthal et al., Radiology: AI 2023): two upper abdomens, so that no pelvic organ is among
    them.
    """
    return pd.read_csv(TABLES / "real_organ_hu.csv")


def add_finding(seed: int, study: Study, name: str, severity: float = 0.6) -> Study:
    """The same study with a finding that it may not have had, and all that is dictated of it."""
    found = {k: v for k, v in study.found.items() if k != name}
    if name == "gallstones":
        found.pop("surgically_absent_gallbladder", None)
    if name == "surgically_absent_gallbladder":
        found.pop("gallstones", None)
    found[name] = Found(severity)
    return synthesis.measured(seed, replace(study, found=found))


def middles(label: np.ndarray) -> tuple[list[int], list[int]]:
    """Voxels to cut through: near the liver's centre at mid-height of a vertebra, and in the spine.

    A cut through an endplate would show dense bone whatever the marrow.
    """
    liver = np.argwhere(label == LABEL["liver"]).mean(0)
    bone = label == LABEL["vertebrae"]
    spine = np.argwhere(
        bone[:, :, int(liver[2])] if bone[:, :, int(liver[2])].any() else bone.any(2)
    )
    i, j = int(np.median(spine[:, 0])), int(np.quantile(spine[:, 1], 0.75))
    depth = ndimage.distance_transform_edt(np.pad(bone[i, j], 1))[
        1:-1
    ]  # into bone, along the spine
    heights = np.flatnonzero(
        (depth >= np.roll(depth, 1)) & (depth >= np.roll(depth, -1)) & (depth > 1)
    )
    k = int(heights[np.abs(heights - liver[2]).argmin()]) if len(heights) else int(liver[2])
    return [int(liver[0]), int(liver[1]), k], [i, j, k]


def viewing_grid(
    *,
    pixel_mm: float = 2.2,
    slice_mm: float = 3.2,
    width_mm: float = 420,
    depth_mm: float = 330,
    height_mm: float = 440,
) -> render.Grid:
    """A grid for looking at phantoms more closely than the cohort's scanners do."""
    shape = (round(width_mm / pixel_mm), round(depth_mm / pixel_mm), round(height_mm / slice_mm))
    return render.Grid(shape, (pixel_mm, pixel_mm, slice_mm), (0.0, 0.0, -10.0))


def slice_grid(
    grid: render.Grid, middle_mm: np.ndarray, axis: int, *, frame_mm: float, pixel_mm: float
) -> render.Grid:
    """One slice across `axis`, 4 to 3, around a point but within a grid: cheaper than a volume."""
    shape = np.full(3, round(0.75 * frame_mm / pixel_mm))
    shape[1 if axis == 0 else 0] = round(frame_mm / pixel_mm)
    shape[axis] = 1
    free = np.maximum(np.array(grid.shape) * grid.spacing_mm - shape * pixel_mm, 0) / 2
    middle = np.clip(middle_mm, grid.centre_mm - free, grid.centre_mm + free)
    return render.Grid(tuple(shape.tolist()), (pixel_mm,) * 3, tuple(middle.tolist()))


def on_grid(hu: np.ndarray, grid: render.Grid, other: render.Grid) -> np.ndarray:
    """A volume (R, A, S) of one grid as the nearest voxels of another show it; air outside."""
    at, is_inside = [], []
    for c in range(3):
        mm = other.low[c] + other.spacing_mm[c] * np.arange(other.shape[c])
        index = np.rint((mm - grid.low[c]) / grid.spacing_mm[c]).astype(int)
        at.append(index.clip(0, grid.shape[c] - 1))
        is_inside.append(index == at[-1])
    return np.where(
        np.logical_and.outer(np.logical_and.outer(*is_inside[:2]), is_inside[2]),
        hu[np.ix_(*at)],
        -1000,
    )


def plain_study(seed: int, patient_id: str = "P-plain", *, sex: str = "M") -> Study:
    """A study of a patient with no findings, from the internal site."""
    site = synthesis.SITES["internal"]
    for i in range(50):
        patient = synthesis.draw_patient(seed, f"{patient_id}{i}", site)
        if patient.sex == sex:
            break
    study = synthesis.draw_study(seed, f"{patient_id}-1", patient, site)
    return synthesis.measured(seed, replace(study, found={}, phase="portal venous"))


LABEL_NAMES = {number: name for name, number in LABEL.items()}


# TotalSegmentator's label ids of the structures that phantoms have.
TOTALSEGMENTATOR = {
    **dict(zip(range(1, 10), STRUCTURES[:9], strict=True)),
    **dict.fromkeys((10, 11), "lung_left"),
    **dict.fromkeys((12, 13, 14), "lung_right"),
    18: "small_bowel",
    19: "duodenum",
    20: "colon",
    21: "urinary_bladder",
    22: "prostate",
    **dict.fromkeys(range(27, 51), "vertebrae"),
    51: "heart",
    52: "aorta",
    63: "inferior_vena_cava",
}


def relabel(label: np.ndarray) -> np.ndarray:
    """TotalSegmentator's label map → ours; other structures become 0."""
    table = np.zeros(int(max(label.max(), max(TOTALSEGMENTATOR))) + 1, np.uint8)
    for number, name in TOTALSEGMENTATOR.items():
        table[number] = LABEL[name]
    return table[label]
