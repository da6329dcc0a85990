"""What *Try this* suggests works, at smoke size, in a copy of the project with a profile of its own.

Takes minutes; needs `make figures PROFILE=smoke`. Values in a test are smoke's where the notebook's are
meant for the default profile. Not here: a scan, a release or a claim of the reader's own.
"""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml

from merlin import run

pytestmark = pytest.mark.browser
PARAMETERS = {
    "00_start_here": [{"study": 5}, {"matrix": 76}],
    "01_cohort": [{"n_patients": {"internal": 40}}, {"n_workers": 0}],
    "01_dataset": [{"n_studies": 40}],
    "02_pretraining": [
        {"supervision": "reports"}, {"report_splitting": False}, {"learning_rate": 1e-5},
    ],
    "03_embeddings": [{"arm": "tenth"}],
    "04_zero_shot_findings": [
        {"threshold": "validation"}, {"scoring": "normalised_mean"}, {"n_resamples": 50},
    ],
    "05_phenotypes": [{"min_positive": 10}, {"n_resamples": 50}],
    "06_retrieval": [{"pools": [8, 16], "headline_pool": 16}],
    "07_external": [{"min_positive": 5}],
    "08_five_year": [{"n_resamples": 50}],
    "09_report_generation": [{"n_resamples": 50}],
    "10_segmentation": [{"n_resamples": 50}],
    "13_scaling_laws": [{"n_fits": 10}],
    "14_intervals": [{"n_patients": 40}],
    "15_protocol_sensitivity": [{"n_draws": 1, "seed": 1}, {"headline_pool": 16}],
    "20_encoders": [{"negatives": 3}, {"n_draws": 2}],
    "17_ideas": [{"n_pairs": 256}, {"n_patients": 30}, {"noise": 0.0}],
    "18_causes": [{"n_resamples": 50}],
}  # fmt: skip
CASES = [(name, change) for name, changes in PARAMETERS.items() for change in changes]
# Notebook, what stands in one of its cells, what to write instead, what an output then says.
EDITS = [
    ("00_start_here", "matrix=0, grid=grid)", "matrix=0, grid=grid, without=tuple(scan.found))", ""),
    ("01_dataset", "patients=owners)", "patients=None)", "studies are the unit"),
    ("03_embeddings", 'example = "ascites"', 'example = "appendicitis"', ""),
    ("14_intervals", "n_patients=settings.n_patients),", "n_patients=settings.n_patients, shared=0.0),", ""),
]  # fmt: skip
# What trains or writes again, by the profile's section.
TRAINED_AGAIN = [
    ("08_five_year", {"fractions": [0.2, 0.3]}), ("08_five_year", {"learning_rates": [0.0]}),
    ("09_report_generation", {"repetition_penalty": 1.2}), ("09_report_generation", {"lora_rank": 16}),
    ("10_segmentation", {"fractions": [0.2, 1.0]}), ("10_segmentation", {"overlap": 0.0}),
    ("18_causes", {"years": 40}),
]  # fmt: skip
SWEEPS = {
    "arm": {"arms": {"reference": {}, "whole_reports": {"report_splitting": False},
                     "no_windows": {"windows": "none"}}},
    "seed": {"seeds": [1, 2]},
    "size": {"sizes": [0.25, 0.5]},
}  # fmt: skip
ALONE = ("00_start_here", "01_cohort", "14_intervals", "17_ideas")  # read no other notebook's files
NEEDY = [p.stem for p in sorted(run.NOTEBOOKS.glob("*.ipynb")) if p.stem not in ALONE]
NEW = {"arm": "no_windows-1", "seed": "reference-2", "size": "size_0.25-1"}


@pytest.fixture(scope="module")
def companion(tmp_path_factory):
    """A copy of the project in which profile `mine` is smoke's, and has been run."""
    if not (run.ROOT / "runs" / "smoke" / "16_claims.ipynb").exists():
        pytest.skip("the smoke profile has not been run: make figures PROFILE=smoke")
    root = tmp_path_factory.mktemp("tries") / "companion"
    root.mkdir()
    for name in ("merlin", "notebooks", "data_manifests"):
        shutil.copytree(
            run.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_*")
        )
    shutil.copy2(run.ROOT / "Snakefile", root)
    for path in root.rglob(
        "*"
    ):  # older than what was run: code that was edited since reruns nothing
        os.utime(path, (0, 0))
    profiles = root / "notebooks" / "profiles"
    shutil.copyfile(profiles / "smoke.yaml", profiles / "mine.yaml")
    shutil.copytree(run.ROOT / "runs" / "smoke", root / "runs" / "mine")
    yield root
    shutil.rmtree(root)


def call(root, *command):
    """Run a Python module in the copy; returns the finished process."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=root, capture_output=True, text=True,
        timeout=900, check=False, env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip


def execute(root, notebook, out, **parameters):
    """papermill by hand, as the README has it; returns the finished process."""
    words = yaml.safe_dump({"profile": "mine", **parameters})
    return call(root, "papermill", notebook, out, "--cwd", root / "notebooks", "--no-progress-bar",
                "--log-level", "ERROR", "-y", words)  # fmt: skip


def said(path):
    """All text that an executed notebook shows."""
    cells = nbformat.read(path, as_version=4).cells
    outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
    return "\n".join(str(o.get("text", "")) + str(o.get("data", "")) for o in outputs)


@pytest.mark.parametrize(("name", "change"), CASES, ids=[f"{n}-{'-'.join(c)}" for n, c in CASES])
def test_another_parameter_works(companion, name, change, tmp_path):
    out = tmp_path / "out.ipynb"
    done = execute(companion, companion / "notebooks" / f"{name}.ipynb", out, **change)
    assert done.returncode == 0, run.explain(out)


@pytest.mark.parametrize(("name", "old", "new", "expected"), EDITS, ids=[e[0] for e in EDITS])
def test_an_edited_cell_works(companion, name, old, new, expected, tmp_path):
    notebook = nbformat.read(companion / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = [c for c in notebook.cells if c.cell_type == "code" and old in c.source]
    assert len(cells) == 1
    cells[0].source = cells[0].source.replace(old, new)
    nbformat.write(notebook, tmp_path / "edited.ipynb")
    out = tmp_path / "out.ipynb"
    done = execute(companion, tmp_path / "edited.ipynb", out)
    assert done.returncode == 0, run.explain(out)
    assert expected in said(out)


def test_a_scan_of_ones_own_joins_the_phantoms_and_is_never_published(companion, tmp_path):
    scan = next((companion / "runs" / "mine" / "cohort" / "volumes").glob("*.nii.gz"))
    out = tmp_path / "out.ipynb"
    done = execute(companion, companion / "notebooks" / "01_cohort.ipynb", out, real_ct=str(scan))
    assert done.returncode == 0, run.explain(out)
    assert (companion / "runs" / "mine" / "figures" / "own_ct.png").exists()


def test_a_missing_table_is_answered_by_the_notebook_that_makes_it(companion, tmp_path):
    table = companion / "runs" / "mine" / "results" / "retrieval.csv"
    away = table.rename(table.with_suffix(".away"))
    out = tmp_path / "out.ipynb"
    done = execute(companion, companion / "notebooks" / "11_summary.ipynb", out)
    away.rename(table)
    assert done.returncode != 0
    assert "Run notebooks/06_retrieval.ipynb first" in done.stderr
    done = execute(companion, companion / "notebooks" / "11_summary.ipynb", out)
    assert done.returncode == 0, run.explain(out)


def test_a_claim_without_its_source_is_named(companion, tmp_path):
    claims = companion / "data_manifests" / "claims.yaml"
    text = claims.read_text()
    entries = yaml.safe_load(text)
    entry = next(e for e in entries if e["value"] is not None)
    del entry["source"]
    claims.write_text(yaml.safe_dump(entries))
    out = tmp_path / "out.ipynb"
    done = execute(companion, companion / "notebooks" / "16_claims.ipynb", out)
    claims.write_text(text)
    assert done.returncode != 0
    assert entry["id"] in done.stderr
    assert "source" in done.stderr


def pretraining_log(folder):
    """Its lines hold the seconds of each step, so a run that trained again has others."""
    return (folder / "log.csv").read_text().splitlines()


@pytest.mark.parametrize("kind", SWEEPS)
def test_a_larger_sweep_trains_the_new_runs_alone(companion, kind):
    profile = companion / "notebooks" / "profiles" / "mine.yaml"
    text, made = profile.read_text(), companion / "runs" / "mine" / "pretraining"
    settings = yaml.safe_load(text)
    settings["sweep"] |= SWEEPS[kind]
    profile.write_text(yaml.safe_dump(settings))
    before = pretraining_log(made / "reference-1")
    done = call(companion, "merlin.run", "figures", "mine", "--cores", "2")
    profile.write_text(text)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (made / NEW[kind] / "weights.safetensors").exists()
    assert pretraining_log(made / "reference-1") == before
    assert re.search(r"\d+ figures in", done.stdout)


@pytest.mark.parametrize(
    ("name", "change"), TRAINED_AGAIN, ids=[f"{n}-{'-'.join(c)}" for n, c in TRAINED_AGAIN]
)
def test_a_changed_section_of_the_profile_trains_again(companion, name, change, tmp_path):
    profile, notebook = companion / "notebooks" / "profiles" / "mine.yaml", f"{name}.ipynb"
    text = profile.read_text()
    settings = yaml.safe_load(text)
    settings[name] |= change
    profile.write_text(yaml.safe_dump(settings))
    by_hand = execute(companion, companion / "notebooks" / notebook, tmp_path / "out.ipynb")
    done = call(companion, "snakemake", "--cores", "2", "--config", "profile=mine", "--",
                f"runs/mine/{notebook}")  # fmt: skip
    profile.write_text(text)
    assert re.search(r"python -m merlin\.jobs\.\w+ mine \w+", by_hand.stderr), by_hand.stderr[
        -1500:
    ]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("name", NEEDY)
def test_out_of_order_a_notebook_names_what_to_run_first(companion, name, tmp_path):
    profiles = companion / "notebooks" / "profiles"
    shutil.copyfile(
        profiles / "smoke.yaml", profiles / "fresh.yaml"
    )  # nothing has been run under it
    notebook = companion / "notebooks" / f"{name}.ipynb"
    done = execute(companion, notebook, tmp_path / "out.ipynb", profile="fresh")
    assert done.returncode != 0
    assert re.search(r"Run notebooks/\w+\.ipynb first", done.stderr), done.stderr[-1500:]
