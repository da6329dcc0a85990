"""Figures about choices: ablations, data scaling, intervals, protocols, and the ledger of claims.

Tables → figures; no files, no statistics.
"""

import textwrap
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from merlin.figures import marks
from merlin.figures.marks import LINE, Look, pretty, unique, where
from merlin.figures.style import COLOUR, Facts, Tables, label_points, lettered_figure

WAYS = {
    "patient percentile": Look("patients, percentile", COLOUR["merlin"]),
    "patient bca": Look("patients, BCa", COLOUR["less data"], "s"),
    "study percentile": Look("studies, percentile", COLOUR["present"], "^"),
    "study bca": Look("studies, BCa", COLOUR["external"], "D"),
}
KINDS = {
    True: Look("as in the tables", COLOUR["merlin"]),
    False: Look("percentiles", COLOUR["present"], "^"),
}
NAMED = {
    "auroc": "AUROC", "auprc": "AUPRC", "f1": "F1", "brier": "Brier", "dice": "Dice", "bleu": "BLEU",
    "rouge2": "ROUGE-2", "clinical_f1": "clinical F1", "distance_mm": "distance",
}  # fmt: skip
VERDICTS = {
    "holds here": COLOUR["absent"],
    "contradicted here": COLOUR["present"],
    "not decided here": COLOUR["external"],
    "not askable here": "#B8A9C9",
    "not run": "#555555",
}
PUBLISHED = (COLOUR["present"], COLOUR["novel"])  # laws
REGIMES = ((COLOUR["merlin"], "o"), (COLOUR["less data"], "^"))  # of training, in 13
DOT = dict(s=14, linewidth=0, legend=False)


def _log_ticks(ax: Axes, subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """1, 2, 5, 10 (or as `subs` says) on a logarithmic x axis, as numbers."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _rows(n: int) -> str:
    """Mosaic of `n` panels above two."""
    *above, left, right = list("abcdefghi"[: n + 2])
    return "".join(above) + ";" + 2 * left + (n - 2) * right


def draw_ablations(tables: Tables, facts: Facts) -> Figure:
    """Differences of each arm from the reference by metric, what the arms cost, and how they learn."""
    table = tables[""]
    gaps = where(table, kind="difference")
    metrics, arms = unique(gaps["metric"]), unique(gaps["label"])
    rows = _rows(len(metrics))
    ratios, height = [1.75, 1], 150
    if "curves" in tables:  # a panel as wide as the page, below
        rows += ";" + len(metrics) * chr(ord("a") + len(metrics) + 2)
        ratios, height = [1.75, 1, 0.8], 170
    figure, axes = lettered_figure(height, rows, height_ratios=ratios)
    for ax, metric in zip(axes, metrics, strict=False):
        _draw_gaps(ax, where(gaps, metric=metric), arms)
        ax.set_xlabel(f"Δ {metric}")
    for ax in axes[1 : len(metrics)]:
        ax.set_yticks([])
    _draw_costs(axes[len(metrics) : len(metrics) + 2], table, tables["cost"])
    if "curves" in tables:
        _draw_learning(axes[-1], tables["curves"], tables["cost"])
    return figure


def _draw_costs(axes: list[Axes], table: pd.DataFrame, cost: pd.DataFrame) -> None:
    """Phenotype AUROC against memory and time of the arms that change the network."""
    value = where(table, kind="value", metric="phenotype AUROC")[["label", "value"]]
    both = cost.merge(value, left_on="arm", right_on="label")
    shapes = both[both["changes_network"]]
    columns = ("saved_mb", "seconds_per_step")
    for ax, column in zip(axes, columns, strict=True):
        sns.scatterplot(shapes, x=column, y="value", color=COLOUR["merlin"], ax=ax, **DOT)
        _log_ticks(ax)
        ax.set_xlim(shapes[column].min() * 0.8, shapes[column].max() * 2.2)
        ax.set_ylim(shapes["value"].min() - 0.01, shapes["value"].max() + 0.01)
        ax.set_ylabel("phenotype AUROC" if ax is axes[0] else "")
    axes[0].set_xlabel("kept for the backward pass\n(MB a study)")
    axes[1].set_xlabel("seconds a step\n(16 studies, one core)")
    said = [f"{pretty(r.arm)} ({r.parameters / 1e6:.1f} M)" for r in shapes.itertuples()]
    for ax, column in zip(axes, columns, strict=True):  # when every panel has its place
        label_points(ax, shapes[column], shapes["value"], said)


def _draw_learning(ax: Axes, curves: pd.DataFrame, cost: pd.DataFrame) -> None:
    """Validation AUROC against steps of the arms that change the network."""
    names = cost.loc[cost["changes_network"], "arm"]
    shown = [n for n in names if n in set(curves["arm"])]
    palette = dict(zip(shown, sns.color_palette("colorblind", len(shown)), strict=True))
    part = curves[curves["arm"].isin(shown)]
    marks.curves(ax, part, "step", "value", "arm", palette, dots=2, linewidth=0.8)
    ax.set(xlabel="steps", ylabel="validation AUROC")
    said = [pretty(n) for n in shown]
    lines = ax.lines[: len(shown)]
    ax.legend(lines, said, fontsize=5, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_gaps(ax: Axes, gaps: pd.DataFrame, arms: list[str]) -> None:
    """Difference of each arm from the reference with its interval; bars are single seeds."""
    runs = where(gaps, status="ok")[["label", "by_seed"]]
    runs = runs.assign(run=runs["by_seed"].astype(str).str.split()).explode("run")
    sns.stripplot(
        x=runs["run"].astype(float), y=runs["label"], order=arms, jitter=False, marker="|", size=4,
        linewidth=1, color=COLOUR["less data"], zorder=1, ax=ax,
    )  # fmt: skip
    marks.forest(ax, gaps, arms, Look("", COLOUR["merlin"], size=2.2))
    for arm in gaps[gaps["status"] != "ok"]["label"]:
        ax.text(0, arms.index(arm), "not trained", fontsize=5, ha="center", va="center")
    marks.vertical_line(ax, 0, "reference")
    ax.set_ylim(len(arms) - 0.4, -1.1)
    ax.set_ylabel("")


def draw_scaling(tables: Tables, facts: Facts) -> Figure:
    """Metrics against training size by regime with their laws, the published laws, and the exponents."""
    points, curves = tables["points"], tables["curves"]
    if "regime" not in points:
        points = points.assign(regime="")
    metrics, regimes = unique(points["metric"]), unique(points["regime"])
    looks = {r: Look(r, *look) for r, look in zip(regimes, REGIMES, strict=False)}
    figure, axes = lettered_figure(115, _rows(len(metrics)))
    for ax, metric in zip(axes, metrics, strict=False):
        part = where(points, metric=metric)
        for regime, look in looks.items():
            law = where(curves, series=_series(metric, regime, regimes))
            _draw_growth(ax, where(part, regime=regime), law, look)
        ax.axvline(part["size"].max(), **LINE)
        _log_ticks(ax, subs=(1.0,))
        ax.set(xlabel="training studies", ylabel=metric)
        bottom, top = ax.get_ylim()
        ax.set_ylim(max(bottom, -0.02), min(top, 1.02))  # all are shares
    for look in looks.values() if len(regimes) > 1 else ():
        axes[0].plot([], [], look.marker, color=look.colour, markersize=3, label=look.label)
        axes[0].legend(loc="lower right", fontsize=5)
    published = curves[curves["series"].str.startswith("published")]
    published = published.assign(series=published["series"].str.removeprefix("published "))
    ax = axes[-2]
    colours = dict(zip(unique(published["series"]), cycle(PUBLISHED), strict=False))
    marks.curves(ax, published, "size", "value", "series", colours)
    _log_ticks(ax)
    said = "real CT-report pairs (published fits, by a public review of arXiv v2)"
    ax.set(xlabel=said, ylabel="metric")
    marks.legend_above(ax, 2)
    table = where(tables[""], metric="exponent")
    split = table["label"].str.partition(", ")
    table = table.assign(label=split[0], regime=split[2].where(split[2] != "", regimes[0]))
    _draw_exponents(axes[-1], table, looks, facts)
    return figure


def _series(metric: str, regime: str, regimes: list[str]) -> str:
    """The name of a metric's curve in a regime; that of the first is the metric alone."""
    return metric if regime == regimes[0] else f"{metric}, {regime}"


def _draw_growth(ax: Axes, points: pd.DataFrame, law: pd.DataFrame, look: Look) -> None:
    """One metric of one regime against training size: runs, the law, and its band where it is determined."""
    kind = dict(color=look.colour, marker=look.marker)
    sns.scatterplot(points, x="size", y="value", ax=ax, **kind, **DOT)
    if len(law):
        sns.lineplot(
            law, x="size", y="value", color=look.colour, linewidth=0.9, errorbar=None, ax=ax
        )
        ax.fill_between(law["size"], law["low"], law["high"], color=look.colour, alpha=0.15, lw=0)
        lost = law.loc[law["low"].isna(), "size"]
        if len(lost):
            above = f" above {lost.min():,.0f}" if lost.min() > law["size"].min() else ""
            at = (0.03, 0.97 - 0.06 * len(ax.texts))
            said = f"band not determined{above}"
            ax.text(*at, said, color=look.colour, fontsize=5, va="top", transform=ax.transAxes)


def _draw_exponents(ax: Axes, table: pd.DataFrame, looks: dict[str, Look], facts: Facts) -> None:
    """Exponents of the phantom's laws, beside those that were published; what is at a bound is left out."""
    names = unique(table["label"])
    said = "phantom" if len(looks) == 1 else ""  # regimes are named in the first panel
    looks = {r: look._replace(label=said, size=2.6) for r, look in looks.items()}
    marks.forest(ax, table, names, looks, by="regime", names=names)
    cross: dict[str, Any] = dict(
        marker="x", color=COLOUR["present"], markersize=4, linestyle="none"
    )
    for name, value in facts.get("published_exponents", {}).items():
        if name in names:
            ax.plot(value, names.index(name) + 0.4, **cross)
    ax.plot([], [], label="published (by a review)", **cross)
    marks.vertical_line(ax, 0, "no growth")
    ax.set_ylim(len(names) - 0.4, -0.8)
    ax.set_xlabel("exponent b of a·Dᵇ")
    marks.legend_above(ax, 2)


def draw_intervals(tables: Tables, facts: Facts) -> Figure:
    """Coverage of 95 % intervals by metric, method and resampled unit; widths; and every kind's coverage."""
    table = tables[""].assign(way=tables[""]["unit"] + " " + tables[""]["method"])
    every = tables.get("kinds", pd.DataFrame())
    rows = every[["kind", "metric", "n_patients"]].drop_duplicates() if len(every) else every
    shape = dict(height_ratios=[58, 8 + 4 * len(rows)]) if len(rows) else {}
    figure, axes = lettered_figure(
        62 + 4.2 * len(rows) + 8 * bool(shape), "abc;ddd" if shape else "abc", **shape
    )
    alone, clustered, width = axes[:3]
    metrics = unique(table["metric"])
    names = ["AUROC", "F1", "recall"][: len(metrics)]
    for ax, population, text in (
        (alone, "alone", "coverage, one study a patient"),
        (clustered, "clustered", "coverage, 1 to 6 studies a patient"),
    ):
        ax.axvspan(0.93, 0.97, color="#EEEEEE", lw=0)
        ax.axvline(0.95, **LINE)
        part = where(table, population=population).rename(columns=dict(covered="value"))
        marks.forest(ax, part, metrics, WAYS, column="metric", by="way", names=names)
        ax.set(xlim=(0.6, 1.0), xlabel=text)
    alone.legend(loc="center left", fontsize=5, title="resampled, method", title_fontsize=5)
    units = {unit: WAYS[f"{unit} percentile"].colour for unit in ("patient", "study")}
    sns.barplot(
        where(table, population="clustered", method="percentile"), x="width", y="metric",
        order=metrics, hue="unit", palette=units, width=0.64, saturation=1, errorbar=None,
        legend=False, ax=width,
    )  # fmt: skip
    width.set_yticks(range(len(metrics)), names)
    width.set(xlabel="mean width, 1 to 6 studies", ylabel="")
    width.set_ylim(alone.get_ylim())
    if shape:
        _draw_kinds(axes[3], every)
    return figure


def _draw_kinds(ax: Axes, every: pd.DataFrame) -> None:
    """Coverage of each kind of interval: what the tables use, and percentiles beside it."""
    said = (
        every["kind"] + ", " + every["metric"].map(pretty) + ", " + every["n_patients"].astype(str)
    )
    table = every.assign(row=said, value=every["covered"])
    ax.axvspan(0.93, 0.97, color="#EEEEEE", lw=0)
    ax.axvline(0.95, **LINE)
    marks.forest(ax, table, unique(said), KINDS, column="row", by="is_used", fontsize=5)
    ax.set_yticks(range(said.nunique()), unique(said))
    ax.set(
        xlim=(every["low"].min() - 0.02, 1.005),
        xlabel="coverage of 95 % intervals; number of patients in the row's name",
    )
    ax.legend(loc="upper left", fontsize=5)


def draw_sensitivity(tables: Tables, facts: Facts) -> Figure:
    """Macro F1 and recall@1 under each choice; the default of each factor is filled."""
    table = tables[""]
    tasks = unique(table["task"])
    figure, axes = lettered_figure(105, "abcdef"[: len(tasks)])
    for ax, task in zip(axes, tasks, strict=True):
        _draw_choices(ax, where(table, task=task).reset_index(drop=True))
        zero = "macro F1 of the positive class, zero-shot"
        said = zero if task.startswith("zero") else "recall@1, image to findings"
        ax.set(xlim=(0, 1), xlabel=said)
    return figure


def _draw_choices(ax: Axes, part: pd.DataFrame) -> None:
    """Value under each option; factors stand apart from each other, defaults are blue."""
    steps = 1 + 0.6 * (part["factor"] != part["factor"].shift())
    at = (steps.cumsum() - steps.iloc[0]).tolist()
    names = [
        "our protocol" if r.factor == "protocol" else f"{r.factor}: {r.option}"
        for r in part.itertuples()
    ]
    default = part["is_default"].astype(bool)
    looks = (
        (default, Look("", COLOUR["merlin"], size=2.6)),
        (~default, Look("", COLOUR["present"], "D")),
    )
    for chosen, look in looks:
        # All rows have a place, those of the other kind no value.
        rows = part.assign(status=part["status"].where(chosen))
        marks.forest(ax, rows, None, look, at=at, names=names, fontsize=5)
    for row in part[part["status"] != "ok"].itertuples():
        ax.text(0.02, at[row.Index], f"not evaluated: {row.reason}", fontsize=5, va="center")
    ax.axvline(part[default].iloc[0]["value"], **LINE)


def draw_claims(tables: Tables, facts: Facts) -> Figure:
    """The ledger: entries by family and status, and each design claim with its verdict."""
    table = tables[""].rename(columns=dict(status="verdict", value="stated"))
    part = table[table["sign"].notna() & table["phantom"].notna()].reset_index(drop=True)
    figure, (families, claims) = lettered_figure(
        max(120, 30 + 7 * len(part)), "ab", width_ratios=[0.8, 1]
    )
    verdicts = unique(table["verdict"])
    greys = iter(("#DDDDDD", "#BBBBBB", "#999999", "#777777"))
    shades = [VERDICTS.get(v) or next(greys) for v in verdicts]
    counts = pd.crosstab(table["family"], table["verdict"])
    marks.stacked_bars(families, counts.loc[unique(table["family"]), verdicts], shades)
    families.set_xlabel(_tables_read(table))
    figure.legend(loc="outside upper left", ncol=5, fontsize=5)  # wider than its panel
    # Turned so that right of zero means as the paper says.
    flip = part["sign"].to_numpy(float)
    ends = np.sort(np.c_[part["phantom_low"] * flip, part["phantom_high"] * flip], axis=1)
    part = part.assign(value=part["phantom"] * flip, low=ends[:, 0], high=ends[:, 1])
    short = [textwrap.fill(c if len(c) < 88 else c[:86] + "…", 46) for c in part["claim"]]
    colours = part["verdict"].map(VERDICTS)
    part["value"] = part["value"].where(colours.notna())  # judged ones alone
    shown = colours.fillna("none").to_dict()
    marks.forest(claims, part, None, Look("", "none"), names=short, fontsize=5, colours=shown)
    marks.vertical_line(claims, 0, "as the paper says →")
    claims.set_ylim(len(part) - 0.4, -1.4)
    claims.set_xlabel("difference on the phantom, right as claimed")
    at = claims.get_yaxis_transform()
    for i, text in enumerate(_outcomes(part)):
        claims.text(1.02, i, text, fontsize=5, va="center", transform=at)
    return figure


def _outcomes(part: pd.DataFrame) -> list[str]:
    """Of each comparison: what was taken from what, the difference as it is, what was expected, seeds."""
    said = []
    for row in part.to_dict("records"):
        arms = row.get("arms")
        pair = f"{pretty(arms)}\n" if isinstance(arms, str) and arms else ""
        side = "above" if row["sign"] > 0 else "below"
        n = row.get("n_seeds", np.nan)
        seeds = f", {n:.0f} seed{'s' * (n != 1)}" if pd.notna(n) and n else ""
        said.append(f"{pair}{row['phantom']:+.3f}, expected {side} 0{seeds}")
    return said


def _tables_read(table: pd.DataFrame) -> str:
    """The axis's name, and below it the tables that were read with the beginnings of their hashes."""
    every = table["tables"].dropna().str.split().explode() if "tables" in table else pd.Series()
    read = [name.partition(":") for name in sorted(set(every.dropna()))]
    lines = [f"{name} {digest}" for name, _, digest in read]
    return "\n".join(
        ["claims in the ledger", *(["", "tables read (sha256):"] if lines else []), *lines]
    )


FIGURES = {
    "ablations": draw_ablations,
    "scaling_laws": draw_scaling,
    "intervals": draw_intervals,
    "protocol_sensitivity": draw_sensitivity,
    "claims": draw_claims,
}
