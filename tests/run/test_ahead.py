"""What a full-tier profile lacks is told before anything runs, all at once."""

from pathlib import Path

import pytest

from merlin import run
from merlin.run import ahead
from merlin.run.__main__ import main


def test_paper_without_2d_weights_is_a_question(capsys):
    said = ahead.problems(run.load_profile("paper"))
    assert "set from_random: true" in said[-1]
    assert said[:-1] == [
        "02_pretraining.text_folder: nothing at clinical_longformer. Mend the path in the profile."
    ]
    assert main(["check", "paper"]) == 2
    assert "weights_2d" in capsys.readouterr().err
    values = run.load_profile("paper")
    values["02_pretraining"] |= dict(from_random=True, text="small")
    assert ahead.problems(values) == []


def test_all_paths_that_are_not_there_are_told_at_once(tmp_path):
    values = run.load_profile("paper")
    values["02_pretraining"] |= dict(
        weights_2d=str(tmp_path / "r.safetensors"), text_folder="no/such"
    )
    said = ahead.problems(values)
    keys = sorted(s.split(":")[0] for s in said)
    assert keys == ["02_pretraining.text_folder", "02_pretraining.weights_2d"]
    (tmp_path / "r.safetensors").write_bytes(b"")
    assert len(ahead.problems(values)) == 1
    values["02_pretraining"]["text_folder"] = "hub:yikuan8/Clinical-Longformer@abc"
    assert ahead.problems(values) == []


@pytest.mark.parametrize("name", ["default", "smoke", "full", "embeddings", "verse"])
def test_other_profiles_lack_nothing(name):
    assert ahead.problems(run.load_profile(name)) == []


def test_the_machine_stands_beside_what_is_expected(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead.places, "folder", lambda _: Path(tmp_path))
    monkeypatch.setattr(ahead.shutil, "which", lambda _: None)
    said = ahead.machine(run.load_profile("paper"))
    assert "GPU             none found" in said
    assert "64" in said
    assert "333.3 expected" in said
