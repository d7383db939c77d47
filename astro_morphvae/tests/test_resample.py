import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astro_morphvae._resample import overlaps, resample

sizes = st.integers(4, 40)
ratios = st.floats(0.3, 3.5, allow_nan=False)
seeds = st.integers(0, 2**32 - 1)


@given(n=sizes, n_out=sizes, seed=seeds)
@settings(max_examples=60, deadline=None)
def test_flux_is_conserved_over_the_whole_field(n, n_out, seed):
    image = np.random.default_rng(seed).normal(1, 1, size=(2, n, n))
    out, _, mask = resample(image, ratio=n / n_out, size=(n_out, n_out))
    assert mask is None
    np.testing.assert_allclose(out.sum(axis=(1, 2)), image.sum(axis=(1, 2)), rtol=2e-5, atol=1e-3)


@given(ratio=ratios, seed=seeds)
@settings(max_examples=60, deadline=None)
def test_flux_of_a_galaxy_inside_is_conserved_at_any_scale(ratio, seed):
    image = np.zeros((1, 48, 48))
    image[0, 16:32, 16:32] = np.random.default_rng(seed).random((16, 16))
    n_out = int(48 / ratio)
    out, _, _ = resample(image, ratio=ratio, size=(n_out, n_out))
    np.testing.assert_allclose(out.sum(), image.sum(), rtol=1e-5)


@given(ratio=ratios)
@settings(max_examples=40, deadline=None)
def test_surface_brightness_is_kept_also_where_pixels_are_partly_bad(ratio):
    image = np.full((1, 32, 32), 3.0)
    mask = np.zeros(image.shape, dtype=bool)
    mask[0, 10, 12] = True
    image[mask] = 1e6
    n_out = int(32 / ratio) + 3  # sticks out of the image
    out, _, bad = resample(image, mask=mask, ratio=ratio, size=(n_out, n_out))
    filled = out != 0
    np.testing.assert_allclose(out[filled], 3 * ratio**2, rtol=1e-4)
    assert bad is not None
    assert bad[~filled].all()


def test_variance_of_sums_and_of_shares():
    ivar = np.full((1, 8, 8), 4.0)
    image = np.ones((1, 8, 8))
    coarse = resample(image, ivar, ratio=2, size=(4, 4))
    np.testing.assert_allclose(coarse[0], 4)
    np.testing.assert_allclose(1 / coarse[1], 4 * 0.25)
    fine = resample(image, ivar, ratio=0.5, size=(16, 16))
    np.testing.assert_allclose(fine[0], 0.25)
    np.testing.assert_allclose(1 / fine[1], 0.25 / 16)


def test_propagated_variance_is_that_of_the_noise():
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 2, size=(4000, 12, 12))
    out, ivar, _ = resample(noise, np.full(noise.shape, 0.25), ratio=1.5, size=(8, 8))
    np.testing.assert_allclose(out.var(axis=0) * ivar[0], 1, atol=0.15)
    assert out.var() * ivar.mean() == pytest.approx(1, abs=0.02)


def test_bad_pixels_spread_to_all_they_touch_and_stay_finite():
    image = np.ones((1, 8, 8))
    image[0, 3, 3] = np.nan
    ivar = np.ones((1, 8, 8))
    ivar[0, 6, 6] = 0
    out, out_ivar, mask = resample(image, ivar, ratio=2, size=(4, 4))
    assert mask.sum() == 1
    assert mask[0, 1, 1]
    assert np.isfinite(out).all()
    assert out[0, 1, 1] == pytest.approx(4)
    assert out_ivar[0, 1, 1] == 0
    assert out_ivar[0, 3, 3] == 0  # nothing was known of one of its pixels
    assert np.count_nonzero(out_ivar) == 14


def test_crop_and_pad_move_nothing():
    image = np.random.default_rng(0).normal(size=(2, 9, 12)).astype(np.float32)
    cropped, _, mask = resample(image, ratio=1, size=(6, 7))
    np.testing.assert_array_equal(cropped, image[:, 1:7, 2:9])
    assert mask is None
    padded, _, mask = resample(image, ratio=1, size=(12, 12))
    np.testing.assert_array_equal(padded[:, 2:11], image)
    assert mask[:, :2].all()
    assert not mask[:, 2:11].any()


def test_position_of_a_source_follows_the_pixels():
    yy, xx = np.mgrid[:60, :60]
    image = np.exp(-((xx - 34.0) ** 2 + (yy - 22.0) ** 2) / 18)[np.newaxis]
    out, _, _ = resample(image, ratio=1.5, size=(40, 40))
    y, x = np.mgrid[:40, :40]
    centre = [(out[0] * axis).sum() / out.sum() for axis in (x, y)]
    np.testing.assert_allclose(centre, [34.5 / 1.5 - 0.5, 22.5 / 1.5 - 0.5], atol=1e-3)


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8"])
def test_input_is_left_alone_in_any_byte_order(dtype):
    image = np.random.default_rng(1).normal(size=(1, 8, 8)).astype(dtype)
    image[0, 0, 0] = np.nan
    image.flags.writeable = False
    before = image.copy()
    out, _, _ = resample(image, ratio=2, size=(4, 4))
    np.testing.assert_array_equal(image, before)
    assert out.dtype == np.float32


@pytest.mark.parametrize("ratio", [0, -1, np.nan, np.inf])
def test_ratio_must_be_positive(ratio):
    with pytest.raises(ValueError, match="ratio"):
        resample(np.ones((4, 4)), ratio=ratio, size=(2, 2))


@given(n=sizes, n_out=sizes, ratio=ratios)
@settings(max_examples=40, deadline=None)
def test_overlaps_add_up_to_what_is_covered(n, n_out, ratio):
    index, length = overlaps(n, n_out, ratio)
    assert index.min() >= 0
    assert index.max() < n
    covered = np.zeros(n)
    np.add.at(covered, index, length)
    assert covered.max() <= 1 + 1e-9
    assert covered.sum() == pytest.approx(min(n, n_out * ratio))
    with pytest.raises(ValueError, match="read-only"):
        length[0] = 3
