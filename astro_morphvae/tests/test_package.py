import subprocess
import sys

import pytest

import astro_morphvae
from astro_morphvae._optional import import_optional

HEAVY = (
    "keras",
    "torch",
    "sklearn",
    "matplotlib",
    "skops",
    "astroquery",
    "photutils",
    "reproject",
    "requests",
)


def loaded_after(statement):
    """Return which heavy modules a fresh process holds after a statement."""
    program = (
        f"import sys\n{statement}\n"
        f"sys.stdout.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    reply = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(reply.stdout.split())


def test_import_loads_nothing_heavy():
    assert loaded_after("import astro_morphvae") == set()


def test_dir_and_version_load_nothing_heavy():
    statement = "import astro_morphvae; dir(astro_morphvae); astro_morphvae.__version__"
    assert loaded_after(statement) == set()


@pytest.mark.parametrize(
    "module",
    [
        "analysis",
        "catalogs",
        "cli",
        "cutouts",
        "datasets",
        "decision_trees",
        "io",
        "morphology",
        "pairs",
        "plotting",
        "processing",
        "surveys",
    ],
)
def test_light_modules_load_no_network_library(module):
    if module == "plotting":
        pytest.importorskip("matplotlib")
    loaded = loaded_after(f"import astro_morphvae.{module}")
    assert not loaded & {"keras", "torch"}


@pytest.mark.parametrize("name", astro_morphvae.__all__)
def test_every_public_name_resolves(name):
    if name == "plotting":
        pytest.importorskip("matplotlib")
    if name == "LegacySurvey":
        pytest.importorskip("astroquery")
    assert getattr(astro_morphvae, name) is not None
    assert name in dir(astro_morphvae)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        astro_morphvae.no_such_name  # noqa: B018


def test_version_is_a_release_number():
    assert astro_morphvae.__version__[0].isdigit()


def test_optional_dependency_present_is_imported():
    assert import_optional("json", needed_for="this test").loads("1") == 1


def test_optional_dependency_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "reproject", None)
    with pytest.raises(ImportError, match=r"pip install 'astro_morphvae\[survey\]'"):
        import_optional("reproject", needed_for="reproject_cutouts")
    with pytest.raises(ImportError, match=r"^reproject_cutouts needs the package 'reproject'"):
        import_optional("reproject", needed_for="reproject_cutouts")


def test_optional_dependency_that_fails_inside_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        import_optional("broken_extra", needed_for="this test")
