"""The phantom cohort at its smallest, shared by the tests of this folder."""

from collections import namedtuple

import pytest

from merlin.phantom import anatomy, describe, measure, readers, render, reports, synthesis

SEED = 7

Drawn = namedtuple("Drawn", "patient study report reader")
# What no test of `drawn` asks: the sizes of enlarged organs. `test_phantom_sizes` measures them.
SIZES_MM = {
    "splenomegaly": 141.0,
    "hepatomegaly": 172.0,
    "cardiomegaly": 158.0,
    "prostatomegaly": 47.0,
    "abdominal_aortic_aneurysm": 36.0,
}


@pytest.fixture(scope="session")
def cohort_grid():
    """A grid as coarse as the default profile's scanner."""
    return render.Grid((76, 76, 81), (5.2, 5.2, 5.5), (0.0, 0.0, -10.0))


@pytest.fixture(scope="session")
def plain_man():
    return describe.plain_study(SEED, sex="M")


@pytest.fixture(scope="session")
def plain_woman():
    return describe.plain_study(SEED, sex="F")


def draw(name, i):
    """A patient of a site with one study, its report and who dictates it."""
    site = synthesis.SITES[name]
    patient = synthesis.draw_patient(SEED, f"{name}{i}", site)
    study = synthesis.draw_study(SEED, f"{name}{i}-1", patient, site)
    split = "train" if i % 2 else "test"
    dictates = synthesis.reader_of(SEED, study.study_id, patient.patient_id, site, split)
    report = reports.write_report(
        study.found,
        sex=patient.sex,
        reader=readers.reader(dictates),
        rng=synthesis.stream(SEED, study.study_id, "report"),
        remarks=study.remarks,
    )
    return Drawn(patient, study, report, dictates)


@pytest.fixture(scope="session")
def drawn():
    """Site → patients with one study and its report each; nothing is rendered or measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anatomy, "scene", lambda body, rng: None)
        large = {n: measure.Measured(float("inf"), mm) for n, mm in SIZES_MM.items()}
        patch.setattr(measure, "measure", lambda name, body, scene: large[name])
        sizes = {"internal": 400, "site_b": 200, "site_c": 200}
        return {name: [draw(name, i) for i in range(n)] for name, n in sizes.items()}
