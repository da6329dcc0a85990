"""A report as folded words, and what in it may name a person or a day whoever they are.

Dates, telephone and other long numbers, addresses of mail, titles and signatures with the name that
follows: each is counted, none is proof. The regular expressions are in `patterns.yaml`.
"""

import functools
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import yaml

from merlin.readers.folding import (
    APOSTROPHES,
    JOINED,
    fold,
    is_joined,
    months,
    plain_sign,
    vocabulary,
)

_WORD = re.compile(rf"[{JOINED}]+|(?:(?![{JOINED}])[^\W\d_])+")
DELETED = "<DELETED>"


class Word(NamedTuple):
    """A run of letters: its place in the plain text, folded letters, and is it Title, UPPER or lower."""

    start: int
    end: int
    letters: str
    shape: str


class Span(NamedTuple):
    """Where something was found, and what."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Text:
    """A text with plain signs, its words, and the place of each sign in the text as given."""

    plain: str
    places: list[int] | None
    words: list[Word]
    is_shouted: bool

    def gap(self, i: int) -> str:
        """What stands between a word and the next."""
        return self.plain[self.words[i].end : self.words[i + 1].start]

    @functools.cached_property
    def dates(self) -> list[tuple[int, int, set[tuple[int, int, int]]]]:
        """`dates_in` of the plain text."""
        return list(dates_in(self))

    @functools.cached_property
    def titled(self) -> list[tuple[int, int, int]]:
        """Word numbers of titles, and of the first and last word of the name after each."""
        return list(_titled(self))

    def before(self, i: int) -> str:
        """Up to twelve signs before a word."""
        start = self.words[i].start
        return self.plain[max(start - 12, 0) : start]

    def spans(self, found: list[Span]) -> list[Span]:
        """The same spans in the text as given."""
        if self.places is None:
            return found
        return [Span(self.places[s.start], self.places[s.end - 1] + 1, s.kind) for s in found]


def _begins_word(word, k):
    return word[k].isupper() and (word[k - 1].islower() or word[k + 3 : k + 4].islower())


def read_text(text: str) -> Text:
    """A text's plain signs and words."""
    places, plain = None, text
    if not text.isascii():
        kept = [(i, p) for i, sign in enumerate(text) if (p := plain_sign(sign))]
        places, plain = [i for i, _ in kept], "".join(p for _, p in kept)
    words = []
    for match in _WORD.finditer(plain):
        word, at = match[0], match.start()
        if word.islower() or word.isupper() or word[1:].islower():
            cuts = [0, len(word)]
        else:  # a blank may be lost: MrsLorenz; names are looked up over such cuts, too
            inside = [k for k in range(1, len(word)) if _begins_word(word, k)]
            cuts = [0, *inside, len(word)]
        for a, b in pairwise(cuts):
            part = word[a:b]
            upper = part.isupper() and (len(part) > 1)
            shape = "lower" if part[0].islower() else "upper" if upper else "title"
            words.append(Word(at + a, at + b, fold(part), shape))
    n_upper = sum(w.shape == "upper" for w in words)
    return Text(plain, places, words, len(words) > 3 and n_upper > 0.7 * len(words))


_SAID = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_PARTS_OF = _SAID["parts"] | {"joined": JOINED, "eras": "|".join(_SAID["eras"])}


def _built(pattern: str) -> str:
    """A regular expression with its `{parts}` in place."""
    return re.sub(r"\{([a-z_]+)\}", lambda m: _built(_PARTS_OF[m[1]]), pattern)


_NUMBERS = [(k, re.compile(_built(p)), n) for k, rows in _SAID["numbers"].items() for n, p in rows]
_DATES = [re.compile(_built(p + "{time}")) for p in _SAID["dates"]]
_WORD_DATES = [re.compile(_built(p + "{time}")) for p in _SAID["word_dates"]]
_FIELD = re.compile("|".join(map(_built, _SAID["fields"])))
_DEGREE = re.compile(_built(_SAID["degree"]))


def dates_in(text: Text) -> Iterator[tuple[int, int, set[tuple[int, int, int]]]]:
    """Start and end of each date, and the (year, month, day) that it may mean; 0 for what it leaves out."""
    if not re.search(r"\d", text.plain):
        return
    for pattern in _DATES:
        for m in pattern.finditer(text.plain):
            said = m.groupdict()
            a, b, y = (int(said.get(k) or 0) for k in "aby")
            year = y + _SAID["eras"].get(said.get("e"), 0)
            readings = {(year, x, z) for x, z in ((b, a), (a, b)) if x <= 12 and z <= 31}
            if readings and (a or b):
                yield m.start(), m.end(), readings
    for word in text.words:
        if not (month := months().get(word.letters)):
            continue
        near = max(word.start - 10, 0), word.end + 24
        for m in (m for p in _WORD_DATES for m in p.finditer(text.plain, *near)):
            said = m.groupdict()
            day = int(said.get("a") or 0)
            # `may` and `mar` are words: without a year, the month needs its capital or more letters.
            is_month = said.get("y") or word.shape != "lower" or len(word.letters) > 3
            if "bare" in said:  # MAR reduces artefacts, OCT is another modality
                is_plain = len(word.letters) > 3 or word.letters not in ("mar", "may", "oct")
                is_month = word.shape == "title" or (word.shape == "upper" and is_plain)
                is_month = is_month and word.letters not in ("set", "out", "ago")
            if m.start("m") == word.start and day <= 31 and is_month:
                yield m.start(), m.end(), {(int(said.get("y") or 0), month, day)}


def find_patterns(text: Text) -> list[Span]:
    """All that may name a person or a day in a text, places in its plain signs."""
    spans = [Span(a, b, "date") for a, b, _ in text.dates]
    for kind, pattern, n_digits in _NUMBERS:
        for m in pattern.finditer(text.plain):
            if sum(c.isdigit() for c in m[0]) >= n_digits:
                spans.append(Span(m.start(), m.end(), kind))
    words = text.words
    spans += [Span(words[i].start, words[k].end, "titled name") for i, _, k in text.titled]
    spans += [Span(words[j].start, words[k].end, "signature") for j, k in _signatures(text)]
    spans += [Span(*m.span(m.lastindex or 0), "signature") for m in _FIELD.finditer(text.plain)]
    return outermost(spans)


def outermost(spans: list[Span]) -> list[Span]:
    """Spans that lie in no other, in order: a date is not a long number, too."""
    kept: list[Span] = []
    for span in sorted(dict.fromkeys(spans), key=lambda s: (s.start, -s.end)):
        if not kept or span.end > kept[-1].end:
            kept.append(span)
    return kept


def is_title(text: Text, i: int) -> bool:
    """Whether a word announces a name: Dr., Frau, Mme."""
    said, word = vocabulary(), text.words[i]
    is_dotted = word.letters in said["dotted"]
    if not (is_dotted or word.letters in said["titles"]) or re.search(r"\d ?$", text.before(i)):
        return False  # 12 Fr, 24 hr
    has_dot = text.plain[word.end : word.end + 1] == "."
    if is_dotted and word.end - word.start == 1:  # M. Dupont, not 10 a.m.
        return has_dot and word.shape != "lower" and not text.before(i).endswith(".")
    if is_dotted:
        return has_dot or word.shape == "title"
    return (
        has_dot
        or word.shape != "lower"
        or len(word.letters) > 3
        or word.letters in said["undotted"]
    )


def _titled(text: Text) -> Iterator[tuple[int, int, int]]:
    """Word numbers of a title, of the first word of the name that follows, and of its last."""
    said, words, i = vocabulary(), text.words, 0
    while i < len(words):
        if not is_title(text, i):
            i += 1
            continue
        j = i
        while j + 1 < len(words) and re.fullmatch(r"[. -]{0,3}\s?", text.gap(j)):
            j += 1
            if not (is_title(text, j) or words[j].letters in said["after_title"]):
                break
        has_dot = "." in text.plain[words[i].end : words[j].start]
        k = None
        if j > i:
            title, is_one = words[i], words[i].end - words[i].start == 1
            is_plain = (
                title.letters not in said["no_lower"] and not is_one
            )  # M. psoas, MR. enterography
            is_plain = is_plain and not (title.letters in said["dotted"] and title.shape == "upper")
            may_be_lower = (has_dot or title.letters in said["undotted"]) and is_plain
            k = _name_end(text, j, may_be_lower=may_be_lower, with_comma=title.letters == "drs")
            if is_one and words[j].letters in said["eponyms"]:  # M. Crohn
                k = None
        while (
            k
            and words[i].letters == "drs"
            and k + 2 < len(words)
            and (words[k + 1].letters == "and" and words[k + 2].shape != "lower")
        ):
            k += 2
        if words[i].letters in said["dotted"] and (
            (k == j and words[j].end - words[j].start == 1)
            or (not has_dot and words[j].shape == "upper")
        ):  # M.D., Pan CT
            k = None
        if k is not None:
            yield i, j, k
        i = max(i, j if k is None else k) + (k is not None or j == i)


def _name_end(text: Text, j: int, *, may_be_lower=False, with_comma=False) -> int | None:
    """Number of the last word of a name that begins at a word, or None."""
    said, words, last = vocabulary(), text.words, None
    first, n = j, 0
    while j < len(words) and n < 5:
        word = words[j]
        if j > first:
            is_initial = words[j - 1].end - words[j - 1].start == 1
            gaps = r"[ '-]?|\. ?" if is_initial else r", ?|[ '-]?" if with_comma else "[ '-]?"
            if not re.fullmatch(gaps, text.gap(j - 1)) or (last is not None and is_title(text, j)):
                break
        is_name = word.shape != "lower" and (n == 0 or word.letters not in said["ordinary"])
        if n == 1 and word.shape == words[first].shape and (with_comma or word.shape == "title"):
            is_name = is_name or (len(word.letters) > 2 and word.shape != "lower")  # Will Brown
        if may_be_lower and n == 0 and len(word.letters) > 1:
            is_name = (
                is_name or word.letters not in said["ordinary"] | said["told"] | said["signed"]
            )
        if is_name:
            last, n = j, n + 1
        elif word.letters not in said["particles"]:
            break
        j += 1
    return last


def _signatures(text: Text) -> Iterator[tuple[int, int]]:
    """First and last word numbers of names that sign, or stand in a field for a person's name."""
    said, words = vocabulary(), text.words
    openers = said["signed"] | said["labels"] | said["told"] | said["fields"]
    for i, word in enumerate(words[:-1]):
        if word.letters not in openers:
            continue
        least, j = _signs_from(text, i, said)
        while j and j < len(words) - 1 and is_title(text, j):
            j += 1
        k = _name_end(text, j, with_comma=True) if j else None
        if k is None or k - j + 1 < least or "\n\n" in text.plain[word.end : words[j].start]:
            continue
        first = words[j]
        is_short = first.shape == "upper" and first.end - first.start < 4 and k == j  # by MRI
        is_pair = (
            k > j
            and words[k].letters not in said["ordinary"]
            and word.letters not in said["orders"]
        )
        if (is_pair or first.letters not in said["ordinary"]) and not is_short:
            yield j, k
    words_at = functools.partial(bisect_left, words, key=lambda w: w.start)
    for m in _DEGREE.finditer(text.plain):
        inside = list(range(words_at(m.start(1)), words_at(m.end(1))))
        for n in reversed(inside[:-1]):  # what stands before a sentence's end is no name's part
            if words[n].shape == "lower" or (len(words[n].letters) > 1 and "." in text.gap(n)):
                inside = inside[inside.index(n) + 1 :]
                break
        if inside and all(words[n].shape != "lower" for n in inside):
            yield inside[0], inside[-1]


def _signs_from(text, i, said):
    """How many words the name after a word like `signed` must have, and which may be the first; 0: none."""
    word, gap = text.words[i].letters, text.gap(i)
    if word in said["labels"]:
        return 1, i + 1 if ":" in gap or word == "gez" else 0
    if word in said["signed"] | said["fields"] and ":" in gap:
        return 2, i + 1
    if word in said["fields"]:
        return 2, 0
    least, by = (1, said["by"]) if word in said["signed"] else (2, said["said_to"])
    for k in range(i + 1, min(i + 6, len(text.words) - 1)):
        if re.search(r"[.!?]\s", text.gap(k - 1)):
            break
        if text.words[k].letters in by:
            return least, k + 1
    return least, 0


def redact(text: str, spans: Iterable[Span]) -> str:
    """The text with what was found replaced, words as a whole and a name's parts as one.

    Parameters
    ----------
    text : str
    spans : iterable of Span
        Places in the text as given.
    """
    merged: list[list[int]] = []
    whole: list[Span] = []
    until = -1  # end of a word in which nothing needs to be drawn to its ends again
    for span in sorted(spans):
        if span.end > until:
            whole.append(_whole_word(text, span))
            is_name = not any(c.isdigit() for c in text[whole[-1].start : whole[-1].end])
            until = whole[-1].end if is_name else -1
    for start, end, _ in sorted(whole):
        last = merged[-1][1] if merged else 0
        parts = _PARTS if text[last - 2 : last - 1].isalnum() else _AFTER_INITIAL
        if merged and (start <= last or parts.fullmatch(text[last:start])):
            merged[-1][1] = max(end, last)
        else:
            merged.append([start, end])
    for start, end in reversed(merged):
        text = text[:start] + DELETED + text[end:]
    return text


_PARTS = re.compile(r"[\s,'’‐-―-]{1,2}(?:[^\W\d_]\.? )?")
_AFTER_INITIAL = re.compile(r"\.?[\s,'’‐-―-]{0,2}(?:[^\W\d_]\.? )?")


def _whole_word(text, span):
    """A span to the ends of its word, with what hyphens and apostrophes tie to it."""
    start, end, kind = span

    def goes_on(at, step):
        sign = text[at : at + 1] if at >= 0 else ""
        if not sign or (is_joined(sign) and sign not in "\uff9e\uff9f"):
            return False
        if sign.isalnum() or unicodedata.category(sign) in ("Mn", "Mc", "Me", "Cf"):
            return True
        beyond = text[at + step : at + step + 1] if at + step >= 0 else ""
        return sign in APOSTROPHES + "-‐‑_?\ufffd" and beyond.isalpha() and not is_joined(beyond)

    is_name = not any(c.isdigit() for c in text[start:end])
    while (is_name or text[start - 1 : start].isalnum()) and goes_on(start - 1, -1):
        start -= 1
    while (is_name or text[end : end + 1].isalnum()) and goes_on(end, 1):
        end += 1
    return Span(start, end, kind)
