"""The site: every link resolves, pictures have words, nothing is asked of the network."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pandas as pd
import pytest

from merlin import run
from merlin.site import build, viewer
from merlin.site.text import markdown_to_html

HERE = Path(__file__).parents[1]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Page(HTMLParser):
    """What a page links to, shows and loads."""

    def __init__(self, text):
        super().__init__()
        self.links, self.pictures, self.loaded, self.ids = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        if tag == "a" and "href" in attrs:
            self.links.append(attrs["href"])
        if tag == "img":
            self.pictures.append((attrs.get("src", ""), attrs.get("alt", "")))
        if tag in ("script", "link") and (attrs.get("src") or attrs.get("href")):
            self.loaded.append(attrs.get("src") or attrs.get("href"))


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
        "# A question?\n\n$$s = \\frac{1}{|P|}\\sum_{p} v^\\top t_p$$\n\nSee `01_cohort` and $k/N$."
    )
    return nbformat.v4.new_notebook(cells=[words, cell])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of two executed notebooks and the committed figures."""
    root = tmp_path_factory.mktemp("root")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE",
        "CITATION.cff",
        "Snakefile",
        "Makefile",
    ):
        shutil.copy(HERE / name, root)
    for name in ("docs", "data_manifests", "notebooks", "merlin", "figures", "tests", "scripts"):
        (root / name).symlink_to(HERE / name)
    for name in ("pyproject.toml", "constraints.txt", "environment.yml"):
        shutil.copy(HERE / name, root)
    base = root / "runs" / "default"
    base.mkdir(parents=True)
    for name in ("01_cohort", "05_phenotypes", "02_pretraining-main", "02_pretraining-reference"):
        nbformat.write(executed(), base / f"{name}.ipynb")
    (base / "figures").symlink_to(HERE / "figures")
    patch = pytest.MonkeyPatch()
    patch.setattr(run, "ROOT", root)
    n = build.build("default", root / "site")
    patch.undo()
    assert n > 20
    return root / "site"


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
    assert names == {"01_cohort", "05_phenotypes", "02_pretraining-main"}


def test_notebook_page_shows_formulas_outputs_and_links(site):
    text = (site / "notebooks" / "05_phenotypes.html").read_text()
    assert text.count("<math") == 2
    assert "$" not in text.split("<main")[1].split("</main>")[0].replace("$$", "")
    assert "bar: 100%" in text
    assert "bar:   0%" not in text
    assert "bar:  50%" not in text
    assert "site-packages" not in text
    assert "<pre></pre>" not in text
    assert '<a href="../notebooks/01_cohort.html"><code>01_cohort</code></a>' in text
    assert "<table><tr><td>1</td></tr></table>" in text


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
    assert text.count("<article") == len(list((HERE / "figures").glob("*.png")))


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


def test_viewer_data_are_the_phantom_and_its_masks():
    import base64

    import numpy as np

    found = viewer.studies(run.load_profile("smoke"), numbers=(2,))[0]
    view, seen = found["views"]
    hu = np.frombuffer(base64.b64decode(view["hu"]), "<i2").reshape(view["shape"])
    assert hu.min() < -900
    assert hu.max() > 200
    labels = np.frombuffer(base64.b64decode(view["labels"]), np.uint8)
    assert labels.size == hu.size
    liver = next(k for k, v in found["labels"].items() if v == "liver")
    assert -30 < np.median(hu.ravel()[labels == liver]) < 160
    on_grid = np.frombuffer(base64.b64decode(seen["labels"]), np.uint8)
    seen_hu = np.frombuffer(base64.b64decode(seen["hu"]), "<i2")
    assert -30 < np.median(seen_hu[on_grid == liver]) < 160  # masks stand where the organs are
    assert view["findings"].keys() == seen["findings"].keys()


def test_a_profile_that_was_not_run_says_what_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "ROOT", tmp_path)
    assert build.main(["smoke", str(tmp_path / "site")]) == 1
    assert "Run make figures PROFILE=smoke first." in capsys.readouterr().err


def test_a_folder_of_something_else_is_not_replaced(site, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "ROOT", site.parent)
    (tmp_path / "thesis.tex").write_text("years of work")
    assert build.main(["default", str(tmp_path)]) == 1
    assert (tmp_path / "thesis.tex").exists()


def test_a_site_is_made_again_but_never_takes_a_strangers_file_with_it(site, tmp_path, monkeypatch):
    """Neither a web project with a style sheet of its own, nor what somebody put into our folder."""
    monkeypatch.setattr(run, "ROOT", site.parent)
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "style.css").write_text("body {}")
    assert build.main(["default", str(tmp_path)]) == 1
    assert (tmp_path / "static" / "style.css").read_text() == "body {}"
    ours = tmp_path / "ours"
    shutil.copytree(site, ours)
    (ours / "docs" / "notes.txt").write_text("mine")
    assert build.main(["default", str(ours)]) == 1
    assert (ours / "docs" / "notes.txt").read_text() == "mine"
    (ours / "docs" / "notes.txt").unlink()
    (ours / "old.html").symlink_to(tmp_path / "static" / "style.css")
    assert build.main(["default", str(ours)]) == 1
    (ours / "old.html").unlink()
    assert build.main(["default", str(ours)]) == 0
    assert not list(tmp_path.glob(".ours-*"))


def test_markdown_keeps_code_and_escapes_it():
    html = markdown_to_html("`a < b`\n\n| a | b |\n| - | - |\n| $x^2$ | 1 |")
    assert "<code>a &lt; b</code>" in html
    assert "<table>" in html
    assert "<math" in html
