"""The network of Xu et al. 2023 in plain PyTorch: the twin that the benchmarks compare with.

Written from the published description, as one would write it without a thought of speed: eager,
NCHW, float32, no tuning of the process.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

__all__ = ["ReferenceVAE", "copy_weights", "encode", "train_epoch"]


class ReferenceVAE(nn.Module):
    """Encoder and decoder, for images of a multiple of 64 pixels.

    Parameters
    ----------
    latent_dim, n_bands, image_size : int
        As in the paper by default.
    softening : sequence of float, optional
        Asinh stretch of each band as first layer; none by default, as in the paper.
    """

    def __init__(self, latent_dim=40, n_bands=3, image_size=256, softening=None):
        super().__init__()
        self.coarse = image_size // 64
        n_features = 128 * self.coarse**2
        self.conv1 = nn.Conv2d(n_bands, 32, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, stride=2, padding=1)
        self.mean = nn.Linear(n_features, latent_dim)
        self.log_variance = nn.Linear(n_features, latent_dim)
        self.expand = nn.Linear(latent_dim, n_features)
        up = {"stride": 2, "padding": 1, "output_padding": 1}
        self.up1 = nn.ConvTranspose2d(128, 64, 3, **up)
        self.up2 = nn.ConvTranspose2d(64, 32, 3, **up)
        self.up3 = nn.ConvTranspose2d(32, 32, 3, **up)
        self.last = nn.Conv2d(32, n_bands, 3, padding=1)
        if softening is not None:
            softening = torch.tensor(softening).reshape(1, -1, 1, 1)
        self.register_buffer("softening", softening)

    def stretch(self, x):
        return x if self.softening is None else torch.asinh(x / self.softening)

    def encode(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = functional.leaky_relu(functional.max_pool2d(conv(x), 2), 0.01)
        x = torch.flatten(x, 1)
        return self.mean(x), self.log_variance(x)

    def decode(self, z):
        x = self.expand(z).reshape(-1, 128, self.coarse, self.coarse)
        for conv in (self.up1, self.up2, self.up3):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = functional.leaky_relu(conv(x), 0.01)
        return torch.relu(self.last(x))

    def forward(self, x):
        x = self.stretch(x)
        mean, log_variance = self.encode(x)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return x, self.decode(z), mean, log_variance


def encode(model, images, batch_size=32):
    """Mean and standard deviation of the latents of images, (n, band, y, x)."""
    means, deviations = [], []
    model.eval()
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            x = torch.from_numpy(images[start : start + batch_size])
            mean, log_variance = model.encode(model.stretch(x))
            means.append(mean.numpy())
            deviations.append(torch.exp(0.5 * log_variance).numpy())
    return np.concatenate(means), np.concatenate(deviations)


def train_epoch(model, optimiser, images, batch_size=32):
    """One pass over images in random order; returns the mean loss of an object."""
    model.train()
    total = 0.0
    order = np.random.permutation(len(images))
    for start in range(0, len(images), batch_size):
        x = torch.from_numpy(images[order[start : start + batch_size]])
        optimiser.zero_grad()
        stretched, reconstructed, mean, log_variance = model(x)
        error = functional.mse_loss(reconstructed, stretched, reduction="sum")
        divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        loss = error + divergence
        loss.backward()
        optimiser.step()
        total += loss.item()
    return total / len(images)


def copy_weights(network, model):
    """Copy the weights of an astro_morphvae network, architecture "xu2023", to the twin."""
    encoder, decoder = network.encoder, network.decoder
    pairs = [
        *zip(encoder.convolutions, (model.conv1, model.conv2, model.conv3), strict=True),
        (encoder.mean, model.mean),
        (encoder.log_variance, model.log_variance),
        (decoder.expand, model.expand),
        *zip(decoder.convolutions, (model.up1, model.up2, model.up3), strict=True),
        (decoder.last, model.last),
    ]
    with torch.no_grad():
        for ours, theirs in pairs:
            theirs.weight.copy_(ours.kernel.value)
            theirs.bias.copy_(ours.bias.value)
