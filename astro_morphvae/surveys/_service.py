"""What every imaging service has in common: positions in, one row of a `CutoutSet` for each."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import QTable

from .._download import OK, Downloader, Reply
from .._optional import import_optional
from ..cutouts import CutoutSet
from ..cutouts._assemble import Assembler, Layout
from ..cutouts._parse import set_positions
from ..cutouts._records import Record
from ..io import CutoutWriter
from ._positions import parse_coordinates

__all__ = [
    "CutoutQuery",
    "CutoutService",
    "reply_without_request",
]

BaseQuery = import_optional("astroquery.query", needed_for="Fetching survey images").BaseQuery

# Replies ahead of the one that is put in its place, and rows written to a file at once.
_BYTES_AHEAD = 16 * 2**20
_MOST_ROWS = 1024
# Positions after which an HTTP error for each of them is that of a server which is out of order.
_OUTAGE = 20


@dataclass(frozen=True, eq=False)
class CutoutQuery:
    """What a service asks for a list of positions, and how it reads the replies.

    Parameters
    ----------
    rows : list
        One entry a position: a sequence of `Request`, all of which are needed for the row; or a
        str, the status of a row for which nothing is asked.
    read : callable
        ``read(replies, row)`` makes a `~astro_morphvae.cutouts._records.Record` of the replies of
        a row, all of them ok, whose ``value`` is what ``check`` returned. Size, bands, unit and
        presence of an inverse variance have to be those of ``layout``.
    layout : `~astro_morphvae.cutouts._assemble.Layout`
        Size (ny, nx), bands, unit, and whether there is an inverse variance.
    pixel_scale : float
        Arcsec.
    check : callable, optional
        ``check(content, request)``, see `Downloader.fetch`.
    http_errors : dict of int to str, optional
        Status to give where an HTTP error of that code persists; not believed where it came for
        each of 20 positions or more, and no reply shows that the server works.
    meta : dict, optional
        What describes the set.
    psf_fwhm : `~astropy.units.Quantity` [angle], optional
        FWHM of the point spread function, one value or one a band.
    """

    rows: list
    read: Callable
    layout: Layout
    pixel_scale: float
    check: Callable | None = None
    http_errors: dict = field(default_factory=dict)
    meta: dict = field(default_factory=dict)
    psf_fwhm: u.Quantity | None = None

    @property
    def payload(self):
        """Parameters of the requests: one list of dict a row."""
        return [
            [] if isinstance(entry, str) else [dict(request.params) for request in entry]
            for entry in self.rows
        ]


class CutoutService(BaseQuery):
    """Base class of services that return cutouts.

    A subclass defines ``_make_query(coordinates, **options)``, which returns a `CutoutQuery` for
    a one-dimensional ICRS `~astropy.coordinates.SkyCoord`. It may set how the server is to be
    treated in the class attributes below, as numbers or as properties that read its config items.
    """

    #: Seconds without a byte after which a reply is given up.
    TIMEOUT = 60.0
    #: Number of requests under way at once.
    MAX_CONNECTIONS = 8
    #: Never send more requests than this in a second; None for no limit.
    REQUESTS_PER_SECOND = None
    #: How often a request that failed is repeated.
    RETRIES = 4
    #: Longest delay before the first repetition, in seconds.
    BACKOFF = 0.5

    def _make_query(self, coordinates, **options):
        raise NotImplementedError

    def get_cutouts(
        self,
        coordinates,
        *,
        ids=None,
        catalog=None,
        output=None,
        overwrite=False,
        cache=True,
        progress=True,
        get_query_payload=False,
        **options,
    ):
        """Fetch a cutout for each position.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord`, `~astropy.table.Table` or str
            Centres, in any frame; of a table the columns ``ra`` and ``dec``, ICRS, in degrees
            where they have no unit.
        ids : sequence, optional
            Identifiers of the rows.
        catalog : `~astropy.table.Table`, optional
            More columns, one row a position.
        output : path-like, optional
            CutoutSet file to write the cutouts to as they come, so that memory holds few of them.
        overwrite : bool, optional
            Whether that file may be replaced.
        cache : bool or path-like, optional
            Whether replies are kept on disk, so that no cutout is ever fetched twice, or the folder
            to keep them in.
        progress : bool, optional
            Whether to show a progress bar, on a terminal.
        get_query_payload : bool, optional
            Return the parameters of the requests instead of sending them.
        **options
            What the service takes.

        Returns
        -------
        CutoutSet
            One row a position, in the order given, whatever became of it: see
            ``catalog["status"]``. Memory-mapped if ``output`` was given. For
            ``get_query_payload``, a list of dict for each position instead.
        """
        coordinates = parse_coordinates(coordinates)
        query = self._make_query(coordinates, **options)
        if get_query_payload:
            return query.payload
        catalog = _make_catalog(coordinates, ids, catalog)
        downloader = self._downloader(cache, progress)
        if output is None:
            parts = _fill(query, downloader, catalog)
            return _make_set(parts, query)
        output = Path(output)
        objects = [name for name in catalog.colnames if getattr(catalog[name], "dtype", "") == "O"]
        if objects:
            raise TypeError(f"catalog: {objects[0]!r} holds Python objects, which no file can keep")
        with CutoutWriter(output, len(coordinates), overwrite=overwrite) as writer:
            with closing(_batches(query, downloader, catalog)) as batches:
                for cutouts in batches:
                    writer.append(cutouts)
                    del cutouts  # before the next ones are put together
        return CutoutSet.read(output)

    def get_images_async(
        self, coordinates, *, cache=True, progress=True, get_query_payload=False, **options
    ):
        """Fetch the files for each position, without reading them.

        Parameters
        ----------
        coordinates, cache, progress, get_query_payload, **options
            See `get_cutouts`.

        Returns
        -------
        list of Reply
            ``status``, ``content`` (bytes) and ``path`` of each file, in the order of the
            positions; a file that is not to be had is a reply with another status than ``"ok"``.
            A position for which nothing is asked, such as NaN, has one reply whose ``request`` is
            None.
        """
        query = self._make_query(parse_coordinates(coordinates), **options)
        if get_query_payload:
            return query.payload
        requests = [
            request for entry in query.rows if not isinstance(entry, str) for request in entry
        ]
        fetched = self._downloader(cache, progress).fetch(
            requests, query.check, http_errors=query.http_errors
        )
        if _is_outage([reply.reason for reply in fetched], query):
            for reply in fetched:
                reply.status, _, reply.detail = _as_outage(reply.reason, query).partition(": ")
        fetched = iter(fetched)
        replies = []
        for entry in query.rows:
            if isinstance(entry, str):
                replies.append(reply_without_request(entry))
            else:
                replies.extend(next(fetched) for _ in entry)
        return replies

    def get_images(
        self, coordinates, *, cache=True, progress=True, get_query_payload=False, **options
    ):
        """Fetch the FITS files for each position.

        Parameters
        ----------
        coordinates, cache, progress, get_query_payload, **options
            See `get_cutouts`.

        Returns
        -------
        list of `~astropy.io.fits.HDUList`
            In the order of the positions.

        Raises
        ------
        astroquery.exceptions.RemoteServiceError
            If a file is not to be had; `get_cutouts` and `get_images_async` give the others.
        """
        from io import BytesIO

        from astropy.io import fits

        replies = self.get_images_async(
            coordinates,
            cache=cache,
            progress=progress,
            get_query_payload=get_query_payload,
            **options,
        )
        if get_query_payload:
            return replies
        self._raise_for_status(replies)
        return [fits.open(BytesIO(reply.content)) for reply in replies]

    @staticmethod
    def _raise_for_status(replies):
        for reply in replies:
            if not reply.ok:
                exceptions = import_optional("astroquery.exceptions", needed_for="get_images")
                what = "a position" if reply.request is None else reply.request.full_url
                raise exceptions.RemoteServiceError(f"{what}: {reply.reason}")

    def clear_cache(self):
        """Remove every reply that this service keeps on disk."""
        self._downloader(True, False).cache.clear()

    def _downloader(self, cache, progress):
        return Downloader(
            cache=self.cache_location if cache is True else cache,
            max_connections=self.MAX_CONNECTIONS,
            requests_per_second=self.REQUESTS_PER_SECOND,
            timeout=self.TIMEOUT,
            retries=self.RETRIES,
            backoff=self.BACKOFF,
            progress=progress,
            description=self.name,
        )


def _make_catalog(coordinates, ids, catalog):
    n = len(coordinates)
    catalog = QTable() if catalog is None else QTable(catalog, copy=True)
    if catalog.colnames and len(catalog) != n:
        raise ValueError(f"catalog: {len(catalog)} rows for {n} positions")
    if ids is not None:
        if len(ids) != n:
            raise ValueError(f"ids: {len(ids)} identifiers for {n} positions")
        catalog["id"] = np.asarray(ids)
    elif "id" not in catalog.colnames:
        catalog["id"] = np.arange(n)
    if "status" in catalog.colnames:  # of an earlier run, say
        catalog.remove_column("status")
    set_positions(catalog, coordinates.ra.deg, coordinates.dec.deg)
    return catalog


def _make_set(parts, query):
    parts["pixel_scale"] = query.pixel_scale * u.arcsec
    return CutoutSet._trusted(**parts, psf_fwhm=query.psf_fwhm, meta=query.meta)


def _fill(query, downloader, catalog):
    """All cutouts in memory, each put in its place as it comes."""
    assembler = Assembler(len(query.rows), bands=query.layout.bands, layout=query.layout)
    with closing(_believed(query, downloader, ordered=False)) as records:
        for row, record in records:
            assembler.put(row, record)
    return assembler.finish(catalog=catalog)


def _batches(query, downloader, catalog):
    """Yield the cutouts in their order, some rows at a time."""
    n = len(query.rows)
    step = max(1, min(_rows_ahead(query.layout), _MOST_ROWS, n))
    with closing(_believed(query, downloader, ordered=True)) as records:
        for start in range(0, n, step):
            yield _batch(query, records, catalog[start : start + step], start)


def _batch(query, records, catalog, start):
    n = len(catalog)
    assembler = Assembler(n, bands=query.layout.bands, layout=query.layout, first_row=start)
    for _ in range(n):
        row, record = next(records)
        assembler.put(row - start, record)
    return _make_set(assembler.finish(catalog=catalog), query)


def _rows_ahead(layout):
    pixels = len(layout.bands) * layout.size[0] * layout.size[1]
    return max(1, _BYTES_AHEAD // (4 * pixels * (2 if layout.has_ivar else 1)))


def _believed(query, downloader, ordered):
    """Yield as `_records` does; failures are held back until a reply shows that the server works.

    Where none does, and there are many, HTTP errors are not taken for what they usually mean.
    """
    with closing(_records(query, downloader, ordered)) as records:
        held = []
        for row, record in records:
            held.append((row, record))
            if _shows_service(record.status, query):
                yield from held
                yield from records
                return
        if _is_outage([record.status for _, record in held], query):
            for _, record in held:
                record.status = _as_outage(record.status, query)
        yield from held


def _is_http_error(status, query):
    return any(
        status.startswith(f"{word}: HTTP {code} ") for code, word in query.http_errors.items()
    )


def _shows_service(status, query):
    """Whether a status is that of a reply which only a server that works gives."""
    words = OK, "off-footprint", "incomplete-bands"
    return status.partition(":")[0] in words and not _is_http_error(status, query)


def _is_outage(statuses, query):
    if any(_shows_service(status, query) for status in statuses):
        return False
    return sum(_is_http_error(status, query) for status in statuses) >= _OUTAGE


def _as_outage(status, query):
    """Turn the status of a position into that of a server out of order."""
    if not _is_http_error(status, query):
        return status
    return f"server-error: {status.partition(': ')[2]}, and no other position was answered"


def _records(query, downloader, ordered):
    """Yield row and record of every position, once all its requests are answered."""
    requests, rows_of = [], []
    missing = {}
    for row, entry in enumerate(query.rows):
        if not isinstance(entry, str):
            missing[row] = len(entry)
            requests.extend(entry)
            rows_of.extend((row, place) for place in range(len(entry)))
    following = 0
    gathered = {}
    stream = downloader.stream(
        requests,
        query.check,
        http_errors=query.http_errors,
        ordered=ordered,
        window=_rows_ahead(query.layout),
    )
    with closing(stream):
        for index, reply in stream:
            row, place = rows_of[index]
            gathered.setdefault(row, {})[place] = reply
            missing[row] -= 1
            if missing[row]:
                continue
            while ordered and following < row:
                yield following, Record(status=query.rows[following])
                following += 1
            following = row + 1
            found = gathered.pop(row)
            yield row, _record(query, [found[place] for place in range(len(found))], row)
    for row, entry in enumerate(query.rows):
        if isinstance(entry, str) and (not ordered or row >= following):
            yield row, Record(status=entry)


def _record(query, replies, row):
    bad = next((reply for reply in replies if reply.status != OK), None)
    return query.read(replies, row) if bad is None else Record(status=bad.reason)


def reply_without_request(status):
    """Make the reply of a position for which nothing is asked.

    Parameters
    ----------
    status : str
        Status of its row.

    Returns
    -------
    Reply
    """
    word, _, detail = status.partition(": ")
    return Reply(None, word, detail=detail)
