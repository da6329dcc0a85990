"""Data of the scan viewer: a few phantom studies and what the model sees of them, as one script file.

A page opened from disk may not fetch, so the volumes are written into a script as base64. Arrays are
(R, A, S), first axis slowest.
"""

import base64
import json

import numpy as np
from scipy import ndimage

from merlin.data.preprocess import Grid, preprocess
from merlin.data.scan import Volume
from merlin.phantom import reports, synthesis
from merlin.phantom.readers import reader
from merlin.vocabulary import LABEL

CHANGED_HU = 25  # a finding's mask: where the study without it differs by more


def script(profile: dict, numbers: tuple[int, ...] = (0, 2, 3)) -> str:
    """Studies of internal patients of a profile, by number, as the script that the viewer's page loads.

    Each has title, report, names of labels and `views`: name, shape, spacing_mm, HU (base64 of int16),
    labels (of uint8) and findings (of bits). No name in it can end a script.
    """
    pretraining = profile["02_pretraining"]
    grid = Grid(tuple(pretraining["spacing_mm"]), tuple(pretraining["grid_shape"]))
    matrix = profile["01_cohort"]["matrix"]
    studies = [_study(profile["seed"], f"P{n:05d}", matrix, grid) for n in numbers]
    return f"window.STUDIES = {json.dumps(studies).replace('<', chr(92) + 'u003c')};\n"


def _study(seed: int, patient_id: str, matrix: int, grid: Grid) -> dict:
    site = synthesis.SITES["internal"]
    patient = synthesis.draw_patient(seed, patient_id, site)
    study = synthesis.draw_study(seed, f"{patient_id}-1", patient, site)
    hu, label, own = synthesis.acquire(seed, study, matrix=matrix)
    report = reports.write_report(
        study.found, sex=patient.sex,
        reader=reader(synthesis.reader_of(seed, study.study_id, patient_id, site, "train")),
        rng=synthesis.stream(seed, study.study_id, "report"), remarks=study.remarks,
    )  # fmt: skip
    masks = {}
    for name in study.found:
        without, _, _ = synthesis.acquire(seed, study, matrix=matrix, without=(name,))
        masks[name] = np.abs(hu.astype(int) - without) > CHANGED_HU
    seen = preprocess(Volume(hu, own.affine), grid)
    model_hu = np.rint(seen.image * 2000 - 1000).astype(np.int16)
    to_index = np.linalg.solve(own.affine, seen.affine)
    index = (to_index[:3, :3], to_index[:3, 3], grid.shape)
    on_grid = lambda a: ndimage.affine_transform(a, *index, order=0, mode="grid-constant")  # noqa: E731
    views = [
        _view("CT as stored", hu, own.spacing_mm, label, masks),
        _view("model's input", model_hu, grid.spacing_mm, on_grid(label),
              {name: on_grid(mask) for name, mask in masks.items()}),
    ]  # fmt: skip
    return dict(
        title=f"{patient_id}-1: {patient.sex}, {study.age} y, {study.phase}",
        report=report.findings,
        labels={int(v): k.replace("_", " ") for k, v in LABEL.items()},
        views=views,
    )


def _view(name: str, hu: np.ndarray, spacing_mm, label: np.ndarray, masks: dict) -> dict:
    encoded = lambda array: base64.b64encode(array.tobytes()).decode("ascii")  # noqa: E731
    return dict(
        name=name,
        shape=[int(n) for n in hu.shape],
        spacing_mm=[float(s) for s in spacing_mm],
        hu=encoded(hu.astype("<i2")),
        labels=encoded(label.astype(np.uint8)),
        findings={k.replace("_", " "): encoded(np.packbits(m)) for k, m in masks.items()},
    )
