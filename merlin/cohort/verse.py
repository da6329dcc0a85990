"""The public VerSe dataset's folders and a table of fracture grades → a manifest.

    dataset-verse20test/                   and …training, …validation
      rawdata/sub-verse502/sub-verse502_dir-ax_ct.nii.gz
      derivatives/                         vertebra masks, not read here

Grades come as a table of their own: one row a subject, Genant's grade of each vertebra (0 none to 3
severe). No source at hand confirms its columns: the subject's is named by the caller, and every other
column of whole numbers from 0 to 3 is taken as grades; the rest is listed. A scan is positive if any
vertebra reaches `min_grade`. The paper crops sub-volumes at graded spots, of a size that was never
told (paper_facts §5); here whole scans are judged.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

SPLITS = {
    "training": "train",
    "validation": "val",
    "test": "test",
}  # by the end of the folder's name
FRACTURE = "label_fracture"


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
        Scans whose subject has no grade; their label is empty.
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
        known = name in worst.index and pd.notna(worst[name])
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
    names = table[subject].str.strip()
    names = names.where(names.str.startswith("sub-"), "sub-" + names)
    if names.duplicated().any():
        rows = ", ".join(str(i + 2) for i in table.index[names.duplicated(keep=False)][:8])
        raise ValueError(f"{path.name}: rows {rows}: a subject stands more than once; keep one row")
    others = table.drop(columns=subject).apply(lambda c: pd.to_numeric(c, errors="coerce"))
    is_grade = [
        others[c].notna().any() and (others[c].notna() == table[c].notna()).all()
        and others[c].dropna().isin(range(4)).all()
        for c in others
    ]  # fmt: skip
    grades = others.loc[:, is_grade].set_axis(names)
    if grades.empty:
        raise ValueError(f"{path.name}: no column holds whole numbers from 0 to 3 alone")
    return grades, [c for c, yes in zip(others, is_grade, strict=True) if not yes]
