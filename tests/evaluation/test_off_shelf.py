"""Any encoder's file takes the same tests, paired on the same patients; external drops; summaries."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from merlin import cli
from merlin.embeddings import Embeddings, load_embeddings, save_embeddings
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


def test_a_file_that_meets_no_other_is_refused_and_the_rest_compared():
    other = make(2, study_id=np.array([f"x{i}" for i in range(80)]))
    stolen = make(2, patient_id=np.full(80, "p0"))
    files = {"a": make(1), "other": other, "b": make(2), "stolen": stolen}
    table, paired = off_shelf.evaluate(files, **OPTIONS)
    reason = table.drop_duplicates("model").set_index("model")["reason"]
    assert reason["other"].startswith("refused: the files have no study of site any, split test")
    assert reason["stolen"].startswith(
        "refused: patient_id differs from the first file's for stolen"
    )
    assert set(paired["other"]) == {"b"}
    assert set(table[table["status"] == "ok"]["model"]) == {"a", "b"}


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


def results_of(tmp_path, *files, code=0, **options):
    """Save files, judge them by the command line, and return its table."""
    paths = []
    for name, e in files:
        save_embeddings(tmp_path / f"{name}.npz", e)
        paths.append(str(tmp_path / f"{name}.npz"))
    ask = ["evaluate", *paths, "--out", str(tmp_path / "out"), "--resamples", "20", "--pools", "8"]
    ask += [w for k, v in options.items() for w in (f"--{k}", str(v))]
    assert cli.main([*ask, "--min-positive", "5", "--overwrite"]) == code
    return pd.read_csv(tmp_path / "out" / "results.csv").set_index(["model", "label", "metric"])


def test_one_bad_file_is_named_and_the_others_are_judged(tmp_path, capsys):
    """Cut short, without images, a bug of ours: each is a refusal with its kind."""
    for name in ("cut", "bare", "odd"):
        save_embeddings(tmp_path / f"{name}.npz", make(1))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:5000])
    np.savez(tmp_path / "bare.npz", study_id=np.arange(3))
    (tmp_path / "odd.npz").rename(tmp_path / "odd.pt")
    save_embeddings(tmp_path / "good.npz", make(1))
    names = ("cut.npz", "bare.npz", "odd.pt", "absent.npz", "good.npz")
    ask = ["evaluate", *(str(tmp_path / n) for n in names), "--out", str(tmp_path / "out")]
    assert cli.main([*ask, "--resamples", "20", "--pools", "8", "--min-positive", "5"]) == 1
    said = capsys.readouterr()
    for words in ("cut is refused: cut.npz: not a whole .npz", "bare is refused", "image: missing",
                  "odd is refused: odd.pt: expected .npz", "absent is refused: no file"):  # fmt: skip
        assert words in said.err
    assert "good: zero-shot findings, auroc" in said.out
    assert set(pd.read_csv(tmp_path / "out" / "results.csv")["model"]) == {"good"}


def test_a_file_that_fails_in_judging_costs_nothing_to_the_others(tmp_path, monkeypatch, capsys):
    judge = off_shelf.judge

    def sometimes(files, *args, **options):
        if "broken" in files:
            raise KeyError("no such thing")
        return judge(files, *args, **options)

    monkeypatch.setattr(off_shelf, "judge", sometimes)
    files = [(n, make(i)) for i, n in enumerate(("broken", "good", "other"))]
    found = results_of(tmp_path, *files, code=1)
    assert "KeyError" in found.loc[("broken", "macro", "auroc"), "reason"].iloc[0]
    assert found.loc[("good", "macro", "auroc"), "status"].iloc[0] == "ok"
    paired = pd.read_csv(tmp_path / "out" / "paired.csv")
    assert set(zip(paired["model"], paired["other"], strict=True)) == {("good", "other")}


def blanks(*names):
    """Nothing where a file has no prompts, no texts or no phecodes."""
    prompts = ("prompt", "prompt_finding", "prompt_kind", "prompt_wording", "prompt_embedding")
    gone = {"prompts": prompts, "texts": ("findings",), "labels": ("finding", "finding_labels")}
    gone["phecodes"] = ("phecode", "phecode_logits", "phecode_labels")
    return {array: None for n in names for array in gone[n]}


def test_an_encoder_is_judged_on_what_it_has(tmp_path, capsys):
    one_side = make(1)
    presence = {n: getattr(one_side, n)[:1] for n in blanks("prompts")}
    found = results_of(
        tmp_path, ("all", make(1)), ("no_prompts", make(1, **blanks("prompts"))),
        ("presence", make(1, **presence)), ("phecodes", make(1, **blanks("prompts", "texts", "labels"))),
        ("texts", make(1, **blanks("prompts", "phecodes"))),
    )  # fmt: skip
    ok = found["status"] == "ok"
    recall = "recall@1 of 8"
    for model in ("no_prompts", "phecodes", "texts"):
        row = found.loc[[(model, "macro", "auroc")]].iloc[0]
        assert (row["status"], row["reason"]) == ("not evaluated", "the file has no prompts")
    for model in ("all", "no_prompts", "presence", "texts"):
        assert ok[model, "image to findings", recall].item()
    assert ok["phecodes", "250.2", "auprc"].item()
    assert "0 of 80 studies have a text" in found.loc["phecodes"]["reason"].to_list()
    assert ok["presence", "ascites", "auroc"].item()
    row = found.loc[[("presence", "ascites", "f1")]].iloc[0]
    assert (row["status"], row["reason"]) == ("not evaluated", "no threshold to call it by")
    alone = results_of(tmp_path, ("phecodes", make(1, **blanks("prompts", "texts", "labels"))))
    assert (alone["status"] == "ok").any()


def test_presence_prompts_alone_are_called_at_a_threshold_from_validation(tmp_path):
    split = np.repeat(["val", "test"], 40)
    one_side = {n: getattr(make(1), n)[:1] for n in blanks("prompts")}
    found = results_of(tmp_path, ("m", make(1, split=split, **one_side)), threshold="validation")
    assert found.loc[("m", "ascites", "f1"), "value"].item() > 0.9


@pytest.mark.parametrize("pools", [0, 1, -5])
def test_pools_of_nobody_are_refused_and_too_large_ones_said(tmp_path, capsys, pools):
    save_embeddings(tmp_path / "m.npz", make(1))
    ask = ["evaluate", str(tmp_path / "m.npz"), "--out", str(tmp_path / "out")]
    assert cli.main([*ask, "--pools", "8", str(pools)]) == 2
    assert f"--pools {pools}: a pool holds two candidates" in capsys.readouterr().err
    assert cli.main([*ask, "--pools", "8", "500", "--resamples", "20"]) == 0
    found = pd.read_csv(tmp_path / "out" / "results.csv")
    assert found[found["pool"] == 500]["reason"].str.contains("larger than the 80 studies").all()


def test_splits_and_sites_are_listed_where_the_asked_one_is_missing():
    e = make(1, split=np.repeat(["train", "val"], 40))
    with pytest.raises(ValueError, match="no study of split test; found train 40, val 40"):
        off_shelf.common_rows({"a": e}, split="test")
    with pytest.raises(ValueError, match=r"no study of site ours; found internal 80\. .*--site"):
        off_shelf.common_rows({"a": e}, site="ours")


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-4])
def test_a_collapsed_encoder_is_told_so(tmp_path, capsys, noise):
    image = np.eye(12)[:1] + noise * np.random.default_rng(0).normal(size=(80, 12))
    found = results_of(tmp_path, ("good", make(1)), ("flat", make(1, image=unit(image))))
    reasons = found["reason"].fillna("")
    assert reasons["flat", "macro", "auroc"].str.contains("collapsed encoder").any()
    assert not reasons["good"].str.contains("collapsed").any()
    assert "flat: zero-shot findings, auroc" in capsys.readouterr().out
    if noise == 0:
        assert found.loc[("flat", "ascites", "auroc"), "value"].item() == 0.5
        assert "same score for every study" in reasons["flat", "ascites", "auroc"]
        recall = found.loc["flat"].xs("recall@1 of 8", level="metric")
        np.testing.assert_allclose(recall["value"], 1 / 8, rtol=1e-6)


def test_findings_that_only_one_side_knows_are_counted_and_named(tmp_path):
    labels = np.repeat(make(1).finding_labels, 2, axis=1)
    e = make(1, finding=np.array(["ascites", "Renal cyst"]), finding_labels=labels)
    found = results_of(tmp_path, ("m", e))
    said = found.loc[("m", "macro", "auroc"), "reason"].iloc[0]
    assert said == "1 labelled findings without scores: Renal cyst"  # and nothing else
    other = make(1, finding=np.array(["Ascites"]))
    none = make(2, **blanks("labels"))
    table, _ = off_shelf.evaluate({"labels": replace(other, prompt_finding=other.prompt_finding), "m": none},
                                  **OPTIONS)  # fmt: skip
    row = table[(table["model"] == "m") & (table["task"] == "zero-shot findings")].iloc[0]
    assert row["reason"] == "presence scores for ascites; labels for Ascites: no finding is in both"


def test_unknown_patients_disagree_with_nobody():
    known, unknown = make(1), make(2)
    unknown = replace(unknown, patient_id=unknown.study_id)
    for files in ({"a": known, "b": unknown}, {"b": unknown, "a": known}):
        rows = off_shelf.common_rows(files)
        assert (off_shelf.owners(files, rows) == known.patient_id).all()


def test_outputs_that_are_not_finite_are_left_out_and_counted():
    logits = make(1).phecode_logits.copy()
    logits[:3] = np.nan
    table, _ = off_shelf.evaluate({"m": make(1, phecode_logits=logits)}, **OPTIONS)
    row = table[(table["label"] == "250.2") & (table["metric"] == "auroc")].iloc[0]
    assert (row["n_studies"], row["reason"]) == (77, "3 scores not finite, left out")


def test_embeddings_and_scores_are_paired_on_their_findings(tmp_path):
    e = make(1)
    save_embeddings(tmp_path / "e.npz", e)
    rng = np.random.default_rng(2)
    scores = pd.DataFrame({"study_id": e.study_id, "ascites": rng.normal(size=80)})
    scores.to_csv(tmp_path / "chance.csv", index=False)
    files = [str(tmp_path / n) for n in ("e.npz", "chance.csv")]
    ask = ["evaluate", *files, "--out", str(tmp_path / "out"), "--resamples", "50", "--pools", "8"]
    assert cli.main([*ask, "--min-positive", "5"]) == 0
    paired = pd.read_csv(tmp_path / "out" / "paired.csv").set_index("metric")
    assert list(paired["task"]) == ["zero-shot findings"] * 3
    assert paired.loc["auroc", "low"] > 0.2


def worded(wordings):
    """Two findings, of whose prompts one is worded otherwise."""
    e = make(1)
    two = {n: np.concatenate([getattr(e, n)] * 2) for n in blanks("prompts")}
    two["prompt_finding"] = np.array(["ascites", "ascites", "effusion", "effusion"])
    labels = np.repeat(e.finding_labels, 2, axis=1)
    two |= dict(finding=np.array(["ascites", "effusion"]), finding_labels=labels)
    return make(1, **two | {"prompt_wording": np.array(wordings)})


@pytest.mark.parametrize(
    ("wordings", "said"),
    [
        (["reported"] * 4, ""),
        (["reported", "reported", "plain", "plain"], "1 findings without .*: effusion \\(plain\\)"),
        (["a", "a", "b", "b"], "2 findings without .*: ascites \\(a\\), effusion \\(b\\)"),
        ([""] * 4, "2 findings without"),
        (["x", "x", "reported", "reported"], "1 findings without .*: ascites \\(x\\)"),
    ],
)
def test_each_finding_is_judged_by_a_wording_that_it_has(tmp_path, wordings, said):
    found = results_of(tmp_path, ("m", worded(wordings)))
    for finding in ("ascites", "effusion"):
        assert found.loc[("m", finding, "f1"), "value"].item() > 0.9
    reason = found.loc[("m", "macro", "auroc"), "reason"].fillna("").iloc[0]
    assert found.loc["m"]["reason"].str.contains(said).any() if said else "worded" not in reason


def test_labels_of_a_table_judge_an_embeddings_file_too(tmp_path, capsys):
    e = make(1)
    table = pd.DataFrame({"study_id": e.study_id, "Age": 50, "ascites": e.finding_labels[:, 0]})
    table["ascites"] = table["ascites"].map({1: "True", 0: "False"})
    table.to_csv(tmp_path / "l.csv", index=False)
    own = results_of(tmp_path, ("m", e))
    bare = ("m", make(1, **blanks("labels")))
    found = results_of(tmp_path, bare, labels=tmp_path / "l.csv")
    key = ("m", "ascites", "auroc")
    assert found.loc[key, "value"].item() == own.loc[key, "value"].item()
    assert "m: labels from --labels" in capsys.readouterr().out
    table.rename(columns={"study_id": "Study"}).to_csv(tmp_path / "l.csv", index=False)
    again = results_of(tmp_path, bare, labels=tmp_path / "l.csv", id="Study")
    assert again.loc[key, "value"].item() == own.loc[key, "value"].item()
    table["study_id"] += ".nii.gz"
    table.to_csv(tmp_path / "l.csv", index=False)
    ask = ["evaluate", str(tmp_path / "m.npz"), "--out", str(tmp_path / "o")]
    assert cli.main([*ask, "--labels", str(tmp_path / "l.csv")]) == 2
    assert "they differ by endings" in capsys.readouterr().err


def test_options_that_embeddings_have_no_use_for_are_said(tmp_path, capsys):
    results_of(tmp_path, ("m", make(1)), threshold=0.3)
    assert "--threshold 0.3 is for tables of scores; not used here" in capsys.readouterr().out
    ask = ["evaluate", str(tmp_path / "m.npz"), "--out", str(tmp_path / "o"), "--id", "Name"]
    assert cli.main(ask) == 2
    assert "--id Name names a column of a table" in capsys.readouterr().err


@pytest.mark.parametrize("length", [1e-200, 1e-40, 3.0, 1e30, 1e200])
def test_vectors_of_any_length_are_normalised_before_they_are_cast(tmp_path, length):
    e = make(1)
    save_embeddings(tmp_path / "m.npz", e)
    arrays = dict(np.load(tmp_path / "m.npz"))
    for name in ("image", "findings", "prompt_embedding"):
        arrays[name] = arrays[name].astype(float) * length
    np.savez(tmp_path / "long.npz", **arrays)
    found = load_embeddings(tmp_path / "long.npz")
    assert found.image.dtype == np.float32
    np.testing.assert_allclose(found.image, e.image, atol=1e-6)
    np.testing.assert_allclose(found.prompt_embedding, e.prompt_embedding, atol=1e-6)


def test_splits_of_an_embeddings_file_go_by_our_names(tmp_path, capsys):
    split = np.repeat(["VAL", "validation", "Test"], [20, 20, 40])
    found = results_of(tmp_path, ("m", make(1, split=split)), threshold="validation")
    assert found.loc[("m", "ascites", "auroc"), "n_studies"].item() == 40
    assert "split: Test as test, VAL as val, validation as val" in capsys.readouterr().out
