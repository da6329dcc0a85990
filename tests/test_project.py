"""The project's own promises: pinned environment, README commands, cheap imports."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def _name(requirement):
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _pins(text):
    """Name → the versions it is pinned to: more than one where Pythons differ."""
    pins = {}
    for line in re.findall(r"^[A-Za-z].*", text, re.MULTILINE):
        pin = re.match(r"[\w.-]+==([\w.]+)(?: ;.*?)?(?: \\)?$", line)
        assert pin, line
        pins.setdefault(_name(line), set()).add(pin[1])
    return pins


LOCKS = sorted((ROOT / "locks").glob("*.txt"))
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def test_every_dependency_is_pinned_within_its_range():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = _pins(CONSTRAINTS)
    for requirement in map(
        Requirement, [*project["dependencies"], *extras["dev"], *extras["browser"]]
    ):
        found = pins.get(_name(requirement.name))
        assert found, f"{requirement.name} is not in constraints.txt: scripts/lock.py"
        assert all(requirement.specifier.contains(pin) for pin in found), f"{requirement}: {found}"


def test_locks_hold_the_pins_and_a_hash_for_each():
    text = "".join(path.read_text() for path in LOCKS)
    pins = _pins(CONSTRAINTS)  # conda's environment takes what the locks leave out, pinned too
    assert {"lark", "rfc3987-syntax"} <= set(pins)
    left = {n: v for n, v in pins.items() if n not in ("lark", "rfc3987-syntax")}
    assert _pins(text) == left, "run scripts/lock.py"
    assert "://" not in text + CONSTRAINTS
    locked = re.findall(r"^[a-z].*(?:\n .*)*", text, re.MULTILINE)
    assert len(locked) == sum(map(len, _pins(text).values()))
    for lines in locked:
        first, *hashes = lines.split(" \\\n")
        assert hashes, first
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", h) for h in hashes), first
    assert _pins((ROOT / "locks" / "torch.txt").read_text()) == {"torch": {"2.13.0"}}


def test_what_a_locked_package_asks_for_here_is_locked_too():
    """Setup installs no dependency that is not listed: of this environment, nothing may be missing."""
    pins, missing = _pins(CONSTRAINTS), []
    for name in pins:
        try:
            asked = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            continue  # of another platform
        needed = [
            r for r in map(Requirement, asked) if not r.marker or r.marker.evaluate({"extra": ""})
        ]
        missing += [f"{name}: {r}" for r in needed if _name(r.name) not in pins]
    assert not missing


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


def test_list_and_catalogue_know_the_same_figures_and_notebooks():
    from merlin.figures.catalogue import FIGURES

    listed = yaml.safe_load((ROOT / "notebooks" / "figures.yaml").read_text())
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


# Calls that run what a file says. None stands anywhere in the package, its scripts and notebooks.
RUNS = re.compile(
    r"eval|exec|compile|__import__|(os\.)?(system|popen|exec[lv]\w*|spawn\w*)|subprocess\.get\w*output|"
    r"(importlib\.)?import_module|runpy\..*|(pickle|dill|cloudpickle|marshal|shelve|joblib)\.(?!Parallel|delayed).*|"
    r".*\.(read_pickle|Unpickler|unsafe_load|full_load|exec_module|get_ipython)|yaml\.(load|load_all)"
)
ONLY = {  # a keyword that must stand, and how, by the call's last name
    "from_pretrained": {"local_files_only": "True", "trust_remote_code": "False"},
    "load": {"weights_only": "True"},  # torch's
    "hf_hub_download": {"revision": "revision"},
    "snapshot_download": {"revision": "commit"},
}


def _dangers(text):
    """(line, call) of what runs code, a shell or a pickle that a file may bring, or fetches unpinned."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "") in (
            "pickle",
            "marshal",
            "dill",
        ):
            yield node.lineno, ast.unparse(node)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        last = called.split(".")[-1]
        given = {k.arg: ast.unparse(k.value) for k in node.keywords}
        only = dict(ONLY.get(last, {})) if last != "load" or called == "torch.load" else {}
        if last == "from_pretrained" and not called.startswith(
            ("AutoConfig", "AutoTokenizer", "transformers.AutoTokenizer")
        ):
            only["use_safetensors"] = "True"
        if (
            RUNS.fullmatch(called)
            or any(given.get(k, "False") != "False" for k in ("shell", "allow_pickle"))
            or any(given.get(k) != v for k, v in only.items())
        ):
            yield node.lineno, ast.unparse(node)


def test_nothing_runs_what_a_file_says():
    sources = {
        p: p.read_text() for d in ("merlin", "scripts", "docs") for p in (ROOT / d).rglob("*.py")
    }
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        sources[path] = "\n".join("".join(c["source"]) for c in cells)
    assert len(sources) > 100
    found = {
        f"{p.name}:{line}": call for p, text in sources.items() for line, call in _dangers(text)
    }
    assert not found
    rules = (ROOT / "Snakefile").read_text()  # is no Python as it stands
    assert not re.findall(
        r"\b(?:eval|exec|__import__)\(|os\.system|shell=True|pickle|yaml\.load", rules
    )


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)", "exec(compile(text, 'x', 'exec'))", "os.system(f'ls {name}')", "pickle.load(stream)",
        "from pickle import loads", "subprocess.run(line, shell=True)", "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)", "torch.load(path)", "torch.load(path, weights_only=False)",
        "yaml.load(text, yaml.Loader)", "pd.read_pickle(path)", "joblib.load(path)",
        "AutoTokenizer.from_pretrained(folder)",
        "AutoModel.from_pretrained(f, local_files_only=True, trust_remote_code=True, use_safetensors=True)",
        "AutoModel.from_pretrained(f, local_files_only=True, trust_remote_code=False)",
        "hf_hub_download(name, file)", "snapshot_download(name, revision='main')",
    ],
)  # fmt: skip
def test_each_way_to_run_a_file_would_be_seen(line):
    assert list(_dangers(line))


@pytest.mark.slow
def test_importing_everything_and_asking_for_help_reaches_no_network():
    code = (
        "import sys\nasked = []\n"
        "sys.addaudithook(lambda event, args: asked.append((event, args[1:])) if event in "
        "('socket.connect', 'socket.getaddrinfo', 'socket.sendto', 'urllib.Request') else None)\n"
        "import pkgutil, merlin\nfrom importlib import import_module\n"
        "modules = [m.name for m in pkgutil.walk_packages(merlin.__path__, 'merlin.')]\n"
        "for name in modules: import_module(name)\n"
        "from merlin import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(len(modules), asked)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n, asked = done.stdout.splitlines()[-1].split(" ", 1)
    assert int(n) > 60
    assert asked == "[]"


def test_lab_asks_nobody_for_updates_news_or_extensions():
    from jupyterlab.handlers.announcements import NeverCheckForUpdate
    from jupyterlab.labapp import LabApp

    done = subprocess.run(
        ["make", "-n", "lab"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    app = LabApp()
    app.parse_command_line(done.stdout.split("jupyter lab ")[-1].split())
    assert app.news_url is None
    assert app.check_for_updates_class is NeverCheckForUpdate
    assert app.extension_manager == "readonly"
