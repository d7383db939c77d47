"""Parity: our reference network and its plain PyTorch twin give the same numbers (bar: 1e-5).

Run: python benchmarks/parity.py
"""

import argparse
import sys

import numpy as np
import torch
from reference_torch import ReferenceVAE, copy_weights

from astro_morphvae import VAE

TOLERANCE = 1e-5


def largest_differences(image_size, n_bands, latent_dim, softening, seed=0):
    """Largest differences of mu, log variance and reconstruction over their largest value."""
    network = VAE(
        latent_dim,
        architecture="xu2023",
        image_size=image_size,
        n_bands=n_bands,
        seed=seed,
        stretch=None if softening is None else "asinh",
        softening=softening,
    )
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for weight in network.weights:  # biases too, which start at zero
            values = (
                generator.uniform(-1, 1, weight.shape) * 1.7 / np.sqrt(np.prod(weight.shape[1:]))
            )
            weight.assign(values.astype(np.float32))
    twin = ReferenceVAE(latent_dim, n_bands, image_size, softening)
    copy_weights(network, twin)
    shape = (8, n_bands, image_size, image_size)
    x = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    with torch.no_grad():
        ours = [*network.encode(x)[:2]]
        stretched = twin.stretch(x)
        theirs = [*twin.encode(stretched)]
        ours.append(network.decoder(ours[0]))
        theirs.append(twin.decode(theirs[0]))
    return {
        name: float((a - b).abs().max() / b.abs().max())
        for name, a, b in zip(("mu", "log variance", "reconstruction"), ours, theirs, strict=True)
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    n_parameters = VAE(40, architecture="xu2023", image_size=256, n_bands=3).count_params()
    print(f"parameters at 3 × 256 × 256, 40 latents: {n_parameters} (443507 published)")
    good = n_parameters == 443507
    for image_size, n_bands, latent_dim, softening in (
        (256, 3, 40, None),
        (64, 1, 10, None),
        (192, 5, 40, None),
        (256, 3, 40, [0.5, 0.6, 0.7]),
    ):
        found = largest_differences(image_size, n_bands, latent_dim, softening)
        good &= max(found.values()) <= TOLERANCE
        numbers = ", ".join(f"{name} {value:.1e}" for name, value in found.items())
        stretch = "no stretch" if softening is None else "asinh stretch"
        print(
            f"{n_bands} × {image_size} × {image_size}, {latent_dim} latents, {stretch}: {numbers}"
        )
    print("parity to 1e-5:", "yes" if good else "NO")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
