"""De-identification: nothing of a header leaves, reports that name their patient stay behind."""

import contextlib
import gzip
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from ct_files import change, ct_slice
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from merlin import cli
from merlin.commands import cohorts
from merlin.data.manifest import load_manifest
from merlin.readers import headers, hospital, leaks, names
from merlin.readers.persons import Sought

PEOPLE = (
    ("MRN0001234", "Doe^Jane", "19500407", "ACC77001"),
    ("MRN0001234", "Doe^Jane", "19500407", "ACC77002"),
    ("MRN0005678", "Okonkwo^Chidi", "19200101", "ACC77003"),
    ("MRN0009999", "Rossi^Maria", "19800229", "ACC77004"),
)
SECRETS = sorted(
    {x for row in PEOPLE for x in (row[0], row[3], row[2])} | {"Okonkwo", "Rossi", "Doe"}
)


def write_study(folder, person, day, n=24, **values):
    """One axial CT series, slices of a small body."""
    mrn, name, born, accession = person
    folder.mkdir(parents=True, exist_ok=True)
    study, series = generate_uid(), generate_uid()
    rng = np.random.default_rng(int(born))
    for k in range(n):
        ds = ct_slice(
            k, rng, generate_uid(), StudyInstanceUID=study, SeriesInstanceUID=series, PatientID=mrn,
            PatientName=name, PatientBirthDate=born, PatientSex="F", AccessionNumber=accession,
            StudyDate=day, Manufacturer="Siemens", **values,
        )  # fmt: skip
        ds.save_as(folder / f"{accession}_{k}.dcm", enforce_file_format=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Four studies of three patients, their reports and codes."""
    folder = tmp_path_factory.mktemp("hospital")
    for i, person in enumerate(PEOPLE):
        # The last two studies lie in one folder.
        write_study(
            folder / "tree" / ("mixed" if i > 1 else f"case {i}"), person, f"2015010{i + 1}"
        )
    reports = pd.DataFrame(
        [
            ("ACC77001", "Liver: Normal.", "1. Normal."),
            (
                "ACC77002",
                "Compared with 03/02/2014. Call Dr. Smith at 555-123-4567.",
                "1. Ascites.",
            ),
            ("ACC77003", "Mr. OKONKWO has ascites.", ""),
            ("ACC77004", "Spleen: Normal.", "Read for MRN0009999, born 2/29/1980."),
        ],
        columns=["accession", "findings", "impression"],
    )
    codes = pd.DataFrame(
        [
            ("MRN0001234", "2015-01-01", "ICD10", "K63.1", "ACC77001"),
            ("MRN0001234", "2015-03-02", "ICD10", "I10", ""),
            ("MRN0404040", "2015-03-02", "ICD10", "I10", ""),
        ],
        columns=["patient_id", "date", "vocabulary", "code", "accession"],
    )
    reports.to_csv(folder / "reports.csv", index=False)
    codes.to_csv(folder / "codes.csv", index=False)
    return folder


@pytest.fixture
def hospital_data(written, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "data"))


def call(folder, *more, out="cohort"):
    return cli.main(
        ["hospital", str(folder / "tree"), "--reports", str(folder / "reports.csv"),
         "--codes", str(folder / "codes.csv"), "--key", str(folder / "key.txt"),
         "--out", str(folder / out), *more]
    )  # fmt: skip


@dataclass
class Made:
    """What a call on the data as they are left, and printed."""

    code: int
    data: Path
    said: str

    @property
    def out(self):
        return self.data / "cohort"


def made(written, folder, *more):
    data = Path(shutil.copytree(written, folder / "data"))
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = call(data, *more)
    return Made(code, data, said.getvalue())


@pytest.fixture(scope="module")
def plain(written, tmp_path_factory):
    return made(written, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def redacted(written, tmp_path_factory):
    return made(written, tmp_path_factory.mktemp("redacted"), "--redact")


def leaked(folder):
    """Identifiers in any file's name or content below a folder, uncompressed."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
            found += [(path.name, s) for s in SECRETS if s.encode() in content or s in path.name]
    return found


def test_nothing_of_a_header_leaves_and_named_reports_stay_behind(plain):
    assert plain.code == 1  # two studies are left out
    out = plain.out
    studies = load_manifest(out / "manifest.csv")  # files are there, the schema holds
    assert len(studies) == 2
    assert studies["patient_id"].nunique() == 1
    assert leaked(out) == []
    said = pd.read_csv(out / "quarantine.csv")
    assert len(said) == 2
    assert said["reason"].str.contains("names the patient").all()
    hits = pd.read_csv(out / "text_hits.csv")
    assert set(hits["kind"]) == {"own identifier", "date", "telephone", "titled name"} | (
        set(hits["kind"]) & {"long number"}
    )
    assert not any(s in plain.said for s in SECRETS)


def test_an_interrupted_call_resumes_without_reading_again(hospital_data, monkeypatch, capsys):
    assert call(hospital_data, "--redact", out="whole") == 0
    read, real = [], hospital._read_study

    def stop_at_the_third(files, load):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(len(files))
        return real(files, load)

    monkeypatch.setattr(hospital, "_read_study", stop_at_the_third)
    assert call(hospital_data, "--redact") == 130
    monkeypatch.setattr(hospital, "_read_study", lambda f, load: read.append(0) or real(f, load))
    assert call(hospital_data, "--redact", out="cohort") == 0
    assert len(read) == 4  # each study once
    for name in ("manifest.csv", "codes.csv", "quarantine.csv"):
        assert (hospital_data / "cohort" / name).read_text() == (
            hospital_data / "whole" / name
        ).read_text()
    assert not (hospital_data / "cohort" / "UNFINISHED").exists()
    capsys.readouterr()
    assert call(hospital_data, "--redact") == 2  # a finished cohort is not written over
    assert "is not empty" in capsys.readouterr().err


def test_a_full_disk_ends_the_call_and_another_call_does_not_go_on(
    hospital_data, monkeypatch, capsys
):
    def full(path, volume):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cohorts, "_save_volume", full)
        assert call(hospital_data) == 2
    assert "No space left" in capsys.readouterr().err
    out = hospital_data / "cohort"
    assert not (out / "manifest.csv").exists()  # no table with studies lost to the disk
    assert call(hospital_data, "--redact") == 0  # nothing was taken yet: any call may begin
    (out / "UNFINISHED").write_text("of another call")
    (out / "manifest.csv").unlink()
    assert call(hospital_data, "--redact") == 2


def test_redaction_keeps_the_study_and_loses_the_words(redacted):
    assert redacted.code == 0
    table = load_manifest(redacted.out / "manifest.csv")
    text = " ".join(table[["findings", "impression"]].fillna("").sum())
    assert text.count("<DELETED>") >= 5
    assert "ascites" in text
    assert leaked(redacted.out) == []


def test_ids_and_shifted_dates_are_the_same_on_every_call_and_hang_on_the_key(plain):
    data = plain.data
    call(data, out="b")
    a, b = (pd.read_csv(data / n / "manifest.csv", dtype=str) for n in ("cohort", "b"))
    pd.testing.assert_frame_equal(a, b)
    assert (data / "key.txt").stat().st_mode & 0o077 == 0
    dates = pd.to_datetime(a["date"]).sort_values()
    assert dates.diff().iloc[1].days == 1  # 1 and 2 January, wherever they were moved
    assert "2015-01-01" not in set(a["date"])
    other = data / "another key.txt"
    other.write_text("another key that is long enough to be one")
    call(data, "--key", str(other), out="c")
    c = pd.read_csv(data / "c" / "manifest.csv", dtype=str)
    assert not set(a["patient_id"]) & set(c["patient_id"])


def test_codes_follow_their_patients_and_strangers_codes_do_not_come(plain):
    codes, studies = (pd.read_csv(plain.out / f"{n}.csv", dtype=str) for n in ("codes", "manifest"))
    assert len(codes) == 2
    assert set(codes["patient_id"]) <= set(studies["patient_id"])
    assert codes["study_id"].dropna().isin(studies["study_id"]).all()
    apart = pd.to_datetime(codes["date"]).diff().iloc[1].days
    assert apart == 60  # 1 January to 2 March


def test_voxels_and_geometry_survive(plain):
    studies = load_manifest(plain.out / "manifest.csv")
    image = nib.load(studies["volume"][0])
    assert sorted(image.shape) == [24, 32, 32]
    assert sorted(nib.affines.voxel_sizes(image.affine).round(3)) == [5.0, 10.0, 10.0]
    assert image.header["descrip"].tobytes().strip(b"\0") == b""


def test_reports_of_no_or_of_a_shared_accession_go_to_nobody(hospital_data):
    tree = hospital_data / "tree"
    write_study(tree / "none", ("MRN0007777", "Ng^An", "19700315", ""), "20150109")
    write_study(tree / "twin", ("MRN0008888", "Li^Bo", "19700316", "ACC77001"), "20150110")
    reports = pd.read_csv(hospital_data / "reports.csv", dtype=str, keep_default_na=False)
    more = pd.DataFrame([("", "A report of nobody.", "")], columns=reports.columns)
    pd.concat([reports, more]).to_csv(hospital_data / "reports.csv", index=False)
    call(hospital_data, "--redact")
    out = hospital_data / "cohort"
    studies = load_manifest(out / "manifest.csv")
    assert "nobody" not in " ".join(studies["findings"].fillna(""))
    said = pd.read_csv(out / "quarantine.csv")["reason"]
    assert said.str.contains("accession number is that of another study").sum() == 2
    codes = pd.read_csv(out / "codes.csv", dtype=str)
    assert codes["study_id"].isna().all()  # their study was left out


def kinds(text, words):
    """Kinds of what may identify somebody in a text."""
    return {span.kind for span in names.all_spans(text, Sought(words))}


@pytest.mark.parametrize(
    "said",
    ["born 15/03/1950", "born 3-15-50", "DOB March 15, 1950", "15 Mar 1950", "Mr. Ng", "NG was seen",
     "mrn 000123"],
)  # fmt: skip
def test_a_patient_is_found_however_they_are_written(said):
    header = pydicom.Dataset()
    header.PatientName, header.PatientBirthDate = "Ng^Alexander", "19500315"
    header.PatientID, header.AccessionNumber = "000123", ""
    words = headers.words_said(headers.said_in(header), own=True)
    is_shouted = said.startswith("NG")  # two letters are a name with its own capitals only
    assert ("own identifier" in kinds(said, words)) != is_shouted
    assert kinds("Normal spleen, 12 mm.", words) == set()


def test_ids_are_one_patients_however_they_are_spelled():
    assert hospital.one_spelling(" mrn123 ") == hospital.one_spelling("MRN123")
    assert 0 not in {hospital.shift_days(b"k" * 32, str(i)) for i in range(3000)}


def test_a_name_with_lost_signs_withholds_its_study(hospital_data):
    lost = ("M?ller^Jane", "M\ufffdller^Jane", "???")
    for case, name in zip(("case 0", "case 1"), lost, strict=False):
        every_header(
            hospital_data / "tree" / case, SpecificCharacterSet="ISO_IR 192", PatientName=name
        )
    call(hospital_data, "--redact")
    left_out = pd.read_csv(hospital_data / "cohort" / "quarantine.csv")["reason"]
    assert left_out.str.startswith("its name cannot be read").sum() == 2
    assert all(headers.is_unreadable({("PatientName", n)}) for n in lost)
    assert not any(
        headers.is_unreadable({("PatientName", n)}) for n in ("Müller^Jo_Ann", "?", "Doe^?")
    )


def test_ids_and_dates_of_old_headers_are_read(hospital_data):
    assert hospital.one_spelling("1000677^^^HOSP") == "1000677"
    assert hospital.one_spelling("DOE^JANE") == "DOE^JANE"
    header = {"PatientBirthDate": "1954.03.02", "StudyDate": "2014.03.03"}
    assert headers._age(header) == 60
    words = headers.words_said({("PatientBirthDate", "1954.03.02")}, own=True)
    assert "own identifier" in kinds("born 2/3/54", words)


def test_old_ages_are_capped(redacted):
    ages = load_manifest(redacted.out / "manifest.csv")["age"]
    assert ages.max() == headers.MAX_AGE


def test_the_key_may_not_lie_in_the_output_and_columns_are_asked_for(hospital_data, capsys):
    inside = str(hospital_data / "cohort" / "key.txt")
    assert call(hospital_data, "--key", inside) == 2
    assert "inside the output" in capsys.readouterr().err
    pd.DataFrame({"id": ["x"]}).to_csv(hospital_data / "reports.csv", index=False)
    assert call(hospital_data) == 2
    assert "reports.csv: no column accession, findings" in capsys.readouterr().err


def every_header(folder, **values):
    """Change elements of all files of a folder."""
    for path in sorted(folder.glob("*.dcm")):
        change(path, **values)


def test_of_the_makers_field_a_known_maker_alone_leaves(hospital_data):
    tree = hospital_data / "tree"
    every_header(tree / "case 0", Manufacturer="for Doe, Jane")
    every_header(tree / "case 1", Manufacturer="GE MEDICAL SYSTEMS, asset of Doe")
    call(hospital_data, "--redact")
    assert leaked(hospital_data / "cohort") == []
    made = load_manifest(hospital_data / "cohort" / "manifest.csv")["manufacturer"].fillna("")
    assert sorted(made) == ["", "GE", "Siemens", "Siemens"]


def test_the_last_look_refuses_to_write_a_name(hospital_data, monkeypatch, capsys):
    every_header(hospital_data / "tree" / "case 0", Manufacturer="for Doe, Jane")
    real = headers.about
    monkeypatch.setattr(
        headers,
        "about",
        lambda header, days: real(header, days) | {"manufacturer": header.Manufacturer},
    )
    assert call(hospital_data) != 0
    assert "manifest, column manufacturer, study_id S" in capsys.readouterr().err
    assert not (hospital_data / "cohort" / "manifest.csv").exists()


def test_reports_and_studies_that_do_not_meet_are_counted(hospital_data, capsys):
    path = hospital_data / "reports.csv"
    path.write_text(path.read_text().replace("ACC77001", "ACC-77001"))
    call(hospital_data)
    assert "1 studies have no report, 1 reports no study" in capsys.readouterr().out


def test_a_number_of_another_study_does_not_leave_in_a_report(hospital_data, capsys):
    path = hospital_data / "reports.csv"
    text = path.read_text().replace("Liver: Normal.", "Compared with acc77003; see MRN0404040.")
    path.write_text(text)
    assert call(hospital_data) == 1
    out = hospital_data / "cohort"
    assert leaked(out) == []
    hits = pd.read_csv(out / "text_hits.csv").query("kind == 'number of another study'")
    assert hits[["n", "taken"]].to_numpy().tolist() == [[2, "study withheld"]]
    assert call(hospital_data, "--redact", out="redacted") == 0
    said = load_manifest(hospital_data / "redacted" / "manifest.csv")["findings"]
    assert "Compared with <DELETED>; see <DELETED>." in set(said)
    assert not any(w in capsys.readouterr().out for w in ("acc77003", "MRN0404040"))


@pytest.mark.parametrize("identifier", ["ABCD", "1234", "ACC-77001"])
def test_the_last_look_refuses_ids_in_cells_whatever_they_look_like(identifier):
    manifest = pd.DataFrame({"study_id": ["S1"], "findings": [""], "manufacturer": [identifier]})
    none = pd.DataFrame()
    made = hospital.Cohort(manifest, none, none, none, 0, 0)
    with pytest.raises(hospital.Refused, match="column manufacturer: holds a record or accession"):
        leaks.refuse_leaks(made.tables, leaks.telling({identifier}), {identifier}, {})


def test_identifiers_are_found_with_hyphens_and_blanks_and_words_are_none():
    known = leaks.telling({"AC-12345", "943 476 5919", "12", "1234", "12345", "A123", "NONE"})
    assert known == {"AC-12345", "943 476 5919", "12345", "A123"}
    found = leaks.identifiers_in("Accession:ac-12345/NHS 943 476 5919, 12345; none.", known)
    assert found == ["943 476 5919", "ac-12345", "12345"]
    assert leaks.identifiers_in("Etiology unknown, 12 mm. Gallstones: none.", known) == []


@pytest.mark.parametrize("cell", ["Doe Jane", "MRN0001234", "see letter"])
def test_a_code_that_is_none_does_not_leave(hospital_data, cell):
    path = hospital_data / "codes.csv"
    path.write_text(path.read_text().replace("I10", cell))
    call(hospital_data)
    made = pd.read_csv(hospital_data / "cohort" / "codes.csv")
    assert made[["vocabulary", "code"]].to_numpy().tolist() == [["ICD10", "K63.1"], ["other"] * 2]


# What says that pixels may show more than a body, and whether a hospital's study stays behind for it.
SHOWING = {
    "burned-in text": ({"BurnedInAnnotation": "YES"}, "24 images with burned-in text"),
    "in one image": ({"last": {"BurnedInAnnotation": "YES "}}, "1 images with burned-in text"),
    "workstation": ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"], "BurnedInAnnotation": "NO"},
                    "24 images made on a workstation (SECONDARY)"),
    "scanned film": ({"ConversionType": "DF"}, "24 secondary captures"),
    "screen": ({"SOPClassUID": SecondaryCaptureImageStorage}, "24 secondary captures"),
    "a face": ({"RecognizableVisualFeatures": "YES"}, "24 images with recognizable features"),
    "overlay": ({"OverlayBitPosition": 12}, "24 images with an overlay in their pixels"),
    "scanner's own": ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, ""),
    "says no": ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "BurnedInAnnotation": "NO"}, ""),
    "silent": ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, ""),
}  # fmt: skip


ALL_SHOWING = (
    "24 images made on a workstation (SECONDARY), 24 images with an overlay in their pixels, 25 images with "
    "burned-in text, 24 images with recognizable features, 48 secondary captures left behind"
)


def test_series_whose_pixels_may_show_who_it_is_stay_behind(tmp_path, capsys):
    """A study for each; its report is the case's name."""
    for i, (header, _) in enumerate(SHOWING.values()):
        folder, header = tmp_path / "tree" / f"{i}", dict(header)
        last, place = header.pop("last", {}), header.pop("OverlayBitPosition", None)
        write_study(folder, (f"MRN{i}", "Doe^Jane", "19500407", f"ACC7700{i}"), "20150101")
        for path in sorted(folder.iterdir()):
            ds = pydicom.dcmread(path)
            for keyword, value in (
                header | (last if path.name.endswith("_23.dcm") else {})
            ).items():
                setattr(ds, keyword, value)
            if place:
                ds.add_new(0x60000102, "US", place)
            ds.save_as(path)
    reports = [(f"ACC7700{i}", f"Case: {case}.") for i, case in enumerate(SHOWING)]
    table = pd.DataFrame(reports, columns=["accession", "findings"])
    table.to_csv(tmp_path / "reports.csv", index=False)
    pd.DataFrame(columns=hospital.CODE_COLUMNS).to_csv(tmp_path / "codes.csv", index=False)
    assert call(tmp_path) == 1
    left = pd.read_csv(tmp_path / "cohort" / "quarantine.csv")
    kept = load_manifest(tmp_path / "cohort" / "manifest.csv")
    clean = [f"Case: {case}." for case, (_, reason) in SHOWING.items() if not reason]
    assert sorted(kept["findings"]) == sorted(clean)
    assert len(list((tmp_path / "cohort" / "volumes").iterdir())) == len(clean)
    reasons = sorted(f"{reason} left behind" for _, reason in SHOWING.values() if reason)
    assert sorted(left["reason"].str.extract("^(.*? left behind)")[0]) == reasons
    assert left["study_id"].str.fullmatch(r"S[0-9a-f]{12}").all()
    assert ALL_SHOWING in capsys.readouterr().out


def test_a_capture_beside_a_ct_stays_behind_alone(hospital_data, capsys):
    """Most scanners store their dose report so."""
    folder = hospital_data / "tree" / "case 0"
    ds = pydicom.dcmread(folder / "ACC77001_0.dcm")
    ds.SeriesInstanceUID, ds.SOPInstanceUID = generate_uid(), generate_uid()
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.save_as(folder / "dose.dcm")
    assert call(hospital_data, "--redact") == 0
    assert "1 secondary captures left behind with their series" in capsys.readouterr().out
    image = nib.load(load_manifest(hospital_data / "cohort" / "manifest.csv")["volume"][0])
    assert sorted(image.shape) == [24, 32, 32]


def test_a_refusal_quotes_no_header_and_no_name_of_a_file(hospital_data):
    folder = hospital_data / "tree" / "case 0"
    every_header(folder, Modality="QUILLFEATHER")
    for number, path in enumerate(sorted((hospital_data / "tree" / "case 1").iterdir())):
        path.rename(path.with_name(f"Quillfeather Jo {number}.dcm"))
    (hospital_data / "tree" / "case 1" / "Quillfeather Jo 24.dcm").write_bytes(b"")
    every_header(hospital_data / "tree" / "mixed", RescaleType="QUILLFEATHER")
    assert call(hospital_data, "--redact") in (1, 2)
    said = pd.read_csv(hospital_data / "cohort" / "quarantine.csv")["reason"]
    assert len(said) == 5  # four studies and a count of files that are no DICOM
    assert not said.str.contains("quillfeather", case=False).any()


# Accession number, what the headers say besides PEOPLE's, report, what must be left of it.
SPELT = (
    ("ACC10001", {"PatientName": "Müller-Lüdenscheidt^Änne"},
     "Mrs. Lüdenscheidt was seen. Findings told to Frau Mueller-Luedenscheidt.",
     "<DELETED> was seen. Findings told to <DELETED>."),
    ("ACC10002", {"PatientName": "O'Testigan^Mary"}, "Ms. O’Testigan is known to us.",
     "<DELETED> is known to us."),
    ("ACC10003", {"PatientName": "Testøy^José"}, "Prior CT of José from elsewhere.",
     "Prior CT of <DELETED> from elsewhere."),
    ("ACC10004", {"PatientName": "Testa^Berta"},
     "Compared with 03-MAR-2014, 2014/03/03 and March 3rd, 2014. Read by Dr. McTesty; DR. TESTER and "
     "Dr. Müstermann. SSN 123-45-6789. Electronically signed: John Q. Testperson, MD",
     "Compared with <DELETED> and <DELETED>. Read by <DELETED>; <DELETED> and <DELETED>. <DELETED>. "
     "Electronically signed: <DELETED>"),
    ("ACC10005", {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}, "患者山田太郎は経過良好。",
     "患者<DELETED>は経過良好。"),
    ("ACC10006", {"OtherPatientNames": "Zephyrine^Octavia", "OtherPatientIDs": "OLD7788",
                  "ReferringPhysicianName": "Vandermeer^Ilse"},
     "Compared with Zephyrine (then OLD7788). Asked for by Vandermeer.",
     "Compared with <DELETED> (then <DELETED>). Asked for by <DELETED>."),
    ("ACC10007", {"last file": {"PatientName": "Quillfeather^Jo"}}, "Ms Quillfeather has ascites.",
     "<DELETED> has ascites."),
    ("ACC10008", {"item": {"RequestingPhysician": "Wimplethorn^Ada"}}, "As Wimplethorn asked.",
     "As <DELETED> asked."),
    ("ACC10009", {"AdditionalPatientHistory": "Patient of Dr. Thwackerby, tel. 030 7766554.",
                  "ServiceEpisodeID": "EP55012", "PatientComments": "was case 88991122"},
     "Thwackerby asked (EP-55012, formerly 88991122); told on 0307766554.",
     "<DELETED> asked (<DELETED>, formerly <DELETED>); told on <DELETED>."),
    ("ACC10010", {"private": b"Snodgrass^Wilhelmina", "StudyDescription": "Abdomen^Routine"},
     "Abdomen as Snodgrass wished.", "Abdomen as <DELETED> wished."),
)  # fmt: skip


@pytest.fixture(scope="module")
def spelt(tmp_path_factory):
    """Studies whose headers name persons in many places, and their reports."""
    data = tmp_path_factory.mktemp("spelt")
    for i, (accession, said, _, _) in enumerate(SPELT):
        folder, header = data / "tree" / accession, dict(said)
        last, item, private = (header.pop(k, None) for k in ("last file", "item", "private"))
        header = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Nobody^Known"} | header
        person = (f"TST-{i:04}", header.pop("PatientName"), "19510203", accession)
        if item:
            nested = pydicom.Dataset()
            nested.RequestingPhysician = item["RequestingPhysician"]
            header["RequestAttributesSequence"] = [nested]
        write_study(folder, person, "20150101", **header)
        files = sorted(folder.glob("*.dcm"))
        change(files[-1], **last or {})
        for path in files if private else ():
            ds = pydicom.dcmread(path)
            ds.private_block(0x0099, "ACME", create=True).add_new(0x02, "UN", private)
            ds.save_as(path)
    rows = [(a, text, "") for a, _, text, _ in SPELT]
    table = pd.DataFrame(rows, columns=["accession", "findings", "impression"])
    table.to_csv(data / "reports.csv", index=False)
    pd.DataFrame(columns=hospital.CODE_COLUMNS).to_csv(data / "codes.csv", index=False)
    return data


def test_persons_of_every_header_are_replaced_whole_however_they_are_spelt(spelt):
    assert call(spelt, "--redact", out="redacted") == 0
    said = load_manifest(spelt / "redacted" / "manifest.csv")["findings"]
    assert sorted(said) == sorted(left for *_, left in SPELT)


def test_persons_of_every_header_withhold_their_study(spelt):
    assert call(spelt) == 1
    said = load_manifest(spelt / "cohort" / "manifest.csv")["findings"]
    kept = [text for accession, _, text, _ in SPELT if accession == "ACC10004"]  # names no patient
    assert list(said) == kept
    hits = pd.read_csv(spelt / "cohort" / "text_hits.csv").query("taken == 'kept'")
    counts = hits.groupby("kind")["n"].sum().to_dict()
    assert counts == {"date": 3, "long number": 1, "signature": 1, "titled name": 3}


def test_persons_of_the_tables_are_looked_for_in_all_reports(hospital_data, capsys):
    path = hospital_data / "reports.csv"
    reports = pd.read_csv(path, dtype=str, keep_default_na=False)
    reports["patient_name"] = ["", "", "", "Rossi-Bianchini, Maria"]
    reports["reporting_radiologist"] = ["Wimplethorn, A.", "", "", ""]
    reports["findings"] = [
        "Wimplethorn says normal.", "Known to Bianchini.", "Spleen: Normal.", "Normal."
    ]  # fmt: skip
    reports["impression"] = ""
    reports.to_csv(path, index=False)
    assert call(hospital_data) == 1
    said = load_manifest(hospital_data / "cohort" / "manifest.csv")["findings"]
    assert sorted(said) == ["Normal.", "Spleen: Normal."]
    hits = pd.read_csv(hospital_data / "cohort" / "text_hits.csv")
    assert (hits["kind"] == "name of another person").sum() == 2
    assert "to look for: patient_name, reporting_radiologist." in capsys.readouterr().out


@pytest.mark.parametrize("more", [(), ("--redact",)])
def test_what_looks_like_a_name_withholds_its_study_alone(hospital_data, more):
    path = hospital_data / "reports.csv"
    path.write_text(path.read_text().replace("Mr. OKONKWO has", "The man (Okonqo) has"))
    assert call(hospital_data, *more) == 1
    out = hospital_data / "cohort"
    said = pd.read_csv(out / "quarantine.csv")["reason"]
    assert said.str.contains("looks like the patient's name").sum() == 1
    assert len(load_manifest(out / "manifest.csv")) == (3 if more else 2)
    hits = pd.read_csv(out / "text_hits.csv").query("kind == 'looks like a name'")
    assert hits[["n", "taken"]].to_numpy().tolist() == [[1, "study withheld"]]
    assert "Okonqo" not in "".join(p.read_text() for p in out.glob("*.csv"))


def test_files_without_a_preamble_are_read_and_a_burners_extras_are_not(hospital_data, capsys):
    """As `merlin findings` does: the same files are DICOM to both."""
    tree = hospital_data / "tree"
    for path in (tree / "case 0").iterdir():
        raw = path.read_bytes()
        path.write_bytes(raw[132:])
    (tree / "case 0" / "._ACC77001_0.dcm").write_bytes(b"double")
    (tree / "DICOMDIR").write_bytes(b"list")
    call(hospital_data)
    assert "1 macOS doubles left out." in capsys.readouterr().out
    made = pd.read_csv(hospital_data / "cohort" / "manifest.csv")
    assert len(made) == 2
    assert (hospital_data / "cohort" / made["volume"][0]).exists()


def test_a_half_copied_study_stays_behind_and_loses_no_other(hospital_data):
    files = sorted((hospital_data / "tree" / "case 0").iterdir())
    for path in files[12:]:
        path.write_bytes(b"")
    assert call(hospital_data) == 1
    lost = pd.read_csv(hospital_data / "cohort" / "quarantine.csv")["reason"].tolist()
    assert any("12 of 24 files of the series without a slice" in str(r) for r in lost)
    assert len(pd.read_csv(hospital_data / "cohort" / "manifest.csv")) == 1


@pytest.mark.parametrize("form", ["semicolons, Windows-1252", "workbook"])
def test_reports_come_as_people_have_them(hospital_data, form):
    path = hospital_data / "reports.csv"
    reports = pd.read_csv(path, dtype=str, keep_default_na=False)
    reports["findings"] = "Größe der Milz: normal."
    if form == "workbook":
        reports.to_excel(hospital_data / "reports.xlsx", index=False)
        path.write_bytes((hospital_data / "reports.xlsx").read_bytes())
    else:
        reports.to_csv(path, index=False, sep=";", encoding="cp1252")
    call(hospital_data)
    made = pd.read_csv(hospital_data / "cohort" / "manifest.csv")
    assert set(made["findings"]) == {"Größe der Milz: normal."}


def test_codes_that_nobody_can_read_are_refused_before_any_volume(hospital_data, capsys):
    path = hospital_data / "codes.csv"
    codes = pd.read_csv(path, dtype=str, keep_default_na=False)
    codes.assign(date=["04/05/2015", "03/04/2015", "13/04/2015"]).to_csv(path, index=False)
    more = ("--codes", str(path))
    assert call(hospital_data, *more) in (0, 1)  # one row tells the order of all
    dates = pd.read_csv(hospital_data / "cohort" / "codes.csv")["date"]
    assert abs((pd.Timestamp(dates[0]) - pd.Timestamp(dates[1])).days) == 31  # 4 May, 3 April
    for cells, said in (
        (["04/05/2015", "03/04/2015", "01/02/2015"], "--dates dmy or mdy"),
        (["04/05/2015", "13/04/2015", "2015-03-01"], "not one format"),
    ):
        codes.assign(date=cells).to_csv(path, index=False)
        assert call(hospital_data, *more, out="again") == 2
        assert said in capsys.readouterr().err
        assert not (hospital_data / "again").exists()
    codes.assign(date=["04/05/2015", "03/04/2015", "01/02/2015"]).to_csv(path, index=False)
    assert call(hospital_data, *more, "--dates", "mdy", out="again") in (0, 1)
    codes.assign(vocabulary="SNOMED").to_csv(path, index=False)
    assert call(hospital_data, *more, out="third") == 2


@pytest.mark.parametrize(
    ("said", "age", "sex"), [("018M", "1", "mujer"), ("052W", "0", "F"), ("057Y", "57", "Female")]
)
def test_ages_have_units_and_sexes_are_words(said, age, sex):
    header = pydicom.Dataset()
    header.PatientAge = said
    with pydicom.config.disable_value_validation():
        header.PatientSex = sex
    about = headers.about(header, days=0)
    assert (about["age"], about["sex"]) == (age, "F")


@pytest.mark.parametrize("sign", [b"02", b"2^", b"2a"])
def test_a_uid_that_is_none_is_read_without_a_word_in_any_log(tmp_path, caplog, sign):
    write_study(tmp_path / "a", PEOPLE[0], "20150101", n=1)
    (path,) = (tmp_path / "a").iterdir()
    uid = str(pydicom.dcmread(path).StudyInstanceUID).encode()
    path.write_bytes(path.read_bytes().replace(uid, uid[:2] + sign + uid[4:]))
    assert len(hospital.find_studies(tmp_path)[0]) == 1
    assert not caplog.records
