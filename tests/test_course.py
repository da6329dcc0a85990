"""The exercises' solutions in docs/course.md run, in order, on a file of scores, and are right."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, roc_auc_score

PAGE = Path(__file__).parents[1] / "docs" / "course.md"


def test_solutions_run_in_order_and_are_right(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    patient = np.repeat(np.arange(60), 2)
    label = (rng.random(60) < 0.4).astype(float)[patient]
    score = (label + rng.normal(size=60)[patient] + 0.1 * rng.normal(size=120)).round(1)
    table = pd.DataFrame({
        "study_id": [f"s{i}" for i in range(120)], "patient_id": [f"p{i}" for i in patient],
        "model": "main", "finding": "ascites", "score": score, "label": label,
    })  # fmt: skip
    rare = table.assign(finding="rare", label=np.where(np.arange(120) < 2, 1.0, np.nan))
    folder = tmp_path / "runs" / "smoke" / "predictions"
    folder.mkdir(parents=True)
    others = table.assign(model="tenth", score=0.0)
    pd.concat([table, rare, others]).to_parquet(folder / "zero_shot_findings.parquet")
    monkeypatch.chdir(tmp_path)
    known: dict = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), known)
    assert known["common"] == "ascites"
    assert known["auroc"] == roc_auc_score(label, score)
    assert known["f1"] == f1_score(label, score > 0)
    assert known["f1_always"] == f1_score(label, np.ones(120))
    assert (
        known["by_patient"] > 1.2 * known["by_study"]
    )  # two alike studies tell little more than one
