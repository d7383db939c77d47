"""Imaging surveys: sky positions in, cutouts out."""

__all__ = []
