"""Scores of probabilistic labels, and their bootstrap intervals, all from weighted counts.

Every score is a function of a few sums over galaxies, so that a thousand bootstrap samples cost one
matrix product.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["SCORES", "ScoreSums", "bootstrap_weights", "interval", "score_sums"]

SCORES = {
    "accuracy": "share of correct labels",
    "balanced_accuracy": "mean over the true classes of the share found (recall)",
    "macro_f1": "mean over classes of the harmonic mean of precision and recall",
    "ece": "expected calibration error: mean distance of confidence and accuracy",
}
"""The scores, and what they say."""


@dataclass(frozen=True)
class ScoreSums:
    """What one galaxy adds to each of the sums that the scores are made of.

    Parameters
    ----------
    cell : (n,) array of int
        Cell of the flattened confusion matrix, ``true * n_classes + labelled``.
    bins : (n,) array of int
        Confidence bin.
    gap : (n,) array of float
        Confidence minus correctness (0 or 1).
    n_classes, n_bins : int
        Numbers of classes and bins.
    """

    cell: np.ndarray
    bins: np.ndarray
    gap: np.ndarray
    n_classes: int
    n_bins: int

    def evaluate(self, weights=None):
        """Scores under one or more sets of weights.

        Parameters
        ----------
        weights : (n_sample, n) array, optional
            How often each galaxy counts in each sample; once by default.

        Returns
        -------
        dict of str to (n_sample,) array of float
            One value per sample for each of `SCORES`; NaN where a score is undefined.
        """
        n = len(self.cell)
        if weights is None:
            weights = np.ones((1, n))
        k = self.n_classes
        confusion = (weights @ _one_hot(self.cell, k * k)).reshape(-1, k, k)
        gaps = weights @ (_one_hot(self.bins, self.n_bins) * self.gap[:, None])

        total = weights.sum(axis=1)
        hit = np.diagonal(confusion, axis1=1, axis2=2)
        true, labelled = confusion.sum(axis=2), confusion.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "accuracy": hit.sum(axis=1) / total,
                "balanced_accuracy": _mean_where(hit / true, true > 0),
                "macro_f1": _mean_where(2 * hit / (true + labelled), true + labelled > 0),
                "ece": np.abs(gaps).sum(axis=1) / total,
            }


def score_sums(true, labelled, confidence, n_classes, n_bins=15):
    """Prepare the scores of labelled galaxies.

    The expected calibration error is the mean over galaxies of the distance between mean
    confidence and accuracy in ``n_bins`` bins of equal width, for the label given ([1]_, eq. 3).

    Parameters
    ----------
    true, labelled : (n,) array of int
        True class and class given, from 0 to ``n_classes - 1``.
    confidence : (n,) array of float
        Probability of the class given.
    n_classes : int
        Number of classes.
    n_bins : int
        Number of bins of confidence.

    Returns
    -------
    ScoreSums
        Ready to be evaluated, with or without weights.

    References
    ----------
    .. [1] Guo et al. 2017, Proc. 34th Int. Conf. on Machine Learning, 1321 (arXiv:1706.04599).
    """
    true, labelled = np.asarray(true), np.asarray(labelled)
    # Bins are (low, high], so that a confidence of exactly 1 falls in the last.
    bins = np.clip(np.ceil(np.asarray(confidence, float) * n_bins).astype(int) - 1, 0, n_bins - 1)
    gap = confidence - (true == labelled)
    return ScoreSums(true * n_classes + labelled, bins, gap, n_classes, n_bins)


def bootstrap_weights(n, n_bootstrap, seed):
    """Draw how often each galaxy occurs in each bootstrap sample.

    Parameters
    ----------
    n : int
        Number of galaxies.
    n_bootstrap : int
        Number of samples, each of n galaxies drawn with replacement.
    seed : int
        Seed of the draws.

    Returns
    -------
    (n_bootstrap, n) array of float32
        Counts, with rows that sum to n.
    """
    drawn = np.random.default_rng(seed).integers(n, size=(n_bootstrap, n))
    drawn += np.arange(n_bootstrap)[:, None] * n
    counts = np.bincount(drawn.ravel(), minlength=n_bootstrap * n)
    return counts.reshape(n_bootstrap, n).astype(np.float32)


def interval(value, samples, confidence=0.95, *, pivotal=False):
    """Bootstrap interval of a score.

    Parameters
    ----------
    value : float
        The score itself.
    samples : (n_bootstrap,) array of float
        The score of each bootstrap sample.
    confidence : float
        Probability enclosed.
    pivotal : bool
        Reflect the percentiles about the value ([1]_, section 5.2). Right for a score that the
        bootstrap shifts, as it does the calibration error, a sum of absolute values.

    Returns
    -------
    low, high : float
        Ends of the interval, within [0, 1] if pivotal.

    References
    ----------
    .. [1] Davison & Hinkley 1997, Bootstrap Methods and their Application (Cambridge).
    """
    finite = samples[np.isfinite(samples)]
    if finite.size == 0:
        return np.nan, np.nan
    tail = 0.5 * (1 - confidence)
    low, high = np.quantile(finite, [tail, 1 - tail])
    if pivotal:
        low, high = np.clip([2 * value - high, 2 * value - low], 0, 1)
    return float(low), float(high)


def _one_hot(index, size):
    out = np.zeros((len(index), size), dtype=np.float32)
    out[np.arange(len(index)), index] = 1
    return out


def _mean_where(values, where):
    count = where.sum(axis=1)
    total = np.where(where, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
