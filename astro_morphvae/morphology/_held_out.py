"""Galaxies to test on: on one side only, in every survey, and new to whatever made the latents."""

import astropy.units as u
import numpy as np

from ._tables import split_galaxies

__all__ = ["choose_test", "galaxy_groups", "read_ids", "sky_cells"]


def sky_cells(ra, dec, cell_size):
    """Cell of the sky that each position lies in: strips of declination, cut to equal widths.

    Parameters
    ----------
    ra, dec : (n,) array or `~astropy.units.Quantity`
        Right ascension and declination; degrees without a unit.
    cell_size : `~astropy.units.Quantity` or float
        Height of the strips, and about the width of the cells; degrees without a unit.

    Returns
    -------
    (n,) array of int
        Number of the cell.

    Raises
    ------
    ValueError
        If the size is not positive, or a position is not finite.
    """
    size = u.Quantity(cell_size, u.deg).value
    if not 0 < size <= 180:
        raise ValueError(f"cell_size must lie in (0, 180] degrees, not {cell_size!r}")
    ra = np.asarray(u.Quantity(np.ma.filled(ra, np.nan), u.deg).value, dtype=float) % 360
    dec = np.asarray(u.Quantity(np.ma.filled(dec, np.nan), u.deg).value, dtype=float)
    if not (np.isfinite(ra).all() and np.isfinite(dec).all()):
        raise ValueError("ra and dec must be finite to split by sky position")
    n_strips = max(int(np.ceil(180 / size)), 1)
    strip = np.clip(((dec + 90) / size).astype(int), 0, n_strips - 1)
    middle = np.deg2rad(np.minimum((strip + 0.5) * size, 180) - 90)
    across = np.maximum(np.round(360 * np.cos(middle) / size), 1).astype(int)
    return strip * (across.max(initial=1) + 1) + (ra / 360 * across).astype(int)


def read_ids(values, name):
    """Read ids given as a sequence, or as a table with a column ``id``.

    Parameters
    ----------
    values : sequence, `~astropy.table.Table` or object with a ``catalog``
        The ids, or what holds them.
    name : str
        Name of the argument, for errors.

    Returns
    -------
    (n,) array of str
        The ids.

    Raises
    ------
    TypeError, ValueError
        If these are no ids.
    """
    values = getattr(values, "catalog", values)
    if hasattr(values, "colnames"):
        if "id" not in values.colnames:
            raise ValueError(f"{name} has no column 'id', only {values.colnames}")
        values = values["id"]
    if values is None or isinstance(values, str):
        raise TypeError(f"{name} must be a sequence of ids or a table with them, not {values!r}")
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name} has shape {values.shape}; ids are (n,)")
    return values.astype(str)


def galaxy_groups(ids, tables, split_by, cell_size):
    """Group galaxies that are never divided between training and test.

    Parameters
    ----------
    ids : (n,) array of str
        Ids of all galaxies, sorted.
    tables : sequence of (`~astropy.table.Table`, (m,) array of int)
        Tables of each survey, and the place of their rows in ``ids``.
    split_by : {"id", "sky"}
        Each galaxy by itself, or all those of one cell of the sky.
    cell_size : `~astropy.units.Quantity`
        See `sky_cells`.

    Returns
    -------
    (n,) array of int
        The groups.

    Raises
    ------
    ValueError
        If ``split_by`` is unknown, or a table lacks positions.
    """
    if split_by == "id":
        return np.arange(len(ids))
    if split_by != "sky":
        raise ValueError(f"split_by={split_by!r} is neither 'id' nor 'sky'")
    groups = np.full(len(ids), -1)
    for table, place in tables:
        if not {"ra", "dec"} <= set(table.colnames):
            raise ValueError(f"split_by='sky' needs columns ra and dec, found {table.colnames}")
        # Of a galaxy in several surveys the first position counts, or it could fall in two cells.
        new = groups[place] < 0
        groups[place[new]] = sky_cells(table["ra"][new], table["dec"][new], cell_size)
    return groups


def choose_test(ids, groups, labels, seen, *, test_ids, test_fraction, seed):
    """Choose galaxies to test on, none of them seen, and those to train on.

    Parameters
    ----------
    ids : (n,) array of str
        Ids of all galaxies.
    groups : (n,) array of int
        Galaxies of one group stay together.
    labels : (n, n_question) array of int
        Label of each galaxy for each question, -1 for none, to be shared out in proportion.
    seen : (m,) array of str
        Ids that were used to make the latents.
    test_ids : (k,) array of str or None
        Ids to test on, if they were chosen before.
    test_fraction : float
        Share of galaxies to test on, as far as there are as many that were not seen.
    seed : int
        Seed of the choice.

    Returns
    -------
    test, train : (n,) array of bool
        Which galaxies are on which side; those in a group of both are on neither.

    Raises
    ------
    ValueError
        If test galaxies were seen, or none is left.
    """
    known = np.isin(ids, seen)
    if test_ids is not None:
        test = np.isin(ids, test_ids)
        if (test & known).any():
            first = str(ids[test & known][0])
            raise ValueError(
                f"test_ids has {int(np.sum(test & known))} galaxies that are among those seen, "
                f"such as {first!r}: scores would be too good"
            )
        if not test.any():
            raise ValueError("test_ids holds no galaxy of the tables of latents")
        return test, ~np.isin(groups, groups[test])

    free = ~np.isin(groups, groups[known])
    if not free.any():
        raise ValueError(
            f"seen holds {int(known.sum())} of the {len(ids)} galaxies, and leaves no "
            f"{'galaxy' if len(np.unique(groups)) == len(ids) else 'cell of the sky'} to test on"
        )
    wanted = test_fraction * len(ids) / free.sum()
    test = free.copy()
    if wanted < 1:
        test[free] = split_galaxies(labels[free], groups[free], wanted, seed)
    if not test.any():
        raise ValueError(f"test_fraction={test_fraction!r} of {len(ids)} galaxies is none")
    return test, ~test
