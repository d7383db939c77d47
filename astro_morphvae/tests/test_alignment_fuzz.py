"""Random headers and positions: a clear error or a status, never a hang or a crash."""

import time

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import InverseVariance, NDData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astro_morphvae import CutoutSet, extract_cutouts
from astro_morphvae.cutouts._wcs import WCSList, cards_to_wcs
from astro_morphvae.processing import reproject_cutouts
from astro_morphvae.tests.cutout_samples import SCALE, make_wcs, noise

SIZE = 12
LIMIT = 20.0  # seconds for one example on a busy machine; a hang takes longer

pytestmark = pytest.mark.filterwarnings("ignore::astro_morphvae.exceptions.MorphVAEWarning")
bounded = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

projections = st.sampled_from(
    ["TAN", "TAN-SIP", "TPV", "SIN", "ZEA", "ARC", "STG", "CAR", "AIT", "MOL", "CEA", "TSC", "HPX"]
)
frames = st.sampled_from([("RA--", "DEC-"), ("GLON", "GLAT"), ("ELON", "ELAT")])
wild = st.floats(allow_nan=False, allow_infinity=False, width=32)
numbers = st.one_of(
    st.sampled_from([0.0, 1e-30, 1e30, -1.0, 89.999999, 90.0, -90.0, 359.9999999, 360.0, 720.0]),
    st.floats(-400, 400),
    wild,
)
longitudes = st.one_of(st.sampled_from([0.0, 1e-9, 180.0, 359.9999999, 360.0]), st.floats(0, 360))
latitudes = st.one_of(st.sampled_from([90.0, -90.0, 89.99999, 0.0]), st.floats(-90, 90))


@st.composite
def headers(draw):
    """Header of a small image: mostly sound, with anything possible in some of its cards."""
    lon, lat = draw(frames)
    projection = draw(projections)
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = f"{lon}-{projection}", f"{lat}-{projection}"
    header["CRVAL1"], header["CRVAL2"] = draw(longitudes), draw(latitudes)
    header["CRPIX1"], header["CRPIX2"] = draw(st.floats(-50, 50)), draw(st.floats(-50, 50))
    angle, scale = draw(st.floats(0, 6.3)), draw(st.sampled_from([1e-6, 7e-5, 1e-3, 0.5, 20.0]))
    sign = draw(st.sampled_from([-1, 1]))
    header["CD1_1"], header["CD1_2"] = sign * scale * np.cos(angle), scale * np.sin(angle)
    header["CD2_1"], header["CD2_2"] = -sign * scale * np.sin(angle), scale * np.cos(angle)
    if projection == "TAN-SIP":
        for letter in "AB":
            header[f"{letter}_ORDER"] = 3
            header[f"{letter}_2_0"] = draw(st.floats(-1e-2, 1e-2))
            header[f"{letter}_1_2"] = draw(st.floats(-1e-3, 1e-3))
    if projection == "TPV":
        for axis in "12":
            header[f"PV{axis}_1"] = draw(st.floats(-2, 2))
            header[f"PV{axis}_4"] = draw(st.floats(-100, 100))
            header[f"PV{axis}_39"] = draw(st.floats(-1e3, 1e3))
    for keyword in draw(st.lists(st.sampled_from(sorted(header)), max_size=2)):
        if isinstance(header[keyword], float):
            header[keyword] = draw(numbers)
    if draw(st.integers(0, 9)) == 0:
        header["CUNIT1"] = draw(st.sampled_from(["arcsec", "m", "nonsense"]))
    if draw(st.integers(0, 9)) == 0:
        header["CTYPE2"] = draw(st.sampled_from(["DEC--XXX", "FREQ", "GLAT-TAN", ""]))
    if draw(st.integers(0, 9)) == 0:
        header["LONPOLE"] = draw(numbers)
    return header


def wcs_of(header):
    """WCS of a header as a user would make it, or None where astropy refuses."""
    try:
        return cards_to_wcs(header.tostring(sep="", endcard=False, padding=False))
    except ValueError:
        return None


def make_cutouts(entries):
    """Cutouts as they come from files, their WCS built when first asked for."""
    data = noise(len(entries), 2, SIZE, SIZE)
    ivar = InverseVariance(np.ones_like(data))
    entries = WCSList(entries)
    return CutoutSet(data, unit=u.nmgy, bands="gr", uncertainty=ivar, wcs=entries)


def assert_sound(cutouts, n):
    """Every row is usable or says why not."""
    assert len(cutouts) == n
    data, ivar, mask = cutouts.arrays()
    assert np.isfinite(data).all()
    assert np.isfinite(ivar).all()
    assert (ivar >= 0).all()
    for row, status in enumerate(cutouts.catalog["status"]):
        assert status
        assert (status == "ok") == np.isfinite(cutouts.data[row]).all()
        if status != "ok":
            assert mask[row].all()
        else:
            assert mask is None or not mask[row].all()
    assert ((cutouts.catalog["coverage"] >= 0) & (cutouts.catalog["coverage"] <= 1)).all()


@given(header=headers(), other=headers(), data=st.data())
@bounded
def test_reproject_any_header_to_any_grid(header, other, data):
    entry = header.tostring(sep="", endcard=False, padding=False)
    cutouts = make_cutouts([entry, None])
    target = wcs_of(other)
    grids = [
        {"pixel_scale": data.draw(st.sampled_from([1e-3, 0.262, 3600.0])) * u.arcsec, "size": 7},
        {"like": cutouts} if cutouts.wcs[0] is not None else {"target_wcs": [None, None]},
        {"target_wcs": make_wcs(10, 20)},
        {"target_wcs": target or make_wcs(), "size": (5, 9)},
    ]
    started = time.monotonic()
    for grid in grids:
        out = reproject_cutouts(cutouts, **grid)
        assert_sound(out, 2)
        assert out.catalog["status"][1] != "ok"
        assert (np.asarray(out.catalog["noise_correlation"]) > 0).all()
    assert time.monotonic() - started < LIMIT


@pytest.mark.parametrize("method", ["adaptive", "exact"])
@given(header=headers(), scale=st.sampled_from([0.5, 1.0, 3.0]))
@settings(bounded, max_examples=12)
def test_other_methods(method, header, scale):
    pytest.importorskip("reproject")
    cutouts = make_cutouts([header.tostring(sep="", endcard=False, padding=False)])
    started = time.monotonic()
    pixel_scale = scale * (SCALE if cutouts.pixel_scale is None else cutouts.pixel_scale)
    assert_sound(reproject_cutouts(cutouts, pixel_scale=pixel_scale, size=5, method=method), 1)
    assert time.monotonic() - started < LIMIT


@given(ra=longitudes, dec=latitudes, dx=st.floats(-2, 2), angle=st.floats(0, 6.3))
@bounded
def test_reproject_anywhere_on_the_sky_keeps_the_flux(ra, dec, dx, angle):
    source = make_wcs(ra, dec, ((SIZE + 1) / 2 + dx, (SIZE + 1) / 2), rotation=angle)
    data = np.ones((1, 2, SIZE, SIZE))
    ivar = InverseVariance(data)
    cutouts = CutoutSet(data, unit=u.nmgy, bands="gr", wcs=[source], uncertainty=ivar)
    out = reproject_cutouts(cutouts, pixel_scale=0.3 * u.arcsec, size=6)
    assert_sound(out, 1)
    assert out.good.all()
    np.testing.assert_allclose(out.data, (0.3 / 0.262) ** 2, rtol=1e-4)


@given(
    header=headers(),
    positions=st.lists(
        st.tuples(
            st.one_of(longitudes, st.sampled_from([np.nan, np.inf, -1e9])),
            st.one_of(latitudes, st.just(np.nan)),
        ),
        min_size=1,
        max_size=4,
    ),
    mode=st.sampled_from(["partial", "strict"]),
)
@bounded
def test_extract_at_any_position(header, positions, mode):
    wcs = wcs_of(header)
    values = noise(2, 20, 30)
    image = NDData(values, unit=u.nmgy, wcs=wcs, uncertainty=InverseVariance(np.ones_like(values)))
    positions = np.array(positions)
    started = time.monotonic()
    out = extract_cutouts(image, positions, 8, mode=mode)
    assert_sound(out, len(positions))
    if wcs is not None and not np.isinf(positions).any():  # SkyCoord refuses those
        out = extract_cutouts(image, SkyCoord(positions * u.deg), 8, mode=mode)
        assert_sound(out, len(positions))
    assert time.monotonic() - started < LIMIT


def test_position_far_from_a_distorted_image_is_a_status_without_a_warning():
    header = make_wcs(10, 20).to_header()
    header.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"})
    header.update({"A_ORDER": 3, "B_ORDER": 3, "A_2_0": 1e-2, "B_1_2": 1e-3, "A_3_0": 1e-3})
    sky = SkyCoord([10.0, 12.0, 190.0, 10.0] * u.deg, [20.0, 21.0, -20.0, np.nan] * u.deg)
    image = NDData(noise(1, 20, 20), unit=u.nmgy, wcs=wcs_of(header))
    status = extract_cutouts(image, sky, 8).catalog["status"]
    assert list(status) == ["ok", *["invalid position"] * 3]


def test_header_without_celestial_axes_is_no_wcs():
    text = "EQUINOX =               2000.0".ljust(80)
    cutouts = make_cutouts([text])
    assert cutouts.wcs[0] is None
    assert cutouts.good.all()
    out = reproject_cutouts(cutouts, target_wcs=make_wcs(), size=5)
    assert list(out.catalog["status"]) == ["no WCS"]


def test_axes_in_the_other_order():
    header = make_wcs(10, 20, rotation=0.3).to_header()
    swapped = header.copy()
    for keyword in ("CTYPE", "CRVAL", "CUNIT", "CDELT"):
        for first, second in (("1", "2"), ("2", "1")):
            if keyword + first in header:
                swapped[keyword + first] = header[keyword + second]
    for column in "12":
        swapped[f"PC1_{column}"] = header[f"PC2_{column}"]
        swapped[f"PC2_{column}"] = header[f"PC1_{column}"]
    texts = [h.tostring(sep="", endcard=False, padding=False) for h in (header, swapped)]
    plain, other = (
        reproject_cutouts(make_cutouts([text]), pixel_scale=0.3 * u.arcsec, size=8)
        for text in texts
    )
    assert plain.good.all()
    np.testing.assert_allclose(other.data, plain.data, rtol=1e-3, atol=1e-3)


@given(entry=st.text(alphabet=st.characters(codec="ascii"), min_size=1, max_size=200))
@bounded
def test_cards_of_nonsense(entry):
    out = reproject_cutouts(make_cutouts([entry, None]), pixel_scale=SCALE, size=5)
    assert_sound(out, 2)
    assert not out.good.any()
