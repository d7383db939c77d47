"""Does a galaxy have the same flux in two surveys, after fetching, alignment and PSF matching?

Simulated galaxies, drawn on pixels of 0.087 arcsec, are seen by two surveys: DECaLS, in pixels of
0.262 arcsec, and BASS+MzLS, in pixels of 0.437 arcsec. Each has its own seeing, depth and noise,
and its own positions, up to 0.62 arcsec apart and in another order. A local server in a thread
shows them as the Legacy Surveys do theirs. `pair_surveys` matches the two catalogues, fetches, puts
both surveys on one grid (that of the first, or 0.35 arcsec for both) and brings them to one
resolution, given the exponents of the Moffat profiles of the two surveys.

The flux of each galaxy in circles is then compared. The difference over its error, which follows
from inverse variance and noise correlation alone, should have mean 0 within its standard error, and
width 1. As bright as they are simulated, galaxies have so much signal that the last tenth of a per
cent of the point spread function counts. What alignment and matching leave of a difference, in per
cent, is therefore shown apart, without noise.

Run: python benchmarks/survey_pairs.py [--galaxies 1000] [--size 96] [--dimming 40] [--seed 1]
"""

import argparse
import os
import platform
import resource
import tempfile
import time

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable

import astro_morphvae
from astro_morphvae.pairs import pair_surveys
from astro_morphvae.surveys import LegacySurvey
from astro_morphvae.tests.paired_sky import (
    MOFFAT_BETAS,
    compare_fluxes,
    simulate_paired_sky,
    summarise_pulls,
)
from astro_morphvae.tests.survey_server import CutoutSource, SurveyServer

LAYERS = ("ls-dr9-south", "ls-dr9-north")
RADII = (3.0, 5.0) * u.arcsec
GRIDS = {"grid of the first survey": {}, "0.35 arcsec for both": {"pixel_scale": 0.35 * u.arcsec}}
# What is known of the point spread functions, and how close they have to come.
MATCHING = {
    "first_psf_beta": MOFFAT_BETAS[0],
    "second_psf_beta": MOFFAT_BETAS[1],
    "tolerance": 0.002,
}


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


def catalogues(first, second, seed):
    """Positions that each survey has of the galaxies, those of the second in another order."""
    rng = np.random.default_rng(seed)
    n = len(first)
    sky = SkyCoord(first.catalog["ra"], first.catalog["dec"])
    # Whole pixels, because the server cuts out whole ones.
    east, north = rng.integers(-1, 2, (2, n)) * second.pixel_scale
    theirs = SkyCoord(sky.ra + east / np.cos(sky.dec), sky.dec + north)
    ours = QTable({"id": first.catalog["id"], "ra": sky.ra, "dec": sky.dec})
    return ours, theirs[rng.permutation(n)]


def run_pairs(surveys, coords, matching, grid):
    """Server, fetch, align, match: two sets, the table of pairs, and seconds."""
    layers = dict(zip(LAYERS, map(CutoutSource, surveys), strict=True))
    with tempfile.TemporaryDirectory() as cache, SurveyServer(layers=layers) as server:
        start = time.perf_counter()
        sources = [
            (
                LegacySurvey,
                {
                    "layer": layer,
                    "pixel_scale": cutouts.pixel_scale,
                    "size": cutouts.size,
                    "server": server.url,
                    "cache": cache,
                    "progress": False,
                },
            )
            for layer, cutouts in zip(LAYERS, surveys, strict=True)
        ]
        result = pair_surveys(coords, *sources, match_psf=matching, **grid)
        return *result, time.perf_counter() - start


def show_pulls(first, second, table):
    """Print the pulls; return the mean farthest from 0, in standard errors, and the widths."""
    ok = table["status"] == "ok"
    farthest, widths = 0.0, []
    for radius in RADII:
        pulls, _, signal = compare_fluxes(first, second, table, radius)
        for band, letter in enumerate(first.bands):
            n, mean, mean_error, width, width_error = summarise_pulls(pulls[ok, band])
            farthest = max(farthest, abs(mean / mean_error))
            widths.append(width)
            print(
                f"  {letter} within {radius:.0f}: mean pull {mean:+.3f} ± {mean_error:.3f}, width "
                f"{width:.3f} ± {width_error:.3f}; n = {n}, median signal to noise "
                f"{np.nanmedian(signal[ok, band]):.0f}"
            )
    return farthest, widths


def show_differences(first, second, table, label):
    """Print what is left of a difference where there is no noise."""
    for radius in RADII:
        _, relative, _ = compare_fluxes(first, second, table, radius)
        texts = [
            f"{letter} {100 * np.nanmedian(relative[:, band]):+.3f} ({100 * spread:.3f})"
            for band, letter, spread in zip(
                range(3), first.bands, np.nanstd(relative, axis=0), strict=True
            )
        ]
        print(f"  {label}, within {radius:.0f}: {', '.join(texts)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--galaxies", type=int, default=1000)
    parser.add_argument("--size", type=int, default=96, help="pixels of the first survey")
    parser.add_argument("--dimming", type=float, default=40.0, help="how much fainter they are")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    surveys = simulate_paired_sky(
        args.galaxies, size=args.size, seed=args.seed, dimming=args.dimming
    )
    coords = catalogues(*surveys, args.seed)
    scales = " and ".join(
        f"{cutouts.size[0]} pixels of {cutouts.pixel_scale:.3f}" for cutouts in surveys
    )
    print(
        f"{args.galaxies} simulated galaxies, {args.dimming:g} times fainter than "
        f"datasets.make_survey_pair(seed={args.seed}) has them; {scales}; {processor()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, astro_morphvae "
        f"{astro_morphvae.__version__}"
    )
    means, widths = [], []
    for name, grid in GRIDS.items():
        first, second, table, seconds = run_pairs(surveys, coords, MATCHING, grid)
        print(
            f"\n{name}: {np.sum(table['status'] == 'ok')} of {len(table)} pairs ok, separation up "
            f"to {table['separation'].max():.2f}, {len(table) / seconds:.1f} pairs/s"
        )
        farthest, found = show_pulls(first, second, table)
        means.append(farthest)
        widths += found
    print(
        f"\nmean pull farthest from 0: {max(means):.1f} standard errors, of {len(widths)}; widths "
        f"from {min(widths):.3f} to {max(widths):.3f}"
    )

    n = min(args.galaxies, 100)
    surveys = simulate_paired_sky(n, size=args.size, seed=args.seed, noise=False)
    print(f"\nwithout noise, {n} galaxies: median difference of flux in per cent (its spread)")
    for label, matching in (("as above", MATCHING), ("defaults of match_psf", True)):
        result = run_pairs(surveys, catalogues(*surveys, args.seed), matching, {})
        show_differences(*result[:3], label)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\npeak memory {memory:.2f} GB")


if __name__ == "__main__":
    main()
