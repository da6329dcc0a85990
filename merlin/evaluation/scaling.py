"""Scaling laws of the off-the-shelf scores: fits with intervals, as tables and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from merlin.evaluation import results
from merlin.statistics import scaling as laws

# a and b of a·Dᵇ as read by a public review of arXiv v2 (paper_facts §7); D counts real pairs.
PUBLISHED = {"zero-shot F1": (0.458, 0.0524), "phenotype AUROC": (0.479, 0.0568)}
PUBLISHED_EXPONENTS = {name: b for name, (_, b) in PUBLISHED.items()}


@dataclass(frozen=True)
class Scaling:
    """One metric's laws.

    Attributes
    ----------
    law : str
        Chosen by the held-out largest size; empty where sizes are too few.
    fits : dict of str to (Fit, list of Fit)
        By law: on the data as they are, and on resamples.
    errors : dict of str to float
        At the held-out size.
    reason : str
        Why there is no fit.
    """

    law: str
    fits: dict
    errors: dict
    reason: str = ""


def evaluate(
    sizes: Sequence[float], runs: list[np.ndarray], *, metric: str, n_fits: int, seed: int
) -> Scaling:
    """Fit both laws to one metric.

    Parameters
    ----------
    sizes : (n,) float
    runs : list of (n_seeds, 1 + n_resamples) float
        By size; the first column is the data as they are.
    metric : str
        For the reason, where there is no fit.
    n_fits, seed : int

    Returns
    -------
    Scaling
    """
    x = np.asarray(sizes, float)
    n_sizes = len(np.unique(x))
    if n_sizes < 3:
        return Scaling("", {}, {}, f"{metric}: {n_sizes} sizes; a held-out one needs three")
    spread = [r[:, 0].var(ddof=1) for r in runs if len(r) > 1]
    variance = np.full(len(runs), np.mean(spread)) if spread else None
    values = np.array([r[:, 0].mean() for r in runs])
    law, errors = laws.choose(x, values, variance=variance)
    fits = {}
    for name in laws.LAWS if n_sizes > 3 else ("power",):
        resampled = laws.bootstrap_fits(x, [r[:, 1:] for r in runs], name, n_fits=n_fits, seed=seed)
        fits[name] = (laws.fit(x, values, name, variance=variance), resampled)
    return Scaling(law if law in fits else "power", fits, errors)


def table(
    found: dict[str, Scaling], *, n_studies: int, n_patients: int, max_size: float,
    targets: Sequence[float] = (0.7, 0.8, 0.9),
) -> pd.DataFrame:  # fmt: skip
    """Exponents, held-out errors and sizes for targets, in the common schema.

    Parameters
    ----------
    found : dict of str to Scaling
        By metric.
    max_size : float
        Of the training sets: sizes beyond twice that are marked as extrapolated.
    targets : sequence of float
        For the chosen law's size that reaches them.

    Returns
    -------
    DataFrame
        `label` is the metric of the study, `metric` what is told of it, `model` the law.
    """
    counts = dict(n_studies=n_studies, n_patients=n_patients)
    rows = []
    for name, s in found.items():
        if not s.fits:
            rows.append(results.missing(name, "exponent", s.reason, model="power", **counts))
            continue
        for law, (plain, resampled) in s.fits.items():
            what = "exponent" if law == "power" else "exponent of the offset law"
            values = {what: _exponent(plain, resampled)}
            if law in s.errors:
                values["error at the held-out size"] = (s.errors[law], np.nan, np.nan, "")
            if law == s.law:
                for target in targets:
                    values[f"studies for {target}"] = _reached(plain, resampled, target, max_size)
            for metric, (value, low, high, reason) in values.items():
                row = results.missing(name, metric, reason, model=law, **counts)
                row |= dict(value=value, low=low, high=high, is_chosen=law == s.law)
                rows.append(row | dict(status="ok" if np.isfinite(value) else "not evaluated"))
    return results.table("scaling", rows).replace([np.inf, -np.inf], np.nan)


def _exponent(plain, resampled):
    """Value, low, high, reason; nothing where the fit's bound was found instead of an exponent."""
    n_bound = sum(bool(f.at_bound) for f in resampled)
    low, high = np.quantile([f.b for f in resampled], [0.025, 0.975])
    if plain.at_bound:
        return np.nan, np.nan, np.nan, f"at bound: {plain.at_bound} ends the fit's range"
    if n_bound > 0.05 * len(resampled):
        reason = f"no interval: {n_bound} of {len(resampled)} refits are at a bound"
        return plain.b, np.nan, np.nan, reason
    return plain.b, low, high, ""


def _reached(plain, resampled, target, max_size):
    """Size at which a rising law reaches a target: value, low, high, reason."""
    value, *others = (f.size_for(target) if f.rises else np.inf for f in (plain, *resampled))
    low, high = np.quantile(others, [0.025, 0.975], method="nearest")
    if not np.isfinite(value):
        return value, low, high, "the law never reaches it"
    far = "beyond twice the data" if value > 2 * max_size else ""
    open_ended = "some refits never reach it" if not np.isfinite(high) else ""
    bound = "the law's exponent is at a bound" if plain.at_bound else ""
    return value, low, high, results.joined(far, open_ended, bound)


def curves(found: dict[str, Scaling], sizes: Sequence[float] | Mapping[str, float]) -> pd.DataFrame:
    """The chosen law of each metric with its band, from the smallest size to ten times the largest.

    Returns
    -------
    DataFrame
        `series, size, value, low, high`.
    """
    x = list(sizes.values() if isinstance(sizes, Mapping) else sizes)
    grid = np.geomspace(min(x), 10 * max(x), 40)
    rows = []
    for name, s in found.items():
        if not s.fits:
            continue
        plain, resampled = s.fits[s.law]
        band = np.quantile([f(grid) for f in resampled], [0.025, 0.975], axis=0)
        rows.append(
            pd.DataFrame(dict(series=name, size=grid, value=plain(grid), low=band[0], high=band[1]))
        )
    columns = ["series", "size", "value", "low", "high"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def published_curves() -> pd.DataFrame:
    """The published laws from 500 pairs to the paper's 15,331, without band: none was published."""
    grid = np.geomspace(500, 15331, 30)
    return pd.concat(
        [
            pd.DataFrame(dict(series=f"published {name}", size=grid, value=a * grid**b))
            for name, (a, b) in PUBLISHED.items()
        ],
        ignore_index=True,
    ).assign(low=np.nan, high=np.nan)
