"""Profiles of the full tier that train, end to end on a look-alike of the release at a small size.

Their files as they are but for what costs time: grid, network, steps. `full` and `verse` run in
test_full_tier.
"""

import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from test_full_tier import GRID, copied, look_alike, weights

from merlin.data.manifest import FIVE_YEAR, load_manifest
from merlin.readers.release import FIVE_YEARS
from merlin.vocabulary import DISEASES

pytestmark = pytest.mark.profiles

SMALL = {
    "paper": {
        "02_pretraining": dict(
            n_steps=4, batch_size=4, depth=14, width=8, spacing_mm=list(GRID.spacing_mm),
            grid_shape=list(GRID.shape), text="small", text_hidden=32, max_length=64, n_threads=1,
            save_every=2, evaluate_every=2, precision="fp32", from_random=True,
        ),
        "03_embeddings": {},
    },
    "five_year": {
        "08_five_year": dict(
            n_steps=[2, 3], fractions=[0.5, 1.0], batch_size=4, chunk=2, save_every=1, n_threads=1,
            min_events=1, n_resamples=20,
        )
    },
}  # fmt: skip
PROMPTS = "finding,present,absent\nascites,large ascites,no ascites\nfracture,wedge fracture,no fracture\n"


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A look-alike and small weights, shared by all profiles."""
    folder = tmp_path_factory.mktemp("release")
    data, _ = look_alike(folder)
    studies = load_manifest(folder / "cohort" / "manifest.csv")
    labels = studies[["study_id", *FIVE_YEAR]].dropna()  # of all splits: something is to be learnt
    labels.columns = ["study_id", *DISEASES]
    labels.astype(dict.fromkeys(DISEASES, int)).to_csv(data / FIVE_YEARS, index=False)
    return data, weights(folder / "weights.safetensors")


def made(name, release, tmp_path):
    """The finished run of a profile of that name, made small."""
    root = copied(tmp_path)
    path = root / "notebooks" / "profiles" / f"{name}.yaml"
    profile = yaml.safe_load(path.read_text())
    for part, changes in SMALL[name].items():
        profile[part] = profile.get(part, {}) | changes
    profile["01_dataset"]["n_workers"] = 2
    if name == "paper":
        (tmp_path / "authors.csv").write_text(PROMPTS)
        profile["03_embeddings"]["prompts"] = str(tmp_path / "authors.csv")
    path.write_text(yaml.safe_dump(profile))
    data, given = release
    command = [sys.executable, "-m", "merlin.run", "figures", name, "--data", str(data)]
    command += [] if name == "paper" else ["--weights", str(given)]
    env = os.environ | {"PYTHONPATH": str(root)}
    run = subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, timeout=1500, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-6000:]
    return root / "runs" / name, run.stdout + run.stderr


def test_five_year_trains_from_given_and_random_weights(release, tmp_path):
    base, _ = made("five_year", release, tmp_path)
    results = pd.read_csv(base / "results" / "five_year.csv")
    assert {"merlin", "random"} <= set(results["start"])
    assert "ehr" not in set(results["start"])  # the release has no codes
    assert results.loc[results["start"] == "merlin", "value"].notna().any()
    assert (base / "five_year" / "weights.safetensors").exists()
    assert not list((base / "five_year").glob("*.pt"))
    assert (base / "figures" / "five_year.png").stat().st_size > 10_000


def test_paper_trains_and_is_asked_with_the_prompts_given(release, tmp_path):
    base, _ = made("paper", release, tmp_path)
    scores = pd.read_csv(base / "results" / "zero_shot_findings.csv")
    assert set(scores.loc[scores["model"] == "main", "label"]) == {"ascites", "fracture", "macro"}
    log = pd.read_csv(base / "pretraining" / "main" / "log.csv")
    assert log["logit_scale"][0] == pytest.approx(2.718, abs=0.01)
    assert (base / "figures" / "retrieval.png").stat().st_size > 10_000
