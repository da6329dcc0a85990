"""Tables of scores → what `off_shelf` judges: probabilities or logits per study and finding.

For whoever has no embeddings: any classifier's output as CSV, workbook or parquet. One row a study with a column
a finding (`Pleural Effusion`, or `prob_…`, `logit_…`, `score_…`), or one row a study and finding
(`study_id, finding, score`). Labels stand beside (`label_…`, or `label` in the long form) or in a table
of their own: 1, 0, empty, and −1 by a rule that the caller names.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.cohort.tables import TableError, read_ids, read_table, some_rows, why_apart

SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx", ".parquet")
UNCERTAIN = {"missing": np.nan, "positive": 1.0, "negative": 0.0}
ABOUT = ("patient_id", "site", "split")  # of a study; from the labels' table where scores lack them
KINDS = ("prob_", "logit_", "score_")
BLANK = ("", "nan", "none", "<na>", "nat", "null", "na", "n/a")


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one classifier, with labels where the file has them.

    Attributes
    ----------
    study_id, patient_id, site, split : (n,) str
    score_finding : (s,) str
    score : (n, s) float
        NaN where masked.
    threshold : (s,) float
        Called present above it: 0.5 for probabilities, 0 for logits, or as asked.
    finding : (f,) str, finding_labels : (n, f) float
        1, 0, NaN.
    meta : dict
        `tier` and `notes`: what was assumed, left out and counted.
    """

    study_id: np.ndarray
    patient_id: np.ndarray
    site: np.ndarray
    split: np.ndarray
    score_finding: np.ndarray
    score: np.ndarray
    threshold: np.ndarray
    finding: np.ndarray
    finding_labels: np.ndarray
    meta: dict = field(default_factory=dict)


def read_scores(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    id_column: str = "study_id",
    uncertain: str = "missing",
    mask_nan: bool = False,
    threshold: float | None = None,
) -> ScoreTable:
    """Read a table of scores.

    Parameters
    ----------
    path, labels : path
        As `read_table` reads them; `labels` by the same ids.
    id_column : str
        Its name in both tables.
    uncertain : {"missing", "positive", "negative", "refuse"}
        What a label of −1 means; how many there are is noted.
    mask_nan : bool
        Leave out the labels of scores that are NaN or missing, and count them, instead of refusing.
    threshold : float, optional
        Default: 0.5 where all scores lie in [0, 1], 0 where some are negative. NaN for none yet.

    Returns
    -------
    ScoreTable

    Raises
    ------
    ValueError
        Naming everything that is wrong at once, with rows (1 is the header) and columns.
    """
    path, notes = Path(path), []
    table = _read(path, id_column, notes)
    beside = table if labels is None else _read(Path(labels), id_column, notes)
    stated, problems = _labels(beside, id_column, uncertain, notes, alone=labels is not None)
    if labels is not None:
        known = set(beside[id_column])
        n_lost = int((~table[id_column].isin(known)).sum())
        if n_lost == len(table):
            why = why_apart(table[id_column], known) or "spell them alike"
            raise ValueError(f"{path.name}, {Path(labels).name}: no {id_column} is in both: {why}.")
        n_more = len(known - set(table[id_column]))
        if n_lost or n_more:
            notes.append(
                f"{n_lost} studies without labels, {n_more} labelled studies without scores"
            )
    score, kinds, more = _scores(table, id_column, stated.columns, mask_nan, notes)
    limits, wrong = _thresholds(score, kinds, threshold, notes)
    about = _about(table, beside, id_column, notes)
    problems += more + wrong + _mixed_patients(about)
    if problems:
        raise ValueError(
            f"{path.name}: not a table of scores (docs/embeddings.md; row 1 is the header)\n  "
            + "\n  ".join(problems)
        )
    stated = stated.set_axis(beside[id_column]).reindex(table[id_column])
    return ScoreTable(
        study_id=table[id_column].to_numpy(str),
        **{c: about[c].to_numpy(str) for c in ABOUT},
        score_finding=score.columns.to_numpy(str),
        score=score.to_numpy(float),
        threshold=limits,
        finding=stated.columns.to_numpy(str),
        finding_labels=stated.to_numpy(float).reshape(len(table), -1),
        meta={"tier": "scores", "notes": notes},
    )


def _read(path, id_column, notes):
    """A table as text, one row a study; empty cells are ''."""
    try:
        table = read_table(path, needed=(id_column,))
    except TableError as error:
        hint = " Name the studies' column with --id." if "no column" in str(error) else ""
        raise TableError(f"{error}{hint}") from None
    notes += table.attrs["notes"]
    if table.attrs["decimal_comma"]:
        is_comma = table.apply(lambda c: c.str.fullmatch(r"\s*[-+]?\d*,\d+\s*"))
        table = table.mask(is_comma, table.apply(lambda c: c.str.replace(",", ".")))
    table[id_column] = read_ids(table[id_column], where=f"{path.name}, column {id_column}")
    keys = [id_column, *(("finding",) if "finding" in table else ())]
    for bad, what in (
        (table[keys].apply(_is_blank).any(axis=1), "empty"),
        (table.duplicated(keys, keep=False), "more than once"),
    ):
        if bad.any():
            rows = some_rows(table.index[bad])
            raise TableError(f"{path.name}: {' and '.join(keys)} {what} in {rows}")
    if table.empty:
        raise TableError(f"{path.name}: a header and no rows")
    return _widened(table, id_column) if "finding" in table else table


def _widened(table, id_column):
    """One row a study and finding → one row a study; `score` of x becomes `score_x`."""
    values = [c for c in ("score", "prob", "logit", "label") if c in table]
    wide = table.pivot(index=id_column, columns="finding", values=values).fillna("")
    wide.columns = [f"{kind}_{finding.strip()}" for kind, finding in wide.columns]
    about = [c for c in ABOUT if c in table]
    return table.groupby(id_column, sort=False)[about].first().join(wide).reset_index()


def _is_blank(column):
    return column.str.strip().str.lower().isin(BLANK)


def _numbers(table, problems):
    """Columns as numbers, blanks as NaN; cells that are neither go to `problems`."""
    out = table.apply(pd.to_numeric, errors="coerce")
    for name in table:
        bad = out[name].isna() & ~_is_blank(table[name])
        if bad.any():
            found = ", ".join(dict.fromkeys(table.loc[bad, name].str[:20].head(3)))
            problems.append(
                f"{some_rows(out.index[bad])}, column {name}: {found}. Expected a number as 0.73, or empty."
            )
    return out.astype(float)


def _labels(table, id_column, uncertain, notes, *, alone):
    """Labels by finding, and what is wrong with them; a table of labels alone needs no prefix."""
    if uncertain not in (*UNCERTAIN, "refuse"):
        raise ValueError(f"uncertain must be refuse, {', '.join(UNCERTAIN)}; got {uncertain!r}")
    columns = [c for c in table if c.startswith("label_") and c != "label_map"]
    if alone and not columns:
        columns = [c for c in table if c not in (id_column, *ABOUT) and not _is_no_score(table, c)]
    problems = []
    stated = _numbers(table[columns], problems).rename(columns=lambda c: c.removeprefix("label_"))
    unsure = stated == -1
    n = int(unsure.to_numpy().sum())
    if n and uncertain == "refuse":
        problems.append(f"{n} labels are −1. Say what they mean: --uncertain missing.")
    elif n:
        stated = stated.mask(unsure, UNCERTAIN[uncertain])
        notes.append(f"{n} labels of −1 taken as {uncertain}")
    for name in stated:
        odd = stated[name].notna() & ~stated[name].isin((0, 1, -1))
        if odd.any():
            found = ", ".join(f"{v:g}" for v in stated.loc[odd, name].unique()[:5])
            problems.append(
                f"{some_rows(stated.index[odd])}, label of {name}: {found}. Expected 1, 0, empty or −1."
            )
    return stated, problems


def _is_no_score(table, name):
    """A column of words, without one number in it, or of row numbers."""
    text = table[name][~_is_blank(table[name])]
    is_comma = text.str.fullmatch(r"\s*[-+]?\d*,\d+\s*").any()
    is_word = len(text) > 0 and pd.to_numeric(text, errors="coerce").isna().all()
    return _is_row_number(name) or (is_word and not is_comma)


def _is_row_number(name):
    return name == "" or name.startswith("Unnamed: ")  # as pandas writes and reads them


def _scores(table, id_column, labelled, mask_nan, notes):
    """Scores by finding, the kind of each ('' without prefix), and what is wrong with them."""
    columns = [c for c in table if c.startswith(KINDS)]
    others = [c for c in table if c not in (id_column, *ABOUT) and not c.startswith("label")]
    columns = columns or [c for c in others if not _is_no_score(table, c)]
    kind = {c: next((k for k in KINDS if c.startswith(k)), "") for c in columns}
    names = {c: c.removeprefix(kind[c]) for c in columns}
    if len(set(names.values())) < len(names):
        return pd.DataFrame(), [], ["a finding has several columns of scores. Keep one of each."]
    left_out = [c for c in others if c not in columns and not _is_row_number(c)]
    if len(labelled):
        both = [c for c in columns if names[c] in set(labelled)]
        if not both:
            first = ", ".join(list(names.values())[:5]) or "none"
            return (
                pd.DataFrame(),
                [],
                [
                    f"scores of {first}; labels of {', '.join(labelled[:5])}. No finding is in both: spell "
                    "the same finding alike."
                ],
            )
        left_out += [c for c in columns if c not in both]
        silent = [f for f in labelled if f not in set(names.values())]
        if silent:
            notes.append(f"{len(silent)} labelled findings without scores: {', '.join(silent)}")
        columns = both
    if left_out:
        notes.append(f"{len(left_out)} columns left out: {', '.join(left_out)}")
    problems = [] if columns else ["no column of scores"]
    score = _numbers(table[columns], problems).rename(columns=names)
    score = score.replace([np.inf, -np.inf], np.nan)
    gaps = {f: n for f, n in score.isna().sum().items() if n}
    if gaps and not problems:
        said = ", ".join(f"{f} {n}" for f, n in gaps.items())
        if mask_nan:
            notes.append(f"scores that are missing or not finite are masked: {said}")
        else:
            problems.append(
                f"scores that are missing or not finite: {said} of {len(score)} studies. Fill them, or "
                "leave those studies out of that finding with --mask-nan."
            )
    return score, [kind[c] for c in columns], problems


def _thresholds(score, kinds, asked, notes):
    """(s,) float: above which a study is called, and what is wrong."""
    if score.empty:
        return np.empty(0), []
    if asked is not None:
        if not np.isnan(asked):
            notes.append(f"called present above {asked:g}, as asked")
        return np.full(score.shape[1], float(asked)), []
    kinds = np.array(kinds)
    low, high = score.min().min(), score.max().max()
    limits = np.where(kinds == "prob_", 0.5, 0.0)
    problems, free = [], ~np.isin(kinds, ("prob_", "logit_"))
    chances = score.loc[:, kinds == "prob_"]
    if ((chances < 0) | (chances > 1)).any(axis=None):
        problems.append("prob_ columns hold values outside [0, 1]. Expected probabilities.")
    if free.any():
        low, high = score.loc[:, free].min().min(), score.loc[:, free].max().max()
        limits[free] = 0.5 if low >= 0 else 0.0
        if low >= 0 and high > 1:
            problems.append(
                f"scores from {low:g} to {high:g} are neither probabilities nor logits. Say above what a "
                "study is called present: --threshold."
            )
    for limit in np.unique(limits):
        what = "probabilities" if limit else "logits"
        notes.append(f"{(limits == limit).sum()} findings taken as {what}: present above {limit:g}")
    return limits, problems


def _about(table, beside, id_column, notes):
    """Patient, site and split of each study; what is unknown is said."""
    about = pd.DataFrame(index=table.index)
    for name in ABOUT:
        for source in (table, beside):
            if name in source:
                found = source.set_index(id_column)[name].reindex(table[id_column])
                about[name] = found.fillna("").str.strip().to_numpy()
                break
        else:
            about[name] = "test" if name == "split" else ""
            if name == "split":
                notes.append("no column split: every study is judged as test")
    n_loose = int(_is_blank(about["split"]).sum())
    if n_loose:
        notes.append(f"{n_loose} studies have no split and are in none")
    unknown = _is_blank(about["patient_id"])
    if unknown.any():
        taken = set(about.loc[~unknown, "patient_id"])
        own = table[id_column].where(~table[id_column].isin(taken), table[id_column] + " (unknown)")
        about["patient_id"] = about["patient_id"].where(~unknown, own)
        notes.append(
            f"no patient for {unknown.sum()} of {len(about)} studies, each a patient of its own"
        )
    return about


def _mixed_patients(about):
    mixed = about.groupby(["site", "patient_id"])["split"].transform("nunique") > 1
    if not mixed.any():
        return []
    return [
        f"{some_rows(about.index[mixed])}: the same patient is in several splits. One patient, one split."
    ]
