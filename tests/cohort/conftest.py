"""The phantom cohort at its smallest, shared by the tests of this folder."""

from collections import namedtuple

import pytest

from merlin.phantom import describe, readers, render, reports, synthesis

SEED = 7

Drawn = namedtuple("Drawn", "patient study report reader")


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


@pytest.fixture(scope="session")
def drawn():
    """Site → patients with one study and its report each; nothing is rendered."""
    cohort = {}
    for name, n in {"internal": 400, "site_b": 200, "site_c": 200}.items():
        site = synthesis.SITES[name]
        rows = []
        for i in range(n):
            patient = synthesis.draw_patient(SEED, f"{name}{i}", site)
            study = synthesis.draw_study(SEED, f"{name}{i}-1", patient, site)
            rng = synthesis.stream(SEED, study.study_id, "report")
            split = "train" if i % 2 else "test"
            dictates = synthesis.reader_of(SEED, study.study_id, patient.patient_id, site, split)
            report = reports.write_report(
                study.found,
                sex=patient.sex,
                reader=readers.reader(dictates),
                rng=rng,
                remarks=study.remarks,
            )
            rows.append(Drawn(patient, study, report, dictates))
        cohort[name] = rows
    return cohort
