"""How well a classifier tells two surveys apart: area under its ROC curve, cross-validated."""

import numpy as np

from ._samples import join

__all__ = ["N_TREES", "domain_auc", "fold_scores", "weighted_auc"]

N_TREES = 100
"""Number of trees of the forest that tells surveys apart."""


def domain_auc(a, b, *, classifier="forest", n_folds=5, pairs=None, seed=0, n_jobs=1):
    """Area under the ROC curve of a classifier that tells two samples apart, cross-validated.

    Parameters
    ----------
    a, b : (n_a, d) and (n_b, d) array
        The samples.
    classifier : {"forest", "logistic"} or scikit-learn classifier
        Random forest, logistic regression on standardised latents, or one with ``predict_proba``.
    n_folds : int
        Number of folds.
    pairs : (k, 2) array of int, optional
        Rows of ``a`` and ``b`` that are the same galaxy, which are kept in one fold: otherwise a
        classifier would know a galaxy from the other survey.
    seed : int
        Seed of the folds and the classifier.
    n_jobs : int
        Number of threads of the forest.

    Returns
    -------
    float
        Probability that a galaxy of ``b`` looks more like ``b`` than another one of ``a`` does: 0.5
        where the samples cannot be told apart, 1 where they always can.

    Raises
    ------
    ValueError
        If shapes do not fit, or there are fewer galaxies than folds.
    """
    samples = join(a, b, pairs)
    score, fold = fold_scores(samples, classifier, n_folds, seed, n_jobs)
    weights = np.zeros((2, 1, len(score)))
    weights[0, 0, : samples.n_a] = weights[1, 0, samples.n_a :] = 1
    return float(weighted_auc(score, fold, *weights, samples.pairs)[0])


def fold_scores(samples, classifier, n_folds, seed, n_jobs=1):
    """Probability of the second survey for each galaxy, from classifiers that did not see it.

    Parameters
    ----------
    samples : Samples
        Latents and pairs.
    classifier, n_folds, seed, n_jobs
        See `domain_auc`.

    Returns
    -------
    score : (n,) array of float
        The probabilities.
    fold : (n,) array of int
        Fold of each row; scores of different folds come from different classifiers.
    """
    from sklearn.base import clone

    if n_folds < 2 or min(samples.n_a, samples.n_b) < n_folds:
        raise ValueError(
            f"n_folds={n_folds!r} must be at least 2, and at most the {samples.n_a} and "
            f"{samples.n_b} galaxies of the two surveys"
        )
    fold = _folds(samples, n_folds, seed)
    y = np.arange(len(samples.x)) >= samples.n_a
    made = _make(classifier, seed, n_jobs)
    score = np.empty(len(y))
    for k in range(n_folds):
        test = fold == k
        fitted = clone(made).fit(samples.x[~test], y[~test])
        score[test] = fitted.predict_proba(samples.x[test])[:, 1]
    return score, fold


def weighted_auc(score, fold, weights_a, weights_b, pairs):
    """Area under the ROC curve of weighted samples, from couples within one fold.

    Parameters
    ----------
    score : (n,) array
        Scores, larger for the second survey.
    fold : (n,) array of int
        Fold of each row.
    weights_a, weights_b : (n_sample, n) array
        How often each row counts as one of either survey.
    pairs : (k, 2) array of int
        Rows that are the same galaxy. They make no couple: a bootstrap sample would hold too many.

    Returns
    -------
    (n_sample,) array of float
        Share of the couples whose second galaxy has the larger score; equal ones count half.
    """
    one, two = pairs.T
    own = weights_a[:, one].astype(float) * weights_b[:, two]
    ahead = 0.5 * (1 + np.sign(score[two] - score[one]))
    won, couples = -own @ ahead, -own.sum(axis=1)
    for k in np.unique(fold):
        rows = np.flatnonzero(fold == k)
        rows = rows[np.argsort(score[rows], kind="stable")]
        starts = np.flatnonzero(np.diff(score[rows], prepend=-np.inf))
        a, b = (
            np.add.reduceat(w[:, rows].astype(float), starts, axis=1)
            for w in (weights_a, weights_b)
        )
        below = np.cumsum(a, axis=1) - a / 2
        won += np.sum(b * below, axis=1)
        couples += a.sum(axis=1) * b.sum(axis=1)
    return won / couples


def _folds(samples, n_folds, seed):
    """Share paired galaxies, and the others of either survey, equally among the folds."""
    rng = np.random.default_rng([seed, 4])
    fold = np.empty(len(samples.x), dtype=int)
    free = np.setdiff1d(np.arange(len(fold)), samples.pairs)
    last = 0
    for rows in (samples.pairs[:, 0], free[free < samples.n_a], free[free >= samples.n_a]):
        # Each lot goes on where the one before it ended, so that no fold is left without any.
        fold[rows] = rng.permutation((last + np.arange(len(rows))) % n_folds)
        last = 0 if not len(rows) else (last + len(rows)) % n_folds
    fold[samples.pairs[:, 1]] = fold[samples.pairs[:, 0]]
    return fold


def _make(classifier, seed, n_jobs):
    if not isinstance(classifier, str):
        if not hasattr(classifier, "predict_proba"):
            raise TypeError(f"classifier={classifier!r} has no predict_proba")
        return classifier
    if classifier == "forest":
        from sklearn.ensemble import RandomForestClassifier

        # Half of the galaxies for each tree: twice as fast, and as good at telling surveys apart.
        return RandomForestClassifier(
            N_TREES,
            min_samples_leaf=5,
            max_samples=0.5,
            class_weight="balanced",
            random_state=seed,
            n_jobs=n_jobs,
        )
    if classifier == "logistic":
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)
        )
    raise ValueError(
        f"classifier={classifier!r} is neither 'forest' nor 'logistic', nor a classifier"
    )
