"""Zero-shot findings: similarity to presence prompts against similarity to absence prompts.

A study has a finding if its image lies nearer to texts that state it than to texts that deny it.
Inputs are embeddings and labels; nothing here encodes, reads files or needs torch. The paper's rule
is `mean_similarity` with threshold zero; what else is in use in the field is available by name,
because the order of averaging changes scores (peers: trap 33).

Labels are 1, 0 and NaN; findings that a report does not mention are left out of its metrics. A
finding with one class only is reported as not evaluated. Every F1 here is of the positive class, and
its macro average the plain mean over findings; the weighted one of other papers is another number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from merlin.evaluation import results
from merlin.evaluation.results import has_both, label_rows, over_runs, resampling, row
from merlin.statistics import bootstrap, metrics
from merlin.streams import Stream, stream_of

SCORING = ("mean_similarity", "normalised_mean", "raw_mean")
# Of prompts: as training reports put it, in radiologists' other words, in a layman's.
WORDINGS = ("reported", "paraphrased", "plain")


@dataclass(frozen=True)
class Scores:
    """Presence scores of one model on one set of studies.

    Attributes
    ----------
    findings : tuple of str
    value : (n_studies, n_findings) float
        Presence minus absence similarity, in [-2, 2].
    """

    findings: tuple[str, ...]
    value: np.ndarray


def score(
    image: np.ndarray, prompt_embedding: np.ndarray, prompt_finding: np.ndarray,
    prompt_kind: np.ndarray, *, scoring: str = "mean_similarity", absence_optional: bool = False,
) -> Scores:  # fmt: skip
    """Presence minus absence similarity per study and finding.

    Parameters
    ----------
    image : (n, D) float, unit length
    prompt_embedding : (m, D) float
        Unit length, except for `raw_mean`, which wants the encoder's own lengths.
    prompt_finding, prompt_kind : (m,) str
        `prompt_kind` is `present` or `absent`.
    scoring : {"mean_similarity", "normalised_mean", "raw_mean"}
        Average the similarities (the paper's authors); average unit prompt embeddings and normalise
        again (CheXzero); average them and normalise once (BioViL).
    absence_optional : bool
        A finding without absence prompts scores by presence similarity alone: it can be ranked, but
        zero is no threshold for it.

    Returns
    -------
    Scores

    Raises
    ------
    ValueError
        If a finding lacks presence or absence prompts; all such findings are named.
    """
    if scoring not in SCORING:
        raise ValueError(f"scoring must be one of {SCORING}; got {scoring!r}")
    names = tuple(dict.fromkeys(prompt_finding.tolist()))
    missing = [
        f"{n} ({kind})"
        for n in names
        for kind in (("present",) if absence_optional else ("present", "absent"))
        if not ((prompt_finding == n) & (prompt_kind == kind)).any()
    ]
    if missing:
        raise ValueError(f"no prompts for {', '.join(missing)}")
    value = np.empty((len(image), len(names)))
    for j, name in enumerate(names):
        side = {"absent": 0.0}
        for kind in ("present", "absent"):
            prompts = prompt_embedding[(prompt_finding == name) & (prompt_kind == kind)]
            if not len(prompts):
                continue
            if scoring == "normalised_mean":
                prompts = prompts / np.linalg.norm(prompts, axis=1, keepdims=True)
            if scoring != "mean_similarity":
                mean = prompts.mean(0)
                prompts = (mean / np.linalg.norm(mean))[None]
            side[kind] = (image @ prompts.T).mean(1)
        value[:, j] = side["present"] - side["absent"]
    return Scores(names, value)


def score_file(
    embeddings, rows: np.ndarray, *, wording: str, scoring: str = "mean_similarity"
) -> Scores:
    """Score studies of an embeddings file with its prompts of one wording (one of `WORDINGS`)."""
    e, use = embeddings, embeddings.prompt_wording == wording
    prompts = (a[use] for a in (e.prompt_embedding, e.prompt_finding, e.prompt_kind))
    return score(e.image[rows], *prompts, scoring=scoring)


def balanced_draw(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Mask out negatives of each finding until they equal its positives.

    The paper may have balanced its test set (paper_facts §5.1); F1 depends on it. Returns labels
    with the left-out negatives (or positives, where those are more) set to NaN.
    """
    labels = np.array(labels, float)
    for j in range(labels.shape[1]):
        rng = stream_of(seed, Stream.BALANCED, j)
        kinds = np.flatnonzero(labels[:, j] == 1), np.flatnonzero(labels[:, j] == 0)
        fewer, more = sorted(kinds, key=len)
        labels[rng.permutation(more)[len(fewer) :], j] = np.nan
    return labels


def evaluate(
    scores: Scores | Sequence[Scores], labels: np.ndarray, patient_ids: np.ndarray, *, model: str,
    split: str, thresholds: float | np.ndarray = 0.0, n_resamples: int = 1000, n_draws: int = 10, seed: int,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:  # fmt: skip
    """AUROC, F1 (of the positive class) and class-balanced F1 per finding, and macro, with intervals.

    Parameters
    ----------
    scores : Scores or sequence of Scores
        Of one run, or of several that differ in their seed.
    labels : (n_studies, n_findings) float
        Columns as `scores.findings`.
    patient_ids : (n_studies,) str
    model, split : str
        For the table.
    thresholds : float or (n_findings,) or (n_seeds, n_findings) float
        A study is called positive above it: 0 is the paper's rule, or thresholds from validation.
        NaN where there is none: that finding has no F1.
    n_resamples : int
        Of patients.
    n_draws : int
        Class-balanced draws that `f1_balanced` averages over.
    seed : int
        The same seed and studies give the same resamples for every model, so that models can be
        compared pairwise.

    Returns
    -------
    table : DataFrame
        The common result schema.
    resampled : dict of str to (1 + n_resamples,) or (n_seeds, 1 + n_resamples) float
        Macro value of each metric, then in each resample, for paired differences.
    """
    runs = [scores] if isinstance(scores, Scores) else list(scores)
    names = runs[0].findings
    weights = resampling(patient_ids, n_resamples, seed=seed)
    thresholds = np.broadcast_to(thresholds, (len(runs), len(names)))
    both = np.array([has_both(column) for column in labels.T], bool)
    balanced = [balanced_draw(labels, seed=seed + d) for d in range(n_draws)]
    called = [run.value > limit for run, limit in zip(runs, thresholds, strict=True)]
    values = {
        "auroc": np.stack([metrics.auroc(run.value, labels, weights) for run in runs]),
        "f1": np.stack([metrics.f1(c, labels, weights) for c in called]),
        "f1_balanced": np.stack(
            [np.mean([metrics.f1(c, part, weights) for part in balanced], axis=0) for c in called]
        ),
    }
    one_class = [
        f"one class only: {(y == 1).sum()} positive of {(~np.isnan(y)).sum()} labelled"
        for y in labels.T
    ]
    few = bootstrap.fewest(labels, patient_ids)
    rows, resampled = [], {}
    for metric, found in values.items():
        ok = both if metric == "auroc" else both & ~np.isnan(thresholds).any(0)
        found = np.where(ok[:, None], found, np.nan)
        why = np.where(ok, "", np.where(both, "no threshold to call it by", one_class))
        rows += label_rows(
            names, metric, found, labels=labels, patient_ids=patient_ids, is_ok=ok,
            reasons=why.tolist(),
        )  # fmt: skip
        n_few = few if metric == "auroc" else None
        resampled[metric] = over_runs(bootstrap.macro(f, n_few=n_few) for f in found)
        left_out = f"{int((~ok).sum())} of {len(ok)} findings not evaluated"
        rows.append(
            row(
                "macro", metric, resampled[metric], known=~np.isnan(labels).all(1),
                patient_ids=patient_ids, n_positive=ok.sum(), is_ok=bool(ok.any()),
                reason="" if ok.all() else left_out,
            )
        )  # fmt: skip
    return results.table("zero-shot findings", rows, model=model, split=split), resampled
