"""Questions to ask of a data release before anything is computed from it.

What its documentation promises against what is there, what its labels say against its own reports,
and which number each figure will divide by. The damage of `look_alike.plant_defects` judges the audit
itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.data.cells import why_apart
from merlin.data.extract import label_table
from merlin.data.manifest import FIVE_YEAR, LABELS, ManifestError, load_manifest
from merlin.data.phecodes import map_codes, phecode_labels, read_code_map
from merlin.data.tables import read_table
from merlin.readers import release
from merlin.readers.ledger import Ledger
from merlin.vocabulary import DISEASES, NAMES, SPLITS

TABLES = (release.REPORTS, release.FINDINGS, release.FIVE_YEARS, release.METADATA, "manifest.csv",
          "codes.csv")  # fmt: skip
# Counts with their source (paper_facts §2.1). The paper's cohort is another one than the release, which
# lost studies at the privacy review: its counts stand apart, never in the release's place.


def read_data(
    folder: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    patients: str | Path | None = None,
) -> release.Release:
    """A data set in the release's layout, or a folder that holds a `manifest.csv` of ours.

    Returns
    -------
    release.Release
        Of a manifest in which no patient has an id of their own, `has_patients` is False.

    Raises
    ------
    ManifestError
        Also where `columns` or `patients` are given for a manifest, which has its own.
    """
    path = Path(folder) / "manifest.csv"
    if not path.is_file():
        return release.read_release(folder, columns=columns, patients=patients)
    if columns or patients:
        raise ManifestError(
            f"{path}: columns and patients are for the release's layout. A manifest has names and "
            "patient_id of its own: change them there."
        )
    table = load_manifest(path)
    for column in (c for c in table if c in (*LABELS, *FIVE_YEAR)):  # as text, like the release's
        table[column] = table[column].map(lambda x: f"{x:g}", na_action="ignore")
    absent = [c for c in (*LABELS, "findings", "impression") if c not in table]
    table[absent] = None
    ledger = Ledger()
    release.count_splits(table, "in the manifest", ledger)
    has_patients = bool((table["patient_id"] != table["study_id"]).any())
    said = path.name if has_patients else release.UNKNOWN
    ledger.count("patients", table["patient_id"].nunique() if has_patients else 0, said)
    for column in ("findings", "impression"):
        bare = table["study_id"][table[column].fillna("").eq("")]
        ledger.name(f"studies without {column}", bare)
    release.name_shared_reports(table, ledger)
    lost = pd.DataFrame(columns=["study_id", "split", "reason"])
    for name in ("left_out.csv", "quarantine.csv"):  # of the command that wrote the manifest
        if path.with_name(name).is_file():
            before = read_table(path.with_name(name))
            before = before.reindex(columns=list(lost), fill_value="").drop_duplicates("study_id")
            known = [*table["study_id"], *lost["study_id"], ""]  # "": files of no study
            before = before[~before["study_id"].isin(known)]
            ledger.name("studies left out before", before["study_id"], name)
            lost = pd.concat([lost, before], ignore_index=True)
    rows, odd = ledger.tables()
    return release.Release(table, rows, has_patients, lost, odd)


def against_documentation(found: release.Release) -> pd.DataFrame:
    """Counts of this data set beside the release's documented ones, and the paper's apart.

    Parameters
    ----------
    found : release.Release
        Studies without a volume are counted too: they are in the release.

    Returns
    -------
    DataFrame
        `what, found, of, documented, source`; `of` is `release` or `paper`, `found` is empty where
        it is not known: patients, and what a manifest of ours does not tell.
    """
    split = pd.concat([found.manifest["split"], found.lost["split"]])
    counts = dict(zip(found.audit["what"], found.audit["n"], strict=True))
    counts |= {f"studies, {s}": int((split == s).sum()) for s in SPLITS}
    counts |= {"studies": len(split), "patients": counts["patients"] or pd.NA}
    table = pd.read_csv(Path(__file__).with_name("documented.csv"))
    table.insert(1, "found", [counts.get(what, pd.NA) for what in table["what"]])
    return table


def label_disagreements(manifest: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Where a finding's label and the report's own words contradict each other.

    Silence is no contradiction: only *present* against *absent* counts. The text is read by the
    rules of `extract`, which err too: look at a few before blaming the labels.

    Returns
    -------
    by_finding : DataFrame
        One row a finding: `finding, n_both, n_label_only_absent, n_label_only_present`: studies
        that both sources state, and those where the label says absent (present) and the text the
        opposite.
    studies : DataFrame
        `study_id, what, detail`: which they are.
    """
    stated = manifest.reindex(columns=LABELS).astype(float).to_numpy()
    sex = manifest["sex"] if "sex" in manifest else None
    mined = label_table(manifest["findings"].fillna(""), sex)
    both = np.isfinite(stated) & np.isfinite(mined)
    absent, present = both & (stated == 0) & (mined == 1), both & (stated == 1) & (mined == 0)
    by_finding = pd.DataFrame(
        {
            "finding": NAMES,
            "n_both": both.sum(0),
            "n_label_only_absent": absent.sum(0),
            "n_label_only_present": present.sum(0),
        }
    )
    ids, what = manifest["study_id"].to_numpy(), "labels that contradict their report"
    named = [
        (ids[i], what, f"{NAMES[j]}: {'absent' if absent[i, j] else 'present'} by its label")
        for i, j in np.argwhere(absent | present)
    ]
    return by_finding, pd.DataFrame(named, columns=["study_id", "what", "detail"])


def check_codes(
    codes: pd.DataFrame, study_ids: Sequence[str], code_map: str | Path = ""
) -> tuple[list[str], pd.DataFrame]:
    """What is to be said of diagnosis codes, before anything slow begins.

    Parameters
    ----------
    codes : DataFrame
        From `codes.read_codes`.
    study_ids : sequence of str
        Of the manifest.
    code_map : path, optional
        What labels will be made with.

    Returns
    -------
    notes : list of str
    unmapped : DataFrame
        `vocabulary, code, n`: the manifest's codes that the map does not know.

    Raises
    ------
    ValueError
        If no code is of a study of the manifest, or the map knows too few of them.
    """
    notes = list(codes.attrs.get("notes", ()))
    unmapped = pd.DataFrame(columns=["vocabulary", "code", "n"])
    owners = codes["study_id"][codes["study_id"] != ""]
    if owners.empty:
        return notes, unmapped
    away = ~owners.isin(set(study_ids))
    if away.all():
        why = why_apart(owners, study_ids)
        raise ValueError(
            f"codes: none of their {owners.nunique():,} study ids is one of the "
            f"{len(study_ids):,} in the manifest{f': {why}' if why else ''}."
        )
    if away.any():
        notes.append(
            f"{int(away.sum()):,} codes are of {owners[away].nunique():,} studies that are not in the "
            "manifest."
        )
    if not code_map:
        return [*notes, "No code_map is set: phecodes cannot be made of these codes."], unmapped
    known = read_code_map(code_map)
    phecode_labels(codes, study_ids, known, [])  # refuses a map that knows too few
    mapped = map_codes(codes, study_ids, known, [])
    return [*notes, *mapped.notes], mapped.unmapped


def denominators(manifest: pd.DataFrame, *, n_coded: int = 0, n_left_out: int = 0) -> pd.DataFrame:
    """How many test studies each figure can use.

    Parameters
    ----------
    manifest : DataFrame
        Studies that could be read.
    n_coded : int
        Test studies with diagnosis codes.
    n_left_out : int
        Test studies without a volume, or with one that could not be read.

    Returns
    -------
    DataFrame
        `figure, n_studies, detail`.
    """
    test = manifest[manifest["split"] == "test"]
    has = lambda c: test[c].fillna("").ne("") if c in test else pd.Series(False, test.index)  # noqa: E731
    labels = test.reindex(columns=LABELS).notna()
    rows = [
        ("test studies", len(test) + n_left_out, f"{n_left_out} without a readable volume"),
        ("zero-shot findings", int(labels.any(axis=1).sum()),
         f"{int(labels.sum().min()):,} to {int(labels.sum().max()):,} stated, by finding"),
        ("retrieval, findings", int(has("findings").sum()), "with findings text"),
        ("retrieval, impression", int(has("impression").sum()), "with an impression"),
        ("report generation", int(has("findings").sum()), "with findings text"),
        ("phenotypes", n_coded, "with diagnosis codes" if n_coded else "codes are not in the release"),
    ]  # fmt: skip
    for disease in DISEASES:
        column = f"five_year_{disease}"
        label = test[column].astype(float) if column in test else pd.Series(dtype=float)
        n, n_events = int(label.isin([0, 1]).sum()), int((label == 1).sum())
        rows.append((f"5-year, {disease}", n, f"{n_events} events"))
    has_masks = "label_map" in test and test["label_map"].notna()
    rows.append(("segmentation", int(np.sum(has_masks)), "with a label map"))
    return pd.DataFrame(rows, columns=["figure", "n_studies", "detail"])
