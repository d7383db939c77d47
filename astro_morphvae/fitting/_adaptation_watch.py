"""How an adaptation is watched: the domain score it is to lower, the floors it must keep."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..networks.adaptation import bandwidths_of, mmd_squared
from ..networks.batches import autocast

__all__ = ["Floors", "Watch", "domain_auc", "pair_distance", "score_latents", "score_noise"]

_LEAST = 10  # objects of each survey below which there is no score
_N_PERMUTATIONS = 50


@dataclass(frozen=True)
class Floors:
    """What an adaptation must keep.

    Attributes
    ----------
    variance : float
        Least share of the source's latent variance.
    reconstruction : float
        Least ratio of the mean squared error of a reconstruction, where it was least since the
        start, to that after.
    """

    variance: float
    reconstruction: float

    def relative_to(self, kept):
        """Give the floors of a fit whose reconstructions were that good at best, since its start.

        A linear map to the source's latents loses nothing of an image, but the target's decoder is
        then still the source's, which draws what the source would see. As it learns, the floor
        rises, but never above that of reconstructions as good as before.

        Parameters
        ----------
        kept : float
            The largest ``reconstruction_kept``.
        """
        return replace(self, reconstruction=self.reconstruction * min(1.0, kept))

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
    entry["score"] = 2.0 * entry["auc"] - 1.0 if score == "auc" else entry["mmd"]
    if len(paired[0]) >= _LEAST:
        entry["pair_distance"] = pair_distance(*paired, seed=seed)
        entry["score"] += entry["pair_distance"]
    return entry


def score_noise(source, target, *, score, bandwidths, seed):
    """Estimate how the score of two samples of these sizes scatters where they do not differ.

    Parameters
    ----------
    source, target, score, bandwidths, seed
        See `score_latents`.

    Returns
    -------
    noise : float
        Standard deviation: of the discrepancy by permutation; of 2 auc - 1 that of Mann &
        Whitney [1]_.

    References
    ----------
    .. [1] Mann & Whitney 1947, Ann. Math. Statist. 18, 50.
    """
    n, m = len(source), len(target)
    if min(n, m) < _LEAST:
        return 0.0
    if score == "auc":
        return 2.0 * float(np.sqrt((n + m + 1) / (12.0 * n * m)))
    pool, generator = np.concatenate([source, target]), np.random.default_rng(seed)
    values = []
    for _ in range(_N_PERMUTATIONS):
        x, y = torch.from_numpy(generator.permutation(pool)).split([n, m])
        values.append(float(mmd_squared(x, y, bandwidths=bandwidths)))
    return float(np.std(values))


class Watch:
    """Measures an adaptation on the rows that are watched.

    Parameters
    ----------
    encoders : `SurveyEncoders`
        What is watched.
    score : {"auc", "mmd"}
        See `score_latents`.
    seed : int
        Seed of the folds.
    precision : {None, "float32", "bfloat16"}
        Precision of the network.
    """

    def __init__(self, encoders, score, seed, precision):
        self.encoders, self.score, self.seed = encoders, score, seed
        self.precision, self.first, self.latents = precision, None, None

    @torch.no_grad()
    def measure(self):
        """Measure the network as it is; the first call sets what floors are relative to.

        Returns
        -------
        entry : dict of str to float
            ``latent_variance``, ``reconstruction_kept`` and those of `score_latents`: the worst of
            the surveys.

        Raises
        ------
        FloatingPointError
            If latents or reconstructions are not finite.
        """
        surveys = self.encoders.surveys
        latents, errors = zip(*(self._survey(k) for k in range(len(surveys))), strict=True)
        if not (np.isfinite(errors).all() and all(np.isfinite(z).all() for z in latents)):
            raise FloatingPointError("latents or reconstructions became non-finite")
        self.latents = latents
        variances = [z.var(axis=0) for z in latents]
        if self.first is None:
            pool = torch.from_numpy(np.concatenate(latents))
            # What a survey must keep: no more than it had, nor more than the source has.
            least = [np.minimum(variance, variances[0]) for variance in variances]
            self.first = errors, least, bandwidths_of(pool, pool)
        first_errors, first_variances, bandwidths = self.first
        kept = [before / max(now, 1e-30) for before, now in zip(first_errors, errors, strict=True)]
        # Latent by latent, so that variance in few of them does not stand in for all.
        shares = [
            np.minimum(now, before).sum() / before.sum()
            for now, before in zip(variances, first_variances, strict=True)
        ]
        entry = {"latent_variance": float(min(shares)), "reconstruction_kept": float(min(kept))}
        scores = [
            score_latents(
                latents[0],
                latents[number],
                self._pairs(survey, latents[0], latents[number]),
                score=self.score,
                bandwidths=bandwidths,
                seed=self.seed,
            )
            for number, survey in enumerate(surveys[1:], start=1)
        ]
        return entry | max(scores, key=lambda one: one.get("score", -np.inf))

    def noise(self):
        """Estimate how the score last measured would scatter were all surveys alike: the most."""
        source, *targets = self.latents
        return max(
            score_noise(source, target, score=self.score, bandwidths=self.first[2], seed=self.seed)
            for target in targets
        )

    def _pairs(self, survey, source_latents, target_latents):
        """Latents of the watched pairs in both surveys."""
        source = self.encoders.surveys[0]
        place = np.full(len(source.cutouts), -1)
        place[source.watched] = np.arange(len(source_latents))
        partner = survey.partner[survey.watched]
        at = np.where(partner >= 0, place[partner], -1)
        return source_latents[at[at >= 0]], target_latents[at >= 0]

    def _survey(self, number):
        """Latents of the watched rows, and their mean squared error per pixel."""
        encoders, latents, total, n_pixels = self.encoders, [], 0.0, 0.0
        survey, branch = encoders.surveys[number], encoders.branches[number]
        for batch in encoders.read(survey, survey.watched, likelihood=True):
            with autocast(self.precision, encoders.device):
                encoded = encoders.encode(number, batch.rows, batch)
                square, n = branch.squared_error(
                    encoders.network, batch, encoded["z"], encoded["posterior"][2]
                )
            latents.append(encoded["z"].float().cpu().numpy())
            total, n_pixels = total + square, n_pixels + n
        return np.concatenate(latents), total / max(n_pixels, 1.0)
