"""Kolmogorov–Smirnov statistics of each latent, for many weighted samples at once."""

import numpy as np

__all__ = ["adjusted_p_values", "ks_values"]

_BLOCK = 4_000_000  # steps of the distribution functions held at once
_TIE = 1e-6  # differences of distribution functions that float32 cannot tell apart


def ks_values(x, weights_a, weights_b):
    """Largest distance of the distribution functions of two samples, latent by latent.

    Parameters
    ----------
    x : (n, d) array
        Latents of both surveys.
    weights_a, weights_b : (n_sample, n) array
        How often each row counts as one of either survey.

    Returns
    -------
    (n_sample, d) array of float
        The statistics, from 0 to 1.
    """
    n, d = x.shape
    out = np.empty((len(weights_a), d))
    order = np.argsort(x, axis=0, kind="stable")
    ends = [np.append(np.flatnonzero(np.diff(x[order[:, j], j])), n - 1) for j in range(d)]
    step = max(1, _BLOCK // n)
    for start in range(0, len(out), step):
        part = slice(start, start + step)
        a, b = weights_a[part], weights_b[part]
        jump = a / a.sum(axis=1, keepdims=True) - b / b.sum(axis=1, keepdims=True)
        for j in range(d):
            gap = np.cumsum(jump[:, order[:, j]], axis=1)
            # Within ties there is no distribution function to compare.
            gap = gap if len(ends[j]) == n else gap[:, ends[j]]
            out[part, j] = np.maximum(gap.max(axis=1), -gap.min(axis=1))
    return out


def adjusted_p_values(observed, permuted):
    """p-values of many latents tested together, by the largest statistic under permutation [1]_.

    Parameters
    ----------
    observed : (d,) array
        Statistics as observed.
    permuted : (n_permutations, d) array
        Statistics of permuted samples.

    Returns
    -------
    (d,) array of float
        Probability that, without a shift, *any* latent would have so large a statistic: the chance
        of a single false alarm among all latents is what is controlled, however they correlate.

    References
    ----------
    .. [1] Westfall & Young 1993, Resampling-Based Multiple Testing (Wiley), section 2.3.
    """
    largest = permuted.max(axis=1)
    above = np.sum(largest[:, None] >= observed - _TIE, axis=0)
    return (1 + above) / (1 + len(permuted))
