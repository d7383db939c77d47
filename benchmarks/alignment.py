"""Do reprojected cutouts keep fluxes, positions and noise, and how fast are they made?

1. Isolated sources on real CCD images are cut out and put on gnomonic grids of 0.262 arcsec, north
   up, at several offsets below a pixel. Aperture fluxes at the same place and radius on the sky,
   and positions against those that the WCS predicts, before and after. Beside the scatter stands
   that which the noise of the image explains, from noise drawn by its weight map.
2. Noise drawn by the weight maps of the same images goes through the same path. Pulls are values
   over the propagated error: per pixel, and in apertures with noise_correlation.
3. Cutouts a second, 256 × 256 × 3 with inverse variance, against a plain loop over
   reproject.reproject_interp with its defaults, which carries data only. The two take turns; time
   is that of the processor, so that other programs count little.

The images are the 90prime, Mosaic3 and DECam ones of ccd-bok-mosaic and ccd-decam in
../shared/data (--data), with their weight and mask images; the noise is simulated.

Run: python benchmarks/alignment.py [--part sources noise speed] [--data ../shared/data]
"""

import argparse
import os
import platform
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import InverseVariance, NDData
from astropy.stats import sigma_clipped_stats
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from astro_morphvae import CutoutSet, extract_cutouts
from astro_morphvae.processing import reproject_cutouts

GRID = 0.262  # arcsec
RADII = (1.5, 2.0, 3.0)  # arcsec
APART = 5.0  # arcsec to the next source
WAYS = [
    {"kernel": "bilinear"},
    {"kernel": "bicubic"},
    {"kernel": "lanczos3"},
    {"method": "adaptive"},
    {"method": "exact"},
]
FLUX_BAR, POSITION_BAR, PULL_BAR, SPEED_BAR = 0.005, 0.1, 0.05, 2.0


@dataclass
class Image:
    """One CCD image, sky subtracted, in its own counts."""

    camera: str
    name: str
    data: np.ndarray
    weight: np.ndarray
    bad: np.ndarray
    wcs: WCS

    def scale_at(self, x, y):
        """Arcsec per pixel, distortions included."""
        steps = np.array([(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)])
        ra, dec = self.wcs.all_pix2world(x + steps[:, 0], y + steps[:, 1], 0)
        ra = ra * np.cos(np.radians(dec.mean()))
        area = (ra[0] - ra[1]) * (dec[2] - dec[3]) - (ra[2] - ra[3]) * (dec[0] - dec[1])
        return np.sqrt(abs(area)) * 3600


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


def read_images(data):
    """Every CCD image that has weights, with its mask where there is one."""
    images = []
    for folder in ("ccd-bok-mosaic", "ccd-decam"):
        for path in sorted((data / folder).glob("**/images/**/*.fits")):
            kind = next((kind for kind in ("_ooi_", "_oki_") if kind in path.name), None)
            if kind is not None:
                weights = path.with_name(path.name.replace(kind, "_oow_"))
                masks = path.with_name(path.name.replace(kind, "_ood_"))
            elif path.name.startswith("deep2") and not path.name.endswith(".wht.fits"):
                weights, masks = path.with_name(f"{path.stem}.wht.fits"), None
            else:
                continue
            values = fits.getdata(path, 1).astype(float)
            weight = fits.getdata(weights, 1).astype(float)
            bad = weight <= 0
            if masks is not None:
                bad |= fits.getdata(masks, 1) != 0
            sky = sigma_clipped_stats(values, mask=bad)[1]
            wcs = WCS(fits.getheader(path, 1))
            camera = next(name for name in ("90prime", "mosaic", "decam") if name in path.parts)
            images.append(Image(camera, path.name, values - sky, weight, bad, wcs))
    return images


def find_sources(image):
    """Pixel positions of bright, isolated, unsaturated sources far from edges and bad pixels."""
    from photutils.detection import DAOStarFinder

    scale = image.scale_at(*(np.array(image.data.shape[::-1]) / 2))
    sigma = sigma_clipped_stats(image.data, mask=image.bad)[2]
    finder = DAOStarFinder(threshold=6 * sigma, fwhm=1.4 / scale)
    found = finder(np.where(image.bad, 0, image.data))
    if found is None:
        return []
    positions = np.stack([found["x_centroid"], found["y_centroid"]], axis=1)
    yy, xx = np.indices(image.data.shape)
    kept = []
    for row, (x, y) in enumerate(positions):
        distances = np.hypot(*(positions - (x, y)).T)
        distances[row] = np.inf
        edge = min(x, y, image.data.shape[1] - 1 - x, image.data.shape[0] - 1 - y)
        near = np.hypot(xx - x, yy - y) < max(RADII) / scale + 3
        flux = aperture_sum(image.data, x, y, 2 / scale)
        noise = np.sqrt(np.pi * (2 / scale) ** 2 / np.median(image.weight))
        if (
            distances.min() * scale > APART
            and edge > max(RADII) / scale + 3
            and not image.bad[near].any()
            and found["peak"][row] < 40_000
            and flux > 20 * noise
        ):
            kept.append((x, y))
    return kept


def aperture_sum(image, x, y, radius):
    from photutils.aperture import CircularAperture

    return float(CircularAperture((float(x), float(y)), radius).do_photometry(image)[0][0])


def centroid(image, x, y, sigma):
    """Centroid in a Gaussian window that follows it (as SExtractor's XWIN_IMAGE)."""
    yy, xx = np.indices(image.shape)
    for _ in range(50):
        dx, dy = xx - x, yy - y
        weight = image * np.exp(-(dx**2 + dy**2) / (2 * sigma**2)) * (np.hypot(dx, dy) < 4 * sigma)
        step = 2 * (weight * dx).sum() / weight.sum(), 2 * (weight * dy).sum() / weight.sum()
        x, y = x + step[0], y + step[1]
        if np.hypot(*step) < 1e-4:
            break
    return x, y


def measure_source(image, position, n_dither, n_noise, rng):
    """Changes of flux (way, dither, radius), of position, and noise of the first."""
    scale = image.scale_at(*position)
    sky = image.wcs.pixel_to_world(*position)
    size = int(2 * (max(RADII) + 4) / scale)
    nddata = NDData(
        image.data,
        unit=u.adu,
        wcs=image.wcs,
        mask=image.bad,
        uncertainty=InverseVariance(image.weight),
    )
    cut = extract_cutouts(nddata, sky, size)
    window = 1.4 / 2.3548
    before = np.nan_to_num(cut.data[0, 0].astype(float))
    x, y = centroid(before, *cut.wcs[0].world_to_pixel(sky), window / scale)
    sky = cut.wcs[0].pixel_to_world(x, y)
    fluxes = np.array([aperture_sum(before, x, y, radius / scale) for radius in RADII])
    draws = rng.normal(size=(1, n_noise, size, size)).astype(np.float32)
    with np.errstate(divide="ignore"):
        draws = np.where(cut.ivar > 0, draws / np.sqrt(cut.ivar), 0)
    bands = [str(band) for band in range(n_noise)]
    noise = CutoutSet(draws, unit=u.adu, bands=bands, wcs=[cut.wcs[0]])
    noise_before = [[aperture_sum(d, x, y, r / scale) for r in RADII] for d in draws[0]]
    targets = []
    n_out = int(2 * (max(RADII) + 3) / GRID)
    for _ in range(n_dither):
        target = WCS(naxis=2)
        target.wcs.ctype = "RA---TAN", "DEC--TAN"
        target.wcs.crval = sky.icrs.ra.deg, sky.icrs.dec.deg
        target.wcs.crpix = n_out / 2 + rng.uniform(0, 1, 2)
        target.wcs.cdelt = -GRID / 3600, GRID / 3600
        targets.append(target)
    flux_change = np.empty((len(WAYS), n_dither, len(RADII)))
    shift = np.empty((len(WAYS), n_dither, 2))
    noise_change = np.empty((len(WAYS), len(RADII)))
    for way, options in enumerate(WAYS):
        for dither, target in enumerate(targets):
            out = reproject_cutouts(cut, target_wcs=target, size=n_out, **options)
            after = np.nan_to_num(out.data[0, 0].astype(float))
            at = [float(value) for value in target.world_to_pixel(sky)]
            shift[way, dither] = np.subtract(centroid(after, *at, window / GRID), at)
            sums = [aperture_sum(after, *at, radius / GRID) for radius in RADII]
            flux_change[way, dither] = sums / fluxes - 1
        out = reproject_cutouts(noise, target_wcs=target, size=n_out, **options)
        sums = np.array(
            [[aperture_sum(d, *at, r / GRID) for r in RADII] for d in np.nan_to_num(out.data[0])]
        )
        noise_change[way] = np.std(sums - noise_before, axis=0) / fluxes
    return flux_change, shift, noise_change


def compare_sources(images, n_dither, seed):
    rng = np.random.default_rng(seed)
    results, cameras = [], []
    for image in images:
        for position in find_sources(image):
            results.append(measure_source(image, position, n_dither, 32, rng))
            cameras.append(image.camera)
    cameras = np.array(cameras)
    flux, shift, noise = (np.stack(parts) for parts in zip(*results, strict=True))
    print(f"Sources: {len(flux)} on {len(images)} images, {n_dither} offsets each, seed {seed}")
    print(
        "Change of aperture flux in %: median over sources of the mean over offsets, its standard\n"
        "error, (scatter over sources; expected from noise), 0 for one source. Position: largest\n"
        "and rms, pixels."
    )
    radii = "".join(f"{f'r = {radius} arcsec':>29}" for radius in RADII)
    print(f"{'':10}{'':9}{'n':>3}{radii}{'position':>16}")
    verdicts = {}
    for way, options in enumerate(WAYS):
        name = next(iter(options.values()))
        for camera in (*np.unique(cameras), "all"):
            rows = cameras == camera if camera != "all" else np.ones(len(cameras), dtype=bool)
            line = f"{name:10}{camera:9}{rows.sum():3}"
            for radius in range(len(RADII)):
                changes = 100 * flux[rows, way, :, radius].mean(axis=1)
                spread = changes.std(ddof=1) if len(changes) > 1 else 0.0
                error = 1.253 * spread / np.sqrt(len(changes))
                expected = 100 * np.sqrt((noise[rows, way, radius] ** 2).mean())
                line += f"{np.median(changes):+9.3f} ±{error:5.3f} ({spread:.2f};{expected:5.2f})"
                verdicts[name, camera, RADII[radius]] = abs(np.median(changes)) / 100
            distance = np.hypot(*np.moveaxis(shift[rows, way], -1, 0))
            print(line + f"{distance.max():9.3f}{np.sqrt((distance**2).mean()):7.3f}")
            verdicts[name, camera, "position"] = distance.max()
    flux = max(verdicts["bicubic", camera, 2.0] for camera in (*np.unique(cameras), "all"))
    position = verdicts["bicubic", "all", "position"]
    report("bicubic, r = 2 arcsec, worst camera", flux, FLUX_BAR, "of the flux")
    report("bicubic, largest offset", position, POSITION_BAR, "pixel")


def report(what, value, bar, unit):
    print(f"{what}: {value:.4f} {unit}, bar {bar}: {'met' if value < bar else 'NOT met'}")


def compare_noise(images, n_draw, seed):
    rng = np.random.default_rng(seed)
    print(f"\nPulls of noise drawn by the weight maps: {n_draw} draws, seed {seed}; width ± error")
    print(f"{'':10}{'':9}{'pixels':>16}{'r = 3 arcsec':>16}{'r = 5 arcsec':>16}{'factor':>9}")
    worst = 0.0
    for camera, size in (("90prime", 100), ("mosaic", 100), ("decam", 100)):
        chosen = max(
            (image for image in images if image.camera == camera),
            key=lambda image: (image.weight.std() > 0, (~image.bad).sum()),
        )
        ny, nx = chosen.data.shape
        weight = np.where(chosen.bad, 0, chosen.weight)
        draws = rng.normal(size=(1, n_draw, ny, nx))
        with np.errstate(divide="ignore"):
            draws = np.where(weight > 0, draws / np.sqrt(weight), 0)
        noise = CutoutSet(
            draws,
            unit=u.adu,
            bands=[str(band) for band in range(n_draw)],
            wcs=[chosen.wcs],
            mask=np.broadcast_to(chosen.bad, draws.shape),
            uncertainty=InverseVariance(np.broadcast_to(weight, draws.shape)),
        )
        size = min(size, int(0.8 * min(ny, nx) * chosen.scale_at(nx / 2, ny / 2) / GRID))
        yy, xx = np.indices((size, size)) - (size - 1) / 2
        for options in WAYS:
            out = reproject_cutouts(noise, pixel_scale=GRID * u.arcsec, size=size, **options)
            values, ivar = out.data[0].astype(float), out.ivar[0].astype(float)
            good = (ivar > 0).all(axis=0)
            factor = out.catalog["noise_correlation"][0, 0]
            widths = [(values * np.sqrt(ivar))[:, good].std()]
            counts = [n_draw * good.sum() / factor]
            for radius in (3, 5):
                inside = (np.hypot(xx, yy) < radius / GRID) & good
                sums = values[:, inside].sum(axis=1)
                variances = (1 / ivar[:, inside]).sum(axis=1) * factor
                widths.append((sums / np.sqrt(variances)).std())
                counts.append(n_draw)
            errors = 1 / np.sqrt(2 * np.array(counts))
            parts = "".join(f"{w:9.3f} ±{e:.3f}" for w, e in zip(widths, errors, strict=True))
            name = next(iter(options.values()))
            print(f"{name:10}{camera:9}{parts}{factor:9.3f}   {chosen.name}")
            if name == "bicubic":
                worst = max(worst, *(abs(width - 1) for width in widths))
    report("bicubic, largest deviation of a width from 1", worst, PULL_BAR, "")


def compare_speed(n, rounds, seed):
    from reproject import reproject_interp

    rng = np.random.default_rng(seed)
    data = rng.normal(size=(n, 3, 256, 256)).astype(np.float32)

    def frame(ra, angle):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
        wcs.wcs.crval = ra, 35.0
        wcs.wcs.crpix = 128.5, 128.5
        cos, sin = np.cos(angle), np.sin(angle)
        wcs.wcs.cd = np.array([[-cos, sin], [sin, cos]]) * GRID / 3600
        wcs.wcs.set()
        return wcs

    sources = [frame(180 + row / 100, 0.05) for row in range(n)]
    targets = [frame(180 + row / 100 + 1e-4, 0) for row in range(n)]
    ivar = InverseVariance(np.ones_like(data))
    cutouts = CutoutSet(data, unit=u.nmgy, bands="grz", wcs=sources, uncertainty=ivar)

    def plain():
        for row in range(n):
            reproject_interp((data[row], sources[row]), targets[row], shape_out=(256, 256))

    sides = {"reproject_interp, data only": plain}
    for kernel in ("bilinear", "bicubic", "lanczos3"):
        sides[f"ours, {kernel}"] = lambda kernel=kernel: reproject_cutouts(
            cutouts, target_wcs=targets, size=256, kernel=kernel
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    sides[f"ours, bicubic, n_jobs={cores}"] = lambda: reproject_cutouts(
        cutouts, target_wcs=targets, size=256, n_jobs=cores
    )
    cpu, wall = ({name: [] for name in sides} for _ in range(2))
    for name, run in [*sides.items()] * (rounds + 1):
        started, used = time.perf_counter(), time.process_time()
        run()
        cpu[name].append(n / (time.process_time() - used))
        wall[name].append(n / (time.perf_counter() - started))
    print(
        f"\n{n} cutouts of 256 × 256 × 3, {rounds} rounds after one to warm up; ours with variance"
    )
    print(f"{'':30}{'per core-second: median':>25}{'range':>14}{'ratio':>8}{'wall median':>13}")
    reference = np.median(cpu["reproject_interp, data only"][1:])
    for name in sides:
        values, speed = cpu[name][1:], np.median(cpu[name][1:])
        spread = f"{min(values):.1f}-{max(values):.1f}"
        ratio = speed / reference
        print(f"{name:30}{speed:25.1f}{spread:>14}{ratio:8.2f}{np.median(wall[name][1:]):13.1f}")
    ratio = np.median(cpu["ours, bicubic"][1:]) / reference
    for method in ("adaptive", "exact"):
        used = time.process_time()
        reproject_cutouts(cutouts[:2], target_wcs=targets[:2], size=256, method=method)
        speed = 2 / (time.process_time() - used)
        print(f"{f'ours, {method} (2 cutouts)':30}{speed:25.2f}{'':14}{speed / reference:8.3f}")
    verdict = "met" if ratio >= SPEED_BAR else "NOT met"
    print(f"bicubic with variance: {ratio:.2f} times as fast, bar {SPEED_BAR}: {verdict}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", default=["sources", "noise", "speed"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--dithers", type=int, default=4)
    parser.add_argument("--draws", type=int, default=1500)
    parser.add_argument("--cutouts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", AstropyWarning)
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    print(f"{processor()}, {os.cpu_count()} cores{load}; Python {platform.python_version()}")
    if {"sources", "noise"} & set(arguments.part):
        images = read_images(arguments.data)
        if not images:
            raise SystemExit(f"no CCD images in {arguments.data}; see --data")
    if "sources" in arguments.part:
        compare_sources(images, arguments.dithers, arguments.seed)
    if "noise" in arguments.part:
        compare_noise(images, arguments.draws, arguments.seed)
    if "speed" in arguments.part:
        compare_speed(arguments.cutouts, arguments.rounds, arguments.seed)


if __name__ == "__main__":
    main()
