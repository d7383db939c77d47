"""From the pixels that a survey has to those that are wanted."""

import astropy.units as u
import numpy as np

from .._resample import resample
from ..cutouts._parse import PIXEL_SCALE_TOLERANCE, parse_angle, parse_size
from ..cutouts._records import place_on_grid

__all__ = ["PixelGrid"]


class PixelGrid:
    """Pixels of a survey that a cutout needs, and how they become those that are wanted.

    Parameters
    ----------
    size : int or (int, int)
        Pixels wanted, (ny, nx).
    native : float
        Pixel scale of the survey, arcsec.
    pixel_scale : `~astropy.units.Quantity` [angle], optional
        Pixel scale wanted; that of the survey by default.

    Attributes
    ----------
    size : tuple of int
        Pixels of the survey that are needed, (ny, nx).
    wanted : tuple of int
        Pixels wanted.
    scale : float
        Pixel scale of the result, arcsec.
    """

    def __init__(self, size, native, pixel_scale=None):
        self.wanted = parse_size("size", size)
        if self.wanted is None:
            raise ValueError("size: expected a number of pixels or (ny, nx), got None")
        angle = parse_angle("pixel_scale", pixel_scale)
        self.native = self.scale = float(native)
        self.size = self.wanted
        self._ratio = 1.0
        if angle is None:
            return
        ratio = angle.to_value(u.arcsec) / native
        if abs(ratio - 1) >= PIXEL_SCALE_TOLERANCE:
            self._ratio = ratio
            self.scale = float(angle.to_value(u.arcsec))
            self.size = tuple(int(np.ceil(pixels * ratio)) + 2 for pixels in self.wanted)

    def finish(self, record):
        """Bring a record of the survey's pixels to those wanted, by exact areas.

        Parameters
        ----------
        record : `~astro_morphvae.cutouts._records.Record`

        Returns
        -------
        `~astro_morphvae.cutouts._records.Record`
        """
        record.pixel_scale = self.native
        if self._ratio == 1:
            return place_on_grid(record, resize=self.wanted, pixel_scale=self.native)
        return place_on_grid(record, pixel_scale=self.scale, resize=self.wanted)

    def noise_correlation(self):
        """Variance of flux summed over a large area, over the sum of the variances, after it.

        Returns
        -------
        float
            1 where pixels keep their size or are binned whole.
        """
        if self._ratio == 1:
            return 1.0
        ones = np.ones((1, *self.size))
        _, ivar, _ = resample(ones, ones, ratio=self._ratio, size=self.wanted)
        factor = float(self._ratio**2 / np.mean(1.0 / ivar[ivar > 0]))
        return 1.0 if abs(factor - 1) < 1e-6 else factor
