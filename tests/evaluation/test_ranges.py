"""Intervals of bounded quantities end where the quantities do."""

import numpy as np
import pandas as pd
import pytest

from merlin.evaluation import ranges
from merlin.evaluation.results import difference, row
from merlin.statistics import bootstrap, kinds

FREE = ranges.FREE


@pytest.mark.parametrize(
    "case", kinds.cases(), ids=lambda c: f"{c.kind}, {c.metric}, {c.n_patients}"
)
def test_every_kind_of_quantity_has_its_range(case):
    low, high = ranges.of(case.metric, is_difference=bool(case.gap))
    assert low == (-1 if case.gap else 0)
    assert high == (np.inf if case.metric.startswith("distance") else 1)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("phenotype AUROC", (0, 1)), ("zero-shot F1", (0, 1)), ("recall@8 of all", (0, 1)),
        ("radgraph_f1", (0, 1)), ("clinical_f1_macro", (0, 1)), ("bertscore", (-1, 1)),
        ("n above 0.85", (0, np.inf)), ("difference of dice", (-1, 1)), ("slope", FREE),
        ("exponent", FREE), ("difference of distance_mm", FREE),
    ],
)  # fmt: skip
def test_names_as_the_tables_have_them(metric, expected):
    assert ranges.of(metric) == pytest.approx(expected)


@pytest.mark.parametrize("share", bootstrap.SHARES)
def test_seeds_far_apart_push_no_share_beyond_its_range(share):
    """Three runs at 0.55, 0.8 and 0.99: the sum of both parts runs beyond 1, and the table says 1."""
    rng = np.random.default_rng(0)
    runs = np.array([0.55, 0.8, 0.99])[:, None] + np.r_[0, rng.normal(0, 0.01, 200)]
    who = np.arange(90).astype(str)
    made = row("one", share, runs, known=np.ones(90, bool), patient_ids=who, n_positive=30)
    assert made["high"] > 1
    cut = ranges.within(pd.DataFrame([made])).iloc[0]
    assert (cut["high"], cut["low"], cut["value"]) == (1, made["low"], made["value"])


def test_differences_and_what_has_no_bounds():
    ours, other = np.array([[0.9] * 9, [0.2] * 9, [0.99] * 9]), np.array([[0.1] * 9] * 3)
    gap = pd.DataFrame([difference(ours, other, "auroc")])
    assert gap["high"].item() > 1
    assert ranges.within(gap, "auroc", differences=True)["high"].item() == 1
    table = pd.DataFrame(
        dict(metric=["auroc", "auroc", "slope"], kind=["value", "difference", "value"], value=0.0, low=-2.0, high=2.0)
    )  # fmt: skip
    cut = ranges.within(table)
    assert cut["low"].tolist() == [0, -1, -2]
    assert cut["high"].tolist() == [1, 1, 2]
    unknown = ranges.within(table.assign(low=np.nan))["low"]
    assert unknown.isna().all()
    assert ranges.within(table[:0]).empty
