"""Codes as hospitals write them: vocabularies, zeros, dates; maps as published; nothing lost unsaid."""

import gzip
import shutil

import numpy as np
import pandas as pd
import pytest

from merlin.data.cells import TableError
from merlin.data.codes import NO_CODES, doubtful_icd9, read_codes, vocabulary
from merlin.data.phecodes import map_codes, parents, phecode_labels, read_code_map


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("ICD9CM", "ICD-9-CM", "ICD9", "icd9cm", "ICD 9 CM", "ICD_9", "9", "09", "9.0", "ICD-IX"), "ICD9CM"),
        (("ICD10CM", "ICD-10-CM", "icd10cm", "ICD10-CM", "ICD-10-CM 2016", "ICD10CM_2020", "I10C"), "ICD10CM"),
        (("ICD10CM-2020AA", "http://hl7.org/fhir/sid/icd-10-cm", "2.16.840.1.113883.6.90"), "ICD10CM"),
        (("ICD10", "ICD-10", "icd 10", "10", "ICD-10-WHO", "ICD-X", "urn:oid:2.16.840.1.113883.6.3"), "ICD10"),
        (("ICD9 diagnosis codes", "ICD9DX", "http://hl7.org/fhir/sid/icd-9-cm"), "ICD9CM"),
        (("ICD-10-GM", "ICD10PCS", "ICD9Proc", "SNOMED", "ICDO3", "ICD11", "", "nan", "X", "CPT4",
          "2.16.840.1.113883.6.4"), None),
    ],
)  # fmt: skip
def test_vocabularies_go_by_their_common_names(names, found):
    assert {n: vocabulary(n) for n in names} == dict.fromkeys(names, found)


def written(tmp_path, text, name="codes.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


ROLLED = ["317", "317.1", "317.11"]
MAP = (
    "vocabulary_id,code,phecode\nICD10CM,K70.30,317.11\nICD9CM,571.2,317.11\nICD10CM,H74.8x9,385\n"
    "ICD10CM,H74.8X9,388\nICD10CM,H40.10x0,365.1\nICD9CM,008.45,008.52\nICD9CM,845,840.1\n"
    "ICD9CM,389,389\nICD9CM,038.9,038\nICD9CM,188.2,189.2\nICD9CM,401.9,401.1\n"
    "ICD10CM,R16.0,573.3\nICD10CM,E78.0,272.11\n"
)


@pytest.fixture
def code_map(tmp_path):
    return read_code_map(written(tmp_path, MAP, "map.csv"))


def positive(code_map, rows, phecodes, **options):
    """Positive phecodes by study, and what was said."""
    codes = pd.DataFrame(rows, columns=["study_id", "vocabulary", "code"])
    studies = list(dict.fromkeys(codes["study_id"]))
    made = map_codes(codes, studies, code_map, phecodes, **options)
    names = np.array(phecodes)
    return {s: names[row == 1].tolist() for s, row in zip(studies, made.labels, strict=True)}, made


def test_one_disease_under_all_names_of_its_vocabulary(tmp_path, code_map):
    codes = read_codes(
        written(
            tmp_path,
            "study_id,date,vocabulary,code,what\nS1,2016-03-01,ICD10CM,K70.30,a\nS2,2016-03-01,ICD10,K70.30,b\n"
            "S3,2013-03-01,ICD9CM,571.2,c\nS4,2016-03-01,ICD10CM,Z99.999,d\nS5,2016-03-01,ICD-10-CM,k7030,e\n",
        )
    )
    studies = ["S1", "S2", "S3", "S4", "S5", "S6"]
    made = map_codes(codes, studies, code_map, [*ROLLED, "571"])
    assert made.labels.tolist() == [[1, 1, 1, 0]] * 3 + [[0] * 4] + [[1, 1, 1, 0]] + [[0] * 4]
    assert made.unmapped.to_numpy().tolist() == [["ICD10CM", "Z99.999", 1]]
    assert (made.n_codes, made.n_unmapped, made.n_by_other) == (5, 1, 1)
    said = " ".join(made.notes)
    for part in ("1 of 5 codes have no phecode", "Z99.999 (ICD10CM, 1)", "under the other ICD-10"):
        assert part in said
    for uncoded, of_s6 in (("absent", 0), ("unknown", np.nan)):
        labels = phecode_labels(codes, studies, code_map, ROLLED, uncoded=uncoded)
        assert np.isnan(labels[3]).all()  # its one code was not found: unknown, not healthy
        np.testing.assert_array_equal(labels[5], [of_s6] * 3)
        np.testing.assert_array_equal(labels[[0, 1, 2, 4]], 1)


def test_a_map_that_knows_too_few_codes_is_refused_with_names(code_map):
    rows = [("a", "ICD10", "K70.3"), ("a", "ICD10", "K70.3"), ("b", "ICD10CM", "K70.30")]
    codes = pd.DataFrame(rows, columns=["study_id", "vocabulary", "code"])
    with pytest.raises(ValueError, match=r"fewer than 50%.* K70\.3 \(ICD10, 2\).*ICD10CM, ICD9CM"):
        phecode_labels(codes, ["a", "b"], code_map, ROLLED)
    labels = phecode_labels(codes, ["a", "b"], code_map, ROLLED, least_mapped=0.3)
    np.testing.assert_array_equal(labels, [[np.nan] * 3, [1] * 3])


def test_ids_that_differ_by_zeros_are_no_healthy_patients(code_map):
    codes = pd.DataFrame({"study_id": ["7"], "vocabulary": ["ICD9CM"], "code": ["571.2"]})
    with pytest.raises(ValueError, match="zeros at the front"):
        phecode_labels(codes, ["007", "008"], code_map, ROLLED)


def test_codes_that_differ_in_case_alone_stay_apart(code_map):
    names = ["385", "388", "365", "365.1"]
    rows = [(c, "ICD10CM", c) for c in ("H74.8x9", "H74.8X9", "h74.8x9", "H40.10X0", "h4010x0")]
    found, made = positive(code_map, rows, names)
    assert list(found.values()) == [["385"], ["388"], [], ["365", "365.1"], ["365", "365.1"]]
    assert made.unmapped["code"].tolist() == ["h74.8x9"]  # either of the two


def test_zeros_that_a_spreadsheet_ate_are_refused_and_never_another_disease(tmp_path, code_map):
    rows = [("S1", "8.45"), ("S2", "38.9"), ("S3", "1882"), ("S4", "4019.0")]
    text = "study_id,vocabulary,code\n" + "".join(f"{s},ICD9CM,{c}\n" for s, c in rows)
    with pytest.raises(TableError) as caught:
        read_codes(written(tmp_path, text))
    assert "rows 2, 3, 5, column code: 8.45, 38.9, 4019.0: not three digits" in str(caught.value)
    assert "row 4, column code: 1882: no dot" in str(caught.value)
    names = ["8", "8.5", "8.52", "840", "840.1", "389", "38", "189", "189.2", "401", "401.1"]
    found, made = positive(code_map, [(s, "ICD9CM", c) for s, c in rows], names)
    assert list(found.values()) == [[], [], [], []]
    assert made.n_unmapped == 4


@pytest.mark.parametrize(
    ("codes", "doubts"),
    [
        (["008.45", "038.9", "845", "401.9", "V10.1", "E885.9", "571.2 ", "496"], []),
        (["00845", "0389", "4019", "25000", "V1082", "845"], []),  # without dots, zeros kept
        (["4019", "25000", "389"], []),  # nothing speaks against it
        (["4019", "389", "84", "25000"], [0, 1, 2]),  # 84 was 084 or 0084
        (["401.9", "25000", "1882"], [2]),
        (["401.9", "0389", "00845"], []),  # a zero at the front is no lost one
        (["008.45", "4019", "389"], []),  # nor are others where zeros are kept
        (["8.45", "0389", "4019"], [0, 2]),
        (["4019.0", "389.0", "25000.0"], [0, 1, 2]),
        ([str(n) for n in range(401, 511)], list(range(110))),  # of 110 codes none begins with 0
    ],
)
def test_which_icd9_codes_cannot_be_read_for_certain(codes, doubts):
    why = doubtful_icd9(pd.Series(codes))
    assert np.flatnonzero(why != "").tolist() == doubts


def test_icd9_without_dots_is_read_with_three_digits(code_map):
    rows = [
        ("a", "ICD9", "00845"),
        ("b", "9", "0389"),
        ("c", "ICD9CM", "4019"),
        ("d", "ICD9CM", "845"),
    ]
    found, _ = positive(code_map, rows, ["8.52", "38", "401.1", "840.1", "389"])
    assert list(found.values()) == [["8.52"], ["38"], ["401.1"], ["840.1"]]


def test_other_vocabularies_are_left_out_and_said_and_alone_refused(tmp_path):
    text = "study_id,vocabulary_id,concept_code\na,SNOMED,123\na,SNOMED,124\nb,ICD-10-GM,I10.90\nb,ICD10CM,I10\n"
    codes = read_codes(written(tmp_path, text))
    assert codes["code"].tolist() == ["123", "I10"]  # one of a's, who else would count as healthy
    assert (
        "3 rows of vocabularies other than ICD left out: SNOMED (2), ICD-10-GM (1)."
        in codes.attrs["notes"]
    )
    with pytest.raises(TableError, match=r"no code is left.*SNOMED \(1\)"):
        read_codes(written(tmp_path, "study_id,vocabulary,code\na,SNOMED,123\n"))


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("study_id,vocabulary,code", "a,ICD10CM,I10"),
        ("Study ID;Code System;ICD code", "a;ICD-10-CM;I10"),
        ("study_id\ticd10cm", "a\tI10"),
        ("code,study_id,icd_version", "I10,a,ICD10CM"),
    ],
)
def test_columns_by_their_common_names(tmp_path, header, row):
    codes = read_codes(written(tmp_path, f"{header}\n{row}\n"))
    assert codes[["study_id", "vocabulary", "code"]].to_numpy().tolist() == [
        ["a", "ICD10CM", "I10"]
    ]


def test_hospital_and_dataset_read_one_table_alike(tmp_path):
    text = "patient_id;accession;date;vocabulary;code\n1.0;7;13.04.2015;ICD-9;401.9\n2;;01.02.2016;icd10;I10\n"
    codes = read_codes(written(tmp_path, text), owner="patient_id")
    assert codes["date"].tolist() == ["2015-04-13", "2016-02-01"]
    assert codes["patient_id"].tolist() == ["1", "2"]
    assert codes["accession"].tolist() == ["7", ""]
    again = codes.drop(columns="accession").assign(study_id=["S1", ""])  # as hospital writes it
    again.to_csv(tmp_path / "again.csv", index=False)
    pd.testing.assert_frame_equal(read_codes(tmp_path / "again.csv"), again, check_like=True)
    NO_CODES.to_csv(tmp_path / "none.csv", index=False)
    assert len(read_codes(tmp_path / "none.csv")) == 0


def test_codes_of_mixed_or_ambiguous_dates_are_refused_with_rows(tmp_path):
    days = ["04/05/2015", "13/04/2015", "25/12/2015", "01.02.2016", "2016-03-01", "28/02/2016"]
    text = "patient_id,date,vocabulary,code\n" + "".join(f"T4,{d},ICD10CM,I10\n" for d in days)
    with pytest.raises(TableError, match="rows 5, 6: not one format of dates"):
        read_codes(written(tmp_path, text), owner="patient_id")
    path = written(tmp_path, "patient_id,date,vocabulary,code\nT4,04/05/2015,ICD10CM,I10\n")
    with pytest.raises(TableError, match=r"may be month/day/year|may be day/month/year"):
        read_codes(path, owner="patient_id")
    assert read_codes(path, owner="patient_id", dates="dmy")["date"].tolist() == ["2015-05-04"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ICD9,ICD9 String,PheCode,Phenotype,Rollup\n008.45,C. diff,008.52,x,1.0\n", ("ICD9CM", "00845")),
        ("icd9;phecode\n008.45;8.52\n", ("ICD9CM", "00845")),
        ("ICD10,ICD10 String,PheCode\nA04.7,C. diff,008.52\nA05,x,\n", ("ICD10", "A047")),
        ("icd10cm,icd10cm_str,phecode\nA04.7,C. diff,8.52\n", ("ICD10CM", "A047")),
        ("phecode,ICD,flag,sex,phecode_unrolled\n8.52,A04.7,10,Both,8\n8.52,A04.7,10,Both,8.5\n", ("ICD10CM", "A047")),
        ("vocabulary_id,code,phecode\nICD-10-CM,A04.7,008.52\nSNOMED,1,2\n", ("ICD10CM", "A047")),
    ],
)  # fmt: skip
def test_maps_are_read_as_they_are_published(tmp_path, text, key):
    path = written(tmp_path, text, "map.csv")
    assert read_code_map(path) == {key: ("8.52",)}
    with path.open("rb") as raw, gzip.open(tmp_path / "map.csv.gz", "wb") as packed:
        shutil.copyfileobj(raw, packed)
    assert read_code_map(tmp_path / "map.csv.gz") == {key: ("8.52",)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vocabulary,code,phecode\nICD9CM,8.45,8.52\nICD9CM,401.9,401.1\n", "row 2, column code: 8.45"),
        ("vocabulary,code,phecode\nICD10CM,I10,CV_401\n", "row 2, column phecode: CV_401.*PhecodeX"),
        ("vocabulary,code,phecode\nSNOMED,1,401\n", "no code of ICD9CM, ICD10CM or ICD10; found SNOMED"),
        ("ICD9,ICD10,phecode\n401.9,I10,401.1\n", "columns ICD9, ICD10"),
    ],
)  # fmt: skip
def test_what_is_no_map_is_refused(tmp_path, text, said):
    with pytest.raises(TableError, match=said):
        read_code_map(written(tmp_path, text, "map.csv"))


@pytest.mark.parametrize(
    ("phecode", "by_map"),
    [
        ("573.3", ()),  # hepatomegaly is no "other disorder of liver"
        ("242.31", ("242.3",)),  # stops below 242
        ("250.22", ("250.2", "250")),
        ("250.41", ("250.4",)),
        ("270.33", ()),
    ],
)
def test_rollup_follows_the_maps_exceptions_and_the_papers_rule_by_name(code_map, phecode, by_map):
    assert parents(phecode, "map") == by_map
    assert parents(phecode, "paper")[-1] == phecode.split(".")[0]
    with pytest.raises(ValueError, match="Expected map or paper"):
        parents(phecode, "none")
    row = [("a", "ICD10CM", "R16.0")]
    assert positive(code_map, row, ["573", "573.3"])[0] == {"a": ["573.3"]}
    assert positive(code_map, row, ["573", "573.3"], rollup="paper")[0] == {"a": ["573", "573.3"]}


def test_a_workbook_that_took_codes_for_numbers_is_refused(tmp_path):
    table = pd.DataFrame({"study_id": ["a", "b"], "vocabulary": "ICD9CM", "code": [4019, 389]})
    table.to_excel(tmp_path / "codes.xlsx", index=False)
    with pytest.raises(TableError, match=r"rows 2, 3, column code: 4019, 389: no dot, and zeros"):
        read_codes(tmp_path / "codes.xlsx")
    table.assign(code=["4019", "389"]).to_excel(tmp_path / "codes.xlsx", index=False)
    assert read_codes(tmp_path / "codes.xlsx")["code"].tolist() == ["4019", "389"]
    table.assign(code=[401.9, 496]).to_excel(tmp_path / "codes.xlsx", index=False)
    assert read_codes(tmp_path / "codes.xlsx")["code"].tolist() == ["401.9", "496"]
    table.assign(code=[8.45, 496]).to_parquet(tmp_path / "codes.parquet", index=False)
    with pytest.raises(TableError, match=r"row 2, column code: 8\.45: not three digits"):
        read_codes(tmp_path / "codes.parquet")


def test_studies_with_other_vocabularies_alone_are_unknown_also_when_written_and_read(
    tmp_path, code_map
):
    text = "study_id,vocabulary,code\n" + "".join(
        f"{s},{v},{c}\n"
        for s, v, c in [
            ("a", "SNOMED", "123"), ("a", "SNOMED", "124"), ("b", "ICD-10-GM", "K70.3"),
            ("c", "ICD10CM", "K70.30"), ("c", "SNOMED", "1"), ("d", "LOINC", "5"),
        ]
    )  # fmt: skip
    codes = read_codes(written(tmp_path, text))
    assert len(codes) == 4
    assert any(n.startswith("3 have no other codes") for n in codes.attrs["notes"])
    codes.to_csv(tmp_path / "again.csv", index=False)
    for table in (codes, read_codes(tmp_path / "again.csv")):
        labels = phecode_labels(table, list("abcde"), code_map, ROLLED)
        assert np.isnan(labels[[0, 1, 3]]).all()
        np.testing.assert_array_equal(labels[[2, 4]], [[1] * 3, [0] * 3])


def test_few_codes_without_dots_or_zeros_are_read_and_said(tmp_path):
    head = "study_id,vocabulary,code\n"
    codes = read_codes(written(tmp_path, head + "a,ICD9CM,4019\nb,ICD9CM,389\n"))
    assert any("none begins with 0" in n for n in codes.attrs["notes"])
    codes = read_codes(written(tmp_path, head + "a,ICD9CM,4019\nb,ICD9CM,0389\n"))
    assert codes.attrs["notes"] == ()
