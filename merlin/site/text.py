"""What becomes HTML of the site: Markdown, HTML that a cell printed, and the names in both.

Cells, their outputs and the docs take the same way. Outputs hold words of files that strangers made, so
whatever was rendered passes `clean`: a closed list of tags and attributes, no picture from elsewhere, no
link but to the web, to a page of the site, or to a file that it may show. A formula becomes MathML,
which browsers draw without a script. What a cell ran on is not a reader's business: `names_only` and
`unnamed` take folders, the user and the host out of what a page shows.
"""

import getpass
import posixpath
import re
import socket
from contextlib import suppress
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import nh3
from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.token import STANDARD_TYPES

_MATH = set(
    "math mrow mi mo mn ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable "
    "mtr mtd mstyle mpadded mphantom menclose".split()
)
_MATH_ATTRIBUTES = set(
    "display displaystyle scriptlevel mathvariant mathcolor stretchy fence form separator symmetric largeop "
    "movablelimits accent accentunder lspace rspace minsize maxsize linethickness columnalign columnlines "
    "columnspacing rowspacing rowlines width height depth voffset notation".split()
)
_TAGS = _MATH | set(
    "p br hr h1 h2 h3 h4 h5 h6 strong b em i del s sub sup small kbd code pre blockquote ul ol li dl dt dd "
    "table caption thead tbody tfoot tr th td details summary div span a img".split()
)
_ATTRIBUTES = {
    "a": {"href"},
    "img": {"src", "alt"},
    "ol": {"start"},
    "th": {"scope", "colspan", "rowspan"},
    "td": {"colspan", "rowspan"},
    **{f"h{n}": {"id"} for n in range(1, 7)},
    **dict.fromkeys(_MATH, _MATH_ATTRIBUTES),
}
_CLASSES = {
    "a": {"anchor-link"},
    "div": {"formula", "highlight", "scroll"},
    "span": {c for c in STANDARD_TYPES.values() if c},
}
PNG = re.compile(r"data:image/png;base64,iVBORw0KGgo[A-Za-z0-9+/]*={0,2}")


class Renderer(IPythonRenderer):
    """nbconvert's renderer with MathML; `clean` looks after its links and pictures."""

    def __init__(self, notebooks):
        super().__init__(escape=False)
        self._notebooks = notebooks

    def block_math(self, body):
        """A displayed formula."""
        return f'<div class="formula">{_formula(body, "block")}</div>'

    def inline_math(self, body):
        """A formula in a line."""
        return _formula(body, "inline")

    def table(self, text):
        """A table that scrolls sideways by itself where the page is narrow."""
        return f'<div class="scroll"><table>{text}</table></div>'

    def codespan(self, text):
        """Code type; the name of a notebook links to its page."""
        shown, name = f"<code>{escape(text)}</code>", text.removesuffix(".ipynb")
        return (
            f'<a href="/notebooks/{name}.ipynb">{shown}</a>' if name in self._notebooks else shown
        )

    def link(self, text, url, title=None):
        """A link as it was written."""
        return f'<a href="{escape(url)}">{text}</a>'

    def image(self, text, url, title=None):
        """A picture with its alternative text."""
        return f'<img src="{escape(url)}" alt="{escape(text)}">'


def _formula(body, display):
    try:
        return convert(body, display=display)
    except Exception:  # noqa: BLE001 (its errors have no common class, and deep braces exhaust the stack)
        return f"<code>{escape(body)}</code>"


def markdown_to_html(source, *, resolve, notebooks=()):
    """Render Markdown, with nothing live in it.

    Parameters
    ----------
    source : str
    resolve : callable
        From `resolver`.
    notebooks : collection of str
        Names that link to a page where they stand in code type.
    """
    return clean(MarkdownWithMath(renderer=Renderer(notebooks)).render(source), resolve=resolve)


def clean(html, *, resolve):
    """HTML with its words, tables, formulas and PNG pictures, and nothing that acts or asks the network.

    Parameters
    ----------
    html : str
    resolve : callable
        From `resolver`. A link to nothing keeps its words, a picture its alternative text.
    """

    def keep(tag, name, value):
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


def _words_of(tag):
    bare = re.fullmatch(r'<img(?: alt="([^"]*)")?>', tag)  # its address went
    return escape(unescape(bare[1] or ""), quote=False) if bare else tag


def resolver(folder, page, known, on_missing):
    """How a page resolves its links.

    Parameters
    ----------
    folder : str
        Of the source file, from the repository's root, as `docs`. A link that begins with a slash starts
        at the root.
    page : str
        The page's own address on the site, as `docs/limits.html`.
    known : dict of str to str
        Repository path → address on the site.
    on_missing : callable
        Repository path → address of a page made for it, or None.

    Returns
    -------
    callable
        Address as written → address to link to, or None for what is no page here and not on the web.
    """

    def resolve(url):
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        if parts.scheme or parts.netloc:
            is_web = parts.scheme in ("http", "https") and parts.netloc and unnamed(url) == url
            return url if is_web or parts.scheme == "mailto" else None
        if not parts.path:
            return url if parts.fragment else None
        path = posixpath.normpath(posixpath.join(folder, unquote(parts.path)).lstrip("/"))
        target = known.get(path) or on_missing(path)
        if target is None:
            return None
        address, _, anchor = target.partition("#")
        found = quote(posixpath.relpath(address, posixpath.dirname(page) or "."))
        anchor = anchor or parts.fragment
        return found + (f"#{anchor}" if anchor else "")

    return resolve


# A path begins where no word, address or tag does, has two parts or a sign of a folder (~, .., a drive),
# and may have spaces in all but its last name.
_PART = r"[^\s/\\'\"<>|,;:()\[\]{}*?`]++"
_PATH = re.compile(
    rf"""(?: (?<![\w:./\\<~])(?<![a-z]>)/+(?={_PART}(?:[ ]{_PART}){{0,4}}/)  # /mnt/x
    | (?:(?<=:)|(?<=-[A-Za-z]))/(?={_PART}(?:[ ]{_PART}){{0,4}}/)  # of PATH=a:/b/c, -I/b/c
    | (?<!\w)(?: file:/+ | ~(?:[A-Za-z_][\w.-]*+)?[/\\] | [A-Za-z]:[/\\]{{1,2}}(?=\w) )
    | (?<![\w./\\])(?:\.\.[/\\])++
    | (?<!\\)\\{{2,4}}(?=[A-Za-z][\w.-]+\\+[\w$]) )  # \\server\share
    (?: (?:(?![^\s/\\]*\.\w{{1,5}}[ ]){_PART}[ ](?!-)){{0,4}} {_PART} [/\\]+ )*+ (?:{_PART})?""",
    re.VERBOSE,
)
_HOME = re.compile(r"(?:/home|/Users|[A-Za-z]:[/\\]+Users)[/\\]+[^/\\]+[/\\]*")
# Accounts and hosts that everybody has, and the word that is everywhere here.
_ANYBODY = {"root", "user", "admin", "ubuntu", "debian", "jovyan", "runner", "vscode", "codespace", "test",
            "localhost", "merlin"}  # fmt: skip


def names_only(text):
    """A text with the last name alone of each path that leads out of the project.

    Absolute paths, and those from `~`, `..` or a drive; a home folder itself becomes `~`. Relative paths,
    which are the project's own, and addresses of the web stay.
    """
    if not any(sign in text for sign in "/\\~"):  # tables of numbers are long
        return text
    home = str(Path.home())
    if len(Path(home).parts) > 1:  # by its letters, since a person's name may have spaces
        text = re.sub(rf"{re.escape(home)}(?!\w|[.-]\w)", "~", text)
    return _PATH.sub(_last_name, text)


def _last_name(found):
    path = re.sub("^file:/*", "/", found[0])
    names = [n for n in re.split(r"[/\\]+", path) if n not in ("", "~", "..")]
    return (
        "~"
        if _HOME.fullmatch(path) or (path.startswith("~") and not names)
        else names[-1]
        if names
        else path
    )


def unnamed(text):
    """A text without this machine's user, as the account and its home are called, and without its host."""
    names = {
        "host": {(host := socket.gethostname()), host.partition(".")[0]},
        "user": {Path.home().name},
    }
    with suppress(KeyError, OSError):  # a container's user may be a number alone
        names["user"].add(getpass.getuser())
    for word, called in names.items():
        for name in sorted(called, key=len, reverse=True):
            if len(name) > 2 and not name.isdecimal() and name.lower() not in _ANYBODY:
                text = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", word, text)
    return text


def in_text(html, change):
    """`change` done to the text between the tags of cleaned HTML, and to words and anchors made of it."""
    parts = _TAG.split(html)
    parts[::2] = [escape(change(unescape(p)), quote=False) for p in parts[::2]]
    worded = lambda m: m[1] + escape(change(unescape(m[2])))  # noqa: E731
    parts[1::2] = [re.sub(r'( (?:alt="|id="|href="#))([^"]*)', worded, p) for p in parts[1::2]]
    return "".join(parts)
