"""Rows of the common result schema, and weights whose first column is the data as they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from merlin.statistics import bootstrap, seeds


def resampling(patient_ids: np.ndarray, n_resamples: int, *, seed: int) -> np.ndarray:
    """(n_studies, 1 + n_resamples) uint8: a column of ones, then resamples of patients.

    The same patients and seed give the same resamples for every model and metric, so differences
    between them are paired.
    """
    weights = bootstrap.patient_weights(patient_ids, n_resamples, seed=seed)
    return np.concatenate([np.ones((len(weights), 1), weights.dtype), weights], axis=1)


def row(
    label: str, metric: str, found: np.ndarray, *, known: np.ndarray, patient_ids: np.ndarray,
    n_positive: int, reason: str = "", is_ok: bool = True, **more: object,
) -> dict:  # fmt: skip
    """One row of the common schema.

    Parameters
    ----------
    label, metric : str
    found : (1 + n_resamples,) float
        The value on the data as they are, then on each resample.
    known : (n_studies,) bool
        Studies that count.
    patient_ids : (n_studies,) str
    n_positive : int
    reason : str
        Why there is no value, or what was left out of it.
    is_ok : bool
    **more
        Further columns.
    """
    e = bootstrap.interval(found[0] if is_ok else np.nan, found[1:])
    n_patients = len(set(np.asarray(patient_ids)[known]))
    found_here = dict(
        value=e.value, low=e.low, high=e.high, n_studies=int(np.sum(known)), n_patients=n_patients,
        n_positive=int(n_positive), status="ok" if is_ok else "not evaluated",
    )  # fmt: skip
    return missing(label, metric, reason) | found_here | more


def over_seeds_row(
    label: str, metric: str, drawn: np.ndarray, *, spread: tuple[float, float] | None = None,
    **more: Any,
) -> dict:  # fmt: skip
    """`row` of the mean over seeds, its interval widened by their spread; with `n_seeds` and `by_seed`.

    Parameters
    ----------
    drawn : (n_seeds, 1 + n_resamples) float
    spread : (float, float), optional
        As in `seeds.over_seeds`.
    **more
        As `row` takes it.
    """
    made = row(label, metric, drawn.mean(0), **more)
    if made["status"] != "ok":
        return made | dict(n_seeds=len(drawn), by_seed="")
    e = seeds.over_seeds(drawn, spread=spread, patients=(made["low"], made["high"]))
    return made | dict(low=e.low, high=e.high, n_seeds=len(drawn), by_seed=spaced(e.by_seed))


def spaced(values: Sequence[float]) -> str:
    """Numbers of runs side by side, as tables have them."""
    return " ".join(f"{v:.6g}" for v in values)


def difference_of_runs(
    one: np.ndarray, other: np.ndarray, *, spread: tuple[float, float] | None = None
) -> dict:
    """Paired difference of two models' means over seeds: `value, low, high, n_seeds, by_seed`.

    Runs of equal number are paired seed by seed, and one run is held against each of the other model's.

    Parameters
    ----------
    one, other : (n_seeds, 1 + n_resamples) float
        On the same resamples.
    spread : (float, float), optional
        Standard deviation of one model between seeds and its degrees of freedom, pooled over models:
        three differences alone say little of it. Default: of the differences.
    """
    one, other = np.atleast_2d(one), np.atleast_2d(other)
    if len(other) > len(one) == 1:
        one = np.repeat(one, len(other), 0)
    if spread and spread[1]:
        spread = (spread[0] * float(np.sqrt(1 + len(one) / len(other))), spread[1])
    else:
        spread = None
    e = seeds.over_seeds(one - other, spread=spread)
    said = dict(value=e.value, low=e.low, high=e.high)
    return said | dict(n_seeds=e.n_seeds, by_seed=spaced(e.by_seed))


def missing(
    label: str, metric: str, reason: str, *, n_studies: int = 0, n_patients: int = 0,
    n_positive: int = 0, **more: object,
) -> dict:  # fmt: skip
    """A row for what could not be evaluated, with its reason and counts."""
    return dict(
        label=label, metric=metric, value=np.nan, low=np.nan, high=np.nan, n_studies=n_studies,
        n_patients=n_patients, n_positive=n_positive, status="not evaluated", reason=reason, **more,
    )  # fmt: skip


def label_rows(
    names: Sequence[str], metric: str, found: np.ndarray, *, labels: np.ndarray,
    patient_ids: np.ndarray, is_ok: np.ndarray, reasons: Sequence[str], **columns: Sequence,
) -> list[dict]:  # fmt: skip
    """A row for each label of a metric.

    Parameters
    ----------
    names : sequence of str
    found : (n_labels, 1 + n_resamples) float
    labels : (n_studies, n_labels) float
        1, 0 or NaN; studies whose label is known count.
    patient_ids : (n_studies,) str
    is_ok : (n_labels,) bool
        Whether the label could be evaluated.
    reasons : (n_labels,) str
    **columns
        Further columns, a value a label.
    """
    return [
        row(
            name, metric, found[j], known=~np.isnan(labels[:, j]), patient_ids=patient_ids,
            n_positive=(labels[:, j] == 1).sum(), is_ok=bool(is_ok[j]), reason=reasons[j],
            **{column: values[j] for column, values in columns.items()},
        )
        for j, name in enumerate(names)
    ]  # fmt: skip


def table(task: str, rows: Sequence[dict], **constant: object) -> pd.DataFrame:
    """Rows as a table: its task first, columns of one value last."""
    made = pd.DataFrame(rows)
    made.insert(0, "task", task)
    return made.assign(**constant)


def joined(*texts: str) -> str:
    """Reasons side by side, empty ones left out."""
    return "; ".join(t for t in texts if t)


def difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Paired difference of two metrics on the same resamples: value, low, high.

    Parameters
    ----------
    one, other : (1 + n_resamples,) float
    """
    gap = np.asarray(one) - np.asarray(other)
    estimate = bootstrap.interval(gap[0], gap[1:])
    return estimate.value, estimate.low, estimate.high


def has_both(labels: np.ndarray) -> bool:
    """Whether known labels hold both classes."""
    return bool((labels == 1).any() and (labels == 0).any())
