"""The data release's layout: written, read back, and every planted defect found."""

import numpy as np
import pandas as pd
import pytest

from merlin import cli
from merlin.data.impression import split_impression
from merlin.data.manifest import ManifestError, check_manifest
from merlin.readers import audit, look_alike, release
from merlin.vocabulary import DISEASES, NAMES


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
    return table, look_alike.write_release(table, tmp_path / "merlinabdominalctdataset")


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


def test_two_columns_that_may_be_one_are_named_and_the_callers_word_decides(written):
    _, data = written
    table = pd.read_csv(data / release.METADATA, dtype=str)
    theirs = next(c for c in table if "hickness" in c)
    table.assign(slice_mm="57").to_csv(data / release.METADATA, index=False)
    with pytest.raises(ManifestError, match="could all be slice_mm; name one"):
        release.read_release(data)
    found = release.read_release(data, columns={"slice_mm": theirs})
    assert "57" not in set(found.manifest["slice_mm"])
    assert found.audit["detail"].str.contains("slice_mm left out: not the one").any()


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
        look_alike.write_release(table, folder)


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


IMPRESSIONS = [
    "Liver: A.\n\nIMPRESSION\n1. X.\n",
    "Liver: A. IMPRESSION: 1. X.",
    "Liver: A.\nImpression\n1. X.",
    "Liver: A.\nIMPRESSIONS:\n1. X.",
    "Liver: A.\nConclusions\n1. X.",
    "Liver: A. CONCLUSION: 1. X.",
    "Liver: A.\nImpression - 1. X.",
    "Liver: A.\nIMPRESSION. 1. X.",
    "Liver: A. Impression 1. X.",
    "Liver: A. IMPRESSION 1. X.",
    "LIVER: A. IMPRESSION 1. X.",
    "LIVER: A.\nIMPRESSION\n1. X.",
    "Liver: A\nIMPRESSION\n1. X.",
    "Liver: A.<br><b>IMPRESSION</b><br>1. X.",
    "Liver: A.\n**Impression:** 1. X.",
    "Liver: A._x000D_\nIMPRESSION_x000D_\n1. X.",
    "Liver: A.\nIMPRESSION AND PLAN: 1. X.",
    "Liver: A.\nImpression (preliminary):\n1. X.",
    "liver : A . impression : 1. X.",
    "Liver: A.\nBeurteilung:\n1. X.",
    "Liver: A.\nImpresión: 1. X.",
    "Liver: A.\nConclusion : 1. X.",
]


@pytest.mark.parametrize("text", IMPRESSIONS)
def test_an_impression_is_cut_however_its_heading_is_written(text):
    findings, impression = split_impression(text)
    assert impression == "1. X."
    assert findings.lower().replace(" ", "") in ("liver:a.", "liver:a")


@pytest.mark.parametrize(
    "text",
    [
        "There is no impression on the thecal sac.",
        "Mass impression on the bladder. Spleen: Normal.",
        "Impression of the tumour on the stomach.\nSpleen: Normal.",
        "There is mild\nimpression\non the sac.",
        "NO IMPRESSION ON THE THECAL SAC. SPLEEN: NORMAL.",
        "IMPRESSION ON THE THECAL SAC IS MILD. SPLEEN: NORMAL.",
        "Impression fracture of L1. Spleen: Normal.",
        "FINDINGS AND IMPRESSION:\nSpleen: Normal.",
        "FINDINGS/IMPRESSION: Spleen: Normal.",
        "Clinical impression: appendicitis. Findings: Spleen: Normal.",
        "Lesion (see IMPRESSION). Spleen: Normal.",
        "Sent for a second opinion: Spleen normal.",
        "In conclusion, no conclusion can be drawn.",
    ],
)
def test_prose_about_an_impression_is_not_cut(text):
    assert split_impression(text) == (text, "")


def test_findings_below_the_impression_are_findings():
    text = "IMPRESSION: 1. Gallstones.\nFINDINGS: Liver: Normal. Gallbladder: Stones."
    assert split_impression(text) == ("Liver: Normal. Gallbladder: Stones.", "1. Gallstones.")


def rewrite(folder, findings):
    reports = pd.read_excel(folder / release.REPORTS, dtype=str, keep_default_na=False)
    reports["Findings"] = findings
    reports.to_excel(folder / release.REPORTS, index=False)


def test_no_impression_without_a_colon_leaks_and_all_are_counted(written):
    _, folder = written
    rewrite(folder, [f"Liver: Normal. Number {i}.\n\nIMPRESSION\n1. Lesion.\n" for i in range(9)])
    found = release.read_release(folder)
    assert counts(found)["reports with an impression inside"] == 9
    assert not found.manifest["findings"].str.contains("esion|mpression", case=False).any()
    assert (found.manifest["impression"] == "1. Lesion.").all()


def test_ages_sexes_and_lengths_are_read_with_their_units_and_words(written):
    _, folder = written
    ages = ["18 months", "018M", "52 weeks", "057Y", "90+", "57,5", "", "n/a", "10 days"]
    sexes = ["mujer", "hombre", "Female", "m", "weiblich", "Mann", "", "unknown", "W"]
    lengths = ["5", "2.5 mm", "1,25", "0.5cm", "", "NA", "3", "3.0", "10"]
    columns = {"age": ages, "gender": sexes, "slicethickness": lengths}
    edit(folder / release.METADATA, lambda t: t.assign(**columns))
    found = release.read_release(folder)
    table = found.manifest.set_index("study_id").sort_index()
    assert table["age"].fillna("").tolist()[:8] == [
        "1.5",
        "1.5",
        "0.996598",
        "57",
        "90",
        "57.5",
        "",
        "",
    ]
    assert table["sex"].fillna("").tolist() == ["F", "M", "F", "M", "F", "M", "", "", "F"]
    assert table["slice_mm"].fillna("").tolist() == [
        "5",
        "2.5",
        "1.25",
        "5",
        "",
        "",
        "3",
        "3",
        "10",
    ]
    n = counts(found)
    assert [n["age unknown"], n["sex not F or M"], n["slice_mm unknown"]] == [2, 2, 2]
    assert n["age with a unit"] == 5
    check_manifest(found.manifest.replace("", np.nan))


def test_words_that_nobody_knows_are_refused_together_with_rows(written):
    _, folder = written
    columns = {"age": "57", "gender": "F", "slicethickness": "5"}
    odd = {"age": "old", "gender": "1", "slicethickness": "thick"}
    edit(
        folder / release.METADATA,
        lambda t: t.assign(**{c: [odd[c], *[v] * 8] for c, v in columns.items()}),
    )
    with pytest.raises(ManifestError, match="3 problems") as caught:
        release.read_release(folder)
    for said in ("column age: row 2: old", "column sex: row 2: 1", "column slice_mm: row 2: thick"):
        assert said in str(caught.value)


def owners(tmp_path, days):
    table = pd.DataFrame({"study_id": [f"AC{i:04d}" for i in range(len(days))], "date": days})
    table["patient_id"] = table["study_id"]
    table.to_csv(tmp_path / "owners.csv", index=False)
    return tmp_path / "owners.csv"


def test_dates_of_the_patients_table_have_one_format(written, tmp_path):
    _, folder = written
    path = owners(tmp_path, ["03/04/2015", "13/04/2015", "05/06/2015"])
    found = release.read_release(folder, patients=path).manifest.set_index("study_id")
    assert found.loc["AC0000":"AC0002", "date"].tolist() == [
        "2015-04-03",
        "2015-04-13",
        "2015-06-05",
    ]
    path = owners(tmp_path, ["03/04/2015", "13/04/2015", "07.08.2015", "2016-03-04", "04-Mar-2016"])
    with pytest.raises(ManifestError, match=r"owners\.csv, column date: rows 4, 5, 6: not one"):
        release.read_release(folder, patients=path)
    path = owners(tmp_path, ["03/04/2015"])
    with pytest.raises(ManifestError, match="may be"):
        release.read_release(folder, patients=path)
    out = str(tmp_path / "out")
    call = ["release", str(folder), "--patients", str(path), "--out", out, "--dates", "mdy"]
    assert cli.main(call) == 0
    dates = pd.read_csv(tmp_path / "out" / "manifest.csv", dtype=str).set_index("study_id")["date"]
    assert dates["AC0000"] == "2015-03-04"


def test_tables_of_spreadsheets_are_read_alike(written, tmp_path):
    _, folder = written
    plain = release.read_release(folder).manifest
    for name, encoding, sep in (
        (release.METADATA, "utf-8-sig", ";"),
        (release.FINDINGS, "utf-16", "\t"),
        (release.FIVE_YEARS, "cp1252", ";"),
    ):
        table = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
        table.to_csv(folder / name, index=False, sep=sep, encoding=encoding)
    pd.testing.assert_frame_equal(release.read_release(folder).manifest, plain)
    (folder / release.METADATA).write_bytes(b"")
    (folder / release.FINDINGS).write_bytes(b"PK\x03\x04 no workbook")
    with pytest.raises(ManifestError, match="2 problems") as caught:
        release.read_release(folder)
    assert "metadata.csv: the file is empty" in str(caught.value)


def test_ids_that_lost_their_zeros_are_said_to_have(tmp_path):
    table = cohort(tmp_path / "source")
    table["study_id"] = [f"00{i}" for i in range(len(table))]
    folder = look_alike.write_release(table, tmp_path / "release")
    edit(folder / release.METADATA, lambda t: t.assign(study_id=t["study_id"].str.lstrip("0")))
    with pytest.raises(ManifestError, match=r"metadata\.csv: no study id .* zeros at the front"):
        release.read_release(folder)
    edit(folder / release.METADATA, lambda t: t.assign(study_id=table["study_id"]))
    for path in list((folder / release.VOLUMES).iterdir()):
        path.rename(path.with_name(path.name.lstrip("0")))
    with pytest.raises(ManifestError, match=r"merlin_data: no study id .* zeros at the front"):
        release.read_release(folder)


def test_an_impression_in_a_column_of_its_own_is_taken(written):
    _, folder = written
    reports = pd.read_excel(folder / release.REPORTS, dtype=str, keep_default_na=False)
    reports.loc[1:, "Findings"] = "Liver: Normal."
    reports.assign(Impression="Own.").to_excel(folder / release.REPORTS, index=False)
    found = release.read_release(folder)
    said = found.manifest.set_index("study_id")["impression"]
    assert said["AC0000"] == "1. Lesion 0."  # what stands in the report itself
    assert (said.drop("AC0000") == "Own.").all()
    assert counts(found)["reports with an impression inside"] == 1
