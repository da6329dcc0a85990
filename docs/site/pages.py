"""Sources of the site's pages: a notebook for each, with nothing in it that Sphinx or MyST could act on.

Titles are Markdown, with every sign escaped, so that menus, contents and search know them. All other words
and HTML outputs come cleaned, as HTML; code, streams and pictures as cells that hold nothing else. No
metadata of an executed notebook is taken over: it could ask to be executed. Nothing outside the repository
and the run is shown, and of the repository no file that git doesn't track.
"""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import cleaning
import jinja2
import nbformat
import pandas as pd
import viewer
import yaml
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
LEDGER = ["claim", "status", "family", "figure", "value", "low", "high", "notebook", "tier",
          "source", "reliability", "id", "note"]  # fmt: skip
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"),
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
        """A template of `pages/` as a cell."""
        return as_html(_TEMPLATES.get_template(template).render(known=self.notebooks, **values))

    def html(self, source: str, folder: str, address: str) -> str:
        """Markdown of a file in `folder` as clean HTML for the page at `address`."""
        rendered = cleaning.MARKDOWN.render(source, {"notebooks": self.notebooks})
        return self.cleaned(rendered, folder, address)

    def cleaned(self, html: str, folder: str, address: str) -> str:
        """HTML with nothing live in it, its links as the page at `address` needs them."""
        resolve = cleaning.resolver(folder, address, self.known, self._source_page)
        return cleaning.clean(html, resolve=resolve)

    def cells(self, source: str, folder: str, address: str, change=str) -> list[NotebookNode]:
        """Markdown as cells: each title, and what stands below it with `change` done to its words."""
        env = {"notebooks": self.notebooks}
        tokens, cells, begin = cleaning.MARKDOWN.parse(source, env), [], 0
        starts = [i for i, t in enumerate(tokens) if t.type == "heading_open" and not t.level]
        for i in [*starts, len(tokens)]:
            html = cleaning.MARKDOWN.renderer.render(
                tokens[begin:i], cleaning.MARKDOWN.options, env
            )
            if html.strip():
                cells.append(as_html(cleaning.in_text(self.cleaned(html, folder, address), change)))
            if i < len(tokens):
                said = "".join(child.content for child in tokens[i + 1].children or ())
                cells.append(as_title(change(said), int(tokens[i].tag[1])))
            begin = i + 3  # after opening, words and end of the title
        return cells

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
    kinds = ("notebooks/*.ipynb", "merlin/**/*.py", "figures/*.png", "figures/*.pdf", "figures/*.csv",
             "figures/*.json")  # fmt: skip
    return {*DOCS, *(str(p.relative_to(run.ROOT)) for kind in kinds for p in run.ROOT.glob(kind))}


def write_all(folder: Path, profile: dict) -> None:
    """Write the sources of all pages of a profile's run into a folder."""
    base = run.ROOT / "runs" / profile["profile"]
    books, sources = executed_notebooks(base), Sources(folder)
    sources.notebooks = {stem: f"notebooks/{stem}.html" for stem in books}
    for stem in books:
        sources.notebooks.setdefault(stem.partition("-")[0], sources.notebooks[stem])
    sources.known |= {f"notebooks/{name}.ipynb": page for name, page in sources.notebooks.items()}
    facts = copy_figures(sources, base / "figures")
    front_page(sources, facts, profile)
    gallery(sources, facts)
    notebook_pages(sources, books, facts)
    tables = folder / FILES / "figures"
    claims = tables / "claims.csv"
    rows = run.read_csv(claims) if claims.exists() else None
    if rows is not None:
        rows = rows[[c for c in LEDGER if c in rows]]
        rows = rows.sort_values("status", key=lambda s: s.str.startswith("not run"), kind="stable")
    sources.write(
        "ledger.html", [as_title("The paper's claims"), sources.fragment("ledger.html", table=rows)]
    )
    flow = tables / "cohort_flow.csv"
    steps = run.read_csv(flow).to_dict("records") if flow.exists() else None
    about = {n: about_figure(facts[n]) for n in ("cohort", "phantom_ct", "findings_gallery", "dataset_audit")
             if n in facts}  # fmt: skip
    shown = sources.fragment("cohort.html", steps=steps, figures=about)
    sources.write("cohort.html", [as_title("The cohort"), shown])
    sources.put(f"{FILES}/studies.js", viewer.script(viewer.studies(profile)))
    sources.write("viewer.html", [as_title("Look at a phantom"), sources.fragment("viewer.html")])
    titles = []
    for path, address in DOCS.items():
        place = str(Path(path).parent).removeprefix(".")
        sources.write(address, sources.cells((run.ROOT / path).read_text(), place, address))
        titles.append(address.removesuffix(".html"))
    sources.write("docs.html", [as_title("Docs"), contents(titles)])


def contents(entries: list[str], *, hidden: bool = False) -> NotebookNode:
    """A table of contents, which menus are made of; entries are ours, or names that a file may have."""
    option = ":hidden:\n" if hidden else ""
    return form.new_markdown_cell(
        "\n".join(["```{toctree}", f"{option}:titlesonly:", *entries, "```"])
    )


def copy_figures(sources: Sources, folder: Path) -> dict[str, dict]:
    """Pictures, tables and sidecars of a run; returns name → sidecar, in the catalogue's order."""
    facts = {}
    for name in FIGURES:
        if not (folder / f"{name}.json").exists():
            continue
        facts[name] = about = json.loads((folder / f"{name}.json").read_text())
        tables = {key: f"{name}{'_' + key if key else ''}.csv" for key in about["tables"]}
        about["tables"] = {k: v for k, v in tables.items() if _is_ours(folder, v)}
        for file in (f"{name}.png", f"{name}.pdf", f"{name}.json", *about["tables"].values()):
            if not _is_ours(folder, file):
                continue
            raw = (folder / file).read_bytes()
            is_text = file.endswith((".json", ".csv"))
            sources.put(
                f"{FILES}/figures/{file}", str(without_folders(raw.decode())) if is_text else raw
            )
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


def notebook_of(name: str) -> str:
    """The notebook that makes a figure, as the Snakefile lists them."""
    return _notebooks_of((run.ROOT / "Snakefile").read_text()).get(name, "")


@cache
def _notebooks_of(snakefile: str) -> dict[str, str]:
    listed = re.search(r"^FIGURES = (\{.*?^\})", snakefile, re.MULTILINE | re.DOTALL)
    made = yaml.safe_load(listed[1].replace(",\n}", "\n}")) if listed else {}
    return {name: notebook for notebook, names in made.items() for name in names}


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
    shown = sources.fragment(
        "index.html", figure=first, words=about_figure(facts[first]), tier=profile["tier"]
    )
    menu = contents(["gallery", "notebooks", "ledger", "viewer", "cohort", "docs"], hidden=True)
    sources.write("index.html", [*sources.cells(words, "", "index.html"), shown, menu])


def gallery(sources: Sources, facts: dict[str, dict]) -> None:
    """Every figure as a card."""
    cards = []
    for name, about in facts.items():
        notebook = notebook_of(name)
        panels = sources.html(panels_of(name, notebook), "notebooks", "gallery.html")
        has_pdf = f"figures/{name}.pdf" in sources.known
        cards.append(dict(name=name, words=about_figure(about), panels=panels, tables=about["tables"],
                          notebook=sources.notebooks.get(notebook), has_pdf=has_pdf))  # fmt: skip
    sources.write(
        "gallery.html", [as_title("Figures"), sources.fragment("gallery.html", cards=cards)]
    )


def notebook_pages(sources: Sources, books: dict[str, Path], facts: dict[str, dict]) -> None:
    """Executed notebooks as pages, and their list."""
    titles = {}
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
                made = named or [n for n in facts if notebook_of(n) == name]
                words = " ".join(about_figure(facts[n]) for n in made) or f"Picture from {name}"
                cells.append(_code_cell(cell, sources, address, words))
        cells[0].source += as_text(f" ({arm})") if arm else ""  # tells titles of arms apart
        sources.write(address, cells)
    listed = sources.fragment("notebooks.html", titles=titles)
    menu = contents([f"{stem} <notebooks/{stem}>" for stem in titles], hidden=True)
    sources.write("notebooks.html", [as_title("Notebooks, as they ran"), listed, menu])


def _code_cell(cell: NotebookNode, sources: Sources, address: str, words: str) -> NotebookNode:
    """A cell with its code and what is shown of its outputs; `words` stand for a picture."""
    made = form.new_code_cell(
        without_folders(cell.source), metadata={"mystnb": {"image": {"alt": words}}}
    )
    streams = ""
    for output in [*cell.get("outputs", []), None]:
        is_stream = output is not None and output.output_type == "stream"
        if is_stream:  # neighbours are one: a progress bar comes in many pieces
            streams += output.text
            continue
        if said := _said(streams):
            made.outputs.append(said)
        streams = ""
        if output is not None and (shown := _shown(output, sources, address)):
            made.outputs.append(shown)
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
    return form.new_output(
        "display_data", data={"text/html": cleaning.in_text(html, cleaning.unnamed)}
    )
