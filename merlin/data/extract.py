"""Report text → anatomical sections, and → finding labels, with negation.

The sectioner reads the heading styles that reports use (`Liver and biliary tree: …`, capitals,
with or without the space after a full stop). The labeller looks for a finding's cues (`cues.yaml`)
in each sentence, and asks the grammar of `negation` what the sentence says of them. What none
speaks of stays missing. Its errors on phantom reports are measured in the cohort notebook, those on
other sentences stand in `tables/label_errors.csv` and beside every figure with labels from text
(`mined_label_note`); on your reports, read some before use.
"""

import csv
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import yaml

from merlin.data.impression import split_impression
from merlin.data.negation import statement, with_words
from merlin.vocabulary import FINDINGS_OF, HEADINGS, NAMES, ONLY_SEX, SECTIONS

_SAID = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
# What "normal" below a heading denies, where that speaks of a part of its section ...
NORMAL_DENIES: dict[str, list[str]] = {
    heading: rule["findings"] for rule in _SAID["normal_denies"] for heading in rule["headings"]
}
_SIZED: dict[str, str] = _SAID["normal_size_denies"]  # ... and "normal in size"
_SECTION_OF_HEADING = {h: s for s, names in HEADINGS.items() for h in names}
_ORGANS = "|".join(re.escape(h) for h in sorted(_SECTION_OF_HEADING, key=len, reverse=True))
_HEADING = re.compile(rf"(?:^|(?<=[.\n;:!?])|(?<=\s))({_ORGANS})\s*:", re.IGNORECASE)
_SECTION_WORDS = {
    s: re.compile(rf"\b(?:{p})", re.IGNORECASE) for s, p in _SAID["section_words"].items()
}
_TECHNICAL = re.compile(rf"\b(?:{'|'.join(_SAID['technical'])})\s*:", re.IGNORECASE)
_RESULTS = re.compile(rf"\b(?:{'|'.join(_SAID['results'])})\s*:", re.IGNORECASE)


def _without_technical(text: str) -> str:
    """A report without what was known before the scan: indication, history, comparison, technique.

    Such a part ends at the next heading or blank line; where neither follows, at the line's or else
    the sentence's end. Findings dictated below *Technique*, with no heading after it, are kept.
    """
    kept, at = [], 0
    marks = list(_TECHNICAL.finditer(text))
    if not marks:
        return text
    headings = [m.start() for p in (_RESULTS, _HEADING) for m in p.finditer(text)]
    breaks = sorted(
        [*headings, *(m.start() for m in marks), *(m.start() for m in _BLANK.finditer(text))]
    )
    last_heading = max(headings, default=-1)
    for mark in marks:
        if mark.start() < at:
            continue
        if mark[0].lower().startswith("technique") and last_heading < mark.end():
            continue
        following = bisect_left(breaks, mark.end())
        kept.append(text[at : mark.start()])
        if following < len(breaks):
            at = breaks[following]
        else:
            line_end = _LINE_END.search(text, mark.end())
            at = line_end.start() if line_end else len(text)
    return "\n".join([*kept, text[at:]])


_BLANK = re.compile(r"\n\s*\n")
_LINE_END = re.compile(r"\n|(?<=[a-z)]\.)\s")


def split_sections(text: str) -> dict[str, str]:
    """Findings text by anatomical section.

    Parameters
    ----------
    text : str
        Findings, with headings; an impression at the end is left out.

    Returns
    -------
    dict of str to str
        Section → its text, for the sections that have one, in `SECTIONS` order. Headings of one
        section are joined. A text without a known heading is split by what its sentences speak
        of; empty where that is of fewer than three sections.
    """
    text, _ = split_impression(text)
    found = _headed(text) or _by_words(text)
    return {s: found[s] for s in SECTIONS if s in found}


def _headed(text: str) -> dict[str, str]:
    """Section → text below its headings, in order."""
    found: dict[str, str] = {}
    marks = list(_HEADING.finditer(text))
    ends = [*(m.start() for m in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):
        section = _SECTION_OF_HEADING[mark.group(1).lower()]
        body = _TECHNICAL.split(text[mark.end() : end])[0].strip()
        if body:
            found[section] = f"{found[section]} {body}" if section in found else body
    return found


def _by_words(text: str) -> dict[str, str]:
    """Section → sentences about it: by their findings, else by an organ, else as the one before."""
    found: dict[str, list[str]] = {}
    section = ""
    for sentence in (s.strip() for s in _sentences(text)):
        section = _spoken_of(sentence) or section
        if sentence and section:
            found.setdefault(section, []).append(sentence)
    return {s: " ".join(said) for s, said in found.items()} if len(found) > 2 else {}


@lru_cache(maxsize=50_000)
def _spoken_of(sentence: str) -> str:
    """The section of the finding that a sentence names, else of the organ; empty without either."""
    organs = [(m.start(), s) for s, p in _SECTION_WORDS.items() if (m := p.search(sentence))]
    parts = [p for s in _SENTENCE.split(sentence) for p in _PART.findall(s)]
    names = [n for part in parts for n, _ in _sentence_labels(part, "")]
    sections = [s for s in SECTIONS if any(n in FINDINGS_OF[s] for n in names)]
    return (sections or [s for _, s in sorted(organs)[:1]] or [""])[0]


def section_table(texts: Sequence[str], *, headings: bool = False) -> np.ndarray:
    """(n, 12) str array of sections; empty where a report has none.

    With `headings` each begins with its section's name, "spleen: Normal.": without, "Normal." is one text
    for twelve organs, and no prompt of the authors' form ("spleen : normal") was ever read.
    """
    table = np.full((len(texts), len(SECTIONS)), "", dtype=object)
    for i, text in enumerate(texts):
        for section, body in split_sections(text).items():
            table[i, SECTIONS.index(section)] = f"{section}: {body}" if headings else body
    return table


@cache
def report_sentences(text: str) -> tuple[str, ...]:
    """A findings text's distinct sentences, headings apart: each about one thing, like a prompt.

    Full stops, semicolons and ends of lines end one; numbers, abbreviations and wrapped lines stay
    whole. A text without known headings, as an impression, is split as it stands; item numbers go.
    """
    headed = _headed(split_impression(text)[0])
    parts = [headed[s] for s in SECTIONS if s in headed] or [text]
    found = (" ".join(s.split()).rstrip(";") for part in parts for s in _sentences(part))
    return tuple(dict.fromkeys(s for s in found if s))


def _sentences(text: str) -> list[str]:
    """A text at its full stops, semicolons and ends of lines; numbers of items go."""
    return _END.split(_ITEM.sub("\n\n", text))


_ITEM = re.compile(r"(?:\A|(?<=[.;:\n]))\s*\d{1,2}[.)]\s+(?=\D)")
_END = re.compile(  # not after an abbreviation, nor where a line is only wrapped
    r"(?<=[a-z)]\.)(?<!\b[Nn]o\.(?=\s\d))(?<!\b(?:vs|ca|cf|[Dd]r)\.)(?<!\b(?:[Ff]ig|e\.g|i\.e)\.)"
    r"(?<!\b[Ii]ncl\.)(?<!\b[Aa]pprox\.)\s+|(?<=\d\.)\s+(?=[A-Z])|(?<=;)\s+"
    r"|(?<=[.:!?])\n+|\n\s*\n|\n(?![a-z\d\s])"
)
_PART = re.compile(  # nobody's sentence is longer; one that is ends at a comma, or at a blank
    r"\A.{1,4000}\Z|.{1,4000}(?<=[,;])|.{1,4000}(?!\S)|.{1,4000}", re.DOTALL
)
_SENTENCE = re.compile(  # one side and the other are one statement
    r"(?!; ?(?:and |but |while |on )?(?:the )?(?:left|right|other)(?:-sided)?(?: (?:side|one))? "
    r"(?:is|has|persists|remains)\b|"
    r"\. there (?:is|remains) an? (?:\w+ )?(?:left|right) one\b)"
    r"(?:(?<!\d)[.;\n]+(?!\d)|\n|(?<=\d)\.(?=\s))",
    re.IGNORECASE,
)
_NORMAL = re.compile(
    r"^\W*(?:(?:is|are|appears?|grossly|the|visualized)\s+)*"
    r"(?:normal(?: in appearance)?|unremarkable|within normal limits|wnl|no (?:significant )?abnormality)\W*$",
    re.IGNORECASE,
)
_NORMAL_SIZE = re.compile(
    r"\W*(?:(?:is|are|of|size|the|within)\s+)*normal (?:in )?size\b", re.IGNORECASE
)
_NORMAL_ORGANS = re.compile(
    rf"(?:^|[.;\n:]|, )[^\S\n]*(?:(?:the|visuali[sz]ed|portions? of|both|bilateral)\s+)*"
    rf"((?:{_ORGANS}|kidney)(?:(?:\s*,\s*|/|\s+)(?:(?:and|the|both|bilateral|left|right)\s+)*(?:{_ORGANS}|kidney)){{0,12}})\s+"
    r"(?:is |are |appears? )?(?:all |grossly )?(?:normal|unremarkable|within normal limits)"
    r"\s*(?=[.;,]|$|given|with|in appear)",
    re.IGNORECASE,
)
_ORGAN = re.compile(rf"(?<!right )(?<!left )\b(?:{_ORGANS}|kidney)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Cues:
    """Patterns that name one finding; see `cues.yaml`."""

    present: re.Pattern[str]
    absent: re.Pattern[str]
    other: re.Pattern[str]
    under: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]  # (heading, cue)
    past: bool  # whether history counts, as of what was taken out


@cache
def cues() -> dict[str, Cues]:
    """Finding → its cues."""
    raw = yaml.safe_load((Path(__file__).parent / "cues.yaml").read_text())
    words = raw.pop("words")

    def compiled(patterns: Iterable[str]) -> re.Pattern[str]:
        joined = "|".join(f"(?:{with_words(p, words)})" for p in patterns)
        return re.compile(joined or r"(?!)", re.IGNORECASE)  # without any, none is found

    return {
        name: Cues(
            present=compiled(kinds["present"]),
            absent=compiled(kinds.get("absent", ())),
            other=compiled(kinds.get("other", ())),
            under=tuple((compiled([h]), compiled(p)) for h, p in kinds.get("under", {}).items()),
            past=kinds.get("past", False),
        )
        for name, kinds in raw.items()
    }


def label_report(text: str, *, sex: str | None = None) -> dict[str, float]:
    """Finding labels that a report states.

    Parameters
    ----------
    text : str
        Findings, with or without headings. Indication, history, comparison and the like are left
        out: they state nothing of this scan.
    sex : {"F", "M"}, optional
        Of the patient: "pelvic organs: normal" speaks of a prostate only where there is one.

    Returns
    -------
    dict of str to float
        1.0 stated present, 0.0 stated absent, NaN not mentioned, left open, history or another
        person's. A section that says only "normal" denies all its findings; presence anywhere
        outweighs absence elsewhere. *Possible* and *likely* count as present, as in the phantom's
        reports; *suspicious for*, *may represent*, *versus* and *cannot be excluded* are open.
    """
    text = _without_technical(split_impression(text)[0])
    labels = dict.fromkeys(NAMES, np.nan)
    for name in _denied_by_normal(text):
        if ONLY_SEX[name] in ("", sex):
            labels[name] = 0.0
    stated: dict[str, set[float]] = {}
    for heading, body in _by_heading(text):
        for sentence in _SENTENCE.split(body):
            for part in _PART.findall(sentence):
                for name, said in _sentence_labels(part, heading):
                    stated.setdefault(name, set()).add(said)
    for name, values in stated.items():
        labels[name] = 1.0 if 1.0 in values else 0.0 if 0.0 in values else np.nan
    return labels


def mentions(text: str) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Each sentence of a report, and where in it the words of each finding stand that it states."""
    text = _without_technical(text.replace("\\n", "\n"))
    for heading, body in _by_heading(text):
        for sentence in (p for s in _SENTENCE.split(body) for p in _PART.findall(s)):
            said = [name for name, value in _sentence_labels(sentence, heading) if value == 1.0]
            where = {name: _first(cues()[name], sentence, heading) for name in said}
            yield sentence, {name: span for name, span in where.items() if span}


def _first(rule: Cues, sentence: str, heading: str) -> tuple[int, int] | None:
    """Where a cue of a finding that the sentence states stands first."""
    sentence = rule.other.sub(lambda m: "¤" * len(m[0]), sentence)
    patterns = [
        rule.present,
        *(p for title, p in rule.under if heading and title.fullmatch(heading)),
    ]
    found = [m.span() for p in patterns for m in p.finditer(sentence)]
    return min(found, default=None)


def _by_heading(text: str) -> Iterable[tuple[str, str]]:
    """(heading in small letters or "", text below it), in order."""
    parts = _HEADING.split(text)
    return zip(["", *(h.lower() for h in parts[1::2])], parts[::2], strict=True)


def _denied_by_normal(text: str) -> Iterator[str]:
    """Findings of what a report calls normal: by heading, or in prose ("The spleen is normal.")."""
    bodies: dict[str | None, list[str]] = {}
    for heading, body in _by_heading(text):
        key = heading if heading in NORMAL_DENIES else _SECTION_OF_HEADING.get(heading)
        bodies.setdefault(key, []).append(body.strip())
    normal = [key for key, body in bodies.items() if key and _NORMAL.match(" ".join(body))]
    for heading, body in _by_heading(text):
        if heading in _SIZED and _NORMAL_SIZE.match(body):
            yield _SIZED[heading]
    for organs in _NORMAL_ORGANS.finditer(text):  # "The liver, spleen and pancreas are normal."
        normal += [m[0].lower() for m in _ORGAN.finditer(organs[1])]
    for key in normal:
        section = _SECTION_OF_HEADING.get("kidneys" if key == "kidney" else key, key)
        yield from NORMAL_DENIES[key] if key in NORMAL_DENIES else FINDINGS_OF[section]


@lru_cache(maxsize=50_000)  # reports repeat their sentences
def _sentence_labels(sentence: str, heading: str) -> tuple[tuple[str, float], ...]:
    """((finding, 1.0, 0.0 or NaN), ...) of a sentence; what it does not mention is left out."""
    if not sentence.strip():
        return ()
    said = ((name, _label(rule, sentence, heading)) for name, rule in cues().items())
    return tuple((name, value) for name, value in said if value is not None)


def _label(rule: Cues, sentence: str, heading: str) -> float | None:
    """1.0, 0.0, NaN (left open) or None (not mentioned)."""
    sentence = rule.other.sub(lambda m: "¤" * len(m[0]), sentence)
    found = 0.0 if rule.absent.search(sentence) else None
    patterns = [p for title, p in rule.under if heading and title.fullmatch(heading)]
    for pattern in (rule.present, *patterns):
        for match in pattern.finditer(sentence):
            start, end = match.span()
            if rule.past:  # "surgically absent" is no denial
                sentence = sentence[:start] + "¤" * (end - start) + sentence[end:]
            said = statement(sentence, start, end)
            if said.is_relative or (said.is_history and not rule.past):
                continue
            if said.polarity == "present":
                return 1.0
            if found is None:
                found = 0.0 if said.polarity == "absent" else np.nan
    return found


def label_table(texts: Sequence[str], sexes: Sequence[str | None] | None = None) -> np.ndarray:
    """(n, 30) float array of `label_report` for many texts, columns as `vocabulary.NAMES`."""
    sexes = [None] * len(texts) if sexes is None else sexes
    reports = [label_report(t, sex=s) for t, s in zip(texts, sexes, strict=True)]
    return np.array([[labels[n] for n in NAMES] for labels in reports], float)


def mined_label_note() -> str:
    """What a figure says whose labels come from text: how often these rules err.

    Measured on sentences written, with what they state, before the rules first read them. They are
    not reports of your site: read some of yours.
    """
    with (Path(__file__).parent / "tables" / "label_errors.csv").open(newline="") as stream:
        row = next(csv.DictReader(stream))
    return (
        f"labels mined from text: precision {float(row['precision']):.2f}, recall "
        f"{float(row['recall']):.2f} on {row['n']} statements, not of this site"
    )


def abnormal_sections(sections: np.ndarray) -> np.ndarray:
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
