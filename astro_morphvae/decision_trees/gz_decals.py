"""The tree of Galaxy Zoo DECaLS."""

from .tree import DecisionTree, Question

__all__ = ["GZ_DECALS"]


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
