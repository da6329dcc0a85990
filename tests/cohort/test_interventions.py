"""One thing changed in a phantom: nothing else moves, and fainter is less."""

from dataclasses import replace

import numpy as np
import pytest

from merlin.phantom import describe, render, synthesis
from merlin.phantom import interventions as changes
from merlin.phantom.findings import Found
from merlin.vocabulary import NAMES

SEED = 5
GRID = render.Grid((40, 32, 30), (10.0, 10.0, 14.0), (0.0, 0.0, -10.0))


def drawn(study, **how):
    return synthesis.acquire(SEED, study, matrix=0, grid=GRID, **how)[0]


@pytest.fixture(scope="module")
def study():
    plain = describe.plain_study(SEED)
    return replace(plain, found={n: Found(0.7) for n in ("renal_cyst", "ascites", "cardiomegaly")})


def test_a_study_without_a_finding_is_the_scan_that_leaves_it_out(study):
    """To the last voxel of noise: the difference of two scans is the finding alone."""
    for name in study.found:
        out = drawn(changes.without(study, name))
        assert (out == drawn(study, without=(name,))).all()
        assert (out != drawn(study)).any()
    with pytest.raises(ValueError, match="has no free_air; it has renal_cyst, ascites"):
        changes.without(study, "free_air")


@pytest.mark.parametrize("name", NAMES)
def test_the_dose_rises_with_severity_and_starts_below_the_cohorts(study, name):
    """A drawing that fails below severity 0, or a dose read from the wrong number, shows here."""
    low = changes.DOSES[name].faintest
    ill = replace(study, found={name: Found(0.5)})
    doses = [changes.dose(SEED, changes.dosed(ill, name, v), name) for v in (low, 0.2, 0.6, 1.0)]
    assert (np.diff(doses) > 0).all()
    if name in ("surgically_absent_gallbladder", "thrombosis"):
        assert low == 0
    with pytest.raises(ValueError, match=f"{name}: severity 1.5. Expected {low:g} to 1"):
        changes.dosed(ill, name, 1.5)


def test_at_its_faintest_a_finding_changes_less_than_the_cohorts_mildest(study):
    faint = [n for n in NAMES if changes.DOSES[n].faintest < 0]
    assert len(faint) > 20
    nothing = drawn(replace(study, found={}))
    for name in faint[::4]:
        ill = replace(study, found={name: Found(0.06)})
        mild = (drawn(ill) != nothing).sum()
        least = drawn(changes.dosed(ill, name, changes.DOSES[name].faintest))
        assert (least != nothing).sum() < mild, name


def test_age_and_sex_change_the_body_and_not_the_findings(study):
    old = changes.older(study, 20)
    assert (old.age - study.age, old.found) == (20, study.found)
    bone = [synthesis.body_of(SEED, s).trabecular_hu for s in (study, old)]
    assert bone[0] - bone[1] == pytest.approx(24)
    other = changes.other_sex(study)
    assert {other.patient.sex, study.patient.sex} == {"F", "M"}
    assert changes.other_sex(other) == study
    bound = replace(study, found=study.found | {"prostatomegaly": Found(0.5)})
    with pytest.raises(ValueError, match="prostatomegaly is of one sex"):
        changes.other_sex(bound)
