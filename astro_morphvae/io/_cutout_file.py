"""One set of cutouts in one FITS file: checksummed, memory-mapped, never half written."""

import gzip
import os
import secrets
import warnings
from io import BytesIO
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.io.misc import yaml
from astropy.table import Column, QTable, Table, vstack

from ..cutouts import CutoutSet
from ..cutouts._wcs import WCSList
from ..exceptions import CutoutMismatchError, MorphVAEWarning
from ..units import parse_unit
from ._checksum import add_words, encode_checksum, sum_of_file

__all__ = ["CutoutWriter", "read_cutouts", "write_cutouts"]

FORMAT_VERSION = 1
SIGNATURE = "MORPHVAE"
_BLOCK = 2880
_CHUNK_BYTES = 32 * 2**20
_ZEROS = "0" * 16


class CutoutWriter:
    """Write a set of cutouts of any length to one file, batch by batch.

    Parameters
    ----------
    path : path-like
        File to make. It appears, complete, when the block is left; if an error leaves the block,
        a file that was there before is untouched and no other is made.
    n : int
        Number of cutouts that will come.
    overwrite : bool, optional
        Whether a file that exists may be replaced.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is not set.

    Examples
    --------
    >>> from astro_morphvae.io import CutoutWriter, iter_file_batches
    >>> with CutoutWriter("cutouts.fits", n=len(paths)) as writer:  # doctest: +SKIP
    ...     for batch in iter_file_batches(paths):
    ...         writer.append(batch)
    """

    def __init__(self, path, n, *, overwrite=False):
        self.path = Path(path)
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
            raise ValueError(f"n: expected a number of cutouts, got {n!r}")
        self.n = int(n)
        if self.path.exists() and not overwrite:
            raise FileExistsError(f"path: {self.path} exists; use overwrite=True to replace it")
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        self._file = None
        self._rows = 0
        self._first = None
        self._catalogs = []
        self._cards = []

    def __repr__(self):
        return f"<CutoutWriter to {self.path}: {self._rows} of {self.n} cutouts>"

    def __enter__(self):
        self._file = open(self._temporary, "w+b")
        return self

    def __exit__(self, kind, error, traceback):
        try:
            if kind is None:
                self._finish()
                self._file.close()
                os.replace(self._temporary, self.path)
        finally:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
        return False

    def append(self, cutouts):
        """Write the next rows.

        Parameters
        ----------
        cutouts : CutoutSet
            As many rows as there are left, or fewer.

        Raises
        ------
        `~astro_morphvae.exceptions.CutoutMismatchError`
            If size, bands, unit, pixel scale or the presence of uncertainties differ from the
            batches before.
        ValueError
            If more rows come than were announced, or the writer is not open.
        """
        if self._file is None or self._file.closed:
            raise ValueError("CutoutWriter: not open; use it in a with statement")
        if not isinstance(cutouts, CutoutSet):
            raise TypeError(f"cutouts: expected a CutoutSet, got {type(cutouts).__name__}")
        if self._first is None:
            self._begin(cutouts)
        elif self._properties(cutouts) != self._properties(self._first):
            raise CutoutMismatchError(
                f"cutouts: rows from {self._rows} on are {cutouts}, those before {self._first}"
            )
        if self._rows + len(cutouts) > self.n:
            raise ValueError(f"cutouts: {self._rows + len(cutouts)} rows come where n is {self.n}")
        step = max(1, _CHUNK_BYTES // max(cutouts.data[:1].nbytes, 1))
        for start in range(0, len(cutouts), step):
            self._append_rows(cutouts[start : start + step])
        self._catalogs.append(cutouts.catalog)
        self._cards.extend([""] * len(cutouts) if cutouts.wcs is None else cutouts.wcs.cards())

    @staticmethod
    def _properties(cutouts):
        scale = cutouts.pixel_scale
        return (
            cutouts.size,
            cutouts.bands,
            cutouts.unit,
            cutouts.ivar is not None,
            None if scale is None else float(f"{scale.value:.3g}"),
        )

    def _begin(self, cutouts):
        self._first = cutouts[:0]
        self._images = []
        self._write(0, b"\0" * _BLOCK)  # the primary header, written last
        shape = (self.n, *cutouts.shape[1:])
        offset = self._new_image("DATA", shape, -32, _BLOCK, cutouts.unit, cutouts.bands)
        if cutouts.ivar is not None:
            offset = self._new_image("IVAR", shape, -32, offset, cutouts.unit**-2, cutouts.bands)
        self._mask_offset = offset
        self._mask = None

    def _new_image(self, name, shape, bitpix, offset, unit=None, bands=None):
        header = fits.Header()
        header["XTENSION"] = ("IMAGE", "cutouts")
        header["BITPIX"] = bitpix
        header["NAXIS"] = len(shape)
        for axis, length in enumerate(reversed(shape), start=1):
            header[f"NAXIS{axis}"] = length
        header["PCOUNT"] = 0
        header["GCOUNT"] = 1
        header["EXTNAME"] = name
        if unit is not None:
            header["BUNIT"] = unit.to_string()
        for number, band in enumerate(bands or ()):
            header[f"BAND{number}"] = band
        header["CHECKSUM"] = (_ZEROS, "HDU checksum")
        header["DATASUM"] = ("0".rjust(10), "data unit checksum")
        start = offset + len(header.tostring())
        length = int(np.prod(shape)) * abs(bitpix) // 8
        image = {"header": header, "offset": offset, "start": start, "length": length, "sum": 0}
        self._images.append(image)
        return start + -(-length // _BLOCK) * _BLOCK

    def _append_rows(self, cutouts):
        first = self._rows
        for image, array in zip(self._images, (cutouts.data, cutouts.ivar), strict=False):
            if array is not None and image["header"]["EXTNAME"] != "MASK":
                pixels = np.ascontiguousarray(array, dtype=">f4")
                self._write(image["start"] + first * pixels[:1].nbytes, pixels)
                image["sum"] = add_words(image["sum"], pixels)
        if cutouts.mask is not None and cutouts.mask.any():
            if self._mask is None:
                shape = (self.n, *cutouts.shape[1:])
                self._new_image("MASK", shape, 8, self._mask_offset)
                self._mask = self._images[-1]
            pixels = np.ascontiguousarray(cutouts.mask).view(np.uint8)
            self._write(self._mask["start"] + first * pixels[:1].nbytes, pixels)
        self._rows += len(cutouts)

    def _write(self, offset, data):
        self._file.seek(offset)
        self._file.write(data)

    def _finish(self):
        if self._rows != self.n or self._first is None:
            raise ValueError(f"cutouts: {self._rows} rows came where n is {self.n}")
        end = self._mask_offset
        if self._mask is not None:
            # Rows without mask are holes of the file, so the sum is taken from the file.
            start, length = self._mask["start"], self._mask["length"]
            end = start + -(-length // _BLOCK) * _BLOCK
            self._file.truncate(end)
            self._mask["sum"] = sum_of_file(self._file, start, length)
        self._file.truncate(end)
        for image in self._images:
            self._write(image["offset"], _signed(image["header"], image["sum"]))
        tables = _tables(self._catalogs, self._cards, self._first)
        self._write(end, tables)
        header = _primary_header(self._first, self.n, len(self._images))
        self._write(0, _signed(header, 0))


def _signed(header, datasum):
    """Header as bytes, with both checksums."""
    header["DATASUM"] = str(datasum).rjust(10)
    total = add_words(datasum, header.tostring().encode("ascii"))
    header["CHECKSUM"] = encode_checksum(total)
    return header.tostring().encode("ascii")


def _primary_header(cutouts, n, n_images):
    header = fits.Header()
    header["SIMPLE"] = True
    header["BITPIX"] = 8
    header["NAXIS"] = 0
    header["EXTEND"] = True
    header[SIGNATURE] = (FORMAT_VERSION, "version of the CutoutSet file format")
    header["NCUTOUT"] = (n, "number of cutouts")
    header["NHDU"] = (n_images + 4, "number of HDUs of this file")
    header["PIXSCALE"] = (
        None if cutouts.pixel_scale is None else cutouts.pixel_scale.value,
        "arcsec per pixel",
    )
    header["CHECKSUM"] = (_ZEROS, "HDU checksum")
    header["DATASUM"] = ("0".rjust(10), "data unit checksum")
    return header


def _tables(catalogs, cards, cutouts):
    """Catalog, coordinates and description of the set, as bytes of FITS extensions."""
    catalog = catalogs[0]
    if len(catalogs) > 1:
        catalog = vstack(catalogs, metadata_conflicts="silent")
    catalog = catalog.copy()
    for name in catalog.colnames:
        column = catalog[name]
        kind = getattr(getattr(column, "dtype", None), "kind", None)  # Time and SkyCoord have none
        if kind == "O":
            raise TypeError(f"catalog: column {name!r} holds Python objects, which FITS cannot")
        if kind == "U":
            # FITS knows ASCII only; other letters travel as UTF-8.
            encoded = Column(np.char.encode(np.asarray(column).astype(str), "utf-8"))
            encoded.info.description = column.info.description
            catalog[name] = encoded
    meta = {
        "bands": list(cutouts.bands),
        "psf_fwhm": None if cutouts.psf_fwhm is None else cutouts.psf_fwhm.value.tolist(),
        "meta": _storable(cutouts.meta),
    }
    wcs = Table({"CARDS": np.array([text.rstrip().encode("ascii") or b" " for text in cards])})
    about = Table({"YAML": [yaml.dump(meta).encode("utf-8")]})
    pieces = []
    for name, table in (("CATALOG", catalog), ("WCS", wcs), ("META", about)):
        table.meta = {}
        buffer = BytesIO()
        table.write(buffer, format="fits")
        with fits.open(BytesIO(buffer.getvalue())) as hdus:
            hdus[1].name = name
            signed = BytesIO()
            hdus.writeto(signed, checksum=True)
        pieces.append(signed.getvalue()[_BLOCK:])
    return b"".join(pieces)


def _storable(meta):
    kept = {}
    for key, value in meta.items():
        try:
            yaml.dump({key: value})
        except Exception:
            warnings.warn(
                f"meta: {key!r} is a {type(value).__name__}, which cannot be written; left out",
                MorphVAEWarning,
                stacklevel=2,
            )
        else:
            kept[key] = value
    return kept


def write_cutouts(cutouts, path, *, n=None, overwrite=False):
    """Write cutouts to one checksummed FITS file.

    Parameters
    ----------
    cutouts : CutoutSet or iterable of CutoutSet
        The set, or its rows batch by batch.
    path : path-like
        File to make. It is written beside its place and then renamed, so that an interrupted run
        leaves the old file or none.
    n : int, optional
        Number of cutouts, needed for batches.
    overwrite : bool, optional
        Whether a file that exists may be replaced.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is not set.
    """
    if isinstance(cutouts, CutoutSet):
        cutouts, n = [cutouts], len(cutouts)
    elif n is None:
        raise ValueError("n: needed to write cutouts that come in batches")
    with CutoutWriter(path, n, overwrite=overwrite) as writer:
        for batch in cutouts:
            writer.append(batch)


def read_cutouts(path, *, memmap=True, verify=False):
    """Read a file written by `write_cutouts`.

    Parameters
    ----------
    path : path-like
        The file.
    memmap : bool, optional
        Whether pixels stay on disk until they are used. The arrays are then read-only and
        big-endian, and the file must stay where it is.
    verify : bool, optional
        Whether to compare all checksums first, which reads the whole file.

    Returns
    -------
    CutoutSet

    Raises
    ------
    OSError
        If the file is no CutoutSet file, is truncated, or does not match its checksums.
    """
    path = getattr(path, "name", path)
    path = os.fspath(path)
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            if packed:
                return _read(BytesIO(gzip.decompress(file.read())), path, False, verify)
            return _read(file, path, memmap, verify)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # whatever a damaged header provokes
            raise OSError(f"{path}: damaged: {error}") from error


def _read(file, path, memmap, verify):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hdus = fits.open(file, memmap=False)
            found = len(hdus)
            primary = hdus[0].header
    except Exception as error:
        raise OSError(
            f"{path}: not a FITS file, or cut off in its first header ({error})"
        ) from None
    version = primary.get(SIGNATURE)
    if version is None:
        raise OSError(
            f"{path}: a FITS file, but not one of CutoutSet.write; "
            "CutoutSet.from_files reads cutouts one a file"
        )
    if version > FORMAT_VERSION:
        raise OSError(f"{path}: format version {version} is newer than this package reads")
    file.seek(0, os.SEEK_END)
    size = file.tell()
    ends = [hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"] for hdu in hdus]
    if found != primary["NHDU"] or max(ends) > size:
        raise OSError(f"{path}: truncated: {size} bytes hold {found} HDUs of {primary['NHDU']}")
    if verify:
        _verify(file, path, hdus)
    header = hdus["DATA"].header
    shape = tuple(header[f"NAXIS{axis}"] for axis in (4, 3, 2, 1))
    arrays = {}
    for name, dtype in (("DATA", ">f4"), ("IVAR", ">f4"), ("MASK", "u1")):
        arrays[name] = None
        if name in hdus:
            offset = hdus[name].fileinfo()["datLoc"]
            arrays[name] = _pixels(file, path, offset, shape, np.dtype(dtype), memmap)
    about = yaml.load(_text(Table.read(hdus, hdu="META")["YAML"][0]))
    catalog = _catalog(QTable.read(hdus, hdu="CATALOG", astropy_native=True))
    cards = [_text(text).rstrip() for text in Table.read(hdus, hdu="WCS")["CARDS"]]
    scale, fwhm = primary["PIXSCALE"], about["psf_fwhm"]
    return CutoutSet._trusted(
        arrays["DATA"],
        unit=parse_unit(header["BUNIT"]) or u.dimensionless_unscaled,
        bands=tuple(about["bands"]),
        ivar=arrays["IVAR"],
        mask=None if arrays["MASK"] is None else arrays["MASK"].view(bool),
        wcs=WCSList(text or None for text in cards) if any(cards) else None,
        pixel_scale=None if not isinstance(scale, float) else scale * u.arcsec,
        psf_fwhm=None if fwhm is None else fwhm * u.arcsec,
        catalog=catalog,
        meta=about["meta"],
    )


def _pixels(file, path, offset, shape, dtype, memmap):
    count = int(np.prod(shape))
    if memmap and count:
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    file.seek(offset)
    data = np.frombuffer(file.read(count * dtype.itemsize), dtype=dtype).reshape(shape)
    return data.astype(dtype.newbyteorder("="))


def _verify(file, path, hdus):
    for hdu in hdus:
        info = hdu.fileinfo()
        datasum = sum_of_file(file, info["datLoc"], info["datSpan"])
        length = info["datLoc"] - info["hdrLoc"]
        total = sum_of_file(file, info["hdrLoc"], length, datasum)
        if str(datasum) != hdu.header["DATASUM"].strip() or total not in (0, 0xFFFFFFFF):
            raise OSError(f"{path}: damaged: {hdu.name or 'PRIMARY'} does not match its checksum")


def _catalog(table):
    for name in table.colnames:
        if getattr(getattr(table[name], "dtype", None), "kind", None) == "S":
            description = table[name].info.description
            text = np.char.decode(np.asarray(table[name]), "utf-8")
            table[name] = Column(text, description=description)
    table.meta = {}
    return table


def _text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
