"""Report metrics: the reference libraries' numbers, baselines, cases by rule."""

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from merlin.evaluation import generation, regression, report_rivals
from merlin.model import text_scores
from merlin.statistics import bootstrap
from merlin.vocabulary import NAMES

SECTIONS = ("spleen", "peritoneal cavity", "adrenal glands")
REFERENCE = np.array(
    [
        [
            "Moderate splenomegaly, 15.0 cm in length.",
            "Ascites is present, mild. No pneumoperitoneum.",
            "",
        ],
        ["Normal.", "Large ascites.", ""],
        ["No splenomegaly.", "No ascites.", ""],
        ["Normal.", "Normal.", ""],
    ],
    object,
)
GENERATED = np.array(
    [
        ["Moderate splenomegaly, 14.0 cm in length.", "Ascites is present, mild.", "Normal."],
        ["Normal.", "No ascites.", "Normal."],
        ["Normal.", "No ascites.", "Normal."],
        ["Marked splenomegaly.", "Normal.", "Normal."],
    ],
    object,
)


def ones(n):
    return np.ones((n, 1), np.uint8)


def test_bleu_equals_sacrebleu_on_the_data_and_on_a_resample():
    from sacrebleu import corpus_bleu

    made = generation.join_sections(GENERATED, SECTIONS)
    true = generation.join_sections(REFERENCE, SECTIONS)
    counts, signature = generation.bleu_counts(made, true)
    assert "version:2" in signature
    weights = np.concatenate([ones(4), bootstrap.patient_weights(list("abcd"), 6, seed=1)], axis=1)
    found = generation.bleu(counts, weights)
    for column, value in zip(weights.T, found, strict=True):
        chosen = np.repeat(np.arange(4), column)
        expected = corpus_bleu(made[chosen].tolist(), [true[chosen].tolist()]).score / 100
        assert value == pytest.approx(expected, abs=1e-9)


def test_bleu_smooths_orders_without_a_hit_as_sacrebleu_does():
    from sacrebleu import corpus_bleu

    made, true = ["the liver is large now"], ["the spleen is not large"]
    counts, _ = generation.bleu_counts(made, true)
    found = generation.bleu(counts, ones(1))[0]
    assert found == pytest.approx(corpus_bleu(made, [true]).score / 100, abs=1e-9)


def pycocoevalcap_bleu4(generated, reference):
    """BLEU-4 as `pycocoevalcap/bleu/bleu_scorer.py` computes it, for one reference each."""
    correct, guess, testlen, reflen = [0] * 4, [0] * 4, 0, 0
    for g, r in zip(generated, reference, strict=True):
        g, r = g.split(), r.split()
        testlen, reflen = testlen + len(g), reflen + len(r)
        for k in range(4):
            ours, theirs = (
                Counter(tuple(t[i : i + k + 1]) for i in range(len(t) - k)) for t in (g, r)
            )
            guess[k] += max(0, len(g) - k)
            correct[k] += sum(min(n, theirs[gram]) for gram, n in ours.items())
    bleu = 1.0
    for k in range(4):
        bleu *= (correct[k] + 1e-15) / (guess[k] + 1e-9)
    ratio = (testlen + 1e-15) / (reflen + 1e-9)
    return bleu**0.25 * (math.exp(1 - 1 / ratio) if ratio < 1 else 1)


def test_the_bleu_of_radiology_papers_is_pycocoevalcaps():
    from nltk.translate.bleu_score import corpus_bleu

    true = ["the liver is normal in size and contour", "no free fluid in the pelvis is seen today"]
    made = ["the liver is normal in size", "no free fluid is seen in the pelvis"]
    counts, signature = generation.bleu_counts(made, true, tokenize="none")
    assert "tok:none" in signature
    found = generation.bleu(counts, ones(2), smooth=False)[0]
    assert found == pytest.approx(pycocoevalcap_bleu4(made, true), abs=1e-8)
    words = [t.split() for t in made], [[t.split()] for t in true]
    assert found == pytest.approx(corpus_bleu(words[1], words[0]), abs=1e-12)
    both = np.array([[1, 2], [1, 0]], np.uint8)  # in a resample, the first twice
    again = generation.bleu(counts, both, smooth=False)[1]
    assert again == pytest.approx(pycocoevalcap_bleu4(made[:1] * 2, true[:1] * 2), abs=1e-8)
    apart, _ = generation.bleu_counts(["no ascites"], ["large spleen seen"], tokenize="none")
    assert generation.bleu(apart, ones(1), smooth=False)[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Liver: Normal.", "liver normal"),
        ("A 1.5 x 2.0 cm cyst (12/3), well-defined; no growth?", "a 1.5 x 2.0 cm cyst 12/3 well-defined no growth"),
        ("Ménière's disease - none...", "ménière's disease none"),
        ("1,500 ml", "1,500 ml"),
        ("...", ""),
    ],
)  # fmt: skip
def test_words_without_punctuation(text, words):
    assert generation.plain_words([text]) == [words]


def test_headings_of_ours_earn_nothing_in_whole_reports():
    """Texts without a common word shared every heading."""
    made = np.array([["alpha beta gamma delta", "epsilon zeta eta theta", ""]] * 4, object)
    true = np.array([["one two three four five", "six seven eight nine ten", ""]] * 4, object)
    table, _ = evaluate(made, true)
    full = table[table["label"] == "full report"].set_index("metric")["value"]
    assert full[["bleu", "bleu4_coco", "rouge2"]].eq(0).all()
    found, _ = evaluate(GENERATED)
    signature = found[found["label"] == "full report"].set_index("metric")["signature"]
    assert "tok:13a" in signature["bleu"]
    assert "pycocoevalcap" in signature["bleu4_coco"]
    assert "stemmer" in signature["rouge2"]


def test_rouge_equals_rouge_score():
    from rouge_score.rouge_scorer import RougeScorer

    made, true = "no ascites is seen today", "no ascites is seen in the pelvis"
    expected = RougeScorer(["rouge2"], use_stemmer=True).score(true, made)["rouge2"].fmeasure
    assert generation.rouge2([made], [true])[0] == pytest.approx(expected)


def test_micro_f1_equals_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(1)
    predicted, truth = rng.random((2, 30, 5)) < 0.4
    expected = f1_score(truth.ravel(), predicted.ravel())
    assert generation.micro_f1(predicted, truth, ones(30))[0] == pytest.approx(expected)


def evaluate(texts, reference=REFERENCE):
    return generation.evaluate(
        texts, reference, np.array(list("abcd")), SECTIONS, model="m", split="test",
        n_resamples=20, seed=1,
    )  # fmt: skip


def test_normal_for_everything_wins_no_finding():
    table, _ = evaluate(np.full_like(REFERENCE, "Normal."))
    row = table[(table["label"] == "full report") & (table["metric"] == "clinical_f1")].iloc[0]
    assert row["value"] == 0
    assert row["n_positive"] == 3


def test_clinical_f1_counts_stated_findings():
    table, _ = evaluate(GENERATED)
    full = table[table["label"] == "full report"].set_index("metric")["value"]
    # Stated: splenomegaly and ascites, ascites; written: both, nothing, nothing, a false one.
    assert full["clinical_f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert full["bleu"] > 0
    same, _ = evaluate(REFERENCE)
    assert same[same["label"] == "full report"]["value"].dropna().eq(1).all()


def test_section_that_no_report_has_is_not_evaluated():
    table, _ = evaluate(GENERATED)
    rows = table[table["label"] == "adrenal glands"]
    assert (rows["status"] == "not evaluated").all()
    assert rows["reason"].str.contains("empty in all 4").all()


def test_finding_that_no_reference_states_is_not_evaluated():
    table, _ = evaluate(GENERATED)
    row = table[table["label"] == "finding: fracture"].iloc[0]
    assert row["status"] == "not evaluated"
    assert np.isnan(row["value"])


def test_baselines_copy_what_they_say():
    library = np.array([["A.", ""], ["A.", "B."], ["C.", "B."]], object)
    assert report_rivals.most_frequent(library).tolist() == ["A.", "B."]
    near = report_rivals.nearest_report(np.eye(2), np.array([[0, 1.0], [0.8, 0.6], [1, 0]]))
    assert near.tolist() == [2, 0]


KIDNEYS = ("kidneys and ureters",)


def kidneys(text):
    return np.array([[text]], object)


@pytest.mark.parametrize(
    ("written", "is_right"),
    [
        ("Moderate right hydronephrosis.", 1),
        ("Right moderate hydronephrosis is seen.", 1),
        ("Moderate left hydronephrosis.", 0),
        ("Severe right hydronephrosis.", 0),
        ("Moderate hydronephrosis.", 0),  # of which kidney?
    ],
)
def test_a_report_that_names_the_wrong_kidney_is_wrong(written, is_right):
    table, _ = generation.evaluate(
        kidneys(written), kidneys("Moderate right hydronephrosis."), np.array(["p"]), KIDNEYS,
        model="m", split="test", n_resamples=5, seed=1,
    )  # fmt: skip
    row = table[table["label"] == "full report"].set_index("metric")["value"]
    assert row["clinical_f1"] == 1
    assert row["clinical_f1_details"] == is_right


TRAINING = np.array(
    [
        ["Splenomegaly, 14 cm.", "Small ascites."],
        ["Splenomegaly, 14 cm.", "Ascites and free air."],
        ["Marked splenomegaly.", "No ascites."],
        ["Normal size.", "No ascites."],
        ["Normal size.", "Free air and ascites."],
    ],
    object,
)
PARTS = ("spleen", "peritoneal cavity")


def test_a_template_takes_the_commonest_sentence_that_states_one_finding_alone():
    phrases, normal = report_rivals.phrase_book(TRAINING, PARTS)
    assert phrases["splenomegaly"] == "Splenomegaly, 14 cm."
    assert phrases["ascites"] == "Small ascites."
    assert "free air" in phrases["free_air"].lower()  # never alone: the best there is
    assert normal.tolist() == ["Normal size.", "No ascites."]
    present = np.zeros((2, len(NAMES)), bool)
    present[1, [NAMES.index("splenomegaly"), NAMES.index("ascites")]] = True
    made = report_rivals.filled(present, phrases, normal, PARTS)
    assert made.tolist() == [normal.tolist(), ["Splenomegaly, 14 cm.", "Small ascites."]]
    np.testing.assert_array_equal(generation.stated(generation.join_sections(made, PARTS)), present)


def test_thresholds_of_the_template_look_at_validation_alone():
    rng = np.random.default_rng(3)
    n, split = 60, np.repeat(["train", "val", "test"], 20)
    rows = {s: np.flatnonzero(split == s) for s in ("train", "val", "test")}
    sections, truth = TRAINING[rng.integers(0, 5, n)], rng.random((n, len(NAMES))) < 0.3
    image, scores = rng.normal(size=(n, 4)), rng.normal(size=(n, len(NAMES)))
    made = report_rivals.rivals(sections, image, scores, truth, rows, PARTS)
    blind = truth.copy()
    blind[rows["test"]] = ~blind[rows["test"]]
    again = report_rivals.rivals(sections, image, scores, blind, rows, PARTS)
    assert all((again[k] == made[k]).all() for k in made)
    stated = generation.stated(generation.join_sections(made["everything"], PARTS))
    assert stated[:, NAMES.index("splenomegaly")].all()


def test_template_words_come_from_the_reader_with_most_reports():
    rows = {"train": np.arange(5), "val": np.array([0]), "test": np.array([1])}
    truth, scores = np.ones((5, len(NAMES)), bool), np.ones((5, len(NAMES)))
    readers = np.array(["other", "other", "terse", "terse", "terse"])
    made = report_rivals.rivals(TRAINING, np.eye(5), scores, truth, rows, PARTS, readers=readers)
    assert made["everything"][0, 0] == "Marked splenomegaly."


@pytest.mark.parametrize("plan", ["scores", "probe"])
def test_the_writers_plan_is_the_report_in_training_and_the_image_afterwards(plan):
    pytest.importorskip("torch")
    from types import SimpleNamespace

    from merlin.jobs import report_generation

    rng = np.random.default_rng(5)
    rows = {s: np.arange(60) + 60 * i for i, s in enumerate(("train", "val", "test"))}
    truth = rng.random((180, len(NAMES))) < 0.4
    scores = truth + rng.normal(0, 0.1, truth.shape)
    seen = SimpleNamespace(image=scores, logits=np.zeros((180, 1)), scores=scores)
    found = report_generation.planned(plan, seen, truth, rows)
    np.testing.assert_array_equal(found[:60], truth[:60])
    assert (found[120:] == truth[120:]).mean() > 0.9
    blind = truth.copy()
    blind[120:] = False
    np.testing.assert_array_equal(report_generation.planned(plan, seen, blind, rows), found)
    assert report_generation.planned("none", seen, truth, rows) is None
    with pytest.raises(ValueError, match="plan needs adapter: flat"):
        report_generation.with_plan(np.zeros((180, 2, 4)), found)


def test_a_probe_ranks_what_it_was_taught_and_never_calls_the_unseen():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(200, 5))
    truth = np.stack([features[:, 0] > 0, np.zeros(200, bool)], 1)
    found = regression.logistic(features[:100], truth[:100].astype(float), features, c=1.0)
    found = np.nan_to_num(found)  # nobody taught the second
    called = report_rivals.called_above(found[100:], found[:100], truth[:100])
    assert (called[:, 0] == truth[100:, 0]).mean() > 0.9
    assert not called[:, 1].any()


def test_cases_are_the_best_and_worst_of_reports_that_state_enough():
    text = "Splenomegaly. Ascites. Cardiomegaly."
    made = [text, "Normal.", "Splenomegaly.", text]
    table = generation.cases(made, [text, text, text, "Normal."], ["s1", "s2", "s3", "s4"], n=1)
    assert table["study_id"].tolist() == ["s1", "s2"]
    assert table["case"].tolist() == ["good", "bad"]


def test_radgraph_without_its_package_says_what_to_do():
    try:
        import radgraph  # noqa: F401
    except ImportError:
        with pytest.raises(RuntimeError, match="pip install radgraph"):
            text_scores.radgraph_f1(["a"], ["b"])


def test_bertscore_runs_offline_and_likes_equal_texts(monkeypatch):
    from merlin.model.text import load_model, minilm_folder

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    same, other = text_scores.bertscore(
        ["no ascites", "large spleen"], ["no ascites", "fracture of the spine"],
        *load_model(minilm_folder()),
    )  # fmt: skip
    assert same == pytest.approx(1, abs=1e-4)
    assert other < 0.95


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_blank_references_are_no_reports_and_nothing_stated_has_no_macro(blank):
    texts = np.array([["Ascites."], ["Normal."], ["Ascites."]], object)
    reference = np.array([["Normal study."], ["Unremarkable."], [blank]], object)
    table, _ = generation.evaluate(
        texts, reference, np.array(["p1", "p2", "p3"]), ["abdomen"],
        model="m", split="test", n_resamples=5, seed=0,
    )  # fmt: skip
    rows = table.set_index(["label", "metric"])
    assert set(rows[rows["status"] == "ok"]["n_studies"]) == {2}
    for label in ("clinical_f1", "clinical_f1_macro"):
        assert rows.loc[("full report", label), "status"] == "not evaluated"
        assert "no finding is stated" in rows.loc[("full report", label), "reason"]
    assert not (rows["status"].eq("ok") & rows["value"].isna()).any()


def written(seeds=(0,), wrong=()):
    """Reports of three studies by every writer; the writer of a seed in `wrong` states nothing."""
    rows = [
        dict(model=m, study_id=f"s{i}", patient_id=f"p{i}", seed=seed,
             spleen="Normal." if m == "writer" and seed in wrong else "Splenomegaly.",
             bertscore=[0.2, np.nan, 0.6][i], radgraph_f1=np.nan, radgraph_reason="no package")
        | {"peritoneal cavity": "Ascites."}
        for seed in seeds
        for m in ("reference", *generation.WRITERS)
        for i in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_scores_of_a_language_model_are_means_over_the_studies_that_have_them():
    table, paired = generation.by_writer(written(), PARTS, n_resamples=9, seed=1)
    found = table[table["model"] == "writer"].set_index(["label", "metric"])
    bert, graph = (found.loc[("full report", m)] for m in ("bertscore", "radgraph_f1"))
    assert (bert["value"], bert["n_studies"]) == (pytest.approx(0.4), 2)
    assert (graph["status"], graph["reason"]) == ("not evaluated", "no package")
    assert found.loc[("full report", "clinical_f1"), "value"] == 1
    assert (paired["value"] == 0).all()
    assert set(paired["writer minus"]) == set(generation.WRITERS) - {"writer"}
    said = generation.reading(table, paired)
    assert "writer 1.000" in said
    assert "does not beat the template of thresholded zero-shot scores" in said


def test_seeds_of_the_writer_are_averaged_and_in_the_interval():
    table, paired = generation.by_writer(
        written((0, 1, 2), wrong=(2,)), PARTS, n_resamples=9, seed=1
    )
    row = table.query(
        "model == 'writer' and label == 'full report' and metric == 'clinical_f1'"
    ).iloc[0]
    assert (row["n_seeds"], row["by_seed"]) == (3, "1 1 0.666667")
    assert row["low"] < row["value"] < row["high"]
    keys = paired.set_index(["writer minus", "label", "metric"])
    gap = keys.loc[("normal", "full report", "clinical_f1")]
    assert gap["value"] == pytest.approx(-1 / 9)
    assert gap["low"] < 0 < gap["high"]
    one = keys.loc[("template", "finding: splenomegaly", "clinical_f1")]
    assert one["value"] == pytest.approx(-1 / 3)
