"""Figures of the cohort, of one scan, of pretraining and its embeddings: tables → figures.

No files, no statistics. Figure functions take the tables by name and the sidecar's facts, and
return the figure. The names in `FIGURES` are those of the files in `figures/`.
"""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from merlin.data.slices import table_to_images
from merlin.figures import marks, style
from merlin.figures.marks import LINE, Look, pretty, unique, where
from merlin.figures.style import COLOUR, PAGE_MM, Facts, Tables, lettered_figure, new_figure
from merlin.figures.zero_shot import draw_zero_shot

EDGE = "#7A8793"  # of boxes and arrows
WINDOWS = {"lung bases": style.LUNG, "sagittal": style.BONE}
NAMED_WINDOWS = {
    "soft tissue": style.SOFT_TISSUE,
    "liver": (10, 170),
    "lung": style.LUNG,
    "bone": style.BONE,
}
WINDOW_NAMES = {"lung bases": "W 1500 L −600", "sagittal": "W 1500 L 400"}
ARM_COLOURS = [COLOUR[k] for k in ("merlin", "less data", "external", "present", "baseline")]


def draw_one_study(tables: Tables, facts: Facts) -> Figure:
    """One phantom in three planes, with its report and codes beside it."""
    images = table_to_images(tables["slices"])
    lines = [f"{row.kind}: {row.text}" for row in tables["text"].itertuples()]
    text = "\n\n".join(textwrap.fill(x, 56) for x in lines)
    height = max(78, 12 + 2.3 * text.count("\n"))  # a long report: 2.3 mm a line of 5 pt
    figure, (*planes, said) = lettered_figure(height, "abcd", width_ratios=[1.25, 1, 0.7, 1.35])
    upright = facts["slice_mm"] / facts["pixel_mm"]
    for ax, plane in zip(planes, ("axial", "coronal", "sagittal"), strict=True):
        window = NAMED_WINDOWS[facts.get("windows", {}).get(plane, "soft tissue")]
        style.show_slice(
            ax,
            images[plane],
            window=window,
            aspect=1.0 if plane == "axial" else upright,
            text=f"{plane}, {_said(window)}",
            sides="AP" if plane == "sagittal" else "RL",
        )
    said.axis("off")
    said.text(0, 1, text, va="top", fontsize=5, linespacing=1.25)
    return figure


def draw_cohort(tables: Tables, facts: Facts) -> Figure:
    """Cohort flow, prevalence by site, and HU by organ against real CT's usual values."""
    figure, (flow, prevalence, hu) = lettered_figure(118, "abc", width_ratios=[0.95, 1.1, 1.1])
    _draw_flow(flow, tables["flow"])
    _draw_prevalence(prevalence, tables["prevalence"])
    _draw_organ_hu(hu, tables["hu"])
    return figure


def _draw_flow(ax: Axes, table: pd.DataFrame) -> None:
    """Boxes with arrows from all patients down to each split and site."""
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    rows = table.to_dict("records")
    inside = [r for r in rows if r["step"].startswith("internal")]
    outside = [r for r in rows if r["step"].startswith("external")]
    _box(ax, rows[0], 0.5, 0.93)
    arrow = dict(arrowstyle="-|>", mutation_scale=5, color=EDGE, linewidth=0.6, shrinkA=0)
    levels = np.linspace(0.72, 0.1, max(len(inside), len(outside)))
    for column, x, spine in ((inside, 0.26, 0.03), (outside, 0.78, 0.55)):
        heights = levels[: len(column)]
        for row, y in zip(column, heights, strict=True):
            _box(ax, row, x, y)
        if not column:
            continue
        # From above into the internal box, and along a spine at the left into the others.
        top, entered = 0.885, heights
        if column is inside:
            ax.annotate("", (x, heights[0] + 0.045), (0.42, 0.885), arrowprops=arrow)
            ax.plot([spine, x - 0.17], [heights[0]] * 2, color=EDGE, linewidth=0.6)
            top, entered = heights[0], heights[1:]
        ax.plot([spine, spine], [top, heights[-1]], color=EDGE, linewidth=0.6)
        for y in entered:
            ax.annotate("", (x - 0.16, y), (spine, y), arrowprops=arrow)


def _box(ax: Axes, row: dict, x: float, y: float) -> None:
    name = pretty(row["step"].removeprefix("internal, ").removeprefix("external, "))
    text = f"{name}\n{row['n_patients']:,} patients\n{row['n_studies']:,} studies"
    frame = dict(boxstyle="round,pad=0.4", facecolor="#F3F6F9", edgecolor=EDGE, linewidth=0.6)
    ax.text(x, y, text, ha="center", va="center", fontsize=5.2, bbox=frame)


def _draw_prevalence(ax: Axes, table: pd.DataFrame) -> None:
    """Share of studies with each finding, internal and external."""
    order = where(table, site="internal").sort_values("prevalence", ascending=False)["finding"]
    named = [s for s in unique(table["site"]) if s not in ("internal", "spine")]
    sites = ["internal", *named]
    sns.pointplot(
        table, x="prevalence", y="finding", order=order, hue="site", hue_order=sites, ax=ax,
        palette=[COLOUR["merlin"], *[COLOUR["external"]] * len(named)],
        markers=["o", *"D^vsP*X"[: len(named)]],
        markersize=2.6, linestyle="none", errorbar=None,
    )  # fmt: skip
    ax.set_yticks(range(len(order)), [pretty(n) for n in order], fontsize=5.2)
    ax.set(xlabel="share of studies with the finding", ylabel="")
    ax.set_xlim(left=0)
    ax.legend(ax.get_legend_handles_labels()[0], [pretty(s) for s in sites], loc="lower right")


def _draw_organ_hu(ax: Axes, table: pd.DataFrame) -> None:
    """Median HU and its 5th to 95th percentile by organ, phantoms beside real scans, each alone."""
    sources = {
        "phantom": ("merlin", "o"),
        "real": ("present", "s"),
        "real, enhanced": ("present", "s"),
        "real, no contrast": ("baseline", "D"),
    }
    looks = {k: Look(k, COLOUR[c], marker=m) for k, (c, m) in sources.items()}
    shown = {k: look for k, look in looks.items() if k in set(table["source"])}
    table = table.rename(columns=dict(median="value", p05="low", p95="high"))
    marks.forest(
        ax, table, unique(table["organ"]), shown, column="organ", by="source", fontsize=5.2
    )
    ax.set(xlabel="HU: median, 5th to 95th percentile", xlim=(-1050, 700))
    ax.set_xticks([-1000, -500, 0, 500])
    ax.legend(loc="upper left")


def draw_phantom_ct(tables: Tables, facts: Facts) -> Figure:
    """Phantoms (and a real scan where given) in soft-tissue, lung and bone windows."""
    images = table_to_images(tables["slices"])
    rows = tables["rows"].to_dict("records")
    columns = ("upper abdomen", "kidneys", "pelvis", "lung bases", "coronal", "sagittal")
    figure, axes = new_figure(
        PAGE_MM,
        27 * len(rows) + 10,
        mosaic=[[f"{r['key']}|{c}" for c in columns] for r in rows],
        width_ratios=[1.3, 1.3, 1.3, 1.3, 0.95, 0.7],
    )
    for row in rows:
        for column in columns:
            panel = f"{row['key']}|{column}"
            window = WINDOWS.get(column, style.SOFT_TISSUE)
            aspect = row["slice_mm"] / row["pixel_mm"] if column in ("coronal", "sagittal") else 1.0
            sides = "AP" if column == "sagittal" else "RL"
            style.show_slice(axes[panel], images[panel], window=window, aspect=aspect, sides=sides)
        axes[f"{row['key']}|upper abdomen"].set_ylabel(row["title"], fontsize=5.6)
    for column in columns:
        title = f"{column}\n{WINDOW_NAMES.get(column, 'W 400 L 40')}"
        axes[f"{rows[0]['key']}|{column}"].set_title(title, fontsize=5.6)
    return figure


def draw_findings_gallery(tables: Tables, facts: Facts) -> Figure:
    """Each finding where it is seen: without, with, and with on the model's grid."""
    images = table_to_images(tables["slices"])
    change = tables[""].set_index("finding")
    names, n_columns = change.index.tolist(), 3
    padded = names + ["."] * (-len(names) % n_columns)
    mosaic = [padded[i : i + n_columns] for i in range(0, len(padded), n_columns)]
    figure, axes = new_figure(PAGE_MM, 166, mosaic=mosaic, gridspec_kw=dict(hspace=0, wspace=0))
    for name in names:
        shown = [images.get(f"{name}|{which}") for which in ("without", "with", "model")]
        row = change.loc[name]
        plane, window = row.get("plane", "axial"), NAMED_WINDOWS[row.get("window", "soft tissue")]
        style.show_slice(
            axes[name],
            np.concatenate([s for s in shown if s is not None], axis=1),
            window=window,
            sides="AP" if plane == "sagittal" else "RL",
        )
        about = f"{plane}, {_said(window)}, {row['changed_ml']:,.0f} ml"
        axes[name].set_title(f"{pretty(name)} ({about})", fontsize=4.8, pad=1.5)
    return figure


def _said(window: tuple[float, float]) -> str:
    """A window as radiologists write it."""
    low, high = window
    return f"W {high - low:.0f} L {(low + high) / 2:.0f}".replace("-", "−")


def draw_qc(tables: Tables, facts: Facts) -> Figure:
    """What the model sees of one scan, in three planes, with what was assumed and cut off."""
    images = table_to_images(tables["slices"])
    mosaic = [["axial", "coronal", "sagittal", "text"]]
    figure, axes = new_figure(PAGE_MM, 72, mosaic=mosaic, width_ratios=[1.2, 1.0, 0.8, 1.2])
    r, a, s = facts["grid_spacing_mm"]
    for plane, aspect, sides in (
        ("axial", a / r, "R"),
        ("coronal", s / r, "RL"),
        ("sagittal", s / a, "AP"),
    ):
        style.show_slice(axes[plane], images[plane], aspect=aspect, text=plane, sides=sides)
    axes["text"].axis("off")
    lines = [textwrap.fill(f"{r.what}: {r.value}", 52) for r in tables["text"].itertuples()]
    axes["text"].text(0, 1, "\n".join(lines), va="top", fontsize=5.4, linespacing=1.35)
    return figure


def draw_pretraining(tables: Tables, facts: Facts) -> Figure:
    """Losses, temperature and validation by step, one line an arm.

    Validation is the AUROC of codes; where reports were looked at as well, their loss stands dashed beside
    training's, and the share of volumes that find their own takes a panel, the AUROC's if there are no codes.
    """
    table = tables[""]
    if "phase" in table:  # of runs that went on with their texts alone
        table = where(table, phase="pretrain")
    judged = [("val_phecode_auroc", "mean phecode AUROC, validation", 0.5)]
    if "val_recall_1" in table:
        n = int(table["val_studies"].max())
        own = ("val_recall_1", f"own report nearest of {n:,}, validation", 1 / n)
        judged = [*(judged if table["val_phecode_auroc"].notna().any() else ()), own]
    figure, (report, codes, *seen) = lettered_figure(58, "abcd"[: 2 + len(judged)])
    arms = unique(table["arm"])
    palette = {arm: ARM_COLOURS[i % len(ARM_COLOURS)] for i, arm in enumerate(arms)}
    marks.curves(report, table, "step", "report_loss", "arm", palette, legend=False)
    if "val_contrastive_loss" in table:
        beside = table.dropna(subset=["val_contrastive_loss"])
        dashed: dict[str, Any] = dict(legend=False, linestyle="--", dots=4)
        marks.curves(report, beside, "step", "val_contrastive_loss", "arm", palette, **dashed)
    marks.curves(codes, table, "step", "ehr_loss", "arm", palette, legend=False)
    for ax, (column, label, blind) in zip(seen, judged, strict=True):
        shown = table.dropna(subset=[column])
        marks.curves(ax, shown, "step", column, "arm", palette, dots=4)
        ax.set_ylabel(label)
        ax.axhline(blind, **LINE)
        if ax.get_legend():  # a short run may never have been judged
            sns.move_legend(ax, "lower right")
    report.set_ylabel("report loss, InfoNCE (nats)")
    codes.set_ylabel("code loss, BCE (nats)")
    for ax in (report, codes, *seen):
        ax.set_xlabel("optimiser step")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def draw_embeddings(tables: Tables, facts: Facts) -> Figure:
    """Images in their two main directions, and similarity of studies to reports."""
    figure, (plane, shift, similarity) = lettered_figure(66, "abc")
    points = tables[""].assign(said=tables[""]["finding"].map({0: "absent", 1: "present"}))
    kinds, colours = ["absent", "present"], [COLOUR["absent"], COLOUR["present"]]
    series = dict(hue="said", hue_order=kinds, palette=colours)
    sns.scatterplot(
        points, x="x", y="y", style="said", style_order=kinds, markers=["o", "^"], s=8,
        alpha=0.7, linewidth=0, ax=plane, **series,
    )  # fmt: skip
    named = [f"{pretty(facts['finding'])} {kind}" for kind in kinds]
    high: dict[str, Any] = dict(loc="lower right", bbox_to_anchor=(1, 1))
    first, second = facts["explained"][:2]
    plane.set(xlabel=f"direction 1 ({first:.0%} of variance)", ylabel=f"direction 2 ({second:.0%})")
    if len(points):  # no report of a spine series mentions the finding
        plane.legend(plane.get_legend_handles_labels()[0], named, markerscale=1.2, **high)
        edges = np.linspace(points["score"].min(), points["score"].max(), 26)
        sns.histplot(
            points,
            x="score",
            bins=edges,
            element="step",
            fill=False,
            ax=shift,
            linewidth=1,
            **series,
        )
        sns.move_legend(
            shift,
            **high,
            title=None,
            labels=[f"{k} (n = {(points['said'] == k).sum()})" for k in kinds],
        )
    shift.axvline(0, **LINE)
    shift.set(
        xlabel="similarity to presence − absence prompts", ylabel="test studies that mention it"
    )
    sns.heatmap(
        tables["matrix"].to_numpy(float), cmap="viridis", square=True, xticklabels=2, yticklabels=2,
        rasterized=True, ax=similarity, cbar_kws=dict(shrink=0.8, label="similarity (dot product)"),
    )  # fmt: skip
    similarity.tick_params(axis="y", rotation=0)
    similarity.set(xlabel="report of study", ylabel="volume of study")
    return figure


FIGURES = {
    "one_study": draw_one_study,
    "cohort": draw_cohort,
    "phantom_ct": draw_phantom_ct,
    "own_ct": draw_phantom_ct,
    "findings_gallery": draw_findings_gallery,
    "qc": draw_qc,
    "pretraining": draw_pretraining,
    "embeddings": draw_embeddings,
    "zero_shot_findings": draw_zero_shot,
}
