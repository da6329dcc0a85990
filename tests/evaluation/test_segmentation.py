"""Segmentation scores: MONAI's numbers, millimetres, missed and absent organs."""

import numpy as np
import pandas as pd
import pytest

from merlin.data.scan import Volume
from merlin.evaluation import segmentation


@pytest.fixture
def masks():
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), -1)
    ball = lambda c, r: ((grid - c) ** 2).sum(-1) < r**2  # noqa: E731
    return ball((11, 12, 12), 7), ball((13, 12, 11), 6)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.8, 1.5, 4.0)])
def test_scores_equal_monai(masks, spacing_mm):
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_average_surface_distance, compute_dice

    predicted, truth = masks
    one, other = (torch.from_numpy(m)[None, None].float() for m in masks)
    distance = compute_average_surface_distance(
        one, other, include_background=True, symmetric=True, spacing=spacing_mm
    )
    assert segmentation.dice(predicted, truth) == pytest.approx(compute_dice(one, other).item())
    found = segmentation.surface_distance(predicted, truth, spacing_mm)
    assert found == pytest.approx(distance.item(), rel=1e-5)


def test_distance_is_in_millimetres(masks):
    one, other = masks
    near = segmentation.surface_distance(one, other, (1, 1, 1))
    assert segmentation.surface_distance(one, other, (3, 3, 3)) == pytest.approx(3 * near)
    assert segmentation.surface_distance(one, one, (1, 2, 3)) == 0


def test_missed_organ_is_worst_and_absent_one_is_not_evaluated(masks):
    truth = np.zeros((24, 24, 24), np.uint8)
    truth[masks[0]] = 1
    found = segmentation.score_scan(np.zeros_like(truth), truth, (1, 1, 2), ("liver", "spleen"))
    liver, spleen = found
    assert liver["dice"] == 0
    assert liver["is_missed"]
    assert liver["distance_mm"] == pytest.approx(np.sqrt(24**2 + 24**2 + 48**2))
    assert np.isnan([spleen["dice"], spleen["distance_mm"]]).all()
    assert not spleen["is_missed"]


def test_unannotated_structures_are_left_out(masks):
    truth = masks[0].astype(np.uint8)
    rows = segmentation.score_scan(
        truth, truth, (1, 1, 1), ("liver", "spleen"), annotated=("liver",)
    )
    assert [r["structure"] for r in rows] == ["liver"]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        segmentation.score_scan(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), (1, 1, 1), ("liver",))


def test_means_go_over_scans_that_hold_the_organ_with_reasons_for_the_rest():
    rows = [
        dict(study_id=s, patient_id=s, structure=o, dice=d, distance_mm=1.0, is_missed=d == 0)
        for s, o, d in [
            ("a", "liver", 0.9),
            ("b", "liver", 0.0),
            ("a", "spleen", np.nan),
            ("b", "spleen", 0.8),
        ]
    ]
    table, drawn = segmentation.evaluate(
        pd.DataFrame(rows),
        ("liver", "spleen", "prostate"),
        model="m",
        split="test",
        n_resamples=20,
        seed=1,
    )
    dice = table[table["metric"] == "dice"].set_index("label")
    assert dice.loc["liver", "value"] == pytest.approx(0.45)
    assert dice.loc["liver", "n_missed"] == 1
    assert dice.loc["spleen", "value"] == pytest.approx(0.8)
    assert dice.loc["spleen", "n_studies"] == 1
    assert dice.loc["prostate", "status"] == "not evaluated"
    assert dice.loc["prostate", "reason"] == "in none of 2 scans"
    assert dice.loc["mean", "value"] == pytest.approx((0.45 + 0.8) / 2)
    assert drawn["mean", "dice"].shape == (21,)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_middle_slice_is_the_same_whatever_the_scans_axes(codes):
    import nibabel as nib

    hu = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    turn = nib.orientations.axcodes2ornt(tuple(codes))
    turned = nib.Nifti1Image(hu, affine).as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), turn)
    )
    volume = Volume(np.asarray(turned.dataobj), turned.affine)
    slices, aspect = segmentation.middle_slices(volume, {"truth": volume.hu})
    np.testing.assert_array_equal(slices["ct"], hu[::-1, 2, ::-1].T)  # head up, right at the left
    np.testing.assert_array_equal(slices["truth"], slices["ct"])
    assert aspect == 1.5


def test_networks_are_compared_on_test_scans_alone():
    def scores(dice):
        return pd.DataFrame(
            dict(study_id=s, patient_id=s, split=split, structure="liver", dice=dice + gain,
                 distance_mm=9.0, is_missed=False)
            for s, split, gain in [("a", "test", 0.0), ("b", "test", 0.2), ("r", "real", 0.9)]
        )  # fmt: skip

    networks = {("merlin", 1.0): scores(0.5), ("scratch", 1.0): scores(0.25)}
    table, paired = segmentation.by_network(networks, ("liver",), n_resamples=10, seed=1)
    assert set(table["split"]) == {"test", "real"}
    gap = paired.set_index(["merlin minus", "metric"]).loc[("scratch", "dice")]
    assert gap[["value", "low", "high"]].to_list() == pytest.approx([0.25] * 3)
