import numpy as np
import pytest
from astropy.table import QTable

from astro_morphvae.analysis import domain_shift, rank_pairs, retrieval
from astro_morphvae.analysis._samples import join
from astro_morphvae.analysis.retrieval import distance_of_strangers, partner_ranks
from astro_morphvae.morphology import pca_features


def make_latents(x, ids=None):
    ids = np.arange(len(x)) if ids is None else ids
    return QTable(
        {"id": ids, "z_mean": np.asarray(x, float), "status": np.full(len(x), "ok", dtype="U20")}
    )


def row(table, name):
    return table[table["diagnostic"].tolist().index(name)]


def test_ranks_by_hand():
    a = np.array([[0.0], [10.0], [4.0]])
    b = np.array([[1.0], [9.0], [0.5], [5.0]])
    # Partner of 0 is 1.0 (0.5 is nearer), of 10 is 9.0, of 4 is 0.5 (5.0 and 1.0 are nearer).
    np.testing.assert_array_equal(partner_ranks(a, b, np.arange(3), np.arange(3)), [2, 1, 3])
    # The other way round, 9.0 and 0.5 find theirs first and second.
    np.testing.assert_array_equal(partner_ranks(b, a, np.arange(3), np.arange(3)), [1, 1, 2])


def test_latents_that_are_all_the_same_find_nothing():
    same = np.full((200, 3), 0.7)
    ranks = partner_ranks(same, same, np.arange(200), np.arange(200))
    np.testing.assert_array_equal(ranks, 100.5)


def test_ranks_do_not_depend_on_the_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 70, 3))
    rows = np.arange(70)
    whole = partner_ranks(a, b, rows, rows)
    distance = np.linalg.norm(a[:, None] - b, axis=2)
    np.testing.assert_array_equal(whole, 1 + np.sum(distance < np.diag(distance)[:, None], axis=1))
    monkeypatch.setattr(retrieval, "_BLOCK", 150)
    np.testing.assert_array_equal(partner_ranks(a, b, rows, rows), whole)


def test_partners_drawn_at_random_are_found_by_chance():
    rng = np.random.default_rng(0)
    table = domain_shift(
        *(make_latents(x) for x in rng.normal(size=(2, 400, 6))),
        pairs="id",
        n_permutations=0,
        n_bootstrap=100,
        n_folds=2,
    )
    for way in ("a_to_b", "b_to_a"):
        for k in (1, 10):
            found = row(table, f"recall{k}_{way}")
            assert found["chance"] == pytest.approx(k / 400)
            assert found["low"] <= found["chance"] <= found["high"] + 0.01
        assert row(table, f"median_rank_{way}")["value"] == pytest.approx(200, abs=30)
    assert row(table, "pair_distance")["value"] == pytest.approx(1, abs=0.05)


def test_an_offset_of_a_survey_hurts_retrieval():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(300, 4))
    a, b = (truth + 0.05 * rng.normal(size=truth.shape) for _ in range(2))
    near = rank_pairs(make_latents(a), make_latents(b))
    far = rank_pairs(make_latents(a), make_latents(b + 1.5))
    assert np.mean(near["rank_b"] == 1) > 0.95
    assert np.mean(far["rank_b"] == 1) < 0.4
    assert np.median(far["ratio"]) > 5 * np.median(near["ratio"])


def test_median_distance_of_strangers_leaves_the_pairs_out():
    x = np.array([[0.0], [1.0]])
    pairs = np.array([[0, 0], [1, 1]])
    assert distance_of_strangers(join(x, x, pairs)) == 1
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2500, 2))
    # The median of a Rayleigh distribution of scale sqrt(2).
    expected = np.sqrt(2) * np.sqrt(2 * np.log(2))
    assert distance_of_strangers(join(x, y)) == pytest.approx(expected, rel=0.02)


def test_ranking_puts_the_most_alike_first():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(60, 4))
    offset = np.linspace(0.01, 3, 60)[:, None]
    order = rng.permutation(60)
    names = np.array([f"galaxy-{i}" for i in range(60)])
    a = make_latents(truth, names)
    b = make_latents((truth + offset)[order], names[order])
    b["status"][7] = "off-footprint"
    ranking = rank_pairs(a, b)
    assert len(ranking) == 59
    assert ranking.meta["n_pairs"] == 59
    assert ranking["id"][0] == "galaxy-0"
    assert (np.diff(ranking["distance"]) >= 0).all()
    assert (a["id"][ranking["row_a"]] == b["id"][ranking["row_b"]]).all()
    assert (a["id"][ranking["row_a"]] == ranking["id"]).all()
    np.testing.assert_allclose(ranking["distance"][:3], 2 * offset[:3, 0], rtol=1e-6)
    np.testing.assert_allclose(
        ranking["ratio"] * ranking.meta["median_distance"], ranking["distance"]
    )


def test_ranking_without_pairs_says_so():
    a = make_latents(np.zeros((3, 2)))
    b = make_latents(np.full((3, 2), np.nan))
    b["z_mean"][:2] = 1
    a["z_mean"][:2] = np.nan
    a["z_mean"][1] = 0
    with pytest.raises(ValueError, match="pairs leaves no galaxy"):
        rank_pairs(a, b, pairs=np.array([[0, 0], [2, 2]]))
    with pytest.raises(ValueError, match="needs a column 'id'"):
        rank_pairs(a["z_mean", "status"], b)


def test_simulated_surveys_differ_and_the_same_galaxy_is_found():
    from astropy.nddata import InverseVariance
    from astropy.table import vstack

    from astro_morphvae.cutouts import CutoutSet
    from astro_morphvae.datasets import make_survey_pair

    first, second = make_survey_pair(120, size=32, pixel_scale=0.786, seed=2)
    both = CutoutSet(
        np.concatenate([first.data, second.data]),
        unit=first.unit,
        bands=first.bands,
        uncertainty=InverseVariance(np.concatenate([first.ivar, second.ivar])),
        catalog=vstack([first.catalog, second.catalog], metadata_conflicts="silent"),
    )
    z = pca_features(both, 15, fit_rows=np.arange(240) < 120)
    table = domain_shift(z[:120], z[120:], pairs="id", n_permutations=49, n_bootstrap=30, n_folds=2)
    assert row(table, "mmd2")["p_value"] == pytest.approx(0.02)
    assert row(table, "pair_distance")["value"] < 0.3
    assert row(table, "recall1_a_to_b")["value"] > 0.9
