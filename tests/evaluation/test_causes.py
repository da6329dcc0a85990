"""Effects of changes, what of an answer lies in the right place, and the sentences made of them."""

import numpy as np
import pandas as pd
import pytest

from merlin.evaluation import causes, counterfactual

PROMPTS = ("ascites", "fracture")


def scan(study, change, ascites, fracture, sex="F"):
    return dict(
        study_id=study, patient_id=study, sex=sex, change=change, ascites=ascites, fracture=fracture
    )


@pytest.fixture
def scores():
    """Two patients: ascites answers to itself by 2 and 4, fracture to ascites by 1, and to being male by 3."""
    return pd.DataFrame([
        scan("a", "as drawn", 5.0, 1.0), scan("b", "as drawn", 5.0, 1.0, sex="M"),
        scan("a", "ascites", 3.0, 0.0), scan("b", "ascites", 1.0, 0.0, sex="M"),
        scan("a", "older", 6.0, 1.0), scan("b", "older", 8.0, 1.0, sex="M"),
        scan("a", "other sex", 5.0, 4.0), scan("b", "other sex", 5.0, -2.0, sex="M"),
    ])  # fmt: skip


def test_effects_have_the_sign_of_the_finding_of_age_and_of_being_male(scores):
    gaps = causes.effects(scores, PROMPTS).set_index(["change", "patient_id"])
    assert gaps.loc["ascites", "ascites"].tolist() == [2, 4]
    assert gaps.loc["ascites", "fracture"].tolist() == [1, 1]
    assert gaps.loc["older", "ascites"].tolist() == [1, 3]
    assert gaps.loc["other sex", "fracture"].tolist() == [3, 3]


def test_the_matrix_and_the_removals_name_what_moved_most(scores):
    options = dict(n_resamples=200, seed=1)
    gaps, unit = causes.effects(scores, PROMPTS), np.array([2.0, 1.0])
    matrix = causes.matrix(gaps, unit, PROMPTS, **options)
    value = matrix.set_index(["change", "prompt"])["value"]
    assert value["ascites", "ascites"] == 1.5
    assert value["ascites", "fracture"] == 1
    assert value["other sex", "fracture"] == 3
    removed = causes.removal(gaps, matrix, unit, PROMPTS, **options)
    own = removed.set_index(["label", "metric"])
    assert own.loc[("ascites", "agreement of pairs"), "value"] == 1
    row = own.loc["ascites", "score difference"]
    assert (row["value"], row["largest"], row["other"], row["n_patients"]) == (
        1.5,
        "ascites",
        "fracture",
        2,
    )
    lost = own.loc["fracture", "score difference"]
    assert (lost["status"], lost["reason"]) == (
        "not evaluated",
        "not taken out: no patient has it, or the profile leaves it out",
    )


def test_an_interval_that_holds_zero_makes_an_exception_by_name():
    """What the notebook must not hide."""
    removed = pd.DataFrame([
        dict(label=n, metric=m, value=v, low=v - 0.5, high=v + 0.5, status="ok", largest=n)
        for n, v in (("ascites", 2.0), ("free_air", 0.1)) for m in ("score difference", "agreement of pairs")
    ])  # fmt: skip
    matrix = pd.DataFrame([("older", "ascites", 0.7, 0.5, 0.9)],
                          columns=["change", "prompt", "value", "low", "high"])  # fmt: skip
    half = pd.DataFrame(dict(label=["ascites"], status=["ok"], called_with=0.9, called_without=0.3))
    said = causes.reading(removed, matrix, half)
    assert "**1 of 2** findings; exceptions: free air (+0.10)" in said
    assert "90% of scans with a finding are called, and still 30% of the same" in said
    assert "*20 years older* alone moves 1 of 1 prompts, most: ascites (+0.70)" in said


def test_half_doses_are_found_or_say_why_not():
    rng = np.random.default_rng(2)
    dose = np.tile(np.linspace(2, 30, 40), 3)
    score = {"cyst": dose - 12 + rng.normal(0, 2, 120), "seen": dose + 1, "blind": -1 - dose}
    rows = [
        dict(finding=f, patient_id=f"p{i % 40}", dose=d, score=s, kind="fainter")
        for f, values in score.items() for i, (d, s) in enumerate(zip(dose, values, strict=True))
    ]  # fmt: skip
    rows += [
        dict(finding=f, patient_id="p0", dose=d, score=-1.0 if f == "blind" else 1.0, kind=k)
        for f in score for k, d in (("as drawn", 20.0), ("without", np.nan))
    ]  # fmt: skip
    table, curves = causes.curves(
        pd.DataFrame(rows), dict.fromkeys(score, "cyst (mm)"), n_resamples=200, seed=1
    )
    row = table.set_index("label").loc["cyst"]
    assert row["low"] < 12 < row["high"]
    assert row["value"] == pytest.approx(12, abs=1)
    assert row["called_without"] == 1
    why = table.set_index("label")["reason"]
    assert why["seen"].startswith("more than half found at the faintest; 100%")
    assert why["blind"] == "no more is found as the dose rises; 0% of all doses found"
    assert curves.groupby("finding").size().eq(60).all()
    assert causes.examples(table, 2) == ["cyst", "seen"]


def test_what_lies_in_the_right_place_is_counted_by_size_within_the_body():
    answer = np.array([3.0, -1.0, 0.0, 8.0]).reshape(4, 1, 1)
    truth = np.array([True, False, False, False]).reshape(4, 1, 1)
    body = np.array([True, True, True, False]).reshape(4, 1, 1)
    found = counterfactual.pointing(answer, truth, body)
    assert found == {"inside": 0.75, "hit": 1.0, "chance": pytest.approx(1 / 3)}
    assert np.isnan(counterfactual.pointing(0 * answer, truth, body)["inside"])
    assert counterfactual.likeness(answer, 2 * answer, body) == pytest.approx(1)
    assert counterfactual.likeness(answer, -answer, body) == pytest.approx(-1)


def test_the_body_holds_its_lungs_and_not_the_air_around_it():
    image = np.zeros((9, 9, 2), np.float32)
    image[2:7, 2:7] = 0.5
    image[4, 4] = 0.08
    body = counterfactual.inside_body(image)
    assert body.sum() == 50
    assert body[4, 4].all()


def test_gradients_are_held_against_random_weights_and_chance():
    rows = [
        dict(finding=f, patient_id=f"p{i}", model=m, inside=v + 0.01 * i, hit=1.0, chance=0.1)
        for f in PROMPTS for i in range(4) for m, v in (("main", 0.4), ("random weights", 0.1))
    ]  # fmt: skip
    table = causes.pointed(pd.DataFrame(rows), n_resamples=100, seed=1)
    macro = table[(table["label"] == "macro") & (table["metric"] == "agreement of the gradient")]
    value = macro.set_index("model")["value"]
    assert value.tolist() == pytest.approx([0.415, 0.115, 0.1])
    course = causes.shifted(pd.DataFrame([
        dict(finding="ascites", step=k, score=-k, true_score=-1.5, moved_hu=2.0 * k, true_hu=80.0,
             inside=0.3, chance=0.1, likeness=0.2) for k in range(3)
    ]))  # fmt: skip
    none = causes.shifted(pd.DataFrame(columns=["finding", "step"]))
    assert "Moved" not in causes.reading_of_gradients(table, none)
    said = causes.reading_of_gradients(table, course)
    assert "above random weights for 2 of 2 findings" in said
    assert "reaches the score of the true image without it with 4.0 HU" in said
