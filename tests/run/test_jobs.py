"""Jobs of 08, 09 and 10: what they leave is kept, read, or refused with the command that makes it."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from merlin import jobs, run
from merlin.jobs import rivals
from merlin.phantom import cohort as phantoms


def write_weights(path, value, *, seconds):
    facts = {"metadata": json.dumps({"grid": {}, "seconds": seconds}), "config": "{}"}
    save_file({"a": np.full(3, value, np.float32)}, path, metadata=facts)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Of a cohort of one study, its files in a folder of their own."""
    for arm in ("main", "ehr"):
        path = tmp_path / "pretraining" / arm / "weights.safetensors"
        path.parent.mkdir(parents=True)
        write_weights(path, float(len(arm)), seconds=1)
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "manifest.csv").write_text("study_id\ns1\n")
    monkeypatch.setattr(run, "folder", lambda _: tmp_path)
    monkeypatch.setattr(jobs, "has_codes_arm", lambda _: True)
    return SimpleNamespace(
        profile="mine", main_seeds=[], fractions=[0.5], weights_2d="", n_steps=[3], n_resamples=9
    )


def keep_all(task, settings, value):
    for names in jobs.tables(task, settings).values():
        for name in names:
            jobs.keep(task, settings, name, lambda: pd.DataFrame({"a": [value]}))


@pytest.mark.parametrize("task", jobs.TASKS)
def test_a_job_that_is_called_again_keeps_what_follows_from_the_same_things(settings, task):
    keep_all(task, settings, 1)
    keep_all(task, settings, 2)
    found = jobs.read(task, settings)
    assert set(found) == {n for names in jobs.tables(task, settings).values() for n in names}
    assert all(table["a"].item() == 1 for table in found.values())


@pytest.mark.parametrize("change", ["n_steps", "weights", "study", "gone"])
def test_a_notebook_refuses_other_tables_and_names_the_command(settings, change, tmp_path):
    keep_all("segmentation", settings, 1)
    settings.n_resamples, settings.profile = 99, "copied"  # change nothing that a job makes
    write_weights(tmp_path / "pretraining" / "main" / "weights.safetensors", 4.0, seconds=2)
    jobs.read("segmentation", settings)  # trained again as they were, in other seconds
    if change == "n_steps":
        settings.n_steps = [4]
    elif change == "weights":
        write_weights(tmp_path / "pretraining" / "main" / "weights.safetensors", 0.5, seconds=1)
    elif change == "study":
        (tmp_path / "cohort" / "manifest.csv").write_text("study_id\ns2\n")
    else:
        (tmp_path / "segmentation" / "merlin-0.5.parquet").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"merlin-(curve-)?0\.5.*python -m merlin\.jobs\.segmentation"
    ):
        jobs.read("segmentation", settings)


def test_what_a_job_itself_misses_is_named_with_the_notebook_that_makes_it(settings, tmp_path):
    (tmp_path / "cohort" / "manifest.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"01_cohort\.ipynb first"):
        jobs.read("five_year", settings)


def test_an_unknown_job_is_refused_with_the_names_there_are(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["five_year", "smoke", "merlins"])
    with pytest.raises(SystemExit):
        jobs.main("five_year", lambda *_: pytest.fail("it ran"))
    assert "merlin, ehr, random" in capsys.readouterr().err
    job = []
    monkeypatch.setattr("sys.argv", ["five_year", "smoke", "ehr"])
    jobs.main("five_year", lambda settings, name: job.append((settings.profile, name)))
    assert job == [("smoke", "ehr")]


def test_a_job_of_a_further_seed_reads_that_seeds_weights(settings, tmp_path):
    settings.main_seeds = [2]
    other = tmp_path / "pretraining" / "main-2" / "weights.safetensors"
    other.parent.mkdir()
    write_weights(other, 7.0, seconds=1)
    made = jobs.tables("five_year", settings)
    assert list(made) == ["merlin", "ehr", "random", "merlin-2", "ehr-2", "random-2"]
    assert made["merlin-2"] == ["merlin-2-0.5"]
    assert made["random-2"] == ["random-2-0.5", "random-2-features"]
    assert jobs.inputs("five_year", settings, "merlin-2")[1] == other
    before = [jobs.mark("five_year", settings, job) for job in ("merlin", "merlin-2")]
    write_weights(other, 8.0, seconds=1)
    after = [jobs.mark("five_year", settings, job) for job in ("merlin", "merlin-2")]
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_rivals_are_given_organs_and_traits_once(tmp_path, monkeypatch):
    """Of a cohort of phantoms: organs are measured, and risks rise with the hazards behind them."""
    made = phantoms.make(tmp_path / "cohort", {"internal": 3}, seed=4, matrix=32, n_workers=0)
    phantoms.write(tmp_path / "cohort", made)
    monkeypatch.setattr(run, "folder", lambda _: tmp_path)
    monkeypatch.setattr(jobs, "has_codes_arm", lambda _: True)
    profile = {"tier": "phantom", "cohort_seed": 4}
    monkeypatch.setattr(run, "load_profile", lambda _: profile)
    organs, traits = (
        pd.read_parquet(rivals.make("mine", kind)).set_index("study_id")
        for kind in ("measured", "traits")
    )
    studies = made.table.set_index("study_id")
    assert set(organs.index) == set(traits.index) == set(studies.index)
    assert organs["liver volume_ml"].between(500, 4000).all()
    assert organs["liver up_mm"].between(80, 400).all()
    risks = traits.filter(like="risk ")
    assert ((risks > 0) & (risks < 1)).all(axis=None)
    monkeypatch.setattr(rivals, "measured", lambda _: pytest.fail("measured again"))
    rivals.make("mine", "measured")
    profile["tier"] = "full"
    assert pd.read_parquet(rivals.make("mine", "traits")).empty
