"""Lists of cutout files: all at once into a set, or batch by batch for lists of any length."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sys import getrefcount

import astropy.units as u
import numpy as np
from tqdm import tqdm

from ..cutouts import CutoutSet
from ..cutouts._assemble import Assembler
from ..cutouts._parse import parse_angle, parse_bands, parse_size
from ..units import flux_scale
from ._images import folder_of_images, read_record

__all__ = ["iter_file_batches", "read_files"]

# A progress bar appears for lists that take more than a moment.
_LONG_LIST = 500


def read_files(
    paths,
    *,
    bands=None,
    unit=None,
    pixel_scale=None,
    resize=None,
    native_pixel_scale=None,
    uncertainty=True,
    maskbits=None,
    psf_fwhm=None,
    ids=None,
    catalog=None,
    meta=None,
    n_workers=None,
    progress=None,
):
    """Read cutouts, one a file, into a set.

    Parameters
    ----------
    paths : path-like, or iterable of (path-like or None)
        FITS images of (y, x) or (band, y, x), gzipped or compressed ones too; PNG or JPEG colour
        stamps. One folder stands for the image files in it, sorted by name.
    bands : str or sequence of str, optional
        Bands wanted, in this order; they name the bands of files that do not say. Taken from
        ``BANDS``, ``BAND0`` ..., ``FILTER`` and the like where it is not given.
    unit : unit-like or `~astropy.units.Quantity`, optional
        Unit in place of ``BUNIT``. A quantity is the flux of one data unit: ``0.0275 * u.nJy``,
        or the zero point ``26.2 * u.ABmag``.
    pixel_scale : `~astropy.units.Quantity` [angle], optional
        Resample every cutout that has another pixel scale to this one, conserving flux. It says
        what the pixel scale is where a file has no WCS.
    resize : int or (int, int), optional
        Number of pixels of each cutout, (ny, nx). Alone, it keeps the field of view and changes
        the pixel scale; with ``pixel_scale`` it crops or pads (masked) about the centre.
    native_pixel_scale : `~astropy.units.Quantity` [angle], optional
        Pixel scale for which the values hold, where a file has another: the Legacy Survey cutout
        service interpolates to the pixel scale asked for but keeps values per native pixel
        (0.262 arcsec). Values are multiplied by the ratio of the pixel areas.
    uncertainty : bool, optional
        Whether to read the extension that holds inverse variance, variance or sigma.
    maskbits : int, optional
        Bits of a Legacy Survey ``MASKBITS`` extension that make a pixel bad in every band. Where
        not given, the bits for saturated and for fully masked pixels of each band.
    psf_fwhm : `~astropy.units.Quantity` [angle], optional
        FWHM of the point spread function, one value or one a band.
    ids : sequence, optional
        Identifiers of the rows; the file names without suffix where not given.
    catalog : `~astropy.table.Table`, optional
        More columns, one row a file.
    meta : dict, optional
        Anything that describes the set.
    n_workers : int, optional
        Number of threads that read; as many as there are processors, at most 8, by default.
    progress : bool, optional
        Whether to show a progress bar; by default for long lists, on a terminal.

    Returns
    -------
    CutoutSet
        One row a file, in the order given; in nanomaggies where the unit converts to flux. A file
        that is missing, truncated, unreadable or blank is a row of NaN with a ``status``.

    Raises
    ------
    `~astro_morphvae.exceptions.CutoutMismatchError`
        If sizes, pixel scales, bands, units or the presence of uncertainties differ between files.
    ValueError
        If no file can be read at all, unless ``bands`` and ``resize`` say what to return.

    Notes
    -----
    An image extension is the inverse variance, the bit mask or the image as its ``IMAGETYP``
    (``invvar``, ``maskbits``) or its ``EXTNAME`` (``IVAR``, ``VAR``, ``ERR``, ``RMS``, ``MASK``,
    ``UNCERT`` ...) says. A Legacy Survey cutout has no ``BUNIT`` and is in nanomaggies; where it
    brings no inverse variance, its pixels that are exactly 0 were observed by no exposure and are
    masked. Colour stamps are numbers in [0, 1] without unit, bands red, green, blue, with the
    first row of the array at the bottom of the picture, as in FITS.
    """
    paths = _parse_paths(paths)
    options = _Options(bands, unit, pixel_scale, resize, native_pixel_scale, uncertainty, maskbits)
    assembler = Assembler(len(paths), **options.for_assembler)
    if progress is None:
        hidden = None if len(paths) >= _LONG_LIST else True  # None: shown on a terminal
    else:
        hidden = not progress

    def read(row):
        assembler.put(row, options.read(paths[row]))

    with (
        ThreadPoolExecutor(_number_of_workers(n_workers)) as pool,
        tqdm(total=len(paths), desc="Reading cutouts", unit="file", disable=hidden) as bar,
    ):
        try:
            for _ in pool.map(read, range(len(paths))):
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if ids is None and (catalog is None or "id" not in _names(catalog)):
        ids = _ids_of(paths)
    parts = assembler.finish(ids=ids, catalog=catalog)
    return CutoutSet._trusted(**parts, psf_fwhm=psf_fwhm, meta=meta)


def iter_file_batches(
    paths,
    batch_size=64,
    *,
    bands=None,
    unit=None,
    pixel_scale=None,
    resize=None,
    native_pixel_scale=None,
    uncertainty=True,
    maskbits=None,
    ids=None,
    n_workers=None,
    prefetch=2,
):
    """Read a list of cutout files batch by batch, ahead of the one who takes them.

    Memory holds ``prefetch + 1`` batches, however long the list.

    Parameters
    ----------
    paths : path-like, or iterable of (path-like or None)
        As for `read_files`.
    batch_size : int, optional
        Number of cutouts in a batch.
    bands, unit, pixel_scale, resize, native_pixel_scale, uncertainty, maskbits, n_workers
        As for `read_files`.
    ids : sequence, optional
        Identifiers of all rows.
    prefetch : int, optional
        Number of batches read in advance.

    Yields
    ------
    CutoutSet
        The next rows. Together they are what `read_files` returns.

    Raises
    ------
    `~astro_morphvae.exceptions.CutoutMismatchError`
        If a file differs from those before it.
    """
    paths = _parse_paths(paths)
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"batch_size: expected a positive number, got {batch_size!r}")
    options = _Options(bands, unit, pixel_scale, resize, native_pixel_scale, uncertainty, maskbits)
    if ids is None:
        ids = _ids_of(paths)
    elif len(ids) != len(paths):
        raise ValueError(f"ids: {len(ids)} identifiers for {len(paths)} files")
    return _batches(paths, int(batch_size), options, ids, n_workers, max(int(prefetch), 0))


def _batches(paths, batch_size, options, ids, n_workers, prefetch):
    layout, scale = _first_layout(paths, options)
    starts = range(0, len(paths), batch_size)
    pool = ThreadPoolExecutor(_number_of_workers(n_workers))
    recycler = _Recycler()

    def submit(start):
        rows = range(start, min(start + batch_size, len(paths)))
        assembler = Assembler(
            len(rows),
            **options.for_assembler,
            layout=layout,
            reference_scale=scale,
            first_row=start,
            empty=recycler.empty,
        )
        futures = [
            pool.submit(lambda row=row: assembler.put(row - start, options.read(paths[row])))
            for row in rows
        ]
        return rows, assembler, futures

    pending = deque()
    try:
        for start in starts:
            pending.append(submit(start))
            if len(pending) > prefetch:
                yield _collect(*pending.popleft(), ids)
        while pending:
            yield _collect(*pending.popleft(), ids)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _collect(rows, assembler, futures, ids):
    for future in futures:
        future.result()
    parts = assembler.finish(ids=[ids[row] for row in rows])
    return CutoutSet._trusted(**parts, psf_fwhm=None, meta=None)


def _first_layout(paths, options):
    """Layout and pixel scale of the first file that can be read."""
    assembler = Assembler(len(paths), **options.for_assembler)
    for row, path in enumerate(paths):
        record = options.read(path)
        assembler.put(0, record)
        if assembler.layout is not None:
            scale = record.pixel_scale
            regular = options.resize is None and options.pixel_scale is None
            return assembler.layout, scale if regular and np.isfinite(scale) else None
        if row >= 1000:
            break
    return None, None


class _Recycler:
    """Arrays that are used again when nobody holds them any more.

    Memory that is new to a process costs more to touch first than a file costs to read.
    """

    def __init__(self):
        self._arrays = []

    def empty(self, shape):
        # References of an array that is free: the list, and the argument of getrefcount. Views
        # of an array hold it too.
        for number in range(len(self._arrays)):
            if getrefcount(self._arrays[number]) == 2 and self._arrays[number].shape == shape:
                return self._arrays[number][...]
        self._arrays.append(np.empty(shape, dtype=np.float32))
        return self._arrays[-1][...]


class _Options:
    """The keywords of a reader, checked once."""

    def __init__(self, bands, unit, pixel_scale, resize, native_pixel_scale, uncertainty, maskbits):
        self.bands = None if bands is None else parse_bands(bands)
        self.pixel_scale = parse_angle("pixel_scale", pixel_scale)
        self.resize = parse_size("resize", resize)
        native = parse_angle("native_pixel_scale", native_pixel_scale)
        if unit is not None and not isinstance(unit, u.Quantity):
            unit = u.Unit(unit)
        elif unit is not None and flux_scale(unit, pixel_scale=1 * u.arcsec) is None:
            raise ValueError(f"unit: {unit} is not a flux; give its unit alone to keep it")
        if maskbits is not None and not isinstance(maskbits, (int, np.integer)):
            raise TypeError(f"maskbits: expected an integer of bits, got {maskbits!r}")
        self._read = {
            "unit": unit,
            "uncertainty": bool(uncertainty),
            "maskbits": maskbits,
            "native_pixel_scale": None if native is None else native.value,
            "pixel_scale": None if self.pixel_scale is None else self.pixel_scale.value,
        }

    @property
    def for_assembler(self):
        return {"bands": self.bands, "pixel_scale": self.pixel_scale, "resize": self.resize}

    def read(self, path):
        return read_record(path, **self._read)


def _parse_paths(paths):
    if isinstance(paths, (str, os.PathLike)):
        paths = folder_of_images(paths) if Path(paths).is_dir() else [paths]
    paths = list(paths)
    if not paths:
        raise ValueError("paths: no files")
    for row, path in enumerate(paths):
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"paths: entry {row} is {type(path).__name__}, not a path")
    return paths


def _ids_of(paths):
    names = []
    for path in paths:
        name = "" if path is None else Path(path).name
        for suffix in (".gz", ".fz", ".fits", ".fit", ".png", ".jpg", ".jpeg"):
            if name.lower().endswith(suffix):
                name = name[: -len(suffix)]
        names.append(name)
    if len(set(names)) < len(names):  # the same name in several folders
        names = ["" if path is None else os.fspath(path) for path in paths]
    return names


def _names(catalog):
    return getattr(catalog, "colnames", None) or list(catalog)


def _number_of_workers(n_workers):
    if n_workers is None:
        return min(8, os.cpu_count() or 1)
    if not isinstance(n_workers, (int, np.integer)) or n_workers < 1:
        raise ValueError(f"n_workers: expected a positive number, got {n_workers!r}")
    return int(n_workers)
