"""The code in README and documentation runs as it stands, with smaller numbers."""

import re
import textwrap

import pytest

from astro_morphvae.cli import make_parser

PAGES = [
    "README.rst",
    "docs/quickstart.rst",
    "docs/cutouts.rst",
    "docs/simulated.rst",
    "docs/networks.rst",
    "docs/fitting.rst",
    "docs/encoding.rst",
    "docs/morphology.rst",
    "docs/figures.rst",
    "docs/surveys.rst",
    "docs/other_surveys.rst",
    "docs/catalogs.rst",
    "docs/alignment.rst",
    "docs/psf_matching.rst",
    "docs/pairs.rst",
    "docs/domain_adaptation.rst",
    "docs/domain_shift.rst",
]
# Optional packages, and the words by which a page that needs them is known.
NEEDED = {
    "matplotlib": ("plotting",),
    "astroquery": ("LegacySurvey",),
    "reproject": ("from_mosaics", "adaptive"),
    "photutils": ("match_psf",),
}
# What makes a page slow, and what makes it quick; each must be a page's own words.
SMALLER = {
    "make_galaxies(1500, size=64,": "make_galaxies(240, size=32,",
    "make_galaxies(600, size=64,": "make_galaxies(300, size=32,",
    "make_galaxies(200, size=64,": "make_galaxies(60, size=32,",
    "make_survey_pair(600, size=64,": "make_survey_pair(240, size=32,",
    "make_survey_pair(400, size=64,": "make_survey_pair(60, size=32,",
    "[:400]": "[:100]",
    "image_size=64": "image_size=32",
    "epochs=15": "epochs=1",
}


def code_of(page, language):
    """Blocks of code in their order, those that the build of the documentation runs among them."""
    directive = rf"code-block:: {language}"
    if language == "python":
        directive = rf"(?:{directive}|plot::)"
    pattern = rf"\.\. {directive}\n(?:   :.*\n)*\n((?:   .*\n|\n)+)"
    return [textwrap.dedent(block) for block in re.findall(pattern, page.read_text())]


@pytest.mark.usefixtures("small_forests")
@pytest.mark.filterwarnings("ignore::astro_morphvae.exceptions.MorphVAEWarning")
@pytest.mark.parametrize("page", PAGES)
def test_code_runs(repository, page, tmp_path, monkeypatch, capsys):
    blocks = code_of(repository / page, "python")
    assert blocks
    for package, words in NEEDED.items():
        if any(word in block for block in blocks for word in words):
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page}
    for block in blocks:
        for words, fewer in SMALLER.items():
            block = block.replace(words, fewer)
        exec(compile(block, page, "exec"), names)


def test_smaller_numbers_are_those_of_the_pages(repository):
    text = "".join((repository / page).read_text() for page in PAGES)
    assert [words for words in SMALLER if words not in text] == []


def test_recipe_is_short_and_run_by_the_build(repository):
    page = repository / "docs/domain_adaptation.rst"
    recipe = code_of(page, "python")[0]
    assert ".. plot::" in page.read_text().partition(recipe.partition("\n")[0])[0]
    assert all(words in recipe for words in ("pair_surveys(coords", "labels.write("))
    assert len([line for line in recipe.splitlines() if line.strip()]) < 30


def test_command_lines_parse(repository):
    lines = []
    for page in ["README.rst", "docs/command_line.rst"]:
        for block in code_of(repository / page, "bash"):
            lines += [line.split() for line in block.splitlines() if line.startswith("morphvae ")]
    assert len(lines) >= 6
    for _, *arguments in lines:
        assert make_parser().parse_args(arguments).command == arguments[0]


def test_readme_holds_the_two_commands(repository):
    text = (repository / "README.rst").read_text()
    for name in ("demo", "test"):
        assert f"python -m pip install tox && python -m tox -e {name}" in text
