"""Settings and fixtures shared by every test of the package."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

# Figures are drawn without a screen, before anything imports matplotlib.
os.environ.setdefault("MPLBACKEND", "Agg")

try:
    from pytest_astropy_header.display import PYTEST_HEADER_MODULES, TESTED_VERSIONS
except ImportError:  # the header is a convenience
    PYTEST_HEADER_MODULES = TESTED_VERSIONS = {}


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")
    with suppress(ValueError):  # pytest-remotedata, where installed, brings the same option
        parser.addoption(
            "--remote-data",
            action="store_true",
            help="also run the tests marked remote_data, which use the internet",
        )


def pytest_configure(config):
    # Started in the background of a shell, the tests and their processes would ignore Ctrl-C, which
    # some of them test.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    from astro_morphvae import __version__

    PYTEST_HEADER_MODULES.clear()
    PYTEST_HEADER_MODULES.update(
        {
            "numpy": "numpy",
            "astropy": "astropy",
            "keras": "keras",
            "torch": "torch",
            "scikit-learn": "sklearn",
            "matplotlib": "matplotlib",
        }
    )
    TESTED_VERSIONS["astro_morphvae"] = __version__


def pytest_collection_modifyitems(config, items):
    for marker, option in (("slow", "--run-slow"), ("remote_data", "--remote-data")):
        if config.getoption(option):
            continue
        skip = pytest.mark.skip(reason=f"{marker}: run it with {option}")
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(skip)
    comparing = config.getoption("--mpl", default=False)
    if not (comparing or config.getoption("--mpl-generate-path", default=None)):
        skip = pytest.mark.skip(reason="figure: run it with tox -e figure")
        for item in items:
            if "figure" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def repository(pytestconfig):
    """Return the root of the source tree, for tests of files that are not installed."""
    for root in (pytestconfig.rootpath, Path(__file__).resolve().parents[1]):
        if (root / "pyproject.toml").is_file() and (root / "astro_morphvae").is_dir():
            return root
    pytest.skip("not run from a source tree of astro_morphvae")


@pytest.fixture(scope="session")
def shared_data(pytestconfig):
    """Return the folder of real survey data that lies beside the repository, or skip."""
    override = os.environ.get("ASTRO_MORPHVAE_SHARED_DATA")
    if override:
        candidates = [Path(override)]
    else:
        roots = (pytestconfig.rootpath, Path(__file__).resolve().parents[1])
        candidates = [root.parent / "shared" / "data" for root in roots]
    for folder in candidates:
        if folder.is_dir():
            return folder
    pytest.skip(
        f"no real survey data in {candidates[0]}; "
        "set ASTRO_MORPHVAE_SHARED_DATA to the folder that holds it"
    )


@pytest.fixture(scope="module")
def small_forests():
    """Let the default classifier be a small forest, where a test is not about how good it is."""
    from sklearn.ensemble import RandomForestClassifier

    def make_forest():
        return RandomForestClassifier(30, min_samples_leaf=2, oob_score=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("astro_morphvae.morphology.fitter._default_forest", make_forest)
        yield
