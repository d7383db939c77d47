"""Forty latents of real galaxies, learned without labels: what a random forest reads from them.

Every representation is fitted, without labels, on the training part alone; a forest of 500 trees is
trained on the labels of that part and scored once on galaxies kept aside.

* ``gz2``: `gz2-votes` (four classes) and `gz2-spiral` (spiral or not); the unlabelled training set
  is the training part of both. Stamps are resized to 212 pixels and their central 128 kept.
* ``efigi``: expert types in six classes, early or late, barred or not, and by regression the
  inclination, bulge fraction and arm strength. Stamps are resized from 88 to 128 pixels.

With ``--folds`` the galaxies kept aside are tested in that many parts, each part by models fitted
on all other galaxies, those of the other parts too: nearly the whole of the set trains each model,
and still nobody is tested by a model that saw them.

Run: python benchmarks/real_galaxies.py gz2 --seeds 1 2 3
Data: ../shared/data (see its README.md), or --data.
"""

import argparse
import copy
import csv
import platform
import time
from pathlib import Path

import astropy.units as u
import numpy as np
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import train_test_split

import astro_morphvae as amv  # its names load torch when first used: after tune_process()

SPLIT_SEED = 2026  # of the galaxies kept aside; nothing was chosen on them
ASIDE = 0.3
N_LATENTS = 40
N_BOOTSTRAP = 2000


def read_stamp(path, resize, crop=128):
    """Colour stamp as (band, y, x) in [0, 1]."""
    image = Image.open(path).convert("RGB").resize((resize, resize), Image.Resampling.LANCZOS)
    start = (resize - crop) // 2
    pixels = np.asarray(image, dtype=np.float32)[start : start + crop, start : start + crop]
    return pixels.transpose(2, 0, 1) / 255.0


class Sample:
    """Stamps, their split, and the questions asked of them."""

    def __init__(self, images, strata):
        self.images, self.questions = images, {}
        rows = np.arange(len(images))
        self.train, self.test = train_test_split(
            rows, test_size=ASIDE, stratify=strata, random_state=SPLIT_SEED
        )

    def fold(self, number, n_folds):
        """Give the sample in which only one part of the galaxies kept aside is tested."""
        part = copy.copy(self)
        part.test = self.test[number::n_folds]
        part.train = np.setdiff1d(np.arange(len(self.images)), part.test)
        return part

    def ask(self, name, values, known=None):
        """Add a question: values by row, of which those where ``known`` is False are left out."""
        known = np.ones(len(values), bool) if known is None else known
        self.questions[name] = (np.asarray(values), np.asarray(known))


def load_gz2(data):
    rows = list(csv.DictReader((data / "gz2-votes/labels.csv").open()))
    images = [read_stamp(data / f"gz2-votes/images/{row['asset_id']}.jpg", 212) for row in rows]
    labels = np.array([row["derived_label"] for row in rows])
    votes = Sample(np.stack(images), labels)
    votes.ask("four classes", labels)
    paths = sorted((data / "gz2-spiral").rglob("*.jpg"))
    labels = np.array([path.parent.name for path in paths])
    spiral = Sample(np.stack([read_stamp(path, 212) for path in paths]), labels)
    spiral.ask("spiral or not", labels)
    return [votes, spiral]


def load_efigi(data):
    rows = list(csv.DictReader((data / "efigi/labels.csv").open()))
    images = np.stack([read_stamp(data / "efigi" / row["file"], 128) for row in rows])
    column = {name: np.array([float(row[name]) for row in rows]) for name in list(rows[0])[2:]}
    six = np.digitize(column["T"], [-3.5, 0.5, 2.5, 4.5, 7.5])
    sample = Sample(images, six)
    sample.ask("six classes", six.astype(str))
    sample.ask("early or late", np.where(column["T"] <= 0, "early", "late"))
    bar = column["Bar_Length"]
    sample.ask("barred", np.where(bar >= 0.5, "yes", "no"), bar >= 0)
    for name in ("Inclination", "Bulge_to_Total", "Arm_Strength"):
        sample.ask(f"R2 {name}", column[name], column[name] >= 0)
    return [sample]


def pixel_pca(samples, seed):
    """PCA of 32 × 32 pixels."""

    def small(images):
        n, n_bands, size, _ = images.shape
        f = size // 32
        return images.reshape(n, n_bands, 32, f, 32, f).mean(axis=(3, 5)).reshape(n, -1)

    fit = np.concatenate([small(sample.images[sample.train]) for sample in samples])
    pca = PCA(N_LATENTS, svd_solver="randomized", random_state=seed).fit(fit)
    return [pca.transform(small(sample.images)) for sample in samples]


def description_pca(part):
    """PCA of the description the default encoder starts from, or of its polar part: no training."""
    return lambda samples, seed: _description_pca(samples, seed, part)


def _description_pca(samples, seed, part):
    import torch

    network = amv.VAE(N_LATENTS, image_size=128, n_bands=3, stretch=None)
    batches = [
        torch.from_numpy(sample.images[sample.train[start : start + 64]])
        for sample in samples
        for start in range(0, len(sample.train), 64)
    ]
    network.adapt(batches)

    def describe(images):
        parts = [
            network.encoder.describe(torch.from_numpy(images[start : start + 64]))[0]
            for start in range(0, len(images), 64)
        ]
        n_polar = network.encoder.invariants.sizes[0]
        return torch.cat(parts).numpy()[:, : n_polar if part == "polar" else None]

    described = [describe(sample.images) for sample in samples]
    fit = np.concatenate([d[s.train] for d, s in zip(described, samples, strict=True)])
    pca = PCA(N_LATENTS, svd_solver="randomized", random_state=seed).fit(fit)
    return [pca.transform(d) for d in described]


def as_cutouts(images):
    return amv.CutoutSet(images, unit=u.dimensionless_unscaled, bands="gri")


def network_latents(architecture, epochs, **options):
    """Latents of a VAE fitted on the training part."""

    def features(samples, seed):
        network = amv.VAE(
            N_LATENTS,
            architecture=architecture,
            image_size=128,
            n_bands=3,
            seed=seed,
            stretch=None,  # these stamps were stretched when they were made
            architecture_options=options,
        )
        fitter = amv.VAEFitter(
            epochs=epochs,
            batch_size=64,
            learning_rate=2e-3 if architecture == "default" else 1e-3,
            schedule="cosine",
            validation_fraction=0.0,
            seed=seed,
            progress=False,
        )
        images = np.concatenate([sample.images[sample.train] for sample in samples])
        model = fitter(amv.LatentModel(network), as_cutouts(images))
        return [np.asarray(model.encode(as_cutouts(s.images))["z_mean"]) for s in samples]

    return features


def score(sample, features, name, seed):
    """Predictions and truths of the galaxies kept aside, with every training label used."""
    values, known = sample.questions[name]
    train, test = (rows[known[rows]] for rows in (sample.train, sample.test))
    forest = RandomForestRegressor if name.startswith("R2") else RandomForestClassifier
    model = forest(500, random_state=seed, n_jobs=-1).fit(features[train], values[train])
    return model.predict(features[test]), values[test]


def score_all(samples, features, seed):
    """`score` of every question, by its name."""
    return {
        name: score(sample, own, name, seed)
        for sample, own in zip(samples, features, strict=True)
        for name in sample.questions
    }


def figures_of(name, truth, predicted):
    if name.startswith("R2"):
        return (r2_score(truth, predicted),)
    return ((truth == predicted).mean(), balanced_accuracy_score(truth, predicted))


def interval(name, runs):
    """Mean over seeds of each figure, 68 % bootstrap interval over galaxies, SD over seeds."""
    truth = runs[0][1]
    values = np.array([figures_of(name, truth, predicted) for predicted, _ in runs])
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(N_BOOTSTRAP // len(runs)):
        rows = generator.integers(len(truth), size=len(truth))
        draws.append(np.mean([figures_of(name, truth[rows], p[rows]) for p, _ in runs], axis=0))
    low, high = np.percentile(draws, [16, 84], axis=0)
    return values.mean(axis=0), low, high, values.std(axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=("gz2", "efigi"))
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--folds", type=int, default=1, help="parts in which to test those aside")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--threads", type=int, help="all cores by default")
    parser.add_argument("--only", nargs="+", help="names of the representations to run")
    arguments = parser.parse_args()
    amv.tune_process(threads=arguments.threads)
    if not arguments.data.is_dir():
        parser.error(f"--data {str(arguments.data)!r} is not a directory")
    samples = {"gz2": load_gz2, "efigi": load_efigi}[arguments.set](arguments.data)
    epochs = arguments.epochs
    representations = {
        "pca": pixel_pca,
        "reference": network_latents("xu2023", 2 * epochs),
        "residual": network_latents("residual", epochs),
        "polar-pca": description_pca("polar"),
        "description-pca": description_pca("all"),
        "default": network_latents("default", epochs),
    }
    chosen = arguments.only or list(representations)
    print(
        f"{arguments.set}: {[len(s.train) for s in samples]} train, "
        f"{[len(s.test) for s in samples]} kept aside (split {SPLIT_SEED}), tested in "
        f"{arguments.folds} part(s); seeds "
        f"{arguments.seeds}; {platform.processor() or platform.machine()}"
    )
    for sample in samples:
        for name, (values, known) in sample.questions.items():
            if not name.startswith("R2"):
                counts = np.unique(values[sample.test][known[sample.test]], return_counts=True)[1]
                print(f"{'majority':16s} {name:18s} {counts.max() / counts.sum():.3f}")
    folds = [
        [sample.fold(k, arguments.folds) for sample in samples] for k in range(arguments.folds)
    ]
    if arguments.folds == 1:
        folds = [samples]
    for label in chosen:
        start = time.perf_counter()
        parts = [
            [score_all(fold, representations[label](fold, seed), seed) for fold in folds]
            for seed in arguments.seeds
        ]
        elapsed = (time.perf_counter() - start) / len(arguments.seeds)
        for name in parts[0][0]:
            runs = [np.concatenate([part[name] for part in run], axis=1) for run in parts]
            mean, low, high, spread = interval(name, runs)
            text = "  ".join(
                f"{m:.3f} [{a:.3f}, {b:.3f}] sd {s:.3f}"
                for m, a, b, s in zip(mean, low, high, spread, strict=True)
            )
            print(f"{label:16s} {name:18s} {text}   ({elapsed:.0f} s a seed)", flush=True)


if __name__ == "__main__":
    main()
