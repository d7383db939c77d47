"""From fluxes to colours: one stretch for a whole set, so that its pictures can be compared."""

from dataclasses import dataclass

import numpy as np

__all__ = ["ColourScale", "fit_scale"]

_STAMPS = {("red", "green", "blue"), ("grey",)}
_SAMPLE = 64  # galaxies that the scale is measured on
_SATURATION = 0.85  # of the colours; 1 would show star-forming arms as pure blue


@dataclass(frozen=True)
class ColourScale:
    """How fluxes of some bands become colours, after [1]_.

    Parameters
    ----------
    channels : tuple of int
        Bands shown as red, green and blue; a single one is shown in grey.
    weights : (n_channel,) array
        Factor of each band, which makes the typical galaxy of the set neutral.
    noise : float
        Scatter of the sky in the weighted mean of the bands.
    white : float
        Weighted mean that is shown as white.
    is_stamp : bool
        True for colour stamps, which are shown as they are.

    References
    ----------
    .. [1] Lupton et al. 2004, PASP 116, 133.
    """

    channels: tuple
    weights: np.ndarray
    noise: float
    white: float
    is_stamp: bool = False

    def __call__(self, images):
        """Compose pictures.

        Parameters
        ----------
        images : (n, band, y, x) array
            Fluxes, or values in [0, 1] of colour stamps; not finite where nothing is known.

        Returns
        -------
        (n, y, x, 3) array of float
            Red, green and blue in [0, 1].
        """
        x = np.asarray(images)[:, list(self.channels)].astype(float)
        x = np.where(np.isfinite(x), x, 0)
        if not self.is_stamp:
            x = x * self.weights[:, None, None]
            light = x.mean(axis=1, keepdims=True)
            # Below the noise colours mean nothing: they fade into grey.
            floor = 3 * self.noise
            colour = (np.maximum(x, 0) + floor) / (np.maximum(light, 0) + floor)
            colour = 1 + _SATURATION * (colour - 1)
            x = colour * self._stretch(light)
            # What is too bright keeps its colour rather than turn white.
            x = x / np.maximum(x.max(axis=1, keepdims=True), 1)
        x = np.clip(np.moveaxis(x, 1, -1), 0, 1)
        return np.repeat(x, 3, axis=-1) if x.shape[-1] == 1 else x

    def _stretch(self, light):
        softening, black = 2.5 * self.noise, -0.7 * self.noise
        low, high = np.arcsinh(black / softening), np.arcsinh(self.white / softening)
        return np.clip((np.arcsinh(light / softening) - low) / (high - low), 0, None)


def fit_scale(cutouts, bands=None):
    """Find the colours of a set.

    Parameters
    ----------
    cutouts : CutoutSet
        The set.
    bands : sequence of str, optional
        One band, or three to be shown as red, green and blue. By default the last three from the
        end (for g, r, z: z is red); for more than three the last, middle and first; for two, their
        mean is green.

    Returns
    -------
    ColourScale
        Measured on the good rows.

    Raises
    ------
    ValueError
        If a band is not in the set, or ``bands`` is neither one nor three.
    """
    names = list(cutouts.bands)
    if bands is None:
        channels = _default_channels(tuple(names))
    else:
        bands = [bands] if isinstance(bands, str) else list(bands)
        missing = [band for band in bands if band not in names]
        if missing or len(bands) not in (1, 3):
            raise ValueError(f"bands={bands!r} must be one or three of {names}")
        channels = tuple(names.index(band) for band in bands)
    if tuple(names) in _STAMPS:
        return ColourScale(channels, np.ones(len(channels)), 0.0, 1.0, is_stamp=True)

    good = np.flatnonzero(cutouts.good)
    if not len(good):
        return ColourScale(channels, np.ones(len(channels)), 1.0, 30.0)
    some = good[np.linspace(0, len(good) - 1, min(len(good), _SAMPLE)).astype(int)]
    x = np.array(cutouts.data[some])[:, list(channels)].astype(float)
    x[~np.isfinite(x)] = 0
    if cutouts.mask is not None:
        x[np.array(cutouts.mask[some])[:, list(channels)]] = 0

    peak = np.median(np.percentile(x, 99, axis=(2, 3)), axis=0)
    peak = np.where(peak > 0, peak, np.max(peak, initial=1e-30))
    weights = np.exp(np.mean(np.log(peak))) / peak
    light = (x * weights[:, None, None]).mean(axis=1)
    noise = np.median([_scatter(image) for image in light])
    white = np.percentile(np.percentile(light, 99.9, axis=(1, 2)), 85)
    noise = noise if noise > 0 else white / 100 or 1.0
    return ColourScale(channels, weights, float(noise), float(max(white, 10 * noise)))


def _default_channels(names):
    if names == ("red", "green", "blue"):
        return (0, 1, 2)
    n = len(names)
    if n == 1:
        return (0,)
    # Two bands: green repeats the redder one, which keeps blue and red apart.
    return (n - 1, n // 2, 0)


def _scatter(image):
    """Return the scatter of the sky: that of the pixels below the median, mirrored about it."""
    middle = np.median(image)
    return 1.4826 * np.median(middle - image[image <= middle])
