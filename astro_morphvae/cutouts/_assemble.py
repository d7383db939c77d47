"""Images that arrive one by one, in any order and from any thread, put together into one set."""

from functools import partial
from threading import Lock
from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import Column

from ..exceptions import CutoutMismatchError
from ._headers import default_bands
from ._parse import (
    OK,
    PIXEL_SCALE_TOLERANCE,
    clean_pixels,
    list_rows,
    order_columns,
    parse_angle,
    parse_bands,
    parse_catalog,
    parse_size,
    set_positions,
    set_status,
    status_of,
)
from ._records import place_on_grid, record_from_nddata, select_bands
from ._wcs import WCSList

__all__ = ["Assembler", "Layout", "assemble_nddata"]


class Layout(NamedTuple):
    """What all rows of a set have in common."""

    size: tuple
    bands: tuple
    unit: u.UnitBase
    has_ivar: bool


class Assembler:
    """Collect records into the arrays of one set.

    Parameters
    ----------
    n : int
        Number of rows.
    bands : tuple of str, optional
        Bands wanted; taken from the records where it is not given.
    pixel_scale : `~astropy.units.Quantity`, optional
        Pixel scale wanted.
    resize : tuple of int, optional
        (ny, nx) wanted.
    layout : Layout, optional
        Of rows that came before, to which these have to conform.
    reference_scale : float, optional
        Their pixel scale in arcsec, likewise.
    first_row : int, optional
        Number of the first row, for errors.
    empty : callable, optional
        Makes the array of the pixels from its shape; a new array by default.
    """

    def __init__(
        self,
        n,
        *,
        bands=None,
        pixel_scale=None,
        resize=None,
        layout=None,
        reference_scale=None,
        first_row=0,
        empty=None,
    ):
        self.n = n
        self.layout = self._given = layout
        self._bands = bands
        self._pixel_scale = None if pixel_scale is None else pixel_scale.to_value(u.arcsec)
        self._resize = resize
        self._first_row = first_row
        self._empty = empty or partial(np.empty, dtype=np.float32)
        self._reference_scale = reference_scale
        self._lock = Lock()
        self._keys = {}
        self._lost = None
        self._data = self._ivar = self._mask = None
        self._status = [OK] * n
        self._wcs = [None] * n
        self._positions = np.full((n, 3), np.nan)
        if layout is not None:
            self._allocate()

    def _allocate(self):
        layout = self.layout
        shape = (self.n, len(layout.bands), *layout.size)
        self._data = self._empty(shape)
        if layout.has_ivar:
            self._ivar = self._empty(shape)

    def _mask_array(self):
        with self._lock:
            if self._mask is None:
                self._mask = np.zeros(self._data.shape, dtype=bool)
        return self._mask

    def put(self, row, record):
        """Take one record in as a row; safe to call from several threads for different rows."""
        record = select_bands(record, self._bands)
        record = place_on_grid(record, pixel_scale=self._pixel_scale, resize=self._resize)
        self._wcs[row] = record.wcs
        self._positions[row] = record.ra, record.dec, record.pixel_scale
        self._status[row] = record.status
        if record.data is None:
            if record.shape is not None and self._lost is None:
                self._lost = record
            return
        bands = record.bands or default_bands(len(record.data))
        key = Layout(record.data.shape[1:], bands, record.unit, record.ivar is not None)
        self._keys[row] = key
        with self._lock:
            if self.layout is None:
                self.layout = key
                self._allocate()
        if key == self.layout:
            self._store(row, record)

    def _store(self, row, record):
        target = self._data[row]
        with np.errstate(over="ignore"):
            np.copyto(target, record.data, casting="unsafe")
            if record.ivar is not None:
                np.copyto(self._ivar[row], record.ivar, casting="unsafe")
        ivar = None if record.ivar is None else self._ivar[row]
        bad, blank = clean_pixels(target, ivar, record.mask)
        status = (
            record.status if record.status != OK else status_of(target, blank, self.layout.bands)
        )
        self._status[row] = status
        if status == OK and bad is not None:
            self._mask_array()[row] = bad
            target[bad] = 0
            if ivar is not None:
                ivar[bad] = 0

    def finish(self, *, ids=None, catalog=None):
        """Put the parts of the set together.

        Parameters
        ----------
        ids : sequence, optional
            Identifiers of the rows.
        catalog : `~astropy.table.Table`, optional
            Columns of the user.

        Returns
        -------
        dict
            Arguments of ``CutoutSet._trusted``.

        Raises
        ------
        CutoutMismatchError
            If rows differ in size, bands, unit, pixel scale or in having an inverse variance.
        """
        self._compare()
        layout = self.layout
        if layout is None:
            layout = self.layout = self._layout_of_lost(ids)
            self._allocate()
        for row, status in enumerate(self._status):
            if status != OK:
                self._data[row] = np.nan
                self._mask_array()[row] = True
                if self._ivar is not None:
                    self._ivar[row] = 0
        catalog = parse_catalog(catalog, self.n)
        if ids is not None:
            if len(ids) != self.n:
                raise ValueError(f"ids: {len(ids)} identifiers for {self.n} cutouts")
            catalog["id"] = Column(np.asarray(ids), description="Identifier of the object")
        located = np.isfinite(self._positions[:, 0])
        if located.any() and "ra" not in catalog.colnames:
            set_positions(catalog, *self._positions[:, :2].T)
        if "status" in catalog.colnames:
            given = np.asarray(catalog["status"]).astype(str)
            self._status = [
                old if new == OK else new for old, new in zip(given, self._status, strict=True)
            ]
        set_status(catalog, self._status)
        scale = self._common_scale(catalog)
        return {
            "data": self._data,
            "unit": layout.unit,
            "bands": layout.bands,
            "ivar": self._ivar,
            "mask": self._mask,
            "wcs": WCSList(self._wcs) if any(w is not None for w in self._wcs) else None,
            "pixel_scale": scale,
            "catalog": order_columns(catalog),
        }

    def _layout_of_lost(self, ids):
        """Layout where no row has pixels: what was asked for, or what a header still says."""
        bands, size, unit = self._bands, self._resize, None
        if self._lost is not None:
            bands = bands or self._lost.bands or default_bands(self._lost.shape[0])
            unit = self._lost.unit
            if size is None and self._pixel_scale is None:
                size = self._lost.shape[1:]
        if bands is None or size is None:
            first = "" if ids is None else f"{ids[0]}: "
            raise ValueError(
                f"none of the {self.n} cutouts can be read (first, {first}{self._status[0]}), so "
                "their bands and size are unknown; give bands= and resize= to get rows of NaN"
            )
        return Layout(size, bands, unit or u.dimensionless_unscaled, False)

    def _common_scale(self, catalog):
        """One pixel scale for the set; where rows differ on request, a column instead."""
        scales = self._positions[:, 2]
        known = scales[np.isfinite(scales)]
        if self._pixel_scale is not None:
            return self._pixel_scale * u.arcsec
        if not len(known):
            return None
        if np.ptp(known) <= PIXEL_SCALE_TOLERANCE * known.min():
            return float(np.median(known)) * u.arcsec
        catalog["pixel_scale"] = scales * u.arcsec
        catalog["pixel_scale"].info.description = "Angle per pixel"
        return None

    def _compare(self):
        keys = dict(sorted(self._keys.items()))
        if not keys:
            return
        reference = {} if self._given is None else {-1: self._given}
        problems = []
        names = {
            "size": ("size", lambda value: f"{value[0]} × {value[1]}", "pass resize="),
            "bands": ("bands", ", ".join, "pass bands= to choose those that all have"),
            "unit": ("unit", lambda value: str(value) or "none", "pass unit="),
            "has_ivar": (
                "uncertainty",
                lambda value: "given" if value else "missing",
                "give it for all or for none",
            ),
        }
        for field, (label, show, advice) in names.items():
            groups = {}
            for row, key in (reference | keys).items():
                groups.setdefault(getattr(key, field), []).append(row)
            if len(groups) > 1:
                problems.append(f"{label} ({self._groups(groups, show)}; {advice})")
        if self._pixel_scale is None and self._resize is None:
            rows = [row for row in keys if np.isfinite(self._positions[row, 2])]
            groups = {} if self._reference_scale is None else {self._reference_scale: [-1]}
            for row in rows:
                scale = self._positions[row, 2]
                for known in groups:
                    if abs(scale / known - 1) <= PIXEL_SCALE_TOLERANCE:
                        groups[known].append(row)
                        break
                else:
                    groups[scale] = [row]
            if len(groups) > 1:
                text = self._groups(groups, lambda value: f"{value:.4g} arcsec")
                problems.append(f"pixel scale ({text}; pass pixel_scale= or resize=)")
        if problems:
            raise CutoutMismatchError("cutouts differ in " + ", and in ".join(problems))

    def _groups(self, groups, show):
        texts = []
        for value, rows in groups.items():
            rows = [row for row in rows if row >= 0]
            where = f"rows {list_rows(row + self._first_row for row in rows)}"
            texts.append(f"{show(value)} in {where if rows else 'rows before these'}")
        return "; ".join(texts)


def assemble_nddata(
    items, *, bands=None, unit=None, pixel_scale=None, resize=None, ids=None, catalog=None
):
    """Put NDData objects together; see `CutoutSet.from_nddata`."""
    try:
        items = list(items)
    except TypeError:
        raise TypeError(
            f"items: expected a sequence of NDData, got {type(items).__name__}"
        ) from None
    if not items:
        raise ValueError("items: empty, so that size and bands are unknown")
    pixel_scale = parse_angle("pixel_scale", pixel_scale)
    resize = parse_size("resize", resize)
    if unit is not None and not isinstance(unit, u.Quantity):
        unit = u.Unit(unit)
    assembler = None
    found = [None] * len(items)
    for row, item in enumerate(items):
        record = record_from_nddata(item, row, unit=unit, pixel_scale=pixel_scale)
        if assembler is None:
            if bands is not None:
                bands = parse_bands(bands, None if record.bands else len(record.data))
            assembler = Assembler(len(items), bands=bands, pixel_scale=pixel_scale, resize=resize)
        found[row] = record.id
        assembler.put(row, record)
    if ids is None and all(name is not None for name in found):
        ids = found
    return assembler.finish(ids=ids, catalog=catalog)
