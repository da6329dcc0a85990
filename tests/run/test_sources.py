"""What reruns after an edit: by the code that a notebook or module reaches, and the tables it names."""

import shutil
from functools import partial

import pytest

from merlin import run
from merlin.run import places
from merlin.training import pretraining_run

NOTEBOOKS = sorted(p.stem for p in run.NOTEBOOKS.glob("*.ipynb"))


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package and its notebooks; returns a function that edits one file of it."""
    for name in ("merlin", "notebooks"):
        source = run.ROOT / name
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(places, "ROOT", tmp_path)

    def edit(name, more="another_word = 1\n"):
        with (tmp_path / name).open("a") as stream:
            stream.write(more)

    return edit


def rerun(top):
    """Notebook → a fingerprint of all that its rule has as input."""
    found = {}
    for name in NOTEBOOKS:
        path = top / "notebooks" / f"{name}.ipynb"
        found[name] = run.fingerprint([run.file_hash(p) for p in (path, *run.depends_on(path))])
    return found


def changed(top, before):
    return {name for name, mark in rerun(top).items() if mark != before[name]}


def test_an_edit_of_the_renderer_leaves_the_code_of_training_alone(copy):
    before = run.code_hash("merlin.training.loop"), run.code_hash("merlin.phantom.build")
    copy("merlin/phantom/render.py")
    assert run.code_hash("merlin.training.loop") == before[0]
    assert run.code_hash("merlin.phantom.build") != before[1]


def test_words_about_code_are_no_code(copy, tmp_path):
    """An update that mends a comment or a docstring must not cost a training its checkpoint."""
    mark = partial(run.code_hash, "merlin.training.losses")
    path, before = tmp_path / "merlin" / "training" / "losses.py", mark()
    copy("merlin/training/losses.py", "\n\n# a comment\n")
    path.write_text('"""Another docstring."""\n' + path.read_text().split('"""', 2)[2])
    assert mark() == before
    copy("merlin/training/losses.py", "\nx = 'a text that is used'\n")
    assert mark() != before


def test_a_checkpoint_belongs_to_what_decides_a_step(copy):
    """An update of what is said, counted or judged goes on from it; one of readers and tables does not."""
    before = pretraining_run.code_of_steps()
    for name in ("words", "files", "training/cost", "training/checkpoint", "statistics/metrics"):
        copy(f"merlin/{name}.py")
    assert pretraining_run.code_of_steps() == before
    for name in ("training/losses.py", "data/preprocess.py", "model/i3d.py", "data/cues.yaml"):
        copy(f"merlin/{name}", "\nanother_word: 1\n")
        assert pretraining_run.code_of_steps() != before
        before = pretraining_run.code_of_steps()


def test_an_edited_prompt_reruns_what_encodes_prompts_and_nothing_else(copy, tmp_path):
    before = rerun(tmp_path)
    copy("merlin/evaluation/prompts.yaml")
    assert changed(tmp_path, before) == {"02_pretraining", "03_embeddings"}


@pytest.mark.parametrize(
    "name", ["merlin/run/workflow.py", "merlin/run/__main__.py", "merlin/cli.py", "merlin/words.py"]
)
def test_an_edit_of_the_workflow_or_the_command_line_reruns_no_notebook(copy, tmp_path, name):
    before = rerun(tmp_path)
    copy(name)
    assert changed(tmp_path, before) == (set(NOTEBOOKS) if name == "merlin/words.py" else set())


def test_a_rules_inputs_are_its_notebook_and_what_it_reaches():
    """The Snakefile asks this module alone, and every YAML or CSV among the answers is named in code."""
    assert "run.depends_on(path)" in (run.ROOT / "Snakefile").read_text()
    for name in NOTEBOOKS:
        path = run.NOTEBOOKS / f"{name}.ipynb"
        modules = [path, *run.imported_modules(path)]
        text = "".join(p.read_text() for p in modules)
        tables = set(run.depends_on(path)) - set(modules)
        assert all(table.name in text for table in tables)


def test_through_a_package_only_the_module_of_the_name_that_was_taken_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "ROOT", tmp_path)
    files = {
        "merlin/__init__.py": "",
        "merlin/room/__init__.py": "from merlin.room.a import f\nfrom merlin.room.b import g as h\n",
        "merlin/room/a.py": "from merlin import deep\ndef f(): pass\n",
        "merlin/room/b.py": "def g(): pass\n",
        "merlin/deep.py": "",
        "one.py": "from merlin import room\nroom.f().b\n",
        "two.py": "from merlin.room import h\n",
        "three.py": "import merlin.room as r\nr.h(r.b)\n",
        "four.py": "import merlin.room.a\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def found(name):
        return [p.stem for p in run.imported_modules(tmp_path / name) if p.stem != "__init__"]

    assert found("one.py") == ["deep", "a"]
    assert found("two.py") == found("three.py") == ["b"]
    assert found("four.py") == ["deep", "a"]
