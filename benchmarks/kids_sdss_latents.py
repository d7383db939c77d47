"""Does a galaxy get the same latents from KiDS and from SDSS, before and after adaptation?

The six galaxies of `kids_sdss.py`, each seen by both surveys on the pixels of SDSS, go through
networks fitted to simulated galaxies as one of the surveys sees them. For each galaxy: distance of
its latents in KiDS from those in SDSS over the median distance of different galaxies, and place of
its partner among the six, three ways.

before      both stamps as they are, that of KiDS shifted onto that of SDSS
matched     KiDS degraded: brought to the point spread function of SDSS (with the exponent chosen by
            the other five galaxies), and to its noise by match_depth
adapted     both stamps as before; the network is adapted to the other survey with simulated pairs
            of the two (DomainAdaptationFitter, method "paired")

The simulated surveys have the median FWHM and noise of the stamps; their noise is independent from
pixel to pixel, that of the stamps is not. The same is measured on other simulated galaxies. Six
galaxies illustrate, they measure little.

Run: python benchmarks/kids_sdss_latents.py [--seeds 1 2 3] [--n 1500] [--epochs 8]
Data: kids-sdss-pairs in ../shared/data, or --data.
"""

import argparse
import time
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance
from kids_sdss import (
    CHOSEN,
    NOT_MATCHED,
    SCALES,
    coarse_psf,
    compare,
    provenance,
    read_stamps,
    width,
)

import astro_morphvae as amv  # its names load torch when first used: after tune_process()
from astro_morphvae.processing import match_depth

N_LATENTS = 10
SIZE = 64
SIMULATION_SEED = 11
N_TEST = 200  # simulated galaxies that nothing was fitted to
STATES = "before", "matched", "adapted"


def middle(cutouts, shape):
    """Central SIZE × SIZE pixels of a stamp that has the given shape."""
    y, x = (n // 2 - SIZE // 2 for n in shape)
    return tuple(part[0, :, y : y + SIZE, x : x + SIZE] for part in cutouts.arrays()[:2])


def joined(stamps, names, bad, correlation):
    data, ivar = (np.stack(part) for part in zip(*stamps, strict=True))
    return amv.CutoutSet(
        data,
        unit=u.nmgy,
        bands="r",
        pixel_scale=SCALES["SDSS"] * u.arcsec,
        uncertainty=InverseVariance(ivar),
        mask=bad,
        catalog={"id": names, "noise_correlation": np.reshape(correlation, (-1, 1))},
    )


def real_sets(ways, stamps, seed):
    """The six galaxies on 64 × 64 pixels of SDSS: of KiDS, of KiDS degraded, and of SDSS."""
    names = list(stamps)
    sets = {
        "KiDS": [ways[NOT_MATCHED][name].degraded for name in names],
        "KiDS degraded": [ways[CHOSEN][name].degraded for name in names],
        "SDSS": [stamps[name]["SDSS"].cutouts for name in names],
    }
    cut = {
        label: [middle(c, s.size) for c, s in zip(items, sets["SDSS"], strict=True)]
        for label, items in sets.items()
    }
    # What one survey does not know is hidden in all, so that latents do not tell it.
    bad = np.any([[ivar <= 0 for _, ivar in items] for items in cut.values()], axis=0)
    out = {
        label: joined(
            cut[label], names, bad, [c.catalog["noise_correlation"][0] for c in sets[label]]
        )
        for label in sets
    }
    degraded, sdss = out["KiDS degraded"], out["SDSS"]
    out["KiDS degraded"] = match_depth(degraded, like=sdss, seed=seed, unreachable="leave")
    return out


def as_survey(name, fwhm, noise):
    """Survey with this FWHM and noise of a pixel, in nmgy, on the pixels of SDSS."""
    from astro_morphvae.datasets import Survey

    def make(depth):
        return Survey(
            name=name,
            bands=("r",),
            psf_fwhm=[fwhm.to_value(u.arcsec)] * u.arcsec,
            galaxy_depth=[depth] * u.mag,
            sky_brightness=[20.91] * u.mag / u.arcsec**2,
            pixel_scale=SCALES["SDSS"] * u.arcsec,
        )

    return make(22.0 - 2.5 * np.log10(noise / make(22.0).sky_noise().value[0]))


def simulated_surveys(stamps, sets):
    """KiDS and SDSS with the median FWHM and noise of their stamps."""
    psfs = {
        "KiDS": [coarse_psf(stamp["KiDS"]) for stamp in stamps.values()],
        "SDSS": [stamp["SDSS"].psf for stamp in stamps.values()],
    }
    out = []
    for name, images in psfs.items():
        fwhm = np.median(u.Quantity([width(psf, "SDSS") for psf in images]))
        ivar = sets[name].ivar
        noise = float(np.median(ivar[ivar > 0]) ** -0.5)
        print(f"{name} as simulated: FWHM {fwhm:.2f}, noise {noise:.4f} nmgy / pixel")
        out.append(as_survey(name, fwhm, noise))
    return out


def fit_network(galaxies, seed, epochs):
    network = amv.VAE(N_LATENTS, image_size=SIZE, n_bands=1, seed=seed)
    fitter = amv.VAEFitter(
        epochs=epochs,
        batch_size=64,
        learning_rate=2e-3,
        schedule="cosine",
        validation_fraction=0.0,
        seed=seed,
        progress=False,
    )
    return fitter(amv.LatentModel(network), galaxies)


def ranking(encode, kids, sdss, spread):
    """Distance ratio, and place of the partner, of each galaxy: two arrays (n,)."""
    from astro_morphvae.analysis import rank_pairs

    tables = [encode(cutouts, survey) for survey, cutouts in (("KiDS", kids), ("SDSS", sdss))]
    for table in tables:
        table["z_mean"] = np.asarray(table["z_mean"]) / spread
    ranked = rank_pairs(*tables, pairs="rows")
    ranked.sort("row_a")
    return np.array([ranked["ratio"], ranked["rank_b"]])


def measure(training, test, sets, source, seed, epochs):
    """Ratios and places of the six galaxies by state, and of the simulated ones."""
    target = next(survey for survey in training if survey != source)
    model = fit_network(training[source], seed, epochs)
    spread = np.asarray(model.encode(training[source])["z_mean"]).std(axis=0)
    fitter = amv.DomainAdaptationFitter(method="paired", elbo_weight=0, seed=seed, progress=False)
    adapted = fitter(model, training[source], target={target: training[target]}, pairs="rows")

    def before(cutouts, survey):
        return model.encode(cutouts)

    def after(cutouts, survey):
        return adapted.encode(cutouts, survey=survey)

    real = {
        "before": ranking(before, sets["KiDS"], sets["SDSS"], spread),
        "matched": ranking(before, sets["KiDS degraded"], sets["SDSS"], spread),
        "adapted": ranking(after, sets["KiDS"], sets["SDSS"], spread),
    }
    simulated = {
        state: ranking(encode, test["KiDS"], test["SDSS"], spread)
        for state, encode in (("before", before), ("adapted", after))
    }
    return real, simulated


def show(source, seeds, found):
    """One line a state and seed, and the means over the seeds."""
    for seed, (real, _) in zip(seeds, found, strict=True):
        for state, (ratios, places) in real.items():
            each = ", ".join(f"{r:.2f} ({p:.0f})" for r, p in zip(ratios, places, strict=True))
            print(f"{source} network, seed {seed}, {state:8s} {np.median(ratios):.3f}; {each}")
    real = {state: np.mean([of_seed[0][state] for of_seed in found], axis=0) for state in STATES}
    for state, (ratios, places) in real.items():
        nearest = np.mean([np.sum(of_seed[0][state][1] == 1) for of_seed in found])
        nearer = np.sum(ratios < real["before"][0])
        print(
            f"{source} network, mean over {len(seeds)} seeds, {state:8s} median ratio "
            f"{np.median(ratios):.3f}, mean place {np.mean(places):.2f}, own nearest {nearest:.1f} "
            f"of {len(ratios)}"
            + (f"; nearer than before: {nearer} of {len(ratios)}" if state != "before" else "")
        )
    for state in ("before", "adapted"):
        ratios, places = np.mean([of_seed[1][state] for of_seed in found], axis=0)
        print(
            f"{source} network, {len(ratios)} simulated galaxies, {state:8s} median ratio "
            f"{np.median(ratios):.3f}, mean place {np.mean(places):.2f}"
        )


def main():
    from astro_morphvae.datasets import make_survey_pair

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the networks")
    parser.add_argument("--n", type=int, default=1500, help="simulated galaxies to fit to")
    parser.add_argument("--epochs", type=int, default=8, help="of the networks")
    parser.add_argument("--noise-seed", type=int, default=5)
    parser.add_argument("--threads", type=int)
    o = parser.parse_args()
    amv.tune_process(threads=o.threads)
    start = time.perf_counter()
    stamps = read_stamps(o.data)
    print(
        f"{len(stamps)} real galaxies of kids-sdss-pairs, r; noise seed {o.noise_seed}; "
        f"{N_LATENTS} latents, of networks fitted to {o.n} simulated galaxies (seed "
        f"{SIMULATION_SEED}) in {o.epochs} epochs, each over its standard deviation among them; "
        f"{provenance()}"
    )
    sets = real_sets(compare(stamps)[0], stamps, o.noise_seed)
    surveys = simulated_surveys(stamps, sets)
    pair = make_survey_pair(
        o.n + N_TEST, surveys=surveys, size=SIZE, seed=SIMULATION_SEED, threads=1
    )
    training, test = (
        {survey: cutouts[rows] for survey, cutouts in zip(SCALES, pair, strict=True)}
        for rows in (slice(o.n), slice(o.n, None))
    )
    print("median ratio; ratio (place) of each galaxy")
    for source in SCALES:
        found = [measure(training, test, sets, source, seed, o.epochs) for seed in o.seeds]
        show(source, o.seeds, found)
    print(f"{len(stamps)} galaxies: an illustration; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
