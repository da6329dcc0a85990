"""Persons in free text: their names, numbers and birth dates, however a report spells them.

Two ways, one after the other: `first_look.find` looks words up; `last_look.looks_like` then asks more
coarsely for what the first way missed.

Neither knows nicknames, initials that stand alone, names in a script that no header uses, two wrong
letters in a short name, or who is meant by "the mayor of our town". `python -m merlin.readers.names`
prints how many of the spellings in `data_manifests/name_spellings.csv` are seen, by language, and the
false alarms on given texts.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from merlin.data.tables import read_table
from merlin.readers.first_look import OTHER_NUMBER, PERSON, common_words, find, find_numbers
from merlin.readers.folding import in_other_pages
from merlin.readers.last_look import looks_like
from merlin.readers.patterns import Span, find_patterns, outermost, read_text
from merlin.readers.persons import Sought, words_of


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
