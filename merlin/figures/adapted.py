"""Figures of the adapted tasks and the summary: 5-year diseases, reports, segmentation.

Tables → figures; no files, no statistics.
"""

import numpy as np

from merlin.figures import style
from merlin.figures.off_shelf import forest_by_model, legend_above, vertical_line
from merlin.figures.panels import draw_forest, pretty
from merlin.figures.style import COLOUR, PAGE_MM, new_figure, panel_letter

START_NAMES = {
    "merlin": "our pretraining",
    "ehr": "codes only",
    "inflated": "inflated 2D",
    "random": "random",
}
START_COLOUR = {
    "merlin": COLOUR["merlin"],
    "ehr": COLOUR["absent"],
    "inflated": COLOUR["novel"],
    "random": COLOUR["baseline"],
}
FROZEN = "_frozen"  # behind the name of a beginning that was left as it is, under probes
DISEASE_NAMES = {
    "cvd": "cardiovascular disease",
    "ihd": "ischemic heart disease",
    "htn": "hypertension",
    "dm": "diabetes",
    "ckd": "chronic kidney disease",
    "ost": "osteoporosis",
    "mean": "mean",
}
CODE_COLOUR = (COLOUR["less data"], COLOUR["present"], COLOUR["novel"], "#DDDDDD")


def draw_five_year(tables, facts):
    """Who counts, mean AUROC by start and label fraction, diseases, differences, calibration."""
    table, flow, pairs = tables[""], tables["flow"], tables["paired"]
    figure, axes = new_figure(
        PAGE_MM,
        125,
        mosaic=[["flow", "mean", "calibration"], ["disease", "pairs", "pairs"]],
        gridspec_kw=dict(width_ratios=[1.4, 1, 0.9], height_ratios=[1, 1.15]),
    )
    _draw_flow(axes["flow"], flow[flow["split"] == "test"])
    fractions = sorted(set(table["fraction"]))
    starts = [s for s in START_NAMES if s in set(table["start"])]
    auroc = table[(table["metric"] == "auroc") & (table["status"] == "ok")]
    ax = axes["mean"]
    mean = auroc[auroc["label"] == "mean"]
    ways = [s + way for way in ("", FROZEN) for s in starts if s + way in set(table["start"])]
    for start, shift in zip(ways, np.linspace(-0.33, 0.33, len(ways)), strict=True):
        rows = mean[mean["start"] == start]
        rows = rows.assign(position=[fractions.index(f) for f in rows["fraction"]])
        plain = start.removesuffix(FROZEN)
        how = dict(label=START_NAMES[plain]) if start == plain else dict(marker="D", size=2.2)
        draw_forest(ax, rows, colour=START_COLOUR[plain], offset=shift, **how)
    if len(ways) > len(starts):
        ax.plot([], [], "D", color="black", markersize=2.2, label="diamond: frozen, probes")
    ax.set_yticks(range(len(fractions)), [f"{f:.0%} of labels" for f in fractions])
    ax.set_ylim(len(fractions) - 0.5, -0.6)
    ax.set_xlabel("mean AUROC (dotted: chance)")
    vertical_line(ax, 0.5, "")
    legend_above(ax, 2, fontsize=5)
    ax = axes["disease"]
    full = auroc[(auroc["fraction"] == max(fractions)) & (auroc["label"] != "mean")]
    labels = [d for d in DISEASE_NAMES if d in set(full["label"])]
    counts = full.drop_duplicates("label").set_index("label")
    names = [
        f"{DISEASE_NAMES[d]}\n({counts.loc[d, 'n_positive']}/{counts.loc[d, 'n_studies']})"
        for d in labels
    ]
    rows = full[full["start"].isin(starts)].assign(model=full["start"])
    forest_by_model(ax, rows, labels, starts, names=names, colours=START_COLOUR, legend=False)
    ax.set_xlabel("AUROC with all labels (events / studies that count)")
    vertical_line(ax, 0.5, "chance")
    ax = axes["pairs"]
    rows = pairs.assign(position=range(len(pairs)))
    draw_forest(ax, rows, colour=COLOUR["merlin"])
    ax.set_yticks(
        range(len(rows)),
        [
            f"{_pair(a, o)}, {f:.0%}"
            for a, o, f in zip(rows["ours"], rows["other"], rows["fraction"], strict=True)
        ],
        fontsize=5,
    )
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.axvline(0, color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    ax.set_xlabel("AUROC, ours minus")
    _draw_calibration(axes["calibration"], tables["reliability"], starts)
    for letter, name in zip(
        "abcde", ("flow", "mean", "calibration", "disease", "pairs"), strict=True
    ):
        panel_letter(axes[name], letter)
    return figure


def _draw_flow(ax, part, split="test"):
    diseases = list(dict.fromkeys(part["disease"]))
    left = np.zeros(len(diseases))
    for code, colour in enumerate(CODE_COLOUR):
        rows = part[part["code"] == code].set_index("disease").loc[diseases]
        ax.barh(
            range(len(diseases)), rows["n_studies"], left=left, color=colour, height=0.7,
            label=f"{code} {rows['meaning'].iloc[0]}",
        )  # fmt: skip
        left += rows["n_studies"].to_numpy()
    ax.set_yticks(range(len(diseases)), diseases)
    ax.invert_yaxis()
    ax.set_xlabel(f"{split} studies; 2 and 3 are excluded")
    legend_above(ax, 2, fontsize=5)


def _draw_calibration(ax, bins, starts):
    ax.plot([0, 1], [0, 1], color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    for start in starts:
        rows = bins[bins["start"] == start]
        colour = START_COLOUR[start]
        ax.vlines(
            rows["predicted"],
            rows["observed_low"],
            rows["observed_high"],
            color=colour,
            linewidth=0.6,
        )
        ax.plot(
            rows["predicted"], rows["observed"], "o-", color=colour, markersize=2.4, linewidth=0.8
        )
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("predicted risk")
    ax.set_ylabel("observed share")


def draw_given_five_year(tables, facts):
    """One finished model: who counts, AUROC by disease, calibration."""
    table, flow = tables[""], tables["flow"]
    figure, axes = new_figure(
        PAGE_MM,
        70,
        mosaic=[["flow", "disease", "calibration"]],
        gridspec_kw=dict(width_ratios=[1.2, 1.2, 0.9]),
    )
    _draw_flow(axes["flow"], flow, split=facts.get("split", "test"))
    ax = axes["disease"]
    rows = table[(table["metric"] == "auroc") & (table["status"] == "ok")]
    names = [
        "mean"
        if r.label == "mean"
        else f"{DISEASE_NAMES.get(r.label, r.label)}\n({r.n_positive}/{r.n_studies})"
        for r in rows.itertuples()
    ]
    draw_forest(ax, rows.assign(position=range(len(rows))), colour=COLOUR["merlin"])
    ax.set_yticks(range(len(rows)), names, fontsize=5)
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.6)
    ax.set_xlabel("AUROC (events / studies that count)")
    vertical_line(ax, 0.5, "chance")
    _draw_calibration(axes["calibration"], tables["reliability"], ["merlin"])
    for letter, name in zip("abc", ("flow", "disease", "calibration"), strict=True):
        panel_letter(axes[name], letter)
    return figure


def _pair(ours, other):
    """Two beginnings and what was done to them, in the words of the axis."""
    ours, theirs = (("frozen" if s.endswith(FROZEN) else "tuned") for s in (ours, other))
    name = START_NAMES[other.removesuffix(FROZEN)]
    return f"{ours} − {name}" if ours == theirs else f"{ours} − {name} {theirs}"


WRITER_NAMES = {
    "writer": "generated",
    "nearest": "nearest report",
    "frequent": "most frequent text",
    "normal": "always normal",
}
WRITER_COLOUR = {
    "writer": COLOUR["merlin"],
    "nearest": COLOUR["external"],
    "frequent": COLOUR["novel"],
    "normal": COLOUR["baseline"],
}
REPORT_METRICS = {
    "clinical_f1": "clinical F1 (micro)",
    "clinical_f1_macro": "clinical F1 (macro)",
    "bleu": "BLEU (13a)",
    "bleu4_coco": "BLEU-4 (COCO)",
    "rouge2": "ROUGE-2",
    "bertscore": "BERTScore",
}


def draw_report_generation(tables, facts):
    """Metrics of whole reports, clinical F1 by section and finding, and one case side by side."""
    table = tables[""]
    figure, axes = new_figure(
        PAGE_MM,
        168,
        mosaic=[["full", "finding"], ["section", "finding"], ["case", "case"]],
        gridspec_kw=dict(height_ratios=[0.8, 1.1, 1.15]),
    )
    models = [m for m in WRITER_NAMES if m in set(table["model"])]
    full = table[table["label"] == "full report"]
    full = full.assign(label=full["metric"])
    metrics = [m for m in REPORT_METRICS if m in set(full["label"])]
    options = dict(colours=WRITER_COLOUR, legend=False)
    names = [REPORT_METRICS[m] for m in metrics]
    forest_by_model(axes["full"], full, metrics, models, names=names, **options)
    points = [
        axes["full"].plot([], [], "o", color=WRITER_COLOUR[m], markersize=2.6)[0] for m in models
    ]
    legend_above(
        axes["full"], 2, fontsize=5, handles=points, labels=[WRITER_NAMES[m] for m in models]
    )
    axes["full"].set_xlim(0, 1)
    axes["full"].set_xlabel("whole findings text")
    f1 = table[table["metric"] == "clinical_f1"]
    sections = [s for s in dict.fromkeys(f1["label"]) if not s.startswith(("finding", "full"))]
    sections = [s for s in sections if (f1[f1["label"] == s]["status"] == "ok").any()]
    shown = [m for m in models if m != "normal"]
    forest_by_model(axes["section"], f1, sections, shown, **options)
    axes["section"].set_xlim(0, 1)
    axes["section"].set_xlabel("clinical F1 (micro) by section")
    each = f1[f1["label"].str.startswith("finding: ") & (f1["status"] == "ok")]
    mine = each[each["model"] == "writer"].sort_values("value", ascending=False)
    labels = mine["label"].tolist()
    names = [f"{pretty(x.removeprefix('finding: '))}" for x in labels]
    forest_by_model(axes["finding"], each, labels, shown, names=names, **options)
    axes["finding"].tick_params(axis="y", labelsize=5)
    axes["finding"].set_xlim(0, 1)
    axes["finding"].set_xlabel("clinical F1 by finding")
    ax = axes["case"]
    ax.axis("off")
    row = tables["cases"].iloc[0]
    bad = tables["cases"][tables["cases"]["case"] == "bad"].iloc[-1]
    import textwrap

    for x, case, title in ((-0.16, row, "good"), (0.44, bad, "bad")):
        text = f"{title} case by rule, F1 {case['f1']:.2f}, study {case['study_id']}\n"
        for kind in ("reference", "generated"):
            text += f"\n{kind}:\n" + textwrap.fill(_clip(str(case[kind]), 560), 84) + "\n"
        ax.text(x, 0.96, text, va="top", fontsize=5, linespacing=1.15, transform=ax.transAxes)
    for letter, name in zip("abcd", ("full", "section", "finding", "case"), strict=True):
        panel_letter(axes[name], letter)
    return figure


def _clip(text, n):
    return text if len(text) <= n else text[: n - 1].rsplit(" ", 1)[0] + " …"


SEGMENTER_NAMES = {"merlin": "our pretraining", "scratch": "same net, random", "dynunet": "DynUNet"}
SEGMENTER_COLOUR = {
    "merlin": COLOUR["merlin"],
    "scratch": COLOUR["baseline"],
    "dynunet": COLOUR["external"],
}


def draw_segmentation(tables, facts):
    """Mean Dice by network and label fraction, organs, distances, and an overlay."""
    table = tables[""]
    table = table[table["split"] == "test"]
    figure, axes = new_figure(
        PAGE_MM,
        160,
        mosaic=[
            ["mean", "organ", "organ"],
            ["distance", "organ", "organ"],
            ["truth", "ours", "other"],
        ],
        gridspec_kw=dict(height_ratios=[0.75, 1.0, 1.25]),
    )
    fractions = sorted(set(table["fraction"]))
    kinds = [k for k in SEGMENTER_NAMES if k in set(table["model"])]
    for name, metric, text in (
        ("mean", "dice", "mean Dice over structures"),
        ("distance", "distance_mm", "mean surface distance (mm)"),
    ):
        ax = axes[name]
        rows = table[(table["label"] == "mean") & (table["metric"] == metric)]
        for kind, shift in zip(kinds, np.linspace(-0.2, 0.2, len(kinds)), strict=True):
            part = rows[rows["model"] == kind]
            part = part.assign(position=[fractions.index(f) for f in part["fraction"]])
            draw_forest(
                ax, part, colour=SEGMENTER_COLOUR[kind], offset=shift, label=SEGMENTER_NAMES[kind]
            )
        ax.set_yticks(range(len(fractions)), [f"{f:.0%}" for f in fractions])
        ax.set_ylim(len(fractions) - 0.5, -0.6)
        ax.set_xlabel(text)
        ax.set_ylabel("of labels")
    legend_above(axes["mean"], 2, fontsize=5)
    dice = table[(table["metric"] == "dice") & (table["fraction"] == max(fractions))]
    dice = dice[dice["label"] != "mean"]
    mine = dice[dice["model"] == "merlin"].sort_values("value", ascending=False)
    labels = mine[mine["status"] == "ok"]["label"].tolist()
    count = mine.set_index("label")["n_studies"]
    names = [f"{pretty(x)} ({count[x]})" for x in labels]
    forest_by_model(
        axes["organ"], dice, labels, kinds, names=names, colours=SEGMENTER_COLOUR, legend=False
    )
    axes["organ"].set_xlim(0, 1)
    axes["organ"].set_xlabel("Dice with all labels, native grid (scans that hold the structure)")
    images = style.table_to_images(tables["overlay"])
    for name, title in (("truth", "reference"), ("ours", "our pretraining"), ("other", "DynUNet")):
        ax = axes[name]
        style.show_slice(ax, images["ct"], aspect=facts["overlay_aspect"])
        label = images[name]
        colours = np.zeros((*label.shape, 4))
        palette = structure_colours(len(facts["structures"]))
        for number in range(1, len(facts["structures"]) + 1):
            colours[label == number] = (*palette[number - 1][:3], 0.55)
        ax.imshow(colours, aspect=facts["overlay_aspect"], interpolation="nearest")
        ax.set_xlabel(title)
    for letter, name in zip(
        "abcdef", ("mean", "distance", "organ", "truth", "ours", "other"), strict=True
    ):
        panel_letter(axes[name], letter)
    return figure


def structure_colours(n):
    """`n` colours for organs, neighbours in number far apart in hue."""
    import matplotlib as mpl

    order = (np.arange(n) * 7) % max(n, 1)
    return [mpl.colormaps["turbo"](0.05 + 0.9 * i / max(n - 1, 1)) for i in order]


def draw_summary(tables, facts):
    """All task families, ours against a baseline of each, from the results tables."""
    table = tables[""]
    figure, axes = new_figure(PAGE_MM, 24 + 8 * len(table["row"].unique()), mosaic=[["all"]])
    ax = axes["all"]
    rows = list(dict.fromkeys(table["row"]))
    for is_ours, colour, shift, label in (
        (True, COLOUR["merlin"], -0.14, "this model"),
        (False, COLOUR["baseline"], 0.14, "baseline named at the right"),
    ):
        part = table[table["is_ours"] == is_ours]
        part = part.assign(position=[rows.index(r) for r in part["row"]])
        draw_forest(ax, part, colour=colour, offset=shift, label=label, size=3)
    for r in table[~table["is_ours"]].itertuples():
        ours = table[table["is_ours"] & (table["row"] == r.row)]["n_studies"].iloc[0]
        n = f"{ours:,.0f}" if ours == r.n_studies else f"{ours:,.0f} and {r.n_studies:,.0f}"
        n = f"{r.baseline} (n = {n})"
        ax.text(1.01, rows.index(r.row), n, fontsize=5.5, va="center")
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xlabel("value of the metric named at the left")
    legend_above(ax, 2)
    return figure


FIGURES = {
    "five_year": draw_five_year,
    "report_generation": draw_report_generation,
    "segmentation": draw_segmentation,
    "summary": draw_summary,
}
