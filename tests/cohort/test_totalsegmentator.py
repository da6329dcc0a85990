"""The public dataset's folder layout, as it is unpacked."""

import nibabel as nib
import numpy as np
import pytest

from merlin.cohort import anatomy, totalsegmentator


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "meta.csv").write_text(
        "image_id;age;gender;split\ns0011;60;m;test\ns0058;41;f;train\n"
    )
    for name in ("s0011", "s0058"):
        masks = tmp_path / name / "segmentations"
        masks.mkdir(parents=True)
        save(tmp_path / name / "ct.nii.gz", np.zeros((6, 6, 6), np.int16))
        for i, structure in enumerate(("liver", "spleen", "vertebrae_L1", "vertebrae_T12")):
            mask = np.zeros((6, 6, 6), np.uint8)
            mask[i] = 1
            save(masks / f"{structure}.nii.gz", mask)
    return tmp_path


def save(path, array):
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def test_scans_come_with_the_datasets_splits(dataset):
    table = totalsegmentator.read_folder(dataset)
    assert table["study_id"].tolist() == ["s0011", "s0058"]
    assert table["split"].tolist() == ["test", "train"]


def test_masks_become_one_label_map_and_unknown_is_not_absent(dataset):
    masks = dataset / "s0011" / "segmentations"
    label, annotated = totalsegmentator.read_labels(masks, (6, 6, 6))
    assert (label[0] == anatomy.LABEL["liver"]).all()
    assert (label[2:4] == anatomy.LABEL["vertebrae"]).all()
    assert set(annotated) == {"liver", "spleen", "vertebrae"}
    assert totalsegmentator.has_enough(label, 3)
    assert not totalsegmentator.has_enough(label, 4)


def test_every_incomplete_scan_is_named_with_its_row(dataset):
    (dataset / "s0011" / "ct.nii.gz").unlink()
    (dataset / "s0058" / "segmentations").rename(dataset / "s0058" / "moved")
    with pytest.raises(ValueError, match=r"2 of 2 scans are incomplete") as caught:
        totalsegmentator.read_folder(dataset)
    assert "row 2: s0011/ct.nii.gz is missing" in str(caught.value)
    assert "row 3: s0058/segmentations/ is missing" in str(caught.value)


def test_missing_list_and_columns_are_said(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"meta\.csv is missing"):
        totalsegmentator.read_folder(tmp_path / "nowhere")
    (dataset / "meta.csv").write_text("image_id;age\ns0011;60\n")
    with pytest.raises(ValueError, match="no column split"):
        totalsegmentator.read_folder(dataset)


def test_mask_of_another_size_is_refused(dataset):
    save(dataset / "s0011" / "segmentations" / "liver.nii.gz", np.zeros((5, 6, 6), np.uint8))
    with pytest.raises(ValueError, match="the CT has"):
        totalsegmentator.read_labels(dataset / "s0011" / "segmentations", (6, 6, 6))
