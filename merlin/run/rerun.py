"""What a rerun gives beside what is committed, quantity by quantity: value and interval there, value here.

A rerun on another processor repeats a cohort exactly and a training only within the luck of its seed;
which of the committed intervals hold the new values is the proof of what they promise.
"""

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from merlin.files import file_hash, read_csv, write_csv
from merlin.run import places

if TYPE_CHECKING:
    import pandas as pd

NAME = "committed_against_rerun"  # of the table, beside a run's figures
HEADLINES = "summary"  # the table whose rows are the headlines, one a task
_TEXTS = (
    "status",
    "reason",
    "by_seed",
    "beside",
    "note",
    "interval",
    "chapter",
    "baseline",
    "claim",
)
_NUMBERS = ("fraction",)  # numbers that name a row


def committed(path: str) -> bytes | None:
    """A file as the last commit has it; as it lies there, where the project is no checkout of git."""
    shown = subprocess.run(
        ["git", "-C", str(places.ROOT), "show", f"HEAD:{path}"], capture_output=True, check=False
    )
    if shown.returncode == 0:
        return shown.stdout
    is_checkout = (places.ROOT / ".git").exists()
    file = places.ROOT / path
    return file.read_bytes() if file.is_file() and not is_checkout else None


def unlike(profile: str, read: Callable[[str], bytes | None] = committed) -> str:
    """Why a run can't be held against the committed one: another profile, or other patients; empty if it can."""
    if profile.partition("-seed")[0] != "default":
        return f"figures/ hold the default profile, this is {profile}"
    manifests = sorted((places.ROOT / "runs" / profile / "cohort").glob("phantom_*.csv"))
    if not manifests:
        return "this run has no cohort"
    import hashlib

    for path in manifests:
        was = read(f"data_manifests/{path.name}")
        if was is None or hashlib.sha256(was).hexdigest() != file_hash(path):
            return f"another cohort than the committed one ({path.name}): other patients or reports"
    return ""


def beside(was: "pd.DataFrame", now: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of two versions of a table that have the same names, where the first has an interval.

    Parameters
    ----------
    was, now : DataFrame
        With `value, low, high`; rows are told apart by their texts and `fraction`.

    Returns
    -------
    DataFrame
        `quantity, committed, low, high, rerun, inside`; a row that is not unique is left out.
    """
    both = [c for c in was if c in now and c not in ("value", "low", "high", *_TEXTS)]
    keys = [c for c in both if not _is_number(was[c]) or c in _NUMBERS]
    tables = []
    for table in (was, now):
        named = table[keys].astype(str).agg(", ".join, axis=1) if keys else table.index.astype(str)
        tables.append(table.assign(quantity=named).drop_duplicates("quantity", keep=False))
    one, other = tables
    one = one[one["low"].notna() & one["high"].notna() & (one["high"] > one["low"])]
    found = one[["quantity", "value", "low", "high"]].merge(
        other[["quantity", "value"]].rename(columns={"value": "rerun"}), on="quantity"
    )
    found = found[found["rerun"].notna()].rename(columns={"value": "committed"})
    inside = (found["rerun"] >= found["low"]) & (found["rerun"] <= found["high"])
    return found.assign(inside=inside).reset_index(drop=True)


def _is_number(column: "pd.Series") -> bool:
    return column.dtype.kind in "if"


def compare(profile: str, read: Callable[[str], bytes | None] = committed) -> Path | None:
    """Write `runs/PROFILE/figures/committed_against_rerun.csv`; None where nothing is comparable."""
    import pandas as pd

    folder, parts = places.folder(profile) / "figures", []
    for path in sorted(folder.glob("*.csv")):
        was = None if path.stem == NAME else read(f"figures/{path.name}")
        if was is None:
            continue
        old, new = read_csv(io.BytesIO(was)), read_csv(path)
        if {"value", "low", "high"} <= set(old) & set(new):
            parts.append(beside(old, new).assign(table=path.stem))
    if not (parts := [p for p in parts if len(p)]):
        return None
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "table", table.pop("table"))
    write_csv(folder / f"{NAME}.csv", table)
    return folder / f"{NAME}.csv"


def told(profile: str, read: Callable[[str], bytes | None] = committed) -> str:
    """Compare a run and say what came out: each headline, then counts by table."""
    if why := unlike(profile, read):
        return f"Committed against rerun: not compared, {why}.\n"
    path = compare(profile, read)
    if path is None:
        return "Committed against rerun: no quantity in common.\n"
    table = read_csv(path)
    lines = ["Committed against rerun (inside the committed interval or not):"]
    for r in table[table["table"] == HEADLINES].itertuples():
        word = "inside" if r.inside else "OUTSIDE"
        lines.append(
            f"  {r.quantity}: {r.committed:.3f} [{r.low:.3f}, {r.high:.3f}], here {r.rerun:.3f}: {word}"
        )
    for name, part in table.groupby("table"):
        lines.append(f"  {name}: {part['inside'].sum()} of {len(part)} inside")
    lines.append(f"  all: {table['inside'].sum()} of {len(table)}. {path.relative_to(places.ROOT)}")
    return "\n".join(lines) + "\n"
