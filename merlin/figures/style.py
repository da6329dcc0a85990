"""How figures look and how they are saved: sizes for the page, one palette, files with provenance.

A figure is drawn from tables alone, and saved with those tables and a JSON sidecar; `redraw` makes
it again from these files in seconds. One colour means one thing in all figures.
"""

import io
import json
import textwrap
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from merlin.run import atomic, changed_texts, read_csv, write_csv, write_json
from merlin.words import lines, without_folders

COLUMN_MM, PAGE_MM, MAX_HEIGHT_MM = 89, 183, 170
# Okabe and Ito's colours, told apart with any common colour vision.
COLOUR = {
    "merlin": "#0072B2",
    "less data": "#56B4E9",
    "external": "#E69F00",
    "baseline": "#999999",
    "present": "#D55E00",
    "absent": "#009E73",
    "novel": "#CC79A7",
    "train": "#0072B2",
    "val": "#E69F00",
    "test": "#009E73",
}
MARKER = {"merlin": "o", "less data": "s", "external": "D", "baseline": "x", "novel": "^"}
# Where a name may stand beside its point, in points; the first that is free is taken.
LABEL_PLACES = (
    (4, 3), (4, -4), (-4, 3), (-4, -4), (0, 6), (0, -7), (6, 9), (6, -10), (-6, 9), (-6, -10),
    (-8, -14), (-8, -20), (-8, -26), (-8, 20), (8, -20), (8, 20), (-8, -34), (-8, 30), (4, 3),
)  # fmt: skip
SOFT_TISSUE = (-160, 240)  # W 400 L 40
LUNG = (-1350, 150)  # W 1500 L -600
BONE = (-350, 1150)  # W 1500 L 400

RC = {
    "font.size": 6.5,
    "axes.titlesize": 7,
    "axes.labelsize": 6.5,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "savefig.dpi": 300,
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
}


def new_figure(width_mm, height_mm, **mosaic):
    """A figure of that size on the page, in house style.

    Parameters
    ----------
    width_mm, height_mm : float
    **mosaic
        `mosaic=` and `gridspec_kw=` of `Figure.subplot_mosaic`.

    Returns
    -------
    figure, axes : dict of str to Axes
    """
    with mpl.rc_context(RC):
        figure = plt.figure(figsize=(width_mm / 25.4, height_mm / 25.4), layout="constrained")
        axes = figure.subplot_mosaic(**mosaic)
    for ax in axes.values():
        ax.tick_params(length=2, width=0.6)
    return figure, axes


def panel_letter(ax, letter):
    """Bold lower-case letter at the upper left of a panel."""
    ax.set_title(letter, loc="left", fontweight="bold", fontsize=8, pad=3)


def stamp(figure, text):
    """Write tier and numbers inside the picture, where no crop can lose them."""
    # A letter of this size is about 0.9 mm wide.
    text = textwrap.fill(text, int(figure.get_figwidth() * 25.4 / 0.93))
    lines = text.count("\n") + 1
    room = (6 * lines + 1) / 72 / figure.get_figheight()  # 6 points a line: low figures need more
    foot = max(0.03 if lines == 1 else 0.045, 0.004 + room)
    figure.get_layout_engine().set(rect=(0, foot, 1, 1 - foot))
    figure.text(0.5, 0.004, text, ha="center", va="bottom", fontsize=5, color="#666666")


def stamp_text(facts):
    """`phantom · synthetic …, not a clinical result · profile … · seed …` from a sidecar."""
    n = facts.get("n", {})
    counts = ", ".join(f"{v:,} {k}" for k, v in n.items())
    return " · ".join(
        x
        for x in (
            facts["tier_note"],
            counts,
            facts.get("interval", ""),
            f"profile {facts['profile']}",
            f"seed {facts['seed']}",
        )
        if x
    )


def label_points(ax, x, y, texts, *, fontsize=5):
    """Names beside points, each where it covers no point and no other name; empty ones are left out.

    Call it when the panel has its limits; the figure is laid out first.
    """
    ax.figure.draw_without_rendering()
    renderer = ax.figure.canvas.get_renderer()
    at = ax.transData.transform(np.column_stack([x, y]))
    px = ax.figure.dpi / 72  # pixels a point
    taken = [Bbox.from_extents(*(p - 2 * px), *(p + 2 * px)) for p in at]
    inside = ax.get_window_extent(renderer)
    for (a, b), text in zip(zip(x, y, strict=True), texts, strict=True):
        if not text:
            continue
        for n, (dx, dy) in enumerate(LABEL_PLACES):
            said = ax.annotate(
                text, (a, b), (dx, dy), textcoords="offset points", fontsize=fontsize,
                ha="left" if dx > 0 else "right" if dx < 0 else "center", va="center",
                arrowprops=dict(arrowstyle="-", linewidth=0.3) if abs(dy) > 10 else None,
            )  # fmt: skip
            said.update_positions(renderer)
            box = Text.get_window_extent(said, renderer)  # without its line to the point
            fits = inside.x0 <= box.x0 and box.x1 <= inside.x1
            fits = fits and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if (fits and not box.count_overlaps(taken)) or n == len(LABEL_PLACES) - 1:
                taken.append(box)
                break
            said.remove()


def save_figure(folder, name, tables, facts, draw):
    """Draw a figure from tables and write picture, tables and sidecar.

    Parameters
    ----------
    folder : path
    name : str
    tables : dict of str to DataFrame
        Written as `<name>.csv` for the key "" and `<name>_<key>.csv` for others.
    facts : dict
        From `run.provenance`, with `n`, `interval` and `caption`.
    draw : callable
        Tables and facts → Figure.

    Returns
    -------
    matplotlib.figure.Figure
    """
    folder = Path(folder)
    for key, table in tables.items():
        write_csv(folder / f"{name}{'_' + key if key else ''}.csv", table)
    # Draw from what was written, so that a later redraw sees the same numbers.
    write_json(folder / f"{name}.json", without_folders(facts) | {"tables": list(tables)})
    return redraw(folder, name, draw)


def redraw(folder, name, draw):
    """Draw a saved figure again from its tables; returns the Figure."""
    folder = Path(folder)
    facts = json.loads((folder / f"{name}.json").read_text())
    tables = {
        key: read_csv(folder / f"{name}{'_' + key if key else ''}.csv", keep_default_na=True)
        for key in facts["tables"]
    }
    # Loading a notebook's backend turns interactive drawing on. Done by the first figure, inside the
    # settings below, that would be undone with them, and no later figure would be shown.
    plt.switch_backend(mpl.get_backend())
    with mpl.rc_context(RC):
        figure = drawn(draw, tables, facts)
        for suffix in ("png", "pdf"):
            buffer = io.BytesIO()
            # No dates inside: the same tables give the same file.
            plain = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
            figure.savefig(buffer, format=suffix, dpi=300, metadata=plain)
            with atomic(folder / f"{name}.{suffix}", "wb") as stream:
                stream.write(buffer.getbuffer())
    return figure


def drawn(draw, tables, facts):
    """The stamped figure of a drawing function; names in tables and facts show as they are written.

    Call it, and save the figure, within `mpl.rc_context(RC)`.
    """
    tables, facts = _drawable(tables), _drawable(facts)
    figure = draw(tables, facts)
    stamp(figure, stamp_text(facts))
    return figure


def _drawable(value):
    """Every text so that nothing in it steers a terminal or is set as a formula, which dollars would open."""
    if isinstance(value, str):
        return lines(value).replace("$", r"\$")
    if isinstance(value, dict):
        return {_drawable(k): _drawable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_drawable(v) for v in value]
    if isinstance(value, pd.DataFrame):
        return changed_texts(value, _drawable)
    return value


def images_to_table(images):
    """{panel: (rows, columns) array} → one table, a row of pixels a line."""
    widest = max(a.shape[1] for a in images.values())
    parts = []
    for panel, array in images.items():
        padded = np.full((array.shape[0], widest), np.nan)
        padded[:, : array.shape[1]] = np.rint(array)
        part = pd.DataFrame(padded, columns=[f"c{i}" for i in range(widest)]).astype("Int32")
        part.insert(0, "panel", panel)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def table_to_images(table):
    """Inverse of `images_to_table`."""
    images = {}
    for panel, part in table.groupby("panel", sort=False):
        array = part.drop(columns="panel").to_numpy(float)
        images[panel] = array[:, ~np.isnan(array).all(0)]
    return images


def show_slice(ax, array, *, window=SOFT_TISSUE, aspect=1.0, text=""):
    """Show a slice in radiological convention: (rows top to bottom, the patient's right at left)."""
    ax.imshow(
        array, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="nearest"
    )
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    if text:
        ax.text(0.02, 0.98, text, color="white", fontsize=5, va="top", transform=ax.transAxes)


def three_planes(volume, index):
    """Axial, coronal and sagittal slices of an (R, A, S) array, turned for display.

    Axial from below with the patient's right at the left, front at the top; coronal from the front;
    sagittal with the front at the left.
    """
    i, j, k = index
    axial = volume[::-1, ::-1, k].T
    coronal = volume[::-1, j, ::-1].T
    sagittal = volume[i, ::-1, ::-1].T
    return axial, coronal, sagittal


def qc_tables(seen, title):
    """Tables of the QC figure of one model input.

    Parameters
    ----------
    seen : merlin.data.preprocess.ModelInput
    title : str or int
        How the picture calls the scan: a number, never a name.
    """
    hu = seen.image * 2000 - 1000
    planes = three_planes(hu, [s // 2 for s in hu.shape])
    about = [
        ("scan", title),
        ("model input", f"{hu.shape} voxels (R, A, S)"),
        ("HU range", f"{hu.min():.0f} to {hu.max():.0f}"),
        ("body inside the crop", f"{seen.body_fraction:.1%}"),
        ("cut off (mm)", ", ".join(f"{k} {v:.0f}" for k, v in seen.cut_mm.items())),
        *(("note", note) for note in seen.notes),
    ]
    slices = dict(zip(("axial", "coronal", "sagittal"), planes, strict=True))
    return {
        "slices": images_to_table(slices),
        "text": pd.DataFrame(about, columns=["what", "value"]),
    }
