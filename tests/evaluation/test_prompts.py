"""A user's own prompts, as the authors' list: what is read of a file, and what a bad one is told."""

import pytest

from merlin.data.prompts import PromptError, prompt_bank
from merlin.vocabulary import NAMES

GOOD = (
    "finding,present,absent\n"
    'ascites,large volume ascites,"no ascites, no free fluid"\n'
    "Pleural effusion,bilateral pleural effusions,lower thorax : normal\n"
    "pleural_effusion,small effusion,\n"
    "pleural-effusion,small effusion,\n"
)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_table_and_yaml_give_the_same_prompts_and_repeats_count_twice(tmp_path):
    rows, name = prompt_bank(written(tmp_path / "authors.csv", GOOD))
    assert rows == [
        ("ascites", "present", "reported", "large volume ascites"),
        ("ascites", "absent", "reported", "no ascites, no free fluid"),
        ("pleural_effusion", "present", "reported", "bilateral pleural effusions"),
        ("pleural_effusion", "absent", "reported", "lower thorax : normal"),
        ("pleural_effusion", "present", "reported", "small effusion"),
        ("pleural_effusion", "present", "reported", "small effusion"),
    ]
    assert name.startswith("authors.csv ")
    text = (
        "ascites:\n  present: [large volume ascites]\n  absent: ['no ascites, no free fluid']\n"
        "pleural_effusion:\n  present: [bilateral pleural effusions, small effusion, small effusion]\n"
        "  absent: ['lower thorax : normal']\n"
    )
    assert sorted(prompt_bank(written(tmp_path / "authors.yaml", text))[0]) == sorted(rows)


def test_all_that_is_wrong_is_told_at_once_with_row_and_mend(tmp_path):
    text = (
        "finding,present,absent\n"
        "asites,fluid,no fluid\n"
        ",fluid,\n"
        "gallstones,,\n"
        "splenomegaly,marked splenomegaly,marked splenomegaly\n"
        "fracture,wedge fracture,\n"
        f"hepatomegaly,{'long ' * 101},normal liver\n"
    )
    with pytest.raises(PromptError) as error:
        prompt_bank(written(tmp_path / "mine.csv", text))
    told = str(error.value).splitlines()
    assert told[0] == "mine.csv: 7 problems"
    for part in (
        "row 2: no finding 'asites' (nearest: ascites).",
        "row 3, column finding: empty.",
        "row 4: gallstones without a prompt.",
        "row 5: 'marked splenomegaly' is present at row 5. Keep one side.",
        "fracture: no prompts under absent. A score compares both sides.",
        "Expected a text of 1 to 500 characters.",
    ):
        assert any(part in line for line in told), part


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "finding,prompt\nascites,x\n", "no column present, absent"),
        ("a.csv", "finding,present,absent\n", "no prompts. Write a row for each."),
        ("a.yaml", "[ascites]", "Expected finding: {present: [prompts], absent: [prompts]}"),
        ("a.yaml", "ascites: {there: [x]}", "ascites: "),
        ("a.yaml", "ascites: {present: x, absent: [y]}", "ascites, present: 'x'. Expected a list"),
        (
            "a.yaml",
            "ascites: {present: [1], absent: [y]}",
            "ascites, present, prompt 1: 1. Expected",
        ),
        ("none.csv", None, "no file of prompts there. Mend `prompts` in the profile."),
    ],
)
def test_file_of_another_form_is_refused_with_what_was_expected(tmp_path, name, text, told):
    path = tmp_path / name
    if text is not None:
        written(path, text)
    with pytest.raises(PromptError) as error:
        prompt_bank(path)
    assert told in str(error.value)
    assert name in str(error.value)


def test_without_a_file_our_own_bank_is_asked():
    rows, version = prompt_bank()
    assert {f for f, *_ in rows} == set(NAMES)
    assert version == 2
