"""Any encoder's file takes the same tests, paired on the same patients; external drops; summaries."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from merlin import cli
from merlin.embeddings import Embeddings, save_embeddings
from merlin.evaluation import external, off_shelf
from merlin.run import RESULT_COLUMNS


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def make(seed, *, n=80, noise=0.2, order=None, **more):
    """An encoder that sees a finding and a phecode through some noise."""
    truth = np.random.default_rng(9)
    label = (truth.random(n) < 0.4).astype(float)
    text = unit(truth.normal(size=(n, 12)))
    rng = np.random.default_rng(seed)
    image = text + noise * rng.normal(size=(n, 12))
    image[:, 0] += np.where(label, 2, -2)
    axis = np.eye(12)[0]
    order = np.arange(n) if order is None else order
    ids = np.array([f"s{i:03d}" for i in range(n)])
    whole = dict(
        study_id=ids[order],
        patient_id=np.array([f"p{i // 2}" for i in range(n)])[order],
        site=np.full(len(order), "internal"),
        split=np.full(len(order), "test"),
        image=unit(image)[order],
        findings=unit(text + np.where(label, 2, -2)[:, None] * axis)[order],
        impression=np.full((len(order), 12), np.nan, np.float32),
        sections=np.full((len(order), 0, 12), np.nan, np.float16),
        section=np.array([], str),
        phecode_logits=(label * 2 + rng.normal(size=n))[order, None].astype(np.float32),
        phecode=np.array(["250.2"]),
        prompt=np.array(["ascites", "no ascites"]),
        prompt_finding=np.array(["ascites"] * 2),
        prompt_kind=np.array(["present", "absent"]),
        prompt_wording=np.array(["reported"] * 2),
        prompt_embedding=np.stack([axis, -axis]).astype(np.float32),
        finding=np.array(["ascites"]),
        finding_labels=label[order, None].astype(np.float32),
        phecode_labels=label[order, None].astype(np.float32),
        text_group=np.arange(n)[order],
    )
    return Embeddings(**whole | more, meta={"model": "m", "tier": "phantom"})


OPTIONS = dict(split="test", pools=(8, 500), min_positive=5, n_resamples=40, seed=1)


def test_files_are_judged_on_common_studies_whatever_their_order():
    shuffled = np.random.default_rng(1).permutation(80)[:60]
    files = {"a": make(1), "b": make(1, order=shuffled)}
    table, paired = off_shelf.evaluate(files, **OPTIONS)
    assert set(RESULT_COLUMNS) <= set(table)
    assert set(table.loc[table["status"] == "ok", "n_studies"]) <= {60}
    assert set(table["task"]) == {"zero-shot findings", "phenotypes", "retrieval"}
    np.testing.assert_allclose(paired[["value", "low", "high"]], 0, atol=1e-12)  # the same encoder


def test_better_encoder_wins_pair_by_pair():
    table, paired = off_shelf.evaluate({"good": make(1), "bad": make(2, noise=3.0)}, **OPTIONS)
    gap = paired.set_index(["task", "metric"]).loc[
        ("retrieval", "image to findings, recall@1 of 8")
    ]
    assert gap["low"] > 0
    found = table.query("label == 'ascites' and metric == 'auroc'").set_index("model")["value"]
    assert found["good"] > found["bad"]


def test_what_a_file_cannot_do_is_a_row_with_a_reason():
    bare = make(
        2,
        phecode=np.array([], str),
        phecode_logits=np.zeros((80, 0), np.float32),
        phecode_labels=np.zeros((80, 0), np.float32),
        findings=np.full((80, 12), np.nan, np.float32),
    )
    table, _ = off_shelf.evaluate({"a": make(1), "bare": bare}, **OPTIONS)
    mine = table[table["model"] == "bare"]
    gone = mine[mine["status"] == "not evaluated"]
    assert "the file has no phecode_logits" in set(gone["reason"])
    assert "0 of 80 studies have a text" in set(gone["reason"])
    assert (mine[mine["task"] == "zero-shot findings"]["status"] == "ok").all()


def test_files_without_common_studies_or_with_other_owners_are_refused():
    other = make(2, study_id=np.array([f"x{i}" for i in range(80)]))
    with pytest.raises(ValueError, match="no study of site any, split test in common"):
        off_shelf.evaluate({"a": make(1), "b": other}, **OPTIONS)
    stolen = make(2, patient_id=np.full(80, "p0"))
    with pytest.raises(ValueError, match=r"patient_id differs.*b: 78 studies"):
        off_shelf.evaluate({"a": make(1), "b": stolen}, **OPTIONS)


def test_command_writes_tables_and_a_picture_and_will_not_overwrite(tmp_path, capsys):
    for name, seed in (("one", 1), ("two", 2)):
        save_embeddings(tmp_path / f"{name}.npz", make(seed))
    call = [
        "evaluate",
        str(tmp_path / "one.npz"),
        str(tmp_path / "two.npz"),
        "--out",
        str(tmp_path / "out"),
    ]
    call += ["--resamples", "20", "--pools", "8", "--min-positive", "5"]
    assert cli.main(call) == 0
    assert "one: zero-shot findings, auroc" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(table["model"]) == {"one", "two"}
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 10_000
    assert (tmp_path / "out" / "paired.csv").exists()
    assert cli.main(call) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_command_names_every_bad_file(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path / "none.npz"), "--out", str(tmp_path / "o")]) == 2
    assert "none.npz" in capsys.readouterr().err
    for name in ("bad1.npz", "bad2.npz"):
        np.savez(tmp_path / name, image=np.zeros((2, 3)))
    files = [str(tmp_path / n) for n in ("bad1.npz", "bad2.npz")]
    assert cli.main(["evaluate", *files, "--out", str(tmp_path / "o")]) == 2
    said = capsys.readouterr().err
    assert "bad1.npz" in said
    assert "bad2.npz" in said


def test_evaluating_files_needs_no_torch():
    code = (
        "import sys\nfrom merlin.evaluation import off_shelf, external, five_year, generation, segmentation\n"
        "from merlin.figures import catalogue\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_external_drop_is_external_minus_internal_over_shared_findings():
    rng = np.random.default_rng(1)
    labels = (rng.random((90, 2)) < 0.5).astype(float)
    inside = (labels + 0.1 * rng.normal(size=labels.shape), labels, np.arange(90).astype(str))
    gone = labels[:40].copy()
    gone[:, 1] = 0
    outside = (rng.normal(size=(40, 2)), gone, np.arange(40).astype(str))
    table = external.drops(inside, outside, ("a", "b"), n_resamples=30, seed=1).set_index(
        ["label", "metric"]
    )
    assert table.loc[("a", "AUROC"), "value"] < -0.2
    assert np.isnan(table.loc[("b", "AUROC"), "value"])
    assert "one class only" in table.loc[("b", "AUROC"), "reason"]
    assert table.loc[("macro", "AUROC"), "value"] == table.loc[("a", "AUROC"), "value"]


def test_differences_are_over_the_findings_that_both_files_have():
    """A file that knows one finding of two is compared on that one."""
    axis = np.eye(12)[0]
    more = dict(
        prompt=np.array(["ascites", "no ascites", "cyst", "no cyst"]),
        prompt_finding=np.array(["ascites"] * 2 + ["renal_cyst"] * 2),
        prompt_kind=np.array(["present", "absent"] * 2),
        prompt_wording=np.array(["reported"] * 4),
        prompt_embedding=np.stack([axis, -axis, -axis, axis]).astype(
            np.float32
        ),  # cyst: upside down
        finding=np.array(["ascites", "renal_cyst"]),
    )
    both = make(1)
    both = make(1, finding_labels=np.repeat(both.finding_labels, 2, 1), **more)
    one = make(2)
    table, paired = off_shelf.evaluate({"both": both, "one": one}, **OPTIONS)
    macro = table[(table["label"] == "macro") & (table["metric"] == "auroc")]
    macro = macro[macro["task"] == "zero-shot findings"].set_index("model")["value"]
    assert macro["both"] < 0.6  # one finding right, one wrong
    gap = paired.query("task == 'zero-shot findings' and metric == 'auroc'")["value"].item()
    alone = table[(table["label"] == "ascites") & (table["metric"] == "auroc")].set_index("model")
    assert gap == pytest.approx(alone.loc["both", "value"] - alone.loc["one", "value"])
    assert abs(gap) < 0.1
