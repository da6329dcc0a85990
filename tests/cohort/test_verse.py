"""VerSe's folders and a table of grades become a manifest; what is unknown stays unknown."""

import nibabel as nib
import numpy as np
import pytest

from merlin import cli
from merlin.cohort import verse
from merlin.cohort.manifest import load_manifest


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
        ("id,L1\nverse004,1\n", "no column subject; found id, L1"),
        ("subject,L1\nverse004,1\nsub-verse004,0\n", "rows 2, 3: a subject stands more than once"),
        ("subject,L1\nverse999,1\n", "1 subjects without a scan: sub-verse999"),
        ("subject,L1\nverse004,7\n", "row 2, column L1: 7"),
        ("subject,sex\nverse004,1\n", "no column is named like a vertebra; found subject, sex"),
        ("subject,L1\n,1\n", "rows 2: no subject"),
    ],
)
def test_what_does_not_fit_is_named(dataset, table, said):
    (dataset / "grades.csv").write_text(table)
    with pytest.raises(ValueError, match=said):
        verse.read_folder(dataset, dataset / "grades.csv")


def test_a_folder_without_scans_says_what_was_expected(dataset):
    with pytest.raises(FileNotFoundError, match="dataset-verse20test"):
        verse.read_folder(dataset / "nowhere", dataset / "grades.csv")
