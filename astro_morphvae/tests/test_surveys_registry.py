import dataclasses

import astropy.units as u
import numpy as np
import pytest

from astro_morphvae.datasets import BASS_MZLS, DECALS
from astro_morphvae.surveys.registry import SurveyInfo, get_survey_info, list_surveys


@pytest.mark.parametrize("name", list_surveys())
def test_every_entry_is_whole(name):
    info = get_survey_info(name)
    assert info.layer == name
    assert 0.2 * u.arcsec < info.pixel_scale < 0.5 * u.arcsec
    for values, low, high in (
        (info.psf_fwhm.to_value("arcsec"), 0.7, 2),
        (info.depth.value, 20, 26),
    ):
        known = values[np.isfinite(values)]
        assert len(known)
        assert ((known > low) & (known < high)).all()
    assert info.zero_point.unit == u.ABmag
    assert info.depth_of in ("galaxy", "point source")
    assert all("doi:10." in text or "https://" in text for text in info.references)


@pytest.mark.parametrize(("name", "preset"), [("DECaLS", DECALS), ("bass+mzls", BASS_MZLS)])
def test_simulated_surveys_have_the_same_numbers(name, preset):
    info = get_survey_info(name)
    assert (info.name, info.layer, info.bands) == (preset.name, preset.layer, preset.bands)
    assert info.pixel_scale == preset.pixel_scale
    np.testing.assert_array_equal(info.psf_fwhm, preset.psf_fwhm)
    np.testing.assert_array_equal(info.depth.value, preset.galaxy_depth.value)


def test_names():
    assert get_survey_info("LS-DR9-south ").name == "DECaLS"
    assert get_survey_info("PS1") is get_survey_info("Pan-STARRS")
    assert get_survey_info("ls-dr10-south-model").layer == "ls-dr10-south-model"
    info = get_survey_info("CDS/P/SDSS9/r")
    assert info.bands == ("r",)
    assert info.psf_fwhm.shape == (1,)
    assert get_survey_info(info) is info
    for name in ("ls-dr10-north", "CDS/P/SDSS9/color", "sdss-model2", 3):
        with pytest.raises(ValueError, match=f"name: expected one of .*got {name!r}"):
            get_survey_info(name)


def test_seeing_of_some_bands():
    info = get_survey_info("ls-dr10-south")
    np.testing.assert_array_equal(info.psf_fwhm_of("zg").to_value("arcsec"), [1.11, 1.29])
    assert info.psf_fwhm_of("gi") is None
    assert info.psf_fwhm_of("gy") is None


def test_is_frozen_and_checked():
    info = get_survey_info("SDSS")
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.name = "another"
    with pytest.raises(ValueError, match="depth: expected one value for each"):
        dataclasses.replace(info, depth=[1.0] * u.mag)
    assert isinstance(info, SurveyInfo)
