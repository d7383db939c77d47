"""Terms of the evidence lower bound: likelihood of the pixels, divergence of the latents."""

import torch

from .layers import sum_per_channel

__all__ = ["gaussian_divergence", "mean_square_per_band", "objective", "reconstruction_term"]


def gaussian_divergence(z_mean, z_log_var):
    """Kullback-Leibler divergence of each latent from the unit Gaussian, in nats [1]_.

    Parameters
    ----------
    z_mean, z_log_var : tensor, (n, latent_dim)
        Mean and log variance of the posterior.

    Returns
    -------
    divergence : tensor, (n, latent_dim)

    References
    ----------
    .. [1] Kingma & Welling 2014, arXiv:1312.6114, appendix B.
    """
    return 0.5 * (z_mean.square() + z_log_var.exp() - 1.0 - z_log_var)


def mean_square_per_band(residual, valid=None):
    """Mean square of a residual, (n, band, y, x), over the valid pixels of each band: (band,)."""
    square = residual.square()
    if valid is None:
        return sum_per_channel(square) / (square.numel() / square.shape[1])
    return sum_per_channel(square * valid) / sum_per_channel(valid).clamp_min(1.0)


def reconstruction_term(residual, *, weight=None, valid=None, noise=None, noise_floor=0.0):
    """Minus the log-likelihood of each image, up to a constant, in nats.

    With ``weight``, half the chi-square of the image. Without it every pixel of a band has the same
    Gaussian noise, whose normalisation is kept, because the noise may be learned.

    Parameters
    ----------
    residual : tensor, (n, band, y, x)
        Stretched image minus its reconstruction.
    weight : tensor, (n, band, y, x), optional
        Inverse variance of the stretched image, zero where masked.
    valid : tensor, (n, band, y, x), optional
        One where the pixel counts, else zero; only without ``weight``.
    noise : tensor, (band,), optional
        Standard deviation of the stretched image; only without ``weight``.
    noise_floor : float, optional
        Standard deviation added in quadrature to that of every pixel; only with ``weight``.

    Returns
    -------
    reconstruction : tensor, (n,)
    """
    if weight is not None:
        if noise_floor > 0:
            weight = weight / (1.0 + weight * noise_floor**2)
        return 0.5 * (residual.square() * weight).sum(dim=(1, 2, 3))
    # Sums over whole objects only: they run through memory in order, sums per band do not.
    square = (residual / noise.reshape(1, -1, 1, 1)).square()
    n_pixels = residual.shape[2] * residual.shape[3]
    if valid is not None:
        square = square * valid
        n_pixels = torch.stack([sum_per_channel(one[None]) for one in valid])
    normalisation = (2.0 * n_pixels * torch.log(noise)).sum(dim=-1)
    return 0.5 * (square.sum(dim=(1, 2, 3)) + normalisation)


def objective(reconstruction, divergence, *, beta, free_bits=0.0, auxiliary=None):
    r"""Return what training minimises: reconstruction + beta × divergence, mean over objects.

    With free bits :math:`\lambda` [1]_ a latent whose divergence, averaged over the batch, is below
    :math:`\lambda` nats counts as :math:`\lambda`: it costs nothing to use it that far.

    Parameters
    ----------
    reconstruction : tensor, (n,)
        Minus the log-likelihoods.
    divergence : tensor, (n, latent_dim)
        Divergence of each latent.
    beta : float
        Weight of the divergence [2]_.
    free_bits : float, optional
        :math:`\lambda`, in nats per latent.
    auxiliary : tensor, (n,), optional
        A further term of the architecture.

    Returns
    -------
    loss : tensor, scalar

    References
    ----------
    .. [1] Kingma et al. 2016, arXiv:1606.04934.
    .. [2] Higgins et al. 2017, "beta-VAE", ICLR.
    """
    per_latent = divergence.mean(dim=0)
    if free_bits > 0:
        per_latent = per_latent.clamp_min(free_bits)
    loss = reconstruction.mean() + beta * per_latent.sum()
    return loss if auxiliary is None else loss + auxiliary.mean()
