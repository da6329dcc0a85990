"""Off-the-shelf scores of every arm of a profile, on the same studies and the same resamples.

What `04_zero_shot_findings`, `05_phenotypes` and `06_retrieval` count: each arm, then chance, then
paired differences. Inputs are embeddings; nothing here encodes or reads files.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from merlin.data.phecodes import read_phenotypes
from merlin.embeddings import Embeddings
from merlin.evaluation import phenotypes, ranges, retrieval, zero_shot
from merlin.evaluation.results import difference, ends
from merlin.statistics import metrics
from merlin.streams import Stream, stream_of

UNTRAINED = ("chance", "always present")  # rows that no training made

Again = Sequence[Embeddings]  # of the main arm trained with other seeds, studies as in the first


def _runs(name: str, e: Embeddings, again: Again) -> list[Embeddings]:
    return [e, *again] if name == "main" else [e]


def findings(
    arms: Mapping[str, Embeddings],
    rows: np.ndarray,
    *,
    again: Again = (),
    scoring: str,
    threshold: str,
    n_resamples: int,
    n_draws: int,
    seed: int,
) -> tuple[pd.DataFrame, dict]:
    """Zero-shot findings of every arm with every wording of the prompts.

    Parameters
    ----------
    arms : dict of str to Embeddings
        The main arm among them: its labels judge all.
    rows : (n,) int
        Studies that are judged.
    again : sequence of Embeddings
        The main arm trained with other seeds: its rows are means over seeds.
    scoring, threshold : str
        Of `zero_shot.SCORING`; `zero`, or `validation` for each finding's best F1 there.
    n_resamples, n_draws, seed : int

    Returns
    -------
    table : DataFrame
        The common result schema, and `wording`.
    drawn : dict of (arm, wording) to dict of str to (1 + n_resamples,) float
        Of the main arm (n_seeds, 1 + n_resamples) where it has several.
    """
    main, tables, drawn = arms["main"], [], {}
    names = zero_shot.score_file(main, rows, wording="reported", scoring=scoring).findings
    labels = main.labels_of(names)
    if not np.isfinite(labels[rows]).any():
        raise ValueError("no test study has a finding label: nothing to judge (docs/embeddings.md)")
    for name, e in arms.items():
        for wording in [w for w in zero_shot.WORDINGS if w in e.prompt_wording]:
            how = dict(wording=wording, scoring=scoring)
            runs, limit = _runs(name, e, again), np.zeros((1, 1))
            if threshold == "validation":
                val = e.rows(site="internal", split="val")
                found = [zero_shot.score_file(run, val, **how).value for run in runs]
                limit = np.stack([metrics.best_f1_threshold(f, labels[val]) for f in found])
            made, drawn[name, wording] = zero_shot.evaluate(
                [zero_shot.score_file(run, rows, **how) for run in runs], labels[rows],
                main.patient_id[rows], model=name, split="test", thresholds=limit,
                n_resamples=n_resamples, n_draws=n_draws, seed=seed,
            )  # fmt: skip
            tables.append(made.assign(wording=wording))
    return ranges.within(pd.concat(tables, ignore_index=True)), drawn


def findings_elsewhere(
    main: Embeddings, sites: Iterable[str], *, again: Again = (), scoring: str, **options: int
) -> list[pd.DataFrame]:
    """The test studies of other sites, threshold zero: a table a site; those without are left out."""
    tables = []
    for site in sites:
        rows = main.rows(site=site, split="test")
        if not len(rows):
            continue
        how = dict(wording="reported", scoring=scoring)
        s = [zero_shot.score_file(run, rows, **how) for run in (main, *again)]
        made, _ = zero_shot.evaluate(
            s, main.labels_of(s[0].findings)[rows], main.patient_id[rows],
            model=f"main, {site}", split="external", **options,
        )  # fmt: skip
        tables.append(ranges.within(made).assign(wording="reported"))
    return tables


def findings_baselines(
    names: tuple[str, ...],
    labels: np.ndarray,
    patient_ids: np.ndarray,
    *,
    seed: int,
    **options: int,
) -> tuple[pd.DataFrame, dict]:
    """Calling every study positive, and scoring at random.

    Parameters
    ----------
    names : sequence of str
    labels : (n_studies, n_findings) float
    patient_ids : (n_studies,) str

    Returns
    -------
    table, drawn
        As of `findings`, by model.
    """
    guess = stream_of(seed, Stream.GUESSES).normal(size=labels.shape)
    tables, drawn = [], {}
    for name, value in (("always present", np.ones_like(guess)), ("chance", guess)):
        made, drawn[name] = zero_shot.evaluate(
            zero_shot.Scores(names, value), labels, patient_ids,
            model=name, split="test", seed=seed, **options,
        )  # fmt: skip
        tables.append(made.assign(wording="reported"))
    return pd.concat(tables, ignore_index=True), drawn


def differences(
    drawn: Mapping, first: object, others: Mapping, measures: Iterable[str], *,
    untrained: Iterable[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Paired differences of one model from others, on the same resamples.

    Parameters
    ----------
    drawn : dict of key to dict of str to (1 + n_resamples,) float
    first : key
        Of the model that others are taken from.
    others : dict of str to key
        What a difference is called → the other model; those that were not judged are left out.
    measures : sequence of str
    untrained : iterable of str
        Models without luck of training, beside `UNTRAINED`. Any other model of one run is taken to have
        as much of it as the first shows.

    Returns
    -------
    DataFrame
        `difference, metric, value, low, high, n_seeds`, the last of the first model and of the other.
    """
    measures, rows = tuple(measures), []
    for label, other in others.items():
        if other not in drawn:
            continue
        for m in measures:
            one, two = drawn[first][m], drawn[other][m]
            n = " and ".join(str(len(np.atleast_2d(d))) for d in (one, two))
            name = other[0] if isinstance(other, tuple) else other
            is_trained = name not in {*UNTRAINED, *untrained}
            gap = difference(one, two, m, is_trained=is_trained)
            rows.append((label, m, *ends(gap), n))
    columns = ["difference", "metric", "value", "low", "high", "n_seeds"]
    return ranges.within(pd.DataFrame(rows, columns=columns), differences=True)


def order_of_findings(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the main arm's AUROC by finding, from hard to easy; those without a value are left out."""
    kept = table.query(
        "model == 'main' and metric == 'auroc' and wording == 'reported' and label != 'macro'"
    )
    return kept.dropna(subset="value").sort_values("value")


def typical_study(
    main: Embeddings, rows: np.ndarray, scores: zero_shot.Scores, order: pd.DataFrame
) -> tuple[str, pd.DataFrame]:
    """The finding of median AUROC, and its positive study of median score, against each prompt.

    Returns
    -------
    finding : str
    table : DataFrame
        `kind, prompt, similarity, position`.
    """
    name = order["label"].iloc[len(order) // 2] if len(order) else scores.findings[0]
    column = scores.findings.index(name)
    positive = np.flatnonzero(main.labels_of(scores.findings)[rows][:, column] == 1)
    ranked = positive[np.argsort(scores.value[positive, column])]
    chosen = ranked[len(ranked) // 2] if len(ranked) else 0
    use = (main.prompt_finding == name) & (main.prompt_wording == "reported")
    table = pd.DataFrame({"kind": main.prompt_kind[use], "prompt": main.prompt[use]})
    table["similarity"] = main.prompt_embedding[use] @ main.image[rows][chosen]
    return name, table.assign(position=range(len(table)))


def scores_by_study(
    arms: Mapping[str, Embeddings], rows: np.ndarray, *, scoring: str
) -> pd.DataFrame:
    """One row a study, arm and finding: `study_id, patient_id, model, finding, score, label`."""
    main, keys = arms["main"], ["study_id", "patient_id", "model"]
    ids = dict(study_id=main.study_id[rows], patient_id=main.patient_id[rows])
    tables = []
    for name, e in arms.items():
        s = zero_shot.score_file(e, rows, wording="reported", scoring=scoring)
        wide = pd.DataFrame(s.value, columns=s.findings).assign(**ids, model=name)
        tables.append(wide.melt(keys, var_name="finding", value_name="score"))
    names = zero_shot.score_file(main, rows, wording="reported", scoring=scoring).findings
    stated = pd.DataFrame(main.labels_of(names)[rows], columns=names)
    stated = stated.assign(study_id=main.study_id[rows])
    stated = stated.melt("study_id", var_name="finding", value_name="label")
    return pd.concat(tables).merge(stated, on=["study_id", "finding"])


def codes(
    arms: Mapping[str, Embeddings],
    rows: np.ndarray,
    *,
    again: Again = (),
    min_positive: int,
    n_resamples: int,
    seed: int,
) -> tuple[pd.DataFrame, dict]:
    """Phecodes of every arm, and of scores at random; `again` as of `findings`.

    Returns
    -------
    table : DataFrame
        The common result schema.
    drawn : dict of str to dict of str to (1 + n_resamples,) float
        By model; of the main arm (n_seeds, 1 + n_resamples) where it has several seeds.
    """
    main = arms["main"]
    labels = main.phecode_labels[rows].astype(float)
    scores = {
        arm: np.stack([run.phecode_logits[rows] for run in _runs(arm, e, again)])
        for arm, e in arms.items()
    }
    scores["chance"] = stream_of(seed, Stream.CHANCE_CODES).normal(size=labels.shape)
    tables, drawn = [], {}
    for model, value in scores.items():
        made, drawn[model] = phenotypes.evaluate(
            value, labels, main.patient_id[rows], main.phecode.tolist(), model=model, split="test",
            min_positive=min_positive, n_resamples=n_resamples, seed=seed,
        )  # fmt: skip
        tables.append(made)
    return ranges.within(pd.concat(tables, ignore_index=True)), drawn


def named_codes(phecodes: Iterable[str]) -> pd.DataFrame:
    """`phecode, name`; a phecode that the package's table does not name stands for itself."""
    known = read_phenotypes().set_index("phecode")["phenotype"]
    phecodes = list(phecodes)
    return pd.DataFrame({"phecode": phecodes, "name": [known.get(p, p) for p in phecodes]})


def codes_by_study(main: Embeddings, rows: np.ndarray) -> pd.DataFrame:
    """One row a study and phecode: `study_id, phecode, score, label, model`."""
    names, ids = main.phecode, main.study_id[rows]
    table = pd.DataFrame(main.phecode_logits[rows], columns=names).assign(study_id=ids)
    table = table.melt("study_id", var_name="phecode", value_name="score")
    truth = pd.DataFrame(main.phecode_labels[rows].astype(float), columns=names)
    truth = truth.assign(study_id=ids).melt("study_id", var_name="phecode", value_name="label")
    return table.merge(truth, on=["study_id", "phecode"]).assign(model="main")


def reports(
    arms: Mapping[str, Embeddings],
    rows: np.ndarray,
    *,
    again: Again = (),
    pools: Sequence[int],
    n_draws: int,
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Retrieval of every arm, from findings and from impressions; then chance. `again` as of `findings`.

    Parameters
    ----------
    arms : dict of str to Embeddings
    rows : (n,) int
    pools : sequence of int
    n_draws, n_resamples, seed : int
        As `retrieval.evaluate` takes them.

    Returns
    -------
    DataFrame
        The columns of `retrieval.evaluate`.
    """
    main, tables = arms["main"], []

    def judged(
        e: Embeddings, image: np.ndarray, text: np.ndarray, group: np.ndarray, name: str, model: str
    ) -> pd.DataFrame:
        made, _ = retrieval.evaluate(
            image, text, group, e.patient_id[rows], text_name=name, model=model, split="test",
            pools=pools, n_draws=n_draws, n_resamples=n_resamples, seed=seed,
        )  # fmt: skip
        return made

    for model, e in arms.items():
        image, text = (
            np.stack([getattr(run, part)[rows] for run in _runs(model, e, again)])
            for part in ("image", "findings")
        )
        tables.append(judged(e, image, text, e.text_group[rows], "findings", model))
    for model, e in arms.items():  # impressions: which are equal follows from their vectors
        plain = np.nan_to_num(e.impression[rows]).round(6)
        _, equal = np.unique(plain, axis=0, return_inverse=True)
        image, text = (
            np.stack([getattr(run, part)[rows] for run in _runs(model, e, again)])
            for part in ("image", "impression")
        )
        tables.append(judged(e, image, text, equal, "impression", model))
    rng = stream_of(seed, Stream.CHANCE_VECTORS)
    image, text = (rng.normal(size=main.image[rows].shape) for _ in range(2))
    tables.append(judged(main, image, text, main.text_group[rows], "findings", "chance"))
    return ranges.within(pd.concat(tables, ignore_index=True))


def rivals_by_study(main: Embeddings, rows: np.ndarray) -> pd.DataFrame:
    """How many other reports lie nearer to each volume than its own, and the other way round."""
    image, text, group = main.image[rows], main.findings[rows], main.text_group[rows]
    return pd.DataFrame(
        {
            "study_id": main.study_id[rows],
            "patient_id": main.patient_id[rows],
            "n_better_reports": retrieval.better_counts(image, text, group),
            "n_better_volumes": retrieval.better_counts(text, image, group),
            "model": "main",
        }
    )
