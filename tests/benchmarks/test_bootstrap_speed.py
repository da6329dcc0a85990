"""Speed of the patient bootstrap against a loop over scikit-learn, as a ratio inside one run."""

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from merlin.statistics import bootstrap, metrics

pytestmark = pytest.mark.slow
N_STUDIES, N_FINDINGS, N_RESAMPLES = 5_000, 30, 1_000


def seconds(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


@pytest.mark.parametrize("decimals", [2, 17], ids=["ties", "no ties"])
def test_auroc_of_all_resamples_is_20_times_as_fast_as_a_sklearn_loop(decimals):
    """30 findings × 1,000 resamples × 5,000 studies, with unknown labels."""
    rng = np.random.default_rng(7)
    scores = np.round(rng.normal(0, 0.1, (N_STUDIES, N_FINDINGS)), decimals)
    labels = rng.choice([0.0, 1.0, np.nan], scores.shape, p=[0.6, 0.2, 0.2])
    patients = rng.integers(0, 2 * N_STUDIES // 3, N_STUDIES)
    draw, weights = seconds(lambda: bootstrap.patient_weights(patients, N_RESAMPLES, seed=7))
    metrics.auroc(scores[:10], labels[:10], weights[:10])  # compiles

    findings, resamples = range(3), range(10)

    def loop():
        known = ~np.isnan(labels)
        return [
            [
                roc_auc_score(
                    labels[known[:, j], j],
                    scores[known[:, j], j],
                    sample_weight=weights[known[:, j], r],
                )
                for r in resamples
            ]
            for j in findings
        ]

    ours, theirs = [], []
    for _ in range(2):  # interleaved, so that a busy machine slows both
        ours.append(seconds(lambda: metrics.auroc(scores, labels, weights)))
        theirs.append(seconds(loop))
    ours_s, theirs_s = min(t for t, _ in ours), min(t for t, _ in theirs)
    ratio = (theirs_s / 30) / (ours_s / (N_FINDINGS * N_RESAMPLES))
    f1_s, _ = seconds(lambda: metrics.f1(scores > 0, labels, weights))
    print(f"AUROC {ours_s:.2f} s, F1 {f1_s:.2f} s, weights {draw:.2f} s; {ratio:.0f} times sklearn")
    np.testing.assert_allclose(ours[0][1][:3, :10], theirs[0][1], rtol=1e-12)
    assert ratio >= 20


def test_all_phenotypes_take_seconds_where_a_sklearn_loop_takes_an_hour():
    """692 phenotypes × 1,000 resamples × 5,137 studies, AUROC and F1; the loop on a slice of it."""
    import resource

    rng = np.random.default_rng(7)
    n, n_labels = 5_137, 692
    prevalence = rng.uniform(0.005, 0.3, n_labels)
    labels = (rng.random((n, n_labels)) < prevalence).astype(float)
    scores = np.round(rng.normal(size=(n, n_labels)) + labels, 3)  # with ties
    weights = bootstrap.patient_weights(rng.integers(0, 4_000, n), N_RESAMPLES, seed=7)
    metrics.auroc(scores[:10], labels[:10], weights[:10])  # compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    auroc_s, auroc = seconds(lambda: metrics.auroc(scores, labels, weights))
    f1_s, _ = seconds(lambda: metrics.f1(scores > 1, labels, weights))
    grown_gb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6

    def loop():
        return [
            [
                roc_auc_score(labels[:, j], scores[:, j], sample_weight=weights[:, r])
                for r in range(5)
            ]
            for j in range(3)
        ]

    loop_s, theirs = seconds(loop)
    np.testing.assert_allclose(auroc[:3, :5], theirs, rtol=1e-12)
    ratio = (loop_s / 15) / (auroc_s / (n_labels * N_RESAMPLES))
    print(
        f"AUROC {auroc_s:.1f} s, F1 {f1_s:.1f} s, {grown_gb:.2f} GB more; {ratio:.0f} times sklearn"
    )
    assert ratio >= 100
    assert grown_gb < 1
