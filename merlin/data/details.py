"""Report text → side, degree, count and size of each finding that it states.

A report that names the wrong kidney is wrong, and labels alone don't see it. What is read stands in
the same sentence as the finding, up to the next finding's words. Words of degree are brought to
mild, moderate and severe (`details.yaml`), sizes to millimetres.
"""

import re
from pathlib import Path

import yaml

from merlin.data.extract import mentions

_SAID = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_SIDES = {name: re.compile(p, re.IGNORECASE) for name, p in _SAID["sides"].items()}
_DEGREES = {name: re.compile(p, re.IGNORECASE) for name, p in _SAID["degrees"].items()}
_NUMBERS: dict[str, int | str] = {word: n for n, word in enumerate(_SAID["numbers"])}
_SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*-?\s*(cm|mm)\b", re.IGNORECASE)
_PERCENT = re.compile(r"(\d+)\s*(?:percent\b|%)", re.IGNORECASE)
_ANY = rf"\d{{1,2}}|{'|'.join(_NUMBERS)}"
_N = rf"\b({'|'.join(_NUMBERS)}|\d{{1,2}})\b(?!\s*(?:cm|mm|percent|%)|\.\d)"
_COUNT = re.compile(  # "4 renal lesions"; "lesions x 4", "lesions (n=4)"; ", 4 in number"
    rf"(?<![\d.])(?:{_N}(?:,?\s+[\w-]+){{0,5}}?\s+{_SAID['counted']}|"
    rf"{_SAID['counted']}[\w ]*?(?:x |\(|\(n\s?=\s?|[,-] (?:\w+,? (?:x )?)?(?:n = )?|number ){_N}|"
    rf"[,(] ?{_N}(?= in number| lesions|[,.)]|$))",
    re.IGNORECASE,
)


def details_of(text: str) -> dict[str, dict[str, str | float]]:
    """What a report says of each finding that it states.

    Parameters
    ----------
    text : str
        Findings or an impression, of any reader.

    Returns
    -------
    dict of str to dict
        Finding → those of `side` (right, left, bilateral), `degree` (mild, moderate, severe),
        `count`, `size_mm` (the largest) and `percent` that its sentence gives. A finding that is
        stated without any has an empty dict; one that is denied or not named is left out.

    Examples
    --------
    >>> details_of("Kidneys: Moderate left hydronephrosis. Right renal cyst, 3.2 cm.")
    {'hydronephrosis': {'side': 'left', 'degree': 'moderate'}, 'renal_cyst': {'side': 'right', 'size_mm': 32.0}}
    """
    found: dict[str, dict[str, str | float]] = {}
    for sentence, names in mentions(text):
        for name, (start, end) in names.items():
            others = [
                span for n, span in names.items() if n != name and not _meet(span, (start, end))
            ]
            low = max((_cut(sentence, e, start) for b, e in others if e <= start), default=0)
            high = min((_cut(sentence, end, b) for b, _ in others if b >= end), default=None)
            said = _read(sentence[low:high], start - low)
            if name in _SAID["sized"]:
                said.pop("degree", None)
            found[name] = said | found.get(name, {})
    return found


def _cut(sentence: str, end: int, start: int) -> int:
    """Where one finding's words end and the next one's begin: the last comma or *and* between."""
    joints = list(re.finditer(r",|\band\b|\bwith\b", sentence[end:start]))
    return end + joints[-1].start() if joints else (end + start) // 2


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _read(part: str, at: int) -> dict[str, str | float]:
    """Details in a part of a sentence; of several words of degree or side the nearest to `at`."""
    said: dict[str, str | float] = {}
    for key, patterns in (("side", _SIDES), ("degree", _DEGREES)):
        hits = [
            (abs(m.start() - at), name) for name, p in patterns.items() for m in p.finditer(part)
        ]
        if hits:
            said[key] = min(hits)[1]
    if count := _COUNT.search(part):
        word = next(g for g in count.groups() if g).lower()
        said["count"] = float(_NUMBERS.get(word, word))
    sizes = [float(v) * (10 if unit.lower() == "cm" else 1) for v, unit in _SIZE.findall(part)]
    if sizes:
        said["size_mm"] = round(max(sizes), 1)
    if percent := _PERCENT.search(part):
        said["percent"] = float(percent[1])
    return said
