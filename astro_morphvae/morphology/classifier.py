"""A fitted morphology classifier: table of latents in, table of labels and probabilities out."""

import copy
import warnings
from dataclasses import asdict, dataclass, field

import numpy as np
from astropy.table import Column, MaskedColumn, QTable

from .. import __version__
from .._latent_tables import as_features, good_rows
from ..decision_trees import DecisionTree, Question
from ..exceptions import MorphVAEWarning
from ._persistence import read_state, write_state
from .calibration import apply_calibration
from .labels import LabelRule, Requirement

__all__ = ["FittedQuestion", "MorphologyClassifier"]


@dataclass(frozen=True)
class FittedQuestion:
    """What was learned about one question.

    Parameters
    ----------
    rule : LabelRule
        How votes became labels.
    labels : tuple of str
        Labels that the classifier gives; empty if the question was skipped.
    status : str
        "ok", or why the question was skipped.
    counts : dict of str to int
        Number of training galaxies of each label, those of labels left out included.
    n_test : int
        Number of labelled galaxies set aside.
    mean_fractions : dict of str to float
        Mean vote fraction of each answer among training galaxies; stands in for a skipped parent.
    estimator : scikit-learn classifier or None
        Fitted; its classes are the indices of ``labels``.
    calibrator : dict
        See `astro_morphvae.morphology.calibration`.
    """

    rule: LabelRule
    labels: tuple
    status: str
    counts: dict
    n_test: int
    mean_fractions: dict
    estimator: object = field(default=None, repr=False)
    calibrator: dict = field(default_factory=dict, repr=False)

    def probabilities(self, X):
        """Calibrated probabilities of the labels.

        Parameters
        ----------
        X : (n, d) array
            Features, all finite.

        Returns
        -------
        (n, k) array of float
            Rows sum to 1.
        """
        if not len(X):
            return np.empty((0, len(self.labels)))
        raw = self.estimator.predict_proba(X)
        # Threads add up a forest's votes in any order; without rounding, so would the last digit.
        return np.round(apply_calibration(self.calibrator, raw), 10)


class MorphologyClassifier:
    """Classifier of galaxy morphology, made by `MorphologyFitter`.

    Called with a table of latents it returns a table of labels. It does not change after it was
    made.

    Parameters
    ----------
    tree : DecisionTree
        The tree that the questions belong to.
    fitted : sequence of FittedQuestion
        One for each question, parents first.
    features : str
        Column of the table of latents that holds the features.
    n_features : int
        Number of features.
    split : dict
        ``test_rows`` and ``train_rows`` of the table that was fitted to, its length ``n_rows``, and
        ``test_ids`` and ``train_ids``, or None without ids.
    meta : dict
        Provenance: settings, seed, versions, the ``meta`` of the latents, counts of rows left out.
    """

    def __init__(self, tree, fitted, *, features, n_features, split, meta):
        self.tree = tree
        self.features = features
        self.n_features = int(n_features)
        self.split = split
        self.meta = meta
        self._fitted = {question.rule.name: question for question in fitted}

    def __repr__(self):
        skipped = len(self._fitted) - len(self.questions)
        more = f", {skipped} skipped" if skipped else ""
        return (
            f"<MorphologyClassifier: tree {self.tree.name!r}, {len(self.questions)} questions"
            f"{more}, {self.n_features} features>"
        )

    def __getitem__(self, name):
        if name not in self._fitted:
            raise KeyError(f"question {name!r} is none of {list(self._fitted)}")
        return self._fitted[name]

    @property
    def questions(self):
        """Names of the questions it answers, parents first (tuple of str)."""
        return tuple(name for name, q in self._fitted.items() if q.status == "ok")

    @property
    def summary(self):
        """All questions: labels, numbers of galaxies, and why one was skipped (`QTable`)."""
        rows = [
            {
                "question": name,
                "labels": " / ".join(q.labels),
                "n_train": sum(q.counts.get(label, 0) for label in q.labels),
                "n_test": q.n_test,
                "status": q.status,
            }
            for name, q in self._fitted.items()
        ]
        return QTable(rows=rows, meta=copy.deepcopy(self.meta))

    def __call__(self, latents, *, certain_above=0.5):
        """Label galaxies.

        Parameters
        ----------
        latents : `~astropy.table.QTable`
            Table with the column of features, (n, d), and where present ``id``, ``ra``, ``dec``
            and ``status``, as from `LatentModel.encode`.
        certain_above : float
            A label counts as certain if a volunteer would arrive at the question *and* give this
            answer with a probability above this. From 0.5 on the certain labels of a galaxy always
            form a consistent path: each one's parent is certain too, and leads to it, where a
            single answer does.

        Returns
        -------
        `~astropy.table.QTable`
            In the order of the input: ``id``, ``ra``, ``dec`` (if given), ``status`` and, for each
            question, five kinds of columns named as in Galaxy Zoo's catalogues:

            - ``<question>``: the most probable label;
            - ``<question>_<label>_probability``: its calibrated probability, if the question is
              asked, one column a label;
            - ``<question>_reach``: probability that the question is asked, the product of the
              parents' probabilities;
            - ``<question>_uncertain``: True unless reach times the label's probability is above
              ``certain_above``.

            Bad rows carry masked labels, NaN, and are uncertain.

        Raises
        ------
        ValueError
            If the column of features is missing or has another number of features, or
            ``certain_above`` is outside [0, 1).

        Warns
        -----
        MorphVAEWarning
            If the latents come from another model than those that the classifier was fitted to.
        """
        if not 0 <= certain_above < 1:
            raise ValueError(f"certain_above must lie in [0, 1), not {certain_above!r}")
        X = as_features(latents, self.features)
        if X.shape[1] != self.n_features:
            raise ValueError(
                f"latents[{self.features!r}] has {X.shape[1]} features; the classifier was fitted "
                f"to {self.n_features}"
            )
        self._check_model(latents)
        good = good_rows(latents, X)

        out = QTable()
        for name in ("id", "ra", "dec"):
            if name in latents.colnames:
                out[name] = latents[name]
        out["status"] = _status(latents, X)

        probabilities = {name: self[name].probabilities(X[good]) for name in self.questions}
        for name in self.questions:
            reach = self._reach(name, probabilities, int(good.sum()))
            _add_question(out, self[name], good, probabilities[name], reach, certain_above)
        out.meta = {
            "classifier": copy.deepcopy(self.meta),
            "questions": {name: list(self[name].labels) for name in self.questions},
            "class_counts": {name: dict(self[name].counts) for name in self.questions},
            "skipped": {n: q.status for n, q in self._fitted.items() if q.status != "ok"},
            "certain_above": float(certain_above),
            "latents": copy.deepcopy(dict(latents.meta)),
            "version": __version__,
        }
        return out

    def _reach(self, name, probabilities, n):
        """Return the probability that each of n galaxies is asked a question, (n,)."""
        reach = np.ones(n)
        for parent, answers in self.tree.path(self[name].rule.question):
            reach = reach * self._share(parent, set(answers), probabilities)
        return reach

    def _share(self, parent, answers, probabilities):
        """Return the probability of a set of answers to a question, (n,) or a constant."""
        known = [q for q in self._fitted.values() if splits(q.rule, parent, answers)]
        for question in known:
            if question.status == "ok":
                leads = [set(question.rule.answers(label)) <= answers for label in question.labels]
                return probabilities[question.rule.name][:, leads].sum(axis=1).clip(0, 1)
        # The parent could not be learned: all that is known is how often it led on.
        mean = known[0].mean_fractions if known else {}
        return float(np.clip(sum(mean.get(answer, 0.0) for answer in answers), 0, 1))

    def _check_model(self, latents):
        mine = model_hash(self.meta.get("latents", {}))
        given = model_hash(latents.meta)
        if mine is not None and given is not None and mine != given:
            warnings.warn(
                f"latents come from the model {given!r}, but the classifier was fitted to those "
                f"of {mine!r}: their latents mean the same only if one was adapted to the other",
                MorphVAEWarning,
                stacklevel=3,
            )

    def write(self, path, *, overwrite=False):
        """Save the classifier in one skops file.

        Parameters
        ----------
        path : str or path-like
            Where to, usually with the ending ".skops".
        overwrite : bool
            Whether to replace an existing file.

        Raises
        ------
        OSError
            If the file exists and ``overwrite`` is not set, or it cannot be written.
        """
        state = {
            "tree": asdict(self.tree),
            "fitted": [
                {
                    "rule": asdict(q.rule),
                    "labels": list(q.labels),
                    "status": q.status,
                    "counts": dict(q.counts),
                    "n_test": q.n_test,
                    "mean_fractions": dict(q.mean_fractions),
                    "estimator": q.estimator,
                    "calibrator": q.calibrator,
                }
                for q in self._fitted.values()
            ],
            "features": self.features,
            "n_features": self.n_features,
            "split": self.split,
            "meta": self.meta,
        }
        write_state(path, state, overwrite=overwrite)

    @classmethod
    def read(cls, path, *, trusted=()):
        """Read a classifier saved by `write`.

        Parameters
        ----------
        path : str or path-like
            The file.
        trusted : sequence of str
            Full names of types, beyond those of scikit-learn and NumPy, that the file may hold;
            needed for classifiers from other packages.

        Returns
        -------
        MorphologyClassifier
            The classifier.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a classifier file, is damaged, or holds types that are not trusted.
        """
        state = read_state(path, trusted)
        tree = state["tree"]
        questions = tuple(Question(**question) for question in tree["questions"])
        fitted = []
        for item in state["fitted"]:
            rule = item["rule"]
            rule = LabelRule(
                rule["name"],
                rule["question"],
                {k: tuple(Requirement(**r) for r in v) for k, v in rule["classes"].items()},
                tuple(Requirement(**r) for r in rule["parents"]),
            )
            fitted.append(FittedQuestion(**{**item, "rule": rule, "labels": tuple(item["labels"])}))
        return cls(
            DecisionTree(tree["name"], questions, tuple(tree["references"])),
            fitted,
            features=state["features"],
            n_features=state["n_features"],
            split=state["split"],
            meta=state["meta"],
        )


def splits(rule, question, answers):
    """Whether a rule's labels tell if one of some answers to a question was given.

    Parameters
    ----------
    rule : LabelRule
        The rule.
    question : str
        Question of the tree.
    answers : set of str
        Answers to it.

    Returns
    -------
    bool
        True if each label stands for some of the answers, or for others only, and both occur.
    """
    if rule.question != question:
        return False
    stands_for = [set(rule.answers(label)) for label in rule.classes]
    if any((s & answers) and not s <= answers for s in stands_for):
        return False
    return any(s <= answers for s in stands_for)


def model_hash(meta):
    """Hash of the model that made a table, from its ``meta``.

    Parameters
    ----------
    meta : dict
        Metadata of a table of latents.

    Returns
    -------
    str or None
        The hash, if there is one.
    """
    model = meta.get("model")
    return model if isinstance(model, str) else None


def _status(latents, X):
    if "status" in latents.colnames:
        status = np.ma.filled(np.ma.asarray(latents["status"]).astype(str), "masked")
        status = status.astype(object)
    else:
        status = np.full(len(X), "ok", dtype=object)
    status[(status == "ok") & ~np.isfinite(X).all(axis=1)] = "features not finite"
    return Column(status.astype(str), description='"ok", or why the row was not labelled')


def _add_question(out, question, good, probabilities, reach, certain_above):
    """Append the columns of one question."""
    name, labels = question.rule.name, np.array(question.labels)
    n = len(good)
    label = np.full(n, "", dtype=f"U{max(map(len, [*labels, 'unlabelled']))}")
    label[good] = labels[probabilities.argmax(axis=1)]
    out[name] = MaskedColumn(
        label, mask=~good, fill_value="unlabelled", description=f"most probable answer: {name}"
    )
    for k, answer in enumerate(labels):
        column = np.full(n, np.nan)
        column[good] = probabilities[:, k]
        out[f"{name}_{answer}_probability"] = Column(
            column, description=f"probability of {answer}, if {name} is asked"
        )
    asked = np.full(n, np.nan)
    asked[good] = reach
    out[f"{name}_reach"] = Column(asked, description=f"probability that {name} is asked")
    uncertain = np.ones(n, dtype=bool)
    uncertain[good] = ~(reach * probabilities.max(axis=1) > certain_above)
    out[f"{name}_uncertain"] = Column(
        uncertain, description=f"reach times probability of the label not above {certain_above}"
    )
