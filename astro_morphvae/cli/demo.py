"""``morphvae demo``: the main job on simulated galaxies, as `astro_morphvae.demo.run_demo`."""

from pathlib import Path

from ._common import say, selected

__all__ = ["EXAMPLE", "SUMMARY", "USES_NETWORK", "add_arguments", "run"]

USES_NETWORK = True
SUMMARY = "simulate, fit, encode, classify and draw: tables and figures in a folder"
EXAMPLE = "  morphvae demo --output morphvae-demo"


def add_arguments(parser):
    """Add the arguments of the command."""
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        default=Path("morphvae-demo"),
        help="folder for tables and figures, made if need be (default: %(default)s)",
    )
    parser.add_argument(
        "--n", type=int, default=3000, help="number of galaxies (default: %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=64,
        metavar="PIXELS",
        help="pixels on a side (default: %(default)s)",
    )
    parser.add_argument("--epochs", type=int, default=16, help="epochs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: %(default)s)")


def run(args):
    """Run the demonstration."""
    from ..demo import run_demo

    run_demo(args.output, **selected(args, "n", "size", "epochs", "seed"), report=say)
