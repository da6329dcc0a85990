"""What panels are made of: rows of points with intervals, stacked bars, legends, lines for reference.

Tables in, axes out. Intervals are drawn as the tables give them: nothing is computed here, and
nothing that seaborn would compute for itself is asked of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from merlin.figures.style import COLOUR

LINE: dict[str, Any] = dict(color=COLOUR["baseline"], linewidth=0.6, linestyle=":")


class Look(NamedTuple):
    """How a series is drawn, and what the legend calls it."""

    label: str
    colour: str
    marker: str = "o"
    size: float = 2.4


METRICS = {
    "auroc": Look("AUROC", "#444444", "o", 2.6),
    "f1": Look("F1", "#444444", "s", 2.6),
    "f1_balanced": Look("F1, balanced", "#444444", "^", 2.6),
    "auprc": Look("AUPRC", "#444444", "s", 2.6),
}
# Taught without a network of ours, and what only a phantom knows.
RIVALS = {
    "age_sex": Look("age and sex", "#7A5C3E"),
    "age_sex_phase": Look("age, sex, phase", "#7A5C3E"),
    "organs": Look("organ measurements", "#7A5C3E"),
    "organs_person": Look("organs, age, sex, phase", "#7A5C3E"),
    "probe": Look("supervised probe", "#7A5C3E"),
    "truth": Look("true findings", "#444444"),
    "truth_traits": Look("true findings and traits", "#444444"),
}


def pretty(name: object) -> str:
    """`hepatic_steatosis` → `hepatic steatosis`."""
    return str(name).replace("_", " ")


def where(table: pd.DataFrame, **equal: object) -> pd.DataFrame:
    """The rows that hold these values: `where(table, model="main", metric="auroc")`."""
    for column, value in equal.items():
        table = table[table[column] == value]
    return table


def unique(column: pd.Series) -> list:
    """Values of a column in the order of their first rows."""
    return column.drop_duplicates().tolist()


def forest(
    ax: Axes,
    table: pd.DataFrame,
    rows: Sequence | None,
    looks: Look | Mapping[Any, Look],
    *,
    column: str = "label",
    by: str = "model",
    at: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    fontsize: float | None = None,
    colours: Mapping[Any, str] | None = None,
) -> None:
    """Points with intervals, row by row from the top.

    Parameters
    ----------
    ax : Axes
    table : DataFrame
        `value, low, high`; with a `status`, rows that are not ok are left out.
    rows : sequence or None
        Values of `column`, one row each; without, each row of the table is one.
    looks : Look, or dict of value of `by` to Look
        One series, or several side by side in each row.
    column, by : str
    at : sequence of float, optional
        Where the rows stand; one apart otherwise.
    names : sequence of str, optional
        What the axis calls the rows.
    fontsize : float, optional
        Of the names.
    colours : dict of row to colour, optional
        In place of the looks', which the legend keeps.
    """
    if rows is None:
        table, column, rows = table.assign(row=range(len(table))), "row", range(len(table))
    at = list(range(len(rows)) if at is None else at)
    place = dict(zip(rows, at, strict=True))
    table = table[table[column].isin(rows)]
    if "status" in table:
        table = where(table, status="ok")
    series = {None: looks} if isinstance(looks, Look) else looks
    for i, (key, look) in enumerate(series.items()):
        part = table if key is None else table[table[by] == key]
        shift = 0.8 / len(series) * (i - (len(series) - 1) / 2)
        y = np.array([place[r] for r in part[column]]) + shift
        colour = [colours[r] for r in part[column]] if colours else look.colour
        ax.hlines(y, part["low"], part["high"], colors=colour, linewidth=0.9)
        ax.scatter(part["value"], y, s=look.size**2, c=colour, marker=look.marker, zorder=2)
        ax.plot([], [], look.marker, color=look.colour, markersize=look.size, label=look.label)
    ax.set_yticks(at, [pretty(r) for r in rows] if names is None else names)
    if fontsize:
        ax.tick_params(axis="y", labelsize=fontsize)
    ax.set_ylim(max(at, default=0) + 0.6, -0.6)


def forest_of_models(
    ax: Axes, macro: pd.DataFrame, models: Mapping[str, Look], metrics: Sequence[str]
) -> None:
    """A row for each model in its colour, in it a point for each metric with that metric's marker."""
    forest(
        ax, macro, list(models), {m: METRICS[m] for m in metrics}, column="model", by="metric",
        names=[look.label for look in models.values()],
        colours={model: look.colour for model, look in models.items()},
    )  # fmt: skip
    ax.set_xlim(0, 1)


def curves(
    ax: Axes,
    table: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    palette: Mapping[str, str],
    *,
    dots: float = 0,
    **more: Any,
) -> None:
    """A curve for each value of `by` through its rows as they are, with `dots` of that many points."""
    if not len(table):
        return  # for whose colours seaborn would have no use, and say so
    if dots:
        more |= dict(marker="o", markersize=dots, markeredgewidth=0)
    table = table.reset_index(drop=True)
    sns.lineplot(table, x=x, y=y, hue=by, palette=dict(palette), estimator=None, ax=ax, **more)


def stacked_bars(ax: Axes, counts: pd.DataFrame, colours: Sequence[str]) -> None:
    """A bar for each row of a table of counts, its columns one after the other along it."""
    left = np.zeros(len(counts))
    for name, colour in zip(counts, colours, strict=False):
        ax.barh(range(len(counts)), counts[name], left=left, color=colour, height=0.7, label=name)
        left += counts[name].to_numpy()
    ax.set_yticks(range(len(counts)), counts.index)
    ax.invert_yaxis()


def legend_above(ax: Axes, columns: int, **options: Any) -> None:
    """Legend over the panel's upper edge, beside the letter; a word where nothing was drawn."""
    if not ax.get_legend_handles_labels()[1]:
        ax.text(0.5, 0.5, "not evaluated", transform=ax.transAxes, ha="center", fontsize=6)
        return
    known = dict(borderaxespad=0, columnspacing=0.9, handletextpad=0.3)
    ax.legend(loc="lower left", bbox_to_anchor=(0.06, 0.99), ncol=columns, **known | options)


def vertical_line(ax: Axes, x: float, text: str = "") -> None:
    """A dotted reference line with its name at the top."""
    ax.axvline(x, **LINE)
    ax.annotate(
        text, (x, 1), (2, -1), xycoords=("data", "axes fraction"), textcoords="offset points",
        fontsize=5, va="top", color=COLOUR["baseline"],
    )  # fmt: skip
