"""Simulated galaxies: is what is in the catalogue what is in the picture?"""

import math

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs.utils import skycoord_to_pixel

from astro_morphvae.datasets import (
    BASS_MZLS,
    BOK_MOSAIC_EXPOSURE,
    CLASS_MIX,
    DECALS,
    DECAM_EXPOSURE,
    Survey,
    get_survey,
    make_galaxies,
    make_survey_pair,
    profiles,
)
from astro_morphvae.datasets.observation import Telescope
from astro_morphvae.datasets.scenes import Grid
from astro_morphvae.decision_trees import GZ_DECALS

CLEAN = {"noise": False, "foreground": False}


@pytest.fixture(scope="module")
def sample():
    return make_galaxies(300, size=32, seed=3)


def moments(image, scale):
    """Centre, second moments (arcsec2) of a picture: x to the right, y upwards."""
    offset = (np.arange(image.shape[0]) - (image.shape[0] - 1) / 2) * scale
    total = image.sum()
    x, y = (image.sum(0) @ offset) / total, (image.sum(1) @ offset) / total
    xx = image.sum(0) @ (offset - x) ** 2 / total
    yy = image.sum(1) @ (offset - y) ** 2 / total
    xy = (offset - y) @ image @ (offset - x) / total
    return x, y, np.array([[xx, xy], [xy, yy]])


def half_maximum_width(image, scale):
    """Full width at half maximum of a centred round picture, from its radial profile."""
    offset = (np.arange(image.shape[0]) - (image.shape[0] - 1) / 2) * scale
    r = np.hypot(offset[:, None], offset).ravel()
    order = np.argsort(r)
    profile = image.ravel()[order]
    return 2 * np.interp(-0.5 * profile[0], -profile, r[order])


# -- the set --------------------------------------------------------------------------------------


def test_set_has_all_a_survey_delivers(sample):
    assert sample.data.shape == (300, 3, 32, 32)
    assert sample.data.dtype == np.float32
    assert sample.unit == u.nmgy
    assert tuple(sample.bands) == ("g", "r", "z")
    assert u.isclose(sample.pixel_scale, 0.262 * u.arcsec)
    assert u.allclose(sample.psf_fwhm, DECALS.psf_fwhm)
    assert np.isfinite(sample.data).all()
    assert sample.ivar.shape == sample.data.shape
    assert len(sample.wcs) == 300
    assert len(set(sample.catalog["id"])) == 300
    assert set(sample.catalog["status"]) == {"ok"}
    assert sample.catalog["r_eff"].unit == u.arcsec
    assert sample.catalog["position_angle"].unit == u.deg
    assert sample.meta["survey"] == "DECaLS"


def test_position_points_at_the_galaxy_and_lies_in_the_footprint():
    cutouts = make_galaxies(6, size=64, seed=2, mix="smooth-round", **CLEAN)
    positions = SkyCoord(cutouts.catalog["ra"], cutouts.catalog["dec"])
    assert (positions.dec >= DECALS.dec_range[0]).all()
    assert (positions.dec <= DECALS.dec_range[1]).all()
    for image, wcs, position in zip(cutouts.data, cutouts.wcs, positions, strict=True):
        x, y = skycoord_to_pixel(position, wcs)
        centre_x, centre_y, _ = moments(image[1, 16:48, 16:48].astype(float), 1.0)
        assert abs(x - 31.5 - centre_x) < 0.15
        assert abs(y - 31.5 - centre_y) < 0.15


def test_no_galaxies_make_an_empty_set():
    cutouts = make_galaxies(0, size=16)
    assert len(cutouts) == 0
    assert "true_bar" in cutouts.catalog.colnames


# -- the same seed, the same pixels ---------------------------------------------------------------


def same(a, b):
    return (
        np.array_equal(a.data, b.data)
        and np.array_equal(a.ivar, b.ivar)
        and all(np.array_equal(a.catalog[c], b.catalog[c], equal_nan=a.catalog[c].dtype.kind == "f")
                for c in a.catalog.colnames)
    )  # fmt: skip


def test_result_depends_on_neither_threads_nor_sample():
    whole = make_galaxies(12, size=48, seed=8, threads=1)
    assert same(whole, make_galaxies(12, size=48, seed=8, threads=3))
    assert same(whole[:5], make_galaxies(5, size=48, seed=8))
    assert same(whole[7:], make_galaxies(5, size=48, seed=8, first=7, threads=2))
    assert same(whole[11:], make_galaxies(1, size=48, seed=8, first=11))
    odd = make_galaxies(9, size=37, seed=8, threads=2)
    assert same(odd[8:], make_galaxies(1, size=37, seed=8, first=8))
    other = make_galaxies(12, size=48, seed=9)
    assert not np.array_equal(whole.data, other.data)
    assert not np.array_equal(whole.catalog["ra"], other.catalog["ra"])


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_galaxies(2, size=16)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_size_crops_the_same_sky():
    small = make_galaxies(4, size=32, seed=5, **CLEAN).data
    large = make_galaxies(4, size=64, seed=5, **CLEAN).data[:, :, 16:-16, 16:-16]
    # The margins in which the convolution is done differ, so that some wings do.
    assert np.abs(small - large).max() < 5e-3 * large.max()


# -- light ----------------------------------------------------------------------------------------


def grid_for(width, scale, angle=0.4):
    grid = Grid(int(width / scale) | 1, scale)
    x, y = grid.x, grid.y
    sin, cos = np.float32(math.sin(angle)), np.float32(math.cos(angle))
    return y * cos - x * sin, x * cos + y * sin, angle


@pytest.mark.parametrize(("index", "tolerance"), [(0.8, 0.003), (1.5, 0.003), (4.0, 0.06)])
def test_sersic_profile_has_unit_flux(index, tolerance):
    u_, v, angle = grid_for(90, 0.262)
    image = profiles.sersic_profile(u_, v, 2.0, index, 0.6, pixel_scale=0.262, rotation=angle)
    assert image.dtype == np.float32
    assert abs(image.sum(dtype=float) * 0.262**2 - 1) < tolerance


def test_sersic_cusp_is_averaged_over_pixels():
    # The light in the central pixels must not depend on how fine the pixels are.
    inner = []
    for scale, half in ((0.3, 1), (0.1, 4), (0.02, 22)):  # the inner 0.9 arcsec
        u_, v, angle = grid_for(6.02, scale, 0.0)
        middle = u_.shape[0] // 2
        image = profiles.sersic_profile(u_, v, 1.5, 4.0, 0.8, pixel_scale=scale, rotation=angle)
        block = image[middle - half : middle + half + 1, middle - half : middle + half + 1]
        inner.append(block.sum(dtype=float) * scale**2)
    assert inner[0] == pytest.approx(inner[2], rel=0.02)
    assert inner[1] == pytest.approx(inner[2], rel=0.01)


def test_component_profiles_have_unit_flux():
    u_, v, _ = grid_for(60, 0.2)
    r, azimuth = np.hypot(u_, v), np.arctan2(v, u_)
    images = {
        "disk": profiles.exponential_profile(np.hypot(u_, v / np.float32(0.5)), 3.0, 0.5),
        "edge-on": profiles.edge_on_profile(u_, v, 3.0, 0.5),
        "bar": profiles.bar_profile(u_, v, 4.0, 0.3, 1.0),
        "tail": profiles.tail_profile(r, np.mod(azimuth, 2 * np.pi), 4.0, 2.4, 0.5, 1.0),
        "boxy": profiles.boxy_profile(u_, v, 3.0, 0.6, 0.9),
        "shell": profiles.shell_profile(r, azimuth, 8.0),
    }
    tolerance = {"tail": 0.1, "boxy": 0.15, "shell": 0.15}
    for name, image in images.items():
        assert image.dtype == np.float32, name
        assert abs(image.sum(dtype=float) * 0.04 - 1) < tolerance.get(name, 0.005), name


def test_flux_in_the_picture_is_that_of_the_catalogue():
    cutouts = make_galaxies(4, size=300, seed=6, mix="smooth-cigar-shaped", **CLEAN)
    measured = cutouts.data[:, 1].sum(axis=(1, 2), dtype=float)
    expected = 10 ** (0.4 * (22.5 - cutouts.catalog["mag_r"].value))
    assert measured == pytest.approx(expected, rel=0.02)


def test_bulges_are_redder_than_disks():
    cutouts = make_galaxies(8, size=96, seed=4, mix="spiral", **CLEAN)
    g, r = cutouts.data[:, 0], cutouts.data[:, 1]
    inner = (slice(None), slice(45, 51), slice(45, 51))
    color_inner = -2.5 * np.log10(g[inner].sum((1, 2)) / r[inner].sum((1, 2)))
    color_all = -2.5 * np.log10(g.sum((1, 2)) / r.sum((1, 2)))
    bulge = cutouts.catalog["bulge_to_total"] > 0.1
    assert bulge.sum() >= 3
    assert (color_inner[bulge] > color_all[bulge]).all()
    assert 0.2 < np.median(color_all) < 0.8


# -- shape ----------------------------------------------------------------------------------------


def elliptical_moments(image, scale, radius=14.0):
    """Second moments (arcsec2) in an ellipse of the galaxy's own shape: no frame cuts the wings."""
    offset = (np.arange(image.shape[0]) - (image.shape[0] - 1) / 2) * scale
    x, y = offset, offset[:, None]
    shape = np.eye(2)
    for _ in range(25):
        a, b, c = np.linalg.inv(shape)[[0, 0, 1], [0, 1, 1]]
        *_, second = moments(image * (a * x * x + 2 * b * x * y + c * y * y < radius**2), scale)
        shape = second / np.sqrt(np.linalg.det(second))
    return second


def test_moments_give_back_axis_ratio_and_position_angle():
    cutouts = make_galaxies(8, size=160, seed=10, mix="smooth-in-between", **CLEAN)
    psf = 0.5 * np.eye(2)  # second moments of the point-spread function in such an ellipse
    for image, wcs, row in zip(cutouts.data[:, 1], cutouts.wcs, cutouts.catalog, strict=True):
        values, vectors = np.linalg.eigh(elliptical_moments(image.astype(float), 0.262) - psf)
        assert math.sqrt(values[0] / values[1]) == pytest.approx(row["axis_ratio"], abs=0.02)
        # Position angle on the sky, through the WCS: north through east.
        step = 20 * vectors[:, 1]
        ends = wcs.pixel_to_world([79.5, 79.5 + step[0]], [79.5, 79.5 + step[1]])
        angle = ends[0].position_angle(ends[1]).deg % 180
        difference = (angle - row["position_angle"].to_value(u.deg) + 90) % 180 - 90
        assert abs(difference) < 2.0


def azimuthal_modes(image, radii, n_modes=8):
    """Amplitude of the angular Fourier modes on rings about the centre."""
    from scipy.ndimage import map_coordinates

    middle = (image.shape[0] - 1) / 2
    azimuth = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    rings = map_coordinates(
        image,
        [middle + np.outer(radii, np.sin(azimuth)), middle + np.outer(radii, np.cos(azimuth))],
        order=1,
    )
    return np.abs(np.fft.rfft(rings, axis=1))[:, 1 : n_modes + 1] / rings.sum(axis=1)[:, None]


def test_arms_in_the_picture_are_as_many_as_in_the_catalogue():
    cutouts = make_galaxies(120, size=96, seed=12, mix="spiral", **CLEAN)
    catalog = cutouts.catalog
    clear = (catalog["n_arms"] >= 2) & (catalog["n_arms"] <= 4) & (catalog["axis_ratio"] > 0.9)
    clear &= catalog["arm_contrast"] > 0.6
    clear &= catalog["bar_strength"] == 0
    found = []
    for image, row in zip(cutouts.data[clear, 1], catalog[clear], strict=True):
        radii = np.linspace(1.2, 2.4, 9) * row["disk_scale"].value / 0.262
        found.append(azimuthal_modes(image, radii).mean(0).argmax() + 1 == row["n_arms"])
    assert len(found) >= 5
    assert np.mean(found) > 0.7


def test_strong_bars_show():
    cutouts = make_galaxies(80, size=96, seed=13, mix="disk", **CLEAN)
    catalog = cutouts.catalog
    face_on = catalog["axis_ratio"] > 0.8
    oval = []
    for image, row in zip(cutouts.data[:, 1], catalog, strict=True):
        radii = np.linspace(0.4, 0.9, 5) * row["disk_scale"].value / 0.262
        oval.append(azimuthal_modes(image, radii)[:, 1].mean())
    oval = np.array(oval)
    strong = oval[face_on & (catalog["true_bar"] == "strong")]
    none = oval[face_on & (catalog["true_bar"] == "no")]
    assert min(len(strong), len(none)) >= 3
    assert np.median(strong) > 2 * np.median(none)


# -- the telescope --------------------------------------------------------------------------------


@pytest.mark.parametrize("survey", [DECALS, BASS_MZLS])
def test_stars_are_as_wide_as_the_seeing(survey):
    telescope = Telescope(survey, 65, 0.262)
    star = np.zeros((3, 65, 65), np.float32)
    telescope.add_star(star, 0.0, 0.0, 1000.0, 0.0, 0.0)
    picture = telescope.blank(1)
    picture[..., telescope.padded // 2, telescope.padded // 2] = 1000 / 0.262**2
    point = telescope.image(picture)[0]
    for band, fwhm in enumerate(survey.psf_fwhm.to_value(u.arcsec)):
        for image in (star[band], point[band], survey.psf(65)[band]):
            assert half_maximum_width(image, 0.262) == pytest.approx(fwhm, rel=0.02)
        assert star[band].sum() == pytest.approx(1000, rel=0.02)
        assert point[band] == pytest.approx(star[band], abs=float(0.005 * star[band].max()))


@pytest.mark.parametrize("survey", [DECALS, BASS_MZLS])
@pytest.mark.parametrize("scale", [0.262, 0.4])
def test_quoted_depth_is_five_sigma(survey, scale):
    telescope = Telescope(survey, 61, scale)
    fine = Grid(telescope.padded * 5, scale / 5)
    disk = np.exp(-np.hypot(fine.x, fine.y) * 1.678347 / 0.45)
    disk = disk.reshape(telescope.padded, 5, telescope.padded, 5).mean(axis=(1, 3))
    disk /= disk.sum() * scale**2
    image = telescope.image(np.stack([disk.astype(np.float32)] * 3)[None])[0]
    flux = 10 ** (0.4 * (22.5 - survey.galaxy_depth.value))
    noise = survey.sky_noise(scale * u.arcsec).to_value(u.nmgy)
    significance = flux * np.sqrt((image.astype(float) ** 2).sum(axis=(1, 2))) / noise
    assert significance == pytest.approx(5, rel=0.02)


def test_noise_is_that_of_the_inverse_variance():
    arguments = {"size": 96, "seed": 14, "mix": "spiral"}
    noisy = make_galaxies(12, **arguments)
    clean = make_galaxies(12, noise=False, **arguments)
    assert np.array_equal(noisy.ivar, clean.ivar)
    pulls = (noisy.data - clean.data) * np.sqrt(noisy.ivar)
    for band in range(3):
        assert pulls[:, band].std() == pytest.approx(1, abs=0.01)
        assert pulls[:, band].mean() == pytest.approx(0, abs=0.01)
        bright = noisy.ivar[:, band] < np.quantile(noisy.ivar[:, band], 0.05)
        assert pulls[:, band][bright].std() == pytest.approx(1, abs=0.05)
    sky = 1 / np.sqrt(noisy.ivar.max(axis=(0, 2, 3)))
    assert sky == pytest.approx(DECALS.sky_noise().value, rel=0.01)
    # Neighbouring pixels are independent, and so are bands and galaxies.
    for lagged in (
        pulls[..., 1:] * pulls[..., :-1],
        pulls[:, 0] * pulls[:, 1],
        pulls[1:] * pulls[:-1],
    ):
        assert abs(lagged.mean()) < 0.012
    kurtosis = (pulls.astype(float) ** 4).mean()
    assert kurtosis == pytest.approx(3, abs=0.06)


def test_artifacts_are_masked():
    cutouts = make_galaxies(40, size=48, seed=15, mix="artifact")
    assert cutouts.mask.any()
    assert (cutouts.ivar[cutouts.mask] == 0).all()
    assert (cutouts.ivar[~cutouts.mask] > 0).all()
    assert np.isfinite(cutouts.data).all()
    assert set(cutouts.catalog["true_smooth-or-featured"]) == {"artifact"}


# -- surveys --------------------------------------------------------------------------------------


def test_surveys_go_by_name():
    assert get_survey("decals") is DECALS
    assert get_survey("BASS+MzLS") is BASS_MZLS
    assert get_survey(DECALS) is DECALS
    assert get_survey("bass_mzls") is BASS_MZLS
    assert get_survey("DECam exposure") is DECAM_EXPOSURE
    assert get_survey("90prime and Mosaic3 exposure") is BOK_MOSAIC_EXPOSURE
    assert get_survey("bok-mosaic_exposure") is BOK_MOSAIC_EXPOSURE
    with pytest.raises(ValueError, match=r"survey must be .* got 'HST'"):
        make_galaxies(1, survey="HST")


@pytest.mark.parametrize(
    ("survey", "noise"),  # nmgy, medians of benchmarks/measure_exposures.py
    [
        (DECAM_EXPOSURE, [0.00530, 0.00982, 0.02617]),
        (BOK_MOSAIC_EXPOSURE, [0.01133, 0.02580, 0.02276]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_exposures_have_the_noise_that_was_measured(survey, noise):
    for k, scale in enumerate(survey.native_pixel_scale):
        cutouts = make_galaxies(
            20, survey=survey, size=128, pixel_scale=scale, seed=21, foreground=False
        )
        # In a corner, where there is little of the galaxies: differences of neighbours.
        corners = cutouts.data[:, k, :20, :20].astype(float)
        ivar = np.median(cutouts.ivar[:, k, :20, :20])
        assert ivar**-0.5 == pytest.approx(noise[k], rel=0.02)
        differences = np.diff(corners, axis=2) / np.sqrt(2)
        scatter = 1.4826 * np.median(np.abs(differences))
        assert scatter == pytest.approx(noise[k], rel=0.05)


def test_exposures_are_shallower_than_coadds_and_unlike_each_other():
    for exposure, coadd in ((DECAM_EXPOSURE, DECALS), (BOK_MOSAIC_EXPOSURE, BASS_MZLS)):
        assert exposure.bands == coadd.bands
        assert (exposure.galaxy_depth < coadd.galaxy_depth).all()
        assert (exposure.sky_noise() > coadd.sky_noise()).all()
    surveys = "DECam exposure", "Bok Mosaic exposure"
    decam, bok = make_survey_pair(
        6, surveys=surveys, size=128, seed=16, mix="smooth-in-between", **CLEAN
    )
    assert [cutouts.meta["survey"] for cutouts in (decam, bok)] == [
        DECAM_EXPOSURE.name,
        BOK_MOSAIC_EXPOSURE.name,
    ]
    one, two = (c.data.sum(axis=(2, 3), dtype=float) for c in (decam, bok))
    assert one == pytest.approx(two, rel=0.03)
    peaks = bok.data.max(axis=(2, 3)) / decam.data.max(axis=(2, 3))
    assert (peaks < 1).all()  # wider in each band, most in g
    assert (peaks[:, 0] < peaks[:, 2]).all()
    noise = [np.median(cutouts.ivar, axis=(0, 2, 3)) ** -0.5 for cutouts in (decam, bok)]
    assert (noise[1][:2] > noise[0][:2]).all()  # noisier in g and r, not in z
    assert noise[1][2] < noise[0][2]


def test_own_survey():
    survey = Survey(
        name="sharp",
        bands=("r", "i"),
        psf_fwhm=[0.7, 0.6] * u.arcsec,
        galaxy_depth=[25.0, 24.5] * u.mag,
        sky_brightness=[20.9, 19.9] * u.mag / u.arcsec**2,
        pixel_scale=0.2 * u.arcsec,
    )
    cutouts = make_galaxies(3, survey=survey, size=64)
    assert cutouts.data.shape == (3, 2, 64, 64)
    assert tuple(cutouts.bands) == ("r", "i")
    assert u.isclose(cutouts.pixel_scale, 0.2 * u.arcsec)
    with pytest.raises(ValueError, match="psf_fwhm needs one value"):
        Survey("x", ("r", "i"), [1.0] * u.arcsec, [25, 25] * u.mag, [21, 20] * u.mag)


def test_pair_shows_the_same_galaxies_through_each_survey():
    decals, bass = make_survey_pair(6, size=128, seed=16, mix="smooth-in-between", **CLEAN)
    assert decals.meta["survey"] == "DECaLS"
    assert bass.meta["survey"] == "BASS+MzLS"
    for name in decals.catalog.colnames:
        values = decals.catalog[name], bass.catalog[name]
        assert np.array_equal(*values, equal_nan=values[0].dtype.kind == "f"), name
    dec = decals.catalog["dec"]
    assert ((dec >= 32 * u.deg) & (dec <= 34 * u.deg)).all()
    one, two = (c.data.sum(axis=(2, 3), dtype=float) for c in (decals, bass))
    assert one == pytest.approx(two, rel=0.02)
    peaks = bass.data.max(axis=(2, 3)) / decals.data.max(axis=(2, 3))
    assert (peaks[:, :2] < 0.95).all()  # worse seeing in g and r ...
    assert (peaks[:, 2] > 1.0).all()  # ... and better in z
    assert u.allclose(bass.psf_fwhm, BASS_MZLS.psf_fwhm)


def test_noise_of_a_pair_is_independent():
    arguments = {"size": 64, "seed": 17, "foreground": False}
    noisy = make_survey_pair(8, **arguments)
    clean = make_survey_pair(8, noise=False, **arguments)
    one, two = ((a.data - b.data) * np.sqrt(a.ivar) for a, b in zip(noisy, clean, strict=True))
    assert abs((one * two).mean()) < 0.02
    again = make_survey_pair(8, surveys=(DECALS, DECALS), **arguments)
    one, two = ((a.data - clean[0].data) * np.sqrt(a.ivar) for a in again)
    assert abs((one * two).mean()) < 0.02
    alone = make_galaxies(8, seed=17, size=64, foreground=False)
    assert np.array_equal(alone.data, noisy[0].data)


def test_pair_on_two_pixel_scales():
    fine, coarse = make_survey_pair(
        4, size=80, seed=18, mix="smooth-round", pixel_scale=[0.262, 0.454] * u.arcsec, **CLEAN
    )
    assert u.isclose(coarse.pixel_scale, 0.454 * u.arcsec)
    ratio = coarse.data[:, 2].sum((1, 2)) / fine.data[:, 2].sum((1, 2))
    assert ((ratio > 0.99) & (ratio < 1.25)).all()  # the wider frame holds a little more
    # Coarse pixels hold more sky: the same depth.
    assert np.sqrt(fine.ivar[:, 2].max() / coarse.ivar[:, 2].max()) == pytest.approx(
        float(BASS_MZLS.sky_noise(0.454 * u.arcsec)[2] / DECALS.sky_noise()[2]), rel=0.01
    )


# -- volunteers -----------------------------------------------------------------------------------


def test_votes_add_up_along_the_tree(sample):
    catalog = sample.catalog
    for question in GZ_DECALS:
        fractions = np.stack([catalog[question.columns[a]] for a in question.answers], axis=1)
        total = np.array(catalog[f"{question.name}_total-votes"])
        asked = total > 0
        assert np.allclose(fractions[asked].sum(axis=1), 1, atol=1e-6)
        assert np.isnan(fractions[~asked]).all()
        if question.parent is not None:
            parent, answers = question.parent
            above = np.zeros(len(catalog))
            for answer in answers:
                above += np.nan_to_num(catalog[f"{parent}_{answer}_fraction"])
            above *= np.array(catalog[f"{parent}_total-votes"])
            assert np.array_equal(total, np.rint(above).astype(int)), question.name
    assert 30 < np.mean(catalog["smooth-or-featured_total-votes"]) < 50


def test_volunteers_are_mostly_right_and_surer_of_what_they_see(sample):
    catalog = make_galaxies(1500, size=8, seed=19, foreground=False, noise=False).catalog
    sure, unsure = [], []
    for question in GZ_DECALS:
        truth = np.array(catalog[f"true_{question.name}"])
        asked = (truth != "") & (np.array(catalog[f"{question.name}_total-votes"]) >= 10)
        fractions = np.stack([catalog[question.columns[a]] for a in question.answers], axis=1)
        best = np.array(question.answers)[np.nan_to_num(fractions).argmax(axis=1)]
        assert np.mean(best[asked] == truth[asked]) > 0.7, question.name
        seen = np.array(catalog["visibility"])
        low, high = np.quantile(seen[asked], [0.2, 0.8])
        sure.append(fractions[asked & (seen > high)].max(axis=1).mean())
        unsure.append(fractions[asked & (seen < low)].max(axis=1).mean())
    assert np.mean(sure) > np.mean(unsure) + 0.03


def test_every_answer_is_common_enough_to_learn():
    catalog = make_galaxies(2000, size=8, seed=20, foreground=False, noise=False).catalog
    assert set(catalog["true_class"]) == set(CLASS_MIX)
    for question in GZ_DECALS:
        for answer in question.answers:
            n = np.sum(catalog[f"true_{question.name}"] == answer)
            assert n >= 30, (question.name, answer, n)


def test_truth_holds_only_where_its_question_arises(sample):
    catalog = sample.catalog
    smooth = catalog["true_smooth-or-featured"] == "smooth"
    assert (catalog["true_how-rounded"][smooth] != "").all()
    assert (catalog["true_bar"][smooth] == "").all()
    assert np.isnan(catalog["pitch_angle"][smooth]).all()
    no_arms = catalog["true_has-spiral-arms"] != "yes"
    assert (catalog["true_spiral-winding"][no_arms] == "").all()
    for winding, (low, high) in {"tight": (5, 15), "medium": (15, 25), "loose": (25, 45)}.items():
        pitch = catalog["pitch_angle"][catalog["true_spiral-winding"] == winding].value
        assert ((pitch > low) & (pitch < high)).all()


# -- bad arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": -1}, ValueError, "n must be at least 0, got -1"),
        ({"n": 2.5}, TypeError, "n must be a whole number, got 2.5"),
        ({"size": 4}, ValueError, "size must be at least 8, got 4"),
        ({"seed": -3}, ValueError, "seed must be at least 0, got -3"),
        ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
        ({"mix": {"quasar": 1}}, ValueError, r"mix names unknown classes \['quasar'\]"),
        ({"mix": {"spiral": 0}}, ValueError, "mix needs shares"),
        ({"mix": 3}, TypeError, "mix must be a mapping"),
        ({"pixel_scale": -1 * u.arcsec}, ValueError, "pixel_scale must be positive"),
        ({"pixel_scale": 1 * u.m}, TypeError, "pixel_scale must be one angle"),
        ({"n_volunteers": 0}, ValueError, "n_volunteers must be at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        make_galaxies(**{"n": 1, "size": 16} | arguments)


@pytest.mark.parametrize("surveys", ["DECaLS", ("DECaLS",)])
def test_pair_needs_two_surveys(surveys):
    with pytest.raises(ValueError, match="surveys must be two"):
        make_survey_pair(1, surveys=surveys)
