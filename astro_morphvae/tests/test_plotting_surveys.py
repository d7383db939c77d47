import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from astro_morphvae.analysis import rank_pairs
from astro_morphvae.cutouts import CutoutSet

matplotlib = pytest.importorskip("matplotlib")
plt = pytest.importorskip("matplotlib.pyplot")

from astro_morphvae.plotting import (  # noqa: E402
    plot_domain_shift,
    plot_survey_pairs,
    plot_transfer,
)


@pytest.fixture(autouse=True)
def _leave_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def make_set(n=20, size=24, pixel_scale=0.262, bands=("g", "r", "z"), bad=None):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    shape = np.exp(-np.hypot(x, y) * (pixel_scale or 0.3) / 0.8)
    height = np.linspace(1, 3, n)[:, None, None, None]
    noise = 0.02 * np.random.default_rng(0).normal(size=(n, len(bands), size, size))
    catalog = QTable({"id": np.arange(n), "status": np.full(n, "ok", dtype="U40")})
    if bad is not None:
        catalog["status"][bad] = "off-footprint: no image"
    return CutoutSet(
        (height * shape + noise).astype(np.float32),
        unit=u.nmgy,
        bands=bands,
        pixel_scale=None if pixel_scale is None else pixel_scale * u.arcsec,
        catalog=catalog,
    )


def make_latents(n=20, d=5, shift=0.0, seed=0):
    truth = np.random.default_rng(1).normal(size=(n, d))
    z = truth + 0.2 * np.random.default_rng(seed).normal(size=(n, d))
    z[:, min(2, d - 1)] += shift
    return QTable({"id": np.arange(n), "z_mean": z, "status": np.full(n, "ok", dtype="U20")})


def draw(ax):
    ax.figure.canvas.draw()
    return ax


def words(ax):
    return [text.get_text() for text in ax.texts]


@pytest.fixture
def ranking():
    return rank_pairs(make_latents(seed=1), make_latents(seed=2))


def test_pairs_are_shown_above_each_other(ranking):
    ax = draw(plot_survey_pairs(make_set(), make_set(), ranking, n=3, names=("DECaLS", "BASS")))
    assert len(ax.images) == 12
    boxes = np.array([image.get_extent() for image in ax.images])
    left, bottom = boxes[:, 0].reshape(6, 2), boxes[:, 2].reshape(6, 2)
    np.testing.assert_array_equal(left[:, 0], left[:, 1])
    assert (bottom[:, 0] > bottom[:, 1]).all()
    # A gap between the three most and the three least alike.
    assert left[3, 0] - left[2, 0] > 1.3 * (left[1, 0] - left[0, 0])
    assert words(ax)[-2:] == ["most alike", "least alike"]
    assert words(ax)[0] == f"{ranking['ratio'][0]:.2g}"
    assert words(ax)[5] == f"{ranking['ratio'][-1]:.2g}"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["DECaLS", "BASS"]
    assert "median distance" in ax.get_xlabel()


def test_the_pictures_are_of_the_galaxies_ranked(ranking):
    first, second = make_set(bad=int(ranking["row_a"][0])), make_set()
    ax = draw(plot_survey_pairs(first, second, ranking, n=2, captions="id"))
    assert len(ax.images) == 7
    assert words(ax)[0] == "off-footprint"
    assert words(ax)[1] == str(ranking["id"][0])
    assert ax.images[0].get_extent()[2] == 0  # only the second survey's picture is in column one
    alone = plot_survey_pairs(first, second, ranking[:1], captions=None)
    assert words(alone)[-1] == "most alike"
    assert alone.get_xlabel() == ""


def test_both_pictures_show_the_same_sky(ranking):
    fine, coarse = make_set(size=40, pixel_scale=0.2), make_set(size=32, pixel_scale=0.4)
    ax = draw(plot_survey_pairs(fine, coarse, ranking, n=1))
    shapes = [image.get_array().shape[:2] for image in ax.images]
    assert shapes[:2] == [(40, 40), (20, 20)]  # 8 arcsec each
    unknown = make_set(size=30, pixel_scale=None, bands=("r",))
    ax = draw(plot_survey_pairs(unknown, coarse, ranking, n=1))
    assert [image.get_array().shape[:2] for image in ax.images][:2] == [(30, 30), (32, 32)]


def test_pair_errors(ranking):
    cutouts = make_set()
    with pytest.raises(ValueError, match=r"ranking names row \d+ of second, which has 5"):
        plot_survey_pairs(cutouts, cutouts[:5], ranking)
    with pytest.raises(ValueError, match="ranking has 20 rows and no column"):
        plot_survey_pairs(cutouts, cutouts, ranking, captions="redshift")
    with pytest.raises(ValueError, match="ranking has 0 rows"):
        plot_survey_pairs(cutouts, cutouts, ranking[:0])
    with pytest.raises(ValueError, match="n must be at least 1"):
        plot_survey_pairs(cutouts, cutouts, ranking, n=0)


def test_a_shift_is_shown_where_it_is():
    a, b = make_latents(300, seed=1), make_latents(300, shift=2.0, seed=2)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    axes = plot_domain_shift(a, b, names=("DECaLS", "BASS"), pairs="id", n_latents=3)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    draw(axes[0])
    assert len(axes) == 4
    legend = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert legend == ["DECaLS (300)", "BASS (300)"]
    title = axes[1].get_title()
    assert title.startswith("latent 2\nKS 0.")
    assert title.endswith("p ≤ 0.005")
    assert "p = 0." in axes[3].get_title()
    # 100 pairs are joined, and their ends are where the galaxies are.
    joined = [line for line in axes[0].lines if line.get_color() == "#404040"]
    assert len(joined) == 100
    points = axes[0].collections[0].get_offsets().data
    ends = joined[0].get_xydata()
    assert all(np.isclose(points, end).all(axis=1).any() for end in ends)


def test_shift_on_given_axes():
    a, b = make_latents(60, d=1, seed=1), make_latents(50, d=3, seed=2)
    _, axes = plt.subplots(1, 3)
    given = plot_domain_shift(make_latents(60, d=3), b, n_latents=2, axes=axes)
    assert given == list(axes)
    assert not [line for line in axes[0].lines if line.get_color() == "#404040"]
    with pytest.raises(ValueError, match="axes holds 3 Axes; 4 are needed"):
        plot_domain_shift(make_latents(60, d=3), b, axes=axes)
    single = QTable({"z_mean": a["z_mean"]})
    assert len(draw(plot_domain_shift(single, single)[0]).collections) == 1


@pytest.fixture
def transfer():
    rows = []
    for q, question in enumerate(["bar", "merging", "mean"]):
        for r, name in enumerate(["before", "after"]):
            for train in "AB":
                for test in "AB":
                    value = 0.9 - 0.2 * (train != test) * (1 - r) - 0.05 * q
                    row = {"question": question, "representation": name}
                    row |= {"train": train, "test": test}
                    for score in ("accuracy", "ece"):
                        row |= {score: value, f"{score}_low": value - 0.04}
                        row |= {f"{score}_high": value + 0.03, f"{score}_scatter": 0.01}
                    rows.append(row | {"majority_accuracy": 0.5})
    rows[0] |= dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"), np.nan)
    return QTable(rows=rows)


def test_transfer_has_a_panel_for_each_survey_tested(transfer):
    axes = plot_transfer(transfer, score="accuracy")
    draw(axes[0])
    assert [ax.get_title() for ax in axes] == ["tested on A", "tested on B"]
    entries = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert entries == ["within, before", "within, after", "from B, before", "from B, after"]
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["bar", "merging", "mean"]
    marks = [container.lines[0] for container in axes[0].containers]
    assert [len(mark.get_xdata()) for mark in marks] == [2, 3, 3, 3]  # one is not known
    np.testing.assert_allclose(marks[2].get_xdata(), [0.7, 0.65, 0.6])
    assert [mark.get_markerfacecolor() == "white" for mark in marks] == [False, False, True, True]
    y = np.concatenate([mark.get_ydata() for mark in marks])
    assert len(np.unique(np.round(y, 6))) == len(y)
    grey = [line for line in axes[0].lines if line.get_color() == "#B5B5B5"]
    assert len(grey) == 3
    assert grey[0].get_xdata()[0] == 0.5


def test_transfer_choices_and_errors(transfer):
    _, axes = plt.subplots(1, 2)
    given = plot_transfer(transfer, score="ece", questions=["mean", "bar"], axes=axes)
    assert given == list(axes)
    assert axes[0].get_xlabel() == "expected calibration error"
    assert [tick.get_text() for tick in axes[0].get_yticklabels()] == ["mean", "bar"]
    with pytest.raises(ValueError, match="score='f1' is none of"):
        plot_transfer(transfer, score="f1")
    with pytest.raises(ValueError, match=r"questions=\['colour'\]"):
        plot_transfer(transfer, score="accuracy", questions=["colour"])
    with pytest.raises(ValueError, match="axes holds 1 Axes"):
        plot_transfer(transfer, score="accuracy", axes=plt.subplots()[1])
