"""What a notebook reads of the ones before it, in one line: embeddings by arm, runs of the sweep, results."""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from merlin import run
from merlin.embeddings import Embeddings, load_embeddings


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
    studies = encoded["main"].study_id
    odd = [a for a, e in encoded.items() if not np.array_equal(e.study_id, studies)]
    if odd:
        raise ValueError(f"{', '.join(odd)}: other studies than arm main. Encode them again.")
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


def footer(settings: SimpleNamespace, encoded: Embeddings, rows: np.ndarray) -> dict[str, object]:
    """What a figure's footer says of the judged studies: how many, of which kind, what is resampled."""
    return {
        "n": encoded.counts(rows),
        "tier_note": run.tier_note(settings, encoded.is_synthetic),
        "resampled": encoded.unit,
    }
