"""Zero-shot findings, phenotypes and retrieval on one or several embeddings files, side by side.

Any encoder enters as a file (`docs/embeddings.md`). All files are judged on the studies that they
have in common, with the same resamples of patients, so that their differences are paired.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from merlin.evaluation import phenotypes, results, retrieval, zero_shot


def common_rows(files, *, site=None, split=None):
    """Positions, in each file, of the studies that all have, in the first file's order.

    Parameters
    ----------
    files : dict of str to Embeddings
    site, split : str, optional

    Returns
    -------
    dict of str to (n,) int array

    Raises
    ------
    ValueError
        If the files have no study in common, or disagree on whose a study is.
    """
    first = next(iter(files.values()))
    shared = set(first.study_id[first.rows(site=site, split=split)])
    for e in files.values():
        shared &= set(e.study_id)
    ids = [i for i in first.study_id if i in shared]
    if not ids:
        wanted = f" of site {site or 'any'}, split {split or 'any'}"
        raise ValueError(f"the files have no study{wanted} in common; study_id must agree")
    rows = {}
    for name, e in files.items():
        position = {i: n for n, i in enumerate(e.study_id)}
        rows[name] = np.array([position[i] for i in ids])
    owner = first.patient_id[next(iter(rows.values()))]
    wrong = [
        f"{name}: {int((e.patient_id[rows[name]] != owner).sum())} studies"
        for name, e in files.items()
        if (e.patient_id[rows[name]] != owner).any()
    ]
    if wrong:
        raise ValueError("patient_id differs from the first file's for " + "; ".join(wrong))
    return rows


def evaluate(files, *, site=None, split=None, pools, min_positive, n_resamples, seed):
    """Run the three tasks on every file.

    Labels come from the first file that has them; the text side (prompts, report vectors) is each
    file's own.

    Parameters
    ----------
    files : dict of str to Embeddings
        By model name.
    pools : sequence of int
    min_positive : int
        For phecodes.

    Returns
    -------
    table : DataFrame
        Common schema. What a file cannot do is a row with its reason.
    paired : DataFrame
        `task, metric, model, other, value, low, high`: first file minus each other one, macros over
        the findings and phecodes that both have.
    """
    rows = common_rows(files, site=site, split=split)
    first, *others = files
    options = dict(split=split or "all", n_resamples=n_resamples, seed=seed)
    options |= dict(pools=pools, min_positive=min_positive)
    tables, drawn = judge(files, rows, **options)
    gaps = []
    for other in others:
        pair, both = {n: files[n] for n in (first, other)}, drawn
        shared = _shared(*pair.values())
        if any(_covers(e) != shared for e in pair.values()):
            # A macro over other findings is another number: both are judged again on what both know.
            alike = {n: _restricted(e, *shared) for n, e in pair.items()}
            _, both = judge(alike, rows, judged_by=_labels(files, rows), **options)
        gaps += [
            (task, metric, first, other, *results.difference(value, both[other, task, metric]))
            for (name, task, metric), value in both.items()
            if name == first and (other, task, metric) in both
        ]
    columns = ["task", "metric", "model", "other", "value", "low", "high"]
    return tables, pd.DataFrame(gaps, columns=columns)


def _covers(e):
    """Findings that a file has prompts for, and phecodes that it has outputs for."""
    return set(e.prompt_finding), set(e.phecode)


def _shared(a, b):
    return tuple(x & y for x, y in zip(_covers(a), _covers(b), strict=True))


def _restricted(e, findings, phecodes):
    """The file with the prompts of some findings and the outputs of some phecodes."""
    prompts, outputs = np.isin(e.prompt_finding, list(findings)), np.isin(e.phecode, list(phecodes))
    part = {n: getattr(e, n)[prompts] for n in PROMPT_ARRAYS}
    part |= {n: getattr(e, n)[:, outputs] for n in ("phecode_logits", "phecode_labels")}
    return replace(e, **part, phecode=e.phecode[outputs])


PROMPT_ARRAYS = ("prompt", "prompt_finding", "prompt_kind", "prompt_wording", "prompt_embedding")


def judge(files, rows, *, pools, min_positive, split, n_resamples, seed, judged_by=None):
    """The three tasks on every file, with each macro value in each resample.

    Parameters
    ----------
    files : dict of str to Embeddings
    rows : dict of str to (n,) int
        From `common_rows`.
    judged_by : dict, optional
        Labels; default: those of the first file that has them.

    Returns
    -------
    table : DataFrame
    drawn : dict of (model, task, metric) to (1 + n_resamples,) float
        Paired: all files share the resamples.
    """
    first = next(iter(files))
    judged_by, patients = judged_by or _labels(files, rows), files[first].patient_id[rows[first]]
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
    found = {}
    for name, e in files.items():
        if "finding" not in found and len(e.finding):
            found["finding"] = (list(e.finding), e.finding_labels[rows[name]].astype(float))
        if "phecode" not in found and not np.isnan(e.phecode_labels).all() and len(e.phecode):
            found["phecode"] = (list(e.phecode), e.phecode_labels[rows[name]].astype(float))
        if "group" not in found:
            found["group"] = e.text_group[rows[name]]
    return found


def _nothing(task, reason, n):
    row = results.missing("macro", "auroc", reason, n_studies=n)
    return pd.DataFrame([dict(task=task, **row)]), {}


def _findings(e, rows, patients, judged_by, name, options, pools, min_positive):
    task = "zero-shot findings"
    if "finding" not in judged_by:
        return _nothing(task, "no file has finding_labels", len(rows))
    known, labels = judged_by["finding"]
    wording = "reported" if (e.prompt_wording == "reported").any() else e.prompt_wording[:1].item()
    scores = zero_shot.score_file(e, rows, wording=wording)
    use = [f for f in scores.findings if f in known]
    if not use:
        return _nothing(task, "no prompt is about a labelled finding", len(rows))
    columns = [scores.findings.index(f) for f in use]
    chosen = zero_shot.Scores(tuple(use), scores.value[:, columns])
    made, drawn = zero_shot.evaluate(
        chosen, labels[:, [known.index(f) for f in use]], patients, model=name, **options
    )
    return made, {(task, m): v for m, v in drawn.items()}


def _phenotypes(e, rows, patients, judged_by, name, options, pools, min_positive):
    task = "phenotypes"
    if "phecode" not in judged_by:
        return _nothing(task, "no file has phecode_labels", len(rows))
    known, labels = judged_by["phecode"]
    use = [p for p in e.phecode if p in known]
    if not use:
        return _nothing(task, "the file has no phecode_logits", len(rows))
    columns = [list(e.phecode).index(p) for p in use]
    made, drawn = phenotypes.evaluate(
        e.phecode_logits[rows][:, columns], labels[:, [known.index(p) for p in use]], patients, use,
        model=name, min_positive=min_positive, **options,
    )  # fmt: skip
    return made, {(task, m): v for m, v in drawn.items()}


def _retrieval(e, rows, patients, judged_by, name, options, pools, min_positive):
    text = retrieval.report_vectors(e, rows, "best")
    made, drawn = retrieval.evaluate(
        e.image[rows], text, judged_by["group"], patients, text_name="findings",
        model=name, pools=pools, **options,
    )  # fmt: skip
    kept = {("retrieval", f"{d}, recall@{k} of {p}"): v for (d, p, k), v in drawn.items()}
    return made, kept
