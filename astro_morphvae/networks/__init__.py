"""Networks: pure Keras 3 on PyTorch, arrays in and arrays out, no astropy."""

from ._backend import keras as _keras  # noqa: F401  (sets the backend before keras is imported)
from .adaptation import AdaptedVAE
from .layers import (
    BlurPool,
    Convolution,
    GroupNormalization,
    Linear,
    PixelConvolution,
    ResidualBlock,
    UpsampledTransposedConvolution,
)
from .residual import ResidualDecoder, ResidualEncoder
from .stretch import AsinhStretch, fit_softening
from .symmetries import apply_symmetry
from .vae import ARCHITECTURES, VAE
from .xu2023 import Xu2023Decoder, Xu2023Encoder

__all__ = [
    "ARCHITECTURES",
    "VAE",
    "AdaptedVAE",
    "AsinhStretch",
    "BlurPool",
    "Convolution",
    "GroupNormalization",
    "Linear",
    "PixelConvolution",
    "ResidualBlock",
    "ResidualDecoder",
    "ResidualEncoder",
    "UpsampledTransposedConvolution",
    "Xu2023Decoder",
    "Xu2023Encoder",
    "apply_symmetry",
    "fit_softening",
]
