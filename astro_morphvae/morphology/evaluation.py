"""Scores of a classifier on galaxies set aside, with intervals, beside the majority baseline."""

import copy
import warnings

import numpy as np
from astropy.table import Column, QTable, Table, vstack

from .. import __version__
from .._latent_tables import as_features, as_ids, good_rows
from ..exceptions import MorphVAEWarning
from ._tables import match_rows
from .fitter import MorphologyFitter
from .labels import select_labels
from .metrics import SCORES, bootstrap_weights, interval, score_sums

__all__ = [
    "compare_features",
    "confusion_counts",
    "evaluate",
    "evaluate_predictions",
    "label_confidence",
]

_MAJORITY = ("accuracy", "balanced_accuracy", "macro_f1")


def evaluate(
    classifier,
    latents,
    votes,
    *,
    rows="held-out",
    n_bootstrap=1000,
    confidence=0.95,
    n_bins=15,
    seed=0,
):
    """Score a classifier on galaxies that it was not fitted to.

    Parameters
    ----------
    classifier : MorphologyClassifier
        The classifier.
    latents : `~astropy.table.QTable`
        Latents, those that it was fitted to or others.
    votes : `~astropy.table.Table`
        Vote fractions, joined by ``id`` or row-aligned.
    rows : "held-out", "all", or (n,) array of bool
        Rows of ``latents`` to use: those of galaxies set aside when fitting, recognised by ``id``
        (or, without ids, by their rows in the same table); all; or a choice.
    n_bootstrap, confidence, n_bins, seed
        See `evaluate_predictions`.

    Returns
    -------
    `~astropy.table.QTable`
        One row a question, see `evaluate_predictions`.

    Raises
    ------
    ValueError
        If none of the galaxies set aside are in ``latents``, or the tables do not match.

    Warns
    -----
    MorphVAEWarning
        If ``rows`` holds galaxies that the classifier was trained on.
    """
    rows = _chosen_rows(classifier, latents, rows)
    chosen = latents[rows]
    place = match_rows(latents, votes)[rows]
    predictions = classifier(chosen)
    truth = _truth(classifier, votes, place)
    return evaluate_predictions(
        predictions,
        truth,
        n_bootstrap=n_bootstrap,
        confidence=confidence,
        n_bins=n_bins,
        seed=seed,
    )


def evaluate_predictions(
    predictions, truth, *, n_bootstrap=1000, confidence=0.95, n_bins=15, seed=0
):
    """Score a table of labels against true labels.

    Parameters
    ----------
    predictions : `~astropy.table.QTable`
        Returned by a `MorphologyClassifier`.
    truth : `~astropy.table.Table`
        A column of labels for each question to score, under the question's name, masked where a
        galaxy has none; from `select_labels`, for instance. Joined by ``id``, or row-aligned.
    n_bootstrap : int
        Number of bootstrap samples of the galaxies.
    confidence : float
        Probability enclosed by the intervals.
    n_bins : int
        Number of bins of the expected calibration error.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    `~astropy.table.QTable`
        One row a question: ``question``, ``n_classes``, ``n_test`` (galaxies scored),
        ``n_excluded`` (bad rows, and labels that the classifier does not know) and, for
        ``accuracy``, ``balanced_accuracy``, ``macro_f1`` and ``ece`` (expected calibration error
        [1]_), the value and the ends of its bootstrap interval (``<score>_low``,
        ``<score>_high``). ``majority_<score>`` is what one gets by always answering with the most
        frequent label of the training galaxies. NaN where no galaxy is scored.

    Raises
    ------
    ValueError
        If the tables do not match, or have no question in common.

    References
    ----------
    .. [1] Guo et al. 2017, Proc. 34th Int. Conf. on Machine Learning, 1321 (arXiv:1706.04599).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence!r}")
    scored = _score_all(predictions, truth, n_bootstrap, n_bins, seed)
    return _table(scored, confidence, predictions.meta, n_bootstrap, n_bins, seed)


def confusion_counts(predictions, truth, question):
    """Confusion matrix of one question.

    Parameters
    ----------
    predictions, truth : `~astropy.table.Table`
        As for `evaluate_predictions`.
    question : str
        The question.

    Returns
    -------
    labels : list of str
        The labels, in the order of the matrix.
    counts : (k, k) array of int
        Number of galaxies by true label (row) and label given (column).

    Raises
    ------
    ValueError
        If either table lacks the question.
    """
    _check_question(predictions, truth, question)
    place = match_rows(predictions, truth)
    labels, true, given, _, _ = _coded(predictions, truth, place, question)
    counts = np.bincount(true * len(labels) + given, minlength=len(labels) ** 2)
    return labels, counts.reshape(len(labels), -1)


def label_confidence(predictions, truth, question):
    """How sure the classifier was of each label, and whether it was right.

    Parameters
    ----------
    predictions, truth : `~astropy.table.Table`
        As for `evaluate_predictions`.
    question : str
        The question.

    Returns
    -------
    confidence : (n,) array of float
        Probability of the label given, for the n galaxies that have both labels.
    correct : (n,) array of bool
        Whether it is the true one.

    Raises
    ------
    ValueError
        If either table lacks the question.
    """
    _check_question(predictions, truth, question)
    place = match_rows(predictions, truth)
    _, true, given, sure, _ = _coded(predictions, truth, place, question)
    return sure, true == given


def _check_question(predictions, truth, question):
    if question not in _labels_of(predictions) or question not in truth.colnames:
        raise ValueError(f"question={question!r} is not a column of both predictions and truth")


def compare_features(
    features,
    votes,
    *,
    fitter=None,
    seeds=(0,),
    reference=None,
    n_bootstrap=1000,
    confidence=0.95,
    n_bins=15,
):
    """Score the same classifier on several tables of features, all on the same galaxies.

    Parameters
    ----------
    features : dict of str to (`~astropy.table.QTable` or callable)
        Row-aligned tables that hold the fitter's column of features; or functions that make one,
        given the (n,) bool array of rows to be trained on, so that a feature that is itself fitted
        (such as `pca_features`) does not see the galaxies set aside. The first must be a table.
    votes : `~astropy.table.Table`
        Vote fractions, joined by ``id`` or row-aligned.
    fitter : MorphologyFitter, optional
        How to fit; the default fitter if not given. Its seed is replaced by each of ``seeds``.
    seeds : sequence of int
        One split, with its own fits, for each.
    reference : str, optional
        Key of ``features`` against which gains in balanced accuracy are measured, in paired
        bootstrap samples of the same galaxies.
    n_bootstrap, confidence, n_bins
        See `evaluate_predictions`.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each seed, table of features and question, in this order: ``features``,
        ``seed``, the columns of `evaluate_predictions`, and with a ``reference``
        ``balanced_accuracy_gain`` with its interval.

    Raises
    ------
    ValueError
        If the tables are not row-aligned, or ``reference`` is not among them.

    Examples
    --------
    >>> from astro_morphvae.morphology import compare_features, pca_features
    >>> table = compare_features(
    ...     {"latents": latents,
    ...      "PCA(40)": lambda rows: pca_features(cutouts, 40, fit_rows=rows)},
    ...     votes, seeds=(0, 1, 2), reference="PCA(40)")  # doctest: +SKIP
    """
    fitter = MorphologyFitter() if fitter is None else fitter
    if reference is not None and reference not in features:
        raise ValueError(f"reference={reference!r} is none of the features {list(features)}")
    first = next(iter(features.values()), None)
    if not isinstance(first, Table):
        raise ValueError("features must begin with a table; functions may follow")

    parts = []
    for seed in seeds:
        seeded = copy.copy(fitter)
        seeded.seed = seed
        tables, test, good = _same_split(features, votes, seeded)
        place = match_rows(first, votes)
        scored = {}
        for name, table in tables.items():
            usable = table.copy(copy_data=False)
            usable["status"] = np.where(good, "ok", "not usable in every table")
            with warnings.catch_warnings():
                if parts or scored:  # said once: the labels are the same for all tables
                    warnings.filterwarnings("ignore", "too few training", MorphVAEWarning)
                classifier = seeded(usable, votes, test_rows=test)
            predictions = classifier(table[test & good])
            truth = _truth(classifier, votes, place[test & good])
            scored[name] = _score_all(predictions, truth, n_bootstrap, n_bins, seed)
        for name, item in scored.items():
            part = _table(item, confidence, {}, n_bootstrap, n_bins, seed)
            part.add_column(Column([name] * len(part), name="features"), index=0)
            part.add_column(Column([seed] * len(part), name="seed"), index=1)
            if reference is not None:
                _add_gain(part, item, scored[reference], confidence)
            parts.append(part)
    out = vstack(parts, metadata_conflicts="silent")
    out.meta = {
        "fitter": fitter._settings(),
        "seeds": list(seeds),
        "confidence": confidence,
        "n_bootstrap": n_bootstrap,
        "n_bins": n_bins,
        "reference": reference,
        "version": __version__,
    }
    return out


def _same_split(features, votes, fitter):
    """Return all tables, the rows set aside, and the rows that are good in every table."""
    tables = {name: value for name, value in features.items() if isinstance(value, Table)}
    first_name, first = next(iter(tables.items()))
    good = np.ones(len(first), dtype=bool)

    def check(name, table):
        ids, own = as_ids(first), as_ids(table)
        if len(table) != len(first) or (ids is not None and own is not None and (ids != own).any()):
            raise ValueError(f"features[{name!r}] is not row-aligned with features[{first_name!r}]")
        return good_rows(table, as_features(table, fitter.features))

    for name, table in tables.items():
        good &= check(name, table)
    shared = first.copy(copy_data=False)
    shared["status"] = np.where(good, "ok", "not usable in every table")
    test = fitter.split(shared, votes)
    for name, make in features.items():
        if name not in tables:
            tables[name] = make(good & ~test)
            good &= check(name, tables[name])
    return {name: tables[name] for name in features}, test, good


def _chosen_rows(classifier, latents, rows):
    """Return which rows to score, (n,) bool; warn if some were trained on."""
    split, ids = classifier.split, as_ids(latents)
    n = len(latents)

    def members(part):
        if ids is not None and split[f"{part}_ids"] is not None:
            return np.isin(ids, split[f"{part}_ids"])
        found = np.zeros(n, dtype=bool)
        if n == split["n_rows"]:
            found[split[f"{part}_rows"]] = True
        return found

    if isinstance(rows, str):
        if rows == "held-out":
            chosen = members("test")
            if not chosen.any():
                raise ValueError(
                    "latents holds none of the galaxies set aside when fitting; pass rows='all' "
                    "to score galaxies that are new to the classifier"
                )
            return chosen
        if rows != "all":
            raise ValueError(f"rows={rows!r} is neither 'held-out' nor 'all', nor an array")
        chosen = np.ones(n, dtype=bool)
    else:
        chosen = np.asarray(rows)
        if chosen.dtype != bool or chosen.shape != (n,):
            raise ValueError(
                f"rows must be a bool array of shape {(n,)}, not {chosen.dtype} of shape "
                f"{chosen.shape}"
            )
    # Without ids, another table of the same length cannot be told from the one fitted to.
    if ids is not None and (seen := int(np.sum(chosen & members("train")))):
        warnings.warn(
            f"rows holds {seen} galaxies that the classifier was trained on: scores are too good",
            MorphVAEWarning,
            stacklevel=3,
        )
    return chosen


def _truth(classifier, votes, place):
    """Return a table of true labels, row-aligned with ``place`` (rows of votes, -1 for none)."""
    truth = Table()
    for name in classifier.questions:
        column = select_labels(
            votes,
            classifier.tree,
            classifier[name].rule,
            min_votes=classifier.meta["fitter"]["min_votes"],
        )[place]
        column.mask[place < 0] = True
        truth[name] = column
    return truth


def _labels_of(predictions):
    """Return the labels of each question of a table of predictions, dict of str to list."""
    if "questions" in predictions.meta:
        return predictions.meta["questions"]
    raise ValueError(
        "predictions.meta has no 'questions'; it must be a table returned by a classifier"
    )


def _coded(predictions, truth, place, name):
    """Return labels, true and given codes, confidence of the scored rows, and how many were not."""
    labels = list(_labels_of(predictions)[name])
    true = truth[name][np.maximum(place, 0)] if len(truth) else np.ma.masked_all(len(place), "U1")
    true = np.ma.filled(np.ma.asarray(true).astype(str), "")
    true[place < 0] = ""
    unlabelled = np.ma.getmaskarray(np.ma.asarray(truth[name]))[np.maximum(place, 0)]
    unlabelled |= (true == "") | (true == "unlabelled")
    code = np.full(len(true), -1)
    for k, label in enumerate(labels):
        code[true == label] = k
    code[unlabelled] = -1
    probability = np.stack([predictions[f"{name}_{label}_probability"] for label in labels], 1)
    scored = (code >= 0) & np.isfinite(probability).all(axis=1)
    excluded = int(np.sum(~unlabelled & ~scored))
    probability = np.asarray(probability)[scored]
    given = probability.argmax(axis=1) if len(probability) else np.zeros(0, dtype=int)
    return labels, code[scored], given, probability.max(axis=1, initial=0), excluded


def _score_all(predictions, truth, n_bootstrap, n_bins, seed):
    """Score all questions; return for each its numbers, values and bootstrap samples."""
    questions = [name for name in _labels_of(predictions) if name in truth.colnames]
    if not questions:
        raise ValueError(
            f"truth has no column for any question of predictions: {list(_labels_of(predictions))}"
        )
    place = match_rows(predictions, truth)
    out = {}
    for name in questions:
        labels, true, given, sure, excluded = _coded(predictions, truth, place, name)
        k, n = len(labels), len(true)
        item = {"n_classes": k, "n_test": n, "n_excluded": excluded}
        if n:
            sums = score_sums(true, given, sure, k, n_bins)
            item["value"] = {s: float(v[0]) for s, v in sums.evaluate().items()}
            item["samples"] = _bootstrap(sums, n, n_bootstrap, seed)
            counts = predictions.meta.get("class_counts", {}).get(name, {})
            size = [counts.get(label, 0) for label in labels]
            size = size if any(size) else np.bincount(true, minlength=k)
            most = np.full(n, int(np.argmax(size)))
            majority = score_sums(true, most, np.ones(n), k, n_bins).evaluate()
            item["majority"] = {s: float(majority[s][0]) for s in _MAJORITY}
        out[name] = item
    return out


def _bootstrap(sums, n, n_bootstrap, seed):
    """Return the scores of all bootstrap samples, drawn in portions that fit in memory."""
    portion = max(1, int(2e7) // n)
    parts = [
        sums.evaluate(bootstrap_weights(n, min(portion, n_bootstrap - start), (seed, start)))
        for start in range(0, n_bootstrap, portion)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in SCORES}


def _table(scored, confidence, meta, n_bootstrap, n_bins, seed):
    """Lay scored questions out as a table."""
    nan = dict.fromkeys(SCORES, np.nan)
    rows = []
    for name, item in scored.items():
        row = {"question": name} | {k: item[k] for k in ("n_classes", "n_test", "n_excluded")}
        for score in SCORES:
            value = item.get("value", nan)[score]
            samples = item["samples"][score] if "samples" in item else np.array([])
            low, high = interval(value, samples, confidence, pivotal=score == "ece")
            row |= {score: value, f"{score}_low": low, f"{score}_high": high}
        row |= {f"majority_{s}": item.get("majority", nan)[s] for s in _MAJORITY}
        rows.append(row)
    out = QTable(rows=rows)
    for score, text in SCORES.items():
        out[score].info.description = text
    for column in out.itercols():
        if column.dtype.kind == "f":
            column.info.format = ".3f"
    out.meta = {
        "confidence": confidence,
        "n_bootstrap": n_bootstrap,
        "n_bins": n_bins,
        "seed": seed,
        "predictions": copy.deepcopy(dict(meta)),
        "version": __version__,
    }
    return out


def _add_gain(table, scored, against, confidence):
    """Append the gain in balanced accuracy over another table of features, on the same galaxies."""
    score = "balanced_accuracy"
    rows = []
    for name in table["question"]:
        mine, other = scored[name], against[name]
        if "value" not in mine or "value" not in other:
            rows.append((np.nan,) * 3)
            continue
        value = mine["value"][score] - other["value"][score]
        samples = mine["samples"][score] - other["samples"][score]
        rows.append((value, *interval(value, samples, confidence)))
    for i, end in enumerate(("", "_low", "_high")):
        table[f"{score}_gain{end}"] = Column([row[i] for row in rows], format="+.3f")
