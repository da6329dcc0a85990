"""What *Try this* suggests works, at smoke size: each is run by papermill in a profile of its own.

Suggestions that edit a cell are not here. Takes minutes; needs `make figures PROFILE=smoke`.
"""

import shutil
import subprocess
import sys

import pytest
import yaml

from merlin import run

pytestmark = pytest.mark.browser
TRIES = {
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
    "06_retrieval": [
        {"representation": "whole"}, {"pools": [8, 16], "headline_pool": 16},
    ],
    "07_external": [{"min_positive": 5}, {"representation": "whole"}],
    "08_five_year": [{"fractions": [0.2, 0.3]}, {"learning_rate": 0.0}, {"probe_c": 1.0}],
    "09_report_generation": [{"repetition_penalty": 1.2}, {"lora_rank": 16}],
    "10_segmentation": [{"overlap": 0.0}],
    "13_scaling_laws": [{"n_fits": 10}],
    "14_intervals": [{"n_patients": 40}],
    "15_protocol_sensitivity": [{"n_draws": 1, "seed": 1}, {"headline_pool": 16}],
    "17_ideas": [{"n_pairs": 256}, {"n_patients": 30}, {"noise": 0.0}],
}  # fmt: skip
CASES = [(name, change) for name, changes in TRIES.items() for change in changes]


@pytest.fixture(scope="module")
def profile():
    """A copy of the smoke profile and of what it made, removed afterwards."""
    made = run.ROOT / "runs" / "smoke"
    if not (made / "16_claims.ipynb").exists():
        pytest.skip("the smoke profile has not been run: make figures PROFILE=smoke")
    name = "tries_of_a_test"
    settings, copy = run.PROFILES / f"{name}.yaml", run.ROOT / "runs" / name
    shutil.copyfile(run.PROFILES / "smoke.yaml", settings)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(made, copy)
    yield name
    settings.unlink()
    shutil.rmtree(copy)


@pytest.mark.parametrize(("name", "change"), CASES, ids=[f"{n}-{'-'.join(c)}" for n, c in CASES])
def test_it_works(profile, name, change, tmp_path):
    out = tmp_path / "out.ipynb"
    words = yaml.safe_dump({"profile": profile, **change})
    command = [sys.executable, "-m", "papermill", str(run.NOTEBOOKS / f"{name}.ipynb"), str(out)]
    command += [
        "--cwd",
        str(run.NOTEBOOKS),
        "--no-progress-bar",
        "--log-level",
        "ERROR",
        "-y",
        words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, run.explain(out)
