"""Report metrics: the reference libraries' numbers, baselines, cases by rule."""

import math
from collections import Counter

import numpy as np
import pytest

from merlin.evaluation import generation
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
        texts, reference, np.array(list("abcd")), SECTIONS, NAMES, model="m", split="test",
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
    assert generation.most_frequent(library).tolist() == ["A.", "B."]
    near = generation.nearest_report(np.eye(2), np.array([[0, 1.0], [0.8, 0.6], [1, 0]]))
    assert near.tolist() == [2, 0]


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
        texts, reference, np.array(["p1", "p2", "p3"]), ["abdomen"], NAMES,
        model="m", split="test", n_resamples=5, seed=0,
    )  # fmt: skip
    rows = table.set_index(["label", "metric"])
    assert set(rows[rows["status"] == "ok"]["n_studies"]) == {2}
    for label in ("clinical_f1", "clinical_f1_macro"):
        assert rows.loc[("full report", label), "status"] == "not evaluated"
        assert "no finding is stated" in rows.loc[("full report", label), "reason"]
    assert not (rows["status"].eq("ok") & rows["value"].isna()).any()


def test_scores_of_a_language_model_are_means_over_the_studies_that_have_them():
    import pandas as pd

    sections = ("spleen", "peritoneal cavity")
    rows = [
        dict(model=m, study_id=f"s{i}", patient_id=f"p{i}", spleen="Splenomegaly.",
             bertscore=[0.2, np.nan, 0.6][i], radgraph_f1=np.nan, radgraph_reason="no package")
        | {"peritoneal cavity": "Ascites."}
        for m in ("reference", *generation.WRITERS)
        for i in range(3)
    ]  # fmt: skip
    table, paired = generation.by_writer(pd.DataFrame(rows), sections, n_resamples=9, seed=1)
    found = table[table["model"] == "writer"].set_index(["label", "metric"])
    bert, graph = (found.loc[("full report", m)] for m in ("bertscore", "radgraph_f1"))
    assert (bert["value"], bert["n_studies"]) == (pytest.approx(0.4), 2)
    assert (graph["status"], graph["reason"]) == ("not evaluated", "no package")
    assert found.loc[("full report", "clinical_f1"), "value"] == 1
    assert (paired["value"] == 0).all()
    assert "written 1.000" in generation.reading(table, paired)
