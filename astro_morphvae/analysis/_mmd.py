"""Maximum mean discrepancy with several Gaussian kernels, unbiased, and in linear time."""

import itertools
from dataclasses import dataclass

import numpy as np

from ._samples import join, squared_distances

__all__ = ["Kernel", "linear_mmd", "linear_terms", "make_kernel", "mmd_values", "squared_mmd"]

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Squared widths of the five Gaussians, in units of their middle one."""

_BLOCK = 4_000_000  # values of the kernel held at once
_N_MEDIAN = 2000  # rows that the median distance is taken of


@dataclass(frozen=True)
class Kernel:
    """Sum or mean of Gaussian kernels, ``weight * sum(exp(-d**2 / width))``.

    Parameters
    ----------
    widths : tuple of float
        Squared scales, in ascending order.
    weight : float
        Factor of the sum.
    name : str
        How they were chosen.
    """

    widths: tuple
    weight: float
    name: str

    @property
    def peak(self):
        """Value at distance 0 (float)."""
        return self.weight * len(self.widths)

    def __call__(self, squared):
        """Evaluate at squared distances.

        Parameters
        ----------
        squared : array
            Squared distances.

        Returns
        -------
        array of float
            The kernel, of the same shape.
        """
        widths = np.array(self.widths)[::-1]
        power = np.exp(-squared / widths[0])
        total = power.copy()
        for wider, width in itertools.pairwise(widths):
            # Widths a factor of 2 apart cost one exponential for all of them.
            power = power * power if wider == 2 * width else np.exp(-squared / width)
            total += power
        return self.weight * total


def make_kernel(kernel, x, seed=0):
    """Choose the widths of the Gaussians.

    Parameters
    ----------
    kernel : {"median", "xu2023"}, float or sequence of float
        Five widths about the median distance; about the mean squared distance, as [1]_ has it; or
        one's own standard deviations.
    x : (n, d) array
        Latents of both surveys.
    seed : int
        Seed of the choice of rows that the median distance is taken of, if there are many.

    Returns
    -------
    Kernel
        The kernel.

    Raises
    ------
    ValueError
        If it is unknown, or all latents are the same.

    References
    ----------
    .. [1] Xu et al. 2023, MNRAS 526, 6391.
    """
    if isinstance(kernel, Kernel):
        return kernel
    if not isinstance(kernel, str):
        widths = np.sort(np.atleast_1d(np.asarray(kernel, dtype=float)))
        if widths.ndim != 1 or not widths.size or not (widths > 0).all():
            raise ValueError(f"kernel={kernel!r} must be positive standard deviations")
        widths = 2 * widths**2
        return Kernel(tuple(widths.tolist()), 1 / len(widths), "given")
    if kernel == "median":
        if len(x) > _N_MEDIAN:
            x = np.random.default_rng(seed).choice(x, _N_MEDIAN, replace=False)
        middle, weight = (
            2 * np.median(squared_distances(x, x)[np.triu_indices(len(x), 1)]),
            1 / len(FACTORS),
        )
    elif kernel == "xu2023":
        middle, weight = 2 * np.sum(np.var(x, axis=0, ddof=1)), 1.0
    else:
        raise ValueError(f"kernel={kernel!r} is neither 'median' nor 'xu2023', nor widths")
    if not middle > 0:
        raise ValueError(
            f"kernel={kernel!r} finds no distance between latents: they have collapsed"
        )
    return Kernel(tuple((middle * np.array(FACTORS)).tolist()), weight, kernel)


def squared_mmd(a, b, *, kernel="median", unbiased=True, pairs=None):
    """Squared maximum mean discrepancy of two samples [1]_.

    Parameters
    ----------
    a, b : (n_a, d) and (n_b, d) array
        The samples.
    kernel : {"median", "xu2023"}, float or sequence of float
        Five Gaussians, averaged, with variances 1/4 to 4 times the squared median distance between
        all galaxies; the five of [2]_, summed, whose ``2 sigma**2`` are 1/4 to 4 times the mean
        squared distance; or Gaussians of these standard deviations, averaged.
    unbiased : bool
        Leave out the distance of each galaxy to itself, so that the mean is zero where the
        populations are the same; the result may then be negative. The study of [2]_ keeps them.
    pairs : (k, 2) array of int, optional
        Rows of ``a`` and ``b`` that are the same galaxy, left out as well where ``unbiased``.

    Returns
    -------
    float
        MMD², in units of the kernel, whose largest value is 1 ("xu2023": 5).

    Raises
    ------
    ValueError
        If shapes do not fit or the kernel is unknown.

    References
    ----------
    .. [1] Gretton et al. 2012, J. Mach. Learn. Res. 13, 723.
    .. [2] Xu et al. 2023, MNRAS 526, 6391.
    """
    samples = join(a, b, pairs)
    weights = np.zeros((2, 1, len(samples.x)))
    weights[0, 0, : samples.n_a] = weights[1, 0, samples.n_a :] = 1
    kernel = make_kernel(kernel, samples.x)
    return float(mmd_values(samples, kernel, *weights, unbiased=unbiased)[0])


def mmd_values(samples, kernel, weights_a, weights_b, *, unbiased=True):
    """MMD² of many weighted samples, in one pass over the kernel, a block of it at a time.

    Parameters
    ----------
    samples : Samples
        Latents and pairs.
    kernel : Kernel
        The kernel.
    weights_a, weights_b : (n_sample, n) array
        How often each row counts as one of either survey.
    unbiased : bool
        Leave out terms of a galaxy with itself, in one survey or both, copies of it in a bootstrap
        sample included.

    Returns
    -------
    (n_sample,) array of float
        The values.
    """
    x, n = samples.x, len(samples.x)
    wa, wb = np.ascontiguousarray(weights_a.T), np.ascontiguousarray(weights_b.T)
    aa, ab, bb = np.zeros((3, wa.shape[1]))
    step = max(1, _BLOCK // n)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        values = kernel(squared_distances(x[rows], x)).astype(wa.dtype)
        with_a, with_b = values @ wa, values @ wb
        for total, left, right in (
            (aa, wa[rows], with_a),
            (ab, wb[rows], with_a),
            (bb, wb[rows], with_b),
        ):
            total += np.einsum("ij,ij->j", left, right, dtype=float)
    na, nb = wa.sum(axis=0, dtype=float), wb.sum(axis=0, dtype=float)
    naa, nab, nbb = na * na, na * nb, nb * nb
    if unbiased:
        for w, total, count in ((wa, aa, naa), (wb, bb, nbb)):
            own = np.einsum("ij,ij->j", w, w, dtype=float)
            total -= kernel.peak * own
            count -= own
        one, two = samples.pairs.T
        between = kernel(np.sum((x[one] - x[two]) ** 2, axis=1))
        both = wa[one] * wb[two] + wa[two] * wb[one]
        ab -= between @ both
        nab = nab - both.sum(axis=0, dtype=float)
    return aa / naa + bb / nbb - 2 * ab / nab


def linear_mmd(a, b, *, kernel="median", pairs=None, seed=0):
    """Squared maximum mean discrepancy in linear time, of disjoint couples of galaxies.

    Noisier than `squared_mmd`, but a mean of independent terms, with a standard error at hand
    ([1]_, section 6).

    Parameters
    ----------
    a, b : (n_a, d) and (n_b, d) array
        The samples; as many rows are used as the smaller one has.
    kernel : {"median", "xu2023"}, float or sequence of float
        See `squared_mmd`.
    pairs : (k, 2) array of int, optional
        Rows that are the same galaxy; only these are used.
    seed : int
        Seed of the order of galaxies.

    Returns
    -------
    value : float
        MMD², unbiased.
    error : float
        Its standard error.

    Raises
    ------
    ValueError
        If shapes do not fit, or there are fewer than four galaxies.

    References
    ----------
    .. [1] Gretton et al. 2012, J. Mach. Learn. Res. 13, 723.
    """
    samples = join(a, b, pairs)
    terms = linear_terms(samples, make_kernel(kernel, samples.x, seed), seed)
    return float(terms.mean()), float(terms.std(ddof=1) / np.sqrt(len(terms)))


def linear_terms(samples, kernel, seed):
    """Independent unbiased estimates of MMD², each from two galaxies of either survey.

    Parameters
    ----------
    samples : Samples
        Latents and pairs; with pairs, only these are used.
    kernel : Kernel
        The kernel.
    seed : int
        Seed of the order of galaxies.

    Returns
    -------
    (m,) array of float
        Terms, whose mean is the estimate.
    """
    rng = np.random.default_rng([seed, 3])
    if len(samples.pairs):
        one, two = rng.permutation(samples.pairs).T
    else:
        size = min(samples.n_a, samples.n_b)
        one = rng.permutation(samples.n_a)[:size]
        two = samples.n_a + rng.permutation(samples.n_b)[:size]
    m = len(one) // 2
    if m < 2:
        raise ValueError(f"{len(one)} galaxies are too few for MMD in linear time; 4 are needed")
    a0, a1, b0, b1 = (samples.x[rows[k : 2 * m : 2]] for rows in (one, two) for k in (0, 1))

    def between(x, y):
        return kernel(np.sum((x - y) ** 2, axis=1))

    return between(a0, a1) + between(b0, b1) - between(a0, b1) - between(a1, b0)
