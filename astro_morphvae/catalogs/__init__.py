"""Catalogues of volunteers' votes, and their match to galaxies on the sky."""

from ._galaxy_zoo_tables import GALAXY_ZOO, GalaxyZooTable
from .crossmatch import crossmatch
from .galaxy_zoo import read_galaxy_zoo

__all__ = ["GALAXY_ZOO", "GalaxyZooTable", "crossmatch", "read_galaxy_zoo"]
