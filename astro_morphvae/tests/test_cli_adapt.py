"""``morphvae adapt``: files in, an adapted model out."""

import argparse
import inspect

import numpy as np
import pytest

from astro_morphvae import CutoutSet, LatentModel
from astro_morphvae.cli import adapt
from astro_morphvae.cli._common import add_process_options
from astro_morphvae.fitting import DomainAdaptationFitter
from astro_morphvae.tests.test_domain_adaptation import (  # noqa: F401  (fixtures)
    galaxies,
    model,
    observe,
    surveys,
)


def parse(line):
    parser = argparse.ArgumentParser()
    adapt.add_arguments(parser)
    add_process_options(parser)
    return parser.parse_args(line.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, surveys):  # noqa: F811
    folder = tmp_path_factory.mktemp("adapt")
    model.write(folder / "model.keras")
    for cutouts, name in zip(surveys, "ab", strict=True):
        cutouts.write(folder / f"{name}.fits")
    return folder


def run(folder, line, monkeypatch):
    monkeypatch.chdir(folder)
    adapt.run(parse(f"model.keras a.fits {line} --epochs 1 --batch-size 64 --no-progress"))


def test_adapts_and_says_so(folder, monkeypatch, capsys):
    run(folder, "--target b.fits --pairs id --method paired -o out.keras --seed 2", monkeypatch)
    text = capsys.readouterr().out
    assert "out.keras: 1 epochs, completed; AUC of a classifier" in text
    adapted = LatentModel.read(folder / "out.keras")
    assert adapted.network.surveys == ("A", "B")
    assert adapted.fit_info["settings"]["seed"] == 2
    latents = adapted.encode(CutoutSet.read(folder / "b.fits"))
    assert latents.meta["survey"] == "B"
    assert np.isfinite(latents["z_mean"]).all()
    assert not (folder / "out.keras.checkpoint").exists()


def test_targets_have_names(folder, monkeypatch):
    line = "--target first=b.fits --target second=b.fits --elbo-weight 0 -o named.keras"
    run(folder, line, monkeypatch)
    assert LatentModel.read(folder / "named.keras").network.surveys == ("A", "first", "second")
    with pytest.raises(ValueError, match="B is given twice"):
        run(folder, "--target b.fits --target b.fits -o twice.keras", monkeypatch)


def test_refuses_before_it_works(folder, monkeypatch):
    with pytest.raises(FileExistsError, match="--overwrite"):
        run(folder, "--target b.fits -o model.keras", monkeypatch)
    with pytest.raises(ValueError, match="pairs must say which rows"):
        run(folder, "--target b.fits --method paired -o x.keras", monkeypatch)


def test_options_have_the_defaults_of_the_fitter():
    args = vars(parse("model.keras a.fits --target b.fits -o out.keras"))
    settings = inspect.signature(DomainAdaptationFitter).parameters
    for name in set(settings) - {"conditions", "keep_best", "checkpoint"}:
        assert args[name] == settings[name].default, name
