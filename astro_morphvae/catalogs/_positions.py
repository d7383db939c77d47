"""Sky positions out of whatever holds them: coordinates, tables, cutouts."""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

__all__ = ["parse_positions"]


def parse_positions(obj, name):
    """Sky positions of a catalogue, one a row.

    Parameters
    ----------
    obj : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or CutoutSet
        A table has columns ``ra`` and ``dec``, in degrees where they carry no unit; so has the
        catalog of a `CutoutSet`.
    name : str
        Name of the argument, for errors.

    Returns
    -------
    `~astropy.coordinates.SkyCoord`, shape (n,)
        ICRS; NaN where a position is missing, not finite or not on the sphere.

    Raises
    ------
    TypeError
        If ``obj`` is anything else.
    ValueError
        If a table lacks ``ra`` or ``dec``, or one of them is not an angle.
    """
    if isinstance(obj, SkyCoord):
        coords = obj.reshape(1) if obj.isscalar else obj.ravel()
        coords = coords.icrs
        return _sky(coords.ra.deg, coords.dec.deg)
    table = getattr(obj, "catalog", obj)
    if not isinstance(table, Table):
        raise TypeError(
            f"{name}: expected a SkyCoord, a table with columns ra and dec, or a CutoutSet; "
            f"got {type(obj).__name__}"
        )
    missing = [column for column in ("ra", "dec") if column not in table.colnames]
    if missing:
        raise ValueError(
            f"{name}: the table has no column {' and '.join(missing)}; it has {table.colnames[:8]}"
        )
    return _sky(*(_degrees(table[column], f"{name}: column {column}") for column in ("ra", "dec")))


def _degrees(column, what):
    unit = getattr(column, "unit", None)
    mask = getattr(column, "mask", False)
    values = getattr(column, "unmasked", column)
    values = getattr(values, "value", values)
    try:
        values = np.ma.getdata(values).astype(float)
    except (TypeError, ValueError):
        raise ValueError(f"{what}: expected numbers, got type {column.dtype}") from None
    if values.ndim != 1:
        raise ValueError(f"{what}: expected one number a row, got shape {values.shape}")
    if unit is not None:
        try:
            values = (values * unit).to_value(u.deg)
        except u.UnitConversionError:
            raise ValueError(f"{what}: {unit} is not an angle") from None
    return np.where(mask, np.nan, values)


def _sky(ra, dec):
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(ra) & (np.abs(dec) <= 90))
    return SkyCoord(np.where(bad, np.nan, ra), np.where(bad, np.nan, dec), unit="deg")
