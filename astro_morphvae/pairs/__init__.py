"""The same galaxies in two surveys, on the same pixels."""

from .pairing import MAX_SEPARATION, pair_surveys

__all__ = ["MAX_SEPARATION", "pair_surveys"]
