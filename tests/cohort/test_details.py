"""Side, degree, count and size of findings, read from sentences typed out and from phantom reports."""

import numpy as np
import pandas as pd
import pytest

from merlin.data.details import details_of
from merlin.data.extract import split_sections
from merlin.evaluation import extraction
from merlin.phantom import reports, synthesis
from merlin.phantom.readers import READERS, reader
from merlin.vocabulary import FINDINGS_OF

SENTENCES = [
    (
        "Moderate left hydronephrosis. Right renal cyst, 3.2 cm.",
        {
            "hydronephrosis": {"side": "left", "degree": "moderate"},
            "renal_cyst": {"side": "right", "size_mm": 32.0},
        },
    ),
    (
        "Mild cardiomegaly, small left pleural effusion.",
        {"cardiomegaly": {"degree": "mild"}, "pleural_effusion": {"side": "left", "degree": "mild"}},
    ),
    ("No hydronephrosis. No left renal cyst.", {}),
    ("Bilateral pleural effusions, large.", {"pleural_effusion": {"side": "bilateral", "degree": "severe"}}),
    ("KID/UR: lg R renal cyst 41 mm.", {"renal_cyst": {"side": "right", "degree": "severe", "size_mm": 41.0}}),
    ("L2 compression fracture with 40 percent height loss.", {"fracture": {"percent": 40.0}}),
    ("Dilated loops of small bowel to 4.1 cm, small bowel obstruction.", {"bowel_obstruction": {"size_mm": 41.0}}),
    ("Eight hepatic metastases, the largest 2.0 cm.", {"metastatic_disease": {"count": 8.0, "size_mm": 20.0}}),
    ("Gallstones x 3, to 12 mm.", {"gallstones": {"count": 3.0, "size_mm": 12.0}}),
    ("1. Severe right hydronephrosis. 2. Mild ascites.", {
        "hydronephrosis": {"side": "right", "degree": "severe"}, "ascites": {"degree": "mild"}}),
    ("", {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), SENTENCES)
def test_details_stand_where_the_sentence_puts_them(text, said):
    assert details_of(text) == said


@pytest.mark.parametrize("name", READERS)
def test_details_of_every_reader_are_those_of_the_finding(drawn, name):
    n, wrong = 0, []
    for d in drawn["internal"][:60]:
        told = reports.write_report(
            d.study.found, sex=d.patient.sex, reader=reader(name), remarks=d.study.remarks,
            rng=synthesis.stream(7, d.study.study_id, name), wrong=0.1,
        )  # fmt: skip
        read = details_of(told.findings)
        for finding, found in told.stated.items():
            true = found.details | {"degree": reports.degree_of(found)}
            if "side" in true:
                n, is_right = n + 1, read.get(finding, {}).get("side") == true["side"]
                wrong += [] if is_right else [(finding, "side", told.findings)]
            for key, value in read.get(finding, {}).items():
                n += 1
                near = true.get(key) == value if isinstance(value, str) else (
                    key in true and abs(true[key] - value) <= 0.51)  # fmt: skip
                wrong += [] if near else [(finding, key, value, true.get(key))]
    assert n > 200
    assert len(wrong) <= 0.01 * n, wrong[:5]


@pytest.mark.parametrize("name", [n for n in READERS if not reader(n).has_headings])
def test_prose_without_headings_is_split_by_what_it_speaks_of(drawn, name):
    n_sections = []
    for d in drawn["internal"][:60]:
        told = reports.write_report(
            d.study.found, sex=d.patient.sex, reader=reader(name), remarks=d.study.remarks,
            rng=synthesis.stream(7, d.study.study_id, name),
        )  # fmt: skip
        sections = split_sections(told.findings)
        n_sections.append(len(sections))
        for section, text in sections.items():
            assert set(details_of(text)) <= set(FINDINGS_OF[section]), (section, text)
        assert sorted(" ".join(sections.values()).split()) == sorted(told.findings.split())
    assert np.mean(n_sections) > 11.5


def test_seen_sentences_are_counted_by_occurrence_and_once():
    studies = pd.DataFrame(
        dict(
            site=["internal"] * 4 + ["b"],
            split=["train", "test", "test", "test", "test"],
            reader=["x", "x", "x", "y", "y"],
            findings=["Liver fine. Spleen fine.", "Liver fine. Two cysts.", "Liver fine. Spleen fine.",
                      "Bones fine.", "Liver fine. Odd."],
        )
    )  # fmt: skip
    found = extraction.seen_word_for_word(studies).set_index("studies")
    assert found.loc["test"].tolist() == [5, 0.6, 4, 0.5]
    assert found.loc["test, other readers", "seen"] == 0
    assert found.loc["b"].tolist() == [2, 0.5, 2, 0.5]


def test_at_most_half_of_test_sentences_stand_in_training_reports(drawn):
    rows = drawn["internal"]
    split = ["train" if i % 2 else "test" for i in range(len(rows))]
    studies = pd.DataFrame(
        dict(site="internal", split=split, reader=[d.reader for d in rows],
             findings=[d.report.findings for d in rows])
    )  # fmt: skip
    found = extraction.seen_word_for_word(studies).set_index("studies")
    assert found.loc["test", "seen"] < 0.5
    assert found.loc["test, other readers", "seen"] < 0.1
