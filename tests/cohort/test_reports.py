"""Dictated reports say what is there, nothing that is not, and can be read back."""

import re
from string import Formatter

import numpy as np
import pytest

from merlin.data import extract
from merlin.phantom import reports, synthesis
from merlin.phantom.body import Body
from merlin.phantom.findings import FINDINGS
from merlin.vocabulary import FINDINGS_OF, NAMES, SECTIONS

SITE_OF_STYLE = {"headings": "internal", "prose": "site_b", "terse": "site_c"}


def slots(template):
    return {field for _, field, _, _ in Formatter().parse(template) if field}


def dictate(drawn_row, style, seed=7):
    return reports.write_report(
        drawn_row.study.found,
        sex=drawn_row.patient.sex,
        style=style,
        rng=synthesis.stream(seed, drawn_row.study.study_id, "report"),
        remarks=drawn_row.study.remarks,
    )


def test_every_finding_has_phrases_and_every_phrase_a_finding():
    assert set(reports.phrases()) == set(NAMES)
    for name, kinds in reports.phrases().items():
        assert set(kinds) == {"present", "absent", "short"}, name
        assert all(len(templates) == len(set(templates)) for templates in kinds.values()), name


@pytest.mark.parametrize("name", NAMES)
def test_every_template_can_be_filled_by_the_findings_details(name):
    body = Body(sex="M", phase="portal venous")
    details = FINDINGS[name].apply(body, 0.6, np.random.default_rng(7))
    known = {"degree"} | {"size" if key == "size_mm" else key for key in details}
    kinds = reports.phrases()[name]
    for template in (*kinds["present"], *kinds["short"]):
        assert slots(template) <= known, template
    assert kinds["short"]
    for template in kinds["absent"]:
        assert not slots(template), template


def test_no_report_has_an_unfilled_slot_or_a_doubled_stop(drawn):
    for rows in drawn.values():
        for d in rows:
            for text in (d.report.findings, d.report.impression):
                assert not re.search(r"[{}]|\.\.|\bnan\b|\bNone\b", text), text


@pytest.mark.parametrize("style", SITE_OF_STYLE)
def test_report_never_calls_an_absent_finding_present(drawn, style):
    wrong = []
    for d in drawn[SITE_OF_STYLE[style]]:
        stated = {n for n, present in d.report.mentioned.items() if present}
        denied = set(d.report.mentioned) - stated
        assert stated <= set(d.study.found)
        assert not denied & set(d.study.found)
        read = extract.label_report(d.report.findings, sex=d.patient.sex)
        wrong += [n for n in NAMES if read[n] == 1 and n not in d.study.found]
    assert wrong == []


@pytest.mark.parametrize("style", SITE_OF_STYLE)
def test_extractor_reads_back_what_was_mentioned(drawn, style):
    rows = drawn[SITE_OF_STYLE[style]]
    read = extract.label_table([d.report.findings for d in rows], [d.patient.sex for d in rows])
    said = np.array([[float(d.report.mentioned.get(n, np.nan)) for n in NAMES] for d in rows])
    agree = (read == said) | (np.isnan(read) & np.isnan(said))
    assert agree.mean() > 0.998
    assert agree.mean(0).min() > 0.99


def test_impression_names_only_stated_findings(drawn):
    for rows in drawn.values():
        for d in rows:
            stated = {n for n, present in d.report.mentioned.items() if present}
            read = extract.label_report(d.report.impression)
            # "mural thrombus" and the like never reach impressions; what is read was stated.
            assert {n for n, v in read.items() if v == 1} <= stated, d.report.impression


def test_some_findings_are_overlooked_and_many_absences_unsaid(drawn):
    rows = [d for site in drawn.values() for d in site]
    present = [n in d.report.mentioned for d in rows for n in d.study.found]
    absent = [n in d.report.mentioned for d in rows for n in NAMES if n not in d.study.found]
    assert 1 - np.mean(present) == pytest.approx(reports.OVERLOOKED, abs=0.02)
    assert 0.4 < np.mean(absent) < 0.8


def test_nobody_denies_a_womans_prostatomegaly(drawn):
    women = [d for rows in drawn.values() for d in rows if d.patient.sex == "F"]
    assert women
    assert not any("prostatomegaly" in d.report.mentioned for d in women)


def test_headings_and_terse_reports_split_into_the_same_twelve_sections(drawn):
    for d in drawn["internal"][:100]:
        long = extract.split_sections(dictate(d, "headings").findings)
        terse = extract.split_sections(dictate(d, "terse").findings)
        assert tuple(long) == tuple(terse) == SECTIONS
        assert {s: t.replace(" is ", " ") for s, t in long.items()} == terse


def test_sections_survive_a_missing_space_after_a_full_stop(drawn):
    glued = 0
    for d in drawn["internal"]:
        text = d.report.findings
        if not re.search(r"\.[A-Z]", text):
            continue
        glued += 1
        spaced = re.sub(r"\.(?=[A-Z][a-z ]+:)", ". ", text)
        assert extract.split_sections(text) == extract.split_sections(spaced)
        assert len(extract.split_sections(text)) == 12
    assert 0.01 < glued / len(drawn["internal"]) < 0.12


def test_sections_hold_the_whole_findings_text(drawn):
    for d in drawn["internal"][:100]:
        text = d.report.findings
        sections = extract.split_sections(text)
        joined = "".join(f"{s}{t}" for s, t in sections.items())
        assert re.sub(r"[\s:]", "", joined).lower() == re.sub(r"[\s:]", "", text).lower()


def test_section_text_is_about_its_section(drawn):
    """A finding that a section states belongs to that section."""
    for d in drawn["internal"][:100]:
        for section, text in extract.split_sections(d.report.findings).items():
            read = extract.label_report(text, sex=d.patient.sex)
            stated = {n for n, v in read.items() if v == 1}
            assert stated <= set(FINDINGS_OF[section])


def test_prose_has_no_headings(drawn):
    for d in drawn["site_b"][:50]:
        assert extract.split_sections(d.report.findings) == {}


def test_every_finding_has_one_section():
    placed = [n for names in FINDINGS_OF.values() for n in names]
    assert sorted(placed) == sorted(NAMES)


@pytest.mark.parametrize("style", SITE_OF_STYLE)
def test_reports_are_rarely_identical(drawn, style):
    texts = [d.report.findings for d in drawn[SITE_OF_STYLE[style]]]
    assert len(set(texts)) > 0.98 * len(texts)


@pytest.mark.parametrize("style", SITE_OF_STYLE)
def test_report_is_a_function_of_seed_and_study(drawn, style):
    d = drawn["internal"][3]
    assert dictate(d, style) == dictate(d, style)
    assert dictate(d, style).findings != dictate(d, style, seed=8).findings


def test_sizes_in_reports_are_the_findings_sizes(drawn):
    checked = 0
    for d in drawn["internal"]:
        for match in re.finditer(r"aortic aneurysm measuring ([\d.]+) (cm|mm)", d.report.findings):
            mm = float(match[1]) * (10 if match[2] == "cm" else 1)
            size = d.study.found["abdominal_aortic_aneurysm"].details["size_mm"]
            assert mm == pytest.approx(size, abs=0.51)
            checked += 1
    assert checked


def test_no_report_speaks_of_contrast_agent_that_was_not_given(drawn):
    spoken = re.compile(r"(?<!un)enhanc|nephrogram|(?<!not )(?<!un)opacif|filling defect", re.I)
    rows = [d for site in drawn.values() for d in site]
    without = [d for d in rows if d.study.phase == "non-contrast"]
    assert len(without) > 20
    assert [d.report.findings for d in without if spoken.search(d.report.findings)] == []
    given = [d for d in rows if d.study.phase == "portal venous"]
    assert np.mean([bool(spoken.search(d.report.findings)) for d in given]) > 0.1


def test_a_gallbladder_that_was_taken_out_has_no_thin_wall(drawn):
    gone = [
        d
        for rows in drawn.values()
        for d in rows
        if "surgically_absent_gallbladder" in d.study.found
    ]
    assert gone
    assert not any("Wall is thin" in d.report.findings for d in gone)
