"""What of a hospital's words may leave: a report as it goes out, and a last look at all tables.

A report is looked through for who it is about, for other persons and for numbers of other studies. The
last look is another one: it asks of every cell that is about to be written, however it came there.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import pandas as pd

from merlin.readers.first_look import OTHER_NUMBER, OWN, PERSON, find, find_numbers
from merlin.readers.last_look import looks_like
from merlin.readers.names import all_spans
from merlin.readers.patterns import Span, read_text, redact
from merlin.readers.persons import NOBODY, Sought, Words, normal_number

TEXTS = ("findings", "impression")
WRITTEN = (*TEXTS, "manufacturer", "vocabulary", "code")  # cells with words that are not ours
WITHHELD = (
    "its report names the patient, another person of headers or tables, or a number of another study; "
    "mend it, or use --redact"
)
ALIKE = "its report holds what looks like the patient's name, spelt another way; mend it"


class Refused(ValueError):
    """Something would leave that must not, or an input lacks a column; all problems in the message."""


def telling(identifiers: Iterable[str]) -> frozenset[str]:
    """Identifiers that are one wherever they stand: no short number (an age, a size), no word (`NONE`)."""
    has_digit = {i for i in identifiers if any(c.isdigit() for c in i)}
    return frozenset(i for i in has_digit if len(i) > 3 and not (len(i) < 5 and i.isdigit()))


def identifiers_in(text: str, known: Collection[str]) -> list[str]:
    """Those of `known` that stand in a text, as it spells them, the longest first."""
    read = read_text(text)
    found = find_numbers(read, normal_numbers(frozenset(known)), is_own=False)
    spans = read.spans([Span(a, b, "") for a, b in found])
    return sorted({text[s.start : s.end] for s in spans}, key=len, reverse=True)


@functools.lru_cache(4)
def normal_numbers(known: frozenset[str]) -> frozenset[str]:
    """`normal_number` of each."""
    return frozenset(map(normal_number, known))


def texts_that_leave(
    said: Mapping[str, str], sought: Sought, *, redacts: bool
) -> tuple[dict[str, str], list[tuple[str, str, int, str]], str]:
    """A study's report as it may leave, what was found in it, and why it may not leave.

    Returns
    -------
    texts : dict of str to str
        Findings and impression, redacted where that is asked for.
    hits : list of (str, str, int, str)
        Column, kind, how often, and what was done about it.
    why : str
        Empty where the report may leave.
    """
    texts, hits, why = dict.fromkeys(TEXTS, ""), [], ""
    for column in texts:
        text = str(said.get(column, "") or "")
        spans = all_spans(text, sought)
        found = Counter(s.kind for s in spans)
        names = {OWN, PERSON, OTHER_NUMBER} & set(found)
        taken = "replaced" if redacts else "study withheld" if names else "kept"
        hits += [(column, kind, n, taken) for kind, n in found.items()]
        why = WITHHELD if names and not redacts else why
        texts[column] = redact(text, spans) if redacts else text
    others = dataclasses.replace(sought.others, names=sought.others.names - sought.common)
    for column, text in texts.items():  # the last look: nothing may have slipped through
        if not why and (n := looks_like(text, sought.own | others, sought.common)):
            hits.append((column, "looks like a name", n, "study withheld"))
            why = ALIKE
    return texts, hits, why


def refuse_leaks(
    tables: Mapping[str, pd.DataFrame],
    known: frozenset[str],
    taken: Collection[str],
    own: Mapping[str, Words],
) -> None:
    """A last look before anything is handed over.

    No record or accession number of anybody (`known`, and whatever the ids of studies read look like,
    `taken`) in any cell, none that is `known` in a report, and in no cell of a study's or a patient's
    rows (`own`, by their new id) a name, number or birth date of that patient.

    Raises
    ------
    Refused
    """
    for name, table in ((n, t.astype(str)) for n, t in tables.items()):
        # A diagnosis code may happen to be spelled like a record number.
        for column in table.columns.difference(["code", "vocabulary"]):
            found = table[column].isin(known | set(taken))
            if column in TEXTS:
                found = table[column].map(lambda text: bool(identifiers_in(text, known)))
            if found.any():
                raise Refused(f"{name}, column {column}: holds a record or accession number")
        if "study_id" in table:
            _refuse_own(table, name, own)


def _refuse_own(table, name, own):
    """No patient's own words in the rows of a study, or, of codes, of a patient."""
    whose = "patient_id" if name == "codes" else "study_id"
    for key, rows in table.groupby(whose):
        words = own.get(key, NOBODY)
        if name == "codes":  # any number may be a code
            words = dataclasses.replace(
                words, numbers=frozenset(n for n in words.numbers if not n.isdigit())
            )
        for column in table.columns.intersection(WRITTEN):
            if find(read_text("\n".join(rows[column].unique())), words):
                raise Refused(
                    f"{name}, column {column}, {whose} {key}: holds a name, number or birth date "
                    "of its patient"
                )
