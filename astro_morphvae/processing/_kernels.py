"""Kernels that turn one point spread function into another; arrays only."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from .._optional import import_optional
from ._psf_images import measure_fwhm

__all__ = [
    "MAX_GAIN",
    "Kernel",
    "correlated_power",
    "fit_kernel",
    "residual_of",
    "windowed_kernel",
]

#: Most that a kernel may amplify noise at any spatial frequency.
MAX_GAIN = 2.0

# Radii of kernels that are tried, in FWHM of the target, and how strongly they are smoothed.
_RADII = (0.75, 1.25, 2.0, 2.75)
_RIDGES = (1e-3, 1e-4, 1e-5)


class Kernel(NamedTuple):
    """A matching kernel and how well it does.

    Parameters
    ----------
    array : (n, n) array
        Of unit sum; n is odd.
    residual : float
        Largest difference between the source convolved and the target, in units of the target's
        peak.
    gain : float
        Largest amplification over all spatial frequencies.
    """

    array: np.ndarray
    residual: float
    gain: float


class _Match:
    """Source and target on one grid large enough to hold what convolution spreads."""

    def __init__(self, source, target, radius):
        need = max(source.shape[-1] + 2 * radius, target.shape[-1])
        self.n = fft.next_fast_len(need + 1, real=True)
        self.target = _at_origin(target, self.n)
        self.peak = self.target.max()
        self.source = fft.rfft2(_at_origin(source, self.n))

    def judge(self, kernel):
        spectrum = fft.rfft2(_at_origin(kernel, self.n))
        matched = fft.irfft2(spectrum * self.source, s=(self.n, self.n))
        residual = np.abs(matched - self.target).max() / self.peak
        return Kernel(kernel, float(residual), float(np.abs(spectrum).max()))


def _at_origin(image, n):
    """Put a centred image on an n × n grid, its centre at the first pixel, wrapped around."""
    grid = np.zeros((n, n))
    height, width = image.shape
    grid[:height, :width] = image
    return np.roll(grid, (-(height // 2), -(width // 2)), axis=(0, 1))


def residual_of(source, target):
    """Largest difference of two point spread functions, in units of the second one's peak."""
    return _Match(source, target, 0).judge(np.ones((1, 1))).residual


def fit_kernel(source, target, tolerance):
    """Find the smallest and smoothest kernel that turns one point spread function into another.

    Every pixel of the kernel is free; they follow by least squares from
    ``|source * kernel - target|² + ridge |kernel|²``, with the sum held at 1. The ridge weighs the
    noise that the kernel lets through, so that noise in the images is not fitted. Kernels grow in
    radius and lose smoothness until the residual is half the tolerance.

    Parameters
    ----------
    source, target : (n, n) array
        Centred, of unit sum and odd sizes, which may differ.
    tolerance : float
        Largest residual wanted, in units of the target's peak.

    Returns
    -------
    Kernel
        The best that was found where none reaches the tolerance without amplifying noise more
        than `MAX_GAIN`.

    References
    ----------
    .. [1] Alard & Lupton 1998, ApJ 503, 325. [2] Bramich 2008, MNRAS 386, L77 (kernel pixels as
       unknowns). [3] Becker et al. 2012, MNRAS 425, 1341 (regularised kernels).
    """
    width = measure_fwhm(target)
    radii = sorted({max(2, int(np.ceil(radius * width))) for radius in _RADII})
    match = _Match(source, target, radii[-1])
    shape = (match.n, match.n)
    power = fft.irfft2(np.abs(match.source) ** 2, s=shape)
    cross = fft.irfft2(match.source.conj() * fft.rfft2(match.target), s=shape)
    best = None
    for radius in radii:
        offset = np.arange(-radius, radius + 1)
        inside = offset[:, np.newaxis] ** 2 + offset**2 <= (radius + 0.5) ** 2
        y, x = np.nonzero(inside)
        normal = power[np.subtract.outer(y, y) % match.n, np.subtract.outer(x, x) % match.n]
        right = np.stack([cross[y - radius, x - radius], np.ones(len(y))], axis=1)
        for ridge in _RIDGES:
            regularised = normal.copy()
            regularised[np.diag_indices(len(y))] += ridge * power[0, 0]
            try:
                free, unit = cho_solve(cho_factor(regularised), right).T
            except LinAlgError:
                continue
            array = np.zeros(inside.shape)
            array[inside] = free + unit * ((1 - free.sum()) / unit.sum())
            kernel = match.judge(array)
            if kernel.gain > MAX_GAIN:
                break
            if best is None or kernel.residual < best.residual:
                best = kernel
            if best.residual <= 0.5 * tolerance:
                return best
    return best or kernel


def windowed_kernel(source, target, window):
    """Kernel from the ratio of Fourier transforms under a window, as photutils makes it.

    Parameters
    ----------
    source, target : (n, n) array
        As for `fit_kernel`.
    window : callable
        One of the windows of `photutils.psf_matching`.

    Returns
    -------
    Kernel
    """
    matching = import_optional("photutils.psf_matching", needed_for="match_psf with a window")
    # Renamed in photutils 3.0.
    make = getattr(matching, "make_kernel", None) or matching.create_matching_kernel
    n = max(source.shape[-1], target.shape[-1])
    padded = [np.pad(image, (n - image.shape[-1]) // 2) for image in (source, target)]
    array = np.asarray(make(*padded, window=window))
    return _Match(source, target, n // 2).judge(array)


def correlated_power(kernel, correlation=1.0):
    """Sum of the squares of a kernel's pixels, for noise that is correlated already.

    The noise is taken as white noise under a Gaussian whose width gives the correlation its value;
    without correlation it is the plain sum of squares.

    Parameters
    ----------
    kernel : (n, n) array
        Of unit sum.
    correlation : float or array, optional
        Variance of the sum over a large aperture over the sum of the variances of its pixels. Below
        1 it counts as 1.

    Returns
    -------
    array, shaped as ``correlation``
        Variance of a pixel after the kernel, in units of the variance that the sum over a large
        aperture has per pixel; this the kernel does not change.
    """
    correlation = np.maximum(np.asarray(correlation, dtype=float), 1.0)
    n = fft.next_fast_len(2 * kernel.shape[-1], real=True)
    own = fft.irfft2(np.abs(fft.rfft2(kernel, s=(n, n))) ** 2, s=(n, n))
    reach = kernel.shape[-1] - 1
    own = np.roll(own, (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    lag2 = np.arange(-reach, reach + 1) ** 2
    # Correlation along one axis of noise under a Gaussian, as a function of the lag.
    lag2_scale = 4 * np.interp(np.sqrt(correlation), *_gaussian_widths())[..., np.newaxis] ** 2
    along = np.exp(-lag2 / lag2_scale) / np.sqrt(correlation)[..., np.newaxis]
    return np.einsum("...y,yx,...x->...", along, own, along)


@lru_cache(maxsize=1)
def _gaussian_widths():
    """Square root of the correlation factor, rising, and the Gaussian width that gives it."""
    widths = np.geomspace(0.05, 40, 400)
    lags = np.arange(-400, 401)
    return np.exp(-(lags**2) / (4 * widths[:, np.newaxis] ** 2)).sum(axis=1), widths
