"""Rows of a set shared by threads."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

__all__ = ["for_each_row", "parse_n_jobs"]


def parse_n_jobs(n_jobs):
    """Return the number of threads; -1 stands for one a core."""
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, (int, np.integer)):
        raise TypeError(f"n_jobs: expected an int, got {n_jobs!r}")
    if n_jobs == -1:
        return os.cpu_count() or 1
    if n_jobs < 1:
        raise ValueError(f"n_jobs: expected a positive number or -1, got {n_jobs}")
    return int(n_jobs)


def for_each_row(work, n, *, n_jobs, label, progress):
    """Call a function with each row number, in threads; the first error ends it.

    Parameters
    ----------
    work : callable
        Takes a row number; safe to call from several threads for different rows.
    n : int
        Number of rows.
    n_jobs : int
        Number of threads.
    label : str
        What the progress bar says.
    progress : bool
        Whether there is one.
    """
    with (
        ThreadPoolExecutor(n_jobs) as pool,
        tqdm(total=n, desc=label, unit="cutout", disable=not progress) as bar,
    ):
        try:
            for _ in pool.map(work, range(n)):
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
