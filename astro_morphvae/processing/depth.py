"""Depth of cutouts: measured from their noise, and brought to that of a shallower survey."""

import hashlib

import astropy.units as u
import numpy as np
from astropy.table import Column
from scipy import fft

from ..cutouts import CutoutSet, as_cutout_set
from ..cutouts._parse import list_rows, order_columns
from ._kernels import correlated_power, noise_spectrum
from ._psf_sources import parse_psf

__all__ = ["aperture_correlation", "match_depth", "point_source_depth"]

_ZERO_POINT = 22.5  # AB magnitude of one nanomaggy
_UNREACHABLE = ("raise", "leave")
_CORRELATION = "Variance of a sum of pixels / sum of their variances"


def point_source_depth(cutouts, *, psf=None, psf_beta=3.5, n_sigma=5.0):
    """Measure the depth of each cutout: the faintest point source that its noise lets through.

    Parameters
    ----------
    cutouts : CutoutSet
        In nanomaggies, with inverse variance. Not changed.
    psf : optional
        Point spread function, as `match_psf` takes it; by default Moffat profiles of their
        ``psf_fwhm``.
    psf_beta : float, optional
        Exponent of the Moffat profiles.
    n_sigma : float, optional
        Significance of the detection.

    Returns
    -------
    (n, n_band) `~astropy.units.Quantity`
        AB magnitudes; NaN for bad rows and where no pixel has a known variance.

    Raises
    ------
    ValueError, TypeError
        If the cutouts have no inverse variance or another unit, or the point spread function is
        unknown.

    Notes
    -----
    The flux of a source is measured with its own profile P as weight, where the variance is the
    median over the cutout, which is that of the sky where the galaxy fills less than half of it.
    Correlated noise (``noise_correlation`` of the catalog) counts as in `aperture_correlation`.

    References
    ----------
    .. [1] King 1983, PASP 95, 163 (noise-equivalent area).
    """
    cutouts = as_cutout_set(cutouts)
    _check_calibrated(cutouts)
    if not (np.isscalar(n_sigma) and np.isfinite(n_sigma) and n_sigma > 0):
        raise ValueError(f"n_sigma: expected a positive number, got {n_sigma!r}")
    variance, _ = _flux_variance(cutouts, psf, psf_beta)
    return (_ZERO_POINT - 2.5 * np.log10(n_sigma * np.sqrt(variance))) * u.mag


def match_depth(
    cutouts,
    *,
    target_ivar=None,
    target_depth=None,
    like=None,
    seed,
    psf=None,
    unreachable="raise",
    tolerance=0.01,
):
    """Add noise to cutouts until their pixels have the variance of a shallower survey.

    Parameters
    ----------
    cutouts : CutoutSet
        With inverse variance. Not changed.
    target_ivar : `~astropy.units.Quantity` or float or array, optional
        Inverse variance per pixel wanted, in 1 / unit² of the cutouts where it is a bare number:
        one value, one a band, or (n, n_band).
    target_depth : `~astropy.units.Quantity` [mag], optional
        Depth wanted, as `point_source_depth` measures it: one value, one a band, or (n, n_band).
        All pixels of a band get the same noise. Reached to 0.1 mag where noise is correlated.
    like : CutoutSet, optional
        The shallower survey: each pixel gets the variance of the same pixel there, for which the
        sets have to be row-aligned and on one grid. Exactly one of these three is given.
    seed : int
        Seed of the noise. With it the noise of a row and band follows from the ``id`` and the name
        of the band, whatever the order of the rows and which others there are.
    psf : optional
        Point spread function, for ``target_depth``, as `match_psf` takes it.
    unreachable : {"raise", "leave"}, optional
        What becomes of a band of a row that is noisier than the target already: an error, or it
        stays as it is.
    tolerance : float, optional
        Fraction by which the variance may lie above the target without counting as noisier.

    Returns
    -------
    CutoutSet
        Row-aligned with the input, with the inverse variance of its new noise. The catalog gains
        ``noise_correlation``, (n, n_band).

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, or noise would have to be removed; the message names the
        argument, or band and rows.

    Notes
    -----
    The noise added is Gaussian. It is white where the cutouts and the target have white noise.
    Where they have correlated noise, as after `match_psf`, it is what their noise lacks at each
    spatial frequency, so that the variance of pixels, as well as that of sums over apertures, is
    that of the target, with the ``noise_correlation`` of ``like`` (1 for ``target_ivar``). Power
    spectra follow from ``noise_correlation`` as in `aperture_correlation`. So match the point
    spread function first and the depth last: a blur after it would take the noise away again.

    Whether a row is noisier than the target is judged by the median variance of its pixels, and by
    that of sums over large apertures: this variance times ``noise_correlation``. A pixel
    that is noisier although its row is not, as in a bright galaxy, keeps its variance. Where
    ``like`` knows no variance, the median of its band stands for it; where it knows none in the
    whole band, as in a bad row, nothing is added.

    Examples
    --------
    >>> from astro_morphvae.datasets import make_survey_pair
    >>> from astro_morphvae.processing import match_depth
    >>> decals, bass = make_survey_pair(4, size=64, seed=1)
    >>> shallow = match_depth(decals, like=bass, seed=3, unreachable="leave")
    >>> shallow.ivar[0, 0].mean() < decals.ivar[0, 0].mean()
    np.True_
    """
    cutouts = as_cutout_set(cutouts)
    if cutouts.ivar is None:
        raise ValueError("cutouts: they have no uncertainty, so their depth is unknown")
    if unreachable not in _UNREACHABLE:
        raise ValueError(f"unreachable: expected one of {_UNREACHABLE}, got {unreachable!r}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: expected an int of at least 0, got {seed!r}")
    target, goal = _parse_target(cutouts, target_ivar, target_depth, like, psf)
    correlation = _correlation(cutouts)
    rows = np.flatnonzero(cutouts.good)
    have, wanted = (np.full(cutouts.shape[:2], np.nan) for _ in range(2))
    for row in rows:
        variance = _variance(cutouts.ivar[row])
        have[row], wanted[row] = _median(variance), _median(target(row, variance))
    # Of pixels, and of sums over large apertures, per pixel.
    pairs = {"variance": (have, wanted)}
    if goal is not None:
        pairs["variance of sums per pixel"] = (have * correlation, wanted * goal)
    noisier = np.zeros(have.shape, dtype=bool)
    for what, (own, other) in pairs.items():
        with np.errstate(invalid="ignore"):
            found = own > other * (1 + tolerance)
        if found.any() and unreachable == "raise":
            raise ValueError(_describe(cutouts, found, what, own, other))
        noisier |= found
    data, ivar = (np.array(part, dtype=np.float32) for part in (cutouts.data, cutouts.ivar))
    keys = _row_keys(cutouts.catalog["id"])
    for row in rows:
        variance = _variance(cutouts.ivar[row])
        added = np.nan_to_num(np.maximum(target(row, variance) - variance, 0))
        for band in np.flatnonzero(~noisier[row] & added.any(axis=(1, 2))):
            rng = np.random.default_rng([int(seed), *keys[row], *_digest(cutouts.bands[band])])
            noise, own = rng.standard_normal(cutouts.size), 1.0
            if goal is not None:
                spectra = (
                    v[row, band] * c * noise_spectrum(c, "matched", cutouts.size)
                    for v, c in ((have, correlation[row, band]), (wanted, goal[row, band]))
                )
                noise, own = _coloured(noise, *spectra)
            data[row, band] += noise * np.sqrt(added[band])
            total = variance[band] + added[band]
            ivar[row, band] = np.nan_to_num(1 / total)
            share = np.nansum(variance[band]) / np.nansum(total)
            correlation[row, band] = share * correlation[row, band] + (1 - share) * own
    catalog = cutouts.catalog.copy()
    catalog["noise_correlation"] = Column(correlation, description=_CORRELATION)
    return CutoutSet._trusted(
        data,
        unit=cutouts.unit,
        bands=cutouts.bands,
        ivar=ivar,
        mask=cutouts.mask,
        wcs=cutouts.wcs,
        pixel_scale=cutouts.pixel_scale,
        psf_fwhm=cutouts.psf_fwhm,
        catalog=order_columns(catalog),
        meta=cutouts.meta,
    )


def aperture_correlation(noise_correlation, weights):
    """Find the correlation factor of noise in an aperture, which is lower in a small one.

    Parameters
    ----------
    noise_correlation : float or array
        That of large apertures, as the catalogs of cutouts give it.
    weights : (ny, nx) array
        Weights of the pixels: 1 in an aperture and 0 around it, or a profile.

    Returns
    -------
    float or array, shaped as ``noise_correlation``
        The variance of ``sum(weights * data)`` is ``sum(weights**2 * variance)`` times this factor,
        where the variance changes little over the aperture.

    Notes
    -----
    How noise is correlated at each distance is not kept. It is taken as that which a kernel of
    `match_psf` leaves, for which the result is right to a few per cent of sigma.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_morphvae.processing.depth import aperture_correlation
    >>> y, x = np.mgrid[-10:11, -10:11]
    >>> factors = [aperture_correlation(16.0, np.hypot(x, y) < radius) for radius in (2, 5, 10)]
    >>> np.round(factors, 1)
    array([ 5.2, 10.7, 13.2])
    """
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 2 or not np.isfinite(weights).all() or not weights.any():
        raise ValueError("weights: expected a finite (ny, nx) image that is not 0 everywhere")
    correlation = np.asarray(noise_correlation, dtype=float)
    if not (correlation > 0).all():
        raise ValueError(f"noise_correlation: expected positive numbers, got {noise_correlation}")
    power = [correlated_power(weights, c, "matched") * max(c, 1.0) for c in correlation.flat]
    factors = np.reshape(power, correlation.shape) / np.sum(weights**2) * np.minimum(correlation, 1)
    return factors[()]


def _correlation(cutouts):
    """Noise correlation of every row and band, a new array; 1 where nothing says."""
    if "noise_correlation" not in cutouts.catalog.colnames:
        return np.ones(cutouts.shape[:2])
    return np.array(cutouts.catalog["noise_correlation"], dtype=float)


def _variance(ivar):
    """Variance of the pixels of one row, (n_band, ny, nx); NaN where it is unknown."""
    ivar = np.asarray(ivar, dtype=float)
    return np.divide(1, ivar, out=np.full(ivar.shape, np.nan), where=ivar > 0)


def _median(variance):
    """Median over the known pixels of each band; NaN where there is none."""
    flat = variance.reshape(len(variance), -1)
    known = np.isfinite(flat)
    return np.array(
        [np.median(v[k]) if k.any() else np.nan for v, k in zip(flat, known, strict=True)]
    )


def _coloured(noise, have, wanted):
    """Give white noise the power spectrum that is missing: unit variance, and its correlation."""
    missing = np.maximum(wanted - have, 0)
    # Frequencies between the first and the last column stand for two.
    twice = np.full(missing.shape[1], 2.0)
    twice[0] = 1
    if noise.shape[1] % 2 == 0:
        twice[-1] = 1
    mean = np.sum(missing * twice) / noise.size
    if not mean > 0:
        return noise, 1.0
    noise = fft.irfft2(fft.rfft2(noise) * np.sqrt(missing / mean), s=noise.shape)
    return noise, missing[0, 0] / mean


def _parse_target(cutouts, ivar, depth, like, psf):
    """Make a function of row and its variances that gives the variances wanted.

    With it comes the noise correlation wanted, (n, n_band); None where white noise is to be added
    whatever there is.
    """
    if sum(value is not None for value in (ivar, depth, like)) != 1:
        raise ValueError("give exactly one of target_ivar, target_depth and like")
    if like is not None:
        return _like(cutouts, like)
    if ivar is not None:
        unit = cutouts.unit**-2
        values = u.Quantity(ivar, unit).value if isinstance(ivar, u.Quantity) else ivar
        values = _table("target_ivar", values, cutouts)
        if not (values > 0).all():
            raise ValueError(f"target_ivar: expected positive numbers, got {ivar}")
        white = np.ones(cutouts.shape[:2])
        return (
            lambda row, variance: variance * 0 + 1 / values[row][:, np.newaxis, np.newaxis],
            white,
        )
    return _depth(cutouts, depth, psf), None


def _like(cutouts, like):
    if not isinstance(like, CutoutSet):
        raise TypeError(f"like: expected a CutoutSet, got {type(like).__name__}")
    if like.ivar is None:
        raise ValueError("like: it has no uncertainty")
    for name, own, other in (
        ("shape", cutouts.shape, like.shape),
        ("bands", cutouts.bands, like.bands),
        ("unit", cutouts.unit, like.unit),
    ):
        if own != other:
            raise ValueError(f"like: {name} {other} for cutouts of {name} {own}")

    def wanted(row, variance):
        found = _variance(like.ivar[row])
        return np.where(np.isfinite(found), found, _median(found)[:, np.newaxis, np.newaxis])

    return wanted, _correlation(like)


def _depth(cutouts, depth, psf):
    _check_calibrated(cutouts)
    if not (isinstance(depth, u.Quantity) and depth.unit in (u.mag, u.ABmag)):
        raise TypeError(f"target_depth: expected magnitudes such as 24 * u.mag, got {depth!r}")
    values = _table("target_depth", depth.value, cutouts)
    if not np.isfinite(values[cutouts.good]).all():
        raise ValueError(f"target_depth: expected finite magnitudes, got {depth}")
    limit = 10 ** (0.4 * (_ZERO_POINT - values)) / 5
    have, squares = _flux_variance(cutouts, psf, 3.5)
    # White noise of unit variance per pixel adds 1 / squares to the variance of the flux.
    added = (limit**2 - have) * squares
    return lambda row, variance: variance + added[row][:, np.newaxis, np.newaxis]


def _table(name, values, cutouts):
    """Numbers as (n, n_band)."""
    values = np.asarray(values, dtype=float)
    n, n_band = cutouts.shape[:2]
    if values.shape not in ((), (n_band,), (n, n_band)):
        raise ValueError(
            f"{name}: expected shape (), ({n_band},) or {(n, n_band)}, got {values.shape}"
        )
    return np.broadcast_to(values, (n, n_band))


def _check_calibrated(cutouts):
    if cutouts.ivar is None:
        raise ValueError("cutouts: they have no uncertainty, so their depth is unknown")
    if cutouts.unit != u.nmgy:
        raise ValueError(f"cutouts: expected the unit nmgy, got {cutouts.unit}")


def _flux_variance(cutouts, psf, beta):
    """Variance of point-source fluxes, and sum of the squares of the profile: (n, n_band) each."""
    source = parse_psf(psf, cutouts, beta)
    correlation = _correlation(cutouts)
    variance, squares = (np.full(cutouts.shape[:2], np.nan) for _ in range(2))
    key = images = None
    for row in np.flatnonzero(cutouts.good):
        if images is None or source.key(row) != key:
            key = source.key(row)
            images = source.images(key)
        pixel = _median(_variance(cutouts.ivar[row]))
        for band, image in enumerate(images):
            if image is not None:
                squares[row, band] = np.sum(image**2)
                factor = aperture_correlation(correlation[row, band], image)
                variance[row, band] = pixel[band] * factor / squares[row, band]
    return variance, squares


def _describe(cutouts, noisier, what, have, wanted):
    texts = []
    for band in np.flatnonzero(noisier.any(axis=0)):
        rows = np.flatnonzero(noisier[:, band])
        row = rows[0]
        texts.append(
            f"{cutouts.bands[band]} in rows {list_rows(rows)} ({what} {have[row, band]:.3g} > "
            f"{wanted[row, band]:.3g} in row {row})"
        )
    return (
        "cutouts: noisier than the target already: " + "; ".join(texts) + "; noise is not removed, "
        "unreachable='leave' leaves them as they are"
    )


def _row_keys(ids):
    """Numbers that belong to the id of each row; those of equal ids differ by their count."""
    seen, keys = {}, []
    for name in ids:
        name = str(name)
        seen[name] = seen.get(name, -1) + 1
        keys.append([*_digest(name), seen[name]])
    return keys


def _digest(text):
    """Two numbers made from a text, the same on every machine."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
