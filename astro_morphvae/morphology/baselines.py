"""Features to measure latents against: principal components of small, stretched images."""

import numpy as np
from astropy import units as u
from astropy.table import QTable

from .. import __version__

__all__ = ["pca_features"]

_PORTION = 256  # cutouts reduced at a time, so that a memory map never comes into memory whole


def pca_features(cutouts, n_components=40, *, size=32, fit_rows=None, crop=None, seed=0):
    """Principal components of reduced images, the baseline that latents must beat.

    Each image is averaged down to ``size`` × ``size`` pixels and stretched: by an inverse
    hyperbolic sine in units of each band's pixel scatter where it holds flux, by nothing where it
    is a colour stamp with values in [0, 1]. Masked pixels count as blank sky.

    Parameters
    ----------
    cutouts : CutoutSet or list of `~astropy.nddata.NDData`
        The images, (n, band, y, x).
    n_components : int
        Number of components.
    size : int
        Side of the reduced image in pixels.
    fit_rows : (n,) array of bool, optional
        Rows to fit components and stretch to, such as those of training galaxies; all good rows by
        default.
    crop : int, optional
        Side in pixels of the central part to use; the whole cutout by default.
    seed : int
        Seed of the decomposition.

    Returns
    -------
    `~astropy.table.QTable`
        Shaped as a table of latents: ``id``, ``ra``, ``dec`` (if known), ``z_mean``
        (n, n_components) and ``status``; bad rows are NaN. ``meta`` holds the settings and the
        share of variance explained.

    Raises
    ------
    ValueError
        If there are fewer good rows to fit than components, or ``crop`` or ``size`` do not fit.
    """
    from ..cutouts import as_cutout_set

    cutouts = as_cutout_set(cutouts)
    good = np.asarray(cutouts.good)
    if fit_rows is None:
        fit = good
    else:
        fit = np.asarray(fit_rows)
        if fit.dtype != bool or fit.shape != good.shape:
            raise ValueError(
                f"fit_rows must be a bool array of shape {good.shape}, not {fit.dtype} of shape "
                f"{fit.shape}"
            )
        fit = fit & good
    small = _reduce(cutouts, size, crop)
    if n_components > min(fit.sum(), small[0].size if len(small) else 0):
        raise ValueError(
            f"n_components={n_components} is more than {int(fit.sum())} images of "
            f"{small[0].size if len(small) else 0} values allow"
        )
    softening = None
    if cutouts.unit == u.dimensionless_unscaled:
        np.clip(small, 0, 1, out=small)
    else:
        softening = _scatter(small[fit])
        np.arcsinh(small / softening[:, None, None], out=small)

    from sklearn.decomposition import PCA

    flat = small.reshape(len(small), -1)
    pca = PCA(n_components, svd_solver="randomized", n_oversamples=20, random_state=seed)
    pca.fit(flat[fit])
    z = np.full((len(flat), n_components), np.nan, dtype=np.float32)
    z[good] = pca.transform(flat[good])

    out = QTable()
    for name in ("id", "ra", "dec"):
        if name in cutouts.catalog.colnames:
            out[name] = cutouts.catalog[name]
    out["z_mean"] = z
    out["status"] = cutouts.catalog["status"]
    out.meta = {
        "features": f"PCA({n_components}) of {size}×{size} pixels",
        "n_fit": int(fit.sum()),
        "crop": crop,
        "seed": seed,
        "softening": None if softening is None else softening.tolist(),
        "explained_variance": float(pca.explained_variance_ratio_.sum()),
        "version": __version__,
    }
    return out


def _reduce(cutouts, size, crop):
    """Return area-averaged images, (n, band, size, size) float32; bad pixels count as 0."""
    n, n_bands, ny, nx = cutouts.shape
    side = (ny, nx) if crop is None else (crop, crop)
    if not 1 <= size <= min(side) or max(side[0] - ny, side[1] - nx) > 0:
        raise ValueError(f"size={size} and crop={crop} do not fit in cutouts of {ny}×{nx} pixels")
    y0, x0 = (ny - side[0]) // 2, (nx - side[1]) // 2
    window = (slice(y0, y0 + side[0]), slice(x0, x0 + side[1]))
    rows, columns = _averaging(side[0], size), _averaging(side[1], size).T
    out = np.empty((n, n_bands, size, size), dtype=np.float32)
    for start in range(0, n, _PORTION):
        part = slice(start, start + _PORTION)
        data = np.array(cutouts.data[(part, slice(None), *window)], dtype=np.float32)
        blank = ~np.isfinite(data)
        if cutouts.mask is not None:
            blank |= np.asarray(cutouts.mask[(part, slice(None), *window)])
        data[blank] = 0
        out[part] = rows @ data @ columns
    return out


def _averaging(n, size):
    """Return the (size, n) matrix that averages n pixels to size, sharing pixels on the edges."""
    edges = np.linspace(0, n, size + 1)
    pixel = np.arange(n)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    overlap = np.clip(overlap, 0, None)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)


def _scatter(small):
    """Return the robust scatter of each band's pixels, (band,), never 0."""
    values = np.moveaxis(small, 1, 0).reshape(small.shape[1], -1)
    middle = np.median(values, axis=1, keepdims=True)
    scatter = 1.4826 * np.median(np.abs(values - middle), axis=1)
    return np.where(scatter > 0, scatter, 1.0).astype(np.float32)
