"""The one table that describes a cohort, and its checks.

One row a study. Paths are relative to the manifest. Whatever is wrong is reported at once, with
row (1 is the header, as in a spreadsheet), column, what was found, what was expected and how to
mend it; values of the patient columns are never printed.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from merlin.data.cells import TableError, read_ids, some_rows
from merlin.data.tables import read_table
from merlin.streams import Stream, stream_of
from merlin.vocabulary import DISEASES, NAMES, SPLITS
from merlin.words import Refusal, names_a_file, shown

HOME = "internal"  # the site whose studies are trained on
LABELS = tuple(f"label_{name}" for name in NAMES)
FIVE_YEAR = tuple(f"five_year_{name}" for name in DISEASES)
REQUIRED = ("study_id", "patient_id", "split", "volume")
OPTIONAL = (
    "site", "sex", "age", "date", "phase", "manufacturer", "reader", "slice_mm", "label_map",
    "findings", "impression",
)  # fmt: skip
# What a cell may hold where it is not empty: values or a pattern, and what to say of others.
_ALLOWED: dict[str, tuple[Sequence[str] | str, str]] = {
    "split": (SPLITS, "Expected train, val or test."),
    "sex": (("F", "M"), "Expected F, M or empty."),
    "age": (r"^\d{1,3}(\.\d+)?$", "Expected years, as 57, or empty."),
    "slice_mm": (r"^\d+(\.\d+)?$", "Expected millimetres, as 5.0, or empty."),
    "date": (r"^\d{4}-\d{2}-\d{2}$", "Expected YYYY-MM-DD or empty."),
    **dict.fromkeys(
        LABELS, (tuple("01"), "Expected 1 (present), 0 (absent) or empty (not mentioned).")
    ),
    **dict.fromkeys(
        FIVE_YEAR,
        (
            tuple("0123"),
            "Expected 0 (free for 5 years), 1 (within 5 years), 2 (before the scan), "
            "3 (lost to follow-up) or empty.",
        ),
    ),
}


class ManifestError(Refusal):
    """A manifest with problems, all of them listed in the message."""


def _schema() -> pa.DataFrameSchema:
    def column(name: str) -> pa.Column:
        allowed, text = _ALLOWED.get(name, (".*", ""))
        if isinstance(allowed, str):
            checks = [pa.Check.str_matches(allowed, error=text)] if text else []
        else:
            checks = [pa.Check.isin(list(allowed), error=text)]
        return pa.Column(str, checks, required=name in REQUIRED, nullable=name not in REQUIRED)

    names = (*REQUIRED, *OPTIONAL, *LABELS, *FIVE_YEAR)
    return pa.DataFrameSchema({name: column(name) for name in names}, strict=False)


def check_manifest(
    table: pd.DataFrame, *, name: str = "manifest", folder: str | Path | None = None
) -> None:
    """List everything that is wrong with a manifest.

    Parameters
    ----------
    table : DataFrame
        All columns as text, empty cells as NaN.
    name : str
        How messages call the file.
    folder : path, optional
        Where `volume` and `label_map` paths start; without it files are not looked for.

    Raises
    ------
    ManifestError
    """
    problems = _column_problems(table)
    table = table.loc[:, ~table.columns.duplicated()]
    try:
        _schema().validate(table, lazy=True)
    except pa.errors.SchemaErrors as error:
        problems += _cell_problems(error.failure_cases)
    problems += _row_problems(table)
    if folder is not None:
        problems += _file_problems(table, Path(folder))
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ManifestError(f"{name}: {count}\n  " + "\n  ".join(problems))


def _column_problems(table: pd.DataFrame) -> list[str]:
    known = {*REQUIRED, *OPTIONAL, *LABELS, *FIVE_YEAR}
    problems = []
    for column in table.columns:
        if column not in known:
            from merlin.run import nearest

            problems.append(
                f"column {column}: unknown{nearest(column, known)} Rename or remove it; the columns "
                "are listed in data_manifests/README.md."
            )
    problems += [f"column {c}: missing. Every study needs it." for c in REQUIRED if c not in table]
    twice = table.columns[table.columns.duplicated()]
    problems += [f"column {c}: stands more than once. Keep one." for c in twice]
    return problems


def _cell_problems(failures: pd.DataFrame) -> list[str]:
    problems = []
    failures = failures[failures["index"].notna()]
    for (column, check), rows in failures.groupby(["column", "check"], sort=False):
        where = f"{some_rows(rows['index'])}, column {column}"
        if check == "not_nullable":
            problems.append(f"{where}: empty. Every study needs it.")
        else:
            found = ", ".join(dict.fromkeys(map(str, rows["failure_case"])))
            problems.append(f"{where}: {found[:80]}. {check}")
    return problems


def _row_problems(table: pd.DataFrame) -> list[str]:
    problems = []

    def note(is_bad: pd.Series, column: str, text: str) -> None:
        if is_bad.any():
            problems.append(f"{some_rows(table.index[is_bad])}, column {column}: {text}")

    if "study_id" in table:
        ids = table["study_id"]
        note(
            ids.duplicated(keep=False) & ids.notna(),
            "study_id",
            "the same study more than once. One row a study; keep the final report.",
        )
        note(
            ids.map(lambda i: isinstance(i, str) and not names_a_file(i)),
            "study_id",
            "no name of a file. Expected no /, \\ or control characters, and 200 characters at most.",
        )
    if "site" in table:
        is_odd = table["site"].map(lambda s: isinstance(s, str) and not s.isprintable())
        note(is_odd, "site", "characters that cannot be seen. Write it without.")
    if {"patient_id", "split"} <= set(table.columns):
        n_splits = table.groupby("patient_id")["split"].transform("nunique")
        text = "the same patient is in several splits. One patient, one split."
        note(n_splits > 1, "patient_id", text)
    return problems


def _file_problems(table: pd.DataFrame, folder: Path) -> list[str]:
    problems = []
    for column in (c for c in ("volume", "label_map") if c in table):
        paths = table[column].dropna()
        missing = paths[[not (folder / p).exists() for p in paths]]
        if len(missing):
            problems.append(
                f"{some_rows(missing.index)}, column {column}: file not found: {missing.iloc[0]} "
                "(paths are relative to the manifest)."
            )
    return problems


def load_manifest(path: str | Path, *, check_files: bool = True) -> pd.DataFrame:
    """Read and check a manifest.

    Parameters
    ----------
    path : path
        A table as `tables.read_table` takes it.
    check_files : bool
        Also look for every volume.

    Returns
    -------
    DataFrame
        `study_id` and other text as text, labels as float (1, 0, NaN not mentioned), `age` as
        float, 5-year codes as float, `volume` and `label_map` as absolute paths. A study that names no
        site is of the training site.

    Raises
    ------
    ManifestError
        With every problem found.
    """
    path = Path(path)
    try:
        table = read_table(path)
        for column in {"study_id", "patient_id"} & set(table):
            table[column] = read_ids(table[column], where=f"{path.name}, column {column}")
    except TableError as error:
        raise ManifestError(str(error)) from None
    for column in {*LABELS, *FIVE_YEAR} & set(table):  # as a data frame writes them
        table[column] = table[column].str.replace(r"^(\d)\.0$", r"\1", regex=True)
    for column in {"age", "slice_mm"} & set(table):
        if table.attrs["decimal_comma"]:
            table[column] = table[column].str.replace(",", ".")
    table = table.replace("", np.nan).astype("str")
    if table.empty:
        raise ManifestError(f"{path.name}: a header and no rows. Expected one row a study.")
    check_manifest(table, name=path.name, folder=path.parent if check_files else None)
    table = table.reset_index(drop=True)
    for column in (*LABELS, *FIVE_YEAR, "age", "slice_mm"):
        if column in table:
            table[column] = table[column].astype(float)
    if "site" in table:  # one name however its accents are written; empty: the training site
        named = table["site"].str.normalize("NFC").str.strip().replace("", np.nan)
        table["site"] = named.fillna(HOME)
    for column in ("volume", "label_map"):
        if column in table:
            table[column] = [
                str((path.parent / p).resolve()) if isinstance(p, str) else p for p in table[column]
            ]
    return table


def at_home(studies: pd.DataFrame) -> pd.DataFrame:
    """A manifest's studies of the training site, numbered anew.

    Raises
    ------
    ManifestError
        If there are none, naming the sites there are.
    """
    found = studies[studies["site"] == HOME].reset_index(drop=True)
    if found.empty:
        names = ", ".join(shown(s, 40) for s in sorted(studies["site"].unique())[:8])
        raise ManifestError(
            f"the manifest: no study of site {HOME}, found {names}. Call the site that is trained on "
            f"{HOME}, or leave its cells empty."
        )
    return found


LINK = "data"  # beside a manifest, to the data set that it was made of


def linked(table: pd.DataFrame, data: str | Path, out: str | Path) -> pd.DataFrame:
    """A manifest for the folder `out` whose paths hold no place of this machine, through a link beside it.

    Parameters
    ----------
    table : DataFrame
        `volume` and `label_map` as absolute paths, or relative to `out`.
    data : path
        The data set's folder. What lies outside it is named from `out`.
    out : path
        Made if missing.
    """
    out, data = Path(out).resolve(), Path(data).absolute()
    link, roots = out / LINK, (data, data.resolve())
    out.mkdir(parents=True, exist_ok=True)
    if not out.is_relative_to(roots[1]) and (link.is_symlink() or not link.exists()):
        link.unlink(missing_ok=True)
        link.symlink_to(roots[1])

    def place(path: object) -> object:
        if not isinstance(path, str):
            return path
        whole = Path(os.path.normpath(out / path))
        below = [whole.relative_to(r) for r in roots if whole.is_relative_to(r)]
        if below and link.is_symlink():
            return str(LINK / below[0])
        return os.path.relpath(whole, out)

    columns = [c for c in ("volume", "label_map") if c in table]
    return table.assign(**{c: table[c].map(place) for c in columns})


def nested_subset(
    patient_ids: Sequence[str] | np.ndarray, fraction: float, *, seed: int
) -> np.ndarray:
    """Which studies belong to a fraction of the patients; smaller fractions lie inside larger ones.

    Parameters
    ----------
    patient_ids : (n_studies,) str
    fraction : float
        In (0, 1].
    seed : int

    Returns
    -------
    (n_studies,) bool
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1]; got {fraction}")
    patients = np.unique(np.asarray(patient_ids))
    order = stream_of(seed, Stream.SHARE).permutation(len(patients))
    kept = patients[order[: max(1, round(fraction * len(patients)))]]
    return np.isin(np.asarray(patient_ids), kept)
