"""Muon for kernels, AdamW for the rest: each as torch's own, and nothing decays that should not."""

import pytest
import tiny_run
import torch

from merlin.training.optimizers import Muon, make_optimizer, orthogonal


def test_muon_is_torchs_on_a_linear_layer():
    """torch's iterates in bfloat16, so steps agree within some percent."""
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(12, 40, bias=False), torch.nn.Linear(12, 40, bias=False)
    theirs.load_state_dict(ours.state_dict())
    start = ours.weight.detach().clone()
    group = dict(params=[ours.weight], kernels=True, momentum=0.95, weight_decay=0.1)
    first = Muon([group], lr=0.02)
    second = torch.optim.Muon([theirs.weight], lr=0.02, weight_decay=0.1, momentum=0.95)
    for step in range(5):
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(step))
        for layer, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
    moved, expected = ours.weight - start, theirs.weight - start
    assert (moved - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (7, 7)])
def test_orthogonal_keeps_directions_and_evens_out_their_lengths(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.T @ orthogonal(matrix) @ v.T
    assert (turned - torch.diag(turned.diagonal())).abs().max() < 1e-3
    assert turned.diagonal()[s > 0.05 * s.max()].min() > 0.6
    assert turned.diagonal().max() < 1.25


def test_groups_of_other_parameters_move_as_with_adamw():
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    first = Muon([dict(params=ours.parameters(), kernels=False)], lr=0.01, weight_decay=0.1)
    second = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    for layer, optimizer in ((ours, first), (theirs, second)):
        for step in range(4):
            optimizer.zero_grad()
            layer(torch.full((2, 5), float(step))).square().sum().backward()
            optimizer.step()
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_trained_parameter_has_one_group_and_only_matrices_decay(name):
    towers = tiny_run.model(kind="sentences")
    optimizer = make_optimizer(towers, tiny_run.config(optimizer=name, muon_weight_decay=0.01))
    names = {id(p): n for n, p in towers.named_parameters() if p.requires_grad}
    found = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(found) == sorted(names)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1), names[id(parameter)]
    kernels = [
        names[id(p)] for g in optimizer.param_groups if g.get("kernels") for p in g["params"]
    ]
    assert all(("i3_resnet" in n and "conv" in n) or "downsample" in n for n in kernels)
    assert bool(kernels) == (name == "muon")
