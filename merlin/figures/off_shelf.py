"""Figures of the off-the-shelf evaluations beyond zero-shot findings: tables → figures.

Phenotypes, retrieval, external sites, and models side by side. As in `panels`: no files, no
statistics, one colour a meaning.
"""

import numpy as np

from merlin.figures.panels import draw_forest, pretty
from merlin.figures.style import COLOUR, PAGE_MM, new_figure, panel_letter

ARM_NAMES = {
    "main": "main arm",
    "tenth": "tenth arm",
    "ehr": "codes only",
    "slices": "2D slices",
    "chance": "chance",
}
ARM_COLOUR = {
    "main": COLOUR["merlin"],
    "tenth": COLOUR["less data"],
    "ehr": COLOUR["absent"],
    "slices": COLOUR["novel"],
    "chance": COLOUR["baseline"],
}
OTHERS = ("#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")


def arm_colours(models):
    """Colour of each model, known arms first; others in a fixed order."""
    others = iter(OTHERS * 3)
    return {m: ARM_COLOUR.get(m) or next(others) for m in models}


def forest_by_model(ax, table, labels, models, *, names=None, colours=None, legend=True):
    """Rows of `labels`, one point with interval per model in each.

    Parameters
    ----------
    table : DataFrame
        Rows of one metric: `label, model, value, low, high, status`.
    """
    colours = colours or arm_colours(models)
    shifts = np.linspace(-0.28, 0.28, len(models)) if len(models) > 1 else [0.0]
    for model, shift in zip(models, shifts, strict=bool(models)):
        part = table[(table["model"] == model) & table["label"].isin(labels)]
        part = part[part["status"] == "ok"]
        part = part.assign(position=[labels.index(x) for x in part["label"]])
        draw_forest(
            ax,
            part,
            colour=colours[model],
            offset=shift,
            label=ARM_NAMES.get(model, model),
            size=2.2,
        )
    ax.set_yticks(range(len(labels)), names or [pretty(x) for x in labels])
    ax.set_ylim(len(labels) - 0.4, -0.6)
    if legend:
        legend_above(ax, min(len(models), 2))


def legend_above(ax, columns, **options):
    """Legend over the panel's upper edge, beside the letter; a word where nothing was drawn."""
    if not ax.get_legend_handles_labels()[1]:
        ax.text(0.5, 0.5, "not evaluated", transform=ax.transAxes, ha="center", fontsize=6)
        return
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.06, 0.99),
        ncol=columns,
        borderaxespad=0,
        columnspacing=0.9,
        handletextpad=0.3,
        **options,
    )


def vertical_line(ax, x, text):
    """A dotted reference line with its name at the top."""
    ax.axvline(x, color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    ax.annotate(
        text,
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(2, -1),
        textcoords="offset points",
        fontsize=5,
        va="top",
        color=COLOUR["baseline"],
    )


def draw_phenotypes(tables, facts):
    """Per-phecode AUROC, chapters, models, and AUPRC against prevalence."""
    # Read back from a CSV, 401 is 401.0 among 401.1, and "401" in the table beside "macro".
    names = tables["names"].assign(phecode=lambda t: [_plain_phecode(p) for p in t["phecode"]])
    table = tables[""]
    names = names.set_index("phecode")["name"]
    table = table.assign(label=table["label"].astype(str))
    figure, axes = new_figure(
        PAGE_MM,
        165,
        mosaic=[["each", "models"], ["each", "chapters"], ["each", "auprc"]],
        gridspec_kw=dict(width_ratios=[1.15, 1], height_ratios=[0.75, 1, 1.05]),
    )
    main = table[(table["model"] == "main") & (table["metric"] == "auroc")]
    each = main[main["label"].isin(names.index) & (main["status"] == "ok")]
    each = each.sort_values("value", ascending=False)
    if each.empty:
        return _nothing(figure, axes, "no phecode has enough known labels", table)
    chapters = list(dict.fromkeys(each["chapter"]))
    colours = dict(zip(chapters, chapter_colours(len(chapters)), strict=True))
    ax = axes["each"]
    for chapter in chapters:
        rows = each.assign(position=range(len(each)))[(each["chapter"] == chapter).to_numpy()]
        draw_forest(ax, rows, colour=colours[chapter], label=chapter, size=1.8)
    short = [f"{names[p][:34]}{'…' if len(names[p]) > 34 else ''}" for p in each["label"]]
    ax.set_yticks(range(len(each)), short, fontsize=5)
    ax.set_ylim(len(each) - 0.3, -0.7)
    ax.set_xlabel("AUROC")
    vertical_line(ax, 0.5, "chance")
    ax.legend(
        loc="upper left", bbox_to_anchor=(0, 0.97), fontsize=5, handletextpad=0.2, labelspacing=0.25
    )

    macro = table[(table["label"] == "macro") & table["metric"].isin(["auroc", "auprc"])]
    models = [m for m in ARM_NAMES if m in set(macro["model"])]
    ax = axes["models"]
    for metric, marker, shift in (("auroc", "o", -0.12), ("auprc", "s", 0.12)):
        for i, model in enumerate(models):
            row = macro[(macro["model"] == model) & (macro["metric"] == metric)]
            draw_forest(
                ax, row.assign(position=i), colour=ARM_COLOUR[model], marker=marker, offset=shift
            )
    for metric, marker in (("AUROC", "o"), ("AUPRC", "s")):
        ax.plot([], [], marker, color="#444444", markersize=3, label=metric, linestyle="none")
    ax.set_yticks(range(len(models)), [ARM_NAMES[m] for m in models])
    ax.set_ylim(len(models) - 0.5, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xlabel(f"macro over {int(macro['n_positive'].max())} phecodes")
    legend_above(ax, 2)

    ax = axes["chapters"]
    by_chapter = table[table["label"].str.startswith("chapter: ") & (table["metric"] == "auroc")]
    labels = [f"chapter: {c}" for c in chapters]
    count = by_chapter[by_chapter["model"] == "main"].set_index("label")["n_positive"]
    forest_by_model(
        ax,
        by_chapter,
        labels,
        [m for m in models if m != "chance"],
        names=[f"{x.removeprefix('chapter: ')} ({count[x]})" for x in labels],
    )
    ax.set_xlabel("mean AUROC of the chapter (phecodes in it)")

    ax = axes["auprc"]
    auprc = table[(table["model"] == "main") & (table["metric"] == "auprc")]
    auprc = auprc[auprc["label"].isin(each["label"])]
    prevalence = auprc["n_positive"] / auprc["n_studies"]
    colour = [colours[c] for c in auprc["chapter"]]
    ax.scatter(prevalence, auprc["value"], s=7, c=colour, linewidths=0)
    top = float(prevalence.max()) * 1.1
    ax.plot([0, top], [0, top], color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    ax.text(top, top, "chance ", fontsize=5, ha="right", va="bottom", color=COLOUR["baseline"])
    ax.set_xlabel("prevalence (positive / all test studies)")
    ax.set_ylabel("AUPRC")
    ax.set_ylim(0, 1.02)
    for letter, name in zip("abcd", ("each", "models", "chapters", "auprc"), strict=True):
        panel_letter(axes[name], letter)
    return figure


def _nothing(figure, axes, why, table):
    """Empty panels that say why nothing could be evaluated."""
    for name, ax in axes.items():
        ax.axis("off")
        if name == "each":
            n = int(table["n_studies"].max())
            ax.text(0.0, 0.6, f"Not evaluated: {why}.\n{n:,} test studies.", fontsize=8)
    return figure


def _plain_phecode(text):
    try:
        return f"{float(text):g}"
    except ValueError:  # outputs without a phecode are named otherwise
        return str(text)


def chapter_colours(n):
    """`n` colours told apart with common colour vision, dark to light."""
    import matplotlib as mpl

    return [mpl.colormaps["cividis"](x) for x in np.linspace(0.0, 0.92, max(n, 1))]


DIRECTION_COLOUR = {"image to": COLOUR["merlin"], "to image": COLOUR["external"]}


def _direction_colour(label):
    return next(c for key, c in DIRECTION_COLOUR.items() if key in label)


def draw_retrieval(tables, facts):
    """Similarities of one pool, report lengths, recall by pool size, models side by side."""
    table, pool = tables[""], facts["pool"]
    headline = f"recall@1 of {pool}"
    figure, axes = new_figure(
        PAGE_MM,
        112,
        mosaic=[["matrix", "one", "eight"], ["length", "representation", "models"]],
        gridspec_kw=dict(width_ratios=[1, 1.15, 1.15]),
    )
    matrix = tables["matrix"].to_numpy(float)
    ax = axes["matrix"]
    ax.imshow(matrix, cmap="cividis", interpolation="nearest")
    ax.set_xlabel("reports of one pool")
    ax.set_ylabel("volumes")
    ax.set_xticks([])
    ax.set_yticks([])
    ax = axes["length"]
    lengths = tables["lengths"]
    ax.bar(
        lengths["low"],
        lengths["n"],
        width=lengths["high"] - lengths["low"],
        align="edge",
        color=COLOUR["merlin"],
        edgecolor="white",
        linewidth=0.3,
    )
    if facts["max_length"]:
        ax.axvline(facts["max_length"], color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
        ax.set_xlabel(f"tokens of a findings text (cut at {facts['max_length']})")
    else:
        ax.set_xlabel("tokens of a findings text: not known")
    ax.set_ylabel("test studies")
    main = table[(table["model"] == "main") & (table["representation"] == facts["representation"])]
    for name, k in (("one", 1), ("eight", 8)):
        ax = axes[name]
        part = main[(main["k"] == k) & (main["status"] == "ok")]
        sizes = sorted(set(part["pool"].astype(int)))
        ax.plot(
            range(len(sizes)),
            [k / s for s in sizes],
            "_",
            color=COLOUR["baseline"],
            markersize=16,
            label="chance",
        )
        for i, (label, rows) in enumerate(part.groupby("label", sort=False)):
            x = np.array([sizes.index(int(p)) for p in rows["pool"]]) + 0.13 * (i - 1.5)
            colour = _direction_colour(label)
            face = colour if "findings" in label else "white"
            ax.vlines(x, rows["low"], rows["high"], color=colour, linewidth=0.9)
            ax.plot(
                x, rows["value"], "o", color=colour, markerfacecolor=face, markersize=3, label=label
            )
            few = rows[rows["pool_low"].notna()]
            at = np.array([sizes.index(int(p)) for p in few["pool"]]) + 0.13 * (i - 1.5) + 0.05
            ax.vlines(at, few["pool_low"], few["pool_high"], color="#444444", linewidth=0.5)
        n_all = max(sizes)
        ax.set_xticks(range(len(sizes)), [f"all {s}" if s == n_all else str(s) for s in sizes])
        ax.set_xlabel("pool size")
        ax.set_ylabel(f"recall@{k}")
        ax.set_ylim(0, 1)
        if name == "one":
            ax.legend(loc="upper right", fontsize=5, labelspacing=0.25, borderaxespad=0)
    ax = axes["representation"]
    part = table[(table["model"] == "main") & (table["metric"] == headline)]
    part = part[part["label"].str.contains("findings") & (part["status"] == "ok")]
    labels = list(dict.fromkeys(part["label"]))
    kinds = list(dict.fromkeys(part["representation"]))
    for kind, marker, shift in zip(kinds, ("o", "s", "^"), (-0.15, 0.15, 0.3), strict=False):
        rows = part[part["representation"] == kind]
        rows = rows.assign(position=[labels.index(x) for x in rows["label"]])
        draw_forest(
            ax,
            rows,
            colour=COLOUR["merlin"],
            marker=marker,
            offset=shift,
            label=f"report as {kind}",
        )
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xlabel(f"{headline} (dotted: chance)")
    vertical_line(ax, 1 / pool, "")
    legend_above(ax, 1, fontsize=5)
    ax = axes["models"]
    part = table[
        (table["metric"] == headline)
        & (table["representation"] == facts["representation"])
        & (table["status"] == "ok")
    ]
    models = list(dict.fromkeys(part["model"]))
    forest_by_model(ax, part, list(dict.fromkeys(part["label"])), models)
    ax.set_xlim(0, 1)
    ax.set_xlabel(f"{headline} (dotted: chance)")
    vertical_line(ax, 1 / pool, "")
    order = ("matrix", "length", "one", "eight", "representation", "models")
    for letter, name in zip("abcdef", order, strict=True):
        panel_letter(axes[name], letter)
    return figure


SITE_COLOUR = {
    "internal": COLOUR["merlin"],
    "site_b": COLOUR["external"],
    "site_c": COLOUR["present"],
    "spine": COLOUR["novel"],
}


def draw_external(tables, facts):
    """Tasks by site, the drop finding by finding, and the spine series."""
    table, drop = tables[""], tables["drop"]
    figure, axes = new_figure(
        PAGE_MM,
        150,
        mosaic=[["tasks", "drop"], ["drops", "drop"], ["spine", "drop"]],
        gridspec_kw=dict(width_ratios=[1, 1.15], height_ratios=[1.15, 1, 0.75]),
    )
    ax = axes["tasks"]
    labels = list(dict.fromkeys(table[table["part"] == "task"]["label"]))
    sites = [s for s in SITE_COLOUR if s in set(table[table["part"] == "task"]["site"])]
    for site, shift in zip(sites, np.linspace(-0.22, 0.22, len(sites)), strict=True):
        rows = table[
            (table["part"] == "task") & (table["site"] == site) & (table["status"] == "ok")
        ]
        rows = rows.assign(position=[labels.index(x) for x in rows["label"]])
        draw_forest(ax, rows, colour=SITE_COLOUR[site], offset=shift, label=pretty(site))
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xlabel("value on the site's studies")
    legend_above(ax, 3)
    ax = axes["drop"]
    names = facts["order"]
    for site, shift in (("site_b", -0.15), ("site_c", 0.15)):
        rows = drop[(drop["site"] == site) & (drop["metric"] == "AUROC")]
        rows = rows[rows["label"].isin(names) & rows["value"].notna()]
        rows = rows.assign(position=[names.index(x) for x in rows["label"]])
        draw_forest(ax, rows, colour=SITE_COLOUR[site], offset=shift, label=pretty(site), size=2.0)
    ax.set_yticks(range(len(names)), [pretty(n) for n in names], fontsize=5)
    ax.set_ylim(len(names) - 0.3, -0.7)
    ax.axvline(0, color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    ax.set_xlabel("AUROC, external minus internal")
    legend_above(ax, 2)
    ax = axes["drops"]
    overall = drop[drop["label"] == "macro"]
    labels = list(dict.fromkeys(overall["metric"]))
    for site, shift in (("site_b", -0.12), ("site_c", 0.12)):
        rows = overall[overall["site"] == site]
        rows = rows.assign(position=[labels.index(x) for x in rows["metric"]])
        draw_forest(ax, rows, colour=SITE_COLOUR[site], offset=shift)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.6)
    ax.axvline(0, color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    ax.set_xlabel("external minus internal, mean over findings")
    ax = axes["spine"]
    rows = table[(table["part"] == "spine") & (table["status"] == "ok")]
    rows = rows.assign(position=range(len(rows)))
    draw_forest(ax, rows, colour=SITE_COLOUR["spine"])
    said = {"auroc": "AUROC", "f1": "F1", "f1_balanced": "F1, balanced"}
    ax.set_yticks(range(len(rows)), [said.get(m, m) for m in rows["metric"]])
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xlabel("vertebral fracture, spine series, zero-shot")
    for letter, name in zip("abcd", ("tasks", "drops", "spine", "drop"), strict=True):
        panel_letter(axes[name], letter)
    return figure


def draw_comparison(tables, facts):
    """Several embeddings files side by side: the three off-the-shelf tasks, and findings apart."""
    table = tables[""]
    models = list(dict.fromkeys(table["model"]))
    each = table[(table["task"] == "zero-shot findings") & (table["metric"] == "auroc")]
    first = each[(each["model"] == models[0]) & (each["label"] != "macro")]
    order = first.sort_values("value", ascending=False, na_position="last")["label"].tolist()
    figure, axes = new_figure(
        PAGE_MM,
        max(70, 30 + 4 * len(order)),
        mosaic=[["summary", "each"]],
        gridspec_kw=dict(width_ratios=[1, 1.2]),
    )
    chosen = table[table["label"].eq("macro") | table["metric"].str.startswith("recall@1 of")]
    kept = ["auroc", "f1", "auprc", f"recall@1 of {facts['pool']}"]
    chosen = chosen[chosen["metric"].isin(kept)]
    chosen = chosen.assign(label=[_short(r) for r in chosen.itertuples()])
    labels = list(dict.fromkeys(chosen[chosen["status"] == "ok"]["label"]))
    forest_by_model(axes["summary"], chosen, labels, models, names=labels)
    axes["summary"].set_xlim(0, 1)
    axes["summary"].set_xlabel("value on the common studies")
    forest_by_model(axes["each"], each, order, models, legend=False)
    axes["each"].set_xlabel("zero-shot AUROC")
    vertical_line(axes["each"], 0.5, "chance")
    for letter, name in zip("ab", ("summary", "each"), strict=True):
        panel_letter(axes[name], letter)
    return figure


def _short(row):
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
