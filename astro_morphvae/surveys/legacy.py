"""Cutouts of the DESI Legacy Imaging Surveys: DECaLS in the south, BASS and MzLS in the north."""

import math
import warnings
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy import config as _config
from astropy.coordinates import SkyCoord

from .._download import InvalidReply, Request
from ..cutouts._assemble import Layout
from ..cutouts._headers import bands_from_header
from ..cutouts._parse import parse_angle, parse_bands, parse_size
from ..cutouts._records import Record
from ..exceptions import MorphVAEWarning
from ..io import LEGACY_MASKBITS
from ..io._fits_bytes import Header, UnusualError, read_planes
from ..io._images import _planes_by_astropy, _wcs_by_astropy
from ..units import NANOMAGGY
from ._service import CutoutQuery, CutoutService, is_position
from .registry import get_survey_info

__all__ = ["Conf", "LegacySurvey", "LegacySurveyClass", "conf"]

#: Arcsec per pixel of the coadds; the values of a cutout are per such a pixel at any pixel scale.
NATIVE_PIXEL_SCALE = 0.262
#: Declination, in degrees, of the border between the south and the north of a release.
SPLIT_DECLINATION = 32.375

_MAX_SIZE = 3000  # larger sizes are clipped by the service, without a word
_LARGEST_SCALE = 500.0  # arcsec per pixel
_KINDS = ("", "-model", "-resid")
# A layer of both halves of a release, each position in the one that it belongs to.
_SPLIT = {"ls-dr9": ("ls-dr9-south", "ls-dr9-north")}
_LAYERS = ("ls-dr9-south", "ls-dr9-north", "ls-dr10-south")


class Conf(_config.ConfigNamespace):
    """Configuration of `LegacySurvey`."""

    rootname = "astro_morphvae"

    server = _config.ConfigItem(
        "https://www.legacysurvey.org", "Address of the Legacy Survey cutout service."
    )
    timeout = _config.ConfigItem(60.0, "Seconds without a byte after which a reply is given up.")
    max_connections = _config.ConfigItem(16, "Number of requests under way at once.")
    retries = _config.ConfigItem(4, "How often a request that failed is repeated.")
    backoff = _config.ConfigItem(
        0.5, "Longest delay before the first repetition, in seconds; doubled for each further one."
    )


conf = Conf()


class LegacySurveyClass(CutoutService):
    """Cutout service of the DESI Legacy Imaging Surveys, in the manner of astroquery.

    Use the instance `LegacySurvey`. Server, timeout, number of connections, retries and backoff
    are items of ``astro_morphvae.surveys.legacy.conf``.

    Notes
    -----
    The layers are ``ls-dr9-south`` (DECaLS: DECam g, r, z), ``ls-dr9-north`` (BASS g, r and MzLS
    z) and ``ls-dr10-south`` (DECam g, r, i, z; there is no northern part of DR10), their models
    (``-model``) and residuals (``-resid``); and ``ls-dr9``, which takes each position from the
    north if it lies above declination 32.375 degrees and north of the Galactic plane, else from
    the south.

    The service keeps the values of its native pixels of 0.262 arcsec when it resamples;
    `get_cutouts` returns the flux per pixel of the cutout and the inverse variance that belongs to
    it. Neighbouring pixels of an image that the service resampled are correlated.

    References
    ----------
    .. [1] Dey et al. 2019, AJ 157, 168 (the surveys).
    .. [2] https://www.legacysurvey.org/dr9/description/ (images, inverse variance, mask bits).

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_morphvae.surveys import LegacySurvey
    >>> coords = SkyCoord([36.5, 180.1], [-4.6, 0.2], unit="deg")
    >>> LegacySurvey.get_cutouts(coords, layer="ls-dr9-south", size=128)  # doctest: +SKIP
    <CutoutSet of 2: 3 bands (g, r, z), 128 × 128 pixels, nmgy, 0.262 arcsec / pixel>
    """

    @property
    def TIMEOUT(self):  # noqa: N802 (as astroquery names it)
        """Seconds without a byte after which a reply is given up."""
        return conf.timeout

    @property
    def MAX_CONNECTIONS(self):  # noqa: N802
        """Number of requests under way at once."""
        return conf.max_connections

    @property
    def RETRIES(self):  # noqa: N802
        """How often a request that failed is repeated."""
        return conf.retries

    @property
    def BACKOFF(self):  # noqa: N802
        """Longest delay before the first repetition, in seconds."""
        return conf.backoff

    def get_cutouts(
        self,
        coordinates,
        *,
        layer,
        bands="grz",
        size=256,
        pixel_scale=None,
        uncertainty=None,
        maskbits=None,
        ids=None,
        catalog=None,
        output=None,
        overwrite=False,
        server=None,
        cache=True,
        progress=True,
        get_query_payload=False,
    ):
        """Fetch a cutout for each position.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord` or str
            Centres, in any frame.
        layer : str
            ``"ls-dr9-south"``, ``"ls-dr9-north"``, ``"ls-dr10-south"``, one of these with
            ``-model`` or ``-resid``, or ``"ls-dr9"`` for the half of DR9 that each position
            belongs to.
        bands : str or sequence of str, optional
            Bands, in the order wanted.
        size : int or (int, int), optional
            Number of pixels, (ny, nx); at most 3000.
        pixel_scale : `~astropy.units.Quantity` [angle], optional
            Angle per pixel, 0.262 arcsec by default.
        uncertainty : bool, optional
            Whether to fetch the inverse variance. By default, where the service has it: not for
            models and residuals, nor for pixels of twice the native size or more.
        maskbits : int or False, optional
            Bits of ``MASKBITS`` that make a pixel bad in every band; where not given, the bits for
            saturated and for fully masked pixels of each band. False does not fetch them.
        ids : sequence, optional
            Identifiers of the rows.
        catalog : `~astropy.table.Table`, optional
            More columns, one row a position.
        output : path-like, optional
            CutoutSet file to write the cutouts to as they come, so that memory holds few of them.
        overwrite : bool, optional
            Whether that file may be replaced.
        server : str, optional
            Address of the service, in place of the config item.
        cache : bool or path-like, optional
            Whether replies are kept on disk, so that no cutout is ever fetched twice, or the folder
            to keep them in.
        progress : bool, optional
            Whether to show a progress bar, on a terminal.
        get_query_payload : bool, optional
            Return the parameters of the requests instead of sending them.

        Returns
        -------
        CutoutSet
            In nanomaggies, one row a position in the order given. ``catalog["status"]`` is
            ``"ok"``, ``"off-footprint"``, ``"incomplete-bands"`` (with the bands that hold
            nothing), ``"server-error"``, ``"invalid-file"``, ``"timeout"``, ``"connection-error"``,
            ``"refused"`` or ``"invalid-position"``, followed by what happened. With
            ``get_query_payload``, a list of dict for each position.

        Raises
        ------
        ValueError
            If there is no such layer, or the layer has no such bands, sizes or uncertainties.
        """
        return super().get_cutouts(
            coordinates,
            layer=layer,
            bands=bands,
            size=size,
            pixel_scale=pixel_scale,
            uncertainty=uncertainty,
            maskbits=maskbits,
            server=server,
            ids=ids,
            catalog=catalog,
            output=output,
            overwrite=overwrite,
            cache=cache,
            progress=progress,
            get_query_payload=get_query_payload,
        )

    def get_colour_images(
        self,
        coordinates,
        *,
        layer,
        size=256,
        pixel_scale=None,
        server=None,
        cache=True,
        progress=True,
        get_query_payload=False,
    ):
        """Fetch the colour picture that the viewer shows of each position.

        Parameters
        ----------
        coordinates, layer, size, pixel_scale, server, cache, progress, get_query_payload
            See `get_cutouts`.

        Returns
        -------
        list of (ny, nx, 3) array of uint8
            Red, green and blue, north up; the first row is the top of the picture.

        Raises
        ------
        astroquery.exceptions.RemoteServiceError
            If a picture is not to be had.
        """
        replies = self.get_images_async(
            coordinates,
            layer=layer,
            size=size,
            pixel_scale=pixel_scale,
            server=server,
            cache=cache,
            progress=progress,
            get_query_payload=get_query_payload,
            image_format="jpeg",
        )
        if get_query_payload:
            return replies
        self._raise_for_status(replies)
        return [reply.value for reply in replies]

    def _make_query(
        self,
        coordinates,
        *,
        layer,
        bands="grz",
        size=256,
        pixel_scale=None,
        uncertainty=None,
        maskbits=None,
        server=None,
        image_format="fits",
    ):
        base, kind = _parse_layer(layer)
        info = get_survey_info(_SPLIT.get(base, (base,))[0])
        bands = parse_bands(bands)
        if not bands or not set(bands) <= set(info.bands):
            raise ValueError(f"bands: layer {layer!r} has {', '.join(info.bands)}, got {bands}")
        size = parse_size("size", size)
        if max(size) > _MAX_SIZE:
            raise ValueError(f"size: the service gives at most {_MAX_SIZE} pixels, got {size}")
        angle = parse_angle("pixel_scale", pixel_scale)
        scale = NATIVE_PIXEL_SCALE if angle is None else float(angle.value)
        if scale > _LARGEST_SCALE:
            raise ValueError(f"pixel_scale: expected an angle up to 500 arcsec, got {angle}")
        has_ivar = _parse_uncertainty(uncertainty, kind, scale)
        if maskbits is True or (
            maskbits is not None and not isinstance(maskbits, (int, np.integer))
        ):
            raise TypeError(
                f"maskbits: expected an integer of bits, False or None, got {maskbits!r}"
            )
        server = (server or conf.server).rstrip("/")
        path = {"fits": "/viewer/fits-cutout", "jpeg": "/viewer/jpeg-cutout"}[image_format]
        # Bands are asked for in one order, so that the cache knows the reply in any other.
        params = {"pixscale": f"{scale:.6g}", **_size_params(size)}
        if image_format == "fits":
            params["bands"] = "".join(band for band in info.bands if band in bands)
            if has_ivar:
                params["invvar"] = "1"
            if maskbits is not False and not kind and scale < 2 * NATIVE_PIXEL_SCALE:
                params["maskbits"] = "1"
        rows = [
            (
                Request(
                    server + path,
                    {"ra": f"{ra:.7f}", "dec": f"{dec:.7f}", "layer": name + kind, **params},
                    f"{ra:.5f} {dec:+.5f}",
                ),
            )
            if is_position(ra, dec)
            else "invalid-position"
            for ra, dec, name in zip(
                coordinates.ra.deg, coordinates.dec.deg, _halves(base, coordinates), strict=True
            )
        ]
        return CutoutQuery(
            rows=rows,
            check=_check_fits if image_format == "fits" else _check_jpeg,
            read=_Reader(scale, has_ivar, None if maskbits is False else maskbits),
            layout=Layout(size, bands, NANOMAGGY, has_ivar),
            pixel_scale=scale,
            http_errors={500: "off-footprint"},
            meta={"survey": layer},
            psf_fwhm=None if base in _SPLIT else info.psf_fwhm_of(bands),
        )


def _parse_layer(layer):
    """Name of the survey and kind of image of a layer."""
    if isinstance(layer, str):
        for kind in reversed(_KINDS):
            base = layer.removesuffix(kind) if layer.endswith(kind) else ""
            if base in _LAYERS or base in _SPLIT:
                return base, kind
    known = ", ".join((*_LAYERS, *_SPLIT))
    hint = "; DR10 has no northern part" if layer in ("ls-dr10", "ls-dr10-north") else ""
    raise ValueError(
        f"layer: expected one of {known}, each also with -model or -resid, got {layer!r}{hint}"
    )


def _parse_uncertainty(uncertainty, kind, scale):
    if kind:
        lacking = f"images of kind {kind[1:]!r}"
    elif scale >= 2 * NATIVE_PIXEL_SCALE:
        lacking = f"pixels of {2 * NATIVE_PIXEL_SCALE} arcsec or more"
    else:
        return uncertainty is not False
    if uncertainty:
        raise ValueError(f"uncertainty: the service has no inverse variance for {lacking}")
    if uncertainty is None and not kind:
        warnings.warn(
            f"The service has no inverse variance and no mask for {lacking}; "
            "uncertainty=False accepts that",
            MorphVAEWarning,
            stacklevel=5,
        )
    return False


def _size_params(size):
    ny, nx = size
    return {"size": str(nx)} if ny == nx else {"width": str(nx), "height": str(ny)}


def _halves(base, coordinates):
    """Layer of each position."""
    if base not in _SPLIT:
        return [base] * len(coordinates)
    south, north = _SPLIT[base]
    valid = np.isfinite(coordinates.ra.deg) & np.isfinite(coordinates.dec.deg)
    sky = SkyCoord(
        np.where(valid, coordinates.ra, 0 * u.deg), np.where(valid, coordinates.dec, 0 * u.deg)
    )
    is_north = (sky.dec.deg > SPLIT_DECLINATION) & (sky.galactic.b.deg > 0)
    return np.where(is_north, north, south).tolist()


@dataclass(slots=True)
class _Images:
    """The images of one file, as views of its bytes."""

    header: object
    data: np.ndarray
    ivar: np.ndarray | None
    bits: np.ndarray | None


def _check_fits(content, request):
    """Make sure that a file is the cutout that was asked for; return its images."""
    params = dict(request.params)
    if not content.startswith(b"SIMPLE"):
        text = " ".join(content[:80].decode("utf-8", "replace").split())
        if "no such layer" in text:
            raise InvalidReply("refused", f"no such layer: {params['layer']}")
        raise InvalidReply("invalid-file", repr(text) if text else "empty", retry=True)
    try:
        images = _read_images(content)
        _compare(images, params)
        _find_blank(images)
    except InvalidReply:
        raise
    except Exception as error:  # whatever a broken file provokes
        text = " ".join(str(error).split())[:100] or type(error).__name__
        raise InvalidReply("invalid-file", text, retry=True) from None
    return images


# Part of the key of a cached reply: a check that got stricter does not meet older files.
_check_fits.version = "legacy-1"


def _read_images(content):
    try:
        planes = read_planes(content)
    except UnusualError:
        planes = _planes_by_astropy(content)
    roles = {}
    for plane in planes:
        if plane.data is not None:
            roles.setdefault(str(plane.header.get("IMAGETYP", "image")).strip().lower(), plane)
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
    found = abs(header.get("CD2_2")) * 3600
    if not abs(found / scale - 1) < 1e-3:
        raise InvalidReply("invalid-file", f"pixel scale {found:.4g} in place of {scale:.4g}")
    for name, image in (("invvar", images.ivar), ("maskbits", images.bits)):
        if name in params and image is None:
            raise InvalidReply("invalid-file", f"no {name} came", retry=True)


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


class _Reader:
    """Make records of checked files."""

    def __init__(self, pixel_scale, has_ivar, maskbits):
        self._scale = pixel_scale
        self._has_ivar = has_ivar
        self._maskbits = maskbits

    def __call__(self, replies, row):
        images = replies[0].value
        header, data, ivar = images.header, images.data, images.ivar
        bands = bands_from_header(header, len(data))
        bad = ivar == 0 if ivar is not None else data == 0
        if images.bits is not None:
            bits = images.bits.astype(np.int32)
            for place, band in enumerate(bands):
                chosen = LEGACY_MASKBITS[band] if self._maskbits is None else self._maskbits
                bad[place] |= (bits & chosen) != 0
        factor = (self._scale / NATIVE_PIXEL_SCALE) ** 2
        if factor != 1:
            data = data * np.float32(factor)
            ivar = None if ivar is None else ivar / np.float32(factor**2)
        params = dict(replies[0].request.params)
        return Record(
            data,
            ivar=ivar if self._has_ivar else None,
            mask=bad if bad.any() else None,
            unit=NANOMAGGY,
            bands=bands,
            wcs=header.wcs_cards if isinstance(header, Header) else _wcs_by_astropy(header),
            ra=float(params["ra"]),
            dec=float(params["dec"]),
            pixel_scale=self._scale,
        )


def _check_jpeg(content, request):
    """Make sure that a file is a picture of the size asked for; return its pixels."""
    from io import BytesIO

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


_check_jpeg.version = "legacy-jpeg-1"

LegacySurvey = LegacySurveyClass()
