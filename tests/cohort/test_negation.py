"""What a sentence says of a phrase: typed sentences of clinical notes, kind by kind."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from merlin.data.negation import Statement, assertion, statement, with_words

with (Path(__file__).parent / "negations.csv").open(newline="") as stream:
    ROWS = list(csv.DictReader(stream))

# kind → (sentence, phrase, what it says)
KINDS = {
    "denial ahead": [
        ("He denies any chest pain.", "chest pain", "absent"),
        ("No fever, chills, or left arm pain.", "left arm pain", "absent"),
        ("Without clubbing or edema.", "edema", "absent"),
        ("No fever, chills or cough, but has pain.", "cough", "absent"),
        ("The CT fails to show any mass.", "mass", "absent"),
        ("Negative for infection.", "infection", "absent"),
        ("The abdomen is free of masses.", "masses", "absent"),
    ],
    "denial behind": [
        ("Effusion was not seen.", "effusion", "absent"),
        ("Effusion, nodule or mass was not detected.", "effusion", "absent"),
        ("Effusion and nodule were not observed.", "effusion", "absent"),
        ("Pneumonia is unlikely.", "pneumonia", "absent"),
        ("Murmurs: none.", "murmurs", "absent"),
        ("The patient is pain free.", "pain", "absent"),
    ],
    "denial before words of evidence": [
        ("No signs consistent with appendicitis.", "appendicitis", "absent"),
        ("Nothing to suggest meningitis.", "meningitis", "absent"),
        (
            "No defects are seen in the main or lobar branches to suggest emboli.",
            "emboli",
            "absent",
        ),
        ("No lesion suspicious for metastasis or cyst.", "cyst", "absent"),
        ("No free air, consistent with a healed leak.", "leak", "present"),
    ],
    "something else begins": [
        ("No fever but a cough.", "cough", "present"),
        ("No fever, and he has a cough.", "cough", "present"),
        ("No mass with mild edema.", "edema", "present"),
        ("No abscess is seen, and there is wall thickening.", "wall thickening", "present"),
        ("No effusion, mild atelectasis.", "atelectasis", "present"),
        ("Effusion was not observed, heart size is increased.", "heart size", "present"),
        ("Atelectasis is present, effusion was not observed.", "atelectasis", "present"),
        ("He had no nausea, and the pain was controlled.", "pain", "present"),
        ("NO REJECTION (GRADE 0), FOCAL EFFUSION.", "effusion", "present"),
        ("ILEITIS WITH ABSCESSES, GRANULOMAS ARE NOT SEEN.", "ileitis", "present"),
    ],
    "no denial": [
        ("No change in the nodule.", "nodule", "present"),
        ("No increase in size of the aneurysm.", "aneurysm", "present"),
        ("The pain is not relieved by rest.", "pain", "present"),
        ("He had no further episodes of syncope.", "syncope", "present"),
        ("A non-ST elevation infarction.", "non-ST elevation infarction", "present"),
        ("Not only ascites but also effusions.", "ascites", "present"),
        ("Gram negative bacteremia.", "bacteremia", "present"),
        ("He was not operated on because of pneumonia.", "pneumonia", "present"),
    ],
    "resolved": [
        ("The effusion has cleared.", "effusion", "absent"),
        ("Interval resolution of the ascites.", "ascites", "absent"),
        ("The effusion seen on the prior scan is no longer present.", "effusion", "absent"),
        ("The effusion has nearly resolved.", "effusion", "present"),
        ("Resolving pneumonia.", "pneumonia", "present"),
    ],
    "left open": [
        ("Rule out appendicitis.", "appendicitis", "uncertain"),
        ("A fracture cannot be excluded.", "fracture", "uncertain"),
        ("Atelectasis versus infiltrate.", "infiltrate", "uncertain"),
        ("Suspicious for malignancy.", "malignancy", "uncertain"),
        ("Possible pneumonia.", "pneumonia", "present"),
    ],
    "history and others": [
        ("History of asthma.", "asthma", "history"),
        ("No history of asthma.", "asthma", "absent"),
        ("Her mother had lung cancer.", "lung cancer", "other"),
        ("No family history of lung cancer.", "lung cancer", "absent"),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_kind_of_statement_is_read(kind):
    for sentence, phrase, stated in KINDS[kind]:
        assert assertion(sentence, phrase) == stated, sentence


def test_committed_sentences_are_read_with_precision_and_recall_of_97_in_100():
    counts = Counter()
    for row in ROWS:
        said = assertion(row["sentence"], row["phrase"]) == "absent"
        counts[row["stated"] == "absent", said] += 1
    assert counts[True, True] > 400
    assert counts[True, True] / (counts[True, True] + counts[True, False]) >= 0.97
    assert counts[True, True] / (counts[True, True] + counts[False, True]) >= 0.97


def test_negation_is_told_apart_from_history_and_hedges():
    rows = [row for row in ROWS if row["stated"] != "not absent"]  # those are told no further
    right = sum(assertion(row["sentence"], row["phrase"]) == row["stated"] for row in rows)
    assert right / len(rows) >= 0.97


def test_phrase_is_found_by_its_words():
    assert assertion("NO  CHEST-PAIN.", "chest pain") == "absent"
    assert assertion("No pain at rest; pain on walking.", "pain") == "present"
    assert assertion("No acute distress.", "no acute distress") == "absent"
    for phrase in ("edema", "", " "):
        with pytest.raises(ValueError, match="is not in the sentence"):
            assertion("No fever.", phrase)


def test_statement_keeps_denial_and_history_apart():
    sentence = "No history of stroke."
    start = sentence.index("stroke")
    assert statement(sentence, start, start + 6) == Statement("absent")
    sentence = "History of stroke, denies headache."
    assert statement(sentence, 11, 17) == Statement("present", is_history=True)
    assert statement(sentence, 26, 34).polarity == "absent"


def test_words_of_patterns_are_filled_also_within_words():
    assert with_words("<a>+(?P<name>c)", {"a": "(?:<b>)", "b": "x"}) == "(?:x)+(?P<name>c)"


@pytest.mark.parametrize("text", ["no " * 3000, "history of " * 2000 + "x pain", "pain , " * 3000])
def test_long_sentences_end(text):
    assert assertion(text + " pain", "pain") in ("present", "absent", "history", "uncertain")
