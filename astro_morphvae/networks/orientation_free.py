"""The default network: latents that do not know which way a galaxy lies, and a pose that does.

A pixel-wise auto-encoder spends most of its latents on the position angle. Here the content latents
see the image only through numbers that turning and mirroring leave alone, and the orientation is
read off the image as a pose; the decoder draws the galaxy upright and then turns it by the pose.
"""

import math

import torch
from torch.nn import functional

from ._backend import keras
from .invariants import Invariants, description_sizes
from .layers import Linear
from .residual import ResidualDecoder

__all__ = ["OrientationFreeDecoder", "OrientationFreeEncoder"]

register = keras.saving.register_keras_serializable(package="astro_morphvae")
_COLOUR_SHARE = 0.5  # standard deviation of the colour numbers beside that of the scattering
_FIRST_LOG_VARIANCE = -4.0  # of a posterior before training: narrow, so that latents are in use


@register
class OrientationFreeEncoder(keras.layers.Layer):
    """Content latents from orientation-free numbers, and the pose from the low angular modes.

    Parameters
    ----------
    latent_dim : int
        Length of the latent vector.
    image_size : int
        Side of the image in pixels, at least 16.
    n_bands : int
        Bands of the image.
    width : int, optional
        Hidden units between the description and the latents.
    seed : int, optional
        Seed of the initial weights.
    **options
        Those of `OrientationFreeDecoder` are accepted, and ignored.

    Notes
    -----
    The description is that of `~astro_morphvae.networks.invariants.Invariants`, standardised by
    `adapt`. The pose is (cos, sin) of the angle of the galaxy's long axis, its brighter half ahead,
    and the handedness, +1 or -1, in which its axis turns from ring to ring: a bar, arms or a
    companion decide it. Turning or mirroring the image changes nothing but the pose, as in the
    networks of [1]_ and [2]_, but here by construction and without a search over angles.

    References
    ----------
    .. [1] Bepler et al. 2019, "Explicitly disentangling image content from translation and
       rotation with spatial-VAE", arXiv:1909.11663.
    .. [2] Nasiri & Bepler 2022, "Unsupervised object representation learning using translation and
       rotation group equivariant VAE" (TARGET-VAE), arXiv:2210.12918.
    """

    def __init__(
        self, latent_dim, *, image_size, n_bands, width=128, seed=0, autocast=False, **options
    ):
        names = {name: options.pop(name) for name in ("name", "dtype") if name in options}
        super().__init__(autocast=autocast, **names)
        self.latent_dim, self.image_size = int(latent_dim), int(image_size)
        self.n_bands, self.seed, self.width = int(n_bands), int(seed), int(width)
        self.options = options
        self.invariants = Invariants(self.image_size, self.n_bands)
        n_features = sum(self.invariants.sizes)
        for name, shape, start in (
            ("center", (n_features,), "zeros"),
            ("spread", (n_features,), "ones"),
            ("bright", (), "ones"),
            ("adapted", (), "zeros"),
        ):
            weight = self.add_weight(name=name, shape=shape, initializer=start, trainable=False)
            setattr(self, name, weight)
        base = 1000 * self.seed
        self.mean = Linear(n_features, self.latent_dim, seed=base)
        self.log_variance = Linear(n_features, self.latent_dim, gain=1e-4, seed=base + 1)
        self.hidden = Linear(n_features, self.width, seed=base + 2)
        self.mean_change = Linear(self.width, self.latent_dim, gain=1e-4, seed=base + 3)
        self.built = True

    @property
    def is_adapted(self):
        """Whether `adapt` has been called, here or before the weights were saved."""
        return bool(self.adapted.value > 0)

    @torch.no_grad()
    def adapt(self, batches):
        """Take the mean and spread of the descriptions from a sample of the training data.

        Parameters
        ----------
        batches : list of tensor, (n, band, y, x)
            Stretched images, all finite.
        """
        peak = torch.cat([x.float().mean(dim=1).flatten(1).amax(dim=1) for x in batches])
        self.bright.assign(peak.median().clamp_min(1e-6))
        sample = torch.cat([self.invariants(x / self.bright.value)[0] for x in batches])
        center, spread = sample.mean(dim=0), sample.std(dim=0, correction=0)
        # The polar numbers share one scale, so that noisy ones stay small; the others, of unlike
        # kinds, have one each. The variances of the three sets add up to one, one and a quarter.
        polar, scattering, colour = spread.split(self.invariants.sizes)
        polar = polar.square().sum().sqrt().expand(len(polar))
        scattering = scattering * math.sqrt(len(scattering))
        colour = colour * math.sqrt(len(colour)) / _COLOUR_SHARE
        self.center.assign(center)
        self.spread.assign(torch.cat([polar, scattering, colour]).clamp_min(1e-6))
        self.adapted.assign(1.0)

    @torch.no_grad()
    def describe(self, x):
        """Standardised description, (n, n_features), and pose, (n, 3), of stretched images."""
        with torch.autocast(x.device.type, enabled=False):
            description, modes = self.invariants(x.float() / self.bright.value)
            description = (description - self.center.value) / self.spread.value
            return description, _pose(modes)

    def posterior(self, description):
        """Mean and log variance of the latents, (n, latent_dim) each, of a description."""
        # Columns of the description have variances far below one; this gives them unit length.
        description = description * math.sqrt(0.5 * description.shape[1])
        change = self.mean_change(functional.silu(self.hidden(description)))
        return (
            self.mean(description) + change,
            self.log_variance(description) + _FIRST_LOG_VARIANCE,
        )

    def call(self, x):
        """Mean and log variance, (n, latent_dim) each, and pose, (n, 3), of stretched images."""
        description, pose = self.describe(x)
        return *self.posterior(description), pose

    def get_config(self):
        """Return the constructor arguments."""
        names = ("latent_dim", "image_size", "n_bands", "width", "seed")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            **self.options,
        }


def _pose(modes):
    """Cosine and sine of the orientation, and handedness, (n, 3), from the ring modes."""
    n_rings = modes.shape[1]
    radius = (torch.arange(n_rings, device=modes.device) + 0.5) / n_rings
    weight = radius * torch.exp(-8.0 * radius.square())
    first = torch.complex(modes[..., 1], modes[..., 2])
    second = torch.complex(modes[..., 3], modes[..., 4])
    angle = 0.5 * torch.angle((weight * second).sum(dim=1))
    ahead = (weight * first).sum(dim=1) * torch.polar(torch.ones_like(angle), -angle)
    angle = torch.where(ahead.real < 0, angle + math.pi, angle)
    turn = (weight[1:] * second[:, 1:] * second[:, :-1].conj()).sum(dim=1).imag
    hand = torch.where(turn < 0, -1.0, 1.0)
    return torch.stack([torch.cos(angle), torch.sin(angle), hand], dim=1)


@register
class OrientationFreeDecoder(keras.layers.Layer):
    """An upright image and a description from the latents; the image is then turned by the pose.

    From 64 pixels on the upright image is drawn at half the resolution, which costs a quarter and
    still samples the seeing of a ground-based survey.

    Parameters
    ----------
    latent_dim, image_size, n_bands, seed
        See `OrientationFreeEncoder`.
    width : int, optional
        Hidden units between the latents and the description.
    description_noise : float, optional
        Standard deviation of the description's likelihood, in units in which the description's
        total variance is 2.25. The smaller, the more the latents follow the description.
    image_share : float, optional
        Factor on the gradient by which the pixels' likelihood acts on the latents. Bright cores and
        neighbours dominate that likelihood, and would dominate the latents too.
    image_width : int, optional
        Channels of the image decoder at full resolution.
    """

    def __init__(
        self,
        latent_dim,
        *,
        image_size,
        n_bands,
        width=128,
        description_noise=0.05,
        image_share=0.01,
        image_width=16,
        seed=0,
        autocast=False,
        **kwargs,
    ):
        super().__init__(autocast=autocast, **kwargs)
        for name, value in (("description_noise", description_noise), ("image_width", image_width)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}")
        if not 0 <= image_share <= 1:
            raise ValueError(f"image_share must be in [0, 1], got {image_share!r}")
        self.latent_dim, self.image_size = int(latent_dim), int(image_size)
        self.n_bands, self.seed, self.width = int(n_bands), int(seed), int(width)
        self.description_noise, self.image_share = float(description_noise), float(image_share)
        self.image_width = int(image_width)
        self.upright = ResidualDecoder(
            self.latent_dim,
            image_size=self.image_size // 2 if self.image_size >= 64 else self.image_size,
            n_bands=self.n_bands,
            width=self.image_width,
            seed=self.seed,
        )
        n_features = sum(description_sizes(self.image_size, self.n_bands))
        base = 1000 * self.seed + 700
        self.description = Linear(self.latent_dim, n_features, seed=base)
        self.hidden = Linear(self.latent_dim, self.width, seed=base + 1)
        self.description_change = Linear(self.width, n_features, gain=1e-4, seed=base + 2)
        self.built = True

    def call(self, z, pose=None):
        """Image, (n, band, y, x), of latents ``z``, (n, latent_dim); upright where pose is None."""
        if z.requires_grad and self.image_share < 1:
            z = self.image_share * z + (1.0 - self.image_share) * z.detach()
        image = self.upright(z)
        if pose is None:
            pose = torch.tensor([[1.0, 0.0, 1.0]], device=image.device).expand(len(image), 3)
        with torch.autocast(image.device.type, enabled=False):
            return _turn(image.float(), pose, self.image_size)

    def auxiliary_loss(self, description, z):
        """Minus the log-likelihood, (n,), of descriptions, (n, n_features), given the latents."""
        predicted = self.description(z) + self.description_change(functional.silu(self.hidden(z)))
        predicted = predicted * math.sqrt(1.0 / description.shape[1])
        square = (predicted.float() - description).square().sum(dim=1)
        return 0.5 * square / self.description_noise**2

    def get_config(self):
        """Return the constructor arguments."""
        names = (
            "latent_dim",
            "image_size",
            "n_bands",
            "width",
            "description_noise",
            "image_share",
            "image_width",
            "seed",
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _turn(image, pose, size):
    """Turn upright images, (n, band, y, x), to a pose, (n, 3), on ``size`` × ``size`` pixels."""
    cosine, sine, hand = pose.to(image.dtype).unbind(dim=1)
    zero = torch.zeros_like(cosine)
    # Where a pixel of the result lies in the upright image: turned back, then mirrored back.
    back = torch.stack([cosine, sine, zero, -sine * hand, cosine * hand, zero], dim=1)
    shape = [len(image), image.shape[1], size, size]
    grid = functional.affine_grid(back.reshape(-1, 2, 3), shape, align_corners=False)
    return functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
