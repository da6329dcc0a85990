"""Figures about choices: ablations, data scaling, intervals, protocols, and the ledger of claims.

Tables → figures; no files, no statistics.
"""

import textwrap

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from merlin.figures.off_shelf import legend_above, vertical_line
from merlin.figures.panels import draw_forest, pretty
from merlin.figures.style import COLOUR, PAGE_MM, label_points, new_figure, panel_letter

UNITS = {"patient": "patients", "study": "studies"}
METHODS = {"percentile": "percentile", "bca": "BCa"}
VERDICT_COLOUR = {
    "holds here": COLOUR["absent"],
    "contradicted here": COLOUR["present"],
    "not decided here": COLOUR["external"],
    "not run": "#555555",
}


def plain_log_ticks(ax, subs=(1.0, 2.0, 5.0)):
    """1, 2, 5, 10 (or as `subs` says) on a logarithmic x axis, as numbers."""
    ax.xaxis.set_major_locator(LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def draw_ablations(tables, facts):
    """Differences of each arm from the reference by metric, and what the arms cost."""
    table, cost = tables[""], tables["cost"]
    gaps = table[table["kind"] == "difference"]
    metrics = list(dict.fromkeys(gaps["metric"]))
    arms = list(dict.fromkeys(gaps["label"]))
    keys = [f"m{i}" for i in range(len(metrics))]
    figure, axes = new_figure(
        PAGE_MM,
        150,
        mosaic=[keys, ["cost"] * 2 + ["time"] * (len(keys) - 2)],
        gridspec_kw=dict(height_ratios=[1.75, 1]),
    )
    for n, (key, metric) in enumerate(zip(keys, metrics, strict=True)):
        ax, part = axes[key], gaps[gaps["metric"] == metric]
        part = part.assign(position=[arms.index(a) for a in part["label"]])
        known = part[part["status"] == "ok"]
        for row in known.itertuples():
            runs = [float(v) for v in str(row.by_seed).split()]
            ax.plot(runs, [row.position] * len(runs), "|", color=COLOUR["less data"], markersize=4)
        draw_forest(ax, known, colour=COLOUR["merlin"], size=2.2)
        for row in part[part["status"] != "ok"].itertuples():
            ax.text(0, row.position, "not trained", fontsize=5, ha="center", va="center")
        vertical_line(ax, 0, "reference")
        ax.set_yticks(range(len(arms)), [pretty(a) for a in arms] if n == 0 else [])
        ax.set_ylim(len(arms) - 0.4, -1.1)
        ax.set_xlabel(f"Δ {metric}")
        panel_letter(ax, "abcdefg"[n])
    costs = []
    for key, column, label, letter in (
        ("cost", "saved_mb", "memory kept for the backward pass (MB a study)", "e"),
        ("time", "seconds_per_step", "seconds a step of 16 studies, one core", "f"),
    ):
        ax = axes[key]
        value = table[(table["kind"] == "value") & (table["metric"] == "phenotype AUROC")]
        both = cost.merge(value[["label", "value"]], left_on="arm", right_on="label")
        shapes = both[both["changes_network"]]
        ax.plot(shapes[column], shapes["value"], "o", color=COLOUR["merlin"], markersize=3)
        ax.set_xscale("log")
        plain_log_ticks(ax)
        ax.set_xlim(shapes[column].min() * 0.8, shapes[column].max() * 2.2)
        ax.set_ylim(shapes["value"].min() - 0.01, shapes["value"].max() + 0.01)
        ax.set_xlabel(label)
        ax.set_ylabel("phenotype AUROC")
        panel_letter(ax, letter)
        costs.append((ax, shapes, column))
    for ax, shapes, column in costs:  # when every panel has its place
        said = [f"{pretty(r.arm)} ({r.parameters / 1e6:.1f} M)" for r in shapes.itertuples()]
        label_points(ax, shapes[column], shapes["value"], said)
    return figure


def draw_scaling(tables, facts):
    """Metrics against training size with their laws, the published laws, and the exponents."""
    points, curves, table = tables["points"], tables["curves"], tables[""]
    metrics = list(dict.fromkeys(points["metric"]))
    keys = [f"m{i}" for i in range(len(metrics))]
    figure, axes = new_figure(
        PAGE_MM, 110, mosaic=[keys, ["published"] * 2 + ["exponents"] * (len(keys) - 2)]
    )
    for n, (key, metric) in enumerate(zip(keys, metrics, strict=True)):
        ax, line = axes[key], curves[curves["series"] == metric]
        part = points[points["metric"] == metric]
        ax.plot(part["size"], part["value"], "o", color=COLOUR["merlin"], markersize=2.5)
        if len(line):
            ax.plot(line["size"], line["value"], color=COLOUR["merlin"], linewidth=0.9)
            ax.fill_between(
                line["size"], line["low"], line["high"], color=COLOUR["merlin"], alpha=0.15, lw=0
            )
            ax.axvline(part["size"].max(), color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
        ax.set_xscale("log")
        plain_log_ticks(ax, subs=(1.0,))
        ax.set_xlabel("training studies")
        ax.set_ylabel(metric)
        panel_letter(ax, "abcdefg"[n])
    ax = axes["published"]
    published = curves[curves["series"].str.startswith("published")]
    for name, colour in zip(
        dict.fromkeys(published["series"]), (COLOUR["present"], COLOUR["novel"]), strict=False
    ):
        line = published[published["series"] == name]
        ax.plot(line["size"], line["value"], color=colour, label=name.removeprefix("published "))
    ax.set_xscale("log")
    plain_log_ticks(ax)
    ax.set_xlabel("real CT-report pairs (published fits, by a public review of arXiv v2)")
    ax.set_ylabel("metric")
    legend_above(ax, 2)
    panel_letter(ax, "e")
    ax = axes["exponents"]
    known = table[(table["metric"] == "exponent") & (table["status"] == "ok")]
    names = list(dict.fromkeys(table.loc[table["metric"] == "exponent", "label"]))
    known = known.assign(position=[names.index(x) for x in known["label"]])
    draw_forest(ax, known, colour=COLOUR["merlin"], label="phantom")
    for name, value in facts.get("published_exponents", {}).items():
        if name in names:
            ax.plot(value, names.index(name) + 0.25, "x", color=COLOUR["present"], markersize=4)
    ax.plot([], [], "x", color=COLOUR["present"], markersize=4, label="published (by a review)")
    vertical_line(ax, 0, "no growth")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.8)
    ax.set_xlabel("exponent b of a·Dᵇ")
    legend_above(ax, 2)
    panel_letter(ax, "f")
    return figure


def draw_intervals(tables, facts):
    """Coverage of 95 % intervals by metric, method and resampled unit; and their widths."""
    table = tables[""]
    figure, axes = new_figure(PAGE_MM, 62, mosaic=[["alone", "clustered", "width"]])
    looks = {
        ("patient", "percentile"): (COLOUR["merlin"], "o", -0.24),
        ("patient", "bca"): (COLOUR["less data"], "s", -0.08),
        ("study", "percentile"): (COLOUR["present"], "^", 0.08),
        ("study", "bca"): (COLOUR["external"], "D", 0.24),
    }
    metrics = list(dict.fromkeys(table["metric"]))
    for key, letter in (("alone", "a"), ("clustered", "b")):
        ax = axes[key]
        ax.axvspan(0.93, 0.97, color="#EEEEEE", lw=0)
        ax.axvline(0.95, color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
        for (unit, method), (colour, marker, shift) in looks.items():
            part = table[
                (table["unit"] == unit) & (table["method"] == method) & (table["population"] == key)
            ]
            part = part.assign(position=[metrics.index(m) for m in part["metric"]])
            part = part.rename(columns=dict(covered="value"))
            draw_forest(
                ax, part, colour=colour, marker=marker, offset=shift, size=2.4,
                label=f"{UNITS[unit]}, {METHODS[method]}",
            )  # fmt: skip
        ax.set_yticks(range(len(metrics)), ["AUROC", "F1", "recall"][: len(metrics)])
        ax.set_ylim(len(metrics) - 0.4, -0.6)
        ax.set_xlim(0.6, 1.0)
        ax.set_xlabel(
            "coverage, one study a patient"
            if key == "alone"
            else "coverage, 1 to 6 studies a patient"
        )
        panel_letter(ax, letter)
    axes["alone"].legend(loc="center left", fontsize=5, title="resampled, method", title_fontsize=5)
    ax = axes["width"]
    part = table[(table["population"] == "clustered") & (table["method"] == "percentile")]
    for unit, shift in (("patient", -0.18), ("study", 0.18)):
        rows = part[part["unit"] == unit]
        colour = looks[unit, "percentile"][0]
        ax.barh(
            [metrics.index(m) + shift for m in rows["metric"]], rows["width"], 0.32, color=colour
        )
    ax.set_yticks(range(len(metrics)), ["AUROC", "F1", "recall"][: len(metrics)])
    ax.set_ylim(len(metrics) - 0.4, -0.6)
    ax.set_xlabel("mean width, 1 to 6 studies a patient")
    panel_letter(ax, "c")
    return figure


def draw_sensitivity(tables, facts):
    """Macro F1 and recall@1 under each choice; the default of each factor is filled."""
    table = tables[""]
    tasks = list(dict.fromkeys(table["task"]))
    figure, axes = new_figure(PAGE_MM, 105, mosaic=[tasks])
    for letter, task in zip("ab", tasks, strict=False):
        ax, part = axes[task], table[table["task"] == task].reset_index(drop=True)
        position, y, last = [], 0.0, None
        for factor in part["factor"]:
            y += 0.6 if factor != last and last is not None else 0.0
            position.append(y)
            y, last = y + 1, factor
        part = part.assign(position=position)
        default = part["is_default"].astype(bool)
        known = part["status"] == "ok"
        draw_forest(ax, part[default & known], colour=COLOUR["merlin"], size=2.6)
        draw_forest(ax, part[~default & known], colour=COLOUR["present"], marker="D", size=2.4)
        for row in part[~known].itertuples():
            ax.text(0.02, row.position, f"not evaluated: {row.reason}", fontsize=5, va="center")
        first = part[default].iloc[0]["value"]
        ax.axvline(first, color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
        names = [
            f"{r.factor}: {r.option}" if r.factor != "protocol" else "our protocol"
            for r in part.itertuples()
        ]
        ax.set_yticks(position, names, fontsize=5)
        ax.set_ylim(max(position) + 0.7, -0.8)
        ax.set_xlim(0, 1)
        what = (
            "macro F1 of the positive class, zero-shot"
            if task.startswith("zero")
            else "recall@1, image to findings"
        )
        ax.set_xlabel(what)
        panel_letter(ax, letter)
    return figure


def draw_claims(tables, facts):
    """The ledger: entries by family and status, and each design claim with its verdict."""
    table = tables[""]
    figure, axes = new_figure(
        PAGE_MM, 120, mosaic=[["families", "claims"]], gridspec_kw=dict(width_ratios=[1, 1.25])
    )
    ax = axes["families"]
    families = list(dict.fromkeys(table["family"]))
    statuses = list(dict.fromkeys(table["status"]))
    greys = iter(("#DDDDDD", "#BBBBBB", "#999999", "#777777"))
    shades = {k: VERDICT_COLOUR.get(k) or next(greys) for k in statuses}
    left = np.zeros(len(families))
    for status in statuses:
        counts = table[table["status"] == status].groupby("family").size().reindex(families)
        counts = counts.fillna(0).to_numpy()
        ax.barh(
            range(len(families)), counts, left=left, color=shades[status], label=status, height=0.7
        )
        left += counts
    ax.set_yticks(range(len(families)), families)
    ax.invert_yaxis()
    ax.set_xlabel("claims in the ledger")
    ax.legend(loc="lower left", bbox_to_anchor=(-0.35, 1.01), ncol=2, fontsize=5)
    panel_letter(ax, "a")
    ax = axes["claims"]
    part = table[table["sign"].notna() & table["phantom"].notna()].reset_index(drop=True)
    part = part.assign(position=range(len(part)), value=part["phantom"])
    for verdict, colour in VERDICT_COLOUR.items():
        rows = part[part["status"] == verdict]
        # Turned so that right of zero means as the paper says.
        flip = rows["sign"].to_numpy(float)
        ends = np.sort(np.c_[rows["phantom_low"] * flip, rows["phantom_high"] * flip], axis=1)
        rows = rows.assign(value=rows["phantom"] * flip, low=ends[:, 0], high=ends[:, 1])
        draw_forest(ax, rows, colour=colour, label=verdict, size=2.4)
    vertical_line(ax, 0, "as the paper says →")
    short = [textwrap.fill(c if len(c) < 100 else c[:98] + "…", 52) for c in part["claim"]]
    ax.set_yticks(range(len(part)), short, fontsize=5)
    ax.set_ylim(len(part) - 0.4, -1.4)
    ax.set_xlabel("difference on the phantom, right as claimed")
    panel_letter(ax, "b")
    return figure


FIGURES = {
    "ablations": draw_ablations,
    "scaling_laws": draw_scaling,
    "intervals": draw_intervals,
    "protocol_sensitivity": draw_sensitivity,
    "claims": draw_claims,
}
