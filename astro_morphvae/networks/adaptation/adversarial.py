"""Adversarial alignment: latents from which a discriminator cannot tell the survey."""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from .._backend import keras
from ..layers import Linear
from .coral import Coral
from .method import Method

__all__ = ["Adversarial", "Discriminator", "reverse_gradient"]


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.strength * gradient, None


def reverse_gradient(x, strength=1.0):
    """Give ``x`` as it is, and its gradient times minus ``strength`` [1]_.

    References
    ----------
    .. [1] Ganin et al. 2016, "Domain-adversarial training of neural networks", JMLR 17, 59.
    """
    return _Reversal.apply(x, float(strength))


@keras.saving.register_keras_serializable(package="astro_morphvae")
class Discriminator(keras.layers.Layer):
    """Log-odds of every survey, (n, n_surveys), from latents, (n, latent_dim).

    It sees the latents, their squares and two hidden layers of them, so that a difference of the
    scatter is as easy to find as one of the mean.
    """

    def __init__(self, latent_dim, n_surveys=2, *, width=128, seed=0, autocast=False, **kwargs):
        super().__init__(autocast=autocast, **kwargs)
        self.latent_dim, self.n_surveys = int(latent_dim), int(n_surveys)
        self.width, self.seed = int(width), int(seed)
        base = 1000 * self.seed + 500
        self.first = Linear(2 * self.latent_dim, self.width, seed=base)
        self.second = Linear(self.width, self.width, seed=base + 1)
        self.last = Linear(self.width, self.n_surveys, gain=1e-2, seed=base + 2)
        self.built = True

    def call(self, z):
        """Log-odds, (n, n_surveys), of latents ``z``, (n, latent_dim)."""
        x = functional.leaky_relu(self.first(torch.cat([z, z.square() - 1.0], dim=1)), 0.2)
        return self.last(functional.leaky_relu(self.second(x), 0.2))

    def get_config(self):
        """Return the constructor arguments."""
        names = ("latent_dim", "n_surveys", "width", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class Adversarial(Method):
    """Bring surveys' latents together against a discriminator, by gradient reversal [1]_.

    Parameters
    ----------
    strength : float, optional
        Largest factor on the reversed gradient.
    steepness : float, optional
        How soon the strength rises in the course of the fit:
        ``strength * (2 / (1 + exp(-steepness * share done)) - 1)``.
    moments : float, optional
        Weight of the distance of means and covariances (`Coral`), which keeps the game from
        drifting where nothing else holds the latents; 0 does without.
    width : int, optional
        Hidden units of the discriminator.

    References
    ----------
    .. [1] Ganin et al. 2016, "Domain-adversarial training of neural networks", JMLR 17, 59.
    """

    strength: float = 0.1
    steepness: float = 10.0
    moments: float = 1.0
    width: int = 128

    n_layers = 1

    def __post_init__(self):
        for name in ("strength", "steepness", "width"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}")
        if not self.moments >= 0:
            raise ValueError(f"moments must not be negative, got {self.moments!r}")

    def prepare(self, latent_dim, n_surveys, seed):
        """Make the layers it trains beside the network: the discriminator."""
        return [Discriminator(latent_dim, n_surveys, width=self.width, seed=seed)]

    def loss(self, agreement, layers):
        """Cross-entropy of the survey, and distance of the moments; see `Method`."""
        strength = self.strength * (
            2.0 / (1.0 + math.exp(-self.steepness * agreement.progress)) - 1.0
        )
        z = torch.cat([agreement.source, agreement.target]).float()
        n, m = len(agreement.source), len(agreement.target)
        survey = torch.zeros(n + m, dtype=torch.long, device=z.device)
        survey[n:] = agreement.survey
        odds = layers[0](reverse_gradient(z, strength))
        loss = functional.cross_entropy(odds, survey)
        return loss + self.moments * Coral().loss(agreement) if self.moments > 0 else loss
