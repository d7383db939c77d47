"""Legacy Survey cutouts, against a local server that behaves and misbehaves as theirs does."""

import signal
import subprocess
import sys
import time
from collections import Counter
from io import BytesIO

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from astro_morphvae.cutouts import CutoutSet
from astro_morphvae.datasets import make_galaxies
from astro_morphvae.exceptions import MorphVAEWarning
from astro_morphvae.tests.survey_server import (
    FAILURES,
    NATIVE,
    CutoutSource,
    SurveyServer,
    SyntheticSky,
    signature,
)

pytest.importorskip("astroquery")

from astro_morphvae._download import InvalidReply, Reply, Request
from astro_morphvae.surveys import LegacySurvey, LegacySurveyClass
from astro_morphvae.surveys._legacy_files import FitsReader, check_fits
from astro_morphvae.surveys.legacy import conf

SOUTH = "ls-dr9-south"


@pytest.fixture(autouse=True)
def quick():
    """Wait less than one would for a real service."""
    with conf.set_temp("timeout", 5.0), conf.set_temp("backoff", 0.01):
        yield


@pytest.fixture
def server():
    with SurveyServer() as server, conf.set_temp("server", server.url):
        yield server


@pytest.fixture
def fetch(tmp_path):
    def get_cutouts(coords, layer=SOUTH, size=16, **keywords):
        given = {"cache": tmp_path / "cache", "progress": False, **keywords}
        return LegacySurvey.get_cutouts(coords, layer=layer, size=size, **given)

    return get_cutouts


def sky(*positions):
    return SkyCoord([p[0] for p in positions], [p[1] for p in positions], unit="deg")


def random_sky(n, seed=0, south=-55):
    rng = np.random.default_rng(seed)
    return SkyCoord(rng.uniform(0, 360, n), rng.uniform(south, 30, n), unit="deg")


def marks_of(coords):
    """What the corner pixel of each cutout has to hold."""
    return np.array([signature(f"{c.ra.deg:.7f}", f"{c.dec.deg:.7f}") for c in coords])


def statuses(cutouts):
    return [str(status).partition(":")[0] for status in cutouts.catalog["status"]]


def test_each_position_is_one_row_in_its_place(server, fetch):
    coords = random_sky(50)
    names = [f"galaxy {number}" for number in range(50)]
    cutouts = fetch(coords, ids=names, catalog={"redshift": np.arange(50) / 50})
    assert cutouts.shape == (50, 3, 16, 16)
    assert (cutouts.unit, cutouts.bands, cutouts.meta["survey"]) == (u.nmgy, ("g", "r", "z"), SOUTH)
    assert cutouts.pixel_scale == NATIVE * u.arcsec
    assert cutouts.good.all()
    np.testing.assert_allclose(cutouts.data[:, :, 0, 0], np.c_[marks_of(coords)] * [1, 1, 1])
    assert list(cutouts.catalog["id"]) == names
    np.testing.assert_array_equal(cutouts.catalog["redshift"], np.arange(50) / 50)
    np.testing.assert_array_equal(cutouts.catalog["ra"], coords.ra)
    np.testing.assert_array_equal(cutouts.catalog["dec"], coords.dec)
    x, y = cutouts.wcs[7].world_to_pixel(coords[7])
    np.testing.assert_allclose([x, y], 7.5, atol=1e-3)
    north_east = cutouts.wcs[7].pixel_to_world(7.5 - 5, 7.5 + 5)
    east, north = coords[7].spherical_offsets_to(north_east)
    np.testing.assert_allclose([east.arcsec, north.arcsec], 5 * NATIVE, atol=1e-3)


def test_each_trouble_has_its_status(server, fetch):
    coords = sky((10, -85), (10, -75), (10, -65), (np.nan, 0), (10, 0), (0, np.nan))
    cutouts = fetch(coords)
    assert list(cutouts.catalog["status"]) == [
        "off-footprint: HTTP 500 Internal Server Error (5 attempts)",
        "off-footprint: every pixel is 0",
        "incomplete-bands: z",
        "invalid-position",
        "ok",
        "invalid-position",
    ]
    bad = ~cutouts.good
    assert np.isnan(cutouts.data[bad]).all()
    assert cutouts.mask[bad].all()
    assert not cutouts.ivar[bad].any()
    np.testing.assert_allclose(cutouts.data[4, :, 0, 0], marks_of(coords[4:5])[0])
    # A band that is not asked for may be missing.
    assert fetch(coords[2:3], bands="gr").good.all()


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_is_overcome(server, fetch, failure):
    server.failures = [failure] * 2
    with conf.set_temp("timeout", 0.4):
        cutouts = fetch(sky((10, 0), (11, 0)))
    assert cutouts.good.all()
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        ("empty", "invalid-file: empty"),
        ("truncated", "invalid-file: "),
        ("page", "invalid-file: '<html>"),
        ("503", "server-error: HTTP 503"),
        ("reset", "connection-error: "),
    ],
)
def test_failure_that_persists_is_a_status(server, fetch, failure, status, tmp_path):
    server.failures = [failure] * 5
    cutouts = fetch(sky((10, 0)))
    assert cutouts.catalog["status"][0].startswith(status)
    assert not list(tmp_path.rglob("cache/*/*"))
    assert fetch(sky((10, 0))).good.all()


def test_nothing_is_fetched_twice(server, fetch):
    coords = random_sky(20)
    coords = coords[[*range(20), *range(20)]]
    first = fetch(coords)
    assert len(server.requests) == 20
    again = fetch(coords[::-1], bands="zrg")
    assert len(server.requests) == 20
    np.testing.assert_array_equal(again.data[::-1, ::-1], first.data)
    assert again.bands == ("z", "r", "g")


def test_values_are_flux_per_pixel_at_any_scale(server, fetch):
    coords = random_sky(3)
    for scale in (0.2, NATIVE, 0.4):
        cutouts = fetch(coords, pixel_scale=scale * u.arcsec)
        np.testing.assert_allclose(cutouts.data[:, 0, 0, 0], marks_of(coords), rtol=1e-6)
        expected = 0.02**-2 / (scale / NATIVE) ** 4
        np.testing.assert_allclose(cutouts.ivar[:, :, 5, 5], expected, rtol=1e-5)
        assert cutouts.pixel_scale == scale * u.arcsec


def test_galaxies_come_back_as_they_are_on_the_sky(fetch):
    galaxies = make_galaxies(4, size=48, seed=3)
    coords = SkyCoord(galaxies.catalog["ra"], galaxies.catalog["dec"])
    with SurveyServer(layers={SOUTH: CutoutSource(galaxies)}) as server:
        same = fetch(coords, size=48, server=server.url)
        coarse = fetch(coords, size=32, pixel_scale=0.393 * u.arcsec, server=server.url)
        off = fetch(coords[:1].directional_offset_by(0 * u.deg, 1 * u.deg), server=server.url)
    np.testing.assert_array_equal(same.data, galaxies.data)
    np.testing.assert_allclose(same.ivar, galaxies.ivar)
    # The same square of sky holds the same flux.
    fine, wide = (c.arrays()[0].sum(axis=(2, 3)) for c in (same, coarse))
    np.testing.assert_allclose(wide, fine, rtol=1e-4)
    assert statuses(off) == ["off-footprint"]


def test_one_band_is_an_image_of_two_axes(server, fetch):
    cutouts = fetch(sky((10, 0), (12, 0)), bands="r")
    assert cutouts.shape == (2, 1, 16, 16)
    assert cutouts.good.all()
    assert fits_of(server, bands="r")[0].header["NAXIS"] == 2


def test_sides_may_differ(server, fetch):
    cutouts = fetch(sky((10, 0)), size=(12, 20))
    assert cutouts.size == (12, 20)
    assert "width=20&height=12" in server.requests[0]


def fits_of(server, **params):
    params = {"ra": "10.0000000", "dec": "0.0000000", "layer": SOUTH, "size": "16", **params}
    view = server._routes["/viewer/fits-cutout"]
    return fits.HDUList.fromstring(
        b"".join(view({"bands": "grz", "pixscale": "0.262", **params}).body)
    )


def test_maskbits(server, fetch):
    coords = sky((10, 0))
    default, chosen = fetch(coords), fetch(coords, maskbits=1 << 12)
    none = fetch(coords, maskbits=False)
    r_saturated = np.zeros((3, 16, 16), dtype=bool)
    r_saturated[1, 1, 0] = True
    np.testing.assert_array_equal(default.mask[0], r_saturated)
    assert default.ivar[0, 1, 1, 0] == 0
    assert [tuple(place) for place in np.argwhere(chosen.mask[0])] == [(b, 1, 1) for b in range(3)]
    assert none.mask is None
    assert "maskbits" not in server.requests[-1]


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_images_are_told_by_imagetyp(server, fetch, case):
    server.imagetyp = case
    cutouts = fetch(sky((10, 0)))
    assert cutouts.ivar[0, 0, 5, 5] == pytest.approx(2500)
    assert cutouts.mask[0].sum() == 1


def test_no_inverse_variance_for_large_pixels(server, fetch):
    coords = sky((10, 0))
    with pytest.warns(MorphVAEWarning, match="no inverse variance and no mask for pixels of 0.524"):
        cutouts = fetch(coords, pixel_scale=0.6 * u.arcsec)
    assert cutouts.good.all()
    assert cutouts.ivar is None
    assert fetch(coords, pixel_scale=0.6 * u.arcsec, uncertainty=False).good.all()
    with pytest.raises(
        ValueError, match="uncertainty: the service has no inverse variance for pix"
    ):
        fetch(coords, pixel_scale=0.6 * u.arcsec, uncertainty=True)
    with pytest.raises(ValueError, match="no inverse variance for images of kind 'model'"):
        fetch(coords, layer="ls-dr9-south-model", uncertainty=True)


def test_inverse_variance_that_is_left_out_is_noticed(fetch):
    def without(ra, dec, bands, size, pixel_scale):
        return np.ones((len(bands), *size)), None, None

    without.bands = "grz"
    with SurveyServer(layers={SOUTH: without}) as server:
        cutouts = fetch(sky((10, 0)), server=server.url)
        plain = fetch(sky((10, 0)), server=server.url, uncertainty=False, maskbits=False)
    assert cutouts.catalog["status"][0] == "invalid-file: no invvar came (5 attempts)"
    assert plain.good.all()


def test_pixels_no_exposure_reached_are_masked(fetch):
    def partly(ra, dec, bands, size, pixel_scale):
        data, ivar = np.ones((2, len(bands), *size))
        data[:, 3], ivar[:, 3] = 0, 0
        return data, ivar, None

    partly.bands = "grz"
    with SurveyServer(layers={SOUTH: partly}) as server:
        for uncertainty in (True, False):
            cutouts = fetch(
                sky((10, 0)), server=server.url, uncertainty=uncertainty, maskbits=False
            )
            assert np.argwhere(cutouts.mask.any(axis=(0, 1, 3))).ravel().tolist() == [3]


class Disc:
    """A disc of 1 in a sky of 0, as a model is; the bands named are 0 everywhere."""

    bands = "grz"

    def __init__(self, blank=""):
        self.blank = blank

    def __call__(self, ra, dec, bands, size, pixel_scale):
        y, x = np.mgrid[: size[0], : size[1]]
        disc = np.hypot(x - (size[1] - 1) / 2, y - (size[0] - 1) / 2) < 5
        return np.stack([disc * float(band not in self.blank) for band in bands]), None, None


@pytest.mark.parametrize(
    ("blank", "status", "resid_status"),
    [
        ("", "ok", "ok"),
        ("g", "blank band: g", "incomplete-bands: g"),
        ("grz", "all zero", "off-footprint: every pixel is 0"),
    ],
)
def test_models_are_0_between_the_sources(fetch, blank, status, resid_status):
    source = Disc(blank)
    layers = dict.fromkeys(("ls-dr9-south-model", "ls-dr9-south-resid"), source)
    with SurveyServer(layers=layers) as server:
        model, resid = (fetch(sky((10, 0)), layer=name, server=server.url) for name in layers)
    assert list(model.catalog["status"]) == [status]
    # What is left of an image is 0 only where there is no image.
    assert list(resid.catalog["status"]) == [resid_status]
    if not blank:
        assert model.mask is None
        np.testing.assert_array_equal(model.data[0], source(10, 0, "grz", (16, 16), NATIVE)[0])
        np.testing.assert_array_equal(resid.mask[0], model.data[0] == 0)


def nothing(ra, dec, bands, size, pixel_scale):
    """See nothing, of which the service tells with status 500."""


nothing.bands = "grz"


def test_server_out_of_order_is_not_the_footprint(fetch, tmp_path):
    coords = sky(*((ra, -1) for ra in range(25)), (np.nan, 0))
    keywords = {"uncertainty": False, "maskbits": False}
    broken = ["server-error"] * 25 + ["invalid-position"]
    with conf.set_temp("retries", 1), SurveyServer(layers={SOUTH: nothing}) as server:
        keywords["server"] = server.url
        cutouts = fetch(coords, **keywords)
        assert statuses(cutouts) == broken
        assert cutouts.catalog["status"][3] == (
            "server-error: HTTP 500 Internal Server Error (2 attempts), "
            "and no other position was answered"
        )
        assert statuses(fetch(coords, output=tmp_path / "a.fits", **keywords)) == broken
        replies = LegacySurvey.get_images_async(
            coords, layer=SOUTH, size=16, cache=False, progress=False, **keywords
        )
        assert [reply.status for reply in replies] == broken
        # A few positions may well lie off the footprint together.
        assert statuses(fetch(coords[:19], **keywords)) == ["off-footprint"] * 19


@pytest.mark.parametrize("place", [0, 12, 24])
def test_one_answer_shows_that_the_server_works(fetch, tmp_path, place):
    def south_of_the_equator(ra, dec, *asked):
        return Disc()(ra, dec, *asked) if dec < 0 else None

    south_of_the_equator.bands = "grz"
    coords = sky(*((ra, -1 if ra == place else 1) for ra in range(25)))
    expected = ["ok" if row == place else "off-footprint" for row in range(25)]
    with (
        conf.set_temp("retries", 0),
        SurveyServer(layers={SOUTH: south_of_the_equator}) as server,
    ):
        keywords = {"uncertainty": False, "maskbits": False, "server": server.url}
        assert statuses(fetch(coords, **keywords)) == expected
        cutouts = fetch(coords, output=tmp_path / "a.fits", **keywords)
        assert statuses(cutouts) == expected
        np.testing.assert_array_equal(cutouts.data[place, 0, 7:9, 7:9], 1)
        replies = LegacySurvey.get_images_async(
            coords, layer=SOUTH, size=16, cache=False, progress=False, **keywords
        )
        assert [reply.status for reply in replies] == expected


def test_layer_the_service_does_not_know(fetch):
    with SurveyServer(layers={"ls-dr9-north": SyntheticSky()}) as server:
        cutouts = fetch(sky((10, 0)), server=server.url)
        assert len(server.requests) == 1
    assert list(cutouts.catalog["status"]) == [f"refused: no such layer: {SOUTH}"]


def test_bands_the_service_replaces_are_noticed(fetch):
    with SurveyServer(layers={SOUTH: SyntheticSky("gr")}) as server:
        cutouts = fetch(sky((10, 0)), server=server.url)
    assert list(cutouts.catalog["status"]) == ["invalid-file: bands 'gr' in place of 'grz'"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": "17"}, "pixels in place of"),
        ({"ra": "10.001"}, "centred 3.6 arcsec off"),
        ({"pixscale": "0.27"}, "pixel scale 0.262 in place of 0.27"),
        ({"bands": "zrg"}, "bands 'grz' in place of 'zrg'"),
        ({"invvar": "1"}, "no invvar came"),
    ],
)
def test_reply_to_another_question_is_noticed(server, changed, message):
    asked = {"ra": "10.0000000", "dec": "0.0000000", "layer": SOUTH, "pixscale": "0.262"}
    asked |= {"size": "16", "bands": "grz"}
    content = b"".join(server._routes["/viewer/fits-cutout"](asked).body)
    assert check_fits(content, Request(server.url, asked)).data.shape == (3, 16, 16)
    with pytest.raises(InvalidReply, match=message) as caught:
        check_fits(content, Request(server.url, asked | changed))
    assert caught.value.status == "invalid-file"


def test_reply_without_overlap_is_off_the_footprint(server):
    header = fits.Header({"OVERLAP": False, "IMAGETYP": "IMAGE", "BANDS": "grz"})
    buffer = BytesIO()
    fits.PrimaryHDU(header=header).writeto(buffer)
    for content in (buffer.getvalue(), b"no overlap", b"No overlap with the survey"):
        with pytest.raises(InvalidReply, match="off-footprint: no overlap") as caught:
            check_fits(content, ASKED)
        assert not caught.value.retry


def test_compressed_reply_is_read(server):
    asked = {"ra": "10.0000000", "dec": "0.0000000", "layer": SOUTH, "pixscale": "0.262"}
    asked |= {"size": "16", "bands": "grz", "invvar": "1"}
    plain = fits_of(server, **asked)
    packed = fits.HDUList([fits.PrimaryHDU()])
    for hdu in plain:
        header = hdu.header.copy(strip=True)
        packed.append(
            fits.CompImageHDU(hdu.data, header, compression_type="GZIP_2", quantize_level=0)
        )
    buffer = BytesIO()
    packed.writeto(buffer)
    images = check_fits(buffer.getvalue(), Request(server.url, asked))
    np.testing.assert_array_equal(images.data, plain[0].data)
    np.testing.assert_array_equal(images.ivar, plain[1].data)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("ls-dr10-north", "DR10 has no northern part"),
        ("ls-dr9-model-resid", "expected one of ls-dr9-south"),
        ("sdss", "expected one of ls-dr9-south"),
        ("", "got ''"),
        (None, "got None"),
    ],
)
def test_wrong_layer_is_named(fetch, layer, message):
    with pytest.raises(ValueError, match=message):
        fetch(sky((10, 0)), layer=layer)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"bands": "gri"}, ValueError, "bands: layer 'ls-dr9-south' has g, r, z"),
        ({"bands": ""}, ValueError, "bands"),
        ({"size": 3001}, ValueError, "size: the service gives at most 3000"),
        ({"size": 0}, ValueError, "size"),
        ({"size": None}, ValueError, "size: the service gives at most 3000 pixels, got None"),
        ({"pixel_scale": 0.3}, TypeError, "pixel_scale: expected an angle"),
        ({"pixel_scale": 1 * u.deg}, ValueError, "pixel_scale: expected an angle up to"),
        ({"maskbits": True}, TypeError, "maskbits: expected an integer"),
        ({"maskbits": "SATUR"}, TypeError, "maskbits: expected an integer"),
        ({"ids": [1, 2]}, ValueError, "ids: 2 identifiers for 1 positions"),
        ({"catalog": {"a": [1, 2]}}, ValueError, "catalog: 2 rows for 1 positions"),
    ],
)
def test_wrong_argument_is_named_before_anything_is_asked(server, fetch, keywords, error, message):
    with pytest.raises(error, match=message):
        fetch(sky((10, 0)), **keywords)
    assert server.requests == []


def test_positions_in_other_forms(server, fetch):
    from astroquery.exceptions import InputWarning

    centre = SkyCoord(200 * u.deg, 10 * u.deg)
    assert len(fetch(centre)) == 1
    galactic = fetch(centre.galactic)
    assert galactic.catalog["ra"][0].to_value("deg") == pytest.approx(200)
    with pytest.warns(InputWarning, match="interpreted as an ICRS coordinate"):
        assert fetch("200d 10d").good.all()
    for coords in ([200.0, 10.0], None):
        with pytest.raises(TypeError, match="coordinates: expected a SkyCoord or a table"):
            fetch(coords)
    with pytest.raises(ValueError, match="coordinates: expected one dimension"):
        fetch(sky((10, 0), (11, 0)).reshape(2, 1))
    with pytest.raises(ValueError, match="coordinates: no positions"):
        fetch(sky((10, 0))[:0])


def test_positions_of_a_table(server, fetch):
    ra = np.ma.masked_array([200.0, 210.0, 220.0, 230.0], mask=[0, 1, 0, 0])
    cutouts = fetch(Table({"ra": ra, "dec": [10, 11, 12, 91], "ra_err": np.ones(4)}))
    assert statuses(cutouts) == ["ok", "invalid-position", "ok", "invalid-position"]
    np.testing.assert_allclose(cutouts.catalog["ra"].to_value("deg")[[0, 2]], [200, 220])
    np.testing.assert_array_equal(cutouts.catalog["dec"].to_value("deg")[[0, 2]], [10, 12])
    hours = QTable({"ra": [1.5] * u.hourangle, "dec": [-600] * u.arcmin})
    assert hours["ra"].unit == u.hourangle
    found = fetch(hours).catalog
    assert found["ra"][0].to_value("deg") == pytest.approx(22.5)
    assert found["dec"][0].to_value("deg") == pytest.approx(-10)
    for table, message in (
        (Table({"RA": [1.0], "dec": [2.0]}), "coordinates: the table has no column 'ra', but RA"),
        (Table({"ra": [1.0], "dec": ["+02:00"]}), "coordinates: column 'dec' holds no angles"),
        (QTable({"ra": [1] * u.m, "dec": [2.0]}), "coordinates: column 'ra' holds no angles"),
        (Table({"ra": [1.0], "dec": [1.0]})[:0], "coordinates: no positions"),
    ):
        with pytest.raises(ValueError, match=message):
            fetch(table)


def test_seam_and_poles(server, fetch):
    cutouts = fetch(sky((0, 0), (360, 0), (359.99999999, 0), (77, 90)))
    assert cutouts.good.all()
    assert fetch(sky((77, -90))).catalog["status"][0].startswith("off-footprint")


def layers_asked(server):
    return [
        dict(part.split("=") for part in r.split("?")[1].split("&"))["layer"]
        for r in server.requests
    ]


def test_half_of_the_release_is_that_of_the_position(server, fetch):
    # North of the border and of the Galactic plane; south of the border; south of the plane.
    coords = sky((180, 32.38), (180, 32.37), (0, 40))
    with conf.set_temp("max_connections", 1):
        cutouts = fetch(coords, layer="ls-dr9")
        fetch(coords[:1], layer="ls-dr9-resid")
    assert layers_asked(server) == [
        "ls-dr9-north",
        "ls-dr9-south",
        "ls-dr9-south",
        "ls-dr9-north-resid",
    ]
    assert cutouts.meta["survey"] == "ls-dr9"
    assert cutouts.psf_fwhm is None


def test_seeing_is_that_of_the_survey(server, fetch):
    north = fetch(sky((180, 40)), layer="ls-dr9-north", bands="zg")
    np.testing.assert_allclose(north.psf_fwhm.to_value("arcsec"), [1.01, 1.61])
    assert fetch(sky((10, 0)), layer="ls-dr10-south", bands="griz").psf_fwhm is None


def test_payload(server):
    payload = LegacySurvey.get_cutouts(
        sky((10, -5), (np.nan, 0)),
        layer=SOUTH,
        bands="zg",
        size=32,
        pixel_scale=0.3 * u.arcsec,
        get_query_payload=True,
    )
    expected = {"ra": "10.0000000", "dec": "-5.0000000", "layer": SOUTH, "pixscale": "0.3"}
    expected |= {"size": "32", "bands": "gz", "invvar": "1", "maskbits": "1"}
    assert payload == [[expected], []]
    for method in (LegacySurvey.get_images, LegacySurvey.get_images_async):
        assert method(sky((10, -5)), layer=SOUTH, get_query_payload=True)[0][0]["size"] == "256"
    picture = LegacySurvey.get_colour_images(sky((10, -5)), layer=SOUTH, get_query_payload=True)
    assert "bands" not in picture[0][0]
    assert server.requests == []


def test_to_a_file(server, fetch, tmp_path):
    coords = sky(*((ra, -75.0 if ra % 5 == 0 else 3.0) for ra in range(60)), (np.nan, 0))
    path = tmp_path / "cutouts.fits"
    in_memory = fetch(coords)
    for server.failure_rate in (0.0, 0.1):
        mapped = fetch(coords, output=path, overwrite=True, cache=False)
        np.testing.assert_array_equal(mapped.data, in_memory.data)
        np.testing.assert_array_equal(mapped.ivar, in_memory.ivar)
        np.testing.assert_array_equal(mapped.mask, in_memory.mask)
        assert statuses(mapped) == statuses(in_memory)
        assert mapped.catalog.colnames == in_memory.catalog.colnames
        assert mapped.wcs[1].wcs.crval.tolist() == [1.0, 3.0]
        assert mapped.wcs[0] is None
    asked = len(server.requests)
    with pytest.raises(FileExistsError):
        fetch(coords, output=path, cache=False)
    objects = {"shape": np.array([{"n": 1}] * 61, dtype=object)}
    with pytest.raises(TypeError, match="catalog: 'shape' holds Python objects"):
        fetch(coords, output=path, overwrite=True, cache=False, catalog=objects)
    assert len(server.requests) == asked
    assert isinstance(mapped.data, np.memmap)
    assert CutoutSet.read(path, verify=True).meta["survey"] == SOUTH


def test_file_in_many_batches(server, fetch, tmp_path, monkeypatch):
    monkeypatch.setattr("astro_morphvae.surveys._service._BYTES_AHEAD", 8 * 3 * 16 * 16 * 4 * 2)
    coords = random_sky(30)
    server.failure_rate = 0.1
    with conf.set_temp("timeout", 0.4):
        cutouts = fetch(coords, output=tmp_path / "cutouts.fits")
    np.testing.assert_allclose(cutouts.data[:, 1, 0, 0], marks_of(coords))


def test_images(server, tmp_path):
    keywords = {"layer": SOUTH, "size": 20, "cache": tmp_path, "progress": False}
    images = LegacySurvey.get_images(sky((10, 0), (11, 0)), **keywords)
    assert [len(hdus) for hdus in images] == [3, 3]
    assert images[1][0].data[0, 0, 0] == pytest.approx(signature(11, 0))
    from astroquery.exceptions import RemoteServiceError

    with pytest.raises(RemoteServiceError, match=r"dec=-75.*: off-footprint: every pixel is 0"):
        LegacySurvey.get_images(sky((10, 0), (11, -75)), **keywords)
    replies = LegacySurvey.get_images_async(sky((10, 0), (11, -75)), **keywords)
    assert [reply.status for reply in replies] == ["ok", "off-footprint"]
    lost = sky((10, 0), (np.nan, 0), (11, 0))
    replies = LegacySurvey.get_images_async(lost, **keywords)
    assert [reply.status for reply in replies] == ["ok", "invalid-position", "ok"]
    assert replies[1].request is None
    with pytest.raises(RemoteServiceError, match="a position: invalid-position"):
        LegacySurvey.get_images(lost, **keywords)
    assert replies[0].content.startswith(b"SIMPLE")


def test_colour_images(server, tmp_path):
    keywords = {"layer": SOUTH, "size": (20, 30), "cache": tmp_path, "progress": False}
    server.failures = ["truncated", "page", "empty"]
    pictures = LegacySurvey.get_colour_images(sky((10, 0), (11, 0)), **keywords)
    assert [picture.shape for picture in pictures] == [(20, 30, 3)] * 2
    assert pictures[0].dtype == np.uint8
    assert pictures[0][10, 15].min() > 200
    assert pictures[0][10, 15].min() > pictures[0][0, 15].max()
    from astroquery.exceptions import RemoteServiceError

    with pytest.raises(RemoteServiceError, match="off-footprint: HTTP 500"):
        LegacySurvey.get_colour_images(sky((10, -85)), **keywords)


def test_cache_is_that_of_astroquery(server, tmp_path):
    service = LegacySurveyClass()
    service.cache_location = tmp_path / "here"
    for _ in range(2):
        service.get_cutouts(sky((10, 0)), layer=SOUTH, size=16, progress=False)
    assert len(server.requests) == 1
    assert len(list((tmp_path / "here").glob("*/*"))) == 1
    service.clear_cache()
    service.get_cutouts(sky((10, 0)), layer=SOUTH, size=16, progress=False)
    assert len(server.requests) == 2
    service.reset_cache_location()
    assert service.cache_location.parts[-2:] == ("astroquery", "LegacySurvey")


def test_number_of_connections_is_bounded(server, fetch):
    server.latency = 0.005
    with conf.set_temp("max_connections", 3):
        fetch(random_sky(40))
    assert server.most_at_once <= 3
    assert server.connections <= 3


def test_settings_reach_the_download(server, tmp_path):
    """Whole seconds between requests would make a slow test; the moments are those of `Pace`."""
    for name, value in {"requests_per_second": 0.01, "retries": 0, "max_connections": 1}.items():
        assert getattr(LegacySurvey, name.upper()) != value
        with conf.set_temp(name, value):
            assert getattr(LegacySurvey, name.upper()) == value
    assert LegacySurvey.REQUESTS_PER_SECOND is None
    with conf.set_temp("retries", 0):
        server.failures = ["reset"]
        replies = LegacySurvey.get_images_async(
            sky((10, 0)), layer=SOUTH, cache=tmp_path, progress=False
        )
    assert [reply.attempts for reply in replies] == [1]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(allow_infinity=False), st.floats(-90, 90) | st.just(float("nan"))),
        min_size=1,
        max_size=5,
    )
)
def test_any_position_gets_a_status(positions):
    with SurveyServer() as server, conf.set_temp("retries", 0):
        cutouts = LegacySurvey.get_cutouts(
            sky(*positions), layer="ls-dr9", size=8, server=server.url, cache=False, progress=False
        )
    known = {"ok", "off-footprint", "incomplete-bands", "invalid-position"}
    assert set(statuses(cutouts)) <= known
    finite = [bool(np.isfinite(p).all()) for p in positions]
    assert [status != "invalid-position" for status in statuses(cutouts)] == finite


CONTENT = b"".join(
    SurveyServer()
    ._fits_cutout(
        {"ra": "10", "dec": "0", "layer": SOUTH, "size": "16", "invvar": "", "maskbits": ""}
    )
    .body
)
ASKED = Request(
    "http://127.0.0.1/",
    {"ra": "10", "dec": "0", "layer": SOUTH, "pixscale": "0.262", "size": "16", "bands": "grz"},
)


@settings(max_examples=150, deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore")  # what astropy says of a broken header
def test_any_body_is_a_cutout_or_an_invalid_reply(data):
    content = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(0, 8))):
        place = data.draw(st.integers(0, 2880 * 2))
        content[place : place + 1] = data.draw(st.binary(max_size=3))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    status = "ok"
    try:
        images = check_fits(content, ASKED)
    except InvalidReply as reply:
        status, images = reply.status, None
    assert status in ("ok", "invalid-file", "off-footprint", "incomplete-bands")
    if images is not None:  # it can be read
        record = FitsReader(NATIVE, True, None)([Reply(ASKED, value=images)], 0)
        assert record.data.shape == (3, 16, 16)


CLIENT = """
import sys
import numpy as np
from astropy.coordinates import SkyCoord
from astro_morphvae.surveys import LegacySurvey
from astro_morphvae.surveys.legacy import conf
conf.timeout, conf.backoff = 0.5, 0.02
rng = np.random.default_rng(7)
coords = SkyCoord(rng.uniform(0, 360, 150), rng.uniform(-75, 30, 150), unit="deg")
LegacySurvey.get_cutouts(
    coords, layer="ls-dr9-south", size=16, server=sys.argv[1], cache=sys.argv[2],
    output=sys.argv[3], progress=False,
)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_killed_run_is_continued(tmp_path):
    folder, path = tmp_path / "cache", tmp_path / "cutouts.fits"
    rng = np.random.default_rng(7)
    coords = SkyCoord(rng.uniform(0, 360, 150), rng.uniform(-75, 30, 150), unit="deg")
    expected = [
        "off-footprint" if dec < -70 else "incomplete-bands" if dec < -60 else "ok"
        for dec in coords.dec.deg
    ]
    with SurveyServer(failure_rate=0.05, latency=0.02, seed=4) as server:
        query = LegacySurvey._make_query(coords, layer=SOUTH, size=16, server=server.url)
        keys = {
            request.full_url.removeprefix(server.url): request.key(query.check.version)
            for (request,) in query.rows
        }
        kept, asked, ends = set(), 0, []
        for number in (signal.SIGKILL, None):
            process = subprocess.Popen(
                [sys.executable, "-c", CLIENT, server.url, str(folder), str(path)],
                stderr=subprocess.DEVNULL,
            )
            while number is not None and len(server.requests) < asked + 60:
                assert process.poll() is None
                time.sleep(0.002)
            if number is not None:
                process.send_signal(number)
            ends.append(process.wait() == 0)
            new, asked = server.requests[asked:], len(server.requests)
            assert not kept & {keys[address] for address in new}  # nothing is asked for again
            before, kept = kept, {file.name for file in folder.glob("*/[0-9a-f]*")}
            assert before <= kept
            for file in folder.glob("*/[0-9a-f]*"):
                with fits.open(file) as hdus:
                    assert [hdu.data.shape for hdu in hdus] == [(3, 16, 16)] * 2 + [(16, 16)]
            assert path.exists() == (number is None)
    assert ends == [False, True]
    cutouts = CutoutSet.read(path)
    assert statuses(cutouts) == expected
    assert len(kept) == expected.count("ok")
    good = cutouts.good
    np.testing.assert_allclose(cutouts.data[good][:, 0, 0, 0], marks_of(coords[good]))
    # What was on its way at a kill may have been delivered before.
    counts = Counter(server.delivered().values())
    assert sum(n for times, n in counts.items() if times > 1) <= conf.max_connections


def test_import_waits_for_astroquery():
    code = (
        "import sys; sys.modules['astroquery'] = None\n"
        "import astro_morphvae.surveys as surveys\n"
        "try: surveys.LegacySurvey\n"
        "except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs the package 'astroquery'" in result.stdout
    assert "pip install 'astro_morphvae[survey]'" in result.stdout


@pytest.mark.remote_data
class TestService:
    """The real service: whether it still does what the local server does."""

    galaxy = SkyCoord(190.1086, 1.2005, unit="deg")
    north = SkyCoord(154.7709, 46.4537, unit="deg")

    @pytest.fixture(autouse=True)
    def real(self):
        with conf.set_temp("timeout", 60.0), conf.set_temp("backoff", 0.5):
            yield

    @pytest.mark.parametrize(
        ("layer", "bands"), [(SOUTH, "grz"), ("ls-dr9-north", "grz"), ("ls-dr10-south", "griz")]
    )
    def test_layers(self, fetch, layer, bands):
        centre = self.north if "north" in layer else self.galaxy
        cutouts = fetch(centre, layer=layer, bands=bands, size=100)
        assert list(cutouts.catalog["status"]) == ["ok"]
        data, ivar, _ = cutouts.arrays()
        assert (ivar > 0).mean() > 0.9
        # Noise agrees with the inverse variance, so that both have the units they should have.
        quiet = np.abs(data - np.median(data)) < 5 / np.sqrt(np.median(ivar))
        pull = (data * np.sqrt(ivar))[quiet]
        assert 0.5 < pull.std() < 3

    def test_values_are_per_native_pixel(self, fetch):
        flux = [
            fetch(
                self.galaxy, size=round(60 / scale), pixel_scale=scale * u.arcsec, uncertainty=False
            )
            .arrays()[0]
            .sum()
            for scale in (NATIVE, 1.0)
        ]
        assert flux[1] == pytest.approx(flux[0], rel=0.05)

    def test_one_band_and_models(self, fetch):
        assert fetch(self.galaxy, bands="r", size=40).good.all()
        for kind in ("-model", "-resid"):
            assert fetch(self.galaxy, layer=SOUTH + kind, size=40).good.all()

    def test_off_footprint(self, fetch):
        assert statuses(fetch(sky((266.4, -29.0)), size=40)) == ["off-footprint"]

    def test_replies_that_say_nothing(self):
        def get(**params):
            asked = {"ra": 190.1086, "dec": 1.2005, "layer": SOUTH, "size": 20, "bands": "grz"}
            return Request(conf.server + "/viewer/fits-cutout", asked | params)

        from astro_morphvae._download import Downloader

        requests = [get(layer="ls-dr99"), get(bands="gq"), get(pixscale=0.6, invvar=1)]
        replies = Downloader(cache=False).fetch(requests)
        assert b"no such layer" in replies[0].content
        assert fits.HDUList.fromstring(replies[1].content)[0].header["BANDS"].strip() == "grz"
        assert len(fits.HDUList.fromstring(replies[2].content)) == 1

    def test_colour_images(self, tmp_path):
        (picture,) = LegacySurvey.get_colour_images(
            self.galaxy, layer=SOUTH, size=64, cache=tmp_path
        )
        assert picture.shape == (64, 64, 3)
        assert picture.std() > 5
