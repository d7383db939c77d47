"""Distances between the means and covariances of two samples: Fréchet and CORAL."""

import numpy as np

from ._samples import join

__all__ = ["coral_distance", "coral_values", "frechet_distance", "frechet_values", "moments"]

_BLOCK = 4_000_000  # products of latents held at once


def frechet_distance(a, b):
    """Squared Fréchet distance of two samples, taken as Gaussians [1]_.

    Parameters
    ----------
    a, b : (n_a, d) and (n_b, d) array
        The samples.

    Returns
    -------
    float
        Squared distance of the means plus that of the covariances,
        ``tr(A + B - 2 (A**½ B A**½)**½)``, in squared units of the latents. Of finite samples it
        is larger than zero even where the populations are the same.

    Raises
    ------
    ValueError
        If shapes do not fit.

    References
    ----------
    .. [1] Dowson & Landau 1982, J. Multivariate Anal. 12, 450.
    """
    return float(frechet_values(*_both(a, b))[0])


def coral_distance(a, b):
    """Squared distance of the covariances of two samples, the CORAL loss of [1]_.

    Parameters
    ----------
    a, b : (n_a, d) and (n_b, d) array
        The samples.

    Returns
    -------
    float
        Sum of the squared differences of the covariances, over ``4 d**2``.

    Raises
    ------
    ValueError
        If shapes do not fit.

    References
    ----------
    .. [1] Sun & Saenko 2016, ECCV Workshops, LNCS 9915, 443.
    """
    return float(coral_values(*_both(a, b))[0])


def moments(x, weights):
    """Mean and covariance of weighted samples.

    Parameters
    ----------
    x : (n, d) array
        Latents.
    weights : (n_sample, n) array
        How often each row counts.

    Returns
    -------
    mean : (n_sample, d) array of float
        Means.
    covariance : (n_sample, d, d) array of float
        Covariances, over one less than the number of galaxies.
    """
    n, d = x.shape
    upper = np.triu_indices(d)
    total = weights.sum(axis=1, dtype=float)[:, None]
    first = np.zeros((len(weights), d))
    second = np.zeros((len(weights), len(upper[0])))
    step = max(1, _BLOCK // len(upper[0]))
    for start in range(0, n, step):
        part, w = x[start : start + step], weights[:, start : start + step].astype(float)
        first += w @ part
        second += w @ (part[:, upper[0]] * part[:, upper[1]])
    mean = first / total
    flat = (second - total * mean[:, upper[0]] * mean[:, upper[1]]) / (total - 1)
    covariance = np.empty((len(weights), d, d))
    covariance[:, upper[0], upper[1]] = flat
    covariance[:, upper[1], upper[0]] = flat
    return mean, covariance


def frechet_values(mean_a, cov_a, mean_b, cov_b):
    """Squared Fréchet distances of Gaussians.

    Parameters
    ----------
    mean_a, mean_b : (n_sample, d) array
        Means.
    cov_a, cov_b : (n_sample, d, d) array
        Covariances.

    Returns
    -------
    (n_sample,) array of float
        The distances.
    """
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))[:, None]) @ vectors.transpose(0, 2, 1)
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum(axis=1)
    traces = np.trace(cov_a, axis1=1, axis2=2) + np.trace(cov_b, axis1=1, axis2=2)
    return np.sum((mean_a - mean_b) ** 2, axis=1) + np.maximum(traces - 2 * cross, 0)


def coral_values(mean_a, cov_a, mean_b, cov_b):
    """CORAL distances; the means do not matter.

    Parameters
    ----------
    mean_a, mean_b, cov_a, cov_b : array
        As for `frechet_values`.

    Returns
    -------
    (n_sample,) array of float
        The distances.
    """
    return np.sum((cov_a - cov_b) ** 2, axis=(1, 2)) / (4 * cov_a.shape[-1] ** 2)


def _both(a, b):
    samples = join(a, b)
    first = np.zeros((1, len(samples.x)))
    first[:, : samples.n_a] = 1
    return (*moments(samples.x, first), *moments(samples.x, 1 - first))
