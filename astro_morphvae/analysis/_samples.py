"""Latents of two surveys as one array, and the ways to permute and resample its galaxies."""

from dataclasses import dataclass

import numpy as np

from .._latent_tables import as_features, as_ids, good_rows

__all__ = [
    "SCALINGS",
    "Samples",
    "Weights",
    "draw_weights",
    "join",
    "read_samples",
    "scale_latents",
    "squared_distances",
]

SCALINGS = ("none", "standard", "whiten")


@dataclass(frozen=True)
class Samples:
    """Usable latents of two surveys, one after the other.

    Parameters
    ----------
    x : (n, d) array of float
        Latents, those of the first survey first.
    n_a : int
        How many are of the first survey.
    pairs : (k, 2) array of int
        Rows of ``x`` that are the same galaxy, the one of the first survey first.
    rows : (n,) array of int
        Row of each in the table that it comes from.
    """

    x: np.ndarray
    n_a: int
    pairs: np.ndarray
    rows: np.ndarray

    @property
    def n_b(self):
        """How many rows are of the second survey (int)."""
        return len(self.x) - self.n_a

    @property
    def galaxies(self):
        """Number of the galaxy of each row, (n,) int; the two rows of a pair share theirs."""
        out = np.arange(len(self.x))
        out[self.pairs[:, 1]] = self.pairs[:, 0]
        return out


@dataclass(frozen=True)
class Weights:
    """How often each row counts as one of either survey: as observed, permuted and resampled.

    Parameters
    ----------
    a, b : (1 + n_permutations + n_bootstrap, n) array of float32
        The first row is the sample as observed.
    n_permutations : int
        How many of the rows are permutations; bootstrap samples follow.
    """

    a: np.ndarray
    b: np.ndarray
    n_permutations: int

    def parts(self, values):
        """Return the observed value, those of permutations, and those of bootstrap samples."""
        end = 1 + self.n_permutations
        return values[0], values[1:end], values[end:]

    @property
    def bootstrap(self):
        """Bootstrap rows only, (n_bootstrap, n) each."""
        return self.a[1 + self.n_permutations :], self.b[1 + self.n_permutations :]


def read_samples(latents_a, latents_b, *, pairs, features, scaling):
    """Read two tables of latents.

    Parameters
    ----------
    latents_a, latents_b : `~astropy.table.Table`
        Tables with the column of features, and where present ``id`` and ``status``.
    pairs : None, "id", "rows" or (k, 2) array of int
        Which rows are the same galaxy.
    features : str
        The column.
    scaling : {"none", "standard", "whiten"}
        See `scale_latents`.

    Returns
    -------
    Samples
        Rows that are finite and have the status "ok".

    Raises
    ------
    TypeError, ValueError
        If the tables or pairs do not fit together.
    """
    X = [
        as_features(table, features, f"latents_{name}")
        for table, name in ((latents_a, "a"), (latents_b, "b"))
    ]
    if X[0].shape[1] != X[1].shape[1]:
        raise ValueError(
            f"latents_a has {X[0].shape[1]} features and latents_b {X[1].shape[1]}; they must be "
            "of one model, or of models adapted to each other"
        )
    good = [good_rows(t, x) for t, x in zip((latents_a, latents_b), X, strict=True)]
    matched = _match(latents_a, latents_b, pairs)
    matched = matched[good[0][matched[:, 0]] & good[1][matched[:, 1]]]
    rows = [np.flatnonzero(g) for g in good]
    for n, name in zip(map(len, rows), "ab", strict=True):
        if n < 2:
            raise ValueError(f"latents_{name} has {n} usable rows; at least 2 are needed")
    n_a = len(rows[0])
    place = [np.cumsum(g) - 1 for g in good]
    in_x = np.stack([place[0][matched[:, 0]], n_a + place[1][matched[:, 1]]], axis=1)
    x = np.concatenate([X[0][rows[0]], X[1][rows[1]]])
    return Samples(scale_latents(x, scaling), n_a, in_x, np.concatenate(rows))


def join(a, b, pairs=None, scaling="none"):
    """Make samples of two arrays.

    Parameters
    ----------
    a, b : (n_a, d) and (n_b, d) array
        Latents, all finite.
    pairs : (k, 2) array of int, optional
        Rows of ``a`` and ``b`` that are the same galaxy.
    scaling : {"none", "standard", "whiten"}
        See `scale_latents`.

    Returns
    -------
    Samples
        All rows.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, or there are fewer than two rows.
    """
    arrays = []
    for name, values in (("a", a), ("b", b)):
        values = np.asarray(values, dtype=float)
        if values.ndim != 2 or len(values) < 2:
            raise ValueError(f"{name} has shape {values.shape}; (n, d) with n > 1 is needed")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds values that are not finite")
        arrays.append(values)
    a, b = arrays
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a has {a.shape[1]} features and b {b.shape[1]}")
    pairs = _checked_pairs(np.empty((0, 2), int) if pairs is None else pairs, len(a), len(b))
    rows = np.concatenate([np.arange(len(a)), np.arange(len(b))])
    x = scale_latents(np.concatenate([a, b]), scaling)
    return Samples(x, len(a), pairs + [0, len(a)], rows)


def scale_latents(x, scaling):
    """Centre latents, and bring them to a common scale if asked for.

    Parameters
    ----------
    x : (n, d) array
        Latents of both surveys: neither has a say in the scale that the other has not.
    scaling : {"none", "standard", "whiten"}
        As they are; each latent over its standard deviation; or along principal axes, each over
        its standard deviation. Axes without any scatter (less than 1e-6 of the largest) become 0.

    Returns
    -------
    (n, d) array of float
        Centred, scaled.

    Raises
    ------
    ValueError
        If ``scaling`` is unknown.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"scaling={scaling!r} is none of {SCALINGS}")
    x = np.asarray(x, dtype=float)
    x = x - x.mean(axis=0)
    if scaling == "whiten":
        x = x @ np.linalg.eigh(x.T @ x)[1]
    if scaling != "none":
        scatter = np.sqrt(np.mean(x**2, axis=0))
        known = scatter > 1e-6 * scatter.max(initial=0)
        x = np.where(known, x / np.where(known, scatter, 1), 0.0)
    return x


def draw_weights(samples, n_permutations, n_bootstrap, seed):
    """Permute which survey galaxies are of, and resample galaxies.

    Two rows of one galaxy stay together: a permutation swaps them or does not, a bootstrap sample
    holds both equally often.

    Parameters
    ----------
    samples : Samples
        The two samples.
    n_permutations, n_bootstrap : int
        How many of each.
    seed : int
        Seed of the draws.

    Returns
    -------
    Weights
        The observed sample, permutations, bootstrap samples.
    """
    n, n_a = len(samples.x), samples.n_a
    one, two = samples.pairs.T
    free = np.setdiff1d(np.arange(n), samples.pairs)
    permute, resample = (np.random.default_rng([seed, stream]) for stream in (1, 2))
    end = 1 + n_permutations
    a = np.zeros((end + n_bootstrap, n), dtype=np.float32)
    b = np.zeros_like(a)
    a[:1, :n_a] = 1
    kept = permute.random((n_permutations, len(one))) < 0.5
    a[1:end, one], a[1:end, two] = kept, ~kept
    n_free_a = int(np.sum(free < n_a))
    for row in a[1:end]:
        row[permute.permutation(free)[:n_free_a]] = 1
    b[:end] = 1 - a[:end]

    def draw(size):
        if not size:
            return np.zeros((n_bootstrap, 0))
        return resample.multinomial(size, np.full(size, 1 / size), n_bootstrap)

    a[end:, one] = draw(len(one))
    b[end:, two] = a[end:, one]
    for weights, rows in ((a, free[:n_free_a]), (b, free[n_free_a:])):
        weights[end:, rows] = draw(len(rows))
    return Weights(a, b, n_permutations)


def squared_distances(x, y):
    """Squared distances of all rows of two arrays.

    Parameters
    ----------
    x, y : (n, d) and (m, d) array
        Points.

    Returns
    -------
    (n, m) array of float
        Never negative.
    """
    out = -2 * (x @ y.T)
    out += np.sum(x**2, axis=1)[:, None]
    out += np.sum(y**2, axis=1)
    return np.maximum(out, 0, out=out)


def _match(latents_a, latents_b, pairs):
    """Return rows of the two tables that are the same galaxy, (k, 2) int."""
    if pairs is None:
        return np.empty((0, 2), dtype=int)
    if isinstance(pairs, str) and pairs == "rows":
        if len(latents_a) != len(latents_b):
            raise ValueError(
                f"pairs='rows' needs row-aligned tables; latents_a has {len(latents_a)} rows, "
                f"latents_b {len(latents_b)}"
            )
        return np.repeat(np.arange(len(latents_a))[:, None], 2, axis=1)
    if isinstance(pairs, str) and pairs == "id":
        ids = [_ids(latents_a, "a"), _ids(latents_b, "b")]
        common, one, two = np.intersect1d(*ids, assume_unique=True, return_indices=True)
        if not len(common):
            raise ValueError(
                f"pairs='id', but no id of latents_a ({ids[0][:1].tolist()}, ...) is among those "
                f"of latents_b ({ids[1][:1].tolist()}, ...)"
            )
        return np.stack([one, two], axis=1)[np.argsort(one, kind="stable")]
    if isinstance(pairs, str):
        raise ValueError(f"pairs={pairs!r} is neither 'id' nor 'rows', nor an array of rows")
    return _checked_pairs(pairs, len(latents_a), len(latents_b))


def _ids(latents, name):
    if "id" not in latents.colnames:
        raise ValueError(f"pairs='id' needs a column 'id', which latents_{name} does not have")
    ids = as_ids(latents, f"latents_{name}['id']")
    values, counts = np.unique(ids, return_counts=True)
    if counts.size and counts.max() > 1:
        raise ValueError(
            f"latents_{name} has {np.sum(counts > 1)} ids more than once, such as "
            f"{str(values[counts > 1][0])!r}; give pairs as an array of rows"
        )
    return ids


def _checked_pairs(pairs, n_a, n_b):
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError(
            f"pairs must be a (k, 2) array of rows, not {pairs.dtype} of shape {pairs.shape}"
        )
    for column, n, name in ((0, n_a, "first"), (1, n_b, "second")):
        rows = pairs[:, column]
        if rows.size and (rows.min() < 0 or rows.max() >= n):
            raise ValueError(f"pairs names rows of the {name} survey beyond its {n}")
        if len(np.unique(rows)) < len(rows):
            raise ValueError(f"pairs names a row of the {name} survey more than once")
    return pairs.astype(int)
