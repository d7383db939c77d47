"""What users hold for a set of cutouts, made into one."""

from pathlib import Path

import numpy as np
from astropy.nddata import NDData

from .cutout_set import CutoutSet

__all__ = ["as_cutout_set"]


def as_cutout_set(obj, *, name="cutouts"):
    """Take what users hold for a `CutoutSet`, and give one.

    Parameters
    ----------
    obj : CutoutSet, sequence of `~astropy.nddata.NDData`, path-like, or sequence of path-like
        A set passes through, NDData objects go through `CutoutSet.from_nddata`, one path is a file
        written by `CutoutSet.write`, several go through `CutoutSet.from_files`.
    name : str, optional
        Name of the argument, for the error.

    Returns
    -------
    CutoutSet

    Raises
    ------
    TypeError
        If ``obj`` is anything else, such as a bare array, which has no unit and no bands.
    """
    if isinstance(obj, CutoutSet):
        return obj
    if isinstance(obj, (str, Path)):
        return CutoutSet.read(obj)
    if isinstance(obj, NDData):
        return CutoutSet.from_nddata([obj])
    if isinstance(obj, (list, tuple)) and obj:
        if all(isinstance(item, NDData) for item in obj):
            return CutoutSet.from_nddata(obj)
        if all(isinstance(item, (str, Path)) for item in obj):
            return CutoutSet.from_files(obj)
    what = type(obj).__name__
    if isinstance(obj, np.ndarray):
        what = f"an array of shape {obj.shape}, which has no unit and no bands"
    elif isinstance(obj, (list, tuple)):
        what += " of " + (", ".join(sorted({type(item).__name__ for item in obj})) or "nothing")
    raise TypeError(
        f"{name}: expected a CutoutSet, a list of NDData, or the path of a CutoutSet file; "
        f"got {what}"
    )
