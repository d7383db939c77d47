"""Cutouts on one pixel grid and at one resolution, with their noise and masks."""

from importlib import import_module as _import_module

# Public name -> module that defines it, loaded on first use: each brings more of scipy with it.
_LAZY_NAMES = {
    "reproject_cutouts": "alignment",
    "match_psf": "psf",
    "common_fwhm": "psf",
    "PSFExModel": "psfex",
    "match_depth": "depth",
    "point_source_depth": "depth",
    "aperture_correlation": "depth",
}

__all__ = [*_LAZY_NAMES]


def __getattr__(name):
    if name not in _LAZY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{_LAZY_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
