"""Warnings and errors of astro_morphvae; each message names the argument that it is about."""

from astropy.utils.exceptions import AstropyUserWarning

__all__ = ["CutoutMismatchError", "FitDivergedError", "MorphVAEWarning", "NotFittedError"]


class MorphVAEWarning(AstropyUserWarning):
    """Base class of the warnings issued by astro_morphvae."""


class CutoutMismatchError(ValueError):
    """Cutouts disagree with each other, or with the model they are given to.

    Raised for sizes, bands, pixel scales or units that differ; the message says which rows.
    """


class FitDivergedError(RuntimeError):
    """The loss became non-finite; the model keeps the last weights that were good.

    Parameters
    ----------
    message : str
        What happened, and at which epoch and step.
    model : `~astro_morphvae.LatentModel`, optional
        The model with its last good weights.
    """

    def __init__(self, message, model=None):
        super().__init__(message)
        self.model = model


class NotFittedError(RuntimeError):
    """A model or classifier was asked for results before it had been fitted."""
