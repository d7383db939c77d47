import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, QTable, Table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from astro_morphvae.catalogs import crossmatch

ARCSEC = 1 / 3600


def sky(ra, dec):
    return SkyCoord(ra, dec, unit="deg")


def test_nearest_within_the_radius():
    ours = sky([10.0, 20.0, 30.0], [0.0, 0.0, 0.0])
    theirs = sky([30.0 + 0.4 * ARCSEC, 10.0, 20.0 + 2 * ARCSEC], [0.0, 0.3 * ARCSEC, 0.0])
    match = crossmatch(ours, theirs, radius=1 * u.arcsec)
    assert match["index"].tolist() == [1, -1, 0]
    assert match["flag"].tolist() == ["matched", "unmatched", "matched"]
    # That of the unmatched row says how far the radius would have to reach.
    np.testing.assert_allclose(match["separation"].to_value(u.arcsec), [0.3, 2.0, 0.4], rtol=1e-6)
    assert match["n_candidates"].tolist() == [1, 0, 1]
    assert match.meta["radius"] == 1 * u.arcsec


def test_several_within_the_radius_are_ambiguous():
    theirs = sky([50.0 + 0.5 * ARCSEC, 50.0 - 0.2 * ARCSEC], [0.0, 0.0])
    match = crossmatch(sky([50.0], [0.0]), theirs)
    assert match["index"].tolist() == [1]
    assert match["flag"].tolist() == ["ambiguous"]
    assert match["n_candidates"].tolist() == [2]


@pytest.mark.parametrize("one_to_one", [True, False])
def test_a_galaxy_is_given_to_the_nearest_row(one_to_one):
    ours = sky(50.0 + np.array([0.6, 0.1, 0.1, 300]) * ARCSEC, np.zeros(4))
    match = crossmatch(ours, sky([50.0, 60.0], [0.0, 0.0]), one_to_one=one_to_one)
    assert match["flag"].tolist() == ["duplicate", "matched", "duplicate", "unmatched"]
    assert match["index"].tolist() == ([-1, 0, -1, -1] if one_to_one else [0, 0, 0, -1])


def test_across_the_seam_and_at_the_poles():
    ours = sky([359.99995, 0.0, 123.0], [0.0, 90.0, -90.0])
    theirs = sky([303.0, 0.00005, 180.0], [-90.0, 0.0, 90.0 - 0.5 * ARCSEC])
    match = crossmatch(ours, theirs)
    assert match["index"].tolist() == [1, 2, 0]
    np.testing.assert_allclose(match["separation"].value, [0.36, 0.5, 0.0], atol=1e-6)


def test_rows_without_position_stay_in_their_place():
    ours = QTable({"ra": [np.nan, 10.0, 10.0, 20.0] * u.deg, "dec": [0.0, 95.0, 0.0, 0.0] * u.deg})
    theirs = Table(
        {"ra": MaskedColumn([20.0, 10.0, 7], mask=[True, False, False]), "dec": [0, 0, 0]}
    )
    match = crossmatch(ours, theirs)
    assert match["flag"].tolist() == ["invalid", "invalid", "matched", "unmatched"]
    assert match["index"].tolist() == [-1, -1, 1, -1]
    assert np.isnan(match["separation"][:2]).all()


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_empty_catalogues(n, m):
    match = crossmatch(sky(np.arange(n), np.zeros(n)), sky(np.arange(m), np.zeros(m)))
    assert len(match) == n
    assert (match["index"] == -1).all()
    assert (match["flag"] == "unmatched").all()
    assert np.isnan(match["separation"]).all()


def test_a_scalar_a_table_in_radians_and_another_frame():
    here = SkyCoord(12.0, 40.0, unit="deg")
    table = QTable({"ra": [here.ra.rad] * u.rad, "dec": [here.dec.rad] * u.rad})
    assert crossmatch(here.galactic, table)["index"].tolist() == [0]


def test_errors_name_the_argument():
    here = sky([1.0], [1.0])
    with pytest.raises(TypeError, match="coords: expected a SkyCoord"):
        crossmatch([1.0, 2.0], here)
    with pytest.raises(ValueError, match=r"other: the table has no column dec; it has \['ra'\]"):
        crossmatch(here, Table({"ra": [1.0]}))
    with pytest.raises(ValueError, match="column ra: Jy is not an angle"):
        crossmatch(QTable({"ra": [1.0] * u.Jy, "dec": [1.0] * u.deg}), here)
    with pytest.raises(ValueError, match="column dec: expected numbers"):
        crossmatch(Table({"ra": [1.0], "dec": ["+1:00:00"]}), here)
    for radius in (1.0, -1 * u.arcsec, [1, 2] * u.arcsec, np.nan * u.arcsec, 200 * u.deg):
        with pytest.raises(ValueError, match="radius: expected"):
            crossmatch(here, here, radius=radius)


places = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 12), st.just(2)),
    elements=st.floats(-3, 3, width=32) | st.just(np.nan),
)


@settings(max_examples=40, deadline=None)
@given(ours=places, theirs=places, where=st.sampled_from([0.0, 89.999, -89.999, 45.0]))
def test_whatever_the_positions(ours, theirs, where):
    """Few arcsec wide crowds of galaxies, anywhere: what is promised holds."""

    def crowd(places):
        return sky(359.9999 + places[:, 0] * ARCSEC, where + places[:, 1] * ARCSEC)

    match = crossmatch(crowd(ours), crowd(theirs), radius=1 * u.arcsec)
    found = match["index"] >= 0
    taken = match["index"][found]
    assert len(match) == len(ours)
    assert len(set(taken)) == len(taken)
    assert not np.isnan(theirs[taken]).any()
    assert (match["separation"][found] <= 1 * u.arcsec).all()
    assert ((match["flag"] == "invalid") == np.isnan(ours).any(axis=1)).all()
    assert (found == np.isin(match["flag"], ["matched", "ambiguous"])).all()
    if len(taken):
        exact = crowd(ours)[found].separation(crowd(theirs)[taken])
        np.testing.assert_allclose(exact.arcsec, match["separation"][found].value, atol=1e-5)
