import astropy.units as u
import numpy as np
import pytest

from astro_morphvae.processing import PSFExModel

from .psf_samples import moffat, psfex_numbers, write_merged_psfex, write_psfex


def linear_basis(size=25):
    """A core that gets weaker along x and a wing that gets stronger along y."""
    core, wing = moffat(size, 3.0), moffat(size, 8.0)
    return np.stack([core + wing, -0.1 * core, 0.5 * wing])


def test_polynomial_of_a_file_of_psfex(tmp_path):
    basis = linear_basis()
    model = PSFExModel.read(write_psfex(tmp_path / "a.psf", basis, psfex_numbers()))
    core, wing = moffat(25, 3.0), moffat(25, 8.0)
    # Positions count from 0 here and from 1 in the file.
    for x, y, expected in [(99, 199, core + wing), (149, 279, 0.9 * core + 1.5 * wing)]:
        image = model.evaluate(x, y)
        np.testing.assert_allclose(image, expected / expected.sum(), rtol=1e-5, atol=1e-8)
    images = model.evaluate([99, 149], [199, 279])
    assert images.shape == (2, 25, 25)
    np.testing.assert_allclose(images[1], image, rtol=1e-12)
    assert "degree 1" in repr(model)


def test_order_of_the_terms(tmp_path):
    basis = np.zeros((6, 5, 5))
    basis[0] = 1
    for term in range(6):
        basis[term, 0, term % 5] += 1 + term // 5
    model = PSFExModel.read(write_psfex(tmp_path / "a.psf", basis, psfex_numbers(2, size=5)))
    x, y = 2.0, 3.0
    image = model.evaluate(99 + 50 * x, 199 + 80 * y)
    raw = image / image[4, 4]
    np.testing.assert_allclose(raw[0], [1 + 1 + 2 * y**2, 1 + x, 1 + x**2, 1 + y, 1 + x * y])


def test_sampling_and_pixel_scale(tmp_path):
    numbers = psfex_numbers(0, sampling=0.5)
    path = write_psfex(
        tmp_path / "a.psf", moffat(61, 7.0)[np.newaxis], numbers | {"PSFAXIS1": 61, "PSFAXIS2": 61}
    )
    model = PSFExModel.read(path, pixel_scale=0.4 * u.arcsec)
    # 7 samples of half a pixel.
    image = model.evaluate(0, 0)
    assert image.shape == (31, 31)
    np.testing.assert_allclose(
        image / image.max(), moffat(31, 3.5) / moffat(31, 3.5).max(), atol=2e-3
    )
    assert model.fwhm(0, 0).to_value(u.arcsec) == pytest.approx(1.4, rel=0.01)
    fine = model.evaluate(0, 0, pixel_scale=0.1 * u.arcsec)
    assert fine.sum() == pytest.approx(1)
    expected = moffat(len(fine), 14.0)
    np.testing.assert_allclose(fine / fine.max(), expected / expected.max(), atol=2e-3)
    unscaled = PSFExModel.read(path)
    assert unscaled.fwhm([0, 1], [0, 1]).unit == u.pix
    with pytest.raises(ValueError, match="that of the CCD is unknown"):
        unscaled.evaluate(0, 0, pixel_scale=0.1 * u.arcsec)


def test_merged_table_has_one_row_a_ccd(tmp_path):
    small, large = linear_basis(15), linear_basis(25)
    path = write_merged_psfex(
        tmp_path / "merged.fits",
        [("N1", small, psfex_numbers(1, size=15)), ("S30", large, psfex_numbers(1, 0.8))],
    )
    with pytest.raises(ValueError, match="ccd: which of N1, S30"):
        PSFExModel.read(path)
    with pytest.raises(ValueError, match="expected one of N1, S30, got 'N4'"):
        PSFExModel.read(path, ccd="N4")
    with pytest.raises(ValueError, match="ccd: 2 of a file of 2"):
        PSFExModel.read(path, ccd=2)
    model = PSFExModel.read(path, ccd="N1")
    assert model.basis.shape == (3, 15, 15)
    expected = small[0] / small[0].sum()
    np.testing.assert_allclose(model.evaluate(99, 199), expected, rtol=1e-5, atol=1e-8)
    assert PSFExModel.read(path, ccd=1).sampling == 0.8


def test_model_that_is_the_same_everywhere(tmp_path):
    numbers = {"POLNAXIS": 0, "PSF_SAMP": 1.0}
    path = write_psfex(tmp_path / "a.psf", moffat(25, 3.0)[np.newaxis], numbers)
    model = PSFExModel.read(path)
    np.testing.assert_array_equal(model.evaluate(0, 0), model.evaluate(1000, 2000))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"POLNAME2": "MAG_AUTO"}, "depends on X_IMAGE, MAG_AUTO"),
        ({"POLDEG1": 3}, "expected 10 finite images for degree 3"),
        ({"PSF_SAMP": 0.0}, "sampling: expected a positive number"),
    ],
)
def test_models_that_cannot_be_used(tmp_path, changes, message):
    path = write_psfex(tmp_path / "a.psf", linear_basis(), psfex_numbers() | changes)
    with pytest.raises(ValueError, match=message):
        PSFExModel.read(path)


def test_files_and_positions_that_cannot_be_used(tmp_path):
    from astropy.io import fits

    empty = tmp_path / "empty.fits"
    fits.PrimaryHDU().writeto(empty)
    with pytest.raises(ValueError, match=r"no PSFEx model, in .*empty\.fits"):
        PSFExModel.read(empty)
    numbers = psfex_numbers()
    del numbers["POLSCAL2"]
    path = write_psfex(tmp_path / "a.psf", linear_basis(), numbers)
    with pytest.raises(ValueError, match="POLSCAL2 is missing for PSF_DATA"):
        PSFExModel.read(path)
    model = PSFExModel.read(write_psfex(path, linear_basis(), psfex_numbers()))
    with pytest.raises(ValueError, match="expected finite positions"):
        model.evaluate(np.nan, 0)


def test_single_and_merged_file_of_one_exposure_agree(shared_data):
    folder = shared_data / "ccd-bok-mosaic" / "mzlsbass2" / "calib"
    single, merged = (
        PSFExModel.read(next((folder / kind).glob("**/ksb_170430*psfex.fits")))
        for kind in ("psfex-single", "psfex")
    )
    np.testing.assert_allclose(single.evaluate(1500, 900), merged.evaluate(1500, 900), atol=1e-7)


def test_every_real_model_has_a_plausible_psf(shared_data):
    scales = {"decam": 0.262, "90prime": 0.454, "mosaic": 0.26}
    found = 0
    for folder in ("ccd-decam", "ccd-bok-mosaic"):
        for path in sorted((shared_data / folder).glob("**/*psfex*/**/*.fits")):
            camera = next(name for name in scales if f"/{name}/" in path.as_posix())
            model = PSFExModel.read(path, pixel_scale=scales[camera] * u.arcsec)
            image = model.evaluate(*model.zero)
            peak = np.array(np.unravel_index(image.argmax(), image.shape))
            assert np.abs(peak - len(image) // 2).max() <= 1
            assert 0.6 < model.fwhm(*model.zero).to_value(u.arcsec) < 2
            found += 1
    assert found == 29
