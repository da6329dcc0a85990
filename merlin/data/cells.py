"""What a cell of somebody's table may be: ids, dates, ages, lengths and sexes as people write them.

Dates have one format a column, found from all its rows; ages may carry a unit, sexes may be words
(`cells.yaml`). What cannot be read for certain is refused with its rows, all at once; ages and dates are
quoted in messages, names and ids never.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from merlin.words import Refusal

_SAID = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_NOTHING = set(_SAID["nothing"])
FORMATS: dict[str, list[str]] = _SAID["dates"]  # by order of day, month and year, or with words
_MONTH = {word: words[:3] for words in _SAID["months"] for word in words.split()}
SEXES: dict[str, str] = {w: s for s, words in _SAID["sexes"].items() for w in words.split()}
_TIME = re.compile(
    r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?(?: ?Uhr)?(?:Z| ?[+-]\d{2}:?\d{2})?)$"
)
_YEARS_IN = {"y": 1.0, "m": 12.0, "w": 52.1775, "d": 365.2425}
_UNIT = "|".join(f"(?P<{unit}>{words})" for unit, words in _SAID["ages"].items())
_AGE = re.compile(rf"(\d{{1,3}}(?:[.,]\d+)?)\s*\+?[\s-]*(?:{_UNIT}|)(?:[\s-]+old)?", re.IGNORECASE)
_TWO_UNITS = re.compile(r"(\d{1,3}) ?y[a-z]*\.? ?(\d{1,2}) ?m[a-z]*\.?", re.IGNORECASE)
UNSEEN = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")


class TableError(Refusal):
    """A table that cannot be read for certain; the message lists every problem with its rows."""


class Number(str):
    """Text of a cell that its file holds as a number: zeros at its front are lost."""

    __slots__ = ()


def plain(name: object) -> str:
    """A column's name as it is compared: letters and digits, lower case."""
    return "".join(c for c in str(name).lower() if c.isalnum())


def some_rows(index: Iterable[int], most: int = 8) -> str:
    """`rows 3, 4 and 7 more` of a table's index, numbered as a spreadsheet does."""
    numbers = sorted({int(i) + 2 for i in index})
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:most]))}{more}"


def _filled(values: pd.Series) -> pd.Series:
    """Cells as text, empty where they hold a word for nothing."""
    text = values.fillna("").astype(str).str.strip()
    return text.where(~text.str.casefold().isin(_NOTHING), "")


def read_ids(values: pd.Series, *, where: str) -> pd.Series:
    """Ids without blanks around them, and without the `.0` of a spreadsheet's numbers.

    Raises
    ------
    TableError
        With the rows of ids that a spreadsheet rounded (`1.23E+11`), whose digits are lost, or that hold
        characters which cannot be seen: ids are printed, and some become names of files.
    """
    # ="007" and '007 are how spreadsheets are kept from taking ids for numbers.
    bare = values.str.replace(UNSEEN, "", regex=True).str.strip()
    unseen = np.array([not t.isprintable() for t in bare], bool)
    if unseen.any():
        raise TableError(
            f"{where}: {some_rows(bare.index[unseen])}: ids with characters that cannot be seen, as line "
            "breaks. Write them without."
        )
    text = bare.str.replace(r"""^(?:="(.*)"|'(\d.*))$""", r"\1\2", regex=True)
    lost = text.str.fullmatch(r"\d(?:[.,]\d+[eE]\+?\d+|[eE]\+\d+)")
    if lost.any():
        raise TableError(
            f"{where}: {some_rows(text.index[lost])}: ids that a spreadsheet rounded to a number. "
            "Export the column as text."
        )
    return text.str.replace(r"^(\d+)\.00?$", r"\1", regex=True)


def why_apart(ids: Iterable[str], others: Iterable[str]) -> str:
    """What makes ids of two tables meet nowhere; empty where nothing simple does."""
    ids, others = set(ids), set(others)
    if ids & others:
        return ""
    ending = re.compile(r"\.(nii|npz|npy|dcm|mha|nrrd|h5|jpg|png)(\.gz)?$", re.IGNORECASE)
    bare = lambda i: ending.sub("", i)  # noqa: E731
    name = lambda i: re.split(r"[/\\]", i)[-1]  # noqa: E731
    for change, why in (
        (bare, "endings such as .nii.gz"),
        (name, "folders before the name"),
        (lambda i: bare(name(i)), "folders before the name, and its ending"),
        (lambda i: i.lstrip("0"), "zeros at the front, which a spreadsheet takes from numbers"),
        (str.casefold, "capital and small letters"),
        (plain, "hyphens, blanks or other signs"),
    ):
        mine, theirs = {change(i) for i in ids}, {change(i) for i in others}
        is_name = "folders" not in why or (len(mine), len(theirs)) == (len(ids), len(others))
        if is_name and mine & theirs:
            return f"they differ by {why}"
    return ""


def read_dates(values: pd.Series, *, where: str, order: str = "") -> pd.Series:
    """Dates of one column, all in one format.

    Parameters
    ----------
    values : Series of str
        Empty cells stay empty; a time of day behind a date is dropped.
    where : str
        How messages call the column.
    order : {"", "ymd", "dmy", "mdy"}
        Of day and month, where the column itself cannot tell.

    Returns
    -------
    Series of datetime64, NaT where empty

    Raises
    ------
    TableError
        With rows: no format fits all of them, or two do and disagree.
    """
    if order not in ("", "ymd", "dmy", "mdy"):
        raise TableError(f"{where}: order of dates {order!r}. Expected ymd, dmy or mdy.")
    text = _filled(values).str.replace(_TIME, "", regex=True)
    text = text.str.replace(",", "", regex=False).str.replace(r" de (?=\w)", " ", regex=True)
    text = text.str.replace(
        r"[^\W\d_]{3,}\.?(?!$)",
        lambda m: (
            _MONTH.get(m[0].rstrip(".").casefold(), m[0])
            + "." * (m.string[m.start() - 1 : m.start()] == ".")
        ),
        regex=True,
    )
    filled = text[text != ""]
    distinct = sorted(set(filled))
    kinds = (order, "ymd", "words") if order else tuple(FORMATS)
    fits = {
        name: {t: day for t in distinct if (day := _day(t, name)) is not None}
        for kind in kinds
        for name in FORMATS[kind]
        if not (order in ("dmy", "mdy") and name.startswith("%y"))
    }
    whole = [name for name, days in fits.items() if len(days) == len(distinct)]
    if len(whole) > 1:  # days differ more than years; points are rarely written year first
        first, last = (len({re.split(r"\W", t)[i] for t in distinct}) for i in (0, -1))
        whole = [n for n in whole if not (n[:2] == "%y" and first + (n[2] == ".") > last)] or whole
    if not whole and distinct:
        best = max(fits, key=lambda name: filled.isin(list(fits[name])).sum())
        odd = filled.index[~filled.isin(list(fits[best]))]
        told = f"most are {_written(best)}" if fits[best] else f"found {distinct[0][:20]}"
        raise TableError(
            f"{where}: {some_rows(odd)}: not one format of dates in the column; {told}. "
            "Write all of them as YYYY-MM-DD."
        )
    for other in whole[1:]:
        differ = [t for t in distinct if fits[whole[0]][t] != fits[other][t]]
        if differ:
            row = some_rows(filled.index[filled.isin(differ)])
            raise TableError(
                f"{where}: {row}: {differ[0]} may be {_written(whole[0])} or {_written(other)}, and no "
                "row of the column tells. Write YYYY-MM-DD, or say which with --dates dmy or mdy."
            )
    days = fits[whole[0]] if whole else {}
    return pd.to_datetime(text.map(days), errors="coerce").astype("datetime64[ns]")


def _day(text: str, form: str) -> datetime | None:
    """A day of one format; two digits of a year are never of one to come."""
    try:
        day = datetime.strptime(text, form)
    except ValueError:
        return None
    if "%y" in form and day > datetime.now() + timedelta(days=1):
        return None if form.startswith("%y") else day.replace(year=day.year - 100)
    return day if 1850 < day.year < 2200 else None


def _written(form: str) -> str:
    names = {"%d": "day", "%m": "month", "%Y": "year", "%y": "year", "%b": "month", "%B": "month"}
    return re.sub(r"%\w", lambda m: names[m.group()], form)


def read_ages(values: pd.Series, *, where: str) -> pd.Series:
    """Ages in years, from numbers with or without a unit (`57`, `057Y`, `18 months`, `90+`).

    Returns
    -------
    Series of float, NaN where empty

    Raises
    ------
    TableError
        With the rows of ages that are none, or lie outside 0 to 130 years.
    """
    out, odd = {}, []
    for i, text in _filled(values).items():
        if both := _TWO_UNITS.fullmatch(text):  # 5y6m
            text = f"{12 * int(both[1]) + int(both[2])} m" if int(both[1]) < 83 else text
        match = _AGE.fullmatch(text.lstrip("><≥≤ ")) if len(text) < 40 else None
        if match:
            out[i] = float(match[1].replace(",", ".")) / _YEARS_IN[match.lastgroup or "y"]
        if text and (not match or out[i] > 130):
            odd.append(i)
    if odd:
        found = ", ".join(sorted({str(values[i])[:20] for i in odd})[:5])
        raise TableError(
            f"{where}: {some_rows(odd)}: {found}. Expected years as 57, or with a unit as 18 months."
        )
    return pd.Series(out, index=values.index, dtype=float)


def read_lengths_mm(values: pd.Series, *, where: str) -> pd.Series:
    """Lengths in mm, from numbers with or without a unit (`5`, `1,25`, `5.0 mm`, `0.5cm`).

    Returns
    -------
    Series of float, NaN where empty

    Raises
    ------
    TableError
        With the rows of cells that are none.
    """
    text = _filled(values)
    parts = text.str.extract(r"^(\d{1,3}(?:[.,]\d+)?)\s*(mm|cm)?\.?$", flags=re.IGNORECASE)
    number = parts[0].str.replace(",", ".").astype(float)
    number = number.where(parts[1].str.lower() != "cm", number * 10)
    # Below 0.05 mm they are metres: 0.005.
    odd = (number.isna() & (text != "")) | number.between(0, 0.05, inclusive="neither")
    if odd.any():
        found = ", ".join(sorted(set(text[odd]))[:5])
        raise TableError(
            f"{where}: {some_rows(text.index[odd])}: {found[:80]}. Expected millimetres, as 5.0."
        )
    return number


def read_sexes(values: pd.Series, *, where: str) -> pd.Series:
    """`F`, `M` or empty, from letters and words of a dozen languages; never from a first letter alone.

    Raises
    ------
    TableError
        With the rows of words that are not known, as numbers, whose meaning differs by who wrote them.
    """
    words = values.fillna("").astype(str).str.strip().str.casefold().str.rstrip(".")
    odd = ~words.isin([*SEXES, "", "not stated"])
    if odd.any():
        found = ", ".join(sorted(set(values[odd].astype(str)))[:5])
        raise TableError(
            f"{where}: {some_rows(values.index[odd])}: {found[:80]}. Expected F, M, a word for them, or "
            "empty."
        )
    return words.map(lambda w: SEXES.get(w, ""))
