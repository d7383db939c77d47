"""One image on its way into a set: its pixels in nanomaggies, and what is known of it."""

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.nddata import NDData
from astropy.units.function.logarithmic import MagUnit

from .._resample import lower_corner, resample
from ..exceptions import CutoutMismatchError
from ..units import NANOMAGGY, flux_scale, magnitudes_to_flux
from ._headers import bands_from_header
from ._parse import OK, PIXEL_SCALE_TOLERANCE, parse_uncertainty
from ._wcs import cards_to_wcs, celestial_wcs, centre_and_scale, rescale_wcs

__all__ = [
    "Record",
    "calibrate",
    "place_on_grid",
    "record_from_nddata",
    "select_bands",
]


@dataclass(slots=True)
class Record:
    """One image and what is known of it.

    Attributes
    ----------
    data : (n_band, ny, nx) array, or None where there are no pixels
    ivar, mask : array or None
    unit : `~astropy.units.UnitBase` or None
    bands : tuple of str or None
    wcs : `~astropy.wcs.WCS`, str of header cards, or None
    ra, dec : float
        Centre, ICRS, in degrees; NaN where unknown.
    pixel_scale : float
        Arcsec; NaN where unknown.
    status : str
    id : str, int or None
    shape : tuple of int or None
        What the shape of the data would be, where they are lost.
    """

    data: np.ndarray | None = None
    ivar: np.ndarray | None = None
    mask: np.ndarray | None = None
    unit: u.UnitBase | None = None
    bands: tuple | None = None
    wcs: object = None
    ra: float = np.nan
    dec: float = np.nan
    pixel_scale: float = np.nan
    status: str = OK
    id: object = None
    shape: tuple | None = None

    def locate(self):
        """Fill in centre and pixel scale from the WCS."""
        wcs = cards_to_wcs(self.wcs) if isinstance(self.wcs, str) else self.wcs
        if wcs is not None:
            self.ra, self.dec, self.pixel_scale = centre_and_scale(wcs, self.data.shape[-2:])
        return self


def calibrate(data, ivar, unit, pixel_scale=np.nan):
    """Turn pixels into nanomaggies where their unit says how.

    Parameters
    ----------
    data, ivar : array, array or None
        Not changed; returned as they are where there is nothing to convert.
    unit : `~astropy.units.UnitBase`, `~astropy.units.Quantity` or None
        Unit of the data, or the flux of one data unit.
    pixel_scale : float, optional
        Arcsec per pixel, for surface brightnesses.

    Returns
    -------
    data, ivar, unit
    """
    if unit is None:
        return data, ivar, u.dimensionless_unscaled
    if isinstance(unit, MagUnit):
        with np.errstate(divide="ignore", invalid="ignore"):
            sigma = None if ivar is None else 1.0 / np.sqrt(np.asarray(ivar, dtype=float))
            flux, sigma = magnitudes_to_flux(data, unit, sigma)
            ivar = None if ivar is None else 1.0 / sigma**2
        return flux, ivar, NANOMAGGY
    angle = pixel_scale * u.arcsec if np.isfinite(pixel_scale) else None
    scale = flux_scale(unit, pixel_scale=angle)
    if scale is None:
        if isinstance(unit, u.Quantity):
            raise ValueError(f"unit: {unit} is not a flux; give its unit alone to keep it")
        return data, ivar, unit
    if scale != 1.0:
        data = data * scale
        ivar = None if ivar is None else ivar / scale**2
    return data, ivar, NANOMAGGY


def record_from_nddata(item, row, *, unit=None, pixel_scale=None):
    """Take one NDData apart.

    Parameters
    ----------
    item : `~astropy.nddata.NDData`
        (y, x) or (band, y, x). Not changed.
    row : int
        Its number, for errors.
    unit : unit-like or `~astropy.units.Quantity`, optional
        Unit in place of the item's own.
    pixel_scale : `~astropy.units.Quantity`, optional
        Pixel scale of an item without WCS.

    Returns
    -------
    Record
    """
    if not isinstance(item, NDData):
        raise TypeError(f"items: row {row} is {type(item).__name__}, not NDData")
    shape = np.shape(item.data)
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"items: row {row} has shape {shape}; expected (y, x) or (band, y, x)")
    data = np.asarray(item.data)
    if data.dtype.kind not in "fiub":
        raise TypeError(f"items: row {row} holds {data.dtype}, not numbers")
    mask = None if item.mask is None else np.asarray(item.mask) != 0
    if mask is not None:
        try:
            mask = np.broadcast_to(mask, shape)
        except ValueError:
            raise ValueError(
                f"items: row {row} has a mask of shape {mask.shape} for data of {shape}"
            ) from None
    own_unit = item.unit if unit is None else unit
    try:
        ivar = _inverse_variance(item, own_unit)
        wcs = celestial_wcs(item.wcs)
    except (TypeError, ValueError, u.UnitsError) as error:
        raise type(error)(f"items: row {row}: {error}") from None
    if len(shape) == 2:
        data = data[np.newaxis]
        mask = None if mask is None else mask[np.newaxis]
        ivar = None if ivar is None else ivar[np.newaxis]
    record = Record(data, mask=mask, wcs=wcs).locate()
    scale = getattr(item, "pixel_scale", None)
    if not np.isfinite(record.pixel_scale) and (scale is not None or pixel_scale is not None):
        record.pixel_scale = (scale if scale is not None else pixel_scale).to_value(u.arcsec)
    try:
        record.data, record.ivar, record.unit = calibrate(data, ivar, own_unit, record.pixel_scale)
    except ValueError as error:
        raise ValueError(f"items: row {row}: {error}") from None
    record.bands = getattr(item, "bands", None) or bands_from_header(item.meta, len(data))
    record.id = item.meta.get("id")
    return record


def _inverse_variance(item, unit):
    """Inverse variance of an NDData in 1 / unit², or in 1 / mag² where the unit is a magnitude."""
    uncertainty = item.uncertainty
    if uncertainty is None:
        return None
    if isinstance(unit, MagUnit):
        # Powers of a magnitude have no unit in astropy, so the array is taken by its kind.
        power = {"std": -2, "var": -1, "ivar": 1}.get(uncertainty.uncertainty_type)
        if power is None:
            raise TypeError(
                f"uncertainty: {type(uncertainty).__name__} does not convert to inverse variance"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(uncertainty.array, dtype=float) ** power
    base = item.unit if item.unit is not None else u.dimensionless_unscaled
    # The uncertainty goes with the item's own unit, also where another is put in its place.
    return parse_uncertainty(uncertainty, base, np.shape(item.data))


def select_bands(record, bands):
    """Bring a record to the bands asked for, in their order.

    Parameters
    ----------
    record : Record
    bands : tuple of str or None
        None keeps what there is.

    Returns
    -------
    Record
        With a bad ``status`` where a band is missing.
    """
    if bands is None or record.bands == bands or record.data is None:
        return record
    if record.bands is None:
        # Nothing names the bands of the image, so the argument does.
        return replace(record, bands=bands if len(bands) == len(record.data) else None)
    missing = [band for band in bands if band not in record.bands]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        status = f"missing band{plural}: {', '.join(missing)}"
        return replace(record, data=None, ivar=None, mask=None, bands=bands, status=status)
    order = [record.bands.index(band) for band in bands]
    parts = {
        name: None if getattr(record, name) is None else getattr(record, name)[order]
        for name in ("data", "ivar", "mask")
    }
    return replace(record, bands=bands, **parts)


def place_on_grid(record, *, pixel_scale=None, resize=None):
    """Bring a record to the pixels asked for, conserving flux.

    Parameters
    ----------
    record : Record
    pixel_scale : float, optional
        Arcsec per pixel wanted.
    resize : tuple of int, optional
        (ny, nx) wanted.

    Returns
    -------
    Record
    """
    if record.data is None or (pixel_scale is None and resize is None):
        return record
    ny, nx = record.data.shape[-2:]
    scale = record.pixel_scale
    if pixel_scale is None:
        # The whole field stays in view and pixels stay square, so that no galaxy is squeezed.
        ratio = max(ny / resize[0], nx / resize[1])
    else:
        ratio = pixel_scale / scale if np.isfinite(scale) else 1.0
        if abs(ratio - 1) < PIXEL_SCALE_TOLERANCE:
            ratio = 1.0
    size = resize or (max(int(ny / ratio + 1e-3), 1), max(int(nx / ratio + 1e-3), 1))
    if ratio == 1 and size == (ny, nx):
        return record
    data, ivar, mask = resample(record.data, record.ivar, record.mask, ratio=ratio, size=size)
    wcs = cards_to_wcs(record.wcs) if isinstance(record.wcs, str) else record.wcs
    if wcs is not None:
        x0, y0 = lower_corner(nx, size[1], ratio), lower_corner(ny, size[0], ratio)
        try:
            wcs = rescale_wcs(wcs, ratio=ratio, x0=x0, y0=y0)
        except ValueError as error:
            raise CutoutMismatchError(str(error)) from None
    new = replace(record, data=data, ivar=ivar, mask=mask, wcs=wcs, pixel_scale=scale * ratio)
    return new.locate()
