"""The eight symmetries of the square (group D4), on images (…, y, x)."""

__all__ = ["N_SYMMETRIES", "apply_symmetry"]

N_SYMMETRIES = 8


def apply_symmetry(images, index):
    """Mirror and turn images by one of the eight symmetries of the square.

    Parameters
    ----------
    images : tensor, (..., y, x)
        Square images.
    index : int
        0 to 7: 4 adds a swap of the axes, 2 a mirror in y, 1 a mirror in x; 0 is the identity.

    Returns
    -------
    images : tensor, (..., y, x)
        A view where torch can give one.
    """
    if index & 4:
        images = images.transpose(-1, -2)
    flipped = [axis for axis, bit in ((-2, 2), (-1, 1)) if index & bit]
    return images.flip(flipped) if flipped else images
