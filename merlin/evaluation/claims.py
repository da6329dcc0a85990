"""The ledger: every number and design claim of the paper beside what was run here.

A claim with a value can only be judged in the tier that it names; on phantoms it is *not run*. A
design claim (A better than B) has a direction, and that can be asked of phantoms too: the answer is
about this small model on synthetic scans, and the word *reproduced* is kept for the full tier.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.run import read_yaml

SWEEP = read_yaml(Path(__file__).with_name("sweep.yaml"))
KEYS = (
    "id", "family", "figure", "claim", "value", "low", "high", "source", "reliability", "tier",
    "notebook", "result", "direction", "tolerance", "note",
)  # fmt: skip
RELIABILITY = ("primary", "secondary", "derived", "memory")
NEEDS = {"full": "the full tier", "public": "public data", "own data": "data of your own"}


class LedgerError(ValueError):
    """The ledger holds entries that can't be used; all are named."""


def read_claims(path: str | Path) -> list[dict]:
    """Read and check `claims.yaml`.

    Returns
    -------
    list of dict
        Each `direction` whole, those of the sweep too.

    Raises
    ------
    LedgerError
        Naming every bad entry, what was found and what was expected.
    """
    entries = read_yaml(path, most_kb=512)
    problems, seen = [], set()
    for n, entry in enumerate(entries, 1):
        where = f"entry {n} ({entry.get('id', 'no id')})"
        if set(entry) != set(KEYS):
            missing, extra = sorted(set(KEYS) - set(entry)), sorted(set(entry) - set(KEYS))
            problems.append(f"{where}: missing keys {missing}, unknown keys {extra}")
            continue
        if entry["id"] in seen:
            problems.append(f"{where}: its id occurs twice")
        seen.add(entry["id"])
        if entry["reliability"] not in RELIABILITY:
            problems.append(f"{where}: reliability {entry['reliability']!r}; one of {RELIABILITY}")
        if entry["reliability"] == "memory" and entry["value"] is not None:
            problems.append(f"{where}: a number from memory must not stand as a value")
        if entry["value"] is not None and not entry["source"]:
            problems.append(f"{where}: a value needs a source")
        try:
            entry["direction"] = _whole(entry["direction"])
        except StopIteration:
            problems.append(f"{where}: sweep.yaml has no claim {entry['direction']['sweep']!r}")
        sign = (entry["direction"] or {}).get("sign", 1)
        if sign not in (1, -1):
            problems.append(f"{where}: direction.sign is {sign!r}; expected 1 or -1")
    if problems:
        raise LedgerError(f"{path}: {len(problems)} problems\n  " + "\n  ".join(problems))
    return entries


def _whole(direction):
    """A direction as table, columns and sign, where it points to a claim of the sweep."""
    if not direction or "sweep" not in direction:
        return direction
    claim = next(c for c in SWEEP["claims"] if c["id"] == direction["sweep"])
    known = dict(table="ablations", label=claim["arm"], metric=claim["metric"], kind="difference")
    return known | dict(sign=claim["sign"]) | {k: v for k, v in direction.items() if k != "sweep"}


def select(tables: dict[str, pd.DataFrame], where: dict) -> pd.Series | None:
    """The one row of a results table that a claim points to.

    Parameters
    ----------
    tables : dict of str to DataFrame
    where : dict
        `table`, and columns with their values; `sign` is not a column.

    Returns
    -------
    pandas.Series or None
        None where the table is not there or the row not evaluated.

    Raises
    ------
    LedgerError
        If the columns do not exist, or several rows match.
    """
    table = tables.get(where["table"])
    if table is None:
        return None
    keep = np.ones(len(table), bool)
    for column, value in where.items():
        if column in ("table", "sign"):
            continue
        if column not in table:
            raise LedgerError(f"{where}: table {where['table']} has no column {column!r}")
        own = table[column]
        same = own.astype(str) == str(value)
        if not isinstance(value, str):
            same = pd.to_numeric(own, errors="coerce") == value
        keep &= same.to_numpy()
    found = table[keep]
    if len(found) > 1:
        raise LedgerError(f"{where}: {len(found)} rows match; name more columns")
    if found.empty or ("status" in found and found["status"].iloc[0] != "ok"):
        return None
    return found.iloc[0]


def ledger(entries: Sequence[dict], tables: dict[str, pd.DataFrame], *, tier: str) -> pd.DataFrame:
    """Each claim with its status in this tier.

    Parameters
    ----------
    entries : list of dict
        From `read_claims`.
    tables : dict of str to DataFrame
        Results and paired differences by name.
    tier : str

    Returns
    -------
    DataFrame
        Columns of the ledger, plus `status`, `ours` (full tier only), and `phantom`, `phantom_low`,
        `phantom_high`, `sign` for design claims asked of phantoms.
    """
    rows = []
    for entry in entries:
        row = {k: entry[k] for k in KEYS if k not in ("result", "direction")}
        row |= dict.fromkeys(("ours", "phantom", "phantom_low", "phantom_high", "sign"), np.nan)
        row["status"] = f"not run (needs {NEEDS.get(entry['tier'], entry['tier'])})"
        if tier == "full" and entry["result"] and entry["value"] is not None:
            found = select(tables, entry["result"])
            if found is not None:
                row["ours"] = float(found["value"])
                near = abs(row["ours"] - entry["value"]) <= entry["tolerance"]
                row["status"] = "reproduced" if near else "differs"
        elif entry["direction"]:
            found = select(tables, entry["direction"])
            row["sign"] = entry["direction"]["sign"]
            row["status"] = "not run"
            if found is not None:
                low, high = float(found["low"]), float(found["high"])
                row |= dict(phantom=float(found["value"]), phantom_low=low, phantom_high=high)
                seeds = found.get("by_seed", "")
                row["status"] = verdict(found["value"], low, high, row["sign"], by_seed=seeds)
        rows.append(row)
    return pd.DataFrame(rows)


def verdict(value: float, low: float, high: float, sign: int, *, by_seed: str = "") -> str:
    """`holds here` or `contradicted here` where interval and all seeds agree, else `not decided here`.

    Parameters
    ----------
    value, low, high : float
        Of a difference.
    sign : {1, -1}
        The claim's.
    by_seed : str
        Differences of single runs, separated by spaces; a single run decides nothing.
    """
    runs = [float(v) for v in str(by_seed).split()]
    alike = not runs or (len(runs) > 1 and {np.sign(v) for v in runs} == {np.sign(value)})
    if not (low > 0 or high < 0) or not alike:
        return "not decided here"
    return "holds here" if np.sign(value) == sign else "contradicted here"
