"""Classifiers on disk: a skops file, written beside and renamed, with its types checked on reading.

Nothing in the file is executed, and decision trees, whose stored indices scikit-learn follows
without looking, are checked before they are used.
"""

import zipfile
from pathlib import Path

import numpy as np

from .._writing import writing

__all__ = ["read_state", "write_state"]

_FORMAT = "astro_morphvae.MorphologyClassifier"
_VERSION = 1
# skops leaves trees to the reader, because of their indices; those are checked below.
_TREE = "sklearn.tree._tree.Tree"


def write_state(path, state, overwrite=False):
    """Write a classifier's state, so that a killed run leaves the old file or the new one.

    Parameters
    ----------
    path : str or path-like
        Where to.
    state : dict
        Plain values, arrays and scikit-learn estimators.
    overwrite : bool
        Whether to replace an existing file.
    """
    import skops.io

    path = Path(path)
    if path.exists() and not overwrite:
        raise OSError(f"path={str(path)!r} exists; pass overwrite=True to replace it")
    with writing(path) as part:
        skops.io.dump(
            {"format": _FORMAT, "format_version": _VERSION, "state": state},
            part,
            compression=zipfile.ZIP_DEFLATED,
            compresslevel=1,
        )


def read_state(path, trusted=()):
    """Read a classifier's state.

    Parameters
    ----------
    path : str or path-like
        A file by `write_state`.
    trusted : sequence of str
        Further types that the file may hold.

    Returns
    -------
    dict
        The state.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is foreign, damaged, of a later version, or holds types that are not trusted.
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} does not exist")
    try:
        content = skops.io.load(path, trusted=[_TREE, *trusted])
    except UntrustedTypesFoundException as error:
        unknown = set(skops.io.get_untrusted_types(file=path)) - {_TREE, *trusted}
        raise ValueError(
            f"path={str(path)!r} holds types that are not trusted: {sorted(unknown)}; if you know "
            "and trust them, name them in the argument trusted"
        ) from error
    except Exception as error:
        # A damaged file fails wherever the damage is: in the archive, its schema or its arrays.
        raise ValueError(
            f"path={str(path)!r} is no readable classifier file ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"path={str(path)!r} is a skops file, but not one of a classifier")
    if content["format_version"] > _VERSION:
        raise ValueError(
            f"path={str(path)!r} has format version {content['format_version']}; this release "
            f"reads up to {_VERSION}"
        )
    _check_trees(content["state"], path, set())
    return content["state"]


def _check_trees(item, path, seen):
    """Raise if any decision tree within points outside its own nodes or features."""
    if id(item) in seen or isinstance(item, str | bytes | int | float | bool | type(None)):
        return
    seen.add(id(item))
    if isinstance(item, dict):
        parts = item.values()
    elif isinstance(item, list | tuple | set):
        parts = item
    elif isinstance(item, np.ndarray):
        parts = item.ravel() if item.dtype == object else ()
    else:
        tree = getattr(item, "tree_", None)
        if tree is not None and not _is_sound(tree, getattr(item, "n_features_in_", 0)):
            raise ValueError(
                f"path={str(path)!r} is damaged: a decision tree points outside itself"
            )
        parts = getattr(item, "__dict__", {}).values()
    for part in parts:
        _check_trees(part, path, seen)


def _is_sound(tree, n_features):
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    n = len(left)
    if tree.node_count != n or tree.n_features != n_features or n == 0:
        return False
    leaf = left == -1
    # Children come after their parent, so that following them always ends.
    own = np.arange(n)
    inner = (left > own) & (left < n) & (right > own) & (right < n)
    inner &= (feature >= 0) & (feature < n_features)
    return bool(np.all(leaf | inner)) and np.array_equal(leaf, right == -1)
