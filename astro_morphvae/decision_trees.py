"""Decision trees of Galaxy Zoo as data: questions, answers, parents and vote-fraction columns.

Pure data without further dependencies, so that every layer above may speak of the same questions.
"""

from dataclasses import dataclass, field, replace

import numpy as np

__all__ = ["GZ2", "GZ_DECALS", "DecisionTree", "Question", "get_tree"]


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


_FAMILIES = {
    "gz-decals": ("fraction", "debiased"),
    "gz2": ("fraction", "weighted_fraction", "debiased"),
}


def _decals(name, answers, parent, text):
    return Question(
        name,
        answers,
        parent,
        columns={answer: f"{name}_{answer}_fraction" for answer in answers},
        text=text,
        count_columns={answer: f"{name}_{answer}" for answer in answers},
        total_column=f"{name}_total-votes",
    )


_NOT_ARTIFACT = ("smooth-or-featured", ("smooth", "featured-or-disk"))
_FACE_ON = ("disk-edge-on", "no")

GZ_DECALS = DecisionTree(
    "gz-decals",
    (
        _decals(
            "smooth-or-featured",
            ("smooth", "featured-or-disk", "artifact"),
            None,
            "Smooth and rounded, or with features?",
        ),
        _decals(
            "disk-edge-on",
            ("yes", "no"),
            ("smooth-or-featured", "featured-or-disk"),
            "A disk seen edge-on?",
        ),
        _decals("has-spiral-arms", ("yes", "no"), _FACE_ON, "Any spiral arms?"),
        _decals("bar", ("strong", "weak", "no"), _FACE_ON, "A bar through the centre?"),
        _decals(
            "bulge-size",
            ("dominant", "large", "moderate", "small", "none"),
            _FACE_ON,
            "How large is the central bulge?",
        ),
        _decals(
            "how-rounded",
            ("round", "in-between", "cigar-shaped"),
            ("smooth-or-featured", "smooth"),
            "How rounded?",
        ),
        _decals(
            "edge-on-bulge",
            ("boxy", "none", "rounded"),
            ("disk-edge-on", "yes"),
            "A bulge at the centre of the edge-on disk, and of which shape?",
        ),
        _decals(
            "spiral-winding",
            ("tight", "medium", "loose"),
            ("has-spiral-arms", "yes"),
            "How tightly wound are the arms?",
        ),
        _decals(
            "spiral-arm-count",
            ("1", "2", "3", "4", "more-than-4", "cant-tell"),
            ("has-spiral-arms", "yes"),
            "How many arms?",
        ),
        _decals(
            "merging",
            ("none", "minor-disturbance", "major-disturbance", "merger"),
            _NOT_ARTIFACT,
            "Merging or disturbed?",
        ),
    ),
    references=("Walmsley et al. 2022, MNRAS 509, 3966",),
)
"""Tree of Galaxy Zoo DECaLS, as asked from its fifth data release on [1]_.

References
----------
.. [1] Walmsley et al. 2022, MNRAS 509, 3966.
"""


def _gz2(name, stem, answers, parent, text):
    """Make a question of Galaxy Zoo 2; ``answers`` maps our answer to its published name."""
    stems = {answer: f"{stem}_{published}" for answer, published in answers.items()}
    return Question(
        name,
        tuple(answers),
        parent,
        columns={answer: f"{s}_fraction" for answer, s in stems.items()},
        text=text,
        count_columns={answer: f"{s}_count" for answer, s in stems.items()},
        total_column=f"{stem}_total_count",
    )


GZ2 = DecisionTree(
    "gz2",
    (
        _gz2(
            "smooth-or-featured",
            "t01_smooth_or_features",
            {
                "smooth": "a01_smooth",
                "featured-or-disk": "a02_features_or_disk",
                "artifact": "a03_star_or_artifact",
            },
            None,
            "Smooth and rounded, or with features?",
        ),
        _gz2(
            "disk-edge-on",
            "t02_edgeon",
            {"yes": "a04_yes", "no": "a05_no"},
            ("smooth-or-featured", "featured-or-disk"),
            "A disk seen edge-on?",
        ),
        _gz2(
            "bar",
            "t03_bar",
            {"yes": "a06_bar", "no": "a07_no_bar"},
            _FACE_ON,
            "A bar through the centre?",
        ),
        _gz2(
            "has-spiral-arms",
            "t04_spiral",
            {"yes": "a08_spiral", "no": "a09_no_spiral"},
            _FACE_ON,
            "Any spiral arms?",
        ),
        _gz2(
            "bulge-size",
            "t05_bulge_prominence",
            {
                "none": "a10_no_bulge",
                "just-noticeable": "a11_just_noticeable",
                "obvious": "a12_obvious",
                "dominant": "a13_dominant",
            },
            _FACE_ON,
            "How prominent is the central bulge?",
        ),
        _gz2(
            "something-odd",
            "t06_odd",
            {"yes": "a14_yes", "no": "a15_no"},
            _NOT_ARTIFACT,
            "Anything odd?",
        ),
        _gz2(
            "how-rounded",
            "t07_rounded",
            {
                "round": "a16_completely_round",
                "in-between": "a17_in_between",
                "cigar-shaped": "a18_cigar_shaped",
            },
            ("smooth-or-featured", "smooth"),
            "How rounded?",
        ),
        _gz2(
            "odd-feature",
            "t08_odd_feature",
            {
                "ring": "a19_ring",
                "lens-or-arc": "a20_lens_or_arc",
                "disturbed": "a21_disturbed",
                "irregular": "a22_irregular",
                "other": "a23_other",
                "merger": "a24_merger",
                "dust-lane": "a38_dust_lane",
            },
            ("something-odd", "yes"),
            "Which odd feature?",
        ),
        _gz2(
            "edge-on-bulge",
            "t09_bulge_shape",
            {"rounded": "a25_rounded", "boxy": "a26_boxy", "none": "a27_no_bulge"},
            ("disk-edge-on", "yes"),
            "A bulge at the centre of the edge-on disk, and of which shape?",
        ),
        _gz2(
            "spiral-winding",
            "t10_arms_winding",
            {"tight": "a28_tight", "medium": "a29_medium", "loose": "a30_loose"},
            ("has-spiral-arms", "yes"),
            "How tightly wound are the arms?",
        ),
        _gz2(
            "spiral-arm-count",
            "t11_arms_number",
            {
                "1": "a31_1",
                "2": "a32_2",
                "3": "a33_3",
                "4": "a34_4",
                "more-than-4": "a36_more_than_4",
                "cant-tell": "a37_cant_tell",
            },
            ("has-spiral-arms", "yes"),
            "How many arms?",
        ),
    ),
    references=("Willett et al. 2013, MNRAS 435, 2835", "Hart et al. 2016, MNRAS 461, 3663"),
)
"""Tree of Galaxy Zoo 2 [1]_ with the columns of the debiased catalogue of [2]_.

Questions and answers that Galaxy Zoo DECaLS shares carry the same names in both trees; the columns
keep the names of the catalogue.

References
----------
.. [1] Willett et al. 2013, MNRAS 435, 2835.
.. [2] Hart et al. 2016, MNRAS 461, 3663.
"""

_TREES = {tree.name: tree for tree in (GZ_DECALS, GZ2)}


def get_tree(tree, columns="fraction"):
    """Decision tree by name.

    Parameters
    ----------
    tree : str or DecisionTree
        ``"gz-decals"`` or ``"gz2"``; a `DecisionTree` passes through.
    columns : str
        Family of vote-fraction columns: ``"fraction"``, ``"debiased"`` or, for Galaxy Zoo 2,
        ``"weighted_fraction"``.

    Returns
    -------
    DecisionTree
        The tree.

    Raises
    ------
    ValueError
        If the name or the family of columns is unknown.
    TypeError
        If ``tree`` is neither a name nor a `DecisionTree`.

    References
    ----------
    Willett et al. 2013, MNRAS 435, 2835; Hart et al. 2016, MNRAS 461, 3663 (Galaxy Zoo 2).
    Walmsley et al. 2022, MNRAS 509, 3966 (Galaxy Zoo DECaLS).
    """
    if isinstance(tree, str):
        if tree not in _TREES:
            raise ValueError(f"tree={tree!r} is none of {sorted(_TREES)}")
        tree = _TREES[tree]
    elif not isinstance(tree, DecisionTree):
        raise TypeError(f"tree must be a name or a DecisionTree, not {type(tree).__name__}")
    return tree if columns == "fraction" else tree.with_columns(columns)
