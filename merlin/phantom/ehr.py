"""Dated diagnosis codes for phantom patients.

A patient has conditions with onsets: some long before the scan, some years after it. Visits happen
until the patient is lost to follow-up; a visit records each active condition with some chance, and
sometimes one that is not there. The scan's own encounter also codes what the scan showed, with a
sensitivity and a false rate below: codes are weak labels, as in a hospital.

Anybody's codes are read by `codes`, and become phecodes by `phecodes`; their names are here too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from merlin.data.phecodes import TABLES
from merlin.phantom.findings import FINDINGS
from merlin.phantom.synthesis import Patient, Study, stream
from merlin.vocabulary import DISEASES

SENSITIVITY = 0.85  # of the encounter's codes for what the scan shows
FALSE_RATE = 0.01
RECORDED = 0.75  # chance that a visit codes an active condition
FIRST_SCAN = pd.Timestamp("2012-12-01")
HORIZON_DAYS = 5 * 365


@dataclass(frozen=True)
class Condition:
    """Yearly hazard of a disease: exp(base + what the patient carries)."""

    base: float
    age: float = 0.0  # per 16 years above 58
    female: float = 0.0
    factors: tuple[tuple[str, float], ...] = ()


# `bone`, `renal` and `fat` are traits that the scan shows without any finding naming them.
CONDITIONS = {
    "hypertension": Condition(-3.2, 1.0, 0.0, (("vascular", 1.3), ("metabolic", 0.4))),
    "diabetes": Condition(-4.2, 0.4, 0.0, (("metabolic", 1.7),)),
    "chronic_kidney_disease": Condition(-4.5, 0.5, 0.0, (("renal", 1.9),)),
    "ischemic_heart_disease": Condition(-4.4, 0.9, -0.4, (("vascular", 1.7),)),
    "cardiovascular_disease": Condition(-4.4, 1.0, 0.0, (("vascular", 1.6),)),
    "osteoporosis": Condition(-4.8, 1.0, 0.8, (("bone", -1.7),)),
    "obesity": Condition(-4.2, 0.0, 0.0, (("fat", 2.2),)),
    "hyperlipidemia": Condition(-3.6, 0.6, 0.0, (("metabolic", 1.2), ("vascular", 0.6))),
    "heart_failure": Condition(-4.4, 0.5, 0.0, (("fluid", 1.7), ("vascular", 0.4))),
}
# Complaints of the day: their chance without and with a finding that causes them.
COMPLAINTS = {
    "abdominal_pain": (0.06, 0.85, ("appendicitis", "bowel_obstruction", "free_air", "gallstones")),
    "nausea": (0.03, 0.75, ("bowel_obstruction", "hiatal_hernia")),
    "urinary_infection": (0.03, 0.7, ("hydronephrosis",)),
    "anemia": (0.03, 0.75, ("metastatic_disease", "submucosal_edema")),
}


@cache
def phantom_icd() -> dict[tuple[str, str], tuple[str, ...]]:
    """(condition, vocabulary) → ICD codes that the phantom's coders pick from."""
    table = pd.read_csv(TABLES / "phantom_icd.csv", dtype=str)
    return {
        (c, v): tuple(dict.fromkeys(rows["code"]))
        for (c, v), rows in table.groupby(["condition", "vocabulary"], sort=True)
    }


def hazards(patient: Patient) -> dict[str, float]:
    """Yearly hazard of each of `CONDITIONS`: what no test of the patient could do better than know."""
    fat = (patient.fat - 23) / 9
    traits = {**patient.factors, "bone": patient.bone, "renal": patient.renal, "fat": fat}
    found = {}
    for name, c in CONDITIONS.items():
        log_hazard = c.base + c.age * (patient.age - 58) / 16 + c.female * (patient.sex == "F")
        log_hazard += sum(w * traits[f] for f, w in c.factors)
        found[name] = float(np.exp(log_hazard))
    return found


def draw_history(seed: int, patient: Patient) -> tuple[dict[str, float], np.ndarray, int]:
    """Onsets of a patient's conditions and the span of their record.

    Returns
    -------
    onset_days : dict of str to float
        Days from the first scan to the onset; negative is before it.
    visit_days : (n,) int array
        Visits other than scans, sorted.
    end_days : int
        Last day of follow-up.
    """
    rng = stream(seed, patient.patient_id, "history")
    onset = {
        name: 365 * (rng.exponential(1 / hazard) - rng.uniform(4, 12))
        for name, hazard in hazards(patient).items()
    }
    end = int(rng.uniform(120, 3300))
    before = rng.integers(-2200, 0, rng.poisson(6))
    after = rng.integers(1, max(end, 2), rng.poisson(1.6 * end / 365))
    return onset, np.sort(np.concatenate([before, after])), end


def _chances(
    day: int, study: Study | None, onset: Mapping[str, float], sex: str
) -> Iterator[tuple[str, float]]:
    """Conditions, and the chance of each to be coded on a day, with a scan or without."""
    for name, begin in onset.items():
        yield name, RECORDED if begin <= day else 0.004
    for name, (alone, caused, causes) in COMPLAINTS.items():
        is_caused = study is not None and any(c in study.found for c in causes)
        yield name, caused if is_caused else alone
    for name, finding in FINDINGS.items():
        if study and finding.only_sex in ("", sex):
            yield name, SENSITIVITY if name in study.found else FALSE_RATE


def write_codes(seed: int, patient: Patient, studies: Sequence[Study]) -> pd.DataFrame:
    """Dated ICD codes of one patient, scans included.

    Parameters
    ----------
    seed : int
    patient : Patient
    studies : sequence of Study
        All scans of the patient; their findings are coded at their encounters.

    Returns
    -------
    pandas.DataFrame
        `patient_id, study_id, date, vocabulary, code`; `study_id` is empty away from scans.
    """
    onset, visits, _ = draw_history(seed, patient)
    rng = stream(seed, patient.patient_id, "codes")
    start = FIRST_SCAN + pd.Timedelta(days=int(rng.integers(0, 1900)))
    rows = []

    def record(day: int, condition: str, study_id: str) -> None:
        # US hospitals changed from ICD-9 to ICD-10 on 1 October 2015.
        date = start + pd.Timedelta(days=int(day))
        kind = "ICD9CM" if date < pd.Timestamp("2015-10-01") else "ICD10"
        codes = phantom_icd().get((condition, kind)) or phantom_icd()[condition, "ICD9CM"]
        known = kind if (condition, kind) in phantom_icd() else "ICD9CM"
        rows.append((patient.patient_id, study_id, date, known, str(rng.choice(codes))))

    scans = {s.days: s for s in studies}
    for day in sorted({*visits.tolist(), *scans}):
        study = scans.get(day)
        for name, chance in _chances(day, study, onset, patient.sex):
            if rng.random() < chance:
                record(day, name, study.study_id if study else "")
    table = pd.DataFrame(rows, columns=["patient_id", "study_id", "date", "vocabulary", "code"])
    table["date"] = [d.date().isoformat() for d in table["date"]]
    return table.drop_duplicates()


def scan_date(seed: int, patient: Patient, days: int) -> pd.Timestamp:
    """Calendar date of a scan that lies `days` after the first one."""
    start = stream(seed, patient.patient_id, "codes").integers(0, 1900)
    return FIRST_SCAN + pd.Timedelta(days=int(start) + int(days))


def disease_labels(
    onset_days: Mapping[str, float], end_days: int, scan_days: int
) -> dict[str, int]:
    """5-year label of each disease at a scan, in the release's codes.

    0 free with at least 5 years of follow-up, 1 first diagnosed within 5 years, 2 diagnosed before
    the scan, 3 censored (paper_facts §5.4).
    """
    labels = {}
    for column, condition in DISEASES.items():
        wait = onset_days[condition] - scan_days
        followed = end_days - scan_days
        if wait <= 0:
            labels[column] = 2
        elif wait <= min(HORIZON_DAYS, followed):
            labels[column] = 1
        else:
            labels[column] = 0 if followed >= HORIZON_DAYS else 3
    return labels
