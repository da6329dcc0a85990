"""Figures of the adapted tasks and the summary: 5-year diseases, reports, segmentation.

Tables → figures; no files, no statistics.
"""

import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from merlin.data.slices import table_to_images
from merlin.figures import marks, style
from merlin.figures.marks import LINE, Look, pretty, unique, where
from merlin.figures.style import COLOUR, PAGE_MM, Facts, Tables, lettered_figure, new_figure

STARTS = {
    "merlin": Look("our pretraining", COLOUR["merlin"]),
    "ehr": Look("codes only", COLOUR["absent"]),
    "inflated": Look("inflated 2D", COLOUR["novel"]),
    "random": Look("random", COLOUR["baseline"]),
}
FROZEN = "_frozen"  # behind the name of a beginning that was left as it is, under probes
SIMPLER = {  # rivals without a network, and what they are held against
    "merlin_frozen_person": "frozen, with age and sex",
    "organs_person": "organs, age, sex, phase",
    "organs": "organ measurements",
    "age_sex_phase": "age, sex, phase",
    "age_sex": "age and sex",
    "true_risk": "true risk (ceiling)",
}
DISEASE_NAMES = {
    "cvd": "cardiovascular disease",
    "ihd": "ischemic heart disease",
    "htn": "hypertension",
    "dm": "diabetes",
    "ckd": "chronic kidney disease",
    "ost": "osteoporosis",
}
CODE_COLOURS = (COLOUR["less data"], COLOUR["present"], COLOUR["novel"], "#DDDDDD")
WRITERS = {
    "writer": Look("generated", COLOUR["merlin"]),
    "planned": Look("template, own plan", COLOUR["present"], "D"),
    "template": Look("template, zero-shot", COLOUR["present"]),
    "nearest": Look("nearest report", COLOUR["external"]),
    "everything": Look("everything", COLOUR["absent"]),
    "frequent": Look("most frequent text", COLOUR["novel"]),
    "normal": Look("always normal", COLOUR["baseline"]),
}
REPORT_METRICS = {
    "clinical_f1": "clinical F1 (micro)",
    "clinical_f1_macro": "clinical F1 (macro)",
    "clinical_f1_details": "clinical F1 with details",
    "bleu": "BLEU (13a)",
    "bleu4_coco": "BLEU-4 (COCO)",
    "rouge2": "ROUGE-2",
    "bertscore": "BERTScore",
}
SEGMENTERS = {
    "merlin": Look("our pretraining", COLOUR["merlin"]),
    "scratch": Look("same net, random", COLOUR["baseline"]),
    "dynunet": Look("DynUNet", COLOUR["external"]),
}


def draw_five_year(tables: Tables, facts: Facts) -> Figure:
    """Who counts, mean AUROC of networks and rivals, calibration, net benefit, diseases, differences."""
    table = tables[""]
    rows = "aabb;ccdd;eeff" if "benefit" in tables else "aabb;cccc;ddee"
    figure, (flow, mean, calibration, *decision, disease, pairs) = lettered_figure(
        195, rows, height_ratios=[1.15, 0.85, 1.25]
    )
    _draw_flow(flow, where(tables["flow"], split="test"), "test")
    starts = {s: look for s, look in STARTS.items() if s in set(table["start"])}
    auroc = where(table, metric="auroc", status="ok")
    fractions = sorted(set(table["fraction"]))
    _draw_means(mean, where(auroc, label="mean"), fractions)
    full = where(auroc, fraction=max(fractions))
    counts = full.drop_duplicates("label").set_index("label")
    labels = [d for d in DISEASE_NAMES if d in counts.index]
    names = [_disease(counts.loc[d].rename(d)) for d in labels]
    marks.forest(disease, full, labels, starts, by="start", names=names)
    disease.set_xlabel("AUROC with all labels (events / studies that count)")
    marks.vertical_line(disease, 0.5, "chance")
    rows = tables["paired"]
    rows = rows.assign(pair=[_pair(r.ours, r.other) for r in rows.itertuples()])
    shades = _by_share(fractions)
    marks.forest(
        pairs, rows, unique(rows["pair"]), shades, column="pair", by="fraction", fontsize=5
    )
    pairs.axvline(0, **LINE)
    pairs.set_xlabel("difference of mean AUROC")
    starts |= {"age_sex": Look("age and sex", COLOUR["present"])}
    _draw_calibration(calibration, tables["reliability"], starts)
    for start, look in starts.items():
        if start in set(tables["reliability"]["start"]):
            calibration.plot([], [], color=look.colour, label=look.label)
    if calibration.get_legend_handles_labels()[0]:
        calibration.legend(loc="upper left", fontsize=5)
    if decision:
        _draw_benefit(decision[0], tables["benefit"], starts)
    return figure


def draw_given_five_year(tables: Tables, facts: Facts) -> Figure:
    """One finished model: who counts, AUROC by disease, calibration."""
    figure, (flow, disease, calibration) = lettered_figure(70, "abc", width_ratios=[1.2, 1.2, 0.9])
    _draw_flow(flow, tables["flow"], facts.get("split", "test"))
    rows = where(tables[""], metric="auroc", status="ok").set_index("label", drop=False)
    names = [n if n == "mean" else _disease(row) for n, row in rows.iterrows()]
    marks.forest(disease, rows, None, Look("", COLOUR["merlin"]), names=names, fontsize=5)
    disease.set_xlabel("AUROC (events / studies that count)")
    marks.vertical_line(disease, 0.5, "chance")
    _draw_calibration(calibration, tables["reliability"], {"merlin": STARTS["merlin"]})
    return figure


def _draw_flow(ax: Axes, part: pd.DataFrame, split: str) -> None:
    """How many studies of the split each disease counts, and why others are left out."""
    part = part.assign(said=[f"{r.code} {r.meaning}" for r in part.itertuples()])
    wide = part.pivot(index="disease", columns="said", values="n_studies")
    marks.stacked_bars(ax, wide.loc[unique(part["disease"])], CODE_COLOURS)
    ax.set_xlabel(f"{split} studies; 2 and 3 are excluded")
    marks.legend_above(ax, 2, fontsize=5)


def _draw_means(ax: Axes, mean: pd.DataFrame, fractions: list[float]) -> None:
    """Mean AUROC of each network, tuned and frozen, and of simpler rivals, by share of the labels."""
    found = set(mean["start"])
    names = {s: f"{look.label}, tuned" for s, look in STARTS.items()}
    names |= {s + FROZEN: f"{look.label}, frozen" for s, look in STARTS.items()}
    names = {s: name for s, name in (names | SIMPLER).items() if s in found}
    looks = _by_share(fractions)
    marks.forest(
        ax, mean, list(names), looks, column="start", by="fraction", names=list(names.values())
    )
    ax.tick_params(axis="y", labelsize=5)
    ax.set_xlabel("mean AUROC (dotted: chance)")
    marks.vertical_line(ax, 0.5)
    marks.legend_above(ax, 2, fontsize=5)


def _by_share(fractions: list[float]) -> dict[float, Look]:
    """Looks of the shares of the labels."""
    shades = (COLOUR["less data"], COLOUR["merlin"])
    return {f: Look(f"{f:.0%} of labels", c) for f, c in zip(fractions, shades, strict=False)}


def _draw_benefit(ax: Axes, benefit: pd.DataFrame, starts: dict[str, Look]) -> None:
    """Net benefit by the risk from which one would act; treating none is the line at 0."""
    looks = starts | {"treat all": Look("treat all", "#444444")}
    shown = {s: look for s, look in looks.items() if s in set(benefit["start"])}
    for start, look in shown.items():
        part = where(benefit, start=start)
        line = "--" if start == "treat all" else "-"
        ax.plot(
            part["threshold"],
            part["value"],
            line,
            color=look.colour,
            linewidth=0.9,
            label=look.label,
        )
    part = where(benefit, start="merlin")
    ax.fill_between(
        part["threshold"], part["low"], part["high"], color=COLOUR["merlin"], alpha=0.15, lw=0
    )
    ax.axhline(0, **LINE)
    top = benefit["high"].max()
    ax.set(
        ylim=(-0.5 * top, 1.05 * top), xlabel="risk from which one would act", ylabel="net benefit"
    )
    ax.legend(loc="upper right", fontsize=5)


def _disease(row: pd.Series) -> str:
    """Name of a disease, its events and the studies that count."""
    name = DISEASE_NAMES.get(str(row.name), str(row.name))
    return f"{name}\n({row['n_positive']}/{row['n_studies']})"


def _pair(ours: str, other: str) -> str:
    """Two models and what was done to them, in the words of the axis."""

    def said(start: str) -> tuple[str, str]:
        if start in SIMPLER:
            return SIMPLER[start], ""
        done = "frozen" if start.endswith(FROZEN) else "tuned"
        return STARTS[start.removesuffix(FROZEN)].label, done

    (one, done), (two, theirs) = said(ours), said(other)
    two = two if theirs in ("", done) else f"{two} {theirs}"
    return f"{one} {done} − {two}".replace("  ", " ")


def _draw_calibration(ax: Axes, bins: pd.DataFrame, starts: dict[str, Look]) -> None:
    """Observed share by predicted risk, with its interval, one curve a beginning."""
    ax.plot([0, 1], [0, 1], **LINE)
    palette = {start: look.colour for start, look in starts.items()}
    bins = bins[bins["start"].isin(starts)]
    low, high = bins["observed_low"], bins["observed_high"]
    ax.vlines(bins["predicted"], low, high, colors=bins["start"].map(palette), linewidth=0.6)
    marks.curves(
        ax, bins, "predicted", "observed", "start", palette, dots=3.4, linewidth=0.8, legend=False
    )
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted risk", ylabel="observed share")


def draw_report_generation(tables: Tables, facts: Facts) -> Figure:
    """Metrics of whole reports, clinical F1 by section and finding, and two cases side by side, whole."""
    table, texts = tables[""], _case_texts(tables["cases"])
    lines = max(text.count("\n") for text, _ in texts) + 2
    height = 112 + 2.15 * lines
    figure, (full, section, finding, case) = lettered_figure(
        height, "ac;bc;dd", height_ratios=[46, 60, 2.15 * lines]
    )
    writers = {m: look for m, look in WRITERS.items() if m in set(table["model"])}
    whole = where(table, label="full report")
    metrics = [m for m in REPORT_METRICS if m in set(whole["metric"])]
    names = [REPORT_METRICS[m] for m in metrics]
    marks.forest(full, whole, metrics, writers, column="metric", names=names)
    marks.legend_above(full, 2, fontsize=5)
    full.set_xlabel("whole findings text")
    f1 = where(table, metric="clinical_f1", status="ok")
    sections = [s for s in unique(f1["label"]) if not s.startswith(("finding", "full"))]
    shown = {m: look for m, look in writers.items() if m in ("writer", "template", "nearest")}
    marks.forest(section, f1, sections, shown)
    section.set_xlabel("clinical F1 (micro) by section")
    each = f1[f1["label"].str.startswith("finding: ")]
    mine = where(each, model="writer").sort_values("value", ascending=False)
    labels = mine["label"].tolist()
    names = [pretty(x.removeprefix("finding: ")) for x in labels]
    marks.forest(finding, each, labels, shown, names=names, fontsize=5)
    finding.set_xlabel("clinical F1 by finding")
    for ax in (full, section, finding):
        ax.set_xlim(0, 1)
    _draw_cases(case, texts)
    return figure


def _case_texts(cases: pd.DataFrame) -> list[tuple[str, str]]:
    """Reference and generated text of a good and a bad case, whole, folded to a quarter of the page."""
    bad = where(cases, case="bad").iloc[-1]
    return [
        (_folded(case[kind]), f"{title}, F1 {case['f1']:.2f}: {kind}")
        for title, case in (("good", cases.iloc[0]), ("bad", bad))
        for kind in ("reference", "generated")
    ]


def _folded(text: object) -> str:
    """A text in lines; an empty one, which a table gives back as NaN, says so."""
    said = text.strip() if isinstance(text, str) else ""
    return textwrap.fill(said or "(no text)", 44)


def _draw_cases(ax: Axes, texts: list[tuple[str, str]]) -> None:
    """Four columns: what was dictated and what was generated, of a good case and a bad one."""
    ax.axis("off")
    for x, (text, title) in zip((-0.19, 0.115, 0.42, 0.725), texts, strict=True):
        said: dict[str, Any] = dict(va="top", fontsize=5, transform=ax.transAxes)
        ax.text(x, 0.99, title, fontweight="bold", **said)
        ax.text(x, 0.94, text, linespacing=1.15, **said)


def draw_segmentation(tables: Tables, facts: Facts) -> Figure:
    """Mean Dice and distance by network and label fraction, how they learnt, organs, and an overlay."""
    table = where(tables[""], split="test")
    has_curves = "curves" in tables
    layout, heights = "acc;bcc;def", [0.75, 1.0, 1.25]
    if has_curves:
        layout, heights = "acc;bcc;dcc;efg", [0.75, 0.75, 1.1, 1.6]
    figure, (mean, distance, organ, *rest) = lettered_figure(
        170 if has_curves else 160, layout, height_ratios=heights
    )
    fractions = sorted(set(table["fraction"]))
    looks = {k: look for k, look in SEGMENTERS.items() if k in set(table["model"])}
    if has_curves:
        for model in set(where(tables["training"], is_flat=False)["model"]) & set(looks):
            looks[model] = looks[model]._replace(label=f"{looks[model].label}, still learning")
    for ax, metric, text in (
        (mean, "dice", "mean Dice over structures"),
        (distance, "distance_mm", "mean surface distance (mm)"),
    ):
        rows = where(table, label="mean", metric=metric)
        names = [f"{f:.0%}" for f in fractions]
        marks.forest(ax, rows, fractions, looks, column="fraction", names=names)
        ax.set(xlabel=text, ylabel="share of labels")
        ax.locator_params(axis="x", nbins=5)
    marks.legend_above(mean, 1 if has_curves else 2, fontsize=5)
    _draw_organs(organ, where(table, metric="dice", fraction=max(fractions)), looks, facts)
    if has_curves:
        _draw_curves(rest.pop(0), tables["curves"], looks)
    images = table_to_images(tables["overlay"])
    labels = {"truth": "reference", "ours": "our pretraining", "other": "DynUNet"}
    low, high = style.SOFT_TISSUE
    for ax, (name, title) in zip(rest, labels.items(), strict=True):
        style.show_slice(
            ax, images["ct"], aspect=facts["overlay_aspect"], sides=("R", "L"),
            text=f"coronal, {low:.0f} to {high:.0f} HU",
        )  # fmt: skip
        colours = _structure_colours(len(facts["structures"]))[images[name].astype(int)]
        ax.imshow(colours, aspect=facts["overlay_aspect"], interpolation="nearest")
        ax.set_xlabel(title)
    return figure


def _draw_organs(ax: Axes, dice: pd.DataFrame, looks: dict[str, Look], facts: Facts) -> None:
    """Dice by organ, before each name the colour that it has in the overlay."""
    mine = where(dice, model="merlin", status="ok").sort_values("value", ascending=False)
    organs = mine[mine["label"].isin(facts["structures"])].set_index("label")
    names = [f"{pretty(name)} ({n})" for name, n in organs["n_studies"].items()]
    marks.forest(ax, dice, organs.index.tolist(), looks, names=names)
    colours = _structure_colours(len(facts["structures"]))
    shown = [colours[facts["structures"].index(name) + 1] for name in organs.index]
    at = ax.get_yaxis_transform()
    key: dict[str, Any] = dict(c=shown, marker="s", s=14, transform=at, clip_on=False, linewidths=0)
    ax.scatter([-0.015] * len(organs), range(len(organs)), **key)
    ax.tick_params(axis="y", pad=8)
    ax.set_xlabel("Dice with all labels, native grid (scans that hold the structure)")
    ax.set_xlim(0, 1)


def _draw_curves(ax: Axes, curves: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Dice on validation by the core-seconds that training took, a line a seed; dashed with few labels."""
    most = curves["fraction"].max()
    for (model, fraction, _), run in curves.groupby(["model", "fraction", "seed"]):
        dashes = "-" if fraction == most else "--"
        ax.plot(run["core_seconds"], run["dice"], dashes, color=looks[model].colour, linewidth=0.7)
    few = curves["fraction"].min()
    ax.plot([], [], "--", color="black", linewidth=0.7, label=f"{few:.0%} of labels")
    marks.legend_above(ax, 2, fontsize=5)
    ax.set(xlabel="core-seconds of training", ylabel="validation Dice", ylim=(0, 1))


def _structure_colours(n: int) -> np.ndarray:
    """(1 + n, 4) half transparent colours of labels; 0 is clear, neighbours in number far apart in hue."""
    order = (np.arange(n) * 7) % max(n, 1)
    shades = mpl.colormaps["turbo"](0.05 + 0.9 * order / max(n - 1, 1))
    shades[:, 3] = 0.55
    return np.concatenate([np.zeros((1, 4)), shades])


def draw_summary(tables: Tables, facts: Facts) -> Figure:
    """All task families, ours against a baseline of each, from the results tables."""
    table = tables[""]
    rows = unique(table["row"])
    figure, axes = new_figure(PAGE_MM, 24 + 8 * len(rows), mosaic=[["all"]])
    ax = axes["all"]
    looks = {
        True: Look("this model", COLOUR["merlin"], size=3),
        False: Look("baseline named at the right", COLOUR["baseline"], size=3),
    }
    mine = where(table, is_ours=True).set_index("row")
    names = [_with_counts(row, mine.loc[row]) for row in rows]
    marks.forest(ax, table, rows, looks, column="row", by="is_ours", names=names)
    ours = mine["n_studies"]
    for r in where(table, is_ours=False).itertuples():
        n = f"{ours[r.row]:,.0f}"
        n = n if ours[r.row] == r.n_studies else f"{n} and {r.n_studies:,.0f}"
        said = f"{r.baseline} (n = {n})"
        if mine.loc[r.row].get("stands") == "not told apart":
            said += "\nnot told apart at this size"
        ax.text(1.01, rows.index(r.row), said, fontsize=5.5, va="center")
    ax.set(xlim=(0, 1), xlabel="value of the metric named at the left")
    marks.legend_above(ax, 2)
    return figure


def _with_counts(row: str, ours: pd.Series) -> str:
    """A row's name, and below it the patients and trainings behind our value, where a table says them."""
    counts = {"patients": "patient", "seeds": "seed"}
    said = [
        f"{ours[f'n_{many}']:,.0f} {one if ours[f'n_{many}'] == 1 else many}"
        for many, one in counts.items()
        if pd.notna(ours.get(f"n_{many}"))
    ]
    return f"{row}\n{', '.join(said)}" if said else row


FIGURES = {
    "five_year": draw_five_year,
    "report_generation": draw_report_generation,
    "segmentation": draw_segmentation,
    "summary": draw_summary,
}
