"""The paper's zero-shot figure: tables → figure; no files, no statistics."""

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from merlin.figures import marks, style
from merlin.figures.marks import LINE, Look, pretty, unique, where
from merlin.figures.style import COLOUR, MARKER, Facts, Tables, lettered_figure
from merlin.words import shown

SERIES = {
    "main": Look("main arm", COLOUR["merlin"], size=2.6),
    "tenth": Look("tenth arm", COLOUR["less data"], MARKER["less data"], 2.6),
    # Here stand the external sites, `main, NAME`.
    "always present": Look("always present", COLOUR["baseline"], MARKER["baseline"]),
    "chance": Look("chance", COLOUR["baseline"]),
    **marks.RIVALS,
}


def draw_zero_shot(tables: Tables, facts: Facts) -> Figure:
    """How it works, macro scores, prompts' wording, and the 30 findings."""
    figure, (how, macro, wording, radar, auroc, f1) = lettered_figure(
        190, "aef;bef;cef;def", width_ratios=[1.1, 1.25, 0.8],
        height_ratios=[0.8, 1.35, 1.15, 1.35], per_subplot_kw={"d": dict(projection="polar")},
    )  # fmt: skip
    table = tables[""]
    reported = where(table, wording="reported")
    each = reported[reported["label"] != "macro"]
    # From the highest AUROC to the lowest; panels d, e and f count them in this order.
    main = where(each, model="main", metric="auroc")
    order = main.sort_values("value", ascending=False, na_position="last")["label"].tolist()
    _draw_how(how, tables["example"])
    _draw_macro(macro, where(reported, label="macro"))
    _draw_auroc(auroc, where(each, metric="auroc"), order)
    _draw_radar(radar, where(each, metric="f1"), order)
    _draw_f1(f1, where(each, metric="f1"), order)
    # Last: its names look for room in the finished layout.
    _draw_wording(wording, where(table, model="main", metric="auroc"), main["label"].tolist())
    return figure


def _looks(table: pd.DataFrame) -> dict[str, Look]:
    """Look of each model in their order: ours, the external sites of the table, and the rest."""
    outside = [m for m in unique(table["model"]) if str(m).startswith("main, ")]
    sites = {m: Look(_site(m.removeprefix("main, ")), COLOUR["external"]) for m in outside}
    ours = {m: SERIES[m] for m in ("main", "tenth")}
    return ours | sites | {m: look for m, look in SERIES.items() if m not in ours}


def _site(name: str) -> str:
    """`site_b` → `external site B`; other names as they are."""
    own = f"site {name[-1].upper()}" if name.startswith("site_") and len(name) == 6 else name
    return f"external {shown(pretty(own), 30)}"


def _present(table: pd.DataFrame, models: tuple[str, ...] = ()) -> dict[str, Look]:
    """Looks of those models, or of all known ones, that have rows."""
    looks = _looks(table)
    return {m: looks[m] for m in models or looks if m in set(table["model"]) and m in looks}


def _draw_how(ax: Axes, example: pd.DataFrame) -> None:
    """Similarities of one volume to the prompts of one finding."""
    kinds = {k: COLOUR[k] for k in ("present", "absent")}
    sns.barplot(
        example, x="similarity", y="position", hue="kind", palette=kinds, orient="h", width=0.7,
        dodge=False, saturation=1, errorbar=None, legend=False, ax=ax,
    )  # fmt: skip
    for kind, part in example.groupby("kind"):
        ax.axvline(part["similarity"].mean(), color=kinds[kind], linewidth=1, linestyle="--")
    example = example.sort_values("position")
    prompts = [textwrap.fill(p, 30) for p in example["prompt"]]
    ax.set_yticks(range(len(prompts)), prompts, fontsize=5)
    for tick, kind in zip(ax.get_yticklabels(), example["kind"], strict=True):
        tick.set_color(kinds[kind])
    ax.axvline(0, color="black", linewidth=0.5)
    ax.set(xlabel="cosine similarity to one volume", ylabel="")
    ax.set_title("dashed: means", fontsize=5.6, loc="right", pad=3)


def _draw_macro(ax: Axes, macro: pd.DataFrame) -> None:
    """Macro F1 and AUROC of models, sites and baselines."""
    metrics = ("auroc", "f1", "f1_balanced")
    models = _present(where(macro, status="ok"))
    marks.forest_of_models(ax, macro, models, metrics)
    ax.set_xlabel("macro over findings; F1 of the positive class")
    marks.legend_above(ax, 3, fontsize=5, columnspacing=0.8, handletextpad=0.1)


def _draw_auroc(ax: Axes, auroc: pd.DataFrame, order: list[str]) -> None:
    """AUROC per finding, hard to easy, for all and a tenth of the data."""
    counts = where(auroc, model="main").drop_duplicates("label").set_index("label")
    names = [
        f"{i} {pretty(n)} ({counts.loc[n, 'n_positive']}/{counts.loc[n, 'n_studies']})"
        for i, n in enumerate(order, 1)
    ]
    marks.forest(ax, auroc, order, _present(auroc, ("main", "tenth")), names=names, fontsize=5)
    ax.axvline(0.5, **LINE)
    ax.text(0.5, len(order) - 0.5, " chance", fontsize=5, va="bottom", color=COLOUR["baseline"])
    ax.set_xlabel("AUROC (positive / labelled)")
    marks.legend_above(ax, 2, fontsize=5)


def _draw_radar(ax: Axes, f1: pd.DataFrame, order: list[str]) -> None:
    """F1 of each finding around a circle, as the paper draws it."""
    angle = np.linspace(0, 2 * np.pi, len(order), endpoint=False)
    outside = [m for m in unique(f1["model"]) if str(m).startswith("main, ")][:1]
    for model, look in _present(f1, ("main", "tenth", *outside)).items():
        value = where(f1, model=model).set_index("label").reindex(order)["value"].to_numpy(float)
        line = "--" if look.colour == COLOUR["external"] else "-"
        ax.plot(
            np.append(angle, angle[:1]), np.append(value, value[:1]), line, color=look.colour,
            linewidth=0.9, label=look.label,
        )  # fmt: skip
    ax.set_xticks(angle, [str(i + 1) for i in range(len(order))], fontsize=5)
    ax.set_ylim(0, 1)
    ax.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"], fontsize=5)
    ax.grid(linewidth=0.3)
    ax.spines["polar"].set_linewidth(0.4)
    ax.tick_params(pad=-1)
    ax.set_xlabel("F1 of the positive class; numbers as in e")
    ax.legend(loc="lower left", bbox_to_anchor=(1.12, -0.1), fontsize=5, borderaxespad=0)


def _draw_wording(ax: Axes, auroc: pd.DataFrame, names: list[str]) -> None:
    """AUROC with prompts worded as reports are, against paraphrases and a layman's words."""
    wide = auroc.replace({"wording": {"novel": "plain"}})  # its name in older tables
    wide = wide.pivot(index="label", columns="wording", values="value").reindex(index=names)
    ax.plot([0.3, 1], [0.3, 1], **LINE)
    ax.axhline(0.5, **LINE | dict(linewidth=0.4))
    marks = {"paraphrased": ("less data", "paraphrases"), "plain": ("novel", "layman's words")}
    others = [w for w in marks if w in wide]
    for wording in others:
        look, label = marks[wording]
        sns.scatterplot(
            wide, x="reported", y=wording, marker=MARKER[look], color=COLOUR[look], s=16,
            linewidth=0, label=label, ax=ax,
        )  # fmt: skip
    ax.set(xlabel="AUROC, prompts as reports put it", ylabel="AUROC, other words")
    ax.set(xlim=(0.3, 1.02), ylim=(0.1, 1.02))
    if not others:  # a file of prompts in one wording
        return
    ax.legend(fontsize=5, frameon=False, loc="lower right", handletextpad=0.2)
    farthest = (wide["reported"] - wide[others[-1]]).sort_values(ascending=False).index[:2]
    said = [pretty(n) if n in farthest else "" for n in names]
    style.label_points(ax, wide["reported"], wide[others[-1]], said)


def _draw_f1(ax: Axes, f1: pd.DataFrame, order: list[str]) -> None:
    """F1 per finding beside what calling every study positive gives."""
    models = {m: SERIES[m] for m in ("main", "always present")}
    numbers = [str(i + 1) for i in range(len(order))]
    marks.forest(ax, f1, order, models, names=numbers, fontsize=5)
    ax.set_xlim(0, 1)
    ax.set_xlabel("F1 (positive class)", fontsize=6)
    marks.legend_above(ax, 1, fontsize=5, columnspacing=0.8, handletextpad=0.1)
