"""Prompts of zero-shot findings: our own bank, or a file of the user's, as the authors' lists.

A user's prompts all count as `reported`, the wording that headlines are scored with. The release's authors
gave their list in an issue of their repository; it is not part of this package.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

from merlin.data.cells import TableError
from merlin.data.tables import read_table
from merlin.files import file_hash
from merlin.run.profile import nearest, read_yaml
from merlin.vocabulary import NAMES
from merlin.words import Refusal, shown

PROMPTS = Path(__file__).parents[1] / "evaluation" / "prompts.yaml"
KINDS = ("present", "absent")
MOST = 500  # characters of a prompt
Row = tuple[str, str, str, str]  # finding, kind, wording, text


class PromptError(Refusal):
    """A file of prompts that cannot be taken: which rows, and how to mend them."""


def prompt_bank(path: str | Path = "") -> tuple[list[Row], str | int]:
    """Prompts as (finding, kind, wording, text), and the name that results carry.

    Parameters
    ----------
    path : path, optional
        A CSV or workbook with columns `finding`, `present`, `absent`: a prompt a cell, as many rows a
        finding as it has prompts, a cell empty where one side has fewer. Or YAML (`.yaml`, `.yml`):
        finding → `present`, `absent` → list of prompts. Empty: our own bank.

    Returns
    -------
    rows : list of (str, str, str, str)
        In the file's order.
    name : str or int
        Our bank's version, or the file's name and the beginning of its sha256.

    Raises
    ------
    PromptError
        Naming file, row, what was found and expected, all rows at once.
    """
    if not path or Path(path) == PROMPTS:
        bank = read_yaml(PROMPTS)
        sides = (
            (f, kind, of) for f, kinds in bank["prompts"].items() for kind, of in kinds.items()
        )
        rows = [(f, kind, w, t) for f, kind, of in sides for w, texts in of.items() for t in texts]
        return rows, bank["version"]
    path = Path(path)
    if not path.is_file():
        raise PromptError(f"{path.name}: no file of prompts there. Mend `prompts` in the profile.")
    is_yaml = path.suffix.lower() in (".yaml", ".yml")
    found, problems = (_of_yaml if is_yaml else _of_table)(path)
    rows = _checked(found, problems)
    if problems:
        raise PromptError(_told(path, problems))
    return rows, f"{path.name} {file_hash(path)[:12]}"


Found = list[tuple[str, str, str, Any]]  # place in the file, finding, kind, text


def _of_table(path: Path) -> tuple[Found, list[str]]:
    try:
        table = read_table(path, needed=("finding", *KINDS))
    except TableError as error:
        raise PromptError(f"{error} Expected columns finding, present, absent.") from None
    found, problems = [], []
    for at, *cells in table[["finding", *KINDS]].itertuples():
        finding, *texts = (str(c).strip() for c in cells)
        place = f"row {at + 2}"
        if not finding:
            problems.append(f"{place}, column finding: empty. Each row names its finding.")
        elif not any(texts):
            problems.append(
                f"{place}: {shown(finding, 60)} without a prompt. Fill it, or delete it."
            )
        found += [
            (place, finding, k, t) for k, t in zip(KINDS, texts, strict=True) if finding and t
        ]
    return found, problems


def _of_yaml(path: Path) -> tuple[Found, list[str]]:
    bank = read_yaml(path, most_kb=1024)
    expected = "Expected finding: {present: [prompts], absent: [prompts]}."
    if not isinstance(bank, dict) or not bank:
        raise PromptError(f"{path.name}: no findings. {expected}")
    found, problems = [], []
    for finding, sides in bank.items():
        if not isinstance(sides, dict) or set(sides) - set(KINDS):
            problems.append(f"{shown(finding, 60)}: {shown(repr(sides), 60)}. {expected}")
            continue
        for kind, texts in sides.items():
            where = f"{shown(finding, 60)}, {kind}"
            if not isinstance(texts, list):
                problems.append(f"{where}: {shown(repr(texts), 60)}. Expected a list of prompts.")
                continue
            found += [
                (f"{where}, prompt {i}", str(finding), kind, t) for i, t in enumerate(texts, 1)
            ]
    return found, problems


def _checked(found: Found, problems: list[str]) -> list[Row]:
    """Rows that can be taken; what is wrong with others, or with a finding, joins the problems."""
    rows: list[Row] = []
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for place, given, kind, text in found:
        finding = "_".join(given.lower().replace("-", " ").replace("_", " ").split())
        if finding not in NAMES:
            problems.append(f"{place}: no finding {shown(given, 60)!r}{nearest(finding, NAMES)}")
            continue
        sides[finding].add(kind)
        if not isinstance(text, str) or not text.strip() or len(text) > MOST:
            said = shown(repr(text), 60)
            problems.append(f"{place}: {said}. Expected a text of 1 to {MOST} characters.")
            continue
        text = " ".join(text.split())
        other, side = seen.setdefault((finding, text), (place, kind))
        if (
            side != kind
        ):  # twice on one side is left: the authors' list has such, and it counts twice
            problems.append(f"{place}: {shown(text, 60)!r} is {side} at {other}. Keep one side.")
            continue
        rows.append((finding, kind, "reported", text))
    for finding, has in sides.items():
        for kind in sorted(set(KINDS) - has):
            problems.append(f"{finding}: no prompts under {kind}. A score compares both sides.")
    if not found and not problems:
        problems.append("no prompts. Write a row for each.")
    return rows


def _told(path: Path, problems: list[str]) -> str:
    more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
    count = f"{len(problems)} problem{'s'[: len(problems) != 1]}"
    return "\n  ".join([f"{path.name}: {count}", *problems[:20], *more])
