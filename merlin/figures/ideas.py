"""The figure of `17_ideas`: five ideas on toy numbers, tables → figure."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from merlin.figures import marks
from merlin.figures.marks import LINE, where
from merlin.figures.style import COLOUR, Facts, Tables, lettered_figure

COLOURS = (COLOUR["baseline"], COLOUR["merlin"], COLOUR["present"])


def draw_ideas(tables: Tables, facts: Facts) -> Figure:
    """Inflation, temperature, prompts, resampling, a power law."""
    figure, (inflation, temperature, prompts, resampling, law) = lettered_figure(
        95, "aabbcc;dddeee"
    )
    kernels = dict(zip(("2D kernel", "middle kernel", "spread kernel"), COLOURS, strict=True))
    t = tables["inflation"].rename(columns=lambda c: c if c == "pixel" else f"{c} kernel")
    t = t.melt("pixel", list(kernels), "kernel")
    dashes = ["", (3, 2), ""]
    marks.curves(inflation, t, "pixel", "value", "kernel", kernels, style="kernel", dashes=dashes)
    inflation.set(xlabel="pixel", ylabel="answer to an edge")
    sns.move_legend(inflation, "upper right", bbox_to_anchor=(1.02, 1.0), title=None)
    _draw_temperature(temperature, tables["temperature"])
    t, blue = tables["prompts"], COLOUR["merlin"]
    prompts.plot(t["n_prompts"], t["median"], "o-", color=blue, markersize=3)
    prompts.fill_between(t["n_prompts"], t["low"], t["high"], color=blue, alpha=0.2, lw=0)
    prompts.axhline(0.5, **LINE)
    lines = "dotted: chance"
    if "ceiling" in facts:  # what prompts without noise would reach
        prompts.axhline(facts["ceiling"], color=blue, linewidth=0.6, linestyle="--")
        lines = "lines: chance, ceiling"
    prompts.set(xlabel=f"prompts a side ({lines})", ylabel="AUROC")
    _draw_resampling(resampling, tables["resampling"])
    laws = {"power": "power law", "offset": "law with a ceiling"}
    shades = dict(zip(("truth", "law with a ceiling", "power law"), COLOURS, strict=True))
    t = tables["law"].rename(columns=laws).melt("size", ["truth", *laws.values()], "law")
    marks.curves(law, t, "size", "value", "law", shades)
    law.plot(tables["points"]["size"], tables["points"]["value"], "ko", markersize=3)
    law.set(xlabel="training studies (dots: seen)", ylabel="score", xscale="log")
    sns.move_legend(law, "upper left", title=None)
    return figure


def _draw_temperature(ax: Axes, table: pd.DataFrame) -> None:
    """Loss over temperature for good, fair and poor embeddings."""
    kinds = dict(good=COLOUR["merlin"], fair=COLOUR["external"], poor=COLOUR["present"])
    lowest = table.loc[table.groupby("embeddings")["loss"].idxmin()]
    marks.curves(ax, table, "tau", "loss", "embeddings", kinds, legend=False)
    for row in lowest.itertuples():
        ax.plot(row.tau, row.loss, "o", color=kinds[row.embeddings], markersize=3)
        ax.annotate(
            row.embeddings, (row.tau, row.loss), (0, 4), textcoords="offset points", ha="center",
            color=kinds[row.embeddings],
        )  # fmt: skip
    ax.set(xscale="log", ylim=(0, min(8, table["loss"].max() * 1.05)))
    ax.set(xlabel="temperature τ (dot: lowest loss)", ylabel="InfoNCE (nats)")
    ax.set_title("by quality of the embeddings", fontsize=6, loc="right", pad=3)


def _draw_resampling(ax: Axes, table: pd.DataFrame) -> None:
    """The true spread, filled, and what two ways of resampling take for it."""
    edges = np.linspace(table["deviation"].min(), table["deviation"].max(), 40)
    for what, colour, filled in (
        ("true spread", "baseline", True),
        ("resampling patients", "merlin", False),
        ("resampling scans", "present", False),
    ):
        sns.histplot(
            where(table, what=what), x="deviation", bins=edges, element="step", fill=filled,
            color=COLOUR[colour], label=what, ax=ax, linewidth=0 if filled else 1,
            alpha=0.5 if filled else 1,
        )  # fmt: skip
    ax.set(xlabel="deviation of the accuracy from its mean", ylabel="draws")
    ax.legend(loc="upper left")


FIGURES = {"ideas": draw_ideas}
