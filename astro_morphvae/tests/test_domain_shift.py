import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable
from scipy import linalg, stats

from astro_morphvae.analysis import (
    _ks,
    _mmd,
    _moments,
    coral_distance,
    domain_auc,
    domain_shift,
    frechet_distance,
    latent_shifts,
    linear_mmd,
    squared_mmd,
)
from astro_morphvae.analysis._classifier import fold_scores, weighted_auc
from astro_morphvae.analysis._ks import adjusted_p_values, ks_values
from astro_morphvae.analysis._mmd import make_kernel, mmd_values
from astro_morphvae.analysis._samples import draw_weights, join, scale_latents
from astro_morphvae.exceptions import MorphVAEWarning

FEW = {"n_permutations": 39, "n_bootstrap": 40, "n_folds": 2}


@pytest.fixture(scope="module", autouse=True)
def _small_forests():
    """Let few trees tell surveys apart, where a test is not about how well they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("astro_morphvae.analysis._classifier.N_TREES", 20)
        yield


def make_latents(x, first_id=0, status="ok"):
    ids = [f"galaxy-{i}" for i in range(first_id, first_id + len(x))]
    return QTable({"id": ids, "z_mean": x, "status": np.full(len(x), status, dtype="U20")})


def same_galaxies(n=150, d=5, shift=0.0, noise=0.3, seed=0):
    """Latents of the same galaxies in two surveys, each with noise of its own."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, d))
    return tuple(truth + s + noise * rng.normal(size=(n, d)) for s in (0, shift))


def all_pairs(n):
    return np.repeat(np.arange(n)[:, None], 2, axis=1)


def mean_kernel(sigma, distance2, variance, d):
    """Mean of exp(-r**2 / (2 sigma**2)) for r ~ N(mean, variance I), |mean|**2 = distance2."""
    wide = sigma**2 + variance
    return (sigma**2 / wide) ** (d / 2) * np.exp(-distance2 / (2 * wide))


# -- Maximum mean discrepancy ----------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.7, 1.0), (0.4, 1.6)])
def test_mmd_of_gaussians_is_the_closed_form(shift, scale):
    d, sigmas = 3, (0.7, 2.0)
    true = np.mean(
        [
            mean_kernel(s, 0, 2, d)
            + mean_kernel(s, 0, 2 * scale**2, d)
            - 2 * mean_kernel(s, d * shift**2, 1 + scale**2, d)
            for s in sigmas
        ]
    )
    rng = np.random.default_rng(4)
    exact, linear, biased = [], [], []
    for _ in range(150):
        a, b = rng.normal(size=(40, d)), scale * rng.normal(size=(60, d)) + shift
        exact.append(squared_mmd(a, b, kernel=sigmas))
        linear.append(linear_mmd(a, b, kernel=sigmas)[0])
        biased.append(squared_mmd(a, b, kernel=sigmas, unbiased=False))
    for values in (exact, linear):
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        assert abs(np.mean(values) - true) < 4 * error
    assert np.std(linear) > 1.5 * np.std(exact)
    assert np.mean(biased) - true > 0.01


def test_mmd_in_linear_time_knows_its_error():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2500, 2)), rng.normal(size=(2500, 2)) + 0.5
    true = 2 * mean_kernel(1, 0, 2, 2) - 2 * mean_kernel(1, 0.5, 2, 2)
    value, error = linear_mmd(a, b, kernel=1.0)
    assert abs(value - true) < 3 * error < true


def test_mmd_by_hand_and_the_kernel_of_the_reference():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(12, 3)), rng.normal(size=(9, 3)) + 1
    x = np.concatenate([a, b])
    squared = np.sum((x[:, None] - x) ** 2, axis=2)
    # Xu et al.: five summed Gaussians about the mean squared distance; each term with itself kept.
    width = squared.sum() / (21 * 20)
    k = sum(np.exp(-squared / (width * factor)) for factor in (0.25, 0.5, 1, 2, 4))
    expected = k[:12, :12].mean() + k[12:, 12:].mean() - 2 * k[:12, 12:].mean()
    assert squared_mmd(a, b, kernel="xu2023", unbiased=False) == pytest.approx(expected, rel=1e-10)
    # Ours: averaged, about the median distance, no galaxy with itself.
    middle = 2 * np.median(squared[np.triu_indices(21, 1)])
    k = sum(np.exp(-squared / (middle * factor)) for factor in (0.25, 0.5, 1, 2, 4)) / 5
    within = [(k[p, p].sum() - m) / (m * (m - 1)) for p, m in ((slice(12), 12), (slice(12, 21), 9))]
    assert squared_mmd(a, b) == pytest.approx(sum(within) - 2 * k[:12, 12:].mean(), rel=1e-10)


def test_mmd_of_the_same_galaxies_is_unbiased_only_when_told():
    kept, told = [], []
    for seed in range(150):
        a, b = same_galaxies(20, 2, seed=seed)
        kept.append(squared_mmd(a, b, kernel=1.0))
        told.append(squared_mmd(a, b, kernel=1.0, pairs=all_pairs(20)))
    error = np.std(told, ddof=1) / np.sqrt(len(told))
    assert abs(np.mean(told)) < 3 * error
    assert np.mean(kept) < -10 * error


@pytest.mark.parametrize("paired", [False, True, "half"])
def test_p_values_of_identical_populations_are_uniform(paired):
    p_values = []
    for seed in range(250):
        a, b = same_galaxies(24, 2, seed=seed, noise=0.3 if paired else 3)
        if not paired:
            b = np.random.default_rng([seed, 9]).normal(size=(18, 2)) * np.sqrt(10)
        pairs = None if not paired else all_pairs(12 if paired == "half" else 24)
        if paired == "half":
            b[12:] = np.random.default_rng([seed, 9]).normal(size=(12, 2)) * np.sqrt(1.09)
        samples = join(a, b, pairs)
        weights = draw_weights(samples, 99, 0, seed)
        kernel = make_kernel("median", samples.x)
        observed, permuted, _ = weights.parts(mmd_values(samples, kernel, weights.a, weights.b))
        p_values.append((1 + np.sum(permuted >= observed - 1e-9)) / 100)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_bootstrap_intervals_of_mmd_cover_the_truth():
    true = 2 * mean_kernel(1, 0, 2, 2) - 2 * mean_kernel(1, 0.5, 2, 2)
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        samples = join(rng.normal(size=(80, 2)), rng.normal(size=(80, 2)) + 0.5)
        weights = draw_weights(samples, 0, 200, seed)
        values = mmd_values(samples, make_kernel(1.0, samples.x), weights.a, weights.b)
        low, high = np.quantile(values[1:], [0.025, 0.975])
        covered += low <= true <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_results_do_not_depend_on_the_blocks(monkeypatch):
    a, b = same_galaxies(40, 4, shift=0.3)
    samples = join(a, b, all_pairs(40))
    weights = draw_weights(samples, 5, 5, 0)
    kernel = make_kernel("median", samples.x)

    def compute():
        both = (*_moments.moments(samples.x, weights.a), *_moments.moments(samples.x, weights.b))
        return (
            mmd_values(samples, kernel, weights.a, weights.b),
            _moments.frechet_values(*both),
            ks_values(samples.x, weights.a, weights.b),
        )

    whole = compute()
    for module in (_mmd, _moments, _ks):
        monkeypatch.setattr(module, "_BLOCK", 200)
    for one, other in zip(whole, compute(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_kernel_errors():
    x = np.zeros((5, 2))
    with pytest.raises(ValueError, match="kernel='rbf' is neither"):
        make_kernel("rbf", x)
    with pytest.raises(ValueError, match="have collapsed"):
        squared_mmd(x, x)
    with pytest.raises(ValueError, match="must be positive"):
        squared_mmd(x, x, kernel=[1, -1])
    with pytest.raises(ValueError, match=r"a has shape \(5,\)"):
        squared_mmd(x[:, 0], x)
    with pytest.raises(ValueError, match="a has 2 features and b 1"):
        squared_mmd(x, x[:, :1])
    with pytest.raises(ValueError, match="4 are needed"):
        linear_mmd(x[:3], x, kernel=1.0)


# -- Fréchet and CORAL -----------------------------------------------------------------------------


def test_frechet_and_coral_of_gaussians_are_the_closed_forms():
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    scale_a, scale_b = np.array([1.0, 2, 0.5, 1]), np.array([2.0, 1, 0.5, 3])
    a = (rng.normal(size=(100_000, 4)) * scale_a) @ turn
    b = (rng.normal(size=(100_000, 4)) * scale_b + [1, 0, 0, 2]) @ turn
    # With common axes: squared distances of means and of standard deviations.
    assert frechet_distance(a, b) == pytest.approx(5 + 1 + 1 + 4, rel=0.02)
    true = np.sum((scale_a**2 - scale_b**2) ** 2) / (4 * 4**2)
    assert coral_distance(a, b) == pytest.approx(true, rel=0.03)
    assert coral_distance(a, b + 7) == pytest.approx(coral_distance(a, b), rel=1e-6)


def test_frechet_by_the_matrix_square_root():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(30, 5)), rng.normal(size=(25, 5)) @ rng.normal(size=(5, 5))
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert coral_distance(a, b) == pytest.approx(np.sum((cov_a - cov_b) ** 2) / 100, rel=1e-10)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


# -- Classifiers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.5])
def test_auc_of_gaussians_is_the_closed_form(distance):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3000, 2))
    b = b + distance / np.sqrt(2)
    true = stats.norm.cdf(distance / np.sqrt(2))
    # Standard error of an area under the curve of 3000 + 3000: less than 0.008.
    assert domain_auc(a, b, classifier="logistic") == pytest.approx(true, abs=0.02)
    forest = domain_auc(a[:800], b[:800], n_folds=2)
    assert true - 0.06 < forest < true + 0.05


def test_weighted_auc_by_mann_whitney():
    rng = np.random.default_rng(1)
    score = rng.integers(0, 8, size=50) / 8.0
    count = rng.integers(0, 3, size=50)
    a, b = (np.where(mask, count, 0)[None] for mask in (np.arange(50) < 20, np.arange(50) >= 20))
    none = np.empty((0, 2), dtype=int)
    auc = weighted_auc(score, np.zeros(50), a, b, none)[0]
    one, two = np.repeat(score[:20], count[:20]), np.repeat(score[20:], count[20:])
    expected = stats.mannwhitneyu(two, one).statistic / (len(one) * len(two))
    assert auc == pytest.approx(expected, rel=1e-12)
    # Without the couple of one galaxy with itself.
    others = np.delete(score[20:], 10)
    ones = (np.arange(50)[None] == 3).astype(float)
    rest = (np.arange(50)[None] >= 20).astype(float)
    auc = weighted_auc(score, np.zeros(50), ones, rest, np.array([[3, 30]]))[0]
    assert auc == pytest.approx(np.mean((others > score[3]) + 0.5 * (others == score[3])))


def test_a_galaxy_is_never_on_both_sides():
    from sklearn.neighbors import KNeighborsClassifier

    a, b = same_galaxies(300, 4, noise=0.01)
    nearest = KNeighborsClassifier(1)
    # A classifier that knows the galaxy from the other survey errs all the time.
    assert domain_auc(a, b, classifier=nearest) < 0.35
    assert domain_auc(a, b, classifier=nearest, pairs=all_pairs(300)) == pytest.approx(0.5, abs=0.1)
    pairs = np.random.default_rng(0).permutation(300)[:200].repeat(2).reshape(-1, 2)
    samples = join(a, b, pairs)
    _, fold = fold_scores(samples, nearest, 5, seed=0)
    assert (fold[pairs[:, 0]] == fold[300 + pairs[:, 1]]).all()
    counts = [np.bincount(part) for part in (fold[:300], fold[300:])]
    assert np.ptp(counts) <= 2


def test_classifier_errors():
    a, b = same_galaxies(10, 2)
    with pytest.raises(ValueError, match="classifier='svm'"):
        domain_auc(a, b, classifier="svm")
    with pytest.raises(TypeError, match="no predict_proba"):
        domain_auc(a, b, classifier=3)
    with pytest.raises(ValueError, match="n_folds=11"):
        domain_auc(a, b, n_folds=11)


# -- Single latents --------------------------------------------------------------------------------


def test_ks_agrees_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(55, 3)) + [0, 0.5, 2]
    a[:, 0], b[:, 0] = np.round(a[:, 0]), np.round(b[:, 0])  # ties
    samples = join(a, b)
    weights = draw_weights(samples, 0, 0, 0)
    expected = [stats.ks_2samp(a[:, j], b[:, j]).statistic for j in range(3)]
    np.testing.assert_allclose(ks_values(samples.x, weights.a, weights.b)[0], expected, atol=1e-6)


def test_adjusted_p_values_control_false_alarms():
    alarms = 0
    for seed in range(200):
        a, b = same_galaxies(40, 8, seed=seed)
        samples = join(a, b, all_pairs(40))
        weights = draw_weights(samples, 59, 0, seed)
        observed, permuted, _ = weights.parts(ks_values(samples.x, weights.a, weights.b))
        alarms += adjusted_p_values(observed, permuted).min() <= 0.05
    # 10 expected; more than 22 in one of 10,000 runs.
    assert alarms <= 22


def test_latent_shifts_names_what_has_moved():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400, 6))
    b[:, 4] += 1
    b[:, 1] *= 3
    table = latent_shifts(make_latents(a), make_latents(b), n_permutations=99)
    assert set(table["latent"][:2]) == {1, 4}
    moved, wider = (table[np.flatnonzero(table["latent"] == j)[0]] for j in (4, 1))
    assert moved["shift"] == pytest.approx(1, abs=0.2)
    assert wider["spread"] == pytest.approx(3, rel=0.15)
    assert (table["p_value"][:2] == 0.01).all()
    assert (table["p_value"][2:] > 0.05).all()


# -- The table -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shifted():
    a, b = same_galaxies(150, 5, shift=0.6)
    return make_latents(a), make_latents(b)


@pytest.fixture(scope="module")
def table(shifted):
    return domain_shift(*shifted, pairs="id", seed=3, **FEW)


def row(table, name):
    return table[table["diagnostic"].tolist().index(name)]


def test_a_shift_is_seen_by_every_diagnostic(table):
    for name in ("mmd2", "frechet", "ks_max", "ks_mean"):
        assert row(table, name)["p_value"] == pytest.approx(1 / 40)
        assert row(table, name)["low"] > row(table, name)["chance"]
    for name in ("mmd2_linear", "auc_forest", "auc_logistic"):
        assert row(table, name)["low"] > row(table, name)["chance"]
    assert row(table, "ks_shifted")["value"] == 1
    assert row(table, "coral")["p_value"] > 0.05  # the means only have moved
    assert 0.3 < row(table, "pair_distance")["value"] < 0.6
    known = np.isfinite(table["low"])
    assert (table["low"][known] <= table["value"][known]).all()
    assert (table["value"][known] <= table["high"][known]).all()


def test_no_shift_is_seen_where_there_is_none():
    a, b = same_galaxies(150, 5, noise=0.1, seed=8)
    table = domain_shift(make_latents(a), make_latents(b), pairs="rows", **FEW)
    for name in ("mmd2", "frechet", "coral", "ks_max"):
        assert row(table, name)["p_value"] > 0.05
    for name in ("auc_forest", "auc_logistic"):
        assert abs(row(table, name)["value"] - 0.5) < 0.1
    assert row(table, "ks_shifted")["value"] == 0
    assert row(table, "recall1_a_to_b")["value"] > 0.9


def test_the_table_is_reproducible_and_survives_a_file(shifted, table, tmp_path):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    again = domain_shift(*shifted, pairs="id", seed=3, **FEW)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    for name in ("value", "low", "high", "p_value"):
        np.testing.assert_array_equal(again[name], table[name])
    other = domain_shift(*shifted, pairs="id", seed=4, **FEW)
    assert not np.array_equal(other["low"], table["low"])
    table.write(tmp_path / "shift.ecsv")
    read = QTable.read(tmp_path / "shift.ecsv")
    np.testing.assert_array_equal(read["value"], table["value"])
    assert read.meta == table.meta
    assert read.meta["n_pairs"] == 150
    assert len(read.meta["kernel_widths"]) == 5


def test_pairs_given_in_three_ways_are_the_same(shifted, table):
    a, b = shifted
    order = np.random.default_rng(0).permutation(150)
    shuffled = domain_shift(a, b[order], pairs="id", seed=3, **FEW)
    rows = domain_shift(a, b, pairs="rows", seed=3, **FEW)
    array = np.stack([np.arange(150), np.arange(150)], axis=1)
    given = domain_shift(a, b, pairs=array, seed=3, **FEW)
    for other in (rows, given):
        np.testing.assert_array_equal(other["value"], table["value"])
    exact = ["mmd2", "frechet", "coral", "ks_max", "recall1_a_to_b", "median_rank_b_to_a"]
    for name in exact:
        assert row(shuffled, name)["value"] == pytest.approx(row(table, name)["value"], rel=1e-5)


def test_bad_rows_are_left_out_and_counted(shifted):
    a, b = (t.copy() for t in shifted)
    a["status"][3] = "unreadable"
    a["z_mean"][3] = 1e9
    b["z_mean"][8] = np.nan
    b["status"] = MaskedColumn(b["status"], mask=np.arange(150) == 20)
    table = domain_shift(a, b, pairs="id", **FEW)
    assert table.meta["n_bad"] == 3
    assert (table.meta["n_a"], table.meta["n_b"], table.meta["n_pairs"]) == (149, 148, 147)
    assert np.nanmax(np.abs(table["value"])) < 200


def test_surveys_of_different_galaxies(shifted):
    a, b = shifted
    table = domain_shift(a, make_latents(np.asarray(b["z_mean"])[:90], 1000), **FEW)
    assert "pair_distance" not in table["diagnostic"]
    assert row(table, "auc_logistic")["value"] > 0.6
    with pytest.warns(MorphVAEWarning, match="90 ids, such as 'galaxy-0', are in both tables"):
        none = domain_shift(a, b[:90], n_permutations=0, n_bootstrap=0, n_folds=2)
    assert np.isnan(none["p_value"]).all()
    assert np.isnan(none["low"]).all()
    assert row(none, "mmd2")["value"] > 0


def test_scaling_makes_units_irrelevant(shifted):
    a, b = shifted
    mix = np.random.default_rng(1).normal(size=(5, 5))
    for scaling, change in (("standard", np.diag([1, 10, 100, 1e3, 0.1])), ("whiten", mix)):
        changed = [make_latents(np.asarray(t["z_mean"]) @ change) for t in shifted]
        one, other = (
            domain_shift(*t, pairs="id", scaling=scaling, seed=3, **FEW) for t in ((a, b), changed)
        )
        for name in ("mmd2", "frechet", "pair_distance", "recall1_a_to_b"):
            assert row(one, name)["value"] == pytest.approx(row(other, name)["value"], rel=1e-5)
        assert one.meta["scaling"] == scaling
    flat = scale_latents(np.array([[1.0, 2], [1, 3], [1, 4]]), "whiten")
    assert np.isfinite(flat).all()
    assert np.sum(np.ptp(flat, axis=0) > 0) == 1


def test_the_reference_kernel_keeps_its_bias(shifted):
    table = domain_shift(*shifted, pairs="id", kernel="xu2023", **FEW)
    arrays = [np.asarray(t["z_mean"]) for t in shifted]
    expected = squared_mmd(*arrays, kernel="xu2023", unbiased=False)
    assert row(table, "mmd2")["value"] == pytest.approx(expected, rel=1e-5)
    assert table.meta["unbiased"] is False
    assert row(table, "mmd2")["low"] < expected < row(table, "mmd2")["high"]
    assert row(table, "mmd2")["chance"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": 95}, "confidence must lie in"),
        ({"n_permutations": -1}, "n_permutations must be a whole number"),
        ({"n_bootstrap": 0.5}, "n_bootstrap must be a whole number"),
        ({"scaling": "log"}, "scaling='log'"),
        ({"pairs": "name"}, "pairs='name'"),
        ({"pairs": [[0, 0], [1, 0]]}, "second survey more than once"),
        ({"pairs": [[0, 500]]}, "beyond its 150"),
        ({"pairs": [0, 1]}, r"must be a \(k, 2\) array"),
        ({"features": "z"}, "latents_a has no column 'z'"),
        ({"n_folds": 1, "pairs": "id"}, "n_folds=1"),
    ],
)
def test_arguments_out_of_range(shifted, change, message):
    with pytest.raises(ValueError, match=message):
        domain_shift(*shifted, **FEW | change)


def test_tables_that_do_not_fit(shifted):
    a, b = shifted
    with pytest.raises(TypeError, match="latents_b must be a Table"):
        domain_shift(a, np.asarray(b["z_mean"]))
    with pytest.raises(ValueError, match="latents_a has 5 features and latents_b 2"):
        domain_shift(a, make_latents(np.zeros((9, 2))))
    with pytest.raises(ValueError, match="row-aligned"):
        domain_shift(a, b[:9], pairs="rows")
    with pytest.raises(ValueError, match="no id of latents_a"):
        domain_shift(a, make_latents(np.asarray(b["z_mean"]), 900), pairs="id")
    with pytest.raises(ValueError, match="latents_b has 1 ids more than once"):
        domain_shift(a, b[[0, 1, 1]], pairs="id")
    with pytest.raises(ValueError, match="latents_a has 0 usable rows"):
        domain_shift(make_latents(np.zeros((9, 5)), status="off-footprint"), b)
    with pytest.raises(ValueError, match=r"latents_a has 1 features"):
        domain_shift(QTable({"z_mean": np.zeros(9)}), b)


def test_importing_the_module_loads_no_network():
    import subprocess
    import sys

    code = (
        "import sys, astro_morphvae.analysis; "
        "print([m for m in ('keras', 'torch', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_what_is_measured_is_what_adaptation_minimises():
    torch = pytest.importorskip("torch")
    from astro_morphvae.networks.adaptation import coral, mmd

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 4)), 1.3 * rng.normal(size=(25, 4)) + 0.5
    tensors = torch.tensor(a), torch.tensor(b)
    for unbiased, name in ((True, "unbiased"), (False, "biased")):
        expected = float(mmd.mmd_squared(*tensors, estimator=name))
        value = squared_mmd(a, b, kernel="xu2023", unbiased=unbiased)
        assert value == pytest.approx(expected, rel=1e-9)
    assert coral_distance(a, b) == pytest.approx(float(coral.coral_distance(*tensors)), rel=1e-9)
