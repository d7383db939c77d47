"""Cutouts on one pixel grid and at one resolution, with their noise and masks."""

__all__ = []
