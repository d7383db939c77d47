import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table, vstack
from scipy import stats

from astro_morphvae.decision_trees import GZ_DECALS
from astro_morphvae.exceptions import MorphVAEWarning
from astro_morphvae.morphology import (
    XU2023_QUESTIONS,
    MorphologyFitter,
    evaluate_transfer,
    mcnemar_test,
    tabulate_transfer,
)
from astro_morphvae.morphology._held_out import choose_test, galaxy_groups, read_ids, sky_cells
from astro_morphvae.morphology.metrics import SCORES

pytestmark = pytest.mark.filterwarnings("ignore:too few training")

SHARES = {
    "smooth-or-featured": (0.3, 0.7, 0),
    "how-rounded": (0.4, 0.3, 0.3),
    "disk-edge-on": (0.3, 0.7),
    "bar": (0.5, 0, 0.5),
    "has-spiral-arms": (0.6, 0.4),
    "spiral-winding": (0.4, 0.3, 0.3),
    "bulge-size": (0, 0, 0.3, 0.4, 0.3),
    "merging": (0.7, 0, 0, 0.3),
}


def make_votes(n, seed=0, first=0):
    """Votes that agree, at random, and the number of each question's answer."""
    rng = np.random.default_rng(seed)
    votes, answers = Table({"id": np.arange(first, first + n)}), np.zeros((n, len(SHARES)))
    for i, (name, share) in enumerate(SHARES.items()):
        answer = rng.choice(len(share), p=share, size=n)
        answers[:, i] = answer
        fractions = np.full((n, len(share)), 0.1 / len(share))
        fractions[np.arange(n), answer] += 0.9
        for k, a in enumerate(GZ_DECALS[name].answers):
            votes[GZ_DECALS[name].column(a)] = fractions[:, k]
    return votes, answers


def make_latents(votes, z):
    table = QTable({"id": votes["id"], "z_mean": z, "status": np.full(len(z), "ok", dtype="U20")})
    return table


def quick(questions="xu2023", estimator=None, **settings):
    from sklearn.naive_bayes import GaussianNB

    estimator = GaussianNB() if estimator is None else estimator
    given = {"estimator": estimator, "questions": questions, "calibration": None}
    return MorphologyFitter(**given | settings)


@pytest.fixture(scope="module")
def sample():
    """Latents of survey A, of B with an offset, and of B with the offset taken away."""
    votes, answers = make_votes(900)
    rng = np.random.default_rng(1)
    truth = answers + 0.35 * rng.normal(size=answers.shape)
    a, b, c = (
        make_latents(votes, truth + shift + 0.1 * rng.normal(size=truth.shape))
        for shift in (0, 0.8, 0.03)
    )
    return votes, {"before": {"A": a, "B": b}, "after": {"A": a, "B": c}}


@pytest.fixture(scope="module")
def table(sample):
    votes, latents = sample
    return evaluate_transfer(
        latents, votes, seen=votes["id"][:300], fitter=quick(), n_bootstrap=200
    )


def rows(table, **wanted):
    keep = np.ones(len(table), dtype=bool)
    for name, value in wanted.items():
        keep &= np.asarray(table[name]) == value
    return table[keep]


def test_the_layout_is_questions_by_surveys_by_before_and_after(table):
    questions = list(dict.fromkeys(table["question"]))
    assert set(questions) == {*XU2023_QUESTIONS, "mean"}
    assert len(table) == 8 * 2 * 2 * 2
    assert table.meta["questions_in_mean"] == table.meta["questions"]
    assert (table["n_seeds"] == 3).all()
    assert ((table["train"] == table["test"]) == (table["kind"] == "within")).all()
    for score in SCORES:
        assert (table[f"{score}_low"] <= table[f"{score}_high"]).all()
        assert np.isfinite(table[f"{score}_scatter"]).all()


def test_a_shift_costs_accuracy_and_its_removal_gives_it_back(table):
    score = "balanced_accuracy"
    mean = rows(table, question="mean")
    within = rows(mean, representation="before", kind="within")
    cross = rows(mean, representation="before", kind="cross")
    after = rows(mean, representation="after", kind="cross")
    assert (within[f"{score}_low"] > cross[f"{score}_high"] + 0.1).all()
    assert (after[f"{score}_gain_low"] > 0.1).all()
    assert (after["gap_recovered_low"] > 0.8).all()
    assert (after["gap_recovered"] < 1.1).all()
    assert (cross["gap_recovered"] == 0).all()
    assert np.isnan(within["gap_recovered"]).all()
    same = rows(table, representation="after", train="A", test="A", question="bar")[0]
    assert same["accuracy_gain"] == same["accuracy_gain_low"] == same["n_gained"] == 0
    assert same["mcnemar_p"] == 1
    tested = rows(table, representation="after", kind="cross", question="bar")
    assert (tested["mcnemar_p"] < 0.01).all()
    assert (tested["n_gained"] > tested["n_lost"]).all()
    assert np.isnan(rows(table, representation="before")["mcnemar_p"]).all()


def test_the_mean_is_that_of_the_questions(table):
    for name in ("before", "after"):
        part = rows(table, representation=name, train="A", test="B")
        each, mean = part[part["question"] != "mean"], rows(part, question="mean")[0]
        for score in SCORES:
            assert mean[score] == pytest.approx(np.mean(each[score]))
        assert mean["n_gained"] == each["n_gained"].sum()
        assert mean["accuracy_high"] - mean["accuracy_low"] < np.mean(
            each["accuracy_high"] - each["accuracy_low"]
        )


def test_the_table_survives_a_file(table, tmp_path):
    table.write(tmp_path / "transfer.ecsv")
    read = QTable.read(tmp_path / "transfer.ecsv")
    assert read.colnames == table.colnames
    assert read.meta == table.meta
    for name in table.colnames:
        np.testing.assert_array_equal(np.asarray(read[name]), np.asarray(table[name]))
    assert read["accuracy"].info.description == SCORES["accuracy"]


def test_one_line_a_question_for_reading(table):
    wide = tabulate_transfer(table)
    assert len(wide) == 8
    assert wide.colnames[2:4] == ["A -> A, before", "A -> B, before"]
    expected = rows(table, question="bar", representation="after", train="B", test="A")[0]
    line = wide[wide["question"].tolist().index("bar")]
    assert line["B -> A, after"] == expected["balanced_accuracy"]
    with pytest.raises(ValueError, match="score='f1'"):
        tabulate_transfer(table, "f1")


def test_no_galaxy_is_on_both_sides():
    """Labels are random and each galaxy has latents of its own: only memory could be right."""
    from sklearn.neighbors import KNeighborsClassifier

    votes, _ = make_votes(600, seed=3)
    z = np.random.default_rng(0).normal(size=(600, 5))
    latents = {"A": make_latents(votes, z), "B": make_latents(votes, z + 1e-6)}
    table = evaluate_transfer(
        latents,
        votes,
        seen=(),
        fitter=quick(["disk-edge-on"], KNeighborsClassifier(1), class_weight=None),
        n_bootstrap=50,
    )
    assert list(table.meta["representations"]) == ["latents"]
    assert (np.abs(table["balanced_accuracy"] - 0.5) < 0.1).all()


def test_galaxies_seen_are_never_tested(sample):
    votes, latents = sample
    options = {"fitter": quick(["disk-edge-on"]), "n_bootstrap": 10}
    # Of 900, 270 would be tested; 40 have not been seen.
    seen = votes["id"][40:]
    table = evaluate_transfer(latents, votes, seen=seen, **options)
    assert table.meta["n_seen"] == 860
    labelled = votes["smooth-or-featured_featured-or-disk_fraction"][:40] > 0.6
    assert (table["n_galaxies"] == labelled.sum()).all()
    assert (table["n_test"] == labelled.sum()).all()
    given = evaluate_transfer(latents, votes, seen=seen, test_ids=votes["id"][:40], **options)
    np.testing.assert_array_equal(given["n_test"], table["n_test"])
    with pytest.raises(ValueError, match="test_ids has 1 galaxies that are among those seen"):
        evaluate_transfer(latents, votes, seen=seen, test_ids=votes["id"][:41], **options)
    with pytest.raises(ValueError, match="seen holds 900 of the 900 galaxies"):
        evaluate_transfer(latents, votes, seen=votes, **options)
    with pytest.raises(TypeError, match="seen"):
        evaluate_transfer(latents, votes, **options)


def test_surveys_of_different_galaxies_with_votes_of_their_own(sample):
    votes, latents = sample
    more, answers = make_votes(500, seed=9, first=5000)
    other = make_latents(more, answers + 0.3 * np.random.default_rng(2).normal(size=answers.shape))
    other["z_mean"][7] = np.nan
    table = evaluate_transfer(
        {"A": latents["before"]["A"], "C": other},
        {"A": votes, "C": more[:400]},
        seen=[],
        fitter=quick(["disk-edge-on", "has-spiral-arms"]),
        n_bootstrap=20,
        seeds=(4,),
    )
    assert table.meta["n_galaxies"] == 900 + 399
    assert (table["balanced_accuracy"] > 0.85).all()
    assert np.isnan(table["accuracy_scatter"]).all()
    in_a, in_c = (rows(table, test=name, question="disk-edge-on")["n_test"][0] for name in "AC")
    assert in_a > 1.6 * in_c


def test_a_galaxy_that_is_bad_in_one_representation_is_left_out_of_all(sample):
    votes, latents = sample
    broken = latents["after"]["B"].copy()
    broken["status"][:450] = "off-footprint"
    table = evaluate_transfer(
        {"before": latents["before"], "after": {"A": latents["after"]["A"], "B": broken}},
        votes,
        seen=[],
        fitter=quick(["disk-edge-on"]),
        n_bootstrap=10,
    )
    before, after = (rows(table, representation=name) for name in ("before", "after"))
    np.testing.assert_array_equal(before["n_test"], after["n_test"])
    in_b, in_a = (rows(before, test=name)["n_test"][0] for name in "BA")
    assert in_b < 0.7 * in_a


def test_the_same_seeds_give_the_same_table(sample):
    votes, latents = sample
    options = {"seen": [], "fitter": quick(["bar"]), "n_bootstrap": 30, "seeds": (1, 2)}
    one, same = (evaluate_transfer(latents, votes, **options) for _ in range(2))
    other = evaluate_transfer(latents, votes, **options | {"seeds": (3, 4)})
    np.testing.assert_array_equal(one["accuracy_low"], same["accuracy_low"])
    assert not np.array_equal(one["accuracy"], other["accuracy"])


def test_the_ceiling_is_that_of_the_survey_named(sample):
    votes, latents = sample
    poor = latents["before"]["B"].copy()
    poor["z_mean"] += np.random.default_rng(0).normal(size=poor["z_mean"].shape)
    better = latents["after"]["B"]
    both = {"before": {"A": latents["before"]["A"], "B": poor}}
    both["after"] = {"A": latents["after"]["A"], "B": better}
    share = {}
    for ceiling in ("train", "test"):
        table = evaluate_transfer(
            both, votes, seen=[], fitter=quick(["bar"]), ceiling=ceiling, n_bootstrap=20, seeds=[0]
        )
        mean = rows(table, question="mean", representation="after", train="A", test="B")[0]
        share[ceiling] = mean["gap_recovered"]
        within = rows(table, question="mean", representation="before", kind="within")
        start = rows(table, question="mean", representation="before", train="A", test="B")[0]
        top = within["balanced_accuracy"][0 if ceiling == "train" else 1]
        gain = mean["balanced_accuracy"] - start["balanced_accuracy"]
        assert share[ceiling] == pytest.approx(gain / (top - start["balanced_accuracy"]))
    assert share["test"] > share["train"]


def test_mcnemar_by_hand():
    before = np.array([1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    after = np.array([1, 0, 1, 1, 1, 1, 1, 0], dtype=bool)
    # 5 gained, 1 lost: twice the probability of at most 1 of 6 with a fair coin, 7 / 64.
    gained, lost, p_value = mcnemar_test(before, after)
    assert (gained, lost) == (5, 1)
    assert p_value == pytest.approx(2 * 7 / 64)
    assert mcnemar_test(before, before) == (0, 0, 1.0)
    many = mcnemar_test(np.repeat([0, 1], [260, 200]), np.repeat([1, 0], [260, 200]))
    chi2 = (abs(260 - 200) - 1) ** 2 / 460
    assert many[2] == pytest.approx(stats.chi2.sf(chi2, 1), rel=0.02)
    with pytest.raises(ValueError, match="shapes"):
        mcnemar_test(before, after[:3])


def test_mcnemar_p_values_are_right_without_a_difference():
    rng = np.random.default_rng(0)
    p_values = [mcnemar_test(*(rng.random((2, 80)) < 0.7))[2] for _ in range(400)]
    assert np.mean(np.array(p_values) <= 0.05) < 0.075


def test_cells_of_the_sky_have_about_the_same_area():
    rng = np.random.default_rng(0)
    ra = rng.uniform(0, 360, 200_000)
    dec = np.rad2deg(np.arcsin(rng.uniform(-1, 1, ra.size)))
    cells = sky_cells(ra * u.deg, dec, 10 * u.deg)
    _, counts = np.unique(cells, return_counts=True)
    assert len(counts) == pytest.approx(41253 / 100, rel=0.05)
    # Polar caps are the odd ones: 3 cells of a strip that holds pi of them.
    assert np.percentile(counts, 95) / np.percentile(counts, 5) < 1.4
    np.testing.assert_array_equal(sky_cells(ra + 360, dec, 10), cells)
    np.testing.assert_array_equal(
        sky_cells(ra * u.deg, (dec * u.deg).to(u.rad), 600 * u.arcmin), cells
    )
    ends = sky_cells(np.array([0, 359.999, 10]), np.array([90, -90, 90]), 1.0)
    assert len(np.unique(ends[[0, 1]])) == 2
    with pytest.raises(ValueError, match="cell_size must lie in"):
        sky_cells(ra, dec, 0)
    with pytest.raises(ValueError, match="must be finite"):
        sky_cells([np.nan], [0.0], 1)


def test_a_split_by_sky_keeps_the_sides_apart():
    rng = np.random.default_rng(0)
    ids = np.sort(np.arange(2000).astype(str))
    a = QTable(
        {"ra": rng.uniform(150, 160, 2000) * u.deg, "dec": rng.uniform(30, 35, 2000) * u.deg}
    )
    b = a.copy()
    b["ra"] += 0.3 * u.arcsec  # the same galaxies, as the second survey has them
    place = np.arange(2000)
    groups = galaxy_groups(ids, [(a[:1500], place[:1500]), (b, place)], "sky", 0.5 * u.deg)
    assert 150 < len(np.unique(groups)) < 250
    seen = ids[(groups == groups[0]) | (groups == groups[5])][:2]
    none = np.zeros((2000, 0), dtype=int)
    test, train = choose_test(ids, groups, none, seen, test_ids=None, test_fraction=0.3, seed=1)
    assert 0.2 < test.mean() < 0.4
    assert not set(groups[test]) & set(groups[train])
    assert not set(groups[test]) & set(groups[np.isin(ids, seen)])
    # What is left between the two sides is a few couples across the edges of cells.
    sky = SkyCoord(a["ra"], a["dec"])
    near = sky[test].match_to_catalog_sky(sky[train])[1]
    assert np.median(near) > 3 * u.arcmin
    with pytest.raises(ValueError, match="needs columns ra and dec"):
        galaxy_groups(ids, [(a["ra",], place)], "sky", 1)
    with pytest.raises(ValueError, match="split_by='cell'"):
        galaxy_groups(ids, [(a, place)], "cell", 1)


def test_galaxies_of_a_test_cell_are_not_trained_on():
    ids, groups = np.array(["a", "b", "c", "d"]), np.array([0, 0, 1, 1])
    none = np.zeros((4, 0), dtype=int)
    options = {"test_ids": ["a"], "test_fraction": 0.3, "seed": 0}
    test, train = choose_test(ids, groups, none, np.array(["c"]), **options)
    assert test.tolist() == [True, False, False, False]
    assert train.tolist() == [False, False, True, True]
    with pytest.raises(ValueError, match="holds no galaxy of the tables"):
        choose_test(ids, groups, none, [], **options | {"test_ids": ["z"]})
    with pytest.raises(ValueError, match="leaves no cell of the sky"):
        choose_test(ids, groups, none, ["a", "d"], **options | {"test_ids": None})


def test_a_transfer_can_be_split_by_sky(sample):
    votes, latents = sample
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(150, 160, 900) * u.deg, rng.uniform(32, 34, 900) * u.deg
    for table in (latents["before"]["A"], latents["before"]["B"]):
        table["ra"], table["dec"] = ra, dec
    table = evaluate_transfer(
        {"before": latents["before"]},
        votes,
        seen=votes["id"][:3],
        split_by="sky",
        cell_size=0.5 * u.deg,
        fitter=quick(["bar"]),
        n_bootstrap=10,
    )
    assert table.meta["cell_size"] == "0.5 deg"
    assert 100 < rows(table, question="mean")["n_galaxies"][0] < 600


def test_ids_may_come_as_tables_and_cutouts(sample):
    votes, _ = sample
    catalog = type("Cutouts", (), {"catalog": votes})()
    for given in (votes, catalog, votes["id"], votes["id"].tolist()):
        np.testing.assert_array_equal(read_ids(given, "seen"), votes["id"].astype(str))
    assert read_ids([], "seen").size == 0
    with pytest.raises(TypeError, match="seen must be a sequence"):
        read_ids("galaxy-1", "seen")
    with pytest.raises(ValueError, match="seen has no column 'id'"):
        read_ids(Table({"name": [1]}), "seen")


def test_tables_that_do_not_fit(sample):
    votes, latents = sample
    a, b = latents["before"].values()

    def evaluate(latents, votes=votes, **options):
        return evaluate_transfer(latents, votes, seen=[], fitter=quick(["bar"]), **options)

    with pytest.raises(ValueError, match="at least 2 surveys"):
        evaluate({"A": a})
    with pytest.raises(ValueError, match="all must hold the same surveys"):
        evaluate({"one": {"A": a, "B": b}, "two": {"A": a}})
    with pytest.raises(ValueError, match="not row-aligned"):
        evaluate({"one": {"A": a, "B": b}, "two": {"A": a, "B": b[::-1]}})
    with pytest.raises(ValueError, match="without repeats"):
        evaluate({"A": vstack([a, a]), "B": b})
    with pytest.raises(ValueError, match="votes is for"):
        evaluate({"A": a, "B": b}, {"A": votes})
    with pytest.raises(ValueError, match="reference='later'"):
        evaluate({"A": a, "B": b}, reference="later")
    with pytest.raises(ValueError, match="ceiling='mean'"):
        evaluate({"A": a, "B": b}, ceiling="mean")
    with pytest.raises(ValueError, match="seeds is empty"):
        evaluate({"A": a, "B": b}, seeds=[])
    with pytest.raises(ValueError, match="confidence must lie"):
        evaluate({"A": a, "B": b}, confidence=95)
    with pytest.raises(ValueError, match="latents is empty"):
        evaluate({})


@pytest.mark.filterwarnings("default:too few training")
def test_rare_labels_are_warned_of_once(sample):
    votes, latents = sample
    with pytest.warns(MorphVAEWarning, match="without artifact 0") as caught:
        evaluate_transfer(latents, votes, seen=[], fitter=quick(["bar"]), n_bootstrap=5)
    assert len(caught) == 1
