"""Configuration of the documentation, on top of the settings that astropy shares."""

import contextlib
import io
import os
import shutil
from importlib.metadata import metadata
from pathlib import Path

from sphinx_astropy.conf.v2 import *  # noqa: F403
from sphinx_astropy.conf.v2 import (
    exclude_patterns,
    extensions,
    html_theme_options,
    intersphinx_mapping,
)

from astro_morphvae.cli import COMMANDS, command_name, main

# -- Project ---------------------------------------------------------------------------------------

project = "astro_morphvae"
author = metadata(project)["Author"]
copyright = f"2026, {author}"
release = metadata(project)["Version"]
version = ".".join(release.split(".")[:2])

exclude_patterns += ["changes/*", "_templates"]
extensions.remove("sphinx.ext.inheritance_diagram")  # would need graphviz
extensions.remove("sphinx_astropy.ext.generate_config")
default_role = "py:obj"

# -- Links to other projects -----------------------------------------------------------------------

# The documentation builds without a network. Links into the pages of Python, numpy and astropy are
# made where these pages can be fetched: on Read the Docs, or with ASTRO_MORPHVAE_DOCS_ONLINE=1.
if os.environ.get("READTHEDOCS") == "True" or os.environ.get("ASTRO_MORPHVAE_DOCS_ONLINE"):
    for unused in ("pythonloc", "astropy.org"):
        intersphinx_mapping.pop(unused, None)
    intersphinx_mapping["sklearn"] = ("https://scikit-learn.org/stable/", None)
else:
    intersphinx_mapping.clear()

# -- Pages -----------------------------------------------------------------------------------------

numpydoc_xref_param_type = False
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_last_updated_fmt = None
html_theme_options |= {
    "navigation_with_keys": False,
    "navbar_end": ["navbar-icon-links"],
    "logo": {"text": project},
}
html_context = {"default_mode": "light"}
# Only the API has pages below it, and so a use for navigation at the side.
html_sidebars = {
    path.stem: [] for path in Path(__file__).parent.glob("*.rst") if path.stem != "api"
}

# -- The help of the command line, as it is --------------------------------------------------------

os.environ["COLUMNS"] = "82"
generated = Path(__file__).parent / "generated"
generated.mkdir(exist_ok=True)
for command in COMMANDS:
    name = command_name(command)
    help_text = io.StringIO()
    with contextlib.redirect_stdout(help_text):
        main([name, "--help"])
    (generated / f"morphvae_{name}.txt").write_text(help_text.getvalue())

# -- The code in each ``.. plot::``, which the build runs; it fails where the code does ------------

written = generated / "written"  # by the code, each time anew
shutil.rmtree(written, ignore_errors=True)
written.mkdir()
plot_working_directory = str(written)
plot_pre_code = ""  # the code imports what it uses
plot_formats = [("png", 110)]
plot_html_show_formats = False
plot_html_show_source_link = False
