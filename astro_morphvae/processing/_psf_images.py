"""Images of the point spread function: Moffat profiles, resampling, width; arrays only."""

from functools import lru_cache

import numpy as np

__all__ = ["MIN_FWHM", "measure_fwhm", "moffat_image", "normalise", "resample_psf"]

#: Narrowest width, in pixels, of a point spread function that its pixels can still describe.
MIN_FWHM = 1.5

# Half-width of a Moffat image, in FWHM. Beyond it lie 0.1 % of the flux at an exponent of 3.5.
_MOFFAT_EXTENT = 4.5
# Zeros of the sinc function within the Lanczos kernel; PSFEx resamples its models with 4.
_LANCZOS = 4
# Samples per pixel along an axis when a width is measured.
_FINE = 8


def moffat_image(fwhm, beta):
    """Draw a round Moffat profile at the centre of a square of odd size.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum, pixels.
    beta : float
        Exponent, above 1.

    Returns
    -------
    (n, n) array
        Of unit sum.

    References
    ----------
    .. [1] Moffat 1969, A&A 3, 455. [2] Trujillo et al. 2001, MNRAS 328, 977.
    """
    half = int(np.ceil(_MOFFAT_EXTENT * fwhm))
    offset = np.arange(-half, half + 1)
    core2 = (0.5 * fwhm) ** 2 / (2 ** (1 / beta) - 1)
    return normalise((1 + (offset[:, np.newaxis] ** 2 + offset**2) / core2) ** -beta)


def normalise(image):
    """Scale an image, or each of a stack, to unit sum."""
    return image / image.sum(axis=(-2, -1), keepdims=True)


def resample_psf(image, step):
    """Sample the image of a point spread function at pixels of another size.

    The image is taken as the effective point spread function: what a pixel centred at each point
    collects of a point source, response of the pixel included. So it is interpolated (Lanczos,
    four zeros), not averaged.

    Parameters
    ----------
    image : (..., n, n) array
        Centred; n may be even.
    step : float
        Size of an output pixel in pixels of ``image``.

    Returns
    -------
    (..., m, m) array
        m is odd, so that the centre lies on a pixel, and as large as fits into ``image``. Of unit
        sum.

    References
    ----------
    .. [1] Bertin 2011, ASP Conf. 442, 435 (PSFEx; the models are resampled in this way).
    """
    matrices = [_sampling_matrix(n, float(step)) for n in image.shape[-2:]]
    if all(matrix is None for matrix in matrices):
        return normalise(np.asarray(image, dtype=float))
    along_y, along_x = (
        np.eye(n) if matrix is None else matrix
        for n, matrix in zip(image.shape[-2:], matrices, strict=True)
    )
    return normalise(along_y @ np.asarray(image, dtype=float) @ along_x.T)


@lru_cache(maxsize=32)
def _sampling_matrix(n, step):
    """Interpolation of n centred samples at a step of theirs; None where nothing changes."""
    if step == 1 and n % 2:
        return None
    # To the outermost samples, with a margin for the rounding of the step.
    half = int((n - 1) / 2 / step + 1e-9)
    return _lanczos(n, np.arange(-half, half + 1) * step)


def _lanczos(n, offsets):
    """Weights of n centred samples at offsets from their centre: (n_offset, n)."""
    distance = offsets[:, np.newaxis] + (n - 1) / 2 - np.arange(n)
    weights = np.where(
        np.abs(distance) < _LANCZOS, np.sinc(distance) * np.sinc(distance / _LANCZOS), 0.0
    )
    return weights / weights.sum(axis=1, keepdims=True)


@lru_cache(maxsize=32)
def _fine_matrix(n):
    steps = (n // 2 - _LANCZOS) * _FINE
    return _lanczos(n, np.arange(-steps, steps + 1) / _FINE)


def measure_fwhm(image):
    """Measure the full width at half maximum of a point spread function, in pixels.

    It is the diameter of the circle that has the area of the part of the image above half its
    maximum. No profile is assumed, and an elongated image gets the geometric mean of its axes.

    Parameters
    ----------
    image : (n, n) array
        Centred; n is odd.

    Returns
    -------
    float
    """
    # A box that holds that part, with room for an elongation and for the interpolation.
    radius = np.sqrt(np.count_nonzero(image > 0.5 * image.max()) / np.pi)
    centre, half = image.shape[-1] // 2, int(2 * radius) + 3 + _LANCZOS
    image = np.pad(image, max(half - centre, 0))
    centre = image.shape[-1] // 2
    box = slice(centre - half, centre + half + 1)
    matrix = _fine_matrix(2 * half + 1)
    fine = matrix @ image[box, box] @ matrix.T
    # Samples on the edge count by the part of them that lies above.
    slope = np.hypot(*np.gradient(fine))
    above = fine - 0.5 * fine.max()
    share = np.where(
        np.abs(above) < 0.5 * slope, 0.5 + above / np.maximum(slope, 1e-300), above > 0
    )
    return float(2 * np.sqrt(share.sum() / np.pi) / _FINE)
