"""Report text → anatomical sections, and → finding labels, with negation.

The sectioner reads the heading styles that reports use (`Liver and biliary tree: …`, capitals,
with or without the space after a full stop). The labeller splits sentences into clauses, looks for
a finding's cues in each, and asks whether a negation or a hedge governs them. What no clause speaks
of stays missing. Its errors on phantom reports are measured in the cohort notebook; on other
people's reports, measure before use.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from merlin.cohort.findings import FINDINGS, NAMES
from merlin.cohort.reports import FINDINGS_OF, SECTIONS

# Headings seen in reports → our 12 sections (paper_facts §2.5 lists the official synonyms).
HEADINGS = {
    "lower thorax": ("lower thorax", "lower chest", "lung bases", "chest"),
    "liver and biliary tree": (
        "liver and biliary tree", "liver", "biliary system", "biliary tree", "hepatobiliary",
    ),
    "gallbladder": ("gallbladder",),
    "spleen": ("spleen",),
    "pancreas": ("pancreas",),
    "adrenal glands": ("adrenal glands", "adrenals", "adrenal"),
    "kidneys and ureters": (
        "kidneys and ureters", "kidneys, ureters", "kidneys", "gu", "genitourinary",
    ),
    "gastrointestinal tract": (
        "gastrointestinal tract", "bowel/mesentery", "bowel", "gastrointestinal", "gi", "gi tract",
    ),
    "peritoneal cavity": (
        "peritoneal cavity", "peritoneal space", "peritoneum", "abdominal wall",
    ),
    "pelvic organs": (
        "pelvic organs", "pelvis", "bladder", "prostate and seminal vesicles", "uterus and ovaries",
    ),
    "vasculature and lymph nodes": (
        "vasculature and lymph nodes", "vasculature", "vessels", "lymph nodes",
    ),
    "musculoskeletal": ("musculoskeletal", "bones", "osseous structures", "msk"),
}  # fmt: skip
_SECTION_OF_HEADING = {h: s for s, names in HEADINGS.items() for h in names}
_HEADING = re.compile(
    r"(?:^|(?<=[.\n;:!?])|(?<=\s))\s*("
    + "|".join(re.escape(h) for h in sorted(_SECTION_OF_HEADING, key=len, reverse=True))
    + r")\s*:",
    re.IGNORECASE,
)
_IMPRESSION = re.compile(
    r"(?<![^\W_])(impressions?|conclusions?|opinion|beurteilung|impresi[oó]n|conclusi[oó]n(?:es)?|"
    r"conclusie|conclusioni|impress[aã]o|conclus[aã]o|summary|zusammenfassung|fazit|konklusion|bedömning|"
    r"wnioski|sonuç|závěr)(?![^\W_])",
    re.IGNORECASE,
)
# Tags, rules and bullets around a heading, and Excel's line breaks.
_DECOR = r"(?:</?\w[^<>\n]{0,30}>|_x000D_|[*#_=\[\]>~•])"
_BEFORE = re.compile(rf"(?:{_DECOR}|[-–—\s])+$", re.IGNORECASE)
_AFTER = re.compile(rf"(?:{_DECOR}|[^\S\n])*", re.IGNORECASE)
_JOINED = re.compile(r"(?:(?:and|&|/|,)\s*\w+\s*|\([^)\n]{1,40}\)\s*)?:", re.IGNORECASE)
# What is said before a word that heads something else, or behind one that heads nothing.
_NO_HEAD = re.compile(
    r"(?:[&/]|\b(?:and|or|no|an?|the|mass|extrinsic|clinical|initial|prior|previous|referring|see|per|under|in|"
    r"as|to|of|for|with))$|"
    r"(?:^|\n)\s*findings$",
    re.IGNORECASE,
)
_PROSE = re.compile(
    r"(?:on|of|upon|from|by|is|was|are|were|along|at|in|into|to|for|that|which|and|or|with|over|due)\b",
    re.IGNORECASE,
)
_FINDINGS_HEAD = re.compile(r"(?:^|(?<=[.\n]))[^\S\n]*findings\s*:", re.IGNORECASE)
_TECHNICAL = re.compile(
    r"\b(history|reason for exam|technique|comparison|exam|indication|clinical information)\s*:",
    re.IGNORECASE,
)


def split_impression(text):
    """(findings, impression) of a report; the impression is empty where there is none.

    Its heading may lack the colon, stand in capitals, in tags, alone on its line, or be called a
    conclusion; prose about an impression (`mass impression on the bladder`) is none. Findings that stand
    below the impression are findings.
    """
    for mark in _IMPRESSION.finditer(text):
        if not _is_heading(text, mark):
            continue
        rest = text[mark.end() :]
        rest = rest[_AFTER.match(rest).end() :]
        if joined := _JOINED.match(rest):
            rest = rest[joined.end() :]
        said = re.sub(rf"^(?:{_DECOR}|[-–—.;:\s])+", "", rest, flags=re.IGNORECASE)
        near = max(0, mark.start() - 300)
        findings = (text[:near] + _BEFORE.sub("", text[near : mark.start()])).strip()
        below = _FINDINGS_HEAD.search(said)
        if (
            below
            and len(said) - below.end() > len(findings)
            and not _FINDINGS_HEAD.search(findings)
        ):
            findings = f"{findings}\n{said[below.end() :].strip()}".strip()
            said = said[: below.start()]
        return findings, said.strip()
    return text.strip(), ""


def _is_heading(text, mark):
    """Whether a word for *impression* heads what follows."""
    near = text[max(0, mark.start() - 300) : mark.start()]
    word, before, line = mark[1], _BEFORE.sub("", near), near.rpartition("\n")[2]
    after = text[mark.end() : mark.end() + 300]
    after = after[_AFTER.match(after).end() :]
    begins_line = not _BEFORE.sub("", line).strip()
    begins = not before or before[-1] in ".:;!?)"
    if _NO_HEAD.search(before) and not (begins_line and word[0].isupper() and line != near):
        return False
    is_capital, is_impression = word[0].isupper(), word.lower().startswith("impression")
    if _JOINED.match(after):
        return begins or begins_line or (is_impression and after[0] == ":")
    if not after or after[0] == "\n":  # alone on its line, or at the line's end
        return begins or (begins_line and is_capital)
    if re.match(r"[-–—.;](?:\s|$)", after) or re.match(r"\d{1,2}\s?[.)]", after):
        return begins or (begins_line and is_capital)
    if _PROSE.match(after) or not (is_impression or word.isupper()):
        return False
    if re.match(r"[A-Z\d(]", after) and is_capital and (begins or begins_line):
        return True
    return is_impression and word.isupper() and re.search(r"[a-z]{3}", text) is not None


def split_sections(text):
    """Findings text by anatomical section.

    Parameters
    ----------
    text : str
        Findings, with headings; an impression at the end is left out.

    Returns
    -------
    dict of str to str
        Section → its text, for the sections that have one, in `SECTIONS` order. Headings of one
        section are joined. Empty where the text has no known heading.
    """
    text, _ = split_impression(text)
    found = {}
    marks = list(_HEADING.finditer(text))
    ends = [*(m.start() for m in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):
        section = _SECTION_OF_HEADING[mark.group(1).lower()]
        body = _TECHNICAL.split(text[mark.end() : end])[0].strip()
        if body:
            found[section] = f"{found[section]} {body}" if section in found else body
    return {s: found[s] for s in SECTIONS if s in found}


def section_table(texts):
    """(n, 12) str array of sections; empty where a report has none."""
    table = np.full((len(texts), len(SECTIONS)), "", dtype=object)
    for i, text in enumerate(texts):
        for section, body in split_sections(text).items():
            table[i, SECTIONS.index(section)] = body
    return table


@cache
def report_sentences(text):
    """A findings text's distinct sentences, headings apart: each about one thing, like a prompt.

    A text without known headings, as an impression, is split as it stands; item numbers go.
    """
    parts = list(split_sections(text).values()) or [re.sub(r"(?:^|(?<=\s))\d+\.\s+", "", text)]
    found = (s.strip() for part in parts for s in _FULL_STOP.split(part))
    return tuple(dict.fromkeys(s for s in found if s))


_FULL_STOP = re.compile(r"(?<=[a-z)]\.)\s+")
_SENTENCE = re.compile(r"(?<!\d)[.;\n]+(?!\d)|\n|(?<=\d)\.(?=\s)")
# A comma or "and" may open a clause of its own, or continue a list that a "no" before it governs.
_CLAUSE = re.compile(
    r"\b(?:but|however|although|though|except|with the exception of)\b", re.IGNORECASE
)
_NEGATED = re.compile(
    r"\b(?:no(?! (?:change|interval change|longer) )|neither|no longer|not|non-?dilated|resolution of|"
    r"without|denies|negative for|free of|absence of|absent|ruled out|excluded|never|nor|"
    r"resolved|removed|no evidence of)\b",
    re.IGNORECASE,
)
_INSIDE = re.compile(r"\b(?:not|no|none|without)\b", re.IGNORECASE)
_NEGATED_AFTER = re.compile(
    r"^\W*(?:\w+\W+){0,2}?(?:is|are|was|were)?\s*"
    r"(?:not|no longer|absent|excluded|ruled out|unlikely|not seen|(?:has |have )?resolved)\b",
    re.IGNORECASE,
)
_END_OF_NEGATION = re.compile(
    r",\s*(?:mild|moderate|severe|small|large|trace|minimal|marked|there|the|a|an|left|right|bilateral|"
    r"bibasilar|stable|new|multiple|scattered)\b|\b(?:with|showing|there is|there are|suggesting|"
    r"consistent with|due to)\b",
    re.IGNORECASE,
)
_UNCERTAIN = re.compile(
    r"\b(?:cannot exclude|cannot be excluded|not excluded|rule out|to exclude|evaluate for|"
    r"versus|vs)\b",
    re.IGNORECASE,
)
_NORMAL = re.compile(
    r"^\W*(?:(?:is|are|appears?|grossly|the|visualized)\s+)*"
    r"(?:normal|unremarkable|within normal limits|no (?:significant )?abnormality)\W*$",
    re.IGNORECASE,
)

_NORMAL_ORGAN = re.compile(
    r"(?:^|[.;\n])\s*(?:the )?("
    + "|".join(re.escape(h) for h in sorted(_SECTION_OF_HEADING, key=len, reverse=True))
    + r")\s+(?:is |are |appears? )?(?:grossly )?(?:normal|unremarkable)\s*(?=[.;]|$)",
    re.IGNORECASE,
)


@cache
def cues():
    """Finding → compiled patterns for presence and for absence, from `cues.yaml`."""
    raw = yaml.safe_load((Path(__file__).parent / "cues.yaml").read_text())
    return {
        name: {
            kind: re.compile("|".join(f"(?:{p})" for p in patterns), re.IGNORECASE)
            if patterns
            else None
            for kind, patterns in kinds.items()
        }
        for name, kinds in raw.items()
    }


def label_report(text, *, sex=None):
    """Finding labels that a report states.

    Parameters
    ----------
    text : str
        Findings, with or without headings.
    sex : {"F", "M"}, optional
        Of the patient: "pelvic organs: normal" speaks of a prostate only where there is one.

    Returns
    -------
    dict of str to float
        1.0 stated present, 0.0 stated absent, NaN not mentioned or left open. A section that says
        only "normal" denies all its findings; presence anywhere outweighs absence elsewhere.
    """
    text, _ = split_impression(text)
    labels = dict.fromkeys(NAMES, np.nan)
    for section in _normal_sections(text):
        for name in FINDINGS_OF[section]:
            if FINDINGS[name].only_sex in ("", sex):
                labels[name] = 0.0
    stated = {name: set() for name in NAMES}
    for sentence in _SENTENCE.split(_HEADING.sub(". ", text)):
        for clause in _CLAUSE.split(sentence):
            for name in NAMES:
                said = _clause_label(name, clause)
                if said is not None:
                    stated[name].add(said)
    for name, said in stated.items():
        if 1.0 in said:
            labels[name] = 1.0
        elif 0.0 in said:
            labels[name] = 0.0
        elif said:
            labels[name] = np.nan
    return labels


def _normal_sections(text):
    """Sections that a report calls normal: by heading, or in prose ("The spleen is normal.")."""
    if _HEADING.search(text):
        return [s for s, body in split_sections(text).items() if _NORMAL.match(body)]
    return [_SECTION_OF_HEADING[m.group(1).lower()] for m in _NORMAL_ORGAN.finditer(text)]


def _clause_label(name, clause):
    """1.0, 0.0, NaN (left open) or None (not mentioned)."""
    kinds = cues()[name]
    found = 0.0 if kinds["absent"] is not None and kinds["absent"].search(clause) else None
    for match in kinds["present"].finditer(clause):
        before, after = clause[: match.start()], clause[match.end() :]
        if _UNCERTAIN.search(clause):
            said = np.nan
        elif _governed(before) or _NEGATED_AFTER.match(after) or _INSIDE.search(match.group()):
            said = 0.0
        else:
            return 1.0
        found = said if found is None else found
    return found


def _governed(before):
    """Whether a negation before a cue still reaches it."""
    last = None
    for match in _NEGATED.finditer(before):
        last = match
    if last is None:
        return False
    return _END_OF_NEGATION.search(before[last.end() :]) is None


def label_table(texts, sexes=None):
    """(n, 30) float array of `label_report` for many texts, columns as `findings.NAMES`."""
    sexes = [None] * len(texts) if sexes is None else sexes
    reports = [label_report(t, sex=s) for t, s in zip(texts, sexes, strict=True)]
    return np.array([[labels[n] for n in NAMES] for labels in reports], float)


def abnormal_sections(sections):
    """Whether each section of each report states a finding; from the text alone.

    Parameters
    ----------
    sections : (n, 12) str array
        From `section_table`.

    Returns
    -------
    (n, 12) float
        1 if some finding is stated present, 0 if none is, NaN where a report lacks the section.
    """
    out = np.full(sections.shape, np.nan)
    for s, name in enumerate(SECTIONS):
        texts, where = np.unique(sections[:, s].astype(str), return_inverse=True)
        said = [float(1.0 in label_report(f"{name}: {t}").values()) if t else np.nan for t in texts]
        out[:, s] = np.array(said)[where]
    return out
