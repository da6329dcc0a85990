"""Rows of the common result schema, and weights whose first column is the data as they are."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from merlin.statistics import bootstrap, metrics, seeds


def resampling(patient_ids: np.ndarray, n_resamples: int, *, seed: int) -> np.ndarray:
    """(n_studies, 1 + n_resamples) uint8: a column of ones, then resamples of patients.

    The same patients and seed give the same resamples for every model and metric, so differences
    between them are paired.
    """
    weights = bootstrap.patient_weights(patient_ids, n_resamples, seed=seed)
    return np.concatenate([np.ones((len(weights), 1), weights.dtype), weights], axis=1)


def row(
    label: str, metric: str, found: np.ndarray, *, known: np.ndarray, patient_ids: np.ndarray,
    n_positive: int, reason: str = "", is_ok: bool = True, n_few: int | None = None, **more: object,
) -> dict:  # fmt: skip
    """One row of the common schema.

    Parameters
    ----------
    label, metric : str
    found : (1 + n_resamples,) or (n_seeds, 1 + n_resamples) float
        The value on the data as they are, then on each resample; a row a run, where there are several
        that differ in their seed.
    known : (n_studies,) bool
        Studies that count.
    patient_ids : (n_studies,) str
    n_positive : int
    reason : str
        Why there is no value, or what was left out of it.
    is_ok : bool
    n_few : int, optional
        Patients of the rarer class, where their number decides (AUROC and AUPRC of one label);
        default: all patients that count.
    **more
        Further columns.

    Returns
    -------
    dict
        The mean over runs; its interval is of patients, and of seeds where `n_seeds` is more than one.
        `method` says how the patients' part was made (`bootstrap.method_of`).
    """
    runs = np.atleast_2d(found)
    n_patients = len(set(np.asarray(patient_ids)[known]))
    found_here: dict = dict(
        n_studies=int(np.sum(known)), n_patients=n_patients, n_positive=int(n_positive)
    )
    if is_ok:
        e, method = bootstrap.of_metric(metric, runs.mean(0), n=n_few or n_patients)
        whole = seeds.over_seeds(runs, patients=(e.low, e.high))
        own = " ".join(f"{v:.6g}" for v in whole.by_seed)
        found_here |= dict(value=e.value, low=whole.low, high=whole.high, status="ok")
        found_here |= dict(method=method, n_seeds=len(runs), by_seed=own)
    return missing(label, metric, reason) | found_here | more


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
        n_patients=n_patients, n_positive=n_positive, status="not evaluated", reason=reason, method="",
        n_seeds=0, by_seed="",
    ) | more  # fmt: skip


def label_rows(
    names: Sequence[str], metric: str, found: np.ndarray, *, labels: np.ndarray,
    patient_ids: np.ndarray, is_ok: np.ndarray, reasons: Sequence[str], **columns: Sequence,
) -> list[dict]:  # fmt: skip
    """A row for each label of a metric.

    Parameters
    ----------
    names : sequence of str
    found : (n_labels, 1 + n_resamples) or (n_seeds, n_labels, 1 + n_resamples) float
    labels : (n_studies, n_labels) float
        1, 0 or NaN; studies whose label is known count.
    patient_ids : (n_studies,) str
    is_ok : (n_labels,) bool
        Whether the label could be evaluated.
    reasons : (n_labels,) str
    **columns
        Further columns, a value a label.
    """
    by_rank = metric in ("auroc", "auprc")
    few = bootstrap.fewest(labels, patient_ids) if by_rank else np.zeros(len(names), int)
    return [
        row(
            name, metric, found[..., j, :], known=~np.isnan(labels[:, j]), patient_ids=patient_ids,
            n_positive=(labels[:, j] == 1).sum(), is_ok=bool(is_ok[j]), reason=reasons[j],
            n_few=int(few[j]) or None,
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


def difference(
    one: np.ndarray,
    other: np.ndarray,
    metric: str = "",
    *,
    n: float = np.inf,
    is_trained: bool = True,
) -> tuple[float, float, float]:
    """Paired difference of two metrics on the same resamples: value, low, high.

    Parameters
    ----------
    one, other : (1 + n_resamples,) or (n_seeds, 1 + n_resamples) float
        As many runs on both sides are paired by their seed. Where one side has a single run, its luck is
        taken to be as large as the spread of the other's runs.
    metric : str
        What is compared; of AUPRCs the interval is free of their lean, as that of each is.
    n : float
        Patients, where they are few.
    is_trained : bool
        Whether `other` has any luck of training.
    """
    one, other = np.atleast_2d(one), np.atleast_2d(other)
    gaps = one - other
    e, _ = bootstrap.of_metric(f"difference of {metric}", gaps.mean(0), n=n)
    spread = None
    if len(one) != len(other) and is_trained:
        sd, df = seeds.pooled_spread([one[:, 0], other[:, 0]])
        spread = (sd * np.sqrt(1 + len(gaps)), df)
    whole = seeds.over_seeds(gaps, patients=(e.low, e.high), spread=spread)
    return e.value, whole.low, whole.high


def over_runs(found: Iterable[np.ndarray]) -> np.ndarray:
    """(n_seeds, 1 + n_resamples): a row a run; of one run, that row alone."""
    runs = np.stack(list(found))
    return runs if len(runs) > 1 else runs[0]


def auprc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n_labels, 1 + n_resamples): average precision on the data, `metrics.auprc` on the resamples.

    Parameters as `metrics.auprc`; the first column of the weights is of ones.
    """
    found = metrics.auprc(scores, labels, weights)
    found[:, 0] = metrics.average_precision(scores, labels)[:, 0]
    return found


def has_both(labels: np.ndarray) -> bool:
    """Whether known labels hold both classes."""
    return bool((labels == 1).any() and (labels == 0).any())
