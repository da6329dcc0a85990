"""Tables → axes: one function per panel, one per figure. No files, no statistics.

Figure functions take the tables by name and the sidecar's facts, and return the figure. The names
in `FIGURES` are those of the files in `figures/`.
"""

import numpy as np
from matplotlib.ticker import MaxNLocator

from merlin.figures import style
from merlin.figures.style import COLOUR, MARKER, PAGE_MM, new_figure, panel_letter


def pretty(name):
    """`hepatic_steatosis` → `hepatic steatosis`."""
    return str(name).replace("_", " ")


def draw_forest(ax, table, *, colour, marker="o", offset=0.0, label=None, size=2.6):
    """Points with intervals, one row a label, in the table's order from the top.

    Parameters
    ----------
    table : DataFrame
        `value, low, high` and `position`.
    """
    y = table["position"].to_numpy() + offset
    low, high, value = (table[c].to_numpy(float) for c in ("low", "high", "value"))
    ax.hlines(y, low, high, color=colour, linewidth=0.9)
    return ax.plot(value, y, marker, color=colour, markersize=size, label=label, linestyle="none")[
        0
    ]


def draw_one_study(tables, facts):
    """One phantom in three planes, with its report and codes beside it."""
    images = style.table_to_images(tables["slices"])
    lines = [f"{row.kind}: {row.text}" for row in tables["text"].itertuples()]
    text = "\n\n".join(_wrap(x, 56) for x in lines)
    figure, axes = new_figure(
        PAGE_MM,
        max(
            78, 12 + 2.3 * text.count("\n")
        ),  # a long report needs its height: 2.3 mm a line of 5 pt
        mosaic=[["axial", "coronal", "sagittal", "text"]],
        gridspec_kw=dict(width_ratios=[1.25, 1, 0.7, 1.35]),
    )
    for letter, plane in zip("abc", ("axial", "coronal", "sagittal"), strict=True):
        aspect = 1.0 if plane == "axial" else facts["slice_mm"] / facts["pixel_mm"]
        style.show_slice(axes[plane], images[plane], aspect=aspect, text=plane)
        panel_letter(axes[plane], letter)
    axes["axial"].text(
        0.02, 0.02, "R", color="white", fontsize=6, transform=axes["axial"].transAxes
    )
    axes["axial"].text(
        0.94, 0.02, "L", color="white", fontsize=6, transform=axes["axial"].transAxes
    )
    ax = axes["text"]
    ax.axis("off")
    panel_letter(ax, "d")
    ax.text(0, 1, text, va="top", fontsize=5, linespacing=1.25)
    return figure


def _wrap(text, width):
    import textwrap

    return textwrap.fill(text, width)


def draw_cohort(tables, facts):
    """Cohort flow, prevalence by site, and HU by organ against real CT's usual values."""
    figure, axes = new_figure(
        PAGE_MM,
        118,
        mosaic=[["flow", "prevalence", "hu"]],
        gridspec_kw=dict(width_ratios=[0.95, 1.1, 1.1]),
    )
    draw_flow(axes["flow"], tables["flow"])
    draw_prevalence(axes["prevalence"], tables["prevalence"])
    draw_organ_hu(axes["hu"], tables["hu"])
    for letter, name in zip("abc", ("flow", "prevalence", "hu"), strict=True):
        panel_letter(axes[name], letter)
    return figure


def draw_flow(ax, table):
    """Boxes with arrows from all patients down to each split and site."""
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    rows = table.to_dict("records")
    inside = [r for r in rows if r["step"].startswith("internal")]
    outside = [r for r in rows if r["step"].startswith("external")]
    arrow = dict(arrowstyle="-|>", mutation_scale=5, color="#7A8793", linewidth=0.6, shrinkA=0)

    def box(row, x, y):
        name = pretty(row["step"].removeprefix("internal, ").removeprefix("external, "))
        ax.text(
            x,
            y,
            f"{name}\n{row['n_patients']:,} patients\n{row['n_studies']:,} studies",
            ha="center",
            va="center",
            fontsize=5.2,
            bbox=dict(
                boxstyle="round,pad=0.4", facecolor="#F3F6F9", edgecolor="#7A8793", linewidth=0.6
            ),
        )

    box(rows[0], 0.5, 0.93)
    for column, x, branch in ((inside, 0.26, 0.03), (outside, 0.78, 0.55)):
        if not column:
            continue
        heights = np.linspace(0.72, 0.1, max(len(inside), len(outside)))[: len(column)]
        for row, y in zip(column, heights, strict=True):
            box(row, x, y)
        # From above into the internal box, and along a spine at the left into the others.
        first = 1 if column is inside else 0
        if column is inside:
            ax.annotate("", (x, heights[0] + 0.045), (0.42, 0.885), arrowprops=arrow)
            start = (branch, heights[0])
        else:
            start = (branch, 0.885)
        ax.plot([branch, branch], [start[1], heights[-1]], color="#7A8793", linewidth=0.6)
        if column is inside:
            ax.plot([branch, x - 0.17], [heights[0]] * 2, color="#7A8793", linewidth=0.6)
        for y in heights[first:]:
            ax.annotate("", (x - 0.16, y), (branch, y), arrowprops=arrow)


def draw_prevalence(ax, table):
    """Share of studies with each finding, internal and external."""
    order = table[table["site"] == "internal"].sort_values("prevalence")["finding"].tolist()
    for site, colour, marker in (
        ("internal", COLOUR["merlin"], "o"),
        ("site_b", COLOUR["external"], "D"),
        ("site_c", COLOUR["external"], "^"),
    ):
        part = table[table["site"] == site].set_index("finding").reindex(order)
        ax.plot(
            part["prevalence"],
            range(len(order)),
            marker,
            color=colour,
            markersize=2.6,
            label=pretty(site),
        )
    ax.set_yticks(range(len(order)), [pretty(n) for n in order], fontsize=5.2)
    ax.set_xlabel("share of studies with the finding")
    ax.set_xlim(left=0)
    ax.legend(loc="lower right")


def draw_organ_hu(ax, table):
    """Median HU and its 5th to 95th percentile by organ, phantom beside real CT where given."""
    organs = table["organ"].drop_duplicates().tolist()[::-1]
    for source, colour, offset in (
        ("phantom", COLOUR["merlin"], 0.13),
        ("real", COLOUR["present"], -0.22),
    ):
        part = table[table["source"] == source]
        if part.empty:
            continue
        y = np.array([organs.index(o) for o in part["organ"]]) + offset
        ax.hlines(y, part["p05"], part["p95"], color=colour, linewidth=0.9)
        ax.plot(part["median"], y, "o", color=colour, markersize=2.4, label=source)
    ax.set_yticks(range(len(organs)), [pretty(o) for o in organs], fontsize=5.2)
    ax.set_xlabel("HU: median, 5th to 95th percentile")
    ax.set_xlim(-1050, 700)
    ax.set_xticks([-1000, -500, 0, 500])
    ax.legend(loc="upper left")


def draw_phantom_ct(tables, facts):
    """Phantoms (and a real scan where given) in soft-tissue, lung and bone windows."""
    images = style.table_to_images(tables["slices"])
    rows = tables["rows"].to_dict("records")
    columns = ("upper abdomen", "kidneys", "pelvis", "lung bases", "coronal", "sagittal")
    figure, axes = new_figure(
        PAGE_MM,
        27 * len(rows) + 10,
        mosaic=[[f"{r['key']}|{c}" for c in columns] for r in rows],
        gridspec_kw=dict(width_ratios=[1.3, 1.3, 1.3, 1.3, 0.95, 0.7]),
    )
    windows = {"lung bases": style.LUNG, "sagittal": style.BONE}
    for i, row in enumerate(rows):
        for column in columns:
            ax = axes[f"{row['key']}|{column}"]
            aspect = row["slice_mm"] / row["pixel_mm"] if column in ("coronal", "sagittal") else 1.0
            style.show_slice(
                ax,
                images[f"{row['key']}|{column}"],
                window=windows.get(column, style.SOFT_TISSUE),
                aspect=aspect,
            )
            if i == 0:
                ax.set_title(
                    column
                    + {"lung bases": "\nW 1500 L −600", "sagittal": "\nW 1500 L 400"}.get(
                        column, "\nW 400 L 40"
                    ),
                    fontsize=5.6,
                )
        axes[f"{row['key']}|upper abdomen"].set_ylabel(row["title"], fontsize=5.6)
    return figure


def draw_findings_gallery(tables, facts):
    """Each finding on the slice where it changes the image most, with and without it."""
    images = style.table_to_images(tables["slices"])
    change = tables[""].set_index("finding")
    names = change.index.tolist()
    n_columns = 6
    n_rows = -(-len(names) // n_columns)
    mosaic = [
        [
            names[r * n_columns + c] if r * n_columns + c < len(names) else "."
            for c in range(n_columns)
        ]
        for r in range(n_rows)
    ]
    figure, axes = new_figure(PAGE_MM, 100, mosaic=mosaic, gridspec_kw=dict(hspace=0, wspace=0))
    for name in names:
        pair = np.concatenate(
            [_trim(images[f"{name}|without"]), _trim(images[f"{name}|with"])], axis=1
        )
        window = {"atelectasis": style.LUNG, "osteopenia": style.BONE}.get(name, style.SOFT_TISSUE)
        style.show_slice(axes[name], pair, window=window)
        axes[name].set_title(
            f"{pretty(name)}\n{change.loc[name, 'changed_ml']:,.0f} ml", fontsize=5.2, pad=2
        )
    return figure


def _trim(image, rows=0.07, columns=0.03):
    """Cut the air at the borders: the body fills the picture."""
    r, c = int(rows * image.shape[0]), int(columns * image.shape[1])
    return image[r:-r, c:-c]


def draw_qc(tables, facts):
    """What the model sees of one scan, in three planes, with what was assumed and cut off."""
    images = style.table_to_images(tables["slices"])
    figure, axes = new_figure(
        PAGE_MM,
        72,
        mosaic=[["axial", "coronal", "sagittal", "text"]],
        gridspec_kw=dict(width_ratios=[1.2, 1.0, 0.8, 1.2]),
    )
    spacing = facts["grid_spacing_mm"]
    for plane in ("axial", "coronal", "sagittal"):
        aspect = {
            "axial": spacing[1] / spacing[0],
            "coronal": spacing[2] / spacing[0],
            "sagittal": spacing[2] / spacing[1],
        }
        style.show_slice(axes[plane], images[plane], aspect=aspect[plane], text=plane)
    axes["axial"].text(
        0.02, 0.02, "R", color="white", fontsize=6, transform=axes["axial"].transAxes
    )
    for ax, low, high in ((axes["coronal"], "R", "L"), (axes["sagittal"], "A", "P")):
        ax.text(0.02, 0.02, low, color="white", fontsize=6, transform=ax.transAxes)
        ax.text(0.9, 0.02, high, color="white", fontsize=6, transform=ax.transAxes)
    axes["text"].axis("off")
    lines = [f"{r.what}: {r.value}" for r in tables["text"].itertuples()]
    axes["text"].text(
        0, 1, "\n".join(_wrap(x, 52) for x in lines), va="top", fontsize=5.4, linespacing=1.35
    )
    return figure


def draw_pretraining(tables, facts):
    """Losses, temperature and validation AUROC by step, one line an arm."""
    figure, axes = new_figure(PAGE_MM, 58, mosaic=[["report", "codes", "auroc"]])
    arms = tables[""]["arm"].drop_duplicates().tolist()
    for number, arm in enumerate(arms):
        colour = ("merlin", "less data", "external", "present", "baseline")[number % 5]
        part = tables[""][tables[""]["arm"] == arm]
        for name, column in (("report", "report_loss"), ("codes", "ehr_loss")):
            for _, phase in part.groupby("phase", sort=False):
                axes[name].plot(phase["step"], phase[column], color=COLOUR[colour], label=arm)
        known = part.dropna(subset=["val_phecode_auroc"])
        axes["auroc"].plot(
            known["step"],
            known["val_phecode_auroc"],
            "o-",
            color=COLOUR[colour],
            markersize=3,
            label=arm,
        )
    aligned = tables[""].loc[tables[""]["phase"] == "align", "step"]
    if len(aligned):
        axes["report"].axvspan(aligned.min(), aligned.max(), color="#EEEEEE", zorder=0)
        axes["report"].text(
            aligned.max(),
            1.02,
            "alignment,\nlarger batch",
            fontsize=5,
            ha="right",
            transform=axes["report"].get_xaxis_transform(),
        )
    axes["report"].set_ylabel("report loss, InfoNCE (nats)")
    axes["codes"].set_ylabel("code loss, BCE (nats)")
    axes["auroc"].set_ylabel("mean phecode AUROC, validation")
    for letter, name in zip("abc", ("report", "codes", "auroc"), strict=True):
        axes[name].set_xlabel("optimiser step")
        axes[name].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel_letter(axes[name], letter)
    axes["auroc"].axhline(0.5, color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    axes["auroc"].legend(loc="lower right", title="arm")
    return figure


def draw_embeddings(tables, facts):
    """Images in their two main directions, and similarity of studies to reports."""
    figure, axes = new_figure(PAGE_MM, 66, mosaic=[["map", "shift", "matrix"]])
    points = tables[""]
    edges = np.linspace(points["score"].min(), points["score"].max(), 26)
    for value, colour, marker in ((0, "absent", "o"), (1, "present", "^")):
        part = points[points["finding"] == value]
        axes["map"].plot(
            part["x"], part["y"], marker, color=COLOUR[colour], markersize=1.8, alpha=0.7,
            label=f"{pretty(facts['finding'])} {colour}", linestyle="none",
        )  # fmt: skip
        axes["shift"].hist(
            part["score"], bins=edges, histtype="step", color=COLOUR[colour],
            label=f"{colour} (n = {len(part)})",
        )  # fmt: skip
    axes["map"].set_xlabel(f"direction 1 ({facts['explained'][0]:.0%} of variance)")
    axes["map"].set_ylabel(f"direction 2 ({facts['explained'][1]:.0%})")
    axes["map"].legend(loc="lower right", bbox_to_anchor=(1, 1), markerscale=2)
    axes["shift"].set_xlabel("similarity to presence − absence prompts")
    axes["shift"].set_ylabel("test studies that mention it")
    axes["shift"].axvline(0, color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    axes["shift"].legend(loc="lower right", bbox_to_anchor=(1, 1))
    matrix = tables["matrix"].to_numpy(float)
    shown = axes["matrix"].imshow(matrix, cmap="viridis")
    axes["matrix"].set_xlabel("report of study")
    axes["matrix"].set_ylabel("volume of study")
    figure.colorbar(shown, ax=axes["matrix"], shrink=0.8, label="similarity (dot product)")
    for letter, name in zip("abc", ("map", "shift", "matrix"), strict=True):
        panel_letter(axes[name], letter)
    return figure


def draw_zero_shot(tables, facts):
    """The paper's zero-shot figure: how it works, macro scores, the 30 findings."""
    figure, axes = new_figure(
        PAGE_MM,
        170,
        mosaic=[[name, "auroc", "f1"] for name in ("how", "macro", "wording", "radar")],
        gridspec_kw=dict(width_ratios=[1.1, 1.25, 0.8], height_ratios=[0.8, 0.85, 1.15, 1.35]),
        per_subplot_kw={"radar": dict(projection="polar")},
    )
    table = tables[""]
    _draw_how(axes["how"], tables["example"])
    _draw_macro(axes["macro"], table)
    _draw_findings(axes["auroc"], table)
    _draw_radar(axes["radar"], table)
    _draw_f1(axes["f1"], table)
    for letter, name in zip(
        "abcdef", ("how", "macro", "wording", "radar", "auroc", "f1"), strict=True
    ):
        panel_letter(axes[name], letter)
    _draw_wording(axes["wording"], table)  # last: its names look for room in the finished layout
    return figure


SERIES = (
    ("main", "main arm", "merlin"),
    ("tenth", "tenth arm", "less data"),
    ("main, site_b", "external site B", "external"),
    ("main, site_c", "external site C", "external"),
)


def _draw_how(ax, example):
    """Similarities of one volume to the prompts of one finding."""
    for kind in ("present", "absent"):
        part = example[example["kind"] == kind]
        ax.barh(
            part["position"],
            part["similarity"],
            color=COLOUR[kind],
            height=0.7,
            label=f"{kind} prompts",
        )
        ax.axvline(part["similarity"].mean(), color=COLOUR[kind], linewidth=1, linestyle="--")
    ax.set_yticks(example["position"], [_wrap(p, 30) for p in example["prompt"]], fontsize=5)
    for tick, kind in zip(ax.get_yticklabels(), example["kind"], strict=True):
        tick.set_color(COLOUR[kind])
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.5)
    ax.set_xlabel("cosine similarity to one volume")
    ax.set_title(
        "dashed: means",
        fontsize=5.6,
        loc="right",
        pad=3,
    )


def _draw_macro(ax, table):
    """Macro F1 and AUROC of models, sites and baselines."""
    names, y = [], 0
    for model, label, colour in (
        *SERIES,
        ("always present", "always present", "baseline"),
        ("chance", "chance", "baseline"),
    ):
        part = table[
            (table["label"] == "macro")
            & (table["model"] == model)
            & (table["wording"] == "reported")
        ]
        if part.empty:
            continue
        names.append(label)
        for metric, marker, shift in (
            ("auroc", "o", -0.2),
            ("f1", "s", 0.0),
            ("f1_balanced", "^", 0.2),
        ):
            row = part[part["metric"] == metric].assign(position=y)
            if len(row) and row["status"].eq("ok").all():
                draw_forest(ax, row, colour=COLOUR[colour], marker=marker, offset=shift)
        y += 1
    for metric, marker in (("AUROC", "o"), ("F1", "s"), ("F1, balanced", "^")):
        ax.plot([], [], marker, color="#444444", markersize=3, label=metric, linestyle="none")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("macro over findings; F1 of the positive class")
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.04, 0.99),
        ncol=3,
        fontsize=5,
        columnspacing=0.8,
        handletextpad=0.1,
    )


def _ordered(table):
    """Findings from the highest AUROC to the lowest; panels d, e and f count them in this order."""
    part = table[
        (table["model"] == "main") & (table["metric"] == "auroc") & (table["wording"] == "reported")
    ]
    part = part[part["label"] != "macro"]
    return part.sort_values("value", ascending=False, na_position="last")["label"].tolist()


def _draw_findings(ax, table):
    """AUROC per finding, hard to easy, for all and a tenth of the data."""
    order = _ordered(table)
    for model, label, colour in SERIES[:2]:
        part = table[
            (table["model"] == model)
            & (table["metric"] == "auroc")
            & (table["wording"] == "reported")
        ]
        part = part[part["label"].isin(order) & part["status"].eq("ok")]
        if part.empty:
            continue
        part = part.assign(position=[order.index(n) for n in part["label"]])
        shift = -0.15 if colour == "merlin" else 0.2
        draw_forest(
            ax, part, colour=COLOUR[colour], marker=MARKER[colour], offset=shift, label=label
        )
    counts = (
        table[(table["model"] == "main") & (table["metric"] == "auroc")]
        .drop_duplicates("label")
        .set_index("label")
    )
    names = [
        f"{i} {pretty(n)} ({counts.loc[n, 'n_positive']}/{counts.loc[n, 'n_studies']})"
        for i, n in enumerate(order, 1)
    ]
    ax.set_yticks(range(len(order)), names, fontsize=5)
    ax.set_ylim(len(order) - 0.4, -0.8)
    ax.axvline(0.5, color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    ax.text(0.5, len(order) - 0.5, " chance", fontsize=5, va="bottom", color=COLOUR["baseline"])
    ax.set_xlabel("AUROC (positive / labelled)")
    ax.legend(loc="lower left", bbox_to_anchor=(0.06, 0.995), ncol=2, fontsize=5, borderaxespad=0)


def _draw_radar(ax, table):
    """F1 of each finding around a circle, as the paper draws it."""
    order = _ordered(table)
    angle = np.linspace(0, 2 * np.pi, len(order), endpoint=False)
    for model, label, colour in SERIES[:3]:
        part = table[
            (table["model"] == model) & (table["metric"] == "f1") & (table["wording"] == "reported")
        ]
        if part.empty:
            continue
        value = part.set_index("label").reindex(order)["value"].to_numpy(float)
        style_ = "--" if colour == "external" else "-"
        ax.plot(
            np.append(angle, angle[0]),
            np.append(value, value[:1]),
            style_,
            color=COLOUR[colour],
            linewidth=0.9,
            label=label,
        )
    ax.set_xticks(angle, [str(i + 1) for i in range(len(order))], fontsize=5)
    ax.set_ylim(0, 1)
    ax.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"], fontsize=5)
    ax.grid(linewidth=0.3)
    ax.spines["polar"].set_linewidth(0.4)
    ax.tick_params(pad=-1)
    ax.set_xlabel("F1 of the positive class; numbers as in e")
    ax.legend(loc="lower left", bbox_to_anchor=(1.12, -0.1), fontsize=5, borderaxespad=0)


def _draw_wording(ax, table):
    """AUROC with prompts worded as reports are, against prompts in words that no report uses."""
    pair = {
        w: table[
            (table["model"] == "main")
            & (table["metric"] == "auroc")
            & (table["wording"] == w)
            & (table["label"] != "macro")
        ].set_index("label")["value"]
        for w in ("reported", "novel")
    }
    names = pair["reported"].index
    ax.plot([0.3, 1], [0.3, 1], color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    ax.plot(
        pair["reported"],
        pair["novel"].reindex(names),
        MARKER["novel"],
        color=COLOUR["novel"],
        markersize=3,
        linestyle="none",
    )
    gap = (pair["reported"] - pair["novel"].reindex(names)).sort_values(ascending=False)
    first = gap.index[:2]
    ax.axhline(0.5, color=COLOUR["baseline"], linewidth=0.4, linestyle=":")
    ax.set_xlabel("AUROC, prompts as reports put it")
    ax.set_ylabel("AUROC, unused phrases")
    ax.set_xlim(0.3, 1.02)
    ax.set_ylim(0.1, 1.02)
    style.label_points(
        ax,
        pair["reported"],
        pair["novel"].reindex(names),
        [pretty(n) if n in first else "" for n in names],
    )


def _draw_f1(ax, table):
    """F1 per finding beside what calling every study positive gives."""
    order = _ordered(table)
    for model, label, colour, shift in (
        ("main", "main arm", "merlin", -0.1),
        ("always present", "always present", "baseline", 0.15),
    ):
        part = table[
            (table["model"] == model) & (table["metric"] == "f1") & (table["wording"] == "reported")
        ]
        part = part[part["label"].isin(order) & part["status"].eq("ok")]
        part = part.assign(position=[order.index(n) for n in part["label"]])
        draw_forest(
            ax,
            part,
            colour=COLOUR[colour],
            marker=MARKER[colour],
            offset=shift,
            label=label,
            size=2.2,
        )
    ax.set_yticks(range(len(order)), range(1, len(order) + 1), fontsize=5)
    ax.set_ylim(len(order) - 0.4, -0.8)
    ax.set_xlim(0, 1)
    ax.set_xlabel("F1 (positive class)", fontsize=6)
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.06, 0.995),
        ncol=1,
        fontsize=5,
        columnspacing=0.8,
        handletextpad=0.1,
        borderaxespad=0,
    )


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
