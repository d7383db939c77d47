"""Cutouts of the Pan-STARRS1 3π survey: the stacked images of g, r, i, z and y."""

import re

import numpy as np
from astropy import config as _config
from astropy.table import QTable

from .._download import InvalidReply, Request
from ..cutouts._assemble import Layout
from ..cutouts._parse import parse_bands
from ..cutouts._records import Record
from ..units import NANOMAGGY
from ._configured import ConfiguredService
from ._grid import PixelGrid
from ._images import check_place, describe_text, read_image
from ._positions import is_position, parse_coordinates
from ._service import CutoutQuery
from .registry import get_survey_info

__all__ = ["BAD_MASK_BITS", "Conf", "PanSTARRS", "PanSTARRSClass", "conf"]

#: Bits of a mask image that make a pixel bad: those of detector, flat, dark, blank, charge
#: transfer, saturation, low signal, cosmic ray and bad convolution (``MASK.VALUE`` of the headers).
BAD_MASK_BITS = 8575

_INFO = get_survey_info("PanSTARRS")
_NATIVE = _INFO.pixel_scale.value
_MAX_SIZE = 6000  # a skycell has about 6240 pixels on a side
# Zero point of a stack for an exposure of one second, and that of nanomaggies.
_NANOMAGGIES_PER_COUNT = 10 ** (-0.4 * (25.0 - 22.5))
_LIST, _CUTOUT = "/cgi-bin/ps1filenames.py", "/cgi-bin/fitscut.cgi"
_COLUMNS = ("projcell", "subcell", "ra", "dec", "filter", "type", "filename")
_FILE_NAME = re.compile(r"/[\w./-]+\.fits")


class Conf(_config.ConfigNamespace):
    """Configuration of `PanSTARRS`."""

    rootname = "astro_morphvae"

    server = _config.ConfigItem(
        "https://ps1images.stsci.edu", "Address of the Pan-STARRS image services."
    )
    timeout = _config.ConfigItem(60.0, "Seconds without a byte after which a reply is given up.")
    max_connections = _config.ConfigItem(6, "Number of requests under way at once.")
    requests_per_second = _config.ConfigItem(
        0.0, "Never send more requests than this in a second; 0 for no limit."
    )
    retries = _config.ConfigItem(4, "How often a request that failed is repeated.")
    backoff = _config.ConfigItem(
        0.5, "Longest delay before the first repetition, in seconds; doubled for each further one."
    )


conf = Conf()


class PanSTARRSClass(ConfiguredService):
    """Cutout service of the Pan-STARRS1 stacks, in the manner of astroquery.

    Use the instance `PanSTARRS`. Server, timeout, number of connections, requests per second,
    retries and backoff are items of ``astro_morphvae.surveys.panstarrs.conf``.

    Notes
    -----
    The files that hold a position are asked for first, then the part of each that is needed. The
    flux of a pixel is in counts of which one, in an exposure of one second, is AB magnitude 25.
    Images with ``BSOFTEN`` in the header hold inverse hyperbolic sines of the counts, which are
    undone. Weight images are variances; the resampling of the exposures correlates the noise of
    neighbouring pixels, which they do not say.

    A cutout comes from one skycell. Skycells overlap by an arcminute, so a larger cutout can have
    masked pixels at its side.

    References
    ----------
    .. [1] Waters et al. 2020, ApJS 251, 4 (stacks, variances, masks).
    .. [2] https://outerspace.stsci.edu/display/PANSTARRS/PS1+Stack+images (scaling of the values).
    .. [3] https://outerspace.stsci.edu/display/PANSTARRS/PS1+Image+Cutout+Service (services).

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astro_morphvae.surveys import PanSTARRS
    >>> coords = SkyCoord([36.5, 180.1], [-4.6, 0.2], unit="deg")
    >>> cutouts = PanSTARRS.get_cutouts(coords, bands="gri", size=128)  # doctest: +SKIP
    """

    _conf = conf

    def get_cutouts(
        self,
        coordinates,
        *,
        bands="grizy",
        size=256,
        pixel_scale=None,
        uncertainty=True,
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
        bands : str or sequence of str, optional
            Bands out of g, r, i, z, y, in the order wanted.
        size : int or (int, int), optional
            Number of pixels, (ny, nx).
        pixel_scale : `~astropy.units.Quantity` [angle], optional
            Angle per pixel, 0.25 arcsec by default. Other pixels are made here, by exact areas.
        uncertainty : bool, optional
            Whether to fetch the variances.
        maskbits : int or False, optional
            Bits of the mask images that make a pixel bad; `BAD_MASK_BITS` by default. False does
            not fetch them.
        ids : sequence, optional
            Identifiers of the rows.
        catalog : `~astropy.table.Table`, optional
            More columns, one row a position.
        output : path-like, optional
            CutoutSet file to write the cutouts to as they come, so that memory holds few of them.
        overwrite : bool, optional
            Whether that file may be replaced.
        server : str, optional
            Address of the services, in place of the config item.
        cache : bool or path-like, optional
            Whether replies are kept on disk, so that nothing is ever fetched twice, or the folder
            to keep them in.
        progress : bool, optional
            Whether to show a progress bar, on a terminal.
        get_query_payload : bool, optional
            Return the parameters of the requests for lists of files instead of sending them.

        Returns
        -------
        CutoutSet
            In nanomaggies, one row a position in the order given; ``catalog["status"]`` says what
            became of it, as for `LegacySurvey`. Where ``pixel_scale`` correlates the noise of
            pixels, ``catalog["noise_correlation"]`` (n, n_band) is the variance of flux summed
            over a large area divided by the sum of the variances.

        Raises
        ------
        ValueError
            If there are no such bands or sizes.
        """
        coordinates = parse_coordinates(coordinates)
        options = {
            "bands": bands,
            "size": size,
            "pixel_scale": pixel_scale,
            "uncertainty": uncertainty,
            "maskbits": maskbits,
            "server": server,
        }
        if not get_query_payload:
            options["files"] = self._find_files(coordinates, options, cache, progress)
            correlation = PixelGrid(size, _NATIVE, pixel_scale).noise_correlation()
            if correlation != 1 and (catalog is None or len(catalog) == len(coordinates)):
                catalog = QTable() if catalog is None else QTable(catalog, copy=True)
                shape = len(coordinates), len(parse_bands(bands))
                catalog["noise_correlation"] = np.full(shape, correlation)
        return super().get_cutouts(
            coordinates,
            ids=ids,
            catalog=catalog,
            output=output,
            overwrite=overwrite,
            cache=cache,
            progress=progress,
            get_query_payload=get_query_payload,
            **options,
        )

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
            ``status``, ``content`` (bytes) and ``path`` of each file: for each position and each
            band the image, its variance and its mask. A position without files has one reply,
            whose ``request`` is None.
        """
        coordinates = parse_coordinates(coordinates)
        if not get_query_payload:
            options["files"] = self._find_files(coordinates, options, cache, progress)
        return super().get_images_async(
            coordinates,
            cache=cache,
            progress=progress,
            get_query_payload=get_query_payload,
            **options,
        )

    def _find_files(self, coordinates, options, cache, progress):
        """Names of the files that each position needs, or its status."""
        query = self._make_query(coordinates, **options)
        asked = [row for row, entry in enumerate(query.rows) if not isinstance(entry, str)]
        replies = self._downloader(cache, progress).fetch(
            [query.rows[row][0] for row in asked], query.check
        )
        files = list(query.rows)
        bands = query.layout.bands
        kinds = _parse_kinds(options.get("uncertainty", True), options.get("maskbits"))
        for row, reply in zip(asked, replies, strict=True):
            files[row] = reply.reason
            if reply.ok:
                files[row] = _choose(reply.value, coordinates[row], bands, kinds)
        return files

    def _make_query(
        self,
        coordinates,
        *,
        bands="grizy",
        size=256,
        pixel_scale=None,
        uncertainty=True,
        maskbits=None,
        server=None,
        files=None,
    ):
        bands = parse_bands(bands)
        if not bands or not set(bands) <= set(_INFO.bands):
            raise ValueError(f"bands: Pan-STARRS has {', '.join(_INFO.bands)}, got {bands}")
        grid = PixelGrid(size, _NATIVE, pixel_scale)
        if max(grid.size) > _MAX_SIZE:
            raise ValueError(
                f"size: at most {_MAX_SIZE} pixels of 0.25 arcsec, got {max(grid.size)}"
            )
        kinds = _parse_kinds(uncertainty, maskbits)
        server = (server or conf.server).rstrip("/")
        if files is None:
            files = [None] * len(coordinates)
        rows = []
        for ra, dec, names in zip(coordinates.ra.deg, coordinates.dec.deg, files, strict=True):
            if not is_position(ra, dec):
                rows.append("invalid-position")
                continue
            where = {"ra": f"{ra:.7f}", "dec": f"{dec:.7f}"}
            label = f"{ra:.5f} {dec:+.5f}"
            if isinstance(names, str):
                rows.append(names)
            elif names is None:
                # All that there is, so that the cache knows the list for any bands.
                params = {**where, "filters": "grizy", "type": "stack,stack.wt,stack.mask"}
                rows.append((Request(server + _LIST, params, label),))
            else:
                params = {**where, "size": str(max(grid.size)), "format": "fits"}
                rows.append(
                    [Request(server + _CUTOUT, {**params, "red": name}, label) for name in names]
                )
        listing = all(names is None for names in files)
        return CutoutQuery(
            rows=rows,
            check=_check_list if listing else _check_image,
            read=_Reader(bands, kinds, grid, BAD_MASK_BITS if maskbits is None else maskbits),
            layout=Layout(grid.wanted, bands, NANOMAGGY, bool(uncertainty)),
            pixel_scale=grid.scale,
            meta={"survey": _INFO.layer},
            psf_fwhm=_INFO.psf_fwhm_of(bands),
        )


def _parse_kinds(uncertainty, maskbits):
    """Kinds of images that are needed of each band."""
    if maskbits is True or not isinstance(maskbits, (int, np.integer, type(None))):
        raise TypeError(f"maskbits: expected an integer of bits, False or None, got {maskbits!r}")
    return (
        "stack",
        *(("stack.wt",) if uncertainty else ()),
        *(("stack.mask",) if maskbits is not False else ()),
    )


def _check_list(content, request):
    """Make sure that a reply is a list of files; return its rows as dict."""
    lines = content.decode("utf-8", "replace").strip().splitlines()
    names = lines[0].split() if lines else []
    if not set(_COLUMNS) <= set(names):
        raise InvalidReply("invalid-file", describe_text(content), retry=True)
    rows = []
    for line in lines[1:]:
        values = line.split()
        row = dict(zip(names, values, strict=False))
        if len(values) != len(names) or not _FILE_NAME.fullmatch(row["filename"]):
            raise InvalidReply("invalid-file", f"a list of files with {line[:80]!r}", retry=True)
        rows.append(row)
    return rows


_check_list.version = "panstarrs-list-1"


def _choose(rows, position, bands, kinds):
    """Files of the skycell that serves a position best, or the status where some are missing."""
    cells = {}
    for row in rows:
        cell = cells.setdefault((row["projcell"], row["subcell"]), {})
        cell.setdefault((row["filter"], row["type"]), row)
    if not cells:
        return "off-footprint"

    def rank(cell):
        first = next(iter(cell.values()))
        east = (float(first["ra"]) - position.ra.deg + 180) % 360 - 180
        east *= np.cos(position.dec.rad)
        distance = np.hypot(east, float(first["dec"]) - position.dec.deg)
        return len(_missing(cell, bands, kinds)), distance

    cell = min(cells.values(), key=rank)
    missing = _missing(cell, bands, kinds)
    if len(missing) == len(bands) and not any((band, "stack") in cell for band in bands):
        return "off-footprint"
    if missing:
        return f"incomplete-bands: {', '.join(missing)}"
    return [cell[band, kind]["filename"] for band in bands for kind in kinds]


def _missing(cell, bands, kinds):
    return [band for band in bands if any((band, kind) not in cell for kind in kinds)]


def _check_image(content, request):
    """Make sure that a reply is the image that was asked for; return it."""
    params = dict(request.params)
    pixels = int(params["size"])
    image = read_image(content, (pixels, pixels))
    # The service cuts at whole pixels, so that the centre lies a little off.
    check_place(image, float(params["ra"]), float(params["dec"]), _NATIVE, 3.0)
    header = image.header
    if "BSOFTEN" in header:
        offset, softening = header.get("BOFFSET"), header["BSOFTEN"]
        if not all(isinstance(value, (int, float)) for value in (offset, softening)):
            raise InvalidReply("invalid-file", f"BOFFSET {offset!r}, BSOFTEN {softening!r}")
        # What the service fills in outside the skycell is 0 before, and has to stay so.
        image.data = np.where(image.data == 0, 0.0, undo_asinh(image.data, offset, softening))
    return image


# Part of the key of a cached reply: a check that got stricter does not meet older files.
_check_image.version = "panstarrs-2"


def undo_asinh(values, offset, softening):
    """Turn the inverse hyperbolic sines that a stack holds back into counts.

    Parameters
    ----------
    values : array
        Pixels as the file holds them.
    offset, softening : float
        ``BOFFSET`` and ``BSOFTEN`` of the header.

    Returns
    -------
    array of float64
        ``offset + softening (10**(0.4 v) - 10**(-0.4 v))``.

    References
    ----------
    https://outerspace.stsci.edu/display/PANSTARRS/PS1+Stack+images, section on flux scaling.
    """
    exponent = np.asarray(values, dtype=np.float64) * (0.4 * np.log(10.0))
    with np.errstate(over="ignore"):
        return offset + 2.0 * softening * np.sinh(exponent)


class _Reader:
    """Make records of checked images: for each band the stack, its variance, its mask."""

    def __init__(self, bands, kinds, grid, maskbits):
        self._bands = bands
        self._kinds = kinds
        self._grid = grid
        self._maskbits = int(maskbits)

    def __call__(self, replies, row):
        step = len(self._kinds)
        data, ivar, bad, images = [], [], [], []
        for place, band in enumerate(self._bands):
            parts = dict(
                zip(self._kinds, (reply.value for reply in replies[place * step :]), strict=False)
            )
            image = parts["stack"]
            images.extend(parts.values())
            exposure = image.header.get("EXPTIME")
            if not isinstance(exposure, (int, float)) or not exposure > 0:
                return Record(status=f"invalid-file: exposure time {exposure!r} in {band}")
            factor = _NANOMAGGIES_PER_COUNT / exposure
            flux = np.asarray(image.data, dtype=np.float64) * factor
            # Outside the skycell the service fills with 0; no pixel of a stack is 0 otherwise.
            wrong = ~np.isfinite(flux) | (flux == 0)
            if "stack.wt" in parts:
                variance = np.asarray(parts["stack.wt"].data, dtype=np.float64) * factor**2
                with np.errstate(divide="ignore", invalid="ignore"):
                    wrong |= ~(np.isfinite(variance) & (variance > 0))
                    ivar.append(np.where(wrong, 0.0, 1.0 / variance))
            if "stack.mask" in parts:
                # A mask of 0 comes as NaN.
                bits = np.nan_to_num(parts["stack.mask"].data, nan=0.0).astype(np.int64)
                wrong |= (bits & self._maskbits) != 0
            data.append(np.where(wrong, 0.0, flux))
            bad.append(wrong)
        blank = [band for band, image in zip(self._bands, bad, strict=True) if image.all()]
        if blank:
            some = len(blank) < len(self._bands)
            return Record(
                status=f"incomplete-bands: {', '.join(blank)}" if some else "off-footprint"
            )
        if not _same_grid(images):
            return Record(status="invalid-file: the images are on different grids")
        bad = np.stack(bad)
        record = Record(
            np.stack(data),
            ivar=np.stack(ivar) if ivar else None,
            mask=bad if bad.any() else None,
            unit=NANOMAGGY,
            bands=self._bands,
            wcs=images[0].wcs,
        )
        return self._grid.finish(record)


def _same_grid(images):
    first = images[0].wcs
    step = _NATIVE / 3600
    return all(
        np.allclose(wcs.wcs.crval, first.wcs.crval, rtol=0, atol=1e-9)
        and np.allclose(wcs.wcs.crpix, first.wcs.crpix, rtol=0, atol=0.01)
        and np.allclose(wcs.pixel_scale_matrix, first.pixel_scale_matrix, rtol=0, atol=1e-5 * step)
        for wcs in (image.wcs for image in images[1:])
    )


PanSTARRS = PanSTARRSClass()
