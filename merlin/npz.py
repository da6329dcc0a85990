"""Plain arrays out of an .npz that somebody else wrote, without trusting it.

Headers are read first: shape and type of each wanted array, against what its member really holds, so
that nothing is made for a claim. Other arrays are not touched and nothing is unpickled: text that was
saved as Python objects (a column of a table often is) is read off the pickle's opcodes.
"""

import errno
import io
import math
import pickletools
import sys
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

MAX_DEFLATE = 1032  # no deflated byte becomes more
SMALL = 1 << 26  # bytes that the arrays of a file of any size may take once they are read
PER_BYTE = 32  # and of each byte of a larger one: what was saved without compression always fits
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, UnicodeDecodeError)
_ODD = (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError, OverflowError)
_PICKLE = "Python objects (a pickle); they are never unpickled, allow_pickle stays off."


class Header(NamedTuple):
    """Where an array stands in the archive, its shape and type."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The file as an archive; whatever is wrong with it as a whole is a ValueError that names it."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _BROKEN as error:
        if getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise  # no such file, or the machine's; a place before the file's start is the archive's
        raise ValueError(
            f"{path.name}: not a whole .npz file ({error}). A copy may have broken off: copy it again, "
            "or write it again with np.savez."
        ) from error


def headers(
    archive: zipfile.ZipFile, names: Iterable[str]
) -> tuple[dict[str, Header], dict[str, str]]:
    """Shape and type of some arrays.

    Returns
    -------
    found : dict of str to Header
        Names that the file lacks are not in it.
    problems : dict of str to str
        What is wrong with a header.
    """
    members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
    times = Counter(i.filename.removesuffix(".npy") for i in archive.infolist())
    found: dict[str, Header] = {}
    problems: dict[str, str] = {}
    size = Path(str(archive.filename)).stat().st_size
    left = most = max(SMALL, PER_BYTE * size)
    for name in names:
        if name not in members:
            continue
        info = members[name]
        try:
            if times[name] > 1:
                raise ValueError(f"stands there {times[name]} times")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("packed in a way that NumPy never does")
            with archive.open(info) as stream:
                start = io.BytesIO(stream.read(1 << 16))  # a header may claim to be 4 GB long
            shape, dtype = _header(start)
            n_bytes = info.file_size - start.tell()
            is_held = dtype.hasobject or math.prod(shape) * dtype.itemsize == n_bytes
            can_be = n_bytes <= MAX_DEFLATE * info.compress_size
            if min(shape, default=0) < 0 or not is_held or not can_be:
                raise ValueError(f"claims {shape} of {dtype} in {n_bytes} bytes")
            left -= _cost(shape, dtype, n_bytes)
            if left < 0:
                raise ValueError(
                    f"{shape} of {dtype} is too much for a file of {size:,} bytes, whose arrays may "
                    f"take {most:,} once they are read; one written without compression may"
                )
            found[name] = Header(info, shape, dtype)
        except _ODD as error:
            said = str(error)[:300]
            problems[name] = f"cannot be read ({said}). Write the file again with np.savez."
    return found, problems


def _cost(shape: tuple[int, ...], dtype: np.dtype, n_bytes: int) -> int:
    """Bytes that an array takes once it is numbers of 8 bytes or text; objects are read op by op."""
    if dtype.hasobject:
        return PER_BYTE * n_bytes
    if len(shape) > 1:
        return math.prod(shape) * max(8, dtype.itemsize)
    return math.prod(shape) * max(100, 4 * dtype.itemsize)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    form = np.lib.format
    old = form.read_magic(stream)[0] == 1
    shape, _, dtype = (form.read_array_header_1_0 if old else form.read_array_header_2_0)(stream)
    return shape, dtype


def read(archive: zipfile.ZipFile, header: Header, kind: type) -> np.ndarray:
    """One array as text, or as numbers of a type.

    Parameters
    ----------
    archive, header
        From `opened` and `headers`.
    kind : type
        `str` also reads bytes (UTF-8), numbers and objects that are text; NaN and None become empty.
    """
    info, shape, dtype = header
    if dtype.hasobject:
        if kind is not str:
            raise ValueError(f"{_PICKLE} Save it with .astype(np.{kind.__name__}).")
        with archive.open(info) as stream:
            _header(stream)
            texts = _pickled_texts(stream.read(), math.prod(shape))
        if len(texts) * max(map(len, texts), default=0) > SMALL:  # as wide as the longest, each
            raise ValueError(f"{len(texts)} texts of up to {max(map(len, texts))} letters")
        return _characters(np.array(texts, str).reshape(shape))
    with archive.open(info) as stream:
        value = np.lib.format.read_array(stream, allow_pickle=False)
    if kind is not str:
        if value.dtype.kind not in ("iu" if kind is np.int64 else "fiub"):
            raise ValueError(f"{value.dtype}. Save numbers: .astype(np.{kind.__name__}).")
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and is found there
            return value.astype(kind)
    if value.dtype.kind == "S":
        return np.char.decode(value, "utf-8")
    if value.dtype.kind == "f":
        if value.dtype.itemsize > 8 or (np.abs(value) >= 1 << 53).any():  # digits were lost
            raise ValueError(
                f"{value.dtype} beyond whole numbers. Save text: np.array(…, dtype=str)."
            )
        return np.array([_plain(x) for x in value.ravel()], str).reshape(value.shape)
    if value.dtype.kind not in "Uiu":
        raise ValueError(f"{value.dtype}. Save text: np.array(…, dtype=str).")
    return _characters(value.astype(str))


def _characters(texts: np.ndarray) -> np.ndarray:
    """Text in which every number is a sign's: NumPy and pickles hold any, and fail on it later."""
    signs = np.frombuffer(texts.tobytes(), np.uint32)
    if (signs > sys.maxunicode).any() or (signs >> 11 == 0xD800 >> 11).any():  # or half a pair
        raise ValueError("numbers that are no characters. Save text: np.array(…, dtype=str).")
    return texts


def _plain(value: Any) -> str:
    """Text of one value as people write it: 7.0 is 7, NaN and None are empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value if isinstance(value, str) else np.format_float_positional(value, trim="-")


def _pickled_texts(raw: bytes, n: int) -> list[str]:
    """Texts of a pickled array of objects, read off its opcodes: nothing in it is ever run.

    `pickletools` only takes a pickle apart. After the array's own head comes a list: strings,
    numbers and None are taken from it, anything else is refused.
    """
    items: list[Any] = []
    memo: dict[Any, Any] = {}
    last, inside, name = None, False, ""
    for op, arg, _ in pickletools.genops(raw):
        name = op.name
        if name == "MEMOIZE" or "PUT" in name:
            memo[len(memo) if name == "MEMOIZE" else arg] = last
        elif not inside:
            inside, last = name == "EMPTY_LIST", None
        elif name in ("MARK", "APPEND", "APPENDS", "FRAME"):
            continue
        else:
            last = memo.get(arg) if "GET" in name else arg
            is_wide = isinstance(last, int) and last.bit_length() > 64
            if not (name == "NONE" or isinstance(last, str | bytes | int | float)) or is_wide:
                break
            items.append(last)
    if len(items) != n or not name.startswith("TUPLE"):
        raise ValueError(f"{_PICKLE} Save text: np.array(…, dtype=str).")
    return [_plain(x) for x in items]
