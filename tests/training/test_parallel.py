"""Large batches: chunks and processes give the loss and gradients of the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import config, draw, gradients, model, train

from merlin.model.i3d import ImageConfig
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.training import parallel
from merlin.training.cost import PeakBytes
from merlin.training.losses import contrastive_loss

PLAIN = dict(shift_voxels=0, noise=0.0, gain=0.0)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_chunks_have_the_loss_and_gradients_of_the_whole_batch(chunk):
    whole, expected = gradients(0)
    loss, found = gradients(chunk)
    assert loss == pytest.approx(whole, rel=1e-6)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def text_gradients(chunk):
    """Loss and gradients of twelve texts of several lengths, and the most that was alive at once."""
    towers = model().train()
    for module in towers.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # drawn in another order in chunks
    mask = (torch.arange(24)[None] < torch.arange(4, 28, 2)[:, None]).long()
    ids = torch.randint(5, 50, mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    with PeakBytes() as count:
        found = parallel.embed_texts(towers, ids, mask, chunk)
        text = draw(*found.shape, seed=2)
        loss = contrastive_loss(found, text, towers.logit_scale, torch.arange(len(ids)))
        loss.backward()
    kept = {n: p.grad for n, p in towers.named_parameters() if p.grad is not None}
    return loss.item(), kept, count.peak


def test_chunks_of_texts_have_the_whole_batchs_gradients_in_less_memory():
    whole, expected, most = text_gradients(0)
    loss, found, peak = text_gradients(2)
    assert loss == pytest.approx(whole, rel=1e-6)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert peak < 0.7 * most


def test_chunks_count_batch_statistics_once():
    towers = model().train()
    image, logits, finish = parallel.embed_volumes(towers, torch.rand(4, 1, 16, 16, 16), 2)
    (image.sum() + logits.sum()).backward()
    before = {k: v.clone() for k, v in towers.named_buffers()}
    finish()
    counts = [int(v) for k, v in before.items() if k.endswith("num_batches_tracked")]
    assert set(counts) == {2}
    for name, value in towers.named_buffers():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_two_processes_have_the_whole_batchs_gradients_and_train_as_one(tmp_path):
    """With fixed statistics they equal one process; else each process's batch norms see its half, as
    those of one process in chunks of half do."""
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parent)}
    done = subprocess.run(
        [*command, str(script), str(tmp_path / "two")], env=env, capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    loss, expected = gradients()
    for rank in (0, 1):
        found = torch.load(tmp_path / f"two-{rank}.pt", weights_only=True)
        # Stopped twice, and the processes drew unlike numbers; statistics are the first one's.
        unlike = {k for k, is_equal in found["resumed"].items() if not is_equal}
        assert all(rank and "running" in k for k in unlike)
        assert found["fixed"][0] == pytest.approx(loss, rel=1e-6)
        assert found["fixed"][1].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found["fixed"][1][name], value, rtol=1e-4, atol=1e-6, msg=name
            )
    alone, log = train(tmp_path / "one.pt", n_steps=6, chunk=2, **PLAIN)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"two-{rank}.pt", weights_only=True)
        np.testing.assert_allclose(found["loss"], [x["loss"] for x in log], rtol=1e-5)
        for name, value in alone.items():
            if "running" not in name and "tracked" not in name:
                weights = found["weights"][name]
                torch.testing.assert_close(weights, value, rtol=1e-4, atol=1e-5, msg=name)
    whole, _ = train(tmp_path / "whole.pt", n_steps=6, **PLAIN)
    name = next(k for k in alone if k.endswith("layer1.0.conv1.weight"))
    assert not torch.allclose(whole[name], alone[name], atol=1e-5)  # its batch norms saw all four


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(parallel, "world", lambda: (1, 3))
    assert parallel.share(np.arange(6)).tolist() == [2, 3]
    with pytest.raises(ValueError, match="a batch of 4 does not divide among 3 processes"):
        parallel.share(np.arange(4))


@pytest.mark.parametrize("on_cpu", [False, True])
def test_out_of_memory_says_what_to_change(on_cpu):
    def too_much():
        if on_cpu:
            torch.empty(2**60, dtype=torch.uint8)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    with pytest.raises(MemoryError) as caught:
        with parallel.memory_advice(config(batch_size=18), (224, 224, 160)):
            too_much()
    said = str(caught.value)
    assert "chunk=9" in said
    assert "text_chunk=4" in said
    assert "precision='bf16'" in said
    assert "(224, 224, 160)" in said


LARGE = (112, 112, 96)  # voxels; more than `LARGE_VOLUME`
# A process as training has it, allocator and all.
CASES = [(2, 0, 0), (4, 0, 0), (4, 1, 0), (4, 1, 2), (4, 0, 1)]  # volumes, recomputation, chunk
# Each case in a process of its own for its memory, forked where the libraries are loaded already.
MEASURE = """
import json, os, resource, sys, torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel
sys.path.insert(0, sys.argv[1])
from test_parallel import LARGE, larger
from merlin.model.cpu import prepare_cpu
from merlin.training import parallel

def measure(n, checkpointing, chunk):
    prepare_cpu(1, n_voxels=LARGE[0] * LARGE[1] * LARGE[2])
    towers = larger(checkpointing=bool(checkpointing))
    optimizer = torch.optim.AdamW(towers.parameters())
    image, _, finish = parallel.embed_volumes(towers, torch.zeros(2, 1, 32, 32, 32), chunk and 1)
    tokens = torch.ones(n, 256, dtype=torch.int64)
    text = parallel.embed_texts(towers, tokens[:2, :16], tokens[:2, :16])
    (image.sum() + text.sum()).backward()  # libraries and kernels are loaded
    finish()
    towers.zero_grad(set_to_none=True)
    before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
    image, logits, finish = parallel.embed_volumes(towers, torch.rand(n, 1, *LARGE), chunk)
    text = parallel.embed_texts(towers, tokens, tokens)
    (image.sum() + logits.sum() + text.sum()).backward()
    finish()
    optimizer.step()
    peak = next(x for x in open("/proc/self/status") if x.startswith("VmHWM"))  # of this program alone
    return int(peak.split()[1]) * 1024 - before

for case in json.loads(sys.argv[2]):
    if not os.fork():
        print(json.dumps([case, measure(*case)]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture(scope="module")
def measured():
    """Bytes that a training step takes, by case."""
    command = [sys.executable, "-c", MEASURE, str(Path(__file__).parent), json.dumps(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {tuple(case): n for case, n in map(json.loads, done.stdout.splitlines())}


def larger(checkpointing=False):
    torch.manual_seed(0)
    image = ImageConfig(depth=26, width=16, n_phecodes=8, in_channels=1)
    text = TextConfig(kind="small", hidden_size=128, n_layers=2, max_length=256)
    towers = TowersConfig(image, text, LARGE)
    return TwoTowers(towers, checkpointing=checkpointing)


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="shapes differ"):
        with parallel.memory_advice(config(), (16, 16, 16)):
            raise RuntimeError("shapes differ")


def test_timing_a_step_leaves_model_and_random_numbers_alone():
    torch.manual_seed(3)
    towers = model()
    before = {k: v.clone() for k, v in towers.state_dict().items()}
    state = torch.get_rng_state()
    assert parallel.estimate_seconds(towers, config(batch_size=4), (16, 16, 16)) > 0
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in towers.state_dict().items())
    assert all(p.grad is None for p in towers.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("n", "checkpointing", "chunk"), CASES)
def test_estimated_memory_is_near_the_measured_one(measured, n, checkpointing, chunk):
    """Within 15 % of what a process takes, with and without recomputation and chunks."""
    towers = larger(checkpointing=bool(checkpointing))
    found = parallel.estimate_step(towers, config(batch_size=n, chunk=chunk), LARGE)
    own = sum(p.numel() * 4 for p in towers.parameters())  # these were there before
    estimate, taken = found["total"] - own, measured[n, checkpointing, chunk]
    assert abs(estimate / taken - 1) < 0.15, (estimate, taken)
