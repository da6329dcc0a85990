"""Small tables of the notebooks that read: known answers."""

import numpy as np

from merlin.evaluation import brightness, by_arm, sweep


def test_differences_are_paired_and_leave_out_models_that_were_not_judged():
    drawn = {"a": {"f1": np.array([0.5, 0.4, 0.6])}, "b": {"f1": np.array([0.2, 0.1, 0.3])}}
    table = by_arm.differences(drawn, "a", {"a − b": "b", "a − c": "c"}, ["f1"])
    assert table["difference"].tolist() == ["a − b"]
    np.testing.assert_allclose(table[["value", "low", "high"]].to_numpy()[0], 0.3)


def test_brightness_is_judged_in_both_directions_and_by_the_better_mean():
    labels = np.array([[1, 1, 0, 0], [0, 0, 0, 0]]).T
    means = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]]).T
    best = brightness.best_auroc(means, labels, ("x", "one class"))
    assert best.to_dict() == {"x": 1.0}
    assert brightness.best_auroc(np.empty((0, 2)), labels, ("x", "one class")).isna().all()


def test_an_arm_of_the_readers_own_is_told_by_its_settings():
    said = sweep.sentences({"reference": {}, "no_windows": {"windows": "none", "depth": 14}})
    assert said.loc["no_windows", "what it does"] == "windows = none, depth = 14"
    assert "differ from" in said.loc["reference", "what it does"]


def test_an_arm_is_judged_by_the_text_that_it_was_trained_on():
    plain = dict(report_splitting=True, supervision="both")
    arms = {"a": plain, "b": plain | {"report_splitting": False}}
    arms["c"] = plain | {"supervision": "ehr"}
    assert sweep.text_of(arms) == {"a": "sentences", "b": "whole", "c": "none"}
