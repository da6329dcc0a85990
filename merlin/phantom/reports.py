"""Findings → the report a radiologist would dictate, and which findings it speaks of.

A report has the 12 anatomical sections that the paper splits by (§2.5 of the fact sheet), then an
impression by urgency. Who dictates decides on the words, the order and the layout (`readers.py`).
Side, degree, count and size stand in the sentence as they are drawn. Some findings are overlooked,
some absences are stated, many are not, and now and then a statement is wrong, as in real reports.
What is not spoken of is unlabelled, as -1 is in the data release.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter

import numpy as np
import yaml

from merlin.phantom.body import Body
from merlin.phantom.findings import FINDINGS, Found
from merlin.phantom.readers import Reader
from merlin.phantom.remarks import REMARKS
from merlin.vocabulary import FINDINGS_OF, ONLY_SEX, SECTIONS

OVERLOOKED = 0.05  # share of findings that no sentence mentions
WRONG = 0.02  # share of statements that are wrong
NORMAL = 0.3  # share of sections without findings of which nothing else is said
QUALIFIED = 0.35  # share of denials that are: no significant effusion
DEGREES = ("mild", "moderate", "severe")
_SAID = yaml.safe_load((Path(__file__).parent / "sentences.yaml").read_text(encoding="utf-8"))
FILLERS: dict[str, dict[str, list[str]]] = _SAID["fillers"]
URGENCY: dict[str, int] = {n: i for i, names in enumerate(_SAID["urgency"]) for n in names}
_IMAGINED_MM = {
    "abdominal_aortic_aneurysm": (31, 42),
    "splenomegaly": (131, 150),
    "hepatomegaly": (161, 185),
    "prostatomegaly": (42, 55),
}
OTHER_SIDE = {"right": "left", "left": "right"}
# What can't be said without contrast agent, or of a gallbladder that was taken out.
_OF_CONTRAST = re.compile("enhanc|nephrogram|opacif|filling defect|hepatic arter", re.IGNORECASE)
_OF_GALLBLADDER = re.compile("gallbladder(?! fossa| bed)|pericholecyst", re.IGNORECASE)
_NUMBERS = dict(
    enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
)


@dataclass(frozen=True)
class Report:
    """A dictated report and what it says."""

    findings: str
    impression: str
    mentioned: dict[str, bool]  # finding → stated present or absent; unmentioned ones are missing
    stated: dict[str, Found] = field(default_factory=dict)  # present ones, details as dictated


def degree_of(found: Found) -> str:
    """Mild, moderate or severe: as the finding's details say, or by severity."""
    said = found.details.get("degree") or found.details.get("grade")
    return str(said or DEGREES[(found.severity >= 0.38) + (found.severity >= 0.72)])


def write_report(
    found: Mapping[str, Found],
    *,
    sex: str,
    reader: Reader,
    rng: np.random.Generator,
    remarks: Sequence[str] = (),
    wrong: float = WRONG,
) -> Report:
    """Dictate a report.

    Parameters
    ----------
    found : dict of str to Found
        Findings that are present, with severity and details.
    sex : {"F", "M"}
    reader : Reader
    rng : numpy.random.Generator
    remarks : sequence of str
        Names of `remarks.REMARKS` that are true of the study.
    wrong : float
        Chance, in [0, 1], that a statement is wrong: an absent finding is called present, one that
        is there is put on the other side, or denied where it has none.

    Returns
    -------
    Report
    """
    stated: dict[str, Found] = {}
    mentioned: dict[str, bool] = {}
    sections = {}
    for section in SECTIONS:
        names = [n for n in FINDINGS_OF[section] if ONLY_SEX[n] in ("", sex)]
        if not any(n in found for n in names) and rng.random() < NORMAL:
            mentioned.update(dict.fromkeys(names, False))
            organ = "osseous structures" if section == "musculoskeletal" else section
            is_ = (
                "are" if " and " in organ or (organ.endswith("s") and organ != "pancreas") else "is"
            )
            said = str(rng.choice(reader.normal))
            sections[section] = said.format(organ=organ, **{"is": is_})
            continue
        present, absent = _statements(names, found, sex, reader, wrong, rng)
        stated.update(present)
        mentioned.update(dict.fromkeys(present, True) | dict.fromkeys(absent, False))
        remarked = [n for n in remarks if REMARKS[n].section == section]
        sections[section] = _section(
            section, present, absent, remarked, "unopacified_vessels" in remarks,
            "surgically_absent_gallbladder" in found, reader, rng,
        )  # fmt: skip
    return Report(
        findings=_layout(sections, reader, rng),
        impression=_impression(stated, reader, rng),
        mentioned=mentioned,
        stated=stated,
    )


def _statements(names, found, sex, reader, wrong, rng):
    """Findings that are called present, with what is said of them, and those called absent."""
    present, absent = {}, []
    for name in names:
        is_wrong = rng.random() < wrong
        if name in found:
            if rng.random() < OVERLOOKED:
                continue
            side = found[name].details.get("side")
            if not is_wrong:
                present[name] = found[name]
            elif side in OTHER_SIDE:
                details = found[name].details | {"side": OTHER_SIDE[side]}
                present[name] = replace(found[name], details=details)
            else:
                absent.append(name)
        elif "surgically_absent_gallbladder" in found and name == "gallstones":
            continue  # nobody looks for stones in a gallbladder that was taken out
        elif rng.random() < reader.denies:
            if is_wrong and not (name == "surgically_absent_gallbladder" and "gallstones" in found):
                present[name] = _imagined(name, sex, rng)
            else:
                absent.append(name)
    return present, absent


def _imagined(name, sex, rng):
    """A finding that is not there, as somebody might see it."""
    severity = float(rng.uniform(0.1, 0.6))
    details = dict(FINDINGS[name].apply(Body(sex=sex, phase="portal venous"), severity, rng))
    if name in _IMAGINED_MM:  # enlarged organs are measured on their labels, which show none here
        details["size_mm"] = float(rng.uniform(*_IMAGINED_MM[name]))
    return Found(severity, details)


def _section(section, present, absent, remarks, is_unenhanced, has_no_gallbladder, reader, rng):
    first = [_sentence(n, f, is_unenhanced, reader, rng) for n, f in present.items()]
    rng.shuffle(first)  # what is there is dictated before what is not
    rest = _denials(absent, is_unenhanced, reader, rng)
    for name in remarks:
        if not set(REMARKS[name].unless) & set(present) and rng.random() < reader.remarks:
            said = REMARKS[name].texts if reader.is_known else REMARKS[name].elsewhere
            rest.append(str(rng.choice(said)))
    if not first + rest or rng.random() < 0.1:
        fillers = FILLERS[section]["say" if reader.is_known else "elsewhere"]
        if has_no_gallbladder:
            fillers = [t for t in fillers if not _OF_GALLBLADDER.search(t)]
        rest.append(str(rng.choice(_sayable(fillers, is_unenhanced))))
    rng.shuffle(rest)
    return _joined(first + rest, reader, rng)


def _sayable(texts, is_unenhanced):
    """Those of the texts that a study without contrast agent allows; else all."""
    return [t for t in texts if not (is_unenhanced and _OF_CONTRAST.search(t))] or list(texts)


def _capital(text):
    return text[0].upper() + text[1:]


def _small(text):
    """Without its capital, unless it begins with an abbreviation or a level."""
    return text[0].lower() + text[1:] if text[1:2].islower() else text


def _words(found, reader, rng):
    """Words for the template's braces; each also with a capital."""
    details, grade = found.details, DEGREES.index(degree_of(found))
    words = {
        "degree": str(rng.choice(reader.degrees[grade])),
        "amount": str(rng.choice(reader.amounts[grade])),
        "adverb": reader.adverbs[grade],
    }
    if "size_mm" in details:
        mm = details["size_mm"]
        in_cm = reader.sizes == "cm" or (reader.sizes == "both" and mm >= 20)
        words["size"] = f"{mm / 10:.1f} cm" if in_cm else f"{mm:.0f} mm"
    if details.get("count", 0) > 1:
        count = int(details["count"])
        words["count"] = _NUMBERS.get(count, str(count)) if reader.counts == "words" else str(count)
    if "percent" in details:
        words["percent"] = f"{details['percent']:.0f}"
    if "side" in details:
        words["side"] = reader.sides.get(details["side"], details["side"])
    if "place" in details:
        words["place"] = details["place"]
    return words | {_capital(k): _capital(v) for k, v in words.items()}


def _fill(templates, words, rng):
    """One of the templates whose braces can all be filled; empty where none can."""
    fits = [t for t in templates if {f for _, f, _, _ in Formatter().parse(t) if f} <= set(words)]
    return _capital(str(rng.choice(fits)).format(**words)) if fits else ""


def _sentence(name, found, is_unenhanced, reader, rng):
    words = _words(found, reader, rng)
    said = reader.words[name]
    text = _fill(_sayable(said.present, is_unenhanced), words, rng) or _fill(
        said.present, words, rng
    )
    if not text:  # a finding without the details that its reader words it with
        text = _capital(said.noun or name.replace("_", " ")) + "."
    if found.severity < 0.45 and rng.random() < 0.08 and (noun := _fill([said.short], words, rng)):
        text = f"{rng.choice(reader.hedges)}{_small(noun)}."
    return text


def _denials(absent, is_unenhanced, reader, rng):
    """Sentences that deny findings: some as one list, the others one by one."""
    nouns = {n: reader.words[n].noun for n in absent if reader.words[n].noun}
    nouns = {n: t for n, t in nouns.items() if not (is_unenhanced and _OF_CONTRAST.search(t))}
    sentences = []
    if len(nouns) > 1 and rng.random() < reader.lists:
        listed = [str(n) for n in rng.permutation(list(nouns))]
        things = [nouns[n] for n in listed]
        sentences.append(_denied(", ".join(things[:-1]) + " or " + things[-1], reader, rng))
        absent = [n for n in absent if n not in listed]
    for name in absent:
        said = [*_sayable(reader.words[name].absent, is_unenhanced)]
        if name in nouns:
            said.append(_denied(nouns[name], reader, rng))
        sentences.append(str(rng.choice(said)))
    return sentences


def _denied(things, reader, rng):
    if rng.random() < QUALIFIED:
        things = f"{rng.choice(reader.qualifiers)} {things}"
    return reader.deny.format(it=things, It=_capital(things))


def _joined(sentences, reader, rng):
    """One text; some readers put a semicolon where others stop."""
    text = ""
    for sentence in sentences:
        if text.endswith(".") and rng.random() < reader.joins:
            text = f"{text[:-1]}; {_small(sentence)}"
        else:
            text = f"{text} {sentence}".strip()
    return text


def _impression(stated, reader, rng):
    """The most urgent findings; of the first group none is dropped."""
    if not stated:
        return str(rng.choice(reader.nothing))
    n = int(rng.integers(3, 7))
    order = sorted(stated, key=lambda f: (URGENCY[f], -stated[f].severity))
    named = [f for i, f in enumerate(order) if i < n or URGENCY[f] == 0]
    lines = []
    for name in named:
        words, said = _words(stated[name], reader, rng), reader.words[name]
        lines.append(_fill([said.short], words, rng) or _capital(said.noun))
    if reader.impression == "numbers":
        return " ".join(f"{i}. {line}." for i, line in enumerate(lines, 1))
    return ("\n" if reader.impression == "lines" else " ").join(f"{line}." for line in lines)


def _layout(sections, reader, rng):
    """The findings text, in the reader's order."""
    said = [(reader.headings[s], sections[s]) for s in reader.order]
    if reader.layout in ("prose", "paragraphs"):
        return ("\n" if reader.layout == "paragraphs" else " ").join(t for _, t in said)
    if reader.layout == "lines":
        return "\n".join(f"{heading}: {t}" for heading, t in said)
    # The odd missing space after a full stop is true to dictation.
    gap = " " if rng.random() < 0.95 else ""
    return gap.join(f"{heading}: {t}" for heading, t in said)
