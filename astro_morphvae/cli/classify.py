"""``morphvae classify``: latents to morphology labels, as `MorphologyFitter` and its classifier."""

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

SUMMARY = "label galaxies by their latents, with a classifier learned from votes or saved before"
EXAMPLE = """\
  morphvae classify latents.ecsv --votes galaxies.fits --save classifier.skops -o labels.ecsv
  morphvae classify other_latents.ecsv --classifier classifier.skops -o other_labels.ecsv"""


def add_arguments(parser):
    """Add the arguments of the command."""
    parser.add_argument("latents", type=Path, help="table of latents, from `morphvae encode`")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--votes",
        type=Path,
        help="learn from these vote fractions: a table, or a CutoutSet file whose catalog has them",
    )
    source.add_argument("--classifier", type=Path, help="use this saved classifier (.skops)")
    parser.add_argument(
        "--output", "-o", type=Path, required=True, help="table to write (.ecsv, .fits, .parquet)"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="also write the learned classifier (.skops)"
    )
    parser.add_argument(
        "--tree",
        default="gz-decals",
        help="decision tree of the votes, gz-decals or gz2 (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument(
        "--certain-above",
        type=float,
        default=0.5,
        metavar="P",
        help="probability above which a label counts as certain (default: %(default)s)",
    )
    add_overwrite_option(parser)


def run(args):
    """Learn or read the classifier, label and write."""
    check_output(args.output, args.overwrite, suffixes=RESULT_SUFFIXES)
    if args.save is not None:
        if args.classifier is not None:
            raise ValueError("--save is for a classifier learned here, from --votes")
        check_output(args.save, args.overwrite, suffixes=(".skops",))
    latents = read_table(args.latents)
    from ..morphology import MorphologyClassifier, MorphologyFitter

    if args.classifier is not None:
        classifier = MorphologyClassifier.read(args.classifier)
    else:
        classifier = MorphologyFitter(tree=args.tree, seed=args.seed)(
            latents, read_table(args.votes)
        )
    labels = classifier(latents, certain_above=args.certain_above)
    write_table(labels, args.output)
    if args.save is not None:
        classifier.write(args.save, overwrite=args.overwrite)
        say(f"{args.save}: {classifier}")
    say(f"{args.output}: {len(labels)} galaxies, questions {', '.join(classifier.questions)}")
