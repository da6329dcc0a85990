"""New phantoms on a network's grid: the same for any number of workers, and alike those of a cohort."""

import numpy as np
import pytest

from merlin.data.preprocess import Grid, preprocess
from merlin.data.scan import Volume
from merlin.phantom import build, pool, synthesis

GRID = Grid((9.0, 9.0, 12.0), (40, 32, 40))
LIKE = build.Job(11, "internal", "", 1, "train", 76, "")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    pool.make(folder, 6, like=LIKE, grid=GRID, n_workers=0)
    return pool.read(folder)


def test_a_pool_follows_from_study_ids_alone(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PER_BLOCK", 2)
    pool.make(tmp_path, 4, like=LIKE, grid=GRID, n_workers=0)
    other = pool.read(tmp_path)
    assert (other.volumes == made.volumes[:4]).all()
    assert other.studies.equals(made.studies[:4])


def test_a_pool_holds_patients_of_its_own_with_reports_and_codes(made):
    cohort = {j.patient_id for j in build.plan("internal", 50, seed=11, matrix=76, folder="")}
    assert made.studies["patient_id"].nunique() == 6
    assert not cohort & set(made.studies["patient_id"])
    assert made.studies["findings"].str.len().min() > 100
    assert set(made.studies["study_id"]) >= set(made.codes["study_id"].dropna()) - {""}
    assert made.image(0).dtype == np.float32
    assert 0 <= made.image(0).min() < made.image(0).max() <= 1


def test_a_pool_looks_as_the_cohort_does_after_preprocessing(made):
    """Edges, noise and the scanner's field; voxels differ by noise and by where edges fall."""
    site = synthesis.SITES["internal"]
    for number in range(6):
        patient = synthesis.draw_patient(11, f"N{number:06d}", site)
        study = synthesis.draw_study(11, f"N{number:06d}-1", patient, site)
        hu, _, grid = synthesis.acquire(11, study, matrix=76)
        wanted = preprocess(Volume(hu=hu, affine=grid.affine), GRID).image
        found = made.image(number)
        body = wanted > 0.25
        assert np.corrcoef(found[body], wanted[body])[0, 1] > 0.8
        assert ((found > 0.25) == body).mean() > 0.97
        soft = (np.abs(found - 0.53) < 0.07) & (np.abs(wanted - 0.53) < 0.07)
        assert found[soft].mean() == pytest.approx(wanted[soft].mean(), abs=0.005)
        rough = [np.abs(np.diff(v, axis=0))[soft[1:] & soft[:-1]].mean() for v in (found, wanted)]
        assert rough[0] == pytest.approx(rough[1], rel=0.2)
