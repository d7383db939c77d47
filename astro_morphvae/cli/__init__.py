"""The command ``morphvae``: each subcommand is one file here, one call of the library.

Options are named after the keywords of that call (``--batch-size`` is ``batch_size``).
"""

import argparse
import os
import sys
import traceback
import warnings

from .. import __version__
from . import (
    adapt,
    classify,
    compare_surveys,
    demo,
    encode,
    evaluate,
    fetch,
    fit,
    info,
    pair,
    simulate,
)
from ._common import add_process_options, one_line

__all__ = ["COMMANDS", "command_name", "main", "make_parser"]

COMMANDS = (
    demo,
    simulate,
    fetch,
    pair,
    fit,
    adapt,
    encode,
    classify,
    evaluate,
    compare_surveys,
    info,
)

EXIT_OK, EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

_DESCRIPTION = """\
Galaxy cutouts in, a table of morphology out.

The usual order: fetch cutouts, fit a model to them, encode cutouts to latents with it, classify the
latents. With two surveys: fetch, pair, fit to one, adapt to the other, encode both, compare.
`morphvae demo` does the first on simulated galaxies."""

_EPILOG = """\
exit status: 0 done, 1 an error while running, 2 wrong usage, 130 interrupted.
`morphvae COMMAND --help` shows the options of a command and an example."""


def command_name(module):
    """Name of a command on the command line: ``compare-surveys`` for ``compare_surveys.py``."""
    return module.__name__.rpartition(".")[2].replace("_", "-")


def make_parser():
    """Make the parser of the command line.

    Returns
    -------
    `argparse.ArgumentParser`
        Its parsed arguments carry the function to call as ``run``.
    """
    parser = argparse.ArgumentParser(
        prog="morphvae",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"morphvae {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        command = commands.add_parser(
            command_name(module),
            help=module.SUMMARY,
            description=module.SUMMARY[0].upper() + module.SUMMARY[1:] + ".",
            epilog="example:\n" + module.EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        add_process_options(command)
        command.set_defaults(run=module.run, tune=getattr(module, "USES_NETWORK", False))
    return parser


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 done, 1 an error while running, 2 wrong usage, 130 interrupted.
    """
    try:
        args = make_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said what is wrong, or has printed the help
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE

    # With it comes astropy, whose log takes over the showing of warnings: let it do so first.
    from ..exceptions import MorphVAEWarning

    label = f"morphvae {args.command}"
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning(label)
        warnings.simplefilter("default", MorphVAEWarning)
        try:
            if args.tune:
                _tune(args)
            args.run(args)
            sys.stdout.flush()
        except KeyboardInterrupt as interrupt:
            note = one_line(interrupt)
            _complain(f"{label}: interrupted{'; ' + note if note else ''}")
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # The reader of our output has gone, as in `morphvae info | head -1`.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_ERROR
        except Exception as error:
            if args.debug:
                traceback.print_exc()
            else:
                _complain(f"{label}: error: {one_line(error) or type(error).__name__}")
            return EXIT_ERROR
    return EXIT_OK


def _tune(args):
    from .._runtime import tune_process

    tune_process(threads=args.threads)


def _show_warning(label):
    def show(message, category, filename, lineno, file=None, line=None):
        _complain(f"{label}: warning: {one_line(message)}")

    return show


def _complain(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
