"""Redraw every figure of a folder from its tables and sidecars: `python -m merlin.figures.redraw figures`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from merlin.figures import catalogue, style
from merlin.figures.style import Draw, Facts, Tables


def without_tier(tables: Tables) -> Tables:
    """Tables without the last column `tier` that those of `figures/` have (older ones lack it)."""
    return {k: t.iloc[:, :-1] if list(t.columns[-1:]) == ["tier"] else t for k, t in tables.items()}


def _of_committed(draw: Draw) -> Callable[[Tables, Facts], Figure]:
    return lambda tables, facts: draw(without_tier(tables), facts)


def main(folder):
    """Redraw all; returns an exit code."""
    folder, began = Path(folder), time.time()
    names = [n for n in catalogue.FIGURES if (folder / f"{n}.json").exists()]
    if not names:
        sys.stderr.write(f"No figures with tables in {folder}/. Run make figures first.\n")
        return 1
    for name in names:
        plt.close(style.redraw(folder, name, _of_committed(catalogue.FIGURES[name])))
        sys.stdout.write(f"redrew {folder / name}.png\n")
    sys.stdout.write(f"{len(names)} figures in {time.time() - began:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
