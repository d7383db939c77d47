"""Pixels of one cutout gathered from several large images, with or without interpolation."""

import numpy as np
from astropy.wcs import NoConvergence
from astropy.wcs.utils import pixel_to_pixel

from .._optional import import_optional
from ..cutouts._wcs import shift_wcs

__all__ = ["Canvas", "positions_on"]

# Grids that agree to this many pixels are one grid: an interpolation would change a pixel by no
# more than this part of its difference from its neighbour.
_SAME_GRID = 1e-3
_MARGIN = 3


def positions_on(wcs, coords):
    """Pixel positions of sky positions that are not far from an image.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`
    coords : `~astropy.coordinates.SkyCoord`

    Returns
    -------
    x, y : array
        NaN where the projection has no such point.
    """
    with np.errstate(invalid="ignore"):
        try:
            x, y = wcs.world_to_pixel(coords)
        except NoConvergence as error:  # of a distortion, outside the image
            x, y = error.best_solution.T
    return np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))


class Canvas:
    """One cutout in the making, on the grid of the image that holds its centre best.

    Every pixel comes from one image: the first one pasted that has it good. Images of a survey
    that overlap often hold the same exposures, so an average would not be less noisy than its
    inverse variance would say.

    Parameters
    ----------
    tile : `~astro_morphvae.surveys._tiles.Tile`
        Image whose grid it takes.
    x0, y0 : int
        Lower corner on that grid.
    size : tuple of int
        (ny, nx).
    n_band : int
    """

    def __init__(self, tile, x0, y0, size, n_band):
        self.size = size
        self._tile = tile
        self._corner = x0, y0
        self.wcs = shift_wcs(tile.wcs, x0, y0)
        self.data = np.zeros((n_band, *size), dtype=np.float32)
        self.variance = np.zeros((n_band, *size), dtype=np.float64)
        self.missing = np.ones((n_band, *size), dtype=bool)
        # Variance of a flux summed over a large area, pixel by pixel, for the noise correlation.
        self._summed = np.zeros((n_band, *size), dtype=np.float64)
        self.units = set()
        self._shifts = {tile.grid: (x0, y0)}

    def paste(self, tile, band, read):
        """Fill pixels of one band that are missing.

        Parameters
        ----------
        tile : `~astro_morphvae.surveys._tiles.Tile`
        band : int
            Number of the band on the canvas.
        read : callable
            Takes a window of the tile, two slices (y, x); see `Tile.open`.
        """
        shift = self._shift_to(tile)
        if shift is not None:
            part = self._copy(tile, shift, read)
        else:
            part = self._interpolate(tile, read, _box(self.missing[band]))
        if part is None:
            return
        window, data, variance, summed, bad = part
        here = (band, *window)
        take = self.missing[here] & ~bad
        self.data[here][take] = data[take]
        self.variance[here][take] = variance[take]
        self._summed[here][take] = summed[take]
        self.missing[here][take] = False

    def noise_correlation(self):
        """Variance of flux summed over a large area, over the sum of the variances.

        Returns
        -------
        (n_band,) array
            1 where no pixel was interpolated.
        """
        totals = self.variance.sum(axis=(1, 2))
        summed = self._summed.sum(axis=(1, 2))
        return np.divide(summed, totals, out=np.ones_like(totals), where=totals > 0)

    def _shift_to(self, tile):
        """Corner of the canvas on the grid of a tile, where that is whole pixels; else None."""
        if tile.grid not in self._shifts:
            ny, nx = self.size
            x, y = (
                np.array([0, nx - 1, 0, nx - 1, (nx - 1) / 2]),
                np.array([0, 0, ny - 1, ny - 1, 0]),
            )
            there_x, there_y = _map(self.wcs, tile.wcs, x, y)
            x0, y0 = np.round(there_x[0]), np.round(there_y[0])
            off = np.maximum(np.abs(there_x - x - x0), np.abs(there_y - y - y0))
            same = np.all(off < _SAME_GRID)  # not so where it is NaN
            self._shifts[tile.grid] = (int(x0), int(y0)) if same else None
        return self._shifts[tile.grid]

    def _copy(self, tile, shift, read):
        x0, y0 = shift
        (ny, nx), (height, width) = self.size, tile.shape
        left, right = max(x0, 0), min(x0 + nx, width)
        low, high = max(y0, 0), min(y0 + ny, height)
        if left >= right or low >= high:
            return None
        data, variance, bad = self._read(read, (slice(low, high), slice(left, right)))
        window = slice(low - y0, high - y0), slice(left - x0, right - x0)
        return window, data, variance, variance, bad

    def _interpolate(self, tile, read, box):
        """Bring the part of a tile that falls on a box of the canvas to the canvas's grid."""
        rows, columns = box
        shape = rows.stop - rows.start, columns.stop - columns.start
        wcs = shift_wcs(self.wcs, columns.start, rows.start)
        x, y = _map(wcs, tile.wcs, *np.mgrid[: shape[0], : shape[1]][::-1])
        height, width = tile.shape
        on = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        if not on.any():
            return None
        left = max(int(x[on].min()) - _MARGIN, 0)
        right = min(int(x[on].max()) + _MARGIN + 1, width)
        low = max(int(y[on].min()) - _MARGIN, 0)
        high = min(int(y[on].max()) + _MARGIN + 1, height)
        data, variance, bad = self._read(read, (slice(low, high), slice(left, right)))
        layers = np.stack([data, variance]).astype(np.float64)
        layers[:, bad] = np.nan  # spreads to every pixel that a bad one has a share in
        reproject = import_optional("reproject", needed_for="A cutout across images of other grids")
        (flux, between), footprint = reproject.reproject_interp(
            (layers, shift_wcs(tile.wcs, left, low)),
            wcs,
            shape_out=shape,
            order="bilinear",
            roundtrip_coords=False,
        )
        # An interpolated pixel is a surface brightness; its flux is that of the area it covers.
        area = _areas(x, y, (self._tile.pixel_scale / tile.pixel_scale) ** 2)
        # Its variance is the sum of those of four pixels by the squares of their weights: the
        # interpolated variance times the sum of the squares.
        fx, fy = x - np.floor(x), y - np.floor(y)
        squares = (fx**2 + (1 - fx) ** 2) * (fy**2 + (1 - fy) ** 2)
        bad = ~on | ~np.isfinite(flux) | ~np.isfinite(between) | (footprint[0] <= 0)
        return box, flux * area, between * squares * area**2, between * area, bad

    def _read(self, read, window):
        """Pixels of a tile with their variance, 1 where that is unknown."""
        data, ivar, bad, unit = read(window)
        self.units.add(unit)
        bad = np.zeros(data.shape, dtype=bool) if bad is None else np.array(bad, dtype=bool)
        bad |= ~np.isfinite(data)
        if ivar is None:
            return data, np.ones(data.shape), bad
        bad |= ~(np.isfinite(ivar) & (ivar > 0))
        return data, 1.0 / np.where(bad, 1.0, ivar), bad


def _box(image):
    """Slices around the pixels of an image that are True."""
    return tuple(
        slice(int(places[0]), int(places[-1]) + 1)
        for places in (np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0)))
    )


def _areas(x, y, typical):
    """Area of each pixel of a grid whose pixels lie at (x, y), in units of those of x and y."""
    if min(x.shape) < 2:  # a line alone has no neighbour to tell its width from
        return np.full_like(x, typical)
    (x_up, x_right), (y_up, y_right) = np.gradient(x), np.gradient(y)
    return np.abs(x_right * y_up - x_up * y_right)


def _map(source, target, x, y):
    with np.errstate(invalid="ignore"):
        try:
            x, y = pixel_to_pixel(source, target, x, y)
        except NoConvergence as error:
            x, y = error.best_solution.T.reshape(2, *np.shape(x))
    return np.asarray(x, float), np.asarray(y, float)
