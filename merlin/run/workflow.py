"""The workflow of a profile: run to its end, resumed, published; a notebook kept, or its failure explained."""

import csv
import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from merlin.files import copy, file_hash, write_json, write_text
from merlin.run import ahead, pace, places, rerun
from merlin.run.own import OWN, bring, cache_gb, noted, own_files, trains
from merlin.run.processes import to_its_end
from merlin.run.profile import TIER_NOTES, ProfileError, load_profile
from merlin.words import lines, shown, without_folders

LOOK_FIRST = ("summary", "zero_shot_findings", "dataset_audit")  # the first of these that was made
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def explain(path: str | Path) -> str:
    """Where an executed notebook failed: cell, source and the last lines of its error."""
    cells = [c for c in json.loads(Path(path).read_text())["cells"] if c["cell_type"] == "code"]
    ours = [c for c in cells if "papermill-error-cell-tag" not in c["metadata"].get("tags", [])]
    for number, cell in enumerate(ours, 1):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                source = "".join(cell["source"]).splitlines()[-6:]
                last = (output["traceback"] or [output.get("evalue", "")])[-1]
                trace = [_ANSI.sub("", line) for line in last.splitlines() if line.strip()][-12:]
                said = [
                    f"Code cell {number} failed with {output['ename']}:",
                    *("    " + line for line in source),
                    *trace,
                    f"The executed copy is kept: {path}",
                ]
                return lines("\n".join(said))
    return f"No failed cell in {path}: it was interrupted. Run the same command again to resume."


def keep(partial: str | Path, target: str | Path) -> None:
    """Put an executed notebook in its place; of paths of this machine its outputs keep the names."""
    book = json.loads(Path(partial).read_text())
    own = noted(Path(target).parent / OWN).values()  # of a profile that reads files of the user's
    places_ = tuple(p for v in own for p in (v, str(Path(v).parent)) if len(Path(p).parts) > 2)
    for cell in book["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", ()):
            cell["source"] = without_folders(cell["source"], places_)
        for output in cell.get("outputs", ()):
            for kind in [k for k in output if k != "data"]:
                output[kind] = without_folders(output[kind], places_)
            for kind in [k for k in output.get("data", ()) if not k.startswith("image/")]:
                output["data"][kind] = without_folders(output["data"][kind], places_)
    book["metadata"] = without_folders(book["metadata"], places_)
    write_json(target, book)
    Path(partial).unlink()


def figures(profile: str, cores: int, given: Mapping[str, str] | None = None) -> int:
    """Run the workflow of a profile, then publish its figures; returns an exit code.

    The lock ends with this process, however that ends: a killed run needs no unlocking.
    """
    values = load_profile(profile)
    if asked := ahead.problems(values):
        raise ProfileError(f"Profile {profile}, before anything is run:\n" + "\n".join(asked))
    own = own_files(values["tier"], given or {}, trains=trains(values))
    base, began = places.folder(profile), time.time()
    with (base / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.stderr.write(f"Another run of profile {profile} is going on in runs/{profile}/.\n")
            return 1
        if own:
            bring(profile, own)
        code = _run(profile, values, cores, cache_gb(values, own, base))
        if not code:
            _tell(profile, (time.time() - began) / 60)
    return code


def _run(profile: str, values: dict, cores: int, own_cache_gb: float) -> int:
    """Run what is to be done, if anything is and the disk holds it; an exit code."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--nolock"]
    command += ["--rerun-incomplete", "--resources", "gpu=1"]  # one network at a time has it
    command += ["--config", f"profile={profile}"]
    plan = subprocess.run(
        [*command, "--dry-run", "--quiet"],
        cwd=places.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if plan.returncode:
        sys.stderr.write(plan.stdout + plan.stderr)
        return plan.returncode
    if "Nothing to be done" in plan.stdout + plan.stderr:
        sys.stdout.write(f"Nothing to be done: runs/{profile}/ is up to date with the code.\n")
        return 0
    e = values["expected"]
    # In the full tier the note says of which machine.
    note = shown(e.get("note") or "")
    two_cores = "" if values["tier"] == "full" else " on two cores"
    sys.stdout.write(
        f"Profile {profile}: about {e['minutes']} minutes{two_cores}, {e['memory_gb']} GB of "
        f"memory, {e['disk_gb']} GB of disk under runs/{f' ({note})' if note else ''}. Interrupt at "
        "will: the next call resumes.\n"
    )
    if values["tier"] == "full":
        sys.stdout.write(ahead.machine(values))
    free = shutil.disk_usage(places.folder(profile)).free / 1e9
    if free < e["disk_gb"] + own_cache_gb:
        more = f" and {own_cache_gb:.1f} GB for the cache of your data" if own_cache_gb else ""
        sys.stderr.write(
            f"Only {free:.1f} GB of disk are free; this takes {e['disk_gb']} GB{more}. Free some "
            "space first.\n"
        )
        return 1
    # The notebooks' kernels must be this environment's, and may use the cores they are given.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    # Large pages for large arrays, where glibc knows how: fewer page faults, same numbers.
    env = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | os.environ | {"PATH": path}
    # Quiet about the host too: its lines name machine and user, and a log is often sent on.
    quiet = [*command, "--quiet", "rules", "host"]
    known = e if values["tier"] == "phantom" else {}  # elsewhere nobody has measured a step
    code = pace.beside(
        places.folder(profile), known, lambda: to_its_end(quiet, env, cwd=places.ROOT)
    )
    if code:
        sys.stderr.write(
            f"Stopped. Finished notebooks are kept; make figures PROFILE={profile} resumes.\n"
        )
    return code


def reading(path: Path) -> str:
    """What an executed notebook found, in words: the last text that it computed under *Reading*, if any."""
    if not path.exists():
        return ""
    outputs = [o for c in json.loads(path.read_text())["cells"] for o in c.get("outputs", ())]
    said = ["".join(o.get("data", {}).get("text/markdown", "")) for o in outputs]
    found = [text for text in said if text.startswith("**Reading.**")]
    return lines(found[-1].removeprefix("**Reading.**").strip()) if found else ""


def _tell(profile: str, minutes: float) -> None:
    """Publish what was made, say where to look, and how it compares with what is committed."""
    compared = rerun.told(profile)
    where = publish(profile)
    made = {p.stem for p in where.glob("*.png")}
    first = next((f"{n}.png" for n in LOOK_FIRST if n in made), "any")
    sys.stdout.write(
        f"{len(made)} figures in {where.relative_to(places.ROOT)}/ "
        f"(look first at {first}), executed notebooks and results in "
        f"runs/{profile}/. This took {minutes:.1f} minutes. To read it all as "
        f"pages: make site PROFILE={profile}\n{compared}"
    )
    if found := reading(places.folder(profile) / "11_summary.ipynb"):
        note = TIER_NOTES.get(load_profile(profile)["tier"], "")
        sys.stdout.write(f"\nWhat was found ({note}):\n\n{found}\n")


def publish(profile: str) -> Path:
    """Copy a default run's figures to `figures/` and its manifests to `data_manifests/`.

    `figures/` is committed and holds what the default profile gives, so that smaller runs leave it
    alone; theirs stay in `runs/<profile>/figures/`. Its tables say their tier in a last column, since a
    table is passed on without its sidecar. Returns the folder to look into.
    """
    base = places.folder(profile)
    if profile != "default":
        return base / "figures"
    tier = load_profile(profile)["tier"]
    # A user's own scan is not ours to publish, and a comparison with what is committed is no part of it.
    ours = [
        p for p in (base / "figures").glob("*.*") if not p.name.startswith(("own_", rerun.NAME))
    ]
    targets = {p: places.ROOT / "figures" for p in ours}
    targets |= {p: places.ROOT / "data_manifests" for p in (base / "cohort").glob("phantom_*.csv")}
    for source, folder in sorted(targets.items()):
        target = folder / source.name
        if folder.name == "figures" and source.suffix == ".csv":
            said = with_tier(source.read_text(), tier)
            if not target.exists() or target.read_text() != said:
                write_text(target, said)
        elif not target.exists() or file_hash(source) != file_hash(target):
            copy(source, target)
    return places.ROOT / "figures"


def with_tier(table: str, tier: str) -> str:
    """A CSV's text with a last column `tier`, all else to the letter; one that has it stays as it is."""
    rows = list(csv.reader(io.StringIO(table, newline="")))
    if not rows or rows[0][-1:] == ["tier"]:
        return table
    text = io.StringIO(newline="")
    write = csv.writer(text, lineterminator="\n").writerow
    for i, row in enumerate(rows):
        write([*row, tier if i else "tier"])
    return text.getvalue()
