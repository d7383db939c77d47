import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    NDDataRef,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.table import Table
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from astro_morphvae import Cutout, CutoutSet
from astro_morphvae.exceptions import CutoutMismatchError
from astro_morphvae.tests.cutout_samples import SCALE, make_wcs, noise


class TestFromNDData:
    def test_kinds_of_nddata(self):
        image = noise(16, 16)
        items = [
            NDData(image, unit=u.nmgy),
            CCDData(image * 1e-9, unit=u.mgy),
            NDDataRef(image * 3.6307805, unit=u.uJy),
            Cutout(image[np.newaxis], unit=u.nmgy, bands=["band0"]),
        ]
        cutouts = CutoutSet.from_nddata(items)
        assert cutouts.unit == u.nmgy
        assert cutouts.bands == ("band0",)
        for row in range(4):
            np.testing.assert_allclose(cutouts.data[row, 0], image, rtol=1e-5)

    @pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
    def test_uncertainty_of_any_kind_follows_the_unit(self, kind):
        sigma = np.full((2, 8, 8), 0.5)
        array = {"std": sigma, "var": sigma**2, "ivar": sigma**-2}[kind(0).uncertainty_type]
        item = NDData(noise(2, 8, 8), unit=u.mgy, uncertainty=kind(array))
        cutouts = CutoutSet.from_nddata([item, item])
        np.testing.assert_allclose(cutouts.ivar, 4e-18, rtol=1e-5)
        assert cutouts.uncertainty.unit == u.nmgy**-2

    def test_magnitudes_become_flux(self):
        item = NDData(
            np.full((8, 8), 20.0), unit=u.ABmag, uncertainty=StdDevUncertainty(np.full((8, 8), 0.1))
        )
        cutouts = CutoutSet.from_nddata([item])
        np.testing.assert_allclose(cutouts.data, 10, rtol=1e-6)
        np.testing.assert_allclose(cutouts.ivar**-0.5, 0.921034, rtol=1e-5)

    def test_zero_point_and_unit_of_counts(self):
        item = NDData(np.full((8, 8), 2.0), unit=u.adu)
        assert CutoutSet.from_nddata([item]).unit == u.adu
        by_magnitude = CutoutSet.from_nddata([item], unit=25 * u.ABmag, bands="r")
        np.testing.assert_allclose(by_magnitude.data, 0.2, rtol=1e-6)
        by_flux = CutoutSet.from_nddata([item], unit=0.5 * u.nmgy)
        np.testing.assert_allclose(by_flux.data, 1.0)
        with pytest.raises(ValueError, match="unit"):
            CutoutSet.from_nddata([item], unit=3 * u.adu)

    def test_nothing_given_is_no_unit(self):
        cutouts = CutoutSet.from_nddata([NDData(noise(8, 8))])
        assert cutouts.unit == u.dimensionless_unscaled
        assert cutouts.wcs is None
        assert cutouts.pixel_scale is None

    def test_input_is_left_alone(self):
        data = noise(2, 8, 8).astype(">f8")
        data[0, 0, 0] = np.nan
        mask = np.zeros(data.shape, dtype=bool)
        mask[1, 1, 1] = True
        item = NDData(
            data, unit=u.Jy, mask=mask, uncertainty=VarianceUncertainty(np.ones(data.shape))
        )
        for array in (data, mask, item.uncertainty.array):
            array.flags.writeable = False
        before = data.copy()
        cutouts = CutoutSet.from_nddata([item])
        np.testing.assert_array_equal(data, before)
        assert mask.sum() == 1
        assert cutouts.mask.sum() == 2
        assert cutouts.data[0, 0, 0, 0] == 0  # masked pixels hold finite values
        assert cutouts.ivar[0, 1, 1, 1] == 0

    def test_mask_of_one_band_holds_for_all(self):
        mask = np.zeros((8, 8), dtype=bool)
        mask[2] = True
        cutouts = CutoutSet.from_nddata([NDData(noise(3, 8, 8), mask=mask)], bands="grz")
        assert cutouts.mask[0, :, 2].all()
        assert cutouts.mask.sum() == 24

    def test_wcs_of_two_and_three_axes_and_sliced(self):
        image = noise(2, 40, 40)
        wcs = make_wcs(crpix=(20, 12))
        cube = WCS(naxis=3)
        cube.wcs.ctype = ["RA---TAN", "DEC--TAN", "WAVE"]
        cube.wcs.cunit = ["deg", "deg", "m"]
        cube.wcs.crval = [10, 20, 5e-7]
        cube.wcs.crpix = [20, 12, 1]
        cube.wcs.cdelt = [-0.262 / 3600, 0.262 / 3600, 1e-8]
        items = [
            NDData(image[:, 4:36, 6:38], wcs=make_wcs(crpix=(14, 8))),
            NDDataRef(image, wcs=cube)[:, 4:36, 6:38],
            NDData(image[:, 4:36, 6:38], wcs=cube[:, 4:36, 6:38]),
        ]
        cutouts = CutoutSet.from_nddata(items)
        centre = wcs.pixel_to_world(6 + 15.5, 4 + 15.5)
        found = SkyCoord(cutouts.catalog["ra"], cutouts.catalog["dec"])
        assert found.separation(centre).max() < 1e-6 * u.arcsec
        assert all(entry.naxis == 2 for entry in cutouts.wcs)
        single = CutoutSet.from_nddata([CCDData(image[0], unit="adu", wcs=wcs)[4:36, 6:38]])
        assert (
            SkyCoord(single.catalog["ra"], single.catalog["dec"])[0].separation(centre)
            < 1e-6 * u.arcsec
        )

    def test_bands_from_headers(self):
        items = [CCDData(noise(8, 8), unit="adu", meta={"FILTER": "F105W"})]
        assert CutoutSet.from_nddata(items).bands == ("F105W",)
        items = [NDData(noise(2, 8, 8), meta={"BANDS": "gz", "BAND0": "g", "BAND1": "z"})]
        assert CutoutSet.from_nddata(items).bands == ("g", "z")
        assert CutoutSet.from_nddata(items, bands="zg").data[0, 0, 0, 0] == items[0].data[1, 0, 0]

    def test_band_that_is_missing_is_a_status(self):
        items = [
            NDData(noise(2, 8, 8), meta={"BANDS": "gz"}),
            NDData(noise(3, 8, 8), meta={"BANDS": "grz"}),
        ]
        with pytest.raises(CutoutMismatchError, match=r"bands .*rows 0.*rows 1"):
            CutoutSet.from_nddata(items)
        cutouts = CutoutSet.from_nddata(items, bands="grz")
        assert list(cutouts.catalog["status"]) == ["missing band: r", "ok"]

    def test_ids_catalog_and_round_trip(self):
        items = [NDData(noise(8, 8), unit=u.nmgy)] * 2
        cutouts = CutoutSet.from_nddata(
            items, ids=["a", "b"], catalog=Table({"z": [0.1, 0.2]}), meta={"survey": "x"}
        )
        again = CutoutSet.from_nddata(list(cutouts))
        assert list(again.catalog["id"]) == ["a", "b"]
        assert cutouts.catalog["z"][1] == 0.2
        with pytest.raises(ValueError, match="ids: 1"):
            CutoutSet.from_nddata(items, ids=["a"])

    @pytest.mark.parametrize(
        ("items", "error", "match"),
        [
            ([], ValueError, "items: empty"),
            ([1], TypeError, "row 0 is int"),
            (3, TypeError, "items"),
            ([NDData(np.zeros(4))], ValueError, "row 0 has shape"),
            (
                [
                    NDData(np.ones((8, 8))),
                    NDData(np.ones((8, 8)), uncertainty=UnknownUncertainty(np.ones((8, 8)))),
                ],
                TypeError,
                "row 1: uncertainty",
            ),
            ([NDData(np.ones((8, 8)), unit=u.MJy / u.sr)], ValueError, "row 0.*pixel_scale"),
        ],
    )
    def test_wrong_items(self, items, error, match):
        with pytest.raises(error, match=match):
            CutoutSet.from_nddata(items)


class TestMismatch:
    def items(self):
        return [
            NDData(noise(20, 20), unit=u.nmgy, wcs=make_wcs()),
            NDData(noise(24, 24), unit=u.nmgy, wcs=make_wcs(scale=0.5)),
            NDData(noise(20, 20), unit=u.nmgy, wcs=make_wcs()),
        ]

    def test_error_says_which_rows(self):
        with pytest.raises(CutoutMismatchError) as error:
            CutoutSet.from_nddata(self.items())
        text = str(error.value)
        assert "20 × 20 in rows 0, 2; 24 × 24 in rows 1" in text
        assert "0.262 arcsec in rows 0, 2; 0.5 arcsec in rows 1" in text
        assert "resize=" in text
        assert "pixel_scale=" in text

    def test_unit_and_uncertainty(self):
        items = [NDData(noise(8, 8), unit=u.nmgy), NDData(noise(8, 8), unit=u.adu)]
        with pytest.raises(CutoutMismatchError, match=r"unit .*nmgy in rows 0; adu in rows 1"):
            CutoutSet.from_nddata(items)
        items[1] = NDData(noise(8, 8), unit=u.nmgy, uncertainty=InverseVariance(np.ones((8, 8))))
        with pytest.raises(CutoutMismatchError, match=r"uncertainty .*missing in rows 0"):
            CutoutSet.from_nddata(items)

    def test_resize_keeps_field_and_flux(self):
        items = self.items()
        cutouts = CutoutSet.from_nddata(items, resize=10)
        assert cutouts.size == (10, 10)
        for row, item in enumerate(items):
            np.testing.assert_allclose(cutouts.data[row].sum(), item.data.sum(), rtol=1e-4)
        assert cutouts.pixel_scale is None
        np.testing.assert_allclose(
            cutouts.catalog["pixel_scale"].to_value(u.arcsec), [0.524, 1.2, 0.524]
        )

    def test_pixel_scale_and_resize(self):
        items = self.items()
        cutouts = CutoutSet.from_nddata(items, pixel_scale=0.5 * u.arcsec, resize=12)
        assert cutouts.pixel_scale == 0.5 * u.arcsec
        for row, item in enumerate(items):
            ny, nx = item.data.shape
            sky = item.wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
            x, y = cutouts.wcs[row].world_to_pixel(sky)
            np.testing.assert_allclose([x, y], 5.5, atol=1e-6)
        np.testing.assert_allclose(cutouts.data[1, 0], items[1].data[6:18, 6:18])
        with pytest.raises(CutoutMismatchError, match="size"):
            CutoutSet.from_nddata(items, pixel_scale=0.5 * u.arcsec)

    @given(
        ratio=st.floats(0.4, 3),
        size=st.integers(6, 40),
        form=st.sampled_from(["cd", "pc"]),
        rotation=st.floats(0, 6.2),
    )
    @settings(max_examples=25, deadline=None)
    def test_sky_stays_where_it_was(self, ratio, size, form, rotation):
        wcs = make_wcs(crpix=(3.3, 30.1), form=form, rotation=rotation)
        item = NDData(noise(24, 24), unit=u.nmgy, wcs=wcs)
        cutouts = CutoutSet.from_nddata([item], pixel_scale=ratio * SCALE, resize=size)
        step = 1.0 if abs(ratio - 1) < 2e-3 else ratio
        corner = (24 - size * step) / 2
        corner = np.floor(corner) if step == 1 else corner
        # the same point of the sky, seen through both
        x, y = 5.0, 17.0
        sky = wcs.pixel_to_world(x, y)
        expected = [(x + 0.5 - corner) / step - 0.5, (y + 0.5 - corner) / step - 0.5]
        np.testing.assert_allclose(cutouts.wcs[0].world_to_pixel(sky), expected, atol=1e-5)
        assert cutouts.pixel_scale.value == pytest.approx(0.262 * ratio)

    @pytest.mark.parametrize("resize", [0, -3, 2.5, (1, 2, 3), True, "big"])
    def test_wrong_resize(self, resize):
        with pytest.raises(ValueError, match="resize"):
            CutoutSet.from_nddata(self.items(), resize=resize)
