"""Variance of output pixels where the noise of the input is correlated already."""

import numpy as np
from scipy import fft

from ._kernels import noise_spectrum

__all__ = ["Inflation", "fit_inflation"]

# Output pixels whose weights are looked at, and the numbers that these may take in all.
_SAMPLE, _NUMBERS = 256, 1 << 20
# Beyond this correlation noise is the same over any kernel.
_LARGEST = 3000.0


class Inflation:
    """Factor on the variance that independent noise would have, for each output pixel.

    Output pixels lie between input pixels in different ways. Independent noise is averaged much
    midway and not at all on a pixel, smooth noise is the same everywhere; noise in between is taken
    to be the sum of two such parts, so that the factor is linear in the inverse of the sum of
    squared weights.

    Parameters
    ----------
    squares : (n,) array
        Sums of the squared weights of some output pixels.
    powers : (n,) array
        Variances of those pixels, in units of the variance of a pixel of the input.
    """

    def __init__(self, squares, powers):
        inverse, factors = 1 / squares, powers / squares
        offset = inverse - inverse.mean()
        spread = np.mean(offset**2)
        same = spread <= 1e-8 * inverse.mean() ** 2
        self._slope = 0.0 if same else np.mean(offset * factors) / spread
        self._constant = factors.mean() - self._slope * inverse.mean()
        self._limits = factors.min(), factors.max()

    def __call__(self, squares):
        """Factors for the sums of squared weights of output pixels."""
        return np.clip(self._constant + self._slope / squares, *self._limits)


def fit_inflation(weights_of, margin, shape, pixels, correlation):
    """Find what the correlation of the input's noise does to the variance of output pixels.

    Parameters
    ----------
    weights_of, margin
        From `_carry.weigher`.
    shape : tuple of int
        (ny, nx) of the input.
    pixels : (n,) array of int
        Output pixels on the image.
    correlation : (n_band,) array
        Variance of the sum over a large aperture over the sum of the variances of its pixels. Of 1
        or less, and where it is not known, noise counts as independent.

    Returns
    -------
    list of (Inflation or None)
        Of each band; None where the noise is independent.
    """
    found = {}
    for value in np.unique(correlation):
        if 1 < value < np.inf:
            if not found:
                squares, spectra = _sampled(weights_of, margin, shape, pixels)
            found[value] = Inflation(squares, _powers(spectra, min(value, _LARGEST)))
    return [found.get(value) for value in correlation]


def _sampled(weights_of, margin, shape, pixels):
    """Sum of squares and power spectrum of the weights of some output pixels."""
    size = tuple(fft.next_fast_len(2 * n, real=True) for n in margin)
    n_sample = min(_SAMPLE, max(_NUMBERS // (size[0] * size[1]), 8))
    if len(pixels) > n_sample:
        pixels = np.random.default_rng(0).choice(pixels, n_sample, replace=False)
    weights, indices = weights_of(pixels)
    # All on one pixel of the margin: those of an output pixel that is not quite on the image.
    whole = np.ptp(indices, axis=1) > 0
    if whole.any():
        weights, indices = weights[whole], indices[whole]
    y, x = np.divmod(indices, shape[1] + 2 * margin[1])
    y -= y.min(axis=1, keepdims=True)
    x -= x.min(axis=1, keepdims=True)
    grids = np.zeros((len(weights), *size))
    np.add.at(grids, (np.arange(len(weights))[:, np.newaxis], y, x), weights)
    squares = np.sum(grids**2, axis=(1, 2))
    return squares, np.abs(fft.fft2(grids)) ** 2


def _powers(spectra, correlation):
    """Variances of output pixels, in units of the variance of a pixel of the input."""
    size = spectra.shape[1:]
    n = fft.next_fast_len(max(size) + int(6 * np.sqrt(correlation)), real=True)
    own = fft.irfft2(noise_spectrum(correlation, "resampled", (n, n)), s=(n, n))
    # Distances between the pixels of a kernel, wrapped around as in the spectra of the weights.
    y, x = (np.rint(fft.fftfreq(k, 1 / k)).astype(int) for k in size)
    spectrum = fft.fft2(own[np.ix_(y, x)] / own[0, 0]).real
    return np.tensordot(spectra, spectrum, axes=2) / spectrum.size
