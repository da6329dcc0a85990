"""Encoders at one table: one head, the same drawn patients for all, nothing dropped in silence."""

import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn.linear_model import LogisticRegression

from merlin import cli, run
from merlin.embeddings import Embeddings, save_embeddings
from merlin.evaluation import encoder_files, encoder_tables, encoders, linear_head, results
from merlin.evaluation.encoders import Encoder, Studies
from merlin.figures import style
from merlin.figures.encoders import draw_encoders
from merlin.run import RESULT_COLUMNS
from merlin.statistics import metrics

NAMES = ("ascites", "free_air", "gallstones")
OPTIONS = dict(shots=(1, 4), n_draws=4, n_resamples=40, seed=1)
N = 320


def studies():
    """Two studies a patient, half of the patients for training; gallstones are often unsaid."""
    rng = np.random.default_rng(3)
    labels = (rng.random((N, 3)) < 0.4).astype(float)
    labels[rng.random(N) < 0.4, 2] = np.nan
    patient = np.arange(N) // 2
    split = np.array(["train", "val", "train", "test"])[patient % 4]
    return Studies(
        np.array([f"s{i:03d}" for i in range(N)]), patient.astype(str), split, NAMES, labels
    )


def seen(s, *, seed=0, noise=1.0, width=12):
    """Features that hold each finding on an axis, under noise."""
    rng = np.random.default_rng(seed)
    x = noise * rng.normal(size=(len(s.labels), width))
    x[:, :3] += np.nan_to_num(s.labels)
    return x


def macro(table, model, column="value"):
    return table.query("label == 'macro' and model == @model").set_index("budget")[column]


@pytest.mark.parametrize("width", [5, 400])
def test_head_is_the_penalised_regression_of_sklearn_full_and_few_shot(width):
    rng = np.random.default_rng(0)
    x = linear_head.standardised(rng.normal(5, 3, size=(150, width)), np.arange(100))
    y = (x[:, :2] * np.sqrt(width) + rng.normal(size=(150, 2)) > 0.8).astype(float)
    y[rng.random((150, 2)) < 0.3] = np.nan
    strengths = (0.1, 10.0)
    full = list(linear_head.probe(x[:100], y[:100], x[100:], strengths))
    of = [np.flatnonzero(y[:100, 0] == k)[:12] for k in (1, 0)]
    (few,) = linear_head.few_shot(x[:100], *(r[None, None] for r in of), x[100:], strengths)
    known, drawn = np.flatnonzero(np.isfinite(y[:100, 0])), np.concatenate(of)
    for i, c in enumerate(strengths):
        for rows, found in ((known, full[i][:, 0]), (drawn, few[i][:, 0])):
            model = LogisticRegression(C=c, tol=1e-8, max_iter=10_000)
            odds = model.fit(x[rows].astype(float), y[rows, 0]).decision_function(x[100:])
            odds -= odds.mean()  # a few drawn studies leave the intercept out
            assert np.abs(found - found.mean() - odds).max() < 0.02 * odds.std()


def test_a_wide_encoder_is_penalised_as_a_narrow_one():
    """The same features twice are the same encoder; what never varies takes no part."""
    x = np.random.default_rng(1).normal(size=(60, 8))
    one = linear_head.standardised(x, np.arange(40))
    two = linear_head.standardised(np.c_[x, x, np.full(60, 3.0)], np.arange(40))
    np.testing.assert_allclose(one @ one.T, two @ two.T, atol=1e-5)
    assert (one[:40] ** 2).sum(1).mean() == pytest.approx(1, abs=1e-5)
    with pytest.raises(linear_head.NothingVaries, match="all 4 features are the same"):
        linear_head.standardised(np.ones((60, 4)), np.arange(40))


def test_draws_are_nested_of_distinct_training_patients_and_of_no_order():
    s = studies()
    can = encoders.capacity(s, negatives=2)
    how = dict(negatives=2, n_draws=3, seed=5)
    for j, most in enumerate(can):
        positive, negative = encoders.draw(s, j, int(most), **how)
        train = s.rows("train")
        assert positive.shape == (3, most)
        assert negative.shape == (3, 2 * most)
        for rows, kind in ((positive, 1), (negative, 0)):
            assert (s.labels[train][rows, j] == kind).all()
            assert all(len(set(s.patient_id[train][r])) == len(r) for r in rows)
        fewer, _ = encoders.draw(s, j, 2, **how)
        np.testing.assert_array_equal(fewer, positive[:, :2])
    assert len({tuple(r) for r in positive}) == 3
    turn = np.random.default_rng(0).permutation(N)
    other = Studies(s.study_id[turn], s.patient_id[turn], s.split[turn], NAMES, s.labels[turn])
    again, _ = encoders.draw(other, 1, 3, **how)
    first, _ = encoders.draw(s, 1, 3, **how)
    ids = [t.study_id[t.rows("train")][r].tolist() for t, r in ((s, first), (other, again))]
    assert ids[0] == ids[1]


def test_mean_auroc_is_that_of_each_run_and_draw_on_every_resample():
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 6, size=(2, 60, 3, 4)).astype(np.float32)  # with ties
    labels = rng.choice([0.0, 1.0, np.nan], size=(60, 3))
    labels[:, 2] = 1.0
    weights = results.resampling(np.arange(60).astype(str), 20, seed=1)
    drawn, runs = encoders.mean_auroc(scores, labels, weights)
    each = np.array(
        [
            [metrics.auroc(scores[r, :, :, d].copy(), labels, weights) for d in range(4)]
            for r in range(2)
        ]
    )
    np.testing.assert_allclose(drawn[:2], each.mean((0, 1))[:2], atol=1e-6)
    np.testing.assert_allclose(runs[..., :2], each[..., :2, 0], atol=1e-12)
    assert np.isnan(drawn[2]).all()


def test_more_labels_help_who_sees_and_nobody_who_does_not():
    s = studies()
    blind = np.random.default_rng(9).normal(size=(N, 12))
    prompts = np.nan_to_num(s.labels) + 1e-3 * np.random.default_rng(1).normal(size=s.labels.shape)
    entered = {"sees": Encoder([seen(s)], [prompts]), "blind": Encoder([blind])}
    table, paired = encoder_tables.compare(entered, s, **OPTIONS)
    assert {*RESULT_COLUMNS, "budget", "strength", "n_train"} <= {*table}
    found = macro(table, "sees")
    assert found["zero-shot"] == 1
    assert found["1-shot"] < found["4-shot"] < found["all"]
    assert 0.35 < macro(table, "blind")["all"] < 0.65
    assert macro(table, "blind", "reason")["zero-shot"] == "no prompts"
    gap = paired.query("model == 'sees' and other == 'blind'").set_index("budget")
    assert gap.loc["all", "low"] > 0
    assert gap.loc["all", "value"] == pytest.approx(found["all"] - macro(table, "blind")["all"])
    assert table["low"].min() >= 0
    assert table["high"].max() <= 1
    assert "sees is above blind" in encoder_tables.reading(table, paired)


def test_order_of_studies_and_company_change_nothing():
    s = studies()
    one, two = seen(s), seen(s, seed=1, width=30)
    turn = np.random.default_rng(4).permutation(N)
    turned = Studies(s.study_id[turn], s.patient_id[turn], s.split[turn], NAMES, s.labels[turn])
    alone, _ = encoder_tables.compare({"a": Encoder([one])}, s, **OPTIONS)
    entered = {"b": Encoder([two[turn]]), "a": Encoder([one[turn]])}
    beside, _ = encoder_tables.compare(entered, turned, **OPTIONS)
    np.testing.assert_allclose(macro(alone, "a"), macro(beside, "a"), atol=2e-3)


def test_test_labels_teach_and_choose_nothing():
    s = studies()
    other = s.labels.copy()
    other[s.rows("test")] = 1 - other[s.rows("test")]
    before, after = (
        encoder_tables.compare({"a": Encoder([seen(s)])}, t, **OPTIONS)[0]
        for t in (s, replace(s, labels=other))
    )
    assert macro(before, "a", "strength").tolist() == macro(after, "a", "strength").tolist()
    np.testing.assert_allclose(macro(before, "a")["1-shot":], 1 - macro(after, "a")["1-shot":])


def test_intervals_hold_draws_and_runs_and_values_are_their_means():
    s = studies()
    runs = [seen(s, seed=k) for k in range(3)]
    table, _ = encoder_tables.compare({"a": Encoder(runs)}, s, **OPTIONS)
    each = [encoder_tables.compare({"a": Encoder([r])}, s, **OPTIONS)[0] for r in runs]
    for budget in ("1-shot", "all"):
        assert macro(table, "a")[budget] == pytest.approx(
            np.mean([macro(t, "a")[budget] for t in each]), abs=1e-6
        )
    assert macro(table, "a", "n_seeds")["all"] == 3
    assert len(macro(table, "a", "strength")["all"].split()) == 3
    flat = {"low": 0.7, "high": 0.8, "value": 0.75}
    by_draw = np.array([0.6, 0.7, 0.8, 0.9])
    wide = encoder_tables.with_draws(flat, by_draw)
    luck = 3.1824 * by_draw.std(ddof=1) / 2  # Student's t of three degrees of freedom
    assert wide["high"] == pytest.approx(0.75 + np.hypot(0.05, luck), abs=1e-4)


def test_a_finding_with_too_few_patients_is_named_and_out_of_every_macro():
    s = studies()
    rare = s.labels.copy()
    positive = np.flatnonzero((s.split == "train") & (rare[:, 1] == 1))
    rare[positive[2:], 1] = np.nan
    s = replace(s, labels=rare)
    table, _ = encoder_tables.compare({"a": Encoder([seen(s)])}, s, **OPTIONS)
    row = table.query("label == 'free_air' and budget == '4-shot'").iloc[0]
    assert row["status"] == "not evaluated"
    assert "of 4 training patients" in row["reason"]
    assert macro(table, "a", "n_positive").tolist() == [0, 2, 2, 2]
    assert macro(table, "a", "reason")["all"] == "macro over 2 of 3 findings"
    with pytest.raises(ValueError, match="no finding has 900 positive training patients"):
        encoder_tables.compare({"a": Encoder([seen(s)])}, s, **OPTIONS | dict(shots=[900]))


def test_no_validation_is_an_error_that_says_what_is_there():
    s = studies()
    s = replace(s, split=np.where(s.split == "val", "train", s.split))
    with pytest.raises(
        ValueError, match=r"split val: the strength is chosen there.* test 80, train 240"
    ):
        encoder_tables.compare({"a": Encoder([seen(s)])}, s, **OPTIONS)


def test_an_encoder_that_says_the_same_of_all_is_a_row_and_costs_no_other():
    s = studies()
    entered = {"flat": Encoder([np.ones((N, 4))]), "a": Encoder([seen(s)])}
    table, paired = encoder_tables.compare(entered, s, **OPTIONS)
    assert "all 4 features are the same" in table.query("model == 'flat'")["reason"].item()
    assert macro(table, "a")["all"] > 0.6
    assert len(paired) == 0
    tables = {"": table, "paired": paired}
    facts = dict(tier_note="phantom", profile="none", seed=1)
    with mpl.rc_context(style.RC):
        figure = style.drawn(draw_encoders, tables, facts)
        figure.canvas.draw()
    shown = figure.axes[0].get_legend_handles_labels()[1]
    assert shown == ["a"]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["1", "4", "all"]
    plt.close(figure)


# Files


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def file(*, seed=0, rows=None, labels=True, **more):
    s = studies()
    axes = np.eye(3, 12)
    whole = dict(
        study_id=s.study_id, patient_id=s.patient_id, site=np.full(N, "internal"), split=s.split,
        image=unit(seen(s, seed=seed)), finding_labels=s.labels.astype(np.float32),
    ) | more  # fmt: skip
    whole = {k: v if rows is None else v[rows] for k, v in whole.items()}
    if not labels:
        del whole["finding_labels"]
    return Embeddings(
        **whole, **(dict(finding=np.array(NAMES)) if labels else {}),
        prompt=np.array([*"abcdef"]), prompt_finding=np.array(NAMES * 2),
        prompt_kind=np.repeat(["present", "absent"], 3), prompt_wording=np.full(6, "reported"),
        prompt_embedding=unit(np.r_[axes, -axes]), meta={"model": "m", "tier": "phantom"},
    )  # fmt: skip


def test_files_are_judged_on_what_all_have_and_what_is_dropped_is_counted():
    turn = np.random.default_rng(0).permutation(N)[:-7]
    contrary = studies().labels.astype(np.float32)
    contrary[turn[:5], 0] = 1 - contrary[turn[:5], 0]
    files = {"a": file(), "b": file(seed=1, rows=turn, finding_labels=contrary)}
    made = encoder_files.from_files(files)
    assert len(made.studies.study_id) == N - 7
    assert made.notes["a"] == [f"7 of {N} studies are not in all files"]
    assert made.notes["b"] == ["5 labels contradict those of a, which judge all"]
    assert "5 labels contradict" in made.encoders["b"].note
    at = {i: n for n, i in enumerate(files["b"].study_id)}
    rows = [at[i] for i in made.studies.study_id]
    np.testing.assert_array_equal(made.encoders["b"].features[0], files["b"].image[rows])


def test_files_of_one_name_are_trainings_of_one_encoder():
    files = {"a": file(), "a (2)": file(seed=1), "b": file(seed=2)}
    made = encoder_files.from_files(files, names=["a", "a", "b"])
    assert {n: (len(e.features), len(e.presence)) for n, e in made.encoders.items()} == {
        "a": (2, 2),
        "b": (1, 1),
    }


def test_another_split_is_refused_and_a_missing_one_is_an_error():
    s = studies()
    files = {"a": file(), "moved": file(split=np.roll(s.split, 2)), "b": file(seed=1)}
    made = encoder_files.from_files(files)
    assert list(made.encoders) == ["a", "b"]
    assert "common studies are in another split than in a" in made.refused["moved"]
    tests = file(rows=s.rows("test"))
    with pytest.raises(ValueError, match=r"split train: .*a 160, tests 0"):
        encoder_files.from_files({"a": file(), "tests": tests})
    with pytest.raises(ValueError, match=r"no study .* in common"):
        encoder_files.from_files({"a": file(), "b": file(study_id=np.char.add(s.study_id, "x-y"))})
    with pytest.raises(ValueError, match="--labels"):
        encoder_files.from_files({"a": file(labels=False)})
    with pytest.raises(ValueError, match="patients are in several splits"):
        encoder_files.from_files({"a": file(patient_id=np.full(N, "p1"))})


def test_tables_of_features_drop_and_count_what_one_lacks():
    s = studies()
    index = pd.Index(s.study_id, name="study_id")
    cohort = pd.DataFrame(dict(patient_id=s.patient_id, split=s.split), index=index)
    cohort[[f"label_{f}" for f in NAMES]] = s.labels
    features = pd.DataFrame(seen(s), index=index)
    made = encoder_files.from_tables(
        cohort, NAMES, {"a": [features[3:]], "ruler": [features[10:]]},
        {"a": [file(rows=np.flatnonzero(s.split != "train"))]}, untrained=["ruler"],
    )  # fmt: skip
    assert len(made.studies.study_id) == N - 3
    assert made.notes == {"all": ["3 studies without features in some table"]}
    assert np.isfinite(made.encoders["a"].presence[0][made.studies.rows("test")]).all()
    assert np.isnan(made.encoders["ruler"].features[0][:7]).all()
    with pytest.raises(ValueError, match="no features of b"):
        encoder_files.from_tables(cohort, NAMES, {"b": [features[:0]]}, {})


def test_the_command_leaves_tables_and_picture_and_names_what_it_refused(tmp_path, capsys):
    s = studies()
    save_embeddings(tmp_path / "a.npz", file(labels=False, split=np.full(N, "test")))
    save_embeddings(tmp_path / "b.npz", file(labels=False, split=np.full(N, "test"), seed=1))
    (tmp_path / "c.npz").write_bytes(b"broken")
    table = pd.DataFrame(dict(study_id=s.study_id, split=s.split))
    table[[f"label_{f}" for f in NAMES]] = s.labels
    table.to_csv(tmp_path / "labels.csv", index=False)
    paths = [str(tmp_path / f"{n}.npz") for n in "abc"]
    words = ["compare", *paths, "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "o"),
             "--shots", "2", "--draws", "2", "--resamples", "20"]  # fmt: skip
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert "c is refused" in said.err
    assert "a: split from --labels, not the file's own" in said.out
    found = pd.read_csv(tmp_path / "o" / "results.csv")
    assert set(found["model"]) == {"a", "b"}
    assert set(found["budget"]) == {"zero-shot", "2-shot", "all"}
    assert len(pd.read_csv(tmp_path / "o" / "paired.csv")) == 3 + 4
    assert (tmp_path / "o" / "label_efficiency.png").stat().st_size > 10_000
    assert cli.main(words) == 2
    assert "exists" in capsys.readouterr().err


def test_the_docs_example_enters_and_is_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    s = studies()
    table = pd.DataFrame(dict(study_id=s.study_id, patient_id=s.patient_id, split=s.split))
    table[[f"label_{f}" for f in NAMES]] = s.labels
    table.assign(site="internal").to_csv("manifest.csv", index=False)
    text = (run.ROOT / "docs" / "enter_your_model.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "docs/enter_your_model.md", "exec"), {})
    save_embeddings("ours.npz", file())
    monkeypatch.setattr("merlin.commands.compare.save_picture", lambda *_: None)
    (call,) = re.findall(r"merlin (compare .*)", text.split("```bash")[1])
    assert cli.main([*call.split(), "--shots", "2", "--draws", "2", "--resamples", "20"]) == 0
    found = pd.read_csv(tmp_path / "encoders" / "results.csv")
    assert set(found["model"]) == {"ours", "mine"}
    assert all(f"{c:g}" in text for c in linear_head.STRENGTHS)
