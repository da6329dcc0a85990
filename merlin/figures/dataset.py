"""The figure of the dataset audit: tables → figure."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from merlin.figures.style import COLOUR, Facts, Tables, lettered_figure

# Counted by the audit and handled when read: impressions are cut out, volumes are turned.
EXPECTED = (
    "reports with an impression inside",
    "studies without 5-year labels",
    "unusual: orientation",
)


def draw_dataset(tables: Tables, facts: Facts) -> Figure:
    """What was odd, how much body the crop keeps, spacings, and what each figure divides by."""
    figure, (odd, crop, spacing, denominator) = lettered_figure(
        118, "ab;ac;ad", width_ratios=[1.1, 1], height_ratios=[0.8, 0.9, 1.3]
    )
    found = tables["audit"]
    colours = [COLOUR["baseline" if w in EXPECTED else "present"] for w in found["what"]]
    _draw_bars(odd, found["what"], found["n"], [""] * len(found), colours)
    odd.set_xlabel("studies or rows (grey: handled, no defect)")
    survey = tables["survey"]
    ok = survey[survey["status"] == "ok"]
    edges = np.linspace(min(0.9, ok["body_fraction"].min()), 1, 24)
    blue = COLOUR["merlin"]
    sns.histplot(ok, x="body_fraction", bins=edges, alpha=1, color=blue, linewidth=0, ax=crop)
    crop.set(xlabel="share of the body inside the model's crop", ylabel="studies")
    sns.scatterplot(
        ok, x="spacing_r_mm", y="spacing_s_mm", s=5, color=blue, linewidth=0, ax=spacing
    )
    spacing.set(xlabel="pixel (mm)", ylabel="slice (mm)")
    spacing.set_xlim(left=0)
    spacing.set_ylim(bottom=0)
    rows = tables["denominators"]
    details = rows["detail"].fillna("").tolist()
    _draw_bars(denominator, rows["figure"], rows["n_studies"], details, [blue] * len(rows))
    denominator.set_xlabel("test studies")
    return figure


def _draw_bars(
    ax: Axes, names: pd.Series, n: pd.Series, details: Sequence[str], colours: Sequence[str]
) -> None:
    """Horizontal bars from the top with their number, and a detail where one is given, at the end."""
    bars = ax.barh(range(len(n)), n, color=colours, height=0.62)
    ax.bar_label(
        bars, [f"{v:,.0f}  {d}".rstrip() for v, d in zip(n, details, strict=True)], padding=2,
        fontsize=4.8,
    )  # fmt: skip
    ax.set_yticks(range(len(n)), names, fontsize=5.2)
    ax.invert_yaxis()
    ax.set_xlim(0, max([*n, 1]) * (1.75 if any(details) else 1.14))


FIGURES = {"dataset_audit": draw_dataset}
