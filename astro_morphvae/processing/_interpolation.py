"""Interpolation kernels as tables, and the weights of output pixels on input pixels."""

from functools import lru_cache

import numpy as np

__all__ = ["INTERPOLATION", "InterpolationWeights", "widening"]

# Steps of the tables in an input pixel: positions are off by 1.2e-4 pixel at most, and a shift by
# whole pixels is one exactly.
_BITS = 12
_STEPS = 1 << _BITS
# Output pixels larger than this widen the kernel, for else input pixels would be passed over.
_WIDEN_ABOVE = 1.1


def _bilinear(t):
    return np.clip(1 - t, 0, None)


def _bicubic(t):
    near = (1.5 * t - 2.5) * t**2 + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _lanczos3(t):
    return np.where(t < 3, np.sinc(t) * np.sinc(t / 3), 0.0)


#: Kernel by name: its function of the distance, its reach in pixels, and its variance in pixels².
INTERPOLATION = {
    "bilinear": (_bilinear, 1, 1 / 6),
    "bicubic": (_bicubic, 2, 0.0),
    "lanczos3": (_lanczos3, 3, 0.0),
}


def widening(stretch):
    """How much wider than a pixel of the input the kernel is, along one axis."""
    return round(stretch, 2) if stretch > _WIDEN_ABOVE else 1.0


@lru_cache(maxsize=32)
def _table(kernel, wide):
    """Weights of the input pixels about a position, for each fraction of a pixel: they add to 1.

    Returns
    -------
    (_STEPS, n_tap) array
        Row ``i`` is for a position ``i / _STEPS`` beyond a pixel, which is number
        ``n_tap // 2 - 1`` of the ``n_tap``.
    """
    function, reach, _ = INTERPOLATION[kernel]
    half = int(np.ceil(reach * wide))
    offset = np.arange(1 - half, half + 1) - np.arange(_STEPS)[:, np.newaxis] / _STEPS
    weights = function(np.abs(offset) / wide)
    weights[np.abs(weights) < 1e-9] = 0.0  # of sines that should have vanished
    return weights / weights.sum(axis=1, keepdims=True)


@lru_cache(maxsize=32)
def _tables(kernel, wide_y, wide_x):
    """Weights along y and along x, each repeated for all taps of the two axes together.

    A product of two rows, one of each table, holds the weights of all taps of one position.
    """
    along_y, along_x = _table(kernel, wide_y), _table(kernel, wide_x)
    n_y, n_x = along_y.shape[1], along_x.shape[1]
    tables = np.repeat(along_y, n_x, axis=1), np.tile(along_x, n_y)
    tables = [table.astype(np.float32) for table in tables]
    for table in tables:
        table.flags.writeable = False
    return *tables, n_y, n_x


class InterpolationWeights:
    """Weights of input pixels in the interpolation at the positions of output pixels.

    Parameters
    ----------
    pixels : PixelMap
        Positions of n output pixels on the input.
    shape : tuple of int
        (ny, nx) of the input.
    kernel : {"bilinear", "bicubic", "lanczos3"}

    Attributes
    ----------
    margin : tuple of int
        Pixels that the weights need around the input, along y and x; as many as the kernel has
        taps.

    References
    ----------
    Keys 1981, IEEE Trans. Acoust. Speech Signal Process. 29, 1153 (bicubic); Duchon 1979,
    J. Appl. Meteorol. 18, 1016 (Lanczos).
    """

    def __init__(self, pixels, shape, kernel):
        *self._tables, n_y, n_x = _tables(kernel, *map(widening, pixels.stretch))
        self.margin = n_y, n_x
        self._width = shape[1] + 2 * n_x
        taps_y, taps_x = (np.arange(n, dtype=np.int32) for n in self.margin)
        self._taps = (taps_y[:, np.newaxis] * self._width + taps_x).ravel()
        first_y, self._fraction_y = _split(pixels.y, shape[0], n_y)
        first_x, self._fraction_x = _split(pixels.x, shape[1], n_x)
        self._first = first_y * self._width + first_x

    def __call__(self, part):
        """Weights and pixels for a slice of the output pixels.

        Returns
        -------
        weights : (n, n_tap) array of float32
            Each row adds to 1.
        indices : (n, n_tap) array of int32
            Pixels of the input with its margin, counted row by row.
        """
        weights = self._tables[0].take(self._fraction_y[part], axis=0)
        weights *= self._tables[1].take(self._fraction_x[part], axis=0)
        return weights, self._first[part, np.newaxis] + self._taps


def _split(position, n_in, n_tap):
    """First tap, counted from the margin's edge and kept within it, and fraction of a position."""
    # Far outside, or nowhere, is all the same.
    position = np.clip(np.nan_to_num(position.ravel(), nan=-1e5), -1e5, 1e5)
    steps = np.rint(position * _STEPS).astype(np.int32)
    first = (steps >> _BITS) + (n_tap // 2 + 1)
    return np.clip(first, 0, n_in + n_tap), steps & (_STEPS - 1)
