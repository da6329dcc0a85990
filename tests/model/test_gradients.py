"""The gradient of a score by voxel is its slope, and images moved down it lose the score in the body alone."""

import numpy as np
import pytest
import torch

from merlin.model import gradients
from merlin.model.i3d import ImageConfig, ImageEncoder

CONFIG = ImageConfig(
    depth=14, width=4, stem="patch", n_stages=2, pool="grid", grid_cells=2, embedding_size=8,
    n_phecodes=2, in_channels=1,
)  # fmt: skip


@pytest.fixture
def encoder():
    torch.manual_seed(3)
    return ImageEncoder(CONFIG, feature_shape=(2, 2, 2)).double().eval().requires_grad_(False)


def test_the_gradient_is_the_slope_of_the_score(encoder):
    rng = torch.Generator().manual_seed(1)
    volume = torch.rand(2, 1, 16, 16, 16, generator=rng, dtype=torch.float64)
    direction = torch.randn(8, generator=rng).float()
    value, gradient = gradients.of_score(encoder, volume, direction)
    assert value.abs().max() <= direction.norm()
    way = gradient / gradient.norm()
    up, down = (gradients.score(encoder, volume + s * 1e-3 * way, direction) for s in (1, -1))
    slope = ((up - down) / 2e-3).sum().item()
    assert slope == pytest.approx((gradient * way).sum().item(), rel=0.02)
    with pytest.raises(ValueError, match="training mode"):
        gradients.of_score(encoder.train(), volume, direction)


def test_a_moved_image_loses_the_score_step_by_step_inside_the_body_alone(encoder):
    volume = torch.full((1, 1, 16, 16, 16), 0.5, dtype=torch.float64)
    body = torch.zeros_like(volume, dtype=torch.bool)
    body[..., 4:12] = True
    direction = torch.randn(8, generator=torch.Generator().manual_seed(2)).float()
    course = list(gradients.lowered(encoder, volume, direction, body, step=0.002, n_steps=3))
    scores = [float(score) for score, _ in course]
    assert len(course) == 4
    assert (np.diff(scores) < 0).all()
    change = (course[-1][1] - volume)[~body]
    assert (change == 0).all()
    first = (course[1][1] - volume)[body]
    assert first.square().mean().sqrt().item() == pytest.approx(0.002, rel=1e-6)
