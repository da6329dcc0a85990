"""Compare chosen columns of a run's result tables with committed expectations, with tolerances.

python tests/compare_results.py smoke            # exit code 1 and a list if something moved
python tests/compare_results.py smoke --accept   # write the expectations from the run
"""

import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
EXPECTED = ROOT / "tests" / "expected"
KEYS = [
    "task",
    "label",
    "metric",
    "model",
    "split",
    "wording",
    "representation",
    "site",
    "fraction",
    "kind",
]
# The cohort and its labels are exact; scores depend on the processor's arithmetic, and a hundred
# training steps from random weights amplify the last bit.
TOLERANCE = {"n_studies": 0, "n_patients": 0, "n_positive": 0, "value": 0.12}
EXACT_METRICS = ("agreement",)
HELD = ("macro", "all findings", "full report")
TABLES = (
    "label_extraction",
    "zero_shot_findings",
    "phenotypes",
    "retrieval",
    "external",
    "five_year",
    "report_generation",
    "segmentation",
    "ablations",
    "intervals",
    "protocol_sensitivity",
)


def compare(profile, name):
    """Differences between a result table and what is expected of it."""
    found = pd.read_csv(ROOT / "runs" / profile / "results" / f"{name}.csv", dtype={"label": str})
    expected = pd.read_csv(EXPECTED / f"{profile}_{name}.csv", dtype={"label": str})
    keys = [k for k in KEYS if k in expected]
    both = expected.merge(found, on=keys, how="outer", suffixes=("_expected", ""), indicator=True)
    problems = [
        f"{name}: {' '.join(map(str, row[keys]))}: {'missing' if row['_merge'] == 'left_only' else 'new'}"
        for _, row in both[both["_merge"] != "both"].iterrows()
    ]
    both = both[both["_merge"] == "both"]
    for column, allowed in TOLERANCE.items():
        # Single findings scatter too much at this size; macro values and counts are held.
        is_held = both["label"].isin(HELD) & ~both["metric"].str.startswith("n above")
        part = both[is_held | (column != "value")]
        tight = part["metric"].isin(EXACT_METRICS)
        limit = tight.map({True: min(allowed, 1e-9), False: allowed})
        moved = part[(part[column] - part[f"{column}_expected"]).abs() > limit]
        problems += [
            f"{name}: {' '.join(map(str, row[keys]))}: {column} {row[column]:.4g}, "
            f"expected {row[f'{column}_expected']:.4g} ± {allowed}"
            for _, row in moved.iterrows()
        ]
    status = both[both["status"] != both["status_expected"]]
    problems += [
        f"{name}: {' '.join(map(str, row[keys]))}: {row['status']}, expected {row['status_expected']}"
        for _, row in status.iterrows()
    ]
    return problems, len(both)


def accept(profile, name):
    """Write the run's chosen columns as the new expectations."""
    found = pd.read_csv(ROOT / "runs" / profile / "results" / f"{name}.csv")
    keys = [k for k in KEYS if k in found]
    EXPECTED.mkdir(exist_ok=True)
    chosen = found[[*keys, *TOLERANCE, "status"]].round(4)
    chosen.to_csv(EXPECTED / f"{profile}_{name}.csv", index=False)


def main(argv):
    """Compare or accept all tables of a profile."""
    profile = argv[0]
    if "--accept" in argv:
        for name in TABLES:
            accept(profile, name)
        return 0
    problems, n_rows = [], 0
    for name in TABLES:
        found, n = compare(profile, name)
        problems += found
        n_rows += n
    print("\n".join(problems) or f"{n_rows} rows of {len(TABLES)} result tables are as expected")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
