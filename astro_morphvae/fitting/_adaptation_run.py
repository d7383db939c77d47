"""One domain adaptation in progress: the state between epochs."""

import time

import numpy as np
import torch
from tqdm import tqdm

from .._runtime import software_versions
from ..networks.adaptation import Agreement
from ..networks.batches import Batch, autocast, iterate_batches, read_ahead
from ._adaptation_data import plan_epoch
from ._adaptation_encoders import SurveyEncoders, start_corrections
from ._adaptation_watch import Floors, Watch
from .checkpoint import TrainingState, read_checkpoint, write_checkpoint
from .schedules import get_schedule
from .training import epoch_generators

__all__ = ["AdaptationRun", "DivergedError"]

_HISTORY = (
    "loss",
    "elbo",
    "alignment",
    "score",
    "auc",
    "mmd",
    "pair_distance",
    "latent_variance",
    "reconstruction_kept",
    "learning_rate",
    "time",
)


class DivergedError(RuntimeError):
    """The loss is not finite."""


class _Weights:
    """Weights of the network and of what is trained beside it, as `TrainingState` takes them."""

    def __init__(self, network, layers):
        self._network = network
        self.weights = [*network.weights, *(w for layer in layers for w in layer.weights)]

    @property
    def noise(self):
        return self._network.noise

    def set_noise(self, noise):
        self._network.set_noise(noise)


class AdaptationRun:
    """One fit in progress.

    Parameters
    ----------
    fitter : DomainAdaptationFitter
        Its settings.
    network : VAE
        What is trained.
    surveys : list of `Survey`
        The data, the source first.
    device : `torch.device`
        Where the network is.
    fingerprint : str
        Of what decides the result.
    """

    def __init__(self, fitter, network, surveys, device, fingerprint):
        self.fitter, self.network, self.surveys = fitter, network, surveys
        self.device, self.fingerprint = device, fingerprint
        self.encoders = SurveyEncoders(
            network,
            surveys,
            device,
            shared=fitter.encoder == "shared",
            batch_size=fitter.batch_size,
        )
        self.branches, self.shared = self.encoders.branches, self.encoders.shared
        self.layers = fitter.method.prepare(network.latent_dim, len(surveys), fitter.seed)
        for layer in self.layers:
            layer.to(device)
        self.schedule = get_schedule("schedule", fitter.schedule)
        self.floors = Floors(fitter.variance_floor, fitter.reconstruction_floor)
        self.watch = Watch(self.encoders, fitter.score, fitter.seed, fitter.precision)
        self.n_values = network.n_bands * network.image_size**2
        self.weight = self.n_values if fitter.weight is None else fitter.weight
        self.epoch, self.best_epoch, self.best_score, self.noise = 0, 0, np.inf, 0.0
        self.history = {name: [] for name in _HISTORY}
        self.before, self.started, self.after = None, None, None
        self.stopped, self.collapse = "completed", None
        self.best = self.good = None

    # --------------------------------------------------------------------------------- the course
    def fit(self):
        """Run all epochs; see `DomainAdaptationFitter`."""
        fitter = self.fitter
        self.encoders.keep_features()
        self.optimiser = torch.optim.Adam(
            self._parameters(),
            # Gradients are those of the loss per pixel value; so is the constant beside them.
            eps=1e-8 / self.n_values,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.state = TrainingState(_Weights(self.network, self.layers), self.optimiser)
        self.before = self._measure()
        if not self._resume():
            self._start()
        n_steps = len(plan_epoch(self.surveys, fitter.batch_size, np.random.default_rng(0)))
        with tqdm(
            total=fitter.epochs * n_steps,
            initial=self.epoch * n_steps,
            disable=not fitter.progress,
            desc="adapt",
            unit="step",
        ) as bar:
            while self.epoch < fitter.epochs and not self._out_of_patience():
                self.good = self.state.weights()
                try:
                    entry = self._run_epoch(bar)
                except DivergedError:
                    self.state.set_weights(self.good)
                    raise
                self.collapse = self._judge(entry)
                if self.collapse is not None:
                    self.stopped = "collapsed"
                    self.state.set_weights(self.best if fitter.keep_best else self.good)
                    break
                self._save()
        if self.stopped == "completed":
            if self._out_of_patience():
                self.stopped = "early"
            if fitter.keep_best and np.isfinite(self.best_score):
                self._restore_best()
        self.after = self._measure()

    def _start(self):
        """Start from the linear maps, unless they break a floor or make the score worse.

        Reconstructions have no say: the targets' decoders have not seen these latents yet.
        """
        unchanged, entry = self.state.weights(), self.before
        if self.fitter.start == "transport":
            start_corrections(self.encoders)
            entry = self._measure()
            worse = entry.get("score", 0.0) > self.before.get("score", 0.0)
            if worse or self.floors.relative_to(entry["reconstruction_kept"]).broken(entry):
                self.state.set_weights(unchanged)
                entry = self._measure()
        self.noise = self.watch.noise()
        self.best = self.good = self.state.weights()
        self.best_score, self.started = entry.get("score", np.inf), entry

    def _restore_best(self):
        """Put the best weights back, but leave decoders of targets as they are.

        They are trained on the targets' images and not on agreement: more epochs make them better.
        """
        last = self.state.weights()
        kept = {
            f"weight/{i}"
            for i, weight in enumerate(self.network.weights)
            if any(weight is own for own in self._other_decoder_weights())
        }
        self.state.set_weights(self.best | {name: last[name] for name in kept})

    def _other_decoder_weights(self):
        decoders = [] if self.shared else self.network.other_decoders
        return [weight for decoder in decoders for weight in decoder.trainable_weights]

    def _parameters(self):
        """Group the parameters, each group with the learning rate that it starts at."""
        network, fitter = self.network, self.fitter
        if self.shared:
            chosen = list(network.trainable_weights)
        else:
            own = [*network.other_encoders, *([network.correction] if network.correction else [])]
            chosen = [w for layer in own for w in layer.trainable_weights]
        chosen += [w for layer in self.layers for w in layer.trainable_weights]
        groups = [(chosen, fitter.learning_rate)]
        if fitter.elbo_weight > 0 and not self.shared:
            rate = fitter.decoder_learning_rate
            groups.append((self._other_decoder_weights(), rate or fitter.learning_rate))
        return [
            {"params": [weight.value for weight in weights], "lr": rate, "start_lr": rate}
            for weights, rate in groups
        ]

    def _out_of_patience(self):
        patience = self.fitter.patience
        if patience is None or not np.isfinite(self.best_score):
            return False
        return self.epoch - self.best_epoch >= patience

    def _measure(self):
        try:
            return self.watch.measure()
        except FloatingPointError as error:
            raise DivergedError(f"{error} after epoch {self.epoch}") from None

    def _judge(self, entry):
        """Say what floor an epoch broke, or keep it if it is the best so far."""
        kept = max(self.started["reconstruction_kept"], *self.history["reconstruction_kept"])
        broken = self.floors.relative_to(kept).broken(entry)
        if broken is not None:
            return f"{broken} at epoch {self.epoch}"
        # Of many epochs one looks better than the start by chance.
        least_gain = self.noise if self.best_epoch == 0 else 0.0
        if entry.get("score", np.inf) < self.best_score - least_gain:
            self.best_score, self.best_epoch = entry["score"], self.epoch
            self.best = self.state.weights()
        return None

    # ------------------------------------------------------------------------------------ a step
    def _run_epoch(self, bar):
        fitter, start = self.fitter, time.perf_counter()
        numpy_generator, torch_generator = epoch_generators(fitter.seed, self.epoch)
        steps = plan_epoch(self.surveys, fitter.batch_size, numpy_generator)
        total, n = {}, 0
        loaded = read_ahead(map(self._load, steps))
        for i, (step, images) in enumerate(zip(steps, loaded, strict=True)):
            progress = (self.epoch + i / len(steps)) / fitter.epochs
            rate = fitter.learning_rate * self.schedule(progress)
            for group in self.optimiser.param_groups:
                group["lr"] = group["start_lr"] * self.schedule(progress)
            terms = self._step(step, images, progress, numpy_generator, torch_generator)
            if not np.isfinite(terms["loss"]):
                raise DivergedError(
                    f"the loss became {terms['loss']} at epoch {self.epoch + 1}, step {i + 1}"
                )
            size = len(step[2])
            for name, value in terms.items():
                total[name] = total.get(name, 0.0) + value * size
            n += size
            bar.update()
            bar.set_postfix(
                epoch=self.epoch + 1, alignment=f"{terms['alignment']:.4g}", refresh=False
            )
        entry = {name: value / n for name, value in total.items()} | self._measure()
        entry |= {"learning_rate": rate, "time": time.perf_counter() - start}
        for name in self.history:
            self.history[name].append(entry.get(name))
        self.epoch += 1
        return entry

    def _load(self, step):
        """Images that a step needs, of source and target, each a `Batch` or `None`."""
        number, source_rows, target_rows, _ = step
        elbo = self.fitter.elbo_weight > 0
        wanted = (
            (
                0,
                source_rows,
                (self.shared and (elbo or self.encoders.features[0] is None)) or self._crosses,
            ),
            (number, target_rows, elbo or self.encoders.features[number] is None),
        )
        return [
            next(
                iterate_batches(
                    self.surveys[k].pixels,
                    [rows],
                    device=self.device,
                    likelihood=True,
                    prefetch=0,
                )
            )
            if needed
            else None
            for k, rows, needed in wanted
        ]

    @property
    def _crosses(self):
        return self.fitter.method.crosses and self.encoders.uses_pairs

    def _turns(self, generator):
        return generator if self.fitter.augment == "d4" else None

    def _step(self, step, images, progress, numpy_generator, torch_generator):
        fitter, (number, source_rows, target_rows, paired) = self.fitter, step
        self.optimiser.zero_grad(set_to_none=True)
        with autocast(fitter.precision, self.device):
            source, target = (
                self.encoders.encode(k, rows, batch, self._turns(numpy_generator))
                for k, rows, batch in zip(
                    (0, number), (source_rows, target_rows), images, strict=True
                )
            )
            elbo = torch.zeros((), device=self.device)
            for k, encoded in ((0, source), (number, target)):
                if fitter.elbo_weight > 0 and (k > 0 or self.shared):
                    elbo = elbo + self._elbo(k, encoded, torch_generator)
            paired = torch.from_numpy(paired).to(self.device)
            alignment = fitter.method.loss(
                Agreement(
                    source["z"],
                    target["z"],
                    paired,
                    survey=number,
                    progress=progress,
                    cross=lambda: self._cross(source, target, paired),
                ),
                self.layers,
            )
            loss = fitter.elbo_weight * elbo + self.weight * alignment
        values = torch.stack([part.detach().float() for part in (loss, elbo, alignment)]).tolist()
        if np.isfinite(values[0]):
            (loss / self.n_values).backward()
            if fitter.clip_norm is not None:
                parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
                torch.nn.utils.clip_grad_norm_(parameters, fitter.clip_norm)
            self.optimiser.step()
        return dict(zip(("loss", "elbo", "alignment"), values, strict=True))

    def _elbo(self, number, encoded, generator):
        network, batch = self.network, encoded["batch"]
        draw = torch.randn((len(batch.x), network.latent_dim), generator=generator)
        posterior = encoded["posterior"]
        if self.fitter.encoder == "conditioned":
            # What a survey sees trains its decoder, and does not move the latents.
            posterior = tuple(part if part is None else part.detach() for part in posterior)
        terms = self.branches[number].loss_terms(
            network, batch, encoded["features"], posterior, draw.to(self.device)
        )
        terms["kl"] = network.beta * terms["kl"]
        return sum(term.mean() for term in terms.values())

    def _cross(self, source, target, paired):
        """Minus the log-likelihood per pixel value of the source's images of pairs."""
        batch, branch = source["batch"], self.branches[0]
        images = (batch.x, batch.ivar, batch.valid)
        batch = Batch(batch.rows, *(part if part is None else part[paired] for part in images))
        pose = source["posterior"][2]
        z = target["z"][paired]
        loss = branch.reconstruction(
            self.network, batch, z, None if pose is None else pose[paired]
        ).mean()
        if hasattr(branch.decoder, "auxiliary_loss"):
            loss = loss + branch.decoder.auxiliary_loss(source["features"][paired], z).mean()
        return loss / self.n_values

    # ----------------------------------------------------------------------------------- on disk
    def _save(self):
        path = self.fitter.checkpoint
        if path is None:
            return
        arrays = self.state.weights() | self.state.moments()
        arrays |= {f"best/{name}": value for name, value in self.best.items()}
        record = {
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score if np.isfinite(self.best_score) else None,
            "noise": self.noise,
            "start": self.started,
            "history": self.history,
        }
        write_checkpoint(path, arrays, record)

    def _resume(self):
        path = self.fitter.checkpoint
        if path is None or not path.exists():
            return False
        arrays, record = read_checkpoint(path)
        if record["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"checkpoint {str(path)!r} is of another fit: settings, data or starting weights "
                "differ; remove it or name another file"
            )
        self.state.set_weights(arrays)
        self.state.set_moments(arrays)
        self.best = {k.removeprefix("best/"): v for k, v in arrays.items() if k.startswith("best/")}
        self.epoch, self.history = record["epoch"], record["history"]
        self.best_epoch, self.noise = record["best_epoch"], record["noise"]
        self.started = record["start"]
        if record["best_score"] is not None:
            self.best_score = record["best_score"]
        return True

    def fit_info(self, stopped):
        """Return what `LatentModel.fit_info` holds."""
        return {
            "history": {
                name: values
                for name, values in self.history.items()
                if any(value is not None for value in values)
            },
            "settings": self.fitter.settings(),
            "surveys": [survey.name for survey in self.surveys],
            "n_train": [len(survey.train) for survey in self.surveys],
            "n_watched": [len(survey.watched) for survey in self.surveys],
            "n_pairs": [int((survey.partner >= 0).sum()) for survey in self.surveys[1:]],
            "before": self.before,
            "start": self.started,
            "after": self.after,
            "epochs_run": self.epoch,
            "best_epoch": self.best_epoch,
            "stopped": stopped,
            "collapse": self.collapse,
            "time": float(sum(self.history["time"])),
            "device": str(self.device),
            "versions": software_versions(),
        }
