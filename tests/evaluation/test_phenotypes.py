"""Phenotypes: scikit-learn's numbers, honest gaps, chapters."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from merlin.evaluation import phenotypes
from merlin.figures.off_shelf import draw_phenotypes
from merlin.run import RESULT_COLUMNS, ROOT

CODES = ("250.2", "401.1", "571.5", "8")


@pytest.fixture
def made():
    rng = np.random.default_rng(3)
    labels = (rng.random((200, 4)) < [0.3, 0.2, 0.5, 0.02]).astype(float)
    labels[:10, 0] = np.nan
    scores = labels + rng.normal(0, 1.0, labels.shape)
    scores[np.isnan(scores)] = 0.3
    patients = np.array([f"p{i // 2}" for i in range(200)])
    return scores, labels, patients


def evaluate(scores, labels, patients, **more):
    options = dict(model="m", split="test", min_positive=10, n_resamples=50, seed=1) | more
    return phenotypes.evaluate(scores, labels, patients, CODES, **options)


def test_values_are_scikit_learns_and_the_macro_is_their_mean(made):
    scores, labels, _ = made
    table, _ = evaluate(*made)
    values = table.set_index(["label", "metric"])["value"]
    kept = []
    for j, code in enumerate(CODES[:3]):
        known = ~np.isnan(labels[:, j])
        auroc = roc_auc_score(labels[known, j], scores[known, j])
        auprc = average_precision_score(labels[known, j], scores[known, j])
        assert values[code, "auroc"] == pytest.approx(auroc, abs=1e-12)
        assert values[code, "auprc"] == pytest.approx(auprc, abs=1e-12)
        kept.append(auroc)
    assert values["macro", "auroc"] == pytest.approx(np.mean(kept))
    assert values["macro", "n above 0.8"] == sum(a > 0.8 for a in kept)


def test_scores_that_are_not_finite_take_their_labels_along(made):
    scores, labels, patients = made
    gaps = scores.copy()
    gaps[20:25, 0], gaps[25, 0] = np.nan, np.inf
    without = labels.copy()
    without[20:26, 0] = np.nan
    table, _ = evaluate(gaps, labels, patients)
    expected, _ = evaluate(scores, without, patients)
    pd.testing.assert_frame_equal(table.drop(columns="reason"), expected.drop(columns="reason"))
    assert table.iloc[0]["reason"] == "6 scores not finite, left out"


def test_rare_phecode_stays_in_the_table_with_reason_and_count(made):
    table, _ = evaluate(*made)
    row = table[(table["label"] == "8") & (table["metric"] == "auroc")].iloc[0]
    n = int((made[1][:, 3] == 1).sum())
    assert row["status"] == "not evaluated"
    assert np.isnan([row["value"], row["low"], row["high"]]).all()
    assert row["n_positive"] == n
    assert f"{n} positive" in row["reason"]
    assert "1 of 4 phecodes" in table[table["label"] == "macro"].iloc[0]["reason"]
    assert set(RESULT_COLUMNS) <= set(table)


def test_no_phecode_with_enough_positives_is_said_not_guessed(made):
    table, resampled = evaluate(*made, min_positive=1000)
    assert (table.loc[table["metric"] == "auroc", "status"] == "not evaluated").all()
    assert table.loc[table["metric"] == "auroc", "value"].isna().all()
    assert np.isnan(resampled["auroc"]).all()


def test_resampled_macro_is_recomputed_from_the_same_patients(made):
    _, one = evaluate(*made)
    _, same = evaluate(*made)
    np.testing.assert_array_equal(one["auroc"], same["auroc"])
    assert one["auroc"].shape == (51,)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("8", "infectious diseases"),
        ("198.4", "neoplasms"),
        ("250", "endocrine and metabolic"),
        ("285", "hematopoietic"),
        ("401.1", "circulatory system"),
        ("571.5", "digestive"),
        ("591", "genitourinary"),
        ("743.12", "musculoskeletal"),
        ("747", "congenital anomalies"),
        ("1010.7", "other"),
    ],
)
def test_chapters_by_number(code, name):
    assert phenotypes.chapter(code) == name


def test_figure_shows_every_evaluated_phecode_whole_numbers_too():
    folder = ROOT / "figures"
    table = pd.read_csv(folder / "phenotypes.csv")
    names = pd.read_csv(folder / "phenotypes_names.csv")
    figure = draw_phenotypes({"": table, "names": names}, {})
    shown = len(figure.axes[0].get_yticks())
    plain = table[(table["model"] == "main") & (table["metric"] == "auroc")]
    codes = pd.to_numeric(plain["label"], errors="coerce").notna() & (plain["status"] == "ok")
    assert shown == codes.sum() > 40
