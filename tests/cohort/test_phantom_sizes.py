"""What is dictated of a finding is what the picture holds: sizes, counts, sides, places, limits."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import pdist

from merlin.phantom import anatomy, describe, measure, render, synthesis
from merlin.vocabulary import LABEL

SEED = 7


def grid_around(centre, size_mm, step=1.5):
    shape = tuple(int(s / step) for s in size_mm)
    return render.Grid(shape, (step,) * 3, tuple(float(c) for c in centre))


def pictures(study, name, grid):
    """HU and labels with the finding, then without it; equal to the last digit where it is not."""
    with_ = synthesis.acquire(SEED, study, matrix=0, grid=grid)
    without = synthesis.acquire(SEED, study, matrix=0, grid=grid, without=(name,))
    return with_[0], with_[1], without[0], without[1]


def axial_diameter(mask, step):
    """Largest distance between two voxels of one slice, mm."""
    slices = [np.argwhere(mask[:, :, k]) * step for k in np.flatnonzero(mask.any((0, 1)))]
    rims = [p[np.random.default_rng(7).permutation(len(p))[:600]] for p in slices if len(p) > 1]
    return max(pdist(p).max() for p in rims) + step


@pytest.fixture(scope="module")
def forty():
    """Studies of the internal site with body and scene."""
    rows = []
    for i in range(40):
        patient = synthesis.draw_patient(SEED, f"Z{i}", synthesis.SITES["internal"])
        study = synthesis.draw_study(SEED, f"Z{i}-1", patient, synthesis.SITES["internal"])
        body = synthesis.body_of(SEED, study)
        scene = anatomy.scene(body, synthesis.stream(SEED, study.study_id, "bowel"))
        rows.append((study, body, scene))
    return rows


@pytest.mark.parametrize("name", measure.LIMITS)
def test_an_organ_is_enlarged_by_its_own_definition(name, forty):
    enlarged = 0
    for study, body, scene in forty:
        if name == "prostatomegaly" and body.sex == "F":
            continue
        found = measure.measure(name, body, scene)
        assert (found.value > measure.LIMITS[name]) == (name in study.found), study.study_id
        if name in study.found:
            enlarged += 1
            assert study.found[name].details["size_mm"] == found.size_mm
    assert enlarged >= 3


def test_reported_spleen_and_liver_are_as_long_as_their_labels_on_another_grid(plain_man):
    for name, organ in (("splenomegaly", "spleen"), ("hepatomegaly", "liver")):
        study = describe.add_finding(SEED, plain_man, name, 0.5)
        grid = render.Grid((80, 64, 90), (4.0, 4.0, 3.0), (0.0, 0.0, 30.0))
        _, label, _ = synthesis.acquire(SEED, study, matrix=0, grid=grid)
        mask = label == LABEL[organ]
        inside = np.argwhere(mask & ~ndimage.binary_erosion(mask)) * grid.spacing_mm
        seen = pdist(inside[::3]).max() if organ == "spleen" else np.ptp(inside[:, 2])
        assert study.found[name].details["size_mm"] == pytest.approx(seen, abs=7)


@pytest.mark.parametrize("severity", [0.2, 0.8])
def test_reported_cyst_and_hernia_are_as_wide_as_they_are_drawn(severity, plain_man):
    body = synthesis.body_of(SEED, plain_man)
    for name, centre in (
        ("renal_cyst", None),
        ("hiatal_hernia", replace_radius(body, severity).hernia_centre()),
    ):
        study = describe.add_finding(SEED, plain_man, name, severity)
        details = study.found[name].details
        if centre is None:
            centre = body.kidney_centre(1 if details["side"] == "right" else -1)
        grid = grid_around(centre, (165, 165, 180), 2.5)
        hu, label, before, label_before = pictures(study, name, grid)
        mask = hu != before
        if name == "hiatal_hernia":
            mask = (label == LABEL["stomach"]) & (label_before != LABEL["stomach"])
            mask = mask[:, :, mask.shape[2] // 2 :]  # above its neck
        seen = axial_diameter(mask, 2.5)
        assert details["size_mm"] == pytest.approx(seen, abs=6), name


def replace_radius(body, severity):
    """The body with the radius of a hernia of that severity."""
    return replace(body, hernia_radius=12 + 18 * severity)


def test_renal_hypodensities_are_as_many_as_dictated_and_none_reaches_a_centimetre(plain_man):
    study = describe.add_finding(SEED, plain_man, "renal_hypodensities", 0.4)
    details = study.found["renal_hypodensities"].details
    assert 5 < details["size_mm"] < 10
    body, n = synthesis.body_of(SEED, study), 0
    for side in (1, -1):
        grid = grid_around(body.kidney_centre(side), (105, 100, 150), 1.25)
        hu, _, before, _ = pictures(study, "renal_hypodensities", grid)
        spots, count = ndimage.label(before - hu > 20)
        ml = np.bincount(spots.ravel())[1:] * 1.25**3 / 1000
        assert count >= 3
        assert ml.max() < 4 / 3 * np.pi * 0.5**3  # a ball of 1 cm
        n += count
    assert n == pytest.approx(details["count"], abs=1)


@pytest.mark.parametrize(
    ("severity", "grade"), [(0.12, "mild"), (0.4, "moderate"), (1.0, "severe")]
)
def test_fractured_vertebra_loses_in_front_what_is_dictated(severity, grade, plain_man):
    study = describe.add_finding(SEED, plain_man, "fracture", severity)
    details = study.found["fracture"].details
    assert details["grade"] == grade
    body = synthesis.body_of(SEED, study)
    centre = (0.0, body.spine_front(60) - 10, 60.0)
    grid = render.Grid((1, 40, 400), (1.0, 1.0, 0.75), centre)
    _, label, _, before = pictures(study, "fracture", grid)
    gone = (before == LABEL["vertebrae"]) & (label != LABEL["vertebrae"])
    pieces, _ = ndimage.label(gone[0])
    lost = max(
        (piece.sum(1).max() * 0.75 for piece in (pieces == i for i in range(1, pieces.max() + 1))),
        default=0.0,
    )
    assert 100 * lost / (28 * body.height) == pytest.approx(details["percent"], abs=10)


def test_appendix_is_thin_unless_it_is_inflamed(plain_man):
    body = synthesis.body_of(SEED, plain_man)
    assert body.calibre_mm(body.appendix_path()[1], body.appendix_radius) < 6.5
    for severity in (0.06, 1.0):
        study = describe.add_finding(SEED, plain_man, "appendicitis", severity)
        assert 6.5 < study.found["appendicitis"].details["size_mm"] < 18


def test_ascites_leaves_kidneys_and_their_fat_alone(plain_man, cohort_grid):
    for severity in (0.3, 1.0):
        study = describe.add_finding(SEED, plain_man, "ascites", severity)
        hu, label, before, label_before = pictures(study, "ascites", cohort_grid)
        kidneys = np.isin(label_before, (LABEL["kidney_left"], LABEL["kidney_right"]))
        np.testing.assert_array_equal(label[kidneys], label_before[kidneys])
        np.testing.assert_array_equal(hu[kidneys], before[kidneys])
        near = ndimage.distance_transform_edt(~kidneys, sampling=cohort_grid.spacing_mm)
        fat = (near > 0) & (near < 6) & (before < -50)
        assert (hu[fat] == before[fat]).mean() > 0.95
        z = cohort_grid.low[2] + 5.5 * np.arange(hu.shape[2])
        changed = hu != before
        assert changed[:, :, z < -130].any()  # the pelvis fills first


def test_liver_lies_before_the_right_kidney_not_behind_it(plain_man):
    for study in (plain_man, describe.add_finding(SEED, plain_man, "hepatomegaly", 1.0)):
        grid = grid_around(synthesis.body_of(SEED, study).kidney_centre(1), (130, 130, 80), 4.0)
        _, label, _ = synthesis.acquire(SEED, study, matrix=0, grid=grid)
        kidney, liver = label == LABEL["kidney_right"], label == LABEL["liver"]
        assert liver.any()
        behind = np.flip(np.cumsum(np.flip(kidney, 1), 1), 1) > 0  # kidney lies further in front
        assert (liver & behind).sum() < 0.01 * liver.sum()


def test_hernia_lies_above_the_diaphragm_and_outside_the_heart(plain_man):
    study = describe.add_finding(SEED, plain_man, "hiatal_hernia", 0.9)
    body = synthesis.body_of(SEED, study)
    grid = grid_around(body.hernia_centre(), (170, 190, 210), 3.0)
    _, label, _, before = pictures(study, "hiatal_hernia", grid)
    new = np.argwhere((label == LABEL["stomach"]) & (before != LABEL["stomach"]))
    mm = new * 3.0 + grid.low
    assert np.median(mm[:, 2]) > 85 * body.height
    heart = [(part == LABEL["heart"]).sum() for part in (label, before)]
    assert heart[0] == pytest.approx(heart[1], rel=0.05)
    assert mm[:, 1].mean() < body.heart_centre()[1]


def test_cut_for_the_spine_goes_through_marrow(plain_man):
    hu, label, _ = synthesis.acquire(
        SEED, replace(plain_man, noise_hu=0.0), matrix=0, grid=describe.viewing_grid()
    )
    _, (i, j, k) = describe.middles(label)
    body = synthesis.body_of(SEED, plain_man)
    assert hu[i, j, k] == pytest.approx(body.trabecular_hu, abs=40)
