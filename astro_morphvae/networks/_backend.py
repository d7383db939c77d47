"""Chooses the Keras backend, in one place and before Keras is first imported.

The networks run on PyTorch: their convolutions use torch's channels-last memory format.
"""

import os
import sys

__all__ = ["keras"]

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")

import keras

if keras.backend.backend() != "torch":
    raise ImportError(
        "astro_morphvae needs Keras on the torch backend, but Keras is already set to "
        f"{keras.backend.backend()!r}: set the environment variable KERAS_BACKEND=torch, or import "
        "astro_morphvae.networks before anything else imports keras."
    )
