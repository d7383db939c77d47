"""What latents say: the shift between surveys, in tables."""

__all__ = []
