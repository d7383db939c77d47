import sys

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import InverseVariance
from astropy.table import MaskedColumn, QTable

from astro_morphvae.cutouts import CutoutSet

matplotlib = pytest.importorskip("matplotlib")
plt = pytest.importorskip("matplotlib.pyplot")

from astro_morphvae.plotting import (  # noqa: E402
    plot_confusion,
    plot_cutouts,
    plot_latent_map,
    plot_reconstructions,
    plot_reliability,
    plot_training,
)
from astro_morphvae.plotting._colour import fit_scale  # noqa: E402
from astro_morphvae.plotting.latents import _apart  # noqa: E402
from astro_morphvae.plotting.scores import _wilson  # noqa: E402


@pytest.fixture(autouse=True)
def _leave_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def make_set(n=10, bands=("g", "r", "z"), size=24, unit=u.nmgy, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    shape = 5 * np.exp(-(x**2 + y**2) / 18)
    noise = 0.05 * rng.normal(size=(n, len(bands), size, size))
    colour = rng.uniform(0.5, 2, size=(n, len(bands), 1, 1))
    data = (colour * shape + noise).astype(np.float32)
    if unit == u.dimensionless_unscaled:
        data = np.clip(data / 10, 0, 1)
    catalog = QTable({"id": np.arange(n), "status": np.full(n, "ok", dtype="U40")})
    catalog["kind"] = np.where(np.arange(n) % 2, "disk", "smooth")
    if n > 3:
        data[3] = np.nan
        catalog["status"][3] = "unreadable: no such file"
    return CutoutSet(data, unit=unit, bands=bands, pixel_scale=0.262 * u.arcsec, catalog=catalog)


def words(ax):
    return [text.get_text() for text in ax.texts]


def draw(ax):
    ax.figure.canvas.draw()
    return ax


def test_cutouts_are_drawn_with_captions_scale_bar_and_status():
    ax = draw(plot_cutouts(make_set(), titles="kind"))
    assert len(ax.images) == 9
    assert words(ax).count("disk") == 5
    assert "unreadable" in words(ax)
    assert "2″" in words(ax)
    assert len({tuple(image.get_extent()) for image in ax.images}) == 9


@pytest.mark.parametrize("bands", [("r",), ("g", "z"), ("g", "r", "z"), ("g", "r", "i", "z")])
def test_any_number_of_bands(bands):
    picture = draw(plot_cutouts(make_set(2, bands))).images[0].get_array()
    assert picture.shape == (24, 24, 3)
    assert 0 <= picture.min() < 0.4 < picture.max() <= 1
    grey = np.ptp(picture, axis=-1).max() == 0
    assert grey == (len(bands) == 1)


def test_the_reddest_band_is_red_and_choice_is_free():
    cutouts = make_set(5)
    data = cutouts.data.copy()
    data[0, 2] *= 30
    red = CutoutSet(data, unit=u.nmgy, bands=cutouts.bands)
    centre = fit_scale(red)(red.data)[0, 12, 12]
    assert centre[0] > centre[1]
    assert centre[0] > centre[2]
    turned = fit_scale(red, ("g", "r", "z"))(red.data)[0, 12, 12]
    np.testing.assert_allclose(turned, centre[::-1])
    with pytest.raises(ValueError, match=r"bands=\['g', 'y', 'z'\]"):
        plot_cutouts(red, bands=("g", "y", "z"))


def test_one_stretch_for_the_set_and_unit_free():
    cutouts = make_set(6)
    data = cutouts.data.copy()
    data[0] = 0.2 * data[1]
    cutouts = CutoutSet(data, unit=u.nmgy, bands=cutouts.bands, catalog=cutouts.catalog)
    pictures = fit_scale(cutouts)(cutouts.data)
    assert pictures[0, 12, 12].max() < pictures[1, 12, 12].max()
    scaled = CutoutSet(data * 1000, unit=u.nmgy, bands=cutouts.bands, catalog=cutouts.catalog)
    again = fit_scale(scaled)(scaled.data)
    np.testing.assert_allclose(again, pictures, atol=1e-4)


def test_colour_stamps_are_shown_as_they_are():
    stamps = make_set(2, ("red", "green", "blue"), unit=u.dimensionless_unscaled)
    ax = plot_cutouts(stamps)
    np.testing.assert_allclose(
        ax.images[0].get_array(), np.moveaxis(stamps.data[0], 0, -1), atol=1e-6
    )


def test_sets_without_signal_or_good_rows_can_be_drawn():
    noise = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    blank = CutoutSet(noise, unit=u.nmgy, bands=("g", "r", "z"))
    assert np.isfinite(draw(plot_cutouts(blank)).images[0].get_array()).all()
    assert len(draw(plot_cutouts(make_set()[3:4])).images) == 0


def test_given_axes_are_used_and_rows_chosen():
    figure, axes = plt.subplots(1, 2)
    assert plot_cutouts(make_set(), rows=[7, 2], ax=axes[1]) is axes[1]
    assert len(axes[1].images) == 2
    assert len(figure.axes) == 2
    with pytest.raises(ValueError, match="rows goes beyond"):
        plot_cutouts(make_set(), rows=[10])
    with pytest.raises(ValueError, match="no cutout"):
        plot_cutouts(make_set(), rows=[])
    with pytest.raises(ValueError, match="titles has 2"):
        plot_cutouts(make_set(), titles=["a", "b"])
    with pytest.raises(ValueError, match="titles='name'"):
        plot_cutouts(make_set(), titles="name")


def test_residuals_are_in_units_of_the_noise():
    cutouts = make_set()
    sigma = np.float32(0.05)
    known = CutoutSet(
        cutouts.data,
        unit=u.nmgy,
        bands=cutouts.bands,
        uncertainty=InverseVariance(np.full(cutouts.shape, sigma**-2)),
        catalog=cutouts.catalog,
    )
    model = CutoutSet(
        np.nan_to_num(cutouts.data) - 2 * sigma,
        unit=u.nmgy,
        bands=cutouts.bands,
        catalog=cutouts.catalog,
    )
    ax = draw(plot_reconstructions(known, model, titles=cutouts.catalog["kind"]))
    assert len(ax.images) == 15  # of six columns, one is a bad row
    residuals = [image.get_array() for image in ax.images if image.get_array().ndim == 2]
    assert len(residuals) == 5
    # Three bands, each 2 sigma off.
    np.testing.assert_allclose(residuals[0], 2 * np.sqrt(3), rtol=1e-3)
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == ["input", "reconstruction", "residual"]
    bars = [child for child in ax.child_axes if child.get_ylabel()]
    assert bars[0].get_ylabel() == "residual / σ"


def test_residuals_without_known_noise_use_the_sky():
    cutouts = make_set()
    ax = draw(plot_reconstructions(cutouts, cutouts, n=2))
    assert ax.child_axes[0].get_ylabel() == "residual / sky scatter"
    with pytest.raises(ValueError, match="row-aligned"):
        plot_reconstructions(cutouts, cutouts[:4])


@pytest.fixture
def latents():
    rng = np.random.default_rng(0)
    table = QTable({"z_mean": rng.normal(size=(120, 5)), "status": np.full(120, "ok")})
    table["z_mean"][7] = np.nan
    return table


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_latent_map_has_a_colour_for_each_label(latents, method):
    kinds = MaskedColumn(np.where(np.arange(120) < 50, "disk", "smooth"), mask=np.arange(120) > 99)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    ax = draw(plot_latent_map(latents, kinds, method=method, title="kind"))
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["smooth (50)", "disk (49)", "unlabelled (20)"] or legend == [
        "disk (49)",
        "smooth (50)",
        "unlabelled (20)",
    ]
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    colours = {tuple(np.round(c.get_facecolor()[0], 3)) for c in ax.collections}
    assert len(colours) == 3


def test_latent_map_with_numbers_has_a_colour_bar(latents):
    fraction = np.linspace(0, 1, 120)
    fraction[3] = np.nan
    ax = draw(plot_latent_map(latents, fraction, title="smooth fraction"))
    assert ax.child_axes[0].get_ylabel() == "smooth fraction"
    assert ax.get_legend() is None


def test_thumbnails_do_not_overlap(latents):
    cutouts = make_set(120, size=12)
    ax = draw(plot_latent_map(latents, cutouts.catalog["kind"], cutouts, zoom=2))
    assert 5 < len(ax.images) <= 60
    boxes = np.array([image.get_extent() for image in ax.images])
    for i, (l0, r0, b0, t0) in enumerate(boxes):
        for l1, r1, b1, t1 in boxes[:i]:
            assert r0 <= l1 or r1 <= l0 or t0 <= b1 or t1 <= b0
    assert ax.images[0].get_array().shape[:2] == (6, 6)
    assert len(draw(plot_latent_map(latents, None, cutouts, n_thumbnails=3)).images) == 3


def test_thumbnails_stay_inside_the_map():
    rng = np.random.default_rng(3)
    place = rng.uniform(-0.2, 1.2, size=(500, 2))
    rows = _apart(place, np.ones(500, dtype=bool), 0.1, 25)
    assert len(rows) == 25
    assert place[rows].min() > 0.05
    assert place[rows].max() < 0.95
    assert _apart(place, np.zeros(500, dtype=bool), 0.1, 25).size == 0


def test_outliers_do_not_shrink_the_map(latents):
    xy = np.asarray(latents["z_mean"])[:, :2].copy()
    xy[0] = 1000
    ax = draw(plot_latent_map(latents, method=xy))
    assert ax.get_xlim()[1] < 20
    assert "1 beyond the frame" in words(ax)


def test_latent_map_errors(latents):
    with pytest.raises(ValueError, match="method='mds'"):
        plot_latent_map(latents, method="mds")
    with pytest.raises(ValueError, match="labels has 3"):
        plot_latent_map(latents, ["a", "b", "c"])
    with pytest.raises(ValueError, match="2 good rows"):
        plot_latent_map(latents[:2])
    with pytest.raises(ValueError, match="zoom"):
        plot_latent_map(latents, zoom=0.5)
    with pytest.raises(ValueError, match="coordinates"):
        plot_latent_map(latents, method=np.zeros((3, 2)))


def test_confusion_shows_counts_and_shares_of_rows():
    counts = np.array([[30, 10, 0], [5, 15, 0], [0, 0, 0]])
    ax = draw(plot_confusion(counts, ["strong", "weak", "no"], title="bar"))
    assert words(ax)[:2] == ["75 %\n30", "25 %\n10"]
    assert words(ax)[-1] == "–"
    np.testing.assert_allclose(ax.images[0].get_array()[1], [0.25, 0.75, 0])
    assert ax.get_title() == "bar"
    with pytest.raises(ValueError, match=r"counts has shape \(3, 3\)"):
        plot_confusion(counts, ["a", "b"])


def test_reliability_of_a_calibrated_classifier_follows_the_diagonal():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 20_000)
    correct = rng.uniform(size=confidence.size) < confidence
    ax = draw(plot_reliability(confidence, correct, label="ours"))
    x, y = ax.lines[1].get_data()
    assert len(x) == 7
    np.testing.assert_allclose(x, y, atol=0.03)
    plot_reliability(confidence**2, correct, label="other", ax=ax)
    entries = [text.get_text() for text in ax.get_legend().get_texts()]
    assert entries == ["ours", "other"]
    with pytest.raises(ValueError, match="shapes"):
        plot_reliability(confidence, correct[:5])


def test_wilson_interval_by_hand():
    # 5 of 10: centre 1/2, half-width sqrt(1/40 + 1/400) / 1.1
    low, high = _wilson(np.array([0.5]), np.array([10]))
    assert (low[0] + high[0]) / 2 == pytest.approx(0.5)
    assert (high[0] - low[0]) / 2 == pytest.approx(np.sqrt(0.0275) / 1.1)


@pytest.fixture
def fit_info():
    epochs = np.arange(20)
    history = {
        "loss": list(5000 * np.exp(-2.0 * epochs) + 10 - epochs / 10),
        "reconstruction": list(9 - epochs / 10),
        "kl": list(1 + epochs / 100),
        "learning_rate": [1e-3] * 20,
        "beta": list(np.minimum(epochs / 5, 1)),
    }
    history |= {f"val_{k}": [*history[k][:-1], None] for k in ("loss", "reconstruction", "kl")}
    return {"history": history, "best_epoch": 18}


def test_training_shows_all_curves(fit_info):
    axes = plot_training(fit_info)
    draw(axes[0, 0])
    assert [ax.get_title() for ax in axes.ravel()] == [
        "loss per galaxy",
        "reconstruction term",
        "KL divergence",
        "learning rate",
    ]
    entries = [text.get_text() for text in axes[0, 0].get_legend().get_texts()]
    assert entries == ["training", "validation", "best epoch"]
    assert len(axes[0, 1].lines) == 2
    # The first epoch does not flatten the rest.
    assert axes[0, 0].get_ylim()[1] < 200


def test_training_on_given_axes_and_errors(fit_info):
    _, ax = plt.subplots()
    assert plot_training(fit_info["history"], ax=ax) is ax
    assert len(ax.lines) == 2
    with pytest.raises(ValueError, match="holds 2 Axes"):
        plot_training(fit_info, ax=plt.subplots(1, 2)[1])
    with pytest.raises(ValueError, match="no history"):
        plot_training({"history": {}})
    one = {k: v[:1] for k, v in fit_info["history"].items()}
    assert draw(plot_training(one)[0, 0]).lines[0].get_marker() == "o"


def test_matplotlib_is_needed_only_when_drawing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"plot_confusion needs.*astro_morphvae\[plot\]"):
        plot_confusion(np.eye(2), ["a", "b"])


def test_importing_the_module_does_not_load_matplotlib():
    import subprocess

    code = "import sys, astro_morphvae.plotting; print('matplotlib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_real_cutouts_of_four_kinds(shared_data):
    stamps = sorted((shared_data / "gz2-votes" / "images").glob("*.jpg"))[:6]
    ax = draw(plot_cutouts(CutoutSet.from_files(stamps)))
    assert len(ax.images) == 6
    field = CutoutSet.from_files([shared_data / "decals-fits" / "example_d.fits"])
    picture = np.asarray(draw(plot_cutouts(field)).images[0].get_array())
    # A galaxy in the middle, dark sky at the rim.
    assert picture[200:220, 200:220].mean() > 0.6
    assert np.median(picture[:40]) < 0.3
