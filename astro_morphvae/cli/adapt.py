"""``morphvae adapt``: a model to further surveys, as `DomainAdaptationFitter`."""

from pathlib import Path

from ._common import (
    add_device_options,
    add_overwrite_option,
    check_output,
    or_none,
    say,
    selected,
)

__all__ = ["EXAMPLE", "SUMMARY", "USES_NETWORK", "add_arguments", "run"]

USES_NETWORK = True
SUMMARY = "adapt a model to further surveys"
EXAMPLE = """\
  morphvae adapt model.keras decals.fits --target bass.fits --output adapted.keras --seed 1
  morphvae adapt model.keras decals.fits --target bass.fits --pairs id --method paired -o both.keras

Interrupted (Ctrl-C, or killed), it goes on from the last epoch when the same command is given
again. `morphvae encode adapted.keras bass.fits` knows from the file which survey it is of."""


def add_arguments(parser):
    """Add the arguments of the command."""
    parser.add_argument("model", type=Path, help="model fitted on the source (.keras)")
    parser.add_argument(
        "source", type=Path, help="CutoutSet file of the survey that the model was fitted on"
    )
    parser.add_argument(
        "--target",
        type=_named_file,
        action="append",
        required=True,
        metavar="[NAME=]FILE",
        help="CutoutSet file of a survey to adapt to; may be given several times; the name is that"
        " of the survey, where the file does not say or says otherwise",
    )
    parser.add_argument(
        "--pairs",
        choices=("rows", "id"),
        help="rows of the same number, or of the same id, are the same galaxy (default: not known)",
    )
    parser.add_argument(
        "--output", "-o", type=Path, required=True, help="model file to write (.keras)"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="where the state of the fit is kept (default: the output's name + .checkpoint)",
    )
    add_overwrite_option(parser)

    fit = parser.add_argument_group("adaptation (DomainAdaptationFitter)")
    fit.add_argument(
        "--method",
        default="mmd",
        help="mmd, coral, adversarial, paired or combined (default: %(default)s)",
    )
    fit.add_argument(
        "--encoder",
        default="conditioned",
        help="conditioned, frozen-source or shared (default: %(default)s)",
    )
    fit.add_argument(
        "--start",
        default="transport",
        help="where corrections start: transport or identity (default: %(default)s)",
    )
    fit.add_argument(
        "--weight",
        type=float,
        help="weight of the method's loss (default: the pixel values of a cutout)",
    )
    fit.add_argument(
        "--elbo-weight",
        type=float,
        default=1.0,
        help="weight of the evidence lower bound (default: %(default)s)",
    )
    fit.add_argument("--epochs", type=int, default=20, help="epochs (default: %(default)s)")
    fit.add_argument(
        "--learning-rate", type=float, default=3e-4, help="learning rate (default: %(default)s)"
    )
    fit.add_argument(
        "--decoder-learning-rate",
        type=or_none(float),
        default=1e-3,
        metavar="RATE",
        help="learning rate of the targets' decoders; none is that above (default: %(default)s)",
    )
    fit.add_argument(
        "--schedule",
        default="cosine",
        help="learning rate in time: constant, cosine or warm-up (default: %(default)s)",
    )
    fit.add_argument(
        "--validation-fraction",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the galaxies kept aside to watch the fit (default: %(default)s)",
    )
    fit.add_argument(
        "--augment",
        type=or_none(str),
        choices=("d4", None),
        default="d4",
        metavar="{d4,none}",
        help="flip and turn the cutouts at random, or not (default: %(default)s)",
    )
    fit.add_argument("--score", default="mmd", help="what is watched: mmd or auc (default: mmd)")
    fit.add_argument(
        "--patience",
        type=int,
        metavar="EPOCHS",
        help="stop when the score has not fallen for so long (default: never)",
    )
    fit.add_argument(
        "--clip-norm",
        type=or_none(float),
        default=1.0,
        metavar="NORM",
        help="largest norm of the gradient, or none (default: %(default)s)",
    )
    for name, what in (("variance", "latent variance"), ("reconstruction", "reconstruction")):
        fit.add_argument(
            f"--{name}-floor",
            type=float,
            default=0.5,
            metavar="SHARE",
            help=f"least share of the {what} to keep (default: %(default)s)",
        )
    fit.add_argument(
        "--on-collapse",
        choices=("warn", "raise"),
        default="warn",
        help="where a floor is broken: stop with a warning, or fail (default: %(default)s)",
    )
    fit.add_argument("--seed", type=int, default=0, help="seed (default: %(default)s)")
    add_device_options(parser, batch_size=128)


def _named_file(text):
    name, separator, path = text.rpartition("=")
    return (name if separator else None), Path(path)


def run(args):
    """Adapt and write."""
    check_output(args.output, args.overwrite, suffixes=(".keras",))
    from ..cutouts import CutoutSet
    from ..fitting import DomainAdaptationFitter
    from ..model import LatentModel

    model = LatentModel.read(args.model)
    source = CutoutSet.read(args.source)
    target = {}
    for name, path in args.target:
        cutouts = CutoutSet.read(path)
        name = name or cutouts.meta.get("survey", cutouts.meta.get("layer", path.stem))
        if str(name) in target:
            raise ValueError(f"--target: {name} is given twice; give NAME=FILE")
        target[str(name)] = cutouts
    checkpoint = args.checkpoint or args.output.with_name(args.output.name + ".checkpoint")
    keywords = selected(
        args,
        *("method", "encoder", "weight", "elbo_weight", "epochs", "batch_size", "learning_rate"),
        *("decoder_learning_rate", "start", "augment"),
        *("schedule", "validation_fraction", "score", "patience", "clip_norm", "variance_floor"),
        *("reconstruction_floor", "on_collapse", "seed", "precision", "device", "progress"),
    )
    fitter = DomainAdaptationFitter(**keywords, checkpoint=checkpoint)
    if checkpoint.exists():
        say(f"going on from {checkpoint}")
    try:
        model = fitter(model, source, target=target, pairs=args.pairs)
    except KeyboardInterrupt:
        if checkpoint.exists():
            note = f"give the same command again to go on from {checkpoint}"
        else:
            note = "before the end of the first epoch, so there is nothing to go on from"
        raise KeyboardInterrupt(note) from None
    model.write(args.output, overwrite=args.overwrite)
    if args.checkpoint is None:
        checkpoint.unlink(missing_ok=True)
    info = model.fit_info
    text = f"{args.output}: {info['epochs_run']} epochs, {info['stopped']}"
    if "auc" in info["after"]:
        text += f"; AUC of a classifier of the survey {info['before']['auc']:.3f} before, "
        text += f"{info['after']['auc']:.3f} after"
    say(text)
