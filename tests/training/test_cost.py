"""Memory of a step, counted."""

import pandas as pd
import torch

from merlin.model.i3d import ImageConfig, ImageEncoder
from merlin.training import arm_costs
from merlin.training.cost import PeakBytes, saved_for_backward


def test_more_voxels_and_more_layers_keep_more_and_nothing_is_changed():
    torch.manual_seed(0)

    def small(depth):
        return ImageEncoder(
            ImageConfig(depth=depth, width=4, stem="patch", n_stages=2, in_channels=1, n_phecodes=3)
        ).eval()

    net = small(14)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    one = saved_for_backward(net, (16, 16, 16))
    assert saved_for_backward(net, (32, 16, 16)) > 1.7 * one
    assert saved_for_backward(small(50), (16, 16, 16)) > 1.5 * one
    assert one > 4 * 16**3  # at least the input
    assert not net.training
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_peak_counts_what_is_alive_once_and_what_was_there_before_not_at_all():
    before = torch.ones(1000)
    for device in ("cpu", "meta"):
        with PeakBytes() as count:
            one = torch.zeros(1000, device=device)
            two = one + 1
            part = two[:10]  # a view takes nothing
            two.add_(1)
            del one
            three = torch.cat([two, two])
        assert (count.alive, count.peak) == (4 * 3000, 4 * 3000)
        del two
        assert count.alive == 4 * 3000  # `part` holds it
        del part, three
        assert count.alive == 0
    with PeakBytes() as count:
        before.mul_(2)
    assert count.peak == 0


def test_a_budget_says_what_an_arm_may_draw_and_what_it_took(tmp_path, monkeypatch):
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "weights.safetensors").touch()
    pd.DataFrame({"step": [0, 1], "seconds": [30.0, 60.0]}).to_csv(tmp_path / "main" / "log.csv")
    monkeypatch.setattr(arm_costs, "read_facts", lambda path: {"n": {"studies": 77}})
    how = dict(n_steps=20, batch_size=16)
    found = arm_costs.budgets(tmp_path, {"main": how, "later": how | {"n_steps": 5}})
    assert found.loc["main"].tolist() == [20, 320, 77, 1.5]
    assert found.loc["later"].tolist()[:2] == [5, 80]
    assert found.loc["later", ["training studies", "minutes"]].isna().all()
