"""A second, coarser look for a person in a text that the first one passed.

It goes by edit distance and containment on the letters that are left of each chunk of text: a wrong
letter, a lost blank, markup or a broken encoding inside a name.
"""

import functools
import html
import re
from itertools import pairwise, product

from merlin.readers.first_look import find
from merlin.readers.folding import decoded_again, fold, in_other_pages, meet, vocabulary
from merlin.readers.patterns import DELETED, read_text
from merlin.readers.persons import Words


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


_ONE_FOR = [pair.split() for pair in "tch ch,dj d,rn m,ph f,th t,ck k,ch k,sch s,sh s".split(",")]


@functools.lru_cache(2**16)
def _bones(letters):
    """A coarser folding: one letter for those that ears and typists mix up, no double ones."""
    kept = meet(letters)
    for said, one in _ONE_FOR:
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
