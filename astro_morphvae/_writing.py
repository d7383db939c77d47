"""Files written beside and then renamed: a killed run leaves the old file or the new one."""

import contextlib
import os
from pathlib import Path

__all__ = ["writing"]


@contextlib.contextmanager
def writing(path):
    """Give a path to write to, which takes the place of ``path`` once the block is done.

    Parameters
    ----------
    path : path-like
        The file to be. What is there already stays until the new file is whole, and altogether if
        the block raises.

    Yields
    ------
    `pathlib.Path`
        A name beside it, with the same ending.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
