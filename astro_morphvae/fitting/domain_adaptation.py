"""`DomainAdaptationFitter`: gives a galaxy the same latents, whichever survey saw it."""

import copy
import hashlib
import json
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import torch

from ..exceptions import FitDivergedError, MorphVAEWarning
from ..model import LatentModel
from ..networks.adaptation import MMD, AdaptedVAE, get_method
from ..networks.batches import autocast, on_device, resolve_device
from ._adaptation_data import describe_surveys
from ._adaptation_run import AdaptationRun, DivergedError
from .schedules import get_schedule

__all__ = ["AdaptationCollapseWarning", "DomainAdaptationFitter"]

_ENCODERS = ("conditioned", "frozen-source", "shared")
_STARTS = ("transport", "identity")
_SCORES = ("auc", "mmd")
_CONDITIONS = ("noise", "psf_fwhm")
# Settings that may differ between the start of a fit and its resumption.
_FREE_SETTINGS = ("checkpoint", "progress")


class AdaptationCollapseWarning(MorphVAEWarning):
    """An adaptation broke a floor, and was ended with the last weights that were good."""


class DomainAdaptationFitter:
    """Adapt a model to further surveys, so that a galaxy has the same latents in all of them.

    The model was fitted on the first survey, the source. By default its encoder and decoder stay as
    they are, so that nothing of the source changes, and each target survey gets a correction of
    what the encoder makes of its images, conditioned on the survey, and a decoder that draws what
    the survey sees. The adapted model knows from the cutouts' ``meta``, or by ``survey=``, whose
    images it is given.

    Parameters
    ----------
    method : str or method, optional
        ``"mmd"``, ``"coral"``, ``"adversarial"``, ``"paired"`` or ``"combined"``, or one of
        `~astro_morphvae.networks.adaptation` with options of yours.
    encoder : {"conditioned", "frozen-source", "shared"}, optional
        ``"conditioned"``: see above. ``"frozen-source"``: each target gets an encoder of its own,
        which starts as a copy of the source's and is trained. ``"shared"``: one encoder, trained on
        all surveys; the latents of the source then change too.
    weight : float, optional
        Weight of the method's loss, in nats an object; by default the number of pixel values of a
        cutout.
    elbo_weight : float, optional
        Weight of the negative evidence lower bound of the targets' images (and, with a shared
        encoder, of the source's). Corrections do not follow it, only the targets' decoders do: with
        0 those stay as the source's, and corrections are fitted in seconds, without images.
    start : {"transport", "identity"}, optional
        Where a correction starts: at the linear map that gives the target's features the moments of
        the source's, or, with pairs, at the regression of the source's features on the target's,
        its scatter restored, unless that makes the score worse or breaks the floor of the variance;
        or at none.
    conditions : sequence of {"noise", "psf_fwhm"}, optional
        What of each survey is given to its correction beside a learned embedding: the logarithm of
        the median noise of a pixel, or of the FWHM of the point spread function, in each band,
        less that of the source.
    epochs, batch_size, learning_rate, schedule, clip_norm, augment, precision
        As in `~astro_morphvae.VAEFitter`; an epoch is a pass over the targets. Turning and
        mirroring has no part where the features of an image do not change with it.
    decoder_learning_rate : float, optional
        Learning rate of the targets' own decoders; `None` is ``learning_rate``.
    validation_fraction : float, optional
        Share of the galaxies kept aside to watch the fit; a pair is kept aside as a whole.
    score : {"mmd", "auc"}, optional
        What is watched on them: the unbiased maximum mean discrepancy, or how far a classifier
        tells the surveys apart (twice its area under the curve, less one), which few galaxies
        measure coarsely; where there are pairs, plus the distance of the latents of a pair over
        that of different galaxies.
    patience : int, optional
        Stop when the score has not fallen for so many epochs.
    keep_best : bool, optional
        End with the weights of the lowest score, those of the targets' decoders excepted, and not
        with the last. Those of the start stay where no epoch beats them by more than the noise of
        the score.
    variance_floor : float, optional
        Least share of its latent variance that a survey must keep, where it had more than the
        source, of that of the source.
    reconstruction_floor : float, optional
        Least ratio of the squared error of reconstructions, where it was least since the start, to
        that after an epoch.
    on_collapse : {"warn", "raise"}, optional
        What to do where a floor is broken: stop, warn and give back the last good weights, or raise
        an error.
    seed : int, optional
        Seed of the split, the order, the initial weights and the draws from the posterior.
    checkpoint : path-like, optional
        File that holds the state after each epoch. If it exists, the fit goes on from there and
        ends with the result of an unbroken fit.
    device : str or `torch.device`, optional
        By default the first CUDA device, or else the CPU.
    progress : bool, optional
        Show a progress bar.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it.

    Notes
    -----
    Features that the fit does not change are computed once and kept in memory: some hundred numbers
    a galaxy with the default network, the latents with others.

    The loss of an object is ``elbo_weight`` × negative evidence lower bound + ``weight`` × loss of
    the method.
    """

    _parameters = (
        "method",
        "encoder",
        "weight",
        "elbo_weight",
        "start",
        "conditions",
        "epochs",
        "batch_size",
        "learning_rate",
        "decoder_learning_rate",
        "schedule",
        "clip_norm",
        "augment",
        "precision",
        "validation_fraction",
        "score",
        "patience",
        "keep_best",
        "variance_floor",
        "reconstruction_floor",
        "on_collapse",
        "seed",
        "checkpoint",
        "device",
        "progress",
    )

    def __init__(
        self,
        *,
        method="mmd",
        encoder="conditioned",
        weight=None,
        elbo_weight=1.0,
        start="transport",
        conditions=(),
        epochs=20,
        batch_size=128,
        learning_rate=3e-4,
        decoder_learning_rate=1e-3,
        schedule="cosine",
        clip_norm=1.0,
        augment="d4",
        precision=None,
        validation_fraction=0.1,
        score="mmd",
        patience=None,
        keep_best=True,
        variance_floor=0.5,
        reconstruction_floor=0.5,
        on_collapse="warn",
        seed=0,
        checkpoint=None,
        device=None,
        progress=True,
    ):
        for name, value, choices in (
            ("encoder", encoder, _ENCODERS),
            ("start", start, _STARTS),
            ("score", score, _SCORES),
            ("augment", augment, ("d4", None)),
            ("on_collapse", on_collapse, ("warn", "raise")),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {value!r}")
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            if isinstance(value, bool) or int(value) != value or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {batch_size!r}")
        if patience is not None and (int(patience) != patience or patience < 1):
            raise ValueError(f"patience must be a positive integer or None, got {patience!r}")
        for name, value, low, high in (
            ("learning_rate", learning_rate, 0.0, np.inf),
            ("decoder_learning_rate", decoder_learning_rate or 1.0, 0.0, np.inf),
            ("elbo_weight", elbo_weight, 0.0, np.inf),
            ("weight", 1.0 if weight is None else weight, 0.0, np.inf),
            ("clip_norm", 1.0 if clip_norm is None else clip_norm, 0.0, np.inf),
            ("validation_fraction", validation_fraction, 0.0, 0.9),
            ("variance_floor", variance_floor, 0.0, 1.0),
            ("reconstruction_floor", reconstruction_floor, 0.0, 1.0),
        ):
            strict = name in ("learning_rate", "decoder_learning_rate", "clip_norm")
            if not (low < value if strict else low <= value) or not value <= high:
                raise ValueError(
                    f"{name} must be in {'(' if strict else '['}{low:g}, {high:g}], got {value!r}"
                )
        unknown = [name for name in conditions if name not in _CONDITIONS]
        if isinstance(conditions, str) or unknown:
            raise ValueError(f"conditions must be some of {_CONDITIONS}, got {conditions!r}")
        if conditions and encoder != "conditioned":
            raise ValueError(f"conditions need encoder='conditioned', got {encoder!r}")
        autocast(precision, torch.device("cpu"))  # refuses an unknown precision
        get_schedule("schedule", schedule)
        self.method, self.encoder = get_method(method), encoder
        self.weight = None if weight is None else float(weight)
        self.elbo_weight, self.start, self.conditions = float(elbo_weight), start, tuple(conditions)
        self.epochs, self.batch_size, self.seed = int(epochs), int(batch_size), int(seed)
        self.learning_rate, self.clip_norm = float(learning_rate), clip_norm
        self.decoder_learning_rate, self.schedule = decoder_learning_rate, schedule
        self.augment, self.precision = augment, precision
        self.validation_fraction, self.score = float(validation_fraction), score
        self.patience = None if patience is None else int(patience)
        self.keep_best, self.on_collapse = bool(keep_best), on_collapse
        self.variance_floor = float(variance_floor)
        self.reconstruction_floor = float(reconstruction_floor)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.device, self.progress = device, progress

    @classmethod
    def xu2023(cls, **kwargs):
        """Make the fitter of the published recipe [1]_.

        A copy of the encoder is trained on the target while the source's is frozen: half the
        target's loss plus ten times the biased discrepancy of five kernels, 20 epochs of Adam at
        1e-5 in batches of 128, from the model as it is, with no galaxy kept aside and the last
        weights kept. For the whole published system adapt a model of
        ``VAE(architecture="xu2023", stretch=None, noise=0.5**0.5)``, whose loss is the sum of
        squared errors plus the divergence. The floors are watched, but do not stop it.

        Parameters
        ----------
        **kwargs
            Settings to change.

        References
        ----------
        .. [1] Xu et al. 2023, MNRAS 526, 6391.
        """
        settings = {
            "method": MMD(estimator="biased"),
            "encoder": "frozen-source",
            "weight": 10.0,
            "elbo_weight": 0.5,
            "epochs": 20,
            "batch_size": 128,
            "learning_rate": 1e-5,
            "decoder_learning_rate": None,
            "schedule": "constant",
            "clip_norm": None,
            "augment": None,
            "validation_fraction": 0.0,
            "keep_best": False,
            "variance_floor": 0.0,
            "reconstruction_floor": 0.0,
        }
        return cls(**settings | kwargs)

    def __repr__(self):
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._parameters)
        return f"{type(self).__name__}({values})"

    def __call__(self, model, source, *, target, pairs=None, inplace=False):
        """Adapt a model.

        Parameters
        ----------
        model : LatentModel
            A model fitted on the source.
        source : CutoutSet, list of NDData, or path of a CutoutSet file
            Galaxies of the survey that the model was fitted on.
        target : CutoutSet, list of NDData, or path; or list or dict of CutoutSet
            Galaxies of another survey, or of several: a list of sets, each of which has its name in
            its ``meta``, or a dict from name to set.
        pairs : {None, "rows", "id"}, or array of int (n, 2), or dict, optional
            Which rows of source and target show the same galaxy: those of the same number, those
            of the same ``id``, or a row of the source and one of the target each. For several
            targets a dict from name to those. By default no pair is known.
        inplace : bool, optional
            Change ``model`` itself, rather than return a new one.

        Returns
        -------
        model : LatentModel
            The adapted model, with ``fit_info``: ``history``, a dict of lists with one value an
            epoch (``loss``, ``elbo``, ``alignment``; of the galaxies kept aside ``score``, ``auc``,
            ``mmd``, ``pair_distance``, ``latent_variance``, ``reconstruction_kept``), ``before``
            and ``after``, those measures without adaptation and of the model, ``best_epoch`` (0 is
            the start), ``stopped``, ``collapse``, ``settings``, ``surveys``, ``n_train``,
            ``n_pairs``, ``time``.

        Raises
        ------
        TypeError
            If the model is not a LatentModel.
        ValueError
            If the model is not fitted or adapted already, pairs are missing or do not fit, or the
            checkpoint is of another fit.
        `~astro_morphvae.exceptions.CutoutMismatchError`
            If source or target do not fit the model, or each other.
        `~astro_morphvae.exceptions.FitDivergedError`
            If the loss becomes non-finite, or a floor is broken and ``on_collapse="raise"``; the
            error's ``model`` has the last good weights.
        """
        if not isinstance(model, LatentModel):
            raise TypeError(f"model must be a LatentModel, got {type(model).__name__}")
        if isinstance(model.network, AdaptedVAE):
            raise ValueError(
                f"model is adapted already, to {model.network.surveys}; adapt the model it came "
                "from to all surveys at once"
            )
        if not model.network.is_adapted:
            raise ValueError("model must be fitted on the source first")
        surveys = describe_surveys(
            model,
            source,
            target,
            pairs,
            validation_fraction=self.validation_fraction,
            seed=self.seed,
        )
        if self.method.needs_pairs and not any((s.partner >= 0).any() for s in surveys[1:]):
            raise ValueError(
                "pairs must say which rows of source and target are the same galaxy for "
                f"method={self.method!r}, got {pairs!r}"
            )
        network = self._network(model.network, surveys)
        device = resolve_device(self.device)
        run = AdaptationRun(self, network, surveys, device, self._fingerprint(model, surveys))
        provenance = model.provenance | {"surveys": [survey.name for survey in surveys]}

        def result(stopped):
            info = run.fit_info(stopped)
            if inplace:
                model.__init__(network, provenance=provenance, fit_info=info)
                return model
            return LatentModel(network, provenance=provenance, fit_info=info)

        with on_device(network, device):
            try:
                run.fit()
            except DivergedError as error:
                raise FitDivergedError(
                    f"{error}; the model has the weights of epoch {run.epoch}. A lower "
                    f"learning_rate (now {self.learning_rate:g}) or weight may help.",
                    model=result("diverged"),
                ) from None
        if run.collapse is not None:
            self._report(run, result)
        return result(run.stopped)

    def _report(self, run, result):
        text = (
            f"the adaptation was collapsing: {run.collapse}; the model has the weights of epoch "
            f"{run.best_epoch if self.keep_best else run.epoch - 1}. A lower weight (now "
            f"{run.weight:g}) or a higher elbo_weight (now {self.elbo_weight:g}) may help."
        )
        if self.on_collapse == "raise":
            raise FitDivergedError(text, model=result("collapsed"))
        warnings.warn(text, AdaptationCollapseWarning, stacklevel=3)

    def _network(self, network, surveys):
        """Copy of a network, with the branches that the surveys need."""
        if self.encoder == "shared":
            return copy.deepcopy(network)
        names = [survey.name for survey in surveys]
        if self.encoder == "frozen-source":
            return AdaptedVAE.from_network(network, names, branches="separate")
        options = {}
        if self.conditions:
            rows = [_conditions(survey, self.conditions) for survey in surveys]
            options["conditions"] = (np.array(rows[1:]) - rows[0]).tolist()
        return AdaptedVAE.from_network(network, names, correction_options=options)

    def settings(self):
        """Hyper-parameters as plain values: a dict."""
        values = {name: getattr(self, name) for name in self._parameters}
        return {
            name: value if isinstance(value, (int, float, str, type(None))) else repr(value)
            for name, value in values.items()
        }

    def _fingerprint(self, model, surveys):
        """Digest of what decides the result of the fit."""
        kept = {k: v for k, v in self.settings().items() if k not in _FREE_SETTINGS}
        digest = hashlib.sha256(json.dumps([model.hash, kept], sort_keys=True).encode())
        for survey in surveys:
            cutouts = survey.cutouts
            ids = np.asarray(cutouts.catalog["id"]).astype(str).tolist()
            partner = survey.partner.tolist()
            digest.update(json.dumps([survey.name, cutouts.shape, ids, partner]).encode())
            for row in {0, len(cutouts) // 2, len(cutouts) - 1}:
                digest.update(np.ascontiguousarray(cutouts.data[row], dtype=np.float32).tobytes())
        return digest.hexdigest()


def _conditions(survey, names):
    """Logarithms of what is known of a survey, a list of float."""
    cutouts, values = survey.cutouts, []
    for name in names:
        if name == "psf_fwhm":
            if cutouts.psf_fwhm is None:
                raise ValueError(
                    f"conditions hold 'psf_fwhm', which the cutouts of {survey.name!r} do not tell"
                )
            values.append(np.log(cutouts.psf_fwhm.to_value(u.arcsec)))
        else:
            if cutouts.ivar is None:
                raise ValueError(
                    f"conditions hold 'noise', but the cutouts of {survey.name!r} have no "
                    "inverse variance"
                )
            rows = survey.train[:: max(1, len(survey.train) // 256)]
            ivar = cutouts.arrays(rows)[1]
            noise = [np.median(band[band > 0] ** -0.5) for band in np.moveaxis(ivar, 1, 0)]
            values.append(np.log(noise))
    return np.concatenate(values).tolist()
