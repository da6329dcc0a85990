"""The Snakefile on a cluster: what each job asks for, and a whole run through submitted jobs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
        timeout=900, check=False, env=os.environ | {"PYTHONPATH": str(root)} | env,
    )  # fmt: skip


def bring(root, *words):
    """Note the user's files in the copy."""
    return subprocess.run(
        [sys.executable, "-m", "merlin.run", "bring", *words], cwd=root, text=True, check=False,
        capture_output=True, env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip


def resources(said):
    """Rule → what its first listed job asks for."""
    found = {}
    for rule, text in re.findall(
        r"^rule ([\w-]+):\n(.*?)(?=^\[|\Z)", said, re.DOTALL | re.MULTILINE
    ):
        asked = re.findall(r"\b(mem_mb|gpu|runtime)=(\d+)", text)
        found.setdefault(rule, {k: int(v) for k, v in asked})
    return found


def priorities(said):
    """Rule → its priority, where it has one."""
    rules = re.findall(r"^rule ([\w-]+):\n(.*?)(?=^\[|\Z)", said, re.DOTALL | re.MULTILINE)
    found = {rule: re.search(r"^ +priority: (\d+)", text, re.MULTILINE) for rule, text in rules}
    return {rule: int(f[1]) for rule, f in found.items() if f}


def test_jobs_on_slurm_ask_for_what_they_need(project, tmp_path):
    data = tmp_path / "my data"
    data.mkdir()
    (data / "manifest.csv").write_text("study_id\n")
    (tmp_path / "weights.safetensors").write_text("")
    brought = ["--data", str(data), "--weights", str(tmp_path / "weights.safetensors")]
    said = bring(project, "full", *brought)
    assert said.returncode == 0, said.stderr
    full = ["--config", "profile=full"]
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
    assert {
        "pretraining",
        "sweep_reference",
        "scaling_1000",
        "segmentation_merlin",
        "claims",
    } <= set(asked)
    assert not any(v.get("gpu") for v in asked.values())  # phantoms need none
    assert asked["segmentation_merlin"]["mem_mb"] >= 3000
    first = priorities(done.stdout + done.stderr)
    small = {r for r in asked if re.fullmatch(r"sweep_.*|scaling_\d+|pool", r)}
    assert not small & first.keys()  # the sweep fills idle cores, no more
    assert first.keys() == asked.keys() - small - {"all"}
    assert first["cohort"] == max(first.values())
    assert min(first[r] for r in ("summary", "five_year", "given_to_rivals")) > first["ablations"]


def test_no_path_of_the_users_is_read_as_anything_else(project, tmp_path):
    """Of any path the workflow takes the file itself; it never makes one in its place."""
    own = tmp_path / "- a #b: 'c' \"d\" {e} $(touch x) `touch y`; \\t é 山田 [1]" / "mine.npz"
    own.parent.mkdir()
    own.write_bytes(b"embeddings of somebody's")
    assert bring(project, "embeddings", "--embeddings", str(own)).returncode == 0
    target = "runs/embeddings/embeddings/main.npz"
    done = snakemake(project, "--cores", "1", target, "--config", "profile=embeddings")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (project / target).read_bytes() == own.read_bytes()
    assert not list(project.glob("x")) + list(project.glob("y"))
    own.unlink()  # gone since: nothing is made in its place
    done = snakemake(project, "-n", "--config", "profile=embeddings")
    assert done.returncode != 0
    assert "not found" in done.stdout + done.stderr
    done = snakemake(project, "-n", "--config", "profile=embeddings", f"embeddings={own.parent}")
    assert "not by --config" in done.stdout + done.stderr


def test_texts_of_a_profile_reach_no_line_of_a_rule(project):
    """Whatever a folder, a list or a note holds; a user's tables count by their content."""
    odd = "$(touch ran) `touch ran`; touch ran {input} {ran} 'x' \"y\""
    own = project / f"{odd}.csv"
    own.write_text("phecode,phenotype\n")
    values = yaml.safe_load((project / "notebooks" / "profiles" / "smoke.yaml").read_text())
    values["expected"]["note"] = values["01_cohort"]["real_ct"] = f"{odd}\n{odd}"
    values["02_pretraining"] |= {"phecodes": own.name, "text_folder": odd, "network": odd}
    values["03_embeddings"] = {"code_map": own.name}
    values["10_segmentation"]["real_scans"] = [[odd, odd]]
    profile = project / "notebooks" / "profiles" / "odd.yaml"
    profile.write_text(yaml.safe_dump(values))
    done = snakemake(project, "-n", "-p", "--config", "profile=odd")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    said = done.stdout + done.stderr
    assert said.count("papermill notebooks/") > 20
    assert "touch" not in said
    own.unlink()
    done = snakemake(project, "-n", "--config", "profile=odd")
    assert "no file at" in done.stdout + done.stderr
    assert not list(project.glob("ran"))


def test_make_hands_over_what_was_given_sign_for_sign(tmp_path):
    """Blanks, quotes, dollars and backticks of DATA and its like reach the command as they are."""
    shutil.copy(HERE / "Makefile", tmp_path)
    (tmp_path / "scripts").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh"):
        (tmp_path / name).touch()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    fake = tmp_path / "venv" / "bin" / "python"
    fake.write_text(
        '#!/usr/bin/env python3\nimport sys\nopen("said", "a").write(repr(sys.argv) + "\\n")\n'
    )
    fake.chmod(0o755)
    (tmp_path / "venv" / "ready").touch()
    odd = "a #b: 'c' \"d\" $(touch x) `touch y` $HOME; é"
    words = ["make", "figures", "VENV=venv", "PROFILE=full", f"DATA={odd}", f"WEIGHTS=-{odd}"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "said").read_text().splitlines()[-1]
    assert repr(f"--data={odd}") in said
    assert repr(f"--weights=-{odd}") in said
    assert not (tmp_path / "x").exists()
    for name in ("../docs", "", "a b", "-x", "a;b"):
        done = subprocess.run(
            ["make", "clean", "VENV=venv", f"PROFILE={name}"], cwd=tmp_path, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode != 0, name
        assert "Removing" not in done.stdout


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
