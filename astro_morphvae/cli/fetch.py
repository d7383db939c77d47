"""``morphvae fetch``: cutouts of a table of positions, as `LegacySurvey.get_cutouts`."""

import argparse
from collections import Counter
from pathlib import Path

from ._common import add_overwrite_option, check_output, read_table, say, selected

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY = "fetch cutouts of the Legacy Surveys; run again, it fetches what is missing"
EXAMPLE = "  morphvae fetch galaxies.csv --layer ls-dr9-south --size 128 --output cutouts.fits"


def add_arguments(parser):
    """Add the arguments of the command."""
    parser.add_argument(
        "positions",
        type=Path,
        metavar="TABLE",
        help="table with columns ra and dec in degrees, and id if there is one (.ecsv, .fits,"
        " .parquet, .csv); its other columns go into the catalog of the cutouts",
    )
    parser.add_argument(
        "--layer",
        required=True,
        help="ls-dr9-south, ls-dr9-north, ls-dr10-south, each also with -model or -resid, or"
        " ls-dr9 for the half of DR9 that each position belongs to",
    )
    parser.add_argument(
        "--output", "-o", type=Path, required=True, help="CutoutSet file to write (.fits)"
    )
    parser.add_argument("--bands", default="grz", help="bands (default: %(default)s)")
    parser.add_argument(
        "--size",
        type=int,
        default=256,
        metavar="PIXELS",
        help="pixels on a side (default: %(default)s)",
    )
    parser.add_argument(
        "--pixel-scale", type=float, metavar="ARCSEC", help="size of a pixel (default: 0.262)"
    )
    parser.add_argument(
        "--uncertainty",
        action=argparse.BooleanOptionalAction,
        help="fetch the inverse variance (default: where the service has it)",
    )
    group = parser.add_argument_group("download")
    group.add_argument("--server", metavar="URL", help="fetch from this server")
    group.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="keep what comes in this folder (default: in astropy's cache directory)",
    )
    group.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show a progress bar, on a terminal",
    )
    add_overwrite_option(parser)


def run(args):
    """Fetch and write."""
    import astropy.units as u

    check_output(args.output, args.overwrite, suffixes=(".fits",))
    table = read_table(args.positions)
    coords = _coordinates(table, args.positions)
    others = [name for name in table.colnames if name.lower() not in ("ra", "dec", "status")]
    from ..surveys import LegacySurvey

    keywords = selected(args, "layer", "bands", "size", "uncertainty", "server", "progress")
    if "," in args.bands:
        keywords["bands"] = tuple(band.strip() for band in args.bands.split(","))
    if args.pixel_scale is not None:
        keywords["pixel_scale"] = args.pixel_scale * u.arcsec
    try:
        cutouts = LegacySurvey.get_cutouts(
            coords,
            catalog=table[others] if others else None,
            output=args.output,
            overwrite=args.overwrite,
            cache=True if args.cache is None else args.cache,
            **keywords,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what came is kept; the same command goes on from there") from None
    say(f"{args.output}: {cutouts}")
    counts = Counter(_short(status) for status in cutouts.catalog["status"])
    for status, count in counts.most_common():
        say(f"  {count} {status}")
    if "ok" not in counts:
        raise RuntimeError(
            f"none of the {len(cutouts)} cutouts could be had; "
            f"the first: {cutouts.catalog['status'][0]}"
        )


def _short(status):
    """Leave out the details of a status, but for which bands are missing."""
    word = str(status).partition(": ")[0]
    return str(status) if word == "incomplete-bands" else word


def _coordinates(table, path):
    import numpy as np
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    names = {name.lower(): name for name in table.colnames}
    angles = []
    for name in ("ra", "dec"):
        if name not in names:
            raise ValueError(f"{path}: no column {name!r} among {', '.join(table.colnames)}")
        column = table[names[name]]
        if column.dtype.kind not in "fiu":
            raise ValueError(f"{path}: column {names[name]!r} holds no numbers; degrees are needed")
        # An empty place is no position; the row is kept.
        values = np.array(np.ma.getdata(getattr(column, "unmasked", column)), dtype=float)
        values[np.broadcast_to(getattr(column, "mask", False), values.shape)] = np.nan
        angles.append(values * (getattr(column, "unit", None) or u.deg))
    outside = np.abs(angles[1]) > 90 * u.deg
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(f"{path}: row {row} has the declination {angles[1][row]:g}")
    return SkyCoord(*angles)
