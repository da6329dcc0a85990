"""What becomes HTML of the site: Markdown, HTML that a cell printed, and the names in both.

Cells, their outputs and the docs take the same way, and Sphinx gets what came out of it as HTML, never as
Markdown: of what it would act on there (directives, roles, links that copy files), nothing is left. Outputs
hold words of files that strangers made, so whatever was rendered passes `clean`: a closed list of tags and
attributes, no picture from elsewhere, no link but to the web, to a page of the site, or to a file that it
may show. A formula becomes MathML, which browsers draw without a script. What a cell ran on is not a
reader's business: `unnamed` takes folders, the user and the host out of what a page shows.
"""

import getpass
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from html import escape, unescape
from pathlib import Path
from urllib.parse import urlsplit

import nh3
import yaml
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

from merlin.words import without_folders

Resolve = Callable[[str], str | None]  # a link as written → where it leads, None for nowhere
_ALLOWED = yaml.safe_load((Path(__file__).parent / "allowed.yaml").read_text())
_MATH = {tag: set(_ALLOWED["math_attributes"].split()) for tag in _ALLOWED["math_tags"].split()}
_TAGS = {*_ALLOWED["tags"].split(), *_MATH}
_ATTRIBUTES = {tag: set(names) for tag, names in _ALLOWED["attributes"].items()} | _MATH
_CLASSES = {
    "div": {"math", "block"},
    "pre": {"highlight"},
    "span": {"math", *STANDARD_TYPES.values()} - {""},
}
PNG = re.compile(r"data:image/png;base64,iVBORw0KGgo[A-Za-z0-9+/]*={0,2}")


def _formula(body: str, options: dict[str, bool]) -> str:
    try:
        return convert(body, display="block" if options["display_mode"] else "inline")
    except Exception:  # noqa: BLE001 (its errors have no common class, and deep braces exhaust the stack)
        return f"<code>{escape(body)}</code>"


def coloured(code: str, language: str, _attributes: str = "") -> str:
    """Code as HTML, in colours where its language is known."""
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        lexer = TextLexer()
    return f'<pre class="highlight">{highlight(code, lexer, HtmlFormatter(nowrap=True))}</pre>\n'


MARKDOWN = MarkdownIt("commonmark", {"html": True, "highlight": coloured})
MARKDOWN.enable(["table", "strikethrough"]).use(
    dollarmath_plugin, renderer=_formula, allow_labels=False, double_inline=True
)


def clean(html: str, *, resolve: Resolve) -> str:
    """HTML with its words, tables, formulas and PNG pictures, and nothing that acts or asks the network.

    A link that `resolve` leads nowhere keeps its words, a picture its alternative text.
    """

    def keep(tag: str, name: str, value: str) -> str | None:
        if (tag, name) == ("a", "href"):
            return resolve(value)
        if (tag, name) == ("img", "src") and not PNG.fullmatch(value):
            page = re.sub(r"gallery\.html#(\w+)$", r"figures/\1.png", resolve(value) or "")
            return page if page.endswith(".png") and not urlsplit(page).scheme else None
        return value

    cleaned = nh3.clean(
        html, tags=_TAGS, attributes=_ATTRIBUTES, allowed_classes=_CLASSES, attribute_filter=keep,
        url_schemes={"http", "https", "mailto", "data"}, link_rel=None,
    )  # fmt: skip
    return _TAG.sub(lambda tag: _words_of(tag[0]), cleaned)


# A tag of cleaned HTML, whose values stand in double quotes.
_TAG = re.compile(r'(<[^>"]*(?:"[^"]*"[^>"]*)*>)')


def _words_of(tag: str) -> str:
    bare = re.fullmatch(r'<img(?: alt="([^"]*)")?>', tag)  # its address went
    return escape(unescape(bare[1] or ""), quote=False) if bare else tag


# Accounts and hosts that everybody has, and the word that is everywhere here.
_ANYBODY = {"root", "user", "admin", "ubuntu", "debian", "jovyan", "runner", "vscode", "codespace", "test",
            "localhost", "merlin"}  # fmt: skip


def unnamed(text: str) -> str:
    """A text without folders, and without this machine's host, its user and the user's home."""
    host, names = socket.gethostname(), {Path.home().name: "user"}
    with suppress(KeyError, OSError):  # a container's user may be a number alone
        names[getpass.getuser()] = "user"
    names |= {host.partition(".")[0]: "host", host: "host"}
    text = str(without_folders(text))
    for name in sorted(names, key=len, reverse=True):
        if len(name) > 2 and not name.isdecimal() and name.lower() not in _ANYBODY:
            text = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", names[name], text)
    return text


def in_text(html: str, change: Callable[[str], str]) -> str:
    """`change` done to the text between the tags of cleaned HTML, and to words and anchors made of it."""
    worded = lambda m: m[1] + escape(change(unescape(m[2])))  # noqa: E731
    parts = _TAG.split(html)
    parts[::2] = [escape(change(unescape(p)), quote=False) for p in parts[::2]]
    parts[1::2] = [re.sub(r'( (?:alt="|href="#))([^"]*)', worded, p) for p in parts[1::2]]
    return "".join(parts)
