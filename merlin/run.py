"""Profiles, paths, atomic files and provenance: what every notebook does before and after its story.

A profile (`notebooks/profiles/NAME.yaml`) holds the parameters of every notebook. `default.yaml` is
complete and documents each key; the others extend it. A notebook asks for its settings with
`settings("02_pretraining", globals())`: values come from the profile, unless the notebook's own
parameters cell, or papermill's `-p`, gives one. Unknown names are errors that name the nearest one.

`python -m merlin.run figures PROFILE` runs the workflow (as `make figures` does), `… bring PROFILE`
notes which files of the user's it reads, for a workflow that is started by hand, `… explain FILE` says
where an executed notebook failed, `… keep FILE TARGET` moves a finished one to its place without this
machine's paths, `… check PROFILE` checks a profile.
"""

import argparse
import ast
import difflib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml

from merlin.files import atomic
from merlin.words import NAME, Refusal, as_cell, from_cell, lines, shown, without_folders

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
TIER_NOTES = {
    "phantom": "synthetic phantom cohort, not a clinical result",
    "embeddings": "embeddings read from a file",
    "full": "full tier",
}
LOOK_FIRST = ("summary", "zero_shot_findings", "dataset_audit")  # the first of these that was made
MINED = "MINED_LABELS.txt"  # in a cohort's folder: what its captions say of labels from text
SYNTHETIC = "SYNTHETIC.txt"  # in a data folder: its studies are phantoms, whatever tier reads them
TIER_WORDS = {"phantom": "synthetic", "embeddings": "given", "full": "internal"}  # in captions
RESULT_COLUMNS = (
    "task",
    "label",
    "metric",
    "model",
    "split",
    "value",
    "low",
    "high",
    "n_studies",
    "n_patients",
    "n_positive",
    "status",
    "reason",
)
# Parameters that are paths.
PATHS = {"folder", "patients", "icd", "weights", "phecodes", "code_map", "text_folder", "lm_folder",
         "weights_2d", "totalsegmentator", "real_ct", "real_labels"}  # fmt: skip
_started = time.time()
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ProfileError(Refusal):
    """A profile or a notebook parameter that does not exist, or is not what it should be."""


class _PlainLoader(yaml.SafeLoader):
    """YAML in which nothing stands for what is written elsewhere: ten lines of aliases make a billion values."""

    n_deep = 0

    def compose_node(self, parent, index):
        event, self.n_deep = self.peek_event(), self.n_deep + 1
        odd = "nested too deeply" if self.n_deep > 20 else ""
        if isinstance(event, yaml.AliasEvent):
            odd = f"an alias, *{event.anchor}. Write out what it stands for"
        elif len(getattr(event, "value", "")) > 2000:
            odd = f"a value of {len(event.value):,} characters. Expected 2,000 at most"
        if odd:
            raise yaml.MarkedYAMLError(problem=odd, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.n_deep -= 1
        return node


def read_yaml(path, most_kb=64):
    """Values of a YAML file that anybody may have written.

    Raises
    ------
    ProfileError
        With file and line, of what is no YAML, too large, nested or long, or an alias.
    """
    path = Path(path)
    if (n_kb := path.stat().st_size >> 10) > most_kb:
        raise ProfileError(f"{path.name}: {n_kb:,} kB. Expected {most_kb} at most.")
    try:
        return _PlainLoader(path.read_bytes()).get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # a date or number that is none is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ProfileError(
            f"{path.name}{where}: {getattr(error, 'problem', '') or error}."
        ) from None
    except (AttributeError, LookupError, TypeError, OverflowError):  # of !!bool x, !!timestamp x
        raise ProfileError(f"{path.name}: a value that its tag (!!…) does not fit.") from None


def nearest(name, known):
    """` (nearest: NAME).` for an error message, or `.` if nothing is like it."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (nearest: {close[0]})." if close else "."


def load_profile(name):
    """Read a profile with everything it extends filled in.

    Returns
    -------
    dict
        `profile`, `tier`, `seed`, `expected`, `arms`, `sweep`, and one dict of parameters per notebook.

    Raises
    ------
    ProfileError
        Naming every unknown profile, section or key with its nearest real one.
    """
    path = PROFILES / f"{name}.yaml"
    if not NAME.fullmatch(str(name)) or not path.is_file():
        names = sorted(p.stem for p in PROFILES.glob("*.yaml"))
        raise ProfileError(
            f"No profile {name!r}{nearest(name, names)} Profiles are {', '.join(names)}, "
            f"in {PROFILES.relative_to(ROOT)}/."
        )
    full = read_yaml(PROFILES / "default.yaml")
    problems = _fill_in(full, read_yaml(path) or {})
    if problems:
        raise ProfileError(
            f"{path.relative_to(ROOT)}: {len(problems)} problem{'s'[: len(problems) != 1]}\n  "
            + "\n  ".join(problems)
        )
    return {"profile": name, **full}


def _fill_in(full, own):
    """Put a profile's own values into the default ones; returns what is wrong with them."""
    if odd := _misfit("the file", own, full):
        return [odd]
    problems = []
    for key, value in own.items():
        if key not in full:
            problems.append(f"{key}: unknown{nearest(key, full)}")
        elif odd := _misfit(key, value, full[key]):
            problems.append(odd)
        elif key == "arms" or not isinstance(full[key], dict):
            full[key] = value
        else:
            for inner, v in (value or {}).items():
                if inner not in full[key]:
                    problems.append(f"{key}.{inner}: unknown{nearest(inner, full[key])}")
                elif odd := _misfit(f"{key}.{inner}", v, full[key][inner]):
                    problems.append(odd)
                else:
                    full[key][inner] = v
    if full["tier"] not in TIER_NOTES:
        problems.append(
            f"tier: {full['tier']!r}{nearest(full['tier'], TIER_NOTES)} Expected one of {', '.join(TIER_NOTES)}."
        )
    known = [k for k in full if k[:2].isdigit()]
    odd = [n for n in full.get("notebooks") or () if n not in known]
    problems += [f"notebooks: {n}: unknown{nearest(n, known)}" for n in odd]
    return problems + _arm_problems(full)


def _arm_problems(full):
    """What is wrong with the names of arms, and with what they change of 02_pretraining."""
    trained, sweep, problems = full.get("02_pretraining", {}), full.get("sweep", {}), []
    arms = [("arms", a, c) for a, c in full["arms"].items()]
    arms += [("sweep.arms", a, c) for a, c in (sweep.get("arms") or {}).items()]
    names = [name for _, name, _ in arms]
    for place, name, _ in arms:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            said = "names of arms are letters, digits, '_', '-' and '.', 48 at most"
            problems.append(f"{place}.{shown(name)}: {said}")
    for place, name, changes in [*arms, ("sweep", "base", sweep.get("base"))]:
        where = f"{place}.{name}"
        if changes is not None and not isinstance(changes, dict):
            problems.append(f"{where}: {_kind(changes)}. Expected keys and values.")
            continue
        for key, value in (changes or {}).items():
            if key not in trained:
                problems.append(f"{where}.{key}: unknown{nearest(key, trained)}")
            elif odd := _misfit(f"{where}.{key}", value, trained[key]):
                problems.append(odd)
            elif key == "init_from" and value and value not in names:
                problems.append(f"{where}.{key}: no arm {value!r}{nearest(value, names)}")
    return problems


def _kind(value):
    """What a YAML value is, in words."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number" if abs(value) < 1e15 else "no finite number"
    words = {bool: "true or false", str: "text", list: "a list", dict: "keys and values"}
    return words.get(type(value), "nothing" if value is None else "a date")


def _misfit(where, value, like):
    """Why a value is of another kind than the default's, `like`; empty if it may stand in its place."""
    if value is None and not like:
        return ""
    kind = "a number" if like is None else _kind(like)
    if _kind(value) != kind:
        hint = f", as {like}" if like and not isinstance(like, dict) else ""
        return f"{where}: {shown(repr(value), 80)}. Expected {kind}{hint}."
    if kind == "a list":  # empty by default: texts, or lists of them
        parts = [(where, v, like[0] if like else [] if isinstance(v, list) else "") for v in value]
    elif kind == "keys and values" and where in ("01_cohort.n_patients", "01_dataset.columns"):
        inner = next(iter(like.values()), "")
        parts = [(f"{where}.{k}", v, inner) for k, v in value.items()]
    else:
        return ""
    return next((odd for part in parts if (odd := _misfit(*part))), "")


def sweep_runs(profile):
    """The small pretrainings of a profile's `sweep`: every arm with every seed, every size too.

    Parameters
    ----------
    profile : dict
        From `load_profile`.

    Returns
    -------
    dict of str to dict
        Run name, as `staged-2` or `size_0.25-1`, → its settings: the base, the arm's, the seed.
    """
    return {
        f"{arm}-{seed}": changes | {"seed": profile["seed"] + seed}
        for arm, changes in sweep_arms(profile).items()
        for seed in profile["sweep"]["seeds"]
    }


def sweep_arms(profile):
    """The arms of a profile's `sweep` and its sizes, without seeds: name → settings."""
    sweep = profile["sweep"]
    arms = {a: changes or {} for a, changes in sweep["arms"].items()}
    arms |= {f"size_{size:g}": {"train_fraction": size} for size in sweep["sizes"]}
    return {a: sweep["base"] | changes for a, changes in arms.items()}


def trainings(profile, arm):
    """What one run of `02_pretraining` trains: name → seed. An arm of the sweep has several seeds."""
    of_sweep = {
        n: s["seed"] for n, s in sweep_runs(profile).items() if arm in (n, n.rpartition("-")[0])
    }
    return of_sweep or {arm: profile["seed"]}


def settings(notebook, scope):
    """The settings of one notebook run.

    Parameters
    ----------
    notebook : str
        Its name without suffix, as the profile's section.
    scope : dict
        The notebook's `globals()` right after its parameters cell. A parameter left at None takes
        the profile's value.

    Returns
    -------
    types.SimpleNamespace
        One attribute per parameter, plus `profile`, `tier`, `seed`, and `arm` where the notebook
        has arms (in `02_pretraining` also `trainings`, from `trainings`).

    Raises
    ------
    ProfileError
        If a parameter was given that the notebook does not have: a mistyped `-p` name.
    """
    profile = load_profile(scope["profile"])
    if notebook not in profile:
        raise ProfileError(f"No notebook {notebook!r}{nearest(notebook, profile)}")
    values = {k: profile[k] for k in ("profile", "tier", "seed")} | profile[notebook]
    arm = scope.get("arm")
    if arm is not None:
        arms = profile["arms"] | sweep_arms(profile) | sweep_runs(profile)
        if arm not in arms:
            raise ProfileError(f"No arm {arm!r}{nearest(arm, arms)}")
        values["arm"] = arm
        if notebook == "02_pretraining":
            values |= arms[arm] or {}
            values["trainings"] = trainings(profile, arm)
    allowed = set(values) | {"arm"}
    ours = {"In", "Out", "get_ipython", "exit", "quit", "open", "run", "settings"}
    given = {
        k: v
        for k, v in scope.items()
        if not k.startswith("_") and k not in ours and not callable(v) and not _is_module(v)
    }
    # In a kernel where this cell ran before, later cells have left their variables: not parameters.
    is_again = isinstance(scope.get("settings"), SimpleNamespace)
    unknown = [] if is_again else sorted(set(given) - allowed)
    if unknown:
        raise ProfileError(
            f"{notebook} has no parameter "
            + "; ".join(f"{u!r}{nearest(u, allowed)}" for u in unknown)
            + f" Its parameters are {', '.join(sorted(allowed))}."
        )
    values |= {k: v for k, v in given.items() if v is not None and k in allowed}
    if notebook == "01_dataset" and profile["tier"] == "full" and not values["folder"]:
        own = brought(scope["profile"])
        values |= {
            k: values[k] or own.get(n, "") for k, n in (("folder", "data"), ("weights",) * 2)
        }
    if "trainings" in values and given.get("seed") is not None:
        values["trainings"] = trainings(profile | {"seed": values["seed"]}, arm)
    for key in PATHS & set(values):
        if values[key]:
            values[key] = located(values[key])
    return SimpleNamespace(**values)


def located(path):
    """A path of a profile, from the repository's root; one from the notebooks' folder if it is there."""
    for base in (ROOT, NOTEBOOKS):
        if (base / path).exists():
            return str(base / path)
    return str(path)


def _is_module(value):
    return type(value).__name__ == "module"


def folder(profile):
    """`runs/<profile>/`, made if missing."""
    path = ROOT / "runs" / profile
    path.mkdir(parents=True, exist_ok=True)
    return path


def upstream(path, notebook):
    """`path`, or an error that names the notebook which makes it."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path} is missing. "
            f"Run notebooks/{notebook}.ipynb first (or `make figures`, which runs all in order)."
        )
    return path


def write_csv(path, table):
    """Write a table atomically; texts that a spreadsheet would compute are marked, see `words.as_cell`."""

    def text(value):  # a bare carriage return, which pandas does not quote, would end the row
        plain = as_cell(value)
        return re.sub("\r\n?", "\n", plain) if isinstance(plain, str) and "\r" in plain else plain

    with atomic(path) as stream:
        changed_texts(table, text).to_csv(stream, index=False, lineterminator="\n")


def read_csv(path, **options):
    """A table that `write_csv` wrote; options as of `pandas.read_csv`."""
    import pandas as pd

    return changed_texts(pd.read_csv(path, **options), from_cell)


def write_xlsx(path, table):
    """Write a workbook of one sheet atomically, all texts as texts: `=1+1` is no formula."""
    import pandas as pd
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    plain = changed_texts(
        table, lambda v: ILLEGAL_CHARACTERS_RE.sub(" ", v) if isinstance(v, str) else v
    )
    with atomic(path, "wb") as stream, pd.ExcelWriter(stream, engine="openpyxl") as book:
        plain.to_excel(book, index=False)
        for cell in (cell for row in book.book.active for cell in row):
            if cell.data_type == "f":
                cell.data_type = "s"


def changed_texts(table, change):
    """A table with its texts and its columns' names changed; other values as they are."""
    out = table.rename(columns=change)
    for i, kind in enumerate(table.dtypes):
        if kind.kind == "O":
            values = table.iloc[:, i].tolist()
            changed = [change(v) for v in values]
            if any(a is not b for a, b in zip(changed, values, strict=True)):
                out.isetitem(i, np.fromiter(changed, object, len(changed)))
    return out


def write_json(path, value):
    """Write JSON atomically, keys in the order given."""
    with atomic(path) as stream:
        json.dump(value, stream, indent=1, default=_plain)
        stream.write("\n")


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)


def write_results(settings_, name, table, predictions=None):
    """Write `results/<name>.csv` and `predictions/<name>.parquet` of a run.

    Raises
    ------
    ValueError
        If a required column is missing or a status is neither `ok` nor `not evaluated`.
    """
    missing = [c for c in RESULT_COLUMNS if c not in table]
    if missing:
        raise ValueError(f"results {name}: no column {', '.join(missing)}")
    odd = set(table["status"]) - {"ok", "not evaluated"}
    if odd:
        raise ValueError(f"results {name}: status {sorted(odd)}. Expected ok or not evaluated")
    extra = [c for c in table if c not in RESULT_COLUMNS]
    base = folder(settings_.profile)
    write_csv(base / "results" / f"{name}.csv", table[[*RESULT_COLUMNS, *extra]])
    if predictions is not None:
        path = base / "predictions" / f"{name}.parquet"
        with atomic(path, "wb") as stream:
            predictions.to_parquet(stream, index=False)
    return base / "results" / f"{name}.csv"


def kept(path, mark, make):
    """A table made earlier from the same things, or made now and kept: what lets a run resume.

    Parameters
    ----------
    path : path
        Of a parquet file; its mark stands beside it as `<path>.json`.
    mark : str
        From `fingerprint`: of everything the table depends on.
    make : callable
        () → DataFrame.

    Returns
    -------
    DataFrame
    """
    import pandas as pd

    path = Path(path)
    if is_kept(path, mark):
        return pd.read_parquet(path)
    table = make()
    beside = path.with_name(path.name + ".json")
    beside.unlink(missing_ok=True)  # a table without its mark is made again
    with atomic(path, "wb") as stream:
        table.to_parquet(stream, index=False)
    write_json(beside, {"mark": mark})
    return table


def unit(patient_ids, study_ids):
    """What intervals resample: `patients`, or `studies` where no patient is known."""
    return (
        "patients"
        if any(p != s for p, s in zip(patient_ids, study_ids, strict=True))
        else "studies"
    )


def counts(patient_ids, study_ids, what):
    """Numbers for a figure's footer: patients and `what`, or `what` and that patients are unknown."""
    n = len(study_ids)
    if unit(patient_ids, study_ids) == "studies":
        return {f"{what}, patients unknown": n}
    return {"patients": len(set(patient_ids)), what: n}


def mark_synthetic(folder_):
    """Say in a data folder that its studies are phantoms: whoever reads it, in any tier, says so too."""
    with atomic(Path(folder_) / SYNTHETIC) as stream:
        stream.write("These studies are computer-made phantoms: no person's data.\n")


def mark_mined(folder_, note):
    """Let every caption on a cohort's labels say how they were mined; an empty note unsays it."""
    path = Path(folder_) / MINED
    if not note:
        path.unlink(missing_ok=True)
        return
    with atomic(path) as stream:
        stream.write(note + "\n")


def left_out(base):
    """For a figure's footer: test studies of a data set that no notebook after `01_dataset` sees."""
    path = Path(base) / "cohort" / "left_out.csv"
    n = int((read_csv(path, dtype=str)["split"] == "test").sum()) if path.exists() else 0
    return {"test studies without a readable volume": n} if n else {}


def is_kept(path, mark):
    """Whether `kept` has a table of this mark."""
    path = Path(path)
    beside = path.with_name(path.name + ".json")
    return path.exists() and beside.exists() and json.loads(beside.read_text())["mark"] == mark


def file_hash(path):
    """sha256 of a file, 64 hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def array_hash(values):
    """sha256 of an array's numbers."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def cohort_hash(manifest):
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


def fingerprint(*parts):
    """16 hex digits that change when any part (plain values) changes."""
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def imported_modules(path):
    """Files of this package that a notebook or module uses, and what those import.

    Parameters
    ----------
    path : path
        A `.ipynb` or `.py` file.

    Returns
    -------
    list of Path, sorted
    """
    found, queue = set(), [Path(path)]
    while queue:
        for module in _direct_imports(queue.pop()):
            if module not in found:
                found.add(module)
                queue.append(module)
    return sorted(found)


def _source(path):
    """Python of a module, or of a notebook's code cells without their magics."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    source = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return "\n".join(
        line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))
    )


def _direct_imports(path):
    for name in _parsed(path, path.stat().st_mtime_ns)[0]:
        base = ROOT.joinpath(*name.split("."))
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                yield file


@cache
def _parsed(path, _mtime_ns):
    """Names of this package that a module or notebook imports, and the short texts in its code."""
    names, words = [], set()
    for node in ast.walk(ast.parse(_source(path))):
        if isinstance(node, ast.Import):
            names += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
    return [n for n in names if n.split(".")[0] == "merlin"], words


def tables_read(paths):
    """The package's YAML, CSV and JSON files that modules or notebooks name in their code."""
    words = {
        word for path in paths for word in _parsed(Path(path), Path(path).stat().st_mtime_ns)[1]
    }
    inside = (ROOT / "merlin").rglob("*")
    return sorted(f for f in inside if f.suffix in (".yaml", ".csv", ".json") and f.name in words)


def depends_on(*paths):
    """What a result of these modules or notebooks follows from: all they import, and the tables read.

    The given files themselves are not among them.

    Returns
    -------
    list of Path, sorted
    """
    modules = sorted({m for path in paths for m in imported_modules(path)})
    return [*modules, *tables_read([*paths, *modules])]


def code_hash(*modules):
    """Fingerprint of the named modules' sources, of all they import from this package and read in it."""
    paths = [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in modules]
    files = {*paths, *depends_on(*paths)}
    return fingerprint([[str(f.relative_to(ROOT)), file_hash(f)] for f in sorted(files)])


def tier_note(settings_, is_synthetic):
    """What a figure says of its data; phantoms are called so in every tier."""
    note = TIER_NOTES[settings_.tier]
    if is_synthetic and settings_.tier != "phantom":
        return f"{note}, on a {TIER_NOTES['phantom']}"
    return note


def provenance(settings_, inputs=(), **facts):
    """Where a figure or file came from: tier, settings, inputs with hashes, code, machine.

    Parameters
    ----------
    settings_ : SimpleNamespace
        From `settings`.
    inputs : sequence of path
    **facts
        Whatever else belongs beside it, as n and the kind of interval.
    """
    cohort = folder(settings_.profile) / "cohort"
    mined = f"; {(cohort / MINED).read_text().strip()}" if (cohort / MINED).exists() else ""
    packages = ("torch", "numpy", "scipy", "pandas", "monai", "transformers", "matplotlib")
    return {
        "tier": settings_.tier,
        "tier_note": tier_note(settings_, (cohort / SYNTHETIC).exists()) + mined,
        "profile": settings_.profile,
        "seed": settings_.seed,
        "parameters": without_folders(vars(settings_)),
        **facts,
        "inputs": {
            (
                str(Path(p).relative_to(ROOT)) if Path(p).is_relative_to(ROOT) else Path(p).name
            ): file_hash(p)
            for p in inputs
        },
        "commit": _commit(),
        "package": importlib.metadata.version("merlin-companion"),
        "versions": {p: importlib.metadata.version(p) for p in packages},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(time.time() - _started, 1),
    }


def _commit():
    def git(*words):
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "not a git checkout"
    return head + (
        " with changes" if git("status", "--porcelain", "--", "merlin", "notebooks") else ""
    )


def explain(path):
    """Where an executed notebook failed: cell, source and the last lines of its error."""
    cells = json.loads(Path(path).read_text())["cells"]
    number = 0
    for cell in cells:
        if cell["cell_type"] != "code" or "papermill-error-cell-tag" in cell["metadata"].get(
            "tags", []
        ):
            continue
        number += 1
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                source = "".join(cell["source"]).splitlines()[-6:]
                last = (output["traceback"] or [output.get("evalue", "")])[-1]
                trace = [_ANSI.sub("", line) for line in last.splitlines() if line.strip()][-12:]
                said = [
                    f"Code cell {number} failed with {output['ename']}:",
                    *("    " + line for line in source),
                    *trace,
                    f"The executed copy is kept: {path}",
                ]
                return lines("\n".join(said))
    return f"No failed cell in {path}: it was interrupted. Run the same command again to resume."


def keep(partial, target):
    """Put an executed notebook in its place; of paths of this machine its outputs keep the names."""
    book, places = json.loads(Path(partial).read_text()), ()
    with suppress(ValueError, KeyError, OSError):  # a profile that reads files of the user's
        noted = json.loads((Path(target).parent / OWN).read_text())["files"].values()
        places = tuple(p for v in noted for p in (v, str(Path(v).parent)) if len(Path(p).parts) > 2)
    for cell in book["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", ()):
            cell["source"] = without_folders(cell["source"], places)
        for output in cell.get("outputs", ()):
            for kind in [k for k in output if k != "data"]:
                output[kind] = without_folders(output[kind], places)
            for kind in [k for k in output.get("data", ()) if not k.startswith("image/")]:
                output["data"][kind] = without_folders(output["data"][kind], places)
    book["metadata"] = without_folders(book["metadata"], places)
    write_json(target, book)
    Path(partial).unlink()


NEEDS = {"phantom": (), "embeddings": ("embeddings",), "full": ("data", "weights")}  # by tier


def own_files(tier, given, *, trains=False):
    """Check what the user brings to a run against what its tier reads.

    Parameters
    ----------
    tier : str
    trains : bool
        Whether the profile trains weights of its own, so that none need be given.
    given : dict of str to str
        `data`, `weights`, `embeddings` → path, empty where not given.

    Returns
    -------
    dict of str to str
        Absolute paths.

    Raises
    ------
    ProfileError
        Naming everything that is missing, unused or not there.
    """
    needed = [k for k in NEEDS[tier] if not (trains and k == "weights")]
    problems = [f"{k.upper()}=… is missing." for k in needed if not given.get(k)]
    problems += [
        f"{k.upper()}={v}: the {tier} tier does not read it." for k, v in given.items()
        if v and k not in NEEDS[tier]
    ]  # fmt: skip
    if trains and given.get("weights"):
        problems.append(f"WEIGHTS={given['weights']}: this profile trains weights of its own.")
    found = {k: Path(v).expanduser().resolve() for k, v in given.items() if v and k in NEEDS[tier]}
    problems += [f"{k.upper()}={v}: not found." for k, v in found.items() if not v.exists()]
    problems += [
        f"{k.upper()}={v}: a {'file' if k == 'data' else 'folder'}; expected a "
        f"{'folder' if k == 'data' else 'file'}."
        for k, v in found.items()
        if v.exists() and v.is_dir() != (k == "data")
    ]
    if found.get("weights") and found["weights"].suffix != ".safetensors":
        problems.append(
            f"WEIGHTS={given['weights']}: expected weights.safetensors. Convert an official checkpoint "
            "once: .venv/bin/merlin weights FILE.pt --text-folder FOLDER --out weights.safetensors"
        )
    if problems:
        wanted = " ".join(f"{k.upper()}=path" for k in needed) or "no files"
        raise ProfileError(f"The {tier} tier takes {wanted}.\n  " + "\n  ".join(problems))
    return {k: str(v) for k, v in found.items()}


OWN = "own.json"  # in runs/<profile>/: where the user's files lie


def bring(profile, own):
    """Note where the user's files lie, in a file that the workflow reads.

    So that no path of theirs goes through a command line, a configuration or a shell. The sizes and
    dates of what they hold stand beside: a changed table changes the file, and reruns what reads it.

    Parameters
    ----------
    profile : str
    own : dict of str to str
        From `own_files`.
    """
    seen, values = [], load_profile(profile)
    places = [Path(v) for v in own.values()]
    places += [Path(located(v)) for k in ("patients", "icd") if (v := values["01_dataset"].get(k))]
    for place in places:
        held = place.iterdir() if place.is_dir() else [place]
        files = [p for p in held if p.is_file() and (place.is_file() or p.suffix in _TABLES)]
        seen += [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(files)]
    text = json.dumps({"files": own, "seen": seen}, indent=1) + "\n"
    path = folder(profile) / OWN
    if not path.exists() or path.read_text() != text:
        with atomic(path) as stream:
            stream.write(text)


_TABLES = (".csv", ".tsv", ".xlsx", ".parquet")


def brought(profile):
    """What `bring` noted for a profile: `data`, `weights`, `embeddings` → path.

    Raises
    ------
    ProfileError
        If its tier reads the user's files and none are noted, or they are gone. Nothing is made or
        trained in their place.
    """
    values, path = load_profile(profile), ROOT / "runs" / profile / OWN
    if not NEEDS[values["tier"]]:
        return {}
    given = {}
    with suppress(ValueError, KeyError, OSError):  # half written, or none
        given = json.loads(path.read_text())["files"]
    return own_files(values["tier"], given, trains=trains(values))


def trains(values):
    """Whether a profile trains weights of its own."""
    return "02_pretraining" in values.get("notebooks", ())


def take(kind, profile, target):
    """Put the user's weights or embeddings in the place where the workflow expects its own."""
    path = brought(profile)[kind]
    if kind == "weights":
        command = [
            sys.executable,
            "-m",
            "merlin.cli",
            "weights",
            path,
            "--out",
            target,
            "--overwrite",
        ]
        return subprocess.run(command, check=False).returncode
    with atomic(target, "wb") as stream, Path(path).open("rb") as source:
        shutil.copyfileobj(source, stream)
    return 0


def cache_gb(values, own, base):
    """Disk that the model inputs of a user's own data will still take: 2 bytes a voxel."""
    if "data" not in own:
        return 0.0
    shape = values["02_pretraining"]["grid_shape"]
    if own.get("weights", "").endswith(".safetensors"):
        from safetensors import safe_open

        with safe_open(own["weights"], "numpy") as file:
            shape = (
                json.loads((file.metadata() or {}).get("metadata", "{}"))
                .get("grid", {})
                .get("shape", shape)
            )
    n = sum(p.name.endswith((".nii", ".nii.gz")) for p in Path(own["data"]).rglob("*"))
    there = sum(p.stat().st_size for p in (base / "cache").glob("*.safetensors"))
    return max(0.0, (2.0 * n * np.prod(shape) - there) / 1e9)


def figures(profile, cores, given=None):
    """Run the workflow of a profile, then publish its figures; returns an exit code.

    The lock ends with this process, however that ends: a killed run needs no unlocking.
    """
    values = load_profile(profile)
    own = own_files(values["tier"], given or {}, trains=trains(values))
    base = folder(profile)
    with (base / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.stderr.write(f"Another run of profile {profile} is going on in runs/{profile}/.\n")
            return 1
        if own:
            bring(profile, own)
        began = time.time()
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--nolock"]
        command += ["--rerun-incomplete", "--config", f"profile={profile}"]
        plan = subprocess.run(
            [*command, "--dry-run", "--quiet"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if plan.returncode:
            sys.stderr.write(plan.stdout + plan.stderr)
            return plan.returncode
        is_done = "Nothing to be done" in plan.stdout + plan.stderr
        if is_done:
            sys.stdout.write(f"Nothing to be done: runs/{profile}/ is up to date with the code.\n")
        else:
            e = values["expected"]
            # In the full tier the note says of which machine.
            note = shown(e.get("note") or "")
            two_cores = "" if values["tier"] == "full" else " on two cores"
            sys.stdout.write(
                f"Profile {profile}: about {e['minutes']} minutes{two_cores}, {e['memory_gb']} GB of "
                f"memory, {e['disk_gb']} GB of disk under runs/"
                f"{f' ({note})' if note else ''}. Interrupt at will: the next call "
                "resumes.\n"
            )
            free, cache = shutil.disk_usage(base).free / 1e9, cache_gb(values, own, base)
            if free < e["disk_gb"] + cache:
                more = f" and {cache:.1f} GB for the cache of your data" if cache else ""
                sys.stderr.write(
                    f"Only {free:.1f} GB of disk are free; this takes {e['disk_gb']} GB{more}. Free some "
                    "space first.\n"
                )
                return 1
            # The notebooks' kernels must be this environment's, and may use the cores they are given.
            env = os.environ | {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
            }
            # Large pages for large arrays, where glibc knows how: fewer page faults, same numbers.
            env.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
            # Quiet about the host too: its lines name machine and user, and a log is often sent on.
            code = _to_its_end([*command, "--quiet", "rules", "host"], env)
            if code:
                sys.stderr.write(
                    f"Stopped. Finished notebooks are kept; make figures PROFILE={profile} resumes.\n"
                )
                return code
        where = publish(profile)
        made = {p.name for p in where.glob("*.png")}
        first = next((f"{n}.png" for n in LOOK_FIRST if f"{n}.png" in made), "any")
        sys.stdout.write(
            f"{len(made)} figures in {where.relative_to(ROOT)}/ "
            f"(look first at {first}), executed notebooks and results in "
            f"runs/{profile}/. This took {(time.time() - began) / 60:.1f} minutes. To read it all as "
            f"pages: make site PROFILE={profile}\n"
        )
    return 0


def _to_its_end(command, env):
    """Run Snakemake and return its code; Ctrl-C reaches it too, and it gets the time to stop its jobs."""
    interrupted = []
    # A handler, not an exception: that may come between any two lines. Snakemake has its own.
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    try:
        code = subprocess.Popen(command, cwd=ROOT, env=env).wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return 130 if interrupted else code


def end_with_parent():
    """Let this worker process end when the one that started it is gone, even killed.

    The initializer of every `ProcessPoolExecutor` here: its workers hold both ends of their queue, so
    that they finish their job and then wait for ever, gigabytes in hand.
    """
    from multiprocessing import connection, parent_process
    from threading import Thread

    def watch(parent):
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, args=(parent_process(),), daemon=True).start()


def publish(profile):
    """Copy a default run's figures to `figures/` and its manifests to `data_manifests/`.

    `figures/` is committed and holds what the default profile gives, so that smaller runs leave it
    alone; theirs stay in `runs/<profile>/figures/`. Returns the folder to look into.
    """
    made = folder(profile) / "figures"
    if profile != "default":
        return made
    for source in sorted(made.glob("*.*")):
        if not source.name.startswith("own_"):  # a user's own scan is not ours to publish
            _copy_if_changed(source, ROOT / "figures" / source.name)
    for source in sorted((folder(profile) / "cohort").glob("phantom_*.csv")):
        _copy_if_changed(source, ROOT / "data_manifests" / source.name)
    return ROOT / "figures"


def _copy_if_changed(source, target):
    if not target.exists() or file_hash(source) != file_hash(target):
        with atomic(target, "wb") as stream:
            stream.write(source.read_bytes())


def main(argv=None):
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m merlin.run", description=__doc__.split("\n")[0]
    )
    parser.add_argument("action", choices=("explain", "keep", "check", "figures", "bring", "take"))
    parser.add_argument("name", help="an executed notebook, a profile, or (take) what to take")
    parser.add_argument("more", nargs="*", help=argparse.SUPPRESS)  # keep, take: the target
    parser.add_argument("--cores", type=int, default=2)
    for name in NEEDS["full"] + NEEDS["embeddings"]:
        parser.add_argument(f"--{name}", default="", help="of the full and embeddings tiers")
    args = parser.parse_args(argv)
    given = {k: getattr(args, k) for k in ("data", "weights", "embeddings")}
    try:
        if args.action == "explain":
            sys.stderr.write(explain(args.name) + "\n")
            return 1
        if args.action == "keep":
            keep(args.name, *args.more)
            return 0
        if args.action == "take":
            return take(args.name, *args.more)
        values = load_profile(args.name)
        if args.action == "bring":
            bring(args.name, own_files(values["tier"], given, trains=trains(values)))
        return figures(args.name, args.cores, given) if args.action == "figures" else 0
    except ProfileError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. The same command resumes.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
