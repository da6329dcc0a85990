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
