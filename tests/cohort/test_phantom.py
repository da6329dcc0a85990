"""One study from (seed, study id): the same for everybody, whole, and the right way round."""

from dataclasses import replace
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from merlin.phantom import body, build, render, synthesis
from merlin.phantom.findings import FINDINGS
from merlin.vocabulary import LABEL

SEED = 7
COARSE = render.Grid((52, 44, 56), (8.0, 8.0, 8.0), (0.0, 0.0, -10.0))
# Generous ranges of adults' organs, ml, with the coarse grid's partial volume.
MILLILITRES = {
    "spleen": (60, 450),
    "kidney_right": (75, 280),
    "kidney_left": (75, 280),
    "gallbladder": (10, 100),
    "liver": (800, 2600),
    "stomach": (100, 900),
    "pancreas": (25, 170),
    "adrenal_gland_right": (1, 12),
    "adrenal_gland_left": (1, 12),
    "duodenum": (25, 160),
    "small_bowel": (200, 1600),
    "colon": (300, 2000),
    "urinary_bladder": (40, 600),
    "prostate": (8, 60),
    "heart": (250, 1100),
    "aorta": (30, 250),
    "inferior_vena_cava": (30, 180),
    "lung_right": (300, 3500),
    "lung_left": (300, 3500),
    "vertebrae": (150, 900),
}


def jobs_for(folder, *, seed=SEED, n=4):
    return build.plan("internal", n, seed=seed, matrix=48, folder=folder)


def read(path):
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


def assert_same_cohort(one, other, folder_one, folder_other):
    for a, b in zip(one, other, strict=True):
        pd.testing.assert_frame_equal(a, b)
    for column in ("volume", "label_map"):
        for path in one[0][column]:
            (a, affine_a), (b, affine_b) = read(folder_one / path), read(folder_other / path)
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(affine_a, affine_b)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, build.build_cohort(jobs_for(folder), n_workers=0)


def test_cohort_is_the_same_with_two_workers(alone, tmp_path):
    folder, made = alone
    assert_same_cohort(made, build.build_cohort(jobs_for(tmp_path), n_workers=2), folder, tmp_path)


def test_cohort_is_the_same_in_reverse_order(alone, tmp_path):
    folder, made = alone
    turned = build.build_cohort(jobs_for(tmp_path)[::-1], n_workers=0)
    turned = [
        t.sort_values(list(t.columns[:2]), kind="stable").reset_index(drop=True) for t in turned
    ]
    made = [t.sort_values(list(t.columns[:2]), kind="stable").reset_index(drop=True) for t in made]
    assert_same_cohort(made, turned, folder, tmp_path)


def test_cohort_of_another_seed_differs_in_picture_report_and_codes(alone, tmp_path):
    folder, made = alone
    other = build.build_cohort(jobs_for(tmp_path, seed=SEED + 1), n_workers=0)
    first = made[0]["volume"].iloc[0]
    a, b = read(folder / first)[0], read(tmp_path / first)[0]
    assert a.shape != b.shape or (a != b).mean() > 0.5
    assert (made[0]["findings"].iloc[0]) != other[0]["findings"].iloc[0]
    assert not made[2].equals(other[2])


def test_resumed_build_makes_only_the_missing_volume(alone, tmp_path):
    folder, _ = alone
    build.build_cohort(jobs_for(tmp_path, n=2), n_workers=0)
    paths = sorted(tmp_path.rglob("*.nii.gz"))
    gone = paths[-1]
    gone.unlink()
    # A study is made whole: its label map is written again too.
    kept = {p: p.stat().st_mtime_ns for p in paths if p.name != gone.name}
    again = build.build_cohort(jobs_for(tmp_path, n=2), n_workers=0)
    assert sorted(tmp_path.rglob("*.nii.gz")) == paths
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]
    first = again[0]["volume"].iloc[0]
    np.testing.assert_array_equal(read(tmp_path / first)[0], read(folder / first)[0])


def test_files_hold_int16_hu_and_labels_on_one_grid(alone):
    folder, (manifest, _, _) = alone
    for row in manifest.itertuples():
        hu, affine = read(folder / row.volume)
        label, label_affine = read(folder / row.label_map)
        assert hu.dtype == np.int16
        assert label.dtype == np.uint8
        assert hu.shape == label.shape
        np.testing.assert_array_equal(affine, label_affine)
        assert hu.min() < -900
        assert 300 < hu.max() <= 3071
        assert np.isclose(nib.affines.voxel_sizes(affine), row.slice_mm).any()


def test_plan_deals_internal_patients_into_three_splits_and_others_into_test(tmp_path):
    jobs = build.plan("internal", 100, seed=SEED, matrix=48, folder=tmp_path)
    counts = pd.Series([j.split for j in jobs]).value_counts()
    assert counts.to_dict() == {"train": 60, "val": 20, "test": 20}
    assert len({j.patient_id for j in jobs}) == 100
    several = np.mean([j.n_visits > 1 for j in jobs])
    assert 0.1 < several < 0.4
    assert {j.split for j in build.plan("site_b", 9, seed=1, matrix=48, folder=tmp_path)} == {
        "test"
    }


def test_man_has_all_20_structures(plain_man, cohort_grid):
    _, label, _ = synthesis.acquire(SEED, plain_man, matrix=0, grid=cohort_grid)
    missing = [n for n, number in LABEL.items() if not (label == number).any()]
    assert missing == []
    assert label.max() == 20


def test_woman_has_no_prostate_and_all_else(plain_woman, cohort_grid):
    _, label, _ = synthesis.acquire(SEED, plain_woman, matrix=0, grid=cohort_grid)
    missing = [n for n, number in LABEL.items() if not (label == number).any()]
    assert missing == ["prostate"]


@pytest.mark.parametrize("sex", ["M", "F"])
def test_organ_volumes_are_an_adults(sex, cohort_grid):
    from merlin.phantom.describe import plain_study

    voxel = np.prod(cohort_grid.spacing_mm) / 1000
    odd = []
    for who in ("A", "B", "C"):
        study = plain_study(SEED, who, sex=sex)
        _, label, _ = synthesis.acquire(SEED, study, matrix=0, grid=cohort_grid)
        for name, (low, high) in MILLILITRES.items():
            ml = (label == LABEL[name]).sum() * voxel
            if not low <= ml <= high and not (sex == "F" and name == "prostate"):
                odd.append((who, name, round(float(ml), 1)))
    assert odd == []


def test_liver_is_on_the_patients_right_and_heart_above_bladder(plain_man, cohort_grid):
    _, label, grid = synthesis.acquire(SEED, plain_man, matrix=0, grid=cohort_grid)
    assert nib.aff2axcodes(grid.affine) == ("R", "A", "S")

    def centre(name):
        index = np.argwhere(label == LABEL[name]).mean(0)
        return nib.affines.apply_affine(grid.affine, index)

    assert centre("liver")[0] > 25
    assert centre("spleen")[0] < -40
    assert centre("kidney_right")[0] > 30 > -30 > centre("kidney_left")[0]
    assert centre("lung_right")[0] > 0 > centre("lung_left")[0]
    assert centre("inferior_vena_cava")[0] > centre("aorta")[0]
    assert centre("vertebrae")[1] < centre("aorta")[1] < centre("stomach")[1]
    assert centre("heart")[2] > centre("liver")[2] > centre("urinary_bladder")[2]


def test_organs_have_their_densities_in_each_phase(plain_man):
    plain_man = replace(plain_man, noise_hu=0.1)
    medians = {}
    for phase in body.PHASES:
        hu, label, _ = synthesis.acquire(
            SEED, replace(plain_man, phase=phase), matrix=0, grid=COARSE
        )
        medians[phase] = {
            n: np.median(hu[label == LABEL[n]])
            for n in ("liver", "aorta", "spleen", "lung_left", "urinary_bladder")
        }
    assert medians["arterial"]["aorta"] > medians["portal venous"]["aorta"] > 100
    assert medians["non-contrast"]["aorta"] < 70
    assert 80 < medians["portal venous"]["liver"] < 140
    assert 35 < medians["non-contrast"]["liver"] < 75
    for values in medians.values():
        assert values["lung_left"] < -700
        assert -5 < values["urinary_bladder"] < 45


CODES = [
    "".join(signs[i][turn] for i, turn in zip(order, turns, strict=True))
    for signs in [("RL", "AP", "SI")]
    for order in permutations(range(3))
    for turns in product((0, 1), repeat=3)
]


@pytest.mark.parametrize("axcodes", CODES)
def test_nifti_in_any_orientation_reads_back_to_the_same_ras_array(axcodes, tmp_path):
    array = np.random.default_rng(7).integers(-1024, 3071, (5, 6, 7)).astype(np.int16)
    affine = render.Grid((5, 6, 7), (2.0, 2.5, 4.0), (3.0, -8.0, 11.0)).affine
    path = tmp_path / "deep" / "scan.nii.gz"
    build.save_nifti(path, array, affine, axcodes)
    stored = nib.load(path)
    assert nib.aff2axcodes(stored.affine) == tuple(axcodes)
    assert stored.get_data_dtype() == np.int16
    assert stored.header["sform_code"] > 0
    back = nib.as_closest_canonical(stored)
    np.testing.assert_array_equal(np.asarray(back.dataobj), array)
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    assert [p.name for p in path.parent.iterdir()] == ["scan.nii.gz"]


@pytest.mark.parametrize("axcodes", ["RAS", "LPS"])
def test_nifti_carries_both_affines(axcodes, tmp_path):
    path = tmp_path / "scan.nii.gz"
    build.save_nifti(path, np.zeros((3, 4, 5), np.int16), np.diag([2.0, 2, 3, 1]), axcodes)
    stored = nib.load(path)
    assert stored.header["sform_code"] > 0
    assert stored.header["qform_code"] > 0
    np.testing.assert_allclose(stored.get_qform(), stored.get_sform(), atol=1e-4)


def test_without_a_finding_nothing_but_that_finding_changes():
    """The other findings' dictation stays, and the picture changes only near the gallbladder."""
    site = synthesis.SITES["internal"]
    for i in range(200):
        patient = synthesis.draw_patient(SEED, f"W{i}", site)
        study = synthesis.draw_study(SEED, f"W{i}-1", patient, site)
        if "gallstones" in study.found and len(study.found) >= 8:
            break
    whole, label, _ = synthesis.acquire(SEED, study, matrix=0, grid=COARSE)
    less, label_less, _ = synthesis.acquire(
        SEED, study, matrix=0, grid=COARSE, without=("gallstones",)
    )
    changed = np.argwhere(whole != less)
    bladder = np.argwhere(label_less == LABEL["gallbladder"])
    assert len(changed)
    assert (changed >= bladder.min(0) - 1).all()
    assert (changed <= bladder.max(0) + 1).all()
    np.testing.assert_array_equal(label, label_less)


@pytest.mark.parametrize("name", list(FINDINGS))
def test_leaving_out_a_finding_keeps_the_dictation_of_all_others(name):
    """A study with all findings and one with all but this one agree in every other detail."""
    site = synthesis.SITES["internal"]
    patient = next(
        p for p in (synthesis.draw_patient(SEED, f"A{i}", site) for i in range(20)) if p.sex == "M"
    )
    study = synthesis.draw_study(SEED, "A-1", patient, site)
    everything = {n: synthesis.Found(0.6) for n in FINDINGS if n != "renal_cyst"}
    if name == "renal_cyst":
        everything["renal_cyst"] = synthesis.Found(0.6)
    study = replace(study, found=everything)
    whole, less = synthesis.body_of(SEED, study), synthesis.body_of(SEED, study, without=(name,))
    plain = synthesis.body_of(SEED, replace(study, found={}))
    alone = synthesis.body_of(SEED, replace(study, found={name: synthesis.Found(0.6)}))
    touched = {k for k, v in vars(alone).items() if k != "over" and not same(v, vars(plain)[k])}
    moved = {k for k, v in vars(whole).items() if k != "over" and not same(v, vars(less)[k])}
    # Two findings may both move one number (a lower bound, say), so this is not an equality.
    assert moved <= touched


def same(a, b):
    return np.array_equal(a, b)


def test_noise_is_what_the_study_declares(plain_man):
    clean, _, _ = synthesis.acquire(SEED, replace(plain_man, noise_hu=0.0), matrix=0, grid=COARSE)
    noisy, _, _ = synthesis.acquire(SEED, replace(plain_man, noise_hu=15.0), matrix=0, grid=COARSE)
    free = (clean > -950) & (clean < 2900)
    sd = (noisy.astype(float) - clean)[free].std()
    assert sd == pytest.approx(15, rel=0.06)


def test_sites_draw_noise_slices_scanners_and_phases_as_declared(drawn):
    for name, rows in drawn.items():
        site = synthesis.SITES[name]
        low, high = site.noise_hu
        noise = np.array([d.study.noise_hu / (1 + 0.01 * (d.patient.fat - 20)) for d in rows])
        assert noise.min() >= low - 1e-9
        assert noise.max() <= high + 1e-9
        assert noise.mean() == pytest.approx((low + high) / 2, abs=0.1 * (high - low))
        slices = np.array([d.study.slice_mm for d in rows])
        assert site.slice_mm[0] - 0.13 <= slices.min()
        assert slices.max() <= site.slice_mm[1] + 0.13
        assert {d.study.manufacturer for d in rows} == set(site.manufacturers)
        assert {d.study.axcodes for d in rows} == set(site.axcodes)
        for phase, share in zip(body.PHASES, site.phase_share, strict=True):
            rate = np.mean([d.study.phase == phase for d in rows])
            assert abs(rate - share) < 4 * np.sqrt(share * (1 - share) / len(rows)) + 1e-9
        ages = np.mean([d.patient.age for d in rows])
        assert ages == pytest.approx(58 + site.age_shift, abs=3.5)


def test_external_sites_are_calibrated_differently(plain_man):
    liver = {}
    for name in ("internal", "site_b", "site_c"):
        study = replace(plain_man, site=synthesis.SITES[name], noise_hu=0.1)
        hu, label, _ = synthesis.acquire(SEED, study, matrix=0, grid=COARSE)
        liver[name] = hu[label == LABEL["liver"]].astype(float).mean()
    for name in ("site_b", "site_c"):
        gain = liver[name] / liver["internal"]
        assert gain == pytest.approx(synthesis.SITES[name].hu_gain, abs=0.006)


def test_spine_scans_look_closely_at_vertebrae_without_contrast():
    site = synthesis.SITES["spine"]
    studies = []
    for i in range(150):
        patient = synthesis.draw_patient(SEED, f"V{i}", site)
        studies.append(synthesis.draw_study(SEED, f"V{i}-1", patient, site))
    plain = np.mean([s.phase == "non-contrast" for s in studies])
    broken = np.mean(["fracture" in s.found for s in studies])
    assert plain == pytest.approx(0.8, abs=0.13)
    assert 0.45 < broken < 0.85
    hu, label, grid = synthesis.acquire(SEED, studies[0], matrix=48)
    assert grid.spacing_mm[0] * hu.shape[0] == pytest.approx(210)
    assert 3 <= grid.spacing_mm[2] <= 5
    seen = (label == LABEL["vertebrae"]).mean()
    wide = synthesis.acquire(SEED, replace(studies[0], site=synthesis.SITES["internal"]), matrix=48)
    assert seen > 2 * (wide[1] == LABEL["vertebrae"]).mean()


def test_another_grid_sees_the_same_patient(plain_man, cohort_grid):
    """Organ volumes do not depend on the scanner's voxels."""
    _, coarse, _ = synthesis.acquire(SEED, plain_man, matrix=0, grid=COARSE)
    _, fine, _ = synthesis.acquire(SEED, plain_man, matrix=0, grid=cohort_grid)
    for name in ("liver", "heart", "spleen", "kidney_right"):
        ml = [
            (label == LABEL[name]).sum() * np.prod(g.spacing_mm) / 1000
            for label, g in ((coarse, COARSE), (fine, cohort_grid))
        ]
        assert ml[0] == pytest.approx(ml[1], rel=0.08), name
