"""The eight symmetries of the square (group D4), on images (…, y, x)."""

import torch

__all__ = ["N_SYMMETRIES", "apply_symmetry", "encode_over_symmetries"]

N_SYMMETRIES = 8


def apply_symmetry(images, index):
    """Mirror and turn images by one of the eight symmetries of the square.

    Parameters
    ----------
    images : tensor, (..., y, x)
        Square images.
    index : int
        0 to 7: 4 adds a swap of the axes, 2 a mirror in y, 1 a mirror in x; 0 is the identity.

    Returns
    -------
    images : tensor, (..., y, x)
        A view where torch can give one.
    """
    if index & 4:
        images = images.transpose(-1, -2)
    flipped = [axis for axis, bit in ((-2, 2), (-1, 1)) if index & bit]
    return images.flip(flipped) if flipped else images


def encode_over_symmetries(network, x, symmetries=range(N_SYMMETRIES)):
    """Posterior of images, averaged over symmetries of the square.

    The average of Gaussians is taken as the Gaussian with their mean and variance: the mean of the
    means, and the mean of the variances plus the variance of the means.

    Parameters
    ----------
    network : VAE
        The network.
    x : tensor, (n, band, y, x)
        Flux.
    symmetries : sequence of int, optional
        Indices of `apply_symmetry`.

    Returns
    -------
    z_mean, z_std : tensor, (n, latent_dim)
        Mean and standard deviation.
    pose : tensor, (n, k), or `None`
        Of the first symmetry.
    """
    means, variances, poses = [], [], []
    for index in symmetries:
        z_mean, z_log_var, pose = network.encode(apply_symmetry(x, index))
        means.append(z_mean)
        variances.append(z_log_var.exp())
        poses.append(pose)
    if len(means) == 1:
        return means[0], variances[0].sqrt(), poses[0]
    means, variances = torch.stack(means), torch.stack(variances)
    variance = variances.mean(dim=0) + means.var(dim=0, correction=0)
    return means.mean(dim=0), variance.sqrt(), poses[0]
