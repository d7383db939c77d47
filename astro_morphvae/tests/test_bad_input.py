"""What users hand over by mistake: taken as it is meant or refused by name, never changed.

One table for the main job, fit and encode, and for the files of the command line. The other tests
of each room go into its details.
"""

import astropy.units as u
import numpy as np
import pytest

from astro_morphvae import VAE, CutoutSet, LatentModel, VAEFitter
from astro_morphvae.cli import main
from astro_morphvae.exceptions import CutoutMismatchError
from astro_morphvae.tests.test_model import PROVENANCE, SIZE, make_cutouts, make_data


def with_pixel(value):
    data = make_data(6)
    data[2, 1, 30, 30] = value
    return data


def with_row(value):
    data = make_data(6)
    data[2] = value
    return data


# What is taken: (pixels, rows that come out with another status than "ok").
TAKEN = {
    "NaN pixel": (with_pixel(np.nan), []),
    "infinite pixel": (with_pixel(np.inf), []),
    "NaN row": (with_row(np.nan), [2]),
    "infinite row": (with_row(-np.inf), [2]),
    "zero variance": (np.full((6, 3, SIZE, SIZE), 0.5, np.float32), []),
    "one row of zero variance": (with_row(0.1), []),
    "one cutout": (make_data(1), []),
    "float64": (make_data(6).astype(np.float64), []),
    "big-endian": (make_data(6).astype(">f4"), []),
    "integers": ((make_data(6) * 1000).astype(">i2"), []),
    "not contiguous": (make_data(6)[..., ::-1].swapaxes(2, 3), []),
}


@pytest.fixture(scope="module")
def fitted():
    network = VAE(4, image_size=SIZE, architecture="xu2023", softening=0.05, noise=0.1, seed=1)
    return LatentModel(network, provenance=PROVENANCE)


@pytest.fixture
def fitter():
    return VAEFitter(epochs=1, batch_size=4, seed=1, progress=False)


def new_model(architecture="xu2023"):
    return LatentModel(VAE(4, image_size=SIZE, n_bands=3, architecture=architecture, seed=1))


@pytest.mark.parametrize("case", TAKEN)
@pytest.mark.parametrize("read_only", [False, True])
def test_taken_and_left_as_it_was(case, read_only, fitter):
    data, bad = TAKEN[case]
    data = data.copy(order="K")
    before = data.copy()
    data.flags.writeable = not read_only
    cutouts = make_cutouts(data)
    kept = cutouts.data.copy()
    model = fitter(new_model("default"), cutouts)
    table = model.encode(cutouts)
    assert np.isfinite(model.fit_info["history"]["loss"]).all()
    assert np.flatnonzero(table["status"] != "ok").tolist() == bad
    assert np.flatnonzero(~np.isfinite(table["z_mean"]).all(axis=1)).tolist() == bad
    np.testing.assert_array_equal(data, before)
    np.testing.assert_array_equal(cutouts.data, kept)


@pytest.mark.parametrize(
    ("cutouts", "error", "match"),
    [
        (lambda: make_cutouts(make_data(4, 2), bands="gr"), CutoutMismatchError, "2 band"),
        (lambda: make_cutouts(make_data(4, 3, 80)), CutoutMismatchError, "80 × 80"),
        (lambda: make_cutouts()[:0], ValueError, "at least one"),
        (lambda: make_cutouts(np.full((3, 3, SIZE, SIZE), np.nan)), ValueError, "status"),
        (make_data, TypeError, "cutouts"),
        (lambda: None, TypeError, "cutouts"),
        (lambda: "no-such-file.fits", FileNotFoundError, "no-such-file"),
    ],
)
def test_refused_by_name(cutouts, error, match, fitted, fitter):
    model = new_model()
    before = model.hash
    with pytest.raises(error, match=match):
        fitter(model, cutouts())
    assert model.hash == before
    if match != "status":  # all rows bad: nothing to fit, but a table of their statuses
        with pytest.raises(error, match=match):
            fitted.encode(cutouts())


@pytest.mark.parametrize("shape", [(SIZE,), (SIZE, SIZE), (3, SIZE, SIZE), (2, 4, SIZE, SIZE)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"data|bands"):
        CutoutSet(np.zeros(shape, np.float32), unit=u.nmgy, bands="grz")


@pytest.fixture(scope="module")
def files(tmp_path_factory, fitted):
    folder = tmp_path_factory.mktemp("bad")
    make_cutouts().write(folder / "good.fits")
    fitted.write(folder / "good.keras")
    content = (folder / "good.keras").read_bytes()
    (folder / "truncated.keras").write_bytes(content[: len(content) // 2])
    fitted.network.save(folder / "foreign.keras")
    (folder / "empty.keras").write_bytes(b"")
    (folder / "text.keras").write_text("not a model")
    content = (folder / "good.fits").read_bytes()
    (folder / "truncated.fits").write_bytes(content[: len(content) // 2])
    (folder / "text.fits").write_text("not an image")
    return folder


@pytest.mark.parametrize(
    ("model", "cutouts"),
    [
        ("missing.keras", "good.fits"),
        ("truncated.keras", "good.fits"),
        ("foreign.keras", "good.fits"),
        ("empty.keras", "good.fits"),
        ("text.keras", "good.fits"),
        ("good.keras", "missing.fits"),
        ("good.keras", "truncated.fits"),
        ("good.keras", "text.fits"),
    ],
)
def test_bad_files_give_one_line_and_no_output(files, model, cutouts, capsys):
    there = sorted(path.name for path in files.iterdir())
    output = files / "latents.ecsv"
    status = main(["encode", str(files / model), str(files / cutouts), "-o", str(output)])
    complaint = capsys.readouterr().err.strip()
    assert status == 1
    bad = cutouts if model == "good.keras" else model
    assert bad.partition(".")[0] in complaint.splitlines()[-1]
    assert "error" in complaint.splitlines()[-1]
    assert sorted(path.name for path in files.iterdir()) == there
