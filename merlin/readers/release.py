"""The Merlin Abdominal CT Dataset as a manifest, with an audit of what was found on the way.

Layout (paper_facts §2.7): `merlin_data/` with one NIfTI file a study, flat or nested;
`reports_final.xlsx`; `zero_shot_findings_disease_cls.csv` with 1, 0 and −1 (not mentioned);
`five_years_disease_task.csv` with 0 to 3; `metadata.csv`. No source confirms every column name, so
they are matched by `COLUMNS`, which the caller may override, and the match is part of the audit.

The release holds no patient ids. With a table of them studies are grouped by patient; without, each
study is its own unit, and the audit says so.
"""

import html
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.data import tables
from merlin.data.impression import split_impression
from merlin.data.manifest import ManifestError
from merlin.data.tables import TableError, plain, why_apart
from merlin.data.tree import walk
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
    "slice_mm": ("slicethickness", "slice thickness"),
    "patient_id": ("patient id", "patient", "mrn"),
    "date": ("date", "study date", "scan date"),
}
UNKNOWN = "unknown: each study is resampled as a patient of its own"
SPLIT_WORDS = SPLIT_NAMES | {"dev": "val"}


@dataclass
class Audit:
    """What is said of a data set while it is read: rows of the audit, and problems that end the reading."""

    rows: list[tuple[str, int, str, tuple[str, ...]]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def count(self, what: str, n: int, detail: str = "") -> None:
        """A row of the audit."""
        self.rows.append((what, n, detail, ()))

    def name(self, what: str, ids: Collection[str], detail: str = "") -> None:
        """Count studies, and keep which they are."""
        self.rows.append((what, len(ids), detail, tuple(ids)))

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """What cannot be read inside is a problem; reading goes on behind."""
        try:
            yield
        except TableError as error:
            self.problems.append(str(error))

    def refuse(self, folder: Path) -> None:
        """Raise a `ManifestError` with all problems, if there are any."""
        if self.problems:
            count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
            raise ManifestError(f"{folder}: {count}\n  " + "\n  ".join(self.problems))

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The audit, `what, n, detail`, and the studies that it names, `study_id, what`."""
        table = pd.DataFrame([row[:3] for row in self.rows], columns=["what", "n", "detail"])
        named = [(study_id, what) for what, _, _, ids in self.rows for study_id in ids]
        return table, pd.DataFrame(named, columns=["study_id", "what"]).drop_duplicates()


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
    folder, columns, audit = Path(folder), columns or {}, Audit()
    found = {
        name: _read(folder / name, ("study_id", *more), columns, audit)
        for name, more in (
            (REPORTS, ("findings", "split")), (FINDINGS, ()), (FIVE_YEARS, ()), (METADATA, ()),
        )
    }  # fmt: skip
    table = None
    if patients is not None:
        table = _read(Path(patients), ("study_id", "patient_id"), columns, audit)
    volumes = _volumes(folder / VOLUMES, audit)
    read = [t for t in (*found.values(), table) if t is not None]
    _check_overrides(columns, [c for t in read for c in t.attrs["columns"]], audit)
    audit.refuse(folder)

    manifest = _reports(found[REPORTS], audit)
    labels = _codes(found[FINDINGS], FINDINGS, NAMES, ("1", "0", "-1"), columns, audit)
    labels = labels.replace("-1", np.nan).add_prefix("label_")
    diseases = _codes(found[FIVE_YEARS], FIVE_YEARS, DISEASES, tuple("0123"), columns, audit)
    diseases = diseases.add_prefix("five_year_")
    of_metadata = Audit(problems=audit.problems)
    about = _metadata(found[METADATA], of_metadata)
    owners = None if patients is None else _owners(table, Path(patients), dates, audit)
    for name, ids in (
        (FINDINGS, labels.index), (FIVE_YEARS, diseases.index), (METADATA, about.index),
        (VOLUMES, volumes), (Path(patients or "").name, () if owners is None else owners.index),
    ):  # fmt: skip
        if why := why_apart(manifest["study_id"], ids):
            audit.problems.append(f"{name}: no study id is one of {REPORTS}: {why}.")
    audit.refuse(folder)

    manifest = _with_labels(manifest, labels, "finding labels", FINDINGS, audit)
    manifest = _with_labels(manifest, diseases, "5-year labels", FIVE_YEARS, audit)
    outside = manifest["study_id"].isin(diseases.index) & (manifest["split"] != "test")
    said = "the documentation says none"
    audit.name("5-year labels outside the test split", manifest["study_id"][outside], said)
    audit.rows += of_metadata.rows
    bare = ~manifest["study_id"].isin(about.index)
    audit.name("studies without metadata", manifest["study_id"][bare], METADATA)
    manifest, gone = _with_volumes(manifest.join(about, on="study_id"), volumes, audit)
    if manifest.empty:
        audit.problems.append(f"{VOLUMES}: no study of {REPORTS} has a volume. Expected ID.nii.gz.")
        audit.refuse(folder)
    before = manifest
    manifest = _patients(manifest, gone["study_id"], owners, patients, audit)
    moved = before.loc[~before["study_id"].isin(manifest["study_id"]), ["study_id", "split"]]
    gone = pd.concat([gone, moved.assign(reason="its patient is in a later split too")])
    count_splits(manifest, "in the manifest", audit)
    order = ["study_id", "patient_id", "split", "volume"]
    manifest = manifest[[*order, *(c for c in manifest if c not in order)]]
    rows, odd = audit.tables()
    return Release(manifest, rows, patients is not None, gone.reset_index(drop=True), odd)


def count_splits(manifest: pd.DataFrame, where: str, audit: Audit) -> None:
    """Rows of the audit on how many studies there are, in all and in each split."""
    audit.count("studies", len(manifest), where)
    for split in SPLITS:
        audit.count(f"studies, {split}", int((manifest["split"] == split).sum()))


def _with_labels(manifest, labels, what, name, audit):
    """The manifest with label columns; studies that only one of the two has are counted."""
    audit.count(f"studies with {what}", len(labels), name)
    known = manifest["study_id"].isin(labels.index)
    audit.name(f"studies without {what}", manifest["study_id"][~known], name)
    bare = ~known & (manifest["split"] == "test")
    audit.count(f"test studies without {what}", int(bare.sum()), name)
    stray = ~labels.index.isin(manifest["study_id"])
    audit.name(f"{what} of studies without report", labels.index[stray], name)
    return manifest.join(labels, on="study_id")


def _with_volumes(manifest, volumes, audit):
    """Studies that have a volume, and `study_id, split, reason` of the others."""
    manifest["volume"] = manifest["study_id"].map(volumes)
    lost = manifest["volume"].isna()
    why = why_apart(manifest["study_id"][lost], set(volumes) - set(manifest["study_id"]))
    said = f"left out; from names of other volumes {why}" if why else "left out"
    audit.name("studies without volume", manifest["study_id"][lost], said)
    gone = manifest.loc[lost, ["study_id", "split"]].assign(reason="no volume")
    return manifest[~lost].reset_index(drop=True), gone


def _read(path, needed, columns, audit):
    """A table with our names of columns and ids as text; None where it cannot be read."""
    name, table = path.name, None
    try:
        with audit.keeping():
            table = tables.read_table(path)
    except FileNotFoundError:
        of_release = name in (REPORTS, FINDINGS, FIVE_YEARS, METADATA)
        where = f" Expected it beside {VOLUMES}/, as the download has it." if of_release else ""
        audit.problems.append(f"{name}: not found.{where}")
    if table is None:
        return None
    for note in table.attrs["notes"]:
        audit.count(f"{name}: remarks", 1, note)
    found = list(table)
    table = _renamed(table, name, needed, columns, audit)
    for column in {"study_id", "patient_id"} & set(table):
        with audit.keeping():
            table[column] = tables.read_ids(table[column], where=f"{name}, column {column}")
    table.attrs["columns"] = found  # as the file has them
    return table


def _renamed(table, name, needed, columns, audit):
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
            audit.problems.append(
                f"{name}: columns {', '.join(found)} could all be {ours}; name one."
            )
        elif ours in needed:
            audit.problems.append(
                f"{name}: no column for {ours}. Found {', '.join(map(str, table))}; expected one of "
                f"{', '.join(wanted)}. Say which: columns={{'{ours}': …}}."
            )
    for theirs, ours in match.items():
        audit.count(f"{name}: column", 1, f"{theirs} read as {ours}")
    return table.rename(columns=match)


def _volumes(folder, audit):
    """Study id → path; the name before the first dot is the id."""
    if not folder.is_dir():
        audit.problems.append(f"{VOLUMES}/: not found. Expected a folder of ID.nii.gz files.")
        return {}
    paths: dict[str, str] = {}
    twice = []
    tree = walk(folder)
    for note in tree.notes:
        audit.count(f"{VOLUMES}: remarks", 1, note)
    for path in (p for p in tree.files if p.name.lower().endswith((".nii", ".nii.gz"))):
        study = path.name.split(".")[0]
        if study in paths:
            twice.append(study)
        paths.setdefault(study, str(path.absolute()))
    audit.count("volumes", len(paths), "files")
    if twice:
        audit.name("studies with several files", sorted(set(twice)), "the first by name is taken")
    return paths


def _reports(table, audit):
    """One row a study: final report, cut at the impression, escapes undone."""
    nobodys = table["study_id"] == ""
    if nobodys.any():
        audit.count("reports without a study id", int(nobodys.sum()), "left out")
    table = table[~nobodys].copy()
    text = table["findings"].map(html.unescape).str.strip()
    ids = table["study_id"]
    audit.name(f"reports with {DELETED}", ids[text.str.contains(DELETED)], "kept as written")
    escaped = table["findings"].str.contains("&lt;|&gt;|&amp;")
    audit.name("reports with escaped characters", ids[escaped], "unescaped")
    parts = text.map(split_impression)
    own = table["impression"].str.strip() if "impression" in table else ""  # in a column of its own
    table["findings"] = parts.str[0]
    table["impression"] = parts.str[1].where(parts.str[1] != "", own)
    audit.name("reports with an impression inside", ids[parts.str[1] != ""], "cut")
    audit.name("reports without findings", ids[table["findings"] == ""], "kept, no text")
    split = table["split"].str.strip().str.lower().replace(SPLIT_WORDS)
    _refuse_odd(
        split, ~split.isin(SPLITS), f"{REPORTS}: rows", "split", "train, val or test", audit
    )
    table["split"] = split
    # A preliminary read and the final report share an id: the longer text is the final one.
    order = table.assign(length=table["findings"].str.len()).sort_values("length", ascending=False)
    kept = order.drop_duplicates("study_id").sort_index()
    again = ids[ids.duplicated()]
    audit.name("study ids that occur twice", again, "the longer report is taken")
    two = table.groupby("study_id")["split"].nunique()
    said = "the longer report's is taken"
    audit.name("study ids in several splits", two.index[two > 1], said)
    name_shared_reports(kept, audit)
    return kept[["study_id", "split", "findings", "impression"]].reset_index(drop=True)


def _check_overrides(columns, there, audit):
    """An override that matches nothing is a mistake, not a wish."""
    known = (*COLUMNS, *NAMES, *DISEASES)
    there = {plain(c) for c in there}
    for ours, theirs in columns.items():
        if ours not in known:
            near = get_close_matches(ours, known, 1)
            hint = (
                f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(COLUMNS)}"
            )
            audit.problems.append(f"columns: no column of ours is called {ours}{hint}")
        elif plain(theirs) not in there:
            audit.problems.append(f"columns: {ours} is said to be {theirs}, which no table has.")


def _refuse_odd(values, odd, where, column, expected, audit):
    """All cells that are not understood are one problem of their column."""
    if odd.any():
        rows = ", ".join(str(i + 2) for i in values.index[odd][:8])
        found = ", ".join(sorted(set(values[odd]))[:5])
        audit.problems.append(f"{where} {rows}, column {column}: {found}. Expected {expected}.")


def name_shared_reports(table: pd.DataFrame, audit: Audit) -> None:
    """The audit's row on findings texts that stand word for word in several splits, with the studies."""
    filled = table[table["findings"].fillna("") != ""]
    shared = filled.groupby("findings")["split"].nunique()
    shared = shared.index[shared > 1]
    ids = tuple(filled["study_id"][filled["findings"].isin(shared)])
    audit.rows.append(("reports word for word in several splits", len(shared), "kept", ids))


def _codes(table, name, wanted, codes, columns, audit):
    """Label columns by study; unknown codes are refused, all of them named."""
    by_plain = {plain(c): c for c in table}
    theirs = {w: by_plain.get(plain(columns.get(w, w))) for w in wanted}
    missing = [w for w, column in theirs.items() if column is None]
    if missing:
        said = f"{name}: no columns {', '.join(missing)}. Say which: columns={{'{missing[0]}': …}}."
        audit.problems.append(said)
        return pd.DataFrame(index=pd.Index([], name="study_id"))
    for ours, column in theirs.items():
        if column != ours:
            audit.count(f"{name}: column", 1, f"{column} read as {ours}")
    part = table[["study_id", *theirs.values()]]
    part = part.set_axis(["study_id", *wanted], axis=1)
    number = lambda c: c.str.strip().str.replace(r"[.,]0+$", "", regex=True).str.replace("−", "-")  # noqa: E731
    values = part[list(wanted)].apply(number)
    for column in wanted:
        odd = ~values[column].isin([*codes, ""])
        expected = f"{', '.join(codes)} or empty"
        _refuse_odd(values[column], odd, f"{name}: rows", column, expected, audit)
    values = values.replace("", np.nan).set_axis(part["study_id"], axis=0)
    twice = values.index.duplicated(keep=False)
    if twice.any():
        groups = values[twice].fillna("").groupby(level=0)
        differ = int((groups.nunique() > 1).any(axis=1).sum())
        said = f"the first is taken; {differ} studies contradict themselves"
        audit.name(f"{name}: repeated rows", values.index[values.index.duplicated()], said)
    values = values[~values.index.duplicated()]
    values.index.name = "study_id"
    return values


def _metadata(table, audit):
    """Demographics and acquisition by study."""
    again = table["study_id"].duplicated()
    if again.any():
        audit.name(f"{METADATA}: repeated rows", table["study_id"][again], "the first is taken")
    for name in ("sex", "age", "slice_mm", "phase", "manufacturer"):
        if name not in table:
            audit.count(f"{METADATA}: column", 1, f"none for {name}: not known of any study")
    table = table[~again]
    out = pd.DataFrame(index=pd.Index(table["study_id"], name="study_id"))
    if "sex" in table:
        with audit.keeping():
            sex = tables.read_sexes(table["sex"], where=f"{METADATA}, column sex")
            out["sex"] = sex.where(sex != "").to_numpy()
            audit.name("sex not F or M", out.index[out["sex"].isna()], "left empty")
    for name, read in (("age", tables.read_ages), ("slice_mm", tables.read_lengths_mm)):
        if name not in table:
            continue
        with audit.keeping():
            values = read(table[name], where=f"{METADATA}, column {name}")
            out[name] = values.map(lambda x: f"{x:g}", na_action="ignore").to_numpy()
            audit.name(f"{name} unknown", out.index[out[name].isna()], "left empty")
            in_units = table[name].str.contains(r"[A-Za-z]") & values.notna()
            if in_units.any():
                ids = table["study_id"][in_units]
                audit.name(f"{name} with a unit", ids, "read in that unit")
    for name in ("phase", "manufacturer"):
        if name in table:
            out[name] = table[name].replace("", np.nan).to_numpy()
    audit.count("studies with metadata", len(out), METADATA)
    return out


def _owners(table, path, dates, audit):
    """Patient and, where there is one, date by study."""
    table = table[(table["study_id"] != "") & (table["patient_id"] != "")]
    owners = table.groupby("study_id")["patient_id"].nunique()
    if (owners > 1).any():
        said = ", ".join(owners.index[owners > 1][:8])
        audit.problems.append(f"{int((owners > 1).sum())} studies have several patients: {said}")
    if "date" in table:
        with audit.keeping():
            where = f"{path.name}, column date"
            date = tables.read_dates(table["date"], where=where, order=dates)
            is_word = date.isna() & (table["date"] != "")  # as "NA"
            table = table.assign(date=date.dt.strftime("%Y-%m-%d"), has_no_date=is_word)
    return table.drop_duplicates("study_id").set_index("study_id")


def _patients(manifest, gone, table, path, audit):
    """Owners of the studies, one split a patient; those of `gone`, without a volume, are counted."""
    if table is None:
        audit.count("patients", 0, UNKNOWN)
        return manifest.assign(patient_id=manifest["study_id"])
    everyone = pd.concat([manifest["study_id"], gone])
    lost = everyone[~everyone.isin(table.index)]
    if len(lost):
        audit.name("studies without patient", lost, "each its own patient")
    owner = everyone.map(table["patient_id"]).fillna(everyone)
    audit.count("patients", owner.nunique(), Path(path).name)
    manifest = manifest.assign(patient_id=owner[: len(manifest)])
    if "date" in table:
        audit.name("dates that are none", table.index[table["has_no_date"]], "left empty")
        manifest["date"] = manifest["study_id"].map(table["date"])
    mixed = manifest.groupby("patient_id")["split"].transform("nunique") > 1
    # What is judged must not have been learned from: the later split keeps the patient.
    rank = manifest["split"].map({"train": 0, "val": 1, "test": 2})
    stays = rank == rank.groupby(manifest["patient_id"]).transform("max")
    said = f"{int((~stays).sum())} studies left out of the earlier splits"
    n = manifest["patient_id"][mixed].nunique()
    ids = tuple(manifest["study_id"][mixed])
    audit.rows.append(("patients in several splits", n, said, ids))
    return manifest[stays].reset_index(drop=True)
