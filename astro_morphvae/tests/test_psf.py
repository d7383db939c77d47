import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import InverseVariance
from hypothesis import given, settings
from hypothesis import strategies as st

from astro_morphvae.processing import PSFExModel, match_psf, reproject_cutouts
from astro_morphvae.processing._kernels import fit_kernel, photutils_matching
from astro_morphvae.processing._psf_images import measure_fwhm, moffat_image
from astro_morphvae.processing.depth import aperture_correlation
from astro_morphvae.processing.psf import common_fwhm

from .cutout_samples import make_wcs
from .psf_samples import SCALE, moffat, noise, psfex_numbers, stars, write_psfex


def check_star(image, mask, wanted, tolerance=0.01):
    """A matched star, of flux 100, is the target to the tolerance."""
    good = ~mask
    assert good[good.shape[0] // 2, good.shape[1] // 2]
    assert np.abs(image - 100 * wanted)[good].max() < tolerance * 100 * wanted.max()


def test_matched_star_is_the_target():
    cutouts = stars(n=3, fwhm=(5.0, 4.0), catalog={"id": ["a", "b", "c"], "mag": [1, 2, 3]})
    before = cutouts.data.copy()
    matched = match_psf(cutouts, target_fwhm=6 * SCALE)
    for band in range(2):
        check_star(matched.data[1, band], matched.mask[1, band], moffat(65, 6.0))
    np.testing.assert_allclose((matched.psf_fwhm / SCALE).value, 6)
    assert list(matched.catalog["id"]) == ["a", "b", "c"]
    assert list(matched.catalog["mag"]) == [1, 2, 3]
    assert matched.meta == {"layer": "test"}
    assert matched.good.all()
    np.testing.assert_array_equal(cutouts.data, before)


def test_each_band_has_its_target():
    cutouts = stars(fwhm=(5.0, 4.0))
    matched = match_psf(cutouts, target_fwhm=[5.5, 7.0] * SCALE)
    check_star(matched.data[0, 0], matched.mask[0, 0], moffat(65, 5.5))
    check_star(matched.data[0, 1], matched.mask[0, 1], moffat(65, 7.0))


@given(width=st.floats(2.2, 6), ratio=st.floats(1.02, 2), beta=st.floats(2, 5))
@settings(max_examples=25, deadline=None)
def test_kernels_of_moffat_profiles_keep_flux_and_reach_the_target(width, ratio, beta):
    kernel = fit_kernel(moffat_image(width, beta), moffat_image(width * ratio, beta), 0.01)
    assert kernel.array.sum() == pytest.approx(1)
    assert kernel.residual <= 0.01
    assert kernel.gain < 1.1


def test_equal_psf_is_left_alone():
    cutouts = noise(4, fwhm=(4.5, 4.0))
    matched = match_psf(cutouts, target_fwhm=[4.51, 5.5] * SCALE)
    np.testing.assert_array_equal(matched.data[:, 0], cutouts.data[:, 0])
    np.testing.assert_array_equal(matched.ivar[:, 0], cutouts.ivar[:, 0])
    assert not matched.mask[:, 0].any()
    assert (matched.catalog["noise_correlation"][:, 0] == 1).all()
    assert np.abs(matched.data[:, 1] - cutouts.data[:, 1]).max() > 0.05


def test_sharpening_is_refused_with_band_rows_and_widths():
    cutouts = stars(n=3)
    with pytest.raises(ValueError, match=r"wider than the target in g: 1.3\d* > 1.1\d* arcsec in "):
        match_psf(cutouts, target_fwhm=4.5 * SCALE)
    widths = np.array([[4.0, 4.0], [6.0, 4.0], [5.0, 4.0]]) * SCALE
    with pytest.raises(ValueError, match=r"in g: .* in rows 1; take a wider target"):
        match_psf(cutouts, psf=widths, target_fwhm=5.5 * SCALE)
    flagged = match_psf(cutouts, psf=widths, target_fwhm=5.5 * SCALE, unreachable="flag")
    assert list(flagged.good) == [True, False, True]
    assert flagged.catalog["status"][1].startswith("PSF wider than the target in g: 1.57")
    assert np.isnan(flagged.data[1]).all()


def test_rows_have_their_own_widths():
    images = 100 * np.stack([[moffat(65, 4.0)], [moffat(65, 5.0)], [moffat(65, 5.0)]])
    cutouts = type(stars())(images, unit=u.nmgy, bands="r", pixel_scale=SCALE)
    matched = match_psf(
        cutouts, psf=[[4.0], [5.0], [np.nan]] * SCALE, target_fwhm=6 * SCALE, unreachable="flag"
    )
    for row in (0, 1):
        check_star(matched.data[row, 0], matched.mask[row, 0], moffat(65, 6.0))
    assert matched.catalog["status"][2] == "PSF unknown in r"


def elongated(size=41, sharp=4.0, ratio=1.25):
    axis = np.arange(size) - size // 2
    return np.exp(-4 * np.log(2) * ((axis / sharp) ** 2 + (axis[:, None] / sharp / ratio) ** 2))


@pytest.mark.parametrize("oversampling", [1, 3])
def test_images_of_the_psf(oversampling):
    image = elongated(41 * oversampling, 4.0 * oversampling)
    on_grid = elongated(65)
    cutouts = type(stars())(
        100 * np.broadcast_to(on_grid / on_grid.sum(), (2, 1, 65, 65)),
        unit=u.nmgy,
        bands="r",
        pixel_scale=SCALE,
    )
    psf = image if oversampling == 1 else (image[np.newaxis], SCALE / oversampling)
    target = moffat(61, 6.0)
    matched = match_psf(cutouts, psf=psf, target_psf=target)
    check_star(matched.data[0, 0], matched.mask[0, 0], moffat(65, 6.0) / target.sum())
    np.testing.assert_allclose((matched.psf_fwhm / SCALE).value, 6, rtol=0.01)


@pytest.mark.parametrize("ratio", [1.06, 1.25, 1.5])
def test_flux_in_apertures_is_that_of_the_target(ratio):
    cutouts = stars(n=1, fwhm=(4.0,), size=129)
    matched = match_psf(cutouts, target_fwhm=4 * ratio * SCALE)
    y, x = np.mgrid[-64:65, -64:65]
    wanted = 100 * moffat(129, 4 * ratio)
    for radius in (3, 6, 12, 24):
        aperture = np.hypot(x, y) < radius
        flux = matched.data[0, 0][aperture].sum()
        assert flux == pytest.approx(wanted[aperture].sum(), rel=2e-3)


def test_flux_of_a_galaxy_is_kept():
    rng = np.random.default_rng(1)
    image = np.zeros((1, 1, 96, 96))
    image[0, 0, 36:60, 36:60] = rng.random((24, 24))
    cutouts = type(stars())(image, unit=u.nmgy, bands="r", pixel_scale=SCALE, psf_fwhm=4 * SCALE)
    matched = match_psf(cutouts, target_fwhm=5 * SCALE)
    assert matched.data.sum() == pytest.approx(image.sum(), rel=1e-4)


def apertures(matched, radius):
    """Pulls of the flux in an aperture at the centre, all rows and bands."""
    ny, nx = matched.size
    y, x = np.mgrid[:ny, :nx]
    aperture = np.hypot(y - ny // 2, x - nx // 2) < radius
    if matched.mask is not None:
        assert not matched.mask[..., aperture].any()
    correlation = np.asarray(matched.catalog["noise_correlation"])
    factor = aperture_correlation(correlation[0], aperture)
    total = (1 / matched.ivar[..., aperture]).sum(axis=-1) * factor
    return matched.data[..., aperture].sum(axis=-1) / np.sqrt(total)


def pixel_pulls(matched):
    good = matched.ivar > 0
    return (matched.data * np.sqrt(matched.ivar))[good]


def test_noise_is_propagated_per_pixel_and_in_apertures():
    matched = match_psf(noise(300, size=48), target_fwhm=[6.0, 5.5] * SCALE)
    assert pixel_pulls(matched).std() == pytest.approx(1, abs=0.02)
    for radius in (3, 8, 12):
        assert apertures(matched, radius).std() == pytest.approx(1, abs=0.1)  # 3 sigma of 600
    # Without the factor the error of an aperture would be less than half of what it is.
    assert (np.asarray(matched.catalog["noise_correlation"]) > 8).all()


def test_noise_is_propagated_after_reprojection():
    cutouts = noise(200, size=44, wcs=[make_wcs(crpix=(22.5, 22.5))] * 200)
    grid = make_wcs(crpix=(22.9, 22.2), rotation=0.3)
    first = reproject_cutouts(cutouts, target_wcs=grid, size=44)
    matched = match_psf(first, target_fwhm=[6.0, 5.5] * SCALE)
    assert pixel_pulls(matched).std() == pytest.approx(1, abs=0.04)
    assert apertures(matched, 5).std() == pytest.approx(1, abs=0.11)
    assert (matched.catalog["noise_correlation"] > first.catalog["noise_correlation"]).all()


def test_a_bad_pixel_stays_where_it_is():
    cutouts = stars(n=1, fwhm=(4.0,), size=41)
    data = np.full_like(cutouts.data, 3.0)
    data[0, 0, 20, 15] = np.nan
    cutouts = type(cutouts)(
        data,
        unit=u.nmgy,
        bands="g",
        pixel_scale=SCALE,
        psf_fwhm=4 * SCALE,
        uncertainty=InverseVariance(np.ones(data.shape)),
    )
    matched = match_psf(cutouts, target_fwhm=5 * SCALE)
    masked = matched.mask[0, 0]
    assert np.isfinite(matched.data).all()
    assert masked[20, 15]
    assert (matched.data[0, 0][masked] == 0).all()
    assert (matched.ivar[0, 0][masked] == 0).all()
    # What is left of a constant is that constant, beside the bad pixel and along the edges too.
    np.testing.assert_allclose(matched.data[0, 0][~masked], 3, rtol=1e-5)
    assert matched.catalog["coverage"][0] == pytest.approx(1 - masked.mean())
    strict = match_psf(cutouts, target_fwhm=5 * SCALE, max_bad_weight=0)
    reach = np.flatnonzero(strict.mask[0, 0, 20, 1:-1]).size
    assert (strict.mask & ~matched.mask).any()
    assert not (matched.mask & ~strict.mask).any()
    kernel = fit_kernel(moffat_image(4.0, 3.5), moffat_image(5.0, 3.5), 0.01).array
    half = len(kernel) // 2
    assert strict.mask[0, 0, :half].all()
    assert strict.mask[0, 0, 20, 15 - half : 16 + half].all()
    assert reach >= len(kernel)
    # Far from both, nothing is lost.
    assert not strict.mask[0, 0, 20, 16 + half : 41 - half].any()


def test_pixels_of_unknown_variance_stay_unknown():
    cutouts = stars(n=1, fwhm=(4.0,), size=41)
    ivar = np.ones(cutouts.shape)
    ivar[0, 0, 20, 15] = 0
    cutouts = type(cutouts)(
        cutouts.data,
        unit=u.nmgy,
        bands="g",
        pixel_scale=SCALE,
        psf_fwhm=4 * SCALE,
        uncertainty=InverseVariance(ivar),
    )
    matched = match_psf(cutouts, target_fwhm=5 * SCALE)
    assert matched.ivar[0, 0, 20, 15] == 0
    assert matched.ivar[0, 0, 20, 17] == 0
    assert not matched.mask[0, 0, 20, 15]
    assert matched.ivar[0, 0, 20, 26] > 1
    check_star(matched.data[0, 0], matched.mask[0, 0], moffat(41, 5.0))


def test_one_huge_variance_does_not_drown_the_others():
    cutouts = noise(1, size=41)
    ivar = cutouts.ivar.copy()
    ivar[0, 0, 20, 10] = 1e-25
    other = type(cutouts)(
        cutouts.data,
        unit=u.nmgy,
        bands="gr",
        pixel_scale=SCALE,
        psf_fwhm=cutouts.psf_fwhm,
        uncertainty=InverseVariance(ivar),
    )
    one, two = (match_psf(c, target_fwhm=6 * SCALE).ivar[0, 0] for c in (cutouts, other))
    np.testing.assert_allclose(two[20, 25:35], one[20, 25:35], rtol=1e-6)
    assert two[20, 10] == 0


def test_cutouts_need_not_be_square():
    cutouts = stars(n=1)
    narrow = type(cutouts)(
        cutouts.data[..., 10:-10],
        unit=u.nmgy,
        bands="gr",
        pixel_scale=SCALE,
        psf_fwhm=cutouts.psf_fwhm,
    )
    matched = match_psf(narrow, target_fwhm=6 * SCALE)
    for band in range(2):
        check_star(matched.data[0, band], matched.mask[0, band], moffat(65, 6.0)[:, 10:-10])


def test_bad_rows_stay_bad_and_small_cutouts_become_bad():
    cutouts = stars(n=3)
    data = cutouts.data.copy()
    data[1] = np.nan
    cutouts = type(cutouts)(
        data, unit=u.nmgy, bands="gr", pixel_scale=SCALE, psf_fwhm=[5, 4] * SCALE
    )
    matched = match_psf(cutouts, target_fwhm=6 * SCALE)
    assert list(matched.good) == [True, False, True]
    assert matched.catalog["status"][1] == "all NaN"
    assert matched.catalog["coverage"][1] == 0
    small = match_psf(stars(n=1, size=5), target_fwhm=9 * SCALE)
    assert small.catalog["status"][0] == "after PSF matching: no good pixel"
    assert np.isnan(small.data).all()


def test_threads_change_nothing():
    cutouts = noise(6)
    one, two = (match_psf(cutouts, target_fwhm=6 * SCALE, n_jobs=n) for n in (1, 2))
    np.testing.assert_array_equal(one.data, two.data)
    np.testing.assert_array_equal(one.ivar, two.ivar)


def test_windows_of_photutils():
    pytest.importorskip("photutils")
    windows = photutils_matching()
    cutouts = stars()
    matched = match_psf(cutouts, target_fwhm=7.5 * SCALE, window=windows.TukeyWindow(0.4))
    check_star(matched.data[0, 0], matched.mask[0, 0], moffat(65, 7.5))
    with pytest.raises(
        ValueError, match=r"out of reach in g: residual .* of its peak > 0.01 in ro"
    ):
        match_psf(cutouts, target_fwhm=5.5 * SCALE, window=windows.HanningWindow())


REAL = {
    "ccd-decam/**/c4d_150329_083320*-N11-psfex.fits": 0.262,
    "ccd-decam/**/c4d_181214_050844*-psfex.fits": 0.262,
    "ccd-bok-mosaic/**/k4m_160319*-psfex.fits": 0.26,
    "ccd-bok-mosaic/**/decam-5742149339-ccd2.fits": 0.454,
}


def psfex_models(shared_data):
    for pattern, scale in REAL.items():
        (path,) = shared_data.glob(pattern)
        yield PSFExModel.read(path, pixel_scale=scale * u.arcsec)


def test_real_psfex_models_are_matched(shared_data):
    for model in psfex_models(shared_data):
        x, y = (
            zero + scale * np.array([-0.3, 0, 0.3])
            for zero, scale in zip(model.zero, model.scale, strict=True)
        )
        images = model.evaluate(x, y)
        pad = (75 - images.shape[-1]) // 2
        cutouts = type(stars())(
            100 * np.pad(images, ((0, 0), (pad, pad), (pad, pad)))[:, np.newaxis],
            unit=u.nmgy,
            bands="r",
            pixel_scale=model.pixel_scale,
            catalog={"x": x, "y": y},
        )
        wanted = 1.1 * model.fwhm(x, y).max()
        matched = match_psf(cutouts, psf=model, target_fwhm=wanted)
        width = float(wanted / model.pixel_scale)
        target = moffat_image(width, 3.5)
        for row in range(3):
            check_star(
                matched.data[row, 0],
                matched.mask[row, 0],
                moffat(75, width) / moffat(len(target), width).sum(),
            )
            image = np.where(matched.mask[row, 0], 0, matched.data[row, 0])
            assert measure_fwhm(image) == pytest.approx(measure_fwhm(target), rel=0.02)


def test_psfex_models_need_positions(tmp_path):
    basis = np.stack([moffat(25, 4.0), 0 * moffat(25, 4.0), 0 * moffat(25, 4.0)])
    path = write_psfex(tmp_path / "a.psf", basis, psfex_numbers())
    model = PSFExModel.read(path)
    with pytest.raises(ValueError, match=r"columns x and y .* lacks x and y"):
        match_psf(stars(), psf=model, target_fwhm=6 * SCALE)
    with pytest.raises(ValueError, match="one PSFExModel for each of the 2 bands"):
        match_psf(stars(), psf=[model], target_fwhm=6 * SCALE)
    cutouts = stars(fwhm=(4.0, 4.0), catalog={"x": [5.0, np.nan], "y": [5.0, 7.0]})
    with pytest.raises(ValueError, match="PSF unknown in g in rows 1"):
        match_psf(cutouts, psf=[model, model], target_fwhm=6 * SCALE)
    matched = match_psf(cutouts, psf=model, target_fwhm=6 * SCALE, unreachable="flag")
    assert list(matched.good) == [True, False]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "exactly one of target_fwhm and target_psf"),
        ({"target_fwhm": 3.0}, TypeError, "target_fwhm: expected an angle"),
        ({"target_fwhm": [1, 2, 3] * u.arcsec}, ValueError, r"expected one value or 2"),
        ({"target_fwhm": 0 * u.arcsec}, ValueError, "target_fwhm: expected something positive"),
        ({"target_psf": np.ones((4, 4))}, ValueError, "target_psf: .*odd sizes"),
        ({"target_psf": np.full((5, 5), np.nan)}, ValueError, "target_psf: .*finite"),
        ({"target_fwhm": 2 * u.arcsec, "psf": "moffat"}, TypeError, "psf: expected angles, images"),
        ({"target_fwhm": 2 * u.arcsec, "psf": np.ones((3, 5, 5))}, ValueError, "psf: expected ima"),
        ({"target_fwhm": 2 * u.arcsec, "psf": [1, 2, 3] * u.arcsec}, ValueError, "psf: expected w"),
        ({"target_fwhm": 2 * u.arcsec, "beta": 0.9}, ValueError, "beta: .*0.9"),
        ({"target_fwhm": 2 * u.arcsec, "psf_beta": 1}, ValueError, "psf_beta: .*1"),
        ({"target_fwhm": 2 * u.arcsec, "tolerance": 2}, ValueError, "tolerance: .*2"),
        ({"target_fwhm": 2 * u.arcsec, "max_bad_weight": -1}, ValueError, "max_bad_weight: .*-1"),
        ({"target_fwhm": 2 * u.arcsec, "unreachable": "skip"}, ValueError, "unreachable: .*skip"),
        ({"target_fwhm": 2 * u.arcsec, "n_jobs": 0}, ValueError, "n_jobs: .*0"),
        ({"target_fwhm": 2 * u.arcsec, "n_jobs": 1.5}, TypeError, "n_jobs: .*1.5"),
        ({"target_fwhm": 2 * u.arcsec, "psf": 0.3 * u.arcsec}, ValueError, "undersampled in g"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        match_psf(stars(), **arguments)


def test_cutouts_that_do_not_know_enough():
    images = stars().data
    bare = type(stars())(images, unit=u.nmgy, bands="gr")
    with pytest.raises(ValueError, match="no common pixel scale"):
        match_psf(bare, target_fwhm=2 * u.arcsec)
    with pytest.raises(ValueError, match="do not know their psf_fwhm"):
        match_psf(bare, target_psf=moffat(31, 6.0))
    matched = match_psf(
        bare, psf=np.stack([moffat(51, 5.0), moffat(51, 4.0)]), target_psf=moffat(51, 6.0)
    )
    assert matched.good.all()
    assert matched.psf_fwhm is None


def test_common_fwhm():
    first, second = stars(fwhm=(5.0, 4.0)), stars(fwhm=(4.0, 6.0))
    np.testing.assert_allclose(common_fwhm(first, second) / SCALE, [5, 6])
    np.testing.assert_allclose(common_fwhm(first, second, margin=0.1) / SCALE, [5.5, 6.6])
    table = [[5.0, 4.0], [4.0, 7.0], [np.nan, 1]] * SCALE
    np.testing.assert_allclose(common_fwhm(first, table) / SCALE, [5, 7])
    for cutouts in (first, second):
        assert match_psf(cutouts, target_fwhm=common_fwhm(first, second)).good.all()
    with pytest.raises(ValueError, match="bands g, r and g"):
        common_fwhm(first, stars(fwhm=(4.0,)))
    with pytest.raises(ValueError, match="numbers of bands differ: 2, 3"):
        common_fwhm(first, [1, 2, 3] * u.arcsec)
    with pytest.raises(TypeError, match="expected cutouts or angles"):
        common_fwhm(first, 3.0)
    with pytest.raises(ValueError, match=r"margin: .*-1"):
        common_fwhm(first, margin=-1)
