"""Cutouts that several test modules make."""

import astropy.units as u
import numpy as np
from astropy.wcs import WCS

from astro_morphvae import CutoutSet

SCALE = 0.262 * u.arcsec


def make_wcs(ra=10.0, dec=20.0, crpix=(8.5, 8.5), scale=0.262, rotation=0.0, form="cd"):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = crpix
    cos, sin = np.cos(rotation), np.sin(rotation)
    matrix = np.array([[-cos, sin], [sin, cos]])
    if form == "cd":
        wcs.wcs.cd = matrix * scale / 3600
    else:
        wcs.wcs.pc = matrix
        wcs.wcs.cdelt = [scale / 3600] * 2
    wcs.wcs.set()
    return wcs


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(1, 1, size=shape).astype(np.float32)


def make_set(n=4, n_band=3, size=16, **kwargs):
    arguments = {"unit": u.nmgy, "bands": "grizy"[:n_band], **kwargs}
    return CutoutSet(noise(n, n_band, size, size), **arguments)
