"""The radiologists who dictate: each with habits and words of his own, which no other uses.

Habits (layout, headings, words for degree and side, how often an absence is stated) stand in
`readers.yaml`, what each says of a finding in `dictation/<name>.yaml`. Some dictate no training
report (`is_known` is false), so what is judged on their reports was never read in training;
`sites.yaml` says who reads where.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from merlin.vocabulary import NAMES, SECTIONS, TERSE_HEADINGS

_HERE = Path(__file__).parent
_HABITS = yaml.safe_load((_HERE / "readers.yaml").read_text(encoding="utf-8"))
READERS: tuple[str, ...] = tuple(_HABITS)
_HEADINGS = {
    "long": {s: s.capitalize() for s in SECTIONS},
    "short": TERSE_HEADINGS,
    None: dict.fromkeys(SECTIONS, ""),
}


@dataclass(frozen=True)
class Words:
    """What one reader says of one finding; `{slots}` are filled from the finding."""

    present: tuple[str, ...]
    absent: tuple[str, ...]  # whole sentences, beside "no <noun>"
    noun: str  # what a list of absences names; empty where none fits
    short: str  # a line of the impression


@dataclass(frozen=True)
class Reader:
    """How one radiologist dictates; see `readers.yaml`."""

    name: str
    layout: str  # run on, lines, prose, paragraphs
    normal: tuple[str, ...]
    nothing: tuple[str, ...]
    deny: str
    qualifiers: tuple[str, ...]  # no *significant* effusion
    sizes: str  # cm, mm, both
    counts: str  # digits, words
    degrees: tuple[tuple[str, ...], ...]  # mild, moderate, severe
    amounts: tuple[tuple[str, ...], ...]
    adverbs: tuple[str, ...]
    hedges: tuple[str, ...]
    impression: str  # numbers, lines, sentences
    lists: float
    denies: float
    remarks: float
    headings: Mapping[str, str]
    words: Mapping[str, Words]
    joins: float = 0.0
    is_known: bool = True  # dictates training reports
    order: tuple[str, ...] = SECTIONS
    sides: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_headings(self) -> bool:
        """Whether sections are headed; prose and paragraphs name the organ instead."""
        return self.layout in ("run on", "lines")


@cache
def reader(name: str) -> Reader:
    """The reader of this name.

    Raises
    ------
    KeyError
        For a name that `readers.yaml` lacks.
    """
    habits: dict[str, Any] = dict(_HABITS[name])
    headings = habits.pop("headings", None)
    if not isinstance(headings, dict):
        headings = _HEADINGS[headings]
    said = yaml.safe_load((_HERE / "dictation" / f"{name}.yaml").read_text(encoding="utf-8"))
    words = {
        n: Words(
            tuple(said[n]["present"]), tuple(said[n]["absent"]), said[n].get("noun", ""),
            said[n]["short"],
        )
        for n in NAMES
    }  # fmt: skip
    for key in ("degrees", "amounts"):
        habits[key] = tuple(tuple(w) for w in habits[key])
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in habits.items()}
    return Reader(name=name, headings=headings, words=words, **plain)
