"""Tables of scores: every form that people keep them in gives the same numbers; gaps are named."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from merlin import cli
from merlin.evaluation.scores import read_scores

FINDINGS = ["Pleural Effusion", "Lung Opacity"]


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(3)
    labels = (rng.random((60, 2)) < 0.4).astype(float)
    labels[:6, 0] = np.nan
    return labels, np.nan_to_num(labels) * 2 - 1 + rng.normal(size=(60, 2))


@pytest.fixture
def table(truth):
    """Probabilities with labels beside, 60 studies of 30 patients, ids with zeros in front."""
    labels, logits = truth
    ids = [f"{i:04d}" for i in range(60)]
    out = pd.DataFrame({"study_id": ids, "patient_id": [f"p{i // 2}" for i in range(60)]})
    out["split"] = "test"
    out[FINDINGS] = 1 / (1 + np.exp(-logits))
    out[[f"label_{f}" for f in FINDINGS]] = labels
    return out


LABELS = [f"label_{f}" for f in FINDINGS]


def evaluate(tmp_path, *files, **options):
    ask = ["evaluate", *map(str, files), "--out", str(tmp_path / "out"), "--resamples", "20"]
    for name, value in options.items():
        ask += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    code = cli.main(ask)
    path = tmp_path / "out" / "results.csv"
    return code, pd.read_csv(path) if path.exists() else None


def test_values_are_scikit_learns_whatever_the_form(tmp_path, table, truth, capsys):
    labels, logits = truth
    scores = table.drop(columns=LABELS)
    long = table.melt(["study_id", "patient_id", "split"], FINDINGS, "finding", "prob")
    long["label"] = table.melt(["study_id"], LABELS)["value"]
    as_logits = table.rename(columns={f: f"logit_{f}" for f in FINDINGS})
    as_logits[[f"logit_{f}" for f in FINDINGS]] = logits
    bare = table[["study_id", *LABELS]].rename(columns=lambda c: c.removeprefix("label_"))
    table.to_csv(tmp_path / "wide.csv", index=False)
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "shuffled.csv")  # with row numbers
    table.to_parquet(tmp_path / "wide.parquet")
    table.to_csv(tmp_path / "german.csv", sep=";", decimal=",", index=False, encoding="cp1252")
    long.to_csv(tmp_path / "long.csv", index=False)
    as_logits.to_csv(tmp_path / "logits.csv", index=False)
    scores.to_csv(tmp_path / "apart.csv", index=False)
    bare.to_csv(tmp_path / "labels.csv", index=False)
    names = ("wide.csv", "shuffled.csv", "wide.parquet", "german.csv", "long.csv", "logits.csv")
    code, found = evaluate(tmp_path, *(tmp_path / n for n in names), names=None or "a")
    assert code == 2  # one name for six files
    ask = [
        "evaluate",
        *(str(tmp_path / n) for n in (*names, "apart.csv")),
        "--out",
        str(tmp_path / "o"),
    ]
    ask += ["--resamples", "20", "--names", *"abcdefg"]
    assert cli.main(ask) == 0
    said = capsys.readouterr().out
    assert "f1 (of the positive class, macro over findings)" in said
    assert "a: 2 findings taken as probabilities: present above 0.5" in said
    assert "f: 2 findings taken as logits: present above 0" in said
    found = pd.read_csv(tmp_path / "o" / "results.csv").set_index(["model", "label", "metric"])
    for model in "abcdefg":
        for j, finding in enumerate(FINDINGS):
            known = ~np.isnan(labels[:, j])
            y, s = labels[known, j], logits[known, j]
            assert found.value[model, finding, "auroc"] == pytest.approx(roc_auc_score(y, s))
            assert found.value[model, finding, "f1"] == pytest.approx(f1_score(y, s > 0))
        assert found.n_patients[model, "Lung Opacity", "f1"] == 30
    paired = pd.read_csv(tmp_path / "o" / "paired.csv")
    assert paired[["value", "low", "high"]].abs().to_numpy().max() < 1e-9, paired
    apart = read_scores(tmp_path / "apart.csv", labels=tmp_path / "labels.csv")
    assert apart.study_id[7] == "0007"
    np.testing.assert_array_equal(apart.finding_labels, labels)


@pytest.mark.parametrize(
    ("rule", "value"), [("missing", np.nan), ("positive", 1.0), ("negative", 0.0), ("refuse", None)]
)
def test_uncertain_labels_follow_a_stated_rule_and_are_counted(tmp_path, table, rule, value):
    table.loc[10:13, LABELS[1]] = -1
    table.to_csv(tmp_path / "s.csv", index=False)
    if value is None:
        with pytest.raises(ValueError, match="4 labels are −1"):
            read_scores(tmp_path / "s.csv", uncertain=rule)
        return
    found = read_scores(tmp_path / "s.csv", uncertain=rule)
    np.testing.assert_array_equal(found.finding_labels[10:14, 1], [value] * 4)
    assert f"4 labels of −1 taken as {rule}" in found.meta["notes"]


@pytest.mark.parametrize("gap", [np.nan, np.inf, "", "NaN", "null"])
def test_gaps_in_scores_are_named_and_masked_only_on_request(tmp_path, table, gap):
    table = table.astype({FINDINGS[0]: object})
    table.loc[20:22, FINDINGS[0]] = gap
    table.to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(ValueError, match=r"Pleural Effusion 3 of 60 studies\. .*--mask-nan"):
        read_scores(tmp_path / "s.csv")
    code, found = evaluate(tmp_path, tmp_path / "s.csv", mask_nan=True)
    assert code == 0
    rows = found[found["metric"] == "auroc"].set_index("label")
    assert rows.n_studies[FINDINGS[0]] == 60 - 6 - 3
    assert rows.n_studies[FINDINGS[1]] == 60
    assert "masked: Pleural Effusion 3" in rows.loc[["macro"], "reason"].iloc[0]


def test_a_masked_study_is_masked_for_all_so_that_differences_stay_paired(tmp_path, table):
    table.to_csv(tmp_path / "whole.csv", index=False)
    table.loc[20:29, FINDINGS[1]] = np.nan
    table.to_csv(tmp_path / "gaps.csv", index=False)
    code, found = evaluate(tmp_path, tmp_path / "whole.csv", tmp_path / "gaps.csv", mask_nan=True)
    assert code == 0
    assert set(found[found["label"] == FINDINGS[1]]["n_studies"]) == {50}
    assert pd.read_csv(tmp_path / "out" / "paired.csv")["value"].abs().max() < 1e-12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.assign(study_id=["7"] * 60), r"study_id more than once in rows 2, 3"),
        (lambda t: t.assign(study_id=["", *t["study_id"][1:]]), r"study_id empty in row 2"),
        (lambda t: t.rename(columns={"study_id": "VolumeName"}), r"no column study_id.*--id"),
        (lambda t: t.assign(**{FINDINGS[0]: ["high", *t[FINDINGS[0]][1:]]}),
         r"row 2, column Pleural Effusion: high\. Expected a number"),
        (lambda t: t.assign(**{FINDINGS[0]: t[FINDINGS[0]].map("{:.3f}".format).str.replace(".", ",")}),
         r"column Pleural Effusion: 0,\d+"),
        (lambda t: t.assign(**{LABELS[0]: [2, -3, *t[LABELS[0]][2:]]}),
         r"rows 2, 3, label of Pleural Effusion: 2, -3\. Expected 1, 0, empty or −1"),
        (lambda t: t.rename(columns=lambda c: c.replace("label_", "label_x ")),
         r"scores of Pleural Effusion, Lung Opacity; labels of x Pleural Effusion"),
        (lambda t: t.assign(**{f: 100 * t[f] for f in FINDINGS}),
         r"neither probabilities nor logits.*--threshold"),
        (lambda t: t.rename(columns={FINDINGS[0]: f"prob_{FINDINGS[0]}"}).assign(
            **{f"prob_{FINDINGS[0]}": 1.5}), r"outside \[0, 1\]"),
        (lambda t: t.assign(split=["val"] + ["test"] * 59), r"several splits"),
        (lambda t: t[:0], r"a header and no rows"),
        (lambda t: t[["study_id", *LABELS]], r"No finding is in both"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_named(tmp_path, table, change, said):
    change(table.assign(**{c: table[c].astype(object) for c in (*FINDINGS, *LABELS)})).to_csv(
        tmp_path / "s.csv", index=False
    )
    with pytest.raises(ValueError, match=said) as caught:
        read_scores(tmp_path / "s.csv")
    assert "p1" not in str(caught.value)  # patients are never printed


def test_what_was_assumed_or_left_out_is_said(tmp_path, table):
    wide = table.drop(columns=["patient_id", "split"]).assign(age=50, path="x.nii", Extra=0.5)
    wide = wide.rename(columns={"study_id": "VolumeName"})
    wide["label_Hernia"] = 0
    wide.to_csv(tmp_path / "s.csv", index=False)
    notes = read_scores(tmp_path / "s.csv", id_column="VolumeName").meta["notes"]
    assert notes == [
        "1 labelled findings without scores: Hernia",
        "3 columns left out: path, age, Extra",
        "2 findings taken as probabilities: present above 0.5",
        "no column split: every study is judged as test",
        "no patient for 60 of 60 studies, each a patient of its own",
    ]


def test_labels_of_other_studies_are_counted_and_none_in_common_is_an_error(tmp_path, table):
    table.drop(columns=LABELS).to_csv(tmp_path / "s.csv", index=False)
    table.drop(columns=FINDINGS)[10:].to_csv(tmp_path / "l.csv", index=False)
    found = read_scores(tmp_path / "s.csv", labels=tmp_path / "l.csv")
    assert "10 studies without labels, 0 labelled studies without scores" in found.meta["notes"]
    assert np.isnan(found.finding_labels[:10]).all()
    table["study_id"] = table["study_id"].str.lstrip("0").replace("", "0")
    table.to_csv(tmp_path / "l.csv", index=False)
    with pytest.raises(ValueError, match="no study_id is in both: they differ by zeros"):
        read_scores(tmp_path / "s.csv", labels=tmp_path / "l.csv")


def test_thresholds_come_from_the_validation_split_never_from_test(tmp_path, table, truth, capsys):
    labels, logits = truth
    shifted = table.assign(split=["val"] * 30 + ["test"] * 30)
    shifted[FINDINGS] = logits + 3  # at zero, nearly everything is called
    shifted.to_csv(tmp_path / "s.csv", index=False)
    _, plain = evaluate(tmp_path, tmp_path / "s.csv", threshold=0)
    _, found = evaluate(tmp_path, tmp_path / "s.csv", threshold="validation", overwrite=True)
    value = [t.set_index(["label", "metric"])["value"]["macro", "f1"] for t in (plain, found)]
    assert value[1] > value[0] + 0.1
    shifted.loc[30:, FINDINGS] += 100  # test scores cannot move them
    shifted.to_csv(tmp_path / "s.csv", index=False)
    _, moved = evaluate(tmp_path, tmp_path / "s.csv", threshold="validation", overwrite=True)
    y = labels[30:, 1]
    called_all = 2 * y.sum() / (len(y) + y.sum())
    assert moved.set_index(["label", "metric"])["value"][FINDINGS[1], "f1"] == pytest.approx(
        called_all
    )
    table.to_csv(tmp_path / "s.csv", index=False)
    assert evaluate(tmp_path, tmp_path / "s.csv", threshold="validation", overwrite=True)[0] == 2
    assert "no labelled study of split val" in capsys.readouterr().err
    assert evaluate(tmp_path, tmp_path / "s.csv", threshold="high", overwrite=True)[0] == 2
    assert "--threshold high" in capsys.readouterr().err


def test_scores_without_any_labels_are_not_judged(tmp_path, table, capsys):
    table.drop(columns=LABELS).to_csv(tmp_path / "s.csv", index=False)
    assert evaluate(tmp_path, tmp_path / "s.csv") == (2, None)
    assert "nothing can be judged" in capsys.readouterr().err


def stray(t, column, value, n=1):
    return t.assign(**{column: [value] * n + list(t[column][n:])})


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.assign(Age=-3.5),  # nobody labels it
        lambda t: t.assign(fold=[-1, 2] * 30),
        lambda t: stray(t, FINDINGS[1], -1e-9),
        lambda t: stray(t, FINDINGS[0], 1.0000001),
    ],
)
def test_one_stray_column_or_digit_makes_no_logits_of_probabilities(tmp_path, table, change):
    change(table).to_csv(tmp_path / "s.csv", index=False)
    found = read_scores(tmp_path / "s.csv")
    assert found.threshold.tolist() == [0.5, 0.5]
    assert list(found.score_finding) == FINDINGS


@pytest.mark.parametrize("value", [-1, -9, -99])
def test_sentinels_among_probabilities_are_named_and_masked_on_request(tmp_path, table, value):
    stray(table, FINDINGS[1], value, 2).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(ValueError, match=rf"Lung Opacity: {value} among .*rows 2, 3"):
        read_scores(tmp_path / "s.csv")
    found = read_scores(tmp_path / "s.csv", mask_nan=True)
    assert found.threshold.tolist() == [0.5, 0.5]
    assert np.isnan(found.score[:2, 1]).all()
    assert np.isfinite(found.score[2:]).all()
    assert any("Lung Opacity" in n and "masked" in n for n in found.meta["notes"])


@pytest.mark.parametrize("value", [-0.3, 1.7, -2])
def test_a_stray_value_among_probabilities_is_named_with_its_row(tmp_path, table, value):
    stray(table, FINDINGS[1], value).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(ValueError, match=r"Lung Opacity: .*row 2: neither probabilities nor"):
        read_scores(tmp_path / "s.csv")


def test_each_column_has_its_own_threshold(tmp_path, table, truth):
    table[FINDINGS[1]] = truth[1][:, 1]
    table.to_csv(tmp_path / "s.csv", index=False)
    assert read_scores(tmp_path / "s.csv").threshold.tolist() == [0.5, 0.0]
    table[FINDINGS[0]] = truth[1][:, 0] + 10  # a logit of what is nearly always there
    table.to_csv(tmp_path / "s.csv", index=False)
    assert read_scores(tmp_path / "s.csv").threshold.tolist() == [0.0, 0.0]


def test_columns_that_only_another_file_could_label_are_left_out(tmp_path, table, capsys):
    table.to_csv(tmp_path / "a.csv", index=False)
    table.drop(columns=LABELS).assign(age=60, gap=np.nan).to_csv(tmp_path / "b.csv", index=False)
    for files in (("a.csv", "b.csv"), ("b.csv", "a.csv")):
        code, found = evaluate(tmp_path, *(tmp_path / f for f in files), overwrite=True)
        assert code == 0
        assert found.groupby(["label", "metric"])["value"].nunique().max() == 1
        assert "b: 2 columns left out: age, gap" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        (lambda i: f"{i:03d}", lambda i: str(i + 60), "zeros at the front"),  # alike from 100
        (lambda i: f"v{i}.nii.gz", lambda i: f"v{i}", "endings"),
        (lambda i: f"v{i}", lambda i: f"v{i}" + ".NPZ" * (i > 9), "endings"),
        (lambda i: f"/data/valid/v{i}", lambda i: f"v{i}", "folders"),
        (lambda i: f"d\\v{i}.dcm", lambda i: f"v{i}", "folders before the name, and its ending"),
    ],
)
def test_ids_that_are_alike_in_part_only_are_refused(tmp_path, table, ours, theirs, why):
    start = 60 if "zeros" in why else 0
    wide = table.drop(columns=LABELS).assign(study_id=[ours(i + start) for i in range(60)])
    wide.to_csv(tmp_path / "s.csv", index=False)
    beside = table.assign(study_id=[theirs(i) for i in range(60)])
    beside.to_csv(tmp_path / "l.csv", index=False)
    with pytest.raises(ValueError, match=f"study_id is in both: they differ by {why}"):
        read_scores(tmp_path / "s.csv", labels=tmp_path / "l.csv")


def test_ids_that_are_alike_in_part_only_are_refused_between_files(tmp_path, table, capsys):
    table.assign(study_id=[f"{i + 60:03d}" for i in range(60)]).to_csv(tmp_path / "a.csv")
    table.assign(study_id=[str(i + 60) for i in range(60)]).to_csv(tmp_path / "b.csv")
    code, found = evaluate(tmp_path, tmp_path / "a.csv", tmp_path / "b.csv")
    assert (code, found) == (2, None)  # nothing is left to compare
    assert (
        "20 of the first file's 60 studies are in b: they differ by zeros"
        in capsys.readouterr().err
    )


def test_a_public_csv_of_labels_is_read_with_its_other_columns(tmp_path, table, truth):
    paths = [f"CheXpert-v1.0/valid/patient{i:05d}/study1/view1_frontal.jpg" for i in range(60)]
    table.drop(columns=LABELS).assign(study_id=paths).to_csv(tmp_path / "s.csv", index=False)
    more = pd.DataFrame({"study_id": paths, "Sex": "Male", "Age": range(60), "AP/PA": ""})
    more[FINDINGS] = truth[0]
    more["Hernia"] = 1.0
    more.to_csv(tmp_path / "l.csv", index=False)
    found = read_scores(tmp_path / "s.csv", labels=tmp_path / "l.csv")
    kept = [list(found.finding).index(f) for f in FINDINGS]
    np.testing.assert_array_equal(found.finding_labels[:, kept], truth[0])
    assert "2 columns that are no labels left out: Sex, Age" in found.meta["notes"]
    both = table.drop(columns=LABELS).assign(study_id=paths, Sex="Male", Age=range(60))
    both.to_csv(tmp_path / "s.csv", index=False)
    again = read_scores(tmp_path / "s.csv", labels=tmp_path / "l.csv")
    assert list(again.score_finding) == FINDINGS
    more[FINDINGS[0]] = 7
    more.to_csv(tmp_path / "l.csv", index=False)
    with pytest.raises(ValueError, match=r"label of Pleural Effusion: 7"):
        read_scores(tmp_path / "s.csv", labels=tmp_path / "l.csv")


@pytest.mark.parametrize(
    "words", [("True", "False"), ("yes", "no"), ("TRUE", "FALSE"), (True, False)]
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_in_words_are_read(tmp_path, table, truth, words, kind):
    known = np.nan_to_num(truth[0])
    for j, name in enumerate(LABELS):
        table[name] = np.where(known[:, j] == 1, *words)
    write = dict(csv=table.to_csv, parquet=table.set_index("study_id").to_parquet)[kind]
    write(tmp_path / f"S.{kind.upper()}")
    np.testing.assert_array_equal(read_scores(tmp_path / f"S.{kind.upper()}").finding_labels, known)


@pytest.mark.parametrize("name", ["S.CSV", "s.csv.gz", "s.Parquet"])
def test_endings_in_any_case_and_splits_by_other_names(tmp_path, table, name, capsys):
    split = ["Test"] * 20 + ["VAL"] * 20 + ["validation"] * 20
    table = table.assign(split=split)
    path = tmp_path / name
    table.to_parquet(path) if "arq" in name else table.to_csv(path, index=False)
    code, found = evaluate(tmp_path, path)
    assert code == 0
    assert found.loc[found.metric == "auroc", "n_studies"].max() == 20
    assert "split: Test as test, VAL as val, validation as val" in capsys.readouterr().out
    assert evaluate(tmp_path, path, split="VAL", overwrite=True)[0] == 0


def test_blanks_about_a_findings_name_make_no_other_finding(tmp_path, table):
    long = table.melt(["study_id"], FINDINGS, "finding", "prob")
    long.loc[::7, "finding"] += " "
    long.to_csv(tmp_path / "s.csv", index=False)
    assert sorted(read_scores(tmp_path / "s.csv").score_finding) == sorted(FINDINGS)
    again = long[long["study_id"] == "0003"].assign(finding=lambda t: t["finding"] + "  ")
    pd.concat([long, again]).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(ValueError, match="study_id and finding more than once"):
        read_scores(tmp_path / "s.csv")


def test_labels_that_contradict_the_first_files_are_counted(tmp_path, table, capsys):
    table.to_csv(tmp_path / "a.csv", index=False)
    other = table.copy()
    other.loc[10:12, LABELS] = 1 - other.loc[10:12, LABELS]
    other.to_csv(tmp_path / "b.csv", index=False)
    code, found = evaluate(tmp_path, tmp_path / "a.csv", tmp_path / "b.csv")
    assert code == 0
    said = found[found["label"] == "macro"].set_index("model")["reason"]
    assert said["b"].str.contains("6 labels contradict").any()
    assert not said["a"].fillna("").str.contains("contradict").any()


@pytest.mark.parametrize("asked", ["nan", "inf", "-inf", "NaN"])
def test_thresholds_that_are_no_number_are_refused(tmp_path, table, asked, capsys):
    table.to_csv(tmp_path / "s.csv", index=False)
    path = str(tmp_path / "s.csv")
    ask = ["evaluate", path, "--out", str(tmp_path / "o"), f"--threshold={asked}"]
    assert cli.main(ask) == 2
    assert "expected a finite number, or validation" in capsys.readouterr().err
