"""FITS replies of one image, checked and read."""

import math
from dataclasses import dataclass
from io import BytesIO

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from .._download import InvalidReply
from ..cutouts._wcs import celestial_wcs, quiet_astropy

__all__ = ["Image", "check_place", "describe_text", "read_image"]


@dataclass(slots=True)
class Image:
    """One image of a FITS file.

    Attributes
    ----------
    header : `~astropy.io.fits.Header`
    data : array
        (ny, nx), or as many axes as there are.
    wcs : `~astropy.wcs.WCS` or None
    """

    header: fits.Header
    data: np.ndarray
    wcs: WCS | None


def read_image(content, size=None):
    """Take the first image out of a FITS file.

    Parameters
    ----------
    content : bytes
    size : tuple of int, optional
        (ny, nx) that it has to have.

    Returns
    -------
    Image

    Raises
    ------
    InvalidReply
        If it is no FITS file, is truncated, has no image, or one of another size.
    """
    if not content.startswith(b"SIMPLE"):
        raise InvalidReply("invalid-file", describe_text(content), retry=True)
    try:
        with quiet_astropy(), fits.open(BytesIO(content), memmap=False) as hdus:
            hdu = next(hdu for hdu in hdus if hdu.is_image and hdu.shape)
            data, header = np.asarray(hdu.data), hdu.header.copy()
            wcs = celestial_wcs(WCS(header))
    except StopIteration:
        raise InvalidReply("invalid-file", "no image in it", retry=True) from None
    except Exception as error:  # whatever a broken file provokes
        text = " ".join(str(error).split())[:100] or type(error).__name__
        raise InvalidReply("invalid-file", text, retry=True) from None
    while data.ndim > 2 and data.shape[0] == 1:
        data = data[0]
    if size is not None and data.shape != tuple(size):
        raise InvalidReply("invalid-file", f"{data.shape} pixels in place of {tuple(size)}")
    return Image(header, data, wcs)


def check_place(image, ra, dec, pixel_scale, pixels_off):
    """Make sure that an image shows the position that was asked for, in pixels of that size.

    Parameters
    ----------
    image : Image
    ra, dec : float
        Centre asked for, ICRS, in degrees.
    pixel_scale : float
        Arcsec.
    pixels_off : float
        Pixels by which the centre may lie off.

    Raises
    ------
    InvalidReply
        If it does not, or has no celestial WCS.
    """
    if image.wcs is None:
        raise InvalidReply("invalid-file", "no celestial WCS")
    middle = image.wcs.pixel_to_world(*((length - 1) / 2 for length in image.data.shape[::-1]))
    off = middle.separation(SkyCoord(ra, dec, unit="deg")).arcsec
    if not off < pixels_off * pixel_scale:
        raise InvalidReply("invalid-file", f"centred {off:.3g} arcsec off")
    found = math.sqrt(math.prod(proj_plane_pixel_scales(image.wcs))) * u.deg.to(u.arcsec)
    if not abs(found / pixel_scale - 1) < 1e-3:
        raise InvalidReply("invalid-file", f"pixel scale {found:.4g} in place of {pixel_scale:.4g}")


def describe_text(content):
    """Beginning of a reply that is not what was asked for, as one line."""
    text = " ".join(content[:80].decode("utf-8", "replace").split())
    return repr(text) if text else "empty"
