"""Render what papermill ran into a static folder: `python -m merlin.site.build default site`.

Nothing is executed: executed notebooks, figures with their tables and provenance, and the docs become
pages that open from disk without a server and ask nothing of the network. The one thing computed is the
viewer's phantoms, from the profile's seed.

What a run printed and saved holds words of strangers' files, and a site is made to be shown: nothing of
it is live (`merlin.site.text`), files outside the repository and the run are never copied, and nothing is
written or removed but what is the site's.
"""

import argparse
import copy
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import quote

import nbformat
import pandas as pd
import yaml
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

from merlin import run
from merlin.figures.catalogue import FIGURES
from merlin.site import viewer
from merlin.site.text import (
    PNG,
    clean,
    in_text,
    markdown_to_html,
    names_only,
    resolver,
    unnamed,
)
from merlin.words import NAME, names_a_file
from merlin.words import shown as in_one_line

STATIC = Path(__file__).parent / "static"
# Pages made from markdown: repository path → address on the site.
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
MENU = (
    ("index.html", "Start"), ("gallery.html", "Figures"), ("notebooks.html", "Notebooks"),
    ("ledger.html", "Claims"), ("viewer.html", "Scan viewer"), ("cohort.html", "Cohort"),
    ("docs.html", "Docs"),
)  # fmt: skip
WARNING = (
    '<p class="warning"><strong>Synthetic data.</strong> Except where a real scan is named, every number '
    "of this run comes from computer-made phantoms. It teaches and tests the method; it is no evidence "
    "about patients and not for clinical use.</p>"
)


# A page loads what lies beside it (Chromium and Firefox take 'self' so from disk too) and nothing else.
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'self'; "
    "img-src 'self' data:; script-src {}"
)
# What is rendered of an output, characters and tags; beyond, nested ones would take minutes.
LONGEST_MARKDOWN, MOST_TAGS = 50_000, 20_000


class Site:
    """Pages written so far, and where things of the repository stand among them."""

    def __init__(self, out, profile):
        self.out, self.profile = Path(out), profile
        self.known = dict(DOCS)
        self.notebooks = {}  # notebook name → its page
        self.n_pages = 0
        self._may_show = repository_files()

    def put(self, address, content):
        """Write a file of the site, text or bytes: the only way that anything gets into it."""
        path = self.out / address
        assert path.resolve().is_relative_to(self.out.resolve()), f"{address} leads out of the site"
        with run.atomic(path, "w" if isinstance(content, str) else "wb") as stream:
            stream.write(content)

    def write(self, address, title, body, *, is_wide=False, scripts=()):
        """One page in the frame of all: menu, content, footer."""
        up = "../" * address.count("/")
        menu = "".join(
            f'<a href="{up}{to}"{" aria-current=page" if to == address else ""}>{name}</a>'
            for to, name in MENU
        )
        tags = "".join(f'<script src="{up}{s}"></script>' for s in scripts)
        wide = ' class="wide"' if is_wide else ""
        policy = POLICY.format("'self'" if scripts else "'none'")
        self.put(
            address,
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            f'<meta name="referrer" content="no-referrer">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(title)} · Merlin companion</title><link rel="icon" href="data:,">'
            f'<link rel="stylesheet" href="{up}static/style.css">'
            f'<link rel="stylesheet" href="{up}static/code.css"></head><body>'
            f'<a class="skip" href="#content">To the content</a><header><nav aria-label="Site">'
            f'{menu}</nav></header><main id="content"{wide}>{body}</main>'
            f"<footer>Profile {escape(self.profile['profile'])}, tier {self.profile['tier']}: "
            f"{run.TIER_NOTES[self.profile['tier']]}.</footer>{tags}</body></html>\n",
        )
        self.n_pages += 1

    def resolver(self, folder, address):
        """How the page at `address` resolves links of a file in `folder`."""
        return resolver(folder, address, self.known, self._source_page)

    def render(self, source, folder, address):
        """Markdown of a file in `folder` for the page at `address`."""
        resolve = self.resolver(folder, address)
        return markdown_to_html(source, resolve=resolve, notebooks=self.notebooks)

    def _source_page(self, path):
        """A page that shows a file of the repository; None for what is no file of it."""
        root = run.ROOT.resolve()
        file = (root / path).resolve() if path in self._may_show else root
        if not file.is_relative_to(root) or str(file.relative_to(root)) not in self._may_show:
            return None
        if not file.is_file():
            return None
        address = f"source/{path}.html"
        if file.suffix in (".png", ".pdf"):
            address = f"source/{path}"
            self.put(address, file.read_bytes())
        else:
            text = file.read_text(errors="replace")
            try:
                lexer = get_lexer_for_filename(path)
            except ClassNotFound:
                lexer = TextLexer()
            shown = highlight(text[:200_000], lexer, HtmlFormatter())
            self.write(address, path, f"<h1>{escape(path)}</h1>{shown}", is_wide=True)
        self.known[path] = address
        return address


def repository_files():
    """Files of the repository that a page may show: what git tracks; without git, those we know to be ours.

    Returns
    -------
    set of str
        Paths from the root.
    """
    tracked = b""
    if shutil.which("git"):
        tracked = subprocess.run(
            ["git", "ls-files", "-z"], cwd=run.ROOT, capture_output=True, check=False
        ).stdout
    if tracked:
        return set(tracked.decode(errors="replace").split("\0")[:-1])
    kinds = ("notebooks/*.ipynb", "merlin/**/*.py", "figures/*.png", "figures/*.pdf", "figures/*.csv",
             "figures/*.json")  # fmt: skip
    return {*DOCS, *(str(p.relative_to(run.ROOT)) for kind in kinds for p in run.ROOT.glob(kind))}


def table_html(table, *, sortable=False, identity=""):
    """A table as HTML; numbers keep their full value for sorting."""
    heads = "".join(
        f"<th scope=col>{f'<button>{escape(str(c))}</button>' if sortable else escape(str(c))}</th>"
        for c in table
    )
    rows = []
    for row in table.itertuples(index=False):
        cells = []
        for value in row:
            missing = pd.isna(value)
            shown = (
                ""
                if missing
                else _number(value)
                if isinstance(value, float)
                else names_only(str(value))
            )
            exact = f' data-value="{"" if missing else value}"' if isinstance(value, float) else ""
            cells.append(f"<td{exact}>{escape(shown)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll"><table{kind} id="{identity}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _number(value):
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def executed_notebooks(base):
    """Executed notebooks in reading order: name → path; arms after the notebook's main one."""
    names = sorted(p.stem for p in run.NOTEBOOKS.glob("*.ipynb"))
    profile = run.load_profile(base.name)
    sweep = set(run.sweep_arms(profile)) | set(run.sweep_runs(profile))
    found = {}
    for path in sorted(base.glob("*.ipynb")):
        name, _, arm = path.stem.partition("-")
        is_ours = NAME.fullmatch(path.stem) and _is_inside(path, base)
        if is_ours and name in names and arm not in sweep:
            found[path.stem] = path
    return dict(sorted(found.items(), key=lambda x: (x[0].partition("-")[0], "-main" not in x[0])))


def _is_inside(path, folder):
    """Whether a file is in the folder, also when its links are followed."""
    return path.resolve().is_relative_to(folder.resolve())


MARK = ".merlin-site"  # what the builder wrote, sha256 and path a line; nothing else is removed


def _ours(out):
    """Files of a folder if a former call wrote each of them, and none was changed since; the mark last.

    Raises
    ------
    FileExistsError
        Naming what is not ours.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise FileExistsError(f"{out} is no folder. Choose another one.")
    mark, written = out / MARK, {}
    if mark.is_file() and not mark.is_symlink():
        lines = mark.read_text(errors="replace").splitlines()
        written = {out / name: sha for sha, _, name in (x.partition("  ") for x in lines)}
    found = sorted(out.rglob("*"))
    ours = [p for p in found if p in written and not p.is_symlink() and p.is_file()
            and run.file_hash(p) == written[p]] + [mark] * bool(written)  # fmt: skip
    strange = sorted(set(found) - set(ours) - {folder for p in ours for folder in p.parents})
    if strange:
        raise FileExistsError(
            f"{out} holds {len(strange)} files that no site of ours brought, or that were changed since, as "
            f"{in_one_line(strange[0].relative_to(out))}. Choose another folder, or move them away."
        )
    return ours


def build(profile_name, out):
    """Make the site of a finished run; returns the number of pages.

    Raises
    ------
    FileNotFoundError
        If the profile has not been run.
    """
    profile = run.load_profile(profile_name)
    base = run.ROOT / "runs" / profile_name
    pages = executed_notebooks(base)
    if not pages:
        raise FileNotFoundError(
            f"runs/{profile_name}/ holds no executed notebook. Run make figures PROFILE={profile_name} "
            "first."
        )
    _ours(out := Path(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as part:
        made = Path(part) / "site"
        n_pages = _build(profile, base, pages, made)
        written = sorted(p for p in made.rglob("*") if p.is_file())
        lines = [f"{run.file_hash(p)}  {p.relative_to(made)}\n" for p in written]
        (made / MARK).write_text("".join(lines))
        former = _ours(out)
        for path in former:
            path.unlink()
        for folder in sorted(
            {f for p in former for f in p.parents if f.is_relative_to(out)}, reverse=True
        ):
            folder.rmdir()
        made.replace(out)
    return n_pages


def _build(profile, base, pages, out):
    """Write all pages into a new folder."""
    site = Site(out, profile)
    for path in STATIC.iterdir():
        site.put(f"static/{path.name}", path.read_text())
    site.put("static/code.css", _code_css())
    site.notebooks = {stem: f"notebooks/{stem}.html" for stem in pages}
    for stem in pages:
        site.notebooks.setdefault(stem.partition("-")[0], site.notebooks[stem])
    site.known |= {f"notebooks/{name}.ipynb": page for name, page in site.notebooks.items()}
    facts = copy_figures(site, base / "figures")
    site.known |= {f"figures/{n}.png": f"gallery.html#{n}" for n in facts}
    site.known |= {f"figures/{p.name}": f"figures/{p.name}" for p in (out / "figures").iterdir()
                   if p.suffix != ".png"}  # fmt: skip
    front_page(site, facts)
    gallery(site, facts)
    notebook_pages(site, pages, facts)
    ledger(site, out / "figures" / "claims.csv")
    cohort_page(site, facts)
    viewer_page(site)
    docs_pages(site)
    return site.n_pages


def _code_css():
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="monokai").get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n.highlight {{ background: none; }}\n"


def copy_figures(site, folder):
    """Pictures, tables and sidecars of a run; returns name → sidecar, in the catalogue's order."""
    (site.out / "figures").mkdir()
    facts = {}
    for name in FIGURES:
        if not (folder / f"{name}.json").exists():
            continue
        facts[name] = about = json.loads((folder / f"{name}.json").read_text())
        tables = {key: f"{name}{'_' + key if key else ''}.csv" for key in about["tables"]}
        about["tables"] = {k: v for k, v in tables.items() if _is_ours(folder, v)}
        for file in (f"{name}.png", f"{name}.pdf", f"{name}.json", *about["tables"].values()):
            if _is_ours(folder, file):
                path = folder / file
                is_text = path.suffix in (".json", ".csv")
                site.put(
                    f"figures/{file}",
                    names_only(path.read_text()) if is_text else path.read_bytes(),
                )
    return facts


def _is_ours(folder, file):
    return names_a_file(file) and (folder / file).is_file() and _is_inside(folder / file, folder)


def about_figure(facts):
    """Caption, tier, n, interval and seed in words: a figure's alternative text and its caption."""
    n = ", ".join(f"{v:,} {k}" for k, v in facts.get("n", {}).items())
    interval = facts.get("interval") or "no interval"
    parts = (facts.get("caption", ""), facts["tier_note"], n, interval)
    said = " · ".join(p.rstrip(".") for p in parts if p) + f" · seed {facts['seed']}"
    return unnamed(names_only(said))


def notebook_of(name):
    """The notebook that makes a figure, as the Snakefile lists them."""
    return _notebooks_of((run.ROOT / "Snakefile").read_text()).get(name, "")


@cache
def _notebooks_of(snakefile):
    listed = re.search(r"^FIGURES = (\{.*?^\})", snakefile, re.MULTILINE | re.DOTALL)[1]
    made = yaml.safe_load(listed.replace(",\n}", "\n}"))
    return {name: notebook for notebook, names in made.items() for name in names}


def panels_of(name, notebook):
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


def front_page(site, facts):
    """What this is and is not, the overview figure, where to go on."""
    is_phantom = site.profile["tier"] == "phantom"
    first = next((n for n in run.LOOK_FIRST if n in facts), next(iter(facts)))
    picture = (
        f'<figure><a href="figures/{first}.png"><img src="figures/{first}.png" '
        f'alt="{escape(about_figure(facts[first]))}"></a>'
        f"<figcaption>{escape(about_figure(facts[first]))}</figcaption></figure>"
    )
    readme = (run.ROOT / "README.md").read_text()
    words = [p for p in readme.split("\n## ")[0].split("\n\n") if not p.startswith("![")]
    opening = site.render("\n\n".join(words), "", "index.html")
    ways = "".join(
        f'<li><a href="{to}">{name}</a>: {why}</li>'
        for to, name, why in (
            (site.notebooks.get("00_start_here", "notebooks.html"), "Start reading", "one study from CT to codes"),
            ("gallery.html", "Every figure", "with its caption, table, provenance and notebook"),
            ("ledger.html", "The paper's claims", "what was run of them, and what was not"),
            ("viewer.html", "Look at a phantom", "slices, organs and findings, and what the model sees"),
            ("docs/review.html", "For reviewers", "claim, notebook, table, command, minutes"),
            ("docs/limits.html", "Limits", "what none of this shows"),
            (site.notebooks.get("17_ideas", "notebooks.html"), "Five ideas", "on toy numbers, in seconds"),
            ("docs/glossary.html", "Glossary", "Dice, macro, recall@k and the other words"),
        )
    )  # fmt: skip
    body = f"{opening}{WARNING if is_phantom else ''}{picture}<h2>Where to go</h2><ul>{ways}</ul>"
    site.write("index.html", "A reproducible companion to Merlin", body)


def gallery(site, facts):
    """Every figure as a card."""
    cards = []
    for name, about in facts.items():
        notebook = notebook_of(name)
        page = site.notebooks.get(notebook)
        links = [f'<a href="{page}">notebook</a>'] if page else []
        for key, file in about["tables"].items():
            links.append(
                f'<a href="figures/{quote(file)}">table{escape(" " + key if key else "")}</a>'
            )
        links.append(f'<a href="figures/{name}.json">provenance</a>')
        if (site.out / "figures" / f"{name}.pdf").exists():
            links.append(f'<a href="figures/{name}.pdf">PDF</a>')
        words, panels = escape(about_figure(about)), panels_of(name, notebook)
        if panels:
            panels = site.render(panels, "notebooks", "gallery.html")
            panels = f'<details class="small"><summary>Panels</summary>{panels}</details>'
        cards.append(
            f'<article class="card" id="{name}"><a href="figures/{name}.png"><img loading="lazy" '
            f'src="figures/{name}.png" alt="{words}"></a><h2>{escape(name.replace("_", " "))}</h2>'
            f'<p class="small">{words}</p>{panels}<p class="small">{" · ".join(links)}</p></article>'
        )
    body = f'<h1>Figures</h1><div class="cards">{"".join(cards)}</div>'
    site.write("gallery.html", "Figures", body, is_wide=True)


def notebook_pages(site, pages, facts):
    """Executed notebooks as pages, and their list."""
    listed, stems = [], list(pages)
    for i, (stem, path) in enumerate(pages.items()):
        address = site.notebooks[stem]
        name = stem.partition("-")[0]
        notebook = nbformat.read(path, as_version=4)
        title = names_only(notebook.cells[0].source.splitlines()[0].lstrip("# "))
        body = "".join(_cell(c, site, address, facts, name) for c in notebook.cells)
        near = "".join(
            f'<a href="{stems[j]}.html">{mark} {stems[j]}</a>' if 0 <= j < len(stems) else "<span></span>"
            for j, mark in ((i - 1, "←"), (i + 1, "→"))
        )  # fmt: skip
        site.write(
            address,
            f"{stem}: {title}",
            f'{body}<nav class="pager" aria-label="Notebooks">{near}</nav>',
        )
        listed.append(f'<li><a href="{address}"><code>{stem}</code></a> {escape(title)}</li>')
    body = f"<h1>Notebooks, as they ran</h1><ol>{''.join(listed)}</ol>"
    site.write("notebooks.html", "Notebooks", body)


def _cell(cell, site, address, facts, name):
    """One cell: words rendered, code in colours, outputs as they came."""
    if cell.cell_type == "markdown":
        said = in_text(site.render(cell.source, "notebooks", address), names_only)
        return f'<div class="cell">{said}</div>'
    if cell.cell_type != "code":
        return ""
    from pygments.lexers import PythonLexer

    code = highlight(names_only(cell.source), PythonLexer(), HtmlFormatter())
    shown = _joined(cell.get("outputs", []))
    named = [n for n in facts if f'"{n}"' in cell.source]  # the figure that this cell saves
    made = named or [n for n in facts if notebook_of(n) == name]
    words = " ".join(about_figure(facts[n]) for n in made) or f"Picture from {name}"
    outputs = "".join(_output(o, site, address, words) for o in shown)
    return f'<div class="cell code">{code}{outputs}</div>'


_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _joined(outputs):
    """Outputs with neighbouring streams of one kind as one: a progress bar comes in many pieces."""
    joined = []
    for output in outputs:
        before = joined[-1] if joined else None
        if (
            before is not None
            and output.output_type == before.output_type == "stream"
            and output.name == before.name
        ):
            before.text += output.text
        else:
            joined.append(copy.deepcopy(output))
    return joined


def _output(output, site, address, alt):
    """An output as a page shows it: nothing live, and no name of the machine that it ran on."""
    kind = " stream" if output.output_type == "stream" else ""
    if output.output_type in ("stream", "error"):
        html = _said(output.text if kind else "\n".join(output.traceback))
    else:
        html = _shown(output.data, site, address, alt)
    if not html:
        return ""
    resolve = site.resolver("notebooks", address)
    html = in_text(clean(html, resolve=resolve), lambda text: unnamed(names_only(text)))
    return f'<div class="output{kind}">{html}</div>'


def _said(text):
    # A progress bar rewrites its line: its last state is what a reader would have seen.
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")]
    # A library's remark on missing widgets tells a reader nothing.
    lines = [x for x in lines if "TqdmWarning" not in x and "autonotebook" not in x]
    shown = "\n".join(in_one_line(_ANSI.sub("", x).expandtabs()) for x in lines)
    return f"<pre>{escape(shown)}</pre>" if shown.strip() else ""


def _shown(data, site, address, alt):
    picture = f"data:image/png;base64,{''.join(str(data.get('image/png', '')).split())}"
    if PNG.fullmatch(picture):
        return f'<img alt="{escape(alt)}" src="{picture}">'
    markdown, html = data.get("text/markdown", ""), data.get("text/html", "")
    if 0 < len(markdown) <= LONGEST_MARKDOWN:
        return site.render(markdown, "notebooks", address)
    if html and html.count("<") <= MOST_TAGS:
        return html
    return _said(str(data.get("text/plain", "")))


def ledger(site, path):
    """The paper's claims as a table that sorts and filters."""
    if not path.exists():
        site.write("ledger.html", "Claims", "<h1>Claims</h1><p>16_claims was not run.</p>")
        return
    table = run.read_csv(path)
    shown = ["claim", "status", "family", "figure", "value", "low", "high", "notebook", "tier",
             "source", "reliability", "id", "note"]  # fmt: skip
    table = table[[c for c in shown if c in table]]
    table = table.sort_values("status", key=lambda s: s.str.startswith("not run"), kind="stable")
    body = (
        f"<h1>The paper's claims</h1><p>{len(table)} numbers and panels, with what was run of them. "
        "Values are the paper's, with their source and how reliable it is. On phantoms only a direction "
        "is asked, and nothing is called reproduced. What was tried comes first; click a heading to sort. "
        "<em>Primary</em> is the paper or its code, <em>secondary</em> a review or third party, "
        "<em>derived</em> computed from such numbers, <em>memory</em> recalled and unchecked; "
        "<em>own data</em> asks for the data set and weights.</p>"
        '<div class="controls"><label>Filter <input type="search" data-filter="claims"></label>'
        f'<span id="count" class="small" aria-live="polite">{len(table)} rows</span></div>'
        f"{table_html(table, sortable=True, identity='claims')}"
    )
    site.write("ledger.html", "Claims", body, is_wide=True, scripts=["static/site.js"])


def cohort_page(site, facts):
    """Who is in and where they went, as a tree of boxes, and the cohort's figures."""
    path = site.out / "figures" / "cohort_flow.csv"
    flow = "<p>01_cohort was not run.</p>"
    if path.exists():
        rows = run.read_csv(path).to_dict("records")
        box = lambda r, t: (  # noqa: E731
            f'<div class="box"><strong>{escape(t)}</strong><br>{r["n_patients"]:,} patients, '
            f"{r['n_studies']:,} studies</div>"
        )
        of = lambda kind: "".join(  # noqa: E731
            f"<li>{box(r, r['step'].split(', ')[1].replace('_', ' '))}</li>"
            for r in rows if r["step"].startswith(kind + ", ")
        )  # fmt: skip
        flow = (
            f'<ul class="flow"><li>{box(rows[0], "everyone")}<ul><li>{box(rows[1], "internal")}'
            f"<ul>{of('internal')}</ul></li>{of('external')}</ul></li></ul>"
        )
    pictures = "".join(
        f'<figure><img loading="lazy" src="figures/{n}.png" alt="{escape(about_figure(facts[n]))}">'
        f"<figcaption>{escape(about_figure(facts[n]))}</figcaption></figure>"
        for n in ("cohort", "phantom_ct", "findings_gallery", "dataset_audit") if n in facts
    )  # fmt: skip
    body = f"<h1>The cohort</h1>{flow}{pictures}"
    site.write("cohort.html", "The cohort", body)


def viewer_page(site):
    """Slices of phantoms and of the model's input, with organs and findings to switch on."""
    site.put("static/studies.js", viewer.script(viewer.studies(site.profile)))
    planes = "".join(
        f'<figure><figcaption><label for="{p}-slice">{p}</label>, <span id="{p}-said"></span></figcaption>'
        f'<canvas id="{p}" role="img" aria-label="{p} slice of the chosen study"></canvas>'
        f'<input type="range" id="{p}-slice" min="0" value="0"></figure>'
        for p in ("axial", "coronal", "sagittal")
    )
    chosen = "".join(
        f'<label>{text} <select id="{i}"></select></label>'
        for i, text in (("study", "Study"), ("view", "Show"), ("window", "Window"))
    )
    body = (
        f"<h1>Look at a phantom</h1>{WARNING}<p>Three synthetic studies, as the scanner stored them and "
        "as the model gets them. A finding's mask is where the same study without it would differ by "
        "more than 25 HU. Scroll over a picture, or use its slider (arrow keys work); the patient's "
        f'right is on the left.</p><div class="controls">{chosen}</div><div class="viewer">{planes}</div>'
        '<fieldset id="findings"><legend>Findings</legend></fieldset>'
        '<fieldset id="organs"><legend>Organs</legend></fieldset>'
        '<h2>Its report</h2><p id="report"></p>'
    )
    scripts = ["static/studies.js", "static/viewer.js"]
    site.write("viewer.html", "Scan viewer", body, is_wide=True, scripts=scripts)


def docs_pages(site):
    """The markdown files as pages, and their list."""
    listed = []
    for path, address in DOCS.items():
        text = (run.ROOT / path).read_text()
        folder = str(Path(path).parent)
        title = next((x.lstrip("# ") for x in text.splitlines() if x.startswith("# ")), path)
        site.write(address, title, site.render(text, "" if folder == "." else folder, address))
        listed.append(f'<li><a href="{address}">{escape(title)}</a></li>')
    site.write("docs.html", "Docs", f"<h1>Docs</h1><ul>{''.join(listed)}</ul>")


def main(argv=None):
    """Command line; returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("profile")
    parser.add_argument("out")
    args = parser.parse_args(argv)
    began = time.time()
    try:
        n = build(args.profile, args.out)
    except (OSError, run.ProfileError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(
        f"{n} pages in {args.out}/, {time.time() - began:.0f} s. Open {args.out}/index.html.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
