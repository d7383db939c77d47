"""Imaging surveys: sky positions in, cutouts out.

The services need astroquery, which is loaded when the first of them is used.
"""

from importlib import import_module as _import_module

# Public name -> module that defines it.
_LAZY_NAMES = {
    "LegacySurvey": "legacy",
    "LegacySurveyClass": "legacy",
    "PanSTARRS": "panstarrs",
    "PanSTARRSClass": "panstarrs",
    "HipsSurvey": "hips",
    "HipsSurveyClass": "hips",
    "SDSS": "sdss",
    "SDSSClass": "sdss",
    "Mosaic": "mosaics",
    "from_mosaics": "mosaics",
    "SurveyInfo": "registry",
    "get_survey_info": "registry",
    "list_surveys": "registry",
}

__all__ = list(_LAZY_NAMES)


def __getattr__(name):
    if name not in _LAZY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{_LAZY_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
