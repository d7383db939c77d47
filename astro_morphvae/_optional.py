"""Optional dependencies, imported where they are needed.

The error for a missing one says how to get it.
"""

from importlib import import_module

__all__ = ["import_optional"]

_EXTRAS = {
    "matplotlib": "plot",
    "astroquery": "survey",
    "requests": "survey",
    "photutils": "survey",
    "reproject": "survey",
}


def import_optional(name, *, needed_for):
    """Import a module of an optional dependency.

    Parameters
    ----------
    name : str
        The module, for example ``"matplotlib.pyplot"``.
    needed_for : str
        What the caller does with it, for the error message: ``"plot_cutouts"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If its package is not installed; the message names the package, what wanted it and the
        command that installs it.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        extra = _EXTRAS.get(package)
        target = f"'astro_morphvae[{extra}]'" if extra else package
        raise ImportError(
            f"{needed_for} needs the package {package!r}, which is not installed. "
            f"Install it with: python -m pip install {target}",
            name=package,
        ) from error
