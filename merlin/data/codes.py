"""Anybody's table of diagnosis codes, checked: the one reader of `hospital` and `01_dataset`.

Vocabularies go by their common names; what is no ICD diagnosis is left out and counted. ICD-9 has
three digits before its dot: tables whose zeros a spreadsheet ate are refused, since 8.45 (008.45, an
infection) would be an ankle's sprain.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.data.cells import Number, TableError, plain, read_dates, read_ids, some_rows
from merlin.data.tables import read_table
from merlin.words import shown

NO_CODES = pd.DataFrame(columns=["patient_id", "study_id", "date", "vocabulary", "code"], dtype=str)
# What a column may be called, beside our own name for it; compared without case and signs.
_ALSO = {
    "vocabulary": (
        "vocabulary_id", "vocab", "code_system", "coding_system", "code_type", "dx_type", "icd_version",
        "icd_type",
    ),
    "code": ("icd_code", "concept_code", "source_code", "diagnosis_code", "dx_code", "dx"),
    "phecode": ("phecode_id",),
    "date": ("code_date", "diagnosis_date", "condition_start_date", "contact_date"),
    "patient_id": ("patient", "mrn", "person_id", "subject_id"),
    "study_id": (),
    "accession": ("accession_number",),
}  # fmt: skip
_NAME = re.compile(
    r"(?:(?:icd|i)?0?(?P<n>9|10)|icd(?P<roman>ix|x))(?P<cm>c|cm)?(?:who)?"
    r"(?:dx|diag(?:nos[ei]s)?)?(?:codes?)?(?:(?:19|20)\d\d(?:a[ab])?)?"
)
_OIDS = {"3": "ICD10", "90": "ICD10CM", "2": "ICD9CM", "103": "ICD9CM"}  # of HL7


def vocabulary(name: object) -> str | None:
    """`ICD9CM`, `ICD10CM` or `ICD10` from a vocabulary's name as people write it.

    Case and signs, a year (`ICD10CM_2020`), bare versions (`9`, `10`) and HL7's names do not matter.

    Returns
    -------
    str or None
        None of what is another vocabulary: SNOMED, procedures, national editions as ICD-10-GM.
    """
    text = str(name).strip()
    if oid := re.fullmatch(r"(?:urn:oid:)?2\.16\.840\.1\.113883\.6\.(\d+)", text):
        return _OIDS.get(oid[1])
    match = _NAME.fullmatch(plain(re.sub(r"\.0+$", "", text.rsplit("/", 1)[-1])))
    if not match:
        return None
    if match["n"] == "9" or match["roman"] == "ix":
        return "ICD9CM"
    return "ICD10CM" if match["cm"] else "ICD10"


def plain_icd(code: object) -> str:
    """ICD code without its dot, blanks and the marks of the dagger system; the case stays."""
    return str(code).strip().rstrip(".*+†! ").replace(".", "")


def doubtful_icd9(codes: pd.Series) -> pd.Series:
    """Why each ICD-9-CM code cannot be read for certain; empty where it can.

    Parameters
    ----------
    codes : Series of str
        All that a table has of the vocabulary: whether zeros were lost shows in the column.
    """
    text = codes.astype(str).str.strip().str.removesuffix(".")
    if text.empty:
        return text
    is_dotted = text.str.fullmatch(r"\d+\.\d+")
    is_bare = text.str.fullmatch(r"\d+")
    n_whole = text.str.partition(".")[0].str.len()
    # 401.9 without its dot, as a number: 4019.0. Then 389.0 was 389 or 0389.
    was_number = is_dotted & text.str.endswith(".0") & (is_dotted & (n_whole > 3)).any()
    is_eaten = is_dotted & (n_whole != 3) | is_bare & (n_whole < 3) | was_number
    distinct = text[is_bare].unique()
    has_no_zeros = not any(t.startswith("0") for t in distinct)
    are_numbers = any(isinstance(c, Number) for c in codes[is_bare])
    # One code in thirteen of the vocabulary begins with 0.
    lost = (is_bare & (n_whole < 3)).any() or (
        (are_numbers or len(distinct) >= 100) and has_no_zeros and not is_dotted.any()
    )
    # Five signs are whole; four beside dotted codes may be 188.2 or 018.82, unless zeros are kept.
    has_kept = text.str.match(r"0\d\d").any() and not is_eaten.any()
    is_either = is_bare & (n_whole < 5) & lost
    is_either |= is_bare & (n_whole == 4) & is_dotted.any() & (not has_kept)
    is_either &= ~text.str.startswith("0")
    why = pd.Series("", codes.index, dtype=object)
    why[is_either] = "no dot, and zeros at the front may be lost (1882: 188.2 or 018.82)"
    why[is_eaten] = "not three digits before the dot, as in 008.45"
    return why


def coded(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A table of codes with our names of columns, from their common ones and the published maps'."""
    if {"ICD", "flag"} <= set(table):  # PheTK's map, whose 10 is the CM edition
        table = table.rename(columns={"ICD": "code", "flag": "vocabulary"})
        table["vocabulary"] = table["vocabulary"].replace({"10": "ICD10CM"})
    match = {}
    for ours, others in _ALSO.items():
        for wanted in (ours, *others):
            found = [c for c in table if plain(c) == plain(wanted)]
            if len(found) > 1:
                raise TableError(f"{name}: columns {', '.join(found)} are both {ours}. Keep one.")
            if found:
                match[found[0]] = ours
                break
    notes = [
        *table.attrs["notes"],
        *(f"Column {a} read as {b}." for a, b in match.items() if a != b),
    ]
    table = table.rename(columns=match)
    named = [c for c in table if plain(c).startswith("icd") and vocabulary(c)]
    if "code" not in table and named:  # a column ICD9, as in the maps of phewascatalog.org
        if len(named) > 1:
            raise TableError(
                f"{name}: columns {', '.join(named)}. Expected one column code and one vocabulary."
            )
        table = table.rename(columns={named[0]: "code"}).assign(vocabulary=vocabulary(named[0]))
        notes.append(f"Column {named[0]} read as codes of {vocabulary(named[0])}.")
    table.attrs["notes"] = tuple(notes)
    return table


def read_codes(path: str | Path, *, owner: str = "study_id", dates: str = "") -> pd.DataFrame:
    """Anybody's table of diagnosis codes, checked: the one reader of `hospital` and `01_dataset`.

    Parameters
    ----------
    path : path
        As `tables.read_table` takes it. Columns `vocabulary` and `code` or their common names, and any
        of `study_id, patient_id, date, accession`.
    owner : {"study_id", "patient_id"}
        Whose codes they are; with `study_id`, a row of a patient alone is a code between scans.
    dates : {"", "ymd", "dmy", "mdy"}
        Order of day and month, where the column does not tell.

    Returns
    -------
    DataFrame
        Columns of `NO_CODES`, and `accession` where there is one; all text, vocabularies `ICD9CM`,
        `ICD10CM` or `ICD10`, dates YYYY-MM-DD. A study with codes of other vocabularies alone keeps one.
        `attrs["notes"]` says what was assumed or left out.

    Raises
    ------
    TableError
        With every problem and its rows: missing columns, empty cells, ICD-9 codes without their zeros,
        dates of no one format; or if no code is left.
    """
    path = Path(path)
    table = coded(read_table(path), path.name)
    notes = list(table.attrs["notes"])
    needed = (owner, "vocabulary", "code") + (("date",) if owner == "patient_id" else ())
    if missing := [c for c in needed if c not in table]:
        raise TableError(
            f"{path.name}: no column {', '.join(missing)}. Found {', '.join(table) or 'none'}."
        )
    name = table["vocabulary"].str.strip()
    known = {v: vocabulary(v) for v in name.unique()}
    other = name.map(known).isna() & (name != "")
    if other.any():
        counts = name[other].value_counts().head(5)
        found = ", ".join(f"{shown(v[:30])} ({n:,})" for v, n in counts.items())
        notes.append(f"{other.sum():,} rows of vocabularies other than ICD left out: {found}.")
    problems = _empty_cells(table, owner)
    if len(table) and other.all():
        problems.append(f"no code is left. Expected ICD9CM, ICD10CM or ICD10; {notes[-1]}")
    alone = _alone(table, other, owner)
    if alone.any():
        notes.append(
            f"{alone.sum():,} have no other codes: a row of each is kept, which maps to nothing, since "
            "unknown is not healthy."
        )
    table = table.assign(vocabulary=name.map(known).fillna(name))[~other | alone]
    old = table["code"][table["vocabulary"] == "ICD9CM"]
    bare = old[old.str.fullmatch(r"\s*[1-9]\d{2,3}\s*")]
    if len(bare) and not (old.str.contains(".", regex=False) | old.str.match(r"\s*0")).any():
        notes.append(
            f"{len(bare):,} ICD-9 codes without dots are read from the left ({bare.iloc[0].strip()}), and "
            "none begins with 0: if a spreadsheet took zeros, export the column as text."
        )
    for why, rows in old.groupby(doubtful_icd9(old).replace("", np.nan)):
        problems.append(
            f"{some_rows(rows.index)}, column code: {', '.join(rows.unique()[:5])}: {why}. A spreadsheet "
            "took codes for numbers, or procedures are among them: export the column as text, with dots."
        )
    for column in ("study_id", "patient_id", "accession", "date"):
        if column in table:
            where = f"column {column}"
            try:
                table[column] = (
                    read_dates(table[column], where=where, order=dates).dt.strftime("%Y-%m-%d")
                    if column == "date"
                    else read_ids(table[column], where=where)
                )
            except TableError as error:
                problems.append(str(error))
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise TableError(f"{path.name}: {count}\n  " + "\n  ".join(problems))
    extra = ["accession"] if "accession" in table else []
    out = table.reindex(columns=[*NO_CODES.columns, *extra], fill_value="").fillna("").astype("str")
    out["code"] = out["code"].str.strip()
    out.attrs.update(notes=tuple(notes))
    return out


def _alone(table: pd.DataFrame, other: pd.Series, owner: str) -> pd.Series:
    """The first row of each study (or patient) that has codes of other vocabularies alone."""
    column = "accession" if owner == "patient_id" and "accession" in table else owner
    whose = table[column].str.strip()
    return other & (whose != "") & ~whose.isin(whose[~other]) & ~whose.duplicated()


def _empty_cells(table: pd.DataFrame, owner: str) -> list[str]:
    problems = []
    blank = lambda c: table[c].str.strip() == ""  # noqa: E731
    for column in (owner, "vocabulary", "code"):
        bad = blank(column)
        if column == "study_id" and "patient_id" in table:  # a code between scans is its patient's
            bad &= blank("patient_id")
        if bad.any():
            problems.append(
                f"{some_rows(table.index[bad])}, column {column}: empty. Every code needs it."
            )
    return problems
