"""What a notebook loads in one line: by arm, and the notebook to run where a file is not there."""

from types import SimpleNamespace

import numpy as np
import pytest

from merlin import inputs, run
from merlin.embeddings import Embeddings, save_embeddings

SETTINGS = SimpleNamespace(profile="smoke")


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "folder", lambda profile: tmp_path)
    return tmp_path


def write(base, name, *, studies=("a", "b")):
    ids = np.array(studies)
    image = np.eye(2, dtype=np.float32)
    split = np.array(["test", "test"])
    e = Embeddings(
        study_id=ids, patient_id=ids, site=split, split=split, image=image, meta={"tier": "phantom"}
    )
    (base / "embeddings").mkdir(exist_ok=True)
    save_embeddings(base / "embeddings" / f"{name}.npz", e)


def test_a_missing_arm_names_the_notebook_that_makes_it(base):
    write(base, "main")
    with pytest.raises(FileNotFoundError, match=r"Run notebooks/03_embeddings\.ipynb first"):
        inputs.arms(SETTINGS)


def test_arms_of_other_studies_are_refused_by_name(base):
    for name in ("main", "ehr", "slices"):
        write(base, name)
    write(base, "tenth", studies=("a", "c"))
    with pytest.raises(ValueError, match="tenth: other studies"):
        inputs.arms(SETTINGS)


def test_an_arm_can_be_left_out_and_the_footer_says_what_the_studies_are(base):
    for name in ("main", "tenth", "slices"):
        write(base, name)
    files, arms = inputs.arms(SETTINGS, but="ehr")
    assert list(files) == list(arms) == ["main", "tenth", "slices"]
    settings = SimpleNamespace(profile="smoke", tier="embeddings")
    said = inputs.footer(settings, arms["main"], np.arange(2))
    assert said["n"] == {"test studies, patients unknown": 2}
    assert "synthetic" in said["tier_note"]
