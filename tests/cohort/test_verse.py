"""VerSe's folders and a table of grades become a manifest; what is unknown stays unknown."""

import nibabel as nib
import numpy as np
import pytest

from merlin import cli
from merlin.data.manifest import load_manifest
from merlin.readers import verse


@pytest.fixture
def dataset(tmp_path):
    for part, name in (("training", "verse004"), ("test", "verse502"), ("test", "verse503")):
        folder = tmp_path / f"dataset-verse20{part}" / "rawdata" / f"sub-{name}"
        folder.mkdir(parents=True)
        image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
        nib.save(image, folder / f"sub-{name}_dir-ax_ct.nii.gz")
    (tmp_path / "grades.csv").write_text(
        "subject,age,T12,L1,remark\nverse004,61,0,0,\nsub-verse502,70,,2,wedge\n"
    )
    return tmp_path


def test_a_scan_is_positive_if_any_vertebra_is_and_unknown_without_a_grade(dataset, capsys):
    out = dataset / "cohort"
    code = cli.main(
        ["verse", str(dataset), "--grades", str(dataset / "grades.csv"), "--out", str(out)]
    )
    assert code == 0
    table = load_manifest(out / "manifest.csv").set_index("patient_id")  # volumes are found
    assert table["split"].to_dict() == {
        "sub-verse004": "train", "sub-verse502": "test", "sub-verse503": "test",
    }  # fmt: skip
    labels = table["label_fracture"]
    assert (labels["sub-verse004"], labels["sub-verse502"]) == (0, 1)
    assert np.isnan(labels["sub-verse503"])
    said = capsys.readouterr().out
    assert "grades in T12, L1; not taken: age, remark" in said
    assert "1 without a grade" in said
    found = verse.read_folder(dataset, dataset / "grades.csv", min_grade=3).manifest
    assert found["label_fracture"].tolist() == ["0", "", "0"]  # test comes before training


def test_a_subject_with_several_scans_stays_unknown(dataset):
    folder = dataset / "dataset-verse20test" / "rawdata" / "sub-verse502"
    nib.save(
        nib.load(folder / "sub-verse502_dir-ax_ct.nii.gz"),
        folder / "sub-verse502_split-1_ct.nii.gz",
    )
    found = verse.read_folder(dataset, dataset / "grades.csv")
    assert found.manifest.set_index("patient_id").loc[
        "sub-verse502", "label_fracture"
    ].tolist() == ["", ""]
    assert found.n_ungraded == 3


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("id,L1\nverse004,1\n", "no column subject. Found id, L1"),
        ("subject,L1\nverse004,1\nsub-verse004,0\n", "rows 2, 3: a subject stands more than once"),
        ("subject,L1\nverse999,1\n", "1 subjects without a scan: sub-verse999"),
        ("subject,L1\nverse004,7\n", "row 2, column L1: 7"),
        ("subject,sex\nverse004,1\n", "no column is named like a vertebra; found subject, sex"),
        ("subject,L1\n,1\n", "row 2: no subject"),
    ],
)
def test_what_does_not_fit_is_named(dataset, table, said):
    (dataset / "grades.csv").write_text(table)
    with pytest.raises(ValueError, match=said):
        verse.read_folder(dataset, dataset / "grades.csv")


def test_a_folder_without_scans_says_what_was_expected(dataset):
    with pytest.raises(FileNotFoundError, match="dataset-verse20test"):
        verse.read_folder(dataset / "nowhere", dataset / "grades.csv")


def add(root, part, subject, name, value=1):
    folder = root / part / "rawdata" / subject
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, np.int16), np.eye(4)), folder / name)


def test_overlapping_parts_give_one_row_a_scan_and_one_split_a_patient(dataset, capsys):
    add(dataset, "dataset-verse19training", "sub-verse502", "sub-verse502_dir-ax_ct.nii.gz", 3)
    add(dataset, "dataset-verse19validation", "sub-verse004", "sub-verse004_ct.nii.gz", 4)
    add(dataset, "again/dataset-verse20test", "sub-verse503", "sub-verse503_dir-ax_ct.nii.gz", 0)
    add(dataset, "dataset-verse20training", "sub-verse401", "sub-verse401_split-verse253_ct.nii.gz")
    add(dataset, "dataset-verse19test", "sub-verse253", "sub-verse253_ct.nii.gz", 5)
    add(
        dataset,
        "dataset-verse20training",
        "sub-verse401",
        "sub-verse401_split-verse254_ct.nii.gz",
        6,
    )
    add(dataset, "dataset-verse20training", "sub-gl003", "sub-gl003_dir-sag_ct.nii.gz", 7)
    add(dataset, "dataset-verse20training", "sub-gl003", "sub-gl003_dir-iso_ct.nii.gz", 8)
    masks = dataset / "dataset-verse20test" / "derivatives" / "sub-verse502"
    masks.mkdir(parents=True)
    (masks / "sub-verse502_seg-vert_msk.nii.gz").write_bytes(b"")
    (dataset / "linked").symlink_to(dataset / "dataset-verse20training")
    (dataset / "grades.csv").write_text(
        "\ufeffSubject;T12;L1\nVerse004;0;0\n502;;2\nsub-gl003;0;1\nverse254;3;NA\nverse001;1;0\n",
        encoding="utf-8",
    )
    out = dataset / "cohort"
    ask = ["verse", str(dataset), "--grades", str(dataset / "grades.csv"), "--out", str(out)]
    assert cli.main(ask) == 0
    table = load_manifest(out / "manifest.csv").set_index("study_id")
    assert {k: (v["patient_id"][4:], v["split"], v["label_fracture"]) for k, v in
            table.fillna(-1).iterrows()} == {
        "sub-verse502_dir-ax": ("verse502", "test", 1),
        "sub-verse503_dir-ax": ("verse503", "test", -1),
        "sub-verse004": ("verse004", "val", -1),  # two scans, one grade
        "sub-verse004_dir-ax": ("verse004", "val", -1),
        "sub-verse253": ("verse401", "test", -1),
        "sub-verse401_split-verse254": ("verse401", "test", 1),
        "sub-gl003_dir-iso": ("gl003", "train", -1),
        "sub-gl003_dir-sag": ("gl003", "train", -1),
    }  # fmt: skip
    assert "dataset-verse20test/rawdata/sub-verse502" in table["volume"]["sub-verse502_dir-ax"]
    said = capsys.readouterr().out
    assert "3 scans stood more than once; one of each was kept." in said
    assert "1 graded subjects have no scan: sub-verse001." in said
    assert "1 links to what stands elsewhere in the folder left out." in said


def test_a_part_alone_and_scans_outside_parts(dataset):
    part = dataset / "dataset-verse20test"
    found = verse.read_folder(part, dataset / "grades.csv")
    assert found.manifest["split"].tolist() == ["test", "test"]
    add(dataset, "odd", "sub-verse600", "sub-verse600_ct.nii.gz")
    found = verse.read_folder(dataset, dataset / "grades.csv")
    assert "1 scans lie in no folder that ends in training, validation or test; left out." in (
        found.notes
    )
    assert len(found.manifest) == 3
