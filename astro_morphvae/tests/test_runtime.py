"""Tuning the process is opt-in and says what it did."""

import json
import os
import subprocess
import sys

import pytest

from astro_morphvae._runtime import software_versions, tune_process


def test_tune_process_says_what_it_set():
    code = (
        "from astro_morphvae import tune_process\n"
        "import json\n"
        "print(json.dumps(tune_process(threads=1)))\n"
        "import torch\n"
        "assert torch.get_num_threads() == 1\n"
        "assert float(torch.ones(300, 300).sum()) == 90000\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    settings = json.loads(done.stdout)
    assert settings["threads"] == 1
    assert settings["allocator"] == {} or settings["allocator"]["mmap_max"] == 0


@pytest.mark.parametrize("given", [None, "7"])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(given):
    code = (
        "from astro_morphvae import tune_process\n"
        "import json, os\n"
        "print(json.dumps([tune_process()['spin_count'], os.environ['GOMP_SPINCOUNT']]))\n"
    )
    unset = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    if given is not None:
        environment["GOMP_SPINCOUNT"] = given
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    expected = [50_000, "50000"] if given is None else [None, given]
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads_must_be_positive(threads):
    with pytest.raises(ValueError, match="threads"):
        tune_process(threads)


def test_versions_are_a_fresh_dict():
    versions = software_versions()
    assert {"python", "astropy", "keras", "numpy", "torch", "astro_morphvae"} <= set(versions)
    versions.clear()
    assert software_versions()
