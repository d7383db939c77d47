"""One simulated sky in the pixels of two surveys, without what pixels do to a simulation.

Galaxies that are drawn on the pixels of a survey differ by some tenths of a per cent from those
drawn on other pixels: their cores are cusps. Here they are drawn on pixels of 0.087 arcsec, seen
through the point spread function of each survey there, and then taken at every third pixel and at
every fifth.
"""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import InverseVariance
from astropy.table import QTable

from astro_morphvae.cutouts import CutoutSet
from astro_morphvae.datasets import BASS_MZLS, CLASS_MIX, DECALS, make_survey_pair
from astro_morphvae.processing.depth import aperture_correlation

__all__ = ["MOFFAT_BETAS", "compare_fluxes", "simulate_paired_sky", "summarise_pulls"]

FINE = 0.262 / 3 * u.arcsec
SURVEYS = (DECALS, BASS_MZLS)
STEPS = (3, 5)
#: Exponents of the point spread functions of the two surveys.
MOFFAT_BETAS = tuple(survey.moffat_beta for survey in SURVEYS)
# Artifacts are drawn in pixels, not on the sky.
_MIX = {name: share for name, share in CLASS_MIX.items() if name != "artifact"}


def simulate_paired_sky(n, *, size, seed, dimming=1.0, noise=True):
    """See the same galaxies with DECaLS and with BASS+MzLS.

    Parameters
    ----------
    n : int
        Number of galaxies.
    size : int
        Pixels of the first survey, even; the second sees the same field.
    seed : int
        Of sky and noise.
    dimming : float, optional
        Factor by which the galaxies are fainter than simulated.
    noise : bool, optional
        Whether there is noise; the inverse variance is that of the noise in either case.

    Returns
    -------
    first, second : CutoutSet
        Pixels of 0.262 and 0.437 arcsec, centred on ``ra`` and ``dec``; without WCS.
    """
    sizes = size, 3 * size // 10 * 2
    sky = {"size": 3 * size, "pixel_scale": FINE, "seed": seed, "mix": _MIX}
    sky |= {"foreground": False, "noise": False}
    rng = np.random.default_rng(seed)
    data = [np.empty((n, 3, pixels, pixels), np.float32) for pixels in sizes]
    positions = []
    for start in range(0, n, 16):
        pair = make_survey_pair(min(16, n - start), first=start, **sky)
        positions.append(pair[0].catalog["id", "ra", "dec"])
        for images, drawn, step in zip(data, pair, STEPS, strict=True):
            begin = (3 * size - step * images.shape[-1]) // 2 + step // 2
            taken = slice(begin, begin + step * images.shape[-1], step)
            images[start : start + len(drawn)] = drawn.data[:, :, taken, taken]
    catalog = QTable()
    catalog["id"] = np.concatenate([part["id"] for part in positions])
    for name in ("ra", "dec"):
        catalog[name] = np.concatenate([part[name] for part in positions])
    sets = []
    for images, survey, step in zip(data, SURVEYS, STEPS, strict=True):
        images *= step**2 / dimming
        scale = FINE * step
        variance = np.maximum(images, 0) / _per_band(survey.electrons_per_nmgy().value)
        variance += _per_band(survey.sky_noise(scale).value) ** 2
        if noise:
            images += np.sqrt(variance) * rng.standard_normal(images.shape, dtype=np.float32)
        sets.append(
            CutoutSet(
                images,
                unit=u.nmgy,
                bands=survey.bands,
                uncertainty=InverseVariance(1 / variance),
                pixel_scale=scale,
                psf_fwhm=survey.psf_fwhm,
                catalog=catalog,
                meta={"survey": survey.name},
            )
        )
    return tuple(sets)


def _per_band(values):
    return np.asarray(values, dtype=np.float32)[:, np.newaxis, np.newaxis]


def aperture_fluxes(cutouts, positions, radius):
    """Measure the flux within a circle about each position.

    Parameters
    ----------
    cutouts : CutoutSet
        With a WCS.
    positions : `~astropy.coordinates.SkyCoord`
        One a row.
    radius : `~astropy.units.Quantity` [angle]

    Returns
    -------
    flux, error : (n, n_band) array
        The error from inverse variance and ``noise_correlation``, that of the aperture. NaN for bad
        rows, and where a pixel in the circle is bad.
    """
    data, ivar, _ = cutouts.arrays()
    y, x = np.indices(cutouts.size)
    pixels = (radius / cutouts.pixel_scale).to_value(u.one)
    correlation = np.ones(data.shape[:2])
    if "noise_correlation" in cutouts.catalog.colnames:
        correlation = np.asarray(cutouts.catalog["noise_correlation"])
        # It differs little between rows: once for all is enough.
        circle = np.hypot(x - cutouts.size[1] / 2, y - cutouts.size[0] / 2) <= pixels
        typical = np.median(correlation[cutouts.good], axis=0)
        correlation = correlation * aperture_correlation(typical, circle) / typical
    flux, error = np.full((2, *data.shape[:2]), np.nan)
    for row in np.flatnonzero(cutouts.good):
        x0, y0 = cutouts.wcs[row].world_to_pixel(positions[row])
        inside = np.hypot(x - x0, y - y0) <= pixels
        weights = ivar[row][:, inside].astype(float)
        whole = (weights > 0).all(axis=1)
        flux[row, whole] = data[row][:, inside].sum(axis=1, dtype=float)[whole]
        variance = (1 / weights[whole]).sum(axis=1)
        error[row, whole] = np.sqrt(variance * correlation[row, whole])
    return flux, error


def compare_fluxes(first, second, table, radius):
    """Compare the fluxes of pairs on one grid.

    Returns
    -------
    pulls, relative, signal : (n, n_band) array
        Difference of the fluxes over its error, difference over flux, and flux of the first survey
        over the error of the difference.
    """
    positions = SkyCoord(table["ra"], table["dec"])
    flux1, error1 = aperture_fluxes(first, positions, radius)
    flux2, error2 = aperture_fluxes(second, positions, radius)
    error = np.hypot(error1, error2)
    return (flux2 - flux1) / error, (flux2 - flux1) / flux1, flux1 / error


def summarise_pulls(pulls):
    """Mean and width of pulls, each with its standard error; the number of them first.

    Parameters
    ----------
    pulls : (n,) array
        NaN where there is none.

    Returns
    -------
    n : int
    mean, mean_error, width, width_error : float
        The error of the width from the fourth moment, which need not be that of a Gaussian.
    """
    pulls = pulls[np.isfinite(pulls)]
    n, mean, width = len(pulls), pulls.mean(), pulls.std(ddof=1)
    kurtosis = np.mean((pulls - mean) ** 4) / width**4
    return n, mean, width / np.sqrt(n), width, width * np.sqrt(max(kurtosis - 1, 0) / (4 * n))
