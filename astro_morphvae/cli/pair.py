"""``morphvae pair``: the same galaxies in two surveys on the same pixels, as `pair_surveys`."""

import argparse
from pathlib import Path

from ._common import (
    RESULT_SUFFIXES,
    add_overwrite_option,
    check_output,
    is_cutout_set_file,
    read_table,
    say,
    write_table,
)

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY = "put the images that two surveys have of the same galaxies on the same pixels"
EXAMPLE = """\
  morphvae pair decals.fits bass.fits -o a.fits b.fits --table pairs.ecsv --match-psf
  morphvae pair ls-dr9-south ls-dr9-north --coords galaxies.csv -o a.fits b.fits"""


def add_arguments(parser):
    """Add the arguments of the command."""
    for name in ("first", "second"):
        parser.add_argument(
            name,
            help=f"{name} survey: a CutoutSet file, or a layer of the Legacy Surveys to fetch",
        )
    parser.add_argument(
        "--output",
        "-o",
        type=Path,
        nargs=2,
        required=True,
        metavar=("FIRST", "SECOND"),
        help="CutoutSet files to write (.fits); row i of both is the same galaxy",
    )
    parser.add_argument(
        "--table", type=Path, help="table of the pairs to write (.ecsv, .fits, .parquet)"
    )
    parser.add_argument(
        "--coords",
        type=Path,
        nargs="+",
        metavar="TABLE",
        help="positions: a table with columns ra and dec in degrees, and id if there is one; two"
        " tables where each survey has its own (default: those of the first CutoutSet file)",
    )
    parser.add_argument("--bands", help="bands, such as grz (default: those that both have)")
    group = parser.add_argument_group("pixels")
    group.add_argument(
        "--like",
        choices=("first", "second"),
        default="first",
        help="whose pixels both get (default: %(default)s)",
    )
    group.add_argument(
        "--pixel-scale", type=float, metavar="ARCSEC", help="pixels of this size for both instead"
    )
    group.add_argument(
        "--size", type=int, metavar="N", help="N x N of them (default: the field of view)"
    )
    group.add_argument(
        "--method",
        choices=("interp", "adaptive", "exact"),
        default="interp",
        help="how images are put on other pixels (default: %(default)s)",
    )
    group.add_argument(
        "--match-psf",
        action="store_true",
        help="bring both to one resolution, in each band that of the broader one",
    )
    group.add_argument(
        "--max-separation",
        type=float,
        default=1.0,
        metavar="ARCSEC",
        help="farthest that positions of one galaxy may be apart, at most 1 (default: %(default)s)",
    )
    group = parser.add_argument_group("layers of the Legacy Surveys")
    group.add_argument(
        "--fetch-size",
        type=int,
        default=256,
        metavar="N",
        help="fetch N x N pixels of 0.262 arcsec (default: %(default)s)",
    )
    group.add_argument("--server", metavar="URL", help="fetch from this server")
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show progress bars",
    )
    add_overwrite_option(parser)


def run(args):
    """Pair and write."""
    import astropy.units as u

    from ..pairs import pair_surveys

    for path in args.output:
        check_output(path, args.overwrite, suffixes=(".fits",))
    if args.output[0].absolute() == args.output[1].absolute():
        raise ValueError(f"--output: {args.output[0]} is named twice")
    if args.table is not None:
        check_output(args.table, args.overwrite, suffixes=RESULT_SUFFIXES)
    sources = [_source(args, name) for name in (args.first, args.second)]
    first, second, table = pair_surveys(
        _coords(args),
        *sources,
        bands=_bands(args),
        like=args.like,
        pixel_scale=None if args.pixel_scale is None else args.pixel_scale * u.arcsec,
        size=args.size,
        method=args.method,
        match_psf=args.match_psf,
        max_separation=args.max_separation * u.arcsec,
        n_jobs=args.threads or -1,
        progress=args.progress,
    )
    for cutouts, path in zip((first, second), args.output, strict=True):
        cutouts.write(path, overwrite=args.overwrite)
        say(f"{path}: {cutouts}")
    if args.table is not None:
        write_table(table, args.table)
    n_ok = int((table["status"] == "ok").sum())
    where = "" if args.table is None else f"{args.table}: "
    say(f"{where}{n_ok} of {len(table)} galaxies are in both surveys")
    for status, count in _counts(table["status"]):
        say(f"  {count} {status}")


def _source(args, name):
    path = Path(name)
    if is_cutout_set_file(path):
        from ..cutouts import CutoutSet

        return CutoutSet.read(path)
    if path.suffix or path.exists():
        raise ValueError(f"{name} is neither a CutoutSet file nor a layer of the Legacy Surveys")
    if args.coords is None:
        raise ValueError(f"--coords: positions are needed to fetch the layer {name}")
    from ..surveys import LegacySurvey

    keywords = {"layer": name, "size": args.fetch_size, "progress": args.progress}
    if args.bands is not None:
        keywords["bands"] = _bands(args)
    if args.server is not None:
        keywords["server"] = args.server
    return LegacySurvey, keywords


def _bands(args):
    if args.bands is None or "," not in args.bands:
        return args.bands
    return tuple(band.strip() for band in args.bands.split(","))


def _coords(args):
    if args.coords is None:
        return None
    if len(args.coords) > 2:
        raise ValueError(f"--coords: expected one table or two, got {len(args.coords)}")
    tables = [read_table(path) for path in args.coords]
    return tables[0] if len(tables) == 1 else tuple(tables)


def _counts(statuses):
    """Count the statuses that are not ok, without their details; the most frequent first."""
    counts = {}
    for status in statuses:
        if status != "ok":
            short = "; ".join(": ".join(part.split(": ")[:2]) for part in status.split("; "))
            counts[short] = counts.get(short, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])
