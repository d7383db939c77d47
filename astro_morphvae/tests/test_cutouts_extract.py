import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import (
    NDData,
    StdDevUncertainty,
)
from astropy.wcs import WCS, Sip
from hypothesis import given, settings
from hypothesis import strategies as st

from astro_morphvae import extract_cutouts
from astro_morphvae.cutouts._wcs import cards_to_wcs, rescale_wcs, wcs_to_cards
from astro_morphvae.tests.cutout_samples import make_set, make_wcs, noise


class TestWCS:
    def sip(self):
        wcs = make_wcs(crpix=(100.2, -30.7))
        a, b = np.zeros((4, 4)), np.zeros((4, 4))
        a[2, 0], a[1, 2], b[0, 2], b[3, 0] = 3e-4, 1e-6, -2e-4, 2e-6
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
        wcs.wcs.set()
        return wcs

    @pytest.mark.parametrize("form", ["cd", "pc"])
    @given(
        ra=st.floats(0, 359.999),
        dec=st.floats(-89, 89),
        x=st.floats(-1e5, 1e5),
        rotation=st.floats(0, 6),
    )
    @settings(max_examples=25, deadline=None)
    def test_cards_round_trip_exactly(self, form, ra, dec, x, rotation):
        wcs = make_wcs(ra, dec, (x, 1 / 3), rotation=rotation, form=form)
        cards = wcs_to_cards(wcs)
        assert len(cards) % 80 == 0
        again = cards_to_wcs(cards)
        np.testing.assert_array_equal(again.wcs.crval, wcs.wcs.crval)
        np.testing.assert_array_equal(again.wcs.crpix, wcs.wcs.crpix)
        np.testing.assert_array_equal(again.pixel_scale_matrix, wcs.pixel_scale_matrix)

    def test_distortions_round_trip(self):
        wcs = self.sip()
        again = cards_to_wcs(wcs_to_cards(wcs))
        np.testing.assert_array_equal(again.all_pix2world(5, 7, 0), wcs.all_pix2world(5, 7, 0))

    def test_tpv_round_trips(self):
        header = make_wcs().to_header()
        header.update({"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"})
        header.update({"PV1_0": 1e-4, "PV1_1": 1.01, "PV2_1": 0.99, "PV1_7": -3e-3})
        wcs = WCS(header)
        before = wcs.all_pix2world(50, 70, 0)
        again = cards_to_wcs(wcs_to_cards(wcs))
        np.testing.assert_allclose(again.all_pix2world(50, 70, 0), before, rtol=0, atol=1e-13)
        assert abs(before[0] - make_wcs().all_pix2world(50, 70, 0)[0]) > 1e-5

    def test_distortion_follows_the_pixel_scale(self):
        wcs = self.sip()
        new = rescale_wcs(wcs, ratio=2.5, x0=3.0, y0=-4.0)
        x, y = 20.0, 31.0
        expected = wcs.all_pix2world(x, y, 0)
        found = new.all_pix2world((x + 0.5 - 3) / 2.5 - 0.5, (y + 0.5 + 4) / 2.5 - 0.5, 0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)

    def test_galactic_wcs_gives_icrs_positions(self):
        wcs = make_wcs(120.0, 30.0)
        wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
        wcs.wcs.set()
        cutouts = make_set(n=1, wcs=[wcs])
        expected = SkyCoord(120 * u.deg, 30 * u.deg, frame="galactic").icrs
        assert cutouts.catalog["ra"][0].value == pytest.approx(expected.ra.deg, abs=1e-6)


class TestExtract:
    def image(self, **kwargs):
        arguments = {
            "unit": u.nmgy,
            "wcs": make_wcs(ra=0.001, crpix=(50, 60)),
            "meta": {"BANDS": "gr"},
            "uncertainty": StdDevUncertainty(np.full((2, 120, 100), 2.0)),
            **kwargs,
        }
        return NDData(np.arange(24000.0).reshape(2, 120, 100) + 1, **arguments)

    def test_sky_positions(self):
        image = self.image()
        sky = image.wcs.pixel_to_world([50, 30.4], [60, 20.6])
        cutouts = extract_cutouts(image, sky, 16, ids=["a", "b"])
        assert cutouts.bands == ("g", "r")
        assert cutouts.unit == u.nmgy
        np.testing.assert_allclose(cutouts.ivar, 0.25)
        assert cutouts.mask is None
        for row in range(2):
            x, y = cutouts.wcs[row].world_to_pixel(sky[row])
            assert abs(x - 7.5) <= 0.5 + 1e-6
            assert abs(y - 7.5) <= 0.5 + 1e-6
            x, y = round(float(x)), round(float(y))
            column, line = (round(cutouts.catalog[name][row]) for name in "xy")
            found = image.data[:, line, column]
            np.testing.assert_allclose(cutouts.data[row, :, y, x], found)
        np.testing.assert_allclose(cutouts.catalog["ra"].value, sky.ra.deg)
        np.testing.assert_array_equal(cutouts.catalog["coverage"], 1)

    def test_odd_size_is_centred_and_wcs_is_exact(self):
        image = self.image()
        cutouts = extract_cutouts(image, [(40, 50)], (5, 9))
        np.testing.assert_array_equal(cutouts.data[0], image.data[:, 48:53, 36:45])
        np.testing.assert_allclose(
            cutouts.wcs[0].all_pix2world(4, 2, 0), image.wcs.all_pix2world(40, 50, 0), rtol=1e-13
        )

    def test_edges(self):
        image = self.image()
        cutouts = extract_cutouts(image, [(0, 0), (99, 60), (50, 60), (-40, 5)], 11, fill_value=-7)
        np.testing.assert_allclose(cutouts.catalog["coverage"], [36 / 121, 66 / 121, 1, 0])
        assert list(cutouts.catalog["status"]) == ["ok", "ok", "ok", "outside the image"]
        assert (cutouts.data[0][cutouts.mask[0]] == -7).all()
        assert (cutouts.ivar[cutouts.mask] == 0).all()
        np.testing.assert_array_equal(cutouts.data[0, :, 5:, 5:], image.data[:, :6, :6])
        assert np.isnan(cutouts.data[3]).all()
        strict = extract_cutouts(image, [(0, 0), (50, 60)], 11, mode="strict")
        assert list(strict.catalog["status"]) == ["partly outside the image", "ok"]

    def test_mask_nan_and_unit_come_along(self):
        data = np.ones((40, 40))
        data[10, 10] = np.nan
        mask = np.zeros(data.shape, dtype=bool)
        mask[12, 12] = True
        image = NDData(data, unit=u.mgy, mask=mask)
        cutouts = extract_cutouts(image, [(11, 11)], 9, bands="r")
        assert cutouts.mask.sum() == 2
        assert cutouts.data[0, 0, 0, 0] == pytest.approx(1e9)
        assert np.isfinite(cutouts.data).all()
        assert np.isnan(data[10, 10])
        assert cutouts.catalog["coverage"][0] == pytest.approx(79 / 81)

    def test_far_side_of_the_sky_and_nan_are_statuses(self):
        sky = SkyCoord([180.001, np.nan] * u.deg, [-20.0, 3.0] * u.deg)
        cutouts = extract_cutouts(self.image(), sky, 8)
        assert list(cutouts.catalog["status"]) == ["invalid position"] * 2

    def test_position_across_the_seam(self):
        image = self.image()
        sky = SkyCoord(359.9995 * u.deg, 20 * u.deg)
        cutouts = extract_cutouts(image, sky, 8)
        assert cutouts.good.all()
        assert cutouts.catalog["ra"][0].value == pytest.approx(359.9995)

    def test_plain_array_and_angular_size(self):
        array = noise(40, 50)
        centre = SkyCoord(10 * u.deg, 20 * u.deg)
        cutouts = extract_cutouts(array, centre, 2.62 * u.arcsec, wcs=make_wcs())
        assert cutouts.size == (10, 10)
        assert cutouts.unit == u.dimensionless_unscaled

    @pytest.mark.parametrize(
        ("arguments", "error", "match"),
        [
            ({"image": "a"}, TypeError, "image"),
            ({"coords": "a"}, TypeError, "coords"),
            ({"coords": np.zeros((3, 3))}, ValueError, "coords"),
            ({"size": 0}, ValueError, "size"),
            ({"size": 3 * u.kg}, ValueError, "size"),
            ({"mode": "trim"}, ValueError, "mode: .*'trim'"),
            ({"bands": "grz"}, ValueError, "bands"),
            ({"wcs": make_wcs()}, ValueError, "wcs"),
            ({"ids": ["a", "b"]}, ValueError, "ids"),
            ({"image": np.ones((9, 9)), "coords": SkyCoord("1d 2d")}, ValueError, "coords"),
        ],
    )
    def test_wrong_argument_is_named(self, arguments, error, match):
        arguments = {"image": self.image(), "coords": [(5, 5)], "size": 8, **arguments}
        with pytest.raises(error, match=match):
            extract_cutouts(**arguments)

    def test_no_positions(self):
        assert len(extract_cutouts(self.image(), np.zeros((0, 2)), 8)) == 0
