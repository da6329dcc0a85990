"""Zero-shot findings, phenotypes and retrieval on one or several files, side by side.

Any encoder enters as an embeddings file, any classifier as a table of scores (`docs/embeddings.md`).
All files are judged on the studies that they have in common, with the same resamples of patients, so
that their differences are paired. Each is judged on what it has; the rest is *not evaluated*.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from merlin.evaluation import phenotypes, ranges, results, retrieval, zero_shot
from merlin.evaluation.common_studies import common_rows, owners, positions, tally, that_meet
from merlin.evaluation.scores import ScoreTable
from merlin.statistics import metrics

VALIDATION = ("val", "valid", "validation", "dev")
REFUSED = "refused: "  # how the reason of a file begins that could not be judged at all
PROMPT_ARRAYS = ("prompt", "prompt_finding", "prompt_kind", "prompt_wording", "prompt_embedding")
COLLAPSED = 1 - 1e-4  # of the vectors' squared length, in one direction

Drawn = dict[tuple[str, str, str], np.ndarray]  # (model, task, metric) → value and its resamples


def evaluate(
    files: dict, *, site: str | None = None, split: str | None = None, pools: Sequence[int],
    min_positive: int, n_resamples: int, seed: int, threshold: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Run the three tasks on every file.

    Labels come from the first file that has them; the text side (prompts, report vectors) is each
    file's own.

    Parameters
    ----------
    files : dict of str to Embeddings or ScoreTable
        By model name.
    pools : sequence of int
    min_positive : int
        For phecodes.
    threshold : {None, "validation"}
        Above which a finding is called: each file's own rule, or where F1 on the validation split
        is best.

    Returns
    -------
    table : DataFrame
        Common schema. What a file cannot do is a row with its reason; a file that fails altogether
        has rows whose reason begins with `REFUSED`, and the others are still judged.
    paired : DataFrame
        `task, metric, model, other, value, low, high`: first file minus each other one, macros over
        the findings and phecodes that both have.
    """
    files, n_asked, refused = that_meet(files, site=site, split=split)
    rows = common_rows(files, site=site, split=split)
    n = len(next(iter(rows.values())))
    missed = [f"{n} of the first file's {n_asked} studies are in all files"] if n < n_asked else []
    judged_by = _labels(files, rows)
    if threshold == "validation":
        judged_by["validation"] = _validation(files)
    options: dict = dict(split=split or "all", n_resamples=n_resamples, seed=seed)
    options |= dict(pools=pools, min_positive=min_positive)
    options |= dict(judged_by=judged_by, patients=owners(files, rows))
    tables: list[pd.DataFrame] = []
    drawn: Drawn = {}
    for name, e in files.items():
        try:
            made, kept = judge({name: e}, rows, **options)
            drawn |= kept
            more = missed + _contradicted(e, rows[name], judged_by)
            tables.append(_with_notes(made, e, rows[name], more))
        except Exception as error:  # noqa: BLE001 - one file's fault must not cost the others
            refused[name] = f"{type(error).__name__}: {error}"
    for name, reason in refused.items():
        for task in ("zero-shot findings", "phenotypes", "retrieval"):
            made, _ = _nothing(task, f"{REFUSED}{reason}", 0)
            tables.append(made.assign(model=name, split=options["split"]))
    return pd.concat(tables, ignore_index=True), _paired(files, drawn, rows, options)


def _paired(files, drawn, rows, options):
    """First file that could be judged minus each other one."""
    first, *others = [n for n in files if any(key[0] == n for key in drawn)] or [None]
    gaps = []
    for other in others:
        pair, both = {n: files[n] for n in (first, other)}, drawn
        shared = _shared(*pair.values())
        if any(_covers(e) != shared for e in pair.values()):
            # A macro over other findings is another number: both are judged again on what both know.
            alike = {n: _restricted(e, *shared) for n, e in pair.items()}
            _, both = judge(alike, rows, **options)
        gaps += [
            (
                task,
                metric,
                first,
                other,
                *results.ends(results.difference(value, both[other, task, metric], metric)),
            )
            for (name, task, metric), value in both.items()
            if name == first and (other, task, metric) in both
        ]
    columns = ["task", "metric", "model", "other", "value", "low", "high"]
    return ranges.within(pd.DataFrame(gaps, columns=columns), differences=True)


def _contradicted(e, rows, judged_by):
    """How many labels of a file say the contrary of those that all are judged by."""
    known, labels = judged_by.get("finding", ((), None))
    both = [f for f in e.finding if f in known]
    if not both:
        return []
    theirs = e.finding_labels[rows][:, [list(e.finding).index(f) for f in both]]
    n = int((theirs + labels[:, [known.index(f) for f in both]] == 1).sum())
    return [f"{n} labels contradict those judged by, of the first file that has any"] if n else []


def _wordings(e):
    """Mask of the prompts judged by: `reported` ones of each finding, or its first wording; and a note."""
    use, other = np.zeros(len(e.prompt), bool), []
    for f in dict.fromkeys(e.prompt_finding.tolist()):
        mine = e.prompt_finding == f
        worded = e.prompt_wording[mine & (e.prompt_kind == "present")]
        if not len(worded):
            continue  # nothing to rank by
        chosen = "reported" if "reported" in worded else worded[0]
        use |= mine & (e.prompt_wording == chosen)
        other += [f"{f} ({chosen or 'no wording'})"] if chosen != "reported" else []
    said = f"{len(other)} findings without prompts worded `reported`, by their first: {', '.join(other)}"
    return use, [said] if other else []


def _with_notes(table, e, rows, more):
    """Add to macro and retrieval rows what was changed in reading, and that an encoder collapsed."""
    notes = [*e.meta.get("notes", ()), *more]
    notes += [] if isinstance(e, ScoreTable) else _wordings(e)[1]
    can_be = not isinstance(e, ScoreTable) and len(rows) > 2
    share = one_direction(e.image[rows]) if can_be else 0.0
    if share > COLLAPSED:
        notes.append(
            f"collapsed encoder: {100 * share:.3f}% of the images' squared length is in one direction, so "
            "it hardly tells studies apart"
        )
    told = table["label"].eq("macro") | table["task"].eq("retrieval")
    said = [results.joined(reason, *notes) for reason in table["reason"]]
    return table.assign(reason=np.where(told, said, table["reason"]))


def one_direction(vectors: np.ndarray) -> float:
    """Share of the squared length of (n, D) vectors that lies along their principal direction."""
    x = np.asarray(vectors, float)
    along = x[0]
    for _ in range(30):  # power iteration; near 1, where it matters, it is there at once
        along = x.T @ (x @ along)
        along /= np.linalg.norm(along)
    return float(((x @ along) ** 2).sum() / (x**2).sum())


def _covers(e):
    """Findings that a file scores or has prompts for, and phecodes that it has outputs for."""
    if isinstance(e, ScoreTable):
        return set(e.score_finding), set()
    return set(e.prompt_finding), set(e.phecode)


def _shared(a, b):
    return tuple(x & y for x, y in zip(_covers(a), _covers(b), strict=True))


def _restricted(e, findings, phecodes):
    """The file with the scores or prompts of some findings and the outputs of some phecodes."""
    if isinstance(e, ScoreTable):
        use = np.isin(e.score_finding, list(findings))
        kept, limits = e.score_finding[use], e.threshold[use]
        return replace(e, score=e.score[:, use], score_finding=kept, threshold=limits)
    prompts, outputs = np.isin(e.prompt_finding, list(findings)), np.isin(e.phecode, list(phecodes))
    part = {n: getattr(e, n)[prompts] for n in PROMPT_ARRAYS}
    part |= {n: getattr(e, n)[:, outputs] for n in ("phecode_logits", "phecode_labels")}
    return replace(e, **part, phecode=e.phecode[outputs])


def judge(
    files: dict, rows: dict[str, np.ndarray], *, pools: Sequence[int], min_positive: int, split: str,
    n_resamples: int, seed: int, judged_by: dict | None = None, patients: np.ndarray | None = None,
) -> tuple[pd.DataFrame, Drawn]:  # fmt: skip
    """The three tasks on every file, with each macro value in each resample.

    Parameters
    ----------
    files : dict of str to Embeddings or ScoreTable
    rows : dict of str to (n,) int
        From `common_rows`.
    judged_by : dict, optional
        Labels; default: those of the first file that has them.
    patients : (n,) str, optional
        Default: the first file's.

    Returns
    -------
    table : DataFrame
    drawn : dict of (model, task, metric) to (1 + n_resamples,) float
        Paired: all files share the resamples.
    """
    judged_by = judged_by or _labels(files, rows)
    patients = owners(files, rows) if patients is None else patients
    tables = []
    drawn: Drawn = {}
    for name, e in files.items():
        options = dict(model=name, split=split, n_resamples=n_resamples, seed=seed)
        case = (e, rows[name], patients, judged_by)
        for made, kept in (
            _findings(*case, **options),
            _phenotypes(*case, min_positive=min_positive, **options),
            _retrieval(*case, pools=pools, **options),
        ):
            tables.append(made.assign(model=name, split=split))
            drawn |= {(name, *key): value for key, value in kept.items()}
    return pd.concat(tables, ignore_index=True), drawn


def _labels(files, rows):
    """Labels of the common studies, without those of a masked score: masked for one, masked for all."""
    found = {}
    for name, e in files.items():
        if "finding" not in found and not np.isnan(e.finding_labels[rows[name]]).all():
            found["finding"] = (list(e.finding), e.finding_labels[rows[name]].astype(float))
        if isinstance(e, ScoreTable):
            continue
        if "phecode" not in found and not np.isnan(e.phecode_labels[rows[name]]).all():
            found["phecode"] = (list(e.phecode), e.phecode_labels[rows[name]].astype(float))
        if "group" not in found:
            found["group"] = e.text_group[rows[name]]
    for name, e in files.items():
        if "finding" in found and isinstance(e, ScoreTable):
            known, labels = found["finding"]
            for j, finding in enumerate(e.score_finding):
                if finding in known:
                    gone = np.isnan(e.score[rows[name], j])
                    labels[gone, known.index(finding)] = np.nan
    return found


def _validation(files):
    """Ids, findings and labels of the validation studies of the first file that has labels."""
    for e in files.values():
        rows = np.flatnonzero(np.isin(e.split, VALIDATION))
        if len(e.finding) and len(rows):
            return e.study_id[rows], list(e.finding), e.finding_labels[rows].astype(float)
    found = tally(np.concatenate([e.split for e in files.values()]))
    raise ValueError(
        f"--threshold validation: no labelled study of split {' or '.join(VALIDATION)}; found {found}"
    )


def _nothing(task, reason, n):
    return results.table(task, [results.missing("macro", "auroc", reason, n_studies=n)]), {}


def _scores(e, rows):
    """Presence scores of a file and each finding's threshold; NaN where zero means nothing."""
    if isinstance(e, ScoreTable):
        return zero_shot.Scores(tuple(e.score_finding), e.score[rows]), e.threshold
    use, _ = _wordings(e)
    absent = e.prompt_finding[use & (e.prompt_kind == "absent")]
    if not use.any():
        return zero_shot.Scores((), np.empty((len(rows), 0))), np.empty(0)
    prompts = (a[use] for a in (e.prompt_embedding, e.prompt_finding, e.prompt_kind))
    found = zero_shot.score(e.image[rows], *prompts, absence_optional=True)
    return found, np.where(np.isin(found.findings, absent), 0.0, np.nan)


def _findings(e, rows, patients, judged_by, **options):
    task = "zero-shot findings"
    if "finding" not in judged_by:
        return _nothing(task, "no file has finding_labels", len(rows))
    if not _covers(e)[0]:
        return _nothing(task, "the file has no prompts", len(rows))
    known, labels = judged_by["finding"]
    scores, limits = _scores(e, rows)
    use = [f for f in known if f in scores.findings]  # one order for all: draws go by position
    if not use:
        few = [", ".join(list(names)[:5]) or "none" for names in (scores.findings, known)]
        reason = f"presence scores for {few[0]}; labels for {few[1]}: no finding is in both"
        return _nothing(task, reason, len(rows))
    columns = [scores.findings.index(f) for f in use]
    if "validation" in judged_by:
        limits = _from_validation(e, judged_by["validation"])
    value = np.nan_to_num(scores.value[:, columns])  # masked ones have no label
    made, drawn = zero_shot.evaluate(
        zero_shot.Scores(tuple(use), value), labels[:, [known.index(f) for f in use]], patients,
        thresholds=limits[columns], **options,
    )  # fmt: skip
    constant = [f for f, v in zip(use, value.T, strict=True) if np.ptp(v) == 0]
    is_flat = made["label"].isin(constant) & (made["reason"] == "")
    made.loc[is_flat, "reason"] = phenotypes.SAME
    gaps = {
        "labelled findings without scores": [f for f in known if f not in scores.findings],
        "scored findings without labels": [f for f in scores.findings if f not in known],
        "findings with the same score for every study": constant,
    }
    said = [f"{len(names)} {what}: {', '.join(names)}" for what, names in gaps.items() if names]
    macro = made["label"] == "macro"
    made.loc[macro, "reason"] = [results.joined(r, *said) for r in made.loc[macro, "reason"]]
    return made, {(task, m): v for m, v in drawn.items()}


def _from_validation(e, validation):
    """Threshold of each finding of a file where F1 on the validation studies is best."""
    ids, known, labels = validation
    here = np.isin(ids, e.study_id)
    scores, _ = _scores(e, positions(e, ids[here]))
    limits = np.full(len(scores.findings), np.nan)
    for j, finding in enumerate(scores.findings):
        if finding in known:
            value = scores.value[:, [j]]
            truth = np.where(np.isnan(value), np.nan, labels[here][:, [known.index(finding)]])
            limits[j] = metrics.best_f1_threshold(np.nan_to_num(value), truth)[0]
    return limits


def _phenotypes(e, rows, patients, judged_by, **options):
    task = "phenotypes"
    if "phecode" not in judged_by:
        return _nothing(task, "no file has phecode_labels", len(rows))
    known, labels = judged_by["phecode"]
    use = [] if isinstance(e, ScoreTable) else [p for p in e.phecode if p in known]
    if not use or np.isnan(e.phecode_logits[rows]).all():
        return _nothing(task, "the file has no phecode_logits", len(rows))
    columns = [list(e.phecode).index(p) for p in use]
    made, drawn = phenotypes.evaluate(
        e.phecode_logits[rows][:, columns], labels[:, [known.index(p) for p in use]], patients, use,
        **options,
    )  # fmt: skip
    return made, {(task, m): v for m, v in drawn.items()}


def _retrieval(e, rows, patients, judged_by, **options):
    if isinstance(e, ScoreTable):
        row = results.missing("image to findings", "recall", "a table of scores has no vectors")
        return results.table("retrieval", [row]), {}
    made, drawn = retrieval.evaluate(
        e.image[rows], e.findings[rows], judged_by["group"], patients, text_name="findings",
        **options,
    )  # fmt: skip
    kept = {("retrieval", f"{d}, recall@{k} of {p}"): v for (d, p, k), v in drawn.items()}
    return made, kept
