"""Report text → sections and labels, on sentences typed out by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merlin.data import extract
from merlin.data.extract import (
    cues,
    label_report,
    label_table,
    report_sentences,
    section_table,
    split_sections,
)
from merlin.data.impression import split_impression
from merlin.vocabulary import FINDINGS_OF, NAMES, SECTIONS

REAL_TEXT = Path(__file__).parents[2].parent / "shared" / "real_text"
YES, NO, OPEN = 1.0, 0.0, None
# Text → what it says of the findings named; it must say nothing of any other.
SENTENCES = [
    ("No ascites or pleural effusion.", {"ascites": NO, "pleural_effusion": NO}),
    ("Ascites without free air.", {"ascites": YES, "free_air": NO}),
    ("No hydronephrosis.", {"hydronephrosis": NO}),
    ("Compression fractures cannot be excluded.", {"fracture": OPEN}),
    ("Rule out appendicitis.", {"appendicitis": OPEN}),
    ("Consolidation versus atelectasis.", {"atelectasis": OPEN}),
    ("Possible early appendicitis.", {"appendicitis": YES}),
    ("Status post cholecystectomy.", {"surgically_absent_gallbladder": YES}),
    ("The gallbladder has been removed.", {"surgically_absent_gallbladder": YES}),
    ("Mild bibasilar atelectasis, no effusion.", {"atelectasis": YES, "pleural_effusion": NO}),
    ("Free fluid is not seen.", {"ascites": NO}),
    ("Ascites is absent.", {"ascites": NO}),
    ("Absence of free air.", {"free_air": NO}),
    ("Negative for appendicitis.", {"appendicitis": NO}),
    ("Appendicitis is unlikely.", {"appendicitis": NO}),
    ("Heart size is enlarged.", {"cardiomegaly": YES}),
    ("Heart size is normal.", {"cardiomegaly": NO}),
    ("Normal appendix.", {"appendicitis": NO}),
    ("Normal gas-filled appendix.", {"appendicitis": NO}),
    (
        "No evidence of appendicitis. Free air is present.",
        {"appendicitis": NO, "free_air": YES},
    ),
    ("No ascites.Mild splenomegaly.", {"ascites": NO, "splenomegaly": YES}),
    ("NO ASCITES. SPLENOMEGALY.", {"ascites": NO, "splenomegaly": YES}),
    ("No hydronephrosis. Left renal cyst, 3.2 cm.", {"hydronephrosis": NO, "renal_cyst": YES}),
    (
        "No hydronephrosis, but a 3.2 cm left renal cyst.",
        {"hydronephrosis": NO, "renal_cyst": YES},
    ),
    (
        "No bowel obstruction or free intraperitoneal air.",
        {"bowel_obstruction": NO, "free_air": NO},
    ),
    (
        "There is no ascites and there is mild splenomegaly.",
        {"ascites": NO, "splenomegaly": YES},
    ),
    (
        "No free air or ascites; bilateral pleural effusions.",
        {"free_air": NO, "ascites": NO, "pleural_effusion": YES},
    ),
    ("No pleural effusion on the right; small left pleural effusion.", {"pleural_effusion": YES}),
    ("Small left pleural effusion; no right pleural effusion.", {"pleural_effusion": YES}),
    ("No focal lesion with mild splenomegaly.", {"splenomegaly": YES}),
    ("Hepatosplenomegaly.", {"hepatomegaly": YES, "splenomegaly": YES}),
    ("Portal vein is patent. Thrombus in the vena cava.", {"thrombosis": YES}),
    ("Mural thrombus in the aneurysm.", {}),
    ("No gallstones. The wall is thin.", {"gallstones": NO}),
    ("Cholelithiasis without cholecystitis.", {"gallstones": YES}),
    ("Vertebral body heights are maintained.", {"fracture": NO}),
    ("The spleen is normal.", {"splenomegaly": NO}),
    ("The prostate is not enlarged.", {"prostatomegaly": NO}),
    ("Findings are not consistent with bowel obstruction.", {"bowel_obstruction": NO}),
    ("Simple cyst in the upper pole of the right kidney.", {"renal_cyst": YES}),
    ("The weather is fine.", {}),
    ("", {}),
    # A comma between a denied and a stated finding: the negation reaches too far.
    (
        "No pleural effusion, mild bibasilar atelectasis.",
        {"pleural_effusion": NO, "atelectasis": YES},
    ),
    # The negation stands inside the words that the cue spans.
    ("The common bile duct is not dilated.", {"biliary_ductal_dilation": NO}),
    ("Nondilated bile ducts.", {"biliary_ductal_dilation": NO}),
    ("The abdominal aorta shows no aneurysm.", {"abdominal_aortic_aneurysm": NO}),
    ("Aorta without aneurysm.", {"abdominal_aortic_aneurysm": NO}),
    ("The kidneys show no cysts.", {"renal_cyst": NO}),
    # A negation that is not known, or is not one.
    ("The pleural effusion has resolved.", {"pleural_effusion": NO}),
    ("The pleural effusion is no longer seen.", {"pleural_effusion": NO}),
    ("Interval resolution of ascites.", {"ascites": NO}),
    ("Neither ascites nor free air.", {"ascites": NO, "free_air": NO}),
    ("No change in the abdominal aortic aneurysm.", {"abdominal_aortic_aneurysm": YES}),
    # The cue means something else.
    ("Small pericardial effusion.", {}),
    ("No pericardial effusion.", {}),
    ("Abnormal appendix, consistent with appendicitis.", {"appendicitis": YES}),
    # "Patent" of one vessel outweighs a thrombus in another.
    ("Portal vein thrombosis with patent hepatic veins.", {"thrombosis": YES}),
    # Not recognised as denials.
    ("The heart is not enlarged.", {"cardiomegaly": NO}),
    ("The spleen is not enlarged.", {"splenomegaly": NO}),
    ("The liver is not enlarged.", {"hepatomegaly": NO}),
    ("Nodes are not enlarged.", {"lymphadenopathy": NO}),
    ("Normal spleen.", {"splenomegaly": NO}),
]


with (Path(__file__).parent / "statements.csv").open(newline="") as stream:
    STATEMENTS = list(csv.DictReader(stream))
NORMAL_TEMPLATES = [
    "LOWER THORAX: Pleural effusion: None. Atelectasis: None. Heart size: Normal.\n"
    "LIVER: Steatosis: Absent. Metastases: None seen. Hepatomegaly: No.\n"
    "BILIARY: Ductal dilation: (-). GALLBLADDER: Stones: None.\n"
    "KIDNEYS: Hydronephrosis: None. Cysts - none. BOWEL: Obstruction: No. Appendicitis: Negative.\n"
    "VESSELS: Aneurysm: No. Thrombosis: None. BONES: Fracture: None. NODES: Lymphadenopathy: Negative.",
    "Ascites\tNone\nPleural effusion\tabsent\nHydronephrosis\t-\nGallstones\tnil\nSteatosis\t0",
    "[ ] Ascites\n[ ] Pleural effusion\n[ ] Small bowel obstruction\n[ ] Free air",
    "Ascites? No. Free air? None. Splenomegaly (-). Fracture = no. Cardiomegaly: not seen.",
    "- ascites: none\n- hiatal hernia: not identified\n- appendicitis: No evidence\n- gallstones: n",
    "No pleural effusion, pneumothorax or atelectasis. Heart contour and size are normal. "
    "Calcific plaques were not observed in the aorta and coronary arteries. No lymph node in "
    "pathological size was detected. Hiatal hernia, ascites and free air were not seen.",
]


def stated(text, **options):
    return {n: v for n, v in label_report(text, **options).items() if not np.isnan(v)}


@pytest.mark.parametrize(("text", "says"), SENTENCES)
def test_sentence_is_labelled_as_a_reader_would(text, says):
    assert stated(text) == {n: v for n, v in says.items() if v is not OPEN}


def test_committed_statements_are_read():
    """All but three or better; each wrong one is named."""
    wrong = []
    for row in STATEMENTS:
        said = label_report(row["text"])[row["finding"]]
        right = float(row["stated"]) if row["stated"] else np.nan
        if not (said == right or (np.isnan(said) and np.isnan(right))):
            wrong.append((row["text"], row["finding"], said))
    assert len(wrong) <= 3, wrong


def test_chest_reports_are_labelled_as_their_readers_did():
    """F1 of each finding of 83 whole reports in the manner of a Turkish hospital's, translated."""
    folder = Path(__file__).parent
    reports = [json.loads(x) for x in (folder / "chest_reports.jsonl").read_text().splitlines()]
    names = {
        **{n: n for n in ("hiatal_hernia", "atelectasis", "pleural_effusion", "cardiomegaly")},
        "lymphadenopathy": "lymphadenopathy",
        "arterial_wall_calcification": "atherosclerosis",
        "coronary_artery_wall_calcification": "coronary_calcification",
    }
    said = [label_report(r["report"]) for r in reports]
    for theirs, ours in names.items():
        truth = np.array([r["labels"][theirs] == 1 for r in reports])
        found = np.array([s[ours] == 1 for s in said])
        assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) >= 0.97, theirs


@pytest.mark.parametrize("text", NORMAL_TEMPLATES)
def test_normal_template_states_no_finding(text):
    labels = stated(text)
    assert len(labels) >= 4
    assert set(labels.values()) == {NO}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        # Denials before words of evidence.
        ("No imaging features suggesting appendicitis.", {"appendicitis": NO}),
        ("Nothing compatible with bowel obstruction.", {"bowel_obstruction": NO}),
        ("No lesion suspicious for metastasis, no thrombus.", {"metastatic_disease": NO, "thrombosis": NO}),
        # Lists denied from behind.
        ("Pericardial, pleural effusion was not detected.", {"pleural_effusion": NO}),
        ("Ascites, free air and splenomegaly were not observed.",
         {"ascites": NO, "free_air": NO, "splenomegaly": NO}),
        ("Effusion was not observed, heart size is increased.",
         {"pleural_effusion": NO, "cardiomegaly": YES}),
        # Resolved, and not quite.
        ("The ascites seen on the prior examination has since resolved.", {"ascites": NO}),
        ("Near complete resolution of ascites.", {"ascites": YES}),
        ("Decreased left pleural effusion.", {"pleural_effusion": YES}),
        # Left open.
        ("Metastasis cannot be ruled out.", {"metastatic_disease": OPEN}),
        ("Small bowel obstruction?", {"bowel_obstruction": OPEN}),
        ("Ascites: not evaluated.", {"ascites": OPEN}),
        # History, others, and operations, which are findings.
        ("Family history of abdominal aortic aneurysm.", {}),
        ("History of hydronephrosis.", {}),
        ("Mother with gallstones.", {}),
        ("Status post cholecystectomy.", {"surgically_absent_gallbladder": YES}),
        # Another organ's.
        ("Right hip joint effusion.", {}),
        ("Splenic artery aneurysm and an inguinal hernia.", {}),
        ("Simple cyst in segment 6 of the liver.", {}),
        ("The trachea is patent.", {}),
        ("The uterus is surgically absent.", {}),
        # One sentence, both calcifications; a valve is neither.
        ("Calcific plaques in the aortic arch and coronary arteries.",
         {"atherosclerosis": YES, "coronary_calcification": YES}),
        ("Calcified plaques in the LAD.", {"coronary_calcification": YES}),
        ("Calcification of the aortic valve.", {"aortic_valve_calcification": YES}),
        # Nodes by their short axis: 10 mm and more.
        ("A subcarinal lymph node of 18 x 12 mm.", {"lymphadenopathy": YES}),
        ("A subcarinal lymph node of 18 x 7 mm.", {}),
        ("Lymph nodes with short diameters less than 1 cm.", {"lymphadenopathy": NO}),
    ],
)  # fmt: skip
def test_kind_of_statement_is_labelled(text, says):
    assert stated(text) == {n: v for n, v in says.items() if v is not OPEN}


def test_what_was_known_before_the_scan_is_no_statement():
    known = (
        "INDICATION: Known ascites. COMPARISON: CT with pleural effusion.\nTECHNIQUE: Helical.\n"
    )
    assert stated(known + "FINDINGS: Splenomegaly.") == {"splenomegaly": YES}
    assert stated("Clinical history: appendicitis.\n\nNo free air.") == {"free_air": NO}
    assert stated("Indication: rule out fracture. Ascites.") == {"ascites": YES}
    below = "TECHNIQUE: Axial images. There is no hydronephrosis."
    assert stated(below) == {"hydronephrosis": NO}  # dictated below it, no heading follows


def test_organs_called_normal_in_one_sentence_deny_their_findings():
    labels = stated("The liver, gallbladder, and left kidney are unremarkable.")
    assert labels["gallstones"] == labels["hepatic_steatosis"] == NO
    assert "renal_cyst" not in labels
    assert stated("Heart: Normal. Lymph nodes: Normal.") == {
        "cardiomegaly": NO,
        "lymphadenopathy": NO,
    }
    assert stated("The liver is normal. Hepatic steatosis.")["hepatic_steatosis"] == YES


def test_impression_in_capitals_needs_no_colon():
    assert split_impression("Spleen normal.\nIMPRESSION\nAscites.") == (
        "Spleen normal.",
        "Ascites.",
    )
    assert split_impression("Impression on the stomach.") == ("Impression on the stomach.", "")


def test_note_on_mined_labels_says_how_often_they_err():
    note = extract.mined_label_note()
    assert note.startswith("labels mined from text: precision 0.98, recall 0.93 on 165 statements")


def test_normal_gallbladder_section_denies_stones_and_removal():
    assert stated("Gallbladder: Normal.") == {
        "gallstones": NO,
        "surgically_absent_gallbladder": NO,
    }


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("word", ["Normal.", "unremarkable", "Within normal limits."])
def test_normal_section_denies_its_findings_and_no_others(section, word):
    assert stated(f"{section.upper()}: {word}", sex="M") == dict.fromkeys(FINDINGS_OF[section], NO)


def test_normal_pelvis_speaks_of_a_prostate_only_in_men():
    assert stated("Pelvis: Normal.", sex="M") == {"prostatomegaly": NO}
    assert stated("Pelvis: Normal.", sex="F") == {}
    assert stated("Pelvis: Normal.") == {}


def test_presence_outweighs_absence_elsewhere_in_the_report():
    text = "Lower thorax: Normal. Musculoskeletal: Bones. Large left pleural effusion."
    assert stated(text)["pleural_effusion"] == YES


def test_impression_is_cut_off():
    text = "Spleen: Normal. IMPRESSION: Splenomegaly."
    assert split_impression(text) == ("Spleen: Normal.", "Splenomegaly.")
    assert stated(text) == {"splenomegaly": NO}
    assert split_sections(text) == {"spleen": "Normal."}
    assert split_impression("Spleen: Normal.") == ("Spleen: Normal.", "")


def test_sections_know_synonyms_capitals_and_glued_headings():
    text = "LUNG BASES: Clear.ADRENALS: Thin.\nGU: No stones. Bowel/Mesentery: Fine. MSK: Old."
    assert split_sections(text) == {
        "lower thorax": "Clear.",
        "adrenal glands": "Thin.",
        "kidneys and ureters": "No stones.",
        "gastrointestinal tract": "Fine.",
        "musculoskeletal": "Old.",
    }


def test_two_headings_of_one_section_are_joined_in_order():
    assert split_sections("Bladder: Thin. Spleen: Small. Prostate and seminal vesicles: Fine.") == {
        "spleen": "Small.",
        "pelvic organs": "Thin. Fine.",
    }


def test_sections_come_in_the_papers_order_whatever_the_texts():
    text = "Musculoskeletal: a. Spleen: b. Lower thorax: c."
    assert list(split_sections(text)) == ["lower thorax", "spleen", "musculoskeletal"]


def test_technical_text_after_a_section_is_left_out():
    assert split_sections("Spleen: Small. TECHNIQUE: Helical.") == {"spleen": "Small."}


def test_text_without_headings_has_no_sections():
    assert split_sections("The liver is fine; the spleen too.") == {}
    assert split_sections("") == {}


def test_a_decimal_point_does_not_end_a_sentence():
    assert split_sections("Spleen: 13.5 cm. Pancreas: x")["spleen"] == "13.5 cm."
    assert stated("No cyst of 3.5 cm or hydronephrosis.") == {"hydronephrosis": NO}


def test_tables_hold_one_row_a_text():
    texts = ["Spleen: Normal.", "", "Ascites."]
    labels = label_table(texts)
    assert labels.shape == (3, 30)
    for row, text in zip(labels, texts, strict=True):
        np.testing.assert_array_equal(row, [label_report(text)[n] for n in NAMES])
    sections = section_table(texts)
    assert sections.shape == (3, 12)
    assert sections[0, SECTIONS.index("spleen")] == "Normal."
    assert (sections[1:] == "").all()


def test_sexes_must_match_texts():
    with pytest.raises(ValueError, match="shorter"):
        label_table(["a", "b"], ["F"])


def test_every_finding_has_cues():
    assert set(cues()) == set(NAMES)
    assert all(rule.present.pattern != r"(?!)" for rule in cues().values())


@given(st.text(alphabet="abc .,;:\nNoascites1IMPRESSION", max_size=80))
def test_any_text_gives_labels_of_the_three_states(text):
    labels = label_report(text)
    assert list(labels) == list(NAMES)
    assert all(v in (0.0, 1.0) or np.isnan(v) for v in labels.values())


@given(st.permutations(["Ascites.", "No free air.", "Splenomegaly.", "No hydronephrosis."]))
def test_order_of_sentences_changes_nothing(sentences):
    assert stated(" ".join(sentences)) == {
        "ascites": YES,
        "free_air": NO,
        "splenomegaly": YES,
        "hydronephrosis": NO,
    }


needs_real_text = pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="needs shared/real_text")


@needs_real_text
def test_merlins_demo_findings_give_twelve_sections():
    text = (REAL_TEXT / "merlin_demo_findings.txt").read_text()
    sections = split_sections(text)
    assert tuple(sections) == SECTIONS
    labels = stated(text)
    assert labels["hydronephrosis"] == labels["ascites"] == labels["appendicitis"] == NO
    assert labels["splenomegaly"] == labels["gallstones"] == labels["thrombosis"] == NO
    assert YES not in labels.values()


@needs_real_text
def test_transcribed_reports_are_read():
    """None stops the labeller; each abdominal one states something."""
    for path in sorted((REAL_TEXT / "mtsamples_ct").glob("*.txt")):
        text = path.read_text(encoding="utf-8", errors="replace")
        assert set(label_report(text)) == set(NAMES)
        assert set(split_sections(text)) <= set(SECTIONS)
        if path.stem != "ct_chest":
            assert stated(text), path.name


@needs_real_text
def test_radgpt_reports_are_read():
    path = REAL_TEXT / "radgpt_free_text_reports.csv"
    with path.open(encoding="cp1252", newline="") as stream:
        texts = [row["Report Text"] for row in csv.DictReader(stream) if row["Report Text"]]
    assert len(texts) == 4
    labels = label_table(texts)
    assert (~np.isnan(labels)).any(1).all()
    assert all(split_impression(t)[1] for t in texts)


def test_report_sentences_leave_headings_and_numbers_out():
    text = "Liver: Two cysts, the larger 2.3 cm. Normal.  Spleen: Normal. Impression: 1. Cysts."
    assert report_sentences(text) == ("Two cysts, the larger 2.3 cm.", "Normal.")
    assert report_sentences("1. Mild ascites. 2. Renal cyst.") == ("Mild ascites.", "Renal cyst.")
    assert report_sentences("Liver normal. Two cysts.") == ("Liver normal.", "Two cysts.")
    assert report_sentences("") == report_sentences("  ") == ()
    numbered = "Liver: 1. Two cysts. 2. Steatosis. Spleen: Normal."
    assert report_sentences(numbered) == ("Two cysts.", "Steatosis.", "Normal.")
    assert report_sentences("1) ascites\n2) renal cyst") == ("ascites", "renal cyst")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Cyst of 3.2 cm. No stone.", ["Cyst of 3.2 cm.", "No stone."]),
        ("Cyst of approx. 3 cm, see Fig. 2 too. Fine.", ["Cyst of approx. 3 cm, see Fig. 2 too.", "Fine."]),
        ("Image No. 3 shows a cyst. Effusion: No. Ascites.",
         ["Image No. 3 shows a cyst.", "Effusion: No.", "Ascites."]),
        ("Cyst vs. abscess, e.g. after surgery. Fine.", ["Cyst vs. abscess, e.g. after surgery.", "Fine."]),
        ("Fracture of T12. Gallstones x 3. Mild ascites.",
         ["Fracture of T12.", "Gallstones x 3.", "Mild ascites."]),
        ("Effusion, left; no ascites; liver 16.5 cm", ["Effusion, left", "no ascites", "liver 16.5 cm"]),
        ("A renal cyst of\n3 cm on\nthe left.\nSpleen normal", ["A renal cyst of 3 cm on the left.", "Spleen normal"]),
        ("mild ascites.\nleft effusion", ["mild ascites.", "left effusion"]),
        ("Mild ascites\nLeft effusion", ["Mild ascites", "Left effusion"]),
    ],
)  # fmt: skip
def test_sentences_end_at_no_number_abbreviation_or_wrapped_line(text, sentences):
    assert list(report_sentences(text)) == sentences


def test_section_is_abnormal_if_its_text_states_a_finding():
    table = extract.section_table(
        [
            "Spleen: Enlarged spleen, 16 cm. Gallbladder: Normal.",
            "Spleen: Normal. Gallbladder: Multiple gallstones.",
        ]
    )
    found = extract.abnormal_sections(table)
    spleen, gallbladder = (SECTIONS.index(s) for s in ("spleen", "gallbladder"))
    np.testing.assert_array_equal(found[:, [spleen, gallbladder]], [[1, 0], [0, 1]])
    assert np.isnan(found[:, SECTIONS.index("pancreas")]).all()


def test_a_text_without_an_end_is_read_in_parts():
    """A sentence of a megabyte takes seconds: each part is looked at by itself."""
    labels = label_report("no effusion, " * 80_000 + "there is a hiatal hernia")
    assert labels["pleural_effusion"] == NO
    assert labels["hiatal_hernia"] == YES
