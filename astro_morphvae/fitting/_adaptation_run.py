"""One domain adaptation in progress: the state between epochs."""

import time

import numpy as np
import torch
from tqdm import tqdm

from .._runtime import software_versions
from ..networks.adaptation import (
    Agreement,
    bandwidths_of,
    branches_of,
    gaussian_transport,
    paired_transport,
)
from ..networks.batches import Batch, autocast, iterate_batches, read_ahead
from ._adaptation_data import plan_epoch
from ._adaptation_watch import Floors, score_latents
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
_TRANSPORT_RIDGE = 1e-2


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
        self.branches = branches_of(network, len(surveys))
        self.shared = fitter.encoder == "shared"
        self.layers = fitter.method.prepare(network.latent_dim, len(surveys), fitter.seed)
        for layer in self.layers:
            layer.to(device)
        self.schedule = get_schedule("schedule", fitter.schedule)
        self.floors = Floors(fitter.variance_floor, fitter.reconstruction_floor)
        self.n_values = network.n_bands * network.image_size**2
        self.weight = self.n_values if fitter.weight is None else fitter.weight
        self.epoch, self.best_epoch, self.best_score = 0, 0, np.inf
        self.history = {name: [] for name in _HISTORY}
        self.before, self.stopped, self.collapse, self.best = None, "completed", None, None
        self.good = None

    # --------------------------------------------------------------------------------- the course
    def fit(self):
        """Run all epochs; see `DomainAdaptationFitter`."""
        fitter = self.fitter
        self._keep_features()
        self.optimiser = torch.optim.Adam(
            self._parameters(),
            lr=fitter.learning_rate,
            # Gradients are those of the loss per pixel value; so is the constant beside them.
            eps=1e-8 / self.n_values,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.state = TrainingState(_Weights(self.network, self.layers), self.optimiser)
        self.before = self._watch()
        self._start_corrections()
        self.best = self.good = self.state.weights()
        if not self._resume():
            start = self._watch()
            self.best_score = start.get("score", np.inf)
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
                    return
                self._save()
        if self._out_of_patience():
            self.stopped = "early"
        if fitter.keep_best and np.isfinite(self.best_score):
            self.state.set_weights(self.best)

    def _parameters(self):
        network = self.network
        if self.shared:
            chosen = network.trainable_weights
        else:
            own = [*network.other_encoders, *([network.correction] if network.correction else [])]
            chosen = [w for layer in own for w in layer.trainable_weights]
            if self.fitter.elbo_weight > 0:
                chosen += [w for d in network.other_decoders for w in d.trainable_weights]
        chosen = [*chosen, *(w for layer in self.layers for w in layer.trainable_weights)]
        return [weight.value for weight in chosen]

    def _out_of_patience(self):
        patience = self.fitter.patience
        if patience is None or not np.isfinite(self.best_score):
            return False
        return self.epoch - self.best_epoch >= patience

    def _judge(self, entry):
        """Say what floor an epoch broke, or keep it if it is the best so far."""
        broken = self.floors.broken(entry)
        if broken is not None:
            return f"{broken} at epoch {self.epoch}"
        if entry.get("score", np.inf) < self.best_score:
            self.best_score, self.best_epoch = entry["score"], self.epoch
            self.best = self.state.weights()
        return None

    # ----------------------------------------------------------------------- what does not change
    @torch.no_grad()
    def _keep_features(self):
        """Keep of every survey what the fit does not change: features, and the source's latents."""
        self.features, self.poses, self.places, self.source_latents = [], [], [], None
        for survey, branch in zip(self.surveys, self.branches, strict=True):
            rows = survey.used
            place = np.full(len(survey.cutouts), -1)
            place[rows] = np.arange(len(rows))
            self.places.append(place)
            frozen = branch.number == 0 and not self.shared
            if not (branch.keeps_features or frozen):
                self.features.append(None)
                self.poses.append(None)
                continue
            features, poses, latents = [], [], []
            for batch in self._read(survey, rows):
                kept, pose = branch.features(self._stretched(batch.x))
                if frozen:
                    z_mean, _, pose = branch.posterior(kept, pose)
                    latents.append(z_mean)
                if branch.keeps_features:
                    features.append(kept)
                poses.append(pose)
            self.features.append(torch.cat(features) if features else None)
            self.poses.append(None if poses[0] is None else torch.cat(poses))
            if frozen:
                self.source_latents = torch.cat(latents)

    def _read(self, survey, rows, likelihood=False):
        size = self.fitter.batch_size
        groups = np.array_split(rows, range(size, len(rows), size))
        return iterate_batches(survey.pixels, groups, device=self.device, likelihood=likelihood)

    def _stretched(self, x):
        layer = self.network.stretch_layer
        return x if layer is None else layer(x)

    def _at(self, number, rows):
        return torch.from_numpy(self.places[number][rows]).to(self.device)

    def _kept(self, number, rows):
        """Features and pose of some rows, or `None` where they are not kept."""
        if self.features[number] is None:
            return None
        place, pose = self._at(number, rows), self.poses[number]
        return self.features[number][place], None if pose is None else pose[place]

    @torch.no_grad()
    def _start_corrections(self):
        """Let corrections start as closed-form maps of the training features to the source's."""
        correction = getattr(self.network, "correction", None)
        if correction is None or self.fitter.start == "identity":
            return
        source = self.surveys[0]
        n_features = correction.n_features

        def vectors(number, rows):
            # Of encoders without description the features are mean and log variance.
            return self._kept(number, rows)[0][:, :n_features]

        for number, target in enumerate(self.surveys[1:], start=1):
            rows = target.train
            partner = target.partner[rows]
            paired = (partner >= 0) & np.isin(partner, source.train)
            if self.uses_pairs and paired.sum() > 2 * self.network.latent_dim:
                matrix, offset = paired_transport(
                    vectors(0, partner[paired]),
                    vectors(number, rows[paired]),
                    ridge=_TRANSPORT_RIDGE,
                )
            else:
                matrix, offset = gaussian_transport(
                    vectors(0, source.train), vectors(number, rows), ridge=_TRANSPORT_RIDGE
                )
            correction.start_from(number - 1, matrix.float(), offset.float())

    @property
    def uses_pairs(self):
        """Whether any target row has a partner."""
        return any((survey.partner >= 0).any() for survey in self.surveys[1:])

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
                group["lr"] = rate
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
        entry = {name: value / n for name, value in total.items()} | self._watch()
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
            (0, source_rows, (self.shared and (elbo or self.features[0] is None)) or self._crosses),
            (number, target_rows, elbo or self.features[number] is None),
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
        return self.fitter.method.crosses and self.uses_pairs

    def _step(self, step, images, progress, numpy_generator, torch_generator):
        fitter, (number, source_rows, target_rows, paired) = self.fitter, step
        self.optimiser.zero_grad(set_to_none=True)
        with autocast(fitter.precision, self.device):
            source, target = (
                self._encode(k, rows, batch, numpy_generator)
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

    def _encode(self, number, rows, batch, generator=None):
        """Latents of some rows, and what they came from: a dict."""
        if number == 0 and not self.shared:
            place, features, pose = self._at(0, rows), self.features[0], self.poses[0]
            features = None if features is None else features[place]
            pose = None if pose is None else pose[place]
            z = self.source_latents[place]
            return {"z": z, "features": features, "pose": pose, "batch": batch}
        branch, kept = self.branches[number], self._kept(number, rows)
        if kept is None:
            if generator is not None and self.fitter.augment == "d4":
                batch = batch.turned(generator.integers(8, size=len(batch.x)))
            kept = branch.features(self._stretched(batch.x))
        z_mean, z_log_var, pose = branch.posterior(*kept)
        posterior = (z_mean, z_log_var, pose)
        return {"z": z_mean, "features": kept[0], "batch": batch, "posterior": posterior}

    def _elbo(self, number, encoded, generator):
        network, batch = self.network, encoded["batch"]
        draw = torch.randn((len(batch.x), network.latent_dim), generator=generator)
        terms = self.branches[number].loss_terms(
            network, batch, encoded["features"], encoded["posterior"], draw.to(self.device)
        )
        terms["kl"] = network.beta * terms["kl"]
        return sum(term.mean() for term in terms.values())

    def _cross(self, source, target, paired):
        """Minus the log-likelihood per pixel value of the source's images of pairs."""
        batch, branch = source["batch"], self.branches[0]
        images = (batch.x, batch.ivar, batch.valid)
        batch = Batch(batch.rows, *(part if part is None else part[paired] for part in images))
        pose = source["pose"] if "pose" in source else source["posterior"][2]
        z = target["z"][paired]
        loss = branch.reconstruction(
            self.network, batch, z, None if pose is None else pose[paired]
        ).mean()
        if hasattr(branch.decoder, "auxiliary_loss"):
            loss = loss + branch.decoder.auxiliary_loss(source["features"][paired], z).mean()
        return loss / self.n_values

    # ---------------------------------------------------------------------------------- the watch
    @torch.no_grad()
    def _watch(self):
        """Measures of the rows that are watched: a dict of float."""
        latents, errors = [], []
        for number, survey in enumerate(self.surveys):
            z, error = self._watched(number, survey.watched)
            latents.append(z)
            errors.append(error)
        if not all(np.isfinite(z).all() for z in latents) or not np.isfinite(errors).all():
            raise DivergedError(f"the watched latents became non-finite after epoch {self.epoch}")
        if self.before is None:
            self.first_errors, self.first_variance = errors, latents[0].var(axis=0)
            pool = torch.from_numpy(np.concatenate(latents))
            self.bandwidths = bandwidths_of(pool, pool)
        spread = self.first_variance
        ends = latents if self.shared else latents[1:]
        entry = {
            # Latent by latent, so that variance in few of them does not stand in for all.
            "latent_variance": float(
                min(np.minimum(z.var(axis=0), spread).sum() / spread.sum() for z in ends)
            ),
            "reconstruction_kept": float(
                min(
                    first / max(now, 1e-30)
                    for first, now in zip(self.first_errors, errors, strict=True)
                )
            ),
        }
        worst = {}
        for number, survey in enumerate(self.surveys[1:], start=1):
            scores = score_latents(
                latents[0],
                latents[number],
                self._watched_pairs(survey, latents[0], latents[number]),
                score=self.fitter.score,
                bandwidths=self.bandwidths,
                seed=self.fitter.seed,
            )
            if scores and scores["score"] >= worst.get("score", -np.inf):
                worst = scores
        return entry | worst

    def _watched_pairs(self, survey, source, target):
        place = np.full(len(self.surveys[0].cutouts), -1)
        place[self.surveys[0].watched] = np.arange(len(source))
        partner = survey.partner[survey.watched]
        at = np.where(partner >= 0, place[partner], -1)
        return source[at[at >= 0]], target[at >= 0]

    def _watched(self, number, rows):
        """Latents of some rows, and the mean squared error of their reconstruction per pixel."""
        survey, branch, latents, total, weight = (
            self.surveys[number],
            self.branches[number],
            [],
            0,
            0,
        )
        for batch in self._read(survey, rows, likelihood=True):
            with autocast(self.fitter.precision, self.device):
                encoded = self._encode(number, batch.rows, batch)
                pose = encoded["pose"] if "pose" in encoded else encoded["posterior"][2]
                square, n = branch.squared_error(self.network, batch, encoded["z"], pose)
            latents.append(encoded["z"].float().cpu().numpy())
            total, weight = total + square, weight + n
        return np.concatenate(latents), total / max(weight, 1e-30)

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
        self.best_epoch = record["best_epoch"]
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
            "epochs_run": self.epoch,
            "best_epoch": self.best_epoch,
            "stopped": stopped,
            "collapse": self.collapse,
            "time": float(sum(self.history["time"])),
            "device": str(self.device),
            "versions": software_versions(),
        }
