"""What a survey does to the features of an image, and how to undo it: a correction per survey."""

import math

import torch
from torch.nn import functional

from .._backend import keras
from ..layers import Linear

__all__ = [
    "ROWS_PER_DIRECTION",
    "SurveyCorrection",
    "feature_transport",
    "gaussian_transport",
    "paired_regression",
    "paired_transport",
]

ROWS_PER_DIRECTION = 10
"""Objects that the covariance along one more direction needs to be known."""
_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@keras.saving.register_keras_serializable(package="astro_morphvae")
class SurveyCorrection(keras.layers.Layer):
    """Features as the source survey would have given them, from those of another survey.

    An affine map of each survey's own, plus a hidden layer that all surveys share and whose units
    each survey scales and shifts by its embedding (FiLM [1]_). The source has no correction, and
    that of the others starts as the identity.

    Parameters
    ----------
    n_features : int
        Length of the vectors of features.
    n_surveys : int
        Surveys that are corrected: all but the source.
    width : int, optional
        Units of the hidden layer.
    embedding_dim : int, optional
        Length of the learned embedding of a survey.
    conditions : sequence of sequence of float, (n_surveys, n_conditions), optional
        What is known of each survey, such as its seeing, appended to its embedding.
    seed : int, optional
        Seed of the initial weights.

    References
    ----------
    .. [1] Perez et al. 2018, "FiLM: visual reasoning with a general conditioning layer",
       arXiv:1709.07871.
    """

    def __init__(
        self,
        n_features,
        n_surveys,
        *,
        width=128,
        embedding_dim=8,
        conditions=None,
        seed=0,
        autocast=False,
        **kwargs,
    ):
        super().__init__(autocast=autocast, **kwargs)
        self.n_features, self.n_surveys = int(n_features), int(n_surveys)
        self.width, self.embedding_dim, self.seed = int(width), int(embedding_dim), int(seed)
        self.conditions = None
        if conditions is not None:
            self.conditions = [[float(value) for value in row] for row in conditions]
            if len(self.conditions) != self.n_surveys or len(set(map(len, self.conditions))) != 1:
                raise ValueError(
                    f"conditions must be {self.n_surveys} rows of one length, got {conditions!r}"
                )
        n_conditions = 0 if self.conditions is None else len(self.conditions[0])
        base = 1000 * self.seed + 300
        self.embedding = self.add_weight(
            name="embedding",
            shape=(self.n_surveys, self.embedding_dim),
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=base),
        )
        shape = (self.n_surveys, self.n_features)
        self.offset = self.add_weight(name="offset", shape=shape, initializer="zeros")
        self.change = self.add_weight(
            name="change", shape=(*shape, self.n_features), initializer="zeros"
        )
        # Affine maps that a closed form gave; the trained ones above are differences from them.
        self.start_offset = self.add_weight(
            name="start_offset", shape=shape, initializer="zeros", trainable=False
        )
        self.start_change = self.add_weight(
            name="start_change",
            shape=(*shape, self.n_features),
            initializer="zeros",
            trainable=False,
        )
        self.film = Linear(
            self.embedding_dim + n_conditions, 2 * self.width, gain=1e-2, seed=base + 1
        )
        self.hidden = Linear(self.n_features, self.width, seed=base + 2)
        self.residual = Linear(self.width, self.n_features, gain=1e-8, seed=base + 3)
        self.built = True

    @torch.no_grad()
    def start_from(self, survey, matrix, offset):
        """Let the correction of a survey start as ``features @ matrix + offset``.

        Parameters
        ----------
        survey : int
            Number of the survey, from 0 for the first that is corrected.
        matrix : tensor, (n_features, n_features)
            Linear part.
        offset : tensor, (n_features,)
            Constant part.
        """
        identity = torch.eye(self.n_features, dtype=matrix.dtype, device=matrix.device)
        self.start_change.value[survey].copy_(matrix - identity)
        self.start_offset.value[survey].copy_(offset)

    def call(self, features, survey=0):
        """Correct ``features``, (n, n_features), of the survey of a number."""
        condition = self.embedding.value[survey]
        if self.conditions is not None:
            known = torch.tensor(self.conditions[survey], device=condition.device)
            condition = torch.cat([condition, known])
        scale, shift = self.film(condition[None]).chunk(2, dim=1)
        # Features may have variances far below one; the hidden units see them at unit length.
        inputs = features * math.sqrt(0.5 * self.n_features)
        hidden = functional.silu(self.hidden(inputs) * (1.0 + scale) + shift)
        change = self.change.value[survey] + self.start_change.value[survey]
        offset = self.offset.value[survey] + self.start_offset.value[survey]
        scale = math.sqrt(1.0 / self.n_features)
        return features + features @ change + offset + self.residual(hidden) * scale

    def get_config(self):
        """Return the constructor arguments."""
        names = ("n_features", "n_surveys", "width", "embedding_dim", "conditions", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _moments(x, ridge):
    mean = x.mean(dim=0)
    covariance = torch.atleast_2d(torch.cov((x - mean).T))
    floor = ridge * covariance.diagonal().mean().clamp_min(1e-12)
    return mean, covariance + floor * torch.eye(len(covariance), dtype=x.dtype, device=x.device)


def _root(matrix, power):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(1e-12).pow(power)) @ vectors.T


@torch.no_grad()
def gaussian_transport(x, y, *, ridge=1e-3):
    """Map ``y`` to the mean and covariance of ``x`` while moving it the least.

    The optimal transport of one Gaussian to another [1]_.

    Parameters
    ----------
    x, y : tensor, (n, d) and (m, d)
        Features of the source and of the target.
    ridge : float, optional
        Variance added to every direction, in units of the mean variance.

    Returns
    -------
    matrix : tensor, (d, d)
    offset : tensor, (d,)
        ``y @ matrix + offset`` has the moments of ``x``.

    References
    ----------
    .. [1] Peyre & Cuturi 2019, "Computational optimal transport", remark 2.31, arXiv:1803.00567.
    """
    (mean_x, cov_x), (mean_y, cov_y) = (_moments(sample.double(), ridge) for sample in (x, y))
    root, inverse = _root(cov_y, 0.5), _root(cov_y, -0.5)
    matrix = inverse @ _root(root @ cov_x @ root, 0.5) @ inverse
    return matrix, mean_x - mean_y @ matrix


@torch.no_grad()
def paired_regression(x, y, *, ridges=_RIDGES):
    """Predict ``x`` from ``y`` by ridge regression, which keeps only what ``y`` tells of ``x``.

    The ridge is that of the least generalised cross-validation [1]_.

    Parameters
    ----------
    x, y : tensor, (n, d)
        Features of the same objects.
    ridges : sequence of float, optional
        Ridges to choose from, in units of the mean variance of ``y``.

    Returns
    -------
    matrix : tensor, (d, d)
    offset : tensor, (d,)
        ``y @ matrix + offset`` predicts ``x``.

    References
    ----------
    .. [1] Golub, Heath & Wahba 1979, Technometrics 21, 215.
    """
    x, y = x.double(), y.double()
    mean_x, mean_y, n = x.mean(dim=0), y.mean(dim=0), len(x)
    x, y = x - mean_x, y - mean_y
    values, vectors = torch.linalg.eigh(y.T @ y / n)
    values = values.clamp_min(0.0)
    across = vectors.T @ (y.T @ x) / n
    power, total = across.square().sum(dim=1), x.square().sum() / n
    unit = values.mean().clamp_min(1e-12)
    best = None
    for ridge in ridges:
        inverse = 1.0 / (values + ridge * unit)
        share = values * inverse
        # The mean squared residual, and the share of the objects' freedom that is not used up.
        left = total - (power * inverse * (2.0 - share)).sum()
        score = float(left / (1.0 - share.sum() / n).square())
        if best is None or score < best[0]:
            best = score, inverse
    matrix = vectors @ (best[1][:, None] * across)
    return matrix, mean_x - mean_y @ matrix


@torch.no_grad()
def paired_transport(x, y, *, n_directions, ridges=_RIDGES):
    """Map ``y`` to ``x``, the same objects, so that rows agree and the scatter is that of ``x``.

    A regression denoises, and so its predictions scatter less than ``x``, by which a classifier
    tells them apart. `gaussian_transport` of the predictions gives the covariance back along the
    principal directions of ``x``, and leaves the others denoised.

    Parameters
    ----------
    x, y : tensor, (n, d)
        Features of the same objects.
    n_directions : int
        Number of principal directions of ``x`` whose covariance is restored.
    ridges : sequence of float, optional
        See `paired_regression`.

    Returns
    -------
    matrix : tensor, (d, d)
    offset : tensor, (d,)
    """
    matrix, offset = paired_regression(x, y, ridges=ridges)
    x, y = x.double(), y.double()
    _, vectors = torch.linalg.eigh(torch.atleast_2d(torch.cov(x.T)))
    main = vectors[:, -min(n_directions, x.shape[1]) :]
    restore, _ = gaussian_transport(x @ main, (y @ matrix + offset) @ main)
    restore = restore - torch.eye(main.shape[1], dtype=restore.dtype, device=restore.device)
    matrix = matrix + (matrix @ main) @ restore @ main.T
    return matrix, x.mean(dim=0) - y.mean(dim=0) @ matrix


@torch.no_grad()
def feature_transport(x, y, *, rows_per_direction=ROWS_PER_DIRECTION, ridge=1e-2):
    """Map many features ``y`` to the moments of ``x``, as finely as the sample allows.

    `gaussian_transport` in the principal directions of both samples together, of which there are so
    many that each has its share of rows; in the others, whose correlations such a sample does not
    tell, only mean and scatter are matched.

    Parameters
    ----------
    x, y : tensor, (n, d) and (m, d)
        Features of the source and of the target.
    rows_per_direction : int, optional
        Rows, of the smaller sample, that a direction needs.
    ridge : float, optional
        Variance added to every direction, in units of the mean variance.

    Returns
    -------
    matrix : tensor, (d, d)
    offset : tensor, (d,)
    """
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    x, y = x - mean_x, y - mean_y
    _, vectors = torch.linalg.eigh(torch.cov(x.T) + torch.cov(y.T))
    n_directions = min(x.shape[1], max(1, min(len(x), len(y)) // rows_per_direction))
    others, main = vectors[:, :-n_directions], vectors[:, -n_directions:]
    matrix, _ = gaussian_transport(x @ main, y @ main, ridge=ridge)
    matrix = main @ matrix @ main.T
    if others.shape[1]:
        scatter_x, scatter_y = (x @ others).std(dim=0), (y @ others).std(dim=0)
        floor = 1e-3 * y.std(dim=0).square().mean().sqrt()
        matrix = matrix + (others * (scatter_x + floor) / (scatter_y + floor)) @ others.T
    return matrix, mean_x - mean_y @ matrix
