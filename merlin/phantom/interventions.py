"""The same phantom with one thing changed: a finding out or fainter, more years, the other sex.

No hospital can take a cyst out of a patient and scan him again. A phantom's parts are drawn from streams
of their own, so whatever is not changed stays as it was to the last voxel of noise, and the difference
between two scans is the change alone. The studies made here are for `pool.scan` or `synthesis.acquire`.
"""

from dataclasses import replace
from typing import NamedTuple

from merlin.phantom import anatomy, measure, synthesis
from merlin.phantom.findings import FINDINGS, Found
from merlin.phantom.synthesis import Study
from merlin.vocabulary import ONLY_SEX

YOUNG_HU = 203.0  # trabecular bone at 25 years, before anything is lost


class Dose(NamedTuple):
    """How much of a finding there is.

    Attributes
    ----------
    what : str
        What is measured, with its unit in brackets.
    faintest : float
        Lowest severity it may be drawn at. The cohort draws 0 to 1, and 0 is often plain to see; below,
        the same lines lead on to where nothing would be left. 0 where another part of the finding would
        stay as it is.
    """

    what: str
    faintest: float


SEVERITY = "severity"
DOSES = {
    "submucosal_edema": Dose("wall (mm)", -0.6),
    "renal_hypodensities": Dose("spots (count)", -0.45),
    "aortic_valve_calcification": Dose(SEVERITY, -0.2),
    "coronary_calcification": Dose(SEVERITY, -0.25),
    "thrombosis": Dose(SEVERITY, 0.0),
    "metastatic_disease": Dose("largest nodule (mm)", -0.2),
    "pancreatic_atrophy": Dose(SEVERITY, -0.65),
    "renal_cyst": Dose("cyst (mm)", -0.3),
    "osteopenia": Dose("density lost (HU)", 0.0),
    "surgically_absent_gallbladder": Dose(SEVERITY, 0.0),
    "atelectasis": Dose("thickness (mm)", -0.5),
    "abdominal_aortic_aneurysm": Dose("aorta (mm)", -0.35),
    "anasarca": Dose(SEVERITY, -0.1),
    "hiatal_hernia": Dose("hernia (mm)", -0.5),
    "lymphadenopathy": Dose("short axis (mm)", -0.4),
    "prostatomegaly": Dose("prostate (ml)", -0.3),
    "biliary_ductal_dilation": Dose("common duct (mm)", -0.8),
    "cardiomegaly": Dose("heart (share of chest)", -0.6),
    "splenomegaly": Dose("spleen (mm)", -0.5),
    "hepatomegaly": Dose("liver (mm)", -0.6),
    "atherosclerosis": Dose(SEVERITY, -0.25),
    "ascites": Dose("fluid (mm)", -0.15),
    "pleural_effusion": Dose("fluid (mm)", -0.38),
    "hepatic_steatosis": Dose("density lost (HU)", -0.2),
    "appendicitis": Dose("appendix (mm)", 0.0),
    "gallstones": Dose("largest stone (mm)", -0.6),
    "hydronephrosis": Dose(SEVERITY, -0.6),
    "bowel_obstruction": Dose("loop (mm)", 0.0),
    "free_air": Dose("gas (mm)", -0.13),
    "fracture": Dose("height lost (%)", 0.0),
}
_THICK = {  # what a body says of them: the wider of its two sides
    "atelectasis": ("atelectasis_right", "atelectasis_left"),
    "pleural_effusion": ("effusion_right", "effusion_left"),
    "ascites": ("ascites",),
    "free_air": ("free_air",),
}


def without(study: Study, name: str) -> Study:
    """The study without one of its findings; all else stays.

    Raises
    ------
    ValueError
        If the study has no such finding.
    """
    if name not in study.found:
        raise ValueError(
            f"{study.study_id} has no {name}; it has {', '.join(study.found) or 'none'}"
        )
    return replace(study, found={k: v for k, v in study.found.items() if k != name})


def dosed(study: Study, name: str, severity: float) -> Study:
    """The study with one of its findings drawn at another severity, in [`DOSES[name].faintest`, 1].

    A size that it had been measured with is not kept: `dose` measures it again.
    """
    low = DOSES[name].faintest
    if not low <= severity <= 1:
        raise ValueError(f"{name}: severity {severity:g}. Expected {low:g} to 1.")
    return replace(study, found=without(study, name).found | {name: Found(severity)})


def older(study: Study, years: int) -> Study:
    """The same patient `years` later, with the findings of today; nothing but age has moved on."""
    return replace(study, age=study.age + years)


def other_sex(study: Study) -> Study:
    """The same patient with the other sex's anatomy.

    Raises
    ------
    ValueError
        If a finding that only one sex can have is among the study's.
    """
    bound = [n for n in study.found if ONLY_SEX[n]]
    if bound:
        raise ValueError(f"{study.study_id}: {', '.join(bound)} is of one sex; take it out first")
    sex = {"F": "M", "M": "F"}[study.patient.sex]
    return replace(study, patient=replace(study.patient, sex=sex))


def dose(seed: int, study: Study, name: str) -> float:
    """How much of a finding a study holds, in the unit of `DOSES`.

    Organs with a limit (`measure.LIMITS`) are measured as a report would, whether or not they pass it.
    """
    body = synthesis.body_of(seed, study, without=(name,))
    plain = body.liver_change_hu
    shape = synthesis.stream(seed, study.study_id, name, "shape")
    said = FINDINGS[name].apply(body, study.found[name].severity, shape)
    if name in measure.LIMITS:
        scene = anatomy.scene(body, synthesis.stream(seed, study.study_id, "bowel"))
        return measure.measure(name, body, scene).value
    if name in _THICK:
        return float(max(getattr(body, part) for part in _THICK[name]))
    if name == "hepatic_steatosis":
        return float(plain - body.liver_change_hu)
    if name == "osteopenia":
        return float(YOUNG_HU - body.trabecular_hu)
    if DOSES[name].what == SEVERITY:
        return study.found[name].severity
    told = {"%": "percent", "count": "count"}
    unit = DOSES[name].what.partition("(")[2].rstrip(")")
    return float(said[told.get(unit, "size_mm")])
