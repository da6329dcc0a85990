"""(seed, study id) → one synthetic study: a patient, what is wrong with them, and their CT.

Everything is drawn from named streams of one seed, so a study is the same whoever makes it, in
whatever order, on however many workers; and a study without one of its findings is the same study
in all else. `draw_*` decide, `acquire` makes the picture.

Array axes are (R, A, S) until `acquire` stores the volume as the scanner at hand would.
"""

import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.special import ndtri

from merlin.phantom import anatomy, measure, render, torso
from merlin.phantom.body import N_LOOPS, PHASES, Body
from merlin.phantom.findings import FACTORS, FINDINGS, Finding, Found, degree
from merlin.phantom.remarks import remarks_of
from merlin.vocabulary import LABEL


def stream(seed: int, *names: object) -> np.random.Generator:
    """Independent generator for a named part of the cohort."""
    return np.random.default_rng([seed, *(zlib.crc32(str(n).encode()) for n in names)])


@dataclass(frozen=True)
class Site:
    """Where scans come from: scanners, patients and habits."""

    name: str
    noise_hu: tuple[float, float]
    slice_mm: tuple[float, float]
    axcodes: tuple[str, ...]
    manufacturers: tuple[str, ...]
    phase_share: tuple[float, float, float]  # portal venous, arterial, non-contrast
    patient_letter: str  # of patients' ids
    liability_shift: float = 0.0  # added to every finding's liability
    hu_gain: float = 1.0  # calibration of soft tissue and contrast
    age_shift: float = 0.0
    readers: tuple[str, ...] = ()  # who dictate: see readers.py
    test_readers: tuple[str, ...] = ()  # who dictate for a third of the test patients
    is_spine: bool = False


def _site(name: str, facts: dict[str, Any]) -> Site:
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
    return Site(name, **plain)


_SAID = yaml.safe_load((Path(__file__).parent / "sites.yaml").read_text(encoding="utf-8"))
SITES = {name: _site(name, facts) for name, facts in _SAID.items()}


@dataclass(frozen=True)
class Patient:
    """What does not change from one scan to the next."""

    patient_id: str
    sex: str
    age: int  # at the first scan, years
    fat: float  # subcutaneous, mm
    girth: float  # of the abdominal cavity, 1 is average
    height: float
    factors: dict[str, float]  # shared risks, standard normal
    bone: float  # standard normal, high is dense
    renal: float  # standard normal, high is small scarred kidneys


@dataclass(frozen=True)
class Study:
    """One scan of one patient."""

    study_id: str
    patient: Patient
    site: Site
    age: int
    days: int  # since the patient's first scan
    phase: str
    manufacturer: str
    axcodes: str
    slice_mm: float
    noise_hu: float
    field_mm: float
    found: dict[str, Found]
    remarks: tuple[str, ...] = ()  # what else a report may truly say, by name


def draw_patient(seed: int, patient_id: str, site: Site) -> Patient:
    """The patient behind `patient_id` at `site`."""
    rng = stream(seed, patient_id)
    sex = "F" if rng.random() < 0.54 else "M"
    age = int(np.clip(rng.normal(58 + site.age_shift, 16), 18, 92))
    factors = dict(zip(FACTORS, rng.normal(size=len(FACTORS)), strict=True))
    habitus = 0.6 * factors["metabolic"] + 0.8 * rng.normal()
    return Patient(
        patient_id=patient_id,
        sex=sex,
        age=age,
        fat=float(np.clip(21 + 9 * habitus + (4 if sex == "F" else 0), 6, 52)),
        girth=float(np.clip(1 + 0.06 * habitus + rng.normal(0, 0.03), 0.85, 1.2)),
        height=float(np.clip((0.96 if sex == "F" else 1.02) + rng.normal(0, 0.035), 0.88, 1.12)),
        factors=factors,
        bone=float(rng.normal()),
        renal=float(0.35 * factors["vascular"] + 0.35 * factors["metabolic"] + 0.86 * rng.normal()),
    )


def reader_of(seed: int, study_id: str, patient_id: str, site: Site, split: str) -> str:
    """Who dictates a study. A third of the internal test patients have readers of their own."""
    readers = site.readers
    if split == "test" and site.test_readers:
        if stream(seed, patient_id, "reader").random() < 1 / 3:
            readers = site.test_readers
    return str(stream(seed, study_id, "reader").choice(readers))


def liability(finding: Finding, patient: Patient, age: int, site: Site, noise: float) -> float:
    """Standard normal liability of a finding; the study has it above Φ⁻¹(1 - prevalence)."""
    loadings = [finding.age, *(w for _, w in finding.factors)]
    values = [(age - 58) / 16, *(patient.factors[f] for f, _ in finding.factors)]
    rest = np.sqrt(max(1 - np.sum(np.square(loadings)), 0.05))
    return float(np.dot(loadings, values) + rest * noise + site.liability_shift)


def draw_study(seed: int, study_id: str, patient: Patient, site: Site, *, visit: int = 0) -> Study:
    """One scan of `patient`; `visit` counts from 0 and later visits keep chronic findings."""
    rng = stream(seed, study_id)
    gaps = stream(seed, patient.patient_id, "visits").integers(60, 420, 8)
    days = int(gaps[:visit].sum())
    age = patient.age + days // 365
    found = {}
    for name, finding in FINDINGS.items():
        chronic = stream(seed, patient.patient_id, name).normal()
        own = stream(seed, study_id, name)
        noise = 0.85 * chronic + np.sqrt(1 - 0.85**2) * own.normal()
        rate = 0.5 if site.is_spine and name == "fracture" else finding.prevalence
        is_open = not finding.only_sex or finding.only_sex == patient.sex
        above = liability(finding, patient, age, site, noise) - ndtri(1 - rate)
        if is_open and above > 0:
            found[name] = Found(float(np.clip(own.beta(1.9, 1.1), 0.06, 1)))
    if "surgically_absent_gallbladder" in found:
        found.pop("gallstones", None)
    study = Study(
        study_id=study_id,
        patient=patient,
        site=site,
        age=age,
        days=days,
        phase=PHASES[rng.choice(3, p=site.phase_share)],
        manufacturer=str(rng.choice(site.manufacturers)),
        axcodes=str(rng.choice(site.axcodes)),
        slice_mm=float(np.round(rng.uniform(*site.slice_mm) * 4) / 4),
        noise_hu=float(rng.uniform(*site.noise_hu) * (1 + 0.01 * (patient.fat - 20))),
        field_mm=float(rng.uniform(1.02, 1.22)),
        found=found,
    )
    return measured(seed, study)


def measured(seed: int, study: Study) -> Study:
    """The study with what can be dictated of it, measured on its anatomy.

    An enlarged organ that does not pass its limit (`measure.LIMITS`) is made grosser until it does.
    """
    found = dict(study.found)
    for _ in range(8):
        body, details = _body(seed, replace(study, found=found), without=())
        enlarged = [n for n in measure.LIMITS if n in found]
        if not enlarged:
            break
        scene = anatomy.scene(body, stream(seed, study.study_id, "bowel"))
        sizes = {n: measure.measure(n, body, scene) for n in enlarged}
        small = [n for n in enlarged if sizes[n].value <= measure.LIMITS[n]]
        details |= {n: details[n] | {"size_mm": sizes[n].size_mm} for n in enlarged}
        if not small:
            break
        found |= {n: Found(min(found[n].severity + 0.15, 1.0)) for n in small}
    return replace(
        study,
        found={n: Found(f.severity, details[n]) for n, f in found.items()},
        remarks=remarks_of(body, found),
    )


def _body(seed: int, study: Study, without: Collection[str]) -> tuple[Body, dict[str, dict]]:
    """The body of a study with its findings applied, and their dictated details."""
    p, rng = study.patient, stream(seed, study.study_id, "body")
    normal = rng.normal(size=12)
    body = Body(
        sex=p.sex,
        phase=study.phase,
        uptake=float(np.clip(1 + 0.09 * normal[0], 0.75, 1.25)),
        inner_width=132 * p.girth,
        inner_depth=92 * p.girth**1.4,
        height=p.height,
        fat=p.fat,
        muscle=float(
            np.clip((13.5 if p.sex == "M" else 11.5) - 0.05 * (study.age - 50) + normal[1], 8, 18)
        ),
        trabecular_hu=float(max(203 - 1.2 * (study.age - 25) + 34 * p.bone, 84)),
        lung_hu=-845 + 18 * normal[2],
        arms=float(rng.random() < 0.06),
        # What is not called enlarged stays below the limits of `measure`.
        liver_scale=float(np.clip(1 + 0.05 * normal[3], 0.88, 1.07)),
        liver_change_hu=7 * normal[4] - 10 * p.factors["metabolic"],
        spleen_scale=float(np.clip(1 + 0.08 * normal[5], 0.8, 1.12)),
        heart_scale=float(
            np.clip(
                1 + 0.03 * normal[6] + 0.03 * p.factors["vascular"] + 0.02 * p.factors["fluid"],
                0.9,
                1.08,
            )
        )
        * p.girth,
        kidney_scale=float(np.clip(1 - 0.1 * p.renal + 0.02 * normal[7], 0.79, 1.2)),
        pancreas_scale=1 + 0.06 * normal[8] - 0.002 * (study.age - 58),
        prostate_scale=float(np.clip(0.95 + 0.004 * (study.age - 58) + 0.06 * normal[9], 0.8, 1.1)),
        bladder_scale=float(rng.uniform(0.72, 1.22)),
        gallbladder_scale=float(rng.uniform(0.95, 1.35)),
        aorta_radius=float(
            np.clip(
                9.2
                + 0.04 * (study.age - 58)
                + 0.6 * normal[10]
                + 0.6 * p.factors["vascular"]
                + (0.5 if p.sex == "M" else 0),
                6.5,
                12.5,
            )
        ),
        loop_radius=10.5 + 0.9 * normal[11],
        loop_gas=float(rng.uniform(0.1, 0.5)),
        colon_scale=float(rng.uniform(0.85, 1.12)),
        colon_gas=float(rng.uniform(0.2, 0.8)),
        dome_right=66 + 6 * float(rng.normal()),
        dome_left=56 + 6 * float(rng.normal()),
        warp=render.draw_warp(stream(seed, study.study_id, "warp")),
    )
    _incidentals(body, rng)
    body.loop_spread = rng.uniform(0.85, 1.15, N_LOOPS)
    body.appendix_tip = tuple(rng.uniform((38, 20, -150), (60, 40, -128)).tolist())
    details = {}
    for name, found in study.found.items():
        if name not in without:
            made = FINDINGS[name].apply(
                body, found.severity, stream(seed, study.study_id, name, "shape")
            )
            plain = {k: v if isinstance(v, str) else float(v) for k, v in made.items()}
            details[name] = {"degree": plain.get("grade", degree(found.severity))} | plain
    return body, details


def _incidentals(body: Body, rng: np.random.Generator) -> None:
    """Bright and dark spots that mean nothing: what keeps a threshold from being a diagnosis."""
    draws = rng.random(5)
    if draws[0] < 0.25:  # phleboliths
        for x in rng.uniform(-45, 45, 3):
            body.over.sphere(body.place((x, 4, -196)), 3.6, 500)
        body.incidental.add("phleboliths")
    if draws[1] < 0.12:  # granuloma of the spleen
        body.over.sphere(body.place((-96, -26, 70)), 4.5, 620, only=LABEL["spleen"])
        body.incidental.add("splenic granuloma")
    if draws[2] < 0.15:  # bone island
        spot = (6, body.spine_front(0) - 16, -36 * body.height)
        body.over.sphere(spot, 6, 700, only=LABEL["vertebrae"])
        body.incidental.add("bone island")
    if draws[3] < 0.15:  # swallowed contrast
        body.over.sphere(body.place((-48, 34, 44)), 15, 260, only=LABEL["stomach"])
        body.incidental.add("oral contrast")
    if draws[4] < 0.12:  # a tube through the nose
        body.over.tube(
            [(-6, -10, 240), (-8, -8, 120), body.place((-52, 4, 90))],
            3.0,
            700,
            regions=torso.ANYWHERE,
            label=render.KEEP_LABEL,
        )
        body.incidental.add("enteric tube")


def body_of(seed: int, study: Study, *, without: Collection[str] = ()) -> Body:
    """The anatomy of a study, optionally without some of its findings (for tests and teaching)."""
    return _body(seed, study, without)[0]


def scanner_grid(seed: int, study: Study, matrix: int) -> render.Grid:
    """The voxel grid of a study on a scanner of `matrix` × `matrix` pixels."""
    p, rng = study.patient, stream(seed, study.study_id, "grid")
    if study.site.is_spine:
        pixel = 210.0 / matrix
        n = round(330 / study.slice_mm)
        return render.Grid((matrix, matrix, n), (pixel, pixel, study.slice_mm), (0, -55, 30))
    widest = 132 * p.girth * 1.08 + 13 + 0.9 * p.fat
    pixel = float(np.round(2 * (widest + 12) * study.field_mm / matrix, 3))
    top = rng.uniform(186, 222) * p.height
    bottom = rng.uniform(-236, -222) * p.height
    n = round((top - bottom) / study.slice_mm)
    centre = (rng.normal(0, 5), rng.normal(-4, 6), (top + bottom) / 2)
    return render.Grid((matrix, matrix, n), (pixel, pixel, study.slice_mm), centre)


def acquire(
    seed: int,
    study: Study,
    *,
    matrix: int,
    grid: render.Grid | None = None,
    without: Collection[str] = (),
    edge_mm: float | None = None,
    noise_share: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, render.Grid]:
    """Scan a study: HU and organ labels on a voxel grid, with noise and padding.

    Parameters
    ----------
    seed : int
    study : Study
    matrix : int
        Pixels along x and y; 512 on a real scanner, 64 to 128 for a cohort on two cores.
    grid : render.Grid, optional
        Another grid than the study's own, for looking at a patient more closely; nothing is cut
        to a circle.
    without : sequence of str
        Findings to leave out; all else stays as it is.
    edge_mm, noise_share : float
        Of `render.paint`, and a factor on the noise: for a coarse grid that stands for a finer scan.

    Returns
    -------
    hu : (R, A, S) int16
    label : (R, A, S) uint8
        `vocabulary.LABEL`; 0 is everything else.
    grid : render.Grid
    """
    own, grid = grid is None, grid or scanner_grid(seed, study, matrix)
    body = body_of(seed, study, without=without)
    hu, label = render.paint(
        *anatomy.scene(body, stream(seed, study.study_id, "bowel")),
        grid,
        lung_right=LABEL["lung_right"],
        lung_left=LABEL["lung_left"],
        vertebrae=LABEL["vertebrae"],
        warp=body.warp,
        texture=render.mottle(grid.shape, grid.spacing_mm, stream(seed, study.study_id, "texture")),
        edge_mm=edge_mm,
    )
    rng = stream(seed, study.study_id, "noise")
    np.multiply(hu, study.site.hu_gain, out=hu, where=hu > -200)
    kernel_mm = 1.2 * max(grid.spacing_mm[0], 2.0)
    hu += np.float32(noise_share * study.noise_hu) * render.mottle(
        hu.shape, grid.spacing_mm, rng, scale_mm=kernel_mm
    )
    np.clip(hu, -1024, 3071, out=hu)
    hu = np.rint(hu).astype(np.int16)
    if own and study.manufacturer in (
        "Vendor B",
        "Vendor D",
    ):  # fill outside the reconstruction circle
        x = (
            np.linspace(-1, 1, hu.shape[0])[:, None] ** 2
            + np.linspace(-1, 1, hu.shape[1])[None] ** 2
        )
        hu[x > 1.06] = -2000 if study.manufacturer == "Vendor B" else -1024
    return hu, label, grid
