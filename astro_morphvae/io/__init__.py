"""Files: cutouts read one a file, and whole sets in one memory-mapped FITS file."""

from astropy.io import registry as _registry

from ..cutouts import CutoutSet as _CutoutSet
from ._cutout_file import CutoutWriter, read_cutouts, write_cutouts
from ._files import iter_file_batches, read_files
from ._images import LEGACY_MASKBITS

__all__ = [
    "LEGACY_MASKBITS",
    "CutoutWriter",
    "iter_file_batches",
    "read_cutouts",
    "read_files",
    "write_cutouts",
]


def _is_fits(origin, path, fileobj, *args, **kwargs):
    if fileobj is not None:
        start = fileobj.read(9)
        fileobj.seek(0)
        return start == b"SIMPLE  ="
    return isinstance(path, str) and path.lower().endswith((".fits", ".fits.gz"))


# force: a module that is reloaded registers again.
_registry.register_reader("morphvae.fits", _CutoutSet, read_cutouts, force=True)
_registry.register_writer("morphvae.fits", _CutoutSet, write_cutouts, force=True)
_registry.register_identifier("morphvae.fits", _CutoutSet, _is_fits, force=True)
