"""The ledger: every number and design claim of the paper beside what was run here.

A claim with a value can only be judged in the tier that it names; on phantoms it is *not run*. A
design claim (A better than B) has a direction, or several where two comparisons answer it, and that can
be asked of phantoms too: the answer is about this small model on synthetic scans, and the word
*reproduced* is kept for the full tier. The rule is `statistics.verdict`, for all directions together.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.evaluation import ranges
from merlin.run import places, read_yaml
from merlin.statistics import verdict
from merlin.statistics.verdict import Question, Spread, Verdict

LIST = places.ROOT / "data_manifests" / "claims.yaml"
KEYS = (
    "id", "family", "figure", "claim", "value", "low", "high", "source", "reliability", "tier",
    "notebook", "result", "direction", "tolerance", "note",
)  # fmt: skip
RELIABILITY = ("primary", "secondary", "derived", "memory")
NAMED = {"tier": "needs"}  # keys under other names in the table, whose tier is that of its run
NEEDS = {"full": "the full tier", "public": "public data", "own data": "data of your own"}
# Of a direction, what is no column of its table.
ABOUT = ("table", "sign", "beside", "spread", "reference", "no_skill", "fair", "seeds")
NEEDED = ("table", "sign", "reference", "no_skill", "fair")
# How a direction says whether its rival is fairly trained.
FAIR = ("steps", "flat", "same", "unfair")


class LedgerError(ValueError):
    """The ledger holds entries that can't be used; all are named."""


def read_claims(path: str | Path = LIST) -> list[dict]:
    """Read and check `claims.yaml`.

    Returns
    -------
    list of dict
        `direction` is a list, empty where nothing can be asked of phantoms.

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
        directions = entry["direction"] or []
        entry["direction"] = [directions] if isinstance(directions, dict) else directions
        problems += [f"{where}: {odd}" for d in entry["direction"] for odd in _odd(d)]
    if problems:
        raise LedgerError(f"{path}: {len(problems)} problems\n  " + "\n  ".join(problems))
    return entries


def _odd(direction):
    """What is wrong with a direction."""
    said = [f"direction has no {k}" for k in NEEDED if k not in direction]
    if (sign := direction.get("sign", 1)) not in (1, -1):
        said.append(f"direction.sign is {sign!r}; expected 1 or -1")
    fair = direction.get("fair", {"same": ""})
    if not isinstance(fair, dict) or len(fair) != 1 or next(iter(fair)) not in FAIR:
        said.append(f"direction.fair is {fair!r}; expected one of {FAIR} with its evidence")
    return said


def select(tables: Mapping[str, pd.DataFrame], where: Mapping) -> pd.Series | None:
    """The one row of a results table that a claim points to.

    Parameters
    ----------
    tables : dict of str to DataFrame
    where : dict
        `table`, and columns with their values.

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
    found = table[_matches(table, where)]
    if len(found) > 1:
        raise LedgerError(f"{where}: {len(found)} rows match; name more columns")
    if found.empty or ("status" in found and found["status"].iloc[0] != "ok"):
        return None
    return found.iloc[0]


def _matches(table, where):
    """Rows whose columns have these values."""
    keep = np.ones(len(table), bool)
    for column, value in where.items():
        if column == "table":
            continue
        if column not in table:
            raise LedgerError(f"{where}: table {where['table']} has no column {column!r}")
        same = table[column].astype(str) == str(value)
        if not isinstance(value, str):
            same = pd.to_numeric(table[column], errors="coerce") == value
        keep &= same.to_numpy()
    return keep


def ledger(
    entries: Sequence[dict], tables: Mapping[str, pd.DataFrame], *, tier: str,
    profile: Mapping | None = None, hashes: Mapping[str, str] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Each claim with its status in this tier; one with several directions has a row for each.

    Parameters
    ----------
    entries : list of dict
        From `read_claims`.
    tables : dict of str to DataFrame
        Results and paired differences by name.
    tier : str
    profile : dict, optional
        From `load_profile`: whether arms had equal steps.
    hashes : dict of str to str, optional
        Of the tables' files.

    Returns
    -------
    DataFrame
        Columns of the ledger (`needs` is the tier that an entry takes), plus `status`, `reason`,
        `tables` (names and hashes); in the full tier `ours`, `ours_low`, `ours_high`; of claims asked of
        phantoms `direction`, `arms`, `phantom`, `phantom_low`, `phantom_high`, `sign`, `n_seeds`, `by_seed`, `p`,
        `p_adjusted`, `beside`.
    """
    found = iter(judged([d for e in entries for d in e["direction"]], tables, profile=profile))
    rows = []
    for entry in entries:
        row = {NAMED.get(k, k): entry[k] for k in KEYS if k not in ("result", "direction")}
        row |= dict.fromkeys((*OURS, *PHANTOM), np.nan) | dict.fromkeys(SAID, "")
        row["status"] = f"not run (needs {NEEDS.get(entry['tier'], entry['tier'])})"
        asked = [row | next(found) for _ in entry["direction"]]
        if tier == "full" and entry["result"] and entry["value"] is not None:
            asked = [row | _beside_published(entry, tables)]
        for one in asked or [row]:
            names = [n for n in str(one["tables"]).split() if n]
            one["tables"] = " ".join(f"{n}:{(hashes or {}).get(n, '')[:12]}" for n in names)
            rows.append(one)
    return pd.DataFrame(rows)


def _beside_published(entry, tables):
    """A published value and ours, in the full tier."""
    row = select(tables, entry["result"])
    if row is None:
        return {}
    value, low, high = (float(row[c]) for c in ("value", "low", "high"))
    status = verdict.published(low, high, entry["value"], entry["tolerance"])
    said = dict(status=status, tables=entry["result"]["table"])
    return dict(ours=value, ours_low=low, ours_high=high) | said


def judged(
    directions: Sequence[dict],
    tables: Mapping[str, pd.DataFrame],
    *,
    profile: Mapping | None = None,
) -> list[dict]:
    """What came out of directions that are asked together.

    Parameters
    ----------
    directions : sequence of dict
        Of entries; all that are asked, since Holm's correction counts them.
    tables : dict of str to DataFrame
    profile : dict, optional

    Returns
    -------
    list of dict
        Columns of `ledger` from `direction` on, with `status` and `reason`.
    """
    rows, questions = [], []
    for d in directions:
        try:
            row, why = select(tables, columns(d)), ""
        except LedgerError as error:  # said in the ledger: other claims can still be asked
            row, why = None, str(error)
        rows.append((row, why))
        if row is not None:
            questions.append(question(d, row, tables, profile=profile))
    answers = iter(zip(questions, verdict.judge(questions), strict=True))
    out = []
    for d, (row, why) in zip(directions, rows, strict=True):
        said = dict(direction=told(d), arms=arms(d if row is None else row), sign=d["sign"])
        said["tables"] = _tables(d)
        if row is None:
            out.append(said | dict(status="not run", reason=why))
            continue
        asked, v = next(answers)
        own = [float(row[c]) for c in ("value", "low", "high")]
        if asked.by_seed and np.isfinite(v.low):
            least, most = ranges.of(str(d.get("metric", "")), is_difference=True)
            own = [v.value, max(v.low, least), min(v.high, most)]
        numbers = dict(zip(("phantom", "phantom_low", "phantom_high"), own, strict=True))
        out.append(said | numbers | _told(row, v) | dict(beside=_beside(d, tables)))
    return out


def _told(row: pd.Series, v: Verdict) -> dict:
    seeds = dict(n_seeds=row.get("n_seeds", np.nan), by_seed=row.get("by_seed", ""))
    return seeds | dict(p=v.p, p_adjusted=v.p_adjusted, status=v.verdict, reason=v.reason)


def told(direction: dict) -> str:
    """A direction in words: its table, the columns that pick the row, and the sign that the claim expects."""
    where = ", ".join(
        f"{k} {v}" for k, v in columns(direction).items() if k not in ("table", "kind")
    )
    return (
        f"{direction['table']}: {where}; expected {'above' if direction['sign'] > 0 else 'below'} 0"
    )


def arms(row: Mapping) -> str:
    """What a paired row takes from what, as `whole_reports − reference`; empty where it is no pair."""
    for one, other in (("ours", "other"), ("label", "reference")):
        if isinstance(row.get(one), str) and isinstance(row.get(other), str) and row[other]:
            return f"{row[one]} − {row[other]}"
    rival = row.get("merlin minus")
    return f"merlin − {rival}" if isinstance(rival, str) else ""


def question(
    direction: dict, row: pd.Series, tables: Mapping[str, pd.DataFrame], *, profile: Mapping | None
) -> Question:
    """A direction as the rule takes it: gaps by seed, the patients' standard error, and whether it can be asked.

    A table that gives no gaps by seed but an interval of patients and seeds (`seeds: inside`, or their
    number) is taken by that interval's width; one that gives neither has one run, which decides nothing.
    """
    runs = [float(v) for v in str(row.get("by_seed", "")).split() if v != "nan"]
    width = float(row["high"] - row["low"]) / 3.92
    why = unaskable(direction, tables, profile=profile)
    if not runs and (row.get("n_seeds", 1) > 1 or direction.get("seeds") == "inside"):
        pair, none = (float(row["value"]),) * 2, Spread(0.0, 10**6)
        return Question(pair, width, direction["sign"], none, why)
    se = row.get("se_patients", np.nan)
    return Question(
        tuple(runs) or (float(row["value"]),), float(se if np.isfinite(se) else width), direction["sign"],
        _spread(direction, tables), why,
    )  # fmt: skip


def _spread(direction, tables):
    """Between seeds, pooled over the rows that `spread` picks; of the ablations over all arms."""
    where = direction.get("spread")
    if where is None and direction["table"] == "ablations":
        where = dict(table="ablations", metric=direction["metric"], kind="value")
    table = tables.get(where["table"]) if where else None
    if table is None or "by_seed" not in table:
        return None
    said = table[_matches(table, where)]["by_seed"].dropna().astype(str)
    return verdict.crossed_spread([[float(v) for v in s.split()] for s in said if s.strip()])


def unaskable(
    direction: dict, tables: Mapping[str, pd.DataFrame], *, profile: Mapping | None = None
) -> str:
    """Why a claim can't be asked here; empty where it can.

    Its reference must clearly beat what knows nothing (`no_skill` below the interval of `reference`),
    and its rival must be fairly trained (`fair`): the same `steps` in both arms by the profile, a `flat`
    learning curve by a row of this run, the `same` in all that the entry names, or `unfair`.
    """
    try:
        row = select(tables, direction["reference"])
    except LedgerError as error:
        return str(error)
    if row is None:
        return "the reference was not run"
    low, no_skill = float(row["low"]), float(direction["no_skill"])
    if not low > no_skill:
        return f"the reference does not clearly beat no skill ({low:.3f} against {no_skill:.3f})"
    (how, evidence) = next(iter(direction["fair"].items()))
    if how == "unfair":
        return f"the rival is not fairly trained: {evidence}"
    if how == "flat":
        return _still_rising(evidence, tables)
    if how == "steps" and profile is not None:
        steps = {a: steps_of(profile, a) for a in evidence}
        if len(set(steps.values())) > 1:
            told_ = ", ".join(f"{a} {n} of {b}" for a, (n, b) in steps.items())
            return f"unequal steps of studies: {told_}"
    return ""


def _still_rising(where, tables):
    """Why a rival has not finished learning, by the row of its curve; empty where it has."""
    try:
        row = select(tables, where)
    except LedgerError as error:
        return str(error)
    if row is None:
        return "the rival's learning curve was not drawn"
    return "" if str(row["is_flat"]) == "True" else "the rival's learning curve still rises"


def steps_of(profile: Mapping, arm: str) -> tuple[int, int]:
    """Steps and batch of an arm, of the sweep or not."""
    base, sweep = profile["02_pretraining"], profile["sweep"]
    own = profile["arms"].get(arm)
    if own is None:
        own = sweep["base"] | (sweep["arms"].get(arm) or {})
    return (base | own)["n_steps"], (base | own)["batch_size"]


def _beside(direction, tables):
    """The metric that stands beside the deciding one, in words."""
    if not (metric := direction.get("beside")):
        return ""
    try:
        row = select(tables, columns(direction) | {"metric": metric})
    except LedgerError as error:
        return str(error)
    if row is None:
        return f"{metric}: not run"
    return f"{metric} {row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def columns(direction: Mapping) -> dict:
    """Of a direction, the table and the columns that pick its row."""
    return {k: v for k, v in direction.items() if k == "table" or k not in ABOUT}


def _tables(direction):
    return " ".join(dict.fromkeys((direction["table"], direction["reference"]["table"])))


OURS = ("ours", "ours_low", "ours_high")
PHANTOM = ("phantom", "phantom_low", "phantom_high", "sign", "n_seeds", "p", "p_adjusted")
SAID = ("direction", "arms", "by_seed", "beside", "reason", "tables")
