import inspect
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table

from astro_morphvae import __version__
from astro_morphvae.cli import COMMANDS, command_name, main, make_parser
from astro_morphvae.cli._common import read_table
from astro_morphvae.cutouts import CutoutSet
from astro_morphvae.datasets import make_galaxies


@pytest.fixture(scope="module")
def galaxies():
    return make_galaxies(250, size=32, pixel_scale=1.048, seed=5)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, galaxies, small_forests):
    """Return a folder where the whole chain of commands was run."""
    folder = tmp_path_factory.mktemp("cli")
    galaxies.write(folder / "galaxies.fits")
    for line in (
        "fit galaxies.fits -o model.keras --epochs 2 --batch-size 32 --latent-dim 6 --no-progress",
        "encode model.keras galaxies.fits -o latents.ecsv --no-progress",
        "classify latents.ecsv --votes galaxies.fits --save classifier.skops -o labels.ecsv",
    ):
        assert run_in(folder, line) == 0, line
    return folder


def run_in(folder, line):
    """Run a command line in a folder, in this process; return the exit status."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        return main(line.split())
    finally:
        os.chdir(before)


def start(folder, line, **kwargs):
    """Start a command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from astro_morphvae.cli import main; sys.exit(main())"]
        + line.split(),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def only_line(text):
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


# -- Usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [command_name(module) for module in COMMANDS])
def test_help_has_an_example_that_parses(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    example = text[text.index("example:") :]
    lines = [line.split() for line in example.splitlines() if line.startswith("  morphvae ")]
    assert lines
    for _, *arguments in lines:
        assert make_parser().parse_args(arguments).command == command


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"morphvae {__version__}"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no-such-command",
        "simulate",
        "simulate out.fits --n many",
        "simulate out.fits --no-such-option",
        "encode model.keras cutouts.fits --out latents.ecsv",  # no abbreviation
        "classify latents.ecsv -o labels.ecsv",  # neither --votes nor --classifier
        "fit cutouts.fits -o model.keras --precision float16",
    ],
)
def test_wrong_usage_is_status_2(line, capsys):
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: morphvae" in captured.err


def options_of(command):
    return set(vars(make_parser().parse_args([*command.split()])))


def keywords_of(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def test_options_of_fit_are_keywords_of_the_fitter():
    from astro_morphvae import VAEFitter

    assert keywords_of(VAEFitter.__init__) <= options_of("fit c.fits -o m.keras")


def test_options_of_fit_default_as_the_fitter_does():
    from astro_morphvae import VAEFitter

    args = vars(make_parser().parse_args("fit c.fits -o m.keras".split()))
    for parameter in inspect.signature(VAEFitter.__init__).parameters.values():
        if parameter.name not in ("self", "checkpoint"):
            assert args[parameter.name] == parameter.default, parameter.name


def test_options_of_encode_are_keywords_of_encode():
    from astro_morphvae import LatentModel

    options = options_of("encode m.keras c.fits -o l.ecsv")
    assert keywords_of(LatentModel.encode) <= options


# -- The chain of commands -------------------------------------------------------------------------


def test_simulate_writes_what_make_galaxies_makes(tmp_path, capsys):
    assert run_in(tmp_path, "simulate out.fits --n 7 --size 32 --seed 2 --survey BASS+MzLS") == 0
    assert "CutoutSet of 7" in only_line(capsys.readouterr().out)
    made = CutoutSet.read(tmp_path / "out.fits")
    expected = make_galaxies(7, size=32, seed=2, survey="BASS+MzLS")
    np.testing.assert_array_equal(made.data, expected.data)


def test_latents_and_labels_keep_the_rows(workplace, galaxies):
    ids = list(galaxies.catalog["id"])
    latents = QTable.read(workplace / "latents.ecsv")
    labels = QTable.read(workplace / "labels.ecsv")
    assert list(latents["id"]) == ids
    assert list(labels["id"]) == ids
    assert latents["z_mean"].shape == (250, 6)
    assert set(labels["smooth-or-featured"]) <= {"smooth", "featured-or-disk", "artifact"}


def test_same_seed_same_latents(workplace, galaxies):
    from astro_morphvae import VAE, LatentModel, VAEFitter

    network = VAE(6, image_size=32, n_bands=3)
    fitter = VAEFitter(epochs=2, batch_size=32, progress=False)
    expected = fitter(LatentModel(network), galaxies).encode(galaxies)
    latents = QTable.read(workplace / "latents.ecsv")
    np.testing.assert_allclose(latents["z_mean"], expected["z_mean"], rtol=0, atol=1e-5)


def test_checkpoint_goes_once_the_fit_is_done(workplace):
    assert {path.name for path in workplace.iterdir()} >= {"model.keras", "latents.ecsv"}
    assert not list(workplace.glob("*checkpoint*"))
    assert not list(workplace.glob(".*part*"))


def test_saved_classifier_gives_the_same_labels(workplace, capsys):
    line = "classify latents.ecsv --classifier classifier.skops -o again.ecsv"
    assert run_in(workplace, line) == 0
    first, again = (QTable.read(workplace / f"{name}.ecsv") for name in ("labels", "again"))
    assert list(first["smooth-or-featured"]) == list(again["smooth-or-featured"])


def test_evaluate_shows_and_writes_scores(workplace, capsys):
    line = "evaluate classifier.skops latents.ecsv --votes galaxies.fits -o scores.ecsv"
    assert run_in(workplace, line) == 0
    assert "majority_balanced_accuracy" in capsys.readouterr().out
    scores = QTable.read(workplace / "scores.ecsv")
    assert np.all(scores["accuracy_low"] <= scores["accuracy"])


def test_votes_may_come_from_a_table(workplace, galaxies):
    galaxies.catalog.write(workplace / "votes.ecsv", overwrite=True)
    line = "classify latents.ecsv --votes votes.ecsv -o from_table.ecsv"
    assert run_in(workplace, line) == 0
    first, again = (QTable.read(workplace / f"{name}.ecsv") for name in ("labels", "from_table"))
    assert list(first["smooth-or-featured"]) == list(again["smooth-or-featured"])


def test_latents_as_fits(workplace):
    line = "encode model.keras galaxies.fits -o latents.fits --no-progress"
    assert run_in(workplace, line) == 0
    table, ecsv = (QTable.read(workplace / f"latents.{end}") for end in ("fits", "ecsv"))
    np.testing.assert_allclose(table["z_mean"], ecsv["z_mean"], rtol=1e-6)
    assert dict(read_table(workplace / "latents.fits").meta) == dict(ecsv.meta)
    assert run_in(workplace, "classify latents.fits --classifier classifier.skops -o l.fits") == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("galaxies.fits", "CutoutSet of 250"),
        ("model.keras", "fitted for 2 epochs"),
        ("classifier.skops", "smooth-or-featured"),
        ("latents.ecsv", "table of 250 rows"),
    ],
)
def test_info_of_files(workplace, capsys, name, said):
    assert run_in(workplace, f"info {name}") == 0
    assert said in capsys.readouterr().out


def test_info_of_the_installation(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "keras" in out
    assert "devices: cpu" in out


_HEADER = {
    "BUNIT": "nanomaggy",
    "BANDS": "grz",
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CDELT1": -1.048 / 3600,
    "CDELT2": 1.048 / 3600,
    "CRPIX1": 16.5,
    "CRPIX2": 16.5,
}


@pytest.fixture
def stamps(tmp_path, galaxies):
    """Return a folder of FITS files, one of them damaged."""
    folder = tmp_path / "stamps"
    folder.mkdir()
    for row in range(3):
        header = fits.Header(_HEADER | {"CRVAL1": 10.0 + row, "CRVAL2": 2.0})
        fits.writeto(folder / f"galaxy{row}.fits", galaxies.data[row], header)
    (folder / "galaxy9.fits").write_bytes(b"SIMPLE  =  not much of a file")
    return folder


def test_encode_a_folder_of_files(workplace, stamps):
    output = stamps.parent / "latents.ecsv"
    assert run_in(workplace, f"encode model.keras {stamps} -o {output} --no-progress") == 0
    latents = QTable.read(output)
    assert list(latents["id"]) == ["galaxy0", "galaxy1", "galaxy2", "galaxy9"]
    assert list(latents["status"] == "ok") == [True, True, True, False]
    assert np.isnan(latents["z_mean"][3]).all()
    reference = QTable.read(workplace / "latents.ecsv")
    np.testing.assert_allclose(latents["z_mean"][:3], reference["z_mean"][:3], atol=1e-4)


def test_encode_a_list_of_files_in_batches(workplace, stamps, monkeypatch):
    monkeypatch.setattr("astro_morphvae.cli.encode._N_FILES", 2)
    files = " ".join(str(stamps / f"galaxy{row}.fits") for row in (2, 0, 1))
    output = stamps.parent / "latents.ecsv"
    assert run_in(workplace, f"encode model.keras {files} -o {output} --no-progress") == 0
    assert list(QTable.read(output)["id"]) == ["galaxy2", "galaxy0", "galaxy1"]


# -- Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("simulate galaxies.fits --n 2", "galaxies.fits exists; give --overwrite"),
        ("simulate galaxies.ecsv --n 2", "must end in .fits"),
        ("simulate new.fits --n -3", "n must be at least"),
        ("simulate new.fits --survey Hubble", "Hubble"),
        ("simulate no/folder/new.fits", "does not exist"),
        ("encode none.keras galaxies.fits -o new.ecsv", "none.keras"),
        ("encode model.keras none.fits -o new.ecsv", "none.fits does not exist"),
        ("encode model.keras galaxies.fits -o new.csv", "must end in .ecsv"),
        ("encode model.keras galaxies.fits --bands grz -o new.ecsv", "--bands is for image files"),
        ("encode latents.ecsv galaxies.fits -o new.ecsv", "latents.ecsv"),
        ("encode model.keras galaxies.fits -o new.ecsv --batch-size 0", "batch_size"),
        ("fit galaxies.fits -o new.keras --epochs 0", "epochs"),
        ("fit galaxies.fits -o new.keras --architecture none", "architecture"),
        ("classify latents.ecsv --votes latents.ecsv -o new.ecsv", "votes"),
        ("classify latents.ecsv --classifier labels.ecsv -o new.ecsv", "labels.ecsv"),
        ("evaluate classifier.skops labels.ecsv --votes galaxies.fits", "z_mean"),
        ("info none.fits", "none.fits does not exist"),
    ],
)
def test_an_error_is_one_line_and_status_1(workplace, capsys, line, said):
    before = {path.name: path.stat().st_mtime_ns for path in workplace.iterdir()}
    assert run_in(workplace, line) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    message = only_line(captured.err)
    assert message.startswith(f"morphvae {line.split()[0]}: error: ")
    assert said in message
    after = {path.name: path.stat().st_mtime_ns for path in workplace.iterdir()}
    assert after == before  # nothing half-written, nothing replaced


def test_debug_shows_the_traceback(workplace, capsys):
    assert run_in(workplace, "info none.fits --debug") == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_overwrite_replaces(tmp_path):
    Table({"a": [1]}).write(tmp_path / "out.fits")
    assert run_in(tmp_path, "simulate out.fits --n 2 --size 32 --overwrite") == 0
    assert len(CutoutSet.read(tmp_path / "out.fits")) == 2


def test_output_that_nobody_reads_is_no_traceback(workplace):
    with start(workplace, "info") as process:
        process.stdout.close()
        message = process.stderr.read()
    assert "Traceback" not in message


@pytest.mark.skipif(os.name != "posix", reason="sends an interrupt as a terminal does")
def test_interrupted_fit_says_how_to_go_on_and_goes_on(workplace, tmp_path):
    line = "fit galaxies.fits -o {} --epochs {} --batch-size 32 --latent-dim 6 --no-progress"
    output = tmp_path / "model.keras"
    checkpoint = tmp_path / "model.keras.checkpoint"
    long = line.format(output, 500)
    with start(workplace, long) as process:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, message = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"give the same command again to go on from {checkpoint}" in only_line(message)
    assert not output.exists()

    from astro_morphvae.fitting.checkpoint import read_checkpoint

    _, record = read_checkpoint(checkpoint)
    assert record["epoch"] >= 1
    # Another fit does not go on from this one.
    assert run_in(workplace, line.format(output, 3)) == 1
    assert checkpoint.exists()
