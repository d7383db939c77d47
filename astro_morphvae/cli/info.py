"""``morphvae info``: what a file holds, or what the package runs on."""

import platform
from importlib.metadata import version
from pathlib import Path

from ._common import TABLE_FORMATS, is_cutout_set_file, read_table, say

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY = "say what files hold, or, without a file, what the package runs on"
EXAMPLE = "  morphvae info galaxies.fits model.keras latents.ecsv classifier.skops"


def add_arguments(parser):
    """Add the arguments of the command."""
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="CutoutSet file, model (.keras), classifier (.skops) or table",
    )


def run(args):
    """Describe each file, or the installation."""
    for path in args.paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        _describe(path)
    if not args.paths:
        _describe_installation()


def _describe(path):
    if is_cutout_set_file(path):
        from ..cutouts import CutoutSet

        cutouts = CutoutSet.read(path)
        say(f"{path}: {cutouts}")
        say(f"  catalog: {', '.join(cutouts.catalog.colnames)}")
    elif path.suffix == ".keras":
        from ..model import LatentModel

        model = LatentModel.read(path)
        say(f"{path}: {model}")
        history = (model.fit_info or {}).get("history", {})
        if history.get("loss"):
            say(f"  fitted for {len(history['loss'])} epochs, loss {history['loss'][-1]:.5g}")
    elif path.suffix == ".skops":
        from ..morphology import MorphologyClassifier

        classifier = MorphologyClassifier.read(path)
        say(f"{path}: {classifier}")
        say("\n".join("  " + line for line in classifier.summary.pformat(max_width=-1)))
    elif path.suffix in TABLE_FORMATS:
        table = read_table(path)
        say(f"{path}: table of {len(table)} rows")
        for column in table.itercols():
            shape = f" {column.shape[1:]}" if column.ndim > 1 else ""
            unit = f" [{column.unit}]" if column.unit is not None else ""
            text = f": {column.info.description}" if column.info.description else ""
            say(f"  {column.info.name}{shape}{unit}{text}")
    else:
        raise ValueError(f"{path} is no CutoutSet file, model, classifier or table")


def _describe_installation():
    import torch

    say(f"astro_morphvae {version('astro_morphvae')}, Python {platform.python_version()}")
    for name in ("numpy", "astropy", "keras", "torch", "scikit-learn", "skops"):
        say(f"  {name} {version(name)}")
    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    devices += [
        f"cuda:{index} ({torch.cuda.get_device_name(index)})"
        for index in range(torch.cuda.device_count())
    ]
    say(f"  devices: {', '.join(devices)}")
