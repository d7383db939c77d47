"""One file to one record: FITS cutouts as surveys write them, and colour stamps."""

import gzip
import os
from io import BytesIO

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from ..cutouts._headers import bands_from_header
from ..cutouts._records import Record, calibrate
from ..cutouts._wcs import celestial_wcs, quiet_astropy
from ..units import NANOMAGGY, parse_unit
from ._fits_bytes import (
    Header,
    Plane,
    TruncatedError,
    UnusualError,
    has_plain_celestial,
    locate_tan,
    read_planes,
)

__all__ = ["LEGACY_MASKBITS", "folder_of_images", "read_record"]

#: Bits of a Legacy Survey MASKBITS image that spoil the pixels of one band: saturated in it
#: (SATUR) or masked in all its exposures (ALLMASK). Bits such as GALAXY or BRIGHT do not.
LEGACY_MASKBITS = {
    "g": 1 << 2 | 1 << 5,
    "r": 1 << 3 | 1 << 6,
    "z": 1 << 4 | 1 << 7,
    "i": 1 << 14 | 1 << 15,
}

# What an extension holds, from its IMAGETYP (Legacy Survey) or else its EXTNAME.
_ROLES = {
    "invvar": "ivar",
    "ivar": "ivar",
    "inverse_variance": "ivar",
    "maskbits": "maskbits",
    "mask": "mask",
    "uncert": "uncert",
    "err": "std",
    "error": "std",
    "sigma": "std",
    "std": "std",
    "stddev": "std",
    "rms": "std",
    "var": "var",
    "variance": "var",
}
_UTYPES = {"StdDevUncertainty": "std", "VarianceUncertainty": "var", "InverseVariance": "ivar"}
_COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}


def read_record(
    path, *, unit=None, uncertainty=True, maskbits=None, native_pixel_scale=None, pixel_scale=None
):
    """Read one cutout; what goes wrong with the file becomes its status.

    Parameters
    ----------
    path : path-like or None
        FITS, gzipped FITS, PNG or JPEG, recognised by content.
    unit : unit-like or `~astropy.units.Quantity`, optional
        Unit in place of the header's.
    uncertainty : bool, optional
        Whether to read the inverse variance or its like.
    maskbits : int, optional
        Bits of MASKBITS that make a pixel bad in every band; `LEGACY_MASKBITS` where not given.
    native_pixel_scale, pixel_scale : float, optional
        Arcsec; see `read_files`.

    Returns
    -------
    `~astro_morphvae.cutouts._records.Record`
    """
    if path is None:
        return Record(status="missing file")
    try:
        with open(path, "rb") as file:
            buffer = file.read()
    except FileNotFoundError:
        return Record(status="missing file")
    except (OSError, ValueError) as error:
        return Record(status=_unreadable(error))
    try:
        if buffer.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n")):
            record = _read_stamp(buffer)
            if pixel_scale is not None:
                record.pixel_scale = pixel_scale
            return _with_unit(record, unit)
        if buffer.startswith(b"\x1f\x8b"):
            buffer = gzip.decompress(buffer)
        if not buffer.startswith(b"SIMPLE"):
            what = "empty file" if not buffer else "neither FITS nor PNG nor JPEG"
            return Record(status=f"unreadable: {what}")
        try:
            planes = read_planes(buffer)
            record = _record_from_planes(planes, uncertainty, maskbits)
        except UnusualError:
            planes = _planes_by_astropy(buffer)
            record = _record_from_planes(planes, uncertainty, maskbits)
        if not np.isfinite(record.pixel_scale) and pixel_scale is not None:
            record.pixel_scale = pixel_scale
        record = _with_unit(record, unit)
    except TruncatedError as error:
        return _record_of_lost(error)
    except MemoryError:
        raise
    except Exception as error:  # whatever a broken file provokes belongs to its row
        return Record(status=_unreadable(error))
    if native_pixel_scale is not None and np.isfinite(record.pixel_scale):
        factor = (record.pixel_scale / native_pixel_scale) ** 2
        if abs(factor - 1) > 1e-6:
            record.data = record.data * factor
            record.ivar = None if record.ivar is None else record.ivar / factor**2
    return record


def _unreadable(error):
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return f"unreadable: {text[:100]}"


def _with_unit(record, unit):
    given = record.unit if unit is None else unit
    record.data, record.ivar, record.unit = calibrate(
        record.data, record.ivar, given, record.pixel_scale
    )
    return record


def _record_of_lost(error):
    """Keep what the header still says of an image whose pixels are lost."""
    record = Record(status=str(error))
    header, shape = error.header, error.shape
    if header is None or len(shape) not in (2, 3):
        return record
    record.shape = (1, *shape)[-3:]
    record.bands = bands_from_header(header, record.shape[0])
    record.unit = _unit(header, header)
    try:
        if has_plain_celestial(header):
            record.wcs = header.wcs_cards
            record.ra, record.dec, record.pixel_scale = locate_tan(header, shape[-2:])
    except (UnusualError, TypeError):
        record.wcs = None
    return record


def _unit(header, first):
    unit = parse_unit(header.get("BUNIT") or first.get("BUNIT"))
    return NANOMAGGY if unit is None and _is_legacy(header) else unit


def _is_legacy(header):
    return str(header.get("IMAGETYP", "")).strip().lower() == "image" and "BANDS" in header


def _role(header):
    for keyword in ("IMAGETYP", "EXTNAME"):
        name = header.get(keyword)
        role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
        if role == "uncert":
            return _UTYPES.get(header.get("UTYPE", "StdDevUncertainty"))
        if role:
            return role
    return "image"


def _record_from_planes(planes, uncertainty, maskbits):
    roles = {}
    images = []
    for plane in planes:
        if plane.data is None:
            continue
        role = _role(plane.header)
        if role == "image":
            images.append(plane)
        else:
            roles.setdefault(role, plane)
    plane = _science_image(images)
    data = plane.data
    while data.ndim > 3 and data.shape[0] == 1:
        data = data[0]
    if data.ndim == 2:
        data = data[np.newaxis]
    if data.ndim != 3 or 0 in data.shape:
        raise ValueError(f"image of shape {plane.data.shape}, not (y, x) or (band, y, x)")
    header = plane.header
    # What describes the whole file may stand in its first header only.
    first = planes[0].header
    record = Record(data)
    record.bands = bands_from_header(header, len(data)) or bands_from_header(first, len(data))
    record.unit = _unit(header, first)
    if isinstance(header, Header):
        if has_plain_celestial(header):
            record.wcs = header.wcs_cards
            located = locate_tan(header, data.shape[-2:])
            if located:
                record.ra, record.dec, record.pixel_scale = located
            else:
                record.locate()
    else:
        record.wcs = _wcs_by_astropy(header)
        record.locate()
    if uncertainty:
        record.ivar = _inverse_variance(roles, data.shape)
    record.mask = _mask(roles, record, maskbits, _is_legacy(header))
    return record


def _science_image(images):
    """Choose the image among those that no name gives another role."""
    if not images:
        raise ValueError("no image in the file")
    for plane in images:
        if plane.header.get("EXTNAME") == "SCI":
            return plane
    if any("EXTNAME" not in plane.header for plane in images[1:]):
        raise ValueError(f"{len(images)} images in one file, and none is named SCI")
    return images[0]


def _inverse_variance(roles, shape):
    for role, power in (("ivar", 1), ("var", -1), ("std", -2)):
        plane = roles.get(role)
        if plane is None:
            continue
        values = plane.data
        if values.size != np.prod(shape):
            raise ValueError(f"{role} of shape {values.shape} for an image of {shape}")
        values = values.reshape(shape)
        if power == 1:
            return values
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            return values.astype(np.float64) ** power
    return None


def _mask(roles, record, maskbits, is_legacy):
    data = record.data
    mask = None
    if is_legacy and record.ivar is not None:
        mask = record.ivar == 0
    elif is_legacy and data.dtype == np.dtype(">f4"):
        # A coadd pixel is exactly 0 only where no exposure reached it. The bits are compared
        # because that takes no byte swap.
        mask = data.view(np.uint32) == 0
    if "mask" in roles:
        own = np.broadcast_to(roles["mask"].data != 0, data.shape)
        mask = own if mask is None else mask | own
    if "maskbits" in roles:
        bits = roles["maskbits"].data.astype(np.int64)
        bits = bits.reshape(bits.shape[-2:])
        names = record.bands or ()
        per_band = [
            LEGACY_MASKBITS.get(names[band] if names else "", 0) if maskbits is None else maskbits
            for band in range(len(data))
        ]
        own = np.stack([(bits & chosen) != 0 for chosen in per_band])
        mask = own if mask is None else mask | own
    return mask if mask is not None and mask.any() else None


def _planes_by_astropy(buffer):
    """Compressed, scaled and otherwise unusual FITS."""
    planes = []
    with quiet_astropy():
        with fits.open(BytesIO(buffer), memmap=False) as hdus:
            end = 0
            for number, hdu in enumerate(hdus):
                # A header that announces less than nothing leads astropy back to itself, for ever.
                place = hdu.fileinfo() or {}
                start, end = end, place.get("datLoc", end) + place.get("datSpan", 1)
                if end <= start:
                    raise ValueError(f"extension {number} has a negative size")
                if hdu.is_image and len(hdu.shape) >= 2:
                    planes.append(Plane(hdu.header.copy(), _pixels(hdu)))
                elif number == 0:
                    planes.append(Plane(hdu.header.copy(), None))
    return planes


def _pixels(hdu):
    try:
        data = hdu.data
        return None if data is None else np.asarray(data)
    except (TypeError, OSError, ValueError) as error:
        if "buffer is too small" in str(error):
            raise TruncatedError("truncated: ends within the pixels") from None
        raise


def _wcs_by_astropy(header):
    with quiet_astropy():
        try:
            return celestial_wcs(WCS(header))
        except Exception as error:
            raise ValueError(f"invalid WCS: {error}") from None


def _read_stamp(buffer):
    """Colour stamp: values in [0, 1], first row at the bottom as in FITS."""
    from PIL import Image

    with Image.open(BytesIO(buffer)) as image:
        if image.mode.startswith("I;16"):
            values = np.asarray(image)[np.newaxis] / np.float32(65535)
        else:
            if image.mode not in ("L", "RGB"):
                grey = image.mode in ("1", "LA")
                image = image.convert("L" if grey else "RGB")
            values = np.asarray(image)
            values = values[np.newaxis] if values.ndim == 2 else values.transpose(2, 0, 1)
            values = values * np.float32(1 / 255)
    values = values[:, ::-1]
    return Record(values, bands=_COLOURS.get(len(values)), unit=u.dimensionless_unscaled)


def folder_of_images(folder):
    """Image files of a folder, sorted by name."""
    suffixes = (".fits", ".fit", ".fits.gz", ".fits.fz", ".png", ".jpg", ".jpeg")
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(suffixes))
    return [os.path.join(folder, name) for name in names]
