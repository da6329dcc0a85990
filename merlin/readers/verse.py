"""The public VerSe dataset's folders and a table of fracture grades → a manifest.

    dataset-verse20test/                   and …training, …validation
      rawdata/sub-verse502/sub-verse502_dir-ax_ct.nii.gz
      derivatives/                         vertebra masks, not read here

Parts overlap: VerSe'20 holds scans of VerSe'19, under their name (`sub-verse253`) or as part of
another subject (`sub-verse401_split-verse253`), and a folder may have been unpacked twice. Subjects
that such a name joins are one patient. A patient of several parts gets one split, test before
validation before training, so that nobody who is judged was learnt from; of a scan that stands
twice one is kept. Both are counted.

Grades come as a table of their own: one row a subject, Genant's grade of each vertebra (0 none to 3
severe). No source at hand confirms its columns: the subject's is named by the caller, those named
like a vertebra (`T12`, `l1`, or VerSe's number, `20`) are taken as grades, the rest is listed. A scan
is positive if any vertebra reaches `min_grade`; of a subject with several scans nobody knows which
one shows it, unless a row goes by the scan's own name (`verse253` above). The paper crops sub-volumes
at graded spots, of a size that was never told (paper_facts §5); here whole scans are judged.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from merlin.data.cells import TableError, read_ids, some_rows, why_apart
from merlin.data.tables import read_table
from merlin.data.tree import walk
from merlin.words import shown

# By the end of a part's name; the first of a patient's splits is kept.
SPLITS = {"test": "test", "validation": "val", "training": "train"}
FRACTURE = "label_fracture"
VERTEBRA = re.compile(r"(?i)[CTL]?\d{1,2}")
SCAN = re.compile(r"(?i)(sub-[a-z0-9]+)((?:_[a-z]+-[a-z0-9]+)*)_ct\.nii(?:\.gz)?")
NAME_IN_SPLIT = re.compile(r"(?i)_split-((?:verse|gl)\d+)")


@dataclass(frozen=True)
class Verse:
    """What `read_folder` found.

    Attributes
    ----------
    manifest : DataFrame
        The one schema, volumes relative to `out`.
    grades, ignored : list of str
        Columns of the table that were taken as grades, and those that were not.
    n_ungraded : int
        Scans whose subject has no grade, or several scans; their label is empty.
    notes : list of str
        What was left out or assumed, with counts.
    """

    manifest: pd.DataFrame
    grades: list[str]
    ignored: list[str]
    n_ungraded: int
    notes: list[str]


def read_folder(
    folder: str | Path,
    table: str | Path,
    *,
    out: str | Path = ".",
    subject: str = "subject",
    min_grade: int = 1,
) -> Verse:
    """List the scans of the unpacked dataset with a fracture label each.

    Parameters
    ----------
    folder : path
        That holds one or more of the dataset's parts, or is one.
    table : path
        Of grades.
    out : path
        Where the manifest will lie.
    subject : str
        The table's column of subjects, as `sub-verse502` or `verse502`.
    min_grade : int

    Returns
    -------
    Verse

    Raises
    ------
    FileNotFoundError
        If there is no scan, or no table.
    ValueError
        Naming missing columns, subjects that stand twice, grades that are none, or a table that has
        no subject in common with the folders.
    """
    scans, notes = _scans(Path(folder).absolute(), Path(out))
    n_before, scans = len(scans), _once(scans)
    n_moved = int((scans["split"] != scans["part"]).sum())
    if n_before > len(scans):
        notes.append(f"{n_before - len(scans)} scans stood more than once; one of each was kept.")
    if n_moved:
        notes.append(f"{n_moved} scans of patients in several splits count as their first of "
                     f"{', '.join(SPLITS.values())}.")  # fmt: skip
    grades, ignored = _grades(Path(table), subject)
    known = {name.lower() for name in (*scans["subject"], *scans["own"])}
    strangers = sorted(set(grades.index) - known)
    if len(strangers) == len(grades):
        why = why_apart(grades.index, known)
        raise TableError(
            f"{Path(table).name}: {len(strangers)} subjects without a scan: "
            f"{', '.join(strangers[:8])}{why and f' ({why})'}. Unpack all parts of the dataset."
        )
    if strangers:
        notes.append(f"{len(strangers)} graded subjects have no scan: {', '.join(strangers[:8])}.")
    worst, n_scans = grades.max(axis=1).dropna(), scans["subject"].value_counts()

    def label(scan):
        names = [scan.own] if scan.own != scan.subject else []
        names += [scan.subject] if n_scans[scan.subject] == 1 else []
        found = [worst[n.lower()] for n in names if n.lower() in worst.index]
        return str(int(found[0] >= min_grade)) if found else ""

    scans[FRACTURE] = [label(scan) for scan in scans.itertuples()]
    manifest = scans[["study_id", "patient_id", "site", "split", "volume", FRACTURE]]
    n_ungraded = int((manifest[FRACTURE] == "").sum())
    return Verse(manifest, list(grades), ignored, n_ungraded, notes)


def _scans(folder, out):
    """One row a file, patients and their splits joined across parts; and notes."""
    tree, rows = walk(folder), []
    left_out: Counter[str] = Counter()
    for path in tree.files:
        named = SCAN.fullmatch(path.name)
        places = [p.name for p in path.parents if p.is_relative_to(folder)]
        if not named or "derivatives" in places:
            continue
        part = next((s for p in places for end, s in SPLITS.items() if p.endswith(end)), "")
        volume = os.path.relpath(path.resolve(), out.resolve())
        if not part:
            left_out["scans lie in no folder that ends in training, validation or test"] += 1
        elif volume != shown(volume):
            left_out["scans have a path that a table cannot hold"] += 1
        else:
            inner = NAME_IN_SPLIT.search(named[2])
            rows.append(dict(
                study_id=named[1] + named[2], subject=named[1], site="internal", part=part,
                own=f"sub-{inner[1]}" if inner else named[1],
                scan=NAME_IN_SPLIT.sub("", named[2]), volume=volume,
            ))  # fmt: skip
    notes = [*(f"{n} {what}; left out." for what, n in left_out.items()), *tree.notes]
    if not rows:
        raise FileNotFoundError(
            f"no sub-…_ct.nii.gz below {shown(folder)}. {' '.join(notes)} Expected the unpacked dataset: "
            "folders as dataset-verse20test/ with rawdata/sub-verse502/sub-verse502_dir-ax_ct.nii.gz."
        )
    scans = pd.DataFrame(rows)
    joined = dict(zip(scans["own"], scans["subject"], strict=True))
    scans["patient_id"] = [joined.get(s, s) for s in scans["subject"]]
    for split in reversed(SPLITS.values()):
        has = scans["patient_id"].isin(scans.loc[scans["part"] == split, "patient_id"])
        scans.loc[has, "split"] = split
    return scans, notes


def _once(scans):
    """Each scan once, by its names; the copy in the part of its split goes first."""
    first = scans.assign(away=scans["part"] != scans["split"])
    first = first.sort_values("away", kind="stable")
    for same in (["study_id"], ["own", "scan"]):
        first = first.drop_duplicates(same)
    return scans.loc[sorted(first.index)].reset_index(drop=True)


def _grades(path, subject):
    """Grades by subject, (n, vertebrae) float, and the names of columns that hold none."""
    try:
        table = read_table(path, needed=(subject,))
    except TableError as error:
        raise TableError(f"{error} The column of subjects is named with --subject.") from None
    names = read_ids(table[subject], where=f"{path.name}, column {subject}").str.lower()
    if (names == "").any():
        raise TableError(f"{path.name}: {some_rows(names.index[names == ''])}: no subject")
    names = names.str.replace(r"^\d{1,3}$", lambda m: f"verse{m[0]:0>3}", regex=True)
    names = names.where(names.str.startswith("sub-"), "sub-" + names)
    if names.duplicated().any():
        rows = some_rows(names.index[names.duplicated(keep=False)])
        raise TableError(f"{path.name}: {rows}: a subject stands more than once; keep one row")
    others = [c for c in table if c != subject]
    columns = [c for c in others if VERTEBRA.fullmatch(c)]
    if not columns:
        raise TableError(
            f"{path.name}: no column is named like a vertebra; found {', '.join(table)}"
        )
    text = table[columns].replace(["NA", "N/A", "NaN", "nan", "-"], "")
    grades = text.apply(lambda c: pd.to_numeric(c, errors="coerce"))
    odd = (text != "") & ~grades.isin(range(4))
    if odd.to_numpy().any():
        said = [
            f"row {r + 2}, column {c}: {table.loc[r, c]}"
            for c in columns
            for r in odd.index[odd[c]]
        ]
        raise TableError(
            f"{path.name}: {len(said)} grades are not 0, 1, 2, 3 or empty\n  "
            + "\n  ".join(said[:20])
        )
    return grades.set_axis(names), [c for c in others if c not in columns]
