"""The rooms of the package, as docs/architecture.md draws them, against what is imported."""

import re
from pathlib import Path

import grimp

ARCHITECTURE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()


def test_the_table_of_rooms_is_that_of_the_imports():
    rows = re.findall(r"^\| `merlin\.(\w+)` \|.*\| ([^|]*) \|$", ARCHITECTURE, re.MULTILINE)
    drawn = {room: set(re.findall(r"`(\w+)`", imports)) for room, imports in rows}
    graph = grimp.build_graph("merlin", cache_dir=None)
    found = {}
    for module in graph.modules - {"merlin"}:
        room = module.split(".")[1]
        reached = (m.split(".") for m in graph.find_modules_directly_imported_by(module))
        found.setdefault(room, set()).update(m[1] for m in reached if len(m) > 1 and m[1] != room)
    assert drawn == found
