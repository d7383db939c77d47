"""Scores of labels and latents across surveys, with intervals, as `domain_adaptation.py` tables."""

import numpy as np
from domain_rivals import MATCHED, RECIPE, REFERENCE
from domain_sets import SPLIT_SEED
from sklearn.ensemble import RandomForestClassifier

N_BOOTSTRAP = 1000
DIRECTIONS = {
    "within_source": ("source", "source"),
    "source_to_target": ("source", "target"),
    "target_to_source": ("target", "source"),
    "within_target": ("target", "target"),
}
MEANS = (
    *("auc_forest", "auc_logistic", "recall_at_1", "chi2_source", "chi2_target"),
    *("best_epoch", "seconds"),
)
LEAST = ("latent_variance", "reconstruction_kept")  # of the floors: the worst of the seeds


def predictions(galaxies, z, seed):
    """Labels of the test galaxies by (trained on, tested on, question)."""
    out = {}
    for name, (label, known) in galaxies.questions.items():
        rows = galaxies.train[known[galaxies.train]]
        for one in ("source", "target"):
            forest = RandomForestClassifier(
                100, min_samples_leaf=2, class_weight="balanced", random_state=seed, n_jobs=-1
            ).fit(z[one][rows], label[rows])
            for other in ("source", "target"):
                out[one, other, name] = forest.predict(z[other][galaxies.test])
    return out


def mean_recall(truth, right, weights):
    """Balanced accuracy for every row of ``weights``; a truth of "" is not counted."""
    recalls = []
    for value in np.unique(truth[truth != ""]):
        of_class = weights * (truth == value)
        recalls.append((of_class * right).sum(axis=1) / of_class.sum(axis=1).clip(1e-9))
    return np.mean(recalls, axis=0)


def balanced_accuracy(galaxies, predicted, weights):
    """Mean over the questions, for every row of ``weights`` of the test galaxies."""
    by_question = []
    for name, (label, known) in galaxies.questions.items():
        truth = np.where(known, label, "")[galaxies.test]
        by_question.append(mean_recall(truth, predicted[name] == truth, weights))
    return np.mean(by_question, axis=0)


def bootstrap_weights(n):
    """How often each of ``n`` galaxies counts: once, then in N_BOOTSTRAP bootstrap samples."""
    draws = np.random.default_rng(SPLIT_SEED).multinomial(n, np.full(n, 1 / n), N_BOOTSTRAP)
    return np.concatenate([np.ones((1, n)), draws])


def interval(values):
    """95 % of bootstrapped values, NaN aside."""
    values = values[np.isfinite(values)]
    return np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)


def recall_at_1(source, target):
    """Share of galaxies whose nearest in the other survey, in standardised latents, is themselves.

    Mean of both ways.
    """
    center, spread = source.mean(axis=0), source.std(axis=0)
    a, b = ((z - center) / spread for z in (source, target))
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    rows = np.arange(len(a))
    return float(np.mean([square.argmin(axis=k) == rows for k in (0, 1)]))


def score_latents(galaxies, z, seed, weights):
    """Scores of one method and seed: accuracy by direction, and how far the surveys are apart."""
    from astro_morphvae.analysis import domain_auc

    predicted = predictions(galaxies, z, seed)
    entry = {}
    for name, (one, other) in DIRECTIONS.items():
        labels = {q: given for (a, b, q), given in predicted.items() if (a, b) == (one, other)}
        entry[name] = balanced_accuracy(galaxies, labels, weights)
    a, b = (z[survey][galaxies.test] for survey in ("source", "target"))
    # A galaxy is in one half only, so that it is not known from the other survey.
    order = np.random.default_rng(SPLIT_SEED).permutation(len(a))
    halves = np.array_split(order, 2)
    for kind in ("forest", "logistic"):
        entry[f"auc_{kind}"] = domain_auc(a[halves[0]], b[halves[1]], classifier=kind, seed=seed)
    entry["recall_at_1"] = recall_at_1(a, b)
    entry["latent_variance"] = float(b.var(axis=0).sum() / a.var(axis=0).sum())
    return entry


def summarise(galaxies, name, found):
    """One row: means over the seeds, bootstrap intervals of the test galaxies."""

    def mean(which, method=name):
        values = [entry[which] for entry in found[method] if which in entry]
        return np.mean(values, axis=0) if values else None

    def add(label, values):
        values = np.full(N_BOOTSTRAP + 1, np.nan) if values is None else values
        row[label] = float(values[0])
        row[f"{label}_low"], row[f"{label}_high"] = interval(values[1:])

    row = {"set": galaxies.name, "method": name, "n_seeds": len(found[name])}
    row["n_train"], row["n_test"] = len(galaxies.train), len(galaxies.test)
    for label in DIRECTIONS:
        add(label, mean(label))
        by_seed = [entry[label][0] for entry in found[name] if label in entry]
        row[f"{label}_scatter"] = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else np.nan
    across, before = mean("source_to_target"), mean("source_to_target", REFERENCE)
    ceiling = mean("within_source", REFERENCE)
    add("gain", across - before)
    add("below_within", across - ceiling)
    add("gap_recovered", (across - before) / np.where(ceiling > before, ceiling - before, np.nan))
    for label, rival in (("gain_over_matching", MATCHED), ("gain_over_recipe", RECIPE)):
        add(label, across - mean("source_to_target", rival) if rival in found else None)
    for label in MEANS:
        value = mean(label)
        row[label] = np.nan if value is None else float(value)
    for label in LEAST:
        row[f"least_{label}"] = float(min(entry.get(label, np.nan) for entry in found[name]))
    row["collapsed"] = int(sum(entry.get("collapsed", 0) for entry in found[name]))
    return row
