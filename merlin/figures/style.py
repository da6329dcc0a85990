"""How figures look and how they are saved: sizes for the page, one palette, files with provenance.

A figure is drawn from tables alone, and saved with those tables and a JSON sidecar; `redraw` makes
it again from these files in seconds. One colour means one thing in all figures.
"""

import io
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from merlin.run import atomic, changed_texts, read_csv, write_csv, write_json
from merlin.words import lines, without_folders

Tables = Mapping[str, pd.DataFrame]  # of one figure, by the ends of their files' names
Facts = Mapping[str, Any]  # its sidecar
Draw = Callable[[Tables, Facts], Figure]

COLUMN_MM, PAGE_MM, MAX_HEIGHT_MM = 89, 183, 170
# Okabe and Ito's colours, told apart with any common colour vision.
COLOUR = {
    "merlin": "#0072B2",
    "less data": "#56B4E9",
    "external": "#E69F00",
    "baseline": "#999999",
    "present": "#D55E00",
    "absent": "#009E73",
    "novel": "#CC79A7",
    "train": "#0072B2",
    "val": "#E69F00",
    "test": "#009E73",
}
MARKER = {"merlin": "o", "less data": "s", "external": "D", "baseline": "x", "novel": "^"}
# Where a name may stand beside its point, in points; the first that is free is taken.
LABEL_PLACES = (
    (4, 3), (4, -4), (-4, 3), (-4, -4), (0, 6), (0, -7), (6, 9), (6, -10), (-6, 9), (-6, -10),
    (-8, -14), (-8, -20), (-8, -26), (-8, 20), (8, -20), (8, 20), (-8, -34), (-8, 30), (4, 3),
)  # fmt: skip
SOFT_TISSUE = (-160, 240)  # W 400 L 40
LUNG = (-1350, 150)  # W 1500 L -600
BONE = (-350, 1150)  # W 1500 L 400

RC: dict[Any, Any] = {
    "font.size": 6.5,
    "axes.titlesize": 7,
    "axes.labelsize": 6.5,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "savefig.dpi": 300,
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
}


def new_figure(width_mm: float, height_mm: float, **mosaic: Any) -> tuple[Figure, dict[Any, Axes]]:
    """A figure of that size on the page, in house style.

    Parameters
    ----------
    width_mm, height_mm : float
    **mosaic
        `mosaic=`, `width_ratios=` and what else `Figure.subplot_mosaic` takes.

    Returns
    -------
    figure, axes : dict of str to Axes
    """
    with mpl.rc_context(RC):
        figure = plt.figure(figsize=(width_mm / 25.4, height_mm / 25.4), layout="constrained")
        axes = figure.subplot_mosaic(**mosaic)
    for ax in axes.values():
        ax.tick_params(length=2, width=0.6)
    return figure, axes


def lettered_figure(height_mm: float, mosaic: str, **more: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the page, each panel with the letter that stands for it in `mosaic`.

    Parameters
    ----------
    height_mm : float
    mosaic : str
        Rows of letters, as "ab;ac" for a tall first panel.
    **more
        To `new_figure`.

    Returns
    -------
    figure, axes : list of Axes
        In the order of their letters.
    """
    figure, axes = new_figure(PAGE_MM, height_mm, mosaic=mosaic, **more)
    for letter, ax in axes.items():
        ax.set_title(letter, loc="left", fontweight="bold", fontsize=8, pad=3)
    return figure, [axes[letter] for letter in sorted(axes)]


def stamp(figure: Figure, text: str) -> None:
    """Write tier and numbers inside the picture, where no crop can lose them."""
    # A letter of this size is about 0.9 mm wide.
    text = textwrap.fill(text, int(figure.get_figwidth() * 25.4 / 0.93))
    lines = text.count("\n") + 1
    room = (6 * lines + 1) / 72 / figure.get_figheight()  # 6 points a line: low figures need more
    foot = max(0.03 if lines == 1 else 0.045, 0.004 + room)
    figure.set_layout_engine("constrained", rect=(0, foot, 1, 1 - foot))
    figure.text(0.5, 0.004, text, ha="center", va="bottom", fontsize=5, color="#666666")


def stamp_text(facts: Facts) -> str:
    """`phantom · synthetic …, not a clinical result · profile … · seed …` from a sidecar."""
    counts = ", ".join(f"{v:,} {k}" for k, v in facts.get("n", {}).items())
    said = [facts["tier_note"], counts, facts.get("interval", "")]
    return " · ".join(
        x for x in (*said, f"profile {facts['profile']}", f"seed {facts['seed']}") if x
    )


def label_points(
    ax: Axes, x: pd.Series, y: pd.Series, texts: Sequence[str], *, fontsize: float = 5
) -> None:
    """Names beside points, each where it covers no point and no other name; empty ones are left out.

    Call it when the panel has its limits; the figure is laid out first.
    """
    if (figure := ax.get_figure(root=True)) is None:
        return
    figure.draw_without_rendering()
    at = ax.transData.transform(np.column_stack([x, y]))
    px = figure.dpi / 72  # pixels a point
    taken = [Bbox.from_extents(*(p - 2 * px), *(p + 2 * px)) for p in at]
    inside = ax.get_window_extent()
    for (a, b), text in zip(zip(x, y, strict=True), texts, strict=True):
        if not text:
            continue
        for n, (dx, dy) in enumerate(LABEL_PLACES):
            said = ax.annotate(
                text, (a, b), (dx, dy), textcoords="offset points", fontsize=fontsize,
                ha="left" if dx > 0 else "right" if dx < 0 else "center", va="center",
                arrowprops=dict(arrowstyle="-", linewidth=0.3) if abs(dy) > 10 else None,
            )  # fmt: skip
            said.get_window_extent()  # finds its place
            box = Text.get_window_extent(said)  # without its line to the point
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1
            fits = fits and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if (fits and not box.count_overlaps(taken)) or n == len(LABEL_PLACES) - 1:
                taken.append(box)
                break
            said.remove()


def save_figure(folder: str | Path, name: str, tables: Tables, facts: Facts, draw: Draw) -> Figure:
    """Draw a figure from tables and write picture, tables and sidecar.

    Parameters
    ----------
    folder : path
    name : str
    tables : dict of str to DataFrame
        Written as `<name>.csv` for the key "" and `<name>_<key>.csv` for others.
    facts : dict
        From `run.provenance`, with `n`, `interval` and `caption`.
    draw : callable
        Tables and facts → Figure.

    Returns
    -------
    matplotlib.figure.Figure
    """
    folder = Path(folder)
    for key, table in tables.items():
        write_csv(_table_path(folder, name, key), table)
    # Draw from what was written, so that a later redraw sees the same numbers.
    write_json(folder / f"{name}.json", without_folders({**facts, "tables": list(tables)}))
    return redraw(folder, name, draw)


def _table_path(folder: Path, name: str, key: str) -> Path:
    return folder / f"{name}{'_' + key if key else ''}.csv"


def redraw(folder: str | Path, name: str, draw: Draw) -> Figure:
    """Draw a saved figure again from its tables; returns the Figure."""
    folder = Path(folder)
    facts = json.loads((folder / f"{name}.json").read_text())
    paths = {key: _table_path(folder, name, key) for key in facts["tables"]}
    tables = {key: read_csv(path, keep_default_na=True) for key, path in paths.items()}
    # Loading a notebook's backend turns interactive drawing on. Done by the first figure, inside the
    # settings below, that would be undone with them, and no later figure would be shown.
    plt.switch_backend(mpl.get_backend())
    with mpl.rc_context(RC):
        figure = drawn(draw, tables, facts)
        for suffix in ("png", "pdf"):
            buffer = io.BytesIO()
            # No dates inside: the same tables give the same file.
            plain = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
            figure.savefig(buffer, format=suffix, dpi=300, metadata=plain)
            with atomic(folder / f"{name}.{suffix}", "wb") as stream:
                stream.write(buffer.getbuffer())
    return figure


def drawn(draw: Draw, tables: Tables, facts: Facts) -> Figure:
    """The stamped figure of a drawing function; names in tables and facts show as they are written.

    Call it, and save the figure, within `mpl.rc_context(RC)`.
    """
    tables, facts = _drawable(tables), _drawable(facts)
    figure = draw(tables, facts)
    stamp(figure, stamp_text(facts))
    return figure


def _drawable(value: Any) -> Any:
    """Every text so that nothing in it steers a terminal or is set as a formula, which dollars would open."""
    if isinstance(value, str):
        return lines(value).replace("$", r"\$")
    if isinstance(value, dict):
        return {_drawable(k): _drawable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_drawable(v) for v in value]
    if isinstance(value, pd.DataFrame):
        return changed_texts(value, _drawable)
    return value


def show_slice(
    ax: Axes,
    array: np.ndarray,
    *,
    window: tuple[float, float] = SOFT_TISSUE,
    aspect: float = 1.0,
    text: str = "",
    sides: Sequence[str] = (),
) -> None:
    """Show a slice in radiological convention: (rows top to bottom, the patient's right at left).

    `text` stands in its upper corner; `sides` in the lower ones, from the left.
    """
    low, high = window
    ax.imshow(array, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    white: dict[str, Any] = dict(color="white", transform=ax.transAxes)
    ax.text(0.02, 0.98, text, fontsize=5, va="top", **white)
    for x, side in zip((0.02, 0.94), sides, strict=False):
        ax.text(x, 0.02, side, fontsize=6, **white)
