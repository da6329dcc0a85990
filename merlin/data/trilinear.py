"""Trilinear interpolation through a full affine, compiled."""

import numpy as np

from merlin.compiled import njit


@njit(nogil=True)
def sample(source, affine, out, first, stop):
    """Fill `out[first:stop]`; beyond the outermost voxel centres the edge voxel is repeated.

    Parameters
    ----------
    source : (R, A, S) array of numbers
        Any strides, so that a turned view needs no copy.
    affine : (4, 4) float64
        Index of `out` to index of `source`.
    out : (R', A', S') float32
    first, stop : int
        Rows of `out`.
    """
    n0, n1, n2 = source.shape
    for i in range(first, stop):
        for j in range(out.shape[1]):
            x0 = affine[0, 0] * i + affine[0, 1] * j + affine[0, 3]
            y0 = affine[1, 0] * i + affine[1, 1] * j + affine[1, 3]
            z0 = affine[2, 0] * i + affine[2, 1] * j + affine[2, 3]
            for k in range(out.shape[2]):
                x, y, z = x0 + affine[0, 2] * k, y0 + affine[1, 2] * k, z0 + affine[2, 2] * k
                x = min(max(x, 0.0), n0 - 1.0)
                y = min(max(y, 0.0), n1 - 1.0)
                z = min(max(z, 0.0), n2 - 1.0)
                a, b, c = int(x), int(y), int(z)
                d, e, f = min(a + 1, n0 - 1), min(b + 1, n1 - 1), min(c + 1, n2 - 1)
                u, v, w = np.float32(x - a), np.float32(y - b), np.float32(z - c)
                t = np.float32(1.0)
                near = (t - w) * source[a, b, c] + w * source[a, b, f]
                beside = (t - w) * source[a, e, c] + w * source[a, e, f]
                below = (t - w) * source[d, b, c] + w * source[d, b, f]
                across = (t - w) * source[d, e, c] + w * source[d, e, f]
                front = (t - v) * near + v * beside
                back = (t - v) * below + v * across
                out[i, j, k] = (t - u) * front + u * back
