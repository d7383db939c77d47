"""Change of pixel size by exact areas: flux, inverse variance and mask together, arrays only."""

from functools import lru_cache

import numpy as np

__all__ = ["lower_corner", "overlap_matrix", "resample"]

# Coverage that rounding may take from a pixel that lies wholly on good pixels.
_ROUNDING = 1e-6


def lower_corner(n_in, n_out, ratio):
    """Where a centred output grid begins along one axis, in input pixels from the input's edge.

    Whole pixels where the pixel size stays, so that a crop moves no flux between pixels.
    """
    corner = (n_in - n_out * ratio) / 2
    return float(np.floor(corner)) if ratio == 1 else corner


@lru_cache(maxsize=64)
def overlap_matrix(n_in, n_out, ratio):
    """Share of every input pixel that falls into every output pixel, along one axis.

    Parameters
    ----------
    n_in, n_out : int
        Number of input and output pixels; both grids have the same centre.
    ratio : float
        Size of an output pixel in input pixels.

    Returns
    -------
    (n_out, n_in) array
        Lengths of overlap in input pixels; read-only.
    """
    edges = lower_corner(n_in, n_out, ratio) + ratio * np.arange(n_out + 1)
    lower, upper = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    pixel = np.arange(n_in)
    overlap = np.clip(np.minimum(upper, pixel + 1) - np.maximum(lower, pixel), 0.0, 1.0)
    overlap.flags.writeable = False
    return overlap


def resample(data, ivar=None, mask=None, *, ratio, size):
    """Put images on a centred grid of other pixels, each taking the flux of the area it covers.

    Parameters
    ----------
    data : (..., ny, nx) array
        Flux per pixel. Not changed, nor are the other arrays.
    ivar : (..., ny, nx) array, optional
        Inverse variance; 0 where nothing is known.
    mask : (..., ny, nx) array of bool, optional
        True for bad pixels. Pixels that are not finite are bad too.
    ratio : float
        Size of an output pixel in input pixels; above 1 the image gets coarser.
    size : tuple of int
        (ny, nx) of the output.

    Returns
    -------
    data : (..., ny, nx) array of float32
        Flux per output pixel. The flux of the good part stands for the whole in a pixel that is
        partly bad or off the image, 0 in one without any good part.
    ivar : array of float32 or None
        0 where masked. Output pixels that share an input pixel are correlated, which an inverse
        variance per pixel cannot say.
    mask : array of bool or None
        True for output pixels that touch a bad pixel or stick out of the image; None if no pixel
        does.

    Raises
    ------
    ValueError
        If ``ratio`` is not positive and finite.
    """
    if not np.isfinite(ratio) or ratio <= 0:
        raise ValueError(f"ratio: expected a positive number, got {ratio}")
    ratio = float(ratio)
    along_y = overlap_matrix(data.shape[-2], int(size[0]), ratio)
    along_x = overlap_matrix(data.shape[-1], int(size[1]), ratio)

    def gather(image, power=1):
        return (along_y**power) @ image @ (along_x**power).T

    good = np.isfinite(data)
    if mask is not None:
        good &= ~np.asarray(mask, dtype=bool)
    if good.all():
        covered = np.broadcast_to(
            gather(np.ones(data.shape[-2:])), (*data.shape[:-2], *map(int, size))
        )
        flux = gather(np.asarray(data, dtype=np.float64))
    else:
        covered = gather(good.astype(np.float64))
        flux = gather(np.where(good, data, 0.0).astype(np.float64))
    share = covered / ratio**2
    bad = share < 1 - _ROUNDING
    if bad.any():
        usable = bad & (share > _ROUNDING)
        flux[usable] /= share[usable]
        flux[bad & ~usable] = 0.0
    out_ivar = None
    if ivar is not None:
        known = good & np.isfinite(ivar) & (np.asarray(ivar) > 0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            variance = np.where(known, 1.0 / np.asarray(ivar, dtype=np.float64), 0.0)
            summed = gather(variance, power=2)
            unknown = bad if known.all() else gather((~known).astype(float)) > _ROUNDING
            out_ivar = np.where((summed > 0) & ~unknown & ~bad, 1.0 / summed, 0.0)
        out_ivar = out_ivar.astype(np.float32)
    return flux.astype(np.float32), out_ivar, (np.array(bad) if bad.any() else None)
