"""What moves a finding's score: differences between two scans of a phantom that differ in one thing.

Scores by study and change → effects, a matrix of causes, curves of detection against dose; places of
gradients and of moved images (`counterfactual`) → means. Nothing here encodes or draws. Every interval
resamples patients; both scans of a pair are one patient's.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from merlin.evaluation import results
from merlin.evaluation.counterfactual import (
    AS_DRAWN,
    CHANCE,
    OLDER,
    OTHER_SEX,
    RANDOM,
    TRAINED,
    WITHOUT,
)
from merlin.evaluation.readings import with_interval
from merlin.statistics import bootstrap, psychometric
from merlin.words import as_text

TASK = "causes"
SMALL = 0.2  # standard deviations; what is less is named, however sure
PERSON = {OLDER: "20 years older", OTHER_SEX: "male, not female"}  # rows of the matrix


def effects(scores: pd.DataFrame, prompts: Sequence[str]) -> pd.DataFrame:
    """What each change did to every prompt's score, pair by pair.

    Parameters
    ----------
    scores : DataFrame
        `study_id, patient_id, sex, change` and a score a prompt. One row of a study is `AS_DRAWN`; of
        the others `change` says what was taken out or changed.
    prompts : sequence of str
        Columns of scores.

    Returns
    -------
    DataFrame
        `change, patient_id` and a column a prompt: with the finding minus without it; older minus as
        drawn; male minus female.
    """
    drawn = scores[scores["change"] == AS_DRAWN].set_index("study_id")
    changed = scores[scores["change"] != AS_DRAWN].reset_index(drop=True)
    before = drawn.loc[changed["study_id"]]
    gap = before[list(prompts)].to_numpy() - changed[list(prompts)].to_numpy()
    flips = (changed["change"] == OLDER) | (
        (changed["change"] == OTHER_SEX) & (before["sex"].to_numpy() == "F")
    )
    gap[flips] *= -1
    return pd.concat(
        [changed[["change", "patient_id"]], pd.DataFrame(gap, columns=list(prompts))], axis=1
    )


def spread(scores: pd.DataFrame, prompts: Sequence[str]) -> np.ndarray:
    """(n_prompts,) standard deviation of each prompt's score over patients as they are: the unit of effects."""
    drawn = scores.loc[scores["change"] == AS_DRAWN, list(prompts)]
    return drawn.to_numpy().std(0, ddof=1)


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, k) values → (k, 1 + n_resamples) weighted means."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return values.T @ weights / weights.sum(0)


def matrix(
    gaps: pd.DataFrame, unit: np.ndarray, prompts: Sequence[str], *, n_resamples: int, seed: int
) -> pd.DataFrame:
    """Every change against every prompt: mean effect in standard deviations of that prompt's score.

    Returns
    -------
    DataFrame
        `change, prompt, value, low, high, n_patients`, findings first, in the prompts' order.
    """
    rows = []
    order = [c for c in (*prompts, *PERSON) if (gaps["change"] == c).any()]
    for change in order:
        part = gaps[gaps["change"] == change]
        patients = part["patient_id"].to_numpy(str)
        weights = results.resampling(patients, n_resamples, seed=seed).astype(float)
        found = _means(part[list(prompts)].to_numpy() / unit, weights)
        n = len(set(patients))
        for prompt, each in zip(prompts, found, strict=True):
            e, _ = bootstrap.of_metric("difference", each, n=n)
            rows.append((change, prompt, e.value, e.low, e.high, n))
    return pd.DataFrame(rows, columns=["change", "prompt", "value", "low", "high", "n_patients"])


def removal(
    gaps: pd.DataFrame, causes: pd.DataFrame, unit: np.ndarray, prompts: Sequence[str], *,
    n_resamples: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Of each finding taken out: how far its own prompt's score falls, and in how many pairs it falls.

    Parameters
    ----------
    gaps, unit
        From `effects` and `spread`.
    causes : DataFrame
        From `matrix`.

    Returns
    -------
    DataFrame
        Rows of the common schema, metrics `score difference` (in standard deviations) and `agreement of
        pairs`; `largest` names the prompt that moved most, `other` and `other_value` the one that moved
        most beside its own.
    """
    rows = []
    for j, name in enumerate(prompts):
        part = gaps[gaps["change"] == name]
        if part.empty:
            why = "not taken out: no patient has it, or the profile leaves it out"
            rows += [
                results.missing(name, m, why) for m in ("score difference", "agreement of pairs")
            ]
            continue
        patients = part["patient_id"].to_numpy(str)
        weights = results.resampling(patients, n_resamples, seed=seed).astype(float)
        own = part[name].to_numpy()
        moved = causes[causes["change"] == name].set_index("prompt")["value"]
        others = moved.drop(name).abs()
        beside = others.idxmax() if len(others) else ""
        more: dict = dict(
            largest=moved.abs().idxmax(), other=beside, other_value=moved.get(beside, np.nan)
        )
        who: dict = dict(known=np.ones(len(own), bool), patient_ids=patients, n_positive=len(own))
        for metric, values in (
            ("score difference", own / unit[j]),
            ("agreement of pairs", own > 0),
        ):
            found = _means(values.astype(float)[:, None], weights)[0]
            rows.append(results.row(name, metric, found, **who, **more))
    return results.table(TASK, rows, model=TRAINED)


def curves(
    doses: pd.DataFrame, what: dict[str, str], *, n_resamples: int, seed: int, n_points: int = 60
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Detection at threshold zero against dose, finding by finding.

    Parameters
    ----------
    doses : DataFrame
        `finding, patient_id, kind, dose, score`; patients come at several doses. Scans `WITHOUT` the finding
        tell only how often it is still called.
    what : dict of str to str
        What the dose of each finding measures.

    Returns
    -------
    table : DataFrame
        Rows of the common schema, metric `dose at which half are found` with a percentile interval, which
        ends where nothing was drawn; `what`, `lowest` and `highest` dose, and the share called in scans as
        they came and in the same without the finding, `called_with` and `called_without`.
    curves : DataFrame
        `finding, dose, value, low, high`: the fitted curves.
    """
    rows, drawn = [], []
    for name, part in doses.groupby("finding", sort=False):
        called = part.groupby("kind")["score"].agg(lambda s: (s > 0).mean())
        present = part[part["kind"] != WITHOUT]
        patients, dose = present["patient_id"].to_numpy(str), present["dose"].to_numpy(float)
        found = (present["score"] > 0).to_numpy()
        weights = results.resampling(patients, n_resamples, seed=seed).astype(float)
        more: dict = dict(
            what=what[str(name)], lowest=dose.min(), highest=dose.max(),
            called_with=called[AS_DRAWN], called_without=called[WITHOUT],
        )  # fmt: skip
        n = dict(n_studies=len(dose), n_patients=len(set(patients)), n_positive=int(found.sum()))
        curve = psychometric.fit(dose, found, weights)
        half = curve.half()
        e = bootstrap.interval(half[0], half[1:])
        reason = _unreached(e.value, dose, found)
        row = results.missing(str(name), "dose at which half are found", reason, **n, **more)
        if not reason:
            low, high = np.clip([e.low, e.high], dose.min(), dose.max())
            row |= dict(value=e.value, low=low, high=high, status="ok", method="percentile")
            row |= dict(n_seeds=1)
        rows.append(row)
        at = np.linspace(dose.min(), dose.max(), n_points)
        shares = curve.at(at)
        low, high = np.quantile(shares[:, 1:], [0.025, 0.975], axis=1)
        drawn.append(
            pd.DataFrame(dict(finding=name, dose=at, value=shares[:, 0], low=low, high=high))
        )
    return results.table(TASK, rows, model=TRAINED), pd.concat(drawn, ignore_index=True)


def _unreached(half: float, dose: np.ndarray, found: np.ndarray) -> str:
    """Why the dose at which half are found can't be said; empty if it can."""
    share = f"{found.mean():.0%} of all doses found"
    if np.isnan(half):
        return f"no more is found as the dose rises; {share}"
    if half < dose.min():
        return f"more than half found at the faintest; {share}"
    if half > dose.max():
        return f"fewer than half found at the grossest; {share}"
    return ""


def binned(doses: pd.DataFrame, n_bins: int = 6) -> pd.DataFrame:
    """Share found in bins of equal numbers, for dots beside the curves: `finding, dose, value, n`."""
    rows = []
    for name, part in doses[doses["kind"] != WITHOUT].groupby("finding", sort=False):
        part = part.sort_values("dose")
        for index in np.array_split(np.arange(len(part)), min(n_bins, len(part))):
            some = part.iloc[index]
            rows.append((name, some["dose"].mean(), (some["score"] > 0).mean(), len(some)))
    return pd.DataFrame(rows, columns=["finding", "dose", "value", "n"])


def pointed(gradients: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """How much of the gradient lies in the finding: trained, with random weights, and by chance.

    Parameters
    ----------
    gradients : DataFrame
        `finding, patient_id, model` (`TRAINED` or `RANDOM`), `inside, hit, chance` from `pointing`.

    Returns
    -------
    DataFrame
        Rows of the common schema, by finding and `macro`: metrics `agreement of the gradient` (its share
        inside) and `agreement of the peak` (hits), of each model and of chance.
    """
    names, rows = gradients["finding"].drop_duplicates().tolist(), []
    for metric, column in (
        ("agreement of the gradient", "inside"),
        ("agreement of the peak", "hit"),
    ):
        for model in (TRAINED, RANDOM, CHANCE):
            part = gradients[gradients["model"] == (TRAINED if model == CHANCE else model)]
            patients = part["patient_id"].to_numpy(str)
            weights = results.resampling(patients, n_resamples, seed=seed).astype(float)
            value = part["chance" if model == CHANCE else column].to_numpy(float)
            found: list[np.ndarray] = []
            for name in names:
                known = (part["finding"] == name).to_numpy() & ~np.isnan(value)
                each = _means(value[known][:, None], weights[known])[0]
                found.append(each)
                who: dict = dict(known=known, patient_ids=patients, n_positive=int(known.sum()))
                ok: dict = dict(
                    is_ok=bool(known.any()), reason="" if known.any() else "no gradient"
                )
                rows.append(results.row(name, metric, each, **who, **ok, model=model))
            every = ~np.isnan(value)
            who = dict(known=every, patient_ids=patients, n_positive=len(names))
            rows.append(
                results.row("macro", metric, bootstrap.macro(np.stack(found)), **who, model=model)
            )
    return results.table(TASK, rows)


def shifted(shifts: pd.DataFrame) -> pd.DataFrame:
    """The mean course of moved images by finding: `finding, step, score, true_score, moved_hu, inside, likeness`.

    `shifts` holds the same columns by patient, with `score` and `true_score` as differences from the image
    as it is and `true_hu` for the true counterfactual.
    """
    columns = ["score", "true_score", "moved_hu", "true_hu", "inside", "chance", "likeness"]
    if shifts.empty:  # neither finding was taken out
        return pd.DataFrame(columns=["finding", "step", *columns])
    return shifts.groupby(["finding", "step"], sort=False)[columns].mean().reset_index()


def reading(removed: pd.DataFrame, causes: pd.DataFrame, half: pd.DataFrame) -> str:
    """What taking findings out says, with every exception by its name."""
    ok = removed[removed["status"] == "ok"]
    gap = ok[ok["metric"] == "score difference"]
    pairs = ok[ok["metric"] == "agreement of pairs"]
    above, odd = gap[gap["low"] > 0], gap[~(gap["low"] > 0)]
    led = gap[gap["largest"] != gap["label"]]
    said = (
        f"Taking a finding out lowers the score of its own prompts, the interval above zero, for "
        f"**{len(above)} of {len(gap)}** findings; exceptions: {_each(odd, 'value')}. It is less than "
        f"{SMALL} standard deviations for {_each(above[above['value'] < SMALL], 'value')}. On average "
        f"{pairs['value'].mean():.0%} of pairs are ordered rightly, least for "
        f"{_each(pairs.nsmallest(1, 'value'), 'value', '.0%')}. "
        f"Another finding's prompts move more than its own for {_moved_by(led)}. "
    )
    for change, words in PERSON.items():
        part = causes[(causes["change"] == change) & ((causes["low"] > 0) | (causes["high"] < 0))]
        top = part.reindex(part["value"].abs().sort_values(ascending=False).index).head(3)
        top = top.rename(columns={"prompt": "label"})
        n = (causes["change"] == change).sum()
        said += f"*{words}* alone moves {len(part)} of {n} prompts, most: {_each(top, 'value')}. "
    told = half[half["status"] == "ok"]
    with_, without = half["called_with"].mean(), half["called_without"].mean()
    return said + (
        f"At threshold zero {with_:.0%} of scans with a finding are called, and still {without:.0%} of the same "
        f"patients without it, by mean over findings. Half are found at a dose that was drawn for {len(told)} "
        f"of {len(half)} findings."
    )


def _each(rows: pd.DataFrame, column: str, form: str = "+.2f") -> str:
    named = [f"{_name(r['label'])} ({r[column]:{form}})" for _, r in rows.iterrows()]
    return ", ".join(named) or "none"


def _moved_by(rows: pd.DataFrame) -> str:
    named = [f"{_name(r['label'])} ({_name(r['largest'])})" for _, r in rows.iterrows()]
    return ", ".join(named) or "none"


def _name(label: object) -> str:
    return as_text(str(label).replace("_", " "))


def reading_of_gradients(table: pd.DataFrame, course: pd.DataFrame) -> str:
    """What gradients and moved images say against random weights, chance and the true counterfactual."""
    part = table[table["metric"] == "agreement of the gradient"]
    macro = part[part["label"] == "macro"].set_index("model")
    wide = part[part["label"] != "macro"].pivot_table(
        index="label", columns="model", values="value"
    )
    n = len(wide)
    said = (
        f"{with_interval(macro.loc[TRAINED], '.1%')} of the gradient lies in the voxels that the finding "
        f"changes, {with_interval(macro.loc[RANDOM], '.1%')} with random weights and "
        f"{macro.loc[CHANCE, 'value']:.1%} by chance: above random weights for "
        f"{(wide[TRAINED] > wide[RANDOM]).sum()} of {n} findings, above chance for "
        f"{(wide[TRAINED] > wide[CHANCE]).sum()}. "
    )
    for name, steps in course.groupby("finding", sort=False):
        down = steps[steps["score"] <= steps["true_score"]]
        at = (down if len(down) else steps).iloc[0 if len(down) else -1]
        if not at["moved_hu"] > 0:
            said += (
                f"The score of {_name(name)} is no lower in the true image without it, so that nothing was "
                "to be moved. "
            )
            continue
        reaches = "reaches" if len(down) else "does not reach"
        said += (
            f"Moved down the gradient, {_name(name)} {reaches} the score of the true image without it with "
            f"{at['moved_hu']:.1f} HU (root mean square; the true change has {at['true_hu']:.0f}); "
            f"{at['inside']:.0%} of the change is in the right place (chance {at['chance']:.0%}), its likeness to "
            f"the true change {at['likeness']:+.2f}. "
        )
    return said.strip()


def examples(half: pd.DataFrame, n: int = 6) -> list[str]:
    """Findings whose curves are shown: with a dose that is measured, its half found most sharply first.

    Where fewer have one, others follow in the table's order.
    """
    told = half[(half["status"] == "ok") & (half["what"] != "severity")]
    width = (told["high"] - told["low"]) / (told["highest"] - told["lowest"])
    first = told.loc[width.sort_values().index, "label"].tolist()
    rest = [name for name in half["label"] if name not in first]
    return [*first, *rest][:n]


def redrawn(scores: pd.DataFrame, own: pd.DataFrame, prompts: Sequence[str]) -> pd.DataFrame:
    """Scores of patients as drawn again beside those of their own scans, prompt by prompt.

    Parameters
    ----------
    own : DataFrame
        By `study_id`, a column a prompt.

    Returns
    -------
    DataFrame
        `prompt, correlation, shift, n`: over patients; the mean difference in standard deviations.
    """
    drawn = scores[scores["change"] == AS_DRAWN].set_index("study_id")
    both = drawn.index.intersection(own.index)
    a, b = drawn.loc[both, list(prompts)], own.loc[both, list(prompts)]
    gap = (a - b).mean() / b.std()
    table = pd.DataFrame(dict(correlation=a.corrwith(b), shift=gap)).rename_axis("prompt")
    return table.assign(n=len(both)).reset_index()
