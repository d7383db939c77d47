"""How well do matched point spread functions match, and does their noise keep what it promises?

1. Stars drawn from every PSFEx model of the data, at many positions of its CCD and off the centre
   of a pixel, go through match_psf. What comes out is compared with the target: width, and largest
   difference in units of the target's peak. Beside it, kernels as photutils makes them.
2. Monte-Carlo noise goes through match_psf, and through reproject_cutouts and then match_psf. Pulls
   are residuals over the propagated error: per pixel, and in apertures with noise_correlation.
3. Time of match_psf.

The models are those of ccd-decam and ccd-bok-mosaic in ../shared/data (--data); the noise is
simulated.

Run: python benchmarks/psf_matching.py [--positions 3] [--realisations 400] [--data ../shared/data]
"""

import argparse
import os
import platform
import time
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from scipy.optimize import OptimizeWarning, curve_fit

SCALES = {"decam": 0.262, "90prime": 0.454, "mosaic": 0.260}  # arcsec per CCD pixel
# Targets: widest point spread function of the CCD times this, and exponent.
TARGETS = [(1.05, 3.5), (1.1, 2.5), (1.3, 3.5)]
CENTRE = 50  # of cutouts of 101 pixels


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


def camera_of(path):
    return next(name for name in SCALES if f"/{name}/" in path.as_posix())


def read_models(data):
    """Every PSFEx model, by camera."""
    from astro_morphvae.processing import PSFExModel

    models = {name: [] for name in SCALES}
    for folder in ("ccd-decam", "ccd-bok-mosaic"):
        for path in sorted((data / folder).glob("**/*psfex*/**/*.fits")):
            camera = camera_of(path)
            scale = SCALES[camera] * u.arcsec
            models[camera].append(PSFExModel.read(path, pixel_scale=scale))
    return models


def shifted(image, dx, dy):
    """Move an image by a fraction of a pixel (cubic spline)."""
    from scipy.ndimage import shift

    return shift(image, (dy, dx), order=5, mode="constant")


def stars(model, n, offset):
    """One star a position of a CCD, as a CutoutSet; n × n positions."""
    from astro_morphvae import CutoutSet

    along = np.linspace(-0.45, 0.45, n)
    x, y = (
        zero + scale * part.ravel()
        for zero, scale, part in zip(
            model.zero, model.scale, np.meshgrid(along, along), strict=True
        )
    )
    images = model.evaluate(x, y)
    data = np.zeros((len(x), 1, 2 * CENTRE + 1, 2 * CENTRE + 1))
    half = images.shape[-1] // 2
    window = slice(CENTRE - half, CENTRE + half + 1)
    data[:, 0, window, window] = images
    if offset:
        data = np.array([[shifted(image[0], *offset)] for image in data])
    return CutoutSet(
        data, unit=u.nmgy, bands=["band"], pixel_scale=model.pixel_scale, catalog={"x": x, "y": y}
    )


def moffat(r2, fwhm, beta):
    core2 = (0.5 * fwhm) ** 2 / (2 ** (1 / beta) - 1)
    return (1 + r2 / core2) ** -beta


def target_image(fwhm, beta, offset=(0, 0)):
    """Moffat on 101 pixels, unit sum over the plane as match_psf has it."""
    y, x = np.mgrid[-CENTRE : CENTRE + 1, -CENTRE : CENTRE + 1].astype(float)
    r2 = (x - offset[0]) ** 2 + (y - offset[1]) ** 2
    whole = (np.abs(x) <= np.ceil(4.5 * fwhm)) & (np.abs(y) <= np.ceil(4.5 * fwhm))
    image = moffat(r2, fwhm, beta)
    return image / moffat(x**2 + y**2, fwhm, beta)[whole].sum()


def fitted_fwhm(image, guess, offset=(0, 0)):
    """Width of the Moffat that fits the core best: all its parameters are free."""
    y, x = np.mgrid[-CENTRE : CENTRE + 1, -CENTRE : CENTRE + 1].astype(float)
    near = np.hypot(x, y) < 1.5 * guess

    def model(_, peak, fwhm, beta, x0, y0):
        return peak * moffat((x[near] - x0) ** 2 + (y[near] - y0) ** 2, fwhm, beta)

    start = [image.max(), 0.95 * guess, 3.3, *offset]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # covariance, where the fit is exact
        found, _ = curve_fit(model, None, image[near], p0=start)
    return abs(found[1])


def judge(matched, target, fwhm, offset):
    """Residual, and relative errors of two measurements of the width."""
    from astro_morphvae.processing._psf_images import measure_fwhm

    image = matched.data[0].astype(float)
    good = np.ones(image.shape, bool) if matched.mask is None else ~matched.mask[0]
    residual = np.abs(image - target)[good].max() / target.max()
    area = measure_fwhm(image) / measure_fwhm(target) - 1
    return residual, area, fitted_fwhm(image, fwhm, offset) / fwhm - 1


def match_models(models, n, offset):
    from astro_morphvae.processing import match_psf

    print(f"\nStars of real PSFEx models, {n} × {n} positions a CCD, {offset or 'no'} offset")
    print("residual: largest difference in units of the peak; width: relative error of the FWHM,")
    print("by the area above half maximum | by a Moffat fit. Median and worst.")
    print(f"{'camera':8} {'target':>18} {'stars':>6} {'refused':>8} {'residual':>16} {'width':>31}")
    everything, missing = [], []
    for camera, members in models.items():
        for ratio, beta in TARGETS:
            found, refused = [], 0
            for model in members:
                cutouts = stars(model, n, offset)
                x, y = (np.asarray(cutouts.catalog[name]) for name in "xy")
                wanted = ratio * model.fwhm(x, y).max()
                matched = match_psf(
                    cutouts, target_fwhm=wanted, psf=model, beta=beta, unreachable="flag"
                )
                fwhm = float(wanted / model.pixel_scale)
                target = target_image(fwhm, beta, offset or (0, 0))
                bad = np.flatnonzero(~matched.good)
                refused += len(bad)
                missing += [
                    f"{camera} {members.index(model)} at ({x[row]:.0f}, {y[row]:.0f}), "
                    f"{ratio} × FWHM: {matched.catalog['status'][row]}"
                    for row in bad
                ]
                found += [
                    judge(matched[int(row)], target, fwhm, offset or (0, 0))
                    for row in np.flatnonzero(matched.good)
                ]
            found = np.abs(found)
            everything.append(found)
            middle, most = np.median(found, axis=0), found.max(axis=0)
            print(
                f"{camera:8} {ratio:5.2f} × FWHM, β={beta:3} {len(found):6d} {refused:8d} "
                f"{middle[0]:7.4f} {most[0]:8.4f} "
                f"{middle[1]:7.4f} {most[1]:7.4f} | {middle[2]:7.4f} {most[2]:7.4f}"
            )
    everything = np.concatenate(everything)
    middle, most = np.median(everything, axis=0), everything.max(axis=0)
    print(
        f"all {len(everything)}: residual {middle[0]:.4f} {most[0]:.4f}, "
        f"width {middle[1]:.4f} {most[1]:.4f} | {middle[2]:.4f} {most[2]:.4f}; refused:"
    )
    print("\n".join(missing) or "none")


def compare_kernels(models, n):
    """Kernels alone, ours and photutils', for the middle target."""
    from astro_morphvae.processing._kernels import (
        _Match,
        fit_kernel,
        photutils_matching,
        windowed_kernel,
    )
    from astro_morphvae.processing._psf_images import measure_fwhm, moffat_image

    pm = photutils_matching()
    ways = {
        "fitted (default)": lambda s, t: fit_kernel(s, t, 0.01),
        "ratio, no window": lambda s, t: windowed_kernel(s, t, lambda shape: np.ones(shape)),
        "ratio, CosineBell(0.5)": lambda s, t: windowed_kernel(s, t, pm.CosineBellWindow(0.5)),
        "ratio, SplitCosineBell": lambda s, t: windowed_kernel(
            s, t, pm.SplitCosineBellWindow(0.3, 0.5)
        ),
        "ratio, Tukey(0.5)": lambda s, t: windowed_kernel(s, t, pm.TukeyWindow(0.5)),
        "ratio, Hanning": lambda s, t: windowed_kernel(s, t, pm.HanningWindow()),
    }
    if hasattr(pm, "make_wiener_kernel"):

        def wiener(ridge):
            def make(source, target):
                size = max(source.shape[-1], target.shape[-1])
                padded = [np.pad(i, (size - i.shape[-1]) // 2) for i in (source, target)]
                kernel = pm.make_wiener_kernel(*padded, regularization=ridge, penalty="laplacian")
                return _Match(source, target, size // 2).judge(kernel)

            return make

        ways |= {f"Wiener, Laplacian {ridge:g}": wiener(ridge) for ridge in (1e-4, 1e-6)}
    ratio, beta = 1.1, 3.5
    print(f"\nKernels for {ratio} × the widest FWHM of the CCD, β={beta}: medians and worst")
    print("gain: noise amplification at the worst frequency; noise: sqrt(sum of squares)")
    print(f"{'kernel':26} {'residual':>16} {'gain':>14} {'noise':>7} {'|weights|':>10} {'size':>5}")
    pairs = []
    for members in models.values():
        for model in members:
            cutouts = stars(model, n, None)
            x, y = (np.asarray(cutouts.catalog[name]) for name in "xy")
            images = model.evaluate(x, y)
            wanted = ratio * max(measure_fwhm(image) for image in images)
            pairs += [(image, moffat_image(wanted, beta)) for image in images]
    for name, make in ways.items():
        kernels = [make(*pair) for pair in pairs]
        residual, gain = (
            np.array([getattr(k, what) for k in kernels]) for what in ("residual", "gain")
        )
        noise = [np.sqrt((k.array**2).sum()) for k in kernels]
        weights = [np.abs(k.array).sum() for k in kernels]
        size = [k.array.shape[-1] for k in kernels]
        print(
            f"{name:26} {np.median(residual):7.4f} {residual.max():8.4f} {np.median(gain):6.2f} "
            f"{gain.max():7.2f} {np.median(noise):7.3f} {np.median(weights):10.2f} "
            f"{np.median(size):5.0f}"
        )


def grid_wcs(scale, angle=0.0, shift=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 33.0]
    wcs.wcs.crpix = [64.5 + shift, 64.5 - 0.6 * shift]
    cos, sin = np.cos(angle), np.sin(angle)
    wcs.wcs.cd = np.array([[-cos, sin], [sin, cos]]) * scale / 3600
    return wcs


def noise_set(n, scale, seed):
    """Noise of known variance that differs from pixel to pixel, and a few bad pixels."""
    from astropy.nddata import InverseVariance

    from astro_morphvae import CutoutSet

    rng = np.random.default_rng(seed)
    size = 128
    x = np.linspace(0, 1, size)
    variance = 1e-4 * (1 + x + 3 * np.exp(-80 * ((x[:, None] - 0.5) ** 2 + (x - 0.4) ** 2)))
    variance = np.broadcast_to(variance, (n, 3, size, size))
    mask = rng.random((3, size, size)) < 5e-4
    data = rng.standard_normal(variance.shape) * np.sqrt(variance)
    return CutoutSet(
        data,
        unit=u.nmgy,
        bands="grz",
        uncertainty=InverseVariance(1 / variance),
        mask=np.broadcast_to(mask, data.shape),
        psf_fwhm=[1.29, 1.18, 1.11] * u.arcsec,
        wcs=[grid_wcs(scale)] * n,
    )


def pulls(cutouts):
    """Width of pulls per pixel, and in apertures of several radii; with standard errors."""
    from astro_morphvae.processing.depth import aperture_correlation

    data = cutouts.data.astype(float)
    good = np.ones(data.shape, bool) if cutouts.mask is None else ~cutouts.mask
    good &= cutouts.ivar > 0
    pixel = (data * np.sqrt(cutouts.ivar))[good]
    correlation = np.asarray(cutouts.catalog["noise_correlation"])
    # Pixels that are correlated count as so many fewer.
    error = np.sqrt(correlation.mean() / (2 * pixel.size))
    found = {"pixel": (pixel.std(), error)}
    ny, nx = data.shape[-2:]
    y, x = np.mgrid[:ny, :nx]
    for radius in (4, 8, 16):
        values = []
        for y0, x0 in [(i, j) for i in (-18, 18) for j in (-18, 18)]:
            aperture = np.hypot(y - ny // 2 - y0, x - nx // 2 - x0) < radius
            for band in range(data.shape[1]):
                # The mask is the same in all rows.
                use = aperture & good[0, band]
                if use.sum() < 0.5 * aperture.sum():
                    continue
                factor = aperture_correlation(correlation[0, band], use)
                variance = (1 / cutouts.ivar[:, band][:, use]).sum(axis=1) * factor
                values.append(data[:, band][:, use].sum(axis=1) / np.sqrt(variance))
        values = np.array(values)
        found[f"aperture of {radius}"] = (values.std(), 1 / np.sqrt(2 * values.size))
    return found


def pull_table(n, seed):
    from astro_morphvae.processing import match_psf, reproject_cutouts

    target = [1.75, 1.55, 1.35] * u.arcsec

    def matched(scale, grid=None, **keywords):
        cutouts = noise_set(n, scale, seed)
        if grid is not None:
            cutouts = reproject_cutouts(cutouts, target_wcs=grid, size=128, **keywords)
        return match_psf(cutouts, target_fwhm=target)

    cases = {
        "match_psf": lambda: matched(0.262),
        "reproject (bicubic), match_psf": lambda: matched(0.262, grid_wcs(0.262, 0.3, 0.37)),
        "reproject (bilinear), match_psf": lambda: matched(
            0.262, grid_wcs(0.262, 0.3, 0.37), kernel="bilinear"
        ),
        "reproject 0.454″ → 0.262″, match_psf": lambda: matched(0.454, grid_wcs(0.262, 0.3, 0.37)),
    }
    print(f"\nPulls of simulated noise, {n} cutouts of 128 × 128 × 3, seed {seed}: width ± error")
    for name, make in cases.items():
        cutouts = make()
        texts = [f"{what} {w:.3f} ± {e:.3f}" for what, (w, e) in pulls(cutouts).items()]
        factor = np.asarray(cutouts.catalog["noise_correlation"]).mean(axis=0)
        print(f"{name}: " + ", ".join(texts) + f"; noise_correlation {np.round(factor, 1)}")


def speed(models):
    from astro_morphvae.datasets import make_galaxies
    from astro_morphvae.processing import match_psf

    print("\nSpeed of match_psf, data and inverse variance, 256 × 256 × 3, one core")
    galaxies = make_galaxies(24, size=256, seed=1, threads=1)
    target = 1.7 * u.arcsec
    plain = galaxies[np.arange(24)]
    plain = type(plain)(
        plain.data,
        unit=plain.unit,
        bands=plain.bands,
        uncertainty=plain.uncertainty,
        pixel_scale=plain.pixel_scale,
        psf_fwhm=plain.psf_fwhm,
        catalog={"x": np.linspace(100, 1900, 24), "y": np.linspace(100, 3900, 24)},
    )
    model = models["decam"][0] if models["decam"] else None
    cases = {"one PSF for all": {}, "one PSF for all, masked pixels": {}}
    if model is not None:
        cases["PSFEx model, a kernel for every row and band"] = {
            "psf": model,
            "unreachable": "flag",
        }
    for name, keywords in cases.items():
        cutouts = galaxies if "masked" in name else plain
        match_psf(cutouts[:2], target_fwhm=target, **keywords)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            match_psf(cutouts, target_fwhm=target, **keywords)
            times.append(time.perf_counter() - start)
        print(f"{name}: {len(cutouts) / np.median(times):.0f} cutouts/s ({len(cutouts)} cutouts)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, default=3, help="positions along each CCD axis")
    parser.add_argument("--realisations", type=int, default=400)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", choices=["stars", "kernels", "pulls", "speed"])
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default)
    arguments = parser.parse_args()

    import photutils
    import scipy

    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    print(f"{processor()}, {os.cpu_count()} cores{load}")
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"photutils {photutils.__version__}"
    )
    models = read_models(arguments.data)
    print(
        "PSFEx models: "
        + ", ".join(f"{len(members)} of {camera}" for camera, members in models.items())
        + f" ({arguments.data})"
    )

    def wanted(part):
        return arguments.only in (None, part)

    if wanted("stars") and any(models.values()):
        match_models(models, arguments.positions, None)
        match_models(models, arguments.positions, (0.37, -0.21))
    if wanted("kernels") and any(models.values()):
        compare_kernels(models, 2)
    if wanted("pulls"):
        pull_table(arguments.realisations, arguments.seed)
    if wanted("speed"):
        speed(models)


if __name__ == "__main__":
    main()
