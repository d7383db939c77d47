"""`LatentModel`: tables of latents, streams, files, and what it refuses."""

import copy
import json
import zipfile

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance
from astropy.table import QTable

from astro_morphvae import VAE, CutoutSet, LatentModel
from astro_morphvae.exceptions import CutoutMismatchError

SIZE = 64
PROVENANCE = {"bands": ["g", "r", "z"], "unit": "nmgy", "pixel_scale": 0.262, "size": [SIZE, SIZE]}


def make_data(n=9, n_bands=3, size=SIZE):
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] - size / 2
    radius = generator.uniform(2, 6, (n, n_bands, 1, 1))
    data = np.exp(-np.hypot(x, y) / radius) + generator.normal(0, 0.02, (n, n_bands, size, size))
    return data.astype(np.float32)


def make_cutouts(data=None, **kwargs):
    options = {"unit": u.nmgy, "bands": "grz", "pixel_scale": 0.262 * u.arcsec} | kwargs
    return CutoutSet(make_data() if data is None else data, **options)


@pytest.fixture(scope="module")
def cutouts():
    data = make_data()
    data[3] = np.nan
    data[5, 1, 10, 10] = np.inf
    catalog = QTable({"id": np.arange(9) + 100, "ra": np.arange(9.0) * u.deg})
    catalog["dec"] = np.full(9, 10.0) * u.deg
    return make_cutouts(data, catalog=catalog)


@pytest.fixture(scope="module")
def model():
    network = VAE(6, image_size=SIZE, architecture="xu2023", softening=0.05, seed=1)
    return LatentModel(network, provenance=PROVENANCE, fit_info={"history": {"loss": [2.0, 1.0]}})


@pytest.fixture(scope="module")
def latents(model, cutouts):
    return model.encode(cutouts)


class TestEncode:
    def test_rows_are_those_of_the_input(self, latents, cutouts):
        assert latents.colnames == ["id", "ra", "dec", "z_mean", "z_std", "status"]
        assert latents["id"].tolist() == list(range(100, 109))
        assert latents["ra"].unit == u.deg
        assert latents["z_mean"].shape == latents["z_std"].shape == (9, 6)
        assert latents["status"].tolist() == list(cutouts.catalog["status"])

    def test_a_bad_row_has_no_latents_and_a_status(self, latents):
        finite = np.isfinite(latents["z_mean"]).all(axis=1)
        assert np.flatnonzero(~finite).tolist() == [3]
        assert np.isnan(latents["z_std"][3]).all()
        assert latents["status"][3] != "ok"
        assert np.all(latents["z_std"][finite] > 0)

    def test_meta_says_what_made_it(self, latents, model, tmp_path):
        assert latents.meta["model"] == model.hash
        assert latents.meta["bands"] == ["g", "r", "z"]
        assert latents.meta["unit"] == "nmgy"
        assert latents.meta["pixel_scale"] == 0.262
        assert "torch" in latents.meta["versions"]
        latents.write(tmp_path / "latents.ecsv")
        again = QTable.read(tmp_path / "latents.ecsv")
        assert again.meta["model"] == model.hash
        np.testing.assert_allclose(again["z_mean"], latents["z_mean"])

    @pytest.mark.parametrize("batch_size", [1, 4, 100])
    def test_batches_do_not_matter(self, model, cutouts, latents, batch_size):
        table = model.encode(cutouts, batch_size=batch_size)
        np.testing.assert_allclose(table["z_mean"], latents["z_mean"], rtol=1e-4, atol=1e-5)

    def test_same_call_same_bits(self, model, cutouts, latents):
        np.testing.assert_array_equal(model.encode(cutouts)["z_mean"], latents["z_mean"])

    def test_bfloat16_is_close(self, model, cutouts, latents):
        table = model.encode(cutouts, precision="bfloat16")
        scale = np.nanstd(latents["z_mean"])
        assert np.nanmax(np.abs(table["z_mean"] - latents["z_mean"])) < 0.2 * scale
        assert table.meta["precision"] == "bfloat16"

    def test_mean_over_symmetries(self, model):
        data = make_data(3)
        average = model.encode(make_cutouts(data), augment="d4")
        turned = [
            np.rot90(image, turns, axes=(-2, -1))
            for image in (data, data[..., ::-1])
            for turns in range(4)
        ]
        tables = [model.encode(make_cutouts(np.ascontiguousarray(image))) for image in turned]
        means = np.stack([table["z_mean"] for table in tables])
        variances = np.stack([table["z_std"] for table in tables]) ** 2
        np.testing.assert_allclose(average["z_mean"], means.mean(axis=0), rtol=1e-3, atol=1e-5)
        mixture = variances.mean(axis=0) + means.var(axis=0)
        np.testing.assert_allclose(average["z_std"], mixture**0.5, rtol=1e-4)

    def test_masked_pixels_are_not_seen(self, model):
        data, mask = make_data(3), np.zeros((3, 3, SIZE, SIZE), dtype=bool)
        mask[:, :, :20, :20] = True
        wild = data.copy()
        wild[mask] = 1e5
        tables = [model.encode(make_cutouts(pixels, mask=mask)) for pixels in (data, wild)]
        np.testing.assert_array_equal(tables[0]["z_mean"], tables[1]["z_mean"])

    @pytest.mark.parametrize("dtype", [np.float64, ">f4", ">f8"])
    def test_other_types_give_the_same_and_are_not_changed(self, model, cutouts, latents, dtype):
        data = cutouts.data.astype(dtype)
        before = data.copy()
        data.flags.writeable = False
        table = model.encode(make_cutouts(data))
        np.testing.assert_allclose(table["z_mean"], latents["z_mean"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(data, before)

    def test_a_file_is_streamed(self, model, cutouts, latents, tmp_path):
        cutouts.write(tmp_path / "set.fits")
        table = model.encode(tmp_path / "set.fits", batch_size=4)
        np.testing.assert_allclose(table["z_mean"], latents["z_mean"], rtol=1e-4, atol=1e-5)
        assert table["status"].tolist() == latents["status"].tolist()

    def test_cutout_files_with_one_truncated(self, model, tmp_path):
        data, paths = make_data(4), []
        for i, image in enumerate(data):
            header = fits.Header({"BUNIT": "nanomaggy", "BANDS": "grz"})
            header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 32, "CRPIX2": 32})
            header.update({"CRVAL1": 150 + i, "CRVAL2": 2, "CUNIT1": "deg", "CUNIT2": "deg"})
            header.update({"CDELT1": -0.262 / 3600, "CDELT2": 0.262 / 3600})
            paths.append(tmp_path / f"{i}.fits")
            fits.PrimaryHDU(image, header).writeto(paths[-1])
        paths[2].write_bytes(paths[2].read_bytes()[:9000])
        table = model.encode(paths)
        expected = model.encode(make_cutouts(data))
        good = np.array([True, True, False, True])
        np.testing.assert_array_equal(table["status"] == "ok", good)
        np.testing.assert_allclose(
            table["z_mean"][good], expected["z_mean"][good], rtol=1e-4, atol=1e-5
        )
        assert np.isnan(table["z_mean"][2]).all()
        assert table["ra"][1].to_value(u.deg) == pytest.approx(151, abs=0.01)

    def test_a_list_of_nddata(self, model):
        data = make_data(2, 3)
        items = [CCDData(image, unit=u.nmgy, meta={"BANDS": "grz"}) for image in data]
        table = model.encode(items)
        np.testing.assert_allclose(
            table["z_mean"], model.encode(make_cutouts(data))["z_mean"], rtol=1e-5, atol=1e-6
        )

    def test_one_cutout(self, model):
        assert len(model.encode(make_cutouts(make_data(1)))) == 1

    @pytest.mark.parametrize(
        ("kwargs", "match"),
        [
            ({"batch_size": 0}, "batch_size"),
            ({"augment": "d8"}, "augment"),
            ({"precision": "float8"}, "precision"),
            ({"device": "abacus"}, "device"),
        ],
    )
    def test_bad_arguments_are_named(self, model, cutouts, kwargs, match):
        with pytest.raises(ValueError, match=match):
            model.encode(cutouts, **kwargs)


class TestRefusals:
    @pytest.mark.parametrize(
        ("cutouts", "match"),
        [
            (make_cutouts(make_data(2, 2), bands="gr"), "2 band"),
            (make_cutouts(bands="gri"), "bands"),
            (make_cutouts(make_data(2, 3, 128)), "128 × 128"),
            (make_cutouts(unit=u.dimensionless_unscaled), "unit"),
            (make_cutouts(pixel_scale=0.45 * u.arcsec), "pixel scale"),
        ],
    )
    def test_cutouts_unlike_those_of_the_fit(self, model, cutouts, match):
        for function in (model.encode, model.reconstruct):
            with pytest.raises(CutoutMismatchError, match=match):
                function(cutouts)

    def test_empty_set(self, model):
        with pytest.raises(ValueError, match="at least one"):
            model.encode(make_cutouts()[:0])

    def test_bare_arrays(self, model):
        with pytest.raises(TypeError, match="cutouts"):
            model.encode(make_data())

    def test_something_else_than_a_network(self):
        with pytest.raises(TypeError, match="network"):
            LatentModel("network")


class TestBack:
    def test_reconstruct_keeps_what_is_known(self, model, cutouts):
        before = cutouts.data.copy()
        images = model.reconstruct(cutouts, batch_size=4)
        assert images.shape == cutouts.shape
        assert images.unit == cutouts.unit
        assert images.bands == cutouts.bands
        assert images.catalog["id"].tolist() == cutouts.catalog["id"].tolist()
        assert images.good.tolist() == cutouts.good.tolist()
        np.testing.assert_array_equal(cutouts.data, before)

    def test_decode_of_the_table_is_the_reconstruction(self, model, cutouts, latents):
        decoded = model.decode(latents)
        images = model.reconstruct(cutouts)
        good = cutouts.good
        np.testing.assert_allclose(decoded.data[good], images.data[good], rtol=1e-3, atol=1e-6)
        assert decoded.good.tolist() == good.tolist()
        assert decoded.bands == ("g", "r", "z")
        assert decoded.pixel_scale.to_value(u.arcsec) == pytest.approx(0.262)

    def test_decode_refuses_other_lengths(self, model):
        with pytest.raises(ValueError, match="z must have shape"):
            model.decode(np.zeros((2, 5)))

    def test_samples_depend_on_the_seed(self, model):
        a, b, c = (model.sample(2, seed=seed).data for seed in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
        with pytest.raises(ValueError, match="n must be"):
            model.sample(0)


class TestFiles:
    def test_round_trip(self, model, cutouts, latents, tmp_path):
        model.write(tmp_path / "model.keras")
        again = LatentModel.read(tmp_path / "model.keras")
        assert again.hash == model.hash
        assert again.fit_info == model.fit_info
        assert again.provenance == model.provenance
        np.testing.assert_array_equal(again.encode(cutouts)["z_mean"], latents["z_mean"])
        assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]

    def test_deep_copies_are_apart(self, model):
        other = copy.deepcopy(model)
        assert other.hash == model.hash
        weight = other.network.weights[0]
        weight.assign(weight * 2)
        assert other.hash != model.hash

    def test_existing_files_stay_unless_asked(self, model, tmp_path):
        path = tmp_path / "model.keras"
        path.write_text("precious")
        with pytest.raises(FileExistsError, match="overwrite"):
            model.write(path)
        assert path.read_text() == "precious"
        model.write(path, overwrite=True)
        assert LatentModel.read(path).hash == model.hash

    def test_a_failed_write_leaves_nothing(self, model, tmp_path, monkeypatch):
        def fail(*args, **kwargs):
            raise OSError("disk full")

        monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
        with pytest.raises(OSError, match="disk full"):
            model.write(tmp_path / "model.keras")
        assert list(tmp_path.iterdir()) == []

    def test_names_and_folders(self, model, tmp_path):
        with pytest.raises(ValueError, match=r"\.keras"):
            model.write(tmp_path / "model.h5")
        with pytest.raises(FileNotFoundError, match="nowhere"):
            model.write(tmp_path / "nowhere" / "model.keras")

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="missing"):
            LatentModel.read(tmp_path / "missing.keras")

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
    def test_truncated_file(self, model, tmp_path, share):
        path = tmp_path / "model.keras"
        model.write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="truncated, damaged"):
            LatentModel.read(path)

    def test_damaged_file(self, model, tmp_path):
        path = tmp_path / "model.keras"
        model.write(path)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged|truncated"):
            LatentModel.read(path)

    def test_foreign_keras_file(self, model, tmp_path):
        path = tmp_path / "foreign.keras"
        model.network.save(path)
        with pytest.raises(ValueError, match="not written by LatentModel"):
            LatentModel.read(path)

    def test_edited_settings_are_noticed(self, model, tmp_path):
        model.write(tmp_path / "model.keras")
        edited = tmp_path / "edited.keras"
        with (
            zipfile.ZipFile(tmp_path / "model.keras") as source,
            zipfile.ZipFile(edited, "w") as target,
        ):
            for name in source.namelist():
                content = source.read(name)
                if name == "config.json":
                    config = json.loads(content)
                    config["config"]["softening"] = [1.0, 1.0, 1.0]
                    content = json.dumps(config)
                target.writestr(name, content)
        with pytest.raises(ValueError, match="differ"):
            LatentModel.read(edited)


def test_inverse_variance_does_not_change_latents(model):
    data = make_data(2)
    weighted = make_cutouts(data, uncertainty=InverseVariance(np.full(data.shape, 2500.0)))
    np.testing.assert_array_equal(
        model.encode(weighted)["z_mean"], model.encode(make_cutouts(data))["z_mean"]
    )


def test_repr_says_what_it_is(model):
    assert "xu2023, 6 latents, g,r,z, 64 × 64 pixels, fitted" in repr(model)
