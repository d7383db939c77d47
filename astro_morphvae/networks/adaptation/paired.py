"""Alignment by pairs: a galaxy has the same latents, whichever survey saw it."""

from dataclasses import dataclass

from .method import Method

__all__ = ["Paired"]


@dataclass(frozen=True)
class Paired(Method):
    """Let the same galaxy have the same latents in both surveys, and be drawn as either saw it.

    The first term is the mean squared difference of the latents of a pair. The second encodes the
    target's image and decodes it as the source's: minus the log-likelihood of what the source saw.

    Parameters
    ----------
    latent_weight : float, optional
        Weight of the agreement of the latents.
    cross_reconstruction : float, optional
        Weight of the cross-reconstruction, which is in nats per pixel value; 0 does without.
    """

    latent_weight: float = 1.0
    cross_reconstruction: float = 0.0

    needs_pairs = True

    def __post_init__(self):
        for name in ("latent_weight", "cross_reconstruction"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")
        if self.latent_weight == self.cross_reconstruction == 0:
            raise ValueError("latent_weight and cross_reconstruction must not both be 0")

    @property
    def crosses(self):
        """Whether images are decoded across surveys."""
        return self.cross_reconstruction > 0

    def loss(self, agreement, layers=()):
        """Disagreement of the pairs; see `Method`."""
        x, y = agreement.source, agreement.target
        if not agreement.paired.any():
            return 0.0 * y.sum()
        difference = (x - y)[agreement.paired].float()
        loss = self.latent_weight * difference.square().mean()
        if self.cross_reconstruction > 0 and agreement.cross is not None:
            loss = loss + self.cross_reconstruction * agreement.cross()
        return loss
