"""Real survey files, from the folder beside the repository: positions, units, bands, statuses."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty, VarianceUncertainty
from astropy.table import Table
from astropy.wcs import WCS

from astro_morphvae import CutoutSet, extract_cutouts
from astro_morphvae.exceptions import CutoutMismatchError


def astropy_wcs(path):
    """Celestial WCS of a file, by astropy alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(fits.getheader(path)).celestial


def assert_centred_as_astropy_says(cutouts, paths):
    """Compare catalog and WCS of every row with astropy's reading, to 0.1 pixel and better."""
    for row, path in enumerate(paths):
        reference = astropy_wcs(path)
        ny, nx = cutouts.size
        sky = reference.pixel_to_world((nx - 1) / 2, (ny - 1) / 2).icrs
        found = cutouts.catalog["ra"][row], cutouts.catalog["dec"][row]
        by_catalog = reference.world_to_pixel(type(sky)(*found))
        by_wcs = cutouts.wcs[row].world_to_pixel(sky)
        for position in (by_catalog, by_wcs):
            np.testing.assert_allclose(position, [(nx - 1) / 2, (ny - 1) / 2], atol=1e-3)


class TestDECaLS:
    @pytest.mark.parametrize(
        ("name", "scale"),  # arcsec, from the CD matrices
        [
            ("example_a", 0.1),
            ("example_b", 0.101364),
            ("example_d", 0.130249),
            ("example_bad_pix", 0.130249),
        ],
    )
    def test_cubes(self, shared_data, name, scale):
        path = shared_data / "decals-fits" / f"{name}.fits"
        cutouts = CutoutSet.from_files([path])
        assert cutouts.shape == (1, 3, 424, 424)
        assert cutouts.bands == ("g", "r", "z")
        assert cutouts.unit == u.nmgy
        assert cutouts.good.all()
        assert cutouts.pixel_scale.to_value(u.arcsec) == pytest.approx(scale, rel=1e-5)
        assert_centred_as_astropy_says(cutouts, [path])
        pixels = fits.getdata(path)
        np.testing.assert_array_equal(cutouts.data[0], pixels)
        if (pixels == 0).any():
            np.testing.assert_array_equal(cutouts.mask[0], pixels == 0)
        else:
            assert cutouts.mask is None

    def test_bad_pixels_are_masked_where_nothing_was_observed(self, shared_data):
        folder = shared_data / "decals-fits"
        cutouts = CutoutSet.from_files([folder / "example_bad_pix.fits", folder / "example_d.fits"])
        assert cutouts.good.all()
        bad = cutouts.mask.mean(axis=(2, 3))
        np.testing.assert_allclose(bad[0], [0.757, 0.728, 0], atol=1e-3)
        assert bad[1].max() < 2e-3
        # the same sky in two data releases
        both = ~cutouts.mask.any(axis=0)
        first, second = (cutouts.data[row][both] for row in range(2))
        assert np.corrcoef(first, second)[0, 1] > 0.9

    def test_truncated_file_is_a_row_with_a_status(self, shared_data):
        folder = shared_data / "decals-fits"
        path = folder / "example_incomplete.fits"
        cutouts = CutoutSet.from_files([path])
        assert cutouts.catalog["status"][0].startswith("truncated: 64 %")
        assert not cutouts.good.any()
        assert np.isnan(cutouts.data).all()
        assert cutouts.mask.all()
        assert_centred_as_astropy_says(cutouts, [path])
        assert cutouts.bands == ("g", "r", "z")
        together = CutoutSet.from_files([path, folder / "example_a.fits"])
        assert list(together.good) == [False, True]

    def test_whole_folder(self, shared_data):
        folder = shared_data / "decals-fits"
        with pytest.raises(CutoutMismatchError, match=r"pixel scale .*0\.1 arcsec in rows 0"):
            CutoutSet.from_files(folder)
        cutouts = CutoutSet.from_files(folder, pixel_scale=0.262 * u.arcsec, resize=128)
        assert cutouts.shape == (5, 3, 128, 128)
        assert list(cutouts.catalog["id"]) == [
            "example_a",
            "example_b",
            "example_bad_pix",
            "example_d",
            "example_incomplete",
        ]
        assert list(cutouts.good) == [True, True, True, True, False]
        for row in (0, 1, 3):
            path = folder / f"{cutouts.catalog['id'][row]}.fits"
            wcs, pixels = astropy_wcs(path), fits.getdata(path)
            # the flux about the brightest pixel is the flux at that place of the file
            image = np.where(cutouts.mask[row, 1], -np.inf, cutouts.data[row, 1])
            y, x = np.unravel_index(np.argmax(image), image.shape)
            coarse = cutouts.data[row, 1, y - 4 : y + 5, x - 4 : x + 5].sum()
            x, y = wcs.world_to_pixel(cutouts.wcs[row].pixel_to_world(x, y))
            half = 4.5 * 0.262 / np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) / 3600
            box = (
                slice(round(float(c) - half + 0.5), round(float(c) + half + 0.5)) for c in (y, x)
            )
            assert pixels[1][tuple(box)].sum() == pytest.approx(coarse, rel=0.05)

    def test_round_trip_through_one_file(self, shared_data, tmp_path):
        folder = shared_data / "decals-fits"
        cutouts = CutoutSet.from_files(folder, pixel_scale=0.262 * u.arcsec, resize=64)
        cutouts.write(tmp_path / "set.fits")
        again = CutoutSet.read(tmp_path / "set.fits", verify=True)
        np.testing.assert_array_equal(again.data, cutouts.data)
        assert list(again.catalog["status"]) == list(cutouts.catalog["status"])
        for one, other in zip(cutouts.wcs, again.wcs, strict=True):
            np.testing.assert_array_equal(one.wcs.crpix, other.wcs.crpix)
            np.testing.assert_array_equal(one.wcs.cd, other.wcs.cd)


class TestGalaxyZooDECaLS:
    def test_field(self, shared_data):
        path = shared_data / "gz-decals" / "example_a.fits"
        cutouts = CutoutSet.from_files([path])
        assert cutouts.shape == (1, 3, 509, 509)
        assert (cutouts.unit, cutouts.bands) == (u.nmgy, ("g", "r", "z"))
        assert cutouts.pixel_scale.to_value(u.arcsec) == pytest.approx(0.262)
        assert cutouts.mask is None
        assert_centred_as_astropy_says(cutouts, [path])

    def test_cutouts_of_its_sources(self, shared_data):
        field = CutoutSet.from_files([shared_data / "gz-decals" / "example_a.fits"])[0]
        image = field.data[1]
        inner = image[40:-40, 40:-40]
        y, x = np.unravel_index(np.argmax(inner), inner.shape)
        sky = field.wcs.pixel_to_world(x + 40, y + 40)
        cutouts = extract_cutouts(field, sky, 33)
        assert cutouts.bands == ("g", "r", "z")
        assert cutouts.good.all()
        assert np.argmax(cutouts.data[0, 1]) == 16 * 33 + 16
        assert cutouts.catalog["coverage"][0] == 1
        edge = extract_cutouts(field, field.wcs.pixel_to_world([0, 600], [10, 600]), 64)
        assert list(edge.catalog["status"]) == ["ok", "outside the image"]
        assert 0.2 < edge.catalog["coverage"][0] < 0.5


class TestHST:
    def files(self, shared_data):
        folder = shared_data / "hst-abell2744"
        return {
            name: folder / f"abell_2744_{name}_galaxy_f105w.fits.gz"
            for name in ("cd", "dwarf", "spiral")
        }

    @pytest.mark.parametrize(
        ("name", "size", "bands"),
        [("cd", 400, ("F105W",)), ("dwarf", 200, ("F105W",)), ("spiral", 150, ("band0",))],
    )
    def test_cluster_galaxies(self, shared_data, name, size, bands):
        path = self.files(shared_data)[name]
        cutouts = CutoutSet.from_files([path])
        assert cutouts.shape == (1, 1, size, size)
        assert cutouts.unit == u.electron / u.s  # also where BUNIT is ELECTRONS/S
        assert cutouts.bands == bands
        assert cutouts.pixel_scale.to_value(u.arcsec) == pytest.approx(0.06, rel=1e-5)
        assert_centred_as_astropy_says(cutouts, [path])
        np.testing.assert_array_equal(cutouts.data[0, 0], fits.getdata(path).astype(np.float32))

    def test_calibrated_by_the_header_of_the_camera(self, shared_data):
        path = self.files(shared_data)["dwarf"]
        header = fits.getheader(path)
        cutouts = CutoutSet.from_files([path], unit=header["PHOTFNU"] * u.Jy)
        assert cutouts.unit == u.nmgy
        total = cutouts.data.sum() * u.nmgy
        zero_point = -2.5 * np.log10(header["PHOTFNU"] / 3631)
        expected = zero_point - 2.5 * np.log10(fits.getdata(path).sum(dtype=float))
        assert total.to(u.ABmag, u.zero_point_flux(1 * u.AB)).value == pytest.approx(
            expected, abs=1e-3
        )

    def test_three_sizes_on_one_grid(self, shared_data):
        paths = list(self.files(shared_data).values())
        with pytest.raises(CutoutMismatchError, match="400 × 400 in rows 0; 200 × 200 in rows 1"):
            CutoutSet.from_files(paths)
        with pytest.raises(CutoutMismatchError, match="F105W in rows 0, 1; band0 in rows 2"):
            CutoutSet.from_files(paths, resize=128, pixel_scale=0.06 * u.arcsec)
        cutouts = CutoutSet.from_files(
            paths, bands=["F105W"], resize=128, pixel_scale=0.06 * u.arcsec
        )
        assert cutouts.good.all()
        assert cutouts.mask is None
        np.testing.assert_array_equal(cutouts.data[1, 0], fits.getdata(paths[1])[36:164, 36:164])

    def test_noise_map_comes_through_nddata(self, shared_data):
        folder = shared_data / "hst-abell2744"
        rms = fits.getdata(folder / "abell_2744_dwarf_galaxy_f105w_rms.fits.gz").astype(float)
        image, header = fits.getdata(self.files(shared_data)["dwarf"], header=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            item = NDData(
                image,
                unit=u.electron / u.s,
                uncertainty=StdDevUncertainty(rms),
                wcs=WCS(header),
                meta=dict(header),
            )
        cutouts = CutoutSet.from_nddata([item])
        assert cutouts.bands == ("F105W",)
        np.testing.assert_allclose(cutouts.ivar[0, 0], rms**-2, rtol=1e-5)

    def test_psf_image(self, shared_data):
        cutouts = CutoutSet.from_files([shared_data / "hst-abell2744" / "f105w_psf.fits.gz"])
        assert cutouts.shape == (1, 1, 50, 50)
        assert cutouts.unit == u.dimensionless_unscaled


class TestHSC:
    @pytest.mark.parametrize("name", ["Cut_HSC", "Cut_HSC1"])
    def test_five_bands(self, shared_data, name):
        path = shared_data / "hsc-cosmos" / "test_resampling" / f"{name}.fits"
        cutouts = CutoutSet.from_files([path], bands="grizy")
        assert cutouts.shape == (1, 5, 50, 50)
        assert cutouts.bands == tuple("grizy")
        assert CutoutSet.from_files([path]).bands == ("band0", "band1", "band2", "band3", "band4")
        assert cutouts.unit == u.dimensionless_unscaled  # the file does not say
        assert cutouts.pixel_scale.to_value(u.arcsec) == pytest.approx(0.168, rel=1e-5)
        assert_centred_as_astropy_says(cutouts, [path])
        calibrated = CutoutSet.from_files([path], bands="grizy", unit=27 * u.ABmag)
        assert calibrated.unit == u.nmgy
        np.testing.assert_allclose(calibrated.data, cutouts.data * 10**-1.8, rtol=1e-5)

    @pytest.mark.parametrize("name", ["Cut_HST", "Cut_HST1"])
    def test_hubble_of_the_same_sky(self, shared_data, name):
        folder = shared_data / "hsc-cosmos" / "test_resampling"
        path = folder / f"{name}.fits"
        cutouts = CutoutSet.from_files([path], bands=["F814W"])
        assert cutouts.bands == ("F814W",)
        assert cutouts.pixel_scale.to_value(u.arcsec) == pytest.approx(0.03, rel=1e-4)
        assert_centred_as_astropy_says(cutouts, [path])
        # to the ground's pixels, the flux stays
        coarse = CutoutSet.from_files([path], bands=["F814W"], pixel_scale=0.168 * u.arcsec)
        inner = cutouts.data[0, 0, 2:-2, 2:-2]
        assert coarse.data.sum() == pytest.approx(inner.sum(), rel=0.05)

    def test_psf_images(self, shared_data):
        folder = shared_data / "hsc-cosmos" / "test_resampling"
        hsc = CutoutSet.from_files([folder / "PSF_HSC.fits"], bands="grizy")
        assert hsc.wcs is None
        assert hsc.good.all()
        hst = CutoutSet.from_files([folder / "PSF_HST.fits"])
        assert hst.good.all()

    @pytest.mark.parametrize("name", ["hsc_cosmos", "hsc_cosmos_35"])
    def test_scenes_through_nddata(self, shared_data, name):
        path = shared_data / "hsc-cosmos" / f"{name}.npz"
        with np.load(path, allow_pickle=False) as scene:
            images, bands = scene["images"], "".join(scene["filters"])
            variance = scene["variance"] if "variance" in scene.files else None
            flagged = scene["mask"] != 0 if "mask" in scene.files else None
        item = NDData(
            images,
            mask=flagged,
            uncertainty=None if variance is None else VarianceUncertainty(variance),
        )
        cutouts = CutoutSet.from_nddata([item], bands=bands, pixel_scale=0.168 * u.arcsec)
        assert cutouts.bands == tuple("grizy")
        assert cutouts.pixel_scale == 0.168 * u.arcsec
        assert cutouts.size == images.shape[1:]
        if variance is not None and cutouts.good.all():
            use = ~cutouts.mask[0]
            np.testing.assert_allclose(cutouts.ivar[0][use], 1 / variance[use], rtol=1e-5)


class TestOthers:
    def test_tpv_distortion_of_decam(self, shared_data):
        paths = sorted((shared_data / "decam-legacy" / "DECam_cuts").glob("*_gband.fits"))
        cutouts = CutoutSet.from_files(paths, bands="g")
        assert len(cutouts) == 5
        assert cutouts.pixel_scale.to_value(u.arcsec) == pytest.approx(0.2623, rel=1e-3)
        assert_centred_as_astropy_says(cutouts, paths)

    def test_many_images_in_one_file_are_no_cutout(self, shared_data):
        path = shared_data / "hst-cosmos" / "real_galaxy_images_extension.fits"
        with pytest.raises(ValueError, match="100 images in one file, and none is named SCI"):
            CutoutSet.from_files([path])

    def test_scaled_integers_without_coordinates(self, shared_data):
        path = shared_data / "ntt-field" / "image.fits"
        cutouts = CutoutSet.from_files([path])
        assert cutouts.wcs is None
        assert cutouts.pixel_scale is None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = fits.getdata(path, memmap=False)
        np.testing.assert_allclose(cutouts.data[0, 0], expected, rtol=1e-6)

    def test_jwst(self, shared_data):
        paths = sorted((shared_data / "jwst-ceers" / "f115w").glob("*.fits"))[:10]
        cutouts = CutoutSet.from_files(paths, bands=["F115W"])
        assert cutouts.pixel_scale.to_value(u.arcsec) == pytest.approx(0.03, rel=1e-4)
        assert_centred_as_astropy_says(cutouts, paths)

    def test_maggies_of_two_surveys(self, shared_data):
        folder = shared_data / "kids-sdss-pairs"
        for survey in ("KiDS", "SDSS"):
            path = folder / survey / "G266035fitim.fits"
            cutouts = CutoutSet.from_files([path], unit=u.mgy, bands="r")
            assert cutouts.unit == u.nmgy
            np.testing.assert_allclose(
                cutouts.data[0, 0], fits.getdata(path).astype(float) * 1e9, rtol=1e-5
            )

    def test_colour_stamps_with_their_votes(self, shared_data):
        labels = Table.read(shared_data / "gz2-votes" / "labels.csv")[:20]
        paths = [
            shared_data / "gz2-votes" / "images" / f"{name}.jpg" for name in labels["asset_id"]
        ]
        cutouts = CutoutSet.from_files(paths, catalog=labels, ids=labels["asset_id"])
        assert cutouts.shape == (20, 3, 224, 224)
        assert cutouts.bands == ("red", "green", "blue")
        assert cutouts.unit == u.dimensionless_unscaled
        assert cutouts.good.all()
        assert 0 <= cutouts.data.min() < 0.1
        assert 0.3 < cutouts.data.max() <= 1
        assert list(cutouts.catalog["id"]) == list(labels["asset_id"])
        assert "derived_label" in cutouts.catalog.colnames
