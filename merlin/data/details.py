"""What a report says of its findings beyond their presence: side, degree, count and size."""

import re

from merlin.data.extract import _FULL_STOP, _by_heading, _sentence_labels

_SIDES = {"left": r"left|lt\.?", "right": r"right|rt\.?", "bilateral": r"bilateral(?:ly)?|both"}
_DEGREES = {
    "mild": "mild(?:ly)?|minimal(?:ly)?|small|trace|slight(?:ly)?",
    "moderate": "moderate(?:ly)?",
    "severe": "severe(?:ly)?|marked(?:ly)?|large|massive",
}
_COUNTS = {w: n for n, w in enumerate(("two", "three", "four", "five", "six"), 2)}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(cm|mm)\b", re.IGNORECASE)


def details_of(text: str) -> dict[str, dict]:
    """Details of each finding that a text states as present, from the sentence that states it first.

    Returns
    -------
    dict of finding to dict
        `side` (left, right or bilateral), `degree` (mild, moderate or severe), `count` and `size_mm`, where said.
    """
    found: dict[str, dict] = {}
    for heading, body in _by_heading(text):
        for sentence in _FULL_STOP.split(body):
            names = [n for n, value in _sentence_labels(sentence, heading) if value == 1]
            said = _details(sentence) if names else {}
            found |= {n: said for n in names if n not in found}
    return found


def _details(sentence: str) -> dict:
    said: dict = {}
    sides = [s for s, words in _SIDES.items() if _has(words, sentence)]
    if sides:
        said["side"] = sides[0] if len(sides) == 1 else "bilateral"
    if degrees := [d for d, words in _DEGREES.items() if _has(words, sentence)]:
        said["degree"] = degrees[0]
    if counts := [n for w, n in _COUNTS.items() if _has(w, sentence)]:
        said["count"] = counts[0]
    if size := _SIZE.search(sentence):
        said["size_mm"] = float(size[1]) * (10 if size[2].lower() == "cm" else 1)
    return said


def _has(words: str, sentence: str) -> bool:
    return bool(re.search(rf"\b(?:{words})(?!\w)", sentence, re.IGNORECASE))
