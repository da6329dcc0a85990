"""What the user brings to a run: a data set, weights or embeddings, by the profile's tier.

A file of the run, `own.json`, says where they lie, so that no path of theirs goes through a command
line, a configuration or a shell.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from merlin.files import copy, write_text
from merlin.run import places
from merlin.run.profile import ProfileError, load_profile

NEEDS = {"phantom": (), "embeddings": ("embeddings",), "full": ("data", "weights")}  # by tier
OWN = "own.json"  # in runs/<profile>/: where the user's files lie
_TABLES = (".csv", ".tsv", ".xlsx", ".parquet")


def own_files(tier: str, given: Mapping[str, str], *, trains: bool = False) -> dict[str, str]:
    """Check what the user brings to a run against what its tier reads.

    Parameters
    ----------
    tier : str
    trains : bool
        Whether the profile trains weights of its own, so that none need be given.
    given : dict of str to str
        `data`, `weights`, `embeddings` → path, empty where not given.

    Returns
    -------
    dict of str to str
        Absolute paths.

    Raises
    ------
    ProfileError
        Naming everything that is missing, unused or not there.
    """
    needed = [k for k in NEEDS[tier] if not (trains and k == "weights")]
    problems = [f"{k.upper()}=… is missing." for k in needed if not given.get(k)]
    problems += [
        f"{k.upper()}={v}: the {tier} tier does not read it." for k, v in given.items()
        if v and k not in NEEDS[tier]
    ]  # fmt: skip
    if trains and given.get("weights"):
        problems.append(f"WEIGHTS={given['weights']}: this profile trains weights of its own.")
    found = {k: Path(v).expanduser().resolve() for k, v in given.items() if v and k in NEEDS[tier]}
    problems += [f"{k.upper()}={v}: not found." for k, v in found.items() if not v.exists()]
    for k, v in found.items():
        is_, expected = ("file", "folder") if k == "data" else ("folder", "file")
        if v.exists() and v.is_dir() != (k == "data"):
            problems.append(f"{k.upper()}={v}: a {is_}; expected a {expected}.")
    if found.get("weights") and found["weights"].suffix != ".safetensors":
        problems.append(
            f"WEIGHTS={given['weights']}: expected weights.safetensors. Convert an official checkpoint "
            "once: .venv/bin/merlin weights FILE.pt --text-folder FOLDER --out weights.safetensors"
        )
    if problems:
        wanted = " ".join(f"{k.upper()}=path" for k in needed) or "no files"
        raise ProfileError(f"The {tier} tier takes {wanted}.\n  " + "\n  ".join(problems))
    return {k: str(v) for k, v in found.items()}


def bring(profile: str, own: Mapping[str, str]) -> None:
    """Note where the user's files lie, in a file that the workflow reads.

    The sizes and dates of what they hold stand beside: a changed table changes the file, and reruns
    what reads it.

    Parameters
    ----------
    profile : str
    own : dict of str to str
        From `own_files`.
    """
    values = load_profile(profile)["01_dataset"]
    named = [Path(places.located(v)) for k in ("patients", "icd") if (v := values.get(k))]
    seen = []
    for place in [*map(Path, own.values()), *named]:
        held = place.iterdir() if place.is_dir() else [place]
        files = [p for p in held if p.is_file() and (place.is_file() or p.suffix in _TABLES)]
        seen += [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(files)]
    text = json.dumps({"files": own, "seen": seen}, indent=1) + "\n"
    path = places.folder(profile) / OWN
    if not path.exists() or path.read_text() != text:
        write_text(path, text)


def noted(path: Path) -> dict[str, str]:
    """The user's paths in an `own.json`; none where it is missing or half written."""
    with suppress(ValueError, KeyError, OSError):
        return json.loads(path.read_text())["files"]
    return {}


def brought(profile: str) -> dict[str, str]:
    """What `bring` noted for a profile: `data`, `weights`, `embeddings` → path.

    Raises
    ------
    ProfileError
        If its tier reads the user's files and none are noted, or they are gone. Nothing is made or
        trained in their place.
    """
    values = load_profile(profile)
    if not NEEDS[values["tier"]]:
        return {}
    given = noted(places.ROOT / "runs" / profile / OWN)
    return own_files(values["tier"], given, trains=trains(values))


def trains(values: dict) -> bool:
    """Whether a profile trains weights of its own."""
    return "02_pretraining" in values.get("notebooks", ())


def take(kind: str, profile: str, target: str | Path) -> int:
    """Put the user's weights or embeddings in the place where the workflow expects its own."""
    path = brought(profile)[kind]
    if kind == "weights":
        words = ["-m", "merlin.cli", "weights", path, "--out", str(target), "--overwrite"]
        return subprocess.run([sys.executable, *words], check=False).returncode
    copy(path, target)
    return 0


def cache_gb(values: dict, own: Mapping[str, str], base: Path) -> float:
    """Disk that the model inputs of a user's own data will still take: 2 bytes a voxel."""
    if "data" not in own:
        return 0.0
    shape = values["02_pretraining"]["grid_shape"]
    if own.get("weights", "").endswith(".safetensors"):
        from safetensors import safe_open

        with safe_open(own["weights"], "numpy") as file:
            facts = json.loads((file.metadata() or {}).get("metadata", "{}"))
        shape = facts.get("grid", {}).get("shape", shape)
    n = sum(p.name.endswith((".nii", ".nii.gz")) for p in Path(own["data"]).rglob("*"))
    there = sum(p.stat().st_size for p in (base / "cache").glob("*.safetensors"))
    return max(0.0, (2.0 * n * np.prod(shape) - there) / 1e9)
