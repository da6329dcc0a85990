"""How far a published number moves when a choice that papers leave unsaid is made otherwise.

One default protocol, and for each factor its alternatives, all on the same embeddings, studies and
resamples; nothing is trained or encoded anew.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from merlin.evaluation import ranges, retrieval, zero_shot
from merlin.evaluation.results import difference, ends, has_both, resampling
from merlin.statistics import bootstrap, metrics
from merlin.streams import Stream, stream_of


def _f1_row(factor, option, called, labels, weights, unit, *, is_default=False, reason=""):
    """Macro F1 with its interval; `called` and `labels` are (n_studies, n_findings), `unit` what is resampled."""
    both = [has_both(column) for column in labels.T]
    found = None
    if any(both):
        found = bootstrap.macro(metrics.f1(called[:, both], labels[:, both], weights))
    unit = unit[(~np.isnan(labels)).any(1)]
    return _row("zero-shot findings", factor, option, found, unit, sum(both), is_default, reason)


def _row(task, factor, option, found, unit, n_labels, is_default=False, reason=""):
    """One choice; `found` is its value and its resamples, None where it can't be evaluated.

    `unit` names what was resampled, a patient or a study, for each study that counts.
    """
    drawn = np.full(3, np.nan) if found is None else found
    metric = "recall" if task == "retrieval" else "f1"
    n = len(set(unit))
    e, _ = bootstrap.of_metric(metric, drawn, n=n)
    return dict(
        task=task, factor=factor, option=option, is_default=is_default, value=e.value, low=e.low,
        high=e.high, n_studies=len(unit), n_labels=int(n_labels), reason=reason, n=n,
        status="not evaluated" if found is None else "ok", found=found,
    )  # fmt: skip


def _table(rows):
    """Rows with paired differences from the default, which comes first."""
    default = rows[0]["found"] if rows else None
    for row in rows:
        found, n = row.pop("found"), row.pop("n")
        row |= dict(gap=np.nan, gap_low=np.nan, gap_high=np.nan)
        # Resamples of studies pair with nothing, and a drawn pool has none.
        if found is not None and default is not None and row["factor"] != "resampled unit":
            gap = ends(difference(found, default, n=n))
            row |= dict(zip(("gap", "gap_low", "gap_high"), gap, strict=True))
    made, ends_ = pd.DataFrame(rows), ("gap_low", "gap_high")
    return ranges.within(made, "f1", differences=True, ends=ends_)  # recall's range too


def findings(
    e, test: np.ndarray, val: np.ndarray, *, n_resamples: int, n_draws: int, seed: int
) -> pd.DataFrame:
    """Macro F1 of zero-shot findings under every choice, one at a time.

    Parameters
    ----------
    e : Embeddings
    test, val : (n,) int
        Rows of the two splits.
    n_resamples, n_draws, seed : int
        `n_draws` is of prompt subsets and of class-balanced draws.

    Returns
    -------
    DataFrame
        `task, factor, option, is_default, value, low, high, n_studies, n_labels, reason, status` and
        `gap, gap_low, gap_high`, the paired difference from the default protocol.
    """
    default = zero_shot.score_file(e, test, wording="reported")
    names = list(default.findings)
    order = [list(e.finding).index(n) for n in names]
    labels, val_labels = (e.finding_labels[r].astype(float)[:, order] for r in (test, val))
    patient = e.patient_id[test]
    weights = resampling(patient, n_resamples, seed=seed)
    called, n = default.value > 0, len(test)
    rows = [
        _f1_row("protocol", "ours, as stated", called, labels, weights, patient, is_default=True)
    ]

    def add(factor, option, called=called, labels=labels, weights=weights, unit=patient, **more):
        rows.append(_f1_row(factor, option, called, labels, weights, unit, **more))

    def add_mean(factor, option, drawn):
        """The mean of several draws, resample by resample."""
        found = np.mean(drawn, axis=0)
        rows.append(_row("zero-shot findings", factor, option, found, patient, rows[0]["n_labels"]))

    prompts = (e.prompt_embedding, e.prompt_finding, e.prompt_kind)

    def called_with(use):
        scores = zero_shot.score(e.image[test], *(a[use] for a in prompts))
        return scores.value[:, [scores.findings.index(f) for f in names]] > 0

    reported = e.prompt_wording == "reported"
    add("prompt wording", "as reports put it", is_default=True)
    others = {"paraphrased": "radiologists' paraphrases", "plain": "a layman's words"}
    for wording, option in others.items():
        if set(names) <= set(e.prompt_finding[e.prompt_wording == wording]):
            add("prompt wording", option, called_with(e.prompt_wording == wording))
    if set(zero_shot.WORDINGS) <= set(e.prompt_wording):
        add("prompt wording", "all", called_with(np.isin(e.prompt_wording, zero_shot.WORDINGS)))
    add("prompts per side", "all", is_default=True)
    for k in (1, 2):
        rngs = (stream_of(seed, Stream.PROMPTS, k, d) for d in range(n_draws))
        few = (called_with(_some_prompts(e, reported, k, rng)) for rng in rngs)
        drawn = [bootstrap.macro(metrics.f1(c, labels, weights)) for c in few]
        add_mean("prompts per side", f"{k}, mean of {n_draws} draws", drawn)
    # A third order, raw_mean, equals normalised_mean where prompts have unit length, as in the file.
    for scoring in ("mean_similarity", "normalised_mean"):
        scores = zero_shot.score_file(e, test, wording="reported", scoring=scoring)
        is_default = scoring == "mean_similarity"
        add("averaging", scoring.replace("_", " "), scores.value > 0, is_default=is_default)
    add("missing labels", "masked", is_default=True)
    add("missing labels", "negative", labels=np.nan_to_num(labels))
    whole = ~np.isnan(labels).any(1)
    why = f"{int(whole.sum())} of {n} studies have all {len(names)} labels"
    kept = np.where(whole[:, None], labels, np.nan)
    add("missing labels", "study dropped", labels=kept, reason=why)
    add("threshold", "zero", is_default=True)
    on_val = zero_shot.score_file(e, val, wording="reported").value
    for option, known, truth, reason in (
        ("from validation", on_val, val_labels, ""),
        ("from test (wrong)", default.value, labels, "chosen on the answers: never to be used"),
    ):
        best = metrics.best_f1_threshold(known, truth)
        best = np.where(np.isnan(best), 0.0, best)  # no positive to choose by
        add("threshold", option, default.value > best, reason=reason)
    add("negatives", "natural", is_default=True)
    balanced = (zero_shot.balanced_draw(labels, seed=seed + d) for d in range(n_draws))
    drawn = [bootstrap.macro(metrics.f1(called, part, weights)) for part in balanced]
    add_mean("negatives", f"balanced, mean of {n_draws} draws", drawn)
    add("resampled unit", "patient", is_default=True)
    unit = np.arange(n)
    add("resampled unit", "study", weights=resampling(unit, n_resamples, seed=seed), unit=unit)
    return _table(rows)


def retrieved(
    e, test: np.ndarray, *, pools: Sequence[int] = (32, 64, 128), headline: int = 64,
    n_resamples: int, n_draws: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Recall@1, image to findings, under every choice, one at a time; columns as `findings`.

    Studies whose report has no findings text sit out.
    """
    text = e.findings[test]
    test, text = (a[np.isfinite(text).all(1)] for a in (test, text))
    n, image, group = len(test), e.image[test], e.text_group[test]
    if headline > n:
        reason = f"a pool of {headline} is larger than the {n} studies"
        row = _row("retrieval", "protocol", "ours, as stated", None, test, 0, True, reason)
        return _table([row])
    patient, study = e.patient_id[test], np.arange(n)
    weights = resampling(patient, n_resamples, seed=seed).astype(float)
    by_study = resampling(study, n_resamples, seed=seed).astype(float)
    rows = []

    def add(factor, option, each, w=weights, unit=patient, is_default=False, reason=""):
        found = each @ w / w.sum(0)
        rows.append(_row("retrieval", factor, option, found, unit, 1, is_default, reason))

    better, ties = retrieval.rank_counts(image, text, group)
    sizes = sorted(p for p in {*pools, headline} if p <= n)
    recall = {p: retrieval.expected_recall(better, n, p, 1, ties=ties) for p in sizes}
    default = recall[headline]
    add("protocol", "ours, as stated", default, is_default=True)
    for p in sizes:
        add("pool size", str(p), recall[p], is_default=p == headline)
    # Equal impressions are not equal findings: each text has groups of its own.
    impression = e.impression[test]
    same = np.unique(np.nan_to_num(impression).round(6), axis=0, return_inverse=True)[1].ravel()
    for name, vectors, groups in (
        ("whole findings", text, group),
        ("whole impression", impression, same),
    ):
        known = np.isfinite(vectors).all(1)
        if known.sum() >= headline:
            b, t = retrieval.rank_counts(image[known], vectors[known], groups[known])
            each = retrieval.expected_recall(b, int(known.sum()), headline, 1, ties=t)
            w = weights[known]
            unit, is_default = patient[known], name == "whole findings"
            add("query text", name, each, w, unit, is_default=is_default)
    add("last, partial pool", "left out", default, is_default=True)
    rest = n % headline
    if rest > 1:
        small = retrieval.expected_recall(better, n, rest, 1, ties=ties)
        mixed = (default * (n - rest) + small * rest) / n
        add("last, partial pool", "counted", mixed, reason=f"one pool holds {rest} only")
    alone, equal = retrieval.rank_counts(image, text, np.arange(n))
    wrong = retrieval.expected_recall(alone, n, headline, 1, ties=equal)
    add("equal reports", "credited", default, is_default=True)
    add("equal reports", "counted wrong", wrong)
    add("pools", "all (exact)", default, is_default=True)
    options = dict(n_draws=n_draws, seed=seed)
    drawn = retrieval.drawn_recall(image, text, group, headline, (1,), **options)[0]
    row = _row("retrieval", "pools", f"one draw; range of {n_draws}", None, study, 1)
    about = dict(value=drawn[0], low=drawn.min(), high=drawn.max(), status="ok")
    rows.append(row | about | dict(reason="the range is of draws, not of patients"))
    add("resampled unit", "patient", default, is_default=True)
    add("resampled unit", "study", default, by_study, study)
    return _table(rows)


def _some_prompts(e, use, n, rng):
    """Positions of `n` prompts per finding and side, of those in use."""
    keys = np.char.add(np.char.add(e.prompt_finding.astype(str), "|"), e.prompt_kind.astype(str))
    picked = []
    for key in dict.fromkeys(keys[use]):
        here = np.flatnonzero(use & (keys == key))
        picked.append(rng.choice(here, min(n, len(here)), replace=False))
    return np.sort(np.concatenate(picked))
