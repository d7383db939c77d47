"""Numbers that describe a galaxy whichever way it lies: ring Fourier amplitudes and scattering.

Pure functions of a small square image; every one gives the same numbers, to rounding, for all eight
symmetries of the square, and nearly the same for any other angle.
"""

import math

import numpy as np
import torch
from torch.nn import functional

__all__ = ["Invariants", "description_sizes"]

_N_GRID = 64  # pixels a side on which a galaxy is described
_N_MODES = 9  # angular modes 0 to 8
_N_ANGLES = 8  # orientations of the wavelets over 180 degrees
_WINDOWS = (0.047, 0.11, 0.234)  # widths of the Gaussian windows, in sides of the image
_SUBPIXELS = 4  # samples along a side of a pixel, for the share of a pixel in a ring
_LEAST_RING, _LEAST_WAVE = 0.01, 1e-4  # added before logarithms, in units of a bright peak


def _grid(image_size):
    """Side in pixels of the grid on which an image is described, and the number of its scales."""
    if image_size < 16:
        raise ValueError(f"image_size must be at least 16, got {image_size!r}")
    n_grid = min(_N_GRID, image_size) // 8 * 8
    return n_grid, int(math.log2(n_grid // 4))


def description_sizes(image_size, n_bands):
    """Count the polar, scattering and colour numbers that `Invariants` gives: three int."""
    n_grid, n_scales = _grid(image_size)
    n_pairs = n_scales * (n_scales - 1) // 2
    n_polar = n_grid // 2 * (_N_MODES + n_bands - 1)
    n_waves = len(_WINDOWS) * 3 * (n_scales + n_pairs)
    return n_polar, len(_WINDOWS) + n_waves, n_waves if n_bands > 1 else 0


def _ring_weights(n_grid, n_rings):
    """Mean, cosine and sine moments of every ring: (n_grid**2, n_rings, 2 modes - 1)."""
    offset = (np.arange(_SUBPIXELS) + 0.5) / _SUBPIXELS - 0.5
    line = (np.arange(n_grid) - (n_grid - 1) / 2)[:, None] + offset
    y, x = np.meshgrid(line.ravel(), line.ravel(), indexing="ij")
    ring = np.floor(np.hypot(x, y) * (2 * n_rings / n_grid)).astype(int).ravel()
    pixel = np.arange(n_grid * _SUBPIXELS) // _SUBPIXELS
    pixel = (pixel[:, None] * n_grid + pixel).ravel()
    angle = np.arctan2(y, x).ravel()
    inside = ring < n_rings
    index = (pixel * n_rings + ring)[inside]
    weights = np.empty((n_grid**2, n_rings, 2 * _N_MODES - 1))
    for k in range(weights.shape[2]):
        mode = (k + 1) // 2
        wave = np.cos(mode * angle) if k % 2 else np.sin(mode * angle)
        values = np.ones(inside.sum()) if k == 0 else wave[inside]
        weights[..., k] = np.bincount(index, values, n_grid**2 * n_rings).reshape(-1, n_rings)
    weights /= weights[..., 0].sum(axis=0)[:, None]
    return torch.tensor(weights, dtype=torch.float32)


def _wavelets(side=7, width=0.8, frequency=0.75 * np.pi, elongation=0.5):
    """Morlet wavelets, real and imaginary parts of every orientation: (2 angles, 1, side, side)."""
    y, x = np.mgrid[:side, :side] - float(side // 2)
    kernels = []
    for angle in np.pi * np.arange(_N_ANGLES) / _N_ANGLES:
        along = np.cos(angle) * x + np.sin(angle) * y
        across = -np.sin(angle) * x + np.cos(angle) * y
        envelope = np.exp(-0.5 * (along**2 + (elongation * across) ** 2) / width**2)
        envelope /= envelope.sum()
        wave = np.exp(1j * frequency * along)
        wavelet = (wave - (envelope * wave).sum()) * envelope
        kernels += [wavelet.real, wavelet.imag]
    return torch.tensor(np.array(kernels)[:, None], dtype=torch.float32)


def _windows(n):
    """Gaussian weights about the centre of ``n`` × ``n`` pixels: (windows, n**2)."""
    line = (np.arange(n) - (n - 1) / 2) / n
    square = (line[:, None] ** 2 + line**2).ravel()
    weights = np.exp(-0.5 * square / np.square(_WINDOWS)[:, None])
    return torch.tensor(weights / weights.sum(axis=1, keepdims=True), dtype=torch.float32)


def _halve(x):
    """Smooth and halve, (n, channel, y, x), with (1, 3, 3, 1) / 8 on both axes."""
    n, n_channels, ny, nx = x.shape
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device) / 8.0
    padded = functional.pad(x.reshape(-1, 1, ny, nx), (1, 1, 1, 1), mode="replicate")
    halved = functional.conv2d(padded, torch.outer(line, line)[None, None], stride=2)
    return halved.reshape(n, n_channels, ny // 2, nx // 2)


class Invariants:
    """Description of galaxies that their orientation and handedness do not change.

    Three sets of numbers, the first two of the mean over bands unless said:

    * polar: on rings about the centre, the logarithm of the amplitudes of the angular Fourier modes
      0 to 8, and the logarithm of the ratio of neighbouring bands (colour profiles);
    * scattering [1]_: mean modulus of Morlet wavelets of several scales under three Gaussian
      windows, its modulation with the wavelets' angle, and the same of the wavelet transform of
      that modulus, by the *relative* angle of the two wavelets. The second order tells curved and
      branching structure, as spiral arms, from an elongated blob [2]_;
    * colour: the same of the first band less the last, where there are several. Young arms and
      companions of another colour stand out there from the old stars of bulge and disk.

    Parameters
    ----------
    image_size : int
        Side of the images in pixels, at least 16.
    n_bands : int
        Bands of the images.

    Attributes
    ----------
    sizes : tuple of int
        Number of polar, of scattering and of colour numbers.

    References
    ----------
    .. [1] Bruna & Mallat 2013, "Invariant scattering convolution networks", arXiv:1203.1513.
    .. [2] Cheng & Menard 2021, "How to quantify fields or textures?", arXiv:2112.01288.
    """

    def __init__(self, image_size, n_bands):
        self.n_grid, self.n_scales = _grid(image_size)
        self.sizes = description_sizes(image_size, n_bands)
        self.n_rings = self.n_grid // 2
        self.rings = _ring_weights(self.n_grid, self.n_rings)
        self.wavelets = _wavelets()
        self.windows = [_windows(self.n_grid >> j) for j in range(self.n_scales)]
        angle = torch.arange(_N_ANGLES)
        self.relative = (angle[:, None] + angle) % _N_ANGLES
        self.cosines = torch.cos(2 * math.pi * angle[:, None] * torch.arange(3) / _N_ANGLES)
        self.cosines /= _N_ANGLES

    def to(self, device):
        """Move the constants to a device; returns the object itself."""
        for name in ("rings", "wavelets", "relative", "cosines"):
            setattr(self, name, getattr(self, name).to(device))
        self.windows = [window.to(device) for window in self.windows]
        return self

    def __call__(self, x):
        """Describe images.

        Parameters
        ----------
        x : tensor, (n, band, y, x)
            Stretched images, in units of a bright galaxy's peak: amplitudes far below one count
            as none.

        Returns
        -------
        description : tensor, (n, sum(sizes))
            The polar, then the scattering, then the colour numbers.
        modes : tensor, (n, n_rings, 2 modes - 1)
            Mean, cosine and sine moments of every ring, which do know the orientation.
        """
        if self.rings.device != x.device:
            self.to(x.device)
        x = x.float()
        if x.shape[-1] != self.n_grid:
            x = functional.adaptive_avg_pool2d(x, self.n_grid)
        grey = x.mean(dim=1)
        modes = (grey.flatten(1) @ self.rings.flatten(1)).reshape(len(x), self.n_rings, -1)
        level = torch.log((grey.flatten(1) @ self.windows[0].T).clamp_min(_LEAST_WAVE))
        parts = [self._polar(x, modes), level, self._scattering(grey[:, None])]
        if x.shape[1] > 1:
            parts.append(self._scattering(x[:, :1] - x[:, -1:]))
        return torch.cat(parts, dim=1), modes

    def _polar(self, x, modes):
        amplitude = torch.hypot(modes[..., 1::2], modes[..., 2::2])
        amplitude = torch.cat([modes[..., :1].abs(), amplitude], dim=-1)
        rings = x.flatten(2) @ self.rings[..., 0]
        rings = torch.log(rings.clamp_min(0.0) + 2 * _LEAST_RING)
        colours = rings[:, :-1] - rings[:, 1:]
        return torch.cat([torch.log(amplitude + _LEAST_RING).flatten(1), colours.flatten(1)], dim=1)

    def _modulus(self, x):
        """Modulus of the wavelet transform, (n, channel, angle, y, x)."""
        n, n_channels, ny, nx = x.shape
        pad = self.wavelets.shape[-1] // 2
        padded = functional.pad(x.reshape(-1, 1, ny, nx), (pad,) * 4, mode="replicate")
        parts = functional.conv2d(padded, self.wavelets)
        parts = parts.reshape(n, n_channels, _N_ANGLES, 2, ny, nx)
        return (parts.square().sum(dim=3) + _LEAST_WAVE**2).sqrt()

    def _scattering(self, image):
        numbers = []
        for first in range(self.n_scales):
            if first > 0:
                image = _halve(image)
            modulus = self._modulus(image)[:, 0]
            by_angle = modulus.flatten(2) @ self.windows[first].T  # (n, angle, window)
            mean = by_angle.mean(dim=1)
            turn = torch.fft.rfft(by_angle, dim=1).abs() / _N_ANGLES
            numbers.append(torch.log(mean + _LEAST_WAVE))
            numbers += [turn[:, mode] / (mean + 10 * _LEAST_WAVE) for mode in (1, 2)]
            for second in range(first + 1, self.n_scales):
                modulus = _halve(modulus)
                both = self._modulus(modulus).flatten(3) @ self.windows[second].T
                relative = self.relative[:, :, None].expand(len(both), -1, -1, both.shape[3])
                both = torch.gather(both, 2, relative).mean(dim=1)  # (n, relative angle, window)
                ratio = torch.log((both + 0.1 * _LEAST_WAVE) / (mean[:, None] + _LEAST_WAVE))
                numbers.append(torch.einsum("naw,ac->nwc", ratio, self.cosines))
        return torch.cat([part.flatten(1) for part in numbers], dim=1)
