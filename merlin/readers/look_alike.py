"""A phantom cohort in the data release's layout, and known damage to it.

What reads the real release reads its look-alike, and the audit is judged by what it finds of the damage.
"""

import os
import shutil
from pathlib import Path

import pandas as pd

from merlin.data.cells import some_rows
from merlin.data.manifest import FIVE_YEAR, LABELS, ManifestError
from merlin.readers.release import FINDINGS, FIVE_YEARS, METADATA, REPORTS, VOLUMES
from merlin.run import mark_synthetic, read_csv, write_csv, write_xlsx
from merlin.vocabulary import DISEASES, NAMES, SPLITS
from merlin.words import names_a_file

# The release's columns of metadata, and ours.
ABOUT = {"age": "age", "gender": "sex", "phase": "phase", "manufacturer": "manufacturer",
         "slicethickness": "slice_mm"}  # fmt: skip


def write_release(manifest: pd.DataFrame, folder: str | Path) -> Path:
    """Write a manifest's studies in the release's layout, volumes as links where the disk allows.

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

    Raises
    ------
    FileExistsError
    ManifestError
        Naming the rows of study ids that can be no name of a file.
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
        suffix = ".nii.gz" if Path(volume).name.endswith(".gz") else ".nii"
        _link(Path(volume), folder / VOLUMES / f"{study}{suffix}")
    text = manifest["findings"].fillna("")
    impression = manifest["impression"].fillna("") if "impression" in manifest else ""
    joined = text.where(impression == "", text + "\nIMPRESSION: " + impression)
    reports = {"study id": ids, "Findings": joined, "Split": manifest["split"], "Few Shot": 0}
    write_xlsx(folder / REPORTS, pd.DataFrame(reports))
    labels = manifest[list(LABELS)].set_axis(list(NAMES), axis=1).fillna(-1).astype(int)
    labels.insert(0, "study_id", ids)
    write_csv(folder / FINDINGS, labels)
    diseases = manifest[list(FIVE_YEAR)].set_axis(list(DISEASES), axis=1)
    diseases.insert(0, "study_id", ids)
    known = diseases[manifest["split"] == "test"].dropna(subset=list(DISEASES))
    write_csv(folder / FIVE_YEARS, known.astype(dict.fromkeys(DISEASES, int)))
    about = {theirs: manifest[ours] for theirs, ours in ABOUT.items() if ours in manifest}
    write_csv(folder / METADATA, pd.DataFrame({"study_id": ids} | about))
    owners = [c for c in ("study_id", "patient_id", "date") if c in manifest]
    write_csv(beside, manifest[owners])
    return folder


def _link(source, target):
    try:
        os.link(source, target)
    except FileExistsError:  # a copy would go into the file that is linked there
        raise
    except OSError:  # another disk
        shutil.copyfile(source, target)


# What was done, the audit's row that should find it, and how often.
DEFECTS = (
    ("a placeholder in two reports", "reports with <DELETED>", 2),
    ("escaped characters", "reports with escaped characters", 1),
    ("one report in two splits", "reports word for word in several splits", 1),
    ("a preliminary read under the same id", "study ids that occur twice", 1),
    ("a row of labels missing", "studies without finding labels", 1),
    ("a label turned against its report", "labels that contradict their report", 1),
    ("a 5-year row twice", f"{FIVE_YEARS}: repeated rows", 1),
    ("a 5-year row of a training study", "5-year labels outside the test split", 1),
    ("a row of metadata missing", "studies without metadata", 1),
    ("a volume missing", "studies without volume", 1),
    ("a volume cut short, another not a volume", "studies quarantined", 2),
)


def plant_defects(folder: str | Path) -> pd.DataFrame:
    """Damage a release that `write_release` wrote, in ways users of the real one have met.

    Parameters
    ----------
    folder : path
        At least 12 studies, some in each split.

    Returns
    -------
    DataFrame
        `defect, what, n`: `DEFECTS`.
    """
    folder = Path(folder)
    reports = pd.read_excel(folder / REPORTS, dtype=str, keep_default_na=False)
    train, val, test = (reports.index[reports["Split"] == s].tolist() for s in SPLITS)
    text = reports["Findings"].copy()
    text[train[0]] = "Compared with <DELETED>. " + text[train[0]]
    text[train[1]] = "&lt;DELETED&gt; " + text[train[1]]
    text[val[0]] = text[test[0]]  # the same words in two splits
    reports["Findings"] = text
    short = reports.loc[[train[2]]].assign(Findings="Preliminary read.")
    write_xlsx(folder / REPORTS, pd.concat([reports, short]))
    ids = reports["study id"]

    labels = read_csv(folder / FINDINGS, dtype=str, keep_default_na=False)
    labels = labels[labels["study_id"] != ids[test[1]]]
    row, twin = (labels.index[labels["study_id"] == ids[i]][0] for i in (test[0], val[0]))
    labels.loc[twin, list(NAMES)] = labels.loc[row, list(NAMES)]  # those of the text it now has
    turned = next(n for n in NAMES if labels.loc[row, n] in ("0", "1"))
    labels.loc[row, turned] = {"0": "1", "1": "0"}[labels.loc[row, turned]]
    write_csv(folder / FINDINGS, labels)

    five = read_csv(folder / FIVE_YEARS, dtype=str, keep_default_na=False)
    extra = pd.concat([five.iloc[[0]], five.iloc[[0]].assign(study_id=ids[train[0]])])
    write_csv(folder / FIVE_YEARS, pd.concat([five, extra]))
    about = read_csv(folder / METADATA, dtype=str, keep_default_na=False)
    write_csv(folder / METADATA, about[about["study_id"] != ids[test[2]]])
    _damage_volumes(folder / VOLUMES, ids, train, test)
    return pd.DataFrame(DEFECTS, columns=["defect", "what", "n"])


def _damage_volumes(folder, ids, train, test):
    """One volume in a folder of its own, one gone, one cut short, one that is none."""
    volume = lambda i: next(folder.glob(f"{ids[i]}.nii*"))  # noqa: E731
    moved, nested = volume(test[3]), folder / "part_2"
    nested.mkdir()
    moved.rename(nested / moved.name)
    volume(train[3]).unlink()
    for broken, content in ((volume(train[4]), None), (volume(test[4]), b"not a volume")):
        content = broken.read_bytes()[:2000] if content is None else content
        broken.unlink()  # the file may be a link to the cohort's own
        broken.write_bytes(content)
