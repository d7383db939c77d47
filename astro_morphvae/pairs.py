"""The same galaxies in two surveys, on the same pixels."""

__all__ = []
