"""Tables of latents: the matrix of features, the rows that can be used, the ids."""

import numpy as np

__all__ = ["as_features", "as_ids", "good_rows"]


def as_ids(table, name="id"):
    """Return the ids of a table's rows as strings, or None without an ``id`` column.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Table of latents or votes.
    name : str, optional
        What errors call the column.
    """
    if "id" not in table.colnames:
        return None
    values = table["id"]
    if np.ma.is_masked(values):
        raise ValueError(f"{name} holds masked values; every row needs its own")
    return np.asarray(values).astype(str)


def as_features(latents, column, name="latents"):
    """Return the feature matrix, (n, d) float64, of a table.

    Parameters
    ----------
    latents : `~astropy.table.Table`
        Table of latents or other features.
    column : str
        Column of shape (n, d), or (n,) for a single feature.
    name : str, optional
        What errors call the table.
    """
    if not hasattr(latents, "colnames"):
        raise TypeError(
            f"{name} must be a Table with a column {column!r}, not {type(latents).__name__}"
        )
    if column not in latents.colnames:
        raise ValueError(f"{name} has no column {column!r}, only {latents.colnames}")
    values = latents[column]
    values = np.ma.filled(np.ma.asarray(getattr(values, "value", values), dtype=float), np.nan)
    if values.ndim > 2:
        raise ValueError(f"{name}[{column!r}] has shape {values.shape}; (n, d) is needed")
    return values if values.ndim == 2 else values[:, None]


def good_rows(latents, X):
    """Return which rows are fit for use, (n,) bool: finite features and a status of "ok"."""
    good = np.isfinite(X).all(axis=1)
    if "status" in latents.colnames:
        good &= np.ma.filled(np.ma.asarray(latents["status"]).astype(str), "masked") == "ok"
    return good
