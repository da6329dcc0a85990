"""Winograd's convolution is PyTorch's."""

import pytest
import torch
from torch import nn

from merlin.model import winograd
from merlin.model.i3d import ImageConfig, ImageEncoder
from merlin.model.inference import folded


@pytest.mark.parametrize("size", [(1, 1, 1), (4, 6, 8), (5, 7, 3), (9, 2, 5)])
@pytest.mark.parametrize("slab", [1, 2**24])
def test_it_equals_the_direct_convolution(size, slab, monkeypatch):
    monkeypatch.setattr(winograd, "SLAB", slab)  # one pair of slices at a time, or all
    monkeypatch.setattr(winograd, "FROM_VOXELS", 0)
    torch.manual_seed(0)
    direct = nn.Conv3d(5, 7, 3, padding=1).double()
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        found = winograd.WinogradConv(direct)(x)
        torch.testing.assert_close(found, direct(x), rtol=1e-6, atol=1e-7)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_folded_encoder_takes_it_where_it_pays_and_outputs_stay(monkeypatch):
    monkeypatch.setattr(winograd, "FROM_VOXELS", 0)
    torch.manual_seed(0)
    encoder = ImageEncoder(ImageConfig(depth=26, n_phecodes=3)).eval()
    twin = folded(encoder)
    kinds = [m for m in twin.modules() if isinstance(m, winograd.WinogradConv)]
    assert {m.convolution.in_channels for m in kinds} == {128, 256}
    assert len(kinds) == 2  # strided ones are done as ever
    volume = torch.rand(1, 1, 64, 48, 32)
    with torch.inference_mode():
        for a, b in zip(twin(volume), encoder(volume), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
