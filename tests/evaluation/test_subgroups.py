"""Groups are held against the others fairly, and the surest errors are those that the rule names."""

import numpy as np
import pandas as pd
import pytest

from merlin.evaluation import misread, subgroups

HOW = dict(min_positive=5, min_patients=20, n_resamples=200, seed=1)


def task(n=300, n_labels=3, worse=(), seed=0):
    """Studies of `n` patients; of those in `worse` the scores say nothing."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, n_labels)) < 0.4).astype(float)
    score = 1.5 * truth + rng.normal(size=truth.shape)
    score[list(worse)] = rng.normal(size=(len(worse), n_labels))
    ids = np.array([f"s{i}" for i in range(n)])
    names = tuple(f"finding {i}" for i in range(n_labels))
    zero = np.full(n_labels, 0.75)
    return subgroups.Task("findings", names, score[None], truth, ids, ids, ("sex",), zero)


def sexes(ids, n_women):
    value = ["women"] * n_women + ["men"] * (len(ids) - n_women)
    return {"sex": pd.Series(pd.Categorical(value, ["women", "men"], ordered=True), ids)}


def test_a_group_that_is_served_worse_is_found_and_an_equal_one_is_not():
    bad = task(worse=range(120))
    table = subgroups.by_group([bad], sexes(bad.study_id, 120), {}, **HOW)
    gap = table.query("metric == 'difference of auroc'")
    assert len(gap) == 1  # of two groups one difference, which is the other's too
    assert gap["value"].iloc[0] < -0.2
    assert gap["p_holm"].iloc[0] < 0.001
    assert "findings, auroc, women: -0." in subgroups.reading(table)
    fair = task(seed=3)
    table = subgroups.by_group([fair], sexes(fair.study_id, 120), {}, **HOW)
    assert (table["p_holm"].dropna() > 0.05).all()
    assert "none is told apart" in subgroups.reading(table)


def test_small_groups_and_lacking_attributes_are_rows_with_a_reason():
    one = task()
    table = subgroups.by_group([one], sexes(one.study_id, 12), {}, **HOW)
    assert table["reason"].str.startswith("too small to tell: 12 patients").any()
    assert table["p"].isna().all()
    groups, lacking = subgroups.groups_of(pd.DataFrame({"age": [40.0, np.nan]}), age_edges=[50])
    assert list(groups) == ["age"]
    assert groups["age"].isna().tolist() == [False, True]
    assert lacking["sex"] == "this cohort's manifest does not say sex"
    table = subgroups.by_group([one], {}, {"sex": "unknown"}, **HOW)
    assert table[["status", "reason"]].to_numpy().tolist() == [["not evaluated", "unknown"]]


def test_predictive_values_follow_bayes():
    ppv, npv = subgroups.predictive(np.array(0.9), np.array(0.8), 0.1)
    assert ppv == pytest.approx(0.09 / 0.27)
    assert npv == pytest.approx(0.72 / 0.73)
    called = np.array([[1], [0], [1], [0]], bool)
    truth, weights = np.array([[1.0], [1.0], [0.0], [np.nan]]), np.ones((4, 1))
    sensitivity, specificity = subgroups.operating(called, truth, weights)
    assert (sensitivity.item(), specificity.item()) == (0.5, 0.0)


def test_the_surest_errors_are_one_a_finding_and_one_a_study():
    one = task(n=60)
    wrong = misread.errors(one)
    assert wrong["beyond"].is_monotonic_decreasing
    rows = {s: i for i, s in enumerate(one.study_id)}
    for r in wrong.itertuples():
        is_called = r.score > 0.75
        assert is_called == (r.kind == misread.ALARM)
        assert one.truth[rows[r.study_id], one.labels.index(r.finding)] == float(not is_called)
    worst = misread.most_confident(wrong, n=2)
    assert worst["study_id"].is_unique
    assert worst.groupby("kind")["finding"].nunique().tolist() == [2, 2]
    assert worst["score"].iloc[0] == wrong.query("kind == 'miss'")["score"].iloc[0]


def test_a_case_says_when_the_report_is_wrong():
    severity = pd.DataFrame({"ascites": [0.0, 0.7]}, index=["a", "b"])
    case = dict(kind=misread.MISS, finding="ascites", study_id="a")
    assert misread.told(case, severity) == "not drawn: the report is wrong"
    assert misread.told(case | dict(study_id="b"), severity) == "drawn with severity 0.70"
    alarm = dict(case, kind=misread.ALARM)
    assert misread.told(alarm, severity) == "not drawn"
    assert misread.told(alarm | dict(study_id="c"), severity) == ""
