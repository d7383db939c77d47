import astropy.units as u
import numpy as np
import pytest

from astro_morphvae.units import flux_scale, magnitudes_to_flux, parse_unit


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("nanomaggy", u.nmgy),
        ("nanomaggies", u.nmgy),
        ("maggies", u.mgy),
        ("ELECTRONS/S", u.electron / u.s),
        ("electron / s", u.electron / u.s),
        ("counts/sec", u.ct / u.s),
        ("DN/s", u.adu / u.s),
        ("MJy/sr", u.MJy / u.sr),
        ("nmgy/pixel", u.nmgy),
        ("uJy", u.uJy),
        (u.Jy, u.Jy),
    ],
)
def test_units_as_headers_spell_them(text, unit):
    assert parse_unit(text) == unit


@pytest.mark.parametrize("text", ["", "   ", None, "parsnips"])
def test_text_that_is_no_unit(text):
    assert parse_unit(text) is None


def test_a_magnitude_of_22_5_is_one_nanomaggy():
    assert flux_scale(22.5 * u.ABmag) == pytest.approx(1, rel=1e-12)
    assert flux_scale(u.mgy) == pytest.approx(1e9)
    # 1 maggy is 3631 Jy, to the rounding of that figure
    assert flux_scale(3.631 * u.uJy) == pytest.approx(1, rel=1e-4)


def test_surface_brightness_needs_a_pixel_scale():
    scale = flux_scale(u.MJy / u.sr, pixel_scale=1 * u.arcsec)
    expected = 1e6 * (np.pi / 180 / 3600) ** 2 / 3.631e-6
    assert scale == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="pixel_scale"):
        flux_scale(u.MJy / u.sr)


@pytest.mark.parametrize("unit", [u.adu, u.electron / u.s, u.dimensionless_unscaled])
def test_units_that_are_no_flux_are_kept(unit):
    assert flux_scale(unit) is None


@pytest.mark.parametrize("unit", [0 * u.Jy, -1 * u.nmgy, np.nan * u.Jy, [1, 2] * u.Jy])
def test_a_data_unit_has_one_positive_flux(unit):
    with pytest.raises(ValueError, match="unit"):
        flux_scale(unit)


def test_magnitudes_and_their_errors():
    flux, sigma = magnitudes_to_flux(np.array([22.5, 20.0, np.nan]), u.ABmag, np.full(3, 0.01))
    np.testing.assert_allclose(flux[:2], [1, 10], rtol=1e-12)
    np.testing.assert_allclose(sigma[:2], flux[:2] * 0.00921034, rtol=1e-6)
    assert np.isnan(flux[2])


def test_magnitudes_without_flux_are_refused():
    with pytest.raises(ValueError, match="magnitude"):
        magnitudes_to_flux(np.zeros(2), u.mag(u.ct / u.s))
