"""Sources of the site's pages: a notebook for each, with nothing in it that Sphinx or MyST could act on.

Titles are Markdown, with every sign escaped, so that menus, contents and search know them. All other words
and HTML outputs come cleaned, as HTML; code, streams and pictures as cells that hold nothing else. No
metadata of an executed notebook is taken over: it could ask to be executed. Nothing outside the repository
and the run is shown, and of the repository no file that git doesn't track.
"""

import json
import posixpath
import re
import shutil
import subprocess
from functools import cache
from itertools import groupby
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import cleaning
import jinja2
import nbformat
import pandas as pd
import viewer
from nbformat import NotebookNode
from nbformat import v4 as form

from merlin import run
from merlin.figures.catalogue import FIGURES
from merlin.site.build import executed_notebooks
from merlin.words import as_text, names_a_file, without_folders
from merlin.words import shown as in_one_line

FILES = "files"  # beside the sources: what is copied as it is
# Pages made from Markdown: repository path → address on the site.
DOCS = {
    "README.md": "docs/readme.html",
    "CONTRIBUTING.md": "docs/contributing.html",
    "CHANGELOG.md": "docs/changelog.html",
    "data_manifests/README.md": "docs/manifests.html",
    **{f"docs/{n}.md": f"docs/{n}.html" for n in (
        "limits", "review", "checklists", "model_card", "data_card", "glossary", "architecture",
        "figures", "embeddings", "full_tier", "security",
    )},
}  # fmt: skip
# What is rendered of an output, characters and tags; beyond, nested ones would take minutes.
LONGEST_MARKDOWN, MOST_TAGS = 50_000, 20_000
LEDGER = ["claim", "status", "family", "figure", "value", "low", "high", "notebook", "needs",
          "source", "reliability", "id", "note"]  # fmt: skip
_CODE = re.compile(r"<code>([\w.-]+)</code>")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "fragments"),
    autoescape=True, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_TEMPLATES.filters |= {
    "number": lambda v: f"{v:,.0f}" if v.is_integer() and abs(v) < 1e15 else f"{v:.4g}",
    "plain": lambda v: "" if pd.isna(v) else without_folders(str(v)),
}


class Sources:
    """Sources written so far, and where things of the repository stand among the pages."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.known = dict(DOCS)
        self.notebooks: dict[str, str] = {}  # notebook name → its page
        self._may_show = repository_files()

    def put(self, name: str, content: str | bytes) -> None:
        """Write a file: the only way that anything gets among the sources."""
        path = self.folder / name
        assert path.resolve().is_relative_to(self.folder.resolve()), f"{name} leads out"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def write(self, address: str, cells: list[NotebookNode], **metadata: object) -> None:
        """The source of one page."""
        language = {"name": "python", "pygments_lexer": "python"}
        book = form.new_notebook(cells=cells, metadata={"language_info": language, **metadata})
        self.put(address.removesuffix(".html") + ".ipynb", nbformat.writes(book))

    def fragment(self, template: str, **values: object) -> NotebookNode:
        """A template of `fragments/` as a cell."""
        return as_html(_TEMPLATES.get_template(template).render(known=self.notebooks, **values))

    def html(self, source: str, folder: str, address: str) -> str:
        """Markdown of a file in `folder` as clean HTML for the page at `address`."""
        return self.cleaned(cleaning.MARKDOWN.render(source), folder, address)

    def cleaned(self, html: str, folder: str, address: str) -> str:
        """HTML with nothing live in it, as `html`; names of notebooks link where they stand in code type."""
        resolve = lambda url: self._resolve(url, folder, address)  # noqa: E731
        return cleaning.clean(_CODE.sub(self._linked, html), resolve=resolve)

    def cells(self, source: str, folder: str, address: str, change=str) -> list[NotebookNode]:
        """Markdown as cells: each title, and what stands below it, with `change` done to their words."""
        render = cleaning.MARKDOWN.renderer.render
        env: dict = {}
        tokens, cells, begin = cleaning.MARKDOWN.parse(source, env), [], 0
        starts = [i for i, t in enumerate(tokens) if t.type == "heading_open" and not t.level]
        for i in [*starts, len(tokens)]:
            if html := render(tokens[begin:i], cleaning.MARKDOWN.options, env).strip():
                cells.append(as_html(cleaning.in_text(self.cleaned(html, folder, address), change)))
            if i < len(tokens):
                words = tokens[i + 1].children or ()
                said = "".join(w.content for w in words if w.type != "html_inline")
                cells.append(as_title(change(said), int(tokens[i].tag[1])))
            begin = i + 3  # after opening, words and end of the title
        return cells

    def _linked(self, found: re.Match) -> str:
        code, name = found[0], found[1].removesuffix(".ipynb")
        return f'<a href="/notebooks/{name}.ipynb">{code}</a>' if name in self.notebooks else code

    def _resolve(self, url: str, folder: str, page: str) -> str | None:
        """Where a link leads that a file in `folder` has, from the page; None: no page and not on the web.

        A link that begins with a slash starts at the repository's root.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        if parts.scheme or parts.netloc:
            is_web = parts.scheme in ("http", "https") and parts.netloc
            is_plain = is_web and cleaning.unnamed(url) == url
            return url if is_plain or parts.scheme == "mailto" else None
        if not parts.path:
            return url if parts.fragment else None
        path = posixpath.normpath(posixpath.join(folder, unquote(parts.path)).lstrip("/"))
        address, _, anchor = (self.known.get(path) or self._source_page(path) or "").partition("#")
        anchor = anchor or parts.fragment
        found = (
            quote(posixpath.relpath(address, posixpath.dirname(page) or ".")) if address else None
        )
        return f"{found}#{anchor}" if found and anchor else found

    def _source_page(self, path: str) -> str | None:
        """The address of a page that shows a file of the repository; None for what is no file of it."""
        root = run.ROOT.resolve()
        file = (root / path).resolve() if path in self._may_show else root
        if not file.is_relative_to(root) or str(file.relative_to(root)) not in self._may_show:
            return None
        if not file.is_file():
            return None
        address = f"source/{path}.html"
        if file.suffix in (".png", ".pdf"):
            address = f"source/{path}"
            self.put(f"{FILES}/{address}", file.read_bytes())
        else:
            language = file.suffix[1:] or file.name.lower()
            shown = cleaning.coloured(file.read_text(errors="replace")[:200_000], language)
            self.write(address, [as_title(path), as_html(shown)], orphan=True, nosearch=True)
        self.known[path] = address
        return address


def as_title(text: str, level: int = 1) -> NotebookNode:
    """A title that is nothing but its letters."""
    return form.new_markdown_cell(f"{'#' * level} {as_text(text)}")


def as_html(html: str) -> NotebookNode:
    """Clean HTML as a cell that Sphinx passes on."""
    return form.new_raw_cell(html, metadata={"format": "text/html"})


def repository_files() -> set[str]:
    """Files that a page may show, from the root: what git tracks; without git, those we know to be ours."""
    tracked = b""
    if shutil.which("git"):
        command = ["git", "ls-files", "-z"]
        tracked = subprocess.run(command, cwd=run.ROOT, capture_output=True, check=False).stdout
    if tracked:
        return set(tracked.decode(errors="replace").split("\0")[:-1])
    kinds = (
        "notebooks/*.ipynb",
        "merlin/**/*.py",
        *(f"figures/*.{e}" for e in ("png", "pdf", "csv", "json")),
    )
    return {*DOCS, *(str(p.relative_to(run.ROOT)) for kind in kinds for p in run.ROOT.glob(kind))}


def write_all(folder: Path, profile: dict) -> None:
    """Write the sources of all pages of a profile's run into a folder."""
    base, sources = run.ROOT / "runs" / profile["profile"], Sources(folder)
    books = executed_notebooks(base)
    for stem in books:
        sources.notebooks[stem] = f"notebooks/{stem}.html"
        sources.notebooks.setdefault(stem.partition("-")[0], sources.notebooks[stem])
    sources.known |= {f"notebooks/{name}.ipynb": page for name, page in sources.notebooks.items()}
    facts = copy_figures(sources, base / "figures")
    front_page(sources, facts, profile)
    gallery(sources, facts)
    notebook_pages(sources, books, facts)
    ledger(sources)
    cohort_page(sources, facts)
    sources.put(f"{FILES}/studies.js", viewer.script(profile))
    sources.write("viewer.html", [as_title("Look at a phantom"), sources.fragment("viewer.html")])
    for path, address in DOCS.items():
        place = str(Path(path).parent).removeprefix(".")
        sources.write(address, sources.cells((run.ROOT / path).read_text(), place, address))
    menu = contents([address.removesuffix(".html") for address in DOCS.values()])
    sources.write("docs.html", [as_title("Docs"), menu])


def contents(entries: list[str], *, hidden: bool = False) -> NotebookNode:
    """A table of contents, which menus are made of; entries are ours, or names that a file may have."""
    lines = ["```{toctree}", ":titlesonly:", *[":hidden:"] * hidden, *entries, "```"]
    return form.new_markdown_cell("\n".join(lines))


def copy_figures(sources: Sources, folder: Path) -> dict[str, dict]:
    """Pictures, tables and sidecars of a run; returns name → sidecar, in the catalogue's order."""
    facts = {}
    for name in FIGURES:
        if not (folder / f"{name}.json").exists():
            continue
        facts[name] = about = json.loads((folder / f"{name}.json").read_text())
        tables = {key: f"{name}{'_' + key if key else ''}.csv" for key in about["tables"]}
        about["tables"] = {k: v for k, v in tables.items() if _is_ours(folder, v)}
        kinds = (f"{name}.png", f"{name}.pdf", f"{name}.json")
        for file in [f for f in (*kinds, *about["tables"].values()) if _is_ours(folder, f)]:
            is_text = file.endswith((".json", ".csv"))
            raw = (folder / file).read_bytes()
            content = str(without_folders(raw.decode())) if is_text else raw
            sources.put(f"{FILES}/figures/{file}", content)
            sources.known[f"figures/{file}"] = f"figures/{file}"
        sources.known[f"figures/{name}.png"] = f"gallery.html#{name}"
    return facts


def _is_ours(folder: Path, file: str) -> bool:
    path = folder / file
    return names_a_file(file) and path.is_file() and path.resolve().is_relative_to(folder.resolve())


def about_figure(facts: dict) -> str:
    """Caption, tier, n, interval and seed in words: a figure's alternative text and its caption."""
    n = ", ".join(f"{v:,} {k}" for k, v in facts.get("n", {}).items())
    interval = facts.get("interval") or "no interval"
    parts = (facts.get("caption", ""), facts["tier_note"], n, interval)
    said = " · ".join(p.rstrip(".") for p in parts if p) + f" · seed {facts['seed']}"
    return cleaning.unnamed(said)


@cache
def notebooks_of_figures(listed: Path) -> dict[str, str]:
    """Figure → the notebook that makes it."""
    return {name: n for n, names in run.read_yaml(listed).items() for name in names}


def panels_of(name: str, notebook: str) -> str:
    """What a notebook says of a figure's panels: its last words on them before the figure is saved."""
    path, said = run.NOTEBOOKS / f"{notebook}.ipynb", ""
    if not path.is_file():
        return ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and "**a**" in cell.source:
            said = "\n".join(x for x in cell.source.splitlines() if not x.startswith("#"))
        elif "save_figure" in cell.source and f'"{name}"' in cell.source:
            return said
    return ""


def front_page(sources: Sources, facts: dict[str, dict], profile: dict) -> None:
    """What this is and is not, the overview figure, where to go on."""
    first = next((n for n in run.LOOK_FIRST if n in facts), next(iter(facts)))
    opening = (run.ROOT / "README.md").read_text().split("\n## ")[0].split("\n\n")
    words = "\n\n".join(p for p in opening if not p.startswith("!["))
    about = dict(figure=first, words=about_figure(facts[first]), tier=profile["tier"])
    shown = sources.fragment("index.html", **about)
    menu = contents(["gallery", "notebooks", "ledger", "viewer", "cohort", "docs"], hidden=True)
    sources.write("index.html", [*sources.cells(words, "", "index.html"), shown, menu])


def ledger(sources: Sources) -> None:
    """The paper's claims as a table that sorts and filters."""
    path = sources.folder / FILES / "figures" / "claims.csv"
    table = run.read_csv(path) if path.exists() else None
    if table is not None:
        table = table[[c for c in LEDGER if c in table]]
        is_untried = table["status"].str.startswith("not run")
        table = table.loc[is_untried.sort_values(kind="stable").index]
    shown = sources.fragment("ledger.html", table=table)
    sources.write("ledger.html", [as_title("The paper's claims"), shown])


def cohort_page(sources: Sources, facts: dict[str, dict]) -> None:
    """Who is in and where they went, as a tree of boxes, and the cohort's figures."""
    path = sources.folder / FILES / "figures" / "cohort_flow.csv"
    steps = run.read_csv(path).to_dict("records") if path.exists() else None
    names = [n for n in ("cohort", "phantom_ct", "findings_gallery", "dataset_audit") if n in facts]
    figures = {name: about_figure(facts[name]) for name in names}
    shown = sources.fragment("cohort.html", steps=steps, figures=figures)
    sources.write("cohort.html", [as_title("The cohort"), shown])


def gallery(sources: Sources, facts: dict[str, dict]) -> None:
    """Every figure as a card."""
    cards, made_by = [], notebooks_of_figures(run.NOTEBOOKS / "figures.yaml")
    for name, about in facts.items():
        notebook = made_by.get(name, "")
        panels = sources.html(panels_of(name, notebook), "notebooks", "gallery.html")
        has_pdf = f"figures/{name}.pdf" in sources.known
        cards.append(dict(name=name, words=about_figure(about), panels=panels, tables=about["tables"],
                          notebook=sources.notebooks.get(notebook), has_pdf=has_pdf))  # fmt: skip
    shown = sources.fragment("gallery.html", cards=cards)
    sources.write("gallery.html", [as_title("Figures"), shown])


def notebook_pages(sources: Sources, books: dict[str, Path], facts: dict[str, dict]) -> None:
    """Executed notebooks as pages, and their list."""
    titles, made_by = {}, notebooks_of_figures(run.NOTEBOOKS / "figures.yaml")
    for stem, path in books.items():
        address = sources.notebooks[stem]
        name, _, arm = stem.partition("-")
        notebook = nbformat.read(path, as_version=4)
        titles[stem] = without_folders(notebook.cells[0].source.splitlines()[0].lstrip("# "))
        cells = []
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cells += sources.cells(cell.source, "notebooks", address, without_folders)
            elif cell.cell_type == "code":
                named = [n for n in facts if f'"{n}"' in cell.source]  # the figure that it saves
                made = named or [n for n in facts if made_by.get(n) == name]
                words = " ".join(about_figure(facts[n]) for n in made) or f"Picture from {name}"
                cells.append(_code_cell(cell, sources, address, words))
        cells[0].source += as_text(f" ({arm})") if arm else ""  # tells titles of arms apart
        sources.write(address, cells)
    listed = sources.fragment("notebooks.html", titles=titles)
    menu = contents([f"{stem} <notebooks/{stem}>" for stem in titles], hidden=True)
    sources.write("notebooks.html", [as_title("Notebooks, as they ran"), listed, menu])


def _code_cell(cell: NotebookNode, sources: Sources, address: str, words: str) -> NotebookNode:
    """A cell with its code and what is shown of its outputs; `words` stand for a picture."""
    about = {"mystnb": {"image": {"alt": words}}}
    made = form.new_code_cell(without_folders(cell.source), metadata=about)
    for is_stream, group in groupby(cell.get("outputs", []), lambda o: o.output_type == "stream"):
        if is_stream:  # neighbours are one: a progress bar comes in many pieces
            shown = [_said("".join(output.text for output in group))]
        else:
            shown = [_shown(output, sources, address) for output in group]
        made.outputs += [output for output in shown if output]
    return made


def _said(text: str) -> NotebookNode | None:
    """A stream as a reader would have seen it, its last state where a progress bar rewrote a line."""
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")]
    # A library's remark on missing widgets tells a reader nothing.
    lines = [x for x in lines if "TqdmWarning" not in x and "autonotebook" not in x]
    shown = "\n".join(in_one_line(_ANSI.sub("", x).expandtabs()) for x in lines)
    return form.new_output("stream", text=cleaning.unnamed(shown)) if shown.strip() else None


def _shown(output: NotebookNode, sources: Sources, address: str) -> NotebookNode | None:
    """The one form of an output that a page shows: a picture, clean HTML, or words."""
    if output.output_type == "error":
        return _said("\n".join(output.traceback))
    data = output.data
    picture = "".join(str(data.get("image/png", "")).split())
    markdown, html = data.get("text/markdown", ""), data.get("text/html", "")
    if len(picture) % 4 == 0 and cleaning.PNG.fullmatch(f"data:image/png;base64,{picture}"):
        return form.new_output("display_data", data={"image/png": picture})
    if 0 < len(markdown) <= LONGEST_MARKDOWN:
        html = sources.html(markdown, "notebooks", address)
    elif html and html.count("<") <= MOST_TAGS:
        html = sources.cleaned(html, "notebooks", address)
    else:
        return _said(str(data.get("text/plain", "")))
    html = cleaning.in_text(html, cleaning.unnamed)
    return form.new_output("display_data", data={"text/html": html})
