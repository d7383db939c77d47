"""What seeing, noise and depth do single exposures of DECam, 90prime and Mosaic3 have?

The presets DECAM_EXPOSURE and BOK_MOSAIC_EXPOSURE of astro_morphvae.datasets hold the medians that
this prints. Of every CCD image, in the folders ccd-decam and ccd-bok-mosaic of ../shared/data
(--data):

- pixel scale, by the WCS at the middle of the image;
- zero point, from the tables survey-ccds. Counts of DECam are of the whole exposure, so that its
  zero point for one second grows by 2.5 log10(exposure time); those of 90prime and Mosaic3 are per
  second;
- noise of a pixel in nanomaggies: by the weights of pixels of the sky; by second differences of
  three neighbours in the image, which its sources hardly touch; and as the tables have it (sig1),
  which checks the units;
- brightness of the sky, where the header has its level;
- full width at half maximum and exponent of the Moffat profile that fits the PSFEx model best, the
  median of 3 × 3 positions on the CCD; and the width by the area above half the maximum. The
  response of a pixel is part of the model;
- depth: AB magnitude at which a round exponential galaxy of half-light radius 0.45 arcsec is
  detected at 5 sigma, from the noise by weight and the profile, as Survey.galaxy_depth.

Exposures differ in depth, by up to 0.6 mag in one band. A preset has the medians, one exponent for
its bands, and the depth that gives the median noise in pixels of the median scale with these.

An image is used if it has weights, a zero point and a PSFEx model. Left out, by that: the ten
deep2* images of 90prime (field mzlsbass; of another pipeline, in seeing of 2 to 3 arcsec by the
tables), the two oki images of Mosaic3 (the same field, before the survey), and the DECam image of
testcase5: none has a PSFEx model. Some tables list CCDs without an image.

Run: python benchmarks/measure_exposures.py [--data ../shared/data]
"""

import argparse
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from alignment import read_images
from astropy.io import fits
from astropy.stats import mad_std, sigma_clip
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning
from scipy.ndimage import binary_dilation
from scipy.optimize import curve_fit

FOLDERS = ("ccd-decam", "ccd-bok-mosaic")
OVERSAMPLING = 3  # points a CCD pixel at which models are fitted
REACH = 2.5  # FWHM within which they are
PRESETS = {"DECAM_EXPOSURE": ["decam"], "BOK_MOSAIC_EXPOSURE": ["90prime", "mosaic"]}


def read_tables(data):
    """One dict a CCD of the tables survey-ccds, by the name of its image without its ending."""
    entries = {}
    for folder in FOLDERS:
        for path in sorted((data / folder).glob("**/survey-ccds*.fits*")):
            table = Table.read(path, hdu=1)
            for row in table:
                name = Path(str(row["image_filename"]).strip()).name.partition(".fits")[0]
                entries[name] = {column: row[column] for column in table.colnames}
    return entries


def find_model(data, image, entry, scale):
    """Read the PSFEx model of an image, or None: named by its exposure, or by its number."""
    from astro_morphvae.processing import PSFExModel

    ccd = str(entry["ccdname"]).strip()
    exposure = image.name.partition(".fits")[0].removesuffix(ccd).rstrip(".-")
    for folder in FOLDERS:
        paths = (data / folder).glob("*/calib/**/*psfex*/**/*.fits")
        for path in sorted(paths):
            if path.name == f"{exposure}-psfex.fits":
                return PSFExModel.read(path, ccd=ccd, pixel_scale=scale * u.arcsec)
            if path.name in (
                f"{exposure}-{ccd}-psfex.fits",
                f"decam-{int(entry['expnum']):08d}-{ccd}.fits",
            ):
                return PSFExModel.read(path, pixel_scale=scale * u.arcsec)
    return None


def pixel_noise(image):
    """Noise of a pixel in counts: by the weights of the sky, and by second differences."""
    sources = sigma_clip(np.ma.array(image.data, mask=image.bad), sigma=3).mask & ~image.bad
    sky = ~(image.bad | binary_dilation(sources, iterations=2))
    values = np.where(image.bad, np.nan, image.data)
    differences = np.concatenate(
        [(2 * v[1:-1] - v[:-2] - v[2:]).ravel() for v in (values, values.T)]
    )
    by_pixels = mad_std(differences[np.isfinite(differences)]) / np.sqrt(6)
    return np.median(image.weight[sky]) ** -0.5, by_pixels


def fit_moffat(model):
    """FWHM (arcsec) and exponent of the Moffat fit, and FWHM by area; medians over the CCD."""
    along = np.linspace(-0.45, 0.45, 3)
    x, y = (
        zero + scale * part.ravel()
        for zero, scale, part in zip(
            model.zero, model.scale, np.meshgrid(along, along), strict=True
        )
    )
    step = model.pixel_scale.to_value(u.arcsec) / OVERSAMPLING
    by_area = model.fwhm(x, y).to_value(u.arcsec)
    found = []
    images = model.evaluate(x, y, pixel_scale=step * u.arcsec)
    for image, width in zip(images, by_area, strict=True):
        rows, columns = (np.indices(image.shape) - (image.shape[0] - 1) / 2) * step
        near = np.hypot(rows, columns) < REACH * width
        rows, columns = rows[near], columns[near]

        def profile(_, peak, fwhm, beta, x0, y0, rows=rows, columns=columns):
            core2 = (0.5 * fwhm) ** 2 / (2 ** (1 / beta) - 1)
            return peak * (1 + ((columns - x0) ** 2 + (rows - y0) ** 2) / core2) ** -beta

        start = [image.max(), width, 3.5, 0, 0]
        found.append(curve_fit(profile, None, image[near], p0=start)[0][1:3])
    return (*np.median(found, axis=0), np.median(by_area))


def galaxy_depth(noise, scale, fwhm, beta):
    """Magnitude that `Survey.sky_noise` turns into this noise (nmgy) of pixels of this scale."""
    from astro_morphvae.datasets import Survey

    guess = Survey("", ("r",), [fwhm] * u.arcsec, [24] * u.mag, [21] * u.mag, moffat_beta=beta)
    return 24 - 2.5 * np.log10(noise / guess.sky_noise(scale * u.arcsec).value[0])


def sky_level(data, name):
    """Counts of the sky that the pipeline has left in the image, by its header; or NaN."""
    for folder in FOLDERS:
        for path in (data / folder).glob(f"**/images/**/{name}"):
            return fits.getheader(path, 1).get("AVSKY", np.nan)
    return np.nan


def measure(data):
    """One row a CCD that is used, and the names of the images that are not."""
    tables, rows, left_out = read_tables(data), [], []
    for image in read_images(data):
        entry = tables.get(image.name.partition(".fits")[0])
        ny, nx = image.data.shape
        scale = image.scale_at(nx / 2, ny / 2)
        model = None if entry is None else find_model(data, image, entry, scale)
        if model is None:
            left_out.append(image.name)
            continue
        zero_point = float(entry["ccdzpt"])
        if image.camera == "decam":
            zero_point += 2.5 * np.log10(float(entry["exptime"]))
        counts = 10 ** ((zero_point - 22.5) / 2.5)  # of one nanomaggy
        by_weight, by_pixels = (value / counts for value in pixel_noise(image))
        fwhm, beta, by_area = fit_moffat(model)
        level = sky_level(data, image.name) / counts
        rows.append(
            {
                "image": image.name,
                "camera": image.camera,
                "band": str(entry["filter"]).strip(),
                "exptime": float(entry["exptime"]),
                "pixel": scale,
                "zero point": zero_point,
                "noise": by_weight,
                "by pixels": by_pixels,
                "sig1": float(entry["sig1"]),
                "sky": 22.5 - 2.5 * np.log10(level / scale**2),
                "FWHM": fwhm,
                "beta": beta,
                "by area": by_area,
                "depth": galaxy_depth(by_weight, scale, fwhm, beta),
            }
        )
    return Table(rows) if rows else None, left_out


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", AstropyWarning)
    table, left_out = measure(arguments.data)
    if table is None:
        raise SystemExit(
            f"skipped: no CCD images with zero point and model in {arguments.data}; see --data"
        )
    table.sort(["camera", "band", "image"])
    names = table.colnames[3:]
    digits = dict.fromkeys(names, "{:.2f}") | {"exptime": "{:.0f}", "pixel": "{:.4f}"}
    digits |= dict.fromkeys(("noise", "by pixels", "sig1"), "{:.5f}")
    digits |= dict.fromkeys(("FWHM", "by area"), "{:.3f}")
    head = f"{'camera':8} {'band':4} " + "".join(f"{name:>11}" for name in names)
    print(
        "arcsec: pixel, FWHM, by area; nmgy: noise (by weight), by pixels, sig1; sky: mag/arcsec2\n"
        + head
    )
    for row in table:
        values = "".join(f"{digits[name].format(row[name]):>11}" for name in names)
        print(f"{row['camera']:8} {row['band']:4} {values}  {row['image']}")
    print(f"\nMedians, and the number of CCDs\n{head}")
    groups = table.group_by(["camera", "band"]).groups
    for part in groups:
        values = "".join(f"{digits[n].format(np.nanmedian(part[n])):>11}" for n in names)
        print(f"{part['camera'][0]:8} {part['band'][0]:4} {values}  {len(part)}")
    print("\nPresets: one exponent, and the depth of the median noise, scale and width")
    for preset, cameras in PRESETS.items():
        chosen = np.isin(table["camera"], cameras)
        beta = np.round(np.median(table["beta"][chosen]), 1) if chosen.any() else np.nan
        print(f"{preset}: moffat_beta {beta:.1f} of {chosen.sum()} CCDs")
        for part in groups:
            if part["camera"][0] in cameras:
                noise, scale, fwhm = (np.median(part[n]) for n in ("noise", "pixel", "FWHM"))
                depth = galaxy_depth(noise, scale, fwhm, beta)
                print(f"  {part['band'][0]}: psf_fwhm {fwhm:.2f}, galaxy_depth {depth:.2f}")
    print(f"\nLeft out, without PSFEx model or zero point: {', '.join(left_out) or 'none'}")


if __name__ == "__main__":
    main()
