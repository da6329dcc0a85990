r"""What a stranger's word may become: names and texts of files pass here before they go anywhere.

A word that a file brought (an id, a finding's or phecode's name, text of a header, a path) is data. Where
it becomes something that a machine acts on, one function here says what is allowed:

=================  ====================================================================================
a file's name      `names_a_file` asks; the reader refuses what it denies, with row and mend
a word of a shell  `NAME`, for profiles and arms; anything else reaches a shell as a variable's value
a line             `shown`: terminal, message, log; what steers a terminal is escaped (`lines`: several)
Markdown, HTML     `as_text`: no tag, link, picture or formula comes of it
a table's cell     `as_cell`: no formula comes of it; `from_cell` gives the word back
what is shared     `without_folders`: of a path its name; notebooks, headers and sidecars are written so
=================  ====================================================================================
"""

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

# Of profiles and arms: they become file names and words of a shell.
NAME = re.compile(r"\w[\w.-]{0,47}")
_FORMULA = "=+-@＝＋－＠"  # with the wide signs, which spreadsheets read too
_WIDE = str.maketrans({"$": "＄", "\\": "＼"})


def names_a_file(text: str) -> bool:
    """Whether an id can be the name of a file in the folder that is meant, and in no other."""
    return (
        text not in ("", ".", "..")
        and text.isprintable()
        and len(text.encode()) <= 200
        and not set(text) & set("/\\")
    )


def shown(text: object, most: int | None = None) -> str:
    r"""A path or a name as any terminal, message and log can hold it, in one line.

    Bytes of a file name that are no UTF-8, and characters that steer a terminal or turn its direction,
    are escaped (`\xe9`, `\x1b`, `\n`).

    Parameters
    ----------
    text : object
    most : int, optional
        Characters to keep; an ellipsis stands for the rest.
    """
    raw = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if most is not None and len(raw) > most:
        raw = f"{raw[:most]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in raw)


def lines(text: object) -> str:
    """Text of several lines, each as `shown`."""
    return "\n".join(map(shown, str(text).split("\n")))


class Refusal(ValueError):
    """What cannot be taken, and why; a message may quote files, so it comes as `lines`."""

    def __init__(self, text: object):
        super().__init__(lines(text))


def as_text(text: object, most: int | None = None) -> str:
    """A name for Markdown or HTML that shows its letters and does nothing.

    Every sign that could open a tag, link, picture, list, heading, emphasis or table is an entity;
    a dollar or backslash, which a formula's renderer looks for after Markdown, becomes the wide sign.
    """
    plain = shown(text, most).strip().translate(_WIDE)
    return "".join(c if c.isalnum() or c == " " or ord(c) > 127 else f"&#{ord(c)};" for c in plain)


def as_cell(value: object) -> object:
    """A value for a cell of a CSV: text that a spreadsheet would compute begins with an apostrophe.

    Numbers stay as they are, also as text or as a list with blanks between.
    """
    if not isinstance(value, str):
        return value
    bare = value.lstrip("'")  # what already looks marked is marked once more, so that it comes back
    seen = re.sub(r"^(?:[^\w\S]|[\x00-\x1f\u200b-\u200f\u2060\ufeff])+", "", bare)
    if not (bare.startswith(tuple("\t\r\n")) or seen.startswith(tuple(_FORMULA))):
        return value
    try:
        for part in bare.split():
            float(part)
    except ValueError:
        return f"'{value}"
    return value


def from_cell(value: object) -> object:
    """The value that `as_cell` wrote."""
    if isinstance(value, str) and value[:1] == "'" and as_cell(value[1:]) == value:
        return value[1:]
    return value


# A whole value that is a path; and paths inside a text: in quotation marks, before a colon where a line
# or what follows a colon begins (they may hold blanks, as Windows' may), or of two names and more.
_WINDOWS = r"(?:[A-Zc-e]:[\\/]{1,4}(?=\w)|(?<!:)\\{2,4}(?=[A-Za-z][\w.-]+\\+[\w$]{2}))"
_START = rf"(?:/(?=[^\s/])|//(?=\w)|~[\w.-]*/|\.{{1,2}}/|file:|{_WINDOWS})"
_PATH = re.compile(rf"{_START}[^\n:]*")
_PART = r"""/{1,2}[^\s/'"<>|:;,()\[\]{}`\x1b]+"""
_WORD = r"""[^\s/\\'"<>|:;,()\[\]{}*?`]++"""
_PAIRS = ("''", '""', "``", "“”", "‘’", "«»")
_QUOTED = "|".join(rf"{p[0]}{_START}[^\n<>]{{0,512}}?{p[1]}(?!\w)" for p in _PAIRS)
_INSIDE = re.compile(
    rf"(?P<quoted>{_QUOTED})"
    rf"|(?P<windows>(?<![\w\\]){_WINDOWS}(?:{_WORD}(?: {_WORD}){{0,4}}[\\/]+)+)"
    r"|(?:^|(?<=: ))/(?=[^\s/])[^\n:<>]{0,512}/(?=[^\n:/]{1,255}:\s)"
    r"|(?P<kept>\x1b\[[\d;]*m|(?<![\w/-])-[A-Za-z](?=/)|(?<![\w/.<+~-])(?<!base64,))"
    rf"(?:(?:~[\w.-]*|[\w/-]{{0,99}}/\.\.|\.\.|file://)(?:{_PART})+"
    rf"|(?:\.\.\.|(?<!:)(?=//)|(?=/\w))(?:{_PART}){{2,}})/?"
    r"|(?i:%2F)(?:[\w.+-]+(?i:%2F))+",
    re.MULTILINE,
)


def without_folders(value: Any, places: tuple[str, ...] = ()) -> Any:
    """A plain value with the names alone of a machine's paths, however deep and inside texts.

    Below this checkout and this environment, a path keeps what is below them; home is `~`. In a text, a
    path with blanks is known by quotation marks around it, by a colon after it where it begins a line or
    follows a colon, by its drive's letter, or by `places`; elsewhere its folders stay up to the last
    blank, as do `~name` alone and a path that begins nowhere (`data//home/name/x`).

    Parameters
    ----------
    value : dict, list, tuple, Path, str or other
        Keys of a dict too; what is none of these stays.
    places : tuple of str
        More paths, which may hold blanks: of each, its name stays.
    """
    if isinstance(value, dict):
        return {without_folders(k, places): without_folders(v, places) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(v, places) for v in value]
    if str(value) == str(Path.home()):
        return "~"
    if isinstance(value, Path) or (isinstance(value, str) and _PATH.fullmatch(value)):
        return _last(str(value))
    if not isinstance(value, str) or not re.search(r"[/\\]|%2[Ff]", value):
        return value
    for place in sorted(places, key=len, reverse=True):
        value = value.replace(place, Path(place).name)
    for place, name in _here():
        value = value.replace(place, name)
    if len(str(Path.home())) > 1:
        value = re.sub(rf"(?<![\w.]){re.escape(str(Path.home()))}(?![\w.-])", "~", value)
    return _INSIDE.sub(_name, value)


def _last(path):
    """The name of a path, of Windows' too."""
    is_windows = re.match(_WINDOWS, path)
    return re.split(r"[\\/]" if is_windows else "/", path.rstrip("\\/" if is_windows else "/"))[-1]


def _name(match):
    if said := match["quoted"]:
        return f"{said[0]}{_last(said[1:-1])}{said[-1]}"
    if match["kept"] is None:  # its folders alone
        return ""
    return f"{match['kept']}{_last(match[0])}"


@cache
def _here():
    """Where the checkout, the environment and the user's home begin, and what to say for them."""
    ours = (Path(__file__).parents[1], Path(sys.prefix), Path(sys.base_prefix))
    return (*((f"{p}/", "") for p in ours), (f"{Path.home()}/", "~/"))
