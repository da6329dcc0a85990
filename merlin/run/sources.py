"""What a result follows from: fingerprints of files, arrays and cohorts, and of the code behind a module.

Code is followed by its imports. A name that is taken through a package's `__init__`, as `run.settings`,
leads to the module that the `__init__` has it from, and to no other: an edit of the workflow's engine
reruns no notebook. A table of the package counts where its file's name stands in the code.
"""

import ast
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from merlin.files import file_hash, plain, read_csv, write_json, write_parquet
from merlin.run import places

if TYPE_CHECKING:
    import pandas as pd


def fingerprint(*parts: object) -> str:
    """16 hex digits that change when any part (plain values) changes."""
    text = json.dumps(parts, sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def array_hash(values: np.ndarray) -> str:
    """sha256 of an array's numbers."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def cohort_hash(manifest: str | Path) -> str:
    """Fingerprint of all that a cohort's folder says: manifest, codes, and how large each named file is.

    A corrected table of codes, or a scan that was replaced under its name, is another cohort.
    """
    manifest = Path(manifest)
    table = read_csv(manifest, dtype=str, keep_default_na=False)
    named = [p for c in ("volume", "label_map") if c in table for p in table[c] if p]
    paths = [manifest.parent / p for p in named]
    sizes = [p.stat().st_size for p in paths if p.is_file()]
    beside = [p for p in (manifest, manifest.with_name("codes.csv")) if p.is_file()]
    return fingerprint(named, sizes, *map(file_hash, beside))


def kept(path: str | Path, mark: str, make: Callable[[], "pd.DataFrame"]) -> "pd.DataFrame":
    """A table made earlier from the same things, or made now and kept: what lets a run resume.

    Parameters
    ----------
    path : path
        Of a parquet file; its mark stands beside it as `<path>.json`.
    mark : str
        From `fingerprint`: of everything the table depends on.
    make : callable
        () → DataFrame.
    """
    import pandas as pd

    if is_kept(path, mark):
        return pd.read_parquet(path)
    table = make()
    _beside(path).unlink(missing_ok=True)  # a table without its mark is made again
    write_parquet(path, table)
    write_json(_beside(path), {"mark": mark})
    return table


def is_kept(path: str | Path, mark: str) -> bool:
    """Whether `kept` has a table of this mark."""
    beside = _beside(path)
    return (
        Path(path).exists() and beside.exists() and json.loads(beside.read_text())["mark"] == mark
    )


def _beside(path: str | Path) -> Path:
    return Path(path).with_name(Path(path).name + ".json")


def code_hash(*modules: str, without: Iterable[str] = ()) -> str:
    """Fingerprint of the code of some modules, of all they import from this package and read in it.

    Code is what Python makes of it: comments, docstrings and how lines are broken are no part of it.

    Parameters
    ----------
    *modules : str
        Dotted names.
    without : iterable of str
        Modules that decide nothing of the result: left out themselves, their imports followed.
    """
    paths, left = ([_file_of(name) for name in names] for names in (modules, without))
    files = {*paths, *depends_on(*paths)}.difference(left)
    said = [[str(f.relative_to(places.ROOT)), _code(f)] for f in sorted(files)]
    return fingerprint(said)


def _file_of(module: str) -> Path:
    return places.ROOT.joinpath(*module.split(".")).with_suffix(".py")


def _code(path: Path) -> str:
    return _bare(path, path.stat().st_mtime_ns) if path.suffix == ".py" else file_hash(path)


@cache
def _bare(path: Path, _mtime_ns: int) -> str:
    """sha256 of a module's code without docstrings and comments."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def depends_on(*paths: str | Path) -> list[Path]:
    """What a result of these modules or notebooks follows from: all they import, and the tables read.

    The given files themselves are not among them, but where they import each other. Sorted.
    """
    modules = sorted({m for path in paths for m in imported_modules(path)})
    return [*modules, *tables_read([*map(Path, paths), *modules])]


def imported_modules(path: str | Path) -> list[Path]:
    """Files of this package that a notebook (`.ipynb`) or module uses, and what those import; sorted."""
    found: set[Path] = set()
    queue = [Path(path)]
    while queue:
        file = queue.pop()
        if file.name == "__init__.py" and file != path:  # leads only where a name was taken from
            continue
        for name in _read(file)[0]:
            new = _behind(name) - found
            found |= new
            queue += new
    return sorted(found)


def tables_read(paths: Iterable[Path]) -> list[Path]:
    """The package's YAML, CSV and JSON files that modules or notebooks name in their code."""
    words = {word for path in paths for word in _read(path)[2]}
    inside = (places.ROOT / "merlin").rglob("*")
    return sorted(f for f in inside if f.suffix in (".yaml", ".csv", ".json") and f.name in words)


def _behind(name: str) -> set[Path]:
    """The module that a dotted name lies in; through a package, its `__init__` too."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        base = places.ROOT.joinpath(*parts[:n])
        if base.with_suffix(".py").is_file():
            return {base.with_suffix(".py")}
        if (door := base / "__init__.py").is_file():
            behind = _read(door)[1].get(parts[n], ()) if n < len(parts) else ()
            return {door}.union(*map(_behind, behind))
    return set()


def _read(path: Path) -> tuple[set[str], dict[str, set[str]], set[str]]:
    return _parsed(path, path.stat().st_mtime_ns)


@cache
def _parsed(path: Path, _mtime_ns: int) -> tuple[set[str], dict[str, set[str]], set[str]]:
    """Of a source: the dotted names of this package that it uses, what each imported name is, its texts."""
    nodes = list(ast.walk(ast.parse(_source(path))))
    bound, names = defaultdict(set), set()
    for node in nodes:
        if isinstance(node, ast.Import):
            for a in node.names:
                names.add(a.name)
                bound[a.asname or a.name.split(".")[0]].add(
                    a.name if a.asname else a.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for a in node.names:
                names.add(f"{node.module}.{a.name}")
                bound[a.asname or a.name].add(f"{node.module}.{a.name}")
    for node in nodes:
        if isinstance(node, ast.Attribute):
            head, *rest = _dotted(node)
            names |= {".".join([module, *rest]) for module in bound.get(head, ())}
    words = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {n for n in names if n.split(".")[0] == "merlin"}, dict(bound), words


def _dotted(node: ast.expr) -> list[str]:
    """`a.b.c` as its words; of what hangs on a call or an index, its head is empty."""
    words: list[str] = []
    while isinstance(node, ast.Attribute):
        words.insert(0, node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *words]


def _source(path: Path) -> str:
    """Python of a module, or of a notebook's code cells without their magics."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    source = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return "\n".join(
        line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))
    )
