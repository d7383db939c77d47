"""Cutouts put on another pixel grid, with their variance and mask."""

import astropy.units as u
import numpy as np
from astropy.table import Column
from astropy.wcs import NoConvergence

from .._optional import import_optional
from ..cutouts import CutoutSet, as_cutout_set
from ..cutouts._parse import (
    OK,
    clean_pixels,
    order_columns,
    set_positions,
    set_status,
    status_of,
)
from ..cutouts._wcs import WCSList, centre_and_scale, quiet_astropy
from ._carry import carry, weigher
from ._correlated import fit_inflation
from ._grids import parse_grids
from ._interpolation import INTERPOLATION, kernel_variance
from ._pixel_map import map_pixels
from ._probing import ADAPTIVE_VARIANCE, window_size
from ._threads import for_each_row, parse_n_jobs

__all__ = ["reproject_cutouts"]

# Methods, and how many times larger than those of the input their output pixels may be: beyond, the
# weights of one pixel fill the memory.
_METHODS = {"interp": 32, "adaptive": 8, "exact": 8}
# Input pixels along a side of the window that the weights of adaptive and exact are looked for in;
# pixels that are much longer than wide need larger ones.
_LARGEST_WINDOW = 48
# FWHM² of a Gaussian over its variance.
_FWHM2_PER_VARIANCE = 8 * np.log(2)


def reproject_cutouts(
    cutouts,
    *,
    target_wcs=None,
    pixel_scale=None,
    like=None,
    size=None,
    method="interp",
    kernel="bicubic",
    n_jobs=1,
    progress=False,
):
    """Put cutouts on another pixel grid: flux, inverse variance and mask together.

    Parameters
    ----------
    cutouts : CutoutSet
        With a WCS; see `~astro_morphvae.cutouts.as_cutout_set` for what else is taken. Not
        changed.
    target_wcs : `~astropy.wcs.WCS` or sequence of it, optional
        The grid wanted, for all rows or one a row (None: the row has none).
    pixel_scale : `~astropy.units.Quantity` [angle], optional
        A grid for each row with pixels of this size, north up and east to the left, in the
        gnomonic projection about the row's position (``ra``, ``dec`` of the catalog).
    like : CutoutSet, optional
        The grids of other cutouts, row by row. Exactly one of these three is given.
    size : int or (int, int), optional
        Pixels of the output, (ny, nx). By default that of ``like``, that which the target WCS
        brings, or that which keeps the field of view.
    method : {"interp", "adaptive", "exact"}, optional
        Interpolation with ``kernel``; or the anti-aliased mean of `reproject.reproject_adaptive`,
        or the mean over the overlap on the sphere of `reproject.reproject_exact`, which blur the
        image by about the size of a pixel, and are much slower.
    kernel : {"bicubic", "bilinear", "lanczos3"}, optional
        Kernel of the interpolation. Bicubic, the default, keeps the width of the point spread
        function, and positions, and spreads a bad pixel over 4 × 4. Bilinear blurs (a standard
        deviation of 0.41 input pixel along each axis) and spreads it over 2 × 2. Lanczos-3 leaves
        the noise least correlated, but may move a star that is barely sampled by 0.02 pixel, and
        spreads a bad pixel over 6 × 6.
    n_jobs : int, optional
        Threads that share the objects; -1 for one a core.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    CutoutSet
        Row-aligned with the input; unit, bands, ids and ``meta`` are kept. Bad rows, and rows
        without a WCS, off the grid or without a good pixel, have a ``status``. The catalog gains
        ``coverage``, the fraction of good pixels, and ``noise_correlation``, (n, n_band).

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    ImportError
        If the method is that of reproject, and it is not installed.

    Notes
    -----
    Flux is conserved: interpolated values are multiplied by the number of input pixels in the solid
    angle of each output pixel, which is found from the two WCS everywhere. Unless output pixels
    have the same size (within 2 %) or are much smaller (below 0.7), the interpolated image is
    averaged with the same kernel at their size, so that each input pixel keeps its share.

    The variance of an output pixel is the sum of the input variances with the squares of its
    weights. Neighbours share input pixels, so their noise is correlated: the variance of a sum of
    many pixels is the sum of their variances times ``noise_correlation``. It is that of the middle
    of the image, a circle of a third of its width, for apertures that are large beside a pixel of
    the input; the sigma of one with a radius of 6 of them is smaller by up to 5 %. Where pixels of
    nearly one size drift past each other, it changes over the image, and sigma by up to 5 % more.

    Where the input has such a column already, as after `match_psf` or another reprojection, means
    of its pixels have more noise than those of independent ones. The variance of a pixel is then
    that of noise which was resampled and has this correlation (sigma is right to some 5 %), and the
    correlation is followed so that sums over large apertures keep their variance.

    A pixel to which a bad pixel, or one off the image, gives any weight is masked. Positions are
    right to 1e-3 input pixel.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astro_morphvae.datasets import make_galaxies
    >>> from astro_morphvae.processing import reproject_cutouts
    >>> galaxies = make_galaxies(3, size=64, seed=1)
    >>> coarse = reproject_cutouts(galaxies, pixel_scale=0.4 * u.arcsec)
    >>> coarse.size
    (42, 42)
    """
    cutouts = as_cutout_set(cutouts)
    if method not in _METHODS:
        raise ValueError(f"method: expected one of {tuple(_METHODS)}, got {method!r}")
    if kernel not in INTERPOLATION:
        raise ValueError(f"kernel: expected one of {tuple(INTERPOLATION)}, got {kernel!r}")
    n_jobs = parse_n_jobs(n_jobs)
    if cutouts.wcs is None:
        raise ValueError("cutouts: they have no celestial WCS")
    grids = parse_grids(
        cutouts, target_wcs=target_wcs, pixel_scale=pixel_scale, like=like, size=size
    )
    if method != "interp":
        import_optional("reproject", needed_for=f"method={method!r}")
    work = _Work(cutouts, grids, method, kernel)
    for_each_row(work, len(cutouts), n_jobs=n_jobs, label="reproject", progress=progress)
    return work.result()


class _Work:
    """Reproject row by row, in any order, into one set."""

    def __init__(self, cutouts, grids, method, kernel):
        self.cutouts, self.grids, self.method, self.kernel = cutouts, grids, method, kernel
        n, n_band = cutouts.shape[:2]
        shape = n, n_band, *grids.size
        self.data = np.full(shape, np.nan, dtype=np.float32)
        self.mask = np.ones(shape, dtype=bool)
        self.ivar = None if cutouts.ivar is None else np.zeros(shape, dtype=np.float32)
        self.statuses = np.asarray(cutouts.catalog["status"], dtype=object).copy()
        self.coverage = np.zeros(n)
        # That of the input, until a row is done.
        self.correlation = np.ones((n, n_band))
        self.blur = np.full(n, np.nan)  # variance that the kernel adds, in arcsec²
        self.entries = [None] * n
        names = cutouts.catalog.colnames
        if "noise_correlation" in names:
            before = np.asarray(cutouts.catalog["noise_correlation"], dtype=float)
            self.correlation *= before if before.ndim > 1 else before[:, np.newaxis]
        self.positions = np.full((n, 2), np.nan)
        if "ra" in names and "dec" in names:
            ra, dec = (_degrees(cutouts.catalog[name]) for name in ("ra", "dec"))
            self.positions = np.stack([ra, dec], axis=1)

    def __call__(self, row):
        with quiet_astropy():
            source = self.cutouts.wcs[row]
        try:
            if source is None:
                problem = "no WCS"
            else:
                problem = self._reproject(row, source)
        except (ValueError, ArithmeticError, NoConvergence) as error:
            problem = f"invalid WCS: {str(error).partition(chr(10))[0]}"
        if problem != OK and self.statuses[row] == OK:
            self.statuses[row] = problem
        if self.statuses[row] != OK:
            self.data[row] = np.nan
            self.mask[row] = True
            self.coverage[row] = 0.0
            if self.ivar is not None:
                self.ivar[row] = 0

    def _reproject(self, row, source):
        if not np.isfinite(self.positions[row]).all():
            self.positions[row] = centre_and_scale(source, self.cutouts.size)[:2]
        target = self.grids.wcs_of(row, self.positions[row])
        if target is None:
            return "no target WCS" if self.grids.entries is not None else "invalid position"
        self.entries[row] = target
        if self.statuses[row] != OK:
            return self.statuses[row]
        pixels = map_pixels(source, target, self.grids.size)
        ratio = max(pixels.stretch)
        if ratio > _METHODS[self.method]:
            return f"pixels too large: {ratio:.3g} times those of the image, for {self.method!r}"
        if self.method != "interp" and window_size(pixels, self.method) > _LARGEST_WINDOW:
            return f"pixels too elongated for {self.method!r}"
        ny, nx = self.cutouts.size
        with np.errstate(invalid="ignore"):
            met = (np.abs(pixels.x - (nx - 1) / 2) < nx / 2) & (
                np.abs(pixels.y - (ny - 1) / 2) < ny / 2
            )
        if not met.any():
            return "outside the image"
        data, ivar, mask = self.cutouts.arrays(slice(row, row + 1))
        data, ivar, mask = (None if part is None else part[0] for part in (data, ivar, mask))
        weights = weigher(source, target, pixels, (ny, nx), self.method, self.kernel)
        inflations = fit_inflation(
            *weights[:2], (ny, nx), np.flatnonzero(met), self.correlation[row]
        )
        data, ivar, mask, correlation = carry(*weights, pixels.area, data, ivar, mask, inflations)
        bad, blank = clean_pixels(data, ivar, mask)
        self.data[row], self.mask[row] = data, False if bad is None else bad
        if ivar is not None:
            self.ivar[row] = ivar
        self.coverage[row] = 1 - self.mask[row].mean()
        self._measure_blur(row, source, target, pixels)
        status = status_of(data, blank, self.cutouts.bands)
        if status == OK:
            self.correlation[row] *= correlation
        return status

    def _measure_blur(self, row, source, target, pixels):
        scales = [centre_and_scale(wcs, (1, 1))[2] for wcs in (source, target)]
        if self.method == "interp":
            self.blur[row] = kernel_variance(self.kernel, pixels.stretch) * scales[0] ** 2
        elif self.method == "adaptive":
            self.blur[row] = ADAPTIVE_VARIANCE * max(scales) ** 2
        else:  # a pixel of each side, as boxes
            self.blur[row] = (scales[0] ** 2 + scales[1] ** 2) / 12

    def result(self):
        cutouts = self.cutouts
        catalog = cutouts.catalog.copy()
        if "ra" not in catalog.colnames and "dec" not in catalog.colnames:
            set_positions(catalog, *self.positions.T)
        set_status(catalog, self.statuses)
        catalog["coverage"] = Column(
            self.coverage, description="Fraction of pixels on the image and not masked"
        )
        catalog["noise_correlation"] = Column(
            self.correlation, description="Variance of a sum of pixels / sum of their variances"
        )
        psf_fwhm = cutouts.psf_fwhm
        if psf_fwhm is not None and np.isfinite(self.blur).any():
            added = _FWHM2_PER_VARIANCE * np.nanmedian(self.blur)
            psf_fwhm = np.sqrt(psf_fwhm.value**2 + added) * u.arcsec
        return CutoutSet._trusted(
            self.data,
            unit=cutouts.unit,
            bands=cutouts.bands,
            ivar=self.ivar,
            mask=self.mask if self.mask.any() else None,
            wcs=WCSList(self.entries),
            pixel_scale=self.grids.pixel_scale,
            psf_fwhm=psf_fwhm,
            catalog=order_columns(catalog),
            meta=cutouts.meta,
        )


def _degrees(column):
    """Angles of a catalog column; NaN where they are masked, or not numbers."""
    if hasattr(column, "filled"):
        column = column.filled(np.nan) if column.dtype.kind == "f" else column.filled()
    try:
        return u.Quantity(column, u.deg).value.astype(float)
    except (TypeError, u.UnitConversionError):
        return np.full(len(column), np.nan)
