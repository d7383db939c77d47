"""The sets of galaxies that `domain_adaptation.py` studies, each seen by two surveys."""

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance
from real_galaxies import load_gz2
from scipy.ndimage import gaussian_filter

import astro_morphvae as amv

SPLIT_SEED = 2026
BLUR = {"A": (0.8, 0.8, 0.8), "B": (2.2, 2.0, 1.2)}  # pixels of 128, by band
NOISE = {"A": 0.01, "B": 0.03}
EDGE = 6  # pixels around the exposures, beyond the reach of the kernels that match them


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


def coadds(second, n, n_test, *, seed, n_jobs=1):
    """DECaLS and another survey as `make_survey_pair` has them, on one grid."""
    from astro_morphvae.datasets import make_survey_pair

    source, target = make_survey_pair(
        n,
        surveys=("DECaLS", second),
        size=64 + 2 * EDGE,
        pixel_scale=0.524 * u.arcsec,
        seed=seed,
        threads=n_jobs,
    )
    matched = match_quality(source, target, n_jobs=n_jobs)
    source, target, *matched = (trim(part, EDGE) for part in (source, target, *matched))
    return same_galaxies(source, target, tuple(matched), n_test)


def exposures(n, n_test, *, seed, n_jobs=1):
    """One exposure of DECam, and one of 90prime (g, r) and Mosaic3 (z), through the survey path.

    Simulated with the measured point spread functions and noise on pixels of the detectors, and put
    on one grid as real ones are. All is done on a larger frame, that no image ends on the result.
    """
    from astro_morphvae.datasets import BOK_MOSAIC_EXPOSURE, DECAM_EXPOSURE, make_galaxies
    from astro_morphvae.pairs import pair_surveys

    def expose(survey, bands, size, scale, name=None):
        rows = [survey.bands.index(band) for band in bands]
        part = replace(
            survey,
            name=name or survey.name,  # from which the noise follows
            bands=tuple(bands),
            psf_fwhm=survey.psf_fwhm[rows],
            galaxy_depth=survey.galaxy_depth[rows],
            sky_brightness=survey.sky_brightness[rows],
            ra_range=DECAM_EXPOSURE.ra_range,  # all see the galaxies at the same places
            dec_range=DECAM_EXPOSURE.dec_range,
        )
        scale = scale * u.arcsec
        return make_galaxies(
            n, survey=part, size=size, pixel_scale=scale, seed=seed, threads=n_jobs
        )

    bok = BOK_MOSAIC_EXPOSURE
    decam = expose(DECAM_EXPOSURE, "grz", 160, 0.262)
    pairs = []
    for second in (
        expose(bok, "gr", 98, 0.454, "90prime exposure"),
        expose(bok, "z", 162, 0.26, "Mosaic3 exposure"),
    ):
        *pair, _ = pair_surveys(
            None,
            decam,
            second,
            pixel_scale=0.524 * u.arcsec,
            size=64 + 2 * EDGE,
            n_jobs=n_jobs,
        )
        pairs.append(pair)
    source, target = (
        join_bands(parts, survey.name, decam.catalog)
        for parts, survey in zip(zip(*pairs, strict=True), (DECAM_EXPOSURE, bok), strict=True)
    )
    # 90prime and Mosaic3 are the broader in each band, so the target has their exponent.
    matched = match_quality(
        source,
        target,
        beta=bok.moffat_beta,
        own_betas=(DECAM_EXPOSURE.moffat_beta, bok.moffat_beta),
        n_jobs=n_jobs,
    )
    source, target, *matched = (trim(part, EDGE) for part in (source, target, *matched))
    return same_galaxies(source, target, tuple(matched), n_test)


def join_bands(parts, survey, catalog):
    """One set of sets of the same galaxies in different bands, all on one grid."""
    catalog = catalog.copy()
    statuses = np.stack([part.catalog["status"] for part in parts])
    catalog["status"] = statuses[np.argmax(statuses != "ok", axis=0), np.arange(len(catalog))]
    catalog["coverage"] = np.min([part.catalog["coverage"] for part in parts], axis=0)
    catalog["noise_correlation"] = np.concatenate(
        [part.catalog["noise_correlation"] for part in parts], axis=1
    )
    masks = [np.zeros(part.shape, bool) if part.mask is None else part.mask for part in parts]
    return amv.CutoutSet(
        np.concatenate([part.data for part in parts], axis=1),
        unit=parts[0].unit,
        bands=[band for part in parts for band in part.bands],
        uncertainty=InverseVariance(np.concatenate([part.ivar for part in parts], axis=1)),
        mask=np.concatenate(masks, axis=1),
        wcs=parts[0].wcs,
        pixel_scale=parts[0].pixel_scale,
        psf_fwhm=np.concatenate([part.psf_fwhm for part in parts]),
        catalog=catalog,
        meta={**parts[0].meta, "survey": survey},
    )


def trim(cutouts, edge):
    """Without so many pixels at each side."""
    inner = (..., *[slice(edge, -edge)] * 2)
    return amv.CutoutSet(
        cutouts.data[inner],
        unit=cutouts.unit,
        bands=cutouts.bands,
        uncertainty=InverseVariance(cutouts.ivar[inner]),
        mask=None if cutouts.mask is None else cutouts.mask[inner],
        wcs=[wcs.slice([slice(edge, n - edge) for n in cutouts.size]) for wcs in cutouts.wcs],
        pixel_scale=cutouts.pixel_scale,
        psf_fwhm=cutouts.psf_fwhm,
        catalog=cutouts.catalog,
        meta=cutouts.meta,
    )


def same_galaxies(source, target, matched, n_test):
    """Simulated galaxies of two surveys, their division and the questions."""
    from astro_morphvae.morphology import XU2023_QUESTIONS, select_labels

    questions = {}
    for name, rule in XU2023_QUESTIONS.items():
        label = np.ma.filled(select_labels(source.catalog, "gz-decals", rule), "").astype(str)
        questions[name] = (label, label != "")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(source))
    surveys = " and ".join(part.meta["survey"] for part in (source, target))
    return Galaxies(
        f"simulated {surveys}, {len(source)} galaxies",
        source,
        target,
        matched,
        np.sort(order[n_test:]),
        np.sort(order[:n_test]),
        questions,
        {},
    )


def match_quality(source, target, *, beta=3.5, own_betas=(None, None), n_jobs=1):
    """Both with the broader point spread function and the larger noise of each band.

    Noise that a blur or other pixels have correlated is made white, at a level at which sums of
    pixels are as noisy as those of the noisier survey: that costs no depth.
    """
    from astro_morphvae.processing import match_depth, match_psf

    fwhm = np.maximum(source.psf_fwhm, target.psf_fwhm)
    blurred = [
        match_psf(part, target_fwhm=fwhm, beta=beta, psf_beta=own, n_jobs=n_jobs)
        for part, own in zip((source, target), own_betas, strict=True)
    ]
    ivar = [
        np.median(
            part.ivar / np.maximum(part.catalog["noise_correlation"], 1)[..., None, None],
            axis=(0, 2, 3),
        )
        for part in blurred
    ]
    common = np.minimum(*ivar)
    return tuple(
        match_depth(part, target_ivar=common, seed=3 + k, unreachable="leave")
        for k, part in enumerate(blurred)
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

    def observe(blur, noise, survey, seed):
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
