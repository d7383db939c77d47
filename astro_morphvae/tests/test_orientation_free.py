"""The default network: what turning a galaxy may change, and what it may not."""

import copy

import numpy as np
import pytest
import torch

from astro_morphvae import VAE, LatentModel, VAEFitter
from astro_morphvae.datasets import make_galaxies
from astro_morphvae.networks._backend import keras
from astro_morphvae.networks.invariants import Invariants

SYMMETRIES = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]


def turned(x, turns, mirrored):
    return torch.rot90(x.flip(-1) if mirrored else x, turns, (2, 3))


@pytest.fixture(scope="module")
def galaxies():
    return make_galaxies(24, size=64, seed=3)


@pytest.fixture(scope="module")
def network(galaxies):
    fitter = VAEFitter(epochs=2, batch_size=8, validation_fraction=0, seed=1, progress=False)
    return fitter(LatentModel(VAE(6, image_size=64, n_bands=3, seed=2)), galaxies).network


@pytest.fixture(scope="module")
def flux(galaxies):
    return torch.from_numpy(galaxies.arrays(slice(None))[0])


@pytest.mark.parametrize(("turns", "mirrored"), SYMMETRIES)
def test_symmetries_of_the_square_leave_the_latents(network, flux, turns, mirrored):
    with torch.no_grad():
        expected = network.encode(flux)
        result = network.encode(turned(flux, turns, mirrored))
    spread = expected[0].std(dim=0)
    assert float(((result[0] - expected[0]).abs() / spread).max()) < 1e-3
    np.testing.assert_allclose(result[1], expected[1], atol=1e-3)


@pytest.mark.parametrize(("turns", "mirrored"), SYMMETRIES)
def test_reconstruction_turns_with_the_galaxy(network, flux, turns, mirrored):
    with torch.no_grad():
        expected = turned(network(flux), turns, mirrored)
        result = network(turned(flux, turns, mirrored))
    assert float((result - expected).abs().max()) < 0.01 * float(expected.abs().max())


def test_any_angle_moves_latents_less_than_another_galaxy(network, galaxies):
    x = torch.from_numpy(make_galaxies(24, size=64, seed=3, noise=False).data)
    angle = torch.full((len(x),), 0.6)
    zero = torch.zeros_like(angle)
    rows = [torch.cos(angle), torch.sin(angle), zero, -torch.sin(angle), torch.cos(angle), zero]
    grid = torch.nn.functional.affine_grid(
        torch.stack(rows, 1).reshape(-1, 2, 3), list(x.shape), align_corners=False
    )
    oblique = torch.nn.functional.grid_sample(x, grid, align_corners=False, padding_mode="border")
    with torch.no_grad():
        z, z_oblique = network.encode(x)[0], network.encode(oblique)[0]
    moved = (z_oblique - z).norm(dim=1)
    apart = (z[:, None] - z[None]).norm(dim=2).median()
    assert float(moved.median()) < 0.5 * float(apart)


def test_pose_follows_a_known_position_angle():
    line = torch.arange(64) - 31.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    angles = torch.tensor([0.1, 0.9, 1.7, 2.6])
    along = torch.cos(angles)[:, None, None] * x + torch.sin(angles)[:, None, None] * y
    across = -torch.sin(angles)[:, None, None] * x + torch.cos(angles)[:, None, None] * y
    images = torch.exp(-0.5 * ((along / 9) ** 2 + (across / 4) ** 2))[:, None]
    network = VAE(4, image_size=64, n_bands=1, stretch=None)
    _, pose = network.encoder.describe(images)
    measured = torch.atan2(pose[:, 1], pose[:, 0]) % np.pi
    np.testing.assert_allclose(measured, angles, atol=0.01)


def test_fit_learns_the_description(galaxies):
    fitter = VAEFitter(epochs=6, batch_size=8, validation_fraction=0, seed=1, progress=False)
    history = fitter(LatentModel(VAE(6, image_size=64, n_bands=3)), galaxies).fit_info["history"]
    assert history["auxiliary"][-1] < 0.8 * history["auxiliary"][0]
    assert history["reconstruction"][-1] < history["reconstruction"][0]


def test_adapts_once_and_keeps_it(network, flux, tmp_path):
    assert network.is_adapted
    center = network.encoder.center.numpy().copy()
    network.adapt([100 * flux])  # an encoder that knows its data stays as it is
    np.testing.assert_array_equal(network.encoder.center.numpy(), center)
    twin = copy.deepcopy(network)
    path = tmp_path / "model.keras"
    LatentModel(network).write(path)
    stored = LatentModel.read(path).network
    with torch.no_grad():
        for other in (twin, stored):
            assert other.is_adapted
            np.testing.assert_array_equal(other(flux), network(flux))


def test_options_survive_the_configuration():
    options = {"width": 32, "description_noise": 0.2, "image_share": 0.5, "image_width": 8}
    network = VAE(5, image_size=32, n_bands=2, architecture_options=options)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
    config = again.decoder.get_config()
    assert {name: config[name] for name in options} == options
    assert again.encoder.get_config()["width"] == 32
    assert again.count_params() == network.count_params()


@pytest.mark.parametrize("size", [16, 48, 88, 100, 128])
def test_sizes_and_bands(size):
    invariants = Invariants(size, 2)
    description, modes = invariants(torch.rand(3, 2, size, size))
    assert description.shape == (3, sum(invariants.sizes))
    assert torch.isfinite(description).all()
    assert modes.shape[:2] == (3, invariants.n_rings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_share": 2.0}, "image_share must be in"),
        ({"description_noise": 0.0}, "description_noise must be positive"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        VAE(4, image_size=64, n_bands=1, architecture_options=options)


def test_too_small_an_image_is_named():
    with pytest.raises(ValueError, match="image_size must be at least 16, got 8"):
        Invariants(8, 1)
