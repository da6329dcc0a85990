"""Codes: read as text, dated, weak; phecodes: one spelling, parents, the official order."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merlin.data.codes import plain_icd
from merlin.data.phecodes import (
    TABLES,
    normalise_phecode,
    parents,
    phecode_matrix,
    read_code_map,
    read_phenotypes,
)
from merlin.phantom import ehr
from merlin.phantom.findings import FINDINGS
from merlin.vocabulary import DISEASES

PHECODE = Path(__file__).parents[2].parent / "shared" / "phecode"
SEED = 7


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("008.50", "8.5"),
        ("8.5", "8.5"),
        ("8.50", "8.5"),
        ("008", "8"),
        ("8", "8"),
        (" 250.22 ", "250.22"),
        ("250.20", "250.2"),
        ("250.00", "250"),
        ("1010.1", "1010.1"),
        ("70.09", "70.09"),
        (8.5, "8.5"),
        (8, "8"),
    ],
)
def test_phecode_has_one_spelling(text, plain):
    assert normalise_phecode(text) == plain


@pytest.mark.parametrize("text", ["", "abc", "8.", ".5", "250.222", "-8", "8,5", "nan", "E11.9"])
def test_what_is_not_a_phecode_is_refused_by_value(text):
    with pytest.raises(ValueError, match="is not a phecode") as caught:
        normalise_phecode(text)
    assert repr(text) in str(caught.value)
    assert "250.2" in str(caught.value)


@given(st.integers(1, 9999), st.integers(0, 99))
def test_phecode_spellings_of_one_number_agree_and_stay(whole, hundredths):
    plain = normalise_phecode(f"{whole}.{hundredths:02d}")
    assert normalise_phecode(f"{whole:04d}.{hundredths:02d}") == plain
    assert normalise_phecode(plain) == plain
    assert float(plain) == pytest.approx(whole + hundredths / 100)


@pytest.mark.parametrize(
    ("phecode", "above"),
    [
        ("250.22", ("250.2", "250")),
        ("250.2", ("250",)),
        ("250", ()),
        ("8.5", ("8",)),
        ("70.09", ("70.0", "70")),
    ],
)
def test_parents_are_the_shorter_codes(phecode, above):
    assert parents(phecode) == above


@pytest.fixture
def code_map(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text(
        "vocabulary,code,phecode\n"
        "ICD9CM,008.5,008.50\n"
        "ICD9CM,8.5,900\n"
        "ICD10CM,E11.22,250.22\n"
        "ICD10CM,E11.22,585.3\n"
        "ICD10CM,E11.22,585.30\n"
        "ICD9CM,250.22,249\n"
        "ICD10CM,Z99,\n"
    )
    return read_code_map(path)


def test_code_map_keeps_leading_zeros_and_several_phecodes(code_map):
    assert code_map == {
        ("ICD9CM", "0085"): ("8.5",),
        ("ICD9CM", "85"): ("900",),
        ("ICD10CM", "E1122"): ("250.22", "585.3"),
        ("ICD9CM", "25022"): ("249",),
    }


def test_code_map_without_a_column_names_it_and_what_was_found(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text("vocabulary,ICD,phecode\nICD9CM,1,8\n")
    with pytest.raises(ValueError, match=r"map\.csv: no column code; found vocabulary, ICD") as e:
        read_code_map(path)
    assert "Rename" in str(e.value)


def matrix(code_map, rows, studies, phecodes):
    codes = pd.DataFrame(rows, columns=["study_id", "vocabulary", "code"])
    return phecode_matrix(codes, studies, code_map, phecodes)


def test_positive_child_makes_its_parents_positive(code_map):
    labels, unmapped = matrix(
        code_map,
        [("a", "ICD10CM", "E11.22")],
        ["a", "b"],
        ["8.5", "250", "250.2", "250.22", "250.1", "585.3"],
    )
    np.testing.assert_array_equal(labels, [[0, 1, 1, 1, 0, 1], [0] * 6])
    assert labels.dtype == np.uint8
    assert unmapped == 0


def test_parents_and_codes_absent_from_the_list_are_skipped(code_map):
    labels, unmapped = matrix(code_map, [("a", "ICD10CM", "E11.22")], ["a"], ["250"])
    assert labels.tolist() == [[1]]
    assert unmapped == 0


@pytest.mark.parametrize("code", ["E11.22", "e1122", " e11.22 ", "E1122"])
def test_dots_case_and_spaces_of_icd_codes_do_not_matter(code_map, code):
    labels, unmapped = matrix(code_map, [("a", "ICD10CM", code)], ["a"], ["250.22"])
    assert labels.tolist() == [[1]]
    assert unmapped == 0


def test_vocabularies_are_not_mixed(code_map):
    labels, unmapped = matrix(code_map, [("a", "ICD9CM", "250.22")], ["a"], ["250.22", "249"])
    assert labels.tolist() == [[0, 1]]
    assert unmapped == 0


def test_unmapped_codes_are_counted_and_other_studies_are_not(code_map):
    rows = [
        ("a", "ICD10CM", "Q00"),
        ("a", "ICD10CM", "Q00"),
        ("a", "ICD11", "E11.22"),
        ("elsewhere", "ICD10CM", "Q00"),
        ("", "ICD10CM", "E11.22"),
        ("a", "ICD9CM", "008.5"),
    ]
    labels, unmapped = matrix(code_map, rows, ["a"], ["8", "8.5", "250"])
    assert labels.tolist() == [[1, 1, 0]]
    assert unmapped == 3


def test_rows_and_columns_follow_the_order_asked_for(code_map):
    rows = [("a", "ICD9CM", "008.5"), ("b", "ICD10CM", "E11.22")]
    labels, _ = matrix(code_map, rows, ["a", "b"], ["8.5", "250"])
    turned, _ = matrix(code_map, rows[::-1], ["b", "a"], ["250", "8.5"])
    np.testing.assert_array_equal(labels, turned[::-1, ::-1])


def onset(days):
    return dict.fromkeys(DISEASES.values(), days)


FIVE_YEARS = 1825


@pytest.mark.parametrize(
    ("onset_days", "end_days", "scan_days", "code"),
    [
        (-10, 4000, 0, 2),  # before the scan
        (0, 4000, 0, 2),  # on the day
        (1, 4000, 0, 1),
        (FIVE_YEARS, 4000, 0, 1),
        (FIVE_YEARS + 1, 4000, 0, 0),
        (FIVE_YEARS + 1, FIVE_YEARS, 0, 0),  # followed for just long enough
        (FIVE_YEARS + 1, FIVE_YEARS - 1, 0, 3),
        (FIVE_YEARS, FIVE_YEARS - 1, 0, 3),  # would have come, but nobody saw it
        (1000, 1000, 0, 1),
        (1001, 1000, 0, 3),
        (1000, 4000, 1000, 2),  # everything counts from the scan
        (1001, 4000, 1000, 1),
        (99_999, 1000 + FIVE_YEARS, 1000, 0),
        (99_999, 999 + FIVE_YEARS, 1000, 3),
    ],
)
def test_disease_label_of_known_courses(onset_days, end_days, scan_days, code):
    labels = ehr.disease_labels(onset(onset_days), end_days, scan_days)
    assert labels == dict.fromkeys(("cvd", "ihd", "htn", "dm", "ckd", "ost"), code)


def test_each_disease_column_reads_its_own_condition():
    for column, condition in DISEASES.items():
        labels = ehr.disease_labels(onset(99_999) | {condition: 5}, 4000, 0)
        assert labels == dict.fromkeys(DISEASES, 0) | {column: 1}


@pytest.fixture(scope="module")
def coded(drawn):
    return {
        d.study.study_id: (d, ehr.write_codes(SEED, d.patient, [d.study]))
        for d in drawn["internal"]
    }


def test_codes_are_dated_text_of_both_vocabularies(coded):
    table = pd.concat([t for _, t in coded.values() if len(t)])
    assert list(table.columns) == ["patient_id", "study_id", "date", "vocabulary", "code"]
    assert set(table["vocabulary"]) == {"ICD9CM", "ICD10"}
    assert table["date"].notna().all()
    assert table["code"].map(type).eq(str).all()
    new = table[table["vocabulary"] == "ICD10"]
    assert new["date"].min() >= "2015-10-01"
    both = {c for c, v in ehr.phantom_icd() if v == "ICD10"}
    old_only = {
        code for (c, v), codes in ehr.phantom_icd().items() if c not in both for code in codes
    }
    late = table[(table["vocabulary"] == "ICD9CM") & (table["date"] >= "2015-10-01")]
    assert set(late["code"]) <= old_only
    assert not table.duplicated().any()


def test_dates_are_dates_even_for_a_patient_without_codes(coded):
    empty = next(t for _, t in coded.values() if not len(t))
    some = next(t for _, t in coded.values() if len(t))
    assert pd.concat([some, empty])["date"].str.fullmatch(r"\d{4}-\d{2}-\d{2}").all()


def test_scans_encounter_is_dated_with_the_scan(coded):
    for study_id, (d, table) in coded.items():
        at_scan = table[table["study_id"] == study_id]
        assert (
            at_scan["date"] == ehr.scan_date(SEED, d.patient, d.study.days).date().isoformat()
        ).all()
        assert (table.loc[table["study_id"] == "", "patient_id"] == d.patient.patient_id).all()
        assert table["date"].is_monotonic_increasing


def test_codes_are_a_function_of_seed_and_patient(coded):
    d, table = next(iter(coded.values()))
    pd.testing.assert_frame_equal(table, ehr.write_codes(SEED, d.patient, [d.study]))
    assert not table.equals(ehr.write_codes(SEED + 1, d.patient, [d.study]))


def test_encounter_codes_have_the_declared_sensitivity_and_false_rate(coded):
    """Judged on findings whose ICD codes nothing else uses."""
    owners = {}
    for (condition, _), codes in ehr.phantom_icd().items():
        for code in codes:
            owners.setdefault(code, set()).add(condition)
    own = {
        name: {c for c, who in owners.items() if who == {name}}
        for name in FINDINGS
        if all(who == {name} for who in owners.values() if name in who)
    }
    assert len(own) > 20
    hit, false = [], []
    for study_id, (d, table) in coded.items():
        seen = set(table.loc[table["study_id"] == study_id, "code"])
        for name, codes in own.items():
            if FINDINGS[name].only_sex in ("", d.patient.sex):
                (hit if name in d.study.found else false).append(bool(seen & codes))
    for rate, expected in ((hit, ehr.SENSITIVITY), (false, ehr.FALSE_RATE)):
        sd = np.sqrt(expected * (1 - expected) / len(rate))
        assert abs(np.mean(rate) - expected) < 4 * sd


def test_every_condition_and_finding_has_codes():
    conditions = {c for c, _ in ehr.phantom_icd()}
    assert conditions == {*FINDINGS, *ehr.CONDITIONS, *ehr.COMPLAINTS}


def test_some_patients_are_lost_and_every_disease_has_all_four_labels(drawn):
    seen = {column: set() for column in DISEASES}
    for d in drawn["internal"]:
        begin, visits, end = ehr.draw_history(SEED, d.patient)
        assert (np.diff(visits) >= 0).all()
        assert visits.max(initial=0) <= end
        for column, code in ehr.disease_labels(begin, end, d.study.days).items():
            seen[column].add(code)
    assert all(codes == {0, 1, 2, 3} for codes in seen.values()), seen


def test_risk_rises_with_what_the_patient_carries(drawn):
    """Low bone density brings osteoporosis, scarred kidneys bring kidney disease, age both."""
    rows = [d.patient for d in drawn["internal"]]
    wait = [ehr.draw_history(SEED, p)[0] for p in rows]
    for condition, trait, sign in (
        ("osteoporosis", "bone", -1),
        ("chronic_kidney_disease", "renal", 1),
        ("hypertension", "age", 1),
    ):
        early = np.array([w[condition] < FIVE_YEARS for w in wait])
        value = np.array([getattr(p, trait) for p in rows])
        assert sign * (value[early].mean() - value[~early].mean()) > 0.2 * value.std()


def test_phantom_codes_reach_every_phantom_phecode_and_nothing_is_unmapped(coded):
    code_map = read_code_map(TABLES / "phantom_icd.csv")
    phecodes = read_phenotypes()["phecode"].tolist()
    reached = {q for found in code_map.values() for p in found for q in (p, *parents(p))}
    assert set(phecodes) <= reached
    assert {p for found in code_map.values() for p in found} <= set(phecodes)  # else never labelled
    table = pd.concat([t for _, t in coded.values()])
    labels, unmapped = phecode_matrix(table, list(coded), code_map, phecodes, rollup="paper")
    assert unmapped == 0
    assert (labels.sum(0) > 0).mean() > 0.9
    for child, name in enumerate(phecodes):
        for parent in parents(name):
            if parent in phecodes:
                assert (labels[:, phecodes.index(parent)] >= labels[:, child]).all()


needs_phecode = pytest.mark.skipif(not PHECODE.is_dir(), reason="needs shared/phecode")


@needs_phecode
def test_phantom_phecodes_keep_merlins_order_and_names():
    official = read_phenotypes(PHECODE / "merlin_phenotypes.csv")
    assert len(official) == official["phecode"].nunique() == 1692
    own = read_phenotypes()
    kept = official[official["phecode"].isin(own["phecode"])]
    assert kept["phecode"].tolist() == own["phecode"].tolist()
    assert kept["phenotype"].tolist() == own["phenotype"].tolist()


@needs_phecode
def test_phantom_icd_agrees_with_the_published_maps():
    maps = {}
    for vocabulary, name, column in (
        ("ICD9CM", "phecode_map_v1_2_icd9.csv", "ICD9"),
        ("ICD10", "phecode_map_v1_2_icd10_beta.csv", "ICD10"),
    ):
        table = pd.read_csv(PHECODE / name, dtype=str).dropna(subset=[column, "PheCode"])
        for code, phecode in zip(table[column], table["PheCode"], strict=True):
            key = (vocabulary, plain_icd(code))
            maps.setdefault(key, set()).add(normalise_phecode(phecode))
    own = read_code_map(TABLES / "phantom_icd.csv")
    wrong = {k: (v, maps.get(k)) for k, v in own.items() if not set(v) <= maps.get(k, set())}
    assert wrong == {}


@needs_phecode
def test_rollup_by_the_map_equals_the_published_table():
    table = pd.read_csv(PHECODE / "phewas_r_rollup_map.csv.gz", dtype=str)
    table = table.map(normalise_phecode).groupby("code")["phecode_unrolled"].agg(set)
    mine = {c: {c, *parents(c, "map")} & set(table.index) for c in table.index}
    assert mine == table.to_dict()
