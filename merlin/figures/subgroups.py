"""Figures of `19_subgroups`: scores by group, accuracy at the threshold, the most confident errors.

Tables → figures; no files, no statistics.
"""

import itertools
import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from merlin.data.slices import table_to_images
from merlin.figures import marks, style
from merlin.figures.marks import Look, pretty, unique, where
from merlin.figures.panels import NAMED_WINDOWS
from merlin.figures.style import COLOUR, PAGE_MM, Facts, Tables, lettered_figure, new_figure

TASKS = {
    "zero-shot findings": Look("findings", COLOUR["merlin"], size=2.2),
    "phenotypes": Look("phenotypes", COLOUR["external"], "s", 2.2),
    "5-year diseases": Look("5-year diseases", COLOUR["novel"], "^", 2.2),
}
OPERATING = {
    "sensitivity": Look("sensitivity", COLOUR["present"], size=2.2),
    "specificity": Look("specificity", COLOUR["absent"], "s", 2.2),
}
SHADES = (COLOUR["less data"], COLOUR["merlin"], "#003B5C")  # by rising prevalence
LEVEL = 0.05


def draw_subgroups(tables: Tables, facts: Facts) -> Figure:
    """AUROC by group, differences from the others, and accuracy at the threshold by finding."""
    table = tables[""].copy()
    table["row"] = table["attribute"] + "|" + table["label"].astype(str)
    accuracy = tables["accuracy"]
    names = unique(accuracy["label"])
    rows = unique(table["row"])
    heights = [12 + 3.6 * len(rows), 12 + 2.9 * len(names)]
    total = min(sum(heights) + 16, style.MAX_HEIGHT_MM)
    figure, axes = lettered_figure(total, "aabbcc;dddeee", height_ratios=heights)
    _draw_groups(axes[:3], table, rows)
    _draw_accuracy(axes[3], axes[4], accuracy, names)
    return figure


def _draw_groups(axes: list[Axes], table: pd.DataFrame, rows: list[str]) -> None:
    """Values, differences of AUROC, differences at the threshold."""
    steps = [0.0] + [
        1.0 + 0.5 * (one.split("|")[0] != other.split("|")[0])
        for one, other in itertools.pairwise(rows)
    ]
    at = np.cumsum(steps).tolist()
    firsts, names = set(), []
    for row in rows:
        attribute, _, group = row.partition("|")
        names.append(group if attribute in firsts else f"{attribute}: {group}")
        firsts.add(attribute)
    values = where(table, kind="value", metric="auroc")
    gaps = where(table, kind="difference")
    area = where(gaps, metric="difference of auroc")
    rest = gaps.assign(metric=gaps["metric"].str.removeprefix("difference of "))
    drawn = (
        (axes[0], values, TASKS, "task"),
        (axes[1], area, TASKS, "task"),
        (axes[2], rest, OPERATING, "metric"),
    )
    for ax, part, looks, by in drawn:
        marks.forest(ax, part, rows, looks, column="row", by=by, at=at, names=names, fontsize=5)
        if ax is not axes[0]:
            _ring(ax, part, looks, by, dict(zip(rows, at, strict=True)))
            ax.axvline(0, **marks.LINE)
            ax.set_yticklabels([])
    for row, y in zip(rows, at, strict=True):
        part = where(values, row=row)
        if len(part) and not (part["status"] == "ok").any():
            why = "too small to tell" if part["reason"].str.startswith("too small").any() else ""
            text = why or str(part["reason"].iloc[0])
            axes[0].text(
                0.02, y, textwrap.shorten(text, 44), fontsize=4.5, va="center", color="#666666",
                transform=axes[0].get_yaxis_transform(),
            )  # fmt: skip
    axes[0].set_xlabel("macro AUROC of shared labels")
    axes[1].set_xlabel("difference of AUROC, group − others")
    axes[2].set_xlabel("difference at zero, findings")
    marks.legend_above(axes[0], 3, fontsize=5)
    axes[1].plot(
        [], [], "o", color="none", markeredgecolor="black", markersize=5, label="after Holm"
    )
    ring = [axes[1].get_legend_handles_labels()[0][-1]]
    axes[1].legend(
        ring, ["apart from zero after Holm"], loc="lower left", bbox_to_anchor=(0.06, 0.99), fontsize=5,
        borderaxespad=0,
    )  # fmt: skip
    marks.legend_above(axes[2], 2, fontsize=5)


def _ring(ax: Axes, part: pd.DataFrame, looks: dict[str, Look], by: str, place: dict) -> None:
    """Around each difference that is left after Holm, where `marks.forest` put its point."""
    for i, key in enumerate(looks):
        left = part[(part[by] == key) & (part["p_holm"] < LEVEL)]
        y = np.array([place[r] for r in left["row"]]) + 0.8 / len(looks) * (
            i - (len(looks) - 1) / 2
        )
        ax.scatter(
            left["value"], y, s=22, facecolors="none", edgecolors="black", linewidth=0.6, zorder=3
        )


def _draw_accuracy(left: Axes, right: Axes, table: pd.DataFrame, names: list[str]) -> None:
    """Sensitivity and specificity of each finding, and its positive predictive value by prevalence."""
    table = where(table, rule="zero")
    shown = [n for n in names if n != "macro"]
    found = where(table, metric="sensitivity").set_index("label")["value"]
    order = sorted(shown, key=lambda n: -np.nan_to_num(found.get(n, np.nan), nan=-1))
    rows = [*(["macro"] if "macro" in names else []), *order]
    said = [{"macro": "mean of findings"}.get(n, pretty(n)) for n in rows]
    marks.forest(left, table, rows, OPERATING, by="metric", names=said, fontsize=4.8)
    left.set(xlim=(0, 1), xlabel="at the threshold of zero")
    marks.legend_above(left, 2, fontsize=5)
    values = where(table, metric="ppv")
    prevalences = sorted(values["prevalence"].dropna().unique())
    looks = {
        p: Look(f"{p:.0%} have it", SHADES[min(i, len(SHADES) - 1)], "oDs"[i % 3], 2.2)
        for i, p in enumerate(prevalences)
    }
    marks.forest(right, values, rows, looks, by="prevalence", fontsize=4.8)
    right.set_yticklabels([])
    right.set(xlim=(0, 1), xlabel="positive predictive value")
    if looks:
        marks.legend_above(right, len(looks), fontsize=5)


def draw_misread(tables: Tables, facts: Facts) -> Figure:
    """The most confident misses above, false alarms below, each where its finding is seen."""
    table = tables[""]
    if table.empty:
        figure, axes = new_figure(PAGE_MM, 30, mosaic=[["none"]])
        axes["none"].axis("off")
        axes["none"].text(0.5, 0.5, "No error to show, or no volumes.", ha="center", fontsize=6)
        return figure
    images = table_to_images(tables["slices"])
    kinds = unique(table["kind"])
    most = int(table["kind"].value_counts().max())
    mosaic = []
    for kind in kinds:
        row = [str(c) for c in where(table, kind=kind)["case"]]
        mosaic.append(row + ["."] * (most - len(row)))
    figure, axes = new_figure(PAGE_MM, 60 * len(kinds) + 8, mosaic=mosaic)
    for case in table.itertuples():
        ax, window = axes[str(case.case)], NAMED_WINDOWS[case.window]
        sides = "AP" if case.plane == "sagittal" else "RL"
        style.show_slice(ax, images[f"{case.case}|scan"], window=window, sides=sides)
        there = images.get(f"{case.case}|there")
        if there is not None and there.any():
            ax.contour(there, levels=[0.5], colors=COLOUR["external"], linewidths=0.6)
        low, high = window
        about = f"{case.plane}, W {high - low:.0f} L {(low + high) / 2:.0f}".replace("-", "−")
        ax.set_title(f"{case.kind}: {pretty(case.finding)} ({about})", fontsize=5.8, pad=2)
        ax.set_xlabel(_said(case), fontsize=5, loc="left")
    return figure


def _said(case) -> str:
    """What stands below a picture."""
    report = textwrap.shorten(str(case.report), 150, placeholder=" …")
    lines = [f"Report: “{report}”"]
    lines.append(
        f"{case.beyond:.1f} SD beyond the threshold; {case.n_of_kind} "
        f"{'misses' if case.kind == 'miss' else 'false alarms'} of this finding; middle: {case.middle_of}."
    )
    if isinstance(case.truth, str) and case.truth:
        lines.append(f"Truth of the phantom: {case.truth}.")
    return "\n".join(textwrap.fill(line, 66) for line in lines)


FIGURES = {"subgroups": draw_subgroups, "misread": draw_misread}
