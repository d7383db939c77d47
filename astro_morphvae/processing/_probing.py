"""Weights of the resampling functions of reproject, read off their results."""

import math

import numpy as np

from .._optional import import_optional
from ..cutouts._wcs import quiet_astropy, shift_wcs

__all__ = ["ADAPTIVE_VARIANCE", "probe_weights", "window_size"]

# Output pixels that the adaptive kernel spans, and its width (two standard deviations); these are
# the defaults of reproject, written out because the window below rests on them.
_SAMPLED, _WIDTH = 4, 1.3

#: Variance of the adaptive kernel, in output pixels² (input pixels² where those are larger).
ADAPTIVE_VARIANCE = (_WIDTH / 2) ** 2


def window_size(pixels, method):
    """Input pixels, along each axis, among which those that one output pixel uses must be."""
    span = pixels.span
    if method == "adaptive":  # its kernel is no smaller than an input pixel
        span *= _SAMPLED / min(1, *pixels.stretch)
    return math.ceil(span - 1e-6) + 1


def probe_weights(source, target, pixels, shape, method):
    """Weights of input pixels in an output pixel, for the adaptive and the exact method.

    Both methods are linear: an output pixel is a weighted mean of input pixels that lie within a
    window. One image for each pixel of the window, with a 1 at every place that repeats by the
    size of the window, therefore reveals all weights, and with them what becomes of variances and
    masks, which reproject does not carry.

    Parameters
    ----------
    source, target : `~astropy.wcs.WCS`
        Celestial WCS of the input and of the output.
    pixels : PixelMap
        Positions of the output pixels on the input.
    shape : tuple of int
        (ny, nx) of the input.
    method : {"adaptive", "exact"}

    Returns
    -------
    weights : (n, k²) array of float32
    indices : (n, k²) array of int32
        Pixels of the input with a margin of k pixels around it. Each row of weights adds to 1;
        output pixels off the image have all their weight on a pixel of the margin.

    Raises
    ------
    ImportError
        If reproject is not installed.
    """
    reproject = import_optional("reproject", needed_for=f"method={method!r}")
    k = window_size(pixels, method)
    ny, nx = (n + 2 * k for n in shape)
    options = {"shape_out": pixels.x.shape, "return_footprint": False}
    if method == "adaptive":
        options |= {"kernel": "gaussian", "kernel_width": _WIDTH, "sample_region_width": _SAMPLED}
        options |= {"boundary_mode": "strict", "conserve_flux": False}
    function = getattr(reproject, f"reproject_{method}")
    weights = np.empty((pixels.x.size, k, k), dtype=np.float32)
    with quiet_astropy():
        framed = shift_wcs(source, -k, -k)
        for row in range(k):  # one by one, for all k² images might not fit into memory
            images = np.zeros((k, ny, nx))
            for column in range(k):
                images[column, row::k, column::k] = 1
            found = function((images, framed), target, **options)
            weights[:, row] = found.reshape(k, -1).T
    index_y = _nearest_of_each_class(pixels.y.ravel() + k, k)
    index_x = _nearest_of_each_class(pixels.x.ravel() + k, k)
    on_image = np.isfinite(weights).all(axis=(1, 2))
    for index, n in ((index_y, ny), (index_x, nx)):
        on_image &= (index.min(axis=1) >= 0) & (index.max(axis=1) < n)
    indices = (index_y[:, :, np.newaxis] * nx + index_x[:, np.newaxis]).astype(np.int32)
    weights[~on_image], indices[~on_image] = 0, 0
    weights[~on_image, 0, 0] = 1
    return weights.reshape(-1, k * k), indices.reshape(-1, k * k)


def _nearest_of_each_class(position, k):
    """Pixel nearest to each position among 0, k, 2k ..., among 1, k + 1 ..., and so on: (n, k)."""
    position = np.clip(np.nan_to_num(position, nan=-1.0), -(2**30), 2**30)[:, np.newaxis]
    first = np.arange(k)
    return (first + k * np.rint((position - first) / k)).astype(np.int64)
