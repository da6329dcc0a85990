"""Tables as people have them → text, one reader for all of ours.

CSV with commas, semicolons, tabs or bars; UTF-8 with or without a mark, UTF-16, a Windows page; Excel
workbooks; parquet. Every cell arrives as text, so that ids keep their zeros. A row keeps its number:
`index + 2` is its row in a spreadsheet. What a cell may mean is for `merlin.data.cells`.
"""

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from merlin.data.cells import (
    UNSEEN,
    Number,
    TableError,
    plain,
    some_rows,
)
from merlin.data.letters import code_pages
from merlin.data.scan import unheard
from merlin.words import from_cell, shown

DELIMITERS = ",;\t|"
HEADER_WITHIN = 6  # rows, where the first is a title
MOST_BYTES = 1 << 30  # of a table, unzipped
# What a packed file of any size may become, and each byte of a larger one. An unpacked CSV always fits.
SMALL, PER_BYTE = 1 << 24, 16  # bytes
FEW_CELLS = 1 << 19  # cells, empty ones too, and one for each byte: they are objects of 200 bytes
# Letters of all cells: a workbook keeps a text once for all of them.
FEW_LETTERS, LETTERS_PER_BYTE = 1 << 27, 16
SMALL_PART = 1 << 19  # bytes of a workbook's styles, names, links: their words are objects each
FEW_TEXT_TAGS = 400_000  # or one for two bytes: a text has four, and makes an object of its own
LONG_TAG = 1 << 16  # bytes: a parser begins long ones again and again
csv.field_size_limit(16 << 20)  # a report may be long; a page of 16 MB is none


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
    raw, notes = _unzipped(path), list[str]()
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
    # Some programs write a blank before each quoted cell.
    is_spaced = re.search(rf'(?m){re.escape(sep)} +"(?:[^"]|"")*+"(?={re.escape(sep)}|$)', text)
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream, delimiter=sep, strict=True, skipinitialspace=bool(is_spaced))
    rows = list[list[str]]()
    n_cells, n_bytes = 0, path.stat().st_size
    try:
        for row in reader:
            n_cells += len(row)
            _refuse_many_cells(path, n_bytes, n_cells)
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
        with unheard():  # of styles and validations that are no matter here
            book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
            sheet, rows, width = _sheet_of_the_table(path, book, needed)
        if len(book.sheetnames) > 1:
            place = book.sheetnames.index(sheet.title)
            later = f"Sheet {place + 1}, the first seen that is the table,"
            which = later if place else "The first"
            notes.append(f"{which} of {len(book.sheetnames)} sheets was read.")
        with zipfile.ZipFile(io.BytesIO(raw)) as parts:
            empty = _UNCOMPUTED.findall(parts.read(sheet._worksheet_path))
        if empty:
            cells = b", ".join(empty[:8]).decode()
            raise TableError(
                f"{path.name}: {len(empty):,} formulas without a value: {cells}. Open it in a spreadsheet "
                "and save it again, or replace formulas by values."
            )
        _refuse_many_cells(path, len(raw), len(rows) * width)
        return [row + [""] * (width - len(row)) for row in rows]  # empty cells may not be written
    except TableError:
        raise
    except _NO_WORKBOOK as error:
        raise TableError(
            f"{path.name}: not a readable Excel workbook ({type(error).__name__}). Save it again as "
            ".xlsx or as CSV."
        ) from None


# What openpyxl raises of damaged workbooks.
_NO_WORKBOOK = (
    LookupError, ValueError, OSError, AttributeError, TypeError, SyntaxError, RuntimeError, EOFError,
    OverflowError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def _sheet_of_the_table(
    path: Path, book: Any, needed: tuple[str, ...]
) -> tuple[Any, list[list[str]], int]:
    """The sheet, its rows and the width of its header; of none that fits, the first with rows."""
    seen = [s for s in book.worksheets if s.sheet_state == "visible"]
    sheets = []
    for sheet in seen or book.worksheets:
        sheet.reset_dimensions()  # as large as its cells, whatever it says of itself
        rows = _sheet_rows(path, sheet)
        filled = [row for row in rows if any(row)]
        at = _header_at(filled, needed)
        sheets.append((sheet, rows, len(filled[at or 0]) if filled else 0))
        if len(filled) > 1 and (at is not None if needed else max(map(len, filled)) > 1):
            return sheets[-1]
    return max(sheets, key=lambda s: s[2] > 0)  # what is wrong is told of the first


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
    rows = list[list[str]]()
    n_cells, widest, n_bytes = 0, 4, path.stat().st_size
    for row in sheet.iter_rows(values_only=True):
        if len(rows) < HEADER_WITHIN:
            widest = max(widest, len(row))
        n_cells += max(widest, len(row))
        _refuse_many_cells(path, n_bytes, n_cells)
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
        is_sheet = b"<sst" not in raw and b"<sheetData" in raw  # whatever its name
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


def _refuse_many_cells(path: Path, n_bytes: int, n_cells: int) -> None:
    """Refuse more cells, empty ones too, than a file of so many bytes may have."""
    if n_cells > (most := max(FEW_CELLS, n_bytes)):
        raise TableError(
            f"{path.name}: more than {most:,} cells, empty ones too, in a file of {n_bytes:,} "
            "bytes. Delete empty rows and columns behind the table, or save it as CSV, not packed."
        )


def _parquet_rows(path: Path, raw: bytes) -> list[list[str]]:
    from pyarrow import ArrowException, parquet

    try:
        about = parquet.ParquetFile(io.BytesIO(raw))
        n_cells = about.metadata.num_rows * about.metadata.num_columns
        _refuse_many_cells(path, len(raw), n_cells)
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
    header = [shown(" ".join(UNSEEN.sub("", str(from_cell(h))).split())) for h in header]
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
    text = str(from_cell(text))
    if "_x00" in text:
        text = re.sub(r"_x000D_\n?|_x000A_", "\n", text, flags=re.IGNORECASE)
        text = re.sub(r"_x00[01][0-9A-F]_", " ", text, flags=re.IGNORECASE)
        text = re.sub(r"_x005F_", "_", text, flags=re.IGNORECASE)
    return text.replace("\r\n", "\n").replace("\r", "\n")


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
