"""The Merlin Abdominal CT Dataset as a manifest, with an audit of what was found on the way.

Layout (paper_facts §2.7): `merlin_data/` with one NIfTI file a study, flat or nested;
`reports_final.xlsx`; `zero_shot_findings_disease_cls.csv` with 1, 0 and −1 (not mentioned);
`five_years_disease_task.csv` with 0 to 3; `metadata.csv`. No source confirms every column name, so
they are matched by `COLUMNS`, which the caller may override, and the match is part of the audit.

The release holds no patient ids. With a table of them studies are grouped by patient; without, each
study is its own unit, and the audit says so.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.data import cells, tables
from merlin.data.cells import plain, why_apart
from merlin.data.impression import split_impression
from merlin.data.tree import walk
from merlin.readers.ledger import Ledger
from merlin.readers.patterns import DELETED
from merlin.vocabulary import DISEASES, NAMES, SPLIT_NAMES, SPLITS

VOLUMES = "merlin_data"
REPORTS = "reports_final.xlsx"
FINDINGS = "zero_shot_findings_disease_cls.csv"
FIVE_YEARS = "five_years_disease_task.csv"
METADATA = "metadata.csv"
# What a column may be called, compared without case, spaces, underscores and hyphens.
COLUMNS = {
    "study_id": ("study id", "accession", "id", "study"),
    "findings": ("findings", "report"),
    "impression": ("impression", "impressions"),
    "split": ("split", "merlin split"),
    "age": ("age", "patient age"),
    "sex": ("gender", "sex"),
    "phase": ("phase", "contrast phase"),
    "manufacturer": ("manufacturer",),
    "slice_mm": ("slice mm", "slicethickness", "slice thickness"),
    "patient_id": ("patient id", "patient", "mrn"),
    "date": ("date", "study date", "scan date"),
}
UNKNOWN = "unknown: each study is resampled as a patient of its own"
SPLIT_WORDS = SPLIT_NAMES | {"dev": "val"}


@dataclass(frozen=True)
class Release:
    """A release as read.

    Attributes
    ----------
    manifest : DataFrame
        In the schema of `data_manifests/README.md`, all text; `volume` is an absolute path.
    audit : DataFrame
        `what, n, detail`: counts, and everything that was odd and how it was taken.
    has_patients : bool
        False where each study stands for a patient.
    lost : DataFrame
        `study_id, split, reason`: studies with a report but no volume, or in an earlier split than
        others of their patient.
    odd : DataFrame
        `study_id, what`: the studies behind the audit's counts.
    """

    manifest: pd.DataFrame
    audit: pd.DataFrame
    has_patients: bool
    lost: pd.DataFrame
    odd: pd.DataFrame


def read_release(
    folder: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    patients: str | Path | None = None,
    dates: str = "",
) -> Release:
    """Read the data release.

    Parameters
    ----------
    folder : path
        `merlinabdominalctdataset/`.
    columns : dict of str to str, optional
        Our name → the file's, where `COLUMNS` does not match.
    patients : path, optional
        Table of study id, patient id and, if known, date.
    dates : {"", "ymd", "dmy", "mdy"}
        Order of day and month in that table, where its dates do not tell.

    Returns
    -------
    Release

    Raises
    ------
    ManifestError
        With every missing file, unmatched column and cell that is not understood at once.
    """
    folder, columns, ledger = Path(folder), columns or {}, Ledger()
    found = {
        name: _read(folder / name, ("study_id", *more), columns, ledger)
        for name, more in (
            (REPORTS, ("findings", "split")), (FINDINGS, ()), (FIVE_YEARS, ()), (METADATA, ()),
        )
    }  # fmt: skip
    table = None
    if patients is not None:
        table = _read(Path(patients), ("study_id", "patient_id"), columns, ledger)
    volumes = _volumes(folder / VOLUMES, ledger)
    read = [t for t in (*found.values(), table) if t is not None]
    _check_overrides(columns, [c for t in read for c in t.attrs["columns"]], ledger)
    ledger.refuse(folder)

    manifest = _reports(found[REPORTS], ledger)
    labels = _codes(found[FINDINGS], FINDINGS, NAMES, ("1", "0", "-1"), columns, ledger)
    labels = labels.replace("-1", np.nan).add_prefix("label_")
    diseases = _codes(found[FIVE_YEARS], FIVE_YEARS, DISEASES, tuple("0123"), columns, ledger)
    diseases = diseases.add_prefix("five_year_")
    of_metadata = Ledger(problems=ledger.problems)
    about = _metadata(found[METADATA], of_metadata)
    owners = None if patients is None else _owners(table, Path(patients), dates, ledger)
    for name, ids in (
        (FINDINGS, labels.index), (FIVE_YEARS, diseases.index), (METADATA, about.index),
        (VOLUMES, volumes), (Path(patients or "").name, () if owners is None else owners.index),
    ):  # fmt: skip
        if why := why_apart(manifest["study_id"], ids):
            ledger.problems.append(f"{name}: no study id is one of {REPORTS}: {why}.")
    ledger.refuse(folder)

    manifest = _with_labels(manifest, labels, "finding labels", FINDINGS, ledger)
    manifest = _with_labels(manifest, diseases, "5-year labels", FIVE_YEARS, ledger)
    outside = manifest["study_id"].isin(diseases.index) & (manifest["split"] != "test")
    said = "the documentation says none"
    ledger.name("5-year labels outside the test split", manifest["study_id"][outside], said)
    ledger.rows += of_metadata.rows
    bare = ~manifest["study_id"].isin(about.index)
    ledger.name("studies without metadata", manifest["study_id"][bare], METADATA)
    manifest, gone = _with_volumes(manifest.join(about, on="study_id"), volumes, ledger)
    if manifest.empty:
        ledger.problems.append(
            f"{VOLUMES}: no study of {REPORTS} has a volume. Expected ID.nii.gz."
        )
        ledger.refuse(folder)
    before = manifest
    manifest = _patients(manifest, gone["study_id"], owners, patients, ledger)
    moved = before.loc[~before["study_id"].isin(manifest["study_id"]), ["study_id", "split"]]
    gone = pd.concat([gone, moved.assign(reason="its patient is in a later split too")])
    count_splits(manifest, "in the manifest", ledger)
    order = ["study_id", "patient_id", "split", "volume"]
    manifest = manifest[[*order, *(c for c in manifest if c not in order)]]
    rows, odd = ledger.tables()
    return Release(manifest, rows, patients is not None, gone.reset_index(drop=True), odd)


def count_splits(manifest: pd.DataFrame, where: str, ledger: Ledger) -> None:
    """Rows of the audit on how many studies there are, in all and in each split."""
    ledger.count("studies", len(manifest), where)
    for split in SPLITS:
        ledger.count(f"studies, {split}", int((manifest["split"] == split).sum()))


def _with_labels(manifest, labels, what, name, ledger):
    """The manifest with label columns; studies that only one of the two has are counted."""
    ledger.count(f"studies with {what}", len(labels), name)
    known = manifest["study_id"].isin(labels.index)
    ledger.name(f"studies without {what}", manifest["study_id"][~known], name)
    bare = ~known & (manifest["split"] == "test")
    ledger.count(f"test studies without {what}", int(bare.sum()), name)
    stray = ~labels.index.isin(manifest["study_id"])
    ledger.name(f"{what} of studies without report", labels.index[stray], name)
    return manifest.join(labels, on="study_id")


def _with_volumes(manifest, volumes, ledger):
    """Studies that have a volume, and `study_id, split, reason` of the others."""
    manifest["volume"] = manifest["study_id"].map(volumes)
    lost = manifest["volume"].isna()
    why = why_apart(manifest["study_id"][lost], set(volumes) - set(manifest["study_id"]))
    said = f"left out; from names of other volumes {why}" if why else "left out"
    ledger.name("studies without volume", manifest["study_id"][lost], said)
    gone = manifest.loc[lost, ["study_id", "split"]].assign(reason="no volume")
    return manifest[~lost].reset_index(drop=True), gone


def _read(path, needed, columns, ledger):
    """A table with our names of columns and ids as text; None where it cannot be read."""
    name, table = path.name, None
    try:
        with ledger.keeping():
            table = tables.read_table(path)
    except FileNotFoundError:
        of_release = name in (REPORTS, FINDINGS, FIVE_YEARS, METADATA)
        where = f" Expected it beside {VOLUMES}/, as the download has it." if of_release else ""
        ledger.problems.append(f"{name}: not found.{where}")
    if table is None:
        return None
    for note in table.attrs["notes"]:
        ledger.count(f"{name}: remarks", 1, note)
    found = list(table)
    table = _renamed(table, name, needed, columns, ledger)
    for column in {"study_id", "patient_id"} & set(table):
        with ledger.keeping():
            table[column] = cells.read_ids(table[column], where=f"{name}, column {column}")
    table.attrs["columns"] = found  # as the file has them
    return table


def _renamed(table, name, needed, columns, ledger):
    """Our names for the columns that match; the match goes into the audit."""
    match = {}
    for ours, names in COLUMNS.items():
        wanted = [columns[ours], *names] if ours in columns else names
        found = [c for c in table if plain(c) in {plain(w) for w in wanted}]
        if ours in columns and len(found) > 1:  # the caller's word decides, in files that have it
            found = [c for c in found if plain(c) == plain(columns[ours])] or found
        if len(found) == 1:
            match[found[0]] = ours
        elif len(found) > 1:
            ledger.problems.append(
                f"{name}: columns {', '.join(found)} could all be {ours}; name one."
            )
        elif ours in needed:
            ledger.problems.append(
                f"{name}: no column for {ours}. Found {', '.join(map(str, table))}; expected one of "
                f"{', '.join(wanted)}. Say which: columns={{'{ours}': …}}."
            )
    for theirs, ours in match.items():
        ledger.count(f"{name}: column", 1, f"{theirs} read as {ours}")
    taken = [ours for theirs, ours in match.items() if ours != theirs and ours in table]
    for ours in taken:  # by the caller's word another column has its name
        ledger.count(f"{name}: column", 1, f"{ours} left out: not the one that was named")
    return table.drop(columns=taken).rename(columns=match)


def _volumes(folder, ledger):
    """Study id → path; the name before the first dot is the id."""
    if not folder.is_dir():
        ledger.problems.append(f"{VOLUMES}/: not found. Expected a folder of ID.nii.gz files.")
        return {}
    paths: dict[str, str] = {}
    twice = []
    tree = walk(folder)
    for note in tree.notes:
        ledger.count(f"{VOLUMES}: remarks", 1, note)
    for path in (p for p in tree.files if p.name.lower().endswith((".nii", ".nii.gz"))):
        study = path.name.split(".")[0]
        if study in paths:
            twice.append(study)
        paths.setdefault(study, str(path.absolute()))
    ledger.count("volumes", len(paths), "files")
    if twice:
        ledger.name("studies with several files", sorted(set(twice)), "the first by name is taken")
    return paths


def _reports(table, ledger):
    """One row a study: final report, cut at the impression, escapes undone."""
    nobodys = table["study_id"] == ""
    if nobodys.any():
        ledger.count("reports without a study id", int(nobodys.sum()), "left out")
    table = table[~nobodys].copy()
    text = table["findings"].map(html.unescape).str.strip()
    ids = table["study_id"]
    ledger.name(f"reports with {DELETED}", ids[text.str.contains(DELETED)], "kept as written")
    escaped = table["findings"].str.contains("&lt;|&gt;|&amp;")
    ledger.name("reports with escaped characters", ids[escaped], "unescaped")
    parts = text.map(split_impression)
    own = table["impression"].str.strip() if "impression" in table else ""  # in a column of its own
    table["findings"] = parts.str[0]
    table["impression"] = parts.str[1].where(parts.str[1] != "", own)
    ledger.name("reports with an impression inside", ids[parts.str[1] != ""], "cut")
    ledger.name("reports without findings", ids[table["findings"] == ""], "kept, no text")
    split = table["split"].str.strip().str.lower().replace(SPLIT_WORDS)
    _refuse_odd(REPORTS, split, ~split.isin(SPLITS), "train, val or test", ledger)
    table["split"] = split
    # A preliminary read and the final report share an id: the longer text is the final one.
    order = table.assign(length=table["findings"].str.len()).sort_values("length", ascending=False)
    kept = order.drop_duplicates("study_id").sort_index()
    again = ids[ids.duplicated()]
    ledger.name("study ids that occur twice", again, "the longer report is taken")
    two = table.groupby("study_id")["split"].nunique()
    said = "the longer report's is taken"
    ledger.name("study ids in several splits", two.index[two > 1], said)
    name_shared_reports(kept, ledger)
    return kept[["study_id", "split", "findings", "impression"]].reset_index(drop=True)


def _check_overrides(columns, there, ledger):
    """An override that matches nothing is a mistake, not a wish."""
    known = (*COLUMNS, *NAMES, *DISEASES)
    there = {plain(c) for c in there}
    for ours, theirs in columns.items():
        if ours not in known:
            near = get_close_matches(ours, known, 1)
            hint = (
                f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(COLUMNS)}"
            )
            ledger.problems.append(f"columns: no column of ours is called {ours}{hint}")
        elif plain(theirs) not in there:
            ledger.problems.append(f"columns: {ours} is said to be {theirs}, which no table has.")


def _refuse_odd(name, values, odd, expected, ledger):
    """All cells of a column that are not understood are one problem."""
    if odd.any():
        rows = ", ".join(str(i + 2) for i in values.index[odd][:8])
        found = ", ".join(sorted(set(values[odd]))[:5])
        ledger.problems.append(
            f"{name}: rows {rows}, column {values.name}: {found}. Expected {expected}."
        )


def name_shared_reports(table: pd.DataFrame, ledger: Ledger) -> None:
    """The audit's row on findings texts that stand word for word in several splits, with the studies."""
    filled = table[table["findings"].fillna("") != ""]
    shared = filled.groupby("findings")["split"].nunique()
    shared = shared.index[shared > 1]
    ids = filled["study_id"][filled["findings"].isin(shared)]
    ledger.name("reports word for word in several splits", ids, "kept", n=len(shared))


def _codes(table, name, wanted, codes, columns, ledger):
    """Label columns by study; unknown codes are refused, all of them named."""
    by_plain = {plain(c): c for c in table}
    theirs = {w: by_plain.get(plain(columns.get(w, w))) for w in wanted}
    missing = [w for w, column in theirs.items() if column is None]
    if missing:
        said = f"{name}: no columns {', '.join(missing)}. Say which: columns={{'{missing[0]}': …}}."
        ledger.problems.append(said)
        return pd.DataFrame(index=pd.Index([], name="study_id"))
    for ours, column in theirs.items():
        if column != ours:
            ledger.count(f"{name}: column", 1, f"{column} read as {ours}")
    part = table[["study_id", *theirs.values()]]
    part = part.set_axis(["study_id", *wanted], axis=1)
    number = lambda c: c.str.strip().str.replace(r"[.,]0+$", "", regex=True).str.replace("−", "-")  # noqa: E731
    values = part[list(wanted)].apply(number)
    for column in wanted:
        odd = ~values[column].isin([*codes, ""])
        expected = f"{', '.join(codes)} or empty"
        _refuse_odd(name, values[column], odd, expected, ledger)
    values = values.replace("", np.nan).set_axis(part["study_id"], axis=0)
    twice = values.index.duplicated(keep=False)
    if twice.any():
        groups = values[twice].fillna("").groupby(level=0)
        differ = int((groups.nunique() > 1).any(axis=1).sum())
        said = f"the first is taken; {differ} studies contradict themselves"
        ledger.name(f"{name}: repeated rows", values.index[values.index.duplicated()], said)
    values = values[~values.index.duplicated()]
    values.index.name = "study_id"
    return values


def _metadata(table, ledger):
    """Demographics and acquisition by study."""
    again = table["study_id"].duplicated()
    if again.any():
        ledger.name(f"{METADATA}: repeated rows", table["study_id"][again], "the first is taken")
    for name in ("sex", "age", "slice_mm", "phase", "manufacturer"):
        if name not in table:
            ledger.count(f"{METADATA}: column", 1, f"none for {name}: not known of any study")
    table = table[~again]
    out = pd.DataFrame(index=pd.Index(table["study_id"], name="study_id"))
    if "sex" in table:
        with ledger.keeping():
            sex = cells.read_sexes(table["sex"], where=f"{METADATA}, column sex")
            out["sex"] = sex.where(sex != "").to_numpy()
            ledger.name("sex not F or M", out.index[out["sex"].isna()], "left empty")
    for name, read in (("age", cells.read_ages), ("slice_mm", cells.read_lengths_mm)):
        if name not in table:
            continue
        with ledger.keeping():
            values = read(table[name], where=f"{METADATA}, column {name}")
            out[name] = values.map(lambda x: f"{x:g}", na_action="ignore").to_numpy()
            ledger.name(f"{name} unknown", out.index[out[name].isna()], "left empty")
            in_units = table[name].str.contains(r"[A-Za-z]") & values.notna()
            if in_units.any():
                ids = table["study_id"][in_units]
                ledger.name(f"{name} with a unit", ids, "read in that unit")
    for name in ("phase", "manufacturer"):
        if name in table:
            out[name] = table[name].replace("", np.nan).to_numpy()
    ledger.count("studies with metadata", len(out), METADATA)
    return out


def _owners(table, path, dates, ledger):
    """Patient and, where there is one, date by study."""
    table = table[(table["study_id"] != "") & (table["patient_id"] != "")]
    owners = table.groupby("study_id")["patient_id"].nunique()
    if (owners > 1).any():
        said = ", ".join(owners.index[owners > 1][:8])
        ledger.problems.append(f"{int((owners > 1).sum())} studies have several patients: {said}")
    if "date" in table:
        with ledger.keeping():
            where = f"{path.name}, column date"
            date = cells.read_dates(table["date"], where=where, order=dates)
            is_word = date.isna() & (table["date"] != "")  # as "NA"
            table = table.assign(date=date.dt.strftime("%Y-%m-%d"), has_no_date=is_word)
    return table.drop_duplicates("study_id").set_index("study_id")


def _patients(manifest, gone, table, path, ledger):
    """Owners of the studies, one split a patient; those of `gone`, without a volume, are counted."""
    if table is None:
        ledger.count("patients", 0, UNKNOWN)
        return manifest.assign(patient_id=manifest["study_id"])
    everyone = pd.concat([manifest["study_id"], gone])
    lost = everyone[~everyone.isin(table.index)]
    if len(lost):
        ledger.name("studies without patient", lost, "each its own patient")
    owner = everyone.map(table["patient_id"]).fillna(everyone)
    ledger.count("patients", owner.nunique(), Path(path).name)
    manifest = manifest.assign(patient_id=owner[: len(manifest)])
    if "date" in table:
        ledger.name("dates that are none", table.index[table["has_no_date"]], "left empty")
        manifest["date"] = manifest["study_id"].map(table["date"])
    mixed = manifest.groupby("patient_id")["split"].transform("nunique") > 1
    # What is judged must not have been learned from: the later split keeps the patient.
    rank = manifest["split"].map({"train": 0, "val": 1, "test": 2})
    stays = rank == rank.groupby(manifest["patient_id"]).transform("max")
    said = f"{int((~stays).sum())} studies left out of the earlier splits"
    n = manifest["patient_id"][mixed].nunique()
    ledger.name("patients in several splits", manifest["study_id"][mixed], said, n=n)
    return manifest[stays].reset_index(drop=True)
