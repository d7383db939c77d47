"""The process the package runs in: opt-in tuning of memory and threads, and versions."""

import ctypes
import os
import platform
import sys
from functools import cache
from importlib import metadata

__all__ = ["software_versions", "tune_process"]

# glibc's mallopt parameters (malloc.h) and what they are set to.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_ALLOCATOR = (
    ("mmap_max", _M_MMAP_MAX, 0),  # no private mapping per large array ...
    ("trim_threshold", _M_TRIM_THRESHOLD, -1),  # ... and freed pages stay for the next one
    ("top_pad", _M_TOP_PAD, 256 * 1024 * 1024),
)
# Turns, about a tenth of a millisecond: long enough for threads with equal work to meet without
# sleeping, short enough to leave a busy core to others (the default is six times as long).
_SPIN_COUNT = 50_000
_WAIT_VARIABLES = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}


def tune_process(threads=None):
    """Tune memory allocation and threads of this process for networks on a CPU.

    By default every large array is mapped afresh from the system and handed back when freed, so
    that each batch pays for clearing its pages again; keeping them roughly doubles the speed of
    training. The price is that the process keeps the memory of its largest moment.

    Threads that wait for each other do so by spinning, which on a machine with other work to do
    takes the core from the very thread that is waited for. Where torch is not loaded yet, they are
    told to sleep after a short while; environment variables ``OMP_WAIT_POLICY`` and
    ``GOMP_SPINCOUNT`` of yours are kept.

    This changes the whole process, which is why the package never does it unasked; the command
    ``morphvae`` does.

    Parameters
    ----------
    threads : int, optional
        Threads of the network. By default torch keeps its choice: one per core.

    Returns
    -------
    settings : dict
        What was set: ``allocator``, a dict (empty where the C library is not glibc), ``threads``,
        an int, and ``spin_count``, the turns a thread waits before it sleeps (`None` if torch was
        loaded before, or the environment says otherwise).

    Raises
    ------
    ValueError
        If ``threads`` is not a positive integer.
    """
    if threads is not None and (
        isinstance(threads, bool) or int(threads) != threads or threads < 1
    ):
        raise ValueError(f"threads must be a positive integer or None, got {threads!r}")
    allocator = {}
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        c_library = ctypes.CDLL(None)
        for name, parameter, value in _ALLOCATOR:
            if c_library.mallopt(parameter, value) == 1:
                allocator[name] = value
    spin_count = None
    if "torch" not in sys.modules and not _WAIT_VARIABLES & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = str(_SPIN_COUNT)  # GNU OpenMP reads it when it is loaded
        spin_count = _SPIN_COUNT
    import torch

    if threads is not None:
        torch.set_num_threads(int(threads))
    return {
        "allocator": allocator,
        "threads": torch.get_num_threads(),
        "spin_count": spin_count,
    }


def software_versions():
    """Versions of what makes a result: a new dict of distribution name to version."""
    return dict(_versions())


@cache
def _versions():
    versions = {"python": platform.python_version()}
    for name in ("astro_morphvae", "astropy", "keras", "numpy", "torch"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            module = sys.modules.get(name)
            versions[name] = getattr(module, "__version__", "unknown")
    return versions
