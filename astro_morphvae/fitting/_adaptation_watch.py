"""How an adaptation is watched: the domain score it is to lower, the floors it must keep."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..networks.adaptation import mmd_squared

__all__ = ["Floors", "domain_auc", "pair_distance", "score_latents"]

_LEAST = 10  # objects of each survey below which there is no score


@dataclass(frozen=True)
class Floors:
    """What an adaptation must keep.

    Attributes
    ----------
    variance : float
        Least share of the source's latent variance.
    reconstruction : float
        Least ratio of the mean squared error of a reconstruction before the fit to that after.
    """

    variance: float
    reconstruction: float

    def broken(self, entry):
        """Say which floor the measures of an epoch break, or give `None`.

        Parameters
        ----------
        entry : dict of str to float
            ``latent_variance`` and ``reconstruction_kept``.
        """
        for name, floor in (
            ("latent_variance", self.variance),
            ("reconstruction_kept", self.reconstruction),
        ):
            if not entry[name] >= floor:
                return f"{name} fell to {entry[name]:.3g}, below its floor of {floor:g}"
        return None


def domain_auc(x, y, *, seed=0):
    """Area under the curve of a classifier that tells two samples apart, cross-validated.

    Logistic regression on the values and their squares, so that a difference of the scatter is
    found as one of the mean is.

    Parameters
    ----------
    x, y : array, (n, d) and (m, d)
        The samples, of ten rows at least.
    seed : int, optional
        Seed of the five folds.

    Returns
    -------
    auc : float
        0.5 where they cannot be told apart; at least that.
    """
    z = np.concatenate([x, y]).astype(np.float64)
    z = (z - z.mean(axis=0)) / (z.std(axis=0) + 1e-12)
    features = np.concatenate([z, z**2], axis=1)
    survey = np.repeat([0, 1], [len(x), len(y)])
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=300, class_weight="balanced")
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        odds = cross_val_predict(classifier, features, survey, cv=folds, method="decision_function")
    return max(0.5, float(roc_auc_score(survey, odds)))


def pair_distance(x, y, *, seed=0):
    """Median distance of paired rows over that of rows of different objects.

    Parameters
    ----------
    x, y : array, (n, d)
        Latents of the same objects in two surveys.
    seed : int, optional
        Seed of the rows that are set against each other.
    """
    shift = 1 + int(np.random.default_rng(seed).integers(max(1, len(x) - 1)))
    same = np.linalg.norm(x - y, axis=1)
    different = np.linalg.norm(x - np.roll(y, shift, axis=0), axis=1)
    return float(np.median(same) / max(np.median(different), 1e-12))


def score_latents(source, target, paired, *, score, bandwidths, seed):
    """Measure how far the latents of two surveys are from agreeing.

    Parameters
    ----------
    source, target : array, (n, d) and (m, d)
        Latents of both.
    paired : tuple of array
        Latents of the objects that both saw, (k, d) each.
    score : {"auc", "mmd"}
        What the score is made of.
    bandwidths : list of float
        Of the kernels of the discrepancy: the same in every epoch.
    seed : int
        Seed of the folds.

    Returns
    -------
    entry : dict of str to float
        ``auc``, ``mmd``, ``pair_distance`` (each where it can be had) and ``score``: 2 auc - 1, or
        the discrepancy, plus the pair distance.
    """
    entry = {}
    if min(len(source), len(target)) < _LEAST:
        return entry
    entry["auc"] = domain_auc(source, target, seed=seed)
    x, y = (torch.from_numpy(np.ascontiguousarray(z)) for z in (source, target))
    entry["mmd"] = float(mmd_squared(x, y, bandwidths=bandwidths))
    entry["score"] = 2.0 * entry["auc"] - 1.0 if score == "auc" else max(0.0, entry["mmd"])
    if len(paired[0]) >= _LEAST:
        entry["pair_distance"] = pair_distance(*paired, seed=seed)
        entry["score"] += entry["pair_distance"]
    return entry
