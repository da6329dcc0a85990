"""Who is looked for in a report: the persons of a study's headers and table rows, as folded words.

Which columns speak of persons stands in `persons.yaml`.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pandas as pd
import yaml

from merlin.readers.folding import JOINED, decoded_again, fold, is_joined, meet, vocabulary
from merlin.readers.patterns import read_text

LONGEST = 6  # words that are tried as one name: de la Peña y Díaz
SAID = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Words:
    """What is looked for, folded.

    Attributes
    ----------
    names : frozenset of str
        Parts of names, and their runs without blanks: of Testa-Lorenz testa, lorenz, testalorenz.
    joined : frozenset of str
        The same in scripts without blanks, of two signs and more.
    numbers : frozenset of str
        Capitals and digits only, without leading zeros.
    births : frozenset of (int, int, int)
        Year, month, day.
    """

    names: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    births: frozenset[tuple[int, int, int]] = frozenset()

    def __or__(self, other: "Words") -> "Words":
        """What either holds."""
        return Words(
            self.names | other.names, self.joined | other.joined,
            self.numbers | other.numbers, self.births | other.births,
        )  # fmt: skip

    @functools.cached_property
    def stems(self) -> frozenset[str]:
        """Names without the part that endings replace: Kowalsk-, Novakov-, Mark- of Marek."""
        cut = {n[:-1] for n in self.names if len(n) > 4 and n[-1] in "aeiouy"}
        cut |= {
            n[:-2] for n in self.names if len(n) > 6 and n[-2:] in ("as", "is", "us", "os", "es")
        }
        fleeting = {n[:-2] + n[-1] for n in self.names if len(n) > 4 and n[-2] in "eo"}
        return frozenset(cut | {n for n in fleeting if n[-1] in "kclrn"})

    @functools.cached_property
    def openings(self) -> frozenset[str]:
        """First letters of names: a run of words that begins otherwise need not be looked up."""
        return frozenset(n[:4] for n in self.names | self.stems)


NOBODY = Words()


@dataclass(frozen=True)
class Sought:
    """Who is looked for in a report.

    Attributes
    ----------
    own, others : Words
        Of its patient, and of other persons in the headers and table rows of the study.
    everybody : Words
        Names in the headers and rows of all studies.
    common : frozenset of str
        From `common_words`.
    numbers : frozenset of str
        Record numbers of everybody, from `normal_number`.
    """

    own: Words = NOBODY
    others: Words = NOBODY
    everybody: Words = NOBODY
    common: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()


def words_of(
    names: Iterable[str] = (),
    numbers: Iterable[str] = (),
    births: Iterable[str] = (),
    addresses: Iterable[str] = (),
) -> Words:
    """Words of one person.

    Parameters
    ----------
    names : iterable of str
        In DICOM's form, `family^given^middle^prefix^suffix=ideographic=phonetic`, or any other.
    numbers : iterable of str
        Record, accession, telephone numbers. One without a digit is taken for a name.
    births : iterable of str
        Dates of birth, YYYYMMDD or as people write them.
    addresses : iterable of str
        Streets and towns: looked for whole.
    """
    names, numbers = list(names), list(numbers)
    names += [n for n in numbers if not re.search(r"\d", n)]
    numbers = [n for n in [*numbers, *names] if re.search(r"\d", n)]
    found, joined = set(), set()
    groups = [g for n in names for g in decoded_again(n).split("=")]
    for group in [*groups, *(g for n in groups for g in _read_otherwise(n))]:
        parts, signs = _name_parts(group)
        found |= parts
        joined |= signs
    for line in re.split(r"[\^,;=\n]", "\n".join(addresses)):
        whole = meet("".join(w.letters for w in read_text(line).words))
        found |= {whole} if len(whole) > 5 else set()
    days = {r for b in births for *_, said in read_text(str(b)).dates for r in said if all(r)}
    # 1000677^^^HOSP is 1000677 of HOSP, and MRN0012345 is written 12345.
    plain = {normal_number(part) for n in numbers for part in (n, n.partition("^")[0])} - {""}
    bare = {p.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ").lstrip("0") for p in plain}
    plain |= {b for b in bare if b.isdigit() and len(b) > 4}
    return Words(frozenset(found), frozenset(joined), frozenset(plain), frozenset(days))


def _name_parts(group: str) -> tuple[set[str], set[str]]:
    """Names of one writing of a person: in Latin and other letters with blanks, and in joined signs."""
    said, found, signs = vocabulary(), set(), []
    for component in re.split(r"[\^,;\\/]", group):
        read = read_text(component)
        signs += re.findall(f"[{JOINED}]+", read.plain)
        letters = [w.letters for w in read.words if w.letters and not is_joined(w.letters)]
        words = [w for w in letters if w not in said["placeholders"]]
        words = [w for w in words if w not in said["titles"] | said["dotted"]] or words
        # Lê and Đỗ are families, too, where nothing else is.
        no_name = set() if set(words) <= said["particles"] else said["particles"]
        for i in range(len(words)):
            for j in range(i + 1, min(i + LONGEST, len(words)) + 1):
                if words[j - 1] not in no_name:
                    found.add(meet("".join(words[i:j])))
    whole = ["".join(signs)] if len(signs) > 1 else []
    if len(signs) == 1:  # family and given name in one: 김철수, 山田太郎
        whole = {3: [signs[0][1:]], 4: [signs[0][:2], signs[0][2:]]}.get(len(signs[0]), [])
    honours = [s + h for s in signs if len(s) == 1 for h in said["honorifics"]]
    joined = {fold(s) for s in [*signs, *whole] if len(s) > 1} | set(map(fold, honours))
    return {f for f in found if len(f) > 1}, joined


def _read_otherwise(name: str) -> set[str]:
    """A name that was read as Latin-1, in each code page that makes every word letters of one script."""
    try:
        said = name.encode("latin-1")
    except UnicodeError:
        return set()
    found = set()
    for page in () if name.isascii() else SAID["code_pages"].split():
        try:
            read = said.decode(page)
        except UnicodeError:
            continue
        foreign = [c for c in read if not (c.isascii() or c.isspace())]
        words = re.split(r"[\s^,.'-]+", read)
        is_split = any(a.islower() and b.isupper() and not b.isascii() for a, b in pairwise(read))
        if (
            not is_split
            and all(_script(c) for c in foreign)
            and all(len({_script(c) for c in w if not c.isdigit()}) < 2 for w in words)
        ):
            found.add(read)
    return found - {name}


def _script(sign):
    if not (sign.isalpha() or unicodedata.category(sign)[0] == "M"):
        return ""
    script = unicodedata.name(sign, "").split(" ")[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA") else script


def normal_number(number: str) -> str:
    """A record number's capitals and digits alone, without leading zeros."""
    kept = "".join(c for c in read_text(str(number)).plain.upper() if c.isalnum())
    return kept.lstrip("0") if kept.isdigit() else kept


def columns_of(table: pd.DataFrame, but: Iterable[str] = ()) -> dict[str, list[str]]:
    """Columns of a table whose names speak of persons, by kind; `but` are not looked at."""
    kinds: dict[str, list[str]] = {}
    for column in sorted(set(table.columns) - set(but)):
        said = fold(str(column))
        for rule in SAID["columns"]:
            kind = next((k for k, part in rule["kinds"].items() if re.search(part, said)), None)
            if kind and not re.search(rule["but"], said):
                kinds.setdefault(kind, []).append(column)
                break
    return kinds


def people_in(
    table: pd.DataFrame, by: str, but: Iterable[str] = ()
) -> dict[str, tuple[Words, Words]]:
    """Persons in the rows of a table.

    Parameters
    ----------
    table : DataFrame of str
        Columns whose names speak of persons, numbers or birth dates (`columns` of persons.yaml) are read.
    by : str
        Column of the key.
    but : iterable of str
        Columns that are not read.

    Returns
    -------
    dict of str to (Words, Words)
        The patient's and other persons', by key.
    """
    kinds = columns_of(table, (by, *but))
    found: dict[str, tuple[Words, Words]] = {}
    cells = {k: table[c].fillna("").astype(str).to_numpy() for k, c in kinds.items()}
    for i, key in enumerate(table[by] if kinds else ()):
        # A cell of many words is no name, whatever its column is called.
        row = {k: [v for v in values[i] if 0 < len(v.split()) < 9] for k, values in cells.items()}
        others = words_of(row.pop("others", ()))
        own, before = words_of(**row), found.get(key, (NOBODY, NOBODY))
        found[key] = (before[0] | own, before[1] | others)
    return found
