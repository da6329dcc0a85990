"""5-year prediction: codes, masks, calibration, diseases without events."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from merlin.evaluation import claims, five_year


def test_codes_two_and_three_are_masked_not_negative():
    found = five_year.labels_from_codes([[0, 1, 2, 3]])
    np.testing.assert_array_equal(found, [[0, 1, np.nan, np.nan]])
    with pytest.raises(ValueError, match="1 five-year codes are not 0, 1, 2 or 3"):
        five_year.labels_from_codes([[0, 4]])


def test_values_are_scikit_learns_and_a_disease_without_events_is_said():
    rng = np.random.default_rng(2)
    labels = np.column_stack([rng.random(80) < 0.3, np.zeros(80)]).astype(float)
    labels[:9] = np.nan
    p = np.clip(0.3 * np.nan_to_num(labels) + 0.6 * rng.random(labels.shape), 0, 1)
    table, drawn = five_year.evaluate(
        p, labels, np.arange(80).astype(str), ("dm", "ost"),
        model="m", split="test", min_events=3, n_resamples=30, seed=1,
    )  # fmt: skip
    values = table.set_index(["label", "metric"])
    known = ~np.isnan(labels[:, 0])
    y, s = labels[known, 0], p[known, 0]
    assert values.loc[("dm", "auroc"), "value"] == pytest.approx(roc_auc_score(y, s))
    assert values.loc[("dm", "brier"), "value"] == pytest.approx(brier_score_loss(y, s))
    assert values.loc[("ost", "auroc"), "status"] == "not evaluated"
    assert values.loc[("ost", "auroc"), "reason"].startswith("0 events among 71")
    assert np.isnan(values.loc[("ost", "auroc"), "value"])
    assert values.loc[("mean", "auroc"), "value"] == values.loc[("dm", "auroc"), "value"]
    assert drawn["mean", "auroc"].shape == (1, 31)


def test_a_disease_without_probabilities_is_said_and_left_out_of_paired_means():
    rng = np.random.default_rng(4)
    labels = (rng.random((60, 2)) < 0.4).astype(float)
    p = np.clip(0.2 * labels + 0.7 * rng.random(labels.shape), 0, 1)
    options = dict(model="m", split="test", min_events=3, n_resamples=20, seed=1)
    people, names = np.arange(60).astype(str), ("dm", "ost")
    _, full = five_year.evaluate(p, labels, people, names, **options)
    half = np.column_stack([p[:, 0], np.full(60, np.nan)])
    table, part = five_year.evaluate(half, labels, people, names, **options)
    lost = table.set_index(["label", "metric"]).loc[("ost", "auroc")]
    assert (lost["status"], lost["reason"][:14]) == ("not evaluated", "no probability")
    gap = five_year.mean_difference(part, full, names)
    assert (gap["value"], gap["low"], gap["high"]) == (0.0, 0.0, 0.0)  # dm alone, the same twice


def test_last_bin_of_the_reliability_diagram_is_closed():
    table = five_year.reliability(np.array([0.0, 0.1, 1.0, 1.0]), np.array([0, 0, 1.0, np.nan]))
    assert table["n"].tolist() == [2, 1]
    assert table["high"].tolist() == [0.2, 1.0]
    assert table["observed"].tolist() == [0, 1]
    assert table["observed_high"].iloc[0] > 0  # a Wilson interval of 0 of 2 is not a point


def test_reliability_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match=r"\[0, 1\]; found -1 to 2"):
        five_year.reliability(np.array([-1.0, 2.0]), np.array([0.0, 1.0]))


def test_flow_counts_every_study_once():
    table = pd.DataFrame({"split": ["train", "test", "test"], "five_year_dm": [0, 3, 1]})
    flow = five_year.flow(table, ["dm"])
    assert flow["n_studies"].sum() == 3
    assert flow.query("split == 'test' and code == 3")["n_studies"].item() == 1


def test_each_beginning_is_held_against_ours_on_the_same_resamples():
    rng = np.random.default_rng(5)
    labels = (rng.random((60, 2)) < 0.4).astype(float)
    starts = ("merlin", "random", "merlin_frozen", "random_frozen")
    predicted = {(s, 1.0): rng.random(labels.shape) for s in starts}
    predicted["random_frozen", 1.0] = predicted["merlin_frozen", 1.0]
    options = dict(min_events=3, n_resamples=20, seed=1)
    table, drawn = five_year.by_start(
        predicted, labels, np.arange(60).astype(str), ("dm", "ost"), **options
    )
    assert set(table["start"]) == set(starts)
    gaps = five_year.paired(drawn, ("dm", "ost"))
    assert list(zip(gaps["ours"], gaps["other"], strict=True)) == [
        ("merlin", "random"), ("merlin_frozen", "random_frozen"), ("merlin_frozen", "random"),
    ]  # fmt: skip
    assert gaps.loc[1, ["value", "low", "high"]].tolist() == [0, 0, 0]
    assert "both frozen +0.000 [+0.000, +0.000], which includes zero" in five_year.reading(
        table, gaps
    )


def test_seeds_widen_the_interval_and_stand_in_the_table():
    rng = np.random.default_rng(6)
    labels = (rng.random((90, 1)) < 0.4).astype(float)
    good = np.clip(0.3 * labels + 0.6 * rng.random(labels.shape), 0, 1)
    poor = np.clip(0.05 * labels + 0.8 * rng.random(labels.shape), 0, 1)
    people, options = np.arange(90).astype(str), dict(min_events=3, n_resamples=60, seed=1)
    predicted = {("merlin", 1.0): np.stack([good, good, poor]), ("same", 1.0): np.stack([good] * 3)}
    table, _ = five_year.by_start(predicted, labels, people, ("dm",), **options)
    rows = table.query("label == 'mean' and metric == 'auroc'").set_index("start")
    assert rows.loc["merlin", "n_seeds"] == 3
    own = [float(v) for v in rows.loc["merlin", "by_seed"].split()]
    assert rows.loc["merlin", "value"] == pytest.approx(np.mean(own))
    width = rows["high"] - rows["low"]
    assert width["merlin"] > 2 * width["same"]


def test_a_rival_of_one_seed_is_held_against_each_seed_of_ours():
    rng = np.random.default_rng(7)
    labels = (rng.random((60, 2)) < 0.4).astype(float)
    predicted = {("merlin", 1.0): rng.random((3, 60, 2)), ("age_sex", 1.0): rng.random((1, 60, 2))}
    predicted["random", 1.0] = rng.random((3, 60, 2))
    options = dict(min_events=3, n_resamples=20, seed=1)
    table, drawn = five_year.by_start(
        predicted, labels, np.arange(60).astype(str), ("a", "b"), **options
    )
    gaps = five_year.paired(drawn, ("a", "b")).set_index(["ours", "other"])
    assert {*gaps.index} == {("merlin", "random"), ("merlin", "age_sex"), ("random", "age_sex")}
    mean = table.query("label == 'mean' and metric == 'auroc'").set_index("start")["value"]
    assert gaps.loc[("merlin", "age_sex"), "value"] == pytest.approx(
        mean["merlin"] - mean["age_sex"]
    )


def test_claims_are_asked_of_the_gaps_seed_by_seed():
    """With the patients' part apart from the seeds', which must not count twice."""
    rng = np.random.default_rng(8)
    labels = (rng.random((90, 1)) < 0.4).astype(float)
    noise = 0.7 * rng.random((2, 3, 90, 1))
    predicted = {("merlin", 1.0): 0.3 * labels + noise[0], ("random", 1.0): 0.1 * labels + noise[1]}
    options = dict(min_events=3, n_resamples=60, seed=1)
    table, drawn = five_year.by_start(predicted, labels, np.arange(90), ("dm",), **options)
    tables = dict(five_year=table, five_year_paired=five_year.paired(drawn, ("dm",)))
    entry = next(e for e in claims.read_claims() if e["id"] == "five-year-pretraining-helps-100")
    direction, row = entry["direction"][0], tables["five_year_paired"].iloc[0]
    asked = claims.question(direction, row, tables, profile=None)
    assert np.mean(asked.by_seed) == pytest.approx(row["value"], abs=1e-5)
    assert len(asked.by_seed) == 3
    assert asked.se_patients < (row["high"] - row["low"]) / 3.92
    assert asked.spread.df == 2  # two models of three runs, less their means and the seeds'
