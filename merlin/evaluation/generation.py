"""Generated reports against dictated ones: wording (BLEU, ROUGE-2, BERTScore) and findings (F1).

Wording metrics reward stock phrases: a report that calls everything normal shares most of its words
with most reports. The clinical F1 asks instead which findings both texts state, read by our
extractor (`cohort.extract`); "everything normal" scores zero there. Every metric comes with patient
intervals, from per-study counts where the metric is of the whole corpus (BLEU, micro F1).

Wording is compared without headings: those of `join_sections` stand in both texts and would count as
shared words. Two BLEUs, since papers rarely say which: sacrebleu's (tokeniser 13a, case and
punctuation kept), and the one that radiology papers print (pycocoevalcap's, lower case, without
punctuation). Rows carry a signature. F1 is of stated findings, the positive class; in
`clinical_f1_details` a finding counts only where side, degree and count are those of the reference too:
a report that names the wrong kidney is wrong.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from merlin.data.details import details_of
from merlin.data.extract import label_table
from merlin.evaluation import results
from merlin.statistics import bootstrap, metrics, seeds
from merlin.vocabulary import NAMES

NAMED = {
    "planned": "a template with its own plan",
    "template": "the template of thresholded zero-shot scores",
    "nearest": "the nearest report",
    "frequent": "the most frequent text",
    "everything": "stating everything",
    "normal": "always normal",
}
Texts = Sequence[str] | np.ndarray
WRITERS = ("writer", "planned", "template", "nearest", "frequent", "everything", "normal")
ALIKE = ("frequent", "everything", "normal")  # the same whatever the seed of pretraining
DETAILS = ("side", "degree", "count")
# Scores by a language model, with what else their rows say.
MODEL_SCORES: dict[str, dict] = {
    "bertscore": {"signature": "all-MiniLM-L6-v2, torchmetrics"},
    "radgraph_f1": {},
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


def micro_f1(
    predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray, hits: np.ndarray | None = None
) -> np.ndarray:
    """F1 over all findings of all studies, per resample: (n_resamples,).

    `hits` is what counts as found; default: what both state.
    """
    weights = weights.astype(float)
    hits = predicted & truth if hits is None else hits
    hit = hits.sum(1) @ weights
    both = (predicted.sum(1) + truth.sum(1)) @ weights
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(truth.sum(1) @ weights > 0, 2 * hit / both, np.nan)


def details_right(generated: Texts, reference: Texts) -> dict[str, np.ndarray]:
    """Whether side, degree and count of each finding are those of the reference.

    Parameters
    ----------
    generated, reference : (n,) str
        With headings.

    Returns
    -------
    dict of `DETAILS` to (n, n_findings) float
        1 right, 0 wrong or left out, NaN where not both state the finding or the reference leaves it out.
    """
    out = {k: np.full((len(reference), len(NAMES)), np.nan) for k in DETAILS}
    for i, (made, true) in enumerate(zip(generated, reference, strict=True)):
        said = details_of(made)
        for finding, asked in details_of(true).items():
            if finding in said and finding in NAMES:
                j = NAMES.index(finding)
                for kind in DETAILS:
                    if kind in asked:
                        out[kind][i, j] = said[finding].get(kind) == asked[kind]
    return out


Measured = dict[
    tuple[str, str], tuple[np.ndarray, dict]
]  # (label, metric) → resamples, about the row


def _wording(made: Texts, true: Texts, w: np.ndarray) -> dict[str, tuple[np.ndarray, str]]:
    """Resamples and signature of each metric of words."""
    counts, signature = bleu_counts(made, true)
    plain, _ = bleu_counts(*map(plain_words, (made, true)), tokenize="none")
    mean = rouge2(made, true) @ w.astype(float) / np.maximum(w.sum(0), 1)
    return {
        "bleu": (bleu(counts, w), signature),
        "bleu4_coco": (bleu(plain, w, smooth=False), COCO),
        "rouge2": (mean, ROUGE),
    }


def _clinical(made: Texts, true: Texts, w: np.ndarray, sexes: Sequence[str] | None) -> dict:
    """(label, metric) → resamples and what counts, of findings in whole reports."""
    said, truth = stated(made, sexes), stated(true, sexes)
    n = int(truth.sum())
    right = details_right(made, true)
    wrong = np.any([r == 0 for r in right.values()], axis=0)
    found: dict = {("full report", "clinical_f1"): (micro_f1(said, truth, w), n)}
    strict = micro_f1(said, truth, w, said & truth & ~wrong)
    found["full report", "clinical_f1_details"] = strict, n
    for kind, r in right.items():
        asked = ~np.isnan(r)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (np.nan_to_num(r).sum(1) @ w.astype(float)) / (asked.sum(1) @ w.astype(float))
        found["full report", f"{kind}_right"] = share, int(asked.sum())
    has = np.asarray(truth.any(0))
    each = np.where(has[:, None], metrics.f1(said, truth.astype(float), w), np.nan)
    for j, finding in enumerate(NAMES):
        found[f"finding: {finding}", "clinical_f1"] = each[j], int(truth[:, j].sum())
    found["full report", "clinical_f1_macro"] = bootstrap.macro(each), int(has.sum())
    return found


def _measured(
    generated: np.ndarray, reference: np.ndarray, names: Sequence[str], weights: np.ndarray,
    sexes: Sequence[str] | None,
) -> Measured:  # fmt: skip
    """Every metric of one set of reports."""
    said_in = np.array([[bool(t.strip()) for t in row] for row in reference], bool)
    nothing = np.full(weights.shape[1], np.nan)
    out: Measured = {}
    parts = {n: (generated[:, i], reference[:, i]) for i, n in enumerate(names)}
    parts["full report"] = (join_sections(generated), join_sections(reference))
    for label, (made, true) in parts.items():
        known = np.asarray(
            said_in[:, list(names).index(label)] if label in names else said_in.any(1)
        )
        if not known.any():
            about: dict = dict(known=known, n_positive=0, is_ok=False)
            about["reason"] = f"empty in all {len(true)} reference reports"
            kinds = ("bleu", "bleu4_coco", "rouge2", "clinical_f1")
            out |= {(label, m): (nothing, about) for m in kinds}
            continue
        n, w = int(known.sum()), weights[known]
        about = dict(known=known, n_positive=n)
        for metric, (found, signature) in _wording(made[known], true[known], w).items():
            out[label, metric] = found, about | dict(signature=signature)
        own_sexes = None if sexes is None else [s for s, k in zip(sexes, known, strict=True) if k]
        if label == "full report":  # the extractor reads headings
            made, true = (
                join_sections(generated[known], names),
                join_sections(reference[known], names),
            )
            clinical = _clinical(made, true, w, own_sexes)
        else:
            said, truth = stated(made[known], own_sexes), stated(true[known], own_sexes)
            clinical = {(label, "clinical_f1"): (micro_f1(said, truth, w), int(truth.sum()))}
        for key, (found, count) in clinical.items():
            more: dict = dict(known=known, n_positive=count, is_ok=bool(count))
            if not count:
                more["reason"] = f"no finding is stated in {n} reference sections"
                if key[0].startswith("finding"):
                    more["reason"] = "stated in no reference"
                elif key[1].endswith("_right"):
                    more["reason"] = "in no finding that both state"
            out[key] = (found if count else nothing), more
    return out


def evaluate(
    generated: np.ndarray, reference: np.ndarray, patient_ids: np.ndarray, names: Sequence[str],
    *, sexes: Sequence[str] | None = None, model: str, split: str, n_resamples: int, seed: int,
) -> tuple[pd.DataFrame, dict]:  # fmt: skip
    """Metrics per section and of full reports.

    Parameters
    ----------
    generated : (n, n_sections) or (n_seeds, n, n_sections) str
    reference : (n, n_sections) str
        A study whose reference lacks a section is not evaluated there.
    patient_ids : (n,) str
    names : sequence of str
        Of the sections.
    sexes : (n,) str, optional
        For the extractor.

    Returns
    -------
    table : DataFrame
        Common schema, with `n_seeds` and `by_seed`; `label` is a section, `full report` or a finding.
        `bleu` is sacrebleu's, `bleu4_coco` the one of radiology papers; rows of both and of `rouge2` say
        how they were made in `signature`. `side_right` and its like are shares of the findings that both
        state, where the reference says the side.
    resampled : dict of (label, metric) to (n_seeds, 1 + n_resamples) float
        Of what was evaluated.
    """
    weights = results.resampling(patient_ids, n_resamples, seed=seed)
    generated = np.asarray(generated, object)
    runs = generated[None] if generated.ndim == 2 else generated
    measured = [_measured(run, reference, names, weights, sexes) for run in runs]
    rows, resampled = [], {}
    for (label, metric), (_, about) in measured[0].items():
        drawn = np.stack([run[label, metric][0] for run in measured])
        about = {**about, "patient_ids": np.asarray(patient_ids)}
        rows.append(results.row(label, metric, drawn, **about))
        if rows[-1]["status"] == "ok":
            resampled[label, metric] = drawn
    return results.table("report generation", rows, model=model, split=split), resampled


def by_writer(
    written: pd.DataFrame, names: Sequence[str], *, n_resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All metrics of every writer, and how far the first is ahead of the others in each.

    Parameters
    ----------
    written : DataFrame
        `model` (`reference` or one of `WRITERS`), `study_id, patient_id`, perhaps `sex` and `seed`, a
        column for each section, and scores of a language model as `jobs.report_generation` has them.
    names : sequence of str
        Of the sections.

    Returns
    -------
    results : DataFrame
        Common schema.
    paired : DataFrame
        `writer minus, label, metric, value, low, high, n_seeds, by_seed, n_patients`, of whole reports and
        of every finding, on the same resamples; the spread between seeds is pooled over writers.
    """
    written = written if "seed" in written else written.assign(seed=0)
    first = written[written["seed"] == written["seed"].min()]
    true = first[first["model"] == "reference"]
    patients, sexes = true["patient_id"].to_numpy(str), None
    if "sex" in true:
        sexes = true["sex"].tolist()
    how = dict(n_resamples=n_resamples, seed=seed)
    tables, drawn = [], {}
    for name in (w for w in WRITERS if w in set(written["model"])):
        part = (first if name in ALIKE else written).query("model == @name")
        runs = [run for _, run in part.groupby("seed")]
        texts = np.stack([run[list(names)].to_numpy(object) for run in runs])
        made, drawn[name] = evaluate(
            texts, true[list(names)].to_numpy(object), patients, names, sexes=sexes, model=name,
            split="test", **how,
        )  # fmt: skip
        extra, found = _mean_rows(runs, **how)
        drawn[name] |= found
        tables += [made, extra.assign(model=name, split="test")]
    paired = _ahead(drawn).assign(n_patients=len(set(patients)))
    return pd.concat(tables, ignore_index=True), paired


def _ahead(drawn: dict[str, dict]) -> pd.DataFrame:
    """The writer minus each other, of whole reports and findings that both were evaluated on."""
    rows = []
    for other in (w for w in drawn if w != "writer"):
        for key in (k for k in drawn["writer"] if k in drawn[other]):
            if not key[0].startswith(("full", "finding")):
                continue
            spread = seeds.pooled_spread([d[key][:, 0] for d in drawn.values() if key in d])
            about = {"writer minus": other, "label": key[0], "metric": key[1]}
            gap = results.difference_of_runs(drawn["writer"][key], drawn[other][key], spread=spread)
            rows.append(about | gap)
    return pd.DataFrame(rows)


def _mean_rows(runs: Sequence[pd.DataFrame], *, n_resamples: int, seed: int) -> tuple:
    """Rows of the means of scores that some studies have, and their resamples; without any, why."""
    rows, drawn = [], {}
    for score, own in MODEL_SCORES.items():
        scored = [run[run[score].notna()] for run in runs]
        if min(map(len, scored)) == 0:
            reason = runs[0]["radgraph_reason"].iloc[0]
            rows.append(results.missing("full report", score, reason, n_studies=len(runs[0])))
            continue
        patients = scored[0]["patient_id"].to_numpy(str)
        weights = results.resampling(patients, n_resamples, seed=seed).astype(float)
        found = np.stack([s[score].to_numpy() @ weights / weights.sum(0) for s in scored])
        who = dict(
            known=np.ones(len(patients), bool), patient_ids=patients, n_positive=len(patients)
        )
        rows.append(results.row("full report", score, found, **who, **own))
        drawn["full report", score] = found
    return results.table("report generation", rows), drawn


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
    """What `by_writer` found, in words: which rivals the writer beats in findings, and which not."""
    full = table[table["label"] == "full report"].set_index(["model", "metric"])["value"]
    ahead = paired[paired["label"] == "full report"].set_index(["writer minus", "metric"])
    f1 = full.xs("clinical_f1", level=1)
    said = [
        "Clinical F1 of whole reports: " + ", ".join(f"{k} {v:.3f}" for k, v in f1.items()) + "."
    ]
    for other in (w for w in f1.index if w != "writer"):
        for metric, what in (
            ("clinical_f1", ""),
            ("clinical_f1_details", ", sides and degrees counted"),
        ):
            if (other, metric) in ahead.index:
                gap = ahead.loc[(other, metric)]
                verb = (
                    "beats"
                    if gap["low"] > 0
                    else "loses to"
                    if gap["high"] < 0
                    else "does not beat"
                )
                said.append(
                    f"The writer {verb} {NAMED[other]}{what}: {gap['value']:+.3f} "
                    f"[{gap['low']:+.3f}, {gap['high']:+.3f}]."
                )
    said.append(
        f"BLEU {full['writer', 'bleu']:.3f}; the nearest report's {full['nearest', 'bleu']:.3f}; calling "
        f"everything normal earns {full['normal', 'bleu']:.3f} and no finding."
    )
    return " ".join(said)
