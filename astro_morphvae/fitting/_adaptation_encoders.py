"""The branches of an adaptation on their surveys: what they encode, and what of it can be kept."""

import numpy as np
import torch

from ..networks.adaptation import (
    ROWS_PER_DIRECTION,
    branches_of,
    feature_transport,
    paired_transport,
)
from ..networks.batches import iterate_batches

__all__ = ["SurveyEncoders", "start_corrections"]


class SurveyEncoders:
    """Branches of a network, each with its survey, and what of their work does not change.

    Parameters
    ----------
    network : VAE
        What is trained.
    surveys : list of `Survey`
        The data, the source first.
    device : `torch.device`
        Where the network is.
    shared : bool
        Whether one encoder is trained for all; otherwise the source's is frozen.
    batch_size : int
        Images seen at once.

    Attributes
    ----------
    features, poses : list of tensor or None
        What the trained part of each branch starts from, where that does not change.
    source_latents : tensor, or `None`
        Latents of the source, where they do not change.
    """

    def __init__(self, network, surveys, device, *, shared, batch_size):
        self.network, self.surveys, self.device = network, surveys, device
        self.shared, self.batch_size = shared, batch_size
        self.branches = branches_of(network, len(surveys))

    @torch.no_grad()
    def keep_features(self):
        """Compute what does not change, once and for all rows that take part."""
        self.features, self.poses, self.places, self.source_latents = [], [], [], None
        for survey, branch in zip(self.surveys, self.branches, strict=True):
            rows = survey.used
            place = np.full(len(survey.cutouts), -1)
            place[rows] = np.arange(len(rows))
            self.places.append(place)
            frozen = branch.number == 0 and not self.shared
            features, poses, latents = [], [], []
            if branch.keeps_features or frozen:
                for batch in self.read(survey, rows):
                    kept, pose = branch.features(self.stretched(batch.x))
                    if frozen:
                        z_mean, _, pose = branch.posterior(kept, pose)
                        latents.append(z_mean)
                    if branch.keeps_features:
                        features.append(kept)
                    if pose is not None:
                        poses.append(pose)
            self.features.append(torch.cat(features) if features else None)
            self.poses.append(torch.cat(poses) if poses else None)
            if frozen:
                self.source_latents = torch.cat(latents)

    def read(self, survey, rows, likelihood=False):
        """Batches of some rows of a survey, in order."""
        groups = np.array_split(rows, range(self.batch_size, len(rows), self.batch_size))
        return iterate_batches(survey.pixels, groups, device=self.device, likelihood=likelihood)

    def stretched(self, x):
        """Stretched images of flux."""
        layer = self.network.stretch_layer
        return x if layer is None else layer(x)

    def kept(self, number, rows):
        """Features and pose of some rows of a survey, each `None` where it is not kept."""
        place = torch.from_numpy(self.places[number][rows]).to(self.device)
        both = (self.features[number], self.poses[number])
        return tuple(None if values is None else values[place] for values in both)

    @property
    def uses_pairs(self):
        """Whether any row of a target has a partner."""
        return any((survey.partner >= 0).any() for survey in self.surveys[1:])

    def encode(self, number, rows, batch=None, generator=None):
        """Latents of some rows of a survey, and what they came from.

        Parameters
        ----------
        number : int
            Which survey.
        rows : array of int
            Which rows.
        batch : `~astro_morphvae.networks.batches.Batch`, optional
            Their images, where they are needed.
        generator : `numpy.random.Generator`, optional
            Turns the images, where those are what is encoded.

        Returns
        -------
        encoded : dict
            ``z``, ``features``, ``batch``, and ``posterior``: z_mean, z_log_var, pose.
        """
        features, pose = self.kept(number, rows)
        if number == 0 and not self.shared:
            z = self.source_latents[torch.from_numpy(self.places[0][rows]).to(self.device)]
            posterior = (z, None, pose)
        else:
            branch = self.branches[number]
            if features is None:
                if generator is not None:
                    batch = batch.turned(generator.integers(8, size=len(batch.x)))
                features, pose = branch.features(self.stretched(batch.x))
            posterior = branch.posterior(features, pose)
        return {"z": posterior[0], "features": features, "batch": batch, "posterior": posterior}


@torch.no_grad()
def start_corrections(encoders):
    """Let corrections start as linear maps of the targets' features to the source's.

    Parameters
    ----------
    encoders : SurveyEncoders
        With features kept. Only training rows are used.
    """
    correction = getattr(encoders.network, "correction", None)
    if correction is None:
        return
    source = encoders.surveys[0]

    def vectors(number, rows):
        # Of encoders without description the features are mean and log variance.
        if encoders.features[number] is None:
            return encoders.encode(number, rows)["z"]
        return encoders.kept(number, rows)[0][:, : correction.n_features]

    for number, target in enumerate(encoders.surveys[1:], start=1):
        rows = target.train
        partner = target.partner[rows]
        paired = (partner >= 0) & np.isin(partner, source.train)
        n_latents, n_pairs = encoders.network.latent_dim, int(paired.sum())
        if n_pairs > 2 * n_latents:
            start = paired_transport(
                vectors(0, partner[paired]),
                vectors(number, rows[paired]),
                n_directions=min(n_latents, n_pairs // ROWS_PER_DIRECTION),
            )
        else:
            start = feature_transport(vectors(0, source.train), vectors(number, rows))
        correction.start_from(number - 1, *(part.float() for part in start))
