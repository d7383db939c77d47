"""The main job, end to end, on simulated galaxies: cutouts in, tables and figures out.

Run by ``morphvae demo``. Galaxies kept aside are seen neither by the auto-encoder nor by the
classifiers; on them the latents are compared with the majority answer and with 40 principal
components under the same classifier.
"""

import contextlib
import time
import warnings
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import QTable, vstack
from tqdm import tqdm

from ._optional import import_optional
from ._writing import writing
from .exceptions import MorphVAEWarning

__all__ = ["run_demo"]

_FIELD_OF_VIEW = 128 * 0.262 * u.arcsec
_LATENT_DIM = 40
_FIRST_QUESTION = "smooth-or-featured"
_CONTENTS = {
    "catalog.ecsv": "the simulated galaxies: positions, votes, true parameters",
    "model.keras": "the fitted model",
    "latents.ecsv": "one row a galaxy: latents with uncertainties",
    "morphology.ecsv": "one row a galaxy: labels and probabilities",
    "evaluation.ecsv": "scores on the galaxies kept aside, with intervals",
    "classifier.skops": "the fitted classifier",
    "overview.png": "galaxies, their reconstructions, and the map of their latents",
    "galaxies.png": "some galaxies, with the labels given to them",
    "reconstructions.png": "galaxies, their reconstructions, and what is left",
    "latent_map.png": "the latents in two dimensions, by label",
    "confusion.png": "labels given against true labels",
    "training.png": "the course of the fit",
}


def run_demo(
    output,
    *,
    n=3000,
    size=64,
    epochs=16,
    seed=1,
    progress=True,
    report=None,
):
    """Simulate, fit, encode, classify, evaluate and draw.

    Parameters
    ----------
    output : path-like
        Folder for the results, made if need be; files of an earlier run in it are replaced.
    n : int, optional
        Number of galaxies to simulate; 30 % of them are kept aside.
    size : int, optional
        Side of the cutouts in pixels. Their field of view is always that of 128 DECaLS pixels.
    epochs : int, optional
        Epochs of the fit.
    seed : int, optional
        Seed of everything.
    progress : bool, optional
        Show progress bars.
    report : callable, optional
        Called with each line of the report; nothing is said by default.

    Returns
    -------
    `~astropy.table.QTable`
        One row a question and method ("latents", "PCA(40)"): scores on the galaxies kept aside, as
        `~astro_morphvae.morphology.evaluate` gives them. ``meta["times"]`` has seconds a stage.
    """
    import_optional("matplotlib", needed_for="the figures of the demo")
    from . import MorphologyFitter, datasets
    from .morphology import evaluate, pca_features

    report = report or (lambda line="": None)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    results = _Folder(output)
    clock = _Clock()

    report(f"simulating {n} galaxies as DECaLS sees them, {size} x {size} pixels ...")
    with clock("simulate"):
        galaxies = datasets.make_galaxies(
            n, size=size, pixel_scale=_FIELD_OF_VIEW / size, seed=seed
        )
    fitter = MorphologyFitter(tree="gz-decals", n_jobs=-1, seed=seed)
    test = fitter.split(galaxies.catalog, galaxies.catalog)
    results.table("catalog.ecsv", galaxies.catalog)

    report(f"fitting the auto-encoder to {np.sum(~test)} of them, without labels ...")
    with clock("fit"):
        model = _fit(galaxies[~test], epochs=epochs, seed=seed, progress=progress)
    results.write("model.keras", lambda path: model.write(path, overwrite=True))

    report("encoding all of them ...")
    with clock("encode"):
        latents = model.encode(galaxies, progress=progress)
    results.table("latents.ecsv", latents)

    report("classifying: the same forest on latents and on principal components ...")
    with clock("classify"):
        features = {
            "latents": latents,
            f"PCA({_LATENT_DIM})": pca_features(galaxies, _LATENT_DIM, fit_rows=~test),
        }
        classifiers, scores = {}, []
        for name in tqdm(features, desc="classify", disable=not progress):
            with _quiet_about_rare_answers():
                classifiers[name] = fitter(features[name], galaxies.catalog, test_rows=test)
            table = evaluate(
                classifiers[name], features[name], galaxies.catalog, rows=test, seed=seed
            )
            table.add_column(np.full(len(table), name), name="method", index=0)
            scores.append(table)
        labels = classifiers["latents"](latents)
    evaluation = vstack(scores, metadata_conflicts="silent")
    results.table("morphology.ecsv", labels)
    results.table("evaluation.ecsv", evaluation)
    results.write(
        "classifier.skops", lambda path: classifiers["latents"].write(path, overwrite=True)
    )

    report("drawing ...")
    with clock("draw"):
        _draw(results, model, galaxies, test, latents, labels, classifiers["latents"])

    _report_scores(report, scores, int(test.sum()))
    report()
    report("seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in clock.times.items()))
    report(f"tables and figures are in {output.absolute()}:")
    for name, text in results.made.items():
        report(f"  {name:24s} {text}")
    evaluation.meta["times"] = dict(clock.times)
    return evaluation


def _fit(galaxies, *, epochs, seed, progress):
    from . import VAE, LatentModel, VAEFitter

    network = VAE(_LATENT_DIM, image_size=galaxies.size[0], n_bands=galaxies.n_bands, seed=seed)
    fitter = VAEFitter(
        epochs=epochs, batch_size=64, schedule="cosine", seed=seed, progress=progress
    )
    return fitter(LatentModel(network), galaxies)


@contextlib.contextmanager
def _quiet_about_rare_answers():
    # A small sample lacks examples of the rarest answers; the table of scores shows which.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="too few training", category=MorphVAEWarning)
        yield


def _draw(results, model, galaxies, test, latents, labels, classifier):
    """Draw the figures, of galaxies that were kept aside."""
    from . import plotting
    from .morphology import confusion_counts, select_labels

    rows = np.flatnonzero(test & galaxies.good)
    shown = galaxies[rows]
    labelled = [_caption(row) for row in labels[rows]]
    results.figure("galaxies.png", plotting.plot_cutouts(shown, n=24, titles=labelled))

    some = shown[:8]
    again = model.reconstruct(some)
    results.figure("reconstructions.png", plotting.plot_reconstructions(some, again, n=8))

    votes = galaxies.catalog
    results.figure(
        "latent_map.png",
        plotting.plot_latent_map(
            latents[rows], votes["true_class"][rows], shown, title="true class", n_thumbnails=80
        ),
    )

    results.figure("overview.png", _draw_overview(some, again, latents[rows], shown, votes[rows]))

    tree = classifier.tree
    truth = {name: select_labels(votes, tree, name) for name in classifier.questions}
    truth = QTable({"id": votes["id"], **truth})[rows]
    results.figure("confusion.png", _draw_confusion(labels[rows], truth, confusion_counts))
    results.figure("training.png", plotting.plot_training(model.fit_info))


def _caption(row):
    """Return what a galaxy is, as far down the tree as a word for it reaches, and how probable."""
    question, word = _FIRST_QUESTION, str(row[_FIRST_QUESTION])
    if word == "featured-or-disk":
        question, word = "disk-edge-on", "edge-on"
        if row[question] == "no":
            question = "has-spiral-arms"
            word = "spiral" if row[question] == "yes" else "disk"
    probability = row[f"{question}_reach"] * row[f"{question}_{row[question]}_probability"]
    return f"{word} {100 * probability:.0f} %"


def _draw_overview(some, again, latents, shown, votes):
    """Draw what goes in and comes out, beside the map of latents."""
    from . import plotting

    plt = import_optional("matplotlib.pyplot", needed_for="the figures of the demo")
    figure = plt.figure(figsize=(15.5, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.75, 1))
    plotting.plot_reconstructions(some, again, n=6, ax=left)
    plotting.plot_latent_map(
        latents, votes["true_class"], shown, title="true class", n_thumbnails=60, ax=right
    )
    return [left, right]


def _draw_confusion(labels, truth, confusion_counts):
    """Draw the confusion matrices of all questions on one figure."""
    from .plotting import plot_confusion

    plt = import_optional("matplotlib.pyplot", needed_for="the figures of the demo")
    names = [name for name in truth.colnames if name != "id"]
    _, axes = plt.subplots(2, -(-len(names) // 2), figsize=(22, 10), layout="constrained")
    for name, ax in zip(names, axes.flat, strict=False):
        known, counts = confusion_counts(labels, truth, name)
        plot_confusion(counts, known, title=name, ax=ax)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    return axes


def _report_scores(report, scores, n_test):
    """Report balanced accuracy by question and method, on the galaxies kept aside."""
    methods = [table["method"][0] for table in scores]
    report()
    report(f"balanced accuracy on {n_test} galaxies kept aside (95 % interval)")
    report(f"  {'question':22s} {'n':>4s}  majority" + "".join(f"  {m:>16s}" for m in methods))
    for row in range(len(scores[0])):
        first = scores[0][row]
        cells = "".join(
            f"  {t['balanced_accuracy'][row]:.2f} ({t['balanced_accuracy_low'][row]:.2f}-"
            f"{t['balanced_accuracy_high'][row]:.2f})"
            for t in scores
        )
        report(
            f"  {first['question']:22s} {first['n_test']:4d}  "
            f"{first['majority_balanced_accuracy']:8.2f}{cells}"
        )
    means = [np.nanmean(table["balanced_accuracy"]) for table in scores]
    majority = np.nanmean(scores[0]["majority_balanced_accuracy"])
    cells = "".join(f"  {mean:.2f}{'':12s}" for mean in means)
    report(f"  {'mean':22s} {'':4s}  {majority:8.2f}{cells}")


class _Clock:
    """Seconds that each stage takes."""

    def __init__(self):
        self.times = {}

    @contextlib.contextmanager
    def __call__(self, name):
        start = time.perf_counter()
        yield
        self.times[name] = time.perf_counter() - start


class _Folder:
    """Files of the run, each written beside and renamed, and what is in them."""

    def __init__(self, path):
        self.path = path
        self.made = {}

    def write(self, name, function):
        """Call ``function`` with a path to write to, then give the file its name."""
        with writing(self.path / name) as part:
            function(part)
        self.made[name] = _CONTENTS[name]

    def table(self, name, table):
        """Write a table."""
        self.write(name, lambda path: table.write(path, format="ascii.ecsv"))

    def figure(self, name, axes):
        """Write the figure of some Axes, and close it."""
        figure = np.ravel(axes)[0].figure
        self.write(name, lambda path: figure.savefig(path, dpi=90, bbox_inches="tight"))
        import_optional("matplotlib.pyplot", needed_for="the demo").close(figure)
