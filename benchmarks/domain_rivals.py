"""Ways to give a galaxy one description in two surveys, which `domain_adaptation.py` compares."""

import numpy as np
from astropy.nddata import InverseVariance

import astro_morphvae as amv

N_LATENTS = 40
REFERENCE = "no adaptation"
MATCHED, RECIPE = "PSF and depth matched", "recipe of Xu et al."
ONE_SEED = ("network and recipe of Xu et al.",)  # of the dearest rivals; the table says so


def fit(network, cutouts, seed, epochs):
    """Fit an auto-encoder made with these keywords."""
    network = amv.VAE(N_LATENTS, image_size=64, n_bands=3, seed=seed, **network)
    fitter = amv.VAEFitter(
        epochs=epochs,
        batch_size=64,
        learning_rate=2e-3,
        schedule="cosine",
        validation_fraction=0.0,
        seed=seed,
        progress=False,
    )
    return fitter(amv.LatentModel(network), cutouts)


def latents(model, cutouts):
    return np.asarray(model.encode(cutouts, batch_size=128)["z_mean"])


def chi2(model, cutouts):
    """Chi-square per pixel of reconstructions, with the noise floor of the network's likelihood."""
    drawn = model.reconstruct(cutouts)
    x, ivar, _ = cutouts.arrays()
    model_flux = drawn.arrays()[0]
    layer = model.network.stretch_layer
    if layer is not None:
        softening = np.array(layer.softening, np.float32)[:, None, None]
        ivar = ivar * (x**2 + softening**2)
        x, model_flux = (np.arcsinh(part / softening) for part in (x, model_flux))
    ivar = ivar / (1 + ivar * model.network.noise_floor**2)
    return float((ivar * (x - model_flux) ** 2).sum() / (ivar > 0).sum())


def methods(galaxies, seed, options):
    """Name -> function that gives latents (source, target), and the model or `None`."""
    epochs = options.epochs
    source, target = galaxies.source[galaxies.train], galaxies.target[galaxies.train]
    base = fit(galaxies.network, source, seed, epochs)
    z_source, fitted = latents(base, galaxies.source), {}

    def none():
        return z_source, latents(base, galaxies.target), base

    def matched():
        one, two = galaxies.matched
        fitted[MATCHED] = fit(galaxies.network, one[galaxies.train], seed, epochs)
        return *(latents(fitted[MATCHED], part) for part in (one, two)), None

    def matched_and_paired():
        if MATCHED not in fitted:
            matched()
        one, two = galaxies.matched
        fitter = amv.DomainAdaptationFitter(
            method="paired", epochs=options.adapt_epochs, seed=seed, progress=False
        )
        parts = one[galaxies.train], two[galaxies.train]
        model = fitter(fitted[MATCHED], parts[0], target=parts[1], pairs="rows")
        return latents(fitted[MATCHED], one), latents(model, two), None

    def union():
        x, ivar, _ = (
            None if a is None else np.concatenate([a, b])
            for a, b in zip(source.arrays(), target.arrays(), strict=True)
        )
        both = amv.CutoutSet(
            x,
            unit=source.unit,
            bands=source.bands,
            pixel_scale=source.pixel_scale,
            uncertainty=InverseVariance(ivar),
        )
        model = fit(galaxies.network, both, seed, -(-epochs // 2))  # as many steps as the others
        return latents(model, galaxies.source), latents(model, galaxies.target), model

    def adapted(method, *, pairs=None, rows=(slice(None), slice(None)), **settings):
        def run():
            fitter = amv.DomainAdaptationFitter(
                method=method, epochs=options.adapt_epochs, seed=seed, progress=False, **settings
            )
            model = fitter(base, source[rows[0]], target=target[rows[1]], pairs=pairs)
            return z_source, latents(model, galaxies.target), model

        return run

    def recipe():
        fitter = amv.DomainAdaptationFitter.xu2023(seed=seed, progress=False)
        model = fitter(base, source, target=target)
        return z_source, latents(model, galaxies.target), model

    def system():
        network = {"architecture": "xu2023", "stretch": None}
        first = fit(galaxies.network | network, source, seed, epochs)
        fitter = amv.DomainAdaptationFitter.xu2023(seed=seed, progress=False)
        model = fitter(first, source, target=target)
        return latents(first, galaxies.source), latents(model, galaxies.target), None

    halves = np.array_split(np.random.default_rng(seed).permutation(len(source)), 2)
    return {
        REFERENCE: none,
        MATCHED: matched,
        RECIPE: recipe,
        "network and recipe of Xu et al.": system,
        "one network for the union": union,
        "mmd": adapted("mmd"),
        "mmd, other galaxies": adapted("mmd", rows=[np.sort(half) for half in halves]),
        "coral": adapted("coral"),
        "adversarial": adapted("adversarial", start="identity"),
        "paired": adapted("paired", pairs="rows"),
        "combined": adapted("combined", pairs="rows"),
        "matched, then paired": matched_and_paired,
    }


def train_residual_network(galaxies, seed, epochs):
    """Train a supervised network on the source's labels.

    Returns the label it gives every test galaxy, by (survey, question).
    """
    import torch
    from torch.nn import functional

    from astro_morphvae.networks import ResidualEncoder, fit_softening
    from astro_morphvae.networks.layers import Linear

    generator = np.random.default_rng(seed)
    codes, classes = {}, {}
    for name, (label, known) in galaxies.questions.items():
        classes[name] = np.unique(label[known])
        codes[name] = np.where(known, np.searchsorted(classes[name], label), -1)
    softening = None
    if "stretch" not in galaxies.network:
        softening = fit_softening(galaxies.source.data[:256], galaxies.source.ivar[:256])

    def images(cutouts, rows):
        x = cutouts.arrays(rows)[0]
        if softening is not None:
            x = np.arcsinh(x / softening[:, None, None])
        return torch.from_numpy(x)

    def turned(x):
        """At a random angle, mirrored or not, and a tenth larger or smaller."""
        angle = generator.uniform(0, 2 * np.pi, len(x))
        size, hand = generator.uniform(0.9, 1.1, len(x)), generator.choice([-1.0, 1.0], len(x))
        cosine, sine, zero = np.cos(angle) * size, np.sin(angle) * size, np.zeros(len(x))
        turn = np.stack([cosine, -sine * hand, zero, sine, cosine * hand, zero], axis=1)
        turn = torch.tensor(turn.reshape(-1, 2, 3), dtype=torch.float32)
        grid = functional.affine_grid(turn, x.shape, align_corners=False)
        return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)

    encoder = ResidualEncoder(64, image_size=64, n_bands=3, seed=seed)
    heads = {name: Linear(64, len(values), seed=seed) for name, values in classes.items()}
    weights = [w.value for layer in (encoder, *heads.values()) for w in layer.trainable_weights]
    optimiser = torch.optim.AdamW(weights, lr=1e-3, weight_decay=1e-2)
    steps = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 2e-3, total_steps=epochs * -(-len(galaxies.train) // 64)
    )
    for _ in range(epochs):
        order = generator.permutation(galaxies.train)
        for rows in np.array_split(order, -(-len(order) // 64)):
            features = functional.silu(encoder(turned(images(galaxies.source, rows)))[0])
            loss = sum(
                functional.cross_entropy(
                    heads[name](features), torch.from_numpy(code[rows]), ignore_index=-1
                )
                for name, code in codes.items()
                if (code[rows] >= 0).any()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps.step()
    predicted = {}
    with torch.inference_mode():
        for survey, cutouts in (("source", galaxies.source), ("target", galaxies.target)):
            parts = [
                functional.silu(encoder(images(cutouts, rows))[0])
                for rows in np.array_split(galaxies.test, -(-len(galaxies.test) // 128))
            ]
            for name, head in heads.items():
                best = head(torch.cat(parts)).argmax(dim=1).numpy()
                predicted[survey, name] = classes[name][best]
    return predicted
