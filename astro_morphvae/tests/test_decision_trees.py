import copy

import numpy as np
import pytest
from astropy.table import Table

from astro_morphvae.decision_trees import GZ2, GZ_DECALS, DecisionTree, Question, get_tree


@pytest.mark.parametrize("tree", [GZ_DECALS, GZ2], ids=lambda t: t.name)
def test_every_answer_has_one_column_and_every_path_starts_at_the_root(tree):
    assert len(set(tree.columns)) == sum(len(q.answers) for q in tree) == len(tree.columns)
    roots = [q.name for q in tree if q.parent is None]
    assert roots == ["smooth-or-featured"]
    for question in tree:
        path = tree.path(question.name)
        assert (path == ()) == (question.name == roots[0])
        if path:
            assert path[0][0] == roots[0]
            assert path[-1] == question.parent


def test_decals_columns_as_in_the_catalogue():
    expected = (
        "smooth-or-featured_smooth_fraction how-rounded_round_fraction disk-edge-on_yes_fraction "
        "bar_strong_fraction has-spiral-arms_yes_fraction spiral-winding_tight_fraction "
        "bulge-size_small_fraction merging_minor-disturbance_fraction"
    ).split()
    assert set(expected) <= set(GZ_DECALS.columns)
    assert GZ_DECALS["bar"].total_column == "bar_total-votes"


@pytest.mark.parametrize("family", ["weighted_fraction", "debiased"])
def test_gz2_columns_as_in_the_catalogue(shared_data, family):
    votes = Table.read(shared_data / "gz2-votes" / "labels.csv", format="ascii.csv")
    tree = get_tree("gz2", columns=family)
    assert set(tree.columns) - set(votes.colnames) <= {
        # Not in this copy of the catalogue.
        f"t01_smooth_or_features_a03_star_or_artifact_{family}"
    }
    assert GZ2.columns[0] in votes.colnames


def test_families_leave_the_tree_as_it_was():
    debiased = get_tree("gz-decals", columns="debiased")
    assert debiased["bar"].column("weak") == "bar_weak_debiased"
    assert GZ_DECALS["bar"].column("weak") == "bar_weak_fraction"
    assert debiased.with_columns("fraction") == GZ_DECALS
    with pytest.raises(ValueError, match=r"family='raw'.*gz2.*weighted_fraction"):
        get_tree("gz2", columns="raw")


def test_reach_probability_is_the_product_along_the_path():
    fractions = {
        "smooth-or-featured_smooth_fraction": np.array([0.2, 0.5, 1.0]),
        "smooth-or-featured_featured-or-disk_fraction": np.array([0.7, 0.5, 0.0]),
        "disk-edge-on_no_fraction": np.array([0.9, np.nan, np.nan]),
        "has-spiral-arms_yes_fraction": np.array([0.5, 0.5, np.nan]),
    }
    assert GZ_DECALS.reach_probability("smooth-or-featured", fractions) == 1
    np.testing.assert_allclose(GZ_DECALS.reach_probability("merging", fractions), [0.9, 1, 1])
    np.testing.assert_allclose(
        GZ_DECALS.reach_probability("spiral-winding", fractions), [0.315, np.nan, 0.0]
    )
    with pytest.raises(KeyError, match="disk-edge-on_yes_fraction"):
        GZ_DECALS.reach_probability("edge-on-bulge", fractions)


def test_reach_probability_reads_masked_tables():
    table = Table({"smooth-or-featured_smooth_fraction": np.ma.array([0.4, 0.4], mask=[0, 1])})
    np.testing.assert_allclose(GZ_DECALS.reach_probability("how-rounded", table), [0.4, np.nan])


def test_errors_name_what_was_asked():
    with pytest.raises(ValueError, match="tree='gz3'"):
        get_tree("gz3")
    with pytest.raises(TypeError, match="int"):
        get_tree(3)
    with pytest.raises(KeyError, match="arms"):
        GZ2["arms"]
    with pytest.raises(ValueError, match="answer='strong'"):
        GZ2["bar"].column("strong")
    with pytest.raises(ValueError, match="parent"):
        DecisionTree("mine", (Question("a", ("yes",), ("b", "yes")),))
    with pytest.raises(ValueError, match="twice"):
        DecisionTree("mine", (Question("a", ("yes",)), Question("a", ("yes",))))
    with pytest.raises(ValueError, match="maybe"):
        Question("a", ("yes", "no"), columns={"maybe": "a_maybe"})


def test_trees_can_be_copied_hashed_and_compared():
    tree = copy.deepcopy(GZ2)
    assert tree == GZ2
    assert hash(tree) == hash(GZ2)
    assert get_tree(tree) is tree
    assert "bar" in tree
    assert len(tree) == 11
