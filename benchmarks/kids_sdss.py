"""Does a real galaxy degraded to another survey look as that survey really saw it?

Six galaxies have stamps of KiDS r and of SDSS r, with point spread functions and noise. KiDS is put
on the pixels of SDSS by reproject_cutouts and brought to its point spread function by match_psf.
One factor of the flux (the surveys disagree by some hundredths of a magnitude) and a shift are
fitted to each galaxy, and the difference from the true SDSS stamp is compared with the noise.

1. Chi-square per pixel: on the galaxy's segment, on its bright part (SDSS above 10 sigma), and on
   the sky about it. Neighbours in either segmentation, and masked pixels, are left out. The
   variance is that of SDSS and what KiDS passes on, with its noise correlation as measured on its
   sky. Errors of a galaxy are of a bootstrap over blocks of 8 × 8 pixels, since the noise of SDSS
   is correlated too; those of the mean of the six are of their scatter.

   The images of KiDS's point spread function turn negative at some 1 arcsec from the centre, which
   no real one does: the sky was taken too high. So there are four ways, side by side: not matched;
   matched with these images as they are; with Moffat profiles of the images' width and the default
   exponent; and with an exponent, one for all, chosen for each galaxy by the other five.
2. Latents of the same stamps from networks fitted to simulated galaxies: distance between the two
   surveys over the median distance between different galaxies, before and after degrading (which
   then includes noise, by match_depth). There are six galaxies: it illustrates, it measures little.

The stamps are real (kids-sdss-pairs in ../shared/data, or --data); they have no WCS, so each gets
one about its centre. The training sets of the networks are simulated.

Run: python benchmarks/kids_sdss.py [--figure kids_sdss.png] [--seeds 1 2 3]
"""

import argparse
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import InverseVariance
from astropy.wcs import WCS
from scipy.ndimage import binary_dilation, binary_erosion

import astro_morphvae as amv  # its names load torch when first used: after tune_process()

SCALES = {"KiDS": 0.2, "SDSS": 0.339}  # arcsec per pixel
EXPONENTS = (1.75, 2.0, 2.5, 3.5, 4.5)  # of Moffat profiles that stand for KiDS's
NOT_MATCHED, CHOSEN = "not matched", "Moffat, chosen exponent"
BRIGHT = 10  # sigma of SDSS
BLOCK = 8
N_BOOTSTRAP = 1000
N_LATENTS = 10
SIZE = 64
SIMULATION_SEED = 11


@dataclass
class Stamp:
    """One galaxy in one survey."""

    cutouts: amv.CutoutSet  # of one row and band
    psf: np.ndarray
    galaxy: np.ndarray  # pixels of its segment
    neighbour: np.ndarray  # pixels of any other segment


def processor():
    """Name of the processor, as the system tells it."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def pixels(cutouts):
    """Image and inverse variance of a set of one row and band."""
    data, ivar, _ = cutouts.arrays()
    return data[0, 0], None if ivar is None else ivar[0, 0]


def tan_wcs(shape, scale, shift=(0.0, 0.0)):
    """Gnomonic projection about the middle of an image, north up; the shift is in pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [180.0, 0.0]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    wcs.wcs.crpix = [(n + 1) / 2 + d for n, d in zip(shape[::-1], shift, strict=True)]
    return wcs


def as_cutouts(image, wcs, **kwargs):
    kwargs = {"unit": u.nmgy, "bands": "r"} | kwargs
    return amv.CutoutSet(image[np.newaxis, np.newaxis], wcs=[wcs], **kwargs)


def sky_correlation(image, sigma, sky):
    """Variance of a sum of pixels over the sum of their variances, from pairs up to 2 apart."""
    pull = np.where(sky, image / sigma - np.median((image / sigma)[sky]), 0)
    steps = [(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)]
    products = [
        (pull * np.roll(pull, step, axis=(0, 1)))[sky & np.roll(sky, step, axis=(0, 1))].mean()
        for step in steps
    ]
    return sum(products) / products[steps.index((0, 0))]


def read_stamp(folder, survey, name):
    image, sigma, mask, segments, psf = (
        fits.getdata(folder / survey / f"{name}{kind}.fits").astype(float)
        for kind in ("fitim", "sigma", "mskim", "segim", "psfim")
    )
    image, sigma = ((flux * u.mgy).to_value(u.nmgy) for flux in (image, sigma))
    bad = mask > 0
    sky = ~binary_dilation(segments > 0, iterations=6) & ~bad
    own = segments == segments[tuple(n // 2 for n in segments.shape)]
    cutouts = as_cutouts(
        image,
        tan_wcs(image.shape, SCALES[survey]),
        uncertainty=InverseVariance(sigma[np.newaxis, np.newaxis] ** -2),
        mask=bad,
        catalog={"id": [name], "noise_correlation": [[sky_correlation(image, sigma, sky)]]},
        meta={"survey": survey},
    )
    return Stamp(cutouts, psf, own, (segments > 0) & ~own)


# --------------------------------------------------------------- KiDS as SDSS would have seen it
def on_pixels_of(image, shape, target_wcs, scale):
    """Carry an array of the centre of the field, such as a point spread function."""
    from astro_morphvae.processing import reproject_cutouts

    cutouts = as_cutouts(image, tan_wcs(image.shape, scale))
    return reproject_cutouts(cutouts, target_wcs=target_wcs, size=shape)


def degrade(kids, sdss, shift=(0.0, 0.0), way="image"):
    """KiDS on the pixels of SDSS and, unless it is not to be matched, with its PSF.

    The shift moves the galaxy, in pixels of SDSS. The way is None (not matched), "image", or the
    exponent of a Moffat profile.
    """
    from astro_morphvae.processing import match_psf, reproject_cutouts
    from astro_morphvae.processing._psf_images import measure_fwhm, normalise

    shape, scale = sdss.cutouts.size, SCALES["SDSS"]
    coarse = reproject_cutouts(kids.cutouts, target_wcs=tan_wcs(shape, scale, shift), size=shape)
    if way is None:
        return coarse
    # The point spread function goes the way of the image, so that it has the blur of that step.
    size = int(len(kids.psf) * SCALES["KiDS"] / scale) // 2 * 2 - 1
    psf = on_pixels_of(kids.psf, (size, size), tan_wcs((size, size), scale), SCALES["KiDS"])
    image = psf.data[0, 0].astype(float)
    if way == "image":
        return match_psf(coarse, psf=image, target_psf=sdss.psf)
    width = measure_fwhm(normalise(image)) * scale * u.arcsec
    return match_psf(coarse, psf=width, psf_beta=way, target_psf=sdss.psf)


def usable(kids, sdss, degraded):
    """Pixels to compare: neighbours grow by 2 pixels, as the blur spreads them."""
    shape, scale = sdss.cutouts.size, SCALES["SDSS"]
    share = on_pixels_of(kids.neighbour.astype(float), shape, tan_wcs(shape, scale), SCALES["KiDS"])
    share = pixels(share)[0]
    other = (share > 0.1 * (scale / SCALES["KiDS"]) ** 2) | sdss.neighbour
    good = ~binary_dilation(other, iterations=2)
    return good & (pixels(sdss.cutouts)[1] > 0) & (pixels(degraded)[1] > 0)


def fit(kids, sdss, way):
    """Factor on KiDS and shift that bring it closest to SDSS: least squares, four steps."""
    factor, shift = 1.0, np.zeros(2)
    y, ivar = pixels(sdss.cutouts)
    for _ in range(4):
        degraded = degrade(kids, sdss, shift, way)
        x, own = pixels(degraded)
        good = usable(kids, sdss, degraded)
        along_y, along_x = np.gradient(x)
        inner = binary_erosion(good)  # where the gradient is known
        weight = 1 / np.sqrt(1 / ivar[inner] + factor**2 / own[inner])
        matrix = np.stack([x[inner], -factor * along_x[inner], -factor * along_y[inner]]) * weight
        (factor, *step), *_ = np.linalg.lstsq(matrix.T, y[inner] * weight, rcond=None)
        shift = shift + step
    degraded = degrade(kids, sdss, shift, way)
    good = usable(kids, sdss, degraded)
    galaxy = good & sdss.galaxy
    regions = {
        "galaxy": galaxy,
        "bright": galaxy & (y**2 * ivar > BRIGHT**2),
        "sky": good & ~galaxy,
    }
    return Fit(degraded, factor, shift, regions, sdss)


@dataclass
class Fit:
    """KiDS degraded and what was fitted to it."""

    degraded: amv.CutoutSet
    factor: float
    shift: np.ndarray
    regions: dict
    sdss: Stamp

    def pulls(self, factor=None):
        """Difference from SDSS over its noise; not finite where one is unknown."""
        factor = self.factor if factor is None else factor
        (x, own), (y, ivar) = pixels(self.degraded), pixels(self.sdss.cutouts)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (y - factor * x) / np.sqrt(1 / ivar + factor**2 / own)

    def chi2(self, region, factor=None):
        """Chi-square per pixel, and its error from a bootstrap over blocks."""
        region = self.regions[region]
        squares = self.pulls(factor)[region] ** 2
        y, x = np.nonzero(region)
        number = np.unique(y // BLOCK * 10_000 + x // BLOCK, return_inverse=True)[1]
        sums, counts = np.bincount(number, squares), np.bincount(number)
        draws = np.random.default_rng(0).integers(len(counts), size=(N_BOOTSTRAP, len(counts)))
        return squares.mean(), np.std(sums[draws].sum(axis=1) / counts[draws].sum(axis=1))


def choose_exponents(fits, names):
    """Exponent for each galaxy: the one that does best for all the others together."""
    share = {
        (name, beta): fits[name, beta].chi2("galaxy")[0] for name in names for beta in EXPONENTS
    }
    return {
        name: min(EXPONENTS, key=lambda b: sum(share[n, b] for n in names if n != name))
        for name in names
    }


def mean_of_six(values):
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


def show_fits(ways, names):
    print(
        f"\n{'way':24s} {'galaxy':8s} {'mag':>6s} {'shift (pixels)':>14s} {'on the galaxy':>15s} "
        f"{'no factor':>9s} {'bright part':>15s} {'sky':>15s} {'KiDS share':>10s}"
    )
    for way, found_in in ways.items():
        for name in names:
            found = found_in[name]
            galaxy, bright, sky = (
                "{:.3f} ± {:.3f}".format(*found.chi2(region)) for region in found.regions
            )
            region = found.regions["galaxy"]
            (_, own), (_, ivar) = pixels(found.degraded), pixels(found.sdss.cutouts)
            share = np.median(1 / own[region]) / np.median(1 / ivar[region])
            x, y = found.shift
            print(
                f"{way:24s} {name:8s} {-2.5 * np.log10(found.factor):+6.3f} {x:+6.2f}, {y:+6.2f} "
                f"{galaxy:>15s} {found.chi2('galaxy', 1.0)[0]:9.3f} {bright:>15s} {sky:>15s} "
                f"{share:10.3f}"
            )
        means = [
            mean_of_six([found_in[name].chi2(region, factor)[0] for name in names])
            for region, factor in (
                ("galaxy", None),
                ("galaxy", 1.0),
                ("bright", None),
                ("sky", None),
            )
        ]
        print(
            f"{way:24s} mean of {len(names)}: galaxy {means[0]}, without the factor {means[1]}, "
            f"bright {means[2]}, sky {means[3]}\n"
        )


# ------------------------------------------------------------------------------------- latents
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


def six_stamps(ways, stamps, names, seed):
    """The six galaxies on 64 × 64 pixels of SDSS: of KiDS before and after, and of SDSS."""
    from astro_morphvae.processing import match_depth

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


def survey_like_sdss(noise):
    """Survey with the seeing of the SDSS stamps and the given noise of a pixel, in nmgy."""
    from astro_morphvae.datasets import Survey

    def make(depth):
        return Survey(
            name="SDSS r",
            bands=("r",),
            psf_fwhm=[1.15] * u.arcsec,
            galaxy_depth=[depth] * u.mag,
            sky_brightness=[20.91] * u.mag / u.arcsec**2,
            pixel_scale=SCALES["SDSS"] * u.arcsec,
        )

    return make(22.0 - 2.5 * np.log10(noise / make(22.0).sky_noise().value[0]))


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


def show_latents(sets, o):
    """Distances of the same galaxy in KiDS and SDSS, in units of those of different galaxies."""
    from astro_morphvae.analysis import rank_pairs
    from astro_morphvae.datasets import make_galaxies

    noise = float(np.median(sets["SDSS"].ivar[sets["SDSS"].ivar > 0]) ** -0.5)
    training = make_galaxies(
        o.n, survey=survey_like_sdss(noise), size=SIZE, seed=SIMULATION_SEED, threads=1
    )
    print(
        f"latents: {N_LATENTS}, of networks fitted to {o.n} simulated galaxies (seed "
        f"{SIMULATION_SEED}; seeing 1.15 arcsec, noise {noise:.4f} nmgy / pixel), {o.epochs} "
        f"epochs; each over its standard deviation among them. Distance of the same galaxy over "
        "the median distance of different ones; place of the partner among the six"
    )
    pooled = {}
    for seed in o.seeds:
        model = fit_network(training, seed, o.epochs)
        spread = np.asarray(model.encode(training)["z_mean"]).std(axis=0)
        latents = {label: model.encode(cutouts) for label, cutouts in sets.items()}
        for table in latents.values():
            table["z_mean"] = np.asarray(table["z_mean"]) / spread
        for label in ("KiDS", "KiDS degraded"):
            ranked = rank_pairs(latents[label], latents["SDSS"], pairs="id")
            ranked.sort("id")
            pooled.setdefault(label, []).append(ranked["ratio"])
            print(
                f"seed {seed} {label:14s} median {np.median(ranked['ratio']):.3f}; each: "
                + ", ".join(
                    f"{r:.2f} ({p:.0f})"
                    for r, p in zip(ranked["ratio"], ranked["rank_b"], strict=True)
                )
            )
    before, after = (np.mean(pooled[label], axis=0) for label in ("KiDS", "KiDS degraded"))
    print(
        f"mean over {len(o.seeds)} seeds, median of the galaxies: {np.median(before):.3f} before, "
        f"{np.median(after):.3f} after; nearer after degrading: {np.sum(after < before)} of "
        f"{len(after)} galaxies (six galaxies: an illustration)"
    )


def draw(path, ways, stamps, names, seed):
    """KiDS, KiDS degraded, SDSS, and the difference over the noise."""
    import matplotlib.pyplot as plt

    from astro_morphvae.processing import match_depth

    half = 14.0  # arcsec
    shape = len(names), 4
    figure, axes = plt.subplots(*shape, figsize=(8.8, 2.2 * len(names)), layout="constrained")
    for row, name in zip(axes, names, strict=True):
        found, sdss = ways[CHOSEN][name], stamps[name]["SDSS"].cutouts
        noisy = match_depth(found.degraded, like=sdss, seed=seed, unreachable="leave")
        noise = np.median(pixels(sdss)[1]) ** -0.5
        pull = np.where(found.regions["galaxy"] | found.regions["sky"], found.pulls(), np.nan)
        own, area = stamps[name]["KiDS"].cutouts, (SCALES["SDSS"] / SCALES["KiDS"]) ** 2
        images = (
            *(
                np.where(ivar > 0, np.arcsinh(image * factor / noise / 3), np.nan)
                for (image, ivar), factor in (
                    (pixels(own), area),
                    (pixels(noisy), found.factor),
                    (pixels(sdss), 1.0),
                )
            ),
            pull,
        )
        for ax, image, scale, colours, least in zip(
            row,
            images,
            (SCALES["KiDS"], *(SCALES["SDSS"],) * 3),
            ("gray", "gray", "gray", "RdBu_r"),
            (-1, -1, -1, -5),
            strict=True,
        ):
            ny, nx = (n * scale / 2 for n in image.shape)
            shown = ax.imshow(
                image,
                origin="lower",
                extent=(-nx, nx, -ny, ny),
                cmap=colours,
                vmin=least,
                vmax=5,
                interpolation="nearest",
            )
            ax.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[], facecolor="0.8")
        row[0].set_ylabel(f"{name}\n{2 * half:.0f} arcsec", fontsize=8)
        value, error = found.chi2("galaxy")
        row[3].set_xlabel(f"$\\chi^2$ / pixel {value:.2f} ± {error:.2f}", fontsize=8)
    titles = "KiDS", "KiDS degraded, with noise", "SDSS", "(SDSS − degraded) / sigma"
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=9)
    figure.colorbar(shown, ax=axes, shrink=0.3)
    figure.savefig(path, dpi=110)
    print(f"figure: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--figure", type=Path, help="where to draw the stamps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the networks")
    parser.add_argument("--n", type=int, default=1500, help="simulated galaxies")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--noise-seed", type=int, default=5)
    parser.add_argument("--threads", type=int)
    o = parser.parse_args()
    folder = o.data / "kids-sdss-pairs"
    if not folder.is_dir():
        parser.error(f"--data: there is no {str(folder)!r}")
    amv.tune_process(threads=o.threads)
    start = time.perf_counter()
    names = sorted(path.name[:7] for path in (folder / "SDSS").glob("*fitim.fits"))
    stamps = {
        name: {survey: read_stamp(folder, survey, name) for survey in SCALES} for name in names
    }
    print(
        f"{len(names)} real galaxies of kids-sdss-pairs, r; noise seed {o.noise_seed}, seeds of "
        f"networks {o.seeds}; {processor()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, astro_morphvae {amv.__version__}"
    )
    for survey in SCALES:
        values = [
            float(stamps[name][survey].cutouts.catalog["noise_correlation"][0, 0]) for name in names
        ]
        print(f"noise correlation of {survey}, on its sky: {np.round(values, 1)}")
    fits = {
        (name, way): fit(stamps[name]["KiDS"], stamps[name]["SDSS"], way)
        for name in names
        for way in (None, "image", *EXPONENTS)
    }
    exponents = choose_exponents(fits, names)
    ways = {
        NOT_MATCHED: {name: fits[name, None] for name in names},
        "image as it is": {name: fits[name, "image"] for name in names},
        "Moffat, exponent 3.5": {name: fits[name, 3.5] for name in names},
        CHOSEN: {name: fits[name, exponents[name]] for name in names},
    }
    show_fits(ways, names)
    for beta in EXPONENTS:
        print(
            f"exponent {beta}: "
            + mean_of_six([fits[name, beta].chi2("galaxy")[0] for name in names])
        )
    print(f"exponent chosen by the other five: {exponents}\n")
    show_latents(six_stamps(ways, stamps, names, o.noise_seed), o)
    print(f"{time.perf_counter() - start:.0f} s")
    if o.figure is not None:
        draw(o.figure, ways, stamps, names, o.noise_seed)


if __name__ == "__main__":
    main()
