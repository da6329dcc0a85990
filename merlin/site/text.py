"""Markdown to HTML for the site: formulas as MathML, links to the site's own pages.

Notebook cells and docs take the same way. A formula becomes MathML, which browsers draw without a
script. A link to a file of the repository becomes one to its page here; so does `01_cohort` in code
type, where a notebook of that name has a page.
"""

import posixpath
import re
from html import escape
from urllib.parse import urlsplit

from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


class Renderer(IPythonRenderer):
    """nbconvert's renderer with MathML, and links resolved by `resolve`."""

    def __init__(self, resolve, notebooks):
        super().__init__(escape=False)
        self._resolve, self._notebooks = resolve, notebooks

    def block_math(self, body):
        """A displayed formula."""
        return f'<div class="formula">{convert(body, display="block")}</div>'

    def inline_math(self, body):
        """A formula in a line."""
        return convert(body)

    def table(self, text):
        """A table that scrolls sideways by itself where the page is narrow."""
        return f'<div class="scroll"><table>{text}</table></div>'

    def codespan(self, text):
        """Code type; the name of a notebook links to its page."""
        shown = f"<code>{escape(text)}</code>"
        page = self._notebooks.get(text.removesuffix(".ipynb"))
        return f'<a href="{page}">{shown}</a>' if page else shown

    def link(self, text, url, title=None):
        """A link, to this site's page where there is one."""
        target = self._resolve(url)
        return f'<a href="{escape(target)}">{text}</a>' if target else text

    def image(self, text, url, title=None):
        """A picture with its alternative text."""
        target = re.sub(r"gallery\.html#(\w+)$", r"figures/\1.png", self._resolve(url) or url)
        return f'<img src="{escape(target)}" alt="{escape(text)}">'


def markdown_to_html(source, *, resolve=lambda url: url, notebooks=None):
    """Render markdown.

    Parameters
    ----------
    source : str
    resolve : callable
        Address as written → address on the site, or None to leave the words without a link.
    notebooks : dict of str to str
        Notebook name → address of its page.
    """
    return MarkdownWithMath(renderer=Renderer(resolve, notebooks or {})).render(source)


def resolver(folder, page, known, on_missing):
    """How a page resolves its links.

    Parameters
    ----------
    folder : str
        Of the source file, from the repository's root, as `docs`.
    page : str
        The page's own address on the site, as `docs/limits.html`.
    known : dict of str to str
        Repository path → address on the site.
    on_missing : callable
        Repository path → address of a page made for it, or None.
    """

    def resolve(url):
        parts = urlsplit(url)
        if parts.scheme or url.startswith("#") or not parts.path:
            return url
        path = posixpath.normpath(posixpath.join(folder, parts.path))
        target = known.get(path) or on_missing(path)
        if target is None:
            return None
        found = posixpath.relpath(target, posixpath.dirname(page) or ".")
        return found + (f"#{parts.fragment}" if parts.fragment else "")

    return resolve
