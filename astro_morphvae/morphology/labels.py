"""From vote fractions to labels: thresholds on a question, on its answers and on its parents.

Rules are data; `XU2023_QUESTIONS` holds those of the reference study.
"""

from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from astropy.table import MaskedColumn

from ..decision_trees import get_tree

__all__ = ["UNLABELLED", "XU2023_QUESTIONS", "LabelRule", "Requirement", "select_labels"]

UNLABELLED = "unlabelled"
"""What a masked label shows when filled."""


def _check_threshold(name, value):
    if not 0 <= float(value) < 1:
        raise ValueError(f"{name} must lie in [0, 1), not {value!r}")


@dataclass(frozen=True)
class Requirement:
    """A vote fraction that must lie above a threshold (strictly).

    Parameters
    ----------
    question : str
        Name of a question of the tree.
    answers : str or tuple of str
        Answers to it.
    threshold : float
        Fraction that must be exceeded.
    combine : {"sum", "any"}
        Whether the summed fraction of the answers must exceed the threshold, or that of any one.
    """

    question: str
    answers: tuple
    threshold: float
    combine: str = "sum"

    def __post_init__(self):
        answers = (self.answers,) if isinstance(self.answers, str) else tuple(self.answers)
        object.__setattr__(self, "answers", answers)
        _check_threshold("threshold", self.threshold)
        if self.combine not in ("sum", "any"):
            raise ValueError(f"combine={self.combine!r} is neither 'sum' nor 'any'")

    def fraction(self, votes, tree):
        """Vote fraction that is compared with the threshold.

        Parameters
        ----------
        votes : `~astropy.table.Table`
            Vote fractions, one row per galaxy.
        tree : `~astro_morphvae.decision_trees.DecisionTree`
            Tree that names the columns.

        Returns
        -------
        (n,) array of float
            Summed, or largest, fraction of the answers; NaN where undefined.
        """
        question = tree[self.question]
        fractions = np.stack([_fraction(votes, question.column(a)) for a in self.answers])
        if self.combine == "sum":
            return fractions.sum(axis=0)
        # An undefined fraction does not hide another that is above the threshold.
        return np.where(np.isnan(fractions), -np.inf, fractions).max(axis=0)


@dataclass(frozen=True)
class LabelRule:
    """How votes become the labels of one question.

    Parameters
    ----------
    name : str
        Name of the question in results.
    question : str
        Question of the tree that the labels answer; its parents decide who is asked.
    classes : dict of str to tuple of `Requirement`
        What a galaxy must fulfil to carry each label. The first requirement of a class is the one
        that decides where thresholds below one half let several classes pass.
    parents : tuple of `Requirement`
        What it must fulfil to carry any label.
    """

    name: str
    question: str
    classes: dict = field(hash=False)
    parents: tuple = ()

    def answers(self, label):
        """Answers of the tree that a label stands for.

        Parameters
        ----------
        label : str
            One of the classes.

        Returns
        -------
        tuple of str
            Answers to ``question`` among the requirements of the class.
        """
        found = [r.answers for r in self.classes[label] if r.question == self.question]
        return tuple(answer for answers in found for answer in answers)


def _rule(name, classes, parents=(), question=None):
    return LabelRule(name, question or name, classes, parents)


def _answers(question, *answers, threshold=0.6):
    return {answer: (Requirement(question, answer, threshold),) for answer in answers}


_SMOOTH = Requirement("smooth-or-featured", "smooth", 0.6)
_FEATURED = Requirement("smooth-or-featured", "featured-or-disk", 0.6)
_FACE_ON = Requirement("disk-edge-on", "no", 0.6)
_SPIRAL = Requirement("has-spiral-arms", "yes", 0.6)
_DISTURBED = ("minor-disturbance", "major-disturbance", "merger")

XU2023_QUESTIONS = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            _rule(
                "how-rounded",
                _answers("how-rounded", "round", "in-between", "cigar-shaped"),
                (_SMOOTH,),
            ),
            _rule("disk-edge-on", _answers("disk-edge-on", "yes", "no"), (_FEATURED,)),
            _rule("bar", _answers("bar", "no", "strong"), (_FEATURED, _FACE_ON)),
            _rule(
                "has-spiral-arms",
                _answers("has-spiral-arms", "yes", "no"),
                (_FEATURED, _FACE_ON),
            ),
            _rule(
                "spiral-winding",
                _answers("spiral-winding", "tight", "medium", "loose"),
                (_FEATURED, _FACE_ON, _SPIRAL),
            ),
            _rule(
                "bulge-size",
                _answers("bulge-size", "none", "small", "moderate"),
                (_FEATURED, _FACE_ON),
            ),
            _rule(
                "merging",
                {
                    "disturbed": (Requirement("merging", _DISTURBED, 0.6, combine="any"),),
                    "none": (Requirement("merging", "none", 0.8), _FACE_ON),
                },
            ),
        )
    }
)
"""The seven questions of [1]_ with its thresholds, for the tree of Galaxy Zoo DECaLS.

All thresholds are strict. ``merging`` sets galaxies with any kind of disturbance above 0.6 against
disks that are not edge-on (above 0.6) and undisturbed (above 0.8).

References
----------
.. [1] Xu et al. 2023, MNRAS 526, 6391.
"""


def _fraction(votes, column):
    if column not in votes.colnames:
        raise ValueError(f"votes has no column {column!r}")
    return np.ma.filled(np.ma.asarray(votes[column], dtype=float), np.nan)


def make_rule(tree, question, threshold=0.6, *, parent_threshold=None, classes=None):
    """Rule that labels a question of a tree by one threshold.

    Parameters
    ----------
    tree : `~astro_morphvae.decision_trees.DecisionTree`
        Tree that asks the question.
    question : str
        Its name.
    threshold : float
        Threshold on the answers.
    parent_threshold : float, optional
        Threshold on each step of the path to the question; that of the answers by default.
    classes : sequence of str or dict of str to (str or tuple of str), optional
        Answers to keep as labels, or labels made of summed answers; by default each answer is one.

    Returns
    -------
    LabelRule
        The rule.
    """
    asked = tree[question]
    if classes is None:
        classes = asked.answers
    if not isinstance(classes, dict):
        classes = {answer: answer for answer in classes}
    for label, answers in classes.items():
        answers = (answers,) if isinstance(answers, str) else tuple(answers)
        unknown = set(answers) - set(asked.answers)
        if unknown or not answers:
            raise ValueError(
                f"classes[{label!r}]={answers!r} is not made of the answers to "
                f"{question!r}: {list(asked.answers)}"
            )
    above = threshold if parent_threshold is None else parent_threshold
    parents = tuple(Requirement(parent, given, above) for parent, given in tree.path(question))
    return LabelRule(
        question,
        question,
        {label: (Requirement(question, answers, threshold),) for label, answers in classes.items()},
        parents,
    )


def select_labels(
    votes,
    tree,
    question,
    threshold=0.6,
    *,
    parent_threshold=None,
    classes=None,
    min_votes=0,
    votes_column=None,
):
    """Labels of the galaxies on whose answer volunteers agree.

    A galaxy is labelled if the vote fraction of one answer lies above the threshold and if, for
    every question on the path to this one, so does the fraction of the answers that lead on.

    Parameters
    ----------
    votes : `~astropy.table.Table`
        Vote fractions, one row per galaxy, under the column names of the tree.
    tree : str or `~astro_morphvae.decision_trees.DecisionTree`
        Decision tree, such as ``"gz-decals"`` or ``"gz2"``.
    question : str or `LabelRule`
        A question of the tree, or a rule such as those of `XU2023_QUESTIONS`, which brings its
        own thresholds and classes.
    threshold : float
        Vote fraction that the answer must exceed (strictly). From 0.5 on at most one can; below,
        the largest one is taken, and none where two are equal.
    parent_threshold : float, optional
        Fraction to be exceeded on each step of the path; ``threshold`` by default.
    classes : sequence of str or dict of str to (str or tuple of str), optional
        Answers to keep as labels, or labels made of several answers, whose fractions are summed,
        such as ``{"bar": ("strong", "weak"), "no bar": "no"}``.
    min_votes : int
        Least number of volunteers who answered the question.
    votes_column : str, optional
        Column of ``votes`` that holds this number. By default the total of the question, or else
        the sum of its counts, under the names of the published catalogue.

    Returns
    -------
    `~astropy.table.MaskedColumn` of str, (n,)
        One label per row of ``votes``, in its order, masked where the galaxy carries none; then
        ``.filled()`` gives "unlabelled". ``meta`` tells the tree, the classes and their counts.

    Raises
    ------
    ValueError
        If a column, answer or class does not exist or a threshold is outside [0, 1).
    KeyError
        If the tree has no such question.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from astro_morphvae.morphology import select_labels
    >>> votes = Table({"smooth-or-featured_smooth_fraction": [0.9, 0.9, 0.3],
    ...                "how-rounded_round_fraction": [0.7, 0.5, 0.9],
    ...                "how-rounded_in-between_fraction": [0.3, 0.5, 0.1],
    ...                "how-rounded_cigar-shaped_fraction": [0.0, 0.0, 0.0]})
    >>> select_labels(votes, "gz-decals", "how-rounded").filled().tolist()
    ['round', 'unlabelled', 'unlabelled']
    """
    tree = get_tree(tree)
    _check_threshold("threshold", threshold)
    if parent_threshold is not None:
        _check_threshold("parent_threshold", parent_threshold)
    if isinstance(question, LabelRule):
        rule = question
    else:
        rule = make_rule(
            tree, question, threshold, parent_threshold=parent_threshold, classes=classes
        )

    labels = list(rule.classes)
    allowed = np.ones(len(votes), dtype=bool)
    for requirement in rule.parents:
        allowed &= requirement.fraction(votes, tree) > requirement.threshold
    if min_votes:
        allowed &= _n_votes(votes, tree[rule.question], votes_column) >= min_votes

    support = np.full((len(labels), len(votes)), -np.inf)
    for row, label in zip(support, labels, strict=True):
        passed = allowed.copy()
        for i, requirement in enumerate(rule.classes[label]):
            fraction = requirement.fraction(votes, tree)
            if i == 0:
                deciding = fraction
            passed &= fraction > requirement.threshold
        row[passed] = deciding[passed]

    best = support.max(axis=0)
    mask = (support == best).sum(axis=0) != 1
    mask |= ~np.isfinite(best)
    width = max(map(len, [UNLABELLED, *labels]))
    values = np.where(mask, "", np.array(labels)[support.argmax(axis=0)]).astype(f"U{width}")
    column = MaskedColumn(values, name=rule.name, mask=mask, fill_value=UNLABELLED)
    column.description = f"answer to {rule.question} of {tree.name} by vote fractions"
    column.meta = {
        "tree": tree.name,
        "classes": labels,
        "counts": {label: int(np.sum(values == label)) for label in labels},
        "unlabelled": int(mask.sum()),
    }
    return column


def _n_votes(votes, question, column):
    """Return the number of volunteers who answered, (n,) float."""
    if column is not None:
        return _fraction(votes, column)
    if question.total_column in votes.colnames:
        return _fraction(votes, question.total_column)
    counts = [question.count_columns.get(answer) for answer in question.answers]
    if not set(counts) <= set(votes.colnames):
        raise ValueError(
            f"min_votes needs the number of votes for {question.name!r}: votes has neither "
            f"{question.total_column!r} nor all of {counts}; name another by votes_column"
        )
    return sum(_fraction(votes, c) for c in counts)
