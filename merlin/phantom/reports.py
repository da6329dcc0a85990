"""Findings → the report a radiologist would dictate, and which findings it speaks of.

A report has the 12 anatomical sections that the paper splits by (§2.5 of the fact sheet), then an
impression. Wording varies by template, degree, size, side and hedge; some findings are overlooked,
some absences are stated, many are not. What is not spoken of is unlabelled, as -1 is in the data
release. The templates are in `phrases.yaml`, other sentences in `sentences.yaml`; `style` changes how a site
lays its reports out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter

import numpy as np
import yaml

from merlin.phantom.findings import Found
from merlin.phantom.remarks import MADE, REMARKS
from merlin.vocabulary import FINDINGS_OF, ONLY_SEX, SECTIONS, TERSE_HEADINGS

OVERLOOKED = 0.05  # share of findings that no sentence mentions
ABSENCE_STATED = 0.5
_SAID = yaml.safe_load((Path(__file__).parent / "sentences.yaml").read_text(encoding="utf-8"))
NORMAL, NOTHING, HEDGES = _SAID["normal"], _SAID["nothing"], _SAID["hedges"]
DEGREES = _SAID["degrees"]  # words by grade of severity
FILLERS = _SAID["fillers"]  # by section: sentences that carry no finding
# What can't be said without contrast agent, or of a gallbladder that was taken out.
_OF_CONTRAST = re.compile("enhanc|nephrogram|opacif|filling defect|hepatic arter", re.IGNORECASE)
_OF_GALLBLADDER = re.compile("wall is thin", re.IGNORECASE)


@dataclass(frozen=True)
class Report:
    """A dictated report and what it says."""

    findings: str
    impression: str
    mentioned: dict[str, bool]  # finding → stated present or absent; unmentioned ones are missing


@cache
def phrases() -> dict[str, dict[str, list[str]]]:
    """Templates by finding: present, absent and short ones."""
    return yaml.safe_load((Path(__file__).parent / "phrases.yaml").read_text())


def write_report(
    found: Mapping[str, Found],
    *,
    sex: str,
    style: str,
    rng: np.random.Generator,
    remarks: Sequence[str] = (),
) -> Report:
    """Dictate a report.

    Parameters
    ----------
    found : dict of str to Found
        Findings that are present, with severity and details.
    sex : {"F", "M"}
    style : {"headings", "prose", "terse"}
        Headings in sentence case, no headings at all, or capitals with clipped sentences.
    rng : numpy.random.Generator
    remarks : sequence of str
        Names of `remarks.REMARKS` that are true of the study.

    Returns
    -------
    Report
    """
    mentioned: dict[str, bool] = {}
    sections = {}
    for section in SECTIONS:
        names = [n for n in FINDINGS_OF[section] if ONLY_SEX[n] in ("", sex)]
        sections[section] = _section(section, names, found, mentioned, remarks, rng)
    stated = [n for n, present in mentioned.items() if present]
    return Report(
        findings=_layout(sections, style, rng),
        impression=_impression(stated, found, rng),
        mentioned=mentioned,
    )


def _section(section, names, found, mentioned, remarks, rng):
    present = [n for n in names if n in found]
    if not present and rng.random() < 0.3:
        mentioned.update(dict.fromkeys(names, False))
        return str(rng.choice(NORMAL))
    sentences = []
    for name in present:
        if rng.random() >= OVERLOOKED:
            mentioned[name] = True
            sentences.append(_sentence(name, found[name], remarks, rng))
    rng.shuffle(sentences)
    first, sentences = sentences, []  # what is there is dictated before what is not
    # A gallbladder that was taken out has no stones to deny.
    without = "surgically_absent_gallbladder" in present
    for name in names:
        if name not in found and not without and rng.random() < ABSENCE_STATED:
            mentioned[name] = False
            sentences.append(str(rng.choice(_sayable(phrases()[name]["absent"], remarks))))
    for name in remarks:
        if REMARKS[name].section == section and rng.random() < MADE:
            sentences.append(str(rng.choice(REMARKS[name].texts)))
    if not first + sentences or rng.random() < 0.15:
        fillers = [t for t in FILLERS[section] if not (without and _OF_GALLBLADDER.search(t))]
        sentences.append(str(rng.choice(_sayable(fillers, remarks))))
    rng.shuffle(sentences)
    return " ".join(first + sentences)


def _sayable(texts, remarks):
    """Those of the texts that a study without contrast agent allows; else all."""
    if "unopacified_vessels" not in remarks:
        return texts
    return [t for t in texts if not _OF_CONTRAST.search(t)]


def _slots(found, rng):
    """Words for the template's braces."""
    details = dict(found.details)
    grade = 0 if found.severity < 0.38 else 1 if found.severity < 0.72 else 2
    words = {"degree": str(rng.choice(DEGREES[grade]))}
    if "size_mm" in details:
        mm = details["size_mm"]
        words["size"] = f"{mm / 10:.1f} cm" if rng.random() < 0.7 or mm > 60 else f"{mm:.0f} mm"
    for key in ("count", "percent"):
        if key in details:
            words[key] = f"{details[key]:.0f}"
    words.update({k: details[k] for k in ("side", "place", "grade") if k in details})
    return words


def _fill(templates, words, rng):
    fits = [t for t in templates if {f for _, f, _, _ in Formatter().parse(t) if f} <= set(words)]
    text = str(rng.choice(fits)).format(**words)
    return text[0].upper() + text[1:]


def _sentence(name, found, remarks, rng):
    text = _fill(_sayable(phrases()[name]["present"], remarks), _slots(found, rng), rng)
    if (
        found.severity < 0.45
        and rng.random() < 0.15
        and text.split()[0] not in ("The", "There", "Status")
    ):
        hedge = str(rng.choice(HEDGES))
        text = hedge + text[0].lower() + text[1:]
    return text


def _impression(stated, found, rng):
    if not stated:
        return str(rng.choice(NOTHING))
    worst = sorted(stated, key=lambda n: -found[n].severity)[: int(rng.integers(3, 7))]
    lines = [_fill(phrases()[n]["short"], _slots(found[n], rng), rng) for n in worst]
    return " ".join(f"{i}. {line}." for i, line in enumerate(lines, 1))


def _layout(sections, style, rng):
    if style == "prose":
        return " ".join(
            t if t not in NORMAL else f"{s.capitalize()} normal." for s, t in sections.items()
        )
    if style == "terse":
        return "\n".join(
            f"{TERSE_HEADINGS[s]}: {t.replace(' is ', ' ')}" for s, t in sections.items()
        )
    # The odd missing space after a full stop is true to dictation.
    gap = " " if rng.random() < 0.95 else ""
    return gap.join(f"{s[0].upper()}{s[1:]}: {t}" for s, t in sections.items())
