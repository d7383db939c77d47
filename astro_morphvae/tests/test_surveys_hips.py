import json
from io import BytesIO

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

pytest.importorskip("astroquery")
pytest.importorskip("pytest_httpserver")

from astro_morphvae.exceptions import MorphVAEWarning
from astro_morphvae.surveys.hips import HipsSurvey, conf

Response = pytest.importorskip("werkzeug").Response
COORDS = SkyCoord([10.0, 11.0, 12.0] * u.deg, [20.0, 21.0, 22.0] * u.deg)


class Service:
    """hips2fits: a sky whose values are 2 a pixel, and a source; see `spoil`."""

    def __init__(self, server):
        self.url = server.url_for("/hips2fits")
        self.asked = []
        self.spoil = {}
        server.expect_request("/hips2fits").respond_with_handler(self.answer)

    def answer(self, request):
        self.asked.append(dict(request.args))
        name, header = request.args["hips"], json.loads(request.args["wcs"])
        for word, how in self.spoil.items():
            if word in name or word in f"{header['CRVAL1']}":
                if isinstance(how, list):
                    how = how.pop(0) if how else None
                if isinstance(how, int):
                    text = json.dumps({"title": "Bad request", "description": "no such HiPS"})
                    return Response(text, status=how)
                if isinstance(how, (bytes, str)):
                    return Response(how)
                if how is not None:
                    return Response(self.file(header, how(self.pixels(header))))
        return Response(self.file(header, self.pixels(header)))

    def pixels(self, header):
        return np.full((header["NAXIS2"], header["NAXIS1"]), 2.0, dtype=np.float32)

    def file(self, header, pixels):
        cards = {key: value for key, value in header.items() if not key.startswith("NAXIS")}
        hdu = fits.PrimaryHDU(pixels)
        hdu.header.update(cards)
        file = BytesIO()
        hdu.writeto(file)
        return file.getvalue()


@pytest.fixture
def service(httpserver):
    with conf.set_temp("backoff", 0.01), conf.set_temp("retries", 2):
        yield Service(httpserver)


def fetch(service, coords=COORDS, **kwargs):
    arguments = {
        "hips": "CDS/P/SDSS9/{band}",
        "bands": "gr",
        "size": 16,
        "cache": False,
        "progress": False,
        "uncertainty": False,
        **kwargs,
    }
    return HipsSurvey.get_cutouts(coords, server=service.url, **arguments)


def test_known_hips(service):
    cutouts = fetch(service)
    assert cutouts.good.all()
    assert cutouts.bands == ("g", "r")
    assert cutouts.unit == u.nmgy
    np.testing.assert_allclose(cutouts.data, 2.0)
    assert cutouts.ivar is None
    assert cutouts.pixel_scale.value == pytest.approx(0.396)
    x, y = cutouts.wcs[2].world_to_pixel(COORDS[2])
    assert (float(x), float(y)) == pytest.approx((7.5, 7.5), abs=1e-3)
    assert cutouts.psf_fwhm is None  # g has no published median
    assert fetch(service, bands="r").psf_fwhm.value == pytest.approx(1.43)


def test_zero_points_and_areas(service):
    cutouts = fetch(service, hips="CDS/P/DES-DR2/r", bands=None, pixel_scale=0.526 * u.arcsec)
    # A value is the flux of an original pixel, a quarter of one of these; zero point 30.
    np.testing.assert_allclose(cutouts.data, 2.0 * 4 * 10 ** (-0.4 * 7.5), rtol=1e-6)
    assert cutouts.bands == ("r",)
    cutouts = fetch(
        service, hips="X/P/a", bands="i", unit=25 * u.ABmag, native_pixel_scale=0.5 * u.arcsec
    )
    np.testing.assert_allclose(cutouts.data, 0.2, rtol=1e-6)
    cutouts = fetch(service, hips="X/P/a", bands="i", unit=u.MJy / u.sr, pixel_scale=1 * u.arcsec)
    expected = (2 * u.MJy / u.sr * (1 * u.arcsec) ** 2).to_value(
        u.nmgy, u.zero_point_flux(1 * u.AB)
    )
    np.testing.assert_allclose(cutouts.data, expected, rtol=1e-6)
    cutouts = fetch(
        service,
        hips={"a": "X/P/a", "b": "X/P/b"},
        bands=("b", "a"),
        unit={"a": u.nmgy, "b": u.mgy},
        native_pixel_scale=1 * u.arcsec,
    )
    np.testing.assert_allclose(cutouts.data[0].mean(axis=(1, 2)), [2e9, 2], rtol=1e-6)
    values = fetch(
        service, hips="X/P/a", bands="i", unit=u.dimensionless_unscaled, pixel_scale=1 * u.arcsec
    )
    assert values.unit == u.dimensionless_unscaled
    np.testing.assert_allclose(values.data, 2.0)


def test_says_that_there_is_no_variance(service):
    with pytest.warns(MorphVAEWarning, match="carries no variance"):
        fetch(service, uncertainty=None)
    with pytest.raises(ValueError, match="uncertainty: a HiPS carries no variance"):
        fetch(service, uncertainty=True)


def test_colour_is_refused(service):
    for name in ("CDS/P/SDSS9/color", "CDS/P/PanSTARRS/DR1/color-i-r-g", "X/P/Colour"):
        with pytest.raises(ValueError, match=f"hips: '{name}' is a colour picture"):
            fetch(service, hips=name, bands=None, unit=u.nmgy)
    assert not service.asked
    service.spoil = {"X/P/hidden": lambda pixels: np.stack([pixels] * 3)}
    with pytest.raises(ValueError, match="hips: 'X/P/hidden' is a colour picture"):
        fetch(service, hips="X/P/hidden", bands="r", unit=u.nmgy, native_pixel_scale=1 * u.arcsec)


def test_nothing_is_fetched_twice(service, tmp_path):
    def asked():
        # A request that the last test gave up may come late; one whose connection breaks, twice.
        names = ("CDS/P/SDSS9/g", "CDS/P/SDSS9/r")
        return {tuple(one.items()) for one in service.asked if one["hips"] in names}

    fetch(service, cache=tmp_path)
    assert len(asked()) == 6
    service.asked.clear()
    assert fetch(service, cache=tmp_path).good.all()
    assert not asked()


def half(pixels):
    pixels[:, :8] = np.nan
    return pixels


def test_statuses(service, tmp_path):
    service.spoil = {
        "11.0": lambda pixels: pixels * np.nan,
        "12.0": [503, 503],
        "13.0": [503] * 9,
        "14.0": half,
        "15.0": "no",
        "16.0": lambda pixels: pixels[1:],
        "17.0": [b""] * 9,
        "19.0": 400,
    }
    ra = [10, 11, 12, 13, 14, 15, 16, 17, np.nan, 19]
    coords = SkyCoord(ra * u.deg, [20] * 10 * u.deg)
    cutouts = fetch(service, coords, bands="r", ids=np.arange(10) + 100, cache=tmp_path)
    assert list(cutouts.catalog["id"]) == list(range(100, 110))
    assert [status.partition(" (3")[0] for status in cutouts.catalog["status"]] == [
        "ok",
        "off-footprint",
        "ok",
        "server-error: HTTP 503 SERVICE UNAVAILABLE",
        "ok",
        "invalid-file: 'no'",
        "invalid-file: (15, 16) pixels in place of (16, 16)",
        "invalid-file: empty",
        "invalid-position",
        "refused: HTTP 400 BAD REQUEST",
    ]
    assert cutouts.mask[4].sum() == 128
    service.spoil = {}
    again = fetch(service, coords, bands="r", cache=tmp_path)
    assert again.good.sum() == 8  # what was off the footprint stays so, and is not asked again


def test_missing_band(service):
    service.spoil = {"SDSS9/g": lambda pixels: pixels * 0}
    assert set(fetch(service).catalog["status"]) == {"incomplete-bands: g"}


@pytest.mark.parametrize(
    ("cards", "text"),
    [
        ({}, "ok"),
        ({"CRVAL1": 370.0}, "ok"),
        ({"CRVAL1": 10.1}, "invalid-file: centred 338 arcsec off"),
        ({"CRVAL1": 190.0, "CRVAL2": -20.0}, "invalid-file: centred 6.48e+05 arcsec off"),
        ({"CRPIX1": 9.0}, "invalid-file: centred 0.198 arcsec off"),
        (
            {"CDELT1": -4 * 0.396 / 3600, "CDELT2": 4 * 0.396 / 3600},
            "invalid-file: pixel scale 1.584 in place of 0.396",
        ),
        ({"CDELT1": 0.396 / 3600}, "invalid-file: north is not up"),
        ({"PC1_1": 0, "PC1_2": 1, "PC2_1": -1, "PC2_2": 0}, "invalid-file: north is not up"),
        ({"CTYPE1": "", "CTYPE2": ""}, "invalid-file: no celestial WCS"),
    ],
)
def test_reply_to_another_question_is_noticed(service, cards, text):
    asked = json.loads(fetch(service, COORDS[:1], get_query_payload=True)[0][0]["wcs"])
    service.spoil = {"SDSS9/g": service.file({**asked, **cards}, np.ones((16, 16), np.float32))}
    assert list(fetch(service, COORDS[:1]).catalog["status"]) == [text]


def test_payload_is_that_of_astroquery(service):
    pytest.importorskip("matplotlib")
    from astroquery.hips2fits import hips2fits

    payload = fetch(service, COORDS[:1], bands="r", get_query_payload=True)[0][0]
    ours = json.loads(payload["wcs"])
    wcs = WCS(fits.Header(ours))
    wcs.pixel_shape = (16, 16)
    theirs = hips2fits.query_with_wcs(hips="CDS/P/SDSS9/r", wcs=wcs, get_query_payload=True)
    assert (payload["hips"], payload["format"]) == (theirs["hips"], theirs["format"])
    for key, value in json.loads(theirs["wcs"]).items():
        if key in ours and not isinstance(value, str):
            assert ours[key] == pytest.approx(value)
    assert set(ours) <= {*json.loads(theirs["wcs"]), "NAXIS1", "NAXIS2"}
    assert not service.asked


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"hips": 3}, TypeError, "hips"),
        ({"hips": ""}, ValueError, "hips: an empty"),
        ({"hips": {}}, ValueError, "hips: an empty"),
        ({"hips": "X/P/{band}", "bands": None}, ValueError, "bands: needed"),
        ({"hips": {"g": "X/P/g"}, "bands": "r"}, ValueError, "bands: hips has g"),
        ({"bands": ""}, ValueError, "bands: expected at least one, got ''"),
        ({"hips": {"g": "X/P/g"}, "bands": ()}, ValueError, r"bands: .* got \(\)"),
        ({"hips": "X/P/a", "bands": ""}, ValueError, "bands: names must .* not be empty"),
        ({"hips": "X/P/a", "bands": "r"}, ValueError, "pixel_scale: needed"),
        (
            {"hips": "X/P/a", "bands": "r", "pixel_scale": 1 * u.arcsec},
            ValueError,
            "unit: needed, as the zero point of 'X/P/a'",
        ),
        ({"hips": "CDS/P/PanSTARRS/DR1/{band}"}, ValueError, "unit: needed"),
        (
            {"hips": "X/P/a", "bands": "r", "pixel_scale": 1 * u.arcsec, "unit": u.nmgy},
            ValueError,
            "native_pixel_scale: needed",
        ),
        ({"unit": 3 * u.adu}, ValueError, "unit: 3.0 adu is not a flux"),
        ({"unit": {"g": u.adu}}, ValueError, "unit: those of the bands differ"),
        ({"size": 0}, ValueError, "size"),
        ({"size": 10**5}, ValueError, "size"),
        ({"pixel_scale": 1}, TypeError, "pixel_scale"),
        ({"coords": 3}, TypeError, "coordinates"),
    ],
)
def test_wrong_argument_is_named(service, arguments, error, match):
    with pytest.raises(error, match=match):
        fetch(service, **arguments)


@pytest.mark.remote_data
@pytest.mark.parametrize("hips", ["CDS/P/SDSS9/r", "CDS/P/DESI-Legacy-Surveys/DR10/r"])
def test_real_service(hips):
    """Tells if the service, the values of a HiPS or their unit changed."""
    # A galaxy at redshift 0.080: SDSS plate 266, MJD 51630, fiber 598, whose spectrum is
    # calibrated to r = 18.16 (CALIBFLUX of the SPECOBJ table).
    coords = SkyCoord([146.90289, 146.90289] * u.deg, [0.20894, -89.0] * u.deg)
    cutouts = HipsSurvey.get_cutouts(
        coords, hips=hips, size=64, cache=False, progress=False, uncertainty=False
    )
    assert list(cutouts.catalog["status"]) == ["ok", "off-footprint"]
    assert cutouts.unit == u.nmgy
    assert cutouts.shape == (2, 1, 64, 64)
    y, x = (np.mgrid[:64, :64] - 31.5) * cutouts.pixel_scale.value
    flux = cutouts.data[0, 0][np.hypot(x, y) < 1.5].sum()
    assert 22.5 - 2.5 * np.log10(flux) == pytest.approx(18.3, abs=0.4)
    far = cutouts.data[0, 0][np.hypot(x, y) > 8]
    assert abs(np.median(far)) < 0.05
