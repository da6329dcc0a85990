"""The estimate of a step's time beside the time of that step, in one run."""

import time

import pytest
import torch

from merlin.model.cpu import prepare_cpu
from merlin.model.i3d import ImageConfig
from merlin.model.text import TextConfig
from merlin.model.two_towers import TowersConfig, TwoTowers
from merlin.training import parallel
from merlin.training.loop import TrainingConfig

GRID = (64, 64, 48)


def seconds_of_a_step(towers, config):
    volume = torch.rand(config.batch_size, 1, *GRID)
    began = time.perf_counter()
    image, logits, finish = parallel.embed_volumes(towers, volume, config.chunk)
    (image.square().sum() + logits.square().sum()).backward()
    finish()
    return time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [0, 4])
def test_estimated_seconds_are_near_those_of_a_step(chunk):
    """Two volumes stand for sixteen, so the estimate is a rough one: within a half and double."""
    prepare_cpu(1)
    torch.manual_seed(0)
    image = ImageConfig(depth=26, width=16, n_phecodes=8, in_channels=1)
    text = TextConfig(kind="small", hidden_size=32, n_layers=1, max_length=32)
    towers = TwoTowers(TowersConfig(image, text, GRID)).train()
    config = TrainingConfig(n_steps=1, batch_size=16, learning_rate=1e-3, chunk=chunk)
    estimate = min(parallel.estimate_seconds(towers, config, GRID) for _ in range(2))
    measured = min(seconds_of_a_step(towers, config) for _ in range(3))
    print(f"estimated {estimate:.2f} s, measured {measured:.2f} s")
    assert 0.5 < estimate / measured < 2
