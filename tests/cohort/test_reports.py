"""Dictated reports say what is there, by many voices, and can be read back; errors are known."""

import itertools
import re
from string import Formatter

import numpy as np
import pytest

from merlin.data import extract
from merlin.phantom import measure, reports, synthesis
from merlin.phantom.body import Body
from merlin.phantom.findings import FINDINGS, Found
from merlin.phantom.measure import LIMITS
from merlin.phantom.readers import READERS, reader
from merlin.vocabulary import FINDINGS_OF, NAMES, ONLY_SEX, SECTIONS

SITE = synthesis.SITES["internal"]
SIDED = ("renal_cyst", "atelectasis", "pleural_effusion", "hydronephrosis")
KNOWN = [n for n in READERS if reader(n).is_known]
DETAILS = {"side": "left", "count": 4.0, "size_mm": 35.0, "percent": 41.0}
PLACES = {
    "submucosal_edema": "ascending colon",
    "thrombosis": "main portal vein",
    "renal_cyst": "upper pole",
    "fracture": "L2",
}


def slots(template):
    return {field.lower() for _, field, _, _ in Formatter().parse(template) if field}


def dictate(d, name, *, seed=7, wrong=0.0):
    return reports.write_report(
        d.study.found,
        sex=d.patient.sex,
        reader=reader(name),
        rng=synthesis.stream(seed, d.study.study_id, "report"),
        remarks=d.study.remarks,
        wrong=wrong,
    )


def all_rows(drawn):
    return [d for rows in drawn.values() for d in rows]


def test_who_dictates_training_reports_dictates_nothing_of_the_sites():
    assert sorted(SITE.readers) == sorted(KNOWN)
    others = set(READERS) - set(KNOWN)
    assert set(SITE.test_readers) == others
    for name in ("site_b", "site_c", "spine"):
        assert set(synthesis.SITES[name].readers) <= others


def test_a_third_of_the_test_patients_and_no_training_patient_have_unknown_readers():
    def share(split):
        found = [synthesis.reader_of(7, f"P{i}-1", f"P{i}", SITE, split) for i in range(900)]
        return np.mean([not reader(n).is_known for n in found])

    assert share("train") == share("val") == 0
    assert share("test") == pytest.approx(1 / 3, abs=0.05)


def test_no_two_readers_share_a_sentence_about_a_finding():
    for name in NAMES:
        said = [
            {
                *reader(r).words[name].present,
                *reader(r).words[name].absent,
                reader(r).deny.format(it=(noun := reader(r).words[name].noun), It=noun),
            }
            for r in READERS
        ]
        for one, other in itertools.combinations(said, 2):
            assert not {t.lower() for t in one} & {t.lower() for t in other}, name


@pytest.mark.parametrize("name", NAMES)
def test_every_reader_can_say_every_finding_with_its_own_details(name):
    body = Body(sex="M", phase="portal venous")
    details = FINDINGS[name].apply(body, 0.6, np.random.default_rng(7))
    details |= dict.fromkeys({"size_mm"} if name in LIMITS else (), 1.0)  # measured later
    known = {"degree", "amount", "adverb"} | {"size" if k == "size_mm" else k for k in details}
    known |= {"size"} if name in measure.ORGANS else set()  # measured on the labels
    for r in READERS:
        words = reader(r).words[name]
        assert any(slots(t) <= known for t in words.present), r
        if name in SIDED:
            assert all("side" in slots(t) for t in (*words.present, words.short)), r


@pytest.mark.parametrize("name", READERS)
def test_extractor_reads_every_sentence_of_a_reader(name):
    """Under its heading, or without one; in every degree, hedged, denied, and denied in a list."""
    who, wrong = reader(name), []
    rng = np.random.default_rng(7)
    for section in SECTIONS:
        head = f"{who.headings[section]}: " if who.has_headings else ""
        for finding in FINDINGS_OF[section]:
            said, details = who.words[finding], DETAILS | {"place": PLACES.get(finding, "x")}
            words = [reports._words(Found(s, details), who, rng) for s in (0.1, 0.5, 0.9)]
            present = [t.format(**w) for t in (*said.present, said.short + ".") for w in words]
            present += [h + reports._small(said.short.format(**words[0])) for h in who.hedges]
            absent = [*said.absent]
            if said.noun:
                absent += [reports._denied(said.noun, who, rng) for _ in range(4)]
            for text, value in [(t, 1.0) for t in present] + [(t, 0.0) for t in absent]:
                read = extract.label_report(head + reports._capital(text), sex="M")
                stated = {n for n, v in read.items() if v == 1}
                if read[finding] != value or stated - {finding}:
                    wrong.append((finding, head + text, read[finding]))
    assert wrong == []


@pytest.mark.parametrize("name", READERS)
def test_extractor_reads_back_what_was_mentioned(drawn, name):
    rows = drawn["internal"][:150]
    told = [dictate(d, name, wrong=0.05) for d in rows]
    read = extract.label_table([t.findings for t in told], [d.patient.sex for d in rows])
    said = np.array([[float(t.mentioned.get(n, np.nan)) for n in NAMES] for t in told])
    agree = (read == said) | (np.isnan(read) & np.isnan(said))
    assert agree.mean() > 0.998


def test_no_report_has_an_unfilled_slot_or_a_doubled_stop(drawn):
    for d in all_rows(drawn):
        for text in (d.report.findings, d.report.impression):
            assert not re.search(r"[{}]|\.\.|\bnan\b|\bNone\b|: *(?:\n|$)", text), text


def test_a_report_without_errors_states_nothing_that_is_not_there(drawn):
    for d in drawn["internal"][:150]:
        told = dictate(d, d.reader)
        stated = {n for n, present in told.mentioned.items() if present}
        assert stated <= set(d.study.found)
        assert not (set(told.mentioned) - stated) & set(d.study.found)
        assert all(told.stated[n] == d.study.found[n] for n in stated)


def test_wrong_statements_come_at_their_rate_and_are_known(drawn):
    wrong = n_statements = 0
    for d in drawn["internal"]:
        told = dictate(d, d.reader, wrong=0.1)
        n_statements += len(told.mentioned)
        for name in told.mentioned:
            if told.mentioned[name] != (name in d.study.found):
                wrong += 1
            elif name in told.stated and told.stated[name] != d.study.found[name]:
                mine, true = told.stated[name].details, d.study.found[name].details
                assert {k for k in true if mine[k] != true[k]} == {"side"}
                wrong += 1
    # Sections that are called normal as a whole are not among those that may be wrong.
    assert 0.05 < wrong / n_statements < 0.11


def test_impressions_go_by_urgency_and_drop_nothing_urgent(drawn):
    first = [n for n, u in reports.URGENCY.items() if u == 0]
    assert set(reports.URGENCY) == set(NAMES)
    for d in all_rows(drawn)[:300]:
        lines = d.report.impression.replace("\n", " ")
        read = extract.label_report(lines)
        stated = set(d.report.stated)
        assert {n for n, v in read.items() if v == 1} <= stated, lines
        assert all(read[n] == 1 for n in first if n in stated), lines
    told = reports._impression(
        {"osteopenia": Found(0.9), "free_air": Found(0.1)}, reader("structured"),
        np.random.default_rng(1),
    )  # fmt: skip
    assert told == "1. Mild pneumoperitoneum. 2. Severe osteopenia."


def test_some_findings_are_overlooked_and_many_absences_unsaid(drawn):
    rows = all_rows(drawn)
    present = [n in d.report.mentioned for d in rows for n in d.study.found]
    absent = [n in d.report.mentioned for d in rows for n in NAMES if n not in d.study.found]
    assert 1 - np.mean(present) == pytest.approx(reports.OVERLOOKED, abs=0.02)
    assert 0.4 < np.mean(absent) < 0.8


def test_nobody_denies_a_womans_prostatomegaly(drawn):
    women = [d for d in all_rows(drawn) if d.patient.sex == "F"]
    assert women
    assert not any("prostatomegaly" in d.report.mentioned for d in women)


@pytest.mark.parametrize("name", [n for n in READERS if reader(n).has_headings])
def test_headed_reports_split_into_twelve_sections_that_hold_all_of_the_text(drawn, name):
    for d in drawn["internal"][:40]:
        text = dictate(d, name).findings
        sections = extract.split_sections(text)
        assert tuple(sections) == SECTIONS
        for heading in reader(name).headings.values():
            text = re.sub(rf"(?:^|(?<=\W)){re.escape(heading)}:", " ", text)
        words = sorted(" ".join(sections.values()).split())
        assert words == sorted(text.split())


def test_sections_survive_a_missing_space_after_a_full_stop(drawn):
    glued = 0
    for d in drawn["internal"]:
        text = dictate(d, "structured").findings
        if not re.search(r"\.[A-Z]", text):
            continue
        glued += 1
        spaced = re.sub(r"\.(?=[A-Z][a-z ]+:)", ". ", text)
        assert extract.split_sections(text) == extract.split_sections(spaced)
        assert len(extract.split_sections(text)) == 12
    assert 0.01 < glued / len(drawn["internal"]) < 0.12


def test_every_finding_has_one_section():
    placed = [n for names in FINDINGS_OF.values() for n in names]
    assert sorted(placed) == sorted(NAMES)


def test_reports_are_rarely_identical(drawn):
    texts = [d.report.findings for d in all_rows(drawn)]
    assert len(set(texts)) > 0.98 * len(texts)


def test_report_is_a_function_of_seed_study_and_reader(drawn):
    d = drawn["internal"][3]
    assert dictate(d, "plain") == dictate(d, "plain")
    assert dictate(d, "plain").findings != dictate(d, "plain", seed=8).findings
    assert len({dictate(d, r).findings for r in READERS}) == len(READERS)


def test_sizes_in_reports_are_the_findings_sizes(drawn):
    checked = 0
    for d in drawn["internal"]:
        text = dictate(d, "structured").findings
        for match in re.finditer(r"aortic aneurysm (?:measuring |, )?([\d.]+) (cm|mm)", text):
            mm = float(match[1]) * (10 if match[2] == "cm" else 1)
            size = d.study.found["abdominal_aortic_aneurysm"].details["size_mm"]
            assert mm == pytest.approx(size, abs=0.51)
            checked += 1
    assert checked


def test_no_report_speaks_of_contrast_agent_that_was_not_given(drawn):
    spoken = re.compile(r"(?<!un)enhanc|nephrogram|(?<!not )(?<!un)opacif|filling defect", re.I)
    rows = all_rows(drawn)
    without = [d for d in rows if d.study.phase == "non-contrast"]
    assert len(without) > 20
    texts = [d.report.findings.replace("without opacification", "") for d in without]
    assert [t for t in texts if spoken.search(t)] == []
    given = [d for d in rows if d.study.phase == "portal venous"]
    assert np.mean([bool(spoken.search(d.report.findings)) for d in given]) > 0.03


def test_a_gallbladder_that_was_taken_out_has_no_thin_wall(drawn):
    gone = [d for d in all_rows(drawn) if "surgically_absent_gallbladder" in d.study.found]
    assert gone
    wall = re.compile("gallbladder wall|thin walled|around the gallbladder", re.I)
    assert not any(wall.search(d.report.findings) for d in gone)


def test_only_men_have_a_prostate(drawn):
    assert ONLY_SEX["prostatomegaly"] == "M"
    assert not any("prostat" in d.report.findings.lower() for d in drawn["internal"]
                   if d.patient.sex == "F")  # fmt: skip
