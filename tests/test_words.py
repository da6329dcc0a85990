"""What a stranger's word may become, and what it may not."""

import re
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbconvert.filters.markdown_mistune import markdown2html_mistune

from merlin import words
from merlin.words import NAME, as_cell, as_text, from_cell, names_a_file, shown

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "[see](javascript:alert(1))",
    "![](../../../../etc/passwd)",
    "https://evil.example/x",
    "<javascript:alert(1)>",
    "$\\href{javascript:alert(1)}{x}$",
    "\\(x\\)",
    "`code` **bold** __u__ ~~s~~",
    "# heading",
    "- list",
    "1. list",
    "|a|b|\n|-|-|\n|1|2|",
    "&lt;b&gt; &#60;b&#62;",
    "[x]: javascript:alert(1)",
    "a\n\n<b>b</b>",
    "    indented",
]


@pytest.mark.parametrize(
    "word",
    [
        "../../precious",
        "/etc/passwd",
        "a\\b",
        "..",
        ".",
        "",
        "a\0b",
        "a\nb",
        "x" * 201,
        "検" * 80,
        "\u202egpj.exe",
    ],
)
def test_a_path_is_no_file_name(word):
    assert not names_a_file(word)


@pytest.mark.parametrize("word", ["AC421cb5e", "study 7", "Müller-3", "s0001.a", "検査1"])
def test_an_id_is_a_file_name(word):
    assert names_a_file(word)


@pytest.mark.parametrize(
    "word", ["a b", "a;b", "$(id)", "`id`", "a/b", "-rf", ".hid", "a\n", "a'b", 'a"b', "a{b}", "a*"]
)
def test_a_word_of_a_shell_is_plain(word):
    assert not NAME.fullmatch(word)


@given(WORDS)
def test_a_shown_word_steers_no_terminal(word):
    line = shown(word)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1


def test_long_words_are_cut_where_asked():
    assert shown("a" * 50, 10) == "a" * 10 + "…"
    assert shown("\udce9") == r"\xe9"


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_words_show_their_letters_in_markdown_and_do_nothing(word):
    page = markdown2html_mistune(f"Of {as_text(word)}, n = 3.")
    assert re.findall(r"<(/?\w+)", page) == ["p", "/p"]
    assert "Of " in page
    seen = unescape(re.sub(r"</?p>", "", page)).strip()
    assert seen == f"Of {shown(word).strip().replace('$', '＄').replace(chr(92), '＼')}, n = 3."
    assert markdown2html_mistune(as_text(word)).count("<") == 2 * bool(word.strip())


@given(WORDS.filter(str.strip))
def test_any_word_is_text_alone_in_markdown(word):
    assert set(re.findall(r"<(/?\w+)", markdown2html_mistune(f"x {as_text(word)} y"))) == {
        "p",
        "/p",
    }


@pytest.mark.parametrize(
    "word",
    [
        "=1+1",
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        '=HYPERLINK("http://x")',
        "\t=1",
        "\u00a0=1",
        "\ufeff=1",
        "\u200b+1",
        "\r=1",
        " =1+1",
        "＝1+1",
        "-a",
    ],
)
def test_formulas_are_text_in_a_cell(word):
    assert as_cell(word) == "'" + word
    assert from_cell(as_cell(word)) == word


@pytest.mark.parametrize(
    "value", [-1.5, "-1.5", "+3e-4", "-inf", None, 7, "a=b", "'quoted", "", "No mass."]
)
def test_other_cells_stay_as_they_are(value):
    assert as_cell(value) is value
    assert from_cell(value) is value


@given(WORDS | st.text("'=-+ 1a", max_size=9))
def test_a_cell_gives_its_word_back(word):
    assert from_cell(as_cell(word)) == word


def test_folders_of_a_users_paths_stay_at_home_however_deep():
    given = {
        "a": "/mnt/somebody/x.csv", "b": ["~/y.csv", {"c": "../z.csv"}], "d": Path("/q/w.npz"),
        "e": "plain/words stay", "f": 3, "/mnt/somebody/key": None, "g": "/mnt/some body/a scan.nii",
    }  # fmt: skip
    assert words.without_folders(given) == {
        "a": "x.csv", "b": ["y.csv", {"c": "z.csv"}], "d": "w.npz", "e": "plain/words stay", "f": 3,
        "key": None, "g": "a scan.nii",
    }  # fmt: skip


ROOT = Path(words.__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("from /mnt/jane/a.nii, then ~/b/c.nii.\n", "from a.nii, then c.nii.\n"),
        ("namespace(folder='/mnt/Jane Doe/my data', n=3)", "namespace(folder='my data', n=3)"),
        (f"{ROOT}/merlin/x.py:12: UserWarning: odd", "merlin/x.py:12: UserWarning: odd"),
        (f"see {Path.home()}/other/x.py", "see x.py"),
        ("\x1b[32m/tmp/jane/x.py\x1b[39m in <module>", "\x1b[32mx.py\x1b[39m in <module>"),
        ("<td>/mnt/jane/x</td></tr><br/>", "<td>x</td></tr><br/>"),
        ("of file:///mnt/jane/x and DATA=/mnt/jane/y", "of x and DATA=y"),
        ("of ../jane/x and /mnt/jane/folder/", "of x and folder"),
        ("/data/Jane Q Doe/scans/a b.nii: damaged", "a b.nii: damaged"),
        ("odd: /data/Jane Q Doe/x.nii: damaged\n", "odd: x.nii: damaged\n"),
        ("""open "/mnt/O'Doe Jane/x" """, """open "x" """),
        ("""open '/mnt/O'Doe Jane/x'.""", """open 'x'."""),
        ("“/mnt/Jane Doe/x” and `/mnt/Jane Doe/x y`", "“x” and `x y`"),
        ("of //server/janedoe/x and /mnt//janedoe//x", "of x and x"),
        ("see C:\\Users\\Jane Doe\\x.nii now", "see x.nii now"),
        ("'C:\\\\Users\\\\Jane Doe\\\\x.nii'", "'x.nii'"),
        ("on \\\\server\\janedoe\\x.nii", "on x.nii"),
        ("C:/Users/Jane Doe/x.nii", "x.nii"),
        ("\\\\server\\janedoe\\x", "x"),
        ("a/../janedoe/x, .../home/janedoe/x", "x, x"),
        ("gcc -I/home/janedoe/x", "gcc -Ix"),
        ("?path=%2Fhome%2Fjanedoe%2Fx", "?path=x"),
        (f"HOME={Path.home()}, {Path.home()}er/x", "HOME=~, x"),
        (str(Path.home()), "~"),
    ],
)
def test_a_text_keeps_the_names_of_paths_alone(text, left):
    assert words.without_folders(text) == left


@pytest.mark.parametrize(
    "text",
    ["1/2 and 3/4 of N/A, and/or w/o", "https://example.org/a/b", "km/h ~5 %", "runs/full/cohort/x.csv",
     "data:image/png;base64,/9j/4AAQ/x+/ab/cd=", "\n/ 3 of 4", "</td></tr></table>", "a // b / c",
     "data:image/png;base64,//9j//4AAQ/x+//ab/cd=", "$\\alpha \\\\ \\beta$", "a:\\tb\\tc", "x = df[~mask] // 2",
     "on 3/4: ratio 1/2: fine", "http://a.org//b/c"],
)  # fmt: skip
def test_a_text_without_paths_stays(text):
    assert words.without_folders(text) == text


def test_places_with_blanks_are_known_by_name():
    said = "odd: /mnt/Jane Doe/my data/merlin_data/x.nii\n"
    left = words.without_folders(said, ("/mnt/Jane Doe", "/mnt/Jane Doe/my data"))
    assert left == "odd: my data/merlin_data/x.nii\n"
