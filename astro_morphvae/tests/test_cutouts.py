import copy

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import (
    InverseVariance,
    NDData,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.table import QTable, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from astro_morphvae import Cutout, CutoutSet
from astro_morphvae.cutouts import as_cutout_set
from astro_morphvae.exceptions import CutoutMismatchError
from astro_morphvae.tests.cutout_samples import SCALE, make_set, make_wcs, noise


class TestConstructor:
    def test_nddata_protocol(self):
        data = noise(4, 3, 16, 16)
        cutouts = CutoutSet(
            data,
            unit="nmgy",
            bands="grz",
            uncertainty=StdDevUncertainty(np.full(data.shape, 0.5)),
            mask=np.zeros(16, dtype=bool),
            wcs=[make_wcs(ra) for ra in (10, 20, 30, 40)],
            psf_fwhm=1.3 * u.arcsec,
            meta={"survey": "DECaLS"},
        )
        assert isinstance(cutouts, NDData)
        assert cutouts.data is data
        assert cutouts.unit == u.nmgy
        assert cutouts.uncertainty.parent_nddata is cutouts
        assert cutouts.uncertainty.unit == u.nmgy**-2
        np.testing.assert_allclose(cutouts.ivar, 4)
        assert cutouts.mask.shape == data.shape
        assert cutouts.meta == {"survey": "DECaLS"}
        assert cutouts.bands == ("g", "r", "z")
        assert cutouts.n_bands == 3
        assert (cutouts.shape, cutouts.size, len(cutouts)) == ((4, 3, 16, 16), (16, 16), 4)
        assert cutouts.pixel_scale.to_value(u.arcsec) == pytest.approx(0.262)
        np.testing.assert_allclose(cutouts.psf_fwhm.to_value(u.arcsec), [1.3] * 3)
        np.testing.assert_allclose(cutouts.catalog["ra"].to_value(u.deg), [10, 20, 30, 40])
        np.testing.assert_allclose(cutouts.catalog["dec"].to_value(u.deg), 20)
        assert list(cutouts.catalog["id"]) == [0, 1, 2, 3]

    def test_repr_says_what_is_there(self):
        text = repr(make_set(pixel_scale=SCALE))
        for part in ("4", "g, r, i", "16 × 16", "nmgy", "0.262 arcsec / pixel"):
            assert part in text
        assert "no unit" in repr(make_set(unit=u.dimensionless_unscaled))

    @pytest.mark.parametrize("bands", ["grz", ("g", "r", "z"), list("grz"), np.array(list("grz"))])
    def test_bands(self, bands):
        assert make_set(bands=bands).bands == ("g", "r", "z")
        assert make_set(n_band=1, bands="F105W").bands == ("F105W",)

    @pytest.mark.parametrize(
        ("changes", "error", "match"),
        [
            ({"bands": "gr"}, ValueError, "bands: 2 names"),
            ({"bands": "ggr"}, ValueError, "bands: names must differ"),
            ({"bands": 3}, TypeError, "bands"),
            ({"unit": u.ABmag}, ValueError, "unit: mag"),
            ({"pixel_scale": 0.262}, TypeError, "pixel_scale: expected an angle"),
            ({"pixel_scale": -SCALE}, ValueError, "pixel_scale"),
            ({"psf_fwhm": [1, 2] * u.arcsec}, ValueError, "psf_fwhm"),
            ({"psf_fwhm": 1.3}, TypeError, "psf_fwhm"),
            ({"uncertainty": np.ones((4, 3, 16, 16))}, TypeError, "uncertainty: expected an NDUnc"),
            ({"uncertainty": InverseVariance(np.ones((2, 2)))}, ValueError, "uncertainty: shape"),
            (
                {"uncertainty": UnknownUncertainty(np.ones((4, 3, 16, 16)))},
                TypeError,
                "UnknownUncertainty",
            ),
            ({"mask": np.zeros((5, 5), dtype=bool)}, ValueError, "mask: shape"),
            ({"mask": np.zeros((16, 16))}, TypeError, "mask: expected bool"),
            ({"wcs": [None]}, ValueError, "wcs: expected a sequence of 4"),
            ({"wcs": ["a"] * 4}, TypeError, "wcs: expected an astropy"),
            ({"catalog": QTable({"a": [1]})}, ValueError, "catalog: 1 rows for 4"),
            ({"catalog": "no"}, TypeError, "catalog"),
        ],
    )
    def test_wrong_argument_is_named(self, changes, error, match):
        with pytest.raises(error, match=match):
            make_set(**changes)

    @pytest.mark.parametrize("shape", [(3, 16, 16), (16, 16), (1, 2, 3, 4, 5), (4, 0, 8, 8)])
    def test_wrong_shape(self, shape):
        with pytest.raises(ValueError, match="data"):
            CutoutSet(np.zeros(shape), unit=u.nmgy, bands="grz")

    def test_empty_set_and_single_cutout(self):
        empty = make_set(n=0)
        assert len(empty) == 0
        assert list(empty) == []
        assert len(empty.good) == 0
        assert "id" in empty.catalog.colnames
        assert len(make_set(n=1)) == 1

    def test_quantity_and_masked_array(self):
        values = noise(2, 1, 8, 8)
        cutouts = CutoutSet(values * u.mgy, unit=u.nmgy, bands="r")
        np.testing.assert_allclose(cutouts.data, values * 1e9, rtol=1e-6)
        masked = np.ma.masked_less(values, 0)
        cutouts = CutoutSet(masked, unit=u.nmgy, bands="r")
        np.testing.assert_array_equal(cutouts.mask, values < 0)

    def test_uncertainty_in_another_unit(self):
        ivar = InverseVariance(np.ones((4, 3, 16, 16)), unit=u.mgy**-2)
        np.testing.assert_allclose(make_set(uncertainty=ivar).ivar, 1e-18, rtol=1e-6)

    def test_catalog_is_copied_and_decorated(self):
        catalog = Table({"z": [0.1, 0.2, 0.3, 0.4], "ra": [1.0, 2, 3, 4], "dec": [5.0, 6, 7, 8]})
        cutouts = make_set(catalog=catalog)
        assert catalog.colnames == ["z", "ra", "dec"]
        assert cutouts.catalog.colnames == ["id", "ra", "dec", "status", "z"]
        assert cutouts.catalog["ra"].unit == u.deg
        assert cutouts.catalog["status"].description

    def test_different_pixel_scales_are_refused(self):
        with pytest.raises(CutoutMismatchError, match="rows 2"):
            make_set(wcs=[make_wcs(), make_wcs(), make_wcs(scale=0.4), make_wcs()])


class TestBadInput:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_pixels_that_are_not_finite_are_masked(self, value):
        data = noise(2, 2, 8, 8)
        data[1, 0, 3, 4] = value
        data.flags.writeable = False
        ivar = np.ones(data.shape, dtype=np.float32)
        ivar.flags.writeable = False
        cutouts = CutoutSet(data, unit=u.nmgy, bands="gr", uncertainty=InverseVariance(ivar))
        assert cutouts.mask.sum() == 1
        assert cutouts.mask[1, 0, 3, 4]
        assert cutouts.ivar[1, 0, 3, 4] == 0
        assert ivar.min() == 1
        assert cutouts.good.all()
        clean, clean_ivar, mask = cutouts.arrays()
        assert clean[1, 0, 3, 4] == 0
        assert np.isfinite(clean).all()
        assert clean_ivar.sum() == data.size - 1
        assert mask.sum() == 1

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (StdDevUncertainty, 0.0),
            (VarianceUncertainty, 0.0),
            (InverseVariance, np.nan),
            (InverseVariance, -1.0),
            (InverseVariance, np.inf),
        ],
    )
    def test_uncertainty_that_means_nothing_is_masked(self, kind, value):
        sigma = np.ones((2, 1, 8, 8))
        sigma[0, 0, 2, 2] = value
        cutouts = CutoutSet(noise(2, 1, 8, 8), unit=u.nmgy, bands="r", uncertainty=kind(sigma))
        assert cutouts.mask[0, 0, 2, 2]
        assert cutouts.mask.sum() == 1
        assert cutouts.ivar[0, 0, 2, 2] == 0

    def test_bad_rows_get_a_status(self):
        data = noise(6, 3, 8, 8)
        data[1] = np.nan
        data[2, 1] = 0
        data[3] = 0
        data[4, 0] = np.nan
        before = data.copy()
        cutouts = CutoutSet(data, unit=u.nmgy, bands="grz")
        np.testing.assert_array_equal(data, before)
        assert list(cutouts.catalog["status"]) == [
            "ok",
            "all NaN",
            "blank band: r",
            "all zero",
            "blank band: g",
            "ok",
        ]
        np.testing.assert_array_equal(cutouts.good, [True, False, False, False, False, True])
        assert np.isnan(cutouts.data[~cutouts.good]).all()
        assert cutouts.mask[~cutouts.good].all()
        assert not cutouts.mask[cutouts.good].any()
        assert "4 bad rows" in repr(cutouts)

    @pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8", "i2", "u1"])
    def test_any_number_type_read_only(self, dtype):
        data = (noise(2, 1, 8, 8) * 10).astype(dtype)
        data.flags.writeable = False
        before = data.copy()
        cutouts = CutoutSet(data, unit=u.nmgy, bands="r")
        assert cutouts.data.dtype == np.float32
        np.testing.assert_array_equal(cutouts.data, before.astype(np.float32))
        np.testing.assert_array_equal(data, before)

    def test_status_of_the_user_is_kept(self):
        catalog = QTable({"status": ["ok", "star", "ok", "ok"]})
        cutouts = make_set(catalog=catalog)
        assert list(cutouts.good) == [True, False, True, True]
        assert cutouts.mask[1].all()


class TestIndexing:
    def test_row(self):
        cutouts = make_set(
            pixel_scale=SCALE,
            psf_fwhm=1.2 * u.arcsec,
            meta={"survey": "DECaLS"},
            wcs=[make_wcs()] * 4,
        )
        cutout = cutouts[-1]
        assert isinstance(cutout, Cutout)
        assert isinstance(cutout, NDData)
        np.testing.assert_array_equal(cutout.data, cutouts.data[3])
        assert np.shares_memory(cutout.data, cutouts.data)
        assert (cutout.id, cutout.status, cutout.bands) == (3, "ok", ("g", "r", "i"))
        assert cutout.meta["survey"] == "DECaLS"
        assert cutout.meta["catalog"]["ra"].unit == u.deg
        assert cutout.wcs is cutouts.wcs[3]
        assert cutout.unit == u.nmgy
        assert "g, r, i" in repr(cutout)

    def test_slices_are_views_that_stay_aligned(self):
        cutouts = make_set(n=6, wcs=[make_wcs(ra) for ra in range(6)])
        part = cutouts[1:5:2]
        assert np.shares_memory(part.data, cutouts.data)
        assert list(part.catalog["id"]) == [1, 3]
        assert [round(wcs.wcs.crval[0]) for wcs in part.wcs] == [1, 3]

    @pytest.mark.parametrize("index", [[4, 0, -1], np.array([4, 0, 5]), (4, 0, 5)])
    def test_rows_in_any_order(self, index):
        part = make_set(n=6, wcs=[make_wcs(ra) for ra in range(6)])[index]
        assert list(part.catalog["id"]) == [4, 0, 5]
        assert [round(wcs.wcs.crval[0]) for wcs in part.wcs] == [4, 0, 5]

    def test_mask_and_iteration(self):
        cutouts = make_set(n=5)
        part = cutouts[np.array([True, False, True, False, False])]
        assert [cutout.id for cutout in part] == [0, 2]
        assert len(cutouts[[]]) == 0

    @pytest.mark.parametrize(
        ("index", "error"),
        [
            (4, IndexError),
            (-5, IndexError),
            ([0, 9], IndexError),
            (np.array([True, False]), IndexError),
            ("a", TypeError),
            (1.5, TypeError),
            ((slice(None), 0), (TypeError, ValueError)),
        ],
    )
    def test_wrong_index(self, index, error):
        with pytest.raises(error):
            make_set()[index]

    def test_deepcopy(self):
        cutouts = make_set(
            uncertainty=InverseVariance(np.ones((4, 3, 16, 16))), wcs=[make_wcs()] * 4
        )
        twin = copy.deepcopy(cutouts)
        np.testing.assert_array_equal(twin.data, cutouts.data)
        assert not np.shares_memory(twin.data, cutouts.data)
        assert twin.wcs[0].wcs.crval[0] == 10

    @given(st.lists(st.integers(-5, 4), max_size=12))
    @settings(max_examples=30, deadline=None)
    def test_any_list_of_rows_indexes_like_numpy(self, rows):
        cutouts = make_set(n=5, n_band=1, size=4)
        part = cutouts[rows]
        np.testing.assert_array_equal(part.data, cutouts.data[np.array(rows, dtype=int)])
        assert list(part.catalog["id"]) == [row % 5 for row in rows]


class TestAsCutoutSet:
    def test_what_is_taken(self, tmp_path):
        cutouts = make_set()
        assert as_cutout_set(cutouts) is cutouts
        assert len(as_cutout_set(list(cutouts))) == 4
        assert len(as_cutout_set(cutouts[0])) == 1
        cutouts.write(tmp_path / "set.fits")
        assert len(as_cutout_set(tmp_path / "set.fits")) == 4
        assert len(as_cutout_set(str(tmp_path / "set.fits"))) == 4

    @pytest.mark.parametrize("obj", [np.zeros((1, 3, 8, 8)), None, 3, [], [1, 2], {"a": 1}])
    def test_what_is_refused(self, obj):
        with pytest.raises(TypeError, match=r"^galaxies: expected a CutoutSet"):
            as_cutout_set(obj, name="galaxies")
