"""What a pair is like: common coverage, depth of each survey, offset between the two images."""

import astropy.units as u
import numpy as np

from ..processing.depth import point_source_depth

__all__ = ["common_coverage", "depth", "image_offsets"]

# Width of the window in which a galaxy is centred, arcsec, and its reach in units of that.
_WINDOW = 1.5
_REACH = 3.0
_ITERATIONS = 30
_LEAST_RESPONSE = 0.1
_CONVERGED = 1e-4  # pixels


def common_coverage(first, second):
    """Fraction of pixels that are good in both surveys: (n, n_band) array; 0 for bad rows."""
    coverage = np.zeros(first.shape[:2])
    for row in np.flatnonzero(first.good & second.good):
        bad = np.zeros(first.shape[1:], dtype=bool)
        for cutouts in (first, second):
            if cutouts.mask is not None:
                bad |= cutouts.mask[row]
            if cutouts.ivar is not None:
                bad |= cutouts.ivar[row] == 0
        coverage[row] = 1 - bad.mean(axis=(1, 2))
    return coverage


def depth(cutouts):
    """Magnitude of a point source that is detected at 5 sigma: (n, n_band) Quantity.

    NaN for bad rows, and where noise, unit or point spread function are not known.
    """
    known = cutouts.ivar is not None and cutouts.psf_fwhm is not None
    if not known or cutouts.pixel_scale is None or cutouts.unit != u.nmgy:
        return np.full(cutouts.shape[:2], np.nan) * u.mag
    return point_source_depth(cutouts)


def noise_correlation(cutouts):
    """Column of that name, (n, n_band); 1 where there is none."""
    if "noise_correlation" not in cutouts.catalog.colnames:
        return np.ones(cutouts.shape[:2])
    return np.broadcast_to(
        np.asarray(cutouts.catalog["noise_correlation"], dtype=float), cutouts.shape[:2]
    )


def image_offsets(first, second):
    """Distance between the centres of the galaxy in the images of two surveys on one grid.

    The centre is the centroid in a Gaussian window of 1.5 arcsec that follows it, in the mean of
    the bands, with the same weights for both surveys, so that a colour gradient does not move it.

    Returns
    -------
    offset, error : (n,) array
        Arcsec; NaN for bad rows, without inverse variance, and where no centre is found. The error
        is that of each coordinate, from the inverse variance.

    References
    ----------
    Bertin & Arnouts 1996, A&AS 117, 393 (windowed positions, in SExtractor since version 2.5).
    """
    n = len(first)
    offset, error = np.full((2, n), np.nan)
    if first.ivar is None or second.ivar is None or first.pixel_scale is None:
        return offset, error
    scale = first.pixel_scale.to_value("arcsec")
    correlations = noise_correlation(first), noise_correlation(second)
    for row in np.flatnonzero(first.good & second.good):
        images, variances = _mean_images(first, second, correlations, row)
        found = [
            _centre(image, variance, _WINDOW / scale)
            for image, variance in zip(images, variances, strict=True)
        ]
        if None in found:
            continue
        (x1, y1, variance1), (x2, y2, variance2) = found
        offset[row] = np.hypot(x1 - x2, y1 - y2) * scale
        error[row] = np.sqrt(variance1 + variance2) * scale
    return offset, error


def _mean_images(first, second, correlations, row):
    """Means over the bands, (2, ny, nx), and their variances; common bad pixels are 0."""
    parts = [cutouts.arrays([row])[:2] for cutouts in (first, second)]
    data = np.stack([part[0][0] for part in parts]).astype(float)
    ivar = np.stack([part[1][0] for part in parts]).astype(float)
    good = (ivar > 0).all(axis=0)
    with np.errstate(divide="ignore"):
        variance = np.where(good, 1 / ivar, 0.0)
    for part, correlation in zip(variance, correlations, strict=True):
        part *= correlation[row][:, np.newaxis, np.newaxis]
    both = zip(variance.sum(axis=0), good, strict=True)
    typical = np.array([np.median(v[g]) if g.any() else 0.0 for v, g in both])
    with np.errstate(divide="ignore"):
        weights = np.where(typical > 0, 1 / typical, 0.0)[:, np.newaxis, np.newaxis]
    return (data * good * weights).sum(axis=1), (variance * weights**2).sum(axis=1)


def _centre(image, variance, sigma):
    """x, y from the middle and the variance of each, in pixels; None where there is no centre."""
    # Twice the reach about the middle: what is farther off is another object.
    half = int(np.ceil(2 * _REACH * sigma))
    cut = tuple(slice(max((n - 1) // 2 - half, 0), (n - 1) // 2 + half + 1) for n in image.shape)
    rows, columns = ((np.arange(n) - (n - 1) / 2)[s] for n, s in zip(image.shape, cut, strict=True))
    image, variance, rows = image[cut], variance[cut], rows[:, np.newaxis]
    x = y = 0.0
    for _ in range(_ITERATIONS):
        dx, dy = columns - x, rows - y
        r2 = dx**2 + dy**2
        window = np.where(r2 < (_REACH * sigma) ** 2, np.exp(-0.5 * r2 / sigma**2), 0)
        light = window * image
        flux = light.sum()
        if not flux > 0:
            return None
        # How much less the windowed mean moves than the galaxy does, for Gaussian profiles.
        response = 1 - 0.5 * (light * r2).sum() / flux / sigma**2
        if response < _LEAST_RESPONSE:
            return None
        step = [float((light * d).sum() / flux / response) for d in (dx, dy)]
        x, y = x + step[0], y + step[1]
        if np.hypot(x, y) > _REACH * sigma:
            return None
        if np.hypot(*step) < _CONVERGED:
            spread = 0.5 * (window**2 * variance * r2).sum() / (flux * response) ** 2
            return x, y, float(spread)
    return None
