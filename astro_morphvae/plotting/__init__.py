"""Figures: functions that draw on matplotlib Axes and return them.

None of them shows a figure, changes matplotlib's settings, or imports it before it is called.
"""

from .images import plot_cutouts, plot_reconstructions
from .latents import plot_latent_map
from .scores import plot_confusion, plot_reliability
from .surveys import plot_domain_shift, plot_survey_pairs
from .training import plot_training
from .transfer import plot_transfer

__all__ = [
    "plot_confusion",
    "plot_cutouts",
    "plot_domain_shift",
    "plot_latent_map",
    "plot_reconstructions",
    "plot_reliability",
    "plot_survey_pairs",
    "plot_training",
    "plot_transfer",
]
