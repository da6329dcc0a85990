"""Remarks are true of the body, name no finding, and label maps hold what they name."""

import numpy as np
import pytest

from merlin.data import extract
from merlin.phantom import remarks, synthesis
from merlin.phantom.describe import plain_study, viewing_grid
from merlin.vocabulary import LABEL, SECTIONS


def test_remarks_are_true_of_the_body_and_belong_to_a_section(drawn):
    for rows in drawn.values():
        for d in rows[:60]:
            for name in d.study.remarks:
                assert remarks.REMARKS[name].section in SECTIONS
                assert not set(remarks.REMARKS[name].unless) & set(d.study.found)
                assert not (name == "uterus" and d.patient.sex == "M")


@pytest.mark.parametrize("name", remarks.REMARKS)
def test_no_remark_reads_as_a_finding_or_as_its_absence(name):
    for text in (*remarks.REMARKS[name].texts, *remarks.REMARKS[name].elsewhere):
        assert not [f for f, v in extract.label_report(text).items() if not np.isnan(v)], text


def test_remarks_vary_between_patients(drawn):
    rows = drawn["internal"]
    share = [np.mean([n in d.study.remarks for d in rows]) for n in remarks.REMARKS]
    assert min(share) > 0
    assert max(share) < 0.7


@pytest.mark.parametrize("name", ["spleen", "liver", "aorta", "kidney_left", "pancreas"])
def test_fat_over_an_organ_is_not_the_organ(name):
    study = plain_study(11)
    hu, label, _ = synthesis.acquire(11, study, matrix=0, grid=viewing_grid())
    inside = hu[label == LABEL[name]]
    assert np.quantile(inside, 0.02) > -40


def test_lungs_are_air():
    study = plain_study(11)
    hu, label, _ = synthesis.acquire(11, study, matrix=0, grid=viewing_grid())
    for name in ("lung_left", "lung_right"):
        assert np.quantile(hu[label == LABEL[name]], 0.9) < -500
