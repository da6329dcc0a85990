"""The audit finds every damage planted in a look-alike, and nothing in a clean one."""

import errno
import shutil
from functools import partial

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from deadly import DEADLY, dies_at
from test_release import cohort as plain

from merlin.data.codes import NO_CODES, read_codes
from merlin.data.extract import label_table
from merlin.data.manifest import ManifestError
from merlin.data.preprocess import Grid
from merlin.readers import audit, look_alike, release, survey
from merlin.vocabulary import NAMES

GRID = Grid((10.0, 10.0, 10.0), (24, 24, 24))


def cohort(folder, n=18):
    """Small readable volumes, one study a patient, reports whose labels are their own words."""
    table = plain(folder, n)
    rng = np.random.default_rng(0)
    for i, path in enumerate(table["volume"]):
        hu = np.full((24, 24, 24), -1000, np.int16)
        hu[5:19, 5:19] = rng.normal(40, 12, (14, 14, 24))
        hu[8:11, 8:11], hu[13:15, 13:15] = -850, 700  # gas and bone
        nib.save(nib.Nifti1Image(hu, np.diag([10.0, 10, 10, 1])), path)
        said = "Moderate ascites" if i % 2 else "No ascites"
        table.loc[i, "findings"] = f"Liver: Normal. Peritoneum: {said}. Number {i}."
    table["patient_id"] = [f"P{i:03d}" for i in range(n)]
    table["split"] = [("train", "val", "test")[i % 3] for i in range(n)]
    table[[f"label_{k}" for k in NAMES]] = label_table(table["findings"])
    return table


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return cohort(tmp_path_factory.mktemp("audit") / "source")


@pytest.fixture
def written(source, tmp_path):
    table = source.copy()
    return table, look_alike.write_release(table, tmp_path / "merlinabdominalctdataset")


def everything(folder, cache):
    found = audit.read_data(folder)
    seen = survey.survey(found.manifest, GRID, cache_dir=cache)
    disagree, _ = audit.label_disagreements(found.manifest)
    n = found.audit.groupby("what")["n"].sum()
    n["labels that contradict their report"] = int(
        disagree[["n_label_only_absent", "n_label_only_present"]].to_numpy().sum()
    )
    n["studies quarantined"] = int((seen["status"] == "quarantined").sum())
    return found, seen, n


def test_a_clean_look_alike_has_none_of_the_damages(written, tmp_path):
    _, folder = written
    planted = look_alike.plant_defects(look_alike.write_release(written[0], tmp_path / "other"))
    _, _, n = everything(folder, tmp_path / "cache")
    for what in planted["what"]:
        assert n.get(what, 0) == 0, what


def test_every_planted_damage_is_found_as_often_as_planted(written, tmp_path):
    table, folder = written
    planted = look_alike.plant_defects(folder)
    found, seen, n = everything(folder, tmp_path / "cache")
    assert {r.what: n[r.what] for r in planted.itertuples()} == dict(
        zip(planted["what"], planted["n"], strict=True)
    )
    assert len(found.manifest) == len(table) - 1  # one volume is missing
    bad = seen[seen["status"] == "quarantined"]
    assert bad["reason"].str.len().min() > 10
    assert not bad["reason"].str.contains(str(tmp_path)).any()
    # The cohort's own files were not touched.
    assert all(nib.load(p).shape == (24, 24, 24) for p in table["volume"])


def test_survey_resumes_and_is_the_same_in_any_number_of_processes(written, tmp_path):
    table, _ = written
    alone = survey.survey(table, GRID, cache_dir=tmp_path / "a")
    again = survey.survey(table, GRID, cache_dir=tmp_path / "a", n_workers=2)
    pd.testing.assert_frame_equal(alone, again)
    assert len(list((tmp_path / "a").glob("*.safetensors"))) == len(table)
    assert (alone["orientation"] == "RAS").all()
    assert (alone["spacing_s_mm"] == 10).all()


def test_outliers_name_what_is_unlike_the_others():
    table = pd.DataFrame(
        dict(study_id=list("abcdefgh"), status="ok", orientation=["LPS"] * 7 + ["RAS"],
             spacing_r_mm=0.8, spacing_a_mm=0.8, spacing_s_mm=[5.0] * 6 + [12.0, 5.0],
             body_hu=[40.0, 41, 42, 39, 40, 400, 41, 40], body_fraction=[1.0] * 4 + [0.7] + [1.0] * 3)
    )  # fmt: skip
    odd = survey.outliers(table).set_index("what")["study_id"]
    assert dict(odd) == {"orientation": "h", "spacing": "g", "HU": "f", "crop": "e"}


def test_denominators_say_what_each_figure_divides_by(written):
    table, _ = written
    table.loc[2, "findings"] = ""
    n = audit.denominators(table, n_left_out=2).set_index("figure")
    assert n.loc["test studies", "n_studies"] == 8
    assert n.loc["retrieval, findings", "n_studies"] == 5
    assert n.loc["phenotypes", "detail"] == "codes are not in the release"
    assert n.loc["5-year, cvd", "n_studies"] == int(
        table.loc[table["split"] == "test", "five_year_cvd"].isin([0, 1]).sum()
    )


def test_a_folder_with_a_manifest_is_taken_as_it_is(tmp_path):
    table = cohort(tmp_path / "source")
    table["volume"] = [p.split("/")[-1] for p in table["volume"]]
    table.to_csv(tmp_path / "source" / "manifest.csv", index=False, float_format="%g")
    found = audit.read_data(tmp_path / "source")
    assert found.has_patients
    assert found.manifest["study_id"].tolist() == table["study_id"].tolist()


def test_a_manifest_without_patients_says_so_and_takes_no_overrides(tmp_path):
    table = cohort(tmp_path / "source")
    table["volume"] = [p.split("/")[-1] for p in table["volume"]]
    table["patient_id"] = table["study_id"]
    table.to_csv(tmp_path / "source" / "manifest.csv", index=False, float_format="%g")
    found = audit.read_data(tmp_path / "source")
    assert not found.has_patients
    n = found.audit.set_index("what")["n"]
    assert n["patients"] == 0
    assert n["reports word for word in several splits"] == int(
        (table.groupby("findings")["split"].nunique() > 1).sum()
    )
    with pytest.raises(ManifestError, match="for the release's layout"):
        audit.read_data(tmp_path / "source", columns={"findings": "Text"})


def test_documented_counts_are_the_releases_and_the_papers_apart(written):
    table, folder = written
    in_test = table["study_id"][table["split"] == "test"].tolist()
    labels = pd.read_csv(folder / release.FINDINGS, dtype=str)
    labels.loc[labels["study_id"] == in_test[0], list(NAMES)] = "-1"  # a row that states nothing
    labels[labels["study_id"] != in_test[1]].to_csv(folder / release.FINDINGS, index=False)
    next((folder / release.VOLUMES).glob(f"{in_test[2]}.nii*")).unlink()
    found = audit.against_documentation(audit.read_data(folder)).set_index(["what", "of"])
    assert found.loc[("studies, test", "release"), "documented"] == 5125
    assert found.loc[("studies, test", "paper"), "documented"] == 5137
    n = found.xs("release", level="of")["found"]
    assert n["studies"] == len(table)  # the one without a volume is in the release
    assert n["studies, test"] == len(in_test)
    assert n["test studies without finding labels"] == 1  # no row; a row that states nothing is one
    assert n["studies with finding labels"] == len(table) - 1
    assert n["studies with metadata"] == len(table)
    assert n["studies with 5-year labels"] == len(pd.read_csv(folder / release.FIVE_YEARS))
    assert n.isna()["patients"]


def test_the_audit_names_the_studies_that_it_counts(written):
    table, folder = written
    look_alike.plant_defects(folder)
    found = audit.read_data(folder)
    named = found.odd.groupby("what")["study_id"].agg(list)
    in_train = table["study_id"][table["split"] == "train"].tolist()
    assert named[f"reports with {release.DELETED}"] == in_train[:2]
    assert named["5-year labels outside the test split"] == in_train[:1]
    assert named["studies without volume"] == in_train[3:4]
    assert len(named["reports word for word in several splits"]) == 2
    by_finding, studies = audit.label_disagreements(found.manifest)
    turned = by_finding.set_index("finding").drop(columns="n_both").sum(1)
    assert len(studies) == turned.sum() == 1
    assert studies["detail"][0].startswith(turned.idxmax())


def test_studies_with_odd_owners_metadata_and_files_are_named_too(written, tmp_path):
    table, folder = written
    ids = table["study_id"].tolist()
    shutil.copy(
        folder / release.VOLUMES / f"{ids[4]}.nii.gz",
        folder / release.VOLUMES / f"{ids[4]}.b.nii.gz",
    )
    about = pd.read_csv(folder / release.METADATA, dtype=str)
    about.loc[2, ["age", "gender"]] = ["", "unknown"]
    about.to_csv(folder / release.METADATA, index=False)
    (folder / release.VOLUMES / f"{ids[7]}.nii.gz").unlink()
    owners = table[["study_id", "patient_id", "date"]].copy()
    owners.loc[1, ["patient_id", "date"]] = [owners.loc[0, "patient_id"], "n/a"]  # train and val
    owners[owners["study_id"] != ids[5]].to_csv(tmp_path / "owners.csv", index=False)
    found = release.read_release(folder, patients=tmp_path / "owners.csv")
    named = found.odd.groupby("what")["study_id"].agg(list)
    assert named["studies with several files"] == [ids[4]]
    assert named["age unknown"] == named["sex not F or M"] == [ids[2]]
    assert named["patients in several splits"] == ids[:2]
    assert named["dates that are none"] == [ids[1]]
    assert named["studies without patient"] == [ids[5]]
    n = found.audit.set_index("what")["n"]
    assert n["patients in several splits"] == 1
    assert n["patients"] == len(ids) - 1  # of all studies, also the one without a volume
    assert n["studies"] == len(ids) - 2


def test_a_full_disk_ends_the_survey_and_blames_no_study(written, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(survey, "load_input", full)
    with pytest.raises(OSError, match="No space left"):
        survey.survey(written[0], GRID, cache_dir=tmp_path / "cache")


@pytest.mark.slow
def test_a_study_that_kills_its_process_is_quarantined_and_the_others_are_read(
    written, tmp_path, monkeypatch
):
    table = written[0].head(10)
    alone = survey.survey(table, GRID, cache_dir=tmp_path / "a")
    monkeypatch.setattr(
        survey, "partial", lambda f, **k: partial(dies_at if "grid" in k else f, **k)
    )
    found = survey.survey(table, GRID, cache_dir=tmp_path / "fatal", n_workers=2)
    bad = found["status"] == "quarantined"
    assert found["study_id"].tolist() == table["study_id"].tolist()
    assert found.loc[bad, "study_id"].tolist() == list(DEADLY)
    assert found.loc[bad, "reason"].str.contains("was killed").all()
    pd.testing.assert_frame_equal(found[~bad], alone[~bad], check_dtype=False)


def test_own_codes_are_checked_all_at_once(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text(
        "study_id,vocabulary,code,date\na,ICD10,K63.1,2016-01-02\n,ICD9CM,401.9,\n"
        "b,icd-9,8.45,02/03/2016\nc,,I10,\n"
    )
    with pytest.raises(ValueError, match="4 problems") as caught:
        read_codes(path)
    for said in ("row 3, column study_id: empty", "row 5, column vocabulary: empty",
                 "row 4, column code: 8.45: not three digits", "column date: row 4: not one"):  # fmt: skip
        assert said in str(caught.value)
    path.write_text("study_id,vocabulary,code\na,ICD10,401.10\nb,icd-10,I10\n")
    codes = read_codes(path)
    assert codes["code"].tolist() == ["401.10", "I10"]  # text, not a number
    assert codes["vocabulary"].tolist() == ["ICD10", "ICD10"]


def test_codes_are_judged_before_any_volume_is_read(tmp_path):
    codes = pd.DataFrame(
        [("1", "ICD10", "I10"), ("1", "ICD10", "Z99"), ("9", "ICD10", "I10"), ("", "ICD10", "I10")],
        columns=["study_id", "vocabulary", "code"],
    )
    notes, unmapped = audit.check_codes(codes, ["1", "2"], "")
    assert notes[0].startswith("1 codes are of 1 studies that are not in the manifest")
    assert "No code_map is set" in notes[1]
    assert unmapped.empty
    (tmp_path / "map.csv").write_text("vocabulary,code,phecode\nICD10CM,I10,401.1\n")
    notes, unmapped = audit.check_codes(codes, ["1", "2"], tmp_path / "map.csv")
    assert unmapped.to_numpy().tolist() == [["ICD10", "Z99", 1]]
    assert any("Z99 (ICD10, 1)" in n for n in notes)
    assert any("under the other ICD-10" in n for n in notes)
    with pytest.raises(ValueError, match=r"none of their 2 study ids .* zeros at the front"):
        audit.check_codes(codes, ["001", "002"], "")
    (tmp_path / "map.csv").write_text("vocabulary,code,phecode\nICD9CM,401.1,401.1\n")
    with pytest.raises(ValueError, match=r"do not belong together.* The map has ICD9CM"):
        audit.check_codes(codes, ["1", "2"], tmp_path / "map.csv")
    assert audit.check_codes(NO_CODES, ["1"], "")[0] == []
