"""``morphvae encode``: cutouts to a table of latents, as `LatentModel.encode`."""

from pathlib import Path

from ._common import (
    RESULT_SUFFIXES,
    add_cutout_options,
    add_device_options,
    add_overwrite_option,
    check_output,
    read_cutouts_in_batches,
    say,
    selected,
    write_table,
)

__all__ = ["EXAMPLE", "SUMMARY", "USES_NETWORK", "add_arguments", "run"]

USES_NETWORK = True
SUMMARY = "encode cutouts to a table of latents"
EXAMPLE = "  morphvae encode model.keras galaxies.fits --output latents.ecsv --augment d4"

_N_FILES = 2048  # image files in memory at once


def add_arguments(parser):
    """Add the arguments of the command."""
    parser.add_argument("model", type=Path, help="model file (.keras), from `morphvae fit`")
    add_cutout_options(parser)
    parser.add_argument(
        "--output", "-o", type=Path, required=True, help="table to write (.ecsv, .fits, .parquet)"
    )
    parser.add_argument(
        "--augment",
        choices=("d4",),
        help="average the latents over the eight flips and right-angle turns",
    )
    parser.add_argument(
        "--survey",
        help="whose images these are, for a model adapted to several surveys (default: what the"
        " files say)",
    )
    add_overwrite_option(parser)
    add_device_options(parser, batch_size=64)


def run(args):
    """Encode and write."""
    check_output(args.output, args.overwrite, suffixes=RESULT_SUFFIXES)
    from astropy.table import vstack

    from ..model import LatentModel

    model = LatentModel.read(args.model)
    keywords = selected(args, "batch_size", "augment", "survey", "precision", "device", "progress")
    parts = [model.encode(part, **keywords) for part in read_cutouts_in_batches(args, _N_FILES)]
    latents = vstack(parts) if len(parts) > 1 else parts[0]
    write_table(latents, args.output)
    good = int((latents["status"] == "ok").sum())
    bad = f", {len(latents) - good} with another status" if good < len(latents) else ""
    say(f"{args.output}: {good} galaxies of {latents['z_mean'].shape[1]} latents{bad}")
