"""Figures show the tables' numbers, at their place, also where a short run left little to show."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from merlin.data.slices import images_to_table, table_to_images
from merlin.figures import catalogue, marks, redraw, style
from merlin.run import ROOT, read_csv

TABLE = pd.DataFrame(
    [("a", "x", 0.5, 0.4, 0.6, "ok"), ("b", "x", 0.7, 0.6, 0.9, "ok"),
     ("a", "y", 0.2, 0.1, 0.3, "ok"), ("b", "y", np.nan, np.nan, np.nan, "not evaluated")],
    columns=["label", "model", "value", "low", "high", "status"],
)  # fmt: skip


@pytest.fixture
def ax():
    figure, axes = style.new_figure(89, 40, mosaic=[["a"]])
    yield axes["a"]
    plt.close(figure)


def test_points_and_intervals_stand_in_their_rows_as_the_table_gives_them(ax):
    looks = {"x": marks.Look("first", "#000000"), "y": marks.Look("second", "#ff0000")}
    marks.forest(ax, TABLE, ["b", "a"], looks)
    lines = [c.get_segments() for c in ax.collections if hasattr(c, "get_segments")]
    points = [c.get_offsets() for c in ax.collections if not hasattr(c, "get_segments")]
    # Two series stand 0.2 above and below their row; b is the upper row, a the lower.
    np.testing.assert_allclose(points[0], [(0.5, 0.8), (0.7, -0.2)])
    np.testing.assert_allclose(points[1], [(0.2, 1.2)])
    np.testing.assert_allclose(lines[0], [[(0.4, 0.8), (0.6, 0.8)], [(0.6, -0.2), (0.9, -0.2)]])
    np.testing.assert_allclose(lines[1], [[(0.1, 1.2), (0.3, 1.2)]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "a"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert ax.get_legend_handles_labels()[1] == ["first", "second"]


def test_curves_pass_through_the_tables_points_and_nothing_is_averaged(ax):
    table = pd.DataFrame({"x": [1, 1, 2], "y": [0.0, 1.0, 3.0], "arm": ["m"] * 3})
    marks.curves(ax, table, "x", "y", "arm", {"m": "#000000"})
    assert sorted(ax.lines[0].get_ydata()) == [0.0, 1.0, 3.0]
    assert not ax.collections  # no band of its own


def test_pictures_come_back_from_their_table_as_they_were():
    wide, narrow = np.arange(12.0).reshape(3, 4) - 5.6, np.full((2, 2), 900)
    table = images_to_table({"wide": wide, "narrow": narrow})
    back = table_to_images(table)
    assert table.columns[0] == "panel"
    np.testing.assert_array_equal(back["wide"], np.rint(wide))
    np.testing.assert_array_equal(back["narrow"], narrow)


def saved(name):
    """Tables and facts of a committed figure."""
    base = ROOT / "figures"
    facts = json.loads((base / f"{name}.json").read_text())
    tables = {k: read_csv(base / f"{name}{'_' + k if k else ''}.csv", keep_default_na=True)
              for k in facts["tables"]}  # fmt: skip
    return redraw.without_tier(tables), facts


def unjudged(tables):
    tables[""] = tables[""].assign(val_phecode_auroc=np.nan)


def without_laws(tables):
    tables["curves"] = tables["curves"].iloc[:0]


def untrained(tables):
    gaps = tables[""]["kind"] == "difference"
    tables[""].loc[gaps, ["value", "low", "high", "by_seed"]] = np.nan
    tables[""].loc[gaps, "status"] = "not evaluated"


def without_pairs(tables):
    tables["paired"], tables["reliability"] = tables["paired"][:0], tables["reliability"][:0]


def main_alone(tables):
    tables[""] = tables[""][tables[""]["model"] == "main"]


@pytest.mark.parametrize(
    ("name", "cut"),
    [("pretraining", unjudged), ("scaling_laws", without_laws), ("ablations", untrained),
     ("five_year", without_pairs), ("phenotypes", main_alone), ("retrieval", main_alone)],
)  # fmt: skip
def test_a_figure_is_drawn_from_what_a_short_run_leaves(name, cut):
    tables, facts = saved(name)
    cut(tables)
    with mpl.rc_context(style.RC):
        figure = style.drawn(catalogue.FIGURES[name], tables, facts)
        figure.canvas.draw()
    letters = [ax.get_title(loc="left") for ax in figure.axes]
    assert sorted(filter(None, letters)) == list("abcdef"[: len(letters)])
    plt.close(figure)


def test_committed_tables_are_redrawn_with_their_tier_and_old_ones_without():
    table = pd.DataFrame({"tier": ["own"], "value": [1.0]})
    found = redraw.without_tier(
        {"": table.assign(more=1, tier="x"), "new": table[["value", "tier"]]}
    )
    assert list(found[""]) == ["tier", "value", "more"]  # no last column: of the table's own
    assert list(found["new"]) == ["value"]


def silent(tables):
    tables["cases"]["generated"] = np.nan


def all_broken(tables):
    spine = tables[""]["part"] == "spine"
    tables[""].loc[spine, "status"] = "not evaluated"
    tables[""].loc[spine, ["n_studies", "n_positive"]] = 12


def without_bands(tables):
    tables["curves"][["low", "high"]] = np.nan


@pytest.mark.parametrize(
    ("name", "cut", "said"),
    [("report_generation", silent, "(no text)"), ("scaling_laws", without_bands, "band not determined"),
     ("external", all_broken, "too few negatives:\n12 of 12 studies with a fracture")],
)  # fmt: skip
def test_what_is_missing_is_said_in_its_panel(name, cut, said):
    tables, facts = saved(name)
    cut(tables)
    with mpl.rc_context(style.RC):
        figure = style.drawn(catalogue.FIGURES[name], tables, facts)
    texts = [t.get_text() for ax in figure.axes for t in ax.texts]
    assert said in texts
    assert "nan" not in texts
    plt.close(figure)


def test_the_ledgers_figure_says_each_comparison_and_what_was_read():
    tables, facts = saved("claims")
    table = tables[""]
    asked = table["sign"].notna() & table["phantom"].notna()
    table.loc[asked, ["arms", "tables"]] = ["worse − reference", "ablations:0123456789ab"]
    table["n_seeds"] = np.where(asked, 3.0, np.nan)
    with mpl.rc_context(style.RC):
        figure = style.drawn(catalogue.FIGURES["claims"], tables, facts)
    families, claims = figure.axes[:2]
    row = table[asked].iloc[0]
    side = "above" if row["sign"] > 0 else "below"
    texts = [t.get_text() for t in claims.texts]
    assert f"worse − reference\n{row['phantom']:+.3f}, expected {side} 0, 3 seeds" in texts
    assert families.get_xlabel().endswith("tables read (sha256):\nablations 0123456789ab")
    plt.close(figure)
