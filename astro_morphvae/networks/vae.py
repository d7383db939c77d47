"""The variational auto-encoder: stretch, encoder, decoder and their evidence lower bound."""

import numpy as np
import torch

from ._backend import keras
from .likelihood import (
    gaussian_divergence,
    mean_square_per_band,
    objective,
    reconstruction_term,
)
from .orientation_free import OrientationFreeDecoder, OrientationFreeEncoder
from .residual import ResidualDecoder, ResidualEncoder
from .stretch import AsinhStretch
from .xu2023 import Xu2023Decoder, Xu2023Encoder

__all__ = ["ARCHITECTURES", "VAE"]

# name -> (encoder, decoder); see `VAE` for what they must offer.
ARCHITECTURES = {
    "default": (OrientationFreeEncoder, OrientationFreeDecoder),
    "residual": (ResidualEncoder, ResidualDecoder),
    "xu2023": (Xu2023Encoder, Xu2023Decoder),
}

_DEFAULT_SOFTENING = 0.01  # nmgy: about three times the noise of a DECaLS sky pixel
_LOG_VAR_RANGE = (-30.0, 20.0)
_NOISE_MEMORY = 0.9  # share of the learned noise kept from one training step to the next
_LEAST_NOISE = 1e-4  # stretched units


def _positive_int(name, value):
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def _as_posterior(z_mean, z_log_var):
    return z_mean.float(), z_log_var.float().clamp(*_LOG_VAR_RANGE)


@keras.saving.register_keras_serializable(package="astro_morphvae")
class VAE(keras.Model):
    """Variational auto-encoder of galaxy cutouts [1]_.

    Flux is stretched, encoded to a Gaussian posterior over the latents, decoded and stretched back.
    Weights exist from construction on, and depend on ``seed`` alone.

    Parameters
    ----------
    latent_dim : int, optional
        Length of the latent vector.
    architecture : str, optional
        ``"default"``, whose latents do not know the orientation; ``"residual"``, a convolutional
        one that does; or ``"xu2023"`` for the network of [2]_ (443,507 parameters
        for 40 latents of 3 × 256 × 256 pixels; the published system has ``stretch=None``).
    image_size : int, optional
        Side of the cutouts in pixels; a multiple of 64 for ``"xu2023"``.
    n_bands : int, optional
        Bands of the cutouts.
    beta : float, optional
        Weight of the Kullback-Leibler divergence.
    seed : int, optional
        Seed of the initial weights.
    stretch : {"asinh", None}, optional
        First layer, whose inverse closes the decoder; `None` feeds the flux as it is.
    softening : float or sequence of float (n_bands,), optional
        Softening of the stretch, in the unit of the flux. By default a fit sets it from the noise
        of its data, and until then it is 0.01.
    noise : float or sequence of float (n_bands,), optional
        Standard deviation of a stretched pixel, for images without inverse variance. By default it
        follows the residuals during a fit, the maximum-likelihood value of [3]_.
    noise_floor : float, optional
        Standard deviation, in stretched units, added in quadrature to that which the inverse
        variance gives each pixel: a network does not follow the core of a bright galaxy to its
        photon noise, and without a floor the core would outweigh all the rest.
    architecture_options : dict, optional
        Further keyword arguments of the architecture's encoder and decoder.

    Raises
    ------
    ValueError
        If an argument is out of its range; the message names it.

    Notes
    -----
    An architecture is a pair of Keras layers made as ``Encoder(latent_dim, image_size=, n_bands=,
    seed=, **options)``: ``encoder(x)`` returns ``(z_mean, z_log_var, pose)`` of stretched images,
    with pose `None` or (n, k); ``decoder(z, pose)`` returns stretched images and takes pose `None`.
    An encoder may split its work into ``describe(x)``, which returns a description of the images
    and the pose, and ``posterior(description)``; then ``decoder.auxiliary_loss(description, z)``
    returns an (n,) term that is added to the loss. Such an encoder offers ``adapt(batches)`` and
    ``is_adapted`` too, for what it must know of the data before the first step.

    References
    ----------
    .. [1] Kingma & Welling 2014, arXiv:1312.6114.
    .. [2] Xu et al. 2023, MNRAS 526, 6391.
    .. [3] Rybkin et al. 2021, arXiv:2006.13202.
    """

    def __init__(
        self,
        latent_dim=40,
        *,
        architecture="default",
        image_size=256,
        n_bands=3,
        beta=1.0,
        seed=0,
        stretch="asinh",
        softening=None,
        noise=None,
        noise_floor=0.1,
        architecture_options=None,
        **kwargs,
    ):
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        if architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture must be one of {sorted(ARCHITECTURES)}, got {architecture!r}"
            )
        if stretch not in ("asinh", None):
            raise ValueError(f"stretch must be 'asinh' or None, got {stretch!r}")
        if not (np.isfinite(beta) and beta >= 0):
            raise ValueError(f"beta must be finite and not negative, got {beta!r}")
        if not (np.isfinite(noise_floor) and noise_floor >= 0):
            raise ValueError(f"noise_floor must be finite and not negative, got {noise_floor!r}")
        self.latent_dim = _positive_int("latent_dim", latent_dim)
        self.image_size = _positive_int("image_size", image_size)
        self.n_bands = _positive_int("n_bands", n_bands)
        self.architecture, self.stretch = architecture, stretch
        self.beta, self.noise_floor, self.seed = float(beta), float(noise_floor), int(seed)
        self.architecture_options = dict(architecture_options or {})
        self.softening_is_set = stretch is None or softening is not None
        self.stretch_layer = None
        if stretch is not None:
            self.set_softening(_DEFAULT_SOFTENING if softening is None else softening)
            self.softening_is_set = softening is not None
        self.noise_is_fixed = noise is not None
        self._noise = None
        if noise is not None:
            self.set_noise(noise)
        make_encoder, make_decoder = ARCHITECTURES[architecture]
        shape = {"image_size": self.image_size, "n_bands": self.n_bands, "seed": self.seed}
        self.encoder = make_encoder(self.latent_dim, **shape, **self.architecture_options)
        self.decoder = make_decoder(self.latent_dim, **shape, **self.architecture_options)
        self.built = True

    # ------------------------------------------------------------------ what the data set decides
    def _per_band(self, name, values):
        values = np.asarray(values, dtype=np.float32)
        if values.shape not in ((), (self.n_bands,)):
            raise ValueError(
                f"{name} must be one number or one per band ({self.n_bands}), got shape "
                f"{values.shape}"
            )
        values = np.broadcast_to(values, (self.n_bands,))
        if not np.all(np.isfinite(values) & (values > 0)):
            raise ValueError(f"{name} must be positive and finite, got {values.tolist()}")
        return [float(value) for value in values]

    @property
    def softening(self):
        """Softening of each band in the unit of the flux, or `None` without stretch."""
        return None if self.stretch_layer is None else list(self.stretch_layer.softening)

    def set_softening(self, softening):
        """Set the softening of the stretch, one number or one per band; a fit does this once."""
        self.stretch_layer = AsinhStretch(self._per_band("softening", softening))
        self.softening_is_set = True

    @property
    def noise(self):
        """Noise of each band in stretched units for images without inverse variance, or `None`."""
        return None if self._noise is None else [float(value) for value in self._noise]

    def set_noise(self, noise):
        """Set the noise of a stretched pixel, one number or one per band."""
        self._noise = torch.tensor(self._per_band("noise", noise), dtype=torch.float32)

    @property
    def is_adapted(self):
        """Whether the encoder knows what it must of the data; True if it needs nothing."""
        return getattr(self.encoder, "is_adapted", True)

    def adapt(self, batches):
        """Let the encoder see a sample of the data, where its architecture asks for that.

        Parameters
        ----------
        batches : iterable of tensor, (n, band, y, x)
            Flux, all finite.
        """
        if self.is_adapted:
            return
        stretch = self.stretch_layer
        self.encoder.adapt([x if stretch is None else stretch(x) for x in batches])

    # ------------------------------------------------------------------------------- the two ways
    def encode(self, x):
        """Posterior of flux images.

        Parameters
        ----------
        x : tensor, (n, band, y, x)
            Flux, all finite.

        Returns
        -------
        z_mean, z_log_var : tensor, (n, latent_dim)
            Mean and log variance of the latents.
        pose : tensor, (n, k), or `None`
            Latents of the orientation, where the architecture has them.
        """
        return self.encode_stretched(x if self.stretch_layer is None else self.stretch_layer(x))

    def encode_stretched(self, x):
        """As `encode`, for images that are stretched already."""
        z_mean, z_log_var, pose = self.encoder(x)
        return *_as_posterior(z_mean, z_log_var), pose

    def decode(self, z, pose=None):
        """Flux images, (n, band, y, x), of latents ``z``, (n, latent_dim)."""
        y = self.decoder(z, pose).float()
        return y if self.stretch_layer is None else self.stretch_layer.inverse(y)

    def call(self, x):
        """Reconstruct flux images ``x``, (n, band, y, x), from the means of their latents."""
        z_mean, _, pose = self.encode(x)
        return self.decode(z_mean, pose)

    def compute_output_shape(self, input_shape):
        """Shape of the result, that of the input."""
        return input_shape

    # ----------------------------------------------------------------------------------- the loss
    def loss_terms(self, x, ivar=None, mask=None, beta=None, free_bits=0.0, seed=0):
        """Evidence lower bound of flux images, term by term.

        Parameters
        ----------
        x : array or tensor, (n, band, y, x)
            Flux. Non-finite pixels are masked.
        ivar : array or tensor, (n, band, y, x), optional
            Inverse variance of the flux. Without it the network's ``noise`` is used.
        mask : array or tensor of bool, (n, band, y, x), optional
            True where a pixel is bad; it then weighs nothing, and the encoder sees zero.
        beta : float, optional
            Weight of the divergence; that of the network by default.
        free_bits : float, optional
            Divergence per latent, in nats, that costs nothing.
        seed : int, optional
            Seed of the draw from the posterior; `None` decodes the mean.

        Returns
        -------
        terms : dict of str to tensor
            ``reconstruction``, ``kl`` and, if the architecture has it, ``auxiliary``: (n,);
            ``loss``: scalar, their mean with the divergence weighted by beta.
        """
        device = self.encoder.weights[0].value.device
        x = torch.as_tensor(x, dtype=torch.float32, device=device)
        bad = ~torch.isfinite(x)
        if mask is not None:
            bad |= torch.as_tensor(mask, dtype=torch.bool, device=device)
        valid = None
        if ivar is not None:
            ivar = torch.as_tensor(ivar, dtype=torch.float32, device=device)
            ivar = torch.where(bad | ~torch.isfinite(ivar), 0.0, ivar)
        elif bad.any():
            valid = (~bad).float()
        x = torch.where(bad, 0.0, x)
        noise = None
        if seed is not None:
            generator = torch.Generator().manual_seed(int(seed))
            noise = torch.randn((len(x), self.latent_dim), generator=generator).to(device)
        return self.clean_loss_terms(
            x, ivar=ivar, valid=valid, beta=beta, free_bits=free_bits, draw=noise
        )

    def clean_loss_terms(
        self, x, *, ivar=None, valid=None, beta=None, free_bits=0.0, draw=None, learn_noise=False
    ):
        """As `loss_terms`, for tensors that are finite and on the network's device already.

        Parameters
        ----------
        x : tensor, (n, band, y, x)
            Flux, zero where masked.
        ivar : tensor, (n, band, y, x), optional
            Inverse variance of the flux, zero where masked.
        valid : tensor, (n, band, y, x), optional
            One where a pixel counts, else zero; only without ``ivar``.
        beta, free_bits
            See `loss_terms`.
        draw : tensor, (n, latent_dim), optional
            Unit Gaussian numbers that place the draw from the posterior.
        learn_noise : bool, optional
            Whether the noise follows the residuals of this batch, where it is not fixed.
        """
        weight, stretched = ivar, x
        if self.stretch_layer is not None:
            stretched = self.stretch_layer(x)
            if ivar is not None:
                weight = self.stretch_layer.propagate_inverse_variance(ivar, x)
        # What meets the decoder's image pixel by pixel lies in memory as that does.
        stretched = stretched.contiguous(memory_format=torch.channels_last)
        if weight is not None:
            weight = weight.contiguous(memory_format=torch.channels_last)
        description = None
        if hasattr(self.encoder, "describe"):
            description, pose = self.encoder.describe(stretched)
            z_mean, z_log_var = _as_posterior(*self.encoder.posterior(description))
        else:
            z_mean, z_log_var, pose = self.encode_stretched(stretched)
        z = z_mean if draw is None else z_mean + draw * torch.exp(0.5 * z_log_var)
        residual = stretched - self.decoder(z, pose).float()
        noise = None if weight is not None else self._noise_for(residual, valid, learn_noise)
        reconstruction = reconstruction_term(
            residual, weight=weight, valid=valid, noise=noise, noise_floor=self.noise_floor
        )
        divergence = gaussian_divergence(z_mean, z_log_var)
        terms = {"reconstruction": reconstruction, "kl": divergence.sum(dim=1)}
        if description is not None:
            terms["auxiliary"] = self.decoder.auxiliary_loss(description, z)
        terms["loss"] = objective(
            reconstruction,
            divergence,
            beta=self.beta if beta is None else beta,
            free_bits=free_bits,
            auxiliary=terms.get("auxiliary"),
        )
        return terms

    def _noise_for(self, residual, valid, learn):
        noise = None if self._noise is None else self._noise.to(residual.device)
        if noise is None or (learn and not self.noise_is_fixed):
            variance = mean_square_per_band(residual.detach(), valid)
            if noise is not None:
                variance = _NOISE_MEMORY * noise.square() + (1.0 - _NOISE_MEMORY) * variance
            noise = variance.sqrt().clamp_min(_LEAST_NOISE)
            if learn:
                self._noise = noise
        return noise

    def get_config(self):
        """Return the constructor arguments, with the softening and noise that a fit has set."""
        return {
            "latent_dim": self.latent_dim,
            "architecture": self.architecture,
            "image_size": self.image_size,
            "n_bands": self.n_bands,
            "beta": self.beta,
            "seed": self.seed,
            "stretch": self.stretch,
            "softening": self.softening if self.softening_is_set else None,
            "noise": self.noise,
            "noise_is_fixed": self.noise_is_fixed,
            "noise_floor": self.noise_floor,
            "architecture_options": self.architecture_options,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the network of a `get_config` dictionary, without its weights."""
        config = dict(config)
        fixed = config.pop("noise_is_fixed", config.get("noise") is not None)
        network = cls(**config)
        network.noise_is_fixed = fixed
        return network
