"""Some columns of a table on disk, in the formats that catalogues are published in."""

import csv
import gzip
import re
from pathlib import Path

import numpy as np
from astropy.table import Table

from .._optional import import_optional

__all__ = ["FORMATS", "TableFile"]

FORMATS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".fits": "fits",
    ".fit": "fits",
    ".ecsv": "ecsv",
}
"""Formats by the ending of a name, which may be followed by ``.gz`` except for Parquet."""


_EXACT = 2**53  # whole numbers up to this one are floats too


class TableFile:
    """A table on disk: its columns by name, read when they are asked for.

    Parameters
    ----------
    path : path-like
        The file.
    format : {"csv", "parquet", "fits", "ecsv"}, optional
        Found from the ending of its name where it is not given.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If its format is not known.
    """

    def __init__(self, path, format=None):  # noqa: A002 (the word of astropy's readers)
        self.path = Path(path)
        self.format = format
        if not self.path.is_file():
            raise FileNotFoundError(f"path: there is no file {self.path}")
        if self.format is None:
            suffixes = [suffix.lower() for suffix in self.path.suffixes]
            if suffixes[-1:] == [".gz"]:
                suffixes.pop()
            self.format = FORMATS.get(suffixes[-1]) if suffixes else None
            if self.format is None:
                raise ValueError(f"path: {self.path} ends in none of {', '.join(FORMATS)}")
        elif self.format not in FORMATS.values():
            known = ", ".join(dict.fromkeys(FORMATS.values()))
            raise ValueError(f"format: expected one of {known}, got {format!r}")
        self._table = None
        self.names = self._names()

    def _names(self):
        if self.format == "csv":
            opener = gzip.open if self.path.suffix == ".gz" else open
            with opener(self.path, "rt", encoding="utf-8", newline="") as file:
                return [name.strip() for name in next(csv.reader(file), [])]
        if self.format == "parquet":
            parquet = import_optional("pyarrow.parquet", needed_for=f"Reading {self.path.name}")
            return parquet.read_schema(self.path).names
        if self.format == "fits":
            self._table = Table.read(self.path, format="fits", hdu=1)
            self._table.convert_bytestring_to_unicode()
        else:
            self._table = Table.read(self.path, format="ascii.ecsv")
        return self._table.colnames

    def read(self, names, text=()):
        """Read columns.

        Parameters
        ----------
        names : sequence of str
            Their names, of those in ``names``.
        text : sequence of str, optional
            Those to read as text, such as identifiers, of which no digit may be lost.

        Returns
        -------
        dict of str to (n,) array
            Missing values are NaN, also among whole numbers, which are floats then, or text if a
            float cannot hold them; among text they are empty.
        """
        if self.format == "csv":  # the type that a column seems to have may not hold all its digits
            columns = self._columns([name for name in names if name not in text])
            columns = {**columns, **{name: self._csv_column(name) for name in text}}
        else:
            columns = self._columns(names)
        return {name: (_text if name in text else _plain)(columns[name]) for name in names}

    def _columns(self, names):
        """Columns, of which some may be masked, by name."""
        if self.format == "csv":
            # As an open file: a compressed one would be taken for plain text by its name.
            opener = gzip.open if self.path.suffix == ".gz" else open
            with opener(self.path, "rb") as file:
                return Table.read(file, format="ascii.csv", guess=False, include_names=list(names))
        if self.format == "parquet":
            parquet = import_optional("pyarrow.parquet", needed_for=f"Reading {self.path.name}")
            columns = parquet.read_table(self.path, columns=list(names))
            return {name: _from_arrow(columns[name]) for name in names}
        return self._table

    def _csv_column(self, name):
        opener = gzip.open if self.path.suffix == ".gz" else open
        with opener(self.path, "rt", encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            next(rows)
            place = self.names.index(name)
            rows = (row for row in rows if any(map(str.strip, row)) or len(row) > 1)
            return np.array([row[place] if place < len(row) else "" for row in rows], dtype=str)


def _from_arrow(column):
    if column.null_count and str(column.type).startswith(("int", "uint")):
        missing = column.is_null().to_numpy()
        return np.ma.array(column.fill_null(0).to_numpy(), mask=missing)
    return column.to_numpy()


def _split(column):
    """Values of a column, and which of them are missing."""
    mask = np.asarray(np.ma.getmaskarray(column) if np.ma.isMA(column) else False)
    values = getattr(column, "unmasked", column)
    return np.ma.getdata(getattr(values, "value", values)), mask


def _text(column):
    values, mask = _split(column)
    if values.dtype.kind == "O":
        values = np.array(["" if value is None else str(value) for value in values.tolist()])
    if values.dtype.kind == "f":
        mask = mask | np.isnan(values)
        known = values[~mask]
        if np.all((known == np.floor(known)) & (np.abs(known) < 2.0**63)):
            values = np.where(mask, 0, values).astype(np.int64)
    text = np.where(mask, "", np.char.strip(values.astype(str)))
    # Whole numbers that were written as floats, because some are missing.
    if all(re.fullmatch(r"-?\d+\.0|", value) for value in text):
        text = np.char.replace(text, ".0", "")
    return text


def _plain(column):
    values, mask = _split(column)
    if values.dtype.kind == "O":  # text, of which None is missing
        values = np.array(["" if value is None else str(value) for value in values.tolist()])
    if values.dtype.kind in "US":
        values = np.where(mask, "", values.astype(str))
        # Text files have no type for truth.
        return values == "True" if set(np.unique(values)) <= {"True", "False"} else values
    if mask.any():
        if values.dtype.kind in "iu" and np.abs(values[~mask]).max(initial=0) > _EXACT:
            return _text(column)
        values = np.where(mask, np.nan, values.astype(float))
    return np.asarray(values)
