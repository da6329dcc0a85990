"""The full tier end to end, on a phantom cohort in the release's layout with planted damages.

The package is copied, so that a user's own runs/full/ is left alone.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from merlin import cli
from merlin.data import manifest
from merlin.data.preprocess import Grid
from merlin.model.i3d import ImageConfig
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.phantom import build
from merlin.readers import look_alike
from merlin.training.checkpoint import save_weights

HERE = Path(__file__).parents[2]
GRID = Grid((9.0, 9.0, 12.0), (40, 32, 40))


def copied(folder):
    """The project without its runs."""
    root = folder / "companion"
    root.mkdir()
    for name in ("merlin", "notebooks"):
        shutil.copytree(HERE / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "Snakefile", root)
    return root


def look_alike(folder, n_patients=46):
    """A damaged release of phantoms, and its patients' table."""
    jobs = build.plan("internal", n_patients, seed=5, matrix=48, folder=folder / "cohort")
    table, _, _ = build.build_cohort(jobs, n_workers=0)
    table.to_csv(folder / "cohort" / "manifest.csv", index=False)
    studies = manifest.load_manifest(folder / "cohort" / "manifest.csv")
    data = look_alike.write_release(studies, folder / "my data")  # a path with a space
    return data, look_alike.plant_defects(data)


def weights(path):
    """A small model in the paper's form (inflated stem, mean pooling), random weights."""
    torch.manual_seed(0)
    image = ImageConfig(depth=14, width=8, n_phecodes=4)
    model = TwoTowers(TowersConfig(image, TextConfig(kind="small", hidden_size=32), GRID.shape))
    grid = dict(spacing_mm=GRID.spacing_mm, shape=GRID.shape, hu_window=GRID.hu_window)
    facts = dict(grid=grid, phecodes=["250", "401", "411", "585"], model="main", tier="full")
    save_weights(path, model, facts)
    return path


@pytest.fixture(scope="module")
def verse(tmp_path_factory):
    """A run on folders as VerSe's, begun beside the other test's: both wait for their notebooks in turn."""
    folder = tmp_path_factory.mktemp("verse")
    root = copied(folder)
    jobs = build.plan("spine", 24, seed=5, matrix=48, folder=folder / "spines")
    table, truth, _ = build.build_cohort(jobs, n_workers=0)
    broken = set(truth.loc[truth["finding"] == "fracture", "study_id"])
    rows = ["subject,T12,L1"]
    for n, study in enumerate(table.itertuples()):
        subject = f"sub-verse{n:03}"
        scans = folder / "verse" / "dataset-verse20test" / "rawdata" / subject
        scans.mkdir(parents=True)
        shutil.copy(folder / "spines" / study.volume, scans / f"{subject}_dir-ax_ct.nii.gz")
        rows.append(f"{subject},0,{2 if study.study_id in broken else 0}")
    assert 0 < len(broken) < len(table)
    (folder / "grades.csv").write_text("\n".join(rows) + "\n")
    made = folder / "my_verse"
    code = cli.main(["verse", str(folder / "verse"), "--grades", str(folder / "grades.csv"),
                     "--out", str(made)])  # fmt: skip
    assert code == 0
    command = [sys.executable, "-m", "merlin.run", "figures", "verse", "--data", str(made),
               "--weights", str(weights(folder / "weights.safetensors"))]  # fmt: skip
    with (folder / "said.txt").open("w") as said:
        run = subprocess.Popen(
            command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
    yield root / "runs" / "verse", broken, run, folder / "said.txt"
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()


@pytest.mark.slow
def test_a_release_becomes_figures_through_a_kill_and_damages_are_found(verse, tmp_path):
    root = copied(tmp_path)
    data, planted = look_alike(tmp_path)
    command = [sys.executable, "-m", "merlin.run", "figures", "full", "--data", str(data),
               "--weights", str(weights(tmp_path / "weights.safetensors"))]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(root)}
    base = root / "runs" / "full"

    first = subprocess.Popen(command, cwd=root, env=env, start_new_session=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    end = time.time() + 600
    while not (base / "partial" / "03_embeddings-main.ipynb").exists() and time.time() < end:
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    made = (base / "01_dataset.ipynb").stat().st_mtime_ns

    done = subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (base / "01_dataset.ipynb").stat().st_mtime_ns == made  # not run again

    found = pd.read_csv(base / "results" / "dataset_audit.csv").groupby("label")["value"].sum()
    for row in planted.itertuples():
        assert found[row.what] >= row.n, row.defect
    kept = pd.read_csv(base / "cohort" / "manifest.csv", dtype=str)
    lost = pd.read_csv(base / "cohort" / "quarantine.csv", dtype=str)
    assert len(lost) == 2
    assert not set(lost["study_id"]) & set(kept["study_id"])

    scores = pd.read_csv(base / "results" / "zero_shot_findings.csv")
    assert scores["value"].notna().any()
    facts = json.loads((base / "figures" / "zero_shot_findings.json").read_text())
    gone = pd.read_csv(base / "cohort" / "left_out.csv", dtype=str)
    assert set(gone["reason"]) > {"no volume"}
    assert facts["n"] == {
        "test studies, patients unknown": int(kept["split"].eq("test").sum()),
        "test studies without a readable volume": int(gone["split"].eq("test").sum()),
    }
    assert "resamples of studies" in facts["interval"]
    n_gone = facts["n"]["test studies without a readable volume"]
    for name in ("phenotypes", "retrieval"):
        facts = json.loads((base / "figures" / f"{name}.json").read_text())
        assert facts["n"]["test studies without a readable volume"] == n_gone
    odd = pd.read_csv(base / "cohort" / "odd.csv", dtype=str)
    assert {"studies without volume", "labels that contradict their report"} <= set(odd["what"])
    for name in ("dataset_audit", "zero_shot_findings", "phenotypes", "retrieval"):
        facts = json.loads((base / "figures" / f"{name}.json").read_text())
        assert "synthetic phantom cohort" in facts["tier_note"]  # phantoms, whatever the tier
    assert (
        scores["n_patients"] == scores["n_studies"]
    ).all()  # no patient ids: studies stand for them
    codes = pd.read_csv(base / "results" / "phenotypes.csv")
    assert set(codes["status"]) == {"not evaluated"}  # codes are not in the release
    assert codes["value"].isna().all()
    assert pd.read_csv(base / "results" / "retrieval.csv")["value"].notna().any()
    for name in ("dataset_audit", "zero_shot_findings", "phenotypes", "retrieval"):
        assert (base / "figures" / f"{name}.png").stat().st_size > 10_000
    again = subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert "Nothing to be done" in again.stdout


@pytest.mark.slow
def test_verse_folders_become_the_fracture_figure(verse):
    base, broken, run, said = verse
    assert run.wait(900) == 0, said.read_text()[-6000:]
    scores = pd.read_csv(base / "results" / "zero_shot_findings.csv")
    scores = scores[scores["model"] == "main"].set_index(["label", "metric"])
    fractures, others = scores.loc[("fracture", "auroc")], scores.loc[("ascites", "auroc")]
    assert (fractures["status"] == "ok").all()
    assert (fractures["n_positive"] == len(broken)).all()
    assert (others["status"] == "not evaluated").all()
    assert not (base / "05_phenotypes.ipynb").exists()
