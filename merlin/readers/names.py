"""Persons in free text: their names, numbers and birth dates, however a report spells them.

Two ways, one after the other. `find` looks words up: headers and text are folded to bare letters (no
case, accents or width; ä, ae and a meet, ø and o, ß and ss; Cyrillic and Greek in Latin letters),
hyphens, apostrophes and blanks inside a name are optional, a short list of endings may follow, and in
scripts without blanks any place counts. `looks_like` then asks more
coarsely, by edit distance and containment on the letters that are left of each chunk of text, for what
the first way missed: a wrong letter, a lost blank, markup or a broken encoding inside a name.

Neither knows nicknames, initials that stand alone, names in a script that no header uses, two wrong
letters in a short name, or who is meant by "the mayor of our town". `python -m merlin.readers.names`
prints how many of the spellings in `data_manifests/name_spellings.csv` are seen, by language, and the
false alarms on given texts. The word lists are in `names.yaml`.
"""

import functools
import html
import re
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise, product
from pathlib import Path

import pandas as pd

from merlin.data.tables import read_table
from merlin.readers.patterns import (
    DELETED,
    JOINED,
    Span,
    Text,
    decoded_again,
    find_patterns,
    fold,
    in_other_pages,
    meet,
    outermost,
    read_text,
    vocabulary,
)  # fmt: skip
from merlin.readers.persons import LONGEST, Sought, Words, words_of

OWN, PERSON, OTHER_NUMBER = "own identifier", "name of another person", "number of another study"


def common_words(texts: Iterable[str]) -> frozenset[str]:
    """Words of so many texts that they are no find where somebody else is called so."""
    seen, n = Counter(), 0
    for text in texts:
        n += 1
        seen.update({meet(w.letters) for w in read_text(text).words})
    return frozenset(w for w, k in seen.items() if k > max(3, n / 200))


def find(
    text: Text, words: Words, kind: str = OWN, *, is_own=True, common: frozenset[str] = frozenset()
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
    n = len(text.words)
    titled = {k for _, first, last in text.titled for k in range(first, last + 1)}
    strong, weak, lower = set(), {}, {}
    for i in range(n):
        run = ""
        is_titled = i in titled or (
            is_own and text.words[i].shape != "lower" and bool(_NAMED.search(text.before(i)))
        )
        for j in range(i, min(i + 4 * LONGEST, n)):
            if j > i and not _INSIDE.fullmatch(text.gap(j - 1)):
                break
            run += text.words[j].letters
            if j >= i + LONGEST and len(run) > j - i + 1:  # single letters are a name spaced out
                break
            met = meet(run)
            has_prefix = "\u0590" <= run[:1] < "\u0700"  # particles of Arabic and Hebrew
            may_go_on = has_prefix or len(met) < 4 or met[:4] in words.openings
            if not may_go_on and met[:3] not in words.openings:
                break
            said = _strength(text, i, j, met, words, is_titled, is_own, common)
            if said == "strong":
                strong.update(range(i, j + 1))
            elif said == "weak":
                weak.update(dict.fromkeys(range(i, j + 1), met))
            elif said:
                lower.update(dict.fromkeys(range(i, j + 1), met))
    for k, m in pairwise(sorted(lower | weak)) if is_own else ():  # rose young
        pair = {(lower | weak)[k], (lower | weak)[m]}
        is_beside = m == k + 1 and _BESIDE.fullmatch(text.gap(k))
        if is_beside and len(pair) == 2 and sum(map(len, pair)) > 6:
            strong |= {k, m}
    for k in sorted(_with_kin(text, words, strong, weak, is_own)):
        yield text.words[k].start, text.words[k].end


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


def _strength(text, i, j, met, words, is_titled, is_own, common):
    """Whether a run of words tells a person alone (strong), beside another name (weak), or not."""
    said, first = vocabulary(), text.words[i]
    has_capital = first.shape != "lower"
    run = "".join(w.letters for w in text.words[i : j + 1])
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
        for sign in fold(match[0]) if re.match(f"[{JOINED}]", match[0]) else "\n":
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


def find_numbers(text: Text, numbers: frozenset[str], *, is_own=True) -> list[tuple[int, int]]:
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


def looks_like(text: str, words: Words, common: frozenset[str] = frozenset()) -> int:
    """How often a text that `find` has passed still holds what looks like one of the names.

    Letters alone of each chunk between blanks, and of two chunks, in a coarser folding: is a name in
    them, or a chunk with a capital one change away from it (two, of nine letters)? And does `find` see
    anything, with markup and a broken encoding mended or not?

    Parameters
    ----------
    text : str
    words : Words
    common : frozenset of str
        Words that are no near miss, from `common_words`.
    """
    mended = _mended(text)
    # The text as it stands, too: what was replaced may have stood beside what was none without it.
    n = sum(len(find(read_text(t), words)) for t in {text} | in_other_pages(mended))
    lost = {m[0] for m in _LOST.finditer(mended)}
    n += sum(_is_lost(chunk, words.names - common) for chunk in lost)
    by_letter: dict[str, list[str]] = {}
    wanted = {_bones(w): len(w) for w in words.names - vocabulary()["met ordinary"] if len(w) > 4}
    wanted = {bones: n_letters for bones, n_letters in wanted.items() if len(bones) > 3}
    for bones in wanted:
        by_letter.setdefault(bones[0], []).append(bones)
    for line in mended.splitlines():
        chunks = [_chunk(c) for c in re.split(r"[\s/-]+", line)]
        for (bones, letters, has_capital), (after, *_) in pairwise([*chunks, ("", "", False)]):
            within = [x for x, k in wanted.items() if x in bones and k > (5 if has_capital else 6)]
            if within or not has_capital:
                n += bool(within)
                continue
            near = by_letter.get(bones[:1], ())
            pair = bones + after
            n += any(len(x) > 5 and pair.startswith(x) for x in near) or (
                letters not in common
                and letters not in vocabulary()["met ordinary"]
                and any(_is_near(bones, x) for x in near)
            )
    return n


# Words in which a letter was lost: M?ller, B\ufffdhm, Nu_ez.
_LOST = re.compile(
    r"(?<![^\W_])(?:[^\W\d_]+(?:[?_\x80-\x9f\ufffd]{1,2}[^\W\d_]+|\ufffd{1,2})"
    r"|[?\ufffd]{1,2}[^\W\d_]{2,})(?:[?_\x80-\x9f\ufffd]{1,2}[^\W\d_]*)?(?![^\W_])"
)
_MAY_BE = (*"abcdefghijklmnopqrstuvwxyz", "", "ss", "ae")


def _is_lost(chunk, names):
    """Whether some letters in place of the lost ones make a name of three letters and more."""
    found = False
    for plain in {chunk, re.sub(r"([^\w\s]|_)+", "?", chunk)}:
        first, *parts = (fold(p) for p in re.split(r"[^\w\s]|_", plain))
        for letters in product(_MAY_BE, repeat=len(parts)) if 0 < len(parts) < 3 else ():
            said = meet(first + "".join(map(str.__add__, letters, parts)))
            for name in {said, said.removesuffix("s")} & names if len(said) > 2 else ():
                found |= name not in vocabulary()["met ordinary"]
    return found


@functools.lru_cache(2**18)
def _chunk(chunk):
    """A chunk's letters, coarsely and not so, and whether it holds a capital."""
    letters = fold(read_text(chunk).plain)
    return _bones(letters), meet(letters), chunk != chunk.lower()


@functools.lru_cache(2**16)
def _bones(letters):
    """A coarser folding: one letter for those that ears and typists mix up, no double ones."""
    kept = meet(letters)
    for said, one in (
        ("tch", "ch"),
        ("dj", "d"),
        ("rn", "m"),
        ("ph", "f"),
        ("th", "t"),
        ("ck", "k"),
        ("ch", "k"),
        ("sch", "s"),
        ("sh", "s"),
    ):
        kept = kept.replace(said, one)
    kept = kept.translate(str.maketrans("yjwcqz", "iivkks"))
    kept = kept[:1] + kept[1:].replace("h", "")
    return re.sub(r"(.)\1+", r"\1", kept)


@functools.lru_cache(2**18)
def _is_near(a, b):
    """At most one letter changed, added, lost or two swapped; of nine letters and more, two."""
    most = 2 if len(b) > 8 else 1
    if a == b or abs(len(a) - len(b)) > most or len(b) < 6:
        return a == b
    rows = [list(range(len(b) + 1))]
    for i in range(1, len(a) + 1):
        row = [i]
        for j in range(1, len(b) + 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1] <= most


_CODED = re.compile(  # M=FCller, M%FCller, M\\u00fcller, M\\'fcller, M\\XFC\\ller
    r"\\u([0-9a-fA-F]{4})|(?:=|%|\\x|\\'|\\X\\?)([89a-fA-F][0-9a-fA-F])(?:\\X?\\)?"
)


def _mended(text):
    """A text without markup, entities and UTF-8 that was read as another encoding."""
    text = html.unescape(text.replace(DELETED, " . "))
    text = re.sub(r"\b0(?=[^\W\d_]{3})", "O", text)  # 0konkwo
    text = _CODED.sub(lambda m: chr(int(m[1] or m[2], 16)), text)
    return decoded_again(re.sub(r"</?\w[^<>]{0,60}>", "", text))


def all_spans(text: str, sought: Sought) -> list[Span]:
    """Everything that is found in a text, in its own places; what is the patient's own is that alone."""
    read = read_text(text)
    mine = [s for t in in_other_pages(text) for s in find(read_text(t), sought.own)]
    mine = outermost(mine)
    taken = {p for s in mine for p in range(s.start, s.end)}
    more = find(read, sought.others, PERSON, common=sought.common)
    more += find(read, sought.everybody, PERSON, is_own=False, common=sought.common)
    numbers = find_numbers(read, sought.numbers, is_own=False)
    more = outermost(more) + outermost([Span(a, b, OTHER_NUMBER) for a, b in numbers])
    more = [s for s in more if s.start not in taken and s.end - 1 not in taken]
    return read.spans([*mine, *more, *find_patterns(read)])


SPELLINGS = Path(__file__).parents[2] / "data_manifests" / "name_spellings.csv"


def recall(spellings: pd.DataFrame) -> pd.DataFrame:
    """How many names are seen, by language.

    Parameters
    ----------
    spellings : DataFrame of str
        `language, header_name, in_the_report, must_be_seen` (`yes` or `no`).

    Returns
    -------
    DataFrame
        By language: `spellings` that must be seen, `first` of them by `find`, `last` by `looks_like`
        of those that `find` passes; `ordinary` texts without the person, `alarms` among them.
    """
    rows = []
    for row in spellings.itertuples():
        words, must = words_of([row.header_name]), row.must_be_seen == "yes"
        first = any(find(read_text(t), words) for t in in_other_pages(row.in_the_report))
        last = not first and bool(looks_like(row.in_the_report, words))
        rows.append(
            (row.language, must, must and first, must and last, not must, not must and first)
        )
    columns = ["language", "spellings", "first", "last", "ordinary", "alarms"]
    return pd.DataFrame(rows, columns=columns).groupby("language").sum()


def false_alarms(names: Iterable[str], texts: list[str]) -> tuple[int, int, int]:
    """Pairs of a name and a text that does not hold it; those that `find` sees, and `looks_like` alone."""
    read, common, n, first, last = [read_text(t) for t in texts], common_words(texts), 0, 0, 0
    for words in map(words_of, ([name] for name in names)):
        for text, folded in zip(texts, read, strict=True):
            n += 1
            if find(folded, words):
                first += 1
            elif looks_like(text, words, common):
                last += 1
    return n, first, last


def _texts_at(path):
    """Texts of a file or a folder; of a CSV, each cell of forty signs and more."""
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".csv"))
        return [t for p in inside for t in _texts_at(p)]
    if path.suffix != ".csv":
        return [path.read_text("utf-8", errors="replace")]
    table = read_table(path)
    return [cell for column in table for cell in table[column] if len(cell) >= 40]


def main(paths: list[str]) -> int:
    """Print recall on the spellings, and false alarms of their names on texts of others."""
    spellings = read_table(SPELLINGS)
    table = recall(spellings)
    sys.stdout.write(f"{table.to_string()}\n")
    total = table.sum()
    sys.stdout.write(
        f"{total['first']} of {total['spellings']} spellings seen, {total['last']} more in the last look; "
        f"{total['alarms']} of {total['ordinary']} ordinary texts raise an alarm.\n"
    )
    texts = [t for p in paths for t in _texts_at(Path(p))]
    if texts:
        n, first, last = false_alarms(spellings["header_name"].unique(), texts)
        sys.stdout.write(
            f"{n:,} pairs of a name and one of {len(texts)} texts: {first} false alarms of the first look, "
            f"{last} of the last look alone.\n"
        )
    return int(total["first"] < total["spellings"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
