"""The figure of the dataset audit: tables → figure."""

import numpy as np

from merlin.figures.style import COLOUR, PAGE_MM, new_figure, panel_letter

# Counted by the audit and handled when read: impressions are cut out, volumes are turned.
EXPECTED = (
    "reports with an impression inside",
    "studies without 5-year labels",
    "unusual: orientation",
)


def draw_dataset(tables, facts):
    """What was odd, how much body the crop keeps, spacings, and what each figure divides by."""
    figure, axes = new_figure(
        PAGE_MM,
        118,
        mosaic=[["odd", "crop"], ["odd", "spacing"], ["odd", "denominator"]],
        gridspec_kw=dict(width_ratios=[1.1, 1], height_ratios=[0.8, 0.9, 1.3]),
    )
    odd = tables["audit"].iloc[::-1]
    colours = [COLOUR["baseline" if w in EXPECTED else "present"] for w in odd["what"]]
    _bars(axes["odd"], odd, "what", "studies or rows (grey: handled, no defect)", colours)
    seen = tables["survey"]
    ok = seen[seen["status"] == "ok"]
    ax = axes["crop"]
    ax.hist(ok["body_fraction"], bins=np.linspace(min(0.9, ok["body_fraction"].min()), 1, 24),
            color=COLOUR["merlin"])  # fmt: skip
    ax.set_xlabel("share of the body inside the model's crop")
    ax.set_ylabel("studies")
    ax = axes["spacing"]
    ax.scatter(ok["spacing_r_mm"], ok["spacing_s_mm"], s=5, color=COLOUR["merlin"], linewidths=0)
    ax.set_xlabel("pixel (mm)")
    ax.set_ylabel("slice (mm)")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    rows = tables["denominators"].iloc[::-1]
    _bars(axes["denominator"], rows, "figure", "test studies", COLOUR["merlin"], rows["detail"])
    for letter, name in zip("abcd", ("odd", "crop", "spacing", "denominator"), strict=True):
        panel_letter(axes[name], letter)
    return figure


def _bars(ax, rows, name, unit, colour, details=None):
    """Horizontal bars with their number, and a detail where one is given, at the end."""
    n = rows["n_studies" if details is not None else "n"].to_numpy(float)
    ax.barh(range(len(rows)), n, color=colour, height=0.62)
    ax.set_yticks(range(len(rows)), rows[name], fontsize=5.2)
    ax.set_xlabel(unit)
    top = max(n.max(initial=0), 1)
    ax.set_xlim(0, top * (1.75 if details is not None else 1.14))
    said = [""] * len(rows) if details is None else [f"  {d}" for d in details.fillna("")]
    for i, (value, detail) in enumerate(zip(n, said, strict=True)):
        ax.text(value + 0.01 * top, i, f"{value:,.0f}{detail}", va="center", fontsize=4.8)


FIGURES = {"dataset_audit": draw_dataset}
