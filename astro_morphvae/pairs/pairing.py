"""`pair_surveys`: galaxies of two surveys on one grid, and how well each pair fits."""

from pathlib import Path
from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import NDData
from astropy.table import Column, QTable

from ..catalogs import crossmatch
from ..catalogs._positions import parse_positions
from ..cutouts import CutoutSet, as_cutout_set
from ..cutouts._parse import OK, parse_bands
from ..exceptions import CutoutMismatchError
from ..processing.alignment import reproject_cutouts
from ..processing.psf import common_fwhm
from ..processing.psf import match_psf as match_cutouts
from ._measure import common_coverage, depth, image_offsets
from ._rows import blank_like, check_wcs, choose_bands, same_grids, take_rows

__all__ = ["MAX_SEPARATION", "pair_surveys"]

MAX_SEPARATION = 1.0 * u.arcsec
"""Largest separation of two positions that may be the same galaxy."""


def pair_surveys(
    coords,
    first,
    second,
    *,
    bands=None,
    like="first",
    pixel_scale=None,
    target_wcs=None,
    size=None,
    method="interp",
    match_psf=False,
    max_separation=MAX_SEPARATION,
    n_jobs=1,
    progress=False,
):
    """Put the images that two surveys have of the same galaxies on the same pixels.

    Parameters
    ----------
    coords : SkyCoord, Table, pair of them, or None
        Positions of the galaxies; a table has columns ``ra`` and ``dec``, and may have ``id``. Of
        a pair, (first, second), each survey is asked for its own positions, and the second ones
        are matched to the first. None takes the positions of ``first``, which then is a
        `CutoutSet`.
    first, second : (service, dict), service, callable or CutoutSet
        Where the cutouts come from: a service and the keywords of its ``get_cutouts``, such as
        ``(LegacySurvey, {"layer": "ls-dr9-north"})``; anything that returns a `CutoutSet` for a
        `~astropy.coordinates.SkyCoord`; or cutouts that are there already, as
        `~astro_morphvae.cutouts.as_cutout_set` takes them, which are matched to the positions.
    bands : str or sequence of str, optional
        Bands of the result; by default those that both surveys have.
    like : {"first", "second"}, optional
        Whose pixels both get, if none of the next three says otherwise.
    pixel_scale : `~astropy.units.Quantity` [angle], optional
        Pixels of this size for both, north up, centred on the galaxy's position.
    target_wcs : `~astropy.wcs.WCS` or sequence of it, optional
        The grid for both, for all rows or one a row.
    size : int or (int, int), optional
        Pixels of the result, with ``pixel_scale`` or ``target_wcs``.
    method : {"interp", "adaptive", "exact"}, optional
        See `~astro_morphvae.processing.reproject_cutouts`.
    match_psf : bool or dict, optional
        Bring both surveys to one point spread function, in each band the broader of the two. A dict
        holds keywords of `~astro_morphvae.processing.match_psf`, such as ``target_fwhm``; one that
        begins with ``first_`` or ``second_``, such as ``first_psf``, is for that survey.
    max_separation : `~astropy.units.Quantity` [angle], optional
        Largest separation between the positions of a pair, at most 1 arcsec: farther apart it is
        another galaxy.
    n_jobs : int, optional
        Threads that share the galaxies; -1 for one a core.
    progress : bool, optional
        Show progress bars of reprojecting and matching.

    Returns
    -------
    first, second : CutoutSet
        Row i of both is the same galaxy, on the same pixels: one row a position, in their order.
        Where there is no image, or no counterpart within ``max_separation``, the row has a
        ``status``.
    table : `~astropy.table.QTable`
        Row-aligned with both:

        ``id``, ``ra``, ``dec``
            The galaxy.
        ``status``
            ``"ok"``, or what is wrong with the row of which survey.
        ``separation``
            Arcsec between its positions in the two surveys, as far as each has its own.
        ``match``, ``second_index``
            Flag of `~astro_morphvae.catalogs.crossmatch`, and row of the second catalogue.
        ``coverage``
            (n, n_band) Fraction of pixels that are good in both surveys.
        ``first_psf_fwhm``, ``second_psf_fwhm``
            (n, n_band) Arcsec, as the images are now.
        ``first_depth``, ``second_depth``
            (n, n_band) AB magnitude of a point source that is detected at 5 sigma, as
            `~astro_morphvae.processing.depth.point_source_depth` measures it.
        ``image_offset``, ``image_offset_error``
            Arcsec between the centres of the galaxy in the two images, and the error that noise
            gives each coordinate. At different resolution a galaxy that is not symmetric may seem
            to lie some hundredths of an arcsec apart.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, the surveys have no band in common, or ``max_separation`` is
        larger than 1 arcsec. The message names the argument.
    `~astro_morphvae.exceptions.CutoutMismatchError`
        If the pixels of the two surveys have different units.

    Notes
    -----
    Both surveys are put on the grid, and then matched in resolution; images that are on the grid
    already are not touched. Depths are not made alike: see
    `~astro_morphvae.processing.match_depth`.

    Examples
    --------
    >>> from astro_morphvae.datasets import make_survey_pair
    >>> from astro_morphvae.pairs import pair_surveys
    >>> decals, bass = make_survey_pair(3, size=48, seed=1)
    >>> decals, bass, table = pair_surveys(None, decals, bass)
    >>> table["status"].tolist()
    ['ok', 'ok', 'ok']
    """
    max_separation = _parse_separation(max_separation)
    bands = None if bands is None else parse_bands(bands)
    if like not in ("first", "second"):
        raise ValueError(f"like: expected 'first' or 'second', got {like!r}")
    first, second = _parse_source(first, "first"), _parse_source(second, "second")
    ids, asked, match = _parse_coords(coords, first, max_separation)
    if coords is None:
        sides = [_Side(first, np.arange(len(first)), asked[0], None)]
    else:
        sides = [_gather(first, asked[0], max_separation, "first")]
    sides.append(_gather(second, asked[1], max_separation, "second"))
    match = _Match(match, *sides, max_separation)
    _check_units(*(side.cutouts for side in sides))
    bands = choose_bands(sides[0].cutouts, sides[1].cutouts, bands)
    first, second = (
        take_rows(
            side.cutouts,
            index,
            bands=bands,
            ids=ids,
            positions=positions,
            statuses=statuses,
        )
        for side, positions, index, statuses in zip(
            sides, asked, match.index, match.statuses, strict=True
        )
    )
    grid = {"pixel_scale": pixel_scale, "target_wcs": target_wcs, "size": size}
    first, second = _align(first, second, like, target_wcs, grid, method, n_jobs, progress)
    if match_psf is not False and match_psf is not None:
        first, second = _match_resolution(first, second, match_psf, n_jobs, progress)
    return first, second, _make_table(first, second, match, asked[0])


def _parse_separation(value):
    try:
        value = u.Quantity(value).to(u.arcsec)
    except (TypeError, u.UnitsError):
        raise ValueError(f"max_separation: expected an angle, got {value!r}") from None
    if value.ndim or not 0 < value <= MAX_SEPARATION:
        raise ValueError(
            f"max_separation: expected an angle of at most {MAX_SEPARATION}, beyond which two "
            f"positions are not the same galaxy; got {value}"
        )
    return value


def _parse_source(source, name):
    """Return a CutoutSet, or a function of a SkyCoord that returns one."""
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], dict):
        fetch = getattr(source[0], "get_cutouts", source[0])
        if callable(fetch):
            return lambda coords: fetch(coords, **source[1])
    elif isinstance(source, (CutoutSet, NDData, str, Path, list, tuple)):
        return as_cutout_set(source, name=name)
    elif callable(getattr(source, "get_cutouts", source)):
        return getattr(source, "get_cutouts", source)
    raise TypeError(
        f"{name}: expected a CutoutSet, a service, or a pair of a service and the keywords of its "
        f"get_cutouts; got {source!r}"
    )


def _parse_coords(coords, first, max_separation):
    """Read ids, positions to ask each survey for, and the match of two catalogues (or None)."""
    if coords is None:
        if not isinstance(first, CutoutSet):
            raise ValueError("coords: needed, unless the first survey is a CutoutSet")
        coords = first
    match = None
    if isinstance(coords, (tuple, list)):
        if len(coords) != 2:
            raise ValueError(f"coords: expected one catalogue or two, got {len(coords)}")
        coords, other = coords
        ours, theirs = parse_positions(coords, "coords[0]"), parse_positions(other, "coords[1]")
        match = crossmatch(ours, theirs, radius=max_separation)
        asked = ours, _pick(theirs, np.array(match["index"]))
    else:
        asked = (parse_positions(coords, "coords"),) * 2
    table = getattr(coords, "catalog", coords)
    if "id" in getattr(table, "colnames", ()):
        return np.array(table["id"]), asked, match
    return np.arange(len(asked[0])), asked, match


def _pick(coords, index):
    """Positions of some rows; NaN for -1."""
    ra, dec = np.full((2, len(index)), np.nan)
    found = index >= 0
    ra[found], dec[found] = coords.ra.deg[index[found]], coords.dec.deg[index[found]]
    return SkyCoord(ra, dec, unit="deg")


class _Side(NamedTuple):
    """What a survey has for the galaxies."""

    cutouts: CutoutSet
    index: np.ndarray  # row of the cutouts for each galaxy, -1 for none
    positions: SkyCoord  # of the galaxies in this survey, NaN for none
    match: QTable | None  # of the galaxies with cutouts that were there already


def _gather(source, positions, max_separation, name):
    """Fetch the cutouts, or find the rows of those that are there."""
    if isinstance(source, CutoutSet):
        match = crossmatch(positions, parse_positions(source, name), radius=max_separation)
        index = np.array(match["index"])
        return _Side(source, index, _pick(parse_positions(source, name), index), match)
    valid = np.flatnonzero(np.isfinite(positions.ra.deg))
    if not len(valid):
        raise ValueError(f"coords: no galaxy has a position to ask the {name} survey for")
    cutouts = as_cutout_set(source(positions[valid]), name=name)
    if len(cutouts) != len(valid):
        raise ValueError(f"{name}: {len(cutouts)} cutouts came for {len(valid)} positions")
    index = np.full(len(positions), -1)
    index[valid] = np.arange(len(valid))
    return _Side(cutouts, index, positions, None)


def _check_units(first, second):
    """Raise where the pixels of two sets, with at least one good row each, are no same quantity."""
    units = [cutouts.unit or u.dimensionless_unscaled for cutouts in (first, second)]
    if units[0] != units[1] and first.good.any() and second.good.any():
        raise CutoutMismatchError(
            f"second: its pixels are in {str(units[1])!r}, those of first in {str(units[0])!r}; "
            "bring both to one unit"
        )


class _Match:
    """Which row of each survey a galaxy is, how far apart, and why there is none."""

    def __init__(self, match, first, second, max_separation):
        self.separation = first.positions.separation(second.positions).to(u.arcsec)
        with np.errstate(invalid="ignore"):
            far = self.separation > max_separation
        reasons = [_reasons(first.index, first.match), _reasons(second.index, second.match)]
        # The galaxy may have been lost when two catalogues of positions were matched.
        lost = None if match is None else np.array(match["index"]) < 0
        if match is not None:
            reasons[1] = np.where(lost, _reasons(np.array(match["index"]), match), reasons[1])
            nearest = match["separation"]
            self.separation = np.where(lost, nearest.value, self.separation.value) * u.arcsec
        reasons[1][far] = [f"no-counterpart: {value:.2f} away" for value in self.separation[far]]
        self.index = first.index, np.where(far, -1, second.index)
        self.statuses = reasons
        matches = [m for m in (match, second.match, first.match) if m is not None]
        self.flag = np.full(len(first.index), "matched", dtype="U9")
        for found in reversed(matches):
            doubtful = np.array(found["flag"]) != "matched"
            self.flag[doubtful] = found["flag"][doubtful]
        self.flag[far] = "unmatched"
        self.flag[np.isnan(first.positions.ra.deg) & (first.index < 0)] = "invalid"
        own = second.index if match is None else np.array(match["index"])
        self.second_index = np.where(self.index[1] < 0, -1, own)


def _reasons(index, match):
    """Status of each galaxy that a survey has no row for; empty where it has."""
    if match is None:
        return np.where(index < 0, "invalid-position", "").astype(object)
    texts = {
        "unmatched": "no-counterpart",
        "duplicate": "duplicate: another galaxy is nearer to its counterpart",
        "invalid": "invalid-position",
    }
    reasons = np.array([texts.get(flag, "") for flag in match["flag"]], dtype=object)
    near = (match["flag"] == "unmatched") & np.isfinite(match["separation"])
    reasons[near] = [f"no-counterpart: nearest {d:.2f} away" for d in match["separation"][near]]
    return reasons


def _align(first, second, like, target_wcs, grid, method, n_jobs, progress):
    """Put both sets on one grid; sets that are on it are not touched."""
    check_wcs(first, "first")
    check_wcs(second, "second")
    grid = {name: value for name, value in grid.items() if value is not None}
    if set(grid) == {"size"}:
        raise ValueError("size: needs pixel_scale or target_wcs")
    how = {"method": method, "n_jobs": n_jobs, "progress": progress}
    sets = [first, second]
    # Of a survey that has not one good image there may be no WCS at all.
    located = [cutouts.wcs is not None for cutouts in sets]
    if grid:
        if located[0]:
            sets[0] = reproject_cutouts(first, **grid, **how)
            grid = {"like": sets[0]} if target_wcs is None else {**grid, "size": sets[0].size}
        if located[1]:
            sets[1] = reproject_cutouts(second, **grid, **how)
    elif all(located) and not same_grids(first, second):
        moved, kept = (1, 0) if like == "first" else (0, 1)
        sets[moved] = reproject_cutouts(sets[moved], like=sets[kept], **how)
    for one, other in ((0, 1), (1, 0)):
        if not located[one]:
            sets[one] = blank_like(sets[one], sets[other])
    return sets


def _match_resolution(first, second, keywords, n_jobs, progress):
    keywords = {} if keywords is True else dict(keywords)
    if not {"target_fwhm", "target_psf"} & set(keywords):
        keywords["target_fwhm"] = common_fwhm(first, second)
    sets = []
    for cutouts, prefix, other in ((first, "first_", "second_"), (second, "second_", "first_")):
        own = {
            name.removeprefix(prefix): value
            for name, value in keywords.items()
            if not name.startswith(other)
        }
        sets.append(match_cutouts(cutouts, **{"n_jobs": n_jobs, "progress": progress} | own))
    return sets


def _make_table(first, second, match, positions):
    n_band = len(first.bands)
    offset, error = image_offsets(first, second)
    table = QTable()
    table["id"] = Column(first.catalog["id"], description="Identifier of the object")
    table["ra"], table["dec"] = positions.ra, positions.dec
    table["status"] = Column(
        _joint_status(first, second), description="'ok', or what is wrong with which survey"
    )
    table["separation"] = match.separation
    table["match"] = Column(match.flag, description="How sure the match of the positions is")
    table["second_index"] = Column(
        match.second_index, description="Row of the second catalogue or set, -1 for none"
    )
    table["coverage"] = Column(
        common_coverage(first, second), description="Fraction of pixels good in both surveys"
    )
    for name, cutouts in (("first", first), ("second", second)):
        fwhm = np.full((len(first), n_band), np.nan) * u.arcsec
        if cutouts.psf_fwhm is not None:
            fwhm[cutouts.good] = cutouts.psf_fwhm
        table[f"{name}_psf_fwhm"] = fwhm
        table[f"{name}_depth"] = depth(cutouts)
    table["image_offset"] = offset * u.arcsec
    table["image_offset_error"] = error * u.arcsec
    for name, text in _DESCRIPTIONS.items():
        table[name].info.description = text
    table.meta = {
        "first": str(first.meta.get("survey", "first")),
        "second": str(second.meta.get("survey", "second")),
        "bands": list(first.bands),
    }
    return table


_DESCRIPTIONS = {
    "ra": "Right ascension in the first survey, ICRS",
    "dec": "Declination in the first survey, ICRS",
    "separation": "Between the positions in the two surveys",
    "first_psf_fwhm": "FWHM of the point spread function, a value a band",
    "second_psf_fwhm": "FWHM of the point spread function, a value a band",
    "first_depth": "AB magnitude of a point source at 5 sigma, a value a band",
    "second_depth": "AB magnitude of a point source at 5 sigma, a value a band",
    "image_offset": "Between the centres of the galaxy in the two images",
    "image_offset_error": "Error of each coordinate of the offset",
}


def _joint_status(first, second):
    statuses = []
    for one, two in zip(first.catalog["status"], second.catalog["status"], strict=True):
        bad = [f"{n}: {s}" for n, s in (("first", one), ("second", two)) if s != OK]
        statuses.append("; ".join(bad) or OK)
    return np.array(statuses, dtype=str)
