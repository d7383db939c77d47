"""One training step and one pass over validation data: functions of network, batch, optimiser."""

import numpy as np
import torch

from ..networks.batches import autocast

__all__ = ["epoch_generators", "train_step", "validate"]


def epoch_generators(seed, epoch):
    """Make the generators of everything random in an epoch: NumPy's, and torch's on the CPU.

    They depend on the seed and the epoch alone, so that a fit resumed at an epoch draws what the
    unbroken fit would have drawn.

    Parameters
    ----------
    seed : int
        Seed of the fit.
    epoch : int
        Number of the epoch.
    """
    order, draws = np.random.SeedSequence([seed, epoch]).spawn(2)
    torch_generator = torch.Generator().manual_seed(int(draws.generate_state(1, np.uint64)[0] >> 1))
    return np.random.default_rng(order), torch_generator


def train_step(
    network, batch, optimiser, *, draw, beta=None, free_bits=0.0, clip_norm=None, precision=None
):
    """Move the weights of a network by one step down the gradient of its loss.

    Parameters
    ----------
    network : VAE, or a wrapper with its ``clean_loss_terms``
        The network; its parameters are those of the optimiser.
    batch : `~astro_morphvae.networks.batches.Batch`
        Pixels on the network's device.
    optimiser : `torch.optim.Optimizer`
        The optimiser.
    draw : tensor, (n, latent_dim)
        Unit Gaussian numbers.
    beta, free_bits
        See `~astro_morphvae.VAE.loss_terms`.
    clip_norm : float, optional
        Largest norm of the gradient of the loss per pixel value.
    precision : {None, "float32", "bfloat16"}, optional
        Precision of the forward pass.

    Returns
    -------
    terms : dict of str to float
        Means over the batch, before the step. Where ``loss`` is not finite no step was taken.
    """
    optimiser.zero_grad(set_to_none=True)
    with autocast(precision, batch.x.device):
        terms = network.clean_loss_terms(
            batch.x,
            ivar=batch.ivar,
            valid=batch.valid,
            beta=beta,
            free_bits=free_bits,
            draw=draw,
            learn_noise=True,
        )
    values = _means(terms)
    if np.isfinite(values["loss"]):
        # Per pixel value, so that gradients (and their clipping) mean the same at any image size.
        (terms["loss"] / batch.x[0].numel()).backward()
        if clip_norm is not None:
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimiser.step()
    return values


@torch.no_grad()
def validate(network, batches, *, generator, precision=None):
    """Mean loss terms over batches, at the network's own beta and without free bits.

    Parameters
    ----------
    network : VAE
        The network.
    batches : iterable of `~astro_morphvae.networks.batches.Batch`
        The data.
    generator : `torch.Generator`
        Source of the draws from the posterior.
    precision : {None, "float32", "bfloat16"}, optional
        Precision of the network.

    Returns
    -------
    terms : dict of str to float
        Means over the objects.
    """
    total, n = {}, 0
    for batch in batches:
        draw = torch.randn((len(batch.x), network.latent_dim), generator=generator)
        with autocast(precision, batch.x.device):
            terms = network.clean_loss_terms(
                batch.x, ivar=batch.ivar, valid=batch.valid, draw=draw.to(batch.x.device)
            )
        for name, value in _means(terms).items():
            total[name] = total.get(name, 0.0) + value * len(batch.x)
        n += len(batch.x)
    return {name: value / n for name, value in total.items()}


def _means(terms):
    names = list(terms)
    means = torch.stack([terms[name].detach().float().mean() for name in names])
    return dict(zip(names, means.tolist(), strict=True))
