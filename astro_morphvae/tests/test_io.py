import gzip
from io import BytesIO

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table
from astropy.wcs import WCS
from PIL import Image

from astro_morphvae import CutoutSet
from astro_morphvae.cutouts._wcs import WCSList
from astro_morphvae.exceptions import CutoutMismatchError, MorphVAEWarning
from astro_morphvae.io import iter_file_batches, read_files
from astro_morphvae.io._fits_bytes import UnusualError, read_planes
from astro_morphvae.tests.cutout_samples import make_wcs, noise


def legacy_header(bands="grz", ra=10.0, dec=20.0, size=16, scale=0.262, **cards):
    header = make_wcs(ra, dec, ((size + 1) / 2,) * 2, scale).to_header()
    header["IMAGETYP"] = "image"
    header["SURVEY"] = "LegacySurvey"
    header["BANDS"] = bands
    for number, band in enumerate(bands):
        header[f"BAND{number}"] = band
    header.update(cards)
    return header


def write_legacy(path, data=None, *, ivar=None, maskbits=None, **kwargs):
    data = noise(3, 16, 16) if data is None else data
    header = legacy_header(size=data.shape[-1], **kwargs)
    hdus = [fits.PrimaryHDU(data, header)]
    for kind, values in (("invvar", ivar), ("maskbits", maskbits)):
        if values is not None:
            hdus.append(fits.ImageHDU(values, fits.Header({"IMAGETYP": kind})))
    fits.HDUList(hdus).writeto(path)
    return data


class TestLegacySurveyLayout:
    def test_image_inverse_variance_and_mask_bits(self, tmp_path):
        ivar = np.full((3, 16, 16), 4, dtype=np.float32)
        ivar[1, 0, 0] = 0
        bits = np.zeros((16, 16), dtype=np.int32)
        bits[2, 2] = 1 << 2  # saturated in g
        bits[3, 3] = 1 << 7  # masked in z
        bits[4, 4] = 1 << 12 | 1 << 1  # a large galaxy, and a bright star: no fault of the pixel
        data = write_legacy(tmp_path / "a.fits", ivar=ivar, maskbits=bits)
        cutouts = CutoutSet.from_files([tmp_path / "a.fits"])
        assert cutouts.unit == u.nmgy
        assert cutouts.bands == ("g", "r", "z")
        assert cutouts.pixel_scale.value == pytest.approx(0.262)
        assert cutouts.catalog["ra"][0].value == pytest.approx(10)
        assert cutouts.catalog["id"][0] == "a"
        expected = np.zeros((3, 16, 16), dtype=bool)
        expected[0, 2, 2] = expected[2, 3, 3] = expected[1, 0, 0] = True
        np.testing.assert_array_equal(cutouts.mask[0], expected)
        np.testing.assert_array_equal(cutouts.data[0], np.where(expected, 0, data))
        np.testing.assert_array_equal(cutouts.ivar[0], np.where(expected, 0, ivar))
        assert cutouts.uncertainty.unit == u.nmgy**-2

    def test_chosen_mask_bits_and_no_uncertainty(self, tmp_path):
        bits = np.zeros((16, 16), dtype=np.int16)
        bits[4, 4] = 1 << 12
        bits[2, 2] = 1 << 2
        write_legacy(tmp_path / "a.fits", ivar=np.ones((3, 16, 16)), maskbits=bits)
        cutouts = read_files([tmp_path / "a.fits"], maskbits=1 << 12, uncertainty=False)
        assert cutouts.mask[0, :, 4, 4].all()
        assert cutouts.mask.sum() == 3
        assert cutouts.uncertainty is None

    def test_pixels_no_exposure_reached(self, tmp_path):
        data = noise(3, 16, 16)
        data[2, 5:] = 0
        write_legacy(tmp_path / "a.fits", data)
        cutouts = read_files([tmp_path / "a.fits"])
        assert cutouts.good.all()
        np.testing.assert_array_equal(cutouts.mask[0], data == 0)

    def test_one_band_is_two_dimensional(self, tmp_path):
        data = write_legacy(tmp_path / "a.fits", noise(16, 16), bands="r")
        cutouts = read_files([tmp_path / "a.fits"])
        assert cutouts.bands == ("r",)
        np.testing.assert_array_equal(cutouts.data[0, 0], data)

    def test_values_per_native_pixel(self, tmp_path):
        data = write_legacy(tmp_path / "a.fits", ivar=np.ones((3, 16, 16)), scale=0.524)
        path = [tmp_path / "a.fits"]
        np.testing.assert_array_equal(read_files(path).data[0], data)
        cutouts = read_files(path, native_pixel_scale=0.262 * u.arcsec)
        np.testing.assert_allclose(cutouts.data[0], 4 * data, rtol=1e-5)
        np.testing.assert_allclose(cutouts.ivar, 1 / 16, rtol=1e-5)

    def test_rows_without_inverse_variance_are_named(self, tmp_path):
        write_legacy(tmp_path / "a.fits", ivar=np.ones((3, 16, 16)))
        write_legacy(tmp_path / "b.fits")
        with pytest.raises(CutoutMismatchError, match="given in rows 0; missing in rows 1"):
            read_files([tmp_path / "a.fits", tmp_path / "b.fits"])
        assert len(read_files(tmp_path, uncertainty=False)) == 2


class TestOtherFITS:
    @pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "i4", "u1", "i8", "u2"])
    def test_number_types(self, tmp_path, dtype):
        data = (noise(2, 8, 8) * 10 + 50).astype(dtype)
        fits.PrimaryHDU(data).writeto(tmp_path / "a.fits")
        cutouts = read_files([tmp_path / "a.fits"])
        np.testing.assert_array_equal(cutouts.data[0], data.astype(np.float32))
        assert cutouts.data.dtype == np.dtype("=f4")

    def test_scaled_integers(self, tmp_path):
        data = noise(8, 8)
        hdu = fits.PrimaryHDU(data.copy())
        hdu.scale("int16", bzero=1.0, bscale=0.001)
        hdu.writeto(tmp_path / "a.fits")
        cutouts = read_files([tmp_path / "a.fits"])
        np.testing.assert_allclose(cutouts.data[0, 0], data, atol=1e-3)

    def test_gzip_and_tile_compression(self, tmp_path):
        data = noise(32, 32)
        header = make_wcs().to_header()
        header["FILTER"] = "r"
        fits.PrimaryHDU(data, header).writeto(tmp_path / "a.fits.gz")
        hdu = fits.CompImageHDU(data, header, compression_type="GZIP_1", quantize_level=0)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "b.fits.fz")
        cutouts = read_files(tmp_path)
        assert list(cutouts.catalog["id"]) == ["a", "b"]
        assert cutouts.bands == ("r",)
        for row in range(2):
            np.testing.assert_array_equal(cutouts.data[row, 0], data)
            assert cutouts.wcs[row].wcs.crval[0] == 10

    def test_image_in_an_extension_inherits_filter_and_unit(self, tmp_path):
        primary = fits.PrimaryHDU(header=fits.Header({"FILTER": "g DECam c0001 4720.0 1520.0"}))
        primary.header["BUNIT"] = "uJy"
        hdus = [primary, fits.ImageHDU(noise(8, 8), name="CON"), fits.ImageHDU(noise(8, 8, seed=1))]
        hdus[2].name = "SCI"
        fits.HDUList(hdus).writeto(tmp_path / "a.fits")
        cutouts = read_files([tmp_path / "a.fits"])
        assert cutouts.bands == ("g",)
        assert cutouts.unit == u.nmgy
        np.testing.assert_allclose(cutouts.data[0, 0], noise(8, 8, seed=1) / 3.6307805, rtol=1e-5)

    @pytest.mark.parametrize(("name", "value"), [("IVAR", 4.0), ("VARIANCE", 0.25), ("ERR", 0.5)])
    def test_uncertainty_extensions(self, tmp_path, name, value):
        extension = fits.ImageHDU(np.full((8, 8), value), name=name)
        fits.HDUList([fits.PrimaryHDU(noise(8, 8)), extension]).writeto(tmp_path / "a.fits")
        np.testing.assert_allclose(read_files([tmp_path / "a.fits"]).ivar, 4)

    def test_files_of_ccddata(self, tmp_path):
        mask = np.zeros((8, 8), dtype=bool)
        mask[1, 2] = True
        ccd = CCDData(
            noise(8, 8), unit="adu", mask=mask, uncertainty=StdDevUncertainty(np.full((8, 8), 0.5))
        )
        ccd.wcs = make_wcs()
        ccd.write(tmp_path / "a.fits")
        cutouts = read_files([tmp_path / "a.fits"])
        assert cutouts.unit == u.adu
        assert cutouts.mask.sum() == 1
        assert cutouts.mask[0, 0, 1, 2]
        assert cutouts.ivar[0, 0, 0, 0] == pytest.approx(4)

    def test_unit_argument_wins(self, tmp_path):
        fits.PrimaryHDU(np.full((8, 8), 2.0), fits.Header({"BUNIT": "ELECTRONS/S"})).writeto(
            tmp_path / "a.fits"
        )
        path = [tmp_path / "a.fits"]
        assert read_files(path).unit == u.electron / u.s
        np.testing.assert_allclose(read_files(path, unit=25 * u.ABmag).data, 0.2, rtol=1e-6)
        with pytest.raises(ValueError, match="unit"):
            read_files(path, unit=2 * u.adu)

    @pytest.mark.parametrize(
        "kind", ["tan", "pc", "tpv", "fk5", "galactic", "third axis", "swapped"]
    )
    def test_coordinates_are_those_of_astropy(self, tmp_path, kind):
        wcs = make_wcs(
            359.99, -45, (-20.3, 50.9), rotation=0.4, form="pc" if kind == "pc" else "cd"
        )
        header = wcs.to_header()
        if kind == "tan":
            for key in ("PC1_1", "PC1_2", "PC2_1", "PC2_2"):
                header.rename_keyword(key, key.replace("PC", "CD"))
            del header["CDELT*"], header["RADESYS"], header["LONPOLE"], header["LATPOLE"]
        if kind == "tpv":
            header.update({"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.01, "PV2_1": 1})
        if kind == "fk5":
            header.update({"RADESYS": "FK5", "EQUINOX": 1975.0})
        if kind == "galactic":
            header.update({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"})
            del header["RADESYS"]
        shape = (9, 14)
        if kind == "third axis":
            header.update({"CTYPE3": "BAND", "CRVAL3": 1, "CRPIX3": 1, "CDELT3": 1, "WCSAXES": 3})
            shape = (2, 9, 14)
        if kind == "swapped":
            swapped = wcs.swapaxes(0, 1)
            header = swapped.to_header()
        hdu = fits.PrimaryHDU(np.ones(shape), header)
        hdu.writeto(tmp_path / "a.fits")
        cutouts = read_files([tmp_path / "a.fits"])
        reference = WCS(hdu.header).celestial
        sky = reference.pixel_to_world(6.5, 4).icrs
        assert cutouts.catalog["ra"][0].value == pytest.approx(sky.ra.deg, abs=1e-9)
        assert cutouts.catalog["dec"][0].value == pytest.approx(sky.dec.deg, abs=1e-9)
        np.testing.assert_allclose(cutouts.wcs[0].world_to_pixel(sky), [6.5, 4], atol=1e-6)

    def test_invalid_coordinates_are_said_when_used(self, tmp_path):
        write_legacy(tmp_path / "a.fits")
        content = (tmp_path / "a.fits").read_bytes()
        (tmp_path / "a.fits").write_bytes(content.replace(b"LATPOLE", b"PV1_1  "))
        (tmp_path / "b.fits").write_bytes(content.replace(b"CUNIT1  = 'deg'", b"CUNIT1  = 'kgs'"))
        cutouts = read_files([tmp_path / "a.fits", tmp_path / "b.fits"])
        assert cutouts.catalog["status"][1].startswith("unreadable: ")
        cards = cutouts.wcs.cards()[0].replace("RA---TAN", "RA---XYZ")
        with pytest.warns(MorphVAEWarning, match="wcs: that of row 0 is invalid"):
            assert WCSList([cards])[0] is None

    def test_fast_path_leaves_the_unusual_to_astropy(self, tmp_path):
        hdu = fits.PrimaryHDU(noise(8, 8))
        hdu.scale("int16", bscale=0.001)
        hdu.writeto(tmp_path / "a.fits")
        with pytest.raises(UnusualError):
            read_planes((tmp_path / "a.fits").read_bytes())
        planes = read_planes(_plain(noise(3, 4, 5)))
        np.testing.assert_array_equal(planes[0].data, noise(3, 4, 5))


def _plain(data):
    buffer = BytesIO()
    fits.PrimaryHDU(data).writeto(buffer)
    return buffer.getvalue()


class TestColourStamps:
    def picture(self):
        values = np.random.default_rng(0).integers(1, 255, size=(10, 12, 3), dtype=np.uint8)
        values[0, 0] = (255, 0, 128)
        return values

    def test_png_is_exact_with_its_first_row_on_top(self, tmp_path):
        values = self.picture()
        Image.fromarray(values).save(tmp_path / "a.png")
        cutouts = read_files([tmp_path / "a.png"])
        assert cutouts.bands == ("red", "green", "blue")
        assert cutouts.unit == u.dimensionless_unscaled
        assert cutouts.wcs is None
        assert cutouts.pixel_scale is None
        expected = values[::-1].transpose(2, 0, 1) / 255
        np.testing.assert_allclose(cutouts.data[0], expected, rtol=1e-6)
        np.testing.assert_allclose(cutouts.data[0, :, -1, 0], [1, 0, 128 / 255], rtol=1e-6)

    @pytest.mark.parametrize(
        ("mode", "n_band"), [("L", 1), ("RGBA", 3), ("P", 3), ("1", 1), ("LA", 1), ("CMYK", 3)]
    )
    def test_modes(self, tmp_path, mode, n_band):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.fromarray(self.picture()).convert(mode).save(tmp_path / f"a.{suffix}")
        cutouts = read_files([tmp_path / f"a.{suffix}"])
        assert cutouts.shape == (1, n_band, 10, 12)
        assert 0 <= cutouts.data.min() < cutouts.data.max() <= 1

    def test_jpegs_of_several_sizes(self, tmp_path):
        for number, size in enumerate((40, 60)):
            grey = np.full((size, size, 3), 100, dtype=np.uint8)
            Image.fromarray(grey).save(tmp_path / f"{number}.jpg")
        with pytest.raises(CutoutMismatchError, match="40 × 40 in rows 0; 60 × 60 in rows 1"):
            read_files(tmp_path)
        cutouts = read_files(tmp_path, resize=20)
        np.testing.assert_allclose(cutouts.data[0], 4 * 100 / 255, atol=0.02)
        scaled = read_files(tmp_path, pixel_scale=0.4 * u.arcsec, resize=40)
        assert scaled.pixel_scale == 0.4 * u.arcsec
        assert scaled.mask is None


class TestBadFiles:
    @pytest.fixture
    def folder(self, tmp_path):
        write_legacy(tmp_path / "good.fits")
        whole = (tmp_path / "good.fits").read_bytes()
        (tmp_path / "truncated.fits").write_bytes(whole[:4000])
        (tmp_path / "header.fits").write_bytes(whole[:1000])
        (tmp_path / "empty.fits").write_bytes(b"")
        (tmp_path / "page.fits").write_bytes(b"<html>no such layer</html>")
        (tmp_path / "packed.fits").write_bytes(gzip.compress(whole)[:500])
        write_legacy(tmp_path / "nan.fits", np.full((3, 16, 16), np.nan, dtype=np.float32))
        data = noise(3, 16, 16)
        data[1] = 0
        write_legacy(tmp_path / "blank.fits", data)
        Table({"a": [1]}).write(tmp_path / "table.fits")
        stamp = BytesIO()
        pixels = np.random.default_rng(0).integers(0, 255, size=(40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(stamp, "png")
        (tmp_path / "half.png").write_bytes(stamp.getvalue()[:800])
        images = [fits.PrimaryHDU(noise(9, 9)), fits.ImageHDU(noise(9, 9))]
        fits.HDUList(images).writeto(tmp_path / "several.fits")
        return tmp_path

    def test_each_is_a_row_with_its_reason(self, folder):
        expected = {
            "truncated.fits": "truncated: ",
            "header.fits": "truncated: ends within a header",
            "good.fits": "ok",
            "empty.fits": "unreadable: empty file",
            "page.fits": "unreadable: neither FITS nor PNG nor JPEG",
            "packed.fits": "unreadable: ",
            "nan.fits": "all NaN",
            "blank.fits": "blank band: r",
            "table.fits": "unreadable: no image in the file",
            "half.png": "unreadable: ",
            "several.fits": "unreadable: 2 images in one file",
            "absent.fits": "missing file",
            ".": "unreadable: ",
        }
        cutouts = read_files([*(folder / name for name in expected), None])
        status = dict(zip(expected, cutouts.catalog["status"], strict=False))
        for name, reason in expected.items():
            assert status[name].startswith(reason), name
        assert cutouts.catalog["status"][-1] == "missing file"
        assert list(cutouts.good) == [name == "good.fits" for name in expected] + [False]
        assert np.isnan(cutouts.data[~cutouts.good]).all()
        assert cutouts.mask[~cutouts.good].all()
        assert cutouts.unit == u.nmgy
        # the header of a truncated file still says where it is
        assert cutouts.catalog["ra"][0].value == pytest.approx(10)
        assert np.isnan(cutouts.catalog["ra"][3].value)

    def test_when_nothing_can_be_read(self, folder):
        with pytest.raises(ValueError, match=r"none of the 1 cutouts.*empty file"):
            read_files([folder / "empty.fits"])
        cutouts = read_files([folder / "empty.fits"], bands="grz", resize=16)
        assert cutouts.shape == (1, 3, 16, 16)
        assert not cutouts.good.any()
        lone = read_files([folder / "truncated.fits"])
        assert lone.shape == (1, 3, 16, 16)
        assert lone.bands == ("g", "r", "z")

    @pytest.mark.parametrize(
        ("arguments", "error", "match"),
        [
            ({"paths": []}, ValueError, "paths: no files"),
            ({"paths": [3]}, TypeError, "paths: entry 0 is int"),
            ({"n_workers": 0}, ValueError, "n_workers"),
            ({"resize": 0}, ValueError, "resize"),
            ({"pixel_scale": 0.3}, TypeError, "pixel_scale"),
            ({"native_pixel_scale": 0.3}, TypeError, "native_pixel_scale"),
            ({"maskbits": "all"}, TypeError, "maskbits"),
            ({"ids": ["a", "b"]}, ValueError, "ids"),
            ({"bands": 3}, TypeError, "bands"),
            ({"catalog": {"a": [1, 2]}}, ValueError, "catalog"),
        ],
    )
    def test_wrong_argument_is_named(self, folder, arguments, error, match):
        arguments = {"paths": [folder / "good.fits"], **arguments}
        with pytest.raises(error, match=match):
            read_files(**arguments)

    def test_files_are_left_alone(self, folder):
        path = folder / "good.fits"
        before = path.read_bytes()
        cutouts = read_files([path])
        cutouts.data[:] = 0
        assert path.read_bytes() == before


class TestBatches:
    @pytest.fixture
    def paths(self, tmp_path):
        for number in range(10):
            data = noise(3, 16, 16, seed=number)
            write_legacy(tmp_path / f"{number}.fits", data, ra=10.0 + number)
        paths = [tmp_path / f"{number}.fits" for number in range(10)]
        paths[0] = tmp_path / "absent.fits"
        paths[7].write_bytes(paths[7].read_bytes()[:5000])
        return paths

    @pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 64])
    @pytest.mark.parametrize("prefetch", [0, 2])
    def test_batches_are_the_whole_in_pieces(self, paths, batch_size, prefetch):
        whole = read_files(paths, n_workers=3)
        batches = [
            (batch.data.copy(), list(batch.catalog["id"]), list(batch.catalog["status"]))
            for batch in iter_file_batches(paths, batch_size, prefetch=prefetch)
        ]
        assert max(len(ids) for _, ids, _ in batches) <= batch_size
        np.testing.assert_array_equal(np.concatenate([data for data, _, _ in batches]), whole.data)
        assert [name for _, ids, _ in batches for name in ids] == list(whole.catalog["id"])
        statuses = [status for *_, column in batches for status in column]
        assert statuses == list(whole.catalog["status"])

    def test_a_batch_that_is_kept_is_not_written_over(self, paths):
        kept = list(iter_file_batches(paths, 2))
        whole = read_files(paths)
        for number, batch in enumerate(kept):
            np.testing.assert_array_equal(batch.data, whole.data[2 * number : 2 * number + 2])
        slices = [batch.data[:1] for batch in iter_file_batches(paths, 2)]
        np.testing.assert_array_equal(np.concatenate(slices), whole.data[::2])

    def test_mismatch_names_the_row_of_the_list(self, paths):
        paths[6].unlink()
        write_legacy(paths[6], noise(3, 20, 20))
        with pytest.raises(CutoutMismatchError, match="20 × 20 in rows 6"):
            list(iter_file_batches(paths, 2))

    def test_order_does_not_depend_on_threads(self, paths):
        one, many = read_files(paths, n_workers=1), read_files(paths, n_workers=8)
        np.testing.assert_array_equal(one.data, many.data)
        assert list(one.catalog["id"]) == list(many.catalog["id"])

    def test_same_name_in_two_folders(self, paths, tmp_path):
        (tmp_path / "other").mkdir()
        write_legacy(tmp_path / "other" / "1.fits")
        cutouts = read_files([paths[1], tmp_path / "other" / "1.fits"])
        assert list(cutouts.catalog["id"]) == [str(paths[1]), str(tmp_path / "other" / "1.fits")]

    def test_ids_catalog_and_meta(self, paths):
        cutouts = read_files(
            paths[1:3], ids=[7, 8], catalog=Table({"z": [0.1, 0.2]}), meta={"layer": "ls-dr9"}
        )
        assert list(cutouts.catalog["id"]) == [7, 8]
        assert list(cutouts.catalog["z"]) == [0.1, 0.2]
        assert cutouts.meta == {"layer": "ls-dr9"}

    def test_progress_bar(self, paths, capsys):
        read_files(paths, progress=True)
        assert "10/10" in capsys.readouterr().err
        read_files(paths)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("batch_size", [0, -1, 2.5])
    def test_wrong_batch_size(self, paths, batch_size):
        with pytest.raises(ValueError, match="batch_size"):
            iter_file_batches(paths, batch_size)


def test_extension_of_negative_size_is_a_row_with_a_status(tmp_path):
    hdus = fits.HDUList(
        [fits.PrimaryHDU(np.ones((30, 30), ">f4")), fits.ImageHDU(np.ones((30, 30)))]
    )
    hdus.writeto(tmp_path / "broken.fits")
    content = (tmp_path / "broken.fits").read_bytes()
    one = b"GCOUNT  =                    1"
    assert one in content
    (tmp_path / "broken.fits").write_bytes(content.replace(one, one[:-3] + b"- 1"))
    cutouts = read_files([tmp_path / "broken.fits"], bands="r", resize=30)
    assert "negative size" in cutouts.catalog["status"][0]
