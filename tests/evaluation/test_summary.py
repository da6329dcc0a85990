"""The overview takes each headline with all that stands behind it."""

import pandas as pd
import pytest

from merlin.evaluation import readings, summary


def rows(*named, **more):
    """Rows of a results table: columns that tell them apart, and the same counts."""
    about = dict(value=0.8, low=0.7, high=0.9, n_studies=40, n_patients=30, n_seeds=3)
    return pd.DataFrame([dict(about | one | more) for one in named])


def tables():
    macro = [dict(label="macro", metric=m, wording="reported") for m in ("f1", "auroc")]
    models = [one | dict(model=m) for one in macro for m in ("main", "chance", "always present")]
    pools = [
        dict(label=label, metric="recall@1 of 8", model=m)
        for label in ("image to findings", "findings to image")
        for m in ("main", "chance")
    ]
    outside = [dict(label="macro", metric="auroc", site=s) for s in ("site_b", "site_c")]
    starts = [dict(label="mean", metric="auroc", start=s) for s in ("merlin", "random")]
    writers = [dict(model=m) for m in ("writer", "nearest")]
    networks = [dict(model=m) for m in ("merlin", "scratch")]
    return {
        "zero_shot_findings": rows(*models),
        "phenotypes": rows(*models[3:]),
        "retrieval": rows(*pools),
        "external": rows(*outside, task="zero-shot findings", n_patients=12),
        "five_year": rows(*starts, fraction=1.0, n_seeds=5),
        "report_generation": rows(*writers, label="full report", metric="clinical_f1"),
        "segmentation": rows(*networks, label="mean", metric="dice", split="test", fraction=1.0),
    }


def test_each_row_says_its_patients_and_its_trainings():
    found = summary.collect(tables(), pool=8).query("is_ours").set_index("row")
    assert found.loc["zero-shot findings, macro F1", "n_patients"] == 30
    assert found.loc["zero-shot findings, external site b, macro AUROC", "n_patients"] == 12
    assert found.loc["5-year diseases, mean AUROC, 100% of labels", "n_seeds"] == 5
    assert found["n_seeds"].notna().all()


def test_a_table_that_says_no_seeds_leaves_them_blank_and_a_lost_headline_is_named():
    old = {name: t.drop(columns="n_seeds") for name, t in tables().items()}
    assert summary.collect(old, pool=8)["n_seeds"].isna().all()
    lost = tables() | {"segmentation": tables()["segmentation"][:1]}
    with pytest.raises(KeyError, match=r"segmentation, mean Dice.*0 rows"):
        summary.collect(lost, pool=8)


def test_rows_stand_apart_only_where_intervals_do_and_the_words_follow():
    found = tables()
    found["phenotypes"].loc[found["phenotypes"]["model"] == "chance", ["low", "high"]] = 0.5, 0.6
    found["segmentation"].loc[0, ["low", "high"]] = 0.1, 0.2
    overview = summary.collect(found, pool=8)
    stands = overview.query("is_ours").set_index("row")["stands"]
    assert stands["phenotypes, macro AUROC"] == "above"
    assert stands["segmentation, mean Dice, 100% of labels"] == "below"
    assert (stands == "not told apart").sum() == len(stands) - 2
    said = readings.overview(overview).split("\n\n")
    assert said[0] == "Better than its baseline, intervals apart (1 of 10):"
    assert (
        said[1] == "- phenotypes, macro AUROC: 0.800 [0.700, 0.900] against 0.800 (random scores)"
    )
    assert said[4].startswith("Worse than its baseline")
