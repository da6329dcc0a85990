"""What a notebook reads of the ones before it, in one line: embeddings by arm, runs of the sweep, results."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from merlin import run
from merlin.data.cohort_codes import read_coding
from merlin.data.manifest import load_manifest
from merlin.data.phecodes import phecode_labels, read_phenotypes
from merlin.embeddings import Embeddings, load_embeddings
from merlin.evaluation.five_year import labels_from_codes
from merlin.evaluation.rivals import Known
from merlin.vocabulary import DISEASES, NAMES


def arms(
    settings: SimpleNamespace, *, but: str = ""
) -> tuple[dict[str, Path], dict[str, Embeddings]]:
    """The embeddings files of a profile's arms, and what they hold, by arm.

    Parameters
    ----------
    settings : SimpleNamespace
    but : str
        An arm to leave out: `ehr` read no reports.

    Raises
    ------
    FileNotFoundError
        Naming the notebook that makes a file which is not there.
    ValueError
        If the arms' files are not of the same studies.
    """
    base = run.folder(settings.profile) / "embeddings"
    names = [a for a in run.load_profile(settings.profile)["arms"] if a != but]
    files = {a: run.upstream(base / f"{a}.npz", "03_embeddings") for a in names}
    encoded = {a: load_embeddings(f) for a, f in files.items()}
    _same_studies(encoded, encoded["main"])
    return files, encoded


def _same_studies(encoded: Mapping[str, Embeddings], main: Embeddings) -> None:
    odd = [n for n, e in encoded.items() if not np.array_equal(e.study_id, main.study_id)]
    if odd:
        raise ValueError(f"{', '.join(odd)}: other studies than arm main. Encode them again.")


def again(settings: SimpleNamespace, main: Embeddings) -> tuple[list[Path], list[Embeddings]]:
    """The main arm trained with the profile's other seeds (`main_seeds`): files, and what they hold.

    Raises
    ------
    ValueError
        If a file is not of the main arm's studies.
    """
    base = run.folder(settings.profile) / "embeddings"
    names = [n for n in run.main_runs(run.load_profile(settings.profile)) if n != "main"]
    files = [run.upstream(base / f"{n}.npz", "03_embeddings") for n in names]
    encoded = [load_embeddings(f) for f in files]
    _same_studies(dict(zip(names, encoded, strict=True)), main)
    return files, encoded


def main_arm(settings: SimpleNamespace) -> tuple[Path, Embeddings]:
    """The main arm's embeddings file, and what it holds."""
    file = run.upstream(run.folder(settings.profile) / "embeddings" / "main.npz", "03_embeddings")
    return file, load_embeddings(file)


def sweep(
    settings: SimpleNamespace, names: Iterable[str]
) -> tuple[dict[tuple[str, int], Path], dict[tuple[str, int], Embeddings]]:
    """Embeddings of the sweep's small pretrainings, by (arm, seed): files, and what they hold."""
    base, profile = run.folder(settings.profile) / "embeddings", run.load_profile(settings.profile)
    files = {
        (a, s): run.upstream(base / f"{a}-{s}.npz", "02_pretraining")
        for a in names
        for s in run.sweep_seeds(profile, a)
    }
    return files, {key: load_embeddings(f) for key, f in files.items()}


def results(
    settings: SimpleNamespace, made_by: dict[str, str]
) -> tuple[dict[str, Path], dict[str, pd.DataFrame]]:
    """Results tables of other notebooks: files, and what they hold.

    Parameters
    ----------
    settings : SimpleNamespace
    made_by : dict of str to str
        Table → the notebook that makes it.
    """
    base = run.folder(settings.profile) / "results"
    files = {n: run.upstream(base / f"{n}.csv", book) for n, book in made_by.items()}
    read = {
        n: run.read_csv(f, keep_default_na=True, dtype={"label": str}) for n, f in files.items()
    }
    return files, read


def known(settings: SimpleNamespace, arm: str = "main") -> Known:
    """What rivals are given of each study of the training site; nothing where only embeddings are at hand.

    Parameters
    ----------
    settings : SimpleNamespace
    arm : str
        Whose frozen features.
    """
    base = run.folder(settings.profile)
    source = base / "cohort" / "manifest.csv"
    if not source.exists():
        return Known()
    studies = load_manifest(source, check_files=False)
    studies = studies[studies["site"] == "internal"].set_index("study_id")

    truth, drawn = pd.DataFrame(), base / "cohort" / "truth.csv"
    if drawn.exists():
        found = run.read_csv(drawn, usecols=["study_id", "finding", "severity"])
        found["severity"] = found["severity"].astype(float).fillna(0.0)
        truth = found.pivot_table("severity", "study_id", "finding", aggfunc="max")
        truth = truth.reindex(studies.index).fillna(0.0)
    measured, traits = given(settings, "measured"), given(settings, "traits")
    return Known(studies, measured, given(settings, f"features-{arm}"), truth, traits)


def given(settings: SimpleNamespace, kind: str) -> pd.DataFrame:
    """A table of `merlin.jobs.rivals` by study id, as `features-main`; empty where nobody made it."""
    path = run.folder(settings.profile) / "rivals" / f"{kind}.parquet"
    return pd.read_parquet(path).set_index("study_id") if path.exists() else pd.DataFrame()


def codes_of(settings: SimpleNamespace, studies: Known, phecodes: list[str]) -> np.ndarray:
    """(n_known, n_phecodes) labels of all known studies, by the rules of `03_embeddings`."""
    folder = run.folder(settings.profile) / "cohort"
    how = run.load_profile(settings.profile)["03_embeddings"]
    has_map = settings.tier == "phantom" or how["code_map"]
    if not ((folder / "codes.csv").exists() and has_map and len(studies.studies)):
        return np.full((len(studies.studies), len(phecodes)), np.nan)
    own = run.located(how["code_map"]) if how["code_map"] else ""
    coding = read_coding(folder, tier=settings.tier, code_map=own, rollup=how["rollup"])
    ids = studies.studies.index.to_numpy(str)
    uncoded, rollup = coding.rules["uncoded"], coding.rules["rollup"]
    return phecode_labels(
        coding.codes, ids, coding.code_map, phecodes, uncoded=uncoded, rollup=rollup
    )


def taught(settings: SimpleNamespace, studies: Known) -> dict[str, np.ndarray]:
    """Labels of all known studies by task, NaN where unknown: findings, phecodes, five-year diseases."""
    if studies.studies.empty:
        return {}
    table = studies.studies
    stated = table.reindex(columns=[f"label_{n}" for n in NAMES]).to_numpy(float)
    later = table.reindex(columns=[f"five_year_{d}" for d in DISEASES])
    phecodes = read_phenotypes()["phecode"].tolist()
    return {
        "findings": stated,
        "phecodes": codes_of(settings, studies, phecodes),
        "5-year diseases": labels_from_codes(later),
    }


def steps(settings: SimpleNamespace) -> dict[str, int]:
    """Optimiser steps of each arm's pretraining; none where weights are given."""
    profile = run.load_profile(settings.profile)
    if settings.tier == "embeddings" or {"weights", "embeddings"} & set(
        run.brought(settings.profile)
    ):
        return {}
    of_all = profile["02_pretraining"]["n_steps"]
    return {a: (changes or {}).get("n_steps", of_all) for a, changes in profile["arms"].items()}


def with_steps(
    settings: SimpleNamespace, paired: pd.DataFrame, others: Mapping[str, object]
) -> pd.DataFrame:
    """A table of `by_arm.differences` with the optimiser steps of both sides, where these were trained.

    Parameters
    ----------
    others : dict of str to key
        As `by_arm.differences` takes it: an arm, or an arm and a wording.
    """
    taken = steps(settings)
    arm = {d: k[0] if isinstance(k, tuple) else k for d, k in others.items()}
    other = [taken.get(str(arm[d])) for d in paired["difference"]]
    return paired.assign(steps_main=taken.get("main"), steps_other=other)


def footer(
    settings: SimpleNamespace, encoded: Embeddings, rows: np.ndarray, n_again: int = 0
) -> dict[str, object]:
    """What a figure's footer says of the judged studies: how many, of which kind, what intervals hold.

    Parameters
    ----------
    n_again : int
        Runs of the main arm beside the first.
    """
    unit = encoded.unit
    seeds = f"{unit}, main arm also {1 + n_again} seeds; others {unit} only"
    return {
        "n": encoded.counts(rows),
        "tier_note": run.tier_note(settings, encoded.is_synthetic),
        "resampled": seeds if n_again else f"{unit} only, one run",
    }
