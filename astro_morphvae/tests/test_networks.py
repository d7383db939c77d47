"""Networks: shapes, parameters, known losses, serialization, determinism."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from astro_morphvae.networks import (
    ARCHITECTURES,
    VAE,
    BlurPool,
    Convolution,
    GroupNormalization,
    PixelConvolution,
    UpsampledTransposedConvolution,
    apply_symmetry,
)
from astro_morphvae.networks._backend import keras
from astro_morphvae.networks.batches import (
    Batch,
    PixelSource,
    iterate_batches,
    read_ahead,
    resolve_device,
)
from astro_morphvae.networks.layers import halve_by_maximum
from astro_morphvae.networks.likelihood import gaussian_divergence, objective

CPU = torch.device("cpu")
SETTINGS = {
    "architecture": "xu2023",
    "image_size": 64,
    "n_bands": 2,
    "beta": 0.5,
    "seed": 3,
    "softening": [0.02, 0.03],
    "noise": [0.2, 0.3],
    "noise_floor": 0.05,
}


def images(n=3, n_bands=2, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn((n, n_bands, size, size), generator=generator)


class TestLayers:
    @pytest.mark.parametrize(("kernel_size", "strides"), [(3, 1), (3, 2), (1, 1), (5, 2)])
    def test_convolution_pads_on_both_sides(self, kernel_size, strides):
        layer = Convolution(2, 4, kernel_size, strides=strides, seed=1)
        x = images()
        expected = functional.conv2d(
            x, layer.kernel.value, layer.bias.value, strides, kernel_size // 2
        )
        torch.testing.assert_close(layer(x), expected)
        assert tuple(layer.compute_output_shape(x.shape)) == tuple(expected.shape)

    @pytest.mark.parametrize("n_out", [1, 3, 5])
    def test_pixel_convolution_is_a_convolution(self, n_out):
        layer = PixelConvolution(8, n_out, seed=1)
        layer.bias.assign(np.arange(n_out))
        x = torch.randn(2, 8, 12, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
        expected = functional.conv2d(x, layer.kernel.value, layer.bias.value, 1, 1)
        torch.testing.assert_close(layer(x), expected)
        gradients = []
        for result in (layer(x), expected):
            gradients.append(
                torch.autograd.grad(
                    result.square().sum(), [x, layer.kernel.value, layer.bias.value]
                )
            )
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

    def test_upsampled_transposed_convolution_is_its_two_steps(self):
        layer = UpsampledTransposedConvolution(4, 6, seed=1)
        layer.bias.assign(np.arange(6))
        x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
        large = functional.interpolate(x, scale_factor=2, mode="nearest")
        weights = layer.kernel.value, layer.bias.value
        expected = functional.conv_transpose2d(large, *weights, 2, 1, 1)
        result = layer(x)
        torch.testing.assert_close(result, expected)
        for ours, theirs in zip(
            torch.autograd.grad(result.square().sum(), [x, *weights]),
            torch.autograd.grad(expected.square().sum(), [x, *weights]),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

    def test_maximum_is_the_same_with_and_without_gradient(self):
        x = images()
        x[0, 0, 5, 5] = torch.nan
        with torch.inference_mode():
            quick = halve_by_maximum(x)
        torch.testing.assert_close(quick, halve_by_maximum(x), equal_nan=True)
        assert quick[0, 0, 2, 2].isnan()

    def test_blur_pool_keeps_a_constant_and_the_symmetries(self):
        pool = BlurPool()
        assert torch.allclose(pool(torch.full((1, 3, 8, 8), 2.5)), torch.tensor(2.5))
        x = images(size=16)
        for index in range(8):
            torch.testing.assert_close(
                pool(apply_symmetry(x, index).contiguous()), apply_symmetry(pool(x), index)
            )

    def test_group_normalization_does_not_depend_on_the_batch(self):
        norm = GroupNormalization(2, groups=2)
        x = images(4)
        torch.testing.assert_close(norm(x)[1:2], norm(x[1:2]))
        assert float(norm(x).detach().mean()) == pytest.approx(0, abs=1e-5)

    def test_symmetries_are_eight_and_distinct(self):
        x = torch.arange(9.0).reshape(3, 3)
        turned = {tuple(apply_symmetry(x, i).flatten().tolist()) for i in range(8)}
        assert len(turned) == 8
        assert torch.equal(apply_symmetry(x, 0), x)


class TestVAE:
    def test_reference_has_the_published_number_of_parameters(self):
        network = VAE(40, architecture="xu2023", image_size=256, n_bands=3)
        assert network.count_params() == 443_507
        assert VAE(40, architecture="xu2023", stretch=None).count_params() == 443_507

    @pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
    @pytest.mark.parametrize(("image_size", "n_bands"), [(64, 1), (128, 4)])
    def test_shapes(self, architecture, image_size, n_bands):
        network = VAE(5, architecture=architecture, image_size=image_size, n_bands=n_bands)
        x = images(2, n_bands, image_size)
        with torch.no_grad():
            z_mean, z_log_var, pose = network.encode(x)
            image = network.decode(z_mean, pose)
            assert network.decode(z_mean).shape == x.shape
        assert z_mean.shape == z_log_var.shape == (2, 5)
        assert image.shape == x.shape
        assert torch.isfinite(image).all()

    def test_weights_depend_on_the_seed_alone(self):
        torch.manual_seed(5)
        a = VAE(4, image_size=64, seed=1)
        torch.manual_seed(6)
        b, c = VAE(4, image_size=64, seed=1), VAE(4, image_size=64, seed=2)
        x = images(n_bands=3)
        with torch.no_grad():
            assert torch.equal(a(x), b(x))
            assert not torch.equal(a(x), c(x))

    @pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
    def test_copy_and_file_keep_everything(self, architecture, tmp_path):
        network = VAE(7, **SETTINGS | {"architecture": architecture})
        for weight in network.weights:
            weight.assign(weight + 0.01)
        network.save(tmp_path / "network.keras")
        read = keras.saving.load_model(tmp_path / "network.keras", safe_mode=True)
        x = images()
        for other in (copy.deepcopy(network), read):
            assert other.get_config() == network.get_config()
            for name, value in SETTINGS.items():
                if name not in ("architecture", "softening", "noise"):
                    assert getattr(other, name) == value
            assert other.softening == pytest.approx(SETTINGS["softening"])
            assert other.noise == pytest.approx(SETTINGS["noise"])
            with torch.no_grad():
                assert torch.equal(other(x), network(x))
            other.weights[0].assign(other.weights[0] * 0)
            assert np.any(np.asarray(network.weights[0].value.detach()) != 0)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("latent_dim", 0),
            ("architecture", "resnet"),
            ("image_size", 65),
            ("image_size", -64),
            ("n_bands", 1.5),
            ("beta", -1),
            ("beta", np.nan),
            ("stretch", "log"),
            ("softening", [0.1, 0.2, 0.3]),
            ("softening", -1),
            ("noise", 0),
            ("noise_floor", -0.1),
        ],
    )
    def test_bad_arguments_are_named(self, name, value):
        with pytest.raises(ValueError, match=name):
            VAE(
                **{"latent_dim": 4, "architecture": "xu2023", "image_size": 64, "n_bands": 2}
                | {name: value}
            )

    def test_objects_do_not_see_each_other(self):
        network = VAE(4, image_size=64, n_bands=2)
        x = images(5)
        with torch.no_grad():
            together, alone = network.encode(x)[0], network.encode(x[2:3])[0]
        torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)


class TestLoss:
    def test_divergence_of_known_gaussians(self):
        mean, log_variance = (
            torch.tensor([[0.0, 1.0, 0.0]]),
            torch.tensor([[0.0, 0.0, np.log(4.0)]]),
        )
        np.testing.assert_allclose(
            gaussian_divergence(mean, log_variance).numpy(),
            [[0.0, 0.5, 0.5 * (4 - 1 - np.log(4))]],
            rtol=1e-6,
        )

    def test_free_bits_are_free_and_beta_weighs(self):
        divergence = torch.tensor([[0.1, 2.0], [0.3, 4.0]])
        zero = torch.zeros(2)
        assert float(objective(zero, divergence, beta=1.0)) == pytest.approx(3.2)
        assert float(objective(zero, divergence, beta=1.0, free_bits=0.5)) == pytest.approx(3.5)
        assert float(objective(zero, divergence, beta=2.0, auxiliary=zero + 1)) == pytest.approx(
            7.4
        )

    def test_chi_square_of_a_known_residual(self):
        network = VAE(3, **SETTINGS | {"stretch": None, "softening": None, "noise_floor": 0.0})
        x = images()
        ivar = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            residual = (x - network(x)).numpy()
            terms = network.loss_terms(x, ivar=ivar, seed=None)
        expected = 0.5 * (residual**2 * ivar.numpy()).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(terms["reconstruction"].numpy(), expected, rtol=1e-4)
        assert float(terms["loss"]) == pytest.approx(
            float((terms["reconstruction"] + 0.5 * terms["kl"]).mean()), rel=1e-5
        )

    def test_fixed_noise_is_a_normalised_gaussian(self):
        network = VAE(3, **SETTINGS | {"stretch": None, "softening": None})
        x = images()
        with torch.no_grad():
            residual = (x - network(x)).numpy()
            terms = network.loss_terms(x, seed=None)
        sigma = np.array([0.2, 0.3])[:, None, None]
        expected = (0.5 * (residual / sigma) ** 2 + np.log(sigma)).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(terms["reconstruction"].numpy(), expected, rtol=1e-4)

    def test_weak_noise_floor_changes_little_and_a_strong_one_caps_the_weight(self):
        x, ivar = images(), torch.full((3, 2, 64, 64), 1e8)
        options = SETTINGS | {"stretch": None, "softening": None}
        terms = {
            floor: VAE(3, **options | {"noise_floor": floor}).loss_terms(x, ivar, seed=None)
            for floor in (0.0, 0.1)
        }
        ratio = terms[0.0]["reconstruction"] / terms[0.1]["reconstruction"]
        np.testing.assert_allclose(ratio.detach().numpy(), 1e8 * 0.1**2, rtol=1e-3)

    @pytest.mark.parametrize("with_ivar", [False, True])
    def test_masked_pixels_weigh_nothing(self, with_ivar):
        network = VAE(3, **SETTINGS)
        x = images()
        ivar = torch.full_like(x, 100.0) if with_ivar else None
        mask = np.zeros(x.shape, dtype=bool)
        mask[:, 0, 10:20] = True
        wild, not_finite = x.clone(), x.clone()
        wild[:, 0, 10:20] = 1e6
        not_finite[:, 0, 10:20] = torch.nan
        found = [
            network.loss_terms(x, ivar, mask),
            network.loss_terms(wild, ivar, mask),
            network.loss_terms(not_finite, ivar),
        ]
        assert torch.isfinite(found[0]["loss"])
        for other in found[1:]:
            assert torch.equal(other["reconstruction"], found[0]["reconstruction"])
        whole = network.loss_terms(x, ivar)
        assert not torch.equal(whole["reconstruction"], found[0]["reconstruction"])

    def test_same_seed_same_draw(self):
        network, x = VAE(3, **SETTINGS), images()
        a, b, c = (network.loss_terms(x, seed=seed)["loss"] for seed in (1, 1, 2))
        assert a == b != c

    def test_noise_is_learned_only_where_it_is_not_given(self):
        x = images()
        free = VAE(3, **SETTINGS | {"noise": None})
        free.clean_loss_terms(x, learn_noise=True)
        with torch.no_grad():
            residual = free.stretch_layer(x) - free.decoder(free.encode(x)[0])
        assert free.noise == pytest.approx(residual.square().mean(dim=(0, 2, 3)).sqrt().tolist())
        fixed = VAE(3, **SETTINGS)
        fixed.clean_loss_terms(x, learn_noise=True)
        assert fixed.noise == pytest.approx(SETTINGS["noise"])

    def test_a_term_of_the_architecture_is_added(self, monkeypatch):
        network, x = VAE(3, image_size=64, n_bands=2), images()
        monkeypatch.setattr(
            type(network.decoder),
            "auxiliary_loss",
            lambda self, description, z: torch.arange(float(len(z))),
        )
        terms = network.loss_terms(x)
        assert terms["auxiliary"].tolist() == [0.0, 1.0, 2.0]
        expected = terms["reconstruction"].mean() + terms["kl"].mean() + 1.0
        torch.testing.assert_close(terms["loss"], expected)


class TestBatches:
    @pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
    @pytest.mark.parametrize("prefetch", [0, 2])
    def test_any_byte_order_and_read_only(self, dtype, prefetch):
        data = np.arange(5 * 2 * 4 * 4, dtype=dtype).reshape(5, 2, 4, 4)
        data.flags.writeable = False
        groups = [slice(0, 2), slice(2, 4), slice(4, 5)]
        batches = list(iterate_batches(PixelSource(data), groups, device=CPU, prefetch=prefetch))
        joined = torch.cat([batch.x for batch in batches]).numpy()
        np.testing.assert_array_equal(joined, data.astype(np.float32))
        assert joined.dtype == np.float32

    def test_bad_pixels_are_zero_and_weigh_nothing(self):
        data = np.ones((2, 1, 2, 2), dtype=np.float32)
        data[0, 0, 0, 0] = np.nan
        mask = np.zeros(data.shape, dtype=bool)
        mask[1, 0, 1, 1] = True
        ivar = np.full(data.shape, 4.0, dtype=np.float32)
        ivar[0, 0, 1, 1] = np.inf
        x, weight, valid = PixelSource(data, ivar, mask).read(slice(None), likelihood=True)
        assert x[0, 0, 0, 0] == x[1, 0, 1, 1] == 0
        assert weight.sum() == 4.0 * 5
        assert valid is None
        _, _, valid = PixelSource(data, None, mask).read(slice(None), likelihood=True)
        assert valid.sum() == 6
        assert np.isnan(data[0, 0, 0, 0])

    def test_memory_map_is_read_again_after_its_pages_were_dropped(self, tmp_path):
        expected = np.random.default_rng(0).normal(size=(40, 1, 32, 32)).astype(">f4")
        expected.tofile(tmp_path / "data")
        data = np.memmap(tmp_path / "data", dtype=">f4", mode="r", shape=expected.shape)
        source = PixelSource(data)
        for _ in range(2):
            x = np.concatenate(
                [source.read(slice(i, i + 8), likelihood=False)[0] for i in range(0, 40, 8)]
            )
            np.testing.assert_array_equal(x, expected)

    def test_symmetries_turn_pixels_and_weights_alike(self):
        x = images(8)
        batch = Batch(slice(0, 8), x, ivar=x + 1)
        turned = batch.turned(np.arange(8))
        for i in range(8):
            assert torch.equal(turned.x[i], apply_symmetry(x[i], i))
        torch.testing.assert_close(turned.ivar, turned.x + 1)

    def test_errors_of_the_reading_thread_arrive(self):
        def items():
            yield 1
            raise OSError("the disk is gone")

        reader = read_ahead(items())
        assert next(reader) == 1
        with pytest.raises(OSError, match="the disk is gone"):
            next(reader)

    def test_unknown_device_is_named(self):
        with pytest.raises(ValueError, match="device"):
            resolve_device("abacus")


@pytest.mark.parametrize("backend", ["jax", "tensorflow", "numpy"])
def test_another_backend_gives_a_clear_error(backend, tmp_path):
    # A stand-in for Keras on another backend, which need not be installed.
    (tmp_path / "keras.py").write_text(
        f"class backend:\n    backend = staticmethod(lambda: {backend!r})\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import astro_morphvae.networks"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "KERAS_BACKEND=torch" in done.stderr
    assert backend in done.stderr
