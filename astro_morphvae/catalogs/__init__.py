"""Catalogues of volunteers' votes, and their match to galaxies on the sky."""

from .crossmatch import crossmatch

__all__ = ["crossmatch"]
