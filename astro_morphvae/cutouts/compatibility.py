"""Whether cutouts are what a network was made for, and a model was fitted on."""

import astropy.units as u

from ..exceptions import CutoutMismatchError

__all__ = ["check_compatible"]


def check_compatible(network, provenance, cutouts, name="cutouts"):
    """Raise where cutouts are not what a network, or the fit of that provenance, was made for.

    Raises
    ------
    ValueError
        If the set is empty.
    `~astro_morphvae.exceptions.CutoutMismatchError`
        If bands, size, unit or pixel scale differ; ``name`` is that of the argument.
    """
    if len(cutouts) == 0:
        raise ValueError(f"{name} must hold at least one cutout, got none")
    if cutouts.n_bands != network.n_bands:
        raise CutoutMismatchError(
            f"{name} have {cutouts.n_bands} band(s) {cutouts.bands}, but the network takes "
            f"{network.n_bands}"
        )
    if tuple(cutouts.size) != (network.image_size,) * 2:
        raise CutoutMismatchError(
            f"{name} are {cutouts.size[0]} × {cutouts.size[1]} pixels, but the network takes "
            f"{network.image_size} × {network.image_size}; resample them with resize="
        )
    bands = provenance.get("bands")
    if bands is not None and tuple(cutouts.bands) != tuple(bands):
        raise CutoutMismatchError(
            f"{name} have the bands {tuple(cutouts.bands)}, but the model was fitted on "
            f"{tuple(bands)}"
        )
    unit = provenance.get("unit")
    if unit is not None and u.Unit(unit) != (cutouts.unit or u.dimensionless_unscaled):
        raise CutoutMismatchError(
            f"{name} have the unit {str(cutouts.unit)!r}, but the model was fitted on {unit!r}"
        )
    scale = provenance.get("pixel_scale")
    if scale is not None and cutouts.pixel_scale is not None:
        given = cutouts.pixel_scale.to_value(u.arcsec)
        if abs(given - scale) > 0.01 * scale:
            raise CutoutMismatchError(
                f"{name} have a pixel scale of {given:.4g} arcsec, but the model was fitted at "
                f"{scale:.4g}; resample them with pixel_scale="
            )
