"""Links and files that lie where ours are to be written: nothing behind them is touched."""

import numpy as np
import pandas as pd
import pytest

from merlin.cli import main
from merlin.commands import scans as own_scans
from merlin.evaluation.scores import read_scores
from merlin.files import atomic, atomic_path
from merlin.training import checkpoint


@pytest.fixture
def precious(tmp_path):
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    yield folder
    assert (folder / "thesis.txt").read_text() == "years"


def test_a_file_takes_the_place_of_a_link_and_not_of_what_it_leads_to(tmp_path, precious):
    link = tmp_path / "out.csv"
    link.symlink_to(precious / "thesis.txt")
    with atomic(link) as stream:
        stream.write("new")
    assert not link.is_symlink()


def test_what_ends_early_leaves_nothing(tmp_path):
    def broken():
        with atomic_path(tmp_path / "out.csv") as part:
            part.write_text("half")
            assert part.suffix == ".csv"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["findings", "embed"])
def test_what_lies_at_the_place_of_unfinished_work_is_left_alone(
    tmp_path, precious, monkeypatch, command
):
    out = tmp_path / ("out" if command == "findings" else "out.npz")
    kept = out / ".unfinished" if command == "findings" else tmp_path / ".unfinished-out.npz"
    kept.parent.mkdir(exist_ok=True)
    kept.symlink_to(precious)
    shape = dict(spacing_mm=[1, 1, 1], shape=[8, 8, 8], hu_window=[0, 1])
    facts = dict(grid=shape, tier="full", profile="p")
    (tmp_path / "w").touch()
    monkeypatch.setattr(own_scans, "load_weights", lambda path: (None, facts))
    monkeypatch.setattr(own_scans, "find_scans", lambda paths: ([], []))
    with pytest.raises(FileExistsError, match="Move it away"):
        own_scans.run(command, [], out, tmp_path / "w", assume_hu=False, overwrite=False)
    kept.unlink()
    kept.mkdir()
    (kept / "notes.txt").write_text("mine")
    (kept / f"{'0' * 16}.npz").write_bytes(b"")
    own_scans.run(command, [], out, tmp_path / "w", assume_hu=False, overwrite=False)
    assert [p.name for p in kept.iterdir()] == ["notes.txt"]


def test_hospital_does_not_write_through_a_link(tmp_path, precious, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "UNFINISHED").symlink_to(precious / "thesis.txt")
    pd.DataFrame({"accession": ["1"], "findings": ["x"], "impression": [""]}).to_csv(
        tmp_path / "r.csv", index=False
    )
    ask = ["hospital", str(precious), "--reports", str(tmp_path / "r.csv"), "--out", str(out)]
    assert main([*ask, "--key", str(tmp_path / "key")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_weights_take_no_link_of_somebody_for_their_text_encoder(tmp_path, precious):
    theirs = tmp_path / "models" / "precious"
    theirs.mkdir(parents=True)
    (tmp_path / "out").mkdir()
    link = tmp_path / "out" / "precious"
    link.symlink_to(precious)
    with pytest.raises(FileExistsError, match="something else than the text encoder's folder"):
        checkpoint.link_text_folder(tmp_path / "out" / "w.safetensors", theirs)
    assert link.resolve() == precious
    checkpoint.link_text_folder(tmp_path / "out" / "w.safetensors", precious)


def test_scores_that_would_be_a_square_of_blanks_are_refused(tmp_path):
    """Each row of a study and a finding of its own: rows × rows cells once it is widened."""
    n = 5_000
    table = pd.DataFrame({"study_id": [f"s{i}" for i in range(n)], "finding": [f"f{i}" for i in range(n)],
                          "prob": np.full(n, 0.5), "label": 1})  # fmt: skip
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match="25,000,000 cells, nearly all empty"):
        read_scores(tmp_path / "t.csv")
