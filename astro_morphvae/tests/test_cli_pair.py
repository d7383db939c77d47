import argparse

import numpy as np
import pytest
from astropy.table import QTable

from astro_morphvae.cli import pair
from astro_morphvae.cli._common import add_process_options, read_table
from astro_morphvae.cutouts import CutoutSet
from astro_morphvae.datasets import make_survey_pair

N = 4


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder that holds two surveys of the same galaxies, and where they are."""
    monkeypatch.chdir(tmp_path)
    decals, bass = make_survey_pair(N, size=40, seed=2, foreground=False)
    decals.write("decals.fits")
    bass[[3, 0, 1]].write("bass.fits")
    places = QTable({name: decals.catalog[name] for name in ("id", "ra", "dec")})
    for name in ("ra", "dec"):
        places[name] = places[name].value
    places.write("places.csv", format="ascii.csv")
    return tmp_path


def run(line):
    parser = argparse.ArgumentParser()
    pair.add_arguments(parser)
    add_process_options(parser)
    pair.run(parser.parse_args(line.split()))


def test_two_files(folder, capsys):
    run("decals.fits bass.fits -o a.fits b.fits --table pairs.ecsv --no-progress --match-psf")
    first, second = CutoutSet.read("a.fits"), CutoutSet.read("b.fits")
    table = read_table("pairs.ecsv")
    assert len(first) == len(second) == len(table) == N
    assert list(first.catalog["id"]) == list(second.catalog["id"]) == list(table["id"])
    assert table["second_index"].tolist() == [1, 2, -1, 0]
    assert second.good.tolist() == [True, True, False, True]
    np.testing.assert_allclose(first.psf_fwhm.value, second.psf_fwhm.value)
    assert table["first_depth"].shape == (N, 3)
    assert table.meta["first"] == "DECaLS"
    text = capsys.readouterr().out
    assert "pairs.ecsv: 3 of 4 galaxies are in both surveys" in text
    assert "  1 second: no-counterpart\n" in text


def test_layers_are_fetched(folder, monkeypatch):
    pytest.importorskip("astroquery")
    from astro_morphvae.surveys import LegacySurvey
    from astro_morphvae.tests.survey_server import CutoutSource, SurveyServer

    monkeypatch.setattr(LegacySurvey, "cache_location", folder / "cache")
    decals, bass = make_survey_pair(N, size=40, seed=2, foreground=False)
    layers = {"ls-dr9-south": CutoutSource(decals), "ls-dr9-north": CutoutSource(bass)}
    with SurveyServer(layers=layers) as server:
        run(
            "ls-dr9-south ls-dr9-north --coords places.csv -o a.fits b.fits --bands gz --fetch-size"
            f" 32 --pixel-scale 0.524 --server {server.url} --no-progress"
        )
    first, second = CutoutSet.read("a.fits"), CutoutSet.read("b.fits")
    assert list(first.catalog["id"]) == list(decals.catalog["id"])
    assert first.bands == second.bands == ("g", "z")
    assert first.size == second.size == (16, 16)
    assert first.meta["survey"] == "ls-dr9-south"
    assert second.meta["survey"] == "ls-dr9-north"
    # The middle 4 arcsec hold the same light as before, up to their edges and noise.
    before = decals.arrays()[0][:, [0, 2], 12:28, 12:28].sum(axis=(2, 3))
    flux = first.arrays()[0][:, :, 4:12, 4:12].sum(axis=(2, 3))
    assert first.good.all()
    np.testing.assert_allclose(flux, before, rtol=0.1)


def test_what_cannot_be_paired(folder):
    for line, error in (
        ("decals.fits bass.fits -o a.fits a.fits", "--output: a.fits is named twice"),
        ("decals.fits bass.fits -o a.fits b.csv", "b.csv: the name must end in .fits"),
        ("decals.fits bass.fits -o a.fits b.fits --table c.csv", "c.csv: the name must end in"),
        ("decals.fits places.csv -o a.fits b.fits", "places.csv is neither a CutoutSet file nor"),
        ("decals.fits ls-dr9-north -o a.fits b.fits", "--coords: positions are needed to fetch"),
        (
            "decals.fits bass.fits -o a.fits b.fits --coords places.csv places.csv places.csv",
            "--coords: expected one table or two, got 3",
        ),
        ("decals.fits bass.fits -o a.fits b.fits --max-separation 3", "at most 1.0 arcsec"),
    ):
        with pytest.raises(ValueError) as caught:
            run(line)
        assert error in str(caught.value), line
        assert not (folder / "a.fits").exists()
    (folder / "a.fits").write_bytes(b"")
    with pytest.raises(FileExistsError, match=r"a\.fits exists; give --overwrite"):
        run("decals.fits bass.fits -o a.fits b.fits")
