"""Data of the scan viewer: a few phantom studies and what the model sees of them, as one script file.

A page opened from disk may not fetch, so the volumes are written into a script as base64. Arrays are
(R, A, S), first axis slowest.
"""

import base64
import json

import numpy as np

from merlin.data.preprocess import Grid, preprocess
from merlin.data.volume import Volume
from merlin.phantom import reports, synthesis
from merlin.vocabulary import LABEL

CHANGED_HU = 25  # a finding's mask: where the study without it differs by more


def studies(profile, numbers=(0, 2, 3)):
    """Phantom studies of a profile for the viewer.

    Parameters
    ----------
    profile : dict
        From `run.load_profile`.
    numbers : sequence of int
        Of internal patients, counted from 0.

    Returns
    -------
    list of dict
        JSON-able: title, report, `views` (name, shape, spacing_mm, hu as base64 int16, labels and
        findings as base64 uint8), label names.
    """
    seed, site = profile["seed"], synthesis.SITES["internal"]
    pretraining = profile["02_pretraining"]
    grid = Grid(tuple(pretraining["spacing_mm"]), tuple(pretraining["grid_shape"]))
    return [_study(seed, site, f"P{n:05d}", profile["01_cohort"]["matrix"], grid) for n in numbers]


def _study(seed, site, patient_id, matrix, grid):
    patient = synthesis.draw_patient(seed, patient_id, site)
    study = synthesis.draw_study(seed, f"{patient_id}-1", patient, site)
    hu, label, own = synthesis.acquire(seed, study, matrix=matrix)
    report = reports.write_report(
        study.found, sex=patient.sex, style=site.report_style,
        rng=synthesis.stream(seed, study.study_id, "report"), remarks=study.remarks,
    )  # fmt: skip
    masks = {}
    for name in study.found:
        without, _, _ = synthesis.acquire(seed, study, matrix=matrix, without=(name,))
        masks[name] = np.abs(hu.astype(int) - without) > CHANGED_HU
    seen = preprocess(Volume(hu, own.affine), grid)
    model_hu = np.rint(seen.image * 2000 - 1000).astype(np.int16)
    on_grid = lambda a: _nearest(a, own.affine, seen.affine, grid.shape)  # noqa: E731
    model_masks = {k: on_grid(m) for k, m in masks.items()}
    views = [
        _view("CT as stored", hu, own.spacing_mm, label, masks),
        _view("model's input", model_hu, grid.spacing_mm, on_grid(label), model_masks),
    ]
    return dict(
        title=f"{patient_id}-1: {patient.sex}, {study.age} y, {study.phase}",
        report=report.findings,
        labels={int(v): k.replace("_", " ") for k, v in LABEL.items()},
        views=views,
    )


def _nearest(array, from_affine, to_affine, shape):
    """`array` on another grid by nearest neighbour, 0 outside; both grids are along R, A, S."""
    index, inside = [], []
    for axis, n in enumerate(shape):
        mm = to_affine[axis, axis] * np.arange(n) + to_affine[axis, 3]
        i = np.rint((mm - from_affine[axis, 3]) / from_affine[axis, axis]).astype(int)
        inside.append((i >= 0) & (i < array.shape[axis]))
        index.append(np.clip(i, 0, array.shape[axis] - 1))
    out = array[np.ix_(*index)]
    r, a, s = inside
    return np.where(r[:, None, None] & a[None, :, None] & s[None, None, :], out, 0)


def _view(name, hu, spacing_mm, label, masks):
    return dict(
        name=name,
        shape=[int(n) for n in hu.shape],
        spacing_mm=[float(s) for s in spacing_mm],
        hu=_encoded(hu.astype("<i2")),
        labels=_encoded(label.astype(np.uint8)),
        findings={k.replace("_", " "): _encoded(np.packbits(m)) for k, m in masks.items()},
    )


def _encoded(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def script(found):
    """The studies as a script that the viewer's page loads; no name in it can end a script."""
    return f"window.STUDIES = {json.dumps(found).replace('<', chr(92) + 'u003c')};\n"
