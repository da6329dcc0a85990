"""Names out of a stranger's file are letters wherever they go: message, terminal, table, picture, page."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from test_off_shelf import make, unit

from merlin import cli
from merlin.embeddings import load_embeddings, save_embeddings
from merlin.evaluation.scores import read_scores
from merlin.figures import off_shelf, style

HERE = Path(__file__).parents[2]
STEERING = ["s\x1b]0;PWNED\x07\x1b[2J", "a\nmerlin: all is well", "\u202egpj.exe", "\x9b2J", "a\rb"]
MARKUP = ["<img src=x onerror=alert(1)>", "![](../../etc/passwd)", "[x](javascript:alert(1))",
          "$\\frac{1}{$", "=1+1", "`id` **b**"]  # fmt: skip


def renamed(path, name, old, new):
    """An embeddings file with one name of an array replaced."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {k: file[k] for k in file.files}
    arrays[name] = np.array([new if v == old else v for v in arrays[name].tolist()])
    np.savez(path, **arrays)


@pytest.mark.parametrize("name", STEERING)
@pytest.mark.parametrize(
    "array",
    ["study_id", "patient_id", "site", "finding", "prompt_finding", "prompt_wording", "phecode"],
)
def test_a_name_that_steers_a_terminal_is_refused_with_its_row(tmp_path, capsys, array, name):
    e, path = make(1), tmp_path / "e.npz"
    save_embeddings(path, e)
    renamed(path, array, getattr(e, array)[0], name)
    with pytest.raises(ValueError, match=rf"{array}: characters that cannot be seen.* in rows? 0"):
        load_embeddings(path)
    assert cli.main(["evaluate", str(path), "--out", str(tmp_path / "o")]) == 2
    said = capsys.readouterr().err
    assert all(line.isprintable() for line in said.split("\n"))


def test_texts_beside_an_embeddings_file_are_shown_escaped(tmp_path):
    e, path = make(1), tmp_path / "e.npz"
    e.meta.update(model="\x1b[2J", coding=["\x1b]0;x\x07"], deep={"\x07": [{"a": "\u202e"}]})
    save_embeddings(path, e)
    assert json.dumps(load_embeddings(path).meta, ensure_ascii=False).isprintable()


@pytest.mark.parametrize(
    ("column", "name"),
    [(c, n) for c in ("study_id", "patient_id", "site") for n in STEERING]
    + [("finding", n) for n in STEERING if not set(n) & set("\r\n")],  # which are blanks in one
)
def test_a_table_of_scores_refuses_them_too(tmp_path, column, name):
    table = pd.DataFrame({"study_id": ["a", "b"], "patient_id": ["p", "q"], "site": ["x", "x"],
                          "finding": ["Mass", "Mass"], "prob": [0.1, 0.9], "label": [0, 1]})  # fmt: skip
    table.loc[1, column] = f"k{name}k"
    table.to_csv(tmp_path / "t.csv", index=False, quoting=csv.QUOTE_ALL)
    with pytest.raises(ValueError, match="cannot be seen") as caught:
        read_scores(tmp_path / "t.csv")
    assert "row 3" in str(caught.value)
    assert column in str(caught.value)


def test_columns_names_are_printed_escaped(tmp_path, capsys):
    table = pd.DataFrame({"study_id": [f"s{i}" for i in range(40)], "prob_Mass": np.linspace(0, 1, 40),
                          "label_Mass": [0, 1] * 20, "x\x1b[2Jy": ["w"] * 40})  # fmt: skip
    table.to_csv(tmp_path / "t.csv", index=False)
    ask = ["evaluate", str(tmp_path / "t.csv"), "--out", str(tmp_path / "o"), "--resamples", "5"]
    assert cli.main(ask) == 0
    said = capsys.readouterr().out
    assert r"x\x1b[2Jy" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("name", MARKUP[-3:])
def test_a_name_is_drawn_and_tabled_as_it_is_written(tmp_path, name):
    """Dollars are no formula, whose mistakes would end the run, and `=` none in the table."""
    e, path = make(1), tmp_path / "e.npz"
    save_embeddings(path, e)
    for array in ("finding", "prompt_finding"):
        renamed(path, array, e.finding[0], name)
    ask = ["evaluate", str(path), "--out", str(tmp_path / "o"), "--resamples", "5", "--names", name]
    assert cli.main(ask) == 0
    raw = (tmp_path / "o" / "results.csv").read_text()
    assert not re.search(r"(^|[,\"])=", raw, re.MULTILINE)
    facts = {"tier_note": name, "n": {name: 3}, "profile": "p", "seed": 1, "pool": 8}
    table = pd.read_csv(tmp_path / "o" / "results.csv")
    with mpl.rc_context(style.RC):
        figure = style.drawn(
            off_shelf.draw_comparison, {"": table.replace(f"'{name}", name)}, facts
        )
        figure.canvas.draw()
    texts = [t for t in figure.findobj(mpl.text.Text) if t.get_text()]
    assert not any(t._preprocess_math(t.get_text())[1] for t in texts)
    drawn = {t._preprocess_math(t.get_text())[0].replace("\n", " ") for t in texts}
    assert any(name.replace("_", " ") in text for text in drawn)
    plt.close(figure)


class Tags(HTMLParser):
    """Every tag of a page, with its attributes."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attrs):
        self.found |= {tag, *(f"{tag} {name}" for name, _ in attrs)}


OF_TABLES = {"div", "style", "style scoped", "table", "table border", "table class", "thead", "tbody",
             "tr", "tr style", "th", "td"}  # fmt: skip


@pytest.mark.slow
def test_notebooks_on_a_strangers_file_show_its_names_as_letters(tmp_path):
    for name in ("merlin", "notebooks"):
        shutil.copytree(HERE / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    e, path = make(1), tmp_path / "runs" / "embeddings" / "embeddings" / "main.npz"
    label = np.random.default_rng(1).random((80, len(MARKUP))) < 0.5
    prompts = dict(
        prompt=MARKUP * 2, prompt_finding=MARKUP * 2, prompt_wording=["reported"] * 2 * len(MARKUP)
    )
    prompts["prompt_kind"] = np.repeat(["present", "absent"], len(MARKUP))
    many = {k: np.array(v) for k, v in prompts.items()}
    many |= {k: np.array(MARKUP) for k in ("finding", "phecode")}
    many |= {
        k: label.astype(np.float32) for k in ("finding_labels", "phecode_labels", "phecode_logits")
    }
    vectors = np.random.default_rng(2).normal(size=(2 * len(MARKUP), 12)).astype(np.float32)
    path.parent.mkdir(parents=True)
    save_embeddings(path, replace(e, **many, prompt_embedding=unit(vectors)))
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    names = ("04_zero_shot_findings", "05_phenotypes")
    running = [
        subprocess.Popen(
            [Path(sys.executable).with_name("papermill"), f"notebooks/{n}.ipynb", f"{n}.ipynb",
             "--cwd", "notebooks", "-r", "profile", "embeddings", "-p", "n_resamples", "20"],
            cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for n in names
    ]  # fmt: skip
    for process in running:
        said = process.communicate(timeout=600)[0]
        assert process.returncode == 0, said[-3000:]
    tags, seen = Tags(), ""
    for n in names:
        for cell in json.loads((tmp_path / f"{n}.ipynb").read_text())["cells"]:
            for output in cell.get("outputs", ()):
                data = {k: "".join(v) for k, v in output.get("data", {}).items()}
                tags.feed(data.get("text/html", ""))
                page = markdown2html_mistune(data.get("text/markdown", ""))
                assert set(re.findall(r"<(/?\w+)", page)) <= {"p", "/p", "strong", "/strong"}
                seen += unescape(page)
    assert tags.found <= OF_TABLES
    assert sum(shown.replace("$", "＄").replace("\\", "＼") in seen for shown in MARKUP) >= 2
