"""One galaxy in one or more bands, as NDData."""

import numpy as np
from astropy.nddata import NDData

from ._parse import OK, is_mapped, parse_angle, parse_bands, parse_psf_fwhm

__all__ = ["Cutout", "describe"]


class Cutout(NDData):
    """One galaxy in one or more bands.

    Parameters
    ----------
    data : (n_band, ny, nx) array
        Flux per pixel.
    unit : unit-like
        Unit of the data, nanomaggies where it is calibrated.
    bands : str or sequence of str
        Names of the bands, in the order of the first axis; ``"grz"`` means g, r and z.
    uncertainty : `~astropy.nddata.InverseVariance`, optional
        Inverse variance per pixel.
    mask : (n_band, ny, nx) array of bool, optional
        True for bad pixels.
    wcs : `~astropy.wcs.WCS`, optional
        Celestial coordinates of the last two axes.
    pixel_scale : `~astropy.units.Quantity` [angle], optional
        Angle per pixel.
    psf_fwhm : (n_band,) `~astropy.units.Quantity` [angle], optional
        Full width at half maximum of the point spread function in each band.
    meta : dict, optional
        ``id``, ``status`` and the catalog row, where the cutout comes from a `CutoutSet`.
    """

    def __init__(
        self,
        data,
        *,
        unit,
        bands,
        uncertainty=None,
        mask=None,
        wcs=None,
        pixel_scale=None,
        psf_fwhm=None,
        meta=None,
    ):
        if np.ndim(data) != 3:
            raise ValueError(f"data: expected (band, y, x), got shape {np.shape(data)}")
        super().__init__(data, uncertainty=uncertainty, mask=mask, wcs=wcs, meta=meta, unit=unit)
        self._bands = parse_bands(bands, len(data))
        self._pixel_scale = parse_angle("pixel_scale", pixel_scale)
        self._psf_fwhm = parse_psf_fwhm(psf_fwhm, len(data))

    @property
    def bands(self):
        """Names of the bands, a tuple of str."""
        return self._bands

    @property
    def pixel_scale(self):
        """Angle per pixel in arcsec, or None."""
        return self._pixel_scale

    @property
    def psf_fwhm(self):
        """FWHM of the point spread function in each band, in arcsec, or None."""
        return self._psf_fwhm

    @property
    def shape(self):
        """Shape of the data: (n_band, ny, nx)."""
        return self.data.shape

    @property
    def id(self):
        """Identifier of the object, or None."""
        return self.meta.get("id")

    @property
    def status(self):
        """``"ok"``, or why the cutout is bad."""
        return self.meta.get("status", OK)

    def __repr__(self):
        name = "" if self.id is None else f" {self.id}"
        return f"<Cutout{name}: {describe(self)}; status: {self.status}>"

    __str__ = __repr__


def describe(cutouts):
    """Bands, pixels, unit and what else a cutout or a set holds, on one line."""
    ny, nx = cutouts.data.shape[-2:]
    bands = cutouts.bands
    parts = [
        f"{len(bands)} band{'s' if len(bands) > 1 else ''} ({', '.join(bands)})",
        f"{ny} × {nx} pixels",
        str(cutouts.unit) or "no unit",
    ]
    if cutouts.pixel_scale is not None:
        parts.append(f"{cutouts.pixel_scale.value:.4g} arcsec / pixel")
    if cutouts.uncertainty is not None:
        parts.append("inverse variance")
    if cutouts.mask is not None:
        parts.append("mask")
    if is_mapped(cutouts.data):
        parts.append("on disk")
    return ", ".join(parts)
