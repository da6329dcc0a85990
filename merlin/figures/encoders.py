"""Encoders at one table: how much a linear head reads from each, against the number of labels."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from merlin.figures import marks, off_shelf
from merlin.figures.marks import LINE, Look, pretty, unique, where
from merlin.figures.style import Facts, Tables, lettered_figure

MARKERS = "osD^vPX*"


def looks(models: list[str]) -> dict[str, Look]:
    """A colour and a marker of its own for each encoder."""
    known = off_shelf.arms([m for m in models if m not in marks.RIVALS]) | marks.RIVALS
    return {m: known[m]._replace(marker=MARKERS[i % len(MARKERS)]) for i, m in enumerate(models)}


def draw_encoders(tables: Tables, facts: Facts) -> Figure:
    """Label-efficiency curves, differences from the first encoder by budget, and findings with all labels."""
    table = where(tables[""], status="ok").assign(budget=tables[""]["budget"].astype(str))
    macro = where(table, label="macro")
    budgets, models = _budgets(macro), unique(macro["model"])
    look = looks(models)
    each = where(table, budget="all")
    each = each[each["label"] != "macro"]
    order = where(each, model=models[0]).sort_values("value", ascending=False)["label"].tolist()
    height = max(100.0, 26 + 3.3 * len(order))
    figure, (curve, gaps, findings) = lettered_figure(
        min(height, 165), "ac;bc", width_ratios=[1.25, 1], height_ratios=[1.25, 1]
    )
    _draw_by_budget(curve, macro, budgets, look)
    curve.set_ylabel("macro AUROC, test patients")
    curve.axhline(0.5, **LINE)
    marks.legend_above(curve, 3)
    curve.set_ylim(top=min(curve.get_ylim()[1], 1.005))
    paired = tables["paired"]
    paired = paired[paired["model"].eq(models[0]) & paired["other"].ne(paired["model"])]
    if len(paired):
        paired = paired.assign(model=paired["other"], budget=paired["budget"].astype(str))
        _draw_by_budget(gaps, paired, budgets, look)
    gaps.axhline(0, **LINE)
    gaps.set_ylabel(f"{look[models[0]].label} minus the other")
    for ax in (curve, gaps):
        ax.set_xlabel("labelled positives a finding, or all training studies")
    shown = {m: look[m] for m in models if m in set(each["model"])}
    marks.forest(findings, each, order, shown, fontsize=5, names=[pretty(f) for f in order])
    findings.set_xlabel("AUROC with all labels (dotted: chance)")
    findings.axvline(0.5, **LINE)
    return figure


def _budgets(macro: pd.DataFrame) -> list[str]:
    """Names of the budgets from no label to all."""
    found = unique(macro["budget"])
    shots = sorted((b for b in found if b[:1].isdigit()), key=lambda b: int(b.partition("-")[0]))
    return [b for b in ("zero-shot", *shots, "all") if b in found]


def _draw_by_budget(
    ax: Axes, table: pd.DataFrame, budgets: list[str], looks: Mapping[str, Look]
) -> None:
    """A value with its interval for each budget and encoder; few-shot points and `all` are joined."""
    models = [m for m in looks if m in set(table["model"])]
    for i, name in enumerate(models):
        part = where(table, model=name).set_index("budget")
        part = part.reindex([b for b in budgets if b in part.index])
        x = np.array([budgets.index(b) for b in part.index]) + 0.5 / len(models) * (
            i - (len(models) - 1) / 2
        )
        look, joined = looks[name], part.index != "zero-shot"
        ax.vlines(x, part["low"], part["high"], color=look.colour, linewidth=0.8)
        ax.plot(x[joined], part["value"][joined], color=look.colour, linewidth=0.7, alpha=0.6)
        ax.plot(
            x, part["value"], look.marker, color=look.colour, markersize=2.6, linestyle="none",
            label=look.label,
        )  # fmt: skip
    names = [b.removesuffix("-shot") if b[:1].isdigit() else b for b in budgets]
    ax.set_xticks(range(len(budgets)), names)
    ax.set_xlim(-0.5, len(budgets) - 0.5)


FIGURES = {"encoders": draw_encoders}
