"""Every problem of a manifest at once, by row, with its mend, and without patients' identifiers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merlin.data.manifest import (
    FIVE_YEAR,
    LABELS,
    ManifestError,
    check_manifest,
    load_manifest,
    nested_subset,
)

SECRET = "SECRET-PATIENT"


def good(n=6):
    return pd.DataFrame(
        {
            "study_id": [f"S{i}" for i in range(n)],
            "patient_id": [f"{SECRET}-{i}" for i in range(n)],
            "split": (["train", "val", "test"] * n)[:n],
            "volume": [f"scans/{i}.nii.gz" for i in range(n)],
            "sex": (["F", "M", np.nan] * n)[:n],
            "age": (["57", "57.5", np.nan] * n)[:n],
            "label_ascites": (["1", "0", np.nan] * n)[:n],
            "five_year_cvd": (["0", "1", "2", "3", np.nan] * n)[:n],
        },
        dtype="str",
    )


def complaint(table, **options):
    with pytest.raises(ManifestError) as caught:
        check_manifest(table, name="site_b.csv", **options)
    text = str(caught.value)
    assert SECRET not in text
    return text


def changed(**cells):
    """The good table with `column={row index: value}` put in."""
    table = good()
    for column, values in cells.items():
        for i, value in values.items():
            table.loc[i, column] = value
    return table


def test_good_manifest_passes():
    check_manifest(good())


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (
            changed(label_ascites={1: "2", 3: "-1"}),
            "rows 3, 5, column label_ascites: 2, -1. "
            "Expected 1 (present), 0 (absent) or empty (not mentioned).",
        ),
        (changed(split={2: "testing"}), "row 4, column split: testing. Expected train, val or"),
        (changed(sex={0: "male"}), "row 2, column sex: male. Expected F, M or empty."),
        (changed(age={0: "57 y"}), "row 2, column age: 57 y. Expected years"),
        (changed(five_year_cvd={0: "4"}), "row 2, column five_year_cvd: 4. Expected 0 (free"),
        (changed(volume={4: np.nan}), "row 6, column volume: empty. Every study needs it."),
        (changed(patient_id={4: np.nan}), "row 6, column patient_id: empty."),
        (
            changed(study_id={0: "../../precious", 1: "a/b", 2: "..", 4: "S\x1b[2J"}),
            "rows 2, 3, 4, 6, column study_id: no name of a file. Expected no /",
        ),
        (
            changed(study_id={3: "S1"}),
            "rows 3, 5, column study_id: the same study more than once. One row a study",
        ),
        (
            changed(patient_id={3: f"{SECRET}-1"}),
            "rows 3, 5, column patient_id: the same patient is in several splits. "
            "One patient, one split.",
        ),
        (good().drop(columns="volume"), "column volume: missing. Every study needs it."),
        (
            good().rename(columns={"sex": "sexx"}),
            "column sexx: unknown (nearest: sex). Rename or remove it",
        ),
        (
            good().rename(columns={"label_ascites": "label_ascitis"}),
            "column label_ascitis: unknown (nearest: label_ascites).",
        ),
    ],
)
def test_problem_is_told_with_place_and_mend(table, line):
    text = complaint(table)
    assert text.startswith("site_b.csv: 1 problem\n  ")
    assert line in text


def test_missing_files_are_named_relative_to_the_manifest(tmp_path):
    (tmp_path / "scans").mkdir()
    for i in (0, 1, 3, 5):
        (tmp_path / f"scans/{i}.nii.gz").touch()
    text = complaint(good(), folder=tmp_path)
    assert (
        "rows 4, 6, column volume: file not found: scans/2.nii.gz (paths are relative to the "
        "manifest)." in text
    )


def test_all_problems_come_at_once():
    table = changed(
        split={2: "testing"},
        label_ascites={1: "yes"},
        study_id={3: "S1"},
        patient_id={5: f"{SECRET}-0"},
        sex={4: "x"},
    ).rename(columns={"age": "agee"})
    text = complaint(table)
    assert text.startswith("site_b.csv: 6 problems\n")
    for column in ("split", "label_ascites", "study_id", "patient_id", "sex", "agee"):
        assert f"column {column}: " in text
    assert text.count("\n  ") == 6


def test_many_rows_are_counted_not_listed():
    table = good(30)
    table["split"] = "nowhere"
    assert "rows 2, 3, 4, 5, 6, 7, 8, 9 and 22 more, column split: nowhere." in complaint(table)


def test_patients_in_two_splits_are_found_when_a_split_is_wrong_too():
    text = complaint(changed(patient_id={1: f"{SECRET}-0"}, split={5: "tets"}))
    assert "rows 2, 3, column patient_id" in text
    assert "row 7, column split: tets" in text


def test_column_that_stands_twice_is_told():
    table = good()
    table.insert(0, "sex", "F", allow_duplicates=True)
    assert "column sex: stands more than once. Keep one." in complaint(table)


def test_manifest_loads_with_numbers_as_floats_and_names_as_text(tmp_path):
    table = good()
    table["study_id"] = [f"00{i}" for i in range(6)]
    table["slice_mm"] = "2.5"
    table["findings"] = 'Spleen: "Normal", NA.'
    (tmp_path / "scans").mkdir()
    for i in range(6):
        (tmp_path / f"scans/{i}.nii.gz").touch()
    table.to_csv(tmp_path / "m.csv", index=False)
    loaded = load_manifest(tmp_path / "m.csv")
    assert loaded["study_id"].tolist() == table["study_id"].tolist()
    for column in ("label_ascites", "five_year_cvd", "age", "slice_mm"):
        assert loaded[column].dtype == float
    np.testing.assert_array_equal(loaded["label_ascites"], [1, 0, np.nan] * 2)
    np.testing.assert_array_equal(loaded["five_year_cvd"], [0, 1, 2, 3, np.nan, 0])
    assert loaded["findings"].tolist() == table["findings"].tolist()
    assert loaded["volume"].iloc[2] == str(tmp_path / "scans" / "2.nii.gz")


def test_text_that_looks_like_nothing_stays_text(tmp_path):
    table = good(1).assign(phase="NA", site="None")
    table.to_csv(tmp_path / "m.csv", index=False)
    loaded = load_manifest(tmp_path / "m.csv", check_files=False)
    assert loaded.loc[0, ["phase", "site"]].tolist() == ["NA", "None"]


def test_load_names_the_file_and_does_not_look_for_volumes_when_told(tmp_path):
    good().to_csv(tmp_path / "site_c.csv", index=False)
    load_manifest(tmp_path / "site_c.csv", check_files=False)
    with pytest.raises(ManifestError, match=r"site_c\.csv: 1 problem\n  rows 2, 3, 4, 5, 6, 7, c"):
        load_manifest(tmp_path / "site_c.csv")


def test_slice_thickness_that_is_not_a_number_is_a_problem_like_others(tmp_path):
    good().assign(slice_mm="thick").to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ManifestError, match="column slice_mm: thick"):
        load_manifest(tmp_path / "m.csv", check_files=False)


def test_column_that_stands_twice_in_a_file_is_told_as_such(tmp_path):
    (tmp_path / "m.csv").write_text("study_id,patient_id,split,volume,sex,sex\na,b,val,c,F,M\n")
    with pytest.raises(ManifestError, match="column sex: stands more than once"):
        load_manifest(tmp_path / "m.csv", check_files=False)


@pytest.mark.parametrize(
    ("encoding", "sep"), [("cp1252", ";"), ("utf-16", "\t"), ("utf-8-sig", ",")]
)
def test_manifest_of_a_spreadsheet_is_read(tmp_path, encoding, sep):
    table = good(3).assign(study_id=["1.0", "2.0", "3.0"], findings="Leber: groß.")
    table["age"] = table["age"].str.replace(".", "," if sep == ";" else ".", regex=False)
    table["label_ascites"] = ["1.0", "0.0", ""]  # as a data frame writes them
    table.to_csv(tmp_path / "m.csv", index=False, encoding=encoding, sep=sep)
    loaded = load_manifest(tmp_path / "m.csv", check_files=False)
    assert loaded["study_id"].tolist() == ["1", "2", "3"]
    assert loaded["age"].tolist()[:2] == [57, 57.5]
    assert loaded["findings"].tolist() == ["Leber: groß."] * 3
    np.testing.assert_array_equal(loaded["label_ascites"], [1, 0, np.nan])


def test_rows_of_a_manifest_are_a_spreadsheets_with_blank_rows_between(tmp_path):
    (tmp_path / "m.csv").write_text(
        "study_id,patient_id,split,volume\na,b,val,c\n\n,,,\nd,e,tst,f\n"
    )
    with pytest.raises(ManifestError, match="row 5, column split: tst"):
        load_manifest(tmp_path / "m.csv", check_files=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "m.csv: the file is empty"),
        (b"study_id,patient_id,split,volume\n", "a header and no rows"),
        (b"study_id,patient_id,split,volume\na,b,val\n", "row 2: not as many cells"),
        (b"study_id,patient_id,split,volume\n1.2E+11,b,val,c\n", "row 2: ids that a spreadsheet"),
    ],
)
def test_a_manifest_that_is_no_whole_table_is_refused(tmp_path, content, said):
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=said):
        load_manifest(tmp_path / "m.csv", check_files=False)


def test_phantom_manifest_is_a_good_one(tmp_path):
    from merlin.phantom import build

    jobs = build.plan("site_b", 2, seed=7, matrix=32, folder=tmp_path)
    manifest, truth, _ = build.build_cohort(jobs, n_workers=0)
    manifest.to_csv(tmp_path / "m.csv", index=False)
    loaded = load_manifest(tmp_path / "m.csv")
    assert {*LABELS, *FIVE_YEAR} <= set(loaded.columns)
    assert loaded[list(LABELS)].isin([0, 1, np.nan]).all(axis=None)
    for row in truth.itertuples():
        label = loaded.set_index("study_id").loc[row.study_id, f"label_{row.finding}"]
        assert label == 1 or np.isnan(label)


PATIENTS = np.array([f"p{i // 3}" for i in range(300)])


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 99))
def test_smaller_fraction_lies_inside_the_larger(a, b, seed):
    small, large = sorted((a, b))
    inner = nested_subset(PATIENTS, small, seed=seed)
    outer = nested_subset(PATIENTS, large, seed=seed)
    assert not (inner & ~outer).any()
    assert inner.any()


@given(st.floats(0.05, 1), st.integers(0, 99), st.randoms(use_true_random=False))
def test_subset_goes_by_patient_not_by_row_order(fraction, seed, random):
    order = list(range(len(PATIENTS)))
    random.shuffle(order)
    kept = nested_subset(PATIENTS, fraction, seed=seed)
    for patient in set(PATIENTS[kept]):
        assert kept[patient == PATIENTS].all()
    assert len(set(PATIENTS[kept])) == max(1, round(100 * fraction))
    np.testing.assert_array_equal(nested_subset(PATIENTS[order], fraction, seed=seed), kept[order])


def test_subset_depends_on_the_seed():
    a, b = (nested_subset(PATIENTS, 0.3, seed=s) for s in (1, 2))
    assert (a != b).any()
    np.testing.assert_array_equal(a, nested_subset(PATIENTS, 0.3, seed=1))
    assert nested_subset(PATIENTS, 1, seed=3).all()


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_fraction_out_of_range_is_refused_with_its_value(fraction):
    with pytest.raises(ValueError, match=rf"fraction must be in \(0, 1\]; got {fraction}"):
        nested_subset(PATIENTS, fraction, seed=1)
