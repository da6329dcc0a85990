"""Tables of ours: no text in them is a formula, and every reader of ours gives the word back."""

import re
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest

from merlin import run
from merlin.data.tables import read_table

HERE = Path(__file__).parents[2]
FORMULAS = ["=1+1", '=HYPERLINK("http://x","y")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "＝1+1",
            "- No mass.", "=cmd|' /C calc'!A0"]  # fmt: skip


@pytest.fixture
def table():
    texts = [*FORMULAS, "'quoted", "-1.5", "plain", None]
    n = len(texts)
    return pd.DataFrame(
        {"study_id": [f"s{i}" for i in range(n)], "=text": texts, "value": np.linspace(-1, 1, n),
         "kind": pd.Categorical(["-a", *["b"] * (n - 1)])}
    )  # fmt: skip


def test_no_cell_or_column_of_a_csv_is_a_formula_and_numbers_do_not_move(tmp_path, table):
    run.write_csv(tmp_path / "t.csv", table)
    raw = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    cells = [*raw.columns, *raw["=text" if "=text" in raw else "'=text"], *raw["kind"]]
    assert [c for c in cells if c and c[0] in "=+-@\t＝"] == ["-1.5"]
    back = run.read_csv(tmp_path / "t.csv")
    assert back["=text"].fillna("").tolist() == table["=text"].fillna("").tolist()
    assert back["kind"].tolist() == table["kind"].tolist()
    np.testing.assert_array_equal(back["value"], table["value"])
    read = read_table(tmp_path / "t.csv")
    assert read["=text"].tolist() == table["=text"].fillna("").tolist()


def test_no_text_begins_a_row_of_its_own(tmp_path):
    table = pd.DataFrame({"a": ["x\rs9,forged", "y\r\nz", '"\n"', "\r=1"], "b": "1"})
    run.write_csv(tmp_path / "t.csv", table)
    want = ["x\ns9,forged", "y\nz", '"\n"', "\n=1"]
    for back in (read_table(tmp_path / "t.csv"), run.read_csv(tmp_path / "t.csv")):
        assert back["a"].tolist() == want
        assert len(back.columns) == 2


def test_a_workbook_holds_texts_alone(tmp_path, table):
    run.write_xlsx(tmp_path / "t.xlsx", table.assign(more="a\x1bb"))
    sheet = zipfile.ZipFile(tmp_path / "t.xlsx").read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert "<f " not in sheet
    cells = [c for row in openpyxl.load_workbook(tmp_path / "t.xlsx").active for c in row]
    assert {c.data_type for c in cells} <= {"s", "n", "inlineStr"}
    assert read_table(tmp_path / "t.xlsx")["=text"].tolist() == table["=text"].fillna("").tolist()


def test_a_table_without_formulas_is_written_as_pandas_writes_it(tmp_path):
    for path in sorted((HERE / "figures").glob("*.csv"))[:8]:
        table = pd.read_csv(path)
        run.write_csv(tmp_path / "t.csv", table)
        assert (tmp_path / "t.csv").read_text() == table.to_csv(index=False, lineterminator="\n")


def test_every_table_is_written_and_read_by_the_one_function():
    """pandas' own reader and writers stand in `merlin.files` alone, and where a file comes with the package."""
    text = [p for n in ("merlin", "scripts") for p in (HERE / n).rglob("*.py")]
    sites = {}
    for path in [*text, *(HERE / "notebooks").glob("*.ipynb")]:
        for call in re.findall(
            r"\.(to_csv|to_excel)\(|\bpd\.(read_csv)\((?!TABLES|Path\(__file__)", path.read_text()
        ):
            sites.setdefault(path.name, []).append("".join(call))
    assert sites.pop("files.py") == ["to_csv", "read_csv", "to_excel"]
    assert not set(sites) - {"planted_marks.py"}  # which makes what strangers bring
