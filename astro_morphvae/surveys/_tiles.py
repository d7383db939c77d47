"""Large images from which cutouts are taken: headers in memory, pixels where they lie."""

from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import NDData
from astropy.wcs import WCS

from ..cutouts._headers import bands_from_header
from ..cutouts._parse import parse_bands
from ..cutouts._records import calibrate, record_from_nddata
from ..cutouts._wcs import celestial_wcs, centre_and_scale, quiet_astropy, wcs_to_cards
from ..io import LEGACY_MASKBITS
from ..units import parse_unit

__all__ = ["FitsTile", "Mosaic", "NDDataTile", "Tile", "TilePool", "make_tile", "unit_vectors"]


@dataclass(frozen=True, eq=False)
class Mosaic:
    """One large image with its companions.

    Parameters
    ----------
    image : path-like or `~astropy.nddata.NDData`
        (y, x) of one band, or (band, y, x), with a celestial WCS. A FITS file, compressed or not,
        is read piece by piece.
    ivar : path-like, optional
        FITS file of the inverse variance, in the unit of the image to the power -2.
    mask : path-like, optional
        FITS file of the mask, one for all bands or one a band: bad where it is not 0.
    bands : str or sequence of str, optional
        Names of the bands; taken from the header where not given.
    unit : unit-like or `~astropy.units.Quantity`, optional
        As for `CutoutSet.from_nddata <astro_morphvae.CutoutSet.from_nddata>`; ``BUNIT`` of the
        header where not given.
    hdu : int or str, optional
        Which part of the files; the first image where not given.
    bad_bits : int or dict of int, optional
        Bits of the mask that make a pixel bad, for all bands or by band; any bit by default.
    """

    image: object
    ivar: object = None
    mask: object = None
    bands: object = None
    unit: object = None
    hdu: object = None
    bad_bits: object = None

    @classmethod
    def from_path(cls, path):
        """Take an image file, and the companions of a Legacy Survey brick that lie beside it.

        Parameters
        ----------
        path : path-like
            Where it is named ``...-image-g.fits.fz``, the files ``...-invvar-g.fits.fz`` and
            ``...-maskbits.fits.fz`` are taken as its inverse variance and mask if they exist.

        Returns
        -------
        Mosaic
        """
        path = Path(path)
        stem, found, rest = path.name.rpartition("-image-")
        if not found:
            return cls(path)
        band, dot, suffix = rest.partition(".")
        ivar = path.with_name(f"{stem}-invvar-{rest}")
        mask = path.with_name(f"{stem}-maskbits{dot}{suffix}")
        return cls(
            path,
            ivar=ivar if ivar.is_file() else None,
            mask=mask if mask.is_file() else None,
            bands=band,
            bad_bits=LEGACY_MASKBITS,
        )


class Tile:
    """One large image on the sky; subclasses say how its pixels are read.

    Parameters
    ----------
    name : str
        For messages.
    wcs : `~astropy.wcs.WCS`
        Celestial WCS of two axes.
    shape : tuple of int
        (ny, nx).
    bands : tuple of str
    has_ivar : bool
    """

    def __init__(self, name, wcs, shape, bands, *, has_ivar):
        self.name = name
        self.wcs = wcs
        self.shape = shape
        self.bands = bands
        self.has_ivar = has_ivar
        ny, nx = shape
        *centre, self.pixel_scale = centre_and_scale(wcs, shape)
        self.centre = unit_vectors(*centre)
        edges = wcs.pixel_to_world(
            np.array([-0.5, nx - 0.5, nx - 0.5, -0.5]), np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
        ).icrs
        cosines = unit_vectors(edges.ra.deg, edges.dec.deg) @ self.centre
        self.radius = float(np.degrees(np.arccos(np.clip(cosines, -1, 1)).max()))
        # Tiles of several bands often share their grid to the last digit.
        try:
            self.grid = wcs_to_cards(wcs)
        except ValueError:  # distortion tables
            self.grid = id(wcs)

    def open(self, stack):
        """Make ready for reading; what is to be closed goes on the stack.

        Parameters
        ----------
        stack : `contextlib.ExitStack`

        Returns
        -------
        callable
            Takes a window, two slices (y, x), and the number of a band; returns the data (y, x) in
            the unit of the result, the inverse variance or None, the bad pixels or None, and the
            unit.
        """
        raise NotImplementedError


class FitsTile(Tile):
    """Tile in FITS files.

    Parameters
    ----------
    mosaic : Mosaic
    """

    def __init__(self, mosaic):
        self.mosaic = mosaic
        path = Path(mosaic.image)
        with quiet_astropy(), fits.open(path) as hdus:
            hdu = _image_hdu(hdus, mosaic.hdu, path)
            header, shape = hdu.header.copy(), hdu.shape
            first = hdus[0].header.copy()
            wcs = celestial_wcs(WCS(header))
        if len(shape) not in (2, 3) or wcs is None:
            what = "without celestial WCS" if wcs is None else f"of shape {shape}"
            raise ValueError(f"mosaics: {path.name} holds an image {what}")
        n_band = 1 if len(shape) == 2 else shape[0]
        bands = (
            mosaic.bands or bands_from_header(header, n_band) or bands_from_header(first, n_band)
        )
        if bands is None:
            raise ValueError(
                f"mosaics: {path.name} does not name its bands; give them, for instance "
                f"Mosaic({path.name!r}, bands='r')"
            )
        self.unit = mosaic.unit
        if self.unit is None:
            self.unit = parse_unit(header.get("BUNIT") or first.get("BUNIT"))
        super().__init__(
            path.name, wcs, shape[-2:], parse_bands(bands, n_band), has_ivar=mosaic.ivar is not None
        )

    def open(self, stack):
        mosaic = self.mosaic

        def section(path):
            if path is None:
                return None
            with quiet_astropy():
                hdus = stack.enter_context(fits.open(path, memmap=True))
                hdu = _image_hdu(hdus, mosaic.hdu, path)
            if hdu.shape[-2:] != self.shape:
                raise ValueError(f"{Path(path).name} has shape {hdu.shape}, not that of the image")
            return _lazy_pixels(hdu), hdu.shape

        image, ivar, mask = section(mosaic.image), section(mosaic.ivar), section(mosaic.mask)

        def cut(source, window, band):
            if source is None:
                return None
            pixels, shape = source
            index = window if len(shape) == 2 else (band if shape[0] > 1 else 0, *window)
            return np.asarray(pixels[index])

        def read(window, band):
            data = cut(image, window, band).astype(np.float32, copy=False)
            weight = cut(ivar, window, band)
            bits = cut(mask, window, band)
            bad = None if bits is None else self._bad(bits, self.bands[band])
            data, weight, unit = calibrate(data, weight, self.unit, self.pixel_scale)
            return data, weight, bad, unit

        return read

    def _bad(self, bits, band):
        chosen = self.mosaic.bad_bits
        if isinstance(chosen, dict):
            chosen = chosen.get(band, 0)
        if bits.dtype.kind == "f":
            bits = np.nan_to_num(bits)
        return bits != 0 if chosen is None else (bits.astype(np.int64) & int(chosen)) != 0


class NDDataTile(Tile):
    """Tile in memory.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`
    bands, unit
        As of `Mosaic`.
    name : str, optional
        For messages.
    """

    def __init__(self, image, bands=None, unit=None, name="an NDData"):
        self.image = image
        self.unit = unit
        shape = np.shape(image.data)
        wcs = celestial_wcs(image.wcs)
        if len(shape) not in (2, 3) or wcs is None:
            what = "without celestial WCS" if wcs is None else f"of shape {shape}"
            raise ValueError(f"mosaics: {name} is an image {what}")
        n_band = 1 if len(shape) == 2 else shape[0]
        bands = bands or getattr(image, "bands", None) or bands_from_header(image.meta, n_band)
        if bands is None:
            raise ValueError(f"mosaics: {name} does not name its bands; give Mosaic(..., bands=)")
        super().__init__(
            name,
            wcs,
            shape[-2:],
            parse_bands(bands, n_band),
            has_ivar=image.uncertainty is not None,
        )

    def open(self, stack):
        image = self.image

        def cut(array, window, band):
            if array is None:
                return None
            array = np.asanyarray(array)
            if array.ndim < 2:
                return np.broadcast_to(array, self.shape)[window]
            return array[window] if array.ndim == 2 else array[(band, *window)]

        def read(window, band):
            uncertainty = image.uncertainty
            if uncertainty is not None:
                part = cut(uncertainty.array, window, band)
                uncertainty = type(uncertainty)(part, unit=uncertainty.unit, copy=False)
            piece = NDData(
                cut(image.data, window, band),
                uncertainty=uncertainty,
                mask=cut(image.mask, window, band),
                unit=image.unit,
            )
            scale = self.pixel_scale * u.arcsec
            record = record_from_nddata(piece, 0, unit=self.unit, pixel_scale=scale)
            parts = (record.data, record.ivar, record.mask)
            return (*(None if part is None else part[0] for part in parts), record.unit)

        return read


class TilePool:
    """The tiles that were read last, kept open.

    Parameters
    ----------
    most : int, optional
        How many are kept open.
    """

    def __init__(self, most=16):
        self._most = most
        self._open = OrderedDict()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        while self._open:
            self._open.popitem()[1][0].close()

    def read(self, tile, window, band):
        """Read a part of a tile; see `Tile.open`."""
        entry = self._open.pop(id(tile), None)
        if entry is None:
            with ExitStack() as stack:
                read = tile.open(stack)
                entry = stack.pop_all(), read
            while len(self._open) >= self._most:
                self._open.popitem(last=False)[1][0].close()
        self._open[id(tile)] = entry
        return entry[1](window, band)


def make_tile(item, number, band=None):
    """Take what a user gives for a mosaic.

    Parameters
    ----------
    item : path-like, `~astropy.nddata.NDData`, Mosaic or Tile
    number : int
        For messages.
    band : str, optional
        Its band, where known.

    Returns
    -------
    Tile
    """
    if isinstance(item, Tile):
        return item
    if isinstance(item, (str, Path)):
        item = Mosaic.from_path(item)
    elif isinstance(item, NDData):
        item = Mosaic(item)
    elif not isinstance(item, Mosaic):
        raise TypeError(
            f"mosaics: expected a path, an NDData or a Mosaic, got {type(item).__name__} "
            f"(number {number})"
        )
    if band is not None:
        item = replace(item, bands=(band,))
    if isinstance(item.image, NDData):
        if item.ivar is not None or item.mask is not None:
            raise ValueError("mosaics: an NDData brings its own uncertainty and mask")
        return NDDataTile(item.image, item.bands, item.unit, name=f"number {number}")
    return FitsTile(item)


def unit_vectors(ra, dec):
    """Turn positions in degrees into unit vectors, a (..., 3) array."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _lazy_pixels(hdu):
    """Pixels of an image that are read where they are indexed."""
    if isinstance(hdu, fits.CompImageHDU) or hdu.header["BITPIX"] > 0 or hdu.header.get("BSCALE"):
        return hdu.section
    return hdu.data  # a map of the file; a section reads line by line


def _image_hdu(hdus, hdu, path):
    if hdu is not None:
        return hdus[hdu]
    for candidate in hdus:
        if candidate.is_image and len(candidate.shape) >= 2:
            return candidate
    raise ValueError(f"no image in {Path(path).name}")
