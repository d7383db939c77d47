import numpy as np
import pytest
from sklearn import metrics as reference

from astro_morphvae.morphology.calibration import (
    apply_calibration,
    fit_calibration,
    unseen_probabilities,
)
from astro_morphvae.morphology.metrics import bootstrap_weights, interval, score_sums


def one(sums):
    return {name: float(values[0]) for name, values in sums.evaluate().items()}


def test_scores_by_hand():
    true = np.array([0, 0, 0, 1])
    given = np.array([0, 0, 1, 1])
    sure = np.array([0.9, 0.9, 0.6, 0.6])
    scores = one(score_sums(true, given, sure, 2, n_bins=10))
    assert scores["accuracy"] == pytest.approx(0.75)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    # In (0.8, 0.9]: |0.9 - 1|; in (0.5, 0.6]: |0.6 - 0.5|; half of the galaxies each.
    assert scores["ece"] == pytest.approx(0.1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    true, given = rng.integers(4, size=(2, 300))
    scores = one(score_sums(true, given, rng.uniform(size=300), 5))
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(true, given))
    assert scores["balanced_accuracy"] == pytest.approx(
        reference.balanced_accuracy_score(true, given)
    )
    assert scores["macro_f1"] == pytest.approx(reference.f1_score(true, given, average="macro"))


def test_calibration_error_of_perfect_and_overconfident_classifiers():
    rng = np.random.default_rng(5)
    sure = rng.uniform(0.5, 1, 100_000)
    right = (rng.uniform(size=sure.size) < sure).astype(int)
    ones = np.ones(sure.size, dtype=int)
    assert one(score_sums(right, ones, sure, 2))["ece"] < 0.01
    always = np.ones(sure.size)
    assert one(score_sums(right, ones, always, 2))["ece"] == pytest.approx(1 - right.mean())


def test_bootstrap_counts_equal_resampling():
    rng = np.random.default_rng(1)
    true, given = rng.integers(3, size=(2, 40))
    sure = rng.uniform(size=40)
    weights = bootstrap_weights(40, 20, seed=3)
    assert (weights.sum(axis=1) == 40).all()
    together = score_sums(true, given, sure, 3).evaluate(weights)
    for i, counts in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(40), counts)
        alone = one(score_sums(true[rows], given[rows], sure[rows], 3))
        for name, value in alone.items():
            assert together[name][i] == pytest.approx(value, abs=1e-5)


def test_interval_of_accuracy_has_the_binomial_width():
    rng = np.random.default_rng(2)
    n = 1000
    given = np.zeros(n, dtype=int)
    true = (rng.uniform(size=n) > 0.8).astype(int)
    sums = score_sums(true, given, np.ones(n), 2)
    value = one(sums)["accuracy"]
    samples = sums.evaluate(bootstrap_weights(n, 2000, 0))["accuracy"]
    low, high = interval(value, samples, 0.6827)
    assert 0.5 * (high - low) == pytest.approx(np.sqrt(value * (1 - value) / n), rel=0.1)
    assert low < value < high


def test_pivotal_interval_mends_the_shift_of_the_calibration_error():
    rng = np.random.default_rng(4)
    sure = rng.uniform(0.5, 1, 300)
    true = (rng.uniform(size=300) < sure).astype(int)
    sums = score_sums(true, np.ones(300, dtype=int), sure, 2)
    value = one(sums)["ece"]
    samples = sums.evaluate(bootstrap_weights(300, 1000, 0))["ece"]
    assert samples.mean() > value
    low, high = interval(value, samples, pivotal=True)
    assert 0 <= low <= value
    assert 0.5 * (low + high) < value
    assert np.isnan(interval(np.nan, np.array([]))).all()


def overconfident(n, seed, power=3):
    """Probabilities raised to a power and normalised, with classes drawn from the true ones."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([1, 1, 1], size=n)
    true = (p.cumsum(axis=1) < rng.uniform(size=n)[:, None]).sum(axis=1)
    sharp = p**power
    return sharp / sharp.sum(axis=1, keepdims=True), true, p


@pytest.mark.parametrize("method", ["isotonic", "temperature"])
def test_calibration_mends_overconfidence(method):
    raw, true, _ = overconfident(4000, 0)
    new, new_true, p = overconfident(4000, 1)
    calibrator = fit_calibration(method, raw, true)
    mended = apply_calibration(calibrator, new)

    def ece(q):
        return one(score_sums(new_true, q.argmax(axis=1), q.max(axis=1), 3))["ece"]

    assert ece(new) > 0.12
    assert ece(mended) < 0.04
    np.testing.assert_allclose(mended.sum(axis=1), 1)
    assert np.abs(mended - p).mean() < 0.5 * np.abs(new - p).mean()
    if method == "temperature":
        assert calibrator["temperature"] == pytest.approx(3, rel=0.1)
        assert (mended.argmax(axis=1) == new.argmax(axis=1)).all()


def test_no_calibration_and_unknown_calibration():
    raw, true, _ = overconfident(10, 0)
    assert np.array_equal(apply_calibration(fit_calibration(None, raw, true), raw), raw)
    with pytest.raises(ValueError, match="calibration='platt'"):
        fit_calibration("platt", raw, true)


def test_isotonic_keeps_rows_that_every_class_refuses():
    raw = np.array([[0.8, 0.2], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9]])
    calibrator = fit_calibration("isotonic", raw, np.array([0, 0, 1, 1]))
    middle = apply_calibration(calibrator, np.array([[0.2, 0.3], [0.5, 0.5]]))
    np.testing.assert_allclose(middle[0], [0.4, 0.6])
    np.testing.assert_allclose(middle.sum(axis=1), 1)


def test_unseen_probabilities_come_from_others():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 3)), rng.integers(2, size=120)
    # One neighbour knows by heart what it was shown; of what it was not, it knows nothing.
    knn = KNeighborsClassifier(1)
    fitted = knn.fit(X, y)
    assert (fitted.predict_proba(X).argmax(axis=1) == y).all()
    unseen = unseen_probabilities(knn, X, y, fitted=fitted)
    assert 0.3 < (unseen.argmax(axis=1) == y).mean() < 0.7
    forest = RandomForestClassifier(100, oob_score=True, random_state=0).fit(X, y)
    unseen = unseen_probabilities(forest, X, y, fitted=forest)
    assert 0.3 < (unseen.argmax(axis=1) == y).mean() < 0.7
