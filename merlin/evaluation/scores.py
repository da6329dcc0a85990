"""Tables of scores → what `off_shelf` judges: probabilities or logits per study and finding.

For whoever has no embeddings: any classifier's output as CSV, workbook or parquet. One row a study with a column
a finding (`Pleural Effusion`, or `prob_…`, `logit_…`, `score_…`), or one row a study and finding
(`study_id, finding, score`). Labels stand beside (`label_…`, or `label` in the long form) or in a table
of their own: 1, 0, empty, and −1 by a rule that the caller names.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from merlin.data.cells import TableError, read_ids, some_rows, why_apart
from merlin.data.tables import FEW_CELLS, read_table
from merlin.vocabulary import plain_splits

SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx", ".parquet")
UNCERTAIN = {"missing": np.nan, "positive": 1.0, "negative": 0.0}
ABOUT = ("patient_id", "site", "split")  # of a study; from the labels' table where scores lack them
KINDS = ("prob_", "logit_", "score_")
WORDS = {"true": "1", "yes": "1", "false": "0", "no": "0"}  # labels
NOTHING = (-1, -9, -99)  # how a score that failed is written among probabilities
ROUNDED = 1e-6  # beyond 0 and 1, a probability still
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
    judged: Iterable[str] = (),
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
        Leave out the labels of scores that are NaN, missing, or −1, −9, −99 among probabilities, and
        count them, instead of refusing.
    threshold : float, optional
        Default, by column: 0.5 where scores lie in [0, 1], 0 where they are negative, too. NaN for none
        yet.
    judged : iterable of str
        Findings that another file labels; columns of others are left out where this one has no labels.

    Returns
    -------
    ScoreTable

    Raises
    ------
    ValueError
        Naming everything that is wrong at once, with rows (1 is the header) and columns.
    """
    path = Path(path)
    notes: list[str] = []
    table = _read(path, id_column, notes)
    beside = table if labels is None else _read(Path(labels), id_column, notes)
    alone = labels is not None
    copied = [
        c for c in table if alone and c in beside and set(table[c]) == set(beside[c])
    ]  # as Age
    scored = {c.removeprefix(_kind(c)) for c in table if c not in copied}
    stated, problems = _labels(beside, id_column, uncertain, notes, scored, alone=alone)
    if labels is not None:
        where = f"{path.name}, {Path(labels).name}"
        notes += _meeting(table[id_column], beside[id_column], f"{where}: {{}} {id_column}")
    named = stated.columns if len(stated.columns) else [f for f in judged if f in scored]
    score, kinds, more = _scores(table, id_column, named, mask_nan, notes)
    limits, wrong = _thresholds(score, kinds, threshold, notes)
    about = _about(table, beside, id_column, notes)
    problems += more + wrong + _mixed_patients(about)
    if problems:
        raise TableError(
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
    if "finding" in table:
        table["finding"] = table["finding"].str.split().str.join(" ")
    keys = [id_column, *(("finding",) if "finding" in table else ())]
    named = [c for c in ("finding", *ABOUT) if c in table]
    is_seen = table[named].map(lambda t: t.strip().isprintable())
    for columns, bad, what in (
        (keys, table[keys].apply(_is_blank).any(axis=1), "empty"),
        (keys, table.duplicated(keys, keep=False), "more than once"),
        (named, ~is_seen.all(axis=1).astype(bool), "with characters that cannot be seen"),
    ):
        if bad.any():
            rows = some_rows(table.index[bad])
            raise TableError(f"{path.name}: {' and '.join(columns)} {what} in {rows}")
    if table.empty:
        raise TableError(f"{path.name}: a header and no rows")
    return _widened(table, id_column) if "finding" in table else table


def _widened(table, id_column):
    """One row a study and finding → one row a study; `score` of x becomes `score_x`."""
    values = [c for c in ("score", "prob", "logit", "label") if c in table]
    n = table[id_column].nunique() * table["finding"].nunique()
    if n > max(FEW_CELLS, 4 * len(table)):  # one row of each study for a finding of its own
        raise TableError(
            f"{len(table):,} rows of {table['finding'].nunique():,} findings would be {n:,} cells, nearly all "
            "empty. Is finding the right column?"
        )
    wide = table.pivot(index=id_column, columns="finding", values=values).fillna("")
    wide.columns = [f"{kind}_{finding}" for kind, finding in wide.columns]
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


def read_labels(
    path: str | Path, study_id: np.ndarray, scored: Iterable[str], *, id_column: str, uncertain: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels of some studies out of a table: (f,) findings, (n, f) labels, and notes; as `read_scores`."""
    path = Path(path)
    notes: list[str] = []
    table = _read(path, id_column, notes)
    stated, problems = _labels(table, id_column, uncertain, notes, set(scored), alone=True)
    if problems:
        raise TableError(f"{path.name}: row 1 is the header\n  " + "\n  ".join(problems))
    notes += _meeting(study_id, table[id_column], f"{path.name}: {{}} {id_column}")
    stated = stated.set_axis(table[id_column]).reindex(study_id)
    return stated.columns.to_numpy(str), stated.to_numpy(float).reshape(len(study_id), -1), notes


def _meeting(ids, labelled, where):
    """How many studies have no labels, and labels no study; refused where their ids are only spelt apart."""
    ids, labelled = set(ids), set(labelled)
    lost, more = ids - labelled, labelled - ids
    why = why_apart(lost, more)
    if why or len(lost) == len(ids):
        met = len(ids & labelled)
        said = where.format(f"only {met} of {len(ids)}" if met else "no")
        raise TableError(f"{said} is in both: {why or 'spell them alike'}.")
    said = f"{len(lost)} studies without labels, {len(more)} labelled studies without scores"
    return [said] if lost or more else []


def _labels(table, id_column, uncertain, notes, scored, *, alone):
    """Labels by finding, and what is wrong with those of a score; a table of labels alone needs no prefix."""
    if uncertain not in (*UNCERTAIN, "refuse"):
        raise ValueError(f"uncertain must be refuse, {', '.join(UNCERTAIN)}; got {uncertain!r}")
    columns = [c for c in table if c.startswith("label_") and c != "label_map"]
    if alone and not columns:
        columns = [c for c in table if c not in (id_column, *ABOUT) and not _is_row_number(c)]
    text = table[columns].rename(columns=lambda c: c.removeprefix("label_"))
    text = text.apply(lambda c: c.str.strip().str.lower().map(WORDS).fillna(c))
    numbers = text.apply(pd.to_numeric, errors="coerce")
    is_label = numbers.isin((0, 1, -1)) | text.apply(_is_blank)
    other = [f for f in text if f not in scored and not is_label[f].all()]
    if other:
        notes.append(f"{len(other)} columns that are no labels left out: {', '.join(other)}")
    problems: list[str] = []
    stated = _numbers(text.drop(columns=other), problems)
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
    columns = [c for c in table if _kind(c)]
    others = [c for c in table if c not in (id_column, *ABOUT) and not c.startswith("label")]
    columns = columns or [c for c in others if not _is_no_score(table, c)]
    kind = {c: _kind(c) for c in columns}
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
    score = _without_sentinels(score, [kind[c] for c in columns], mask_nan, notes, problems)
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


def _kind(column):
    return next((k for k in KINDS if column.startswith(k)), "")


def _outside(score):
    return (score < -ROUNDED) | (score > 1 + ROUNDED)


def _without_sentinels(score, kinds, mask_nan, notes, problems):
    """Scores without the −1, −9 or −99 that stand among probabilities for a study that failed."""
    for f, kind in zip(score, kinds, strict=True):
        gone, out = score[f].isin(NOTHING), _outside(score[[f]])[f]
        if kind == "logit_" or not gone.any() or (out & ~gone).any() or out.mean() > 0.5:
            continue
        found = ", ".join(f"{v:g}" for v in score.loc[gone, f].unique())
        said = f"{f}: {found} among probabilities, {some_rows(score.index[gone])}"
        if mask_nan:
            notes.append(f"{said}: masked")
        else:
            problems.append(
                f"{said}. A score that failed? Leave it empty, or leave it out with --mask-nan."
            )
        score = score.assign(**{f: score[f].mask(gone)})
    return score


def _thresholds(score, kinds, asked, notes):
    """(s,) float: above which a study is called, and what is wrong."""
    if score.empty:
        return np.empty(0), []
    if asked is not None:
        if not np.isnan(asked):
            notes.append(f"called present above {asked:g}, as asked")
        return np.full(score.shape[1], float(asked)), []
    limits, problems = np.where(np.array(kinds) == "prob_", 0.5, 0.0), []
    out, n_out = _outside(score), _outside(score).sum()
    free = [k not in ("prob_", "logit_") for k in kinds]
    few = (n_out <= (0.05 * score.notna().sum()).clip(lower=1)) & (score.notna().sum() >= 10)
    is_logit = (score.min() < -ROUNDED) & ~few
    for j, (f, kind) in enumerate(zip(score, kinds, strict=True)):
        if kind == "logit_" or not n_out[f] or (free[j] and is_logit[f]):
            limits[j] = 0.5 if free[j] and not n_out[f] else limits[j]
            continue
        low, high = score[f].min(), score[f].max()
        if kind == "prob_":
            what = "prob_ columns hold values outside [0, 1]. Expected probabilities"
        elif low >= 0 and is_logit[free].any():
            continue  # of a finding that is nearly always there, among logits
        else:
            what = "neither probabilities nor logits. Say above what a study is called: --threshold"
        rows = some_rows(score.index[out[f]]) if few[f] else f"{n_out[f]} studies"
        problems.append(f"{f}: {low:g} to {high:g}, outside [0, 1] in {rows}: {what}.")
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
    about["split"], said = plain_splits(about["split"].to_numpy(str))
    notes += said
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
