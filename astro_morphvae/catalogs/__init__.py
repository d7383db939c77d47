"""Catalogues of volunteers' votes, and their match to galaxies on the sky."""

__all__ = []
