"""`VAEFitter`: fits the auto-encoder of a `~astro_morphvae.LatentModel` to cutouts."""

import copy
import hashlib
import json
import time
from pathlib import Path

import astropy.units as u
import numpy as np
import torch
from tqdm import tqdm

from .._runtime import software_versions
from ..cutouts import as_cutout_set
from ..cutouts.compatibility import check_compatible
from ..exceptions import FitDivergedError
from ..model import LatentModel
from ..networks import fit_softening
from ..networks.batches import PixelSource, autocast, iterate_batches, on_device, resolve_device
from .checkpoint import TrainingState, read_checkpoint, write_checkpoint
from .schedules import get_schedule
from .training import epoch_generators, train_step, validate

__all__ = ["VAEFitter"]

_HISTORY = (
    "loss",
    "reconstruction",
    "kl",
    "auxiliary",
    "val_loss",
    "val_reconstruction",
    "val_kl",
    "learning_rate",
    "beta",
    "time",
)
_N_SAMPLE = 256  # training images from which a fresh network takes its noise and typical numbers
# Settings that may differ between the start of a fit and its resumption.
_FREE_SETTINGS = ("checkpoint", "progress")


class VAEFitter:
    """Fit a variational auto-encoder to cutouts, without labels.

    Adam [1]_ on the negative evidence lower bound. Where cutouts carry an inverse variance it
    weighs their pixels; where they do not, the noise of each band is learned. Masked pixels weigh
    nothing. On one CPU, with as many threads, the same seed gives the same weights bit for bit.

    Parameters
    ----------
    epochs : int, optional
        Passes over the training data.
    batch_size : int, optional
        Objects per step.
    learning_rate : float, optional
        Step size of Adam.
    seed : int, optional
        Seed of the split, the order, the symmetries and the draws from the posterior.
    precision : {None, "float32", "bfloat16"}, optional
        Precision of the forward pass; weights are float32 always. `None` is float32.
    validation_fraction : float, optional
        Share of the cutouts kept aside to watch the fit, where no ``validation`` is given.
    patience : int, optional
        Stop when the validation loss has not improved for so many epochs; the model then has the
        weights of the best epoch. By default all epochs are run and the last weights kept.
    schedule : str or callable, optional
        Learning rate: ``"constant"``, ``"cosine"``, ``"warm-up"``, or a function of the share of
        the fit that is done which returns a factor.
    clip_norm : float, optional
        Largest norm of the gradient, of the loss per pixel value; `None` does not clip.
    beta_schedule : str or callable, optional
        Factor on the network's beta: ``"constant"``, ``"warm-up"``, ``"cyclical"``, or a function
        as above.
    free_bits : float, optional
        Divergence per latent, in nats, that costs nothing.
    augment : {"d4", None}, optional
        ``"d4"`` shows every object by one of the eight symmetries of the square, anew each epoch.
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

    References
    ----------
    .. [1] Kingma & Ba 2015, arXiv:1412.6980.
    """

    _parameters = (
        "epochs",
        "batch_size",
        "learning_rate",
        "seed",
        "precision",
        "validation_fraction",
        "patience",
        "schedule",
        "clip_norm",
        "beta_schedule",
        "free_bits",
        "augment",
        "checkpoint",
        "device",
        "progress",
    )

    def __init__(
        self,
        *,
        epochs=50,
        batch_size=128,
        learning_rate=1e-3,
        seed=0,
        precision=None,
        validation_fraction=0.1,
        patience=None,
        schedule="constant",
        clip_norm=1.0,
        beta_schedule="constant",
        free_bits=0.0,
        augment="d4",
        checkpoint=None,
        device=None,
        progress=True,
    ):
        for name, value, least in (
            ("epochs", epochs, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("patience", 1 if patience is None else patience, 1),
        ):
            if isinstance(value, bool) or int(value) != value or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if not (np.isfinite(learning_rate) and learning_rate > 0):
            raise ValueError(f"learning_rate must be positive and finite, got {learning_rate!r}")
        if not 0 <= validation_fraction < 1:
            raise ValueError(f"validation_fraction must be in [0, 1), got {validation_fraction!r}")
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"clip_norm must be positive or None, got {clip_norm!r}")
        if not free_bits >= 0:
            raise ValueError(f"free_bits must not be negative, got {free_bits!r}")
        if augment not in (None, "d4"):
            raise ValueError(f"augment must be None or 'd4', got {augment!r}")
        autocast(precision, torch.device("cpu"))  # refuses an unknown precision
        get_schedule("schedule", schedule)
        get_schedule("beta_schedule", beta_schedule)
        self.epochs, self.batch_size, self.seed = int(epochs), int(batch_size), int(seed)
        self.learning_rate, self.free_bits = float(learning_rate), float(free_bits)
        self.precision, self.validation_fraction = precision, float(validation_fraction)
        self.patience = None if patience is None else int(patience)
        self.schedule, self.beta_schedule = schedule, beta_schedule
        self.clip_norm, self.augment = clip_norm, augment
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.device, self.progress = device, progress

    def __repr__(self):
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._parameters)
        return f"{type(self).__name__}({values})"

    def __call__(self, model, cutouts, *, validation=None, inplace=False):
        """Fit a model.

        Parameters
        ----------
        model : LatentModel
            Where to start from: a new network, or one to train further.
        cutouts : CutoutSet, list of NDData, or path of a CutoutSet file
            Training data; rows whose status is not ``"ok"`` are left out.
        validation : CutoutSet, list of NDData, or path, optional
            Data to watch the fit on, in place of a share of the cutouts.
        inplace : bool, optional
            Train the network of ``model`` itself, and not a copy.

        Returns
        -------
        model : LatentModel
            The fitted model, with ``fit_info``: ``history``, a dict of lists with one value an
            epoch (``loss``, ``reconstruction``, ``kl``, ``val_loss``, ``learning_rate``, ``beta``,
            ``time`` in s, ...), ``settings``, ``n_train``, ``n_validation``, ``epochs_run``,
            ``best_epoch``, ``stopped``, ``time``, ``versions``.

        Raises
        ------
        TypeError
            If the model is not a LatentModel.
        ValueError
            If there is nothing to train on, or the checkpoint is of another fit.
        `~astro_morphvae.exceptions.CutoutMismatchError`
            If the cutouts do not fit the network or, trained further, what it was fitted on.
        `~astro_morphvae.exceptions.FitDivergedError`
            If the loss becomes non-finite; the error's ``model`` has the last good weights.
        """
        if not isinstance(model, LatentModel):
            raise TypeError(f"model must be a LatentModel, got {type(model).__name__}")
        cutouts = as_cutout_set(cutouts)
        check_compatible(model.network, model.provenance, cutouts)
        provenance = _provenance(cutouts)
        sets = {"train": cutouts}
        if validation is not None:
            sets["validation"] = as_cutout_set(validation)
            check_compatible(model.network, provenance, sets["validation"], "validation")
        rows = self._split(sets)
        network = model.network if inplace else copy.deepcopy(model.network)
        _prepare(network, PixelSource(cutouts.data, cutouts.ivar, cutouts.mask), rows["train"])
        device = resolve_device(self.device)
        run = _Run(self, network, sets, rows, device, self._fingerprint(model, sets))
        with on_device(network, device):
            try:
                run.fit()
            except _DivergedError as error:
                info = run.fit_info("diverged")
                good = self._result(model, network, provenance, info, inplace)
                raise FitDivergedError(
                    f"{error}; the model has the weights of epoch {run.epoch}. A lower "
                    f"learning_rate (now {self.learning_rate:g}) or a clip_norm (now "
                    f"{self.clip_norm}) may help.",
                    model=good,
                ) from None
        return self._result(model, network, provenance, run.fit_info(run.stopped), inplace)

    @staticmethod
    def _result(model, network, provenance, info, inplace):
        if inplace:
            model.__init__(network, provenance=provenance, fit_info=info)
            return model
        return LatentModel(network, provenance=provenance, fit_info=info)

    def _split(self, sets):
        good = np.flatnonzero(sets["train"].good)
        if len(good) == 0:
            raise ValueError("cutouts hold no row whose status is 'ok'")
        if "validation" in sets:
            rows = np.flatnonzero(sets["validation"].good)
            if len(rows) == 0:
                raise ValueError("validation holds no row whose status is 'ok'")
            return {"train": good, "validation": rows}
        n_aside = int(self.validation_fraction * len(good))
        if n_aside == 0:
            return {"train": good}
        sets["validation"] = sets["train"]
        shuffled = np.random.default_rng([self.seed, len(good)]).permutation(good)
        return {"train": np.sort(shuffled[n_aside:]), "validation": np.sort(shuffled[:n_aside])}

    def settings(self):
        """Hyper-parameters as plain values: a dict."""
        values = {name: getattr(self, name) for name in self._parameters}
        return {
            name: value if isinstance(value, (int, float, str, type(None))) else repr(value)
            for name, value in values.items()
        }

    def _fingerprint(self, model, sets):
        """Digest of what decides the result of the fit."""
        kept = {k: v for k, v in self.settings().items() if k not in _FREE_SETTINGS}
        digest = hashlib.sha256(json.dumps([model.hash, kept], sort_keys=True).encode())
        for name, cutouts in sorted(sets.items()):
            ids = np.asarray(cutouts.catalog["id"]).astype(str).tolist()
            text = [name, cutouts.shape, list(cutouts.bands), str(cutouts.unit), ids]
            digest.update(json.dumps(text).encode())
            for row in {0, len(cutouts) // 2, len(cutouts) - 1}:
                digest.update(np.ascontiguousarray(cutouts.data[row], dtype=np.float32).tobytes())
        return digest.hexdigest()


class _DivergedError(RuntimeError):
    """The loss is not finite."""


class _Run:
    """One fit in progress: the state between epochs."""

    def __init__(self, fitter, network, sets, rows, device, fingerprint):
        self.fitter, self.network, self.rows, self.device = fitter, network, rows, device
        self.fingerprint = fingerprint
        self.sources = {
            name: PixelSource(part.data, part.ivar, part.mask) for name, part in sets.items()
        }
        self.schedule = get_schedule("schedule", fitter.schedule)
        self.beta_schedule = get_schedule("beta_schedule", fitter.beta_schedule)
        self.parameters = [weight.value for weight in network.trainable_weights]
        self.epoch, self.best_epoch, self.best_loss = 0, None, np.inf
        self.history = {name: [] for name in _HISTORY}
        self.stopped, self.best, self.good = "completed", None, None

    def fit(self):
        fitter = self.fitter
        self.optimiser = torch.optim.Adam(
            self.parameters, lr=fitter.learning_rate, fused=self.device.type in ("cpu", "cuda")
        )
        self.state = TrainingState(self.network, self.optimiser)
        self._resume()
        with tqdm(
            total=fitter.epochs * self._n_steps,
            initial=self.epoch * self._n_steps,
            disable=not fitter.progress,
            desc="fit",
            unit="step",
        ) as bar:
            while self.epoch < fitter.epochs and not self._out_of_patience():
                self.good = self.state.weights()
                try:
                    self._run_epoch(bar)
                except _DivergedError:
                    self.state.set_weights(self.good)
                    raise
                self._save()
        if self._out_of_patience():
            self.stopped = "early"
        if fitter.patience is not None and self.best is not None:
            self.state.set_weights(self.best)

    @property
    def _n_steps(self):
        return -(-len(self.rows["train"]) // self.fitter.batch_size)

    def _out_of_patience(self):
        patience = self.fitter.patience
        if patience is None or self.best_epoch is None:
            return False
        return self.epoch - self.best_epoch >= patience

    def _run_epoch(self, bar):
        fitter, network, start = self.fitter, self.network, time.perf_counter()
        numpy_generator, torch_generator = epoch_generators(fitter.seed, self.epoch)
        order = numpy_generator.permutation(self.rows["train"])
        groups = np.array_split(order, range(fitter.batch_size, len(order), fitter.batch_size))
        total = {}
        batches = iterate_batches(
            self.sources["train"], groups, device=self.device, likelihood=True
        )
        for step, batch in enumerate(batches):
            progress = (self.epoch + step / self._n_steps) / fitter.epochs
            rate = fitter.learning_rate * self.schedule(progress)
            beta = network.beta * self.beta_schedule(progress)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            if fitter.augment == "d4":
                batch = batch.turned(numpy_generator.integers(8, size=len(batch.x)))
            draw = torch.randn((len(batch.x), network.latent_dim), generator=torch_generator)
            terms = train_step(
                network,
                batch,
                self.optimiser,
                draw=draw.to(self.device),
                beta=beta,
                free_bits=fitter.free_bits,
                clip_norm=fitter.clip_norm,
                precision=fitter.precision,
            )
            if not np.isfinite(terms["loss"]):
                raise _DivergedError(
                    f"the loss became {terms['loss']} at epoch {self.epoch + 1}, step {step + 1}"
                )
            for name, value in terms.items():
                total[name] = total.get(name, 0.0) + value * len(batch.x)
            bar.update()
            bar.set_postfix(epoch=self.epoch + 1, loss=f"{terms['loss']:.6g}", refresh=False)
        entry = {name: value / len(order) for name, value in total.items()}
        entry |= {"learning_rate": rate, "beta": beta}
        if "validation" in self.rows:
            entry |= {f"val_{k}": v for k, v in self._validate().items()}
        entry["time"] = time.perf_counter() - start
        for name in self.history:
            self.history[name].append(entry.get(name))
        self.epoch += 1
        if entry.get("val_loss", np.inf) < self.best_loss:
            self.best_loss, self.best_epoch = entry["val_loss"], self.epoch
            self.best = self.state.weights()

    def _validate(self):
        rows, size = self.rows["validation"], self.fitter.batch_size
        groups = np.array_split(rows, range(size, len(rows), size))
        batches = iterate_batches(
            self.sources["validation"], groups, device=self.device, likelihood=True
        )
        # The same draws every epoch, so that changes of the loss are changes of the network.
        generator = torch.Generator().manual_seed(self.fitter.seed)
        terms = validate(
            self.network, batches, generator=generator, precision=self.fitter.precision
        )
        if not np.isfinite(terms["loss"]):
            raise _DivergedError(
                f"the validation loss became {terms['loss']} at epoch {self.epoch + 1}"
            )
        return terms

    def _save(self):
        path = self.fitter.checkpoint
        if path is None:
            return
        arrays = self.state.weights() | self.state.moments()
        if self.best is not None:
            arrays |= {f"best/{name}": value for name, value in self.best.items()}
        record = {
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_loss": None if self.best_epoch is None else self.best_loss,
            "history": self.history,
        }
        write_checkpoint(path, arrays, record)

    def _resume(self):
        path = self.fitter.checkpoint
        if path is None or not path.exists():
            return
        arrays, record = read_checkpoint(path)
        if record["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"checkpoint {str(path)!r} is of another fit: settings, data or starting weights "
                "differ; remove it or name another file"
            )
        self.state.set_weights(arrays)
        self.state.set_moments(arrays)
        best = {k.removeprefix("best/"): v for k, v in arrays.items() if k.startswith("best/")}
        self.best = best or None
        self.epoch, self.history = record["epoch"], record["history"]
        if record["best_epoch"] is not None:
            self.best_epoch, self.best_loss = record["best_epoch"], record["best_loss"]

    def fit_info(self, stopped):
        """Return what `LatentModel.fit_info` holds."""
        return {
            "history": {
                name: values
                for name, values in self.history.items()
                if any(value is not None for value in values)
            },
            "settings": self.fitter.settings(),
            "n_train": len(self.rows["train"]),
            "n_validation": len(self.rows.get("validation", ())),
            "epochs_run": self.epoch,
            "best_epoch": self.best_epoch,
            "stopped": stopped,
            "time": float(sum(self.history["time"])),
            "device": str(self.device),
            "softening": self.network.softening,
            "noise": self.network.noise,
            "versions": software_versions(),
        }


def _provenance(cutouts):
    scale = cutouts.pixel_scale
    return {
        "bands": list(cutouts.bands),
        "unit": str(cutouts.unit or ""),
        "pixel_scale": None if scale is None else float(scale.to_value(u.arcsec)),
        "size": [int(n) for n in cutouts.size],
        "survey": _survey(cutouts.meta),
    }


def _survey(meta):
    for name in ("survey", "layer"):
        if name in meta:
            return str(meta[name])
    return None


def _prepare(network, source, rows):
    """Let a network that never saw data take what it must from a sample: noise, typical numbers."""
    sample = rows[:: max(1, len(rows) // _N_SAMPLE)]
    if not network.softening_is_set:
        network.set_softening(fit_softening(*_for_softening(source, sample)))
    if not network.is_adapted:
        groups = np.array_split(sample, range(64, len(sample), 64))
        network.adapt(torch.from_numpy(source.read(group, likelihood=False)[0]) for group in groups)


def _for_softening(source, rows):
    """Pixels of some rows, NaN where bad, and their inverse variance."""
    x, ivar, valid = source.read(rows, likelihood=True)
    if valid is not None:
        x = np.where(valid > 0, x, np.float32(np.nan))
    return x, ivar
