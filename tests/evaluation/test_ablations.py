"""Sweeps compared pairwise, claims judged by intervals, choices of protocol, and the ledger."""

import numpy as np
import pandas as pd
import pytest
import yaml
from test_off_shelf import make

from merlin import run
from merlin.evaluation import ablations, claims, sensitivity

OPTIONS = dict(split="test", pool=8, min_positive=5, n_resamples=60, seed=1)


@pytest.fixture(scope="module")
def judged():
    files = {}
    for seed in (1, 2):
        files["reference", seed] = make(seed, noise=0.3)
        files["worse", seed] = make(seed, noise=2.0)
        files["codes_only", seed] = make(seed, noise=0.3)
        files["reports_only", seed] = make(seed, noise=0.3)
    return ablations.evaluate(
        files, text_of={"codes_only": "none"}, no_codes=["reports_only"], **OPTIONS
    )


def test_differences_are_paired_by_seed_and_patients(judged):
    patients = make(1).patient_id
    table = ablations.compare(judged, patients)
    row = table[(table["label"] == "worse") & (table["metric"] == "recall@1 of 8")]
    row = row[row["kind"] == "difference"].iloc[0]
    gap = [
        judged["worse", s]["recall@1 of 8"] - judged["reference", s]["recall@1 of 8"]
        for s in (1, 2)
    ]
    assert row["value"] == pytest.approx(np.mean(gap, axis=0)[0])
    low, high = np.quantile(np.mean(gap, axis=0)[1:], [0.025, 0.975])
    assert row["low"] < low  # the seeds' luck comes on top of the patients'
    assert row["high"] > high
    assert row["se_patients"] == pytest.approx(np.std(np.mean(gap, axis=0)[1:], ddof=1))
    assert [float(v) for v in row["by_seed"].split()] == pytest.approx(
        [g[0] for g in gap], abs=1e-6
    )
    assert row["n_patients"] == 40
    assert row["n_seeds"] == 2


def test_arm_without_reports_has_a_reason_and_no_number(judged):
    table = ablations.compare(judged, make(1).patient_id)
    part = table[(table["label"] == "codes_only") & (table["metric"] == "zero-shot F1")]
    assert (part["status"] == "not evaluated").all()
    assert part["value"].isna().all()
    assert (part["reason"] == "this side was not trained").all()
    untrained = table[(table["label"] == "reports_only") & (table["metric"] == "phenotype AUROC")]
    assert (untrained["status"] == "not evaluated").all()
    phenotypes = table[(table["label"] == "codes_only") & (table["metric"] == "phenotype AUROC")]
    assert (phenotypes["status"] == "ok").all()


def direction(arm="worse", sign=-1, **changes):
    metric = "recall@1 of 8"
    row = dict(table="ablations", label="reference", metric=metric, kind="value")
    plain = dict(table="ablations", label=arm, metric=metric, kind="difference", sign=sign)
    return plain | dict(reference=row, no_skill=1 / 8, fair={"same": "all but the noise"}) | changes


def asked(*directions):
    return [dict(claim=f"claim {i}", direction=[d]) for i, d in enumerate(directions)]


def test_verdicts_follow_the_interval_and_the_expected_sign(judged):
    table = ablations.compare(judged, make(1).patient_id)
    entries = asked(direction(), direction(sign=1), direction("absent"))
    found = ablations.verdicts(table, entries)
    assert found["verdict"].tolist() == ["holds here", "contradicted here", "not run"]
    row = table[(table["label"] == "worse") & (table["kind"] == "difference")]
    row = row[row["metric"] == "recall@1 of 8"].iloc[0]
    assert found.loc[0, "value"] == pytest.approx(row["value"], abs=1e-6)
    assert found.loc[0, "n_seeds"] == 2


def test_a_claim_is_asked_only_of_a_reference_that_knows_something_and_a_fair_rival(judged):
    table = ablations.compare(judged, make(1).patient_id)
    blind = direction(no_skill=0.999)
    unfair = direction(fair={"unfair": "a fifth of the steps"})
    no_curve = direction(fair={"flat": dict(table="curves", model="worse")})
    profile = dict(
        arms={"reference": {}, "worse": {"n_steps": 5}}, sweep=dict(base={}, arms={}),
        **{"02_pretraining": dict(n_steps=9, batch_size=2)},
    )  # fmt: skip
    unequal = direction(fair={"steps": ["worse", "reference"]})
    entries = asked(direction(), blind, unfair, no_curve, unequal)
    found = ablations.verdicts(table, entries, profile=profile)
    assert found["verdict"].tolist() == ["holds here", *["not askable here"] * 4]
    for row, said in zip(
        range(1, 5),
        ("no skill", "a fifth of the steps", "curve was not drawn", "5 of 2"),
        strict=True,
    ):
        assert said in found.loc[row, "reason"]
    assert np.isnan(found.loc[1, "p_adjusted"])


def test_one_seed_decides_nothing(judged):
    one = {key: found for key, found in judged.items() if key[1] == 1}
    table = ablations.compare(one, make(1).patient_id)
    found = ablations.verdicts(table, asked(direction()))
    assert found["verdict"].tolist() == ["not decided here"]
    assert found["reason"].tolist() == ["one run decides nothing"]


def test_an_arm_may_have_a_reference_of_its_own(judged):
    table = ablations.compare(judged, make(1).patient_id, references={"codes_only": "worse"})
    gaps = table[(table["kind"] == "difference") & (table["metric"] == "phenotype AUROC")]
    assert gaps.set_index("label")["reference"].to_dict() == {
        "worse": "reference", "codes_only": "worse", "reports_only": "reference",
    }  # fmt: skip


# Protocol sensitivity


def test_default_protocol_is_the_evaluations_own_and_alternatives_stand_beside_it():
    from merlin.evaluation import zero_shot

    e = make(1, noise=1.0)
    test, val = np.arange(60), np.arange(60, 80)
    e.finding_labels[:10] = np.nan
    table = sensitivity.findings(e, test, val, n_resamples=50, n_draws=3, seed=1)
    scores = zero_shot.score_file(e, test, wording="reported")
    own, _ = zero_shot.evaluate(
        scores, e.finding_labels[test].astype(float), e.patient_id[test], model="m", split="test",
        n_resamples=50, seed=1,
    )  # fmt: skip
    macro = own[(own["label"] == "macro") & (own["metric"] == "f1")].iloc[0]
    assert table.iloc[0][["value", "low", "high"]].tolist() == pytest.approx(
        macro[["value", "low", "high"]].tolist()
    )
    by_option = table.set_index(["factor", "option"])["value"]
    assert by_option["missing labels", "negative"] != by_option["missing labels", "masked"]
    assert by_option["threshold", "from test (wrong)"] >= by_option["threshold", "from validation"]
    assert (table.groupby("factor")["is_default"].sum() == 1).all()
    gap = table[(table["status"] == "ok") & (table["factor"] != "resampled unit")]
    np.testing.assert_allclose(gap["gap"], gap["value"] - gap["value"].iloc[0], atol=1e-12)
    assert (gap.loc[gap["is_default"], ["gap", "gap_low", "gap_high"]] == 0).all(axis=None)


def test_retrieval_choices_move_recall_the_way_they_must():
    e = make(1, noise=2.0)
    e.text_group[1::2] = e.text_group[::2]  # reports equal by pairs
    test = np.arange(80)
    table = sensitivity.retrieved(
        e, test, pools=(8, 32, 500), headline=32, n_resamples=50, n_draws=4, seed=1
    )
    value = table.set_index(["factor", "option"])["value"]
    assert value["pool size", "8"] > value["pool size", "32"]
    assert ("pool size", "500") not in value.index
    assert value["equal reports", "credited"] >= value["equal reports", "counted wrong"]
    assert value["last, partial pool", "counted"] > value["last, partial pool", "left out"]
    small = sensitivity.retrieved(
        e, test, pools=(8,), headline=500, n_resamples=9, n_draws=2, seed=1
    )
    assert small["status"].tolist() == ["not evaluated"]
    assert "larger than the 80 studies" in small["reason"][0]
    own = sensitivity.retrieved(e, test, pools=(8,), headline=16, n_resamples=9, n_draws=2, seed=1)
    assert "16" in own.loc[own["factor"] == "pool size", "option"].tolist()


# Ledger


def entry(**changes):
    plain = dict.fromkeys(claims.KEYS) | dict(
        id="a", family="f", claim="c", value=0.7, source="s", reliability="secondary", tier="full",
        tolerance=0.02, result=dict(table="t", label="macro", metric="f1"), direction=[],
    )  # fmt: skip
    return plain | changes


TABLES = {
    "t": pd.DataFrame(
        dict(
            label=["macro", "x"],
            metric=["f1", "f1"],
            value=[0.71, 0.2],
            low=0.1,
            high=0.9,
            status="ok",
        )
    ),
    "gaps": pd.DataFrame(
        {
            "merlin minus": ["scratch"],
            "fraction": [0.1],
            "value": [0.2],
            "low": [0.1],
            "high": [0.3],
        }
    ),
}


GAP = {"table": "gaps", "merlin minus": "scratch", "fraction": 0.1, "sign": 1}
GAP |= dict(reference=dict(table="t", label="macro"), no_skill=0.0, fair={"same": "all"})


def test_phantoms_never_reproduce_a_number():
    table = claims.ledger([entry(), entry(direction=[GAP])], TABLES, tier="phantom")
    assert table["status"].tolist() == ["not run (needs the full tier)", "not decided here"]
    assert table["reason"].tolist() == ["", "one run decides nothing"]
    assert table["ours"].isna().all()
    assert not table["status"].str.contains("reproduced").any()


def test_a_claim_that_two_comparisons_answer_has_both_with_their_tables():
    """Of an interval over patients and seeds its width decides; the ledger says which files it read."""
    seeds = TABLES | {"gaps": TABLES["gaps"].assign(n_seeds=3)}
    both = entry(direction=[GAP, GAP | dict(sign=-1)])
    table = claims.ledger([both], seeds, tier="phantom", hashes={"gaps": "f" * 64, "t": "0" * 64})
    assert table["status"].tolist() == ["holds here", "contradicted here"]
    assert table["tables"].tolist() == [f"gaps:{'f' * 12} t:{'0' * 12}"] * 2
    assert "merlin minus scratch, fraction 0.1; expected above 0" in table["direction"][0]
    assert table["arms"].tolist() == ["merlin − scratch"] * 2
    assert table["n_seeds"].tolist() == [3, 3]
    assert claims.arms({"label": "worse", "reference": "reference"}) == "worse − reference"
    assert claims.arms({"ours": "merlin", "other": "ehr", "label": "x"}) == "merlin − ehr"
    assert claims.arms({"label": "zero-shot AUROC", "reference": np.nan}) == ""
    lost = claims.ledger([entry(direction=[GAP | {"arm": "x"}])], seeds, tier="phantom")
    assert lost["status"].tolist() == ["not run"]
    assert "no column 'arm'" in lost["reason"][0]


@pytest.mark.parametrize(
    ("published", "tolerance", "said"),
    [(0.7, 0.02, "not decided"), (0.5, 0.5, "reproduced"), (0.95, 0.02, "differs")],
)
def test_full_tier_compares_the_interval_with_the_tolerance(published, tolerance, said):
    """Ours is 0.71 [0.1, 0.9]: its point near the value proves nothing."""
    gone = entry(id="c", result=dict(table="missing", label="macro"))
    near = entry(value=published, tolerance=tolerance)
    table = claims.ledger([near, gone], TABLES, tier="full")
    assert table["status"].tolist() == [said, "not run (needs the full tier)"]
    assert table.loc[0, ["ours", "ours_low", "ours_high"]].tolist() == [0.71, 0.1, 0.9]


def test_ledger_names_every_bad_entry(tmp_path):
    path = tmp_path / "claims.yaml"
    bad = [
        entry(reliability="memory"),
        entry(reliability="rumour", source=None, value=1.0, direction={"table": "t", "sign": 1}),
        {"id": "x"},
    ]
    path.write_text(yaml.safe_dump(bad))
    with pytest.raises(claims.LedgerError) as caught:
        claims.read_claims(path)
    for text in (
        "from memory",
        "occurs twice",
        "rumour",
        "needs a source",
        "entry 3",
        "missing keys",
        "direction has no fair",
    ):
        assert text in str(caught.value)


def test_selection_must_be_one_row():
    with pytest.raises(claims.LedgerError, match="2 rows match"):
        claims.select(TABLES, dict(table="t", metric="f1"))
    with pytest.raises(claims.LedgerError, match="no column"):
        claims.select(TABLES, dict(table="t", arm="x"))


def test_our_ledger_is_sound_and_covers_every_family_and_figure():
    entries = claims.read_claims(run.ROOT / "data_manifests" / "claims.yaml")
    families = {e["family"] for e in entries}
    assert {
        "zero-shot findings", "phenotypes", "retrieval", "five-year prediction",
        "report generation", "segmentation", "external", "ablations", "scaling",
    } <= families  # fmt: skip
    figures = {str(e["figure"]) for e in entries}
    for number in "123456789":
        assert any(f.startswith(number) for f in figures), number
    notebooks = {e["notebook"] for e in entries} - {None}
    assert all((run.NOTEBOOKS / f"{n}.ipynb").is_file() for n in notebooks)


@pytest.mark.parametrize(("name", "n_pairs"), [("default", 7), ("deep", 8)])
def test_arms_of_design_claims_have_equal_steps(name, n_pairs):
    """What `fair: steps` promises of a profile's sweep; of other arms the ledger says it."""
    profile = run.load_profile(name)
    entries = claims.read_claims()
    fair = [d["fair"]["steps"] for e in entries for d in e["direction"] if "steps" in d["fair"]]
    of_sweep = [pair for pair in fair if set(pair) <= set(profile["sweep"]["arms"])]
    assert len(of_sweep) >= n_pairs
    for one, other in of_sweep:
        assert claims.steps_of(profile, one) == claims.steps_of(profile, other), (one, other)


def test_another_network_trains_at_rates_of_its_own_and_is_asked_nothing_yet():
    """The residual network's rates are not lent; those chosen lie at the edge of what validation tried."""
    rival = set()
    for name in ("default", "deep"):
        profile = run.load_profile(name)
        base = profile["02_pretraining"]["network"]
        arms = {a: c or {} for a, c in profile["sweep"]["arms"].items()}
        other = {a for a, c in arms.items() if c.get("network", base) != base}
        assert all({"learning_rate", "muon_learning_rate"} & set(arms[a]) for a in other), name
        rival |= other
    assert rival == {"convnext", "swin"}
    directions = [
        d for e in claims.read_claims() for d in e["direction"] if d.get("label") in rival
    ]
    assert {d["label"] for d in directions} == rival
    known = dict(
        label="reference", metric="phenotype AUROC", kind="value", value=0.9, low=0.88, high=0.92
    )
    gaps = [
        dict(d, value=-0.1, low=-0.11, high=-0.09, by_seed="-0.1 -0.1 -0.11") for d in directions
    ]
    table = pd.DataFrame([known, *gaps])[[*known, "by_seed"]]
    found = claims.judged(directions, {"ablations": table}, profile=run.load_profile("default"))
    assert {f["status"] for f in found} == {"not askable here"}
    assert all("edge of those tried" in f["reason"] for f in found)


def test_differences_that_are_all_above_zero_are_no_shares():
    """Log odds of a gap would bend its interval towards zero."""
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 2, 300))
    values = {("reference", s): {"recall@1 of 64": 0.60 + noise[0, s]} for s in range(2)}
    values |= {("better", s): {"recall@1 of 64": 0.80 + noise[1, s]} for s in range(2)}
    table = ablations.compare(values, np.arange(50)).set_index(["label", "kind"])
    gap, value = table.loc[("better", "difference")], table.loc[("better", "value")]
    assert (gap["method"], value["method"]) == ("t", "t of log odds")
    assert gap["metric"] == "recall@1 of 64"
    assert gap["high"] - gap["value"] == pytest.approx(gap["value"] - gap["low"])
