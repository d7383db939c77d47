import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import InverseVariance
from astropy.table import QTable

from astro_morphvae import CutoutSet, plotting

from .figures import figure_test

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def cutouts():
    """Return smooth blobs of known colour and shape, with a fixed pattern for noise."""
    y, x = np.mgrid[-16:16, -16:16]
    images = []
    for row in range(8):
        radius = np.hypot(x * (0.5 + 0.1 * row), y) / (3 + 0.3 * row)
        bands = [amplitude * np.exp(-radius) for amplitude in (0.6, 1.0 + 0.1 * row, 1.4)]
        images.append(np.stack(bands) + 0.02 * np.sin(3 * x + 5 * y + row))
    data = np.array(images, dtype=np.float32)
    ivar = InverseVariance(np.full(data.shape, 2500.0, dtype=np.float32))
    return CutoutSet(data, unit=u.nmgy, bands="grz", uncertainty=ivar, pixel_scale=0.5 * u.arcsec)


@figure_test
def test_cutouts(cutouts):
    return plotting.plot_cutouts(cutouts, titles=[f"galaxy {row}" for row in range(8)], n_columns=4)


@figure_test
def test_reconstructions(cutouts):
    again = CutoutSet(
        0.9 * cutouts.data, unit=cutouts.unit, bands=cutouts.bands, pixel_scale=cutouts.pixel_scale
    )
    return plotting.plot_reconstructions(cutouts, again, n=4)


@figure_test
def test_latent_map(cutouts):
    angle = np.arange(8)[:, None] * np.array([[0.9, 1.7, 2.3]])
    latents = QTable({"id": np.arange(8), "z_mean": np.cos(angle), "status": ["ok"] * 8})
    return plotting.plot_latent_map(latents, ["round", "long"] * 4, cutouts)


@figure_test
def test_confusion():
    counts = np.array([[40, 3, 0], [5, 22, 4], [0, 2, 9]])
    return plotting.plot_confusion(counts, ["round", "in-between", "cigar"], title="how-rounded")


@figure_test
def test_training():
    epochs = np.arange(12)
    history = {
        "loss": (100 * np.exp(-epochs / 4) + 20).tolist(),
        "val_loss": (100 * np.exp(-epochs / 4) + 25).tolist(),
        "reconstruction": (90 * np.exp(-epochs / 4) + 15).tolist(),
        "kl": (5 + np.sqrt(epochs)).tolist(),
        "learning_rate": (1e-3 * 0.8**epochs).tolist(),
    }
    return plotting.plot_training({"history": history, "best_epoch": 11})
