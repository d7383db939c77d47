"""Many galaxies on pixel grids of one size, as NDData: what every other room works on."""

from importlib import import_module

import astropy.units as u
import numpy as np
from astropy.io.registry import UnifiedReadWrite, UnifiedReadWriteMethod
from astropy.nddata import InverseVariance, NDData
from astropy.units.function.logarithmic import MagUnit

from ._assemble import assemble_nddata
from ._parse import (
    OK,
    add_positions,
    flag_bad_rows,
    is_mapped,
    order_columns,
    parse_angle,
    parse_bands,
    parse_catalog,
    parse_data,
    parse_psf_fwhm,
    parse_rows,
    parse_uncertainty,
    parse_wcs,
)
from .cutout import Cutout, describe

__all__ = ["CutoutSet"]


def _files():
    # Readers and writers live in the room above and register themselves; it is found by name when
    # first needed, so that this room knows nothing of files.
    return import_module("astro_morphvae.io")


class _Read(UnifiedReadWrite):
    """Read a `CutoutSet` from a file written by `CutoutSet.write`.

    Parameters
    ----------
    *args
        First the path.
    format : str, optional
        File format; recognised from the file where it is not given.
    **kwargs
        Passed to the reader; see ``CutoutSet.read.help("morphvae.fits")``.

    Returns
    -------
    CutoutSet
    """

    def __init__(self, instance, cls):
        super().__init__(instance, cls, "read", registry=None)
        _files()

    def __call__(self, *args, **kwargs):
        return self.registry.read(self._cls, *args, **kwargs)


class _Write(UnifiedReadWrite):
    """Write the set to one checksummed FITS file that can be memory-mapped.

    Parameters
    ----------
    *args
        First the path.
    format : str, optional
        File format; ``"morphvae.fits"``, the only one, where it is not given.
    **kwargs
        Passed to the writer; see ``CutoutSet.write.help("morphvae.fits")``.
    """

    def __init__(self, instance, cls):
        super().__init__(instance, cls, "write", registry=None)
        _files()

    def __call__(self, *args, **kwargs):
        kwargs.setdefault("format", "morphvae.fits")
        return self.registry.write(self._instance, *args, **kwargs)


class CutoutSet(NDData):
    """Cutouts of many galaxies on pixel grids of one size, scale and set of bands.

    Parameters
    ----------
    data : (n, n_band, ny, nx) array
        Flux per pixel. Never changed; a memory map stays one.
    unit : unit-like
        Unit of the data: nanomaggies where calibrated, ``u.dimensionless_unscaled`` for colour
        stamps. `from_nddata` and `from_files` convert to nanomaggies, the constructor does not.
    bands : str or sequence of str
        Names of the bands; ``"grz"`` means g, r and z.
    uncertainty : `~astropy.nddata.NDUncertainty`, optional
        Of any kind that converts to inverse variance, shaped as the data.
    mask : array of bool, optional
        True for bad pixels; any shape that broadcasts to the data.
    wcs : sequence of (`~astropy.wcs.WCS` or None), optional
        Celestial coordinates of each cutout.
    pixel_scale : `~astropy.units.Quantity` [angle], optional
        Angle per pixel. Taken from the WCS where it is not given.
    psf_fwhm : `~astropy.units.Quantity` [angle], optional
        FWHM of the point spread function, one value or one a band.
    catalog : `~astropy.table.Table`, optional
        One row a cutout, copied. Columns ``id`` (default: 0, 1, ...), ``status`` (default: found
        from the pixels) and, where there is a WCS, ``ra`` and ``dec`` are added where missing.
    meta : dict, optional
        Anything that describes the set, such as the survey layer.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.

    Notes
    -----
    Pixels that are not finite, or whose inverse variance is not finite or is negative, are masked
    and their inverse variance is 0. A row without a usable pixel in some band gets a ``status``
    other than ``"ok"``, holds NaN and is masked as a whole. Pixels of a memory map whose catalog
    brings its ``status`` are taken as they are, so that nothing is read before it is needed.

    Examples
    --------
    >>> import astropy.units as u
    >>> import numpy as np
    >>> from astro_morphvae import CutoutSet
    >>> flux = np.random.default_rng(0).normal(size=(5, 3, 32, 32))
    >>> cutouts = CutoutSet(flux, unit=u.nmgy, bands="grz", pixel_scale=0.262 * u.arcsec)
    >>> cutouts
    <CutoutSet of 5: 3 bands (g, r, z), 32 × 32 pixels, nmgy, 0.262 arcsec / pixel>
    >>> cutouts[1]
    <Cutout 1: 3 bands (g, r, z), 32 × 32 pixels, nmgy, 0.262 arcsec / pixel; status: ok>
    >>> len(cutouts[cutouts.good])
    5
    """

    read = UnifiedReadWriteMethod(_Read)
    write = UnifiedReadWriteMethod(_Write)

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
        catalog=None,
        meta=None,
    ):
        unit = u.Unit(unit)
        if isinstance(unit, MagUnit):
            raise ValueError(f"unit: {unit} is a magnitude; use from_nddata, which converts it")
        data, mask = parse_data(data, unit, mask)
        n, n_band = data.shape[:2]
        bands = parse_bands(bands, n_band)
        ivar = parse_uncertainty(uncertainty, unit, data.shape)
        wcs = parse_wcs(wcs, n)
        catalog = parse_catalog(catalog, n)
        pixel_scale = parse_angle("pixel_scale", pixel_scale)
        if wcs is not None:
            scale = add_positions(catalog, wcs, data.shape[2:])
            if pixel_scale is None and scale is not None:
                pixel_scale = scale
        if "status" not in catalog.colnames or not is_mapped(data):
            data, ivar, mask = flag_bad_rows(data, ivar, mask, bands, catalog)
        catalog = order_columns(catalog)
        self._set(data, unit, bands, ivar, mask, wcs, pixel_scale, psf_fwhm, catalog, meta)

    def _set(self, data, unit, bands, ivar, mask, wcs, pixel_scale, psf_fwhm, catalog, meta):
        uncertainty = None if ivar is None else InverseVariance(ivar, copy=False)
        super().__init__(data, uncertainty=uncertainty, mask=mask, unit=unit, meta=dict(meta or {}))
        self._bands = bands
        self._cutout_wcs = wcs
        self._pixel_scale = pixel_scale
        self._psf_fwhm = parse_psf_fwhm(psf_fwhm, len(bands))
        self._catalog = catalog

    @classmethod
    def _trusted(cls, data, **kwargs):
        """Build a set from parts that are known to be consistent and clean."""
        self = cls.__new__(cls)
        self._set(data, **kwargs)
        return self

    @classmethod
    def from_nddata(
        cls,
        items,
        *,
        bands=None,
        unit=None,
        pixel_scale=None,
        resize=None,
        psf_fwhm=None,
        ids=None,
        catalog=None,
        meta=None,
    ):
        """Collect NDData objects into one set.

        Parameters
        ----------
        items : sequence of `~astropy.nddata.NDData`
            Also `~astropy.nddata.CCDData`, `~astropy.nddata.NDDataRef` or `Cutout`: (y, x) of one
            band, or (band, y, x), with or without unit, uncertainty, mask and WCS. Not changed.
        bands : str or sequence of str, optional
            Bands wanted, in this order; they name the bands of items that do not say. Taken from
            the items' ``bands``, or from ``BANDS``, ``BAND0`` ... or ``FILTER`` in their ``meta``,
            where it is not given; ``"band0"`` ... where nothing says.
        unit : unit-like or `~astropy.units.Quantity`, optional
            Unit of the data, in place of what the items say. A quantity is the flux of one data
            unit: ``0.0275 * u.nJy``, or the zero point ``26.2 * u.ABmag``.
        pixel_scale : `~astropy.units.Quantity` [angle], optional
            Resample every item that has another pixel scale to this one, conserving flux. For
            items without WCS it says what their pixel scale is.
        resize : int or (int, int), optional
            Number of pixels of each cutout, (ny, nx). Alone, it keeps the field of view and
            changes the pixel scale; with ``pixel_scale`` it crops or pads (masked) about the
            centre.
        psf_fwhm : `~astropy.units.Quantity` [angle], optional
            FWHM of the point spread function, one value or one a band.
        ids : sequence, optional
            Identifiers of the rows.
        catalog : `~astropy.table.Table`, optional
            More columns, one row an item.
        meta : dict, optional
            Anything that describes the set.

        Returns
        -------
        CutoutSet
            In nanomaggies where the unit converts to flux (also from magnitudes); otherwise in
            the unit of the items. Bad pixels hold 0 and are masked; bad items are rows of NaN
            with a ``status``.

        Raises
        ------
        `~astro_morphvae.exceptions.CutoutMismatchError`
            If sizes, pixel scales, bands or units differ; the message lists the rows.
        """
        parts = assemble_nddata(
            items,
            bands=bands,
            unit=unit,
            pixel_scale=pixel_scale,
            resize=resize,
            ids=ids,
            catalog=catalog,
        )
        return cls._trusted(**parts, psf_fwhm=psf_fwhm, meta=meta)

    @classmethod
    def from_files(cls, paths, **kwargs):
        """Read cutouts, one a file: FITS, Legacy Survey FITS, PNG or JPEG.

        Every keyword of `astro_morphvae.io.read_files` is taken.

        Parameters
        ----------
        paths : sequence of path-like
            Files, in the order of the rows wanted.
        **kwargs
            See `astro_morphvae.io.read_files`.

        Returns
        -------
        CutoutSet
            One row a file. A file that cannot be read is a row with a ``status``.
        """
        return _files().read_files(paths, **kwargs)

    @property
    def wcs(self):
        """Celestial WCS of each row: a sequence of `~astropy.wcs.WCS` or None; or None."""
        return self._cutout_wcs

    @property
    def ivar(self):
        """Inverse variance as a plain array shaped as the data, or None."""
        return None if self.uncertainty is None else self.uncertainty.array

    @property
    def bands(self):
        """Names of the bands, a tuple of str."""
        return self._bands

    @property
    def n_bands(self):
        """Number of bands."""
        return len(self._bands)

    @property
    def pixel_scale(self):
        """Angle per pixel in arcsec; None where it is unknown or differs between rows."""
        return self._pixel_scale

    @property
    def psf_fwhm(self):
        """FWHM of the point spread function in each band, in arcsec, or None."""
        return self._psf_fwhm

    @property
    def catalog(self):
        """Row-aligned `~astropy.table.QTable`, with ``id`` and ``status`` at least."""
        return self._catalog

    @property
    def good(self):
        """True for the rows whose status is ``"ok"``: (n,) array of bool."""
        return np.asarray(self._catalog["status"]) == OK

    @property
    def shape(self):
        """Shape of the data: (n, n_band, ny, nx)."""
        return self.data.shape

    @property
    def size(self):
        """Pixels of each cutout: (ny, nx)."""
        return self.data.shape[2:]

    def arrays(self, rows=slice(None)):
        """Pixels of some rows, ready for arithmetic.

        Parameters
        ----------
        rows : slice or array, optional
            Which rows.

        Returns
        -------
        data : (n, n_band, ny, nx) array of float32
            New array in native byte order; masked pixels and bad rows hold 0, so all are finite.
        ivar : array of float32 or None
            0 in bad pixels.
        mask : array of bool or None
            True for bad pixels.
        """
        data = np.array(self.data[rows], dtype=np.float32, order="C")
        mask = None if self.mask is None else np.array(self.mask[rows], dtype=bool)
        ivar = None if self.ivar is None else np.array(self.ivar[rows], dtype=np.float32)
        # The extremes show what is not finite, at less cost than a test of every pixel.
        if data.size and not (np.isfinite(data.min()) and np.isfinite(data.max())):
            bad = ~np.isfinite(data)
            mask = bad if mask is None else mask | bad
        if mask is not None and mask.any():
            data[mask] = 0
            if ivar is not None:
                ivar[mask] = 0
        return data, ivar, mask

    def __len__(self):
        return self.data.shape[0]

    def __iter__(self):
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index):
        if isinstance(index, (int, np.integer)) and not isinstance(index, (bool, np.bool_)):
            return self._row(int(index))
        if not isinstance(index, slice):
            index = parse_rows(index, len(self))

        def part(array):
            if array is None:
                return None
            # A fancy index of a memory map is a copy, no longer a map of the file.
            return array[index] if isinstance(index, slice) else np.asarray(array[index])

        wcs = self._cutout_wcs
        if wcs is not None:
            wcs = wcs[index] if isinstance(index, slice) else wcs.take(index)
        return type(self)._trusted(
            part(self.data),
            unit=self.unit,
            bands=self._bands,
            ivar=part(self.ivar),
            mask=part(self.mask),
            wcs=wcs,
            pixel_scale=self._pixel_scale,
            psf_fwhm=self._psf_fwhm,
            catalog=self._catalog[index],
            meta=self.meta,
        )

    def _row(self, row):
        if not -len(self) <= row < len(self):
            raise IndexError(f"index: row {row} of a CutoutSet of {len(self)}")
        entry = self._catalog[row]
        catalog = {name: entry[name] for name in self._catalog.colnames}
        return Cutout(
            self.data[row],
            unit=self.unit,
            bands=self._bands,
            uncertainty=None if self.ivar is None else InverseVariance(self.ivar[row], copy=False),
            mask=None if self.mask is None else self.mask[row],
            wcs=None if self._cutout_wcs is None else self._cutout_wcs[row],
            pixel_scale=self._pixel_scale,
            psf_fwhm=self._psf_fwhm,
            meta={
                **self.meta,
                "id": entry["id"],
                "status": str(entry["status"]),
                "catalog": catalog,
            },
        )

    def __repr__(self):
        text = f"<CutoutSet of {len(self)}: {describe(self)}"
        n_bad = len(self) - int(self.good.sum())
        if n_bad:
            text += f"; {n_bad} bad row{'s' if n_bad > 1 else ''}"
        return text + ">"

    __str__ = __repr__
