"""The rooms of the package, as docs/architecture.md draws them, and what stands in one list alone."""

import re
from pathlib import Path

import grimp

from merlin.streams import Stream

ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"


def test_the_table_of_rooms_is_that_of_the_imports():
    rows = re.findall(
        r"^\| `merlin\.(\w+)` \|.*\| ([^|]*) \|$", ARCHITECTURE.read_text(), re.MULTILINE
    )
    drawn = {room: set(re.findall(r"`(\w+)`", imports)) for room, imports in rows}
    graph = grimp.build_graph("merlin", cache_dir=None)
    found = {}
    for module in graph.modules - {"merlin"}:
        room = module.split(".")[1]
        reached = (m.split(".") for m in graph.find_modules_directly_imported_by(module))
        found.setdefault(room, set()).update(m[1] for m in reached if len(m) > 1 and m[1] != room)
    assert drawn == found


def test_streams_of_random_numbers_stand_in_one_list():
    """A literal beside a seed may be another's number: two questions would share their luck."""
    sources = (ARCHITECTURE.parents[1] / "merlin").rglob("*.py")
    drawn = {p.name for p in sources if re.search(r"default_rng\(", p.read_text())}
    assert drawn == {"streams.py", "synthesis.py"}
    assert len({*Stream}) == len(Stream.__members__)
