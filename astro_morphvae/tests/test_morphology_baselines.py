import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from astro_morphvae.cutouts import CutoutSet
from astro_morphvae.morphology import pca_features
from astro_morphvae.morphology.baselines import _averaging


def make_set(n=60, size=48, unit=u.nmgy, seed=0, **more):
    """Images that are sums of three patterns, with little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    patterns = np.stack([np.exp(-20 * (x**2 + y**2)), x, y])
    weights = rng.normal(size=(n, 1, 3)) + np.array([2, 0, 0])
    data = np.tensordot(weights, patterns, axes=(2, 0)) + 0.01 * rng.normal(size=(n, 2, size, size))
    data = 0.1 * data + (0.5 if unit == u.dimensionless_unscaled else 0)
    return CutoutSet(data.astype(np.float32), unit=unit, bands=("g", "r"), **more), weights[:, 0]


@pytest.mark.parametrize("unit", [u.nmgy, u.dimensionless_unscaled])
def test_components_find_what_varies(unit):
    cutouts, weights = make_set(unit=unit)
    table = pca_features(cutouts, 3, size=16)
    assert isinstance(table, QTable)
    assert table["z_mean"].shape == (60, 3)
    assert (table["status"] == "ok").all()
    # The three components span the three weights.
    design = np.column_stack([table["z_mean"], np.ones(60)])
    fit, *_ = np.linalg.lstsq(design, weights, rcond=None)
    assert np.var(weights - design @ fit) < 0.05 * np.var(weights)
    assert table.meta["explained_variance"] > 0.8


def test_components_are_fitted_to_the_rows_asked_for():
    cutouts, _ = make_set()
    rows = np.arange(60) < 30
    strange = cutouts.data.copy()
    strange[30:] += 100 * np.random.default_rng(1).normal(size=strange[30:].shape)
    other = CutoutSet(strange, unit=u.nmgy, bands=("g", "r"))
    a, b = (pca_features(c, 3, size=16, fit_rows=rows) for c in (cutouts, other))
    np.testing.assert_allclose(a["z_mean"][:30], b["z_mean"][:30], rtol=1e-4, atol=1e-4)
    assert a.meta["n_fit"] == 30
    again = pca_features(cutouts, 3, size=16, fit_rows=rows)
    assert np.array_equal(a["z_mean"], again["z_mean"])


def test_masked_pixels_and_bad_rows():
    cutouts, _ = make_set()
    data = cutouts.data.copy()
    data[5] = np.nan
    data[6, :, 3, 3] = 1e9
    mask = np.zeros(data.shape, dtype=bool)
    mask[6, :, 3, 3] = True
    catalog = QTable({"id": np.arange(60), "status": np.full(60, "ok", dtype="U20")})
    catalog["status"][5] = "all NaN"
    marred = CutoutSet(data, unit=u.nmgy, bands=("g", "r"), mask=mask, catalog=catalog)
    table = pca_features(marred, 3, size=16)
    assert np.isnan(table["z_mean"][5]).all()
    assert table["status"][5] == "all NaN"
    assert np.abs(table["z_mean"][6]).max() < 100
    assert np.isfinite(np.delete(table["z_mean"], 5, axis=0)).all()


def test_averaging_conserves_the_mean():
    for n, size in ((48, 16), (50, 16), (7, 7), (212, 32)):
        matrix = _averaging(n, size)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(matrix.mean(axis=0), 1 / n, rtol=1e-4)


def test_crop_and_errors():
    cutouts, _ = make_set()
    assert pca_features(cutouts, 3, size=16, crop=32).meta["crop"] == 32
    with pytest.raises(ValueError, match="size=64"):
        pca_features(cutouts, 3, size=64)
    with pytest.raises(ValueError, match="n_components=40"):
        pca_features(cutouts[:20], 40)
    with pytest.raises(ValueError, match="fit_rows"):
        pca_features(cutouts, 3, fit_rows=np.arange(5))
