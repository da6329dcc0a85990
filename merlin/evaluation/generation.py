"""Generated reports against dictated ones: wording (BLEU, ROUGE-2, BERTScore) and findings (F1).

Wording metrics reward stock phrases: a report that calls everything normal shares most of its words
with most reports. The clinical F1 asks instead which findings both texts state, read by our
extractor (`cohort.extract`); "everything normal" scores zero there. Every metric comes with patient
intervals, from per-study counts where the metric is of the whole corpus (BLEU, micro F1).

Wording is compared without headings: those of `join_sections` stand in both texts and would count as
shared words. Two BLEUs, since papers rarely say which: sacrebleu's (tokeniser 13a, case and
punctuation kept), and the one that radiology papers print (pycocoevalcap's, lower case, without
punctuation). Rows carry a signature. F1 is of stated findings, the positive class.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from merlin.data.extract import label_table
from merlin.evaluation import results
from merlin.statistics import bootstrap, metrics
from merlin.vocabulary import NAMES

Texts = Sequence[str] | np.ndarray
WRITERS = ("writer", "nearest", "frequent", "normal")
# Scores by a language model, with what else their rows say.
MODEL_SCORES: dict[str, dict] = {
    "bertscore": {"signature": "all-MiniLM-L6-v2, torchmetrics"},
    "radgraph_f1": {},
}


def nearest_report(query: np.ndarray, library: np.ndarray) -> np.ndarray:
    """Position in the library of each query's nearest image; both (n, D), unit length."""
    return np.argmax(np.asarray(query) @ np.asarray(library).T, axis=1)


def most_frequent(sections: np.ndarray) -> np.ndarray:
    """(n_sections,) str: the commonest non-empty text of each section; ties go to the first."""
    out = []
    for column in np.asarray(sections, object).T:
        texts, count = np.unique([t for t in column if t], return_counts=True)
        out.append(str(texts[count.argmax()]) if len(texts) else "")
    return np.array(out, object)


def baselines(
    sections: np.ndarray, image: np.ndarray, train: np.ndarray, test: np.ndarray
) -> dict[str, np.ndarray]:
    """Reports that nobody wrote for these studies, each (n_test, n_sections) str.

    `nearest` copies the report of the training volume with the most similar embedding, `frequent` takes
    the commonest text of each section, `normal` says so everywhere: it must lose on findings, whatever it
    wins in words.

    Parameters
    ----------
    sections : (n, n_sections) str
    image : (n, D) float
        Unit length.
    train, test : int arrays
        Rows.
    """
    return {
        "nearest": sections[train][nearest_report(image[test], image[train])],
        "frequent": np.tile(most_frequent(sections[train]), (len(test), 1)),
        "normal": np.full_like(sections[test], "Normal."),
    }


def join_sections(sections: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """(n,) str: full reports; with `names`, each section behind its heading, as the extractor reads them."""
    headings = [f"{n[0].upper()}{n[1:]}: " for n in names] if names is not None else None
    return np.array(
        [
            " ".join(f"{h}{t}" for h, t in zip(headings or [""] * len(row), row, strict=True) if t)
            for row in sections
        ],
        object,
    )


def bleu_counts(
    generated: Texts, reference: Texts, *, tokenize: str = "13a"
) -> tuple[np.ndarray, str]:
    """Per-text n-gram counts of sacrebleu: (n, 10) hits 1..4, totals 1..4, lengths; and its signature."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU(effective_order=True, tokenize=tokenize)
    rows = []
    for g, r in zip(generated, reference, strict=True):
        score = bleu.sentence_score(g, [r])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    corpus = BLEU(tokenize=tokenize)
    corpus.corpus_score(list(generated[:1]), [list(reference[:1])])
    return np.array(rows, float), str(corpus.get_signature())


def bleu(counts: np.ndarray, weights: np.ndarray, *, smooth: bool = True) -> np.ndarray:
    """Corpus BLEU in [0, 1] of each resample, from `bleu_counts`.

    Parameters
    ----------
    counts : (n, 10) float
    weights : (n, n_resamples) int
    smooth : bool
        sacrebleu's default ('exp'); without it, pycocoevalcap's formula: 0 where no four words in a
        row are shared (it prints about 1e-4 there, from a constant against division by zero).
    """
    total = counts.T @ weights.astype(float)  # (10, n_resamples)
    hits, tries, own, other = total[:4], total[4:8], total[8], total[9]
    # 'exp' smoothing: an order without hits counts as 1/2, 1/4, … of a hit.
    if smooth:
        missed = np.cumsum((hits == 0) & (tries > 0), axis=0)
        hits = np.where(hits == 0, 0.5**missed, hits)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(hits / tries).mean(0)
        brevity = np.where(own < other, np.exp(1 - other / own), 1.0)
    value = brevity * np.exp(logs)
    return np.where((tries > 0).all(0) & (own > 0) & (total[0] > 0), value, 0.0)


def plain_words(texts: Iterable[str]) -> list[str]:
    """Texts in lower case without punctuation, as radiology papers clean them before BLEU.

    Points, slashes and hyphens inside a word or number stay: `1.5`, `12/3`, `well-defined`.
    """
    return [" ".join(re.findall(r"[^\W_]+(?:[.,/'-][^\W_]+)*", t.lower())) for t in texts]


COCO = "BLEU-4 by pycocoevalcap's formula, no smoothing, lower case, without punctuation"
ROUGE = "ROUGE-2 F1 of rouge-score, Porter's stemmer, lower case, mean over studies"


def rouge2(generated: Texts, reference: Texts) -> np.ndarray:
    """(n,) float: ROUGE-2 F1 of rouge-score, with Porter's stemmer."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge2"], use_stemmer=True)
    return np.array(
        [scorer.score(r, g)["rouge2"].fmeasure for g, r in zip(generated, reference, strict=True)]
    )


def stated(texts: Iterable[str], sexes: Sequence[str] | None = None) -> np.ndarray:
    """(n, n_findings) bool: findings that each report states as present."""
    return label_table(list(texts), sexes) == 1


def micro_f1(predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1 over all findings of all studies, per resample: (n_resamples,)."""
    weights = weights.astype(float)
    hit = (predicted & truth).sum(1) @ weights
    both = (predicted.sum(1) + truth.sum(1)) @ weights
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(truth.sum(1) @ weights > 0, 2 * hit / both, np.nan)


def evaluate(
    generated: np.ndarray, reference: np.ndarray, patient_ids: np.ndarray, names: Sequence[str],
    findings: Sequence[str], *, sexes: Sequence[str] | None = None, model: str, split: str,
    n_resamples: int, seed: int,
) -> tuple[pd.DataFrame, dict]:  # fmt: skip
    """Metrics per section and of full reports.

    Parameters
    ----------
    generated, reference : (n, n_sections) str
        A study whose reference lacks a section is not evaluated there.
    patient_ids : (n,) str
    names : sequence of str
        Of the sections.
    findings : sequence of str
        Columns of the extractor.
    sexes : (n,) str, optional
        For the extractor.

    Returns
    -------
    table : DataFrame
        Common schema; `label` is a section or `full report`. `bleu` is sacrebleu's, `bleu4_coco` the
        one of radiology papers; rows of both and of `rouge2` say how they were made in `signature`.
    resampled : dict of (label, metric) to (1 + n_resamples,) float
    """
    weights = results.resampling(patient_ids, n_resamples, seed=seed)
    patient_ids, rows, resampled = np.asarray(patient_ids), [], {}

    def add(
        label: str,
        metric: str,
        found: np.ndarray,
        known: np.ndarray,
        n_positive: int,
        **more: object,
    ) -> None:
        resampled[label, metric] = found
        said: dict = dict(known=known, patient_ids=patient_ids, n_positive=n_positive, **more)
        rows.append(results.row(label, metric, found, **said))

    parts = {n: (generated[:, i], reference[:, i]) for i, n in enumerate(names)}
    parts["full report"] = (join_sections(generated), join_sections(reference))
    said_in = np.array([[bool(t.strip()) for t in row] for row in reference], bool)
    kinds = ("bleu", "bleu4_coco", "rouge2", "clinical_f1")
    for label, (made, true) in parts.items():
        known = np.asarray(
            said_in[:, list(names).index(label)] if label in names else said_in.any(1)
        )
        if not known.any():
            reason = f"empty in all {len(true)} reference reports"
            rows += [results.missing(label, m, reason) for m in kinds]
            continue
        w, n = weights[known], int(known.sum())
        counts, signature = bleu_counts(made[known], true[known])
        add(label, "bleu", bleu(counts, w), known, n, signature=signature)
        counts, _ = bleu_counts(*map(plain_words, (made[known], true[known])), tokenize="none")
        add(label, "bleu4_coco", bleu(counts, w, smooth=False), known, n, signature=COCO)
        mean = rouge2(made[known], true[known]) @ w.astype(float) / np.maximum(w.sum(0), 1)
        add(label, "rouge2", mean, known, n, signature=ROUGE)
        if label == "full report":  # the extractor reads headings
            made, true = join_sections(generated, names), join_sections(reference, names)
        said = stated(made, sexes)[known]
        truth = stated(true, sexes)[known]
        if truth.any():
            add(label, "clinical_f1", micro_f1(said, truth, w), known, int(truth.sum()))
        else:
            reason = f"no finding is stated in {n} reference sections"
            rows.append(results.missing(label, "clinical_f1", reason, n_studies=n))
        if label == "full report":
            each = metrics.f1(said, truth.astype(float), w)
            has = np.asarray(truth.any(0))
            each = np.where(has[:, None], each, np.nan)
            for j, finding in enumerate(findings):
                more = dict(is_ok=bool(has[j]), reason="" if has[j] else "stated in no reference")
                add(f"finding: {finding}", "clinical_f1", each[j], known, truth[:, j].sum(), **more)
            if has.any():
                add(label, "clinical_f1_macro", bootstrap.macro(each), known, has.sum())
            else:
                rows.append(results.missing(label, "clinical_f1_macro", reason, n_studies=n))
    table = pd.DataFrame(rows)
    table.insert(0, "task", "report generation")
    return table.assign(model=model, split=split), resampled


def by_writer(
    written: pd.DataFrame, names: Sequence[str], *, n_resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All metrics of every writer, and how far the first is ahead of the others in clinical F1.

    Parameters
    ----------
    written : DataFrame
        `model` (`reference` or one of `WRITERS`), `study_id, patient_id`, perhaps `sex`, a column for each
        section, and scores of a language model as `jobs.report_generation` has them.
    names : sequence of str
        Of the sections.

    Returns
    -------
    results : DataFrame
        Common schema.
    paired : DataFrame
        `difference in clinical F1, value, low, high`, on the same resamples.
    """
    parts = {m: written[written["model"] == m] for m in ("reference", *WRITERS)}
    texts = {m: part[list(names)].to_numpy(object) for m, part in parts.items()}
    patients = parts["reference"]["patient_id"].to_numpy(str)
    sexes = parts["reference"]["sex"].tolist() if "sex" in written else None
    how = dict(n_resamples=n_resamples, seed=seed)
    tables, drawn = [], {}
    for name in WRITERS:
        made, found = evaluate(
            texts[name], texts["reference"], patients, names, NAMES, sexes=sexes, model=name,
            split="test", **how,
        )  # fmt: skip
        tables.append(made)
        drawn[name] = found["full report", "clinical_f1"]
    more = [_mean_row(parts[w], score, **how) for score in MODEL_SCORES for w in WRITERS]
    extra = pd.DataFrame(more).assign(task="report generation", split="test")
    gaps = [
        (f"writer − {other}", *results.difference(drawn["writer"], drawn[other]))
        for other in WRITERS[1:]
    ]
    paired = pd.DataFrame(gaps, columns=["difference in clinical F1", "value", "low", "high"])
    return pd.concat([*tables, extra], ignore_index=True), paired


def _mean_row(part: pd.DataFrame, score: str, *, n_resamples: int, seed: int) -> dict:
    """The mean of a score that some studies have, as a row; without any, why."""
    name, own = part["model"].iloc[0], MODEL_SCORES[score]
    scored = part[part[score].notna()]
    if scored.empty:
        reason = part["radgraph_reason"].iloc[0]
        return results.missing("full report", score, reason, n_studies=len(part), model=name)
    patients = scored["patient_id"].to_numpy(str)
    weights = results.resampling(patients, n_resamples, seed=seed).astype(float)
    found = scored[score].to_numpy() @ weights / weights.sum(0)
    who = dict(known=np.ones(len(scored), bool), patient_ids=patients, n_positive=len(scored))
    return results.row("full report", score, found, **who, model=name, **own)


def whole_reports(written: pd.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Full reports with headings, (n,) str, by who wrote them; `written` as in `by_writer`."""
    models = dict.fromkeys(written["model"])
    texts = {m: written.loc[written["model"] == m, list(names)] for m in models}
    return {m: join_sections(t.to_numpy(object), names) for m, t in texts.items()}


def cases(generated: Texts, reference: Texts, study_ids: Texts, *, n: int = 2) -> pd.DataFrame:
    """Good and bad cases by rule: the best and worst F1 of stated findings, ties by study id.

    Only studies with at least three stated findings compete, so that an empty report can't win.

    Returns
    -------
    DataFrame
        `case` (good or bad), `study_id, f1, n_stated`.
    """
    said, truth = stated(generated), stated(reference)
    both = said.sum(1) + truth.sum(1)
    value = np.where(both > 0, 2 * (said & truth).sum(1) / np.maximum(both, 1), np.nan)
    table = pd.DataFrame(dict(study_id=study_ids, f1=value, n_stated=truth.sum(1)))
    table = table[table["n_stated"] >= 3].sort_values(["f1", "study_id"], ascending=[False, True])
    good, bad = table.head(n).assign(case="good"), table.tail(n).assign(case="bad")
    return pd.concat([good, bad]).reset_index(drop=True)


def reading(table: pd.DataFrame, paired: pd.DataFrame) -> str:
    """What `by_writer` found, in words."""
    full = table[table["label"] == "full report"].set_index(["model", "metric"])["value"]
    f1, bleu4, best = full.xs("clinical_f1", level=1), full.xs("bleu", level=1), paired.iloc[0]
    return (
        f"Clinical F1 of whole reports: written {f1['writer']:.3f}, nearest report {f1['nearest']:.3f}, "
        f"most frequent text {f1['frequent']:.3f}, always normal {f1['normal']:.3f}. Written minus "
        f"nearest: {best['value']:+.3f} [{best['low']:.3f}, {best['high']:.3f}]. BLEU "
        f"{bleu4['writer']:.3f} against {bleu4['nearest']:.3f}. Calling everything normal earns BLEU "
        f"{bleu4['normal']:.3f} and no finding."
    )
