"""``morphvae compare-surveys``: how latents of two surveys differ, as `analysis.domain_shift`."""

from pathlib import Path

from .._optional import import_optional
from .._writing import writing
from ._common import (
    RESULT_SUFFIXES,
    add_overwrite_option,
    check_output,
    read_table,
    say,
    selected,
    write_table,
)

__all__ = ["EXAMPLE", "SUMMARY", "add_arguments", "run"]

SUMMARY = "measure how far apart the latents of two surveys are, in a table and a figure"
EXAMPLE = """\
  morphvae compare-surveys decals.ecsv bass.ecsv --pairs id --output shift.ecsv
  morphvae compare-surveys decals.ecsv bass.ecsv --pairs id -o shift.ecsv --figure shift.png"""

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


def add_arguments(parser):
    """Add the arguments of the command."""
    parser.add_argument(
        "latents_a", type=Path, help="latents of the first survey, from `morphvae encode`"
    )
    parser.add_argument("latents_b", type=Path, help="latents of the second survey")
    parser.add_argument(
        "--output", "-o", type=Path, required=True, help="table to write (.ecsv, .fits, .parquet)"
    )
    parser.add_argument(
        "--pairs",
        choices=("id", "rows"),
        help="which rows are the same galaxy: those of one id, or those of row-aligned tables"
        " (default: none)",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="figure to write (.png, .pdf, .svg; default: beside the table, as .png)",
    )
    parser.add_argument(
        "--ranking",
        type=Path,
        metavar="FILE",
        help="also write the pairs, the most alike first (.ecsv, .fits, .parquet)",
    )
    parser.add_argument(
        "--names",
        nargs=2,
        metavar=("A", "B"),
        help="names of the surveys in the figure (default: those of the files)",
    )
    parser.add_argument(
        "--scaling",
        choices=("none", "standard", "whiten"),
        default="none",
        help="scale of the latents for all that rests on distances (default: %(default)s)",
    )
    parser.add_argument(
        "--kernel",
        choices=("median", "xu2023"),
        default="median",
        help="kernel of the maximum mean discrepancy (default: %(default)s)",
    )
    parser.add_argument(
        "--n-permutations",
        type=int,
        default=499,
        metavar="N",
        help="permutations, for p-values (default: %(default)s)",
    )
    parser.add_argument(
        "--n-bootstrap",
        type=int,
        default=200,
        metavar="N",
        help="bootstrap samples, for intervals (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    add_overwrite_option(parser)


def run(args):
    """Compare, show and write."""
    check_output(args.output, args.overwrite, suffixes=RESULT_SUFFIXES)
    figure = args.output.with_suffix(".png") if args.figure is None else args.figure
    check_output(figure, args.overwrite, suffixes=FIGURE_SUFFIXES)
    if args.ranking is not None:
        if args.pairs is None:
            raise ValueError("--ranking needs --pairs: which rows are the same galaxy")
        check_output(args.ranking, args.overwrite, suffixes=RESULT_SUFFIXES)
    import_optional("matplotlib", needed_for="morphvae compare-surveys")
    latents = read_table(args.latents_a), read_table(args.latents_b)

    from ..analysis import domain_shift, rank_pairs

    keywords = selected(args, "pairs", "scaling", "kernel", "n_permutations", "n_bootstrap", "seed")
    table = domain_shift(*latents, **keywords, n_jobs=args.threads or 1)
    say("\n".join(table.pformat(max_lines=-1, max_width=-1)))
    write_table(table, args.output)
    say(f"{args.output}: {len(table)} rows")
    _draw(latents, args, figure)
    say(f"{figure}: figure")
    if args.ranking is not None:
        ranking = rank_pairs(*latents, **selected(args, "pairs", "scaling", "seed"))
        write_table(ranking, args.ranking)
        say(f"{args.ranking}: {len(ranking)} pairs, the most alike first")


def _draw(latents, args, path):
    from ..plotting import plot_domain_shift

    names = args.names or [file.stem for file in (args.latents_a, args.latents_b)]
    axes = plot_domain_shift(*latents, names=names, pairs=args.pairs, seed=args.seed)
    figure = axes[0].figure
    with writing(path) as part:
        figure.savefig(part, dpi=150)
    import_optional("matplotlib.pyplot", needed_for="morphvae compare-surveys").close(figure)
