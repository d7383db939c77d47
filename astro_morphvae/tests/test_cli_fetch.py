import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable, Table

from astro_morphvae.cli import main
from astro_morphvae.cutouts import CutoutSet
from astro_morphvae.tests.survey_server import SurveyServer, signature

pytest.importorskip("astroquery")

from astro_morphvae.surveys.legacy import conf


@pytest.fixture
def server():
    with SurveyServer() as server, conf.set_temp("backoff", 0.01):
        yield server


@pytest.fixture
def command(server, tmp_path):
    """Return a function that runs ``morphvae fetch`` on a table, in this process."""

    def run(table, *options, name="table.ecsv"):
        if table is not None:
            table.write(tmp_path / name, overwrite=True)
        arguments = ["fetch", name, "--layer", "ls-dr9-south", "-o", "cutouts.fits"]
        arguments += ["--server", server.url, "--cache", "cache", "--size", "16"]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            return main([*arguments, *options])

    return run


@pytest.fixture
def table():
    ra = np.array([10.0, 20.0, 30.0, 40.0, np.nan])
    dec = np.array([0.0, 5.0, -75.0, -65.0, 1.0])
    return QTable({"id": [f"g{n}" for n in range(5)], "ra": ra * u.deg, "dec": dec * u.deg})


def test_table_to_file(command, table, tmp_path, capsys):
    table["spiral"] = np.arange(5) / 5
    table["status"] = "looked at"
    assert command(table) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("cutouts.fits: <CutoutSet of 5: 3 bands (g, r, z), 16 × 16 pixels")
    assert sorted(out[1:]) == [
        "  1 incomplete-bands: z",
        "  1 invalid-position",
        "  1 off-footprint",
        "  2 ok",
    ]
    cutouts = CutoutSet.read(tmp_path / "cutouts.fits")
    assert list(cutouts.catalog["id"]) == list(table["id"])
    np.testing.assert_array_equal(cutouts.catalog["spiral"], table["spiral"])
    assert list(cutouts.good) == [True, True, False, False, False]
    assert cutouts.data[1, 0, 0, 0] == pytest.approx(signature(20, 5))


def test_second_run_fetches_what_is_missing(command, table, server, capsys):
    assert command(table[:2]) == 0
    assert command(table[:2]) == 1
    assert "cutouts.fits exists; give --overwrite to replace it" in capsys.readouterr().err
    table["dec"][2:4] = 3 * u.deg
    assert command(table[:4], "--overwrite") == 0
    assert len(server.requests) == len(set(server.requests)) == 4


def test_options_reach_the_service(command, table, server, tmp_path):
    options = ["--bands", "z,g", "--pixel-scale", "0.4", "--no-uncertainty", "--no-progress"]
    assert command(table[:2], *options, "--layer", "ls-dr9-north-model") == 0
    cutouts = CutoutSet.read(tmp_path / "cutouts.fits")
    assert (cutouts.bands, cutouts.ivar) == (("z", "g"), None)
    assert cutouts.pixel_scale == 0.4 * u.arcsec
    assert cutouts.meta["survey"] == "ls-dr9-north-model"


def test_plain_csv_in_capitals(command, tmp_path):
    (tmp_path / "table.csv").write_text("RA,Dec,name\n10,0,a\n,1,b\n")
    assert command(None, name="table.csv") == 0
    cutouts = CutoutSet.read(tmp_path / "cutouts.fits")
    assert list(cutouts.catalog["status"]) == ["ok", "invalid-position"]
    assert list(cutouts.catalog["name"]) == ["a", "b"]


def test_interrupt_says_how_to_go_on(command, table, tmp_path, monkeypatch, capsys):
    from astro_morphvae.surveys import LegacySurvey

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(LegacySurvey), "get_cutouts", interrupted)
    assert command(table) == 130
    assert "interrupted; what came is kept; the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "cutouts.fits").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "ls-dr10-north"], "layer: expected one of ls-dr9-south"),
        (["--bands", "gi"], "bands: layer 'ls-dr9-south' has g, r, z"),
        (["--size", "4000"], "size: the service gives at most 3000"),
        (["--output", "cutouts.ecsv"], "the name must end in .fits"),
        (["--output", "missing/cutouts.fits"], "missing does not exist"),
    ],
)
def test_errors_are_one_line(command, table, server, options, message, capsys):
    assert command(table, *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("morphvae fetch: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert server.requests == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ra": [1.0], "declination": [2.0]}, "no column 'dec' among ra, declination"),
        ({"ra": ["12:30"], "dec": ["+10"]}, "column 'ra' holds no numbers; degrees are needed"),
        ({"ra": [1.0, 2.0], "dec": [0.0, 95.0]}, "row 1 has the declination 95 deg"),
    ],
)
def test_table_without_positions_is_named(command, columns, message, capsys):
    assert command(Table(columns)) == 1
    error = capsys.readouterr().err
    assert "table.ecsv" in error
    assert message in error


def test_nothing_to_be_had_is_an_error(command, table, tmp_path, capsys):
    assert command(table[2:3]) == 1
    captured = capsys.readouterr()
    assert "  1 off-footprint" in captured.out
    assert "none of the 1 cutouts could be had; the first: off-footprint: every" in captured.err
    assert not CutoutSet.read(tmp_path / "cutouts.fits").good.any()
