"""Cutouts taken from a large image at given positions."""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData
from astropy.table import Column, QTable
from astropy.wcs import NoConvergence

from ._headers import default_bands
from ._parse import (
    OK,
    clean_pixels,
    order_columns,
    parse_bands,
    parse_catalog,
    parse_size,
    set_positions,
    set_status,
    status_of,
)
from ._records import record_from_nddata
from ._wcs import WCSList, quiet_astropy, shift_wcs
from .cutout_set import CutoutSet

__all__ = ["extract_cutouts"]

_MODES = ("partial", "strict")


def extract_cutouts(
    image,
    coords,
    size,
    *,
    wcs=None,
    bands=None,
    unit=None,
    mode="partial",
    fill_value=0.0,
    psf_fwhm=None,
    ids=None,
    catalog=None,
    meta=None,
):
    """Cut many galaxies out of one image.

    Parameters
    ----------
    image : `~astropy.nddata.NDData` or array
        (y, x) of one band, or (band, y, x); an NDData with uncertainty, mask and WCS brings them
        along. Not changed.
    coords : `~astropy.coordinates.SkyCoord` or (n, 2) array
        Centres: sky positions, or pixel positions (x, y) that count from 0 at the centre of the
        first pixel.
    size : int, (int, int) or `~astropy.units.Quantity` [angle]
        Pixels of each cutout, (ny, nx), or its angle on the sky.
    wcs : `~astropy.wcs.WCS`, optional
        Celestial WCS of an image that brings none.
    bands : str or sequence of str, optional
        Names of the bands of the image, where it does not say.
    unit : unit-like or `~astropy.units.Quantity`, optional
        As for `CutoutSet.from_nddata`.
    mode : {"partial", "strict"}, optional
        What becomes of a cutout that sticks out of the image: with ``"partial"`` the pixels
        outside are masked and hold ``fill_value``; with ``"strict"`` the row is bad.
    fill_value : float, optional
        Value of masked pixels, in the unit of the result.
    psf_fwhm : `~astropy.units.Quantity` [angle], optional
        FWHM of the point spread function, one value or one a band.
    ids : sequence, optional
        Identifiers of the rows.
    catalog : `~astropy.table.Table`, optional
        More columns, one row a position.
    meta : dict, optional
        Anything that describes the set.

    Returns
    -------
    CutoutSet
        One row a position, in nanomaggies where the unit converts to flux. Pixels are copied, not
        interpolated, so a centre lies within half a pixel of the position asked for. The catalog
        gains ``ra`` and ``dec`` (the positions asked for, ICRS), ``x`` and ``y`` (pixels of the
        image) and ``coverage``, the fraction of pixels that are on the image and not masked.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    if mode not in _MODES:
        raise ValueError(f"mode: expected one of {_MODES}, got {mode!r}")
    record = _parse_image(image, wcs, unit, bands)
    x, y, ra, dec = _parse_positions(coords, record.wcs)
    ny, nx = _parse_size(size, record.pixel_scale)
    n, (n_band, height, width) = len(x), record.data.shape

    data = np.full((n, n_band, ny, nx), fill_value, dtype=np.float32)
    mask = np.ones(data.shape, dtype=bool)
    ivar = None if record.ivar is None else np.zeros(data.shape, dtype=np.float32)
    entries = [None] * n
    statuses = np.full(n, OK, dtype=object)
    finite = np.isfinite(x) & np.isfinite(y) & (np.abs(x) < 2**31) & (np.abs(y) < 2**31)
    statuses[~finite] = "invalid position"
    # Lower corners; the pixel of an even cutout that is nearest to the centre may be either one.
    x0 = np.where(finite, np.floor(np.where(finite, x, 0) - (nx - 1) / 2 + 0.5), 0).astype(int)
    y0 = np.where(finite, np.floor(np.where(finite, y, 0) - (ny - 1) / 2 + 0.5), 0).astype(int)
    for row in np.flatnonzero(finite):
        left, low = x0[row], y0[row]
        if record.wcs is not None:
            entries[row] = shift_wcs(record.wcs, left, low)
        right, high = min(left + nx, width), min(low + ny, height)
        first_x, first_y = max(left, 0), max(low, 0)
        if first_x >= right or first_y >= high:
            statuses[row] = "outside the image"
            continue
        inside = (right - first_x) * (high - first_y)
        if mode == "strict" and inside < nx * ny:
            statuses[row] = "partly outside the image"
            continue
        source = (slice(None), slice(first_y, high), slice(first_x, right))
        target = (
            row,
            slice(None),
            slice(first_y - low, high - low),
            slice(first_x - left, right - left),
        )
        with np.errstate(over="ignore"):
            data[target] = record.data[source]
            if ivar is not None:
                ivar[target] = record.ivar[source]
        mask[target] = False if record.mask is None else record.mask[source]
        bad, blank = clean_pixels(data[row], None if ivar is None else ivar[row], mask[row])
        statuses[row] = status_of(data[row], blank, record.bands)
        if bad is not None:
            mask[row] = bad
            data[row][bad] = fill_value
            if ivar is not None:
                ivar[row][bad] = 0
    coverage = 1 - mask.mean(axis=(1, 2, 3))
    bad_rows = statuses != OK
    data[bad_rows] = np.nan
    mask[bad_rows] = True
    if ivar is not None:
        ivar[bad_rows] = 0

    catalog = parse_catalog(catalog, n)
    if ids is not None:
        if len(ids) != n:
            raise ValueError(f"ids: {len(ids)} identifiers for {n} positions")
        catalog["id"] = Column(np.asarray(ids), description="Identifier of the object")
    _add_columns(catalog, x, y, ra, dec, coverage)
    set_status(catalog, statuses)
    scale = record.pixel_scale
    return CutoutSet._trusted(
        data,
        unit=record.unit,
        bands=record.bands,
        ivar=ivar,
        mask=mask if mask.any() else None,
        wcs=None if record.wcs is None else WCSList(entries),
        pixel_scale=scale * u.arcsec if np.isfinite(scale) else None,
        psf_fwhm=psf_fwhm,
        catalog=order_columns(catalog),
        meta=meta,
    )


def _parse_image(image, wcs, unit, bands):
    if not isinstance(image, NDData):
        if not isinstance(image, (np.ndarray, u.Quantity)):
            raise TypeError(f"image: expected NDData or an array, got {type(image).__name__}")
        image = NDData(image, wcs=wcs)
    elif wcs is not None:
        if image.wcs is not None:
            raise ValueError("wcs: the image brings its own")
        image = NDData(image, wcs=wcs)
    if isinstance(image, CutoutSet):
        raise TypeError("image: expected one image, got a CutoutSet")
    try:
        record = record_from_nddata(image, 0, unit=unit)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("items: row 0", "image")) from None
    n_band = len(record.data)
    record.bands = parse_bands(bands or record.bands or default_bands(n_band), n_band)
    return record


def _parse_positions(coords, wcs):
    """x, y in pixels, and ra, dec in degrees or None."""
    if isinstance(coords, SkyCoord):
        if wcs is None:
            raise ValueError("coords: sky positions need an image with a celestial WCS")
        coords = coords.reshape(1) if coords.isscalar else coords.ravel()
        with np.errstate(invalid="ignore"), quiet_astropy():
            try:
                x, y = wcs.world_to_pixel(coords)
            except NoConvergence as error:  # of a distortion, far from the image
                x, y = error.best_solution.T
            # The gnomonic plane shows the far hemisphere too, upside down: not this image.
            ra, dec = coords.icrs.ra.deg, coords.icrs.dec.deg
            back = wcs.pixel_to_world(x, y)
            elsewhere = ~(back.separation(coords) < 1 * u.arcmin)
        x, y = (np.where(elsewhere, np.nan, np.asarray(value, dtype=float)) for value in (x, y))
        return x, y, ra, dec
    positions = np.asarray(coords)
    if positions.dtype.kind not in "fiu":
        raise TypeError(f"coords: expected a SkyCoord or (n, 2) numbers, got {coords!r}")
    if positions.shape == (2,):
        positions = positions[np.newaxis]
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise ValueError(f"coords: expected (n, 2) pixel positions, got shape {positions.shape}")
    x, y = positions.astype(float).T
    if wcs is None:
        return x, y, None, None
    sky = wcs.pixel_to_world(x, y).icrs
    return x, y, sky.ra.deg, sky.dec.deg


def _parse_size(size, pixel_scale):
    if isinstance(size, u.Quantity) and not size.unit.is_equivalent(u.one):
        if not size.unit.is_equivalent(u.arcsec):
            raise ValueError(f"size: expected pixels or an angle, got {size}")
        if not np.isfinite(pixel_scale):
            raise ValueError("size: an angle needs an image with a celestial WCS")
        pixels = np.round(size.to_value(u.arcsec) / pixel_scale).astype(int)
        size = int(pixels) if pixels.ndim == 0 else tuple(int(value) for value in pixels)
    return parse_size("size", size)


def _add_columns(catalog, x, y, ra, dec, coverage):
    if ra is not None and "ra" not in catalog.colnames:
        set_positions(catalog, ra, dec)
    added = QTable(
        {
            "x": Column(x, description="Position in the image, pixels from 0"),
            "y": Column(y, description="Position in the image, pixels from 0"),
            "coverage": Column(coverage, description="Fraction of good pixels on the image"),
        }
    )
    for name in added.colnames:
        catalog[name] = added[name]
