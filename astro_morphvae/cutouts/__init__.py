"""Galaxy cutouts as NDData: one `Cutout`, and the `CutoutSet` that every other room works on."""

from .convert import as_cutout_set
from .cutout import Cutout
from .cutout_set import CutoutSet
from .extract import extract_cutouts

__all__ = ["Cutout", "CutoutSet", "as_cutout_set", "extract_cutouts"]
