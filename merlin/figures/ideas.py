"""The figure of `17_ideas`: five ideas on toy numbers, tables → figure."""

import numpy as np

from merlin.figures.style import COLOUR, PAGE_MM, new_figure, panel_letter


def draw_ideas(tables, facts):
    """Inflation, temperature, prompts, resampling, a power law."""
    figure, axes = new_figure(PAGE_MM, 95, mosaic=[["a", "a", "b", "b", "c", "c"], [*"dddeee"]])
    ax, t = axes["a"], tables["inflation"]
    for name, colour, line in (
        ("2D", "baseline", "-"),
        ("middle", "merlin", "--"),
        ("spread", "present", "-"),
    ):
        ax.plot(t["pixel"], t[name], line, color=COLOUR[colour], label=f"{name} kernel")
    ax.set_xlabel("pixel")
    ax.set_ylabel("answer to an edge")
    ax.legend(loc="upper right", bbox_to_anchor=(1.02, 1.0))
    ax, t = axes["b"], tables["temperature"]
    for name, colour in (("good", "merlin"), ("fair", "external"), ("poor", "present")):
        part = t[t["embeddings"] == name]
        low = part.loc[part["loss"].idxmin()]
        ax.plot(part["tau"], part["loss"], color=COLOUR[colour])
        ax.plot(low["tau"], low["loss"], "o", color=COLOUR[colour], markersize=3)
        at = (low["tau"], low["loss"])
        ax.annotate(name, at, (0, 4), textcoords="offset points", color=COLOUR[colour], ha="center")
    ax.set_xscale("log")
    ax.set_ylim(0, min(8, t["loss"].max() * 1.05))
    ax.set_xlabel("temperature τ (dot: lowest loss)")
    ax.set_ylabel("InfoNCE (nats)")
    ax.set_title("by quality of the embeddings", fontsize=6, loc="right", pad=3)
    ax, t = axes["c"], tables["prompts"]
    ax.fill_between(t["n_prompts"], t["low"], t["high"], color=COLOUR["merlin"], alpha=0.2, lw=0)
    ax.plot(t["n_prompts"], t["median"], "o-", color=COLOUR["merlin"], markersize=3)
    ax.axhline(0.5, color=COLOUR["baseline"], linewidth=0.6, linestyle=":")
    lines = "dotted: chance"
    if "ceiling" in facts:  # what prompts without noise would reach
        ax.axhline(facts["ceiling"], color=COLOUR["merlin"], linewidth=0.6, linestyle="--")
        lines += ", dashed: ceiling"
    ax.set_xlabel(f"prompts a side ({lines})")
    ax.set_ylabel("AUROC")
    ax, t = axes["d"], tables["resampling"]
    edges = np.linspace(t["deviation"].min(), t["deviation"].max(), 40)
    for name, colour in (
        ("true spread", "baseline"),
        ("resampling patients", "merlin"),
        ("resampling scans", "present"),
    ):
        part = t.loc[t["what"] == name, "deviation"]
        kind = "stepfilled" if colour == "baseline" else "step"
        ax.hist(
            part,
            edges,
            histtype=kind,
            color=COLOUR[colour],
            label=name,
            alpha=0.5 if colour == "baseline" else 1,
        )
    ax.set_xlabel("deviation of the accuracy from its mean")
    ax.set_ylabel("draws")
    ax.legend(loc="upper left")
    ax, t = axes["e"], tables["law"]
    for name, colour, label in (
        ("truth", "baseline", "truth"),
        ("power", "present", "power law"),
        ("offset", "merlin", "law with a ceiling"),
    ):
        ax.plot(t["size"], t[name], color=COLOUR[colour], label=label)
    ax.plot(tables["points"]["size"], tables["points"]["value"], "ko", markersize=3)
    ax.set_xscale("log")
    ax.set_xlabel("training studies (dots: seen)")
    ax.set_ylabel("score")
    ax.legend(loc="upper left")
    for letter in "abcde":
        panel_letter(axes[letter], letter)
    return figure


FIGURES = {"ideas": draw_ideas}
