"""Decision trees of Galaxy Zoo as data: questions, answers, parents and vote-fraction columns.

Pure data without further dependencies, so that every layer above may speak of the same questions.
"""

from .gz2 import GZ2
from .gz_decals import GZ_DECALS
from .tree import DecisionTree, Question

__all__ = ["GZ2", "GZ_DECALS", "DecisionTree", "Question", "get_tree"]

_TREES = {tree.name: tree for tree in (GZ_DECALS, GZ2)}


def get_tree(tree, columns="fraction"):
    """Decision tree by name.

    Parameters
    ----------
    tree : str or DecisionTree
        ``"gz-decals"`` or ``"gz2"``; a `DecisionTree` passes through.
    columns : str
        Family of vote-fraction columns: ``"fraction"``, ``"debiased"`` or, for Galaxy Zoo 2,
        ``"weighted_fraction"``.

    Returns
    -------
    DecisionTree
        The tree.

    Raises
    ------
    ValueError
        If the name or the family of columns is unknown.
    TypeError
        If ``tree`` is neither a name nor a `DecisionTree`.

    References
    ----------
    Willett et al. 2013, MNRAS 435, 2835; Hart et al. 2016, MNRAS 461, 3663 (Galaxy Zoo 2).
    Walmsley et al. 2022, MNRAS 509, 3966 (Galaxy Zoo DECaLS).
    """
    if isinstance(tree, str):
        if tree not in _TREES:
            raise ValueError(f"tree={tree!r} is none of {sorted(_TREES)}")
        tree = _TREES[tree]
    elif not isinstance(tree, DecisionTree):
        raise TypeError(f"tree must be a name or a DecisionTree, not {type(tree).__name__}")
    return tree if columns == "fraction" else tree.with_columns(columns)
