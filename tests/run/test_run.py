"""Profiles, settings, files and provenance: what every notebook leans on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from merlin import run
from merlin.run import own, places, workflow
from merlin.run.__main__ import main

PROFILES = sorted(p.stem for p in run.PROFILES.glob("*.yaml"))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A checkout with two profiles; returns a function that writes one more."""
    folder = tmp_path / "notebooks" / "profiles"
    folder.mkdir(parents=True)
    monkeypatch.setattr(places, "ROOT", tmp_path)
    monkeypatch.setattr(places, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(places, "PROFILES", folder)
    default = {
        "tier": "phantom",
        "seed": 5,
        "cohort_seed": 4,
        "main_seeds": [1, 2],
        "expected": {"minutes": 1, "memory_gb": 1, "disk_gb": 0.0},
        "arms": {"main": {}, "tenth": {"train_fraction": 0.1}},
        "sweep": {
            "base": {"n_steps": 9},
            "seeds": [1, 2],
            "arms": {"reference": {}, "staged": {"seeds": [1, 2, 3], "n_steps": 7}},
            "sizes": [64, 128],
            "fixed_steps": 8,
        },
        "01_cohort": {"matrix": 76, "n_workers": 2},
        "01_dataset": {"folder": "", "patients": "", "icd": "", "weights": ""},
        "02_pretraining": {
            "train_fraction": 1.0,
            "n_steps": 1200,
            "text": "small",
            "batch_size": 16,
        },  # fmt: skip,
    }
    (folder / "default.yaml").write_text(yaml.safe_dump(default))

    def write(name, values):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))

    write("smoke", {"02_pretraining": {"n_steps": 100}})
    return write


# Profiles


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_with_every_key_of_the_default(name):
    default, profile = run.load_profile("default"), run.load_profile(name)
    assert profile["profile"] == name
    assert set(profile) == set(default)
    for section, values in default.items():
        if isinstance(values, dict) and section != "arms":
            assert set(profile[section]) == set(values)
    assert profile["tier"] in run.TIER_NOTES
    assert "main" in profile["arms"]


def test_profile_extends_the_default(tiny):
    profile = run.load_profile("smoke")
    assert profile["02_pretraining"] == {
        "train_fraction": 1.0, "n_steps": 100, "text": "small", "batch_size": 16,
    }  # fmt: skip
    assert profile["01_cohort"] == {"matrix": 76, "n_workers": 2}
    assert run.load_profile("default")["02_pretraining"]["n_steps"] == 1200


def test_unknown_profile_names_the_nearest_and_all(tiny):
    with pytest.raises(run.ProfileError) as caught:
        run.load_profile("smoek")
    text = str(caught.value)
    assert "No profile 'smoek' (nearest: smoke)." in text
    assert "Profiles are default, smoke, in notebooks/profiles/." in text


def test_every_unknown_key_is_told_with_its_nearest(tiny):
    tiny(
        "odd",
        {
            "sed": 3,
            "02_pretrainin": {"n_steps": 1},
            "02_pretraining": {"n_step": 1},
            "arms": {"main": {}, "half": {"train_fracton": 0.5}},
        },
    )
    with pytest.raises(run.ProfileError) as caught:
        run.load_profile("odd")
    text = str(caught.value)
    assert text.startswith("notebooks/profiles/odd.yaml: 4 problems\n")
    for line in (
        "sed: unknown (nearest: seed).",
        "02_pretrainin: unknown (nearest: 02_pretraining).",
        "02_pretraining.n_step: unknown (nearest: n_steps).",
        "arms.half.train_fracton: unknown (nearest: train_fraction).",
    ):
        assert f"\n  {line}" in text


def test_key_unlike_any_other_has_no_nearest(tiny):
    tiny("odd", {"zzz": 3})
    with pytest.raises(run.ProfileError, match=r"zzz: unknown\.$"):
        run.load_profile("odd")


@pytest.mark.parametrize("values", [{"02_pretraining": 5}, {"arms": None}])
def test_section_of_another_shape_is_a_profile_error(tiny, values):
    tiny("odd", values)
    with pytest.raises(run.ProfileError, match=next(iter(values))):
        run.load_profile("odd")


def test_unknown_tier_is_a_profile_error(tiny):
    tiny("odd", {"tier": "phantm"})
    with pytest.raises(run.ProfileError, match="phantom"):
        run.load_profile("odd")


# Settings


def test_profile_gives_what_the_notebook_leaves_at_none(tiny):
    s = run.settings("01_cohort", {"profile": "default", "matrix": None, "n_workers": None})
    assert vars(s) == {
        "profile": "default",
        "tier": "phantom",
        "seed": 5,
        "cohort_seed": 4,
        "main_seeds": [1, 2],
        "matrix": 76,
        "n_workers": 2,
    }


def test_notebook_value_beats_arm_beats_profile(tiny):
    scope = {"profile": "smoke", "arm": "tenth", "train_fraction": None, "n_steps": None}
    s = run.settings("02_pretraining", scope)
    assert (s.train_fraction, s.n_steps, s.arm) == (0.1, 100, "tenth")
    s = run.settings("02_pretraining", scope | {"train_fraction": 0.7})
    assert s.train_fraction == 0.7
    s = run.settings("02_pretraining", scope | {"arm": "main"})
    assert s.train_fraction == 1.0


def test_false_and_zero_are_values(tiny):
    s = run.settings("01_cohort", {"profile": "default", "n_workers": 0, "matrix": False})
    assert s.n_workers == 0
    assert s.matrix is False


def test_arm_changes_only_the_training(tiny):
    s = run.settings("01_cohort", {"profile": "default", "arm": "tenth"})
    assert s.arm == "tenth"
    assert not hasattr(s, "train_fraction")


def test_an_arm_of_the_sweep_trains_every_seed_and_a_run_of_it_one(tiny):
    scope = {"profile": "default", "arm": "main"}
    assert run.settings("02_pretraining", scope).trainings == {"main": 5}
    s = run.settings("02_pretraining", scope | {"arm": "staged"})  # with seeds of its own
    assert s.trainings == {"staged-1": 6, "staged-2": 7, "staged-3": 8}
    assert s.n_steps == 7
    assert not hasattr(s, "seeds")
    s = run.settings("02_pretraining", scope | {"arm": "reference-2"})
    assert s.trainings == {"reference-2": 7}
    s = run.settings("02_pretraining", scope | {"seed": 40})  # a seed that is given counts
    assert (s.seed, s.trainings) == (40, {"main": 40})


def test_the_main_arm_is_trained_with_each_of_its_seeds(tiny):
    assert run.main_runs(run.load_profile("default")) == {"main": 5, "main-1": 6, "main-2": 7}
    s = run.settings("02_pretraining", {"profile": "default", "arm": "main-2"})
    assert (s.trainings, s.arm, s.train_fraction) == ({"main-2": 7}, "main-2", 1.0)
    with pytest.raises(run.ProfileError, match="No arm 'main-3'"):
        run.settings("02_pretraining", {"profile": "default", "arm": "main-3"})


def test_another_seed_keeps_the_cohort_and_has_a_folder_of_its_own(tiny, tmp_path):
    """Test patients follow from `cohort_seed`, which a seed in the profile's name leaves alone."""
    plain, other = run.load_profile("smoke"), run.load_profile("smoke-seed70")
    changed = {k for k in plain if plain[k] != other[k]}
    assert changed == {"profile", "seed"}
    assert (other["seed"], other["cohort_seed"]) == (70, plain["cohort_seed"])
    assert run.main_runs(other) == {"main": 70, "main-1": 71, "main-2": 72}
    assert run.folder(other["profile"]) == tmp_path / "runs" / "smoke-seed70"
    for odd in ("smok-seed7", "smoke-seed", "smoke-seed07", "smoke-seed-1", "smoke-seed7e3"):
        with pytest.raises(run.ProfileError, match="No profile"):
            run.load_profile(odd)


def test_a_size_is_trained_once_through_its_studies_and_for_the_steps_of_all(tiny):
    sizes = run.scaling_sizes(run.load_profile("default"))
    assert sizes["every study once"] == {64: "once_64", 128: "once_128"}
    assert sizes["equal steps"] == {64: "steps_64", 128: "once_128"}  # the same run
    for name, steps in (("once_64", 4), ("steps_64", 8), ("once_128", 8)):
        s = run.settings("02_pretraining", {"profile": "default", "arm": name})
        assert (s.n_studies, s.n_steps) == (int(name.split("_")[1]), steps)
        assert s.trainings == {f"{name}-1": 6, f"{name}-2": 7}


def test_small_sizes_share_a_process_and_large_ones_have_their_own():
    sweep = {"sizes": [250, 1000, 4000, 500, 2000], "base": {"batch_size": 16}, "fixed_steps": 125}
    profile = {"sweep": sweep, "02_pretraining": {}}
    together = run.scaling_jobs(profile)
    assert together == [[4000], [2000], [1000, 500, 250]]
    names = [run.scaling_names(profile, sizes) for sizes in together]
    assert names[:2] == [["once_4000", "steps_4000"], ["once_2000"]]
    assert sorted(n for of in names for n in of) == sorted(run.scaling_arms(profile))


def test_unknown_arm_names_the_nearest(tiny):
    with pytest.raises(run.ProfileError, match=r"No arm 'tent' \(nearest: tenth\)"):
        run.settings("02_pretraining", {"profile": "default", "arm": "tent"})


def test_mistyped_parameter_names_the_nearest_and_lists_all(tiny):
    with pytest.raises(run.ProfileError) as caught:
        run.settings("02_pretraining", {"profile": "default", "n_step": 3, "txt": "x"})
    text = str(caught.value)
    assert "02_pretraining has no parameter 'n_step' (nearest: n_steps)" in text
    assert "'txt' (nearest: text)" in text
    known = "arm, batch_size, cohort_seed, main_seeds, n_steps, profile, seed, text, tier, train_fraction"
    assert f"Its parameters are {known}." in text


def test_modules_functions_and_ipythons_names_are_not_parameters(tiny):
    scope = {
        "profile": "default",
        "run": run,
        "np": np,
        "_": 1,
        "__name__": "x",
        "In": [],
        "f": len,
    }
    scope |= {"module": ModuleType("m"), "Out": {}, "Path": SimpleNamespace}
    assert run.settings("01_cohort", scope).matrix == 76


# Files


def test_missing_input_names_the_notebook_that_makes_it(tiny, tmp_path):
    path = tmp_path / "runs" / "default" / "manifest.csv"
    with pytest.raises(FileNotFoundError) as caught:
        run.upstream(path, "01_cohort")
    text = str(caught.value)
    assert text.startswith("runs/default/manifest.csv is missing.")
    assert "Run notebooks/01_cohort.ipynb first" in text
    path.parent.mkdir(parents=True)
    path.touch()
    assert run.upstream(path, "01_cohort") == path


def test_atomic_write_replaces_the_file(tmp_path):
    path = tmp_path / "deep" / "x.txt"
    for text in ("old", "new"):
        with run.atomic(path) as stream:
            stream.write(text)
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(error), run.atomic(path) as stream:  # noqa: PT012
        stream.write("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_old_file_is_whole_while_the_new_one_is_written(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with run.atomic(path, "wb") as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_tables_and_json_are_written_plainly(tmp_path):
    run.write_csv(tmp_path / "t.csv", pd.DataFrame({"a": [1, 2]}))
    assert (tmp_path / "t.csv").read_bytes() == b"a\n1\n2\n"
    value = {"b": np.float64(0.5), "a": np.arange(2), "c": tmp_path}
    run.write_json(tmp_path / "j.json", value)
    read = json.loads((tmp_path / "j.json").read_text())
    assert read == {"b": 0.5, "a": [0, 1], "c": str(tmp_path)}
    assert list(read) == ["b", "a", "c"]


def results(**changes):
    row = dict.fromkeys(run.RESULT_COLUMNS, 1) | {"status": "ok", "reason": ""} | changes
    return pd.DataFrame([row])


def test_results_are_written_with_the_common_columns_first(tiny, tmp_path):
    table = results().assign(wording="plain")
    table = table[["wording", *table.columns[:-1]]]
    predictions = pd.DataFrame({"study_id": ["a"], "score": [0.5]})
    path = run.write_results(SimpleNamespace(profile="smoke"), "x", table, predictions)
    assert path == tmp_path / "runs" / "smoke" / "results" / "x.csv"
    assert list(pd.read_csv(path).columns) == [*run.RESULT_COLUMNS, "wording"]
    back = pd.read_parquet(tmp_path / "runs" / "smoke" / "predictions" / "x.parquet")
    pd.testing.assert_frame_equal(back, predictions)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (results().drop(columns=["low", "n_patients"]), "results x: no column low, n_patients"),
        (results(status="skipped"), r"results x: status \['skipped'\]. Expected ok or not eval"),
    ],
)
def test_results_of_another_shape_are_refused_and_not_written(tiny, tmp_path, table, message):
    with pytest.raises(ValueError, match=message):
        run.write_results(SimpleNamespace(profile="smoke"), "x", table)
    assert not list(tmp_path.rglob("*.csv"))


# Code and provenance


@pytest.fixture
def package(tmp_path, monkeypatch):
    """merlin.a imports merlin.b.c, which imports merlin.d; merlin.e stands alone."""
    monkeypatch.setattr(places, "ROOT", tmp_path)
    (tmp_path / "merlin" / "b").mkdir(parents=True)
    files = {
        "merlin/__init__.py": "",
        "merlin/b/__init__.py": "",
        "merlin/a.py": "import os\nfrom merlin.b import c\n",
        "merlin/b/c.py": "def f():\n    import merlin.d\n",
        "merlin/d.py": "import numpy\nfrom merlin.a import x\n",
        "merlin/e.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def names(package, files):
    return {str(f.relative_to(package)) for f in files}


def test_transitive_and_late_imports_are_found_and_circles_end(package):
    found = names(package, run.imported_modules(package / "merlin" / "a.py"))
    assert {"merlin/b/c.py", "merlin/d.py"} <= found
    assert "merlin/e.py" not in found
    assert found <= {"merlin/a.py", "merlin/b/c.py", "merlin/b/__init__.py", "merlin/d.py",
                     "merlin/__init__.py"}  # fmt: skip


def test_imports_of_a_notebook_are_found_past_its_magics(package):
    cells = [
        {"cell_type": "markdown", "source": ["import merlin.e"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "!ls\n", "from merlin import d"]},
    ]
    path = package / "n.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    found = names(package, run.imported_modules(path))
    assert {"merlin/d.py", "merlin/a.py", "merlin/b/c.py"} <= found
    assert "merlin/e.py" not in found


def test_code_hash_follows_dependencies_and_nothing_else(package):
    before = run.code_hash("merlin.a")
    assert run.code_hash("merlin.a") == before
    (package / "merlin" / "e.py").write_text("x = 1\n")
    assert run.code_hash("merlin.a") == before
    (package / "merlin" / "d.py").write_text("x = 1\n")
    assert run.code_hash("merlin.a") != before


def test_phantom_hash_depends_on_what_paints_the_phantom():
    path = run.ROOT / "merlin" / "phantom" / "synthesis.py"
    found = {f.name for f in run.imported_modules(path)}
    assert {"anatomy.py", "render.py", "findings.py"} <= found


@given(st.lists(st.one_of(st.integers(), st.text(), st.floats(allow_nan=False)), max_size=4))
def test_fingerprint_is_sixteen_hex_digits_of_its_parts(parts):
    mark = run.fingerprint(*parts)
    assert len(mark) == 16
    assert int(mark, 16) >= 0
    assert mark == run.fingerprint(*parts)
    assert mark != run.fingerprint(*parts, "one more")


def test_fingerprint_ignores_key_order_only():
    assert run.fingerprint({"a": 1, "b": 2}) == run.fingerprint({"b": 2, "a": 1})
    assert run.fingerprint({"a": 1}) != run.fingerprint({"a": 2})
    assert run.fingerprint(np.arange(3)) != run.fingerprint(np.arange(4))


def test_captions_say_how_labels_were_mined(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "folder", lambda profile: tmp_path)
    settings = run.settings("01_cohort", {"profile": "smoke"})
    (tmp_path / "cohort").mkdir()
    plain = run.provenance(settings)["tier_note"]
    run.mark_mined(tmp_path / "cohort", "labels mined from text: precision 0.98")
    assert (
        run.provenance(settings)["tier_note"] == f"{plain}; labels mined from text: precision 0.98"
    )
    run.mark_mined(tmp_path / "cohort", "")
    assert run.provenance(settings)["tier_note"] == plain


def test_provenance_says_where_a_figure_came_from(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("a\n")
    settings = run.settings("01_cohort", {"profile": "smoke"})
    facts = run.provenance(settings, [path, run.ROOT / "pyproject.toml"], n={"studies": 3})
    assert set(facts) == {
        "tier", "tier_note", "profile", "seed", "parameters", "n", "inputs", "commit",
        "package", "versions", "python", "machine", "seconds",
    }  # fmt: skip
    assert facts["tier_note"] == "synthetic phantom cohort, not a clinical result"
    assert facts["seed"] == settings.seed
    assert facts["parameters"] == vars(settings)
    assert set(facts["inputs"]) == {"in.csv", "pyproject.toml"}
    assert facts["inputs"]["in.csv"] == run.file_hash(path)
    assert facts["versions"]["numpy"] == np.__version__
    text = json.dumps(facts)
    assert str(tmp_path) not in text
    assert str(run.ROOT) not in text


def test_files_are_as_open_as_the_umask_allows(tmp_path):
    code = "import sys; from merlin import run\nwith run.atomic(sys.argv[1]) as f: f.write('x')"
    words = [sys.executable, "-c", code, str(tmp_path / "x")]
    subprocess.run(["bash", "-c", 'umask 077; exec "$@"', "bash", *words], check=True)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_asking_for_settings_loads_nothing_heavy():
    heavy = ("torch", "matplotlib", "pandas", "snakemake")
    code = f"import sys, merlin.run; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Explaining failures


def code_cell(source, *outputs, tags=()):
    return {
        "cell_type": "code",
        "metadata": {"tags": list(tags)},
        "source": source,
        "outputs": list(outputs),
    }


ERROR = {
    "output_type": "error",
    "ename": "KeyError",
    "evalue": "'liver'",
    "traceback": ["frames", "line 1\n\nline 2\nKeyError: 'liver'"],
}


def executed(tmp_path, *cells):
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": list(cells)}))
    return path


def test_explain_names_the_cell_its_source_and_the_last_lines(tmp_path):
    path = executed(
        tmp_path,
        {"cell_type": "markdown", "metadata": {}, "source": ["# Title"]},
        code_cell(["a = 1"], {"output_type": "stream", "text": "x"}),
        code_cell(["# Failed below"], tags=["papermill-error-cell-tag"]),
        code_cell(["one = 1\n", "organs['liver']"], ERROR),
        code_cell(["never()"]),
    )
    text = run.explain(path)
    assert text.splitlines() == [
        "Code cell 2 failed with KeyError:",
        "    one = 1",
        "    organs['liver']",
        "line 1",
        "line 2",
        "KeyError: 'liver'",
        f"The executed copy is kept: {path}",
    ]


def test_explain_keeps_long_cells_and_traces_short(tmp_path):
    long = ERROR | {"traceback": ["\n".join(f"trace {i}" for i in range(50))]}
    path = executed(tmp_path, code_cell([f"x = {i}\n" for i in range(40)], long))
    lines = run.explain(path).splitlines()
    assert len(lines) < 22
    assert "    x = 39" in lines
    assert "trace 49" in lines


def test_explain_of_an_interrupted_notebook_says_so(tmp_path):
    path = executed(tmp_path, code_cell(["a = 1"]))
    assert f"No failed cell in {path}: it was interrupted" in run.explain(path)


def test_explain_survives_an_error_without_traceback(tmp_path):
    path = executed(tmp_path, code_cell(["a"], ERROR | {"traceback": []}))
    assert "KeyError" in run.explain(path)


def test_explain_steers_no_terminal(tmp_path):
    """Colours are taken off; what else a stranger's name could do is escaped."""
    error = ERROR | {"traceback": ["\x1b[31mKeyError\x1b[0m: a\x1b]0;PWNED\x07\x1b[2J\u202eb"]}
    text = run.explain(executed(tmp_path, code_cell(["a"], error)))
    assert r"KeyError: a\x1b]0;PWNED\x07\x1b[2J\u202eb" in text
    assert all(line.isprintable() for line in text.split("\n"))


# Command line and publishing


def test_check_returns_0_for_a_good_and_2_for_a_bad_profile(tiny, capsys):
    assert main(["check", "smoke"]) == 0
    assert main(["check", "smok"]) == 2
    assert "nearest: smoke" in capsys.readouterr().err


def test_explain_command_writes_to_stderr_and_returns_1(tmp_path, capsys):
    path = executed(tmp_path, code_cell(["a"], ERROR))
    assert main(["explain", str(path)]) == 1
    assert "Code cell 1 failed with KeyError" in capsys.readouterr().err


def test_only_the_default_profile_is_published(tiny, tmp_path):
    for profile in ("default", "smoke"):
        made = tmp_path / "runs" / profile
        (made / "figures").mkdir(parents=True)
        (made / "cohort").mkdir()
        (made / "figures" / f"{profile}.png").write_bytes(b"png")
        (made / "cohort" / f"phantom_{profile}.csv").write_text("a\n")
    assert run.publish("smoke") == tmp_path / "runs" / "smoke" / "figures"
    assert not (tmp_path / "figures").exists()
    assert run.publish("default") == tmp_path / "figures"
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["default.png"]
    assert [p.name for p in (tmp_path / "data_manifests").iterdir()] == ["phantom_default.csv"]


def test_publishing_twice_leaves_unchanged_files_alone(tiny, tmp_path):
    source = tmp_path / "runs" / "default" / "figures" / "a.png"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"one")
    run.publish("default")
    target = tmp_path / "figures" / "a.png"
    first = target.stat().st_mtime_ns
    run.publish("default")
    assert target.stat().st_mtime_ns == first
    source.write_bytes(b"two")
    run.publish("default")
    assert target.read_bytes() == b"two"


def test_published_tables_say_their_tier_in_a_last_column_and_are_else_as_they_were(tiny, tmp_path):
    source = tmp_path / "runs" / "default" / "figures" / "a.csv"
    source.parent.mkdir(parents=True)
    source.write_text('name,value\n"two\nlines, one cell",0.10\n,1e-05\n')
    run.publish("default")
    target = tmp_path / "figures" / "a.csv"
    said = 'name,value,tier\n"two\nlines, one cell",0.10,phantom\n,1e-05,phantom\n'
    assert target.read_text() == said
    first = target.stat().st_mtime_ns
    run.publish("default")
    assert target.stat().st_mtime_ns == first
    assert workflow.with_tier(said, "phantom") == said


def test_second_run_of_a_profile_is_refused_while_the_first_goes_on(tiny, tmp_path, capsys):
    import fcntl

    base = tmp_path / "runs" / "smoke"
    base.mkdir(parents=True)
    with (base / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run.figures("smoke", 1) == 1
    assert "Another run of profile smoke is going on" in capsys.readouterr().err


def test_figures_runs_snakemake_of_this_environment(tiny, monkeypatch, capsys):
    """One dry run, then the run; the failing one's code comes back with the way to resume."""
    calls = []

    def fake(command, *_, **options):
        calls.append(command)
        return SimpleNamespace(returncode=0, stdout="3 jobs", stderr="")

    monkeypatch.setattr(workflow.subprocess, "run", fake)
    monkeypatch.setattr(workflow, "to_its_end", lambda *a, **k: fake(*a) and 3)
    assert run.figures("smoke", 2) == 3
    plan, real = calls
    assert "--dry-run" in plan
    assert plan[:3] == real[:3] == [sys.executable, "-m", "snakemake"]
    assert "profile=smoke" in real
    assert "make figures PROFILE=smoke resumes" in capsys.readouterr().err


def test_ctrl_c_lets_running_jobs_stop_and_says_so_by_its_code(tmp_path):
    """The keyboard's signal reaches parent and child alike; the child takes a second to tidy up."""
    child = (
        "import signal, sys, time; from pathlib import Path\n"
        "def tidy(*_):\n"
        f"    time.sleep(1); Path({str(tmp_path / 'tidied')!r}).touch(); sys.exit(1)\n"
        "signal.signal(signal.SIGINT, tidy)\n"
        f"Path({str(tmp_path / 'ready')!r}).touch(); time.sleep(60)\n"
    )
    parent = (
        "import os, sys; from merlin.run import processes\n"
        f"sys.exit(processes.to_its_end([sys.executable, '-c', {child!r}], dict(os.environ)))\n"
    )
    command = [sys.executable, "-c", parent]
    running = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
    while not (tmp_path / "ready").exists() and running.poll() is None:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=300)[1].decode()
    assert running.returncode == 130
    assert (tmp_path / "tidied").exists()
    assert "Traceback" not in said


def test_ctrl_c_before_the_workflow_runs_ends_with_the_same_code(tiny, monkeypatch, capsys):
    """In the dry run, in the check of the disk, in publishing: wherever it comes."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for module, place in ((workflow, "load_profile"), (places, "folder"), (workflow, "publish")):
        with monkeypatch.context() as patch:
            patch.setattr(workflow.subprocess, "run", lambda *a, **k: SimpleNamespace(
                returncode=0, stdout="Nothing to be done", stderr=""))  # fmt: skip
            patch.setattr(module, place, interrupted)
            assert main(["figures", "smoke"]) == 130
        assert "same command resumes" in capsys.readouterr().err


def test_a_users_own_data_need_room_for_their_cache(tmp_path):
    values = {"02_pretraining": {"grid_shape": [100, 100, 100]}}
    data = tmp_path / "data"
    (data / "nested").mkdir(parents=True)
    for name in ("a.nii.gz", "nested/b.nii", "reports.csv"):
        (data / name).write_bytes(b"")
    given = {"data": str(data)}
    assert own.cache_gb(values, given, tmp_path / "runs") == pytest.approx(2 * 2e6 / 1e9)
    assert own.cache_gb(values, {}, tmp_path / "runs") == 0
    cache = tmp_path / "runs" / "cache"
    cache.mkdir(parents=True)
    (cache / "x.safetensors").write_bytes(b"0" * 1_000_000)
    assert own.cache_gb(values, given, tmp_path / "runs") == pytest.approx(3e6 / 1e9)


def test_what_the_user_brings_is_held_to_what_the_tier_reads(tmp_path):
    (tmp_path / "w.safetensors").write_text("")
    (tmp_path / "official.pt").write_text("")
    given = {"data": "", "weights": str(tmp_path / "w.safetensors"), "embeddings": ""}
    with pytest.raises(run.ProfileError, match="DATA=… is missing"):
        run.own_files("full", given)
    with pytest.raises(run.ProfileError, match="the phantom tier does not read it"):
        run.own_files("phantom", given)
    with pytest.raises(run.ProfileError, match="trains weights of its own"):
        run.own_files("full", given | {"data": str(tmp_path)}, trains=True)
    with pytest.raises(run.ProfileError, match="not found"):
        run.own_files("embeddings", {"embeddings": str(tmp_path / "x.npz")})
    with pytest.raises(run.ProfileError, match=r"merlin weights FILE\.pt"):
        run.own_files("full", {"data": str(tmp_path), "weights": str(tmp_path / "official.pt")})
    assert set(run.own_files("full", given | {"data": str(tmp_path)})) == {"data", "weights"}


@pytest.mark.parametrize(
    "name", ["a #b", "a: b", "- a", "'a' \"b\"", "{a}", "$(x) `y`;", "é 山田", "~a"]
)
def test_the_users_paths_come_back_as_they_were_given(tiny, tmp_path, name):
    tiny("mine", {"tier": "embeddings"})
    with pytest.raises(run.ProfileError, match="EMBEDDINGS=… is missing"):
        run.brought("mine")
    own = tmp_path / name
    own.write_bytes(b"x")
    run.bring("mine", run.own_files("embeddings", {"embeddings": str(own)}))
    assert run.brought("mine") == {"embeddings": str(own)}
    note = tmp_path / "runs" / "mine" / run.OWN
    before = note.stat().st_mtime_ns
    run.bring("mine", run.brought("mine"))
    assert note.stat().st_mtime_ns == before  # nothing reruns
    own.write_bytes(b"longer")
    run.bring("mine", run.brought("mine"))
    assert note.stat().st_mtime_ns != before
    assert run.take("embeddings", "mine", tmp_path / "taken") == 0
    assert (tmp_path / "taken").read_bytes() == b"longer"
    assert run.brought("smoke") == {}
    note.write_text('{"files": ')  # half written
    with pytest.raises(run.ProfileError, match="EMBEDDINGS=… is missing"):
        run.brought("mine")
    with pytest.raises(run.ProfileError, match="a folder; expected a file"):
        run.own_files("embeddings", {"embeddings": str(tmp_path)})


def test_a_changed_code_or_scan_is_another_cohort(tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("study_id,volume\nA,a.nii\n")
    marks = [run.cohort_hash(manifest)]
    (tmp_path / "codes.csv").write_text("study_id,code\n")
    marks.append(run.cohort_hash(manifest))
    (tmp_path / "a.nii").write_bytes(b"1")
    marks.append(run.cohort_hash(manifest))
    (tmp_path / "b.nii").write_bytes(b"no part of it")
    marks.append(run.cohort_hash(manifest))
    assert len(set(marks)) == 3
    assert marks[2] == marks[3]


def test_a_table_that_code_reads_is_in_its_hash_and_others_are_not(package):
    (package / "merlin" / "d.py").write_text("HERE = 'words.yaml'\n")
    for name in ("words.yaml", "others.yaml"):
        (package / "merlin" / "b" / name).write_text("a: 1\n")
    before = run.code_hash("merlin.a")
    (package / "merlin" / "b" / "others.yaml").write_text("a: 2\n")
    assert run.code_hash("merlin.a") == before
    (package / "merlin" / "b" / "words.yaml").write_text("a: 2\n")
    assert run.code_hash("merlin.a") != before


def test_names_of_profiles_and_arms_are_plain_words(tiny):
    tiny("odd", {"arms": {"main": {}, "a; touch x": {}}})
    with pytest.raises(run.ProfileError, match="names of arms"):
        run.load_profile("odd")
    with pytest.raises(run.ProfileError, match="No profile"):
        run.load_profile("../profiles/smoke")
    with pytest.raises(run.ProfileError, match="No profile"):
        run.load_profile("a" * 300)


def test_compiled_functions_work_where_nothing_may_be_kept(monkeypatch):
    import numba

    from merlin import compiled

    plain = numba.njit

    def refusing(*words, cache=False, **options):
        if cache:
            return lambda f: (_ for _ in ()).throw(RuntimeError("cannot cache function"))
        return plain(*words, **options)

    monkeypatch.setattr(compiled.numba, "njit", refusing)
    assert compiled.njit()(lambda x: x + 1)(1) == 2


def test_every_figure_of_a_notebook_is_shown_not_the_first_alone(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    draw = (
        "from merlin.figures import style\n"
        "def draw(tables, facts):\n"
        "    figure, axes = style.new_figure(89, 40, mosaic=[['a']])\n"
        "    axes['a'].plot([0, 1])\n"
        "    return figure\n"
    )
    import_cell = nbformat.v4.new_code_cell("import pandas as pd\n" + draw)
    cells = [
        nbformat.v4.new_code_cell(
            f"style.save_figure({str(tmp_path)!r}, 'f{i}', {{'': pd.DataFrame({{'x': [1]}})}}, "
            "{'n': {'points': 2}, 'tier_note': 'toy', 'profile': 'p', 'seed': 1}, draw);"
        )
        for i in range(2)
    ]
    notebook = nbformat.v4.new_notebook(cells=[import_cell, *cells])
    outside = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}  # as a notebook finds it
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(env=outside)
    for cell in notebook.cells[1:]:
        assert sum("image/png" in o.get("data", {}) for o in cell.outputs) == 1


def test_a_footer_says_whether_patients_are_known():
    studies = ["a", "b", "c"]
    assert run.counts(["p", "p", "q"], studies, "test studies") == {
        "patients": 2,
        "test studies": 3,
    }
    assert run.counts(studies, studies, "test studies") == {"test studies, patients unknown": 3}
    assert (run.unit(["p", "p", "q"], studies), run.unit(studies, studies)) == (
        "patients",
        "studies",
    )


ORPHAN = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from merlin import run
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), run.end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 60)
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc")
def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        assert is_alive(worker)
        parent.kill()
    for _ in range(100):
        if not is_alive(worker):
            return
        time.sleep(0.1)
    os.kill(worker, 9)
    raise AssertionError("the worker outlived its parent by ten seconds")


def is_alive(pid):
    """Whether a process runs; one that ended and that nobody has asked about does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_what_a_run_found_is_the_last_reading_of_its_overview(tmp_path):
    cells = [
        {"outputs": [{"data": {"text/markdown": f"**Reading.** {said}"}}, {"text": "x"}]}
        for said in ("first", "one\n\ntwo \x1b[31m")
    ]
    path = tmp_path / "11_summary.ipynb"
    path.write_text(json.dumps({"cells": [*cells, {"source": "no outputs"}]}))
    assert workflow.reading(path) == "one\n\ntwo \\x1b[31m"
    assert workflow.reading(tmp_path / "none.ipynb") == ""
