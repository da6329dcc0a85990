"""Figures of the off-the-shelf evaluations beyond zero-shot findings: tables → figures.

Phenotypes, retrieval, external sites, and models side by side. As in `panels`: no files, no
statistics, one colour a meaning.
"""

from collections.abc import Sequence
from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from merlin.figures import marks
from merlin.figures.marks import LINE, METRICS, Look, pretty, unique, where
from merlin.figures.style import COLOUR, Facts, Tables, lettered_figure
from merlin.words import shown

ARMS = {
    "main": Look("main arm", COLOUR["merlin"]),
    "tenth": Look("tenth arm", COLOUR["less data"]),
    "ehr": Look("codes only", COLOUR["absent"]),
    "slices": Look("2D slices", COLOUR["novel"]),
    "chance": Look("chance", COLOUR["baseline"]),
}
OTHERS = ("#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
SITES = {
    "internal": Look("internal", COLOUR["merlin"]),
    "site_b": Look("site b", COLOUR["external"]),
    "site_c": Look("site c", COLOUR["present"]),
}


def arms(models: Sequence[str]) -> dict[str, Look]:
    """Look of each model; those that are no arm of ours get colours in a fixed order."""
    others = cycle(OTHERS)
    return {m: ARMS.get(m) or Look(m, next(others)) for m in models}


def site_looks(names: Sequence[object]) -> dict[str, Look]:
    """Look of each site, in the order given; sites of other cohorts get colours in a fixed order."""
    others = cycle(OTHERS[2:] + OTHERS[:2])
    return {
        n: SITES.get(n) or Look(shown(pretty(n), 30), next(others), "D") for n in map(str, names)
    }


def draw_phenotypes(tables: Tables, facts: Facts) -> Figure:
    """Per-phecode AUROC, chapters, models, and AUPRC against prevalence."""
    # Read back from a CSV, 401 is 401.0 among 401.1, and "401" in the table beside "macro".
    codes = [_plain_phecode(p) for p in tables["names"]["phecode"]]
    names = dict(zip(codes, tables["names"]["name"], strict=True))
    table = tables[""].assign(label=tables[""]["label"].astype(str))
    figure, axes = lettered_figure(
        175, "ab;ac;ad", width_ratios=[1.15, 1], height_ratios=[1.1, 1, 1.05]
    )
    each_ax, models_ax, chapters_ax, auprc_ax = axes
    main = where(table, model="main")
    each = where(main, metric="auroc", status="ok")
    each = each[each["label"].isin(names)].sort_values("value", ascending=False)
    if each.empty:
        return _nothing(figure, axes, "no phecode has enough known labels", table)
    chapters = unique(each["chapter"])
    colours = dict(zip(chapters, _chapter_colours(len(chapters)), strict=True))
    _draw_each(each_ax, each, names, colours)
    macro = where(table, label="macro")
    macro = macro[macro["metric"].isin(["auroc", "auprc"])]
    models = [m for m in (*ARMS, *marks.RIVALS) if m in set(where(macro, status="ok")["model"])]
    looks = arms(models) | {m: look for m, look in marks.RIVALS.items() if m in models}
    marks.forest_of_models(models_ax, macro, looks, ["auroc", "auprc"])
    models_ax.set_xlabel(f"macro over {int(macro['n_positive'].max())} phecodes")
    marks.legend_above(models_ax, 2)
    by_chapter = where(table, metric="auroc")
    count = where(by_chapter, model="main").set_index("label")["n_positive"]
    marks.forest(
        chapters_ax, by_chapter, [f"chapter: {c}" for c in chapters],
        {m: look for m, look in looks.items() if m == "organs" or (m in ARMS and m != "chance")},
        names=[f"{c} ({count[f'chapter: {c}']})" for c in chapters],
    )  # fmt: skip
    marks.legend_above(chapters_ax, 2)
    chapters_ax.set_xlabel("mean AUROC of the chapter (phecodes in it)")
    auprc = where(main, metric="auprc")
    _draw_auprc(auprc_ax, auprc[auprc["label"].isin(each["label"])], colours)
    return figure


def _draw_each(ax: Axes, each: pd.DataFrame, names: dict, colours: dict) -> None:
    """AUROC of each phecode in the colour of its chapter."""
    short = [names[p] if len(names[p]) <= 34 else f"{names[p][:34]}…" for p in each["label"]]
    by_row = dict(enumerate(each["chapter"].map(colours)))
    look = Look("", "none", size=1.8)
    marks.forest(ax, each, None, look, names=short, fontsize=5, colours=by_row)
    ax.set_xlabel("AUROC")
    marks.vertical_line(ax, 0.5, "chance")
    points = [ax.plot([], [], "o", color=c, markersize=1.8)[0] for c in colours.values()]
    ax.legend(
        points, list(colours), loc="upper left", bbox_to_anchor=(0, 0.97), fontsize=5,
        handletextpad=0.2, labelspacing=0.25,
    )  # fmt: skip


def _draw_auprc(ax: Axes, auprc: pd.DataFrame, colours: dict) -> None:
    """AUPRC of each phecode against its prevalence, which is chance."""
    prevalence = auprc["n_positive"] / auprc["n_studies"]
    sns.scatterplot(
        x=prevalence, y=auprc["value"], hue=auprc["chapter"], palette=colours, s=7, linewidth=0,
        legend=False, ax=ax,
    )  # fmt: skip
    top = float(prevalence.max()) * 1.1
    ax.plot([0, top], [0, top], **LINE)
    ax.text(top, top, "chance ", fontsize=5, ha="right", va="bottom", color=COLOUR["baseline"])
    ax.set(xlabel="prevalence (positive / all test studies)", ylabel="AUPRC", ylim=(0, 1.02))


def _nothing(figure: Figure, axes: list[Axes], why: str, table: pd.DataFrame) -> Figure:
    """Empty panels that say why nothing could be evaluated."""
    for ax in axes:
        ax.axis("off")
    n = int(table["n_studies"].max())
    axes[0].text(0.0, 0.6, f"Not evaluated: {why}.\n{n:,} test studies.", fontsize=8)
    return figure


def _plain_phecode(text: object) -> str:
    try:
        return f"{float(str(text)):g}"
    except ValueError:  # outputs without a phecode are named otherwise
        return str(text)


def _chapter_colours(n: int) -> list:
    """`n` colours told apart with common colour vision, dark to light."""
    return [mpl.colormaps["cividis"](x) for x in np.linspace(0.0, 0.92, max(n, 1))]


def draw_retrieval(tables: Tables, facts: Facts) -> Figure:
    """Similarities of one pool, report lengths, recall by pool size, models side by side."""
    table, pool = tables[""], facts["pool"]
    headline = f"recall@1 of {pool}"
    if "representation" in table:  # of an older run
        table = where(table, representation=facts["representation"])
    figure, (matrix, length, one, eight, models) = lettered_figure(
        112, "acd;bee", width_ratios=[1, 1.15, 1.15]
    )
    sns.heatmap(
        tables["matrix"].to_numpy(float), cmap="cividis", square=True, cbar=False, rasterized=True,
        xticklabels=False, yticklabels=False, ax=matrix,
    )  # fmt: skip
    matrix.set(xlabel="reports of one pool", ylabel="volumes")
    _draw_lengths(length, tables["lengths"], facts["max_length"])
    main = where(table, model="main", status="ok")
    for ax, k in ((one, 1), (eight, 8)):
        _draw_recall(ax, where(main, k=k), k)
    one.legend(loc="upper right", fontsize=5, labelspacing=0.25, borderaxespad=0)
    part = where(table, metric=headline, status="ok")
    marks.forest(models, part, unique(part["label"]), arms(unique(part["model"])))
    marks.legend_above(models, 2)
    marks.vertical_line(models, 1 / pool)
    models.set(xlim=(0, 1), xlabel=f"{headline} (dotted: chance)")
    return figure


def _draw_lengths(ax: Axes, lengths: pd.DataFrame, most: int | None) -> None:
    """Tokens of the findings texts, counted in bins."""
    sns.histplot(
        lengths, x="low", weights="n", bins=[*lengths["low"], lengths["high"].iloc[-1]], ax=ax,
        color=COLOUR["merlin"], alpha=1, edgecolor="white", linewidth=0.3,
    )  # fmt: skip
    text = "tokens of a findings text" + ("" if lengths["n"].any() else ": not known")
    if most:
        ax.axvline(most, **LINE)
        text += f" (cut at {most})"
    ax.set(xlabel=text, ylabel="test studies")


def _draw_recall(ax: Axes, part: pd.DataFrame, k: int) -> None:
    """recall@k by pool size and direction; filled with findings, hollow with impressions."""
    sizes = sorted(set(part["pool"].astype(int)))
    chance = [k / size for size in sizes]
    grey = COLOUR["baseline"]
    ax.plot(range(len(sizes)), chance, "_", color=grey, markersize=16, label="chance")
    for i, (label, rows) in enumerate(part.groupby("label", sort=False)):
        x = np.array([sizes.index(int(p)) for p in rows["pool"]]) + 0.13 * (i - 1.5)
        colour = COLOUR["merlin" if "image to" in label else "external"]
        face = colour if "findings" in label else "white"
        ax.vlines(x, rows["low"], rows["high"], color=colour, linewidth=0.9)
        ax.plot(x, rows["value"], "o", color=colour, mfc=face, markersize=3, label=label)
        # Beside it the range over single draws of pools, where there are several.
        ax.vlines(x + 0.05, rows["pool_low"], rows["pool_high"], color="#444444", linewidth=0.5)
    names = [f"all {s}" if s == max(sizes) else str(s) for s in sizes]
    ax.set_xticks(range(len(sizes)), names)
    ax.set(xlabel="pool size", ylabel=f"recall@{k}", ylim=(0, 1))


def draw_external(tables: Tables, facts: Facts) -> Figure:
    """Tasks by site, the drop finding by finding, and the spine series."""
    table, drop = tables[""], tables["drop"]
    figure, (tasks, drops, spine, each) = lettered_figure(
        150, "ad;bd;cd", width_ratios=[1, 1.15], height_ratios=[1.15, 1, 0.75]
    )
    part = where(table, part="task")
    looks = site_looks(unique(part["site"]))
    marks.forest(tasks, part, unique(part["label"]), looks, by="site")
    tasks.set(xlim=(0, 1), xlabel="value on the site's studies")
    marks.legend_above(tasks, 3)
    outside = {s: look for s, look in looks.items() if s != "internal"}
    overall = where(drop, label="macro")
    marks.forest(drops, overall, unique(overall["metric"]), outside, column="metric", by="site")
    drops.set_xlabel("external minus internal, mean over findings")
    marks.forest(each, where(drop, metric="AUROC"), facts["order"], outside, by="site", fontsize=5)
    each.set_xlabel("AUROC, external minus internal")
    marks.legend_above(each, 2)
    for ax in (drops, each):
        ax.axvline(0, **LINE)
    series = where(table, part="spine")
    part = where(series, status="ok")
    names = [METRICS[m].label if m in METRICS else m for m in part["metric"]]
    if not part.empty:
        marks.forest(spine, part, None, Look("", COLOUR["novel"]), names=names)
    spine.set(xlim=(0, 1), xlabel="vertebral fracture, spine series, zero-shot")
    if part.empty:
        spine.text(0.5, 0.5, _too_few(series), fontsize=6, ha="center", transform=spine.transAxes)
        spine.set_yticks([])
    return figure


def _too_few(series: pd.DataFrame) -> str:
    """Why the spine series could not be judged, by the counts of its rows."""
    n, positive = (int(series[c].max()) if len(series) else 0 for c in ("n_studies", "n_positive"))
    if not n:
        return "no spine series"
    rarer = "positives" if positive <= n - positive else "negatives"
    return f"too few {rarer}:\n{positive} of {n} studies with a fracture"


def draw_comparison(tables: Tables, facts: Facts) -> Figure:
    """Several embeddings files side by side: the three off-the-shelf tasks, and findings apart."""
    table = tables[""]
    looks = arms(unique(table["model"]))
    each = where(table, task="zero-shot findings", metric="auroc")
    first = where(each, model=table["model"].iloc[0])
    first = first[first["label"] != "macro"]
    order = first.sort_values("value", ascending=False, na_position="last")["label"].tolist()
    figure, (summary, findings) = lettered_figure(
        max(70, 30 + 4 * len(order)), "ab", width_ratios=[1, 1.2]
    )
    chosen = table[table["label"].eq("macro") | table["metric"].str.startswith("recall@1 of")]
    kept = ["auroc", "f1", "auprc", f"recall@1 of {facts['pool']}"]
    chosen = chosen[chosen["metric"].isin(kept)]
    chosen = chosen.assign(label=[_short(r) for r in chosen.itertuples()])
    labels = unique(where(chosen, status="ok")["label"])
    marks.forest(summary, chosen, labels, looks, names=labels)
    marks.legend_above(summary, min(len(looks), 2))
    summary.set(xlim=(0, 1), xlabel="value on the common studies")
    marks.forest(findings, each, order, looks)
    findings.set_xlabel("zero-shot AUROC")
    marks.vertical_line(findings, 0.5, "chance")
    return figure


def _short(row) -> str:
    if row.task == "retrieval":
        return f"{row.label}\n{row.metric}"
    positive = " (positive class)" if row.metric == "f1" else ""
    return f"{row.task}\nmacro {row.metric.upper()}{positive}"


FIGURES = {
    "phenotypes": draw_phenotypes,
    "retrieval": draw_retrieval,
    "external": draw_external,
    "comparison": draw_comparison,
}
