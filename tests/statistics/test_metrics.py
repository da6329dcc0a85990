"""Metrics equal scikit-learn's and a slow count, with ties, weights and unknown labels."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from merlin.statistics import metrics

SEEDS = st.integers(0, 2**32 - 1)


def random_case(seed, *, n_labels=4, n_resamples=3):
    """Scores on a coarse grid (many ties), labels with unknowns, weights with zeros."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    scores = rng.integers(-3, 4, (n, n_labels)) / 2
    labels = rng.choice([0.0, 1.0, np.nan], (n, n_labels), p=[0.5, 0.3, 0.2])
    weights = rng.poisson(1, (n, n_resamples)).astype(np.uint8)
    return scores, labels, weights


def one_class(labels, weights):
    return len(set(labels[weights > 0])) < 2


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_auroc_equals_sklearn_with_ties_weights_and_unknown_labels(seed):
    scores, labels, weights = random_case(seed)
    found = metrics.auroc(scores, labels, weights)
    for j, r in np.ndindex(found.shape):
        known = ~np.isnan(labels[:, j])
        y, s, w = labels[known, j], scores[known, j], weights[known, r]
        if one_class(y, w):
            assert np.isnan(found[j, r])
        else:
            expected = roc_auc_score(y, s, sample_weight=w)
            np.testing.assert_allclose(found[j, r], expected, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_f1_equals_sklearn_with_weights_and_unknown_labels(seed):
    scores, labels, weights = random_case(seed)
    called = scores > 0
    found = metrics.f1(called, labels, weights)
    for j, r in np.ndindex(found.shape):
        known = ~np.isnan(labels[:, j])
        y, c, w = labels[known, j], called[known, j], weights[known, r]
        if not (w[y == 1] > 0).any():
            assert np.isnan(found[j, r])
        else:
            expected = f1_score(y == 1, c, sample_weight=w, zero_division=0)
            np.testing.assert_allclose(found[j, r], expected, rtol=1e-12)


def test_auroc_and_f1_of_a_case_counted_by_hand():
    """Positives 3, 1; negatives 2, 1, 0: of six pairs four are won and one is tied."""
    scores = np.array([[3.0], [1.0], [2.0], [1.0], [0.0], [9.0]])
    labels = np.array([[1], [1], [0], [0], [0], [np.nan]])
    assert metrics.auroc(scores, labels) == pytest.approx(np.array([[4.5 / 6]]), abs=0)
    # Called above 1: 3 (hit) and 2 (false); 1 is missed.
    assert metrics.f1(scores > 1, labels) == pytest.approx(np.array([[2 / 4]]), abs=0)


def test_weight_is_how_often_a_study_is_repeated():
    scores, labels, weights = random_case(11)
    again = np.repeat(np.arange(len(scores)), weights[:, 0])
    for metric, first in ((metrics.auroc, scores), (metrics.f1, scores > 0)):
        weighted = metric(first, labels, weights[:, :1])
        repeated = metric(first[again], labels[again])
        np.testing.assert_array_equal(weighted, repeated)


def test_constant_score_has_auroc_one_half():
    labels = np.array([[0.0], [1.0], [1.0]])
    assert metrics.auroc(np.zeros((3, 1)), labels) == [[0.5]]


def test_resamples_share_memory():
    """1,000 resamples of 5,000 studies and 60 labels at once would take 2.4 GB in doubles."""
    code = """
import resource
import numpy as np
from merlin.statistics import metrics
rng = np.random.default_rng(0)
labels = (rng.random((5000, 60)) < 0.2).astype(float)
scores, weights = rng.normal(size=labels.shape), rng.integers(0, 3, (5000, 1000))
metrics.auroc(scores[:10], labels[:10], weights[:10])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
metrics.auroc(scores, labels, weights)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 300  # MB


@pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
def test_one_class_gives_nan_not_one_half(label):
    labels = np.full((5, 1), label)
    assert np.isnan(metrics.auroc(np.arange(5.0)[:, None], labels)).all()
    if label != 1:
        assert np.isnan(metrics.f1(np.ones((5, 1)), labels)).all()


def test_resample_that_lost_a_class_is_nan_and_the_others_are_not():
    scores, labels = np.array([[1.0], [2.0], [3.0]]), np.array([[0.0], [0.0], [1.0]])
    weights = np.array([[1, 2, 0], [1, 1, 1], [1, 0, 2]])
    np.testing.assert_array_equal(metrics.auroc(scores, labels, weights), [[1.0, np.nan, 1.0]])
    np.testing.assert_array_equal(metrics.f1(scores > 2, labels, weights), [[1.0, np.nan, 1.0]])


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_order_of_studies_changes_nothing(seed):
    scores, labels, weights = random_case(seed)
    turn = np.random.default_rng(seed).permutation(len(scores))
    for metric, first in ((metrics.auroc, scores), (metrics.f1, scores > 0)):
        np.testing.assert_array_equal(
            metric(first, labels, weights), metric(first[turn], labels[turn], weights[turn])
        )


def test_masking_a_label_changes_only_its_finding():
    scores, labels, weights = random_case(5)
    labels[:2, 1] = [0.0, 1.0]
    masked = labels.copy()
    masked[:2, 1] = np.nan
    for metric, first in ((metrics.auroc, scores), (metrics.f1, scores > 0)):
        before, after = metric(first, labels, weights), metric(first, masked, weights)
        np.testing.assert_array_equal(before[[0, 2, 3]], after[[0, 2, 3]])
        np.testing.assert_array_equal(
            after[1:2], metric(first[2:, 1:2], labels[2:, 1:2], weights[2:])
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(scores=np.array([[1.0], [np.nan], [np.inf]])), "2 scores are not finite"),
        (
            dict(labels=np.array([[1.0], [0.0], [-1.0]])),
            r"1, 0 or NaN; found \[.*-1",
        ),
        (dict(labels=np.zeros((3, 2))), r"scores \(3, 1\) and labels \(3, 2\)"),
        (dict(weights=np.ones((4, 2))), r"weights \(4, 2\) must be \(3, n_resamples\)"),
    ],
)
def test_unusable_input_is_refused_with_its_value(change, message):
    case = dict(scores=np.zeros((3, 1)), labels=np.array([[1.0], [0.0], [1.0]]), weights=None)
    with pytest.raises(ValueError, match=message):
        metrics.auroc(**(case | change))


def f1_above(threshold, scores, labels):
    return metrics.f1(scores[:, None] > threshold, labels[:, None])[0, 0]


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_best_f1_threshold_equals_brute_force(seed):
    scores, labels, _ = random_case(seed)
    found = metrics.best_f1_threshold(scores, labels)
    for j, threshold in enumerate(found):
        if not (labels[:, j] == 1).any():
            assert np.isnan(threshold)
            continue
        tried = np.append(np.unique(scores[:, j]), scores[:, j].min() - 1)
        best = max(f1_above(t, scores[:, j], labels[:, j]) for t in tried)
        assert f1_above(threshold, scores[:, j], labels[:, j]) == best


def test_best_f1_threshold_stands_midway_and_ignores_unknown_labels():
    scores = np.array([[4.0], [3.0], [2.5], [1.0]])
    assert metrics.best_f1_threshold(scores, np.array([[1], [1], [np.nan], [0]])) == [2.0]


@pytest.mark.parametrize("scale", [1e9, 1e-12])
def test_best_f1_threshold_below_all_scores_calls_all_positive_at_any_scale(scale):
    scores, labels = scale * np.array([[1.0], [2.0]]), np.ones((2, 1))
    threshold = metrics.best_f1_threshold(scores, labels)
    assert f1_above(threshold[0], scores[:, 0], labels[:, 0]) == 1


def test_best_f1_threshold_separates_neighbouring_floats():
    low = np.nextafter(1.0, 2)
    scores, labels = np.array([[np.nextafter(low, 2)], [low]]), np.array([[1.0], [0.0]])
    threshold = metrics.best_f1_threshold(scores, labels)
    assert f1_above(threshold[0], scores[:, 0], labels[:, 0]) == 1
