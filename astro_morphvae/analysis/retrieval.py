"""The same galaxy in two surveys: how far apart its latents are, and who else is nearer."""

import numpy as np
from astropy.table import QTable

from .. import __version__
from ._samples import read_samples, squared_distances

__all__ = ["distance_of_strangers", "partner_ranks", "rank_pairs"]

_BLOCK = 4_000_000  # distances held at once
_N_STRANGERS = 2000  # galaxies of either survey that the median distance is taken of


def rank_pairs(latents_a, latents_b, *, pairs="id", features="z_mean", scaling="none", seed=0):
    """Rank galaxies by how alike their latents are in two surveys.

    The pictures at the top and at the bottom of this table show what a model sees alike in two
    surveys, and what it does not; see `astro_morphvae.plotting.plot_survey_pairs`.

    Parameters
    ----------
    latents_a, latents_b : `~astropy.table.QTable`
        Latents of the two surveys, as from `LatentModel.encode`.
    pairs : "id", "rows" or (k, 2) array of int
        Which rows are the same galaxy: those of one ``id``, those of row-aligned tables, or rows
        of the first and second table.
    features : str
        Column of latents, (n, d).
    scaling : {"none", "standard", "whiten"}
        Latents as they are; each over its standard deviation among all galaxies; or also freed of
        their correlations.
    seed : int
        Seed of the choice of galaxies that the median distance is taken of, where there are more
        than 2000.

    Returns
    -------
    `~astropy.table.QTable`
        One row a pair, the most alike first: ``id`` (if given), ``row_a``, ``row_b`` (rows of the
        tables), ``distance`` of the latents, ``ratio`` to the median distance of different
        galaxies, ``rank_b`` (place of the partner among all galaxies of the second survey by
        distance from the one in the first; 1 is the nearest) and ``rank_a`` (the other way round).
        Pairs with a bad row are left out and counted in ``meta``.

    Raises
    ------
    ValueError
        If the tables do not fit together, or no pair is left.
    """
    samples = read_samples(latents_a, latents_b, pairs=pairs, features=features, scaling=scaling)
    if not len(samples.pairs):
        raise ValueError("pairs leaves no galaxy with good latents in both surveys")
    one, two = samples.pairs.T
    a, b = samples.x[: samples.n_a], samples.x[samples.n_a :]
    distance = np.sqrt(np.sum((samples.x[one] - samples.x[two]) ** 2, axis=1))
    strangers = distance_of_strangers(samples, seed)
    ranks_b = partner_ranks(a, b, one, two - samples.n_a)
    ranks_a = partner_ranks(b, a, two - samples.n_a, one)

    order = np.argsort(distance, kind="stable")
    one, two = one[order], two[order]
    out = QTable()
    if "id" in latents_a.colnames:
        out["id"] = latents_a["id"][samples.rows[one]]
    out["row_a"], out["row_b"] = samples.rows[one], samples.rows[two]
    out["distance"] = distance[order]
    with np.errstate(divide="ignore", invalid="ignore"):
        out["ratio"] = distance[order] / strangers
    out["rank_b"], out["rank_a"] = ranks_b[order], ranks_a[order]
    for name, text in {
        "row_a": "row in the first table",
        "row_b": "row in the second table",
        "distance": "distance of the latents of the galaxy in the two surveys",
        "ratio": "distance over the median distance of different galaxies",
        "rank_b": "place of the partner in the second survey, 1 for the nearest",
        "rank_a": "place of the partner in the first survey, 1 for the nearest",
    }.items():
        out[name].info.description = text
    out["distance"].info.format = out["ratio"].info.format = ".3g"
    out["rank_b"].info.format = out["rank_a"].info.format = ".1f"
    out.meta = {
        "scaling": scaling,
        "features": features,
        "median_distance": float(strangers),
        "n_a": samples.n_a,
        "n_b": samples.n_b,
        "n_pairs": len(out),
        "models": [t.meta.get("model") for t in (latents_a, latents_b)],
        "version": __version__,
    }
    return out


def distance_of_strangers(samples, seed=0):
    """Median distance of different galaxies in the two surveys.

    Parameters
    ----------
    samples : Samples
        Latents and pairs.
    seed : int
        Seed of the choice of galaxies, where there are many.

    Returns
    -------
    float
        The median.
    """
    rng = np.random.default_rng([seed, 5])
    one, two = np.arange(samples.n_a), np.arange(samples.n_a, len(samples.x))
    one, two = (
        rows if len(rows) <= _N_STRANGERS else rng.choice(rows, _N_STRANGERS, replace=False)
        for rows in (one, two)
    )
    different = samples.galaxies[one][:, None] != samples.galaxies[two]
    return float(np.sqrt(np.median(squared_distances(samples.x[one], samples.x[two])[different])))


def partner_ranks(a, b, rows_a, rows_b):
    """Place of each galaxy's partner in the other survey, by distance.

    Parameters
    ----------
    a, b : (n_a, d) and (n_b, d) array
        Latents, centred.
    rows_a, rows_b : (k,) array of int
        Rows that are the same galaxy.

    Returns
    -------
    (k,) array of float
        One more than the number of galaxies of ``b`` nearer than the partner; among equally near
        ones the partner is in the middle, so that latents that are all the same find nothing.
    """
    ranks = np.empty(len(rows_a))
    # Squared distances are differences of larger numbers: equal ones differ by this much.
    tie = 1e-12 * max(np.sum(a**2, axis=1).max(), np.sum(b**2, axis=1).max())
    step = max(1, _BLOCK // len(b))
    for start in range(0, len(ranks), step):
        part = slice(start, start + step)
        squared = squared_distances(a[rows_a[part]], b)
        own = np.take_along_axis(squared, rows_b[part, None], axis=1)
        nearer = np.sum(squared < own - tie, axis=1)
        as_near = np.sum(np.abs(squared - own) <= tie, axis=1) - 1
        ranks[part] = 1 + nearer + 0.5 * as_near
    return ranks
