"""Coverage of every kind of interval that a results table carries, at the sizes where each is used.

Each case has a law, so its truth is known. A quarter of the patients have two studies, which share the
disease and 70 % of the score's variance; labels share a fifth of that. Each test set gets the interval
of its kind (`bootstrap.of_metric`), and the percentile interval of the plain metric beside it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

from merlin.statistics import bootstrap, comparisons, metrics
from merlin.streams import Stream, stream_of

SHARED, COMMON, CUT = 0.7, 0.2, 0.6  # of the score's variance; of that; called above
N_ORGANS = 20


@dataclass(frozen=True)
class Case:
    """One kind of estimate at one size.

    Attributes
    ----------
    kind : str
        What a reader calls it.
    metric : str
        As in a results table.
    n_patients : int
    prevalence, separation : tuple of float
        Of each label; empty for scores of a study.
    gap : float
        How much further the first of two models separates; 0: one model.
    """

    kind: str
    metric: str
    n_patients: int
    prevalence: tuple[float, ...] = ()
    separation: tuple[float, ...] = ()
    gap: float = 0.0


def spaced(low: float, high: float, n: int) -> tuple[float, ...]:
    """Prevalences in equal steps of their logarithm."""
    return tuple(np.geomspace(low, high, n).tolist())


def cases() -> list[Case]:
    """What the tables hold: one label, macros, chance, differences; means over few and many patients."""
    mixed = (0.5, 2.0, 1.0, 1.5, 0.8, 1.8)
    few, findings, codes = spaced(0.05, 0.2, 6), spaced(0.03, 0.4, 30), spaced(0.05, 0.4, 64)
    out = []
    for n, p in ((120, 0.2), (150, 0.1), (400, 0.06)):
        for metric in ("auroc", "f1", "auprc"):
            out.append(Case(f"one label, {p:.0%} positive", metric, n, (p,), (1.2,)))
    for n in (120, 400):
        for metric in ("auroc", "f1"):
            out.append(Case("macro, 30 findings", metric, n, findings, mixed * 5))
    for n, metric in ((150, "auroc"), (150, "auprc"), (150, "brier")):
        out.append(Case("mean, 6 diseases", metric, n, few, (0.9,) * 6))
    for metric in ("auroc", "auprc"):
        out.append(Case("macro, 64 phecodes", metric, 400, codes, (mixed * 11)[:64]))
        out.append(Case("chance, 64 phecodes", metric, 400, codes, (0.0,) * 64))
    for n, metric in ((120, "auroc"), (400, "auroc"), (400, "f1")):
        out.append(Case("difference, 30 findings", metric, n, findings, mixed * 5, 0.2))
    out.append(Case("difference, 6 diseases", "auprc", 150, few, (0.9,) * 6, 0.2))
    out += [Case("mean over scans", m, n) for n in (16, 100) for m in ("dice", "distance_mm")]
    out += [Case("retrieval", "recall@1 of 64", n) for n in (120, 400)]
    reports = ("bleu", "rouge2", "clinical_f1")
    return out + [Case("reports", m, n) for n in (120, 400) for m in reports]


def layout(n_patients: int) -> np.ndarray:
    """(n_studies,) int: each study's patient; every fourth has two."""
    return np.repeat(np.arange(n_patients), 1 + (np.arange(n_patients) % 4 == 3))


def scored(
    case: Case, patient: np.ndarray, n_sets: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a first and a second model, and labels, each (n_studies, n_sets * n_labels)."""
    shape = (case.n_patients, n_sets, len(case.prevalence))
    sick = rng.random(shape) < case.prevalence
    anatomy = np.sqrt(1 - COMMON) * rng.standard_normal(shape)
    anatomy += np.sqrt(COMMON) * rng.standard_normal((*shape[:2], 1))
    both = np.sqrt(SHARED) * anatomy[patient]
    made = []
    for more in (case.gap, 0.0) if case.gap else (0.0,):
        noise = np.sqrt(1 - SHARED) * rng.standard_normal(both.shape)
        made.append(both + noise + ((np.array(case.separation) + more) * sick)[patient])
    flat = [a.reshape(len(patient), -1) for a in (made[0], made[-1], sick[patient])]
    return flat[0], flat[1], flat[2].astype(float)


def risk(score: np.ndarray, prevalence: np.ndarray, separation: np.ndarray) -> np.ndarray:
    """What a calibrated model says of a score."""
    return special.expit(special.logit(prevalence) + separation * (score - separation / 2))


def truth(metric: str, prevalence: np.ndarray, separation: np.ndarray) -> np.ndarray:
    """(n_labels,) the population's own values, from its law."""
    p, d = np.asarray(prevalence), np.asarray(separation)
    if metric == "auroc":
        return stats.norm.cdf(d / np.sqrt(2))
    if metric == "f1":
        hit, false = p * stats.norm.sf(CUT - d), (1 - p) * stats.norm.sf(CUT)
        return 2 * hit / (hit + false + p)
    at = np.linspace(-9, 12, 8001)[:, None]
    step = at[1, 0] - at[0, 0]
    ill, well = stats.norm.pdf(at - d), stats.norm.pdf(at)
    if metric == "brier":
        said = risk(at, p, d)
        return (p * ill * (1 - said) ** 2 + (1 - p) * well * said**2).sum(0) * step
    hit, false = p * stats.norm.sf(at - d), (1 - p) * stats.norm.sf(at)
    return (ill * hit / np.maximum(hit + false, 1e-300)).sum(0) * step


def _labelled(case, weights, patient, n_sets, rng):
    """`used` and `plain`, (n_sets, 1 + n_resamples), the truth of each set, and patients behind it."""
    first, second, labels = scored(case, patient, n_sets, rng)
    n_labels = len(case.prevalence)
    p, d = np.tile(case.prevalence, n_sets), np.tile(case.separation, n_sets)

    def measured(scores, more, plainly):
        if case.metric == "auroc":
            return metrics.auroc(scores, labels, weights)
        if case.metric == "f1":
            return metrics.f1(scores > CUT, labels, weights)
        if case.metric == "brier":
            w = weights.astype(float)
            return ((risk(scores, p, d + more) - labels) ** 2).T @ w / w.sum(0)
        plain = metrics.average_precision(scores, labels, weights)
        if plainly:
            return plain
        found = metrics.auprc(scores, labels, weights)
        found[:, 0] = plain[:, 0]
        return found

    few = bootstrap.fewest(labels, patient)
    by_rank = case.metric in ("auroc", "auprc")
    real = truth(case.metric, p, d + case.gap)
    found = [measured(first, case.gap, plainly) for plainly in (False, True)]
    if case.gap:
        real = real - truth(case.metric, p, d)
        found = [
            f - measured(second, 0.0, plain) for f, plain in zip(found, (False, True), strict=True)
        ]
    real = np.where(few > 0, real, np.nan).reshape(n_sets, n_labels)
    used, plain = (
        np.where(few[:, None] > 0, f, np.nan).reshape(n_sets, n_labels, -1) for f in found
    )
    few = few.reshape(n_sets, n_labels)
    rarer = few if by_rank else [None] * n_sets
    used = np.stack([bootstrap.macro(u, n_few=f) for u, f in zip(used, rarer, strict=True)])
    plain = np.stack([bootstrap.macro(u) for u in plain])
    behind = few[:, 0] if by_rank and n_labels == 1 else np.full(n_sets, case.n_patients)
    return used, plain, np.nanmean(real, 1), behind


def _of_studies(metric, latent, rng):
    """(k, n_studies, n_sets): what each study adds, by a latent quality with patients in it."""
    if metric in ("dice", "distance_mm"):  # mean over organs, of which some are missed altogether
        own = np.sqrt(0.5) * rng.standard_normal((N_ORGANS, *latent.shape))
        organ = own + np.sqrt(0.5) * latent
        worst = 0.0 if metric == "dice" else 60.0
        good = special.expit(1.6 + 0.6 * organ) if metric == "dice" else np.exp(1 - 0.6 * organ)
        return np.where(organ < -2, worst, good).mean(0)[None]
    if metric == "rouge2":
        return special.expit(-0.8 + 0.9 * latent)[None]
    if metric.startswith("recall"):
        return (latent > -0.25).astype(float)[None]
    if metric == "clinical_f1":
        true = rng.poisson(4.0, latent.shape)
        hit = rng.binomial(true, special.expit(0.5 + 0.6 * latent))
        return np.stack([2 * hit, true + hit + rng.poisson(1.5, latent.shape)]).astype(float)
    words = rng.poisson(60.0, latent.shape) + 8
    hits = [rng.binomial(words - k, special.expit(0.8 * latent + 0.9 - 0.6 * k)) for k in range(4)]
    return np.stack([*hits, *(words - k for k in range(4))]).astype(float)


def _corpus(metric, total):
    """The metric from sums over studies, the parts of `_of_studies` and a count at the end."""
    if metric == "clinical_f1":
        return total[0] / total[1]
    if metric == "bleu":
        return np.exp(np.log(total[:4] / total[4:8]).mean(0))
    return total[0] / total[-1]


def _summed(case, weights, patient, n_sets, rng):
    """As `_labelled`, for metrics that are sums over studies; the truth from many of them."""

    def latent(who, n):
        own = rng.standard_normal((who.max() + 1, n))[who]
        return np.sqrt(SHARED) * own + np.sqrt(1 - SHARED) * rng.standard_normal((len(who), n))

    def total(parts, w):
        counted = np.concatenate([parts, np.ones_like(parts[:1])])
        return np.einsum("kns,nr->ksr", counted, w.astype(float), optimize=True)

    parts = _of_studies(case.metric, latent(patient, n_sets), rng)
    found = _corpus(case.metric, total(parts, weights))
    many = _of_studies(case.metric, rng.standard_normal((200_000, 1)), rng)
    real = float(_corpus(case.metric, total(many, np.ones((len(many[0]), 1))))[0, 0])
    return found, found, np.full(n_sets, real), np.full(n_sets, case.n_patients)


def coverage(case: Case, *, n_sets: int, n_resamples: int, seed: int) -> list[dict]:
    """Share of 95 % intervals that hold the truth: the kind's own, then percentiles.

    Returns
    -------
    list of dict
        `kind, metric, n_patients, method, is_used, truth, mean, covered, low, high, width, n_sets`; `low`
        and `high` are Wilson's interval of `covered`.
    """
    rng, patient = stream_of(seed, Stream.COVERAGE), layout(case.n_patients)
    weights = bootstrap.patient_weights(patient, n_resamples, seed=seed)
    weights = np.concatenate([np.ones((len(weights), 1), weights.dtype), weights], 1)
    simulate = _labelled if case.prevalence else _summed
    used, plain, real, behind = simulate(case, weights, patient, n_sets, rng)
    name = f"difference of {case.metric}" if case.gap else case.metric
    own = [bootstrap.of_metric(name, u, n=n) for u, n in zip(used, behind, strict=True)]
    ends = np.array([(e.low, e.high) for e, _ in own]).T
    rows = []
    for is_used, method, (low, high) in (
        (True, own[0][1], ends),
        (False, "percentile", bootstrap.limits(plain[:, 0], plain[:, 1:])),
    ):
        known = np.isfinite(low) & np.isfinite(real)
        held = int(((low <= real) & (real <= high))[known].sum())
        n = int(known.sum())
        least, most = comparisons.wilson(held, n)
        rows.append(
            dict(
                kind=case.kind, metric=name, n_patients=case.n_patients, method=method,
                is_used=is_used, truth=float(np.nanmean(real)), mean=float(np.nanmean(plain[:, 0])),
                covered=held / n, low=least, high=most, width=float((high - low)[known].mean()), n_sets=n,
            )
        )  # fmt: skip
    return rows


def all_kinds(*, n_sets: int, n_resamples: int, seed: int) -> pd.DataFrame:
    """`coverage` of every case; macros over many labels on a quarter of the sets, for their time."""
    rows = []
    for i, case in enumerate(cases()):
        n = n_sets if len(case.prevalence) < 20 else max(n_sets // 4, 2)
        rows += coverage(case, n_sets=n, n_resamples=n_resamples, seed=seed + i)
    return pd.DataFrame(rows)
