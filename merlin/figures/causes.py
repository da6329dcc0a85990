"""Figures of `18_causes`: what moves a score, and where a score looks. Tables → figures; nothing is computed."""

from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from merlin.data.slices import table_to_images
from merlin.figures import marks, style
from merlin.figures.marks import LINE, Look, pretty, unique, where
from merlin.figures.style import COLOUR, PAGE_MM, Facts, Tables, lettered_figure, new_figure

EXAMPLES = 6  # curves of detection
LOOKS = {
    "main": Look("trained", COLOUR["merlin"], "o", 2.6),
    "random weights": Look("random weights", COLOUR["baseline"], "s"),
    "chance": Look("chance: share of the body", "#444444", "|", 3.4),
}
SHADES = (COLOUR["merlin"], COLOUR["present"])  # of the two findings that are moved
PICTURES = ("with", "without", "true change", "moved", "gradient")
SMALLEST = 1e-4  # share of a gradient that is drawn; what has none lies left of it
CHANGE_HU = 600  # at the ends of the colours of a true change


def draw_causes(tables: Tables, facts: Facts) -> Figure:
    """What each finding does to its own score, what every change does to every prompt, detection by dose."""
    figure, (effect, heat, *curves) = lettered_figure(
        170, "aabbbb;cdefgh", height_ratios=[3.5, 1], width_ratios=[1.1, 1, 1, 1, 1, 1]
    )
    table = where(tables[""], status="ok")
    own = where(table, metric="score difference").sort_values("value", ascending=False)
    names = own["label"].tolist()
    causes = tables["matrix"]
    rows = [*names, *(c for c in unique(causes["change"]) if c not in names)]
    words = facts.get("person", {})
    _draw_effects(
        effect, own, where(table, metric="agreement of pairs"), [words.get(r, r) for r in rows]
    )
    _draw_matrix(heat, causes, rows, [*names, *sorted(set(causes["prompt"]) - set(names))])
    shown = facts.get("examples", [])[:EXAMPLES]
    for ax, name in zip_longest(curves, shown):
        if name is None:
            ax.set_axis_off()
            ax.set_title("", loc="left")
            continue
        _draw_curve(ax, name, tables, facts)
    curves[0].set_ylabel("share found")
    return figure


def _draw_effects(ax: Axes, own: pd.DataFrame, pairs: pd.DataFrame, rows: list[str]) -> None:
    """A row a finding, as high as the matrix's beside it, with the share of pairs ordered rightly."""
    at = [i + 0.5 for i in range(len(rows))]
    names = own["label"].tolist()
    marks.forest(ax, own, names, Look("", COLOUR["merlin"], size=2.6), at=at[: len(names)])
    ax.axvline(0, **LINE)
    share = pairs.set_index("label")["value"]
    beside: dict[str, Any] = dict(textcoords="offset points", annotation_clip=False, fontsize=4.8)
    for y, name in zip(at, names, strict=False):
        ax.annotate(
            f"{share[name]:.0%}",
            (1, y),
            (2, 0),
            xycoords=("axes fraction", "data"),
            va="center",
            **beside,
        )
    ax.annotate("in order", (1, 1), (2, 2), xycoords="axes fraction", ha="center", **beside)
    ax.set_yticks(at, [pretty(r) for r in rows], fontsize=5.2)
    ax.set_ylim(len(rows), 0)
    ax.set_xlabel("fall of its own score when the\nfinding is taken out (SD)")


def _draw_matrix(ax: Axes, causes: pd.DataFrame, rows: list[str], prompts: list[str]) -> None:
    """Mean effect of every change on every prompt; frames mark a finding's own."""
    wide = causes.pivot_table(index="change", columns="prompt", values="value")
    wide = wide.reindex(index=rows, columns=prompts)
    most = float(np.nanmax(np.abs(wide.to_numpy())))
    sns.heatmap(
        wide, cmap="vlag", vmin=-most, vmax=most, ax=ax, xticklabels=True, yticklabels=False,
        rasterized=True, cbar_kws=dict(shrink=0.5, label="effect on the prompt's score (SD)", pad=0.01),
    )  # fmt: skip
    ax.set_xticks(
        np.arange(len(prompts)) + 0.5, [pretty(p) for p in prompts], rotation=90, fontsize=5.2
    )
    for i, name in enumerate(rows):
        if name in prompts:
            j = prompts.index(name)
            ax.plot([j, j + 1, j + 1, j, j], [i, i, i + 1, i + 1, i], color="black", linewidth=0.4)
    ax.set(xlabel="prompts of", ylabel="")


def _draw_curve(ax: Axes, name: str, tables: Tables, facts: Facts) -> None:
    """Share found against dose: bins as dots, the fitted curve, the dose at which half are found."""
    curve, dots = (where(tables[k], finding=name) for k in ("curves", "binned"))
    ax.fill_between(
        curve["dose"], curve["low"], curve["high"], color=COLOUR["merlin"], alpha=0.15, lw=0
    )
    sns.lineplot(curve, x="dose", y="value", errorbar=None, color=COLOUR["merlin"], ax=ax)
    sns.scatterplot(dots, x="dose", y="value", color=COLOUR["merlin"], s=9, linewidth=0, ax=ax)
    row = where(tables["half"], label=name).iloc[0]
    if row["status"] == "ok":
        ax.plot([row["low"], row["high"]], [0.5, 0.5], color=COLOUR["present"], linewidth=1.2)
        ax.plot(row["value"], 0.5, "o", color=COLOUR["present"], markersize=3)
    if name in facts.get("limits", {}):
        ax.axvline(facts["limits"][name], **LINE)
    pad = 0.04 * (row["highest"] - row["lowest"])
    ax.set(xlim=(row["lowest"] - pad, row["highest"] + pad), ylim=(-0.04, 1.04), ylabel="")
    ax.set_xlabel(f"{pretty(name)}:\n{row['what']}", fontsize=5.6)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(axis="y", labelleft=ax.get_title("left") == "c")


def draw_latent_shift(tables: Tables, facts: Facts) -> Figure:
    """Where gradients lie by finding, and two findings' images moved down theirs."""
    pictures = [[f"{row}{i}" for i in range(len(PICTURES))] for row in "de"]
    mosaic: list = [["a", [[[["b", "c"]]], [pictures]]]]
    figure, axes = new_figure(PAGE_MM, 120, mosaic=mosaic, width_ratios=[1, 2.6])
    for letter, panel in (("a", "a"), ("b", "b"), ("c", "c"), ("d", "d0"), ("e", "e0")):
        axes[panel].set_title(letter, loc="left", fontweight="bold", fontsize=8, pad=3)
    _draw_pointing(axes["a"], tables[""])
    course = tables["course"]
    names = unique(course["finding"])
    _draw_course(axes["b"], course, names, "score", "true_score")
    axes["b"].set(xlabel="change (HU, root mean square)", ylabel="change of the score")
    if names:
        axes["b"].legend(fontsize=5)
    _draw_course(axes["c"], course, names, "inside", "chance")
    axes["c"].set(xlabel="change (HU, root mean square)", ylabel="share of it in the right place")
    axes["c"].set_ylim(bottom=0)
    images = table_to_images(tables["slices"]) if len(tables["slices"]) else {}
    for row, name in zip_longest("de", names[:2]):
        for i, what in enumerate(PICTURES):
            _draw_picture(axes[f"{row}{i}"], images.get(f"{name}|{what}"), what, name, facts)
    return figure


def _draw_pointing(ax: Axes, table: pd.DataFrame) -> None:
    """Share of the gradient inside the finding: trained, random, chance; sorted by the trained network's."""
    part = where(table, metric="agreement of the gradient", status="ok")
    main = where(part, model="main").sort_values("value", ascending=False)
    names = [n for n in main["label"] if n != "macro"]
    rows = [*(["macro"] if "macro" in set(main["label"]) else []), *names]
    alone = part["model"] == "chance"
    part = part.assign(low=part["low"].mask(alone), high=part["high"].mask(alone))
    marks.forest(
        ax,
        part,
        rows,
        LOOKS,
        fontsize=5.2,
        names=[*["mean"] * (len(rows) - len(names)), *map(pretty, names)],
    )
    ax.set_xscale("log")
    ax.set_xlim(SMALLEST, 1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%"))
    ax.set_xlabel("share of the gradient in voxels\nthat the finding changes")
    marks.legend_above(ax, 1, fontsize=5)


def _draw_course(ax: Axes, course: pd.DataFrame, names: list[str], column: str, true: str) -> None:
    """A moved image's course by finding; the dashed line is the true counterfactual, or chance."""
    for name, colour in zip(names, SHADES, strict=False):
        steps = where(course, finding=name)
        sns.lineplot(
            steps, x="moved_hu", y=column, color=colour, errorbar=None, label=pretty(name), ax=ax,
            legend=False,
        )  # fmt: skip
        last = steps.iloc[-1]
        ax.axhline(last[true], color=colour, linewidth=0.6, linestyle="--")
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _draw_picture(
    ax: Axes, image: np.ndarray | None, what: str, name: str | None, facts: Facts
) -> None:
    if image is None:
        ax.set_axis_off()
        return
    r, _, s = facts["grid_spacing_mm"]
    aspect = 1.0 if facts["planes"][name] == "axial" else s / r
    if what in ("with", "without"):
        style.show_slice(ax, image, aspect=aspect)
    else:
        most = (
            CHANGE_HU
            if what == "true change"
            else max(float(np.quantile(np.abs(image), 0.998)), 1e-9)
        )
        ax.imshow(image, cmap="vlag", vmin=-most, vmax=most, aspect=aspect, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if what != "gradient":
            ax.text(0.02, 0.02, f"± {most:.0f} HU", transform=ax.transAxes, fontsize=4.8)
    ax.set_title(what, fontsize=5.6, pad=2)
    if what == "with":
        ax.set_ylabel(pretty(name), fontsize=5.6)


FIGURES = {"causes": draw_causes, "latent_shift": draw_latent_shift}
