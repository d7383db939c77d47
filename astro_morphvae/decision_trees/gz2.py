"""The tree of Galaxy Zoo 2."""

from .tree import DecisionTree, Question

__all__ = ["GZ2"]

_NOT_ARTIFACT = ("smooth-or-featured", ("smooth", "featured-or-disk"))
_FACE_ON = ("disk-edge-on", "no")


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
