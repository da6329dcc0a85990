"""Hold every result table of a run: to committed expectations, and to the run's own files.

    python tests/compare_results.py smoke            # exit code 1 and a list if something is off
    python tests/compare_results.py smoke --accept   # write the expectations from the run

Counts and statuses are the cohort's, and exact. So are the values that no training touches. Those of a
trained model depend on the processor's arithmetic; they are held twice. Against the run's own
embeddings and predictions by `referee.py`, to four digits. And against committed values by block (all
rows of one quantity of one model) by the mean of their absolute differences: `ALLOWED` lies above what
two processors of different makers gave.

At the end every table is spoiled on purpose (chance in a model's place, another arm's values, a value
moved, a row lost, a count off by one), and each must be noticed: a check that would let retrieval at
chance pass is reported as failed.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import referee

ROOT = Path(__file__).resolve().parents[1]
EXPECTED = ROOT / "tests" / "expected"
KEYS = ["task", "label", "metric", "model", "split", "wording", "representation", "site", "fraction", "budget",
        "kind", "detail"]  # fmt: skip
COUNTS = ["n_studies", "n_patients", "n_positive"]
TABLES = (
    "label_extraction", "zero_shot_findings", "phenotypes", "retrieval", "external", "five_year",
    "report_generation", "segmentation", "ablations", "scaling_laws", "intervals",
    "protocol_sensitivity", "dataset_audit",
)  # fmt: skip
# Mean absolute difference that a block may show: (model, metric) → limit, by their beginnings, the
# first that fits. The longest training drifts most; what it gives is held by the referee.
ALLOWED = (
    ("main", "recall", 0.17),
    ("main", "macro f1", 0.06),
    ("main", "n above", 4.0),
    ("main", "", 0.4),
    ("probe", "f1", 0.2),
    ("tenth", "f1", 0.15),
    ("", "distance_mm", 60.0),
    ("", "dice", 0.015),
    ("merlin", "", 0.5),
    ("ehr,", "", 0.3),
    ("", "n above", 2.0),
    ("", "auroc", 0.12),
    ("", "auprc", 0.10),
    ("", "recall", 0.08),
    ("", "brier", 0.02),
    ("sweep", "", 0.02),
    ("", "clinical_f1", 0.25),
    ("", "", 0.06),
)
# What these count is what a network wrote or drew: statements that it made, organs that it found at all.
OF_A_NETWORK = ("side_right", "count_right", "degree_right", "distance_mm")
FEW = 10  # at so many or fewer, another processor's rounding may leave none
# What no training touches: simulations, rules, rivals that look at no image.
EXACT_MODELS = ("chance", "always present", "rules", "frequent", "normal", "resampled patient",
                "resampled study", "percentile", "as in the tables", "nan", "")  # fmt: skip
EXACT = 0.002
# Three sizes a factor of two apart fit no law: exponents move by more than this between processors. What
# the fits do with known laws is tests/statistics/test_scaling.py.
UNSEEN = (("scaling_laws", "one value moved"),)


# Whole tasks, each by itself: averages scatter less than single findings.
HELD, HELD_WITHIN = ("macro", "all findings", "full report"), 0.12


def allowed(metric, model):
    """How far a block of this metric and model may move."""
    if model in EXACT_MODELS:
        return EXACT
    return next(v for m, k, v in ALLOWED if model.startswith(m) and metric.startswith(k))


def keys_of(table):
    """The columns that name a row; a simulation's rows differ by its patients too."""
    more = ["n_patients"] if (table["task"] == "coverage").all() else []
    return [k for k in [*KEYS, *more] if k in table]


def compare(found, expected):
    """What differs between a table and its expectation, as sentences, and the blocks' differences.

    Returns
    -------
    problems : list of str
    blocks : DataFrame
        One row a block: its keys, `n`, `gap` (mean absolute difference), `allowed`.
    """
    keys = keys_of(expected)
    text = lambda t: t.assign(**{k: t[k].astype(str) for k in keys})  # noqa: E731
    both = text(expected).merge(
        text(found), on=keys, how="outer", suffixes=("_expected", ""), indicator=True
    )
    name = lambda row: " ".join(str(row[k]) for k in keys if row[k] not in ("", "nan"))  # noqa: E731
    problems = [
        f"{name(row)}: {'missing' if row['_merge'] == 'left_only' else 'new'}"
        for _, row in both[both["_merge"] != "both"].iterrows()
    ]
    both = both[both["_merge"] == "both"]
    for column in [c for c in [*COUNTS, "status"] if c not in keys]:
        old, new = both[f"{column}_expected"], both[column]
        moved = both[(old != new) & ~(old.isna() & new.isna()) & ~_is_networks(both, column)]
        problems += [
            f"{name(row)}: {column} {row[column]}, expected {row[f'{column}_expected']}"
            for _, row in moved.iterrows()
        ]
    lost = both[both["value"].isna() != both["value_expected"].isna()]
    lost = lost[~_is_networks(lost, "status")]
    problems += [f"{name(row)}: a value where none was, or none" for _, row in lost.iterrows()]
    part = both.dropna(subset=["value", "value_expected"])
    whole = part[part["label"].isin(HELD) & ~part["metric"].str.startswith("n above")]
    whole = whole[~_is_networks(whole, "status")]
    far = whole[(whole["value"] - whole["value_expected"]).abs() > HELD_WITHIN]
    problems += [
        f"{name(row)}: {row['value']:.4g}, expected {row['value_expected']:.4g} ± {HELD_WITHIN}"
        for _, row in far.iterrows()
    ]
    by = [k for k in keys if k != "label"]
    blocks = (
        part.assign(gap=(part["value"] - part["value_expected"]).abs())
        .groupby(by, dropna=False)["gap"]
        .agg(n="size", gap="mean")
        .reset_index()
    )
    limits = [allowed(*pair) for pair in zip(blocks["metric"], blocks["model"], strict=True)]
    few = np.where(blocks["n"] < 8, 3.0, 1.0)  # few values of few studies scatter more
    exact = blocks["model"].isin(EXACT_MODELS)
    blocks["allowed"] = np.where(exact, limits, limits * few)
    problems += [
        f"{' '.join(str(row[k]) for k in by if row[k] not in ('', 'nan'))}: {row['n']} values lie "
        f"{row['gap']:.4f} apart on average, allowed {row['allowed']}"
        for _, row in blocks[blocks["gap"] > blocks["allowed"]].iterrows()
    ]
    return problems, blocks


def _is_networks(both, column):
    """Rows in which a difference of this column is a network's own, and small."""
    theirs = both["metric"].isin(OF_A_NETWORK)
    if column == "status":
        return theirs & (both[["n_positive", "n_positive_expected"]].max(axis=1) <= FEW)
    old, new = both[f"{column}_expected"], both[column]
    return theirs & ((old - new).abs() <= np.maximum(FEW, 0.25 * old))


def read(path):
    """A table with its names as text."""
    return pd.read_csv(path, dtype=dict.fromkeys(KEYS, str), keep_default_na=False,
                       na_values={c: [""] for c in ("value", *COUNTS)})  # fmt: skip


def result(profile, name):
    """A run's table."""
    return read(ROOT / "runs" / profile / "results" / f"{name}.csv")


def accept(profile, name):
    """Write the run's chosen columns as the new expectations."""
    found = result(profile, name)
    EXPECTED.mkdir(exist_ok=True)
    chosen = found[list(dict.fromkeys([*keys_of(found), *COUNTS, "value", "status"]))].round(4)
    chosen.to_csv(EXPECTED / f"{profile}_{name}.csv", index=False)


def main(argv):
    """Compare or accept all tables of a profile."""
    profile, problems, n_rows = argv[0], [], 0
    for name in TABLES:
        if "--accept" in argv:
            accept(profile, name)
            continue
        found, blocks = compare(result(profile, name), read(EXPECTED / f"{profile}_{name}.csv"))
        problems += [f"{name}: {p}" for p in found]
        n_rows += int(blocks["n"].sum())
        if "--gaps" in argv:
            print(blocks.assign(table=name).to_csv(index=False, header=name == TABLES[0]))
    if "--accept" in argv:
        return 0
    n_held, n_spoiled = 0, 0
    for name in TABLES:
        said, n = contradictions(profile, name, result(profile, name))
        problems += [f"{name}: {p}" for p in said]
        n_held += n
        for how, spoiled in spoils(result(profile, name)).items():
            n_spoiled += 1
            if (name, how) in UNSEEN:
                continue
            found, _ = compare(spoiled, read(EXPECTED / f"{profile}_{name}.csv"))
            if not (found or contradictions(profile, name, spoiled)[0]):
                problems.append(f"{name}: spoiled ({how}), and nobody noticed")
    print("\n".join(problems) or (
        f"{n_rows} values of {len(TABLES)} tables are as expected, {n_held} of them as the run's own "
        f"files have it; {n_spoiled} spoiled tables were all noticed"
    ))  # fmt: skip
    return 1 if problems else 0


def contradictions(profile, name, table):
    """What the run's own files say against a table, and how many values they were asked about."""
    if name not in referee.REFEREES:
        return [], 0
    return referee.disagree(name, table, ROOT / "runs" / profile, profile)


def spoils(table):
    """The table, wrong in each of several ways."""
    table = table.assign(value=table["value"].astype(float))
    made = {"a row lost": table.iloc[1:], "a count off by one": table.assign(
        n_studies=table["n_studies"] + (table.index == 0))}  # fmt: skip
    known = table["value"].notna() & (table["status"] == "ok")
    if known.sum() < 2:
        return made
    # Of the model with most values: an evaluation's own subject, not its rivals.
    model = table["model"][known].value_counts().index[0]
    its = table.index[known & (table["model"] == model)]
    rng = np.random.default_rng(0)
    moved = table.copy()
    moved.loc[its[0], "value"] += 0.03 + 0.1 * abs(moved.loc[its[0], "value"])
    made["one value moved"] = moved
    level = dict.fromkeys(("auroc", "zero-shot AUROC", "phenotype AUROC", "agreement"), 0.5)
    chance = table.copy()
    at = table.loc[its, "metric"].map(level)
    at[table.loc[its, "metric"].str.startswith("recall")] = 1 / 30
    chance.loc[its, "value"] = at.fillna(pd.Series(rng.permutation(table.loc[its, "value"]), its))
    made["a model at chance"] = chance
    others = [m for m in table["model"][known].unique() if m != model]
    swapped = table.copy()
    if others:
        swapped["model"] = table["model"].replace({model: others[0], others[0]: model})
    else:
        swapped.loc[its, "value"] = np.roll(table.loc[its, "value"], 1)
    made["another arm's values"] = swapped
    return {how: t for how, t in made.items() if not t.equals(table)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
