"""What notebooks before said of each study, read back from their `predictions/` as tasks to judge."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from merlin import run
from merlin.data import manifest
from merlin.evaluation.five_year import labels_of
from merlin.evaluation.subgroups import ATTRIBUTES, Task
from merlin.statistics import metrics
from merlin.vocabulary import DISEASES, NAMES

STATED, CODES, LATER = "zero-shot findings", "phenotypes", "5-year diseases"
AT_HOME = tuple(a for a in ATTRIBUTES if a != "site")  # studies of one site
_MADE_BY = {
    "zero_shot_findings": "04_zero_shot_findings",
    "phenotypes": "05_phenotypes",
    "external": "07_external",
    "five_year": "08_five_year",
}


def read(settings: SimpleNamespace) -> tuple[dict[str, Path], dict[str, pd.DataFrame]]:
    """Predictions of those notebooks that the profile runs: files, and what they hold, by name.

    Raises
    ------
    FileNotFoundError
        Naming the notebook that makes a file which is not there.
    """
    base, chosen = run.folder(settings.profile), run.load_profile(settings.profile)["notebooks"]
    files = {
        name: run.upstream(base / "predictions" / f"{name}.parquet", book)
        for name, book in _MADE_BY.items()
        if not chosen or book in chosen
    }
    return files, {name: pd.read_parquet(path) for name, path in files.items()}


def tasks(
    tables: Mapping[str, pd.DataFrame], studies: pd.DataFrame
) -> tuple[list[Task], np.ndarray | None]:
    """Each table as a task of the main arm's test studies, and thresholds from validation.

    Parameters
    ----------
    tables : dict of str to DataFrame
        From `read`.
    studies : DataFrame
        The manifest by study id; empty where only embeddings are at hand.

    Returns
    -------
    tasks : list of Task
        Findings are called present above zero, the paper's rule. Sites are asked of the table that holds
        studies of several.
    thresholds : (n_findings,) float or None
        By best F1 of each finding on validation studies; None where the predictions hold none.
    """
    made, thresholds = [], None
    several = "external" in tables
    if "zero_shot_findings" in tables:
        table = marked(tables["zero_shot_findings"], model="main")
        asked = AT_HOME if several else ATTRIBUTES
        task = replace(_task(STATED, table, "finding", studies), asked_of=asked)
        task = replace(task, threshold=np.zeros(len(task.labels)))
        thresholds = _from_validation(task, studies)
        made.append(_judged(task, studies))
    if several:
        table = tables["external"]
        task = replace(_task(STATED, table, "finding", studies), asked_of=("site",))
        made.append(replace(task, threshold=np.zeros(len(task.labels))))
    if "phenotypes" in tables:
        task = _task(CODES, marked(tables["phenotypes"], model="main"), "phecode", studies)
        made.append(_judged(replace(task, asked_of=AT_HOME), studies))
    if "five_year" in tables:
        table = marked(tables["five_year"], start="merlin")
        table = marked(table, fraction=table["fraction"].max())
        task = _task(LATER, table.rename(columns={"probability": "score"}), "disease", studies)
        made.append(replace(task, asked_of=AT_HOME))
    return made, thresholds


def at(task: Task, threshold: np.ndarray) -> Task:
    """The same task, called present above other thresholds."""
    return replace(task, threshold=threshold)


def people(settings: SimpleNamespace) -> tuple[pd.DataFrame, pd.Series | None]:
    """The manifest by study id, empty without one; and a phantom's fat under the skin in mm by study id."""
    base = run.folder(settings.profile)
    if settings.tier == "embeddings":
        return pd.DataFrame(index=pd.Index([], dtype=str)), None
    source = run.upstream(base / "cohort" / "manifest.csv", "01_cohort")
    studies = manifest.load_manifest(source).set_index("study_id", drop=False)
    traits = base / "rivals" / "traits.parquet"
    if settings.tier != "phantom" or not traits.exists():
        return studies, None
    return studies, pd.read_parquet(traits).set_index("study_id")["fat"]


def severity(settings: SimpleNamespace, studies: pd.DataFrame) -> pd.DataFrame:
    """What a phantom really holds, by study id and finding: 0 to 1; empty where nobody knows."""
    source = run.folder(settings.profile) / "cohort" / "truth.csv"
    if settings.tier != "phantom" or not source.exists():
        return pd.DataFrame()
    wide = run.read_csv(source).pivot_table("severity", "study_id", "finding")
    return wide.reindex(index=studies.index, columns=list(NAMES)).fillna(0.0)


def marked(table: pd.DataFrame, **equal: object) -> pd.DataFrame:
    """The rows that hold these values."""
    for column, value in equal.items():
        table = table[table[column] == value]
    return table


def _task(name, table, column, studies):
    """A long table with `study_id, score` and a label's name as a task; a run for each `seed`."""
    labels = list(dict.fromkeys(table[column].astype(str)))
    table = table.assign(**{column: table[column].astype(str)})
    ids = table["study_id"].drop_duplicates().to_numpy(str)
    runs = [part for _, part in table.groupby("seed")] if "seed" in table else [table]
    scores = np.stack([_wide(run_, column, "score", ids, labels) for run_ in runs])
    truth = _truth(name, table, column, ids, labels, studies)
    is_odd = ~np.isfinite(scores).all(0)  # as 05 does: what is no number is left out
    scores, truth = np.where(is_odd, 0.0, scores), np.where(is_odd, np.nan, truth)
    return Task(name, tuple(labels), scores, truth, ids, _patients(table, ids, studies))


def _patients(table, ids, studies):
    """Of the table, or of the manifest; a study whose patient is unknown is one of its own."""
    if "patient_id" in table:
        who = table.drop_duplicates("study_id").set_index("study_id")["patient_id"]
    else:
        who = studies["patient_id"] if "patient_id" in studies else pd.Series(dtype=str)
    return who.reindex(ids).fillna(pd.Series(ids, ids)).to_numpy(str)


def _truth(name, table, column, ids, labels, studies):
    if "label" in table:
        return _wide(table, column, "label", ids, labels)
    if name == LATER:
        of_all = pd.DataFrame(labels_of(studies, DISEASES), studies.index, list(DISEASES))
        return of_all.reindex(index=ids, columns=labels).to_numpy(float)
    stated = studies.reindex(index=ids, columns=[f"label_{n}" for n in labels])
    return stated.to_numpy(float)


def _wide(table, column, value, ids, labels):
    wide = table.pivot_table(value, "study_id", column, aggfunc="first", dropna=False)
    return wide.reindex(index=ids, columns=labels).to_numpy(float)


def _split(task, studies):
    if "split" not in studies:
        return pd.Series("test", task.study_id)
    return studies["split"].reindex(task.study_id).fillna("test")


def _judged(task, studies):
    return task.rows((_split(task, studies) == "test").to_numpy())


def _from_validation(task, studies):
    use = (_split(task, studies) == "val").to_numpy()
    if not use.any():
        return None
    found = task.rows(use)
    return metrics.best_f1_threshold(found.scores[0], found.truth)
