"""Intervals over patients beside intervals over studies: coverage in simulation, and DeLong's."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from merlin.statistics import bootstrap, comparisons, coverage, metrics


def both_units(populations: Mapping[str, coverage.Population], **options: int) -> pd.DataFrame:
    """Coverage of every population with either unit resampled, with Wilson's interval of the share.

    Parameters
    ----------
    populations : mapping of str to Population
    **options
        `n_sets, n_resamples, seed` of `coverage.coverage`.

    Returns
    -------
    DataFrame
        Its columns, `population`, and `low, high` of `covered`.
    """
    made = [
        pd.DataFrame(coverage.coverage(p, unit=unit, **options)).assign(population=name)
        for name, p in populations.items()
        for unit in ("patient", "study")
    ]
    table = pd.concat(made, ignore_index=True)
    held = (table["covered"] * table["n_sets"]).round()
    ends = [comparisons.wilson(k, n) for k, n in zip(held, table["n_sets"], strict=True)]
    table[["low", "high"]] = ends
    return table


def delong_beside(
    populations: Mapping[str, coverage.Population], *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Three intervals of an AUROC on one simulated test set of each population.

    Returns
    -------
    DataFrame
        `population, method, low, high`.
    """
    rows = []
    for name, p in populations.items():
        scores, labels, patient = coverage.draw(p, 1, seed=seed)
        weights = bootstrap.patient_weights(patient, n_resamples, seed=seed)
        value = metrics.auroc(scores, labels)[0, 0]
        i = bootstrap.interval(value, metrics.auroc(scores, labels, weights)[0])
        rows.append((name, "bootstrap over patients", i.low, i.high))
        one = (scores[:, 0], labels[:, 0])
        rows.append((name, "DeLong, studies", *comparisons.delong(*one, None).interval()))
        known = comparisons.delong(*one, patient).interval()
        rows.append((name, "DeLong, patients (Obuchowski)", *known))
    return pd.DataFrame(rows, columns=["population", "method", "low", "high"])


def as_results(
    table: pd.DataFrame, populations: Mapping[str, coverage.Population], every: pd.DataFrame, *,
    seed: int,
) -> pd.DataFrame:  # fmt: skip
    """The tables of `both_units` and of `kinds.all_kinds` in the common result schema."""
    drawn = {k: coverage.draw(p, 1, seed=seed)[2] for k, p in populations.items()}
    units = table.assign(
        task="coverage",
        label=table["metric"],
        metric="coverage of 95% " + table["method"] + " intervals",
        model="resampled " + table["unit"],
        split=table["population"],
        value=table["covered"],
        n_studies=table["population"].map({k: len(who) for k, who in drawn.items()}),
        n_patients=table["population"].map({k: len(np.unique(who)) for k, who in drawn.items()}),
        n_positive=0,
        status="ok",
        reason="",
    )
    way = every["is_used"].map({True: "as in the tables", False: "percentile"})
    kinds = every.assign(
        task="coverage", label=every["kind"], split=every["metric"], model=way,
        metric="coverage of 95% " + every["method"] + " intervals", value=every["covered"],
        n_studies=every["n_patients"], n_positive=0, status="ok", reason="",
    )  # fmt: skip
    return pd.concat([units, kinds], ignore_index=True)


def reading(table: pd.DataFrame) -> str:
    """What `both_units` says of the clustered population, in a sentence."""
    part = table[table["population"] == "clustered"].groupby("unit")["covered"]
    low, high = part.min(), part.max()
    return (
        "With one to six studies a patient, intervals over patients hold the truth in "
        f"{low['patient']:.1%} to {high['patient']:.1%} of the test sets; intervals over studies in only "
        f"{low['study']:.1%} to {high['study']:.1%}."
    )


def reading_of_kinds(every: pd.DataFrame) -> str:
    """What `kinds.all_kinds` says: how many kinds lie in the band, and where percentiles fail most."""
    used, plain = every[every["is_used"]], every[~every["is_used"]]
    inside = [int(((part["high"] >= 0.93) & (part["low"] <= 0.97)).sum()) for part in (used, plain)]
    worst = plain.loc[plain["covered"].idxmin()]
    return (
        f" Of {len(used)} kinds of estimate, {inside[0]} cover 93 to 97 % as the tables have them, "
        f"within the simulation's error, and {inside[1]} by percentiles, which do worst for "
        f"{worst['metric'].upper()} ({worst['kind']}: {worst['covered']:.0%})."
    )
