"""Map of the latents in two dimensions, coloured by label, with the galaxies themselves on it."""

import numpy as np

from .._optional import import_optional
from ..cutouts import as_cutout_set
from ._axes import COLOURS, MARKERS, NEUTRAL, label_text, make_axes
from ._colour import fit_scale

__all__ = ["plot_latent_map"]


def plot_latent_map(
    latents,
    labels=None,
    cutouts=None,
    *,
    method="pca",
    features="z_mean",
    n_thumbnails=60,
    thumbnail_size=0.075,
    zoom=1.0,
    bands=None,
    title=None,
    seed=0,
    ax=None,
):
    """Show where galaxies lie in latent space.

    Parameters
    ----------
    latents : `~astropy.table.QTable`
        Table with the column of features, (n, d), and where present ``status``.
    labels : (n,) array or column, optional
        Labels, masked where there are none, for one colour and marker each; or numbers, such as a
        vote fraction, for a colour scale.
    cutouts : CutoutSet, optional
        The galaxies, row-aligned; some are drawn where they lie, none over another.
    method : {"pca", "tsne", "umap"} or (n, 2) array
        How to come to two dimensions: principal components, t-SNE, UMAP (needs ``umap-learn``), or
        coordinates of one's own.
    features : str
        Column of features.
    n_thumbnails : int
        Largest number of galaxies drawn.
    thumbnail_size : float
        Their side, as a share of the Axes.
    zoom : float
        Show the central 1/zoom of each galaxy's cutout.
    bands : sequence of str, optional
        Bands to show as red, green and blue, see `plot_cutouts`.
    title : str, optional
        Title of the legend or colour scale, such as the question.
    seed : int
        Seed of t-SNE and UMAP.
    ax : `~matplotlib.axes.Axes`, optional
        Where to draw; a new figure by default.

    Returns
    -------
    `~matplotlib.axes.Axes`
        The map. A few galaxies far from all others may lie beyond its frame; it says how many.

    Raises
    ------
    ValueError
        If ``method`` is unknown, fewer than three rows are good, lengths do not match, or
        ``zoom`` is less than 1.
    """
    if zoom < 1:
        raise ValueError(f"zoom must be at least 1, not {zoom!r}")
    X = np.asarray(getattr(latents[features], "value", latents[features]), dtype=float)
    good = np.isfinite(X).all(axis=1)
    if "status" in latents.colnames:
        good &= np.ma.filled(np.ma.asarray(latents["status"]).astype(str), "") == "ok"
    for name, given in (("labels", labels), ("cutouts", cutouts)):
        if given is not None and len(given) != len(X):
            raise ValueError(f"{name} has {len(given)} rows, latents has {len(X)}")
    if good.sum() < 3:
        raise ValueError(f"latents has {good.sum()} good rows; a map needs at least 3")
    ax = make_axes(ax, "plot_latent_map", (6.4, 6.6))
    xy = np.full((len(X), 2), np.nan)
    xy[good], names = _project(X, good, method, seed)

    low, high = _frame(xy[good])
    colours = _draw_points(ax, xy, good, labels, title, with_images=cutouts is not None)
    if cutouts is not None:
        cutouts = as_cutout_set(cutouts)
        shown = good & np.asarray(cutouts.good)
        rows = _apart((xy - low) / (high - low), shown, thumbnail_size, n_thumbnails)
        side = thumbnail_size * (high - low)
        pictures = fit_scale(cutouts, bands)(cutouts.data[rows]) if len(rows) else ()
        inner = tuple(_central(n, zoom) for n in cutouts.size)
        for picture, row in zip(pictures, rows, strict=True):
            _thumbnail(ax, picture[inner], xy[row], side, colours[row])
    beyond = int(np.sum(((xy[good] < low) | (xy[good] > high)).any(axis=1)))
    if beyond:
        ax.text(
            0.99,
            0.01,
            f"{beyond} beyond the frame",
            size=8,
            color="#606060",
            ha="right",
            va="bottom",
            transform=ax.transAxes,
            zorder=4,
        )
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    ax.set_box_aspect(1)
    ax.set_aspect("auto")
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    if isinstance(method, str) and method != "pca":  # its axes carry no scale
        ax.set_xticks([])
        ax.set_yticks([])
    return ax


def _project(X, good, method, seed):
    """Return coordinates of the good rows, (n_good, 2), and the names of the axes."""
    if not isinstance(method, str):
        xy = np.asarray(method, dtype=float)
        if xy.shape != (len(X), 2):
            raise ValueError(f"method has shape {xy.shape}; coordinates are {(len(X), 2)}")
        return xy[good], ("first coordinate", "second coordinate")
    X = X[good]
    if method == "pca":
        from sklearn.decomposition import PCA

        if X.shape[1] < 2:
            raise ValueError("latents has 1 feature; a map needs at least 2")
        pca = PCA(2, svd_solver="full")
        xy = pca.fit_transform(X)
        share = 100 * pca.explained_variance_ratio_
        return xy, tuple(f"principal component {i + 1} ({share[i]:.0f} %)" for i in range(2))
    if method == "tsne":
        from sklearn.manifold import TSNE

        tsne = TSNE(2, init="pca", perplexity=min(30, (len(X) - 1) / 3), random_state=seed)
        return tsne.fit_transform(X), ("t-SNE 1", "t-SNE 2")
    if method == "umap":
        umap = import_optional("umap", needed_for="plot_latent_map(method='umap')")
        return umap.UMAP(random_state=seed).fit_transform(X), ("UMAP 1", "UMAP 2")
    raise ValueError(f"method={method!r} is none of 'pca', 'tsne', 'umap', nor coordinates")


def _frame(xy):
    """Return the corners of the frame: all galaxies, but for a few that would shrink the rest."""
    low, high = np.percentile(xy, [1, 99], axis=0, method="nearest")
    room = 0.35 * (high - low)
    near = xy[((xy >= low - room) & (xy <= high + room)).all(axis=1)]
    low, high = near.min(axis=0), near.max(axis=0)
    margin = 0.06 * np.where(high > low, high - low, 1)
    return low - margin, high + margin


def _central(n, zoom):
    """Return the slice of the central 1/zoom of n pixels."""
    cut = int(0.5 * n * (1 - 1 / zoom))
    return slice(cut, n - cut)


def _draw_points(ax, xy, good, labels, title, with_images):
    """Draw the points; return the colour of each row."""
    size = float(np.clip(9000 / max(good.sum(), 1), 5, 36))
    options = {"s": size, "linewidths": 0, "alpha": 0.75, "rasterized": bool(good.sum() > 5000)}
    colours = np.full(len(xy), NEUTRAL, dtype=object)
    if labels is None:
        ax.scatter(*xy[good].T, color=COLOURS[0], **options)
        colours[:] = COLOURS[0]
        return colours
    values = np.ma.asarray(labels)
    if values.dtype.kind == "f":
        known = good & np.isfinite(np.ma.filled(values, np.nan))
        numbers = np.ma.filled(values, np.nan).astype(float)
        ax.scatter(*xy[good & ~known].T, color=NEUTRAL, **options)
        points = ax.scatter(*xy[known].T, c=numbers[known], cmap="viridis", **options)
        bar = ax.figure.colorbar(points, cax=ax.inset_axes([1.02, 0, 0.035, 1]), label=title)
        bar.solids.set_alpha(1)
        bar.outline.set_visible(False)
        for row in np.flatnonzero(known):
            colours[row] = points.cmap(points.norm(numbers[row]))
        return colours

    text = label_text(values)
    names, counts = np.unique(text[good & (text != "unlabelled")], return_counts=True)
    names = [str(name) for name in names[np.argsort(-counts, kind="stable")]]
    if len(names) > len(COLOURS):
        names = names[: len(COLOURS)]
    rest = good & ~np.isin(text, names)
    if rest.any():
        other = "unlabelled" if set(text[rest]) == {"unlabelled"} else "other"
        ax.scatter(*xy[rest].T, color=NEUTRAL, label=f"{other} ({rest.sum()})", **options)
    for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
        rows = good & (text == name)
        ax.scatter(
            *xy[rows].T, color=colour, marker=marker, label=f"{name} ({rows.sum()})", **options
        )
        colours[rows] = colour
    handles, entries = ax.get_legend_handles_labels()
    if rest.any():
        handles, entries = handles[1:] + handles[:1], entries[1:] + entries[:1]
    legend = ax.legend(
        handles,
        entries,
        title=title,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=min(len(entries), 3 if max(map(len, entries), default=0) > 18 else 4),
        frameon=False,
        fontsize=9,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    for handle in legend.legend_handles:
        handle.set_sizes([32])
        handle.set_alpha(1)
    return colours


def _apart(place, shown, side, n):
    """Choose up to n rows whose pictures do not overlap, spread over the whole map.

    ``place`` is in shares of the Axes. Greedy from the middle of the densest parts outward would
    leave the rim empty; so the row farthest from all that are drawn comes next.
    """
    rows = np.flatnonzero(shown)
    inside = (place[rows] > 0.5 * side).all(axis=1) & (place[rows] < 1 - 0.5 * side).all(axis=1)
    rows = rows[inside]
    if not len(rows) or n < 1:
        return np.zeros(0, dtype=int)
    xy = place[rows]
    chosen = [int(np.argmin(np.abs(xy - np.median(xy, axis=0)).max(axis=1)))]
    distance = np.abs(xy - xy[chosen[0]]).max(axis=1)
    while len(chosen) < n:
        farthest = int(np.argmax(distance))
        if distance[farthest] < 1.12 * side:
            break
        chosen.append(farthest)
        distance = np.minimum(distance, np.abs(xy - xy[farthest]).max(axis=1))
    return rows[chosen]


def _thumbnail(ax, picture, centre, side, colour):
    patches = import_optional("matplotlib.patches", needed_for="plot_latent_map")
    corner = centre - 0.5 * side
    extent = (corner[0], corner[0] + side[0], corner[1], corner[1] + side[1])
    ax.imshow(picture, extent=extent, origin="lower", aspect="auto", zorder=3)
    ax.add_patch(patches.Rectangle(corner, *side, fc="none", ec=colour, lw=1.5, zorder=3.1))
