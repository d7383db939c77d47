"""`VAEFitter`: it learns, repeats itself, survives kills, and leaves its inputs alone."""

import copy
import os
import random
import signal
import subprocess
import sys
import time

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import InverseVariance

from astro_morphvae import VAE, CutoutSet, LatentModel, VAEFitter
from astro_morphvae.exceptions import CutoutMismatchError, FitDivergedError
from astro_morphvae.fitting import Constant, Cosine, Cyclical, WarmUp
from astro_morphvae.fitting.checkpoint import read_checkpoint
from astro_morphvae.networks import _backend
from astro_morphvae.tests.test_model import make_cutouts, make_data

SIGMA = 0.02


def new_model(seed=1, **kwargs):
    options = {"architecture": "xu2023", "image_size": 64, "n_bands": 3, "seed": seed} | kwargs
    return LatentModel(VAE(4, **options))


def fitter(**kwargs):
    options = {"epochs": 2, "batch_size": 8, "seed": 3, "progress": False}
    return VAEFitter(**options | kwargs)


def long_fit(checkpoint):
    run = fitter(epochs=12, checkpoint=checkpoint, patience=50, schedule="cosine")
    return run(new_model(), make_cutouts(make_data(40)))


@pytest.fixture(scope="module")
def cutouts():
    data = make_data(20)
    return make_cutouts(data, uncertainty=InverseVariance(np.full(data.shape, SIGMA**-2)))


@pytest.fixture(scope="module")
def fitted(cutouts):
    return fitter()(new_model(), cutouts)


class TestFit:
    def test_gives_a_new_model_and_leaves_the_old_one(self, cutouts):
        model = new_model()
        before, data = model.hash, cutouts.data.copy()
        result = fitter()(model, cutouts)
        assert model.hash == before
        assert not model.is_fitted
        assert result.is_fitted
        assert result.hash != before
        np.testing.assert_array_equal(cutouts.data, data)

    def test_in_place(self, cutouts, fitted):
        model = new_model()
        assert fitter()(model, cutouts, inplace=True) is model
        assert model.hash == fitted.hash
        assert model.fit_info["epochs_run"] == 2

    def test_learns(self, cutouts):
        history = fitter(epochs=8, learning_rate=3e-3)(new_model(), cutouts).fit_info["history"]
        assert history["loss"][-1] < 0.5 * history["loss"][0]
        assert history["val_loss"][-1] < 0.7 * history["val_loss"][0]

    def test_fit_info_and_provenance(self, fitted):
        info = fitted.fit_info
        assert info["epochs_run"] == 2
        assert (info["n_train"], info["n_validation"]) == (18, 2)
        assert info["stopped"] == "completed"
        assert info["settings"]["seed"] == 3
        assert "keras" in info["versions"]
        for name in ("loss", "reconstruction", "kl", "val_loss", "learning_rate", "beta", "time"):
            assert len(info["history"][name]) == 2
            assert np.all(np.isfinite(info["history"][name]))
        assert fitted.provenance["bands"] == ["g", "r", "z"]
        assert fitted.provenance["unit"] == "nmgy"
        assert fitted.provenance["pixel_scale"] == pytest.approx(0.262)

    def test_file_keeps_fit_info(self, fitted, tmp_path):
        fitted.write(tmp_path / "model.keras")
        assert LatentModel.read(tmp_path / "model.keras").fit_info == fitted.fit_info

    def test_softening_comes_from_the_noise_once(self, cutouts, fitted):
        assert fitted.network.softening == pytest.approx([3 * SIGMA] * 3, rel=1e-3)
        noisier = make_cutouts(
            make_data(20) + np.random.default_rng(0).normal(0, 0.5, (20, 3, 64, 64))
        )
        again = fitter(epochs=1)(fitted, noisier)
        assert again.network.softening == fitted.network.softening
        given = fitter(epochs=1)(new_model(softening=0.7), cutouts)
        assert given.network.softening == pytest.approx([0.7] * 3)

    def test_noise_is_learned_without_inverse_variance(self):
        result = fitter()(new_model(), make_cutouts(make_data(20)))
        assert np.all(np.array(result.network.noise) > 0)
        fixed = fitter()(new_model(noise=0.3), make_cutouts(make_data(20)))
        assert fixed.network.noise == pytest.approx([0.3] * 3)

    def test_bad_rows_are_left_out(self, cutouts):
        data = cutouts.data.copy()
        data[4] = np.nan
        data[6, 0, 3, 3] = np.inf
        result = fitter(validation_fraction=0)(new_model(), make_cutouts(data))
        assert result.fit_info["n_train"] == 19
        assert np.isfinite(result.fit_info["history"]["loss"]).all()

    def test_validation_set_given(self, cutouts):
        result = fitter(epochs=1)(new_model(), cutouts, validation=cutouts[:5])
        assert (result.fit_info["n_train"], result.fit_info["n_validation"]) == (20, 5)

    @pytest.mark.parametrize("architecture", ["residual", "default"])
    def test_other_architectures(self, architecture, cutouts):
        result = fitter(epochs=1)(new_model(architecture=architecture), cutouts)
        assert np.isfinite(result.fit_info["history"]["loss"]).all()
        assert np.isfinite(result.encode(cutouts)["z_mean"]).all()

    def test_one_cutout_and_zero_variance(self):
        one = fitter(epochs=1)(new_model(), make_cutouts(make_data(1)))
        assert one.fit_info["n_validation"] == 0
        flat = make_cutouts(np.full((4, 3, 64, 64), 0.5, dtype=np.float32))
        result = fitter(epochs=1)(new_model(), flat)
        assert np.isfinite(result.fit_info["history"]["loss"]).all()

    def test_bfloat16(self, cutouts, fitted):
        result = fitter(precision="bfloat16")(new_model(), cutouts)
        assert result.fit_info["history"]["loss"] == pytest.approx(
            fitted.fit_info["history"]["loss"], rel=0.05
        )
        assert all(weight.value.dtype == torch.float32 for weight in result.network.weights)

    def test_memory_map_gives_what_memory_gives(self, cutouts, fitted, tmp_path):
        cutouts.write(tmp_path / "set.fits")
        assert fitter()(new_model(), tmp_path / "set.fits").hash == fitted.hash


class TestSeeds:
    def test_same_seed_same_weights(self, cutouts, fitted):
        assert fitter()(new_model(), cutouts).hash == fitted.hash
        assert fitter(seed=4)(new_model(), cutouts).hash != fitted.hash

    def test_global_generators_are_untouched(self, cutouts):
        keras = _backend.keras
        keras.utils.set_random_seed(11)
        before = (
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_rng_state().tolist(),
        )
        model = fitter(epochs=1)(new_model(), cutouts)
        model.encode(cutouts)
        model.sample(2)
        copy.deepcopy(model)
        assert before == (
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_rng_state().tolist(),
        )
        drawn = float(keras.random.normal(()))
        keras.utils.set_random_seed(11)
        assert float(keras.random.normal(())) == drawn


class TestStopping:
    def test_patience_keeps_the_best_weights(self, cutouts):
        # So large a step makes the validation loss rise and fall.
        run = fitter(epochs=12, patience=2, learning_rate=0.02, clip_norm=None)
        result = run(new_model(), cutouts)
        info = result.fit_info
        losses = info["history"]["val_loss"]
        assert info["best_epoch"] == int(np.argmin(losses)) + 1
        if info["stopped"] == "early":
            assert info["epochs_run"] == info["best_epoch"] + 2
        shorter = fitter(epochs=12, patience=2, learning_rate=0.02, clip_norm=None)
        assert shorter(new_model(), cutouts).hash == result.hash

    @pytest.mark.filterwarnings("ignore:overflow")
    def test_divergence_leaves_the_last_good_weights(self, cutouts):
        with pytest.raises(FitDivergedError, match="learning_rate") as caught:
            fitter(epochs=20, learning_rate=1e6, clip_norm=None)(new_model(), cutouts)
        model = caught.value.model
        assert model.fit_info["stopped"] == "diverged"
        assert all(torch.isfinite(weight.value).all() for weight in model.network.weights)
        assert np.isfinite(model.network.softening).all()

    def test_clipping_changes_steps(self, cutouts, fitted):
        assert fitter(clip_norm=1e-8)(new_model(), cutouts).hash != fitted.hash


class TestCheckpoint:
    def test_killed_fit_ends_as_an_unbroken_one(self, tmp_path):
        code = """
import sys
from astro_morphvae.tests.test_fitting import long_fit
long_fit(sys.argv[1])
"""
        path = tmp_path / "state"
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert 0 < read_checkpoint(path)[1]["epoch"] < 12
        resumed, unbroken = long_fit(path), long_fit(None)
        assert resumed.hash == unbroken.hash
        for name, values in unbroken.fit_info["history"].items():
            if name != "time":
                assert resumed.fit_info["history"][name] == values

    def test_interrupted_epoch_is_run_again(self, cutouts, tmp_path, monkeypatch):
        from astro_morphvae.fitting import vae

        steps = iter(range(100))
        original = vae.train_step

        def interrupted(*args, **kwargs):
            if next(steps) == 4:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        run = fitter(checkpoint=tmp_path / "state")
        monkeypatch.setattr(vae, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(new_model(), cutouts)
        monkeypatch.undo()
        resumed = run(new_model(), cutouts)
        assert resumed.hash == fitter()(new_model(), cutouts).hash
        assert len(resumed.fit_info["history"]["loss"]) == 2

    def test_finished_fit_is_not_run_again(self, cutouts, tmp_path, fitted):
        run = fitter(checkpoint=tmp_path / "state")
        first = run(new_model(), cutouts)
        again = run(new_model(), cutouts)
        assert first.hash == again.hash == fitted.hash
        assert first.fit_info["history"] == again.fit_info["history"]

    def test_checkpoint_of_another_fit(self, cutouts, tmp_path):
        path = tmp_path / "state"
        fitter(checkpoint=path)(new_model(), cutouts)
        for run, model, data in (
            (fitter(checkpoint=path, learning_rate=2e-3), new_model(), cutouts),
            (fitter(checkpoint=path), new_model(seed=9), cutouts),
            (fitter(checkpoint=path), new_model(), cutouts[:15]),
        ):
            with pytest.raises(ValueError, match="another fit"):
                run(model, data)

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut short"])
    def test_damaged_checkpoint(self, cutouts, tmp_path, content):
        path = tmp_path / "state"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="checkpoint"):
            fitter(checkpoint=path)(new_model(), cutouts)
        assert path.read_bytes() == content


class TestArguments:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("epochs", 0),
            ("batch_size", 2.5),
            ("learning_rate", 0.0),
            ("learning_rate", np.nan),
            ("seed", -1),
            ("precision", "float16"),
            ("validation_fraction", 1.0),
            ("patience", 0),
            ("schedule", "random"),
            ("beta_schedule", 3),
            ("clip_norm", 0),
            ("free_bits", -1.0),
            ("augment", "d8"),
        ],
    )
    def test_bad_arguments_are_named(self, name, value):
        with pytest.raises(ValueError, match=name):
            VAEFitter(**{name: value})

    def test_repr_has_the_arguments(self):
        text = repr(VAEFitter(epochs=7, clip_norm=None))
        assert text.startswith("VAEFitter(epochs=7, batch_size=128")
        assert "clip_norm=None" in text

    def test_data_that_do_not_fit(self, cutouts, fitted):
        with pytest.raises(TypeError, match="model"):
            fitter()(VAE(4, image_size=64), cutouts)
        with pytest.raises(CutoutMismatchError, match="2 band"):
            fitter()(new_model(), make_cutouts(make_data(3, 2), bands="gr"))
        with pytest.raises(CutoutMismatchError, match="128 × 128"):
            fitter()(new_model(), make_cutouts(make_data(3, 3, 128)))
        with pytest.raises(CutoutMismatchError, match="pixel scale"):
            fitter()(fitted, make_cutouts(pixel_scale=0.5 * u.arcsec))
        with pytest.raises(CutoutMismatchError, match="validation"):
            fitter()(new_model(), cutouts, validation=make_cutouts(bands="gri"))
        with pytest.raises(ValueError, match="at least one"):
            fitter()(new_model(), cutouts[:0])
        nothing = CutoutSet(np.full((2, 3, 64, 64), np.nan), unit=u.nmgy, bands="grz")
        with pytest.raises(ValueError, match="ok"):
            fitter()(new_model(), nothing)


class TestSchedules:
    def test_known_values(self):
        assert [WarmUp(0.5)(x) for x in (0, 0.25, 0.5, 1)] == [0, 0.5, 1, 1]
        assert [Cyclical(2, 0.5)(x) for x in (0, 0.125, 0.25, 0.4, 0.5, 1)] == [0, 0.5, 1, 1, 0, 1]
        assert Cosine(warm_up=0.1, last=0.01)(0.1) == pytest.approx(1)
        assert Cosine(warm_up=0.1, last=0.01)(1) == pytest.approx(0.01)
        assert Cosine(warm_up=0.1)(0) > 0
        assert Constant()(0.3) == 1

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda: WarmUp(0), "share"),
            (lambda: Cyclical(0), "n_cycles"),
            (lambda: Cosine(warm_up=1.0), "warm_up"),
        ],
    )
    def test_bad_schedules(self, make, match):
        with pytest.raises(ValueError, match=match):
            make()

    def test_schedules_are_followed(self, cutouts):
        result = fitter(epochs=3, schedule=lambda x: 1 - x, beta_schedule=WarmUp(1.0))(
            new_model(beta=2.0), cutouts
        )
        history = result.fit_info["history"]
        assert np.all(np.diff(history["learning_rate"]) < 0)
        assert np.all(np.diff(history["beta"]) > 0)
        assert history["beta"][-1] < 2
