"""Interpolation kernels as tables, and the weights of output pixels on input pixels."""

from functools import lru_cache

import numpy as np
from scipy.signal import fftconvolve

__all__ = ["INTERPOLATION", "InterpolationWeights", "kernel_variance"]

# Steps of the tables in an input pixel, as a power of 2: positions are off by 1.2e-4 pixel at most,
# and a shift by whole pixels is one exactly.
_BITS = 12
# Output pixels of another size get the mean over a kernel of that size: of larger ones, because
# input pixels would be passed over; of slightly smaller ones, because the two grids drift past each
# other slowly, and some input pixels would count for more than others. Within 2 %, and where output
# pixels are much smaller, a star of FWHM 3 pixels keeps its flux to 0.3 % without.
_SAME, _MUCH_SMALLER = 0.02, 0.7


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
    """Extent of the kernel of the mean along one axis, in input pixels; 0 where none is taken."""
    plain = abs(stretch - 1) <= _SAME or stretch < _MUCH_SMALLER
    return 0.0 if plain else round(stretch, 2)


def kernel_variance(kernel, stretch):
    """Variance that the interpolation adds to an image, in input pixels²: the larger axis."""
    return INTERPOLATION[kernel][2] * (1 + max(map(widening, stretch)) ** 2)


def _bits(wide):
    # A wide kernel changes less from step to step; fewer of them keep its table small.
    return _BITS - int(np.log2(max(wide, 1)))


@lru_cache(maxsize=16)
def _table(kernel, wide):
    """Weights of the input pixels about a position, for each fraction of a pixel: they add to 1.

    With output pixels of another size the interpolated image is averaged with the same kernel at
    that size: input pixels then have the same share of the output, and the output has the same
    share of every input pixel, as exactly as the kernel itself adds to 1 everywhere.

    Returns
    -------
    (n_step, n_tap) array
        Row ``i`` is for a position ``i / n_step`` beyond a pixel, which is number
        ``n_tap // 2 - 1`` of the ``n_tap``.
    """
    n_step = 1 << _bits(wide)
    function, reach, _ = INTERPOLATION[kernel]
    half = int(np.ceil(reach * (1 + wide)))
    distance = np.abs(np.arange(-half * n_step, half * n_step + 1) / n_step)
    profile = function(distance)
    profile[np.abs(profile) < 1e-9] = 0.0  # of sines that should have vanished
    if wide:
        profile = fftconvolve(profile, function(distance / wide), mode="same")
        profile[distance >= reach * (1 + wide)] = 0.0
    taps = np.arange(1, 2 * half + 1) * n_step
    weights = profile[taps - np.arange(n_step)[:, np.newaxis]]
    return weights / weights.sum(axis=1, keepdims=True)


@lru_cache(maxsize=16)
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
        wide_y, wide_x = map(widening, pixels.stretch)
        *self._tables, n_y, n_x = _tables(kernel, wide_y, wide_x)
        self.margin = n_y, n_x
        self._width = shape[1] + 2 * n_x
        taps_y, taps_x = (np.arange(n, dtype=np.int32) for n in self.margin)
        self._taps = (taps_y[:, np.newaxis] * self._width + taps_x).ravel()
        first_y, self._fraction_y = _split(pixels.y, shape[0], n_y, _bits(wide_y))
        first_x, self._fraction_x = _split(pixels.x, shape[1], n_x, _bits(wide_x))
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


def _split(position, n_in, n_tap, bits):
    """First tap, counted from the margin's edge and kept within it, and fraction of a position."""
    # Far outside, or nowhere, is all the same.
    far = n_in + n_tap
    position = np.clip(np.nan_to_num(position.ravel(), nan=-far), -far, far)
    steps = np.rint(position * (1 << bits)).astype(np.int32)
    first = (steps >> bits) + (n_tap // 2 + 1)
    return np.clip(first, 0, n_in + n_tap), steps & ((1 << bits) - 1)
