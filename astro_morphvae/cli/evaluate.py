"""``morphvae evaluate``: how well labels agree with votes, as `morphology.evaluate`."""

from pathlib import Path

from ._common import (
    RESULT_SUFFIXES,
    add_overwrite_option,
    check_output,
    read_table,
    say,
    write_table,
)

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY = "compare a classifier's labels with votes: accuracy, calibration, their intervals"
EXAMPLE = """\
  morphvae evaluate classifier.skops latents.ecsv --votes galaxies.fits -o evaluation.ecsv"""


def add_arguments(parser):
    """Add the arguments of the command."""
    parser.add_argument("classifier", type=Path, help="saved classifier (.skops)")
    parser.add_argument("latents", type=Path, help="table of latents, from `morphvae encode`")
    parser.add_argument(
        "--votes",
        type=Path,
        required=True,
        help="vote fractions: a table, or a CutoutSet file whose catalog has them",
    )
    parser.add_argument("--output", "-o", type=Path, help="table to write (.ecsv, .fits, .parquet)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the bootstrap (default: %(default)s)"
    )
    add_overwrite_option(parser)


def run(args):
    """Evaluate, show and write."""
    if args.output is not None:
        check_output(args.output, args.overwrite, suffixes=RESULT_SUFFIXES)
    latents, votes = read_table(args.latents), read_table(args.votes)
    from ..morphology import MorphologyClassifier, evaluate

    classifier = MorphologyClassifier.read(args.classifier)
    table = evaluate(classifier, latents, votes, seed=args.seed)
    say("\n".join(table.pformat(max_lines=-1, max_width=-1)))
    if args.output is not None:
        write_table(table, args.output)
        say(f"{args.output}: {len(table)} rows")
