"""Does a real galaxy degraded to another survey look as that survey really saw it?

Six galaxies have stamps of KiDS r and of SDSS r, with point spread functions and noise. KiDS is put
on the pixels of SDSS by reproject_cutouts and brought to its point spread function by match_psf.
One factor of the flux (the surveys disagree by some hundredths of a magnitude) and a shift are
fitted to each galaxy, and the difference from the true SDSS stamp is compared with the noise.

Chi-square per pixel is on the galaxy's segment, on its bright part (SDSS above 10 sigma), and on
the sky about it. Neighbours in either segmentation, and masked pixels, are left out. The variance
is that of SDSS and what KiDS passes on, with its noise correlation as measured on its sky. Errors
of a galaxy are of a bootstrap over blocks of 8 × 8 pixels, since the noise of SDSS is correlated
too; those of the mean of the six are of their scatter.

The images of KiDS's point spread function turn negative at some 1 arcsec from the centre, which no
real one does: the sky was taken too high. So there are four ways, side by side: not matched;
matched with these images as they are; with Moffat profiles of the images' width and the default
exponent; and with an exponent, one for all, chosen for each galaxy by the other five.

The stamps are real (kids-sdss-pairs in ../shared/data, or --data); they have no WCS, so each gets
one about its centre. `kids_sdss_latents.py` compares the latents of the same stamps.

Run: python benchmarks/kids_sdss.py [--figure kids_sdss.png]
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
from psf_matching import processor
from scipy.ndimage import binary_dilation, binary_erosion

import astro_morphvae as amv
from astro_morphvae.processing import match_depth, match_psf, reproject_cutouts
from astro_morphvae.processing._psf_images import measure_fwhm, normalise

SCALES = {"KiDS": 0.2, "SDSS": 0.339}  # arcsec per pixel
EXPONENTS = (1.75, 2.0, 2.5, 3.5, 4.5)  # of Moffat profiles that stand for KiDS's
NOT_MATCHED, CHOSEN = "not matched", "Moffat, chosen exponent"
SHOWN = (NOT_MATCHED, "image as it is", "Moffat, exponent 3.5", CHOSEN)
BRIGHT = 10  # sigma of SDSS
BLOCK = 8
N_BOOTSTRAP = 1000


@dataclass
class Stamp:
    """One galaxy in one survey."""

    cutouts: amv.CutoutSet  # of one row and band
    psf: np.ndarray
    galaxy: np.ndarray  # pixels of its segment
    neighbour: np.ndarray  # pixels of any other segment


def provenance():
    return (
        f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"astro_morphvae {amv.__version__}"
    )


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


def read_stamps(data):
    """Stamps of each galaxy, by survey."""
    folder = data / "kids-sdss-pairs"
    names = sorted(path.name[:7] for path in (folder / "SDSS").glob("*fitim.fits"))
    if not names:
        raise FileNotFoundError(f"--data: there are no stamps in {str(folder)!r}")
    return {name: {survey: read_stamp(folder, survey, name) for survey in SCALES} for name in names}


# --------------------------------------------------------------- KiDS as SDSS would have seen it
def on_pixels_of(image, shape, target_wcs, scale):
    """Carry an array of the centre of the field, such as a point spread function."""
    cutouts = as_cutouts(image, tan_wcs(image.shape, scale))
    return reproject_cutouts(cutouts, target_wcs=target_wcs, size=shape)


def coarse_psf(kids):
    """Point spread function of KiDS gone the way of the image, so that it has the blur of that."""
    size = int(len(kids.psf) * SCALES["KiDS"] / SCALES["SDSS"]) // 2 * 2 - 1
    wcs = tan_wcs((size, size), SCALES["SDSS"])
    return on_pixels_of(kids.psf, (size, size), wcs, SCALES["KiDS"]).data[0, 0].astype(float)


def width(psf, survey):
    """FWHM of the image of a point spread function, on the pixels of a survey."""
    return measure_fwhm(normalise(psf)) * SCALES[survey] * u.arcsec


def degrade(kids, sdss, shift, way):
    """KiDS on the pixels of SDSS and, unless it is not to be matched, with its PSF.

    The shift moves the galaxy, in pixels of SDSS. The way is None (not matched), "image", or the
    exponent of a Moffat profile.
    """
    shape = sdss.cutouts.size
    wcs = tan_wcs(shape, SCALES["SDSS"], shift)
    coarse = reproject_cutouts(kids.cutouts, target_wcs=wcs, size=shape)
    if way is None:
        return coarse
    psf = coarse_psf(kids)
    if way == "image":
        return match_psf(coarse, psf=psf, target_psf=sdss.psf)
    return match_psf(coarse, psf=width(psf, "SDSS"), psf_beta=way, target_psf=sdss.psf)


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


def moffat(beta):
    return f"Moffat, exponent {beta}"


def compare(stamps):
    """Fits by way and galaxy, and for each galaxy the exponent that is best for all the others."""
    settings = {NOT_MATCHED: None, "image as it is": "image"} | {moffat(b): b for b in EXPONENTS}
    ways = {
        label: {name: fit(stamp["KiDS"], stamp["SDSS"], way) for name, stamp in stamps.items()}
        for label, way in settings.items()
    }
    of_beta = {
        beta: {name: found.chi2("galaxy")[0] for name, found in ways[moffat(beta)].items()}
        for beta in EXPONENTS
    }
    exponents = {
        name: min(EXPONENTS, key=lambda b: sum(x for n, x in of_beta[b].items() if n != name))
        for name in stamps
    }
    ways[CHOSEN] = {name: ways[moffat(beta)][name] for name, beta in exponents.items()}
    return ways, exponents


def mean_of_six(values):
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


def show_fits(ways):
    print(
        f"\n{'way':24s} {'galaxy':8s} {'mag':>6s} {'shift (pixels)':>14s} {'on the galaxy':>15s} "
        f"{'no factor':>9s} {'bright part':>15s} {'sky':>15s} {'KiDS share':>10s}"
    )
    for way, found_in in ways.items():
        for name, found in found_in.items():
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
        columns = ("galaxy", None), ("galaxy", 1.0), ("bright", None), ("sky", None)
        means = [mean_of_six([f.chi2(*column)[0] for f in found_in.values()]) for column in columns]
        print(
            f"{way:24s} mean of {len(found_in)}: galaxy {means[0]}, without the factor {means[1]}, "
            f"bright {means[2]}, sky {means[3]}\n"
        )


def draw(path, fits, stamps, seed):
    """KiDS, KiDS degraded, SDSS, and the difference over the noise."""
    import matplotlib.pyplot as plt

    half = 14.0  # arcsec
    grid = len(stamps), 4
    figure, axes = plt.subplots(*grid, figsize=(8.8, 2.2 * len(stamps)), layout="constrained")
    for row, (name, found) in zip(axes, fits.items(), strict=True):
        kids, sdss = (stamps[name][survey].cutouts for survey in SCALES)
        noisy = match_depth(found.degraded, like=sdss, seed=seed, unreachable="leave")
        noise = np.median(pixels(sdss)[1]) ** -0.5
        area = (SCALES["SDSS"] / SCALES["KiDS"]) ** 2
        panels = [
            (np.where(ivar > 0, np.arcsinh(image * factor / noise / 3), np.nan), survey, "gray", -1)
            for (image, ivar), factor, survey in (
                (pixels(kids), area, "KiDS"),
                (pixels(noisy), found.factor, "SDSS"),
                (pixels(sdss), 1.0, "SDSS"),
            )
        ]
        compared = found.regions["galaxy"] | found.regions["sky"]
        panels.append((np.where(compared, found.pulls(), np.nan), "SDSS", "RdBu_r", -5))
        for ax, (image, survey, colours, least) in zip(row, panels, strict=True):
            y, x = (n * SCALES[survey] / 2 for n in image.shape)
            look = {"cmap": colours, "vmin": least, "vmax": 5, "interpolation": "nearest"}
            shown = ax.imshow(image, origin="lower", extent=(-x, x, -y, y), **look)
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
    parser.add_argument("--noise-seed", type=int, default=5)
    o = parser.parse_args()
    start = time.perf_counter()
    stamps = read_stamps(o.data)
    print(f"{len(stamps)} real galaxies of kids-sdss-pairs, r; {provenance()}")
    for survey in SCALES:
        values = [
            float(stamp[survey].cutouts.catalog["noise_correlation"][0, 0])
            for stamp in stamps.values()
        ]
        print(f"noise correlation of {survey}, on its sky: {np.round(values, 1)}")
    ways, exponents = compare(stamps)
    show_fits({way: ways[way] for way in SHOWN})
    for beta in EXPONENTS:
        values = [found.chi2("galaxy")[0] for found in ways[moffat(beta)].values()]
        print(f"exponent {beta}: {mean_of_six(values)}")
    print(f"exponent chosen by the other five: {exponents}")
    print(f"{time.perf_counter() - start:.0f} s")
    if o.figure is not None:
        draw(o.figure, ways[CHOSEN], stamps, o.noise_seed)


if __name__ == "__main__":
    main()
