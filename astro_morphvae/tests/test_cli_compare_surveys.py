import argparse
import os

import numpy as np
import pytest
from astropy.table import QTable

from astro_morphvae.analysis import domain_shift
from astro_morphvae.cli import compare_surveys
from astro_morphvae.cli._common import add_process_options, read_table

pytest.importorskip("matplotlib")

FEW = "--n-permutations 19 --n-bootstrap 10"


@pytest.fixture(scope="module", autouse=True)
def _small_forests():
    """Let few trees tell surveys apart, where a test is not about how well they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("astro_morphvae.analysis._classifier.N_TREES", 20)
        yield


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(80, 4))
    for name, shift in (("decals", 0.0), ("bass", 0.8)):
        z = truth + shift + 0.2 * rng.normal(size=truth.shape)
        table = QTable({"id": np.arange(80), "z_mean": z, "status": np.full(80, "ok")})
        table.meta["model"] = f"model of {name}"
        table.write(tmp_path / f"{name}.ecsv")
    return tmp_path


def run_in(folder, line):
    parser = argparse.ArgumentParser()
    compare_surveys.add_arguments(parser)
    add_process_options(parser)
    before = os.getcwd()
    os.chdir(folder)
    try:
        compare_surveys.run(parser.parse_args(line.split()))
    finally:
        os.chdir(before)


def test_table_figure_and_ranking_are_written(folder, capsys):
    run_in(
        folder,
        f"decals.ecsv bass.ecsv --pairs id -o shift.ecsv --ranking pairs.fits --seed 5 {FEW}",
    )
    assert (folder / "shift.png").read_bytes().startswith(b"\x89PNG")
    table, ranking = read_table(folder / "shift.ecsv"), read_table(folder / "pairs.fits")
    latents = [read_table(folder / name) for name in ("decals.ecsv", "bass.ecsv")]
    expected = domain_shift(*latents, pairs="id", seed=5, n_permutations=19, n_bootstrap=10)
    np.testing.assert_array_equal(table["value"], expected["value"])
    assert table.meta["models"] == ["model of decals", "model of bass"]
    assert len(ranking) == 80
    assert (np.diff(ranking["distance"]) >= 0).all()
    printed = capsys.readouterr().out
    for word in ("mmd2", "auc_forest", "recall1_a_to_b", "shift.ecsv: ", "shift.png", "80 pairs"):
        assert word in printed
    import matplotlib.pyplot as plt

    assert not plt.get_fignums()


def test_surveys_without_pairs(folder, capsys):
    other = QTable.read(folder / "bass.ecsv")
    other["id"] += 1000
    other.write(folder / "other.ecsv")
    run_in(folder, f"decals.ecsv other.ecsv -o shift.fits --figure map.pdf --names D B {FEW}")
    assert (folder / "map.pdf").stat().st_size > 1000
    assert "recall" not in capsys.readouterr().out
    assert read_table(folder / "shift.fits").meta["n_pairs"] == 0


def test_outputs_are_checked_before_the_work(folder):
    with pytest.raises(ValueError, match="--ranking needs --pairs"):
        run_in(folder, "decals.ecsv bass.ecsv -o shift.ecsv --ranking pairs.ecsv")
    with pytest.raises(ValueError, match=r"map\.jpg: the name must end in"):
        run_in(folder, "decals.ecsv bass.ecsv -o shift.ecsv --figure map.jpg")
    (folder / "shift.png").touch()
    with pytest.raises(FileExistsError, match=r"shift\.png exists"):
        run_in(folder, "decals.ecsv bass.ecsv -o shift.ecsv")
    run_in(folder, f"decals.ecsv bass.ecsv --pairs rows -o shift.ecsv --overwrite {FEW}")
    assert (folder / "shift.png").stat().st_size > 1000


def test_the_example_parses():
    parser = argparse.ArgumentParser()
    compare_surveys.add_arguments(parser)
    lines = compare_surveys.EXAMPLE.splitlines()
    assert len(lines) == 2
    for line in lines:
        program, command, *arguments = line.split()
        assert (program, command) == ("morphvae", "compare-surveys")
        assert parser.parse_args(arguments).pairs == "id"
