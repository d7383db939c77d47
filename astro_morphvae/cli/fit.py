"""``morphvae fit``: cutouts to a fitted model, as `VAEFitter`."""

from pathlib import Path

from ._common import (
    add_cutout_options,
    add_device_options,
    add_overwrite_option,
    check_output,
    or_none,
    read_cutouts,
    say,
    selected,
)

__all__ = ["EXAMPLE", "SUMMARY", "USES_NETWORK", "add_arguments", "run"]

USES_NETWORK = True
SUMMARY = "fit a variational auto-encoder to cutouts"
EXAMPLE = """\
  morphvae fit galaxies.fits --output model.keras --epochs 50 --seed 1

Interrupted (Ctrl-C, or killed), it goes on from the last epoch when the same command is given
again: the state of the fit is kept in the checkpoint until the fit is done."""


def add_arguments(parser):
    """Add the arguments of the command."""
    add_cutout_options(parser)
    parser.add_argument(
        "--output", "-o", type=Path, required=True, help="model file to write (.keras)"
    )
    parser.add_argument(
        "--validation", type=Path, metavar="FILE", help="CutoutSet file to validate on"
    )
    parser.add_argument("--model", type=Path, help="start from this model, not from a new one")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="where the state of the fit is kept (default: the output's name + .checkpoint)",
    )
    add_overwrite_option(parser)

    network = parser.add_argument_group("network (VAE)")
    network.add_argument(
        "--latent-dim", type=int, default=40, metavar="N", help="latents (default: %(default)s)"
    )
    network.add_argument("--architecture", default="default", help="default, residual or xu2023")
    network.add_argument(
        "--beta",
        type=float,
        default=1.0,
        help="weight of the divergence from the prior (default: %(default)s)",
    )
    add_fit_options(parser)
    add_device_options(parser, batch_size=128)


def add_fit_options(parser):
    """Add the hyper-parameters of `VAEFitter` that are not about the device."""
    fit = parser.add_argument_group("fit (VAEFitter)")
    fit.add_argument("--epochs", type=int, default=50, help="epochs (default: %(default)s)")
    fit.add_argument(
        "--learning-rate", type=float, default=1e-3, help="learning rate (default: %(default)s)"
    )
    fit.add_argument(
        "--seed", type=int, default=0, help="seed of weights and batches (default: %(default)s)"
    )
    fit.add_argument(
        "--validation-fraction",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the cutouts kept aside to validate on (default: %(default)s)",
    )
    fit.add_argument(
        "--patience",
        type=int,
        metavar="EPOCHS",
        help="stop when the validation loss has not improved for so long (default: never)",
    )
    fit.add_argument(
        "--schedule",
        default="constant",
        help="learning rate in time: constant, cosine or warm-up (default: %(default)s)",
    )
    fit.add_argument(
        "--clip-norm",
        type=or_none(float),
        default=1.0,
        metavar="NORM",
        help="largest norm of the gradient, or none (default: %(default)s)",
    )
    fit.add_argument(
        "--beta-schedule",
        default="constant",
        help="factor on beta in time: constant, warm-up or cyclical (default: %(default)s)",
    )
    fit.add_argument(
        "--augment",
        type=or_none(str),
        choices=("d4", None),
        default="d4",
        metavar="{d4,none}",
        help="flip and turn the cutouts at random, or not (default: %(default)s)",
    )
    fit.add_argument(
        "--free-bits",
        type=float,
        default=0.0,
        metavar="NATS",
        help="divergence of each latent that costs nothing (default: %(default)s)",
    )


def run(args):
    """Fit and write."""
    check_output(args.output, args.overwrite, suffixes=(".keras",))
    cutouts = read_cutouts(args)
    from ..cutouts import CutoutSet
    from ..fitting import VAEFitter
    from ..model import LatentModel

    validation = None if args.validation is None else CutoutSet.read(args.validation)
    if args.model is None:
        model = LatentModel(new_network(args, cutouts))
    else:
        model = LatentModel.read(args.model)

    default = args.output.with_name(args.output.name + ".checkpoint")
    checkpoint = args.checkpoint or default
    keywords = selected(
        args,
        *("epochs", "batch_size", "learning_rate", "seed", "precision", "validation_fraction"),
        *("patience", "schedule", "clip_norm", "beta_schedule", "free_bits", "augment"),
        *("device", "progress"),
    )
    fitter = VAEFitter(**keywords, checkpoint=checkpoint)
    if checkpoint.exists():
        say(f"going on from {checkpoint}")
    try:
        model = fitter(model, cutouts, validation=validation)
    except KeyboardInterrupt:
        if checkpoint.exists():
            note = f"give the same command again to go on from {checkpoint}"
        else:
            note = "before the end of the first epoch, so there is nothing to go on from"
        raise KeyboardInterrupt(note) from None
    model.write(args.output, overwrite=args.overwrite)
    if args.checkpoint is None:
        checkpoint.unlink(missing_ok=True)
    history = model.fit_info["history"]
    say(f"{args.output}: {len(history['loss'])} epochs, loss {history['loss'][-1]:.5g}")


def new_network(args, cutouts):
    """Make the network that the options describe, for some cutouts."""
    from ..networks import VAE

    height, width = cutouts.size
    if height != width:
        raise ValueError(f"cutouts must be square, not {height} x {width} pixels; see --resize")
    keywords = selected(args, "latent_dim", "architecture", "beta", "seed")
    return VAE(**keywords, image_size=height, n_bands=cutouts.n_bands)
