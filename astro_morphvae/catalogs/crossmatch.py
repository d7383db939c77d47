"""Which row of one catalogue is which row of another: nearest on the sky, and what is doubtful."""

import astropy.units as u
import numpy as np
from astropy.coordinates import search_around_sky
from astropy.table import Column, QTable

from ._positions import parse_positions

__all__ = ["FLAGS", "crossmatch"]

FLAGS = ("matched", "ambiguous", "duplicate", "unmatched", "invalid")
"""What `crossmatch` says of a row."""


def crossmatch(coords, other, *, radius=1 * u.arcsec, one_to_one=True):
    """Find for each position the nearest one of another catalogue.

    Parameters
    ----------
    coords : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or CutoutSet
        Positions to be found, n of them. Tables have columns ``ra`` and ``dec``.
    other : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or CutoutSet
        Catalogue in which they are looked for.
    radius : `~astropy.units.Quantity` [angle], optional
        Greatest separation of a match.
    one_to_one : bool, optional
        Give a row of ``other`` to the nearest row of ``coords`` only. Otherwise the rows farther
        away keep it too; they are flagged in either case.

    Returns
    -------
    `~astropy.table.QTable`
        n rows in the order of ``coords``:

        ``index``
            Row of ``other``; -1 where there is none.
        ``separation``
            Arcsec to the nearest position of ``other``, even where that is beyond the radius; NaN
            where there is none.
        ``n_candidates``
            Number of positions of ``other`` within the radius.
        ``flag``
            ``"matched"``; ``"ambiguous"``, matched to the nearest of several within the radius;
            ``"duplicate"``, another row of ``coords`` is nearer to its match (or as near, and comes
            before); ``"unmatched"``, nothing within the radius; ``"invalid"``, no position.

    Raises
    ------
    TypeError, ValueError
        If positions cannot be had from an argument, or the radius is not an angle above 0 and
        below 180 degrees.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_morphvae.catalogs import crossmatch
    >>> ours = SkyCoord([150.0, 150.1] * u.deg, [2.0, 2.0] * u.deg)
    >>> theirs = SkyCoord([150.1001, 10.0] * u.deg, [2.0, 2.0] * u.deg)
    >>> match = crossmatch(ours, theirs, radius=1 * u.arcsec)
    >>> match["index"].tolist(), match["flag"].tolist()
    ([-1, 0], ['unmatched', 'matched'])
    """
    radius = _parse_radius(radius)
    ours, theirs = parse_positions(coords, "coords"), parse_positions(other, "other")
    n = len(ours)
    valid = np.flatnonzero(np.isfinite(ours.ra.deg))
    targets = np.flatnonzero(np.isfinite(theirs.ra.deg))

    index = np.full(n, -1)
    separation = np.full(n, np.nan) * u.arcsec
    n_candidates = np.zeros(n, dtype=int)
    flag = np.full(n, "unmatched", dtype="U9")
    flag[np.isnan(ours.ra.deg)] = "invalid"

    if len(valid) and len(targets):
        ours, theirs = ours[valid], theirs[targets]
        nearest, distance, _ = ours.match_to_catalog_sky(theirs)
        separation[valid] = distance
        rows, _, _, _ = search_around_sky(ours, theirs, radius)
        n_candidates[valid] = np.bincount(rows, minlength=len(valid))
        within = distance <= radius
        index[valid[within]] = targets[nearest[within]]
        # The two searches may disagree by rounding about what lies on the circle itself.
        n_candidates[valid[within]] = np.maximum(n_candidates[valid[within]], 1)
        matched = np.flatnonzero(index >= 0)
        flag[matched] = np.where(n_candidates[matched] > 1, "ambiguous", "matched")
        # Of the rows that share a match the nearest comes first, and of equals the earliest.
        order = matched[np.argsort(separation[matched].value, kind="stable")]
        _, first = np.unique(index[order], return_index=True)
        losers = np.delete(order, first)
        flag[losers] = "duplicate"
        if one_to_one:
            index[losers] = -1

    table = QTable()
    table["index"] = Column(index, description="Row of the other catalogue, -1 for none")
    table["separation"] = separation
    table["separation"].info.description = "To the nearest position of the other catalogue"
    table["n_candidates"] = Column(n_candidates, description="Positions within the radius")
    table["flag"] = Column(flag, description="How sure the match is: " + ", ".join(FLAGS))
    table.meta["radius"] = radius
    return table


def _parse_radius(radius):
    try:
        value = u.Quantity(radius).to(u.arcsec)
    except (TypeError, u.UnitsError):
        raise ValueError(
            f"radius: expected an angle, such as 1 * u.arcsec; got {radius!r}"
        ) from None
    if value.ndim or not 0 < value.value < 180 * 3600:
        raise ValueError(f"radius: expected one angle above 0 and below 180 degrees, got {radius}")
    return value
