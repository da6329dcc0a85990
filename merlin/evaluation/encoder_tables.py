"""Tables of encoders side by side: values with intervals under each budget, and paired differences.

Intervals hold the test patients, the draws of labelled studies where labels are few, and an encoder's runs
where there are several, their half widths added in squares (`merlin.statistics.seeds`). What the draws are
of, the training patients, is taken as given.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from merlin.evaluation import linear_head, results
from merlin.evaluation.encoders import (
    ALL,
    SHOTS,
    ZERO,
    Encoder,
    Judged,
    Studies,
    capacity,
    draw,
    judge,
)
from merlin.statistics import bootstrap, seeds
from merlin.words import as_text

REFUSED = "refused: "  # how the reason of an encoder begins that could not be judged at all


def compare(
    encoders: Mapping[str, Encoder], studies: Studies, *, shots: Sequence[int] = SHOTS,
    n_draws: int = 10, negatives: int = 1, n_resamples: int = 1000, seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Judge every encoder under every budget.

    Macro values of all budgets are over the same findings: those of which the largest number of `shots`
    can be drawn. Intervals hold the test patients, the draws of labelled studies, and an encoder's runs.

    Parameters
    ----------
    encoders : dict of str to Encoder
        The first is the one that others are set against.
    studies : Studies
    shots : sequence of int
        Positives a finding, each of another patient.
    n_draws : int
        Of labelled studies, the same for all encoders.
    negatives : int
        A positive.
    n_resamples, seed : int

    Returns
    -------
    table : DataFrame
        Common schema, with `budget`, `n_train` (labelled training studies a finding), `strength` (one a
        run), `val_auroc`, `n_draws` and `n_features`. What cannot be judged is a row with its reason.
    paired : DataFrame
        `model, other, budget, other_budget, value, low, high, n_findings`: macro of the first minus each
        other one under each budget, and of each encoder under each budget minus its own zero-shot.

    Raises
    ------
    ValueError
        If a split has no labelled study, or no finding has as many labels as the largest budget takes.
    """
    shots = sorted(set(shots))
    if not shots or shots[0] < 1 or min(n_draws, negatives, n_resamples) < 1:
        raise ValueError("shots, draws, negatives and resamples: expected 1 or more")
    _check_splits(studies)
    can = capacity(studies, negatives=negatives)
    common = (can >= shots[-1]) & _has_both(studies, "test") & _has_both(studies, "val")
    if not common.any():
        raise ValueError(
            f"no finding has {shots[-1]} positive training patients, {shots[-1] * negatives} negative ones, "
            f"and both classes in val and test; the most is {max(can, default=0)}. Take fewer shots."
        )
    drawn = [
        draw(studies, j, min(int(n), shots[-1]), negatives=negatives, n_draws=n_draws, seed=seed)
        for j, n in enumerate(can)
    ]
    test = studies.rows("test")
    weights = results.resampling(studies.patient_id[test], n_resamples, seed=seed)
    judged: dict[str, dict[str, Judged]] = {}
    refused: dict[str, str] = {}
    for name, encoder in encoders.items():
        try:
            judged[name] = dict(judge(encoder, studies, shots, drawn, weights))
        except linear_head.NothingVaries as error:
            refused[name] = f"{REFUSED}{error}"
    if not judged:
        raise ValueError(
            "no encoder can be judged\n  " + "\n  ".join(f"{n}: {r}" for n, r in refused.items())
        )
    options = dict(common=common, can=can, negatives=negatives, n_draws=n_draws)
    rows = [
        r for n, found in judged.items() for r in _rows(n, encoders[n], found, studies, **options)
    ]
    rows += [
        results.missing("macro", "auroc", why, model=n, budget="") for n, why in refused.items()
    ]
    table = results.table("encoders", rows, split="test")
    return table, _paired(encoders, judged, studies, common)


def _check_splits(studies):
    for split, what in (("train", "the head is taught there"), ("val", "the strength is chosen there"),
                        ("test", "encoders are judged there")):  # fmt: skip
        if not _has_both(studies, split).any():
            names, n = np.unique(studies.split, return_counts=True)
            found = (
                ", ".join(f"{a or '(none)'} {b}" for a, b in zip(names, n, strict=True)) or "none"
            )
            raise ValueError(
                f"no finding is stated and denied among studies of split {split}: {what}. Studies in "
                f"common by split: {found}; labels known of {np.isfinite(studies.labels).any(1).sum()}."
            )


def _has_both(studies, split):
    """(f,) bool: findings of which a split holds positive and negative studies."""
    labels = studies.labels[studies.rows(split)]
    return (labels == 1).any(0) & (labels == 0).any(0)


def _spread_out(drawn, by_run):
    """(n_runs, 1 + n_resamples) of which the first column is each run's value and the mean is `drawn`."""
    return drawn + (by_run - by_run.mean())[:, None]


def with_draws(found, by_draw):
    """A row or difference whose interval also holds the luck of the draw, added in squares."""
    if len(by_draw) < 2 or not np.isfinite(by_draw).all():
        return found
    whole = seeds.over_seeds(by_draw[:, None], patients=(found["low"], found["high"]))
    return found | dict(low=whole.low, high=whole.high)


def _rows(name, encoder, found, studies, *, common, can, negatives, n_draws):
    """Rows of an encoder: each finding and the macro average, under each budget."""
    test, train = studies.rows("test"), studies.rows("train")
    labels, patients = studies.labels[test], studies.patient_id[test]
    few = bootstrap.fewest(labels, patients)
    n_known = np.isfinite(studies.labels[train]).sum(0)
    about = dict(model=name, n_features=encoder.features[0].shape[1])
    if ZERO not in found:
        yield results.missing("macro", "auroc", "no prompts", budget=ZERO, **about)
    for budget, j in found.items():
        k = int(budget.removesuffix("-shot")) if budget[0].isdigit() else 0
        n_train = np.full(len(can), k * (1 + negatives)) if k else n_known * (budget == ALL)
        more = about | dict(
            budget=budget, strength=results.spaced(j.strengths), val_auroc=j.val_auroc
        )
        more |= dict(n_draws=n_draws if k else 1)
        for f, label in enumerate(studies.finding):
            known = np.isfinite(labels[:, f])
            why = _why_not(j.drawn[f, 0], labels[:, f], k, can[f])
            row = results.row(
                label, "auroc", _spread_out(j.drawn[f], j.runs[:, :, f].mean(1)), known=known,
                patient_ids=patients, n_positive=(labels[:, f] == 1).sum(), reason=why,
                is_ok=not why, n_few=int(few[f]) or None, n_train=int(n_train[f]), **more,
            )  # fmt: skip
            yield _clipped(with_draws(row, j.runs[:, :, f].mean(0)))
        keep = common & np.isfinite(j.drawn[:, 0])
        said = f"macro over {keep.sum()} of {len(keep)} findings" if not keep.all() else ""
        row = results.row(
            "macro", "auroc", _macro(j, keep, few), known=np.isfinite(labels[:, keep]).any(1),
            patient_ids=patients, n_positive=keep.sum(), is_ok=bool(keep.any()),
            reason=results.joined(said, encoder.note), n_train=round(float(n_train[keep].mean()), 1)
            if keep.any() else 0, **more,
        )  # fmt: skip
        yield _clipped(
            with_draws(row, j.runs[..., keep].mean((0, 2)) if keep.any() else np.empty(0))
        )


def _why_not(value, label, k, can):
    """Why a finding has no value under a budget; empty where it has."""
    if not results.has_both(label):
        return (
            f"one class only: {(label == 1).sum()} positive of {np.isfinite(label).sum()} labelled"
        )
    if np.isfinite(value):
        return ""
    return (
        f"{can} of {k} training patients can be drawn" if k else "no prompts, or no training labels"
    )


def _macro(judged, keep, few):
    """(n_runs, 1 + n_resamples) mean over the findings of `keep`; NaN where there is none."""
    if not keep.any():
        return np.full((len(judged.runs), judged.drawn.shape[1]), np.nan)
    drawn = bootstrap.macro(judged.drawn[keep], n_few=few[keep])
    return _spread_out(drawn, judged.runs[..., keep].mean((1, 2)))


def _clipped(row):
    return row | dict(low=max(row["low"], 0.0), high=min(row["high"], 1.0))


def _paired(encoders, judged, studies, common):
    """Differences of `compare`, on the findings that both sides have."""
    test = studies.rows("test")
    few = bootstrap.fewest(studies.labels[test], studies.patient_id[test])
    first, *others = judged
    pairs = [(first, b, other, b) for other in others for b in judged[first]]
    pairs += [(name, b, name, ZERO) for name, found in judged.items() for b in found if b != ZERO]
    rows = []
    for one, budget, two, other_budget in pairs:
        if budget not in judged[one] or other_budget not in judged[two]:
            continue
        a, b = judged[one][budget], judged[two][other_budget]
        keep = common & np.isfinite(a.drawn[:, 0]) & np.isfinite(b.drawn[:, 0])
        if not keep.any():
            continue
        gap = results.difference(
            _macro(a, keep, few), _macro(b, keep, few), "auroc",
            is_trained=encoders[two].is_trained and encoders[one].is_trained,
        )  # fmt: skip
        by_draw = a.runs[..., keep].mean((0, 2)) - b.runs[..., keep].mean((0, 2))
        ends = results.ends(with_draws(gap, by_draw))
        rows.append((one, two, budget, other_budget, *ends, int(keep.sum())))
    names = ["model", "other", "budget", "other_budget", "value", "low", "high", "n_findings"]
    return pd.DataFrame(rows, columns=names)


def reading(table: pd.DataFrame, paired: pd.DataFrame) -> str:
    """What the tables of `compare` say, in sentences computed from them."""
    macro = table[(table["label"] == "macro") & (table["status"] == "ok")]
    said = []
    for name, part in macro.groupby("model", sort=False):
        value = part.set_index("budget")
        ends = [f"{b} {value.loc[b, 'value']:.3f} [{value.loc[b, 'low']:.3f}, {value.loc[b, 'high']:.3f}]"
                for b in value.index if b in (ZERO, ALL)]  # fmt: skip
        text = f"{as_text(name)}: macro AUROC {', '.join(ends)}"
        own = paired[(paired["model"] == name) & (paired["other"] == name)]
        above = own.loc[own["low"] > 0, "budget"]
        if len(own):
            first = f"above its own zero-shot from {above.iloc[0]} on" if len(above) else ""
            text += f", {first or 'under no budget above its own zero-shot'}"
        said.append(text)
    others = paired[(paired["model"] != paired["other"]) & (paired["budget"] == ALL)]
    for r in others.itertuples():
        verdict = "above" if r.low > 0 else "below" if r.high < 0 else "not set apart from"
        said.append(
            f"with all labels {as_text(r.model)} is {verdict} {as_text(r.other)} "
            f"({r.value:+.3f} [{r.low:.3f}, {r.high:.3f}])"
        )
    gone = table[table["status"].ne("ok") & table["label"].eq("macro")]
    said += [
        f"{as_text(r.model)}{f', {r.budget}' if r.budget else ''}: {as_text(r.reason)}"
        for r in gone.itertuples()
    ]
    return "; ".join(said) + "."
