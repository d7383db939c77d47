"""Cutouts of the Sloan Digital Sky Survey, from the calibrated frames of its imaging camera."""

from contextlib import closing

import astropy.units as u
import numpy as np
from astropy import config as _config
from astropy.table import Column

from .._download import Downloader, InvalidReply, Request
from .._optional import import_optional
from ..cutouts import CutoutSet
from ..cutouts._parse import OK, parse_bands
from ..io import CutoutWriter
from ._configured import ConfiguredService
from ._grid import PixelGrid
from ._images import describe_text
from ._positions import is_position, parse_coordinates
from ._sdss_frames import FrameTile, check_frame, decompress
from ._service import _make_catalog, reply_without_request
from .mosaics import cut_tiles
from .registry import get_survey_info

__all__ = ["SDSS", "Conf", "SDSSClass", "conf"]

_INFO = get_survey_info("SDSS")
_NATIVE = _INFO.pixel_scale.value
_LARGEST_RADIUS = 10.0  # arcmin
_BATCH = 512
_FIELD = ("run", "rerun", "camcol", "field")


class Conf(_config.ConfigNamespace):
    """Configuration of `SDSS`."""

    rootname = "astro_morphvae"

    server = _config.ConfigItem(
        "https://skyserver.sdss.org", "Address of the SkyServer, which knows the fields."
    )
    data_server = _config.ConfigItem(
        "https://data.sdss.org/sas", "Address of the archive that holds the frames."
    )
    data_release = _config.ConfigItem(17, "Data release.")
    timeout = _config.ConfigItem(60.0, "Seconds without a byte after which a reply is given up.")
    max_connections = _config.ConfigItem(4, "Number of requests under way at once.")
    requests_per_second = _config.ConfigItem(
        0.0, "Never send more requests than this in a second; 0 for no limit."
    )
    queries_per_second = _config.ConfigItem(
        1.0, "Queries sent to the SkyServer in a second, which allows 60 a minute."
    )
    retries = _config.ConfigItem(4, "How often a request that failed is repeated.")
    backoff = _config.ConfigItem(
        0.5, "Longest delay before the first repetition, in seconds; doubled for each further one."
    )


conf = Conf()


class SDSSClass(ConfiguredService):
    """Cutouts from the frames of SDSS, in the manner of astroquery.

    Use the instance `SDSS`. Servers, data release, timeout, number of connections, requests per
    second, retries and backoff are items of ``astro_morphvae.surveys.sdss.conf``.

    Notes
    -----
    ``astroquery.sdss`` says how the SkyServer is asked and where the frames are. The fields in
    which primary objects lie around a position are asked for, their frames (3 MB each) are fetched
    and kept, and the cutouts taken from them as by `from_mosaics`: a single band is copied; of
    several bands, which the camera saw on grids that differ, the first is copied and the others
    are interpolated to it.

    The inverse variance is that of the electrons and of the dark, from the calibration and sky in
    the frames and the gain of each CCD. Pixels that the survey interpolated over, such as those
    of cosmic rays and saturated stars, are not masked in the frames.

    References
    ----------
    .. [1] Aihara et al. 2011, ApJS 193, 29 (calibrated frames).
    .. [2] https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_morphvae.surveys import SDSS
    >>> coords = SkyCoord([146.9, 180.1], [0.2, 0.2], unit="deg")
    >>> cutouts = SDSS.get_cutouts(coords, bands="gri", size=128)  # doctest: +SKIP
    """

    _conf = conf

    def get_cutouts(
        self,
        coordinates,
        *,
        bands="gri",
        size=128,
        pixel_scale=None,
        ids=None,
        catalog=None,
        output=None,
        overwrite=False,
        data_release=None,
        server=None,
        data_server=None,
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
        bands : str or sequence of str, optional
            Bands out of u, g, r, i, z, in the order wanted.
        size : int or (int, int), optional
            Number of pixels, (ny, nx).
        pixel_scale : `~astropy.units.Quantity` [angle], optional
            Angle per pixel, that of the frames by default (0.396 arcsec). Other pixels are made
            here, by exact areas.
        ids : sequence, optional
            Identifiers of the rows.
        catalog : `~astropy.table.Table`, optional
            More columns, one row a position.
        output : path-like, optional
            CutoutSet file to write the cutouts to, some hundred at a time.
        overwrite : bool, optional
            Whether that file may be replaced.
        data_release : int, optional
            In place of the config item.
        server, data_server : str, optional
            Addresses of the SkyServer and of the archive, in place of the config items.
        cache : bool or path-like, optional
            Whether replies are kept on disk, so that nothing is ever fetched twice, or the folder
            to keep them in. Without, all frames are held in memory, compressed.
        progress : bool, optional
            Whether to show a progress bar, on a terminal.
        get_query_payload : bool, optional
            Return the parameters of the queries for the fields instead of sending them.

        Returns
        -------
        CutoutSet
            In nanomaggies, one row a position in the order given. ``catalog["status"]`` says what
            became of it, as for `LegacySurvey`; ``coverage`` and ``noise_correlation`` are those
            of `from_mosaics`, ``psf_fwhm`` (n, n_band) is the width of the point spread function
            in the field, of which the set has the median.

        Raises
        ------
        ValueError
            If there are no such bands or sizes.
        """
        coordinates = parse_coordinates(coordinates)
        query = _Query(coordinates, bands, size, pixel_scale, data_release, server, data_server)
        if get_query_payload:
            return query.payload
        catalog = _make_catalog(coordinates, ids, catalog)
        statuses, tiles, widths = self._fetch(query, cache, progress)
        catalog["psf_fwhm"] = widths * u.arcsec
        catalog["psf_fwhm"].info.description = "FWHM of the point spread function"
        fwhm = None
        if np.isfinite(widths).any(axis=0).all():
            fwhm = np.nanmedian(widths, axis=0) * u.arcsec

        def cut(rows):
            return cut_tiles(
                tiles,
                coordinates[rows],
                size=size,
                bands=query.bands,
                pixel_scale=query.grid.scale * u.arcsec,
                psf_fwhm=fwhm,
                catalog=catalog[rows],
                meta={"survey": _INFO.layer},
                progress=progress,
                statuses=statuses[rows],
                most_open=4 * len(query.bands),
            )

        if not {band for tile in tiles for band in tile.bands} >= set(query.bands):
            # Then a frame failed for every row that needs one.
            cutouts = _empty(query, catalog, statuses)
            if output is None:
                return cutouts
            cutouts.write(output, overwrite=overwrite)
            return CutoutSet.read(output)
        if output is None:
            return cut(slice(None))
        with CutoutWriter(output, len(coordinates), overwrite=overwrite) as writer:
            for start in range(0, len(coordinates), _BATCH):
                writer.append(cut(slice(start, start + _BATCH)))
        return CutoutSet.read(output)

    def get_images_async(
        self, coordinates, *, cache=True, progress=True, get_query_payload=False, **options
    ):
        """Fetch the frames around each position, without reading them.

        Parameters
        ----------
        coordinates, cache, progress, get_query_payload, **options
            See `get_cutouts`.

        Returns
        -------
        list of Reply
            ``status`` and ``content`` (bytes, decompressed) of every frame, each once; then one
            reply, whose ``request`` is None, for every position without frames.
        """
        coordinates = parse_coordinates(coordinates)
        query = _Query(coordinates, **options)
        if get_query_payload:
            return query.payload
        statuses, fields = self._find_fields(query, cache, progress)
        replies = self._downloader(cache, progress).fetch(
            [request for request, _ in query.frames(fields).values()], check_frame
        )
        for reply in replies:
            if reply.ok:
                reply.content = decompress(reply.content)
        return replies + [reply_without_request(status) for status in statuses if status != OK]

    def _find_fields(self, query, cache, progress):
        """Statuses, and the fields around each position: lists of dict."""
        downloader = Downloader(
            cache=self.cache_location if cache is True else cache,
            max_connections=self.MAX_CONNECTIONS,
            requests_per_second=conf.queries_per_second or None,
            timeout=self.TIMEOUT,
            retries=self.RETRIES,
            backoff=self.BACKOFF,
            progress=progress,
            description="SDSS fields",
        )
        asked = [row for row, entry in enumerate(query.rows) if not isinstance(entry, str)]
        replies = downloader.fetch([query.rows[row] for row in asked], _check_fields)
        statuses = np.array(
            [entry if isinstance(entry, str) else OK for entry in query.rows], dtype=object
        )
        fields = [[] for _ in query.rows]
        for row, reply in zip(asked, replies, strict=True):
            if reply.ok:
                fields[row] = reply.value
                statuses[row] = OK if reply.value else "off-footprint"
            else:
                statuses[row] = reply.reason
        return statuses, fields

    def _fetch(self, query, cache, progress):
        """Statuses of the rows, frames as tiles, and the seeing of each row."""
        statuses, fields = self._find_fields(query, cache, progress)
        frames = query.frames(fields)
        tiles = {}
        stream = self._downloader(cache, progress).stream(
            [request for request, _ in frames.values()], check_frame, window=16
        )
        keys = list(frames)
        with closing(stream):
            for index, reply in stream:
                key = keys[index]
                if reply.ok:
                    tiles[key] = _make_tile(key, reply)
                    continue
                for row in frames[key][1]:
                    statuses[row] = reply.reason
        widths = np.full((len(query.rows), len(query.bands)), np.nan)
        for row, found in enumerate(fields):
            if found:
                widths[row] = np.mean(
                    [[field[f"psfWidth_{band}"] for band in query.bands] for field in found], axis=0
                )
        # In an order that does not depend on which came first.
        return statuses, [tiles[key] for key in keys if key in tiles], widths


class _Query:
    """What is asked of the SkyServer and of the archive."""

    def __init__(
        self,
        coordinates,
        bands="gri",
        size=128,
        pixel_scale=None,
        data_release=None,
        server=None,
        data_server=None,
    ):
        self.bands = parse_bands(bands)
        if not self.bands or not set(self.bands) <= set(_INFO.bands):
            raise ValueError(f"bands: SDSS has {', '.join(_INFO.bands)}, got {self.bands}")
        self.grid = PixelGrid(size, _NATIVE, pixel_scale)
        self._release = conf.data_release if data_release is None else data_release
        if not isinstance(self._release, (int, np.integer)) or self._release < 13:
            raise ValueError(f"data_release: expected 13 or later, got {self._release!r}")
        self._archive = (data_server or conf.data_server).rstrip("/")
        self._sdss = import_optional("astroquery.sdss", needed_for="SDSS.get_cutouts").SDSS
        radius = np.hypot(*self.grid.size) / 2 * self.grid.native / 60 + 0.5
        if radius > _LARGEST_RADIUS:
            raise ValueError(f"size: a cutout of {2 * radius:.0f} arcmin is too large")
        url = (server or conf.server).rstrip("/") + self._sdss.QUERY_URL_SUFFIX_DR_NEW.format(
            dr=self._release
        )
        self.rows = [
            Request(url, self._parameters(ra, dec, radius), f"{ra:.5f} {dec:+.5f}")
            if is_position(ra, dec)
            else "invalid-position"
            for ra, dec in zip(coordinates.ra.deg, coordinates.dec.deg, strict=True)
        ]

    @property
    def payload(self):
        """Parameters of the queries: one list of dict a row."""
        return [[] if isinstance(entry, str) else [dict(entry.params)] for entry in self.rows]

    def _parameters(self, ra, dec, radius):
        columns = [f"f.{name}" for name in _FIELD]
        columns += [f"f.psfWidth_{band}" for band in _INFO.bands]
        sql = (
            f"SELECT DISTINCT {', '.join(columns)} "
            f"FROM dbo.fGetNearbyObjEq({ra:.7f}, {dec:.7f}, {radius:.3f}) AS n "
            "JOIN Field AS f ON f.run = n.run AND f.rerun = n.rerun "
            "AND f.camcol = n.camcol AND f.field = n.field"
        )
        return self._sdss.query_sql(sql, get_query_payload=True, data_release=self._release)

    def frames(self, fields):
        """Request and rows of every frame, by run, rerun, camera column, field and band."""
        frames = {}
        for row, found in enumerate(fields):
            for field in found:
                for band in self.bands:
                    key = (*(field[name] for name in _FIELD), band)
                    if key not in frames:
                        frames[key] = Request(self._address(key)), []
                    frames[key][1].append(row)
        return frames

    def _address(self, key):
        run, rerun, camcol, field, band = key
        # Where astroquery's get_images takes them from.
        instrument = "eboss" if self._release <= 17 else "prior-surveys/sdss4-dr17-eboss"
        return self._sdss.IMAGING_URL_SUFFIX.format(
            base=self._archive,
            dr=self._release,
            instrument=instrument,
            run=run,
            rerun=rerun,
            camcol=camcol,
            field=field,
            band=band,
        )


def _make_tile(key, reply):
    run, _, camcol, field, band = key
    return FrameTile(
        reply.content if reply.path is None else reply.path,
        *reply.value,
        run=run,
        camcol=camcol,
        band=band,
        name=f"frame-{band}-{run:06d}-{camcol}-{field:04d}",
    )


def _check_fields(content, request):
    """Make sure that a reply is a table of fields; return its rows as dict."""
    text = content.decode("utf-8", "replace")
    lines = [line for line in text.strip().splitlines() if not line.startswith("#")]
    names = [name.strip() for name in lines[0].split(",")] if lines else []
    if not set(_FIELD) <= set(names):
        status = "server-error" if "quer" in text.lower() else "invalid-file"
        raise InvalidReply(status, describe_text(content), retry=True)
    rows = []
    for line in lines[1:]:
        try:
            values = dict(zip(names, line.split(","), strict=True))
            row = {name: int(values[name]) for name in _FIELD}
            for band in _INFO.bands:
                width = float(values[f"psfWidth_{band}"])
                row[f"psfWidth_{band}"] = width if width > 0 else np.nan
        except (KeyError, ValueError):
            raise InvalidReply("invalid-file", f"fields with {line[:80]!r}", retry=True) from None
        rows.append(row)
    return rows


_check_fields.version = "sdss-fields-1"


def _empty(query, catalog, statuses):
    """Set in which every row is bad."""
    shape = (len(statuses), len(query.bands), *query.grid.wanted)
    catalog["status"] = Column(statuses.astype(str))
    catalog["coverage"] = np.zeros(len(statuses))
    catalog["noise_correlation"] = np.ones(shape[:2])
    return CutoutSet(
        np.full(shape, np.nan, dtype=np.float32),
        unit=u.nmgy,
        bands=query.bands,
        pixel_scale=query.grid.scale * u.arcsec,
        catalog=catalog,
        meta={"survey": _INFO.layer},
    )


SDSS = SDSSClass()
