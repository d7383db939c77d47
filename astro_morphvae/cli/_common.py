"""What the commands share: options, reading of inputs, safe writing of tables."""

import argparse
import json
import sys
from pathlib import Path

from .._writing import writing

__all__ = [
    "add_cutout_options",
    "add_device_options",
    "add_overwrite_option",
    "add_process_options",
    "check_output",
    "one_line",
    "or_none",
    "read_cutouts",
    "read_cutouts_in_batches",
    "read_table",
    "say",
    "selected",
    "write_table",
]

TABLE_FORMATS = {
    ".ecsv": "ascii.ecsv",
    ".fits": "fits",
    ".parquet": "parquet",
    ".csv": "ascii.csv",
}
_META_KEYWORD = "MORPHMET"
# Latents are vectors and results carry units and provenance: these formats hold them.
RESULT_SUFFIXES = (".ecsv", ".fits", ".parquet")


def add_process_options(parser):
    """Add the options that every command has."""
    group = parser.add_argument_group("process")
    group.add_argument(
        "--threads", type=int, metavar="N", help="threads to compute with (default: all cores)"
    )
    group.add_argument("--debug", action="store_true", help="show the whole traceback of an error")


def add_overwrite_option(parser):
    """Add ``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")


def add_device_options(parser, *, batch_size):
    """Add how a network is run: batch size, precision, device, progress."""
    group = parser.add_argument_group("computation")
    group.add_argument(
        "--batch-size",
        type=int,
        default=batch_size,
        metavar="N",
        help="cutouts computed at once (default: %(default)s)",
    )
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="precision of the computation (default: float32)",
    )
    group.add_argument("--device", help="torch device, such as cpu or cuda:0 (default: the best)")
    group.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show a progress bar",
    )


def add_cutout_options(parser):
    """Add the positional argument for cutouts, and how image files are to be understood."""
    parser.add_argument(
        "cutouts",
        nargs="+",
        type=Path,
        metavar="CUTOUTS",
        help="a CutoutSet file (from `morphvae simulate` or CutoutSet.write), or image files"
        " (FITS, PNG, JPEG), one galaxy each, or a folder of them",
    )
    group = parser.add_argument_group("image files (not for a CutoutSet file)")
    group.add_argument("--bands", help="names of the bands, such as grz or g,r,z")
    group.add_argument("--unit", help="unit of the pixels where the files do not say, as nmgy")
    group.add_argument(
        "--pixel-scale", type=float, metavar="ARCSEC", help="resample to this pixel scale"
    )
    group.add_argument("--resize", type=int, metavar="N", help="resample to N x N pixels")


def or_none(kind):
    """Make the type of an argument that may also be ``none``, which stands for None.

    Parameters
    ----------
    kind : callable
        Converts a text that is not ``none``.

    Returns
    -------
    callable
        To be given as ``type``.
    """

    def convert(text):
        return None if text.lower() == "none" else kind(text)

    convert.__name__ = kind.__name__  # argparse names it when it complains
    return convert


def selected(args, *names):
    """Return the named arguments as keywords."""
    return {name: getattr(args, name) for name in names}


def say(text=""):
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def one_line(error):
    """Return the message of an error on one line."""
    text = str(error)
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])  # str() of a KeyError is its repr
    return " ".join(text.split())


def check_output(path, overwrite, *, suffixes=None):
    """Refuse an output that cannot be written, before the work that it would hold is done.

    Parameters
    ----------
    path : path-like
        File to be written.
    overwrite : bool
        Whether it may exist.
    suffixes : sequence of str, optional
        Endings it may have.

    Raises
    ------
    OSError, ValueError
        If it exists, its folder does not, or its ending is none of ``suffixes``.
    """
    path = Path(path)
    if suffixes and path.suffix not in suffixes:
        raise ValueError(f"{path}: the name must end in {', '.join(suffixes)}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; give --overwrite to replace it")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.absolute().parent} does not exist")


def write_table(table, path):
    """Write a table in the format its name tells, its ``meta`` included.

    Parameters
    ----------
    table : `~astropy.table.Table`
        The table.
    path : path-like
        Where to.
    """
    path = Path(path)
    if path.suffix == ".fits":
        # Nested metadata has no place in FITS keywords: it travels as one long JSON value.
        table = table.copy(copy_data=False)
        table.meta = {_META_KEYWORD: json.dumps(dict(table.meta), default=str)}
    with writing(path) as part:
        table.write(part, format=TABLE_FORMATS[path.suffix], overwrite=True)


def read_table(path):
    """Read a table; of a CutoutSet file, its catalog.

    Parameters
    ----------
    path : path-like
        ECSV, FITS, Parquet or CSV table, or a CutoutSet file.

    Returns
    -------
    `~astropy.table.QTable`
        The table.
    """
    from astropy.table import QTable

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix not in TABLE_FORMATS:
        raise ValueError(f"{path}: a table's name must end in {', '.join(TABLE_FORMATS)}")
    if is_cutout_set_file(path):
        from ..cutouts import CutoutSet

        return CutoutSet.read(path).catalog
    table = QTable.read(path, format=TABLE_FORMATS[path.suffix])
    if _META_KEYWORD in table.meta:
        table.meta |= json.loads(table.meta.pop(_META_KEYWORD))
    return table


def read_cutouts(args):
    """Read the cutouts that the options of `add_cutout_options` describe.

    Parameters
    ----------
    args : `argparse.Namespace`
        Parsed arguments.

    Returns
    -------
    CutoutSet
        Memory-mapped if it comes from a CutoutSet file.
    """
    from ..cutouts import CutoutSet

    if is_cutout_set_file(args.cutouts[0]):
        return _read_cutout_set(args)
    return CutoutSet.from_files(_image_files(args), **_image_keywords(args))


def read_cutouts_in_batches(args, batch_size):
    """Read cutouts as `read_cutouts` does, but so that memory never holds many image files.

    Parameters
    ----------
    args : `argparse.Namespace`
        Parsed arguments.
    batch_size : int
        Number of image files in a batch.

    Yields
    ------
    CutoutSet
        The next rows; a CutoutSet file comes in one piece, memory-mapped.
    """
    from ..io import iter_file_batches

    if is_cutout_set_file(args.cutouts[0]):
        yield _read_cutout_set(args)
    else:
        files = _image_files(args)
        yield from iter_file_batches(files, batch_size, **_image_keywords(args))


def _read_cutout_set(args):
    from ..cutouts import CutoutSet

    path, *others = args.cutouts
    if others:
        raise ValueError(f"{path} is a CutoutSet file; give it alone, without {others[0]}")
    keywords = _image_keywords(args)
    if keywords:
        option = "--" + next(iter(keywords)).replace("_", "-")
        raise ValueError(f"{option} is for image files; {path} is a CutoutSet file")
    return CutoutSet.read(path)


def _image_files(args):
    for path in args.cutouts:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if path.is_dir() and len(args.cutouts) > 1:
            raise ValueError(f"{path} is a folder; give it alone, or give files")
    return args.cutouts[0] if len(args.cutouts) == 1 else args.cutouts


def _image_keywords(args):
    import astropy.units as u

    keywords = selected(args, "bands", "unit", "pixel_scale", "resize")
    keywords = {name: value for name, value in keywords.items() if value is not None}
    if "pixel_scale" in keywords:
        keywords["pixel_scale"] = keywords["pixel_scale"] * u.arcsec
    if "," in keywords.get("bands", ""):
        keywords["bands"] = tuple(band.strip() for band in keywords["bands"].split(","))
    return keywords


def is_cutout_set_file(path):
    """Tell whether a file was written by ``CutoutSet.write``.

    Parameters
    ----------
    path : path-like
        A file or folder.

    Returns
    -------
    bool
        True if it was.
    """
    from ..io._cutout_file import SIGNATURE

    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.read(2880)
    return header.startswith(b"SIMPLE  =") and SIGNATURE.encode().ljust(8) + b"=" in header
