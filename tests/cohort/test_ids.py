"""Ids out of a stranger's table become names of files in the folder that is meant, or are refused."""

import nibabel as nib
import numpy as np
import openpyxl
import pandas as pd
import pytest
from test_release import cohort

from merlin import cli
from merlin.data.cells import TableError
from merlin.data.manifest import ManifestError, load_manifest
from merlin.data.tables import read_table
from merlin.readers import look_alike, release, totalsegmentator

PATHS = ["../precious", "..", ".", "/tmp/x", "a/b", "a\\b", "C:\\x", "s1/", "x" * 300, "検" * 80]
UNSEEN = ["s\x1b]0;PWNED\x07\x1b[2J01", "a\nb", "a\x7fb", "\u202egpj.s", "a\x9bb", "a\u2028b"]


def is_plain(text):
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("name", [*PATHS, *UNSEEN])
def test_a_manifest_refuses_them_with_the_row(tmp_path, name):
    table = pd.DataFrame(
        {"study_id": ["a", name], "patient_id": "p", "split": "test", "volume": "v"}
    )
    table.to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(ManifestError, match="row 3") as caught:
        load_manifest(tmp_path / "manifest.csv", check_files=False)
    assert is_plain(str(caught.value))


@pytest.mark.parametrize("name", PATHS)
def test_totalsegmentator_leaves_their_rows_out_and_looks_nowhere(tmp_path, name):
    folder = tmp_path / "data"
    (folder / "s1" / "segmentations").mkdir(parents=True)
    for place in (folder / "s1", folder, tmp_path):  # what `..` and the like would find
        nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), place / "ct.nii.gz")
        (place / "segmentations").mkdir(exist_ok=True)
    (folder / "meta.csv").write_text(f"image_id;split\ns1;train\n{name};train\n")
    scans, excluded = totalsegmentator.read_folder(folder)
    assert scans["study_id"].tolist() == ["s1"]
    assert excluded["reason"].tolist() == ["meta.csv, row 3: no image_id that names a folder"]


def test_totalsegmentator_says_which_id_would_steer_a_terminal(tmp_path, capsys):
    (tmp_path / "meta.csv").write_text('image_id;split\n"s\x1b]0;PWNED\x07\x1b[2J01";train\n')
    assert cli.main(["totalsegmentator", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "meta.csv, column image_id: row 2" in said
    assert is_plain(said)


@pytest.mark.parametrize("name", [*PATHS, *UNSEEN])
def test_a_release_is_not_written_with_them(tmp_path, name):
    table = cohort(tmp_path / "source")
    table.loc[3, "study_id"] = name
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ManifestError, match="row 5, column study_id") as caught:
        look_alike.write_release(table, tmp_path / "made")
    assert is_plain(str(caught.value))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_release_is_not_written_over_a_table_of_patients(tmp_path):
    table = cohort(tmp_path / "source")
    (tmp_path / "made-patients.csv").write_text("precious")
    with pytest.raises(FileExistsError, match=r"made-patients\.csv exists"):
        look_alike.write_release(table, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    twice = pd.concat([table, table.head(1).assign(volume=table["volume"][4])], ignore_index=True)
    source = (tmp_path / "source" / "0.nii.gz").read_bytes()
    with pytest.raises(FileExistsError):
        look_alike.write_release(twice, tmp_path / "again")
    assert (tmp_path / "source" / "0.nii.gz").read_bytes() == source  # no copy went into a link


def test_reports_and_ids_are_no_formulas_in_a_written_release(tmp_path):
    table = cohort(tmp_path / "source")
    table["findings"] = '=HYPERLINK("http://x",1)'
    table["manufacturer"], table["patient_id"] = "=1+1", "@p" + table["patient_id"]
    folder = look_alike.write_release(table, tmp_path / "made")
    sheet = openpyxl.load_workbook(folder / release.REPORTS).active
    assert not any(c.data_type == "f" for row in sheet for c in row)
    owners = tmp_path / "made-patients.csv"
    for path in (folder / release.METADATA, owners):
        assert not any(
            line.count(",=") + line.count(",@") for line in path.read_text().splitlines()
        )
    back = release.read_release(folder, patients=owners).manifest
    assert back["findings"].str.startswith("=HYPERLINK").all()
    assert set(back["manufacturer"]) == {"=1+1"}
    assert set(back["patient_id"]) == set(table["patient_id"])


@pytest.mark.parametrize("name", UNSEEN)
def test_columns_names_and_cells_are_escaped_in_what_is_said_of_them(tmp_path, name):
    quoted = '"' + name + '"'
    (tmp_path / "t.csv").write_text(f"study_id,{quoted}\na,1\n")
    table = read_table(tmp_path / "t.csv")
    assert all(map(str.isprintable, table))
    with pytest.raises(TableError, match="no column age") as caught:
        read_table(tmp_path / "t.csv", needed=("age",))
    assert is_plain(str(caught.value))
    (tmp_path / "manifest.csv").write_text(
        f"study_id,patient_id,split,volume,sex,site\na,p,test,v,{quoted},{quoted}\n"
    )
    with pytest.raises(
        ManifestError, match="column site: characters that cannot be seen"
    ) as caught:
        load_manifest(tmp_path / "manifest.csv", check_files=False)
    assert is_plain(str(caught.value))
