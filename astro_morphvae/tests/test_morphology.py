import warnings

import numpy as np
import pytest
from astropy.table import QTable, Table

from astro_morphvae.decision_trees import GZ_DECALS
from astro_morphvae.exceptions import MorphVAEWarning
from astro_morphvae.morphology import (
    MorphologyClassifier,
    MorphologyFitter,
    compare_features,
    confusion_counts,
    evaluate,
    evaluate_predictions,
    select_labels,
)
from astro_morphvae.morphology._tables import split_galaxies

QUESTIONS = ["disk-edge-on", "has-spiral-arms", "how-rounded"]


def make_sample(n, seed=0, noise=0.6):
    """Latents that tell the answers to the tree, but for noise, and the votes for them."""
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(n, 6))
    votes = Table({"id": np.arange(n) + 100})
    for i, (name, share) in enumerate(
        {
            "smooth-or-featured": (0.35, 0.642, 0.008),
            "disk-edge-on": (0.35, 0.65),
            "has-spiral-arms": (0.6, 0.4),
            "how-rounded": (0.4, 0.4, 0.2),
        }.items()
    ):
        answers = GZ_DECALS[name].answers
        answer = rng.choice(len(share), p=share, size=n)
        latents[:, i] = 2 * answer + noise * rng.normal(size=n)
        fractions = rng.dirichlet(np.ones(len(share)), size=n) * 0.3
        fractions[np.arange(n), answer] += 0.7
        for k, a in enumerate(answers):
            votes[GZ_DECALS[name].column(a)] = fractions[:, k]
    table = QTable({"id": votes["id"], "z_mean": latents, "status": np.full(n, "ok")})
    table.meta["model"] = "0123456789abcdef"
    return table, votes


def small_forest(**settings):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(
        **{"n_estimators": 25, "min_samples_leaf": 2, "n_jobs": 1} | settings
    )


def quick(**settings):
    given = {"questions": QUESTIONS, "estimator": small_forest(), "calibration": None}
    return MorphologyFitter(**given | settings)


def quiet_fit(fitter, latents, votes, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MorphVAEWarning)
        return fitter(latents, votes, **options)


@pytest.fixture(scope="module")
def sample():
    return make_sample(900)


@pytest.fixture(scope="module")
def classifier(sample):
    """The default classifier, with calibration, of all questions that have votes."""
    return quiet_fit(MorphologyFitter(estimator=small_forest(), seed=1), *sample)


@pytest.fixture(scope="module")
def labels(sample, classifier):
    return classifier(sample[0])


def test_questions_without_votes_are_skipped_and_say_so(classifier, labels):
    assert classifier.questions == (
        "smooth-or-featured",
        "disk-edge-on",
        "has-spiral-arms",
        "how-rounded",
    )
    assert "bar_strong_fraction" in classifier["bar"].status
    assert set(labels.meta["skipped"]) == set(GZ_DECALS.names) - set(classifier.questions)
    assert len(classifier.summary) == len(GZ_DECALS)
    assert "4 questions, 6 skipped" in repr(classifier)


def test_labels_are_right_for_galaxies_set_aside(sample, classifier):
    scores = evaluate(classifier, *sample, n_bootstrap=200)
    assert list(scores["question"]) == list(classifier.questions)
    assert (scores["balanced_accuracy"] > 0.8).all()
    assert (scores["accuracy"] > scores["majority_accuracy"] + 0.15).all()
    assert (scores["ece"] < 0.12).all()
    for score in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert (scores[f"{score}_low"] <= scores[score]).all()
        assert (scores[score] <= scores[f"{score}_high"]).all()
    assert (scores["n_test"] < 0.32 * len(sample[0])).all()


def test_shuffled_votes_give_chance(sample):
    latents, votes = sample
    order = np.random.default_rng(3).permutation(len(votes))
    shuffled = votes[order]
    shuffled["id"] = votes["id"]
    fitted = quiet_fit(quick(calibration="temperature"), latents, shuffled)
    scores = evaluate(fitted, latents, shuffled)
    chance = scores["majority_balanced_accuracy"]
    assert (np.abs(scores["balanced_accuracy"] - chance) < 0.12).all()
    # Nor does the calibration claim to know: confidence stays near the truth.
    assert (scores["ece"] < 0.25).all()


def test_table_of_labels_has_the_columns_promised(sample, labels, classifier):
    assert labels["id"][0] == 100
    assert len(labels) == len(sample[0])
    for name in classifier.questions:
        answers = labels.meta["questions"][name]
        probability = np.stack([labels[f"{name}_{a}_probability"] for a in answers], axis=1)
        np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-8)
        best = np.array(answers)[probability.argmax(axis=1)]
        assert (labels[name] == best).all()
    assert labels.meta["classifier"]["latents"]["model"] == "0123456789abcdef"
    assert labels.meta["classifier"]["fitter"]["seed"] == 1


def test_reach_follows_the_tree(labels):
    featured = labels["smooth-or-featured_featured-or-disk_probability"]
    face_on = labels["disk-edge-on_no_probability"]
    assert (labels["smooth-or-featured_reach"] == 1).all()
    np.testing.assert_allclose(labels["disk-edge-on_reach"], featured)
    np.testing.assert_allclose(labels["has-spiral-arms_reach"], featured * face_on)
    np.testing.assert_allclose(
        labels["how-rounded_reach"], labels["smooth-or-featured_smooth_probability"]
    )
    assert (labels["has-spiral-arms_reach"] <= face_on).all()


def test_certain_labels_form_a_path_through_the_tree(labels):
    certain = {name: ~labels[f"{name}_uncertain"] for name in labels.meta["questions"]}
    arms = certain["has-spiral-arms"]
    assert 0 < arms.sum() < len(labels)
    assert certain["disk-edge-on"][arms].all()
    assert (labels["disk-edge-on"][arms] == "no").all()
    assert certain["smooth-or-featured"][arms].all()
    assert (labels["smooth-or-featured"][arms] == "featured-or-disk").all()
    assert not (arms & certain["how-rounded"]).any()


def test_a_stricter_limit_leaves_fewer_certain(sample, classifier, labels):
    strict = classifier(sample[0], certain_above=0.9)
    assert strict["has-spiral-arms_uncertain"].sum() > labels["has-spiral-arms_uncertain"].sum()
    with pytest.raises(ValueError, match="certain_above"):
        classifier(sample[0], certain_above=1)


def test_bad_rows_stay_rows(sample, classifier):
    latents = sample[0][:5].copy()
    latents["status"] = ["ok", "all NaN", "ok", "ok", "ok"]
    latents["z_mean"][1] = np.nan
    latents["z_mean"][3, 2] = np.inf
    labels = classifier(latents)
    assert list(labels["status"]) == ["ok", "all NaN", "ok", "features not finite", "ok"]
    assert list(labels["disk-edge-on"].mask) == [False, True, False, True, False]
    assert labels["disk-edge-on"].filled()[1] == "unlabelled"
    assert np.isnan(labels["disk-edge-on_yes_probability"][[1, 3]]).all()
    assert labels["disk-edge-on_uncertain"][[1, 3]].all()
    assert len(classifier(latents[1:2])) == 1
    assert len(classifier(latents[:0])) == 0


def test_bad_rows_and_rows_without_votes_are_left_out_and_counted(sample):
    latents, votes = sample[0].copy(), sample[1][:-50]
    latents["z_mean"][:20] = np.nan
    latents["status"][:10] = "??"
    fitted = quiet_fit(quick(), latents, votes)
    assert fitted.meta["n_bad"] == 20
    assert fitted.meta["n_without_votes"] == 50
    assert fitted.meta["n_used"] == len(latents) - 70
    assert min(fitted.split["train_rows"].min(), fitted.split["test_rows"].min()) >= 20


def test_inputs_and_estimator_are_not_changed(sample):
    latents, votes = sample[0].copy(), sample[1].copy()
    before = latents.copy(), votes.copy()
    estimator = small_forest()
    quiet_fit(quick(estimator=estimator), latents, votes)
    assert estimator.random_state is None
    assert not hasattr(estimator, "estimators_")
    for old, new in zip(before, (latents, votes), strict=True):
        assert old.colnames == new.colnames
        assert all(np.array_equal(old[c], new[c]) for c in old.colnames)


def test_same_seed_same_result_whatever_the_number_of_jobs(sample):
    latents, votes = sample
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - that it is left alone is the point
    estimator = small_forest(n_jobs=None)
    one, two, other = (
        quiet_fit(quick(estimator=estimator, n_jobs=n, seed=s), latents, votes)(latents)
        for n, s in ((1, 5), (2, 5), (1, 6))
    )
    column = "has-spiral-arms_yes_probability"
    assert np.array_equal(one[column], two[column])
    assert not np.array_equal(one[column], other[column])
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_tables_are_joined_by_id(sample):
    latents, votes = sample
    order = np.random.default_rng(1).permutation(len(votes))
    a = quiet_fit(quick(), latents, votes)(latents)
    b = quiet_fit(quick(), latents, votes[order])(latents)
    assert np.array_equal(a["disk-edge-on_yes_probability"], b["disk-edge-on_yes_probability"])


def test_tables_that_do_not_match(sample):
    latents, votes = sample
    strangers = votes.copy()
    strangers["id"] += 10_000
    with pytest.raises(ValueError, match=r"no id of latents.*'100'"):
        quick()(latents, strangers)
    twice = votes.copy()
    twice["id"][1] = twice["id"][0]
    with pytest.raises(ValueError, match=r"more than once.*'100'"):
        quick()(latents, twice)
    anonymous = votes[:-1].copy()
    del anonymous["id"]
    with pytest.raises(ValueError, match=r"899 rows and latents 900"):
        quick()(latents, anonymous)
    with pytest.raises(ValueError, match="no column 'z_mean'"):
        quick()(votes, votes)
    with pytest.raises(TypeError, match="ndarray"):
        quick()(np.ones((3, 2)), votes)


def test_every_row_of_a_galaxy_is_on_one_side(sample):
    latents, votes = sample
    again = latents[np.r_[np.arange(900), np.arange(300)]]
    fitted = quiet_fit(quick(), again, votes)
    assert not set(fitted.split["test_ids"]) & set(fitted.split["train_ids"])
    assert len(fitted.split["test_rows"]) + len(fitted.split["train_rows"]) == 1200


def test_split_keeps_each_label_in_proportion():
    rng = np.random.default_rng(0)
    codes = np.stack([rng.choice(5, p=[0.4, 0.3, 0.2, 0.07, 0.03], size=1000) for _ in range(4)], 1)
    codes[rng.uniform(size=codes.shape) < 0.5] = -1
    test = split_galaxies(codes, np.arange(1000), 0.3, seed=0)
    assert abs(test.mean() - 0.3) < 0.01
    for question in codes.T:
        for label in range(5):
            rows = question == label
            assert abs(test[rows].sum() - 0.3 * rows.sum()) <= max(2, 0.08 * rows.sum())
    assert not np.array_equal(test, split_galaxies(codes, np.arange(1000), 0.3, seed=1))
    with pytest.raises(ValueError, match="test_fraction"):
        split_galaxies(codes, np.arange(1000), 1.0, seed=0)


def test_own_choice_of_galaxies_to_set_aside(sample):
    latents, votes = sample
    north = np.arange(900) < 200
    fitted = quiet_fit(quick(), latents, votes, test_rows=north)
    assert np.array_equal(fitted.split["test_rows"], np.arange(200))
    with pytest.raises(ValueError, match="test_rows"):
        quick()(latents, votes, test_rows=np.arange(200))


def test_split_before_there_are_latents(sample):
    latents, votes = sample
    chosen = quick(seed=4).split(votes["id",], votes)
    assert np.array_equal(chosen, quick(seed=4).split(latents, votes))
    fitted = quiet_fit(quick(seed=4), latents, votes)
    assert np.array_equal(np.flatnonzero(chosen), fitted.split["test_rows"])


def test_labels_and_questions_with_few_examples(sample):
    latents, votes = sample
    with pytest.warns(MorphVAEWarning, match=r"smooth-or-featured is learned without artifact"):
        fitted = quick()(latents, votes)
    assert fitted["smooth-or-featured"].labels == ("smooth", "featured-or-disk")
    few = latents[:150]
    with pytest.warns(MorphVAEWarning, match="how-rounded is skipped"):
        fitted = quick(min_examples=20)(few, votes)
    assert "how-rounded" not in fitted(few).colnames
    assert fitted["how-rounded"].status.startswith("skipped")
    with pytest.raises(ValueError, match="too few galaxies for any question"):
        quiet_fit(quick(min_examples=500), latents, votes)


def test_skipped_parent_counts_with_its_mean_vote(sample):
    latents, votes = sample
    disks = votes[select_labels(votes, "gz-decals", "smooth-or-featured") == "featured-or-disk"]
    fitted = quiet_fit(quick(questions=["disk-edge-on"]), latents, disks)
    assert fitted["smooth-or-featured"].status.startswith("skipped")
    reach = fitted(latents)["disk-edge-on_reach"]
    mean = disks["smooth-or-featured_featured-or-disk_fraction"].mean()
    assert np.ptp(reach) == 0
    assert reach[0] == pytest.approx(mean, abs=0.02)


@pytest.mark.parametrize("kind", ["pipeline", "no class_weight"])
def test_any_scikit_learn_classifier(sample, kind):
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    own = {
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
        "no class_weight": GaussianNB(),
    }[kind]
    fitted = quiet_fit(quick(estimator=own, calibration="isotonic"), *sample)
    assert (evaluate(fitted, *sample, n_bootstrap=10)["balanced_accuracy"] > 0.8).all()
    inner = fitted["disk-edge-on"].estimator
    if kind == "pipeline":
        assert inner[-1].class_weight == "balanced"
    else:
        np.testing.assert_allclose(inner.class_prior_, 0.5)


def test_estimator_that_cannot_be_balanced_says_so(sample):
    from sklearn.neighbors import KNeighborsClassifier

    with pytest.warns(MorphVAEWarning) as caught:
        quick(estimator=KNeighborsClassifier())(*sample)
    assert any("not balanced" in str(w.message) for w in caught)


def test_settings_are_checked():
    from sklearn.svm import LinearSVC

    with pytest.raises(TypeError, match="predict_proba"):
        MorphologyFitter(estimator=LinearSVC())
    for name, value in {
        "calibration": "platt",
        "class_weight": "equal",
        "test_fraction": 0,
        "min_examples": 1,
        "tree": "gz9",
    }.items():
        with pytest.raises(ValueError, match=name):
            MorphologyFitter(**{name: value})
    assert "calibration='isotonic'" in repr(MorphologyFitter(calibration="isotonic"))


def test_questions_are_checked(sample):
    with pytest.raises(ValueError, match="bar_strong_fraction"):
        quick(questions=["bar"])(*sample)
    with pytest.raises(ValueError, match="questions='all'"):
        quick(questions="all")(*sample)
    with pytest.raises(ValueError, match="more than one rule"):
        quick(questions=["disk-edge-on", "disk-edge-on"])(*sample)


def test_classifier_refuses_other_features_and_warns_of_another_model(sample, classifier):
    latents = sample[0].copy()
    latents.meta["model"] = "fedcba9876543210"
    with pytest.warns(MorphVAEWarning, match="fedcba9876543210"):
        classifier(latents)
    latents["z_mean"] = latents["z_mean"][:, :5]
    with pytest.raises(ValueError, match="5 features"):
        classifier(latents)


def test_round_trip_through_a_file(sample, tmp_path):
    fitter = quick(
        threshold=0.55,
        calibration="isotonic",
        test_fraction=0.2,
        seed=7,
        class_weight=None,
        min_examples=12,
    )
    fitted = quiet_fit(fitter, *sample)
    path = tmp_path / "classifier.skops"
    fitted.write(path)
    again = MorphologyClassifier.read(path)
    assert repr(again) == repr(fitted)
    assert again.tree == fitted.tree
    assert again["how-rounded"].rule == fitted["how-rounded"].rule
    assert again.meta == fitted.meta
    assert again.meta["fitter"]["threshold"] == 0.55
    assert np.array_equal(again.split["test_ids"], fitted.split["test_ids"])
    a, b = fitted(sample[0]), again(sample[0])
    assert a.colnames == b.colnames
    assert all(np.array_equal(a[c], b[c]) for c in a.colnames)
    assert evaluate(again, *sample, n_bootstrap=5)["n_test"].sum() > 0
    with pytest.raises(OSError, match="overwrite"):
        fitted.write(path)
    fitted.write(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["classifier.skops"]


def test_foreign_damaged_and_untrusted_files(sample, classifier, tmp_path):
    import skops.io

    path = tmp_path / "c.skops"
    classifier.write(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="no readable classifier file"):
        MorphologyClassifier.read(path)
    path.write_text("id,z_mean\n")
    with pytest.raises(ValueError, match="no readable classifier file"):
        MorphologyClassifier.read(path)
    skops.io.dump({"a": 1}, path)
    with pytest.raises(ValueError, match="not one of a classifier"):
        MorphologyClassifier.read(path)
    skops.io.dump({"a": Table}, path)
    with pytest.raises(ValueError, match=r"not trusted.*astropy.table"):
        MorphologyClassifier.read(path)
    with pytest.raises(FileNotFoundError, match=r"none\.skops"):
        MorphologyClassifier.read(tmp_path / "none.skops")


def test_trees_that_point_outside_themselves_are_refused():
    from astro_morphvae.morphology._persistence import _is_sound

    X = np.random.default_rng(0).normal(size=(50, 3))
    tree = small_forest(n_estimators=1).fit(X, X[:, 0] > 0).estimators_[0].tree_
    assert _is_sound(tree, 3)

    class Forged:
        def __init__(self, **changes):
            for name in ("children_left", "children_right", "feature"):
                setattr(self, name, getattr(tree, name).copy())
            self.node_count, self.n_features = tree.node_count, 3
            for name, value in changes.items():
                getattr(self, name)[0] = value

    assert _is_sound(Forged(), 3)
    for change in ({"children_left": 10_000}, {"children_right": 0}, {"feature": 3}):
        assert not _is_sound(Forged(**change), 3)
    assert not _is_sound(tree, 4)


def test_evaluation_of_other_galaxies_warns_of_training_ones(sample, classifier):
    latents, votes = sample
    with pytest.warns(MorphVAEWarning, match="trained on"):
        evaluate(classifier, latents, votes, rows="all", n_bootstrap=2)
    new, new_votes = make_sample(300, seed=9)
    new["id"] += 5000
    new_votes["id"] += 5000
    scores = evaluate(classifier, new, new_votes, rows="all", n_bootstrap=50)
    assert (scores["balanced_accuracy"] > 0.75).all()
    with pytest.raises(ValueError, match="none of the galaxies set aside"):
        evaluate(classifier, new, new_votes)
    with pytest.raises(ValueError, match="rows="):
        evaluate(classifier, latents, votes, rows="test")


def test_evaluation_without_ids_goes_by_row(sample):
    latents, votes = sample[0].copy(), sample[1].copy()
    del latents["id"], votes["id"]
    fitted = quiet_fit(quick(), latents, votes)
    scores = evaluate(fitted, latents, votes, n_bootstrap=5)
    with_ids = evaluate(quiet_fit(quick(), *sample), *sample, n_bootstrap=5)
    assert np.array_equal(scores["n_test"], with_ids["n_test"])


def test_evaluation_is_seeded(sample, classifier):
    a, b, c = (evaluate(classifier, *sample, n_bootstrap=50, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a["accuracy_low"], b["accuracy_low"])
    assert not np.array_equal(a["accuracy_low"], c["accuracy_low"])
    wide = evaluate(classifier, *sample, n_bootstrap=200, confidence=0.99)
    narrow = evaluate(classifier, *sample, n_bootstrap=200, confidence=0.5)
    assert (
        wide["accuracy_high"] - wide["accuracy_low"]
        > narrow["accuracy_high"] - narrow["accuracy_low"]
    ).all()


def test_predictions_against_known_truth(labels):
    truth = Table({"disk-edge-on": labels["disk-edge-on"]})
    scores = evaluate_predictions(labels, truth, n_bootstrap=20)
    assert scores["accuracy"][0] == scores["macro_f1"][0] == 1
    names, counts = confusion_counts(labels, truth, "disk-edge-on")
    assert names == ["yes", "no"]
    assert counts[0, 1] == counts[1, 0] == 0
    assert counts.sum() == len(labels)
    truth["disk-edge-on"][:7] = "sideways"
    assert evaluate_predictions(labels, truth, n_bootstrap=2)["n_excluded"][0] == 7
    with pytest.raises(ValueError, match="no column for any question"):
        evaluate_predictions(labels, Table({"bar": np.full(len(labels), "no")}))
    with pytest.raises(ValueError, match="question='bar'"):
        confusion_counts(labels, truth, "bar")


def test_features_are_compared_on_the_same_galaxies(sample):
    latents, votes = sample
    trained_on = []

    def noise(rows):
        trained_on.append(rows)
        table = latents.copy()
        table["z_mean"] = np.random.default_rng(0).normal(size=(len(table), 6))
        table["status"] = np.where(np.arange(len(table)) < 30, "lost", "ok")
        return table

    with pytest.warns(MorphVAEWarning, match="too few"):
        table = compare_features(
            {"latents": latents, "noise": noise},
            votes,
            fitter=quick(),
            seeds=(0, 1),
            reference="noise",
            n_bootstrap=100,
        )
    assert len(table) == 2 * 2 * 4
    mine, other = table[table["features"] == "latents"], table[table["features"] == "noise"]
    assert np.array_equal(mine["n_test"], other["n_test"])
    assert np.array_equal(mine["majority_accuracy"], other["majority_accuracy"])
    assert (mine["balanced_accuracy_gain_low"] > 0.1).all()
    assert (other["balanced_accuracy_gain"] == 0).all()
    assert len(trained_on) == 2
    assert 0.68 < trained_on[0].mean() < 0.72
    with pytest.raises(ValueError, match="row-aligned"):
        compare_features({"a": latents, "b": latents[:-1]}, votes, fitter=quick())
    with pytest.raises(ValueError, match="reference='c'"):
        compare_features({"a": latents}, votes, reference="c")
    with pytest.raises(ValueError, match="begin with a table"):
        compare_features({"a": noise}, votes)


def test_reference_questions_on_simulated_votes():
    from astro_morphvae.datasets import make_galaxies

    catalog = make_galaxies(600, size=64, seed=3).catalog
    columns = [c for c in catalog.colnames if c.startswith("true_")]
    # The truth itself as features: what is left is what the votes and the tree do.
    truth = np.concatenate(
        [np.asarray(catalog[c])[:, None] == np.unique(catalog[c]) for c in columns], axis=1
    )
    latents = QTable({"id": catalog["id"], "z_mean": truth.astype(float)})
    fitted = quiet_fit(quick(questions="xu2023", min_examples=5), latents, catalog)
    assert {"smooth-or-featured", "disk-edge-on", "has-spiral-arms", "how-rounded"} <= set(
        fitted.questions
    )
    scores = evaluate(fitted, latents, catalog, n_bootstrap=5)
    assert (scores["accuracy"][scores["n_test"] > 10] > 0.8).all()


def test_labels_survive_a_table_file(labels, tmp_path):
    labels.write(tmp_path / "labels.ecsv")
    again = QTable.read(tmp_path / "labels.ecsv")
    assert again.meta["questions"] == labels.meta["questions"]
    assert (again["has-spiral-arms"] == labels["has-spiral-arms"]).all()
