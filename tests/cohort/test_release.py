"""The data release's layout: written, read back, and every planted defect found."""

import numpy as np
import pandas as pd
import pytest

from merlin import cli
from merlin.cohort import audit, release
from merlin.cohort.ehr import DISEASES
from merlin.cohort.findings import NAMES
from merlin.cohort.manifest import ManifestError, check_manifest


def cohort(folder, n=9):
    """A manifest as `load_manifest` returns it, with files behind it."""
    folder.mkdir()
    rows = []
    for i in range(n):
        (folder / f"{i}.nii.gz").write_bytes(b"volume %d" % i)
        rows.append(
            dict(
                study_id=f"AC{i:04d}", patient_id=f"P{i // 2}", split=("train", "val", "test")[i // 2 % 3],
                volume=str(folder / f"{i}.nii.gz"), findings=f"Spleen: Normal. Liver: lesion {i}.",
                impression=f"1. Lesion {i}.", sex="FM"[i % 2], age=40.0 + i, phase="portal venous",
                manufacturer="Vendor A", slice_mm=5.0, date="2015-01-02",
            )
            | {f"label_{name}": (1.0, 0.0, np.nan)[(i + k) % 3] for k, name in enumerate(NAMES)}
            | {f"five_year_{d}": float((i + k) % 4) for k, d in enumerate(DISEASES)}
        )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def written(tmp_path):
    table = cohort(tmp_path / "source")
    return table, release.write_release(table, tmp_path / "merlinabdominalctdataset")


def counts(found):
    return found.audit.drop_duplicates("what").set_index("what")["n"]


def edit(path, change):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table).to_csv(path, index=False)


def test_what_is_written_reads_back(written):
    table, folder = written
    patients = folder.with_name("merlinabdominalctdataset-patients.csv")
    found = release.read_release(folder, patients=patients)
    back = found.manifest.set_index("study_id").loc[table["study_id"]].reset_index()
    assert found.has_patients
    for column in ("patient_id", "split", "sex", "phase", "date", "findings", "impression"):
        assert back[column].tolist() == table[column].tolist(), column
    for name in NAMES:
        np.testing.assert_array_equal(back[f"label_{name}"].astype(float), table[f"label_{name}"])
    in_test = (table["split"] == "test").to_numpy()
    for d in DISEASES:
        column = back[f"five_year_{d}"].astype(float)
        np.testing.assert_array_equal(column[in_test], table.loc[in_test, f"five_year_{d}"])
        assert column[~in_test].isna().all()  # the release has them for test studies only
    assert all(a.endswith(".nii.gz") for a in back["volume"])
    check_manifest(found.manifest)  # ours, by the schema of every cohort
    assert counts(found)["studies"] == 9


def test_without_patient_ids_a_study_is_its_own_unit_and_the_audit_says_so(written):
    _, folder = written
    found = release.read_release(folder)
    assert not found.has_patients
    assert (found.manifest["patient_id"] == found.manifest["study_id"]).all()
    detail = found.audit.set_index("what").loc["patients", "detail"]
    assert "each study" in detail


def test_audit_finds_every_planted_defect(written):
    _, folder = written
    reports = pd.read_excel(folder / release.REPORTS, dtype=str, keep_default_na=False)
    reports.loc[0, "Findings"] = "Seen by <DELETED> &amp; others. Spleen: Normal."
    short = reports.iloc[[1]].assign(Findings="Prelim.")
    reports.loc[3, "Findings"] = reports.loc[5, "Findings"]  # val and test
    pd.concat([reports, short]).to_excel(folder / release.REPORTS, index=False)
    edit(folder / release.FINDINGS, lambda t: t.iloc[1:])
    edit(folder / release.METADATA, lambda t: t.iloc[2:])
    five = folder / release.FIVE_YEARS
    edit(
        five,
        lambda t: pd.concat(
            [t, t.iloc[[0, 0]].assign(cvd="0"), t.iloc[[0]].assign(study_id="AC0000")]
        ),
    )
    (folder / release.VOLUMES / "nested").mkdir()
    moved = folder / release.VOLUMES / "AC0004.nii.gz"
    moved.rename(folder / release.VOLUMES / "nested" / moved.name)
    (folder / release.VOLUMES / "AC0008.nii.gz").unlink()
    found = release.read_release(folder)
    n = counts(found)
    assert n["reports with <DELETED>"] == 1
    assert n["reports with escaped characters"] == 1
    assert n["study ids that occur twice"] == 1
    assert n["reports word for word in several splits"] == 1
    assert n["studies without finding labels"] == 1
    assert n["studies with metadata"] == 7
    assert n[f"{release.FIVE_YEARS}: repeated rows"] == 2
    assert n["5-year labels outside the test split"] == 1
    assert n["studies without volume"] == 1
    assert n["studies"] == 8
    kept = found.manifest.set_index("study_id")
    assert kept.loc["AC0000", "findings"].startswith("Seen by <DELETED> & others.")
    assert kept.loc["AC0001", "findings"] != "Prelim."
    assert "nested" in kept.loc["AC0004", "volume"]


def test_unknown_codes_are_refused_all_at_once_with_row_and_column(written):
    _, folder = written
    edit(folder / release.FINDINGS, lambda t: t.assign(ascites=["2", *t["ascites"][1:]]))
    edit(folder / release.FIVE_YEARS, lambda t: t.assign(dm="7"))
    with pytest.raises(ManifestError) as caught:
        release.read_release(folder)
    assert "rows 2, column ascites: 2. Expected 1, 0, -1 or empty." in str(caught.value)
    assert "column dm: 7. Expected 0, 1, 2, 3" in str(caught.value)


def test_columns_of_another_name_are_asked_for_and_taken(written):
    _, folder = written
    reports = pd.read_excel(folder / release.REPORTS, dtype=str, keep_default_na=False)
    reports.rename(columns={"Findings": "Text"}).to_excel(folder / release.REPORTS, index=False)
    with pytest.raises(ManifestError, match=r"no column for findings\. Found study id, Text"):
        release.read_release(folder)
    found = release.read_release(folder, columns={"findings": "Text"})
    assert found.audit["detail"].str.contains("Text read as findings").any()


def test_label_columns_of_another_name_are_taken_and_shown(written):
    table, folder = written
    edit(folder / release.FINDINGS, lambda t: t.rename(columns={"ascites": "free fluid"}))
    with pytest.raises(ManifestError, match="no columns ascites"):
        release.read_release(folder)
    found = release.read_release(folder, columns={"ascites": "free fluid"})
    assert found.audit["detail"].str.contains("free fluid read as ascites").any()
    label = found.manifest["label_ascites"].astype(float)
    np.testing.assert_array_equal(label, table["label_ascites"])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"finding": "Text"}, "no column of ours is called finding; did you mean findings"),
        ({"findings": "Txt"}, "findings is said to be Txt, which no table has"),
        ({"study_id": "Number"}, "study_id is said to be Number, which no table has"),
        (
            {"patient_id": "MRN"},
            "patient_id is said to be MRN, which no table has",
        ),  # none is given
    ],
)
def test_a_mistaken_override_is_refused(written, columns, said):
    with pytest.raises(ManifestError, match=said):
        release.read_release(written[1], columns=columns)


def test_missing_files_are_named_together(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(ManifestError) as caught:
        release.read_release(tmp_path / "d")
    for name in (
        release.REPORTS,
        release.FINDINGS,
        release.FIVE_YEARS,
        release.METADATA,
        "merlin_data/",
    ):
        assert name in str(caught.value)


def test_an_existing_folder_is_not_written_over(written):
    table, folder = written
    with pytest.raises(FileExistsError, match="name a new folder"):
        release.write_release(table, folder)


def test_command_writes_manifest_and_audit_once(written, tmp_path, capsys):
    _, folder = written
    call = ["release", str(folder), "--out", str(tmp_path / "own")]
    assert cli.main(call) == 0
    assert "each study is resampled as a patient" in capsys.readouterr().out
    manifest = pd.read_csv(tmp_path / "own" / "manifest.csv", dtype=str)
    assert len(manifest) == 9
    assert cli.main(call) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["release", str(tmp_path / "nowhere"), "--out", str(tmp_path / "x")]) == 2
    assert release.REPORTS in capsys.readouterr().err


def test_patients_without_an_id_are_their_own_and_several_ids_are_refused(written, tmp_path):
    table, folder = written
    owners = table[["study_id", "patient_id"]].copy()
    owners.loc[[0, 2, 4], "patient_id"] = ""
    owners.to_csv(tmp_path / "owners.csv", index=False)
    found = release.read_release(folder, patients=tmp_path / "owners.csv").manifest
    alone = found.set_index("study_id").loc[["AC0000", "AC0002", "AC0004"], "patient_id"]
    assert (alone == alone.index).all()
    pd.concat([owners, owners.tail(1).assign(patient_id="P99")]).to_csv(
        tmp_path / "owners.csv", index=False
    )
    with pytest.raises(ManifestError, match="1 studies have several patients: AC0008"):
        release.read_release(folder, patients=tmp_path / "owners.csv")


def test_command_writes_what_is_odd_and_what_is_left_out(written, tmp_path):
    _, folder = written
    (folder / release.VOLUMES / "AC0008.nii.gz").unlink()
    edit(folder / release.METADATA, lambda t: pd.concat([t, t.head(1)]).drop(columns="age"))
    out = tmp_path / "out"
    assert cli.main(["release", str(folder), "--out", str(out)]) == 0
    odd = pd.read_csv(out / "odd.csv").set_index("what")["study_id"]
    assert odd["studies without volume"] == "AC0008"
    assert odd["metadata.csv: repeated rows"] == "AC0000"
    assert (
        "none for age: not known of any study" in pd.read_csv(out / "audit.csv")["detail"].tolist()
    )
    assert pd.read_csv(out / "left_out.csv")["reason"].tolist() == ["no volume"]
    again = audit.read_data(out)  # the manifest as it was written
    assert again.lost["study_id"].tolist() == ["AC0008"]
    assert again.audit.set_index("what").loc["studies left out before", "n"] == 1
