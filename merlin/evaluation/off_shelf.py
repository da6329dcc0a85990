"""Zero-shot findings, phenotypes and retrieval on one or several files, side by side.

Any encoder enters as an embeddings file, any classifier as a table of scores (`docs/embeddings.md`).
All files are judged on the studies that they have in common, with the same resamples of patients, so
that their differences are paired. Each is judged on what it has; the rest is *not evaluated*.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from merlin.data.tables import why_apart
from merlin.evaluation import phenotypes, results, retrieval, zero_shot
from merlin.evaluation.scores import ScoreTable
from merlin.statistics import metrics

VALIDATION = ("val", "valid", "validation", "dev")
REFUSED = "refused: "  # how the reason of a file begins that could not be judged at all
COLLAPSED = 1 - 1e-4  # of the vectors' squared length, in one direction


def common_rows(files, *, site=None, split=None):
    """Positions, in each file, of the studies that all have, in the first file's order.

    Parameters
    ----------
    files : dict of str to Embeddings or ScoreTable
    site, split : str, optional
        By the first file.

    Returns
    -------
    dict of str to (n,) int array

    Raises
    ------
    ValueError
        If no study is of that site and split (what there is is listed), or the files have none in
        common, or they disagree on whose a study is. Unknown patients disagree with nobody.
    """
    first = next(iter(files.values()))
    keep = np.ones(len(first.study_id), bool)
    for what, wanted in (("site", site), ("split", split)):
        if wanted is not None:
            keep &= getattr(first, what) == wanted
            if not keep.any():
                found = _tally(getattr(first, what))
                raise ValueError(
                    f"no study of {what} {wanted}; found {found}. Name one with --{what}"
                    + (", or --split all." if what == "split" else ".")
                )
    shared = set(first.study_id[keep])
    have = [f"{name} {len(shared & set(e.study_id))}" for name, e in files.items()]
    for e in files.values():
        shared &= set(e.study_id)
    ids = [i for i in first.study_id if i in shared]
    if not ids:
        apart = [why_apart(first.study_id, e.study_id) for e in files.values()]
        why = next((f": {why}" for why in apart if why), "")
        wanted = f" of site {site or 'any'}, split {split or 'any'}"
        raise ValueError(
            f"the files have no study{wanted} in common; study_id must agree (of the first file's "
            f"{keep.sum()} studies, {', '.join(have)}){why}"
        )
    wanted, known = set(first.study_id[keep]), set(first.study_id)
    for name, e in files.items():
        theirs = set(e.study_id)
        if why := why_apart(wanted - theirs, theirs - known):
            raise ValueError(
                f"study_id: {len(wanted & theirs)} of the first file's {keep.sum()} studies are in "
                f"{name}: {why}. Spell them alike."
            )
    rows = {}
    for name, e in files.items():
        position = {i: n for n, i in enumerate(e.study_id)}
        rows[name] = np.array([position[i] for i in ids])
    owner = owners(files, rows)
    wrong = {}
    for name, e in files.items():
        theirs = e.patient_id[rows[name]]
        wrong[name] = int(((theirs != owner) & _is_known(e, rows[name])).sum())
    if any(wrong.values()):
        said = "; ".join(f"{name}: {n} studies" for name, n in wrong.items() if n)
        raise ValueError(f"patient_id differs from the first file's for {said}")
    return rows


def owners(files: dict, rows: dict[str, np.ndarray]) -> np.ndarray:
    """(n,) str: the patient of each common study, by the first file that knows it."""
    out, is_known = None, None
    for name, e in files.items():
        theirs, known = e.patient_id[rows[name]].astype(object), _is_known(e, rows[name])
        out = theirs if out is None else np.where(is_known, out, theirs)
        is_known = known if is_known is None else is_known | known
    return out.astype(str)


def _is_known(e, rows):
    """Whether a study's patient is more than the study itself: unknown ones are called so."""
    pairs = zip(e.patient_id[rows], e.study_id[rows], strict=True)
    return np.array([patient not in (study, f"{study} (unknown)") for patient, study in pairs])


def _tally(values):
    found = zip(*np.unique(values, return_counts=True), strict=True)
    return ", ".join(f"{v or '(empty)'} {n}" for v, n in found)


def evaluate(
    files, *, site=None, split=None, pools, min_positive, n_resamples, seed, threshold=None
):
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
    files, n_asked, refused = _that_meet(files, site=site, split=split)
    rows = common_rows(files, site=site, split=split)
    n = len(next(iter(rows.values())))
    missed = [f"{n} of the first file's {n_asked} studies are in all files"] if n < n_asked else []
    judged_by = _labels(files, rows)
    if threshold == "validation":
        judged_by["validation"] = _validation(files)
    options = dict(split=split or "all", n_resamples=n_resamples, seed=seed)
    options |= dict(pools=pools, min_positive=min_positive)
    options |= dict(judged_by=judged_by, patients=owners(files, rows))
    tables, drawn = [], {}
    for name, e in files.items():
        try:
            made, kept = judge({name: e}, rows, **options)
            drawn |= kept
            tables.append(
                _with_notes(made, e, rows[name], missed + _contradicted(e, rows[name], judged_by))
            )
        except Exception as error:  # noqa: BLE001 - one file's fault must not cost the others
            refused[name] = f"{type(error).__name__}: {error}"
    for name, reason in refused.items():
        for task in ("zero-shot findings", "phenotypes", "retrieval"):
            made, _ = _nothing(task, f"{REFUSED}{reason}", 0)
            tables.append(made.assign(model=name, split=options["split"]))
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
            (task, metric, first, other, *results.difference(value, both[other, task, metric]))
            for (name, task, metric), value in both.items()
            if name == first and (other, task, metric) in both
        ]
    columns = ["task", "metric", "model", "other", "value", "low", "high"]
    return pd.concat(tables, ignore_index=True), pd.DataFrame(gaps, columns=columns)


def _that_meet(files, **asked):
    """Files that can be put beside the first, its number of studies, and why others cannot."""
    name, first = next(iter(files.items()))
    n_asked = len(common_rows({name: first}, **asked)[name])
    met, refused = {name: first}, {}
    for other, e in files.items():
        try:
            common_rows({name: first, other: e}, **asked)
            met[other] = e
        except ValueError as error:
            refused[other] = str(error)
    if len(met) == 1 and refused:
        common_rows(files, **asked)  # nothing is left to compare: its message is the error
    return met, n_asked, refused


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
    said = ["; ".join(t for t in (reason, *notes) if t) for reason in table["reason"]]
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
        part = dict(score_finding=e.score_finding[use], threshold=e.threshold[use])
        return replace(e, score=e.score[:, use], **part)
    prompts, outputs = np.isin(e.prompt_finding, list(findings)), np.isin(e.phecode, list(phecodes))
    part = {n: getattr(e, n)[prompts] for n in PROMPT_ARRAYS}
    part |= {n: getattr(e, n)[:, outputs] for n in ("phecode_logits", "phecode_labels")}
    return replace(e, **part, phecode=e.phecode[outputs])


PROMPT_ARRAYS = ("prompt", "prompt_finding", "prompt_kind", "prompt_wording", "prompt_embedding")


def judge(
    files, rows, *, pools, min_positive, split, n_resamples, seed, judged_by=None, patients=None
):
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
    options = dict(split=split, n_resamples=n_resamples, seed=seed)
    tables, drawn = [], {}
    for name, e in files.items():
        for task in (_findings, _phenotypes, _retrieval):
            made, kept = task(
                e, rows[name], patients, judged_by, name, options, pools, min_positive
            )
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
    found = _tally(np.concatenate([e.split for e in files.values()]))
    raise ValueError(
        f"--threshold validation: no labelled study of split {' or '.join(VALIDATION)}; found {found}"
    )


def _nothing(task, reason, n):
    row = results.missing("macro", "auroc", reason, n_studies=n)
    return pd.DataFrame([dict(task=task, **row)]), {}


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


def _findings(e, rows, patients, judged_by, name, options, pools, min_positive):
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
        model=name, thresholds=limits[columns], **options,
    )  # fmt: skip
    constant = [f for f, v in zip(use, value.T, strict=True) if np.ptp(v) == 0]
    made.loc[made["label"].isin(constant) & (made["reason"] == ""), "reason"] = (
        "the same score for every study"
    )
    unscored, unlabelled = (
        [f for f in a if f not in b]
        for a, b in ((known, scores.findings), (scores.findings, known))
    )
    gaps = {
        "labelled findings without scores": unscored,
        "scored findings without labels": unlabelled,
    }
    gaps["findings with the same score for every study"] = constant
    said = [f"{len(names)} {what}: {', '.join(names)}" for what, names in gaps.items() if names]
    macro = made["label"] == "macro"
    reasons = ["; ".join(t for t in (r, *said) if t) for r in made.loc[macro, "reason"]]
    made.loc[macro, "reason"] = reasons
    return made, {(task, m): v for m, v in drawn.items()}


def _from_validation(e, validation):
    """Threshold of each finding of a file where F1 on the validation studies is best."""
    ids, known, labels = validation
    position = {i: n for n, i in enumerate(e.study_id)}
    here = np.array([i in position for i in ids], bool)
    scores, _ = _scores(e, np.array([position[i] for i in ids[here]], int))
    limits = np.full(len(scores.findings), np.nan)
    for j, finding in enumerate(scores.findings):
        if finding in known:
            value = scores.value[:, [j]]
            truth = np.where(np.isnan(value), np.nan, labels[here][:, [known.index(finding)]])
            limits[j] = metrics.best_f1_threshold(np.nan_to_num(value), truth)[0]
    return limits


def _phenotypes(e, rows, patients, judged_by, name, options, pools, min_positive):
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
        model=name, min_positive=min_positive, **options,
    )  # fmt: skip
    return made, {(task, m): v for m, v in drawn.items()}


def _retrieval(e, rows, patients, judged_by, name, options, pools, min_positive):
    if isinstance(e, ScoreTable):
        row = results.missing("image to findings", "recall", "a table of scores has no vectors")
        return pd.DataFrame([dict(task="retrieval", **row)]), {}
    text = retrieval.report_vectors(e, rows, "best")
    made, drawn = retrieval.evaluate(
        e.image[rows], text, judged_by["group"], patients, text_name="findings",
        model=name, pools=pools, **options,
    )  # fmt: skip
    kept = {("retrieval", f"{d}, recall@{k} of {p}"): v for (d, p, k), v in drawn.items()}
    return made, kept
