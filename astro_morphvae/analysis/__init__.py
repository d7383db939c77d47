"""What latents say: the shift between surveys, in tables."""

from ._classifier import domain_auc
from ._mmd import linear_mmd, squared_mmd
from ._moments import coral_distance, frechet_distance
from .domain_shift import domain_shift, latent_shifts
from .retrieval import rank_pairs

__all__ = [
    "coral_distance",
    "domain_auc",
    "domain_shift",
    "frechet_distance",
    "latent_shifts",
    "linear_mmd",
    "rank_pairs",
    "squared_mmd",
]
