"""Simulated galaxies of known morphology, as imaging surveys would have seen them.

Nothing here is observed: say "simulated" wherever a figure rests on it.
"""

from .galaxies import make_galaxies, make_survey_pair
from .parameters import CLASS_MIX
from .surveys import BASS_MZLS, BOK_MOSAIC_EXPOSURE, DECALS, DECAM_EXPOSURE, Survey, get_survey

__all__ = [
    "BASS_MZLS",
    "BOK_MOSAIC_EXPOSURE",
    "CLASS_MIX",
    "DECALS",
    "DECAM_EXPOSURE",
    "Survey",
    "get_survey",
    "make_galaxies",
    "make_survey_pair",
]
