"""External sites are those that the manifest names, whatever it calls them."""

import numpy as np
import pandas as pd
import pytest

from merlin.data.manifest import ManifestError, at_home, load_manifest
from merlin.embeddings import Embeddings, load_embeddings, save_embeddings
from merlin.evaluation import by_arm, by_site, readings
from merlin.figures import off_shelf, zero_shot

NAMED = ["internal", "Universitätsklinik Süd", "Больница №3"]
FINDINGS = np.array(["ascites", "fracture"])


def embedded(sites, n=12):
    """Some test studies a site, in a space of 4, with prompts and labels of two findings."""
    rng = np.random.default_rng(7)
    total = n * len(sites)

    def unit(*shape):
        x = rng.normal(size=shape).astype(np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    ids = np.array([f"s{i}" for i in range(total)])
    return Embeddings(
        study_id=ids, patient_id=ids, site=np.repeat(sites, n), split=np.full(total, "test"),
        image=unit(total, 4), findings=unit(total, 4), phecode=np.array(["250"]),
        phecode_logits=rng.normal(size=(total, 1)).astype(np.float32),
        phecode_labels=(np.arange(total) % 2).astype(np.float32)[:, None],
        prompt=np.array(["a", "b", "c", "d"]), prompt_finding=np.repeat(FINDINGS, 2),
        prompt_kind=np.array(["present", "absent"] * 2), prompt_wording=np.full(4, "reported"),
        prompt_embedding=unit(4, 4), finding=FINDINGS,
        finding_labels=np.stack([np.arange(total) % 2, np.arange(total) % 3 == 0], 1).astype(float),
    )  # fmt: skip


def test_tables_and_figures_follow_the_names_of_a_real_cohort():
    main = embedded(NAMED)
    found = by_site.sites(main)
    assert list(found) == ["internal", "Universitätsklinik Süd", "Больница №3"]
    how = dict(n_resamples=20, seed=1)
    results = by_site.judge(main, found, min_positive=2, pools=[4], **how)
    drop = by_site.drop(main, found, **how)
    spine = by_site.spine(main, main.rows(site="spine"), **how)
    assert set(results["site"]) == set(NAMED)
    assert set(drop["site"]) == set(NAMED[1:])
    assert set(spine["status"]) == {"not evaluated"}
    said = readings.elsewhere(drop, spine)
    assert "Universitätsklinik Süd: " in said
    assert "Spines were not evaluated: no series called spine." in said
    shown = pd.concat([by_site.tasks(results, 4), spine], ignore_index=True)
    facts = {"order": by_site.easiest_first(results)}
    figure = off_shelf.draw_external({"": shown, "drop": drop}, facts)
    assert set(NAMED) <= _legends(figure)


def _legends(figure):
    legends = [ax.get_legend() for ax in figure.axes]
    return {t.get_text() for legend in legends if legend for t in legend.get_texts()}


def test_zero_shot_takes_the_manifests_sites_and_draws_their_names():
    main = embedded(NAMED)
    options = dict(n_resamples=20, n_draws=2, seed=1)
    tables = by_arm.findings_elsewhere(
        main, by_site.others(main), scoring="mean_similarity", **options
    )
    models = [t["model"].iloc[0] for t in tables]
    assert models == ["main, Universitätsklinik Süd", "main, Больница №3"]
    looks = zero_shot._looks(pd.concat(tables))
    assert [looks[m].label for m in models] == [f"external {n}" for n in NAMED[1:]]
    phantom = zero_shot._looks(pd.DataFrame({"model": ["main, site_b"]}))
    assert phantom["main, site_b"].label == "external site B"


def test_one_site_alone_is_told_what_is_expected():
    assert (
        by_site.others(embedded(["Zürich", "Genf"])) == []
    )  # none was trained on: judged together
    for sites in (["internal"], ["Zürich", "Genf"]):
        with pytest.raises(
            ValueError, match="expected test studies of site internal and of another"
        ):
            by_site.sites(embedded(sites))


def test_studies_without_a_site_are_the_training_sites(tmp_path):
    table = pd.DataFrame(
        dict(study_id=["a", "b", "c"], patient_id=["a", "b", "c"], split="test", volume="v.nii.gz",
             site=["", " Zu\u0308rich ", "Zürich"])
    )  # fmt: skip
    table.to_csv(tmp_path / "m.csv", index=False)
    read = load_manifest(tmp_path / "m.csv", check_files=False)
    assert read["site"].tolist() == ["internal", "Zürich", "Zürich"]
    assert at_home(read)["study_id"].tolist() == ["a"]
    with pytest.raises(ManifestError, match="no study of site internal, found Zürich"):
        at_home(read[1:])
    save_embeddings(tmp_path / "e.npz", embedded(["", "Zürich"]))
    found = load_embeddings(tmp_path / "e.npz")
    assert list(by_site.sites(found)) == ["internal", "Zürich"]
    assert any(note.startswith("site: empty for 12 of 24") for note in found.meta["notes"])
