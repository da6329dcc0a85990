"""The referee's means are over the trainings of the main arm."""

import numpy as np
import pandas as pd
import pytest
import referee
from sklearn.metrics import roc_auc_score

PROFILE = {
    "seed": 5, "main_seeds": [1, 2], "arms": {"main": {}, "tenth": {}},
    "05_phenotypes": {"min_positive": 2},
}  # fmt: skip
LABELS = (np.arange(20)[:, None] % 3 == 0).astype(float)


def written(base, name, seed):
    """An embeddings file with all that the referee reads of phecodes."""
    scores = np.random.default_rng(seed).normal(size=(20, 1))
    (base / "embeddings").mkdir(exist_ok=True)
    np.savez(
        base / "embeddings" / f"{name}.npz", phecode=np.array(["250"]), phecode_logits=scores,
        phecode_labels=LABELS, site=np.full(20, "internal"), split=np.full(20, "test"),
    )  # fmt: skip
    return roc_auc_score(LABELS[:, 0], scores[:, 0])


def test_rows_of_the_main_arm_are_means_over_its_seeds_and_others_are_one_run(tmp_path):
    runs = [written(tmp_path, name, i) for i, name in enumerate(("main", "main-1", "main-2"))]
    tenth = written(tmp_path, "tenth", 9)
    found = referee.phenotypes(tmp_path, PROFILE).query("metric == 'auroc' and label == '250'")
    value = found.set_index("model")["value"]
    assert value["main"] == pytest.approx(np.mean(runs))
    assert value["tenth"] == pytest.approx(tenth)
    one = referee.phenotypes(tmp_path, PROFILE | {"main_seeds": []})
    one = one.query("metric == 'auroc' and label == '250' and model == 'main'")
    assert one["value"].item() == pytest.approx(runs[0])


def test_of_reports_the_first_run_is_held_and_a_mean_that_its_runs_do_not_give_is_not():
    table = pd.DataFrame(
        dict(value=[0.5, 0.6, 0.7, np.nan], by_seed=["0.4 0.6", "0.4 0.6", "0.7", ""])
    )
    assert referee.by_first_run(table)["value"].tolist()[:3] == [0.4, 0.6, 0.7]
