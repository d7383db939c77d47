"""Cutouts of any single-band photometric HiPS, by the hips2fits service of the CDS."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy import config as _config

from .._download import InvalidReply, Request
from ..cutouts._assemble import Layout
from ..cutouts._parse import parse_angle, parse_bands, parse_size
from ..cutouts._records import Record
from ..exceptions import MorphVAEWarning
from ..units import NANOMAGGY, flux_scale
from ._configured import ConfiguredService
from ._images import check_place, read_image
from ._positions import is_position
from ._service import CutoutQuery
from .registry import get_survey_info

__all__ = ["Conf", "HipsSurvey", "HipsSurveyClass", "conf"]

_MAX_PIXELS = 50_000_000  # of one image, by the service


class Conf(_config.ConfigNamespace):
    """Configuration of `HipsSurvey`."""

    rootname = "astro_morphvae"

    server = _config.ConfigItem(
        "https://alasky.cds.unistra.fr/hips-image-services/hips2fits",
        "Address of the hips2fits service.",
    )
    timeout = _config.ConfigItem(60.0, "Seconds without a byte after which a reply is given up.")
    max_connections = _config.ConfigItem(4, "Number of requests under way at once.")
    requests_per_second = _config.ConfigItem(
        0.0, "Never send more requests than this in a second; 0 for no limit."
    )
    retries = _config.ConfigItem(4, "How often a request that failed is repeated.")
    backoff = _config.ConfigItem(
        0.5, "Longest delay before the first repetition, in seconds; doubled for each further one."
    )


conf = Conf()


class HipsSurveyClass(ConfiguredService):
    """Cutouts of hierarchical progressive surveys (HiPS), in the manner of astroquery.

    Use the instance `HipsSurvey`. Server, timeout, number of connections, requests per second,
    retries and backoff are items of ``astro_morphvae.surveys.hips.conf``. The requests are those of
    ``astroquery.hips2fits.query_with_wcs``, sent many at once, and the replies are checked and
    kept as for the other services.

    Notes
    -----
    The tiles of a HiPS were resampled from the images of a survey, and the service takes the
    nearest of their pixels: noise is correlated, and there is **no variance** and no mask of a
    survey with it. Prefer the service of a survey where there is one.

    A value stands for the flux of a pixel of the original images; flux per pixel of the cutout
    follows from the areas.

    References
    ----------
    .. [1] Fernique et al. 2015, A&A 578, A114.
    .. [2] https://alasky.cds.unistra.fr/hips-image-services/hips2fits

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_morphvae.surveys import HipsSurvey
    >>> coords = SkyCoord([36.5, 180.1], [-4.6, 0.2], unit="deg")
    >>> HipsSurvey.get_cutouts(
    ...     coords, hips="CDS/P/DES-DR2/{band}", bands="gri", size=128, uncertainty=False
    ... )  # doctest: +SKIP
    <CutoutSet of 2: 3 bands (g, r, i), 128 × 128 pixels, nmgy, 0.263 arcsec / pixel>
    """

    _conf = conf

    def get_cutouts(
        self,
        coordinates,
        *,
        hips,
        bands=None,
        size=256,
        pixel_scale=None,
        unit=None,
        native_pixel_scale=None,
        uncertainty=None,
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
        hips : str or mapping of str to str
            Identifier of a HiPS such as ``"CDS/P/SDSS9/r"``; with ``{band}`` in place of the
            band; or the identifier for each band.
        bands : str or sequence of str, optional
            Bands, in the order wanted; by default all that are known of the HiPS.
        size : int or (int, int), optional
            Number of pixels, (ny, nx).
        pixel_scale : `~astropy.units.Quantity` [angle], optional
            Angle per pixel; by default that of the survey's images, where it is known.
        unit : unit-like or `~astropy.units.Quantity`, or a mapping of bands to them, optional
            What one unit of the values is, as for `CutoutSet.from_nddata
            <astro_morphvae.CutoutSet.from_nddata>`: ``30 * u.ABmag`` is a zero point. By default
            that of the registry, where it is known.
        native_pixel_scale : `~astropy.units.Quantity` [angle], optional
            Pixel of the original images, to which a value belongs; by default that of the
            registry. Not needed for a surface brightness.
        uncertainty : bool, optional
            There is none. False accepts that; None warns.
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
            Whether replies are kept on disk, so that nothing is ever fetched twice, or the folder
            to keep them in.
        progress : bool, optional
            Whether to show a progress bar, on a terminal.
        get_query_payload : bool, optional
            Return the parameters of the requests instead of sending them.

        Returns
        -------
        CutoutSet
            North up, centred on the positions, one row each in the order given, in nanomaggies
            where the unit converts to flux. ``catalog["status"]`` says what became of it, as for
            `LegacySurvey`.

        Raises
        ------
        ValueError
            If the HiPS is a colour picture, or its unit or pixel scale is not known.
        """
        return super().get_cutouts(
            coordinates,
            hips=hips,
            bands=bands,
            size=size,
            pixel_scale=pixel_scale,
            unit=unit,
            native_pixel_scale=native_pixel_scale,
            uncertainty=uncertainty,
            server=server,
            ids=ids,
            catalog=catalog,
            output=output,
            overwrite=overwrite,
            cache=cache,
            progress=progress,
            get_query_payload=get_query_payload,
        )

    def _make_query(
        self,
        coordinates,
        *,
        hips,
        bands=None,
        size=256,
        pixel_scale=None,
        unit=None,
        native_pixel_scale=None,
        uncertainty=None,
        server=None,
    ):
        sources = _parse_hips(hips, bands)
        bands = tuple(sources)
        size = parse_size("size", size)
        if size is None or size[0] * size[1] > _MAX_PIXELS:
            raise ValueError(f"size: expected up to {_MAX_PIXELS} pixels, got {size}")
        natives = _parse_natives(sources, parse_angle("native_pixel_scale", native_pixel_scale))
        scale = _parse_scale(parse_angle("pixel_scale", pixel_scale), natives)
        factors, unit = _parse_units(sources, unit, natives, scale)
        _tell_uncertainty(uncertainty)
        server = server or conf.server
        rows = []
        for ra, dec in zip(coordinates.ra.deg, coordinates.dec.deg, strict=True):
            if not is_position(ra, dec):
                rows.append("invalid-position")
                continue
            header = json.dumps(_header(ra, dec, size, scale))
            rows.append(
                [
                    Request(
                        server,
                        {"hips": source.name, "format": "fits", "wcs": header},
                        f"{ra:.5f} {dec:+.5f} {band}",
                    )
                    for band, source in sources.items()
                ]
            )
        fwhm = [source.psf_fwhm for source in sources.values()]
        return CutoutQuery(
            rows=rows,
            check=_Check(size),
            read=_Reader(bands, factors, unit, scale),
            layout=Layout(size, bands, unit, False),
            pixel_scale=scale,
            meta={"survey": hips if isinstance(hips, str) else ", ".join(hips.values())},
            psf_fwhm=None if None in fwhm else u.Quantity(fwhm),
        )


@dataclass(frozen=True)
class _Source:
    """One HiPS, and what the registry knows of it."""

    name: str
    native: float | None = None
    zero_point: u.Quantity | None = None
    psf_fwhm: u.Quantity | None = None


def _parse_hips(hips, bands):
    """Source of each band."""
    if isinstance(hips, Mapping):
        if not hips:
            raise ValueError("hips: an empty mapping")
        names = {str(band): str(name) for band, name in hips.items()}
        chosen = tuple(names) if bands is None else parse_bands(bands)
        if not set(chosen) <= set(names):
            raise ValueError(f"bands: hips has {', '.join(names)}, got {chosen}")
        names = {band: names[band] for band in chosen}
    elif not isinstance(hips, str):
        raise TypeError(f"hips: expected a str or a mapping, got {type(hips).__name__}")
    elif "{band}" in hips:
        if bands is None:
            bands = _look_up(hips).bands if _look_up(hips) else None
            if bands is None:
                raise ValueError(f"bands: needed, the bands of {hips!r} are not known")
        names = {band: hips.replace("{band}", band) for band in parse_bands(bands)}
    else:
        band = hips.rpartition("/")[2] if bands is None else parse_bands(bands, 1)[0]
        names = {band: hips}
    if not names:
        raise ValueError(f"bands: expected at least one, got {bands!r}")
    return {band: _source(name) for band, name in names.items()}


def _source(name):
    last = name.rpartition("/")[2].lower()
    if not name.strip() or "color" in last or "colour" in last:
        raise ValueError(
            f"hips: {name!r} is a colour picture, whose values are no flux; give the HiPS of one "
            "band, such as 'CDS/P/SDSS9/r'"
            if name.strip()
            else "hips: an empty name"
        )
    info = _look_up(name)
    if info is None:
        return _Source(name)
    fwhm = info.psf_fwhm[0]
    return _Source(
        name,
        native=info.pixel_scale.to_value(u.arcsec),
        zero_point=info.zero_point if np.isfinite(info.zero_point.value) else None,
        psf_fwhm=fwhm if np.isfinite(fwhm) else None,
    )


def _look_up(name):
    if "/" not in name:  # not the survey itself
        return None
    try:
        return get_survey_info(name)
    except ValueError:
        return None


def _parse_natives(sources, given):
    """Pixel scale of the original images for each band, arcsec; None where unknown."""
    if given is not None:
        return [float(given.value)] * len(sources)
    return [source.native for source in sources.values()]


def _parse_scale(angle, natives):
    if angle is not None:
        return float(angle.value)
    if None in natives or len(set(natives)) > 1:
        raise ValueError("pixel_scale: needed, as that of the original images is not known")
    return natives[0]


def _parse_units(sources, given, natives, scale):
    """Find what to multiply the values of each band by, and the unit of the result."""
    factors, units = [], set()
    for (band, source), native in zip(sources.items(), natives, strict=True):
        one = given.get(band) if isinstance(given, Mapping) else given
        one = source.zero_point if one is None else one
        if one is None:
            raise ValueError(
                f"unit: needed, as the zero point of {source.name!r} is not known; "
                "u.dimensionless_unscaled takes its values as they are"
            )
        if not isinstance(one, u.Quantity):
            one = u.Unit(one)
        try:
            factor = flux_scale(one)  # flux of an original pixel
            per_area = False
        except ValueError:
            factor, per_area = flux_scale(one, pixel_scale=scale * u.arcsec), True
        if factor is None:
            if isinstance(one, u.Quantity):
                raise ValueError(f"unit: {one} is not a flux; give its unit alone to keep it")
            units.add(one)
            factors.append(1.0)
            continue
        units.add(NANOMAGGY)
        if not per_area:
            if native is None:
                raise ValueError(
                    f"native_pixel_scale: needed, as that of {source.name!r} is not known"
                )
            factor *= (scale / native) ** 2
        factors.append(factor)
    if len(units) > 1:
        raise ValueError(f"unit: those of the bands differ: {', '.join(map(str, units))}")
    return factors, units.pop()


def _tell_uncertainty(uncertainty):
    if uncertainty:
        raise ValueError("uncertainty: a HiPS carries no variance")
    if uncertainty is None:
        warnings.warn(
            "A HiPS carries no variance, so the cutouts have none; uncertainty=False accepts that",
            MorphVAEWarning,
            stacklevel=5,
        )


def _header(ra, dec, size, scale):
    """WCS cards of a grid with north up: what ``query_with_wcs`` sends."""
    ny, nx = size
    return {
        "WCSAXES": 2,
        "CRPIX1": (nx + 1) / 2,
        "CRPIX2": (ny + 1) / 2,
        "CDELT1": -scale / 3600,
        "CDELT2": scale / 3600,
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": round(float(ra), 8),
        "CRVAL2": round(float(dec), 8),
        "RADESYS": "ICRS",
        "NAXIS1": nx,
        "NAXIS2": ny,
    }


class _Check:
    """Make sure that a reply is the image that was asked for; return its pixels and WCS."""

    # Part of the key of a cached reply: a check that got stricter does not meet older files.
    version = "hips-2"

    def __init__(self, size):
        self._size = size

    def __call__(self, content, request):
        params = dict(request.params)
        name = params["hips"]
        image = read_image(content)
        if image.data.ndim == 3:
            # Not a matter of one row: nothing that is asked for makes sense.
            raise ValueError(f"hips: {name!r} is a colour picture, whose values are no flux")
        if image.data.shape != self._size:
            raise InvalidReply(
                "invalid-file", f"{image.data.shape} pixels in place of {self._size}"
            )
        wanted = json.loads(params["wcs"])
        step = wanted["CDELT2"]
        check_place(image, wanted["CRVAL1"], wanted["CRVAL2"], step * 3600, 0.1)
        if not np.allclose(image.wcs.pixel_scale_matrix, np.diag([-step, step]), atol=1e-3 * step):
            raise InvalidReply("invalid-file", "north is not up")
        return image


class _Reader:
    """Make records of checked images, one a band."""

    def __init__(self, bands, factors, unit, scale):
        self._bands = bands
        self._factors = factors
        self._unit = unit
        self._scale = scale

    def __call__(self, replies, row):
        images = [reply.value for reply in replies]
        data = np.stack(
            [
                np.asarray(image.data, dtype=np.float64) * factor
                for image, factor in zip(images, self._factors, strict=True)
            ]
        )
        bad = ~np.isfinite(data)
        blank = [
            band
            for band, pixels, wrong in zip(self._bands, data, bad, strict=True)
            if not np.any(pixels[~wrong])
        ]
        if blank:
            some = len(blank) < len(self._bands)
            return Record(
                status=f"incomplete-bands: {', '.join(blank)}" if some else "off-footprint"
            )
        return Record(
            np.where(bad, 0.0, data),
            mask=bad if bad.any() else None,
            unit=self._unit,
            bands=self._bands,
            wcs=images[0].wcs,
            pixel_scale=self._scale,
        )


HipsSurvey = HipsSurveyClass()
