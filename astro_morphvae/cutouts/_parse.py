"""The public edge of the cutouts: every argument is checked and brought to one form here."""

from collections.abc import Sequence

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance, NDUncertainty
from astropy.table import Column, QTable, Table

from ..exceptions import CutoutMismatchError
from ._wcs import WCSList, celestial_wcs, centre_and_scale

__all__ = [
    "OK",
    "PIXEL_SCALE_TOLERANCE",
    "add_positions",
    "clean_pixels",
    "flag_bad_rows",
    "is_mapped",
    "list_rows",
    "order_columns",
    "parse_angle",
    "parse_bands",
    "parse_catalog",
    "parse_data",
    "parse_psf_fwhm",
    "parse_rows",
    "parse_size",
    "parse_uncertainty",
    "parse_wcs",
    "set_positions",
    "set_status",
    "status_of",
]

#: Status of a row that can be used.
OK = "ok"

#: Pixel scales that differ by less than this fraction are the same scale.
PIXEL_SCALE_TOLERANCE = 2e-3


def is_mapped(array):
    """Whether an array is a view of a file."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array._mmap is not None:
            return True
        array = array.base
    return type(array).__name__ == "mmap"


def parse_bands(bands, n_band=None):
    """Names of the bands as a tuple; ``"grz"`` means g, r and z."""
    if isinstance(bands, str):
        names = (bands,) if n_band == 1 else tuple(bands)
    elif isinstance(bands, (Sequence, np.ndarray)) and all(isinstance(b, str) for b in bands):
        names = tuple(str(band) for band in bands)
    else:
        raise TypeError(f"bands: expected a str or a sequence of str, got {bands!r}")
    names = tuple(name.strip() for name in names)
    if n_band is not None and len(names) != n_band:
        raise ValueError(f"bands: {len(names)} names {names} for data of {n_band} bands")
    if len(set(names)) != len(names) or not all(names):
        raise ValueError(f"bands: names must differ and not be empty, got {names}")
    return names


def parse_angle(name, value):
    """Return one positive angle in arcsec, or None."""
    if value is None:
        return None
    if not isinstance(value, u.Quantity) or not value.unit.is_equivalent(u.arcsec):
        raise TypeError(
            f"{name}: expected an angle such as 0.262 * u.arcsec (per pixel), got {value!r}"
        )
    value = value.to(u.arcsec)
    if value.ndim or not np.isfinite(value.value) or value.value <= 0:
        raise ValueError(f"{name}: expected one positive angle, got {value}")
    return value


def parse_psf_fwhm(value, n_band):
    """FWHM per band in arcsec, or None."""
    if value is None:
        return None
    if not isinstance(value, u.Quantity) or not value.unit.is_equivalent(u.arcsec):
        raise TypeError(f"psf_fwhm: expected angles such as [1.3, 1.2] * u.arcsec, got {value!r}")
    value = value.to(u.arcsec)
    if value.ndim > 1 or value.shape not in ((), (1,), (n_band,)):
        raise ValueError(f"psf_fwhm: expected one value or {n_band}, got shape {value.shape}")
    if np.any(value.value < 0):
        raise ValueError(f"psf_fwhm: negative width in {value}")
    return u.Quantity(np.broadcast_to(value.value, (n_band,)), u.arcsec)


def parse_size(name, size):
    """(ny, nx) from one number of pixels or two, or None."""
    if size is None:
        return None
    pair = (size, size) if np.ndim(size) == 0 else tuple(size)
    whole = all(
        isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in pair
    )
    if len(pair) != 2 or not whole or min(pair) < 1:
        raise ValueError(f"{name}: expected a number of pixels or (ny, nx), got {size!r}")
    return int(pair[0]), int(pair[1])


def parse_rows(index, n):
    """Rows as an array of int, from a mask or a list of rows."""
    rows = np.asarray(index)
    if rows.dtype == bool:
        if rows.shape != (n,):
            raise IndexError(f"index: mask of shape {rows.shape} for a CutoutSet of {n}")
        return np.flatnonzero(rows)
    if rows.size == 0 and rows.ndim == 1:
        return np.zeros(0, dtype=int)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise TypeError(
            f"index: expected a row, a slice, a mask or a list of rows of the set, got {index!r}"
        )
    if rows.min() < -n or rows.max() >= n:
        raise IndexError(f"index: rows {rows.min()} ... {rows.max()} of a CutoutSet of {n}")
    return np.where(rows < 0, rows + n, rows)


def parse_data(data, unit, mask):
    """(n, band, y, x) floats in ``unit``, and the mask as bool of the same shape or None."""
    if isinstance(data, np.ma.MaskedArray):
        own = np.ma.getmaskarray(data)
        mask = own if mask is None else own | mask
        data = data.data
    if isinstance(data, u.Quantity):
        data = data.to_value(unit)
    if not isinstance(data, np.ndarray):
        data = np.asarray(data)
    if data.ndim != 4:
        raise ValueError(f"data: expected (n, band, y, x), got shape {data.shape}")
    if 0 in data.shape[1:]:
        raise ValueError(f"data: no pixels in shape {data.shape}")
    if data.dtype.kind not in "fiub":
        raise TypeError(f"data: expected numbers, got dtype {data.dtype}")
    if not is_mapped(data):
        with np.errstate(over="ignore"):
            data = data.astype(np.float32, copy=False)
    elif data.dtype.kind != "f":
        raise TypeError(f"data: a memory map must hold floats, got dtype {data.dtype}")
    if mask is not None:
        mask = np.asanyarray(mask)
        if mask.dtype != bool:
            if mask.dtype.kind not in "iu":
                raise TypeError(f"mask: expected bool, got dtype {mask.dtype}")
            mask = mask != 0
        if mask.shape != data.shape:
            try:
                mask = np.broadcast_to(mask, data.shape)
            except ValueError:
                raise ValueError(f"mask: shape {mask.shape} for data of {data.shape}") from None
    return data, mask


def parse_uncertainty(uncertainty, unit, shape):
    """Inverse variance in 1 / unit², a plain array, from any kind of uncertainty; or None."""
    if uncertainty is None:
        return None
    if not isinstance(uncertainty, NDUncertainty):
        raise TypeError(
            "uncertainty: expected an NDUncertainty such as InverseVariance(array), got "
            f"{type(uncertainty).__name__}"
        )
    factor = 1.0
    if not isinstance(uncertainty, InverseVariance):
        try:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                uncertainty = uncertainty.represent_as(InverseVariance)
        except TypeError:
            raise TypeError(
                f"uncertainty: {type(uncertainty).__name__} does not convert to inverse variance"
            ) from None
    array = uncertainty.array
    if array is None:
        raise ValueError("uncertainty: holds no array")
    if uncertainty.unit is not None:
        factor = uncertainty.unit.to(unit**-2)
    if np.shape(array) != tuple(shape):
        raise ValueError(f"uncertainty: shape {np.shape(array)} for data of {tuple(shape)}")
    if not is_mapped(array):
        with np.errstate(over="ignore"):
            array = np.asarray(array).astype(np.float32, copy=False)
    if factor != 1.0:
        array = np.asarray(array * factor, dtype=np.float32)
    return array


def parse_wcs(wcs, n):
    """Row-aligned celestial WCS, or None."""
    if wcs is None:
        return None
    if isinstance(wcs, WCSList):
        if len(wcs) != n:
            raise ValueError(f"wcs: {len(wcs)} entries for {n} cutouts")
        return wcs
    if not isinstance(wcs, (Sequence, np.ndarray)) or len(wcs) != n:
        size = f"{len(wcs)} entries" if hasattr(wcs, "__len__") else type(wcs).__name__
        raise ValueError(f"wcs: expected a sequence of {n} WCS or None, one a cutout; got {size}")
    entries = WCSList(celestial_wcs(entry) for entry in wcs)
    return None if all(entry is None for entry in entries) else entries


def parse_catalog(catalog, n):
    """Return a new QTable of n rows that has an ``id``."""
    if catalog is None:
        catalog = QTable()
    elif isinstance(catalog, (Table, dict)):
        catalog = QTable(catalog, copy=True)
    else:
        raise TypeError(f"catalog: expected a Table, got {type(catalog).__name__}")
    if catalog.colnames and len(catalog) != n:
        raise ValueError(f"catalog: {len(catalog)} rows for {n} cutouts")
    if "id" not in catalog.colnames:
        catalog.add_column(Column(np.arange(n)), name="id", index=0)
    elif catalog["id"].dtype.kind == "S":
        catalog["id"] = np.char.decode(np.asarray(catalog["id"]), "utf-8")
    if not catalog["id"].info.description:
        catalog["id"].info.description = "Identifier of the object"
    if "status" in catalog.colnames:
        catalog["status"] = Column(
            np.asarray(catalog["status"]).astype(str), description="'ok', or why the row is bad"
        )
    for name in ("ra", "dec"):
        if name in catalog.colnames and catalog[name].dtype.kind == "f":
            if getattr(catalog[name], "unit", None) is None:
                catalog[name] = np.asarray(catalog[name], dtype=float) * u.deg
    return catalog


def add_positions(catalog, wcs, size):
    """Add ``ra`` and ``dec`` of the centres where missing; return the common pixel scale or None.

    Raises
    ------
    CutoutMismatchError
        If the pixel scales differ between rows.
    """
    positions = np.full((len(wcs), 3), np.nan)
    for row, entry in enumerate(wcs):
        if entry is not None:
            positions[row] = centre_and_scale(entry, size)
    if "ra" not in catalog.colnames and "dec" not in catalog.colnames:
        set_positions(catalog, positions[:, 0], positions[:, 1])
    scales = positions[:, 2]
    known = scales[np.isfinite(scales)]
    if not len(known):
        return None
    reference = np.median(known)
    differs = np.abs(scales / reference - 1) > PIXEL_SCALE_TOLERANCE
    if differs.any():
        raise CutoutMismatchError(
            f"wcs: pixel scale {reference:.4g} arcsec in most rows, but another in rows "
            f"{list_rows(np.flatnonzero(differs))}; from_nddata and from_files can resample"
        )
    return reference * u.arcsec


def set_positions(catalog, ra, dec):
    """Put ICRS positions of the centres into a catalog."""
    catalog["ra"] = np.asarray(ra, dtype=float) * u.deg
    catalog["dec"] = np.asarray(dec, dtype=float) * u.deg
    catalog["ra"].info.description = "Right ascension of the centre, ICRS"
    catalog["dec"].info.description = "Declination of the centre, ICRS"


def list_rows(rows, most=8):
    """Row numbers as text, the first few of them."""
    rows = [int(row) for row in rows]
    text = ", ".join(str(row) for row in rows[:most])
    return text + (f", ... ({len(rows)} in all)" if len(rows) > most else "")


def set_status(catalog, status):
    """Put the status of every row into a catalog."""
    catalog["status"] = Column(
        np.asarray(status, dtype=str), description="'ok', or why the row is bad"
    )


def clean_pixels(data, ivar, mask, *, blank_zero=True):
    """Find the bad pixels of one cutout, without changing anything.

    Parameters
    ----------
    data : (n_band, ny, nx) array
    ivar, mask : array or None
    blank_zero : bool, optional
        Whether a band that is 0 everywhere is blank.

    Returns
    -------
    bad : array of bool or None
        All pixels that cannot be used; None where all can.
    blank : list of int
        Bands without a usable pixel.
    """
    bad = mask if mask is not None and mask.any() else None
    # NaN comes through minimum and maximum, which are the cheapest passes over the pixels.
    lowest, highest = _extremes(data)
    with np.errstate(invalid="ignore"):
        if not (np.isfinite(lowest) & np.isfinite(highest)).all():
            invalid = ~np.isfinite(data)
            bad = invalid if bad is None else bad | invalid
        if ivar is not None:
            # An inverse variance of 0 says that nothing is known: no error, and no weight.
            least, most = _extremes(ivar)
            if not ((least >= 0) & np.isfinite(most)).all():
                invalid = ~(np.isfinite(ivar) & (ivar >= 0))
                bad = invalid if bad is None else bad | invalid
    blank = set()
    if bad is not None:
        blank.update(np.flatnonzero(bad.all(axis=(1, 2))))
    if blank_zero:
        blank.update(np.flatnonzero((lowest == 0) & (highest == 0)))
    if ivar is not None:
        blank.update(np.flatnonzero(most == 0))
    return bad, sorted(int(band) for band in blank)


def _extremes(images):
    # Contiguous pixels as one axis; a view where it can be, else one copy.
    flat = images.reshape(len(images), -1)
    return flat.min(axis=1), flat.max(axis=1)


def status_of(data, blank, bands):
    """Say why a cutout with blank bands is bad."""
    if not blank:
        return OK
    if len(blank) == len(bands):
        if np.isnan(data).all():
            return "all NaN"
        if not np.any(data):
            return "all zero"
        return "no good pixel"
    return f"blank band{'s' if len(blank) > 1 else ''}: " + ", ".join(bands[b] for b in blank)


def flag_bad_rows(data, ivar, mask, bands, catalog):
    """Mask bad pixels and bad rows of a whole set, in copies where anything has to change.

    Adds ``status`` to the catalog where it has none. Returns data, ivar and mask.
    """
    given = list(catalog["status"]) if "status" in catalog.colnames else None
    statuses = []
    owned = False
    mask_owned = ivar_owned = False
    for row in range(len(data)):
        row_ivar = None if ivar is None else ivar[row]
        row_mask = None if mask is None else mask[row]
        bad, blank = clean_pixels(data[row], row_ivar, row_mask)
        status = status_of(data[row], blank, bands)
        if given is not None and given[row] != OK:
            status = given[row]
        statuses.append(status)
        if status != OK:
            if not owned and not np.isnan(data[row]).all() and not is_mapped(data):
                data, owned = data.copy(), True
            if owned:
                data[row] = np.nan
            bad = np.ones(data.shape[1:], dtype=bool)
        if bad is None:
            continue
        if bad is not row_mask:
            if mask is None:
                mask, mask_owned = np.zeros(data.shape, dtype=bool), True
            elif not mask_owned:
                mask, mask_owned = mask.copy(), True
            mask[row] = bad
        if ivar is not None and np.any(np.where(bad, ivar[row], 0) != 0):
            if not ivar_owned:
                ivar, ivar_owned = np.array(ivar, dtype=np.float32), True
            ivar[row][bad] = 0
    set_status(catalog, statuses)
    return data, ivar, mask


def order_columns(catalog):
    """Bring ``id``, ``ra``, ``dec`` and ``status`` to the front of a catalog."""
    first = [name for name in ("id", "ra", "dec", "status") if name in catalog.colnames]
    rest = [name for name in catalog.colnames if name not in first]
    columns = [catalog[name] for name in first + rest]
    meta = catalog.meta
    catalog = QTable(columns, names=first + rest, copy=False)
    catalog.meta = meta
    return catalog
