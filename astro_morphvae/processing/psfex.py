"""Models of the point spread function as PSFEx writes them."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.io import fits

from ..cutouts._parse import parse_angle
from ._psf_images import measure_fwhm, resample_psf

__all__ = ["PSFExModel"]

_IMAGE_AXES = ("X_IMAGE", "Y_IMAGE")


@dataclass(frozen=True, eq=False)
class PSFExModel:
    """Point spread function that varies over a CCD as a polynomial, from PSFEx.

    Parameters
    ----------
    basis : (n_term, n, n) array
        Images that the terms of the polynomial multiply: 1, x, x², ..., y, x y, ..., y², ...
    degree : int
        Degree of the polynomial; 0 where the point spread function is the same everywhere.
    zero : (float, float)
        Position (x, y) in pixels, counted from 1, at which both variables are 0.
    scale : (float, float)
        Pixels (x, y) by which the variables are divided.
    sampling : float
        Size of a pixel of the images in pixels of the CCD.
    pixel_scale : `~astropy.units.Quantity` [angle], optional
        Angle per pixel of the CCD.
    name : str, optional
        Name of the CCD.

    References
    ----------
    .. [1] Bertin 2011, ASP Conf. 442, 435 (PSFEx).
    """

    basis: np.ndarray
    degree: int
    zero: tuple
    scale: tuple
    sampling: float = 1.0
    pixel_scale: u.Quantity | None = None
    name: str = ""

    def __post_init__(self):
        basis = np.asarray(self.basis, dtype=float)
        n_term = (self.degree + 1) * (self.degree + 2) // 2
        if basis.ndim != 3 or len(basis) != n_term or not np.isfinite(basis).all():
            raise ValueError(
                f"basis: expected {n_term} finite images for degree {self.degree}, got an array of "
                f"shape {basis.shape}"
            )
        if not (np.isfinite(self.sampling) and self.sampling > 0):
            raise ValueError(f"sampling: expected a positive number, got {self.sampling}")
        object.__setattr__(self, "basis", basis)
        object.__setattr__(self, "pixel_scale", parse_angle("pixel_scale", self.pixel_scale))

    @classmethod
    def read(cls, path, *, ccd=None, pixel_scale=None):
        """Read a model.

        Parameters
        ----------
        path : path-like
            File that PSFEx wrote (``.psf``, one extension a CCD, the numbers in its header), or a
            table of the Legacy Surveys (one row a CCD, the numbers in its columns).
        ccd : str or int, optional
            Which CCD, by its name or its number in the file from 0. Needed where there are several.
        pixel_scale : `~astropy.units.Quantity` [angle], optional
            Angle per pixel of the CCD, which the file does not say.

        Returns
        -------
        PSFExModel

        Raises
        ------
        OSError
            If the file is not FITS.
        ValueError
            If it holds no model, no such CCD, or a model that depends on more than the position.
        """
        with fits.open(path, memmap=False) as hdus:
            entries = [entry for hdu in hdus[1:] for entry in _entries(hdu)]
        if not entries:
            raise ValueError(f"path: no PSF_MASK, so no PSFEx model, in {path}")
        names = [entry.name for entry in entries]
        if ccd is None:
            if len(entries) > 1:
                raise ValueError(f"ccd: which of {', '.join(names)}? {path} holds {len(entries)}")
            chosen = 0
        elif isinstance(ccd, str):
            if names.count(ccd) != 1:
                raise ValueError(f"ccd: expected one of {', '.join(names)}, got {ccd!r}")
            chosen = names.index(ccd)
        else:
            if not 0 <= ccd < len(entries):
                raise ValueError(f"ccd: {ccd} of a file of {len(entries)}")
            chosen = ccd
        return entries[chosen].model(cls, pixel_scale)

    def evaluate(self, x, y, *, pixel_scale=None):
        """Draw the point spread function at positions on the CCD.

        Parameters
        ----------
        x, y : float or (n,) array
            Position in pixels, counted from 0 at the centre of the first pixel.
        pixel_scale : `~astropy.units.Quantity` [angle], optional
            Size of the pixels to draw on, in the place of those of the CCD; the model then has to
            know its own ``pixel_scale``.

        Returns
        -------
        (ny, nx) or (n, ny, nx) array
            Centred on the middle pixel, of unit sum. What a pixel of the CCD collects is drawn, at
            points as far apart as the pixels asked for.

        Raises
        ------
        ValueError
            If a position is not finite, or no pixel scale is known.
        """
        step = 1 / self.sampling
        pixel_scale = parse_angle("pixel_scale", pixel_scale)
        if pixel_scale is not None:
            if self.pixel_scale is None:
                raise ValueError(
                    f"pixel_scale: {pixel_scale} asked for, but that of the CCD is unknown; give "
                    "it to PSFExModel.read"
                )
            step *= float(pixel_scale / self.pixel_scale)
        return resample_psf(self._combine(x, y), step)

    def fwhm(self, x, y):
        """Measure the full width at half maximum at positions on the CCD.

        Parameters
        ----------
        x, y : float or (n,) array
            Position in pixels, counted from 0.

        Returns
        -------
        `~astropy.units.Quantity`
            As an angle where the pixel scale is known, else in pixels; shaped as the positions. It
            is the diameter of a circle of the area above half the maximum.
        """
        images = self._combine(x, y)
        shape = images.shape[:-2]
        images = images.reshape(-1, *images.shape[-2:])
        pixels = np.array([measure_fwhm(image) for image in images]) * self.sampling
        unit = u.pix if self.pixel_scale is None else self.pixel_scale
        return pixels.reshape(shape) * unit

    def _combine(self, x, y):
        """Images at the sampling of the model."""
        x, y = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("x, y: expected finite positions in pixels")
        x, y = (
            (value + 1 - zero) / scale
            for value, zero, scale in zip((x, y), self.zero, self.scale, strict=True)
        )
        powers = [(i, j) for j in range(self.degree + 1) for i in range(self.degree + 1 - j)]
        terms = np.stack([x**i * y**j for i, j in powers], axis=-1)
        return np.tensordot(terms, self.basis, axes=1)

    def __repr__(self):
        name = f" {self.name}" if self.name else ""
        ny, nx = self.basis.shape[-2:]
        scale = "" if self.pixel_scale is None else f", {self.pixel_scale:.4g} / pixel"
        return (
            f"<PSFExModel{name}: degree {self.degree}, {ny} × {nx} pixels of {self.sampling:.4g} "
            f"CCD pixel{scale}>"
        )


class _Entry:
    """One model in a file, its numbers from columns or from a header."""

    def __init__(self, name, basis, values):
        self.name, self.basis, self.values = name, basis, values

    def number(self, keyword, default=None):
        value = self.values.get(keyword, default)
        if value is None:
            raise ValueError(f"path: {keyword} is missing for {self.name}")
        return value

    def model(self, cls, pixel_scale):
        n_axis = int(self.number("POLNAXIS", 2 if "POLNAME1" in self.values else 0))
        basis = np.asarray(self.basis, dtype=float)
        if n_axis == 0:
            degree, zero, scale = 0, (0.0, 0.0), (1.0, 1.0)
            basis = basis.reshape(-1, *basis.shape[-2:])[:1]
        else:
            axes = tuple(str(self.number(f"POLNAME{k + 1}")).strip() for k in range(n_axis))
            if axes != _IMAGE_AXES or int(self.number("POLNGRP", 1)) != 1:
                raise ValueError(
                    f"path: the model of {self.name} depends on {', '.join(axes)}, not on "
                    f"{' and '.join(_IMAGE_AXES)} together"
                )
            degree = int(self.number("POLDEG1"))
            zero, scale = (
                tuple(float(self.number(f"{keyword}{axis}")) for axis in (1, 2))
                for keyword in ("POLZERO", "POLSCAL")
            )
        # A table of CCDs pads the models to one size.
        n_term = (degree + 1) * (degree + 2) // 2
        ny, nx = (
            int(self.number(f"PSFAXIS{k}", n))
            for k, n in zip((2, 1), basis.shape[-2:], strict=True)
        )
        return cls(
            basis[:n_term, :ny, :nx],
            degree,
            zero,
            scale,
            sampling=float(self.number("PSF_SAMP")),
            pixel_scale=pixel_scale,
            name=self.name,
        )


def _entries(hdu):
    """Models of one extension: one in a file of PSFEx, one a row in a merged table."""
    columns = {name.upper(): name for name in getattr(hdu, "columns", fits.ColDefs([])).names}
    if "PSF_MASK" not in columns:
        return
    for row in hdu.data:
        values = dict(hdu.header)
        values.update({key: row[name] for key, name in columns.items() if key != "PSF_MASK"})
        name = str(values.get("CCDNAME") or hdu.name or f"extension {hdu.ver}").strip()
        yield _Entry(name, row[columns["PSF_MASK"]], values)
