"""Replies kept on disk, each in a file named after its request; only what was checked gets in."""

import os
import time
from pathlib import Path
from threading import Lock

from .._writing import writing

__all__ = ["Cache", "default_cache_directory"]

# One file is written by one thread at a time; a few locks for all files are enough.
_LOCKS = tuple(Lock() for _ in range(64))
_STALE = 3600.0  # seconds after which what a killed process began to write is swept away
_swept = set()


def default_cache_directory():
    """Return the folder of the package under astropy's cache directory.

    Returns
    -------
    `pathlib.Path`
    """
    from astropy.config.paths import get_cache_dir

    return Path(get_cache_dir()) / "astro_morphvae" / "downloads"


class Cache:
    """Files named after what was asked for.

    Parameters
    ----------
    directory : path-like
        Made when the first file is stored. Several processes can share it.
    """

    def __init__(self, directory):
        self.directory = Path(directory)

    def __repr__(self):
        return f"<Cache in {self.directory}>"

    def path(self, key):
        """Where the reply of that key is, or would be."""
        return self.directory / key[:2] / key

    def read(self, key):
        """Content of the reply of that key; None where there is none.

        Parameters
        ----------
        key : str
            Of the request.

        Returns
        -------
        bytes or None
        """
        try:
            return self.path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def store(self, key, content):
        """Keep a reply: the file appears whole or not at all.

        Parameters
        ----------
        key : str
            Of the request.
        content : bytes
            Checked content.

        Returns
        -------
        `pathlib.Path`
        """
        path = self.path(key)
        self._sweep()
        with _LOCKS[int(key[:4], 16) % len(_LOCKS)], writing(path) as part:
            try:
                part.write_bytes(content)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(content)
        return path

    def discard(self, key):
        """Remove a reply that turned out to be bad."""
        self.path(key).unlink(missing_ok=True)

    def clear(self):
        """Remove every reply."""
        for file in self.directory.glob("[0-9a-f][0-9a-f]/*"):
            file.unlink(missing_ok=True)

    def _sweep(self):
        """Once a process, remove what killed ones left half written."""
        if self.directory in _swept:
            return
        _swept.add(self.directory)
        oldest = time.time() - _STALE
        for file in self.directory.glob("[0-9a-f][0-9a-f]/.*.part"):
            try:
                if file.stat().st_mtime < oldest:
                    os.unlink(file)
            except OSError:  # another process was quicker
                continue
