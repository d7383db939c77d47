import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import InverseVariance, NDData
from astropy.stats import sigma_clipped_stats
from astropy.utils.masked import Masked
from astropy.wcs import WCS, DistortionLookupTable, Sip
from hypothesis import given, settings
from hypothesis import strategies as st

from astro_morphvae import CutoutSet, extract_cutouts
from astro_morphvae.cutouts._wcs import quiet_astropy, shift_wcs
from astro_morphvae.processing import (
    _carry,
    _pixel_map,
    alignment,
    match_psf,
    reproject_cutouts,
)
from astro_morphvae.processing._pixel_map import map_pixels
from astro_morphvae.tests.cutout_samples import SCALE, make_set, make_wcs, noise

RA, DEC = 180.0, 35.0
KERNELS = ["bilinear", "bicubic", "lanczos3"]
WAYS = [*(("interp", kernel) for kernel in KERNELS), ("adaptive", "bicubic"), ("exact", "bicubic")]


def draw_star(wcs, n, fwhm, ra=RA, dec=DEC):
    """Gaussian of unit flux; FWHM in pixels."""
    x, y = wcs.all_world2pix(ra, dec, 0)
    yy, xx = np.mgrid[:n, :n]
    sigma = fwhm / 2.3548
    return np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)


def moments(image):
    yy, xx = np.indices(image.shape)
    total = image.sum()
    x, y = (image * xx).sum() / total, (image * yy).sum() / total
    return total, x, y, (image * ((xx - x) ** 2 + (yy - y) ** 2)).sum() / total / 2


def one(image, wcs, **kwargs):
    image = np.asarray(image, dtype=float)
    while image.ndim < 4:
        image = image[np.newaxis]
    bands = [str(band) for band in range(image.shape[1])]
    return CutoutSet(image, unit=u.nmgy, bands=bands, wcs=[wcs], **kwargs)


def centred(n, scale=0.262, ra=RA, dec=DEC, rotation=0.0):
    return make_wcs(ra, dec, ((n + 1) / 2, (n + 1) / 2), scale, rotation)


def sip_wcs(n, scale=0.45, strength=1.0, rotation=0.4):
    wcs = centred(n, scale, rotation=rotation)
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[2, 0], a[1, 1], a[0, 3], b[0, 2], b[3, 0] = (
        strength * value for value in (2e-4, -1e-4, 1e-6, -3e-4, 2e-6)
    )
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def tpv_wcs(n, scale=0.45):
    header = centred(n, scale, rotation=0.4).to_header()
    header.update({"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"})
    header.update({"PV1_1": 1.01, "PV2_1": 0.99, "PV1_4": 0.9, "PV2_6": -0.5, "PV1_7": 20.0})
    return WCS(header)


class TestFlux:
    @pytest.mark.parametrize(("method", "kernel"), WAYS)
    def test_flux_position_and_width_of_a_star(self, method, kernel):
        if method != "interp":
            pytest.importorskip("reproject")
        source, target = centred(64, 0.45, rotation=0.3), centred(90, 0.262)
        star = one(draw_star(source, 64, 3.6, RA + 1e-3, DEC - 1e-3), source)
        star._psf_fwhm = [3.6 * 0.45] * u.arcsec
        out = reproject_cutouts(star, target_wcs=target, size=90, method=method, kernel=kernel)
        flux, x, y, variance = moments(np.nan_to_num(out.data[0, 0]))
        assert flux == pytest.approx(1, abs=2e-4)
        expected = target.all_world2pix(RA + 1e-3, DEC - 1e-3, 0)
        np.testing.assert_allclose([x, y], expected, atol=2e-3)
        fwhm = np.sqrt(8 * np.log(2) * variance) * 0.262
        assert out.psf_fwhm[0].value == pytest.approx(fwhm, rel=4e-3)
        assert out.pixel_scale.value == pytest.approx(0.262)

    @given(
        ratio=st.floats(0.4, 3),
        rotation=st.floats(0, 6.28),
        flip=st.booleans(),
        dx=st.floats(-0.5, 0.5),
        kernel=st.sampled_from(["bicubic", "lanczos3"]),
    )
    @settings(max_examples=20, deadline=None)
    def test_flux_is_conserved_on_any_grid(self, ratio, rotation, flip, dx, kernel):
        n = 64
        source = make_wcs(RA, DEC, (n / 2 + dx, n / 2), 0.262, rotation)
        size = int(56 / ratio)
        target = centred(size, 0.262 * ratio)
        if flip:
            target.wcs.cd = target.wcs.cd * [[-1], [1]]
        fwhm = 3 * max(ratio, 1)
        star = one(draw_star(source, n, fwhm), source)
        out = reproject_cutouts(star, target_wcs=target, size=size, kernel=kernel)
        flux, x, y, variance = moments(np.nan_to_num(out.data[0, 0]))
        # Normalised Lanczos weights reproduce a constant, but not quite a slope.
        exact = kernel == "bicubic"
        assert flux == pytest.approx(1, abs=3e-3 if exact else 1e-2)
        tolerance = 0.01 if exact else 0.03
        np.testing.assert_allclose([x, y], target.all_world2pix(RA, DEC, 0), atol=tolerance)
        assert variance * ratio**2 == pytest.approx((fwhm / 2.3548) ** 2, rel=0.03)

    @pytest.mark.parametrize("make", [sip_wcs, tpv_wcs])
    def test_distorted_pixels_give_the_flux_of_their_area(self, make):
        n = 96
        source, target = make(n), centred(100, 0.262)
        # A sky of one surface brightness: flux per input pixel follows its solid angle, by finite
        # differences that are independent of the code.
        yy, xx = np.mgrid[:n, :n]
        step = [(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)]
        sky = [np.stack(source.all_pix2world(xx + dx, yy + dy, 0)) for dx, dy in step]
        along, across = sky[0] - sky[1], sky[2] - sky[3]
        area = np.abs(along[0] * across[1] - along[1] * across[0]) * np.cos(np.radians(sky[0][1]))
        brightness = 1 / (0.262 / 3600) ** 2
        assert area.max() / area.min() > 1.02
        out = reproject_cutouts(one(area * brightness, source), target_wcs=target, size=100)
        assert out.mask is None
        np.testing.assert_allclose(out.data, 1, atol=2e-4)

    @pytest.mark.parametrize("make", [sip_wcs, tpv_wcs])
    def test_positions_follow_a_distortion(self, make):
        source, target = make(96), centred(120, 0.262)
        for ra in (RA - 3e-3, RA + 3e-3):
            star = one(draw_star(source, 96, 4, ra, DEC + 2e-3), source)
            out = reproject_cutouts(star, target_wcs=target, size=120)
            _, x, y, _ = moments(out.data[0, 0])
            np.testing.assert_allclose([x, y], target.all_world2pix(ra, DEC + 2e-3, 0), atol=0.02)

    def test_same_grid_copies(self):
        cutouts = make_set(n=2, wcs=[make_wcs(), make_wcs(11)])
        for kernel in KERNELS:
            out = reproject_cutouts(cutouts, like=cutouts, kernel=kernel)
            np.testing.assert_allclose(out.data, cutouts.data, rtol=1e-6)
            assert out.mask is None
            np.testing.assert_allclose(out.catalog["noise_correlation"], 1, rtol=1e-6)

    def test_shift_by_whole_pixels_copies(self):
        wcs = make_wcs()
        cutouts = one(noise(16, 16), wcs)
        out = reproject_cutouts(cutouts, target_wcs=shift_wcs(wcs, 3, -2), size=16)
        np.testing.assert_allclose(out.data[0, 0, 2:, :-3], cutouts.data[0, 0, :-2, 3:], rtol=1e-5)
        assert out.mask[0, 0, :2].all()
        assert out.mask[0, 0, :, -3:].all()
        assert not out.mask[0, 0, 2:, :-3].any()

    def test_bands_do_not_mix(self):
        wcs = make_wcs()
        cutouts = one([np.full((16, 16), value) for value in (1.0, 5.0, -2.0)], wcs)
        out = reproject_cutouts(cutouts, pixel_scale=0.2 * u.arcsec, size=8)
        expected = np.array([1.0, 5.0, -2.0]) * (0.2 / 0.262) ** 2
        np.testing.assert_allclose(out.data.mean(axis=(0, 2, 3)), expected, rtol=1e-4)


class TestAgainstReproject:
    @pytest.mark.parametrize(("method", "kernel"), [WAYS[0], *WAYS[3:]])
    @pytest.mark.parametrize("scale", [0.262, 0.7])
    def test_same_values(self, method, kernel, scale):
        reproject = pytest.importorskip("reproject")
        if method == "interp" and scale == 0.7:
            pytest.skip("the kernel widens, unlike that of reproject")
        source, size = sip_wcs(48), int(28 / scale * 0.45)
        target = centred(size, scale)
        cutouts = one([draw_star(source, 48, 5), noise(48, 48)], source)
        out = reproject_cutouts(cutouts, target_wcs=target, size=size, method=method, kernel=kernel)
        with quiet_astropy():
            expected = getattr(reproject, f"reproject_{method}")(
                (cutouts.data[0].astype(float), source),
                target,
                shape_out=(size, size),
                return_footprint=False,
            )
        pixels = map_pixels(source, target, (size, size))
        difference = np.abs(out.data[0] - expected * pixels.area)
        assert difference.max() < 2e-3 * np.abs(expected).max()


class TestNoise:
    N = 300  # realisations, one a band

    def pulls(self, source, n, target, size, sigma, **kwargs):
        rng = np.random.default_rng(5)
        draws = rng.normal(0, 1, size=(1, self.N, n, n)) * sigma
        ivar = InverseVariance(np.broadcast_to(1 / sigma**2, draws.shape))
        cutouts = one(draws, source, uncertainty=ivar)
        return reproject_cutouts(cutouts, target_wcs=target, size=size, **kwargs)

    @pytest.mark.parametrize(("method", "kernel"), WAYS)
    def test_pixels_and_apertures(self, method, kernel):
        if method != "interp":
            pytest.importorskip("reproject")
        out = self.pulls(
            centred(64, 0.45, rotation=0.3),
            64,
            centred(72),
            72,
            np.full((64, 64), 0.5),
            method=method,
            kernel=kernel,
        )
        assert (out.data * np.sqrt(out.ivar)).std() == pytest.approx(1, abs=0.01)
        yy, xx = np.indices((72, 72)) - 35.5
        aperture = np.hypot(xx, yy) < 30
        assert out.mask is None
        sums = out.data[0][:, aperture].sum(axis=1)
        variances = (1 / out.ivar[0][:, aperture]).sum(axis=1)
        pulls = sums / np.sqrt(variances * out.catalog["noise_correlation"][0])
        assert pulls.std() == pytest.approx(1, abs=3 / np.sqrt(2 * self.N))

    @pytest.mark.parametrize("scale", [0.4, 1.3])
    def test_larger_pixels_lose_no_information(self, scale):
        n, size = 96, int(14 / scale)
        out = self.pulls(centred(n, rotation=1), n, centred(size, scale), size, np.ones((n, n)))
        assert out.mask is None
        assert (out.data * np.sqrt(out.ivar)).std() == pytest.approx(1, abs=0.03)
        sums = out.data[0].sum(axis=(1, 2))
        factor = out.catalog["noise_correlation"][0]
        pulls = sums / np.sqrt((1 / out.ivar[0]).sum(axis=(1, 2)) * factor)
        # The noise of the field is that of the input pixels it covers, and no more.
        assert sums.std() == pytest.approx(size * scale / 0.262, rel=3 / np.sqrt(2 * self.N))
        assert pulls.std() == pytest.approx(1, abs=3 / np.sqrt(2 * self.N))

    def test_variance_that_differs_from_pixel_to_pixel(self):
        sigma = np.linspace(0.1, 3, 40)[:, np.newaxis] * np.ones(40)
        out = self.pulls(centred(40, rotation=0.5), 40, centred(24), 24, sigma)
        pulls = (out.data * np.sqrt(out.ivar))[0].std(axis=0)
        np.testing.assert_allclose(pulls, 1, atol=5 / np.sqrt(2 * self.N))
        assert out.ivar.max() / out.ivar.min() > 10

    @pytest.mark.parametrize(
        ("first", "method", "kernel"),
        [
            ("reproject", "interp", "bicubic"),
            ("reproject", "adaptive", "bicubic"),
            ("match", "interp", "bicubic"),
            ("match", "exact", "bicubic"),
        ],
    )
    def test_noise_that_is_correlated_already(self, first, method, kernel):
        if method != "interp":
            pytest.importorskip("reproject")
        n, n_draw, wcs = 90, 200, centred(90, rotation=0.3)
        draws = np.random.default_rng(5).normal(size=(n_draw, 1, n, n))
        if first == "match":  # rows share one kernel, bands would not
            ivar = InverseVariance(np.ones_like(draws))
            cutouts = CutoutSet(draws, unit=u.nmgy, bands="r", wcs=[wcs] * n_draw, uncertainty=ivar)
            before = match_psf(cutouts, psf=0.9 * u.arcsec, target_fwhm=1.1 * u.arcsec)
            data, ivar, mask = (np.swapaxes(part, 0, 1) for part in before.arrays())
            factor = np.reshape(before.catalog["noise_correlation"], (1, n_draw))
            before = one(data, wcs, mask=mask, uncertainty=InverseVariance(ivar))
            before.catalog["noise_correlation"] = factor
        else:
            draws = np.swapaxes(draws, 0, 1)
            before = one(draws, wcs, uncertainty=InverseVariance(np.ones_like(draws)))
            before = reproject_cutouts(before, pixel_scale=0.3 * u.arcsec)
        assert (np.asarray(before.catalog["noise_correlation"]) > 1.8).all()
        target = centred(64, rotation=0.1)
        out = reproject_cutouts(before, target_wcs=target, size=64, method=method, kernel=kernel)
        yy, xx = np.indices((64, 64)) - 31.5
        aperture = np.hypot(xx, yy) < 28
        assert (out.ivar[0][:, aperture] > 0).all()
        data, variance = (
            part[0][:, aperture].astype(float) for part in (out.data, 1 / out.ivar.clip(1e-9))
        )
        assert (data / np.sqrt(variance)).std() == pytest.approx(1, abs=0.05)
        # Midway between pixels of the input as on them; 200 draws tell sigma to 5 %.
        squares = (data**2 / variance).mean(axis=0)
        assert squares.std() < 0.13
        pulls = data.sum(axis=1) / np.sqrt(
            variance.sum(axis=1) * np.asarray(out.catalog["noise_correlation"])[0]
        )
        assert pulls.std() == pytest.approx(1, abs=0.08)

    def test_correlation_multiplies_what_was_there(self):
        ivar = InverseVariance(np.ones((2, 3, 16, 16)))
        cutouts = make_set(n=2, wcs=[make_wcs(), make_wcs(12)], uncertainty=ivar)
        once = reproject_cutouts(cutouts, pixel_scale=0.2 * u.arcsec, size=10)
        assert once.catalog["noise_correlation"].shape == (2, 3)
        assert (np.asarray(once.catalog["noise_correlation"]) > 1).all()
        before = np.array([[2.0, 3, 40], [1, 0.5, np.nan]])
        cutouts.catalog["noise_correlation"] = before
        again = reproject_cutouts(cutouts, pixel_scale=0.2 * u.arcsec, size=10)
        yy, xx = np.indices((10, 10)) - 4.5
        middle = np.hypot(xx, yy) <= 10 / 6
        pixels, sums = [], []
        for out in (once, again):
            variance = 1 / out.ivar[..., middle].astype(float)
            pixels.append(variance)
            sums.append(variance.sum(axis=-1) * np.asarray(out.catalog["noise_correlation"]))
        # Large apertures keep their variance, whatever single pixels have.
        np.testing.assert_allclose(sums[1], before * sums[0], rtol=1e-5)
        np.testing.assert_array_equal(pixels[1][1], pixels[0][1])
        assert (np.diff(pixels[1][0].mean(axis=-1)) > 0).all()
        np.testing.assert_allclose(pixels[1][0, 2], (0.2 / 0.262) ** 4, rtol=0.1)

    def test_copies_keep_the_correlation_and_the_variance(self):
        ivar = noise(2, 3, 16, 16) ** 2 + 0.1
        wcs = [make_wcs(), make_wcs(12)]
        cutouts = make_set(n=2, wcs=wcs, uncertainty=InverseVariance(ivar))
        cutouts.catalog["noise_correlation"] = np.array([[2.0, 3, 1e6], [1, 1, 1]])
        for kernel in KERNELS:
            out = reproject_cutouts(cutouts, like=cutouts, kernel=kernel)
            np.testing.assert_allclose(out.ivar, cutouts.ivar, rtol=1e-5)
            factor = cutouts.catalog["noise_correlation"]
            np.testing.assert_allclose(out.catalog["noise_correlation"], factor, rtol=1e-5)


class TestMask:
    @pytest.mark.parametrize(("method", "kernel"), WAYS)
    def test_bad_pixel_never_leaks(self, method, kernel):
        if method != "interp":
            pytest.importorskip("reproject")
        source, target = centred(32, rotation=0.7), centred(30)
        image, mask = np.ones((2, 32, 32)), np.zeros((1, 2, 32, 32), dtype=bool)
        mask[0, 1, 15, 17] = True
        image[1, 15, 17] = 1e9
        ivar = InverseVariance(np.ones((1, 2, 32, 32)))
        cutouts = one(image, source, mask=mask, uncertainty=ivar)
        out = reproject_cutouts(cutouts, target_wcs=target, size=30, method=method, kernel=kernel)
        expected = map_pixels(source, target, (30, 30)).area[0, 0]
        good = ~out.mask[0]
        np.testing.assert_allclose(out.data[0][good], expected, rtol=1e-3)
        assert np.abs(out.data[0, 1]).max() < 1.2 * expected
        assert (out.ivar[0] > 0).sum() == good.sum()
        off = map_pixels(source, target, (30, 30))
        off = np.maximum(np.abs(off.x - 15.5), np.abs(off.y - 15.5)) > 15.5 - 4
        assert not (out.mask[0, 0] & ~off).any()
        # Every output pixel whose nearest input pixel is bad is bad, and so are some around it.
        bad_at = source.all_pix2world(17, 15, 0)
        x, y = (round(float(value)) for value in target.all_world2pix(*bad_at, 0))
        assert out.mask[0, 1, y, x]
        assert 3 <= (out.mask[0, 1] & ~off).sum() <= 100

    def test_nan_is_masked_and_unknown_variance_is_not(self):
        wcs = make_wcs()
        image, ivar = np.ones((1, 1, 16, 16)), np.ones((1, 1, 16, 16))
        image[0, 0, 4, 4] = np.nan
        ivar[0, 0, 11, 11] = 0
        cutouts = one(image, wcs, uncertainty=InverseVariance(ivar))
        target = shift_wcs(wcs, 2.5, 2.5)
        out = reproject_cutouts(cutouts, target_wcs=target, size=11, kernel="bilinear")
        mask = np.zeros((11, 11), dtype=bool)
        mask[1:3, 1:3] = True
        np.testing.assert_array_equal(out.mask[0, 0], mask)
        mask[8:10, 8:10] = True
        np.testing.assert_array_equal(out.ivar[0, 0] == 0, mask)
        np.testing.assert_allclose(out.data, 1, rtol=1e-5)

    def test_pixels_off_the_image_are_masked(self):
        cutouts = one(np.ones((16, 16)), make_wcs(RA, DEC))
        target = make_wcs(RA, DEC, crpix=(20.3, 20.3))
        out = reproject_cutouts(cutouts, target_wcs=target, size=40)
        assert out.good.all()
        inside = np.flatnonzero(~out.mask[0, 0].all(axis=0))
        assert (inside[0], inside[-1]) == (13, 25)  # kernels of 4 pixels on the image
        assert out.catalog["coverage"][0] == pytest.approx(13**2 / 40**2)
        np.testing.assert_allclose(out.data[~out.mask], 1, rtol=1e-5)

    @pytest.mark.parametrize("dec", [DEC + 1, -DEC])
    def test_field_elsewhere_is_a_status(self, dec):
        cutouts = make_set(n=1, wcs=[make_wcs(RA, DEC)])
        # The gnomonic projection shows the opposite side of the sky at the same place.
        for ra in (RA, RA + 180):
            out = reproject_cutouts(cutouts, target_wcs=make_wcs(ra, dec), size=8)
            assert list(out.catalog["status"]) == ["outside the image"]
            assert out.mask.all()
            assert np.isnan(out.data).all()
            assert out.catalog["coverage"][0] == 0


class TestGrids:
    def test_pixel_scale_puts_the_position_at_the_centre_north_up(self):
        wcs = make_wcs(RA, DEC, rotation=2.0)
        catalog = {"ra": [RA + 1e-4] * u.deg, "dec": [DEC - 1e-4] * u.deg}
        cutouts = CutoutSet(noise(1, 1, 40, 40), unit=u.nmgy, bands="r", wcs=[wcs], catalog=catalog)
        out = reproject_cutouts(cutouts, pixel_scale=0.5 * u.arcsec)
        assert out.size == (21, 21)
        assert out.pixel_scale == 0.5 * u.arcsec
        np.testing.assert_allclose(out.wcs[0].all_pix2world(10, 10, 0), [RA + 1e-4, DEC - 1e-4])
        east, north = out.wcs[0].all_pix2world([10, 10], [10, 11], 0)
        assert north[1] - north[0] == pytest.approx(0.5 / 3600, rel=1e-6)
        assert east[1] == pytest.approx(east[0])

    def test_like_takes_grid_and_size_row_by_row(self):
        cutouts = make_set(n=2, wcs=[make_wcs(10), make_wcs(50)])
        like = make_set(n=2, n_band=1, size=12, wcs=[make_wcs(10, rotation=1), make_wcs(50)])
        out = reproject_cutouts(cutouts, like=like)
        assert out.size == (12, 12)
        assert out.bands == cutouts.bands
        for row in range(2):
            assert out.wcs[row].wcs.compare(like.wcs[row].wcs)

    def test_size_may_come_from_the_wcs(self):
        cutouts = make_set(n=1, wcs=[make_wcs()])
        target = make_wcs()
        assert reproject_cutouts(cutouts, target_wcs=target).size == (16, 16)
        target.array_shape = (9, 7)
        assert reproject_cutouts(cutouts, target_wcs=target).size == (9, 7)

    @pytest.mark.parametrize(
        ("ra", "dec"), [(0.0, 0.0), (359.9999, 10.0), (1e-5, 89.9999), (33.0, 90.0), (7.0, -90.0)]
    )
    def test_seam_and_poles(self, ra, dec):
        source = centred(40, 0.4, ra, dec, rotation=0.8)
        star = one(draw_star(source, 40, 3, ra, dec), source)
        target = make_wcs(ra + 1e-3, max(dec - 1e-3, -90), (30.5, 30.5))
        out = reproject_cutouts(star, target_wcs=target, size=60)
        flux, x, y, _ = moments(out.data[0, 0])
        assert flux == pytest.approx(1, abs=3e-3)
        np.testing.assert_allclose([x, y], target.all_world2pix(ra, dec, 0), atol=0.02)

    def test_frames_differ(self):
        sky = SkyCoord(RA * u.deg, DEC * u.deg)
        source = centred(40, 0.4, sky.galactic.l.deg, sky.galactic.b.deg)
        source.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
        source.wcs.set()
        star = one(draw_star(source, 40, 3, sky.galactic.l.deg, sky.galactic.b.deg), source)
        out = reproject_cutouts(star, pixel_scale=SCALE)
        flux, x, y, _ = moments(np.nan_to_num(out.data[0, 0]))
        assert flux == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose([x, y], out.wcs[0].world_to_pixel(sky), atol=0.01)


class TestPixelMap:
    @given(
        rotation=st.floats(0, 6),
        scale=st.floats(0.1, 1),
        strength=st.floats(0, 3),
        n=st.integers(1, 70),
    )
    @settings(max_examples=25, deadline=None)
    def test_error_is_what_it_says(self, rotation, scale, strength, n):
        source, target = sip_wcs(60, scale, strength, rotation), centred(n)
        found = map_pixels(source, target, (n, n))
        exact = _pixel_map._exact(_pixel_map._Converter(source, target), n, n)
        assert found.error < 1e-3
        known = np.isfinite(exact.x)
        for axis in ("x", "y"):
            difference = (getattr(found, axis) - getattr(exact, axis))[known]
            assert np.abs(difference).max(initial=0) <= found.error + 1e-4
        np.testing.assert_allclose(found.area[known], exact.area[known], rtol=1e-3)

    def test_smooth_map_takes_few_exact_positions(self, monkeypatch):
        counted = []
        convert = _pixel_map._Converter.__call__

        def count(self, columns, rows):
            counted.append(len(columns) * len(rows))
            return convert(self, columns, rows)

        monkeypatch.setattr(_pixel_map._Converter, "__call__", count)
        map_pixels(centred(256, rotation=1), centred(256), (256, 256))
        assert sum(counted) == 17**2
        counted.clear()
        found = map_pixels(sip_wcs(256, 0.262, 20), centred(256), (256, 256))
        assert sum(counted) > 33**2
        assert found.error < 1e-3

    def test_lookup_tables_are_mapped_pixel_by_pixel(self):
        source = centred(64)
        table = np.zeros((4, 4), dtype=np.float32)
        table[1, 2] = 3.0
        source.cpdis1 = DistortionLookupTable(table, (1, 1), (1, 1), (21, 21))
        found = map_pixels(source, centred(64), (64, 64))
        assert found.error == 0
        shifts = found.x - np.arange(64)
        assert np.nanmax(np.abs(shifts)) == pytest.approx(3, abs=0.3)
        out = reproject_cutouts(
            one(draw_star(centred(64), 64, 5), source), target_wcs=centred(64), size=64
        )
        assert out.good.all()


class TestRows:
    def test_rows_that_cannot_be_used_keep_their_place(self):
        bad = make_wcs()
        bad.wcs.cd = np.zeros((2, 2))
        data = noise(4, 2, 16, 16)
        data[1, 1] = np.nan
        cutouts = CutoutSet(
            data,
            unit=u.nmgy,
            bands="gr",
            wcs=[make_wcs(), make_wcs(), None, make_wcs()],
            catalog={"id": ["a", "b", "c", "d"], "extra": [1, 2, 3, 4]},
            meta={"layer": "x"},
        )
        cutouts._cutout_wcs._entries[3] = bad
        out = reproject_cutouts(cutouts, pixel_scale=SCALE, size=8)
        status = list(out.catalog["status"])
        assert status[:3] == ["ok", "blank band: r", "no WCS"]
        assert status[3].startswith("invalid WCS: ")
        assert list(out.catalog["id"]) == ["a", "b", "c", "d"]
        assert list(out.catalog["extra"]) == [1, 2, 3, 4]
        assert out.meta == {"layer": "x"}
        np.testing.assert_array_equal(out.good, [True, False, False, False])
        assert np.isnan(out.data[1:]).all()
        assert out.mask[1:].all()
        assert out.wcs[1] is not None
        assert out.wcs[2] is None

    def test_target_that_is_missing_is_a_status(self):
        cutouts = make_set(n=2, wcs=[make_wcs(), make_wcs()])
        out = reproject_cutouts(cutouts, target_wcs=[make_wcs(), None], size=9)
        assert list(out.catalog["status"]) == ["ok", "no target WCS"]

    def test_position_that_is_missing_is_that_of_the_image(self):
        catalog = {"ra": [np.nan] * u.deg, "dec": [np.nan] * u.deg}
        cutouts = CutoutSet(
            noise(1, 1, 15, 15), unit=u.nmgy, bands="r", wcs=[centred(15)], catalog=catalog
        )
        out = reproject_cutouts(cutouts, pixel_scale=SCALE)
        np.testing.assert_allclose(out.data, cutouts.data, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize(
        "ra",
        [
            ["10h"],
            [10] * u.kg,
            Masked([10.0] * u.deg, mask=[True]),
            np.ma.masked_array([10.0], [True]),
        ],
    )
    def test_position_that_is_no_number_is_that_of_the_image(self, ra):
        cutouts = make_set(n=1, wcs=[make_wcs()], catalog={"ra": ra, "dec": [20.0] * u.deg})
        out = reproject_cutouts(cutouts, pixel_scale=SCALE)
        assert out.good.all()
        assert out.catalog["coverage"][0] > 0.6

    def test_threads_give_the_same(self):
        wcs = [make_wcs(10 + row, rotation=row) for row in range(6)]
        cutouts = make_set(n=6, wcs=wcs)
        before = cutouts.data.copy()
        results = [
            reproject_cutouts(cutouts, pixel_scale=0.3 * u.arcsec, n_jobs=n_jobs)
            for n_jobs in (1, 3, -1)
        ]
        for other in results[1:]:
            np.testing.assert_array_equal(other.data, results[0].data)
            np.testing.assert_array_equal(other.mask, results[0].mask)
        np.testing.assert_array_equal(cutouts.data, before)

    def test_file_that_is_memory_mapped(self, tmp_path):
        cutouts = make_set(n=3, wcs=[make_wcs(row) for row in range(3)])
        cutouts.write(tmp_path / "set.fits")
        out = reproject_cutouts(tmp_path / "set.fits", pixel_scale=0.3 * u.arcsec)
        expected = reproject_cutouts(cutouts, pixel_scale=0.3 * u.arcsec)
        np.testing.assert_array_equal(out.data, expected.data)
        out.write(tmp_path / "out.fits")
        again = CutoutSet.read(tmp_path / "out.fits")
        np.testing.assert_allclose(
            again.catalog["noise_correlation"], out.catalog["noise_correlation"]
        )

    def test_no_rows(self):
        cutouts = make_set(n=2, wcs=[make_wcs(), make_wcs()])
        assert reproject_cutouts(cutouts[:0], pixel_scale=SCALE).shape == (0, 3, 16, 16)

    def test_large_images_are_worked_on_in_blocks(self, monkeypatch):
        cutouts = make_set(n=1, wcs=[make_wcs()])
        whole = reproject_cutouts(cutouts, pixel_scale=0.1 * u.arcsec)
        monkeypatch.setattr(_carry, "_BLOCK", 16 * 7)
        parts = reproject_cutouts(cutouts, pixel_scale=0.1 * u.arcsec)
        np.testing.assert_array_equal(parts.data, whole.data)
        np.testing.assert_array_equal(parts.mask, whole.mask)


class TestRealImages:
    """CCD images with TPV distortion; benchmarks/alignment.py measures many sources."""

    @pytest.mark.parametrize(
        ("folder", "name"),
        [
            ("ccd-bok-mosaic", "ksb_180313_081856_ooi_g_ls9.CCD4.fits"),
            ("ccd-bok-mosaic", "k4m_151214_021723_oki_zd_v0-ccd2.fits"),
            ("ccd-decam", "c4d_141029_043420_ooi_r_ls9.N26.fits"),
        ],
        ids=["90prime", "Mosaic3", "DECam"],
    )
    def test_brightest_source_keeps_flux_and_position(self, shared_data, folder, name):
        aperture = pytest.importorskip("photutils.aperture")
        path = next((shared_data / folder).glob(f"**/{name}"))
        kind = "_ooi_" if "_ooi_" in name else "_oki_"
        values, weight, mask = (
            fits.getdata(path.with_name(path.name.replace(kind, other)), 1).astype(float)
            for other in (kind, "_oow_", "_ood_")
        )
        with quiet_astropy():
            wcs = WCS(fits.getheader(path, 1))
        values -= sigma_clipped_stats(values)[1]
        image = NDData(
            values, unit=u.adu, wcs=wcs, mask=mask != 0, uncertainty=InverseVariance(weight)
        )
        margin = 14  # keeps apertures on the image
        inner = np.where(mask == 0, values, 0)[margin:-margin, margin:-margin]
        y, x = np.add(np.unravel_index(inner.argmax(), inner.shape), margin)
        sky = wcs.pixel_to_world(x, y)
        cut = extract_cutouts(image, sky, 60)
        out = reproject_cutouts(cut, pixel_scale=SCALE, size=80)
        assert out.good.all()
        fluxes, centres = [], []
        for cutouts in (cut, out):
            pixels = np.nan_to_num(cutouts.data[0, 0].astype(float))
            frame = cutouts.wcs[0]
            at = np.array(frame.world_to_pixel(sky))
            scale = np.sqrt(map_pixels(frame, out.wcs[0], (80, 80)).area[39, 39]) / 0.262
            yy, xx = np.indices(pixels.shape)
            for _ in range(20):  # centroid in a window of one arcsec that follows it
                window = pixels * np.exp(-(np.hypot(xx - at[0], yy - at[1]) ** 2) / 2 / scale**2)
                window[np.hypot(xx - at[0], yy - at[1]) > 3 * scale] = 0
                total = window.sum()
                step = [(window * (xx - at[0])).sum(), (window * (yy - at[1])).sum()]
                at += 2 * np.array(step) / total
            circle = aperture.CircularAperture(at, 2.5 * scale)
            fluxes.append(circle.do_photometry(pixels)[0][0])
            centres.append(frame.pixel_to_world(*at))
        assert fluxes[1] == pytest.approx(fluxes[0], rel=5e-3)
        assert centres[0].separation(centres[1]) < 0.1 * SCALE


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "error", "match"),
        [
            ({}, ValueError, "exactly one .* got none"),
            ({"pixel_scale": SCALE, "like": make_set(n=1)}, ValueError, "pixel_scale and like"),
            ({"pixel_scale": 0.3}, TypeError, "pixel_scale: .*0.3"),
            ({"pixel_scale": -SCALE}, ValueError, "pixel_scale: .*-0.262"),
            ({"pixel_scale": SCALE, "size": 0}, ValueError, "size: .*0"),
            ({"pixel_scale": SCALE, "method": "sinc"}, ValueError, "method: .*'sinc'"),
            ({"pixel_scale": SCALE, "kernel": "box"}, ValueError, "kernel: .*'box'"),
            ({"pixel_scale": SCALE, "n_jobs": 0}, ValueError, "n_jobs: .*0"),
            ({"pixel_scale": SCALE, "n_jobs": 1.5}, TypeError, "n_jobs: .*1.5"),
            ({"target_wcs": "here"}, TypeError, "target_wcs: .*str"),
            ({"target_wcs": WCS(naxis=2)}, ValueError, "target_wcs: has no celestial"),
            ({"target_wcs": [make_wcs()] * 3}, ValueError, "target_wcs: 3 entries for 1"),
            ({"target_wcs": ["here"]}, TypeError, "target_wcs: .*str"),
            ({"pixel_scale": 1e-6 * u.arcsec}, ValueError, "pixel_scale: .*give size"),
            ({"like": make_set(n=1)}, ValueError, "like: .*no celestial WCS"),
            ({"like": make_set(n=2, wcs=[make_wcs()] * 2)}, ValueError, "like: 2 rows for 1"),
            ({"like": make_set(n=1, wcs=[make_wcs()]), "size": 3}, ValueError, "size: .*got"),
            ({"like": 3}, TypeError, "like: .*int"),
            ({"cutouts": make_set(n=1), "pixel_scale": SCALE}, ValueError, "cutouts: .*no .*WCS"),
            ({"cutouts": noise(1, 3, 9, 9), "pixel_scale": SCALE}, TypeError, "cutouts: "),
        ],
    )
    def test_wrong_argument_is_named(self, arguments, error, match):
        arguments = {"cutouts": make_set(n=1, wcs=[make_wcs()]), **arguments}
        with pytest.raises(error, match=match):
            reproject_cutouts(**arguments)

    def test_reproject_is_needed_only_where_it_is_used(self, monkeypatch):
        def missing(name, *, needed_for):
            raise ImportError(f"{needed_for} needs the package {name!r}")

        monkeypatch.setattr(alignment, "import_optional", missing)
        cutouts = make_set(n=1, wcs=[make_wcs()])
        assert reproject_cutouts(cutouts, pixel_scale=SCALE).good.all()
        with pytest.raises(ImportError, match=r"method='exact' needs .*'reproject'"):
            reproject_cutouts(cutouts, pixel_scale=SCALE, method="exact")
