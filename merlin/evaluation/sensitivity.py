"""How far a published number moves when a choice that papers leave unsaid is made otherwise.

One default protocol, and for each factor its alternatives, all on the same embeddings, studies and
resamples; nothing is trained or encoded anew.
"""

import numpy as np
import pandas as pd

from merlin.evaluation import retrieval, zero_shot
from merlin.evaluation.results import resampling
from merlin.statistics import bootstrap, metrics


def _f1_row(factor, option, called, labels, weights, *, is_default=False, reason=""):
    """Macro F1 with its interval; `called` and `labels` are (n_studies, n_findings)."""
    both = [(labels[:, j] == 1).any() and (labels[:, j] == 0).any() for j in range(labels.shape[1])]
    row = dict(
        task="zero-shot findings", factor=factor, option=option, is_default=is_default,
        n_studies=int((~np.isnan(labels)).any(1).sum()), n_labels=int(sum(both)), reason=reason,
    )  # fmt: skip
    if not any(both):
        return row | dict(value=np.nan, low=np.nan, high=np.nan, status="not evaluated")
    found = bootstrap.macro(metrics.f1(called[:, both], labels[:, both], weights))
    e = bootstrap.interval(found[0], found[1:])
    return row | dict(value=e.value, low=e.low, high=e.high, status="ok")


def findings(e, test, val, *, n_resamples, n_draws, seed):
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
        `task, factor, option, is_default, value, low, high, n_studies, n_labels, status, reason`.
    """
    patients, labels = e.patient_id[test], e.finding_labels[test].astype(float)
    weights = resampling(patients, n_resamples, seed=seed)
    default = zero_shot.score_file(e, test, wording="reported")
    names = list(default.findings)
    order = [list(e.finding).index(n) for n in names]
    labels, val_labels = labels[:, order], e.finding_labels[val].astype(float)[:, order]
    called = default.value > 0
    rows = [_f1_row("protocol", "ours, as stated", called, labels, weights, is_default=True)]

    rows.append(
        _f1_row("prompt wording", "as reports put it", called, labels, weights, is_default=True)
    )
    novel = zero_shot.score_file(e, test, wording="novel")
    if set(names) <= set(novel.findings):
        value = novel.value[:, [novel.findings.index(n) for n in names]]
        rows.append(_f1_row("prompt wording", "unused phrases", value > 0, labels, weights))
    each = (e.prompt_embedding, e.prompt_finding, e.prompt_kind)
    all_prompts = zero_shot.score(e.image[test], *each)
    both = all_prompts.value[:, [all_prompts.findings.index(n) for n in names]] > 0
    rows.append(_f1_row("prompt wording", "both", both, labels, weights))

    rows.append(_f1_row("prompts per side", "all", called, labels, weights, is_default=True))
    use = e.prompt_wording == "reported"
    for n in (1, 2):
        drawn = []
        for d in range(n_draws):
            few = _some_prompts(e, use, n, np.random.default_rng([seed, 24, n, d]))
            scores = zero_shot.score(e.image[test], *(a[few] for a in each))
            value = scores.value[:, [scores.findings.index(f) for f in names]]
            drawn.append(bootstrap.macro(metrics.f1(value > 0, labels, weights)))
        found = np.mean(drawn, axis=0)
        i = bootstrap.interval(found[0], found[1:])
        rows.append(
            rows[0]
            | dict(
                factor="prompts per side", option=f"{n}, mean of {n_draws} draws", is_default=False,
                value=i.value, low=i.low, high=i.high,
            )
        )  # fmt: skip

    for scoring in zero_shot.SCORING:
        scores = zero_shot.score_file(e, test, wording="reported", scoring=scoring)
        rows.append(
            _f1_row(
                "averaging", scoring.replace("_", " "), scores.value > 0, labels, weights,
                is_default=scoring == "mean_similarity",
            )
        )  # fmt: skip

    rows.append(_f1_row("missing labels", "masked", called, labels, weights, is_default=True))
    rows.append(_f1_row("missing labels", "negative", called, np.nan_to_num(labels), weights))
    whole = ~np.isnan(labels).any(1)
    why = f"{int(whole.sum())} of {len(whole)} studies have all {len(names)} labels"
    rows.append(
        _f1_row(
            "missing labels", "study dropped", called,
            np.where(whole[:, None], labels, np.nan), weights, reason=why,
        )
    )  # fmt: skip

    rows.append(_f1_row("threshold", "zero", called, labels, weights, is_default=True))
    on_val = zero_shot.score_file(e, val, wording="reported")
    best = metrics.best_f1_threshold(on_val.value, val_labels)
    rows.append(_f1_row("threshold", "from validation", default.value > best, labels, weights))
    tuned = metrics.best_f1_threshold(default.value, labels)
    rows.append(
        _f1_row(
            "threshold", "from test (wrong)", default.value > tuned, labels, weights,
            reason="chosen on the answers: shown for its size, never to be used",
        )
    )  # fmt: skip

    rows.append(_f1_row("negatives", "natural", called, labels, weights, is_default=True))
    balanced = [
        bootstrap.macro(metrics.f1(called, zero_shot.balanced_draw(labels, seed=seed + d), weights))
        for d in range(n_draws)
    ]
    found = np.mean(balanced, axis=0)
    i = bootstrap.interval(found[0], found[1:])
    rows.append(
        rows[0]
        | dict(
            factor="negatives", option="balanced", is_default=False,
            value=i.value, low=i.low, high=i.high,
        )
    )  # fmt: skip

    rows.append(_f1_row("resampled unit", "patient", called, labels, weights, is_default=True))
    by_study = resampling(np.arange(len(test)), n_resamples, seed=seed)
    rows.append(_f1_row("resampled unit", "study", called, labels, by_study))
    return pd.DataFrame(rows)


def retrieved(e, test, *, pools=(32, 64, 128), headline=64, n_resamples, n_draws, seed):
    """Recall@1, image to findings, under every choice, one at a time; columns as `findings`."""
    patients, group = e.patient_id[test], e.text_group[test]
    weights = resampling(patients, n_resamples, seed=seed).astype(float)
    image = e.image[test]
    texts = {
        "sum of sentences": retrieval.report_vectors(e, test, "sentences"),
        "whole findings": retrieval.report_vectors(e, test, "whole"),
        "whole impression": e.impression[test],
    }
    rows = []

    def add(factor, option, each, w=weights, is_default=False, reason=""):
        found = each @ w / w.sum(0)
        i = bootstrap.interval(found[0], found[1:])
        rows.append(
            dict(
                task="retrieval", factor=factor, option=option, is_default=is_default,
                value=i.value, low=i.low, high=i.high, n_studies=len(each), n_labels=1,
                status="ok", reason=reason,
            )
        )  # fmt: skip

    better = retrieval.better_counts(image, texts["sum of sentences"], group)
    n = len(test)
    sizes = [p for p in pools if p <= n]
    if headline > n:
        return pd.DataFrame(rows)
    recall = {p: retrieval.expected_recall(better, n, p, 1) for p in sizes}
    default = recall[headline]
    add("protocol", "ours, as stated", default, is_default=True)
    for p in sizes:
        add("pool size", str(p), recall[p], is_default=p == headline)
    for name, text in texts.items():
        known = np.isfinite(text).all(1)
        if known.sum() >= headline:
            b = retrieval.better_counts(image[known], text[known], group[known])
            each = retrieval.expected_recall(b, int(known.sum()), headline, 1)
            w = weights[known]
            add("query text", name, each, w, is_default=name == "sum of sentences")
    rest = n % headline
    add("last, partial pool", "left out", default, is_default=True)
    if rest > 1:
        small = retrieval.expected_recall(better, n, rest, 1)
        mixed = (default * (n - rest) + small * rest) / n
        add("last, partial pool", "counted", mixed, reason=f"one pool holds {rest} only")
    alone = retrieval.better_counts(image, texts["sum of sentences"], np.arange(n))
    add("equal reports", "credited", default, is_default=True)
    add("equal reports", "counted wrong", retrieval.expected_recall(alone, n, headline, 1))
    drawn = retrieval.drawn_recall(
        image, texts["sum of sentences"], group, headline, 1, n_draws=n_draws, seed=seed
    )
    add("pools", "all (exact)", default, is_default=True)
    rows.append(
        rows[0]
        | dict(
            factor="pools", option=f"one draw; range of {n_draws}", is_default=False,
            value=float(drawn[0]), low=float(drawn.min()), high=float(drawn.max()),
            reason="the range is of draws, not of patients",
        )
    )  # fmt: skip
    add("resampled unit", "patient", default, is_default=True)
    add(
        "resampled unit",
        "study",
        default,
        resampling(np.arange(n), n_resamples, seed=seed).astype(float),
    )
    return pd.DataFrame(rows)


def _some_prompts(e, use, n, rng):
    """Positions of `n` prompts per finding and side, of those in use."""
    keys = np.char.add(np.char.add(e.prompt_finding.astype(str), "|"), e.prompt_kind.astype(str))
    picked = []
    for key in dict.fromkeys(keys[use]):
        here = np.flatnonzero(use & (keys == key))
        picked.append(rng.choice(here, min(n, len(here)), replace=False))
    return np.sort(np.concatenate(picked))
