"""Residual encoder and decoder: group normalisation, SiLU, anti-aliased steps between scales."""

from itertools import pairwise

import torch
from torch.nn import functional

from ._backend import keras
from .layers import (
    BlurPool,
    Convolution,
    GroupNormalization,
    Linear,
    PixelConvolution,
    ResidualBlock,
    to_channels_last,
)

__all__ = ["ResidualDecoder", "ResidualEncoder"]

_COARSEST = 4  # pixels: scales are halved while even and above this


def _scales(image_size, width, max_width):
    """Side in pixels after the last halving, and the number of channels at every scale."""
    size, widths = image_size, [width]
    while size > _COARSEST and size % 2 == 0:
        size //= 2
        widths.append(min(widths[-1] * 2, max_width) if len(widths) > 1 else width)
    return size, widths


class _Part(keras.layers.Layer):
    """What encoder and decoder share: their constructor arguments."""

    def __init__(
        self, latent_dim, *, image_size, n_bands, width=16, max_width=128, seed=0, **kwargs
    ):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.latent_dim, self.image_size = int(latent_dim), int(image_size)
        self.n_bands, self.seed = int(n_bands), int(seed)
        self.width, self.max_width = int(width), int(max_width)
        self.coarse_size, self.widths = _scales(self.image_size, self.width, self.max_width)
        if self.coarse_size > 16 or self.image_size < 8:
            raise ValueError(
                "image_size must hold factors of two enough to be halved to 16 pixels or fewer "
                f"for architecture 'residual', got {image_size!r}"
            )

    def get_config(self):
        """Return the constructor arguments."""
        names = ("latent_dim", "image_size", "n_bands", "width", "max_width", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="astro_morphvae")
class ResidualEncoder(_Part):
    """A residual block per scale, from the second scale on, with blurred steps in between.

    Parameters
    ----------
    latent_dim : int
        Length of the latent vector.
    image_size : int
        Side of the image in pixels.
    n_bands : int
        Bands of the image.
    width, max_width : int, optional
        Channels at the first scale, and the most at any.
    seed : int, optional
        Seed of the initial weights.
    """

    def __init__(self, latent_dim, **kwargs):
        super().__init__(latent_dim, **kwargs)
        base = 1000 * self.seed
        self.stem = Convolution(self.n_bands, self.widths[0], strides=2, seed=base)
        self.blocks = [
            ResidualBlock(n_in, n_out, seed=base + 10 * (i + 1))
            for i, (n_in, n_out) in enumerate(pairwise(self.widths))
        ]
        self.pool = BlurPool()
        self.norm = GroupNormalization(self.widths[-1])
        n_features = self.widths[-1] * self.coarse_size**2
        self.mean = Linear(n_features, self.latent_dim, seed=base + 1)
        self.log_variance = Linear(n_features, self.latent_dim, gain=0.01, seed=base + 2)
        self.built = True

    def call(self, x):
        """Mean and log variance, (n, latent_dim) each, of images ``x``, (n, band, y, x)."""
        x = self.stem(to_channels_last(x))
        for i, block in enumerate(self.blocks):
            x = block(x if i == 0 else self.pool(x))
        x = torch.flatten(functional.silu(self.norm(x)), 1)
        return self.mean(x), self.log_variance(x), None


@keras.saving.register_keras_serializable(package="astro_morphvae")
class ResidualDecoder(_Part):
    """The mirror of `ResidualEncoder`, with bilinear steps between scales.

    Parameters are those of `ResidualEncoder`.
    """

    def __init__(self, latent_dim, **kwargs):
        super().__init__(latent_dim, **kwargs)
        base = 1000 * self.seed + 500
        n_features = self.widths[-1] * self.coarse_size**2
        self.expand = Linear(self.latent_dim, n_features, seed=base)
        widths = self.widths[::-1]
        self.blocks = [
            ResidualBlock(n_in, n_out, seed=base + 10 * (i + 1))
            for i, (n_in, n_out) in enumerate(pairwise(widths))
        ]
        self.norm = GroupNormalization(widths[-1])
        self.last = PixelConvolution(widths[-1], self.n_bands, gain=0.1, seed=base + 1)
        self.built = True

    def call(self, z, pose=None):
        """Image, (n, band, y, x), of the latents ``z``, (n, latent_dim)."""
        x = self.expand(z).reshape(-1, self.widths[-1], self.coarse_size, self.coarse_size)
        x = to_channels_last(x)
        for i, block in enumerate(self.blocks):
            x = block(x if i == 0 else _enlarge(x))
        return self.last(_enlarge(functional.silu(self.norm(x))))


def _enlarge(x):
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
