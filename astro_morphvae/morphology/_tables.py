"""Rows of latents and of votes that belong together, and a fair split of galaxies."""

import numpy as np

from .._latent_tables import as_ids

__all__ = ["match_rows", "split_galaxies"]


def match_rows(latents, votes):
    """Return the row of ``votes`` for each row of ``latents``, (n,) int, -1 where there is none.

    Joined by ``id`` where both have it, else row by row.
    """
    left, right = as_ids(latents), as_ids(votes)
    if left is None or right is None:
        if len(latents) != len(votes):
            raise ValueError(
                f"votes has {len(votes)} rows and latents {len(latents)}; without a column 'id' "
                "in both they must be row-aligned"
            )
        return np.arange(len(votes))
    unique, first, counts = np.unique(right, return_index=True, return_counts=True)
    if counts.size and counts.max() > 1:
        raise ValueError(
            f"votes has {np.sum(counts > 1)} ids more than once, such as "
            f"{str(unique[counts > 1][0])!r}; one row per galaxy is needed"
        )
    if not unique.size:
        return np.full(len(left), -1)
    place = np.minimum(np.searchsorted(unique, left), len(unique) - 1)
    rows = np.where(unique[place] == left, first[place], -1)
    if len(left) and (rows < 0).all():
        raise ValueError(
            f"no id of latents is among those of votes: latents has {str(left[0])!r}, ..., "
            f"votes has {str(right[0])!r}, ..."
        )
    return rows


def split_galaxies(labels, groups, test_fraction, seed):
    """Set galaxies aside for testing, with each label of each question in proportion.

    Labels are served from the rarest to the most frequent, so that galaxies with a rare one are
    shared out while there is still a choice (after [1]_). Rows of one group stay together.

    Parameters
    ----------
    labels : (n, n_question) array of int
        Class of each galaxy for each question, -1 for none.
    groups : (n,) array of int
        Rows of the same galaxy carry the same number.
    test_fraction : float
        Share of galaxies to set aside.
    seed : int
        Seed of the choice.

    Returns
    -------
    (n,) array of bool
        True for galaxies set aside.

    References
    ----------
    .. [1] Sechidis, Tsoumakas & Vlahavas 2011, ECML PKDD, LNAI 6913, 145.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie in (0, 1), not {test_fraction!r}")
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    labels = labels[first]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(first))
    # The last "label" is worn by all: it shares out whoever is left, and sets the total.
    worn = [labels[:, q] == c for q in range(labels.shape[1]) for c in np.unique(labels[:, q])]
    worn = sorted(worn, key=lambda rows: int(rows.sum())) + [np.ones(len(first), dtype=bool)]
    test = np.zeros(len(first), dtype=bool)
    free = np.ones(len(first), dtype=bool)
    for rows in worn:
        wanted = round(test_fraction * int(rows.sum())) - int(np.sum(test & rows))
        open_rows = order[(rows & free)[order]]
        test[open_rows[: max(wanted, 0)]] = True
        free[open_rows] = False
    return test[inverse]
