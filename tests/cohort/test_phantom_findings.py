"""Each of the 30 findings changes the picture where it should, and more when it is grosser."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from merlin.phantom import describe, render, synthesis
from merlin.phantom.findings import FINDINGS
from merlin.vocabulary import LABEL, NAMES

SEED = 7
CHANGED_HU = 25
LEAST_ML = 2.0  # at severity 0.6: a dozen voxels of the default profile's scanner
NEAR_MM = 40.0
KIDNEYS = ("kidney_right", "kidney_left")
LUNGS = ("lung_right", "lung_left")
# Finding → structures it belongs to; None for what spreads through the body.
ORGANS = {
    "submucosal_edema": ("colon",),
    "renal_hypodensities": KIDNEYS,
    "aortic_valve_calcification": ("heart",),
    "coronary_calcification": ("heart",),
    "thrombosis": ("inferior_vena_cava", "liver", "pancreas"),
    "metastatic_disease": ("liver", "vertebrae"),
    "pancreatic_atrophy": ("pancreas",),
    "renal_cyst": KIDNEYS,
    "osteopenia": ("vertebrae",),
    "surgically_absent_gallbladder": ("gallbladder",),
    "atelectasis": LUNGS,
    "abdominal_aortic_aneurysm": ("aorta",),
    "anasarca": None,
    "hiatal_hernia": ("stomach", "heart"),
    "lymphadenopathy": ("aorta", "inferior_vena_cava"),
    "prostatomegaly": ("prostate",),
    "biliary_ductal_dilation": ("liver",),
    "cardiomegaly": ("heart",),
    "splenomegaly": ("spleen",),
    "hepatomegaly": ("liver",),
    "atherosclerosis": ("aorta",),
    "ascites": None,
    "pleural_effusion": LUNGS,
    "hepatic_steatosis": ("liver",),
    "appendicitis": ("colon",),
    "gallstones": ("gallbladder",),
    "hydronephrosis": KIDNEYS,
    "bowel_obstruction": ("small_bowel", "colon"),
    "free_air": None,
    "fracture": ("vertebrae",),
}
# Share of the change that must be near: ribs and pelvis lose density with the spine, the ureters
# and the iliac arteries have no label, a large liver reaches far below a plain one.
SHARE = {"osteopenia": 0.4, "hydronephrosis": 0.75, "atherosclerosis": 0.75, "hepatomegaly": 0.75}
CENTRE_MM = {"submucosal_edema": 60.0}  # the middle of a frame is not on it


def change_by_finding(seed, study, name, grid, *, severity=0.6):
    """HU of a study with and without one finding, and the label map without it."""
    study = describe.add_finding(seed, study, name, severity)
    with_, _, _ = synthesis.acquire(seed, study, matrix=0, grid=grid)
    without, label, _ = synthesis.acquire(seed, study, matrix=0, grid=grid, without=(name,))
    return with_, without, label


@pytest.fixture(scope="module")
def changes(plain_man, cohort_grid):
    """(finding, severity) → HU difference and the label map of the study without it."""

    @cache
    def change(name, severity):
        with_, without, label = change_by_finding(
            SEED, plain_man, name, cohort_grid, severity=severity
        )
        return with_.astype(int) - without, label

    return change


@pytest.fixture(scope="module")
def torso(plain_man, cohort_grid):
    hu, _, _ = synthesis.acquire(SEED, plain_man, matrix=0, grid=cohort_grid)
    labelled, _ = ndimage.label(ndimage.binary_opening(hu > -300))
    body = labelled == np.bincount(labelled.ravel())[1:].argmax() + 1
    return ndimage.binary_dilation(ndimage.binary_fill_holes(body), iterations=2)


def test_every_finding_has_its_place_here():
    assert set(ORGANS) == set(NAMES)
    assert len(NAMES) == 30


@pytest.mark.parametrize("name", NAMES)
def test_finding_changes_the_picture_in_or_near_its_organ(name, changes, torso, cohort_grid):
    difference, label = changes(name, 0.6)
    changed = np.abs(difference) > CHANGED_HU
    ml = changed.sum() * np.prod(cohort_grid.spacing_mm) / 1000
    assert ml >= LEAST_ML
    centre = tuple(np.rint(ndimage.center_of_mass(changed)).astype(int))
    if ORGANS[name] is None:
        assert torso[centre]
        assert (changed & torso).sum() > 0.95 * changed.sum()
        return
    organ = np.isin(label, [LABEL[n] for n in ORGANS[name]])
    distance = ndimage.distance_transform_edt(~organ, sampling=cohort_grid.spacing_mm)
    assert distance[centre] <= CENTRE_MM.get(name, NEAR_MM)
    assert (distance[changed] <= NEAR_MM).mean() >= SHARE.get(name, 0.9)


@pytest.mark.parametrize("name", NAMES)
def test_grosser_finding_changes_more(name, changes):
    slight, gross = (np.abs(changes(name, s)[0]).sum() for s in (0.1, 1.0))
    assert gross > 1.05 * slight


def test_submucosal_edema_changes_only_the_stretch_it_is_dictated_for(
    changes, plain_man, cohort_grid
):
    difference, _ = changes("submucosal_edema", 0.6)
    study = describe.add_finding(SEED, plain_man, "submucosal_edema")
    body = synthesis.body_of(SEED, study)
    assert body.colon_edema > 0
    changed = np.argwhere(np.abs(difference) > CHANGED_HU)
    mm = changed * cohort_grid.spacing_mm + cohort_grid.low
    first = body.colon_edema_part[0]
    # Ascending on the right, descending on the left, transverse in front and above the pelvis.
    there = {0: mm[:, 0] > 20, 24: mm[:, 0] < -20, 12: mm[:, 2] > -110}[first]
    assert there.mean() > 0.9


def test_picture_without_the_finding_is_the_plain_study(plain_man, cohort_grid):
    plain, plain_label, _ = synthesis.acquire(SEED, plain_man, matrix=0, grid=cohort_grid)
    _, without, label = change_by_finding(SEED, plain_man, "ascites", cohort_grid)
    np.testing.assert_array_equal(without, plain)
    np.testing.assert_array_equal(label, plain_label)


@pytest.mark.parametrize(
    "name", ["renal_cyst", "hydronephrosis", "pleural_effusion", "atelectasis"]
)
def test_dictated_side_is_the_side_of_the_change(name):
    grid = render.Grid((52, 44, 56), (8.0, 8.0, 8.0), (0.0, 0.0, -10.0))
    site, sides = synthesis.SITES["internal"], {}
    for i in range(400):
        patient = synthesis.draw_patient(SEED, f"S{i}", site)
        study = synthesis.draw_study(SEED, f"S{i}-1", patient, site)
        side = study.found[name].details["side"] if name in study.found else "bilateral"
        if side != "bilateral" and side not in sides:
            hu, _, _ = synthesis.acquire(SEED, study, matrix=0, grid=grid)
            less, _, _ = synthesis.acquire(SEED, study, matrix=0, grid=grid, without=(name,))
            weight = np.abs(hu.astype(float) - less)
            x = grid.low[0] + grid.spacing_mm[0] * np.arange(grid.shape[0])
            sides[side] = (weight.sum((1, 2)) * x).sum() / weight.sum()
        if len(sides) == 2:
            break
    assert sides["right"] > 8
    assert sides["left"] < -8


def test_steatotic_liver_is_darker_and_osteopenic_spine_too(changes):
    for name, organ in (("hepatic_steatosis", "liver"), ("osteopenia", "vertebrae")):
        difference, label = changes(name, 1.0)
        assert np.median(difference[label == LABEL[organ]]) < -CHANGED_HU


@pytest.mark.parametrize(
    ("name", "organ"),
    [
        ("splenomegaly", "spleen"),
        ("hepatomegaly", "liver"),
        ("cardiomegaly", "heart"),
        ("prostatomegaly", "prostate"),
        ("abdominal_aortic_aneurysm", "aorta"),
    ],
)
def test_enlarged_organ_is_labelled_larger(name, organ, plain_man, cohort_grid):
    study = describe.add_finding(SEED, plain_man, name, 0.6)
    _, label, _ = synthesis.acquire(SEED, study, matrix=0, grid=cohort_grid)
    _, plain, _ = synthesis.acquire(SEED, plain_man, matrix=0, grid=cohort_grid)
    number = LABEL[organ]
    assert (label == number).sum() > 1.15 * (plain == number).sum()


def test_removed_gallbladder_is_not_labelled(plain_man, cohort_grid):
    study = describe.add_finding(SEED, plain_man, "surgically_absent_gallbladder")
    _, label, _ = synthesis.acquire(SEED, study, matrix=0, grid=cohort_grid)
    assert not (label == LABEL["gallbladder"]).any()


def test_findings_that_exclude_each_other_are_not_added_together(plain_man):
    stones = describe.add_finding(SEED, plain_man, "gallstones")
    removed = describe.add_finding(SEED, stones, "surgically_absent_gallbladder")
    assert set(removed.found) == {"surgically_absent_gallbladder"}
    assert set(describe.add_finding(SEED, removed, "gallstones").found) == {"gallstones"}


def test_table_of_changes_covers_all_findings(changes, cohort_grid):
    """Run with `-rP` to read the table."""
    voxel = np.prod(cohort_grid.spacing_mm) / 1000
    print(f"{'finding':32s}{'0.1':>9s}{'0.6':>9s}{'1.0':>9s}  ml beyond {CHANGED_HU} HU")
    for name in FINDINGS:
        ml = [(np.abs(changes(name, s)[0]) > CHANGED_HU).sum() * voxel for s in (0.1, 0.6, 1.0)]
        print(f"{name:32s}" + "".join(f"{v:9.1f}" for v in ml))
        assert ml[1] >= LEAST_ML
