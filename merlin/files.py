"""Files written whole or not at all, through no link that lies in the way; tables without formulas."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from merlin.words import as_cell, from_cell

if TYPE_CHECKING:
    import pandas as pd

_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A new temporary neighbour of `path`, with its ending, that takes its place if all goes well.

    For libraries that write to a name; its name cannot be foreseen, so no link can lie there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=f".{path.name}")
    os.close(handle)
    try:
        yield Path(name)
        # mkstemp makes files for the owner only; results are for whom the user's umask lets in.
        Path(name).chmod(0o666 & ~_UMASK)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """A stream to a temporary neighbour of `path` that takes its place if all goes well."""
    with atomic_path(path) as part, part.open(mode) as stream:
        yield stream


def write_text(path: str | Path, text: str) -> None:
    """Write a text atomically."""
    with atomic(path) as stream:
        stream.write(text)


def copy(source: str | Path, target: str | Path) -> None:
    """Copy a file's content atomically."""
    with atomic_path(target) as part:
        shutil.copyfile(source, part)


def file_hash(path: str | Path) -> str:
    """sha256 of a file, 64 hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_csv(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a table atomically; texts that a spreadsheet would compute are marked, see `words.as_cell`."""

    def text(value: object) -> object:  # a bare carriage return, unquoted by pandas, ends the row
        plain = as_cell(value)
        return re.sub("\r\n?", "\n", plain) if isinstance(plain, str) and "\r" in plain else plain

    with atomic(path) as stream:
        changed_texts(table, text).to_csv(stream, index=False, lineterminator="\n")


def read_csv(path: str | Path | IO[bytes], **options) -> "pd.DataFrame":
    """A table that `write_csv` wrote; options as of `pandas.read_csv`."""
    import pandas as pd

    return changed_texts(pd.read_csv(path, **options), from_cell)


def write_xlsx(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a workbook of one sheet atomically, all texts as texts: `=1+1` is no formula."""
    import pandas as pd
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    plain = changed_texts(
        table, lambda v: ILLEGAL_CHARACTERS_RE.sub(" ", v) if isinstance(v, str) else v
    )
    with atomic(path, "wb") as stream, pd.ExcelWriter(stream, engine="openpyxl") as book:
        plain.to_excel(book, index=False)
        for cell in (cell for row in book.book.active for cell in row):
            if cell.data_type == "f":
                cell.data_type = "s"


def write_parquet(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a table as parquet atomically."""
    with atomic(path, "wb") as stream:
        table.to_parquet(stream, index=False)


def changed_texts(table: "pd.DataFrame", change: Callable[[object], object]) -> "pd.DataFrame":
    """A table with its texts and its columns' names changed; other values as they are."""
    out = table.rename(columns=change)
    for i, kind in enumerate(table.dtypes):
        if kind.kind == "O":
            values = table.iloc[:, i].tolist()
            changed = [change(v) for v in values]
            if any(a is not b for a, b in zip(changed, values, strict=True)):
                out.isetitem(i, np.fromiter(changed, object, len(changed)))
    return out


def write_json(path: str | Path, value: object) -> None:
    """Write JSON atomically, keys in the order given."""
    write_text(path, json.dumps(value, indent=1, default=plain) + "\n")


def plain(value: object) -> object:
    """NumPy's numbers and arrays as JSON holds them, all else as text."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)
