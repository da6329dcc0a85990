"""Muon for matrices, AdamW for the rest: each as torch's own, and nothing decays that should not."""

import pytest
import tiny_run
import torch

from merlin.training import optimizers
from merlin.training.optimizers import Muon, make_optimizer, orthogonal


def test_muon_is_torchs_on_a_linear_layer():
    """torch's iterates in bfloat16, so steps agree within some percent."""
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(12, 40, bias=False), torch.nn.Linear(12, 40, bias=False)
    theirs.load_state_dict(ours.state_dict())
    start = ours.weight.detach().clone()
    group = dict(params=[ours.weight], matrices=True, momentum=0.95, weight_decay=0.1)
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


def test_the_turn_of_a_large_matrix_is_kept_for_some_steps(monkeypatch):
    monkeypatch.setattr(optimizers, "LARGE", 4)
    layer = torch.nn.Linear(6, 5, bias=False)
    optimizer = Muon([dict(params=[layer.weight], matrices=True, momentum=0.95, weight_decay=0.0)])
    moves = []
    for step in range(2 * optimizers.KEPT):
        before = layer.weight.detach().clone()
        optimizer.zero_grad()
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        layer(x).square().mean().backward()
        optimizer.step()
        moves.append(layer.weight.detach() - before)
    for step, move in enumerate(moves):
        first = moves[step // optimizers.KEPT * optimizers.KEPT]
        torch.testing.assert_close(move, first, atol=1e-6, rtol=1e-3)
    assert not torch.allclose(moves[0], moves[-1], atol=1e-5)


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
    first = Muon([dict(params=ours.parameters(), matrices=False)], lr=0.01, weight_decay=0.1)
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
    turned = [
        names[id(p)] for g in optimizer.param_groups if g.get("matrices") for p in g["params"]
    ]
    wanted = ("conv", "downsample.0", "squeeze", "grid_head", "encode_text.head")
    assert all(any(w in n for w in wanted) for n in turned)
    assert {w for w in wanted if any(w in n for n in turned)} == set(
        wanted if name == "muon" else ()
    )
