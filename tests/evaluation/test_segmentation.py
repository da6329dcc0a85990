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


def test_a_missed_organ_has_no_distance_and_an_absent_one_no_score(masks):
    truth = np.zeros((24, 24, 24), np.uint8)
    truth[masks[0]] = 1
    found = segmentation.score_scan(np.zeros_like(truth), truth, (1, 1, 2), ("liver", "spleen"))
    liver, spleen = found
    assert liver["dice"] == 0
    assert liver["is_missed"]
    assert np.isnan(liver["distance_mm"])
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
    assert dice.loc["spleen", "value"] == pytest.approx(0.8)
    assert dice.loc["spleen", "n_studies"] == 1
    assert dice.loc["prostate", "status"] == "not evaluated"
    assert dice.loc["prostate", "reason"] == "in none of 2 scans"
    assert dice.loc["mean", "value"] == pytest.approx((0.45 + 0.8) / 2)
    missed = table[table["metric"] == "missed"].set_index("label")
    assert missed.loc["liver", ["value", "n_positive"]].tolist() == [0.5, 2]
    assert missed.loc["spleen", "value"] == 0
    distance = table[table["metric"] == "distance_mm"].set_index("label")
    assert distance.loc["liver", ["value", "n_positive"]].tolist() == [1.0, 1]
    assert drawn["dice"].shape == (1, 3, 21)


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


def scores(by_seed, *, splits=("test",) * 40, distance_mm=9.0):
    """Of two structures in every scan: Dice of the first by seed, the second 0.1 below."""
    rng = np.random.default_rng(4)
    own = rng.normal(0, 0.05, len(splits))  # of a scan, the same for every network
    return pd.DataFrame(
        dict(study_id=f"s{i}", patient_id=f"p{i}", split=split, structure=organ, seed=seed,
             dice=dice + own[i] - 0.1 * (organ == "spleen"), distance_mm=distance_mm, is_missed=False)
        for seed, dice in enumerate(by_seed)
        for i, split in enumerate(splits)
        for organ in ("liver", "spleen")
    )  # fmt: skip


def compared(networks):
    structures = ("liver", "spleen")
    table, paired = segmentation.by_network(networks, structures, n_resamples=200, seed=1)
    return table, paired.set_index(["merlin minus", "fraction", "metric"])


def test_networks_are_compared_on_test_scans_alone():
    splits = ("test",) * 20 + ("real",) * 3
    networks = {("merlin", 1.0): scores([0.5], splits=splits)}
    networks["scratch", 1.0] = scores([0.25], splits=splits)
    table, paired = compared(networks)
    assert set(table["split"]) == {"test", "real"}
    gap = paired.loc[("scratch", 1.0, "dice")]
    assert gap[["value", "low", "high"]].to_list() == pytest.approx([0.25] * 3)
    assert gap["n_patients"] == 20
    assert paired.loc[("scratch", 1.0, "organs_better"), "value"] == 2


def test_seeds_that_disagree_widen_the_difference():
    """Patients alone would call it decided: paired scans differ by the same everywhere."""
    runs = {("merlin", 1.0): [0.60, 0.50, 0.55], ("scratch", 1.0): [0.50, 0.58, 0.51]}
    table, paired = compared({k: scores(v) for k, v in runs.items()})
    gap = paired.loc[("scratch", 1.0, "dice")]
    assert gap["value"] == pytest.approx(0.02)
    assert gap["low"] < 0 < gap["high"]
    assert [float(v) for v in gap["by_seed"].split()] == pytest.approx([0.1, -0.08, 0.04])
    row = table.query("label == 'mean' and metric == 'dice' and model == 'merlin'").iloc[0]
    assert (row["n_seeds"], len(row["by_seed"].split())) == (3, 3)


def test_distances_are_of_organs_that_all_networks_found():
    """A network that misses the far ones would win on distance otherwise."""
    ours, other = scores([0.5], distance_mm=4.0), scores([0.5], distance_mm=4.0)
    far = ours["study_id"].isin({"s0", "s1"}) & (ours["structure"] == "liver")
    ours.loc[far, "distance_mm"] = 90.0
    other.loc[far, ["dice", "distance_mm", "is_missed"]] = [0.0, np.nan, True]
    table, paired = compared({("merlin", 1.0): ours, ("scratch", 1.0): other})
    assert paired.loc[("scratch", 1.0, "distance_mm"), "value"] == 0
    assert paired.loc[("scratch", 1.0, "missed"), "value"] == pytest.approx(-1 / 2 * 2 / 40)
    rows = table.query("metric == 'distance_mm' and label == 'liver'").set_index("model")
    assert rows["value"].tolist() == [4.0, 4.0]
    assert rows["n_positive"].tolist() == [38, 38]


def curve(model, dice):
    steps = np.arange(1, len(dice) + 1) * 10 - 1
    return pd.DataFrame(
        dict(model=model, fraction=1.0, seed=0, step=steps, core_seconds=steps / 2, dice=dice)
    )


def test_of_a_rival_that_still_learns_nothing_is_said():
    networks = {
        (k, 1.0): scores([v]) for k, v in (("merlin", 0.6), ("scratch", 0.5), ("dynunet", 0.3))
    }
    table, paired = segmentation.by_network(networks, ("liver", "spleen"), n_resamples=20, seed=1)
    flat = curve("merlin", [0.2, 0.4, 0.5, 0.58, 0.58, 0.58])
    rising = curve("dynunet", [0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    trained = segmentation.training(pd.concat([flat, rising]))
    found = trained.set_index("model")
    assert found["is_flat"].tolist() == [True, False]
    assert found.loc["dynunet", "steps"] == 60
    said = segmentation.reading(table, paired, trained)
    assert "nothing is said of it" in said
    done = segmentation.training(
        pd.concat([flat, curve("dynunet", [0.1, 0.2, 0.3, 0.3, 0.3, 0.3])])
    )
    assert "Ours minus DynUNet with 100% of the labels: +0.300" in segmentation.reading(
        table, paired, done
    )
