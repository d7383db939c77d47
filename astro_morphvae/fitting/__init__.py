"""Fitters: hyper-parameters in the constructor, ``fitter(model, data)`` gives a fitted copy."""

from .schedules import Constant, Cosine, Cyclical, WarmUp
from .vae import VAEFitter

__all__ = ["Constant", "Cosine", "Cyclical", "VAEFitter", "WarmUp"]
