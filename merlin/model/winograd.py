"""3³ convolutions of stride 1 with a third of the multiplications, for inference (Winograd's F(2³, 3³)).

Eight outputs of a 2³ block need 8 · 27 products; written as polynomials (Lavin and Gray, arXiv
1509.09308) they need 4³ = 64, between sums of a 4³ block of inputs and sums of the weights. Products
over channels are one matrix product for each of the 64. What it costs is memory traffic, so it pays for
many channels. Sums of weights take more than twice their room: they are made anew for each volume, which
pays for many voxels. In exact arithmetic nothing changes.
"""

import torch
from torch import Tensor, nn

_SUMS = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
CHANNELS = range(128, 257)  # measured on two cores at the paper's sizes
FROM_VOXELS = 2000  # sums of weights cost the same for any number
SLAB = 2**24  # floats of sums held at once; whole volumes would take eight times their size


def pays(convolution: nn.Conv3d) -> bool:
    """Whether a convolution has the form that this takes, and enough channels."""
    form = (convolution.kernel_size, convolution.stride, convolution.padding)
    fits = all(n in CHANNELS for n in convolution.weight.shape[:2])
    return fits and form == ((3,) * 3, (1,) * 3, (1,) * 3)


class WinogradConv(nn.Module):
    """A `Conv3d` of 3³ weights, stride 1 and padding 1, on channels-last tensors.

    Parameters
    ----------
    convolution : nn.Conv3d
        With a bias.
    """

    mix: Tensor

    def __init__(self, convolution: nn.Conv3d):
        super().__init__()
        self.convolution = convolution
        mix = torch.einsum("xi,yj,zk->xyzijk", _SUMS, _SUMS, _SUMS)
        self.register_buffer("mix", mix.reshape(64, 27).to(convolution.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, R, A) → (B, C', S, R, A), channels last in memory; few voxels the direct way."""
        if x[0, 0].numel() < FROM_VOXELS:
            return self.convolution(x)
        x = x.permute(0, 2, 3, 4, 1)
        b, *size, _ = x.shape
        w = self.convolution.weight  # (out, in, 3, 3, 3), its channels last too
        out = x.new_empty(b, *size, len(w))
        weights = (self.mix @ w.permute(0, 2, 3, 4, 1).flatten(1, 3)).permute(1, 2, 0)
        half = [-(-n // 2) for n in size]
        step = max(1, SLAB // (64 * half[1] * half[2] * x.shape[4]))  # pairs of slices at once
        for one, to in zip(x, out, strict=True):
            for s in range(0, half[0], step):
                n = min(step, half[0] - s)
                self._slab(one, to, weights, 2 * s, n, half[1:])
        return out.permute(0, 4, 1, 2, 3)

    def _slab(self, x, out, weights, first, n, half):
        """2 · n slices of the output from `first` on."""
        lo, hi = max(first - 1, 0), min(first + 2 * n + 1, len(x))
        block = x.new_zeros(2 * n + 2, 2 * half[0] + 2, 2 * half[1] + 2, x.shape[3])
        start = lo - (first - 1)
        block[start : start + hi - lo, 1 : x.shape[1] + 1, 1 : x.shape[2] + 1] = x[lo:hi]
        sums = x.new_empty(4, 4, 4, n, *half, x.shape[3])
        for i, a in enumerate(_four(block, 0)):
            for j, b in enumerate(_four(a, 1)):
                _four(b, 2, out=sums[i, j])
        products = torch.bmm(sums.view(64, -1, x.shape[3]), weights)
        products = products.view(4, 4, 4, n, *half, -1)
        deep, bias = min(2 * n, len(out) - first), self.convolution.bias
        assert bias is not None
        for i, a in enumerate(_two(products)):
            for j, b in enumerate(_two(a)):
                for k, c in enumerate(_two(b)):
                    place = out[first + i : first + deep : 2, j::2, k::2]
                    inside = c[: place.shape[0], : place.shape[1], : place.shape[2]]
                    torch.add(inside, bias, out=place)


def _four(x, axis, out=None):
    """The four sums along an axis, for every second start."""
    every_second = (slice(None),) * axis + (slice(None, None, 2),)
    a, b, c, d = (x.narrow(axis, i, x.shape[axis] - 3)[every_second] for i in range(4))
    if out is None:
        return a - c, b + c, c - b, b - d
    torch.sub(a, c, out=out[0])
    torch.add(b, c, out=out[1])
    torch.sub(c, b, out=out[2])
    return torch.sub(b, d, out=out[3])


def _two(p):
    """The two outputs from four products along the first axis."""
    middle = p[1] + p[2]
    return middle.add_(p[0]), (p[1] - p[2]).sub_(p[3])
