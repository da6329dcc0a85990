"""The public VerSe dataset's folders and a table of fracture grades → a manifest.

    dataset-verse20test/                   and …training, …validation
      rawdata/sub-verse502/sub-verse502_dir-ax_ct.nii.gz
      derivatives/                         vertebra masks, not read here

Grades come as a table of their own: one row a subject, Genant's grade of each vertebra (0 none to 3
severe). No source at hand confirms its columns: the subject's is named by the caller, those named
like a vertebra (`T12`, `l1`, or VerSe's number, `20`) are taken as grades, the rest is listed. A scan
is positive if any vertebra reaches `min_grade`; of a subject with several scans nobody knows which
one shows it. The paper crops sub-volumes at graded spots, of a size that was never told
(paper_facts §5); here whole scans are judged.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

SPLITS = {
    "training": "train",
    "validation": "val",
    "test": "test",
}  # by the end of the folder's name
FRACTURE = "label_fracture"
VERTEBRA = re.compile(r"(?i)[CTL]?\d{1,2}")


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
    """

    manifest: pd.DataFrame
    grades: list
    ignored: list
    n_ungraded: int


def read_folder(folder, table, *, out=".", subject="subject", min_grade=1):
    """List the scans of the unpacked dataset with a fracture label each.

    Parameters
    ----------
    folder : path
        That holds one or more of the dataset's three parts.
    table : path
        CSV of grades.
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
        Naming missing columns, subjects that stand twice, or grades of unknown subjects.
    """
    folder = Path(folder)
    scans = sorted(folder.glob("*/rawdata/sub-*/*_ct.nii.gz"))
    if not scans:
        raise FileNotFoundError(
            f"no */rawdata/sub-*/*_ct.nii.gz below {folder}. Expected the unpacked dataset: folders as "
            "dataset-verse20test/ side by side."
        )
    grades, ignored = _grades(table, subject)
    names = [s.parent.name for s in scans]
    strangers = sorted(set(grades.index) - set(names))
    if strangers:
        raise ValueError(
            f"{Path(table).name}: {len(strangers)} subjects without a scan: "
            f"{', '.join(strangers[:8])}. Unpack all parts of the dataset, or remove their rows."
        )
    worst = grades.max(axis=1)
    rows = []
    for scan, name in zip(scans, names, strict=True):
        part = scan.parents[2].name
        split = next((s for end, s in SPLITS.items() if part.endswith(end)), None)
        if split is None:
            raise ValueError(
                f"{part}/: no split in its name. Expected an end of {', '.join(SPLITS)}."
            )
        known = name in worst.index and pd.notna(worst[name]) and names.count(name) == 1
        rows.append(
            dict(
                study_id=scan.name.removesuffix("_ct.nii.gz"),
                patient_id=name,
                site="internal",
                split=split,
                volume=os.path.relpath(scan.resolve(), Path(out).resolve()),
                **{FRACTURE: str(int(worst[name] >= min_grade)) if known else ""},
            )
        )
    manifest = pd.DataFrame(rows)
    return Verse(manifest, list(grades), ignored, int((manifest[FRACTURE] == "").sum()))


def _grades(path, subject):
    """Grades by subject, (n, vertebrae) float, and the names of columns that hold none."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no table of grades at {path}")
    table = pd.read_csv(path, sep=None, engine="python", dtype=str)
    if subject not in table:
        raise ValueError(
            f"{path.name}: no column {subject}; found {', '.join(table)}. Name it with --subject."
        )
    names = table[subject].fillna("").str.strip()
    if (names == "").any():
        rows = ", ".join(str(i + 2) for i in table.index[names == ""][:8])
        raise ValueError(f"{path.name}: rows {rows}: no subject")
    names = names.where(names.str.startswith("sub-"), "sub-" + names)
    if names.duplicated().any():
        rows = ", ".join(str(i + 2) for i in table.index[names.duplicated(keep=False)][:8])
        raise ValueError(f"{path.name}: rows {rows}: a subject stands more than once; keep one row")
    others = [c for c in table if c != subject]
    columns = [c for c in others if VERTEBRA.fullmatch(c.strip())]
    if not columns:
        raise ValueError(
            f"{path.name}: no column is named like a vertebra; found {', '.join(table)}"
        )
    grades = table[columns].apply(lambda c: pd.to_numeric(c, errors="coerce"))
    odd = table[columns].notna() & ~grades.isin(range(4))
    if odd.to_numpy().any():
        said = [
            f"row {r + 2}, column {c}: {table.loc[r, c]}"
            for c in columns
            for r in odd.index[odd[c]]
        ]
        raise ValueError(
            f"{path.name}: {len(said)} grades are not 0, 1, 2, 3 or empty\n  "
            + "\n  ".join(said[:20])
        )
    return grades.set_axis(names), [c for c in others if c not in columns]
