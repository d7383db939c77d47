import numpy as np
import pytest
from astropy.table import Table

from astro_morphvae.morphology import XU2023_QUESTIONS, LabelRule, Requirement, select_labels
from astro_morphvae.morphology.labels import UNLABELLED


@pytest.fixture
def votes():
    """Five galaxies: strong bar, bar at the threshold, no bar, edge-on, undecided parent."""
    return Table(
        {
            "smooth-or-featured_smooth_fraction": [0.1, 0.1, 0.1, 0.1, 0.4],
            "smooth-or-featured_featured-or-disk_fraction": [0.9, 0.9, 0.9, 0.9, 0.6],
            "smooth-or-featured_artifact_fraction": [0.0, 0.0, 0.0, 0.0, 0.0],
            "disk-edge-on_yes_fraction": [0.0, 0.0, 0.0, 0.9, 0.0],
            "disk-edge-on_no_fraction": [1.0, 1.0, 1.0, 0.1, 1.0],
            "bar_strong_fraction": [0.7, 0.6, 0.1, 0.9, 0.9],
            "bar_weak_fraction": [0.2, 0.2, 0.2, 0.1, 0.1],
            "bar_no_fraction": [0.1, 0.2, 0.7, 0.0, 0.0],
        }
    )


def test_thresholds_on_answers_and_parents_are_strict(votes):
    labels = select_labels(votes, "gz-decals", "bar")
    assert list(labels.filled()) == ["strong", UNLABELLED, "no", UNLABELLED, UNLABELLED]
    assert labels.meta["counts"] == {"strong": 1, "weak": 0, "no": 1}
    assert labels.meta["unlabelled"] == 3
    open_parents = select_labels(votes, "gz-decals", "bar", parent_threshold=0.5)
    assert list(open_parents.filled())[-1] == "strong"


def test_classes_may_be_chosen_and_merged(votes):
    labels = select_labels(
        votes, "gz-decals", "bar", classes={"barred": ("strong", "weak"), "unbarred": "no"}
    )
    assert list(labels.filled())[:3] == ["barred", "barred", "unbarred"]
    strong = select_labels(votes, "gz-decals", "bar", classes=["strong"])
    assert list(strong.mask) == [False, True, True, True, True]


def test_low_threshold_takes_the_largest_and_no_tie():
    votes = Table(
        {
            "smooth-or-featured_smooth_fraction": [0.5, 0.45, 0.3],
            "smooth-or-featured_featured-or-disk_fraction": [0.5, 0.40, 0.3],
            "smooth-or-featured_artifact_fraction": [0.0, 0.15, 0.4],
        }
    )
    labels = select_labels(votes, "gz-decals", "smooth-or-featured", threshold=0.2)
    assert list(labels.filled()) == [UNLABELLED, "smooth", "artifact"]


def test_undefined_fractions_carry_no_label(votes):
    votes["disk-edge-on_no_fraction"][0] = np.nan
    votes = Table(votes, masked=True)
    votes["bar_no_fraction"].mask[2] = True
    labels = select_labels(votes, "gz-decals", "bar")
    assert labels.mask.all()


def test_minimum_number_of_votes(votes):
    with pytest.raises(ValueError, match=r"min_votes.*bar_total-votes"):
        select_labels(votes, "gz-decals", "bar", min_votes=5)
    votes["bar_total-votes"] = [5, 50, 4, 50, 50]
    few = select_labels(votes, "gz-decals", "bar", min_votes=5)
    assert list(few.filled())[:3] == ["strong", UNLABELLED, UNLABELLED]
    votes["n"] = [1, 1, 9, 1, 1]
    own = select_labels(votes, "gz-decals", "bar", min_votes=5, votes_column="n")
    assert list(own.filled())[:3] == [UNLABELLED, UNLABELLED, "no"]
    del votes["bar_total-votes"]
    for answer, counts in {"strong": 3, "weak": 1, "no": 1}.items():
        votes[f"bar_{answer}"] = np.full(5, counts)
    summed = select_labels(votes, "gz-decals", "bar", min_votes=5)
    assert summed[0] == "strong"


def test_reference_questions_have_its_classes():
    assert {name: len(rule.classes) for name, rule in XU2023_QUESTIONS.items()} == {
        "how-rounded": 3,
        "disk-edge-on": 2,
        "bar": 2,
        "has-spiral-arms": 2,
        "spiral-winding": 3,
        "bulge-size": 3,
        "merging": 2,
    }
    parents = {name: len(rule.parents) for name, rule in XU2023_QUESTIONS.items()}
    assert parents["spiral-winding"] == 3
    assert parents["merging"] == 0


def test_reference_merger_needs_any_disturbance_or_a_quiet_disk():
    votes = Table(
        {
            "disk-edge-on_no_fraction": [0.0, 0.7, 0.6, 0.9, np.nan, 0.9],
            "merging_none_fraction": [0.2, 0.85, 0.9, 0.8, 0.3, 0.2],
            "merging_minor-disturbance_fraction": [0.7, 0.1, 0.1, 0.1, 0.05, 0.4],
            "merging_major-disturbance_fraction": [0.0, 0.0, 0.0, 0.1, 0.0, 0.4],
            "merging_merger_fraction": [0.1, 0.05, 0.0, 0.0, 0.65, 0.0],
        }
    )
    labels = select_labels(votes, "gz-decals", XU2023_QUESTIONS["merging"])
    expected = ["disturbed", "none", UNLABELLED, UNLABELLED, "disturbed", UNLABELLED]
    assert list(labels.filled()) == expected


def test_votes_are_not_changed_and_rows_are_kept(votes):
    before = votes.copy()
    labels = select_labels(votes, "gz-decals", "disk-edge-on")
    assert len(labels) == len(votes)
    assert all(np.array_equal(before[c], votes[c]) for c in votes.colnames)
    assert len(select_labels(votes[:0], "gz-decals", "disk-edge-on")) == 0


def test_errors_name_the_argument(votes):
    with pytest.raises(ValueError, match="threshold"):
        select_labels(votes, "gz-decals", "bar", threshold=1.0)
    with pytest.raises(ValueError, match="classes"):
        select_labels(votes, "gz-decals", "bar", classes=["medium"])
    with pytest.raises(ValueError, match="merging_none_fraction"):
        select_labels(votes, "gz-decals", "merging")
    with pytest.raises(KeyError, match="rings"):
        select_labels(votes, "gz-decals", "rings")
    with pytest.raises(ValueError, match="combine"):
        Requirement("bar", "no", 0.5, combine="all")


def test_own_rule(votes):
    rule = LabelRule(
        "any-bar",
        "bar",
        {"bar": (Requirement("bar", ("strong", "weak"), 0.75),)},
    )
    labels = select_labels(votes, "gz-decals", rule)
    assert labels.name == "any-bar"
    assert list(labels.mask) == [False, False, True, False, False]


def test_real_votes_of_galaxy_zoo_2(shared_data):
    from astro_morphvae.decision_trees import get_tree

    votes = Table.read(shared_data / "gz2-votes" / "labels.csv", format="ascii.csv")
    tree = get_tree("gz2", columns="weighted_fraction")
    edge_on = select_labels(votes, tree, "disk-edge-on", threshold=0.6)
    agree = (edge_on == "yes") & (votes["derived_label"] == "edge-on")
    assert 30 < np.sum(edge_on == "yes") < 300
    assert np.sum(agree) > 0.7 * np.sum(edge_on == "yes")
