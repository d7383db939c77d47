"""Simulated samples: galaxies of known morphology as one or two surveys would have seen them."""

import math
import operator
import os
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from astropy import units as u
from astropy.nddata import InverseVariance
from astropy.wcs import WCS

from ..cutouts import CutoutSet
from ._catalog import galaxy_catalog
from .observation import Telescope
from .parameters import CLASS_MIX, draw_galaxy
from .scenes import BANDS, Foreground, draw_foreground, render_galaxy, render_neighbours
from .surveys import get_survey
from .votes import cast_votes, visibility

__all__ = ["make_galaxies", "make_survey_pair"]

# Independent streams of random numbers of one galaxy.
_SHAPE, _FRAME, _VOTES, _NOISE, _ARTIFACT = range(5)
# Galaxies exposed at once where threads share the work.
_CHUNK = 4
_GOLDEN = (math.sqrt(5) - 1) / 2


def _generator(seed, index, *stream):
    key = np.random.SeedSequence(seed, spawn_key=(index, *stream))
    return np.random.Generator(np.random.SFC64(key))


def _count(name, value, minimum):
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    return number


def _class_shares(mix):
    """Names and cumulative shares of the classes."""
    if mix is None:
        mix = CLASS_MIX
    elif isinstance(mix, str):
        mix = {mix: 1.0}
    if not isinstance(mix, Mapping) or not mix:
        raise TypeError(f"mix must be a mapping from class to share, or one class, got {mix!r}")
    unknown = [name for name in mix if name not in CLASS_MIX]
    if unknown:
        raise ValueError(f"mix names unknown classes {unknown}; the classes are {list(CLASS_MIX)}")
    shares = np.array([float(share) for share in mix.values()])
    if not np.all(np.isfinite(shares)) or np.any(shares < 0) or shares.sum() <= 0:
        raise ValueError(f"mix needs shares of 0 or more, not all 0, got {dict(mix)!r}")
    return list(mix), np.cumsum(shares / shares.sum())


def _pixel_scale(survey, pixel_scale):
    """Pixel scale in arcsec as a float."""
    if pixel_scale is None:
        pixel_scale = survey.pixel_scale
    try:
        value = float(u.Quantity(pixel_scale, u.arcsec).value)
    except (TypeError, u.UnitsError):
        raise TypeError(f"pixel_scale must be one angle per pixel, got {pixel_scale!r}") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"pixel_scale must be positive, got {pixel_scale!r}")
    return value


def _footprint(surveys):
    """Box of sky common to surveys, else that of the first: ra and dec limits in degrees."""
    limits = []
    for name in ("ra_range", "dec_range"):
        ranges = [getattr(survey, name).to_value(u.deg) for survey in surveys]
        low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
        limits.append((low, high) if low < high else tuple(ranges[0]))
    return limits


class _Sky:
    """Draws all about galaxy i that does not depend on who looks: shape, surroundings, place."""

    def __init__(self, seed, mix, footprint, foreground):
        self.seed = seed
        self.names, self.shares = _class_shares(mix)
        (self.ra, dec) = footprint
        self.sin_dec = [math.sin(math.radians(d)) for d in dec]
        self.foreground = foreground
        self.shift = _generator(seed, 0, _SHAPE, 1).random()

    def draw(self, index):
        # A golden-ratio sequence: any run of galaxies holds the classes in their shares.
        place = (self.shift + index * _GOLDEN) % 1.0
        name = self.names[
            min(int(np.searchsorted(self.shares, place, side="right")), len(self.names) - 1)
        ]
        galaxy = draw_galaxy(_generator(self.seed, index, _SHAPE), name)
        rng = _generator(self.seed, index, _FRAME)
        ra = self.ra[0] + (self.ra[1] - self.ra[0]) * rng.random()
        low, high = self.sin_dec
        dec = math.degrees(math.asin(low + (high - low) * rng.random()))
        # Cutouts are centred on targets to a tenth of an arcsec.
        offset = 0.1 * rng.standard_normal(2)
        for host in galaxy.hosts:
            host.x, host.y = host.x + float(offset[0]), host.y + float(offset[1])
        foreground = draw_foreground(rng) if self.foreground else Foreground()
        return galaxy, foreground, (ra, dec), offset


def _draw_picture(telescope, picture, galaxy, foreground):
    """Draw a galaxy and its neighbours before the telescope, and the stars (or None) behind it."""
    if galaxy.artifact != "missing-data":
        render_galaxy(picture, galaxy, telescope.grid, telescope.bands)
    render_neighbours(picture, foreground, telescope.grid, telescope.bands)
    if not foreground.stars:
        return None
    stars = np.zeros((len(telescope.bands), telescope.size, telescope.size), np.float32)
    for star in foreground.stars:
        telescope.add_star(stars, *star)
    return stars


def _observe(telescope, drawn, seed, first, repeat, noise, threads):
    """Cutouts, inverse variances and bad pixels (or None) of galaxies in their order.

    Drawing is many short steps, which threads would only take from each other; so one thread
    draws, and the others take the exposures, some galaxies at once, in a few long steps.
    """
    n = len(drawn)
    data = np.empty((n, len(telescope.bands), telescope.size, telescope.size), np.float32)
    ivar = np.empty_like(data)
    bad = {}
    name = int.from_bytes(telescope.survey.name.encode(), "little") % (2**31 - 1)

    def expose(rows, pictures, stars, generators):
        images = telescope.image(pictures)
        for image, overlay, row in zip(images, stars, rows, strict=True):
            if overlay is not None:
                image += overlay
            artifact = drawn[row][0].artifact
            if artifact:
                bad[row] = telescope.spoil(
                    image, _generator(seed, first + row, _ARTIFACT), artifact
                )
        variances = telescope.expose(images, generators if noise else None)
        for image, variance, row in zip(images, variances, rows, strict=True):
            if row in bad:
                image[bad[row]], variance[bad[row]] = 0, 0
        data[rows.start : rows.stop], ivar[rows.start : rows.stop] = images, variances

    waiting = deque()
    chunk = 1 if threads == 1 else _CHUNK
    with ThreadPoolExecutor(max(threads - 1, 1)) as pool:
        for start in range(0, n, chunk):
            rows = range(start, min(start + chunk, n))
            pictures = telescope.blank(len(rows))
            stars = [
                _draw_picture(telescope, picture, *drawn[row][:2])
                for picture, row in zip(pictures, rows, strict=True)
            ]
            generators = [_generator(seed, first + row, _NOISE, name, repeat) for row in rows]
            if threads == 1:
                expose(rows, pictures, stars, generators)
                continue
            waiting.append(pool.submit(expose, rows, pictures, stars, generators))
            if len(waiting) > 2 * threads:
                waiting.popleft().result()
        for future in waiting:
            future.result()
    mask = None
    if any(pixels.any() for pixels in bad.values()):
        mask = np.zeros(data.shape, bool)
        for row, pixels in bad.items():
            mask[row] = pixels
    return data, ivar, mask


def _wcs(telescope, position, offset):
    """Tangent-plane projection that has the galaxy at its position."""
    middle, scale = (telescope.size + 1) / 2, telescope.pixel_scale
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cunit = "deg", "deg"
    wcs.wcs.crval = position
    wcs.wcs.crpix = middle + offset[0] / scale, middle + offset[1] / scale
    wcs.wcs.cdelt = -scale / 3600, scale / 3600
    wcs.wcs.set()
    return wcs


def _simulate(n, first, sky, surveys, scales, size, n_volunteers, noise, threads):
    """One CutoutSet for each survey, of the same galaxies."""
    indices = range(first, first + n)
    drawn = [sky.draw(i) for i in indices]
    galaxies = [galaxy for galaxy, *_ in drawn]
    positions = np.array([position for *_, position, _ in drawn]).reshape(n, 2)
    seen = [visibility(galaxy, surveys[0]) for galaxy in galaxies]
    votes = []
    for i, galaxy, v in zip(indices, galaxies, seen, strict=True):
        rng = _generator(sky.seed, i, _VOTES)
        asked = n_volunteers if n_volunteers < 8 else max(int(rng.poisson(n_volunteers)), 5)
        votes.append(cast_votes(rng, galaxy, v, asked))
    ids = [f"sim{sky.seed}-{i:06d}" for i in indices]
    catalog = galaxy_catalog(galaxies, ids, positions, seen, votes)
    sets = []
    for k, (survey, scale) in enumerate(zip(surveys, scales, strict=True)):
        telescope = Telescope(survey, size, scale)
        repeat = sum(other.name == survey.name for other in surveys[:k])
        arrays = _observe(telescope, drawn, sky.seed, first, repeat, noise, threads)
        sets.append(_cutout_set(telescope, *arrays, catalog, positions, drawn, sky.seed, first))
    return sets


def _cutout_set(telescope, data, ivar, mask, catalog, positions, drawn, seed, first):
    survey = telescope.survey
    wcs = [_wcs(telescope, p, offset) for p, (*_, offset) in zip(positions, drawn, strict=True)]
    return CutoutSet(
        data,
        unit=u.nmgy,
        bands=survey.bands,
        uncertainty=InverseVariance(ivar),
        mask=mask,
        wcs=wcs,
        pixel_scale=telescope.pixel_scale * u.arcsec,
        psf_fwhm=survey.psf_fwhm,
        catalog=catalog.copy(),
        meta={"survey": survey.name, "simulated": True, "seed": seed, "first": first},
    )


def _threads(threads):
    if threads is None:
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1
    return _count("threads", threads, 1)


def _prepare(n, surveys, pixel_scales, size, seed, first, mix, n_volunteers, foreground):
    n, first, size = _count("n", n, 0), _count("first", first, 0), _count("size", size, 8)
    seed, n_volunteers = _count("seed", seed, 0), _count("n_volunteers", n_volunteers, 1)
    surveys = [get_survey(survey) for survey in surveys]
    for survey in surveys:
        unknown = set(survey.bands) - set(BANDS)
        if unknown:
            raise ValueError(f"survey {survey.name} has bands {sorted(unknown)}; known are {BANDS}")
    scales = [_pixel_scale(s, p) for s, p in zip(surveys, pixel_scales, strict=True)]
    sky = _Sky(seed, mix, _footprint(surveys), foreground)
    return n, first, sky, surveys, scales, size, n_volunteers


def make_galaxies(
    n,
    *,
    survey="DECaLS",
    size=128,
    seed=0,
    pixel_scale=None,
    mix=None,
    n_volunteers=40,
    foreground=True,
    noise=True,
    first=0,
    threads=None,
):
    """Simulate cutouts of galaxies of known morphology.

    Galaxies have Sersic bulges, exponential disks, bars, logarithmic spiral arms with star-forming
    knots and dust, edge-on disks with or without a bulge, companions, tidal tails and shells; stars
    and unrelated galaxies share the frame. They are seen through the survey's Moffat point-spread
    function, with the noise of its sky and of photons.

    Galaxy i of a seed is the same whatever ``n``, ``first`` and ``threads`` are.

    Parameters
    ----------
    n : int
        Number of galaxies.
    survey : str or Survey, optional
        "DECaLS", "BASS+MzLS" or a `Survey`.
    size : int, optional
        Width of the cutouts in pixels. The angular size of the galaxies does not follow it: at
        0.262 arcsec per pixel, 128 pixels frame them as Galaxy Zoo does. For smaller cutouts of the
        same sky give coarser pixels too, such as 0.524 arcsec with 64.
    seed : int, optional
        Seed of everything random.
    pixel_scale : `~astropy.units.Quantity`, optional
        Width of a pixel; the survey's own by default. Depth and point-spread function stay those of
        the survey.
    mix : dict of str to float, or str, optional
        Share of each class, or the only class; `CLASS_MIX` by default, which has enough of every
        answer to learn from.
    n_volunteers : int, optional
        Mean number of volunteers who look at a galaxy.
    foreground : bool, optional
        Whether stars and unrelated galaxies are in the frame.
    noise : bool, optional
        Whether the pictures are noisy. The inverse variance is that of the noise in either case.
    first : int, optional
        Index of the first galaxy, to make a large sample in pieces.
    threads : int, optional
        Threads to use; all the process may use by default. The result does not depend on it.

    Returns
    -------
    CutoutSet
        Data of shape (n, n_band, size, size) in nmgy per pixel, float32, with inverse variance, a
        mask if any pixel is bad (saturated or missing, in some artifacts), a WCS for each galaxy,
        and a catalogue: ``id``, ``ra``, ``dec``, ``status``; the vote fractions
        ``<question>_<answer>_fraction`` of the Galaxy Zoo DECaLS tree and the votes behind them,
        ``<question>_total-votes``; the right answers ``true_<question>``; and the true parameters.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    References
    ----------
    .. [1] Walmsley et al. 2022, MNRAS 509, 3966 (Galaxy Zoo DECaLS).
    .. [2] Dey et al. 2019, AJ 157, 168 (the Legacy Surveys).

    Examples
    --------
    >>> from astro_morphvae.datasets import make_galaxies
    >>> cutouts = make_galaxies(4, size=64, seed=1)
    >>> cutouts.data.shape
    (4, 3, 64, 64)
    """
    arguments = _prepare(
        n, [survey], [pixel_scale], size, seed, first, mix, n_volunteers, foreground
    )
    n, first, sky, surveys, scales, size, n_volunteers = arguments
    return _simulate(n, first, sky, surveys, scales, size, n_volunteers, noise, _threads(threads))[
        0
    ]


def make_survey_pair(
    n,
    *,
    surveys=("DECaLS", "BASS+MzLS"),
    size=128,
    seed=0,
    pixel_scale=None,
    mix=None,
    n_volunteers=40,
    foreground=True,
    noise=True,
    first=0,
    threads=None,
):
    """Simulate the same galaxies as two surveys would have seen them.

    Each survey has its own point-spread function, pixel scale, depth and noise. The presets both
    have the 0.262 arcsec pixels of the Legacy Survey coadds, so that their cutouts share one grid;
    give ``pixel_scale`` two values to see them at, say, the 0.454 arcsec of the 90prime detectors.

    Parameters
    ----------
    n : int
        Number of galaxies.
    surveys : sequence of two str or Survey, optional
        The surveys. Volunteers see the pictures of the first; the galaxies lie where the footprints
        overlap.
    pixel_scale : `~astropy.units.Quantity`, optional
        One width of a pixel for both surveys, or one for each; each survey's own by default.
    size, seed, mix, n_volunteers, foreground, noise, first, threads
        As in `make_galaxies`.

    Returns
    -------
    first, second : CutoutSet
        Row i of both is the same galaxy, with the same catalogue row.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.
    """
    if isinstance(surveys, str) or len(surveys) != 2:
        raise ValueError(f"surveys must be two surveys, got {surveys!r}")
    if pixel_scale is None or np.ndim(pixel_scale) == 0:
        pixel_scale = (pixel_scale, pixel_scale)
    if len(pixel_scale) != 2:
        raise ValueError(f"pixel_scale must be one value or two, got {pixel_scale!r}")
    arguments = _prepare(n, surveys, pixel_scale, size, seed, first, mix, n_volunteers, foreground)
    n, first, sky, surveys, scales, size, n_volunteers = arguments
    one, two = _simulate(
        n, first, sky, surveys, scales, size, n_volunteers, noise, _threads(threads)
    )
    return one, two
