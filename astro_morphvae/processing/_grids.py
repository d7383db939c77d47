"""Pixel grids to bring cutouts to: one for each object, north up, or those of other cutouts."""

from collections.abc import Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.wcs import WCS

from ..cutouts import as_cutout_set
from ..cutouts._parse import PIXEL_SCALE_TOLERANCE, parse_angle, parse_size
from ..cutouts._wcs import celestial_wcs, centre_and_scale

__all__ = ["Grids", "parse_grids", "tan_wcs"]

# Pixels along a side above which a size that nobody asked for is taken for a mistake.
_LARGEST = 20_000


def tan_wcs(ra, dec, size, pixel_scale):
    """Gnomonic projection, north up and east to the left, about the centre of an image.

    Parameters
    ----------
    ra, dec : float
        Position of the centre, ICRS, in degrees.
    size : tuple of int
        (ny, nx).
    pixel_scale : float
        Arcsec per pixel.

    Returns
    -------
    `~astropy.wcs.WCS`
    """
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cunit = "deg", "deg"
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crval = ra, dec
    wcs.wcs.crpix = (size[1] + 1) / 2, (size[0] + 1) / 2
    wcs.wcs.cdelt = -pixel_scale / 3600, pixel_scale / 3600
    wcs.wcs.set()
    return wcs


@dataclass(frozen=True)
class Grids:
    """One pixel grid for each row of a set.

    Attributes
    ----------
    entries : sequence of `~astropy.wcs.WCS` or None, or None
        One a row; None where each row gets its own about its position.
    size : tuple of int
        (ny, nx).
    pixel_scale : `~astropy.units.Quantity` or None
        Arcsec per pixel, where it is given or known.
    """

    entries: Sequence | None
    size: tuple
    pixel_scale: u.Quantity | None

    def wcs_of(self, row, position):
        """WCS of the grid of one row, or None where there is none.

        ``position``, (ra, dec) in degrees, is the centre of a grid that is made here.
        """
        if self.entries is not None:
            return self.entries[row]
        if not np.isfinite(position).all() or not -90 <= position[1] <= 90:
            return None
        return tan_wcs(*position, self.size, self.pixel_scale.to_value(u.arcsec))


def parse_grids(cutouts, *, target_wcs, pixel_scale, like, size):
    """Read the arguments that say which pixels are wanted: exactly one of the first three.

    Returns
    -------
    Grids

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    given = {"target_wcs": target_wcs, "pixel_scale": pixel_scale, "like": like}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        got = " and ".join(names) or "none"
        raise ValueError(f"target_wcs, pixel_scale, like: expected exactly one of them, got {got}")
    size = parse_size("size", size)
    if like is not None:
        return _grids_like(cutouts, as_cutout_set(like, name="like"), size)
    if target_wcs is not None:
        return _grids_of_wcs(cutouts, target_wcs, size)
    pixel_scale = parse_angle("pixel_scale", pixel_scale)
    if size is None:
        if cutouts.pixel_scale is None:
            raise ValueError("size: needed, for the cutouts have no common pixel scale")
        ratio = (cutouts.pixel_scale / pixel_scale).to_value(u.one)
        # The same field of view; a little less than half a pixel more than whole is not one more.
        size = tuple(max(int(np.floor(n * ratio + 0.5 - 1e-6)), 1) for n in cutouts.size)
        if max(size) > _LARGEST:
            raise ValueError(
                f"pixel_scale: {pixel_scale} makes {max(size)} pixels of cutouts with "
                f"{cutouts.pixel_scale}; give size, or a larger pixel_scale"
            )
    return Grids(None, size, pixel_scale)


def _grids_like(cutouts, like, size):
    if size is not None:
        raise ValueError(f"size: that of like, {like.size}, is taken; got {size}")
    if len(like) != len(cutouts):
        raise ValueError(f"like: {len(like)} rows for {len(cutouts)} cutouts")
    if like.wcs is None:
        raise ValueError("like: its cutouts have no celestial WCS")
    return Grids(like.wcs, like.size, like.pixel_scale)


def _grids_of_wcs(cutouts, target_wcs, size):
    n = len(cutouts)
    try:
        if isinstance(target_wcs, (Sequence, np.ndarray)) and not isinstance(target_wcs, str):
            entries = [celestial_wcs(entry) for entry in target_wcs]
            if len(entries) != n:
                raise ValueError(f"wcs: {len(entries)} entries for {n} cutouts")
        else:
            entry = celestial_wcs(target_wcs)
            if entry is None:
                raise ValueError("wcs: has no celestial axes")
            entries = [entry] * n
            if size is None and entry.array_shape is not None:
                size = tuple(int(pixels) for pixels in entry.array_shape)
    except (TypeError, ValueError) as error:
        raise type(error)(f"target_{error}") from None
    return Grids(entries, size or cutouts.size, _common_scale(entries))


def _common_scale(entries):
    """Pixel scale in arcsec if all share it, else None; a WCS that makes no sense shares none."""
    scales = []
    for entry in {id(entry): entry for entry in entries if entry is not None}.values():
        try:
            scales.append(centre_and_scale(entry, (1, 1))[2])
        except ValueError:
            return None
    if not scales or not 0 < max(scales) <= min(scales) * (1 + PIXEL_SCALE_TOLERANCE):
        return None
    return np.median(scales) * u.arcsec
