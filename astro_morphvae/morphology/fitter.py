"""Fit a morphology classifier to latents and vote fractions."""

import copy
import warnings
import zlib
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np

from .. import __version__
from .._latent_tables import as_features, as_ids, good_rows
from ..decision_trees import get_tree
from ..exceptions import MorphVAEWarning
from ._tables import match_rows, split_galaxies
from .calibration import fit_calibration, unseen_probabilities
from .classifier import FittedQuestion, MorphologyClassifier, splits
from .labels import XU2023_QUESTIONS, LabelRule, make_rule, select_labels

__all__ = ["MorphologyFitter"]


class MorphologyFitter:
    """Fit one calibrated classifier for each question of a decision tree.

    Parameters
    ----------
    tree : str or `~astro_morphvae.decision_trees.DecisionTree`
        ``"gz-decals"``, ``"gz2"``, or a tree, such as one that reads debiased fractions
        (``get_tree("gz2", columns="debiased")``).
    estimator : scikit-learn classifier or pipeline, optional
        Anything with ``predict_proba``; it is copied, never changed. By default a random forest of
        300 trees, with out-of-bag votes for the calibration.
    questions : sequence of (str or `LabelRule`), or "xu2023", optional
        Questions to learn: names in the tree, rules of one's own, or the seven of the reference
        study (`XU2023_QUESTIONS`). By default all questions of the tree for which there are votes.
        The questions on the path to them are learned as well, since they tell who is asked.
    threshold : float
        Vote fraction that an answer, and each step on the path to it, must exceed to make a label.
        Rules bring their own.
    min_votes : int
        Least number of volunteers who answered a question, see `select_labels`.
    test_fraction : float
        Share of galaxies set aside, the same ones for all questions.
    calibration : {"temperature", "isotonic"} or None
        How probabilities are calibrated, on training galaxies that the classifier did not see. A
        temperature softens or sharpens them and keeps the labels; it works with few examples.
        Isotonic regression also returns them to the proportions of the sample, which undoes
        ``class_weight``: better calibrated with many examples, but rare labels are given less.
    class_weight : {"balanced"} or None
        Weigh classes equally in training; an estimator's own setting is left as it is.
    features : str
        Column of the table of latents that holds the features.
    min_examples : int
        Least number of training galaxies of a label; rarer labels are left out with a warning, and
        a question with fewer than two labels is skipped.
    n_jobs : int, optional
        Number of threads or processes of the estimator; results do not depend on it.
    seed : int
        Seed of the split, the folds and the estimators.

    Examples
    --------
    >>> from astro_morphvae.morphology import MorphologyFitter
    >>> fitter = MorphologyFitter(tree="gz-decals", questions="xu2023", seed=3)
    >>> classifier = fitter(latents, votes)  # doctest: +SKIP
    >>> labels = classifier(latents)  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        tree="gz-decals",
        estimator=None,
        questions=None,
        threshold=0.6,
        min_votes=0,
        test_fraction=0.3,
        calibration="temperature",
        class_weight="balanced",
        features="z_mean",
        min_examples=10,
        n_jobs=None,
        seed=0,
    ):
        self.tree = get_tree(tree)
        self.estimator = estimator
        self.questions = questions
        self.threshold = threshold
        self.min_votes = min_votes
        self.test_fraction = test_fraction
        self.calibration = calibration
        self.class_weight = class_weight
        self.features = features
        self.min_examples = min_examples
        self.n_jobs = n_jobs
        self.seed = seed
        if calibration not in ("isotonic", "temperature", None):
            raise ValueError(
                f"calibration={calibration!r} is none of 'isotonic', 'temperature' and None"
            )
        if class_weight not in ("balanced", None):
            raise ValueError(f"class_weight={class_weight!r} is neither 'balanced' nor None")
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction must lie in (0, 1), not {test_fraction!r}")
        if min_examples < 2:
            raise ValueError(f"min_examples must be at least 2, not {min_examples!r}")
        if estimator is not None and not hasattr(estimator, "predict_proba"):
            raise TypeError(
                f"estimator={estimator!r} has no predict_proba, and so no probabilities to give"
            )

    def __repr__(self):
        settings = ", ".join(f"{name}={value!r}" for name, value in self._settings().items())
        return f"MorphologyFitter({settings})"

    def _settings(self):
        names = "threshold min_votes test_fraction calibration class_weight features min_examples"
        out = {"tree": self.tree.name, "estimator": repr(self.estimator)}
        out["questions"] = (
            self.questions
            if self.questions is None or isinstance(self.questions, str)
            else [getattr(q, "name", q) for q in self.questions]
        )
        return out | {name: getattr(self, name) for name in names.split()} | {"seed": self.seed}

    def __call__(self, latents, votes, *, test_rows=None):
        """Fit the questions.

        Parameters
        ----------
        latents : `~astropy.table.QTable`
            Table with the column of features, (n, d), and where present ``id`` and ``status``; rows
            with a status other than "ok" or features that are not finite are left out and counted.
        votes : `~astropy.table.Table`
            Vote fractions under the column names of the tree. Joined by ``id`` where both tables
            have it (galaxies without votes are left out and counted), else row-aligned.
        test_rows : (n,) array of bool, optional
            Rows of ``latents`` to set aside, instead of those that `split` chooses.

        Returns
        -------
        MorphologyClassifier
            The classifier, with the galaxies set aside on record.

        Raises
        ------
        ValueError
            If columns are missing, the tables do not match, or no question can be learned.

        Warns
        -----
        MorphVAEWarning
            If labels or questions have too few examples to be learned.
        """
        data = self._prepare(latents, votes)
        if test_rows is None:
            test = self._split(data)
        else:
            test = np.asarray(test_rows)
            if test.dtype != bool or test.shape != (len(latents),):
                raise ValueError(
                    f"test_rows must be a bool array of shape {(len(latents),)}, not "
                    f"{test.dtype} of shape {test.shape}"
                )
            test = test[data.where]

        complaints = []
        fitted = [
            self._fit_question(rule, column, data.X, data.votes, test, complaints)
            for rule, column in zip(data.rules, data.columns, strict=True)
        ]
        if complaints:
            warnings.warn(
                f"too few training galaxies (min_examples={self.min_examples}): "
                + "; ".join(complaints),
                MorphVAEWarning,
                stacklevel=2,
            )
        if not any(question.status == "ok" for question in fitted):
            raise ValueError(
                f"votes labels too few galaxies for any question of tree {self.tree.name!r}: "
                + "; ".join(f"{q.rule.name}: {q.status}" for q in fitted)
            )
        fitted += [
            FittedQuestion(make_rule(self.tree, name), (), status, {}, 0, {})
            for name, status in data.skipped.items()
        ]
        ids = data.ids
        return MorphologyClassifier(
            self.tree,
            fitted,
            features=self.features,
            n_features=data.X.shape[1],
            split={
                "n_rows": len(latents),
                "train_rows": data.where[~test],
                "test_rows": data.where[test],
                "train_ids": None if ids is None else ids[~test],
                "test_ids": None if ids is None else ids[test],
            },
            meta={
                "fitter": self._settings(),
                "latents": copy.deepcopy(dict(latents.meta)),
                "n_used": len(data.where),
                "n_bad": data.n_bad,
                "n_without_votes": data.n_without_votes,
                "version": __version__,
                "scikit-learn": version("scikit-learn"),
                "references": list(self.tree.references),
            },
        )

    def split(self, latents, votes):
        """Choose the galaxies to set aside, as fitting would.

        Needed before there are latents, to keep these galaxies from the network too.

        Parameters
        ----------
        latents : `~astropy.table.Table`
            As for fitting; or, before there are latents, the catalog of the galaxies, since only
            ``id`` and ``status`` matter, and features only where they are not finite.
        votes : `~astropy.table.Table`
            As for fitting.

        Returns
        -------
        (n,) array of bool
            True for the rows of ``latents`` that are set aside; bad rows and rows without votes are
            on neither side, and False.
        """
        if self.features not in latents.colnames:
            latents = latents.copy(copy_data=False)
            latents[self.features] = np.zeros((len(latents), 1))
        data = self._prepare(latents, votes)
        out = np.zeros(len(latents), dtype=bool)
        out[data.where[self._split(data)]] = True
        return out

    def _split(self, data):
        codes = np.stack([_codes(column) for column in data.columns], axis=1)
        if data.ids is None:
            groups = np.arange(len(data.X))
        else:
            groups = np.unique(data.ids, return_inverse=True)[1]
        return split_galaxies(codes, groups, self.test_fraction, self.seed)

    def _prepare(self, latents, votes):
        """Join the tables and label the galaxies; arrays are aligned with the usable rows only."""
        X = as_features(latents, self.features)
        usable = good_rows(latents, X)
        n_bad = int(np.sum(~usable))
        row = match_rows(latents, votes)
        usable &= row >= 0
        if not usable.any():
            raise ValueError(
                f"latents has no usable row: of {len(X)}, {n_bad} are bad and "
                f"{np.sum(row < 0)} have no votes"
            )
        where = np.flatnonzero(usable)
        votes = votes[row[where]]
        ids = as_ids(latents)
        rules, skipped = self._rules(votes)
        columns = [
            select_labels(votes, self.tree, rule, self.threshold, min_votes=self.min_votes)
            for rule in rules
        ]
        return SimpleNamespace(
            X=X[where],
            votes=votes,
            where=where,
            ids=None if ids is None else ids[where],
            rules=rules,
            skipped=skipped,
            columns=columns,
            n_bad=n_bad,
            n_without_votes=int(np.sum(row < 0)),
        )

    def _rules(self, votes):
        """Return rules to fit, parents first, and the status of questions without votes."""
        tree, present = self.tree, set(votes.colnames)

        def missing(question):
            return [c for c in tree[question].columns.values() if c not in present]

        skipped = {}
        if self.questions is None:
            rules = []
            for name in tree.names:
                needed = [name, *(parent for parent, _ in tree.path(name))]
                lacking = [c for question in needed for c in missing(question)]
                if lacking:
                    skipped[name] = f"skipped: votes has no column {lacking[0]!r}"
                else:
                    rules.append(make_rule(tree, name, self.threshold))
            if not rules:
                raise ValueError(
                    f"votes has the columns of no question of tree {tree.name!r}, such as "
                    f"{tree.columns[0]!r}"
                )
        else:
            if isinstance(self.questions, str):
                if self.questions != "xu2023":
                    raise ValueError(
                        f"questions={self.questions!r} is not 'xu2023'; pass a list of questions"
                    )
                asked = XU2023_QUESTIONS.values()
            else:
                asked = self.questions
            rules = [
                q if isinstance(q, LabelRule) else make_rule(tree, q, self.threshold) for q in asked
            ]
        self._add_parents(rules, missing)
        names = [rule.name for rule in rules]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"questions has more than one rule named {sorted(twice)}")
        rules.sort(key=lambda rule: tree.names.index(rule.question))
        return rules, skipped

    def _add_parents(self, rules, missing):
        """Append the questions on the paths, which tell who is asked, if they are not there."""
        for rule in list(rules):
            for parent, answers in self.tree.path(rule.question):
                if any(splits(known, parent, set(answers)) for known in rules):
                    continue
                asked, lacking = self.tree[parent], missing(parent)
                present = [a for a in asked.answers if asked.column(a) not in lacking]
                rules.append(make_rule(self.tree, parent, self.threshold, classes=present))

    def _fit_question(self, rule, column, X, votes, test, complaints):
        """Learn one question; ``complaints`` collects what the user should know."""
        code = _codes(column)
        counts = {label: int(np.sum(code[~test] == k)) for k, label in enumerate(rule.classes)}
        kept = [k for k, label in enumerate(rule.classes) if counts[label] >= self.min_examples]
        labels = tuple(np.array(list(rule.classes))[kept].tolist()) if len(kept) > 1 else ()
        rare = {label: n for label, n in counts.items() if n < self.min_examples}
        shown = ", ".join(f"{label} {n}" for label, n in rare.items())

        mean = {}
        for answer in self.tree[rule.question].answers:
            name = self.tree[rule.question].column(answer)
            if name in votes.colnames:
                values = np.ma.filled(np.ma.asarray(votes[name], dtype=float), np.nan)[~test]
                values = values[np.isfinite(values)]
                mean[answer] = float(values.mean()) if values.size else 0.0
        n_test = int(np.isin(code[test], kept).sum()) if labels else 0

        if not labels:
            complaints.append(f"{rule.name} is skipped ({shown})")
            status = f"skipped: fewer than two labels with {self.min_examples} training galaxies"
            return FittedQuestion(rule, (), status, counts, n_test, mean)
        if rare:
            complaints.append(f"{rule.name} is learned without {shown}")

        # A seed of its own for each question: it does not change when others join.
        seeds = np.random.SeedSequence([self.seed, zlib.crc32(rule.name.encode())])
        seed, fold_seed = (int(s) for s in seeds.generate_state(2) >> 1)
        rows = ~test & np.isin(code, kept)
        y = np.searchsorted(kept, code[rows])
        estimator, weighted = self._estimator(seed)
        parameters = _balanced_weights(estimator, y) if weighted else {}
        with warnings.catch_warnings():
            # A galaxy of a rare class may be drawn by every tree; the calibration does without it.
            warnings.filterwarnings("ignore", "Some inputs do not have OOB scores", UserWarning)
            trained = estimator.fit(X[rows], y, **parameters)
        calibrator = {"method": "none"}
        if self.calibration is not None:
            raw = unseen_probabilities(
                estimator, X[rows], y, fitted=trained, seed=fold_seed, fit_params=parameters
            )
            seen = np.isfinite(raw).all(axis=1)
            if len(np.unique(y[seen])) == len(labels):
                calibrator = fit_calibration(self.calibration, raw[seen], y[seen])
        return FittedQuestion(rule, labels, "ok", counts, n_test, mean, trained, calibrator)

    def _estimator(self, seed):
        """Return an unfitted copy, seeded, and whether it needs sample weights for balance."""
        from sklearn.base import clone

        estimator = _default_forest() if self.estimator is None else clone(self.estimator)
        if self.estimator is None and self.calibration is None:
            estimator.set_params(oob_score=False)
        known = estimator.get_params(deep=True)
        # Only what the user left open is set.
        given = {k: seed for k, v in known.items() if _ends(k, "random_state") and v is None}
        given |= {k: self.n_jobs for k, v in known.items() if _ends(k, "n_jobs") and v is None}
        weights = [k for k in known if _ends(k, "class_weight")]
        if self.class_weight is not None:
            given |= {k: self.class_weight for k in weights if known[k] is None}
        return estimator.set_params(**given), self.class_weight is not None and not weights


def _default_forest():
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(300, min_samples_leaf=2, max_features="sqrt", oob_score=True)


def _balanced_weights(estimator, y):
    """Return arguments of fit that weigh classes equally, for lack of a class_weight."""
    from sklearn.utils.class_weight import compute_sample_weight
    from sklearn.utils.validation import has_fit_parameter

    if has_fit_parameter(estimator, "sample_weight"):
        return {"sample_weight": compute_sample_weight("balanced", y)}
    warnings.warn(
        f"estimator={estimator!r} has neither class_weight nor sample weights: classes are not "
        "balanced; pass class_weight=None to say that this is meant",
        MorphVAEWarning,
        stacklevel=5,
    )
    return {}


def _codes(column):
    """Return the index of each label among the classes of its rule, (n,) int, -1 for none."""
    out = np.full(len(column), -1)
    values = np.asarray(column.filled(""))
    for k, label in enumerate(column.meta["classes"]):
        out[values == label] = k
    return out


def _ends(name, ending):
    return name == ending or name.endswith("__" + ending)
