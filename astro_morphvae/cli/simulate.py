"""``morphvae simulate``: simulated galaxies of known morphology, as `datasets.make_galaxies`."""

from pathlib import Path

from ._common import add_overwrite_option, check_output, say, selected

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY = "simulate galaxies of known morphology as a survey sees them"
EXAMPLE = "  morphvae simulate galaxies.fits --n 1000 --survey DECaLS --size 128 --seed 1"


def add_arguments(parser):
    """Add the arguments of the command."""
    parser.add_argument("output", type=Path, help="CutoutSet file to write (.fits)")
    parser.add_argument(
        "--n", type=int, default=1000, help="number of galaxies (default: %(default)s)"
    )
    parser.add_argument(
        "--survey",
        default="DECaLS",
        help="survey whose PSF, pixel scale and noise they are seen with: DECaLS, BASS+MzLS, 'DECam"
        " exposure' or '90prime and Mosaic3 exposure' (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=128,
        metavar="PIXELS",
        help="pixels on a side (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    add_overwrite_option(parser)


def run(args):
    """Simulate and write."""
    from ..datasets import make_galaxies

    check_output(args.output, args.overwrite, suffixes=(".fits",))
    cutouts = make_galaxies(**selected(args, "n", "survey", "size", "seed", "threads"))
    cutouts.write(args.output, overwrite=args.overwrite)
    say(f"{args.output}: {cutouts}")
