"""Domain adaptation: losses that bring surveys' latents together, and networks that hold them."""

from .adapted import AdaptedVAE, Branch, SurveyView, branches_of
from .adversarial import Adversarial, Discriminator, reverse_gradient
from .combined import METHODS, Combined, get_method
from .conditioning import (
    ROWS_PER_DIRECTION,
    SurveyCorrection,
    feature_transport,
    gaussian_transport,
    paired_regression,
    paired_transport,
)
from .coral import Coral, coral_distance
from .method import Agreement, Method
from .mmd import MMD, bandwidths_of, mmd_squared, squared_distances
from .paired import Paired

__all__ = [
    "METHODS",
    "MMD",
    "ROWS_PER_DIRECTION",
    "AdaptedVAE",
    "Adversarial",
    "Agreement",
    "Branch",
    "Combined",
    "Coral",
    "Discriminator",
    "Method",
    "Paired",
    "SurveyCorrection",
    "SurveyView",
    "bandwidths_of",
    "branches_of",
    "coral_distance",
    "feature_transport",
    "gaussian_transport",
    "get_method",
    "mmd_squared",
    "paired_regression",
    "paired_transport",
    "reverse_gradient",
    "squared_distances",
]
