"""The Snakefile on a cluster: what each job asks for, and a whole run through submitted jobs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
# A cluster of one: `create` runs the job at once, `get` tells how it went.
KUBECTL = """import json, subprocess, sys
from pathlib import Path
jobs = Path({jobs!r})
if sys.argv[1] == "create":
    job = json.load(sys.stdin)
    (box,) = job["spec"]["template"]["spec"]["containers"]
    code = subprocess.run(box["command"], cwd=box["workingDir"]).returncode
    name = f"job.batch/{{job['metadata']['generateName']}}{{len(list(jobs.glob('*.json')))}}"
    job["code"] = code
    (jobs / (name.split("/")[1] + ".json")).write_text(json.dumps(job))
    print(name)
else:
    code = json.loads((jobs / (sys.argv[2].split("/")[1] + ".json")).read_text())["code"]
    print("/1" if code else "1/")
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the project, so that the user's own runs are left alone."""
    root = tmp_path / "companion"
    root.mkdir()
    for name in ("merlin", "notebooks", "scripts", "data_manifests"):
        shutil.copytree(HERE / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "Snakefile", root)
    return root


def snakemake(root, *more, python=sys.executable, **env):
    return subprocess.run(
        [python, "-m", "snakemake", *more], cwd=root, capture_output=True, text=True,
        timeout=300, check=False, env=os.environ | {"PYTHONPATH": str(root)} | env,
    )  # fmt: skip


def resources(said):
    """Rule → what its first listed job asks for."""
    found = {}
    for rule, text in re.findall(r"^rule (\w+):\n(.*?)(?=^\[|\Z)", said, re.DOTALL | re.MULTILINE):
        asked = re.findall(r"\b(mem_mb|gpu|runtime)=(\d+)", text)
        found.setdefault(rule, {k: int(v) for k, v in asked})
    return found


def test_jobs_on_slurm_ask_for_what_they_need(project, tmp_path):
    data = tmp_path / "my data"
    data.mkdir()
    (data / "manifest.csv").write_text("study_id\n")
    (tmp_path / "weights.safetensors").write_text("")
    full = [
        "--config",
        "profile=full",
        f"data={data}",
        f"weights={tmp_path / 'weights.safetensors'}",
    ]
    done = snakemake(project, "-n", "--profile", "scripts/slurm", *full)
    assert done.returncode == 0, done.stderr[-3000:]
    asked = resources(done.stdout + done.stderr)
    assert "given_weights" in asked
    for rule in asked.keys() - {"all"}:  # a job's request has a place for each
        assert {"gpu", "mem_mb", "runtime"} <= asked[rule].keys(), rule
    assert asked["embeddings"]["gpu"] == 1
    assert asked["embeddings"]["mem_mb"] >= 16_000
    assert asked["embeddings"]["runtime"] >= 120
    assert asked["zero_shot_findings"]["gpu"] == asked["dataset"]["gpu"] == 0
    assert asked["dataset"]["mem_mb"] == 32_000  # 2 GB a worker
    done = snakemake(project, "-n", "--profile", "scripts/slurm", "--config", "profile=deep")
    assert done.returncode == 0, done.stderr[-3000:]
    asked = resources(done.stdout + done.stderr)
    assert {"pretraining", "sweep", "segmentation", "claims"} <= set(asked)
    assert not any(v.get("gpu") for v in asked.values())  # phantoms need none
    assert asked["segmentation"]["mem_mb"] >= 3000


@pytest.mark.slow
def test_kubernetes_jobs_are_made_run_and_followed_to_their_end(project, tmp_path):
    tools, jobs = tmp_path / "bin", tmp_path / "jobs"
    tools.mkdir()
    jobs.mkdir()
    (tools / "kubectl.py").write_text(KUBECTL.format(jobs=str(jobs)))
    (tools / "kubectl").write_text(
        f'#!/bin/bash\nexec "{sys.executable}" "{tools}/kubectl.py" "$@"\n'
    )
    (tools / "kubectl").chmod(0o755)
    command = [
        "--profile",
        "scripts/kubernetes",
        "--latency-wait",
        "2",
        "--seconds-between-status-checks",
        "1",
    ]
    env = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    ask = [*command, "runs/smoke/17_ideas.ipynb", "--config", "profile=smoke"]
    (tmp_path / "venv").symlink_to(sys.prefix)  # Snakemake's job scripts bear no space in this path
    env["python"] = str(tmp_path / "venv" / "bin" / "python")
    done = snakemake(project, *ask, **env)
    assert done.returncode != 0
    assert "MERLIN_IMAGE: name a container image" in done.stdout + done.stderr
    env |= {"MERLIN_IMAGE": "python:3.11", "MERLIN_CLAIM": "work", "MERLIN_MOUNT": str(tmp_path)}
    done = snakemake(project, *ask, **env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (project / "runs" / "smoke" / "figures" / "ideas.png").exists()
    (job,) = [json.loads(p.read_text()) for p in jobs.glob("*.json")]
    spec = job["spec"]["template"]["spec"]
    (box,) = spec["containers"]
    assert box["resources"]["requests"] == {"cpu": "1", "memory": "2000M"}
    assert "nvidia.com/gpu" not in box["resources"]["limits"]
    assert box["volumeMounts"] == [{"name": "work", "mountPath": str(tmp_path)}]
