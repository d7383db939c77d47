"""The encoder and decoder of Xu et al. 2023, MNRAS 526, 6391: the system to compare with."""

from itertools import pairwise

import torch
from torch.nn import functional

from ._backend import keras
from .layers import (
    Convolution,
    Linear,
    PixelConvolution,
    UpsampledTransposedConvolution,
    halve_by_maximum,
    to_channels_last,
)

__all__ = ["Xu2023Decoder", "Xu2023Encoder"]

_WIDTHS = (32, 64, 128)
_SLOPE = 0.01  # of the leaky rectifier below zero
_GAIN = 1.0 / 3.0  # PyTorch's default initialisation, as the published network has


def _check_size(image_size):
    if image_size < 64 or image_size % 64:
        raise ValueError(
            f"image_size must be a multiple of 64 for architecture 'xu2023', got {image_size!r}"
        )
    return image_size // 64


class _Part(keras.layers.Layer):
    """What encoder and decoder share: their constructor arguments."""

    def __init__(self, latent_dim, *, image_size, n_bands, seed=0, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.latent_dim, self.image_size = int(latent_dim), int(image_size)
        self.n_bands, self.seed = int(n_bands), int(seed)
        self.coarse_size = _check_size(self.image_size)

    def get_config(self):
        """Return the constructor arguments."""
        names = ("latent_dim", "image_size", "n_bands", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="astro_morphvae")
class Xu2023Encoder(_Part):
    """Three times convolution of stride 2, maximum of 2 × 2, leaky rectifier; then two linear maps.

    Parameters
    ----------
    latent_dim : int
        Length of the latent vector.
    image_size : int
        Side of the image in pixels, a multiple of 64.
    n_bands : int
        Bands of the image.
    seed : int, optional
        Seed of the initial weights.
    """

    def __init__(self, latent_dim, *, image_size, n_bands, seed=0, **kwargs):
        super().__init__(latent_dim, image_size=image_size, n_bands=n_bands, seed=seed, **kwargs)
        widths = (self.n_bands, *_WIDTHS)
        self.convolutions = [
            Convolution(n_in, n_out, strides=2, gain=_GAIN, seed=self.seed + i)
            for i, (n_in, n_out) in enumerate(pairwise(widths))
        ]
        n_features = _WIDTHS[-1] * self.coarse_size**2
        self.mean = Linear(n_features, self.latent_dim, gain=_GAIN, seed=self.seed + 3)
        self.log_variance = Linear(n_features, self.latent_dim, gain=_GAIN, seed=self.seed + 4)
        self.built = True

    def call(self, x):
        """Mean and log variance, (n, latent_dim) each, of images ``x``, (n, band, y, x)."""
        x = to_channels_last(x)
        for convolution in self.convolutions:
            x = functional.leaky_relu(halve_by_maximum(convolution(x)), _SLOPE)
        x = torch.flatten(x, 1)
        return self.mean(x), self.log_variance(x), None


@keras.saving.register_keras_serializable(package="astro_morphvae")
class Xu2023Decoder(_Part):
    """A linear map, three upsampling convolutions, and a last convolution with a rectifier.

    Parameters are those of `Xu2023Encoder`.
    """

    def __init__(self, latent_dim, *, image_size, n_bands, seed=0, **kwargs):
        super().__init__(latent_dim, image_size=image_size, n_bands=n_bands, seed=seed, **kwargs)
        n_features = _WIDTHS[-1] * self.coarse_size**2
        self.expand = Linear(self.latent_dim, n_features, gain=_GAIN, seed=self.seed + 10)
        widths = (*_WIDTHS[::-1], _WIDTHS[0])
        self.convolutions = [
            UpsampledTransposedConvolution(n_in, n_out, gain=_GAIN, seed=self.seed + 11 + i)
            for i, (n_in, n_out) in enumerate(pairwise(widths))
        ]
        self.last = PixelConvolution(_WIDTHS[0], self.n_bands, gain=_GAIN, seed=self.seed + 14)
        self.built = True

    def call(self, z, pose=None):
        """Image, (n, band, y, x), of the latents ``z``, (n, latent_dim)."""
        x = self.expand(z).reshape(-1, _WIDTHS[-1], self.coarse_size, self.coarse_size)
        x = to_channels_last(x)
        for convolution in self.convolutions:
            x = functional.leaky_relu(convolution(x), _SLOPE)
        return functional.relu(self.last(x))
