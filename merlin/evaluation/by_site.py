"""The main arm at several sites, nothing adapted to them: what `07_external` counts."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from merlin.data.manifest import HOME
from merlin.embeddings import Embeddings
from merlin.evaluation import phenotypes, ranges, results, retrieval, zero_shot
from merlin.evaluation.external import drops
from merlin.words import shown

SPINE = "spine"  # a series of spines is no site: one finding counts there


def others(main: Embeddings) -> list[str]:
    """Sites with test studies beside the training site and the spine series, by name.

    Where no site is called internal, all test studies are judged together and there are none.
    """
    named = {str(s) for s in main.site[main.rows(split="test")]}
    return sorted(named - {HOME, SPINE}) if HOME in named else []


def sites(main: Embeddings) -> dict[str, np.ndarray]:
    """Rows of the test studies of each site, the training site first.

    Raises
    ------
    ValueError
        If there is no other site, or no training site, to hold them against.
    """
    found = {s: main.rows(site=s, split="test") for s in (HOME, *others(main))}
    if len(found) == 1:
        named = ", ".join(shown(s, 40) for s in np.unique(main.site)[:8])
        raise ValueError(
            f"external sites are held against {HOME}: expected test studies of site {HOME} and of "
            f"another, found sites {named} (column site of the manifest)"
        )
    return found


def judge(
    main: Embeddings,
    sites: Mapping[str, np.ndarray],
    *,
    again: Sequence[Embeddings] = (),
    min_positive: int,
    pools: list[int],
    n_resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Findings, phecodes and retrieval at every site.

    Parameters
    ----------
    main : Embeddings
    sites : dict of str to (n,) int
        Rows of each site's studies.
    again : sequence of Embeddings
        The main arm trained with other seeds: rows are means over seeds.
    min_positive : int
        Studies; phecodes with fewer at a site are not evaluated there.
    pools : list of int
    n_resamples, seed : int

    Returns
    -------
    DataFrame
        The common result schema, and `site, part`.
    """
    runs, tables = (main, *again), []
    for site, rows in sites.items():
        who = main.patient_id[rows]
        s = [zero_shot.score_file(run, rows, wording="reported") for run in runs]
        made, _ = zero_shot.evaluate(
            s, main.labels_of(s[0].findings)[rows], who, model="main", split=site,
            n_resamples=n_resamples, seed=seed,
        )  # fmt: skip
        coded = main.phecode_labels[rows].astype(float)
        logits = np.stack([run.phecode_logits[rows] for run in runs])
        codes, _ = phenotypes.evaluate(
            logits, coded, who, main.phecode.tolist(), model="main", split=site,
            min_positive=min_positive, n_resamples=n_resamples, seed=seed,
        )  # fmt: skip
        tables += [t.assign(site=site, part="all") for t in (made, codes)]
    for site, rows in sites.items():
        image, text = (
            np.stack([getattr(run, part)[rows] for run in runs]) for part in ("image", "findings")
        )
        made, _ = retrieval.evaluate(
            image, text, main.text_group[rows], main.patient_id[rows],
            text_name="findings", model="main", split=site, pools=pools,
            n_resamples=n_resamples, seed=seed,
        )  # fmt: skip
        tables.append(made.assign(site=site, part="all"))
    return ranges.within(pd.concat(tables, ignore_index=True))


def drop(
    main: Embeddings, sites: Mapping[str, np.ndarray], *, again: Sequence[Embeddings] = (),
    n_resamples: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Each other site minus the first, by finding; columns of `external.drops`, and `site`."""
    measured = {}
    for site, rows in sites.items():
        s = [zero_shot.score_file(run, rows, wording="reported") for run in (main, *again)]
        labels = main.labels_of(s[0].findings)[rows]
        measured[site] = (np.stack([run.value for run in s]), labels, main.patient_id[rows])
    home, *others = measured
    how = dict(n_resamples=n_resamples, seed=seed)
    return pd.concat(
        drops(measured[home], measured[site], s[0].findings, **how).assign(site=site)
        for site in others
    )


def spine(
    main: Embeddings, rows: np.ndarray, *, again: Sequence[Embeddings] = (), n_resamples: int,
    seed: int,
) -> pd.DataFrame:  # fmt: skip
    """The fracture prompts on a series of spines: the one finding that counts there.

    Rows that say so where there is no such series, or no prompts for fractures.
    """
    if not len(rows) or "fracture" not in main.prompt_finding:
        reason = "no prompts for fractures" if len(rows) else "no series called spine"
        rows_ = [
            results.missing("fracture", m, reason, n_studies=len(rows)) for m in ("auroc", "f1")
        ]
        found = results.table("zero-shot findings", rows_, model="main", split="spine")
        return found.assign(site=SPINE, part=SPINE)
    s = [zero_shot.score_file(run, rows, wording="reported") for run in (main, *again)]
    column = [s[0].findings.index("fracture")]
    only = [zero_shot.Scores(("fracture",), run.value[:, column]) for run in s]
    found, _ = zero_shot.evaluate(
        only, main.labels_of(["fracture"])[rows], main.patient_id[rows], model="main",
        split="spine", n_resamples=n_resamples, seed=seed,
    )  # fmt: skip
    found = ranges.within(found[found["label"] == "fracture"])
    return found.assign(site="spine", part="spine")


def tasks(results: pd.DataFrame, pool: int) -> pd.DataFrame:
    """The five rows a site that a figure shows, under names for it."""
    recall = f"recall@1 of {pool}"
    shown = {
        ("zero-shot findings", "macro", "auroc"): "findings, AUROC",
        ("zero-shot findings", "macro", "f1"): "findings, F1",
        ("phenotypes", "macro", "auroc"): "phenotypes, AUROC",
        ("retrieval", "image to findings", recall): f"image to findings, {recall}",
        ("retrieval", "findings to image", recall): f"findings to image, {recall}",
    }
    keys = zip(results["task"], results["label"], results["metric"], strict=True)
    label = [shown.get(key) for key in keys]
    return results.assign(label=label, part="task").dropna(subset="label")


def easiest_first(results: pd.DataFrame) -> list[str]:
    """Findings by their AUROC at the internal site."""
    kept = results.query(
        "task == 'zero-shot findings' and metric == 'auroc' and site == 'internal'"
        " and label != 'macro'"
    )
    kept = kept.dropna(subset="value").sort_values("value", ascending=False)
    return kept["label"].tolist()


def scores_by_study(main: Embeddings, sites: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a study and finding: `study_id, patient_id, site, model, finding, score`."""
    tables = []
    for site, rows in sites.items():
        s = zero_shot.score_file(main, rows, wording="reported")
        ids = dict(study_id=main.study_id[rows], patient_id=main.patient_id[rows])
        tables.append(
            pd.DataFrame(s.value, columns=s.findings).assign(**ids, site=site, model="main")
        )
    keys = ["study_id", "patient_id", "site", "model"]
    return pd.concat(tables).melt(keys, var_name="finding", value_name="score")
