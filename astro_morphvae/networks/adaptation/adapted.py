"""`AdaptedVAE`: one auto-encoder for several surveys, each with a branch of its own."""

from dataclasses import dataclass

import torch

from .._backend import keras
from ..likelihood import gaussian_divergence, reconstruction_term
from ..vae import ARCHITECTURES, VAE, _as_posterior
from .conditioning import SurveyCorrection

__all__ = ["AdaptedVAE", "Branch", "SurveyView", "branches_of"]

_KINDS = ("conditioned", "separate")


@dataclass(frozen=True)
class Branch:
    """How images of one survey become latents, and latents images of that survey.

    The work of the encoder is split in a part that adaptation leaves alone, whose results can be
    kept, and a part that it trains.

    Attributes
    ----------
    encoder, decoder : `keras.layers.Layer`
        As an architecture has them.
    correction : SurveyCorrection, optional
        Applied to the description of the image, or, where the encoder gives none, to the mean of
        its posterior.
    number : int
        Number of the survey; 0 is the source.
    """

    encoder: object
    decoder: object
    correction: SurveyCorrection | None = None
    number: int = 0

    @property
    def keeps_features(self):
        """Whether `features` are numbers that adaptation does not change, rather than the image."""
        return self.correction is not None or hasattr(self.encoder, "describe")

    def features(self, stretched):
        """Features, (n, n_features), and pose of stretched images; the image where none are kept.

        Parameters
        ----------
        stretched : tensor, (n, band, y, x)
            Stretched images.
        """
        if hasattr(self.encoder, "describe"):
            return self.encoder.describe(stretched)
        if self.correction is not None:
            with torch.no_grad():
                z_mean, z_log_var, pose = self.encoder(stretched)
                return torch.cat(_as_posterior(z_mean, z_log_var), dim=1), pose
        return stretched, None

    def posterior(self, features, pose):
        """Mean and log variance of the latents, (n, latent_dim), and pose, of `features`."""
        correction = self.correction
        if hasattr(self.encoder, "describe"):
            if correction is not None:
                features = correction(features, survey=self.number - 1)
            return *_as_posterior(*self.encoder.posterior(features)), pose
        if correction is not None:
            z_mean, z_log_var = features.chunk(2, dim=1)
            return correction(z_mean, survey=self.number - 1), z_log_var, pose
        z_mean, z_log_var, pose = self.encoder(features)
        return *_as_posterior(z_mean, z_log_var), pose

    def loss_terms(self, network, batch, features, posterior, draw):
        """Evidence lower bound of a batch, term by term, as `VAE.clean_loss_terms`.

        Parameters
        ----------
        network : VAE
            Whose stretch and noise are used.
        batch : `~astro_morphvae.networks.batches.Batch`
            Images.
        features : tensor
            What `features` gave of them.
        posterior : tuple
            What `posterior` gave of those.
        draw : tensor, (n, latent_dim)
            Unit Gaussian numbers that place the draw from the posterior.

        Returns
        -------
        terms : dict of str to tensor, (n,)
            ``reconstruction``, ``kl`` and, where the decoder has it, ``auxiliary``.
        """
        z_mean, z_log_var, pose = posterior
        z = z_mean + draw * torch.exp(0.5 * z_log_var)
        terms = {
            "reconstruction": self.reconstruction(network, batch, z, pose),
            "kl": gaussian_divergence(z_mean, z_log_var).sum(dim=1),
        }
        if hasattr(self.decoder, "auxiliary_loss"):
            terms["auxiliary"] = self.decoder.auxiliary_loss(features, z)
        return terms

    def _residual(self, network, batch, z, pose):
        """Stretched images minus those of latents, and the inverse variance, or `None`."""
        stretched, weight = batch.x, batch.ivar
        if network.stretch_layer is not None:
            stretched = network.stretch_layer(batch.x)
            if weight is not None:
                weight = network.stretch_layer.propagate_inverse_variance(weight, batch.x)
        return stretched - self.decoder(z, pose).float(), weight

    def squared_error(self, network, batch, z, pose):
        """Sum of the squared residuals of images given their latents, and how many they are.

        In units of the noise, with the network's noise floor, where there is an inverse variance;
        a pair of float.
        """
        residual, weight = self._residual(network, batch, z, pose)
        if weight is None:
            weight = torch.ones_like(residual) if batch.valid is None else batch.valid
        n = float((weight > 0).sum())
        if batch.ivar is not None:
            weight = weight / (1.0 + weight * network.noise_floor**2)
        return float((residual.square() * weight).sum(dtype=torch.float64)), n

    def reconstruction(self, network, batch, z, pose):
        """Minus the log-likelihood, (n,), of images given their latents."""
        residual, weight = self._residual(network, batch, z, pose)
        noise = None if weight is not None else network._noise_for(residual, batch.valid, False)
        return reconstruction_term(
            residual,
            weight=weight,
            valid=batch.valid,
            noise=noise,
            noise_floor=network.noise_floor,
        )


@dataclass(frozen=True)
class SurveyView:
    """A network as it sees one survey: what encodes and decodes cutouts of that survey."""

    network: VAE
    survey: str | None = None

    def encode(self, x):
        """As `VAE.encode`."""
        return self.network.encode(x, self.survey)

    def decode(self, z, pose=None):
        """As `VAE.decode`."""
        return self.network.decode(z, pose, self.survey)

    def __call__(self, x):
        """As `VAE.call`."""
        z_mean, _, pose = self.encode(x)
        return self.decode(z_mean, pose)


@keras.saving.register_keras_serializable(package="astro_morphvae")
class AdaptedVAE(VAE):
    """A variational auto-encoder of several surveys whose latents are those of the first.

    The first survey, the source, is seen as before. Each of the others has a branch: a correction
    of what the source's encoder makes of its images, or an encoder of its own; and a decoder of
    its own, which draws the galaxy as that survey sees it.

    Parameters
    ----------
    latent_dim : int, optional
        Length of the latent vector.
    surveys : sequence of str
        Names of the surveys, the source first.
    branches : {"conditioned", "separate"}, optional
        Whether the others have a `SurveyCorrection` or encoders of their own.
    correction_options : dict, optional
        Keyword arguments of `SurveyCorrection`.
    **kwargs
        Those of `~astro_morphvae.VAE`.

    Raises
    ------
    ValueError
        If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        latent_dim=40,
        *,
        surveys=("source", "target"),
        branches="conditioned",
        correction_options=None,
        **kwargs,
    ):
        super().__init__(latent_dim, **kwargs)
        self.surveys = tuple(str(name) for name in surveys)
        if len(self.surveys) < 2 or len(set(self.surveys)) < len(self.surveys):
            raise ValueError(f"surveys must be two or more different names, got {surveys!r}")
        if branches not in _KINDS:
            raise ValueError(f"branches must be one of {_KINDS}, got {branches!r}")
        self.branches, self.correction_options = branches, dict(correction_options or {})
        make_encoder, make_decoder = ARCHITECTURES[self.architecture]
        shape = {"image_size": self.image_size, "n_bands": self.n_bands, "seed": self.seed}
        others = range(1, len(self.surveys))

        def copies(make):
            return [make(self.latent_dim, **shape, **self.architecture_options) for _ in others]

        self.other_decoders = copies(make_decoder)
        self.other_encoders, self.correction = [], None
        if branches == "separate":
            self.other_encoders = copies(make_encoder)
        else:
            n_features = self.latent_dim
            if hasattr(self.encoder, "describe"):
                n_features = sum(self.encoder.invariants.sizes)
            self.correction = SurveyCorrection(
                n_features, len(others), seed=self.seed, **self.correction_options
            )
        self.built = True

    @classmethod
    def from_network(cls, network, surveys, *, branches="conditioned", correction_options=None):
        """Make one whose branches all start as a network that knows one survey.

        Parameters
        ----------
        network : VAE
            The network; it is not changed.
        surveys, branches, correction_options
            See the class.
        """
        config = network.get_config() | {
            "surveys": tuple(surveys),
            "branches": branches,
            "correction_options": correction_options,
        }
        config.pop("name")
        adapted = cls.from_config(config)
        for new, old in [
            (adapted.encoder, network.encoder),
            (adapted.decoder, network.decoder),
            *((encoder, network.encoder) for encoder in adapted.other_encoders),
            *((decoder, network.decoder) for decoder in adapted.other_decoders),
        ]:
            new.set_weights(old.get_weights())
        return adapted

    def number_of(self, survey):
        """Position of a survey's name in ``surveys``; that of `None` is the source's.

        Raises
        ------
        ValueError
            If there is no such survey.
        """
        if survey is None:
            return 0
        if survey not in self.surveys:
            raise ValueError(f"survey must be one of {self.surveys}, got {survey!r}")
        return self.surveys.index(survey)

    def branch(self, survey=None):
        """Branch of a survey, of its name or number."""
        number = survey if isinstance(survey, int) else self.number_of(survey)
        if number == 0:
            return Branch(self.encoder, self.decoder)
        decoder = self.other_decoders[number - 1]
        if self.branches == "separate":
            return Branch(self.other_encoders[number - 1], decoder, number=number)
        return Branch(self.encoder, decoder, self.correction, number)

    def for_survey(self, survey):
        """Give the network as it sees one survey."""
        return SurveyView(self, self.surveys[self.number_of(survey)])

    def encode(self, x, survey=None):
        """Posterior of flux images, (n, band, y, x), of a survey, by default the source's."""
        branch = self.branch(survey)
        stretched = x if self.stretch_layer is None else self.stretch_layer(x)
        return branch.posterior(*branch.features(stretched))

    def decode(self, z, pose=None, survey=None):
        """Flux images, (n, band, y, x), as a survey would see them, by default the source."""
        y = self.branch(survey).decoder(z, pose).float()
        return y if self.stretch_layer is None else self.stretch_layer.inverse(y)

    def get_config(self):
        """Return the constructor arguments."""
        return super().get_config() | {
            "surveys": list(self.surveys),
            "branches": self.branches,
            "correction_options": self.correction_options,
        }


def branches_of(network, n_surveys):
    """Branches of a network for some surveys; those of a plain VAE are all the same.

    Parameters
    ----------
    network : VAE
        The network.
    n_surveys : int
        Number of surveys.

    Returns
    -------
    branches : list of Branch
    """
    if isinstance(network, AdaptedVAE):
        return [network.branch(number) for number in range(n_surveys)]
    return [Branch(network.encoder, network.decoder, number=k) for k in range(n_surveys)]
