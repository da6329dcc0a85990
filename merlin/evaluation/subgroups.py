"""Who is served, who is missed: scores of a run by sex, age, phase, habitus, scanner and site.

Scores and labels come from what other notebooks left; nothing is encoded or trained. A group is held
against all others whose group is known, on the same resamples of patients and over the same labels: those
with enough patients of either class on both sides. Each difference counts once among all that are asked
together, after Holm. Groups that are too small are rows with a reason.

An AUROC that differs between groups can be the network's doing, or that of a group whose cases are
harder; a sensitivity that differs can be a threshold's. No row here says which.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from merlin.evaluation import ranges, results
from merlin.statistics import bootstrap, metrics, seeds, verdict

ATTRIBUTES = ("sex", "age", "phase", "habitus", "scanner", "site")
_COLUMNS = {"phase": "phase", "scanner": "manufacturer", "site": "site"}  # of the manifest
_THIRDS = ("thin third", "middle third", "large third")
OPERATING = ("sensitivity", "specificity")


@dataclass(frozen=True)
class Task:
    """What one notebook said of each study, and what is true of it.

    Attributes
    ----------
    name : str
    labels : tuple of str
    scores : (n_runs, n_studies, n_labels) float
        Higher means present; a run a seed.
    truth : (n_studies, n_labels) float
        1, 0, or NaN where nothing is known.
    study_id, patient_id : (n_studies,) str
    asked_of : tuple of str
        Attributes by which this task is split.
    threshold : (n_labels,) float, optional
        Above it a label is called present; without one there is no sensitivity.
    """

    name: str
    labels: tuple[str, ...]
    scores: np.ndarray
    truth: np.ndarray
    study_id: np.ndarray
    patient_id: np.ndarray
    asked_of: tuple[str, ...] = ATTRIBUTES
    threshold: np.ndarray | None = None

    def rows(self, use: np.ndarray) -> "Task":
        """The same of some studies."""
        about = dict(self.__dict__, scores=self.scores[:, use], truth=self.truth[use])
        return Task(
            **about | dict(study_id=self.study_id[use], patient_id=self.patient_id[use])
        )  # fmt: skip


def groups_of(
    studies: pd.DataFrame, *, age_edges: Sequence[float], fat_mm: pd.Series | None = None
) -> tuple[dict[str, pd.Series], dict[str, str]]:
    """The group of each study by attribute, and why an attribute can't be asked.

    Parameters
    ----------
    studies : DataFrame
        By study id, columns of a manifest, of which any may lack.
    age_edges : sequence of float
        Years at which a new band begins.
    fat_mm : Series, optional
        Thickness of the fat under the skin by study id: habitus, in thirds of those given here.

    Returns
    -------
    groups : dict of str to Series
        Ordered categories by study id; NaN where unknown.
    lacking : dict of str to str
        Attribute → reason.
    """
    groups: dict[str, pd.Series] = {}
    if "sex" in studies:
        groups["sex"] = _ordered(studies["sex"].map({"F": "women", "M": "men"}), ("women", "men"))
    if "age" in studies:
        names = _bands(age_edges)
        ends = [-np.inf, *age_edges, np.inf]
        years = pd.to_numeric(studies["age"], errors="coerce")
        groups["age"] = pd.cut(years, ends, right=False, labels=names)
    if fat_mm is not None and fat_mm.notna().sum() > len(_THIRDS):
        rank = fat_mm.reindex(studies.index).rank(method="first", pct=True)
        groups["habitus"] = pd.cut(rank, [0, 1 / 3, 2 / 3, 1], labels=_THIRDS)
    for attribute, column in _COLUMNS.items():
        if column in studies:
            named = studies[column].astype("string").str.replace("_", " ")
            groups[attribute] = _ordered(named, named.dropna().value_counts().index)
    groups = {a: groups[a] for a in ATTRIBUTES if a in groups and groups[a].notna().any()}
    lacking = {a: f"this cohort's manifest does not say {a}" for a in ATTRIBUTES if a not in groups}
    return groups, lacking


def _ordered(values, names):
    return pd.Series(pd.Categorical(values, categories=list(names), ordered=True), values.index)


def _bands(edges):
    """`under 50`, `50 to 64`, `65 and over`."""
    inner = [f"{a:g} to {b - 1:g}" for a, b in itertools.pairwise(edges)]
    return [f"under {edges[0]:g}", *inner, f"{edges[-1]:g} and over"]


def characteristics(studies: pd.DataFrame, groups: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Patients and studies of each group by split: `attribute, group, split, n_patients, n_studies, share`.

    `share` is of the split's studies.
    """
    tables = []
    for attribute, group in groups.items():
        at = studies[["patient_id", "split"]].assign(
            group=group.reindex(studies.index).astype(object)
        )
        by = at.fillna({"group": "unknown"}).groupby(["split", "group"], sort=False)["patient_id"]
        counted = by.agg(n_patients="nunique", n_studies="size").reset_index()
        order = {g: i for i, g in enumerate([*group.cat.categories, "unknown"])}
        counted = counted.sort_values("group", key=lambda c, o=order: c.map(o), kind="stable")
        tables.append(counted.assign(attribute=attribute))
    if not tables:
        return pd.DataFrame(columns=["attribute", "group", "split", "n_patients", "n_studies"])
    made = pd.concat(tables, ignore_index=True)
    of_split = made["split"].map(studies.groupby("split").size())
    columns = ["attribute", "group", "split", "n_patients", "n_studies"]
    return made[columns].assign(share=made["n_studies"] / of_split)


def by_group(
    tasks: Sequence[Task], groups: Mapping[str, pd.Series], lacking: Mapping[str, str], *,
    min_positive: int, min_patients: int, n_resamples: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Macro scores of every group, and its difference from all others.

    Parameters
    ----------
    tasks : sequence of Task
    groups, lacking : dict
        From `groups_of`.
    min_positive : int
        Patients of either class that a label needs in the group and outside it. A group in which fewer
        than half of the labels have them is too small.
    min_patients : int
        Of a group.
    n_resamples, seed : int

    Returns
    -------
    DataFrame
        The common schema with `attribute, kind` (`value` or `difference`), `n_labels`, and of differences
        `p` and `p_holm`. `label` is the group. Of two groups only the first's difference is asked:
        the other's is the same.
    """
    limits = dict(min_positive=min_positive, min_patients=min_patients)
    rows = []
    for task in tasks:
        weights = results.resampling(task.patient_id, n_resamples, seed=seed)
        for attribute in task.asked_of:
            if attribute in lacking:
                rows.append(_no_value(task, "all", attribute, lacking[attribute]))
                continue
            group = groups[attribute].reindex(task.study_id)
            names = [g for g in group.cat.categories if (group == g).any()]
            if len(names) < 2:
                why = f"one group only: {names[0]}" if names else "unknown for all studies"
                rows.append(_no_value(task, names[0] if names else "all", attribute, why))
                continue
            asked = names[:1] if len(names) == 2 else names
            for name in names:
                inside = (group == name).to_numpy()
                outside = group.notna().to_numpy() & ~inside
                about = dict(attribute=attribute, task=task.name)
                rows += _against_others(
                    task, weights, inside, outside, name, about, is_asked=name in asked, **limits
                )
    table = ranges.within(pd.DataFrame(rows).assign(model="main", split="test"))
    if "p" not in table:
        table["p"] = np.nan
    return table.assign(p_holm=verdict.holm(table["p"].to_numpy(float)))


def _no_value(task, group, attribute, reason, **counts):
    about = dict(task=task.name, attribute=attribute, kind="value", n_labels=0, p=np.nan)
    return results.missing(group, "auroc", reason, **counts) | about


def _against_others(
    task, weights, inside, outside, name, about, *, is_asked, min_positive, min_patients
):
    """Rows of one group: its values, and differences from the studies outside it."""
    who = [np.unique(task.patient_id[use]) for use in (inside, outside)]
    few = [bootstrap.fewest(task.truth[use], task.patient_id[use]) for use in (inside, outside)]
    ok = np.minimum(*few) >= min_positive
    judged = bootstrap.fewest(task.truth, task.patient_id) >= min_positive
    fewest, n_ok = min(map(len, who)), int(ok.sum())
    counts = dict(n_studies=int(inside.sum()), n_patients=len(who[0]), n_positive=n_ok)
    if fewest < min_patients or not n_ok or 2 * n_ok < judged.sum():
        why = f"{len(who[0])} patients, {len(who[1])} others; {min_patients} needed"
        if fewest >= min_patients:  # a mean over few labels would be another mean
            why = f"{n_ok} of {judged.sum()} labels have {min_positive} patients of either class"
        why = f"too small to tell: {why}"
        return [_no_value(task, name, about["attribute"], why, **counts)]
    one, other = (
        macros(task.rows(use), ok, few[i][ok], weights[use])
        for i, use in enumerate((inside, outside))
    )
    left_out = "" if ok.all() else f"{(~ok).sum()} of {len(ok)} labels too rare in a group"
    known = dict(known=inside, patient_ids=task.patient_id, n_positive=n_ok)
    known |= dict(reason=left_out, n_labels=n_ok, **about)
    rows = []
    for metric, found in one.items():
        said = results.row(name, _of_kind(metric), found, kind="value", p=np.nan, **known)
        rows.append(said | dict(metric=metric))
        if is_asked:
            gaps = np.atleast_2d(found) - np.atleast_2d(other[metric])
            kind = f"difference of {metric}"
            p = p_of(gaps, n=fewest)
            rows.append(
                results.row(name, kind, gaps, n_few=fewest, kind="difference", p=p, **known)
            )
    return rows


def _of_kind(metric):
    """A metric by a name that `bootstrap.method_of` knows: both are shares, as recall is."""
    return "recall" if metric in OPERATING else metric


def p_of(gaps: np.ndarray, *, n: int) -> float:
    """Two-sided p of no difference, of patients and of seeds where there are several.

    Parameters
    ----------
    gaps : (n_runs, 1 + n_resamples) float
    n : int
        Patients, of the smaller side.
    """
    e, _ = bootstrap.of_metric("difference of auroc", gaps.mean(0), n=n)
    if not e.high > e.low:
        return np.nan
    if len(gaps) == 1:  # that of Student's t, of which the interval is
        error = (e.high - e.low) / 2 / stats.t.isf(0.025, n - 1)
        return float(2 * stats.t.sf(abs(e.value) / error, n - 1))
    return seeds.over_seeds(gaps, patients=(e.low, e.high)).p_value()


def macros(
    task: Task, ok: np.ndarray, few: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Macro AUROC, and sensitivity and specificity where there is a threshold, over some labels.

    Parameters
    ----------
    task : Task
    ok : (n_labels,) bool
        Labels that count.
    few : (n_ok,) int
        Their patients of the rarer class.
    weights : (n_studies, 1 + n_resamples)

    Returns
    -------
    dict of str to (n_runs, 1 + n_resamples) float
    """
    truth = task.truth[:, ok]
    area = [metrics.auroc(s[:, ok], truth, weights) for s in task.scores]
    found = {"auroc": np.stack([bootstrap.macro(a, n_few=few) for a in area])}
    if task.threshold is not None:
        called = task.scores[0][:, ok] > task.threshold[ok]
        parts = operating(called, truth, weights)
        found |= {m: bootstrap.macro(v)[None] for m, v in zip(OPERATING, parts, strict=True)}
    return found


def operating(
    called: np.ndarray, truth: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity and specificity per label and resample.

    Parameters
    ----------
    called : (n_studies, n_labels) bool
    truth : (n_studies, n_labels) float
        1, 0 or NaN.
    weights : (n_studies, n_resamples)

    Returns
    -------
    sensitivity, specificity : (n_labels, n_resamples) float
        NaN where a resample holds none to judge by.
    """
    weights = weights.astype(float)
    out = []
    for value, right in ((1, called), (0, ~called)):
        there = truth == value
        with np.errstate(invalid="ignore", divide="ignore"):
            out.append(((right & there).T @ weights) / (there.T @ weights))
    return out[0], out[1]


def predictive(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative predictive value where a share `prevalence` has what is called (Bayes)."""
    hit, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    false, denied = (1 - specificity) * (1 - prevalence), specificity * (1 - prevalence)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hit / (hit + false), denied / (denied + missed)


def accuracy(
    task: Task, *, prevalences: Sequence[float], min_positive: int, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Sensitivity, specificity and predictive values of each label at the operating threshold.

    Parameters
    ----------
    task : Task
        With thresholds.
    prevalences : sequence of float
        In (0, 1), at which predictive values are given.
    min_positive : int
        Patients of either class.
    n_resamples, seed : int

    Returns
    -------
    DataFrame
        The common schema with `prevalence` and `threshold`. Metrics are `sensitivity`, `specificity`,
        `ppv` and `npv`; `macro` is the mean over labels.
    """
    if task.threshold is None:
        raise ValueError(f"{task.name}: no threshold, so nothing is called")
    weights = results.resampling(task.patient_id, n_resamples, seed=seed)
    few = bootstrap.fewest(task.truth, task.patient_id)
    ok = (few >= min_positive) & np.isfinite(task.threshold)
    called = task.scores[0] > task.threshold
    sensitivity, specificity = operating(called, task.truth, weights)
    found = {("sensitivity", np.nan): sensitivity, ("specificity", np.nan): specificity}
    for p in prevalences:
        both = predictive(sensitivity, specificity, p)
        found |= {(m, p): v for m, v in zip(("ppv", "npv"), both, strict=True)}
    counted = {"sensitivity": task.truth == 1, "specificity": task.truth == 0}
    rows = []
    for (metric, p), values in found.items():
        known = counted.get(metric, np.isfinite(task.truth))
        about: dict[str, Any] = dict(prevalence=p)
        for j, name in enumerate(task.labels):
            why = "" if ok[j] else f"{few[j]} patients of the rarer class; {min_positive} needed"
            made = results.row(
                name, "recall", values[j], known=known[:, j], patient_ids=task.patient_id,
                n_positive=int((task.truth[:, j] == 1).sum()), is_ok=bool(ok[j]), reason=why,
                threshold=task.threshold[j], **about,
            )  # fmt: skip
            rows.append(made | dict(metric=metric))
        if ok.any():
            made = results.row(
                "macro", "recall", bootstrap.macro(values[ok]), known=known.any(1),
                patient_ids=task.patient_id, n_positive=int(ok.sum()), threshold=np.nan, **about,
            )  # fmt: skip
            rows.append(made | dict(metric=metric))
    return results.table(f"{task.name}, accuracy", rows, model="main", split="test")


def reading(table: pd.DataFrame) -> str:
    """What `by_group` found: how many differences were asked, and which are left after Holm."""
    asked = table[table["p"].notna()]
    small = table["reason"].str.startswith("too small").sum()
    if asked.empty:
        return "No group could be held against the others: " + "; ".join(
            dict.fromkeys(table["reason"])
        )
    left = asked[asked["p_holm"] < 0.05].sort_values("p_holm")
    alone = int(((asked["low"] > 0) | (asked["high"] < 0)).sum())
    said = [
        f"{r.task}, {r.metric.removeprefix('difference of ')}, {r.label}: {r.value:+.3f} "
        f"[{r.low:.3f}, {r.high:.3f}]"
        for r in left.itertuples()
    ]
    found = f" {len(left)} after Holm's correction for all of them"
    found += f" ({'; '.join(said)})." if said else ", so none is told apart from chance."
    return (
        f"{len(asked)} differences between a group and the others were asked; the interval of {alone} "
        f"excludes zero alone,{found} {small} groups were too small to tell."
    )
