"""The Merlin Abdominal CT Dataset as a manifest, with an audit of what was found on the way.

Layout (paper_facts §2.7): `merlin_data/` with one NIfTI file a study, flat or nested;
`reports_final.xlsx`; `zero_shot_findings_disease_cls.csv` with 1, 0 and −1 (not mentioned);
`five_years_disease_task.csv` with 0 to 3; `metadata.csv`. No source confirms every column name, so
they are matched by `COLUMNS`, which the caller may override, and the match is part of the audit.

The release holds no patient ids. With a table of them studies are grouped by patient; without, each
study is its own unit, and the audit says so.
"""

import html
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.data.impression import split_impression
from merlin.data.manifest import ManifestError
from merlin.data.tables import (
    TableError,
    plain,
    read_ages,
    read_dates,
    read_ids,
    read_lengths_mm,
    read_sexes,
    read_table,
    some_rows,
    why_apart,
)
from merlin.data.tree import walk
from merlin.run import mark_synthetic, write_csv, write_xlsx
from merlin.vocabulary import DISEASES, NAMES
from merlin.words import names_a_file

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
DELETED = "<DELETED>"
SPLIT_WORDS = {
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "training": "train",
    "testing": "test",
}


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


def read_release(folder, *, columns=None, patients=None, dates=""):
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
    folder, columns = Path(folder), columns or {}
    audit, problems = [], []
    tables = {}
    for name, fields in (
        (REPORTS, ("study_id", "findings", "split")),
        (FINDINGS, ("study_id",)),
        (FIVE_YEARS, ("study_id",)),
        (METADATA, ("study_id",)),
    ):
        found = _read(folder / name, fields, columns, problems, audit)
        if found is not None:
            tables[name] = found
    if patients is not None:
        fields = ("study_id", "patient_id")
        tables[patients] = _read(Path(patients), fields, columns, problems, audit)
    volumes = _volumes(folder / VOLUMES, problems, audit)
    there = [c for t in tables.values() if t is not None for c in t.attrs["columns"]]
    _check_overrides(columns, there, problems)
    if problems:
        raise _error(folder, problems)

    manifest = _reports(tables[REPORTS], problems, audit)
    labels = _codes(tables[FINDINGS], FINDINGS, NAMES, ("1", "0", "-1"), columns, problems, audit)
    labels = labels.replace("-1", np.nan).add_prefix("label_")
    codes = tuple("0123")
    diseases = _codes(tables[FIVE_YEARS], FIVE_YEARS, DISEASES, codes, columns, problems, audit)
    diseases = diseases.add_prefix("five_year_")
    of_metadata = []
    about = _metadata(tables[METADATA], problems, of_metadata)
    owners = None if patients is None else _owners(tables[patients], patients, dates, problems)
    for name, ids in (
        (FINDINGS, labels.index), (FIVE_YEARS, diseases.index), (METADATA, about.index),
        (VOLUMES, volumes), (Path(patients or "").name, () if owners is None else owners.index),
    ):  # fmt: skip
        if why := why_apart(manifest["study_id"], ids):
            problems.append(f"{name}: no study id is one of {REPORTS}: {why}.")
    if problems:
        raise _error(folder, problems)
    for name, part, what in (
        (FINDINGS, labels, "finding labels"),
        (FIVE_YEARS, diseases, "5-year labels"),
    ):
        audit.append((f"studies with {what}", len(part), name))
        known = manifest["study_id"].isin(part.index)
        name_studies(audit, f"studies without {what}", manifest["study_id"][~known], name)
        bare = ~known & (manifest["split"] == "test")
        audit.append((f"test studies without {what}", int(bare.sum()), name))
        stray = ~part.index.isin(manifest["study_id"])
        name_studies(audit, f"{what} of studies without report", part.index[stray], name)
        manifest = manifest.join(part, on="study_id")
    outside = manifest["study_id"].isin(diseases.index) & (manifest["split"] != "test")
    said = "the documentation says none"
    name_studies(audit, "5-year labels outside the test split", manifest["study_id"][outside], said)
    audit += of_metadata
    bare = ~manifest["study_id"].isin(about.index)
    name_studies(audit, "studies without metadata", manifest["study_id"][bare], METADATA)
    manifest = manifest.join(about, on="study_id")
    manifest["volume"] = manifest["study_id"].map(volumes)
    lost = manifest["volume"].isna()
    why = why_apart(manifest["study_id"][lost], set(volumes) - set(manifest["study_id"]))
    said = f"left out; from names of other volumes {why}" if why else "left out"
    name_studies(audit, "studies without volume", manifest["study_id"][lost], said)
    gone = manifest.loc[lost, ["study_id", "split"]].assign(reason="no volume")
    manifest = manifest[~lost].reset_index(drop=True)
    if manifest.empty:
        raise _error(
            folder, [f"{VOLUMES}: no study of {REPORTS} has a volume. Expected ID.nii.gz."]
        )
    has_patients, before = patients is not None, manifest
    manifest = _patients(manifest, gone["study_id"], owners, patients, audit)
    moved = before.loc[~before["study_id"].isin(manifest["study_id"]), ["study_id", "split"]]
    gone = pd.concat([gone, moved.assign(reason="its patient is in a later split too")])
    audit.append(("studies", len(manifest), "in the manifest"))
    audit += [
        (f"studies, {s}", int((manifest["split"] == s).sum()), "") for s in ("train", "val", "test")
    ]
    order = ["study_id", "patient_id", "split", "volume"]
    manifest = manifest[[*order, *(c for c in manifest if c not in order)]]
    table, odd = counted(audit)
    return Release(manifest, table, has_patients, gone.reset_index(drop=True), odd)


def name_studies(audit, what, ids, detail):
    """Count studies in the audit, and keep which they are."""
    audit.append((what, len(ids), detail, tuple(ids)))


def counted(audit):
    """The audit's rows as a table, `what, n, detail`, and the studies that they name."""
    table = pd.DataFrame([row[:3] for row in audit], columns=["what", "n", "detail"])
    named = [(study_id, row[0]) for row in audit for study_id in (row[3] if len(row) > 3 else ())]
    return table, pd.DataFrame(named, columns=["study_id", "what"]).drop_duplicates()


def _error(folder, problems):
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return ManifestError(f"{folder}: {count}\n  " + "\n  ".join(problems))


def _read(path, needed, columns, problems, audit):
    """A table with our names of columns and ids as text; None where it cannot be read."""
    name = path.name
    try:
        table = read_table(path)
    except FileNotFoundError:
        of_release = name in (REPORTS, FINDINGS, FIVE_YEARS, METADATA)
        where = f" Expected it beside {VOLUMES}/, as the download has it." if of_release else ""
        problems.append(f"{name}: not found.{where}")
        return None
    except TableError as error:
        problems.append(str(error))
        return None
    audit += [(f"{name}: remarks", 1, note) for note in table.attrs["notes"]]
    found = list(table)
    table = _renamed(table, name, needed, columns, problems, audit)
    for column in {"study_id", "patient_id"} & set(table):
        try:
            table[column] = read_ids(table[column], where=f"{name}, column {column}")
        except TableError as error:
            problems.append(str(error))
    table.attrs["columns"] = found  # as the file has them
    return table


def _renamed(table, name, needed, columns, problems, audit):
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
            problems.append(f"{name}: columns {', '.join(found)} could all be {ours}; name one.")
        elif ours in needed:
            problems.append(
                f"{name}: no column for {ours}. Found {', '.join(map(str, table))}; expected one of "
                f"{', '.join(wanted)}. Say which: columns={{'{ours}': …}}."
            )
    audit += [(f"{name}: column", 1, f"{theirs} read as {ours}") for theirs, ours in match.items()]
    return table.rename(columns=match)


def _volumes(folder, problems, audit):
    """Study id → path; the name before the first dot is the id."""
    if not folder.is_dir():
        problems.append(f"{VOLUMES}/: not found. Expected a folder of ID.nii.gz files.")
        return {}
    paths, twice = {}, []
    tree = walk(folder)
    audit += [(f"{VOLUMES}: remarks", 1, note) for note in tree.notes]
    for path in (p for p in tree.files if p.name.lower().endswith((".nii", ".nii.gz"))):
        study = path.name.split(".")[0]
        if study in paths:
            twice.append(study)
        paths.setdefault(study, str(path.absolute()))
    audit.append(("volumes", len(paths), "files"))
    if twice:
        name_studies(
            audit, "studies with several files", sorted(set(twice)), "the first by name is taken"
        )
    return paths


def _reports(table, problems, audit):
    """One row a study: final report, cut at the impression, escapes undone."""
    nobodys = table["study_id"] == ""
    if nobodys.any():
        audit.append(("reports without a study id", int(nobodys.sum()), "left out"))
    table = table[~nobodys].copy()
    text = table["findings"].map(html.unescape).str.strip()
    ids = table["study_id"]
    name_studies(
        audit, f"reports with {DELETED}", ids[text.str.contains(DELETED)], "kept as written"
    )
    escaped = table["findings"].str.contains("&lt;|&gt;|&amp;")
    name_studies(audit, "reports with escaped characters", ids[escaped], "unescaped")
    parts = text.map(split_impression)
    own = table["impression"].str.strip() if "impression" in table else ""  # in a column of its own
    table["findings"] = parts.str[0]
    table["impression"] = parts.str[1].where(parts.str[1] != "", own)
    name_studies(audit, "reports with an impression inside", ids[parts.str[1] != ""], "cut")
    name_studies(audit, "reports without findings", ids[table["findings"] == ""], "kept, no text")
    split = table["split"].str.strip().str.lower().replace(SPLIT_WORDS)
    odd = ~split.isin(["train", "val", "test"])
    if odd.any():
        rows = ", ".join(str(i + 2) for i in table.index[odd][:8])
        problems.append(
            f"{REPORTS}: rows {rows}, column split: {', '.join(sorted(set(split[odd]))[:5])}. "
            "Expected train, val or test."
        )
    table["split"] = split
    # A preliminary read and the final report share an id: the longer text is the final one.
    order = table.assign(length=table["findings"].str.len()).sort_values("length", ascending=False)
    kept = order.drop_duplicates("study_id").sort_index()
    again = ids[ids.duplicated()]
    name_studies(audit, "study ids that occur twice", again, "the longer report is taken")
    two = table.groupby("study_id")["split"].nunique()
    said = "the longer report's is taken"
    name_studies(audit, "study ids in several splits", two.index[two > 1], said)
    audit.append(shared_reports(kept))
    return kept[["study_id", "split", "findings", "impression"]].reset_index(drop=True)


def _check_overrides(columns, there, problems):
    """An override that matches nothing is a mistake, not a wish."""
    known = (*COLUMNS, *NAMES, *DISEASES)
    there = {plain(c) for c in there}
    for ours, theirs in columns.items():
        if ours not in known:
            near = get_close_matches(ours, known, 1)
            hint = (
                f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(COLUMNS)}"
            )
            problems.append(f"columns: no column of ours is called {ours}{hint}")
        elif plain(theirs) not in there:
            problems.append(f"columns: {ours} is said to be {theirs}, which no table has.")


def shared_reports(table):
    """The audit's row on findings texts that stand word for word in several splits, with the studies."""
    filled = table[table["findings"].fillna("") != ""]
    shared = filled.groupby("findings")["split"].nunique()
    shared = shared.index[shared > 1]
    ids = tuple(filled["study_id"][filled["findings"].isin(shared)])
    return ("reports word for word in several splits", len(shared), "kept", ids)


def _codes(table, name, wanted, codes, columns, problems, audit):
    """Label columns by study; unknown codes are refused, all of them named."""
    by_plain = {plain(c): c for c in table}
    theirs = {w: by_plain.get(plain(columns.get(w, w))) for w in wanted}
    missing = [w for w, column in theirs.items() if column is None]
    if missing:
        said = f"{name}: no columns {', '.join(missing)}. Say which: columns={{'{missing[0]}': …}}."
        problems.append(said)
        return pd.DataFrame(index=pd.Index([], name="study_id"))
    audit += [
        (f"{name}: column", 1, f"{column} read as {w}")
        for w, column in theirs.items()
        if column != w
    ]
    part = table[["study_id", *theirs.values()]]
    part = part.set_axis(["study_id", *wanted], axis=1)
    number = lambda c: c.str.strip().str.replace(r"[.,]0+$", "", regex=True).str.replace("−", "-")  # noqa: E731
    values = part[list(wanted)].apply(number)
    for column in wanted:
        odd = ~values[column].isin([*codes, ""])
        if odd.any():
            rows = ", ".join(str(i + 2) for i in values.index[odd][:8])
            found = ", ".join(sorted(set(values.loc[odd, column]))[:5])
            problems.append(
                f"{name}: rows {rows}, column {column}: {found}. Expected {', '.join(codes)} or empty."
            )
    values = values.replace("", np.nan).set_axis(part["study_id"], axis=0)
    twice = values.index.duplicated(keep=False)
    if twice.any():
        groups = values[twice].fillna("").groupby(level=0)
        differ = int((groups.nunique() > 1).any(axis=1).sum())
        said = f"the first is taken; {differ} studies contradict themselves"
        name_studies(audit, f"{name}: repeated rows", values.index[values.index.duplicated()], said)
    values = values[~values.index.duplicated()]
    values.index.name = "study_id"
    return values


def _metadata(table, problems, audit):
    """Demographics and acquisition by study."""
    again = table["study_id"].duplicated()
    if again.any():
        name_studies(
            audit, f"{METADATA}: repeated rows", table["study_id"][again], "the first is taken"
        )
    for name in ("sex", "age", "slice_mm", "phase", "manufacturer"):
        if name not in table:
            audit.append((f"{METADATA}: column", 1, f"none for {name}: not known of any study"))
    table = table[~again]
    out = pd.DataFrame(index=pd.Index(table["study_id"], name="study_id"))
    read = {"sex": read_sexes, "age": read_ages, "slice_mm": read_lengths_mm}
    for name in (n for n in read if n in table):
        try:
            values = read[name](table[name], where=f"{METADATA}, column {name}")
        except TableError as error:
            problems.append(str(error))
            continue
        if name == "sex":
            out["sex"] = values.where(values != "").to_numpy()
            name_studies(audit, "sex not F or M", out.index[out["sex"].isna()], "left empty")
            continue
        out[name] = values.map(lambda x: f"{x:g}", na_action="ignore").to_numpy()
        name_studies(audit, f"{name} unknown", out.index[out[name].isna()], "left empty")
        if (in_units := table[name].str.contains(r"[A-Za-z]") & values.notna()).any():
            ids = table["study_id"][in_units]
            name_studies(audit, f"{name} with a unit", ids, "read in that unit")
    for name in ("phase", "manufacturer"):
        if name in table:
            out[name] = table[name].replace("", np.nan).to_numpy()
    audit.append(("studies with metadata", len(out), METADATA))
    return out


def _owners(table, path, dates, problems):
    """Patient and, where there is one, date by study."""
    table = table[(table["study_id"] != "") & (table["patient_id"] != "")]
    owners = table.groupby("study_id")["patient_id"].nunique()
    if (owners > 1).any():
        said = ", ".join(owners.index[owners > 1][:8])
        problems.append(f"{int((owners > 1).sum())} studies have several patients: {said}")
    if "date" in table:
        try:
            where = f"{Path(path).name}, column date"
            date = read_dates(table["date"], where=where, order=dates)
            is_word = date.isna() & (table["date"] != "")  # as "NA"
            table = table.assign(date=date.dt.strftime("%Y-%m-%d"), has_no_date=is_word)
        except TableError as error:
            problems.append(str(error))
    return table.drop_duplicates("study_id").set_index("study_id")


def _patients(manifest, gone, table, path, audit):
    """Owners of the studies, one split a patient; those of `gone`, without a volume, are counted."""
    if table is None:
        audit.append(("patients", 0, "unknown: each study is resampled as a patient of its own"))
        return manifest.assign(patient_id=manifest["study_id"])
    everyone = pd.concat([manifest["study_id"], gone])
    lost = everyone[~everyone.isin(table.index)]
    if len(lost):
        name_studies(audit, "studies without patient", lost, "each its own patient")
    owner = everyone.map(table["patient_id"]).fillna(everyone)
    audit.append(("patients", owner.nunique(), Path(path).name))
    manifest = manifest.assign(patient_id=owner[: len(manifest)])
    if "date" in table:
        name_studies(audit, "dates that are none", table.index[table["has_no_date"]], "left empty")
        manifest["date"] = manifest["study_id"].map(table["date"])
    mixed = manifest.groupby("patient_id")["split"].transform("nunique") > 1
    # What is judged must not have been learned from: the later split keeps the patient.
    rank = manifest["split"].map({"train": 0, "val": 1, "test": 2})
    stays = rank == rank.groupby(manifest["patient_id"]).transform("max")
    said = f"{int((~stays).sum())} studies left out of the earlier splits"
    n = manifest["patient_id"][mixed].nunique()
    audit.append(("patients in several splits", n, said, tuple(manifest["study_id"][mixed])))
    return manifest[stays].reset_index(drop=True)


def write_release(manifest, folder):
    """Write a manifest's studies in the release's layout, volumes as links where the disk allows.

    For look-alikes: what reads the real release reads a phantom one.

    Parameters
    ----------
    manifest : DataFrame
        From `load_manifest`.
    folder : path
        Must not exist.

    Returns
    -------
    path
        The folder; `patients.csv` beside it holds what the release does not.
    """
    folder = Path(folder)
    beside = folder.with_name(f"{folder.name}-patients.csv")
    if there := next((p for p in (folder, beside) if p.exists()), None):
        raise FileExistsError(f"{there} exists; name a new folder.")
    odd = manifest.index[~manifest["study_id"].map(names_a_file)]
    if len(odd):
        raise ManifestError(
            f"{some_rows(odd)}, column study_id: no name of a file. Expected no /, \\ or control "
            "characters, and 200 characters at most."
        )
    (folder / VOLUMES).mkdir(parents=True)
    mark_synthetic(folder)
    ids = manifest["study_id"]
    for study, volume in zip(ids, manifest["volume"], strict=True):
        source = Path(volume)
        suffix = ".nii.gz" if source.name.endswith(".gz") else ".nii"
        _link(source, folder / VOLUMES / f"{study}{suffix}")
    text = manifest["findings"].fillna("")
    impression = manifest["impression"].fillna("") if "impression" in manifest else ""
    joined = text.where(impression == "", text + "\nIMPRESSION: " + impression)
    reports = pd.DataFrame(
        {"study id": ids, "Findings": joined, "Split": manifest["split"], "Few Shot": 0}
    )
    write_xlsx(folder / REPORTS, reports)
    labels = manifest[[f"label_{n}" for n in NAMES]].set_axis(list(NAMES), axis=1)
    labels = labels.fillna(-1).astype(int)
    labels.insert(0, "study_id", ids)
    write_csv(folder / FINDINGS, labels)
    diseases = manifest[[f"five_year_{d}" for d in DISEASES]].set_axis(list(DISEASES), axis=1)
    diseases.insert(0, "study_id", ids)
    known = diseases[manifest["split"] == "test"].dropna(subset=list(DISEASES))
    write_csv(folder / FIVE_YEARS, known.astype({d: int for d in DISEASES}))
    about = {"study_id": ids}
    for theirs, ours in (
        ("age", "age"), ("gender", "sex"), ("phase", "phase"), ("manufacturer", "manufacturer"),
        ("slicethickness", "slice_mm"),
    ):  # fmt: skip
        if ours in manifest:
            about[theirs] = manifest[ours]
    write_csv(folder / METADATA, pd.DataFrame(about))
    owners = ["study_id", "patient_id"] + (["date"] if "date" in manifest else [])
    write_csv(beside, manifest[owners])
    return folder


def _link(source, target):
    import os
    import shutil

    try:
        os.link(source, target)
    except FileExistsError:  # a copy would go into the file that is linked there
        raise
    except OSError:  # another disk
        shutil.copyfile(source, target)
