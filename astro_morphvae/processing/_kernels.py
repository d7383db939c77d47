"""Kernels that turn one point spread function into another; arrays only."""

from functools import cached_property, lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from scipy import fft
from scipy.linalg import cho_factor, cho_solve

from .._optional import import_optional
from ._psf_images import measure_fwhm

__all__ = [
    "MAX_GAIN",
    "Kernel",
    "correlated_power",
    "fit_kernel",
    "noise_spectrum",
    "photutils_matching",
    "residual_of",
    "windowed_kernel",
]

#: Most that a kernel may amplify noise at any spatial frequency.
MAX_GAIN = 2.0

# Exponents of the power spectra that stand for correlation of which only the sum is known.
_EXPONENTS = {"resampled": 2.5, "matched": 1.5}
# Radii of kernels that are tried, in FWHM of the target; ridges, in units of the source's power.
# Smaller kernels would do for the core, but leave the wings where they are: some 0.5 % of the flux.
_RADII = (2.0, 2.75, 3.5)
_RIDGES = tuple(10.0**-power for power in np.arange(1.5, 6.1, 0.5))
# A kernel cut at a radius that misses the goal by more than this factor is not worth a fit.
_HOPELESS = 8.0


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
    """Source and target on one grid large enough to hold what convolution spreads.

    Parameters
    ----------
    source, target : (n, n) array
        Centred, of unit sum and odd sizes.
    radius : int
        Largest radius of a kernel.
    """

    def __init__(self, source, target, radius):
        need = max(source.shape[-1] + 2 * radius, target.shape[-1])
        n = fft.next_fast_len(need + 1, real=True)
        self.shape = (n, n)
        self.target = _at_origin(target, n)
        self.peak = self.target.max()
        self.source = fft.rfft2(_at_origin(source, n))
        self.total_power = float(np.sum(source**2))

    def residual(self, spectrum):
        """Of a kernel that is given by its Fourier transform."""
        matched = fft.irfft2(spectrum * self.source, s=self.shape)
        return float(np.abs(matched - self.target).max() / self.peak)

    def judge(self, array):
        """Say how well a kernel does."""
        spectrum = fft.rfft2(_at_origin(array, self.shape[0]))
        return Kernel(array, self.residual(spectrum), float(np.abs(spectrum).max()))

    @cached_property
    def correlations(self):
        """Of the source with itself, and with the target; by offset."""
        wanted = fft.rfft2(self.target)
        spectra = np.abs(self.source) ** 2, self.source.conj() * wanted
        return tuple(fft.irfft2(spectrum, s=self.shape) for spectrum in spectra)

    def unlimited(self, ridge):
        """Fourier transform of the kernel without a limit to its radius."""
        own = np.abs(self.source) ** 2 + ridge * self.total_power
        spectrum = self.source.conj() * fft.rfft2(self.target) / own
        return spectrum / spectrum[0, 0]

    def fit(self, inside, ridge):
        """Kernel of unit sum within a mask, by least squares."""
        y, x = np.nonzero(inside)
        half = len(inside) // 2
        own, cross = self.correlations
        matrix = own[np.subtract.outer(y, y), np.subtract.outer(x, x)]
        matrix[np.diag_indices_from(matrix)] += ridge * self.total_power
        right = np.stack([cross[y - half, x - half], np.ones(len(y))], axis=1)
        free, unit = cho_solve(
            cho_factor(matrix, overwrite_a=True, check_finite=False), right, check_finite=False
        ).T
        array = np.zeros(inside.shape)
        array[inside] = free + unit * ((1 - free.sum()) / unit.sum())
        return array


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
    noise that the kernel lets through, so that noise in the images is not fitted. The largest ridge
    and then the smallest radius are taken that bring the residual to half the tolerance.

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
    goal = 0.5 * tolerance
    best = None
    for tried, (ridge, pixels) in enumerate(_promising(match, goal)):
        if tried and best is not None and best.residual <= tolerance:
            break
        for radius in radii:
            y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
            inside = y**2 + x**2 <= (radius + 0.5) ** 2
            cut = np.where(inside, pixels[y, x], 0)
            if match.judge(cut / cut.sum()).residual > _HOPELESS * goal and radius < radii[-1]:
                continue
            kernel = match.judge(match.fit(inside, ridge))
            if kernel.gain <= MAX_GAIN and (best is None or kernel.residual < best.residual):
                best = kernel
                if best.residual <= goal:
                    return best
    return best or kernel._replace(residual=np.inf)


def _promising(match, goal):
    """Yield ridges, from the largest that lets a kernel of unlimited radius reach the goal.

    Yields
    ------
    ridge : float
    pixels : (n, n) array
        Of that kernel, with the centre at the first.
    """
    found = []
    for ridge in _RIDGES:
        spectrum = match.unlimited(ridge)
        if found and np.abs(spectrum).max() > MAX_GAIN:
            break
        found.append((ridge, fft.irfft2(spectrum, s=match.shape)))
        if match.residual(spectrum) <= 0.8 * goal:
            found = found[-1:]
            break
    # Where none reaches it: the smallest that is not too sharp.
    yield found[-1]
    for ridge in (0.1 * found[-1][0], _RIDGES[-1]):
        if ridge < found[-1][0]:
            yield ridge, fft.irfft2(match.unlimited(ridge), s=match.shape)


def photutils_matching():
    """Import what photutils has for matching, or raise an ImportError that says how to get it."""
    import_optional("photutils", needed_for="match_psf with a window")
    # Where it was before photutils 3.0.
    new, old = "photutils.psf_matching", "photutils.psf.matching"
    return import_module(new if find_spec(new) else old)


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
    matching = photutils_matching()
    # Renamed in photutils 3.0.
    make = getattr(matching, "make_kernel", None) or matching.create_matching_kernel
    n = max(source.shape[-1], target.shape[-1])
    padded = [np.pad(image, (n - image.shape[-1]) // 2) for image in (source, target)]
    array = np.asarray(make(*padded, window=window))
    return _Match(source, target, n // 2).judge(array)


def noise_spectrum(correlation, origin, shape):
    """Power spectrum of noise of which only the correlation is known.

    It is taken to be ``exp(-(f / f0) ** exponent)``; f0 gives the correlation its value. Exponents
    are those that bring the pulls of simulated noise closest to unit width: noise that was
    resampled is nearly flat up to some frequency, noise that passed a matching kernel has wings.

    Parameters
    ----------
    correlation : float
        Variance of the sum over a large aperture over the sum of the variances of its pixels. Below
        1 it counts as 1, for which the spectrum is flat.
    origin : {"resampled", "matched"}
        Where the correlation comes from.
    shape : tuple of int
        (ny, nx) of the grid.

    Returns
    -------
    (ny, nx // 2 + 1) array
        For the frequencies of a real Fourier transform; 1 at frequency 0.
    """
    y, x = fft.fftfreq(shape[0])[:, np.newaxis], fft.rfftfreq(shape[1])
    if correlation <= 1:
        return np.ones(np.broadcast_shapes(y.shape, x.shape))
    exponent = _EXPONENTS[origin]
    cutoff = np.interp(-correlation, *_cutoffs(exponent))
    return np.exp(-((np.hypot(y, x) / cutoff) ** exponent))


def correlated_power(weights, correlation, origin):
    """Sum of the squares of weights, for noise that is correlated already.

    Parameters
    ----------
    weights : (ny, nx) array
        A kernel, or an aperture.
    correlation, origin
        As for `noise_spectrum`. Without correlation it is the plain sum of squares.

    Returns
    -------
    float
        Variance of the weighted sum, in units of the variance per pixel that the sum over a large
        aperture has.
    """
    if correlation <= 1:
        return float(np.sum(weights**2))
    n = fft.next_fast_len(max(weights.shape) + int(6 * np.sqrt(correlation)), real=True)
    spectrum = np.sqrt(noise_spectrum(correlation, origin, (n, n)))
    return float(np.sum(fft.irfft2(fft.rfft2(weights, s=(n, n)) * spectrum, s=(n, n)) ** 2))


@lru_cache(maxsize=2)
def _cutoffs(exponent):
    """Correlations that power spectra give to noise, negative and rising, and their f0."""
    frequency = fft.fftfreq(256)[:129]
    distance = np.hypot(frequency[:, np.newaxis], frequency)
    ends = np.ones(129)
    ends[[0, -1]] = 0.5
    share = np.outer(ends, ends) / ends.sum() ** 2
    cutoffs = np.geomspace(0.01, 300, 200)
    means = [np.sum(share * np.exp(-((distance / cutoff) ** exponent))) for cutoff in cutoffs]
    return -1 / np.array(means), cutoffs
