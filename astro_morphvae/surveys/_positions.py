"""Sky positions as a service takes them."""

import math

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

from .._optional import import_optional

__all__ = ["is_position", "parse_coordinates"]


def parse_coordinates(coordinates):
    """Bring positions to one dimension and to ICRS.

    Parameters
    ----------
    coordinates : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or str
        A table has columns ``ra`` and ``dec``, ICRS, in degrees where they have no unit. A str is
        a position or the name of an object, as astroquery takes it.

    Returns
    -------
    `~astropy.coordinates.SkyCoord`
        One-dimensional, ICRS; NaN where there is no position.
    """
    if isinstance(coordinates, str):
        utils = import_optional("astroquery.utils", needed_for="A position given as text")
        coordinates = utils.parse_coordinates(coordinates)
    elif isinstance(coordinates, Table):
        coordinates = SkyCoord(*(_angles(coordinates, name) for name in ("ra", "dec")))
    if not isinstance(coordinates, SkyCoord):
        raise TypeError(
            "coordinates: expected a SkyCoord or a table with columns ra and dec, got "
            f"{type(coordinates).__name__}"
        )
    if coordinates.ndim > 1:
        raise ValueError(f"coordinates: expected one dimension, got shape {coordinates.shape}")
    coordinates = coordinates.icrs.reshape(-1)
    if not len(coordinates):
        raise ValueError("coordinates: no positions")
    return coordinates


def _angles(table, name):
    """Read a column of a table; what is masked, or no declination, is NaN."""
    if name not in table.colnames:
        raise ValueError(
            f"coordinates: the table has no column {name!r}, but {', '.join(table.colnames)}"
        )
    column = table[name]
    unit = getattr(column, "unit", None) or u.deg
    if column.dtype.kind not in "fiu" or column.ndim != 1 or not unit.is_equivalent(u.deg):
        raise ValueError(f"coordinates: column {name!r} holds no angles, one a row")
    values = np.array(getattr(column, "unmasked", column), dtype=float)
    values[np.broadcast_to(getattr(column, "mask", False), values.shape)] = np.nan
    values = (values * unit).to(u.deg)
    if name == "dec":
        values[np.abs(values) > 90 * u.deg] = np.nan
    return values


def is_position(ra, dec):
    """Whether numbers in degrees are a position on the sky.

    Parameters
    ----------
    ra, dec : float

    Returns
    -------
    bool
    """
    return math.isfinite(ra) and math.isfinite(dec) and abs(dec) <= 90
