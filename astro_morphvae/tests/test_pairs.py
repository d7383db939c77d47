from functools import partial

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import InverseVariance
from astropy.table import QTable
from astropy.wcs import WCS

from astro_morphvae import CutoutSet
from astro_morphvae.datasets import DECALS, make_survey_pair
from astro_morphvae.exceptions import CutoutMismatchError
from astro_morphvae.pairs import MAX_SEPARATION, pair_surveys
from astro_morphvae.tests.paired_sky import (
    MOFFAT_BETAS,
    compare_fluxes,
    simulate_paired_sky,
    summarise_pulls,
)

N = 5


@pytest.fixture(scope="module")
def surveys():
    """DECaLS and BASS+MzLS of the same simulated galaxies, each with its own pixels."""
    return make_survey_pair(
        N, size=64, seed=4, pixel_scale=[0.262, 0.4] * u.arcsec, foreground=False, mix="spiral"
    )


def shifted(cutouts, rows, arcsec):
    """Move the positions of some rows to the north, in a new set."""
    catalog = cutouts.catalog.copy()
    catalog["dec"][rows] += arcsec * u.arcsec
    return CutoutSet(
        cutouts.data,
        unit=cutouts.unit,
        bands=cutouts.bands,
        uncertainty=cutouts.uncertainty,
        mask=cutouts.mask,
        wcs=cutouts.wcs,
        psf_fwhm=cutouts.psf_fwhm,
        catalog=catalog,
        meta=cutouts.meta,
    )


class Service:
    """Answers with the rows of a set that are at the positions asked for."""

    def __init__(self, cutouts):
        self.cutouts = cutouts
        self.asked = None

    def get_cutouts(self, coords, *, bands=None):
        self.asked = coords
        sky = SkyCoord(self.cutouts.catalog["ra"], self.cutouts.catalog["dec"])
        nearest, _, _ = coords.match_to_catalog_sky(sky)
        return self.cutouts[nearest]


def test_both_get_the_pixels_of_the_first(surveys):
    decals, bass, table = pair_surveys(None, *surveys)
    assert decals.shape == bass.shape == surveys[0].shape
    np.testing.assert_array_equal(decals.data, surveys[0].data)
    assert bass.wcs.cards() == decals.wcs.cards()
    assert bass.pixel_scale == decals.pixel_scale
    assert list(bass.catalog["id"]) == list(decals.catalog["id"]) == list(table["id"])
    assert list(table["status"]) == ["ok"] * N
    assert list(table["match"]) == ["matched"] * N
    assert table["second_index"].tolist() == list(range(N))
    assert (table["separation"] < 1e-6 * u.arcsec).all()
    assert table.meta == {"first": "DECaLS", "second": "BASS+MzLS", "bands": ["g", "r", "z"]}
    # DECaLS is deeper and sharper in g, MzLS sharper in z: the published medians.
    assert (table["first_depth"][:, 0] > table["second_depth"][:, 0]).all()
    assert (table["first_psf_fwhm"][:, 0] < table["second_psf_fwhm"][:, 0]).all()
    assert (table["first_psf_fwhm"][:, 2] > table["second_psf_fwhm"][:, 2]).all()
    np.testing.assert_allclose(table["first_psf_fwhm"][0], [1.29, 1.18, 1.11] * u.arcsec)
    # The images show the same galaxy in the same place.
    assert (table["image_offset"] < 0.03 * u.arcsec).all()
    assert (table["image_offset_error"] < 0.01 * u.arcsec).all()


def test_depth_is_that_of_a_point_source(surveys):
    _, _, table = pair_surveys(None, *surveys)
    # By hand for r of the first survey: the noise-equivalent area of its Moffat profile.
    sigma = 1 / np.sqrt(np.median(surveys[0].ivar[0, 1]))
    profile = DECALS.psf(201)[1]
    expected = 22.5 - 2.5 * np.log10(5 * sigma / np.sqrt(np.sum(profile**2)))
    np.testing.assert_allclose(table["first_depth"][0, 1].value, expected, atol=5e-3)


@pytest.mark.parametrize("like", ["second", None])
def test_the_grid_may_be_another(surveys, like):
    if like:
        decals, bass, table = pair_surveys(None, *surveys, like=like)
        assert bass.pixel_scale == 0.4 * u.arcsec
    else:
        decals, bass, table = pair_surveys(
            None, *surveys, pixel_scale=0.5 * u.arcsec, size=30, progress=False
        )
        assert bass.size == (30, 30)
        assert bass.pixel_scale == 0.5 * u.arcsec
    assert decals.wcs.cards() == bass.wcs.cards()
    assert (table["coverage"] >= 0).all()
    # The cutout of BASS is the larger one: half of its pixels have no counterpart.
    if like:
        assert (table["coverage"] < 0.5).all()
        assert (table["coverage"] > 0.3).all()


def test_matched_resolution(surveys):
    decals, _, table = pair_surveys(None, *surveys, match_psf=True)
    np.testing.assert_allclose(table["first_psf_fwhm"], table["second_psf_fwhm"], rtol=1e-6)
    assert (decals.psf_fwhm >= [1.61, 1.47, 1.11] * u.arcsec).all()
    assert (np.asarray(decals.catalog["noise_correlation"])[:, 0] > 3).all()
    wide, other, _ = pair_surveys(
        None, *surveys, match_psf={"target_fwhm": 2 * u.arcsec}, progress=False
    )
    np.testing.assert_allclose(wide.psf_fwhm.value, 2)
    np.testing.assert_allclose(other.psf_fwhm.value, 2)
    with pytest.raises(ValueError, match="wider than the target in g"):
        pair_surveys(None, *surveys, match_psf={"target_fwhm": 1 * u.arcsec})
    # What is said of one survey only: here that its images are sharper than its set says.
    sharp = {"target_fwhm": 2 * u.arcsec, "second_psf": 1.2 * u.arcsec}
    _, blurred, _ = pair_surveys(None, *surveys, match_psf=sharp)
    assert not np.allclose(blurred.data[0, 0], other.data[0, 0], equal_nan=True)


def test_images_on_one_grid_are_not_touched():
    first, second = make_survey_pair(2, size=32, seed=3)
    one, two, _ = pair_surveys(None, first, second)
    np.testing.assert_array_equal(one.data, first.data)
    np.testing.assert_array_equal(two.data, second.data)
    assert "noise_correlation" not in two.catalog.colnames


def test_galaxies_over_an_arcsec_apart_are_refused(surveys):
    far = shifted(surveys[1], [1, 3], 1.2)
    near = shifted(far, [0], 0.6)
    decals, bass, table = pair_surveys(None, surveys[0], near)
    assert decals.good.all()
    assert bass.good.tolist() == [True, False, True, False, True]
    assert table["match"].tolist() == ["matched", "unmatched"] * 2 + ["matched"]
    assert table["second_index"].tolist() == [0, -1, 2, -1, 4]
    assert table["status"][1] == "second: no-counterpart: nearest 1.20 arcsec away"
    assert np.isnan(bass.data[1]).all()
    assert (table["coverage"][1] == 0).all()
    np.testing.assert_allclose(table["separation"][0].value, 0.6, rtol=1e-5)
    with pytest.raises(ValueError, match=r"max_separation: expected an angle of at most 1\.0"):
        pair_surveys(None, *surveys, max_separation=2 * u.arcsec)
    _, bass, _ = pair_surveys(None, surveys[0], near, max_separation=0.5 * u.arcsec)
    assert not bass.good[0]
    assert MAX_SEPARATION == 1 * u.arcsec


def test_sets_in_another_order_and_of_another_length(surveys):
    rows = [4, 2, 0]
    decals, bass, table = pair_surveys(None, surveys[0], surveys[1][rows])
    assert len(decals) == len(bass) == N
    assert table["second_index"].tolist() == [2, -1, 1, -1, 0]
    reference = pair_surveys(None, *surveys)[1]
    for row in (0, 2, 4):
        np.testing.assert_array_equal(bass.data[row], reference.data[row])
    # No column tells another galaxy's truth where there is no counterpart.
    assert np.isnan(bass.catalog["smooth-or-featured_smooth_fraction"][1])
    assert bass.catalog["ra"][1] == decals.catalog["ra"][1]


def test_services_are_asked_for_their_own_positions(surveys):
    first, second = Service(surveys[0]), Service(surveys[1])
    catalog = surveys[0].catalog
    ours = QTable({"id": [f"g{i}" for i in range(N)], "ra": catalog["ra"], "dec": catalog["dec"]})
    theirs = SkyCoord(ours["ra"], ours["dec"] + 0.3 * u.arcsec)[::-1][:-1]
    ours["dec"][2] = np.nan
    decals, _, table = pair_surveys(
        (ours, theirs), (first, {"bands": "grz"}), second.get_cutouts, progress=False
    )
    assert len(first.asked) == 4
    assert len(second.asked) == 3
    np.testing.assert_allclose(
        (second.asked.dec - ours["dec"][[1, 3, 4]]).to_value(u.arcsec), 0.3, rtol=1e-4
    )
    assert list(table["id"]) == list(decals.catalog["id"]) == list(ours["id"])
    assert table["match"].tolist() == ["unmatched", "matched", "invalid", "matched", "matched"]
    assert table["second_index"].tolist() == [-1, 3, -1, 1, 0]
    assert table["status"].tolist()[1::2] == ["ok", "ok"]
    assert table["status"][0].startswith("second: no-counterpart")
    assert table["status"][2] == "first: invalid-position; second: invalid-position"
    np.testing.assert_allclose(table["separation"][[1, 3, 4]].value, 0.3, rtol=1e-4)


def test_one_list_of_positions_a_service_and_a_set(surveys):
    coords = SkyCoord(surveys[0].catalog["ra"], surveys[0].catalog["dec"])
    service = Service(surveys[0])
    decals, bass, table = pair_surveys(coords[:3], service, surveys[1])
    assert len(decals) == len(bass) == len(table) == 3
    assert list(table["status"]) == ["ok"] * 3
    assert decals.catalog["id"].tolist() == [0, 1, 2]
    both = pair_surveys(coords, partial(service.get_cutouts, bands="grz"), service)
    assert (both[2]["image_offset"] == 0 * u.arcsec).all()


def test_a_galaxy_that_one_survey_lacks(surveys):
    data = np.array(surveys[0].data)
    data[1] = np.nan
    first = CutoutSet(
        data,
        unit=u.nmgy,
        bands="grz",
        uncertainty=surveys[0].uncertainty,
        wcs=[None if row == 1 else wcs for row, wcs in enumerate(surveys[0].wcs)],
        psf_fwhm=surveys[0].psf_fwhm,
        catalog=surveys[0].catalog[["id", "ra", "dec"]],
    )
    _, _, table = pair_surveys(None, first, surveys[1])
    assert table["status"][1].startswith("first: all NaN")
    assert (table["status"] == "ok").sum() == N - 1
    assert np.isnan(table["first_depth"][1]).all()
    assert np.isnan(table["image_offset"][1])
    # None at all: still a row each, and no error.
    nothing = CutoutSet(
        np.full_like(data, np.nan),
        unit=u.nmgy,
        bands="grz",
        catalog=first.catalog["id", "ra", "dec"],
    )
    for grid in ({}, {"pixel_scale": 0.5 * u.arcsec}, {"like": "second"}):
        decals, bass, table = pair_surveys(None, nothing, surveys[1], **grid)
        assert len(table) == len(bass) == N
        assert decals.size == bass.size
        assert not (table["status"] == "ok").any()


def test_common_bands(surveys):
    data, ivar, _ = surveys[1].arrays()
    parts = {"unit": u.nmgy, "wcs": surveys[1].wcs, "catalog": surveys[1].catalog}
    second = CutoutSet(
        data[:, ::-1], bands="zri", uncertainty=InverseVariance(ivar[:, ::-1]), **parts
    )
    decals, bass, table = pair_surveys(None, surveys[0], second)
    assert decals.bands == bass.bands == ("r", "z")
    assert decals.psf_fwhm.shape == (2,)
    assert table["coverage"].shape == (N, 2)
    reference = pair_surveys(None, *surveys)[1]
    np.testing.assert_array_equal(bass.data, reference.data[:, 1:])
    swapped = pair_surveys(None, surveys[0], second, bands="zr")[1]
    np.testing.assert_array_equal(swapped.data, bass.data[:, ::-1])
    with pytest.raises(ValueError, match="bands: g not in second, which has z, r, i"):
        pair_surveys(None, surveys[0], second, bands="gr")
    infrared = CutoutSet(data, bands="JHK", **parts)
    with pytest.raises(ValueError, match="bands: the first survey has g, r, z, the second J, H, K"):
        pair_surveys(None, surveys[0], infrared)


def test_surveys_in_different_units_are_no_pair(surveys):
    counts = CutoutSet(
        surveys[1].data,
        unit=u.adu,
        bands=surveys[1].bands,
        uncertainty=InverseVariance(surveys[1].ivar / u.adu**2),
        wcs=surveys[1].wcs,
        catalog=surveys[1].catalog,
    )
    with pytest.raises(CutoutMismatchError, match=r"second: .* 'adu', those of first in 'nmgy'"):
        pair_surveys(None, surveys[0], counts)
    with pytest.raises(CutoutMismatchError, match=r"second: .* 'nmgy', those of first in 'adu'"):
        pair_surveys(None, counts, surveys[0])
    assert list(pair_surveys(None, counts, counts)[2]["status"]) == ["ok"] * N


def test_errors_name_the_argument(surveys):
    here = SkyCoord([1.0], [1.0], unit="deg")
    with pytest.raises(ValueError, match="coords: needed"):
        pair_surveys(None, Service(surveys[0]), surveys[1])
    with pytest.raises(ValueError, match="coords: expected one catalogue or two, got 3"):
        pair_surveys((here, here, here), *surveys)
    with pytest.raises(TypeError, match=r"coords\[1\]: expected a SkyCoord"):
        pair_surveys((here, 3.0), *surveys)
    with pytest.raises(TypeError, match="second: expected a CutoutSet, a service"):
        pair_surveys(here, surveys[0], 3)
    with pytest.raises(ValueError, match="like: expected 'first' or 'second', got 'third'"):
        pair_surveys(None, *surveys, like="third")
    with pytest.raises(ValueError, match="size: needs pixel_scale or target_wcs"):
        pair_surveys(None, *surveys, size=32)
    with pytest.raises(ValueError, match="max_separation: expected an angle, got 'near'"):
        pair_surveys(None, *surveys, max_separation="near")
    with pytest.raises(ValueError, match="coords: no galaxy has a position"):
        pair_surveys(SkyCoord([np.nan], [0.0], unit="deg"), Service(surveys[0]), surveys[1])
    with pytest.raises(ValueError, match="second: 2 cutouts came for 1 positions"):
        pair_surveys(here, surveys[0], lambda coords: surveys[1][:2])
    bare = CutoutSet(
        surveys[1].data, unit=u.nmgy, bands="grz", catalog=surveys[1].catalog["id", "ra", "dec"]
    )
    with pytest.raises(ValueError, match="second: no celestial WCS in rows 0, 1, 2, 3, 4"):
        pair_surveys(None, surveys[0], bare)


def north_up(ra, dec, size, scale):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = ra, dec
    wcs.wcs.crpix = (size + 1) / 2, (size + 1) / 2
    wcs.wcs.cdelt = -scale / 3600, scale / 3600
    return wcs


def test_across_the_seam_and_at_the_poles():
    """Frames centred half an arcsec apart, where coordinates are at their worst."""
    places = np.array([[359.99995, 20.0], [0.00002, -60.0], [0.0, 90.0], [180.0, -89.99999]])
    sky = SkyCoord(*places.T, unit="deg")
    beside = sky.directional_offset_by(70 * u.deg, 0.5 * u.arcsec)
    sets = []
    for centres, scale, size in ((sky, 0.25, 40), (beside, 0.3, 40)):
        wcs = [north_up(c.ra.deg, c.dec.deg, size, scale) for c in centres]
        y, x = np.indices((size, size))
        data = np.zeros((len(sky), 1, size, size))
        for image, entry, place in zip(data, wcs, sky, strict=True):
            x0, y0 = entry.world_to_pixel(place)
            image[0] = np.exp(-0.5 * np.hypot(x - x0, y - y0) ** 2 * (scale / 0.8) ** 2) * scale**2
        ivar = InverseVariance(np.full(data.shape, 1e8))
        sets.append(CutoutSet(data, unit=u.nmgy, bands="r", wcs=wcs, uncertainty=ivar))
    first, second, table = pair_surveys(None, *sets)
    assert list(table["status"]) == ["ok"] * 4
    np.testing.assert_allclose(table["separation"].value, 0.5, rtol=1e-4)
    assert (table["image_offset"] < 0.005 * u.arcsec).all()
    middle = np.s_[:, :, 10:30, 10:30]
    np.testing.assert_allclose(second.data[middle], first.data[middle], atol=4e-4)


def test_image_offset_and_its_error():
    """Galaxies displaced between the surveys by known amounts, with noise: pulls of unit width."""
    n, size, scale, moved = 200, 64, 0.262, 0.5
    rng = np.random.default_rng(8)
    y, x = np.indices((size, size)) - (size - 1) / 2
    sets = []
    for dx, sigma in ((0.0, 0.02), (moved / scale, 0.03)):
        galaxy = np.exp(-0.5 * ((x - dx) ** 2 + y**2) / 4.0**2)
        data = galaxy + rng.normal(size=(n, 2, size, size)) * sigma
        wcs = [north_up(10 + row, 5.0, size, scale) for row in range(n)]
        ivar = InverseVariance(np.full(data.shape, sigma**-2))
        sets.append(CutoutSet(data, unit=u.nmgy, bands="gr", wcs=wcs, uncertainty=ivar))
    _, _, table = pair_surveys(None, *sets)
    pulls = ((table["image_offset"] - moved * u.arcsec) / table["image_offset_error"]).to_value("")
    assert abs(pulls.mean()) < 4 / np.sqrt(n)
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * n)


def test_same_flux_in_both_surveys(tmp_path):
    """From one simulated sky through a server to pairs: fluxes agree within their errors."""
    pytest.importorskip("astroquery")
    from astro_morphvae.surveys import LegacySurvey
    from astro_morphvae.tests.survey_server import CutoutSource, SurveyServer

    surveys = simulate_paired_sky(40, size=64, seed=3, dimming=20)
    layers = dict(zip(("ls-dr9-south", "ls-dr9-north"), map(CutoutSource, surveys), strict=True))
    ours = SkyCoord(surveys[0].catalog["ra"], surveys[0].catalog["dec"])
    theirs = SkyCoord(ours.ra, ours.dec + surveys[1].pixel_scale)[::-1]
    with SurveyServer(layers=layers) as server:
        sources = [
            (
                LegacySurvey,
                {
                    "layer": layer,
                    "pixel_scale": cutouts.pixel_scale,
                    "size": cutouts.size,
                    "server": server.url,
                    "cache": tmp_path,
                    "progress": False,
                },
            )
            for layer, cutouts in zip(layers, surveys, strict=True)
        ]
        first, second, table = pair_surveys(
            (ours, theirs),
            *sources,
            match_psf={
                "first_psf_beta": MOFFAT_BETAS[0],
                "second_psf_beta": MOFFAT_BETAS[1],
                "tolerance": 0.002,
            },
            progress=False,
        )
    assert list(table["status"]) == ["ok"] * len(ours)
    assert table["second_index"].tolist() == list(range(len(ours)))[::-1]
    np.testing.assert_allclose(table["separation"], surveys[1].pixel_scale, rtol=1e-3)
    pulls, _, signal = compare_fluxes(first, second, table, 3 * u.arcsec)
    assert (np.nanmedian(signal, axis=0) > 10).all()
    for band in range(3):
        n, mean, mean_error, width, width_error = summarise_pulls(pulls[:, band])
        assert n == len(ours)
        assert abs(mean) < 3.5 * mean_error
        assert abs(width - 1) < 3.5 * width_error
