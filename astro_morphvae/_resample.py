"""Change of pixel size by exact areas: flux, inverse variance and mask together, arrays only."""

from functools import lru_cache

import numpy as np

__all__ = ["lower_corner", "overlaps", "resample"]

# Coverage that rounding may take from a pixel that lies wholly on good pixels.
_ROUNDING = 1e-6


def lower_corner(n_in, n_out, ratio):
    """Where a centred output grid begins along one axis, in input pixels from the input's edge.

    Whole pixels where the pixel size stays, so that a crop moves no flux between pixels.
    """
    corner = (n_in - n_out * ratio) / 2
    return float(np.floor(corner)) if ratio == 1 else corner


@lru_cache(maxsize=64)
def overlaps(n_in, n_out, ratio):
    """Which input pixels each output pixel overlaps along one axis, and by how much.

    Parameters
    ----------
    n_in, n_out : int
        Number of input and output pixels; both grids have the same centre.
    ratio : float
        Size of an output pixel in input pixels.

    Returns
    -------
    index : (k, n_out) array of int
        Input pixels; k is the most that one output pixel can overlap.
    length : (k, n_out) array
        Length of each overlap in input pixels, 0 where there is none. Both arrays are read-only.
    """
    edges = lower_corner(n_in, n_out, ratio) + ratio * np.arange(n_out + 1)
    lower, upper = edges[:-1], edges[1:]
    index = np.floor(lower).astype(int) + np.arange(int(np.ceil(ratio)) + 1)[:, np.newaxis]
    length = np.clip(np.minimum(upper, index + 1) - np.maximum(lower, index), 0.0, 1.0)
    length[(index < 0) | (index >= n_in)] = 0.0
    index = np.clip(index, 0, n_in - 1)
    index.flags.writeable = length.flags.writeable = False
    return index, length


def _gather(image, along_y, along_x, power):
    # A few passes over the rows, then over the columns. Not a matrix product: the matrices are
    # nearly empty, and many small products in threads fight over the cores.
    def along(image, index, length, axis):
        total = 0.0
        for pixels, weight in zip(index, length**power, strict=True):
            if axis == -2:
                weight = weight[:, np.newaxis]
            total = total + np.take(image, pixels, axis=axis) * weight
        return total

    return along(along(image, *along_y, axis=-2), *along_x, axis=-1)


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
    along_y = overlaps(data.shape[-2], int(size[0]), ratio)
    along_x = overlaps(data.shape[-1], int(size[1]), ratio)

    def gather(image, power=1):
        return _gather(image, along_y, along_x, power)

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
