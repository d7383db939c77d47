"""Plain FITS images straight from the bytes of a file: the fast path of reading many small ones."""

import math
import re
from dataclasses import dataclass

import numpy as np

from ..cutouts._wcs import is_wcs_keyword, tan_to_sky

__all__ = ["Header", "Plane", "TruncatedError", "UnusualError", "locate_tan", "read_planes"]

BLOCK = 2880
_STRING = re.compile(r"\s*'((?:[^']|'')*)'")
_DTYPES = {-32: ">f4", -64: ">f8", 8: "u1", 16: ">i2", 32: ">i4"}
_CELESTIAL = re.compile(r"(?:RA--|[A-Z]LON|[A-Z]{2}LN)-[A-Z]{3}")
# Cards that change what pixels or coordinates mean in ways only astropy should interpret.
_UNUSUAL = ("ZIMAGE", "BLANK", "CPDIS1", "CPDIS2", "D2IMDIS1", "D2IMDIS2", "AXISCORR", "WAT1_001")


class UnusualError(Exception):
    """The file is FITS, but not of the plain kind; astropy has to read it."""


class TruncatedError(OSError):
    """The file ends before its data do."""

    def __init__(self, message, header=None, shape=None):
        super().__init__(message)
        self.header = header
        self.shape = shape


class Header:
    """Cards of one header, whose values are parsed when they are asked for.

    Parameters
    ----------
    cards : dict of str to str
        Columns 11 to 80 of each card, by keyword.
    wcs_cards : str
        The cards of the celestial WCS, joined.
    """

    __slots__ = ("_cards", "wcs_cards")

    def __init__(self, cards, wcs_cards=""):
        self._cards = cards
        self.wcs_cards = wcs_cards

    def __contains__(self, keyword):
        return keyword in self._cards

    def get(self, keyword, default=None):
        """Value of a card: str, bool, int or float; what cannot be parsed stays text."""
        text = self._cards.get(keyword)
        if text is None:
            return default
        match = _STRING.match(text)
        if match:
            return match[1].replace("''", "'").rstrip()
        text = text.partition("/")[0].strip()
        if text in ("T", "F"):
            return text == "T"
        try:
            return int(text)
        except ValueError:
            try:
                return float(text.replace("D", "E").replace("d", "e"))
            except ValueError:
                return text or default


@dataclass(slots=True)
class Plane:
    """One image of a file: its header, and its pixels as a view of the bytes read, or None."""

    header: Header
    data: np.ndarray | None


def read_planes(buffer):
    """Take the images out of the bytes of a FITS file.

    Parameters
    ----------
    buffer : bytes
        The whole file.

    Returns
    -------
    list of Plane
        The first header, without data where it has none, then the images of two dimensions or
        more, in file order; tables are passed over.

    Raises
    ------
    UnusualError
        If an image is compressed, scaled, or otherwise not plain.
    TruncatedError
        If the file ends within a header or an image.
    """
    planes = []
    offset = 0
    while offset + BLOCK <= len(buffer) or not offset:
        header, start = _read_header(buffer, offset)
        if header is None:
            break
        n_axes, bitpix = header.get("NAXIS", 0), header.get("BITPIX")
        if not isinstance(n_axes, int) or bitpix not in (*_DTYPES, 64):
            raise UnusualError
        shape = tuple(header.get(f"NAXIS{axis}", 0) for axis in range(n_axes, 0, -1))
        groups = header.get("PCOUNT", 0), header.get("GCOUNT", 1)
        if not all(isinstance(length, int) and length >= 0 for length in (*shape, *groups)):
            raise UnusualError
        if header.get("GROUPS") is True:
            raise UnusualError
        count = math.prod(shape) if shape else 0
        n_bytes = abs(bitpix) // 8 * (count + groups[0]) * groups[1]
        is_image = header.get("XTENSION", "IMAGE") == "IMAGE"
        if any(keyword in header for keyword in _UNUSUAL):
            raise UnusualError
        if not offset and n_axes < 2:
            planes.append(Plane(header, None))
        if is_image and n_axes >= 2:
            if header.get("BSCALE", 1) != 1 or header.get("BZERO", 0) != 0 or bitpix == 64:
                raise UnusualError
            if start + n_bytes > len(buffer):
                percent = 100 * max(len(buffer) - start, 0) // max(n_bytes, 1)
                raise TruncatedError(f"truncated: {percent} % of the pixels", header, shape)
            data = np.frombuffer(buffer, dtype=_DTYPES[bitpix], count=count, offset=start)
            planes.append(Plane(header, data.reshape(shape)))
        offset = start + -(-n_bytes // BLOCK) * BLOCK
    return planes


def _read_header(buffer, offset):
    cards = {}
    wcs_cards = []
    first = offset == 0
    while True:
        block = buffer[offset : offset + BLOCK]
        if len(block) < BLOCK:
            if cards or first:
                raise TruncatedError("truncated: ends within a header")
            return None, offset
        try:
            text = block.decode("ascii")
        except UnicodeDecodeError:
            if cards or first:
                raise UnusualError from None
            return None, offset  # bytes after the last extension, which FITS allows
        if not cards and not text.startswith("SIMPLE  =" if first else "XTENSION="):
            if first:
                raise UnusualError
            return None, offset
        offset += BLOCK
        for start in range(0, BLOCK, 80):
            keyword = text[start : start + 8].rstrip()
            if keyword == "END":
                return Header(cards, "".join(wcs_cards)), offset
            if text[start + 8 : start + 10] == "= ":
                cards[keyword] = text[start + 10 : start + 80]
                if is_wcs_keyword(keyword):
                    wcs_cards.append(text[start : start + 80])


def has_plain_celestial(header):
    """Whether the first two axes of an image are celestial; UnusualError if others are."""
    first, second = header.get("CTYPE1", ""), header.get("CTYPE2", "")
    if isinstance(first, str) and isinstance(second, str):
        if _CELESTIAL.match(first) and second[:4].rstrip("-"):
            return True
    others = [header.get(f"CTYPE{axis}", "") for axis in range(1, 5)]
    if any(isinstance(text, str) and _CELESTIAL.match(text) for text in others):
        raise UnusualError
    return False


def locate_tan(header, size):
    """Centre and pixel scale of an image in a plain gnomonic projection, from its cards alone.

    Parameters
    ----------
    header : Header
    size : tuple of int
        (ny, nx).

    Returns
    -------
    tuple of float or None
        ra, dec in degrees and pixel scale in arcsec; None where the WCS is of another kind.
    """
    plain = (
        header.get("CTYPE1") == "RA---TAN"
        and header.get("CTYPE2") == "DEC--TAN"
        and header.get("CUNIT1", "deg") == "deg"
        and header.get("CUNIT2", "deg") == "deg"
        and header.get("RADESYS", "ICRS") == "ICRS"
        and header.get("LONPOLE", 180.0) == 180
    )
    other = ("EQUINOX", "EPOCH", "RADECSYS", "CROTA1", "CROTA2", "A_ORDER", "B_ORDER")
    if not plain or any(keyword in header for keyword in other) or "PV" in header.wcs_cards:
        return None
    has_cd = any(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2))
    has_pc = any(f"PC{i}_{j}" in header for i in (1, 2) for j in (1, 2))
    get = header.get
    centre = [get(f"{name}{axis}", 0.0) for name in ("CRPIX", "CRVAL") for axis in (1, 2)]
    if has_cd and not has_pc and "CDELT1" not in header:
        matrix = [get(f"CD{i}_{j}", 0.0) for i in (1, 2) for j in (1, 2)]
        delta = [1.0, 1.0]
    elif not has_cd and "CDELT1" in header and "CDELT2" in header:
        matrix = [get(f"PC{i}_{j}", float(i == j)) for i in (1, 2) for j in (1, 2)]
        delta = [get("CDELT1"), get("CDELT2")]
    else:
        return None
    numbers = (*centre, *matrix, *delta)
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers):
        return None
    a, b = matrix[0] * delta[0], matrix[1] * delta[0]
    c, d = matrix[2] * delta[1], matrix[3] * delta[1]
    area = abs(a * d - b * c)
    if not area:
        return None
    dx, dy = (size[1] + 1) / 2 - centre[0], (size[0] + 1) / 2 - centre[1]
    ra, dec = tan_to_sky(a * dx + b * dy, c * dx + d * dy, centre[2], centre[3])
    return ra, dec, math.sqrt(area) * 3600.0
