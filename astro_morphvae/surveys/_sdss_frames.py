"""Calibrated frames of the SDSS imaging camera: their pixels, and the noise that these have."""

import bz2
from io import BytesIO

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from .._download import InvalidReply
from ..cutouts._wcs import celestial_wcs, quiet_astropy
from ..units import NANOMAGGY
from ._images import describe_text
from ._tiles import Tile

__all__ = [
    "DARK_VARIANCE",
    "GAIN",
    "MAX_BYTES",
    "FrameTile",
    "check_frame",
    "decompress",
    "frame_ivar",
    "gain_and_variance",
]

_BANDS = "ugriz"

#: Largest decompressed file accepted; a frame has 13 MB.
MAX_BYTES = 2**26

#: Electrons per count of each CCD, by camera column and band.
GAIN = {
    1: (1.62, 3.32, 4.71, 5.165, 4.745),
    2: (1.595, 3.855, 4.6, 6.565, 5.155),
    3: (1.59, 3.845, 4.72, 4.86, 4.885),
    4: (1.6, 3.995, 4.76, 4.885, 4.775),
    5: (1.47, 4.05, 4.725, 4.64, 3.48),
    6: (2.17, 4.035, 4.895, 4.76, 4.69),
}
#: Variance of the dark current and the read-out in counts squared, by camera column and band.
DARK_VARIANCE = {
    1: (9.61, 15.6025, 1.8225, 7.84, 0.81),
    2: (12.6025, 1.44, 1.0, 5.76, 1.0),
    3: (8.7025, 1.3225, 1.3225, 4.6225, 1.0),
    4: (12.6025, 1.96, 1.3225, 6.25, 9.61),
    5: (9.3025, 1.1025, 0.81, 7.84, 1.8225),
    6: (7.0225, 1.8225, 0.9025, 5.0625, 1.21),
}
# What changed in the camera: the value from that run on.
_LATER_GAIN = {(2, "u"): (1100, 1.825)}
_LATER_VARIANCE = {
    (2, "i"): (1500, 6.25),
    (4, "i"): (1500, 7.5625),
    (4, "z"): (1500, 12.6025),
    (5, "z"): (1500, 2.1025),
}


def gain_and_variance(run, camcol, band):
    """Gain and dark variance of a CCD.

    Parameters
    ----------
    run, camcol : int
        Imaging run and camera column.
    band : str
        One of u, g, r, i, z.

    Returns
    -------
    gain : float
        Electrons per count.
    variance : float
        Of dark current and read-out, counts squared.

    References
    ----------
    SDSS data model of ``frame`` files, section on the noise:
    https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html
    """
    if camcol not in GAIN or band not in _BANDS:
        raise ValueError(f"no CCD of camera column {camcol!r} and band {band!r}")
    place = _BANDS.index(band)
    gain, variance = GAIN[camcol][place], DARK_VARIANCE[camcol][place]
    since, later = _LATER_GAIN.get((camcol, band), (np.inf, gain))
    gain = later if run > since else gain
    since, later = _LATER_VARIANCE.get((camcol, band), (np.inf, variance))
    return gain, later if run > since else variance


def frame_ivar(image, calibration, sky, gain, variance):
    """Inverse variance of a calibrated frame.

    The counts of a pixel are its flux divided by the calibration, plus the sky that was
    subtracted; their variance is that of the electrons, counted in counts, plus that of the dark.

    Parameters
    ----------
    image : (ny, nx) array
        Nanomaggies.
    calibration : (nx,) array
        Nanomaggies per count of each column.
    sky : (ny, nx) array
        Sky, in counts.
    gain, variance : float
        See `gain_and_variance`.

    Returns
    -------
    (ny, nx) array of float32
        1 / nanomaggies squared; 0 where it is not known.

    References
    ----------
    As for `gain_and_variance`.
    """
    calibration = np.asarray(calibration, dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        counts = image / calibration + sky
        counts = np.maximum(counts, 0) / np.float32(gain) + np.float32(variance)
        ivar = 1.0 / (counts * calibration**2)
    return np.where(np.isfinite(ivar), ivar, 0).astype(np.float32, copy=False)


def full_sky(table):
    """Sky of every pixel of a frame, interpolated between the nodes that the file holds.

    Parameters
    ----------
    table : record array
        ``ALLSKY`` (y, x) in counts; ``XINTERP`` and ``YINTERP``, the place of every column and row
        among the nodes.

    Returns
    -------
    (ny, nx) array of float32
    """
    nodes = np.asarray(table["ALLSKY"][0], dtype=np.float32)

    def along(values, places):
        places = np.clip(np.asarray(places, dtype=np.float64), 0, len(values) - 1)
        lower = np.minimum(places.astype(int), max(len(values) - 2, 0))
        upper = np.minimum(lower + 1, len(values) - 1)
        share = (places - lower).astype(np.float32)[:, np.newaxis]
        return values[lower] * (1 - share) + values[upper] * share

    return along(along(nodes, table["YINTERP"][0]).T, table["XINTERP"][0]).T


def check_frame(content, request):
    """Make sure that a reply is a whole frame; return what its header says.

    Parameters
    ----------
    content : bytes
        Compressed by bzip2.
    request : Request

    Returns
    -------
    wcs : `~astropy.wcs.WCS`
    shape : tuple of int
    """
    try:
        with quiet_astropy(), _open(content) as hdus:
            if len(hdus) < 3 or not {"ALLSKY", "XINTERP", "YINTERP"} <= set(hdus[2].columns.names):
                raise InvalidReply("invalid-file", "not a calibrated frame")
            shape = hdus[0].shape
            calibration = hdus[1].data
            if len(shape) != 2 or np.shape(calibration) != shape[1:]:
                raise InvalidReply("invalid-file", f"a frame of shape {shape}")
            wcs = celestial_wcs(WCS(hdus[0].header))
    except InvalidReply:
        raise
    except Exception as error:  # whatever a broken file provokes
        text = " ".join(str(error).split())[:100] or type(error).__name__
        if not content.startswith(b"BZh"):
            text = describe_text(content)
        raise InvalidReply("invalid-file", text, retry=True) from None
    if wcs is None:
        raise InvalidReply("invalid-file", "no celestial WCS")
    return wcs, shape


check_frame.version = "sdss-frame-1"


def decompress(content):
    """Undo bzip2, which can make a file of any size of a few bytes.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    bytes

    Raises
    ------
    InvalidReply
        If more than `MAX_BYTES` come out.
    """
    with bz2.open(BytesIO(content)) as file:
        plain = file.read(MAX_BYTES + 1)
    if len(plain) > MAX_BYTES:
        raise InvalidReply("invalid-file", f"more than {MAX_BYTES} bytes when decompressed")
    return plain


def _open(content):
    return fits.open(BytesIO(decompress(content)), memmap=False)


class FrameTile(Tile):
    """One frame, decompressed when its pixels are needed.

    Parameters
    ----------
    content : bytes or path-like
        The compressed file, or where it is.
    wcs, shape
        See `check_frame`.
    run, camcol : int
    band : str
    name : str
        For messages.
    """

    def __init__(self, content, wcs, shape, *, run, camcol, band, name):
        super().__init__(name, wcs, shape, (band,), has_ivar=True)
        self._content = content
        self._noise = gain_and_variance(run, camcol, band)

    def open(self, stack):
        content = self._content
        if not isinstance(content, bytes):
            content = content.read_bytes()
        with quiet_astropy(), _open(content) as hdus:
            image = np.asarray(hdus[0].data, dtype=np.float32)
            sky = full_sky(hdus[2].data)
            ivar = frame_ivar(image, np.asarray(hdus[1].data), sky, *self._noise)
        if sky.shape != image.shape:
            raise ValueError(f"a sky of {sky.shape} for a frame of {image.shape}")

        def read(window, band):
            return image[window], ivar[window], None, NANOMAGGY

        return read
