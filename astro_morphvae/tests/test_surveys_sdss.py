import bz2
import re
from io import BytesIO

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

pytest.importorskip("astroquery")
pytest.importorskip("pytest_httpserver")

from astro_morphvae.cutouts._wcs import shift_wcs
from astro_morphvae.surveys._sdss_frames import (
    decompress,
    frame_ivar,
    full_sky,
    gain_and_variance,
)
from astro_morphvae.surveys.sdss import SDSS, conf
from astro_morphvae.tests.cutout_samples import make_wcs

Response = pytest.importorskip("werkzeug").Response
SHAPE = (150, 200)
SCALE = 0.396
CALIBRATION, SKY = 0.005, 150.0
RUN, CAMCOL = 4207, 4
# Where the camera sees a field in each band, in pixels from the first.
OFFSETS = {"g": (0, 0), "r": (3.4, -2.3), "i": (-5.7, 1.2), "u": (1, 1), "z": (2, 2)}
CENTRE = SkyCoord(150 * u.deg, 2 * u.deg)
# Some hundred bytes of which 80 MB come out: two streams, each of which is small enough.
BOMB = bz2.compress(bytes(40 * 10**6), 9) * 2


def field_wcs(field, band="g"):
    """Fields of a camera column follow each other, with some rows seen twice."""
    wcs = make_wcs(150.0, 2.0, crpix=(100, 75), scale=SCALE, rotation=0.5)
    dx, dy = OFFSETS[band]
    wcs = shift_wcs(wcs, 0, 120 * (field - 100))
    wcs.wcs.crpix += dx, dy
    wcs.wcs.set()
    return wcs


def sky_flux(wcs):
    """Three sources of 40 nanomaggies, on any grid."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.zeros(SHAPE)
    for east, north in ((0, 0), (0.004, 0.003), (-0.002, 0.006)):
        x0, y0 = wcs.world_to_pixel(SkyCoord((150 + east) * u.deg, (2 + north) * u.deg))
        image += 40 * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 2 / 2.5**2) / (2 * np.pi * 2.5**2)
    return image


def make_frame(field, band):
    gain, variance = gain_and_variance(RUN, CAMCOL, band)
    rng = np.random.default_rng([field, ord(band), 1])
    flux = sky_flux(field_wcs(field, band))
    calibration = (CALIBRATION * (1 + 0.1 * np.linspace(-1, 1, SHAPE[1]))).astype(np.float32)
    nodes = (SKY + np.add.outer(np.arange(12.0), np.arange(16.0))).astype(np.float32)
    place_x, place_y = np.linspace(0, 15, SHAPE[1]), np.linspace(0, 11, SHAPE[0])
    counts = flux / calibration + SKY + np.add.outer(place_y, place_x)
    seen = rng.poisson(counts * gain) / gain + rng.normal(0, variance**0.5, SHAPE)
    image = (seen - SKY - np.add.outer(place_y, place_x)) * calibration
    header = field_wcs(field, band).to_header()
    header.update({"RUN": RUN, "CAMCOL": CAMCOL, "FILTER": band, "NMGY": CALIBRATION})
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("ALLSKY", f"{nodes.size}E", dim="(16,12)", array=nodes[np.newaxis]),
            fits.Column("XINTERP", f"{SHAPE[1]}E", array=place_x[np.newaxis]),
            fits.Column("YINTERP", f"{SHAPE[0]}E", array=place_y[np.newaxis]),
        ]
    )
    file = BytesIO()
    fits.HDUList(
        [fits.PrimaryHDU(image.astype(np.float32), header), fits.ImageHDU(calibration), table]
    ).writeto(file)
    return file.getvalue()


class Service:
    """SkyServer and archive: fields 100 and 101 around the centre; see `spoil`."""

    frames = {}  # noqa: RUF012 (made once for all tests)

    def __init__(self, server):
        self.url = server.url_for("").rstrip("/")
        self.queries, self.fetched = [], []
        self.spoil = {}
        server.expect_request(re.compile(".*x_results.aspx")).respond_with_handler(self.query)
        server.expect_request(re.compile("/dr17/eboss/.*")).respond_with_handler(self.frame)

    def spoiled(self, text):
        for word, how in self.spoil.items():
            if word in text:
                how = (how.pop(0) if how else None) if isinstance(how, list) else how
                return Response("busy", status=how) if isinstance(how, int) else how
        return None

    def query(self, request):
        sql = request.args["cmd"]
        self.queries.append(sql)
        how = self.spoiled(sql)
        if how is not None:
            return how if isinstance(how, Response) else Response(how)
        _, dec = map(float, re.search(r"fGetNearbyObjEq\(([-\d.]+), ([-\d.]+)", sql).groups())
        names = re.search(r"DISTINCT (.*) FROM", sql)[1].replace("f.", "").replace(" ", "")
        lines = ["#Table1", names]
        if abs(dec - 2) < 0.1:
            for field in (100, 101):
                lines.append(f"{RUN},301,{CAMCOL},{field},1.5,1.4,1.3,1.2,{field / 100 + 0.1}")
        return Response("\n".join(lines) + "\n", content_type="text/plain")

    def frame(self, request):
        name = request.path.rsplit("/", 1)[1]
        self.fetched.append(name)
        band, run, camcol, field = re.match(
            r"frame-(.)-(\d{6})-(\d)-(\d{4}).fits.bz2", name
        ).groups()
        assert (int(run), int(camcol)) == (RUN, CAMCOL)
        key = (int(field), band)
        if key not in self.frames:
            self.frames[key] = bz2.compress(make_frame(*key))
        how = self.spoiled(name)
        if isinstance(how, Response):
            return how
        content = self.frames[key]
        if how is not None:
            content = how if isinstance(how, bytes) else how(content)
        return Response(content)


@pytest.fixture
def service(httpserver):
    with (
        conf.set_temp("backoff", 0.01),
        conf.set_temp("retries", 2),
        conf.set_temp("queries_per_second", 1000.0),
    ):
        yield Service(httpserver)


def fetch(service, coords=CENTRE, **kwargs):
    arguments = {"bands": "r", "size": 40, "cache": False, "progress": False, **kwargs}
    return SDSS.get_cutouts(coords, server=service.url, data_server=service.url, **arguments)


def test_one_band_is_copied_with_its_noise(service):
    coords = SkyCoord([150, 150.004] * u.deg, [2, 2.003] * u.deg)
    cutouts = fetch(service, coords, ids=["a", "b"])
    assert cutouts.good.all()
    assert list(cutouts.catalog["id"]) == ["a", "b"]
    np.testing.assert_array_equal(cutouts.catalog["noise_correlation"], 1)
    np.testing.assert_array_equal(cutouts.catalog["coverage"], 1)
    data, ivar, _ = cutouts.arrays()
    truth = []
    for row in range(2):
        wcs = cutouts.wcs[row]
        x, y = wcs.world_to_pixel(coords[row])
        assert np.hypot(x - 19.5, y - 19.5) < 0.75
        truth.append(sky_flux(wcs)[:40, :40])
    pulls = (data[:, 0] - truth) * np.sqrt(ivar[:, 0])
    assert np.std(pulls) == pytest.approx(1, abs=0.05)
    assert np.mean(pulls) == pytest.approx(0, abs=0.06)
    # Also where the source and not the sky makes the noise.
    bright = np.array(truth) > 0.3
    assert np.std(pulls[bright]) == pytest.approx(1, abs=0.15)
    assert ivar[:, 0][bright].max() < np.median(ivar)
    assert cutouts.pixel_scale.value == pytest.approx(SCALE, rel=1e-3)
    np.testing.assert_allclose(cutouts.psf_fwhm.value, 1.3)
    np.testing.assert_allclose(cutouts.catalog["psf_fwhm"].value, 1.3)


def test_bands_are_brought_to_the_grid_of_the_first(service):
    pytest.importorskip("reproject")
    cutouts = fetch(service, bands="gri")
    correlation = cutouts.catalog["noise_correlation"][0]
    assert correlation[0] == 1
    assert (correlation[1:] > 1.5).all()
    truth = sky_flux(cutouts.wcs[0])[:40, :40]
    data, ivar, _ = cutouts.arrays()
    pulls = (data[0] - truth) * np.sqrt(ivar[0])
    np.testing.assert_allclose(np.std(pulls[:, :12], axis=(1, 2)), 1, atol=0.12)
    y, x = np.mgrid[:40, :40]
    for band in range(3):
        for axis in (x, y):
            inside = truth > 0.05
            centre = np.average(axis[inside], weights=data[0, band][inside])
            assert centre == pytest.approx(np.average(axis[inside], weights=truth[inside]), abs=0.2)
        error = np.sqrt((1 / ivar[0, band]).sum() * correlation[band])
        assert abs(data[0, band].sum() - truth.sum()) < 3 * error


def test_fields_that_follow_each_other_are_joined(service):
    sky = field_wcs(100, "r").pixel_to_world(100, 138)
    cutouts = fetch(service, sky, size=50)
    assert cutouts.good.all()
    assert cutouts.catalog["coverage"][0] == 1
    assert cutouts.mask is None
    np.testing.assert_array_equal(cutouts.catalog["noise_correlation"], 1)


def test_other_pixels_and_file(service, tmp_path):
    output = tmp_path / "sdss.fits"
    cutouts = fetch(
        service, size=(20, 24), pixel_scale=0.792 * u.arcsec, output=output, cache=tmp_path / "c"
    )
    assert output.is_file()
    assert cutouts.size == (20, 24)
    assert cutouts.pixel_scale.value == pytest.approx(0.792)
    assert len(set(service.fetched)) == 2
    assert len(set(service.queries)) == 1
    service.fetched.clear(), service.queries.clear()
    again = fetch(service, size=(20, 24), pixel_scale=0.792 * u.arcsec, cache=tmp_path / "c")
    np.testing.assert_array_equal(again.data, cutouts.data)
    assert not service.fetched
    assert not service.queries


class TestStatus:
    def test_positions(self, service):
        coords = SkyCoord([150, 150, np.nan] * u.deg, [2, 60, 2] * u.deg)
        cutouts = fetch(service, coords)
        assert list(cutouts.catalog["status"]) == ["ok", "off-footprint", "invalid-position"]
        assert np.isnan(cutouts.catalog["psf_fwhm"][1:]).all()
        cutouts = fetch(service, coords[1:])
        assert list(cutouts.catalog["status"]) == ["off-footprint", "invalid-position"]
        assert cutouts.shape == (2, 1, 40, 40)

    @pytest.mark.parametrize(
        ("how", "status"),
        [
            ("<html>no</html>", "invalid-file: '<html>no</html>'"),
            ("", "invalid-file: empty"),
            (503, "server-error: HTTP 503"),
            ("ERROR: Maximum 60 queries allowed per minute", "server-error: 'ERROR: Maximum"),
            (
                "run,rerun,camcol,field,psfWidth_u\n1,2,x,4,5\n",
                "invalid-file: fields with '1,2,x,4,5'",
            ),
        ],
    )
    def test_skyserver(self, service, tmp_path, how, status):
        service.spoil = {"(150.0040000": how}
        coords = SkyCoord([150, 150.004] * u.deg, [2, 2.003] * u.deg)
        cutouts = fetch(service, coords, cache=tmp_path)
        assert cutouts.catalog["status"][0] == "ok"
        assert cutouts.catalog["status"][1].startswith(status)
        service.spoil = {}
        assert fetch(service, coords, cache=tmp_path).good.all()

    def test_busy_servers_are_asked_again(self, service):
        service.spoil = {
            "fGetNearby": ["ERROR: Maximum 60 queries allowed per minute", 503],
            "frame-r": [503, lambda content: content[: len(content) // 2], 429],
        }
        assert fetch(service).good.all()

    @pytest.mark.parametrize(
        ("how", "status"),
        [
            (404, "refused: HTTP 404"),
            (lambda content: content[:-100], "invalid-file: "),
            (lambda content: b"", "invalid-file: empty"),
            (lambda content: b"<html>", "invalid-file: '<html>'"),
            (lambda content: bz2.compress(b"SIMPLE  = "), "invalid-file: "),
            (lambda content: BOMB, "invalid-file: more than 67108864 bytes when decompressed"),
        ],
    )
    def test_archive(self, service, tmp_path, how, status):
        # The r band of one of the two fields that the position needs.
        service.spoil = {"frame-r-004207-4-0101": how}
        cutouts = fetch(service, bands="gr", cache=tmp_path)
        assert cutouts.catalog["status"][0].startswith(status)
        service.spoil = {"frame-r": how}
        cutouts = fetch(service, bands="r", output=tmp_path / "bad.fits")
        assert cutouts.catalog["status"][0].startswith(status)
        assert np.isnan(cutouts.data).all()
        service.spoil = {}
        assert fetch(service, bands="r", cache=tmp_path).good.all()

    def test_not_a_frame(self, service):
        file = BytesIO()
        fits.HDUList([fits.PrimaryHDU(np.ones((4, 4)))]).writeto(file)
        service.spoil = {"frame-r": bz2.compress(file.getvalue())}
        assert list(fetch(service).catalog["status"]) == ["invalid-file: not a calibrated frame"]


def test_file_in_two_streams_is_decompressed():
    halves = b"SIMPLE  = ", b"T"
    assert decompress(b"".join(map(bz2.compress, halves))) == b"SIMPLE  = T"
    with pytest.raises(EOFError):
        decompress(bz2.compress(b"SIMPLE")[:-4])


def test_frames_and_payload(service):
    frames = SDSS.get_images(
        CENTRE, bands="r", server=service.url, data_server=service.url, cache=False, progress=False
    )
    assert len(frames) == 2
    assert frames[0][0].shape == SHAPE
    coords = SkyCoord([150, 150, np.nan] * u.deg, [2, 60, 2] * u.deg)
    replies = SDSS.get_images_async(
        coords, bands="r", server=service.url, data_server=service.url, cache=False, progress=False
    )
    assert [reply.status for reply in replies] == ["ok", "ok", "off-footprint", "invalid-position"]
    asked = len(service.queries)
    payload = fetch(service, get_query_payload=True)
    assert payload[0][0]["format"] == "csv"
    assert "fGetNearbyObjEq(150.0000000, 2.0000000" in payload[0][0]["cmd"]
    assert len(service.queries) == asked


class TestNoise:
    @pytest.mark.parametrize(
        ("run", "camcol", "band", "gain", "variance"),
        [
            (94, 1, "g", 3.32, 15.6025),
            (1000, 2, "u", 1.595, 12.6025),
            (1200, 2, "u", 1.825, 12.6025),
            (1400, 4, "z", 4.775, 9.61),
            (1600, 4, "z", 4.775, 12.6025),
            (1600, 5, "z", 3.48, 2.1025),
            (4207, 6, "i", 4.76, 5.0625),
        ],
    )
    def test_camera(self, run, camcol, band, gain, variance):
        assert gain_and_variance(run, camcol, band) == (gain, variance)

    def test_no_such_ccd(self):
        with pytest.raises(ValueError, match="camera column 7"):
            gain_and_variance(94, 7, "g")

    def test_inverse_variance(self):
        # 100 counts of sky and 50 of flux at a gain of 2, a dark variance of 5.
        image = np.array([[50 * 0.01, 0.0, -1e6]])
        ivar = frame_ivar(image, np.array([0.01, 0.0, 0.01]), np.full((1, 3), 100.0), 2.0, 5.0)
        np.testing.assert_allclose(ivar, [[1 / (80 * 1e-4), 0, 1 / (5 * 1e-4)]], rtol=1e-5)

    def test_sky_is_interpolated_and_held_at_the_sides(self):
        table = {
            "ALLSKY": [np.array([[0.0, 10], [20, 30]])],
            "XINTERP": [np.array([-0.5, 0.0, 0.25, 1.0, 1.5])],
            "YINTERP": [np.array([0.0, 0.5])],
        }
        expected = [[0, 0, 2.5, 10, 10], [10, 10, 12.5, 20, 20]]
        np.testing.assert_allclose(full_sky(table), expected)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"bands": "gy"}, ValueError, "bands: SDSS has u, g, r, i, z, got"),
        ({"bands": ""}, ValueError, r"bands: SDSS has u, g, r, i, z, got \(\)"),
        ({"size": None}, ValueError, "size: expected a number of pixels"),
        ({"size": -1}, ValueError, "size"),
        ({"size": 4000}, ValueError, "size: a cutout of .* arcmin is too large"),
        ({"pixel_scale": 3}, TypeError, "pixel_scale"),
        ({"data_release": 7}, ValueError, "data_release: expected 13 or later, got 7"),
        ({"coords": 3}, TypeError, "coordinates"),
        ({"ids": [1, 2]}, ValueError, "ids"),
    ],
)
def test_wrong_argument_is_named(service, arguments, error, match):
    with pytest.raises(error, match=match):
        fetch(service, **arguments)
    assert not service.fetched


@pytest.mark.remote_data
def test_real_service():
    """Tells if the SkyServer, the archive or the frames changed."""
    # A galaxy at redshift 0.080: SDSS plate 266, MJD 51630, fiber 598, whose spectrum is
    # calibrated to r = 18.16 (CALIBFLUX of the SPECOBJ table).
    coords = SkyCoord([146.90289, 146.90289] * u.deg, [0.20894, -80.0] * u.deg)
    cutouts = SDSS.get_cutouts(coords, bands="gr", size=100, cache=False, progress=False)
    assert list(cutouts.catalog["status"]) == ["ok", "off-footprint"]
    assert cutouts.shape == (2, 2, 100, 100)
    assert cutouts.unit == u.nmgy
    assert 0.8 < cutouts.psf_fwhm[1].value < 2
    data, ivar, _ = cutouts.arrays([0])
    x, y = cutouts.wcs[0].world_to_pixel(coords[0])
    radius = np.hypot(*(np.mgrid[:100, :100] - np.array([y, x])[:, None, None])) * 0.396
    flux = data[0, 1][radius < 1.5].sum()
    assert 22.5 - 2.5 * np.log10(flux) == pytest.approx(18.3, abs=0.4)
    # The inverse variance says what the sky between the galaxies scatters.
    sky = radius > 10
    pulls = data[0, 0][sky] * np.sqrt(ivar[0, 0][sky])
    assert 0.7413 * np.subtract(*np.percentile(pulls, [75, 25])) == pytest.approx(1, abs=0.2)
