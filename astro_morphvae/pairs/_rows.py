"""Rows of a set put in another order, with bad rows where there is none; bands chosen."""

import numpy as np
from astropy.table import QTable

from ..cutouts import CutoutSet
from ..cutouts._parse import list_rows, order_columns, set_positions, set_status
from ..cutouts._wcs import WCSList

__all__ = ["blank_like", "check_wcs", "choose_bands", "same_grids", "take_rows"]

# Columns of a catalog that have one value a band.
_PER_BAND = ("noise_correlation",)


def choose_bands(first, second, bands):
    """Bands that both sets have.

    Parameters
    ----------
    first, second : CutoutSet
    bands : tuple of str or None
        Bands wanted, in this order; by default those that both have, in the order of the first.

    Returns
    -------
    tuple of str

    Raises
    ------
    ValueError
        If there is none, or one is lacking.
    """
    if bands is None:
        bands = tuple(band for band in first.bands if band in second.bands)
        if not bands:
            raise ValueError(
                f"bands: the first survey has {', '.join(first.bands)}, the second "
                f"{', '.join(second.bands)}; none is common"
            )
    for name, cutouts in (("first", first), ("second", second)):
        lacking = [band for band in bands if band not in cutouts.bands]
        if lacking:
            raise ValueError(
                f"bands: {', '.join(lacking)} not in {name}, which has {', '.join(cutouts.bands)}"
            )
    return bands


def take_rows(cutouts, index, *, bands, ids, positions, statuses):
    """Arrange the rows and bands of a set.

    Parameters
    ----------
    cutouts : CutoutSet
        Not changed.
    index : (n,) array of int
        Row of the set for each row of the result; -1 for none.
    bands : tuple of str
        Bands of the result, of those of the set.
    ids : (n,) array
        Identifiers of the rows.
    positions : `~astropy.coordinates.SkyCoord`
        Positions of the rows, for those without one of their own.
    statuses : (n,) array of str
        Status of the rows where the index is -1.

    Returns
    -------
    CutoutSet
    """
    index = np.asarray(index)
    found = index >= 0
    n, chosen = len(index), [cutouts.bands.index(band) for band in bands]
    shape = n, len(bands), *cutouts.size

    def part(array, missing):
        if array is None:
            return None
        rows = np.full(shape, missing, dtype=array.dtype.newbyteorder("="))
        for row in np.flatnonzero(found):  # a memory map is read row by row
            rows[row] = array[index[row]][chosen]
        return rows

    mask = part(cutouts.mask, True)
    if mask is None and not found.all():
        mask = np.zeros(shape, dtype=bool)
        mask[~found] = True
    wcs = cutouts.wcs
    if wcs is not None:
        entries = list(wcs.take(index[found])._entries)
        wcs = WCSList(entries.pop(0) if one else None for one in found)
    return CutoutSet._trusted(
        part(cutouts.data, np.nan),
        unit=cutouts.unit,
        bands=bands,
        ivar=part(cutouts.ivar, 0),
        mask=mask,
        wcs=wcs,
        pixel_scale=cutouts.pixel_scale,
        psf_fwhm=None if cutouts.psf_fwhm is None else cutouts.psf_fwhm[chosen],
        catalog=_take_catalog(cutouts.catalog, index, chosen, ids, positions, statuses),
        meta=cutouts.meta,
    )


def _take_catalog(catalog, index, chosen, ids, positions, statuses):
    # Of a missing row the numbers are those of some other row, masked where a column can be.
    missing = index < 0
    taken = QTable()
    if len(catalog):
        taken = catalog[np.where(missing, 0, index)]
    for name in list(taken.colnames):
        column = taken[name]
        if name in _PER_BAND and column.ndim == 2:
            values = np.array(column)[:, chosen]
            values[missing] = 1.0
            taken[name] = values
        elif missing.any() and name not in ("id", "ra", "dec", "status"):
            if hasattr(column, "dtype"):
                taken[name] = _blanked(column, missing)
            else:  # times and positions, which cannot be missing everywhere
                del taken[name]
    taken["id"] = np.asarray(ids)
    taken["id"].info.description = "Identifier of the object"
    own = [
        taken[name].to_value("deg") if name in taken.colnames else None for name in ("ra", "dec")
    ]
    asked = positions.ra.deg, positions.dec.deg
    set_positions(
        taken,
        *(
            theirs if ours is None else np.where(missing, theirs, ours)
            for ours, theirs in zip(own, asked, strict=True)
        ),
    )
    status = (
        statuses if not len(catalog) else np.where(missing, statuses, np.array(taken["status"]))
    )
    set_status(taken, status)
    return order_columns(taken)


def _blanked(column, missing):
    if column.dtype.kind == "f":
        column = column.copy()
        column[missing] = np.nan
        return column
    masked = np.ma.array(np.asarray(column), mask=False)
    masked[missing] = np.ma.masked
    return masked


def same_grids(first, second):
    """Whether the pixels of two row-aligned sets are the same, where both rows are good."""
    if first.size != second.size or first.wcs is None or second.wcs is None:
        return False
    both = np.flatnonzero(first.good & second.good)
    cards = (cutouts.wcs.take(both).cards() for cutouts in (first, second))
    return all(one == two for one, two in zip(*cards, strict=True))


def check_wcs(cutouts, name):
    """Raise `ValueError` unless every good row has a WCS."""
    if cutouts.wcs is None:
        lacking = np.flatnonzero(cutouts.good)
    else:
        lacking = [row for row in np.flatnonzero(cutouts.good) if cutouts.wcs._entries[row] is None]
    if len(lacking):
        raise ValueError(f"{name}: no celestial WCS in rows {list_rows(lacking)}")


def blank_like(cutouts, like):
    """Bring a set without a good row to the pixels of another: rows of NaN, as they are."""
    shape = *cutouts.shape[:2], *like.size
    return CutoutSet._trusted(
        np.full(shape, np.nan, dtype=np.float32),
        unit=cutouts.unit,
        bands=cutouts.bands,
        ivar=None if cutouts.ivar is None else np.zeros(shape, dtype=np.float32),
        mask=np.ones(shape, dtype=bool),
        wcs=None,
        pixel_scale=like.pixel_scale,
        psf_fwhm=cutouts.psf_fwhm,
        catalog=cutouts.catalog,
        meta=cutouts.meta,
    )
