"""Kernels that turn one point spread function into another; arrays only."""

from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.linalg import cho_factor, cho_solve

from .._optional import import_optional
from ._psf_images import measure_fwhm, moffat_image

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

# Exponent of the profile that stands for unknown correlation.
_NOISE_BETA = 2.5
# Radii of kernels that are tried, in FWHM of the target, and how strongly they are smoothed.
_RADII = (0.75, 1.25, 2.0, 2.75, 3.5)
_RIDGES = (1e-3, 1e-4, 1e-5)
# A larger kernel has to lower the residual to this fraction, or the next ridge is taken.
_WORTHWHILE = 0.9


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
    """Find the smoothest kernel that turns one point spread function into another.

    Every pixel of the kernel is free; they follow by least squares from
    ``|source * kernel - target|² + ridge |kernel|²``, with the sum held at 1. The ridge weighs the
    noise that the kernel lets through, so that noise in the images is not fitted. It is lowered, and
    for each ridge the radius grows as far as that helps, until the residual is half the tolerance.

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
    systems = [_Equations(power, cross, radius) for radius in radii]
    best = None
    for ridge in _RIDGES:
        before = np.inf
        for equations in systems:
            kernel = match.judge(equations.solve(ridge * power[0, 0]))
            if kernel.gain <= MAX_GAIN and (best is None or kernel.residual < best.residual):
                best = kernel
                if best.residual <= 0.5 * tolerance:
                    return best
            if kernel.residual > _WORTHWHILE * before:
                break
            before = kernel.residual
    return best or kernel._replace(residual=np.inf)


class _Equations:
    """Normal equations of the pixels of a kernel within a radius."""

    def __init__(self, power, cross, radius):
        offset = np.arange(-radius, radius + 1)
        self._inside = offset[:, np.newaxis] ** 2 + offset**2 <= (radius + 0.5) ** 2
        self._y, self._x = (index - radius for index in np.nonzero(self._inside))
        self._power, self._cross = power, cross

    @cached_property
    def _matrix(self):
        y, x = self._y, self._x
        return self._power[np.subtract.outer(y, y), np.subtract.outer(x, x)]

    @cached_property
    def _right(self):
        return np.stack([self._cross[self._y, self._x], np.ones(len(self._y))], axis=1)

    def solve(self, ridge):
        """Kernel of unit sum; the ridge is added to the diagonal, whose value it shares."""
        matrix = self._matrix.copy()
        matrix[np.diag_indices_from(matrix)] += ridge
        free, unit = cho_solve(cho_factor(matrix, overwrite_a=True), self._right).T
        kernel = np.zeros(self._inside.shape)
        kernel[self._inside] = free + unit * ((1 - free.sum()) / unit.sum())
        return kernel


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

    The noise is taken as white noise smoothed by a Moffat profile of exponent 2.5, whose width
    gives the correlation its value: between the compact kernels of resampling and the winged ones
    of matched point spread functions. Without correlation it is the plain sum of squares.

    Parameters
    ----------
    kernel : (n, n) array
        Weights.
    correlation : float, optional
        Variance of the sum over a large aperture over the sum of the variances of its pixels. Below
        1 it counts as 1.

    Returns
    -------
    float
        Variance after the kernel, in units of the variance per pixel of the sum over a large
        aperture before it.
    """
    if correlation <= 1:
        return float(np.sum(kernel**2))
    smoothing = moffat_image(np.interp(correlation, *_widths_of_correlation()), _NOISE_BETA)
    n = fft.next_fast_len(max(kernel.shape) + len(smoothing) - 1, real=True)
    spectrum = fft.rfft2(kernel, s=(n, n)) * fft.rfft2(smoothing, s=(n, n))
    return float(np.sum(fft.irfft2(spectrum, s=(n, n)) ** 2))


@lru_cache(maxsize=1)
def _widths_of_correlation():
    """Correlation that Moffat profiles give to white noise, rising, and their FWHM in pixels."""
    widths = np.geomspace(0.05, 30, 120)
    images = (moffat_image(width, _NOISE_BETA) for width in widths)
    return np.array([1 / np.sum(image**2) for image in images]), widths
