"""Embeddings files, or a run's tables of features → encoders at one table (`encoders`).

All get the studies that all have, one split and one set of labels; what is dropped is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from merlin.embeddings import Embeddings
from merlin.evaluation import zero_shot
from merlin.evaluation.common_studies import common_rows, owners, that_meet
from merlin.evaluation.encoders import Encoder, Studies
from merlin.evaluation.off_shelf import COLLAPSED, one_direction
from merlin.evaluation.results import joined
from merlin.vocabulary import SPLITS


@dataclass(frozen=True)
class Table:
    """What files have in common, and what was left out of each.

    Attributes
    ----------
    studies : Studies
    encoders : dict of str to Encoder
    refused : dict of str to str
        Files that cannot be put beside the first, and why.
    notes : dict of str to list of str
        What was dropped, counted, or found odd, file by file.
    """

    studies: Studies
    encoders: dict[str, Encoder]
    refused: dict[str, str]
    notes: dict[str, list[str]]


def from_files(
    files: Mapping[str, Embeddings], *, names: Sequence[str] = (), site: str | None = None
) -> Table:
    """Put embeddings files at one table.

    Parameters
    ----------
    files : dict of str to Embeddings
        Labels come from the first that has any.
    names : sequence of str, optional
        The encoder that each file is of; files of one name are trainings of one encoder with several seeds.
        Default: each an encoder of its own.
    site : str, optional
        Studies of this site alone, by the first file.

    Raises
    ------
    ValueError
        If the files have no study in common, none of some split, or no labels. What disagrees with the
        first file about a study's patient or split is refused, and the others are still compared.
    """
    met, n_asked, refused = that_meet(dict(files), site=site)
    rows = common_rows(met, site=site)
    first, lead = next(iter(met.items()))
    for name in list(met)[1:]:
        n = int((met[name].split[rows[name]] != lead.split[rows[first]]).sum())
        if n:
            refused[name] = (
                f"split: {n} of {len(rows[name])} common studies are in another split than in {first}: what "
                "teaches one would judge the other. Give all files one split, or --labels a column split"
            )
    met = {n: e for n, e in met.items() if n not in refused}
    rows = common_rows(met, site=site)
    split = lead.split[rows[first]]
    _check_overlap(met, rows, split, site)
    _check_patients(lead.site[rows[first]], owners(met, rows), split)
    finding, labels, of = _labels(met, rows)
    studies = Studies(lead.study_id[rows[first]], owners(met, rows), split, finding, labels)
    of_file = dict(zip(files, names or files, strict=True))
    notes: dict[str, list[str]] = {}
    encoders: dict[str, Encoder] = {}
    for name, e in met.items():
        one, found = _encoder(e, rows[name], finding)
        n = n_asked if name == first else len(e.study_id)
        found += [f"{n - len(split)} of {n} studies are not in all files"] if n > len(split) else []
        odd = _contradicted(e, rows[name], finding, labels)
        found += [f"{odd} labels contradict those of {of}, which judge all"] if odd else []
        notes[name] = [*e.meta.get("notes", ()), *found]
        mine = encoders.get(of_file[name], Encoder((), (), note=""))
        both = bool(one.presence) and (bool(mine.presence) or not mine.features)
        encoders[of_file[name]] = replace(
            mine, features=(*mine.features, *one.features), note=joined(mine.note, *found),
            presence=(*mine.presence, *one.presence) if both else (),
        )  # fmt: skip
    return Table(studies, encoders, refused, notes)


def from_tables(
    studies: pd.DataFrame, findings: Sequence[str], features: Mapping[str, Sequence[pd.DataFrame]],
    embedded: Mapping[str, Sequence[Embeddings]], *, untrained: Sequence[str] = (),
) -> Table:  # fmt: skip
    """Put tables of features at one table, as a run of ours has them for all splits.

    Parameters
    ----------
    studies : DataFrame
        A manifest by study id, with a column `label_FINDING` for each of `findings`.
    features : dict of str to sequence of DataFrame
        A table a training by study id, a column a feature. Studies that one lacks are dropped.
    embedded : dict of str to sequence of Embeddings
        For zero-shot, of encoders that have prompts: of the test studies at least.
    untrained : sequence of str
        Encoders without a training's luck. A study without features counts as their mean.

    Raises
    ------
    ValueError
        Naming encoders without features, or without zero-shot scores of a test study.
    """
    if empty := [n for n, tables in features.items() if not tables or any(t.empty for t in tables)]:
        raise ValueError(
            f"no features of {', '.join(empty)}: python -m merlin.jobs.rivals PROFILE features-ARM makes them"
        )
    keep = np.ones(len(studies), bool)
    for name, tables in features.items():
        for t in tables if name not in untrained else ():
            keep &= studies.index.isin(t.index)
    dropped, studies = int((~keep).sum()), studies[keep]
    found = Studies(
        study_id=studies.index.to_numpy(str),
        patient_id=studies["patient_id"].to_numpy(str),
        split=studies["split"].to_numpy(str),
        finding=tuple(findings),
        labels=studies[[f"label_{f}" for f in findings]].to_numpy(float),
    )
    test, encoders = found.rows("test"), {}
    for name, tables in features.items():
        scores = tuple(_placed(e, found, test, name) for e in embedded.get(name, ()))
        values = tuple(t.reindex(studies.index).to_numpy(float) for t in tables)
        encoders[name] = Encoder(values, scores, is_trained=name not in untrained)
    notes = {"all": [f"{dropped} studies without features in some table"]} if dropped else {}
    return Table(found, encoders, {}, notes)


def _placed(e, studies, test, name):
    """Zero-shot scores of a file at the studies' places, NaN where the file lacks one."""
    at = pd.Index(e.study_id).get_indexer(studies.study_id)
    if (at[test] < 0).any():
        raise ValueError(
            f"{name}: {(at[test] < 0).sum()} test studies have features and no embedding"
        )
    scores = presence(e, at[at >= 0], studies.finding)
    out = np.full((len(at), len(studies.finding)), np.nan)
    out[at >= 0] = scores
    return out


def _check_overlap(files, rows, split, site):
    """Refuse where a split that teaches, chooses or judges has no study in common."""
    for wanted in SPLITS:
        if (split == wanted).any():
            continue
        own = {n: e.split == wanted if site is None else (e.split == wanted) & (e.site == site)
               for n, e in files.items()}  # fmt: skip
        have = ", ".join(f"{n} {m.sum()}" for n, m in own.items())
        raise ValueError(
            f"split {wanted}: no study is in all files (studies of it: {have}). A head is taught on train, "
            "its strength chosen on val, and judged on test: encode all three (docs/enter_your_model.md)"
        )


def _check_patients(site, patient, split):
    """Refuse patients who would teach a head and judge it."""
    splits: dict[tuple, set] = {}
    for where, who, part in zip(site, patient, split, strict=True):
        splits.setdefault((where, who), set()).add(part)
    n = sum(len(found) > 1 for found in splits.values())
    if n:
        raise ValueError(f"patient_id: {n} patients are in several splits. One patient, one split.")


def _labels(files, rows):
    """Findings and labels of the common studies, from the first file that has any, and its name."""
    for name, e in files.items():
        labels = e.finding_labels[rows[name]].astype(float)
        if np.isfinite(labels).any():
            return list(e.finding), labels, name
    raise ValueError(
        "no file has finding_labels of the common studies. Give a table of them with --labels"
    )


def _encoder(e, rows, findings):
    """One file as an encoder, and what is odd about it."""
    notes = []
    share = one_direction(e.image[rows]) if len(rows) > 2 else 0.0
    if share > COLLAPSED:
        notes.append(
            f"collapsed encoder: {100 * share:.3f}% of the images' squared length is in one direction"
        )
    scores = presence(e, rows, findings)
    lost = [f for f, s in zip(findings, scores.T, strict=True) if np.isnan(s).any()]
    if len(lost) == len(findings):
        return Encoder((e.image[rows],)), notes
    if lost:
        notes.append(f"zero-shot: no prompts for {len(lost)} labelled findings: {', '.join(lost)}")
    return Encoder((e.image[rows],), (scores,)), notes


def presence(e: Embeddings, rows: np.ndarray, findings: Sequence[str]) -> np.ndarray:
    """(n_rows, n_findings) zero-shot scores by a file's own prompts, NaN where it has none of a finding.

    Prompts worded `reported` are taken where a finding has any that state it, else all of it.
    """
    use = np.zeros(len(e.prompt), bool)
    for f in set(e.prompt_finding) & set(findings):
        mine, states = e.prompt_finding == f, e.prompt_kind == "present"
        reported = mine & (e.prompt_wording == "reported")
        if (mine & states).any():
            use |= reported if (reported & states).any() else mine
    out = np.full((len(rows), len(findings)), np.nan)
    if use.any():
        prompts = (a[use] for a in (e.prompt_embedding, e.prompt_finding, e.prompt_kind))
        found = zero_shot.score(e.image[rows], *prompts, absence_optional=True)
        out[:, [list(findings).index(f) for f in found.findings]] = found.value
    return out


def _contradicted(e, rows, findings, labels):
    """How many labels of a file say the contrary of those that judge all."""
    both = [f for f in e.finding if f in findings]
    theirs = e.finding_labels[rows][:, [list(e.finding).index(f) for f in both]]
    return int((theirs + labels[:, [list(findings).index(f) for f in both]] == 1).sum())
