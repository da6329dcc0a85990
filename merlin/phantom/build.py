"""Write a phantom cohort to disk as a hospital would hand it over: NIfTI, reports, codes, manifest.

Studies are made in worker processes, each from (seed, study id) alone, so the files are the same
for any number of workers. Volumes are written atomically; a killed build resumes with the files
that are missing. Memory does not grow with the cohort: workers return table rows, not volumes.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.orientations import axcodes2ornt, ornt_transform
from tqdm import tqdm

from merlin.files import atomic
from merlin.phantom import ehr, reports, synthesis
from merlin.phantom.readers import reader
from merlin.vocabulary import NAMES

TRUTH = (
    "study_id", "finding", "severity", "side", "place", "count", "size_mm", "degree", "percent",
    "grade", "mentioned", "stated", "stated_side",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One patient to make."""

    seed: int
    site: str
    patient_id: str
    n_visits: int
    split: str
    matrix: int
    folder: str
    wrong_statements: float = reports.WRONG


Picture = Callable[[Job, synthesis.Study], tuple[str, str]]


def plan(
    site: str,
    n_patients: int,
    *,
    seed: int,
    matrix: int,
    folder: str | Path,
    wrong_statements: float = reports.WRONG,
) -> list[Job]:
    """Patients of a site with their splits and numbers of scans.

    Internal patients are dealt 60/20/20 into train, val and test by a seeded shuffle; patients of
    other sites are all test. About a quarter have more than one scan. `wrong_statements` is the
    share of statements in reports that are wrong.
    """
    rng = synthesis.stream(seed, site, "plan")
    visits = rng.choice([1, 2, 3], size=n_patients, p=[0.76, 0.18, 0.06])
    if site == "internal":
        split = np.repeat("train", n_patients).astype(object)
        order = rng.permutation(n_patients)
        n_val = n_test = round(0.2 * n_patients)
        split[order[:n_val]] = "val"
        split[order[n_val : n_val + n_test]] = "test"
    else:
        split = np.repeat("test", n_patients).astype(object)
    letter = synthesis.SITES[site].patient_letter
    return [
        Job(
            seed, site, f"{letter}{i:05d}", int(visits[i]), str(split[i]), matrix, str(folder),
            wrong_statements,
        )
        for i in range(n_patients)
    ]  # fmt: skip


def write_volumes(job: Job, study: synthesis.Study) -> tuple[str, str]:
    """Scan a study into files, unless they are there; their paths from the cohort's folder."""
    volume, label_map = (f"{kind}/{study.study_id}.nii.gz" for kind in ("volumes", "label_maps"))
    folder = Path(job.folder)
    if not (folder / volume).exists() or not (folder / label_map).exists():
        hu, label, grid = synthesis.acquire(job.seed, study, matrix=job.matrix)
        save_nifti(folder / label_map, label, grid.affine, study.axcodes)
        save_nifti(folder / volume, hu, grid.affine, study.axcodes)
    return volume, label_map


def make_patient(job: Job, picture: Picture = write_volumes) -> dict[str, Any]:
    """Make all studies of one patient.

    Parameters
    ----------
    job : Job
    picture : callable
        Takes a scan of each study; volume and label map as the manifest names them.

    Returns
    -------
    dict
        `manifest`, `truth` (lists of rows) and `codes` (DataFrame).
    """
    site = synthesis.SITES[job.site]
    patient = synthesis.draw_patient(job.seed, job.patient_id, site)
    studies = [
        synthesis.draw_study(job.seed, f"{job.patient_id}-{v + 1}", patient, site, visit=v)
        for v in range(job.n_visits)
    ]
    studies = list({s.days: s for s in studies}.values())
    onset, _, end_days = ehr.draw_history(job.seed, patient)
    manifest, truth = [], []
    for study in studies:
        volume, label_map = picture(job, study)
        dictates = synthesis.reader_of(
            job.seed, study.study_id, patient.patient_id, site, job.split
        )
        report = reports.write_report(
            study.found,
            sex=patient.sex,
            reader=reader(dictates),
            rng=synthesis.stream(job.seed, study.study_id, "report"),
            remarks=study.remarks,
            wrong=job.wrong_statements,
        )
        row = dict(
            study_id=study.study_id,
            patient_id=patient.patient_id,
            site=job.site,
            split=job.split,
            sex=patient.sex,
            age=study.age,
            date=ehr.scan_date(job.seed, patient, study.days).date().isoformat(),
            phase=study.phase,
            manufacturer=study.manufacturer,
            reader=dictates,
            slice_mm=study.slice_mm,
            volume=volume,
            label_map=label_map,
            findings=report.findings,
            impression=report.impression,
        )
        row.update(
            {f"label_{n}": int(report.mentioned[n]) if n in report.mentioned else "" for n in NAMES}
        )
        followed = ehr.disease_labels(onset, max(end_days, study.days + 1), study.days)
        row.update({f"five_year_{k}": v for k, v in followed.items()})
        manifest.append(row)
        for name, found in study.found.items():
            said = {k: found.details.get(k, "") for k in TRUTH[3:-3]}
            said |= {k: round(v, 1) for k, v in said.items() if isinstance(v, float)}
            heard = (int(name in report.mentioned), int(report.mentioned.get(name, False)))
            severity, told = round(found.severity, 4), report.stated.get(name, found).details
            side = told.get("side", "") if name in report.stated else ""
            truth.append((study.study_id, name, severity, *said.values(), *heard, side))
    return dict(manifest=manifest, truth=truth, codes=ehr.write_codes(job.seed, patient, studies))


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray, axcodes: str) -> None:
    """Write an (R, A, S) array in the given orientation, atomically."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axcodes))
    image = nib.Nifti1Image(array, affine).as_reoriented(turn)
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    image.header.set_xyzt_units("mm")
    # Noise has no repeated strings to look for: runs alone, in half the time for a tenth more bytes.
    gzip = zlib.compressobj(1, zlib.DEFLATED, 31, 9, zlib.Z_RLE)
    with atomic(path, "wb") as stream:
        stream.write(gzip.compress(image.to_bytes()) + gzip.flush())


def build_cohort(
    jobs: Sequence[Job], *, n_workers: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Make patients, in parallel, and collect their tables.

    Parameters
    ----------
    jobs : sequence of Job
        All for one folder.
    n_workers : int
        Processes; 0 works in this one.

    Returns
    -------
    manifest, truth, codes : DataFrame
        In the order of `jobs`. `truth` holds every present finding with its severity, what was
        drawn of it (empty where that is nothing), whether the report mentions it and calls it
        present, and on which side; a finding that a report states and `truth` lacks is not there.
        `codes` is dated and complete.
    """
    made = []
    progress = tqdm(total=len(jobs), desc="patients", mininterval=2)
    if n_workers:
        # spawn: the parent may hold threads (a notebook's kernel does), which a fork would break.
        with get_context("spawn").Pool(n_workers) as pool:
            for result in pool.imap(make_patient, jobs, chunksize=4):
                made.append(result)
                progress.update()
    else:
        for job in jobs:
            made.append(make_patient(job))
            progress.update()
    progress.close()
    manifest = pd.DataFrame([row for m in made for row in m["manifest"]])
    truth = pd.DataFrame(
        [row for m in made for row in m["truth"]],
        columns=TRUTH,
    )
    return manifest, truth, pd.concat([m["codes"] for m in made], ignore_index=True)
