"""What a sentence says of a phrase in it: present, absent, left open, history, or another person's.

A small grammar in the manner of NegEx and ConText (Chapman et al. 2001, Harkema et al. 2009). Its
triggers stand in `negation.yaml`; this module says how far each reaches. What differs from NegEx:

- What only looks like a denial ("no change in", "not relieved by") is a trigger too and hides the
  words in it.
- A denial ahead of a phrase reaches along a list and through words of evidence ("no signs
  consistent with"), and ends where something new is said: at *but*, *with*, *there is*, at a verb
  and a conjunction, at ", mild". A denial behind ("A, B or C was not detected") reaches back over
  the list, but not over another verb.
- History, other people and open questions are told apart from denial: callers count them as they
  like.

Nothing here knows a finding. Errors on sentences written before they were first read, and those of
negspacy on the same ones, stand in `tables/label_errors.csv`.
"""

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import yaml

# Kinds of trigger by the side of the phrase on which they are looked for, the first one first.
_KINDS = {
    "left": (
        "pseudo", "open_before", "open_both", "doubtful_evidence", "evidence", "closed", "before",
        "near", "past", "relative", "stop", "stop_before",
    ),
    "right": ("pseudo", "open_after", "open_both", "after", "near", "before", "stop"),
}  # fmt: skip
REACH = 500  # characters, the longest list that a denial governs


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


def with_words(pattern: str, words: dict[str, str]) -> str:
    """A pattern with each `<word>` replaced by its entry of `words`, also within entries."""
    while (filled := re.sub(r"<(\w+)>", lambda m: words.get(m[1], m[0]), pattern)) != pattern:
        pattern = filled
    return pattern


_RULES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_BOUND = {
    name: _pattern("|".join(with_words(p, _RULES["words"]) for p in patterns))
    for name, patterns in _RULES["bounds"].items()
}
_JOINT = re.compile(r",(?:\s*and\b)?|\band\b")
_NEXT_TO = re.compile(r"\s*(?:(?!and\b|or\b)[\w-]+\s+){0,4}")
_NEW_CLAUSE = re.compile(r"\b(?:is|are|remains?|appears?)\b")


Trigger = tuple[int, int, str]  # start, end and kind


class Statement(NamedTuple):
    """What a sentence says of a phrase."""

    polarity: str  # "present", "absent" or "uncertain"
    is_history: bool = False
    is_relative: bool = False  # of somebody else


def assertion(sentence: str, phrase: str) -> str:
    """What a sentence says of a phrase in it.

    Parameters
    ----------
    sentence : str
    phrase : str
        A condition, as it stands in the sentence (case, spaces and punctuation ignored). Of several
        mentions a present one outweighs.

    Returns
    -------
    {"present", "absent", "uncertain", "history", "other"}
        A denial comes first: "no history of stroke" is absent. "other" is another person's.

    Raises
    ------
    ValueError
        Where the phrase is not in the sentence.

    Examples
    --------
    >>> assertion("He denies chest pain, but has a cough.", "chest pain")
    'absent'
    >>> assertion("History of asthma; rule out pneumonia.", "pneumonia")
    'uncertain'
    """
    pattern = r"\W+".join(re.escape(word) for word in re.findall(r"[\w'+%/]+", phrase))
    found = list(re.finditer(rf"(?<!\w){pattern}(?!\w)", sentence, re.IGNORECASE))
    found = found or list(re.finditer(pattern, sentence, re.IGNORECASE))
    if not pattern or not found:
        raise ValueError(f"the phrase {phrase!r} is not in the sentence {sentence!r}")
    said = {_in_a_word(statement(sentence, m.start(), m.end())) for m in found}
    return next(w for w in ("present", "uncertain", "history", "other", "absent") if w in said)


def _in_a_word(said: Statement) -> str:
    if said.polarity == "absent":
        return "absent"
    return "other" if said.is_relative else "history" if said.is_history else said.polarity


def statement(sentence: str, start: int, end: int) -> Statement:
    """What a sentence says of the phrase at `sentence[start:end]`.

    Parameters
    ----------
    sentence : str
    start, end : int
        Characters.

    Returns
    -------
    Statement
    """
    all_left = _triggers(sentence, "left")
    inside = [(b, e, kind) for b, e, kind in all_left if start <= b and e <= end]
    if any(kind in ("before", "near") and sentence[e - 1] != "-" for b, e, kind in inside):
        return Statement("absent")  # "no acute distress" as a phrase, no "non-Hodgkin lymphoma"
    if any(kind == "pseudo" and _is_denial(sentence, start, end, b, e) for b, e, kind in all_left):
        return Statement("absent")
    left = [t for t in all_left if t[1] <= start]
    right = [t for t in _triggers(sentence, "right") if t[0] >= end]
    polarity = _from_left(sentence, start, end, left)
    if polarity != "absent":
        polarity = _from_right(sentence, start, end, right) or polarity
    if polarity == "absent" and _BOUND["other_side"].match(sentence[end:]):
        if re.search(r"\b(?:left|right)\b", sentence[: end + 20], re.IGNORECASE):
            polarity = "present"
    return Statement(polarity or "present", *_background(sentence, start, end, left))


def _is_denial(sentence: str, start: int, end: int, begin: int, stop: int) -> bool:
    """Whether what only looks like a denial is one: "heart size is not increased" as the phrase."""
    within = start < begin and stop == end
    if _BOUND["still"].search(sentence[end:]):  # "has not increased and remains enlarged"
        return False
    return (within or begin < start < stop) and "increase" in sentence[begin:stop].lower()


@cache
def _grammar(side: str) -> re.Pattern[str]:
    """One pattern for the triggers of a side; a trigger begins and ends with a word, if with one."""
    words = _RULES["words"]
    kinds = (
        f"(?P<{kind}>{'|'.join(f'(?:{with_words(p, words)})' for p in _RULES[kind])})"
        for kind in _KINDS[side]
    )
    return _pattern(rf"(?:(?<!\w)(?=\w)|(?=\W))(?:{'|'.join(kinds)})(?:(?<=\w)(?!\w)|(?<=\W)|$)")


@lru_cache(maxsize=50_000)  # a sentence is asked for many findings
def _triggers(sentence: str, side: str) -> tuple[Trigger, ...]:
    """(start, end, kind) of the triggers to be looked for on this side of a phrase."""
    found = _grammar(side).finditer(sentence)
    return tuple((m.start(), m.end(), m.lastgroup or "") for m in found if m.end() > m.start())


def _from_left(sentence: str, start: int, end: int, triggers: list[Trigger]) -> str | None:
    """Polarity by what comes before the phrase, or None; the nearest trigger first."""
    after, through, polarity, is_purpose = sentence[end:], start, None, False
    for begin, stop, kind in reversed(triggers):
        between = sentence[stop:through]
        if kind in ("stop", "closed", "stop_before") or len(between) > REACH:
            break
        if kind == "near" and _NEXT_TO.fullmatch(between):
            if not between or sentence[stop - 1] != "-":  # a "non-" denies the next word only
                return "absent"
        if kind in ("near", "pseudo", "past", "relative"):
            continue
        if not is_purpose and _is_over(between, after, sentence[through:]):
            break
        if kind.startswith("open"):
            return "uncertain"
        if kind == "before":  # but "no free air, consistent with ..." denies nothing behind
            is_broken = through < start and "," in between and not is_purpose
            return polarity if is_broken else "absent"
        is_purpose = sentence[:begin].endswith(" to ")  # "no defects in A, B or C to suggest ..."
        polarity = "uncertain" if kind == "doubtful_evidence" else polarity
        through = begin
    return polarity


def _background(sentence: str, start: int, end: int, triggers: list[Trigger]) -> tuple[bool, bool]:
    """(is history, is another person's): what sets the phrase aside, up to a denial or a stop."""
    history = relative = is_out = False
    for begin, stop, kind in reversed(triggers):
        between = sentence[stop:start]
        if kind in ("stop", "before") or kind.startswith("open") or len(between) > REACH:
            break
        is_out |= kind in ("closed", "stop_before")
        relative |= kind == "relative"
        if kind != "past" or is_out or _is_over(between, sentence[end:], sentence[start:]):
            continue
        if "," in between and _NEW_CLAUSE.search(sentence[start : end + 40]):
            continue
        if sentence[begin:stop].split()[0].lower() in ("prior", "previous", "remote", "previously"):
            history |= len(between.split()) < 4 and not _BOUND["now"].search(sentence[end:])
        else:
            history = True
    return history, relative


def _is_over(between: str, after: str, rest: str) -> bool:
    """Whether a denial's list has ended before the phrase; `rest` is what follows `between`."""
    between = re.split(r"\b(?:including|such as|specifically)\b", between)[-1]
    if _BOUND["new_statement"].search(between):
        return True
    joints = [m.start() for m in _JOINT.finditer(between)]
    if joints and between.count(",") < 2 and not _BOUND["goes_on"].match(after):
        if _BOUND["own_clause"].match(between[joints[-1] :] + rest[:200]):
            return True
    last = between.rfind(",")
    if last < 0 or re.search(r"\b(?:or|nor)\b", between[last:]):
        return False
    is_new = _BOUND["new_noun"].match(between[last:]) or between[:last].endswith(")")
    if is_new and not _BOUND["goes_on"].match(after):
        return True
    return bool(_BOUND["stands"].match(after))


def _from_right(sentence: str, start: int, end: int, triggers: list[Trigger]) -> str | None:
    """Polarity by what follows the phrase, or None."""
    for begin, stop, kind in triggers:
        gap = _BOUND["that_was"].sub("", sentence[end:begin])
        if kind == "pseudo":
            continue
        # A verb between belongs to the phrase; "before" is another denial: "cough, no fever".
        if kind in ("stop", "before") or _BOUND["verb"].search(gap) or len(gap.split()) > 16:
            return None
        if kind.startswith("open"):
            return "uncertain"
        if "," in gap or " and " in gap:  # a list, unless its first part has been stated
            if _BOUND["asserted"].search(sentence[:start]) or _BOUND["verb"].search(
                sentence[start:end]
            ):
                return None
            if _BOUND["qualified"].search(gap.rpartition(",")[0]):
                return None
        if kind == "near" and gap.strip(" ,"):
            return None
        if not _is_far(sentence[begin:stop].strip(" -").lower(), gap):
            return None if _BOUND["mixed"].match(sentence[stop:]) else "absent"
    return None


def _is_far(word: str, gap: str) -> bool:
    """Whether a denial that must stand close does not: "pain free", "culture negative"."""
    return bool(gap.strip()) if word == "free" else word in ("negative", "unlikely") and "," in gap
