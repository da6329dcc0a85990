"""The site: links resolve, pictures have words, nothing is live, asked of the network or told of a machine.

Tests look at the folder that the command built: what was planted in a run and a repository, and what of
it came out. A second builder has to pass them too.
"""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import numpy as np
import pandas as pd
import pytest

from merlin import run
from merlin.site import build

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE / "docs" / "site"))
import pages as sources  # noqa: E402

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Page(HTMLParser):
    """What a page links to, shows and loads."""

    def __init__(self, text):
        super().__init__()
        self.links, self.pictures, self.loaded, self.ids = [], [], [], set()
        self.tags, self.scripts = (
            [],
            "",
        )  # each with whether it stands in the article; code in the page
        self.depth, self.is_script = 0, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.depth += tag == "article"
        self.is_script = tag == "script"
        self.tags.append((tag, attrs, self.depth > 0))
        self.ids.add(attrs.get("id"))
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        if tag == "img":
            self.pictures.append((attrs.get("src", ""), attrs.get("alt", "")))
        if tag in ("script", "link") and (attrs.get("src") or attrs.get("href", "#")) != "#":
            self.loaded.append((attrs.get("src") or attrs.get("href")).partition("?")[0])

    def handle_endtag(self, tag):
        self.depth -= tag == "article"
        self.is_script = False

    def handle_data(self, data):
        self.scripts += data.strip() * self.is_script


def executed():
    """A small executed notebook with every kind of output."""
    cell = nbformat.v4.new_code_cell("print(1)")
    out = nbformat.v4.new_output
    cell.outputs = [
        out("stream", name="stderr", text="\rbar:   0%|"),
        out("stream", name="stderr", text="\rbar:  50%|#"),
        out("stream", name="stderr", text="\rbar: 100%|##| 3/3\n"),
        out(
            "stream", name="stderr", text="site-packages/tqdm/auto.py:21: TqdmWarning: IProgress\n"
        ),
        out("stream", name="stdout", text=" \n"),
        out("display_data", data={"image/png": PNG}),
        out("execute_result", data={"text/html": "<table><tr><td>1</td></tr></table>"}),
        out("display_data", data={"text/markdown": "**Reading.** See `05_phenotypes`."}),
    ]
    words = nbformat.v4.new_markdown_cell(
        "# A question?\n\n$$s = \\frac{1}{|P|}\\sum_{p} v^\\top t_p$$\n\nSee `01_cohort` and $k/N$, `a < b`, "
        "`runs/<profile>/results/`.\n\n| a | b |\n| - | - |\n| c | 1 |"
    )
    return nbformat.v4.new_notebook(cells=[words, cell])


SECRET = "a-word-of-the-machine"
RUN = "window.was_run = 1"
# What somebody may write into the name of a finding, and what a page may still say of it.
LIVE = [
    f"<script>{RUN}</script>said0", f'<img src=x alt=said1 onerror="{RUN}">',
    f"<svg onload='{RUN}'><a xlink:href='javascript:{RUN}'><text>said2</text></a></svg>",
    f"[said3](javascript:{RUN})", f"[said4](JaVa\tScRiPt:{RUN})", f"<a href=' &#1;javascript:{RUN}'>said5</a>",
    f"[said6](data:text/html,<script>{RUN}</script>)", "[said7](file:///etc/passwd)", "[said8](//host/x)",
    "![said9](http://host/x.png)", "![said10](//host/x.png)", f"<iframe srcdoc='<script>{RUN}</script>'></iframe>",
    "<form action=http://host><button>said12</button><input name=q autofocus></form>",
    "<meta http-equiv=refresh content='0;url=http://host'><base href=http://host/>said13",
    "<link rel=stylesheet href=http://host/x.css><style>@import 'http://host/x.css';</style>said14",
    "<object data=http://host/x></object><embed src=http://host/x><video src=http://host/x></video>said15",
    "<p style='position:fixed;background:url(http://host/x)' class=skip id=content>said16</p>",
    f"<details open ontoggle='{RUN}'><summary>said17</summary></details>",
    rf"$\href{{javascript:{RUN}}}{{x}} \text{{<img src=x onerror={RUN}>}}$ said18", r"$\frac$ said19",
    f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror={RUN}&gt;'>",
    f'"><script>{RUN}</script>said21', f"</div></main><script>{RUN}</script>said22",
    f"```mermaid\n</pre><script>{RUN}</script>\n```\nsaid23", "![said24](attachment:x.png)",
    "<img src='data:image/svg+xml;base64,PHN2Zy8+' alt=said25>", "<a href='http://[x'>said26</a>",
    "[said27](mailto:a@b.c) <a href=http://example.org ping=http://host target=_top>said28</a>",
]  # fmt: skip
# A title's letters, not its tags.
TAGS = f"&lt;script&gt;{RUN}&lt;/script&gt;&lt;img src=x onerror='{RUN}'&gt;"
# What Sphinx, MyST and its notebooks act on, in a cell's Markdown and in what a cell printed.
MYST = [
    "```{{include}} {out}\n```", "```{{literalinclude}} ../../../../beside.txt\n```",
    "```{{include}} /../../notes.txt\n```",
    f"```{{{{raw}}}} html\n<script>{RUN}</script>\n```", "```{{raw}} html\n:file: {out}\n```",
    "```{{eval-rst}}\n.. include:: {out}\n```", "```{{image}} {out}\n```", "```{{figure}} ../notes.txt\n```",
    "```{{csv-table}} x\n:file: {out}\n```", "```{{code-cell}} python\nopen('was_executed', 'w')\n```",
    "```{{toctree}}\n:glob:\n*\n```", "```{{only}} html\nx\n```", "```{{math}}\n\\href{{javascript:x}}{{y}}\n```",
    "```{{glue}} x\n```", ":::{{include}} {out}\n:::", "`````{{note}}\n```{{include}} {out}\n```\n`````",
    "{{download}}`x <../notes.txt>`", "{{raw}}`x`", "{{eval}}`1`", "{{pep}}`8`", "{{doc}}`../index`",
    "{{{{ env.config }}}}",
    "[x](path:../notes.txt)", "[x](project:index)", "[](inv:*:*#x)", "<path:../notes.txt>", "<inv:x>", "<https://host/x>",
    "![x]({out})", "![x](../notes.txt)", "[x]: {out}\n\n[y][x] ![y][x]", "(target)=\n# x", "[](#target)", "% a comment",
    "+++", "---\nmyst:\n  enable_extensions: [html_image, substitution]\n---\n", "$$x$$ (label)", "[^1]\n\n[^1]: note",
    f"<div>\n\n```{{{{raw}}}} html\n<script>{RUN}</script>\n```\n\n</div>", "Term\n: x", "- [ ] x", TAGS,
    f"`<script>{RUN}</script>`", "$</title><script>$",
]  # fmt: skip
# Links to what a page must not show; `{out}` is a file beside the repository.
AWAY = ("../notes.txt", "../docs/private.md", "../docs/away.md", "../../beside.txt", "{out}", "/etc/hostname",
        "../docs/%2e%2e/%2e%2e/beside.txt", "..\\..\\beside.txt", "../.git/config", "../runs/default/own.txt",
        "../docs/../../beside.txt#x", "../docs", ".", "../docs/inside.md")  # fmt: skip
# A line of a stream, and what a page shows of it.
NAMES = [
    ("wrote {home}/data/scan.nii.gz in 3 s (12 MB/s)", "wrote scan.nii.gz in 3 s (12 MB/s)"),
    ("home {home}", "home ~"),
    ("'/mnt/Dr Lovelace/ct/a.csv' is no table", "'a.csv' is no table"),
    ("PATH=/usr/bin:/home/alovelace/bin -I/home/alovelace/x", "PATH=bin:bin -Ix"),
    (r"C:\Users\Ada Lovelace\ct\b.csv", "b.csv"), (r"\\server\alovelace\c.csv", "c.csv"),
    ("file:///home/alovelace/d.csv", "d.csv"), ("~alovelace/e.csv and ~/f.csv", "e.csv and f.csv"),
    ("../../alovelace/g.csv", "g.csv"), ("File /srv/alovelace/x.py:12, in f", "File x.py:12, in f"),
    ("alovelace@ward7-ct.example, alovelace_scans", "user@host, user_scans"), ("ward7-ct: 3", "host: 3"),
    ("1/2 of runs/smoke/h.csv 3 mg /kg; https://example.org/a/b", "1/2 of runs/smoke/h.csv 3 mg /kg; https://example.org/a/b"),
    ("\x1b[31mred\x1b[0m \x1b]8;;http://host\x07x \u202eback", r"red \x1b]8;;http://host\x07x \u202eback"),
]  # fmt: skip


def hostile(home, beside):
    """A notebook whose cells printed what strangers wrote, and where they ran."""
    out, cells = nbformat.v4.new_output, []
    for i, text in enumerate(LIVE):
        cell = nbformat.v4.new_code_cell(f"cell = {i}")
        cell.outputs = [
            out("display_data", data={kind: text}) for kind in ("text/markdown", "text/html")
        ]
        cells.append(cell)
    last = nbformat.v4.new_code_cell(
        f'# Parameters\ndata = "{home}/ct"\nother = "C:\\\\Users\\\\Lovelace\\\\ct"'
    )
    links = "\n\n".join(f"[away{i}]({to.format(out=beside)})" for i, to in enumerate(AWAY))
    path = "".join(
        c if c.isalnum() else f"&#{ord(c)};" for c in f"{home}/q.npz"
    )  # a name that was escaped
    last.outputs = [
        out("stream", name="stdout", text="\n".join(t.format(home=home) for t, _ in NAMES)),
        out("display_data", data={"text/markdown": links}),
        out("display_data", data={"text/html": re.sub(r"\[(\w+)\]\((.*)\)", r"<a href='\2'>\1</a>", links)}),
        out("display_data", data={"text/markdown": f"**Read** {path}"}),
        out("display_data", data={"text/html": f"<p>{home}/r.npz</p><img alt='{home}/s.png' src={home}/s.png>"}),
        out("display_data", data={"image/svg+xml": f"<svg onload='{RUN}'/>", "text/plain": "a drawing"}),
        out("display_data", data={"application/javascript": RUN, "text/plain": "a script"}),
        out("display_data", data={"image/png": f'{PNG}" onerror="{RUN}', "text/plain": "no picture"}),
        out("display_data", data={"text/html": "<div>" * 100_000, "text/plain": "too deep"}),
        out("display_data", data={"text/markdown": r"\begin{a}" * 20_000, "text/plain": "too long"}),
        out("error", ename="KeyError", evalue="x", traceback=[f"\x1b[0;32m{home}/t.py\x1b[0m in <module>", "<b>"]),
    ]  # fmt: skip
    words = nbformat.v4.new_markdown_cell(f"# Where? {home}/title")
    notebook = nbformat.v4.new_notebook(cells=[words, *cells, last])
    notebook.metadata["papermill"] = {
        "output_path": f"{home}/out.ipynb",
        "parameters": {"data": f"{home}/ct"},
    }
    return notebook


def acted_on(beside, executed):
    """A notebook that asks for whatever Sphinx and MyST would do for its author."""
    out, texts = nbformat.v4.new_output, [t.format(out=beside) for t in MYST]
    cells = [
        nbformat.v4.new_markdown_cell(t)
        for t in [f"# {{raw}}`html` <b>now</b> {TAGS}", "---\norphan: true\n---\n"]
    ]
    for i, text in enumerate(texts):
        cells.append(nbformat.v4.new_markdown_cell(f"shown{i}\n\n{text}\n\n## {text}"))
        cell = nbformat.v4.new_code_cell(f"open({str(executed)!r}, 'w')")
        cell.metadata |= {
            "tags": ["remove-input"],
            "mystnb": {"figure": {"caption": text}, "image": {"alt": text}},
        }
        cell.outputs = [out("display_data", data={"text/markdown": text}, metadata={"scrapbook": {"name": "x"}}),
                        out("display_data", data={"text/html": text}), out("stream", text=text)]  # fmt: skip
        cells.append(cell)
    cells.append(
        nbformat.v4.new_raw_cell(f"<script>{RUN}</script>", metadata={"format": "text/html"})
    )
    widget = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
        "text/plain": "a widget",
    }
    cells[-2].outputs += [
        out("display_data", data=widget),
        out("display_data", data={"text/latex": "$x$"}),
    ]
    return nbformat.v4.new_notebook(cells=cells, metadata={
        "mystnb": {"execution_mode": "force", "custom_formats": {".py": "x"}}, "jupytext": {"x": 1},
        "kernelspec": {"name": "python3", "display_name": "x"}, "myst": {"enable_extensions": ["html_image"]},
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"x": RUN}}},
        "html_meta": {"refresh": "0;url=http://host"}, "substitutions": {"x": RUN}, "tocdepth": 0,
    })  # fmt: skip


def project(top):
    """A repository under git, with a run in it that strangers' words went through, and secrets around."""
    root, home = top / "root", top / "home" / "Ada Lovelace"
    home.mkdir(parents=True)
    (top / "beside.txt").write_text(SECRET)
    for name in ("docs", "data_manifests", "notebooks", "merlin", "figures", "tests", "scripts"):
        shutil.copytree(HERE / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "Snakefile", "Makefile",
                 "pyproject.toml", "constraints.txt", "environment.yml"):  # fmt: skip
        shutil.copy(HERE / name, root)
    (root / "docs" / "away.md").symlink_to(top / "beside.txt")
    (root / "docs" / "inside.md").symlink_to("private.md")
    for command in ("init", "add ."):
        subprocess.run(["git", *command.split()], cwd=root, check=True, capture_output=True)
    base = root / "runs" / "default"
    base.mkdir(parents=True)
    for name in (root / "notes.txt", root / "docs" / "private.md", base / "own.txt"):
        name.write_text(SECRET)
    for name in ("01_cohort", "05_phenotypes", "02_pretraining-main", "02_pretraining-reference",
                 '07_external-"><script>'):  # fmt: skip
        nbformat.write(executed(), base / f"{name}.ipynb")
    nbformat.write(hostile(home, top / "beside.txt"), base / "06_retrieval.ipynb")
    nbformat.write(
        acted_on(top / "beside.txt", top / "was_executed"), base / "09_report_generation.ipynb"
    )
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(SECRET)]), top / "away.ipynb"
    )
    (base / "08_five_year.ipynb").symlink_to(top / "away.ipynb")
    figures = base / "figures"
    shutil.copytree(HERE / "figures", figures, copy_function=os.link)
    about = json.loads((figures / "qc.json").read_text())
    about["caption"] = f'"><script>{RUN}</script> from {home}/ct'
    about["tables"] = ["slices", "/../../../../beside", '"><script>']
    (figures / "qc.json").unlink()
    (figures / "qc.json").write_text(json.dumps(about))
    (figures / "qc.pdf").unlink()
    (figures / "qc.pdf").symlink_to(top / "beside.txt")
    claims = pd.read_csv(figures / "claims.csv")
    claims.loc[0, "note"] = f"<img src=x onerror={RUN}> {home}/u.csv"
    (figures / "claims.csv").unlink()
    claims.to_csv(figures / "claims.csv", index=False)
    return root


def made_by(patch, top):
    """Whose machine the site is made on."""
    patch.setenv("HOME", str(top / "home" / "Ada Lovelace"))
    patch.setenv("LOGNAME", "alovelace")
    patch.setattr(socket, "gethostname", lambda: "ward7-ct.example")
    patch.setattr(run, "ROOT", top / "root")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of executed notebooks, one of them hostile, and the committed figures."""
    top = tmp_path_factory.mktemp("top")
    project(top)
    before = sorted(top.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        made_by(patch, top)
        assert build.main(["default", str(top / "root" / "site")]) == 0
    new = {p for p in top.rglob("*") if top / "root" / "site" not in (p, *p.parents)} - set(before)
    assert new == set(), "written outside the site"
    return top / "root" / "site"


@pytest.fixture
def again(site, monkeypatch):
    """The command on the same run, whose pages are those that were made before; its exit code."""
    made_by(monkeypatch, site.parents[1])
    kept = shutil.ignore_patterns(build.MARK)
    monkeypatch.setattr(
        build, "render", lambda name, work, made: shutil.copytree(site, made, ignore=kept)
    )
    return lambda out: build.main(["default", str(out)])


@cache
def pages(site):
    return {p: Page(p.read_text()) for p in site.rglob("*.html")}


def broken_links(site):
    """Links of a site's pages that lead to no file, or to no anchor of it."""
    parsed, broken = pages(site), []
    for path, page in parsed.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                broken.append((path.name, link))
            elif parts.fragment and target in parsed and parts.fragment not in parsed[target].ids:
                broken.append((path.name, link, "no such anchor"))
    return broken


def test_every_link_leads_to_a_file_and_an_anchor_of_it(site):
    assert broken_links(site) == []


def test_pictures_have_words_and_nothing_is_loaded_from_elsewhere(site):
    for path, page in pages(site).items():
        for source, words in page.pictures:
            assert len(words) > 3, (path.name, source[:60])
            assert source.startswith("data:") or (path.parent / source).is_file(), (
                path.name,
                source,
            )
        for source in page.loaded:
            assert source.startswith("data:") or (path.parent / source).is_file(), (
                path.name,
                source,
            )


def test_runs_of_the_sweep_get_no_page_and_arms_do(site):
    names = {p.stem for p in (site / "notebooks").iterdir()}
    assert names == {
        "01_cohort",
        "05_phenotypes",
        "02_pretraining-main",
        "06_retrieval",
        "09_report_generation",
    }


def test_notebook_page_shows_formulas_outputs_and_links(site):
    text = (site / "notebooks" / "05_phenotypes.html").read_text()
    assert text.count("<math") == 2
    assert "$" not in text.split('<article class="bd-article">')[1].split("</article>")[0]
    assert "bar: 100%" in text
    assert "bar:   0%" not in text
    assert "bar:  50%" not in text
    assert "site-packages" not in text
    assert text.count('class="output stream') == 1
    assert 'href="#"' in text.split("pst-page-toc-nav")[0]  # the menu knows the page
    assert '<a href="01_cohort.html"><code>01_cohort</code></a>' in text
    assert "<table><tbody><tr><td>1</td></tr></tbody></table>" in text
    assert "<code>a &lt; b</code>" in text
    assert "<code>runs/&lt;profile&gt;/results/</code>" in text
    assert "<td>c</td>" in text


def test_gallery_gives_tier_n_seed_table_and_provenance_of_each_figure(site):
    text = (site / "gallery.html").read_text()
    facts = json.loads((HERE / "figures" / "zero_shot_findings.json").read_text())
    card = text.split('id="zero_shot_findings"')[1].split("</article>")[0]
    for said in ("not a clinical result", f"{facts['n']['test studies']:,} test studies", "seed 20261",
                 "figures/zero_shot_findings.csv", "figures/zero_shot_findings.json"):  # fmt: skip
        assert said in card
    assert "<strong>a</strong>" in card  # the notebook's words on each panel
    plain = text.split('id="qc"')[1].split("</article>")[0]
    assert "no interval" in plain
    assert text.count('<article class="card"') == len(list((HERE / "figures").glob("*.png")))


def test_every_relative_link_of_docs_and_notebooks_leads_somewhere():
    """The site shows a dead link as plain words, so it can't be looked for there."""
    sources = {p: p.read_text() for p in HERE.glob("*.md")}
    sources |= {
        p: p.read_text() for name in ("docs", "data_manifests") for p in (HERE / name).glob("*.md")
    }
    for path in (HERE / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        sources[path] = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    dead, n = [], 0
    for path, text in sources.items():
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not urlsplit(link).scheme:
                n += 1
                dead += [(path.name, link)] * (not (path.parent / unquote(link)).exists())
    assert n > 100
    assert dead == []


def test_ledger_holds_every_claim_and_its_numbers_sort_as_numbers(site):
    text = (site / "ledger.html").read_text()
    table = pd.read_csv(HERE / "figures" / "claims.csv")
    assert text.split("<tbody>")[1].count("<tr>") == len(table)
    assert 'data-value="25528.0"' in text


@pytest.mark.parametrize("study", range(3))
def test_viewer_data_are_the_phantom_and_its_masks(site, study):
    script = (site / "studies.js").read_text()
    found = json.loads(script.removeprefix("window.STUDIES = ").removesuffix(";\n"))[study]
    view, seen = found["views"]
    hu = np.frombuffer(base64.b64decode(view["hu"]), "<i2").reshape(view["shape"])
    assert hu.min() < -900
    assert hu.max() > 200
    labels = np.frombuffer(base64.b64decode(view["labels"]), np.uint8)
    assert labels.size == hu.size
    liver = next(int(k) for k, v in found["labels"].items() if v == "liver")
    assert -30 < np.median(hu.ravel()[labels == liver]) < 160
    on_grid = np.frombuffer(base64.b64decode(seen["labels"]), np.uint8)
    seen_hu = np.frombuffer(base64.b64decode(seen["hu"]), "<i2")
    assert -30 < np.median(seen_hu[on_grid == liver]) < 160  # masks stand where the organs are
    assert view["findings"].keys() == seen["findings"].keys()


def test_a_profile_that_was_not_run_says_what_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "ROOT", tmp_path)
    assert build.main(["smoke", str(tmp_path / "site")]) == 1
    assert "Run make figures PROFILE=smoke first." in capsys.readouterr().err


def test_nothing_of_an_output_is_live_and_its_words_stay(site):
    """Whatever strangers wrote: no tag that acts, no handler, no style, and no address but the web's."""
    ours = {
        "script": {"src", "defer"},
        "link": {"rel", "href", "type", "title", "as"},
        "meta": {"charset", "http-equiv", "name", "content"},
    }
    acts = set("svg iframe style base object embed video audio template mglyph".split())
    for path, page in pages(site).items():
        head = path.read_text().split("</head>")[0]
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', head)[1]
        assert policy.startswith("default-src 'none'; base-uri 'none'")
        assert "script-src 'self'" in policy
        assert "style-src 'self'" in policy
        assert not re.search(r"unsafe|http|\*|blob|script-src[^;]*data", policy)
        assert head.index(policy) < head.index("<script")
        assert page.scripts == "", path.name
        for tag, attrs, is_inside in page.tags:
            assert tag not in acts, (path.name, tag)
            assert not (is_inside and tag in (*ours, "form", "dialog", "noscript")), (
                path.name,
                tag,
            )
            assert tag != "form" or "bd-search" in attrs["class"]
            assert tag not in ours or set(attrs) <= ours[tag], (path.name, attrs)
            assert tag != "script" or attrs["src"]
            assert not [
                k
                for k in attrs
                if k.startswith("on") or k in ("style", "srcdoc", "ping", "formaction")
            ], attrs
            assert attrs.get("http-equiv", "Content-Security-Policy") == "Content-Security-Policy"
            scheme = urlsplit(attrs.get("href", "").replace("http://[x", "bad:")).scheme
            assert scheme in ("", "http", "https", "mailto") or (tag, scheme) == ("link", "data"), (
                attrs
            )
            source = attrs.get("src", "")
            assert not source.startswith("data:") or source.startswith(
                "data:image/png;base64,iVBOR"
            ), source
    text = (site / "notebooks" / "06_retrieval.html").read_text()
    for i in set(range(len(LIVE))) - {
        2,
        11,
        20,
    }:  # a drawing, an inner page and a style are not shown
        assert len(re.findall(rf"said{i}\b", text)) >= 1, LIVE[i]
    for said in ("a drawing", "a script", "no picture", "too deep", "too long", "&lt;b&gt;"):
        assert re.search(rf"[>\n]{said}\s*<", text), said
    assert text.count('href="mailto:a@b.c"') == 1
    assert text.count('href="http://example.org"') == 2


def test_nothing_in_a_notebook_is_acted_on_by_what_makes_the_pages(site):
    """Directives, roles, front matter, metadata: their letters stay, nothing is run, read or copied."""
    assert not (site.parents[1] / "was_executed").exists()
    assert not (site / "_downloads").exists()
    text = (site / "notebooks" / "09_report_generation.html").read_text()
    article = text.split('<article class="bd-article">')[1].split("</article>")[0]
    said = unescape(re.sub("<[^>]*>", "", article))
    for i, words in enumerate(MYST):
        assert f"shown{i}\n" in said
        name = re.match(r"(?:<div>\s*)?[`:]*\{\{([\w-]+)\}\}", words)
        assert not name or said.count(f"{{{name[1]}}}") >= 3, (
            words
        )  # in the title, and as two outputs
    assert "orphan: true" in said
    assert "{raw}html now <script>" in said
    assert article.count('class="cell_input') == len(MYST)
    classes = " ".join(re.findall(r'class="([^"]*)"', article))
    assert not re.search(
        "admonition|math-wrapper|toctree|figure|footnote|glue|widget|caption", classes
    )
    pictures = {p.name for p in (site / "_images").iterdir()}
    assert len(pictures) == 1  # the one that the other notebooks show
    assert "http://host" not in re.sub(r"(?s)<body.*", "", text)


def test_links_show_files_of_the_repository_and_no_other(site):
    """Not what git does not track, nor what lies outside, by `..`, by an absolute path or by a link."""
    for path in site.rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    text = (site / "notebooks" / "06_retrieval.html").read_text()
    for i in range(len(AWAY)):
        assert len(re.findall(rf"<a>away{i}</a>|>away{i}<(?!/a)", text)) == 2, AWAY[i]
    assert (site / "source" / "merlin" / "phantom" / "synthesis.py.html").exists()
    assert not (site / "figures" / "qc.pdf").exists()


def test_where_there_is_no_git_a_closed_list_is_shown(site, tmp_path, monkeypatch):
    made_by(monkeypatch, site.parents[1])
    monkeypatch.setattr(sources.viewer, "script", lambda profile: "")
    monkeypatch.setenv("PATH", "")
    sources.write_all(tmp_path / "site", run.load_profile("default"))
    assert (tmp_path / "site" / "source" / "merlin" / "phantom" / "synthesis.py.ipynb").exists()
    found = [p for p in (tmp_path / "site").rglob("*") if p.is_file()]
    assert not [p for p in found if SECRET.encode() in p.read_bytes()]


def test_pages_and_files_say_nothing_of_the_machine_but_names(site):
    for path in site.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for mark in (b"Lovelace", b"alovelace", b"ward7", b"/home/", str(site.parent).encode()):
                assert mark not in content, (path, mark)
    text = (site / "notebooks" / "06_retrieval.html").read_text()
    shown = re.split('<div class="output stream.*?<pre>', text)[1].split("</pre>")[0]
    shown = unescape(re.sub("<[^>]*>", "", shown))
    assert shown.splitlines() == [expected for _, expected in NAMES]
    for said in ("<strong>Read</strong> q.npz", "r.npz", ">s.png", "t.py in", "Where? title"):
        assert said in text
    assert "u.csv" in (site / "ledger.html").read_text()
    assert "from ct" in (site / "gallery.html").read_text()


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_of_something_else_is_not_replaced(again, tmp_path, capsys):
    """Neither a text, nor a web project with a style sheet of its own, nor a file."""
    for i, name in enumerate(("thesis.tex", "static/style.css", "index.html", ".git/config")):
        path = tmp_path / str(i) / name
        path.parent.mkdir(parents=True)
        path.write_text("years of work")
        assert again(tmp_path / str(i)) == 1
        assert path.read_text() == "years of work"
        assert name.split("/")[0] in capsys.readouterr().err
    assert again(tmp_path / "0" / "thesis.tex") == 1
    assert (tmp_path / "0" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "listed",
    ["thesis.tex", "../precious.txt", "{top}/precious.txt", "a\0b", "./a/../thesis.tex"],
)
def test_a_forged_mark_removes_nothing(again, site, tmp_path, listed):
    """A mark that names a stranger's file, in the folder or outside it, with whatever hash."""
    (tmp_path / "precious.txt").write_text("older work")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    line = (site / ".merlin-site").read_text().splitlines()[0].split()[0]
    listed = listed.format(top=tmp_path)
    (folder / ".merlin-site").write_text(f"{line}  {listed}\n{listed}\n")
    before = contents(tmp_path)
    assert again(folder) == 1
    assert contents(tmp_path) == before


def test_a_linked_site_is_left_alone(again, site, tmp_path):
    shutil.copytree(site, tmp_path / "real")
    (tmp_path / "site").symlink_to(tmp_path / "real")
    before = contents(tmp_path)
    assert again(tmp_path / "site") == 1
    assert contents(tmp_path) == before


def test_a_site_is_made_again_but_never_takes_a_strangers_file_with_it(again, site, tmp_path):
    """Neither what somebody put into our folder, nor a page that they wrote on, nor a folder of theirs."""
    ours = tmp_path / "ours"
    shutil.copytree(site, ours)
    (ours / "docs" / "notes.txt").write_text("mine")
    assert again(ours) == 1
    assert (ours / "docs" / "notes.txt").read_text() == "mine"
    (ours / "docs" / "notes.txt").unlink()
    page = (ours / "index.html").read_text()
    (ours / "index.html").write_text(page + "my remark")
    assert again(ours) == 1
    assert (ours / "index.html").read_text() == page + "my remark"
    (ours / "index.html").write_text(page)
    (ours / "drafts").mkdir()
    assert again(ours) == 1
    assert (ours / "drafts").is_dir()
    (ours / "drafts").rmdir()
    (tmp_path / "style.css").write_text("body {}")
    (ours / "old.html").symlink_to(tmp_path / "style.css")
    assert again(ours) == 1
    (ours / "old.html").unlink()
    assert again(ours) == 0
    assert again(ours) == 0
    assert contents(tmp_path).keys() == {
        tmp_path / "style.css",
        *(ours / p.relative_to(site) for p in contents(site)),
    }
