"""A line a finding for a reader who is no radiologist: the notebook's and the glossary's are the same."""

from pathlib import Path

from merlin.phantom import views
from merlin.vocabulary import NAMES

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"


def test_every_finding_has_its_line_in_the_notebook_and_in_the_glossary():
    table, glossary = views.in_words(), GLOSSARY.read_text()
    assert tuple(table.index) == NAMES
    for name, line in table["what it is"].items():
        assert f"- **{name.replace('_', ' ')}**: {line}." in glossary
