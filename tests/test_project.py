"""The project's own promises: pinned environment, README commands, cheap imports."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def _name(requirement):
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in p for p in pins)
    return {_name(p): p.split("==")[1] for p in pins}


def test_every_dependency_is_pinned_within_its_range():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pins = _constraints()
    for requirement in map(Requirement, wanted):
        pin = pins.get(requirement.name.lower().replace("_", "-"))
        assert pin, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement} against {pin}"


def test_constraints_name_no_index_and_no_build_of_torch():
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]
    assert _constraints()["torch"] == "2.13.0"


def test_conda_environment_reads_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-c constraints.txt", "-e .[dev]"]


def test_ci_runs_the_documented_commands():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line.startswith("make")]
    assert commands == ["make lint", "make test", "make figures PROFILE=smoke"]


def test_readme_names_real_targets_files_and_profiles():
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", readme, re.MULTILINE)) <= targets
    for link in re.findall(r"\]\(((?!http)[^)#]+)\)", readme):
        assert (ROOT / link).exists(), link
    for name in re.findall(r"`(\d\d_\w+)`", readme):
        assert (ROOT / "notebooks" / f"{name}.ipynb").exists(), name
    for profile in re.findall(r"PROFILE=(\w+)", readme):
        assert (ROOT / "notebooks" / "profiles" / f"{profile}.yaml").exists()


def _blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def test_embeddings_example_of_the_docs_writes_a_file_that_loads(tmp_path, monkeypatch):
    from merlin.embeddings import load_embeddings

    monkeypatch.chdir(tmp_path)
    (block,) = _blocks(ROOT / "docs" / "embeddings.md", "python")
    exec(compile(block, "docs/embeddings.md", "exec"), {})
    loaded = load_embeddings(tmp_path / "mine.npz")
    assert loaded.image.shape == (3, 8)
    assert loaded.meta["model"] == "mine"


@pytest.mark.parametrize("block", _blocks(ROOT / "README.md", "bash"))
def test_readme_commands_are_understood(block):
    """Each command is dry-run: make -n for make, --help for the rest."""
    for line in block.splitlines():
        words = line.split("#")[0].split()
        if words[0] == "make":
            command = ["make", "-n", *words[1:]]
        else:
            assert words[0] == ".venv/bin/merlin"
            command = [sys.executable, "-m", "merlin.cli", words[1], "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)


@pytest.mark.parametrize(
    "module", ["merlin", "merlin.cli", "merlin.run", "merlin.evaluation.zero_shot"]
)
def test_import_stays_cheap(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'monai', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_teaches_without_torch():
    code = (
        "import sys\nfrom merlin import cli\n"
        "try:\n    cli.main(['findings', '--help'])\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--assume-hu" in done.stdout
    assert done.stdout.strip().endswith("0 False")


def test_snakefile_and_catalogue_know_the_same_figures_and_notebooks():
    from merlin.figures.catalogue import FIGURES

    text = (ROOT / "Snakefile").read_text()
    listed = ast.literal_eval(text.split("FIGURES = ", 1)[1].split("\n}", 1)[0] + "\n}")
    assert set(listed) == {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")}
    assert sorted(n for names in listed.values() for n in names) == sorted(
        set(FIGURES) - {"comparison", "own_ct"}
    )  # of a user's own files


def test_citation_names_the_project_and_the_paper_under_references():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited)  # what the format requires
    assert cited["license"] == "MIT"
    assert (
        cited["version"]
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )
    (paper,) = cited["references"]
    assert paper["type"] == "article"
    assert paper["title"].startswith("Merlin: a computed tomography")
    assert "2406.06512" in paper["url"]
