import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import InverseVariance

from astro_morphvae import CutoutSet
from astro_morphvae.processing import match_depth, match_psf
from astro_morphvae.processing.depth import aperture_correlation, point_source_depth

from .psf_samples import SCALE, moffat, noise, stars


def flat(variance, n=3, size=24, **kwargs):
    """No flux, and one variance a band."""
    shape = (n, len(variance), size, size)
    ivar = np.broadcast_to(1 / np.array(variance)[:, None, None], shape)
    arguments = {
        "unit": u.nmgy,
        "bands": "grz"[: len(variance)],
        "uncertainty": InverseVariance(ivar),
        "pixel_scale": SCALE,
        "psf_fwhm": 4 * SCALE,
        **kwargs,
    }
    return CutoutSet(np.full(shape, 1e-9), **arguments)


def test_depth_is_that_of_flux_measured_with_the_psf():
    rng = np.random.default_rng(0)
    psf = moffat(37, 4.0)
    psf /= psf.sum()
    # The weighted flux of a point source in noise of unit variance.
    fluxes = np.sum(rng.normal(size=(4000, 37, 37)) * psf, axis=(1, 2)) / np.sum(psf**2)
    depth = point_source_depth(flat([1.0, 4.0]))
    assert depth.unit == u.mag
    expected = 22.5 - 2.5 * np.log10(5 * fluxes.std())
    assert depth[0, 0].value == pytest.approx(expected, abs=0.04)
    assert depth[0, 1].value == pytest.approx(depth[0, 0].value - 2.5 * np.log10(2))
    three = point_source_depth(flat([1.0]), n_sigma=3)
    assert three[0, 0].value == pytest.approx(depth[0, 0].value + 2.5 * np.log10(5 / 3))


def test_blur_does_not_feign_depth():
    # White noise loses 20 to 40 % of its variance per pixel, none on larger scales.
    cutouts = noise(2, size=64, fwhm=(4.0,))
    before = point_source_depth(cutouts)[0, 0].value
    matched = match_psf(cutouts, target_fwhm=6 * SCALE)
    after = point_source_depth(matched)[0, 0].value
    naive = CutoutSet(
        matched.data,
        unit=u.nmgy,
        bands="g",
        uncertainty=matched.uncertainty,
        mask=matched.mask,
        pixel_scale=SCALE,
        psf_fwhm=matched.psf_fwhm,
    )
    assert before - 0.4 < after < before
    assert point_source_depth(naive)[0, 0].value > before + 0.5


def test_depth_of_bad_rows_and_of_missing_variances_is_unknown():
    cutouts = flat([1.0, 1.0])
    ivar, data = cutouts.ivar.copy(), cutouts.data.copy()
    ivar[0, 0, :5] = 0
    data[1] = np.nan
    cutouts = CutoutSet(
        data,
        unit=u.nmgy,
        bands="gr",
        uncertainty=InverseVariance(ivar),
        pixel_scale=SCALE,
        psf_fwhm=4 * SCALE,
    )
    depth = point_source_depth(cutouts)
    assert np.isnan(depth[1]).all()
    assert depth[0, 0] == depth[0, 1]


def test_variance_is_that_of_the_target():
    deep, shallow = noise(400, size=20), flat([0.05, 0.04], n=400, size=20)
    matched = match_depth(deep, like=shallow, seed=1)
    np.testing.assert_allclose(matched.ivar, shallow.ivar, rtol=1e-5)
    np.testing.assert_allclose(matched.data.var(axis=(0, 2, 3)), [0.05, 0.04], rtol=0.02)
    np.testing.assert_allclose(matched.catalog["noise_correlation"], 1)
    assert deep.catalog.colnames == noise(1).catalog.colnames
    by_number = match_depth(deep, target_ivar=[20, 25], seed=1)
    np.testing.assert_array_equal(by_number.data, matched.data)


def test_noise_belongs_to_the_galaxy():
    names = ["a", "b", "c", "a"]
    cutouts = flat([0.01, 0.01], n=4, catalog={"id": names})
    matched = match_depth(cutouts, target_ivar=10, seed=5)
    turned = match_depth(cutouts[[2, 1]], target_ivar=10, seed=5)
    np.testing.assert_array_equal(turned.data, matched.data[[2, 1]])
    other = match_depth(cutouts, target_ivar=10, seed=6)
    images = [*matched.data.reshape(8, -1), *other.data.reshape(8, -1)]
    # Rows (those of one id too), bands and seeds all differ.
    assert np.abs(np.corrcoef(images) - np.eye(16)).max() < 0.25


def test_noise_is_not_removed():
    cutouts = flat([0.01, 0.04])
    with pytest.raises(ValueError, match=r"r in rows 0, 1, 2 \(variance 0.04 > 0.02 in row 0\)"):
        match_depth(cutouts, target_ivar=50, seed=1)
    left = match_depth(cutouts, target_ivar=50, seed=1, unreachable="leave")
    np.testing.assert_array_equal(left.data[:, 1], cutouts.data[:, 1])
    np.testing.assert_array_equal(left.ivar[:, 1], cutouts.ivar[:, 1])
    np.testing.assert_allclose(left.ivar[:, 0], 50)


def test_depth_is_matched_in_pixels_and_in_apertures_after_a_blur():
    shallow = noise(400, size=48, fwhm=(6.0,), seed=1)
    deep = noise(400, size=48, fwhm=(4.5,), seed=2)
    shallow = CutoutSet(
        3 * shallow.data, unit=u.nmgy, bands="g", uncertainty=InverseVariance(shallow.ivar / 9)
    )
    blurred = match_psf(deep, target_fwhm=6 * SCALE)
    matched = match_depth(blurred, like=shallow, seed=1)
    inner = (slice(None), 0, slice(12, 36), slice(12, 36))
    ratio = (matched.data[inner] ** 2 * shallow.ivar[inner]).mean()
    assert ratio == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(matched.ivar[inner], shallow.ivar[inner], rtol=1e-4)
    for width in (4, 8, 24):
        blocks = [
            cutouts.data[inner]
            .reshape(400, 24 // width, width, 24 // width, width)
            .sum(axis=(2, 4))
            for cutouts in (matched, shallow)
        ]
        scatter = blocks[0].std() / blocks[1].std()
        assert scatter == pytest.approx(1, abs=0.05 if width < 24 else 0.11)
    # The noise is white now, nearly.
    np.testing.assert_allclose(matched.catalog["noise_correlation"], 1, atol=0.01)


def test_noise_of_large_scales_is_not_removed():
    blurred = match_psf(noise(2, size=48, fwhm=(4.0,)), target_fwhm=6 * SCALE)
    # White noise with more variance per pixel, but less in an aperture.
    goal = 0.1 / np.median(1 / blurred.ivar[blurred.ivar > 0]) * 0.5
    assert goal < np.median(blurred.ivar[blurred.ivar > 0])
    with pytest.raises(ValueError, match=r"g in rows 0, 1 \(variance of sums per pixel"):
        match_depth(blurred, target_ivar=goal, seed=1)


def test_pixels_without_a_variance():
    deep, shallow = flat([0.01], n=1), flat([0.04], n=1)
    ivar = [cutouts.ivar.copy() for cutouts in (deep, shallow)]
    ivar[0][0, 0, 3, 3] = 0  # stays unknown
    ivar[1][0, 0, 5, 5] = 0  # takes the median of the band
    ivar[1][0, 0, 7, 7] = 1000  # was noisier before
    deep, shallow = (
        CutoutSet(cutouts.data, unit=u.nmgy, bands="g", uncertainty=InverseVariance(values))
        for cutouts, values in zip((deep, shallow), ivar, strict=True)
    )
    matched = match_depth(deep, like=shallow, seed=1)
    assert matched.ivar[0, 0, 3, 3] == 0
    assert matched.data[0, 0, 3, 3] == deep.data[0, 0, 3, 3]
    assert matched.ivar[0, 0, 5, 5] == pytest.approx(25)
    assert matched.ivar[0, 0, 7, 7] == pytest.approx(100)


def test_row_that_is_bad_in_the_other_survey_stays():
    deep, shallow = flat([0.01], n=2), flat([0.04], n=2)
    data = shallow.data.copy()
    data[1] = np.nan
    shallow = CutoutSet(data, unit=u.nmgy, bands="g", uncertainty=shallow.uncertainty)
    matched = match_depth(deep, like=shallow, seed=1)
    assert matched.ivar[0, 0, 0, 0] == pytest.approx(25)
    np.testing.assert_array_equal(matched.data[1], deep.data[1])
    np.testing.assert_array_equal(matched.ivar[1], deep.ivar[1])


def test_depth_asked_for_is_reached_also_with_correlated_noise():
    cutouts = match_psf(noise(3, size=64, fwhm=(4.0, 4.0)), target_fwhm=6 * SCALE)
    goal = point_source_depth(cutouts).min() - 0.5 * u.mag
    matched = match_depth(cutouts, target_depth=goal, seed=2)
    np.testing.assert_allclose(point_source_depth(matched).value, goal.value, atol=0.12)
    before, after = (np.asarray(c.catalog["noise_correlation"]) for c in (cutouts, matched))
    assert ((after > 1) & (after < before)).all()


def test_factor_of_an_aperture():
    y, x = np.mgrid[-60:61, -60:61]
    factors = [aperture_correlation(16.0, np.hypot(x, y) < radius) for radius in (1, 3, 9, 60)]
    assert (np.diff(factors) > 0).all()
    assert factors[0] == pytest.approx(1, rel=0.01)
    assert factors[-1] == pytest.approx(16, rel=0.05)
    np.testing.assert_allclose(aperture_correlation([1.0, 1.0], np.ones((3, 4))), 1)
    assert aperture_correlation(0.5, np.ones((5, 5))) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="weights: expected a finite"):
        aperture_correlation(2.0, np.zeros((5, 5)))
    with pytest.raises(ValueError, match="noise_correlation: expected positive"):
        aperture_correlation(-2.0, np.ones((5, 5)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "exactly one of target_ivar, target_depth and like"),
        ({"target_ivar": -1}, ValueError, "target_ivar: expected positive numbers, got -1"),
        ({"target_ivar": [1, 2, 3]}, ValueError, r"target_ivar: expected shape \(\), \(2,\)"),
        ({"target_depth": 23}, TypeError, "target_depth: expected magnitudes"),
        ({"target_depth": np.nan * u.mag}, ValueError, "target_depth: expected finite .*nan mag"),
        ({"like": 3}, TypeError, "like: expected a CutoutSet"),
        ({"like": stars()}, ValueError, "like: it has no uncertainty"),
        ({"like": flat([1.0, 1.0], n=2)}, ValueError, r"like: shape \(2, 2, 24, 24\) for"),
        ({"target_ivar": 1, "seed": -3}, ValueError, "seed: .*-3"),
        ({"target_ivar": 1, "unreachable": "x"}, ValueError, "unreachable: .*'x'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        match_depth(flat([1.0, 1.0]), **{"seed": 1, **arguments})


def test_depth_needs_noise_flux_and_psf():
    with pytest.raises(ValueError, match="no uncertainty"):
        match_depth(stars(), target_ivar=1, seed=1)
    with pytest.raises(ValueError, match="no uncertainty"):
        point_source_depth(stars())
    counts = CutoutSet(
        np.ones((1, 1, 9, 9)),
        unit="electron",
        bands="g",
        uncertainty=InverseVariance(np.ones((1, 1, 9, 9))),
    )
    with pytest.raises(ValueError, match="expected the unit nmgy, got electron"):
        point_source_depth(counts)
    with pytest.raises(ValueError, match=r"n_sigma: .*0"):
        point_source_depth(flat([1.0]), n_sigma=0)
    with pytest.raises(ValueError, match="do not know their psf_fwhm"):
        point_source_depth(flat([1.0], psf_fwhm=None))
