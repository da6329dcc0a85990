"""Scaling laws of the off-the-shelf scores: fits with intervals, as tables and curves.

    python -m merlin.evaluation.scaling points.csv

fits anybody's points: columns `size` and `value`; `series` where there are several curves, `seed` where
a size was trained more than once.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from merlin.evaluation import ranges, results
from merlin.run import read_csv
from merlin.statistics import law_choice
from merlin.statistics import scaling as laws

REACH = 10.0  # times the largest size: beyond, a law's size for a target is blank
# Entries of data_manifests/claims.yaml that hold a and b of a·Dᵇ; D counts real pairs.
PUBLISHED = {
    "zero-shot F1": ("scaling-f1-a", "scaling-f1-b"),
    "phenotype AUROC": ("scaling-auroc-a", "scaling-auroc-b"),
}
PAIRS = "cohort-paper-train"  # that many were trained on


@dataclass(frozen=True)
class Scaling:
    """One metric's laws.

    Attributes
    ----------
    law : str
        Chosen by `law_choice.choose`; empty where there is no fit.
    p : float
        Of that choice: how often the offset law beats a true power law by as much.
    points : Measured or None
    fits : dict of str to (Fit, (low, high), Fit, list of Fit)
        By law: least squares, the interval of its exponent, Huber's, and refits.
    errors : dict of str to float
        At the held-out largest size.
    wrong : dict of str to float
        How often the choice errs where each law is true, simulated.
    reason : str
        Why there is no fit.
    """

    law: str
    p: float
    points: laws.Measured | None
    fits: dict
    errors: dict
    wrong: dict
    reason: str = ""


def evaluate(
    sizes: Sequence[float], runs: list[np.ndarray], *, metric: str, n_fits: int, seed: int,
    n_simulated: int = 200,
) -> Scaling:  # fmt: skip
    """Fit both laws to one metric.

    Parameters
    ----------
    sizes : (n,) float
    runs : list of (n_seeds, 1 + n_resamples) float
        By size; the first column is the data as they are.
    metric : str
        For the reason, where there is no fit.
    n_fits, seed : int
    n_simulated : int
        Sets of points by each law, for how often the choice errs.

    Returns
    -------
    Scaling
    """
    n_sizes = len(np.unique(np.asarray(sizes, float)))
    if n_sizes < 3:
        return _unfitted(f"{metric}: {n_sizes} sizes; a law with an interval needs three")
    if max(len(r) for r in runs) < 2:
        return _unfitted(f"{metric}: one seed a size; its luck cannot be told from the data's")
    return fitted(
        laws.measured(np.asarray(sizes, float), runs),
        n_fits=n_fits,
        seed=seed,
        n_simulated=n_simulated,
    )


def by_size(
    judged: Mapping[tuple[str, int], Mapping[str, np.ndarray]],
    regimes: Mapping[str, Mapping[int, str]],
) -> dict[str, tuple[list[int], list[np.ndarray]]]:
    """Sizes and runs of each metric in each regime, as `evaluate` takes them.

    Parameters
    ----------
    judged : mapping of (run, seed) to metric to (1 + n_resamples,) float
        From `ablations.evaluate`.
    regimes : mapping of str to mapping of int to str
        Regime → size → name of the run. Metrics of the first go by their name alone.

    Returns
    -------
    dict of str to (list of int, list of (n_seeds, 1 + n_resamples) float)
    """
    found = {}
    for metric in dict.fromkeys(m for drawn in judged.values() for m in drawn):
        for number, (regime, sizes) in enumerate(regimes.items()):
            runs = [
                np.array([d[metric] for (a, _), d in judged.items() if a == n])
                for n in sizes.values()
            ]
            found[f"{metric}, {regime}" if number else metric] = list(sizes), runs
    return found


def by_run(judged: Mapping, regimes: Mapping[str, Mapping[int, str]]) -> pd.DataFrame:
    """`regime, size, seed, metric, value` of every run; one that is of both regimes stands in both."""
    rows = [
        (regime, size, seed, metric, drawn[0])
        for regime, sizes in regimes.items()
        for size, name in sizes.items()
        for (arm, seed), found in judged.items()
        if arm == name
        for metric, drawn in found.items()
    ]
    return pd.DataFrame(rows, columns=["regime", "size", "seed", "metric", "value"])


def _unfitted(reason):
    return Scaling("", np.nan, None, {}, {}, {}, reason)


def fitted(points: laws.Measured, *, n_fits: int, seed: int, n_simulated: int = 200) -> Scaling:
    """Both laws of points whose noise is known; of three sizes the power law alone."""
    fits = {}
    given = points.sizes, points.values
    both = len(np.unique(points.sizes)) > laws.N_PARAMETERS["offset"]
    for law in laws.LAWS if both else laws.LAWS[:1]:
        ends = laws.exponent_interval(points, law)
        plain = laws.fit(*given, law, variance=points.covariance)
        again = laws.refits(points, law, n_fits=n_fits, seed=seed)
        fits[law] = plain, ends, laws.fit(*given, law, huber=True), again
    law, p = law_choice.choose(points)
    wrong = (
        law_choice.choice_errors(points, n=n_simulated, seed=seed) if both and n_simulated else {}
    )
    return Scaling(law, p, points, fits, law_choice.held_out_errors(points), wrong)


def table(
    found: Mapping[str, Scaling], *, n_studies: int, n_patients: int,
    targets: Sequence[float] = (0.7, 0.8, 0.9),
) -> pd.DataFrame:  # fmt: skip
    """Exponents, held-out errors, wrong choices and sizes for targets, in the common schema.

    Parameters
    ----------
    found : dict of str to Scaling
        By metric.
    targets : sequence of float
        For the chosen law's size that reaches them.

    Returns
    -------
    DataFrame
        `label` is the metric of the study, `metric` what is told of it, `model` the law. What lies on
        a bound of the fit has status `at bound` and no value.
    """
    counts = dict(n_studies=n_studies, n_patients=n_patients)
    rows = []
    for name, s in found.items():
        if not s.fits:
            rows.append(results.missing(name, "exponent", s.reason, model="power", **counts))
            continue
        for law, (plain, ends, huber, again) in s.fits.items():
            of = "" if law == "power" else " of the offset law"
            told = {
                f"exponent{of}": _exponent(plain, ends),
                f"exponent{of}, Huber": _exponent(huber),
            }
            for what, by_law in (
                ("error at the held-out size", s.errors),
                ("simulated wrong choices where it is true", s.wrong),
            ):
                if law in by_law:
                    told[what] = by_law[law], np.nan, np.nan, "ok", ""
            for target in targets if law == s.law else ():
                told[f"studies for {target}"] = _reached(s.points, plain, again, target)
            for metric, (value, low, high, status, reason) in told.items():
                row = results.missing(name, metric, reason, model=law, **counts)
                row |= dict(value=value, low=low, high=high, status=status)
                rows.append(row | dict(is_chosen=law == s.law))
    return results.table("scaling", rows)


def _exponent(plain, ends=(np.nan, np.nan)):
    """Value, low, high, status, reason; nothing where the fit's bound was found instead of an exponent."""
    if plain.at_bound:
        return np.nan, np.nan, np.nan, "at bound", f"{plain.at_bound} ends the fit's range"
    open_ends = [
        f"no {e} end within the fit's range"
        for e, v in zip(("lower", "upper"), ends, strict=True)
        if np.isnan(v)
    ]
    return plain.b, *ends, "ok", "" if len(open_ends) == 2 else "".join(open_ends)


def _reached(points, plain, again, target):
    """Size at which the chosen law takes a value: value, low, high, status, reason."""
    largest = points.sizes.max()
    if plain.at_bound:
        return np.nan, np.nan, np.nan, "at bound", "the law's exponent is at a bound"
    value, *others = (f.size_for(target) for f in (plain, *again))
    low, high = np.quantile(others, [0.025, 0.975], method="nearest")
    low, high = (v if v <= REACH * largest else np.nan for v in (low, high))
    if value <= REACH * largest:
        said = "beyond the data" if value > largest else ""
        said = "below the data" if value < points.sizes.min() else said
        open_ended = (
            ""
            if np.isfinite(high)
            else f"some refits need more than {REACH:g} times the largest size"
        )
        return value, low, high, "ok", results.joined(said, open_ended)
    there = points.values >= target if plain.rises else points.values <= target
    if there.any():
        reason = "the law ends short of it; the first size whose runs reach it"
        return points.sizes[there].min(), np.nan, np.nan, "ok", reason
    never = (
        "the law never reaches it"
        if np.isinf(value)
        else f"beyond {REACH:g} times the largest size"
    )
    return np.nan, low, np.nan, "not evaluated", never


def curves(found: Mapping[str, Scaling]) -> pd.DataFrame:
    """The chosen law of each metric with its band, from the smallest size to `REACH` times the largest.

    A law whose exponent is at a bound has no curve. A band is cut at what its metric can be, and blank
    where refits lie further apart than that: there they say nothing.

    Returns
    -------
    DataFrame
        `series, size, value, low, high`.
    """
    rows = []
    for name, s in found.items():
        if s.points is None or not s.fits or s.fits[s.law][0].at_bound:
            continue
        plain, _, _, again = s.fits[s.law]
        grid = np.geomspace(s.points.sizes.min(), REACH * s.points.sizes.max(), 40)
        low, high = _band(name, np.array([f(grid) for f in again]))
        rows.append(
            pd.DataFrame(dict(series=name, size=grid, value=plain(grid), low=low, high=high))
        )
    columns = ["series", "size", "value", "low", "high"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def _band(name, drawn):
    """(n_sizes,) ends of the middle 95 % of refits, (n_fits, n_sizes), within the metric's range."""
    least, most = ranges.of(name)
    with np.errstate(invalid="ignore"):  # of infinite refits
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        known = np.isfinite(low) & np.isfinite(high) & (high - low <= most - least)
    return tuple(np.where(known, np.clip(v, least, most), np.nan) for v in (low, high))


def published(entries: Sequence[dict]) -> tuple[dict[str, tuple[float, float]], pd.DataFrame]:
    """The published laws, from `claims.read_claims`.

    Returns
    -------
    dict of str to (float, float)
        a and b, by metric.
    DataFrame
        Their curves from 500 pairs to as many as the paper had, without band: none was published.
    """
    value = {e["id"]: e["value"] for e in entries}
    known = {name: (value[a], value[b]) for name, (a, b) in PUBLISHED.items()}
    grid = np.geomspace(500, value[PAIRS], 30)
    drawn = [
        pd.DataFrame(dict(series=f"published {name}", size=grid, value=a * grid**b))
        for name, (a, b) in known.items()
    ]
    return known, pd.concat(drawn, ignore_index=True).assign(low=np.nan, high=np.nan)


def of_points(table_: pd.DataFrame, *, n_simulated: int = 200, seed: int = 1) -> pd.DataFrame:
    """Both laws of anybody's points.

    Parameters
    ----------
    table_ : DataFrame
        `size, value`, and where there are such `series` and `seed`. Without seeds the noise is taken
        from the scatter about the offset law (of three sizes, the power law).
    n_simulated, seed : int
        Sets of points by each law, for how often the choice errs.

    Returns
    -------
    DataFrame
        As of `table`, without targets.
    """
    if lost := {"size", "value"} - set(table_):
        raise ValueError(
            f"points: no column {', '.join(sorted(lost))}; there are {', '.join(table_)}"
        )
    series = table_["series"] if "series" in table_ else pd.Series("points", table_.index)
    found = {}
    for name, part in table_.groupby(series, sort=False):
        by_size = part.groupby("size")["value"]
        sizes, runs = (
            np.array(list(by_size.groups), float),
            [v.to_numpy()[:, None] for _, v in by_size],
        )
        if len(sizes) < 3:
            found[str(name)] = _unfitted(f"{len(sizes)} sizes; a law with an interval needs three")
        elif len(part) > len(sizes):
            found[str(name)] = fitted(
                laws.measured(sizes, runs), n_fits=2, seed=seed, n_simulated=n_simulated
            )
        else:
            points = laws.scattered(sizes, np.concatenate(runs)[:, 0])
            found[str(name)] = fitted(points, n_fits=2, seed=seed, n_simulated=n_simulated)
    return table(found, n_studies=0, n_patients=0, targets=())


if __name__ == "__main__":
    shown = of_points(read_csv(sys.argv[1]))[
        ["label", "metric", "model", "value", "low", "high", "status", "reason"]
    ]
    sys.stdout.write(shown.to_string(index=False) + "\n")
