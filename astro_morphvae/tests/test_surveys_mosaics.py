import itertools
import sys
import tracemalloc
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, Sip
from hypothesis import given, settings
from hypothesis import strategies as st

from astro_morphvae import extract_cutouts
from astro_morphvae.cutouts._wcs import shift_wcs
from astro_morphvae.exceptions import CutoutMismatchError
from astro_morphvae.surveys.mosaics import Mosaic, from_mosaics
from astro_morphvae.tests.cutout_samples import make_wcs

SCALE = 0.262
SHAPE = (120, 160)


def sources(wcs, shape, width=2.0):
    """A sky of Gaussian sources of known flux, on any grid; flux per pixel."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    area = np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600 / SCALE
    for number, (east, north) in enumerate(np.mgrid[-3:4, -2:3].reshape(2, -1).T):
        sky = SkyCoord((10 + east * 0.0021) * u.deg, (20 + north * 0.0023) * u.deg)
        x0, y0 = wcs.world_to_pixel(sky)
        r2 = (x - x0) ** 2 + (y - y0) ** 2
        sigma = width / area
        image += (number + 5) * np.exp(-r2 / 2 / sigma**2) / (2 * np.pi * sigma**2)
    return image


def tile(wcs, shape=SHAPE, band="r", ivar=4.0, seed=None, **kwargs):
    data = sources(wcs, shape)
    if seed is not None:
        data = data + np.random.default_rng(seed).normal(0, ivar**-0.5, shape)
    arguments = {"unit": u.nmgy, "wcs": wcs, "meta": {"BAND": band}, **kwargs}
    if ivar is not None:
        arguments["uncertainty"] = InverseVariance(np.full(shape, ivar))
    return NDData(data.astype(np.float32), **arguments)


def halves(band="r", gap=0):
    """One image cut into a left and a right part that touch."""
    wcs = make_wcs(crpix=(80, 60))
    whole = tile(wcs, band=band)
    parts = []
    for first, last in ((0, 90), (90 + gap, 160)):
        parts.append(
            NDData(
                whole.data[:, first:last],
                unit=u.nmgy,
                wcs=shift_wcs(wcs, first, 0),
                uncertainty=InverseVariance(whole.uncertainty.array[:, first:last]),
                meta={"BAND": band},
            )
        )
    return whole, parts


def sky_of(image, x, y):
    return image.wcs.pixel_to_world(np.atleast_1d(x), np.atleast_1d(y))


def write(path, data, wcs=None, **cards):
    hdu = fits.PrimaryHDU(np.asarray(data))
    if wcs is not None:
        hdu.header.update(wcs.to_header())
    hdu.header.update(cards)
    hdu.writeto(path)
    return path


def test_one_tile_gives_what_extract_cutouts_gives():
    image = tile(make_wcs(crpix=(80, 60)), seed=1)
    image.mask = np.zeros(SHAPE, dtype=bool)
    image.mask[60, 80] = True
    sky = sky_of(image, [80.2, 40.4, 3.0], [60.1, 33.5, 70])
    found = from_mosaics([image], sky, size=(20, 24))
    expected = extract_cutouts(image, sky, (20, 24))
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(found.ivar, expected.ivar)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_allclose(found.catalog["coverage"], expected.catalog["coverage"])
    for one, other in zip(found.wcs, expected.wcs, strict=True):
        np.testing.assert_allclose(one.wcs.crpix, other.wcs.crpix)
    np.testing.assert_array_equal(found.catalog["noise_correlation"], 1)
    assert found.unit == u.nmgy
    assert found.pixel_scale.value == pytest.approx(SCALE, rel=1e-6)


def test_parts_of_one_grid_are_joined_without_interpolation():
    whole, parts = halves()
    sky = sky_of(whole, [89.6, 92, 50, 88], [60, 30, 60, 5])
    found = from_mosaics(parts, sky, size=25)
    expected = extract_cutouts(whole, sky, 25)
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(found.ivar, expected.ivar)
    np.testing.assert_allclose(found.catalog["coverage"], expected.catalog["coverage"])
    np.testing.assert_array_equal(found.catalog["noise_correlation"], 1)


def test_gap_between_tiles_is_masked():
    whole, parts = halves(gap=3)
    cutouts = from_mosaics(parts, sky_of(whole, 90, 60), size=25)
    assert cutouts.catalog["coverage"][0] == pytest.approx(22 / 25)
    assert cutouts.mask[0, 0].all(axis=0).sum() == 3
    assert (cutouts.ivar[cutouts.mask] == 0).all()
    assert (cutouts.data[cutouts.mask] == 0).all()


def rotated_tiles(**kwargs):
    pytest.importorskip("reproject")
    left = make_wcs(crpix=(120, 60))
    right = make_wcs(ra=10.0005, crpix=(-10.3, 60.8), rotation=0.06)
    return tile(left, **kwargs), tile(right, **{**kwargs, "seed": kwargs.get("seed")})


def test_across_the_edges_of_other_grids_flux_is_kept():
    left, right = rotated_tiles()
    sky = sky_of(left, [152, 145, 138], [62, 50, 70])
    cutouts = from_mosaics([left, right], sky, size=48)
    assert cutouts.good.all()
    np.testing.assert_array_equal(cutouts.catalog["coverage"], 1)
    assert (cutouts.catalog["noise_correlation"][1:] > 1.02).all()
    for row in range(3):
        truth = sources(cutouts.wcs[row], (48, 48))
        # Bilinear interpolation widens a source a little, and keeps its flux.
        np.testing.assert_allclose(cutouts.data[row, 0], truth, atol=0.08 * truth.max())
        assert cutouts.data[row].sum() == pytest.approx(truth.sum(), rel=5e-3)


def test_one_missing_column_is_interpolated():
    left, right = rotated_tiles()
    cutouts = from_mosaics([left, right], sky_of(left, 136, 60), size=49)
    assert cutouts.catalog["coverage"][0] == 1
    truth = sources(cutouts.wcs[0], (49, 49))
    np.testing.assert_array_equal(cutouts.data[0, 0, :, :48], left.data[36:85, 112:160])
    np.testing.assert_allclose(cutouts.data[0, 0, :, 48], truth[:, 48], atol=0.08 * truth.max())
    assert (cutouts.ivar[0, 0, :, 48] > 4).all()


def test_noise_across_edges_has_the_variance_it_says():
    left, right = (
        make_wcs(crpix=(120, 60)),
        make_wcs(ra=10.0005, crpix=(-10.3, 60.8), rotation=0.06),
    )
    pytest.importorskip("reproject")
    sky = tile(left).wcs.pixel_to_world(142, 60)
    pulls, sums, variances = [], [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        tiles = [
            NDData(
                rng.normal(0, 0.5, SHAPE),
                unit=u.nmgy,
                wcs=wcs,
                uncertainty=InverseVariance(np.full(SHAPE, 4.0)),
                meta={"BAND": "r"},
            )
            for wcs in (left, right)
        ]
        cutouts = from_mosaics(tiles, sky, size=64)
        data, ivar, _ = cutouts.arrays()
        pulls.append(data * np.sqrt(ivar))
        sums.append(data.sum())
        variances.append((1 / ivar).sum() * cutouts.catalog["noise_correlation"][0, 0])
    assert np.std(pulls) == pytest.approx(1, abs=0.01)
    # Interpolated pixels alone too.
    assert np.std(np.array(pulls)[..., 54:]) == pytest.approx(1, abs=0.02)
    assert np.std(sums) / np.sqrt(np.mean(variances)) == pytest.approx(1, abs=0.25)
    assert 1.05 < cutouts.catalog["noise_correlation"][0, 0] < 1.3


def test_bad_pixels_are_filled_from_a_neighbour_and_never_averaged():
    wcs = make_wcs(crpix=(80, 60))
    first, second = tile(wcs, ivar=4.0), tile(wcs, ivar=1.0)
    first.uncertainty.array[55:58, 70:75] = 0
    first.data[62, 80] = np.nan
    cutouts = from_mosaics([first, second], sky_of(first, 80, 60), size=31)
    assert cutouts.mask is None
    assert set(np.unique(cutouts.ivar)) == {1.0, 4.0}
    assert (cutouts.ivar == 1).sum() == 16
    np.testing.assert_array_equal(cutouts.data[0, 0], second.data[45:76, 65:96])


def test_bands_on_grids_that_differ_share_the_first(tmp_path):
    left, right = rotated_tiles(seed=4)
    right.meta["BAND"] = "g"
    sky = sky_of(left, [138], [60])
    cutouts = from_mosaics([left, right], sky, size=40, bands="rg")
    assert cutouts.bands == ("r", "g")
    alone = from_mosaics([left], sky, size=40)
    np.testing.assert_array_equal(cutouts.data[:, :1], alone.data)
    correlation = cutouts.catalog["noise_correlation"][0]
    assert correlation[0] == 1
    assert 1.5 < correlation[1] < 3


def test_statuses_keep_rows_and_order():
    g, r = tile(make_wcs(crpix=(80, 60)), band="g"), tile(make_wcs(crpix=(200, 60)), band="r")
    r.data[:, 130:] = 0
    sky = SkyCoord(
        np.append(sky_of(g, [20, 80, 80, 500], [60, 60, 5000, 60]).ra.deg, [np.nan]) * u.deg,
        np.append(sky_of(g, [20, 80, 80, 500], [60, 60, 5000, 60]).dec.deg, [3.0]) * u.deg,
    )
    cutouts = from_mosaics({"g": g, "r": [r]}, sky, size=21, ids=list("abcde"))
    assert list(cutouts.catalog["id"]) == list("abcde")
    assert list(cutouts.catalog["status"]) == [
        "incomplete-bands: r",
        "incomplete-bands: r",
        "off-footprint",
        "off-footprint",
        "invalid-position",
    ]
    assert np.isnan(cutouts.data).all()
    assert cutouts.mask.all()
    np.testing.assert_array_equal(cutouts.catalog["coverage"], 0)
    assert from_mosaics([g], sky[:2], size=21).good.all()


class TestFiles:
    def brick(self, folder, number, wcs, band="r", compress=False, seed=0):
        rng = np.random.default_rng(seed)
        data = (sources(wcs, SHAPE) + rng.normal(0, 0.5, SHAPE)).astype(np.float32)
        bits = np.zeros(SHAPE, dtype=np.int16)
        bits[40:44, 100:104] = 1 << 6  # ALLMASK_R
        bits[50, 50] = 1 << 12  # GALAXY: not bad
        suffix = "fits.fz" if compress else "fits"
        kind = fits.CompImageHDU if compress else fits.ImageHDU
        for what, pixels in (("image", data), ("invvar", np.full(SHAPE, 4, np.float32))):
            header = wcs.to_header()
            header["BUNIT"] = "nanomaggy"
            options = {"compression_type": "GZIP_1", "quantize_level": 0} if compress else {}
            fits.HDUList([fits.PrimaryHDU(), kind(pixels, header, **options)]).writeto(
                folder / f"b{number}-{what}-{band}.{suffix}"
            )
        fits.HDUList([fits.PrimaryHDU(), kind(bits, wcs.to_header())]).writeto(
            folder / f"b{number}-maskbits.{suffix}"
        )
        return folder / f"b{number}-image-{band}.{suffix}", data

    @pytest.mark.parametrize("compress", [False, True])
    def test_bricks_with_their_companions(self, tmp_path, compress):
        wcs = make_wcs(crpix=(80, 60))
        path, data = self.brick(tmp_path, 1, wcs, compress=compress)
        x, y = 100, 45
        cutouts = from_mosaics([path], sky_of(tile(wcs), x, y), size=21)
        np.testing.assert_array_equal(
            np.where(cutouts.mask, 0, data[35:56, 90:111])[0], cutouts.data[0]
        )
        assert cutouts.mask.sum() == 16
        assert set(np.unique(cutouts.ivar)) == {0.0, 4.0}
        assert cutouts.bands == ("r",)
        assert cutouts.unit == u.nmgy

    @pytest.mark.parametrize("compress", [False, True])
    def test_pixels_are_read_piece_by_piece(self, tmp_path, compress):
        wcs = make_wcs(crpix=(700, 700))
        data = np.ones((1400, 1400), dtype=np.float32)
        hdu = fits.CompImageHDU(data, wcs.to_header()) if compress else fits.ImageHDU(data)
        hdu.header.update(wcs.to_header())
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
        sky = wcs.pixel_to_world([700, 20], [600, 20])
        mosaic = Mosaic(tmp_path / "a.fits", bands="r", unit=u.nmgy)
        tracemalloc.start()
        cutouts = from_mosaics([mosaic], sky, size=11)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert cutouts.good.all()
        assert peak < 0.3 * data.nbytes

    def test_units_and_companions_by_hand(self, tmp_path):
        wcs = make_wcs(crpix=(80, 60))
        image = write(tmp_path / "i.fits", np.ones((2, *SHAPE), np.float32), wcs, BUNIT="mgy")
        ivar = write(tmp_path / "w.fits", np.full((2, *SHAPE), 4e18, np.float64))
        mask = write(tmp_path / "m.fits", np.eye(*SHAPE, dtype=np.uint8))
        mosaic = Mosaic(image, ivar=ivar, mask=mask, bands="gr")
        cutouts = from_mosaics(mosaic, sky_of(tile(wcs), 60, 60), size=9)
        assert cutouts.bands == ("g", "r")
        np.testing.assert_allclose(cutouts.data[~cutouts.mask], 1e9)
        np.testing.assert_allclose(cutouts.ivar[~cutouts.mask], 4.0)
        assert cutouts.mask.sum() == 18
        zero_point = Mosaic(image, bands="gr", unit=25 * u.ABmag)
        cutouts = from_mosaics(zero_point, sky_of(tile(wcs), 60, 60), size=9)
        np.testing.assert_allclose(cutouts.data, 0.1, rtol=1e-6)

    def test_what_is_wrong_with_a_file_is_said(self, tmp_path):
        wcs = make_wcs(crpix=(80, 60))
        sky = sky_of(tile(wcs), 80, 60)
        image = write(tmp_path / "i.fits", np.ones(SHAPE, np.float32), wcs)
        plain = write(tmp_path / "plain.fits", np.ones(SHAPE, np.float32))
        small = write(tmp_path / "small.fits", np.ones((4, 4), np.float32))
        empty = tmp_path / "empty.fits"
        fits.PrimaryHDU().writeto(empty)
        for mosaic, match in (
            (image, "i.fits does not name its bands; give them"),
            (Mosaic(image, bands=("g", "r")), "bands: 2 names"),
            (plain, "plain.fits holds an image without celestial WCS"),
            (empty, "no image in empty.fits"),
            (Mosaic(tile(wcs), ivar=image), "an NDData brings its own uncertainty"),
        ):
            with pytest.raises(ValueError, match=match):
                from_mosaics([mosaic], sky, size=8)
        for companions in ({"ivar": small}, {"mask": small}):
            cutouts = from_mosaics([Mosaic(image, bands="r", **companions)], sky, size=8)
            assert cutouts.catalog["status"][0].startswith("invalid-file: i.fits: small.fits has")

    def test_masks_of_other_kinds(self, tmp_path):
        wcs = make_wcs(crpix=(80, 60))
        image = write(tmp_path / "i.fits", np.ones((1, *SHAPE), np.float32), wcs, FILTER="r DECam")
        bits = np.full(SHAPE, np.nan, np.float32)
        bits[60, 80], bits[61, 80] = 4, 8
        mask = write(tmp_path / "m.fits", bits)
        sky = sky_of(tile(wcs), 80, 60)
        assert from_mosaics([Mosaic(image, mask=mask)], sky, size=9).mask.sum() == 2
        assert from_mosaics([Mosaic(image, mask=mask, bad_bits=4)], sky, size=9).mask.sum() == 1
        numbered = Mosaic(image, mask=mask, bad_bits={"g": 4}, hdu=0)
        cutouts = from_mosaics(numbered, sky, size=9)
        assert cutouts.mask is None
        assert cutouts.bands == ("r",)
        assert cutouts.unit == u.dimensionless_unscaled

    def test_a_truncated_file_spoils_its_own_rows_only(self, tmp_path):
        wcs = make_wcs(crpix=(80, 60))
        far = make_wcs(ra=10.1, crpix=(80, 60))
        good, _ = self.brick(tmp_path, 1, wcs)
        bad, _ = self.brick(tmp_path, 2, far)
        bad.write_bytes(bad.read_bytes()[: 3 * 2880])
        sky = sky_of(tile(wcs), [80, 60], [60, 60])
        coords = SkyCoord([*sky.ra, 10.1 * u.deg], [*sky.dec, 20 * u.deg])
        cutouts = from_mosaics([good, bad], coords, size=11)
        assert list(cutouts.good) == [True, True, False]
        assert cutouts.catalog["status"][2].startswith("invalid-file: b2-image-r.fits")


class TestPixelScale:
    def test_coarser_pixels_keep_flux_and_noise(self):
        image = tile(make_wcs(crpix=(80, 60)), seed=3)
        sky = sky_of(image, 80, 60)
        fine = from_mosaics([image], sky, size=40)
        coarse = from_mosaics([image], sky, size=20, pixel_scale=2 * SCALE * u.arcsec)
        assert coarse.size == (20, 20)
        assert coarse.pixel_scale.value == pytest.approx(2 * SCALE)
        assert coarse.mask is None
        np.testing.assert_allclose(coarse.data.sum(), fine.data.sum(), rtol=0.02)
        x, y = coarse.wcs[0].world_to_pixel(sky[0])
        assert abs(x - 9.5) <= 0.5
        assert abs(y - 9.5) <= 0.5
        odd = from_mosaics([image], sky, size=25, pixel_scale=0.4 * u.arcsec)
        factor = odd.catalog["noise_correlation"][0, 0]
        ratio = (0.4 / SCALE) ** 2
        # Variance summed over the area: that of the pixels below it.
        assert np.mean(1 / odd.ivar) * factor == pytest.approx(0.25 * ratio, rel=1e-3)

    def test_other_scales_are_refused(self):
        tiles = [tile(make_wcs(crpix=(80, 60))), tile(make_wcs(crpix=(80, 60), scale=0.3))]
        with pytest.raises(CutoutMismatchError, match=r"number 1.*; cut each pixel scale"):
            from_mosaics(tiles, sky_of(tiles[0], 80, 60), size=10)


def sip_wcs():
    wcs = make_wcs(crpix=(90.2, 50.7))
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[2, 0], a[1, 2], b[0, 2], b[3, 0] = 2e-5, 1e-7, -2e-5, 1e-7
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def test_distorted_tile_is_joined_where_its_sky_is():
    pytest.importorskip("reproject")
    plain, distorted = make_wcs(crpix=(60, 60)), sip_wcs()
    first = tile(plain, (120, 100))
    second = NDData(
        sources(distorted, SHAPE),
        unit=u.nmgy,
        wcs=distorted,
        meta={"BAND": "r"},
        uncertainty=InverseVariance(np.full(SHAPE, 4.0)),
    )
    # The sources are drawn in pixels, so their centres are compared, not their shapes.
    cutouts = from_mosaics([first, second], sky_of(first, 96, 60), size=61)
    truth = sources(cutouts.wcs[0], (61, 61))
    y, x = np.mgrid[:61, :61]
    for image in (truth, cutouts.data[0, 0]):
        image[image < 0.02] = 0
    for axis in (x, y):
        found, expected = (np.average(axis, weights=i) for i in (cutouts.data[0, 0], truth))
        assert found == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("dec", [0.0, 89.99, -89.99])
@pytest.mark.parametrize("ra", [0.0, 359.9999])
def test_poles_and_seam(ra, dec):
    wcs = make_wcs(ra=ra, dec=dec, crpix=(80, 60))
    image = NDData(np.ones(SHAPE), unit=u.nmgy, wcs=wcs, meta={"BAND": "r"})
    sky = sky_of(image, [80, 100, 60], [60, 70, 50])
    cutouts = from_mosaics([image], sky, size=11)
    assert cutouts.good.all()
    np.testing.assert_array_equal(cutouts.catalog["coverage"], 1)


@given(ra=st.floats(-360, 720), dec=st.floats(-90, 90), size=st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_any_position_is_a_row(ra, dec, size):
    image = NDData(np.ones((30, 40)), unit=u.nmgy, wcs=make_wcs(), meta={"BAND": "r"})
    cutouts = from_mosaics([image], SkyCoord([ra, 10] * u.deg, [dec, 20] * u.deg), size=size)
    assert len(cutouts) == 2
    assert cutouts.good[1]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"mosaics": []}, ValueError, "mosaics: no images"),
        ({"mosaics": 3}, TypeError, "mosaics: expected a sequence"),
        ({"mosaics": [3]}, TypeError, "mosaics: .*got int"),
        ({"mosaics": [NDData(np.ones((5, 5)))]}, ValueError, "without celestial WCS"),
        ({"mosaics": [NDData(np.ones((5, 5)), wcs=make_wcs())]}, ValueError, "name its bands"),
        ({"mosaics": ["missing.fits"]}, FileNotFoundError, "missing.fits"),
        ({"coords": [3]}, TypeError, "coords"),
        ({"size": None}, ValueError, "size"),
        ({"size": 3.5}, ValueError, "size"),
        ({"bands": "gz"}, ValueError, "bands: .*none has g, z"),
        ({"bands": ""}, ValueError, "bands: .*got none"),
        ({"pixel_scale": 3}, TypeError, "pixel_scale"),
        ({"ids": [1, 2]}, ValueError, "ids"),
    ],
)
def test_wrong_argument_is_named(arguments, error, match):
    image = tile(make_wcs(crpix=(80, 60)))
    arguments = {"mosaics": [image], "coords": SkyCoord("10d 20d"), "size": 8, **arguments}
    with pytest.raises(error, match=match):
        from_mosaics(arguments.pop("mosaics"), arguments.pop("coords"), **arguments)


def test_mixed_noise_and_units_are_refused():
    wcs = make_wcs(crpix=(80, 60))
    with pytest.raises(ValueError, match="some have an inverse variance, but not number 1"):
        from_mosaics([tile(wcs), tile(wcs, ivar=None)], SkyCoord("10d 20d"), size=8)
    other = tile(wcs, band="g", unit=u.adu)
    with pytest.raises(CutoutMismatchError, match="units differ: adu, nmgy"):
        from_mosaics([tile(wcs), other], SkyCoord("10d 20d"), size=8)


def test_several_bands_in_memory():
    wcs = make_wcs(crpix=(80, 60))
    cube = NDData(
        np.stack([np.full(SHAPE, value) for value in (1.0, 2.0)]),
        unit=u.nmgy,
        wcs=wcs,
        mask=np.eye(*SHAPE, dtype=bool),
        uncertainty=StdDevUncertainty(np.full((2, *SHAPE), 0.5)),
        meta={"BANDS": "gr"},
    )
    cutouts = from_mosaics(cube, sky_of(cube, 60, 60), size=9, bands="rg")
    np.testing.assert_array_equal(cutouts.data[0, :, 0, 1], [2, 1])
    np.testing.assert_array_equal(cutouts.ivar[0, :, 0, 1], 4)
    assert cutouts.mask.sum() == 18
    no_noise = from_mosaics([tile(wcs, ivar=None)], sky_of(cube, 60, 60), size=9)
    assert no_noise.ivar is None


def test_no_positions():
    empty = SkyCoord([] * u.deg, [] * u.deg)
    assert len(from_mosaics([tile(make_wcs())], empty, size=8)) == 0


def test_missing_reproject_is_named(monkeypatch):
    left = tile(make_wcs(crpix=(120, 60)))
    right = tile(make_wcs(ra=10.0005, crpix=(-10.3, 60.8), rotation=0.06))
    monkeypatch.setitem(sys.modules, "reproject", None)
    with pytest.raises(ImportError, match="needs the package 'reproject'"):
        from_mosaics([left, right], sky_of(left, 142, 60), size=48)
    assert from_mosaics([left, right], sky_of(left, 60, 60), size=16).good.all()


def soft_aperture(image, wcs, sky, radius=9):
    """Flux in a round aperture, whose edge pixels count in part."""
    x, y = wcs.world_to_pixel(sky)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.sum(image * np.clip(radius + 0.5 - np.hypot(columns - x, rows - y), 0, 1))


@pytest.mark.parametrize("folder", ["ccd-decam/testcase6", "ccd-bok-mosaic/mzlsbass2"])
def test_real_exposures_keep_their_flux_on_each_others_pixels(shared_data, folder):
    """CCDs of DECam and 90prime, whose coordinates are distorted (TPV), two exposures each."""
    pytest.importorskip("reproject")
    images = []
    for path in sorted((shared_data / folder / "images").rglob("*ooi*.fits")):
        with warnings.catch_warnings(), fits.open(path) as hdus:
            warnings.simplefilter("ignore", AstropyWarning)
            wcs = WCS(hdus[1].header)
            images.append((hdus[1].data - np.median(hdus[1].data), wcs))
    n_compared = 0
    for (first, wcs), (second, other) in itertools.permutations(images[:4], 2):
        inner = np.zeros(first.shape)
        inner[15:-15, 15:-15] = first[15:-15, 15:-15]
        row, column = np.unravel_index(inner.argmax(), inner.shape)
        sky = wcs.pixel_to_world([column], [row])
        x, y = (float(value[0]) for value in other.world_to_pixel(sky))
        on_both = 13 < x < second.shape[1] - 13 and 13 < y < second.shape[0] - 13
        if not on_both or not 0.998 < _scale(wcs) / _scale(other) < 1.002:
            continue
        tiles = {
            "grid": [NDData(second, wcs=other, unit=u.nmgy)],
            "seen": [NDData(first, wcs=wcs, unit=u.nmgy)],
        }
        cutouts = from_mosaics(tiles, sky, size=25, bands=("grid", "seen"))
        assert cutouts.good.all()
        flux = soft_aperture(cutouts.data[0, 1], cutouts.wcs[0], sky)
        assert flux == pytest.approx(soft_aperture(first, wcs, sky), rel=0.01)
        n_compared += 1
    assert n_compared


def _scale(wcs):
    return np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
