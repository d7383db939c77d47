"""Convolution of cutouts with the kernels of their bands: data, variance and mask; arrays only."""

from functools import cached_property

import numpy as np
from scipy import fft

__all__ = ["Convolver"]

# Weight of bad pixels that is but the rounding of Fourier transforms.
_ROUNDING = 1e-9
# Variances this many times the median count as unknown.
_HUGE = 1e8


class Convolver:
    """Convolve cutouts of one size with one kernel a band.

    Parameters
    ----------
    kernels : list of (array or None)
        Kernel of each band, of odd size and unit sum; None leaves a band as it is.
    size : tuple of int
        (ny, nx) of the cutouts.
    max_bad_weight : float
        Share of a kernel's absolute weight that may fall on bad pixels, or off the cutout.
    """

    def __init__(self, kernels, size, max_bad_weight):
        self.bands = [band for band, kernel in enumerate(kernels) if kernel is not None]
        self.size = tuple(size)
        self.max_bad_weight = max_bad_weight
        if self.bands:
            self._prepare([kernels[band] for band in self.bands])

    def _prepare(self, kernels):
        reach = max(kernel.shape[-1] // 2 for kernel in kernels)
        # What wraps around has to fall on the padding: that takes one reach.
        self._shape = tuple(fft.next_fast_len(n + reach, real=True) for n in self.size)
        if min(self._shape) < 2 * reach + 1:
            self._shape = tuple(fft.next_fast_len(n + 2 * reach, real=True) for n in self.size)
        grid = np.zeros((len(kernels), *self._shape))
        for plane, kernel in zip(grid, kernels, strict=True):
            half = kernel.shape[-1] // 2
            plane[: 2 * half + 1, : 2 * half + 1] = kernel
            plane[:] = np.roll(plane, (-half, -half), axis=(0, 1))
        self._grid = grid
        self._kernel = fft.rfft2(grid)

    @cached_property
    def _squared(self):
        return fft.rfft2(self._grid**2)

    @cached_property
    def _absolute(self):
        return fft.rfft2(np.abs(self._grid))

    @cached_property
    def _limit(self):
        total = np.abs(self._grid).sum(axis=(-2, -1))
        return ((self.max_bad_weight + _ROUNDING) * total)[:, np.newaxis, np.newaxis]

    @cached_property
    def _edge(self):
        """Weights where only the edge of the cutout takes some away."""
        return self._weights(np.ones((1, *self.size)))

    def _apply(self, images, spectrum):
        ny, nx = self.size
        return fft.irfft2(fft.rfft2(images, s=self._shape) * spectrum, s=self._shape)[..., :ny, :nx]

    def _weights(self, good):
        """Weight on good pixels, and where too much of the absolute weight is not on them."""
        total = self._absolute[:, :1, :1].real
        lost = total - self._apply(good, self._absolute) > self._limit
        return self._apply(good, self._kernel), lost

    def __call__(self, data, ivar, mask, inflation=None):
        """Convolve one cutout, in place.

        Parameters
        ----------
        data : (n_band, ny, nx) array
            Flux; 0 in bad pixels.
        ivar : array or None
            Inverse variance.
        mask : array of bool
            True for bad pixels.
        inflation : (n_band,) array, optional
            Factors on the variance, for noise that is correlated already.
        """
        if not self.bands:
            return
        bands = self.bands
        bad = mask[bands]
        good = None if not bad.any() else (~bad).astype(np.float64)
        weight, lost = self._edge if good is None else self._weights(good)
        # No division where hardly any weight is left: these pixels are lost.
        weight = np.where(lost, 1.0, weight)
        flux = self._apply(data[bands].astype(np.float64), self._kernel) / weight
        if ivar is not None:
            ivar[bands] = self._convolved_ivar(ivar[bands], bad, weight, lost, inflation)
        flux[lost] = 0
        data[bands] = flux
        mask[bands] = lost

    def _convolved_ivar(self, ivar, bad, weight, lost, inflation):
        known = (ivar > 0) & ~bad
        variance = np.zeros(ivar.shape)
        np.divide(1, ivar, out=variance, where=known)
        # A transform rounds relative to the largest value: next to it the others would drown.
        huge = variance > _HUGE * np.median(variance[known]) if known.any() else ~known
        variance[huge] = 0
        variance = self._apply(variance, self._squared) / weight**2
        if inflation is not None:
            variance *= inflation[self.bands][:, np.newaxis, np.newaxis]
        usable = ~lost & (variance > 0)
        unknown = ~bad & (~known | huge)
        if unknown.any():
            usable &= self._apply(unknown.astype(np.float64), self._absolute) <= self._limit
        out = np.zeros(ivar.shape)
        np.divide(1, variance, out=out, where=usable)
        return out
