"""The public dataset's folder layout, as it is unpacked."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from merlin import cli
from merlin.data.manifest import load_manifest
from merlin.readers import totalsegmentator
from merlin.vocabulary import LABEL, STRUCTURES


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
    table, excluded = totalsegmentator.read_folder(dataset)
    assert excluded.empty
    assert table["study_id"].tolist() == ["s0011", "s0058"]
    assert table["split"].tolist() == ["test", "train"]


def test_masks_become_one_label_map_and_unknown_is_not_absent(dataset):
    masks = dataset / "s0011" / "segmentations"
    label, affine, annotated = totalsegmentator.read_labels(masks, dataset / "s0011" / "ct.nii.gz")
    assert (affine == np.eye(4)).all()
    assert (label[0] == LABEL["liver"]).all()
    assert (label[2:4] == LABEL["vertebrae"]).all()
    assert set(annotated) == {"liver", "spleen", "vertebrae"}
    assert totalsegmentator.has_enough(label, 3)
    assert not totalsegmentator.has_enough(label, 4)


def test_an_incomplete_scan_is_excluded_with_its_row_and_loses_no_other(dataset):
    (dataset / "meta.csv").write_text(
        "image_id;split\ns0011;test\n;train\ns0058;training\ns0060;val\n../s0011;val\n"
        "s0061;train\ns0061;test\n"
    )
    for name in ("s0060", "s0061"):
        (dataset / name).mkdir()
        save(dataset / name / "ct.nii.gz", np.zeros((6, 6, 6), np.int16))
    (dataset / "s0061" / "segmentations").mkdir()
    scans, excluded = totalsegmentator.read_folder(dataset)
    assert scans["study_id"].tolist() == ["s0011"]
    assert excluded["reason"].tolist() == [
        "meta.csv, row 3: no image_id that names a folder",
        "meta.csv, row 4: split 'training'. Expected one of train, val, test",
        "meta.csv, row 5: s0060/segmentations/ is missing",
        "meta.csv, row 6: no image_id that names a folder",
        "meta.csv, row 7: its id stands more than once",
        "meta.csv, row 8: its id stands more than once",
    ]
    (dataset / "s0011" / "ct.nii.gz").unlink()
    _, excluded = totalsegmentator.read_folder(dataset)
    assert "row 2: s0011/ct.nii.gz is missing" in excluded["reason"][0]


def test_missing_list_and_columns_are_said(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"meta\.csv is missing"):
        totalsegmentator.read_folder(tmp_path / "nowhere")
    (dataset / "meta.csv").write_text("image_id;age\ns0011;60\n")
    with pytest.raises(ValueError, match="no column split"):
        totalsegmentator.read_folder(dataset)


TURNED = [
    np.diag([-1.0, 1, 1, 1]) + np.eye(4, k=3) * 6,
    np.array([[0, 0, 1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
    np.array([[0, -1.0, 0, 6], [0, 0, -1, 4], [1, 0, 0, 0], [0, 0, 0, 1]]),
    np.eye(4) + 1e-6,
]


@pytest.mark.parametrize("turn", range(4))
def test_a_mask_with_other_axes_is_brought_to_its_ct_by_its_affine(dataset, turn):
    """The mask's voxel (i, j, k) lies at TURNED @ (i, j, k) in the CT; the CT's axes are odd too."""
    affine = np.array([[0, -2.0, 0, 7], [1.5, 0, 0, -30], [0, 0, 3, 12], [0, 0, 0, 1]])
    rng = np.random.default_rng(0)
    truth = rng.random((7, 5, 6)) < 0.4
    ct = dataset / "ct.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(truth.shape, np.int16), affine), ct)
    to_ct = np.rint(TURNED[turn])
    shape = [truth.shape[a] for a in np.abs(to_ct[:3, :3]).argmax(0)]
    index = (to_ct @ np.concatenate([np.indices(shape).reshape(3, -1), np.ones((1, 210))]))[:3]
    mask = truth[tuple(index.astype(int))].reshape(shape).astype(np.uint8)
    masks = dataset / "s0011" / "segmentations"
    nib.save(nib.Nifti1Image(mask, affine @ TURNED[turn]), masks / "stomach.nii.gz")
    for other in ("liver", "spleen", "vertebrae_L1", "vertebrae_T12"):
        (masks / f"{other}.nii.gz").unlink()
    label, _, annotated = totalsegmentator.read_labels(masks, ct)
    assert annotated == ("stomach",)
    np.testing.assert_array_equal(label == LABEL["stomach"], truth)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((5, 6, 6), np.eye(4)),
        ((6, 6, 6), np.eye(4) + np.eye(4, k=3)),  # a voxel away
        ((3, 6, 6), np.diag([2.0, 1, 1, 1])),
        ((6, 6, 6), np.array([[0.9, 0.5, 0, 0], [-0.5, 0.9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    ],
)
def test_mask_on_another_grid_is_refused(dataset, shape, affine):
    masks = dataset / "s0011" / "segmentations"
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine), masks / "liver.nii.gz")
    with pytest.raises(ValueError, match="the CT has 6×6×6"):
        totalsegmentator.read_labels(masks, dataset / "s0011" / "ct.nii.gz")


def test_command_writes_a_cohort_and_says_which_scans_it_left_out(dataset, tmp_path, capsys):
    for name in ("s0011", "s0058", "s0060"):
        masks = dataset / name / "segmentations"
        masks.mkdir(parents=True, exist_ok=True)
        save(dataset / name / "ct.nii.gz", np.zeros((6, 6, 6), np.int16))
        for mask in (m for s in STRUCTURES for m in totalsegmentator.masks_of(s)):
            if not (masks / f"{mask}.nii.gz").exists():
                save(masks / f"{mask}.nii.gz", np.zeros((6, 6, 6), np.uint8))
    (dataset / "meta.csv").write_text(
        "image_id;age;gender;split\ns0011;60;m;test\ns0058;41;f;train\ns0060;;;val\n"
    )
    (dataset / "s0058" / "segmentations" / "prostate.nii.gz").unlink()  # unknown, not absent
    damaged = dataset / "s0060" / "segmentations" / "colon.nii.gz"
    whole = damaged.read_bytes()
    damaged.write_bytes(
        whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:]
    )  # the check sum alone knows
    out = tmp_path / "my organs"
    ask = ["totalsegmentator", str(dataset), "--out", str(out), "--min-structures", "3"]
    assert cli.main([*ask, "--workers", "2"]) == 0
    assert "0 train, 0 val, 1 test; 2 scans not taken" in capsys.readouterr().out
    (row,) = load_manifest(out / "manifest.csv").to_dict("records")
    assert (row["study_id"], row["split"], row["sex"], row["age"]) == ("s0011", "test", "M", 60)
    label = nib.load(row["label_map"])
    assert (np.asanyarray(label.dataobj)[0] == LABEL["liver"]).all()
    reasons = pd.read_csv(out / "excluded.csv").set_index("study_id")["reason"]
    assert reasons["s0058"] == "no mask of prostate"
    assert reasons["s0060"].startswith("not readable: ")
    assert cli.main(ask) == 2  # nothing is overwritten silently
    made = (out / "label_maps" / "s0011.nii.gz").stat().st_mtime_ns
    assert cli.main([*ask[:-1], "4", "--overwrite", "--workers", "1"]) == 2
    assert "none of the 3 scans can be used\n  1 of them: " in capsys.readouterr().err
    assert (out / "label_maps" / "s0011.nii.gz").stat().st_mtime_ns == made
    liver = np.zeros((6, 6, 6), np.uint8)
    liver[[0, 5]] = 1
    save(dataset / "s0011" / "segmentations" / "liver.nii.gz", liver)
    assert cli.main([*ask, "--overwrite", "--workers", "1"]) == 0  # another mask, another map
    again = nib.load(out / "label_maps" / "s0011.nii.gz")
    assert (np.asanyarray(again.dataobj)[5] == LABEL["liver"]).all()
