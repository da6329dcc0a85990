"""Rivals are fitted on training studies alone, judged as ours, and said to be missing where they are."""

import numpy as np
import pandas as pd
import pytest

from merlin.evaluation import rivals
from merlin.evaluation.rivals import Known

NAMES = ("ascites", "free_air")


@pytest.fixture
def known():
    """600 studies: ascites follows age, free air is nobody's doing and half unlabelled."""
    rng = np.random.default_rng(1)
    n = 600
    ids = pd.Index([f"s{i}" for i in range(n)], name="study_id")
    age = rng.normal(60, 15, n)
    split = np.repeat(["train", "val", "test"], 200)
    ascites = (age + rng.normal(0, 5, n) > 65).astype(float)
    air = np.where(rng.random(n) < 0.5, np.nan, rng.random(n) < 0.3)
    studies = pd.DataFrame(
        dict(patient_id=ids, split=split, age=age, sex=rng.choice(["F", "M"], n)), index=ids
    ).assign(label_ascites=ascites, label_free_air=air)
    truth = pd.DataFrame({"ascites": ascites * 0.7, "free_air": 0.0}, index=ids)
    return Known(studies, truth=truth)


def judged(known, **changes):
    test = known.studies[known.studies["split"] == "test"]
    labels = test[[f"label_{n}" for n in NAMES]].to_numpy(float)
    ids = test.index.to_numpy(str)
    options = dict(n_resamples=30, n_draws=2, seed=1) | changes
    return rivals.findings(known, NAMES, ids, ids, labels, **options)


def test_age_finds_what_follows_age_and_nothing_else(known):
    table, drawn, _ = judged(known)
    auroc = table.query("metric == 'auroc'").set_index(["model", "label"])["value"]
    assert auroc["age_sex", "ascites"] > 0.9
    assert 0.3 < auroc["age_sex", "free_air"] < 0.7
    assert auroc["truth", "ascites"] == 1.0
    assert drawn["age_sex"]["auroc"].shape == (31,)


def test_test_labels_and_test_studies_teach_nothing(known):
    """Other test labels, and other ages of the test patients, leave every fit as it was."""
    given = rivals.inputs(known)
    taught = known.studies[[f"label_{n}" for n in NAMES]].to_numpy(float)
    before = rivals.fit_all(given, taught, known)["age_sex"]
    test = known.rows("test")
    taught[test] = 1 - taught[test]
    given["age_sex"].iloc[test] *= 100
    after = rivals.fit_all(given, taught, known)["age_sex"]
    rest = np.concatenate([known.rows("train"), known.rows("val")])
    np.testing.assert_array_equal(before.probability[rest], after.probability[rest])
    assert before.c == after.c


def test_what_is_not_known_is_a_row_with_its_reason(known):
    table, drawn, chosen = judged(known)
    assert set(drawn) == {"age_sex", "truth"}
    missing = table[table["status"] == "not evaluated"].set_index("model")["reason"]
    assert missing["organs"] == "no label maps to measure"
    assert missing["probe"] == "no features of the training studies"
    assert "phase" in missing["age_sex_phase"]
    assert set(chosen["rival"]) == {
        "age_sex", "age_sex_phase", "organs", "organs_person", "probe",
    }  # fmt: skip
    nothing, drawn, _ = rivals.findings(
        Known(), NAMES, np.array(["a"]), np.array(["a"]), np.ones((1, 2)),
        n_resamples=3, n_draws=1, seed=1,
    )  # fmt: skip
    assert not drawn
    assert (nothing["status"] == "not evaluated").all()


def test_a_validation_chooses_the_penalty():
    """Of noise in 200 inputs, the strictest penalty; of one strong input, a milder one."""
    rng = np.random.default_rng(2)
    signal = rng.normal(size=300)
    y = (signal + rng.normal(0, 0.5, 300) > 0).astype(float)[:, None]
    rows = dict(train=np.arange(100), val=np.arange(100, 300))
    noisy = np.column_stack([signal, rng.normal(size=(300, 200))])
    f = rivals.fit(noisy, y, **rows)
    each = [
        rivals.mean_auroc(rivals.logistic(noisy[:100], y[:100], noisy[100:], c=c), y[100:])
        for c in rivals.PENALTIES
    ]
    assert f.val_auroc == max(each)
    assert f.c == rivals.PENALTIES[int(np.argmax(each))]


def test_free_inputs_keep_their_weight_under_a_strict_penalty():
    rng = np.random.default_rng(3)
    age, noise = rng.normal(size=(400, 1)), rng.normal(size=(400, 250))
    y = (age + rng.normal(0, 0.5, (400, 1)) > 0).astype(float)
    x = np.concatenate([age, noise], 1)
    free = rivals.logistic(x[:200], y[:200], x[200:], c=1e-4, n_free=1)
    alone = rivals.logistic(age[:200], y[:200], age[200:], c=1.0)
    assert rivals.mean_auroc(free, y[200:]) > rivals.mean_auroc(alone, y[200:]) - 0.01


def test_five_year_rivals_by_share_with_seeds_and_the_ceiling(known):
    risk = known.studies["age"].to_numpy() / 100
    labels = (np.random.default_rng(4).random(600) < risk).astype(float)[:, None]
    traits = pd.DataFrame({"bone": 0.0, "risk ost": risk}, index=known.studies.index)
    rng = np.random.default_rng(5)
    tables = [
        pd.DataFrame(rng.normal(size=(600, 3)), index=known.studies.index, columns=list("012"))
        for _ in range(2)
    ]
    predicted, chosen = rivals.diseases(
        Known(known.studies, traits=traits), {"merlin": tables, "random": tables[:1]}, labels,
        {0.5: known.rows("train")[:100], 1.0: known.rows("train")}, ["ost"],
    )  # fmt: skip
    assert predicted["merlin_frozen", 0.5].shape == (2, 600, 1)
    assert predicted["random_frozen", 1.0].shape == (1, 600, 1)
    assert ("true_risk", 0.5) not in predicted
    np.testing.assert_array_equal(predicted["true_risk", 1.0][0, :, 0], risk)
    with_person = predicted["merlin_frozen_person", 1.0][0]
    test = known.rows("test")
    person, image = (
        rivals.mean_auroc(p[test], labels[test])
        for p in (with_person, predicted["merlin_frozen", 1.0][0])
    )
    assert person > image + 0.1
    assert set(chosen["start"]) == {s for s, _ in predicted} - {"true_risk"}


def test_a_network_that_draws_organs_badly_loses_what_measuring_tells(known):
    liver = known.studies["label_ascites"] * 300 + np.random.default_rng(6).normal(1500, 80, 600)
    measured = pd.DataFrame({"liver volume_ml": liver, "liver mean_hu": 100.0})
    test = known.studies.index[known.rows("test")][:150]
    taught = {
        "findings": known.studies[["label_ascites"]].to_numpy(float),
        "none": np.full((600, 1), np.nan),
    }
    given = Known(known.studies, measured=measured)
    exact = measured.loc[test]
    noisy = exact.assign(**{"liver volume_ml": 1500 + np.random.default_rng(7).normal(0, 200, 150)})
    same, worse = (
        rivals.by_own_maps(given, own, taught, n_resamples=50, seed=1) for own in (exact, noisy)
    )
    assert same["task"].tolist() == ["findings"]
    assert same.loc[0, ["value", "low", "high"]].tolist() == [0, 0, 0]
    assert same.loc[0, "true_maps"] > 0.9
    assert worse.loc[0, "high"] < 0
    assert rivals.by_own_maps(known, exact, taught, n_resamples=5, seed=1).empty
