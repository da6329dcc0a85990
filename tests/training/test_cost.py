"""Memory of a step, counted."""

import torch

from merlin.model.i3d import ImageConfig, ImageEncoder
from merlin.training.cost import saved_for_backward


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
