"""Do 95 % intervals hold the truth in 95 % of studies? Simulation with a known truth.

A population is defined by its law, so its AUROC, F1 or recall is known; many test sets are drawn from
it, each gets its interval, and the share of intervals that hold the truth is their coverage. In the
clustered populations a patient has several studies that share an anatomy and a disease, as in a
hospital: resampling studies then takes repeats for evidence, and its intervals are too narrow.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from merlin.statistics import bootstrap, metrics
from merlin.streams import Stream, stream_of

METRICS = ("auroc", "f1", "recall")


@dataclass(frozen=True)
class Population:
    """Law of a test set.

    Attributes
    ----------
    n_patients : int
    studies_per_patient : tuple of int
        Drawn evenly; (1,) means no clusters.
    prevalence : float
        Of patients with the finding.
    separation : float
        Distance of the two classes' mean scores, in standard deviations.
    shared : float
        Share of the score's variance that is the patient's and not the study's, in [0, 1].
    """

    n_patients: int = 250
    studies_per_patient: tuple[int, ...] = (1, 2, 3, 6)
    prevalence: float = 0.3
    separation: float = 1.2
    shared: float = 0.7


def draw(
    population: Population, n_sets: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores and labels of many test sets with one layout of patients.

    Returns
    -------
    scores : (n_studies, n_sets) float
    labels : (n_studies, n_sets) float
        A patient keeps the label in all studies.
    patient : (n_studies,) int
    """
    rng = stream_of(seed, Stream.COVERAGE)
    p = population
    patient = np.repeat(np.arange(p.n_patients), rng.choice(p.studies_per_patient, p.n_patients))
    sick = rng.random((p.n_patients, n_sets)) < p.prevalence
    anatomy = rng.standard_normal((p.n_patients, n_sets)) * np.sqrt(p.shared)
    scores = rng.standard_normal((len(patient), n_sets)) * np.sqrt(1 - p.shared)
    scores += (anatomy + p.separation * sick)[patient]
    return scores, sick[patient].astype(float), patient


def measure(metric: str, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n_sets, n_resamples) of a metric; F1 and recall call a score above 0.6 positive."""
    if metric == "auroc":
        return metrics.auroc(scores, labels, weights)
    called = scores > 0.6
    if metric == "f1":
        return metrics.f1(called, labels, weights)
    w = weights.astype(float)
    with np.errstate(invalid="ignore"):
        return (called & (labels == 1)).T @ w / ((labels == 1).T @ w)


def truth(metric: str, population: Population) -> float:
    """The population's own value, from its law."""
    p = population
    if metric == "auroc":
        return float(norm.cdf(p.separation / np.sqrt(2)))
    recall = float(norm.sf(0.6 - p.separation))
    if metric == "recall":
        return recall
    false = float(norm.sf(0.6)) * (1 - p.prevalence)
    return 2 * recall * p.prevalence / (recall * p.prevalence + false + p.prevalence)


def coverage(
    population: Population, *, unit: str = "patient", n_sets: int = 2000, n_resamples: int = 1000,
    seed: int,
) -> list[dict]:  # fmt: skip
    """Share of 95 % intervals that hold the truth.

    Parameters
    ----------
    population : Population
    unit : {"patient", "study"}
        What is resampled.
    n_sets, n_resamples, seed : int

    Returns
    -------
    list of dict
        `metric, method, unit, truth, mean, covered, n_sets, width` for percentile and BCa intervals.
    """
    if unit not in ("patient", "study"):
        raise ValueError(f"unit must be 'patient' or 'study'; got {unit!r}")
    scores, labels, patient = draw(population, n_sets, seed=seed)
    drawn = patient if unit == "patient" else np.arange(len(patient))
    weights = bootstrap.patient_weights(drawn, n_resamples, seed=seed)
    without = bootstrap.jackknife_weights(drawn)
    plain = np.ones((len(patient), 1), np.uint8)
    rows = []
    for metric in METRICS:
        value, resampled, left_out = (
            measure(metric, scores, labels, w) for w in (plain, weights, without)
        )
        real = truth(metric, population)
        for method, jackknife in (("percentile", None), ("bca", left_out)):
            low, high = bootstrap.limits(value[:, 0], resampled, method=method, jackknife=jackknife)
            held = (low <= real) & (real <= high)
            rows.append(
                dict(
                    metric=metric, method=method, unit=unit, truth=real, mean=float(value.mean()),
                    covered=float(held.mean()), n_sets=n_sets, width=float(np.mean(high - low)),
                )
            )  # fmt: skip
    return rows
