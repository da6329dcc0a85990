"""What a notebook asks for before its story and leaves after it: settings, results, where they came from.

A notebook asks for its settings with `settings("02_pretraining", globals())`: values come from the
profile, unless the notebook's own parameters cell, or papermill's `-p`, gives one.
"""

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

from merlin.files import file_hash, read_csv, write_csv, write_parquet, write_text
from merlin.run import places
from merlin.run.own import brought
from merlin.run.profile import (
    TIER_NOTES,
    ProfileError,
    load_profile,
    main_runs,
    nearest,
    scaling_arms,
    sweep_arms,
    sweep_runs,
    trainings,
)
from merlin.words import without_folders

if TYPE_CHECKING:
    import pandas as pd

MINED = "MINED_LABELS.txt"  # in a cohort's folder: what its captions say of labels from text
SYNTHETIC = "SYNTHETIC.txt"  # in a data folder: its studies are phantoms, whatever tier reads them
TIER_WORDS = {"phantom": "synthetic", "embeddings": "given", "full": "internal"}  # in captions
RESULT_COLUMNS = (
    "task", "label", "metric", "model", "split", "value", "low", "high",
    "n_studies", "n_patients", "n_positive", "status", "reason",
)  # fmt: skip
COMMON = (
    "profile",
    "tier",
    "seed",
    "cohort_seed",
    "main_seeds",
)  # settings that all notebooks have
# Parameters that are paths.
PATHS = {"folder", "patients", "icd", "weights", "phecodes", "code_map", "prompts", "text_folder",
         "lm_folder", "weights_2d", "totalsegmentator", "real_ct", "real_labels"}  # fmt: skip
_IPYTHONS = {"In", "Out", "get_ipython", "exit", "quit", "open", "run", "settings"}
_started = time.time()


def settings(notebook: str, scope: dict) -> SimpleNamespace:
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
        One attribute per parameter, plus those of `COMMON`, and `arm` where the notebook has arms (in
        `02_pretraining` also `trainings`, from `trainings`).

    Raises
    ------
    ProfileError
        If a parameter was given that the notebook does not have: a mistyped `-p` name.
    """
    profile = load_profile(scope["profile"])
    if notebook not in profile:
        raise ProfileError(f"No notebook {notebook!r}{nearest(notebook, profile)}")
    values = {k: profile[k] for k in COMMON} | profile[notebook]
    arm = scope.get("arm")
    if arm is not None:
        values |= _of_arm(profile, arm, notebook == "02_pretraining")
    given = _given(notebook, scope, {*values, "arm"})
    values |= given
    if notebook == "01_dataset" and profile["tier"] == "full" and not values["folder"]:
        own = brought(scope["profile"])
        values["folder"] = own.get("data", "")
        values["weights"] = values["weights"] or own.get("weights", "")
    if "trainings" in values and "seed" in given:
        values["trainings"] = trainings(profile | {"seed": values["seed"]}, str(arm))
    values |= {k: places.located(values[k]) for k in PATHS & set(values) if values[k]}
    return SimpleNamespace(**values)


def _of_arm(profile: dict, arm: str, is_trained: bool) -> dict:
    """What an arm says, and changes where it `is_trained`."""
    arms = profile["arms"] | sweep_arms(profile) | scaling_arms(profile) | sweep_runs(profile)
    arms |= dict.fromkeys(main_runs(profile), profile["arms"].get("main"))
    if arm not in arms:
        raise ProfileError(f"No arm {arm!r}{nearest(arm, arms)}")
    changes = (arms[arm] or {}) | {"trainings": trainings(profile, arm)} if is_trained else {}
    return {"arm": arm} | changes


def _given(notebook: str, scope: dict, allowed: set[str]) -> dict:
    """The parameters that a notebook's scope gives; of what else a person wrote there, an error."""
    given = {
        k: v
        for k, v in scope.items()
        if not (k.startswith("_") or k in _IPYTHONS or callable(v) or isinstance(v, ModuleType))
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
    return {k: v for k, v in given.items() if v is not None and k in allowed}


def write_results(
    settings_: SimpleNamespace,
    name: str,
    table: "pd.DataFrame",
    predictions: "pd.DataFrame | None" = None,
) -> Path:
    """Write `results/<name>.csv` and `predictions/<name>.parquet` of a run; the former's path.

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
    base = places.folder(settings_.profile)
    write_csv(base / "results" / f"{name}.csv", table[[*RESULT_COLUMNS, *extra]])
    if predictions is not None:
        write_parquet(base / "predictions" / f"{name}.parquet", predictions)
    return base / "results" / f"{name}.csv"


def unit(patient_ids: Iterable[str], study_ids: Iterable[str]) -> str:
    """What intervals resample: `patients`, or `studies` where no patient is known."""
    is_known = any(p != s for p, s in zip(patient_ids, study_ids, strict=True))
    return "patients" if is_known else "studies"


def counts(patient_ids: Sequence[str], study_ids: Sequence[str], what: str) -> dict[str, int]:
    """Numbers for a figure's footer: patients and `what`, or `what` and that patients are unknown."""
    n = len(study_ids)
    if unit(patient_ids, study_ids) == "studies":
        return {f"{what}, patients unknown": n}
    return {"patients": len(set(patient_ids)), what: n}


def left_out(base: str | Path) -> dict[str, int]:
    """For a figure's footer: test studies of a data set that no notebook after `01_dataset` sees."""
    path = Path(base) / "cohort" / "left_out.csv"
    n = int((read_csv(path, dtype=str)["split"] == "test").sum()) if path.exists() else 0
    return {"test studies without a readable volume": n} if n else {}


def mark_synthetic(folder: str | Path) -> None:
    """Say in a data folder that its studies are phantoms: whoever reads it, in any tier, says so too."""
    said = "These studies are computer-made phantoms: no person's data.\n"
    write_text(Path(folder) / SYNTHETIC, said)


def mark_mined(folder: str | Path, note: str) -> None:
    """Let every caption on a cohort's labels say how they were mined; an empty note unsays it."""
    path = Path(folder) / MINED
    if note:
        write_text(path, note + "\n")
    else:
        path.unlink(missing_ok=True)


def tier_note(settings_: SimpleNamespace, is_synthetic: bool) -> str:
    """What a figure says of its data; phantoms are called so in every tier."""
    note = TIER_NOTES[settings_.tier]
    if is_synthetic and settings_.tier != "phantom":
        return f"{note}, on a {TIER_NOTES['phantom']}"
    return note


def provenance(
    settings_: SimpleNamespace, inputs: Iterable[str | Path] = (), **facts: object
) -> dict[str, object]:
    """Where a figure or file came from: tier, settings, inputs with hashes, code, machine.

    Parameters
    ----------
    settings_ : SimpleNamespace
        From `settings`.
    inputs : sequence of path
    **facts
        Whatever else belongs beside it, as n and the kind of interval.
    """
    cohort = places.folder(settings_.profile) / "cohort"
    mined = f"; {(cohort / MINED).read_text().strip()}" if (cohort / MINED).exists() else ""
    packages = ("torch", "numpy", "scipy", "pandas", "monai", "transformers", "matplotlib")
    paths = [Path(p) for p in inputs]
    return {
        "tier": settings_.tier,
        "tier_note": tier_note(settings_, (cohort / SYNTHETIC).exists()) + mined,
        "profile": settings_.profile,
        "seed": settings_.seed,
        "parameters": without_folders(vars(settings_)),
        **facts,
        "inputs": {
            str(p.relative_to(places.ROOT)) if p.is_relative_to(places.ROOT) else p.name: file_hash(
                p
            )
            for p in paths
        },
        "commit": _commit(),
        "package": importlib.metadata.version("merlin-companion"),
        "versions": {p: importlib.metadata.version(p) for p in packages},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(time.time() - _started, 1),
    }


def _commit() -> str:
    def git(*words: str) -> str:
        command = ["git", "-C", str(places.ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "not a git checkout"
    is_changed = git("status", "--porcelain", "--", "merlin", "notebooks")
    return head + (" with changes" if is_changed else "")
