"""Files of the Legacy Survey cutout service: what they must hold, and what their values mean."""

import math
import re
from dataclasses import dataclass
from io import BytesIO

import numpy as np

from .._download import InvalidReply
from ..cutouts._headers import bands_from_header
from ..cutouts._records import Record
from ..io import LEGACY_MASKBITS
from ..io._fits_bytes import UnusualError, read_planes
from ..io._images import _planes_by_astropy
from ..units import NANOMAGGY

__all__ = ["MAX_SIZE", "NATIVE_PIXEL_SCALE", "FitsReader", "check_fits", "check_jpeg"]

#: Arcsec per pixel of the coadds; the values of a cutout are per such a pixel at any pixel scale.
NATIVE_PIXEL_SCALE = 0.262
#: Most pixels on a side; larger sizes are clipped by the service, without a word.
MAX_SIZE = 3000

_COMPRESSED_SIDE = re.compile(rb"(?:ZNAXIS|ZTILE)\d+ *= *(\d+)")


@dataclass(slots=True)
class _Images:
    """The images of one file, as views of its bytes."""

    header: object
    data: np.ndarray
    ivar: np.ndarray | None
    bits: np.ndarray | None


def check_fits(content, request):
    """Make sure that a file is the cutout that was asked for.

    Parameters
    ----------
    content : bytes
        The file.
    request : Request
        What was asked.

    Returns
    -------
    _Images

    Raises
    ------
    InvalidReply
        If it is not.
    """
    params = dict(request.params)
    if not content.startswith(b"SIMPLE"):
        text = " ".join(content[:80].decode("utf-8", "replace").split())
        if "no such layer" in text:
            raise InvalidReply("refused", f"no such layer: {params['layer']}")
        if text.lower().startswith("no overlap"):
            raise InvalidReply("off-footprint", "no overlap")
        raise InvalidReply("invalid-file", repr(text) if text else "empty", retry=True)
    try:
        images = _read_images(content)
        _compare(images, params)
        if not _is_model(params):
            _find_blank(images)
    except InvalidReply:
        raise
    except Exception as error:  # whatever a broken file provokes
        text = " ".join(str(error).split())[:100] or type(error).__name__
        raise InvalidReply("invalid-file", text, retry=True) from None
    return images


# Part of the key of a cached reply: a check that got stricter does not meet older files.
check_fits.version = "legacy-1"


def _read_images(content):
    try:
        planes = read_planes(content)
    except UnusualError:
        # Only a compressed image of possible size is left to astropy: a broken header can make it
        # allocate without end.
        lengths = [int(length) for length in _COMPRESSED_SIDE.findall(content)]
        if not lengths or max(lengths) > MAX_SIZE:
            raise InvalidReply("invalid-file", "no plain FITS image", retry=True) from None
        planes = _planes_by_astropy(content)
    roles = {}
    for plane in planes:
        if plane.data is not None:
            roles.setdefault(str(plane.header.get("IMAGETYP", "image")).strip().lower(), plane)
    if "image" not in roles and planes[0].header.get("OVERLAP") is False:
        raise InvalidReply("off-footprint", "no overlap")
    image = roles["image"]
    data = image.data[np.newaxis] if image.data.ndim == 2 else image.data
    ivar = roles["invvar"].data.reshape(data.shape) if "invvar" in roles else None
    bits = roles["maskbits"].data.reshape(data.shape[1:]) if "maskbits" in roles else None
    return _Images(image.header, data, ivar, bits)


def _compare(images, params):
    """Raise unless bands, size, position and pixel scale are those asked for."""
    header, data = images.header, images.data
    bands = "".join(bands_from_header(header, len(data)) or ())
    if bands != params["bands"]:
        raise InvalidReply("invalid-file", f"bands {bands!r} in place of {params['bands']!r}")
    size = params.get("size")
    size = int(params.get("height", size)), int(params.get("width", size))
    if data.shape[1:] != size:
        raise InvalidReply("invalid-file", f"{data.shape[1:]} pixels in place of {size}")
    ra, dec, scale = (float(params[name]) for name in ("ra", "dec", "pixscale"))
    off = math.hypot(
        ((header.get("CRVAL1") - ra + 180) % 360 - 180) * math.cos(math.radians(dec)),
        header.get("CRVAL2") - dec,
    )
    if not off * 3600 < 0.1 * scale:
        raise InvalidReply("invalid-file", f"centred {off * 3600:.3g} arcsec off")
    found = abs(header.get("CD2_2", header.get("CDELT2"))) * 3600
    if not abs(found / scale - 1) < 1e-3:
        raise InvalidReply("invalid-file", f"pixel scale {found:.4g} in place of {scale:.4g}")
    kinds = header.get("CTYPE1"), header.get("CTYPE2")
    middle = header.get("CRPIX1") - (size[1] + 1) / 2, header.get("CRPIX2") - (size[0] + 1) / 2
    if kinds != ("RA---TAN", "DEC--TAN") or not max(map(abs, middle)) < 0.1:
        raise InvalidReply("invalid-file", f"not a tangent projection about the centre: {kinds}")
    for name, image in (("invvar", images.ivar), ("maskbits", images.bits)):
        if name in params and image is None:
            raise InvalidReply("invalid-file", f"no {name} came", retry=True)


def _is_model(params):
    """Whether the layer is a model, which is 0 where there is no source, exposures or not.

    A residual is the image less the model: 0, to the last bit, only where both are.
    """
    return params["layer"].endswith("-model")


def _find_blank(images):
    """Raise where no exposure reached a band."""
    blank = [not _any(band) for band in images.data]
    if images.ivar is not None:
        blank = [bad or not _any(ivar) for bad, ivar in zip(blank, images.ivar, strict=True)]
    if all(blank):
        raise InvalidReply("off-footprint", "every pixel is 0")
    if any(blank):
        bands = bands_from_header(images.header, len(blank))
        raise InvalidReply(
            "incomplete-bands", ", ".join(b for b, bad in zip(bands, blank, strict=True) if bad)
        )


def _any(image):
    # Bits are compared where they can be, which takes no byte swap.
    return (image.view(np.uint32) if image.dtype == np.dtype(">f4") else image).any()


class FitsReader:
    """Make records of checked files.

    Parameters
    ----------
    pixel_scale : float
        Arcsec.
    has_ivar : bool
        Whether the inverse variance is wanted.
    maskbits : int or None
        Bits that make a pixel bad in every band; None for those of each band.
    """

    def __init__(self, pixel_scale, has_ivar, maskbits):
        self._scale = pixel_scale
        self._has_ivar = has_ivar
        self._maskbits = maskbits

    def __call__(self, replies, row):
        images = replies[0].value
        header, data, ivar = images.header, images.data, images.ivar
        bands = bands_from_header(header, len(data))
        params = dict(replies[0].request.params)
        bad = (data if ivar is None else ivar) == 0
        if _is_model(params):
            bad[:] = False
        if images.bits is not None:
            bits = images.bits.astype(np.int32)
            for place, band in enumerate(bands):
                chosen = LEGACY_MASKBITS[band] if self._maskbits is None else self._maskbits
                bad[place] |= (bits & chosen) != 0
        factor = (self._scale / NATIVE_PIXEL_SCALE) ** 2
        if factor != 1:
            data = data * np.float32(factor)
            ivar = None if ivar is None else ivar / np.float32(factor**2)
        return Record(
            data,
            ivar=ivar if self._has_ivar else None,
            mask=bad if bad.any() else None,
            unit=NANOMAGGY,
            bands=bands,
            wcs=_tangent_cards(float(params["ra"]), float(params["dec"]), self._scale, data.shape),
            ra=float(params["ra"]),
            dec=float(params["dec"]),
            pixel_scale=self._scale,
        )


def _tangent_cards(ra, dec, pixel_scale, shape):
    """Header cards of the projection that was asked for, and found in the file."""
    step = pixel_scale / 3600
    cards = {
        "CTYPE1": "'RA---TAN'",
        "CTYPE2": "'DEC--TAN'",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": (shape[-1] + 1) / 2,
        "CRPIX2": (shape[-2] + 1) / 2,
        "CD1_1": -step,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": step,
        "RADESYS": "'ICRS'",
    }
    return "".join(
        f"{name:8s}= {value if isinstance(value, str) else repr(value).upper()}".ljust(80)
        for name, value in cards.items()
    )


def check_jpeg(content, request):
    """Make sure that a file is a picture of the size asked for.

    Parameters
    ----------
    content : bytes
        The file.
    request : Request
        What was asked.

    Returns
    -------
    (ny, nx, 3) array of uint8

    Raises
    ------
    InvalidReply
        If it is not.
    """
    from PIL import Image

    params = dict(request.params)
    if b"no such layer" in content[:80]:
        raise InvalidReply("refused", f"no such layer: {params['layer']}")
    try:
        with Image.open(BytesIO(content)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:
        text = " ".join(str(error).split())[:100]
        raise InvalidReply("invalid-file", text if content else "empty", retry=True) from None
    size = params.get("size")
    size = int(params.get("height", size)), int(params.get("width", size))
    if pixels.shape[:2] != size:
        raise InvalidReply("invalid-file", f"{pixels.shape[:2]} pixels in place of {size}")
    return pixels


check_jpeg.version = "legacy-jpeg-1"
