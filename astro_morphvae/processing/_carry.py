"""Flux, variance and mask of an image, carried to other pixels by one set of weights."""

import numpy as np
from scipy.sparse import csr_array

from ._interpolation import InterpolationWeights
from ._probing import probe_weights, window_size

__all__ = ["carry", "weigher"]

# Weight, out of 1, of bad pixels below which an output pixel is good: rounding of float32.
_TOUCH = 1e-5
# Weights held at a time: a few megabytes, near the processor, and work enough between the moments
# when threads wait for each other.
_BLOCK = 1 << 19


def weigher(source, target, pixels, shape, method, kernel):
    """Prepare the weights of one method.

    Parameters
    ----------
    source, target : `~astropy.wcs.WCS`
    pixels : PixelMap
    shape : tuple of int
        (ny, nx) of the input.
    method : {"interp", "adaptive", "exact"}
    kernel : str
        Kernel of ``"interp"``.

    Returns
    -------
    weights_of : callable
        Takes a slice of the output pixels in a row, or their indices; returns weights and indices,
        (n, n_tap) each, of pixels of the input with a margin around it.
    margin : tuple of int
        Pixels of that margin along y and x.
    n_tap : int
    """
    if method == "interp":
        weights = InterpolationWeights(pixels, shape, kernel)
        return weights, weights.margin, weights.margin[0] * weights.margin[1]
    weights, indices = probe_weights(source, target, pixels, shape, method)
    k = window_size(pixels, method)
    return (lambda part: (weights[part], indices[part])), (k, k), k * k


def carry(weights_of, margin, n_tap, area, data, ivar=None, mask=None, inflations=None):
    """Carry the images of one object to the output pixels.

    Parameters
    ----------
    weights_of, margin, n_tap
        From `weigher`.
    area : (ny, nx) array
        Input pixels in each output pixel; NaN off the image.
    data : (n_band, ny_in, nx_in) array of float32
        Flux per pixel; 0 where masked.
    ivar : array of float32, optional
        Inverse variance, shaped as the data; 0 where nothing is known.
    mask : array of bool, optional
        True for bad pixels, shaped as the data.
    inflations : list of (Inflation or None), optional
        Of each band: factors on the variance, where the noise of the input is correlated already.

    Returns
    -------
    flux : (n_band, ny, nx) array of float32
        Flux per output pixel. Where bad pixels have up to half of the weight, the others stand
        for them; where they have more it is 0.
    ivar : array of float32 or None
        From the variances, each with the square of its weight; 0 where masked.
    mask : array of bool
        True where a bad pixel, or one off the image, has any weight.
    correlation : (n_band,) array
        Variance of the sum of many output pixels over the sum of their variances, in units of the
        same for input pixels: in a circle of a third of the width about the centre, where the
        object is. It changes over the image where pixels of nearly one size drift past each other.
    """
    n_band, shape = len(data), area.shape
    middle = _middle(shape)
    area = np.nan_to_num(area.ravel()).astype(np.float32)
    n = area.size
    flux = np.empty((n_band, n), dtype=np.float32)
    bad = np.empty((n_band, n), dtype=bool)
    out_ivar = None if ivar is None else np.zeros((n_band, n), dtype=np.float32)
    frame = _framed(np.zeros(data.shape[1:], dtype=np.float32), margin, 1)
    bands = [
        _Band(data[b], None if ivar is None else ivar[b], None if mask is None else mask[b], margin)
        for b in range(n_band)
    ]
    ones = np.ones_like(frame)
    inflations = inflations or [None] * n_band
    sums = np.zeros((2, 1 + n_band))  # of areas, and of variances in each band; all, middle
    step = max(_BLOCK // n_tap, 1)
    for start in range(0, n, step):
        part = slice(start, start + step)
        block = _Block(*weights_of(part), frame)
        scale = area[part]
        inside = np.where(block.off, 0, scale).astype(float)
        squares = block.squares @ ones
        terms = [inside] + [inside**2 * squares] * n_band
        for b, band in enumerate(bands):
            flux[b, part], bad[b, part], variance = band.carried(block)
            flux[b, part] *= scale
            factor = 1.0 if inflations[b] is None else inflations[b](squares)
            terms[1 + b] = terms[1 + b] * factor
            if ivar is not None:
                with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                    inverse = 1.0 / (variance * factor * scale**2)
                inverse[~np.isfinite(inverse)] = 0.0
                out_ivar[b, part] = inverse
        terms = np.stack(terms)
        sums += np.stack([terms.sum(axis=1), terms[:, middle[part]].sum(axis=1)])
    shape = (n_band, *shape)
    if ivar is not None:
        out_ivar = out_ivar.reshape(shape)
    covered, *variances = sums[1] if sums[1, 1] > 0 else sums[0]
    correlation = np.array([covered / value if value > 0 else 1.0 for value in variances])
    return flux.reshape(shape), out_ivar, bad.reshape(shape), correlation


class _Block:
    """Weights of some output pixels, and which of them reach beyond the image."""

    def __init__(self, weights, indices, frame):
        n, n_tap = weights.shape
        rows = np.arange(0, n * n_tap + 1, n_tap, dtype=np.int32)

        def matrix(values):
            return csr_array((values.ravel(), indices.ravel(), rows), shape=(n, frame.size))

        self.weights, self.squares = matrix(weights), matrix(weights * weights)
        self._sizes = matrix(np.abs(weights))
        self.off = self.touch(frame)
        self.off_share = self.share(self.off, frame)

    def touch(self, pixels):
        """Which output pixels give weight to the pixels that are 1 in an image of 0 and 1."""
        return self._sizes @ pixels > _TOUCH

    def share(self, rows, bad):
        """Weight that some output pixels give to pixels that are not bad."""
        return (self.weights @ (1 - bad))[rows] if rows.any() else np.ones(0, dtype=np.float32)


class _Band:
    """Planes of one band, with a margin around them, as the weights want them."""

    def __init__(self, data, ivar, mask, margin):
        self.data = _framed(data, margin, 0)
        self.bad = self.variance = self.unknown = None
        if mask is not None and mask.any():
            self.bad = _framed(mask, margin, 1)
        if ivar is not None:
            with np.errstate(divide="ignore", over="ignore"):
                variance = np.where(ivar > 0, 1 / ivar, np.inf).astype(np.float32)
            unknown = ~np.isfinite(variance)
            if unknown.any():
                variance[unknown] = 0
                if mask is None or not np.array_equal(mask, unknown):
                    self.unknown = _framed(unknown, margin, 1)
            self.variance = _framed(variance, margin, 0)

    def carried(self, block):
        """Flux, whether it is bad, and variance (inf where unknown) of the pixels of a block."""
        flux = block.weights @ self.data
        lost, share = block.off, block.off_share
        if self.bad is not None:
            lost = block.touch(self.bad)
            share = block.share(lost, self.bad)
        usable = share > 0.5
        flux[lost] = np.where(usable, flux[lost] / np.where(usable, share, 1), 0)
        if self.variance is None:
            return flux, lost, None
        variance = block.squares @ self.variance
        variance[lost] = np.inf
        if self.unknown is not None:
            variance[block.touch(self.unknown)] = np.inf
        return flux, lost, variance


def _middle(shape):
    """Pixels within a circle of a third of the width about the centre, in a row."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    return (np.hypot(y[:, np.newaxis], x) <= max(min(shape) / 6, 1)).ravel()


def _framed(image, margin, value):
    """One row of pixels: the image with a margin of one value around it."""
    (ny, nx), (my, mx) = image.shape, margin
    framed = np.full((ny + 2 * my, nx + 2 * mx), value, dtype=np.float32)
    framed[my : my + ny, mx : mx + nx] = image
    return framed.ravel()
