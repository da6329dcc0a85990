"""The committed form of every notebook: stripped, short cells with words, parameters that exist."""

import ast
import json
import re
import statistics
from itertools import pairwise

import pytest

from merlin import run

NOTEBOOKS = sorted(run.NOTEBOOKS.glob("*.ipynb"))
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def notebook(path):
    return json.loads(path.read_text())


def code(path):
    return [(c, "".join(c["source"])) for c in notebook(path)["cells"] if c["cell_type"] == "code"]


def parameters(path):
    tagged = [text for c, text in code(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    return [
        target.id
        for node in ast.parse(tagged[0]).body
        for target in (node.targets if isinstance(node, ast.Assign) else [])
    ]


def plain(source):
    """Source without the lines that only IPython reads."""
    return "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))


def set_by(node):
    """Global variables that code sets; those of functions and comprehensions are their own."""
    local = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        if not isinstance(child, local):
            yield from set_by(child)


def test_notebook_is_stripped_and_keeps_ids(path):
    nb = notebook(path)
    assert (nb["nbformat"], nb["nbformat_minor"]) >= (4, 5)
    for cell, _ in code(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    ids = [c["id"] for c in nb["cells"]]
    assert len(set(ids)) == len(ids)
    assert set(nb["metadata"]) <= {"kernelspec", "language_info"}


def test_parameters_are_keys_of_the_notebooks_section(path):
    names = parameters(path)
    section = run.load_profile("default")[path.stem]
    assert names[0] == "profile"
    assert len(set(names)) == len(names)
    assert set(names) - {"profile", "arm"} <= set(section)


def test_parameters_with_a_profile_value_default_to_none(path):
    tagged = next(t for c, t in code(path) if "parameters" in c["metadata"].get("tags", []))
    for node in ast.parse(tagged).body:
        assert isinstance(node, ast.Assign)
        if node.targets[0].id not in ("profile", "arm"):
            assert ast.literal_eval(node.value) is None


def test_no_later_cell_names_a_variable_as_a_setting(path):
    """A second *Run All Cells* in the same kernel would take it for a parameter."""
    keys = {"profile", "tier", "seed", "arm", *run.load_profile("default")[path.stem]}
    later = [text for c, text in code(path) if "parameters" not in c["metadata"].get("tags", [])]
    assert {n for text in later for n in set_by(ast.parse(plain(text)))} & keys == set()


def test_settings_are_asked_for_under_the_notebooks_own_name(path):
    text = "\n".join(t for _, t in code(path))
    assert re.findall(r'settings\("([^"]+)", globals\(\)\)', text) == [path.stem]


def test_settings_that_the_notebook_reads_exist(path):
    profile = run.load_profile("default")
    known = {*run.COMMON, "arm", "trainings", *profile[path.stem]}
    used = set()
    for _, text in code(path):
        for node in ast.walk(ast.parse(plain(text))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "settings"
            ):
                used.add(node.attr)
    assert used <= known


def test_cells_are_short_and_none_is_over_15_lines(path):
    lines = {c["id"]: len(t.splitlines()) for c, t in code(path)}
    assert {cell: n for cell, n in lines.items() if n > 15} == {}
    assert statistics.median(lines.values()) <= 6


def test_a_notebook_defines_one_function_at_most(path):
    """What needs more stands in the package, where it is tested."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [n for _, text in code(path) for n in ast.walk(ast.parse(plain(text)))]
    assert sum(isinstance(n, kinds) for n in nodes) <= 1


def test_every_code_cell_has_words_before_it(path):
    cells = notebook(path)["cells"]
    bare = [
        cell["id"]
        for before, cell in pairwise(cells)
        if cell["cell_type"] == "code" and before["cell_type"] == "code"
    ]
    assert bare == []
    assert all("".join(c["source"]).strip() for c in cells)


def test_a_figure_is_saved_by_one_short_call(path):
    calls = [
        node
        for _, text in code(path)
        for node in ast.walk(ast.parse(plain(text)))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("save_figure")
    ]
    long = [c.lineno for c in calls if c.end_lineno - c.lineno > 3]
    assert calls
    assert long == []


def test_no_absolute_path_and_no_download(path):
    for cell, text in code(path):
        for node in ast.walk(ast.parse(plain(text))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.match(r"(/|~|[A-Z]:\\)\w", node.value), cell["id"]
            roots = []
            if isinstance(node, ast.Import):
                roots = [a.name.split(".")[0] for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                roots = [(node.module or "").split(".")[0]]
            assert not {"requests", "urllib", "httpx", "wget"} & set(roots), cell["id"]


def test_title_comes_first_and_no_code_cell_is_empty(path):
    first = notebook(path)["cells"][0]
    assert first["cell_type"] == "markdown"
    assert "".join(first["source"]).startswith("# ")
    assert all(text.strip() for _, text in code(path))


def test_the_full_tier_comes_last(path):
    """What only owners of the release need is no part of the way through."""
    heads = [
        line
        for c in notebook(path)["cells"]
        if c["cell_type"] == "markdown"
        for line in "".join(c["source"]).splitlines()
        if line.startswith("## ")
    ]
    assert "## In the full tier" not in heads[:-1]


def test_upstream_names_notebooks_that_exist(path):
    text = "\n".join(t for _, t in code(path))
    for name in re.findall(r'run\.upstream\(.*?, "([^"]+)"\)', text):
        assert (run.NOTEBOOKS / f"{name}.ipynb").is_file()
