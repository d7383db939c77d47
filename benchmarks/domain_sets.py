"""The sets of galaxies that `domain_adaptation.py` studies, each seen by two surveys."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance
from real_galaxies import load_gz2
from scipy.ndimage import gaussian_filter

import astro_morphvae as amv

SPLIT_SEED = 2026
BLUR = {"A": (0.8, 0.8, 0.8), "B": (2.2, 2.0, 1.2)}  # pixels of 128, by band
NOISE = {"A": 0.01, "B": 0.03}


@dataclass
class Galaxies:
    """Row-aligned cutouts of two surveys, their division, and the questions asked of them."""

    name: str
    source: amv.CutoutSet
    target: amv.CutoutSet
    matched: tuple  # both, brought to one point spread function and depth
    train: np.ndarray
    test: np.ndarray
    questions: dict  # name -> (labels, whether known)
    network: dict  # keywords of the VAE


def shallow_survey():
    """As SDSS: seeing of 1.43 arcsec; depth of a point source less 0.7 mag for the depth galaxy."""
    from astro_morphvae.datasets import Survey
    from astro_morphvae.surveys.registry import get_survey_info

    info = get_survey_info("SDSS")
    depth = dict(zip(info.bands, info.depth.value, strict=True))
    seeing = np.nanmax(info.psf_fwhm.value)
    return Survey(
        name="SDSS",
        bands=("g", "r", "z"),
        psf_fwhm=[seeing] * 3 * u.arcsec,
        galaxy_depth=[depth[band] - 0.7 for band in "grz"] * u.mag,
        sky_brightness=[22.04, 20.91, 18.46] * u.mag / u.arcsec**2,
        pixel_scale=info.pixel_scale,
    )


def simulated(second, n, n_test):
    from astro_morphvae.datasets import make_survey_pair
    from astro_morphvae.morphology import XU2023_QUESTIONS, select_labels
    from astro_morphvae.processing import match_depth, match_psf

    source, target = make_survey_pair(
        n, surveys=("DECaLS", second), size=64, pixel_scale=0.524 * u.arcsec, seed=11
    )
    questions = {}
    for name, rule in XU2023_QUESTIONS.items():
        label = np.ma.filled(select_labels(source.catalog, "gz-decals", rule), "").astype(str)
        questions[name] = (label, label != "")
    fwhm = np.maximum(source.psf_fwhm, target.psf_fwhm)
    blurred = [match_psf(part, target_fwhm=fwhm) for part in (source, target)]
    ivar = [np.median(part.ivar, axis=(0, 2, 3)) for part in blurred]
    common = np.minimum(*ivar)
    matched = tuple(
        match_depth(part, target_ivar=common, seed=3 + k, unreachable="leave")
        for k, part in enumerate(blurred)
    )
    order = np.random.default_rng(SPLIT_SEED).permutation(n)
    return Galaxies(
        f"simulated DECaLS and {target.meta['survey']}, {n} galaxies",
        source,
        target,
        matched,
        np.sort(order[n_test:]),
        np.sort(order[:n_test]),
        questions,
        {},
    )


def real(data, share=1.0):
    samples = load_gz2(data)
    sharp = np.concatenate([sample.images for sample in samples])
    n_first = len(samples[0].images)
    offsets = (0, n_first)
    train = np.concatenate([s.train + o for s, o in zip(samples, offsets, strict=True)])
    test = np.concatenate([s.test + o for s, o in zip(samples, offsets, strict=True)])
    questions = {}
    for sample, offset in zip(samples, offsets, strict=True):
        for name, (values, known) in sample.questions.items():
            label = np.full(len(sharp), "", dtype="U20")
            label[offset : offset + len(values)] = np.where(known, values, "")
            questions[name] = (label, label != "")

    def observe(blur, noise, survey, seed, extra=0.0):
        generator = np.random.default_rng(seed)
        images = np.stack(
            [gaussian_filter(sharp[:, k], (0, b, b)) for k, b in enumerate(blur)], axis=1
        )
        images += generator.normal(0, noise, images.shape).astype(np.float32)
        images = images.reshape(len(images), 3, 64, 2, 64, 2).mean(axis=(3, 5))
        return amv.CutoutSet(
            images,
            unit=u.dimensionless_unscaled,
            bands="gri",
            uncertainty=InverseVariance(np.full(images.shape, (2 / noise) ** 2, np.float32)),
            meta={"survey": survey},
        )

    keep = np.random.default_rng(SPLIT_SEED).permutation(len(train))[: int(share * len(train))]
    target = observe(BLUR["B"], NOISE["B"], "B", 2)
    return Galaxies(
        f"real gz2-votes and gz2-spiral, degraded, {len(keep) + len(test)} galaxies",
        observe(BLUR["A"], NOISE["A"], "A", 1),
        target,
        (observe(BLUR["B"], NOISE["B"], "A", 3), target),
        train[np.sort(keep)],
        test,
        questions,
        {"stretch": None},  # these stamps were stretched when they were made
    )
