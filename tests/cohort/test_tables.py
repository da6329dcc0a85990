"""Tables as spreadsheets, hospitals and other programs write them."""

import gzip
import zipfile

import numpy as np
import openpyxl
import openpyxl.chart
import pandas as pd
import pytest

from merlin.data import tables
from merlin.data.cells import (
    TableError,
    read_ages,
    read_dates,
    read_ids,
    read_lengths_mm,
    read_sexes,
    why_apart,
)
from merlin.data.tables import read_table

ROWS = [("A1", "Leber: groß, unauffällig; kein Aszites", "x"), ("A2", 'said "no"\nnew line', "")]


def _csv(sep, rows=ROWS, header=("accession", "findings", "impression")):
    quote = lambda c: '"' + c.replace('"', '""') + '"'  # noqa: E731
    return "\n".join(sep.join(map(quote, r)) for r in [header, *rows]) + "\n"


@pytest.mark.parametrize("sep", [",", ";", "|"])
def test_a_separator_inside_a_cell_that_is_quoted_after_a_blank_is_text(tmp_path, sep):
    text = _csv(sep).replace(f'{sep}"', f'{sep} "')
    (tmp_path / "a.csv").write_text(text)
    assert list(read_table(tmp_path / "a.csv").itertuples(index=False, name=None)) == ROWS


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_csv_of_any_spreadsheet_is_read_alike(tmp_path, sep, encoding):
    path = tmp_path / "reports.csv"
    path.write_bytes(_csv(sep).replace("\n", "\r\n").encode(encoding))
    table = read_table(path, needed=("accession", "findings"))
    assert list(table.itertuples(index=False, name=None)) == ROWS
    assert bool(table.attrs["notes"]) == (encoding == "cp1252")


def test_a_workbook_keeps_zeros_whole_numbers_and_line_breaks(tmp_path):
    path = tmp_path / "reports.xlsx"
    table = pd.DataFrame(
        {
            "Study ID": ["007", "008"],
            "n": [12, 13.0],
            "day": pd.to_datetime(["2015-04-05", "2015-04-06"]),
            "Findings": ["one_x000D_\ntwo", "three_x000D_four"],
        }
    )
    table.to_excel(path, index=False)
    read = read_table(path, needed=("study_id", "findings"))
    assert read["study_id"].tolist() == ["007", "008"]
    assert read["n"].tolist() == ["12", "13"]
    assert read["day"].tolist() == ["2015-04-05", "2015-04-06"]
    assert read["findings"].tolist() == ["one\ntwo", "three\nfour"]
    (tmp_path / "named.csv").write_bytes(path.read_bytes())  # the content decides
    assert read_table(tmp_path / "named.csv")["n"].tolist() == ["12", "13"]


@pytest.mark.parametrize("sign", [b"\xff", b"\xe9", b"\xc0"])
def test_parquet_whose_texts_are_no_utf_8_is_refused(tmp_path, sign):
    pd.DataFrame({"a": ["one of a kind", "y"]}).to_parquet(tmp_path / "t.parquet", compression=None)
    raw = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(raw.replace(b"one of a kind", sign + b"ne of a kind"))
    with pytest.raises(TableError, match=r"t\.parquet: not a whole parquet file"):
        read_table(tmp_path / "t.parquet")


def test_parquet_is_read_too(tmp_path):
    pd.DataFrame({"a": ["x", "y", None], "b": [0.25, np.nan, 1]}).to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.to_numpy().tolist() == [["x", "0.25"], ["y", ""], ["", "1.0"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old Excel workbook"),
        (b"PK\x03\x04 no workbook", "not a readable Excel workbook"),
        (b"a,b\n1,\x00\n", "zero bytes"),
        (b"a,b\n1,\x81\xff\n", "line 2 holds bytes of no text"),
        (b"a,b\n1,2,3\n4,5\n6,7,8\n", "rows 2, 4: not as many cells"),
        (b'a,b\n1,"open\n2,3\n', "unexpected end of data"),
        (b"a,a\n1,2\n", "column a: stands more than once"),
        (b"b,c\n1,2\n", "no column a. Found b, c"),
        (b"PAR1 and no more", "parquet"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_file(tmp_path, content, said):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(TableError, match=said) as error:
        read_table(path, needed=("a",))
    assert str(error.value).startswith("table.csv: ")


def test_row_numbers_are_a_spreadsheets_with_blank_rows_between(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n,\n\n3,4\n")
    assert (read_table(path).index + 2).tolist() == [2, 5]


def test_columns_of_row_numbers_go_and_say_so(tmp_path):
    path = tmp_path / "t.csv"
    pd.DataFrame({"a": ["x"]}).to_csv(path)
    table = read_table(path)
    assert list(table) == ["a"]
    assert table.attrs["notes"] == ("1 columns without a name left out.",)


def test_ids_lose_a_spreadsheets_decimals_and_rounded_ones_are_refused():
    assert read_ids(pd.Series([" 12.0", "A1", "007"]), where="t").tolist() == ["12", "A1", "007"]
    with pytest.raises(TableError, match=r"t: row 3: ids that a spreadsheet rounded"):
        read_ids(pd.Series(["1", "1.23E+11"]), where="t")


@pytest.mark.parametrize(
    ("ids", "others", "why"),
    [
        (["12"], ["0012"], "zeros"),
        (["ac1"], ["AC1"], "capital"),
        (["AC-1"], ["AC 1"], "hyphens"),
        (["a.nii.gz", "b.NII"], ["a"], "endings"),
        (["a.dcm"], ["a.npz"], "endings"),
        (["/data/a", "/data/b"], ["b"], "folders"),
        (["d\\\\a.nii.gz"], ["a"], "folders before the name, and its ending"),
        (["p1/study1", "p2/study1"], ["p3/study1"], ""),  # a name alone is nobody's
        (["1"], ["1", "01"], ""),
        (["1"], ["2"], ""),
    ],
)
def test_why_ids_do_not_meet(ids, others, why):
    assert why in why_apart(ids, others)
    assert bool(why_apart(ids, others)) == bool(why)


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (["2015-04-05", "", "2016-12-31 10:00:00"], ["2015-04-05", None, "2016-12-31"]),
        (["04/05/2015", "13/04/2015"], ["2015-05-04", "2015-04-13"]),
        (["04/05/2015", "04/13/2015"], ["2015-04-05", "2015-04-13"]),
        (["3.4.2015", "03.11.2015"], ["2015-04-03", "2015-11-03"]),
        (["20150405"], ["2015-04-05"]),
        (["03-MAR-2014", "28-Feb-2014"], ["2014-03-03", "2014-02-28"]),
        (["Mar 3, 2014", "May 4, 2014"], ["2014-03-03", "2014-05-04"]),
        (["5/5/2015", "06/06/2015"], ["2015-05-05", "2015-06-06"]),  # both readings agree
        (["2015-04-05T10:00:00+02:00"], ["2015-04-05"]),
        (["13/04/15", "01/02/15"], ["2015-04-13", "2015-02-01"]),
    ],
)
def test_one_format_a_column_is_found_from_all_rows(cells, days):
    found = read_dates(pd.Series(cells), where="t")
    assert [None if pd.isna(d) else d.date().isoformat() for d in found] == days


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["04/05/2015", "03/04/2016"], "rows 2, 3: 03/04/2016 may be"),
        (["04/05/2015", "13/04/2015", "01.02.2016", "2016-03-01"], "rows 4, 5: not one format"),
        (["03/04/2015", "13/04/2015", "04/13/2015"], "not one format"),
        (["42100", "42101"], "not one format"),
        (["yesterday"], "row 2"),
        (["31/02/2015"], "row 2"),
    ],
)
def test_mixed_or_ambiguous_dates_are_refused_with_rows(cells, said):
    with pytest.raises(TableError, match=said):
        read_dates(pd.Series(cells), where="t")


def test_an_ambiguous_column_is_read_as_asked():
    cells = pd.Series(["04/05/2015", "03/04/2016"])
    assert read_dates(cells, where="t", order="dmy")[0].month == 5
    assert read_dates(cells, where="t", order="mdy")[0].month == 4
    with pytest.raises(TableError, match="not one format"):
        read_dates(pd.Series(["04/13/2015"]), where="t", order="dmy")


def test_ages_with_units_become_years():
    cells = [
        "57",
        "057Y",
        "18 months",
        "018M",
        "90+",
        ">89",
        "52 weeks",
        "10 days",
        "",
        "57,5",
        "3 años",
    ]
    years = read_ages(pd.Series(cells), where="t").round(2).tolist()
    assert years[:6] == [57, 57, 1.5, 1.5, 90, 89]
    assert years[6] == pytest.approx(1, abs=0.01)
    assert years[7] == pytest.approx(0.03)
    assert np.isnan(years[8])
    assert years[9:] == [57.5, 3]


@pytest.mark.parametrize("cell", ["old", "57 apples", "-3", "1957", "5'7"])
def test_what_is_no_age_is_refused(cell):
    with pytest.raises(TableError, match="row 3"):
        read_ages(pd.Series(["57", cell]), where="t")


def test_words_for_sex_are_words_and_no_first_letters():
    cells = ["F", "mujer", "Male", "weiblich", "hombre", "", "unknown", "W", "Mann", "Femme"]
    assert read_sexes(pd.Series(cells), where="t").tolist() == list("FFMFM") + ["", ""] + list(
        "FMF"
    )
    with pytest.raises(TableError, match=r"rows 2, 3: 0, 1\."):
        read_sexes(pd.Series(["0", "1"]), where="t")


def test_words_for_nothing_are_empty_in_dates_ages_and_lengths():
    cells = pd.Series(["NA", "n/a", "unknown", "-", "", "NaT"])
    assert read_ages(cells, where="t").isna().all()
    assert read_lengths_mm(cells, where="t").isna().all()
    assert read_dates(cells, where="t").isna().all()


def test_lengths_are_millimetres_with_comma_or_unit():
    cells = pd.Series(["5", "1,25", "2.5 mm", "0.5cm", "3.0MM"])
    assert read_lengths_mm(cells, where="t").tolist() == [5, 1.25, 2.5, 5, 3]
    for odd in ("thick", "5 inch", "-1", "2.5\\5"):
        with pytest.raises(TableError, match="t: row 3"):
            read_lengths_mm(pd.Series(["5", odd]), where="t")


def test_a_gzipped_table_is_read_and_a_cut_one_refused(tmp_path):
    whole = gzip.compress(b"a,b\n1,2\n")
    (tmp_path / "t.csv.gz").write_bytes(whole)
    assert read_table(tmp_path / "t.csv.gz").to_numpy().tolist() == [["1", "2"]]
    (tmp_path / "t.csv.gz").write_bytes(whole[:-9])
    with pytest.raises(TableError, match="not a whole gzip"):
        read_table(tmp_path / "t.csv.gz")


def test_tables_that_unzip_to_more_than_any_table_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_BYTES", 1 << 20)
    (tmp_path / "t.csv").write_bytes(gzip.compress(b"a,b\n" * (1 << 19)))
    with pytest.raises(TableError, match="more than 1,048,576 bytes unzipped"):
        read_table(tmp_path / "t.csv")
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/sharedStrings.xml", b" " * (2 << 20))
    with pytest.raises(TableError, match="2,097,152 bytes unzipped"):
        read_table(tmp_path / "t.xlsx")


def test_a_workbook_without_styles_is_read_in_silence(tmp_path):
    """Warnings are errors here: openpyxl has one for a workbook that lost its styles."""
    pd.DataFrame({"study_id": ["a"], "age": [40]}).to_excel(tmp_path / "a.xlsx", index=False)
    with (
        zipfile.ZipFile(tmp_path / "a.xlsx") as whole,
        zipfile.ZipFile(tmp_path / "b.xlsx", "w") as less,
    ):
        for name in whole.namelist():
            less.writestr(name, b"<styleSheet/>" if "styles" in name else whole.read(name))
    assert tables.read_table(tmp_path / "b.xlsx").to_numpy().tolist() == [["a", "40"]]


def test_a_workbook_is_as_large_as_its_cells(tmp_path):
    book = openpyxl.Workbook()
    for row in (["a", "b", "c"], [1], [None, 2.5]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    assert read_table(tmp_path / "t.xlsx").to_numpy().tolist() == [["1", "", ""], ["", "2.5", ""]]
    book.active["XFD30000"] = "x"  # a stray cell in the last corner
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(TableError, match="row 30000: not as many cells"):
        read_table(tmp_path / "t.xlsx")


def test_excels_escapes_are_undone_and_counted(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\none_x000D_two,1\n_x0009_tab,2\nplain_text,3\n")
    table = read_table(tmp_path / "t.csv")
    assert table["a"].tolist() == ["one\ntwo", " tab", "plain_text"]
    assert table.attrs["notes"] == ("2 rows hold Excel's _x000D_: read as a line break.",)


def test_excels_line_of_its_separator_is_no_header(tmp_path):
    (tmp_path / "t.csv").write_text('sep=;\na;b\n"1,2;3";4\n')
    table = read_table(tmp_path / "t.csv")
    assert table.to_numpy().tolist() == [["1,2;3", "4"]]
    assert (table.index + 2).tolist() == [2]


def test_a_damaged_byte_does_not_spoil_the_umlauts_of_a_whole_file(tmp_path):
    text = "a,b\nLeber groß,ä\nMilz groß,ö\n".encode()
    (tmp_path / "t.csv").write_bytes(text + b"x\xe4,1\n")
    with pytest.raises(TableError, match="line 4: bytes that are not UTF-8"):
        read_table(tmp_path / "t.csv")


def test_only_the_first_sheet_is_read_and_that_is_said(tmp_path):
    with pd.ExcelWriter(tmp_path / "t.xlsx") as book:
        pd.DataFrame({"a": [1]}).to_excel(book, sheet_name="one", index=False)
        pd.DataFrame({"b": [1]}).to_excel(book, sheet_name="two", index=False)
    assert read_table(tmp_path / "t.xlsx").attrs["notes"] == ("The first of 2 sheets was read.",)


def test_ids_that_were_kept_from_becoming_numbers_are_ids():
    cells = pd.Series(['="007"', "'008", "O'Neil", "AC-1"])
    assert read_ids(cells, where="t").tolist() == ["007", "008", "O'Neil", "AC-1"]


def test_an_order_of_day_and_month_does_not_matter_to_years_first():
    cells = pd.Series(["2015-04-05", "2016-12-31"])
    assert read_dates(cells, where="t", order="dmy")[0].isoformat().startswith("2015-04-05")


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("cp1254", "Işık şahin"),
        ("cp1254", "karaciğer boyutları doğal, safra kesesi taşı"),
        ("cp1250", "Wątroba śledziona"),
        ("cp1250", "Wałęsa"),
        ("cp1250", "játra zvětšená, žlučník bez konkrementů"),
        ("cp1250", "ficat fără leziuni, şi splină"),
        ("cp1251", "Печень не увеличена"),
        ("cp1251", "Печінка не збільшена"),
        ("cp1252", "10 cm³ – groß, 40°C"),
        ("cp1252", "foie normal, à gauche, kyste rénal, très"),
        ("cp1252", "Müller García François Peña Søren"),
        ("cp1252", "hígado, riñón"),
    ],
)
def test_the_letters_tell_the_code_page(tmp_path, page, text):
    (tmp_path / "t.csv").write_bytes(f"id;text\n1;{text}\n".encode(page))
    table = read_table(tmp_path / "t.csv")
    assert table["text"].tolist() == [text]
    assert f"Windows-{page[2:]}" in table.attrs["notes"][0]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("cp1254", "Şahin"),  # Ţahin, too
        ("cp1250", "Kovačič"),
        ("gbk", "肝脏正常"),
        ("shift_jis", "肝臓 所見"),
        ("euc_kr", "간 정상입니다"),
        ("big5", "肝臟正常"),
        ("koi8-r", "Печень не увеличена"),
        ("cp1253", "Το ήπαρ είναι φυσιολογικό"),
        ("mac_roman", "Müller groß"),
        ("iso8859-2", "Wątroba śledziona źródło"),
    ],
)
def test_letters_that_tell_no_code_page_are_refused_with_the_mend(tmp_path, page, text):
    (tmp_path / "t.csv").write_bytes(f"id;text\n1;{text}\n".encode(page))
    with pytest.raises(TableError, match=r"line 2 holds bytes of no text.*Save it as CSV UTF-8"):
        read_table(tmp_path / "t.csv")


def test_a_file_of_two_encodings_is_refused_with_its_lines(tmp_path):
    mixed = "a,b\n1,ä\n".encode() + "2,ü\n3,x\n4,ö\n".encode("latin-1")
    (tmp_path / "t.csv").write_bytes(mixed)
    with pytest.raises(TableError, match="lines 3, 5: bytes that are not UTF-8"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "cell",
    ["4. Mai 2020", "4 mai 2020", "04-Mai-2020", "04/May/2020", "04MAY2020", "4 de mayo de 2020",
     "2020-05-04 10:30 Uhr", "04.Mai.2020", "May 4, 2020"],
)  # fmt: skip
def test_months_in_words_of_a_few_languages(cell):
    days = read_dates(pd.Series([cell, ""]), where="t")
    assert str(days[0])[:10] == "2020-05-04"


def test_short_years_are_past_and_may_come_first():
    read = lambda cells: [str(d)[:10] for d in read_dates(pd.Series(cells), where="t")]  # noqa: E731
    assert read(["01/02/68", "13/02/70"]) == ["1968-02-01", "1970-02-13"]
    assert read(["04.05.45", "13.06.50"]) == ["1945-05-04", "1950-06-13"]
    assert read(["99-05-04", "20-05-25"]) == ["1999-05-04", "2020-05-25"]
    with pytest.raises(TableError, match="rows 2, 3: 20-05-04 may be year-month-day or day"):
        read(["20-05-04", "21-01-15"])
    with pytest.raises(TableError, match="rows 2, 3: 20/05/04 may be year/month/day or day"):
        read(["20/05/04", "21/01/15"])
    with pytest.raises(TableError, match=r"may be year\.month\.day or day"):
        read(["20.05.04", "20.01.15"])
    assert read(["04-05-20", "25-05-20"]) == ["2020-05-04", "2020-05-25"]  # days differ, years not
    assert read(["04.05.20"]) == ["2020-05-04"]
    assert read_dates(pd.Series(["20-05-04"]), where="t", order="dmy")[0].year == 2004


def _book(path, *sheets):
    """A workbook of (state, rows) sheets."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for i, (state, rows) in enumerate(sheets):
        if rows is None:
            book.create_chartsheet().add_chart(openpyxl.chart.BarChart())
            continue
        sheet = book.create_sheet(f"s{i}")
        sheet.sheet_state = state
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


TABLE = ("visible", [["id", "findings"], [1, "a"]])


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (("hidden", [["id", "findings"], [9, "old"]]), "Sheet 2, the first seen"),
        (("visible", []), "Sheet 2"),
        (("visible", [["read me"], ["see the other"]]), "Sheet 2"),
        (("visible", None), "Sheet 2"),
    ],
)
def test_the_first_sheet_seen_that_is_the_table_is_read(tmp_path, before, said):
    table = read_table(_book(tmp_path / "t.xlsx", before, TABLE), needed=("id", "findings"))
    assert table["findings"].tolist() == ["a"]
    assert said in " ".join(table.attrs["notes"])
    with pytest.raises(TableError, match="no column else"):
        read_table(tmp_path / "t.xlsx", needed=("else",))


def test_formulas_without_a_value_are_refused_with_their_cells(tmp_path):
    rows = [["id", "findings"], ["1", "=UPPER(A2)"], ["2", "=A3"], ["3", "x"]]
    with pytest.raises(TableError, match="2 formulas without a value: B2, B3"):
        read_table(_book(tmp_path / "t.xlsx", ("visible", rows)))
    path = _book(tmp_path / "n.xlsx", ("visible", rows))
    with zipfile.ZipFile(path) as book:
        parts = {n: book.read(n) for n in book.namelist()}
    name = "xl/worksheets/sheet1.xml"
    for cell, value in ((b"B2", b' t="str"'), (b"B3", b"")):  # computed: an empty text, a number
        head = b'<c r="' + cell + b'"'
        start = parts[name].index(head)
        end = parts[name].index(b"</c>", start)
        new = head + value + b"><f>x</f>" + (b"<v></v>" if value else b"<v>7</v>")
        parts[name] = parts[name][:start] + new + parts[name][end:]
    with zipfile.ZipFile(path, "w") as book:
        for part, content in parts.items():
            book.writestr(part, content)
    assert read_table(path)["findings"].tolist() == ["", "7", "x"]


@pytest.mark.parametrize(
    "title", ["Export of RIS, 2020\n", "Export 2020\n\n", "Export\nof: 1, 2 and 3\n", "# a;b\n"]
)
@pytest.mark.parametrize("sep", [",", ";"])
def test_a_title_above_the_header_is_passed_over_and_said(tmp_path, title, sep):
    (tmp_path / "t.csv").write_text(title + f"Id{sep}findings\n1{sep}ok\n")
    table = read_table(tmp_path / "t.csv", needed=("id", "findings"))
    assert table.to_numpy().tolist() == [["1", "ok"]]
    n_lines = title.count("\n")
    assert (table.index + 2).tolist() == [n_lines + 2]
    assert f"Row {n_lines + 1} read as the header." in table.attrs["notes"]


@pytest.mark.parametrize(
    ("cell", "years"),
    [("5 J.", 5), ("57 лет", 57), ("6 ay", 0.5), ("2 Mon", 1 / 6), ("5 jaar", 5), ("5y6m", 5.5), ("1 an", 1),
     ("3 мес.", 0.25), ("10 jours", 10 / 365.2425), ("57 yaş", 57), ("6 maanden", 0.5)],
)  # fmt: skip
def test_ages_in_units_of_other_languages(cell, years):
    assert read_ages(pd.Series([cell]), where="t")[0] == pytest.approx(years)


def test_a_unit_that_is_days_in_one_language_and_years_in_another_is_refused():
    with pytest.raises(TableError, match=r"row 2: 10 j\."):
        read_ages(pd.Series(["10 j"]), where="t")


def test_sexes_of_other_languages_and_letters_of_two_meanings():
    cells = ["KADIN", "ERKEK", "varón", "муж", "жен", "남", "여", "NULL"]
    assert read_sexes(pd.Series(cells), where="t").tolist() == [*"FMMMFMF", ""]
    with pytest.raises(TableError, match="rows 2, 3: E, K"):
        read_sexes(pd.Series(["K", "E"]), where="t")


def test_ids_lose_marks_without_width_and_keep_letters_between_digits():
    cells = pd.Series(["\u200b12", "\ufeffA1", "1E5", "5E2", "3E10", "12.000", "7.00"])
    assert read_ids(cells, where="t").tolist() == "12 A1 1E5 5E2 3E10 12.000 7".split()
    with pytest.raises(TableError, match="rows 2, 3, 4"):
        read_ids(pd.Series(["1.23E+11", "3E+10", "1,2e11", "7"]), where="t")


def test_lengths_in_metres_are_refused():
    with pytest.raises(TableError, match=r"row 3: 0\.005\. Expected millimetres"):
        read_lengths_mm(pd.Series(["0.625", "0.005"]), where="t")


def test_a_cell_of_blanks_is_no_age_and_takes_no_time():
    with pytest.raises(TableError, match="ages: row 3: 1 "):
        read_ages(pd.Series(["57", "1" + " " * 50_000 + "x"]), where="ages")
