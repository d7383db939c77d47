"""What a FITS header, or a ``meta`` made from one, says about bands."""

import re

__all__ = ["bands_from_header", "default_bands"]

# Keywords that name the one filter of an image, in the order they are asked.
_FILTER_KEYWORDS = ("FILTER", "BAND", "FILTNAM", "FILTER01", "INSFLNAM", "FILTER1", "FILTER2")
_NO_FILTER = re.compile(r"^(?:CLEAR\w*|OPEN|NONE|N/A|EMPTY|UNKNOWN|-*)$", re.IGNORECASE)


def bands_from_header(header, n_band):
    """Names of the bands, from the conventions that surveys follow.

    Parameters
    ----------
    header : mapping
        ``BAND0`` ... or ``BANDS`` (Legacy Survey), or one of ``FILTER``, ``BAND``, ``FILTNAM``,
        ``FILTER1``, ``FILTER2`` ... where there is one band.
    n_band : int
        Number of bands of the image.

    Returns
    -------
    tuple of str or None
        None where the header does not say.
    """
    numbered = tuple(_text(header, f"BAND{band}") for band in range(n_band))
    if all(numbered) and not _text(header, f"BAND{n_band}"):
        return numbered
    joined = _text(header, "BANDS")
    if joined:
        names = tuple(re.split(r"[\s,;]+", joined)) if re.search(r"[\s,;]", joined) else None
        names = names or ((joined,) if n_band == 1 else tuple(joined))
        if len(names) == n_band and len(set(names)) == n_band:
            return names
    if n_band == 1:
        for keyword in _FILTER_KEYWORDS:
            name = _text(header, keyword)
            if name and not _NO_FILTER.match(name):
                # DECam writes "g DECam SDSS c0001 4720.0 1520.0".
                return (name.split()[0],)
    return None


def default_bands(n_band):
    """Names for bands that nothing names: band0, band1 ..."""
    return tuple(f"band{band}" for band in range(n_band))


def _text(header, keyword):
    value = header.get(keyword)
    if value is None:
        value = header.get(keyword.lower())
    return value.strip() if isinstance(value, str) else ""
