"""What users know of point spread functions, as images on the pixels of their cutouts."""

import astropy.units as u
import numpy as np

from ..cutouts._parse import parse_angle, parse_psf_fwhm
from ._psf_images import measure_fwhm, moffat_image, resample_psf
from .psfex import PSFExModel

__all__ = ["parse_psf", "parse_target"]


class _Widths:
    """Moffat profiles of given widths: (n or 1, n_band), in pixels."""

    def __init__(self, fwhm, beta):
        self.fwhm, self.beta = fwhm, beta

    def key(self, row):
        """Return what rows have in common that have the same point spread functions."""
        return tuple(self.fwhm[row if len(self.fwhm) > 1 else 0])

    def images(self, key):
        """Image of each band; None where it is unknown."""
        return [
            moffat_image(fwhm, self.beta) if np.isfinite(fwhm) and fwhm > 0 else None
            for fwhm in key
        ]

    def widths(self, key):
        """Width of each band in pixels; NaN where it is unknown."""
        return key


class _Drawn:
    """What has no widths but those of its images."""

    def widths(self, key):
        return [np.nan if image is None else measure_fwhm(image) for image in self.images(key)]


class _Images(_Drawn):
    """Images as they are given: (n or 1, n_band, ny, nx), and the size of a pixel in theirs."""

    def __init__(self, images, step):
        self._images, self._step = images, step

    def key(self, row):
        return row if len(self._images) > 1 else 0

    def images(self, key):
        return [
            resample_psf(image, self._step)
            if np.isfinite(image).all() and image.sum() > 0
            else None
            for image in self._images[key]
        ]


class _Models(_Drawn):
    """One PSFEx model a band, at the positions of the rows."""

    def __init__(self, models, x, y, pixel_scale):
        self._models, self._x, self._y, self._pixel_scale = models, x, y, pixel_scale

    def key(self, row):
        return row

    def images(self, key):
        x, y = self._x[key], self._y[key]
        if not (np.isfinite(x) and np.isfinite(y)):
            return [None] * len(self._models)
        return [
            model.evaluate(
                x, y, pixel_scale=None if model.pixel_scale is None else self._pixel_scale
            )
            for model in self._models
        ]


def parse_psf(psf, cutouts, beta):
    """Point spread functions of the rows.

    Parameters
    ----------
    psf
        As `match_psf` takes it.
    cutouts : CutoutSet
        Whose they are.
    beta : float
        Exponent of Moffat profiles.

    Returns
    -------
    object
        With ``key(row)``, ``images(key)`` and ``widths(key)``.
    """
    n, n_band = cutouts.shape[:2]
    if psf is None:
        if cutouts.psf_fwhm is None:
            raise ValueError("psf: the cutouts do not know their psf_fwhm, so it has to be given")
        psf = cutouts.psf_fwhm
    models = [psf] * n_band if isinstance(psf, PSFExModel) else psf
    if isinstance(models, (list, tuple)) and any(isinstance(m, PSFExModel) for m in models):
        return _parse_models(models, cutouts)
    if _is_angle(psf):
        return _Widths(_in_pixels("psf", psf, cutouts, (n, n_band)), _parse_beta("psf_beta", beta))
    return _parse_images("psf", psf, cutouts, n)


def parse_target(fwhm, psf, cutouts, beta):
    """Image wanted in each band, and its width.

    Parameters
    ----------
    fwhm, psf
        As `match_psf` takes them.
    cutouts : CutoutSet
        To be matched.
    beta : float
        Exponent of Moffat profiles.

    Returns
    -------
    images : list of array
        One a band.
    widths : sequence of float
        FWHM of each, in pixels.
    fwhm : (n_band,) `~astropy.units.Quantity` or None
        The same as angles; None where the pixel scale is unknown.
    """
    if (fwhm is None) == (psf is None):
        raise ValueError("give exactly one of target_fwhm and target_psf")
    if fwhm is not None:
        if not _is_angle(fwhm):
            raise TypeError(f"target_fwhm: expected an angle such as 1.6 * u.arcsec, got {fwhm!r}")
        angle = parse_psf_fwhm(fwhm, len(cutouts.bands))
        pixels = _in_pixels("target_fwhm", angle, cutouts, None)
        source = _Widths(pixels, _parse_beta("beta", beta))
    else:
        angle, source = None, _parse_images("target_psf", psf, cutouts, None)
    key = source.key(0)
    images = source.images(key)
    if any(image is None for image in images):
        name = "target_psf" if fwhm is None else "target_fwhm"
        raise ValueError(f"{name}: expected something positive and finite in every band")
    widths = source.widths(key)
    if angle is None and cutouts.pixel_scale is not None:
        angle = widths * cutouts.pixel_scale
    return images, widths, angle


def _is_angle(value):
    return isinstance(value, u.Quantity) and value.unit.is_equivalent(u.arcsec)


def _parse_beta(name, beta):
    if not (np.isscalar(beta) and np.isfinite(beta) and beta > 1):
        raise ValueError(f"{name}: expected a Moffat exponent above 1, got {beta!r}")
    return float(beta)


def _pixel_scale(name, cutouts):
    if cutouts.pixel_scale is None:
        raise ValueError(f"{name}: the cutouts have no common pixel scale to convert an angle with")
    return cutouts.pixel_scale


def _in_pixels(name, angle, cutouts, table):
    """Widths in pixels, (n or 1, n_band)."""
    n_band = len(cutouts.bands)
    pixels = (angle / _pixel_scale(name, cutouts)).to_value(u.one)
    if table is not None and pixels.ndim == 2 and pixels.shape == table:
        return pixels
    if pixels.shape not in ((), (n_band,)):
        shapes = f"(), ({n_band},)" + ("" if table is None else f" or {table}")
        raise ValueError(f"{name}: expected widths of shape {shapes}, got {pixels.shape}")
    return np.broadcast_to(pixels, (1, n_band))


def _parse_images(name, images, cutouts, n):
    step = 1.0
    if isinstance(images, tuple) and len(images) == 2:
        images, scale = images
        scale = parse_angle(f"{name}: pixel scale", scale)
        step = float(_pixel_scale(name, cutouts) / scale)
    images = np.asarray(images)
    if images.dtype.kind not in "fiu" or images.ndim < 2:
        raise TypeError(
            f"{name}: expected angles, images, (images, pixel scale)"
            + (" or PSFEx models" if n is not None else "")
            + f", got an array of shape {images.shape} and type {images.dtype}"
        )
    ny, nx = images.shape[-2:]
    if ny != nx or ny % 2 == 0:
        raise ValueError(
            f"{name}: expected square images with a central pixel (odd sizes), got {ny} × {nx}"
        )
    n_band = len(cutouts.bands)
    rows = (1,) if n is None else (1, n)
    if images.ndim == 2:
        images = np.broadcast_to(images, (1, n_band, ny, nx))
    elif images.ndim == 3:
        images = images[np.newaxis]
    if images.ndim != 4 or images.shape[0] not in rows or images.shape[1] != n_band:
        wanted = f"(ny, nx), ({n_band}, ny, nx)" + (
            "" if n is None else f" or {(n, n_band)} + them"
        )
        raise ValueError(f"{name}: expected images of shape {wanted}, got {images.shape}")
    return _Images(images, step)


def _parse_models(models, cutouts):
    n_band = len(cutouts.bands)
    if len(models) != n_band or not all(isinstance(model, PSFExModel) for model in models):
        raise ValueError(f"psf: expected one PSFExModel for each of the {n_band} bands")
    if missing := {"x", "y"} - set(cutouts.catalog.colnames):
        raise ValueError(
            f"psf: a PSFEx model needs the columns x and y (position on the CCD) in the catalog, "
            f"which lacks {' and '.join(sorted(missing))}"
        )
    x, y = (
        np.ma.filled(np.ma.asarray(cutouts.catalog[name], dtype=float), np.nan) for name in "xy"
    )
    return _Models(models, x, y, cutouts.pixel_scale)
