"""Stars, noise and PSFEx files that several test modules make."""

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import InverseVariance

from astro_morphvae import CutoutSet

SCALE = 0.262 * u.arcsec


def moffat(size, fwhm, beta=3.5, offset=(0.0, 0.0)):
    """Moffat of unit flux on the infinite plane; all in pixels."""
    axis = np.arange(size) - (size - 1) / 2
    r2 = (axis[:, None] - offset[1]) ** 2 + (axis - offset[0]) ** 2
    core2 = (0.5 * fwhm) ** 2 / (2 ** (1 / beta) - 1)
    return (beta - 1) / (np.pi * core2) * (1 + r2 / core2) ** -beta


def stars(n=2, fwhm=(5.0, 4.0), size=65, beta=3.5, **kwargs):
    """One star of flux 100 a cutout, widths in pixels a band."""
    images = [100 * moffat(size, width, beta) for width in fwhm]
    arguments = {
        "unit": u.nmgy,
        "bands": "grz"[: len(fwhm)],
        "pixel_scale": SCALE,
        "psf_fwhm": np.array(fwhm) * SCALE,
        "meta": {"layer": "test"},
        **kwargs,
    }
    return CutoutSet(np.broadcast_to(images, (n, len(fwhm), size, size)), **arguments)


def noise(n=50, size=48, fwhm=(4.5, 4.0), seed=0, **kwargs):
    """Noise of a variance that differs from pixel to pixel."""
    axis = np.linspace(0, 1, size)
    variance = np.broadcast_to(0.01 * (1 + axis + axis[:, None]), (n, len(fwhm), size, size))
    data = np.random.default_rng(seed).normal(size=variance.shape) * np.sqrt(variance)
    arguments = {
        "unit": u.nmgy,
        "bands": "grz"[: len(fwhm)],
        "uncertainty": InverseVariance(1 / variance),
        "pixel_scale": SCALE,
        "psf_fwhm": np.array(fwhm) * SCALE,
        **kwargs,
    }
    return CutoutSet(data, **arguments)


def psfex_numbers(degree=1, sampling=1.0, size=25):
    """Header cards of a model about the position (100, 200), scaled by 50 and 80."""
    return {
        "POLNAXIS": 2,
        "POLGRP1": 1,
        "POLNAME1": "X_IMAGE",
        "POLZERO1": 100.0,
        "POLSCAL1": 50.0,
        "POLGRP2": 1,
        "POLNAME2": "Y_IMAGE",
        "POLZERO2": 200.0,
        "POLSCAL2": 80.0,
        "POLNGRP": 1,
        "POLDEG1": degree,
        "PSF_SAMP": sampling,
        "PSFNAXIS": 3,
        "PSFAXIS1": size,
        "PSFAXIS2": size,
        "PSFAXIS3": (degree + 1) * (degree + 2) // 2,
    }


def write_psfex(path, basis, numbers, name="PSF_DATA"):
    """File as PSFEx writes it: one model an extension."""
    basis = np.asarray(basis, dtype=np.float32)
    column = fits.Column("PSF_MASK", f"{basis.size}E", dim=str(basis.shape[::-1]), array=[basis])
    table = fits.BinTableHDU.from_columns([column], name=name)
    table.header.update(numbers)
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)
    return path


def write_merged_psfex(path, models):
    """Table of the Legacy Surveys: one row a CCD, models padded to one size."""
    n_term, size = (max(basis.shape[axis] for _, basis, _ in models) for axis in (0, 1))
    padded = np.zeros((len(models), n_term, size, size), np.float32)
    for plane, (_, basis, _) in zip(padded, models, strict=True):
        plane[: basis.shape[0], : basis.shape[1], : basis.shape[2]] = basis
    columns = [fits.Column("ccdname", "4A", array=[name for name, _, _ in models])]
    for key in models[0][2]:
        values = [numbers[key] for _, _, numbers in models]
        code = {str: "8A", int: "K", float: "D"}[type(values[0])]
        columns.append(fits.Column(key.lower(), code, array=values))
    size = padded[0].size
    columns.append(fits.Column("psf_mask", f"{size}E", dim=str(padded.shape[:0:-1]), array=padded))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)
    return path
