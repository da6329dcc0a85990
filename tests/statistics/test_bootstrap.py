"""Intervals resample patients, are seeded, and cover the truth at their stated rate."""

import numpy as np
import pytest
from scipy import stats

from merlin.statistics import bootstrap, metrics


def clustered(rng, n_patients, n_data_sets):
    """Studies of patients with one to six scans each, whose scores resemble each other.

    Given the label a score is normal around 0 or 1.2, of variance 1; the patient's share is 70%.
    A patient's studies share the label, so the population values have closed forms.
    """
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 7, n_patients))
    label = (rng.random((n_patients, n_data_sets)) < 0.4).astype(float)[patient]
    shared = rng.normal(0, np.sqrt(0.7), (n_patients, n_data_sets))[patient]
    scores = 1.2 * label + shared + rng.normal(0, np.sqrt(0.3), label.shape)
    return patient, scores, label


TRUE_AUROC = stats.norm.cdf(1.2 / np.sqrt(2))
_hit, _false = 0.4 * stats.norm.sf(0.6 - 1.2), 0.6 * stats.norm.sf(0.6)  # called above 0.6
TRUE_F1 = 2 * _hit / (_hit + _false + 0.4)


def n_covering(ids_of, *, n_sets=4, per_set=100):
    """Of 400 simulated data sets, how many intervals hold the true AUROC, and the true F1."""
    covered = np.zeros(2, int)
    for k in range(n_sets):
        rng = np.random.default_rng([7, k])
        patient, scores, labels = clustered(rng, 150, per_set)
        weights = bootstrap.patient_weights(ids_of(patient), 400, seed=k)
        for m, (values, truth) in enumerate(
            (
                (metrics.auroc(scores, labels, weights), TRUE_AUROC),
                (metrics.f1(scores > 0.6, labels, weights), TRUE_F1),
            )
        ):
            low, high = np.array(
                [(e.low, e.high) for e in (bootstrap.interval(0.5, v) for v in values)]
            ).T
            covered[m] += ((low <= truth) & (truth <= high)).sum()
    return covered


def test_interval_over_patients_covers_truth_at_its_stated_rate():
    for covered in n_covering(lambda patient: patient):
        assert stats.binomtest(int(covered), 400, 0.95).pvalue > 0.005, covered


def test_interval_over_studies_covers_visibly_too_little_when_patients_repeat():
    """Why patients are resampled: design effect about 2.8, so 95% becomes about 75%."""
    for covered in n_covering(lambda patient: np.arange(len(patient))):
        assert stats.binomtest(int(covered), 400, 0.88, alternative="less").pvalue < 1e-6, covered


def test_studies_of_a_patient_share_their_weights_wherever_they_stand():
    ids = np.array(["b", "a", "b", "c", "a", "b"])
    weights = bootstrap.patient_weights(ids, 50, seed=7)
    assert weights.shape == (6, 50)
    for name in "abc":
        assert (weights[ids == name] == weights[ids == name][0]).all()
    first = weights[[1, 0, 3]]  # one row a patient: as many draws as patients
    assert (first.sum(0) == 3).all()
    assert (first.min(1) == 0).all()


def test_weights_have_the_moments_of_draws_with_replacement():
    """Multinomial: mean 1, variance 1 − 1/n, covariance −1/n."""
    n, r = 10, 20_000
    weights = bootstrap.patient_weights(np.arange(n), r, seed=7).astype(float)
    covariance = np.cov(weights)
    np.testing.assert_allclose(weights.mean(1), 1, atol=5 / np.sqrt(r))
    np.testing.assert_allclose(covariance, np.eye(n) - 1 / n, atol=8 / np.sqrt(r))


def test_weights_are_a_function_of_the_seed():
    ids = np.arange(20)
    first = bootstrap.patient_weights(ids, 5, seed=1)
    np.random.seed(3)  # noqa: NPY002  a global seed must not matter
    np.testing.assert_array_equal(first, bootstrap.patient_weights(ids, 5, seed=1))
    assert (first != bootstrap.patient_weights(ids, 5, seed=2)).any()


def test_order_of_studies_does_not_change_a_patients_weights():
    ids = np.array(["p3", "p1", "p2", "p1"])
    turn = np.array([2, 3, 0, 1])
    np.testing.assert_array_equal(
        bootstrap.patient_weights(ids, 9, seed=1)[turn],
        bootstrap.patient_weights(ids[turn], 9, seed=1),
    )


def test_duplicating_studies_narrows_intervals_over_studies_but_not_over_patients():
    rng = np.random.default_rng(7)
    labels = (rng.random((80, 1)) < 0.4).astype(float)
    scores = labels + rng.normal(0, 1, labels.shape)
    twice = np.tile(np.arange(80), 4)

    def width(ids):
        index = np.arange(80) if len(ids) == 80 else twice
        weights = bootstrap.patient_weights(ids, 4000, seed=7)
        values = metrics.auroc(scores[index], labels[index], weights)[0]
        estimate = bootstrap.interval(0.5, values)
        return estimate.high - estimate.low

    once = width(np.arange(80))
    assert width(twice) == once  # the same four scans each: no new information
    assert width(np.arange(320)) == pytest.approx(once / 2, rel=0.1)


def test_difference_of_a_model_with_itself_is_exactly_zero():
    rng = np.random.default_rng(7)
    labels, scores = rng.integers(0, 2, (60, 3)).astype(float), rng.normal(0, 1, (60, 3))
    weights = bootstrap.patient_weights(np.arange(60) // 2, 500, seed=7)
    first, again = (bootstrap.macro(metrics.auroc(scores, labels, weights)) for _ in range(2))
    estimate = bootstrap.interval(0.0, first - again)
    assert (estimate.low, estimate.high) == (0, 0)


def test_paired_difference_is_tighter_than_two_intervals():
    """Two models that differ by one point of noise: the pairing shows it, the intervals don't."""
    rng = np.random.default_rng(7)
    labels = (rng.random((200, 1)) < 0.5).astype(float)
    scores = labels + rng.normal(0, 1, labels.shape)
    weights = bootstrap.patient_weights(np.arange(200), 500, seed=7)
    first = metrics.auroc(scores, labels, weights)[0]
    second = metrics.auroc(scores + rng.normal(0, 0.05, labels.shape), labels, weights)[0]
    assert (first - second).std() < 0.2 * first.std()


def test_interval_equals_scipys_percentile_interval_on_the_same_resamples():
    data = np.random.default_rng(7).exponential(1, 30)
    for confidence in (0.5, 0.9, 0.95):
        expected = stats.bootstrap(
            (data,), np.mean, n_resamples=777, method="percentile", confidence_level=confidence,
            rng=np.random.default_rng(7),
        )  # fmt: skip
        found = bootstrap.interval(
            data.mean(), expected.bootstrap_distribution, confidence=confidence
        )
        np.testing.assert_allclose(
            (found.low, found.high), expected.confidence_interval, rtol=1e-12
        )


def test_unclustered_f1_interval_agrees_with_scipys_own_resampling():
    rng = np.random.default_rng(7)
    labels = (rng.random(150) < 0.4).astype(float)
    called = labels + rng.normal(0, 1, 150) > 0.5

    def slow_f1(y, c, axis):
        return 2 * (y * c).sum(axis) / (y.sum(axis) + c.sum(axis))

    expected = stats.bootstrap(
        (labels, called.astype(float)), slow_f1, paired=True, vectorized=True, n_resamples=20_000,
        method="percentile", rng=np.random.default_rng(8),
    )  # fmt: skip
    weights = bootstrap.patient_weights(np.arange(150), 20_000, seed=7)
    found = bootstrap.interval(0.5, metrics.f1(called[:, None], labels[:, None], weights)[0])
    # Monte Carlo error of a 2.5% quantile here is about 0.02 standard errors.
    np.testing.assert_allclose(
        (found.low, found.high), expected.confidence_interval, atol=0.1 * expected.standard_error
    )


def test_macro_leaves_out_what_a_resample_lost():
    values = np.array([[0.5, np.nan, np.nan], [0.7, 0.9, np.nan]])
    np.testing.assert_allclose(bootstrap.macro(values), [0.6, 0.9, np.nan])


def test_undefined_resamples_are_counted_not_used():
    estimate = bootstrap.interval(0.5, [0.4, np.nan, 0.4, 0.4])
    assert estimate == bootstrap.Estimate(0.5, 0.4, 0.4, 4, 1)


@pytest.mark.parametrize(
    ("value", "resampled", "n_undefined"),
    [(np.nan, [0.5, 0.5], 0), (0.5, [0.5, np.nan], 1), (0.5, [np.nan, np.nan], 2), (0.5, [], 0)],
)
def test_interval_is_nan_without_a_value_or_enough_resamples(value, resampled, n_undefined):
    estimate = bootstrap.interval(value, resampled)
    assert np.isnan([estimate.low, estimate.high]).all()
    assert (estimate.n_resamples, estimate.n_undefined) == (len(resampled), n_undefined)


def test_one_patient_has_an_interval_of_no_width():
    """All that one patient can tell: every resample is the data."""
    weights = bootstrap.patient_weights(["p", "p"], 20, seed=7)
    assert (weights == 1).all()
    values = metrics.auroc(np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]]), weights)[0]
    assert bootstrap.interval(1.0, values) == bootstrap.Estimate(1.0, 1.0, 1.0, 20, 0)


def test_two_patients_of_one_study_lose_a_class_in_half_of_the_resamples():
    weights = bootstrap.patient_weights(["p", "q"], 1000, seed=7)
    values = metrics.auroc(np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]]), weights)[0]
    estimate = bootstrap.interval(1.0, values)
    assert stats.binomtest(estimate.n_undefined, 1000, 0.5).pvalue > 0.001


@pytest.mark.parametrize("missing", [None, np.nan])
def test_missing_patient_id_is_refused(missing):
    with pytest.raises(ValueError, match="patient id is missing"):
        bootstrap.patient_weights(np.array(["p", missing], dtype=object), 3, seed=7)


def test_no_studies_are_refused():
    with pytest.raises(ValueError, match="no studies"):
        bootstrap.patient_weights([], 3, seed=7)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_in_percent_is_refused(confidence):
    with pytest.raises(ValueError, match=f"got {confidence}"):
        bootstrap.interval(0.5, [0.5], confidence=confidence)
