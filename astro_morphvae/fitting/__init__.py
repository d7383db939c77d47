"""Fitters: hyper-parameters in the constructor, ``fitter(model, data)`` gives a fitted copy."""

from .domain_adaptation import AdaptationCollapseWarning, DomainAdaptationFitter
from .schedules import Constant, Cosine, Cyclical, WarmUp
from .vae import VAEFitter

__all__ = [
    "AdaptationCollapseWarning",
    "Constant",
    "Cosine",
    "Cyclical",
    "DomainAdaptationFitter",
    "VAEFitter",
    "WarmUp",
]
