"""A phantom cohort's folder: made of the settings at hand or resumed, and its tables written."""

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from merlin import run
from merlin.data.phecodes import TABLES, map_codes, read_code_map
from merlin.phantom import build
from merlin.phantom.reports import WRONG


@dataclass(frozen=True)
class Made:
    """What was made.

    Attributes
    ----------
    table, truth, codes : DataFrame
        Manifest; every present finding, mentioned or not; dated diagnosis codes.
    seconds : float
    """

    table: pd.DataFrame
    truth: pd.DataFrame
    codes: pd.DataFrame
    seconds: float


STAMP = "made_by.txt"


def is_of(folder: Path, seed: int, matrix: int, wrong_statements: float = WRONG) -> bool:
    """Whether a folder was made, or begun, with these settings by this code."""
    stamp = folder / STAMP
    return stamp.exists() and stamp.read_text() == _mark(seed, matrix, wrong_statements)


def _mark(seed: int, matrix: int, wrong_statements: float) -> str:
    return run.fingerprint(seed, matrix, wrong_statements, run.code_hash("merlin.phantom.build"))


def make(
    folder: Path,
    n_patients: Mapping[str, int],
    *,
    seed: int,
    matrix: int,
    n_workers: int,
    wrong_statements: float = WRONG,
) -> Made:
    """Make a cohort, or what is missing of it; volumes of other settings or code are removed first.

    Parameters
    ----------
    folder : path
    n_patients : mapping of str to int
        By site.
    seed : int
    matrix : int
        Pixels along x and y of a scan.
    n_workers : int
        Processes; the cohort is the same for any number.
    wrong_statements : float
        Share of statements in reports that are wrong, in [0, 1].
    """
    mark = _mark(seed, matrix, wrong_statements)
    if folder.exists() and not is_of(folder, seed, matrix, wrong_statements):
        sys.stdout.write("volumes of other settings or code are removed and made anew\n")
        shutil.rmtree(folder)
    with run.atomic(folder / STAMP) as stream:
        stream.write(mark)
    began, jobs = time.time(), []
    for site, n in n_patients.items():
        jobs += build.plan(
            site, n, seed=seed, matrix=matrix, folder=folder, wrong_statements=wrong_statements
        )
    table, truth, codes = build.build_cohort(jobs, n_workers=n_workers)
    return Made(table, truth, codes, time.time() - began)


def write(folder: Path, made: Made) -> tuple[str, ...]:
    """Write manifest, truth and codes, and a manifest a site without its texts.

    Returns
    -------
    tuple of str
        Remarks on codes without a phecode.
    """
    run.write_csv(folder / "manifest.csv", made.table)
    run.mark_synthetic(folder)  # whoever reads the folder says so
    run.write_csv(folder / "truth.csv", made.truth)
    run.write_csv(folder / "codes.csv", made.codes)
    for site, part in made.table.groupby("site", sort=False):
        run.write_csv(folder / f"phantom_{site}.csv", part.drop(columns=["findings", "impression"]))
    code_map = read_code_map(TABLES / "phantom_icd.csv")
    return map_codes(made.codes, made.table["study_id"], code_map, []).notes
