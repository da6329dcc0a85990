"""What every command leaves: lines that steer no terminal, and files that replace none in silence."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from merlin.files import atomic_path
from merlin.words import lines


def say(text: object) -> None:
    """Print lines as any terminal can show them."""
    sys.stdout.write(lines(text) + "\n")


def refuse_existing(target: Path, overwrite: bool, beside: Iterable[str] = ()) -> None:
    """Refuse to replace what a call will write: its table, and what comes `beside` it."""
    there = [p for p in (target, *(target.with_name(n) for n in beside)) if p.exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{there[0]} exists. Choose another --out, or pass --overwrite to replace it."
        )


def save_picture(path: Path, draw: Callable, tables: dict, facts: dict) -> None:
    """Draw a stamped figure, whatever a matplotlibrc in the current folder says, and write it."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcdefaults()
    import matplotlib.pyplot as plt

    from merlin.figures import style

    rules: Any = style.RC
    with mpl.rc_context(rules):
        figure = style.drawn(draw, tables, facts)
        with atomic_path(path) as part:
            figure.savefig(part, dpi=200)
    plt.close(figure)
