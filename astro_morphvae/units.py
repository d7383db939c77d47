"""Flux units: everything that can become nanomaggies becomes nanomaggies here, and nowhere else."""

import re

import astropy.units as u
import numpy as np
from astropy.units.function.logarithmic import MagUnit

__all__ = ["AB_ZERO_POINT", "NANOMAGGY", "flux_scale", "magnitudes_to_flux", "parse_unit"]

#: The unit of every calibrated cutout: the flux of an AB magnitude of 22.5.
NANOMAGGY = u.nmgy

#: The flux of one maggy, AB magnitude 0. `astropy.units.AB` (3630.78 Jy) and not the rounded
#: 3631 Jy, so that an AB magnitude of 22.5 is one nanomaggy exactly.
AB_ZERO_POINT = 1.0 * u.AB

# Spellings that FITS headers use and astropy does not know. Matched in lower case.
_SPELLINGS = (
    (re.compile(r"\bnano-?maggi?(?:e?s|y)\b"), "nmgy"),
    (re.compile(r"\bmaggi?(?:e?s|y)\b"), "mgy"),
    (re.compile(r"\belectrons?\b|\be-"), "electron"),
    (re.compile(r"\bcounts?\b|\bcts\b"), "ct"),
    (re.compile(r"\bdn\b"), "adu"),
    (re.compile(r"\bsec(?:onds?)?\b"), "s"),
    (re.compile(r"\bpixels?\b"), "pix"),
)


def parse_unit(text):
    """Read a unit as FITS headers spell it.

    Parameters
    ----------
    text : str, `~astropy.units.Unit` or None
        For instance ``"nanomaggy"``, ``"ELECTRONS/S"`` or ``"MJy/sr"``.

    Returns
    -------
    `~astropy.units.UnitBase` or None
        None where the text is empty or not a unit that is known.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        return u.Unit(text)
    text = text.strip()
    if not text:
        return None
    lowered = text.lower()
    for pattern, spelling in _SPELLINGS:
        lowered = pattern.sub(spelling, lowered)
    candidates = [text] if lowered == text.lower() else [lowered, text]
    for candidate in candidates:
        try:
            return _per_pixel(u.Unit(candidate))
        except ValueError:
            continue
    return None


def _per_pixel(unit):
    # A value per pixel is what an image holds, so "nmgy / pix" says no more than "nmgy".
    if isinstance(unit, u.UnitBase) and unit != u.pix and u.pix in unit.bases:
        power = unit.powers[unit.bases.index(u.pix)]
        if power == -1:
            return unit * u.pix
    return unit


def flux_scale(unit, *, pixel_scale=None):
    """Nanomaggies in one unit of the data.

    Parameters
    ----------
    unit : unit-like or `~astropy.units.Quantity`
        Unit of the data. A quantity is the flux of one data unit: ``0.0275 * u.nJy``, or the zero
        point ``26.2 * u.ABmag`` (the magnitude of one data unit).
    pixel_scale : `~astropy.units.Quantity` [angle], optional
        Angle per pixel, needed for surface brightnesses such as MJy / sr.

    Returns
    -------
    float or None
        None where the unit is not a flux (counts, electrons per second, dimensionless): such
        data keep their unit.

    Raises
    ------
    ValueError
        If ``unit`` is a surface brightness and no ``pixel_scale`` is given, or if it is not a
        positive, finite number of data units.
    """
    if isinstance(unit, u.Quantity):  # a zero point as ABmag is a quantity too
        quantity = unit.physical if isinstance(unit.unit, MagUnit) else unit
    else:
        unit = u.Unit(unit)
        if isinstance(unit, MagUnit):
            return None
        quantity = 1.0 * unit
    if quantity.ndim or not np.isfinite(quantity.value) or quantity.value <= 0:
        raise ValueError(f"unit: expected one positive, finite flux of a data unit, got {unit}")
    zero_point = u.zero_point_flux(AB_ZERO_POINT)
    if quantity.unit.is_equivalent(NANOMAGGY, zero_point):
        return float(quantity.to_value(NANOMAGGY, zero_point))
    per_area = quantity.unit * u.sr
    if per_area.is_equivalent(NANOMAGGY, zero_point):
        if pixel_scale is None:
            raise ValueError(
                f"unit: {quantity.unit} is a surface brightness; give pixel_scale to turn it into "
                "a flux per pixel"
            )
        area = (pixel_scale**2).to(u.sr)
        return float((quantity * area).to_value(NANOMAGGY, zero_point))
    return None


def magnitudes_to_flux(magnitudes, unit, sigma=None):
    """Turn magnitudes per pixel into nanomaggies.

    Parameters
    ----------
    magnitudes : array
        Magnitudes.
    unit : `~astropy.units.MagUnit`
        Their unit, such as ``u.ABmag`` or ``u.mag(u.nmgy)``.
    sigma : array, optional
        Standard deviations, in magnitudes.

    Returns
    -------
    flux : array
        Nanomaggies.
    sigma : array or None
        Standard deviations in nanomaggies, to first order.

    Raises
    ------
    ValueError
        If ``unit`` has no physical flux behind it.
    """
    scale = flux_scale(unit.physical_unit)
    if scale is None:
        raise ValueError(f"unit: {unit} is not a magnitude of a flux that nanomaggies can hold")
    magnitudes = np.asarray(magnitudes, dtype=float)
    with np.errstate(over="ignore", invalid="ignore"):
        flux = scale * 10.0 ** (-0.4 * magnitudes)
        if sigma is not None:
            sigma = np.abs(flux) * (0.4 * np.log(10.0)) * np.asarray(sigma, dtype=float)
    return flux, sigma
