"""Where a text says a name, number or birth date that is looked for, however it spells it.

Headers and text are folded to bare letters (no case, accents or width; ä, ae and a meet, ø and o, ß and
ss; Cyrillic and Greek in Latin letters), hyphens, apostrophes and blanks inside a name are optional, a
short list of endings may follow, and in scripts without blanks any place counts.
"""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from merlin.readers.folding import JOINED, fold, is_joined, meet, vocabulary
from merlin.readers.patterns import Span, Text, read_text
from merlin.readers.persons import LONGEST, Words

OWN, PERSON, OTHER_NUMBER = "own identifier", "name of another person", "number of another study"


def common_words(texts: Iterable[str]) -> frozenset[str]:
    """Words of so many texts that they are no find where somebody else is called so."""
    seen: Counter[str] = Counter()
    n = 0
    for text in texts:
        n += 1
        seen.update({meet(w.letters) for w in read_text(text).words})
    return frozenset(w for w, k in seen.items() if k > max(3, n / 200))


def find(
    text: Text,
    words: Words,
    kind: str = OWN,
    *,
    is_own: bool = True,
    common: frozenset[str] = frozenset(),
) -> list[Span]:
    """Where a text says what is looked for.

    A name of four letters and more counts in any case, with an ending only with its capital. Shorter
    ones, and those that are ordinary words, need a capital inside a sentence, a title or another part
    of the name beside them.

    Parameters
    ----------
    text : Text
        From `read_text`.
    words : Words
    kind : str
        Of the spans.
    is_own : bool
        False for names of people who need not have to do with this text: they must have a capital, and
        five letters or a title or another name beside them, and be no eponym and none of `common`.
    common : frozenset of str
        From `common_words`.

    Returns
    -------
    list of Span
        Places in the text's plain signs.
    """
    places = [
        *_find_names(text, words, is_own, common),
        *_find_joined(text, words, is_own),
        *find_numbers(text, words.numbers),
        *(d[:2] for d in text.dates if _is_birth(d[2], words.births)),
        *(
            m.span()
            for pattern in ((_SIX, _SPACED) if words.births else ())
            for m in pattern.finditer(text.plain)
            if _is_six(m, words.births)
        ),
    ]
    return [Span(a, b, kind) for a, b in places]


_INSIDE = re.compile(r"\s?[-']?\s{0,2}|\. ?")  # what may stand between words of one name
_BESIDE = re.compile(r",? |[ .'-]{0,2}")
_NAMED = re.compile(r"(?i)\b(?:patient|pt|name)(?: ?: ?| )$")


def _find_names(text, words, is_own, common):
    """Start and end of names in letters with blanks."""
    if not words.names:
        return
    titled = {k for _, first, last in text.titled for k in range(first, last + 1)}
    found: dict[str, dict[int, str]] = {"strong": {}, "weak": {}, "lower": {}}  # word → its run
    for i, word in enumerate(text.words):
        is_titled = i in titled or (
            is_own and word.shape != "lower" and bool(_NAMED.search(text.before(i)))
        )
        for j, run, met in _runs(text, i, words):
            if said := _strength(text, i, j, run, met, words, is_titled, is_own, common):
                found[said].update(dict.fromkeys(range(i, j + 1), met))
    strong, weak, either = set(found["strong"]), found["weak"], found["lower"] | found["weak"]
    for k, m in pairwise(sorted(either)) if is_own else ():  # rose young
        pair = {either[k], either[m]}
        is_beside = m == k + 1 and _BESIDE.fullmatch(text.gap(k))
        if is_beside and len(pair) == 2 and sum(map(len, pair)) > 6:
            strong |= {k, m}
    for k in sorted(_with_kin(text, words, strong, weak, is_own)):
        yield text.words[k].start, text.words[k].end


def _runs(text, i, words):
    """Last word, letters and met letters of each run of words, from one word on, that may be a name."""
    run = ""
    for j in range(i, min(i + 4 * LONGEST, len(text.words))):
        if j > i and not _INSIDE.fullmatch(text.gap(j - 1)):
            return
        run += text.words[j].letters
        if j >= i + LONGEST and len(run) > j - i + 1:  # single letters are a name spaced out
            return
        met = meet(run)
        has_prefix = "\u0590" <= run[:1] < "\u0700"  # particles of Arabic and Hebrew
        may_go_on = has_prefix or len(met) < 4 or met[:4] in words.openings
        if not may_go_on and met[:3] not in words.openings:
            return
        yield j, run, met


def _with_kin(text, words, strong, weak, is_own):
    """Numbers of the words that are names, with those that are one beside another name only."""
    if not strong and not weak:
        return strong
    n, said = len(text.words), vocabulary()
    beside = [k for k in range(n - 1) if _BESIDE.fullmatch(text.gap(k))]
    for k in beside:  # two parts of a name that alone are none: Rose Young; Li, An; E. Wood
        pair = {weak.get(k), weak.get(k + 1)}
        if None not in pair and len(pair) == 2 and (is_own or pair - said["met ordinary"]):
            strong |= {k, k + 1}
        for name, initial in ((k, k + 1), (k + 1, k)):
            is_initial = len(text.words[initial].letters) == 1 and (
                initial > name or "." in text.gap(k)
            )
            if is_own and name in weak and is_initial and _goes_with(text.words[initial], words):
                strong |= {k, k + 1}
    for steps in ([(k, k + 1) for k in beside], [(k + 1, k) for k in reversed(beside)]):
        for known, other in steps:
            if known in strong and (other in weak or _goes_with(text.words[other], words)):
                strong.add(other)
    between = {k for k in beside if k - 1 in strong and k + 1 in strong}
    return strong | {k for k in between if text.words[k].letters in said["particles"]}


def _strength(text, i, j, run, met, words, is_titled, is_own, common):
    """Whether a run of words tells a person alone (strong), beside another name (weak), or not."""
    said, first = vocabulary(), text.words[i]
    has_capital = first.shape != "lower"
    n_letters = len(run)
    name = met if met in words.names else ""
    # Endings hang on whole words: Testy in McTesty is no form of Testa.
    if not name and (has_capital or is_titled) and (i == 0 or text.gap(i - 1)):
        longest = min(6, n_letters - 3, len(text.words[j].letters) if j > i else 6)
        name = _inflected(met, longest, words, said)
    if not name:
        return ""
    if is_titled:
        return "strong"
    exact = name == met
    is_word = (run if exact else name) in said["ordinary"] or met in common
    is_word = is_word or (not is_own and met in said["met eponyms"])
    if n_letters < 4 and text.plain[text.words[j].end :][:1].isdigit():
        return ""
    if is_own and not is_word and n_letters > 3:
        return "strong"
    if not has_capital:
        is_exact = exact and is_own and n_letters > 1
        return ("lower" if is_word else "weak") if is_exact else ""
    if not is_own:
        return "weak" if is_word or n_letters < 5 or not exact else "strong"
    in_mixed = first.shape == "title" and not text.is_shouted
    if is_word:
        at = first.start
        is_month = any(start <= at < end for start, end, _ in text.dates)
        is_name = in_mixed and not is_month and not _starts_sentence(text, i)
        return "strong" if is_name else "weak"
    return "strong" if in_mixed or (text.is_shouted and n_letters > 2) else "weak"


def _inflected(met, longest, words, said):
    """The name of four letters and more that a word is with an ending of some language, or ''."""
    if "\u0590" <= met[:1] < "\u0700":  # Hebrew and Arabic hang particles before a name
        return next((met[k:] for k in range(1, min(4, len(met) - 2)) if met[k:] in words.names), "")
    for k in range(1, min(longest, len(met) - 2)):
        start, ending = met[:-k], met[-k:]
        if ending in said["met endings"] and (start in words.names or start in words.stems):
            return start
    return ""


def _goes_with(word, words):
    """Whether a word beside a name is kin: an initial, a short or inflected form (Joh., Anně)."""
    letters = meet(word.letters)
    if word.shape == "lower" or not letters:
        return False
    return any(n[0] == letters if len(letters) == 1 else n[:3] == letters[:3] != n[:2]
               for n in words.names)  # fmt: skip


def _starts_sentence(text, i):
    before = text.plain[max(text.words[i].start - 4, 0) : text.words[i].start]
    return not before.strip() or "\n" in before or bool(re.search(r"[.:;!?*()#>\d-]\s*$", before))


def _find_joined(text, words, is_own):
    """Names in scripts without blanks, anywhere in a line."""
    least = 2 if is_own else 3
    names = {n for n in words.joined if len(n) >= least * (2 if "\u1100" <= n[0] < "\u1200" else 1)}
    if not names or not re.search(f"[{JOINED}]", text.plain):
        return
    signs, places = [], []
    for match in re.finditer(rf"[{JOINED}]|[^\s・·]", text.plain):
        for sign in fold(match[0]) if is_joined(match[0]) else "\n":
            signs.append(sign)
            places.append(match.start())
    line = "".join(signs)
    for size in {len(n) for n in names}:
        for k in range(len(line) - size + 1):
            # A Hangul syllable may go on with a final consonant: then it is another one.
            if (
                line[k : k + size] in names
                and not "\u11a8" <= line[k + size : k + size + 1] <= "\u11ff"
            ):
                yield places[k], places[k + size - 1] + 1


_UNIT = re.compile(r"[^\W\d_]+|\d+")
_LABEL = re.compile(
    r"(?i)(?:mrn|id|no|nr|number|nummer|acc\w{0,7}|patient|case|record|pid)\W{0,3}$"
)


def find_numbers(
    text: Text, numbers: frozenset[str], *, is_own: bool = True
) -> list[tuple[int, int]]:
    """Start and end of record numbers, with blanks, hyphens, zeros and labels as people write them.

    Parameters
    ----------
    text : Text
    numbers : frozenset of str
        From `normal_number`.
    is_own : bool
        Digits in several groups need five of them; seven, where the number is not the text's own.
        A number of less than four digits needs a label before it.
    """
    found = []
    units = list(_UNIT.finditer(text.plain)) if numbers else []
    for i in range(len(units)):
        if not any(u[0][0].isdigit() for u in units[i : i + 3]):
            continue
        run = ""
        for j in range(i, min(i + 6, len(units))):
            gap = text.plain[units[j - 1].end() : units[j].start()] if j > i else ""
            if not re.fullmatch(r"[\s./_:,*-]{0,3}" if is_own else r"[ ./_-]{0,2}", gap):
                break
            run += units[j][0].upper()
            digits = run.isdigit()
            if (run.lstrip("0") if digits else run) not in numbers or not re.search(r"\d", run):
                continue
            least = 4 if not digits or i == j else 5 if is_own else 7
            before = text.plain[max(units[i].start() - 16, 0) : units[i].start()]
            if len(run) >= least or _LABEL.search(before):
                found.append((units[i].start(), units[j].end()))
    return found


def _is_birth(readings, births):
    short = {(y % 100, m, d) for y, m, d in births}
    return any(r in births or (r[0] < 100 and r in short) for r in readings)


_SIX = re.compile(r"(?<!\d)(\d\d)(\d\d)(\d\d)(?!\d)")  # 540302, 020354 and 030254


_SPACED = re.compile(r"(?<!\d)(\d{1,4})[^\w]{1,3}(\d{1,2})[^\w]{1,3}(\d{1,4})(?!\d)")  # 2 3 54


def _is_six(match, births):
    a, b, c = map(int, match.groups())
    return _is_birth([(a, b, c), (c, b, a), (c, a, b)], births)
