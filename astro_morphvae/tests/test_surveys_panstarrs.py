import warnings
from io import BytesIO

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

pytest.importorskip("astroquery")
pytest.importorskip("pytest_httpserver")

from astro_morphvae.surveys.panstarrs import PanSTARRS, conf, undo_asinh
from astro_morphvae.tests.cutout_samples import make_wcs

Response = pytest.importorskip("werkzeug").Response
EXPOSURE = {"g": 400.0, "r": 500.0, "i": 600.0, "z": 300.0, "y": 200.0}
COORDS = SkyCoord([10.0, 11.0, 12.0] * u.deg, [20.0, 21.0, 22.0] * u.deg)


def galaxy(size, band, scale=0.25):
    """Nanomaggies per pixel of one galaxy, of which the sum is known."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    width = 4.0
    flux = {"g": 30.0, "r": 50.0, "i": 60.0, "z": 70.0, "y": 80.0}[band]
    return flux * np.exp(-(x**2 + y**2) / 2 / width**2) / (2 * np.pi * width**2) + 1e-4


class Service:
    """The file lists and cutouts of Pan-STARRS, as a server on this machine gives them.

    ``spoil`` maps what to do to a word found in the query: a text body, an HTTP status, or a
    function of the HDU list. ``asinh`` scales the values as the full files have it.
    """

    def __init__(self, server):
        self.url = server.url_for("")
        self.asked = []
        self.spoil = {}
        self.bands = "grizy"
        self.kinds = ("stack", "stack.wt", "stack.mask")
        self.asinh = False
        server.expect_request("/cgi-bin/ps1filenames.py").respond_with_handler(self.list)
        server.expect_request("/cgi-bin/fitscut.cgi").respond_with_handler(self.cut)

    def spoiled(self, request):
        query = request.query_string.decode()
        for word, how in self.spoil.items():
            if word in query:
                return how[len(self.asked) % len(how)] if isinstance(how, list) else how
        return None

    def list(self, request):
        self.asked.append(dict(request.args))
        how = self.spoiled(request)
        if isinstance(how, int):
            return Response("busy", status=how)
        if isinstance(how, str):
            return Response(how)
        lines = ["projcell subcell ra dec filter mjd type filename shortname badflag"]
        if float(request.args["dec"]) > -30:
            for cell, off in (("067", 0.05), ("068", 0.2)):  # the second is at its edge
                for kind in request.args["type"].split(","):
                    for band in self.bands:
                        if kind in self.kinds:
                            name = f"/rings.v3.skycell/1164/{cell}/{cell}.{band}.{kind}.fits"
                            ra = float(request.args["ra"]) + off
                            lines.append(
                                f"1164 {cell} {ra} {request.args['dec']} {band} 0.0 {kind} "
                                f"{name} short 0"
                            )
        return Response("\n".join(lines) + "\n")

    def cut(self, request):
        self.asked.append(dict(request.args))
        how = self.spoiled(request)
        if isinstance(how, int):
            return Response("busy", status=how, headers={"Retry-After": "0"})
        if isinstance(how, (str, bytes)):
            return Response(how)
        size = int(request.args["size"])
        name = request.args["red"]
        _, band, kind = name.rsplit("/", 1)[1].removesuffix(".fits").split(".", 2)
        counts = 10.0 * EXPOSURE[band]  # of a nanomaggy: 22.5 = 25 + 2.5 log10(t) - 2.5 log10(n)
        if kind == "stack":
            pixels = galaxy(size, band) * counts
            pixels[0, 0] = np.nan
        elif kind == "stack.wt":
            pixels = np.full((size, size), (0.01 * counts) ** 2)
        else:
            pixels = np.full((size, size), np.nan)  # 0 comes as NaN
            pixels[3, 4], pixels[5, 6] = 32, 1024  # saturated; a ghost, which is not bad
        header = fits.Header()
        wcs = make_wcs(
            float(request.args["ra"]),
            float(request.args["dec"]),
            scale=0.25,
            crpix=((size + 1) / 2 + 0.2, (size + 1) / 2 - 0.3),
        )
        header.update(wcs.to_header())
        for i, j in ((1, 1), (1, 2), (2, 1), (2, 2)):
            header[f"PC00{i}00{j}"] = header.pop(f"PC{i}_{j}", float(i == j))
        header["EXPTIME"] = EXPOSURE[band]
        header["HIERARCH FPA.ZP"] = 25.0
        if self.asinh and kind != "stack.mask":
            header["BSOFTEN"], header["BOFFSET"] = 100.0, 2.0
            pixels = 2.5 / np.log(10) * np.arcsinh((pixels - 2.0) / 200.0)
        hdus = fits.HDUList([fits.PrimaryHDU(pixels.astype(np.float32), header)])
        if callable(how):
            how(hdus)
        file = BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            hdus.writeto(file)
        content = file.getvalue()
        return Response(content[: len(content) // 2] if how is None and self.truncate else content)

    truncate = False


@pytest.fixture
def service(httpserver, tmp_path):
    with conf.set_temp("backoff", 0.01), conf.set_temp("retries", 2):
        yield Service(httpserver)


def fetch(service, coords=COORDS, **kwargs):
    arguments = {"bands": "gr", "size": 32, "cache": False, "progress": False, **kwargs}
    return PanSTARRS.get_cutouts(coords, server=service.url, **arguments)


@pytest.mark.parametrize("asinh", [False, True])
def test_flux_noise_mask_and_position(service, asinh):
    service.asinh = asinh
    cutouts = fetch(service)
    assert list(cutouts.catalog["status"]) == ["ok"] * 3
    assert cutouts.bands == ("g", "r")
    assert cutouts.unit == u.nmgy
    data, ivar, mask = cutouts.arrays()
    good = ~mask
    for band in range(2):
        expected = galaxy(32, "gr"[band])
        np.testing.assert_allclose(
            data[:, band][good[:, band]], np.stack([expected] * 3)[good[:, band]], rtol=1e-4
        )
    np.testing.assert_allclose(ivar[good], 1e4, rtol=1e-4)
    assert mask[0, 0, 0, 0]
    assert mask[0, 0, 3, 4]
    assert not mask[0, 0, 5, 6]
    assert mask.sum() == 2 * 6
    x, y = cutouts.wcs[1].world_to_pixel(COORDS[1])
    assert (float(x), float(y)) == pytest.approx((15.7, 15.2), abs=1e-3)
    assert cutouts.pixel_scale.value == 0.25
    np.testing.assert_allclose(cutouts.psf_fwhm.value, [1.31, 1.19])
    assert cutouts.meta["survey"] == "PanSTARRS"


def test_asinh_is_undone():
    counts = np.array([-50.0, 0.0, 3.0, 1e5])
    values = 2.5 / np.log(10) * np.arcsinh((counts - 2.2) / (2 * 95.4))
    np.testing.assert_allclose(undo_asinh(values, 2.2, 95.4), counts, atol=1e-9)


@pytest.mark.parametrize("asinh", [False, True])
def test_what_the_service_fills_in_is_masked(service, asinh):
    def fill(hdus):
        hdus[0].data[:, :5] = 0

    def fill_all(hdus):
        hdus[0].data[:] = 0

    service.asinh = asinh
    for kind in (".stack.fits", ".stack.wt.fits"):
        service.spoil = {kind: fill}
        cutouts = fetch(service, COORDS[:1])
        assert cutouts.good.all()
        data, ivar, mask = cutouts.arrays()
        assert mask[..., :5].all()
        assert not ivar[..., :5].any()
        assert not data[..., :5].any()
        assert mask[..., 5:].sum() < 10
    service.spoil = {".r.stack.fits": fill_all}
    assert list(fetch(service, COORDS[:1]).catalog["status"]) == ["incomplete-bands: r"]
    service.spoil = {".stack.fits": fill_all}
    assert list(fetch(service, COORDS[:1]).catalog["status"]) == ["off-footprint"]


def test_nothing_is_fetched_twice(service, tmp_path):
    def asked():
        # A connection that breaks lets a request be sent again, so each is counted once.
        return {tuple(sorted(one.items())) for one in service.asked}

    first = fetch(service, cache=tmp_path, bands="gr")
    assert len(asked()) == 3 + 3 * 2 * 3
    before = len(service.asked)
    again = fetch(service, cache=tmp_path, bands="gr")
    np.testing.assert_array_equal(first.data, again.data)
    assert len(service.asked) == before
    fetch(service, cache=tmp_path, bands="rz")  # only z is new
    assert len(asked()) == 3 + 3 * 3 * 3


def test_nearest_skycell_serves(service):
    fetch(service, bands="g")
    names = [asked["red"] for asked in service.asked if "red" in asked]
    assert names
    assert all("/067/" in name for name in names)


def test_without_variance_and_mask(service):
    cutouts = fetch(service, uncertainty=False, maskbits=False, bands=("r",))
    assert cutouts.ivar is None
    assert cutouts.mask.sum() == 3
    assert len(service.asked) == 6
    assert cutouts[0].bands == ("r",)


def test_other_mask_bits(service):
    cutouts = fetch(service, maskbits=1024)
    assert cutouts.mask[0, 0, 5, 6]
    assert not cutouts.mask[0, 0, 3, 4]


def test_oblong(service):
    cutouts = fetch(service, size=(16, 31), bands="r")
    assert cutouts.size == (16, 31)
    x, y = cutouts.wcs[0].world_to_pixel(COORDS[0])
    assert abs(x - 15) <= 0.8
    assert abs(y - 7.5) <= 0.8
    np.testing.assert_allclose(cutouts.data[0, 0, 8, 16], galaxy(31, "r")[8 + 7, 16], rtol=1e-4)


def test_other_pixels(service):
    cutouts = fetch(service, size=(16, 24), pixel_scale=0.4 * u.arcsec, uncertainty=True)
    assert cutouts.size == (16, 24)
    assert cutouts.pixel_scale.value == pytest.approx(0.4)
    fine = fetch(service, size=64)
    np.testing.assert_allclose(
        cutouts.data[0].sum(axis=(1, 2)), fine.data[0].sum(axis=(1, 2)), rtol=0.1
    )
    factor = cutouts.catalog["noise_correlation"]
    assert factor.shape == (3, 2)
    inside = cutouts.ivar[0, 0, 5:-5, 5:-5]
    assert np.mean(1 / inside) * factor[0, 0] == pytest.approx(1e-4 * 1.6**2, rel=0.05)


class TestStatus:
    def test_off_the_footprint_and_invalid(self, service):
        coords = SkyCoord([10, 10, np.nan, 10] * u.deg, [20, -60, 5, 21] * u.deg)
        cutouts = fetch(service, coords, ids=list("abcd"))
        assert list(cutouts.catalog["id"]) == list("abcd")
        assert list(cutouts.catalog["status"]) == [
            "ok",
            "off-footprint",
            "invalid-position",
            "ok",
        ]
        assert np.isnan(cutouts.data[1]).all()

    def test_missing_bands(self, service):
        service.bands = "gri"
        cutouts = fetch(service, bands="gzy")
        assert list(cutouts.catalog["status"]) == ["incomplete-bands: z, y"] * 3
        assert cutouts.bands == ("g", "z", "y")
        service.kinds = ("stack", "stack.mask")
        status = fetch(service, bands="gr").catalog["status"]
        assert set(status) == {"incomplete-bands: g, r"}
        assert fetch(service, bands="gr", uncertainty=False).good.all()

    def test_blank_band(self, service):
        def blank(hdus):
            hdus[0].data[:] = np.nan

        service.spoil = {".r.stack.fits": blank}
        assert set(fetch(service).catalog["status"]) == {"incomplete-bands: r"}
        service.spoil = {".stack.fits": blank}
        assert set(fetch(service).catalog["status"]) == {"off-footprint"}

    def test_busy_service_is_asked_again(self, service):
        service.spoil = {"ra=11": [503, None], "filenames": [429, None]}
        cutouts = fetch(service, bands="g", uncertainty=False, maskbits=False)
        assert cutouts.good.all()

    @pytest.mark.parametrize(
        ("word", "how", "status"),
        [
            ("ra=11.0000000&dec=21.0000000&filters", 503, "server-error: HTTP 503"),
            ("ra=11.0000000&dec=21.0000000&filters", "<html>no</html>", "invalid-file: '<html>"),
            ("ra=11.0000000&dec=21.0000000&filters", "", "invalid-file: empty"),
            ("ra=11.0000000&dec=21.0000000&size", 503, "server-error: HTTP 503"),
            ("ra=11.0000000&dec=21.0000000&size", 404, "refused: HTTP 404"),
            ("ra=11.0000000&dec=21.0000000&size", "Error: no", "invalid-file: 'Error: no'"),
            ("ra=11.0000000&dec=21.0000000&size", b"", "invalid-file: empty"),
            ("ra=11.0000000&dec=21.0000000&size", b"SIMPLE  =", "invalid-file: "),
        ],
    )
    def test_what_goes_wrong_stays_in_its_row(self, service, tmp_path, word, how, status):
        service.spoil = {word: how}
        cutouts = fetch(service, cache=tmp_path)
        assert list(cutouts.good) == [True, False, True]
        assert cutouts.catalog["status"][1].startswith(status)
        service.spoil = {}
        assert fetch(service, cache=tmp_path).good.all()

    def test_wrong_files(self, service):
        def crop(hdus):
            hdus[0].data = hdus[0].data[1:]

        def no_exposure(hdus):
            del hdus[0].header["EXPTIME"]

        def shifted(hdus):
            hdus[0].header["CRPIX1"] += 1

        def no_wcs(hdus):
            del hdus[0].header["CTYPE*"]

        def elsewhere(hdus):
            hdus[0].header["CRVAL1"] += 90

        def nearby(hdus):
            hdus[0].header["CRPIX2"] += 6

        def coarse(hdus):
            hdus[0].header["CDELT*"] = [4 * value for value in hdus[0].header["CDELT*"].values()]

        for how, text in (
            (crop, "invalid-file: (31, 32) pixels in place of (32, 32)"),
            (no_exposure, "invalid-file: exposure time None in r"),
            (shifted, "invalid-file: the images are on different grids"),
            (no_wcs, "invalid-file: no celestial WCS"),
            (elsewhere, "invalid-file: centred 3e+05 arcsec off"),
            (nearby, "invalid-file: centred 1.43 arcsec off"),
            (coarse, "invalid-file: pixel scale 1 in place of 0.25"),
        ):
            service.spoil = {".r.stack.fits": how}
            assert set(fetch(service, COORDS[:1]).catalog["status"]) == {text}

    @pytest.mark.parametrize("kind", ["stack.wt", "stack.mask"])
    def test_variance_and_mask_lie_on_the_stack(self, service, kind):
        def shifted(hdus):
            hdus[0].header["CRPIX1"] += 0.5

        def stretched(hdus):
            hdus[0].header["CDELT1"] *= 1.0005

        for how in (shifted, stretched):
            service.spoil = {f".r.{kind}.fits": how}
            assert list(fetch(service, COORDS[:1]).catalog["status"]) == [
                "invalid-file: the images are on different grids"
            ]

    def test_truncated(self, service):
        service.truncate = True
        assert all(s.startswith("invalid-file: ") for s in fetch(service).catalog["status"])

    def test_file_names_that_are_none_of_its_business(self, service):
        service.spoil = {
            "filters": "projcell subcell ra dec filter mjd type filename shortname badflag\n"
            "1 2 3 4 g 0 stack ../../etc/passwd a 0\n"
        }
        status = fetch(service).catalog["status"]
        assert all(text.startswith("invalid-file: a list of files with") for text in status)


def test_files_and_payload(service, tmp_path):
    from astroquery.exceptions import RemoteServiceError

    files = PanSTARRS.get_images(
        COORDS[:1], server=service.url, bands="g", size=8, cache=False, progress=False
    )
    assert [hdus[0].shape for hdus in files] == [(8, 8)] * 3
    coords = SkyCoord([np.nan, 10, 10] * u.deg, [5, -60, 20] * u.deg)
    keywords = {"server": service.url, "bands": "g", "size": 8, "cache": False, "progress": False}
    replies = PanSTARRS.get_images_async(coords, **keywords)
    assert [reply.status for reply in replies] == ["invalid-position", "off-footprint", *["ok"] * 3]
    with pytest.raises(RemoteServiceError, match="a position: invalid-position"):
        PanSTARRS.get_images(coords, **keywords)
    asked = len(service.asked)
    payload = fetch(service, get_query_payload=True)
    assert payload[0][0]["ra"] == "10.0000000"
    assert payload[0][0]["filters"] == "grizy"
    assert len(service.asked) == asked
    output = tmp_path / "ps1.fits"
    cutouts = fetch(service, output=output, pixel_scale=0.3 * u.arcsec)
    assert output.is_file()
    assert cutouts.good.all()
    assert cutouts.catalog["noise_correlation"].shape == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"bands": "gq"}, ValueError, "bands: Pan-STARRS has g, r, i, z, y, got"),
        ({"bands": ""}, ValueError, r"bands: Pan-STARRS has g, r, i, z, y, got \(\)"),
        ({"size": None}, ValueError, "size: expected a number of pixels"),
        ({"size": 0}, ValueError, "size"),
        ({"size": 7000}, ValueError, "size: at most 6000"),
        ({"pixel_scale": 3}, TypeError, "pixel_scale"),
        ({"maskbits": "a"}, TypeError, "maskbits"),
        ({"coords": [1]}, TypeError, "coordinates"),
        ({"ids": [1]}, ValueError, "ids"),
    ],
)
def test_wrong_argument_is_named(service, arguments, error, match):
    with pytest.raises(error, match=match):
        fetch(service, **arguments)


@pytest.mark.remote_data
def test_real_service():
    """Tells if the service, its files or their scale changed."""
    # A galaxy at redshift 0.080: SDSS plate 266, MJD 51630, fiber 598, whose spectrum is
    # calibrated to r = 18.16 (CALIBFLUX of the SPECOBJ table).
    coords = SkyCoord([146.90289, 146.90289] * u.deg, [0.20894, -60.0] * u.deg)
    replies = PanSTARRS.get_images_async(
        coords[:1], bands="r", size=240, cache=False, progress=False
    )
    assert [reply.status for reply in replies] == ["ok"] * 3
    header = replies[0].value.header
    assert header["EXPTIME"] > 100
    assert header["HIERARCH FPA.ZP"] == pytest.approx(25.0)
    assert "BSOFTEN" not in header
    cutouts = PanSTARRS.get_cutouts(coords, bands="gri", size=240, cache=False, progress=False)
    assert list(cutouts.catalog["status"]) == ["ok", "off-footprint"]
    assert cutouts.shape == (2, 3, 240, 240)
    data, ivar, mask = cutouts.arrays([0])
    x, y = cutouts.wcs[0].world_to_pixel(coords[0])
    radius = np.hypot(*(np.mgrid[:240, :240] - np.array([y, x])[:, None, None])) * 0.25
    flux = data[0, 1][radius < 1.5].sum()
    assert 22.5 - 2.5 * np.log10(flux) == pytest.approx(18.3, abs=0.4)
    # The variance images are variances: they say what the sky scatters, but for correlations.
    sky = (radius > 10) & ~mask[0, 1]
    pulls = data[0, 1][sky] * np.sqrt(ivar[0, 1][sky])
    scatter = 0.7413 * np.subtract(*np.percentile(pulls, [75, 25]))
    assert 0.4 < scatter < 1.5
