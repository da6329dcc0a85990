"""Dated diagnosis codes for phantom patients, and ICD → phecode for anybody's.

A patient has conditions with onsets: some long before the scan, some years after it. Visits happen
until the patient is lost to follow-up; a visit records each active condition with some chance, and
sometimes one that is not there. The scan's own encounter also codes what the scan showed, with a
sensitivity and a false rate below: codes are weak labels, as in a hospital.

Phecodes follow the PheWAS map 1.2: codes are text, a positive child makes its parents positive, and
a parent that the list of phenotypes lacks is skipped (paper_facts §2.6).
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.cohort.findings import FINDINGS
from merlin.cohort.phantom import stream

DATA = Path(__file__).parent / "data"
SENSITIVITY = 0.85  # of the encounter's codes for what the scan shows
FALSE_RATE = 0.01
RECORDED = 0.75  # chance that a visit codes an active condition
FIRST_SCAN = pd.Timestamp("2012-12-01")
HORIZON_DAYS = 5 * 365

# 5-year diseases by the data release's column names → condition here.
DISEASES = {
    "cvd": "cardiovascular_disease",
    "ihd": "ischemic_heart_disease",
    "htn": "hypertension",
    "dm": "diabetes",
    "ckd": "chronic_kidney_disease",
    "ost": "osteoporosis",
}


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
def phantom_icd():
    """(condition, vocabulary) → ICD codes that the phantom's coders pick from."""
    table = pd.read_csv(DATA / "phantom_icd.csv", dtype=str)
    return {
        (c, v): tuple(dict.fromkeys(rows["code"]))
        for (c, v), rows in table.groupby(["condition", "vocabulary"], sort=True)
    }


def draw_history(seed, patient):
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
    fat = (patient.fat - 23) / 9
    traits = {**patient.factors, "bone": patient.bone, "renal": patient.renal, "fat": fat}
    onset = {}
    for name, c in CONDITIONS.items():
        log_hazard = c.base + c.age * (patient.age - 58) / 16 + c.female * (patient.sex == "F")
        log_hazard += sum(w * traits[f] for f, w in c.factors)
        onset[name] = 365 * (rng.exponential(1 / np.exp(log_hazard)) - rng.uniform(4, 12))
    end = int(rng.uniform(120, 3300))
    before = rng.integers(-2200, 0, rng.poisson(6))
    after = rng.integers(1, max(end, 2), rng.poisson(1.6 * end / 365))
    return onset, np.sort(np.concatenate([before, after])), end


def write_codes(seed, patient, studies):
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

    def record(day, condition, study_id=""):
        # US hospitals changed from ICD-9 to ICD-10 on 1 October 2015.
        date = start + pd.Timedelta(days=int(day))
        vocabulary = "ICD9CM" if date < pd.Timestamp("2015-10-01") else "ICD10"
        codes = phantom_icd().get((condition, vocabulary)) or phantom_icd()[condition, "ICD9CM"]
        known = vocabulary if (condition, vocabulary) in phantom_icd() else "ICD9CM"
        rows.append((patient.patient_id, study_id, date, known, str(rng.choice(codes))))

    scans = {s.days: s for s in studies}
    for day in sorted({*visits.tolist(), *scans}):
        study = scans.get(day)
        study_id = study.study_id if study else ""
        for name, begin in onset.items():
            chance = RECORDED if begin <= day else 0.004
            if rng.random() < chance:
                record(day, name, study_id)
        for name, (alone, caused, causes) in COMPLAINTS.items():
            is_caused = study is not None and any(c in study.found for c in causes)
            if rng.random() < (caused if is_caused else alone):
                record(day, name, study_id)
        if study:
            for name, finding in FINDINGS.items():
                if finding.only_sex not in ("", patient.sex):
                    continue
                chance = SENSITIVITY if name in study.found else FALSE_RATE
                if rng.random() < chance:
                    record(day, name, study_id)
    table = pd.DataFrame(rows, columns=["patient_id", "study_id", "date", "vocabulary", "code"])
    table["date"] = [d.date().isoformat() for d in table["date"]]
    return table.drop_duplicates()


def scan_date(seed, patient, days):
    """Calendar date of a scan that lies `days` after the first one."""
    start = stream(seed, patient.patient_id, "codes").integers(0, 1900)
    return FIRST_SCAN + pd.Timedelta(days=int(start) + int(days))


def disease_labels(onset_days, end_days, scan_days):
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


def normalise_phecode(text):
    """One spelling for a phecode: `008.50`, `8.5` and `8.50` all become `8.5`.

    Raises
    ------
    ValueError
        If the text is not digits with at most two decimals.
    """
    text = str(text).strip()
    match = re.fullmatch(r"0*(\d{1,4})(?:\.(\d{1,2}))?", text)
    if not match:
        raise ValueError(
            f"{text!r} is not a phecode. Expected digits with at most two decimals, as 250.2"
        )
    whole, decimals = match.group(1), (match.group(2) or "").rstrip("0")
    return f"{whole}.{decimals}" if decimals else whole


def parents(phecode):
    """`250.22` → (`250.2`, `250`)."""
    found = []
    while "." in phecode:
        phecode = phecode[:-1].rstrip(".")
        found.append(phecode)
    return tuple(found)


def read_code_map(path):
    """Read an ICD → phecode map.

    Parameters
    ----------
    path : path to CSV
        Columns `vocabulary`, `code`, `phecode`; `code` and `phecode` are read as text. Rows without
        a phecode are dropped.

    Returns
    -------
    dict
        (vocabulary, ICD code without dot, upper case) → tuple of phecodes.
    """
    table = pd.read_csv(path, dtype=str)
    missing = {"vocabulary", "code", "phecode"} - set(table.columns)
    if missing:
        raise ValueError(
            f"{path}: no column {', '.join(sorted(missing))}; found {', '.join(table.columns)}. "
            "Rename the columns of your map to vocabulary, code and phecode."
        )
    table = table.dropna(subset=["code", "phecode"])
    mapping = {}
    for vocabulary, code, phecode in table[["vocabulary", "code", "phecode"]].itertuples(
        index=False
    ):
        key = (vocabulary, plain_icd(code))
        mapping[key] = (*mapping.get(key, ()), normalise_phecode(phecode))
    return {key: tuple(dict.fromkeys(value)) for key, value in mapping.items()}


NO_CODES = pd.DataFrame(columns=["patient_id", "study_id", "date", "vocabulary", "code"], dtype=str)


def read_codes(path):
    """A hospital's own table of diagnosis codes, checked.

    Parameters
    ----------
    path : path to CSV
        `study_id, vocabulary, code` (and any of `patient_id, date`), all read as text; `vocabulary`
        as the code map has it (`ICD9CM`, `ICD10`).

    Returns
    -------
    DataFrame
        Columns of `NO_CODES`.

    Raises
    ------
    ValueError
        With every problem: missing columns, empty cells, vocabularies of another name, by row.
    """
    path = Path(path)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    needed = ("study_id", "vocabulary", "code")
    problems = [f"column {c}: missing. Found {', '.join(table)}." for c in needed if c not in table]
    if not problems:
        rows = lambda bad: ", ".join(str(i + 2) for i in table.index[bad][:8])  # noqa: E731
        owner = table["patient_id"] if "patient_id" in table else pd.Series("", table.index)
        for column in needed:
            bad = table[column].str.strip() == ""
            if column == "study_id":  # a code between scans belongs to its patient
                bad &= owner.str.strip() == ""
            if bad.any():
                problems.append(f"rows {rows(bad)}, column {column}: empty. Every code needs it.")
        if (bad := ~table["vocabulary"].isin(["ICD9CM", "ICD10", ""])).any():
            found = ", ".join(sorted(set(table["vocabulary"][bad]))[:5])
            problems.append(
                f"rows {rows(bad)}, column vocabulary: {found}. Expected ICD9CM or ICD10."
            )
    if problems:
        raise ValueError(f"{path.name}: {len(problems)} problems\n  " + "\n  ".join(problems))
    return table.reindex(columns=NO_CODES.columns)


def plain_icd(code):
    """ICD code without its dot and in capitals: what differs between hospitals' exports."""
    return str(code).strip().upper().replace(".", "")


def read_phenotypes(path=DATA / "phantom_phecodes.csv"):
    """Phecodes in the order of the model's outputs, with their names.

    Returns
    -------
    pandas.DataFrame
        `phecode` (text, normalised) and `phenotype`.
    """
    table = pd.read_csv(path, dtype=str)
    if table.shape[1] < 2:
        raise ValueError(
            f"{Path(path).name}: found {', '.join(table)}. Expected two columns: phecode, name."
        )
    table = table.iloc[:, :2].set_axis(["phecode", "phenotype"], axis=1)
    table["phecode"] = table["phecode"].map(normalise_phecode)
    return table


def unnamed_phenotypes(n=1692):
    """Outputs of a phecode head that no code trains, by number; as many as the paper's by default.

    So a model that learnt from reports alone has the released one's shape, and the authors' code loads it.
    """
    return pd.DataFrame({"phecode": [f"output {i}" for i in range(n)], "phenotype": ""})


def phecode_matrix(codes, study_ids, code_map, phecodes):
    """Phecode labels of studies from the codes of their encounters.

    Parameters
    ----------
    codes : DataFrame
        `study_id, vocabulary, code`.
    study_ids : sequence of str
    code_map : dict
        From `read_code_map`.
    phecodes : sequence of str
        Columns of the result, normalised.

    Returns
    -------
    labels : (n_studies, n_phecodes) uint8
        1 where a code or one of its children was recorded.
    n_unmapped : int
        Codes that the map does not know.
    """
    row = {s: i for i, s in enumerate(study_ids)}
    column = {p: j for j, p in enumerate(phecodes)}
    labels = np.zeros((len(row), len(column)), np.uint8)
    n_unmapped = 0
    for study, vocabulary, code in codes[["study_id", "vocabulary", "code"]].itertuples(
        index=False
    ):
        if study not in row:
            continue
        mapped = code_map.get((vocabulary, plain_icd(code)), ())
        n_unmapped += not mapped
        for phecode in mapped:
            for p in (phecode, *parents(phecode)):
                if p in column:
                    labels[row[study], column[p]] = 1
    return labels, n_unmapped


def phecode_labels(codes, study_ids, code_map, phecodes, *, uncoded="absent"):
    """`phecode_matrix` with NaN where nothing is known.

    Parameters
    ----------
    uncoded : {"absent", "unknown"}
        What a study without any code has: no disease (phantoms, whose coders see every study), or
        nothing known. Phecodes that the map never gives are unknown then, too.

    Returns
    -------
    (n_studies, n_phecodes) float32
        1, 0 or NaN; all NaN where there are no codes at all, which is not the same as no disease.
    """
    labels = np.full((len(study_ids), len(phecodes)), np.nan, np.float32)
    if len(codes):
        coded, _ = phecode_matrix(codes, study_ids, code_map, phecodes)
        is_known = np.ones(labels.shape, bool)
        if uncoded == "unknown":
            direct = {p for group in code_map.values() for p in group}
            given = direct | {q for p in direct for q in parents(p)}
            is_known = np.isin(study_ids, codes["study_id"].dropna())[:, None]
            is_known = is_known & np.isin(phecodes, list(given))
        labels[is_known] = coded[is_known]
    return labels
