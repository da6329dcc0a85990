"""Zero-shot findings: scores typed out by hand, the three states of a label, honest gaps."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from merlin.evaluation import zero_shot
from merlin.run import RESULT_COLUMNS

# One finding, two presence prompts (lengths 3 and 1) and one absence prompt (length 2).
PROMPTS = np.array([[3.0, 0.0], [0.0, 1.0], [-2.0, 0.0]])
UNIT = PROMPTS / np.linalg.norm(PROMPTS, axis=1, keepdims=True)
FINDING = np.array(["cyst", "cyst", "cyst"])
KIND = np.array(["present", "present", "absent"])


@pytest.mark.parametrize(
    ("scoring", "prompts", "along_x", "along_y"),
    [
        # Mean of similarities 1 and 0, minus −1; mean of 0 and 1, minus 0.
        ("mean_similarity", UNIT, 1.5, 0.5),
        # The mean of unit prompts points along (1, 1).
        ("normalised_mean", UNIT, np.sqrt(0.5) + 1, np.sqrt(0.5)),
        ("normalised_mean", PROMPTS, np.sqrt(0.5) + 1, np.sqrt(0.5)),
        # The mean of raw prompts points along (3, 1).
        ("raw_mean", PROMPTS, 3 / np.sqrt(10) + 1, 1 / np.sqrt(10)),
    ],
)
def test_scores_of_the_three_conventions_typed_out(scoring, prompts, along_x, along_y):
    image = np.array([[1.0, 0.0], [0.0, 1.0]])
    scores = zero_shot.score(image, prompts, FINDING, KIND, scoring=scoring)
    assert scores.findings == ("cyst",)
    np.testing.assert_allclose(scores.value, [[along_x], [along_y]], rtol=1e-12)


def test_order_of_prompts_changes_no_score_and_findings_keep_first_appearance():
    rng = np.random.default_rng(7)
    image = rng.normal(0, 1, (5, 8))
    prompts = rng.normal(0, 1, (8, 8))
    finding = np.array(["cyst", "ascites"] * 4)
    kind = np.array(["present"] * 4 + ["absent"] * 4)
    turn = np.array([1, 0, 7, 6, 5, 4, 3, 2])
    first = zero_shot.score(image, prompts, finding, kind)
    second = zero_shot.score(image, prompts[turn], finding[turn], kind[turn])
    assert (first.findings, second.findings) == (("cyst", "ascites"), ("ascites", "cyst"))
    np.testing.assert_allclose(first.value, second.value[:, ::-1], rtol=1e-12)


def test_missing_prompts_are_all_named():
    finding = np.array(["cyst", "ascites", "fracture", "fracture"])
    kind = np.array(["present", "absent", "present", "absent"])
    with pytest.raises(ValueError, match=r"no prompts for cyst \(absent\), ascites \(present\)$"):
        zero_shot.score(np.eye(2), np.zeros((4, 2)), finding, kind)


def test_unknown_scoring_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"mean_similarity.*got 'mean'"):
        zero_shot.score(np.eye(2), PROMPTS, FINDING, KIND, scoring="mean")


@pytest.fixture
def case():
    """40 studies of 20 patients; the third finding has no positive study."""
    rng = np.random.default_rng(7)
    labels = rng.choice([0.0, 1.0, np.nan], (40, 3), p=[0.5, 0.3, 0.2])
    labels[:, 2] = np.where(labels[:, 2] == 1, 0, labels[:, 2])
    value = np.nan_to_num(labels) - 0.5 + rng.normal(0, 0.7, labels.shape)
    patients = np.array([f"p{i // 2}" for i in range(40)])
    return zero_shot.Scores(("cyst", "ascites", "fracture"), value), labels, patients


def evaluate(scores, labels, patients, **options):
    options = dict(model="m", split="test", n_resamples=50, n_draws=3, seed=7) | options
    table, resampled = zero_shot.evaluate(scores, labels, patients, **options)
    return table.set_index(["label", "metric"]), resampled


def test_values_are_sklearns_on_the_labelled_studies_only(case):
    scores, labels, patients = case
    table, _ = evaluate(*case)
    for j, name in enumerate(scores.findings[:2]):
        known = ~np.isnan(labels[:, j])
        y, s = labels[known, j], scores.value[known, j]
        assert table.value[name, "auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        assert table.value[name, "f1"] == pytest.approx(f1_score(y, s > 0), abs=1e-12)
        row = table.loc[(name, "auroc")]
        assert (row.n_studies, row.n_positive) == (known.sum(), y.sum())
        assert row.n_patients == len(set(patients[known]))
        assert row.low <= row.value <= row.high


def test_finding_with_one_class_is_a_row_without_a_value_and_macro_counts_it(case):
    table, _ = evaluate(*case)
    for metric in ("auroc", "f1", "f1_balanced"):
        row = table.loc[("fracture", metric)]
        assert np.isnan([row.value, row.low, row.high]).all()
        assert row.status == "not evaluated"
        assert row.reason == f"one class only: 0 positive of {row.n_studies} labelled"
        macro = table.loc[("macro", metric)]
        both = [table.value["cyst", metric], table.value["ascites", metric]]
        assert macro.value == pytest.approx(np.mean(both), abs=1e-12)
        assert macro.reason == "1 of 3 findings not evaluated"


def test_nothing_to_evaluate_is_said_not_raised(case):
    scores, _, patients = case
    table, _ = evaluate(scores, np.full((40, 3), np.nan), patients)
    assert (table.status == "not evaluated").all()
    assert table.value.isna().all()


def test_study_is_called_positive_strictly_above_zero():
    value = np.array([[0.0], [1e-9], [-1e-9], [2.0]])
    labels = np.array([[1.0], [1.0], [0.0], [0.0]])
    table, _ = evaluate(zero_shot.Scores(("cyst",), value), labels, np.arange(4))
    # Hit: 1e-9. False: 2. Missed: 0, which is not above zero.
    assert table.value["cyst", "f1"] == 0.5


def test_thresholds_per_finding_move_f1_and_not_auroc(case):
    scores, labels, _ = case
    plain, _ = evaluate(*case)
    moved, _ = evaluate(*case, thresholds=np.array([0.0, 0.8, 0.0]))
    known = ~np.isnan(labels[:, 1])
    expected = f1_score(labels[known, 1], scores.value[known, 1] > 0.8)
    assert moved.value["ascites", "f1"] == pytest.approx(expected, abs=1e-12)
    assert moved.value["cyst", "f1"] == plain.value["cyst", "f1"]
    assert (moved.xs("auroc", level=1).value == plain.xs("auroc", level=1).value)[:2].all()


def test_a_finding_without_threshold_has_no_f1_and_macro_says_so(case):
    plain, _ = evaluate(*case)
    table, _ = evaluate(*case, thresholds=np.array([0.0, np.nan, np.nan]))
    row = table.loc[("ascites", "f1")]
    assert (row.status, row.reason) == ("not evaluated", "no threshold to call it by")
    assert table.value["macro", "f1"] == plain.value["cyst", "f1"]
    assert table.reason["macro", "f1"] == "2 of 3 findings not evaluated"
    assert table.value["macro", "auroc"] == plain.value["macro", "auroc"]


def test_presence_prompts_alone_rank():
    image = np.array([[1.0, 0.0], [0.0, 1.0]])
    alone = zero_shot.score(image, UNIT[:2], FINDING[:2], KIND[:2], absence_optional=True)
    np.testing.assert_allclose(alone.value, [[0.5], [0.5]])
    with pytest.raises(ValueError, match=r"no prompts for cyst \(present\)"):
        zero_shot.score(image, UNIT[2:], FINDING[2:], KIND[2:], absence_optional=True)


def test_masking_a_label_changes_only_its_finding(case):
    scores, labels, patients = case
    masked = labels.copy()
    masked[:5, 0] = np.nan
    before, _ = evaluate(*case)
    after, _ = evaluate(scores, masked, patients)
    assert before.value["cyst", "auroc"] != after.value["cyst", "auroc"]
    changed = before.loc["ascites"].compare(after.loc["ascites"])
    assert changed.empty, changed


def test_two_models_are_resampled_alike_so_equal_models_differ_by_exactly_zero(case):
    _, first = evaluate(*case)
    _, second = evaluate(*case, model="other")
    for metric, values in first.items():
        np.testing.assert_array_equal(values - second[metric], 0)


def test_table_has_the_common_schema(case):
    table, _ = evaluate(*case)
    assert set(table.reset_index().columns) == {*RESULT_COLUMNS, "method", "n_seeds", "by_seed"}


def test_balanced_draw_equalises_classes_and_only_masks(case):
    _, labels, _ = case
    labels[:, 1] = [1.0] * 30 + [0.0] * 8 + [np.nan] * 2  # more positives than negatives
    before = labels.copy()
    drawn = zero_shot.balanced_draw(labels, seed=7)
    np.testing.assert_array_equal(labels, before)
    kept = ~np.isnan(drawn)
    np.testing.assert_array_equal(drawn[kept], labels[kept])
    fewer = np.minimum((labels == 1).sum(0), (labels == 0).sum(0))
    np.testing.assert_array_equal((drawn == 1).sum(0), fewer)
    np.testing.assert_array_equal((drawn == 0).sum(0), fewer)


def test_balanced_draws_are_seeded_and_differ_by_seed():
    labels = np.array([[1.0]] * 5 + [[0.0]] * 40)
    first, again, other = (zero_shot.balanced_draw(labels, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (np.isnan(first) != np.isnan(other)).any()
    drawn = np.mean(
        [~np.isnan(zero_shot.balanced_draw(labels, seed=s))[5:, 0] for s in range(400)], axis=0
    )
    np.testing.assert_allclose(drawn, 5 / 40, atol=0.07)  # no study is favoured


def test_balanced_f1_is_the_mean_over_draws(case):
    scores, labels, _ = case
    table, _ = evaluate(*case, n_draws=4)
    values = []
    for d in range(4):
        drawn = zero_shot.balanced_draw(labels, seed=7 + d)[:, 0]
        known = ~np.isnan(drawn)
        values.append(f1_score(drawn[known], scores.value[known, 0] > 0))
    assert table.value["cyst", "f1_balanced"] == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize(
    "module",
    [
        "merlin.statistics.bootstrap",
        "merlin.statistics.metrics",
        "merlin.evaluation.zero_shot",
        "merlin.embeddings",
        "merlin.figures.panels",
    ],
)
def test_reading_and_drawing_results_imports_no_deep_learning(module):
    """Who scores embeddings or redraws a figure needs neither torch nor MONAI."""
    code = (
        f"import sys, {module}\n"
        "print(*({'torch', 'monai', 'transformers', 'SimpleITK'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
