"""The table of docs/full_tier.md that sets the paper, the released code and ours side by side."""

import re
from pathlib import Path

import pytest
import yaml

from merlin import run

TEXT = (Path(__file__).parents[2] / "docs" / "full_tier.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+): (\w+)\.(\w+)` \|[^|]*\|[^|]*\| ([^|]*) \|", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("profile", "notebook", "key", "ours"), ROWS)
def test_column_ours_is_what_the_profile_says(profile, notebook, key, ours):
    said = "" if ours == "empty" else yaml.safe_load(ours.strip("`"))
    assert run.load_profile(profile)[notebook][key] == said


def test_every_line_of_the_papers_training_that_no_source_gives_is_in_the_table():
    text = (run.PROFILES / "paper.yaml").read_text()
    part = text[text.index("02_pretraining:") : text.index("03_embeddings:")]
    ours = re.findall(r"^  (\w+): .*# ours", part, re.MULTILINE)
    machine = {"text_folder", "stem_width", "n_threads", "save_every", "evaluate_every", "chunk"}
    told = {key for profile, _, key, _ in ROWS if profile == "paper"}
    assert set(ours) - machine - told == set()
    assert len(ROWS) > 20
