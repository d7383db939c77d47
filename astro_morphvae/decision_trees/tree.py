"""`Question` and `DecisionTree`: what volunteers are asked, and where their votes are."""

from dataclasses import dataclass, field, replace

import numpy as np

__all__ = ["DecisionTree", "Question"]

# Families of vote-fraction columns that the catalogues of a tree have.
_FAMILIES = {
    "gz-decals": ("fraction", "debiased"),
    "gz2": ("fraction", "weighted_fraction", "debiased"),
}


@dataclass(frozen=True)
class Question:
    """One question that volunteers answer about a galaxy.

    Parameters
    ----------
    name : str
        Name of the question, such as ``"has-spiral-arms"``.
    answers : tuple of str
        The answers on offer, in the order of the published tree.
    parent : tuple of (str, str or tuple of str), optional
        The question asked before, and the answer (or answers) to it that lead here; `None` for
        the first question of the tree.
    columns : dict of str to str
        Column of the vote fraction of each answer.
    text : str
        The question as put to volunteers, shortened.
    count_columns : dict of str to str
        Column of the number of votes for each answer.
    total_column : str, optional
        Column of the number of volunteers who answered the question, where catalogues have one.
    """

    name: str
    answers: tuple
    parent: tuple | None = None
    columns: dict = field(default_factory=dict, hash=False)
    text: str = ""
    count_columns: dict = field(default_factory=dict, hash=False)
    total_column: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "answers", tuple(self.answers))
        if self.parent is not None:
            question, answers = self.parent
            answers = (answers,) if isinstance(answers, str) else tuple(answers)
            object.__setattr__(self, "parent", (question, answers))
        for what in ("columns", "count_columns"):
            extra = set(getattr(self, what)) - set(self.answers)
            if extra:
                raise ValueError(
                    f"{what} of question {self.name!r} names answers that it does not have: "
                    f"{sorted(extra)}; its answers are {list(self.answers)}"
                )

    def column(self, answer):
        """Name of the vote-fraction column of one answer.

        Parameters
        ----------
        answer : str
            One of ``answers``.

        Returns
        -------
        str
            Name of the column.

        Raises
        ------
        ValueError
            If the question has no such answer.
        """
        if answer not in self.columns:
            raise ValueError(
                f"answer={answer!r} is none of the answers to {self.name!r}: {list(self.answers)}"
            )
        return self.columns[answer]


@dataclass(frozen=True)
class DecisionTree:
    """The questions of a Galaxy Zoo project, each listed after its parent.

    Parameters
    ----------
    name : str
        Name of the tree, such as ``"gz-decals"``.
    questions : tuple of `Question`
        All questions; a parent comes before its children.
    references : tuple of str
        Where the tree and its catalogues are published.

    Examples
    --------
    >>> from astro_morphvae.decision_trees import GZ_DECALS
    >>> GZ_DECALS["spiral-winding"].parent
    ('has-spiral-arms', ('yes',))
    >>> [question for question, _ in GZ_DECALS.path("spiral-winding")]
    ['smooth-or-featured', 'disk-edge-on', 'has-spiral-arms']
    """

    name: str
    questions: tuple
    references: tuple = ()

    def __post_init__(self):
        object.__setattr__(self, "questions", tuple(self.questions))
        seen = {}
        for question in self.questions:
            if question.name in seen:
                raise ValueError(
                    f"questions of tree {self.name!r}: {question.name!r} is twice in it"
                )
            if question.parent is not None:
                parent, answers = question.parent
                known = seen[parent].answers if parent in seen else ()
                if not answers or set(answers) - set(known):
                    raise ValueError(
                        f"questions of tree {self.name!r}: parent {question.parent!r} of "
                        f"{question.name!r} is no question, or no answer, listed before it"
                    )
            seen[question.name] = question

    def __getitem__(self, name):
        for question in self.questions:
            if question.name == name:
                return question
        raise KeyError(
            f"question {name!r} is not in tree {self.name!r}, which asks {list(self.names)}"
        )

    def __contains__(self, name):
        return name in self.names

    def __iter__(self):
        return iter(self.questions)

    def __len__(self):
        return len(self.questions)

    @property
    def names(self):
        """Names of the questions, parents first (tuple of str)."""
        return tuple(question.name for question in self.questions)

    @property
    def columns(self):
        """All vote-fraction columns, in the order of the tree (tuple of str)."""
        return tuple(q.columns[a] for q in self.questions for a in q.answers if a in q.columns)

    def path(self, name):
        """Answers that lead to a question.

        Parameters
        ----------
        name : str
            Name of the question.

        Returns
        -------
        tuple of (str, tuple of str)
            From the first question of the tree downward: a question, and the answers to it that
            lead on. Empty for the first question itself.

        Raises
        ------
        KeyError
            If the tree has no such question.
        """
        steps = []
        parent = self[name].parent
        while parent is not None:
            steps.append(parent)
            parent = self[parent[0]].parent
        return tuple(reversed(steps))

    def reach_probability(self, name, fractions):
        """Probability that a volunteer arrives at a question.

        The product, along the path from the first question, of the summed fractions of the
        answers that lead on. With vote fractions it is the expected share of volunteers who are
        asked; with predicted probabilities it is the weight that the question's own answers carry.

        Parameters
        ----------
        name : str
            Name of the question.
        fractions : table or mapping of str to (n,) array
            Vote fractions, or probabilities, under the columns' names.

        Returns
        -------
        float or (n,) array
            Between 0 and 1; exactly 1 for the first question. A galaxy that certainly leaves the
            path stays at 0 even where later fractions are undefined (NaN).

        Raises
        ------
        KeyError
            If the tree has no such question, or ``fractions`` lacks a column.
        """
        reach = 1.0
        for parent, answers in self.path(name):
            share = 0.0
            for answer in answers:
                column = self[parent].column(answer)
                try:
                    values = fractions[column]
                except KeyError:
                    raise KeyError(
                        f"fractions has no column {column!r}, needed for question {name!r}"
                    ) from None
                values = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
                share = share + values
            # Answers that are complete sum to 1 but for rounding in the published tables.
            reach = np.where(np.equal(reach, 0), 0.0, reach * np.clip(share, 0.0, 1.0))
        return reach

    def with_columns(self, family):
        """Return the same tree reading another family of vote-fraction columns.

        Parameters
        ----------
        family : str
            Ending of the columns: ``"fraction"`` or ``"debiased"``, for Galaxy Zoo 2 also
            ``"weighted_fraction"``.

        Returns
        -------
        DecisionTree
            A new tree.

        Raises
        ------
        ValueError
            If the family is unknown for this tree.
        """
        families = _FAMILIES.get(self.name, ())
        if family not in families:
            raise ValueError(f"family={family!r} of tree {self.name!r} is none of {list(families)}")

        def renamed(question):
            stems = {a: c.removesuffix("_count") for a, c in question.count_columns.items()}
            if self.name == "gz2":
                columns = {a: f"{stem}_{family}" for a, stem in stems.items()}
            else:
                columns = {a: f"{question.name}_{a}_{family}" for a in question.answers}
            return replace(question, columns=columns)

        return replace(self, questions=tuple(renamed(q) for q in self.questions))
