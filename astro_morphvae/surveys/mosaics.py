"""Cutouts from local coadds and bricks, also across the edges between them."""

from collections.abc import Mapping
from functools import partial

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData
from astropy.table import Column
from tqdm import tqdm

from ..cutouts import CutoutSet
from ..cutouts._parse import (
    OK,
    PIXEL_SCALE_TOLERANCE,
    order_columns,
    parse_bands,
    parse_catalog,
    set_positions,
    set_status,
)
from ..cutouts._records import Record
from ..cutouts._wcs import WCSList
from ..exceptions import CutoutMismatchError
from ._grid import PixelGrid
from ._join import Canvas, positions_on
from ._tiles import Mosaic, Tile, TilePool, make_tile, unit_vectors

__all__ = ["Mosaic", "cut_tiles", "from_mosaics"]


def from_mosaics(
    mosaics,
    coords,
    *,
    size,
    bands=None,
    pixel_scale=None,
    psf_fwhm=None,
    ids=None,
    catalog=None,
    meta=None,
    progress=False,
):
    """Cut galaxies out of many large images that share the sky.

    Each cutout is on the grid of the image that holds its centre best. Where that image has all
    of it, its pixels are copied as `~astro_morphvae.extract_cutouts` does. Pixels beyond its edge,
    or bad in it, come from the neighbours: copied where their grids agree to whole pixels,
    otherwise interpolated (bilinear) with flux conserved. The same goes for other bands.

    Parameters
    ----------
    mosaics : sequence, or mapping of str to sequence
        Images: paths of FITS files, `~astropy.nddata.NDData`, or `Mosaic` objects, which name
        the inverse variance and mask that go with an image; those of a Legacy Survey brick are
        found by their names. A mapping says the band of each.
    coords : `~astropy.coordinates.SkyCoord`
        Centres.
    size : int or (int, int)
        Pixels of each cutout, (ny, nx).
    bands : str or sequence of str, optional
        Bands wanted, in this order; all that there are by default.
    pixel_scale : `~astropy.units.Quantity` [angle], optional
        Bring all to these pixels by exact areas; that of the images by default.
    psf_fwhm : `~astropy.units.Quantity` [angle], optional
        FWHM of the point spread function, one value or one a band.
    ids : sequence, optional
        Identifiers of the rows.
    catalog : `~astropy.table.Table`, optional
        More columns, one row a position.
    meta : dict, optional
        Anything that describes the set.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    CutoutSet
        One row a position, in the order given, in nanomaggies where the units convert to flux. A
        centre lies within half a pixel of the position asked for. Pixels that no image has, that
        are masked or whose inverse variance is 0 are masked. The catalog gains ``coverage``, the
        fraction of good pixels, and ``noise_correlation`` (n, n_band), the variance of flux
        summed over a large area divided by the sum of the variances: 1 where no pixel was
        interpolated. A position off all images has the status ``"off-footprint"``, one without some
        of the bands ``"incomplete-bands"``.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    `~astro_morphvae.exceptions.CutoutMismatchError`
        If the images differ in pixel scale and none is given, or in unit.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_morphvae.surveys import from_mosaics
    >>> coords = SkyCoord([150.1, 150.2] * u.deg, [2.2, 2.3] * u.deg)
    >>> bricks = {"g": ["brick1-g.fits", "brick2-g.fits"], "r": ["brick1-r.fits", "brick2-r.fits"]}
    >>> cutouts = from_mosaics(bricks, coords, size=128)  # doctest: +SKIP
    """
    return cut_tiles(
        _parse_mosaics(mosaics),
        coords,
        size=size,
        bands=bands,
        pixel_scale=pixel_scale,
        psf_fwhm=psf_fwhm,
        ids=ids,
        catalog=catalog,
        meta=meta,
        progress=progress,
    )


def cut_tiles(
    tiles,
    coords,
    *,
    size,
    bands=None,
    pixel_scale=None,
    psf_fwhm=None,
    ids=None,
    catalog=None,
    meta=None,
    progress=False,
    statuses=None,
    most_open=16,
):
    """Cut galaxies out of tiles; see `from_mosaics`.

    Parameters
    ----------
    tiles : list of `~astro_morphvae.surveys._tiles.Tile`
    coords, size, bands, pixel_scale, psf_fwhm, ids, catalog, meta, progress
        As of `from_mosaics`.
    statuses : sequence of str, optional
        What is known of the rows; nothing is cut for those that are not ``"ok"``.
    most_open : int, optional
        Number of tiles kept open.

    Returns
    -------
    CutoutSet
    """
    coords = _parse_coords(coords)
    bands = _parse_wanted(bands, tiles)
    grid = PixelGrid(size, _common_scale(tiles), pixel_scale)
    tiles = [tile for tile in tiles if set(tile.bands) & set(bands)]
    has_ivar = {tile.has_ivar for tile in tiles}
    if len(has_ivar) > 1:
        without = [tile.name for tile in tiles if not tile.has_ivar]
        raise ValueError(f"mosaics: some have an inverse variance, but not {_few(without)}")
    has_ivar = has_ivar.pop()
    n, shape = len(coords), (len(bands), *grid.wanted)
    data = np.full((n, *shape), np.nan, dtype=np.float32)
    mask = np.ones(data.shape, dtype=bool)
    ivar = np.zeros(data.shape, dtype=np.float32) if has_ivar else None
    entries, units = [None] * n, set()
    correlation = np.ones((n, len(bands)))
    statuses, plans = _plan(tiles, coords, bands, grid, statuses)
    bar = tqdm(total=len(plans), desc="Cutting", unit="cutout", disable=None if progress else True)
    with TilePool(most_open) as pool, bar:
        for row, plan in plans:
            bar.update()
            try:
                canvas = _draw(plan, bands, grid, pool)
            except MemoryError:
                raise
            except _UnreadableError as error:
                statuses[row] = f"invalid-file: {error}"
                continue
            status = _status(canvas, bands)
            units |= canvas.units
            if status != OK:
                statuses[row] = status
                continue
            record = grid.finish(_record(canvas, has_ivar))
            data[row], entries[row] = record.data, record.wcs
            mask[row] = False if record.mask is None else record.mask
            data[row][mask[row]] = 0  # also pixels that are good in part
            if has_ivar:
                ivar[row] = record.ivar
            correlation[row] = canvas.noise_correlation()
    if len(units) > 1:
        raise CutoutMismatchError(
            f"mosaics: units differ: {', '.join(sorted(str(unit) or 'none' for unit in units))}"
        )
    catalog = _finish_catalog(catalog, ids, coords, statuses, 1 - mask.mean(axis=(1, 2, 3)))
    catalog["noise_correlation"] = Column(
        correlation * grid.noise_correlation(),
        description="Variance of summed flux over the sum of the variances",
    )
    return CutoutSet._trusted(
        data,
        unit=units.pop() if units else u.nmgy,
        bands=bands,
        ivar=ivar,
        mask=mask if mask.any() else None,
        wcs=WCSList(entries),
        pixel_scale=grid.scale * u.arcsec,
        psf_fwhm=psf_fwhm,
        catalog=order_columns(catalog),
        meta=meta,
    )


class _UnreadableError(Exception):
    """A tile whose pixels cannot be read."""


def _record(canvas, has_ivar):
    missing = canvas.missing
    ivar = None
    if has_ivar:
        ivar = np.where(missing, 0.0, 1.0 / np.where(missing, 1.0, canvas.variance))
    return Record(
        np.where(missing, 0, canvas.data),
        ivar=ivar,
        mask=missing if missing.any() else None,
        wcs=canvas.wcs,
    )


def _parse_mosaics(mosaics):
    if isinstance(mosaics, (str, bytes, NDData, Mosaic, Tile)):
        mosaics = [mosaics]
    if isinstance(mosaics, Mapping):
        items = [
            (item, band)
            for band, several in mosaics.items()
            for item in (several if isinstance(several, (list, tuple)) else [several])
        ]
    else:
        try:
            items = [(item, None) for item in mosaics]
        except TypeError:
            raise TypeError(
                "mosaics: expected a sequence of images or a mapping of bands to them, got "
                f"{type(mosaics).__name__}"
            ) from None
    if not items:
        raise ValueError("mosaics: no images")
    return [make_tile(item, number, band) for number, (item, band) in enumerate(items)]


def _parse_coords(coords):
    if not isinstance(coords, SkyCoord):
        raise TypeError(f"coords: expected a SkyCoord, got {type(coords).__name__}")
    return coords.icrs.reshape(-1)


def _parse_wanted(bands, tiles):
    found = tuple(dict.fromkeys(band for tile in tiles for band in tile.bands))
    if bands is None:
        return found
    bands = (bands,) if bands in found else parse_bands(bands)
    if not bands:
        raise ValueError(f"bands: the images have {found}, got none")
    missing = [band for band in bands if band not in found]
    if missing:
        raise ValueError(f"bands: the images have {found}, none has {', '.join(missing)}")
    return bands


def _common_scale(tiles):
    scales = np.array([tile.pixel_scale for tile in tiles])
    median = float(np.median(scales))
    differs = np.abs(scales / median - 1) > PIXEL_SCALE_TOLERANCE
    if differs.any():
        names = [tile.name for tile, off in zip(tiles, differs, strict=True) if off]
        raise CutoutMismatchError(
            f"mosaics: most have pixels of {median:.4g} arcsec, but not {_few(names)}; cut each "
            "pixel scale by itself"
        )
    return median


def _few(names, most=3):
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def _plan(tiles, coords, bands, grid, given):
    """For each position the tiles near it, the one that holds it best first.

    Returns
    -------
    statuses : array of object
        ``"ok"``, or why nothing is to be done.
    plans : list of (row, list of (tile, x, y))
        In an order in which tiles are visited one after the other.
    """
    vectors = unit_vectors(coords.ra.deg, coords.dec.deg)
    valid = np.isfinite(vectors).all(axis=1)
    statuses = np.where(valid, "off-footprint", "invalid-position").astype(object)
    ny, nx = grid.size
    reach = np.hypot(ny, nx) / 2 * grid.native / 3600
    near = [[] for _ in range(len(coords))]
    for number, tile in enumerate(tiles):
        with np.errstate(invalid="ignore"):
            close = vectors @ tile.centre > np.cos(np.radians(min(tile.radius + reach, 179.0)))
        rows = np.flatnonzero(close & valid)
        if not len(rows):
            continue
        x, y = positions_on(tile.wcs, coords[rows])
        height, width = tile.shape
        depth = np.min([x + 0.5, width - 0.5 - x, y + 0.5, height - 0.5 - y], axis=0)
        touches = (
            (x > -nx / 2 - 1) & (x < width + nx / 2) & (y > -ny / 2 - 1) & (y < height + ny / 2)
        )
        for place in np.flatnonzero(touches):
            near[rows[place]].append((depth[place], number, x[place], y[place]))
    plans = []
    order = {band: place for place, band in enumerate(bands)}
    for row, found in enumerate(near):
        if given is not None and given[row] != OK:
            statuses[row] = given[row]
            continue
        if not found:
            continue
        # The grid is that of the first band where one of its images holds the centre.
        found.sort(
            key=lambda entry: (
                entry[0] <= 0,
                _first_band(tiles[entry[1]], order),
                -entry[0],
                entry[1],
            )
        )
        plans.append((row, [(tiles[number], x, y) for _, number, x, y in found]))
        statuses[row] = OK
    place = {id(tile): number for number, tile in enumerate(tiles)}
    plans.sort(key=lambda plan: (place[id(plan[1][0][0])], plan[0]))
    return statuses, plans


def _first_band(tile, order):
    return min(order.get(band, len(order)) for band in tile.bands)


def _draw(plan, bands, grid, pool):
    tile, x, y = plan[0]
    ny, nx = grid.size
    canvas = Canvas(
        tile,
        int(np.floor(x - (nx - 1) / 2 + 0.5)),
        int(np.floor(y - (ny - 1) / 2 + 0.5)),
        grid.size,
        len(bands),
    )
    for number, band in enumerate(bands):
        for tile, _, _ in plan:
            if not canvas.missing[number].any():
                break
            if band in tile.bands:
                read = partial(_read, pool, tile, tile.bands.index(band))
                canvas.paste(tile, number, read)
    return canvas


def _read(pool, tile, band, window):
    try:
        return pool.read(tile, window, band)
    except MemoryError:
        raise
    except Exception as error:  # whatever a broken file provokes belongs to the rows that need it
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _UnreadableError(f"{tile.name}: {lines[0][:100]}") from error


def _status(canvas, bands):
    blank = [band for band, image in zip(bands, canvas.missing, strict=True) if image.all()]
    zero = [
        band
        for band, image, missing in zip(bands, canvas.data, canvas.missing, strict=True)
        if band not in blank and not np.any(image[~missing])
    ]
    if len(blank) == len(bands):
        return "off-footprint"
    if blank or zero:
        return f"incomplete-bands: {', '.join(blank + zero)}"
    return OK


def _finish_catalog(catalog, ids, coords, statuses, coverage):
    catalog = parse_catalog(catalog, len(coords))
    if ids is not None:
        if len(ids) != len(coords):
            raise ValueError(f"ids: {len(ids)} identifiers for {len(coords)} positions")
        catalog["id"] = Column(np.asarray(ids), description="Identifier of the object")
    set_positions(catalog, coords.ra.deg, coords.dec.deg)
    set_status(catalog, statuses)
    catalog["coverage"] = Column(coverage, description="Fraction of good pixels")
    return catalog
