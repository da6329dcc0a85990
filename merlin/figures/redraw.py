"""Redraw every figure of a folder from its tables and sidecars: `python -m merlin.figures.redraw figures`."""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from merlin.figures import catalogue, style


def main(folder):
    """Redraw all; returns an exit code."""
    folder, began = Path(folder), time.time()
    names = [n for n in catalogue.FIGURES if (folder / f"{n}.json").exists()]
    if not names:
        sys.stderr.write(f"No figures with tables in {folder}/. Run make figures first.\n")
        return 1
    for name in names:
        plt.close(style.redraw(folder, name, catalogue.FIGURES[name]))
        sys.stdout.write(f"redrew {folder / name}.png\n")
    sys.stdout.write(f"{len(names)} figures in {time.time() - began:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
