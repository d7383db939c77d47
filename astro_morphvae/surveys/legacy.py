"""Cutouts of the DESI Legacy Imaging Surveys: DECaLS in the south, BASS and MzLS in the north."""

import warnings

import astropy.units as u
import numpy as np
from astropy import config as _config
from astropy.coordinates import SkyCoord

from .._download import Request
from ..cutouts._assemble import Layout
from ..cutouts._parse import parse_angle, parse_bands, parse_size
from ..exceptions import MorphVAEWarning
from ..units import NANOMAGGY
from ._configured import ConfiguredService
from ._legacy_files import MAX_SIZE, NATIVE_PIXEL_SCALE, FitsReader, check_fits, check_jpeg
from ._positions import is_position
from ._service import CutoutQuery
from .registry import get_survey_info

__all__ = ["Conf", "LegacySurvey", "LegacySurveyClass", "conf"]

#: Declination, in degrees, of the border between the south and the north of a release.
SPLIT_DECLINATION = 32.375

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
    requests_per_second = _config.ConfigItem(
        0.0, "Never send more requests than this in a second; 0 for no limit."
    )
    retries = _config.ConfigItem(4, "How often a request that failed is repeated.")
    backoff = _config.ConfigItem(
        0.5, "Longest delay before the first repetition, in seconds; doubled for each further one."
    )


conf = Conf()


class LegacySurveyClass(ConfiguredService):
    """Cutout service of the DESI Legacy Imaging Surveys, in the manner of astroquery.

    Use the instance `LegacySurvey`. Server, timeout, number of connections, requests per second,
    retries and backoff are items of ``astro_morphvae.surveys.legacy.conf``.

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

    Images and residuals are exactly 0 where no exposure reached, which is what tells such pixels
    where there is no inverse variance. A model is 0 wherever there is no source, so 0 masks no
    pixel of a ``-model`` layer. Where a cutout holds no source at all, the status is
    ``"all zero"``, also off the footprint; ``"blank band"`` where some of the bands hold none.

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

    _conf = conf

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
        coordinates : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or str
            Centres, in any frame; of a table the columns ``ra`` and ``dec``, ICRS, in degrees
            where they have no unit.
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
        if size is None or max(size) > MAX_SIZE:
            raise ValueError(f"size: the service gives at most {MAX_SIZE} pixels, got {size}")
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
            check=check_fits if image_format == "fits" else check_jpeg,
            read=FitsReader(scale, has_ivar, None if maskbits is False else maskbits),
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


LegacySurvey = LegacySurveyClass()
