"""Networks of 08, 09 and 10 as jobs of the workflow: each trains in a process of its own, and leaves tables.

    python -m merlin.jobs.five_year smoke merlin
    python -m merlin.jobs.report_generation smoke writer
    python -m merlin.jobs.segmentation smoke dynunet

The Snakefile runs them side by side, as cores or a cluster allow; notebooks read what they leave. Beside
each table stands a mark of what it was made from. A job that is called again, because it was killed or
its inputs were made again as they were, makes what is missing and leaves the rest; a notebook refuses a
table that was made from anything else.
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from merlin import run
from merlin.data import manifest


@dataclass(frozen=True)
class Task:
    """What the jobs of one notebook have in common.

    Attributes
    ----------
    notebook : str
    arms : tuple of str
        Of pretraining, whose weights are read.
    code : tuple of str
        Modules that decide what a job makes.
    later : tuple of str
        Settings that only the notebook reads.
    """

    notebook: str
    arms: tuple[str, ...]
    code: tuple[str, ...]
    later: tuple[str, ...]


TASKS = {
    "five_year": Task(
        "08_five_year",
        ("main", "ehr"),
        ("merlin.training.diseases", "merlin.data.preprocess"),
        ("min_events", "n_resamples", "save_every"),
    ),
    "report_generation": Task(
        "09_report_generation",
        ("main",),
        (
            "merlin.training.reports",
            "merlin.evaluation.report_rivals",
            "merlin.evaluation.regression",
        ),
        ("n_resamples",),
    ),
    "segmentation": Task(
        "10_segmentation",
        ("main",),
        ("merlin.training.segmentation", "merlin.model.segmenter"),
        ("n_resamples",),
    ),
}


def tables(task: str, settings: SimpleNamespace) -> dict[str, list[str]]:
    """Names of a task's jobs, in the order of the figures, and of the tables that each leaves."""
    if task == "report_generation":
        return {f"writer{s}": [f"writer{s}-reports"] for s in seeds(settings)}
    parts = [f"{f:g}" for f in settings.fractions]
    if task == "segmentation":
        names = [f"{kind}{s}" for s in seeds(settings) for kind in ("merlin", "scratch")]
        left = [*(f"curve-{p}" for p in parts), *parts]
        return {name: [f"{name}-{part}" for part in left] for name in [*names, "dynunet"]}
    starts = ["merlin", *(["ehr"] if has_codes_arm(settings.profile) else [])]
    starts += [*(["inflated"] if settings.weights_2d else []), "random"]
    jobs = {start + seed: [*parts] for seed in seeds(settings) for start in starts}
    for job, left in jobs.items():
        if not job.startswith(("merlin", "ehr")):  # those of an arm are made for others too
            left.append("features")
    return {job: [f"{job}-{part}" for part in left] for job, left in jobs.items()}


def seeds(settings: SimpleNamespace) -> list[str]:
    """What stands behind a job's name for each seed of the main arm: nothing for the first, then `-1`."""
    return ["", *(f"-{s}" for s in settings.main_seeds)]


def seed_of(job: str) -> tuple[str, int]:
    """What a job of several seeds makes, and its seed: `merlin-2` is (`merlin`, 2), `merlin` has 0."""
    name, _, seed = job.rpartition("-")
    return (name, int(seed)) if name and seed.isdigit() else (job, 0)


def has_codes_arm(profile: str) -> bool:
    """Whether a profile has an arm that learns from codes alone: the release has no codes for one."""
    return "ehr" in run.load_profile(profile)["arms"]


def arms(task: str, profile: str, job: str = "") -> list[str]:
    """Trainings whose weights a task, or one job of it, reads: of `merlin-2`, `main-2` in place of `main`."""
    seed = job.rpartition("-")[2]
    named = [a for a in TASKS[task].arms if a != "ehr" or has_codes_arm(profile)]
    return [f"{a}-{seed}" if a == "main" and seed.isdigit() else a for a in named]


def inputs(task: str, settings: SimpleNamespace, job: str = "") -> list[Path]:
    """Manifest and weights that a task's jobs, or one of them, read.

    Raises
    ------
    FileNotFoundError
        Naming the notebook that makes the first that is missing.
    """
    base = run.folder(settings.profile)
    needed = arms(task, settings.profile, job)
    weights = [base / "pretraining" / arm / "weights.safetensors" for arm in needed]
    return [
        run.upstream(base / "cohort" / "manifest.csv", "01_cohort"),
        *(run.upstream(path, "02_pretraining") for path in weights),
    ]


def weights_hash(path: str | Path) -> str:
    """Fingerprint of what a job takes from weights: tensors, configuration, grid and phecodes.

    Not of the whole file: it also says at which commit and in how many seconds it was trained, and
    weights that were made again as they were ask for nothing new.
    """
    with Path(path).open("rb") as file:
        tensors = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = hashlib.file_digest(file, "sha256").hexdigest()
    about = tensors.pop("__metadata__", {})
    facts = json.loads(about.get("metadata", "{}"))
    return run.fingerprint(
        tensors, data, about.get("config"), facts.get("grid"), facts.get("phecodes")
    )


def mark(task: str, settings: SimpleNamespace, job: str = "") -> str:
    """Fingerprint of what a job's tables follow from: settings, cohort, weights and code."""
    about = TASKS[task]
    made_by = {
        k: v for k, v in vars(settings).items() if k not in ("profile", "main_seeds", *about.later)
    }
    source, *weights = inputs(task, settings, job)
    files = [*map(weights_hash, weights), run.file_hash(Path(__file__).with_name(f"{task}.py"))]
    return run.fingerprint(run.cohort_hash(source), files, run.code_hash(*about.code), made_by)


def keep(
    task: str, settings: SimpleNamespace, name: str, make: Callable[[], pd.DataFrame], job: str = ""
) -> None:
    """Make a table of a job, unless it is there and was made from the same things."""
    path = run.folder(settings.profile) / task / f"{name}.parquet"
    run.kept(path, run.fingerprint(mark(task, settings, job), name), make)
    path.touch()  # newer than its inputs


def read(task: str, settings: SimpleNamespace, only: str = "") -> dict[str, pd.DataFrame]:
    """The tables of a task's jobs, or of one of them, by name.

    Raises
    ------
    FileNotFoundError
        With the command that makes the first that is missing or was made from something else.
    """
    found = {}
    for job, names in tables(task, settings).items():
        if only not in ("", job):
            continue
        made_from = mark(task, settings, job)
        for name in names:
            path = run.folder(settings.profile) / task / f"{name}.parquet"
            if not run.is_kept(path, run.fingerprint(made_from, name)):
                raise FileNotFoundError(
                    f"runs/{settings.profile}/{task}/{name}.parquet is missing, or follows from other "
                    "settings, weights, studies or code. Change settings of training in the profile, then "
                    f"run .venv/bin/python -m merlin.jobs.{task} {settings.profile} {job} "
                    f"(or `make figures PROFILE={settings.profile}`, which makes all in order)."
                )
            found[name] = pd.read_parquet(path)
    return found


def five_year(
    settings: SimpleNamespace, diseases: list[str]
) -> tuple[dict[tuple[str, float], np.ndarray], dict[str, list[pd.DataFrame]], pd.DataFrame]:
    """What the jobs of `08_five_year` left, seed by seed.

    Returns
    -------
    tuned : dict of (start, share) to (n_seeds, n_test, n_diseases) float
        Probabilities of the test studies.
    frozen : dict of start to list of DataFrame
        Features of all studies by study id, a table a seed; codes alone were pretrained once.
    chosen : DataFrame
        `start, fraction, learning_rate, tried`.
    """
    made, every = read("five_year", settings), seeds(settings)
    starts = list(dict.fromkeys(seed_of(job)[0] for job in tables("five_year", settings)))
    of_arm = {"merlin": [f"features-main{s}" for s in every], "ehr": ["features-ehr"]}
    base, tuned, frozen, rows = run.folder(settings.profile) / "rivals", {}, {}, []
    for start in starts:
        for f in settings.fractions:
            runs = [made[f"{start}{s}-{f:g}"] for s in every]
            tuned[start, f] = np.stack([p[diseases].to_numpy() for p in runs])
            rows.append((start, f, *runs[0].loc[0, ["learning_rate", "tried"]]))
        if start in of_arm:
            paths = [base / f"{kind}.parquet" for kind in of_arm[start]]
            left = [pd.read_parquet(run.upstream(p, "08_five_year")) for p in paths]
        else:
            left = [made[f"{start}{s}-features"] for s in every]
        frozen[start] = [features.set_index("study_id") for features in left]
    columns = ["start", "fraction", "learning_rate", "tried"]
    return tuned, frozen, pd.DataFrame(rows, columns=columns)


def internal(source: Path) -> pd.DataFrame:
    """The manifest's studies of the training site."""
    return manifest.at_home(manifest.load_manifest(source))


def training_rows(studies: pd.DataFrame, settings: SimpleNamespace) -> dict[float, np.ndarray]:
    """Rows of the training studies, by share of the patients; smaller sets lie inside larger ones."""
    rows = np.flatnonzero(studies["split"] == "train")
    people = studies["patient_id"].iloc[rows]
    return {
        f: rows[manifest.nested_subset(people, f, seed=settings.seed)] for f in settings.fractions
    }


def footer(
    task: str, settings: SimpleNamespace, judged: pd.DataFrame, what: str
) -> dict[str, object]:
    """For a figure's sidecar: the files behind it, how many were judged, and what intervals resample.

    Parameters
    ----------
    judged : DataFrame
        `patient_id, study_id`.
    what : str
        Of its rows, as `test studies`.
    """
    who = judged["patient_id"].to_numpy(str), judged["study_id"].to_numpy(str)
    n = run.counts(*who, what) | run.left_out(run.folder(settings.profile))
    return {"inputs": inputs(task, settings), "n": n, "resampled": run.unit(*who)}


def main(task: str, job: Callable[[SimpleNamespace, str], None]) -> None:
    """The command line of a task: a profile, and the name of one job."""
    parser = argparse.ArgumentParser(prog=f"python -m merlin.jobs.{task}")
    parser.add_argument("profile")
    parser.add_argument("job", help="one network, as `merlin`")
    args = parser.parse_args()
    settings = run.settings(TASKS[task].notebook, {"profile": args.profile})
    if args.job not in (known := tables(task, settings)):
        parser.error(f"no job {args.job!r} in profile {args.profile}: {', '.join(known)}")
    job(settings, args.job)
