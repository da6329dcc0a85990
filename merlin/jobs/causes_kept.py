"""The tables of `18_causes`, and what they follow from; to read them needs no torch."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from merlin import jobs, run

TABLES = ("scores", "doses", "gradients", "shifts", "slices")
CODE = (
    "merlin.phantom.interventions", "merlin.phantom.pool", "merlin.model.gradients",
    "merlin.evaluation.counterfactual", "merlin.training.encode",
)  # fmt: skip
LATER = ("profile", "main_seeds", "n_resamples", "n_threads")  # settings that change no table


def inputs(settings: SimpleNamespace, arm: str = "main") -> list[Path]:
    """Manifest and weights that the job reads.

    Raises
    ------
    FileNotFoundError
        Naming the notebook that makes the first that is missing.
    """
    base = run.folder(settings.profile)
    return [
        run.upstream(base / "cohort" / "manifest.csv", "01_cohort"),
        run.upstream(base / "pretraining" / arm / "weights.safetensors", "02_pretraining"),
    ]


def matrix_of(settings: SimpleNamespace) -> int:
    """Pixels along x and y of the cohort's scanners."""
    return int(run.load_profile(settings.profile)["01_cohort"]["matrix"])


def marks(settings: SimpleNamespace, arm: str = "main") -> dict[Path, str]:
    """The path of each table, and the fingerprint of what it follows from."""
    source, weights = inputs(settings, arm)
    said = {k: v for k, v in vars(settings).items() if k not in LATER}
    code = run.code_hash(*CODE), run.file_hash(Path(__file__).with_name("causes.py"))
    made_from = run.fingerprint(
        arm, said, matrix_of(settings), run.cohort_hash(source), jobs.weights_hash(weights), *code
    )
    folder = run.folder(settings.profile) / "causes"
    return {folder / f"{n}.parquet": run.fingerprint(made_from, n) for n in TABLES}


def read(settings: SimpleNamespace, arm: str = "main") -> dict[str, pd.DataFrame]:
    """All tables by name.

    Raises
    ------
    FileNotFoundError
        With the command that makes the first that is missing or was made from something else.
    """
    found = {}
    for path, mark in marks(settings, arm).items():
        if not run.is_kept(path, mark):
            raise FileNotFoundError(
                f"runs/{settings.profile}/causes/{path.name} is missing, or follows from other settings, "
                f"weights, patients or code. Change settings in the profile, then run .venv/bin/python -m "
                f"merlin.jobs.causes {settings.profile} {arm} (or `make figures PROFILE={settings.profile}`)."
            )
        found[path.stem] = pd.read_parquet(path)
    return found
