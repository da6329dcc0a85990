"""The loop: seeded, resumable after a kill to the last bit, and honest when it diverges."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_run
import torch

from merlin.model.two_towers import MAX_LOGIT_SCALE
from merlin.training import loop, optimizers, validation
from merlin.training.losses import contrastive_loss
from merlin.training.texts import embed_texts, report_losses


@pytest.fixture(autouse=True, scope="module")
def threads():
    """`tiny_run.train` sets torch to one thread; put it back for the other tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return tiny_run.train(tmp_path_factory.mktemp("whole") / "c.pt")


def assert_same_run(found, expected):
    """Weights, buffers and every logged number but the seconds are bit-identical."""
    (weights, log), (expected_weights, expected_log) = found, expected
    different = [k for k, v in expected_weights.items() if not torch.equal(weights[k], v)]
    assert different == []
    for row, expected_row in zip(log, expected_log, strict=True):
        assert row | dict(seconds=0) == expected_row | dict(seconds=0)


def test_same_seed_gives_the_same_run_to_the_last_bit(tmp_path, uninterrupted):
    torch.manual_seed(99)  # what the process drew before must not matter
    assert_same_run(tiny_run.train(tmp_path / "c.pt"), uninterrupted)


def test_another_seed_gives_another_run(tmp_path, uninterrupted):
    weights, _ = tiny_run.train(tmp_path / "c.pt", seed=8)
    assert any(not torch.equal(weights[k], v) for k, v in uninterrupted[0].items())


def test_saving_more_often_changes_nothing(tmp_path, uninterrupted):
    assert_same_run(tiny_run.train(tmp_path / "c.pt", save_every=5), uninterrupted)


@pytest.fixture
def starter():
    """A process that starts runs; see `tiny_run`."""
    command = [sys.executable, tiny_run.__file__]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with subprocess.Popen(command, text=True, **pipes) as process:
        yield process
        process.kill()


def is_running(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def kill_after_first_checkpoint(starter, path, save_every, *, seconds=0.4):
    """Train in a process and kill it without warning once its checkpoint has changed."""
    before = path.stat().st_mtime_ns if path.exists() else None
    print(json.dumps([str(path), save_every, seconds]), file=starter.stdin, flush=True)
    number = int(starter.stdout.readline())
    try:
        deadline = time.monotonic() + 600
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert is_running(number), "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert is_running(number), "the run ended before it could be killed"
    finally:
        if is_running(number):
            os.kill(number, signal.SIGKILL)
        while is_running(number):
            time.sleep(0.005)
    return torch.load(path, weights_only=True)["step"]


@pytest.mark.slow
def test_killed_and_resumed_runs_are_bit_identical_to_one_never_killed(
    tmp_path, uninterrupted, starter
):
    """One run killed twice, one killed later; both resumed here to the end."""
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    early = kill_after_first_checkpoint(starter, first, save_every=1)
    late = kill_after_first_checkpoint(starter, first, save_every=3)
    assert 0 < early < late < tiny_run.N_STEPS
    assert kill_after_first_checkpoint(starter, second, save_every=7) == 7
    for path in (first, second):
        assert_same_run(tiny_run.train(path), uninterrupted)


class BrokenRead(Exception):
    pass


def stopping_after(n_steps):
    """Studies that can't be read any more after some steps of four volumes."""
    data, left = tiny_run.studies(), iter(range(4 * n_steps))

    def volume(i):
        if next(left, None) is None:
            raise BrokenRead
        return data.volumes(i)

    return tiny_run.Studies(**(vars(data) | dict(volumes=volume)))


@pytest.mark.parametrize("stop", [1, 4, 5, 11])
def test_run_stopped_by_a_failing_read_resumes_bit_identically(tmp_path, uninterrupted, stop):
    """Like a kill, at a chosen step and within one process."""
    with pytest.raises(BrokenRead):
        tiny_run.train(tmp_path / "c.pt", data=stopping_after(stop), save_every=1)
    assert torch.load(tmp_path / "c.pt", weights_only=True)["step"] == stop
    assert_same_run(tiny_run.train(tmp_path / "c.pt", save_every=1), uninterrupted)


@pytest.mark.parametrize("kind", ["small", "sentences"])
def test_muon_and_sentences_resume_bit_identically(tmp_path, monkeypatch, kind):
    """Momenta, turns that are kept, both temperatures and the vectors' centre are state as well."""
    monkeypatch.setattr(optimizers, "LARGE", 8)
    options = dict(optimizer="muon", sentence_weight=1.0, n_steps=6, save_every=1)
    whole = tiny_run.train(tmp_path / "whole.pt", tiny_run.model(kind=kind), **options)
    data = stopping_after(3)
    with pytest.raises(BrokenRead):
        tiny_run.train(tmp_path / "c.pt", tiny_run.model(kind=kind), data=data, **options)
    found = tiny_run.train(tmp_path / "c.pt", tiny_run.model(kind=kind), **options)
    assert_same_run(found, whole)
    assert whole[0]["encode_text.centre" if kind == "sentences" else "logit_scale"].any()


def test_finished_run_is_returned_without_another_step(tmp_path, uninterrupted):
    tiny_run.train(tmp_path / "c.pt")
    broken = tiny_run.Studies(**(vars(tiny_run.studies()) | dict(volumes=None)))
    assert_same_run(tiny_run.train(tmp_path / "c.pt", data=broken), uninterrupted)


@pytest.mark.parametrize(
    "change", [dict(learning_rate=1e-3), dict(fingerprint="other data"), dict(seed=8)], ids=str
)
def test_checkpoint_of_another_run_is_kept_aside_and_not_resumed(tmp_path, change, capsys):
    fresh = tiny_run.train(tmp_path / "fresh.pt", n_steps=3, **change)
    tiny_run.train(tmp_path / "c.pt", n_steps=3)
    before = (tmp_path / "c.pt").read_bytes()
    assert_same_run(tiny_run.train(tmp_path / "c.pt", n_steps=3, **change), fresh)
    [kept] = tmp_path.glob("c.other-*.pt")
    assert kept.read_bytes() == before
    assert f"kept as {kept.name}" in capsys.readouterr().err


def test_looking_and_saving_more_often_goes_on_from_the_checkpoint(tmp_path, capsys):
    """They change no step. Chunks do: a batch norm sees a chunk."""
    whole = tiny_run.train(tmp_path / "whole.pt", evaluate_every=12)
    with pytest.raises(BrokenRead):
        tiny_run.train(tmp_path / "c.pt", data=stopping_after(6), save_every=4, evaluate_every=3)
    weights, _ = tiny_run.train(tmp_path / "c.pt", save_every=50, evaluate_every=12)
    assert "resumed after step 4" in capsys.readouterr().err
    assert all(torch.equal(weights[k], v) for k, v in whole[0].items())
    chunked, _ = tiny_run.train(tmp_path / "chunked.pt", chunk=2)
    assert any(not torch.equal(chunked[k], v) for k, v in whole[0].items())


def test_half_precision_resumes_with_its_loss_scale(tmp_path, monkeypatch):
    """The loss scale is state as well: it follows overflows and must not start again."""
    scalers = []

    class Growing(torch.amp.GradScaler):
        def __init__(self, device, **options):
            super().__init__(device, growth_interval=2, **options)
            scalers.append(self)

    monkeypatch.setattr(torch.amp, "GradScaler", Growing)
    options = dict(precision="fp16", n_steps=6, supervision="ehr", save_every=1)
    tiny_run.train(tmp_path / "whole.pt", **options)
    with pytest.raises(BrokenRead):
        tiny_run.train(tmp_path / "c.pt", data=stopping_after(5), **options)
    tiny_run.train(tmp_path / "c.pt", **options)
    whole, _, resumed = (s.get_scale() for s in scalers)
    assert resumed == whole


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_near_full_precision(tmp_path, precision):
    options = dict(n_steps=6, save_every=6)
    _, full = tiny_run.train(tmp_path / "full.pt", **options)
    weights, half = tiny_run.train(tmp_path / "half.pt", precision=precision, **options)
    assert all(v.dtype != torch.bfloat16 and v.dtype != torch.float16 for v in weights.values())
    assert all(torch.isfinite(v).all() for v in weights.values())
    losses = [[x["loss"] for x in log] for log in (full, half)]
    assert losses[0] != losses[1]  # it was half precision
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.02)  # later steps drift apart


def test_divergence_names_step_and_studies_and_keeps_the_last_checkpoint(tmp_path):
    path, bad = tmp_path / "c.pt", 5
    order = np.concatenate([loop.batch_indices(12, 4, s, seed=7) for s in range(3, 6)])
    step = 3 + int(np.flatnonzero(order == bad)[0]) // 4  # in the second epoch
    tiny_run.train(path, n_steps=12, save_every=1)
    data = tiny_run.studies(bad=[bad])

    def volume(i, count=iter(range(1000))):  # noqa: B008  the first epoch is still whole
        return (tiny_run.studies() if next(count) < 12 else data).volumes(i)

    path.unlink()
    mixed = tiny_run.Studies(**(vars(data) | dict(volumes=volume)))
    with pytest.raises(loop.TrainingDiverged) as caught:
        tiny_run.train(path, data=mixed, save_every=1)
    message = str(caught.value)
    assert f"loss nan at step {step} on studies " in message
    names = {f"study{i}" for i in loop.batch_indices(12, 4, step, seed=7)}
    assert set(message.split(" on studies ")[1].split(". ")[0].split(", ")) == names
    assert path.name in message
    state = torch.load(path, weights_only=True)
    assert state["step"] == step
    assert all(torch.isfinite(v).all() for v in state["model"].values())


def test_training_lowers_both_losses(tmp_path):
    _, log = tiny_run.train(
        tmp_path / "c.pt", n_steps=60, learning_rate=1e-2, report_splitting=False, shift_voxels=0,
        noise=0, gain=0,
    )  # fmt: skip
    for name in ("report_loss", "ehr_loss"):
        first, last = (np.mean([row[name] for row in rows]) for rows in (log[:6], log[-6:]))
        assert last < 0.9 * first, name


def test_log_says_what_each_step_did(uninterrupted):
    _, log = uninterrupted
    assert [row["step"] for row in log] == list(range(12))
    assert [row["step"] for row in log if "val_phecode_auroc" in row] == [4, 9, 11]
    assert all(row["logit_scale"] <= 100.01 for row in log)


def test_temperature_is_clamped_after_a_step(tmp_path):
    towers = tiny_run.model()
    with torch.no_grad():
        towers.logit_scale.fill_(9.0)
    weights, _ = tiny_run.train(tmp_path / "c.pt", towers, n_steps=1)
    assert weights["logit_scale"].item() <= MAX_LOGIT_SCALE


def run_report_loss(data, index, step, **changes):
    """A report loss with towers that return a vector per text, and the texts it contrasted."""
    config = tiny_run.config(**changes)
    towers = tiny_run.model().eval()
    texts = loop.TextCache(towers.encode_text)
    generator = torch.Generator().manual_seed(7)
    image = torch.nn.functional.normalize(torch.randn(len(index), 16, generator=generator))
    image.requires_grad_()
    rng = np.random.default_rng(step)
    sections = loop.drawn_sections(step, config, data.sections.shape[1], rng)
    groups = loop.paired_texts(data, index, sections)
    loss, _ = loop.report_losses(towers, image, groups, texts)
    return loss, image, towers


def slow_report_loss(towers, image, groups):
    """Each group of texts contrasted by itself, texts encoded one by one."""
    losses = []
    for group in groups:
        rows = [i for i, t in enumerate(group) if t]
        if len(rows) < 2:
            losses.append(torch.tensor(0.0))
            continue
        text = torch.cat(
            [towers.embed_tokens(*towers.encode_text.tokenize([group[i]])[:2]) for i in rows]
        )
        ids = torch.tensor([sorted(set(group)).index(group[i]) for i in rows])
        losses.append(contrastive_loss(image[rows], text, towers.logit_scale, ids))
    return torch.stack(losses).mean()


INDEX = np.array([3, 0, 7, 5, 2])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (dict(), [None, 2, None, 2]),
        (dict(sections_per_step=0), [None] * 4),
        (dict(report_splitting=False), [None] * 4),
    ],
)
def test_steps_contrast_what_the_strategy_says(changes, expected):
    config = tiny_run.config(sentence_weight=1.0, **changes)
    drawn = [loop.drawn_sections(s, config, 3, np.random.default_rng(s)) for s in range(4)]
    assert [d if d is None else len(d) for d in drawn] == expected
    assert config.splits_sentences == config.report_splitting


def test_whole_reports_alone_are_contrasted_without_splitting(tmp_path):
    _, log = tiny_run.train(
        tmp_path / "c.pt", n_steps=2, sentence_weight=1.0, report_splitting=False
    )
    assert [row["sentence_loss"] for row in log] == [0, 0]
    _, log = tiny_run.train(tmp_path / "c.pt", n_steps=2, sentence_weight=1.0)
    for row in log:
        total = row["report_loss"] + row["sentence_loss"] + row["ehr_loss"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
        assert row["sentence_loss"] > 0


def test_even_steps_contrast_whole_findings():
    data = tiny_run.studies()
    loss, image, towers = run_report_loss(data, INDEX, 4)
    expected = slow_report_loss(towers, image, [data.findings[INDEX]])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_drawn", [1, 2, 3, 9])
def test_odd_steps_contrast_each_section_within_itself(n_drawn):
    """Sections of another organ are never among a text's negatives; empty ones sit out."""
    data = tiny_run.studies()
    data.sections[7, :] = ""
    data.sections[[0, 3], 1] = ""
    loss, image, towers = run_report_loss(data, INDEX, 5, sections_per_step=n_drawn)
    drawn = np.random.default_rng(5).choice(3, min(n_drawn, 3), replace=False)
    expected = slow_report_loss(towers, image, [data.sections[INDEX, s] for s in drawn])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    assert not image.grad[2].any()  # study 7 has no section
    assert image.grad[4].any()


def test_without_report_splitting_every_step_contrasts_whole_findings():
    data = tiny_run.studies()
    loss, image, towers = run_report_loss(data, INDEX, 5, report_splitting=False)
    expected = slow_report_loss(towers, image, [data.findings[INDEX]])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_drawn", [1, 2])
@pytest.mark.parametrize("kept", [[], [3]], ids=["no study has it", "one study has it"])
def test_section_that_a_batch_lacks_costs_nothing(n_drawn, kept):
    """Batches are small and sections rare; a batch without texts must not end the run."""
    data = tiny_run.studies()
    without = [i for i in range(12) if i not in kept]
    data.sections[np.ix_(without, [0, 1, 2])] = ""
    loss, image, _ = run_report_loss(data, INDEX, 5, sections_per_step=n_drawn)
    assert loss.item() == 0
    loss.backward()
    assert not image.grad.any()


def test_one_absent_section_leaves_the_other_to_be_contrasted():
    data = tiny_run.studies()
    data.sections[:, 0] = ""
    loss, image, towers = run_report_loss(data, INDEX, 5, sections_per_step=3)
    drawn = np.random.default_rng(5).choice(3, 3, replace=False)
    expected = slow_report_loss(towers, image, [data.sections[INDEX, s] for s in drawn])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


def test_report_without_findings_sits_out():
    data = tiny_run.studies()
    data.findings[7] = ""
    loss, image, _ = run_report_loss(data, INDEX, 4)
    loss.backward()
    assert not image.grad[2].any()


def test_reports_are_not_read_while_their_weight_is_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "report_losses", None)
    _, log = tiny_run.train(tmp_path / "c.pt", n_steps=2, supervision="ehr")
    assert [entry["report_loss"] for entry in log] == [0, 0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (dict(), [(1, 0.5)] * 10),
        (dict(supervision="ehr"), [(0, 0.5)] * 10),
        (dict(supervision="reports"), [(1, 0)] * 10),
        (dict(strategy="staged"), [(0, 0.5)] * 4 + [(1, 0.05)] * 6),
        (dict(strategy="staged", supervision="reports"), [(1, 0)] * 10),
    ],
)
def test_loss_weights_follow_strategy_and_supervision(changes, expected):
    config = tiny_run.config(n_steps=10, ehr_weight=0.5, **changes)
    found = [loop.loss_weights(step, config) for step in range(10)]
    np.testing.assert_allclose(found, expected)


def test_learning_rate_warms_up_linearly_and_ends_near_zero():
    config = tiny_run.config(n_steps=1000, warmup_steps=10, learning_rate=2.0)
    rates = np.array([2.0 * loop.schedule(s, config) for s in range(1000)])
    np.testing.assert_allclose(rates[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-3)
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[500] == pytest.approx(1.0)
    assert 0 < rates[-1] < 1e-4


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert loop.schedule(0, tiny_run.config(warmup_steps=0)) == pytest.approx(1)


@pytest.mark.parametrize("name", ["strategy", "supervision", "precision", "optimizer"])
def test_unknown_choice_is_refused_with_the_choices(name):
    with pytest.raises(ValueError, match=f"{name} must be one of .*; got 'all'"):
        tiny_run.config(**{name: "all"})


def test_validation_is_the_mean_auroc_over_codes_with_both_classes():
    from sklearn.metrics import roc_auc_score

    towers, data = tiny_run.model().eval(), tiny_run.studies(10)
    data.phecodes[:, 2] = 0  # one class: left out
    with torch.no_grad():
        logits = towers.embed_volumes(loop.load_volumes(data, np.arange(10)))[1].numpy()
    expected = []
    for j in range(2):
        known = ~np.isnan(data.phecodes[:, j])
        expected.append(roc_auc_score(data.phecodes[known, j], logits[known, j]))
    for batch_size in (3, 32):
        config = tiny_run.config(batch_size=batch_size)
        found = validation.judged(towers, data, None, config)["val_phecode_auroc"]
        assert found == pytest.approx(np.mean(expected), abs=1e-9)


def test_validation_without_any_two_class_code_is_nan_not_an_error():
    data = tiny_run.studies(4)
    data.phecodes[:] = np.nan
    data = tiny_run.Studies(**(vars(data) | dict(volumes=None)))  # no volume is read for it
    found = validation.judged(tiny_run.model(), data, None, tiny_run.config())
    assert np.isnan(found["val_phecode_auroc"])


def test_without_codes_reports_validate_and_no_step_changes(tmp_path, uninterrupted):
    seen = []
    weights, log = tiny_run.train(
        tmp_path / "c.pt", n_validation=5, keep_best=lambda m, log: seen.append(len(log) - 1)
    )
    assert all(torch.equal(weights[k], v) for k, v in uninterrupted[0].items())
    rows = {r["step"]: r for r in log if "val_contrastive_loss" in r}
    assert list(rows) == [4, 9, 11]
    assert all(
        r["val_studies"] == 5 and 0 <= r["val_recall_1"] <= r["val_recall_5"] for r in rows.values()
    )
    losses = [r["val_contrastive_loss"] for r in rows.values()]
    assert seen == [s for i, s in enumerate(rows) if losses[i] == min(losses[: i + 1])]


def test_validation_loss_and_recall_are_those_typed_out():
    towers, data = tiny_run.model(), tiny_run.studies(7)
    data.phecodes[:] = np.nan
    data.findings[3] = ""  # sits out
    part = validation.fixed_part(data, 6)
    assert part.study_ids.tolist() == [f"study{i}" for i in (0, 1, 2, 4, 5, 6)]
    texts = loop.TextCache(towers.encode_text)
    found = validation.judged(towers, part, texts, tiny_run.config(batch_size=3))
    with torch.no_grad():
        image = towers.embed_volumes(loop.load_volumes(part, np.arange(6)))[0]
        text = embed_texts(towers, part.findings.tolist())
        by_batch = [
            contrastive_loss(image[p], text[p], towers.logit_scale, torch.arange(3))
            for p in (slice(3), slice(3, 6))
        ]
    assert found["val_contrastive_loss"] == pytest.approx(float(np.mean(by_batch)), rel=1e-5)
    order = (image @ text.T).argsort(1, descending=True)
    own = (order == torch.arange(6)[:, None]).float().argmax(1)
    assert found["val_recall_1"] == pytest.approx(float((own < 1).float().mean()))
    assert found["val_recall_5"] == pytest.approx(float((own < 5).float().mean()))
    assert np.isnan(found["val_phecode_auroc"])


def test_recall_takes_equal_texts_for_one_and_a_collapsed_model_for_nothing():
    ids = np.array([0, 0, 1])
    collapsed = torch.ones(3, 4) / 2
    assert validation.recall(collapsed, collapsed, np.arange(3), (1, 3)) == [0.0, 1.0]
    image = torch.eye(3)
    assert validation.recall(image, image[[1, 0, 2]], ids, (1,)) == [1.0]


def test_equal_texts_share_a_number_and_are_tokenised_once():
    texts = loop.TextCache(tiny_run.model().encode_text)
    long = " ".join(["liver"] * 40)  # 42 tokens with BERT's own two, 32 kept
    assert texts.numbers(["kidney", long, "kidney", "mass"]).tolist() == [0, 1, 0, 2]
    assert texts.numbers(["mass", long]).tolist() == [2, 1]
    assert (texts.n_truncated, texts.n_lost_tokens) == (1, 10)
    ids, mask = texts.batch([1, 0])
    assert mask.sum(1).tolist() == [32, 3]
    assert not ids[1, 3:].any()


def test_validation_leaves_torch_its_number_of_threads():
    """Numba's first parallel call sets OpenMP's threads for torch too: other last bits follow."""
    code = (
        "import numpy as np, torch\n"
        "from merlin.statistics import metrics\n"
        "torch.set_num_threads(1)\n"
        "torch.get_num_threads()\n"  # torch applies it here, or in its first parallel loop
        "metrics.auroc(np.zeros((2, 1)), np.array([[0.0], [1.0]]))\n"
        "print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def reference_membership(image, text, scale, member):
    """`membership_loss` element by element."""
    logits = scale * image @ text.T
    per_image, per_text = member.sum(1), member.sum(0)
    by_image = [
        -sum(
            member[i, j] / per_image[i] * torch.log_softmax(logits[i] + per_text.log(), 0)[j]
            for j in range(len(text))
        )
        for i in range(len(image))
    ]
    by_text = [
        -sum(
            member[i, j] / per_text[j] * torch.log_softmax(logits[:, j] + per_image.log(), 0)[i]
            for i in range(len(image))
        )
        for j in range(len(text))
    ]
    return (sum(by_image) / len(image) + sum(by_text) / len(text)) / 2


def test_a_sentence_of_two_reports_belongs_to_both_and_a_study_without_sits_out():
    towers = tiny_run.model().eval()
    texts = loop.TextCache(towers.encode_text)
    findings = np.array(["Liver: Cyst. Normal.", "", "Liver: Normal. Large mass."], object)
    image = torch.nn.functional.normalize(torch.randn(3, 16), dim=1)
    by_text, found = report_losses(towers, image, [findings], texts, findings=findings)
    alone, none = report_losses(towers, image, [findings], texts)
    torch.testing.assert_close(by_text, alone)
    assert none == 0
    names = ["Cyst.", "Normal.", "Large mass."]
    vectors = embed_texts(towers, names)
    kept = image[[0, 2]]
    member = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    expected = reference_membership(kept, vectors, towers.logit_scale.exp(), member)
    torch.testing.assert_close(found, expected)
    one = np.array(["", "", "One."], object)
    assert report_losses(towers, image, [one], texts, findings=one) == (0, 0)
