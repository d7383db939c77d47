"""Cutouts brought to one resolution: point spread functions matched, with noise and mask."""

from functools import lru_cache

import astropy.units as u
import numpy as np
from astropy.table import Column

from ..cutouts import CutoutSet, as_cutout_set
from ..cutouts._parse import OK, list_rows, order_columns, set_status, status_of
from ._convolve import Convolver
from ._kernels import (
    correlated_power,
    fit_kernel,
    photutils_matching,
    residual_of,
    windowed_kernel,
)
from ._psf_images import MIN_FWHM
from ._psf_sources import parse_psf, parse_target
from ._threads import for_each_row, parse_n_jobs

__all__ = ["common_fwhm", "match_psf"]

_UNREACHABLE = ("raise", "flag")


def match_psf(
    cutouts,
    *,
    target_fwhm=None,
    target_psf=None,
    psf=None,
    beta=3.5,
    psf_beta=None,
    window=None,
    tolerance=0.01,
    max_bad_weight=0.01,
    unreachable="raise",
    n_jobs=1,
    progress=False,
):
    """Blur cutouts to a common point spread function: flux, inverse variance and mask together.

    Parameters
    ----------
    cutouts : CutoutSet
        See `~astro_morphvae.cutouts.as_cutout_set` for what else is taken. Not changed.
    target_fwhm : `~astropy.units.Quantity` [angle], optional
        Wanted: a Moffat profile of this full width at half maximum, one value or one a band.
    target_psf : array or (array, `~astropy.units.Quantity`), optional
        Wanted: these images, (ny, nx) or (n_band, ny, nx), with the size of their pixels where it
        is not that of the cutouts. Exactly one of the two targets is given.
    psf : optional
        What the cutouts have; by default Moffat profiles of their ``psf_fwhm``.

        - `~astropy.units.Quantity`: Moffat profiles of these widths, one value, one a band, or
          (n, n_band).
        - array or (array, pixel scale): images, (ny, nx), (n_band, ny, nx) or
          (n, n_band, ny, nx).
        - `PSFExModel`, or a sequence of one a band: evaluated at ``x`` and ``y`` of the catalog,
          the position of each row on the CCD, as `~astro_morphvae.cutouts.extract_cutouts` gives.
          Pixels of the cutouts have to lie along those of the CCD, and be as large where the model
          does not know its pixel scale.
    beta : float, optional
        Exponent of the Moffat profile of the target.
    psf_beta : float, optional
        Exponent of the Moffat profile of the cutouts; ``beta`` by default.
    window : callable, optional
        A window of `photutils.psf_matching`: the kernel is then photutils' ratio of Fourier
        transforms under this window. By default it is fitted pixel by pixel, which comes closer to
        the target with less noise.
    tolerance : float, optional
        Largest difference from the target that is accepted anywhere, in units of its peak. Cutouts
        that are as close to the target stay as they are.
    max_bad_weight : float, optional
        Share of a kernel's absolute weight that may fall on masked pixels, or off the cutout; the
        others are then weighted up. Pixels where it is more are masked. 0 masks every pixel that
        the kernel reaches from a bad one.
    unreachable : {"raise", "flag"}, optional
        What becomes of rows whose point spread function is wider than the target or cannot be
        turned into it: an error, or a row with a ``status``.
    n_jobs : int, optional
        Threads that share the rows; -1 for one a core.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    CutoutSet
        Row-aligned with the input; unit, bands, WCS, ids and ``meta`` are kept, ``psf_fwhm`` is
        that of the target. The catalog gains ``coverage``, the fraction of good pixels, and
        ``noise_correlation``, (n, n_band).

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, or a target is sharper than the cutouts; the message names the
        argument, or the band, the row and the widths.
    ImportError
        If a window is given and photutils is not installed.

    See Also
    --------
    common_fwhm : The width that several sets can reach.

    Notes
    -----
    The kernel is the smoothest one that comes within half of ``tolerance`` of the target, found by
    least squares with a ridge. Its sum is 1, so flux is conserved. It may amplify noise by no more
    than a factor of 2 at any spatial frequency: an elongated point spread function can be made
    round if the target is a few per cent wider than its area says.

    The variance of a pixel is the sum of the input variances with the squares of the kernel's
    weights. Neighbours share input pixels, so their noise is correlated: the variance of a sum of
    many pixels is the sum of their variances times ``noise_correlation``. Where the input has such
    a column already, as after `reproject_cutouts`, the variance of a pixel is that of noise which
    was resampled and has this correlation (right to some 3 % of sigma). Pixels of inverse variance
    0 stay unknown: where the kernel puts more than ``max_bad_weight`` on them, so is the result.

    The point spread function must be sampled: at least 1.5 pixels wide. Images of it must be
    centred, and include the response of a pixel.

    References
    ----------
    .. [1] Alard & Lupton 1998, ApJ 503, 325. [2] Becker et al. 2012, MNRAS 425, 1341.

    Examples
    --------
    >>> from astro_morphvae.datasets import make_survey_pair
    >>> from astro_morphvae.processing.psf import common_fwhm, match_psf
    >>> decals, bass = make_survey_pair(4, size=64, seed=1)
    >>> width = common_fwhm(decals, bass)
    >>> decals, bass = (match_psf(cutouts, target_fwhm=width) for cutouts in (decals, bass))
    >>> decals.psf_fwhm
    <Quantity [1.61, 1.47, 1.11] arcsec>
    """
    cutouts = as_cutout_set(cutouts)
    if unreachable not in _UNREACHABLE:
        raise ValueError(f"unreachable: expected one of {_UNREACHABLE}, got {unreachable!r}")
    for name, value in (("tolerance", tolerance), ("max_bad_weight", max_bad_weight)):
        if not (np.isscalar(value) and 0 <= value < 1):
            raise ValueError(f"{name}: expected a fraction from 0 to 1, got {value!r}")
    n_jobs = parse_n_jobs(n_jobs)
    if window is not None:
        photutils_matching()
        if not callable(window):
            raise TypeError(f"window: expected a window of photutils.psf_matching, got {window!r}")
    target, widths, fwhm = parse_target(target_fwhm, target_psf, cutouts, beta)
    source = parse_psf(psf, cutouts, beta if psf_beta is None else psf_beta)
    matcher = _Matcher(cutouts, source, target, widths, tolerance, window, max_bad_weight)
    matcher.refuse_wide(flag=unreachable == "flag")
    for_each_row(matcher, len(cutouts), n_jobs=n_jobs, label="match PSF", progress=progress)
    return matcher.result(fwhm)


def common_fwhm(*widths, margin=0.0):
    """Find the narrowest width that several sets of cutouts can be matched to, band by band.

    Parameters
    ----------
    *widths : CutoutSet or `~astropy.units.Quantity` [angle]
        Sets that know their ``psf_fwhm``, or widths: one a band, or (n, n_band).
    margin : float, optional
        Fraction added to the widest. Moffat profiles of one exponent need none; real point spread
        functions, which are neither round nor alike in their wings, take some 5 %.

    Returns
    -------
    (n_band,) `~astropy.units.Quantity`
        In arcsec.

    Raises
    ------
    ValueError, TypeError
        If a set does not know its widths, or bands differ.
    """
    if not widths:
        raise ValueError("widths: expected at least one set of cutouts")
    if not (np.isscalar(margin) and np.isfinite(margin) and margin >= 0):
        raise ValueError(f"margin: expected a fraction of at least 0, got {margin!r}")
    widest, bands = [], None
    for item in widths:
        if isinstance(item, CutoutSet):
            if bands not in (None, item.bands):
                raise ValueError(f"widths: bands {', '.join(bands)} and {', '.join(item.bands)}")
            bands = item.bands
            if item.psf_fwhm is None:
                raise ValueError("widths: a set of cutouts that does not know its psf_fwhm")
            item = item.psf_fwhm
        elif not (isinstance(item, u.Quantity) and item.unit.is_equivalent(u.arcsec)):
            raise TypeError(f"widths: expected cutouts or angles, got {item!r}")
        values = np.atleast_1d(item.to_value(u.arcsec))
        widest.append(np.nanmax(values.reshape(-1, values.shape[-1]), axis=0))
    try:
        return np.max(np.broadcast_arrays(*widest), axis=0) * (1 + margin) * u.arcsec
    except ValueError:
        raise ValueError(
            f"widths: numbers of bands differ: {', '.join(str(len(w)) for w in widest)}"
        ) from None


class _Plan:
    """What rows of the same point spread functions have in common."""

    def __init__(self, kernels, size, max_bad_weight):
        self.kernels = kernels
        self.convolver = Convolver(kernels, size, max_bad_weight)

    def noise(self, correlation):
        """Factors on the propagated variance, and the correlation after the kernels."""
        inflation, after = np.ones(len(self.kernels)), np.array(correlation, dtype=float)
        for band, kernel in enumerate(self.kernels):
            if kernel is not None:
                squares = np.sum(kernel**2)
                power = correlated_power(kernel, correlation[band], "resampled")
                inflation[band] = max(correlation[band], 1.0) * power / squares
                after[band] = min(correlation[band], 1.0) / power
        return inflation, after


class _Matcher:
    """Match row by row, in any order, into one set."""

    def __init__(self, cutouts, source, target, widths, tolerance, window, max_bad_weight):
        self.cutouts, self.source = cutouts, source
        self.target, self.target_widths = target, np.asarray(widths)
        self.tolerance, self.window, self.max_bad_weight = tolerance, window, max_bad_weight
        n, n_band = cutouts.shape[:2]
        self.data = np.full(cutouts.shape, np.nan, dtype=np.float32)
        self.mask = np.ones(cutouts.shape, dtype=bool)
        self.ivar = None if cutouts.ivar is None else np.zeros(cutouts.shape, dtype=np.float32)
        self.statuses = np.asarray(cutouts.catalog["status"], dtype=object).copy()
        self.coverage = np.zeros(n)
        self.correlation = np.ones((n, n_band))
        if "noise_correlation" in cutouts.catalog.colnames:
            self.correlation *= np.asarray(cutouts.catalog["noise_correlation"])
        self.flag = False
        # Rows share kernels in sets where they share the point spread function.
        self.plan = lru_cache(maxsize=32)(self._plan)

    def refuse_wide(self, flag):
        """Find the rows that would have to be sharpened, before anything is done."""
        self.flag = flag
        groups = {}
        for row in np.flatnonzero(self.cutouts.good):
            groups.setdefault(self.source.key(row), []).append(row)
        found = {}
        for key, rows in groups.items():
            widths = enumerate(self.source.widths(key))
            problems = (self._refusal(width, band) for band, width in widths)
            if problem := next(filter(None, problems), None):
                found.setdefault(problem, []).extend(rows)
        for problem, rows in found.items():
            self.statuses[rows] = problem
        if found and not flag:
            texts = [f"{problem} in rows {list_rows(rows)}" for problem, rows in found.items()]
            more = f"; and {len(texts) - 3} more" if len(texts) > 3 else ""
            raise ValueError(
                "psf: " + "; ".join(texts[:3]) + more + "; take a wider target (common_fwhm), or "
                "unreachable='flag' to leave such rows out"
            )

    def _refusal(self, width, band):
        name, target = self.cutouts.bands[band], self.target_widths[band]
        if not (np.isfinite(width) and width > 0):
            return f"PSF unknown in {name}"
        if width < MIN_FWHM:
            return f"PSF undersampled in {name}: {self._show(width)}"
        # A residual of the tolerance is a difference of half of it in width.
        if width > target * (1 + 0.5 * self.tolerance):
            return f"PSF wider than the target in {name}: {self._show(width, target)}"
        return ""

    def _show(self, *pixels):
        scale = self.cutouts.pixel_scale
        unit = "pixels" if scale is None else "arcsec"
        factor = 1 if scale is None else scale.value
        return " > ".join(f"{width * factor:.4g}" for width in pixels) + f" {unit}"

    def _plan(self, key):
        """Kernels of the bands, or a text that says why there are none."""
        kernels = []
        for band, (image, target) in enumerate(
            zip(self.source.images(key), self.target, strict=True)
        ):
            kernel, residual = None, residual_of(image, target)
            if residual > self.tolerance:
                if self.window is None:
                    best = fit_kernel(image, target, self.tolerance)
                else:
                    best = windowed_kernel(image, target, self.window)
                kernel, residual = best.array, best.residual
            if residual > self.tolerance:
                return (
                    f"target PSF out of reach in {self.cutouts.bands[band]}: residual "
                    f"{residual:.3g} of its peak > {self.tolerance:.3g}"
                )
            kernels.append(kernel)
        return _Plan(kernels, self.cutouts.size, self.max_bad_weight)

    def __call__(self, row):
        if self.statuses[row] != OK:
            return
        plan = self.plan(self.source.key(row))
        if isinstance(plan, str):
            if not self.flag:
                raise ValueError(f"psf: {plan} in row {row}")
            self.statuses[row] = plan
            return
        data, ivar, mask = self.cutouts.arrays(slice(row, row + 1))
        data, ivar = data[0], None if ivar is None else ivar[0]
        mask = np.zeros(data.shape, dtype=bool) if mask is None else mask[0]
        inflation, correlation = plan.noise(self.correlation[row])
        plan.convolver(data, ivar, mask, inflation)
        blank = np.flatnonzero(mask.all(axis=(1, 2))).tolist()
        # That no pixel is good, not that all are zero, is what there is to say.
        status = status_of(mask, blank, self.cutouts.bands)
        if status != OK:
            self.statuses[row] = f"after PSF matching: {status}"
            return
        self.data[row], self.mask[row], self.correlation[row] = data, mask, correlation
        self.coverage[row] = 1 - mask.mean()
        if ivar is not None:
            self.ivar[row] = ivar

    def result(self, fwhm):
        cutouts = self.cutouts
        catalog = cutouts.catalog.copy()
        set_status(catalog, self.statuses)
        catalog["coverage"] = Column(
            self.coverage, description="Fraction of pixels on the image and not masked"
        )
        catalog["noise_correlation"] = Column(
            self.correlation, description="Variance of a sum of pixels / sum of their variances"
        )
        return CutoutSet._trusted(
            self.data,
            unit=cutouts.unit,
            bands=cutouts.bands,
            ivar=self.ivar,
            mask=self.mask if self.mask.any() else None,
            wcs=cutouts.wcs,
            pixel_scale=cutouts.pixel_scale,
            psf_fwhm=fwhm,
            catalog=order_columns(catalog),
            meta=cutouts.meta,
        )
