"""The decorator of tests whose figure is compared with a reference image."""

import functools
from pathlib import Path

import pytest

__all__ = ["figure_test"]

BASELINE = Path(__file__).with_name("baseline")


def figure_test(function):
    """Compare the Axes that a test returns with ``tests/baseline/<name>.png``.

    Run by ``tox -e figure`` only, where the version of matplotlib is fixed. To make the reference
    images anew: ``tox -e figure -- --mpl-generate-path=astro_morphvae/tests/baseline``.
    """
    import numpy as np

    @pytest.mark.figure
    @pytest.mark.mpl_image_compare(
        baseline_dir=str(BASELINE),
        filename=f"{function.__name__.removeprefix('test_')}.png",
        tolerance=4,
        deterministic=True,
        style="default",
        savefig_kwargs={"dpi": 50},
    )
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return np.ravel(function(*args, **kwargs))[0].figure

    return wrapper
