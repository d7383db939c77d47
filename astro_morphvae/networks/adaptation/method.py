"""What every way of aligning surveys sees, and offers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Agreement", "Method"]


@dataclass(frozen=True)
class Agreement:
    """Latents of a batch of two surveys, which a `Method` is to bring together.

    Attributes
    ----------
    source, target : tensor, (n, latent_dim)
        Means of the latents. Gradients run through those of the target, and through those of the
        source where its encoder is in training too.
    paired : tensor of bool, (n,)
        Whether a row of both is the same galaxy.
    survey : int
        Number of the target survey, from 1.
    progress : float
        Share of the fit that is done, 0 to 1.
    cross : callable, optional
        Minus the log-likelihood per pixel value of the source's images of the pairs, decoded from
        the target's latents: a scalar.
    """

    source: torch.Tensor
    target: torch.Tensor
    paired: torch.Tensor
    survey: int = 1
    progress: float = 1.0
    cross: Callable | None = None


class Method:
    """A way of aligning surveys: a loss of their latents, and layers to train with it."""

    needs_pairs = False
    n_layers = 0
    crosses = False  # whether it asks for cross-reconstructions

    def prepare(self, latent_dim, n_surveys, seed):
        """Make the ``n_layers`` layers that are trained beside the network: a list."""
        return []

    def loss(self, agreement, layers=()):
        """Loss, a scalar tensor, of an `Agreement`, given the layers of `prepare`."""
        raise NotImplementedError
