"""The job of 18: what it leaves for few patients, from which figures are drawn; what it refuses."""

from functools import partial
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from merlin import run
from merlin.data.preprocess import Grid
from merlin.evaluation import causes
from merlin.figures import causes as drawing
from merlin.figures import style
from merlin.jobs import causes as job
from merlin.jobs import causes_kept
from merlin.model.i3d import ImageConfig, ImageEncoder
from merlin.phantom import interventions, pool
from merlin.vocabulary import NAMES

SEED, ASKED = 5, ("pleural_effusion", "renal_cyst")
GRID = Grid((12.0, 12.0, 16.0), (32, 24, 28))
SETTINGS = SimpleNamespace(
    cohort_seed=SEED, n_faint=1, n_persons=2, years=20, n_gradients=1, shift_steps=1, shift_hu=5.0
)
CONFIG = ImageConfig(
    depth=14, width=4, stem="patch", n_stages=2, pool="grid", grid_cells=2, embedding_size=8,
    n_phecodes=2, in_channels=1,
)  # fmt: skip


def judge(_):
    torch.manual_seed(1)
    make = partial(ImageEncoder, CONFIG, feature_shape=(4, 4, 3))
    encoders = {k: make().eval().requires_grad_(False) for k in (causes.TRAINED, causes.RANDOM)}
    return job.Judge(encoders, torch.randn(len(NAMES), 8))


@pytest.fixture(scope="module")
def drawn():
    """Scans that were asked for, and the tables made of them."""
    asked = []

    def draw(study):
        asked.append(study)
        return pool.scan(SEED, study, matrix=32, grid=GRID)

    studies, having = job.chosen(SEED, [f"X{i:05d}" for i in range(30)], ASKED, 2, 2)
    return asked, studies, having, job.make_tables(SETTINGS, studies, having, judge, draw)


def test_every_scan_differs_in_the_one_thing_that_its_row_names(drawn):
    asked, studies, having, made = drawn
    assert {k: len(v) for k, v in having.items()} == dict.fromkeys(ASKED, 2)
    scores, doses = made["scores"], made["doses"]
    changes = scores["change"].value_counts()
    assert changes["as drawn"] == len(studies) == scores["study_id"].nunique()
    assert changes[list(ASKED)].tolist() == [2, 2]
    assert changes["older"] == 2
    assert len(asked) == len(scores) + len(doses) - 8  # as they came and without stand in both
    by_id = {s.study_id: s for s in studies}
    for study in asked[len(studies) :]:
        whole = by_id[study.study_id]
        lost = set(whole.found) - set(study.found)
        fainter = [k for k in study.found if study.found[k].severity != whole.found[k].severity]
        person = (study.age != whole.age) + (study.patient.sex != whole.patient.sex)
        assert len(lost) + len(fainter) + person == 1
    low = interventions.DOSES["renal_cyst"].faintest
    assert doses.loc[doses["finding"] == "renal_cyst", "severity"].min() >= low


def test_scores_of_a_scan_are_its_embeddings_products_with_the_prompts(drawn):
    _, studies, _, made = drawn
    eyes = judge(None)
    image = pool.scan(SEED, studies[0], matrix=32, grid=GRID)
    embedded = eyes.encoders[causes.TRAINED](torch.from_numpy(image)[None, None])[0][0]
    wanted = eyes.directions @ (embedded / embedded.norm())
    assert made["scores"].loc[0, list(NAMES)].to_numpy(float) == pytest.approx(
        wanted.numpy(), abs=1e-5
    )


def test_figures_are_drawn_from_what_a_short_run_leaves(drawn):
    made = drawn[-1]
    gaps, unit = causes.effects(made["scores"], NAMES), causes.spread(made["scores"], NAMES)
    options = dict(n_resamples=20, seed=1)
    matrix = causes.matrix(gaps, unit, NAMES, **options)
    removed = causes.removal(gaps, matrix, unit, NAMES, **options)
    what = {n: d.what for n, d in interventions.DOSES.items()}
    half, curves = causes.curves(made["doses"], what, **options)
    tables = {"": removed, "matrix": matrix, "half": half, "curves": curves}
    tables |= {"binned": causes.binned(made["doses"])}
    said = dict(tier_note="t", profile="p", seed=1, examples=causes.examples(half), limits={})
    pointed = causes.pointed(made["gradients"], **options)
    second = {"": pointed, "course": causes.shifted(made["shifts"]), "slices": made["slices"]}
    grid = dict(grid_spacing_mm=list(GRID.spacing_mm), planes={"pleural_effusion": "axial"})
    with mpl.rc_context(style.RC):
        for draw, found in ((drawing.draw_causes, tables), (drawing.draw_latent_shift, second)):
            figure = style.drawn(draw, found, said | grid)
            figure.draw_without_rendering()
            plt.close(figure)
    assert causes.reading(removed, matrix, half).startswith("Taking a finding out")
    assert np.isfinite(pointed["value"]).all()


def test_tables_are_refused_where_anything_behind_them_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "folder", lambda _: tmp_path)
    monkeypatch.setattr(causes_kept, "inputs", lambda *_: (tmp_path / "m", tmp_path / "w"))
    monkeypatch.setattr(run, "cohort_hash", lambda _: "cohort")
    monkeypatch.setattr(causes_kept.jobs, "weights_hash", lambda _: "weights")
    settings = run.settings("18_causes", {"profile": "smoke"})
    before = causes_kept.marks(settings)
    settings.n_resamples = 7
    assert causes_kept.marks(settings) == before
    settings.years = 21
    assert not set(causes_kept.marks(settings).values()) & set(before.values())
    with pytest.raises(
        FileNotFoundError, match=r"scores\.parquet.*merlin\.jobs\.causes smoke main"
    ):
        causes_kept.read(settings)


def test_only_a_phantom_can_be_drawn_without_a_finding():
    with pytest.raises(ValueError, match="profile full is of tier full: only a phantom"):
        job.make("full")
