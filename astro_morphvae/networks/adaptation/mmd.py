"""Maximum mean discrepancy: how far two samples are from having one distribution."""

from dataclasses import dataclass

import torch

from .method import Method

__all__ = ["MMD", "bandwidths_of", "mmd_squared", "squared_distances"]

_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
_ESTIMATORS = ("unbiased", "biased", "linear")


def squared_distances(x, y):
    """Squared Euclidean distance of every row of ``x``, (n, d), to every row of ``y``: (n, m)."""
    square = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2.0 * (x @ y.T)
    return square.clamp_min(0.0)


@torch.no_grad()
def bandwidths_of(x, y, factors=_FACTORS):
    """Bandwidths of Gaussian kernels for two samples: the mean squared distance, times factors.

    The mean is that over all pairs of different rows of both samples together; it is a number, not
    a function through which a gradient runs.

    Parameters
    ----------
    x, y : tensor, (n, d) and (m, d)
        The samples.
    factors : sequence of float, optional
        One kernel for each.

    Returns
    -------
    bandwidths : list of float
    """
    both = torch.cat([x, y]).double()
    n = len(both)
    # The sum over pairs, from the moments: no matrix of all pairs is needed.
    total = 2.0 * (n * both.square().sum() - both.sum(dim=0).square().sum())
    mean = float(total.clamp_min(1e-12)) / (n * (n - 1))
    return [mean * factor for factor in factors]


def _kernel(square, bandwidths):
    return sum(torch.exp(-square / bandwidth) for bandwidth in bandwidths)


def mmd_squared(x, y, *, bandwidths=None, estimator="unbiased"):
    """Estimate the squared maximum mean discrepancy of two samples [1]_.

    The kernel is a sum of Gaussians, ``exp(-distance**2 / bandwidth)``.

    Parameters
    ----------
    x, y : tensor, (n, d) and (m, d)
        The samples.
    bandwidths : sequence of float, optional
        By default those of `bandwidths_of`.
    estimator : {"unbiased", "biased", "linear"}, optional
        The unbiased one may be below zero. The linear one costs a time proportional to n, for a
        larger variance; it uses as many rows of both samples as the shorter has.

    Returns
    -------
    mmd_squared : tensor, scalar

    Raises
    ------
    ValueError
        If the estimator is another, or there are too few rows.

    References
    ----------
    .. [1] Gretton et al. 2012, JMLR 13, 723: equations 3 (unbiased) and 5 (biased), section 6
       (linear).
    """
    if estimator not in _ESTIMATORS:
        raise ValueError(f"estimator must be one of {_ESTIMATORS}, got {estimator!r}")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"two rows of each sample are needed, got {len(x)} and {len(y)}")
    if bandwidths is None:
        bandwidths = bandwidths_of(x, y)
    if estimator == "linear":
        return _linear(x, y, bandwidths)
    within_x = _kernel(squared_distances(x, x), bandwidths)
    within_y = _kernel(squared_distances(y, y), bandwidths)
    across = _kernel(squared_distances(x, y), bandwidths).mean()
    if estimator == "biased":
        return within_x.mean() + within_y.mean() - 2.0 * across
    return _mean_off_diagonal(within_x) + _mean_off_diagonal(within_y) - 2.0 * across


def _mean_off_diagonal(matrix):
    n = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))


def _linear(x, y, bandwidths):
    n = min(len(x), len(y)) // 2
    first_x, second_x, first_y, second_y = x[:n], x[n : 2 * n], y[:n], y[n : 2 * n]

    def kernel(a, b):
        return _kernel((a - b).square().sum(dim=1), bandwidths)

    terms = kernel(first_x, second_x) + kernel(first_y, second_y)
    return (terms - kernel(first_x, second_y) - kernel(second_x, first_y)).mean()


@dataclass(frozen=True)
class MMD(Method):
    """Bring two surveys' latents together by their maximum mean discrepancy [1]_.

    Parameters
    ----------
    factors : sequence of float, optional
        Bandwidths of the Gaussian kernels, in units of the mean squared distance in the batch.
    estimator : {"unbiased", "biased", "linear"}, optional
        See `mmd_squared`. The published recipe [2]_ has the biased one, and the default factors.

    References
    ----------
    .. [1] Long et al. 2015, "Learning transferable features with deep adaptation networks",
       arXiv:1502.02791.
    .. [2] Xu et al. 2023, MNRAS 526, 6391.
    """

    factors: tuple = _FACTORS
    estimator: str = "unbiased"

    def __post_init__(self):
        if not self.factors or not all(factor > 0 for factor in self.factors):
            raise ValueError(f"factors must be positive, got {self.factors!r}")
        if self.estimator not in _ESTIMATORS:
            raise ValueError(f"estimator must be one of {_ESTIMATORS}, got {self.estimator!r}")

    def loss(self, agreement, layers=()):
        """Discrepancy of a batch; see `Method`."""
        x, y = agreement.source.float(), agreement.target.float()
        return mmd_squared(
            x, y, bandwidths=bandwidths_of(x, y, self.factors), estimator=self.estimator
        )
