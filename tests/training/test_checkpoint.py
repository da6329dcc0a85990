"""Files of a run are whole or absent, and say exactly what does not fit."""

import json

import pytest
import tiny_run
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from merlin.training import checkpoint as module
from merlin.training.checkpoint import (
    load_strictly,
    load_weights,
    resume_checkpoint,
    save_checkpoint,
    save_weights,
)


def run_of(seed=7):
    """A small model one step in, and its optimiser."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def save(path, *, step=3, fingerprint="this", seed=7):
    model, optimizer = run_of(seed)
    log = [dict(step=2, loss=0.1 + 0.2)]
    save_checkpoint(
        path, model=model, optimizer=optimizer, step=step, log=log, fingerprint=fingerprint
    )
    return model, optimizer


def resume(path, *, fingerprint="this"):
    model, optimizer = run_of(seed=8)
    found = resume_checkpoint(path, model=model, optimizer=optimizer, fingerprint=fingerprint)
    return found, model, optimizer


def test_everything_comes_back(tmp_path):
    model, optimizer = save(tmp_path / "run" / "c.pt")
    expected = torch.rand(3)  # what the run would have drawn next
    (step, log, note), again, optimizer_again = resume(tmp_path / "run" / "c.pt")
    assert torch.equal(torch.rand(3), expected)
    assert (step, log, note) == (3, [dict(step=2, loss=0.1 + 0.2)], "resumed after step 3")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    state, state_again = optimizer.state_dict()["state"], optimizer_again.state_dict()["state"]
    for p, values in state.items():
        for key, value in values.items():
            assert torch.equal(state_again[p][key], value), (p, key)


def test_nothing_there_starts_at_zero(tmp_path):
    assert resume(tmp_path / "c.pt")[0] == (0, [], "starting from step 0")


def test_another_fingerprint_starts_anew_says_so_and_leaves_the_model_alone(tmp_path):
    save(tmp_path / "c.pt")
    (step, log, note), model, _ = resume(tmp_path / "c.pt", fingerprint="that")
    assert (step, log) == (0, [])
    assert "of step 3, belongs to other settings, data or code" in note
    [kept] = tmp_path.glob("c.other-run.*.pt")
    assert kept.name in note
    untouched, _ = run_of(seed=8)
    assert torch.equal(model[0].weight, untouched[0].weight)


BEFORE = ["data", 7, {"learning_rate": 0.1, "chunk": 0}]


@pytest.mark.parametrize(
    ("now", "word", "said"),
    [
        (["data", 7, {"learning_rate": 0.2, "chunk": 0}], "other-settings", "learning_rate was 0.1, is 0.2"),
        (["data", 8, BEFORE[2]], "other-settings", "seed was 7, is 8"),
        (["else", 7, BEFORE[2]], "other-data-or-code", "data or code"),
    ],
)  # fmt: skip
def test_a_training_that_does_not_fit_is_kept_each_time_and_says_what_differs(
    tmp_path, now, word, said
):
    path = tmp_path / "c.pt"
    held = []
    for step in (3, 4):
        save(path, step=step, fingerprint=str(BEFORE))
        held.append(path.read_bytes())
        (done, _, note), _, _ = resume(path, fingerprint=str(now))
        assert done == 0
        assert said in note
        assert not path.exists()
    kept = sorted(tmp_path.glob(f"c.{word}.*.pt"), key=lambda p: p.stat().st_mtime_ns)
    assert sorted(p.read_bytes() for p in kept) == sorted(held)


def test_every_process_gets_its_own_random_state_and_only_the_first_moves_files(tmp_path):
    model, optimizer = run_of()
    states, expected = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(module.random_state())
        expected.append(torch.rand(3))
    options = dict(model=model, optimizer=optimizer, fingerprint="this")
    save_checkpoint(tmp_path / "c.pt", step=3, log=[], random=states, **options)
    for rank in (1, 0):
        resume_checkpoint(tmp_path / "c.pt", rank=rank, **options)
        assert torch.equal(torch.rand(3), expected[rank])
    assert "process 2 is new" in resume_checkpoint(tmp_path / "c.pt", rank=2, **options)[2]
    other = options | dict(fingerprint="that")
    assert resume_checkpoint(tmp_path / "c.pt", rank=1, **other)[0] == 0
    assert (tmp_path / "c.pt").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b"not a checkpoint at all",
        lambda b: b[:1],
    ],
    ids=["cut in half", "empty", "text", "one byte"],
)
def test_unreadable_checkpoint_is_kept_aside_and_the_run_starts_anew(tmp_path, damage):
    path = tmp_path / "c.pt"
    save(path)
    path.write_bytes(damage(path.read_bytes()))
    damaged = path.read_bytes()
    (step, log, note), _, _ = resume(path)
    assert (step, log) == (0, [])
    assert "unreadable" in note
    [kept] = tmp_path.glob("c.unreadable.*.pt")
    assert kept.name in note
    assert not path.exists()
    assert kept.read_bytes() == damaged


def test_failed_write_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    save(tmp_path / "c.pt")
    before = (tmp_path / "c.pt").read_bytes()

    def disk_full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.torch, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "c.pt", step=4)
    assert (tmp_path / "c.pt").read_bytes() == before


def test_failed_write_leaves_no_half_file_behind(tmp_path, monkeypatch):
    def disk_full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.torch, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "c.pt")
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_runs_no_code_when_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save(dict(fingerprint="this", model=Evil()), tmp_path / "c.pt")
    try:
        resume(tmp_path / "c.pt")
    except Exception as error:  # noqa: BLE001  how it refuses is the test above
        print(type(error))
    assert not (tmp_path / "ran").exists()


def test_weights_rebuild_the_model(tmp_path):
    model = tiny_run.model().eval()
    metadata = dict(phecodes=["008.5", "250.2"], seed=7)
    save_weights(tmp_path / "run" / "w.safetensors", model, metadata)
    found, found_metadata = load_weights(tmp_path / "run" / "w.safetensors")
    assert found_metadata == metadata
    assert not found.training
    assert found.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key
    volume = torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        assert torch.equal(found.embed_volumes(volume)[0], model.embed_volumes(volume)[0])
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["w.safetensors"]


def test_weights_file_states_its_configuration(tmp_path):
    save_weights(tmp_path / "w.safetensors", tiny_run.model(), {})
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
    assert config["image"]["depth"] == 14
    assert config["grid_shape"] == [16, 16, 16]


def test_weights_of_others_are_refused_with_what_was_expected(tmp_path):
    save_file(dict(x=torch.zeros(1)), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors: no model configuration.*save_weights"):
        load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("facts", ["null", "[1]", '"x"', "3"])
def test_facts_that_are_no_keys_and_values_are_refused(tmp_path, facts):
    header = {"config": "{}", "metadata": facts}
    save_file(dict(x=torch.zeros(1)), tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(ValueError, match=r"w\.safetensors: its header makes no model"):
        module.read_facts(tmp_path / "w.safetensors")


def test_what_a_header_says_it_is_steers_no_terminal(tmp_path):
    said = {"kind": json.dumps("\x1b[2Ja model"), "config": "{}"}
    save_file(dict(x=torch.zeros(1)), tmp_path / "w.safetensors", metadata=said)
    for read in (load_weights, lambda path: module.load_tensors(path, "a five-year model")):
        with pytest.raises(ValueError, match="a model") as caught:
            read(tmp_path / "w.safetensors")
        assert str(caught.value).isprintable()


def test_strict_load_lists_missing_unexpected_and_misshapen():
    model = torch.nn.Linear(3, 4)
    before = model.weight.clone()
    tensors = dict(weight=torch.zeros(4, 2), extra=torch.zeros(1))
    with pytest.raises(ValueError, match="w: 3 tensors do not fit") as caught:
        load_strictly(model, tensors, name="w")
    assert {line.strip() for line in str(caught.value).splitlines()[1:]} == {
        "bias: missing",
        "extra: unexpected",
        "weight: shape (4, 2), expected (4, 3)",
    }
    assert torch.equal(model.weight, before)


def test_strict_load_shows_twenty_and_counts_the_rest():
    tensors = {f"x{i}": torch.zeros(1) for i in range(25)} | torch.nn.Linear(1, 1).state_dict()
    with pytest.raises(ValueError, match="25 tensors do not fit") as caught:
        load_strictly(torch.nn.Linear(1, 1), tensors, name="w")
    assert str(caught.value).count("unexpected") == 20
    assert "and 5 more" in str(caught.value)
