"""Real galaxies that two surveys saw: one degraded to the other looks as the other saw it."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import InverseVariance
from astropy.wcs import WCS

from astro_morphvae import CutoutSet
from astro_morphvae.processing import match_psf, reproject_cutouts
from astro_morphvae.processing._psf_images import measure_fwhm

SCALES = {"KiDS": 0.2, "SDSS": 0.339}  # arcsec per pixel
KIDS_PSF_BETA = 2.0  # exponent: the images have no wings, see benchmarks/kids_sdss.py
BLUR = 0.3  # arcsec, by which the step to larger pixels widens it, in quadrature
BRIGHT = "G266662", "G278109", "G279148"  # enough to tell one point spread function from another
GALAXIES = ("G266035", "G267199", "G267489", *BRIGHT)


def tan_wcs(shape, scale, shift=(0.0, 0.0)):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [180.0, 0.0]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    wcs.wcs.crpix = [(n + 1) / 2 + d for n, d in zip(shape[::-1], shift, strict=True)]
    return wcs


def read_stamp(folder, survey, name):
    """Cutouts of one galaxy in nanomaggies, its segments, and the image of its PSF."""
    image, sigma, mask, segments, psf = (
        fits.getdata(folder / survey / f"{name}{kind}.fits").astype(float)
        for kind in ("fitim", "sigma", "mskim", "segim", "psfim")
    )
    cutouts = CutoutSet(
        (image * u.mgy).to_value(u.nmgy)[None, None],
        unit=u.nmgy,
        bands="r",
        uncertainty=InverseVariance((sigma * u.mgy).to_value(u.nmgy)[None, None] ** -2),
        mask=mask > 0,
        wcs=[tan_wcs(image.shape, SCALES[survey])],
    )
    return cutouts, segments, psf


def fit_to(sdss, own, make):
    """Chi-square per pixel on the galaxy after a factor and a shift, and the factor."""
    y, ivar = (part[0, 0] for part in sdss.arrays()[:2])
    factor, shift = 1.0, np.zeros(2)
    for _ in range(3):
        kids = make(shift)
        x, kids_ivar = (part[0, 0] for part in kids.arrays()[:2])
        good = own & (kids_ivar > 0) & (ivar > 0)
        along_y, along_x = np.gradient(x)
        sigma = np.sqrt(1 / ivar[good] + factor**2 / kids_ivar[good])
        residual = ((y - factor * x)[good] / sigma) ** 2
        matrix = np.stack([part[good] / sigma for part in (x, -along_x, -along_y)], axis=1)
        (factor, *step), *_ = np.linalg.lstsq(matrix, y[good] / sigma, rcond=None)
        shift = shift + np.array(step) / factor
    assert good.sum() > 1000
    return residual.mean(), factor


@pytest.fixture(scope="module")
def fits_of_six(shared_data):
    """Chi-square per pixel of KiDS degraded and not degraded, and the factor, by galaxy."""
    folder = shared_data / "kids-sdss-pairs"
    return {name: compare(folder, name) for name in GALAXIES}


def compare(folder, name):
    kids, _, kids_psf = read_stamp(folder, "KiDS", name)
    sdss, segments, sdss_psf = read_stamp(folder, "SDSS", name)
    own = segments == segments[tuple(n // 2 for n in segments.shape)]
    fwhm = np.hypot(measure_fwhm(kids_psf) * SCALES["KiDS"], BLUR) * u.arcsec

    def on_its_pixels(shift):
        target = tan_wcs(sdss.size, SCALES["SDSS"], shift)
        return reproject_cutouts(kids, target_wcs=target, size=sdss.size)

    def degraded(shift):
        return match_psf(
            on_its_pixels(shift), psf=fwhm, psf_beta=KIDS_PSF_BETA, target_psf=sdss_psf
        )

    chi2, factor = fit_to(sdss, own, degraded)
    before, _ = fit_to(sdss, own, on_its_pixels)
    return chi2, before, factor


@pytest.mark.parametrize("name", GALAXIES)
def test_kids_degraded_to_sdss_agrees_with_sdss(fits_of_six, name):
    chi2, _, factor = fits_of_six[name]
    assert 0.6 < chi2 < 1.2
    # SDSS measures 0.04 to 0.11 mag less in apertures of 8 arcsec.
    assert 0.02 < -2.5 * np.log10(factor) < 0.12


def test_it_agrees_far_better_than_kids_as_it_is(fits_of_six):
    after, before = np.mean([fits_of_six[name][:2] for name in BRIGHT], axis=0)
    assert after < 1.1
    assert before > 1.5
    assert all(chi2 < unmatched for chi2, unmatched, _ in fits_of_six.values())
