"""Galaxy cutouts in, a table of morphology out."""

from importlib import import_module as _import_module

try:
    from ._version import version as __version__
except ImportError:  # a source tree that was never built
    __version__ = "0.1.dev0"

# Public name -> module that defines it. Loaded on first use (SPEC 1), so that importing the
# package loads neither keras nor torch.
_LAZY_NAMES = {
    "Cutout": "cutouts",
    "CutoutSet": "cutouts",
    "extract_cutouts": "cutouts",
    "VAE": "networks",
    "LatentModel": "model",
    "VAEFitter": "fitting",
    "DomainAdaptationFitter": "fitting",
    "LegacySurvey": "surveys",
    "reproject_cutouts": "processing",
    "match_psf": "processing",
    "pair_surveys": "pairs",
    "MorphologyFitter": "morphology",
    "MorphologyClassifier": "morphology",
    "select_labels": "morphology",
    "tune_process": "_runtime",
}
_LAZY_MODULES = (
    "analysis",
    "catalogs",
    "cli",
    "cutouts",
    "datasets",
    "decision_trees",
    "exceptions",
    "fitting",
    "io",
    "model",
    "morphology",
    "networks",
    "pairs",
    "plotting",
    "processing",
    "surveys",
    "units",
)

__all__ = ["__version__", *_LAZY_NAMES, *_LAZY_MODULES]


def __getattr__(name):
    if name in _LAZY_NAMES:
        value = getattr(_import_module(f"{__name__}.{_LAZY_NAMES[name]}"), name)
    elif name in _LAZY_MODULES:
        value = _import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(__all__))
