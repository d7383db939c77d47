"""Celestial coordinates of many small images: header cards kept exactly, WCS built when asked."""

import math
import re
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from threading import RLock

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, Sip
from astropy.wcs.wcsapi import SlicedLowLevelWCS

from ..exceptions import MorphVAEWarning

__all__ = [
    "WCSList",
    "cards_to_wcs",
    "celestial_wcs",
    "centre_and_scale",
    "is_wcs_keyword",
    "quiet_astropy",
    "rescale_wcs",
    "shift_wcs",
    "tan_to_sky",
    "wcs_to_cards",
]

# The keywords that make a celestial WCS over the first two FITS axes.
_WCS_KEYWORD = re.compile(
    r"(?:(?:CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[12]|CD[12]_[12]|PC[12]_[12]|PV[12]_\d{1,2}"
    r"|(?:A|B|AP|BP)_(?:ORDER|\d_\d)|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX|EPOCH|MJD-OBS"
    r"|DATE-OBS|MJD-AVG|DATE-AVG)$"
)


_LOCK = RLock()


@contextmanager
def quiet_astropy():
    """Silence warnings about headers that are not ours to mend.

    Filters of warnings belong to the whole process, so one thread at a time changes them.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_wcs_keyword(keyword):
    """Whether a FITS keyword belongs to a celestial WCS over axes 1 and 2."""
    return _WCS_KEYWORD.match(keyword) is not None


class WCSList(Sequence):
    """Row-aligned WCS, each built on first use from the header cards that define it.

    Parameters
    ----------
    entries : iterable of (`~astropy.wcs.WCS`, str or None)
        A str holds 80-character header cards without separators.
    """

    def __init__(self, entries):
        self._entries = list(entries)

    def __len__(self):
        return len(self._entries)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return WCSList(self._entries[index])
        entry = self._entries[index]
        if isinstance(entry, str):
            try:
                entry = celestial_wcs(cards_to_wcs(entry))
            except Exception as error:
                reason = str(error).partition("\n")[0]
                warnings.warn(
                    f"wcs: that of row {index} is invalid: {reason}", MorphVAEWarning, stacklevel=2
                )
                entry = None
            self._entries[index] = entry
        return entry

    def __repr__(self):
        n_missing = sum(entry is None for entry in self._entries)
        missing = f", {n_missing} without" if n_missing else ""
        return f"<WCSList of {len(self)} celestial WCS{missing}>"

    def take(self, rows):
        """Return the entries of some rows, in their order."""
        return WCSList(self._entries[row] for row in rows)

    def cards(self):
        """Return the header cards of every row: a list of str, empty where there is no WCS."""
        return [entry if isinstance(entry, str) else wcs_to_cards(entry) for entry in self._entries]


def celestial_wcs(wcs):
    """Celestial part of a WCS of two or three axes, or None where there is none.

    The input is never changed.
    """
    low_level = getattr(wcs, "low_level_wcs", wcs)
    if low_level is None:
        return None
    if isinstance(low_level, SlicedLowLevelWCS):
        return _unsliced(low_level)
    if not isinstance(low_level, WCS):
        raise TypeError(
            f"wcs: expected an astropy.wcs.WCS with celestial axes, got {type(low_level).__name__}"
        )
    if not low_level.has_celestial:
        return None
    if low_level.naxis == 2 and low_level.wcs.lng == 0:
        return low_level
    return low_level.celestial


def _unsliced(sliced):
    # NDDataRef wraps a sliced WCS; it has no public way back to the FITS WCS inside.
    base, slices = sliced._wcs, sliced._slices_array[-2:]
    if not isinstance(base, WCS) or not all(isinstance(part, slice) for part in slices):
        raise TypeError("wcs: a sliced WCS must keep both celestial axes of an astropy.wcs.WCS")
    if not base.has_celestial:
        return None
    y0, x0 = (part.start or 0 for part in slices)
    return shift_wcs(celestial_wcs(base), x0, y0)


def cards_to_wcs(cards):
    """Build a WCS from 80-character header cards; None where the cards are empty."""
    if not cards:
        return None
    cards = cards + " " * (-len(cards) % 80)
    with quiet_astropy():
        header = fits.Header.fromstring(cards)
        try:
            wcs = WCS(header, fix=False)
            wcs.wcs.set()
        except Exception:  # units and dates that astropy knows how to mend
            wcs = WCS(header)
    return wcs


def wcs_to_cards(wcs):
    """Header cards of a celestial WCS, with every number written so that it reads back exactly.

    `~astropy.wcs.WCS.to_header` rounds to about 14 digits, which moves a reference pixel far from
    the image; here floats keep their shortest exact decimal form.

    Raises
    ------
    ValueError
        If the WCS holds distortion look-up tables, which no header can carry.
    """
    if wcs is None:
        return ""
    tables = (wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2)
    if any(table is not None for table in tables):
        raise ValueError("wcs: distortion look-up tables cannot be written as header cards")
    core = wcs.wcs
    exact = {}
    for axis in (0, 1):
        exact[f"CRPIX{axis + 1}"] = core.crpix[axis]
        exact[f"CRVAL{axis + 1}"] = core.crval[axis]
        for other in (0, 1):
            key = f"{axis + 1}_{other + 1}"
            if core.has_cd():
                exact[f"CD{key}"] = core.cd[axis, other]
            elif core.has_pc():
                exact[f"PC{key}"] = core.pc[axis, other]
        if not core.has_cd():
            exact[f"CDELT{axis + 1}"] = core.cdelt[axis]
    for axis, number, value in core.get_pv():
        exact[f"PV{axis}_{number}"] = value
    header = wcs.to_header(relax=True)
    cards = []
    for card in header.cards:
        if not is_wcs_keyword(card.keyword) or card.keyword in exact:
            continue
        # wcslib writes a CD matrix as PC with unit CDELT; the exact CD takes its place below.
        if core.has_cd() and card.keyword.startswith(("PC", "CDELT")):
            continue
        value = card.value
        cards.append(_card(card.keyword, value))
    cards.extend(_card(keyword, float(value)) for keyword, value in exact.items())
    return "".join(cards)


def _card(keyword, value):
    if isinstance(value, str):
        quoted = value.replace("'", "''")
        return f"{keyword:<8}= '{quoted:<8}'".ljust(80)
    if isinstance(value, float):
        return f"{keyword:<8}= {repr(float(value)).upper():>20}".ljust(80)
    return f"{keyword:<8}= {value:>20}".ljust(80)


def shift_wcs(wcs, x0, y0):
    """WCS of the part of an image that begins at pixel (x0, y0); the input is not changed."""
    return rescale_wcs(wcs, ratio=1.0, x0=x0, y0=y0)


def rescale_wcs(wcs, *, ratio, x0, y0):
    """WCS of a grid with pixels ``ratio`` times as large, whose lower corner lies at (x0, y0).

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS` or None
        Celestial WCS of two axes. Not changed.
    ratio : float
        New pixel size over old.
    x0, y0 : float
        Distance of the new grid's lower corner from the old one's, in old pixels.

    Returns
    -------
    `~astropy.wcs.WCS` or None

    Raises
    ------
    ValueError
        If pixels change size and the WCS holds distortion look-up tables.
    """
    if wcs is None:
        return None
    new = wcs.deepcopy()
    crpix = np.asarray(wcs.wcs.crpix)
    new.wcs.crpix = (crpix - 0.5 - (x0, y0)) / ratio + 0.5
    if ratio != 1.0:
        if any(t is not None for t in (wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2)):
            raise ValueError("wcs: look-up table distortions cannot follow a change of pixel scale")
        if wcs.wcs.has_cd():
            new.wcs.cd = wcs.wcs.cd * ratio
        else:
            new.wcs.cdelt = np.asarray(wcs.wcs.cdelt) * ratio
    if wcs.sip is not None:
        new.sip = _rescale_sip(wcs.sip, ratio, new.wcs.crpix)
    new.pixel_shape = None
    new.wcs.set()
    return new


def _rescale_sip(sip, ratio, crpix):
    # A SIP polynomial maps pixel offsets to pixel offsets; a term of order k carries
    # pixels^(1 - k), so it is multiplied by ratio^(k - 1).
    def scaled(coefficients):
        if coefficients is None:
            return None
        p, q = np.indices(coefficients.shape)
        return coefficients * float(ratio) ** (p + q - 1)

    return Sip(scaled(sip.a), scaled(sip.b), scaled(sip.ap), scaled(sip.bp), crpix)


def centre_and_scale(wcs, shape):
    """Sky position of the centre of an image, and its pixel scale.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`
        Celestial WCS of two axes.
    shape : tuple of int
        (ny, nx).

    Returns
    -------
    ra, dec : float
        ICRS, in degrees; NaN where the centre lies off the projection.
    pixel_scale : float
        Square root of the area of a pixel, in arcsec.
    """
    ny, nx = shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    matrix = wcs.pixel_scale_matrix
    area = abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
    pixel_scale = float(np.sqrt(area)) * 3600.0
    core = wcs.wcs
    equatorial = core.ctype[0].startswith("RA--") and core.ctype[1].startswith("DEC-")
    # A SkyCoord costs a millisecond, so it is made only where there is a frame to leave.
    if equatorial and core.radesys in ("", "ICRS") and not np.isfinite(core.equinox):
        ra, dec = wcs.all_pix2world(x, y, 0)
        return float(ra) % 360.0, float(dec), pixel_scale
    sky = wcs.pixel_to_world(x, y).icrs
    return float(sky.ra.deg), float(sky.dec.deg), pixel_scale


def tan_to_sky(xi, eta, ra0, dec0):
    """Undo the gnomonic projection of one point.

    Parameters
    ----------
    xi, eta : float
        Position on the tangent plane, in degrees, east and north positive.
    ra0, dec0 : float
        Tangent point, in degrees.

    Returns
    -------
    ra, dec : float
        Degrees; ``ra`` in [0, 360).

    References
    ----------
    Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3.
    """
    xi, eta, dec0 = math.radians(xi), math.radians(eta), math.radians(dec0)
    denominator = math.cos(dec0) - eta * math.sin(dec0)
    ra = ra0 + math.degrees(math.atan2(xi, denominator))
    dec = math.atan2(math.sin(dec0) + eta * math.cos(dec0), math.hypot(xi, denominator))
    return ra % 360.0, math.degrees(dec)
