"""Files: cutouts read one a file, and whole sets in one memory-mapped FITS file."""

from ._files import iter_file_batches, read_files
from ._images import LEGACY_MASKBITS

__all__ = ["LEGACY_MASKBITS", "iter_file_batches", "read_files"]
