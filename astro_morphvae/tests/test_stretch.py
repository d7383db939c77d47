"""The asinh stretch: exact inverse, slope, noise through it, softening from data."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astro_morphvae.networks import AsinhStretch, fit_softening
from astro_morphvae.networks._backend import keras

flux = st.floats(-1e4, 1e4, width=32)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(flux, min_size=4, max_size=4), softening=st.floats(1e-3, 10))
def test_inverse_undoes_the_stretch(values, softening):
    stretch = AsinhStretch([softening])
    x = torch.tensor(values, dtype=torch.float32).reshape(1, 1, 2, 2)
    np.testing.assert_allclose(
        stretch.inverse(stretch(x)).numpy(), x.numpy(), rtol=2e-5, atol=1e-6 * softening
    )


def test_nothing_is_clipped():
    x = torch.tensor([-5.0, -0.5, 0.5, 50.0]).reshape(1, 1, 2, 2)
    np.testing.assert_allclose(
        AsinhStretch([0.5])(x).numpy().ravel(), np.arcsinh(np.array([-10, -1, 1, 100])), rtol=1e-6
    )


def test_each_band_has_its_own_softening():
    y = AsinhStretch([1.0, 2.0])(torch.full((1, 2, 1, 1), 2.0)).numpy().ravel()
    np.testing.assert_allclose(y, np.arcsinh([2.0, 1.0]), rtol=1e-6)


def test_derivative_is_that_of_autograd():
    stretch = AsinhStretch([0.3, 0.7])
    x = torch.linspace(-5, 5, 16).reshape(2, 2, 2, 2).requires_grad_()
    stretch(x).sum().backward()
    np.testing.assert_allclose(stretch.derivative(x.detach()).numpy(), x.grad.numpy(), rtol=1e-5)


def test_inverse_variance_through_the_stretch_matches_monte_carlo():
    generator = np.random.default_rng(1)
    stretch = AsinhStretch([0.2])
    for level in (0.0, 0.3, 5.0):
        x = torch.from_numpy(generator.normal(level, 0.01, (1, 1, 300, 300)).astype(np.float32))
        ivar = torch.full_like(x, 1e4)
        expected = stretch.propagate_inverse_variance(ivar, torch.full_like(x, level)).mean()
        measured = 1 / stretch(x).numpy().astype(float).var()
        assert measured == pytest.approx(float(expected), rel=0.03)


@pytest.mark.parametrize("softening", [[0.0], [-1.0], [np.nan], []])
def test_softening_must_be_positive(softening):
    with pytest.raises(ValueError, match="softening"):
        AsinhStretch(softening)


def test_config_round_trip():
    stretch = AsinhStretch([0.25, 0.5], name="first")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(stretch))
    assert again.get_config() == stretch.get_config()


class TestFitSoftening:
    sigma = np.array([0.01, 0.05])

    def images(self):
        y, x = np.mgrid[-32:32, -32:32]
        galaxy = 2.0 * np.exp(-np.hypot(x, y) / 6)
        noise = np.random.default_rng(0).normal(size=(20, 2, 64, 64))
        return (galaxy + noise * self.sigma[:, None, None]).astype(np.float32)

    def test_finds_the_noise_under_galaxies(self):
        assert fit_softening(self.images(), factor=3) == pytest.approx(3 * self.sigma, rel=0.2)

    def test_takes_the_inverse_variance_where_known(self):
        images = self.images()
        ivar = np.broadcast_to(self.sigma[:, None, None] ** -2.0, images.shape).copy()
        ivar[:, :, :10] = 0
        assert fit_softening(images, ivar, factor=1) == pytest.approx(self.sigma, rel=1e-5)

    def test_survives_bad_pixels_and_noiseless_bands(self):
        images = self.images()
        images[:, 0, ::7] = np.nan
        images[:, 1] = 4.0
        softening = fit_softening(images)
        assert softening[0] == pytest.approx(0.03, rel=0.2)
        assert softening[1] == pytest.approx(4e-3)
        assert np.all(fit_softening(np.zeros((2, 1, 8, 8))) > 0)
