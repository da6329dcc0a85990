"""Tables as people have them → text, one reader for all of ours.

CSV with commas, semicolons, tabs or bars; UTF-8 with or without a mark, UTF-16, a Windows page; Excel
workbooks; parquet. Every cell arrives as text, so that ids keep their zeros. A row keeps its number:
`index + 2` is its row in a spreadsheet. Dates have one format a column, found from all its rows; ages
may carry a unit, sexes may be words. What cannot be read for certain is refused with its rows, all at
once; ages and dates are quoted in messages, names and ids never.
"""

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merlin.data.letters import code_pages
from merlin.words import Refusal, from_cell, shown

DELIMITERS = ",;\t|"
HEADER_WITHIN = 6  # rows, where the first is a title
MOST_BYTES = 1 << 30  # of a table, unzipped
# What a packed file of any size may become, and each byte of a larger one. An unpacked CSV always fits.
SMALL, PER_BYTE = 1 << 24, 16  # bytes
FEW_CELLS = 1 << 19  # cells, empty ones too, and one for each byte: they are objects of 200 bytes
FEW_LETTERS, LETTERS_PER_BYTE = (
    1 << 27,
    16,
)  # of all cells: a workbook keeps a text once for all of them
SMALL_PART = (
    1 << 19
)  # bytes of a workbook's styles, names and links: each of their words is an object
FEW_TEXT_TAGS = 400_000  # or one for two bytes: a text has four, and makes an object of its own
LONG_TAG = 1 << 16  # bytes: a parser begins long ones again and again
csv.field_size_limit(16 << 20)  # a report may be long; a page of 16 MB is none


class TableError(Refusal):
    """A table that cannot be read for certain; the message lists every problem with its rows."""


class Number(str):
    """Text of a cell that its file holds as a number: zeros at its front are lost."""

    __slots__ = ()


def read_table(path: str | Path, *, needed: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table as text.

    Parameters
    ----------
    path : path
        The content decides, not the ending.
    needed : iterable of str
        Columns that must be there. They are found in any case and with any of blank, `_` and `-`
        between words, and renamed to what was asked for.

    Returns
    -------
    DataFrame
        All cells text (`Number` where a workbook or parquet holds numbers), empty ones `""`; the index
        is the spreadsheet's row less 2. `attrs["notes"]` says what was assumed or left out,
        `attrs["decimal_comma"]` whether `;` separates cells.

    Raises
    ------
    TableError
        Naming the file, and every row or column that is wrong.
    FileNotFoundError
    """
    path, needed = Path(path), tuple(needed)
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}")
    raw, notes = _unzipped(path), []
    if raw[:4] == b"PAR1":
        rows, sep = _parquet_rows(path, raw), ","
    elif raw[:2] == b"PK":
        rows, sep = _workbook_rows(path, raw, needed, notes), ","
    elif raw[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise TableError(f"{path.name}: an old Excel workbook (.xls). Save it as .xlsx or as CSV.")
    else:
        text = _decoded(path, raw, notes)
        said = re.match(r'"?sep=(.)"?(?=\n)', text, re.IGNORECASE)  # Excel's own first line
        text = text[said.end() :] if said else text
        sep = said[1] if said else _delimiter(text, needed)
        rows = _csv_rows(path, text, sep)
    n_letters = sum(len(cell) for row in rows for cell in row)
    most = max(FEW_LETTERS, LETTERS_PER_BYTE * path.stat().st_size)
    if n_letters > most:
        raise TableError(
            f"{path.name}: {n_letters:,} letters in its cells, at most {most:,} expected in so small a file. "
            "Leave out texts that repeat."
        )
    table = _framed(path, rows, needed, notes)
    table = _renamed(path, table, needed, notes)
    table.attrs.update(notes=tuple(notes), decimal_comma=sep == ";")
    return table


def _unzipped(path: Path) -> bytes:
    """A file's bytes, gunzipped where it is gzipped."""
    with path.open("rb") as stream:
        if stream.read(2) != b"\x1f\x8b":
            return path.read_bytes()
    packed = path.stat().st_size
    most = min(MOST_BYTES, max(SMALL, PER_BYTE * packed))
    try:
        with gzip.open(path) as stream:
            raw = stream.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(f"{path.name}: not a whole gzip file ({type(error).__name__}).") from None
    if len(raw) > most:
        raise TableError(
            f"{path.name}: more than {most:,} bytes unzipped out of {packed:,}; that is no usual table. If "
            "it is right, unzip it and pass the CSV."
        )
    return raw


def _decoded(path: Path, raw: bytes, notes: list[str]) -> str:
    """Text of a CSV in the encodings that spreadsheets write."""
    marks = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    name = next((n for mark, n in marks.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(name)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        is_utf8 = [_is_utf8(text) for text in raw.split(b"\n")]
        if name != "utf-8" or True in is_utf8:  # another reading would spoil the lines that are
            bad = [i - 1 for i, is_so in enumerate(is_utf8) if is_so is False]
            at = some_rows(bad).replace("row", "line") if name == "utf-8" else f"line {line}"
            raise TableError(
                f"{path.name}: {at}: bytes that are not UTF-8, as the others are. Mend it."
            ) from None
        pages = code_pages(raw)
        if len(pages) != 1:
            may_be = f" of one language: {' or '.join(pages)} may be right" if pages else ""
            raise TableError(
                f"{path.name}: line {line} holds bytes of no text{may_be}. Save it as CSV UTF-8."
            ) from None
        text = raw.decode(pages[0])
        notes.append(f"Not UTF-8: read as {_PAGES[pages[0]]}.")
    if "\0" in text:
        raise TableError(f"{path.name}: holds zero bytes. Expected CSV (UTF-8), .xlsx or parquet.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


_PAGES = {
    "cp1250": "Windows-1250 (Central European)",
    "cp1251": "Windows-1251 (Cyrillic)",
    "cp1252": "Windows-1252 (Western European)",
    "cp1254": "Windows-1254 (Turkish)",
}


def _is_utf8(line: bytes) -> bool | None:
    """Whether a line is UTF-8; None where it is ASCII."""
    if line.isascii():
        return None
    try:
        return bool(line.decode())
    except UnicodeDecodeError:
        return False


def _delimiter(text: str, needed: tuple[str, ...]) -> str:
    """The delimiter that stands most often in the header, quoted text apart; a comma if none does."""
    lines = text.lstrip("\n").split("\n", HEADER_WITHIN)[:HEADER_WITHIN]
    has_all = lambda line: all(plain(n) in plain(line) for n in needed)  # noqa: E731
    bare = re.sub(r'"[^"]*"', lambda m: "", next(filter(has_all, lines), lines[0]))
    return max(DELIMITERS, key=lambda d: (bare.count(d), d == ","))


def _header_at(rows: list[list[str]], needed: tuple[str, ...]) -> int | None:
    """Which row has all needed columns, of the first few; a title may stand above."""
    want = {plain(n) for n in needed}
    return next((i for i, r in enumerate(rows[:HEADER_WITHIN]) if want <= set(map(plain, r))), None)


def _csv_rows(path: Path, text: str, sep: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sep, strict=True)
    rows, n_cells, most = [], 0, _most_cells(path)
    try:
        for row in reader:
            n_cells += len(row)
            if n_cells > most:
                raise TableError(_too_many(path, most))
            rows.append(row)
    except csv.Error as error:
        raise TableError(
            f"{path.name}: row {len(rows) + 1} (line {reader.line_num}): {error}. Quote cells that "
            'hold quotes or line breaks, and write a quote inside them twice ("").'
        ) from None
    return rows


# A formula whose value was never worked out, as programs write it; an empty text is t="str".
_UNCOMPUTED = re.compile(
    rb'<c r="([A-Z]{1,3}\d{1,7})"(?![^<>]*t="str")[^<>]*+><f[^<>]*(?:/>|>[^<]*+</f>)\s*+'
    rb"(?:<v\s*+/>|<v></v>)?\s*+</c>"  # bounded by the next tag, so that no text takes long
)


def _workbook_rows(
    path: Path, raw: bytes, needed: tuple[str, ...], notes: list[str]
) -> list[list[str]]:
    """Rows of the first sheet seen that is the table; whole numbers without a point, days without a time."""
    import openpyxl

    try:
        _refuse_large_parts(path, zipfile.ZipFile(io.BytesIO(raw)), len(raw))
        book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
        seen = [s for s in book.worksheets if s.sheet_state == "visible"]
        sheets = {}
        for sheet in seen or book.worksheets:
            sheet.reset_dimensions()  # as large as its cells, whatever it says of itself
            rows = _sheet_rows(path, sheet)
            filled = [row for row in rows if any(row)]
            at = _header_at(filled, needed)
            sheets[sheet] = rows, len(filled[at or 0]) if filled else 0
            if len(filled) > 1 and (at is not None if needed else max(map(len, filled)) > 1):
                break
        else:
            sheet = max(
                sheets, key=lambda s: sheets[s][1] > 0
            )  # what is wrong is told of the first
        rows, width = sheets[sheet]
        if len(book.sheetnames) > 1:
            place = book.sheetnames.index(sheet.title)
            which = (
                "The first"
                if place == 0
                else f"Sheet {place + 1}, the first seen that is the table,"
            )
            notes.append(f"{which} of {len(book.sheetnames)} sheets was read.")
        with zipfile.ZipFile(io.BytesIO(raw)) as parts:
            empty = _UNCOMPUTED.findall(parts.read(sheet._worksheet_path))
        if empty:
            cells = b", ".join(empty[:8]).decode()
            raise TableError(
                f"{path.name}: {len(empty):,} formulas without a value: {cells}. Open it in a spreadsheet "
                "and save it again, or replace formulas by values."
            )
        if len(rows) * width > (most := _most_cells(path)):
            raise TableError(_too_many(path, most))
        return [row + [""] * (width - len(row)) for row in rows]  # empty cells may not be written
    except TableError:
        raise
    except (
        KeyError,
        ValueError,
        OSError,
        IndexError,
        AttributeError,
        TypeError,
        SyntaxError,
        RuntimeError,
        EOFError,
        OverflowError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise TableError(
            f"{path.name}: not a readable Excel workbook ({type(error).__name__}). Save it again as "
            ".xlsx or as CSV."
        ) from None


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return Number(int(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Number(value)
    if isinstance(value, datetime):
        return str(value).removesuffix(" 00:00:00")
    return str(value)


def _sheet_rows(path: Path, sheet: Any) -> list[list[str]]:
    """Rows of one sheet; each counts as wide as the header, since it is filled up to it."""
    rows, n_cells, widest, most = [], 0, 4, _most_cells(path)
    for row in sheet.iter_rows(values_only=True):
        if len(rows) < HEADER_WITHIN:
            widest = max(widest, len(row))
        n_cells += max(widest, len(row))
        if n_cells > most:
            raise TableError(_too_many(path, most))
        rows.append([_text(v) for v in row])
    return rows


def _refuse_large_parts(path: Path, archive: zipfile.ZipFile, packed: int) -> None:
    """Refuse a workbook by what its parts claim to be unpacked; a part that lies breaks off there."""
    parts, most = archive.infolist(), min(MOST_BYTES, max(SMALL, PER_BYTE * packed))
    is_data = re.compile(r"/?xl/(worksheets/[^/]+|sharedStrings)\.xml|/?xl/media/.*", re.IGNORECASE)
    others = [part.file_size for part in parts if not is_data.fullmatch(part.filename)]
    for what, n, limit in (
        ("", sum(part.file_size for part in parts), most),
        (" of styles, names and links", sum(others), SMALL_PART),
    ):
        if n > limit:
            raise TableError(
                f"{path.name}: {n:,} bytes{what} unzipped out of {packed:,}, at most {limit:,} expected; "
                "that is no usual table. Save the sheet as CSV."
            )
    n_texts, most = 0, max(FEW_TEXT_TAGS, packed // 2)
    for part in (part for part in parts if part.filename.lower().endswith(".xml")):
        raw = archive.read(part)
        is_sheet = (
            b"<sst" not in raw and b"<sheetData" in raw
        )  # by what it holds, whatever its name
        n_texts += len(_RUN.findall(raw)) if is_sheet else raw.count(b"<")
        if _LONG_TAG.search(raw) or n_texts > most:
            raise TableError(
                f"{path.name}: a tag or comment of more than {LONG_TAG:,} bytes inside, or more than "
                f"{most:,} tags of texts and styles. Save the sheet as CSV."
            )


_RUN = re.compile(rb"<(?:\w{1,20}:)?r(?:Ph)?[\s/>]")  # of the text in a cell
_LONG_TAG = re.compile(
    rb"<[^<>]{%d}|<!--(?s:(?!-->).){%d}|<\?(?s:(?!\?>).){%d}" % ((LONG_TAG,) * 3)
)


def _most_cells(path: Path) -> int:
    return max(FEW_CELLS, path.stat().st_size)


def _too_many(path: Path, most: int) -> str:
    return (
        f"{path.name}: more than {most:,} cells, empty ones too, in a file of {path.stat().st_size:,} "
        "bytes. Delete empty rows and columns behind the table, or save it as CSV, not packed."
    )


def _parquet_rows(path: Path, raw: bytes) -> list[list[str]]:
    from pyarrow import ArrowException, parquet

    try:
        about = parquet.ParquetFile(io.BytesIO(raw))
        n_cells = about.metadata.num_rows * about.metadata.num_columns
        if n_cells > (most := _most_cells(path)):
            raise TableError(_too_many(path, most))
        texts = [f.name for f in about.schema_arrow if str(f.type) in ("string", "large_string")]
        # A text that stands in every row is kept once.
        table = parquet.read_table(io.BytesIO(raw), read_dictionary=texts).to_pandas()
    except TableError:
        raise
    except (ValueError, OSError, RuntimeError, KeyError, ArrowException) as error:
        raise TableError(
            f"{path.name}: not a whole parquet file ({type(error).__name__})."
        ) from None
    if any(n and n not in table for n in table.index.names):  # set_index("study_id") before writing
        table = table.reset_index()
    cells = table.astype(object).where(table.notna(), "")
    text = lambda v: (Number if isinstance(v, int | float) else str)(v)  # noqa: E731
    return [list(map(str, table.columns)), *([text(v) for v in row] for row in cells.to_numpy())]


def _framed(
    path: Path, rows: list[list[str]], needed: tuple[str, ...], notes: list[str]
) -> pd.DataFrame:
    """Header and rows as a frame; ragged rows and headers that stand twice are refused."""
    filled = [(i, row) for i, row in enumerate(rows) if any(c.strip() for c in row)]
    if not filled:
        raise TableError(f"{path.name}: the file is empty. Expected a header and rows.")
    start = filled[0][0]
    if n_titles := _header_at([row for _, row in filled], needed) or 0:
        notes.append(f"Row {filled[n_titles][0] - start + 1} read as the header.")
    filled = filled[n_titles:]
    n_cells, header = len(filled[0][1]), filled[0][1]
    header = [shown(" ".join(_UNSEEN.sub("", from_cell(h)).split())) for h in header]
    while header and not header[-1]:
        header.pop()
    width, problems, index, cells, n_escaped = len(header), [], [], [], 0
    for i, row in filled[1:]:
        extra = [c for c in row[width:] if c.strip()]
        if extra or (len(row) < width and len(row) < n_cells):
            problems.append(i - start + 1)
            continue
        index.append(i - start - 1)
        cells.append([_cell(c) for c in (row + [""] * width)[:width]])
        n_escaped += any("_x00" in c for c in row)
    if problems:
        raise TableError(
            f"{path.name}: {some_rows(np.array(problems) - 2)}: not as many cells as the header has "
            f"({width}). Quote texts that hold the delimiter or a line break."
        )
    if n_escaped:
        notes.append(f"{n_escaped:,} rows hold Excel's _x000D_: read as a line break.")
    table = pd.DataFrame(cells, columns=header, index=index, dtype=object)
    if not len(table):
        table = pd.DataFrame(columns=header, dtype=object)
    unnamed = [i for i, h in enumerate(header) if not h]
    if unnamed:  # the row numbers that a data frame wrote, or a stray cell
        notes.append(f"{len(unnamed)} columns without a name left out.")
        table = table.iloc[:, [i for i, h in enumerate(header) if h]]
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise TableError(
            f"{path.name}: column {', '.join(twice)}: stands more than once. Keep one."
        )
    return table


def _cell(text: str) -> str:
    """A cell with Excel's escapes of control characters (`_x000D_`, a line break) undone."""
    if isinstance(text, Number):
        return text
    text = from_cell(text)
    if "_x00" in text:
        text = re.sub(r"_x000D_\n?|_x000A_", "\n", text, flags=re.IGNORECASE)
        text = re.sub(r"_x00[01][0-9A-F]_", " ", text, flags=re.IGNORECASE)
        text = re.sub(r"_x005F_", "_", text, flags=re.IGNORECASE)
    return text.replace("\r\n", "\n").replace("\r", "\n")


_UNSEEN = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")


def plain(name: object) -> str:
    """A column's name as it is compared: letters and digits, lower case."""
    return "".join(c for c in str(name).lower() if c.isalnum())


def _renamed(
    path: Path, table: pd.DataFrame, needed: tuple[str, ...], notes: list[str]
) -> pd.DataFrame:
    problems, match = [], {}
    for name in needed:
        if name in table:
            continue
        alike = [c for c in table if plain(c) == plain(name)]
        if len(alike) == 1:
            match[alike[0]] = name
            notes.append(f"Column {alike[0]} read as {name}.")
        else:
            problems.append(name)
    if problems:
        raise TableError(
            f"{path.name}: no column {', '.join(problems)}. Found {', '.join(table) or 'none'}."
        )
    return table.rename(columns=match)


def some_rows(index: Iterable[int], most: int = 8) -> str:
    """`rows 3, 4 and 7 more` of a table's index, numbered as a spreadsheet does."""
    numbers = sorted({int(i) + 2 for i in index})
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:most]))}{more}"


def _filled(values: pd.Series) -> pd.Series:
    """Cells as text, empty where they hold a word for nothing."""
    text = values.fillna("").astype(str).str.strip()
    return text.where(~text.str.casefold().isin(_NOTHING), "")


_NOTHING = {
    "na",
    "n/a",
    "nan",
    "nat",
    "none",
    "null",
    "#n/a",
    "unknown",
    "unk",
    "-",
    "--",
    "?",
    ".",
}


def read_ids(values: pd.Series, *, where: str) -> pd.Series:
    """Ids without blanks around them, and without the `.0` of a spreadsheet's numbers.

    Raises
    ------
    TableError
        With the rows of ids that a spreadsheet rounded (`1.23E+11`), whose digits are lost, or that hold
        characters which cannot be seen: ids are printed, and some become names of files.
    """
    # ="007" and '007 are how spreadsheets are kept from taking ids for numbers.
    bare = values.str.replace(_UNSEEN, "", regex=True).str.strip()
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


# Formats by who writes them. A point between numbers is only written day first.
_DAY_FIRST = ("%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y", "%d/%m/%y", "%d-%m-%y", "%d.%m.%y")
_MONTH_FIRST = ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y", "%m-%d-%y")
_YEAR_FIRST = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%y-%m-%d", "%y/%m/%d", "%y.%m.%d")
_IN_WORDS = (
    "%d-%b-%Y", "%d %b %Y", "%d/%b/%Y", "%d.%b.%Y", "%d%b%Y", "%d. %b %Y", "%b %d %Y", "%d-%b-%y",
    "%d %b %y", "%Y-%b-%d",
)  # fmt: skip
FORMATS = {"ymd": _YEAR_FIRST, "dmy": _DAY_FIRST, "mdy": _MONTH_FIRST, "words": _IN_WORDS}
_MONTHS = (
    "jan january januar jänner januari janvier janv enero ene",
    "feb february februar februari février fevrier févr fév febrero",
    "mar march märz mär mrz maart mars marzo",
    "apr april avril avr abril abr",
    "may mai mei mayo",
    "jun june juni juin junio",
    "jul july juli juillet juil julio",
    "aug august augustus août aout agosto ago",
    "sep sept september septembre septiembre setiembre",
    "oct october oktober okt octobre octubre",
    "nov november novembre noviembre",
    "dec december dezember dez décembre decembre déc diciembre dic",
)
_MONTH = {word: words[:3] for words in _MONTHS for word in words.split()}
_TIME = re.compile(
    r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?(?: ?Uhr)?(?:Z| ?[+-]\d{2}:?\d{2})?)$"
)


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


_YEARS_IN = {"": 1.0, "y": 1.0, "m": 12.0, "w": 52.1775, "d": 365.2425}
_AGE = re.compile(
    r"(?P<n>\d{1,3}(?:[.,]\d+)?)\s*(?P<plus>\+)?[\s-]*(?P<unit>"
    r"(?:y(?:ears?|rs?|/?o)?|years? old|jahre?|jaar|(?-i:J(?=\.))|ans?|años?|anni|anos?|lat|let|rok[yi]?|år|歳|岁|"
    r"лет|года?|г|yaş|yıl|세)\.?|"
    r"(?:m(?:onths?|os?|ths?|nd)?|mon(?:ate?)?|maanden|mois|mes(?:es)?|mesi|мес|ay)\.?|"
    r"(?:w(?:eeks?|ks?)?|wochen?|semaines?|semanas?)\.?|(?:d(?:ays?)?|tage?|jours?|d[ií]as?)\.?|)"
    r"(?:[\s-]+old)?",
    re.IGNORECASE,
)
_UNITS = {**dict.fromkeys("jalrå歳岁лг세", "y"), "s": "w", "t": "d", "м": "m"}
_WHOLE_UNITS = {"jour": "d", "jours": "d", "ay": "m"}
_TWO_UNITS = re.compile(r"(\d{1,3}) ?y[a-z]*\.? ?(\d{1,2}) ?m[a-z]*\.?", re.IGNORECASE)


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
        if text and not match:
            odd.append(i)
        elif text:
            word = match["unit"].casefold().rstrip(".")
            unit = _WHOLE_UNITS.get(word) or _UNITS.get(word[:1], word[:1])
            out[i] = float(match["n"].replace(",", ".")) / _YEARS_IN[unit]
            if out[i] > 130:
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


_FEMALE = "f female w woman weiblich frau girl femme féminin feminin femenino mujer feminino mulher " \
          "femmina donna kobieta kvinna kvinde vrouw žena kadın kadin 女 女性 여 여자 ж жен"  # fmt: skip
_MALE = "m male man männlich mann boy homme masculin masculino hombre homem maschio uomo mężczyzna " \
        "mand muž erkek 男 男性 남 남자 varón varon м муж"  # fmt: skip
_NEITHER = "null o other u unknown x n/a na nan none not stated unspecified divers d i intersex ? -"
SEXES = {w: s for words, s in ((_FEMALE, "F"), (_MALE, "M"), (_NEITHER, "")) for w in words.split()}


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
